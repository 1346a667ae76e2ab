"""Batches of trainers whose loss is a function of the student's logits, and of the teacher's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from kvar.gradients.state import unwrap
from kvar.hooks.batch.kind import BatchKind, seen
from kvar.hooks.batch.part import Caught, Part
from kvar.returns.precision import at_least_float32

__all__ = ["LogitsBatch"]


class LogitsBatch(BatchKind):
    """Catches the gradient at the student's logits, and the teacher's logits, of the response tokens.

    Both take (B, T, V) numbers until the step is measured, as much as the loss itself holds.
    """

    def has_teacher(self, trainer: Any) -> bool:
        """Whether the trainer runs a teacher of its own."""
        return getattr(trainer, "teacher_model", None) is not None and not getattr(trainer, "use_teacher_server", False)

    @contextmanager
    def catching(self, trainer: Any, inputs: Mapping[str, Any], caught: Caught) -> Iterator[None]:
        """See :class:`BatchKind`; a pass without gradient, of the same module perhaps, is the teacher's."""
        temperature = self.temperature(trainer)
        student, teacher = unwrap(trainer.model), getattr(trainer, "teacher_model", None)

        def see(output: Any) -> None:
            logits = output.logits
            if not torch.is_grad_enabled():
                if caught.teacher:
                    caught.values["teacher"] = caught.of_tokens(logits, lag=1)
                return
            caught.passes += 1
            chosen = caught.of_tokens(logits, lag=1)
            log_pi = (at_least_float32(chosen) / temperature).log_softmax(dim=-1)
            tokens = caught.rollouts().tokens
            caught.values["log_probs"] = log_pi.gather(-1, tokens[..., None])[..., 0]
            caught.watch("logits", logits, lag=1)

        with ExitStack() as stack:
            stack.enter_context(seen(student, see))
            if teacher is not None and unwrap(teacher) is not student:
                stack.enter_context(seen(unwrap(teacher), see))
            yield

    def part(self, trainer: Any, inputs: Mapping[str, Any], caught: Caught, ends: tuple[int, ...]) -> Part:
        """See :class:`BatchKind`."""
        rollouts, log_probs = caught.rollouts(ends), caught.values["log_probs"]
        grad, teacher = caught.grads.get("logits"), caught.values.get("teacher")
        log_probs = log_probs.masked_fill(~rollouts.mask, 0.0)
        return Part(
            rollouts,
            rows=None if grad is None else lambda numbers, logits: grad[numbers].to(logits),
            teacher=None if teacher is None else lambda numbers: teacher[numbers],
            scores=self.score_of(inputs),
            log_probs=log_probs,
            temperature=self.temperature(trainer),
            empty=grad is None or not bool(grad.any()),
        ).drawn_with(self.behaviour(inputs, caught))

    def behaviour(self, inputs: Mapping[str, Any], caught: Caught) -> Tensor | None:
        """(B, T) log-probabilities of the policy that drew the tokens, if the batch holds them."""
        return None
