"""The coefficients of scores and exact sums in a step's policy-gradient estimators.

A baseline depends on many responses, so the evidence of the whole step is gathered before its first loss and joined
over processes: the coefficients do not depend on how the step is split into micro-batches and processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kvar.distill.objectives import Batch
from kvar.estimators import Estimator, Evidence, Score, gather
from kvar.returns import Thinning, TokenValues
from kvar.rollouts import Rollouts, concatenate, score
from kvar.rollouts.score_norms import score_norms

if TYPE_CHECKING:
    from kvar.distill.config import DistillationConfig

__all__ = ["Part", "joined", "redrawn", "with_coefficients"]

Part = tuple[Rollouts, dict[str, Tensor]]
"""One process's responses, without prompts, and (N, T) numbers of theirs by name, on the CPU."""

REWARDS = ("u ", "ubar ", "value ")
"""Prefixes of the names of sampled rewards, expected rewards and the teacher's values."""


def with_coefficients(
    batch: Batch,
    estimators: Mapping[str, Estimator],
    *,
    student: nn.Module,
    teacher: nn.Module | None,
    settings: DistillationConfig,
    values: bool = False,
    scored: Callable[[Rollouts], Any] | None = None,
    all_parts: Callable[[Part], Sequence[Part]] | None = None,
    process: int = 0,
) -> Batch:
    """A process's part of a step with values, advantages, exact coefficients and rewards; (N, T), on the CPU.

    Args:
        batch: this process's part of the step.
        estimators: objective -> estimator.
        student: the policy.
        teacher: None where no reward needs one.
        settings: of the run.
        values: whether the teacher's values are wanted in any case.
        scored: rollouts -> N scores, for the reward ``score``.
        all_parts: this process's part -> the parts of all processes, in order; None for one process.
        process: this process's number.

    Raises:
        ValueError: see :func:`kvar.estimators.gather` and the baselines.
    """
    rollouts = batch.responses["student"]
    asking = [e for e in estimators.values() if not e.exact_alone]
    gathered = _gathered(asking, rollouts, student, teacher, settings, values, scored)
    mine = _part(gathered)
    length = mine[0].lengths.clamp(min=1)[:, None] if settings.length_normalised_returns else 1
    scaled = mine[0], {name: rows / length if name.startswith(REWARDS) else rows for name, rows in mine[1].items()}
    parts = [scaled] if all_parts is None else list(all_parts(scaled))
    step = joined(parts)
    first = sum(len(part[0]) for part in parts[:process])
    place = slice(first, first + len(rollouts)), slice(rollouts.tokens.shape[1])
    advantages, exact, rewards = {}, {}, {}
    for name, estimator in estimators.items():
        advantages[name], share = (rows[place] for rows in estimator.coefficients(step))
        if estimator.immediate == "exact":
            exact[name] = share / length
        if estimator.reward is not None and f"u {estimator.reward.name}" in mine[1]:
            rewards[name] = mine[1][f"u {estimator.reward.name}"]
    return replace(batch, values=gathered.values, advantages=advantages, exact=exact, rewards=rewards)


def redrawn(estimators: Mapping[str, Estimator], step: int) -> dict[str, Estimator]:
    """The same estimators, random thinning with a seed of its own in every step."""
    return {
        name: replace(e, kernel=replace(e.kernel, seed=e.kernel.seed + step)) if isinstance(e.kernel, Thinning) else e
        for name, e in estimators.items()
    }


def joined(parts: Sequence[Part]) -> Evidence:
    """The evidence of several processes, concatenated in order.

    Prompts of different parts get different numbers; what only gradients need, teacher and rewards, is left out.
    """
    rollouts, shift = [], 0
    for part, _ in parts:
        rollouts.append(replace(part, prompt_index=part.prompt_index + shift))
        shift = int(rollouts[-1].prompt_index.max()) + 1
    whole = concatenate(rollouts)
    width = whole.tokens.shape[1]
    rows = {
        name: torch.cat([nn.functional.pad(part[name], (0, width - part[name].shape[1])) for _, part in parts])
        for name in parts[0][1]
    }
    sampled, expected = (
        {name.removeprefix(mark): x for name, x in rows.items() if name.startswith(mark)} for mark in REWARDS[:2]
    )
    values = TokenValues(rows["value q"], rows["value v"]) if "value q" in rows else None
    norms = rows.get("score_norms")
    return Evidence(whole, {}, sampled, expected, rows["log_probs"], rows["logit_power"], values, norms)


def _part(evidence: Evidence) -> Part:
    """An evidence as a part; :func:`joined` reads the names."""
    rollouts = replace(evidence.rollouts.to("cpu"), policy=None)
    rollouts = replace(rollouts, prompt_ids=rollouts.prompt_ids[:, :0], prompt_mask=rollouts.prompt_mask[:, :0])
    rows = {"log_probs": evidence.log_probs, "logit_power": evidence.logit_power}
    for mark, rewards in zip(REWARDS, (evidence.sampled, evidence.expected), strict=False):
        rows |= {mark + name: x for name, x in rewards.items()}
    if evidence.values is not None:
        rows |= {"value q": evidence.values.q, "value v": evidence.values.v}
    if evidence.score_norms is not None:
        rows["score_norms"] = evidence.score_norms
    return rollouts, {name: x.cpu() for name, x in rows.items()}


def _gathered(
    estimators: Sequence[Estimator],
    rollouts: Rollouts,
    student: nn.Module,
    teacher: nn.Module | None,
    settings: DistillationConfig,
    wanted: bool,
    scored: Callable[[Rollouts], Any] | None,
) -> Evidence:
    """The evidence that the estimators need; the student runs forward only where it is needed."""
    baselines = [e.subtracted for e in estimators if e.subtracted is not None]
    more = any(e.reward is not None or e.correction is not None for e in estimators)
    if more or any(baseline.logit_power for baseline in baselines):
        paid = Score(scored, constant=True)
        asked = [replace(e, reward=paid) if isinstance(e.reward, Score) else e for e in estimators]
        options: dict[str, Any] = {"centre": settings.centre, "value": settings.value, "values": teacher is not None}
        return gather(student, teacher, rollouts, estimators=asked, micro_batch=settings.teacher_micro_batch, **options)
    values = None
    if estimators or wanted:
        assert teacher is not None  # the trainer refuses to start otherwise
        values = score(
            teacher, rollouts, centre=settings.centre, value=settings.value, micro_batch=settings.teacher_micro_batch
        )
    norms = score_norms(student, rollouts) if any(baseline.score_norms for baseline in baselines) else None
    unknown = torch.zeros_like(rollouts.mask, dtype=torch.float64)
    return Evidence(rollouts, {}, {}, {}, unknown, unknown, values, norms)
