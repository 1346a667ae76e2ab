"""Where per-trajectory gradients come from: the graph of one forward pass, or one trajectory after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kvar.gradients.capture.capture import capture
from kvar.gradients.capture.plan import Plan, UncoveredError
from kvar.gradients.capture.record import Capture, Record
from kvar.gradients.cotangents import Estimators
from kvar.gradients.one_pass.backward import Grads, pulled_back
from kvar.gradients.one_pass.head_rows import ScaledRows, below, scaled_rows
from kvar.gradients.products.blocks import Block, Dense
from kvar.gradients.products.factor import Factor, Scaled
from kvar.gradients.products.matrix import Factored
from kvar.gradients.products.stacked import Stacked
from kvar.gradients.rules import Outer, PerExpert, PerRow, Use

__all__ = ["Graph", "RowByRow", "Source"]


class Source(Protocol):
    """Gradients of some trajectories."""

    estimators: int
    """E."""

    def blocks(self, scores: range | None = None) -> Iterator[tuple[nn.Parameter, Block]]:
        """Each parameter with its gradients under the estimators, or of the token scores at some positions.

        The estimators' gradients can be asked for once, after any scores.
        """
        ...


class Graph:
    """One forward pass over some rows, one backward pass per estimator, rules layer by layer.

    Args:
        student: in eval mode.
        estimators: the scalars wanted.
        rows: (n,) which trajectories.
        wanted: id -> parameter.
        plan: how each is measured.

    Raises:
        UncoveredError: some wanted parameters can't be measured this way.
    """

    def __init__(
        self,
        student: nn.Module,
        estimators: Estimators,
        rows: Tensor,
        wanted: Mapping[int, nn.Parameter],
        plan: Plan,
    ) -> None:
        with capture(student, wanted, len(rows), plan, cut=plan.cut) as captured:
            logits = estimators.logits(student, rows)
        missed = captured.missed(logits, wanted)
        if plan.kinds is not None and len(rows) > 1:  # an operation that was not tried, or not in this way
            missed |= {key for key, kinds in captured.kinds.items() if not kinds <= plan.kinds.get(key, {"leading"})}
        if missed:
            raise UncoveredError(missed)
        self.captured: Capture = captured
        self.logits = logits
        self.cotangents = estimators.cotangents(logits, rows)
        self.estimators = len(self.cotangents)
        self._scores = partial(estimators.score_cotangents, rows=rows)
        self.wanted = wanted

    def blocks(self, scores: range | None = None) -> Iterator[tuple[nn.Parameter, Block]]:
        """See :class:`Source`; parameters that the pass did not reach are left out, their gradients being zero."""
        records = dict(enumerate(self.captured.records))
        if not records or not self.logits.requires_grad:
            return
        cotangents = self.cotangents if scores is None else self._scores(self.logits, positions=scores)
        head = scaled_rows(self.logits, records[len(records) - 1], cotangents)
        uses: dict[int, list[tuple[int, str]]] = {key: [] for key in self.wanted}
        for k, record in records.items():
            for name, parameter in record.parameters.items():
                uses[id(parameter)].append((k, name))
        open_uses = {key: len(places) for key, places in uses.items()}
        users = {k: len(record.parameters) for k, record in records.items()}
        held: dict[int, Grads] = {}
        start, seeds = self.logits, cotangents
        under = None if head is None else below(self.captured, self.logits, head, list(records.values()))
        if under is not None and self.captured.last_input is not None:
            start, seeds = self.captured.last_input, under
            if scores is None:
                self.logits = torch.empty(0)  # large, and their graph is not walked again
        done = pulled_back(self.captured, start, seeds, head, keep=scores is not None)
        del cotangents, seeds, under, start, head, record
        for k, grads in done:
            if grads is not None:
                held[k] = grads
            for parameter in list(records[k].parameters.values()):
                key = id(parameter)
                open_uses[key] -= 1
                if open_uses[key]:
                    continue
                made = [(self._use(records[use], name), held[use]) for use, name in uses[key] if use in held]
                block = _block(made, parameter, records[k]) if made else None
                del made
                for use, _ in uses[key]:
                    users[use] -= 1
                    if not users[use]:
                        held.pop(use, None)
                        del records[use]
                if block is not None:
                    yield parameter, block
                    del block

    def _use(self, record: Record, name: str) -> Use:
        with torch.no_grad():
            return record.rule.function(record.call)[name]


@torch.no_grad()
def _block(uses: list[tuple[Use, Grads]], parameter: nn.Parameter, record: Record) -> Block:
    """Join the uses of one parameter: factors if all are outer products, else written out."""
    if any(isinstance(use, PerExpert) for use, _ in uses):
        return _stacked(uses, parameter, record.call.n)
    factors: list[Factor] = []
    written: list[Tensor] = []
    for use, grads in [(use, part) for use, whole in uses for part in _parts(whole)]:
        if isinstance(use, Outer):
            factors.append(_factor(use, grads, record, parameter))
        else:
            every = grads.each() if isinstance(grads, ScaledRows) else grads
            assert isinstance(use, PerRow)
            written.append(torch.stack([_per_row(use, grad, record, parameter) for grad in every], dim=1))
    shape = tuple(parameter.shape)
    factored = Factored(factors, (shape[0], shape[1])) if factors else None
    if factored is not None and not written:
        return factored
    dense = [Dense(g.reshape(*g.shape[:2], -1)) for g in written] + (
        [factored.written_out()] if factored is not None else []
    )
    return Dense(sum((d.grad for d in dense[1:]), dense[0].grad))


def _stacked(uses: list[tuple[Use, Grads]], parameter: nn.Parameter, n: int) -> Block:
    """Join the uses of one stack of experts' matrices."""
    x, d, p = parameter.shape
    factors: list[list[Factor]] = [[] for _ in range(x)]
    like = parameter
    for use, grads in uses:
        if not isinstance(use, PerExpert) or isinstance(grads, ScaledRows):
            raise UncoveredError({id(parameter)})
        fixed = use.padded(_precise(use.fixed), n)
        rows = [use.padded(_precise(grad), n) for grad in grads]
        for k, own in enumerate(fixed):
            if own is not None:
                factors[k].append(Factor(own, [r[k] for r in rows], use.side))  # type: ignore[misc]
        like = rows[0][next(k for k, r in enumerate(rows[0]) if r is not None)]  # type: ignore[assignment]
    matrices = [Factored(some, (d, p)) if some else None for some in factors]
    return Stacked(matrices, (x, d, p), (n, len(uses[0][1])), like)


def _parts(grads: Grads) -> list[Grads]:
    return list(grads.parts()) if isinstance(grads, ScaledRows) else [grads]


def _precise(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _factor(use: Outer, grads: Grads, record: Record, parameter: nn.Parameter) -> Factor:
    reshape = use.grad or record.call.rows
    scales = grads.scales if isinstance(grads, ScaledRows) and use.grad is None and use.fixed.dim() == 3 else None
    if isinstance(grads, ScaledRows):
        grads = [grads.rows] if scales is not None else list(grads.each())
    rows = [_precise(reshape(grad)) for grad in grads]
    fixed = use.fixed if not use.fixed.is_floating_point() else _precise(use.fixed)
    if fixed.is_floating_point() and fixed.dtype != rows[0].dtype:
        wide = torch.promote_types(fixed.dtype, rows[0].dtype)
        fixed, rows = fixed.to(wide), [row.to(wide) for row in rows]
    n, t, m = rows[0].shape
    k = parameter.shape[use.side] if parameter.dim() == 2 else -1
    expected = (n, t, k) if fixed.is_floating_point() else (n, t)
    if parameter.dim() != 2 or tuple(fixed.shape) != expected or m != parameter.shape[1 - use.side]:
        raise ValueError(
            f"{_name(record)} gave fixed rows of shape {tuple(fixed.shape)} on side {use.side} and output gradients "
            f"of shape {(n, t, m)} for a parameter of shape {tuple(parameter.shape)}: they must be (N, T, k) and "
            "(N, T, m) with k and m the two sides of the parameter."
        )
    if scales is not None:
        return Scaled(fixed, rows[0], scales.to(rows[0]).reshape(len(scales), n, t), use.side)
    return Factor(fixed, rows, use.side)


def _per_row(use: PerRow, grad: Tensor, record: Record, parameter: nn.Parameter) -> Tensor:
    result = _precise(use.function(_precise(grad)))
    expected = (record.call.n, *parameter.shape)
    if tuple(result.shape) != expected:
        raise ValueError(
            f"{_name(record)} gave a gradient of shape {tuple(result.shape)}; "
            f"it must be (N, *parameter.shape) = {expected}."
        )
    return result


def _name(record: Record) -> str:
    return f"the rule {record.rule.function.__name__!r} for {type(record.call.module).__name__}"


class RowByRow:
    """One forward pass per trajectory, plain autograd for the wanted parameters: exact for any model, slow.

    Its blocks are all :class:`Dense`.

    Args:
        student: in eval mode.
        estimators: the scalars wanted.
        rows: (n,) which trajectories.
        wanted: id -> parameter.
    """

    def __init__(
        self, student: nn.Module, estimators: Estimators, rows: Tensor, wanted: Mapping[int, nn.Parameter]
    ) -> None:
        self.parameters = list(wanted.values())
        self.logits = [_alone(student, estimators, row) for row in rows.split(1)]
        self.cotangents = [
            estimators.cotangents(logits, row) for logits, row in zip(self.logits, rows.split(1), strict=True)
        ]
        self.estimators = len(self.cotangents[0])
        self.score_cotangents = [
            partial(estimators.score_cotangents, logits, row)
            for logits, row in zip(self.logits, rows.split(1), strict=True)
        ]

    def blocks(self, scores: range | None = None) -> Iterator[tuple[nn.Parameter, Dense]]:
        """See :class:`Source`."""
        grads: list[list[list[Tensor]]] = []
        for i, logits in enumerate(self.logits):
            cotangents = self.cotangents[i] if scores is None else self.score_cotangents[i](scores)
            grads.append([self._gradient(logits, cotangents[e]) for e in range(len(cotangents))])
        for k, parameter in enumerate(self.parameters):
            yield parameter, Dense(torch.stack([torch.stack([g[k] for g in row]) for row in grads]))

    def _gradient(self, logits: Tensor, cotangent: Tensor) -> list[Tensor]:
        if not logits.requires_grad:
            return [_precise(p.detach().new_zeros(p.numel())) for p in self.parameters]
        found = torch.autograd.grad(
            logits, self.parameters, cotangent, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return [_precise(g.detach().flatten()) for g in found]


def _alone(student: nn.Module, estimators: Estimators, row: Tensor) -> Tensor:
    """(1, T, V) logits of a trajectory, zeros past its end unless a callable may read them there."""
    if callable(estimators.weights):
        return estimators.logits(student, row)
    own, t = estimators.rollouts[row], estimators.rollouts.tokens.shape[1]
    length = max(1, int(own.lengths))
    until = slice(0, length)
    short = replace(own, tokens=own.tokens[:, until], mask=own.mask[:, until], log_probs=own.log_probs[:, until])
    logits = Estimators(short, estimators.weights).logits(student, torch.zeros_like(row))
    return F.pad(logits, (0, 0, 0, t - length))
