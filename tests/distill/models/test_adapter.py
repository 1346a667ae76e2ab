"""A folder of peft's is a model: its base with the adapter merged, held against the product written out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kvar.distill import build_model, load_model, load_tokenizer
from kvar.study.evaluation.target import find_target
from kvar.tasks import ArithmeticTask

peft = pytest.importorskip("peft")
TASK = ArithmeticTask(1, 1)
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 96}
T5 = {"model_type": "t5", "d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 16, "num_layers": 1}


@pytest.fixture
def folders(tmp_path: Path) -> Any:
    """(base, adapter) of a family: rank 2, alpha 6, all weights of the adapter random."""

    def build(family: dict[str, Any], targets: list[str]) -> tuple[Path, Path]:
        tokenizer = TASK.build_tokenizer()
        base = build_model(family, tokenizer)
        base.save_pretrained(tmp_path / "base")
        tokenizer.save_pretrained(tmp_path / "base")
        model = peft.get_peft_model(
            load_model(str(tmp_path / "base")), peft.LoraConfig(r=2, lora_alpha=6, target_modules=targets)
        )
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator))
        model.save_pretrained(tmp_path / "adapter")
        return tmp_path / "base", tmp_path / "adapter"

    return build


@pytest.mark.parametrize(
    ("family", "targets", "weight", "transposed"),
    [
        (GPT2, ["c_attn"], "transformer.h.0.attn.c_attn.weight", True),
        (T5, ["q"], "decoder.block.0.layer.1.EncDecAttention.q.weight", False),
    ],
)
def test_base_and_adapter_are_added_up(
    folders: Any, family: dict, targets: list[str], weight: str, transposed: bool
) -> None:
    """W + (alpha / r) B A, with alpha / r = 3; every other weight is the base's."""
    base, adapter = folders(family, targets)
    parts = load_file(adapter / "adapter_model.safetensors")
    a, b = (parts[f"base_model.model.{weight.removesuffix('weight')}lora_{half}.weight"] for half in "AB")
    before = load_model(str(base)).state_dict()
    model = load_model(str(adapter))
    after = model.state_dict()
    assert list(after) == list(before)
    change = 3 * (b @ a)
    torch.testing.assert_close(after[weight], before[weight] + (change.T if transposed else change))
    touched = [name for name in before if not torch.equal(before[name], after[name])]
    assert weight in touched and all(targets[0] in name for name in touched)
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())
    rounded = load_model(str(adapter), "bfloat16").state_dict()[weight]
    assert torch.equal(rounded, after[weight].bfloat16())  # merged before it is rounded
    assert load_tokenizer(str(adapter)).get_vocab() == TASK.build_tokenizer().get_vocab()


def test_a_base_may_be_named_from_the_adapters_folder(folders: Any) -> None:
    _, adapter = folders(GPT2, ["c_attn"])
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "base_model_name_or_path": os.path.join("..", "base")}))
    assert load_model(str(adapter)).config.n_embd == 16


def test_what_cannot_be_merged_is_refused_in_one_line(folders: Any, tmp_path: Path) -> None:
    base, adapter = folders(GPT2, ["c_attn"])
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text())

    def refused(changes: dict[str, Any]) -> str:
        path.write_text(json.dumps({**config, **changes}))
        with pytest.raises(ValueError, match="adapter") as error:
            load_model(str(adapter))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "names no base model: set its field base_model_name_or_path" in refused({"base_model_name_or_path": None})
    said = refused({"base_model_name_or_path": str(tmp_path / "gone")})
    assert said.startswith(f"the base of adapter {str(adapter)!r} cannot be loaded: model") and "gone" in said
    build_model({**GPT2, "n_embd": 8}, TASK.build_tokenizer()).save_pretrained(tmp_path / "small")
    assert "does not fit its base" in refused({"base_model_name_or_path": str(tmp_path / "small")})
    prompt = peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    peft.get_peft_model(load_model(str(base)), prompt).save_pretrained(tmp_path / "prompt")
    with pytest.raises(ValueError, match=r"is a learned prompt \(PROMPT_TUNING\), which cannot be merged"):
        load_model(str(tmp_path / "prompt"))
    path.write_text(json.dumps(config))
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"has no adapter_model\.safetensors"):
        load_model(str(adapter))


def test_an_adapter_is_evaluated_by_its_folder(folders: Any, tmp_path: Path) -> None:
    _, adapter = folders(T5, ["q"])
    config = tmp_path / "c.yaml"
    config.write_text("task: arithmetic\nobjective: sft\nstudent_config: {model_type: t5}\noutput_dir: unused\n")
    target = find_target(str(config), {}, model=str(adapter))
    assert target.settings.models.student == str(adapter) and target.settings.models.student_config is None
