"""Read prompts and targets from the rows of a table, in the column layouts of TRL; and check rows of token ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from kvar.rollouts import is_encoder_decoder, policy_of
from kvar.rollouts.text.conversations import is_conversation
from kvar.rollouts.text.encoder import frame

__all__ = ["Row", "as_row", "check_ids", "holds_ids"]

CHECKED = 256
"""Rows of a data set of token ids that are checked before training."""

FORMS = (
    "prompt and target (or completion), each a text or a list of messages with role and content; or messages, of which "
    "the last is the answer"
)


@dataclass(frozen=True)
class Row:
    """A prompt (text or conversation), its target (text or the assistant's message) and options of the template."""

    prompt: Any
    target: Any
    options: dict[str, Any] = field(default_factory=dict)


def as_row(example: Any, what: str) -> Row:
    """Prompt and target of an example or of a row of a table.

    Columns are those of TRL: ``prompt`` and ``completion`` (or ``target``), texts or conversations; or ``messages``,
    whose last message is the target and all before it the prompt. ``tools`` and ``chat_template_kwargs`` go to the chat
    template; other columns are not read.

    Raises:
        ValueError: other columns, or a completion of several messages.
    """
    if not isinstance(example, Mapping):
        if hasattr(example, "prompt") and hasattr(example, "target"):
            return Row(example.prompt, example.target)
        raise ValueError(f"{what} must have {FORMS}; got {type(example).__name__}.")
    options = dict(example.get("chat_template_kwargs") or {})
    if example.get("tools"):
        options["tools"] = example["tools"]
    messages, prompt = example.get("messages"), example.get("prompt")
    target = example.get("completion") if example.get("target") is None else example["target"]
    if messages is not None and prompt is None:
        if not is_conversation(messages) or len(messages) < 2:
            raise ValueError(f"{what}: messages must be a prompt and the answer to it; got {messages!r:.80}.")
        return Row(messages[:-1], messages[-1], options)
    if prompt is None or target is None:
        lacking = "" if prompt is None else " For prompts without targets, set target to ''."
        raise ValueError(f"{what} has the columns {', '.join(example)}; it needs {FORMS}.{lacking}")
    if is_conversation(target):
        if len(target) != 1 or not is_conversation(prompt):
            raise ValueError(
                f"{what}: a completion of messages must be one message of the assistant, and its prompt a "
                f"list of messages; got {len(target)} messages to a prompt that is {type(prompt).__name__}."
            )
        target = target[0]
    return Row(prompt, target, options)


def holds_ids(row: Any) -> bool:
    """Whether a data set's row has been tokenised by ``build_dataset``."""
    return isinstance(row, Mapping) and all(_is_ids(row.get(name)) for name in ("prompt", "target")) and "index" in row


def check_ids(dataset: Any, model: Any, tokenizer: Any) -> None:
    """Check, by its first rows, that a data set's token ids were made for this kind of model.

    Raises:
        ValueError: an end-of-sequence inside a target or, with a causal model, at the end of a prompt; a target that
            begins with beginning-of-sequence or with tokens that the decoder is given.
    """
    if not (hasattr(dataset, "__len__") and hasattr(tokenizer, "decode")):
        return
    numbers = getattr(dataset, "prompt_lengths", range(len(dataset)))  # of those that are tokenised
    rows = [row for row in (dataset[i] for i in islice(numbers, CHECKED)) if holds_ids(row)]
    policy = policy_of(model, tokenizer)
    causal = not is_encoder_decoder(model)
    behind = {token for token in frame(tokenizer)[1] if causal and token in policy.ends}
    given = frame(tokenizer, target=True)[0] if causal else policy.forced
    for place, row in enumerate(rows):
        prompt, target = list(row["prompt"]), list(row["target"])
        inside = next((token for token in target[:-1] if token in policy.ends), None)
        if prompt and prompt[-1] in behind:
            fault = f"a prompt ends with {_named(prompt[-1], tokenizer)}, which ends a response"
        elif given and tuple(target[: len(given)]) == tuple(given):
            fault = f"a target begins with {_named(target[0], tokenizer)}, which is no part of a response"
        elif inside is not None:
            fault = f"a target continues after {_named(inside, tokenizer)}, which ends a response"
        else:
            continue
        raise ValueError(
            f"row {place} of the data set: {fault}. Its tokens were not made for this model: give the raw rows, or "
            "build_dataset(examples, tokenizer, model=student)."
        )


def _named(token: int, tokenizer: Any) -> str:
    return f"token {token} ({tokenizer.convert_ids_to_tokens(token)!r})"


def _is_ids(value: Any) -> bool:
    return (
        hasattr(value, "__len__")
        and not isinstance(value, str)
        and (len(value) == 0 or not isinstance(value[0], str | Mapping))
    )
