"""``gather``: what estimators need from student and teacher, a few trajectories at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kvar.estimators.estimator import Estimator
from kvar.estimators.evidence import MAX_LOGITS, Evidence
from kvar.estimators.rewards import Gap, LogRatio, NextTokenReward, Reward, SampledReward, Score
from kvar.returns import TokenValues, token_values
from kvar.returns.precision import at_least_float32
from kvar.rollouts.behaviour import OFF_POLICY
from kvar.rollouts.forward import token_logits
from kvar.rollouts.modes import check_module, eval_mode
from kvar.rollouts.policy import Policy, forbidden_by
from kvar.rollouts.score_norms import score_norms as measured_score_norms
from kvar.rollouts.sharded import given_whole, is_sharded, unwrap
from kvar.rollouts.trial.truth import check_rollouts
from kvar.rollouts.types import Rollouts

__all__ = ["gather"]

Teacher = nn.Module | Callable[[Rollouts], Tensor]


@given_whole("student")
@torch.no_grad()
def gather(
    student: nn.Module,
    teacher: Teacher | None,
    rollouts: Rollouts,
    score: Callable[[Rollouts], Any] | None = None,
    *,
    estimators: Iterable[Estimator] | None = None,
    rewards: Iterable[Reward] = (),
    centre: Literal["mean", "logsumexp", "none"] = "mean",
    value: Literal["max", "soft"] = "max",
    values: bool | None = None,
    score_norms: bool | None = None,
    micro_batch: int | None = None,
    max_logits: int = MAX_LOGITS,
) -> Evidence:
    """Rewards of the sampled tokens and their expectations over the next token, theory.md (21), block by block.

    One pass of teacher and student without gradient, in eval mode; only the logits of a few trajectories are in memory
    at a time. Exact terms run the teacher again when gradients are measured, unless its logits of all trajectories fit.

    Args:
        student: seq2seq or causal model to be measured.
        teacher: a model with the student's tokenizer, or a function: some rollouts -> their (n, T, V) logits. None
            where no reward needs one.
        rollouts: N trajectories; tokens outside their action set enter no sum.
        score: rollouts -> N scores of whole responses, for the reward ``score``.
        estimators: gather only what these need. By default the rewards ``gap`` and ``kl``, ``score`` where given.
        rewards: further rewards, for instance your own.
        centre: of the teacher's logits, as in ``kvar.returns.token_values``; only (4) with V_t left in depends on it.
        value: hard or soft V, likewise.
        values: also compute the teacher's q and V, which a teacher that gives only its best tokens does not have;
            by default unless every one of ``estimators`` names a reward.
        score_norms: measure |s_t|^2 of the output layer in one more pass of the student; by default where a baseline
            of ``estimators`` needs it.
        micro_batch: most trajectories in one pass.
        max_logits: most logits of one model in memory at a time, if one trajectory has no more.

    Returns:
        The evidence, on the rollouts' device.

    Raises:
        TypeError: the student is not a module.
        ValueError: a response token outside the action set; teacher and student of different widths; a token that the
            student may draw and whose reward is infinite, since the teacher rules it out or gives only its best tokens
            (it is named); a reward or score that is no finite number a token or response; a number below 1; a model
            that is not causal, or whose rows depend on their batch.
    """
    check_module(student)
    for name, given in (("micro_batch", micro_batch), ("max_logits", max_logits)):
        if given is not None and given < 1:
            raise ValueError(f"{name} must be at least 1; got {given}.")
    if len(rollouts) == 0:
        raise ValueError("rollouts is empty (N = 0): sample at least one response.")
    chosen = None if estimators is None else list(estimators)
    wanted = _rewards(teacher, score, chosen, rewards, value)
    if rollouts.policy is not None:
        rollouts.policy.check_tokens(rollouts.tokens, rollouts.mask)
    tables = [reward for reward in wanted.values() if isinstance(reward, NextTokenReward)]
    if tables and teacher is None:
        raise ValueError(f"reward {tables[0].name!r} needs a teacher: pass one to gather.")
    sampled = {
        name: reward.sampled(rollouts).masked_fill(~rollouts.mask, 0.0)
        for name, reward in wanted.items()
        if isinstance(reward, SampledReward)
    }
    if is_sharded(teacher):
        raise ValueError(
            "teacher is sharded, and exact terms ask it again later: call gather and what uses its evidence inside "
            "'with kvar.rollouts.whole(teacher) as teacher:'."
        )
    teacher = unwrap(teacher, "teacher") if isinstance(teacher, nn.Module) else teacher
    asked = _asked(teacher)
    if isinstance(teacher, nn.Module):
        check_rollouts(teacher, rollouts)
    with eval_mode(student, teacher):
        if values is None:
            values = chosen is None or any(estimator.reward is None for estimator in chosen)  # V_t is left in
        blocks = _Blocks(student, asked, rollouts, tables, (centre, value) if values and teacher is not None else None)
        for start, stop in blocks.slices(micro_batch, max_logits):
            blocks.add(rollouts[start:stop])
    joined = blocks.joined()
    _warn_off_policy(rollouts, joined["log_probs"], chosen)
    if score_norms is None:
        score_norms = any(e.subtracted is not None and e.subtracted.score_norms for e in chosen or ())
    norms = measured_score_norms(student, rollouts.to(blocks.device)).double() if score_norms else None
    return Evidence(
        rollouts=rollouts,
        rewards=wanted,
        sampled=sampled | {reward.name: joined[f"sampled {reward.name}"] for reward in tables},
        expected={reward.name: joined[f"expected {reward.name}"] for reward in tables},
        log_probs=joined["log_probs"],
        logit_power=joined["logit_power"],
        values=TokenValues(joined["q"], joined["v"]) if "q" in joined else None,
        score_norms=None if norms is None else norms.to(rollouts.tokens.device),
        teacher_logits=asked,
    )


def _rewards(
    teacher: Teacher | None,
    score: Callable[[Rollouts], Any] | None,
    estimators: Sequence[Estimator] | None,
    more: Iterable[Reward],
    value: Literal["max", "soft"],
) -> dict[str, Reward]:
    """Name -> reward, with ``value`` and ``score`` filled in."""
    if estimators is None:
        named: list[Reward] = [Gap(), LogRatio()] if teacher is not None else []
        named += [Score()] if score is not None else []
    else:
        named = [e.reward for e in estimators if e.reward is not None]
    wanted = {reward.name: reward for reward in [*named, *more]}
    for name, reward in wanted.items():
        if isinstance(reward, Gap):
            wanted[name] = Gap(value)
        if isinstance(reward, Score) and score is not None:
            wanted[name] = Score(score)
    return wanted


class _Blocks:
    """Collects rewards, log-probabilities and values, one block of trajectories at a time."""

    def __init__(
        self,
        student: nn.Module,
        teacher: Callable[[Rollouts], Tensor] | None,
        rollouts: Rollouts,
        rewards: Sequence[NextTokenReward],
        values: tuple[Literal["mean", "logsumexp", "none"], Literal["max", "soft"]] | None,
    ) -> None:
        self.student, self.teacher, self.rollouts, self.rewards = student, teacher, rollouts, rewards
        self.values = values
        self.device = next(student.parameters()).device
        self.parts: dict[str, list[Tensor]] = {}
        self.done = 0

    def slices(self, micro_batch: int | None, max_logits: int) -> Iterator[tuple[int, int]]:
        """Start and end of blocks of rows that fit; the first row gives the width of the logits."""
        n, t = self.rollouts.tokens.shape
        width = token_logits(self.student, self.rollouts[:1].to(self.device)).shape[-1]
        size = min(micro_batch or n, max(1, max_logits // max(width * t, 1)))
        for start in range(0, n, size):
            yield start, start + size

    def add(self, some: Rollouts) -> None:
        """Rewards, log-probabilities and values of some trajectories."""
        local = some.to(self.device)
        student = at_least_float32(token_logits(self.student, local))
        tokens = local.tokens.masked_fill(~local.mask, 0)[..., None]
        log_pi = student.log_softmax(dim=-1)
        chosen = log_pi.gather(-1, tokens)[..., 0]
        power = 1 - 2 * chosen.exp() + log_pi.exp().square().sum(dim=-1)
        self._keep("log_probs", chosen, local)
        self._keep("logit_power", power, local)
        if self.teacher is not None:
            teacher = at_least_float32(self.teacher(some)).to(self.device)
            _check_widths(student, teacher, some)
            for reward in self.rewards:
                weighted = reward.weighted(teacher.to(student.dtype), student)
                self._check(reward, weighted, student, local)
                table = reward.table(teacher.to(student.dtype), student)
                self._keep(f"sampled {reward.name}", table.gather(-1, tokens)[..., 0], local)
                self._keep(f"expected {reward.name}", weighted.double().sum(dim=-1), local)
            if self.values is not None:
                values = token_values(teacher, local.tokens, local.mask, *self.values)
                self._keep("q", values.q, local)
                self._keep("v", values.v, local)
        self.done += len(some)

    def joined(self) -> dict[str, Tensor]:
        """(N, T) of each, on the rollouts' device."""
        return {name: torch.cat(parts) for name, parts in self.parts.items()}

    def _keep(self, name: str, values: Tensor, local: Rollouts) -> None:
        kept = torch.where(local.mask, values.double(), 0.0)
        self.parts.setdefault(name, []).append(kept.to(self.rollouts.tokens.device))

    def _check(self, reward: NextTokenReward, weighted: Tensor, student: Tensor, local: Rollouts) -> None:
        if weighted.shape != student.shape:
            raise ValueError(
                f"reward {reward.name!r} must give a number for every token, of shape {tuple(student.shape)}; got "
                f"{tuple(weighted.shape)}."
            )
        bad = ~weighted.isfinite() & local.mask[..., None]
        if bool(bad.any()):
            row, position, token = (int(i) for i in bad.nonzero()[0])
            probability = float(student[row, position].softmax(dim=-1)[token])
            raise ValueError(
                f"reward {reward.name!r} is not finite for token {token} at row {self.done + row}, position "
                f"{position}, which the student draws with probability {probability:.3g}: the teacher rules it "
                "out, or gives the logits of its best tokens alone. Sample with policy_of(student, tokenizer, "
                "teacher=teacher), use the teacher's full logits, or a reward that needs only these: teacher-top-k(32)."
            )


def _asked(teacher: Teacher | None) -> Callable[[Rollouts], Tensor] | None:
    """Rollouts -> the teacher's logits over their action set, less what it never emits, without gradient.

    The last logits are remembered if they are no more than :data:`MAX_LOGITS`: rollouts that fit at once take one pass
    of the teacher for rewards and gradients.
    """
    if teacher is None:
        return None
    refused = forbidden_by(teacher)
    last: list[tuple[Rollouts, Tensor]] = []

    def asked(some: Rollouts) -> Tensor:
        if not (last and _same(last[0][0], some)):
            last[:] = [(some, run(some))]
        logits = last[0][1]
        if logits.numel() > MAX_LOGITS:
            last.clear()
        return logits

    def run(some: Rollouts) -> Tensor:
        if refused.forbidden or refused.forbidden_first:
            some = replace(some, policy=(some.policy or Policy()).joined(refused))
        with torch.no_grad():
            if isinstance(teacher, nn.Module):
                with eval_mode(teacher):
                    return at_least_float32(token_logits(teacher, some.to(next(teacher.parameters()).device)))
            given = teacher(some)
        return at_least_float32(given if some.policy is None else some.policy.restricted(given))

    return asked


def _same(one: Rollouts, other: Rollouts) -> bool:
    """Whether two rollouts have the same prompts and responses, in the same order and width."""
    names = ("prompt_ids", "prompt_mask", "tokens", "mask")
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    return one.policy == other.policy and all(a.device == b.device and torch.equal(a, b) for a, b in pairs)


def _warn_off_policy(rollouts: Rollouts, log_probs: Tensor, estimators: Sequence[Estimator] | None) -> None:
    """Warn where another distribution drew the rollouts and some estimator has no correction for it."""
    drawn = rollouts.log_probs[rollouts.mask].double()
    if not bool(drawn.any()) or (estimators and all(e.correction is not None for e in estimators)):
        return  # responses that were not sampled, or corrected ones
    difference = float((drawn - log_probs[rollouts.mask]).abs().mean())
    if difference > OFF_POLICY:
        warnings.warn(
            f"rollouts.log_probs differ from the student's by {difference:.2g} a token: they are stale (the student of "
            "an earlier step drew them), another model's, or of another temperature or top_k, which biases estimators "
            "without a correction. Sample from the student at temperature 1, or name a correction such as 'ratio'.",
            stacklevel=4,
        )


def _check_widths(student: Tensor, teacher: Tensor, some: Rollouts) -> None:
    if teacher.shape != student.shape:
        raise ValueError(
            f"the teacher gives logits of shape {tuple(teacher.shape)}, the student {tuple(student.shape)}: they must "
            "be over the same tokens. Draw rollouts with the tokenizer, whose size then cuts both, or set "
            "Rollouts.over(vocabulary)."
        )
