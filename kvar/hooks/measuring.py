"""``Measuring``: what callbacks that make measurements have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from transformers import TrainerCallback, TrainerState, TrainingArguments

from kvar.hooks.trainer_log import TrainerLog, step_design, unstopped
from kvar.measurement import Measurement, record
from kvar.records import RunWriter

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Measuring"]


class Measuring(TrainerCallback):
    """A callback that keeps or records measurements and passes each to its listeners.

    Args:
        writer: appends measurements to a run's tables; None keeps them in ``measurements``.
        name: the probe's name in the records.

    Attributes:
        measurements: those made, the present training's last; empty with a writer.
        listeners: called with each measurement on the main process, once it is kept or recorded;
            :class:`kvar.hooks.TrainerLog` is one. One that fails is warned of once, and training goes on.
        batch: B, trajectories of the step that a measurement's printed table is for; None for the trainer's.
    """

    def __init__(self, writer: RunWriter | None, name: str) -> None:
        self.writer, self.name = writer, name
        self.measurements: list[Measurement] = []
        self.listeners: list[Callable[[Measurement], object]] = []
        self.batch: float | None = None
        self._told: set[str] = set()
        self._first = 0  # of ``measurements``, the present training's

    def __repr__(self) -> str:
        names = ", ".join(e.name for e in getattr(self, "estimators", ()))
        last = f", the last at step {self.measurements[-1].step}" if self.measurements else ""
        return f"<{type(self).__name__} {self.name!r} of {names}; {len(self.measurements)} measurements kept{last}>"

    @property
    def history(self) -> pd.DataFrame:
        """The statistics of every step that was logged, see :attr:`kvar.hooks.TrainerLog.history`.

        Raises:
            ValueError: nothing logs this probe's measurements.
        """
        for listener in self.listeners:
            if isinstance(listener, TrainerLog):
                return listener.history
        raise ValueError("this probe has no history, since nothing logs it: attach it by kvar.watch.")

    def record(self, measurement: Measurement) -> None:
        """Append a measurement to the writer's tables, in place of an earlier one of the same (name, step)."""
        if self.writer is not None:
            record(measurement, self.writer, self.name)

    def begin(self, state: TrainerState) -> None:
        """Drop measurements of an earlier training, or past the checkpoint that this one resumes from."""
        step = state.global_step
        self._first = self._first if step else len(self.measurements)
        self.measurements[self._first :] = [m for m in self.measurements[self._first :] if m.step <= step]
        if self.writer is not None and state.is_world_process_zero:
            self.writer.begin(step, self.name)

    def deliver(self, measurement: Measurement, args: TrainingArguments, state: TrainerState) -> None:
        """Keep or record a measurement and call the listeners, on the main process only.

        The measurement is told of the trainer's step, which printing it is then for.
        """
        if not state.is_world_process_zero:
            return
        trajectories, rollouts = step_design(args)
        batch = trajectories if self.batch is None else self.batch
        step = {"batch": batch, "rollouts_per_prompt": rollouts}
        measurement = replace(measurement, config={**measurement.config, "step": step})
        if self.writer is None:
            self.measurements.append(measurement)
        self.record(measurement)
        for listener in self.listeners:
            with unstopped(self._told, getattr(listener, "__name__", type(listener).__name__), measurement.step):
                listener(measurement)
