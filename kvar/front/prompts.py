"""The prompts of a measurement as token ids, checked before sampling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

from torch import Tensor

from kvar.front.models import Models
from kvar.rollouts import Policy, check_lengths, encode_prompts, is_encoder_decoder, vocabulary_size

__all__ = ["prompt_ids"]


def prompt_ids(prompts: Any, models: Models, max_new_tokens: int, policy: Policy) -> tuple[Tensor, Tensor]:
    """(M, S) ids and (M, S) mask of the prompts.

    Args:
        prompts: M prompts in any form that ``kvar.rollouts.encode_prompts`` takes, or any iterable of them.
        models: student, teacher and tokenizer.
        max_new_tokens: length limit of responses.
        policy: of the student.

    Raises:
        ValueError: a single text, no prompts, an empty one, one too long, or a token id that a model does not know.
    """
    if isinstance(prompts, str | bytes):
        raise ValueError(f"prompts is one text ({prompts[:40]!r}), not a list of texts: pass prompts=[text].")
    if not isinstance(prompts, Mapping | Tensor | tuple | Set) and isinstance(prompts, Iterable):
        prompts = list(prompts)  # a column of a frame or data set, a generator
    ids, mask = encode_prompts(prompts, models.tokenizer, models.student, policy=policy)
    if ids.dim() != 2 or mask.shape != ids.shape:
        raise ValueError(
            f"prompts must have shape (M, S), and their mask too; got {tuple(ids.shape)} and {tuple(mask.shape)}."
        )
    lengths = mask.sum(dim=1)
    shortest, longest = int(lengths.argmin()), int(lengths.argmax())
    if int(lengths[shortest]) == 0 and not all(is_encoder_decoder(m) for m in (models.student, models.teacher)):
        raise ValueError(
            f"prompts[{shortest}] has no token, but a causal model needs one: add a token, or leave the prompt out."
        )
    check_lengths(models.student, models.teacher, int(lengths[longest]), max_new_tokens, prompt=f"prompts[{longest}]")
    _check_known(ids, mask, models)
    return ids, mask


def _check_known(ids: Tensor, mask: Tensor, models: Models) -> None:
    sizes = [_embedded(model) for model in (models.student, models.teacher)]
    if hasattr(models.tokenizer, "get_vocab"):
        sizes.append(vocabulary_size(models.tokenizer))
    known = min((size for size in sizes if size is not None), default=None)
    odd = mask & ((ids < 0) | (ids >= known)) if known is not None else mask & (ids < 0)
    if bool(odd.any()):
        row, column = (int(i) for i in odd.nonzero()[0])
        raise ValueError(
            f"prompts[{row}] has token id {int(ids[row, column])}, but the models have {known} tokens: encode prompts "
            "with their tokenizer."
        )


def _embedded(model: Any) -> int | None:
    """The number of tokens of a model's input embeddings."""
    get = getattr(model, "get_input_embeddings", None)
    weight = getattr(get() if get else None, "weight", None)
    return None if weight is None else len(weight)
