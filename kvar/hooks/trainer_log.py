"""``TrainerLog``: the numbers of a probe's measurements, logged by the trainer that is probed."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from kvar.hooks.scalars import PREFIX, scalars_of, step_statistics
from kvar.measurement import Measurement
from kvar.rollouts.patching import replaced

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TrainerLog", "step_design", "unstopped"]


def step_design(args: TrainingArguments) -> tuple[int, int]:
    """B trajectories of an optimiser step and R responses to each of its prompts, by a trainer's settings.

    A batch holds prompts in kvar's trainer (``rollouts_per_prompt``), responses in TRL's of GRPO and its kin
    (``num_generations``), and one response to each of its prompts elsewhere.
    """
    rows = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    rollouts = getattr(args, "rollouts_per_prompt", None)
    if rollouts is not None:
        return rows * rollouts, rollouts
    return rows, getattr(args, "num_generations", None) or 1


class TrainerLog:
    """Logs measurements: call it with each, or put it among a probe's ``listeners``.

    The numbers of :func:`kvar.hooks.scalars` go into ``trainer.state.log_history`` and to every callback of the trainer
    that listens to logs (TensorBoard, trackio, W&B), at the trainer's present step, on the main process only. They are
    logged by ``transformers.Trainer.log`` and not by a subclass's own ``log``, which may close averages that the
    trainer has not logged yet. A callback that fails is warned of once, and training goes on. A step that is in
    ``log_history`` already, as in a training that resumes at its last checkpoint, is not logged again.

    Args:
        trainer: a transformers Trainer.
        batch: B, trajectories of an optimiser step, of efficiency, SNR, bias share and best estimator; default the
            trainer's, :func:`step_design`.
        target: of bias and efficiency, as of :meth:`kvar.measurement.Measurement.statistics`.
        prefix: of the names.
    """

    def __init__(
        self, trainer: Trainer, batch: float | None = None, *, target: str | None = None, prefix: str = PREFIX
    ) -> None:
        self.trainer, self.batch, self.target, self.prefix = trainer, batch, target, prefix
        self._frames: dict[int, pd.DataFrame] = {}
        self._told: set[str] = set()

    def __call__(self, measurement: Measurement) -> None:
        """Log one measurement; on other processes than the main one nothing."""
        state = self.trainer.state
        if not state.is_world_process_zero:
            return
        trajectories, rollouts = step_design(self.trainer.args)
        batch = trajectories if self.batch is None else self.batch
        frame = None
        with unstopped(self._told, "the gradient's statistics", measurement.step):
            frame = step_statistics(measurement, batch, rollouts_per_prompt=rollouts, target=self.target)
        self._frames = {step: held for step, held in self._frames.items() if step < measurement.step}
        if frame is not None:
            self._frames[measurement.step] = frame
        self.send(scalars_of(measurement, frame, batch, self.prefix), f"{self.prefix}/response_length")

    def send(self, logs: dict[str, float], mark: str) -> None:
        """Log numbers as those of a measurement are, unless the present step's log has one of the name ``mark``."""
        state = self.trainer.state
        if not any(mark in entry and entry.get("step") == state.global_step for entry in state.log_history):
            with replaced(self.trainer.callback_handler, "on_log", self._on_log):
                Trainer.log(self.trainer, logs)

    @property
    def history(self) -> pd.DataFrame:
        """The statistics at every logged step, a frame for ``kvar.plots``.

        Those of :meth:`kvar.measurement.Measurement.statistics`: columns step, kernel, statistic, value, low, high and
        others. Empty before the first measurement.
        """
        import pandas as pd

        return pd.concat(self._frames.values(), ignore_index=True) if self._frames else pd.DataFrame()

    def _on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any) -> Any:
        """``CallbackHandler.on_log`` callback by callback; the trainer's own log of this step is still to come."""
        handler = self.trainer.callback_handler
        for callback in handler.callbacks:
            alone = copy.copy(handler)
            alone.callbacks = [callback]
            with unstopped(self._told, type(callback).__name__, state.global_step):
                control = alone.call_event("on_log", args, state, control, logs=logs)
        return control


@contextmanager
def unstopped(told: set[str], what: str, step: int) -> Iterator[None]:
    """Warn of an exception in the block instead of raising it, unless ``what`` is among those told of already."""
    try:
        yield
    except Exception as error:
        if what not in told:
            told.add(what)
            text = f"kvar: {what} failed at step {step}; training goes on. {type(error).__name__}: {error}"
            warnings.warn(text, RuntimeWarning, stacklevel=4)
