"""What is measured on decoded responses: the same whatever the batch, and the teacher's own values."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kvar.distill import build_model, evaluate
from kvar.distill.evaluate import decode_rollouts
from kvar.returns import Geometric, KStep, returns
from kvar.rollouts import score
from kvar.tasks import ArithmeticTask

TASK = ArithmeticTask(1, 2)
TOKENIZER = TASK.build_tokenizer()
CONFIGS = {
    "t5": {"model_type": "t5", "d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 16, "num_layers": 1},
    "gpt2": {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 128, "bos_token_id": 1},
}


def pair(kind: str) -> tuple[Any, Any]:
    student = build_model(CONFIGS[kind], TOKENIZER)
    with torch.no_grad():  # so that some responses end and others are cut
        for parameter in student.parameters():
            parameter.mul_(3)
    return student, build_model(CONFIGS[kind], TOKENIZER, seed=1)


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("beams", [1, 2])
def test_batches_do_not_matter_and_values_are_the_teachers(kind: str, beams: int) -> None:
    student, teacher = pair(kind)
    examples = TASK.examples("test", 7)
    options: dict[str, Any] = {"max_new_tokens": 10, "num_beams": beams}
    kernels = [KStep(1), KStep(3), Geometric(0.9)]
    whole = evaluate(student, TASK, examples, TOKENIZER, batch=4, teacher=teacher, kernels=kernels, **options)
    for i, example in enumerate(examples):
        (rollouts,) = decode_rollouts(student, [example.prompt], TOKENIZER, **options)
        values = score(teacher, rollouts)
        assert whole.responses["length"][i] == rollouts.tokens.shape[1]
        assert whole.responses["finished"][i] == float(rollouts.tokens[0, -1] == TOKENIZER.eos_token_id)
        assert whole.responses["total_gap"][i] == pytest.approx(float(values.gap.sum()), rel=1e-4)
        for kernel in kernels:
            expected = float(returns(values, rollouts.mask, [kernel])[0, 0, 0])
            assert whole.responses[f"return {kernel.name}"][i] == pytest.approx(expected, rel=1e-4, abs=1e-4)
        assert whole.texts[i] == TOKENIZER.decode(rollouts.tokens[0], skip_special_tokens=True).strip()
    assert list(whole.scores) == [
        "exact_answer", "length", "finished", "total_gap", "return K=1", "return K=3", "return geometric(0.9)",
        "gap_per_token",
    ]  # fmt: skip
    gaps, lengths = whole.responses["total_gap"], whole.responses["length"]
    assert whole.metrics["total_gap"] == pytest.approx(sum(gaps) / 7)
    assert whole.metrics["gap_per_token"] == pytest.approx(sum(gaps) / sum(lengths))


def test_a_model_that_decodes_as_its_teacher_would_has_no_gap() -> None:
    student, _ = pair("t5")
    found = evaluate(student, TASK, TASK.examples("test", 4), TOKENIZER, max_new_tokens=8, teacher=student)
    assert found.metrics["total_gap"] == pytest.approx(0, abs=1e-5)


def test_without_a_teacher_there_are_no_returns() -> None:
    student, _ = pair("gpt2")
    found = evaluate(student, TASK, TASK.examples("test", 3), TOKENIZER, max_new_tokens=4)
    assert list(found.metrics) == ["exact_answer", "length", "finished"]
    with pytest.raises(ValueError, match="batch must be at least 1; got 0"):
        evaluate(student, TASK, TASK.examples("test", 3), TOKENIZER, max_new_tokens=4, batch=0)
