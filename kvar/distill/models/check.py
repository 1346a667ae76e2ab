"""Check that student, teacher and tokenizer fit together, before training starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvar.rollouts import check_lengths, is_encoder_decoder, vocabulary_size
from kvar.rollouts.forward import decoder_start
from kvar.rollouts.output_embedding import logit_width

__all__ = ["check_models", "check_rows"]


def check_models(student: Any, teacher: Any | None, tokenizer: Any) -> None:
    """Raise ValueError for models that cannot be distilled with this tokenizer.

    Args:
        student: seq2seq or causal model.
        teacher: likewise, or None.
        tokenizer: of both models.

    Raises:
        ValueError: a tokenizer without pad or end-of-sequence token; a model with fewer tokens than the tokenizer; a
            teacher that ends sequences with another token, or with none; an encoder-decoder without a start token.
    """
    eos = tokenizer.eos_token_id
    if eos is None:
        raise ValueError(
            "the tokenizer has no end-of-sequence token, so no response could end. Set tokenizer.eos_token to the "
            "token that the teacher ends with, and save the tokenizer."
        )
    if tokenizer.pad_token_id is None:
        raise ValueError("the tokenizer has no pad token: set tokenizer.pad_token (its eos_token will do).")
    for role, model in (("student", student), ("teacher", teacher)):
        if model is None:
            continue
        width, size = logit_width(model, config=False), vocabulary_size(tokenizer)
        if width is not None and width < size:
            raise ValueError(
                f"the {role} has {width} tokens, the tokenizer {size}: it was made for another tokenizer, or tokens "
                f"were added later. Use the {role}'s own tokenizer, or resize_token_embeddings({size}) and save it."
            )
        if is_encoder_decoder(model):
            decoder_start(model)
    if teacher is not None:
        _check_end(teacher, tokenizer)


def check_rows(datasets: Mapping[str, Any], student: Any, teacher: Any | None, max_new_tokens: int) -> None:
    """Raise ValueError where a data set's longest prompt leaves student or teacher no room for a response."""
    for name, dataset in datasets.items():
        if dataset is not None and "prompt_length" in (getattr(dataset, "column_names", None) or ()):
            lengths = list(dataset["prompt_length"])
            longest = max(lengths)
            where = f"row {lengths.index(longest)} of {name}"
            check_lengths(student, teacher, longest, max_new_tokens, prompt=f"the prompt of {where}")


def _check_end(teacher: Any, tokenizer: Any) -> None:
    known: set[int] = set()
    for holder in (getattr(teacher, "generation_config", None), getattr(teacher, "config", None)):
        value = getattr(holder, "eos_token_id", None)
        known.update(value if isinstance(value, list) else [] if value is None else [value])
    if not known:
        raise ValueError(
            "the teacher has no end-of-sequence token, neither in generation_config nor in config, so its value of "
            f"ending means nothing. Set teacher.generation_config.eos_token_id = {tokenizer.eos_token_id} "
            f"({tokenizer.eos_token!r}) if that is what it was trained to end with, and save it."
        )
    if tokenizer.eos_token_id not in known:
        raise ValueError(
            f"the tokenizer ends sequences with {tokenizer.eos_token!r} (id {tokenizer.eos_token_id}), the teacher "
            f"with id {', '.join(map(str, sorted(known)))} "
            f"({', '.join(repr(tokenizer.convert_ids_to_tokens(i)) for i in sorted(known))}). Set tokenizer.eos_token "
            "to the teacher's, or the teacher's generation_config.eos_token_id to the tokenizer's."
        )
