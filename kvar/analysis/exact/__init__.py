"""Ground truth without sampling: a token MDP small enough to enumerate (theory.md, section 6)."""

from kvar.analysis.exact.mdp import TokenMDP
from kvar.analysis.exact.moments import ExactMoments
from kvar.analysis.exact.policy import TablePolicy
from kvar.analysis.exact.smallest import exact_raising_mdp, variance_raising_mdp
from kvar.analysis.exact.table import moments_of
from kvar.analysis.exact.tree import PrefixTree

__all__ = [
    "ExactMoments",
    "PrefixTree",
    "TablePolicy",
    "TokenMDP",
    "exact_raising_mdp",
    "moments_of",
    "variance_raising_mdp",
]
