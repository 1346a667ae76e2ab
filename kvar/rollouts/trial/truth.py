"""A trial at first use: sampling, scoring and gradients use the logits that a model gives each prefix alone.

The reference is a forward pass over one unpadded prefix, without a cache. Three prompts of different lengths and a few
given tokens are tried, once for each model. A model whose logits of a prefix change with later tokens, or in a padded
batch, is refused: its policy has no gradient that could be measured. Where only cached decoding is wrong, the model is
decoded in a slower, exact way, with one warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from kvar.rollouts.decoding.cached import CachedDecoding
from kvar.rollouts.decoding.decoding import Decoding
from kvar.rollouts.decoding.exact import DecodingByLength, DecodingWithoutCache
from kvar.rollouts.forward import decoder_start, is_encoder_decoder, token_logits, unwrapped
from kvar.rollouts.modes import undisturbed
from kvar.rollouts.policy import Policy
from kvar.rollouts.sharded import is_sharded
from kvar.rollouts.trial.cases import STEPS, Trial, draws, largest_difference, make_trial
from kvar.rollouts.trial.longer import check_length
from kvar.rollouts.types import Rollouts

__all__ = ["check_model", "check_rollouts", "decoding_of", "unchecked"]

Way: TypeAlias = type[Decoding]


@dataclass
class _Verdict:
    """The result of one model's trial; ``way`` is None until the model is first sampled from."""

    refusal: str | None
    way: Way | None = None


_KNOWN: WeakKeyDictionary[nn.Module, dict[tuple, _Verdict]] = WeakKeyDictionary()
_ENABLED = [True]


@contextmanager
def unchecked() -> Iterator[None]:
    """Skip the trial while the block runs, in all functions that take ``check``."""
    _ENABLED.append(False)
    try:
        yield
    finally:
        _ENABLED.pop()


def check_model(model: nn.Module, prompt_ids: Tensor, prompt_mask: Tensor, policy: Policy | None) -> None:
    """Refuse a model whose logits over rollouts are not those of each prefix on its own; tried once a model.

    Args:
        model: of transformers, or a wrapper of one; other modules are not tried.
        prompt_ids: (M, S) int64; the trial's prompts are cut from them.
        prompt_mask: (M, S) bool.
        policy: the action set; None for all tokens.

    Raises:
        ValueError: what differs, by how much, and the remedy.
    """
    _verdict(model, prompt_ids, prompt_mask, policy)


def check_rollouts(model: nn.Module, rollouts: Rollouts, *, drawn: bool = False) -> None:
    """As :func:`check_model` for the rollouts' prompts, and the same at the rollouts' length if they are long.

    ``drawn`` says whether ``rollouts.log_probs`` are this model's, to be compared as well.
    """
    device = next(model.parameters()).device
    verdict = _verdict(model, rollouts.prompt_ids.to(device), rollouts.prompt_mask.to(device), rollouts.policy)
    if verdict is not None:
        check_length(model, rollouts, _key(model, rollouts.policy), drawn=drawn)


def decoding_of(model: nn.Module, prompt_ids: Tensor, prompt_mask: Tensor, policy: Policy | None) -> Way:
    """The fastest decoding class that samples from the scored policy; arguments and errors of :func:`check_model`."""
    verdict = _verdict(model, prompt_ids, prompt_mask, policy)
    if verdict is None:
        return CachedDecoding
    if verdict.way is None:
        with undisturbed(model), torch.no_grad():
            trial = make_trial(model, prompt_ids, prompt_mask, policy)
            if trial is None:
                return CachedDecoding
            verdict.way = _exact_way(model, trial)
    return verdict.way


def _verdict(model: nn.Module, prompt_ids: Tensor, prompt_mask: Tensor, policy: Policy | None) -> _Verdict | None:
    """The verdict on a model, tried now if it is new; None where the trial decides nothing."""
    if not _ENABLED[-1] or getattr(getattr(model, "config", None), "model_type", None) is None or not len(prompt_ids):
        return None
    if is_sharded(model):  # a trial's passes depend on the process's own prompts; the model is tried where it is whole
        return None
    known = _KNOWN.setdefault(model, {})
    key = _key(model, policy)
    if key not in known:
        refusal = _refusal(model, prompt_ids, prompt_mask, policy)
        if refusal is None:
            return None
        known[key] = _Verdict(refusal)
    if known[key].refusal:
        raise ValueError(known[key].refusal)
    return known[key]


def _key(model: Any, policy: Policy | None) -> tuple:
    """What the logits depend on besides the weights."""
    config, parameter = model.config, next(model.parameters())
    return (
        *(str(getattr(config, name, None)) for name in ("_attn_implementation", "is_decoder", "attention_type")),
        str(getattr(model, "active_adapter", None)) if hasattr(model, "peft_config") else None,
        parameter.dtype,
        parameter.device,
        torch.is_autocast_enabled(parameter.device.type),
        None if policy is None else policy.forced,
        draws(policy, getattr(config, "pad_token_id", None)),
    )


def _refusal(model: nn.Module, prompt_ids: Tensor, prompt_mask: Tensor, policy: Policy | None) -> str | None:
    """Why the model cannot be used, "" if it can; None where the trial decides nothing."""
    name = type(unwrapped(model)).__name__
    if getattr(model.config, "attention_type", None) == "block_sparse":
        return (
            f"{name} is refused: with attention_type 'block_sparse' it turns itself to full attention, for good, "
            "at its first short input: its policy depends on what it has read. Load it with "
            "attention_type='original_full'."
        )
    if is_encoder_decoder(model):
        decoder_start(model)  # raises an error with the remedy
    with undisturbed(model), torch.no_grad():
        try:
            trial = make_trial(model, prompt_ids, prompt_mask, policy)
            if trial is None:
                return None
            causal = largest_difference(trial.whole, trial.truth)
            if causal:
                return (
                    f"{name} is refused: a token's log-probability changes by {causal:.2g} when later tokens follow, "
                    "so it is no causal language model as it is configured and its policy is not defined. "
                    f"{_not_causal(model)}"
                )
            batch = largest_difference(token_logits(model, trial.rollouts), trial.truth)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            # no verdict is kept, since the ids may be at fault
            raise ValueError(
                f"{name} is refused: its forward pass over token ids fails ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}). The ids must be tokens that it "
                "knows, and the model one that takes input_ids and attention_mask alone."
            ) from error
    if batch:
        return (
            f"{name} is refused: a token's log-probability changes by {batch:.2g} when its row stands in a padded "
            "batch, so the rows depend on each other (as experts of limited capacity make them) or on padding. "
            "Raise the experts' capacity, or choose another model."
        )
    return ""


def _not_causal(model: Any) -> str:
    if getattr(model.config, "is_decoder", None) is False and not is_encoder_decoder(model):
        return "Load it with config.is_decoder=True, if its family has a decoder."
    return "Choose a model that attends to earlier tokens only."


def _exact_way(model: Any, trial: Trial) -> Way:
    """The first exact way to decode; warns where it is not the fastest."""
    ways: dict[Way, str] = {CachedDecoding: ""}
    if not is_encoder_decoder(model):
        ways[DecodingByLength] = "prompts of one length at a time"
    ways[DecodingWithoutCache] = "a whole forward pass for each token, without a cache"
    name, wrong = type(unwrapped(model)).__name__, ""
    for number, (way, words) in enumerate(ways.items()):
        reason = _wrong_by(model, trial, way)
        if reason is None:
            if wrong:
                remedy = _remedy(model, trial, list(ways)[:number])
                warnings.warn(
                    f"decoding {name} falls back to {words}: {wrong}. Samples are exact, and slower.{remedy}",
                    stacklevel=5,
                )
            return way
        wrong = reason
    raise ValueError(f"{name} is refused: it cannot be decoded exactly ({wrong}). Choose another model.")


def _wrong_by(model: Any, trial: Trial, way: Way) -> str | None:
    """The error of a way to decode, repeated and dropped rows included, in words; None if it is exact."""
    given = "a cache" if way is DecodingByLength else "a cache and padding"
    if is_encoder_decoder(model):
        given = "a cache"
    try:
        difference = _decoded_difference(model, trial, way)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        return f"with {given} it fails ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
    return f"with {given} its log-probabilities are off by {difference:.2g}" if difference else None


def _decoded_difference(model: Any, trial: Trial, way: Way) -> float:
    rollouts, repeats = trial.rollouts, 2
    decoding = way(model, rollouts.prompt_ids, rollouts.prompt_mask, repeats, STEPS, rollouts.policy)
    rows = torch.arange(len(rollouts), device=rollouts.tokens.device).repeat_interleave(repeats)
    worst = largest_difference(decoding.logits, trial.truth[rows, 0])
    for t in range(1, STEPS):
        if t == 1 and decoding.by_rows:  # one row of two prompts, both of the third
            stay = torch.tensor([0, 3, 4, 5], device=rows.device)
            decoding.keep(stay)
            rows = rows[stay]
        decoding.step(rollouts.tokens[rows, t - 1])
        worst = max(worst, largest_difference(decoding.logits, trial.truth[rows, t]))
    return worst


def _remedy(model: Any, trial: Trial, faster: list[Way]) -> str:
    """The advice to forbid the padding token, if only drawing it is wrong."""
    pad = getattr(model.config, "pad_token_id", None)
    policy, rollouts = trial.rollouts.policy or Policy(), trial.rollouts
    if not isinstance(pad, int) or not draws(policy, pad):
        return ""
    without = make_trial(model, rollouts.prompt_ids, rollouts.prompt_mask, policy.joined(Policy(forbidden=(pad,))))
    if without is None or all(_wrong_by(model, without, way) is not None for way in faster):
        return ""
    return (
        f" It is the padding token, {pad}, that goes wrong once it is drawn: if it need not be, set "
        f"generation_config.bad_words_ids = [[{pad}]], which is fast."
    )
