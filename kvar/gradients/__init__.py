"""Per-trajectory gradients of many estimators at once: their norms and inner products."""

from kvar.gradients.jvp import score_projections
from kvar.gradients.measure import gradient_moments
from kvar.gradients.moments import GradientMoments, GroupMoments
from kvar.gradients.projections import ScoreProjections

__all__ = ["GradientMoments", "GroupMoments", "ScoreProjections", "gradient_moments", "score_projections"]
