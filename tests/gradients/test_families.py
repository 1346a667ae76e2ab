"""The one-pass engine on families beyond linear maps and plain norms: exact in float64, and never by whole passes."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from kvar.gradients.one_pass.engine import one_pass_moments
from kvar.rollouts import Rollouts, token_logits
from tests.gradients.families import FAMILIES, family
from tests.gradients.one_pass_cases import assert_close, loop_moments, rollouts, splits, weights

TOLERANCE = 1e-6
"""Some norms and scans are float32 by themselves."""


@pytest.fixture(autouse=True)
def no_whole_passes() -> None:
    warnings.filterwarnings("error", message="no rule covers")


def _gradients(model: nn.Module, data: Rollouts, w: torch.Tensor, parameters: list[nn.Parameter]) -> torch.Tensor:
    """(E, N, P): every trajectory's gradient by plain autograd, one forward pass each."""
    rows = []
    for i in range(len(data)):
        log_probs = token_logits(model, data[[i]]).log_softmax(-1).gather(2, data.tokens[[i]][..., None])[0, :, 0]
        row = []
        for weight in w[:, i]:
            grads = torch.autograd.grad(
                (weight * log_probs).sum(), parameters, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            row.append(torch.cat([g.flatten() for g in grads]))
        rows.append(torch.stack(row))
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("name", FAMILIES)
def test_equals_autograd_trajectory_by_trajectory(name: str) -> None:
    model, data = family(name), rollouts()
    w, groups = weights(data), splits(model)
    ours = one_pass_moments(model, data, w, groups)
    for group, parameters in groups.items():
        g = _gradients(model, data, w, parameters)
        mean = g.mean(dim=1)
        prompts = [torch.stack([g[:, i] for i in range(len(data)) if data.prompt_index[i] == p]).mean(dim=0)
                   for p in data.prompt_index.unique()]  # fmt: skip
        wanted = {
            "sq_norm": g.square().sum(dim=2),
            "mean_pair": mean @ mean.T,
            "pair": torch.einsum("eip,fip->efi", g, g),
            "cross": torch.einsum("eip,fp->efi", g, mean),
            "prompt_pair": torch.stack([m @ m.T for m in prompts], dim=2),
        }
        for field, value in wanted.items():
            error = (getattr(ours[group], field) - value).norm() / value.norm()
            assert error <= TOLERANCE, f"{group}.{field}: {error:.1e}"


@pytest.mark.parametrize("name", FAMILIES)
def test_micro_batches_norms_and_scores(name: str) -> None:
    model, data = family(name), rollouts(n=4, t=3)
    w, groups = weights(data, e=2), splits(model)
    truth = loop_moments(model, data, w, groups, score_power=True)
    ours = one_pass_moments(model, data, w, groups, score_power=True, micro_batch=3)
    assert_close(ours, truth, TOLERANCE)
    norms = one_pass_moments(model, data, w, groups, fields="norms")["odd"]
    torch.testing.assert_close(norms.sq_norm, truth["odd"].sq_norm, rtol=1e-5, atol=1e-12)
    torch.testing.assert_close(norms.mean_pair, truth["odd"].mean_pair, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("name", ["qwen3-moe", "gpt-oss"])
def test_experts_in_float32_by_grouped_products(name: str) -> None:
    """As transformers runs them by default."""
    model, data = family(name, torch.float32), rollouts()
    w, groups = weights(data, dtype=torch.float32), splits(model)
    assert_close(one_pass_moments(model, data, w, groups), loop_moments(model, data, w, groups), 1e-4)


@pytest.mark.parametrize("name", ["qwen3-moe", "gpt-oss", "umt5", "mamba2"])
def test_parameters_shared_between_layers(name: str) -> None:
    """Experts, sinks, position biases and step sizes of one layer used by another as well."""
    model, data = family(name), rollouts()
    if name == "umt5":
        first, second = (block.layer[0].SelfAttention for block in model.encoder.block)
        second.relative_attention_bias.weight = first.relative_attention_bias.weight
    elif name == "mamba2":
        first, second = (layer.mixer for layer in model.backbone.layers)
        second.A_log, second.dt_bias, second.conv1d.weight = first.A_log, first.dt_bias, first.conv1d.weight
    else:
        first, second = model.model.layers
        second.mlp.experts = first.mlp.experts
        if name == "gpt-oss":
            second.self_attn.sinks = first.self_attn.sinks
    w, groups = weights(data), splits(model)
    assert_close(one_pass_moments(model, data, w, groups), loop_moments(model, data, w, groups), TOLERANCE)


@pytest.mark.parametrize(("n", "t"), [(1, 3), (2, 2), (3, 3), (6, 6)])
@pytest.mark.parametrize("name", ["umt5", "gpt-oss", "mamba"])
def test_shapes_that_coincide(name: str, n: int, t: int) -> None:
    """N equal to T, where something common to all trajectories could pass for one row each."""
    model, data = family(name), rollouts(n=n, t=t)
    w, groups = weights(data), splits(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("default", message="no rule covers")  # slow is allowed here, wrong is not
        ours = one_pass_moments(model, data, w, groups)
    assert_close(ours, loop_moments(model, data, w, groups), TOLERANCE)


def test_nothing_is_left_on_the_rollouts_and_the_model() -> None:
    model, data = family("umt5"), rollouts()
    one_pass_moments(model, data, weights(data), splits(model))
    given = [value for value in vars(data).values() if isinstance(value, torch.Tensor)]
    for tensor in (*given, *model.parameters(), *model.buffers()):
        assert not any("kvar" in name for name in vars(tensor))
    assert not any("forward" in vars(module) or module._forward_pre_hooks for module in model.modules())
