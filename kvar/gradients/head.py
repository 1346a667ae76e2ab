"""The language-model head under token weights: its output gradients are one array of rows, scaled by the weights.

With B^e = w^e_t (onehot(y_t) - pi_t), nothing of size V needs to be kept or multiplied for each estimator. This holds
where the logits are the head's output, or a selection of its positions (each used at most once); which of these is the
case is found out by pulling three cotangents back from the logits to the head, and anything else is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from kvar.gradients.capture import Record
from kvar.gradients.estimators import Cotangents, TokenCotangents

__all__ = ["ScaledRows", "scaled_rows"]


@dataclass(frozen=True)
class ScaledRows:
    """Output gradients rows * scales[e].

    Attributes:
        rows: the output's shape.
        scales: (E, *output.shape[:-1]).
    """

    rows: Tensor
    scales: Tensor

    def each(self) -> Iterator[Tensor]:
        """The E output gradients, one at a time."""
        for scale in self.scales:
            yield self.rows * scale[..., None].to(self.rows)


def scaled_rows(logits: Tensor, record: Record, cotangents: Cotangents) -> ScaledRows | None:
    """The output gradients of ``record``, if it is a head whose positions the logits select; else None."""
    if not isinstance(cotangents, TokenCotangents) or record.call.shape[-1] != logits.shape[-1]:
        return None
    residual, weights = cotangents.residual, cotangents.weights
    edge = get_gradient_edge(logits)
    if edge.node == record.edge.node and edge.output_nr == record.edge.output_nr:
        return ScaledRows(residual, weights)
    if logits.dtype in (torch.float16, torch.bfloat16):
        return None

    def pull(cotangent: Tensor) -> Tensor | None:
        return torch.autograd.grad(
            logits, [record.edge], cotangent.to(logits.dtype), retain_graph=True, allow_unused=True
        )[0]

    n, t, _ = logits.shape
    rows = pull(residual)
    if rows is None:
        return None
    places = torch.arange(1, n * t + 1, device=logits.device).view(n, t)
    test = torch.rand(n, t, generator=torch.Generator().manual_seed(0)).to(residual) + 0.5
    where, tested = pull(places[..., None].to(logits.dtype).expand_as(logits)), pull(residual * test[..., None])
    if where is None or tested is None or n * t >= 2**24:
        return None
    code = where[..., 0].round().long()
    if bool((code < 0).any()) or bool((code > n * t).any()):
        return None

    def moved(values: Tensor) -> Tensor:
        return torch.cat([values.new_zeros(1), values.reshape(-1)])[code]

    if not torch.allclose(tested, rows * moved(test)[..., None], rtol=1e-5, atol=0):
        return None
    return ScaledRows(rows, torch.stack([moved(w) for w in weights]))
