"""The numbers of a study's finished cells: one row a cell and quantity, before anything is averaged."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from kvar.analysis.frames.recorded import statistics_of
from kvar.records import Run, load
from kvar.records.study_folder import EVALUATION
from kvar.results.study_cells import StudyCell, trained_estimator

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CURVES", "KEYS", "LAST_LOGS", "Key", "StudyValues", "cells_frame", "key_of", "read_study_runs"]

KEYS = ["task", "student", "method", "seed"]
Key: TypeAlias = tuple[str, str, str, int]
"""Task, student, method, seed."""
CURVES = ("loss", "total_gap", "response_length")
"""What is taken from the logs of training, besides the evaluation and the probes."""
LAST_LOGS = 5
"""How many of the last logs make the end of training."""
_DROPPED = ("noise_scale", "norm_test", "trace_t0", "trace_ratio_t1")
"""Statistics that repeat others (up to a constant) or are not formed here."""


@dataclass(frozen=True)
class StudyValues:
    """The numbers of a study's finished cells.

    Attributes:
        cells: one row a planned cell: task, student, method, seed, start, finished, parameters (NaN where unknown),
            estimator (that it trains with; None for none), probed (whether its probes measured that one).
        outcomes: one row a cell and outcome: task, student, method, seed, outcome, value. Outcomes are the evaluation's
            metrics by their names ("length" and "finished" among them); ``total_gap`` and ``probe_length``, means over
            the sampled responses of the last probe, and their quotient ``gap_per_token``; ``train_total_gap`` and
            ``train_response_length``, means over the last five logs of training.
        curves: one row a cell, step and quantity of the logs: task, student, method, seed, step, quantity, value.
        statistics: the statistics frame of the last probe of every cell (``kvar.plots.COLUMNS``), with task, method
            and seed.
        left_out: folder -> why its probes have no statistics.
    """

    cells: pd.DataFrame
    outcomes: pd.DataFrame
    curves: pd.DataFrame
    statistics: pd.DataFrame
    left_out: Mapping[str, str] = field(default_factory=dict)


def read_study_runs(
    cells: Sequence[StudyCell],
    *,
    batch: float,
    reference: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> StudyValues:
    """Read all finished cells, one at a time.

    Args:
        cells: of ``study_cells``.
        batch: B of theory.md (11') for efficiency and error.
        reference: estimator that stands for g*; see ``kvar.analysis.frames.recorded.statistics_of``.
        say: told of the progress.

    Raises:
        ValueError: no cell is finished, or no probe of any can be summarised.
    """
    import pandas as pd

    done = [cell for cell in cells if cell.finished]
    if not done:
        raise ValueError(f"none of the study's {len(cells)} cells is finished: there is nothing to report yet.")
    outcomes, curves, statistics = [], [], [pd.DataFrame()]
    known: dict[Key, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    for number, cell in enumerate(done, start=1):
        run = load(cell.path)
        probes = _probe_records(run)
        estimator = trained_estimator(run.config)
        known[key_of(cell)] = {
            "parameters": run.config.get("parameters", np.nan),
            "estimator": estimator,
            "probed": probes is not None and estimator in _probed_names(probes),
        }
        key: dict[str, Any] = dict(zip(KEYS, key_of(cell), strict=True))
        logged = _logged(run.read("metrics"))
        numbers = {**_evaluated(cell), **_probed(probes), **_trained(logged)}
        outcomes += [{**key, "outcome": name, "value": value} for name, value in numbers.items()]
        curves.append(logged.assign(**key))
        if probes is not None:
            last = probes.measurements()[-1][1]
            try:
                frame = statistics_of(probes, cell.student, steps=[last], batch=batch, reference=reference)
            except ValueError as error:
                left_out[str(cell.path)] = str(error)
            else:
                statistics.append(frame[~frame["statistic"].isin(_DROPPED)].assign(**key))
        if number % 20 == 0 or number == len(done):
            say(f"read {number} of {len(done)} finished cells ({len(cells)} planned)")
    if left_out and len(statistics) == 1:  # a reference that none has, for instance
        raise ValueError(next(iter(left_out.values())))
    return StudyValues(
        cells_frame(cells, known),
        pd.DataFrame(outcomes, columns=[*KEYS, "outcome", "value"]),
        pd.concat(curves, ignore_index=True)[[*KEYS, "step", "quantity", "value"]],
        pd.concat(statistics, ignore_index=True),
        left_out,
    )


def key_of(cell: StudyCell) -> Key:
    """Task, student, method and seed of a cell: the columns :data:`KEYS`."""
    return cell.task, cell.student, cell.method, cell.seed


def cells_frame(cells: Sequence[StudyCell], known: Mapping[Key, Mapping[str, Any]]) -> pd.DataFrame:
    """The ``cells`` of :class:`StudyValues`.

    Args:
        cells: all that are planned, in the order of the study.
        known: key of each finished cell -> its parameters, estimator and probed.
    """
    import pandas as pd

    unknown = {"parameters": np.nan, "estimator": None, "probed": False}
    rows = [
        {**dict(zip(KEYS, key, strict=True)), "start": start, "finished": key in known, **known.get(key, unknown)}
        for key, start in ((key_of(cell), cell.start) for cell in cells)
    ]
    return pd.DataFrame(rows)


def _probe_records(run: Run) -> Run | None:
    """The records that hold a run's probes: its own, or those that ``kvar probe RUN`` wrote below it."""
    if run.measurements():
        return run
    below = run.path / "probe"
    if not (below / "config.json").is_file():
        return None
    later = load(below)
    return later if later.measurements() else None


def _probed_names(run: Run) -> set[str]:
    probe, step = run.measurements()[-1]
    return set(map(str, run.read("gradients", ["estimator"], {"probe": probe, "step": step})["estimator"].unique()))


def _evaluated(cell: StudyCell) -> dict[str, float]:
    """The metrics of evaluation.json; a metric that JSON could not hold is left out."""
    metrics = json.loads((cell.path / EVALUATION).read_text(encoding="utf-8"))["metrics"]
    return {name: float(value) for name, value in metrics.items() if value is not None}


def _probed(run: Run | None) -> dict[str, float]:
    """Means over the responses that the last probe sampled."""
    if run is None:
        return {}
    probe, step = run.measurements()[-1]
    metrics = run.read("metrics", where={"step": step})
    rows = metrics[(metrics["split"] == probe) & (metrics["step"] == step)]
    means = dict(zip(rows["name"].astype(str), rows["value"], strict=True))
    names = {"total_gap": "total_gap", "response_length": "probe_length"}
    out = {ours: float(means[theirs]) for theirs, ours in names.items() if theirs in means}
    if out.get("probe_length", 0) > 0 and "total_gap" in out:
        out["gap_per_token"] = out["total_gap"] / out["probe_length"]
    return out


def _logged(metrics: pd.DataFrame) -> pd.DataFrame:
    """step, quantity, value of :data:`CURVES` in the logs of training."""
    rows = metrics[(metrics["split"] == "train") & metrics["name"].isin(CURVES)].dropna(subset="value")
    return rows.assign(quantity=rows["name"].astype(str))[["step", "quantity", "value"]]


def _trained(logged: pd.DataFrame) -> dict[str, float]:
    """Means over the last logs of what the student sampled in training."""
    means = {}
    for name in ("total_gap", "response_length"):
        rows = logged[logged["quantity"] == name].sort_values("step")
        if len(rows):
            means[f"train_{name}"] = float(rows["value"].tail(LAST_LOGS).mean())
    return means
