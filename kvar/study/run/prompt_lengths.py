"""Checks of the lengths of all prompts of a run, before it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kvar.study.run.parts import Parts
from kvar.study.settings.run_settings import EvaluationSettings

if TYPE_CHECKING:
    from kvar.distill import DistillationConfig
    from kvar.tasks import Example

__all__ = ["check_prompts", "check_rows", "check_scored"]


def check_prompts(
    split: str, examples: Sequence[Example], training: DistillationConfig, parts: Parts, *, teacher: bool
) -> None:
    """Check that no prompt is empty or too long for student and, if it scores the responses, teacher.

    Args:
        split: the examples' split, for the message.
        examples: in the split's order.
        training: gives ``max_prompt_tokens`` and ``max_new_tokens``.
        parts: models and tokenizer.
        teacher: whether the teacher scores the responses.

    Raises:
        ValueError: the first such prompt.
    """
    from kvar.rollouts import TextEncoder

    prompts = TextEncoder(parts.tokenizer, parts.student).prompts([e.prompt for e in examples], f"{split} row")
    _check(split, dict(enumerate(map(len, prompts))), training, parts, teacher)


def check_rows(split: str, rows: Any, training: DistillationConfig, parts: Parts) -> None:
    """As :func:`check_prompts`, for rows of ``build_dataset`` or those that are tokenised, student and teacher."""
    known = getattr(rows, "prompt_lengths", None)
    _check(split, dict(enumerate(rows["prompt_length"])) if known is None else known, training, parts, True)


def check_scored(settings: EvaluationSettings, training: DistillationConfig, parts: Parts) -> None:
    """As :func:`check_prompts`, for the prompts of the final evaluation, whose split has to exist."""
    if settings.eval_limit:
        examples = parts.task.examples(settings.eval_split, settings.eval_limit)
        check_prompts(settings.eval_split, examples, training, parts, teacher=False)


def _check(split: str, lengths: Mapping[int, int], training: DistillationConfig, parts: Parts, teacher: bool) -> None:
    from kvar.rollouts import check_lengths

    row, limit = max(lengths, key=lengths.__getitem__), training.max_prompt_tokens
    longest, empty = lengths[row], next((i for i, length in lengths.items() if not length), None)
    if empty is not None:
        raise ValueError(f"{split} row {empty} has an empty prompt; every prompt needs at least one token.")
    if limit is not None and longest > limit:
        raise ValueError(
            f"{split} row {row} has a prompt of {longest} tokens, more than max_prompt_tokens={limit}. Raise "
            "max_prompt_tokens, shorten the prompt, or cut prompts by truncate_prompts."
        )
    models = (parts.student, parts.teacher if teacher else None)
    check_lengths(*models, longest, training.max_new_tokens, prompt=f"the prompt of {split} row {row}")
