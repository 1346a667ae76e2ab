"""Decoding with a cache: one pass over the prompts, then one over each token drawn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kvar.rollouts.decoding.decoding import Decoding
from kvar.rollouts.decoding.encoded import rows_of
from kvar.rollouts.forward import check_no_empty_prompt, decoder_prefix, is_encoder_decoder, pack_left, takes

__all__ = ["CachedDecoding"]

CACHES = ("past_key_values", "cache_params", "state", "past_buckets_states")
"""Names of the argument and output field that hold the cache, in various models."""


class CachedDecoding(Decoding):
    """Decoding with the model's cache, whose rows are repeated and dropped.

    Every prompt is read once, however many responses it gets: cache and logits are repeated after the first pass.
    Models whose cache does not allow this (recurrent states, sliding windows) read a prompt once for each response
    instead, and keep all rows. Prompts of a causal model are padded on the left, and ``position_ids`` give their
    positions; :mod:`kvar.rollouts.trial.truth` detects models for which this is wrong.

    Raises:
        ValueError: as :class:`Decoding`; the model returns no cache.
    """

    positions = True
    """Whether positions are passed to a causal model; without them all prompts must have the same length."""

    def _begin(self, prompt_ids: Tensor, prompt_mask: Tensor) -> None:
        from kvar.rollouts.decoding.cache import rows_can_be_chosen, with_room

        self.position = 0
        self.cache = next((name for name in CACHES if takes(self.model, name)), CACHES[0])
        self.inputs: dict[str, Any] = {self.cache: None, "use_cache": True}
        self.attention: Tensor | None = None  # of a causal model with padding: true to the last step
        read = self._read_seq2seq if is_encoder_decoder(self.model) else self._read_causal
        self.logits = read(prompt_ids, prompt_mask)
        self.by_rows = rows_can_be_chosen(self.inputs[self.cache])
        if self.repeats > 1 and self.by_rows:
            self.inputs[self.cache].batch_repeat_interleave(self.repeats)
            self._rows(torch.arange(len(prompt_ids), device=prompt_ids.device).repeat_interleave(self.repeats))
        elif self.repeats > 1:
            self.logits = read(*(x.repeat_interleave(self.repeats, dim=0) for x in (prompt_ids, prompt_mask)))
        if self.by_rows:
            with_room(self.inputs[self.cache], self.steps)

    def keep(self, rows: Tensor) -> None:
        """See :class:`Decoding`."""
        self.inputs[self.cache].batch_select_indices(rows)
        self._rows(rows)

    def step(self, tokens: Tensor) -> None:
        """See :class:`Decoding`."""
        if "encoder_outputs" in self.inputs:
            ids = {"decoder_input_ids": tokens[:, None]}
        else:
            ids = {"input_ids": tokens[:, None]}
            self.seen += 1
            if self.attention is not None:
                self.inputs["attention_mask"] = self.attention[:, : self.seen]
            if "position_ids" in self.inputs:
                self.inputs["position_ids"] = self.inputs["position_ids"][:, -1:] + 1
        self.position += 1
        self.logits = self._forward(**ids)

    def _forward(self, **ids: Tensor) -> Tensor:
        out = self.model(**ids, **self.inputs)
        self.inputs[self.cache] = getattr(out, self.cache, None)
        if self.inputs[self.cache] is None:
            raise ValueError(f"{type(self.model).__name__} returns no {self.cache}, so it is not decoded with a cache.")
        logits: Tensor = out.logits[:, -1]
        return logits if self.policy is None else self.policy.restricted(logits, self.position)

    def _rows(self, rows: Tensor) -> None:
        self.logits = self.logits[rows]
        for name in ("attention_mask", "position_ids"):
            if self.inputs.get(name) is not None:
                self.inputs[name] = self.inputs[name][rows]
        if self.attention is not None:
            self.attention = self.attention[rows]
        if "encoder_outputs" in self.inputs:
            batch = len(self.inputs["encoder_outputs"][0])
            self.inputs["encoder_outputs"] = rows_of(self.inputs["encoder_outputs"], rows, batch)

    def _read_seq2seq(self, prompt_ids: Tensor, prompt_mask: Tensor) -> Tensor:
        prompt_ids, prompt_mask = pack_left(prompt_ids, prompt_mask)
        attention = None if bool(prompt_mask.all()) else prompt_mask.long()
        encoded = self.model.get_encoder()(input_ids=prompt_ids, attention_mask=attention)
        self.inputs.update({"encoder_outputs": encoded, "attention_mask": attention, self.cache: None})
        return self._forward(decoder_input_ids=decoder_prefix(self.model, self.policy, prompt_ids))

    def _read_causal(self, prompt_ids: Tensor, prompt_mask: Tensor) -> Tensor:
        """Read prompts, padded on the left so that all rows end together."""
        check_no_empty_prompt(prompt_mask)
        order = torch.argsort(prompt_mask.int(), dim=1, stable=True)
        ids, mask = prompt_ids.gather(1, order), prompt_mask.gather(1, order)
        self.seen = ids.shape[1]
        self.inputs[self.cache] = None
        if not bool(mask.all()):
            self.attention = torch.cat([mask.long(), mask.new_ones(len(mask), self.steps, dtype=torch.long)], dim=1)
            self.inputs["attention_mask"] = self.attention[:, : self.seen]
        if self.positions and takes(self.model, "position_ids"):
            self.inputs["position_ids"] = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
        if takes(self.model, "logits_to_keep"):
            self.inputs["logits_to_keep"] = 1
        return self._forward(input_ids=ids)
