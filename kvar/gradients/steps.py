"""Moments of whole steps' gradients, cheap for many trajectories and few estimators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from kvar.estimators.estimator import Estimator
from kvar.estimators.evidence import Evidence
from kvar.estimators.terms import Terms
from kvar.gradients.checks import check_finite, check_name_count
from kvar.gradients.cotangents import Estimators
from kvar.gradients.groups import GroupSpec, resolve_groups
from kvar.gradients.moments import GradientMoments, GroupMoments
from kvar.gradients.state import untouched, unwrap
from kvar.rollouts.sharded import given_whole
from kvar.rollouts.types import Rollouts

__all__ = ["step_moments"]


@given_whole("student")
def step_moments(
    student: nn.Module,
    steps: Iterable[tuple[Rollouts, Tensor | Terms | tuple[Evidence, Sequence[Estimator]]]],
    names: Sequence[str] | None = None,
    groups: Mapping[str, GroupSpec] | None = None,
    micro_batch: int | None = None,
) -> GradientMoments:
    """Inner products of the mean gradients of S independent steps, each of which takes the place of a trajectory.

    One forward pass and E backward passes per step, whatever its size: no gradient of a single trajectory is formed.
    The result is that of :func:`gradient_moments` for S "trajectories", each the mean gradient over a step's
    trajectories, so that every statistic is in units of steps: ``trace_covariance`` is tr Cov of a step's mean,
    ``efficiency(moments, batch=1)`` that of one step and ``batch=4`` that of four steps together. S E P numbers are
    held in float32.

    Args:
        student: as for :func:`gradient_moments`.
        steps: for each step its rollouts, and (E, N, T) weights, terms, or (evidence, estimators). Steps must not share
            prompts; a generator is read one step at a time.
        names: the E estimators' names; by default those of the estimators, or "0", "1", ...
        groups: parameter groups; "all" is always measured.
        micro_batch: most trajectories in one pass.

    Returns:
        Moments with N = S and ``prompt_index`` 0 to S - 1.

    Raises:
        ValueError: fewer than two steps, steps of other estimators than the first, or an empty step.
        FloatingPointError: a gradient that is not finite.
    """
    student = unwrap(student)
    resolved = resolve_groups(student, groups)
    parameters = resolved["all"]
    device = parameters[0].device
    rows: list[list[Tensor]] = []  # of each step and parameter, (E, numel)
    with untouched(student):
        for number, (rollouts, weights) in enumerate(steps):
            if isinstance(weights, tuple):
                weights = Terms.of(weights[1], weights[0])
            if not len(rollouts):
                raise ValueError(f"steps: step {number} has no rollouts.")
            of_step = weights.names if isinstance(weights, Terms) else names or tuple(map(str, range(len(weights))))
            if names is not None and tuple(of_step) != tuple(names) and rows:
                raise ValueError(f"steps: step {number} has estimators {list(of_step)}, the first {list(names)}.")
            names = names or of_step
            weights = weights.to(device) if isinstance(weights, Tensor) else weights
            counts = _counts(weights, rollouts)
            rows.append(_means(student, rollouts.to(device), weights, counts, parameters, micro_batch))
    if len(rows) < 2 or names is None:
        raise ValueError(f"a variance needs at least two steps; got {len(rows)}.")
    check_name_count(tuple(names), len(rows[0][0]))
    position = {id(p): k for k, p in enumerate(parameters)}
    grams = [_gram([row[k] for row in rows]) for k in range(len(parameters))]
    moments = {
        name: _moments(sum((grams[position[id(p)]] for p in members), torch.zeros_like(grams[0])))
        for name, members in resolved.items()
    }
    check_finite(moments, tuple(names))
    return GradientMoments(tuple(names), moments, torch.arange(len(rows)))


def _counts(weights: Tensor | Terms, rollouts: Rollouts) -> Tensor:
    """(E,) trajectories that each estimator is a mean over."""
    if isinstance(weights, Terms) and weights.on is not None:
        return weights.on.sum(dim=1).double()
    return torch.full((len(weights.names if isinstance(weights, Terms) else weights),), float(len(rollouts)))


def _means(
    student: nn.Module,
    rollouts: Rollouts,
    weights: Tensor | Terms,
    counts: Tensor,
    parameters: list[nn.Parameter],
    micro_batch: int | None,
) -> list[Tensor]:
    """The mean gradient of every estimator over a step: per parameter (E, numel), float32 on the CPU."""
    estimators = Estimators(rollouts, weights)
    total = [torch.zeros(len(counts), p.numel(), device=p.device) for p in parameters]
    for some in torch.arange(len(rollouts), device=rollouts.tokens.device).split(micro_batch or len(rollouts)):
        logits = estimators.logits(student, some)
        cotangents = estimators.cotangents(logits, some)
        for e in range(len(counts)):
            grads = torch.autograd.grad(
                logits, parameters, cotangents[e], retain_graph=e + 1 < len(counts), allow_unused=True
            )
            for block, gradient in zip(total, grads, strict=True):
                if gradient is not None:
                    block[e] += gradient.detach().flatten() / counts[e]
    return [block.cpu() for block in total]


def _gram(rows: Sequence[Tensor]) -> Tensor:
    """(S, E, S, E) inner products of S blocks (E, numel), in float64."""
    flat = torch.cat(list(rows)).double()
    s, e = len(rows), len(rows[0])
    return (flat @ flat.T).view(s, e, s, e)


def _moments(gram: Tensor) -> GroupMoments:
    pair = gram.diagonal(dim1=0, dim2=2).contiguous()  # (E, E, S)
    cross = gram.mean(dim=2).permute(1, 2, 0).contiguous()  # <g_s^e, gbar^f>
    return GroupMoments.of_products(cross.mean(dim=2), cross, pair, pair.clone())
