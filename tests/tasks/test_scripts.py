"""Scores of scripts other than English's: by hand, against the libraries, and said where a tokeniser makes them."""

from __future__ import annotations

import math
import string
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvar.study.run.tasks import build_task
from kvar.study.settings.reading import settings_from
from kvar.tasks import Example, SummarisationTask, TranslationTask, task_from_options
from kvar.tasks.scores.bleu import bleu_score
from kvar.tasks.scores.rouge import UnicodeTokenizer, rouge_scores
from kvar.tasks.scores.scripts import unicode_words

CHINESE = "市议会通过了新的森林法。"


@pytest.fixture
def silent() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Größe GRÖSSE", ["grösse", "grösse"]),
        ("caf\u00e9 cafe\u0301", ["café", "café"]),
        ("\ufb01ne \uff21\uff22\u0661", ["fine", "ab\u0661"]),
        ("не-сказано, «да»", ["не", "сказано", "да"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("한국어를 쓴다", ["한국어를", "쓴다"]),
        ("新的x1森林", ["新", "的", "x1", "森", "林"]),
        ("カタカナ ひらがな 人々", [*"カタカナひらがな人々"]),
        ("\uff76\uff9e", ["\u30ac"]),  # halfwidth ka with its voicing mark is ga
        ("ที่นี่", ["ที่", "นี่"]),  # consonants with their vowel and tone marks
        ("\u0645\u06cc\u200c\u062e", ["\u0645\u06cc\u062e"]),  # Persian, a joiner inside a word
        ("a_b\u200bc d\u00adef", ["a", "b", "c", "def"]),
        ("", []),
        ("«—» !", []),
    ],
)
def test_words_of_any_script(text: str, words: list[str]) -> None:
    assert unicode_words(text) == words


@given(st.text(string.printable, max_size=60), st.booleans())
def test_of_ascii_the_words_are_rouge_scores(text: str, stemmer: bool) -> None:
    from rouge_score.tokenizers import DefaultTokenizer

    assert UnicodeTokenizer(stemmer).tokenize(text) == DefaultTokenizer(stemmer).tokenize(text)


def test_rouge_of_russian_by_hand() -> None:
    """2 of 2 words against 2 of 4, 1 of 1 bigrams against 1 of 3."""
    scores = rouge_scores(["Новый закон"], ["новый закон принят вчера"], tokenizer="unicode")
    assert scores["rouge1"].value == pytest.approx(100 * 2 / 3)
    assert scores["rouge2"].value == pytest.approx(100 / 2)
    assert scores["rougeL"].value == pytest.approx(100 * 2 / 3)


def test_rouge_of_chinese_by_hand() -> None:
    """3 of 4 characters against 3 of 6."""
    scores = rouge_scores(["新法森林"], ["新的森林草地"], tokenizer="unicode")
    assert scores["rouge1"].value == pytest.approx(100 * 2 * 0.75 * 0.5 / 1.25)


def test_auto_takes_unicode_where_a_to_z_is_not_enough_and_says_so() -> None:
    """Two of six words against two of four; rouge-score's own would find the same six on both sides."""
    task = SummarisationTask("none", "a", "b")
    with pytest.warns(UserWarning, match=r"rouge_tokenizer auto: 17.6% of the references' letters") as said:
        german = task.metrics(["Die Gr e der H user"], [Example("x", "Die Größe der Häuser")])
    assert len(said) == 1
    assert german["rouge1"] == pytest.approx(100 * 2 * (2 / 6) * (2 / 4) / (2 / 6 + 2 / 4))
    with pytest.warns(UserWarning, match=r"ascii: 17.6% .* do not count; 0 of 1"):
        old = rouge_scores(["Die Gr e der H user"], ["Die Größe der Häuser"], tokenizer="ascii")
    assert old["rouge1"].value == 100


@pytest.mark.usefixtures("silent")
def test_auto_keeps_the_numbers_of_english() -> None:
    """One accent in 300 letters is a name's; stays rouge-score's own, so that earlier numbers stand."""
    from rouge_score.rouge_scorer import RougeScorer

    truth = "the café was closed " + "and the people who wanted to eat there went home " * 6
    text = "the caf was shut " + "and the people who wanted to eat went home " * 6
    theirs = RougeScorer(["rouge2"], use_stemmer=True).score(truth, text)["rouge2"].fmeasure
    assert rouge_scores([text], [truth])["rouge2"].value == pytest.approx(100 * theirs, rel=1e-12)
    assert rouge_scores([text], [truth], tokenizer="unicode")["rouge2"].value < 100 * theirs


def test_auto_tells_of_the_few_references_that_are_lost() -> None:
    english = "and the people who wanted to eat there went home " * 50
    with pytest.warns(UserWarning, match=r"auto: 0.1% .* 1 of 2 references lose most"):
        rouge_scores([english, "да"], [english, "да"])


def test_no_references_are_no_fault() -> None:
    assert math.isnan(rouge_scores([], [])["rouge1"].value)


@pytest.mark.usefixtures("silent")
def test_bleu_by_sacrebleus_tokenisers() -> None:
    """Nine of the reference's eleven characters and its full stop, in order: precisions by hand."""
    task = TranslationTask("none", "a", "b", bleu_tokenizer="zh")
    assert task.metrics([CHINESE], [Example("x", CHINESE)]) == pytest.approx({"bleu": 100, "chrf": 100})
    # 森林法草地 against 森林法草地人: all n-grams are there, five tokens for six
    assert bleu_score(["森林法草地"], ["森林法草地人"], tokenizer="zh").value == pytest.approx(
        100 * math.exp(1 - 6 / 5)
    )
    assert bleu_score(["ab cde"], ["abc def"], tokenizer="char").value == pytest.approx(
        100 * math.exp((math.log(5 / 5) + math.log(4 / 4) + math.log(3 / 3) + math.log(2 / 2)) / 4 + 1 - 6 / 5)
    )
    assert bleu_score(["Wie «geht» es dir?"], ["Wie « geht » es dir ?"], tokenizer="intl").value == pytest.approx(100)


@pytest.mark.parametrize(
    ("tokenizer", "references", "count"),
    [
        ("13a", [CHINESE, "the law", "森林法"], "2 of 3"),
        ("intl", ["これはペンです。"], "1 of 1"),
        ("zh", ["これはペンです。", CHINESE], "1 of 2"),  # sacreBLEU's zh leaves kana together
        ("13a", ["พวกเขาไปโรงเรียนทุกวัน"], "1 of 1"),
    ],
)
def test_bleu_says_what_its_tokens_cannot_part(tokenizer: str, references: list[str], count: str) -> None:
    with pytest.warns(UserWarning, match=rf"bleu_tokenizer '{tokenizer}': {count} references .* ja-mecab .*or char"):
        bleu_score(references, references, tokenizer=tokenizer)


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize(
    ("tokenizer", "reference"),
    [
        ("13a", "Совет принял новый закон"),
        ("13a", "한국어를 쓴다"),
        ("13a", "the sign says 森林法 in the park"),
        ("zh", CHINESE),
        ("char", "これはペンです。"),
        ("13a", ""),
        ("13a", "1 + 1 = 2"),
    ],
)
def test_bleu_is_silent_where_words_are_parted(tokenizer: str, reference: str) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        bleu_score([reference], [reference], tokenizer=tokenizer)
    assert not told


def test_unknown_and_missing_tokenisers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"bleu_tokenizer 'chinese' is unknown; choose one of: 13a, intl, zh"):
        TranslationTask("none", "a", "b", bleu_tokenizer="chinese")
    with pytest.raises(ValueError, match=r"rouge_tokenizer 'utf8' is unknown; choose one of: auto, ascii, unicode"):
        task_from_options("summarisation", data="d", source_field="a", target_field="b", rouge_tokenizer="utf8")
    monkeypatch.setattr("kvar.tasks.scores.bleu_tokenizers.find_spec", lambda name: None)
    for name, package in (
        ("ja-mecab", r"sacrebleu\[ja\]"),
        ("ko-mecab", r"sacrebleu\[ko\]"),
        ("flores200", "sentencepiece"),
    ):
        with pytest.raises(ValueError, match=rf"'{name}' needs a package .* pip install '{package}'"):
            bleu_score(["a"], ["a"], tokenizer=name)
    monkeypatch.setattr("kvar.tasks.scores.bleu_tokenizers.find_spec", lambda name: name)
    monkeypatch.setattr("sacrebleu.utils.SACREBLEU_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="'flores200' needs sacreBLEU's file"):
        bleu_score(["a"], ["a"], tokenizer="flores200")


def test_configs_choose_them() -> None:
    base = {"data": "d", "source_field": "a", "target_field": "b", "student": "x", "output_dir": "o", "use_cpu": True}
    fields = {**base, "task": "translation", "bleu_tokenizer": "char", "report_to": "none"}
    task = build_task(settings_from(fields, "-")[0].task)
    assert isinstance(task, TranslationTask)
    assert task.bleu_tokenizer == "char"
    task = build_task(settings_from({**base, "task": "summarisation"}, "-", {"rouge_tokenizer": "unicode"})[0].task)
    assert isinstance(task, SummarisationTask)
    assert task.rouge_tokenizer == "unicode"
