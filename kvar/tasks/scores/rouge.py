"""ROUGE-1, ROUGE-2 and ROUGE-L F-measures by Google's rouge-score, for ASCII or Unicode words."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from kvar.tasks.scores.corpus_score import CorpusScore, check_pairs, mean_score
from kvar.tasks.scores.scripts import is_letter, unicode_words

__all__ = ["ROUGE_TOKENIZERS", "check_rouge_tokenizer", "rouge_scores"]

NAMES = ("rouge1", "rouge2", "rougeL")
ROUGE_TOKENIZERS = ("auto", "ascii", "unicode")
SHARE = 0.005  # share of the references' letters outside a to z from which auto is unicode


class UnicodeTokenizer:
    """:func:`kvar.tasks.scores.scripts.unicode_words` for rouge-score, with ASCII words stemmed as in rouge-score."""

    def __init__(self, stemmer: bool) -> None:
        from nltk.stem.porter import PorterStemmer  # type: ignore[import-untyped]

        self.stemmer = PorterStemmer() if stemmer else None

    def tokenize(self, text: str) -> list[str]:
        """The text's words."""
        words = unicode_words(text)
        if self.stemmer is None:
            return words
        return [self.stemmer.stem(word) if len(word) > 3 and word.isascii() else word for word in words]


def check_rouge_tokenizer(name: str) -> None:
    """Raise ValueError for an unknown name."""
    if name not in ROUGE_TOKENIZERS:
        raise ValueError(f"rouge_tokenizer {name!r} is unknown; choose one of: {', '.join(ROUGE_TOKENIZERS)}.")


def rouge_scores(
    predictions: Sequence[str], references: Sequence[str], *, stemmer: bool = True, tokenizer: str = "auto"
) -> dict[str, CorpusScore]:
    """Mean F-measures over examples, 0 to 100 (Lin 2004).

    Args:
        predictions: generated texts.
        references: one per prediction.
        stemmer: strip English suffixes (Porter) before matching, as Google's and Hugging Face's summarisation scripts
            do. Scores are about 0.5 to 1.5 points higher with it: report the choice with the number.
        tokenizer: "ascii", rouge-score's default, keeps only the letters a to z and digits: published English numbers
            use it; for other scripts it is meaningless. "unicode" keeps the letters and digits of every script, NFKC
            and casefolded; in scripts without blanks between words (Chinese, Japanese, Thai) every letter is a word.
            On ASCII texts both agree. "auto" is ascii, but unicode, with a warning, where 0.5 % or more of the
            references' letters are outside a to z.

    Returns:
        rouge1, rouge2 and rougeL (longest common subsequence of the whole texts).

    Raises:
        ValueError: different numbers of predictions and references, or an unknown tokenizer.

    Example:
        >>> scores = rouge_scores(["the cats sat"], ["the cat was sitting"])
        >>> round(scores["rouge1"].value, 2), scores["rouge2"].value.__round__(2)
        (57.14, 40.0)
        >>> scores = rouge_scores(["новый закон"], ["новый закон принят лесах"], tokenizer="unicode")
        >>> round(scores["rouge1"].value, 2)
        66.67
    """
    from rouge_score.rouge_scorer import RougeScorer

    check_rouge_tokenizer(tokenizer)
    check_pairs(predictions, references)
    unicode = _chosen(tokenizer, references) == "unicode"
    scorer = RougeScorer(list(NAMES), use_stemmer=stemmer, tokenizer=UnicodeTokenizer(stemmer) if unicode else None)
    rows = [scorer.score(reference, text) for text, reference in zip(predictions, references, strict=True)]
    return {name: mean_score([row[name].fmeasure for row in rows], 100.0) for name in NAMES}


def _chosen(tokenizer: str, references: Sequence[str]) -> str:
    """The tokenizer to use; warns where auto picks unicode, or where ascii drops too many letters."""
    if tokenizer == "unicode":
        return tokenizer
    letters = [(sum(map(is_letter, text)), sum(not c.isascii() and is_letter(c) for c in text)) for text in references]
    every, beyond = (sum(column) for column in zip(*letters, strict=True)) if letters else (0, 0)
    share = beyond / max(every, 1)
    mostly = sum(2 * outside > inside for inside, outside in letters)
    if tokenizer == "auto" and share >= SHARE:
        warnings.warn(
            f"rouge_tokenizer auto: {share:.1%} of the references' letters are outside a to z, so unicode is used. Set "
            "rouge_tokenizer to unicode, or to ascii, rouge-score's default, which drops those letters.",
            stacklevel=3,
        )
        return "unicode"
    if mostly or share >= SHARE:
        warnings.warn(
            f"rouge_tokenizer {tokenizer}: {share:.1%} of the references' letters are outside a to z and do not count; "
            f"{mostly} of {len(references)} references lose most of theirs, so their ROUGE means nothing. "
            "Set rouge_tokenizer to unicode.",
            stacklevel=3,
        )
    return "ascii"
