"""Run a forward pass and record every use of the wanted parameters: :func:`capture`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import nn

from kvar.gradients.capture.axis import Axes, Axis, tensors_in
from kvar.gradients.capture.experts import by_expert, expert_layers
from kvar.gradients.capture.modules import covered_layers, modules_run_again, repeated_blocks
from kvar.gradients.capture.plan import Plan
from kvar.gradients.capture.record import Capture
from kvar.gradients.capture.trace import Trace
from kvar.gradients.capture.wrappers import cut_block, recorded_for_rerun, recorded_layer, recorded_lookup
from kvar.rollouts.patching import replaced

__all__ = ["capture"]


@contextmanager
def capture(
    student: nn.Module, wanted: Mapping[int, nn.Parameter], n: int, plan: Plan | None = None, *, cut: bool = False
) -> Iterator[Capture]:
    """Record every use of the wanted parameters in the forward pass that the block runs.

    Args:
        student: the model; its methods are replaced while the block runs.
        wanted: id -> parameter.
        n: N, the trajectories of the forward pass.
        plan: how each parameter is measured; by default by its layer's rule, else by the operations that use it.
        cut: cut the graph at every repeated block, so that the output gradients of all estimators are held for one
            block at a time.

    Yields:
        The capture, filled as the block runs.
    """
    plan = plan or Plan()
    result = Capture(n, Axes(n, [id(x) for x in (*student.parameters(), *student.buffers())]))
    by_rule = {key: p for key, p in wanted.items() if key not in plan.by_operation}
    with ExitStack() as stack:
        for module, rule, parameters in covered_layers(student, by_rule):
            recorded = recorded_lookup if rule.tap else recorded_layer
            run = recorded(result, module, rule, parameters, getattr(module, rule.method))
            stack.enter_context(replaced(module, rule.method, run))
        for module, parameters in expert_layers(student, by_rule):
            stack.enter_context(replaced(module, "forward", by_expert(result, module, parameters, module.forward)))
        for module, inside in modules_run_again(student, wanted, plan):
            run = recorded_for_rerun(result, module, inside, module.forward)
            stack.enter_context(replaced(module, "forward", run))
        for block in repeated_blocks(student) if cut else ():
            stack.enter_context(replaced(block, "forward", cut_block(result, block.forward)))
        stack.enter_context(student.register_forward_pre_hook(partial(_mark_inputs, result.axes), with_kwargs=True))
        stack.callback(result.axes.leave)
        stack.enter_context(Trace(result.axes, wanted, result.note))
        yield result


def _mark_inputs(axes: Axes, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Mark the model's inputs of N rows as running over the trajectories, the others as common."""
    for x in tensors_in((*args, *kwargs.values())):
        axes.mark(x, Axis.LEADING if x.dim() and x.shape[0] == axes.n else Axis.COMMON)
