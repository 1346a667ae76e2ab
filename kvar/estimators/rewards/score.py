"""The task's own score of a whole response, paid at its last token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kvar.estimators.rewards.base import SampledReward
from kvar.rollouts.types import Rollouts

__all__ = ["Score"]


@dataclass(frozen=True)
class Score(SampledReward):
    """u_T = metric(response), 0 before: "score" is REINFORCE (Williams 1992), unbiased for the gradient of E[metric].

    Attributes:
        function: rollouts -> N numbers (list, array or tensor), one a response; None to leave it to ``gather(score=)``.
        constant: accept one score for all responses, whose gradient with a baseline is zero.
    """

    function: Callable[[Rollouts], Sequence[float] | Tensor | Any] | None = None
    constant: bool = False

    name = "score"

    def sampled(self, rollouts: Rollouts) -> Tensor:
        """(N, T) float64: the score at each response's last token.

        Raises:
            ValueError: no function, N other than the rollouts', a score that is no finite number, or one score for all.
        """
        if self.function is None:
            raise ValueError("reward 'score' has no function: pass score= to gather, a function of the rollouts.")
        given = self.function(rollouts)
        try:
            scores = torch.as_tensor(given, dtype=torch.float64, device=rollouts.tokens.device).detach()
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"score(rollouts) must give one number a response; got {type(given).__name__} ({error})."
            ) from error
        n = len(rollouts)
        if tuple(scores.shape) != (n,):
            raise ValueError(
                f"score(rollouts) must give one number for each of N = {n} responses; got shape {tuple(scores.shape)}."
            )
        bad = ~scores.isfinite()
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            raise ValueError(f"score(rollouts) is {float(scores[row])} for response {row}: every score must be finite.")
        if n > 1 and not self.constant and bool((scores == scores[0]).all()):
            raise ValueError(
                f"score(rollouts) is {float(scores[0]):g} for all {n} responses, so it has no gradient to measure: "
                "draw more responses, or give partial credit."
            )
        out = torch.zeros(rollouts.tokens.shape, dtype=torch.float64, device=scores.device)
        rows = rollouts.lengths > 0
        out[rows, rollouts.lengths[rows] - 1] = scores[rows]
        return out
