"""The estimator that a trainer follows, measured as its loss scales it."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["TRAINED", "comparable"]

TRAINED = "trained"
"""Name of a trainer's own estimator: its loss divides, weighs and clips as it likes, so that lengths are its own."""


def comparable(names: Sequence[str], reference: str) -> list[bool]:
    """Which estimators have lengths that can be held beside the reference's: all but :data:`TRAINED`, or it alone.

    Example:
        >>> comparable(["trained", "K=1", "K=4"], "K=1"), comparable(["trained", "K=1"], "trained")
        ([False, True, True], [True, False])
    """
    return [(name == TRAINED) == (reference == TRAINED) for name in names]
