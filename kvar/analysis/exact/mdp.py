"""The enumerable token MDP: a random teacher, a random tabular student, exact sums over all responses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from kvar.analysis.exact.estimators import enumerated
from kvar.analysis.exact.moments import ExactMoments, row_gradients, table_mean, table_sq_norm
from kvar.analysis.exact.policy import TablePolicy
from kvar.analysis.exact.tree import PrefixTree
from kvar.estimators import Estimator
from kvar.returns import LLMR, Kernel, Thinning, TokenValues, returns
from kvar.rollouts import Rollouts

__all__ = ["TokenMDP"]


class TokenMDP:
    """Prompts, a random teacher table over (prompt, prefix) and a random tabular policy; theory.md, section 6.

    Tokens are 0..V-1, the last is end-of-sequence; a response of ``horizon`` tokens without it is cut ("unfinished").
    Prompts are drawn uniformly; prompt m is the single prompt token m.

    Args:
        vocabulary: V, 2 or more (3 to 6 keep the enumeration small).
        horizon: H, 1 or more (3 to 8).
        seed: of the random tables.
        prompts: M, 1 or more.
        state: what the student's table is indexed by: "prefix" (prompt and all earlier tokens), or "last-token", one
            table shared by positions and prompts.
        teacher_scale: standard deviation of the teacher's logits.
        policy_scale: standard deviation of the student's logits.

    Raises:
        ValueError: a size below its minimum, or more than 20 million responses.

    Example:
        >>> mdp = TokenMDP(vocabulary=3, horizon=4, seed=0)
        >>> len(mdp.probabilities), float(mdp.probabilities.sum().round(decimals=12))
        (31, 1.0)
        >>> from kvar.returns import KStep
        >>> exact = mdp.exact(KStep(2))
        >>> abs(exact.within + exact.between - exact.trace) < 1e-12
        True
    """

    def __init__(
        self,
        vocabulary: int,
        horizon: int,
        seed: int = 0,
        prompts: int = 1,
        state: str = "prefix",
        teacher_scale: float = 1.0,
        policy_scale: float = 1.0,
    ) -> None:
        for name, value, least in (("vocabulary", vocabulary, 2), ("horizon", horizon, 1), ("prompts", prompts, 1)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"TokenMDP: {name} must be an integer of at least {least}; got {value!r}.")
        if prompts * (vocabulary - 1) ** horizon > 20_000_000:
            raise ValueError(
                f"TokenMDP: vocabulary={vocabulary}, horizon={horizon}, prompts={prompts} has too many responses to "
                "enumerate: choose a smaller horizon."
            )
        generator = torch.Generator().manual_seed(seed)
        self.tree = PrefixTree(vocabulary, horizon)
        self.prompts = prompts
        states = prompts * int(self.tree.offsets[-1])
        self.teacher = teacher_scale * torch.randn(states, vocabulary, dtype=torch.float64, generator=generator)
        self.student = TablePolicy(self.tree, prompts, state, policy_scale, generator)

    def sample(self, n: int, seed: int) -> tuple[Rollouts, TokenValues]:
        """Draw prompts uniformly and a response to each, independently.

        Args:
            n: N, how many.
            seed: of the draws.

        Returns:
            Rollouts (S = 1, T = horizon, ``prompt_index`` the prompt's identity) and the teacher's values.
        """
        generator = torch.Generator().manual_seed(seed)
        prompt = torch.randint(self.prompts, (n,), generator=generator)
        tokens = torch.zeros(n, self.tree.horizon, dtype=torch.long)
        mask = torch.zeros(n, self.tree.horizon, dtype=torch.bool)
        alive = torch.ones(n, dtype=torch.bool)
        policy = self.policy
        for t in range(self.tree.horizon):
            rows = self.student.rows(prompt, tokens)[:, t]
            drawn = torch.multinomial(policy[rows], 1, generator=generator)[:, 0]
            tokens[:, t] = torch.where(alive, drawn, tokens[:, t])
            mask[:, t] = alive
            alive = alive & (drawn != self.tree.eos)
        return self._rollouts(prompt, tokens, mask, ~alive)

    @property
    def teacher_model(self) -> TablePolicy:
        """The teacher's table as a torch module, for whatever takes a teacher."""
        model = TablePolicy(self.tree, self.prompts, "prefix", 1.0, torch.Generator())
        with torch.no_grad():
            model.table.weight.copy_(self.teacher)
        return model

    @property
    def policy(self) -> Tensor:
        """(S, V), the student's probabilities, row by row of its table."""
        return self.student.table.weight.detach().softmax(dim=1)

    @cached_property
    def _all(self) -> tuple[Rollouts, TokenValues]:
        tokens, mask, finished = self.tree.responses()
        m, r = self.prompts, len(tokens)
        prompt = torch.arange(m).repeat_interleave(r)
        return self._rollouts(prompt, tokens.repeat(m, 1), mask.repeat(m, 1), finished.repeat(m))

    def responses(self) -> tuple[Rollouts, TokenValues]:
        """Every (prompt, response), each once, in the order of ``probabilities``."""
        return self._all

    @property
    def probabilities(self) -> Tensor:
        """Probability of each of :meth:`responses`, the uniform choice of the prompt included; sums to 1."""
        rollouts = self._all[0]
        return self._log_probs(rollouts).sum(dim=1).exp() / self.prompts

    def gradients(self, kernel: Kernel, baseline: str | Callable[[Tensor, Tensor], Tensor] | None = None) -> Tensor:
        """(R, P), the estimate g, (5), of each of :meth:`responses`; dense, so for small MDPs only."""
        rollouts, _ = self._all
        return row_gradients(self._returns(kernel, baseline), self.table_rows(rollouts), rollouts.tokens, self.policy)

    def exact(
        self,
        kernel: Kernel | Estimator,
        baseline: str | Callable[[Tensor, Tensor], Tensor] | None = None,
        *,
        rollouts_per_prompt: int = 2,
        behaviour: Tensor | None = None,
    ) -> ExactMoments:
        """Moments of g under a kernel or an estimator, summed over all responses.

        Args:
            kernel: the lag kernel, (4); or an estimator of (22). Its bias is told against all lags of its own reward,
                sampled, on-policy, without a baseline.
            baseline: None, "teacher-value", or a callable as :func:`kvar.returns.returns` takes, which must treat each
                row by itself. An estimator has its own.
            rollouts_per_prompt: R, for estimators with a baseline formed from other rollouts: moments of one
                trajectory's g in all batches of R responses to one prompt.
            behaviour: for an estimator: (S, V) logits of the policy that draws, where it is not the student.

        Returns:
            The moments.

        Raises:
            ValueError: a kernel with a baseline formed from a batch of rollouts, which has no value for a single
                response; an estimator with too many batches to enumerate.
        """
        if isinstance(kernel, Estimator):
            if baseline is not None:
                raise ValueError(
                    f"baseline={baseline!r} beside estimator {kernel.name!r}, which has its own: leave one."
                )
            return enumerated(self, kernel, rollouts_per_prompt=rollouts_per_prompt, behaviour=behaviour)
        if isinstance(kernel, Thinning):
            if callable(baseline):
                raise ValueError(f"kernel {kernel.name!r} is random: give its baseline by name.")
            return enumerated(self, Estimator(kernel, baseline))
        rollouts, _ = self._all
        weights, probability = self._returns(kernel, baseline), self.probabilities
        rows, policy = self.table_rows(rollouts), self.policy
        second = float((probability * table_sq_norm(weights, rows, rollouts.tokens, policy)).sum())
        of_prompt = [rollouts.prompt_index == m for m in range(self.prompts)]
        expected, tokens = weights * probability[:, None], rollouts.tokens
        means = [table_mean(expected[i], rows[i], tokens[i], policy).flatten() for i in of_prompt]  # E[g | x = m] / M
        ideal = table_mean(self._returns(LLMR(), None) * probability[:, None], rows, tokens, policy)
        return ExactMoments.of_prompts(torch.stack(means), second, ideal.flatten())

    def _returns(self, kernel: Kernel, baseline: str | Callable[[Tensor, Tensor], Tensor] | None) -> Tensor:
        if isinstance(baseline, str) and baseline != "teacher-value":
            raise ValueError(
                f"baseline={baseline!r} depends on a batch of rollouts: exact sums take None, 'teacher-value' or a "
                "callable that treats each row by itself."
            )
        rollouts, values = self._all
        return returns(values, rollouts.mask, [kernel], baseline=baseline)[0]

    def table_rows(self, rollouts: Rollouts) -> Tensor:
        """(N, T), the row of the student's table that scores each token."""
        return self.student.rows(rollouts.prompt_index, rollouts.tokens)

    def _log_probs(self, rollouts: Rollouts) -> Tensor:
        chosen = self.policy.log()[self.table_rows(rollouts), rollouts.tokens]
        return chosen.masked_fill(~rollouts.mask, 0.0)

    def _rollouts(self, prompt: Tensor, tokens: Tensor, mask: Tensor, finished: Tensor) -> tuple[Rollouts, TokenValues]:
        logits = self.teacher[prompt[:, None] * int(self.tree.offsets[-1]) + self.tree.prefix_ids(tokens)]
        q = logits.gather(2, tokens[..., None])[..., 0] - logits.mean(dim=2)
        v = logits.amax(dim=2) - logits.mean(dim=2)
        values = TokenValues(q=q.masked_fill(~mask, 0.0), v=v.masked_fill(~mask, 0.0))
        rollouts = Rollouts(
            prompt_ids=prompt[:, None],
            prompt_mask=torch.ones(len(prompt), 1, dtype=torch.bool),
            tokens=tokens,
            mask=mask,
            finished=finished,
            prompt_index=prompt,
            log_probs=torch.zeros(tokens.shape, dtype=torch.float64),
        )
        return replace(rollouts, log_probs=self._log_probs(rollouts)), values
