"""Batches of SDFT and SDPO: the student is its own teacher, with a prompt that tells more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from kvar.hooks.batch.logits import LogitsBatch
from kvar.hooks.batch.part import Caught

__all__ = ["SDFTBatch", "SDPOBatch"]


class SDFTBatch(LogitsBatch):
    """TRL's ``SDFTTrainer``; its teacher's logits are those under the teacher's prompt."""

    trainers = ("SDFTTrainer",)
    more: ClassVar[tuple[str, ...]] = ("teacher_input_ids", "teacher_attention_mask")

    def has_behaviour(self, trainer: Any) -> bool:
        """Whether old log-probabilities are computed: where a response serves several optimiser steps."""
        args = trainer.args
        kept = args.steps_per_generation * trainer.num_iterations
        return args.gradient_accumulation_steps % kept != 0 and not getattr(trainer, "generate_from_teacher", False)

    def whole_groups(self, trainer: Any) -> bool:
        """Whether one step trains on all that was generated together."""
        return bool(trainer.args.steps_per_generation == trainer.args.gradient_accumulation_steps)

    def behaviour(self, inputs: Mapping[str, Any], caught: Caught) -> Tensor | None:
        """The old log-probabilities, if the batch holds them."""
        given = inputs.get("old_per_token_logps")
        return None if given is None else caught.of_tokens(given)


class SDPOBatch(SDFTBatch):
    """TRL's ``SDPOTrainer``: a mixture of self-distillation and a clipped policy gradient."""

    trainers = ("SDPOTrainer",)
    more = (*SDFTBatch.more, "self_distillation_mask")
    scores = "rewards"

    def has_teacher(self, trainer: Any) -> bool:
        """Whether the loss has a part that runs the teacher."""
        return trainer.args.distillation_weight > 0 and super().has_teacher(trainer)

    def has_behaviour(self, trainer: Any) -> bool:
        """True: where the batch holds no old log-probabilities, the student itself drew the tokens."""
        return True

    def behaviour(self, inputs: Mapping[str, Any], caught: Caught) -> Tensor | None:
        """The old log-probabilities, or the student's."""
        given = super().behaviour(inputs, caught)
        return caught.values["log_probs"] if given is None else given
