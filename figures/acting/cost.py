"""Seconds of a training step of every method, side by side in one process, on a quiet machine.

    python -m figures.acting.cost runs/acting [--seconds 60] [--output cost.csv]

All methods of a task are set up as a run sets them up, from the same student of ``start``, and take turns: a block of
steps each, in an order that turns round every time, over the same prompts. The learning rate is too small to change
the student, so that responses do not get shorter on the way. ``cost.csv`` has the median over blocks: seconds of a
step, its ratio to LLMR's in the same round with the least and the largest, and, as ``measurement``, the same of one
choice of a method that measures. One thread; about five minutes a task. Methods that differ from another
in the horizon alone are left out.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import TrainerCallback

from figures.acting.cells import CHOSEN
from figures.acting.measure import TUNING_SEED
from kvar.records.study_folder import cell_parts, read_cells
from kvar.study.run.build import assemble, build_datasets, build_trainer
from kvar.study.settings.reading import settings_from

HERE = Path(__file__).parent
BLOCK = 5
"""Steps of a turn; the first turn of each method is not counted."""
MEASURED = 2
"""Rounds in which the methods that measure also make a choice."""
STILL: dict[str, Any] = {
    "learning_rate": 1e-12, "max_steps": 100_000, "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True,
}  # fmt: skip


class Turns(TrainerCallback):
    """Lets a training take a block of steps when it is told to, and counts the seconds of its steps.

    Training runs in a thread of its own, of which one at a time is awake.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.seconds, self.error = trainer, [], None
        self._go, self._came, self._end, self._steps = threading.Semaphore(0), threading.Semaphore(0), False, 0
        trainer.add_callback(self)
        self._thread = threading.Thread(target=self._train, daemon=True)

    def block(self) -> float:
        """Take a block of steps: mean seconds of one."""
        before = len(self.seconds)
        if self._thread.ident is None:
            self._thread.start()
            self._wait()
        self._go.release()
        self._wait()
        return sum(self.seconds[before:]) / (len(self.seconds) - before)

    def stop(self) -> None:
        """End the training."""
        self._end = True
        self._go.release()
        self._thread.join()

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the next turn after a block."""
        if self._steps % BLOCK == 0:
            self._came.release()
            self._go.acquire()
            if self._end:
                raise InterruptedError
        self._steps += 1
        self._begun = time.perf_counter()

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """A step is over."""
        self.seconds.append(time.perf_counter() - self._begun)

    def _train(self) -> None:
        try:
            self.trainer.train()
        except InterruptedError:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self._came.release()

    def _wait(self) -> None:
        self._came.acquire()
        if self.error is not None:
            raise self.error


def trainers(runs: Path, task: str, folder: Path) -> dict[str, Any]:
    """Method -> its trainer, from the first student of ``start``; all on the same rows."""
    made: dict[str, Any] = {}
    rows = None
    for name, values in read_cells(runs).items():
        at, student, method, _ = cell_parts(name)
        method = method.partition("@")[0]
        if at != task or method in ("start", *CHOSEN["run"], *made):
            continue
        start = runs / task / student / "start" / f"seed-{TUNING_SEED}" / "model"
        fields = {key: value for key, value in values.items() if key not in ("from", "student_config")}
        fields |= {"student": str(start), "output_dir": str(folder / method), **STILL}
        settings, training = settings_from(fields, name)
        parts = assemble(settings, training.seed)
        rows = rows or build_datasets(settings.task, settings.evaluation, training, parts)[0]
        made[method] = build_trainer(settings.probe, training, parts, rows, None, None, {})
    return made


def measure(task: str, made: dict[str, Any], seconds: float) -> pd.DataFrame:
    """Rounds of blocks of all methods until the seconds are over, at least three; the first two with choices."""
    turns = {method: Turns(trainer) for method, trainer in made.items()}
    choosers = {m: c for m, trainer in made.items() if (c := chooser(trainer)) is not None}
    for turn in turns.values():
        turn.block()
    rounds: list[dict[tuple[str, str], float]] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rounds) < 3:
        order = list(turns)[:: 1 if len(rounds) % 2 else -1]
        taken = {(method, "step"): turns[method].block() for method in order}
        if len(rounds) < MEASURED:
            for method, choose in choosers.items():
                taken[method, "measurement"] = measurement(made[method], choose)
        rounds.append(taken)
    for turn in turns.values():
        turn.stop()
    return summary(rounds).assign(task=task)


def summary(rounds: list[dict[tuple[str, str], float]]) -> pd.DataFrame:
    """A row a method and what was timed: medians over rounds, and the range of the ratio to LLMR's step of the round.

    Args:
        rounds: each (method, "step" or "measurement") -> seconds; a round may leave measurements out.
    """
    table = pd.DataFrame(rounds)
    table.columns = pd.MultiIndex.from_tuples(table.columns, names=["method", "what"])
    ratio = table.div(table["llmr", "step"], axis=0)
    columns = {"seconds": table.median(), "ratio": ratio.median(), "low": ratio.min(), "high": ratio.max()}
    return pd.DataFrame({**columns, "rounds": table.notna().sum()}).reset_index()


def chooser(trainer: Any) -> Any:
    """The callback that measures and chooses the estimator, or None."""
    callbacks = trainer.callback_handler.callbacks
    return next((callback for callback in callbacks if getattr(callback, "chooses_estimator", False)), None)


def measurement(trainer: Any, choose: Any) -> float:
    """Seconds of measuring the student and choosing."""
    begun = time.perf_counter()
    choose.chosen(choose.probe.measure(trainer.model, step=0), trainer.estimator)
    return time.perf_counter() - begun


def main() -> None:
    """Both tasks, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of kvar study acting")
    parser.add_argument("--seconds", type=float, default=60, help="of rounds, a task")
    parser.add_argument("--output", type=Path, default=HERE / "cost.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    frames = []
    for task in dict.fromkeys(cell_parts(name)[0] for name in read_cells(args.runs)):
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            made = trainers(args.runs, task, Path(folder))
            print(f"{task}: {len(made)} methods set up in {time.perf_counter() - begun:.0f} s", flush=True)
            frames.append(measure(task, made, args.seconds))
    table = pd.concat(frames)[["task", "method", "what", "seconds", "ratio", "low", "high", "rounds"]]
    table.round(4).to_csv(args.output, index=False)
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
