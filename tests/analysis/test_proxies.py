"""Proxies of the gradient's variance: hand-worked values, and autograd one trajectory at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kvar.analysis.proxies import (
    effective_sample_share,
    gradient_norm,
    micro_batch_noise_scale,
    norm_layer_noise_scale,
    norm_layers,
    w_proxy,
)
from kvar.gradients import gradient_moments
from kvar.rollouts import Rollouts, token_logits
from tests.cases import build, rollouts
from tests.gradients.truth import weights as random_weights


def distinct_pairs(g: Tensor) -> float:
    """Mean inner product of two distinct rows, added up pair by pair."""
    n = len(g)
    return float(sum(g[i] @ g[j] for i in range(n) for j in range(n) if i != j)) / (n * (n - 1))


def gradients(model: nn.Module, data: Rollouts, w: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    """(N, P), grad of sum_t w_t log pi(y_t) of every trajectory in a pass of its own."""
    rows = []
    for i in range(len(data)):
        log_pi = token_logits(model, data[[i]]).log_softmax(-1)[0]
        some = data.mask[i]
        chosen = log_pi[some].gather(1, data.tokens[i][some][:, None])[:, 0]
        grads = torch.autograd.grad((w[i][some] * chosen).sum(), parameters)
        rows.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(rows).double()


# verl's proxy


def test_w_proxy_is_the_power_of_a_student_whose_parameters_are_its_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    n, t, v = 4, 3, 5
    logits = torch.randn(n, t, v, generator=generator, dtype=torch.float64, requires_grad=True)
    tokens = torch.randint(v, (n, t), generator=generator)
    mask = torch.arange(t) < torch.tensor([3, 1, 2, 3])[:, None]
    advantages = torch.randn(n, 1, generator=generator, dtype=torch.float64).expand(n, t)
    log_pi = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    squares = [
        float(torch.autograd.grad((advantages * log_pi)[i][mask[i]].sum(), logits, retain_graph=True)[0].square().sum())
        for i in range(n)
    ]
    pi = logits.detach().softmax(-1)
    power = 1 - 2 * pi.gather(-1, tokens[..., None])[..., 0] + pi.square().sum(-1)
    assert w_proxy(advantages, power, mask).power == pytest.approx(np.mean(squares), rel=1e-12)


def test_w_proxy_by_hand() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    advantages, power = torch.tensor([[1.0, 3.0], [2.0, 7.0]]), torch.tensor([[0.5, 1.0], [0.25, 9.0]])
    proxy = w_proxy(advantages, power, mask, gradient_norm=2.0)
    assert proxy.power == pytest.approx((4 * 1.5 + 4 * 0.25) / 2)
    assert (proxy.squared_advantage, proxy.score_power) == pytest.approx((4.0, 0.875))
    assert proxy.signal == 4.0
    assert proxy.noise == 0.0  # 3.5 - 4 is below zero
    ratios = torch.tensor([[2.0, 4.0], [1.0, 5.0]])
    assert w_proxy(advantages, power, mask, ratios=ratios).power == pytest.approx((9 * 6 + 1) / 2)
    assert w_proxy(advantages, power, mask).noise is None


# Two batch sizes


@pytest.mark.parametrize("small", [1, 2, 4])
def test_two_batch_sizes_give_the_mean_over_distinct_micro_batches(small: int) -> None:
    g = torch.randn(8, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    means = g.view(8 // small, small, 3).mean(dim=1)
    scale = micro_batch_noise_scale(float(means.square().sum(1).mean()), float(g.mean(0).square().sum()), small, 8)
    assert float(scale.signal) == pytest.approx(distinct_pairs(means))
    noise = float(means.square().sum(1).mean()) - distinct_pairs(means)  # of a mean over b, so 1/b of one's
    assert float(scale.trace) == pytest.approx(small * noise)
    assert float(scale.value) == pytest.approx(small * noise / distinct_pairs(means))


def test_no_signal_has_no_ratio() -> None:
    scale = micro_batch_noise_scale(np.array([4.0, 5.0]), np.array([1.0, 2.0]), 1, 4)
    assert np.isnan(scale.value[0])
    assert scale.value[1] == pytest.approx(4.0)


# Layers and steps


@pytest.mark.parametrize("name", ["t5", "gpt2", "qwen3"])  # gains alone; gains and biases; norms of queries and keys
def test_norm_layers_and_gradient_norm_by_autograd(name: str) -> None:
    model = build(name)
    data = rollouts(n=4)
    w = random_weights(data, e=1)
    norms = norm_layers(model)
    assert {p for n, p in model.named_parameters() if "norm" in n or "ln_" in n} == {
        p for n, p in model.named_parameters() if n in norms
    }
    moments = gradient_moments(model, data, w, groups={"norms": norms}, fields="norms")
    held = dict(model.named_parameters())
    g = gradients(model, data, w[0], [held[n] for n in norms])
    scale = norm_layer_noise_scale(moments)
    assert scale.signal[0] == pytest.approx(distinct_pairs(g), rel=1e-6)
    assert scale.trace[0] == pytest.approx(float(g.square().sum(1).mean()) - distinct_pairs(g), rel=1e-6)
    assert gradient_norm(moments, "norms")[0] == pytest.approx(float(g.mean(0).norm()), rel=1e-6)


# Importance weights


def test_effective_sample_size() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    assert effective_sample_share(torch.zeros(2, 2), mask) == 1.0  # on-policy
    ratios = torch.tensor([[2.0, 0.5], [3.0, 100.0]]).double().log()
    assert effective_sample_share(ratios, mask) == pytest.approx((1 + 3) ** 2 / (2 * (1 + 9)))
    assert effective_sample_share(ratios, mask, "token") == pytest.approx(5.5**2 / (3 * (4 + 0.25 + 9)))
    assert effective_sample_share(ratios + 900.0 * mask, mask, "token") == pytest.approx(5.5**2 / 39.75)  # no overflow


MASK = torch.tensor([[True, True], [True, False]])
ONES = torch.ones(2, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: w_proxy(torch.ones(2, 3), ONES, MASK), r"advantages and mask must both be \(N, T\); got \(2, 3\)"),
        (lambda: w_proxy(ONES, ONES * torch.nan, MASK), "logit_power is not finite"),
        (lambda: w_proxy(ONES, ONES, MASK & False), "a token in every response"),
        (lambda: w_proxy(ONES[:1], ONES[:1], MASK[:1], gradient_norm=1.0), "at least two responses; got 1"),
        (lambda: micro_batch_noise_scale(1.0, 1.0, 4, 4), "small must be positive and below large; got small=4"),
        (lambda: norm_layers(nn.Linear(2, 2)), "no trainable normalisation layer"),
        (lambda: effective_sample_share(ONES, MASK, "word"), "level must be 'sequence' or 'token'; got 'word'"),  # type: ignore[arg-type]
        (lambda: effective_sample_share(ONES, MASK & False), "no response token"),
        (lambda: effective_sample_share(ONES * torch.inf, MASK), "log_ratio is not finite"),
    ],
)
def test_bad_input_in_one_line(call, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
