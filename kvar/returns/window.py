"""A window: the rewards of a fixed number of tokens count in full, later ones not at all."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kvar.returns.kernels import Kernel, settle_integer

__all__ = ["Window"]


@dataclass(frozen=True)
class Window(Kernel):
    """w_j = 1 for j < length, else 0: a return truncated after a fixed number of tokens.

    ``Window(1)`` is :class:`kvar.returns.Immediate`'s sum; a window as long as the response is LLMR's. Biased for the
    gradient of J by the lags that it leaves out, theory.md (7).

    Attributes:
        length: lags that count, an integer of at least 1.

    Raises:
        ValueError: length is not an integer of at least 1.

    Examples:
        >>> Window(2)([0, 1, 2, 3]).tolist(), Window(2).name
        ([1.0, 1.0, 0.0, 0.0], 'window(2)')
    """

    length: int

    def __post_init__(self) -> None:
        settle_integer(self, "length", 1)

    @property
    def name(self) -> str:
        """For instance ``window(8)``."""
        return f"window({self.length})"

    def _weights(self, lags: Tensor, remaining: Tensor | None) -> Tensor:
        return lags < self.length
