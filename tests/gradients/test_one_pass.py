"""The one-pass engine against the loop engine, architecture by architecture."""

from __future__ import annotations

import warnings

import pytest
import torch

from kvar.gradients.one_pass.engine import one_pass_moments
from tests.gradients.one_pass_cases import CASES, assert_close, build, loop_moments, rollouts, splits, weights


@pytest.fixture(autouse=True)
def no_fallback(recwarn: pytest.WarningsRecorder) -> None:
    """Every architecture of the table is covered by rules: the fallback's warning would be an error."""
    warnings.filterwarnings("error", message="no rule covers")


@pytest.mark.parametrize("name", CASES)
def test_equals_loop(name: str) -> None:
    model, data = build(name), rollouts()
    w, groups = weights(data), splits(model)
    truth = loop_moments(model, data, w, groups, score_power=True)
    assert_close(one_pass_moments(model, data, w, groups, score_power=True), truth, CASES[name][1])


@pytest.mark.parametrize("name", CASES)
def test_micro_batches_and_norms(name: str) -> None:
    model, data = build(name), rollouts(n=9)
    w, groups = weights(data), splits(model)
    truth = loop_moments(model, data, w, groups)
    for size in (2, 4):
        assert_close(one_pass_moments(model, data, w, groups, micro_batch=size), truth, CASES[name][1], f"{size}")
    norms = one_pass_moments(model, data, w, groups, fields="norms", micro_batch=4)
    assert norms["all"].pair is None
    torch.testing.assert_close(norms["odd"].sq_norm, truth["odd"].sq_norm, rtol=1e-6, atol=0)
    torch.testing.assert_close(norms["odd"].mean_pair, truth["odd"].mean_pair, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_float32(name: str) -> None:
    model, data = build(name, torch.float32), rollouts()
    w, groups = weights(data, dtype=torch.float32), splits(model)
    assert_close(one_pass_moments(model, data, w, groups), loop_moments(model, data, w, groups), 1e-4)


@pytest.mark.parametrize("name", ["t5-tied", "gpt2", "bart", "opt"])
@pytest.mark.parametrize(("n", "t"), [(1, 6), (1, 1), (2, 2), (6, 6), (4, 4), (6, 1)])
def test_shapes_that_coincide(name: str, n: int, t: int) -> None:
    """N = 1, T = 1, and N equal to T or to the prompt's length, where a missing trajectory axis could hide."""
    model, data = build(name), rollouts(n=n, t=t)
    w, groups = weights(data), splits(model)
    truth = loop_moments(model, data, w, groups)
    assert_close(one_pass_moments(model, data, w, groups), truth, 1e-9)


@pytest.mark.parametrize("name", ["t5-tied", "t5-v1.1", "gpt2", "bart", "opt"])
@pytest.mark.parametrize("tokens", [True, False])
def test_the_head_by_tokens_or_by_sums(name: str, tokens: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to the means of a head, alone or tied to the embedding, whichever the sizes at hand call for."""
    asked = []
    monkeypatch.setattr("kvar.gradients.products.matrix._fewer", lambda *sizes: asked.append(sizes) or tokens)
    model, data = build(name), rollouts()
    w, groups = weights(data), splits(model)
    truth = loop_moments(model, data, w, groups)
    assert_close(one_pass_moments(model, data, w, groups), truth, 1e-9)
    norms = one_pass_moments(model, data, w, groups, fields="norms")["all"]
    torch.testing.assert_close(norms.mean_pair, truth["all"].mean_pair, rtol=1e-9, atol=1e-12)
    assert asked


@pytest.mark.parametrize("name", ["t5-tied", "gpt2"])
def test_a_head_that_is_not_the_only_way_to_the_logits(name: str) -> None:
    """Its input reaches the logits past the head too, so that scaled rows can't begin there."""
    model, data = build(name), rollouts()
    body = model.decoder if name == "t5-tied" else model.transformer
    seen: list[torch.Tensor] = []
    body.register_forward_hook(lambda module, args, output: seen.append(output[0]))

    def past_the_head(module: torch.nn.Module, args: tuple, out: torch.Tensor) -> torch.Tensor:
        return out + seen[-1][:, -out.shape[1] :].sum(-1, True).sin() * torch.arange(out.shape[-1])

    model.lm_head.register_forward_hook(past_the_head)
    w, groups = weights(data), splits(model)
    assert_close(one_pass_moments(model, data, w, groups), loop_moments(model, data, w, groups), 1e-9)


@pytest.mark.parametrize("name", ["t5-tied", "llama"])
def test_callable(name: str) -> None:
    model, data = build(name), rollouts(n=7)
    groups = splits(model)
    target = torch.randn(2, *data.tokens.shape, dtype=torch.float64)

    def entropy(logits: torch.Tensor) -> torch.Tensor:
        log_p = logits.log_softmax(-1)
        return (-(log_p.exp() * log_p).sum(-1) * target * data.mask).sum(-1)

    truth = loop_moments(model, data, entropy, groups)
    for size in (None, 2):
        assert_close(one_pass_moments(model, data, entropy, groups, micro_batch=size), truth, CASES[name][1])


@pytest.mark.parametrize("name", ["t5-v1.1", "gpt2", "qwen3"])
def test_frozen_parameters_are_left_alone(name: str) -> None:
    model, data = build(name), rollouts()
    parameters = list(model.parameters())
    for parameter in parameters[::2]:
        parameter.requires_grad_(False)
    flags = [p.requires_grad for p in parameters]
    w, groups = weights(data), {"all": [p for p in parameters if p.requires_grad]}
    assert_close(one_pass_moments(model, data, w, groups), loop_moments(model, data, w, groups), CASES[name][1])
    assert [p.requires_grad for p in parameters] == flags
    assert all(p.grad is None for p in parameters)
    assert not any("forward" in vars(m) or "compute_bias" in vars(m) for m in model.modules())


@pytest.mark.parametrize("name", ["t5-tied", "llama"])
def test_lora(name: str) -> None:
    peft = pytest.importorskip("peft")
    model = build(name)
    targets = ["q", "v", "wo"] if name == "t5-tied" else ["q_proj", "down_proj"]
    kind = "SEQ_2_SEQ_LM" if name == "t5-tied" else "CAUSAL_LM"
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=targets, task_type=kind)).double().eval()
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    data = rollouts()
    w, groups = weights(data), splits(adapted)
    assert all("lora" in name for name, p in adapted.named_parameters() if p.requires_grad)
    assert_close(one_pass_moments(adapted, data, w, groups), loop_moments(adapted, data, w, groups), CASES[name][1])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_implementations(attention: str) -> None:
    for name in ("t5-tied", "qwen2"):
        model, data = build(name), rollouts()
        model.set_attn_implementation(attention)
        w, groups = weights(data), splits(model)
        assert_close(one_pass_moments(model, data, w, groups), loop_moments(model, data, w, groups), CASES[name][1])


def test_float64_parameters_with_an_empty_response() -> None:
    model, data = build("t5-tied"), rollouts()
    mask = data.mask.clone()
    mask[0] = False
    data = type(data)(**{**vars(data), "mask": mask})
    w, groups = weights(data), splits(model)
    ours = one_pass_moments(model, data, w, groups)
    assert_close(ours, loop_moments(model, data, w, groups), 1e-9)
    assert float(ours["all"].sq_norm[:, 0].abs().max()) == 0.0


def test_bfloat16_autocast_keeps_nearly_two_digits() -> None:
    model, data = build("t5-tied", torch.float32), rollouts()
    w, groups = weights(data, dtype=torch.float32), splits(model)
    truth = loop_moments(model, data, w, groups)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = one_pass_moments(model, data, w, groups)
    assert_close(ours, truth, 3e-2)
