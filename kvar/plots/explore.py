"""Widgets for a notebook: choose K, kernels, student, step and group; the pictures are drawn anew at each choice."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvar.analysis.frames.statistics_frame import check_frame, students
from kvar.analysis.statistic_table import MEANINGS
from kvar.intervals import Interval
from kvar.plots.parts.ticks import k_label
from kvar.records import Run, load

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["Explorer", "explore"]


def explore(
    source: Run | str | Path | Mapping[str, Run] | pd.DataFrame,
    *,
    statistic: str = "efficiency",
    batch: float = 64,
    rollouts_per_prompt: int = 1,
) -> Explorer:
    """Look through the records of one or more runs with widgets; needs ipywidgets (the extra ``notebooks``).

    All statistics are computed once, at the call; moving a widget only draws.

    Args:
        source: a run from ``kvar.load``, or its folder; several, each under its student's name; or a statistics frame,
            for instance a ``statistics.parquet`` that was read with pandas.
        statistic: the one to begin with, a name of ``kvar.plots.STATISTICS``.
        batch: trajectories a training step, for statistics of a step; not used with a frame.
        rollouts_per_prompt: of that step; not used with a frame.

    Returns:
        The explorer; a notebook shows it where it is a cell's last expression.

    Raises:
        ValueError: no run, runs without probes, a frame that is none of statistics, or a statistic it does not hold.
        ImportError: ipywidgets is not installed.
    """
    try:
        import ipywidgets  # noqa: F401
    except ImportError as error:
        raise ImportError("explore needs ipywidgets: pip install 'kvar[notebooks]'.") from error
    run = load(source) if isinstance(source, str | Path) else source
    return Explorer(_frame(run, batch, rollouts_per_prompt), statistic)


class Explorer:
    """Widgets over a statistics frame; :func:`explore` makes it.

    Attributes:
        student: drop-down of students.
        step: slider over the steps at which this student was measured.
        group: drop-down of parameter groups.
        statistic: drop-down of statistics.
        k: slider over K; the estimator whose number is read out and which is ringed.
        kernels: list of the estimators that are drawn.
        picture: the image widget.
        caption: the number of the chosen K, with its interval.
    """

    def __init__(self, frame: pd.DataFrame, statistic: str = "efficiency") -> None:
        import ipywidgets as w

        check_frame(frame)
        self.frame = frame[frame["value"].notna()]
        known = [name for name in MEANINGS if name in set(self.frame["statistic"])]
        if statistic not in known:
            raise ValueError(f"no values of statistic {statistic!r}; there are {', '.join(known) or 'none'}.")
        narrow, wide = {"description_width": "5em"}, w.Layout(width="22em")
        self.student = w.Dropdown(options=students(self.frame), description="student", style=narrow, layout=wide)
        self.group = w.Dropdown(options=["-"], description="group", style=narrow, layout=wide)
        self.statistic = w.Dropdown(options=known, value=statistic, description="statistic", style=narrow, layout=wide)
        self.step = w.SelectionSlider(options=["-"], description="step", style=narrow, layout=wide)
        self.k = w.SelectionSlider(options=["-"], description="K", style=narrow, layout=wide)
        self.kernels = w.SelectMultiple(options=[], description="kernels", rows=5, style=narrow, layout=wide)
        self.picture, self.caption = w.Image(format="png"), w.HTML()
        self.box = w.VBox(
            [
                w.HBox([w.VBox([self.student, self.group, self.statistic]), w.VBox([self.step, self.k]), self.kernels]),
                self.caption,
                self.picture,
            ]
        )
        self._quiet = False
        self.student.observe(self._new_student, "value")
        for widget in (self.group, self.statistic, self.step, self.k, self.kernels):
            widget.observe(self._draw, "value")
        self._new_student()

    def rows(self) -> pd.DataFrame:
        """The numbers on show: the student's, of the chosen group and statistic, at all steps."""
        chosen = {"student": self.student.value, "group": self.group.value, "statistic": self.statistic.value}
        return self.frame[(self.frame[list(chosen)] == list(chosen.values())).all(axis=1)]

    @property
    def chosen(self) -> str | None:
        """Name of the estimator that the K slider stands at; None where no estimator has a K."""
        return None if self.k.value == "-" else str(self.k.value)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The widgets, and beside them a still picture for viewers that run no widgets."""
        bundle = dict(self.box._repr_mimebundle_(**kwargs))
        return {**bundle, "image/png": base64.b64encode(self.picture.value).decode()}

    def _new_student(self, change: object = None) -> None:
        """Offer what was measured of this student, keeping what was chosen where it is among it."""
        measured = self.frame[self.frame["student"] == self.student.value]
        order = measured.sort_values("k", kind="stable").drop_duplicates("kernel")
        with_k: list[Any] = [
            (k_label(k), name) for k, name in zip(order["k"], order["kernel"], strict=True) if not np.isnan(k)
        ]
        self._quiet = True
        try:
            _offer(self.group, sorted(map(str, measured["group"].unique()), key=lambda name: (name != "all", name)))
            _offer(self.step, sorted(int(step) for step in measured["step"].unique()), last=True)
            _offer(self.k, with_k or ["-"])
            names = [str(name) for name in order["kernel"]]
            kept = [name for name in self.kernels.value if name in names]
            self.kernels.options = names
            self.kernels.value = tuple(kept or names)
        finally:
            self._quiet = False
        self._draw()

    def _draw(self, change: object = None) -> None:
        if self._quiet:
            return
        from matplotlib.figure import Figure

        from kvar.plots.parts.style import context

        rows = self.rows()
        asked = {*self.kernels.value, self.chosen} & set(rows["kernel"])
        wanted = [name for name in self.kernels.options if name in asked]
        with context():
            figure = Figure(figsize=(7.4, 2.9), layout="constrained")
            left, right = figure.subplots(1, 2)
            _against_kernel(left, rows[rows["step"] == self.step.value], wanted, self.chosen, self.statistic.value)
            _over_training(right, self.frame, rows, wanted, self.student.value, self.statistic.value, self.step.value)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        self.picture.value = buffer.getvalue()
        self.caption.value = self._sentence(rows)

    def _sentence(self, rows: pd.DataFrame) -> str:
        chosen = rows[(rows["step"] == self.step.value) & (rows["kernel"] == self.chosen)]
        what = f"{self.statistic.value} of {self.chosen or 'no K'}, {self.student.value}, step {self.step.value}"
        if not len(chosen):
            return escape(f"{what}: not measured")
        value, low, high, n = chosen[["value", "low", "high", "n"]].iloc[0]
        return f"{escape(what)}: <b>{Interval(value, low, high)}</b>, n = {n:.0f}"


def _frame(source: Any, batch: float, rollouts_per_prompt: int) -> pd.DataFrame:
    """The statistics frame of whatever was given."""
    if not isinstance(source, (Run, Mapping)):
        check_frame(source)
        return source
    import pandas as pd

    from kvar.analysis.frames.recorded import statistics_of

    runs = {Path(str(source.config.get("student") or source.path)).name: source} if isinstance(source, Run) else source
    if not runs:
        raise ValueError("no run to explore: give at least one.")
    return pd.concat(
        [statistics_of(run, name, batch=batch, rollouts_per_prompt=rollouts_per_prompt) for name, run in runs.items()],
        ignore_index=True,
    )


def _offer(widget: Any, options: list[Any], last: bool = False) -> None:
    """New options for a selection widget, its value kept where it is among them."""
    values = [option[1] if isinstance(option, tuple) else option for option in options]
    value = widget.value if widget.value in values else values[-1 if last else 0]
    widget.options = options
    widget.value = value


def _against_kernel(ax: Axes, rows: pd.DataFrame, wanted: list[str], chosen: str | None, statistic: str) -> None:
    """One marker with its interval an estimator, in the colours of the right-hand picture; the chosen one ringed."""
    from kvar.plots.parts.draw import draw_line, log_if_positive
    from kvar.plots.parts.style import series

    shown = rows[rows["kernel"].isin(wanted)]
    for i, look in enumerate(series(wanted)):
        row = shown[shown["kernel"] == look.label]
        if not len(row):
            continue
        draw_line(ax, np.array([float(i)]), row, look, gid=f"measured:{look.label}", line="none")
        if look.label == chosen:
            ax.plot([i], row["value"], "o", markersize=11, markerfacecolor="none", color="0.3", gid="chosen")
    if len(shown):
        log_if_positive(ax, shown)
    else:
        ax.text(0.5, 0.5, "not measured here", ha="center", va="center", transform=ax.transAxes)
    ax.set_xticks(range(len(wanted)), wanted, rotation=30, ha="right", rotation_mode="anchor")
    for label, look in zip(ax.get_xticklabels(), series(wanted), strict=True):
        label.set_color(look.colour)  # the legend of both pictures
    ax.set_xlim(-0.5, max(len(wanted), 1) - 0.5)
    ax.set_ylabel(statistic.replace("_", " "))


def _over_training(
    ax: Axes, frame: pd.DataFrame, rows: pd.DataFrame, wanted: list[str], student: str, statistic: str, step: int
) -> None:
    """The same statistic along training, and where the step slider stands."""
    from kvar.plots.variance_over_training import variance_over_training

    if not wanted:
        ax.set_axis_off()
        return
    group = str(rows["group"].iloc[0])
    variance_over_training(frame, statistic=statistic, student=student, kernels=wanted, group=group, ax=ax)
    legend = ax.get_legend()
    if legend is not None:
        legend.remove()
    ax.axvline(step, color="0.6", linewidth=0.8, linestyle=":", zorder=0, gid="step")
    ax.set_ylabel("")
