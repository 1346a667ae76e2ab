"""The figures of a study with several seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kvar import plots
from kvar.analysis.statistic_table import TABLE
from kvar.report.figures.draw_all import draw_all
from kvar.results.combined import best_chances
from kvar.results.outcomes import StudyValues
from kvar.results.ranks import gains

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["draw_study_figures"]


def draw_study_figures(
    values: StudyValues,
    combined: pd.DataFrame,
    estimators: pd.DataFrame,
    metrics: Mapping[str, str],
    folder: Path,
    *,
    start: str,
    reference: str,
) -> tuple[dict[str, Path], dict[str, str]]:
    """Draw the figures of a study as PNG and SVG.

    Args:
        values: from ``read_study_runs``.
        combined: from ``combined_statistics``.
        estimators: from ``estimator_values``.
        metrics: task -> main metric.
        folder: created if missing.
        start: the method that others start from.
        reference: the method whose last probe is "after training".

    Returns:
        title -> PNG, and title -> reason for figures that cannot be drawn.
    """
    curves = _with_parameters(values.curves, values.cells)
    sampled = set(curves[curves["quantity"] == "total_gap"]["method"])
    trained = [name for name in dict.fromkeys(values.cells["method"]) if name != start]
    on_policy = [name for name in trained if name in sampled]
    given = [name for name in trained if name not in sampled]

    def learning(quantity: str, methods: list[str]) -> Callable[[], Figure]:
        return lambda: plots.learning_curves(curves, quantity, methods=methods)

    def kernels(method: str) -> Callable[[], Figure]:
        return lambda: plots.kernels_over_tasks(combined[combined["method"] == method] if len(combined) else combined)

    def against(statistic: str, outcome: str) -> Callable[[], Figure]:
        def draw() -> Figure:
            points = gains(values.outcomes, estimators, dict(metrics), start, statistic)
            points = _with_parameters(points[(points["outcome"] == "J") == (outcome == "J")], values.cells)
            facts = TABLE[statistic]
            return plots.score_against_variance(
                points, x_label=f"{facts.label} at the start", y_label=f"gain in {outcome}", log_x=facts.log
            )

        return draw

    occasions = {start: "at the start", reference: f"after {reference}"}
    wanted: dict[str, tuple[str, Callable[[], Figure]]] = {
        f"Gain in {outcome} against the {name} of each method's estimator": (
            f"{outcome}_against_{name}", against(name, outcome)
        )
        for name in ("efficiency", "trace")
        for outcome in ("J", "score")
    } | {
        f"Variance, bias, error and efficiency against K before the methods ({start})": (
            "kernels_at_start", kernels(start)
        ),
        f"Variance, bias, error and efficiency against K after {reference}": ("kernels_after", kernels(reference)),
        "Which K points best, by student": (
            "best_k_over_size",
            lambda: plots.best_k_over_size(_chances(values.statistics, occasions)),
        ),
        "Total gap in training": ("curves_total_gap", learning("total_gap", on_policy)),
        "Length of sampled responses in training": ("curves_response_length", learning("response_length", on_policy)),
        "Loss of the methods that sample": ("curves_loss_sampled", learning("loss", on_policy)),
        "Loss of the methods on given responses": ("curves_loss_given", learning("loss", given)),
    }  # fmt: skip
    return draw_all(wanted, folder)


def _with_parameters(rows: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    sizes = cells.groupby(["task", "student"], observed=True)["parameters"].max()
    return rows.join(sizes, on=["task", "student"])


def _chances(statistics: pd.DataFrame, occasions: Mapping[str, str]) -> pd.DataFrame:
    rows = best_chances(statistics) if len(statistics) else statistics.reindex(columns=["method", "group", "value"])
    rows = rows[rows["method"].isin(list(occasions)) & (rows["group"] == "all")]
    shown = rows.assign(when=rows["method"].map(dict(occasions)), probability=rows["value"])
    order = {name: i for i, name in enumerate(occasions.values())}
    return shown.sort_values("when", key=lambda column: column.map(order), kind="stable")
