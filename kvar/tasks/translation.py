"""Translation, scored by sacreBLEU and chrF."""

from __future__ import annotations

from collections.abc import Sequence

from kvar.tasks.base import Example
from kvar.tasks.bleu import bleu_score
from kvar.tasks.corpus_score import CorpusScore
from kvar.tasks.text import TextTask

__all__ = ["TranslationTask"]


class TranslationTask(TextTask):
    """Sentence pairs; the prompt is the source behind ``prefix`` (the paper's: "translate English to Dutch: ")."""

    name = "translation"

    def scores(self, predictions: Sequence[str], examples: Sequence[Example]) -> dict[str, CorpusScore]:
        """Corpus BLEU with sacreBLEU's default (13a, cased) and chrF, 0 to 100 each."""
        bleu = bleu_score(predictions, [example.target for example in examples])
        return {"bleu": bleu, **super().scores(predictions, examples)}
