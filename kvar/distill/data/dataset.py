"""Encode a task's examples or the rows of a table, and collate them into padded batches of token ids."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kvar.distill.data.rows import Row, as_row, check_ids, holds_ids
from kvar.rollouts import Policy, Rollouts, TextEncoder
from kvar.rollouts.padding import pad_right

if TYPE_CHECKING:
    from datasets import Dataset

    from kvar.tasks import Example

__all__ = ["Collator", "build_dataset", "prepared", "reference_rollouts"]


def build_dataset(
    examples: Sequence[Example | dict[str, Any]],
    tokenizer: Any,
    *,
    model: Any = None,
    policy: Policy | None = None,
    max_target_tokens: int | None = None,
    max_prompt_tokens: int | None = None,
    name: str | None = None,
) -> Dataset:
    """Tokenise examples into a data set with columns prompt, target (ids), index, length and prompt_length.

    Args:
        examples: prompts and references; or rows of a table as :func:`kvar.distill.data.rows.as_row` takes them: a
            prompt and a target (or completion), as texts or messages, or the messages of a conversation.
        tokenizer: tokenizer of student and teacher.
        model: the student; see :class:`kvar.rollouts.TextEncoder` for what it decides. May be left out where the
            tokenizer adds nothing to a text, or only a token in front (causal models) or end-of-sequence (T5).
        policy: of the model; default that of model and tokenizer. With a teacher: ``policy_of(..., teacher=teacher)``.
        max_target_tokens: longer targets are cut (and get no end-of-sequence), and a warning counts them.
        max_prompt_tokens: longest prompt allowed.
        name: what messages call the data set.

    Raises:
        ValueError: no examples, rows of an unknown form, an empty prompt, or a prompt longer than
            ``max_prompt_tokens``.
    """
    from datasets import Dataset

    if not len(examples):
        raise ValueError("the data set is empty: the task gave no examples for this split.")
    what = "example" if name is None else f"{name} row"
    rows = [as_row(example, f"{what} {i}") for i, example in enumerate(examples)]
    prompts, targets = _encoded(rows, what, tokenizer, model, policy)
    for row, prompt in enumerate(prompts):
        if max_prompt_tokens is not None and len(prompt) > max_prompt_tokens:
            raise ValueError(
                f"{what} {row} has a prompt of {len(prompt)} tokens, more than max_prompt_tokens={max_prompt_tokens}. "
                "Raise max_prompt_tokens or shorten the prompt."
            )
    if max_target_tokens is not None:
        targets = _cut(targets, max_target_tokens, name or "data set")
    lengths = [len(p) + len(t) for p, t in zip(prompts, targets, strict=True)]
    columns = {"prompt": prompts, "target": targets, "index": list(range(len(prompts))), "length": lengths}
    columns["prompt_length"] = [len(prompt) for prompt in prompts]
    return Dataset.from_dict(columns)


def prepared(dataset: Any, model: Any, tokenizer: Any, *, name: str, **longest: Any) -> Any:
    """A trainer's data set as token ids: one of :func:`build_dataset` checked, one of raw rows encoded.

    Args:
        dataset: of token ids or of raw rows; several by name; or None.
        model: the student.
        tokenizer: its tokenizer.
        name: what messages call the data set.
        longest: ``max_target_tokens`` and ``max_prompt_tokens``.

    Raises:
        ValueError: rows of an unknown form (:func:`kvar.distill.data.rows.as_row`), raw rows that are streamed, or ids
            made for another kind of model.
    """
    if dataset is None:
        return None
    if isinstance(dataset, dict) and not hasattr(dataset, "column_names"):
        return {k: prepared(v, model, tokenizer, name=f"{name} {k}", **longest) for k, v in dataset.items()}
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        columns = getattr(dataset, "column_names", None)
        if columns and not {"prompt", "target", "index"} <= set(columns):
            raise ValueError(
                f"{name} is streamed and has the columns {', '.join(columns)}, not token ids. Give a data set with a "
                "length, or map the stream to prompt, target and index (build_dataset encodes them)."
            )
        return dataset
    if len(dataset) and not holds_ids(dataset[0]):
        return build_dataset(dataset, tokenizer, model=model, name=name, **longest)
    check_ids(dataset, model, tokenizer)
    return dataset


def _encoded(
    rows: Sequence[Row], what: str, tokenizer: Any, model: Any, policy: Policy | None
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of prompts and targets; rows are encoded one by one where their template options differ."""
    if all(row.options == rows[0].options for row in rows):
        encoder = TextEncoder(tokenizer, model, policy, rows[0].options)
        return encoder.pairs([row.prompt for row in rows], [row.target for row in rows], what)
    pairs = [
        TextEncoder(tokenizer, model, policy, row.options).pairs([row.prompt], [row.target], f"{what} {i}, part")
        for i, row in enumerate(rows)
    ]
    return [pair[0][0] for pair in pairs], [pair[1][0] for pair in pairs]


def _cut(targets: list[list[int]], limit: int, name: str) -> list[list[int]]:
    """Targets of at most ``limit`` tokens; a warning says how many were longer."""
    longer = [len(ids) for ids in targets if len(ids) > limit]
    if longer:
        warnings.warn(
            f"{name}: {len(longer)} of {len(targets)} targets ({len(longer) / len(targets):.1%}) are longer than "
            f"{limit} tokens and are cut, without end-of-sequence: a model trained on them does not learn to stop. "
            f"Raise max_new_tokens (max_target_tokens of build_dataset) to {max(longer)} to keep them whole.",
            stacklevel=3,
        )
    return [ids[:limit] for ids in targets]


@dataclass
class Collator:
    """Pad rows of :func:`build_dataset` on the right: prompt_ids, prompt_mask, tokens, mask, index."""

    pad_token_id: int

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Batch of ``len(rows)`` examples as int64 and bool tensors.

        Raises:
            ValueError: rows that are not token ids.
        """
        if not holds_ids(rows[0]):
            raise ValueError(
                f"a row with the columns {', '.join(rows[0])} holds no token ids (prompt, target, index). Tokenise the "
                "rows first: build_dataset(rows, tokenizer, model=student)."
            )
        prompt_ids, prompt_mask = pad_right([row["prompt"] for row in rows], self.pad_token_id)
        tokens, mask = pad_right([row["target"] for row in rows], self.pad_token_id)
        index = torch.tensor([row["index"] for row in rows])
        return {"prompt_ids": prompt_ids, "prompt_mask": prompt_mask, "tokens": tokens, "mask": mask, "index": index}


def reference_rollouts(batch: dict[str, Tensor], policy: Policy) -> Rollouts:
    """The batch's reference targets in the form of rollouts, so that one forward pass serves both."""
    tensors = (batch[name] for name in ("prompt_ids", "prompt_mask", "tokens", "mask"))
    return Rollouts.of_tokens(*tensors, prompt_index=batch["index"], policy=policy)
