"""The one-pass engine in special situations against the loop engine; tests/gradients/test_engines.py has every case."""

from __future__ import annotations

import warnings

import pytest
import torch

from kvar.gradients.loop import loop_moments
from kvar.gradients.one_pass.engine import one_pass_moments
from tests.cases import CASES, build, rollouts
from tests.gradients.truth import assert_close, splits, weights

SINGLE = ("t5", "t5-v1.1", "mt5", "bart", "marian", "gpt2", "gpt-neox", "llama", "smollm", "qwen2", "qwen3", "gemma")
EXPERTS = ("qwen3-moe", "gpt-oss")


@pytest.fixture(autouse=True)
def no_fallback(recwarn: pytest.WarningsRecorder) -> None:
    """Every architecture here is covered by rules and operations: the fallback's warning would be an error."""
    warnings.filterwarnings("error", message="no rule covers")


@pytest.mark.parametrize("name", [*SINGLE, "opt-projected", *EXPERTS])
def test_float32(name: str) -> None:
    """Experts by grouped products, as transformers runs them by default."""
    model, data = build(name, torch.float32), rollouts()
    w, groups = weights(data, dtype=torch.float32), splits(model)
    assert_close(one_pass_moments(model, data, w, groups), loop_moments(model, data, w, groups), 1e-4)


@pytest.mark.parametrize("name", ["t5", "gpt2", "bart", "opt-projected"])
@pytest.mark.parametrize(("n", "t"), [(1, 6), (1, 1), (2, 2), (6, 6), (4, 4), (6, 1)])
def test_shapes_that_coincide(name: str, n: int, t: int) -> None:
    """N = 1, T = 1, and N equal to T or to the prompt's length, where a missing trajectory axis could hide."""
    model, data = build(name), rollouts(n=n, t=t)
    w, groups = weights(data), splits(model)
    truth = loop_moments(model, data, w, groups)
    assert_close(one_pass_moments(model, data, w, groups), truth, 1e-9)


@pytest.mark.parametrize("name", ["t5", "t5-v1.1", "gpt2", "bart", "opt-projected"])
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


@pytest.mark.parametrize("name", ["t5", "gpt2"])
def test_a_head_that_is_not_the_only_way_to_the_logits(name: str) -> None:
    """Its input reaches the logits past the head too, so that scaled rows can't begin there."""
    model, data = build(name), rollouts()
    body = model.decoder if name == "t5" else model.transformer
    seen: list[torch.Tensor] = []
    body.register_forward_hook(lambda module, args, output: seen.append(output[0]))

    def past_the_head(module: torch.nn.Module, args: tuple, out: torch.Tensor) -> torch.Tensor:
        return out + seen[-1][:, -out.shape[1] :].sum(-1, True).sin() * torch.arange(out.shape[-1])

    model.lm_head.register_forward_hook(past_the_head)
    w, groups = weights(data), splits(model)
    assert_close(one_pass_moments(model, data, w, groups), loop_moments(model, data, w, groups), 1e-9)


@pytest.mark.parametrize("name", ["t5", "llama"])
def test_callable(name: str) -> None:
    model, data = build(name), rollouts(n=7)
    groups = splits(model)
    target = torch.randn(2, *data.tokens.shape, dtype=torch.float64)

    def entropy(logits: torch.Tensor) -> torch.Tensor:
        log_p = logits.log_softmax(-1)
        return (-(log_p.exp() * log_p).sum(-1) * target * data.mask).sum(-1)

    truth = loop_moments(model, data, entropy, groups)
    for size in (None, 2):
        assert_close(one_pass_moments(model, data, entropy, groups, micro_batch=size), truth, CASES[name].tolerance)


@pytest.mark.parametrize("name", ["t5-v1.1", "gpt2", "qwen3"])
def test_frozen_parameters_are_left_alone(name: str) -> None:
    model, data = build(name), rollouts()
    parameters = list(model.parameters())
    for parameter in parameters[::2]:
        parameter.requires_grad_(False)
    flags = [p.requires_grad for p in parameters]
    w, groups = weights(data), {"all": [p for p in parameters if p.requires_grad]}
    assert_close(one_pass_moments(model, data, w, groups), loop_moments(model, data, w, groups), CASES[name].tolerance)
    assert [p.requires_grad for p in parameters] == flags
    assert all(p.grad is None for p in parameters)
    assert not any("forward" in vars(m) or "compute_bias" in vars(m) for m in model.modules())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_implementations(attention: str) -> None:
    for name in ("t5", "qwen2"):
        model, data = build(name), rollouts()
        model.set_attn_implementation(attention)
        w, groups = weights(data), splits(model)
        assert_close(
            one_pass_moments(model, data, w, groups), loop_moments(model, data, w, groups), CASES[name].tolerance
        )


def test_float64_parameters_with_an_empty_response() -> None:
    model, data = build("t5"), rollouts()
    mask = data.mask.clone()
    mask[0] = False
    data = type(data)(**{**vars(data), "mask": mask})
    w, groups = weights(data), splits(model)
    ours = one_pass_moments(model, data, w, groups)
    assert_close(ours, loop_moments(model, data, w, groups), 1e-9)
    assert float(ours["all"].sq_norm[:, 0].abs().max()) == 0.0


def test_bfloat16_autocast_keeps_nearly_two_digits() -> None:
    model, data = build("t5", torch.float32), rollouts()
    w, groups = weights(data, dtype=torch.float32), splits(model)
    truth = loop_moments(model, data, w, groups)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = one_pass_moments(model, data, w, groups)
    assert_close(ours, truth, 3e-2)


@pytest.mark.parametrize("name", ["qwen3-moe", "gpt-oss", "umt5", "mamba2"])
def test_parameters_shared_between_layers(name: str) -> None:
    """Experts, sinks, position biases and step sizes of one layer used by another as well."""
    model, data = build(name), rollouts()
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
    assert_close(one_pass_moments(model, data, w, groups), loop_moments(model, data, w, groups), 1e-6)


@pytest.mark.parametrize(("n", "t"), [(1, 3), (2, 2), (3, 3), (6, 6)])
@pytest.mark.parametrize("name", ["umt5", "gpt-oss", "mamba"])
def test_shapes_that_coincide_where_operations_are_measured(name: str, n: int, t: int) -> None:
    """N equal to T, where something common to all trajectories could pass for one row each."""
    model, data = build(name), rollouts(n=n, t=t)
    w, groups = weights(data), splits(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("default", message="no rule covers")  # slow is allowed here, wrong is not
        ours = one_pass_moments(model, data, w, groups)
    assert_close(ours, loop_moments(model, data, w, groups), 1e-6)


def test_nothing_is_left_on_the_rollouts_and_the_model() -> None:
    model, data = build("umt5"), rollouts()
    one_pass_moments(model, data, weights(data), splits(model))
    given = [value for value in vars(data).values() if isinstance(value, torch.Tensor)]
    for tensor in (*given, *model.parameters(), *model.buffers()):
        assert not any("kvar" in name for name in vars(tensor))
    assert not any("forward" in vars(module) or module._forward_pre_hooks for module in model.modules())
