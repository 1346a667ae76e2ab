"""Draw one token per row from logits by a uniform number."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["NonFiniteLogitsError", "check_finite", "draw", "uniforms"]


class NonFiniteLogitsError(ValueError):
    """Logits of a token to be drawn are NaN or +inf, or all -inf.

    Args:
        row: of the batch.
        step: token of the response that was to be chosen, from 0; None where it is not known.
    """

    def __init__(self, row: int, step: int | None = None) -> None:
        self.row, self.step = row, step
        where = f"row {row} of the batch" + ("" if step is None else f", token {step} of its response")
        super().__init__(
            f"the model's logits are NaN or infinite ({where}), so no token can be chosen. Look for NaN in its "
            "weights: lower learning_rate, set max_grad_norm, or load the last checkpoint; T5 needs bf16 or fp32."
        )


def check_finite(best: Tensor, step: int | None = None, rows: Tensor | None = None) -> None:
    """Refuse rows from which no token can be chosen; single logits of -inf are allowed.

    Args:
        best: (N,) each row's largest logit, or any sum that is not finite where one is NaN, +inf, or all are -inf.
        step: index of the token in the response, for the message.
        rows: (N,) the rows' numbers in the message; None for 0 to N - 1.

    Raises:
        NonFiniteLogitsError: an entry of ``best`` is not finite.
    """
    finite = torch.isfinite(best)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        raise NonFiniteLogitsError(row if rows is None else int(rows[row]), step)


def uniforms(seed: int | Sequence[int], rows: int, steps: int) -> Tensor:
    """(rows, steps) float64 numbers in [0, 1), the same on every device.

    Args:
        seed: seed of one stream for all rows, which fills row after row; or one seed per row.
        rows: N, the number of responses.
        steps: T, the length limit.

    Raises:
        ValueError: the number of seeds is neither one nor ``rows``.

    Example:
        >>> together, alone = uniforms([3, 4], 2, 5), uniforms([4], 1, 5)
        >>> bool((together[1] == alone[0]).all())
        True
    """
    if not isinstance(seed, Sequence) and hasattr(seed, "__index__"):  # numpy's and torch's whole numbers too
        return torch.rand(rows, steps, generator=torch.Generator().manual_seed(seed.__index__()), dtype=torch.float64)
    if not isinstance(seed, list | tuple | range) or len(seed) != rows:
        got = f"{len(seed)} seeds" if isinstance(seed, list | tuple | range) else repr(seed)
        raise ValueError(f"seed must be one integer or one for each of the {rows} responses; got {got}.")
    generator = torch.Generator()
    streams = [torch.rand(steps, generator=generator.manual_seed(one), dtype=torch.float64) for one in seed]
    return torch.stack(streams)


def draw(
    logits: Tensor, temperature: float, top_k: int, chance: Tensor, step: int | None = None, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One token per row by inversion of the distribution function, and its log-probability under that policy.

    The drawn token is the first whose cumulative probability exceeds the row's uniform number. The function is inverted
    in two stages, over blocks of about sqrt(V) tokens and within one block, so that it is never formed for all V
    tokens; ``torch.multinomial`` draws V exponential variates per row, which dominates the generation time of small
    models. A token of probability zero is never drawn.

    Args:
        logits: (N, V) float32 or float64.
        temperature: logits are divided by it; 0 takes the most probable token (log-probability 0).
        top_k: draw among the k most probable tokens only; 0 for all.
        chance: (N,) float64 in [0, 1).
        step: index of the token in the response, for the error message.
        rows: (N,) the rows' numbers in the error message; None for 0 to N - 1.

    Returns:
        (N,) int64 tokens and (N,) log-probabilities, after temperature and top-k.

    Raises:
        NonFiniteLogitsError: a row has a logit that is NaN or +inf, or none above -inf.

    Example:
        >>> logits = torch.tensor([[0.2, 0.5, 0.3]]).log().expand(4, -1)
        >>> draw(logits, 1.0, 0, torch.tensor([0.1, 0.2, 0.69, 0.71], dtype=torch.float64))[0].tolist()
        [0, 1, 1, 2]
    """
    if temperature == 0:
        best, token = logits.max(dim=-1)  # propagates NaN
        check_finite(best, step, rows)
        return token, torch.zeros_like(best)
    if temperature != 1:
        logits = logits / temperature
    if 0 < top_k < logits.shape[-1]:
        best, where = logits.topk(top_k, dim=-1)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, where, best)
    p = logits.softmax(dim=-1)
    n, size = p.shape
    width = max(int(size**0.5), 1)
    padded = p if size % width == 0 else torch.nn.functional.pad(p, (0, width - size % width))
    blocks = padded.view(n, -1, width)
    mass = blocks.sum(dim=-1)
    below = mass.cumsum(dim=-1, dtype=torch.float64)
    check_finite(below[:, -1], step, rows)
    target = chance[:, None] * below[:, -1:]
    block = _first_above(below, target)
    before = torch.where(block > 0, below.gather(-1, (block - 1).clamp(min=0)), 0.0)
    inside = blocks.gather(1, block[..., None].expand(-1, -1, width))[:, 0].cumsum(dim=-1, dtype=torch.float64)
    share = (target - before) / mass.gather(-1, block)  # in [0, 1): the target's place in its block
    token = block * width + _first_above(inside, share * inside[:, -1:])
    return token[:, 0], p.gather(-1, token)[:, 0].log()


def _first_above(cumulative: Tensor, target: Tensor) -> Tensor:
    """(N, 1) first column of each ascending row that exceeds its target; never one that adds nothing to the row."""
    below_end = torch.nextafter(cumulative[:, -1:], torch.zeros_like(target))
    return torch.searchsorted(cumulative, torch.minimum(target, below_end), right=True)
