"""Per-trajectory gradients from one forward pass for each trajectory: exact for any model, slow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from kvar.gradients.cotangents import Estimators
from kvar.gradients.products.blocks import Dense
from kvar.returns.precision import at_least_float32

__all__ = ["RowByRow"]


class RowByRow:
    """Plain autograd for the wanted parameters, trajectory by trajectory; see :class:`.source.Source`.

    Args:
        student: in eval mode.
        estimators: the scalars.
        rows: (n,) numbers of the trajectories.
        wanted: id -> parameter.
    """

    def __init__(
        self, student: nn.Module, estimators: Estimators, rows: Tensor, wanted: Mapping[int, nn.Parameter]
    ) -> None:
        self.parameters = list(wanted.values())
        self.passes = [(estimators.logits(student, row), row) for row in rows.split(1)]
        self.cotangents = [estimators.cotangents(logits, row) for logits, row in self.passes]
        self.estimators = len(self.cotangents[0])
        self._scores = estimators.score_cotangents

    def blocks(self, scores: range | None = None) -> Iterator[tuple[nn.Parameter, Dense]]:
        """Each parameter with its gradients written out, as :meth:`.source.Source.blocks` has them."""
        grads: list[list[list[Tensor]]] = []
        for (logits, row), known in zip(self.passes, self.cotangents, strict=True):
            cotangents = known if scores is None else self._scores(logits, row, scores)
            grads.append([self._gradient(logits, cotangents[e]) for e in range(len(cotangents))])
        for k, parameter in enumerate(self.parameters):
            yield parameter, Dense(torch.stack([torch.stack([g[k] for g in row]) for row in grads]))

    def _gradient(self, logits: Tensor, cotangent: Tensor) -> list[Tensor]:
        if not logits.requires_grad:
            return [at_least_float32(p.detach().new_zeros(p.numel())) for p in self.parameters]
        grads = torch.autograd.grad(
            logits, self.parameters, cotangent, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return [at_least_float32(g.detach().flatten()) for g in grads]
