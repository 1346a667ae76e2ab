"""Settings of an adaptive training: one whose estimator is chosen anew as it goes on."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from kvar.estimators.adaptive import AUTO, adaptive

if TYPE_CHECKING:
    from kvar.distill.config import DistillationConfig

__all__ = ["check_adaptive", "is_adaptive", "trained_settings", "with_estimator"]

FIELDS = ("auto_start", "auto_candidates", "auto_target", "auto_on", "auto_every", "auto_margin", "auto_confidence")
OTHER_GRADIENTS = {"length_normalised_returns": True, "normalisation": "sequence-token-mean"}
"""Settings under which a step's gradient is another than the one that is measured."""


def is_adaptive(settings: DistillationConfig) -> bool:
    """Whether the estimator is chosen in training."""
    return settings.estimator == AUTO


def with_estimator(settings: DistillationConfig, name: str) -> DistillationConfig:
    """The settings with an estimator's name in place of ``auto``."""
    copied = copy.copy(settings)
    copied.estimator = name
    return copied


def trained_settings(settings: DistillationConfig) -> dict[str, DistillationConfig]:
    """The settings of every step that an adaptive training may take, by what names its estimator; else those given."""
    if not is_adaptive(settings):
        return {"estimator": settings}
    return {field: with_estimator(settings, e.name) for field, e in adaptive(settings).trained.items()}


def check_adaptive(settings: DistillationConfig) -> None:
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
    if settings.auto_on == "batch":
        raise ValueError(
            "auto_on is 'batch', which is not there yet: leave it out, and the probe's prompts are measured."
        )
    for field, value in OTHER_GRADIENTS.items():
        if getattr(settings, field) == value:
            raise ValueError(
                f"{field} is {value!r}, but estimator auto measures the gradient without it: leave {field} out."
            )
    chosen = adaptive(settings)
    settings.auto_start, settings.auto_target = chosen.start.name, chosen.target
    settings.auto_candidates = ", ".join(chosen.candidates)
