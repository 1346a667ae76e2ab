"""The size of a tokenizer's vocabulary, and checks that teacher and student share one."""

from __future__ import annotations

from typing import Any

__all__ = ["check_same_tokenizer", "check_tokenizer", "pad_token", "vocabulary_size"]


def vocabulary_size(tokenizer: Any) -> int:
    """Number of token ids, from 0 to the tokenizer's largest.

    More than ``len(tokenizer)`` if ids have gaps; less than the width of most models, whose embedding matrices are
    padded to a rounder number. Logits beyond it belong to no token.
    """
    return 1 + max(tokenizer.get_vocab().values())


def pad_token(tokenizer: Any, model: Any) -> int | None:
    """The id of the padding token, of the tokenizer or else of the model's config."""
    for holder in (tokenizer, getattr(model, "config", None)):
        token = getattr(holder, "pad_token_id", None)
        if token is not None:
            return int(token)
    return None


def check_tokenizer(tokenizer: Any) -> None:
    """Refuse what is neither a tokenizer nor None.

    Raises:
        TypeError: an object without ``eos_token_id``.
    """
    if tokenizer is not None and not hasattr(tokenizer, "eos_token_id"):
        raise TypeError(
            f"tokenizer must be a tokenizer of transformers, or None with prompts as token ids; got {tokenizer!r:.80}."
        )


def check_same_tokenizer(student_tokenizer: Any, teacher_tokenizer: Any) -> None:
    """Refuse two tokenizers that do not give every token the same id, or end sequences differently.

    Pad tokens may differ: padding is masked everywhere.

    Raises:
        ValueError: the vocabularies differ (the message names a token on which they disagree), or the end-of-sequence
            tokens do.
    """
    ours, theirs = student_tokenizer.get_vocab(), teacher_tokenizer.get_vocab()
    if ours != theirs:
        odd = next(token for token in sorted({*ours, *theirs}) if ours.get(token) != theirs.get(token))
        raise ValueError(
            f"student and teacher have different tokenizers ({len(ours)} and {len(theirs)} tokens; {odd!r} has id "
            f"{ours.get(odd)} in one, {theirs.get(odd)} in the other). kvar needs one tokenizer for both: token-level "
            "rewards compare the same ids. Use a teacher and student of one family."
        )
    if student_tokenizer.eos_token_id != teacher_tokenizer.eos_token_id:
        raise ValueError(
            f"student and teacher end sequences differently: eos_token is {student_tokenizer.eos_token!r} in the "
            f"student's tokenizer, {teacher_tokenizer.eos_token!r} in the teacher's. Set the one tokenizer's eos_token "
            "to the other's: an end that the teacher does not know as one is scored as any other token."
        )
