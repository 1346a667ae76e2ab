"""The estimators that adaptive trainings chose, and why."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvar.records import Run
from kvar.report.tables.terminal import TABLE_WIDTH

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["choice_lines", "choices_table"]


def choices_table(runs: Sequence[Run], names: Sequence[str]) -> pd.DataFrame:
    """Columns run, step, estimator and why, a row for each choice; empty for runs of one estimator.

    Args:
        runs: any.
        names: their names in the table.
    """
    import pandas as pd

    columns = {"run": str, "step": int, "estimator": str, "why": str}
    frames = [pd.DataFrame({column: pd.Series(dtype=kind) for column, kind in columns.items()})]
    for run, name in zip(runs, names, strict=True):
        chosen = run.read("choices", ["step", "estimator", "reason"]).rename(columns={"reason": "why"})
        if len(chosen):
            frames.append(chosen.assign(run=name).astype(columns)[[*columns]])
    return pd.concat(frames, ignore_index=True)


def choice_lines(table: pd.DataFrame) -> list[str]:
    """The rows of :func:`choices_table` for a terminal."""
    texts = [
        f"{row['run']}, step {row['step']:,}, {row['estimator']}: {row['why']}" for row in table.to_dict("records")
    ]
    return [line for text in texts for line in textwrap.wrap(text, TABLE_WIDTH, subsequent_indent="  ")]
