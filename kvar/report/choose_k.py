"""``kvar choose-k``: which kernel serves a step of M prompts x R rollouts best, from a run's probe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kvar.analysis.best_k import best_k
from kvar.analysis.runs import probes_of
from kvar.gradients.frames import moments_from_frames
from kvar.records import Run
from kvar.report.cells import Cell
from kvar.report.table import compact

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["choose_k"]


def choose_k(
    run: Run,
    prompts: Sequence[int],
    rollouts: Sequence[int],
    *,
    step: int | str = "last",
    group: str = "all",
    reference: str | None = None,
) -> str:
    """Tables of every (M, R): efficiency (11'), mean squared error (10), and how often each kernel is best in them.

    Args:
        run: with a probe.
        prompts: values of M.
        rollouts: values of R.
        step: training step of the probe, or "last".
        group: parameter group.
        reference: unbiased estimator; by default K=1, less a leave-one-out baseline where that was measured.

    Raises:
        ValueError: no probe at that step, or R > 1 where prompts were measured with one rollout.
    """
    probes = probes_of(run)
    wanted = [pair for pair in probes if step in ("last", pair[1])]
    if not wanted:
        raise ValueError(f"{run.path} has no probe at step {step}; choose of {sorted({s for _, s in probes})}.")
    probe, at = wanted[-1]
    where = {"probe": probe, "step": at}
    moments = moments_from_frames(run.read("gradients", where=where), run.read("prompt_gradients", where=where))
    measured = [name for name in (reference, "K=1 - leave-one-out", "K=1") if name in moments.names]
    units = f"{len(moments.prompts)} prompts, {len(moments.prompt_index)} responses"
    lines = [f"{run.path}: {probe} at step {at}, {units}; parameter group {group}"]
    for m in prompts:
        for r in rollouts:
            table = best_k(moments, m, r, group=group, reference=reference or next(iter(measured), None))
            lines += ["", f"steps of {m} prompts x {r} rollouts", *_rows(table)]
            winner = table.attrs["best_efficiency"] or "not resolved (more prompts in the probe would tell)"
            lines += [f"best by efficiency (Adam, tuned rates): {winner}; by squared error (plain SGD): "
                      f"{table.attrs['best_mse']}"]  # fmt: skip
    return "\n".join(lines)


def _rows(table: pd.DataFrame) -> list[str]:
    columns = ["kernel", "efficiency", "P(best)", "squared error", "P(best)"]
    rows: list[dict[str, Any]] = table.to_dict("records")  # type: ignore[assignment]
    body = [
        [
            str(row["kernel"]),
            compact(Cell(row["efficiency"], row["efficiency_low"], row["efficiency_high"])),
            _share(row["efficiency_best"]),
            compact(Cell(row["mse"], row["mse_low"], row["mse_high"])),
            _share(row["mse_best"]),
        ]
        for row in rows
    ]
    widths = [max(len(line[i]) for line in [columns, *body]) for i in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in [columns, *body]]  # fmt: skip


def _share(probability: float) -> str:
    return "-" if math.isnan(probability) else f"{probability:.2f}"
