"""ROUGE-1, ROUGE-2 and ROUGE-L F-measures by Google's rouge-score, and which words it counts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from kvar.tasks.scores.corpus_score import CorpusScore, check_pairs, mean_score
from kvar.tasks.scores.scripts import is_letter, unicode_words

__all__ = ["ROUGE_TOKENIZERS", "check_rouge_tokenizer", "rouge_scores"]

NAMES = ("rouge1", "rouge2", "rougeL")
ROUGE_TOKENIZERS = ("auto", "ascii", "unicode")
SHARE = 0.005  # of the references' letters beyond a to z, from which auto takes Unicode's words


class UnicodeTokenizer:
    """:func:`kvar.tasks.scores.scripts.unicode_words` for rouge-score, ASCII words stemmed as it does."""

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
    """Refuse a name that is none.

    Raises:
        ValueError: the message names those that are.
    """
    if name not in ROUGE_TOKENIZERS:
        raise ValueError(f"rouge_tokenizer {name!r} is unknown; choose one of: {', '.join(ROUGE_TOKENIZERS)}.")


def rouge_scores(
    predictions: Sequence[str], references: Sequence[str], *, stemmer: bool = True, tokenizer: str = "auto"
) -> dict[str, CorpusScore]:
    """Mean F-measures over examples, 0 to 100 (Lin 2004).

    Args:
        predictions: generated texts.
        references: one reference a prediction.
        stemmer: strip English suffixes (Porter) before matching. True is the choice of Google's and Hugging Face's
            summarisation scripts, and with it a score is a little higher (about 0.5 to 1.5 points) than without: say
            which was used beside a number.
        tokenizer: "ascii", rouge-score's own, keeps the letters a to z and digits only: published English numbers are
            of this kind, and those of other scripts mean nothing. "unicode" keeps the letters and digits of every
            script, NFKC and casefolded; without blanks between words (Chinese, Japanese, Thai) every letter is a word.
            Of ASCII texts both give the same numbers. "auto" is ascii, but unicode, with a warning, where 0.5 % or
            more of the references' letters lie outside a to z.

    Returns:
        rouge1, rouge2 and rougeL (longest common subsequence of the whole texts).

    Raises:
        ValueError: predictions and references of different number, or an unknown tokenizer.

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
    """The tokenizer that is used, with a warning where it was chosen by the text or makes nothing of it."""
    if tokenizer == "unicode":
        return tokenizer
    letters = [(sum(map(is_letter, text)), sum(not c.isascii() and is_letter(c) for c in text)) for text in references]
    every, beyond = (sum(column) for column in zip(*letters, strict=True)) if letters else (0, 0)
    share = beyond / max(every, 1)
    mostly = sum(2 * outside > inside for inside, outside in letters)
    if tokenizer == "auto" and share >= SHARE:
        warnings.warn(
            f"rouge_tokenizer auto: {share:.1%} of the references' letters are outside a to z, so words are told apart "
            "by Unicode. Set rouge_tokenizer to unicode, or to ascii for rouge-score's own, which drops those letters.",
            stacklevel=3,
        )
        return "unicode"
    if mostly or share >= SHARE:
        warnings.warn(
            f"rouge_tokenizer {tokenizer}: {share:.1%} of the references' letters are outside a to z and do not count; "
            f"{mostly} of {len(references)} references lose most of theirs, so their ROUGE is 0 or 100 by that alone. "
            "Set rouge_tokenizer to unicode.",
            stacklevel=3,
        )
    return "ascii"
