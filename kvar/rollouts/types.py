"""The :class:`Rollouts` record: prompts, sampled responses and where each came from."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from kvar.returns.masks import check_mask

__all__ = ["Rollouts"]


@dataclass(frozen=True)
class Rollouts:
    """N sampled responses with their prompts.

    Attributes:
        prompt_ids: (N, S) int64, prompts repeated once per response; padding anywhere that ``prompt_mask`` marks.
        prompt_mask: (N, S) bool, true on prompt tokens.
        tokens: (N, T) int64, the response tokens, the end-of-sequence token included; right-padded.
        mask: (N, T) bool, true on response tokens.
        finished: (N,) bool, true where the response ends with end-of-sequence, false where the length limit cut it.
        prompt_index: (N,) int64, which prompt each response belongs to.
        log_probs: (N, T) float, log-probability of each token under the *behaviour* policy that drew it
            (after temperature and top-k), zero where masked.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    tokens: Tensor
    mask: Tensor
    finished: Tensor
    prompt_index: Tensor
    log_probs: Tensor

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

    def __len__(self) -> int:
        """N, the number of responses."""
        return int(self.tokens.shape[0])

    @property
    def lengths(self) -> Tensor:
        """(N,) int64: response tokens, end-of-sequence included."""
        return self.mask.sum(dim=1)

    def __getitem__(self, rows: slice | Tensor | list[int]) -> Rollouts:
        """The rollouts of some rows, in that order (shapes keep S and T)."""
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def to(self, device: torch.device | str) -> Rollouts:
        """The same rollouts on ``device``."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})
