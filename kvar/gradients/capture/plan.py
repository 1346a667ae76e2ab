"""How each parameter of a student is measured: by a layer's rule, by operations, or by passes per trajectory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import nn

from kvar.gradients.groups import stacks

__all__ = ["Plan", "UncoveredError", "enclosing"]


class UncoveredError(Exception):
    """A forward pass used the parameters ``ids`` in ways that no record describes."""

    def __init__(self, ids: set[int]) -> None:
        super().__init__(f"{len(ids)} parameters")
        self.ids = ids


@dataclass
class Plan:
    """How a student is measured.

    A parameter is measured by its layer's rule, or by the operations that use it if the layer has none. If this does
    not agree with autograd, the next method is tried: the operations; then its module run again for each trajectory,
    then the module around that one, up to a block; then the whole student for each trajectory.

    Attributes:
        by_operation: ids of parameters whose layers' rules are not used.
        heights: id -> levels from the parameter's module up to the module that is run again.
        uncovered: ids of parameters measured by whole passes, one per trajectory.
        cut: whether the graph can be cut between repeated blocks.
        kinds: id -> kinds of use in the trial (:class:`kvar.gradients.capture.record.Capture`); None before the trial.
    """

    by_operation: set[int] = field(default_factory=set)
    heights: dict[int, int] = field(default_factory=dict)
    uncovered: set[int] = field(default_factory=set)
    cut: bool = True
    kinds: dict[int, set[str]] | None = None

    def covered(self, wanted: Mapping[int, nn.Parameter]) -> dict[int, nn.Parameter]:
        """The wanted parameters that are measured from one pass over all trajectories."""
        return {key: p for key, p in wanted.items() if key not in self.uncovered}

    def rest(self, wanted: Mapping[int, nn.Parameter]) -> dict[int, nn.Parameter]:
        """The other wanted parameters."""
        return {key: p for key, p in wanted.items() if key in self.uncovered}

    def take_down(self, ids: Iterable[int], student: nn.Module, ruled: set[int]) -> None:
        """Take the next method for some parameters; ``ruled`` holds the ids of those that have a rule."""
        for key in ids:
            if key in self.heights:
                self.heights[key] += 1
            elif key in ruled and key not in self.by_operation:
                self.by_operation.add(key)
                continue
            else:
                self.by_operation.add(key)
                self.heights[key] = 0
            if not enclosing(student, key, self.heights[key]):
                del self.heights[key]
                self.uncovered.add(key)

    def take_along(self, student: nn.Module, unseen: set[int]) -> dict[int, set[str]]:
        """Measure parameters that the trial did not use (``unseen``) with a module around them that is run again.

        Returns:
            Entries for ``kinds`` of those that lie in such a module.
        """
        modules = {id(m): m for key, height in self.heights.items() for m in enclosing(student, key, height)}
        out: dict[int, set[str]] = {}
        for module in modules.values():
            for key in unseen & {id(p) for p in module.parameters()}:
                height = _steps_up(student, key, module)
                if height is not None:
                    self.by_operation.add(key)
                    self.heights[key] = height
                    out[key] = {"again"}
        return out


def _steps_up(student: nn.Module, key: int, module: nn.Module) -> int | None:
    """Levels from the only module that holds a parameter up to ``module``; None if it is not above that one."""
    holders = [name for name, m in student.named_modules() if any(id(p) == key for p in m._parameters.values())]
    above = next(name for name, m in student.named_modules() if m is module)
    if len(holders) != 1 or not f"{holders[0]}.".startswith(f"{above}."):
        return None
    return len(holders[0].split(".")) - len(above.split("."))


def enclosing(student: nn.Module, key: int, height: int) -> list[nn.Module]:
    """The modules ``height`` levels above those that hold a parameter; empty beyond the blocks of a stack."""
    above = stacks(student)
    out: list[nn.Module] = []
    for name, module in student.named_modules():
        if all(id(p) != key for p in module._parameters.values()):
            continue
        steps = name.split(".") if name else []
        path = ".".join(steps[: len(steps) - height])
        if height >= len(steps) or any(f"{stack}.".startswith(f"{path}.") for stack in above):
            return []
        module = student.get_submodule(path)
        if all(module is not other for other in out):
            out.append(module)
    return out
