"""What is measured: students and rollouts of given sizes, and random token weights for E estimators."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kvar.rollouts import Rollouts

SIZES: dict[str, dict[str, int]] = {
    "0.3M": {"V": 1000, "d": 80, "ff": 160, "heads": 2, "t5": 1, "gpt2": 3, "untied": 2},
    "1M": {"V": 2000, "d": 128, "ff": 384, "heads": 4, "t5": 2, "gpt2": 4, "untied": 4},
    "9M": {"V": 8000, "d": 256, "ff": 1024, "heads": 4, "t5": 4, "gpt2": 9, "untied": 7},
}
"""Vocabulary, width, inner width of T5, attention heads, and layers (of each stack) of the three kinds of student."""


@dataclass(frozen=True)
class Case:
    """A student with N trajectories and E estimators."""

    kind: str
    size: str
    student: nn.Module
    rollouts: Rollouts
    weights: Tensor

    @property
    def parameters(self) -> int:
        """P."""
        return sum(p.numel() for p in self.student.parameters())

    def rows(self, n: int) -> Case:
        """The same with the first n trajectories."""
        return Case(self.kind, self.size, self.student, self.rollouts[:n], self.weights[:, :n])


def case(kind: str, size: str, n: int = 32, t: int = 32, e: int = 6, rollouts_per_prompt: int = 1, s: int = 16) -> Case:
    """N full rows of T response tokens after S prompt tokens; all random, seeded."""
    torch.manual_seed(0)
    student = {"t5": t5, "gpt2": gpt2, "untied": Untied}[kind](**SIZES[size]).eval()
    rollouts, weights = rollouts_of(SIZES[size]["V"], n, t, e, rollouts_per_prompt, s)
    return Case(kind, size, student, rollouts, weights)


def rollouts_of(v: int, n: int, t: int, e: int, rollouts_per_prompt: int = 1, s: int = 16) -> tuple[Rollouts, Tensor]:
    """Rollouts over V tokens and (E, N, T) weights."""
    g = torch.Generator().manual_seed(1)
    prompts = torch.arange(n) // rollouts_per_prompt
    rollouts = Rollouts(
        prompt_ids=torch.randint(3, v, (n, s), generator=g)[prompts],
        prompt_mask=torch.ones(n, s, dtype=torch.bool),
        tokens=torch.randint(3, v, (n, t), generator=g),
        mask=torch.ones(n, t, dtype=torch.bool),
        finished=torch.ones(n, dtype=torch.bool),
        prompt_index=prompts,
        log_probs=torch.zeros(n, t),
    )
    return rollouts, torch.randn(e, n, t, generator=g)


def t5(V: int, d: int, ff: int, heads: int, t5: int, **_: int) -> nn.Module:
    """T5: encoder-decoder, embedding tied to the head, a relative position bias without a batch axis."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=V, d_model=d, d_kv=d // heads, d_ff=ff, num_layers=t5, num_heads=heads, decoder_start_token_id=0
    )
    return T5ForConditionalGeneration(config)


def gpt2(V: int, d: int, heads: int, gpt2: int, **_: int) -> nn.Module:
    """GPT-2: causal, embedding tied to the head, learned positions."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=V, n_embd=d, n_layer=gpt2, n_head=heads, n_positions=256, bos_token_id=0, eos_token_id=1
    )
    return GPT2LMHeadModel(config)


class Untied(nn.Module):
    """A causal transformer of linear layers and embeddings alone, nothing tied: what every peer can take.

    Its norms have no parameters and its positions enter with a batch axis (BackPACK has no rule for the one, Opacus
    none for the absence of the other).
    """

    def __init__(self, V: int, d: int, heads: int, untied: int, **_: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(is_encoder_decoder=False)
        self.tokens = nn.Embedding(V, d)
        self.positions = nn.Embedding(256, d)
        self.layers = nn.ModuleList(Layer(d, heads) for _ in range(untied))
        self.head = nn.Linear(d, V, bias=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, use_cache: bool = False) -> object:
        """Logits (n, T, V) as transformers models return them; causal, so that a mask of trailing padding is moot."""
        del attention_mask, use_cache
        n, t = input_ids.shape
        x = self.tokens(input_ids.contiguous()) + self.positions(torch.arange(t).repeat(n, 1))
        for layer in self.layers:
            x = layer(x)
        return SimpleNamespace(logits=self.head(F.layer_norm(x, x.shape[-1:])))


class Layer(nn.Module):
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
