"""The one way a measurement is made: sample, score, weigh, and take the gradient's moments."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kvar.gradients import gradient_moments, layer_groups
from kvar.gradients.distributed.processes import all_or_none, joined_values
from kvar.gradients.groups import resolve_groups
from kvar.gradients.state import unwrap
from kvar.hooks.estimators import Estimator, estimator_weights
from kvar.measurement import Measurement
from kvar.returns import TokenValues, position_edges, split_by_position
from kvar.rollouts import Policy, Rollouts, concatenate, sample, score

__all__ = ["Groups", "Reward", "Valuation", "measure_gradients", "reward_values", "teacher_values"]

Reward = Callable[[Rollouts], Tensor]
Valuation = Callable[[Rollouts], TokenValues]
Groups = Mapping[str, Any] | Literal["layers"] | None


def measure_gradients(
    student: nn.Module,
    prompts: tuple[Tensor, Tensor],
    estimators: Sequence[Estimator],
    valuation: Valuation,
    *,
    policy: Policy,
    tokenizer: Any = None,
    rollouts_per_prompt: int = 4,
    max_new_tokens: int = 64,
    seed: int = 0,
    step: int = 0,
    groups: Groups = None,
    position_bins: int = 0,
    engine: str = "auto",
    fields: Literal["all", "norms"] = "all",
    micro_batch: int | None = None,
    distributed: bool = False,
    config: Mapping[str, Any] | None = None,
) -> Measurement:
    """Sample, score and measure a student; its parameters, gradients, buffers, modes and random state stay as they are.

    Args:
        student: seq2seq or causal model, plain or data-parallel.
        prompts: (M, S) ids and (M, S) mask.
        estimators: E of them, names distinct.
        valuation: rollouts -> their token values.
        policy: what the student may emit.
        tokenizer: of the student; names its pad token.
        rollouts_per_prompt: R.
        max_new_tokens: T, the length limit of responses.
        seed: of the sampling, with ``step``.
        step: names the measurement, and selects its random stream.
        groups: parameter groups, "layers" for one a layer.
        position_bins: also measure every estimator split over this many ranges of positions.
        engine: see ``kvar.gradients.gradient_moments``.
        fields: see there.
        micro_batch: see there.
        distributed: share the prompts out among all processes, which must all call and all get the whole.
        config: what the measurement is to say of itself, see :class:`kvar.measurement.Measurement`.

    Raises:
        ValueError: fewer prompts than processes, groups that select nothing, no trainable parameter.
    """
    start = time.perf_counter()
    student = unwrap(student)
    named = layer_groups(student) if groups == "layers" else groups
    resolve_groups(student, named)  # refuses what cannot be measured before anything is sampled
    rank, count = (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)
    own = torch.arange(rank, len(prompts[0]), count)
    if len(prompts[0]) < count:
        raise ValueError(f"the probe has {len(prompts[0])} prompts for {count} processes: give it one for each.")

    def rolled() -> tuple[Rollouts, TokenValues]:
        rollouts = sample(
            student,
            (prompts[0][own], prompts[1][own]),
            tokenizer,
            rollouts_per_prompt=rollouts_per_prompt,
            max_new_tokens=max_new_tokens,
            seed=((seed * 1_000_003 + step) * count + rank) % (2**63),
            policy=policy,
        )
        rollouts = replace(rollouts, prompt_index=own.to(rollouts.tokens.device)[rollouts.prompt_index])
        return rollouts, valuation(rollouts)

    if distributed:
        parts = all_or_none(lambda: _on_cpu(*rolled()))
        rollouts = concatenate([part[0] for part in parts])
        values = joined_values([part[1] for part in parts])
        mine, before = parts[rank][0], sum(len(part[0]) for part in parts[:rank])
    else:
        rollouts, values = rolled()
        mine, before = rollouts, 0
    weights, names = _weights(estimators, rollouts, values, position_bins)
    moments = gradient_moments(
        student,
        mine,
        weights[:, before : before + len(mine), : mine.tokens.shape[1]],
        names=names,
        groups=named,
        engine=engine,
        fields=fields,
        micro_batch=micro_batch,
        distributed=distributed,
    )
    return Measurement(step, rollouts, values, moments, time.perf_counter() - start, dict(config or {}))


def teacher_values(
    teacher: nn.Module,
    *,
    centre: Literal["mean", "logsumexp", "none"] = "mean",
    value: Literal["max", "soft"] = "max",
    micro_batch: int | None = None,
) -> Valuation:
    """Values by a teacher, see :func:`kvar.rollouts.score`."""

    def valuation(rollouts: Rollouts) -> TokenValues:
        return score(teacher, rollouts, centre=centre, value=value, micro_batch=micro_batch)

    return valuation


def reward_values(reward: Reward) -> Valuation:
    """Values by a reward a token: q = reward and V = 0, theory.md (4').

    Args:
        reward: rollouts -> (N, T).
    """

    @torch.no_grad()
    def valuation(rollouts: Rollouts) -> TokenValues:
        rewards = reward(rollouts)
        if rewards.shape != rollouts.mask.shape:
            raise ValueError(f"reward must give (N, T) = {tuple(rollouts.mask.shape)}; got {tuple(rewards.shape)}.")
        rewards = rewards.masked_fill(~rollouts.mask, 0.0)
        return TokenValues(rewards, torch.zeros_like(rewards))

    return valuation


def _weights(
    estimators: Sequence[Estimator], rollouts: Rollouts, values: TokenValues, position_bins: int
) -> tuple[Tensor, list[str]]:
    """(E, N, T) weights and their names, those split by position behind the others."""
    weights = estimator_weights(estimators, values, rollouts.mask, rollouts.prompt_index)
    names = [e.name for e in estimators]
    if not position_bins:
        return weights, names
    edges = position_edges(rollouts.mask, min(position_bins, rollouts.mask.shape[1]))
    split, split_names = split_by_position(weights, names, edges)
    return torch.cat([weights, split]), names + split_names


def _on_cpu(rollouts: Rollouts, values: TokenValues) -> tuple[Rollouts, TokenValues]:
    return rollouts.to("cpu"), TokenValues(values.q.cpu(), values.v.cpu())
