"""Values of responses by a teacher or a reward, and what estimators need besides q and V."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kvar.estimators import Evidence, GivenTeacher, NextTokenReward, SampledReward, Score, Terms, gather
from kvar.gradients.distributed.processes import all_or_none
from kvar.hooks.estimators import estimator_weights
from kvar.hooks.measurement_settings import MeasurementSettings
from kvar.returns import TokenValues, position_edges, split_by_position
from kvar.rollouts import Rollouts, score
from kvar.rollouts.concatenate import concatenate, concatenate_rows

__all__ = ["Reward", "Valued", "reward_values", "valued"]

Reward = Callable[[Rollouts], Tensor]


@dataclass(frozen=True)
class Valued:
    """Responses with their values, as tensors only, so that processes can exchange them.

    Attributes:
        rollouts: N responses.
        values: (N, T) q and V; with a reward in place of a teacher, q = reward and V = 0.
        known: the (N, T) tensors of an :class:`kvar.estimators.Evidence`: "sampled kl", "expected kl", "log_probs" and
            so on; empty where estimators need q and V only.
    """

    rollouts: Rollouts
    values: TokenValues
    known: Mapping[str, Tensor]

    def evidence(self) -> Evidence:
        """The evidence, without the teacher."""
        held = dict(self.known)
        parts = {
            kind: {name.removeprefix(f"{kind} "): x for name, x in held.items() if name.startswith(f"{kind} ")}
            for kind in ("sampled", "expected")
        }
        plain = {name: held.get(name) for name in ("log_probs", "logit_power", "score_norms")}
        return Evidence(self.rollouts, {}, **parts, **plain, values=self.values)  # type: ignore[arg-type]


def valued(
    student: nn.Module,
    rollouts: Rollouts,
    settings: MeasurementSettings,
    teacher: nn.Module | GivenTeacher | None,
    reward: Reward | None,
) -> tuple[Valued, Evidence | None]:
    """Value responses once for all estimators.

    Of a :class:`kvar.estimators.GivenTeacher` that has no q and V, the values are the sampled log ratio and 0, or NaN.

    Returns:
        The values, without rewards of whole responses, which :func:`weigh` adds; and the evidence with its teacher, for
        exact terms, or None where every estimator depends on q and V only.
    """
    options = {"centre": settings.centre, "value": settings.value, "micro_batch": settings.micro_batch}
    known_values = None
    if isinstance(teacher, GivenTeacher):
        teacher.check(settings.estimators)
        known_values = teacher.values
    plain = all(e.plain for e in settings.estimators)
    if plain and known_values is not None:
        return Valued(rollouts, known_values, {}), None
    if plain and (teacher is None or isinstance(teacher, nn.Module | GivenTeacher)):
        if isinstance(teacher, nn.Module):
            return Valued(rollouts, score(teacher, rollouts, **options), {}), None  # type: ignore[arg-type]
        return Valued(rollouts, reward_values(_given(reward), rollouts), {}), None
    tables = any(isinstance(e.reward, NextTokenReward) for e in settings.estimators)
    evidence = gather(
        student,
        teacher if tables or not isinstance(teacher, GivenTeacher) else None,
        rollouts,
        estimators=[e for e in settings.estimators if not isinstance(e.reward, SampledReward)],
        values=not isinstance(teacher, GivenTeacher),
        score_norms=any(e.subtracted is not None and e.subtracted.score_norms for e in settings.estimators),
        **options,  # type: ignore[arg-type]
    )
    if isinstance(teacher, GivenTeacher):
        values = known_values or _log_ratio_values(teacher, evidence)
        evidence = replace(evidence, values=values)
    else:
        values = evidence.values if evidence.values is not None else reward_values(_given(reward), rollouts)
    known = {f"sampled {name}": x for name, x in evidence.sampled.items()}
    known |= {f"expected {name}": x for name, x in evidence.expected.items()}
    known |= {"log_probs": evidence.log_probs, "logit_power": evidence.logit_power}
    if evidence.score_norms is not None:
        known["score_norms"] = evidence.score_norms
    return Valued(rollouts, values, known), evidence


def exchanged(work: Callable[[], Valued]) -> list[Valued]:
    """The result of ``work`` of every process, on the CPU, in the order of ranks; all raise if one fails."""

    def portable() -> Valued:
        mine = work()
        values = TokenValues(mine.values.q.cpu(), mine.values.v.cpu())
        return Valued(mine.rollouts.to("cpu"), values, {name: x.cpu() for name, x in mine.known.items()})

    return all_or_none(portable)


def joined(parts: Sequence[Valued]) -> Valued:
    """Several processes' responses as one, padded with zeros as rollouts are."""
    if len(parts) == 1:
        return parts[0]
    rollouts = concatenate([part.rollouts for part in parts])
    known = {name: concatenate_rows([part.known[name] for part in parts]) for name in parts[0].known}
    q, v = (concatenate_rows([getattr(part.values, name) for part in parts]) for name in ("q", "v"))
    return Valued(rollouts, TokenValues(q, v), known)


def weigh(
    whole: Valued, settings: MeasurementSettings, rows: slice, width: int, evidence: Evidence | None
) -> tuple[Tensor | Terms, list[str]]:
    """The weights of one process's responses, and the estimators' names, those split by position last.

    Args:
        whole: the responses of all processes, over which baselines are formed.
        settings: names the estimators.
        rows: the process's rows of ``whole``.
        width: T of its rollouts.
        evidence: of its rollouts.
    """
    mask, index = whole.rollouts.mask, whole.rollouts.prompt_index
    names, exact = [e.name for e in settings.estimators], {}
    if evidence is None:
        weights = estimator_weights(settings.estimators, whole.values, mask, index)
    else:
        terms = Terms.of(settings.estimators, _with_scores(whole, settings))
        weights, exact = terms.weights, dict(terms.exact)
    if settings.position_bins:
        edges = position_edges(mask, min(settings.position_bins, mask.shape[1]))
        exact = {name: torch.cat([k, split_by_position(k, names, edges)[0]]) for name, k in exact.items()}
        split, more = split_by_position(weights, names, edges)
        weights, names = torch.cat([weights, split]), names + more
    mine = (slice(None), rows, slice(0, width))
    if evidence is None:
        return weights[mine], names
    return Terms(tuple(names), weights[mine], {name: k[mine] for name, k in exact.items()}, evidence), names


def terms_of(weights: Tensor | Terms, names: Sequence[str], rollouts: Rollouts) -> Terms:
    """Weights of scores as terms without any exact one."""
    if isinstance(weights, Terms):
        return weights
    zeros = torch.zeros(rollouts.mask.shape, device=weights.device)
    return Terms(tuple(names), weights, {}, Evidence(rollouts, {}, {}, {}, zeros, zeros))


def _with_scores(whole: Valued, settings: MeasurementSettings) -> Evidence:
    """The evidence with the rewards that are functions of the rollouts, computed once over all responses."""
    evidence = whole.evidence()
    sampled = dict(evidence.sampled)
    for e in settings.estimators:
        if isinstance(e.reward, SampledReward) and e.reward.name not in sampled:
            reward = e.reward
            if isinstance(reward, Score):
                reward = Score(settings.score or reward.function, settings.constant_scores)
            sampled[e.reward.name] = reward.sampled(whole.rollouts).masked_fill(~whole.rollouts.mask, 0.0)
    return replace(evidence, sampled=sampled)


@torch.no_grad()
def reward_values(reward: Reward, rollouts: Rollouts) -> TokenValues:
    """Values by a per-token reward: q = reward and V = 0, theory.md (4').

    Args:
        reward: rollouts -> (N, T).
        rollouts: N responses.

    Raises:
        ValueError: a reward of another shape.
    """
    rewards = reward(rollouts)
    if rewards.shape != rollouts.mask.shape:
        raise ValueError(f"reward must give (N, T) = {tuple(rollouts.mask.shape)}; got {tuple(rewards.shape)}.")
    rewards = rewards.masked_fill(~rollouts.mask, 0.0)
    return TokenValues(rewards, torch.zeros_like(rewards))


def _log_ratio_values(teacher: GivenTeacher, evidence: Evidence) -> TokenValues:
    """The sampled log ratio as q, and V = 0; NaN where the teacher's log-probabilities are not known."""
    mask = evidence.rollouts.mask
    nan = torch.full(mask.shape, torch.nan, dtype=torch.float64, device=mask.device)
    ratio = nan if teacher.log_probs is None else teacher.log_probs.to(nan) - evidence.log_probs
    return TokenValues(ratio.masked_fill(~mask, 0.0), torch.zeros_like(nan))


def _given(reward: Reward | None) -> Reward:
    assert reward is not None  # MeasurementSettings.check_teacher
    return reward
