"""``Progress``: loss, return, response length and tokens per second of a training, in one line."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import IO, Any

from tqdm.auto import tqdm  # type: ignore[import-untyped]
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["Progress", "describe"]

SHOWN = {
    "loss": "loss",
    "return": "return",
    "total_gap": "gap",
    "response_length": "length",
    "tokens_per_second": "tokens/s",
}


def describe(logs: Mapping[str, Any]) -> dict[str, str]:
    """The shown numbers of a log, formatted, by label.

    Example:
        >>> describe({"loss": 1.23456, "response_length": 12.5, "tokens_per_second": 10250.7, "epoch": 1.0})
        {'loss': '1.235', 'length': '12.5', 'tokens/s': '10,251'}
    """
    shown = {}
    for name, word in SHOWN.items():
        value = logs.get(name)
        if isinstance(value, (int, float)):
            shown[word] = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return shown


class Progress(TrainerCallback):
    """A progress bar on a terminal, a line at each log elsewhere.

    Args:
        bar: True for a bar, False for lines; by default a bar if the stream is a terminal.
        stream: default standard error.
    """

    def __init__(self, bar: bool | None = None, stream: IO[str] | None = None) -> None:
        self.stream = stream
        self.bar = bar
        self._bar: Any = None
        self._start, self._first = 0.0, 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Open the bar at the step that training starts from."""
        self._start, self._first = time.perf_counter(), state.global_step
        if self._bar is not None:  # of an interrupted training
            self._bar.close()
            self._bar = None
        if not state.is_world_process_zero:
            return
        stream = self.stream or sys.stderr
        if self.bar if self.bar is not None else stream.isatty():
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, file=stream, unit="step")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Advance the bar."""
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show a log's numbers; those of validation on a separate line."""
        if not state.is_world_process_zero or not logs:
            return
        if any(name.startswith("eval_") for name in logs):
            shown = describe({name.removeprefix("eval_"): value for name, value in logs.items()})
            self.say(f"step {state.global_step:,}, validation: {_join(shown)}")
        elif "loss" in logs:
            shown = describe(logs)
            if self._bar is not None:
                self._bar.set_postfix(shown)
            else:
                self.say(f"step {state.global_step:,}/{state.max_steps:,}: {_join(shown)}, {self._left(state)}")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _left(self, state: TrainerState) -> str:
        done = state.global_step - self._first
        seconds = (time.perf_counter() - self._start) * (state.max_steps - state.global_step) / max(done, 1)
        return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02} left"

    def say(self, line: str) -> None:
        """Print a line, above the bar where there is one."""
        if self._bar is not None:
            self._bar.write(line, file=self.stream or sys.stderr)
        else:
            print(line, file=self.stream or sys.stderr, flush=True)


def _join(shown: Mapping[str, str]) -> str:
    return ", ".join(f"{word} {value}" for word, value in shown.items())
