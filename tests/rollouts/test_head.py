"""Logits made a few tokens at a time: the same values, a bound on the largest tensor, every kind of head."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from kvar.rollouts import Rollouts, sample, score, token_logits
from kvar.rollouts.head import separable, token_logit_chunks
from tests.cases import MODELS, ragged_prompts, tiny_bart, tiny_gpt2, tiny_llama, tiny_t5


def tiny_gemma2(seed: int = 0) -> Any:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(seed)
    config = Gemma2Config(
        vocab_size=17, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=64, pad_token_id=0, eos_token_id=1, bos_token_id=2,
        final_logit_softcapping=0.5,
    )  # fmt: skip
    return Gemma2ForCausalLM(config).eval()


def tiny_cohere(seed: int = 0) -> Any:
    from transformers import CohereConfig, CohereForCausalLM

    torch.manual_seed(seed)
    config = CohereConfig(
        vocab_size=17, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, pad_token_id=0, eos_token_id=1, bos_token_id=2,
        logit_scale=0.3,
    )  # fmt: skip
    return CohereForCausalLM(config).eval()


def biased_bart(seed: int = 0) -> Any:
    model = tiny_bart(seed=seed)
    model.final_logits_bias.copy_(torch.randn(model.final_logits_bias.shape))
    return model


def tied_t5(seed: int = 0) -> Any:
    model = tiny_t5(seed=seed, tie_word_embeddings=True)
    model.config.scale_decoder_outputs = True
    return model


HEADS = {**MODELS, "t5-scaled": tied_t5, "bart-biased": biased_bart, "gemma2": tiny_gemma2, "cohere": tiny_cohere}


def rollouts_of(model: nn.Module) -> Rollouts:
    return sample(model, ragged_prompts(), rollouts_per_prompt=3, max_new_tokens=7, seed=1, vocabulary=15)


class Largest(TorchDispatchMode):
    """The most elements of any tensor made whose last axis is the vocabulary (the head's weight, transposed, aside)."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.elements = vocabulary, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if (
                isinstance(tensor, Tensor)
                and tensor.shape[-1:] == (self.vocabulary,)
                and tensor.shape != (16, self.vocabulary)
            ):
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize("name", HEADS)
def test_chunks_give_the_plain_values(name: str) -> None:
    teacher = HEADS[name](seed=1).double()
    rollouts = rollouts_of(teacher)
    plain = score(teacher, rollouts, vocabulary=15)
    before = {key: value for module in teacher.modules() for key, value in vars(module).items() if key == "forward"}
    for max_logits in (1, 3 * 17, 5 * 17 + 3):
        chunked = score(teacher, rollouts, vocabulary=15, max_logits=max_logits)
        torch.testing.assert_close(chunked.q, plain.q, rtol=0, atol=1e-13)
        torch.testing.assert_close(chunked.v, plain.v, rtol=0, atol=1e-13)
    assert separable(teacher, rollouts)  # the head was taken apart, not only fewer rows taken
    assert before == {} and not any("forward" in vars(module) for module in teacher.modules())


@pytest.mark.parametrize("name", HEADS)
def test_what_follows_the_head_is_part_of_the_logits(name: str) -> None:
    """Soft cap, scale and bias change the logits of these models, and chunks carry them."""
    teacher = HEADS[name](seed=1)
    rollouts = rollouts_of(teacher)
    with torch.no_grad():
        expected = token_logits(teacher, rollouts)
        for where, logits in token_logit_chunks(teacher, rollouts, 40):
            torch.testing.assert_close(logits, expected[where], rtol=0, atol=1e-5)
    if name == "gemma2":
        assert expected.abs().max() < 0.5


@pytest.mark.parametrize("make", [tiny_t5, tiny_gpt2, tiny_llama])
def test_no_more_logits_exist_than_allowed(make: Any) -> None:
    teacher = make(vocab_size=331, seed=1)
    rollouts = rollouts_of(teacher)
    with Largest(331) as whole:
        score(teacher, rollouts)
    with Largest(331) as chunked:
        score(teacher, rollouts, max_logits=4 * 331)
    assert whole.elements >= 331 * rollouts.tokens.numel()
    assert chunked.elements <= 6 * 331  # the trial's 2 rows of 3 tokens, and the chunks


class Headless(nn.Module):
    """A model that applies its tied head by a function call: there is no module to take apart."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = tiny_gpt2(seed=1)
        self.config = self.inner.config
        self.rows: list[int] = []

    def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool = False) -> Any:
        self.rows.append(len(input_ids))
        return self.inner(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)


def test_a_head_that_cannot_be_told_apart_takes_fewer_rows() -> None:
    teacher = Headless().eval()
    rollouts = rollouts_of(tiny_gpt2())
    plain = score(teacher, rollouts)
    teacher.rows.clear()
    chunked = score(teacher, rollouts, max_logits=2 * 17 * rollouts.tokens.shape[1])
    torch.testing.assert_close(chunked.q, plain.q)
    assert set(teacher.rows) <= {1, 2} and not separable(teacher, rollouts)


def test_a_body_that_looks_at_the_head_is_noticed() -> None:
    """The body's output depends on what the head returned: replaying it would be wrong."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_gpt2(seed=1)
            self.config = self.inner.config

        def get_output_embeddings(self) -> nn.Module:
            return self.inner.lm_head

        def forward(self, **inputs: Any) -> Any:
            out = self.inner(**inputs)
            out.logits = out.logits - out.logits.mean(dim=(0, 1))
            return out

    teacher = Odd().eval()
    rollouts = rollouts_of(tiny_gpt2())
    assert not separable(teacher, rollouts)


def test_a_bad_logit_is_placed() -> None:
    teacher = tiny_gpt2(seed=1)
    rollouts = rollouts_of(teacher)
    assert separable(teacher, rollouts)
    with torch.no_grad():
        teacher.lm_head.weight[5] = float("nan")
    with pytest.raises(ValueError, match=r"between response 0, position 0 and response .* NaN or infinite value"):
        score(teacher, rollouts, max_logits=40)
    assert not any("forward" in vars(module) for module in teacher.modules())


@pytest.mark.parametrize("name", ["micro_batch", "max_logits"])
def test_sizes_are_checked(name: str) -> None:
    teacher = tiny_gpt2()
    with pytest.raises(ValueError, match=f"{name} must be at least 1; got 0"):
        score(teacher, rollouts_of(teacher), **{name: 0})
