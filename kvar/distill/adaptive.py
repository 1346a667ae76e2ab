"""Settings of an adaptive training: one whose estimator is chosen anew as it goes on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

from kvar.estimators.adaptive import AUTO, adaptive

__all__ = ["check_adaptive", "is_adaptive", "trained_settings", "with_estimator"]

S = TypeVar("S")
"""``DistillationConfig``, which imports this file."""
FIELDS = (
    "auto_start", "auto_candidates", "auto_target", "auto_on", "auto_every", "auto_horizon", "auto_margin",
    "auto_confidence",
)  # fmt: skip
OTHER_GRADIENTS: dict[str, Callable[[Any], bool]] = {
    "length_normalised_returns": bool,
    "normalisation": lambda value: value == "sequence-token-mean",
    "entropy_weight": bool,
    "uniform_weight": bool,
    "temperature": lambda value: value != 1,
    "top_k": bool,
}
"""Settings -> whether a step's gradient is another than the one that is measured, which is the estimator's alone on
responses drawn from the student's own distribution."""


def is_adaptive(settings: Any) -> bool:
    """Whether the estimator is chosen in training."""
    return settings.estimator == AUTO


def with_estimator(settings: S, name: str) -> S:
    """The settings with an estimator's name in place of ``auto``."""
    copied: Any = copy.copy(settings)
    copied.estimator = name
    return copied


def trained_settings(settings: S) -> dict[str, S]:
    """The settings of every step that an adaptive training may take, by what names its estimator; else those given."""
    if not is_adaptive(settings):
        return {"estimator": settings}
    given: Any = settings
    return {field: with_estimator(settings, e.name) for field, e in adaptive(given).trained.items()}


def check_adaptive(settings: Any) -> None:
    """Check the ``auto_`` fields, and write the names in them as estimators do.

    Raises:
        ValueError: fields that are set without ``estimator: auto``, names that cannot be read, or another gradient than
            is measured; one line that names field, value and remedy.
    """
    for field in ("auto_candidates", "auto_start", "auto_target"):
        given: object = getattr(settings, field)
        if isinstance(given, list | tuple):  # a YAML list
            setattr(settings, field, ", ".join(map(str, given)))
    if not is_adaptive(settings):
        for field in FIELDS:
            if getattr(settings, field) != type(settings).__dataclass_fields__[field].default:
                raise ValueError(
                    f"{field} is {getattr(settings, field)!r}, but estimator is {settings.estimator!r}: set estimator "
                    f"auto, or leave {field} out."
                )
        return
    for field, changes in OTHER_GRADIENTS.items():
        if changes(value := getattr(settings, field)):
            raise ValueError(
                f"{field} is {value!r}, but estimator auto measures the gradient without it: leave {field} out."
            )
    if "policy-gradient" in settings.mixture and len(settings.mixture.parts) > 1:
        raise ValueError(
            f"objective is {settings.objective!r}, but estimator auto measures the gradient of policy-gradient alone, "
            "whose length beside the others changes with the estimator: set objective policy-gradient, or name an "
            "estimator."
        )
    chosen = adaptive(settings)
    settings.auto_start, settings.auto_target = chosen.start.name, chosen.target
    settings.auto_candidates = ", ".join(chosen.candidates)
