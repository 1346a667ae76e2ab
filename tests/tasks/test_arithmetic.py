"""The generated word problems: form, seeds, tokenizer, metric."""

from __future__ import annotations

import re

import pytest

from kvar.tasks import ArithmeticTask, Example
from kvar.tasks.arithmetic import MAX_NUMBER


def test_worked_steps_are_right_and_chain_to_the_answer() -> None:
    for example in ArithmeticTask(2, 4, seed=3).examples("train", 500):
        steps = re.findall(r"<<(\d+)([-+*/])(\d+)=(\d+)>>(\d+)", example.target)
        assert 2 <= len(steps) <= 4
        total = int(steps[0][0])
        assert f"has {total} " in example.prompt
        for left, sign, right, result, shown in steps:
            assert int(left) == total and result == shown
            a, b = int(left), int(right)
            total = {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[sign]
            assert total == int(result) and 1 <= total <= MAX_NUMBER
            assert sign != "/" or a % b == 0
        assert example.target.endswith(f" #### {total}")


def test_splits_differ_and_seeds_repeat() -> None:
    task = ArithmeticTask()
    train, test = task.examples("train", 300), task.examples("test", 300)
    assert train == ArithmeticTask().examples("train", 400)[:300]
    assert not {e.prompt for e in train} & {e.prompt for e in test}
    assert train != ArithmeticTask(seed=1).examples("train", 300)


def test_tokenizer_covers_everything_and_decodes_exactly() -> None:
    task = ArithmeticTask(1, 7)
    tokenizer = task.build_tokenizer()
    examples = task.examples("validation", 1000)
    for text in [e.prompt for e in examples] + [e.target for e in examples]:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text
    assert "12" not in tokenizer.get_vocab()  # digits are single: numbers are computed, not recalled


def test_responses_have_20_to_60_tokens() -> None:
    task = ArithmeticTask()
    tokenizer = task.build_tokenizer()
    lengths = [len(tokenizer(e.target)["input_ids"]) + 1 for e in task.examples("train", 2000)]
    assert min(lengths) >= 20 and max(lengths) <= 60


def test_metric_wants_the_exact_number() -> None:
    task = ArithmeticTask()
    examples = task.examples("test", 4)
    right = [e.target for e in examples]
    wrong = [right[0] + "1", "####", "", right[3]]
    assert task.metrics(right, examples) == {"exact_answer": 1.0}
    assert task.metrics(wrong, examples) == {"exact_answer": 0.25}


@pytest.mark.parametrize(("low", "high"), [(0, 2), (3, 2), (1, 8)])
def test_difficulty_out_of_range(low: int, high: int) -> None:
    with pytest.raises(ValueError, match=f"min_steps={low}, max_steps={high}"):
        ArithmeticTask(low, high)


def test_unknown_split() -> None:
    with pytest.raises(ValueError, match="split 'dev' is unknown; choose one of: train, validation, test"):
        ArithmeticTask().examples("dev")


def test_graded_credit_by_hand() -> None:
    task = ArithmeticTask()
    example = Example("", "Monday<<12+7=19>>19 Tuesday<<19-4=15>>15 #### 15")
    texts = {
        example.target: 1.0,
        "Monday<<12+7=19>>19 Tuesday<<19-4=16>>16 #### 16": 0.25,  # one step of two, a wrong answer
        "#### 15": 0.5,
        "Tuesday<<19-4=15>>15 Monday<<12+7=19>>19": 0.0,  # right steps in each other's place
        "Monday<<12+7=19>>19 Tuesday<<19-4=15>>15 Friday<<15+1=16>>16 #### 16": 0.5,
        "": 0.0,
    }
    assert task.example_scores(list(texts), [example] * 6) == list(texts.values())
    assert task.example_scores(list(texts), [example] * 6, "exact_answer") == [1.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="score 'bleu' is unknown for this task; choose one of: partial_credit, exact"):
        task.example_scores([""], [example], "bleu")
