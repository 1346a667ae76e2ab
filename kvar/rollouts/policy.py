"""The action set of a model at each step of a response, the same for sampling, scoring and training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from kvar.rollouts.output_embedding import logit_width
from kvar.rollouts.vocabulary import vocabulary_size

_KNOWN: WeakKeyDictionary[Any, tuple[int | None, int, tuple[int, ...]]] = WeakKeyDictionary()
"""Tokenizer -> its length when its vocabulary was read, its size and unused ids, since reading it is slow."""

__all__ = ["Policy", "adopt", "forbidden_by", "policy_of"]


@dataclass(frozen=True)
class Policy:
    """The action set of a language model, and the tokens that begin and end its responses.

    pi(a | s_t) is the softmax of the model's logits over the actions allowed at position t; every other token has
    probability zero, for student and teacher alike. Rollouts carry the policy they are drawn from, and scores,
    gradients and training normalise over the same actions.

    Attributes:
        size: tokens 0 to ``size - 1`` may be drawn; later logits are padding of the embedding matrix. None for all of
            the model's.
        ends: tokens that end a response; the drawn one belongs to the response.
        forbidden: tokens that are never drawn.
        forbidden_first: tokens that are never drawn as the first of a response.
        forced: tokens between an encoder-decoder's start token and the response (mBART's and NLLB's language). They
            are given, not drawn, and have no score.
    """

    size: int | None = None
    ends: tuple[int, ...] = ()
    forbidden: tuple[int, ...] = ()
    forbidden_first: tuple[int, ...] = ()
    forced: tuple[int, ...] = ()

    def restricted(self, logits: Tensor, positions: Tensor | int = 0) -> Tensor:
        """Logits of the actions: cut to ``size`` tokens, minus infinity at forbidden ones.

        Args:
            logits: (N, T, V), position t of a response in column t; or (C, V) with ``positions``.
            positions: for (C, V) logits: their positions in the response, (C,) int64, or one for all.

        Returns:
            (..., min(V, size)); a view of the logits where no token is forbidden.
        """
        logits = logits[..., : self.size]
        forbidden, first_only = (
            tuple(token for token in tokens if token < logits.shape[-1])
            for tokens in (self.forbidden, self.forbidden_first)
        )
        if forbidden:
            logits = logits.index_fill(-1, _index(forbidden, logits.device), -torch.inf)
        if first_only and logits.numel():
            if logits.dim() == 3:
                positions = torch.arange(logits.shape[1], device=logits.device)
            first = torch.as_tensor(positions, device=logits.device) == 0
            columns = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
            columns[_index(first_only, logits.device)] = True
            logits = logits.masked_fill(first[..., None] & columns, -torch.inf)
        return logits

    def check_tokens(self, tokens: Tensor, mask: Tensor, name: str = "Rollouts.tokens") -> None:
        """Refuse responses with a token that this policy never draws.

        Args:
            tokens: (N, T) int64.
            mask: (N, T) bool, true on response tokens.
            name: name of the tokens in the message.

        Raises:
            ValueError: names the first such token, its row and position.
        """
        bad = torch.zeros_like(mask)
        if self.size is not None:
            bad |= tokens >= self.size
        if self.forbidden:
            bad |= torch.isin(tokens, _index(self.forbidden, tokens.device))
        if self.forbidden_first and tokens.shape[1]:
            bad[:, 0] |= torch.isin(tokens[:, 0], _index(self.forbidden_first, tokens.device))
        bad &= mask
        if bool(bad.any()):
            row, position = (int(i) for i in bad.nonzero()[0])
            raise ValueError(
                f"{name} hold token {int(tokens[row, position])} at row {row}, position {position}, which the model "
                "never emits: it is padding of its embedding matrix, or its generation config forbids it "
                "(bad_words_ids, suppress_tokens, begin_suppress_tokens). Remove the token from the text, or from the "
                "generation config."
            )

    def is_end(self, tokens: Tensor) -> Tensor:
        """Which tokens end a response: bool, of the tokens' shape."""
        return torch.isin(tokens, _index(self.ends, tokens.device))

    def joined(self, other: Policy) -> Policy:
        """This policy without the actions that ``other`` lacks (a teacher's); ends and forced tokens are this one's."""
        sizes = [size for size in (self.size, other.size) if size is not None]
        size = min(sizes) if sizes else None
        return replace(
            self,
            size=size,
            forbidden=_sorted((*self.forbidden, *other.forbidden), size),
            forbidden_first=_sorted((*self.forbidden_first, *other.forbidden_first), size),
        )


def policy_of(
    model: Any,
    tokenizer: Any = None,
    *,
    teacher: Any = None,
    vocabulary: int | None = None,
    eos_token_id: int | Sequence[int] | None = None,
) -> Policy:
    """The policy of a model with its tokenizer and generation config.

    Hard constraints of the generation config belong to the policy: ``bad_words_ids`` of one token,
    ``suppress_tokens``, ``begin_suppress_tokens``, ``forced_bos_token_id``, ``eos_token_id``. Preferences of decoding
    (temperature, penalties, lengths, beams, ``bad_words_ids`` of several tokens, ``forced_eos_token_id`` at a length
    limit) do not: they are not part of the distribution that is trained.

    Args:
        model: a transformers model, or any module with a ``config``.
        tokenizer: its ids are the actions, without those it does not use. None for all tokens of the model.
        teacher: a second model, which scores the responses: tokens it never emits are no actions, its ends are ends,
            and tokens forced on it are forced if the model forces none.
        vocabulary: allow the first this many tokens, in place of the tokenizer's.
        eos_token_id: ends of a response, in place of the tokenizer's and the generation config's.

    Raises:
        ValueError: no end-of-sequence token; all ends forbidden; a forced token outside the vocabulary; model and
            teacher force different tokens.
    """
    size, gaps = _size(model, tokenizer, vocabulary)
    ends = _ends(model, tokenizer, eos_token_id, size)
    refused = forbidden_by(model)
    forbidden = _sorted((*gaps, *refused.forbidden), size)
    if all(end in forbidden for end in ends):
        raise ValueError(
            f"every end-of-sequence token ({', '.join(map(str, ends))}) is forbidden by the generation config, so no "
            "response could end. Take it out of suppress_tokens."
        )
    policy = Policy(size, ends, forbidden, _sorted(refused.forbidden_first, size), _forced(model, size))
    if teacher is None:
        return policy
    width = logit_width(teacher, config=False)
    if width is not None and (policy.size is None or width < policy.size) and width != logit_width(model, config=False):
        policy = policy.joined(Policy(size=width))
    if eos_token_id is None:
        known = tuple(_ids(_setting(teacher, "eos_token_id")))
        policy = replace(policy, ends=_sorted((*policy.ends, *known), size))
    return replace(policy.joined(forbidden_by(teacher)), forced=_agreed(policy.forced, _forced(teacher, size)))


def adopt(model: Any, policy: Policy) -> None:
    """Write a policy's ends, forbidden and forced tokens into a model's generation config, which is saved with it.

    A student trained under its teacher's constraints then keeps them when it is decoded without the teacher, by kvar
    or by ``generate``. Only fields in which the policy adds to the model's constraints are written.
    """
    config = getattr(model, "generation_config", None)
    if config is None:
        return
    refused = forbidden_by(model)
    if set(policy.ends) - set(_ids(_setting(model, "eos_token_id"))):
        config.eos_token_id = list(policy.ends) if len(policy.ends) > 1 else policy.ends[0]
    if set(policy.forbidden) - set(refused.forbidden):
        config.suppress_tokens = sorted({*_ids(config.suppress_tokens), *policy.forbidden})
    if set(policy.forbidden_first) - set(refused.forbidden_first):
        config.begin_suppress_tokens = sorted({*_ids(config.begin_suppress_tokens), *policy.forbidden_first})
    if policy.forced and not _forced(model, None):
        config.forced_bos_token_id = policy.forced[0] if len(policy.forced) == 1 else list(policy.forced)


def _agreed(student: tuple[int, ...], teacher: tuple[int, ...]) -> tuple[int, ...]:
    if student and teacher and student != teacher:
        raise ValueError(
            f"the student's generation_config.forced_bos_token_id is {list(student)}, the teacher's {list(teacher)}: "
            "they would write different languages. Set one to the other's."
        )
    return student or teacher


def forbidden_by(model: Any) -> Policy:
    """The tokens that a model's generation config forbids, as a policy without a size and without ends."""
    ends, words = _ids(_setting(model, "eos_token_id")), _setting(model, "bad_words_ids") or []
    bad = [int(word[0]) for word in words if len(word) == 1 and word[0] not in ends]
    forbidden = _sorted((*bad, *_ids(_setting(model, "suppress_tokens"))), None)
    return Policy(forbidden=forbidden, forbidden_first=_sorted(_ids(_setting(model, "begin_suppress_tokens")), None))


def _size(model: Any, tokenizer: Any, vocabulary: int | None) -> tuple[int | None, Iterable[int]]:
    """Number of actions, and the ids below it that the tokenizer does not use."""
    if vocabulary is not None:
        return vocabulary, ()
    if not hasattr(tokenizer, "get_vocab"):
        return None, ()
    width = logit_width(model, config=False)
    length = len(tokenizer) if hasattr(tokenizer, "__len__") else None
    known = _KNOWN.get(tokenizer)
    if known is None or length is None or known[0] != length:
        size = vocabulary_size(tokenizer)
        gaps = tuple(sorted(set(range(size)).difference(tokenizer.get_vocab().values())))
        known = _KNOWN[tokenizer] = (length, size, gaps)
    size, gaps = known[1:]
    return size if width is None else min(size, width), gaps


def _ends(model: Any, tokenizer: Any, given: int | Sequence[int] | None, size: int | None) -> tuple[int, ...]:
    if given is not None and _ids(given):
        return _sorted(_ids(given), None)
    ids = (*_ids(getattr(tokenizer, "eos_token_id", None)), *_ids(_setting(model, "eos_token_id")))
    ends = _sorted(ids, size)
    if not ends:
        raise ValueError(
            "no end-of-sequence token: set tokenizer.eos_token, config.eos_token_id or pass eos_token_id=."
        )
    return ends


def _forced(model: Any, size: int | None) -> tuple[int, ...]:
    if not getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return ()
    forced = tuple(_ids(_setting(model, "forced_bos_token_id")))
    if size is not None and any(token >= size for token in forced):
        raise ValueError(
            f"generation_config.forced_bos_token_id={forced[0]} is no token of the tokenizer, which has {size}. Set it "
            "to the tokenizer's id of the language (or of its bos_token), or to None."
        )
    return forced


def _setting(model: Any, name: str) -> Any:
    """The generation config's value, else the config's."""
    for holder in (getattr(model, "generation_config", None), getattr(model, "config", None)):
        value = getattr(holder, name, None)
        if value is not None:
            return value
    return None


def _ids(value: Any) -> list[int]:
    if value is None:
        return []
    if isinstance(value, Tensor):
        value = value.tolist()
    return [int(token) for token in (value if isinstance(value, list | tuple | set) else [value])]


def _sorted(ids: Iterable[int], size: int | None) -> tuple[int, ...]:
    return tuple(sorted({token for token in ids if token >= 0 and (size is None or token < size)}))


@lru_cache(maxsize=64)
def _index(ids: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(ids, dtype=torch.long, device=device)
