"""The architectures of the installed transformers, and which of them are refused or cannot be built tiny, and why."""

from __future__ import annotations

__all__ = ["NOT_BUILT", "REFUSED", "SLOW", "architectures", "reason_of"]

_AUDIO = "speech or sound goes in or comes out: no prompt of text"
NOT_BUILT: dict[str, str] = {
    "blt": "reads bytes in patches, whose parts and hash tables have sizes of their own",
    "dbrx": "its blocks' sizes stand in nested configs that its own default config leaves out",
    "dots3_note": "text with sound and pictures; its text half is dots3_note_text",
    "gemma3n": "its vision half needs the package timm; its text half is gemma3n_text",
    "gemma4_assistant": "drafts tokens from another model's states",
    "gemma4_unified_assistant": "drafts tokens from another model's states",
    "musicgen": _AUDIO,
    "musicgen_melody": _AUDIO,
    "nemo_speechlm": _AUDIO,
    "vibevoice_asr": _AUDIO,
    "voxtral_realtime": _AUDIO,
}
"""Model type -> why the sweep has no model of it."""

_NGRAM = "later tokens change a prefix's logits: its n-gram streams read ahead"
REFUSED: dict[str, tuple[str, str]] = {
    "cpmant": ("later tokens", "attends to its whole input in both directions"),
    "prophetnet": ("later tokens", _NGRAM),
    "reformer": ("later tokens", "hashes its whole input into buckets, at random"),
    "xlnet": ("later tokens", "attends in both directions unless it is given a permutation mask"),
}
"""Model type -> a word of the refusal, and the reason in a few."""

_TYPES = "the token types' embedding: no faster way agrees with autograd, why is not known yet"
SLOW: dict[str, str] = {
    "fsmt": "attention modules assert their batch's shape, so they cannot be done again for one trajectory",
    "granite_swa": "its masks give NaN beside padding in float64; in float32 everything is fast",
    "megatron-bert": _TYPES,
    "rembert": _TYPES,
    "roformer": _TYPES,
}
"""Model type -> why some of its parameters are measured one trajectory at a time."""


def architectures() -> list[tuple[str, str]]:
    """(auto class, model type) of every text architecture, in the mappings' order."""
    from transformers.models.auto import modeling_auto as mappings

    causal = mappings.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    seq2seq = mappings.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    return [("AutoModelForCausalLM", kind) for kind in causal] + [("AutoModelForSeq2SeqLM", kind) for kind in seq2seq]


def reason_of(auto: str, kind: str) -> str:
    """The reason that the page gives for what is refused, not built or slow."""
    del auto
    if kind in REFUSED:
        return REFUSED[kind][1]
    return NOT_BUILT.get(kind) or SLOW.get(kind, "")
