"""Reading data files: what is refused names file, line and field."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from kvar.tasks import TextTask, TranslationTask, task_from_options

ROWS = [{"en": f"a cat {i}", "de": f"eine Katze {i}"} for i in range(6)]


def lines(rows: list) -> str:
    return "\n".join(json.dumps(row) for row in rows) + "\n"


def write(folder: Path, name: str, rows: list) -> None:
    path = folder / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines(rows).encode()))
    elif name.endswith(".jsonl"):
        path.write_text(lines(rows))
    elif name.endswith(".json"):
        path.write_text(json.dumps(rows))
    elif name.endswith(".csv"):
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        pd.DataFrame(rows).to_parquet(path)


@pytest.mark.parametrize("name", ["train.jsonl", "train.jsonl.gz", "train.json", "train.csv", "train.parquet"])
def test_every_format_gives_the_same_examples(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, ROWS)
    examples = TranslationTask(str(tmp_path), "en", "de", prefix="translate: ").examples("train", 2)
    assert [(e.prompt, e.target) for e in examples] == [
        ("translate: a cat 0", "eine Katze 0"),
        ("translate: a cat 1", "eine Katze 1"),
    ]


def test_held_out_rows_become_validation(tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl", ROWS)
    task = TextTask(str(tmp_path), "en", "de", held_out=2)
    assert [e.prompt for e in task.examples("train")] == ["a cat 0", "a cat 1", "a cat 2", "a cat 3"]
    assert [e.prompt for e in task.examples("validation")] == ["a cat 4", "a cat 5"]
    with pytest.raises(ValueError, match="has no 'test' split"):
        task.examples("test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"train\.jsonl is empty"),
        (lines(ROWS[:1]) + "{not json\n", r"train\.jsonl line 2 is not JSON"),
        (lines(ROWS[:2]) + '{"en": "x"}\n', r"train\.jsonl line 3 has no field 'de'; its fields are: en"),
        ('{"en": "x", "de": " "}\n', r"train\.jsonl line 1: field 'de' must be non-empty text; got ' '"),
        ('{"en": "x", "de": null}\n', r"line 1: field 'de' must be non-empty text; got None"),
        ("[1]\n", r"train\.jsonl line 1 must be an object"),
    ],
)
def test_bad_rows_name_file_line_and_field(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "train.jsonl").write_text(content)
    with pytest.raises(ValueError, match=message):
        TextTask(str(tmp_path), "en", "de").examples("train")


def test_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl.gz").write_bytes(b"this is no gzip")
    with pytest.raises(ValueError, match=r"train\.jsonl\.gz cannot be read"):
        TextTask(str(tmp_path), "en", "de").examples("train")


def test_missing_folder_and_two_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a folder"):
        TextTask(str(tmp_path / "nowhere"), "en", "de").examples("train")
    write(tmp_path, "train.jsonl", ROWS)
    write(tmp_path, "train.csv", ROWS)
    with pytest.raises(ValueError, match="several files for 'train'"):
        TextTask(str(tmp_path), "en", "de").examples("train")


def test_a_hub_name_that_cannot_be_reached_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "get_dataset_split_names", unreachable)
    with pytest.raises(ValueError, match="'someone/pairs' is neither a folder nor a hub data set .* no network"):
        TextTask("someone/pairs", "en", "de").examples("train")


def test_byte_pair_tokenizer_decodes_exactly(tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl", [*ROWS, {"en": "Größe 12€", "de": "naïve café"}])
    task = TextTask(str(tmp_path), "en", "de", vocabulary=300)
    tokenizer = task.build_tokenizer()
    for text in ["Größe 12€", "ganz anderes: Ω"]:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids).strip() == text


def test_metrics_of_perfect_translations_are_100() -> None:
    task = TranslationTask("unused", "en", "de")
    from kvar.tasks import Example

    examples = [Example("x", "Zwei junge Männer sind im Freien."), Example("y", "Ein Hund rennt durch den Schnee.")]
    scores = task.metrics([e.target for e in examples], examples)
    assert scores["bleu"] == pytest.approx(100) and scores["chrf"] == pytest.approx(100)
    assert task.metrics(["Ein Tier.", "Nichts."], examples)["bleu"] < 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "poetry"}, "task 'poetry' is unknown; choose one of: arithmetic, translation, text"),
        ({"name": "translation"}, "needs data"),
        ({"name": "text", "data": "x"}, "needs source_field and target_field"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task_from_options(**options)
