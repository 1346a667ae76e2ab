"""Output gradients of the language-model head under token weights: one array of rows, scaled by the weights.

With B^e = w^e_t (onehot(y_t) - pi_t), no array of size V is kept or multiplied for each estimator. This holds if the
logits are the head's output, or a selection of its positions (each used at most once), which :func:`scaled_rows` tests
by back-propagating three cotangents from the logits to the head. A linear head acts on every position alike, so that
the gradients of its inputs are scaled rows as well, and one product with its weight serves all estimators
(:func:`input_rows`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from kvar.gradients.capture.record import Capture, Record
from kvar.gradients.cotangents import Cotangents, TokenCotangents

__all__ = ["ScaledRows", "input_rows", "scaled_rows"]

_NEAR = 64
"""Most operations between the logits and the head."""


@dataclass(frozen=True)
class ScaledRows:
    """Output gradients rows * scales[e], plus those of ``more``.

    Attributes:
        rows: the output's shape.
        scales: (E, *output.shape[:-1]).
        more: a second array of rows with its scales, and so on.
    """

    rows: Tensor
    scales: Tensor
    more: ScaledRows | None = None

    def __len__(self) -> int:
        return len(self.scales)

    def __getitem__(self, e: int) -> Tensor:
        rows = self.rows * self.scales[e, ..., None].to(self.rows)
        return rows if self.more is None else rows + self.more[e]

    def parts(self) -> list[ScaledRows]:
        """Each array of rows alone."""
        rest = [] if self.more is None else self.more.parts()
        return [ScaledRows(self.rows, self.scales), *rest]

    def each(self) -> Iterator[Tensor]:
        """The E output gradients, one at a time."""
        return (self[e] for e in range(len(self)))


def scaled_rows(logits: Tensor, record: Record, cotangents: Cotangents) -> ScaledRows | None:
    """The output gradients of ``record``, if it is a head whose positions the logits select; else None."""
    if not isinstance(cotangents, TokenCotangents) or record.call.shape[-1] != logits.shape[-1]:
        return None
    (residual, weights), *exact = cotangents.parts
    edge = get_gradient_edge(logits)
    if edge.node == record.edge.node and edge.output_nr == record.edge.output_nr:
        return _chained(cotangents.parts)
    if logits.dtype in (torch.float16, torch.bfloat16):
        return None

    def pull(cotangent: Tensor) -> Tensor | None:
        return torch.autograd.grad(
            logits, [record.edge], cotangent.to(logits.dtype), retain_graph=True, allow_unused=True
        )[0]

    n, t, _ = logits.shape
    places = torch.arange(1, n * t + 1, device=logits.device).view(n, t)
    test = torch.rand(n, t, generator=torch.Generator().manual_seed(0)).to(residual) + 0.5
    where = pull(places[..., None].to(logits.dtype).expand_as(logits)) if n * t < 2**24 else None
    if where is None:
        return None
    code = where[..., 0].round().long()
    del where
    if bool((code < 0).any()) or bool((code > n * t).any()):
        return None

    def moved(values: Tensor) -> Tensor:
        return torch.cat([values.new_zeros(1), values.reshape(-1)])[code]

    rows, tested = pull(residual), pull(residual * test[..., None])
    if rows is None or tested is None or not torch.allclose(tested, rows * moved(test)[..., None], rtol=1e-5, atol=0):
        return None
    pulled = [(rows, weights), *((pull(flow), scales) for flow, scales in exact)]
    return _chained([(r, torch.stack([moved(w) for w in s])) for r, s in pulled if r is not None])


def _chained(parts: Sequence[tuple[Tensor, Tensor]]) -> ScaledRows:
    (rows, scales), *rest = parts
    return ScaledRows(rows, scales, _chained(rest) if rest else None)


def input_rows(captured: Capture, logits: Tensor, head: ScaledRows, records: Sequence[Record]) -> ScaledRows | None:
    """The gradients of the head's inputs, ``captured.last_input``; None if they are not scaled rows.

    Args:
        captured: the forward pass.
        logits: its result.
        head: the output gradients of the last record.
        records: all records.
    """
    source, last = captured.last_input, records[-1]
    others = {record.edge.node for record in records[:-1]} | {get_gradient_edge(k.leaf).node for k in captured.links}
    if source is None or not _only_through(logits, last.edge.node, others):
        return None
    parts = head.parts()
    seeds = [part.rows.to(source.dtype) for part in parts]
    pulled = [torch.autograd.grad([last.edge], [source], [s], retain_graph=True, allow_unused=True)[0] for s in seeds]
    if any(rows is None for rows in pulled):
        return None
    return _chained([(rows, part.scales) for rows, part in zip(pulled, parts, strict=True)])


def _only_through(logits: Tensor, head: torch.autograd.graph.Node, others: set[torch.autograd.graph.Node]) -> bool:
    """Whether every path of the graph from the logits to other recorded outputs passes through the head."""
    seen: set[torch.autograd.graph.Node] = {head}
    stack = [get_gradient_edge(logits).node]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        if node in others or len(seen) > _NEAR:
            return False
        seen.add(node)
        stack.extend(parent for parent, _ in node.next_functions if parent is not None)
    return True
