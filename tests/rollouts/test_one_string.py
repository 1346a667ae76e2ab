"""One text where a list of prompts is meant is refused by every public entry, with the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kvar.distill import build_model, decode, evaluate
from kvar.hooks import GradientProbe, parse_estimators
from kvar.rollouts import encode_prompts, sample
from kvar.tasks import ArithmeticTask

TASK = ArithmeticTask(1, 1)
PROMPT = "Mia has 12 pens."
TALK = [{"role": "user", "content": PROMPT}]


@pytest.fixture(scope="module")
def parts() -> tuple[Any, Any]:
    tokenizer = TASK.build_tokenizer()
    return build_model(
        {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 128}, tokenizer
    ), tokenizer


ENTRIES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "encode_prompts": lambda model, tokenizer, prompts: encode_prompts(prompts, tokenizer),
    "sample": lambda model, tokenizer, prompts: sample(model, prompts, tokenizer, max_new_tokens=2),
    "decode": lambda model, tokenizer, prompts: decode(model, prompts, tokenizer, max_new_tokens=2),
    "beams": lambda model, tokenizer, prompts: decode(model, prompts, tokenizer, max_new_tokens=2, num_beams=2),
    "GradientProbe": lambda model, tokenizer, prompts: GradientProbe(
        prompts, parse_estimators("K=1,K=2"), teacher=model, tokenizer=tokenizer, max_new_tokens=2
    ),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(("prompts", "what"), [(PROMPT, "text"), (TALK, "conversation")])
def test_one_prompt_is_no_list(entry: str, prompts: Any, what: str, parts: tuple[Any, Any]) -> None:
    with pytest.raises(ValueError, match=rf"prompts is one {what}, where a list of prompts is meant: give \[prompt\]"):
        ENTRIES[entry](*parts, prompts)


def test_a_list_of_one_is_one(parts: tuple[Any, Any]) -> None:
    model, tokenizer = parts
    assert len(sample(model, [PROMPT], tokenizer, max_new_tokens=2)) == 1
    assert len(decode(model, [PROMPT], tokenizer, max_new_tokens=2)) == 1


def test_evaluation_takes_examples(parts: tuple[Any, Any]) -> None:
    model, tokenizer = parts
    with pytest.raises(ValueError, match="examples must be a list of examples, each with prompt and target; got str"):
        evaluate(model, TASK, PROMPT, tokenizer, max_new_tokens=2)  # type: ignore[arg-type]
