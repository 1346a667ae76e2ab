"""The interface of baselines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

from torch import Tensor

if TYPE_CHECKING:
    from kvar.estimators.evidence import Evidence

__all__ = ["Baseline"]


class Baseline(ABC):
    """Turns returns into advantages; immutable."""

    scope: Literal["row", "prompt", "batch"] = "batch"
    """What the advantage of a trajectory is formed from: itself, the rollouts of its prompt, or all of them."""
    score_norms: bool = False
    """Whether measured |s_t|^2 are needed, ``gather(score_norms=True)``."""

    logit_power: bool = False
    """Whether ``Evidence.logit_power`` is needed."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What follows "- " in an estimator's name."""

    @abstractmethod
    def advantages(self, returns: Tensor, evidence: Evidence) -> Tensor:
        """(N, T) advantages, zero where masked.

        Args:
            returns: (N, T) float64, zero where masked.
            evidence: of the same trajectories.

        Raises:
            ValueError: evidence that lacks what the baseline needs.
        """
