"""What an objective is: a function from student, teacher and batch to a scalar loss, and its registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor, nn

from kvar.rollouts import Rollouts

if TYPE_CHECKING:
    from kvar.distill.config import DistillationConfig

__all__ = ["OBJECTIVES", "Batch", "Loss", "Objective", "objective", "token_mean"]


@dataclass(frozen=True)
class Batch:
    """What an objective may look at.

    Attributes:
        references: the data's responses.
        samples: the student's own responses, for objectives that ask for them.
        vocabulary: the tokenizer's size; logits past it are padding.
    """

    references: Rollouts
    samples: Rollouts | None
    vocabulary: int


@dataclass(frozen=True)
class Loss:
    """A scalar to minimise, and numbers worth logging beside it."""

    value: Tensor
    logs: dict[str, float] = field(default_factory=dict)


Compute = Callable[[nn.Module, "nn.Module | None", Batch, "DistillationConfig"], Loss]


@dataclass(frozen=True)
class Objective:
    """A named objective.

    Attributes:
        name: as ``DistillationConfig.objective`` spells it.
        compute: (student, teacher, batch, config) -> Loss.
        samples: whether it needs responses sampled from the student.
        teacher: whether it needs a teacher.
    """

    name: str
    compute: Compute
    samples: bool
    teacher: bool


OBJECTIVES: dict[str, Objective] = {}


def objective(name: str, *, samples: bool, teacher: bool) -> Callable[[Compute], Compute]:
    """Register a function as the objective ``name``."""

    def register(compute: Compute) -> Compute:
        OBJECTIVES[name] = Objective(name, compute, samples, teacher)
        return compute

    return register


def token_mean(per_token: Tensor, mask: Tensor) -> Tensor:
    """Sum of (N, T) values over unmasked tokens, divided by their number."""
    return per_token.masked_fill(~mask, 0.0).sum() / mask.sum().clamp(min=1)
