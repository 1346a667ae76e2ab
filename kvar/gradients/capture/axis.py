"""Tracks which tensors of a forward pass run over trajectories, operation by operation.

A tensor is

- *leading* if its first axis runs over the N trajectories (or over trajectories times something, trajectory by
  trajectory);
- *scattered* if it holds rows of trajectories in an order that depends on the data (tokens gathered for an expert);
- *elsewhere* if another axis, or none, runs over the trajectories (a sum over the batch);
- *common* if it is the same for every trajectory (positions, position biases).

Each operation marks its results (:meth:`Axes.follow`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import count
from typing import Any
from weakref import ReferenceType, ref

from torch import Tensor, nn

__all__ = ["Axes", "Axis", "mapped", "tensors_in"]


class Axis(Enum):
    """How a tensor holds the trajectories."""

    COMMON = 0
    LEADING = 1
    SCATTERED = 2
    ELSEWHERE = 3


@dataclass(frozen=True)
class _Mark:
    run: int
    axis: Axis
    roots: tuple[nn.Parameter, ...]


_runs = count()


class Axes:
    """The marks of one forward pass over N trajectories.

    Args:
        n: N.
        constants: ids of tensors known to be common (parameters and buffers).
    """

    def __init__(self, n: int, constants: Iterable[int] = ()) -> None:
        self.n = n
        self.run = next(_runs)
        self.constants = frozenset(constants)
        self._outside: list[ReferenceType[Tensor]] = []

    def of(self, x: Tensor) -> Axis:
        """How ``x`` holds the trajectories; an unmarked tensor is judged by the length of its first axis."""
        mark = getattr(x, "_kvar_mark", None)
        if mark is not None and mark.run == self.run:
            return mark.axis
        if id(x) in self.constants:
            return Axis.COMMON
        return Axis.LEADING if x.dim() > 0 and x.shape[0] == self.n else Axis.COMMON

    def roots(self, x: Tensor) -> tuple[nn.Parameter, ...]:
        """The parameters that ``x``, common to all trajectories, was computed from."""
        mark = getattr(x, "_kvar_mark", None)
        return mark.roots if mark is not None and mark.run == self.run else ()

    def mark(self, x: Tensor, axis: Axis, roots: tuple[nn.Parameter, ...] = ()) -> None:
        """Set how ``x`` holds the trajectories."""
        x._kvar_mark = _Mark(self.run, axis, roots)  # type: ignore[attr-defined]
        if x.grad_fn is None:
            self._outside.append(ref(x))

    def leave(self) -> None:
        """Remove the marks from tensors that may outlive the pass: its inputs, and results without a graph."""
        for weak in self._outside:
            x = weak()
            if x is not None and "_kvar_mark" in x.__dict__:
                del x._kvar_mark  # type: ignore[attr-defined]
        self._outside.clear()

    def follow(self, name: str, args: tuple[Any, ...], given: list[Tensor], out: Any) -> None:
        """Mark the result of an operation.

        Args:
            name: the operation's name.
            args: its positional arguments.
            given: the tensors among all its arguments.
            out: its result.
        """
        into = args[0] if name == "__setitem__" and args and isinstance(args[0], Tensor) else None
        for made in [into] if into is not None else tensors_in((out,)):
            if id(made) not in self.constants:
                self.mark(made, self._made(name, args, given, made))

    def _made(self, name: str, args: tuple[Any, ...], given: list[Tensor], made: Tensor) -> Axis:
        kinds = [(x, self.of(x)) for x in given]
        if all(axis is Axis.COMMON for _, axis in kinds):
            repeated = name in _REPEATS and self.n > 1 and made.dim() > 1 and made.shape[0] == self.n
            first = given[0].shape[0] if given and given[0].dim() == made.dim() > 0 else 1
            return Axis.LEADING if repeated and first == 1 else Axis.COMMON
        divisible = made.dim() > 0 and made.shape[0] % self.n == 0
        if name in _IN_PLACE and given and self.of(given[0]) is not Axis.SCATTERED and divisible:
            return Axis.LEADING
        if _reorders(name, args, self):
            return Axis.SCATTERED
        ours = [(x, axis) for x, axis in kinds if axis is not Axis.COMMON]
        ours = [(x, axis) for x, axis in ours if x.is_floating_point()] or ours  # not masks and ids
        rows = [axis for x, axis in ours if x.shape[:1] == made.shape[:1]] or [axis for _, axis in ours]
        if Axis.SCATTERED in rows:
            return Axis.SCATTERED
        return Axis.LEADING if divisible else Axis.ELSEWHERE


_IN_PLACE = frozenset({"__setitem__", "index_add_", "index_put_", "scatter_", "scatter_add_", "copy_", "index_copy_"})
_REPEATS = frozenset({"expand", "repeat", "broadcast_to"})
_ALONG = frozenset({"index_select", "gather", "take_along_dim", "sort", "argsort", "index_add"})
_ANYWHERE = frozenset({"nonzero", "masked_select", "take", "unique", "argwhere"})


def _reorders(name: str, args: tuple[Any, ...], axes: Axes) -> bool:
    """Whether an operation takes rows of the first axis in an order that depends on the data."""
    if name == "__getitem__":
        index = args[1]
        first = next((i for i in index if i is not None), ...) if isinstance(index, tuple) else index
        if first is ... or first is None or axes.of(args[0]) is Axis.COMMON:
            return False
        if isinstance(first, Tensor):
            return axes.of(first) is not Axis.COMMON
        return not isinstance(first, slice) or first.start not in (None, 0) or first.stop is not None
    if name == "where":
        return len(args) == 1
    if name in _ALONG and isinstance(args[0], Tensor):
        dim = next((a for a in args[1:] if isinstance(a, int) and not isinstance(a, bool)), -1)
        return dim in (0, -args[0].dim()) and axes.of(args[0]) is not Axis.COMMON
    return name in _ANYWHERE


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among some values, nested tuples and lists included."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from tensors_in(value)


def mapped(value: Any, one: Callable[[Any], Any], kind: type = Tensor) -> Any:
    """``value`` with ``one`` applied to every ``kind`` in nested tuples, lists and dicts."""
    if isinstance(value, kind):
        return one(value)
    if type(value) in (tuple, list) or hasattr(value, "_fields"):  # a named tuple
        return getattr(value, "_make", type(value))([mapped(item, one, kind) for item in value])
    if type(value) is dict:
        return {key: mapped(item, one, kind) for key, item in value.items()}
    return value
