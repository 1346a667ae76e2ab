"""Which modules account for which parameters: layers with a rule, and modules run again for each trajectory."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from kvar.gradients.capture.modules import parameter_named
from kvar.gradients.capture.plan import Plan, enclosing
from kvar.gradients.rules import Rule, find_rule

__all__ = ["covered_layers", "modules_run_again"]


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
    """The modules to run again, each with the parameters it is run for, by their names in it."""
    inside: dict[int, tuple[nn.Module, dict[str, nn.Parameter]]] = {}
    for key in (key for key in plan.heights if key in wanted):
        for module in enclosing(student, key, plan.heights[key]):
            name = next(name for name, p in module.named_parameters() if id(p) == key)
            inside.setdefault(id(module), (module, {}))[1][name] = wanted[key]
    return list(inside.values())
