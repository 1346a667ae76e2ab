"""Per-trajectory gradients of many estimators at once: their norms and inner products."""

from kvar.gradients.distributed.processes import distinct_prompts
from kvar.gradients.forward_mode.engine import score_projections
from kvar.gradients.forward_mode.projections import ScoreProjections
from kvar.gradients.groups import layer_groups
from kvar.gradients.measure import gradient_moments
from kvar.gradients.moments import GradientMoments, GroupMoments
from kvar.gradients.recombine import recombine
from kvar.gradients.steps import step_moments

__all__ = [
    "GradientMoments",
    "GroupMoments",
    "ScoreProjections",
    "distinct_prompts",
    "gradient_moments",
    "layer_groups",
    "recombine",
    "score_projections",
    "step_moments",
]
