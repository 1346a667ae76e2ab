"""Checks the input, runs a gradient engine and returns the moments: :func:`gradient_moments`."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kvar.estimators.estimator import Estimator
from kvar.estimators.evidence import Evidence
from kvar.estimators.terms import Terms
from kvar.gradients.checks import check_finite, check_name_count, checked_scalars, checked_weights, no_checkpointing
from kvar.gradients.cotangents import Weights
from kvar.gradients.groups import GroupSpec, resolve_groups
from kvar.gradients.local import LocalMeasurement
from kvar.gradients.moments import GradientMoments, GroupMoments
from kvar.gradients.state import untouched, unwrap
from kvar.rollouts.sharded import given_whole
from kvar.rollouts.trial.truth import check_rollouts
from kvar.rollouts.types import Rollouts

__all__ = ["ENGINES", "Weights", "gradient_moments"]

ENGINES: dict[str, str] = {
    "auto": "kvar.gradients.one_pass.engine:one_pass_moments",
    "one-pass": "kvar.gradients.one_pass.engine:one_pass_moments",
    "loop": "kvar.gradients.loop:loop_moments",
    "jvp": "kvar.gradients.forward_mode.engine:jvp_moments",
}
"""Engine name -> module and function, imported at first use.

Every engine takes checked inputs (student, rollouts, weights, groups, *, fields, score_power, micro_batch): the student
in eval mode, whose state the caller restores; N trajectories on its device; (E, N, T) weights, zero where masked, or
terms, or a callable, logits (N, T, V) -> (E, N), whose scalar [e, i] depends on row i only (logits of rows that do not
pass through the model are zeros); group name -> trainable parameters, "all" included. With fields="norms" only the
fields ``sq_norm`` and ``mean_pair`` are measured, with ``score_power`` also sum_t |grad log pi(y_t | s_t)|^2;
``micro_batch`` is the most trajectories in one forward pass, None for all. It returns group name -> moments, float64 on
the CPU."""


@given_whole("student")
def gradient_moments(
    student: nn.Module,
    rollouts: Rollouts,
    weights: Weights | tuple[Evidence, Sequence[Estimator]],
    names: Sequence[str] | None = None,
    groups: Mapping[str, GroupSpec] | None = None,
    engine: str = "auto",
    fields: Literal["all", "norms"] = "all",
    micro_batch: int | None = None,
    score_power: bool = False,
    directions: int | None = None,
    distributed: bool | dist.ProcessGroup = False,
) -> GradientMoments:
    """Inner products of per-trajectory policy-gradient estimates, for E estimators on the same N trajectories.

    The estimate of trajectory i under estimator e is g_i^e = sum_t weights[e,i,t] grad log pi(y_it | s_it), theory.md
    (5): a sum over tokens, without normalisation. It is measured in eval mode (no dropout). The student's ``.grad``,
    buffers, training flags and torch's random state are restored afterwards.

    Args:
        student: a transformers model, or any module that :func:`kvar.rollouts.token_logits` takes; also inside a
            DistributedDataParallel wrapper, or under FSDP2, where all processes call this together and each gathers
            all parameters for it (:func:`kvar.rollouts.whole`).
        rollouts: N prompts and responses.
        weights: (E, N, T), for instance :func:`kvar.returns.returns`; ignored where ``rollouts.mask`` is false. Or
            ``(evidence, estimators)``: estimators of theory.md (22), exact sums included, with the evidence of
            :func:`kvar.estimators.gather`; or :class:`kvar.estimators.Terms`. Or a differentiable callable: the logits
            (N, T, V) of all rows -> (E, N) scalars, whose gradient is g_i^e; scalar [e, i] may depend on row i of the
            logits only.
        names: the E estimators' names, distinct; by default those of ``estimators``, or "0", "1", ...
        groups: group name -> parameters, parameter names or a module path; see
            :func:`kvar.gradients.groups.resolve_groups`. "all", every trainable parameter, is always measured.
        engine: "one-pass" (also "auto"); "loop" (one trajectory at a time, slow, the reference); or "jvp", unbiased
            estimates from random directions (:func:`kvar.gradients.score_projections` gives their error too).
        fields: "norms" leaves ``alignment``, ``cross``, ``pair`` and ``prompt_pair`` None, and costs less.
        micro_batch: trajectories held at once, for engines that process many; not with a callable, which sees all N.
        score_power: also measure sum_t |grad log pi(y_t | s_t)|^2 of every trajectory.
        directions: D of engine="jvp", whose relative error is at most about sqrt(2/D); 64 by default.
        distributed: true, or a process group, to measure the trajectories of all processes as if one process held
            them; every process passes its rollouts (N and T may differ) and gets the whole result, in the order of
            ranks. A prompt must be on one process only: see :func:`kvar.gradients.distinct_prompts`.

    Returns:
        The moments, float64 on the CPU.

    Raises:
        TypeError: the student is not a module, or the weights are neither tensor nor callable.
        ValueError: wrong shapes or names, evidence of other rollouts, non-finite weights (estimator, trajectory and
            position named), no trainable parameter, a compiled or sharded student, an unknown engine, processes that
            disagree.
        RuntimeError: another process failed; the message holds its error.
        FloatingPointError: a non-finite gradient; the message names estimator, trajectory and group.
    """
    if directions is not None and engine != "jvp":
        raise ValueError(f"directions={directions} is for engine='jvp'; engine={engine!r} is exact and has none.")
    if distributed is not False and engine == "jvp":
        raise ValueError("engine='jvp' is not joined over processes: use 'auto', or score_projections on each process.")
    if isinstance(weights, tuple):
        if len(weights) != 2 or not isinstance(weights[0], Evidence):
            raise TypeError("weights as a pair must be (evidence, estimators), see kvar.estimators.gather.")
        weights = Terms.of(weights[1], weights[0])
    if isinstance(weights, Terms) and names is None:
        names = weights.names
    on = weights.on.cpu() if isinstance(weights, Terms) and weights.on is not None else None
    options = {"fields": fields, "score_power": score_power, "micro_batch": micro_batch}
    if directions is not None:
        options["directions"] = directions

    def measure() -> LocalMeasurement:
        return _measured(student, rollouts, weights, names, groups, engine, options)

    if distributed is False:
        local = measure()
        result, index = local.moments, local.rollouts.prompt_index
    else:
        from kvar.gradients.distributed.gathered_moments import joined_moments

        local, result, index, on = joined_moments(measure, None if distributed is True else distributed, on)
    count = result["all"].sq_norm.shape[0]
    names = local.names if local.names is not None else tuple(str(e) for e in range(count))
    check_name_count(names, count)
    result = {group: _plain(moments) for group, moments in result.items()}
    check_finite(result, names)
    return GradientMoments(names=names, groups=result, prompt_index=index.detach().cpu().long(), on=on)


def _measured(
    student: nn.Module,
    rollouts: Rollouts,
    weights: Weights,
    names: Sequence[str] | None,
    groups: Mapping[str, GroupSpec] | None,
    engine: str,
    options: dict[str, Any],
) -> LocalMeasurement:
    """Check everything, then run the engine."""
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(map(repr, ENGINES))}; got {engine!r}.")
    module, function = ENGINES[engine].split(":")
    run = getattr(importlib.import_module(module), function)
    student = unwrap(student)
    if options["fields"] not in ("all", "norms"):
        raise ValueError(f"fields must be 'all' or 'norms'; got {options['fields']!r}.")
    if not isinstance(rollouts, Rollouts):
        raise TypeError(f"rollouts must be kvar.rollouts.Rollouts; got {type(rollouts).__name__}.")
    if len(rollouts) == 0:
        raise ValueError("rollouts is empty (N = 0): sample at least one response.")
    resolved = resolve_groups(student, groups)
    rollouts = rollouts.to(resolved["all"][0].device)
    if rollouts.policy is not None:
        rollouts.policy.check_tokens(rollouts.tokens, rollouts.mask)
    weights = checked_weights(weights, rollouts, options["micro_batch"])
    if names is not None:
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise TypeError(f"names must be a list of the estimators' names; got {names!r}.")
        names = tuple(str(name) for name in names)
        if len(set(names)) != len(names):
            raise ValueError(f"names must be distinct; got {list(names)}.")
        if isinstance(weights, Tensor):
            check_name_count(names, weights.shape[0])
    if isinstance(weights, Terms):
        check_name_count(names or (), len(weights.names))
    elif not isinstance(weights, Tensor):
        weights = checked_scalars(weights, names, len(rollouts))
    with untouched(student), no_checkpointing():
        check_rollouts(student, rollouts)
        moments = run(student, rollouts, weights, resolved, **options)
    return LocalMeasurement(student, rollouts, weights, names, resolved, moments, options)


def _plain(moments: GroupMoments) -> GroupMoments:
    """The same moments as detached float64 CPU tensors."""
    fields = {k: v.detach().to("cpu", torch.float64) for k, v in vars(moments).items() if v is not None}
    return replace(moments, **fields)
