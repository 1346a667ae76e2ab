"""``GivenTeacher``: what a batch holds of a teacher, in place of the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from kvar.estimators.estimator import Estimator
from kvar.estimators.rewards import (
    JSD,
    ForwardKL,
    ForwardTopK,
    K1Loss,
    K2Loss,
    K3Loss,
    LogRatio,
    NextTokenReward,
    TopK,
)
from kvar.returns import TokenValues
from kvar.rollouts.rows import row_numbers
from kvar.rollouts.types import Rollouts

__all__ = ["GivenTeacher", "default_estimators"]

OF_THE_TOKEN = (LogRatio, ForwardKL, JSD, K1Loss, K2Loss, K3Loss)
"""Rewards u(x, a) that depend on p(a) and pi(a) of the one token only."""


AGREEMENT = 0.05
"""Mean difference of a token's log-probability, told twice, that rounding to bfloat16 may make."""


class GivenTeacher:
    """A teacher's values or log-probabilities, read from a batch: rollouts -> logits that are exact where it told them.

    Log-probabilities of the sampled tokens and of the K most probable ones are kept; what is left of 1 is spread evenly
    over all other tokens. :meth:`check` refuses each estimator that would read one of these.

    Args:
        rollouts: N responses.
        held: any of ``teacher_q`` and ``teacher_v`` (N, T), the values of theory.md (1); ``teacher_log_probs`` (N, T),
            log p(y_t); ``teacher_top_log_probs`` and ``teacher_top_ids`` (N, T, K).
        width: V, of the student's logits.

    Raises:
        ValueError: ids outside the vocabulary, twice, or of tokens that are not the most probable ones; probabilities
            whose sum is above 1, or that differ for one token; one of q and V without the other.
    """

    def __init__(self, rollouts: Rollouts, held: Mapping[str, Any], width: int) -> None:
        self.width, self.k = width, 0
        mask, device = rollouts.mask, rollouts.tokens.device
        known = {name: held[name].to(device) for name in held if name.startswith("teacher_")}
        if ("teacher_q" in known) != ("teacher_v" in known):
            raise ValueError(
                "teacher_q and teacher_v must be given together: q of the sampled token and V of the state."
            )
        self._tail = True
        self._default = default_estimators(held)
        self.values: TokenValues | None = None
        if "teacher_q" in known:
            q, v = known["teacher_q"].double(), known["teacher_v"].double()
            if not bool((q.isfinite() & v.isfinite())[mask].all()):
                raise ValueError("teacher_q and teacher_v must be finite at every response token.")
            self.values = TokenValues(q, v)
        self.log_probs: Tensor | None = known.get("teacher_log_probs")
        ids, log_probs = known.get("teacher_top_ids"), known.get("teacher_top_log_probs")
        if ids is not None and log_probs is not None:
            self.k = ids.shape[-1]
            self._check_top(ids.long(), log_probs, mask)
        parts = [] if ids is None or log_probs is None else [(ids.long(), log_probs.double())]
        if self.log_probs is not None:
            parts.append((rollouts.tokens[..., None], self.log_probs.double()[..., None]))
        if len(parts) == 2:
            self._check_agreement(*parts[0], *parts[1], mask)
        self._told = parts
        self._rows = row_numbers(rollouts)  # equal responses to one prompt have one teacher

    def check(self, estimators: Iterable[Estimator]) -> None:
        """Refuse estimators that need more of the teacher than is known.

        Raises:
            ValueError: names the first, what it needs and what there is.
        """
        for e in estimators:
            need = self._lacking(e)
            if need is not None:
                told = {
                    "teacher_q and teacher_v": self.values is not None,
                    "log-probabilities of the sampled tokens": self.log_probs is not None,
                    f"log-probabilities of its {self.k} best tokens": self.k > 0,
                }
                held = ", ".join(name for name, known in told.items() if known) or "nothing"
                raise ValueError(
                    f"estimator {e.name!r} needs {need}; of the teacher there is {held}. Give the teacher itself "
                    f"(teacher=, --teacher), or measure for instance {self._default!r}."
                )

    def _lacking(self, e: Estimator) -> str | None:
        if e.reward is None:
            return None if self.values is not None else "the teacher's q and V (teacher_q, teacher_v)"
        if not isinstance(e.reward, NextTokenReward):
            return None
        if isinstance(e.reward, ForwardTopK) or (isinstance(e.reward, TopK) and e.reward.by == "teacher"):
            if e.reward.k > self.k:
                return f"the teacher's {e.reward.k} best tokens"
            if isinstance(e.reward, TopK) and e.reward.tail and not self._tail:
                return "the probability of all other tokens, which rounding hides where its best ones have nearly all"
            return None
        if isinstance(e.reward, OF_THE_TOKEN):
            if e.immediate == "sampled" and e.future == "sampled":
                return None if self.log_probs is not None else "teacher_log_probs of the sampled tokens"
            return "the teacher's full logits for its sum over the next token, not those of its best tokens alone"
        return "the teacher's full logits"

    def __call__(self, some: Rollouts) -> Tensor:
        """(n, T, V) logits of some of the rollouts, exact at the tokens that are known.

        Raises:
            KeyError: rollouts that are not among the given ones.
        """
        n, t = some.tokens.shape
        device = some.tokens.device
        rows = self._rows(some).to(self._told[0][0].device)
        logits = torch.full((n, t, self.width), -torch.inf, dtype=torch.float64, device=device)
        for ids, log_probs in self._told:
            at, logs = (_fit(x[rows], t).to(device) for x in (ids, log_probs))
            logits.scatter_(-1, at, logs)
        others = logits == -torch.inf
        if some.policy is not None:  # what is no action gets no share of the rest
            kept = some.policy.restricted(torch.zeros_like(logits))
            others &= torch.nn.functional.pad(kept, (0, self.width - kept.shape[-1]), value=-torch.inf) == 0
        rest = (1 - logits.exp().sum(dim=-1, keepdim=True)).clamp_min(1e-30)
        return torch.where(others, (rest / others.sum(dim=-1, keepdim=True).clamp_min(1)).log(), logits)

    @staticmethod
    def _check_agreement(ids: Tensor, best: Tensor, tokens: Tensor, log_probs: Tensor, mask: Tensor) -> None:
        """Refuse log-probabilities of sampled tokens that differ among the K best, or are larger outside of them."""
        among = ids == tokens
        told = torch.where(among, best, -torch.inf).amax(dim=-1)
        apart = torch.where(among.any(dim=-1), (told - log_probs[..., 0]).abs(), log_probs[..., 0] - best.amin(dim=-1))
        apart = apart[mask].clamp_min(0)
        if apart.numel() and float(apart.mean()) > AGREEMENT:
            raise ValueError(
                f"teacher_log_probs and teacher_top_log_probs disagree by {float(apart.mean()):.2g} a token: they are "
                "of other rows, another teacher or another temperature. Take both from one pass of the teacher."
            )

    def _check_top(self, ids: Tensor, log_probs: Tensor, mask: Tensor) -> None:
        precision = torch.finfo(log_probs.dtype).eps
        ids, log_probs = ids[mask], log_probs[mask].double()
        if bool(((ids < 0) | (ids >= self.width)).any()):
            raise ValueError(f"teacher_top_ids holds token ids that are not among the student's {self.width}.")
        ordered = ids.sort(dim=-1).values
        if bool((ordered[:, 1:] == ordered[:, :-1]).any()):
            raise ValueError("teacher_top_ids holds a token twice at one position: give each of the K best once.")
        total = log_probs.exp().sum(dim=-1)
        if bool((total > 1.001).any()) or not bool(log_probs.isfinite().all()):
            raise ValueError(
                f"teacher_top_log_probs must be finite log-probabilities; they sum to {float(total.max()):.4g} at one "
                "position. Normalise over the whole vocabulary at temperature 1."
            )
        self._tail = bool((1 - total >= 1e3 * precision).all())
        rest = (1 - total) / max(self.width - self.k, 1)
        if bool((rest > log_probs.exp().amin(dim=-1) + 1e-3).any()):
            raise ValueError(
                "teacher_top_ids cannot be the teacher's most probable tokens: what is left of 1 would make others "
                "more probable than the least of them. Give the K best."
            )


def default_estimators(held: Mapping[str, Any]) -> str:
    """Estimators that need of a teacher only what a batch holds, see :class:`GivenTeacher`; "" for nothing."""
    if "teacher_q" in held:
        return "1, 2, 4, 8, immediate"
    if "teacher_log_probs" in held:
        return "kl 1, kl 4, kl immediate, k3-loss immediate"
    if "teacher_top_ids" not in held:
        return ""
    k = held["teacher_top_ids"].shape[-1]
    return f"forward-top-k({k}) immediate exact, teacher-top-k({k}) immediate exact"


def _fit(values: Tensor, width: int) -> Tensor:
    """(n, width, K): values cut or padded with their first column, which is at padding."""
    if values.shape[1] >= width:
        return values[:, :width]
    return torch.cat([values, values[:, :1].expand(-1, width - values.shape[1], -1)], dim=1)
