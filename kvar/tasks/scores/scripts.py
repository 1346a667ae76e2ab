"""Words of any script by Unicode's categories, and the scripts without blanks between words."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

__all__ = ["is_letter", "unicode_words", "without_blanks"]

SCRIPTS = (
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
"""Beginnings of the Unicode names of letters in scripts without blanks between words."""
ZERO_WIDTH_SPACE = "\u200b"
ASCII_WORD = re.compile(r"[a-z0-9]+")


@lru_cache(maxsize=2**16)
def is_letter(char: str) -> bool:
    """Whether a character is a letter."""
    return unicodedata.category(char)[0] == "L"


@lru_cache(maxsize=2**16)
def without_blanks(char: str) -> bool:
    """Whether a character is a letter of a script without blanks between words."""
    return char > "\u0e00" and is_letter(char) and unicodedata.name(char, "").startswith(SCRIPTS)


@lru_cache(maxsize=2**16)
def _in_word(char: str) -> bool:
    return unicodedata.category(char)[0] in "LMN"


def unicode_words(text: str) -> list[str]:
    """The words of a text, normalised by NFKC and casefold.

    A word is a run of letters, marks and digits; in scripts without blanks between words it is a single letter with the
    marks that follow it. On ASCII text these are the words of ``rouge-score``.

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
            continue  # joiners and soft hyphens do not separate words
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
