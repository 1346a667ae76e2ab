"""Which modules measure which parameters: layers with a rule, and modules done again for every trajectory."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from kvar.gradients.capture.modules import parameter_named
from kvar.gradients.capture.plan import Plan, enclosing
from kvar.gradients.rules import Rule, find_rule

__all__ = ["covered_layers", "modules_done_again"]


def covered_layers(
    student: nn.Module, wanted: Mapping[int, nn.Parameter]
) -> list[tuple[nn.Module, Rule, dict[str, nn.Parameter]]]:
    """Layers that have a rule and a wanted parameter of their own, with those parameters by the rule's names."""
    layers = []
    for module in student.modules():
        rule = find_rule(module)
        if rule is None:
            continue
        own = {name: parameter_named(module, name) for name in rule.parameters}
        mine = {name: p for name, p in own.items() if p is not None and id(p) in wanted}
        if mine:
            layers.append((module, rule, mine))
    return layers


def modules_done_again(
    student: nn.Module, wanted: Mapping[int, nn.Parameter], plan: Plan
) -> list[tuple[nn.Module, dict[str, nn.Parameter]]]:
    """The modules to be done again, with the parameters for whose sake, by their names in them."""
    modules = {id(m): m for key in plan.heights if key in wanted for m in enclosing(student, key, plan.heights[key])}
    out = []
    for module in modules.values():
        here = {
            id(p): name
            for name, p in module.named_parameters()
            if id(p) in plan.heights
            and id(p) in wanted
            and any(m is module for m in enclosing(student, id(p), plan.heights[id(p)]))
        }
        out.append((module, {name: wanted[key] for key, name in here.items()}))
    return out
