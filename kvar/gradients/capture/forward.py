"""One forward pass that notes, for every layer with a rule, its inputs and the point of the graph where it spoke.

While a covered layer runs, its parameters do not ask for gradients. So no backward pass spends a product on them, and
a parameter that is nevertheless reached by the graph was used in some way that no rule saw: that is how a bypassed
layer, a functional use or a reparametrised weight is found out (:meth:`Capture.missed`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from kvar.gradients.capture.axis import Axes, Axis, tensors_in
from kvar.gradients.capture.covering import covered_layers, modules_done_again
from kvar.gradients.capture.experts import by_expert, expert_layers
from kvar.gradients.capture.modules import reached_leaves, repeated_blocks
from kvar.gradients.capture.plan import Plan
from kvar.gradients.capture.row_by_row import Again
from kvar.gradients.capture.trace import Trace
from kvar.gradients.capture.wrappers import cut as run_cut
from kvar.gradients.capture.wrappers import done_again, tapped, wrapped
from kvar.gradients.rules import Call, Rule, RuleFunction
from kvar.rollouts.patching import replaced

__all__ = ["Capture", "Link", "Record", "capture"]


@dataclass(frozen=True)
class Record:
    """One recorded call, the rule for it, and where its output's gradient is found.

    Attributes:
        call: what the rule sees.
        rule: the rule.
        parameters: the rule's name of each parameter wanted here -> the parameter.
        edge: the output's place in the graph, before anything is done to it (in place or not).
        versions: argument tensors and their version counters, to notice a later change in place.
        time: when, on the clock of the capture.
    """

    time: int
    call: Call
    rule: Rule
    parameters: dict[str, nn.Parameter]
    edge: GradientEdge
    versions: tuple[tuple[Tensor, int], ...]

    def stale(self) -> bool:
        """Whether an argument has been changed in place since, so that the rule would see wrong values."""
        return any(tensor._version != version for tensor, version in self.versions)


@dataclass(frozen=True)
class Link:
    """A place where the graph is cut: what stood there, and the leaf that goes on in its stead.

    Attributes:
        time: when, on the clock of the capture.
        original: the end of the earlier piece.
        leaf: a beginning of the later one.
    """

    time: int
    original: Tensor
    leaf: Tensor


@dataclass
class Capture:
    """What one forward pass left behind.

    Attributes:
        n: N, the number of trajectories.
        axes: which tensors run over the trajectories.
        kinds: id of a parameter -> the operations that met it, and how its layer's output held the trajectories.
        records: the calls, in order.
        unusable: ids of parameters whose layer's output can't be split by trajectory.
        links: where the graph was cut, in order.
        leaves: id of what stood there (kept alive by its link) -> the leaf in its stead.
        clock: counts calls and cuts.
        last_input: what the last recorded call was given, where it is a linear layer: a head's gradient is pulled back
            to it once for all estimators.
    """

    n: int
    axes: Axes = field(default_factory=lambda: Axes(1))
    kinds: dict[int, set[str]] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    unusable: set[int] = field(default_factory=set)
    links: list[Link] = field(default_factory=list)
    leaves: dict[int, Tensor] = field(default_factory=dict)
    clock: int = 0
    last_input: Tensor | None = None

    def record(
        self,
        module: nn.Module,
        rule: Rule,
        parameters: dict[str, nn.Parameter],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: Any,
    ) -> Any:
        """Note a call and return the output to go on with: part of the graph, and with a trajectory axis."""
        if not isinstance(output, Tensor) or not output.is_floating_point() or output.dim() < 2:
            self.unusable.update(id(p) for p in parameters.values())
            return output
        axis = self.axes.of(output)
        repeat = axis is Axis.COMMON
        if axis is Axis.SCATTERED or (output.shape[0] != 1 if repeat else output.shape[0] % self.n != 0):
            self.unusable.update(id(p) for p in parameters.values())
            return output
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        if repeat and self.n > 1:
            output = output.expand(self.n, *output.shape[1:]).clone()
        elif output.is_leaf:
            output = output.clone()
        self.axes.mark(output, Axis.LEADING)
        for p in parameters.values():
            self.kinds.setdefault(id(p), set()).add("common" if repeat else "leading")
        self._append(module, rule, parameters, args, kwargs, output)
        self.last_input = _rowwise_input(module, args, output)
        return output

    def note(
        self,
        kind: str,
        parameters: tuple[nn.Parameter, ...],
        function: RuleFunction,
        output: Tensor,
        reads: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """Note a use of parameters outside any layer's rule: see :class:`kvar.gradients.operations.Note`."""
        if not output.requires_grad:
            output = output.detach().requires_grad_().clone()
        named = {str(k): p for k, p in enumerate(parameters)}
        for p in parameters:
            self.kinds.setdefault(id(p), set()).add(kind)
        self._append(nn.Identity(), Rule(function, tuple(named)), named, reads, {}, output)
        self.last_input = None
        return output

    def record_again(self, call: Again, output: Any) -> Any:
        """Note a call of a module that is done again for every trajectory alone; return what goes on."""
        parameters = tuple(call.parameters.values())
        floating = [x for x in tensors_in((output,)) if x.is_floating_point()]
        kept = [self.axes.of(x) is Axis.LEADING or (x.dim() > 2 and x.shape[0] == self.n) for x in floating]
        if not isinstance(output, (Tensor, tuple, list)) or not all(kept):
            self.unusable.update(id(p) for p in parameters)
            return output
        places = {id(x): place for place, x in enumerate(floating)}

        def noted(value: Any) -> Any:
            if isinstance(value, (tuple, list)):
                return type(value)(noted(v) for v in value)
            if id(value) not in places:
                return value
            made = self.note("again", parameters, call.uses(places[id(value)]), value, call.reads)
            self.axes.mark(made, Axis.LEADING)
            return made

        return noted(output)

    def _append(
        self,
        module: nn.Module,
        rule: Rule,
        parameters: dict[str, nn.Parameter],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: Tensor,
    ) -> None:
        args = tuple(_detached(value) for value in args)
        kwargs = {name: _detached(value) for name, value in kwargs.items()}
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        self.clock += 1
        self.records.append(
            Record(
                self.clock,
                Call(module, args, kwargs, self.n, tuple(output.shape)),
                rule,
                parameters,
                get_gradient_edge(output),
                tuple((tensor, tensor._version) for tensor in tensors if not tensor.is_inference()),
            )
        )

    def cut(self, value: Any) -> Any:
        """Cut the graph at every tensor in nested tuples, lists and dicts; what is left uncut does no harm.

        A tensor cut before goes on as the same leaf, so that its gradient is pulled back once.
        """
        self.clock += 1

        def one(x: Any) -> Any:
            if isinstance(x, Tensor):
                if not x.requires_grad or x.is_leaf or self.axes.roots(x):
                    return x
                if id(x) not in self.leaves:
                    self.leaves[id(x)] = x.detach().requires_grad_()
                    self.links.append(Link(self.clock, x, self.leaves[id(x)]))
                return self.leaves[id(x)]
            if type(x) in (tuple, list):
                return type(x)(one(item) for item in x)
            if type(x) is dict:
                return {key: one(item) for key, item in x.items()}
            return x

        return one(value)

    def missed(self, output: Tensor, wanted: Mapping[int, nn.Parameter]) -> set[int]:
        """Ids of wanted parameters that the records do not account for, wholly or in part."""
        ends = [output, *(link.original for link in self.links)]
        found = {key for key in reached_leaves(ends) if key in wanted} | (self.unusable & wanted.keys())
        for record in self.records:
            if record.stale():
                found.update(id(p) for p in record.parameters.values())
        return found


@contextmanager
def capture(
    student: nn.Module, wanted: Mapping[int, nn.Parameter], n: int, plan: Plan | None = None, *, cut: bool = False
) -> Iterator[Capture]:
    """Record every use of the wanted parameters while the block runs a forward pass; then take every wrapper off again.

    Args:
        student: the model.
        wanted: id -> parameter.
        n: N, the trajectories of the forward pass.
        plan: how each parameter is measured; by default by its layer's rule, or by the operations that meet it.
        cut: give every repeated block a piece of graph of its own, so that output gradients of all estimators need be
            held for one block at a time only.

    Yields:
        The capture, filled as the block runs.
    """
    plan = plan or Plan()
    result = Capture(n, Axes(n, [id(x) for x in (*student.parameters(), *student.buffers())]))
    by_rule = {key: p for key, p in wanted.items() if key not in plan.by_operation}
    with ExitStack() as stack:
        for module, rule, parameters in covered_layers(student, by_rule):
            original = getattr(module, rule.method)
            run = partial(tapped if rule.tap else wrapped, result, module, rule, parameters, original)
            stack.enter_context(replaced(module, rule.method, run))
        for module, parameters in expert_layers(student, by_rule):
            run = partial(by_expert, result, module, parameters, module.forward)
            stack.enter_context(replaced(module, "forward", run))
        for module, inside in modules_done_again(student, wanted, plan):
            run = partial(done_again, result, module, inside, module.forward)
            stack.enter_context(replaced(module, "forward", run))
        for block in repeated_blocks(student) if cut else ():
            stack.enter_context(replaced(block, "forward", partial(run_cut, result, block.forward)))
        hook = student.register_forward_pre_hook(partial(_entered, result.axes), with_kwargs=True)
        stack.callback(hook.remove)
        stack.callback(result.axes.leave)
        stack.enter_context(Trace(result.axes, wanted, result.note))
        yield result


def _entered(axes: Axes, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Mark what the model is given: one row a trajectory, whatever order it was put together in."""
    for x in tensors_in((*args, *kwargs.values())):
        axes.mark(x, Axis.LEADING if x.dim() and x.shape[0] == axes.n else Axis.COMMON)


def _rowwise_input(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
    """The input of a linear layer that is part of the graph: each of its rows makes one row of the output."""
    given = args[0] if args and isinstance(module, nn.Linear) else None
    if isinstance(given, Tensor) and given.requires_grad and given.shape[:-1] == output.shape[:-1]:
        return given
    return None


def _detached(value: Any) -> Any:
    """A tensor without its graph (its version counter is shared); anything else as it is."""
    return value.detach() if isinstance(value, Tensor) else value
