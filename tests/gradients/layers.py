"""A causal model around one layer written by hand, and its comparison with the loop engine."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import torch
from torch import nn

from kvar.gradients.loop import loop_moments
from kvar.gradients.one_pass.engine import one_pass_moments
from tests.cases import V, rollouts
from tests.gradients.truth import assert_close, splits, weights


class Tiny(nn.Module):
    """A causal model around one layer under test: embedding, layer, head."""

    def __init__(self, layer: nn.Module, width: int = 6) -> None:
        super().__init__()
        self.config = SimpleNamespace(is_encoder_decoder=False)
        self.embed = nn.Embedding(V, width)
        self.layer = layer
        self.head = nn.Linear(width, V)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        del attention_mask, use_cache
        return SimpleNamespace(logits=self.head(self.layer(self.embed(input_ids)).tanh()))


def checked(model: nn.Module, tolerance: float = 1e-9, **options: object) -> list[str]:
    """Compare with the loop; return the warnings' texts."""
    torch.manual_seed(0)
    model = model.double().eval()
    data = rollouts(n=7)
    w, groups = weights(data), splits(model)
    truth = loop_moments(model, data, w, groups, score_power=True)
    texts: list[str] = []
    for size in (None, 3):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ours = one_pass_moments(model, data, w, groups, score_power=True, micro_batch=size)
        assert_close(ours, truth, tolerance, str(size))
        texts = [str(c.message) for c in caught if "no rule covers" in str(c.message)]
    return texts
