"""All runs of this folder in one figure, before and after reinforcement, and in one table.

    python figures/smollm2/together.py

Reads ``RUN/start/statistics.parquet`` and ``RUN/after-K4/statistics.parquet`` beside itself, as ``kvar report`` wrote
them; writes ``together.png``, ``together.svg`` (not kept in git) and ``together.txt``.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kvar.intervals import Interval
from kvar.plots.kernels_over_tasks import kernels_over_tasks
from kvar.plots.parts.save import save
from kvar.results.combined import in_noise

HERE = Path(__file__).parent
WHEN = {"start": "pre-distilled", "after-K4": "after 50 steps of K = 4"}
BATCH = 8
"""Trajectories a step, which the runs' reports were made for."""
PANELS = {
    "trace_ratio": "variance over\nthat of K = 1",
    "bias_in_noise": "squared bias over\nnoise of K = 1",
    "efficiency": "efficiency η",
}

COLUMNS = {
    "trace_ratio": "tr Cov over K = 1's",
    "relative_variance": "tr Cov / |E g|^2",
    "bias_sq": "squared bias",
    "efficiency": "efficiency",
    "best_probability": "probability to point best",
}


def statistics() -> pd.DataFrame:
    """Every number of every run; "student" is its folder here, "task" which of :data:`WHEN`."""
    found = []
    for folder, title in WHEN.items():
        for path in sorted(HERE.glob(f"*/{folder}/statistics.parquet")):
            run = path.parts[-3]
            found.append(pd.read_parquet(path).assign(student=run.replace("-", " "), task=title, method=run, seed=0))
    every = pd.concat(found, ignore_index=True)
    return pd.concat([every, in_noise(every, BATCH)], ignore_index=True)


def table(frame: pd.DataFrame) -> str:
    """A row a run, moment and kernel; brackets are the runs' own 95 % jackknife intervals, by prompt."""
    lines = [" " * 24 + "".join(f"{title:<30}" for title in COLUMNS.values()).rstrip()]
    for (title, run), own in frame.groupby(["task", "student"], sort=False):
        lines.append(f"{run}, {title} ({own['n'].max()} responses)")
        for kernel, rows in own.groupby("kernel", sort=False):
            found = rows.set_index("statistic")
            cells = [Interval(*found.loc[name, ["value", "low", "high"]]) for name in COLUMNS if name in found.index]
            lines.append(f"  {kernel:<22}" + "".join(f"{cell!s:<30}" for cell in cells).rstrip())
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    every = statistics()
    (HERE / "together.txt").write_text(table(every), encoding="utf-8")
    print(table(every))
    save(kernels_over_tasks(every, statistics=PANELS), HERE / "together")
