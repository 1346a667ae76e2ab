"""Prepare an optimiser step's responses before its first loss: sample, value, count, split into micro-batches.

The divisors of a loss (:mod:`kvar.distill.objectives.normalise`) and the baselines of returns
(:mod:`kvar.distill.step.coefficients`) belong to the whole step, so all its micro-batches are sampled together, in one
large generation call, and the loss does not depend on how the step is split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kvar.distill.data.dataset import reference_rollouts
from kvar.distill.objectives import Batch, Mixture, Source, count
from kvar.distill.step.coefficients import Part, redrawn, with_coefficients
from kvar.distill.step.evened import REPEATED
from kvar.distill.step.teacher_responses import TeacherResponses
from kvar.evaluation.evaluate import response_texts
from kvar.rollouts import Policy, Rollouts, Sampler, concatenate, policy_of, sample, sample_by
from kvar.rollouts.seeds import response_seeds, stream_seed
from kvar.tasks import Example

if TYPE_CHECKING:
    from kvar.distill.config import DistillationConfig

__all__ = ["Scorer", "Step", "distinct_rows", "on_policy_coin", "prepare_step"]

Inputs = Mapping[str, Tensor]
Scorer = Callable[[list[str], list[Example]], Sequence[float]]
"""Responses and their examples -> one number each, such as a task's ``example_scores``."""


@dataclass
class Step:
    """The micro-batches of one optimiser step, on one process.

    Attributes:
        inputs: from the collator.
        batches: position -> batch of :func:`prepare_step` that is not used yet; None before preparation.
    """

    inputs: list[dict[str, Any]]
    batches: dict[int, Batch] | None = None


def distinct_rows(inputs: Inputs) -> Tensor:
    """(B,) bool: false for the repeated rows of :mod:`kvar.distill.step.evened`."""
    repeated = inputs.get(REPEATED)
    return torch.ones_like(inputs["index"], dtype=torch.bool) if repeated is None else ~repeated.bool()


def on_policy_coin(seed: int, step: int, fraction: float) -> bool:
    """GKD's choice for one step: true with probability ``fraction``, the same on every process and after a resume."""
    return stream_seed(seed, step, 0x6B64) < fraction * 2**63


def prepare_step(
    inputs: Sequence[Inputs],
    *,
    student: nn.Module,
    teacher: nn.Module | None,
    teacher_responses: TeacherResponses | None,
    mixture: Mixture,
    settings: DistillationConfig,
    tokenizer: Any,
    step: int,
    on_policy: bool,
    scorer: Scorer | None = None,
    sampler: Sampler | None = None,
    values: bool = False,
    all_sum: Callable[[Tensor], Tensor] | None = None,
    all_parts: Callable[[Part], Sequence[Part]] | None = None,
    processes: int = 1,
    process: int = 0,
) -> list[Batch]:
    """The batches that the losses of one step are computed from.

    Args:
        inputs: this process's micro-batches from the collator, on the student's device.
        student: the policy; run without gradient.
        teacher: for the rewards of policy-gradient objectives.
        teacher_responses: for objectives on the teacher's responses.
        mixture: the objectives.
        settings: of the run.
        tokenizer: of both models.
        step: optimiser steps taken before; with ``settings.seed`` it determines the random streams.
        on_policy: GKD's choice.
        scorer: texts and their examples -> scores, for the reward ``score``.
        sampler: draws the student's responses in its place; an earlier student's only for objectives that correct for
            it.
        values: whether the teacher's values are wanted even where no estimator needs them.
        all_sum: sums a tensor over processes; None for one process, or for a batch on its own.
        all_parts: gathers the parts of all processes; None likewise.
        processes: number of processes.
        process: this one's number.

    Returns:
        A batch for every micro-batch, in order; the responses of repeated rows hold no tokens.
    """
    policy = policy_of(student, tokenizer, teacher=teacher)
    data = concatenate([reference_rollouts(dict(batch), policy) for batch in inputs])
    needed = mixture.sources(settings, on_policy)
    responses: dict[Source, Rollouts] = {}
    if "data" in needed:
        policy.check_tokens(data.tokens, data.mask, "the data's targets")
        responses["data"] = data
    if "student" in needed:
        if sampler is None:
            responses["student"] = _sampled(student, data, settings, tokenizer, step, policy)
        else:
            stale = mixture.corrects(settings)
            responses["student"] = _drawn(sampler, student, data, settings, step, policy, stale)
    if "teacher" in needed:
        assert teacher_responses is not None  # the trainer refuses to start otherwise
        given = teacher_responses(data.prompt_ids, data.prompt_mask, data.prompt_index)
        responses["teacher"] = replace(given, policy=policy)
    distinct = torch.cat([distinct_rows(batch) for batch in inputs])
    responses = {source: _without_repeats(rollouts, distinct) for source, rollouts in responses.items()}
    rows = int(distinct.sum())
    counts = {
        source: count(rollouts.mask, all_sum, processes, responses=rows * (len(rollouts) // len(distinct)))
        for source, rollouts in responses.items()
    }
    whole = Batch(responses, counts, on_policy=on_policy)
    if estimators := mixture.estimators(settings):
        whole = with_coefficients(
            whole,
            redrawn(estimators, max(step, 0)),
            student=student,
            teacher=teacher,
            settings=settings,
            values=values and teacher is not None,
            scored=None if scorer is None else partial(_scores, data=data, tokenizer=tokenizer, scorer=scorer),
            all_parts=all_parts,
            process=process,
        )
    batches, start = [], 0
    for batch in inputs:
        stop = start + len(batch["index"])
        batches.append(whole.rows(start, stop, settings.rollouts_per_prompt))
        start = stop
    return batches


def _without_repeats(rollouts: Rollouts, distinct: Tensor) -> Rollouts:
    """The rollouts with the repeated rows masked, so that all processes run batches of the same size."""
    if bool(distinct.all()):
        return rollouts
    kept = distinct.to(rollouts.mask.device).repeat_interleave(len(rollouts) // len(distinct))
    mask = rollouts.mask & kept[:, None]
    return replace(rollouts, mask=mask, finished=rollouts.finished & kept)


def _scores(rollouts: Rollouts, *, data: Rollouts, tokenizer: Any, scorer: Scorer) -> Sequence[float]:
    """The scorer's numbers; examples are decoded from the data's tokens, so targets may be cut."""
    prompts = [ids[kept].tolist() for ids, kept in zip(data.prompt_ids, data.prompt_mask, strict=True)]
    texts = tokenizer.batch_decode(prompts, skip_special_tokens=True), response_texts(data, tokenizer)
    examples = [Example(prompt, target) for prompt, target in zip(*texts, strict=True)]
    repeats = len(rollouts) // len(data)
    return scorer(response_texts(rollouts, tokenizer), [example for example in examples for _ in range(repeats)])


def _drawn(
    sampler: Sampler,
    student: nn.Module,
    data: Rollouts,
    settings: DistillationConfig,
    step: int,
    policy: Policy,
    stale: bool,
) -> Rollouts:
    """As :func:`_sampled`, by a sampler; ``stale`` where the objectives have a correction."""
    rollouts, _ = sample_by(
        sampler,
        student,
        (data.prompt_ids, data.prompt_mask),
        rollouts_per_prompt=settings.rollouts_per_prompt,
        max_new_tokens=settings.max_new_tokens,
        seed=stream_seed(settings.seed, step, *data.prompt_index.tolist()),
        policy=policy,
        stale=stale,
        remedy="train by an estimator with a correction, such as 'K=1 ratio', or importance_weight behaviour",
    )
    return rollouts


def _sampled(
    student: nn.Module, data: Rollouts, settings: DistillationConfig, tokenizer: Any, step: int, policy: Policy
) -> Rollouts:
    """``rollouts_per_prompt`` responses of the student to every prompt, ``sample_micro_batch`` at a time."""
    repeats = settings.rollouts_per_prompt
    seeds = response_seeds(settings.seed, step, data.prompt_index.tolist(), repeats)
    prompts = len(data) if settings.sample_micro_batch is None else max(1, settings.sample_micro_batch // repeats)
    parts = []
    for start in range(0, len(data), prompts):
        rows = slice(start, start + prompts)
        drawn = sample(
            student,
            (data.prompt_ids[rows], data.prompt_mask[rows]),
            tokenizer,
            rollouts_per_prompt=repeats,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_k=settings.top_k,
            seed=seeds[start * repeats : (start + prompts) * repeats],
            policy=policy,
        )
        parts.append(drawn)
    joined = concatenate(parts) if len(parts) > 1 else parts[0]
    index = torch.arange(len(data), device=joined.tokens.device).repeat_interleave(repeats)
    return replace(joined, prompt_index=index)
