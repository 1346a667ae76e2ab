"""Summarisation, scored by ROUGE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvar.tasks.base import Example
from kvar.tasks.scores.corpus_score import CorpusScore
from kvar.tasks.scores.rouge import check_rouge_tokenizer, rouge_scores
from kvar.tasks.text import TextTask

__all__ = ["SummarisationTask"]


class SummarisationTask(TextTask):
    """Documents and summaries; the prompt is "summarize: " (the prefix of the paper and T5) and the document.

    Args:
        stemmer: Porter stemming before matching; see ``kvar.tasks.scores.rouge.rouge_scores``.
        rouge_tokenizer: auto, ascii or unicode, likewise.
        arguments: as of :class:`TextTask`.
        options: as of :class:`TextTask`.
    """

    name = "summarisation"
    default_prefix = "summarize: "
    reward = "rougeL"

    def __init__(self, *arguments: Any, stemmer: bool = True, rouge_tokenizer: str = "auto", **options: Any) -> None:
        super().__init__(*arguments, **options)
        check_rouge_tokenizer(rouge_tokenizer)
        self.stemmer, self.rouge_tokenizer = stemmer, rouge_tokenizer

    def scores(self, predictions: Sequence[str], examples: Sequence[Example]) -> dict[str, CorpusScore]:
        """ROUGE-1, ROUGE-2 and ROUGE-L, mean F-measures, 0 to 100."""
        targets = [example.target for example in examples]
        return rouge_scores(predictions, targets, stemmer=self.stemmer, tokenizer=self.rouge_tokenizer)
