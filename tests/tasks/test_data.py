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
        (
            {"name": "poetry"},
            "task 'poetry' is unknown; choose one of: arithmetic, translation, summarisation, gsm8k, text",
        ),
        ({"name": "translation"}, "needs data"),
        ({"name": "text", "data": "x"}, "needs source_field and target_field"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task_from_options(**options)


NESTED = [{"translation": {"en": f"a cat {i}", "nl": f"een kat {i}"}} for i in range(9)]


@pytest.mark.parametrize("name", ["train.jsonl", "train.json", "train.parquet"])
def test_a_dot_reaches_into_a_nested_field(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, NESTED)
    task = TranslationTask(str(tmp_path), "translation.en", "translation.nl")
    assert task.examples("train", 1)[0].target == "een kat 0"
    with pytest.raises(ValueError, match=r"has no field 'translation\.fr'; its fields are: translation\. Set source_"):
        TranslationTask(str(tmp_path), "translation.fr", "translation.nl").examples("train")


def test_a_field_whose_name_has_a_dot_is_itself(tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl", [{"a.b": "x", "c": "y"}])
    assert TextTask(str(tmp_path), "a.b", "c").examples("train")[0].prompt == "x"


@pytest.mark.parametrize("name", ["train.json", "train.csv", "train.parquet"])
def test_gzipped_files_of_every_type(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, ROWS)
    plain = tmp_path / name
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert [e.target for e in TextTask(str(tmp_path), "en", "de").examples("train")] == [r["de"] for r in ROWS]


def test_validation_and_test_from_the_end_of_train(tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl", NESTED)
    task = TranslationTask(str(tmp_path), "translation.en", "translation.nl", held_out=2, held_out_test=3)
    parts = {split: [e.prompt[-1] for e in task.examples(split)] for split in ("train", "validation", "test")}
    assert parts == {"train": list("0123"), "validation": list("45"), "test": list("678")}
    write(tmp_path, "test.jsonl", NESTED[:1])  # a test split of its own: nothing is held out for it
    assert [e.prompt[-1] for e in task.examples("validation")] == list("78")
    assert len(task.examples("test")) == 1
    with pytest.raises(ValueError, match="held_out=9 and held_out_test=0 leave none to train on"):
        TranslationTask(str(tmp_path), "translation.en", "translation.nl", held_out=9).examples("train")


@pytest.mark.parametrize("held_out", [0, 2])
def test_defect_2_validation_never_reads_the_test_split(tmp_path: Path, held_out: int) -> None:
    """The test file cannot be read, so that whoever opens it fails; without held-out rows validation is an error."""
    write(tmp_path, "train.jsonl", ROWS)
    (tmp_path / "test.jsonl").write_text("{poison")
    task = TextTask(str(tmp_path), "en", "de", held_out=held_out)
    assert len(task.examples("train")) == 6 - held_out
    if held_out:
        assert [e.prompt for e in task.examples("validation")] == ["a cat 4", "a cat 5"]
    else:
        with pytest.raises(ValueError, match="has no 'validation' split; add a validation.jsonl file or set held_out"):
            task.examples("validation")
    task.build_tokenizer()
    with pytest.raises(ValueError, match="test.jsonl line 1 is not JSON"):
        task.examples("test")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.jsonl", '{"en": 3, "de": "x"}\n', r"line 1: field 'en' must be non-empty text; got 3\. That is int"),
        ("train.jsonl", '{"en": "", "de": "x"}\n', r"field 'en' must be non-empty text; got ''\. Fill or remove"),
        ("train.json", '[{"en": "x"', r"train\.json is not JSON"),
        ("train.json", '{"en": "x"}', r"train\.json must hold a list of objects"),
        ("train.csv", "en,de\na,b,c\n", r"train\.csv line 2 has more cells than the header has names \(en, de\)"),
        (
            "train.csv",
            "en,de\na\n",
            r"train\.csv line 2 has fewer cells than the header has names \(en, de\): 1, not 2",
        ),
        ("train.csv", "en,de\n", r"train\.csv is empty"),
        ("train.parquet", "no parquet", r"train\.parquet cannot be read as parquet"),
        ("train.tsv", "en\tde\n", r"train\.tsv is of a type that cannot be read; write it as one of \.jsonl, \.json"),
    ],
)
def test_bad_files_name_themselves_and_the_remedy(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        TextTask(str(tmp_path), "en", "de").examples("train")


def test_a_hole_in_a_parquet_column(tmp_path: Path) -> None:
    pd.DataFrame({"en": ["a", None], "de": ["b", "c"]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"train\.parquet line 2: field 'en' must be non-empty text; got None"):
        TextTask(str(tmp_path), "en", "de").examples("train")


def test_empty_rows_are_skipped_only_where_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "train.jsonl", [ROWS[0], {"en": " ", "de": "x"}, *ROWS[1:]])
    examples = TextTask(str(tmp_path), "en", "de", skip_empty=True).examples("train", 3)
    assert [e.prompt for e in examples] == ["a cat 0", "a cat 1", "a cat 2"]
    assert "1 of 7 rows skipped for an empty field" in caplog.text
    (tmp_path / "train.jsonl").write_text('{"en": "x", "de": ""}\n')
    with pytest.raises(ValueError, match="all 1 rows have an empty 'en' or 'de'"):
        TextTask(str(tmp_path), "en", "de", skip_empty=True).examples("train")


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl", ROWS)
    with pytest.raises(ValueError, match="is a file. Give the folder it lies in"):
        TextTask(str(tmp_path / "train.jsonl"), "en", "de").examples("train")


def test_a_hub_data_set_is_read_by_subset_and_position(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load(name: str, subset: str | None, *, split: str) -> datasets.Dataset:
        asked.append((name, subset, split))
        return datasets.Dataset.from_list(NESTED)

    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name, subset: ["train"])
    monkeypatch.setattr(datasets, "load_dataset", load)
    options = {"subset": "en-nl", "held_out": 2, "held_out_test": 1}
    task = TranslationTask("someone/pairs", "translation.en", "translation.nl", **options)  # type: ignore[arg-type]
    assert [e.prompt for e in task.examples("validation")] == ["a cat 6", "a cat 7"]
    assert [e.prompt for e in task.examples("test")] == ["a cat 8"]
    assert set(asked) == {("someone/pairs", "en-nl", "train")}
    with pytest.raises(ValueError, match=r"someone/pairs \(train\) line 9 has no field 'translation\.de'"):
        TranslationTask("someone/pairs", "translation.de", "translation.nl", **options).examples("test")  # type: ignore[arg-type]


def test_gsm8k_rewrites_its_calculator_marks(tmp_path: Path) -> None:
    from kvar.tasks import GSM8KTask

    write(
        tmp_path,
        "train.jsonl",
        [{"question": f"q{i}", "answer": f"<<1+{i}={1 + i}>>{1 + i} #### {1 + i}"} for i in range(4)],
    )
    assert GSM8KTask(str(tmp_path), held_out=1).examples("train")[2].target == "<<1+2=3>>3 #### 3"
    task = task_from_options("gsm8k", data=str(tmp_path), held_out=1, calculator_marks=("[[", "]]"))
    assert [e.target for e in task.examples("validation")] == ["[[1+3=4]]4 #### 4"]
    with pytest.raises(ValueError, match=r"calculator_marks must be two marks without .*GSM8K's own are << and >>"):
        GSM8KTask(str(tmp_path), calculator_marks=("(", ")"))


def test_gsm8k_keeps_the_short_problems(tmp_path: Path) -> None:
    steps = [0, 1, 3, 2, 1, 2]
    rows = [{"question": f"q{i}", "answer": "<<1+1=2>>2 " * n + "#### 2"} for i, n in enumerate(steps)]
    write(tmp_path, "train.jsonl", rows)
    task = task_from_options("gsm8k", data=str(tmp_path), held_out=2, max_calculations=2)
    assert [e.prompt for e in task.examples("train")] == ["q1", "q3"]  # no calculation at all is not short, but wrong
    assert [e.prompt for e in task.examples("train", 1)] == ["q1"]
    assert [e.prompt for e in task.examples("validation")] == ["q4", "q5"]  # the held-out rows stay the last two
    shortest = task_from_options("gsm8k", data=str(tmp_path), held_out=1, max_calculations=1)
    with pytest.raises(ValueError, match=r"max_calculations 1 leaves no validation problem .*; raise it"):
        shortest.examples("validation")
    with pytest.raises(ValueError, match=r"max_calculations must be at least 1, or .*; got 0"):
        task_from_options("gsm8k", data=str(tmp_path), max_calculations=0)


@pytest.mark.parametrize("name", ["arithmetic", "text"])
def test_other_tasks_have_no_calculations_to_keep(name: str) -> None:
    with pytest.raises(ValueError, match="max_calculations is 2, but"):
        task_from_options(name, data="unused", max_calculations=2)
