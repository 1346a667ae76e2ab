"""The registry of rules by layer, and the decorator that fills it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from kvar.gradients.rules.uses import Call, Use

__all__ = ["Rule", "RuleFunction", "find_rule", "registry_version", "rule"]

RuleFunction = Callable[[Call], dict[str, Use]]
"""From one recorded call of a layer to the use of each of its parameters."""


@dataclass(frozen=True)
class Rule:
    """How the parameters of one kind of layer enter its output.

    Attributes:
        function: called with the recorded :class:`Call`; returns parameter name -> use.
        parameters: the parameters it covers, as names relative to the layer (dots allowed).
        method: the method whose output's gradient it takes; subclasses that override it are not covered, since their
            output may be another function of the parameters.
        tap: record inside ``torch.nn.functional.embedding`` instead of around ``method``, whatever a subclass does.
    """

    function: RuleFunction
    parameters: tuple[str, ...]
    method: str = "forward"
    tap: bool = False


_RULES: dict[type[nn.Module] | str, Rule] = {}
_version = 0


def rule(
    *layers: type[nn.Module] | str, parameters: tuple[str, ...], method: str = "forward", tap: bool = False
) -> Callable[[RuleFunction], RuleFunction]:
    """Register a rule for layers given by class, or by class name (a pattern) where importing the class would be heavy.

    A later registration for the same layer replaces the earlier one. Every rule is checked against autograd the first
    time a student is measured; if it disagrees, its parameters are measured without it, with a warning.

    Args:
        layers: classes, or class names in which "*" stands for anything.
        parameters: see :class:`Rule`.
        method: see :class:`Rule`.
        tap: see :class:`Rule`.

    Example:
        >>> import torch
        >>> from kvar.gradients.rules import PerRow, rule
        >>> class Gain(torch.nn.Module):
        ...     def __init__(self, size):
        ...         super().__init__()
        ...         self.gain = torch.nn.Parameter(torch.ones(size))
        ...
        ...     def forward(self, x):
        ...         return self.gain * x
        >>> @rule(Gain, parameters=("gain",))
        ... def gain(call):
        ...     return {"gain": PerRow(lambda grad: call.rows(grad * call.input).sum(dim=1))}
    """

    def register(function: RuleFunction) -> RuleFunction:
        global _version
        _version += 1
        for layer in layers:
            _RULES[layer] = Rule(function, parameters, method, tap)
        return function

    return register


def registry_version() -> int:
    """A number that changes whenever a rule is registered."""
    return _version


def find_rule(layer: nn.Module) -> Rule | None:
    """The rule of ``layer``'s class or nearest covered ancestor, by class before class name; None if it has none."""
    kind = type(layer)
    for ancestor in kind.__mro__:
        nearest = _RULES.get(ancestor) or _by_name(ancestor.__name__)
        if nearest is None:
            continue
        if nearest.tap or getattr(kind, nearest.method, None) is getattr(ancestor, nearest.method, None):
            return nearest
        return None
    return None


def _by_name(name: str) -> Rule | None:
    """The latest rule whose class-name pattern fits."""
    fits = [one for pattern, one in _RULES.items() if isinstance(pattern, str) and fnmatchcase(name, pattern)]
    return fits[-1] if fits else None
