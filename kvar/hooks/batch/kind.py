"""``BatchKind``: what a trainer's batches hold, and where in its loss the gradient is caught."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import Tensor, nn

from kvar.hooks.batch.part import Caught, Part
from kvar.rollouts.batches.layout import Layout, layout_of

__all__ = ["BatchKind", "seen"]


class BatchKind(ABC):
    """The batches of some trainers. Subclasses catch what the loss is computed from; none computes the loss again."""

    package: ClassVar[str] = "trl"
    """Of the trainers."""
    trainers: ClassVar[tuple[str, ...]]
    """Class names; trainers derived from them are known too."""
    read: ClassVar[tuple[str, ...]] = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
    """Keys of the tokens and their masks."""
    more: ClassVar[tuple[str, ...]] = ()
    """Further keys that every batch has."""
    scores: ClassVar[str | None] = None
    """Key of the responses' scores; None where the batch has none."""

    def check(self, trainer: Any) -> None:
        """Refuse settings under which the gradient does not pass through one set of logits.

        Raises:
            ValueError: names the setting and the remedy.
        """
        return

    def has_teacher(self, trainer: Any) -> bool:
        """Whether a teacher's logits are caught in the trainer's own pass."""
        return False

    def own_teacher(self, trainer: Any) -> nn.Module | None:
        """The trainer's teacher, to be run again; None where its logits are caught, or it has none."""
        return None

    def has_behaviour(self, trainer: Any) -> bool:
        """Whether the probabilities of the policy that drew the tokens are known."""
        return False

    def whole_groups(self, trainer: Any) -> bool:
        """Whether a step's batch holds all responses to each of its prompts."""
        return True

    def group_size(self, trainer: Any) -> int:
        """Responses to a prompt."""
        return int(getattr(trainer, "num_generations", 1) or 1)

    def temperature(self, trainer: Any) -> float:
        """By which the loss divides the student's logits."""
        return float(getattr(trainer, "temperature", None) or 1.0)

    def checked(self, inputs: Mapping[str, Any], trainer: Any) -> None:
        """Refuse a batch that holds something else.

        Raises:
            ValueError: names the missing keys and those that there are.
        """
        scores = () if self.scores is None else (self.scores,)
        missing = [key for key in (*self.read, *self.more, *scores) if key not in inputs]
        if missing:
            raise ValueError(
                f"{type(trainer).__name__}: its batch has no {', '.join(missing)} but {', '.join(inputs)}: BatchProbe "
                f"knows the batches of {', '.join(self.trainers)} in the TRL version that kvar pins."
            )
        if "pixel_values" in inputs:
            raise ValueError(f"{type(trainer).__name__}: its batch holds images, with which nothing is measured.")

    def layout(self, inputs: Mapping[str, Any]) -> Layout | None:
        """Where the responses lie.

        Raises:
            ValueError: ids and masks that disagree, or a tool's output amid a response.
        """
        return layout_of({key: inputs[key] for key in (*self.read, "tool_mask") if key in inputs})

    @contextmanager
    @abstractmethod
    def catching(self, trainer: Any, inputs: Mapping[str, Any], caught: Caught) -> Iterator[None]:
        """Catch what the trainer's ``compute_loss`` computes in the block."""
        yield

    @abstractmethod
    def part(self, trainer: Any, inputs: Mapping[str, Any], caught: Caught, ends: tuple[int, ...]) -> Part:
        """The micro-batch after the backward pass."""

    def score_of(self, inputs: Mapping[str, Any]) -> Tensor | None:
        """(B,) scores of whole responses; None where the batch has none."""
        if self.scores is None:
            return None
        scores: Tensor = inputs[self.scores]
        if scores.dim() != 1:
            raise ValueError(
                f"the batch's {self.scores} have shape {tuple(scores.shape)}: one number a response is needed."
            )
        return scores.detach()


@contextmanager
def seen(module: nn.Module, see: Callable[[Any], None]) -> Iterator[None]:
    """Show the output of every forward pass of a module in the block to ``see``."""
    handle = module.register_forward_hook(lambda module, args, output: see(output))
    try:
        yield
    finally:
        handle.remove()
