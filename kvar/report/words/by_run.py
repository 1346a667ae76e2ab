"""What a report says, in plain words computed from its numbers and their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kvar.analysis.frames.statistics_frame import check_frame, find, select, students
from kvar.plots.parts.style import student_series
from kvar.report.words.sentences import (
    Row,
    best_sentence,
    beyond_scale,
    bias_sentence,
    fall_sentence,
    lead_sentences,
    noise_sentence,
    reference_k,
    scale_sentence,
    size_sentence,
    split_by_interval,
)
from kvar.results.by_kernel import best_of_students, cells

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["verdict", "verdict_paragraphs"]


def _counts(frame: pd.DataFrame, group: str, step: int | str) -> str:
    """The sentence that says on how many independent units all rests."""
    statistics = set(frame[frame["group"] == group]["statistic"])
    name = next((s for s in ("trace_ratio", "trace", "efficiency") if s in statistics), None)
    rows = find(frame, name or "trace", group=group, step=step)
    if not len(rows):  # of estimators without a K alone
        rows = select(frame, name or "trace", group=group, step=step, only_k=False)
    low, high = int(rows["n"].min()), int(rows["n"].max())
    steps = sorted({int(s) for s in rows["step"]})
    at = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
    n = f"n = {low}" if low == high else f"n = {low} to {high}"
    units = "independent draws (prompts, where a prompt has several responses)"
    return f"Measured on {n} {units} for each student and kernel, at {at}; brackets are 95 % intervals."


def _summary(rows: Sequence[Mapping[str, Row]]) -> str:
    """How many students show what, each counted only where an interval says so."""
    counts = dict.fromkeys(("fall", "beyond", "bias"), 0)
    for row in rows:
        falls, rises, open_ = split_by_interval(row["trace_ratio"])
        k = reference_k(falls or rises or open_)
        counts["fall"] += bool(falls) and not rises and not open_
        counts["beyond"] += bool(falls) and beyond_scale(k, row["signal"], row["relative_variance"])
        counts["bias"] += k in row["bias_sq"] and row["bias_sq"][k].above(0.0)
    return (
        f"Of {len(rows)} students, variance is below that at K = 1 at every K in {counts['fall']}, a gain beyond mere "
        f"scale is resolved in {counts['beyond']}, and a bias in {counts['bias']}."
    )


def verdict_paragraphs(frame: pd.DataFrame, *, group: str = "all", step: int | str = "last") -> list[list[str]]:
    """The sentences of :func:`verdict`, one list a paragraph: the answer, the whole, each student, student size."""
    check_frame(frame)
    details = [_counts(frame, group, step)]
    table = {
        name: cells(frame, name, group=group, step=step)
        for name in ("trace_ratio", "signal", "relative_variance", "bias_sq", "efficiency")
    }
    best = best_of_students(frame, group=group, step=step)
    efficiency = cells(frame, "efficiency", group=group, step=step, only_k=False)
    labels = {name: look.label for name, look in student_series(frame).items()}
    snr = cells(frame, "snr", group=group, step=step, only_k=False)
    names = [name for name in students(frame) if any(name in rows for rows in (*table.values(), efficiency, snr))]
    rows = [{statistic: by_student.get(name, {}) for statistic, by_student in table.items()} for name in names]
    said_best = {
        name: [best_sentence(best.get(name), efficiency.get(name, {})), noise_sentence(snr.get(name, {}))]
        for name in names
    }
    if len(names) > 1:
        lead = lead_sentences(
            {labels[name]: best.get(name, {}) for name in names}, {labels[name]: snr.get(name, {}) for name in names}
        )
        details.append(_summary(rows))
    else:
        (lead,) = said_best.values()
    paragraphs = [lead, details]
    for name, row in zip(names, rows, strict=True):
        falls, rises, open_ = split_by_interval(row["trace_ratio"])
        said = [f"{labels[name]}: {fall_sentence(row['trace_ratio'])}"]
        k = reference_k(falls or rises or open_)
        if falls:
            said.append(scale_sentence(k, row["trace_ratio"][k], row["signal"], row["relative_variance"]))
        if falls + rises + open_:
            said.append(bias_sentence(k, row["bias_sq"], row["signal"]))
        paragraphs.append([*said, *(said_best[name] if len(names) > 1 else [])])
    sizes = {str(name): int(count) for name, count in frame.groupby("student")["parameters"].max().items()}
    return [*paragraphs, *([[size_sentence(table["trace_ratio"], sizes, labels)]] if len(names) > 1 else [])]


def verdict(frame: pd.DataFrame, *, group: str = "all", step: int | str = "last") -> list[str]:
    """Say what a statistics frame shows, claiming nothing that an interval does not support.

    Args:
        frame: a statistics frame (``kvar.plots.COLUMNS``) with any of trace_ratio, signal, relative_variance, bias_sq,
            efficiency and best_probability; what is missing is named as not measured.
        group: parameter group.
        step: training step, or "last".

    Returns:
        Sentences in reading order: which estimator points best; the number of trajectories; how many students show
        what; for each student, smallest first, whether variance falls with K, how much of it is scale, the bias and
        the best estimator; last, of several students, whether size matters.

    Raises:
        ValueError: the frame is empty, lacks a column, or holds none of trace_ratio, trace and efficiency in the group.
    """
    return [said for paragraph in verdict_paragraphs(frame, group=group, step=step) for said in paragraph]
