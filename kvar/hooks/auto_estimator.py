"""``AutoEstimator``: measures as training goes on, and takes the estimator whose step points best at a target."""

from __future__ import annotations

import math
import time
from typing import Any, Protocol

import torch.distributed as dist
from tqdm.auto import tqdm  # type: ignore[import-untyped]
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kvar.analysis.frames.reference import default_reference
from kvar.analysis.optimal.choose import Choice, choose
from kvar.estimators import DATA
from kvar.estimators.adaptive import AUTO, FITTED, Adaptive, adaptive
from kvar.gradients.distributed.processes import all_or_none
from kvar.hooks.probe import GradientProbe
from kvar.hooks.scalars import PREFIX
from kvar.hooks.trainer_log import TrainerLog, step_design
from kvar.measurement import Measurement
from kvar.records import RunWriter

__all__ = ["AutoEstimator", "check_measurable"]


class _Trainer(Protocol):
    """What is asked of a trainer besides transformers' own: kvar's ``DistillationTrainer`` has it."""

    args: Any
    estimator: str | None
    callback_handler: Any

    def use_estimator(self, name: str) -> None: ...


class AutoEstimator(TrainerCallback):
    """Chooses the estimator of a ``DistillationTrainer`` of ``estimator: auto``, before its first step and along it.

    Every ``auto_every`` steps the probe measures the estimator in use, the candidates and the target, and
    :func:`kvar.analysis.choose` decides by the efficiency (11') of the step that the trainer takes; the next step is
    taken by what it says. Where the target is not resolved the estimator stays. The settings are the trainer's,
    ``auto_start`` and those after it.

    It is added to the trainer's callbacks. A probe that was added before goes on measuring at its own steps too, and a
    step that is due for both is measured once.

    Args:
        trainer: of kvar.
        probe: measures, and records its measurements; the estimators that the choice needs are added to it.
        writer: appends the tables ``choices`` and ``candidates``; default the probe's.
        log: send ``kvar/auto/efficiency`` (of the estimator that was in use), ``gain``, ``changed`` and ``seconds`` to
            what the trainer reports to.

    Attributes:
        choices: those of the present training, by step.

    Raises:
        ValueError: a trainer whose estimator is not ``auto``, or a probe that cannot measure what the choice needs.
    """

    chooses_estimator = True

    def __init__(
        self, trainer: _Trainer, probe: GradientProbe, *, writer: RunWriter | None = None, log: bool = True
    ) -> None:
        args = trainer.args
        if getattr(args, "estimator", None) != AUTO:
            raise ValueError(f"estimator is {getattr(args, 'estimator', None)!r}: AutoEstimator needs estimator auto.")
        self.plan = adaptive(args)
        check_measurable(
            self.plan,
            prompts=len(probe.prompts[0]) if isinstance(probe.prompts, tuple) else len(probe.prompts),
            rollouts=probe.settings.rollouts_per_prompt,
            step_rollouts=args.rollouts_per_prompt,
            references=probe.references is not None,
        )
        probe.add(self.plan.measured(probe.settings.rollouts_per_prompt))
        self.trainer, self.probe = trainer, probe
        self.writer = probe.writer if writer is None else writer
        self.choices: dict[int, Choice] = {}
        self._log = TrainerLog(trainer) if log and isinstance(trainer, Trainer) else None
        self._probes = probe in trainer.callback_handler.callbacks
        if self._probes:
            trainer.callback_handler.remove_callback(probe)
        trainer.callback_handler.add_callback(self)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Choose before the first step."""
        if self.probe in self.trainer.callback_handler.callbacks:
            raise ValueError("the probe was added to the trainer after AutoEstimator took it: add it before, or not.")
        if self._probes:
            self.probe.on_train_begin(args, state, control, **kwargs)
        else:
            self.probe.begin_training(state, **kwargs)
        resumed = state.global_step > 0
        self.choices = {step: choice for step, choice in self.choices.items() if resumed and step <= state.global_step}
        if not resumed:
            self._choose(kwargs["model"], args, state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Choose after every ``auto_every``-th step that another follows."""
        if self._probes:
            self.probe.on_step_end(args, state, control, **kwargs)
        every = self.trainer.args.auto_every
        if every and state.global_step % every == 0 and not control.should_training_stop:
            self._choose(kwargs["model"], args, state)

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

    def _choose(self, student: Any, args: TrainingArguments, state: TrainerState) -> None:
        """Measure, choose, and go on with the choice; every process calls this, and the first one chooses."""
        measurement = self.probe.measured(student, state.global_step, args, state)
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
        args = self.trainer.args
        batch, rollouts = step_design(args)
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

    def _tell(self, measurement: Measurement, choice: Choice, previous: str, seconds: float) -> None:
        """Record, print and log a choice."""
        step, gain = measurement.step, choice.gain
        batch = step_design(self.trainer.args)[0]
        tqdm.write(f"step {step:,}, estimator {choice.name}: {choice.reason} ({seconds:.1f} s)")
        if self.writer is not None:
            import pandas as pd

            row = {
                "probe": self.probe.name,
                "step": step,
                "estimator": choice.name,
                "previous": previous,
                "changed": choice.changed,
                "target": default_reference(measurement.moments.names, self.plan.target),
                "batch": batch,
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


def check_measurable(plan: Adaptive, *, prompts: int, rollouts: int, step_rollouts: int, references: bool) -> None:
    """Refuse a probe that cannot measure what a choice needs.

    Args:
        plan: of the training.
        prompts: of the probe.
        rollouts: responses to each.
        step_rollouts: responses to each prompt of a training step.
        references: whether the probe has references.

    Raises:
        ValueError: too few prompts for the fitted kernel, or for any variance; one response a prompt where two are
            needed; a target without its data. One line with field, value and remedy.
    """
    groups = len(plan.lags)
    if prompts < max(2 * groups, 2):
        what = f"{FITTED!r} fits {groups} groups of lags and needs twice as many" if groups else "a variance needs 2"
        raise ValueError(
            f"probe_prompts: the probe has {prompts} prompts, and {what}: give at least {max(2 * groups, 2)}"
            + (f", or leave {FITTED!r} out of auto_candidates." if groups else ".")
        )
    if rollouts < 2:
        if step_rollouts > 1:
            raise ValueError(
                f"probe_rollouts is {rollouts}, and efficiency for a step of rollouts_per_prompt {step_rollouts} needs "
                "prompts measured with 2 responses or more: raise probe_rollouts."
            )
        for e in plan.measured(rollouts):
            if getattr(e.subtracted, "scope", None) == "prompt":
                raise ValueError(f"probe_rollouts is {rollouts}, and {e.name!r} needs 2 or more: raise probe_rollouts.")
    if plan.target == DATA and not references:
        raise ValueError("auto_target is 'data', but the probe has no references: give it references=.")
