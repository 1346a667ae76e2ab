"""Data sets: rows of every layout, cut targets counted, tokens made for another model refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from kvar.distill import DistillationConfig, DistillationTrainer, build_dataset, decode
from kvar.tasks import Example
from tests.cases import tiny_gpt2, tiny_t5
from tests.rollouts import tokenizers_by_hand as made

USER = {"role": "user", "content": "hi"}
ANSWER = {"role": "assistant", "content": "yo"}


def causal(tokenizer: Any) -> Any:
    return tiny_gpt2(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)


def trainer(tmp_path: Path, tokenizer: Any, model: Any, data: Any, **kwargs: Any) -> DistillationTrainer:
    settings = DistillationConfig(
        output_dir=str(tmp_path), objective="sft", max_new_tokens=8, max_steps=1, per_device_train_batch_size=2,
        report_to="none", use_cpu=True, disable_tqdm=True, save_strategy="no", logging_steps=1,
    )  # fmt: skip
    return DistillationTrainer(model, settings, train_dataset=data, processing_class=tokenizer, **kwargs)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "ab", "target": "cd"},
        {"prompt": "ab", "completion": "cd", "other": 3},
        Example("ab", "cd"),
    ],
)
def test_texts_in_rows(row: Any) -> None:
    tokenizer = made.llama_like()
    data = build_dataset([row], tokenizer, model=causal(tokenizer))
    assert tokenizer.convert_ids_to_tokens(data[0]["prompt"]) == ["<s>", "a", "b"]
    assert tokenizer.convert_ids_to_tokens(data[0]["target"]) == ["c", "d", "</s>"]
    assert (data[0]["index"], data[0]["length"], data[0]["prompt_length"]) == (0, 6, 3)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ANSWER]},
        {"prompt": [USER], "completion": [ANSWER]},
        {"prompt": [USER], "completion": "yo"},
        {"prompt": [USER], "target": ANSWER},
        Example([USER], "yo"),  # type: ignore[arg-type]
    ],
)
def test_conversations_in_rows(row: Any) -> None:
    tokenizer = made.qwen_like()
    data = build_dataset([row], tokenizer, model=causal(tokenizer))
    assert tokenizer.decode(data[0]["prompt"]) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.convert_ids_to_tokens(data[0]["target"]) == ["y", "o", "<|im_end|>"]


def test_a_rows_own_template_options() -> None:
    tokenizer = made.thinking()
    rows = [
        {"messages": [USER, ANSWER]},
        {"messages": [USER, ANSWER], "chat_template_kwargs": {"enable_thinking": False}},
    ]
    data = build_dataset(rows, tokenizer, model=causal(tokenizer))
    assert [tokenizer.decode(ids) for ids in data["target"]] == ["<think>\n\n</think>\n\nyo<|im_end|>", "yo<|im_end|>"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "a"}, "example 1 has the columns text; it needs prompt and target"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "columns prompt, chosen, rejected.*set target to ''"),
        ({"messages": [USER]}, "example 1: messages must be a prompt and the answer to it"),
        ({"messages": [USER, ANSWER, USER]}, "must be the assistant's answer.*roles user, assistant, user"),
        ({"prompt": [USER], "completion": [ANSWER, ANSWER]}, "must be one message of the assistant"),
        ({"prompt": "hi", "completion": [ANSWER]}, "got 1 messages to a prompt that is str"),
        ("text", "example 1 must have prompt and target.*got str"),
        ({"prompt": "a", "target": "b"}, "example 1"),  # a text among conversations
    ],
)  # fmt: skip
def test_rows_that_are_refused(row: Any, said: str) -> None:
    tokenizer = made.qwen_like()
    with pytest.raises(ValueError, match=said):
        build_dataset([{"messages": [USER, ANSWER]}, row], tokenizer, model=causal(tokenizer))


def test_cut_targets_are_counted() -> None:
    tokenizer = made.llama_like()
    examples = [Example("a", "b" * n) for n in (1, 3, 4, 9)]  # with the end: 2, 4, 5, 10 tokens
    said = r"training data: 2 of 4 targets \(50.0%\) are longer than 4 tokens .* Raise max_new_tokens .* to 10"
    with pytest.warns(UserWarning, match=said) as caught:
        data = build_dataset(examples, tokenizer, max_target_tokens=4, name="training data")
    assert len(caught) == 1
    assert [len(ids) for ids in data["target"]] == [2, 4, 4, 4]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_dataset(examples, tokenizer, max_target_tokens=10)


@pytest.mark.parametrize("kind", ["texts", "messages"])
def test_a_trainer_encodes_raw_rows(tmp_path: Path, kind: str) -> None:
    from datasets import Dataset

    tokenizer = made.qwen_like()
    rows = {
        "texts": [{"prompt": "ab", "completion": "cd"}] * 3,
        "messages": [{"messages": [USER, ANSWER]}] * 3,
    }[kind]
    by_hand = build_dataset(rows, tokenizer, model=causal(tokenizer))
    for data in (Dataset.from_list(rows), rows):
        made_here = trainer(tmp_path, tokenizer, causal(tokenizer), data, eval_dataset=data)
        assert made_here.train_dataset[:] == by_hand[:]
        assert made_here.eval_dataset[:] == by_hand[:]
    made_here.train()
    assert made_here.evaluate()["eval_loss"] > 0


def test_a_trainer_refuses_rows_it_cannot_read(tmp_path: Path) -> None:
    from datasets import Dataset

    tokenizer = made.llama_like()
    model = causal(tokenizer)
    with pytest.raises(
        ValueError, match="train_dataset row 0 has the columns question, answer; it needs prompt and target"
    ):
        trainer(tmp_path, tokenizer, model, Dataset.from_list([{"question": "a", "answer": "b"}]))
    stream = Dataset.from_list([{"prompt": "a", "completion": "b"}]).to_iterable_dataset()
    with pytest.raises(ValueError, match="train_dataset is streamed and has the columns prompt, completion, not token"):
        trainer(tmp_path, tokenizer, model, stream)
    good = build_dataset([Example("a", "b")], tokenizer, model=model)
    with pytest.raises(ValueError, match="a row with the columns prompt, completion holds no token ids"):
        trainer(tmp_path, tokenizer, model, good).evaluate(Dataset.from_list([{"prompt": "a", "completion": "b"}]))


def test_tokens_made_for_another_kind_of_model_are_refused(tmp_path: Path) -> None:
    tokenizer = made.pieces_like_t5()  # puts </s> behind a prompt, as T5 reads it
    data = build_dataset([Example("ab", "cd")], tokenizer)
    trainer(tmp_path, tokenizer, tiny_t5(vocab_size=len(tokenizer)), data)
    with pytest.raises(
        ValueError, match=r"row 0 of the data set: a prompt ends with token 1 \('</s>'\).*model=student"
    ):
        trainer(tmp_path, tokenizer, causal(tokenizer), data)
    trainer(
        tmp_path, tokenizer, causal(tokenizer), build_dataset([Example("ab", "cd")], tokenizer, model=causal(tokenizer))
    )
    tokenizer = made.llama_like()
    whole = tokenizer("cd")["input_ids"]  # with <s>
    rows = [{"prompt": [1, 5], "target": [*whole, 2], "index": 0}]
    with pytest.raises(ValueError, match=r"a target begins with token 1 \('<s>'\), which is no part of a response"):
        trainer(tmp_path, tokenizer, causal(tokenizer), rows)
    rows = [{"prompt": [1, 5], "target": [5, 2, 6, 2], "index": 0}]
    with pytest.raises(ValueError, match=r"a target continues after token 2 \('</s>'\)"):
        trainer(tmp_path, tokenizer, causal(tokenizer), rows)


def test_decoded_texts_have_no_end_in_them() -> None:
    from torch import nn

    tokenizer = made.characters(["<p>", "</s>"], plain=("<turn>",), eos_token="</s>", pad_token="<p>")
    turn, c = tokenizer.convert_tokens_to_ids(["<turn>", "c"])
    model = tiny_gpt2(vocab_size=len(tokenizer), n_layer=0, tie_word_embeddings=False)
    model.generation_config.eos_token_id = [1, turn]
    size = len(tokenizer)  # c behind everything but c, the turn's end behind c
    model.transformer.wte = nn.Embedding(size, 16)
    model.transformer.wte.weight.data.zero_()
    model.transformer.wpe.weight.data.zero_()
    model.transformer.ln_f = nn.Identity()
    model.transformer.wte.weight.data[:, 0] = 1.0
    model.transformer.wte.weight.data[c, 1] = 2.0
    model.lm_head = nn.Linear(16, size, bias=False)
    model.lm_head.weight.data.zero_()
    model.lm_head.weight.data[c, 0] = 5.0
    model.lm_head.weight.data[turn, 1] = 5.0
    assert decode(model, ["a", "bb"], tokenizer, max_new_tokens=4) == ["c", "c"]
