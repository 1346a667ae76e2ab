"""Corpus BLEU and chrF by sacreBLEU, stored as each sentence's n-gram counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvar.tasks.scores.bleu_tokenizers import check_bleu_tokenizer, warn_of_unsplit
from kvar.tasks.scores.corpus_score import CorpusScore, check_pairs

__all__ = ["bleu_score", "chrf_score"]


def bleu_score(predictions: Sequence[str], references: Sequence[str], *, tokenizer: str = "13a") -> CorpusScore:
    """Corpus BLEU-4, 0 to 100, with sacreBLEU's defaults (13a tokens, cased, exponential smoothing; Post 2018).

    The score of an example alone is sacreBLEU's sentence BLEU, without n-grams longer than the sentence.

    Args:
        predictions: generated texts.
        references: one per prediction.
        tokenizer: sacreBLEU's 13a, intl (Unicode punctuation), zh, ja-mecab, ko-mecab, char or flores200. A warning is
            given for references without blanks between words that it cannot split.

    Raises:
        ValueError: different numbers of predictions and references, or a tokeniser that is unknown or not installed.

    Example:
        >>> [round(x, 1) for x in bleu_score(["the cat", "a dog"], ["the cat", "the dog"]).each]
        [100.0, 50.0]
        >>> round(bleu_score(["the cat is on the mat"], ["the cat sat on the mat"]).value, 2)
        37.99
        >>> round(bleu_score(["市议会通过了森林法"], ["市议会通过了新森林法"], tokenizer="zh").value, 2)
        66.9
    """
    from sacrebleu.metrics import BLEU

    check_bleu_tokenizer(tokenizer)
    warn_of_unsplit(tokenizer, references)
    score = _by_sacrebleu(BLEU(tokenize=tokenizer), predictions, references)
    return replace(score, single=_combine(BLEU(tokenize=tokenizer, effective_order=True)))


def chrf_score(predictions: Sequence[str], references: Sequence[str]) -> CorpusScore:
    """Corpus chrF2 (character 6-grams, beta 2; Popovic 2015), 0 to 100, with sacreBLEU's defaults."""
    from sacrebleu.metrics import CHRF

    return _by_sacrebleu(CHRF(), predictions, references)


def _by_sacrebleu(metric: Any, predictions: Sequence[str], references: Sequence[str]) -> CorpusScore:
    """A score from the per-sentence statistics that sacreBLEU's own bootstrap (sacrebleu.significance) uses."""
    check_pairs(predictions, references)
    rows = metric._extract_corpus_statistics(list(predictions), [list(references)])
    return CorpusScore(np.asarray(rows, dtype=np.float64).reshape(len(predictions), -1), _combine(metric))


def _combine(metric: Any) -> Callable[[NDArray[np.float64]], float]:
    return lambda sums: float(metric._compute_score_from_stats(np.rint(sums).astype(int).tolist()).score)
