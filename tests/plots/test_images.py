"""Figures as images: ink where it belongs, the same bytes each time, and colours that stay apart for all eyes."""

from __future__ import annotations

import inspect
import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

import kvar.plots as plots
from kvar.plots.parts.style import OKABE_ITO
from tests.plots.statistics_frames import autocorrelation, breakdown, layers, positions, study

FIGURES = {
    name: study
    for name in (
        "variance_against_k", "theory_beside_measurement", "bias_against_variance", "efficiency_against_k",
        "mse_against_k", "snr_against_k", "variance_over_training", "variance_against_size", "within_between_shares",
    )
} | {
    "variance_by_layer": layers, "variance_by_position": positions, "gap_autocorrelation": autocorrelation,
    "breakdown_of_variance": breakdown,
}  # fmt: skip


def png(ax) -> bytes:
    """The figure as PNG, 100 dots an inch."""
    buffer = io.BytesIO()
    ax.figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()


def pixels(ax) -> np.ndarray:
    """(rows, columns, 3) of the figure, 0 to 1."""
    return imread(io.BytesIO(png(ax)))[..., :3]


def test_every_figure_is_tried():
    functions = [getattr(plots, name) for name in plots.__all__ if inspect.isfunction(getattr(plots, name))]
    assert {f.__name__ for f in functions if {"width", "ax"} <= set(inspect.signature(f).parameters)} == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_ink_is_in_the_axes_and_none_on_the_rim(name):
    ax = getattr(plots, name)(FIGURES[name]())
    image = pixels(ax)
    low, high = ax.get_window_extent().get_points() / ax.figure.dpi * 100
    height = len(image)
    inside = image[height - int(high[1]) : height - int(low[1]), int(low[0]) : int(high[0])]
    ink = (inside < 0.9).any(axis=2)
    assert 0.005 < ink.mean() < 0.9
    coloured = inside.max(axis=2) - inside.min(axis=2) > 0.2
    assert coloured.mean() > 0.002  # data, not axes alone
    columns = np.flatnonzero(ink.any(axis=0))
    assert columns[-1] - columns[0] > 0.5 * ink.shape[1]  # spread over the axes, not piled up at one side
    rim = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    assert (rim > 0.99).all()  # nothing is cut off at the edge of the page


@pytest.mark.parametrize("name", FIGURES)
def test_the_same_table_gives_the_same_bytes(name):
    draw, table = getattr(plots, name), FIGURES[name]()
    assert png(draw(table)) == png(draw(table.copy()))


# Machado, Oliveira and Fernandes (2009), severity 1, for linear RGB
DEFICIENCIES = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(linear: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear sRGB, white point D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = to_xyz @ np.clip(linear, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", DEFICIENCIES)
def test_the_first_six_colours_stay_apart_for_colour_blind_readers(kind):
    srgb = [np.array(to_rgb(colour)) for colour in OKABE_ITO[:6]]
    linear = [np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) for c in srgb]
    seen = [lab(np.array(DEFICIENCIES[kind]) @ c) for c in linear]
    distances = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[i + 1 :]]
    assert min(distances) > 10  # 2.3 is just noticeable
