"""Runs and studies whose students are made of the teacher's layers, or carry LoRA adapters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import kvar
from kvar.commands.main import main
from kvar.distill import build_model, load_model, load_tokenizer
from kvar.distill.models.prune import parse_layers
from kvar.study.grid.run_grid import cells_of, read_study
from kvar.tasks import ArithmeticTask

STUDY = """
common:
  task: arithmetic
  min_problem_steps: 1
  max_problem_steps: 1
  teacher: {teacher}
  teacher_dtype: bfloat16
  train_limit: 32
  max_new_tokens: 12
  eval_limit: 4
  report_to: none
  use_cpu: true
  disable_tqdm: true
  per_device_train_batch_size: 8
  save_steps: 2
  logging_steps: 2
  probe_prompts: 4
  probe_rollouts: 2
  probe_kernels: K=1, K=2
students:
  half: {{student_layers: every 2}}
  last: {{student_layers: [3]}}
stages:
  - {{name: start, objective: kl, max_steps: 2}}
  - {{name: ketchup, from: start, objective: ketchup, kernel: K=2, max_steps: 2, probe_every: 2, lora_rank: 2}}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layers")
    tokenizer = ArithmeticTask(1, 1).build_tokenizer()
    config = {"model_type": "gpt2", "n_embd": 16, "n_layer": 4, "n_head": 2, "n_positions": 128}
    build_model(config, tokenizer, seed=3).save_pretrained(folder / "teacher")
    tokenizer.save_pretrained(folder / "teacher")
    (folder / "study.yaml").write_text(STUDY.format(teacher=folder / "teacher"))
    pytest.importorskip("peft")
    assert main(["study", str(folder / "study.yaml"), "--output", str(folder / "out")]) == 0
    return folder


def test_students_are_made_of_layers(study: Path) -> None:
    for student, layers in (("half", 2), ("last", 1)):
        model = load_model(str(study / "out" / student / "start" / "model"))
        assert model.config.n_layer == layers
    assert kvar.load(study / "out" / "half" / "start").config["student_layers"] == "every 2"


def test_a_lora_stage_goes_on_from_the_pruned_student_and_is_saved_merged(study: Path) -> None:
    folder = study / "out" / "half" / "ketchup"
    assert (folder / "model" / "adapter" / "adapter_model.safetensors").exists()
    before, after = (load_model(str(study / "out" / "half" / stage / "model")) for stage in ("start", "ketchup"))
    assert load_tokenizer(str(folder / "model")).eos_token is not None
    changed = {
        name for (name, p), q in zip(before.named_parameters(), after.parameters(), strict=True) if not p.equal(q)
    }
    assert changed == {f"transformer.h.{i}.attn.c_attn.weight" for i in range(2)}
    run = kvar.load(folder)
    assert run.config["lora_rank"] == 2 and run.config["parameters"] == 2 * 2 * (16 + 48)
    assert set(run.gradients["step"]) >= {0, 2}
    assert "exact_answer" in json.loads((folder / "evaluation.json").read_text())["metrics"]


def test_the_shipped_study_of_a_pretrained_teacher_is_whole() -> None:
    cells = cells_of(read_study("smollm2-synopsis"))
    assert [cell.name for cell in cells[:3]] == ["20-layers/start", "20-layers/K=4", "15-layers/start"]
    kept = [len(parse_layers(cells[place].values["student_layers"])["keep"]) for place in (0, 2)]
    assert kept == [20, 15] and "student_layers" not in cells[1].values
