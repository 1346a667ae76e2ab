"""The figures of a measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvar.measurement.statistics import statistics_of_measurement

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kvar.measurement.data import MeasurementData

__all__ = ["KINDS", "draw"]

KINDS = {
    "efficiency": "efficiency_against_k",
    "variance": "variance_against_k",
    "mse": "mse_against_k",
    "snr": "snr_against_k",
    "bias": "bias_against_variance",
    "shares": "within_between_shares",
    "theory": "theory_beside_measurement",
    "layers": "variance_by_layer",
}
"""Kind -> function of ``kvar.plots``."""


def draw(measurement: MeasurementData, kind: str, batch: float, **options: Any) -> Axes:
    """See :meth:`kvar.measurement.Measurement.plot`."""
    name = KINDS.get(kind, kind)
    if name not in KINDS.values():
        raise ValueError(f"plot kind {kind!r} is unknown; choose one of {', '.join(KINDS)}.")
    if kind in ("layers", "variance_by_layer") and len(measurement.moments.groups) == 1:
        raise ValueError("plot kind 'layers' needs moments by layer: measure with groups='layers'.")
    from kvar import plots

    frame = statistics_of_measurement(measurement, batch, theory=name == "theory_beside_measurement")
    if name == "efficiency_against_k" and not frame.loc[frame["statistic"] == "efficiency", "value"].notna().any():
        raise ValueError(
            "efficiency is not resolved: the direction of the target's gradient, J by default, cannot be "
            "distinguished from noise; measure more prompts, or plot('snr')."
        )
    axes: Axes = getattr(plots, name)(frame, **options)
    return axes
