"""One forward pass that notes, for every layer with a rule, its inputs and the point of the graph where it spoke.

While a covered layer runs, its parameters do not ask for gradients. So no backward pass spends a product on them, and
a parameter that is nevertheless reached by the graph was used in some way that no rule saw: that is how a bypassed
layer, a functional use or a reparametrised weight is found out (:meth:`Capture.missed`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from kvar.gradients.rules import Call, Rule, find_rule
from kvar.gradients.surgery import frozen, parameter_named, reached_leaves, repeated_blocks, replaced

__all__ = ["Capture", "Link", "Record", "capture", "covered_layers"]


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
        expand: ids of the layers whose output has no trajectory axis and is repeated over it.
        records: the calls, in order.
        unusable: ids of parameters whose layer's output can't be split by trajectory.
        links: where the graph was cut, in order.
        leaves: id of what stood there (kept alive by its link) -> the leaf in its stead.
        clock: counts calls and cuts.
        last_input: what the last recorded call was given, where it is a linear layer: a head's gradient is pulled back
            to it once for all estimators.
    """

    n: int
    expand: frozenset[int] = frozenset()
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
        repeat = id(module) in self.expand
        if (
            not isinstance(output, Tensor)
            or not output.is_floating_point()
            or output.dim() < 2
            or (output.shape[0] != 1 if repeat else output.shape[0] % self.n != 0)
        ):
            self.unusable.update(id(p) for p in parameters.values())
            return output
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        if repeat and self.n > 1:
            output = output.expand(self.n, *output.shape[1:]).clone()
        elif output.is_leaf:
            output = output.clone()
        self.last_input = _rowwise_input(module, args, output)
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
        return output

    def cut(self, value: Any) -> Any:
        """Cut the graph at every tensor in nested tuples, lists and dicts; what is left uncut does no harm.

        A tensor cut before goes on as the same leaf, so that its gradient is pulled back once.
        """
        self.clock += 1

        def one(x: Any) -> Any:
            if isinstance(x, Tensor):
                if not x.requires_grad or x.is_leaf:
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


@contextmanager
def capture(
    student: nn.Module,
    wanted: Mapping[int, nn.Parameter],
    n: int,
    expand: frozenset[int] = frozenset(),
    *,
    cut: bool = False,
) -> Iterator[Capture]:
    """Record the covered layers' calls while the block runs a forward pass; then take every wrapper off again.

    Args:
        student: the model.
        wanted: id -> parameter.
        n: N, the trajectories of the forward pass.
        expand: see :class:`Capture`.
        cut: give every repeated block a piece of graph of its own, so that output gradients of all estimators need be
            held for one block at a time only.

    Yields:
        The capture, filled as the block runs.
    """
    result = Capture(n, expand)
    with ExitStack() as stack:
        for module, rule, parameters in covered_layers(student, wanted):
            original = getattr(module, rule.method)
            run = partial(_tapped if rule.tap else _wrapped, result, module, rule, parameters, original)
            stack.enter_context(replaced(module, rule.method, run))
        for block in repeated_blocks(student) if cut else ():
            stack.enter_context(replaced(block, "forward", partial(_cut, result, block.forward)))
        yield result


def _wrapped(
    result: Capture,
    module: nn.Module,
    rule: Rule,
    parameters: dict[str, nn.Parameter],
    original: Callable[..., Any],
    /,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Run a layer without gradients for its parameters, and record the call."""
    active = {name: p for name, p in parameters.items() if p.requires_grad}  # false inside an outer layer's own call
    if not active or not torch.is_grad_enabled():
        return original(*args, **kwargs)
    with frozen(active):
        output = original(*args, **kwargs)
    return result.record(module, rule, active, args, kwargs, output)


class _Tap(TorchFunctionMode):
    """Records ``torch.nn.functional.embedding`` where it looks up the given weight."""

    def __init__(self, weight: Tensor, record: Callable[..., Any]) -> None:
        super().__init__()
        self.weight = weight
        self.record = record

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.embedding or len(args) < 2 or args[1] is not self.weight or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        with frozen({"weight": self.weight}):
            output = func(*args, **kwargs)
        if kwargs.get("max_norm") is not None or kwargs.get("scale_grad_by_freq"):
            return func(*args, **kwargs)  # not linear in the table, or mixing trajectories: left to be missed
        return self.record((args[0],), kwargs, output)


def _tapped(
    result: Capture,
    module: nn.Module,
    rule: Rule,
    parameters: dict[str, nn.Parameter],
    original: Callable[..., Any],
    /,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Run an embedding layer, recording the look-up inside it."""
    weight = parameters["weight"]
    if not weight.requires_grad:
        return original(*args, **kwargs)

    def record(inner: tuple[Any, ...], options: dict[str, Any], output: Tensor) -> Any:
        return result.record(module, rule, parameters, inner, options, output)

    with _Tap(weight, record):
        return original(*args, **kwargs)


def _rowwise_input(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
    """The input of a linear layer that is part of the graph: each of its rows makes one row of the output."""
    given = args[0] if args and isinstance(module, nn.Linear) else None
    if isinstance(given, Tensor) and given.requires_grad and given.shape[:-1] == output.shape[:-1]:
        return given
    return None


def _detached(value: Any) -> Any:
    """A tensor without its graph (its version counter is shared); anything else as it is."""
    return value.detach() if isinstance(value, Tensor) else value


def _cut(result: Capture, original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Run a block on a piece of graph of its own."""
    if not torch.is_grad_enabled():
        return original(*args, **kwargs)
    args, kwargs = result.cut((args, kwargs))
    return result.cut(original(*args, **kwargs))
