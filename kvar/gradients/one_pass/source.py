"""Per-trajectory gradients from one forward pass over the trajectories: :class:`Graph`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from kvar.gradients.capture.capture import capture
from kvar.gradients.capture.plan import Plan, UncoveredError
from kvar.gradients.cotangents import Estimators
from kvar.gradients.one_pass.backward import Grads, pulled_back
from kvar.gradients.one_pass.head_rows import input_rows, scaled_rows
from kvar.gradients.one_pass.joined_uses import block_of
from kvar.gradients.products.blocks import Block

__all__ = ["Graph", "Source"]


class Source(Protocol):
    """Gradients of some trajectories under E estimators."""

    estimators: int
    """E."""

    def blocks(self, scores: range | None = None) -> Iterator[tuple[nn.Parameter, Block]]:
        """Each parameter with its gradients, which are released during the iteration.

        Args:
            scores: positions whose token scores are differentiated instead of the estimators. The estimators'
                gradients can be taken once, after any scores.
        """
        ...


class Graph:
    """One forward pass over some trajectories; one backward pass per estimator for the blocks.

    Args:
        student: in eval mode.
        estimators: the scalars.
        rows: (n,) numbers of the trajectories.
        wanted: id -> parameter.
        plan: how each parameter is measured.

    Raises:
        UncoveredError: some wanted parameters cannot be measured this way.
    """

    def __init__(
        self, student: nn.Module, estimators: Estimators, rows: Tensor, wanted: Mapping[int, nn.Parameter], plan: Plan
    ) -> None:
        with capture(student, wanted, len(rows), plan, cut=plan.cut) as captured:
            logits = estimators.logits(student, rows)
        missed = captured.missed(logits, wanted)
        if plan.kinds is not None and len(rows) > 1:  # a use that the trial did not have
            missed |= {key for key, kinds in captured.kinds.items() if not kinds <= plan.kinds.get(key, {"leading"})}
        if missed:
            raise UncoveredError(missed)
        self.captured = captured
        self.logits = logits
        self.cotangents = estimators.cotangents(logits, rows)
        self.estimators = len(self.cotangents)
        self._scores = partial(estimators.score_cotangents, rows=rows)
        self.wanted = wanted

    def blocks(self, scores: range | None = None) -> Iterator[tuple[nn.Parameter, Block]]:
        """See :class:`Source`; unused parameters, whose gradients are zero, are left out."""
        records = dict(enumerate(self.captured.records))
        if not records or not self.logits.requires_grad:
            return
        cotangents = self.cotangents if scores is None else self._scores(self.logits, positions=scores)
        head = scaled_rows(self.logits, records[len(records) - 1], cotangents)
        uses: dict[int, list[tuple[int, str]]] = {key: [] for key in self.wanted}
        for k, record in records.items():
            for name, parameter in record.parameters.items():
                uses[id(parameter)].append((k, name))
        pending_uses = {key: len(places) for key, places in uses.items()}
        pending_parameters = {k: len(record.parameters) for k, record in records.items()}
        held: dict[int, Grads] = {}
        start, seeds = self.logits, cotangents
        inputs = None if head is None else input_rows(self.captured, self.logits, head, list(records.values()))
        if inputs is not None and self.captured.last_input is not None:
            start, seeds = self.captured.last_input, inputs
            if scores is None:
                self.logits = torch.empty(0)  # release a large tensor, whose graph is no longer needed
        complete = pulled_back(self.captured, start, seeds, head, keep=scores is not None)
        del cotangents, seeds, inputs, start, head, record
        for k, grads in complete:
            if grads is not None:
                held[k] = grads
            for parameter in list(records[k].parameters.values()):
                key = id(parameter)
                pending_uses[key] -= 1
                if pending_uses[key]:
                    continue
                with torch.no_grad():
                    used = [
                        (records[use].rule.function(records[use].call)[name], held[use])
                        for use, name in uses[key]
                        if use in held
                    ]
                    block = block_of(used, parameter, records[k]) if used else None
                del used
                for use, _ in uses[key]:
                    pending_parameters[use] -= 1
                    if not pending_parameters[use]:
                        held.pop(use, None)
                        del records[use]
                if block is not None:
                    yield parameter, block
                    del block
