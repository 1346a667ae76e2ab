"""``BatchProbe``: the trainer's own estimator beside others, on the batch that is being trained on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from kvar.gradients.state import unwrap
from kvar.hooks.autocast import plain_forward
from kvar.hooks.batch.attach import chosen_estimators, warn_of_sampling
from kvar.hooks.batch.joined import joined_parts
from kvar.hooks.batch.known import kind_of
from kvar.hooks.batch.measure import check_log_probs, measure_batch, padded_log_probs
from kvar.hooks.batch.part import Caught
from kvar.hooks.estimators import Estimator
from kvar.hooks.measurement_settings import Groups, MeasurementSettings
from kvar.hooks.measuring import Measuring
from kvar.measurement import Measurement
from kvar.records import RunWriter
from kvar.returns import Kernel
from kvar.rollouts import check_apart, policy_of

__all__ = ["BatchProbe"]


class BatchProbe(Measuring):
    """Measures the batches that a TRL trainer trains on: its own estimator, called ``trained``, and any others.

    At every ``every``-th optimiser step the gradient of the trainer's loss is caught where it enters the student's
    logits (or log-probabilities), in the trainer's own backward pass, whatever its loss, clip, ratio, KL term and
    normalisation are. Per-trajectory gradients of ``trained`` and of every other estimator follow on the same
    trajectories, all micro-batches of the step together: no sampling, no second pass of the teacher. ``trained`` points
    the way of the step: its mean over the N trajectories is minus the gradient that the trainer takes, before clipping,
    each trajectory's part times N. Moments are of float32 passes: under autocast it is
    that up to rounding.

    The training run is not disturbed: parameters, ``.grad``, buffers, modes and random state stay as they are. Dropout
    is off while gradients are measured; in a training with dropout the mean of ``trained`` is the trainer's gradient
    only on average.

    Known trainers: TRL's GRPO, RLOO and DistillationTrainer, its experimental GKD, IW-OPD, SDFT and SDPO, and kvar's
    DistillationTrainer (whose batches hold values, so that exact sums alone take a pass of the teacher). Estimators of
    teacher values (``kl``, ``gap``, K=4) take the trainer's own teacher, or ``teacher``; ``score`` takes the batch's
    scores: GRPO's and RLOO's advantages, SDPO's rewards. In a batch without a teacher K=4 is of these scores.

    Args:
        trainer: it is added to this trainer's callbacks.
        estimators: as :class:`GradientProbe`'s; by default a few that the batch has all for.
        teacher: in place of the trainer's own.
        every: optimiser steps between measurements.
        first: also measure the first step.
        writer: appends the tables of :class:`GradientProbe`; None keeps measurements in ``.measurements``.
        name: the probe's name in the records.
        groups: parameter groups, see ``kvar.gradients.gradient_moments``; "layers" for one a layer.
        position_bins: also split every estimator but ``trained`` over this many ranges of positions.
        engine: see ``kvar.gradients.gradient_moments``.
        fields: see ``kvar.gradients.gradient_moments``.
        micro_batch: trajectories that the gradient takes at a time; None for all.
        centre: of the teacher's logits, see ``kvar.returns.token_values``.
        value: hard or soft V, see ``kvar.returns.token_values``.

    Raises:
        TypeError: a trainer whose batches are not known.
        ValueError: an estimator that needs what the batch lacks (it is named); several processes; a loss that is no sum
            over trajectories; numbers out of range.
    """

    def __init__(
        self,
        trainer: Any,
        estimators: str | Sequence[str | Kernel | Estimator] | None = None,
        *,
        teacher: nn.Module | None = None,
        every: int = 50,
        first: bool = True,
        writer: RunWriter | None = None,
        name: str = "batch",
        groups: Groups = None,
        position_bins: int = 0,
        engine: str = "auto",
        fields: Literal["all", "norms"] = "all",
        micro_batch: int | None = None,
        centre: Literal["mean", "logsumexp", "none"] = "mean",
        value: Literal["max", "soft"] = "max",
    ) -> None:
        super().__init__(writer, name)
        if every < 1:
            raise ValueError(f"every must be at least 1 training step; got {every}.")
        kind = kind_of(trainer)
        kind.check(trainer)
        if trainer.args.world_size > 1 or trainer.args.n_gpu > 1:
            raise ValueError(
                f"BatchProbe measures on one process; this training has {trainer.args.world_size} with "
                f"{trainer.args.n_gpu} devices each: use GradientProbe, which joins processes."
            )
        if noise := getattr(trainer.args, "neftune_noise_alpha", None):
            raise ValueError(
                f"neftune_noise_alpha={noise:g} puts noise into the trainer's forward passes, which are not those of "
                "the student: leave it out."
            )
        chosen = chosen_estimators(kind, trainer, estimators, teacher)
        warn_of_sampling(chosen, trainer)
        self.settings = MeasurementSettings(
            chosen,
            score=(lambda _: None) if kind.scores else None,
            rollouts_per_prompt=kind.group_size(trainer),
            micro_batch=micro_batch,
            groups=groups,
            position_bins=position_bins,
            engine=engine,
            fields=fields,
            centre=centre,
            value=value,
            constant_scores=True,
        )
        check_apart(unwrap(trainer.model), teacher)
        self.trainer, self.kind, self.teacher = trainer, kind, teacher
        self.estimators = chosen
        self.every, self.first = every, first
        self._caught: list[tuple[Any, Caught]] = []
        self._active, self._known, self._skipped = False, False, -1  # _known: a batch of this training was measured
        self._wrapped: tuple[Any, Any] | None = None  # the trainer's compute_loss before, and this probe's
        trainer.add_callback(self)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look into the trainer's loss from now on; drop measurements from the step on that training starts at."""
        self.begin(state)
        self.measurements[self._first :] = [m for m in self.measurements[self._first :] if m.step < state.global_step]
        student = unwrap(self.trainer.model)
        if _drops(student):
            warnings.warn(
                f"{type(self.trainer).__name__} trains with dropout, which is off while gradients are measured: the "
                "mean of 'trained' is its gradient only on average.",
                stacklevel=2,
            )
        self._caught.clear()
        self._active, self._known, self._skipped = True, False, -1
        if self._wrapped is None:
            self._wrapped = self.trainer.__dict__.get("compute_loss"), self._wrapper(self.trainer.compute_loss)
            self.trainer.compute_loss = self._wrapped[1]

    def _wrapper(self, original: Any) -> Any:
        def compute_loss(model: nn.Module, inputs: Any, *given: Any, **options: Any) -> Any:
            step = self.trainer.state.global_step
            due = self._active and step % self.every == 0 and (self.first or step > 0) and step != self._skipped
            if not due or not model.training or not torch.is_grad_enabled():
                return original(model, inputs, *given, **options)
            return self._caught_loss(original, model, inputs, *given, **options)

        return compute_loss

    def _caught_loss(self, original: Any, model: nn.Module, inputs: Any, *given: Any, **options: Any) -> Any:
        """The trainer's loss of one micro-batch, with what the measurement needs of it kept."""
        try:
            self.kind.checked(inputs, self.trainer)
            caught = Caught(self.kind.layout(inputs), teacher=self.teacher is None)
        except ValueError as error:
            self._skip(error, self.trainer.state)
            return original(model, inputs, *given, **options)
        with self.kind.catching(self.trainer, inputs, caught):
            loss = original(model, inputs, *given, **options)
        if caught.passes != 1:
            raise ValueError(
                f"{type(self.trainer).__name__}.compute_loss takes {caught.passes} forward passes of the student with "
                "gradient; BatchProbe measures losses of one."
            )
        self._caught.append((inputs, caught))
        return loss

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the micro-batches of the step, before its update.

        A batch that cannot be measured is refused where it is the training's first, and left out with a warning later.
        """
        if not self._caught:
            return
        try:
            measurement = self._measure(args, state)
        except ValueError as error:
            self._skip(error, state)
            return
        if measurement is not None:
            self._known = True
            self.deliver(measurement, args, state)

    def _skip(self, error: ValueError, state: TrainerState) -> None:
        """Leave a step out with a warning; a training's first measured step raises instead."""
        self._caught.clear()
        if not self._known:
            raise error
        self._skipped = state.global_step
        warnings.warn(f"step {state.global_step} is not measured: {error}", stacklevel=3)

    def _measure(self, args: TrainingArguments, state: TrainerState) -> Measurement | None:
        """The measurement of the step's micro-batches; None where the trainer's gradient is zero."""
        student = unwrap(self.trainer.model)
        tokenizer = getattr(self.trainer, "_tokenizer", self.trainer.processing_class)
        ends = policy_of(student, tokenizer).ends
        parts = [self.kind.part(self.trainer, inputs, caught, ends) for inputs, caught in self._caught]
        part, first = joined_parts(parts), self._caught[0][1]
        self._caught.clear()
        if part.empty:
            alike = part.scores is not None and not bool(part.scores.any())
            why = ", since every advantage is zero: all responses to a prompt score alike" if alike else ""
            message = f"step {state.global_step} is not measured: the trainer's gradient is zero{why}."
            warnings.warn(message, stacklevel=3)
            return None
        scaler = getattr(self.trainer.accelerator, "scaler", None)
        with plain_forward(student):
            single = student.dtype == torch.float32 and not (args.bf16 or args.fp16)
            seen = part
            if _drops(student):  # its pass is random: the first micro-batch once more
                seen = replace(parts[0], log_probs=padded_log_probs(student, first, part.temperature))
            check_log_probs(student, seen, 1e-3 if single else 0.1)
            return measure_batch(
                student,
                part,
                self.settings,
                teacher=self.teacher or self.kind.own_teacher(self.trainer),
                step=state.global_step,
                scale=1.0 if scaler is None else float(scaler.get_scale()),
                config={
                    "parameters": sum(p.numel() for p in student.parameters() if p.requires_grad),
                    "trainer": type(self.trainer).__name__,
                },
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the trainer's loss alone; what stays of this probe beneath another's does nothing."""
        self._caught.clear()
        self._active = False
        if self._wrapped is not None and self.trainer.__dict__.get("compute_loss") is self._wrapped[1]:
            before, self._wrapped = self._wrapped[0], None
            if before is None:
                del self.trainer.compute_loss
            else:
                self.trainer.compute_loss = before


def _drops(student: nn.Module) -> bool:
    """Whether the student's training mode draws dropout masks."""
    if any(isinstance(module, nn.Dropout) and module.p > 0 for module in student.modules()):
        return True
    return bool(getattr(getattr(student, "config", None), "attention_dropout", 0.0))
