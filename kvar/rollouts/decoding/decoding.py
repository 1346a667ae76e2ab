"""The interface of decoding a batch of responses, and the loop over tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kvar.rollouts.policy import Policy

__all__ = ["Decoding", "decode"]


class Decoding(ABC):
    """N = M R responses, decoded token by token.

    Args:
        model: seq2seq or causal transformers model, in eval mode, under ``torch.no_grad``.
        prompt_ids: (M, S) int64.
        prompt_mask: (M, S) bool.
        repeats: R responses to each prompt.
        steps: most tokens of a response.
        policy: the action set; None for all tokens, none forced.

    Attributes:
        logits: (N, V) of the next token, over the policy's actions.
        by_rows: whether rows can be dropped.

    Raises:
        ValueError: an empty prompt for a causal model.
    """

    logits: Tensor
    by_rows: bool = True

    def __init__(
        self,
        model: Any,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        repeats: int,
        steps: int,
        policy: Policy | None = None,
    ) -> None:
        self.model, self.repeats, self.steps, self.policy = model, repeats, steps, policy
        self._begin(prompt_ids, prompt_mask)

    @abstractmethod
    def _begin(self, prompt_ids: Tensor, prompt_mask: Tensor) -> None:
        """Read the prompts and compute the first ``logits``."""

    @abstractmethod
    def keep(self, rows: Tensor) -> None:
        """Keep these rows only, in this order; ``by_rows`` must be true."""

    @abstractmethod
    def step(self, tokens: Tensor) -> None:
        """Append (N,) tokens and compute the ``logits`` of the next one."""


def decode(
    decoding: Decoding, choose: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]], policy: Policy
) -> tuple[Tensor, Tensor]:
    """Choose tokens until every response has ended or reached the length limit.

    Rows whose response has ended leave the batch once they are a quarter of it.

    Args:
        decoding: of N responses.
        choose: (logits (n, V), the n rows' indices, their tokens so far (n, t)) -> (n,) tokens and a number for each.
        policy: names the tokens that end a response.

    Returns:
        (N, T) tokens and their numbers; both are arbitrary after a row's end.
    """
    n, device = len(decoding.logits), decoding.logits.device
    tokens = torch.zeros(n, decoding.steps, dtype=torch.long, device=device)
    numbers = torch.zeros(n, decoding.steps, device=device)
    rows = torch.arange(n, device=device)
    going = torch.ones_like(rows, dtype=torch.bool)
    for position in range(decoding.steps):
        token, number = choose(decoding.logits, rows, tokens[rows, :position])
        tokens[rows, position], numbers[rows, position] = token, number.to(numbers)
        going = going & ~policy.is_end(token)
        left = int(going.sum())
        if left == 0 or position == decoding.steps - 1:
            break
        if decoding.by_rows and 4 * left <= 3 * len(rows):
            stay = going.nonzero()[:, 0]
            decoding.keep(stay)
            rows, going, token = rows[stay], going[stay], token[stay]
        decoding.step(token)
    return tokens[:, : position + 1], numbers[:, : position + 1]
