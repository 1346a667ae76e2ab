"""A task whose long prompts are cut, the same for training, probes and evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from kvar.tasks.base import Example, Task

__all__ = ["TruncatedTask"]


class TruncatedTask:
    """Another task with every prompt cut to ``max_tokens`` tokens; targets stay whole.

    Args:
        task: the task.
        tokenizer: counts the tokens, including those it adds to a text, such as end-of-sequence.
        max_tokens: longest prompt.
        encode: texts -> lists of token ids; default the tokenizer's.

    Raises:
        ValueError: ``max_tokens`` leaves no room for text.
    """

    def __init__(
        self,
        task: Task,
        tokenizer: Any,
        max_tokens: int,
        encode: Callable[[list[str]], list[list[int]]] | None = None,
    ) -> None:
        self.encode = encode or (lambda texts: list(tokenizer(texts)["input_ids"]))
        self.task, self.tokenizer, self.max_tokens = task, tokenizer, max_tokens
        self.name, self.reward, self.calculator_marks = task.name, task.reward, task.calculator_marks
        self.scores, self.metrics, self.example_scores = task.scores, task.metrics, task.example_scores
        self.build_tokenizer = task.build_tokenizer
        self.added = len(tokenizer("")["input_ids"])
        if max_tokens <= self.added:
            raise ValueError(f"truncate_prompts must leave room for text: more than {self.added}; got {max_tokens}.")

    def examples(self, split: str, limit: int | None = None) -> list[Example]:
        """The task's examples, cut where they are too long; a warning says how many were."""
        examples = self.task.examples(split, limit)
        encoded = self.encode([example.prompt for example in examples]) if examples else []
        longer = sum(len(ids) > self.max_tokens for ids in encoded)
        if longer:
            warnings.warn(
                f"{split} data: {longer} of {len(examples)} prompts ({longer / len(examples):.1%}) are cut to "
                f"{self.max_tokens} tokens, as truncate_prompts says; the longest has "
                f"{max(len(ids) for ids in encoded)}.",
                stacklevel=2,
            )
        return [
            Example(self._cut(example.prompt), example.target) if len(ids) > self.max_tokens else example
            for example, ids in zip(examples, encoded, strict=True)
        ]

    def _cut(self, prompt: str) -> str:
        ids = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        for kept in range(self.max_tokens - self.added, 0, -1):  # the decoded text may encode to more tokens
            text = str(self.tokenizer.decode(ids[:kept], clean_up_tokenization_spaces=False))
            text = text.rstrip("\ufffd").strip()  # the cut may split a character of several bytes
            if text and len(self.encode([text])[0]) <= self.max_tokens:
                return text
        raise ValueError(f"a prompt cannot be cut to {self.max_tokens} tokens; raise truncate_prompts.")
