"""The :class:`Rollouts` record: prompts and sampled responses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from kvar.returns.masks import check_mask
from kvar.rollouts.policy import Policy

__all__ = ["Rollouts"]


@dataclass(frozen=True)
class Rollouts:
    """N sampled responses with their prompts.

    Attributes:
        prompt_ids: (N, S) int64, prompts repeated once per response; padding anywhere, see ``prompt_mask``.
        prompt_mask: (N, S) bool, true on prompt tokens.
        tokens: (N, T) int64, the response tokens, the end-of-sequence token included; right-padded.
        mask: (N, T) bool, true on response tokens.
        finished: (N,) bool, true where the response ends with end-of-sequence, false where the length limit cut it.
        prompt_index: (N,) int64, which prompt each response belongs to.
        log_probs: (N, T) float, log-probability of each token under the *behaviour* policy that drew it
            (after temperature and top-k), zero where masked.
        policy: the action set that the responses are drawn from, their ends and forced tokens; None for all tokens of
            the model.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    tokens: Tensor
    mask: Tensor
    finished: Tensor
    prompt_index: Tensor
    log_probs: Tensor
    policy: Policy | None = None

    def __post_init__(self) -> None:
        n, t = self.tokens.shape if self.tokens.dim() == 2 else (None, None)
        if n is None:
            raise ValueError(f"Rollouts.tokens must have shape (N, T); got {tuple(self.tokens.shape)}.")
        expected = {
            "prompt_ids": (n, self.prompt_ids.shape[-1]),
            "prompt_mask": (n, self.prompt_ids.shape[-1]),
            "mask": (n, t),
            "finished": (n,),
            "prompt_index": (n,),
            "log_probs": (n, t),
        }
        for name, shape in expected.items():
            got = tuple(getattr(self, name).shape)
            if got != shape:
                raise ValueError(f"Rollouts.{name} must have shape {shape} beside tokens of shape {(n, t)}; got {got}.")
        object.__setattr__(self, "mask", check_mask(self.mask, "Rollouts.mask"))
        object.__setattr__(self, "prompt_mask", self.prompt_mask.bool())
        object.__setattr__(self, "finished", self.finished.bool())

    @classmethod
    def of_tokens(
        cls,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        tokens: Tensor,
        mask: Tensor | None = None,
        *,
        prompt_index: Tensor | None = None,
        policy: Policy | None = None,
    ) -> Rollouts:
        """Rollouts of responses that were not sampled: references, given tokens; ``log_probs`` are zero.

        Args:
            prompt_ids: (N, S).
            prompt_mask: (N, S).
            tokens: (N, T).
            mask: (N, T); default all true.
            prompt_index: (N,); default 0 to N - 1.
            policy: a response with one of its ends is finished; None for no ends.
        """
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        ended = torch.zeros_like(mask) if policy is None else policy.is_end(tokens) & mask
        index = torch.arange(len(tokens), device=tokens.device) if prompt_index is None else prompt_index
        zeros = torch.zeros(tokens.shape, device=tokens.device)
        return cls(prompt_ids, prompt_mask, tokens, mask, ended.any(dim=1), index, zeros, policy)

    def __len__(self) -> int:
        """N, the number of responses."""
        return int(self.tokens.shape[0])

    @property
    def lengths(self) -> Tensor:
        """(N,) int64: response tokens, end-of-sequence included."""
        return self.mask.sum(dim=1)

    def __getitem__(self, rows: slice | Tensor | list[int]) -> Rollouts:
        """The rollouts of some rows, in that order (shapes keep S and T)."""
        return self._each(lambda tensor: tensor[rows])

    def to(self, device: torch.device | str) -> Rollouts:
        """The same rollouts on ``device``."""
        return self._each(lambda tensor: tensor.to(device))

    def until(self, length: int) -> Rollouts:
        """The first ``length`` tokens of every response (``finished`` unchanged)."""
        columns = {name: getattr(self, name)[:, :length] for name in ("tokens", "mask", "log_probs")}
        return replace(self, **columns)

    def over(self, vocabulary: int | None) -> Rollouts:
        """The same rollouts with an action set of at most ``vocabulary`` tokens; unchanged for None."""
        if vocabulary is None:
            return self
        return replace(self, policy=(self.policy or Policy()).joined(Policy(size=vocabulary)))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Rollouts:
        tensors: dict[str, Any] = {
            f.name: change(getattr(self, f.name)) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)
        }
        return replace(self, **tensors)
