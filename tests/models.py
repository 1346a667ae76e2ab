"""Tiny models from configs, shared by the tests."""

from __future__ import annotations

from typing import Any

import torch


def tiny_t5(vocab_size: int = 17, seed: int = 0, **changes: Any) -> Any:
    """A T5 of a few thousand parameters; token 1 ends a sequence, 0 pads."""
    from transformers import T5Config, T5ForConditionalGeneration

    settings = dict(
        vocab_size=vocab_size, d_model=16, d_kv=8, num_heads=2, d_ff=24, num_layers=1, num_decoder_layers=1,
        dropout_rate=0.0, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    torch.manual_seed(seed)
    return T5ForConditionalGeneration(T5Config(**{**settings, **changes})).eval()


def tiny_gpt2(vocab_size: int = 17, seed: int = 0, **changes: Any) -> Any:
    """A GPT-2 of a few thousand parameters."""
    from transformers import GPT2Config, GPT2LMHeadModel

    settings = dict(
        vocab_size=vocab_size, n_embd=16, n_layer=1, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=1,
        pad_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    torch.manual_seed(seed)
    return GPT2LMHeadModel(GPT2Config(**{**settings, **changes})).eval()


def tiny_bart(vocab_size: int = 17, seed: int = 0, **changes: Any) -> Any:
    """A BART of a few thousand parameters: learned positions, so that padding on the wrong side would show."""
    from transformers import BartConfig, BartForConditionalGeneration

    settings = dict(
        vocab_size=vocab_size, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=64, dropout=0.0,
        pad_token_id=0, eos_token_id=1, bos_token_id=2, decoder_start_token_id=1, forced_eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(seed)
    return BartForConditionalGeneration(BartConfig(**{**settings, **changes})).eval()


def tiny_llama(vocab_size: int = 17, seed: int = 0, **changes: Any) -> Any:
    """A Llama of a few thousand parameters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = dict(
        vocab_size=vocab_size, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).eval()


def tiny_opt(vocab_size: int = 17, seed: int = 0, **changes: Any) -> Any:
    """An OPT of a few thousand parameters: learned positions counted from the attention mask."""
    from transformers import OPTConfig, OPTForCausalLM

    settings = dict(
        vocab_size=vocab_size, hidden_size=16, ffn_dim=24, num_hidden_layers=1, num_attention_heads=2, dropout=0.0,
        word_embed_proj_dim=16, max_position_embeddings=64, pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(seed)
    return OPTForCausalLM(OPTConfig(**{**settings, **changes})).eval()


MODELS = {"t5": tiny_t5, "bart": tiny_bart, "gpt2": tiny_gpt2, "llama": tiny_llama, "opt": tiny_opt}


def ragged_prompts(rows: int = 3, vocab_size: int = 17, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of lengths 2, 3, ... padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.arange(2, 2 + rows)
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    ids = torch.randint(3, vocab_size, mask.shape, generator=generator)
    return ids.masked_fill(~mask, 0), mask
