"""Metrics against hand-computed values and against the libraries' own corpus scores."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from kvar.tasks import Example, GSM8KTask, SummarisationTask, TextTask, TranslationTask, mean_score, ratio_score
from kvar.tasks.answers import answers_match, extract_answer, last_number
from kvar.tasks.scores.bleu import bleu_score, chrf_score
from kvar.tasks.scores.rouge import rouge_scores

TEXTS = ["the cat is on the mat", "there is a cat on the mat now", "dogs ran", "", "a b c d e", "two men walk home ."]
TRUTH = ["the cat sat on the mat", "there is a cat on a mat", "the dog runs", "one", "a b c d e", "two men walk home."]


def examples(targets: list[str]) -> list[Example]:
    return [Example("x", target) for target in targets]


def test_bleu_by_hand() -> None:
    """Precisions 5/6, 3/5, 1/4 and 0/3 (smoothed to 1/6); no brevity penalty."""
    expected = 100 * math.exp((math.log(5 / 6) + math.log(3 / 5) + math.log(1 / 4) + math.log(1 / 6)) / 4)
    assert bleu_score(TEXTS[:1], TRUTH[:1]).value == pytest.approx(expected)


def test_bleu_and_chrf_are_sacrebleus_corpus_scores() -> None:
    import sacrebleu

    for rows in (slice(0, 6), slice(2, 5), slice(3, 4)):
        texts, truth = TEXTS[rows], TRUTH[rows]
        assert bleu_score(texts, truth).value == sacrebleu.corpus_bleu(texts, [truth]).score
        assert chrf_score(texts, truth).value == sacrebleu.corpus_chrf(texts, [truth]).score


def test_sums_over_some_examples_are_the_score_of_those_examples() -> None:
    import sacrebleu

    for chosen in ([0, 0, 2], [1, 4, 5, 5], [2]):
        texts, truth = [TEXTS[i] for i in chosen], [TRUTH[i] for i in chosen]
        bleu, chrf = bleu_score(TEXTS, TRUTH), chrf_score(TEXTS, TRUTH)
        assert bleu.combine(bleu.rows[chosen].sum(axis=0)) == sacrebleu.corpus_bleu(texts, [truth]).score
        assert chrf.combine(chrf.rows[chosen].sum(axis=0)) == sacrebleu.corpus_chrf(texts, [truth]).score


def test_chrf_by_hand() -> None:
    """ab against ac: 1-grams have precision and recall 1/2, 2-grams 0, longer ones do not exist."""
    assert chrf_score(["ab"], ["ac"]).value == pytest.approx(100 * 0.25)


def test_rouge_by_hand() -> None:
    """cats and sitting stem to cat and sit; "sat" does not: 2 of 3 and 2 of 4 unigrams, 1 of 2 and 1 of 3 bigrams."""
    scores = rouge_scores(["the cats sat"], ["the cat was sitting"])
    assert scores["rouge1"].value == pytest.approx(100 * 2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert scores["rouge2"].value == pytest.approx(100 * 2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    assert scores["rougeL"].value == pytest.approx(100 * 2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))


@pytest.mark.parametrize("stemmer", [True, False])
def test_rouge_is_the_mean_of_rouge_scores_own(stemmer: bool) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stemmer)
    task = SummarisationTask("unused", "d", "s", stemmer=stemmer)
    ours = task.metrics(TEXTS, examples(TRUTH))
    for name, value in ours.items():
        rows = [scorer.score(target, text)[name].fmeasure for target, text in zip(TRUTH, TEXTS, strict=True)]
        assert value == pytest.approx(100 * float(np.mean(rows)))
    assert list(ours) == ["rouge1", "rouge2", "rougeL"]


def test_the_stemmer_matters() -> None:
    assert rouge_scores(["running dogs"], ["run dog"])["rouge1"].value == 100
    assert rouge_scores(["running dogs"], ["run dog"], stemmer=False)["rouge1"].value == 0


def test_prompts_are_the_papers() -> None:
    assert SummarisationTask("unused", "d", "s").prefix == "summarize: "
    assert SummarisationTask("unused", "d", "s", prefix="").prefix == ""
    assert TextTask("unused", "d", "s").prefix == "" == TranslationTask("unused", "d", "s").prefix


def test_each_tasks_metrics() -> None:
    assert set(TranslationTask("u", "a", "b").metrics(TEXTS, examples(TRUTH))) == {"bleu", "chrf"}
    assert set(TextTask("u", "a", "b").metrics(TEXTS, examples(TRUTH))) == {"chrf"}


def test_gsm8k_answers() -> None:
    task = GSM8KTask("unused")
    truth = examples(["... #### 72", "#### 1,072", "#### -3", "#### 0.25", "#### 18", "#### 7"])
    texts = ["So #### 72", "in all 1072 clips.", "#### -3.00001", "a quarter, .25", "#### $18.00", "7 #### 8"]
    assert task.metrics(texts, truth) == {"exact_answer": 5 / 6, "exact_answer_marked": 3 / 6}
    assert task.metrics(["####", "#### x 1072", *texts[2:]], truth)["exact_answer"] == 3 / 6  # a mark without a number


def test_answers_and_tolerance() -> None:
    assert extract_answer("#### -$1,234.50.") == -1234.5
    assert extract_answer("5 ####") is None and extract_answer("#### five") is None
    assert last_number("1 and 2.5.") == 2.5 and last_number("from 3-4") == 4 and last_number("= -5") == -5
    assert answers_match(1.00009, 1.0) and not answers_match(1.0002, 1.0)
    assert not answers_match(100_005.0, 100_000.0)  # the tolerance is absolute
    assert not answers_match(None, 1.0) and not answers_match(math.inf, math.inf) and not answers_match(math.nan, 1.0)


def test_scores_from_sums() -> None:
    assert mean_score([True, False, True]).value == pytest.approx(2 / 3)
    assert ratio_score([2.0, 4.0], [1.0, 3.0]).value == pytest.approx(6 / 4)
    assert math.isnan(mean_score([]).value)
    for score in (bleu_score, chrf_score, rouge_scores):
        with pytest.raises(ValueError, match=r"predictions must be a list of texts; got one string\. Give \[text\]"):
            score("a cat", ["a cat"])  # type: ignore[operator]
    with pytest.raises(ValueError, match="references must be a list of texts"):
        bleu_score(["a", "b"], "ab")
    with pytest.raises(ValueError, match="2 predictions for 1 references"):
        bleu_score(["a", "b"], ["a"])


def test_scores_of_single_examples(tmp_path: Path) -> None:
    """Sentence BLEU and chrF are sacreBLEU's own sentence scores; ROUGE-L of a text that lacks a word is by hand."""
    from sacrebleu import sentence_bleu, sentence_chrf

    texts, references = ["the cat sat", "a dog ran away", ""], ["the cat sat down", "a dog ran away", "no"]
    examples = [Example("", reference) for reference in references]
    files = (str(tmp_path), "source", "target")
    pairs = list(zip(texts, references, strict=True))
    bleu = [sentence_bleu(text, [reference]).score for text, reference in pairs]
    chrf = [sentence_chrf(text, [reference]).score for text, reference in pairs]
    assert TranslationTask(*files).example_scores(texts, examples) == pytest.approx(bleu)
    for task, name in ((TranslationTask(*files), "chrf"), (TextTask(*files), None)):
        assert task.example_scores(texts, examples, name) == pytest.approx(chrf)
    rouge = SummarisationTask(*files, rouge_tokenizer="ascii").example_scores(texts, examples)
    assert rouge == pytest.approx([100 * 2 * 3 / 7, 100.0, 0.0])
    assert GSM8KTask(str(tmp_path)).example_scores(["#### 3", "so 4"], [Example("", "#### 3")] * 2) == [1.0, 0.0]
