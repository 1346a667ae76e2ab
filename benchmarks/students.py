"""Students of about 1 M parameters whose layers go beyond linear maps: odd norms, experts, state spaces, sinks."""

from __future__ import annotations

from typing import Any

from benchmarks.cases import Case, rollouts_of
from tests.cases import CASES, Size

_V = 2000
_EXPERTS = {"tie_word_embeddings": True, "num_experts": 8, "moe_intermediate_size": 96}
_LINEAR = {
    "shared_expert_intermediate_size": 96,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4,
}
_SINKS = {"tie_word_embeddings": True, "num_local_experts": 8, "intermediate_size": 96, "sliding_window": 16}
_SINKS |= {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
_MAMBA = {"tie_word_embeddings": True, "state_size": 16, "conv_kernel": 4}

_STUDENTS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "T5": ("t5", 2, {}),
    "GPT-2": ("gpt2", 4, {}),
    "Llama": ("llama", 3, {"tie_word_embeddings": True}),
    "Cohere": ("cohere", 3, {"tie_word_embeddings": True, "use_qk_norm": False}),
    "UMT5": ("umt5", 2, {}),
    "Qwen3-MoE": ("qwen3-moe", 2, _EXPERTS),
    "Qwen3-Next": ("qwen3-next", 2, _EXPERTS | _LINEAR),
    "GPT-OSS": ("gpt-oss", 2, _SINKS),
    "Mamba": ("mamba", 3, _MAMBA | {"time_step_rank": 8}),
    "Mamba-2": ("mamba2", 3, _MAMBA | {"num_heads": 8, "head_dim": 32, "chunk_size": 16}),
}
"""Name -> case of tests/cases.py, layers, and what it has otherwise."""

FAMILIES = tuple(_STUDENTS)
"""Their names."""


def family(name: str, n: int = 32, t: int = 32, e: int = 6) -> Case:
    """The named student, random, with rollouts and weights as those of ``cases.case``."""
    kind, layers, changes = _STUDENTS[name]
    student = CASES[kind](Size(_V, 128, 384, 4, layers, 256), **changes)
    return Case(name, "1M", student, *rollouts_of(_V, n, t, e))
