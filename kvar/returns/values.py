"""Token values q and V from a teacher's logits, theory.md eq. (1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kvar.returns.masks import check_mask

__all__ = ["TokenValues", "token_values"]

CENTRES = ("mean", "logsumexp", "none")
VALUES = ("max", "soft")
BLOCK_ELEMENTS = 2**24  # logits upcast at a time: 64 MiB in float32


@dataclass(frozen=True)
class TokenValues:
    """A teacher's values of N responses of T tokens, in logit units; theory.md eq. (1).

    Attributes:
        q: (N, T), q(s_t, y_t) of the sampled token; zero where masked.
        v: (N, T), V(s_t) of the state; zero where masked.

    Raises:
        ValueError: q and v are not two (N, T) tensors of one shape.
    """

    q: Tensor
    v: Tensor

    def __post_init__(self) -> None:
        if self.q.dim() != 2 or self.q.shape != self.v.shape:
            raise ValueError(
                "TokenValues.q and TokenValues.v must be two (N, T) tensors of one shape; "
                f"got {tuple(self.q.shape)} and {tuple(self.v.shape)}."
            )

    @property
    def gap(self) -> Tensor:
        """(N, T), V(s_t) - q(s_t, y_t): never negative for the hard value; zero where q and v are (masked)."""
        return self.v - self.q

    def __len__(self) -> int:
        """N, the number of responses."""
        return int(self.q.shape[0])

    def __getitem__(self, rows: slice | Tensor | list[int]) -> TokenValues:
        """The values of some rows, in that order."""
        return TokenValues(self.q[rows], self.v[rows])

    def to(self, target: torch.device | torch.dtype | str) -> TokenValues:
        """The same values on another device or in another dtype."""
        return TokenValues(self.q.to(target), self.v.to(target))


def token_values(
    logits: Tensor,
    tokens: Tensor,
    mask: Tensor,
    centre: Literal["mean", "logsumexp", "none"] = "mean",
    value: Literal["max", "soft"] = "max",
) -> TokenValues:
    """Value every sampled token and its state by the teacher's logits f; theory.md eq. (1).

    q(s, a) = f(s, a) - c(s); V(s) = max_a q(s, a), or sum_a softmax(q)_a q_a with ``value="soft"``.

    A logit of -inf says that the token is outside the action set: the centre's mean, its logsumexp and V are those
    of the other tokens.

    Args:
        logits: (N, T, V), the teacher's, aligned so that ``logits[:, t]`` scored ``tokens[:, t]``. Half precision is
            upcast to float32 a block of rows at a time. What padding holds does not matter.
        tokens: (N, T) integers, the sampled tokens; any value where masked.
        mask: (N, T), true on response tokens; right padding only.
        centre: c(s), the mean of f over the action set ("mean"), its logsumexp ("logsumexp"), or 0 ("none").
        value: hard ("max") or softmax-weighted ("soft") value of a state.

    Returns:
        Values in float32, or float64 for float64 logits; zero where masked. The logits are not kept.

    Raises:
        ValueError: shapes that disagree, an unknown centre or value, a mask with a hole, or, at an unmasked position,
            a NaN or +inf logit, no finite logit at all, or a token outside the vocabulary or with a logit of -inf.

    Examples:
        >>> import torch
        >>> logits = torch.tensor([[[3.0, 1.0, 2.0], [0.0, 6.0, 0.0]]])
        >>> values = token_values(logits, torch.tensor([[1, 1]]), torch.ones(1, 2))
        >>> values.q.tolist(), values.v.tolist(), values.gap.tolist()
        ([[-1.0, 4.0]], [[1.0, 4.0]], [[2.0, 0.0]])
        >>> logits[0, 0, 2] = -torch.inf  # the mean of (3, 1) is 2
        >>> token_values(logits, torch.tensor([[1, 1]]), torch.ones(1, 2)).q.tolist()
        [[-1.0, 4.0]]
    """
    if centre not in CENTRES:
        raise ValueError(f"centre={centre!r} is unknown; choose one of {', '.join(CENTRES)}.")
    if value not in VALUES:
        raise ValueError(f"value={value!r} is unknown; choose one of {', '.join(VALUES)}.")
    _check_shapes(logits, tokens, mask)
    mask = check_mask(mask)
    tokens = _checked_tokens(tokens, mask, logits.shape[-1])
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    parts = []
    for start, block in _row_blocks(logits):
        rows = slice(start, start + len(block))
        parts.append(_block_values(block.to(dtype), tokens[rows], mask[rows], start, centre, value))
    if not parts:
        empty = logits.new_zeros(tokens.shape, dtype=dtype)
        return TokenValues(empty, empty.clone())
    q, v = (torch.cat(columns).masked_fill(~mask, 0.0) for columns in zip(*parts, strict=True))
    return TokenValues(q, v)


def _row_blocks(logits: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Views of a few rows each, with their first row's index, so that no (N, T, V) copy is ever made."""
    n = logits.shape[0]
    rows = max(1, BLOCK_ELEMENTS // max(1, logits[0].numel() if n else 1))
    for start in range(0, n, rows):
        yield start, logits[start : start + rows]


def _block_values(
    block: Tensor, tokens: Tensor, mask: Tensor, first_row: int, centre: str, value: str
) -> tuple[Tensor, Tensor]:
    """Q and V of some rows, (rows, T) each, padding not yet zeroed."""
    low, high = block.detach().aminmax(dim=-1)  # both propagate NaN
    chosen = block.gather(-1, tokens[..., None]).squeeze(-1)
    _check_logits(high, chosen.detach(), tokens, mask, first_row)
    outside = block.detach() == -torch.inf if bool((low == -torch.inf).any()) else None
    if value == "max":
        best = block.amax(dim=-1)
    else:  # relative to the maximum, so that large logits do not multiply the rounding of the weights' sum
        below = block - high[..., None]
        below = below if outside is None else below.masked_fill(outside, 0.0)  # 0 * -inf is 0 here
        best = high + (block.softmax(dim=-1) * below).sum(dim=-1)
    if centre == "none":
        return chosen, best
    if centre == "logsumexp":
        shift = block.logsumexp(dim=-1)
    elif outside is None:
        shift = block.mean(dim=-1)
    else:
        shift = block.masked_fill(outside, 0.0).sum(dim=-1) / (~outside).sum(dim=-1)
    return chosen - shift, best - shift


def _check_logits(high: Tensor, chosen: Tensor, tokens: Tensor, mask: Tensor, first_row: int) -> None:
    """Refuse NaN, +inf, rows without a finite logit and sampled tokens at -inf, where unmasked."""
    bad = mask & ~(high.isfinite() & chosen.isfinite())
    if not bool(bad.any()):
        return
    row, position = (int(i) for i in bad.nonzero()[0])
    where = f"at row {first_row + row}, position {position}, which is not masked"
    if bool(high[row, position].isfinite()):
        raise ValueError(
            f"tokens hold id {int(tokens[row, position])} {where}, but its logit there is -inf: the teacher rules it "
            "out. Sample from the tokens that the teacher allows, or take its mask off."
        )
    if float(high[row, position]) == -torch.inf:
        raise ValueError(f"logits hold no finite value {where}: all are -inf. Check the teacher's masks.")
    raise ValueError(
        f"logits hold a NaN or infinite value {where}. "
        "Check the teacher's precision (T5 in float16 gives NaN: use bfloat16 or float32) and its masks."
    )


def _check_shapes(logits: Tensor, tokens: Tensor, mask: Tensor) -> None:
    if logits.dim() != 3 or logits.shape[-1] == 0 or not logits.is_floating_point():
        raise ValueError(
            "logits must be a floating-point tensor of shape (N, T, V) with V >= 1; "
            f"got {logits.dtype} of shape {tuple(logits.shape)}."
        )
    if tokens.shape != logits.shape[:2]:
        raise ValueError(
            f"tokens must have the logits' shape (N, T) = {tuple(logits.shape[:2])}; got {tuple(tokens.shape)}. "
            "Align them so that logits[:, t] scored tokens[:, t]."
        )
    if mask.shape != tokens.shape:
        raise ValueError(f"mask must have the tokens' shape {tuple(tokens.shape)}; got {tuple(mask.shape)}.")


def _checked_tokens(tokens: Tensor, mask: Tensor, vocabulary: int) -> Tensor:
    """Tokens as int64, 0 where masked; every unmasked one inside the vocabulary."""
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise ValueError(f"tokens must hold integer token ids; got {tokens.dtype}.")
    tokens = tokens.long().masked_fill(~mask, 0)
    bad = (tokens < 0) | (tokens >= vocabulary)
    if bool(bad.any()):
        row, position = (int(i) for i in bad.nonzero()[0])
        raise ValueError(
            f"tokens hold id {int(tokens[row, position])} at row {row}, position {position}, outside the logits' "
            f"vocabulary of {vocabulary}. Mask padding, and use one tokenizer for teacher and student."
        )
    return tokens
