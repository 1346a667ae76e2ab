"""Any text architecture of transformers, tiny: its default config, every size shrunk by the name of its field."""

from __future__ import annotations

from typing import Any

import torch

V = 40
MAIN = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
_NAMES = {
    16: """
        hidden_size d_model n_embd emb_dim embedding_size dim_model input_embedding_size output_embedding_size
        word_embed_proj_dim attention_hidden_size lru_width embedding_dim cross_attention_hidden_size
    """,
    24: """
        intermediate_size ffn_dim encoder_ffn_dim decoder_ffn_dim d_ff dff d_inner dim_ff feed_forward_size
        n_inner intermediate_size_mlp dense_intermediate_size ffn_hidden_size expert_ffn_hidden_size
        shared_intermediate_size moe_intermediate_size shared_expert_intermediate_size
        moe_shared_expert_intermediate_size shared_experts_intermediate_size router_hidden_size
    """,
    2: """
        num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads
        attention_heads num_encoder_attention_heads num_decoder_attention_heads num_key_value_heads num_kv_heads
        linear_num_key_heads linear_num_value_heads linear_num_heads swa_num_attention_heads
        swa_num_key_value_heads index_n_heads num_experts_per_tok num_experts_per_token moe_k moe_topk
        num_random_blocks o_groups type_vocab_size num_global_tokens
    """,
    8: """
        head_dim d_kv v_head_dim global_head_dim swa_head_dim kv_channels dim_head d_head attention_head_dim
        q_lora_rank kv_lora_rank qk_head_dim index_head_dim linear_head_dim linear_key_head_dim
        linear_value_head_dim attention_head_size relative_attention_num_buckets num_buckets mamba_d_head
        mamba_head_dim mamba_headdim pronunciation_embed_dim shape_embed_dim rel_extent o_lora_rank
        gated_norm_rank adapter_rank hc_lowrank
    """,
    4: """
        qk_rope_head_dim qk_nope_head_dim mamba_d_state ssm_state_size state_size time_step_rank chunk_size
        mamba_chunk_size mamba_n_heads mamba_num_heads n_mamba_heads sliding_window window_size
        attention_window_size sliding_window_size attention_chunk_size local_attention num_experts
        num_local_experts n_routed_experts moe_num_experts mamba_dt_rank hidden_size_per_layer_input d_rel
        rotary_dim index_topk_blocks index_block_size laurel_rank zero_expert_num local_attn_chunk_length
        lsh_attn_chunk_length query_pre_attn_scalar prompt_length num_query_groups block_multiple_of
        ffn_round_up_to_multiple_of local_radius global_block_size attention_window block_size
    """,
    1: """
        n_group n_groups topk_group mamba_n_groups mamba_ngroups num_expert_group n_shared_experts
        encoder_layers decoder_layers num_decoder_layers num_encoder_layers first_k_dense_replace
        num_sparse_encoder_layers num_sparse_decoder_layers encoder_sparse_step decoder_sparse_step
        num_nextn_predict_layers
    """,
    64: """
        max_position_embeddings n_positions max_target_positions max_source_positions n_ctx max_seq_len
        model_max_length context_length max_encoder_position_embeddings max_decoder_position_embeddings
        index_topk keep_window_size mem_len original_max_position_embeddings
    """,
    V: """
        vocab_size vocab_size_per_layer_input decoder_vocab_size src_vocab_size tgt_vocab_size
        unpadded_vocab_size pronunciation_vocab_size shape_vocab_size t2u_vocab_size
    """,
}
SIZES: dict[str, Any] = {name: size for size, names in _NAMES.items() for name in names.split()}
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_layers_per_stack")

_ROPE_HEAD = {"head_dim": 4}  # the rotary part alone
_HEAD = {"head_dim": 8}
_SHARED = {
    "num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2, "attention_hidden_size": 32,
    "attention_head_dim": 16, "hybrid_layer_ids": [1, 3],
}  # fmt: skip
_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_INDEXER = {
    "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 64,
    "indexer_compress_ratio": 4,
}  # fmt: skip
OVERRIDES: dict[str, dict[str, Any]] = {
    "big_bird": {"attention_type": "original_full"},
    "bigbird_pegasus": {"attention_type": "original_full"},
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}},
    "mimo_v2_flash": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 12},
    "qwen4_exp": {f"text_config.{name}": value for name, value in _INDEXER.items()},
    "qwen4_exp_text": _INDEXER,
    "zamba": _SHARED,
    "zamba2": _SHARED,
    "axk1": _ROPE_HEAD,
    "codegen": {"num_attention_heads": 4},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
        "ffn_config": {"hidden_size": 16, "ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v2": {"num_experts_per_tok": 2},
    "deepseek_v3": _ROPE_HEAD,
    "encoder-decoder": {"decoder.is_decoder": True, "decoder.add_cross_attention": True},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "dots3_note_text": {"per_layer_config": {}},
    "falcon_h1": {"mamba_d_ssm": 32},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "hunyuan_v1_dense": _HEAD,
    "hunyuan_v1_moe": _HEAD,
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": _ROPE_HEAD,
    "mamba2": {"num_heads": 4},
    "ministral": _HEAD,
    "nemotron": {"num_key_value_heads": 2, "head_dim": 8},
    "reformer": {"axial_pos_shape": [8, 8], "axial_pos_embds_dim": [8, 8]},
    "whisper": {"begin_suppress_tokens": None, "suppress_tokens": None},
    "xlm": {"causal": True},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "youtu": _ROPE_HEAD,
}
"""Architecture -> fields that its size alone does not settle; nested configs by dotted names."""


def config_of(kind: str, decoder: bool) -> Any:
    """The tiny config of a model type; ``decoder`` makes BERT's kin and halves of encoder-decoders causal models."""
    from transformers import CONFIG_MAPPING

    fields = _shrunk(CONFIG_MAPPING[kind])
    if decoder and "is_decoder" in vars(CONFIG_MAPPING[kind]()):
        fields |= {"is_decoder": True, "is_encoder_decoder": False}
    elif not decoder:
        fields["decoder_start_token_id"] = 2
    for name, value in OVERRIDES.get(kind, {}).items():
        *path, last = name.split(".")
        inner = fields
        for step in path:
            inner = inner.setdefault(step, {})
        inner[last] = value
    return CONFIG_MAPPING[kind](**fields)


def build(kind: str, auto: str) -> Any:
    """A tiny model in eval mode whose weights are large enough for mistakes to show.

    Args:
        kind: model type.
        auto: "AutoModelForCausalLM" or "AutoModelForSeq2SeqLM".
    """
    import transformers

    torch.manual_seed(0)
    model = getattr(transformers, auto).from_config(config_of(kind, auto == "AutoModelForCausalLM")).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.add_(torch.randn_like(parameter), alpha=0.15 if parameter.dim() > 1 else 0.05)
    return model


def _shrunk(cls: Any) -> dict[str, Any]:
    from transformers import PretrainedConfig

    default = cls()
    small: dict[str, Any] = {}
    for name, value in vars(default).items():
        name = next((k for k, v in getattr(cls, "attribute_map", {}).items() if v == name and k in SIZES), name)
        if isinstance(value, PretrainedConfig):
            small[name] = {"model_type": value.model_type, **_shrunk(type(value))}
        elif name in SIZES and isinstance(value, int) and not isinstance(value, bool):
            small[name] = min(SIZES[name], value) if value > 0 else value
        elif name in SIZES and isinstance(value, list) and value and isinstance(value[0], int):
            small[name] = [SIZES[name]] * len(value)
        elif "dropout" in name or name.endswith(("drop", "pdrop", "jitter_noise")):
            small[name] = 0.0 if isinstance(value, float) else value
        elif name in MAIN:
            small[name] = MAIN[name]
        elif name.endswith(("token_id", "token_index")) and isinstance(value, int):
            small[name] = V - 1
    return {**small, **_layers(default, small)}


def _layers(default: Any, small: dict[str, Any]) -> dict[str, Any]:
    """As many layers as there are kinds of them, two at least; lists by layer cut to them."""
    counts = [name for name in LAYERS if isinstance(vars(default).get(name), int)]
    if not counts:
        return {}
    many = vars(default)[counts[0]]
    lists = {k: list(v) for k, v in vars(default).items() if isinstance(v, list | tuple) and len(v) == many > 2}
    chosen = [0, many - 1] if not lists else []
    seen: set[str] = set()
    for place in range(many if lists else 0):
        kind = str([v[place] for v in lists.values() if isinstance(v[place], str)])
        if kind not in seen:
            seen.add(kind)
            chosen.append(place)
    if len(chosen) == 1:
        chosen.append(many - 1)
    cut = {k: [SIZES[k]] * len(chosen) if k in SIZES else [v[i] for i in chosen] for k, v in lists.items()}
    return {**{name: len(chosen) for name in counts}, **cut}
