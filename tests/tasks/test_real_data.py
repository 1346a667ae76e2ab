"""The development data, where it is at hand: KVAR_DATA, or a folder beside the checkout."""

from __future__ import annotations

import re

from kvar.tasks import GSM8KTask, SummarisationTask, TextTask, TranslationTask, calculate
from tests.data import DATA, needs_data

pytestmark = needs_data


def test_multi30k_splits() -> None:
    task = TranslationTask(str(DATA / "multi30k"), "en", "de")
    assert {split: len(task.examples(split)) for split in ("train", "validation", "test")} == {
        "train": 29_000,
        "validation": 1_014,
        "test": 1_000,
    }
    example = task.examples("train", 1)[0]
    assert example.prompt.startswith("Two young, White males") and example.target.startswith("Zwei junge")


def test_gsm8k_holds_out_the_end_of_train() -> None:
    task = TextTask(str(DATA / "gsm8k"), "question", "answer", held_out=500)
    train, validation = task.examples("train"), task.examples("validation")
    assert (len(train), len(validation), len(task.examples("test"))) == (6_973, 500, 1_319)
    assert not {e.prompt for e in train} & {e.prompt for e in validation}


def test_the_calculator_agrees_with_gsm8k() -> None:
    """Written results are rounded, mostly to two decimals; the few that differ by more are the authors' slips."""
    marks = [
        mark.split("=")
        for example in GSM8KTask(str(DATA / "gsm8k")).examples("test")
        for mark in re.findall(r"<<([^<>]*)>>", example.target)
    ]
    right = sum(
        abs(float(calculate(text) or "nan") - float(calculate(result) or "nan")) <= 0.0051 for text, result in marks
    )
    assert len(marks) > 4000 and right / len(marks) > 0.99


def test_gsm8k_targets_score_full_marks() -> None:
    task = GSM8KTask(str(DATA / "gsm8k"))
    examples = task.examples("validation")
    assert len(examples) == 500
    targets = [example.target for example in examples]
    assert task.metrics(targets, examples) == {"exact_answer": 1.0, "exact_answer_marked": 1.0}
    assert task.metrics([t.replace("####", "The answer is") for t in targets], examples)["exact_answer"] == 1.0


def test_debian_synopsis_reads() -> None:
    task = SummarisationTask(str(DATA / "debian-synopsis"), "description", "synopsis")
    assert task.examples("train", 1)[0].prompt.startswith("summarize: The Go language")
    assert len(task.examples("test")) == 971
