"""The micro-batches of one optimiser step as one batch, and the trainer's own estimator among others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kvar.estimators import TRAINED, Evidence, Terms
from kvar.hooks.batch.part import Part, Rows, token_rows
from kvar.returns import TokenValues
from kvar.rollouts import Rollouts, concatenate
from kvar.rollouts.concatenate import concatenate_rows
from kvar.rollouts.rows import row_numbers

__all__ = ["joined_parts", "with_trained"]


def joined_parts(parts: Sequence[Part]) -> Part:
    """Micro-batches as one; trajectories with the same prompt have one ``prompt_index``."""
    rollouts = concatenate([part.rollouts for part in parts])
    prompts = rollouts.prompt_ids.masked_fill(~rollouts.prompt_mask, -1)
    index = prompts.unique(dim=0, return_inverse=True)[1]
    one = parts[0]
    weights = [part.weights for part in parts]
    teachers = [part.teacher for part in parts]
    return Part(
        replace(rollouts, prompt_index=index),
        weights=None if any(w is None for w in weights) else concatenate_rows(weights),  # type: ignore[arg-type]
        rows=_dispatched(parts, _rows_of) if any(w is None for w in weights) else None,
        teacher=None if any(t is None for t in teachers) else _teacher(parts),
        valued=one.valued,
        values=None if any(part.values is None for part in parts) else _values(parts),
        scores=None if one.scores is None else torch.cat([p.scores for p in parts]),  # type: ignore[misc]
        log_probs=None if one.log_probs is None else concatenate_rows([p.log_probs for p in parts]),  # type: ignore[misc]
        temperature=one.temperature,
        empty=all(part.empty for part in parts),
    )


def _values(parts: Sequence[Part]) -> TokenValues:
    values = [part.values for part in parts if part.values is not None]
    return TokenValues(concatenate_rows([v.q for v in values]), concatenate_rows([v.v for v in values]))


def _rows_of(part: Part, numbers: Tensor, logits: Tensor) -> Tensor:
    if part.rows is not None:
        return part.rows(numbers, logits)
    if part.weights is None:
        return torch.zeros_like(logits)
    return token_rows(part.rollouts.tokens, part.weights, None, part.temperature)(numbers, logits)


def _each(parts: Sequence[Part], numbers: Tensor) -> Iterator[tuple[Part, Tensor, Tensor]]:
    """Each part that holds some of the numbered trajectories, their places among them, their numbers within it."""
    start = 0
    for part in parts:
        places = ((numbers >= start) & (numbers < start + len(part.rollouts))).nonzero()[:, 0]
        if len(places):
            yield part, places, numbers[places] - start
        start += len(part.rollouts)


def _dispatched(parts: Sequence[Part], run: Callable[[Part, Tensor, Tensor], Tensor]) -> Rows:
    def rows(numbers: Tensor, logits: Tensor) -> Tensor:
        out = torch.zeros_like(logits)
        for part, places, inner in _each(parts, numbers):
            t = part.rollouts.tokens.shape[1]
            width = min(t, logits.shape[1])
            padded = torch.nn.functional.pad(logits[places, :width], (0, 0, 0, t - width))
            out[places, :width] = run(part, inner, padded)[:, :width]
        return out

    return rows


def _teacher(parts: Sequence[Part]) -> Callable[[Tensor], Tensor]:
    def teacher(numbers: Tensor) -> Tensor:
        blocks = [(places, part.teacher(inner)) for part, places, inner in _each(parts, numbers) if part.teacher]
        width = max(part.rollouts.tokens.shape[1] for part in parts)
        out = blocks[0][1].new_zeros(len(numbers), width, blocks[0][1].shape[-1])
        for places, logits in blocks:
            out[places, : logits.shape[1]] = logits
        return out

    return teacher


@dataclass(frozen=True)
class TrainedEvidence(Evidence):
    """Evidence with the trainer's gradient at the logits, which takes the place of pi(a) u(x_t, a) for ``trained``.

    A gradient at the logits sums to zero over the vocabulary, as one of a function of their softmax, so that the exact
    term's own centring leaves it as it is.

    Attributes:
        rows: the gradient, a block of trajectories at a time.
    """

    rows: Rows | None = None

    def weighted(self, name: str, rows: Tensor, student: Tensor) -> Tensor:
        """See :class:`Evidence`."""
        if name != TRAINED or self.rows is None:
            return super().weighted(name, rows, student)
        mask = self.rollouts.mask[rows, : student.shape[1]].to(student.device)[..., None]
        return torch.where(mask, self.rows(rows, student.detach()), 0.0)

    def table(self, name: str, some: Rollouts, student: Tensor) -> Tensor:
        """See :class:`Evidence`."""
        if name != TRAINED:
            return super().table(name, some, student)
        student = student.detach()
        rows = self.weighted(name, row_numbers(self.rollouts)(some), student)
        pi = student.softmax(dim=-1)
        return torch.where(pi > 0, rows / pi, 0.0)


def with_trained(terms: Terms, part: Part, factor: float) -> Terms:
    """The estimators with :data:`TRAINED` before them.

    Args:
        terms: of E estimators on the part's trajectories.
        part: a whole batch, see :func:`joined_parts`.
        factor: of the gradient of each trajectory's share of the loss: -N for a mean that is the trainer's step.
    """
    shape = terms.weights.shape[1:]
    zeros = terms.weights.new_zeros(1, *shape)
    first = zeros if part.weights is None else factor * part.weights[None].to(zeros)
    exact = {name: torch.cat([zeros, scales]) for name, scales in terms.exact.items()}
    if part.rows is not None:
        own = part.rollouts.mask.to(zeros)[None] * factor
        exact[TRAINED] = torch.cat([own, zeros.expand(len(terms.names), *shape)])
    return Terms(
        (TRAINED, *terms.names),
        torch.cat([first, terms.weights]),
        exact,
        TrainedEvidence(**vars(terms.evidence), rows=part.rows),
    )
