"""A measurement: sample responses, value and weigh them, and take the gradient's moments."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kvar.estimators import Evidence, GivenTeacher, with_references
from kvar.gradients import GradientMoments, gradient_moments, layer_groups
from kvar.gradients.groups import resolve_groups
from kvar.gradients.state import unwrap
from kvar.hooks.measurement_settings import MeasurementSettings
from kvar.hooks.valuation import Reward, Valued, exchanged, joined, terms_of, valued, weigh
from kvar.measurement import Measurement
from kvar.rollouts import Policy, Rollouts, Sampler, sample, sample_by
from kvar.rollouts.sharded import given_whole

__all__ = ["measure_gradients"]


@given_whole("student", "teacher")
def measure_gradients(
    student: nn.Module,
    prompts: tuple[Tensor, Tensor] | Rollouts,
    settings: MeasurementSettings,
    *,
    teacher: nn.Module | GivenTeacher | None = None,
    reward: Reward | None = None,
    references: Rollouts | None = None,
    sampler: Sampler | None = None,
    stale: bool = False,
    policy: Policy,
    tokenizer: Any = None,
    step: int = 0,
    distributed: bool = False,
    config: Mapping[str, Any] | None = None,
) -> Measurement:
    """Sample, value and measure a student; its parameters, gradients, buffers, modes and random state stay as they are.

    Args:
        student: seq2seq or causal model, plain, data-parallel or under FSDP2, whose parameters are gathered for the
            measurement (:func:`kvar.rollouts.whole`).
        prompts: (M, S) ids and (M, S) mask; or responses that were drawn already, with this policy.
        settings: of the measurement.
        teacher: values the responses; None with ``reward``.
        reward: rollouts -> (N, T) per-token rewards.
        references: the data's responses to these prompts; the gradient of their likelihood is measured as one more
            estimator, called ``data``.
        sampler: draws the responses in place of :func:`kvar.rollouts.sample`.
        stale: accept responses of an earlier student from the sampler, with their log-probabilities.
        policy: the student's action set.
        tokenizer: the student's; names the pad token.
        step: names the measurement, and selects its random stream.
        distributed: divide the prompts among all processes; all must call this and all get the whole result.
        config: of the measurement, see :class:`kvar.measurement.Measurement`.

    Raises:
        ValueError: given responses on several processes, references with fields="norms", fewer prompts than
            processes, groups that select nothing, no trainable parameter, a teacher or score that an estimator cannot
            use.
    """
    start = time.perf_counter()
    student = unwrap(student)
    named = layer_groups(student) if settings.groups == "layers" else settings.groups
    resolve_groups(student, named)  # refuses what cannot be measured before anything is sampled
    rank, count = (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)
    if isinstance(prompts, Rollouts) and distributed:
        raise ValueError("given rollouts are measured on one process: call measure on each, or on one.")
    if not isinstance(prompts, Rollouts):
        if len(prompts[0]) < count:
            raise ValueError(f"the probe has {len(prompts[0])} prompts for {count} processes: give it one for each.")
        share = torch.arange(rank, len(prompts[0]), count)  # this process's prompts
    if references is not None and settings.fields == "norms":
        raise ValueError("references are measured with fields='all': leave them out.")
    evidence: Evidence | None = None
    numbers: dict[str, float] = {}  # of the sampler's responses, on one process

    def work() -> Valued:
        nonlocal evidence
        if isinstance(prompts, Rollouts):
            responses, evidence = valued(student, prompts, settings, teacher, reward)
            return responses
        given = (prompts[0][share], prompts[1][share])
        options: dict[str, Any] = {
            "rollouts_per_prompt": settings.rollouts_per_prompt,
            "max_new_tokens": settings.max_new_tokens,
            "seed": ((settings.seed * 1_000_003 + step) * count + rank) % (2**63),
            "policy": policy,
        }
        if sampler is None:
            rollouts = sample(student, given, tokenizer, **options)
        else:
            rollouts, drawn = sample_by(sampler, student, given, stale=stale, **options)
            numbers.update(drawn if count == 1 else {})
        rollouts = replace(rollouts, prompt_index=share.to(rollouts.tokens.device)[rollouts.prompt_index])
        responses, evidence = valued(student, rollouts, settings, teacher, reward)
        return responses

    parts = exchanged(work) if distributed else [work()]
    whole, mine = joined(parts), parts[rank].rollouts
    before = sum(len(part.rollouts) for part in parts[:rank])
    weights, names = weigh(whole, settings, slice(before, before + len(mine)), mine.tokens.shape[1], evidence)
    if references is not None:
        if count > 1:
            references = references[torch.isin(references.prompt_index, share.to(references.prompt_index))]
        weights = with_references(terms_of(weights, names, mine), references.to(mine.tokens.device))
        mine, names = weights.evidence.rollouts, list(weights.names)
    moments = gradient_moments(
        student,
        mine,
        weights,
        names=names,
        groups=named,
        engine=settings.engine,
        fields=settings.fields,
        micro_batch=settings.micro_batch,
        distributed=distributed,
    )
    if moments.on is not None and count > 1:
        moments = _references_last(moments)
    about = {**(config or {}), **({"numbers": numbers} if numbers else {})}
    return Measurement(step, whole.rollouts, whole.values, moments, time.perf_counter() - start, about)


def _references_last(moments: GradientMoments) -> GradientMoments:
    """The moments of several processes with all sampled trajectories first, in the order of the rollouts."""
    assert moments.on is not None
    order = (~moments.on[0]).long().argsort(stable=True)
    per_row = ("sq_norm", "alignment", "cross", "pair", "score_power")
    groups = {
        name: replace(part, **{f: x[..., order] for f in per_row if (x := getattr(part, f)) is not None})
        for name, part in moments.groups.items()
    }
    return GradientMoments(moments.names, groups, moments.prompt_index[order], moments.on[:, order])
