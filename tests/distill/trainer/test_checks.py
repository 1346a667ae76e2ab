"""What cannot work is refused before training: vocabularies, ends, lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kvar.distill import (
    DistillationConfig,
    DistillationTrainer,
    build_dataset,
    build_model,
    check_lengths,
    check_models,
    decode,
)
from kvar.rollouts import check_same_tokenizer, sample, vocabulary_size
from kvar.tasks import ArithmeticTask
from tests.cases import tiny_bart, tiny_gpt2, tiny_llama, tiny_t5

TASK = ArithmeticTask(1, 1)
SIZES = {
    "t5": {"model_type": "t5", "d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 16, "num_layers": 1},
    "gpt2": {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 96},
}


@pytest.fixture
def tokenizer() -> Any:
    return TASK.build_tokenizer()


def widened(kind: str, tokenizer: Any, extra: int, seed: int = 0) -> Any:
    """A model padded by ``extra`` tokens, whose logits there are the largest of all."""
    size = vocabulary_size(tokenizer)
    model = build_model({**SIZES[kind], "vocab_size": size + extra, "tie_word_embeddings": False}, tokenizer, seed=seed)
    if extra:
        head = torch.nn.Linear(16, size + extra)
        with torch.no_grad():
            head.weight[:size] = model.get_output_embeddings().weight[:size]
            head.bias[:size], head.bias[size:] = 0.0, 50.0
        model.set_output_embeddings(head)
    return model.eval()


def without_padding(model: Any, kind: str, tokenizer: Any) -> Any:
    """The same weights with the tokenizer's own size."""
    plain = widened(kind, tokenizer, 0)
    state = model.state_dict()
    plain.load_state_dict({name: state[name][: len(tensor)] for name, tensor in plain.state_dict().items()})
    return plain


def first_loss(student: Any, teacher: Any, tokenizer: Any, objective: str, folder: Path) -> float:
    args = DistillationConfig(
        output_dir=str(folder), objective=objective, max_new_tokens=6, max_steps=1, learning_rate=0.0,
        per_device_train_batch_size=4, logging_steps=1, save_strategy="no", report_to="none", use_cpu=True,
        disable_tqdm=True,
    )  # fmt: skip
    data = build_dataset(TASK.examples("train", 8), tokenizer, max_target_tokens=6)
    run = DistillationTrainer(student, args, teacher=teacher, train_dataset=data, processing_class=tokenizer)
    run.train()
    return run.state.log_history[0]["loss"]


@pytest.mark.parametrize(("kind", "ours", "theirs"), [("t5", 0, 8), ("t5", 8, 0), ("gpt2", 3, 8)])
def test_padding_of_the_vocabulary_is_never_drawn_scored_or_learnt(
    kind: str, ours: int, theirs: int, tokenizer: Any, tmp_path: Path
) -> None:
    """Teacher and student of one tokenizer, padded to different sizes, with padding that would win every argmax."""
    student, teacher = widened(kind, tokenizer, ours), widened(kind, tokenizer, theirs, seed=1)
    size = vocabulary_size(tokenizer)
    prompts = [example.prompt for example in TASK.examples("test", 4)]
    rollouts = sample(student, prompts, tokenizer, max_new_tokens=6, seed=1, vocabulary=size)
    assert int(rollouts.tokens.max()) < size
    plain = [without_padding(model, kind, tokenizer) for model in (student, teacher)]
    texts = [decode(model, prompts, tokenizer, max_new_tokens=6) for model in (student, plain[0])]
    assert texts[0] == texts[1]
    for objective in ("kl", "ketchup"):
        padded = first_loss(student, teacher, tokenizer, objective, tmp_path)
        assert padded == pytest.approx(first_loss(*plain, tokenizer, objective, tmp_path), rel=1e-4)


def test_ids_with_gaps_count_to_the_largest(tokenizer: Any) -> None:
    size = len(tokenizer)
    assert vocabulary_size(tokenizer) == size

    class Gaps:
        def get_vocab(self) -> dict[str, int]:
            return {"a": 0, "b": 6}

    assert vocabulary_size(Gaps()) == 7


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_model_smaller_than_the_tokenizer_is_refused(role: str, tokenizer: Any) -> None:
    whole = build_model(SIZES["t5"], tokenizer)
    small = build_model({**SIZES["t5"], "vocab_size": 9}, tokenizer)
    pair = (small, whole) if role == "student" else (whole, small)
    with pytest.raises(ValueError, match=rf"the {role} has 9 tokens, the tokenizer {len(tokenizer)}: .*Use the"):
        check_models(*pair, tokenizer)
    check_models(whole, whole, tokenizer)


def test_a_teacher_without_an_end_is_refused(tokenizer: Any) -> None:
    teacher = build_model(SIZES["gpt2"], tokenizer)
    teacher.config.eos_token_id = teacher.generation_config.eos_token_id = None
    with pytest.raises(ValueError, match="the teacher has no end-of-sequence token, neither in generation_config"):
        check_models(build_model(SIZES["gpt2"], tokenizer), teacher, tokenizer)
    teacher.generation_config.eos_token_id = [2, tokenizer.eos_token_id]
    check_models(build_model(SIZES["gpt2"], tokenizer), teacher, tokenizer)
    teacher.generation_config.eos_token_id = 5
    with pytest.raises(ValueError, match=r"the tokenizer ends sequences with .*, the teacher with id 5 \('"):
        check_models(teacher, teacher, tokenizer)


def test_a_tokenizer_without_an_end_is_refused(tokenizer: Any) -> None:
    model = build_model(SIZES["gpt2"], tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="the tokenizer has no end-of-sequence token"):
        check_models(model, model, tokenizer)


def test_a_tokenizer_that_ends_elsewhere_is_not_the_same(tokenizer: Any) -> None:
    other = TASK.build_tokenizer()
    check_same_tokenizer(tokenizer, other)
    other.pad_token = other.eos_token  # padding is masked, so it may differ
    check_same_tokenizer(tokenizer, other)
    other.eos_token = other.unk_token
    with pytest.raises(ValueError, match="end sequences differently: eos_token is .* in the student's tokenizer"):
        check_same_tokenizer(tokenizer, other)


def test_an_encoder_decoder_without_a_start_is_refused(tokenizer: Any) -> None:
    model = build_model(SIZES["t5"], tokenizer)
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = None
    with pytest.raises(ValueError, match="decoder_start_token_id is None"):
        check_models(model, None, tokenizer)


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_prompt_and_response_share_a_causal_models_positions(make: Any) -> None:
    model = make()  # 64 positions
    check_lengths(model, model, 50, 14)
    with pytest.raises(ValueError, match="together more than the 64 positions of the student. Lower .* to 14 or less"):
        check_lengths(model, None, 50, 15)
    with pytest.raises(ValueError, match="prompt has 64 tokens, which leaves no room .* 64 positions of the teacher"):
        check_lengths(tiny_t5(), model, 64, 4)


def test_an_encoder_decoder_has_positions_for_each() -> None:
    bart = tiny_bart()  # 64 positions
    check_lengths(bart, bart, 64, 64)
    with pytest.raises(ValueError, match="the longest prompt has 65 tokens, more than the 64 positions of the student"):
        check_lengths(bart, None, 65, 8)
    with pytest.raises(ValueError, match="response has 65 tokens, .* of the teacher. Lower max_new_tokens to 64"):
        check_lengths(tiny_t5(), bart, 8, 65)
    check_lengths(tiny_t5(), None, 10_000, 10_000)  # relative positions: no end


def test_adapters_do_not_hide_the_limits() -> None:
    pytest.importorskip("peft")
    from kvar.distill import add_lora

    with pytest.raises(ValueError, match="64 positions of the student"):
        check_lengths(add_lora(tiny_gpt2(), 2), None, 60, 5)


@pytest.mark.parametrize("longest", [90, 40])
def test_the_trainer_asks_before_it_starts(longest: int, tmp_path: Path, tokenizer: Any) -> None:
    model = build_model({**SIZES["gpt2"], "n_positions": 48}, tokenizer)
    args = DistillationConfig(
        output_dir=str(tmp_path), objective="sft", max_new_tokens=longest, report_to="none", use_cpu=True
    )
    data = build_dataset(TASK.examples("train", 8), tokenizer, max_target_tokens=longest)
    with pytest.raises(ValueError, match="48 positions of the student"):
        DistillationTrainer(model, args, train_dataset=data, processing_class=tokenizer)
