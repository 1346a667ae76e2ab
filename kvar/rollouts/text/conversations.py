"""Conversations encoded by the tokenizer's chat template; text in a message never becomes a special token."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kvar.rollouts.text.plain import BREAK, control_tokens, spelt, unknown_tokens

__all__ = ["ChatTemplate", "Message", "is_conversation"]

Message = Mapping[str, Any]
"""``{"role": ..., "content": ...}``, with whatever else the template reads."""


def is_conversation(value: Any) -> bool:
    """Whether ``value`` is a list of messages."""
    return isinstance(value, Sequence) and not isinstance(value, str) and bool(value) and isinstance(value[0], Mapping)


class ChatTemplate:
    """A tokenizer's chat template, from messages to token ids.

    Special tokens come from the template alone: the text of one inside a message's content stays text
    (:mod:`kvar.rollouts.text.plain`).

    Args:
        tokenizer: with a ``chat_template``.
        ends: the policy's tokens that end a response, one of which must end an answer.
        sure: whether the ends are the model's; False if only the tokenizer's are known.
        options: passed to the template, such as ``enable_thinking=False``.

    Raises:
        ValueError: a tokenizer without a chat template.
    """

    def __init__(
        self,
        tokenizer: Any,
        ends: Collection[int] = (),
        *,
        sure: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                "conversations need a chat template, and the tokenizer has none: set tokenizer.chat_template, or give "
                "prompts and targets as texts."
            )
        self.tokenizer, self.ends, self.sure, self.options = tokenizer, ends, sure, dict(options or {})
        self.special = control_tokens(tokenizer, ends)
        source = tokenizer.chat_template
        source = source if isinstance(source, str) else "".join(dict(source).values())
        added = {i: str(token) for i, token in (getattr(tokenizer, "added_tokens_decoder", None) or {}).items()}
        self.marks = {i: name for i, name in added.items() if name.strip() and name in source} | self.special

    def prompt(self, messages: Sequence[Message], what: str = "conversation") -> list[int]:
        """Tokens of a conversation up to where the answer begins; a last message of the assistant is to be continued.

        Raises:
            ValueError: something that is no conversation, or one that the template refuses.
        """
        begun = _checked(messages, what)[-1]["role"] == "assistant"
        how = {"continue_final_message": True} if begun else {"add_generation_prompt": True}
        return self._ids(self._rendered(messages, what, **how), what)

    def exchange(self, messages: Sequence[Message], what: str = "conversation") -> tuple[list[int], list[int]]:
        """Tokens of a conversation without its last message, the answer, and of the answer with the turn's end.

        Raises:
            ValueError: the last message is not the assistant's, the template writes the prompt differently before an
                answer, or it ends a turn with a token that is no end of the model.
        """
        *asked, answer = _checked(messages, what)
        if answer["role"] != "assistant" or not asked or asked[-1]["role"] == "assistant":
            raise ValueError(
                f"{what}: the last message, and it alone, must be the assistant's answer, behind a prompt; got the "
                f"roles {', '.join(message['role'] for message in messages)}."
            )
        before = self._rendered(asked, what, add_generation_prompt=True)
        whole = self._rendered([*asked, answer], what)
        if not whole.startswith(before):
            raise ValueError(
                f"{what}: the chat template writes the prompt in another way once the answer follows (it asks with "
                f"{_tail(before)!r}), so the answer cannot be told apart. Give prompt and target as texts, or set a "
                "template option such as chat_template_kwargs={'enable_thinking': False}."
            )
        prompt, ids = self._ids(before, what), self._ids(whole, what)
        rest = ids[len(prompt) :] if ids[: len(prompt)] == prompt else self._ids(whole[len(before) :], what)
        return prompt, self._ended(rest, what)

    def _ended(self, answer: list[int], what: str) -> list[int]:
        """An answer up to the token that ends its turn; with end-of-sequence if the template has no such token."""
        place = next((place for place, token in enumerate(answer) if token in self.ends), None)
        if place is not None:
            return answer[: place + 1]
        while answer and not self._text(answer[-1]):
            answer = answer[:-1]
        eos = getattr(self.tokenizer, "eos_token_id", None)
        if answer and answer[-1] in self.marks and answer[-1] not in unknown_tokens(self.tokenizer):
            if self.sure:
                end, known = answer[-1], ", ".join(map(str, sorted(self.ends)))
                raise ValueError(
                    f"{what}: the chat template ends a turn with {self.marks[end]!r} (id {end}), which is no end of "
                    f"the model ({known}), so its responses would not end there. Set generation_config.eos_token_id to "
                    f"[{known}, {end}]."
                )
            return answer
        if eos is None:
            raise ValueError(f"{what}: neither chat template nor tokenizer has a token that ends a turn.")
        return [*answer, eos]

    def _text(self, token: int) -> str:
        return str(self.tokenizer.decode([token], clean_up_tokenization_spaces=False)).strip()

    def _rendered(self, messages: Sequence[Message], what: str, **how: Any) -> str:
        """The conversation's text, with :data:`BREAK` inside any text of a special token in a message."""
        broken = [self._broken(message) for message in _checked(messages, what)]
        try:
            text = str(self.tokenizer.apply_chat_template(broken, tokenize=False, **how, **self.options))
            plain = str(self.tokenizer.apply_chat_template(list(messages), tokenize=False, **how, **self.options))
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{what}: the chat template refuses the conversation: {reason}") from error
        if text.replace(BREAK, "") != plain:
            raise ValueError(
                f"{what}: a message holds the text of a special token, and the chat template looks into its messages "
                "for such text, so it cannot be kept as text. Take the special token's text out of the message."
            )
        return text

    def _broken(self, message: Message) -> dict[str, Any]:
        # An assistant's message may contain tokens of its turn that are not special, such as <think>.
        names = (self.special if message["role"] == "assistant" else self.marks).values()
        pattern = re.compile("|".join(re.escape(n) for n in sorted(names, key=len, reverse=True) if n) or "(?!)")

        def walk(value: Any) -> Any:
            if isinstance(value, str):
                return pattern.sub(lambda match: match[0][0] + BREAK + match[0][1:], value)
            if isinstance(value, Mapping):
                return {key: walk(item) for key, item in value.items() if item is not None}
            return [walk(item) for item in value] if isinstance(value, list | tuple) else value

        return {**{k: walk(v) for k, v in message.items() if v is not None}, "role": message["role"]}

    def _ids(self, text: str, what: str) -> list[int]:
        if BREAK in text:
            return spelt(text, self.tokenizer, self.marks, written=tuple(self.marks.values()), what=what)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def _checked(messages: Sequence[Message], what: str) -> Sequence[Message]:
    """The messages, checked to have a role and text as content."""
    if not is_conversation(messages):
        raise ValueError(f"{what} must be a list of messages with role and content; got {type(messages).__name__}.")
    for place, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            held = ", ".join(map(str, message)) if isinstance(message, Mapping) else type(message).__name__
            raise ValueError(f"{what}, message {place}: needs the keys role and content; got {held}.")
        content = message.get("content")
        parts = content if isinstance(content, list | tuple) else []
        other = [part for part in parts if not (isinstance(part, Mapping) and isinstance(part.get("text"), str))]
        empty = content is None and not message.get("tool_calls")
        if empty or other or not isinstance(content, str | list | tuple | None):
            raise ValueError(f"{what}, message {place}: content must be text; got {content!r}.")
    return messages


def _tail(text: str) -> str:
    return text.replace(BREAK, "")[-40:]
