"""Prompts that a run sees are measured before it trains: one line with split, row, tokens and the limit."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kvar.study.evaluation.evaluate_runs import evaluate_target
from kvar.study.evaluation.target import find_target
from kvar.study.run.prompt_lengths import check_rows
from kvar.study.run.run import train_run
from kvar.study.settings.reading import settings_from

GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
SHORT = {"q": "say a", "a": "aa"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Splits of short rows; the tokenizer is made from train and spells what it has not seen."""
    folder = tmp_path / "data"
    folder.mkdir()
    for split, rows in (("train", 40), ("validation", 6), ("test", 5)):
        write(folder, split, [SHORT] * rows)
    return folder


def write(folder: Path, split: str, rows: list[dict[str, str]]) -> None:
    (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def train(data: Path, **changes: Any) -> Any:
    config = {
        "task": "text", "data": str(data), "source_field": "q", "target_field": "a", "objective": "sft",
        "student_config": GPT2, "max_steps": 1, "max_new_tokens": 6, "use_cpu": True, "report_to": "none",
        "save_strategy": "no", "disable_tqdm": True, "output_dir": str(data.parent / "run"), **changes,
    }  # fmt: skip
    return train_run(*settings_from(config, "test"))


@pytest.mark.parametrize(
    ("split", "changes"),
    [
        ("train", {"vocabulary": 300, "max_steps": 10}),  # steps that see every row
        ("validation", {}),
        ("test", {"eval_split": "test"}),
        ("validation", {"eval_split": "test", "eval_strategy": "steps"}),
    ],
)
def test_a_long_row_of_any_split_is_refused_before_training(data: Path, split: str, changes: dict[str, Any]) -> None:
    """A tokenizer made of "say a" and "aa" spells 60 unseen letters with a token each; of train it may join some."""
    tokens = r"\d+" if split == "train" else r"6\d"
    rows = [json.loads(line) for line in (data / f"{split}.jsonl").read_text().splitlines()]
    letters = random.Random(0).choices("bcdefghijklmnopqrstuvw", k=400) if split == "train" else "bcd" * 20
    rows[3] = {"q": "say " + "".join(letters), "a": "x"}
    write(data, split, rows)
    with pytest.raises(ValueError, match=rf"^the prompt of {split} row 3 has {tokens} tokens.* the 64 positions"):
        train(data, **changes)
    with pytest.raises(ValueError, match=rf"^{split} row 3 has a prompt of {tokens} tokens, more than max.*=20"):
        train(data, max_prompt_tokens=20, **changes)
    assert not (data.parent / "run" / "model").exists()
    train(data, truncate_prompts=20, **changes)


def test_probe_prompts_and_a_shorter_teacher_are_measured_too(data: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    train(data, student_config={**GPT2, "n_positions": 32}, output_dir=str(teacher))
    named = {"teacher": str(teacher / "model"), "student_config": {**GPT2}, "probe_every": 1, "probe_prompts": 4}
    rows = [SHORT] * 6
    rows[2] = {"q": "say " + "bcd" * 9, "a": "x"}
    write(data, "validation", rows)
    with pytest.raises(
        ValueError, match=r"^the prompt of validation row 2 has 2\d tokens.* 32 positions of the teacher"
    ):
        train(data, eval_limit=0, **named)
    assert not (data.parent / "run" / "model").exists()
    train(data, eval_limit=6, output_dir=str(tmp_path / "unprobed"), **{**named, "probe_every": 0})


def test_an_empty_prompt_of_an_evaluation_and_a_split_that_is_not_there(data: Path) -> None:
    settings = SimpleNamespace(max_prompt_tokens=None, max_new_tokens=6)
    with pytest.raises(ValueError, match="test row 1 has an empty prompt"):
        check_rows("test", {"prompt_length": [3, 0]}, settings, SimpleNamespace(student=None, teacher=None))
    (data / "test.jsonl").unlink()
    with pytest.raises(ValueError, match="test"):
        train(data, eval_split="test")
    assert not (data.parent / "run" / "model").exists()


def test_kvar_evaluate_measures_before_it_decodes(data: Path) -> None:
    train(data)
    write(data, "test", [SHORT, {"q": "say " + "bcd" * 20, "a": "x"}])
    target = find_target(str(data.parent / "run"), {"eval_split": "test"})
    with pytest.raises(ValueError, match="the prompt of test row 1 has 6. tokens"):
        evaluate_target(target)
