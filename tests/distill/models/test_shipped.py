"""The teacher that ships: it knows its task, and its tokenizer is the task's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kvar.distill import count_parameters, evaluate, load_model, load_tokenizer
from kvar.distill.models.shipped import resolve
from kvar.study.settings.reading import read_settings
from kvar.tasks import ArithmeticTask


@pytest.fixture(scope="module")
def folder() -> str:
    found = resolve("arithmetic")
    assert found is not None
    return found


def test_it_solves_held_out_problems(folder: str) -> None:
    """0.933 of the 1,000 validation problems, as ``kvar train arithmetic-teacher`` prints; 100 of them here."""
    model, tokenizer, task = load_model(folder), load_tokenizer(folder), ArithmeticTask()
    examples = task.examples("validation", 100)
    result = evaluate(model, task, examples, tokenizer, max_new_tokens=64, batch=100)
    assert result.metrics["exact_answer"] >= 0.85


def test_it_is_what_its_config_says(folder: str) -> None:
    model = load_model(folder)
    settings, _ = read_settings("arithmetic-teacher")
    for name, value in settings.models.student_config.items():
        assert getattr(model.config, name) == value
    assert count_parameters(model) == 802_048
    assert load_tokenizer(folder).get_vocab() == ArithmeticTask().build_tokenizer().get_vocab()
    assert sum(p.stat().st_size for p in Path(folder).iterdir()) < 4_000_000


def test_its_name_loads_it_wherever_a_model_is_named(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "arithmetic").mkdir()  # a folder of that name is ./arithmetic
    monkeypatch.chdir(tmp_path)
    named, there = load_model("arithmetic").state_dict(), load_model(Path(folder)).state_dict()
    assert named.keys() == there.keys() and all(torch.equal(named[k], there[k]) for k in there)
    assert load_tokenizer("arithmetic").get_vocab() == load_tokenizer(folder).get_vocab()
    with pytest.raises(ValueError, match=r"model '\./arithmetic' cannot be loaded from that folder"):
        load_model("./arithmetic")


def test_other_names_stay_as_they_are() -> None:
    assert resolve("google/flan-t5-xl") == "google/flan-t5-xl"
    assert resolve(None) is None
