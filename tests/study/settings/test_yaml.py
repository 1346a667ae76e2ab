"""YAML as people write it: numbers and words anywhere, keys once, values of their field's type."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvar.commands.main import main
from kvar.study.grid.cells import cells_of, read_study
from kvar.study.settings.field_values import fitted, from_words, override
from kvar.study.settings.reading import config_names, find_config, load_yaml, read_settings
from kvar.study.settings.yaml_keys import parse_yaml

RUN = """
task: arithmetic
objective: sft
output_dir: {folder}
use_cpu: yes
report_to: none
save_strategy: no
student_config: {{model_type: gpt2, n_embd: 16, n_layer: 1, n_head: 2, layer_norm_epsilon: 1e-6}}
lr_scheduler_type: cosine_with_min_lr
lr_scheduler_kwargs: {{min_lr: 1e-5}}
max_steps: 1e3
learning_rate: 1e-3
warmup_steps: 5
"""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("1E+3", 1000.0), ("-2.e1", -20.0), (".5", 0.5), ("+.25e2", 25.0), ("1.", 1.0),
        ("12", 12), ("-3", -3), ("+4", 4), ("010", 10), ("0o17", 15), ("0xfF", 255), ("0", 0),
        (".inf", math.inf), ("-.Inf", -math.inf),
        ("true", True), ("False", False), ("TRUE", True), ("tRUE", "tRUE"),
        ("null", None), ("~", None), ("", None), ("Null", None), ("nULL", "nULL"),
        *((word, word) for word in ("no", "No", "yes", "on", "off", "OFF", "y", "n", "none", "nan")),
        *((word, word) for word in ("1_000", "12:30", "190:20:30", "0b11", "1e", "e5")),
        *((word, word) for word in ("1.2.3", "2024-01-01", "=", "0o8")),
        ("'1e-5'", "1e-5"), ('"no"', "no"), ("!!str 5", "5"), ("!!float 3", 3.0),
    ],
)  # fmt: skip
def test_scalars_of_yaml_1_2(text: str, value: Any) -> None:
    """The tables of yaml.org/spec/1.2.2, 10.3.2, in a mapping of a list of a mapping."""
    assert repr(parse_yaml(f"a: [{{b: {text}}}]", "-")) == repr({"a": [{"b": value}]})
    assert repr(parse_yaml(f"a: {text}", "-")) == repr({"a": value})


def test_nan_is_a_number_with_a_dot() -> None:
    assert math.isnan(parse_yaml("a: .nan", "-")["a"])


@pytest.mark.parametrize("name", config_names())
def test_shipped_configs_mean_what_they_meant(name: str) -> None:
    """As YAML 1.1 reads them, but for its words that are numbers."""

    def numbers(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: numbers(item) for key, item in value.items()}
        if isinstance(value, list):
            return [numbers(item) for item in value]
        try:
            return float(value) if isinstance(value, str) else value
        except ValueError:
            return value

    text = find_config(name).read_text()
    assert load_yaml(find_config(name)) == numbers(yaml.safe_load(text))


def test_a_run_takes_numbers_and_words_anywhere(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN.format(folder=tmp_path))
    settings, training = read_settings(str(tmp_path / "run.yaml"))
    assert settings.models.student_config["layer_norm_epsilon"] == 1e-6
    assert training.lr_scheduler_kwargs == {"min_lr": 1e-5}
    assert (training.max_steps, type(training.max_steps), training.learning_rate) == (1000, int, 1e-3)
    assert (training.use_cpu, training.save_strategy, training.warmup_steps) == (True, "no", 5)
    text = (tmp_path / "run.yaml").read_text().replace("save_strategy: no", "save_strategy: false")
    (tmp_path / "run.yaml").write_text(text.replace("use_cpu: yes", "use_cpu: true\nbf16: off"))
    _, training = read_settings(str(tmp_path / "run.yaml"))
    assert (training.use_cpu, training.bf16, training.save_strategy) == (True, False, "no")
    words = ["--lr_scheduler_kwargs", "{min_lr: 2e-5}", "--save_strategy", "epoch", "--stemmer", "No"]
    words += ["--max_steps=2e1", "--use_cpu", "on"]
    settings, training = read_settings(str(tmp_path / "run.yaml"), from_words(words))
    assert training.lr_scheduler_kwargs == {"min_lr": 2e-5}
    assert (training.save_strategy, training.max_steps, settings.task.stemmer) == ("epoch", 20, False)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("use_cpu: yes", "use_cpu: maybe", "use_cpu must be true or false; got 'maybe'"),
        ("use_cpu: yes", "use_cpu: 2", "use_cpu must be true or false; got 2"),
        ("use_cpu: yes", "use_cpu: null", "use_cpu must be true or false; got None"),
        ("max_steps: 1e3", "max_steps: 1.5", "max_steps must be a whole number; got 1.5"),
        ("max_steps: 1e3", "max_steps: true", "max_steps must be a whole number; got True"),
        ("max_steps: 1e3", "max_steps: .inf", "max_steps must be a whole number; got inf"),
        ("max_steps: 1e3", "max_steps:", "max_steps must be a whole number; got None"),
        ("learning_rate: 1e-3", "learning_rate: small", "learning_rate must be a number; got 'small'"),
        ("learning_rate: 1e-3", "learning_rate: no", "learning_rate must be a number; got 'no'"),
        ("learning_rate: 1e-3", "learning_rate: [1e-3]", r"learning_rate must be a number; got \[0.001\]"),
        ("learning_rate: 1e-3", "prefix: 007", "prefix is text; put it in quotes"),
        ("learning_rate: 1e-3", "max_steps: 5", "'max_steps' occurs twice, in lines 11 and 12; keep one of them"),
        ("n_embd: 16,", "n_embd: 16, n_head: 4,", "'n_head' occurs twice, in lines 8 and 8"),
        ("max_steps: 1e3", "max_steps: {", "cannot be read as YAML: .*line 1"),
        ("max_steps: 1e3", "max_steps: !!int x", "run.yaml: "),
        ("max_steps: 1e3", "max_steps: !!bool x", "run.yaml: "),
        ("max_steps: 1e3", "- 5", "cannot be read as YAML: "),
        ("save_strategy: no", "save_strategy: off", "save_strategy must be one of no, steps, epoch, best; got 'off'"),
        ("save_strategy: no", "save_strategy: true", "save_strategy must be one of no, .*; got True"),
        (
            "lr_scheduler_type: cosine_with_min_lr",
            "lr_scheduler_type: cosin",
            "lr_scheduler_type must be one of linear, ",
        ),
    ],
)
def test_refusals_are_one_line(old: str, new: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    text = RUN.format(folder=tmp_path)
    assert old in text
    (tmp_path / "run.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message) as error:
        read_settings(str(tmp_path / "run.yaml"))
    assert "\n" not in str(error.value)
    assert main(["train", str(tmp_path / "run.yaml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_files_that_are_not_text(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"task: arithmetic\nprefix: caf\xe9\n")
    with pytest.raises(ValueError, match=r"run.yaml, line 2, is not UTF-8 text"):
        load_yaml(path)
    path.write_bytes(b"\xef\xbb\xbftask: arithmetic\r\nprefix: caf\xc3\xa9\r\n")
    assert load_yaml(path) == {"task": "arithmetic", "prefix": "café"}
    with pytest.raises(ValueError, match=r"none.yaml cannot be read: No such file"):
        load_yaml(tmp_path / "none.yaml")


def test_words_of_a_command_line_are_one_line_too(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN.format(folder=tmp_path))
    for words, message in (
        (["--max_steps", "many"], "max_steps must be a whole number; got 'many'"),
        (["--use_cpu", "perhaps"], "use_cpu must be true or false; got 'perhaps'"),
        (["--centre", "median"], "centre 'median' is unknown; choose one of: mean"),
        (["--bf16", "--max_steps"], "--max_steps has no value"),
        (["max_steps", "5"], "'max_steps' has no field"),
        (["--lr_scheduler_kwargs", "{a: 1, a: 2}"], "--lr_scheduler_kwargs: 'a' occurs twice"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            read_settings(str(tmp_path / "run.yaml"), from_words(words))
        assert "\n" not in str(error.value)


def test_merged_and_repeated_anchors_are_no_repeated_keys() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: {<<: *b, z: 1e1}\nd: [*b, *b]"
    b = {"x": 1, "y": 3}
    assert parse_yaml(text, "-") == {"a": {"x": 1, "y": 2}, "b": b, "c": {**b, "z": 10.0}, "d": [b, b]}


def test_a_study_reads_numbers_and_words_in_its_grid(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(
        "common: {save_strategy: no, lr_scheduler_kwargs: {min_lr: 1e-6}}\n"
        "students: {tiny: {model_type: gpt2, layer_norm_epsilon: 1e-5}}\n"
        "methods: {no: {objective: sft, learning_rate: 1e-4}, K=1: {kernel: K=1}}\n"
    )
    cell = cells_of(read_study(str(tmp_path / "study.yaml")))[0]
    assert cell.name == "tiny/no"
    assert cell.values == {
        "save_strategy": "no", "lr_scheduler_kwargs": {"min_lr": 1e-6}, "objective": "sft", "learning_rate": 1e-4,
        "student_config": {"model_type": "gpt2", "layer_norm_epsilon": 1e-5},
    }  # fmt: skip


def test_overrides_of_a_study() -> None:
    words = {
        "learning_rate": "1e-4", "save_strategy": "no", "data_subset": "2024", "kernel": "K=2", "teacher": "null",
        "lr_scheduler_kwargs": "{min_lr: 1e-5}", "use_cpu": "false", "prefix": "1e-5",
    }  # fmt: skip
    assert {name: override(name, word) for name, word in words.items()} == {
        "learning_rate": 1e-4, "save_strategy": "no", "data_subset": "2024", "kernel": "K=2", "teacher": None,
        "lr_scheduler_kwargs": {"min_lr": 1e-5}, "use_cpu": False, "prefix": "1e-5",
    }  # fmt: skip


def test_words_are_flags_lists_mappings_and_text() -> None:
    words = "--bf16 --label_names a b --include_for_metrics loss --report_to none --prefix=a:b --use_cpu no"
    assert from_words([*words.split(), "--student_config", "{n_embd: 1e1}", "--teacher", "null"]) == {
        "bf16": True, "label_names": ["a", "b"], "include_for_metrics": ["loss"], "report_to": "none",
        "prefix": "a:b", "use_cpu": "no", "student_config": {"n_embd": 10.0}, "teacher": None,
    }  # fmt: skip
    assert fitted({"use_cpu": "no", "bf16": True}, "-") == {"use_cpu": False, "bf16": True}


def test_mappings_may_be_text() -> None:
    assert fitted({"accelerator_config": "{split_batches: true}", "deepspeed": "a.json"}, "-") == {
        "accelerator_config": {"split_batches": True}, "deepspeed": "a.json",
    }  # fmt: skip


def test_a_size_that_its_family_refuses_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    text = RUN.format(folder=tmp_path / "out").replace("layer_norm_epsilon: 1e-6", "layer_norm_epsilon: small")
    (tmp_path / "run.yaml").write_text(text)
    assert main(["train", str(tmp_path / "run.yaml"), "--train_limit", "2"]) == 2
    assert "student_config of 'gpt2' is refused by transformers: " in capsys.readouterr().err
