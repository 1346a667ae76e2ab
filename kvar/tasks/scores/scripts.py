"""Words of any script by Unicode's categories, and the scripts that set no blanks between words."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

__all__ = ["is_letter", "unicode_words", "without_blanks"]

# How the names of letters begin in scripts whose words are not set apart
UNSPACED = (
    "CJK ",
    "IDEOGRAPHIC ",
    "HIRAGANA ",
    "KATAKANA",
    "HALFWIDTH KATAKANA",
    "THAI ",
    "LAO ",
    "KHMER ",
    "MYANMAR ",
)
ZERO_WIDTH_SPACE = "\u200b"
ASCII_WORD = re.compile(r"[a-z0-9]+")


@lru_cache(maxsize=2**16)
def is_letter(char: str) -> bool:
    """Whether a character is a letter."""
    return unicodedata.category(char)[0] == "L"


@lru_cache(maxsize=2**16)
def without_blanks(char: str) -> bool:
    """Whether a character is a letter of a script that sets no blanks between words."""
    return char > "\u0e00" and is_letter(char) and unicodedata.name(char, "").startswith(UNSPACED)


@lru_cache(maxsize=2**16)
def _in_word(char: str) -> bool:
    return unicodedata.category(char)[0] in "LMN"


def unicode_words(text: str) -> list[str]:
    """The words of a text, compatibility forms and cases folded (NFKC, casefold).

    A word is a run of letters, marks and digits; in scripts that set no blanks between words every letter, with the
    marks that follow it, stands alone. Of ASCII text these are the words that ``rouge-score`` finds.

    Example:
        >>> unicode_words("Die Größe — don't, \uff12\uff10 cafe\u0301s; 森林法 ที่นี่")
        ['die', 'grösse', 'don', 't', '20', 'cafés', '森', '林', '法', 'ที่', 'นี่']
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    if text.isascii():
        return ASCII_WORD.findall(text)
    words: list[str] = []
    inside = alone = False
    for char in text:
        if unicodedata.category(char) == "Cf" and char != ZERO_WIDTH_SPACE:
            continue  # joiners and soft hyphens part no words
        if not _in_word(char):
            inside = alone = False
            continue
        starts = without_blanks(char)
        mark = unicodedata.category(char)[0] == "M"
        if inside and not starts and (not alone or mark):
            words[-1] += char
        else:
            words.append(char)
            alone = starts
        inside = True
    return words
