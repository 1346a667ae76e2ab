"""The interval of a squared length covers it, nothing included, in few dimensions and in many."""

from __future__ import annotations

import numpy as np
import pytest

from kvar.intervals import jackknife, squared_length


def drawn(dimensions: int, length: float, units: int = 100, draws: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """(1 + units, draws) |xbar|^2 less its noise, by pairs of distinct units and with each left out, and the noise."""
    x = np.random.default_rng(dimensions).standard_normal((units, draws, dimensions), dtype=np.float32).astype(float)
    x *= np.linspace(1, 2, dimensions)
    x[..., 0] += length / units**0.5
    total, square = x.sum(axis=0), (x**2).sum(axis=2)
    left = np.concatenate([(total**2).sum(axis=1)[None], ((total - x) ** 2).sum(axis=2)])
    squares = square.sum(axis=0) - np.concatenate([np.zeros((1, draws)), square])
    n = np.concatenate([[units], np.full(units, units - 1)])[:, None]
    pairs = (left - squares) / (n * (n - 1))
    return pairs, left[0] / units**2 - pairs[0]


@pytest.mark.parametrize("dimensions", [1, 4, 40])
@pytest.mark.parametrize("length", [0.0, 1.0, 4.0, 20.0])
def test_covers(dimensions: int, length: float) -> None:
    pairs, noise = drawn(dimensions, length)
    interval = squared_length(pairs, noise, len(pairs) - 1)
    true = length**2 / 100
    covered = ((interval.low <= true) & (true <= interval.high)).mean()
    assert 0.93 <= covered <= (1.0 if length < 2 else 0.97)  # of 1,000 draws; one-sided at 0
    assert ((interval.low <= interval.value) & (interval.value <= interval.high)).all()


def test_the_jackknife_alone_excludes_nothing_too_often() -> None:
    pairs, _ = drawn(4, 0.0)
    plain = jackknife(pairs, len(pairs) - 1, scale="root")
    assert ((plain.low <= 0) & (plain.high >= 0)).mean() < 0.9


def test_a_difference_with_itself_is_nothing() -> None:
    interval = squared_length(np.zeros((4, 1)), np.zeros(1), 3)
    assert interval.low == interval.value == interval.high == 0
