"""Backward passes of all estimators, one piece of the graph at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from kvar.gradients.capture.record import Capture
from kvar.gradients.cotangents import Cotangents
from kvar.gradients.one_pass.head_rows import ScaledRows

__all__ = ["Grads", "pulled_back"]

Grads: TypeAlias = Sequence[Tensor] | ScaledRows
"""A layer's output gradients under E estimators."""


def pulled_back(
    captured: Capture, start: Tensor, seeds: Cotangents, head: ScaledRows | None, *, keep: bool
) -> Iterator[tuple[int, Grads | None]]:
    """Yield the output gradients of every recorded call, the last call first, as soon as they are complete.

    Pieces are differentiated in reverse order: a leaf's gradient is complete after all later pieces, and seeds the
    piece that ends at the tensor it replaced. Each piece is differentiated for all estimators before the next one, so
    that output gradients are held for one piece at a time.

    Args:
        captured: the forward pass.
        start: the logits or the head's input.
        seeds: E gradients with respect to ``start``.
        head: the output gradients of the last call, if known.
        keep: keep the capture; otherwise it is emptied, and the graph is released piece by piece.

    Yields:
        A record's position and its gradients, None if no estimator reaches it.
    """
    edges = [record.edge for record in captured.records]
    times, shapes = [r.time for r in captured.records], [r.call.shape for r in captured.records]
    links, e = list(captured.links), len(seeds)
    pieces: list[tuple[int, list[int]]] = [(captured.clock + 1, [])]
    for time, group in groupby(reversed(range(len(links))), key=lambda j: links[j].time):
        pieces.append((time, list(group)))
    if not keep:
        captured.records.clear()
        captured.links.clear()
        captured.leaves.clear()
        captured.last_input = None
    complete: dict[int, list[Tensor | None]] = {}
    open_leaves: dict[int, list[Tensor | None]] = {}
    remaining = len(edges)
    if head is not None:
        remaining -= 1
        edges.pop()
        yield remaining, head
    for position, (time, numbers) in enumerate(pieces):
        ks = [k for k in range(remaining) if times[k] < time]
        js = [j for j in range(len(links)) if links[j].time < time]
        inputs = [*(edges[k] for k in ks), *(get_gradient_edge(links[j].leaf) for j in js)]
        ends = [start] if position == 0 else [links[j].original for j in numbers]
        incoming = [open_leaves.pop(j, None) for j in numbers]
        for f in range(e) if inputs else ():
            into = [seeds[f]] if position == 0 else [None if grads is None else grads[f] for grads in incoming]
            reached = [(end, seed) for end, seed in zip(ends, into, strict=True) if seed is not None]
            if not reached:
                continue
            grads = torch.autograd.grad(
                [end for end, _ in reached], inputs, [seed for _, seed in reached], retain_graph=True, allow_unused=True
            )
            for where, key, grad in zip([complete] * len(ks) + [open_leaves] * len(js), ks + js, grads, strict=True):
                if grad is not None:
                    column = where.setdefault(key, [None] * e)
                    before = column[f]
                    column[f] = grad if before is None else before + grad
        del links[len(links) - len(numbers) :], ends, incoming, inputs
        until = pieces[position + 1][0] if position + 1 < len(pieces) else 0
        while remaining and times[remaining - 1] > until:
            remaining -= 1
            edges.pop()
            yield remaining, _filled(complete.pop(remaining, None), shapes[remaining])


def _filled(grads: list[Tensor | None] | None, shape: tuple[int, ...]) -> list[Tensor] | None:
    """The estimators' output gradients, zeros where an estimator does not reach the layer."""
    if grads is None:
        return None
    like = next(grad for grad in grads if grad is not None)
    return [like.new_zeros(shape) if grad is None else grad for grad in grads]
