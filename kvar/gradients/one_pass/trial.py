"""The trial of how each parameter is measured: two or three trajectories against plain autograd, once per student.

A parameter that is still in the graph (:mod:`kvar.gradients.capture.record`), or whose gradients differ from those of
each trajectory alone, gets the next method of :class:`kvar.gradients.capture.plan.Plan`, until all agree.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from kvar.gradients.capture.experts import expert_layers
from kvar.gradients.capture.modules import covered_layers
from kvar.gradients.capture.plan import Plan, UncoveredError
from kvar.gradients.cotangents import Estimators
from kvar.gradients.one_pass.row_by_row import RowByRow
from kvar.gradients.one_pass.source import Graph
from kvar.gradients.products.blocks import Dense
from kvar.gradients.rules import registry_version
from kvar.rollouts.types import Rollouts

__all__ = ["coverage", "warn_uncovered", "without_autocast"]


_known: WeakKeyDictionary[nn.Module, dict[tuple, Plan]] = WeakKeyDictionary()


def coverage(student: nn.Module, rollouts: Rollouts, wanted: Mapping[int, nn.Parameter]) -> Plan:
    """The plan by which ``student`` is measured, cached while the student exists and its parameters are the same.

    Args:
        student: in eval mode.
        rollouts: at least one trajectory; the longest prompt, the longest response and the shortest of both are tried.
        wanted: id -> parameter.
    """
    key = (
        tuple((name, id(p), p.dtype, id(p) in wanted) for name, p in student.named_parameters(remove_duplicate=False)),
        tuple((id(module), type(module)) for module in student.modules()),
        registry_version(),
        torch.is_autocast_enabled(rollouts.tokens.device.type),
    )
    plans = _known.setdefault(student, {})
    if key not in plans:
        plans[key] = _find(student, rollouts, wanted)
    return plans[key]


def without_autocast(rollouts: Rollouts) -> torch.autocast:
    """A context in which products keep the precision of their factors."""
    return torch.autocast(rollouts.tokens.device.type, enabled=False)


def warn_uncovered(student: nn.Module, uncovered: set[int]) -> None:
    """Warn of the parameters that are measured one trajectory at a time."""
    names = [name for name, p in student.named_parameters() if id(p) in uncovered]
    if names:
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        warnings.warn(
            f"no rule covers {shown}: these are measured exactly but slowly, one trajectory at a time, since every "
            "faster way disagrees with autograd. A rule for their layer (kvar.gradients.rules.rule) may help, unless "
            "trajectories of a batch act on each other.",
            stacklevel=4,
        )


def _find(student: nn.Module, rollouts: Rollouts, wanted: Mapping[int, nn.Parameter]) -> Plan:
    prompts, responses = rollouts.prompt_mask.sum(dim=1), rollouts.lengths
    chosen = {int(prompts.argmax()), int(responses.argmax()), int((prompts + responses).argmin())}
    tried = sorted(chosen) if len(chosen) > 1 else [*chosen, *chosen]
    device = rollouts.tokens.device
    plan = Plan(uncovered=_scaled_by_frequency(student))
    ruled = {id(p) for _, _, parameters in covered_layers(student, wanted) for p in parameters.values()}
    ruled |= {id(p) for _, parameters in expert_layers(student, wanted) for p in parameters.values()}
    few = rollouts[tried]
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(1, *few.tokens.shape, generator=generator).to(device).masked_fill(~few.mask, 0.0)
    estimators = Estimators(few, weights)
    rows = torch.arange(len(tried), device=device)
    truth: dict[int, Dense] = {}
    while True:
        covered = plan.covered(wanted)
        try:
            graph = Graph(student, estimators, rows, covered, plan)
        except RuntimeError:  # a block that changes its input in place cannot take a leaf
            if not plan.cut:
                raise
            plan.cut = False
            continue
        except UncoveredError as error:
            plan.take_down(error.ids, student, ruled)
            continue
        if not covered:
            break
        kinds = {key: set(kinds) for key, kinds in graph.captured.kinds.items()}
        alone = None if truth else RowByRow(student, estimators, rows, covered)
        tolerance = _tolerance(graph.logits, covered)
        with without_autocast(rollouts):
            truth = truth if alone is None else {id(p): block for p, block in alone.blocks()}
            try:
                wrong = _wrong(graph, truth, tolerance, covered)
            except UncoveredError as error:
                wrong = error.ids
        if not wrong:
            plan.kinds = kinds | plan.take_along(student, {key for key in covered if key not in kinds})
            break
        plan.take_down(wrong, student, ruled)
    return plan


def _scaled_by_frequency(student: nn.Module) -> set[int]:
    """Ids of tables whose gradients depend on how often an id occurs in the batch, padding included."""
    embeddings = [m for m in student.modules() if getattr(m, "scale_grad_by_freq", False)]
    return {id(p) for module in embeddings for p in module._parameters.values() if p is not None}


def _wrong(graph: Graph, exact: Mapping[int, Dense], tolerance: float, wanted: Mapping[int, nn.Parameter]) -> set[int]:
    """Ids of parameters whose gradients disagree with autograd on single trajectories."""
    scale = torch.stack([block.norms()[0] for block in exact.values()]).sum(dim=0).sqrt()
    wrong: set[int] = set()
    unseen = set(wanted)
    for parameter, block in graph.blocks():
        unseen.discard(id(parameter))
        ours = block.written_out().grad.double()
        theirs = exact[id(parameter)].grad.double()
        difference, size = (ours - theirs).flatten(1).norm(dim=1), theirs.flatten(1).norm(dim=1)
        if not bool((difference <= tolerance * (size + 1e-3 * scale)).all()):
            wrong.add(id(parameter))
    return wrong | {key for key in unseen if bool((exact[key].grad != 0).any())}


def _tolerance(logits: Tensor, wanted: Mapping[int, nn.Parameter]) -> float:
    """The allowed relative rounding error; a wrong rule differs far more."""
    half = (torch.float16, torch.bfloat16)
    if torch.is_autocast_enabled(logits.device.type) or any(p.dtype in half for p in wanted.values()):
        return 0.3
    return 1e-4 if logits.dtype == torch.float64 else 1e-2
