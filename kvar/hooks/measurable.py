"""Whether a probe or a batch has all that the choice of an adaptive training is made by."""

from __future__ import annotations

from typing import Any

from kvar.estimators import DATA
from kvar.estimators.adaptive import FITTED, Adaptive

__all__ = ["check_batch", "check_probe"]


def check_probe(plan: Adaptive, *, prompts: int, rollouts: int, step_rollouts: int, references: bool) -> None:
    """Refuse a probe that cannot measure what a choice needs.

    Args:
        plan: of the training.
        prompts: of the probe.
        rollouts: responses to each.
        step_rollouts: responses to each prompt of a training step.
        references: whether the probe has references.

    Raises:
        ValueError: too few prompts for the fitted kernel, or for any variance; one response a prompt where two are
            needed; another number than in training where the noise of a baseline depends on it; a target without its
            data. One line with field, value and remedy.
    """
    _check_prompts(plan, f"probe_prompts: the probe has {prompts} prompts", prompts)
    if rollouts == 1 and step_rollouts > 1:
        raise ValueError(
            f"probe_rollouts is {rollouts}, and efficiency for a step of rollouts_per_prompt {step_rollouts} needs "
            "prompts measured with 2 responses or more: raise probe_rollouts."
        )
    _check_rollouts(plan, "probe_rollouts", rollouts)
    for e in plan.trained.values():
        if rollouts != step_rollouts and getattr(e.subtracted, "scope", None) == "prompt":
            raise ValueError(
                f"probe_rollouts is {rollouts} and rollouts_per_prompt {step_rollouts}, but the noise of {e.name!r} "
                "depends on how many responses a prompt has: give both the same number."
            )
    if plan.target == DATA and not references:
        raise ValueError("auto_target is 'data', but the probe has no references: give it references=.")


def check_batch(plan: Adaptive, args: Any) -> None:
    """Refuse a training on whose batches what a choice needs cannot be measured.

    Args:
        plan: of the training.
        args: of its trainer.

    Raises:
        ValueError: several processes, a target that batches do not hold, or as :func:`check_probe`.
    """
    if args.world_size > 1:
        raise ValueError(
            f"auto_on is 'batch', which is measured on one process; this training has {args.world_size}: set auto_on "
            "probe."
        )
    for e in plan.measured(args.rollouts_per_prompt):
        if e.reward is not None and e.reward.name == "score":
            raise ValueError(f"auto_on is 'batch', whose measurement has no scores for {e.name!r}: set auto_on probe.")
    if plan.target == DATA:
        raise ValueError("auto_target is 'data', which only a probe measures: set auto_on probe.")
    prompts = args.train_batch_size * args.gradient_accumulation_steps
    _check_prompts(plan, f"per_device_train_batch_size: a step has {prompts} prompts", prompts)
    _check_rollouts(plan, "rollouts_per_prompt", args.rollouts_per_prompt)


def _check_prompts(plan: Adaptive, what: str, prompts: int) -> None:
    groups = len(plan.lags)
    least = max(2 * groups, 2)
    if prompts < least:
        why = f"{FITTED!r} fits {groups} groups of lags and needs twice as many" if groups else "a variance needs 2"
        instead = f", or leave {FITTED!r} out of auto_candidates" if groups else ""
        raise ValueError(f"{what}, and {why}: give at least {least}{instead}.")


def _check_rollouts(plan: Adaptive, field: str, rollouts: int) -> None:
    for e in plan.measured(rollouts):
        if rollouts == 1 and getattr(e.subtracted, "scope", None) == "prompt":
            raise ValueError(f"{field} is 1, and {e.name!r} needs 2 responses to a prompt or more: raise {field}.")
