"""A pilot, and a fresh measurement of as many prompts as the pilot says."""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from kvar.analysis.frames.measured import LEAST_PROMPTS
from kvar.analysis.frames.reference import default_reference
from kvar.hooks import Measurement

__all__ = ["check_resolve", "two_draws"]


def check_resolve(target: str, names: Sequence[str], pilot: int, max_prompts: int | None, prompts: int) -> None:
    """Refuse a target that none of the estimators is, and a pilot or a number of prompts that cannot be planned with.

    Raises:
        ValueError: no such target; fewer than three prompts in the pilot, or fewer than its own to measure after it.
    """
    default_reference(names, target)
    numbers_given: tuple[tuple[str, Any], ...] = (("pilot", pilot), ("max_prompts", max_prompts))
    for name, value in numbers_given:
        if value is not None and (isinstance(value, bool) or not isinstance(value, numbers.Integral)):
            raise ValueError(f"{name} must be a whole number of prompts; got {value!r}.")
    if pilot < LEAST_PROMPTS:
        raise ValueError(f"pilot must be at least {LEAST_PROMPTS} prompts; got {pilot}.")
    if max_prompts is not None and max_prompts < pilot:
        raise ValueError(f"max_prompts must be at least the pilot's {pilot} prompts; got {max_prompts}.")
    if prompts < 2 * pilot:
        raise ValueError(
            f"resolve= takes a pilot of {pilot} prompts and as many others or more; there are {prompts} prompts. Give "
            "more prompts, or a smaller pilot=."
        )


def two_draws(
    measured: Callable[[slice, int], Measurement],
    prompts: int,
    target: str,
    *,
    pilot: int,
    max_prompts: int | None,
) -> Measurement:
    """Measure the first prompts, plan (:meth:`Measurement.plan`), and measure as many of the others as that says.

    Args:
        measured: prompts, and a number that tells the two draws apart -> their measurement.
        prompts: M, how many there are.
        target: of the plan.
        pilot: prompts of the first measurement.
        max_prompts: most prompts of the second; None for all others.

    Returns:
        The second measurement; its config's ``pilot`` says what was planned. It has the prompts of the estimator that
        needs most of those within reach, all that are allowed where none is, which is warned of.
    """
    most = min(prompts - pilot, max_prompts or prompts)
    plan = measured(slice(0, pilot), 0).plan(target)
    needed = dict(zip(plan["estimator"], plan["units_needed"], strict=True))
    within = [units for units in needed.values() if units <= most]
    if not within:
        own = plan.attrs["target_units"]
        why = f"its gradient alone takes about {own:,.0f}" if math.isfinite(own) else "its gradient is lost in noise"
        warnings.warn(
            f"resolve={target!r}: the pilot of {pilot} prompts says that {most} prompts tell no direction toward it "
            f"({why}); all {most} are measured.",
            stacklevel=3,
        )
    size = int(max(within, default=most))
    second = measured(slice(pilot, pilot + size), 1)
    beyond = [name for name, units in needed.items() if units > most]
    told = {"prompts": pilot, "target": target, "planned": size, "out_of_reach": beyond}
    return replace(second, step=0, config={**second.config, "prompts": size, "pilot": told})
