"""Per-trajectory gradients of many estimators at once: their norms and inner products."""

from kvar.gradients.measure import gradient_moments
from kvar.gradients.moments import GradientMoments, GroupMoments

__all__ = ["GradientMoments", "GroupMoments", "gradient_moments"]
