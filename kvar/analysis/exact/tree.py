"""All prefixes and all responses of a token MDP, numbered."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["PrefixTree"]


@dataclass(frozen=True)
class PrefixTree:
    """Responses over ``vocabulary`` tokens, the last of which ends them, cut at ``horizon`` tokens.

    Attributes:
        vocabulary: V >= 2, the end-of-sequence token V - 1 included.
        horizon: H >= 1, the longest response.
    """

    vocabulary: int
    horizon: int

    @property
    def eos(self) -> int:
        """The token that ends a response, V - 1."""
        return self.vocabulary - 1

    @property
    def offsets(self) -> Tensor:
        """(H + 1,) number of the first prefix of every length 0..H-1, and their total."""
        sizes = torch.tensor([self.eos**length for length in range(self.horizon)])
        return torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)])

    def prefix_ids(self, tokens: Tensor) -> Tensor:
        """Number of the prefix y_<t before every token.

        Args:
            tokens: (N, L) int64, L at most H. Positions behind an end-of-sequence get some valid number.

        Returns:
            (N, L) int64, below ``offsets[-1]``.
        """
        inner = tokens.clamp(min=0, max=self.eos - 1)
        codes = torch.zeros_like(tokens)
        for t in range(1, tokens.shape[1]):
            codes[:, t] = codes[:, t - 1] * self.eos + inner[:, t - 1]
        return self.offsets.to(tokens.device)[: tokens.shape[1]] + codes

    def responses(self) -> tuple[Tensor, Tensor, Tensor]:
        """Every response: those that end, by length, then those cut at H tokens.

        Returns:
            tokens (R, H) int64, zero where masked; mask (R, H) bool; finished (R,) bool, with
            R = sum_{t<H} (V-1)^t + (V-1)^H.
        """
        levels = [torch.zeros(1, 0, dtype=torch.long)]
        for _ in range(self.horizon):
            last = levels[-1]
            new = torch.arange(self.eos).repeat(len(last))[:, None]
            levels.append(torch.cat([last.repeat_interleave(self.eos, dim=0), new], dim=1))
        ended = [torch.cat([prefix, torch.full((len(prefix), 1), self.eos)], dim=1) for prefix in levels[:-1]]
        rows = [*ended, levels[-1]]
        tokens = torch.cat([torch.nn.functional.pad(row, (0, self.horizon - row.shape[1])) for row in rows])
        lengths = torch.cat([torch.full((len(row),), row.shape[1]) for row in rows])
        finished = torch.ones(len(tokens), dtype=torch.bool)
        finished[len(tokens) - len(levels[-1]) :] = False
        return tokens, torch.arange(self.horizon) < lengths[:, None], finished
