"""What makes sampling quick changes nothing of what is sampled."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kvar.rollouts import log_probs, sample
from kvar.rollouts.decoding.cached import CachedDecoding
from tests.cases import MODELS, ragged_prompts, tiny_llama, tiny_t5


def _tiny_mistral() -> Any:
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=17, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, sliding_window=4, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    return MistralForCausalLM(config).eval()


def _same(one: Any, two: Any) -> None:
    assert torch.equal(one.tokens, two.tokens) and torch.equal(one.mask, two.mask)
    torch.testing.assert_close(one.log_probs, two.log_probs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_one_reading_of_a_prompt_serves_all_its_responses(name: str) -> None:
    model, (ids, mask) = MODELS[name](), ragged_prompts()
    once = sample(model, (ids, mask), rollouts_per_prompt=3, max_new_tokens=8, seed=4)
    each = sample(model, (ids.repeat_interleave(3, dim=0), mask.repeat_interleave(3, dim=0)), max_new_tokens=8, seed=4)
    _same(once, each)
    assert torch.equal(once.prompt_ids, each.prompt_ids)


@pytest.mark.parametrize("make", [tiny_t5, tiny_llama])
def test_a_prompt_is_read_once(make: Any) -> None:
    model = make()
    rows: list[tuple[int, int]] = []
    reader = model.get_encoder() if make is tiny_t5 else model.model
    reader.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    sample(model, ragged_prompts(), rollouts_per_prompt=5, max_new_tokens=3, seed=0, check=False)
    assert rows[0] == (3, 4)
    assert all(shape == (15, 1) for shape in rows[1:])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("padded", [False, True])
def test_dropping_finished_rows_changes_nothing(name: str, padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (ids, mask) = MODELS[name](), ragged_prompts()
    prompts = (ids, mask) if padded else (ids[:, :2], mask[:, :2])
    settings: dict[str, Any] = {"rollouts_per_prompt": 8, "max_new_tokens": 30, "seed": 11}
    often = int(sample(model, prompts, **settings).tokens.flatten().bincount(minlength=17)[1:].argmax()) + 1
    settings["eos_token_id"] = often
    sizes: list[int] = []
    step = CachedDecoding.step
    monkeypatch.setattr(CachedDecoding, "step", lambda self, tokens: (sizes.append(len(tokens)), step(self, tokens))[1])
    dropped = sample(model, prompts, **settings)
    assert sizes[0] == 24 and sizes[-1] <= 18 and sizes == sorted(sizes, reverse=True)
    monkeypatch.setattr(CachedDecoding, "keep", lambda self, rows: pytest.fail("rows were dropped"))
    monkeypatch.setattr("kvar.rollouts.decoding.cache.rows_can_be_chosen", lambda cache: False)
    sizes.clear()
    _same(dropped, sample(model, prompts, **settings))
    assert set(sizes) == {24}


def test_a_sliding_window_is_left_to_the_model() -> None:
    """Its cache forgets; rows are neither repeated nor dropped there, and what is reported still holds."""
    model = _tiny_mistral()
    rollouts = sample(model, ragged_prompts(), rollouts_per_prompt=4, max_new_tokens=12, seed=1, eos_token_id=5)
    assert not CachedDecoding(model, *ragged_prompts(), 1, 2).by_rows
    assert int(rollouts.lengths.max()) > 4 and rollouts.finished.any()
    torch.testing.assert_close(log_probs(model, rollouts).detach(), rollouts.log_probs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["t5", "gpt2"])
def test_a_lora_student_samples_what_it_says(name: str) -> None:
    peft = pytest.importorskip("peft")
    targets, kind = (["q", "v"], "SEQ_2_SEQ_LM") if name == "t5" else (["c_attn"], "CAUSAL_LM")
    torch.manual_seed(1)
    settings = peft.LoraConfig(r=2, target_modules=targets, task_type=kind, init_lora_weights=False)
    model = peft.get_peft_model(MODELS[name](), settings).eval()
    rollouts = sample(model, ragged_prompts(), rollouts_per_prompt=2, max_new_tokens=6, seed=2)
    torch.testing.assert_close(log_probs(model, rollouts).detach(), rollouts.log_probs, atol=1e-5, rtol=0)
