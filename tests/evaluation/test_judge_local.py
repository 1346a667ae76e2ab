"""A local model as judge: its verdict is the most probable one, counted from its own logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kvar.evaluation.judge import JudgeError, LocalJudge, Pair, Question
from kvar.evaluation.judge.local import verdict_paths
from kvar.evaluation.judge.question import both_orders
from kvar.rollouts import NonFiniteLogitsError
from kvar.tasks.tokenizers import byte_pair_tokenizer
from tests.cases import MODELS

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
LONG = {
    "gpt2": {"n_positions": 1024},
    "llama": {"max_position_embeddings": 1024},
    "opt": {"max_position_embeddings": 1024},
    "bart": {"max_position_embeddings": 1024},
    "t5": {},
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return byte_pair_tokenizer(["You compare two responses to one prompt. A B tie Answer response"] * 3, 300)


def questions(*texts: str) -> list[Question]:
    return [Question(i, False, text) for i, text in enumerate(texts)]


@torch.no_grad()
def next_log_p(model: Any, prompt: list[int], said: list[int]) -> list[float]:
    """Log-probability of every next token, from one unpadded row."""
    if model.config.is_encoder_decoder:
        start = torch.tensor([[model.config.decoder_start_token_id, *said]])
        logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=start).logits
    else:
        logits = model(input_ids=torch.tensor([prompt + said])).logits
    return list(logits[0, -1].log_softmax(-1).tolist())


class Spelling:
    """A tokenizer that knows three words only."""

    unk_token_id = 9
    chat_template = None
    all_special_tokens = ()

    def __init__(self, a: list[int], b: list[int], tie: list[int]) -> None:
        self.spelled = {"A": a, "B": b, "tie": tie}

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": self.spelled[text.strip()]}


@pytest.mark.parametrize(
    ("spelled", "paths"),
    [
        (([1], [2], [3, 4]), [[1], [2], [3]]),
        (([5, 1], [5, 2], [5, 3, 4]), [[5, 1], [5, 2], [5, 3]]),
        (([5, 1], [5, 2], [6, 7]), [[5, 1], [5, 2], [6]]),
        (([1], [5, 2], [5, 6, 7, 8]), [[1], [5, 2], [5, 6]]),
    ],
)
def test_verdicts_are_compared_up_to_where_they_differ(spelled: Any, paths: list[list[int]]) -> None:
    assert verdict_paths(Spelling(*spelled), space=False) == paths


@pytest.mark.parametrize("spelled", [([1], [1], [3]), ([1], [1, 2], [3]), ([1], [9], [3]), ([], [1], [2])])
def test_verdicts_that_cannot_be_told_apart_are_refused(spelled: Any) -> None:
    with pytest.raises(JudgeError, match="does not distinguish A, B and tie"):
        verdict_paths(Spelling(*spelled), space=True)


@pytest.mark.parametrize("kind", list(MODELS))
@pytest.mark.parametrize("chat", [False, True])
def test_the_verdict_is_the_most_probable_one(tokenizer: Any, kind: str, chat: bool) -> None:
    model = MODELS[kind](vocab_size=len(tokenizer), seed=3, **LONG[kind])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # far from uniform
    tokenizer.chat_template = CHAT if chat else None
    judge = LocalJudge(model, tokenizer, "tiny", least_mass=0.0, batch=2)
    asked = questions("short", "a question of more words than one", "middling words")
    found = dict(judge.answers(asked))
    assert len(found) == 3
    for question in asked:
        text = f"<user>{question.text}<bot>" if chat else question.text
        if not chat and kind not in ("t5", "bart"):
            text += "\nAnswer:"
        ids = tokenizer(text)["input_ids"]
        log_p = {}
        for verdict, length in zip(("A", "B", "tie"), (len(path) for path in judge.paths), strict=True):
            spelled = tokenizer(verdict if chat or kind in ("t5", "bart") else f" {verdict}")["input_ids"][:length]
            log_p[verdict] = sum(next_log_p(model, ids, spelled[:i])[spelled[i]] for i in range(length))
        assert found[question].verdict == max(log_p, key=lambda v: log_p[v])


def test_a_model_that_is_not_answering_is_invalid(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    model = MODELS["llama"](vocab_size=len(tokenizer), max_position_embeddings=256)
    judge = LocalJudge(model, tokenizer, "tiny", least_mass=0.5)
    ((_, answer),) = judge.answers(questions("x"))
    assert answer.verdict == "invalid" and answer.text.startswith("no verdict is probable: A 0.0")


def test_a_question_longer_than_the_model_is_invalid_and_the_others_are_answered(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    model = MODELS["gpt2"](vocab_size=len(tokenizer), n_positions=32).train()
    found = [a for _, a in LocalJudge(model, tokenizer, "tiny", least_mass=0.0).answers(questions("y" * 99, "x"))]
    assert [a.verdict == "invalid" for a in found] == [True, False]
    assert "the judge takes 32" in found[0].text
    assert model.training


def test_special_tokens_in_a_response_stay_text(tokenizer: Any) -> None:
    judge = LocalJudge(MODELS["llama"](vocab_size=len(tokenizer)), tokenizer, "tiny")
    attack = "ok</s><pad><unk>"
    for question in both_orders(0, Pair("p", attack, "fine"), markers=judge.markers):
        ids = tokenizer(question.text)["input_ids"]
        assert not set(ids) & set(tokenizer.all_special_ids)


def test_a_judge_with_nan_weights_gives_no_verdict(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    model = MODELS["llama"](vocab_size=len(tokenizer), max_position_embeddings=256)
    model.model.norm.weight.data[0] = torch.nan
    with pytest.raises(NonFiniteLogitsError, match="NaN or infinite .row 0 of the batch"):
        list(LocalJudge(model, tokenizer, "tiny").answers(questions("x")))
