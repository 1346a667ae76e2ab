"""``OutputLayerProbe``: the output layer's moments of every kernel at every step, from the step's own forward pass."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kvar.estimators import Score, Terms, gather
from kvar.gradients.moments import GroupMoments
from kvar.gradients.output_layer.head_moments import output_layer_moments
from kvar.gradients.output_layer.head_watch import HeadWatch
from kvar.gradients.state import unwrap
from kvar.hooks.estimators import Estimator, check_plain, estimator_weights, estimators_of
from kvar.records import RunWriter
from kvar.returns import Kernel, TokenValues
from kvar.rollouts import Rollouts, whole

__all__ = ["OutputLayerProbe", "StepStatistics"]

_FLUSH = 50
"""Measurements between two writes to the records."""


@dataclass(frozen=True)
class StepStatistics:
    """The output layer's gradient at one step, one micro-batch of N trajectories; squared-gradient units.

    Attributes:
        step: optimiser steps that the policy which sampled the trajectories has taken.
        power: (E,) mean of |g_i^e|^2; tr Cov is this minus the signal.
        inner: (E, E) unbiased <E g^e, E g^f>, from pairs of distinct prompts; its diagonal is the signal. None at steps
            where only norms were measured.
        n: trajectories.
        seconds: time of the measurement.
    """

    step: int
    power: Tensor
    inner: Tensor | None
    n: int
    seconds: float


class OutputLayerProbe(TrainerCallback):
    """Measures every kernel at the output layer at every step, without sampling or passes of its own.

    The training step samples responses, has the teacher value them and runs the student forward; the head's moments
    follow from these (theory.md (14)). The trainer passes rollouts and values after a micro-batch's forward pass::

        callback.on_rollouts(rollouts, values)

    ``DistillationTrainer`` does so for every callback that has the method; in your own trainer call it in
    ``compute_loss``, after ``kvar.rollouts.log_probs(model, rollouts)``. The numbers are those of the weight's use in
    the head; docs/output-layer.md shows how well they follow the gradient of all parameters. A single step is noisy:
    average over steps (``kvar.analysis.output_layer``). They include the training's dropout.

    Norms are cheap. Inner products of means, a Gram of all tokens, cost two to three times as much and are a small part
    of the variance at the head; so norms are taken every ``every`` steps, means every ``means_every``-th time. In a
    training of several processes the first measures its share of the batch.

    Estimators that need more than q and V (``kl immediate exact``) need ``teacher``: each measurement then takes one
    more pass of student and teacher without gradient, in eval mode, and runs the teacher again for exact terms.

    Args:
        estimators: names, kernels and :class:`Estimator` in any mix, names distinct.
        teacher: for estimators that are more than a weight by q and V.
        every: optimiser steps between measurements.
        means_every: measurements between two that take means; by default rare enough to add little to the norms.
        writer: appends rows of ``metrics`` (split ``name``): "power K=4", and where means were taken "signal K=4" and
            "inner K=4", the last with the first estimator. None keeps :class:`StepStatistics` in ``.measurements``.
        name: the split's name in the records.
        vocabulary: normalise over the first this many tokens at most; default the rollouts' action set.
        head: the output layer, if the model does not name it.

    Raises:
        ValueError: no estimators, names that repeat, a score, ``every`` or ``means_every`` below 1, an estimator that
            needs ``teacher``.
    """

    def __init__(
        self,
        estimators: str | Sequence[str | Kernel | Estimator],
        *,
        teacher: nn.Module | None = None,
        every: int = 1,
        means_every: int = 100,
        writer: RunWriter | None = None,
        name: str = "output-layer",
        vocabulary: int | None = None,
        head: nn.Module | None = None,
    ) -> None:
        for field, value in (("every", every), ("means_every", means_every)):
            if value < 1:
                raise ValueError(f"{field} must be at least 1; got {value}.")
        self.teacher, self.estimators = teacher, estimators_of(estimators)
        self.names = [e.name for e in self.estimators]
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"estimators must be one or more, with distinct names; got {self.names}.")
        if teacher is None:
            check_plain(self.estimators, " It takes others with teacher=.")
        for e in self.estimators:
            if isinstance(e.reward, Score):
                raise ValueError(
                    f"estimator {e.name!r} scores whole responses, of which a step has few: use GradientProbe for it."
                )
        self.every, self.means_every, self.writer, self.name = every, means_every, writer, name
        self.vocabulary, self.head = vocabulary, head
        self.measurements: list[StepStatistics] = []
        self._pending: list[StepStatistics] = []
        self._first = 0  # of ``measurements``, the present training's
        self._watch: HeadWatch | None = None
        self._student: nn.Module | None = None
        self._step = 0
        self._idle = False

    def on_rollouts(
        self, rollouts: Rollouts, values: TokenValues, *, hidden: Tensor | None = None, logits: Tensor | None = None
    ) -> None:
        """Measure one micro-batch, right after its forward pass.

        Args:
            rollouts: N trajectories sampled from the current student.
            values: (N, T) the teacher's.
            hidden: (N, T, p) the head's inputs, if the forward pass was not kvar's.
            logits: (N, T, V), with ``hidden``.

        Raises:
            ValueError: the last training forward pass was not over these rollouts.
        """
        if self._step % self.every:
            return
        passes = self._student is not None and not all(e.plain for e in self.estimators)
        with whole(self._student) if passes else nullcontext():  # gathered with the help of every process
            self._measure(rollouts, values, hidden, logits)

    def _measure(self, rollouts: Rollouts, values: TokenValues, hidden: Tensor | None, logits: Tensor | None) -> None:
        mask, index = rollouts.mask, rollouts.prompt_index
        filled = mask.any(dim=1)  # rows without a token only even out the processes' batches and are no samples
        n = 0 if self._idle else int(filled.sum())
        if not n:
            return
        start = time.perf_counter()
        inner = None
        with torch.no_grad():
            weights = self._weights(rollouts, values)
            if hidden is not None and logits is not None:
                rollouts = rollouts.over(self.vocabulary)
                logits = logits if rollouts.policy is None else rollouts.policy.restricted(logits)
                tokens = rollouts.tokens.masked_fill(~mask, 0)
                moments = output_layer_moments(hidden, logits, tokens, mask, weights, index)
                norms, inner = moments.sq_norm, _inner(moments, index, filled)
            elif self._watch is None:
                raise ValueError("OutputLayerProbe is not in a training yet: give it to a trainer as a callback.")
            elif self._step // self.every % self.means_every == 0:
                moments = self._watch.moments(rollouts, weights, vocabulary=self.vocabulary)
                norms, inner = moments.sq_norm, _inner(moments, index, filled)
            else:
                norms = self._watch.norms(rollouts, weights, vocabulary=self.vocabulary)
        seconds = time.perf_counter() - start
        power = (norms if n == len(filled) else norms[:, filled.to(norms.device)]).mean(dim=1)
        statistics = StepStatistics(self._step, power, inner, n, seconds)
        if self.writer is None:
            self.measurements.append(statistics)
        else:
            self._pending.append(statistics)
            if len(self._pending) >= _FLUSH:
                self.flush()

    def _weights(self, rollouts: Rollouts, values: TokenValues) -> Tensor | Terms:
        if all(e.plain for e in self.estimators):
            return estimator_weights(self.estimators, values, rollouts.mask, rollouts.prompt_index)
        if self._student is None:
            raise ValueError("OutputLayerProbe is not in a training yet: give it to a trainer as a callback.")
        return Terms.of(self.estimators, gather(self._student, self.teacher, rollouts, estimators=self.estimators))

    def flush(self) -> None:
        """Write what was measured since the last write; steps of a resumed run replace their earlier rows."""
        if self.writer is None or not self._pending:
            return
        import pandas as pd

        rows = []
        for step in sorted({m.step for m in self._pending}):
            parts = [m for m in self._pending if m.step == step]
            numbers = {"n": float(sum(m.n for m in parts)), "seconds": sum(m.seconds for m in parts)}
            power = _average([(m.n, m.power) for m in parts])
            inner = _average([(m.n, m.inner) for m in parts if m.inner is not None])
            for e, name in enumerate(self.names):
                numbers[f"power {name}"] = float(power[e])
                if len(inner):
                    numbers |= {f"signal {name}": float(inner[e, e]), f"inner {name}": float(inner[e, 0])}
            rows += [{"step": step, "split": self.name, "name": k, "value": v} for k, v in numbers.items()]
        self.writer.append("metrics", pd.DataFrame(rows), key=(self.name, self._pending[0].step))
        self._pending.clear()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Watch the student's head; drop measurements past the step that training starts from."""
        step = self._step = state.global_step
        self._idle = not state.is_world_process_zero
        self._close()
        self._first = self._first if step else len(self.measurements)
        self.measurements[self._first :] = [m for m in self.measurements[self._first :] if m.step < step]
        self._pending = [m for m in self._pending if m.step < step]
        if self.writer is not None and not self._idle:
            self.writer.begin(step, self.name)
        self._student = unwrap(kwargs["model"])
        if not self._idle:
            self._watch = HeadWatch(self._student, self.head, training_only=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count the step."""
        self._step = state.global_step

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write pending measurements, so that records are never behind a checkpoint."""
        self.flush()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Write pending measurements and stop watching the head."""
        self.flush()
        self._close()

    def _close(self) -> None:
        if self._watch is not None:
            self._watch.close()
        self._watch = self._student = None


def _average(parts: list[tuple[int, Tensor]]) -> Tensor:
    """Mean over micro-batches, weighted by trajectories; empty for none."""
    if not parts:
        return torch.zeros(0)
    return torch.stack([n * x for n, x in parts]).sum(dim=0) / sum(n for n, _ in parts)


def _inner(moments: GroupMoments, prompt_index: Tensor, filled: Tensor) -> Tensor:
    """(E, E) unbiased <E g^e, E g^f>, theory.md (12) over pairs of distinct prompts; NaN with a single prompt.

    Rows outside ``filled``, (N,) bool, have no gradient and are not counted.
    """
    prompt_pair = moments.prompt_pair
    assert prompt_pair is not None  # the output-layer pass gives every field
    sizes = prompt_index.unique(return_counts=True)[1].double().cpu()
    same = (sizes**2 * prompt_pair).sum(dim=-1)
    total = len(prompt_index) ** 2 * moments.mean_pair
    counted = prompt_index[filled].unique(return_counts=True)[1].double().cpu()
    return (total - same) / (float(counted.sum()) ** 2 - float((counted**2).sum()))
