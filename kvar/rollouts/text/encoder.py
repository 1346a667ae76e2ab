"""Encoding of prompts and targets, the same for data sets, probes, sampling, judges and evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from kvar.rollouts.forward import decoder_start, is_encoder_decoder
from kvar.rollouts.policy import Policy, policy_of
from kvar.rollouts.text.conversations import ChatTemplate, Message, is_conversation
from kvar.rollouts.text.plain import content_ids, control_tokens, tokens_of

__all__ = ["Prompt", "TextEncoder", "check_prompts", "frame"]

Prompt = str | Sequence[Message]
"""A text, or a conversation: a list of messages with role and content."""

FORMS = (
    "a list of texts; a list of conversations, each a list of messages with role and content; a list of lists of token "
    "ids; what a tokenizer returns; or (prompt_ids, prompt_mask)"
)


class TextEncoder:
    """Encodes prompts and targets as a model with its tokenizer expects them.

    Prompts get the tokenizer's special tokens once; those of a causal model no end-of-sequence. Targets are the tokens
    that the model emits: without beginning-of-sequence for a causal model, without the tokens given to the decoder of
    an encoder-decoder (its start, forced language codes), and with exactly one end. The text of a special token stays
    text. Conversations are encoded by the tokenizer's chat template, which writes all special tokens.

    Args:
        tokenizer: fast or slow.
        model: causal or encoder-decoder, with the tokens that end a response. None: the tokenizer's special tokens
            around prompts are kept, and targets are encoded where both kinds of model agree.
        policy: default that of model and tokenizer.
        options: passed to the chat template.
    """

    def __init__(
        self, tokenizer: Any, model: Any = None, policy: Policy | None = None, options: Mapping[str, Any] | None = None
    ) -> None:
        self.tokenizer, self.model, self.options = tokenizer, model, options
        self.seq2seq = None if model is None else is_encoder_decoder(model)
        if policy is None and model is not None:
            policy = policy_of(model, tokenizer)
        self.policy = policy
        eos = getattr(tokenizer, "eos_token_id", None)
        self.ends = policy.ends if policy is not None else () if eos is None else (eos,)

    def prompts(self, prompts: Sequence[Prompt], what: str = "prompts row") -> list[list[int]]:
        """Token ids of texts or conversations.

        Raises:
            ValueError: neither texts nor conversations, a prompt without any token, a conversation without a chat
                template; the message names the row.
        """
        check_prompts(prompts)
        if is_conversation(prompts[0]):
            chat = self._chat()
            encoded = [chat.prompt(messages, f"{what} {row}") for row, messages in enumerate(prompts)]  # type: ignore[arg-type]
        else:
            encoded = self._prompt_texts(_texts(prompts, what), what)
        for row, ids in enumerate(encoded):
            if not ids:
                raise ValueError(f"{what} {row} has an empty prompt; every prompt needs at least one token.")
        return encoded

    def targets(self, texts: Sequence[str], what: str = "targets row") -> list[list[int]]:
        """Token ids of target texts, each with one end: the one that the text ends with, else the tokenizer's.

        Raises:
            ValueError: no end-of-sequence token, an end inside a target, or, without a model, special tokens that only
                the model tells to be part of a target or not.
        """
        before, after = self._target_frame()
        split = [self._without_end(text) for text in _texts(texts, what)]
        content, _ = content_ids([text for text, _ in split], self.tokenizer, ends=self.ends, target=True, what=what)
        for row, ids in enumerate(content):
            inside = next((token for token in ids if token in self.ends), None)
            if inside is not None:
                raise ValueError(
                    f"{what} {row} holds token {inside} ({self.tokenizer.decode([inside])!r}), which ends a response. "
                    "Take it out of the text, or out of generation_config.eos_token_id."
                )
        return [
            [*before, *ids, *(after if end is None else (end,))] for ids, (_, end) in zip(content, split, strict=True)
        ]

    def pairs(
        self, prompts: Sequence[Prompt], targets: Sequence[Any], what: str = "example"
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids of prompts with their targets: texts, or conversations with the answer to each.

        Args:
            prompts: N texts or N conversations.
            targets: N texts; for conversations also N messages of the assistant.
            what: name of a row in errors.

        Raises:
            ValueError: see :meth:`prompts` and :meth:`targets`; an answer that is not a message of the assistant.
        """
        check_prompts(prompts)
        if not is_conversation(prompts[0]):
            return self.prompts(prompts, what), self.targets(targets, what)
        chat = self._chat()
        conversations: Sequence[Any] = prompts
        both: list[tuple[list[int], list[int]]] = []
        for row, (messages, target) in enumerate(zip(conversations, targets, strict=True)):
            answer = {"role": "assistant", "content": target} if isinstance(target, str) else target
            if not isinstance(answer, Mapping) or not is_conversation(messages):
                raise ValueError(
                    f"{what} {row}: a conversation needs an answer that is a text or one message; got "
                    f"{type(target).__name__}."
                )
            if self.seq2seq:
                text: Any = answer.get("content")
                both.append((chat.prompt(messages, f"{what} {row}"), self.targets([text], f"{what} {row}, target")[0]))
            else:
                both.append(chat.exchange([*messages, answer], f"{what} {row}"))
        return [prompt for prompt, _ in both], [target for _, target in both]

    def _chat(self) -> ChatTemplate:
        return ChatTemplate(self.tokenizer, self.ends, sure=self.policy is not None, options=self.options)

    def _prompt_texts(self, texts: Sequence[str], what: str) -> list[list[int]]:
        before, after = frame(self.tokenizer)
        if self.seq2seq is False:
            after = tuple(token for token in after if token not in self.ends)
        content, odd = content_ids(texts, self.tokenizer, ends=self.ends, what=what)
        if odd:
            names = control_tokens(self.tokenizer, self.ends).values()
            held = sorted({name for row in odd for name in names if name and name in texts[row]})
            warnings.warn(
                f"{len(odd)} of {len(texts)} prompts hold the text of special tokens ({', '.join(held[:4])}), which is "
                "encoded as plain characters. Give what a chat template has written as a conversation instead: "
                "[{'role': 'user', 'content': ...}].",
                stacklevel=2,
            )
        return [[*before, *ids, *after] for ids in content]

    def _without_end(self, text: str) -> tuple[str, int | None]:
        """A target's text without the end token that it may end with, and that token."""
        names = control_tokens(self.tokenizer, self.ends)
        end = None
        while True:
            bare = text.rstrip()
            last = next((token for token in self.ends if names.get(token) and bare.endswith(names[token])), None)
            if last is None:
                return text, end
            text, end = bare[: -len(names[last])], last

    def _target_frame(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens before and after a target's text: none and one end, unless the model emits more."""
        before, after = frame(self.tokenizer, target=True)
        eos = getattr(self.tokenizer, "eos_token_id", None)
        if eos is None or (self.policy is not None and eos not in self.ends):
            eos = next(iter(self.ends), None)
        if eos is None:
            raise ValueError("the tokenizer has no end-of-sequence token, so no target could end: set its eos_token.")
        if self.seq2seq is False:
            return (), (eos,)
        if self.seq2seq is None:
            start = getattr(self.tokenizer, "bos_token_id", None)
            if set(after) <= {eos} and (not before or (before == (start,) and not after)):
                return (), (eos,)
            raise ValueError(
                f"the tokenizer puts {self._named((*before, *after))} around targets, and which of them are emitted "
                "depends on the model: pass model=student."
            )
        return self._emitted(before), (self._one_end(after, eos),)

    def _emitted(self, before: tuple[int, ...]) -> tuple[int, ...]:
        """The tokens in front of an encoder-decoder's target that are not given to the decoder."""
        forced = self.policy.forced if self.policy is not None else ()
        if before and forced and before[: len(forced)] != forced:
            raise ValueError(
                f"the tokenizer begins targets with {self._named(before)}, generation_config.forced_bos_token_id is "
                f"{self._named(forced)}: set tokenizer.tgt_lang or forced_bos_token_id so that they agree."
            )
        return before[len(forced) :] if forced else before

    def _one_end(self, after: tuple[int, ...], eos: int) -> int:
        """The end among the tokens after an encoder-decoder's target; mBART's language code is its decoder's start."""
        if not after:
            return eos
        forced = self.policy.forced if self.policy is not None else ()
        if after[0] in self.ends and set(after[1:]) <= {decoder_start(self.model), *forced, after[0]}:
            return after[0]
        raise ValueError(
            f"the tokenizer puts {self._named(after)} behind targets, where one of the model's ends "
            f"({', '.join(map(str, self.ends))}) is meant. A language code there (mBART's, PLBart's) is what the "
            f"decoder starts with: set config.decoder_start_token_id to {after[-1]}."
        )

    def _named(self, tokens: Sequence[int]) -> str:
        return " ".join(f"{token} ({self.tokenizer.convert_ids_to_tokens(token)!r})" for token in tokens)


def frame(tokenizer: Any, *, target: bool = False) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens that a tokenizer puts before and behind a text, as a prompt or as a target."""
    for probe in ("a", "1", "."):
        inner = tokens_of(tokenizer, [probe], target, add_special_tokens=False)[0]
        outer = tokens_of(tokenizer, [probe], target)[0]
        for start in range(len(outer) - len(inner) + 1) if inner else ():
            if outer[start : start + len(inner)] == inner:
                return tuple(outer[:start]), tuple(outer[start + len(inner) :])
    raise ValueError(
        f"{type(tokenizer).__name__} encodes a text in another way where it adds no special tokens, so they cannot be "
        "told from the text. Give prompts and targets as lists of token ids."
    )


def check_prompts(prompts: Any) -> None:
    """Raise ValueError for a single prompt in place of a list, an empty list and other types."""
    if isinstance(prompts, str):
        raise ValueError("prompts is one text, where a list of prompts is meant: give [prompt].")
    if not hasattr(prompts, "__len__") or not hasattr(prompts, "__getitem__"):
        raise ValueError(f"prompts must be {FORMS}; got {type(prompts).__name__}.")
    if len(prompts) == 0:
        raise ValueError("prompts is empty: give at least one prompt.")
    if is_conversation(prompts):
        raise ValueError("prompts is one conversation, where a list of prompts is meant: give [prompt].")


def _texts(texts: Sequence[Any], what: str) -> list[str]:
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"{what} {row} must be a text, as the rows before it; got {type(text).__name__}.")
    return list(texts)
