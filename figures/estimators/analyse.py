"""Tables and figures of the study of estimators, from the runs or from the data beside this file.

    python -m figures.estimators.analyse [runs/estimators]

With a folder of runs that ``measure.py`` has measured it first writes ``gradients.parquet`` (every statistic of every
estimator and cell) and ``points.parquet`` (objectives, length, likelihood of the references and scores at every
checkpoint). From these two it writes ``table.md`` (all estimators, best first), ``by_pair.md``, ``claims.md`` (what was
fixed beforehand, decided) and the figures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from figures.estimators.cells import BATCH, PAIR, wide
from figures.estimators.claims import by_task, drift, orderings, other_units, scores, toward_score, used_up
from figures.estimators.collect import collect
from figures.estimators.pictures import directions, drifts, ranked
from figures.estimators.tables import table
from kvar.plots.parts.save import save

HERE = Path(__file__).parent


def main() -> None:
    """Collect what is measured, then write everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="?", help="folder of kvar study estimators; default the data beside")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of data, tables and figures")
    args = parser.parse_args()
    if args.runs is not None:
        gradients, points = collect(args.runs)
        gradients.to_parquet(args.output / "gradients.parquet", index=False)
        points.to_parquet(args.output / "points.parquet", index=False)
    gradients = pd.read_parquet(args.output / "gradients.parquet")
    points = pd.read_parquet(args.output / "points.parquet")
    (args.output / "table.md").write_text(table(gradients), encoding="utf-8")
    cells = wide(gradients, "trace").index
    by_pair = [
        f"## {task}, {student} student\n\n{table(gradients, cells[own])}"
        for (task, student), own in pd.Series(range(len(cells)), index=cells).groupby(level=PAIR, sort=False)
    ]
    (args.output / "by_pair.md").write_text("\n".join(by_pair), encoding="utf-8")
    sections = {"N1, N2": orderings(gradients)}
    if (gradients["method"] != "start").any():
        decided, matrix = used_up(gradients)
        sections |= {"D1": decided, f"Signed root of the efficiency of a step of {BATCH} toward the data": matrix}
        decided, matrix = used_up(gradients, "cosine")
        sections |= {"D1 by cosines of steps": decided, f"Cosine of a step of {BATCH} with one of the data's": matrix}
    sections |= {"D2, D3, D4": drift(points), "S1": scores(gradients, points), "The score": toward_score(gradients)}
    sections |= {"Scores by task": by_task(points), "Over other units": other_units(gradients, points)}
    text = "\n\n".join(f"## {title}\n\n" + "\n".join(lines) for title, lines in sections.items())
    (args.output / "claims.md").write_text(text + "\n", encoding="utf-8")
    save(ranked(gradients), args.output / "ranked")
    save(drifts(points), args.output / "drift")
    if (gradients["method"] != "start").any():
        save(directions(gradients), args.output / "directions")
    print(text)


if __name__ == "__main__":
    main()
