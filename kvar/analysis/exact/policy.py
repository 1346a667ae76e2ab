"""A tabular policy as a torch module that the gradient engines take."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from kvar.analysis.exact.tree import PrefixTree

__all__ = ["TablePolicy"]


class TablePolicy(nn.Module):
    """Logits looked up in a table, by state; float64.

    The state is the prompt and all earlier tokens ("prefix"), or the last token alone ("last-token": one row is then
    visited several times in a response and shared by all prompts, as a network's parameters are).

    Args:
        tree: vocabulary and horizon.
        prompts: M, the number of prompts; token m (the first input) is prompt m.
        state: "prefix" or "last-token".
        scale: standard deviation of the random logits.
        generator: the random source.
    """

    def __init__(self, tree: PrefixTree, prompts: int, state: str, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        if state not in ("prefix", "last-token"):
            raise ValueError(f"state must be 'prefix' or 'last-token'; got {state!r}.")
        self.tree, self.prompts, self.state = tree, prompts, state
        rows = prompts * int(tree.offsets[-1]) if state == "prefix" else tree.vocabulary
        logits = torch.randn(rows, tree.vocabulary, dtype=torch.float64, generator=generator)
        self.table = nn.Embedding.from_pretrained(scale * logits, freeze=False)
        self.config = SimpleNamespace(
            is_encoder_decoder=False,
            vocab_size=tree.vocabulary,
            eos_token_id=tree.eos,
            pad_token_id=0,
            bos_token_id=None,
        )

    def rows(self, prompt: Tensor, tokens: Tensor) -> Tensor:
        """(N, L) table row that scores each token: prompt (N,), tokens (N, L), L at most the horizon."""
        if self.state == "prefix":
            return prompt[:, None] * int(self.tree.offsets[-1]) + self.tree.prefix_ids(tokens)
        start = torch.full_like(tokens[:, :1], self.tree.eos)  # before the first token: the row that EOS never uses
        return torch.cat([start, tokens[:, :-1]], dim=1).clamp(min=0, max=self.tree.eos)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **unused: Any) -> SimpleNamespace:
        """Logits (N, 1 + L, V) for inputs (N, 1 + L): a prompt token, then response tokens."""
        del attention_mask, unused
        prompt = input_ids[:, 0].clamp(max=self.prompts - 1)
        # the logits behind the last input score a token that is not there yet: any token stands for it
        tokens = torch.nn.functional.pad(input_ids[:, 1:], (0, 1))
        within = tokens[:, : self.tree.horizon]
        logits = self.table(self.rows(prompt, within))
        beyond = tokens.shape[1] - within.shape[1]
        return SimpleNamespace(logits=torch.nn.functional.pad(logits, (0, 0, 0, beyond)))
