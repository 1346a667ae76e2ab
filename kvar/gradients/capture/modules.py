"""Parameters and blocks of a module, and the leaves of a graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

__all__ = ["frozen", "parameter_named", "reached_leaves", "repeated_blocks"]


@contextmanager
def frozen(parameters: Mapping[str, Tensor]) -> Iterator[None]:
    """Switch ``requires_grad`` off while the block runs."""
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters.values():
            parameter.requires_grad_(True)


def parameter_named(module: nn.Module, name: str) -> nn.Parameter | None:
    """The parameter registered under a dotted name, or None (also where a computed tensor stands there)."""
    *path, last = name.split(".")
    holder: nn.Module | None = module
    for step in path:
        holder = holder._modules.get(step) if holder is not None else None
    return None if holder is None else holder._parameters.get(last)


def repeated_blocks(student: nn.Module) -> Iterator[nn.Module]:
    """The members of module lists, nested ones too: a network's repeated blocks and their parts."""
    stack = [student]
    while stack:
        module = stack.pop()
        for child in module.children():
            if isinstance(module, nn.ModuleList):
                yield child
            stack.append(child)


def reached_leaves(ends: list[Tensor]) -> set[int]:
    """Ids of the leaves that the graphs of some tensors lead to."""
    seen: set[Any] = set()
    leaves: set[int] = set()
    stack = [end.grad_fn for end in ends]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            leaves.add(id(variable))
        stack.extend(parent for parent, _ in node.next_functions)
    return leaves
