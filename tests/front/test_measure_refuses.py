"""What ``kvar.measure`` refuses, before anything is sampled."""

from __future__ import annotations

from typing import Any

import pytest

import kvar
from kvar.returns import KStep
from tests.cases import ragged_prompts, tiny_gpt2, tiny_t5

BAD: list[tuple[dict[str, Any], str]] = [
    ({"kernels": "1, many"}, "estimator 'many': the word 'many' is unknown"),
    ({"kernels": "kl immediate exat"}, "the word 'exat' is unknown (did you mean 'exact'?)"),
    ({"kernels": "score exact"}, "reward 'score' is known for sampled tokens alone"),
    ({"kernels": "score - leave-one-out"}, "estimator 'score - leave-one-out' needs score=, a function"),
    (
        {"score": "chrf"},
        "score of kvar.measure and GradientProbe must be a function score(rollouts) that returns one number a "
        "response, not score(texts, examples), which is DistillationTrainer's; got 'chrf'",
    ),
    ({"score": lambda texts, examples: [0.0] * len(texts)}, "must be a function score(rollouts) that returns one"),
    ({"kernels": "1", "estimators": "kl 1"}, "kernels and estimators are the same argument"),
    ({"kernels": "kl 1 - group-normalised", "rollouts_per_prompt": 1}, "group-normalised needs rollouts_per_prompt"),
    ({"kernels": "0"}, "k must be an integer of at least 1; got 0"),
    ({"kernels": ""}, "kernels are empty: name at least one"),
    ({"kernels": [KStep(1), "1"]}, "kernels must be one or more, each once; got K=1, K=1"),
    ({"kernels": "1 - moon"}, "baseline 'moon' is unknown; choose one of teacher-value"),
    ({"baseline": "leave-one-out", "rollouts_per_prompt": 1}, "leave-one-out needs rollouts_per_prompt of at least 2"),
    ({"rollouts_per_prompt": 0}, "rollouts_per_prompt must be a whole number of at least 1; got 0"),
    ({"max_new_tokens": 2.5}, "max_new_tokens must be a whole number of at least 1; got 2.5"),
    ({"max_new_tokens": True}, "max_new_tokens must be a whole number of at least 1; got True"),
    ({"micro_batch": 0}, "micro_batch must be a whole number of at least 1; got 0"),
    ({"seed": "one"}, "seed must be a whole number; got 'one'"),
    ({"engine": "fast"}, "engine must be one of auto, one-pass, loop, jvp; got 'fast'"),
    ({"fields": "some"}, "fields must be one of all, norms; got 'some'"),
    ({"value": "mean"}, "value must be one of max, soft; got 'mean'"),
    ({"groups": "layer"}, "groups must be a mapping, 'layers' or None; got 'layer'"),
    ({"groups": {"a": "nowhere"}}, "groups['a'] names 'nowhere', which is no parameter"),
    ({"prompts": []}, "prompts is empty: give at least one prompt"),
    ({"prompts": "What is 2 and 2?"}, "prompts is one text"),
    ({"prompts": ["a text"]}, "prompts are texts, so a tokenizer is needed"),
    ({"prompts": [[3, 4], [3, 4, 5] * 21]}, "prompts[1] has 63 tokens and max_new_tokens is 5"),
    ({"prompts": [[3, 4], []]}, "prompt"),
    ({"prompts": [[3, 99]]}, "prompts[0] has token id 99, but the models have 17 tokens"),
    ({"max_new_tokens": 64}, "Lower max_new_tokens to 60 or less"),
    ({"vocabulary": 40}, "vocabulary is 40, but the student has 17 tokens: lower it to 17"),
    (
        {"teacher": tiny_gpt2(23)},
        "the student has 17 tokens, the teacher 23, and without a tokenizer the padding",
    ),
    ({"teacher": tiny_gpt2().to("meta")}, "the teacher is on meta, the student on cpu: move one"),
    ({"device": "meta"}, "device is meta, the student on cpu: move it, student.to('meta')"),
    ({"device": "cuda:77"}, "device 'cuda:77' is not available"),
    ({"teacher": "./nowhere"}, "model './nowhere' is no folder"),
    ({"teacher_dtype": "float12"}, "teacher_dtype 'float12' is for a teacher given by name"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=lambda x: "-".join(x) if isinstance(x, dict) else "")
def test_bad_input_gets_one_line_before_anything_is_sampled(
    changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sampled(*_: Any, **__: Any) -> None:
        raise AssertionError("it was sampled")

    monkeypatch.setattr("kvar.hooks.measure.sample", sampled)
    given = {"student": tiny_gpt2(), "teacher": tiny_gpt2(seed=1), "prompts": ragged_prompts(), "max_new_tokens": 5}
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the message is checked whole)
        kvar.measure(**{**given, **changes})
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_neither_module_nor_name_is_a_type_error() -> None:
    with pytest.raises(
        TypeError, match="teacher must be a module, a model folder or a name such as 'arithmetic'; got int"
    ):
        kvar.measure(tiny_t5(), 3, ragged_prompts())
