"""``Recorder``: records the logs of a transformers Trainer in the run's table ``metrics``."""

from __future__ import annotations

import math
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kvar.hooks.scalars import PREFIX
from kvar.hooks.trainer_log import step_design
from kvar.records import RunWriter

__all__ = ["TRAJECTORIES", "Recorder"]

TRAJECTORIES = "trajectories"
"""Name of the number of responses in an optimiser step, recorded with each log of training."""


class Recorder(TrainerCallback):
    """Appends each log of a Trainer to ``metrics``; logs that a resumed run repeats replace the earlier ones.

    The logs of a trainer that samples ``rollouts_per_prompt`` responses also get :data:`TRAJECTORIES`.

    Args:
        writer: the run's writer.
    """

    def __init__(self, writer: RunWriter) -> None:
        self.writer = writer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Remove logs of an earlier training, or past the checkpoint that this one resumes from."""
        if state.is_world_process_zero:
            self.writer.begin(state.global_step, "train", "validation")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Record the numbers of one log; "eval_" names go to the split "validation", all others to "train".

        Logs of probes are left out: their records hold the whole measurements.
        """
        if not state.is_world_process_zero or any(name.startswith(f"{PREFIX}/") for name in logs or ()):
            return
        import pandas as pd

        rows, step = [], state.global_step
        logs = dict(logs or {})
        if "loss" in logs and hasattr(args, "rollouts_per_prompt"):
            logs[TRAJECTORIES] = step_design(args)[0]
        for name, value in logs.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                split, name = "validation" if name.startswith("eval_") else "train", name.removeprefix("eval_")
                rows.append({"step": step, "split": split, "name": name, "value": float(value)})
        if rows:
            key = ("log", str(rows[0]["split"]), step, str(rows[0]["name"]))
            self.writer.append("metrics", pd.DataFrame(rows), key=key)
