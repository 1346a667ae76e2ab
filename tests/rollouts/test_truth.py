"""A model is held against forward passes over single prefixes before anything is sampled, scored or differentiated."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kvar.gradients import gradient_moments
from kvar.rollouts import NonFiniteLogitsError, log_probs, sample, score, unchecked
from tests.cases import MODELS, ragged_prompts, tiny_gpt2, tiny_llama

IDS: dict[str, Any] = {"vocab_size": 17, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
BARTS = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 64,
}  # fmt: skip


def _large(model: Any) -> Any:
    """The model with larger weights, so that mistakes show."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    return model.eval()


def _causal(kind: str, **settings: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    return _large(AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**IDS, **settings})))


def _m2m(**settings: Any) -> Any:
    from transformers import M2M100Config, M2M100ForConditionalGeneration

    torch.manual_seed(0)
    return _large(M2M100ForConditionalGeneration(M2M100Config(**IDS, **BARTS, decoder_start_token_id=1, **settings)))


def _learned_prompt(kind: str) -> Any:
    peft = pytest.importorskip("peft")
    config = getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model = peft.get_peft_model(tiny_llama(), config).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    return model


def _by_hand(model: Any, rollouts: Any, i: int) -> list[float]:
    """Log-probabilities of row i's tokens, each from a forward pass over one unpadded prefix."""
    prompt, made = rollouts.prompt_ids[i][rollouts.prompt_mask[i]], []
    for t in range(int(rollouts.lengths[i])):
        prefix = rollouts.tokens[i, :t]
        if model.config.is_encoder_decoder:
            start = torch.tensor([model.config.decoder_start_token_id])
            inputs = {"input_ids": prompt[None], "decoder_input_ids": torch.cat([start, prefix])[None]}
        else:
            ids = torch.cat([prompt, prefix])[None]
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with torch.no_grad():
            logits = model(**inputs).logits[0, -1]
        made.append(float(logits.log_softmax(-1)[rollouts.tokens[i, t]]))
    return made


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: _causal("bart", is_decoder=True, **BARTS), "prompts of one length at a time"),
        (
            lambda: _causal("roberta", is_decoder=True, max_position_embeddings=64, **SMALL),
            "without a cache.*bad_words",
        ),
        (_m2m, "without a cache.*bad_words"),
        (lambda: _causal("openai-gpt", n_embd=16, n_layer=1, n_head=2, n_positions=64), "without a cache"),
        (lambda: _causal("mamba", hidden_size=16, num_hidden_layers=1, state_size=4), "one length at a time"),
        (lambda: _learned_prompt("PromptTuningConfig"), "without a cache"),
        (lambda: _learned_prompt("PrefixTuningConfig"), "without a cache"),
    ],
    ids=["bart-decoder", "roberta", "m2m_100", "openai-gpt", "mamba", "prompt-tuning", "prefix-tuning"],
)
def test_what_decoding_gets_wrong_is_decoded_another_way(make: Callable[[], Any], words: str) -> None:
    model = make()
    with pytest.warns(UserWarning, match=words):
        rollouts = sample(
            model, ragged_prompts(rows=4), rollouts_per_prompt=4, max_new_tokens=7, seed=3, eos_token_id=1
        )
    scored = log_probs(model, rollouts).detach()
    for i in range(0, len(rollouts), 3):
        truth = torch.tensor(_by_hand(model, rollouts, i))
        torch.testing.assert_close(rollouts.log_probs[i, : len(truth)], truth, atol=1e-5, rtol=0)
        torch.testing.assert_close(scored[i, : len(truth)], truth, atol=1e-5, rtol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # said once
        again = sample(model, ragged_prompts(rows=4), rollouts_per_prompt=4, max_new_tokens=7, seed=3, eos_token_id=1)
    assert torch.equal(again.tokens, rollouts.tokens)


def test_where_the_drawn_pad_is_at_fault_forbidding_it_helps() -> None:
    model = _m2m()
    model.generation_config.bad_words_ids = [[0]]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        rollouts = sample(model, ragged_prompts(), rollouts_per_prompt=4, max_new_tokens=7, seed=3)
    torch.testing.assert_close(log_probs(model, rollouts).detach(), rollouts.log_probs, atol=1e-5, rtol=0)


class _MixesRows(nn.Module):
    """Adds the batch's mean to every row's logits, as experts that share a capacity do in their own way."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = tiny_gpt2()
        self.config = self.inner.config

    def forward(self, **inputs: Any) -> Any:
        logits: Tensor = self.inner(**inputs).logits
        return SimpleNamespace(logits=logits + logits.mean(dim=0))


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "bert": (lambda: _causal("bert", **SMALL), "BertLMHeadModel is refused.*later tokens.*is_decoder=True"),
    "rows-mixed": (_MixesRows, "_MixesRows is refused.*padded batch.*rows depend on each other"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_no_policy_no_number(name: str) -> None:
    make, words = REFUSED[name]
    rollouts = sample(tiny_gpt2(), ragged_prompts(), max_new_tokens=4, seed=0)
    for use in (
        lambda model: sample(model, ragged_prompts(), max_new_tokens=4, seed=0, eos_token_id=1),
        lambda model: log_probs(model, rollouts),
        lambda model: score(model, rollouts),
        lambda model: gradient_moments(model, rollouts, torch.ones(1, *rollouts.tokens.shape)),
    ):
        model = make()
        for _ in range(2):  # the verdict is remembered
            with pytest.raises(ValueError, match=words):
                use(model)


def test_the_trial_can_be_left_out() -> None:
    model, rollouts = _MixesRows(), sample(tiny_gpt2(), ragged_prompts(), max_new_tokens=4, seed=0)
    unasked = log_probs(model, rollouts, check=False)
    with unchecked():
        assert torch.equal(log_probs(model, rollouts), unasked)
        gradient_moments(model, rollouts, torch.ones(1, *rollouts.tokens.shape))
    with pytest.raises(ValueError, match="is refused"):
        log_probs(model, rollouts)


@pytest.mark.parametrize("name", MODELS)
def test_an_ordinary_model_is_tried_once_and_left_as_it_was(name: str) -> None:
    model = MODELS[name]().train()
    next(model.children()).eval()
    modes = [module.training for module in model.modules()]
    calls: list[int] = []
    model.register_forward_pre_hook(lambda module, args: calls.append(torch.is_grad_enabled()))
    torch.manual_seed(5)
    rollouts = sample(model, ragged_prompts(), max_new_tokens=2, seed=0, eos_token_id=99)
    first = len(calls)
    assert not any(calls) and [module.training for module in model.modules()] == modes
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(5)))
    calls.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        sample(model, ragged_prompts(), max_new_tokens=2, seed=0, eos_token_id=99)
    log_probs(model, rollouts)
    assert len(calls) == 3 < first


def test_nothing_is_told_of_a_model_that_gives_nan() -> None:
    """The error that names the row comes, and a model that is mended later is tried then."""
    model = tiny_gpt2()
    weight = model.transformer.wte.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
    with pytest.raises(NonFiniteLogitsError):
        sample(model, ragged_prompts(), max_new_tokens=2, seed=0)
    with torch.no_grad():
        weight.copy_(kept)
    assert len(sample(model, ragged_prompts(), max_new_tokens=2, seed=0)) == 3
