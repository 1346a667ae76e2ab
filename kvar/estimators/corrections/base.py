"""The interface of corrections for responses that another policy drew."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

__all__ = ["Correction"]


class Correction(ABC):
    """Factors for trajectories of a behaviour policy mu, from log pi(y_t) - log mu(y_t); immutable."""

    exact: bool = True
    """Whether the exact immediate term has a factor too."""

    @property
    @abstractmethod
    def name(self) -> str:
        """For instance ``ratio``."""

    @abstractmethod
    def corrected(self, advantages: Tensor, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
        """The weights of the scores, and the factor of the exact immediate terms.

        Args:
            advantages: (N, T), zero where masked.
            log_ratio: (N, T), log pi(y_t | x_t) - log mu(y_t | x_t), zero where masked.

        Returns:
            two (N, T) tensors.
        """
