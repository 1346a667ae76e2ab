"""Rules: how each kind of layer turns its inputs and output gradients into gradients of its parameters.

One layer a file, one signature: a function of the recorded :class:`Call` that returns parameter name -> :class:`Outer`
or :class:`PerRow`, registered by :func:`rule`. Add your own for a custom layer; see the example of :func:`rule`.
"""

from kvar.gradients.rules import conv1d, embedding, layer_norm, linear, relative_bias, rms_norm
from kvar.gradients.rules.registry import Rule, RuleFunction, find_rule, registry_version, rule
from kvar.gradients.rules.uses import Call, Outer, PerExpert, PerRow, Use

__all__ = [
    "Call",
    "Outer",
    "PerExpert",
    "PerRow",
    "Rule",
    "RuleFunction",
    "Use",
    "conv1d",
    "embedding",
    "find_rule",
    "layer_norm",
    "linear",
    "registry_version",
    "relative_bias",
    "rms_norm",
    "rule",
]
