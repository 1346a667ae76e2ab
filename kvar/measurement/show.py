"""A measurement as text for a terminal and as HTML for a notebook, each with heading, table and remarks."""

from __future__ import annotations

import textwrap
from html import escape
from typing import TYPE_CHECKING, Any

from kvar.analysis.frames.measured import LEAST_PROMPTS
from kvar.measurement.statistics import known_rollouts, statistics_of_measurement
from kvar.rollouts.behaviour import OFF_POLICY

if TYPE_CHECKING:
    import pandas as pd

    from kvar.measurement.data import MeasurementData

__all__ = ["BATCH", "as_html", "as_text"]

BATCH = 64
"""Trajectories per step in the table, where no training was probed."""


def as_text(measurement: MeasurementData) -> str:
    """Heading, table, legend and remarks, in lines of at most 110 columns."""
    from kvar.report.tables.terminal import TABLE_WIDTH, render_table

    frame, reason = _frame(measurement)
    table = reason if frame is None else render_table(frame, **_design(measurement))
    heading = [line for text in _heading(measurement, frame) for line in textwrap.wrap(text, TABLE_WIDTH)]
    return "\n".join([*heading, table, *_remarks(measurement)])


def as_html(measurement: MeasurementData) -> str:
    """The same as HTML; every text is escaped."""
    from kvar.report.tables.terminal import filled_table, legend

    frame, reason = _frame(measurement)
    remarks = _remarks(measurement)
    if frame is None:
        body = f"<p>{escape(reason)}</p>"
    else:
        names, ((caption, lines),) = filled_table(frame)
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
        rows = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines)
        body = (
            f"<table>\n<caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n"
            "</tbody>\n</table>"
        )
        remarks = [" ".join(legend(frame, **_design(measurement))), *remarks]
    below = "<br>\n".join(map(escape, remarks))
    above = "<br>\n".join(map(escape, _heading(measurement, frame)))
    return f"<div>\n<p>{above}</p>\n{body}\n<p>{below}</p>\n</div>"


def _design(measurement: MeasurementData) -> dict[str, Any]:
    """Trajectories of the step that the table is for, and responses to each of its prompts."""
    step = measurement.config.get("step", {"batch": BATCH, "rollouts_per_prompt": 1})
    rollouts = known_rollouts(measurement.moments, step["rollouts_per_prompt"])
    return {"batch": step["batch"], "rollouts_per_prompt": rollouts}


def _frame(measurement: MeasurementData) -> tuple[pd.DataFrame | None, str]:
    """The statistics frame, or None and the reason: showing a measurement must not fail."""
    try:
        return statistics_of_measurement(measurement, **_design(measurement)), ""
    except ValueError as error:
        return None, f"No statistics: {error}"


def _heading(measurement: MeasurementData, frame: pd.DataFrame | None) -> list[str]:
    """A description of the measurement, and the estimator of largest SNR."""
    from kvar.report.words.sentences import noise_sentence
    from kvar.results.by_kernel import cells

    rollouts, moments = measurement.rollouts, measurement.moments
    prompts, n = len(moments.prompts), len(rollouts)
    teacher = measurement.config.get("teacher")
    valued = f" valued by {teacher}" if teacher else ""
    ended = 100 * float(rollouts.finished.float().mean())
    what = (
        f"{n:,} responses of {measurement.student} to {prompts:,} prompt{'s' * (prompts != 1)}{valued}: "
        f"{float(rollouts.lengths.float().mean()):.3g} tokens on average, {ended:.0f} % ended before the limit."
    )
    drawn = measurement.config.get("numbers", {})
    if drawn.get("behaviour_difference", 0) > OFF_POLICY:
        what += (
            f" Another policy drew them: log-probabilities differ by {drawn['behaviour_difference']:.2g} a token, "
            f"effective sample size {drawn['effective_sample_size']:.3g} of {n:,} responses, "
            f"{100 * drawn['effective_token_share']:.3g} % of the tokens."
        )
    snr = {} if frame is None else cells(frame, "snr", only_k=False)
    if prompts < LEAST_PROMPTS:
        return ["Fewer than three prompts: these numbers are about them alone, without intervals.", what]
    return [what, *map(noise_sentence, snr.values())]


def _remarks(measurement: MeasurementData) -> list[str]:
    return ["All numbers: .table(batch). Other steps: .best_k(prompts, rollouts_per_prompt). Figures: .plot(kind)."]
