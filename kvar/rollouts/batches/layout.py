"""Where prompt and response tokens lie in a batch's tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kvar.rollouts.batches.fields import PROMPTS, RESPONSE_MASKS, RESPONSES, first_of, tensor
from kvar.rollouts.forward import pack_left

__all__ = ["Layout", "layout_of"]


@dataclass(frozen=True)
class Layout:
    """Sequences of prompt and response, L columns, and which of them are which.

    Attributes:
        ids: (N, L) int64.
        prompt: (N, L) bool, the tokens that the policy was given.
        response: (N, L) bool, the tokens that it drew, in one run after the prompt.
        width: columns of the batch's responses, where prompts and responses or a mask of responses tell; else None.
        used: names of the fields that were read.
    """

    ids: Tensor
    prompt: Tensor
    response: Tensor
    width: int | None
    used: frozenset[str]

    def prompts(self) -> tuple[Tensor, Tensor]:
        """(N, S) ids and mask of the prompts, padded on the right."""
        ids, mask = pack_left(self.ids, self.prompt)
        return ids.masked_fill(~mask, 0), mask

    def responses(self, values: Tensor, first: int = 0) -> Tensor:
        """Values of the response tokens, (N, T, ...), right-padded with zeros.

        Args:
            values: (N, columns, ...).
            first: the column of ``ids`` that the first column of values belongs to.
        """
        columns = self.response.to(torch.uint8).argmax(dim=1)[:, None] - first
        steps = torch.arange(max(int(self.response.sum(dim=1).max()), 1), device=values.device)
        kept = steps < self.response.sum(dim=1)[:, None]
        at = (columns + steps).clamp(0, values.shape[1] - 1)
        picked = values[torch.arange(len(values), device=values.device)[:, None], at]
        return picked.masked_fill(~kept.view(*kept.shape, *(1,) * (picked.dim() - 2)), 0)


def layout_of(fields: Mapping[str, Any]) -> Layout:
    """Find prompts and responses among a batch's fields; see :func:`kvar.rollouts.from_batch`.

    Raises:
        ValueError: neither prompts and responses nor sequences; padded tensors without a mask; shapes that do not fit;
            ids or masks that disagree; a mask with a hole.
    """
    prompts, responses = first_of(fields, PROMPTS), first_of(fields, RESPONSES)
    used: set[str] = {"input_ids", "attention_mask"}
    split: int | None = None
    if prompts and responses:
        names = (prompts, responses)
        used |= {*names, "prompt_mask", "prompt_attention_mask"}
        (before, before_lengths), (after, lengths) = (_ids(fields, name) for name in names)
        if len(before) != len(after):
            raise ValueError(f"{names[0]} has {len(before)} rows, {names[1]} {len(after)}: give one prompt a response.")
        ids, split = torch.cat([before, after.to(before.device)], dim=1), before.shape[1]
        seen = _seen(fields, ids, split, names, (_until(before, before_lengths), _until(after, lengths)))
        _check_joined(fields, ids, seen, " and ".join(names))
    elif "input_ids" in fields:
        ids, row_lengths = _ids(fields, "input_ids")
        given = "attention_mask" in fields
        known = _mask(fields, "attention_mask", ids.shape) if given else _until(ids, row_lengths)
        if known is None:
            raise ValueError("input_ids without attention_mask: its padding is unknown; pass attention_mask too.")
        seen = known
    else:
        raise ValueError(
            f"the batch has neither prompts and responses ({' or '.join(PROMPTS[:2])}, {' or '.join(RESPONSES[:2])}) "
            f"nor input_ids with its masks: it holds {', '.join(fields) or 'nothing'}. Rename its fields."
        )
    drawn, masks, split = _drawn(fields, ids, split)
    if drawn is None:
        if split is None:
            raise ValueError("input_ids without response_mask or labels: which tokens are the response? Pass one.")
        drawn = seen & (torch.arange(ids.shape[1], device=ids.device) >= split)
    seen = seen.to(ids.device)
    _check_seen(drawn, seen, " and ".join(masks))
    width = None if split is None else ids.shape[1] - split
    return Layout(ids, _prompt(drawn, seen, split), drawn, width, frozenset({*used, *masks}))


def _ids(fields: Mapping[str, Any], name: str) -> tuple[Tensor, Tensor | None]:
    ids, lengths = tensor(fields[name], name)
    if ids.dim() != 2 or (ids.is_floating_point() and bool((ids != ids.round()).any())):
        raise ValueError(f"{name} must be token ids, one row a response; got {ids.dtype} of shape {tuple(ids.shape)}.")
    return ids.long(), lengths


def _mask(fields: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> Tensor:
    mask, _ = tensor(fields[name], name)
    if mask.shape != shape:
        raise ValueError(f"{name} masks ids of shape {tuple(shape)} and must have that shape; got {tuple(mask.shape)}.")
    if mask.dtype != torch.bool and not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError(f"{name} must hold only 0 and 1; got other values.")
    return mask.bool()


def _until(ids: Tensor, lengths: Tensor | None) -> Tensor | None:
    """The mask of lists of several lengths; None for a tensor."""
    return None if lengths is None else torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]


def _seen(
    fields: Mapping[str, Any], ids: Tensor, split: int, names: tuple[str, str], masks: tuple[Tensor | None, ...]
) -> Tensor:
    """(N, L): which columns are tokens and not padding, of prompts and responses held apart.

    Args:
        fields: of the batch.
        ids: (N, L), both side by side.
        split: S.
        names: of prompts and responses.
        masks: (N, S) and (N, T) masks of lists of several lengths; None for tensors.
    """
    before = first_of(fields, ("prompt_mask", "prompt_attention_mask"))
    if "attention_mask" in fields:
        shape = tensor(fields["attention_mask"], "attention_mask")[0].shape
        if before is not None or shape != ids[:, :split].shape:
            return _mask(fields, "attention_mask", ids.shape)
        before = "attention_mask"
    after = next((name for name in ("completion_mask", "response_mask") if name in fields), None)
    parts = (ids[:, :split], ids[:, split:])
    read = [
        m if n is None else _mask(fields, n, p.shape) for m, n, p in zip(masks, (before, after), parts, strict=True)
    ]
    for mask, name, remedy in zip(read, names, ("prompt_mask", "response_mask"), strict=True):
        if mask is None:
            raise ValueError(
                f"{name} is a tensor without its mask, so its padding is unknown: pass {remedy}, or attention_mask of "
                f"prompts and responses together, {tuple(ids.shape)}."
            )
    return torch.cat([mask.to(ids.device) for mask in read if mask is not None], dim=1)


def _drawn(fields: Mapping[str, Any], ids: Tensor, split: int | None) -> tuple[Tensor | None, list[str], int | None]:
    """(N, L): the tokens that every mask of the response keeps, the masks' names, and the responses' first column."""
    length, drawn = ids.shape[1], None
    names = [name for name in RESPONSE_MASKS if name in fields]
    for name in names:
        shape = tensor(fields[name], name)[0].shape
        if split is None and len(shape) == 2 and shape[1] < length:
            split = length - shape[1]
        whole = len(shape) == 2 and shape[1] == length
        mask = _mask(fields, name, tuple(ids.shape) if whole or split is None else (len(ids), length - split))
        mask = torch.nn.functional.pad(mask.to(ids.device), (length - mask.shape[1], 0))
        drawn = mask if drawn is None else drawn & mask
    if drawn is None and split is None and "labels" in fields:
        labels, names = tensor(fields["labels"], "labels")[0].to(ids.device), ["labels"]
        drawn = labels != -100
        if labels.shape != ids.shape or bool((drawn & (labels != ids)).any()):
            raise ValueError(
                "labels must be input_ids with -100 at all tokens but the response's; they differ. Pass prompts, "
                "responses and their masks for a model with an encoder."
            )
    return drawn, names, split


def _check_seen(drawn: Tensor, seen: Tensor, masks: str) -> None:
    bad = drawn & ~seen
    if bool(bad.any()):
        row, column = (int(i) for i in bad.nonzero()[0])
        raise ValueError(
            f"{masks} is 1 at row {row}, column {column} of prompt and response, where the attention mask is 0: a "
            "padding token is no response. Take both masks from one batch."
        )


def _prompt(drawn: Tensor, seen: Tensor, split: int | None) -> Tensor:
    """(N, L): the tokens before the first drawn one, after a check that neither part has a hole."""
    columns = torch.arange(drawn.shape[1], device=drawn.device)
    some = drawn.any(dim=1)
    start = torch.where(some, drawn.to(torch.uint8).argmax(dim=1), drawn.shape[1] if split is None else split)
    last = drawn.shape[1] - 1 - drawn.flip(1).to(torch.uint8).argmax(dim=1)
    inside = (columns >= start[:, None]) & (columns <= last[:, None]) & some[:, None]
    holes = (inside & ~drawn).any(dim=1)
    if bool(holes.any()):
        row = int(holes.nonzero()[0])
        given = bool((inside & ~drawn & seen)[row].any())
        raise ValueError(
            f"{int(holes.sum())} of {len(drawn)} responses (first: row {row}) have zeros inside their mask"
            + (
                ": tokens that were given, not drawn, such as a tool's output. kvar measures responses of one turn: "
                "leave these rows out, or make each turn a row whose prompt is all that came before it."
                if given
                else ", at padding: a response is one run of tokens. Take ids and masks from one batch."
            )
        )
    prompt = seen & (columns < start[:, None])
    for part in [prompt] if split is None else [prompt[:, :split], prompt[:, split:]]:
        runs = (part[:, 1:] & ~part[:, :-1]).sum(dim=1) + part[:, :1].sum(dim=1)
        if bool((runs > 1).any()):
            row = int((runs > 1).nonzero()[0])
            raise ValueError(f"the prompt of row {row} has zeros inside its mask: pad prompts on one side.")
    return prompt


def _check_joined(fields: Mapping[str, Any], ids: Tensor, seen: Tensor, names: str) -> None:
    """Refuse ``input_ids`` that are not prompts and responses side by side."""
    if "input_ids" not in fields:
        return
    joined, _ = _ids(fields, "input_ids")
    if joined.shape != ids.shape:
        raise ValueError(
            f"input_ids must be {names} side by side, of shape {tuple(ids.shape)}; got {tuple(joined.shape)}. Leave "
            "input_ids out."
        )
    bad = (joined.to(ids.device) != ids) & seen
    if bool(bad.any()):
        row, column = (int(i) for i in bad.nonzero()[0])
        raise ValueError(
            f"input_ids holds token {int(joined[row, column])} at row {row}, column {column}, {names} token "
            f"{int(ids[row, column])}: they are not of one batch. Leave one of them out."
        )
