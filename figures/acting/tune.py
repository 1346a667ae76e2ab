"""The learning rate of every method: the best of four on validation, at seed 0, for J and for the score.

    python -m figures.acting.tune runs/acting                    # the table
    python -m figures.acting.tune runs/acting --cells J          # names of the cells that other seeds should run

Both are means over the same 192 prompts after the last step: J of sampled responses, the score of greedy ones (chrF
of translations, ROUGE-L of synopses). Only students at the same step are compared.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

from figures.acting.measure import TUNING_SEED
from kvar.records.study_folder import cell_parts, read_cells

GREEDY = {"translation": "greedy_chrf", "summarisation": "greedy_rougeL"}
SEEDS = (1, 2, 3, 4, 5)
NOT_IN_J = ("recipe", "recipe-greedy", "sft", "kl", "optimal-data", "auto-data")
"""Methods that ask for something else and are compared in the score alone."""
IN_J_ALONE = ("optimal-run", "auto-run")
"""Methods that are compared in J alone."""


def read_points(runs: Path) -> pd.DataFrame:
    """Every measured checkpoint: task, method, rate, seed, step and its numbers; ``greedy`` is the task's score."""
    rows = []
    for name in read_cells(runs):
        file = runs / name / "points.json"
        if not file.is_file():
            continue
        task, _, whole, seed = cell_parts(name)
        method, _, rate = whole.partition("@")
        at = {"task": task, "method": method, "rate": float(rate or "nan"), "seed": int(seed or 0)}
        rows += [{**at, **row, "greedy": row[GREEDY[task]]} for row in json.loads(file.read_text(encoding="utf-8"))]
    return pd.DataFrame(rows)


def chosen(points: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """One row a task and method: the rate with the largest outcome at the tuning seed's last step."""
    tuning = points[(points["seed"] == TUNING_SEED) & (points["method"] != "start")]
    last = tuning[tuning["step"] == tuning.groupby(["task", "method"])["step"].transform("max")]
    return last.loc[last.groupby(["task", "method"])[outcome].idxmax()]


def cells(points: pd.DataFrame, outcome: str) -> list[str]:
    """Names of the cells that other seeds run for an outcome."""
    rates = chosen(points, outcome)
    rates = rates[~rates["method"].isin(NOT_IN_J if outcome == "J" else IN_J_ALONE)]
    return [
        f"{row.task}/small/{row.method}@{row.rate:g}/seed-{seed}"
        for seed in SEEDS
        for row in rates.sort_values("method", kind="stable").itertuples()
    ]


def main() -> None:
    """Print the choices."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--cells", choices=("J", "greedy"), help="print the cells to run")
    args = parser.parse_args()
    points = read_points(args.runs)
    if args.cells:
        print("\n".join(cells(points, args.cells)))
        return
    tuning = points[points["seed"] == TUNING_SEED]
    print(
        tuning.pivot_table(index=["task", "method", "rate"], columns="step", values=["J", "greedy"])
        .round(2)
        .to_string()
    )
    for outcome in ("J", "greedy"):
        print(chosen(points, outcome).pivot(index="method", columns="task", values="rate").add_prefix(f"{outcome} "))


if __name__ == "__main__":
    main()
