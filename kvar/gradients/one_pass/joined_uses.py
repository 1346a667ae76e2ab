"""Combines the uses of one parameter with output gradients into a block of the parameter's gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kvar.gradients.capture.plan import UncoveredError
from kvar.gradients.capture.record import Record
from kvar.gradients.one_pass.backward import Grads
from kvar.gradients.one_pass.head_rows import ScaledRows
from kvar.gradients.products.blocks import Block, Dense
from kvar.gradients.products.factor import Factor, Scaled
from kvar.gradients.products.matrix import Factored
from kvar.gradients.products.stacked import Stacked
from kvar.gradients.rules import Outer, PerExpert, PerRow, Use
from kvar.returns.precision import at_least_float32

__all__ = ["block_of"]


def block_of(uses: list[tuple[Use, Grads]], parameter: nn.Parameter, record: Record) -> Block:
    """The gradients of one parameter: factors if all of its uses are outer products, else written out.

    Args:
        uses: each use of the parameter, as a rule gives it, with the gradients of that call's output.
        parameter: the parameter.
        record: a record of one of the uses.

    Raises:
        ValueError: a rule gave arrays of wrong shapes.
        UncoveredError: a stack of experts' matrices has a use of another kind.
    """
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
    """The gradients of one stack of experts' matrices."""
    x, d, p = parameter.shape
    factors: list[list[Factor]] = [[] for _ in range(x)]
    like = parameter
    for use, grads in uses:
        if not isinstance(use, PerExpert) or isinstance(grads, ScaledRows):
            raise UncoveredError({id(parameter)})
        fixed = use.padded(at_least_float32(use.fixed), n)
        rows = [use.padded(at_least_float32(grad), n) for grad in grads]
        for k, part in enumerate(fixed):
            if part is not None:
                factors[k].append(Factor(part, [r[k] for r in rows], use.side))  # type: ignore[misc]
        like = rows[0][next(k for k, r in enumerate(rows[0]) if r is not None)]  # type: ignore[assignment]
    matrices = [Factored(some, (d, p)) if some else None for some in factors]
    return Stacked(matrices, (x, d, p), (n, len(uses[0][1])), like)


def _parts(grads: Grads) -> list[Grads]:
    return list(grads.parts()) if isinstance(grads, ScaledRows) else [grads]


def _factor(use: Outer, grads: Grads, record: Record, parameter: nn.Parameter) -> Factor:
    reshape = use.grad or record.call.rows
    scales = grads.scales if isinstance(grads, ScaledRows) and use.grad is None and use.fixed.dim() == 3 else None
    if isinstance(grads, ScaledRows):
        grads = [grads.rows] if scales is not None else list(grads.each())
    rows = [at_least_float32(reshape(grad)) for grad in grads]
    fixed = use.fixed if not use.fixed.is_floating_point() else at_least_float32(use.fixed)
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
    result = at_least_float32(use.function(at_least_float32(grad)))
    expected = (record.call.n, *parameter.shape)
    if tuple(result.shape) != expected:
        raise ValueError(
            f"{_name(record)} gave a gradient of shape {tuple(result.shape)}; "
            f"it must be (N, *parameter.shape) = {expected}."
        )
    return result


def _name(record: Record) -> str:
    return f"the rule {record.rule.function.__name__!r} for {type(record.call.module).__name__}"
