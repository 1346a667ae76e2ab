"""Batches of kvar's own ``DistillationTrainer``: rollouts with the teacher's values, by any objective."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from kvar.gradients.state import unwrap
from kvar.hooks.batch.kind import BatchKind, seen
from kvar.hooks.batch.logits import part_of, watch_logits
from kvar.hooks.batch.part import Caught, Part
from kvar.rollouts.forward import forward_inputs
from kvar.rollouts.patching import replaced

__all__ = ["DistillBatch"]


class DistillBatch(BatchKind):
    """Catches the micro-batch that the trainer prepares and the gradient at the student's logits."""

    package = "kvar"
    trainers = ("DistillationTrainer",)
    read = ()

    def own_teacher(self, trainer: Any) -> nn.Module | None:
        """The trainer's teacher."""
        teacher: nn.Module | None = trainer.teacher
        return teacher

    def has_behaviour(self, trainer: Any) -> bool:
        """True: responses are drawn with their log-probabilities."""
        return True

    def group_size(self, trainer: Any) -> int:
        """Responses to a prompt."""
        return int(trainer.args.rollouts_per_prompt)

    def layout(self, inputs: Mapping[str, Any]) -> None:
        """None: responses are known once the trainer has drawn them."""

    @contextmanager
    def catching(self, trainer: Any, inputs: Mapping[str, Any], caught: Caught) -> Iterator[None]:
        """See :class:`BatchKind`."""
        student, prepare = unwrap(trainer.model), trainer._batch

        def prepared(*given: Any) -> Any:
            batch = caught.settings["batch"] = prepare(*given)
            if len(batch.responses) > 1:
                raise ValueError(
                    f"the loss is taken on responses of {', '.join(batch.responses)}: BatchProbe measures losses on "
                    "one of these."
                )
            return batch

        def see(output: Any) -> None:
            if torch.is_grad_enabled():
                (rollouts,) = caught.settings["batch"].responses.values()
                watch_logits(caught, output.logits, forward_inputs(student, rollouts)[1], rollouts)

        with replaced(trainer, "_batch", prepared), seen(student, see):
            yield

    def part(self, trainer: Any, inputs: Mapping[str, Any], caught: Caught, ends: tuple[int, ...]) -> Part:
        """See :class:`BatchKind`."""
        batch = caught.settings["batch"]
        (rollouts,) = batch.responses.values()
        return part_of(caught, rollouts, values=batch.values, valued=(trainer.args.centre, trainer.args.value))
