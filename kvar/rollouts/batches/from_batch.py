"""``from_batch``: rollouts from the tensors of another trainer's batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kvar.rollouts.batches.fields import PER_TOKEN, fields_of, first_of, tensor
from kvar.rollouts.batches.layout import Layout, layout_of
from kvar.rollouts.policy import Policy
from kvar.rollouts.types import Rollouts

__all__ = ["from_batch"]

GROUPS = ("prompt_index", "uid", "group_id", "group_index")
FINISHED = ("finished", "is_finished", "terminated")
SHIFTED = ("teacher_logprobs", "teacher_ids")
"""Fields of verl over prompt and response whose column j is of the token in column j + 1."""
BEHAVIOUR = ("rollout_log_probs", "old_log_probs")


def from_batch(
    batch: Any,
    *,
    eos_token_id: int | Sequence[int] | None = None,
    tokenizer: Any = None,
    policy: Policy | None = None,
    finished: Any = None,
    prompt_index: Any = None,
    behaviour: str | None = None,
) -> tuple[Rollouts, dict[str, Any]]:
    """Rollouts from a batch as TRL, verl and others hold it, and what else the batch held.

    Prompts and responses are read from ``prompts`` or ``prompt_ids`` and ``responses`` or ``completion_ids``, each
    with a mask (``prompt_mask``, ``response_mask`` or ``completion_mask``, times ``tool_mask``) or with one
    ``attention_mask`` of both; or from ``input_ids`` with ``attention_mask`` and ``response_mask`` or ``labels``.
    Tensors of torch or numpy, padded on either side, or lists of several lengths. Tokens before the first drawn one
    belong to the prompt, tokens behind the last are left out.

    Args:
        batch: a mapping of names to tensors, or verl's ``DataProto``.
        eos_token_id: the tokens that end a response; default the policy's, else the tokenizer's.
        tokenizer: names the end-of-sequence token.
        policy: the student's action set, for the rollouts.
        finished: (N,), whether each response ended by itself; default the batch's ``finished``, else whether it ends
            with an end-of-sequence token.
        prompt_index: (N,), which responses have one prompt; default the batch's ``prompt_index`` or ``uid``, else
            equal prompts.
        behaviour: the field that holds the log-probabilities of the policy that drew the tokens; default the engine's
            (``rollout_log_probs``, ``sampling_per_token_logps``), else the trainer's when it drew them
            (``old_log_probs``, ``old_per_token_logps``). Without either ``Rollouts.log_probs`` are zero.

    Returns:
        N rollouts, right-padded; and the other fields. Known fields have verl's names (``old_log_probs``,
        ``rollout_log_probs``, ``ref_log_probs``, ``teacher_log_probs``, ``teacher_top_log_probs`` and
        ``teacher_top_ids``, ``advantages``, ...), others their own. Whatever has a value for each response token is
        (N, T, ...) as the rollouts, zero where masked; anything else is as it was.

    Raises:
        TypeError: no mapping.
        ValueError: fields that are missing, or of shapes that do not fit; ids and masks that disagree; a mask with
            zeros inside, such as at a tool's output; log-probabilities that are above 0 or not finite; a response that
            goes on after its end; rows of one group with several prompts; ends that are not known.

    Example:
        >>> batch = {"prompt_ids": [[5, 6], [7]], "completion_ids": [[3, 1], [4]], "advantages": [1.0, -1.0]}
        >>> rollouts, held = from_batch(batch, eos_token_id=1)
        >>> rollouts.tokens.tolist(), rollouts.finished.tolist(), held["advantages"].tolist()
        ([[3, 1], [4, 0]], [True, False], [1.0, -1.0])
    """
    fields = fields_of(batch)
    layout = layout_of(fields)
    tokens, mask = layout.responses(layout.ids), layout.responses(layout.response)
    for name, ids in (("prompt", layout.ids[layout.prompt]), ("response", tokens[mask])):
        if bool((ids < 0).any()):
            raise ValueError(f"the batch has a {name} token of id {int(ids.min())}: its mask includes padding.")
    if policy is not None:
        policy.check_tokens(tokens, mask, "the batch's responses")
    held = {name: _held(name, value, layout) for name, value in fields.items() if name not in layout.used}
    for name, names in PER_TOKEN.items():
        given = first_of(fields, names)
        if given is not None and given != name:
            held[name] = held.pop(given)
    _split_teacher(held, tokens, mask)
    drawn = behaviour or next((name for name in BEHAVIOUR if name in held), None)
    log_probs = torch.zeros(tokens.shape, device=tokens.device)
    if drawn is not None:
        canonical = next((name for name, names in PER_TOKEN.items() if drawn in names), drawn)
        log_probs = _log_probs(held.get(canonical), mask, drawn)
    prompt_ids, prompt_mask = layout.prompts()
    ends = _ends(eos_token_id, policy, tokenizer)
    rollouts = Rollouts(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        tokens=tokens,
        mask=mask,
        finished=_finished(fields, finished, ends, tokens, mask),
        prompt_index=_groups(fields, prompt_index, layout),
        log_probs=log_probs,
        policy=policy,
    )
    return rollouts, {name: value for name, value in held.items() if name not in (*GROUPS, *FINISHED)}


def _held(name: str, value: Any, layout: Layout) -> Any:
    """A field of the batch, cut to the response tokens if it has a value for each."""
    known = any(name in names for names in PER_TOKEN.values())
    try:
        values, lengths = tensor(value, name)
    except ValueError:
        if known:
            raise
        return value
    n, length = layout.ids.shape
    if known and (values.dim() == 0 or len(values) != n):
        raise ValueError(f"{name} must have one row a response, {n}; got shape {tuple(values.shape)}.")
    if values.dim() < 2 or len(values) != n or (known and values.shape[1:] == (1,) and layout.width != 1):
        return values if known else value
    width = values.shape[1]
    if lengths is not None and known and not torch.equal(lengths, layout.response.sum(dim=1).cpu()):
        row = int((lengths != layout.response.sum(dim=1).cpu()).nonzero()[0])
        raise ValueError(
            f"{name} has {int(lengths[row])} values in row {row}, whose response has "
            f"{int(layout.response[row].sum())} tokens: give one for each token."
        )
    if lengths is not None and known:
        return values if width == int(layout.response.sum(dim=1).max()) else values[:, :1]
    if width == layout.width:
        return layout.responses(values, length - width)
    if width == length - 1 or (width == length and name in SHIFTED):
        return layout.responses(values, 1)
    if known:
        wanted = f"{(n, layout.width)}, one a response token, or " if layout.width is not None else ""
        raise ValueError(
            f"{name} must have shape {wanted}{(n, length - 1)}, column j of the token in column j + 1 of prompt and "
            f"response; got {tuple(values.shape)}."
        )
    return value


def _split_teacher(held: dict[str, Any], tokens: Tensor, mask: Tensor) -> None:
    """Tell a teacher's log-probabilities of the sampled tokens, (N, T), from those of its best, (N, T, K)."""
    log_probs: Any = held.get("teacher_log_probs")
    ids: Any = held.pop("teacher_ids", None)
    if log_probs is not None and log_probs.dim() == 3:
        sampled = log_probs.shape[-1] == 1 and (ids is None or torch.equal(ids[..., 0][mask].long(), tokens[mask]))
        if sampled:
            held["teacher_log_probs"] = log_probs[..., 0]
        elif ids is None:
            raise ValueError("teacher_log_probs are of several tokens a position: pass their ids as teacher_ids.")
        else:
            held["teacher_top_log_probs"], held["teacher_top_ids"] = held.pop("teacher_log_probs"), ids.long()
    if "teacher_log_probs" in held:
        _log_probs(held["teacher_log_probs"], mask, "teacher_log_probs")
    top: Any = held.get("teacher_top_log_probs")
    ids = held.get("teacher_top_ids")
    if (top is None) != (ids is None) or (ids is not None and (top.dim() != 3 or top.shape != ids.shape)):
        raise ValueError("teacher_top_log_probs and teacher_top_ids must be given together, each of shape (N, T, K).")


def _log_probs(values: Any, mask: Tensor, name: str) -> Tensor:
    if not isinstance(values, Tensor) or values.shape != mask.shape:
        got = "nothing" if values is None else f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else "else"
        raise ValueError(f"{name} must hold one log-probability for each response token; the batch has {got}.")
    bad = mask & ~(values <= 1e-3)
    bad |= mask & ~values.isfinite()
    if bool(bad.any()):
        row, position = (int(i) for i in bad.nonzero()[0])
        raise ValueError(
            f"{name} is {float(values[row, position]):.4g} at row {row}, position {position}: it must hold finite "
            "log-probabilities, none above 0. Leave the row or the field out, or name another field by behaviour=."
        )
    return values if values.is_floating_point() else values.float()


def _ends(given: int | Sequence[int] | None, policy: Policy | None, tokenizer: Any) -> tuple[int, ...]:
    if given is not None:
        return tuple(int(end) for end in np.atleast_1d(given))
    if policy is not None and policy.ends:
        return policy.ends
    end = getattr(tokenizer, "eos_token_id", None)
    return () if end is None else (int(end),)


def _finished(fields: Mapping[str, Any], given: Any, ends: tuple[int, ...], tokens: Tensor, mask: Tensor) -> Tensor:
    name = "finished" if given is not None else first_of(fields, FINISHED)
    ended = Policy(ends=ends).is_end(tokens) & mask
    on = (ended[:, :-1] & mask[:, 1:]).any(dim=1)
    if bool(on.any()):
        row = int(on.nonzero()[0])
        at = int(ended[row].to(torch.uint8).argmax())
        raise ValueError(
            f"the response of row {row} goes on after its end, token {int(tokens[row, at])} at position {at}: cut its "
            "mask behind the end, or name the right eos_token_id."
        )
    if name is not None:
        told, _ = tensor(fields[name] if given is None else given, name)
        if told.shape != (len(tokens),):
            raise ValueError(f"{name} must have shape ({len(tokens)},), one a response; got {tuple(told.shape)}.")
        return told.bool().to(tokens.device)
    if not ends:
        raise ValueError("which responses ended is unknown: pass eos_token_id=, tokenizer=, policy= or finished=.")
    return ended.any(dim=1)


def _groups(fields: Mapping[str, Any], given: Any, layout: Layout) -> Tensor:
    """(N,) int64: the prompt of each response; numbers are kept, other names numbered as they first occur."""
    prompts = [tuple(ids[kept].tolist()) for ids, kept in zip(layout.ids, layout.prompt, strict=True)]
    name = next((name for name in GROUPS if name in fields), None) if given is None else "prompt_index"
    if name is None:
        names: Sequence[Any] = prompts
    else:
        value = fields[name] if given is None else given
        names = value.tolist() if hasattr(value, "tolist") else list(value)
    if len(names) != len(prompts):
        raise ValueError(
            f"{name} names the prompt of {len(names)} responses; there are {len(prompts)}: give one for each."
        )
    where: dict[Any, tuple[int, ...]] = {}
    for row, (group, prompt) in enumerate(zip(names, prompts, strict=True)):
        if where.setdefault(group, prompt) != prompt:
            raise ValueError(f"{name} is {group!r} for row {row} and for a row with another prompt: they disagree.")
    order = {group: number for number, group in enumerate(where)}
    numbers = names if all(type(group) is int for group in names) else [order[group] for group in names]
    return torch.tensor(numbers, dtype=torch.long, device=layout.ids.device)
