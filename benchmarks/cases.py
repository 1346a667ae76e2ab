"""What is measured: students and rollouts of given sizes, and random token weights for E estimators."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kvar.rollouts import Rollouts
from tests.cases import CASES, Size

SIZES: dict[str, dict[str, Size]] = {
    "0.3M": {
        "t5": Size(1000, 80, 160, 2, 1),
        "gpt2": Size(1000, 80, 160, 2, 3, 256),
        "untied": Size(1000, 80, 160, 2, 2, 256),
    },
    "1M": {
        "t5": Size(2000, 128, 384, 4, 2),
        "gpt2": Size(2000, 128, 384, 4, 4, 256),
        "untied": Size(2000, 128, 384, 4, 4, 256),
    },
    "9M": {
        "t5": Size(8000, 256, 1024, 4, 4),
        "gpt2": Size(8000, 256, 1024, 4, 9, 256),
        "untied": Size(8000, 256, 1024, 4, 7, 256),
    },
}
"""Of the three kinds of student: T5 and GPT-2, whose embedding is tied to the head, and linear layers alone."""


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
    of = SIZES[size][kind]
    rollouts, weights = rollouts_of(of.vocabulary, n, t, e, rollouts_per_prompt, s)
    changes = {"pad_token_id": None} if kind == "gpt2" else {}  # looking for padding in the tokens stops torch.func
    return Case(kind, size, CASES[kind](of, **changes), rollouts, weights)


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
