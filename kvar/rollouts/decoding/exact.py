"""Exact decoding of models that go wrong with padding on the left, or with a cache: slower, step by step the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kvar.rollouts.decoding.stepwise import Decoding
from kvar.rollouts.forward import check_no_empty_prompt, is_encoder_decoder, pack_left, token_logits
from kvar.rollouts.policy import Policy
from kvar.rollouts.types import Rollouts

__all__ = ["DecodingByLength", "DecodingWithoutCache"]


class DecodingByLength:
    """Prompts of one length are decoded together, with the model's cache and without any padding.

    Args: as :class:`kvar.rollouts.decoding.stepwise.Decoding`, of a causal model.
    """

    def __init__(
        self,
        model: Any,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        repeats: int,
        steps: int,
        policy: Policy | None = None,
    ) -> None:
        check_no_empty_prompt(prompt_mask)
        ids, mask = pack_left(prompt_ids, prompt_mask)
        lengths = mask.sum(dim=1)
        self._groups: list[tuple[Decoding, Tensor]] = []  # with each row's place in the batch
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero()[:, 0]
            own = ids[rows, :length]
            group = Decoding(
                model, own, torch.ones_like(own, dtype=torch.bool), repeats, steps, policy, positions=False
            )
            places = (rows[:, None] * repeats + torch.arange(repeats, device=rows.device)).flatten()
            self._groups.append((group, places))
        self.by_rows = all(group.by_rows for group, _ in self._groups)
        """Whether rows can be dropped."""
        self._join()

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only, in this order; ``by_rows`` must be true."""
        kept = []
        for group, places in self._groups:
            new_places, local = (rows[:, None] == places).nonzero(as_tuple=True)
            if len(local):
                group.keep(local)
                kept.append((group, new_places))
        self._groups = kept
        self._join()

    def step(self, tokens: Tensor) -> None:
        """Append (N,) tokens and compute the ``logits`` of the next one."""
        for group, places in self._groups:
            group.step(tokens[places])
        self._join()

    def _join(self) -> None:
        logits = torch.cat([group.logits for group, _ in self._groups])
        self.logits = logits[torch.cat([places for _, places in self._groups]).argsort()]
        """(N, V) logits of the next token, over the policy's actions."""


class DecodingWithoutCache:
    """Every step runs the whole forward pass that scores responses (:func:`kvar.rollouts.token_logits`).

    Args: as :class:`kvar.rollouts.decoding.stepwise.Decoding`, of any model.
    """

    by_rows = True
    """Whether rows can be dropped."""

    def __init__(
        self,
        model: Any,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        repeats: int,
        steps: int,
        policy: Policy | None = None,
    ) -> None:
        del steps
        if not is_encoder_decoder(model):
            check_no_empty_prompt(prompt_mask)
        self.model, self.policy = model, policy
        self._ids, self._mask = (x.repeat_interleave(repeats, dim=0) for x in (prompt_ids, prompt_mask))
        self._tokens = prompt_ids.new_zeros(len(self._ids), 1)  # the last column is yet to be drawn
        self.logits = self._next()
        """(N, V) logits of the next token, over the policy's actions."""

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only, in this order."""
        self._ids, self._mask = self._ids[rows], self._mask[rows]
        self._tokens, self.logits = self._tokens[rows], self.logits[rows]

    def step(self, tokens: Tensor) -> None:
        """Append (N,) tokens and compute the ``logits`` of the next one."""
        self._tokens[:, -1] = tokens
        self._tokens = torch.nn.functional.pad(self._tokens, (0, 1))
        self.logits = self._next()

    def _next(self) -> Tensor:
        so_far = Rollouts.of_tokens(self._ids, self._mask, self._tokens, policy=self.policy)
        return token_logits(self.model, so_far)[:, -1]
