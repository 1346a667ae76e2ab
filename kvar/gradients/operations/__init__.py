"""Handlers of operations that combine a parameter with the trajectories, one kind of operation per file."""

from kvar.gradients.operations import convolution, elementwise, expansion, generic, linear, lookup, norms
from kvar.gradients.operations.registry import Note, Operation, find_operation, operation

__all__ = [
    "Note",
    "Operation",
    "convolution",
    "elementwise",
    "expansion",
    "find_operation",
    "generic",
    "linear",
    "lookup",
    "norms",
    "operation",
]
