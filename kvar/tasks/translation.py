"""Translation, scored by sacreBLEU and chrF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvar.tasks.base import Example
from kvar.tasks.scores.bleu import bleu_score
from kvar.tasks.scores.bleu_tokenizers import check_bleu_tokenizer
from kvar.tasks.scores.corpus_score import CorpusScore
from kvar.tasks.text import TextTask

__all__ = ["TranslationTask"]


class TranslationTask(TextTask):
    """Sentence pairs; the prompt is ``prefix`` (the paper's: "translate English to Dutch: ") and the source.

    Args:
        bleu_tokenizer: sacreBLEU's tokeniser; see ``kvar.tasks.scores.bleu.bleu_score``.
        arguments: as of :class:`TextTask`.
        options: as of :class:`TextTask`.
    """

    name = "translation"
    reward = "bleu"

    def __init__(self, *arguments: Any, bleu_tokenizer: str = "13a", **options: Any) -> None:
        super().__init__(*arguments, **options)
        check_bleu_tokenizer(bleu_tokenizer)
        self.bleu_tokenizer = bleu_tokenizer

    def scores(self, predictions: Sequence[str], examples: Sequence[Example]) -> dict[str, CorpusScore]:
        """Corpus BLEU (sacreBLEU's, cased) and chrF, 0 to 100 each."""
        bleu = bleu_score(predictions, [example.target for example in examples], tokenizer=self.bleu_tokenizer)
        return {"bleu": bleu, **super().scores(predictions, examples)}
