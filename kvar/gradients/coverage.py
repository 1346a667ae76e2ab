"""Which parameters the rules can be trusted with: tried on two trajectories against plain autograd, once per student.

Three things are found out before any number is returned. Layers whose output has no trajectory axis: their output
keeps its shape when one trajectory is replaced by two. Parameters that no rule accounts for: the graph still leads to
them (see :mod:`kvar.gradients.capture`). Parameters whose rule is wrong for this model, or models that mix
trajectories: the rule's gradient differs from that of a trajectory on its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from kvar.gradients.blocks import Dense
from kvar.gradients.capture import capture
from kvar.gradients.estimators import Estimators
from kvar.gradients.factored import Factored
from kvar.gradients.rules import registry_version
from kvar.gradients.sources import Graph, RowByRow, UncoveredError
from kvar.rollouts.forward import token_logits
from kvar.rollouts.types import Rollouts

__all__ = ["Coverage", "coverage", "warn_uncovered", "without_autocast"]


@dataclass
class Coverage:
    """How a student is measured.

    Attributes:
        expand: ids of layers whose output has no trajectory axis.
        uncovered: ids of parameters to be measured without rules.
        cut: whether the graph can be cut between repeated blocks.
    """

    expand: frozenset[int]
    uncovered: set[int]
    cut: bool = True

    def covered(self, wanted: Mapping[int, nn.Parameter]) -> dict[int, nn.Parameter]:
        """The wanted parameters that rules are trusted with."""
        return {key: p for key, p in wanted.items() if key not in self.uncovered}

    def rest(self, wanted: Mapping[int, nn.Parameter]) -> dict[int, nn.Parameter]:
        """The wanted parameters that they are not."""
        return {key: p for key, p in wanted.items() if key in self.uncovered}


_known: WeakKeyDictionary[nn.Module, dict[tuple, Coverage]] = WeakKeyDictionary()


def coverage(student: nn.Module, rollouts: Rollouts, wanted: Mapping[int, nn.Parameter]) -> Coverage:
    """Find out, or remember, how ``student`` is to be measured.

    Args:
        student: in eval mode.
        rollouts: at least one trajectory; two of them are tried.
        wanted: id -> parameter.

    Returns:
        The coverage; remembered for as long as the student lives and its parameters are the same.
    """
    key = (
        tuple((name, id(p), p.dtype, id(p) in wanted) for name, p in student.named_parameters(remove_duplicate=False)),
        tuple((id(module), type(module)) for module in student.modules()),
        registry_version(),
        torch.is_autocast_enabled(rollouts.tokens.device.type),
    )
    found = _known.setdefault(student, {})
    if key not in found:
        found[key] = _find(student, rollouts, wanted)
    return found[key]


def without_autocast(rollouts: Rollouts) -> torch.autocast:
    """A context in which products keep the precision of their factors."""
    return torch.autocast(rollouts.tokens.device.type, enabled=False)


def warn_uncovered(student: nn.Module, uncovered: set[int]) -> None:
    """One warning that names the parameters measured without rules."""
    names = [name for name, p in student.named_parameters() if id(p) in uncovered]
    if names:
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        warnings.warn(
            f"no rule covers {shown}: these are measured exactly but slowly, one trajectory at a time. A rule for "
            "their layer (kvar.gradients.rules.rule) makes them fast; a rule that disagrees with autograd here, or a "
            "layer that is bypassed, counts as none.",
            stacklevel=4,
        )


def _find(student: nn.Module, rollouts: Rollouts, wanted: Mapping[int, nn.Parameter]) -> Coverage:
    longest = int(rollouts.prompt_mask.sum(dim=1).argmax())
    lengths = rollouts.lengths.clone()
    lengths[longest] = -1
    other = int(lengths.argmax()) if len(rollouts) > 1 else longest
    device = rollouts.tokens.device
    expand, unusable = _without_rows(student, rollouts[[longest]], rollouts[[longest, longest]], wanted)
    result = Coverage(expand, unusable)
    two = rollouts[[longest, other]]
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(1, *two.tokens.shape, generator=generator).to(device).masked_fill(~two.mask, 0.0)
    estimators = Estimators(two, weights)
    rows = torch.arange(2, device=device)
    while True:
        try:
            graph = Graph(student, estimators, rows, result.covered(wanted), expand, result.cut)
            break
        except RuntimeError:  # a block that changes its input in place can't be given a leaf
            if not result.cut:
                raise
            result.cut = False
        except UncoveredError as found:
            result.uncovered |= found.ids
    covered = result.covered(wanted)
    if covered:
        truth = RowByRow(student, estimators, rows, covered)
        tolerance = _tolerance(graph.logits, covered)
        with without_autocast(rollouts):
            result.uncovered |= _wrong(graph, truth, tolerance, covered)
    return result


def _without_rows(
    student: nn.Module, one: Rollouts, two: Rollouts, wanted: Mapping[int, nn.Parameter]
) -> tuple[frozenset[int], set[int]]:
    """Layers whose output has no trajectory axis, and parameters of layers that treat the axis in some other way."""
    shapes: list[list[tuple[int, tuple[int, ...]]]] = []
    parameters: dict[int, set[int]] = {}
    for rollouts in (one, two):
        with capture(student, wanted, 1) as captured:
            token_logits(student, rollouts)
        shapes.append([(id(r.call.module), r.call.shape) for r in captured.records])
        for r in captured.records:
            parameters.setdefault(id(r.call.module), set()).update(id(p) for p in r.parameters.values())
    every = {module for shape in shapes for module, _ in shape}
    unusable: set[int] = set()
    alone: set[int] = set()
    if [m for m, _ in shapes[0]] != [m for m, _ in shapes[1]]:
        return frozenset(), {key for module in every for key in parameters[module]}
    shared: set[int] = set()
    for (module, first), (_, second) in zip(*shapes, strict=True):
        if first == second and first[0] == 1:
            alone.add(module)
        elif second == (2 * first[0], *first[1:]):
            shared.add(module)
        else:
            unusable |= parameters[module]
    for module in alone & shared:
        unusable |= parameters[module]
    return frozenset(alone), unusable


def _wrong(graph: Graph, truth: RowByRow, tolerance: float, wanted: Mapping[int, nn.Parameter]) -> set[int]:
    """Parameters whose rule disagrees with autograd on single trajectories."""
    exact = {id(p): block for p, block in truth.blocks()}
    scale = torch.stack([block.norms()[0] for block in exact.values()]).sum(dim=0).sqrt()
    wrong: set[int] = set()
    unseen = set(wanted)
    for parameter, block in graph.blocks():
        unseen.discard(id(parameter))
        dense = block.written_out() if isinstance(block, Factored) else block
        assert isinstance(dense, Dense)
        ours = dense.grad.double()
        theirs = exact[id(parameter)].grad.double()
        difference, size = (ours - theirs).flatten(1).norm(dim=1), theirs.flatten(1).norm(dim=1)
        if not bool((difference <= tolerance * (size + 1e-3 * scale)).all()):
            wrong.add(id(parameter))
    return wrong | {key for key in unseen if bool((exact[key].grad != 0).any())}


def _tolerance(logits: Tensor, wanted: Mapping[int, nn.Parameter]) -> float:
    """The relative difference that rounding may make; a wrong rule makes a far larger one."""
    half = (torch.float16, torch.bfloat16)
    if torch.is_autocast_enabled(logits.device.type) or any(p.dtype in half for p in wanted.values()):
        return 0.3
    return 1e-4 if logits.dtype == torch.float64 else 1e-2
