"""The report's tables beside the statistics: theory over measurement, and which K for which step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvar.analysis.frames.statistics_frame import students
from kvar.estimators import DATA
from kvar.intervals import Interval, number
from kvar.plots.parts.style import student_series
from kvar.records import Run
from kvar.report.words.choice import verdict_of
from kvar.results.by_kernel import best_of_students, cells
from kvar.results.choices import CRITERIA, choices

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["calibration_table", "choice_table", "verdict_table"]


def verdict_table(frame: pd.DataFrame, *, group: str = "all", step: int | str = "last") -> pd.DataFrame:
    """A line a student: what points best, or cannot be told apart, beside K = 1.

    Args:
        frame: a statistics frame.
        group: parameter group.
        step: training step, or "last".

    Returns:
        Columns student; points best, with all that cannot be told apart; probability, of them together; efficiency of
        the likeliest and of K=1; the estimator of largest SNR, its SNR and that of K=1. Without rows where no
        efficiency was measured.
    """
    import pandas as pd

    labels = {name: look.label for name, look in student_series(frame).items()}
    efficiency = cells(frame, "efficiency", group=group, step=step, only_k=False)
    noise = cells(frame, "snr", group=group, step=step, only_k=False)
    rows = []
    for name, left in best_of_students(frame, group=group, step=step).items():
        first, snr = next(iter(left), ""), noise.get(name, {})
        clearest = max((k for k in snr if k != DATA), key=lambda kernel: snr[kernel].value, default="-")
        rows.append(
            {
                "student": labels[name],
                "points best": " or ".join(left) or "not resolved",
                "probability": sum(left.values()) if left else "-",
                "its efficiency": efficiency.get(name, {}).get(first, "-"),
                "efficiency of K=1": efficiency.get(name, {}).get("K=1", "-"),
                "largest SNR": clearest,
                "its SNR": snr.get(clearest, "-"),
                "SNR of K=1": snr.get("K=1", "-"),
            }
        )
    return pd.DataFrame(rows)


def calibration_table(frame: pd.DataFrame, *, group: str = "all") -> pd.DataFrame:
    """T0's and T1's ratio to K = 1 over the measured one, per student, step and kernel; 1 is a perfect prediction.

    Args:
        frame: a statistics frame; its rows calibration_t0 and calibration_t1 are used.
        group: parameter group.

    Returns:
        Columns student, step, theory, and one a kernel: value with its interval. Without rows where the frame holds no
        calibration.
    """
    import pandas as pd

    labels = {name: look.label for name, look in student_series(frame).items()}
    rows = []
    for name in students(frame):
        measured = frame[frame["student"] == name]
        for step in sorted(set(measured["step"])):
            for level in ("T0", "T1"):
                ratios = cells(measured, f"calibration_{level.lower()}", group=group, step=step, only_k=False).get(
                    name, {}
                )
                line = {str(kernel): _short(cell) for kernel, cell in ratios.items() if cell.known and cell.value != 1}
                if line:
                    rows.append({"student": labels[name], "step": step, "theory": level, **line})
    return pd.DataFrame(rows).fillna("-")


def choice_table(
    runs: Sequence[Run],
    names: Sequence[str],
    *,
    step: int | str = "last",
    reference: str | None = None,
    prompts: Sequence[int] = (16, 64, 256),
    rollouts: Sequence[int] = (1, 4),
) -> pd.DataFrame:
    """Which kernel for steps of M prompts x R rollouts, as ``kvar choose-k`` says, for every run.

    Args:
        runs: with probes.
        names: what to call them.
        step: training step of the probes, or "last"; runs without a probe there are left out.
        reference: unbiased estimator, where a run has it.
        prompts: values of M.
        rollouts: values of R.

    Returns:
        Columns student, step of, best by efficiency, best by squared error.
    """
    import pandas as pd

    rows: list[tuple[str, ...]] = []
    for run, name in zip(runs, names, strict=True):
        try:
            designs = choices([run], prompts, rollouts, step=step, reference=reference)
        except ValueError as error:
            rows.append((name, "any", f"not told: {error}", ""))
            continue
        for choice in designs:
            design = f"{choice.prompts} x {choice.rollouts}"
            rows.append((name, design, *(verdict_of(choice, c, caveat=False) for c in CRITERIA)))
    columns = ["student", "prompts x rollouts", "best by efficiency (Adam)", "best by squared error (plain SGD)"]
    return pd.DataFrame(rows, columns=columns)


def _short(cell: Interval) -> str:
    texts = [f"{v:.2f}" if abs(v) < 100 else number(v) for v in (cell.value, cell.low, cell.high)]
    return f"{texts[0]} ({texts[1]} to {texts[2]})"
