"""Students from the teacher's layers: against models assembled by hand, saved and loaded, every family."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kvar.distill import load_model, parse_layers, prune_layers
from kvar.rollouts import sample, token_logits
from tests.cases import ragged_prompts, tiny_bart, tiny_gpt2, tiny_llama, tiny_opt, tiny_t5


def tiny_qwen2(**changes: Any) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=17, hidden_size=16, intermediate_size=24, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, pad_token_id=0, eos_token_id=1, bos_token_id=2,
        use_sliding_window=True, sliding_window=3, max_window_layers=2, **changes,
    )  # fmt: skip
    return Qwen2ForCausalLM(config).eval()


TEACHERS = {
    "t5": lambda: tiny_t5(num_layers=4, num_decoder_layers=4),
    "bart": lambda: tiny_bart(encoder_layers=4, decoder_layers=4),
    "gpt2": lambda: tiny_gpt2(n_layer=4),
    "llama": lambda: tiny_llama(num_hidden_layers=4),
    "opt": lambda: tiny_opt(num_hidden_layers=4),
    "qwen2": tiny_qwen2,
}
PATHS = {
    "t5": ("encoder.block", "decoder.block"),
    "bart": ("model.encoder.layers", "model.decoder.layers"),
    "gpt2": ("transformer.h",),
    "llama": ("model.layers",),
    "opt": ("model.decoder.layers",),
    "qwen2": ("model.layers",),
}


def by_hand(name: str, teacher: Any, keep: list[int]) -> Any:
    """The teacher with layers deleted in place; T5's bias table handed to the layer that is now first."""
    model = deepcopy(teacher)
    for path in PATHS[name]:
        layers = model.get_submodule(path)
        if name == "t5" and keep[0] != 0:
            attention = layers[keep[0]].layer[0].SelfAttention
            attention.relative_attention_bias = layers[0].layer[0].SelfAttention.relative_attention_bias
            attention.has_relative_attention_bias = True
        parent, _, last = path.rpartition(".")
        setattr(model.get_submodule(parent), last, nn.ModuleList(layers[i] for i in keep))
    model.config.num_hidden_layers = len(keep)
    if name == "bart":
        model.config.decoder_layers = model.config.encoder_layers = len(keep)
    if name == "qwen2":
        model.config.layer_types = [teacher.config.layer_types[i] for i in keep]
        model.model.config.layer_types = model.config.layer_types
    return model


@pytest.mark.parametrize("keep", [[0, 2], [3]])
@pytest.mark.parametrize("name", TEACHERS)
def test_logits_are_those_of_a_model_assembled_by_hand(name: str, keep: list[int], tmp_path: Path) -> None:
    teacher = TEACHERS[name]()
    random = torch.get_rng_state()
    student = prune_layers(teacher, keep=keep)
    assert torch.equal(random, torch.get_rng_state())
    rollouts = sample(teacher, ragged_prompts(), rollouts_per_prompt=2, max_new_tokens=6, seed=1)
    with torch.no_grad():
        expected = token_logits(by_hand(name, teacher, keep), rollouts)
        got = token_logits(student, rollouts)
        assert torch.equal(got, expected)
        assert not torch.allclose(got, token_logits(teacher, rollouts), atol=1e-3)
        student.save_pretrained(tmp_path / "student")
        assert torch.equal(token_logits(load_model(str(tmp_path / "student")), rollouts), expected)
    again = sample(student, ragged_prompts(), max_new_tokens=6, seed=3)  # with its cache, layer by layer
    with torch.no_grad():
        log_p = token_logits(student, again).log_softmax(-1).gather(-1, again.tokens[..., None])[..., 0]
    torch.testing.assert_close(log_p[again.mask], again.log_probs[again.mask], atol=1e-5, rtol=0)


def test_every_second_layer_of_each_stack_and_a_stack_for_itself() -> None:
    teacher = tiny_t5(num_layers=4, num_decoder_layers=3)
    student = prune_layers(teacher, every=2)
    assert (student.config.num_layers, student.config.num_decoder_layers) == (2, 2)
    assert torch.equal(student.decoder.block[1].layer[2].DenseReluDense.wo.weight,
                       teacher.decoder.block[2].layer[2].DenseReluDense.wo.weight)  # fmt: skip
    student = prune_layers(teacher, **parse_layers("every 1 / 2"))
    assert (student.config.num_layers, student.config.num_decoder_layers) == (4, 1)
    assert (teacher.config.num_layers, teacher.config.num_decoder_layers) == (4, 3)
    sample(student, ragged_prompts(), max_new_tokens=4)


def test_a_student_is_float32_and_shares_nothing_with_its_teacher() -> None:
    teacher = tiny_gpt2(n_layer=2).bfloat16().requires_grad_(False)
    student = prune_layers(teacher, keep=[1])
    assert {p.dtype for p in student.parameters()} == {torch.float32} and student.config.dtype == torch.float32
    assert all(p.requires_grad for p in student.parameters())
    assert not {p.data_ptr() for p in student.parameters()} & {p.data_ptr() for p in teacher.parameters()}
    assert student.lm_head.weight is student.transformer.wte.weight


def test_settings_of_each_layer_follow_the_layers() -> None:
    teacher = tiny_qwen2()
    assert teacher.config.layer_types == ["full_attention"] * 2 + ["sliding_attention"] * 2
    assert prune_layers(teacher, keep=[1, 3]).config.layer_types == ["full_attention", "sliding_attention"]


def test_lists_that_are_not_one_entry_a_layer_stay() -> None:
    teacher = tiny_llama(num_hidden_layers=2)
    teacher.config.eos_token_id = [1, 3]
    assert prune_layers(teacher, keep=[0]).config.eos_token_id == [1, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give one of every and keep; got every=None, keep=None"),
        ({"every": 2, "keep": [0]}, "give one of every and keep"),
        ({"every": 0}, "every must be from 1 to the 2 layers of encoder; got 0"),
        ({"keep": []}, r"keep must hold rising layer numbers from 0 to 1 .* got \[\]"),
        ({"keep": [1, 0]}, "rising"),
        ({"keep": [0, 2]}, r"from 0 to 1 \(encoder has 2 layers\)"),
        ({"keep": {"layers": [0]}}, "no stack 'layers' in this model; it has: encoder, decoder"),
    ],
)
def test_bad_choices_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prune_layers(tiny_t5(num_layers=2, num_decoder_layers=2), **arguments)


def test_layers_are_read_from_a_setting() -> None:
    assert parse_layers(3) == parse_layers("every 3") == {"every": 3}
    assert parse_layers("0,2") == parse_layers([0, 2]) == {"keep": [0, 2]}
    assert parse_layers("every 2 / 0, 5") == {"keep": {"encoder": 2, "decoder": [0, 5]}}
    for text in ("every", "some", "", "0/1/2", True):
        with pytest.raises(ValueError, match="cannot be read: write 'every 3'"):
            parse_layers(text)
