"""Small models by name, with one builder: what tests of engines, rollouts, estimators and probes run on.

``CASES`` holds every kind of layer there is a rule or a handler for; ``MODELS`` the five families that rollouts and
everything above are tested with. The benchmarks build the same cases at other sizes. All other text architectures are
made, and judged, in tests/architectures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kvar.rollouts import Rollouts


@dataclass(frozen=True)
class Size:
    """Vocabulary, width, inner width of feed-forward layers, attention heads, layers of a stack, positions."""

    vocabulary: int = 23
    width: int = 12
    inner: int = 20
    heads: int = 2
    layers: int = 2
    positions: int = 32


SIZE = Size()
"""Of CASES unless told otherwise: about a thousand parameters."""
V = SIZE.vocabulary


def _causal(s: Size) -> dict[str, Any]:
    return {
        "vocab_size": s.vocabulary, "hidden_size": s.width, "intermediate_size": s.inner, "num_hidden_layers": s.layers,
        "num_attention_heads": s.heads, "num_key_value_heads": max(1, s.heads // 2), "head_dim": s.width // s.heads,
        "max_position_embeddings": s.positions, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
    }  # fmt: skip


def _t5(s: Size) -> dict[str, Any]:
    return {
        "vocab_size": s.vocabulary, "d_model": s.width, "d_kv": s.width // s.heads, "d_ff": s.inner,
        "num_layers": s.layers, "num_heads": s.heads, "dropout_rate": 0.0, "pad_token_id": 0, "eos_token_id": 1,
        "decoder_start_token_id": 0,
    }  # fmt: skip


def _bart(s: Size) -> dict[str, Any]:
    return {
        "vocab_size": s.vocabulary, "d_model": s.width, "encoder_layers": s.layers, "decoder_layers": s.layers,
        "encoder_attention_heads": s.heads, "decoder_attention_heads": s.heads, "encoder_ffn_dim": s.inner,
        "decoder_ffn_dim": s.inner, "max_position_embeddings": s.positions, "dropout": 0.0, "pad_token_id": 0,
        "eos_token_id": 1, "bos_token_id": 2, "decoder_start_token_id": 1, "forced_eos_token_id": None,
    }  # fmt: skip


def _gpt2(s: Size) -> dict[str, Any]:
    return {
        "vocab_size": s.vocabulary, "n_embd": s.width, "n_layer": s.layers, "n_head": s.heads,
        "n_positions": s.positions, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0, "resid_pdrop": 0.0,
        "embd_pdrop": 0.0, "attn_pdrop": 0.0,
    }  # fmt: skip


def _opt(s: Size) -> dict[str, Any]:
    return {
        "vocab_size": s.vocabulary, "hidden_size": s.width, "ffn_dim": s.inner, "num_hidden_layers": s.layers,
        "num_attention_heads": s.heads, "dropout": 0.0, "word_embed_proj_dim": s.width,
        "max_position_embeddings": s.positions, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
    }  # fmt: skip


@dataclass(frozen=True)
class Case:
    """How a small model is built.

    Attributes:
        kind: transformers' name of the architecture.
        fields: those of its config at a size.
        changes: further fields.
        tolerance: relative error of gradient moments in float64; some norms and scans are float32 by themselves.
        own_head: a head of its own (transformers ties T5's at construction whatever the config says).
        lora: layers with a LoRA adapter, which alone is trained.
        module: a model written by hand, in place of ``kind``.
    """

    kind: str = ""
    fields: Callable[[Size], dict[str, Any]] = _causal
    changes: dict[str, Any] | None = None
    tolerance: float = 1e-6
    own_head: bool = False
    lora: tuple[str, ...] = ()
    module: Callable[[Size], nn.Module] | None = None

    def __call__(self, size: Size = SIZE, seed: int = 0, **changes: Any) -> Any:
        """A new model in float32 and eval mode, as transformers initialises it."""
        from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForSeq2SeqLM

        torch.manual_seed(seed)
        if self.module is not None:
            return self.module(size).eval()
        config = CONFIG_MAPPING[self.kind](**{**self.fields(size), **(self.changes or {}), **changes})
        auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = auto.from_config(config)
        if self.own_head:
            model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight) * 0.3)
        if self.lora:
            peft = __import__("peft")
            task = "SEQ_2_SEQ_LM" if config.is_encoder_decoder else "CAUSAL_LM"
            model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=list(self.lora), task_type=task))
        return model.eval()


class Untied(nn.Module):
    """A causal transformer of linear layers and embeddings alone, nothing tied: what every peer can take.

    Its norms have no parameters and its positions enter with a batch axis (BackPACK has no rule for the one, Opacus
    none for the absence of the other).
    """

    def __init__(self, size: Size = SIZE) -> None:
        super().__init__()
        self.config = SimpleNamespace(is_encoder_decoder=False)
        self.tokens = nn.Embedding(size.vocabulary, size.width)
        self.positions = nn.Embedding(size.positions, size.width)
        self.layers = nn.ModuleList(_Layer(size.width, size.heads) for _ in range(size.layers))
        self.head = nn.Linear(size.width, size.vocabulary, bias=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, use_cache: bool = False) -> Any:
        """Logits (n, T, V) as transformers models return them; causal, so that a mask of trailing padding is moot."""
        del attention_mask, use_cache
        n, t = input_ids.shape
        x = self.tokens(input_ids.contiguous()) + self.positions(torch.arange(t).repeat(n, 1))
        for layer in self.layers:
            x = layer(x)
        return SimpleNamespace(logits=self.head(F.layer_norm(x, x.shape[-1:])))


class _Layer(nn.Module):
    """Causal self-attention and two linear layers, each after a norm without parameters."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        self.up, self.down = nn.Linear(d, 4 * d, bias=False), nn.Linear(4 * d, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, T, d) to the same."""
        n, t, d = x.shape
        q, k, v = (z.view(n, t, self.heads, -1).transpose(1, 2) for z in self.qkv(F.layer_norm(x, (d,))).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(n, t, d)
        x = x + self.out(y)
        return x + self.down(self.up(F.layer_norm(x, (d,))).relu())


_EXPERTS = {"num_experts_per_tok": 2}
_MOE = {**_EXPERTS, "num_experts": 4, "moe_intermediate_size": 8}
_MAMBA2 = {"mamba_n_heads": 4, "mamba_d_head": 6, "mamba_n_groups": 1, "mamba_chunk_size": 4, "mamba_d_state": 4}
_SSM = {"mamba_d_state": 4, "mamba_d_conv": 3, "mamba_expand": 2, "attn_layer_indices": [1]}
_GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
_LINEAR = {
    "shared_expert_intermediate_size": 8, "linear_num_key_heads": 1, "linear_num_value_heads": 2,
    "linear_key_head_dim": 4, "linear_value_head_dim": 4, "linear_conv_kernel_dim": 3,
    "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
_JAMBA = {
    "mamba_d_state": 4, "mamba_d_conv": 3, "mamba_dt_rank": 2, "use_mamba_kernels": False, "num_experts": 3,
    "num_experts_per_tok": 2, "expert_layer_period": 2, "expert_layer_offset": 1, "attn_layer_period": 2,
    "attn_layer_offset": 1,
}  # fmt: skip
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}

CASES: dict[str, Case] = {
    # Every layer has a rule.
    "t5": Case("t5", _t5),
    "t5-v1.1": Case("t5", _t5, _GATED, own_head=True),
    "mt5": Case("mt5", _t5, {"tie_word_embeddings": False}, own_head=True),
    "bart": Case("bart", _bart, {"scale_embedding": True}, 1e-9),
    "marian": Case("marian", _bart, tolerance=1e-9),
    "gpt2": Case("gpt2", _gpt2, tolerance=1e-9),
    "gpt-neox": Case("gpt_neox"),
    "llama": Case("llama"),
    "smollm": Case("llama", changes={"tie_word_embeddings": True, "rope_parameters": _ROPE, "rms_norm_eps": 1e-5}),
    "qwen2": Case("qwen2"),
    "qwen3": Case("qwen3"),
    "gemma": Case("gemma"),
    "opt": Case("opt", _opt, tolerance=1e-9),
    "opt-projected": Case("opt", _opt, {"word_embed_proj_dim": 8}, 1e-9),
    "untied": Case(module=Untied, tolerance=1e-9),
    # An adapter alone is trained.
    "t5-lora": Case("t5", _t5, lora=("q", "v", "wo")),
    "llama-lora": Case("llama", lora=("q_proj", "down_proj")),
    # Norms with one-off gains, experts, sinks, scans and convolutions, position biases: rules and single operations.
    "cohere": Case("cohere", changes={"use_qk_norm": True}),
    "cohere2": Case("cohere2", changes={"sliding_window": 4}),
    "nemotron": Case("nemotron"),
    "gemma2": Case("gemma2", changes={"sliding_window": 9, "query_pre_attn_scalar": 6}),
    "gemma3": Case("gemma3_text", changes={"sliding_window": 4, "query_pre_attn_scalar": 6}),
    "umt5": Case("umt5", _t5),
    "longt5": Case("longt5", _t5, {"local_radius": 3}),
    "longt5-global": Case(
        "longt5", _t5, {"local_radius": 3, "encoder_attention_type": "transient-global", "global_block_size": 2}
    ),
    "switch": Case(
        "switch_transformers",
        _t5,
        {
            "num_decoder_layers": 2,
            "num_experts": 3,
            "num_sparse_encoder_layers": 1,
            "num_sparse_decoder_layers": 1,
            "expert_capacity": 64,
        },
    ),
    "qwen3-moe": Case("qwen3_moe", changes=_MOE),
    "mixtral": Case("mixtral", changes={**_EXPERTS, "num_local_experts": 4, "sliding_window": None}),
    "gpt-oss": Case("gpt_oss", changes={**_EXPERTS, "num_local_experts": 4, "sliding_window": 4}),
    "qwen3-next": Case("qwen3_next", changes={**_MOE, **_LINEAR}),
    "mamba": Case("mamba", changes={"state_size": 4, "conv_kernel": 3, "time_step_rank": 2}),
    "mamba2": Case(
        "mamba2",
        changes={"state_size": 4, "conv_kernel": 3, "num_heads": 4, "head_dim": 6, "n_groups": 1, "chunk_size": 4},
    ),
    "bamba": Case("bamba", changes={**_SSM, **_MAMBA2}),
    "jamba": Case("jamba", changes=_JAMBA),
    "falcon-h1": Case("falcon_h1", changes={**_MAMBA2, "mamba_d_ssm": 24}),
}
"""Name -> how to build the model."""


def build(name: str, dtype: torch.dtype = torch.float64, size: Size = SIZE) -> Any:
    """The named model of CASES, its trained parameters perturbed so that no norm's weight is one and no bias zero."""
    model = CASES[name](size).to(dtype)
    if dtype == torch.float64 and hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # grouped products know no float64
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def rollouts(n: int = 5, s: int = 4, t: int = 6, seed: int = 1, vocabulary: int = V) -> Rollouts:
    """Random rollouts: prompts of mixed lengths padded in the middle or at either end, full, short and cut responses,
    several to a prompt; the padding token is one of the response's own too.
    """
    generator = torch.Generator().manual_seed(seed)
    prompt_mask = torch.rand(n, s, generator=generator) < 0.7
    prompt_mask[:, 0] = True
    prompt_mask[n // 2] = True
    lengths = torch.randint(1, t + 1, (n,), generator=generator)
    lengths[-1] = t
    return Rollouts(
        prompt_ids=torch.randint(3, vocabulary, (n, s), generator=generator),
        prompt_mask=prompt_mask,
        tokens=torch.randint(vocabulary, (n, t), generator=generator),
        mask=torch.arange(t) < lengths[:, None],
        finished=lengths < t,
        prompt_index=torch.tensor([7, 3, 7, 7, 3, 9, 9, 3, 1])[:n],
        log_probs=torch.zeros(n, t),
    )


_PLAIN = Size(vocabulary=17, width=16, inner=24, heads=2, layers=1, positions=64)


def tiny_t5(vocab_size: int = 17, seed: int = 0, **changes: Any) -> Any:
    """A T5 of a few thousand parameters; token 1 ends a sequence, 0 pads."""
    return Case("t5", _t5)(_PLAIN, seed, vocab_size=vocab_size, **changes)


def tiny_bart(vocab_size: int = 17, seed: int = 0, **changes: Any) -> Any:
    """A BART of a few thousand parameters: learned positions, so that padding on the wrong side would show."""
    return Case("bart", _bart)(_PLAIN, seed, vocab_size=vocab_size, **changes)


def tiny_gpt2(vocab_size: int = 17, seed: int = 0, **changes: Any) -> Any:
    """A GPT-2 of a few thousand parameters."""
    return Case("gpt2", _gpt2)(_PLAIN, seed, vocab_size=vocab_size, **changes)


def tiny_llama(vocab_size: int = 17, seed: int = 0, **changes: Any) -> Any:
    """A Llama of a few thousand parameters."""
    return Case("llama")(_PLAIN, seed, vocab_size=vocab_size, **changes)


def tiny_opt(vocab_size: int = 17, seed: int = 0, **changes: Any) -> Any:
    """An OPT of a few thousand parameters: learned positions counted from the attention mask."""
    return Case("opt", _opt)(_PLAIN, seed, vocab_size=vocab_size, **changes)


MODELS = {"t5": tiny_t5, "bart": tiny_bart, "gpt2": tiny_gpt2, "llama": tiny_llama, "opt": tiny_opt}


def ragged_prompts(rows: int = 3, vocab_size: int = 17, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Prompts of lengths 2, 3, ... padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.arange(2, 2 + rows)
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    ids = torch.randint(3, vocab_size, mask.shape, generator=generator)
    return ids.masked_fill(~mask, 0), mask
