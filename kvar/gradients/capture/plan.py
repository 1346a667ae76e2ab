"""How each parameter of a student is measured: the ladder from a layer's rule down to whole passes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import nn

from kvar.gradients.layers import stacks

__all__ = ["Plan", "UncoveredError", "enclosing"]


class UncoveredError(Exception):
    """Parameters that a forward pass used in ways no rule accounts for; ``ids`` are theirs."""

    def __init__(self, ids: set[int]) -> None:
        super().__init__(f"{len(ids)} parameters")
        self.ids = ids


@dataclass
class Plan:
    """How a student is measured.

    A parameter begins with its layer's rule, and with the operations that meet it where it has none. Where that does
    not agree with autograd it is taken down a step: operations alone; then its own module done again for every
    trajectory, then the module around that one, as far as a block; then whole passes.

    Attributes:
        by_operation: ids of parameters whose layers' rules are not trusted.
        heights: id -> how many modules above its own is done again for each trajectory.
        uncovered: ids of parameters to be measured by whole passes.
        cut: whether the graph can be cut between repeated blocks.
        kinds: id -> the operations that met it when it was tried.
    """

    by_operation: set[int] = field(default_factory=set)
    heights: dict[int, int] = field(default_factory=dict)
    uncovered: set[int] = field(default_factory=set)
    cut: bool = True
    kinds: dict[int, set[str]] | None = None

    def covered(self, wanted: Mapping[int, nn.Parameter]) -> dict[int, nn.Parameter]:
        """The wanted parameters that are measured from one pass."""
        return {key: p for key, p in wanted.items() if key not in self.uncovered}

    def rest(self, wanted: Mapping[int, nn.Parameter]) -> dict[int, nn.Parameter]:
        """The wanted parameters that are not."""
        return {key: p for key, p in wanted.items() if key in self.uncovered}

    def take_down(self, ids: Iterable[int], student: nn.Module, ruled: set[int]) -> None:
        """Take some parameters a step down.

        Args:
            ids: theirs.
            student: the model.
            ruled: ids of the parameters that some layer's rule speaks for.
        """
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
        """Let a module that is done again answer for its parameters that the trial did not meet: experts not chosen.

        Args:
            student: the model.
            unseen: ids of the parameters not met.

        Returns:
            What the trial would have noted of those that a module now answers for.
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
    """How many steps above the one module that holds a parameter another module is, if it is."""
    holders = [name for name, m in student.named_modules() if any(id(p) == key for p in m._parameters.values())]
    above = next(name for name, m in student.named_modules() if m is module)
    if len(holders) != 1 or not f"{holders[0]}.".startswith(f"{above}."):
        return None
    return len(holders[0].split(".")) - len(above.split("."))


def enclosing(student: nn.Module, key: int, height: int) -> list[nn.Module]:
    """The modules so many steps above those that hold a parameter; empty beyond the blocks of a stack."""
    above = stacks(student)
    out: list[nn.Module] = []
    for name, module in student.named_modules():
        if all(id(p) != key for p in module._parameters.values()):
            continue
        steps = name.split(".") if name else []
        path = ".".join(steps[: len(steps) - height])
        if height >= len(steps) or any(f"{stack}.".startswith(f"{path}.") for stack in above):
            return []
        here = student.get_submodule(path)
        if all(here is not other for other in out):
            out.append(here)
    return out
