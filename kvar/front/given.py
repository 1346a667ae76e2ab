"""Rollouts that were drawn elsewhere, checked against student and teacher before they are measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kvar.estimators import GivenTeacher
from kvar.front.models import Models
from kvar.rollouts import Policy, Rollouts, check_lengths
from kvar.rollouts.behaviour import check_behaviour
from kvar.rollouts.output_embedding import logit_width

__all__ = ["given_teacher", "rollouts_and_rest", "settled_rollouts"]


def rollouts_and_rest(given: Any) -> tuple[Rollouts, Mapping[str, Any]]:
    """Rollouts and what else their batch held, from rollouts alone or what :func:`kvar.rollouts.from_batch` returns.

    Raises:
        TypeError: neither of these.
        ValueError: no rollouts.
    """
    rollouts, held = given if isinstance(given, tuple) and len(given) == 2 else (given, {})
    if not isinstance(rollouts, Rollouts) or not isinstance(held, Mapping):
        raise TypeError(
            f"rollouts must be Rollouts, or what kvar.rollouts.from_batch returns; got {type(given).__name__}."
        )
    if len(rollouts) == 0:
        raise ValueError("rollouts is empty (N = 0): give at least one response.")
    if not bool(rollouts.mask.any()):
        raise ValueError("rollouts.mask is false everywhere: there is no response token. Check the response mask.")
    return rollouts, held


def settled_rollouts(
    rollouts: Rollouts, models: Models, policy: Policy, stale: bool
) -> tuple[Rollouts, dict[str, float]]:
    """The rollouts on the student's device, with its action set; and how far their policy is from the student.

    Raises:
        ValueError: tokens that a model does not know or never emits, responses that are too long for it, or that
            another model or temperature drew, unless ``stale``.
    """
    rollouts = replace(rollouts.to(next(models.student.parameters()).device), policy=policy)
    width = logit_width(models.student)
    prompts = rollouts.prompt_ids[rollouts.prompt_mask]
    if width is not None and prompts.numel() and int(prompts.max()) >= width:
        raise ValueError(
            f"the prompts have token id {int(prompts.max())}, but the student has {width} tokens: give the student "
            "whose tokenizer encoded them."
        )
    policy.check_tokens(rollouts.tokens, rollouts.mask)
    longest = int(rollouts.prompt_mask.sum(dim=1).max())
    check_lengths(models.student, models.teacher, longest, int(rollouts.lengths.max()))
    return rollouts, check_behaviour(models.student, rollouts, stale=stale)


def given_teacher(rollouts: Rollouts, held: Mapping[str, Any], models: Models) -> GivenTeacher:
    """The teacher as far as the batch holds it.

    Raises:
        ValueError: it holds nothing of a teacher.
    """
    width = logit_width(models.student)
    teacher = GivenTeacher(rollouts, held, width or int(rollouts.tokens.max()) + 1)
    if teacher.values is None and teacher.log_probs is None and not teacher.k:
        raise ValueError(
            "a teacher is needed: give a model (teacher=, --teacher), or rollouts whose batch holds teacher_q and "
            "teacher_v, teacher_log_probs, or teacher_top_log_probs and teacher_top_ids."
        )
    return teacher
