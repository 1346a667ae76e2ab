"""What an objective is: a function from the forward passes over a batch to terms of a loss, and its registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

from torch import Tensor

from kvar.distill.objectives.normalise import Counts
from kvar.returns import Kernel, TokenValues
from kvar.rollouts import Rollouts

if TYPE_CHECKING:
    from kvar.distill.objectives.passes import Passes

__all__ = ["OBJECTIVES", "Batch", "Loss", "Objective", "Settings", "Source", "Term", "objective"]

Source = Literal["data", "student", "teacher"]


class Settings(Protocol):
    """What objectives read of the run's settings; ``DistillationConfig`` documents each."""

    kernel: str
    baseline: str | None
    centre: Literal["mean", "logsumexp", "none"]
    value: Literal["max", "soft"]
    importance_weight: Literal["behaviour", "policy", "none"]
    importance_clip: float | None
    return_scale: float
    return_clip: float | None
    normalisation: Literal["token-mean", "sequence-mean", "sequence-token-mean"]
    entropy_weight: float
    uniform_weight: float
    responses: Source | None
    gkd_beta: float
    gkd_lambda: float
    label_smoothing_factor: float
    teacher_micro_batch: int | None


@dataclass(frozen=True)
class Batch:
    """What an objective may look at: one micro-batch of an optimiser step.

    Attributes:
        responses: by source: the data's, the student's own, the teacher's; those that the objectives ask for.
        counts: by source: what sums over responses are divided by, see :mod:`kvar.distill.objectives.normalise`.
        values: the teacher's values of the student's responses.
        advantages: by objective: (N, T) returns less baseline of the student's responses.
        on_policy: GKD's coin: whether this step is taken on the student's responses.
    """

    responses: Mapping[Source, Rollouts]
    counts: Mapping[Source, Counts]
    values: TokenValues | None = None
    advantages: Mapping[str, Tensor] = field(default_factory=dict)
    on_policy: bool = False

    def rows(self, start: int, stop: int, rollouts_per_prompt: int) -> Batch:
        """The part of prompts ``start`` to ``stop``, without the padding that longer ones needed; counts are kept."""
        responses: dict[Source, Rollouts] = {}
        values, advantages = self.values, dict(self.advantages)
        for source, all_rows in self.responses.items():
            repeats = rollouts_per_prompt if source == "student" else 1
            own = slice(start * repeats, stop * repeats)
            part = all_rows[own]
            longest = max(int(part.lengths.max()), 1)
            width = max(int(part.prompt_mask.sum(dim=1).max()), 1)
            right_padded = bool((part.prompt_mask[:, width:] == 0).all())
            prompts = slice(0, width if right_padded else None)
            responses[source] = replace(
                part,
                prompt_ids=part.prompt_ids[:, prompts],
                prompt_mask=part.prompt_mask[:, prompts],
                tokens=part.tokens[:, :longest],
                mask=part.mask[:, :longest],
                log_probs=part.log_probs[:, :longest],
            )
            if source == "student":
                values = values and TokenValues(values.q[own, :longest], values.v[own, :longest])
                advantages = {name: rows[own, :longest] for name, rows in advantages.items()}
        return replace(self, responses=responses, values=values, advantages=advantages)


@dataclass(frozen=True)
class Term:
    """One sum of a loss: a number for each token, with gradient, and whose responses the tokens are.

    Attributes:
        per_token: (N, T); what padding holds does not matter, as long as it is finite.
        source: whose responses.
    """

    per_token: Tensor
    source: Source


@dataclass(frozen=True)
class Loss:
    """The terms to be normalised and added, and numbers worth logging beside them."""

    terms: tuple[Term, ...]
    logs: dict[str, float] = field(default_factory=dict)


Compute = Callable[["Passes", Settings], Loss]
Sources = Callable[[Settings, bool], tuple[Source, ...]]


@dataclass(frozen=True)
class Objective:
    """A named objective.

    Attributes:
        name: as ``DistillationConfig.objective`` spells it.
        compute: (forward passes, settings) -> Loss.
        sources: (settings, whether GKD's coin says on-policy) -> whose responses it needs.
        teacher: whether it needs a teacher.
        kernel: for REINFORCE objectives: settings -> the kernel of its returns.
    """

    name: str
    compute: Compute
    sources: Sources
    teacher: bool
    kernel: Callable[[Settings], Kernel] | None = None


OBJECTIVES: dict[str, Objective] = {}


def objective(
    name: str, *, sources: Sources, teacher: bool, kernel: Callable[[Settings], Kernel] | None = None
) -> Callable[[Compute], Compute]:
    """Register a function as the objective ``name``."""

    def register(compute: Compute) -> Compute:
        OBJECTIVES[name] = Objective(name, compute, sources, teacher, kernel)
        return compute

    return register
