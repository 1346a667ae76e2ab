"""What is measured on decoded responses: the same whatever the batch, and the teacher's own values."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kvar.distill import build_model, evaluate
from kvar.evaluation.evaluate import decode_rollouts
from kvar.returns import Geometric, KStep, returns
from kvar.rollouts import NonFiniteLogitsError, sample, score
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


def spoiled(kind: str, bad: float) -> Any:
    """A student with one logit that is ``bad``, or all of them -inf."""
    student, _ = pair(kind)

    def spoil(module: Any, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[..., slice(None) if bad == -torch.inf else 5] = bad
        return changed

    student.get_output_embeddings().register_forward_hook(spoil)
    return student


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_model_without_finite_logits_gets_no_score(kind: str, beams: int, bad: float) -> None:
    with pytest.raises(NonFiniteLogitsError, match=r"NaN or infinite \(row 0 of the batch, token 0 of its response\)"):
        evaluate(spoiled(kind, bad), TASK, TASK.examples("test", 4), TOKENIZER, max_new_tokens=6, num_beams=beams)


@pytest.mark.parametrize("beams", [1, 3])
def test_nan_in_one_row_of_several_is_named(beams: int) -> None:
    """Prompts of one length, so that their order stays; a symbol's embedding is NaN and stands in the third alone."""
    prompts = ["1 + 2", "1 + 3", "1 - 3", "1 + 1"]
    minus = TOKENIZER("1 - 3", add_special_tokens=False)["input_ids"]
    (only,) = set(minus) - set(TOKENIZER("1 + 2 3", add_special_tokens=False)["input_ids"])
    student, _ = pair("gpt2")
    student.set_output_embeddings(torch.nn.Linear(16, len(TOKENIZER), bias=False))  # the NaN is the input's alone
    student.get_input_embeddings().weight.data[only] = torch.nan
    with pytest.raises(NonFiniteLogitsError) as refused:
        list(decode_rollouts(student, prompts, TOKENIZER, max_new_tokens=6, num_beams=beams))
    assert (refused.value.row, refused.value.step) == (2, 0)
    with pytest.raises(NonFiniteLogitsError) as refused:
        sample(student, prompts, TOKENIZER, rollouts_per_prompt=2, max_new_tokens=6)
    assert (refused.value.row, refused.value.step) == (4, 0)
