"""What an objective is: a function from student, teacher and batch to a scalar loss, and its registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor, nn

from kvar.returns import TokenValues
from kvar.rollouts import Rollouts

__all__ = ["OBJECTIVES", "Batch", "Loss", "Objective", "Settings", "objective", "token_mean"]


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
    """A scalar to minimise, and what is worth knowing beside it.

    Attributes:
        value: the scalar.
        logs: numbers to log.
        values: the teacher's values of the samples, for callbacks that have an ``on_rollouts``.
    """

    value: Tensor
    logs: dict[str, float] = field(default_factory=dict)
    values: TokenValues | None = None


class Settings(Protocol):
    """What objectives read of the run's settings; ``DistillationConfig`` documents each."""

    kernel: str
    baseline: str | None
    centre: Literal["mean", "logsumexp", "none"]
    value: Literal["max", "soft"]
    importance_weight: bool
    importance_clip: float | None
    return_scale: float
    return_clip: float | None
    label_smoothing_factor: float


Compute = Callable[[nn.Module, "nn.Module | None", Batch, Settings], Loss]


@dataclass(frozen=True)
class Objective:
    """A named objective.

    Attributes:
        name: as ``DistillationConfig.objective`` spells it.
        compute: (student, teacher, batch, settings) -> Loss.
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
