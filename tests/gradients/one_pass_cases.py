"""Tiny models of every architecture the one-pass engine is exact for, and rollouts for them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from kvar.gradients import GroupMoments
from kvar.gradients.loop import loop_moments
from kvar.rollouts import Rollouts

V = 23


def _causal(config: str, model: str, **fields: object) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import transformers

        return getattr(transformers, model)(getattr(transformers, config)(vocab_size=V, **fields))

    return build


def _untied(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """With a head of its own (transformers ties T5's at construction whatever the config says)."""

    def untie() -> nn.Module:
        model = build()
        model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight) * 0.3)
        return model

    return untie


_T5 = {"d_model": 12, "d_kv": 4, "d_ff": 20, "num_layers": 2, "num_heads": 3, "decoder_start_token_id": 0}
_BART = {
    "d_model": 12,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 20,
    "max_position_embeddings": 32,
    "decoder_start_token_id": 2,
    "pad_token_id": 1,
}
_LLAMA = {
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 6,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}

CASES: dict[str, tuple[Callable[[], nn.Module], float]] = {
    "t5-tied": (_causal("T5Config", "T5ForConditionalGeneration", **_T5), 1e-9),
    "t5-v1.1": (
        _untied(
            _causal(
                "T5Config",
                "T5ForConditionalGeneration",
                feed_forward_proj="gated-gelu",
                tie_word_embeddings=False,
                **_T5,
            )
        ),
        1e-9,
    ),
    "mt5": (_untied(_causal("MT5Config", "MT5ForConditionalGeneration", tie_word_embeddings=False, **_T5)), 1e-9),
    "bart": (_causal("BartConfig", "BartForConditionalGeneration", scale_embedding=True, **_BART), 1e-9),
    "marian": (_causal("MarianConfig", "MarianMTModel", **_BART), 1e-9),
    "gpt2": (_causal("GPT2Config", "GPT2LMHeadModel", n_embd=12, n_layer=2, n_head=3, n_positions=32), 1e-9),
    "gpt-neox": (
        _causal(
            "GPTNeoXConfig",
            "GPTNeoXForCausalLM",
            hidden_size=12,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=20,
            max_position_embeddings=32,
        ),
        1e-6,
    ),
    "llama": (_causal("LlamaConfig", "LlamaForCausalLM", **_LLAMA), 1e-6),
    "smollm": (
        _causal(
            "LlamaConfig",
            "LlamaForCausalLM",
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            rms_norm_eps=1e-5,
            **_LLAMA,
        ),
        1e-6,
    ),
    "qwen2": (_causal("Qwen2Config", "Qwen2ForCausalLM", **_LLAMA), 1e-6),
    "qwen3": (_causal("Qwen3Config", "Qwen3ForCausalLM", **_LLAMA), 1e-6),
    "gemma": (_causal("GemmaConfig", "GemmaForCausalLM", **_LLAMA), 1e-6),
    "opt": (
        _causal(
            "OPTConfig",
            "OPTForCausalLM",
            hidden_size=12,
            ffn_dim=20,
            num_hidden_layers=2,
            num_attention_heads=3,
            max_position_embeddings=32,
            word_embed_proj_dim=8,
        ),
        1e-9,
    ),
}
"""Name -> how to build the model, and the relative error allowed in float64 (some norms are float32 by themselves)."""


def build(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The named model, its parameters perturbed so that no norm weight is one and no bias zero."""
    torch.manual_seed(0)
    model = CASES[name][0]().to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def rollouts(n: int = 5, s: int = 4, t: int = 6, seed: int = 1) -> Rollouts:
    """Prompts of mixed lengths padded in the middle or at either end, full, short and cut rows, several per prompt."""
    generator = torch.Generator().manual_seed(seed)
    prompt_mask = torch.rand(n, s, generator=generator) < 0.7
    prompt_mask[:, 0] = True
    prompt_mask[n // 2] = True
    lengths = torch.randint(1, t + 1, (n,), generator=generator)
    lengths[-1] = t
    return Rollouts(
        prompt_ids=torch.randint(3, V, (n, s), generator=generator),
        prompt_mask=prompt_mask,
        tokens=torch.randint(1, V, (n, t), generator=generator),
        mask=torch.arange(t) < lengths[:, None],
        finished=lengths < t,
        prompt_index=torch.tensor([7, 3, 7, 7, 3, 9, 9, 3, 1])[:n],
        log_probs=torch.zeros(n, t),
    )


def weights(data: Rollouts, e: int = 3, dtype: torch.dtype = torch.float64, seed: int = 2) -> torch.Tensor:
    """(E, N, T) random token weights, zero where masked."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(e, *data.tokens.shape, generator=generator).to(dtype).masked_fill(~data.mask, 0.0)


def splits(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Groups that split the parameters and overlap."""
    every = [p for p in model.parameters() if p.requires_grad]
    return {
        "all": every,
        "odd": every[1::2],
        "third": every[::3],
        "vectors": [p for p in every if p.dim() == 1] or every[:1],
    }


def error(ours: GroupMoments, truth: GroupMoments) -> dict[str, float]:
    """Relative error of each field that the truth has."""
    out = {}
    for field in truth.__dataclass_fields__:
        x, y = getattr(ours, field), getattr(truth, field)
        assert (x is None) == (y is None), field
        if x is None:
            continue
        assert x.dtype == torch.float64
        assert x.shape == y.shape, field
        out[field] = float((x - y).norm() / y.norm().clamp(min=1e-300))
    return out


def assert_close(
    ours: dict[str, GroupMoments], truth: dict[str, GroupMoments], tolerance: float, where: str = ""
) -> None:
    """Every field of every group within the tolerance."""
    assert set(ours) == set(truth)
    for group in truth:
        for field, value in error(ours[group], truth[group]).items():
            assert value <= tolerance, f"{where} {group}.{field}: relative error {value:.2e} > {tolerance:.0e}"


__all__ = ["CASES", "V", "assert_close", "build", "error", "loop_moments", "rollouts", "splits", "weights"]
