"""One architecture held against autograd and decoding written out here: forward passes over single prefixes."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kvar.gradients import gradient_moments
from kvar.rollouts import Rollouts, log_probs, sample, token_logits
from tests.architectures.tiny import build

__all__ = ["Outcome", "judged"]

PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12, 13], [14, 15], [16, 17, 18, 5]]
STEPS = 4


@dataclass(frozen=True)
class Outcome:
    """What came of one architecture.

    Attributes:
        state: "right", "refused", "not built" or "wrong".
        decoding: "cached", "by length" or "without cache".
        slow: parameters that the engine measured one trajectory at a time.
        dtype: of the comparison.
        words: the reason of a refusal, or what is wrong.
    """

    state: str
    decoding: str = ""
    slow: int = 0
    dtype: str = ""
    words: str = ""


def judged(kind: str, auto: str) -> Outcome:
    """The outcome of one model type under one auto class, in float64, else in float32.

    What computes in float32 inside, or masks by the smallest float32, is no model in float64.
    """
    try:
        model = build(kind, auto)
    except Exception as error:  # what the config of this architecture wants beyond sizes: the table names it
        return Outcome("not built", words=f"{type(error).__name__}: {' '.join(str(error).split())[:160]}")
    outcome = Outcome("")
    for dtype in (torch.float64, torch.float32):
        try:
            outcome = _compared(model.to(dtype))
        except Exception as error:  # a refusal is right, anything else is a fault
            words = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            outcome = Outcome("refused" if "is refused" in words else "wrong", words=words)
        if outcome.state == "right":
            break
    return outcome


def _compared(model: Any) -> Outcome:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rollouts = sample(model, PROMPTS, rollouts_per_prompt=2, max_new_tokens=STEPS, seed=0, eos_token_id=1)
        rollouts = rollouts[[0, 2, 5]]
        weights = torch.randn(1, *rollouts.tokens.shape, generator=torch.Generator().manual_seed(1))
        made = gradient_moments(model, rollouts, weights, fields="norms")["all"].sq_norm[0]
    dtype = next(model.parameters()).dtype
    tolerance = 1e-5 if dtype == torch.float64 else 1e-3
    scored = log_probs(model, rollouts).detach()
    with torch.no_grad():
        everything = token_logits(model, rollouts).log_softmax(-1)
    wrong, norms = [], []
    for i, length in enumerate(rollouts.lengths.tolist()):
        log_pi = torch.stack([_plain(model, rollouts, i, t) for t in range(length)]).log_softmax(-1)
        truth = log_pi.gather(1, rollouts.tokens[i, :length, None])[:, 0]
        wrong += _apart("token_logits", everything[i, :length], log_pi, tolerance)
        wrong += _apart("log_probs", scored[i, :length], truth, tolerance)
        wrong += _apart("sampled log_probs", rollouts.log_probs[i, :length], truth, max(tolerance, 2e-5))
        norms.append(_sq_norm((weights[0, i, :length].to(truth) * truth).sum(), model))
    expected = torch.tensor(norms, dtype=torch.float64)
    relative = float(((made - expected).abs() / expected).max())
    if not relative <= 10 * tolerance:
        wrong.append(f"gradient_moments off by {relative:.1e}")
    said = " ".join(str(w.message) for w in caught)
    decoding = "cached"
    if "falls back to" in said:
        decoding = "by length" if "falls back to prompts of one length" in said else "without cache"
    state = "wrong" if wrong else "right"
    return Outcome(state, decoding, _slow(said), str(dtype).removeprefix("torch."), "; ".join(wrong[:3]))


def _plain(model: Any, rollouts: Rollouts, i: int, t: int) -> Tensor:
    """(V,) logits behind the first t response tokens of row i, from the model called as its users call it."""
    prompt, prefix = rollouts.prompt_ids[i][rollouts.prompt_mask[i]], rollouts.tokens[i, :t]
    if model.config.is_encoder_decoder:
        start = torch.tensor([model.config.decoder_start_token_id])
        decoder = torch.cat([start, prefix])[None]
        return model(input_ids=prompt[None], decoder_input_ids=decoder, use_cache=False).logits[0, -1]
    ids = torch.cat([prompt, prefix])[None]
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, -1]


def _sq_norm(total: Tensor, model: Any) -> float:
    parameters = [p for p in model.parameters() if p.requires_grad]
    grads = torch.autograd.grad(total, parameters, allow_unused=True)
    return sum(float((g.double() ** 2).sum()) for g in grads if g is not None)


def _apart(name: str, made: Tensor, truth: Tensor, tolerance: float) -> list[str]:
    difference = float((made.double() - truth.detach().double()).abs().max())
    return [] if difference <= tolerance else [f"{name} off by {difference:.1e}"]


def _slow(said: str) -> int:
    """Parameters that the engine's warning names or counts."""
    match = re.search(r"no rule covers (.*?): these are measured", said)
    if match is None:
        return 0
    more = re.search(r" and (\d+) more", match[1])
    return len(match[1].split(", ")) + (int(more[1]) if more else 0)
