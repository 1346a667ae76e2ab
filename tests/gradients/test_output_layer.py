"""The output-layer pass against the loop engine on the head's parameters."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from kvar.estimators import Terms, gather, parse_estimators
from kvar.gradients.loop import loop_moments
from kvar.gradients.output_layer.head_moments import _aligned, output_layer_moments, output_layer_pairs
from kvar.rollouts import token_logits
from tests.cases import build, rollouts
from tests.gradients.truth import assert_close, weights


def _inputs(model: nn.Module, data: object) -> tuple[torch.Tensor, torch.Tensor]:
    """(hidden, logits), aligned for an encoder-decoder model."""
    seen: list[torch.Tensor] = []
    hook = model.lm_head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    try:
        with torch.no_grad():
            logits = token_logits(model, data)
    finally:
        hook.remove()
    return seen[0], logits


@pytest.mark.parametrize("n", [1, 5, 9])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("e", [1, 6])
def test_equals_loop_on_the_head(n: int, bias: bool, e: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvar.gradients.products.token_gram._ROWS", 5)  # several blocks
    model, data = build("t5-v1.1"), rollouts(n=n)
    if bias:
        model.lm_head.bias = nn.Parameter(torch.randn(model.config.vocab_size, dtype=torch.float64))
    w = weights(data, e=e)
    hidden, logits = _inputs(model, data)
    ours = output_layer_moments(hidden, logits, data.tokens, data.mask, w, data.prompt_index, bias=bias)
    truth = loop_moments(model, data, w, {"all": list(model.lm_head.parameters())}, score_power=True)
    assert_close({"all": ours}, truth, 1e-9)
    monkeypatch.setattr(
        "kvar.gradients.output_layer.head_moments._CAP", 2 * data.tokens.shape[1] * model.config.vocab_size
    )
    pairs = output_layer_pairs(hidden, logits, data.tokens, data.mask, w, bias=bias)
    torch.testing.assert_close(pairs, truth["all"].pair, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n", [1, 9])
@pytest.mark.parametrize("bias", [False, True])
def test_exact_terms_equal_loop_on_the_head(n: int, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rewards' exact terms, a score's weights and a ratio in one measurement; pairs in several slices."""
    model, data = build("t5-v1.1"), rollouts(n=n)
    if bias:
        model.lm_head.bias = nn.Parameter(torch.randn(model.config.vocab_size, dtype=torch.float64))
    data = replace(data, log_probs=torch.full_like(data.log_probs, -2.0, dtype=torch.float64))
    names = "K=2, kl immediate exact, kl K=1 exact expected, jsd(0.3) immediate exact sequence-ratio, kl geometric(0.9)"
    estimators = parse_estimators(names)
    teacher = build("t5-v1.1")
    with torch.no_grad():
        teacher.lm_head.weight.mul_(-0.5)
    evidence = gather(model, teacher, data, estimators=estimators)
    assert float(evidence.sampled["kl"].abs().max()) > 0.1
    terms = Terms.of(estimators, evidence)
    hidden, logits = _inputs(model, data)
    ours = output_layer_moments(hidden, logits, data.tokens, data.mask, terms, data.prompt_index, bias=bias)
    truth = loop_moments(model, data, terms, {"all": list(model.lm_head.parameters())}, score_power=True)
    assert_close({"all": ours}, truth, 1e-9)
    monkeypatch.setattr(
        "kvar.gradients.output_layer.head_moments._CAP", 2 * data.tokens.shape[1] * model.config.vocab_size
    )
    pairs = output_layer_pairs(hidden, logits, data.tokens, data.mask, terms, bias=bias)
    torch.testing.assert_close(pairs, truth["all"].pair, rtol=1e-9, atol=1e-12)


def test_float32() -> None:
    model, data = build("t5-v1.1", torch.float32), rollouts()
    w = weights(data, dtype=torch.float32)
    hidden, logits = _inputs(model, data)
    ours = output_layer_moments(hidden, logits, data.tokens, data.mask, w, data.prompt_index)
    assert_close({"all": ours}, loop_moments(model, data, w, {"all": [model.lm_head.weight]}, score_power=True), 1e-4)


def test_wrong_shapes_name_the_field() -> None:
    data = rollouts()
    n, t = data.tokens.shape
    hidden, logits, w = torch.zeros(n, t, 4), torch.zeros(n, t, 23), torch.zeros(2, n, t)
    with pytest.raises(ValueError, match="hidden must begin"):
        output_layer_moments(hidden[:, 1:], logits, data.tokens, data.mask, w, data.prompt_index)
    with pytest.raises(ValueError, match="weights must have shape"):
        output_layer_moments(hidden, logits, data.tokens, data.mask, w[0], data.prompt_index)


@pytest.mark.parametrize(("count", "p", "v", "e"), [(40, 3, 4, 1), (7, 9, 11, 3)])
@pytest.mark.parametrize("bias", [False, True])
def test_both_ways_to_the_alignments(count: int, p: int, v: int, e: int, bias: bool) -> None:
    """Through the (V, p) sums where there are many tokens, by Grams where there are few."""
    g = torch.Generator().manual_seed(0)
    rows, residual, scaled = (torch.randn(*s, generator=g).double() for s in ((count, p), (count, v), (e, count)))
    kernel = (rows @ rows.T + bias) * (residual @ residual.T)
    torch.testing.assert_close(_aligned(rows, residual, scaled, bias), scaled @ kernel)
