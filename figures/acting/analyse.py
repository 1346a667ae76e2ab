"""Tables and figures of the study of acting, from the runs or from the data beside this file.

    python -m figures.acting.analyse [runs/acting] [--output FOLDER]

With a folder of runs that ``measure.py`` has measured it first writes ``points.parquet`` (objectives, length and scores
at every checkpoint), ``gradients.parquet`` (every statistic of own estimators and targets) and ``choices.parquet``
(what auto and optimal chose); cells that are in these files and not among the runs stay. From these and ``cost.csv``,
of ``cost.py``, it writes ``claims.md`` (what was fixed beforehand, decided), ``table.md`` (all methods), ``rates.md``
(the tuning) and the figures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from figures.acting import claims, claims_knew
from figures.acting.cells import CHOSEN, FIXED, METHODS, REFERENCES, Results
from figures.acting.collect import collect, with_earlier
from figures.acting.pictures import CURVES, chosen, curves, forest
from figures.acting.pictures_knew import knew
from figures.acting.tables import methods, rates
from kvar.plots.parts.save import save

HERE = Path(__file__).parent
COST = ["task", "method", "what", "seconds", "ratio", "low", "high"]
HINDSIGHT = "The best of a group is the one with the largest mean over the seeds compared, which favours the group."
CLOCK = (
    "Equal wall time is in steps of LLMR: all compared are read at the last time at which each still has a curve. "
    "Where the dearest of them has ended last, the others' curves end before it, so that it is read before its own "
    "end; curves are straight between checkpoints (0, 50, 150), which puts one that bends too low there. A step's "
    "seconds are those of the start's lengths: a method that shortens its responses is cheaper than its clock says."
)


def main() -> None:
    """Collect what is measured, then write everything that it allows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="?", help="folder of kvar study acting; default the data beside")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of data, tables and figures")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    if args.runs is not None:
        for name, frame in zip(("points", "gradients", "choices"), collect(args.runs), strict=True):
            path = args.output / f"{name}.parquet"
            kept = with_earlier(frame, pd.read_parquet(path)) if path.is_file() else frame
            kept.to_parquet(path, index=False)
    results = read(args.output)
    text = written(results)
    (args.output / "claims.md").write_text(text, encoding="utf-8")
    (args.output / "table.md").write_text(methods(results), encoding="utf-8")
    (args.output / "rates.md").write_text(rates(results.points), encoding="utf-8")
    made = {f"curves-{name}": curves(results, name) for name, (_, by) in CURVES.items() if seen(results, by)}
    made |= {"forest": forest(results), "knew": knew(results), "choices": chosen(results)}
    for name, figure in made.items():
        if figure is not None:
            save(figure, args.output / name)
    print(text)


def read(folder: Path) -> Results:
    """The study's frames; without ``cost.csv``, beside them or beside this file, nothing has equal wall time."""
    points, gradients, choices = (pd.read_parquet(folder / f"{n}.parquet") for n in ("points", "gradients", "choices"))
    costs = [path for path in (folder / "cost.csv", HERE / "cost.csv") if path.is_file()]
    return Results(points, gradients, choices, pd.read_csv(costs[0]) if costs else pd.DataFrame(columns=COST))


def seen(results: Results, by: str) -> bool:
    """Whether any method was run by seeds that compare."""
    return any(results.methods(task, by) for task in results.tasks)


def written(results: Results) -> str:
    """``claims.md``: the verdicts, then a section with the tables of each."""
    competing = [m for m in METHODS if m not in FIXED]
    sections: dict[str, claims.Section] = {
        "A1, equal samples (decides)": claims.best_fixed(results),
        "A1, equal wall time": claims.best_fixed(results, "seconds"),
        "A2": claims.acting(results),
        "A3": claims.data(results),
        "A4": claims_knew.knew(results),
        "A5": claims.greedy_recipe(results),
        "A4' (stated later)": claims_knew.unread(results),
        "A6 (stated later)": claims.for_the_run(results),
        "A7 (stated later)": claims.not_below(results),
    }
    more = {
        "A4 along the way: step 50": claims_knew.along(results),
        "A4 along the way: auto": claims_knew.auto(results),
        "Each fixed K less K = 1": claims.less_llmr(results),
        "Where K = 1 overtakes": claims_knew.overtaken_by_one(results),
        "A4 at the tuning seed, each method's gain at its best of four rates": claims_knew.tuning(results),
        "Have curves levelled": claims.levelled(results),
        "A1, J, both tasks' seeds together": claims.pooled(results, "J", "samples", competing, FIXED),
        "A1, greedy score, both tasks' seeds together": claims.pooled(results, "greedy", "samples", competing, FIXED),
        "A2, both tasks' seeds together": claims.pooled(results, "J", "seconds", CHOSEN["J"], claims.UNCHOSEN),
        "A3, both tasks' seeds together": claims.pooled(results, "greedy", "seconds", CHOSEN["data"], REFERENCES),
    }
    lines = ["| | verdict |", "|---|---|", *(f"| {name} | {verdict} |" for name, (verdict, _) in sections.items())]
    lines += ["", f"Brackets: 95 % t intervals over seeds, paired by seed. {HINDSIGHT} {CLOCK}"]
    for name, table in {**{name: table for name, (_, table) in sections.items()}, **more}.items():
        if len(table) > 2:
            lines += ["", f"## {name}", "", *table]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
