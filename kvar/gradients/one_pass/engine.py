"""The ``one-pass`` engine: one forward, one backward per estimator, inner products layer by layer; theory.md (14)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from kvar.gradients.capture.plan import UncoveredError
from kvar.gradients.cotangents import Estimators, Weights
from kvar.gradients.group_sums import GroupSums
from kvar.gradients.moments import GroupMoments
from kvar.gradients.one_pass.chunks import Chunk, chunked
from kvar.gradients.one_pass.row_by_row import RowByRow
from kvar.gradients.one_pass.source import Graph, Source
from kvar.gradients.one_pass.trial import coverage, warn_uncovered, without_autocast
from kvar.gradients.products.blocks import Block, Groups, gram
from kvar.rollouts.types import Rollouts

__all__ = ["one_pass_moments"]

_HELD = 2**25
"""Gradient entries held at a time where trajectories are measured one by one."""
_SCORES = 8
"""Backward passes whose output gradients are held at a time while score norms are summed."""


def one_pass_moments(
    student: nn.Module,
    rollouts: Rollouts,
    weights: Weights,
    groups: dict[str, list[nn.Parameter]],
    *,
    fields: Literal["all", "norms"] = "all",
    score_power: bool = False,
    micro_batch: int | None = None,
) -> dict[str, GroupMoments]:
    """Moments of per-trajectory gradients without holding the gradients of the whole model.

    One forward pass over the trajectories records the inputs of every layer; one backward pass per estimator on the
    retained graph gives the gradients of the layers' outputs; then, parameter by parameter, inner products are taken
    by Grams or from written-out gradients, whichever is cheaper for its size and T. Shared parameters include every
    cross term. Parameters without a rule are measured where an operation combines them with the trajectories, or by
    running the smallest module that keeps trajectories apart again for each (:mod:`kvar.gradients.capture.plan`); the
    others are measured exactly, one trajectory at a time, with a warning that names them.

    With ``micro_batch`` the trajectories are passed in chunks. ``alignment`` and ``cross`` need the mean over all
    trajectories, so that fields="all" takes a second pass over the chunks (twice the cost). One (E, P) array of sums is
    held between the passes, whatever N is.

    Inner products are taken in the precision of the gradients (at least float32) and summed in float64. In float64
    every field equals the ``loop`` engine's to rounding, in float32 to about 1e-6. Under bfloat16 autocast the fields
    of the whole model have errors of 0.2 to 2 % against float32, one trajectory's norm up to 2.5 %, and the trace of
    the covariance 0.02 to 0.4 % (tiny models of five architectures; T5 and GPT-2 of 1.0 M parameters).

    Arguments and result are those of every engine (:data:`kvar.gradients.measure.ENGINES`); ``score_power`` takes one
    backward pass per position.

    Raises:
        ValueError: a rule that returns wrong shapes; a callable whose result is not (E, N).
    """
    wanted = {id(p): p for members in groups.values() for p in members if p.requires_grad}
    estimators = Estimators(rollouts, weights)
    plan = coverage(student, rollouts, wanted)
    while True:
        sums = GroupSums(groups, len(rollouts), len(rollouts.prompt_index.unique()))
        covered, rest = plan.covered(wanted), plan.rest(wanted)
        warn_uncovered(student, plan.uncovered & wanted.keys())
        run = _Run(rollouts, fields, score_power, sums)
        graph = partial(Graph, student, estimators, wanted=covered, plan=plan)
        row_by_row = partial(RowByRow, student, estimators, wanted=rest)
        try:
            if covered:
                run.measure(graph, chunked(rollouts.prompt_index, micro_batch))
            if rest:
                entries = (sums.estimators + (rollouts.tokens.shape[1] if score_power else 0)) * sum(
                    p.numel() for p in rest.values()
                )
                size = max(1, min(micro_batch or len(rollouts), _HELD // max(entries, 1)))
                run.measure(row_by_row, chunked(rollouts.prompt_index, size))
        except UncoveredError as error:  # a use of a parameter that did not occur in the trial
            plan.uncovered |= error.ids
            continue
        return sums.moments(fields, score_power)


class _Run:
    """Passes over the trajectories that add to the sums."""

    def __init__(self, rollouts: Rollouts, fields: str, score_power: bool, sums: GroupSums) -> None:
        self.rollouts = rollouts
        self.everything = fields == "all"
        self.score_power = score_power
        self.sums = sums
        self.prompt_sizes = rollouts.prompt_index.unique(return_counts=True)[1]

    def measure(self, source: Callable[[Tensor], Source], chunks: list[Chunk]) -> None:
        """Add the moments of the blocks that ``source`` gives for each chunk."""
        n = len(self.rollouts)
        totals: dict[nn.Parameter, Tensor] = {}
        parts: dict[nn.Parameter, Tensor] = {}
        for chunk in chunks:
            current = source(chunk.rows)
            self.sums.begin(current.estimators)
            with without_autocast(self.rollouts):
                if self.score_power:
                    self._scores(current, chunk)
                for parameter, block in current.blocks():
                    with torch.no_grad():
                        if len(chunks) == 1:
                            self._whole(parameter, block, chunk)
                            continue
                        total = self._block(parameter, block, chunk)
                        if self.everything and chunk.part:
                            _add(parts, parameter, total)
                        _add(totals, parameter, total)
                if chunk.part and chunk.last:
                    for parameter, total in parts.items():
                        pair = gram(total)[..., None] / self.prompt_sizes[chunk.prompts].double() ** 2
                        self.sums.add("prompt_pair", parameter, pair, chunk.prompts)
                    parts.clear()
            del current
        for parameter, total in totals.items():
            self.sums.add("mean_pair", parameter, gram(total) / n**2)
        if totals and self.everything:
            for chunk in chunks:
                current = source(chunk.rows)
                with without_autocast(self.rollouts):
                    for parameter, block in current.blocks():
                        with torch.no_grad():
                            self.sums.add("cross", parameter, block.cross(totals[parameter]) / n, chunk.rows)
                del current

    def _whole(self, parameter: nn.Parameter, block: Block, chunk: Chunk) -> None:
        """Add everything of a block that holds all trajectories."""
        n = len(self.rollouts)
        products = block.with_own_total(cross=self.everything)
        if products is None:
            total = self._block(parameter, block, chunk)
            products = gram(total), block.cross(total) if self.everything else None
        elif self.everything:
            pair = block.pair()
            by_prompt = pair if chunk.alone else block.regroup(Groups(chunk.labels)).pair()
            self._add_pairs(parameter, pair, by_prompt, chunk)
        else:
            self.sums.add("sq_norm", parameter, block.norms(), chunk.rows)
        self.sums.add("mean_pair", parameter, products[0] / n**2)
        if products[1] is not None:
            self.sums.add("cross", parameter, products[1] / n, chunk.rows)

    def _block(self, parameter: nn.Parameter, block: Block, chunk: Chunk) -> Tensor:
        """Add the fields that need no mean over all trajectories; return the block's total."""
        if not self.everything:
            self.sums.add("sq_norm", parameter, block.norms(), chunk.rows)
            return block.total()
        if chunk.alone or len(chunk.prompts) == 1:
            pair, total = block.pair_and_total()
            by_prompt = pair if chunk.alone else gram(total)[..., None]
        else:
            pair = block.pair()
            by_prompt, total = block.regroup(Groups(chunk.labels)).pair_and_total()
        self._add_pairs(parameter, pair, by_prompt, chunk)
        return total

    def _add_pairs(self, parameter: nn.Parameter, pair: Tensor, by_prompt: Tensor, chunk: Chunk) -> None:
        """Add inner products within trajectories, and within prompts if the chunk holds whole prompts."""
        self.sums.add("pair", parameter, pair, chunk.rows)
        if chunk.alone:
            by_prompt = torch.empty_like(pair).index_copy_(2, chunk.labels, pair)
        if not chunk.part:
            sizes = self.prompt_sizes[chunk.prompts].double()
            self.sums.add("prompt_pair", parameter, by_prompt / sizes**2, chunk.prompts)

    def _scores(self, current: Source, chunk: Chunk) -> None:
        """Add the squared norms of every token's score, a few positions at a time."""
        t = self.rollouts.tokens.shape[1]
        for start in range(0, t, _SCORES):
            for parameter, block in current.blocks(scores=range(start, min(start + _SCORES, t))):
                with torch.no_grad():
                    self.sums.add("score_power", parameter, block.norms().sum(dim=0), chunk.rows)


def _add(to: dict[nn.Parameter, Tensor], parameter: nn.Parameter, total: Tensor) -> None:
    if parameter in to:
        to[parameter] += total
    else:
        to[parameter] = total.clone()
