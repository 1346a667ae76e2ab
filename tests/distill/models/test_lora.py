"""LoRA students: sampled, scored, trained, resumed, measured and saved like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kvar.distill import add_lora, build_model, decode, load_model, save_model
from kvar.gradients import gradient_moments
from kvar.rollouts import log_probs, sample, score
from tests.cases import ragged_prompts, tiny_bart, tiny_gpt2, tiny_llama, tiny_t5
from tests.distill.trainer.test_trainer import GPT2, T5, TASK, trainer, weights

pytest.importorskip("peft")
MODELS = {"t5": tiny_t5, "bart": tiny_bart, "gpt2": tiny_gpt2, "llama": tiny_llama}


def adapted(name: str) -> Any:
    """A student whose adapters have been moved off their start, where they do nothing."""
    student = add_lora(MODELS[name](), 2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in student.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return student.eval()


@pytest.mark.parametrize("name", MODELS)
def test_sampling_and_scoring_see_what_the_merged_model_sees(name: str, tmp_path: Path) -> None:
    student = adapted(name)
    save_model(student, tmp_path / "model")
    merged = load_model(str(tmp_path / "model"))
    assert type(merged).__name__ == type(MODELS[name]()).__name__
    prompts = ragged_prompts()
    one, two = (sample(m, prompts, rollouts_per_prompt=3, max_new_tokens=6, seed=5) for m in (student, merged))
    assert torch.equal(one.tokens, two.tokens)
    torch.testing.assert_close(one.log_probs, two.log_probs, atol=1e-5, rtol=0)
    torch.testing.assert_close(log_probs(student, one), log_probs(merged, one), atol=1e-5, rtol=0)
    for limit in (17, 2**20):
        torch.testing.assert_close(score(student, one, max_logits=limit).q, score(merged, one).q, atol=1e-5, rtol=0)
    plain = MODELS[name]()
    assert not torch.allclose(score(plain, one).q, score(merged, one).q, atol=1e-2)


@pytest.mark.parametrize("name", ["t5", "gpt2"])
def test_moments_are_of_the_adapters_alone(name: str) -> None:
    student = adapted(name).double()
    rollouts = sample(student, ragged_prompts(), rollouts_per_prompt=2, max_new_tokens=5, seed=1)
    values = torch.rand(2, *rollouts.tokens.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moments = gradient_moments(student, rollouts, values * rollouts.mask, engine="one-pass")
    for e in range(2):
        for i in range(len(rollouts)):
            student.zero_grad()
            (values[e] * rollouts.mask * log_probs(student, rollouts)).sum(dim=1)[i].backward()
            grads = [p.grad for p in student.parameters() if p.grad is not None]
            expected = sum(float(g.square().sum()) for g in grads)
            assert float(moments.sq_norm[e, i]) == pytest.approx(expected, rel=1e-9)
    assert len(grads) == sum("lora_" in key for key, _ in student.named_parameters())


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return TASK.build_tokenizer()


def lora_trainer(folder: Path, tokenizer: Any, config: dict, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(
            "tests.distill.trainer.test_trainer.build_model",
            lambda c, t, seed=0: build_model(c, t, seed=seed) if seed else add_lora(build_model(c, t), 4),
        )
        return trainer(folder, tokenizer, config, config, **changes)


@pytest.mark.parametrize("config", [T5, GPT2])
def test_training_moves_the_adapters_only_and_resumes(
    config: dict, tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {
        "objective": "ketchup",
        "kernel": "K=2",
        "baseline": "batch-mean",
        "max_new_tokens": 8,
        "max_steps": 6,
        "save_steps": 3,
    }
    run = lora_trainer(tmp_path / "whole", tokenizer, config, monkeypatch, **changes)
    start = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    run.train()
    for name, parameter in run.model.named_parameters():
        assert torch.equal(parameter, start[name]) != ("lora_" in name), name
    checkpoint = tmp_path / "whole" / "checkpoint-3"
    assert (checkpoint / "adapter_model.safetensors").exists() and not (checkpoint / "model.safetensors").exists()
    again = lora_trainer(tmp_path / "again", tokenizer, config, monkeypatch, **changes)
    again.train(resume_from_checkpoint=str(checkpoint))
    assert torch.equal(weights(run.model), weights(again.model))
    prompts = [example.prompt for example in TASK.examples("test", 4)]
    save_model(run.model, tmp_path / "model")
    merged = load_model(str(tmp_path / "model"))
    texts = decode(run.model, prompts, tokenizer, max_new_tokens=6)
    assert decode(merged, prompts, tokenizer, max_new_tokens=6) == texts


def test_saving_leaves_student_and_generation_config_as_they_were(tmp_path: Path, tokenizer: Any) -> None:
    student = add_lora(build_model(T5, tokenizer), 2)
    before = student.get_base_model().generation_config.to_dict()
    decode(student, ["1 + 1"], tokenizer, max_new_tokens=3)
    save_model(student, tmp_path)
    assert student.get_base_model().generation_config.to_dict() == before
    assert any("lora_" in name for name, _ in student.named_parameters())
    saved = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert saved["r"] == 2 and saved["lora_alpha"] == 4
    assert "max_new_tokens" not in json.loads((tmp_path / "generation_config.json").read_text())


def test_adapters_start_from_the_seed_alone() -> None:
    state = torch.get_rng_state()
    one, two, three = (weights(add_lora(tiny_t5(seed=4), 2, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, three)
    torch.manual_seed(4)
    tiny_t5(seed=4)
    assert not torch.equal(state, torch.get_rng_state())  # of the models made here, not of the adapters
    model, before = tiny_gpt2(), torch.get_rng_state()
    add_lora(model, 2)
    assert torch.equal(before, torch.get_rng_state())


def test_targets_are_named_or_all_linear() -> None:
    one = add_lora(tiny_t5(), 2, targets="q, wo")
    names = {key.split(".lora_")[0].rsplit(".", 1)[-1] for key, _ in one.named_parameters() if "lora_" in key}
    assert names == {"q", "wo"}
    every = add_lora(tiny_gpt2(), 2, targets="all-linear")
    names = {key.split(".lora_")[0].rsplit(".", 1)[-1] for key, _ in every.named_parameters() if "lora_" in key}
    assert names == {"c_attn", "c_fc", "c_proj"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 0}, "lora_rank must be an integer of at least 1; got 0"),
        ({"rank": 2, "alpha": 0}, "lora_alpha must be positive; got 0"),
        ({"rank": 2, "targets": "q_proj"}, "'q_proj' fits no layer of this t5; its linear layers are called: .*q.*wo"),
        ({"rank": 2, "targets": "q, vv"}, "'vv' fits no layer"),
    ],
)
def test_bad_settings_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        add_lora(tiny_t5(), **arguments)
