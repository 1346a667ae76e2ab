"""Students of about 1 M parameters whose layers go beyond linear maps: odd norms, experts, state spaces, sinks."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.cases import Case, rollouts_of

_V, _D = 2000, 128
_CAUSAL = {
    "vocab_size": _V,
    "hidden_size": _D,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": True,
}
_T5 = {"vocab_size": _V, "d_model": _D, "d_kv": 32, "d_ff": 384, "num_layers": 2, "num_heads": 4}
_T5 |= {"decoder_start_token_id": 0, "pad_token_id": 0}
_EXPERTS = {"num_experts_per_tok": 2, "num_hidden_layers": 2}
_MAMBA = {"num_hidden_layers": 3, "state_size": 16, "conv_kernel": 4}

_STUDENTS: dict[str, tuple[str, str, dict[str, object]]] = {
    "T5": ("T5Config", "T5ForConditionalGeneration", _T5),
    "GPT-2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {"vocab_size": _V, "n_embd": _D, "n_layer": 4, "n_head": 4, "n_positions": 256},
    ),
    "Llama": ("LlamaConfig", "LlamaForCausalLM", _CAUSAL),
    "Cohere": ("CohereConfig", "CohereForCausalLM", _CAUSAL),
    "UMT5": ("UMT5Config", "UMT5ForConditionalGeneration", _T5),
    "Qwen3-MoE": (
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        _CAUSAL | _EXPERTS | {"num_experts": 8, "moe_intermediate_size": 96},
    ),
    "Qwen3-Next": (
        "Qwen3NextConfig",
        "Qwen3NextForCausalLM",
        _CAUSAL
        | _EXPERTS
        | {
            "num_experts": 8,
            "moe_intermediate_size": 96,
            "shared_expert_intermediate_size": 96,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 32,
            "linear_value_head_dim": 32,
            "layer_types": ["linear_attention", "full_attention"],
        },
    ),
    "GPT-OSS": (
        "GptOssConfig",
        "GptOssForCausalLM",
        _CAUSAL
        | _EXPERTS
        | {
            "num_local_experts": 8,
            "intermediate_size": 96,
            "sliding_window": 16,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
    "Mamba": ("MambaConfig", "MambaForCausalLM", _CAUSAL | _MAMBA),
    "Mamba-2": (
        "Mamba2Config",
        "Mamba2ForCausalLM",
        _CAUSAL | _MAMBA | {"num_heads": 8, "head_dim": 32, "n_groups": 1, "chunk_size": 16},
    ),
}

FAMILIES = tuple(_STUDENTS)
"""Their names."""


def family(name: str, n: int = 32, t: int = 32, e: int = 6) -> Case:
    """The named student, random, with rollouts and weights as those of ``cases.case``."""
    torch.manual_seed(0)
    rollouts, weights = rollouts_of(_V, n, t, e)
    return Case(name, "1M", _built(name), rollouts, weights)


def _built(name: str) -> nn.Module:
    import transformers

    config, model, fields = _STUDENTS[name]
    student: nn.Module = getattr(transformers, model)(getattr(transformers, config)(**fields)).eval()
    return student
