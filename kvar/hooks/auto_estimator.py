"""``AutoEstimator``: measures as training goes on, and takes the estimator whose step points best at a target."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch.distributed as dist
from tqdm.auto import tqdm  # type: ignore[import-untyped]
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kvar.analysis.frames.reference import default_reference
from kvar.analysis.optimal.choose import Choice, choose
from kvar.estimators.adaptive import AUTO, adaptive
from kvar.gradients.distributed.processes import all_or_none
from kvar.hooks.batch.probe import BatchProbe
from kvar.hooks.measurable import check_batch, check_probe
from kvar.hooks.probe import GradientProbe
from kvar.hooks.scalars import PREFIX
from kvar.hooks.trainer_log import TrainerLog, step_design
from kvar.measurement import Measurement
from kvar.records import RunWriter

__all__ = ["AutoEstimator"]

ONCE = 2**62
"""Steps between measurements that are made before the first step alone."""


class _Trainer(Protocol):
    """What is asked of a trainer besides transformers' own: kvar's ``DistillationTrainer`` has it."""

    args: Any
    state: Any
    callback_handler: Any

    @property
    def estimator(self) -> str | None: ...

    def use_estimator(self, name: str) -> None: ...


class AutoEstimator(TrainerCallback):
    """Chooses the estimator of a ``DistillationTrainer`` of ``estimator: auto``, before its first step and along it.

    Every ``auto_every`` steps the estimator in use, the candidates and the target are measured, and
    :func:`kvar.analysis.choose` decides by the efficiency (11') of the mean of ``auto_horizon`` steps that the trainer
    takes, by default those until the next choice; the next step is taken by what it says. Where the target is not
    resolved the estimator stays. The settings are the trainer's, ``auto_start`` and those after it.

    With ``auto_on: probe`` the student is measured on the probe's prompts, before the first step and after every
    ``auto_every``-th. A probe that was added to the trainer before goes on measuring at its own steps too, and a step
    that is due for both is measured once. With ``auto_on: batch`` a :class:`BatchProbe` called ``batch`` measures the
    batch that is trained on, in the first step and every ``auto_every`` steps from it; the step after it is the first
    that a choice can change.

    It is added to the trainer's callbacks.

    Args:
        trainer: of kvar.
        probe: measures, and records its measurements; the estimators that the choice needs are added to it. None for
            ``auto_on: batch``.
        writer: appends the tables ``choices`` and ``candidates``, and the batch's measurements; default the probe's.
        log: send ``kvar/auto/efficiency`` (of the estimator that was in use), ``gain``, ``changed`` and ``seconds`` to
            what the trainer reports to.
        say: called with a line of text a choice.

    Attributes:
        choices: those of the present training, by step.

    Raises:
        ValueError: a trainer whose estimator is not ``auto``, no probe or one too many, or a probe or batch on which
            what the choice needs cannot be measured.
    """

    chooses_estimator = True

    def __init__(
        self,
        trainer: _Trainer,
        probe: GradientProbe | None = None,
        *,
        writer: RunWriter | None = None,
        log: bool = True,
        say: Callable[[str], object] = tqdm.write,
    ) -> None:
        args = trainer.args
        if getattr(args, "estimator", None) != AUTO:
            raise ValueError(f"estimator is {getattr(args, 'estimator', None)!r}: AutoEstimator needs estimator auto.")
        self.plan, self.trainer, self.say = adaptive(args), trainer, say
        self.choices: dict[int, Choice] = {}
        self._log = TrainerLog(trainer) if log and isinstance(trainer, Trainer) else None
        self._probes = False
        self._of_batch: Measurement | None = None
        self.probe = self._batch_probe(probe, writer) if args.auto_on == "batch" else self._grown(probe)
        self.writer = self.probe.writer if writer is None else writer
        trainer.callback_handler.add_callback(self)

    def _grown(self, probe: GradientProbe | None) -> GradientProbe:
        """The probe, with the estimators that the choice needs, and driven from here."""
        if probe is None:
            raise ValueError("auto_on is 'probe', but there is no probe: give a GradientProbe, or set auto_on batch.")
        check_probe(
            self.plan,
            prompts=len(probe.prompts[0]) if isinstance(probe.prompts, tuple) else len(probe.prompts),
            rollouts=probe.settings.rollouts_per_prompt,
            step_rollouts=self.trainer.args.rollouts_per_prompt,
            references=probe.references is not None,
        )
        for field in ("max_new_tokens", "centre", "value"):
            of_probe, trained = getattr(probe.settings, field), getattr(self.trainer.args, field)
            if of_probe != trained:
                raise ValueError(
                    f"{field} of the probe is {of_probe!r}, but the training's is {trained!r}, so that another "
                    "gradient would be measured than is trained: give both the same."
                )
        probe.add(self.plan.measured(probe.settings.rollouts_per_prompt))
        self._probes = probe in self.trainer.callback_handler.callbacks
        if self._probes:
            self.trainer.callback_handler.remove_callback(probe)
        return probe

    def _batch_probe(self, probe: GradientProbe | None, writer: RunWriter | None) -> BatchProbe:
        """A probe of the trainer's batches, which it calls before this."""
        args = self.trainer.args
        if probe is not None:
            raise ValueError("auto_on is 'batch', which asks no probe: leave probe out, or set auto_on probe.")
        check_batch(self.plan, args)
        estimators = self.plan.measured(args.rollouts_per_prompt)
        options = {"every": args.auto_every or ONCE, "centre": args.centre, "value": args.value}
        made = BatchProbe(self.trainer, estimators, writer=writer, **options)
        made.listeners.append(self._measured)
        return made

    def _measured(self, measurement: Measurement) -> None:
        self._of_batch = measurement

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Choose before the first step, on the probe's prompts."""
        self._of_batch = None
        resumed = state.global_step > 0
        self.choices = {step: choice for step, choice in self.choices.items() if resumed and step <= state.global_step}
        if isinstance(self.probe, BatchProbe):
            return
        if self.probe in self.trainer.callback_handler.callbacks:
            raise ValueError("the probe was added to the trainer after AutoEstimator took it: add it before, or not.")
        if self._probes:
            self.probe.on_train_begin(args, state, control, **kwargs)
        else:
            self.probe.begin_training(state, **kwargs)
        if not resumed:
            self._choose(self._of_probe(kwargs["model"], args, state), args, state)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Choose where the batch was measured, once the losses of its step are taken."""
        if self._of_batch is not None:
            measurement, self._of_batch = self._of_batch, None
            self._choose(measurement, args, state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Choose after every ``auto_every``-th step that another follows, on the probe's prompts."""
        if isinstance(self.probe, BatchProbe):
            return
        if self._probes:
            self.probe.on_step_end(args, state, control, **kwargs)
        every = self.trainer.args.auto_every
        if every and state.global_step % every == 0 and not control.should_training_stop:
            self._choose(self._of_probe(kwargs["model"], args, state), args, state)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The probe's."""
        if self._probes:
            self.probe.on_evaluate(args, state, control, **kwargs)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The probe's."""
        if self._probes:
            self.probe.on_train_end(args, state, control, **kwargs)

    def _of_probe(self, student: Any, args: TrainingArguments, state: TrainerState) -> Measurement:
        assert isinstance(self.probe, GradientProbe)
        return self.probe.measured(student, state.global_step, args, state)

    def _choose(self, measurement: Measurement, args: TrainingArguments, state: TrainerState) -> None:
        """Choose, and go on with the choice; every process calls this, and the first one chooses."""
        start, previous = time.perf_counter(), str(self.trainer.estimator)

        def chosen() -> Choice | None:
            return self.chosen(measurement, previous) if state.is_world_process_zero else None

        several = args.world_size > 1 and dist.is_initialized()
        choice = next(filter(None, all_or_none(chosen) if several else [chosen()]))
        self.trainer.use_estimator(choice.name)
        self.choices[state.global_step] = choice
        if state.is_world_process_zero:
            self._tell(measurement, choice, previous, measurement.seconds + time.perf_counter() - start)

    def chosen(self, measurement: Measurement, current: str) -> Choice:
        """The choice that a measurement gives reason to, for the step that the trainer takes."""
        args, (batch, rollouts) = self.trainer.args, self._design()
        return choose(
            measurement.moments,
            current,
            self.plan.candidates,
            batch=batch,
            target=self.plan.target,
            margin=args.auto_margin,
            rollouts_per_prompt=rollouts,
            among=[e.name for e in self.plan.lags] or None,
            confidence=args.auto_confidence,
        )

    def _design(self) -> tuple[int, int]:
        """Responses that efficiency is told for, and how many of them a prompt has."""
        args = self.trainer.args
        batch, rollouts = step_design(args)
        return batch * (args.auto_horizon or args.auto_every or self.trainer.state.max_steps), rollouts

    def _tell(self, measurement: Measurement, choice: Choice, previous: str, seconds: float) -> None:
        """Record, print and log a choice."""
        step, gain = measurement.step, choice.gain
        self.say(f"step {step:,}, estimator {choice.name}: {choice.reason} ({seconds:.1f} s)")
        if self.writer is not None:
            import pandas as pd

            row = {
                "probe": self.probe.name,
                "step": step,
                "estimator": choice.name,
                "previous": previous,
                "changed": choice.changed,
                "target": default_reference(measurement.moments.names, self.plan.target),
                "batch": self._design()[0],
                "gain": gain.value,
                "gain_low": gain.low,
                "gain_high": gain.high,
                "reason": choice.reason,
                "seconds": seconds,
            }
            rows = [
                {
                    "probe": self.probe.name,
                    "step": step,
                    "estimator": name,
                    "efficiency": efficiency.value,
                    "efficiency_low": efficiency.low,
                    "efficiency_high": efficiency.high,
                }
                for name, efficiency in choice.efficiencies.items()
            ]
            key = (self.probe.name, step)
            if rows:
                self.writer.append("candidates", pd.DataFrame(rows), key=key)
            self.writer.append("choices", pd.DataFrame([row]), key=key)
        if self._log is not None:
            now = choice.efficiencies.get(previous)
            numbers = {
                "efficiency": math.nan if now is None else now.value,
                "gain": gain.value,
                "changed": float(choice.changed),
                "seconds": seconds,
            }
            logs = {f"{PREFIX}/auto/{name}": x for name, x in numbers.items() if math.isfinite(x)}
            self._log.send(logs, f"{PREFIX}/auto/seconds")
