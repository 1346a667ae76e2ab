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
IN_J = (
    "llmr",
    "llmr-mean",
    "K=2",
    "K=4",
    "K=8",
    "K=8-mean",
    "immediate-exact",
    "exact-expected",
    "optimal-J",
    "auto-J",
)
"""The methods that are compared in J; the others in the score alone."""
FIXED_K = ("llmr", "llmr-mean", "K=2", "K=4", "K=8", "K=8-mean")
KEPT = 2
"""Of the fixed K, how many other seeds run: the best at the tuning seed, of which hindsight takes one."""


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


LATER = ("immediate", "kl-discount", "optimal-data")
"""Methods that are run for seed 1 with the others, for the other seeds after them."""


def cells(points: pd.DataFrame, outcome: str, later: bool = False) -> list[str]:
    """Names of the cells that other seeds run for an outcome."""
    rates = chosen(points, outcome)
    rates = rates[rates["method"].isin(IN_J)] if outcome == "J" else rates
    fixed = rates[rates["method"].isin(FIXED_K)]
    dropped = fixed[fixed.groupby("task")[outcome].rank(ascending=False) > KEPT].index
    return [
        f"{row.task}/small/{row.method}@{row.rate:g}/seed-{seed}"
        for row in rates.drop(dropped).itertuples()
        for seed in SEEDS
        if later or seed == SEEDS[0] or row.method not in LATER
    ]


def main() -> None:
    """Print the choices."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--cells", choices=("J", "greedy"), help="print the cells to run")
    parser.add_argument("--later", action="store_true", help="of all methods for all seeds")
    args = parser.parse_args()
    points = read_points(args.runs)
    if args.cells:
        print("\n".join(cells(points, args.cells, args.later)))
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
