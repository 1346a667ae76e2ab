"""Floating-point operations, weights and held activations of a T5, from its sizes alone: no weights, no hub.

Counted by torch's ``FlopCounterMode`` and ``saved_tensors_hooks`` on meta tensors, that is on shapes: whatever the
installed transformers computes is what is counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["FLAN_T5", "Count", "Sizes", "count", "parameters"]


@dataclass(frozen=True)
class Sizes:
    """A T5's sizes, as its config names them."""

    d_model: int
    d_kv: int
    num_heads: int
    d_ff: int
    num_layers: int
    num_decoder_layers: int
    vocab_size: int = 32128
    gated: bool = False
    tied: bool = True

    @property
    def text(self) -> str:
        """One word for a table: d_model/d_kv/num_heads/d_ff/num_layers/num_decoder_layers/vocab_size."""
        numbers = (self.d_model, self.d_kv, self.num_heads, self.d_ff, self.num_layers, self.num_decoder_layers)
        return "/".join(map(str, (*numbers, self.vocab_size)))

    @classmethod
    def read(cls, text: str) -> Sizes:
        """Sizes from their word.

        >>> Sizes.read("64/32/2/128/1/1/4000").d_ff
        128
        """
        return cls(*map(int, text.split("/")))


# google/flan-t5-{small,base,large,xl}, config.json: T5 1.1's gated-gelu and a head of its own (Raffel et al. 2020;
# Chung et al. 2022). The parameter counts that follow are those of the released models, which the tests check.
FLAN_T5 = {
    "small": Sizes(512, 64, 6, 1024, 8, 8, gated=True, tied=False),
    "base": Sizes(768, 64, 12, 2048, 12, 12, gated=True, tied=False),
    "large": Sizes(1024, 64, 16, 2816, 24, 24, gated=True, tied=False),
    "xl": Sizes(2048, 64, 32, 5120, 24, 24, gated=True, tied=False),
}


@dataclass(frozen=True)
class Count:
    """Of one sequence.

    Attributes:
        encoder: operations (a multiply-add is two) of the encoder's forward pass.
        decoder: those of the decoder and the head, over all response tokens at once. Decoding token by token with a
            cache multiplies the same matrices.
        saved: bytes that a float32 forward pass keeps for its backward pass, weights left out.
    """

    encoder: float
    decoder: float
    saved: float

    @property
    def forward(self) -> float:
        """Operations of a forward pass; a backward pass has twice as many."""
        return self.encoder + self.decoder


def _model(sizes: Sizes) -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=sizes.vocab_size, d_model=sizes.d_model, d_kv=sizes.d_kv, num_heads=sizes.num_heads,
        d_ff=sizes.d_ff, num_layers=sizes.num_layers, num_decoder_layers=sizes.num_decoder_layers,
        feed_forward_proj="gated-gelu" if sizes.gated else "relu", dropout_rate=0.0,
    )  # fmt: skip
    with torch.device("meta"):
        return T5ForConditionalGeneration(config)


@cache
def parameters(sizes: Sizes) -> int:
    """Weights of a model."""
    own_head = 0 if sizes.tied else sizes.vocab_size * sizes.d_model
    return sum(parameter.numel() for parameter in _model(sizes).parameters()) + own_head


@cache
def count(sizes: Sizes, source: int, target: int) -> Count:
    """Count one sequence of ``source`` prompt and ``target`` response tokens.

    Layers of one stack cost the same, so two shallow models are counted and the rest is multiplied.
    """
    one, two = _shallow(sizes, 1, source, target), _shallow(sizes, 2, source, target)
    deep = (sizes.num_layers, sizes.num_decoder_layers)
    encoder = one[0] + (two[0] - one[0]) * (deep[0] - 1)
    decoder = one[1] + (two[1] - one[1]) * (deep[1] - 1)
    saved = one[2] + (two[2] - one[2]) * (deep[0] - 1) + (two[3] - one[3]) * (deep[1] - 1) + one[3]
    return Count(encoder, decoder, saved)


def _shallow(sizes: Sizes, depth: int, source: int, target: int) -> tuple[float, float, float, float]:
    """Operations and saved bytes of the encoder and of the rest, with ``depth`` layers each."""
    model = _model(replace(sizes, num_layers=depth, num_decoder_layers=depth))
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: list[Any] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)  # held, so that no two share an address
        return tensor

    ids = torch.ones(1, source, dtype=torch.long, device="meta")
    answer = torch.ones(1, target, dtype=torch.long, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with FlopCounterMode(display=False) as first:
            encoded = model.encoder(input_ids=ids)
        storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in kept}
        inside = sum(size for key, size in storages.items() if key not in own)
        with FlopCounterMode(display=False) as second:
            model(encoder_outputs=encoded, decoder_input_ids=answer)
        storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in kept}
    whole = sum(size for key, size in storages.items() if key not in own)
    return float(first.get_total_flops()), float(second.get_total_flops()), float(inside), float(whole - inside)
