"""The figures of a report of runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.report.figures.draw_all import draw_all

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["draw_figures"]

_REASONS = {
    "Theory beside measurement": "no prediction for these estimators",
    "Efficiency against K": "efficiency is not resolved for a K: measure more prompts",
    "Squared error against K": "no squared error for a K: measure K=1 and more prompts",
    "Variance by layer": "measure with groups of parameters",
    "Variance by position": "measure with position bins",
    "Autocorrelation of gaps": "no trajectories are recorded at this step",
}
"""Title -> what a figure that is not drawn would take."""


def draw_figures(
    frame: pd.DataFrame,
    folder: Path,
    step: int | str,
    gaps: pd.DataFrame,
    positions: pd.DataFrame,
    leads: pd.DataFrame | None = None,
) -> tuple[dict[str, Path], dict[str, str]]:
    """Draw the standard figures of some runs into ``folder`` as PNG and SVG.

    Args:
        frame: statistics.
        folder: created if missing.
        step: training step, or "last"; the figures over training show all.
        gaps: autocorrelation of gaps, with a column "student"; empty where no trajectories are recorded at that step.
        positions: variance by position, with a column "student"; empty where no probe has estimators split by position.
        leads: of :func:`kvar.analysis.toward_over_training`, with a column "student"; empty where J is the only target.

    Returns:
        title -> PNG, and title -> reason for figures that cannot be drawn (such as an efficiency where |g*|^2 is not
        resolved for any student).
    """
    import matplotlib

    matplotlib.use("Agg")

    from kvar import plots

    def at_step(draw: Any, **options: Any) -> Any:
        return lambda: draw(frame, step=step, **options)

    wanted: dict[str, tuple[str, Any]] = {
        "Variance against K, with the T0 prediction": ("variance_against_k", at_step(plots.variance_against_k)),
        "Theory beside measurement": ("theory_beside_measurement", at_step(plots.theory_beside_measurement)),
        "Bias against variance": ("bias_against_variance", at_step(plots.bias_against_variance)),
        "Efficiency against K": ("efficiency_against_k", at_step(plots.efficiency_against_k)),
        "Squared error against K": ("mse_against_k", at_step(plots.mse_against_k)),
        "Signal-to-noise ratio against K": ("snr_against_k", at_step(plots.snr_against_k)),
        "Within and between prompts": ("within_between_shares", at_step(plots.within_between_shares)),
        "Variance by layer": ("variance_by_layer", at_step(plots.variance_by_layer)),
        "Variance by position": ("variance_by_position", lambda: plots.variance_by_position(positions)),
        "Autocorrelation of gaps": ("gap_autocorrelation", lambda: plots.gap_autocorrelation(gaps)),
    }
    for statistic, title in (
        ("trace", "Variance against size"),
        ("score_power", "Score power against size"),
        ("variance_per_score_power", "Variance per score power against size"),
    ):
        if statistic in set(frame["statistic"]) and frame["parameters"].nunique() > 1:
            name = "variance" if statistic == "trace" else statistic
            wanted[title] = (f"{name}_against_size", at_step(plots.variance_against_size, statistic=statistic))
    if frame["step"].nunique() > 1:
        for statistic, title in (("trace", "Variance over training"), ("efficiency", "Efficiency over training")):
            wanted[title] = (
                title.lower().replace(" ", "_"),
                lambda statistic=statistic: plots.variance_over_training(frame, statistic=statistic),
            )
        if leads is not None and len(leads):
            wanted["Where a step leads, over training"] = (
                "toward_over_training", lambda: plots.toward_over_training(leads)
            )  # fmt: skip
    drawn, missing = draw_all(wanted, folder)
    return drawn, {title: _REASONS.get(title, reason) for title, reason in missing.items()}
