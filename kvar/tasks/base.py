"""The interface of tasks: examples by split, scores of generated texts, and a small tokenizer."""

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
    """A source of prompts with references, their scores, and a tokenizer for models trained from scratch."""

    name: str
    reward: str  # the default score of ``example_scores``
    calculator_marks: tuple[str, str] | None  # opening and closing mark of calculations in responses; None for none

    def examples(self, split: str, limit: int | None = None) -> list[Example]:
        """The examples of ``split`` ("train", "validation" or "test"), the first ``limit`` of them where given."""

    def scores(self, predictions: Sequence[str], examples: Sequence[Example]) -> dict[str, CorpusScore]:
        """The scores as sums over the examples, in order, so that they can be resampled."""

    def metrics(self, predictions: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
        """The scores' values by name, of generated texts against the examples' targets."""

    def example_scores(
        self, predictions: Sequence[str], examples: Sequence[Example], name: str | None = None
    ) -> list[float]:
        """The score ``name`` (default ``reward``) of each example, larger is better: training's reward ``score``."""

    def build_tokenizer(self) -> PreTrainedTokenizerFast:
        """A tokenizer made from the task's training text, with pad and end-of-sequence tokens."""
