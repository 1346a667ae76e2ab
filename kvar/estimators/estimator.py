"""``Estimator``: reward x kernel x future x immediate x baseline x correction; theory.md (22)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kvar.estimators.baselines import BASELINES, Baseline
from kvar.estimators.corrections import Correction, SequenceRatio
from kvar.estimators.evidence import Evidence
from kvar.estimators.nearest import nearest
from kvar.estimators.rewards import Gap, LogRatio, NextTokenReward, Reward, SampledReward, Score
from kvar.returns import LLMR, Immediate, Kernel, lag_sums

__all__ = ["Estimator"]


@dataclass(frozen=True)
class Estimator:
    """One policy-gradient estimator, g = sum_t rho_t [ I_t + ( sum_{j>=1} w_j uhat_{t+j} - b_t ) s_t ], (22).

    Without a reward it is theory.md (4): the gap, sampled, with V_t left in. For one reward and kernel, sampled,
    centred and exact immediate terms and sampled or expected futures all have the same mean, (23), and differ only in
    variance. The docstrings of rewards, kernels, baselines and corrections state what that mean is the gradient of.

    Attributes:
        kernel: which later rewards count, w_j.
        baseline: b_t: None, a name ("teacher-value", which is for (4) alone, or one of ``kvar.estimators.BASELINES``),
            or a :class:`Baseline`.
        reward: u_t; None for (4).
        immediate: I_t: "sampled" u_t s_t, "centred" (u_t - ubar_t) s_t, or "exact" sum_a u(x_t, a) grad pi(a | x_t).
        future: uhat: "sampled" u, or "expected" ubar.
        correction: rho_t, for responses that another policy drew.

    Raises:
        ValueError: an unknown baseline; an exact or expected term of a reward that has none; an expected future under a
            kernel whose weights depend on the response's end; a correction that has no exact form.

    Example:
        >>> from kvar.estimators.rewards import Gap
        >>> from kvar.returns import KStep
        >>> Estimator(KStep(1), "leave-one-out", Gap(), immediate="exact", future="expected").name
        'gap K=1 exact expected - leave-one-out'
    """

    kernel: Kernel
    baseline: str | Baseline | None = None
    reward: Reward | None = None
    immediate: Literal["sampled", "centred", "exact"] = "sampled"
    future: Literal["sampled", "expected"] = "sampled"
    correction: Correction | None = None

    def __post_init__(self) -> None:
        for field, value, known in (
            ("immediate", self.immediate, ("sampled", "centred", "exact")),
            ("future", self.future, ("sampled", "expected")),
        ):
            if value not in known:
                raise ValueError(f"Estimator: {field} must be one of {', '.join(known)}; got {value!r}.")
        if isinstance(self.baseline, str):
            self._check_baseline(self.baseline)
        summed = [word for word in (self.immediate, self.future) if word != "sampled"]
        if summed and self.reward is None:
            raise ValueError(
                f"estimator {self.name!r}: {summed[0]} needs a reward's name first, for instance "
                f"'gap {self.kernel.name} {summed[0]}': without a name V_t is left in, as in (4)."
            )
        if summed and not isinstance(self.reward, NextTokenReward):
            raise ValueError(
                f"estimator {self.name!r}: {summed[0]} sums over the next token, and reward {self.reward.name!r} is "  # type: ignore[union-attr]
                "known for sampled tokens alone. Leave the word out, or use a reward such as gap or kl."
            )
        if self.future == "expected" and _looks_at_the_end(self.kernel):
            raise ValueError(
                f"estimator {self.name!r}: kernel {self.kernel.name!r} looks at where the response ends, which the "
                "token that is summed over decides, so that an expected future would have another mean than the "
                "sampled one. Use a kernel of the lag alone, such as K=4 free, or leave expected out."
            )
        if self.immediate == "exact" and self.correction is not None and not self.correction.exact:
            raise ValueError(
                f"estimator {self.name!r}: {self.correction.name} clips the advantage of a sampled token, which an "
                "exact sum has none of. Use centred in place of exact, or another correction."
            )

    @property
    def name(self) -> str:
        """The name; ``parse_estimators(e.name) == [e]`` for kvar's rewards, kernels, baselines and corrections."""
        words = [self.reward.name] if self.reward is not None else []
        if not (isinstance(self.reward, Score) and self.kernel == LLMR()):
            words.append(self.kernel.name)
        words += [word for word in (self.immediate, self.future) if word != "sampled"]
        if self.correction is not None:
            words.append(self.correction.name)
        if self.baseline is not None:
            words += ["-", self.baseline if isinstance(self.baseline, str) else self.baseline.name]
        return " ".join(words)

    @property
    def plain(self) -> bool:
        """Whether it is (4) with a baseline of ``kvar.returns.returns``, which depends on q and V only."""
        known = (None, "teacher-value", "batch-mean", "position-mean", "leave-one-out")
        return self.reward is None and self.correction is None and self.baseline in known

    @property
    def objective(self) -> str | None:
        """What its expectation is the gradient of: "J" (6), "J_kl", "score" or another sampled reward; else None.

        It takes all lags (K=1), no baseline or one that leaves the expectation unchanged, and no correction or whole
        ratios. It is None for baselines that include the row's own return and for kernels that omit part of the future.
        """
        unbiased = self.kernel == LLMR() and self.baseline in (None, "teacher-value", "leave-one-out")
        if not unbiased or not isinstance(self.correction, SequenceRatio | type(None)):
            return None
        if isinstance(self.reward, Gap | type(None)):
            return "J"
        if isinstance(self.reward, LogRatio):
            return "J_kl"
        return self.reward.name if isinstance(self.reward, SampledReward) else None

    @property
    def exact_alone(self) -> bool:
        """Whether it is a sum of exact terms only, such as "kl immediate exact": no score has a weight."""
        rest = self.baseline is None and self.correction is None
        return self.immediate == "exact" and isinstance(self.kernel, Immediate) and rest

    @property
    def subtracted(self) -> Baseline | None:
        """The baseline itself; None for none and for "teacher-value"."""
        if not isinstance(self.baseline, str):
            return self.baseline
        return BASELINES.get(self.baseline)

    def coefficients(self, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """The weight of each score s_t and of each exact term sum_a u(x_t, a) grad pi(a | x_t).

        Args:
            evidence: of N trajectories.

        Returns:
            two (N, T) float64 tensors, zero where masked; the second zero unless the immediate term is exact.

        Raises:
            ValueError: evidence that lacks the reward, score norms, behaviour probabilities or a second rollout.
        """
        mask = evidence.rollouts.mask
        weights = self._returns(evidence).masked_fill(~mask, 0.0)
        if self.subtracted is not None:
            weights = self.subtracted.advantages(weights, evidence)
        exact = mask.to(weights) if self.immediate == "exact" else torch.zeros_like(weights)
        if self.correction is not None:
            weights, factor = self.correction.corrected(weights, evidence.log_ratio(self.correction.name))
            exact = exact * factor
        return weights.masked_fill(~mask, 0.0), exact

    def _returns(self, evidence: Evidence) -> Tensor:
        """(N, T) weights of s_t in (22), before baseline and correction."""
        mask = evidence.rollouts.mask
        if self.reward is None:
            if evidence.values is None:
                raise ValueError(f"estimator {self.name!r} needs the teacher's values: gather with a teacher.")
            gap, v = evidence.values.gap.double(), evidence.values.v.double()
            later = lag_sums(-gap, mask, [self.kernel])[0]
            return later if self.baseline == "teacher-value" else later + v
        if self.exact_alone:
            return torch.zeros(mask.shape, dtype=torch.float64, device=mask.device)
        sampled = evidence.reward(self.reward.name)
        now = sampled
        if self.immediate != "sampled":
            now = sampled - evidence.reward(self.reward.name, expected=True)
        if self.immediate == "exact":
            now = torch.zeros_like(sampled)
        ahead = evidence.reward(self.reward.name, expected=self.future == "expected")
        return now + (lag_sums(ahead, mask, [self.kernel])[0] - ahead)

    def _check_baseline(self, name: str) -> None:
        if name == "teacher-value":
            if self.reward is not None:
                raise ValueError(
                    f"baseline 'teacher-value' is V_t of (4), which reward {self.reward.name!r} leaves out already: "
                    "drop one of the two."
                )
        elif name not in BASELINES:
            known = ("teacher-value", *BASELINES)
            raise ValueError(f"baseline {name!r} is unknown{nearest(name, known)}; choose one of {', '.join(known)}.")


def _looks_at_the_end(kernel: Kernel) -> bool:
    """Whether the weight at some lag depends on how many tokens follow, as the anchored comb's does."""
    lags = torch.arange(1, 257)
    return not torch.equal(kernel(lags, lags), kernel(lags, lags + 257))
