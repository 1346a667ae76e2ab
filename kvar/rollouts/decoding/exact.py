"""Exact but slower decoding, for models that are wrong with padding on the left or with a cache."""

from __future__ import annotations

import torch
from torch import Tensor

from kvar.rollouts.decoding.cached import CachedDecoding
from kvar.rollouts.decoding.decoding import Decoding
from kvar.rollouts.forward import check_no_empty_prompt, is_encoder_decoder, pack_left, token_logits
from kvar.rollouts.types import Rollouts

__all__ = ["DecodingByLength", "DecodingWithoutCache"]


class _OneLength(CachedDecoding):
    """Prompts of one length, whose positions the model counts."""

    positions = False


class DecodingByLength(Decoding):
    """Prompts of a causal model decoded by groups of equal length, with a cache and without padding."""

    def _begin(self, prompt_ids: Tensor, prompt_mask: Tensor) -> None:
        check_no_empty_prompt(prompt_mask)
        ids, mask = pack_left(prompt_ids, prompt_mask)
        lengths = mask.sum(dim=1)
        self._groups: list[tuple[Decoding, Tensor]] = []  # each with its rows' places in the batch
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero()[:, 0]
            group = _OneLength(
                self.model, ids[rows, :length], mask[rows, :length], self.repeats, self.steps, self.policy
            )
            places = rows[:, None] * self.repeats + torch.arange(self.repeats, device=rows.device)
            self._groups.append((group, places.flatten()))
        self.by_rows = all(group.by_rows for group, _ in self._groups)
        self._join()

    def keep(self, rows: Tensor) -> None:
        """See :class:`Decoding`."""
        kept = []
        for group, places in self._groups:
            new_places, local = (rows[:, None] == places).nonzero(as_tuple=True)
            if len(local):
                group.keep(local)
                kept.append((group, new_places))
        self._groups = kept
        self._join()

    def step(self, tokens: Tensor) -> None:
        """See :class:`Decoding`."""
        for group, places in self._groups:
            group.step(tokens[places])
        self._join()

    def _join(self) -> None:
        logits = torch.cat([group.logits for group, _ in self._groups])
        self.logits = logits[torch.cat([places for _, places in self._groups]).argsort()]


class DecodingWithoutCache(Decoding):
    """Every step runs the whole forward pass that scores responses (:func:`kvar.rollouts.token_logits`)."""

    def _begin(self, prompt_ids: Tensor, prompt_mask: Tensor) -> None:
        if not is_encoder_decoder(self.model):
            check_no_empty_prompt(prompt_mask)
        self._ids, self._mask = (x.repeat_interleave(self.repeats, dim=0) for x in (prompt_ids, prompt_mask))
        self._tokens = prompt_ids.new_zeros(len(self._ids), 1)  # the last column is not yet drawn
        self.logits = self._next()

    def keep(self, rows: Tensor) -> None:
        """See :class:`Decoding`."""
        self._ids, self._mask = self._ids[rows], self._mask[rows]
        self._tokens, self.logits = self._tokens[rows], self.logits[rows]

    def step(self, tokens: Tensor) -> None:
        """See :class:`Decoding`."""
        self._tokens[:, -1] = tokens
        self._tokens = torch.nn.functional.pad(self._tokens, (0, 1))
        self.logits = self._next()

    def _next(self) -> Tensor:
        so_far = Rollouts.of_tokens(self._ids, self._mask, self._tokens, policy=self.policy)
        return token_logits(self.model, so_far)[:, -1]
