"""A teacher's weights are its own: shared memory that training changes is refused, frozen or copied is not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from kvar.distill import DistillationConfig, DistillationTrainer, build_dataset, build_model
from kvar.hooks import GradientProbe
from kvar.returns import KStep
from kvar.rollouts import check_apart
from kvar.tasks import ArithmeticTask
from tests.cases import ragged_prompts, tiny_gpt2, tiny_t5
from tests.hooks.test_probe import foreign_trainer


def sharing(make: Any) -> tuple[Any, Any]:
    """A student that starts with its teacher's embedding itself."""
    student, teacher = make(), make(seed=1)
    student.set_input_embeddings(teacher.get_input_embeddings())
    student.tie_weights()
    return student, teacher


@pytest.mark.parametrize(("make", "name"), [(tiny_gpt2, "transformer.wte.weight"), (tiny_t5, "shared.weight")])
def test_a_trained_parameter_of_both_is_refused_by_name(make: Any, name: str) -> None:
    student, teacher = sharing(make)
    with pytest.raises(ValueError, match=rf"share parameters that are trained: {name}\. .*copy\.deepcopy\(teacher\)"):
        check_apart(student, teacher)
    check_apart(student, copy.deepcopy(teacher))
    check_apart(student, None)
    student.get_input_embeddings().requires_grad_(False)
    check_apart(student, teacher)


def test_one_memory_under_two_parameters_counts_too() -> None:
    student, teacher = tiny_gpt2(), tiny_gpt2(seed=1)
    student.transformer.ln_f.weight = torch.nn.Parameter(teacher.transformer.h[0].ln_1.weight.data)
    with pytest.raises(
        ValueError, match=r"transformer\.ln_f\.weight \(the teacher's transformer\.h\.0\.ln_1\.weight\)\. The"
    ):
        check_apart(student, teacher)
    with pytest.raises(ValueError, match=r"and \d+ more\. The teacher"):
        check_apart(teacher, teacher)


def test_trainer_and_probe_refuse_and_leave_both_as_they_were(tmp_path: Path) -> None:
    student, teacher = sharing(tiny_gpt2)
    probe = GradientProbe(ragged_prompts(), [KStep(1)], teacher=teacher, max_new_tokens=4, first=False)
    before = student.transformer.wte.weight.clone()
    with pytest.raises(ValueError, match="share parameters that are trained"):
        foreign_trainer(tmp_path, student, [probe]).train()
    assert torch.equal(student.transformer.wte.weight, before)
    task = ArithmeticTask(1, 1)
    tokenizer = task.build_tokenizer()
    size = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 96, "bos_token_id": 1}
    student, teacher = (build_model(size, tokenizer, seed=seed) for seed in (0, 1))
    student.set_input_embeddings(teacher.get_input_embeddings())
    student.tie_weights()
    args = DistillationConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none", max_new_tokens=6)
    data = build_dataset(task.examples("train", 4), tokenizer)
    with pytest.raises(ValueError, match="share parameters that are trained"):
        DistillationTrainer(student, args, teacher=teacher, train_dataset=data, processing_class=tokenizer)
    assert all(p.requires_grad for p in student.parameters())
    frozen = copy.deepcopy(teacher)
    DistillationTrainer(student, args, teacher=frozen, train_dataset=data, processing_class=tokenizer)
    assert all(p.requires_grad for p in student.parameters())
    assert not any(p.requires_grad for p in frozen.parameters())
