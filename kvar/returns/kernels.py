"""Lag kernels: which later tokens' rewards count in a token's return, theory.md eqs. (3), (4) and (4').

A kernel is a function of the lag j >= 0 from a token to a later one, w_j with w_0 = 1. The anchored K-step kernel also
asks whether that later token is the response's last, so a kernel is called with ``remaining``, the number of tokens
that follow the token whose return is formed: the last token is the one at lag ``remaining``.
"""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["LLMR", "Geometric", "Immediate", "KStep", "Kernel", "LagKernel"]

TERMINALS = ("anchored", "free")


class Kernel(ABC):
    """The weights w_j of theory.md eq. (4); immutable, hashable, called with lags.

    ``parse_kernel(kernel.name) == kernel`` for every kernel here.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """A short name for tables and records."""

    @abstractmethod
    def _weights(self, lags: Tensor, remaining: Tensor | None) -> Tensor:
        """Weights at lags that are known to be within the response."""

    def __call__(self, lags: Any, remaining: Any = None) -> Tensor:
        """The weights at some lags.

        Args:
            lags: integers j, a tensor or what ``torch.as_tensor`` takes.
            remaining: how many tokens follow the one whose return is formed, to be broadcast with ``lags``; None
                for a response without an end, where no lag is the last.

        Returns:
            float64 weights w_j, of the shape broadcast; 0 at negative lags and beyond the last token.
        """
        lags = torch.as_tensor(lags)
        if remaining is not None:
            lags, remaining = torch.broadcast_tensors(lags, torch.as_tensor(remaining, device=lags.device))
        weights = self._weights(lags.clamp(min=0), remaining).double()
        outside = lags < 0 if remaining is None else (lags < 0) | (lags > remaining)
        return weights.masked_fill(outside, 0.0)


@dataclass(frozen=True)
class KStep(Kernel):
    """KETCHUP's comb: every k-th gap, theory.md eq. (3).

    "free" is I_k(t) = {t, t+k, t+2k, ...} up to the last token T. "anchored" is the same below T, plus T itself. It is
    the default, and what the paper's released code computes on a sequence that ends in EOS. With k >= T - t it keeps
    the lags 0 and T - t.

    Attributes:
        k: the number of steps, an integer of at least 1.
        terminal: "anchored" or "free".

    Raises:
        ValueError: k is not an integer of at least 1, or the terminal is unknown.

    Examples:
        >>> KStep(2)([0, 1, 2, 3], remaining=3).tolist()
        [1.0, 0.0, 1.0, 1.0]
        >>> KStep(2, terminal="free")([0, 1, 2, 3], remaining=3).tolist()
        [1.0, 0.0, 1.0, 0.0]
        >>> KStep(4).name, KStep(4, terminal="free").name
        ('K=4', 'K=4 free')
    """

    k: int
    terminal: str = "anchored"

    def __post_init__(self) -> None:
        settle_integer(self, "k", 1, " For K = infinity: Immediate().")
        if self.terminal not in TERMINALS:
            raise ValueError(f"KStep: terminal={self.terminal!r} is unknown; choose one of {', '.join(TERMINALS)}.")

    @property
    def name(self) -> str:
        """``K=4``, or ``K=4 free``."""
        return f"K={self.k}" if self.terminal == "anchored" else f"K={self.k} {self.terminal}"

    def _weights(self, lags: Tensor, remaining: Tensor | None) -> Tensor:
        kept = lags % self.k == 0
        if self.terminal == "anchored" and remaining is not None:
            kept = kept | (lags == remaining)
        return kept


def LLMR() -> KStep:  # noqa: N802 (a method's name)
    """The all-ones kernel of LLMR (arXiv 2409.12500): ``KStep(1)``, theory.md eq. (2)."""
    return KStep(1)


@dataclass(frozen=True)
class Immediate(Kernel):
    """Only the token's own reward, w_j = 1 at j = 0: the free K-step kernel as K goes to infinity."""

    name = "immediate"

    def _weights(self, lags: Tensor, remaining: Tensor | None) -> Tensor:
        return lags == 0


@dataclass(frozen=True)
class Geometric(Kernel):
    """A discount, w_j = lam^j; lam = 0 is :class:`Immediate`'s sum, lam = 1 LLMR's.

    Attributes:
        lam: the discount, in [0, 1].

    Raises:
        ValueError: lam is not a number in [0, 1].

    Examples:
        >>> Geometric(0.5)([0, 1, 2]).tolist()
        [1.0, 0.5, 0.25]
    """

    lam: float

    def __post_init__(self) -> None:
        if not is_number(self.lam) or not 0 <= self.lam <= 1:
            raise ValueError(f"Geometric: lam must be a number in [0, 1]; got {self.lam!r}.")
        object.__setattr__(self, "lam", float(self.lam))

    @property
    def name(self) -> str:
        """For instance ``geometric(0.95)``."""
        return f"geometric({short(self.lam)})"

    def _weights(self, lags: Tensor, remaining: Tensor | None) -> Tensor:
        return torch.full_like(lags, self.lam, dtype=torch.float64) ** lags


@dataclass(frozen=True)
class LagKernel(Kernel):
    """Any finite list of weights w_0 = 1, w_1, ..., w_L; zero at longer lags.

    Attributes:
        weights: the weights, the first of them 1.

    Raises:
        ValueError: no weights, a weight that is not a finite number, or a first weight other than 1.

    Examples:
        >>> LagKernel([1, 0.5])([0, 1, 2]).tolist()
        [1.0, 0.5, 0.0]
        >>> LagKernel([1, 0.5]).name
        'lags(1, 0.5)'
    """

    weights: tuple[float, ...]

    def __init__(self, weights: Iterable[float]) -> None:
        listed = weights.tolist() if isinstance(weights, Tensor) else list(weights)
        for j, weight in enumerate(listed):
            if not is_number(weight) or not math.isfinite(weight):
                raise ValueError(f"LagKernel: weights[{j}] must be a finite number; got {weight!r}.")
        if not listed or listed[0] != 1:
            got = repr(listed[0]) if listed else "no weights"
            raise ValueError(f"LagKernel: the first weight, w_0, must be 1; got {got}. Divide the weights by it.")
        object.__setattr__(self, "weights", tuple(float(weight) for weight in listed))

    @property
    def name(self) -> str:
        """For instance ``lags(1, 0.5)``."""
        return f"lags({', '.join(map(short, self.weights))})"

    def _weights(self, lags: Tensor, remaining: Tensor | None) -> Tensor:
        table = torch.tensor([*self.weights, 0.0], dtype=torch.float64, device=lags.device)
        return table[lags.clamp(max=len(self.weights))]


def settle_integer(kernel: Kernel, name: str, least: int, remedy: str = "") -> None:
    """Make a field of a frozen kernel a plain int.

    Raises:
        ValueError: it is no integer, or below ``least``.
    """
    value: Any = getattr(kernel, name)
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < least:
        raise ValueError(
            f"{type(kernel).__name__}: {name} must be an integer of at least {least}; got {value!r}.{remedy}"
        )
    object.__setattr__(kernel, name, int(value))


def is_number(value: object) -> bool:
    """Whether a value is a real number, and no bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def short(value: float) -> str:
    """The shortest text that reads back as ``value``."""
    return format(value, "g") if float(format(value, "g")) == value else repr(value)
