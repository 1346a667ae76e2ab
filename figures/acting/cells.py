"""Methods of the study, their chosen rates, and the curves of one at its rate: rows seeds, columns steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from figures.acting.measure import TUNING_SEED
from figures.acting.tune import chosen
from kvar.intervals import Interval, mean_with_interval

BATCH = 16
"""Responses a step, one each to so many prompts."""
LAST = 150
"""The last step of a reinforced method, at which equal samples are compared."""
FIXED = ("llmr", "llmr-mean", "K=2", "K=4", "K=8", "K=8-mean")
"""The fixed K, the best of which in hindsight is what A1 has to beat."""
REFERENCES = ("sft", "kl")
"""Trained on the references, for 450 steps."""
CHOSEN = {"J": ("auto-J", "optimal-J"), "data": ("auto-data", "optimal-data"), "run": ("auto-run", "optimal-run")}
"""Target -> methods whose estimator a measurement chose, along the way or once at the start; "run": toward J by the
efficiency of the whole run's responses, which was added after A1 to A5 were read."""
METHODS = {
    "llmr": ("LLMR (K = 1)", "fixed K"),
    "llmr-mean": ("LLMR, batch mean", "fixed K"),
    "K=2": ("K = 2", "fixed K"),
    "K=4": ("K = 4", "fixed K"),
    "K=8": ("K = 8", "fixed K"),
    "K=8-mean": ("K = 8, batch mean", "fixed K"),
    "immediate": ("immediate, sampled", "other estimators"),
    "immediate-exact": ("immediate, exact", "other estimators"),
    "exact-expected": ("exact, expected returns", "other estimators"),
    "kl-exact": ("reverse KL, exact", "other estimators"),
    "kl-discount": ("reverse KL, discounted", "other estimators"),
    "recipe": ("recipe, sampled", "recipe"),
    "recipe-greedy": ("recipe, greedy", "recipe"),
    "sft": ("SFT on references", "references"),
    "kl": ("KL on references", "references"),
    "optimal-J": ("measured once, J", "measured"),
    "optimal-data": ("measured once, data", "measured"),
    "optimal-run": ("measured once for the run, J", "measured"),
    "auto-J": ("auto, J", "measured"),
    "auto-data": ("auto, data", "measured"),
    "auto-run": ("auto for the run, J", "measured"),
}
"""Method -> its name in tables and figures, and its family."""
OUTCOMES = {"J": "J", "greedy": "greedy score"}
"""Quantity compared -> its name; the quantity also names the rate at which it is compared."""


def over(values: Iterable[float], confidence: float = 0.95) -> Interval:
    """The mean of seeds with its t interval, from three on; NaN are left out, and n says how many were not."""
    x = np.asarray(list(values), dtype=float)
    x = x[np.isfinite(x)]
    if len(x) < 3:
        return Interval(float(x.mean()) if len(x) else np.nan, n=len(x))
    return Interval(*mean_with_interval(x, confidence), n=len(x))


def label(method: str) -> str:
    """A method's name in tables and figures."""
    return METHODS[method][0] if method in METHODS else method


@dataclass(frozen=True)
class Results:
    """What the study came to, as four frames.

    Attributes:
        points: objectives and scores: task, method, rate, seed, step and numbers.
        gradients: statistics of gradients.
        choices: what auto and optimal methods chose: task, method, rate, seed, step, estimator, ...
        cost: task, method, what ("step" or "measurement"), seconds, ratio, low, high; empty where not measured.
    """

    points: pd.DataFrame
    gradients: pd.DataFrame
    choices: pd.DataFrame
    cost: pd.DataFrame

    @cached_property
    def rates(self) -> dict[tuple[str, str, str], float]:
        """(task, method, "J" or "greedy") -> the rate that the tuning seed chose."""
        found: dict[tuple[str, str, str], float] = {}
        for by in OUTCOMES if (self.points["seed"] == TUNING_SEED).any() else ():
            found |= {(row.task, row.method, by): row.rate for row in chosen(self.points, by).itertuples()}
        return found

    @cached_property
    def tasks(self) -> list[str]:
        """In the order of the study."""
        return list(dict.fromkeys(self.points["task"]))

    def methods(self, task: str, by: str) -> list[str]:
        """Methods that have seeds at their rate for an outcome, in the order of :data:`METHODS`."""
        return [m for m in METHODS if (task, m, self.rates.get((task, m, by))) in self._runs]

    def curves(self, task: str, method: str, quantity: str, by: str) -> pd.DataFrame:
        """Rows seeds, columns steps from 0, the start's, on; at the rate chosen for ``by``. Empty where not run."""
        run = self._runs.get((task, method, self.rates.get((task, method, by))))
        if run is None:
            return pd.DataFrame()
        rows = run[quantity].unstack("step")
        start = self._starts.get(task)
        rows.insert(0, 0, np.nan if start is None else start[quantity].reindex(rows.index))
        return rows

    def gains(self, task: str, method: str, quantity: str, by: str, step: int = LAST) -> pd.Series:
        """Seed -> a quantity at a step less that of the start; empty where the step was not reached."""
        rows = self.curves(task, method, quantity, by)
        return (rows[step] - rows[0]).dropna() if step in rows else pd.Series(dtype=float)

    @cached_property
    def _compared(self) -> pd.DataFrame:
        return self.points[self.points["seed"] != TUNING_SEED]

    @cached_property
    def _runs(self) -> dict[tuple[str, str, float | None], pd.DataFrame]:
        groups = self._compared.groupby(["task", "method", "rate"], sort=False)
        return {key: rows.set_index(["seed", "step"]).sort_index() for key, rows in groups}  # type: ignore[misc]

    @cached_property
    def _starts(self) -> dict[str, pd.DataFrame]:
        own = self._compared[self._compared["method"] == "start"]
        return {str(task): rows.set_index("seed") for task, rows in own.groupby("task")}


def competitors(results: Results) -> list[str]:
    """The methods of A1, none of them a fixed K, that were compared for any task and outcome."""
    ran = {m for task in results.tasks for by in OUTCOMES for m in results.methods(task, by)}
    return [m for m in METHODS if m in ran and m not in (*FIXED, *CHOSEN["run"])]
