"""The loop engine against gradients formed by plain ``backward`` on the whole model, and against enumeration."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kvar.analysis.exact import TokenMDP, moments_of
from kvar.gradients import gradient_moments
from kvar.returns import Geometric, Immediate, KStep, returns
from kvar.rollouts import Rollouts, token_logits

FIELDS = ("sq_norm", "mean_pair", "alignment", "cross", "pair", "prompt_pair")
VOCAB = 11


def tiny_gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCAB,
            n_positions=32,
            n_embd=8,
            n_layer=2,
            n_head=2,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    ).double()


def tiny_t5() -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCAB,
            d_model=8,
            d_kv=4,
            d_ff=16,
            num_layers=1,
            num_heads=2,
            decoder_start_token_id=0,
            pad_token_id=0,
        )
    ).double()


STUDENTS = {"gpt2": tiny_gpt2, "t5": tiny_t5}


def make_rollouts(lengths: list[int], seed: int = 0) -> Rollouts:
    generator = torch.Generator().manual_seed(seed)
    n, s, t = len(lengths), 4, max(lengths)
    prompt_mask = torch.ones(n, s, dtype=torch.bool)
    prompt_mask[1, :2] = False  # one prompt is padded on the left
    return Rollouts(
        prompt_ids=torch.randint(1, VOCAB, (n, s), generator=generator),
        prompt_mask=prompt_mask,
        tokens=torch.randint(1, VOCAB, (n, t), generator=generator),
        mask=torch.arange(t) < torch.tensor(lengths)[:, None],
        finished=torch.ones(n, dtype=torch.bool),
        prompt_index=torch.tensor([7, 7, 3, 3, 5])[:n],
        log_probs=torch.zeros(n, t),
    )


def backward_gradients(
    student: nn.Module, rollouts: Rollouts, weights: torch.Tensor, parameters: list[nn.Parameter]
) -> torch.Tensor:
    """(E, N, P), from the padded batch, by ``.backward()``."""
    rows = []
    for e in range(weights.shape[0]):
        for i in range(len(rollouts)):
            student.zero_grad()
            log_probs = token_logits(student, rollouts).log_softmax(-1).gather(2, rollouts.tokens[..., None])[..., 0]
            (weights[e, i] * log_probs[i])[rollouts.mask[i]].sum().backward()
            rows.append(torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]))
    student.zero_grad()
    return torch.stack(rows).view(weights.shape[0], len(rollouts), -1)


@pytest.mark.parametrize("name", STUDENTS)
def test_every_field_equals_plain_backward(name: str) -> None:
    torch.manual_seed(0)
    student = STUDENTS[name]().eval()
    rollouts = make_rollouts([6, 3, 1, 5, 0])
    weights = torch.randn(3, 5, 6, dtype=torch.float64)
    half = list(student.parameters())[:3]
    found = gradient_moments(student, rollouts, weights, engine="loop", groups={"half": half, "again": half[:1]})
    groups = {"all": list(student.parameters()), "half": half, "again": half[:1]}
    assert list(found) == list(groups)
    for group, parameters in groups.items():
        truth = moments_of(backward_gradients(student, rollouts, weights, parameters), rollouts.prompt_index)
        for field in FIELDS:
            got, want = getattr(found[group], field), getattr(truth["all"], field)
            assert got.dtype == torch.float64 and got.device.type == "cpu"
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10 * float(want.abs().max()))
    assert found.prompts.tolist() == [3, 5, 7]
    assert found.sq_norm[:, 4].tolist() == [0.0, 0.0, 0.0]  # an empty response has no gradient


@pytest.mark.parametrize("name", STUDENTS)
def test_a_callable_gives_the_same_as_its_token_weights(name: str) -> None:
    torch.manual_seed(0)
    student = STUDENTS[name]()
    rollouts = make_rollouts([4, 3, 1])
    weights = torch.randn(2, 3, 4, dtype=torch.float64)

    def scalars(logits: torch.Tensor) -> torch.Tensor:
        log_probs = logits.log_softmax(-1).gather(2, rollouts.tokens[..., None])[..., 0]
        return (weights * rollouts.mask * log_probs).sum(-1)

    by_weight = gradient_moments(student, rollouts, weights, engine="loop")
    by_call = gradient_moments(student, rollouts, scalars, engine="loop")
    for field in FIELDS:
        torch.testing.assert_close(getattr(by_call, field), getattr(by_weight, field), rtol=1e-9, atol=1e-12)


def test_score_power_is_the_sum_of_single_token_norms() -> None:
    torch.manual_seed(0)
    student, rollouts = tiny_gpt2().eval(), make_rollouts([3, 2, 1])
    weights = torch.eye(3, dtype=torch.float64)[:, None].expand(3, 3, 3)  # estimator t: token t alone
    truth = backward_gradients(student, rollouts, weights, list(student.parameters())).pow(2).sum(dim=(0, 2))
    found = gradient_moments(student, rollouts, weights[:1], engine="loop", score_power=True, fields="norms")
    torch.testing.assert_close(found.score_power, truth)
    assert found.pair is None and found.cross is None and found.alignment is None and found.prompt_pair is None


def test_gradients_recomputed_in_the_second_pass_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    student, rollouts = tiny_gpt2(), make_rollouts([3, 2, 1])
    weights = torch.randn(2, 3, 3)
    held = gradient_moments(student, rollouts, weights, engine="loop")
    monkeypatch.setattr("kvar.gradients.loop._HELD", 0)
    again = gradient_moments(student, rollouts, weights, engine="loop")
    for field in FIELDS:
        assert torch.equal(getattr(held, field), getattr(again, field))


def test_frozen_parameters_are_left_out() -> None:
    torch.manual_seed(0)
    student, rollouts = tiny_gpt2().eval(), make_rollouts([3, 2])
    weights = torch.randn(1, 2, 3, dtype=torch.float64)
    for p in student.transformer.h[0].parameters():
        p.requires_grad_(False)
    rest = [p for p in student.parameters() if p.requires_grad]
    truth = backward_gradients(student, rollouts, weights, rest).pow(2).sum(-1)
    torch.testing.assert_close(gradient_moments(student, rollouts, weights, engine="loop").sq_norm, truth)


@pytest.mark.parametrize("state", ["prefix", "last-token"])
@pytest.mark.parametrize("baseline", [None, "teacher-value"])
def test_the_mean_over_all_responses_is_the_enumerated_mean(state: str, baseline: str | None) -> None:
    mdp = TokenMDP(3, 4, seed=3, prompts=2, state=state)
    rollouts, values = mdp.responses()
    kernels = [KStep(1), KStep(2), KStep(3, "free"), Geometric(0.7), Immediate()]
    p = mdp.probabilities
    # trajectories are weighted by probability: then N gbar = E g
    weights = returns(values, rollouts.mask, kernels, baseline=baseline) * p[None, :, None]
    found = gradient_moments(mdp.student, rollouts, weights, engine="loop")
    exact = [mdp.exact(kernel, baseline) for kernel in kernels]
    means = torch.stack([e.mean for e in exact])
    torch.testing.assert_close(found.mean_pair * len(rollouts) ** 2, means @ means.T, rtol=1e-10, atol=1e-14)
    second = (found.sq_norm / p).sum(dim=1)
    torch.testing.assert_close(second, torch.tensor([e.second_moment for e in exact], dtype=torch.float64))


def test_a_callable_must_return_differentiable_scalars() -> None:
    student, rollouts = tiny_gpt2(), make_rollouts([3, 2])
    with pytest.raises(ValueError, match=r"must return \(E, N\) scalars, N = 2"):
        gradient_moments(student, rollouts, lambda logits: logits.sum(), engine="loop")
    with pytest.raises(ValueError, match="without a gradient"):
        gradient_moments(student, rollouts, lambda logits: logits.detach().sum((1, 2))[None], engine="loop")
