"""Models whose next-token logits are a table of the previous token: small enough for pencil and paper."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from kvar.rollouts import Rollouts

START, EOS, WORD = 0, 1, 2


class Table(nn.Module):
    """An encoder-decoder that looks at nothing but the previous response token; ``table[s]`` are its logits after s."""

    def __init__(self, table: Any) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.as_tensor(table, dtype=torch.float64))
        self.config = SimpleNamespace(is_encoder_decoder=True, decoder_start_token_id=START)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor, use_cache: bool) -> Any:
        return SimpleNamespace(logits=self.table[decoder_input_ids])


def written(*responses: list[int]) -> Rollouts:
    """Responses written out, one to each prompt; behaviour probability 1."""
    lengths = torch.tensor([len(row) for row in responses])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    tokens = torch.full(mask.shape, START)
    tokens[mask] = torch.tensor([token for row in responses for token in row])
    n = len(responses)
    return Rollouts(
        prompt_ids=torch.full((n, 1), WORD),
        prompt_mask=torch.ones(n, 1, dtype=torch.bool),
        tokens=tokens,
        mask=mask,
        finished=torch.tensor([row[-1] == EOS for row in responses]),
        prompt_index=torch.arange(n),
        log_probs=torch.zeros(mask.shape, dtype=torch.float64),
    )
