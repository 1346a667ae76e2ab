"""Corpus BLEU and chrF by sacreBLEU, held as the sums of each sentence's n-gram counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvar.tasks.scores.bleu_tokenizers import check_bleu_tokenizer, warn_of_unsplit
from kvar.tasks.scores.corpus_score import CorpusScore, check_pairs

__all__ = ["bleu_score", "chrf_score", "sentence_bleu"]


def bleu_score(predictions: Sequence[str], references: Sequence[str], *, tokenizer: str = "13a") -> CorpusScore:
    """Corpus BLEU-4, 0 to 100, with sacreBLEU's defaults (13a tokens, cased, exponential smoothing; Post 2018).

    Args:
        predictions: generated texts.
        references: one reference a prediction.
        tokenizer: how sacreBLEU tells words apart: 13a, or intl (Unicode punctuation), zh, ja-mecab, ko-mecab, char,
            flores200. Where the references have no blanks between words and it cannot part them, a warning says so.

    Raises:
        ValueError: predictions and references of different number, or a tokeniser that is unknown or not here.

    Example:
        >>> round(bleu_score(["the cat is on the mat"], ["the cat sat on the mat"]).value, 2)
        37.99
        >>> round(bleu_score(["市议会通过了森林法"], ["市议会通过了新森林法"], tokenizer="zh").value, 2)
        66.9
    """
    from sacrebleu.metrics import BLEU

    check_bleu_tokenizer(tokenizer)
    warn_of_unsplit(tokenizer, references)
    return _by_sacrebleu(BLEU(tokenize=tokenizer), predictions, references)


def sentence_bleu(predictions: Sequence[str], references: Sequence[str], *, tokenizer: str = "13a") -> list[float]:
    """BLEU of every sentence alone, 0 to 100, without n-grams longer than the sentence: sacreBLEU's ``sentence_bleu``.

    Args:
        predictions: generated texts.
        references: one reference a prediction.
        tokenizer: as of :func:`bleu_score`.

    Example:
        >>> [round(x, 1) for x in sentence_bleu(["the cat", "a dog"], ["the cat", "the dog"])]
        [100.0, 50.0]
    """
    from sacrebleu.metrics import BLEU

    check_pairs(predictions, references)
    metric = BLEU(tokenize=tokenizer, effective_order=True)
    return [
        metric.sentence_score(text, [reference]).score for text, reference in zip(predictions, references, strict=True)
    ]


def chrf_score(predictions: Sequence[str], references: Sequence[str]) -> CorpusScore:
    """Corpus chrF2 (character 6-grams, beta 2; Popovic 2015), 0 to 100, with sacreBLEU's defaults."""
    from sacrebleu.metrics import CHRF

    return _by_sacrebleu(CHRF(), predictions, references)


def _by_sacrebleu(metric: Any, predictions: Sequence[str], references: Sequence[str]) -> CorpusScore:
    """The per-sentence statistics that sacreBLEU's own bootstrap (sacrebleu.significance) works on."""
    check_pairs(predictions, references)
    rows = metric._extract_corpus_statistics(list(predictions), [list(references)])

    def combine(sums: NDArray[np.float64]) -> float:
        return float(metric._compute_score_from_stats(np.rint(sums).astype(int).tolist()).score)

    return CorpusScore(np.asarray(rows, dtype=np.float64).reshape(len(predictions), -1), combine)
