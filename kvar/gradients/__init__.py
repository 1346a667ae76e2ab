"""Per-trajectory gradients of many estimators at once: their norms and inner products.

Read ``measure`` first: it checks the input, runs an engine and returns ``moments``. ``loop`` is the plain engine;
``one_pass`` the fast one, which uses the rooms ``capture`` (with ``rules`` for layers and ``operations`` for everything
else) and ``products``; ``forward_mode`` uses random directions. ``cotangents`` turns estimators into gradients with
respect to the logits, ``groups`` names into parameters.
"""

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
