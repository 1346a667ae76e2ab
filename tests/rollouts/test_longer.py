"""What changes with length is seen at the length of real rollouts, and refused; what does not is left alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kvar.gradients import gradient_moments
from kvar.rollouts import log_probs, policy_of, sample, score, unchecked
from tests.cases import tiny_bart, tiny_gpt2, tiny_llama


def phi3(original: int) -> Any:
    """Long RoPE: other frequencies once the text is longer than ``original``, for the tokens before that as well."""
    from transformers import Phi3Config, Phi3ForCausalLM

    torch.manual_seed(0)
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "rope_theta": 1e4}
    return Phi3ForCausalLM(
        Phi3Config(
            vocab_size=40, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, eos_token_id=1, bos_token_id=2, pad_token_id=0, initializer_range=0.5,
            max_position_embeddings=1000, original_max_position_embeddings=original, rope_scaling=rope,
        )
    ).eval()  # fmt: skip


def prompts(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(5, 15, (length,), generator=generator).tolist() for length in lengths]


def test_positions_that_stretch_inside_a_response_are_refused() -> None:
    model = phi3(80)
    with unchecked():  # what is refused: the first token of the response by hand, alone and with the rest behind it
        drawn = sample(model, prompts(76), max_new_tokens=8, seed=0, eos_token_id=[])
    text = torch.cat([drawn.prompt_ids, drawn.tokens], dim=1)
    alone, whole = (model(text[:, :end]).logits[0, 75].log_softmax(dim=-1) for end in (76, text.shape[1]))
    assert text.shape[1] > 80 and float((alone - whole).abs().max()) > 0.01
    for ask in (
        lambda: sample(model, prompts(76), max_new_tokens=8, seed=0, eos_token_id=[]),
        lambda: log_probs(model, drawn),
        lambda: score(model, drawn),
        lambda: gradient_moments(model, drawn, torch.ones(1, *drawn.mask.shape)),
    ):
        with pytest.raises(ValueError, match="Phi3ForCausalLM is refused at this length: .* when later tokens follow"):
            ask()
    sample(model, prompts(20), max_new_tokens=4)  # shorter text is one distribution


def test_rows_that_change_beside_a_longer_one_are_refused() -> None:
    model = phi3(80)
    with unchecked():
        drawn = sample(model, prompts(100, 30), max_new_tokens=4, seed=0)
    with pytest.raises(ValueError, match="refused at this length: .* in a padded batch"):
        log_probs(model, drawn)


@pytest.mark.parametrize("make", [tiny_llama, tiny_bart])
def test_ordinary_models_are_not_refused_and_left_as_they_are(make: Any) -> None:
    model = make(max_position_embeddings=256).train()
    state = torch.get_rng_state()
    drawn = sample(model, prompts(90, 70), rollouts_per_prompt=2, max_new_tokens=70, seed=0)
    assert model.training and torch.equal(state, torch.get_rng_state())
    log_probs(model, drawn)  # a forward pass in training mode, for which BART may draw the layers that it drops
    assert model.training
    state = torch.get_rng_state()
    log_probs(model.eval(), drawn)
    assert not model.training and torch.equal(state, torch.get_rng_state())


def test_a_refusal_for_bad_ids_is_not_kept() -> None:
    model = tiny_gpt2()
    with pytest.raises(ValueError, match="ids must be tokens"):
        sample(model, [[5, 700]], max_new_tokens=2)
    sample(model, [[5, 7]], max_new_tokens=2)


def test_the_trial_needs_no_more_positions_than_the_model_has() -> None:
    model = tiny_gpt2(n_positions=65)
    assert len(sample(model, prompts(64), max_new_tokens=1, seed=0)) == 1


def test_a_model_that_switches_its_attention_for_good_is_refused() -> None:
    from transformers import BigBirdConfig, BigBirdForCausalLM

    small = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = BigBirdConfig(
        **small, num_attention_heads=2, is_decoder=True, eos_token_id=1, attention_type="block_sparse"
    )
    with pytest.raises(ValueError, match="attention_type='original_full'"):
        sample(BigBirdForCausalLM(config), prompts(5), max_new_tokens=2, eos_token_id=1)


def test_the_action_set_is_no_wider_than_either_model() -> None:
    class Tok:
        pad_token_id, eos_token_id = 0, 1

        def get_vocab(self) -> dict[str, int]:
            return {f"t{i}": i for i in range(17)}

    assert policy_of(tiny_gpt2(vocab_size=12), Tok()).size == 12
    assert policy_of(tiny_gpt2(), Tok(), teacher=tiny_gpt2(vocab_size=13)).size == 13
    assert policy_of(tiny_gpt2(), teacher=tiny_gpt2(vocab_size=13)).size == 13


def test_forbidden_ids_past_the_models_width_do_nothing() -> None:
    model = tiny_gpt2()
    model.generation_config.suppress_tokens = [500]
    assert len(sample(model, prompts(3), max_new_tokens=2)) == 1
