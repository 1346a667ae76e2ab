"""One model's evaluation and its options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvar.study.evaluation.target import Target

if TYPE_CHECKING:
    from kvar.distill import Evaluation
    from kvar.intervals import Interval
    from kvar.tasks import Example

__all__ = ["Options", "Result"]


@dataclass(frozen=True)
class Options:
    """Options of an evaluation that are not settings of the run.

    Attributes:
        batch: prompts decoded together.
        teacher: whether the teacher scores the responses.
        resamples: bootstrap resamples.
        seed: seed of the resampling.
        level: confidence level.

    Raises:
        ValueError: a setting out of range.
    """

    batch: int = 64
    teacher: bool = True
    resamples: int = 1000
    seed: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        for name in ("batch", "resamples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if not 0 < self.level < 1:
            raise ValueError(f"level must lie between 0 and 1, such as 0.95; got {self.level}.")


@dataclass(frozen=True)
class Result:
    """One model's evaluation.

    Attributes:
        target: the model and its settings.
        examples: prompts and references.
        evaluation: scores, texts and the numbers of every response.
        scores: every score with its interval.
        options: of the evaluation.
    """

    target: Target
    examples: list[Example]
    evaluation: Evaluation
    scores: dict[str, Interval]
    options: Options
