"""Tiny models of families with layers beyond linear maps, embeddings and plain norms."""

from __future__ import annotations

import torch
from torch import nn

from tests.gradients.one_pass_cases import V

_BASE = {
    "vocab_size": V,
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 6,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_T5 = {"vocab_size": V, "d_model": 12, "d_kv": 4, "d_ff": 20, "num_layers": 2, "num_heads": 3}
_T5 |= {"decoder_start_token_id": 0, "pad_token_id": 0}
_SSM = {"mamba_d_state": 4, "mamba_d_conv": 3, "mamba_expand": 2, "attn_layer_indices": [1]}
_MAMBA2 = {"mamba_n_heads": 4, "mamba_d_head": 6, "mamba_n_groups": 1, "mamba_chunk_size": 4}
_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}

_FIELDS: dict[str, tuple[str, str, dict[str, object]]] = {
    "cohere": ("CohereConfig", "CohereForCausalLM", _BASE | {"use_qk_norm": True}),
    "cohere2": ("Cohere2Config", "Cohere2ForCausalLM", _BASE | {"sliding_window": 4}),
    "nemotron": ("NemotronConfig", "NemotronForCausalLM", _BASE),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", _BASE | {"sliding_window": 9, "query_pre_attn_scalar": 6}),
    "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM", _BASE | {"sliding_window": 4, "query_pre_attn_scalar": 6}),
    "umt5": ("UMT5Config", "UMT5ForConditionalGeneration", _T5),
    "longt5": ("LongT5Config", "LongT5ForConditionalGeneration", _T5 | {"local_radius": 3}),
    "longt5-global": (
        "LongT5Config",
        "LongT5ForConditionalGeneration",
        _T5 | {"local_radius": 3, "encoder_attention_type": "transient-global", "global_block_size": 2},
    ),
    "switch": (
        "SwitchTransformersConfig",
        "SwitchTransformersForConditionalGeneration",
        _T5 | {"num_experts": 3, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "expert_capacity": 64},
    ),
    "qwen3-moe": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM", _BASE | _MOE),
    "mixtral": (
        "MixtralConfig",
        "MixtralForCausalLM",
        _BASE | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    ),
    "gpt-oss": (
        "GptOssConfig",
        "GptOssForCausalLM",
        _BASE | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4},
    ),
    "qwen3-next": (
        "Qwen3NextConfig",
        "Qwen3NextForCausalLM",
        _BASE
        | _MOE
        | {
            "shared_expert_intermediate_size": 8,
            "linear_num_key_heads": 1,
            "linear_num_value_heads": 2,
            "linear_key_head_dim": 4,
            "linear_value_head_dim": 4,
            "linear_conv_kernel_dim": 3,
            "layer_types": ["linear_attention", "full_attention"],
        },
    ),
    "mamba": ("MambaConfig", "MambaForCausalLM", _BASE | {"state_size": 4, "conv_kernel": 3, "time_step_rank": 2}),
    "mamba2": (
        "Mamba2Config",
        "Mamba2ForCausalLM",
        _BASE | {"state_size": 4, "conv_kernel": 3, "num_heads": 4, "head_dim": 6, "n_groups": 1, "chunk_size": 4},
    ),
    "bamba": ("BambaConfig", "BambaForCausalLM", _BASE | _SSM | _MAMBA2),
    "jamba": (
        "JambaConfig",
        "JambaForCausalLM",
        _BASE
        | {"mamba_d_state": 4, "mamba_d_conv": 3, "mamba_dt_rank": 2, "use_mamba_kernels": False}
        | {"num_experts": 3, "num_experts_per_tok": 2, "expert_layer_period": 2, "expert_layer_offset": 1}
        | {"attn_layer_period": 2, "attn_layer_offset": 1},
    ),
    "falcon-h1": ("FalconH1Config", "FalconH1ForCausalLM", _BASE | _MAMBA2 | {"mamba_d_ssm": 24, "mamba_d_state": 4}),
}

FAMILIES = tuple(_FIELDS)
"""Their names."""


def family(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The named model, its parameters perturbed so that no norm weight is one and no bias zero."""
    import transformers

    config, model, fields = _FIELDS[name]
    torch.manual_seed(0)
    built = getattr(transformers, model)(getattr(transformers, config)(**fields)).to(dtype).eval()
    if dtype == torch.float64 and hasattr(built, "set_experts_implementation"):
        built.set_experts_implementation("eager")  # grouped products know no float64
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return built


__all__ = ["FAMILIES", "family"]
