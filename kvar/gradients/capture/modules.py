"""The modules that cover given parameters, parameters by name, repeated blocks, and the leaves of a graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from kvar.gradients.capture.plan import Plan, enclosing
from kvar.gradients.rules import Rule, find_rule

__all__ = ["covered_layers", "frozen", "modules_run_again", "parameter_named", "reached_leaves", "repeated_blocks"]


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
    """The parameter registered under a dotted name; None without one, for instance for a computed tensor."""
    *path, last = name.split(".")
    holder: nn.Module | None = module
    for step in path:
        holder = holder._modules.get(step) if holder is not None else None
    return None if holder is None else holder._parameters.get(last)


def repeated_blocks(student: nn.Module) -> Iterator[nn.Module]:
    """The members of module lists, nested ones included: a network's repeated blocks and their parts."""
    stack = [student]
    while stack:
        module = stack.pop()
        for child in module.children():
            if isinstance(module, nn.ModuleList):
                yield child
            stack.append(child)


def reached_leaves(ends: list[Tensor]) -> set[int]:
    """Ids of the leaves of some tensors' graphs."""
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


def covered_layers(
    student: nn.Module, wanted: Mapping[int, nn.Parameter]
) -> list[tuple[nn.Module, Rule, dict[str, nn.Parameter]]]:
    """Layers that have a rule and a wanted parameter, with those parameters by the rule's names."""
    layers = []
    for module in student.modules():
        rule = find_rule(module)
        if rule is None:
            continue
        named = {name: parameter_named(module, name) for name in rule.parameters}
        parameters = {name: p for name, p in named.items() if p is not None and id(p) in wanted}
        if parameters:
            layers.append((module, rule, parameters))
    return layers


def modules_run_again(
    student: nn.Module, wanted: Mapping[int, nn.Parameter], plan: Plan
) -> list[tuple[nn.Module, dict[str, nn.Parameter]]]:
    """The modules to run again, each with the parameters that are measured by it, by their names in it."""
    inside: dict[int, tuple[nn.Module, dict[str, nn.Parameter]]] = {}
    for key in (key for key in plan.heights if key in wanted):
        for module in enclosing(student, key, plan.heights[key]):
            name = next(name for name, p in module.named_parameters() if id(p) == key)
            inside.setdefault(id(module), (module, {}))[1][name] = wanted[key]
    return list(inside.values())
