"""Kernels from their names, as configs, command lines and records give them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from kvar.returns.kernels import LLMR, Geometric, Immediate, Kernel, KStep, LagKernel
from kvar.returns.scaled_comb import ScaledComb
from kvar.returns.stepwise import Stepwise
from kvar.returns.thinning import Thinning
from kvar.returns.window import Window

__all__ = ["parse_kernel"]


def parse_kernel(text: str | int | float | Kernel) -> Kernel:
    """A kernel from its name, as configs and command lines give it.

    Args:
        text: ``K=4``, ``4``, ``K=4 free``, ``4-free``, ``4-anchored``, ``llmr``, ``inf``, ``infinity``,
            ``immediate``, ``geometric(0.95)``, ``lags(1, 0.5)``, ``window(8)``, ``scaled-comb(4)``, ``thinning(4)``,
            ``stepwise(1:-0.5, 3:0.25)``, in any case; a number k or infinity; or a kernel.

    Returns:
        The kernel; infinity gives :class:`Immediate`.

    Raises:
        ValueError: no such kernel, or one of its parameters out of range.

    Examples:
        >>> [parse_kernel(text).name for text in ("4", "8-free", "llmr", "inf", "geometric(0.95)")]
        ['K=4', 'K=8 free', 'K=1', 'immediate', 'geometric(0.95)']
    """
    if isinstance(text, Kernel):
        return text
    if isinstance(text, float) and text == math.inf:
        return Immediate()
    if not isinstance(text, str):
        return KStep(text)  # type: ignore[arg-type]  # KStep refuses what is no integer
    name = text.strip().lower()
    if name == "llmr":
        return LLMR()
    if match := re.fullmatch(r"(?:k\s*=\s*)?([+-]?\d+)(?:[\s-]+(anchored|free))?", name):
        return KStep(int(match[1]), match[2] or "anchored")
    if re.fullmatch(r"(?:k\s*=\s*)?(inf|infinity|immediate)", name):
        return Immediate()
    if (match := re.fullmatch(r"([a-z-]+)\s*\((.*)\)", name)) and match[1] in _CALLED:
        return _called(text, match[1], match[2])
    raise ValueError(
        f"kernel {text!r} is unknown; use for instance 'K=4', '4-free', 'llmr', 'immediate', 'inf', "
        "'geometric(0.95)', 'lags(1, 0.5)', 'window(8)', 'scaled-comb(4)', 'thinning(4)' or 'stepwise(1:-0.5, 3:0.25)'."
    )


def _step(text: str) -> tuple[int, float]:
    lag, _, weight = text.partition(":")
    return int(lag), float(weight)


_CALLED: dict[str, tuple[Callable[..., Kernel], float, Callable[[str], object]]] = {
    "geometric": (Geometric, 1, float),
    "lags": (lambda *weights: LagKernel(weights), math.inf, float),
    "window": (Window, 1, int),
    "scaled-comb": (ScaledComb, 1, int),
    "thinning": (Thinning, 2, int),
    "stepwise": (lambda *steps: Stepwise(steps), math.inf, _step),
}
"""Name -> kernel, the most arguments that it takes, and how one of them is read."""


_WORDS: dict[Callable[[str], object], str] = {
    float: "a comma-separated list of numbers",
    int: "made of integers",
    _step: "a comma-separated list of lag:weight",
}


def _called(text: str, name: str, inside: str) -> Kernel:
    """A kernel that is written as a call."""
    make, most, kind = _CALLED[name]
    try:
        given = [kind(part) for part in inside.split(",")]
    except ValueError:
        what = _WORDS[kind]
        raise ValueError(f"kernel {text!r}: {inside!r} is not {what}.") from None
    if len(given) > most:
        raise ValueError(f"kernel {text!r}: {name} takes {most} number{'s' if most > 1 else ''}; got {len(given)}.")
    return make(*given)
