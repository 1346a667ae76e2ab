"""The interface of tasks: examples by split, metrics over generated texts, and a small tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from kvar.tasks.scores.corpus_score import CorpusScore

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["SPLITS", "Example", "Task"]

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Example:
    """One prompt and its reference response, as text."""

    prompt: str
    target: str


class Task(Protocol):
    """A source of prompts with references, a metric, and a way to build a tokenizer for models trained from scratch."""

    name: str
    reward: str  # the score that ``example_scores`` gives where none is named
    calculator_marks: tuple[str, str] | None  # what opens and closes a calculation in its responses; None for none

    def examples(self, split: str, limit: int | None = None) -> list[Example]:
        """The examples of ``split`` ("train", "validation" or "test"), the first ``limit`` of them where given."""

    def scores(self, predictions: Sequence[str], examples: Sequence[Example]) -> dict[str, CorpusScore]:
        """The same scores as sums over the examples, so that they can be resampled; the order is the examples'."""

    def metrics(self, predictions: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
        """Scores of generated texts against the examples' targets, name -> value."""

    def example_scores(
        self, predictions: Sequence[str], examples: Sequence[Example], name: str | None = None
    ) -> list[float]:
        """One number an example, the larger the better: what the reward ``score`` of training is.

        Args:
            predictions: generated texts.
            examples: their examples.
            name: which score; None for ``reward``.
        """

    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        """A tokenizer made from the task's own training text, with pad and end-of-sequence tokens."""
