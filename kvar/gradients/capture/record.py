"""The recorded uses of parameters in one forward pass, and the cuts of its graph.

A parameter is frozen while a layer with a rule for it runs, so that no backward pass computes its gradient. A
parameter that is still in the graph was used in a way that no record describes: a bypassed layer, a functional use, a
reparametrised weight. :meth:`Capture.missed` lists these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from kvar.gradients.capture.axis import Axes, Axis, mapped, tensors_in
from kvar.gradients.capture.modules import reached_leaves
from kvar.gradients.capture.rerun import Rerun
from kvar.gradients.rules import Call, Rule, RuleFunction

__all__ = ["Capture", "Link", "Record"]


@dataclass(frozen=True)
class Record:
    """One call of a layer, or one operation, that uses wanted parameters.

    Attributes:
        time: reading of the capture's clock.
        call: the rule's argument.
        rule: turns the gradient of the output into those of the parameters.
        parameters: the rule's name of each wanted parameter -> the parameter.
        edge: the output's place in the graph, before any later operation (in place or not).
        versions: argument tensors with their version counters.
    """

    time: int
    call: Call
    rule: Rule
    parameters: dict[str, nn.Parameter]
    edge: GradientEdge
    versions: tuple[tuple[Tensor, int], ...]

    def stale(self) -> bool:
        """Whether an argument has been changed in place since the call: the rule would read wrong values."""
        return any(tensor._version != version for tensor, version in self.versions)


@dataclass(frozen=True)
class Link:
    """A cut of the graph: a tensor, and the leaf of equal value that replaces it in all later operations.

    Attributes:
        time: reading of the capture's clock.
        original: an end of the earlier piece.
        leaf: a beginning of the later piece.
    """

    time: int
    original: Tensor
    leaf: Tensor


@dataclass
class Capture:
    """The records of one forward pass over N trajectories.

    Attributes:
        n: N.
        axes: which tensors run over the trajectories.
        kinds: id of a parameter -> the ways in which it was used: "leading" or "common" for the trajectory axis of its
            layer's output, "experts", "again", or the kind of an operation.
        records: the calls, in order.
        unusable: ids of parameters whose layer's output cannot be split by trajectory.
        links: the cuts of the graph, in order.
        leaves: id of a cut tensor (kept alive by its link) -> its leaf.
        clock: counts calls and cuts.
        last_input: the input of the last recorded call, if that is a linear layer.
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
        """Record a layer's call.

        Returns:
            The output for the model to continue with: part of the graph, and repeated over the trajectories if it has
            no axis for them.
        """
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
        """Record a use of parameters by an operation; see :class:`kvar.gradients.operations.Note`."""
        if not output.requires_grad:
            output = output.detach().requires_grad_().clone()
        named = {str(k): p for k, p in enumerate(parameters)}
        for p in parameters:
            self.kinds.setdefault(id(p), set()).add(kind)
        self._append(nn.Identity(), Rule(function, tuple(named)), named, reads, {}, output)
        self.last_input = None
        return output

    def record_rerun(self, call: Rerun, output: Any) -> Any:
        """Record a call of a module that is run again for each trajectory; return the output to continue with."""
        parameters = tuple(call.parameters.values())
        floating = [x for x in tensors_in((output,)) if x.is_floating_point()]
        kept = [self.axes.of(x) is Axis.LEADING or (x.dim() > 2 and x.shape[0] == self.n) for x in floating]
        if not isinstance(output, (Tensor, tuple, list)) or not all(kept):
            self.unusable.update(id(p) for p in parameters)
            return output
        places = {id(x): place for place, x in enumerate(floating)}

        def noted(value: Tensor) -> Tensor:
            if id(value) not in places:
                return value
            made = self.note("again", parameters, call.uses(places[id(value)]), value, call.reads)
            self.axes.mark(made, Axis.LEADING)
            return made

        return mapped(output, noted)

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
        """Cut the graph at every tensor in nested tuples, lists and dicts; a tensor cut before keeps its leaf."""
        self.clock += 1

        def one(x: Tensor) -> Tensor:
            if not x.requires_grad or x.is_leaf or self.axes.roots(x):
                return x
            if id(x) not in self.leaves:
                self.leaves[id(x)] = x.detach().requires_grad_()
                self.links.append(Link(self.clock, x, self.leaves[id(x)]))
            return self.leaves[id(x)]

        return mapped(value, one)

    def missed(self, output: Tensor, wanted: Mapping[int, nn.Parameter]) -> set[int]:
        """Ids of wanted parameters that the records do not account for, wholly or in part."""
        ends = [output, *(link.original for link in self.links)]
        missing = (reached_leaves(ends) | self.unusable) & wanted.keys()
        for record in self.records:
            if record.stale():
                missing |= {id(p) for p in record.parameters.values()}
        return missing


def _rowwise_input(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
    """The input of a linear layer if it is part of the graph, each of its rows giving one row of the output."""
    given = args[0] if args and isinstance(module, nn.Linear) else None
    if isinstance(given, Tensor) and given.requires_grad and given.shape[:-1] == output.shape[:-1]:
        return given
    return None


def _detached(value: Any) -> Any:
    """A tensor without its graph (its version counter is shared); anything else as it is."""
    return value.detach() if isinstance(value, Tensor) else value
