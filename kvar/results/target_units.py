"""How many prompts would tell the target's gradient from zero."""

from __future__ import annotations

from kvar.analysis.frames.measured import sampling_unit
from kvar.analysis.plan import plan
from kvar.gradients.moments import GradientMoments

__all__ = ["target_units"]


def target_units(moments: GradientMoments, group: str, reference: str) -> float:
    """Prompts that tell |g*|^2 of the target from zero, by :func:`kvar.analysis.plan` at a power of 0.8.

    Args:
        moments: of the pilot; of fewer than three prompts, or one response to each, responses are counted.
        group: parameter group.
        reference: the estimator that stands for g*.

    Returns:
        A whole number; infinite where the pilot does not tell.
    """
    return float(plan(moments, reference, group=group, unit=sampling_unit(moments)).attrs["target_units"])
