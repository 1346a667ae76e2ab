"""Batches of trainers whose loss is a function of the student's logits, and of the teacher's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from kvar.gradients.state import unwrap
from kvar.hooks.batch.kind import BatchKind, seen
from kvar.hooks.batch.part import Caught, Part
from kvar.hooks.batch.token_weights import TokenScores
from kvar.returns.precision import at_least_float32
from kvar.rollouts import Rollouts

__all__ = ["LogitsBatch", "part_of", "watch_logits"]


class LogitsBatch(BatchKind):
    """Catches the gradient at the student's logits, and the teacher's logits, of the response tokens.

    Each takes up to (B, T, V) numbers until the step is measured, as much as the loss itself holds.
    """

    def has_teacher(self, trainer: Any) -> bool:
        """Whether the trainer runs a teacher of its own."""
        return getattr(trainer, "teacher_model", None) is not None and not getattr(trainer, "use_teacher_server", False)

    @contextmanager
    def catching(self, trainer: Any, inputs: Mapping[str, Any], caught: Caught) -> Iterator[None]:
        """See :class:`BatchKind`; a pass without gradient, of the same module perhaps, is the teacher's."""
        student, teacher = unwrap(trainer.model), getattr(trainer, "teacher_model", None)
        rollouts, temperature = caught.rollouts(), self.temperature(trainer)

        def see(output: Any) -> None:
            if torch.is_grad_enabled():
                watch_logits(caught, output.logits, lambda x: caught.of_tokens(x, lag=1), rollouts, temperature)
            elif caught.teacher:
                caught.values["teacher"] = caught.of_tokens(output.logits, lag=1)

        with ExitStack() as stack:
            stack.enter_context(seen(student, see))
            if teacher is not None and unwrap(teacher) is not student:
                stack.enter_context(seen(unwrap(teacher), see))
            yield

    def part(self, trainer: Any, inputs: Mapping[str, Any], caught: Caught, ends: tuple[int, ...]) -> Part:
        """See :class:`BatchKind`."""
        teacher = caught.values.get("teacher")
        return part_of(
            caught,
            caught.rollouts(ends),
            teacher=None if teacher is None else lambda numbers: teacher[numbers],
            scores=self.score_of(inputs),
            temperature=self.temperature(trainer),
        ).drawn_with(self.behaviour(inputs, caught))

    def behaviour(self, inputs: Mapping[str, Any], caught: Caught) -> Tensor | None:
        """(B, T) log-probabilities of the policy that drew the tokens, if the batch holds them."""
        return None


def watch_logits(
    caught: Caught, logits: Tensor, pick: Callable[[Tensor], Tensor], rollouts: Rollouts, temperature: float = 1.0
) -> None:
    """Keep the log-probabilities of a forward pass, and the gradient that its backward pass gives the logits.

    A gradient that is a weight a token times the token's score is kept as these weights.

    Args:
        caught: takes them.
        logits: the model's, with gradient.
        pick: the model's (B, L, V) -> the responses' (B, T, V).
        rollouts: the responses.
        temperature: by which the loss divides the logits.
    """
    actions = at_least_float32(pick(logits.detach()))
    if rollouts.policy is not None:
        actions = rollouts.policy.restricted(actions)
    tokens = rollouts.tokens.masked_fill(~rollouts.mask, 0)
    log_pi = (actions / temperature).log_softmax(dim=-1)
    chosen = log_pi.gather(-1, tokens[..., None])[..., 0]
    caught.values["log_probs"] = chosen.masked_fill(~rollouts.mask, 0.0)
    scores, width = TokenScores(log_pi, tokens) if temperature == 1 else None, log_pi.shape[-1]
    del actions, log_pi

    def keep(grad: Tensor) -> None:
        rows = pick(grad.detach())[..., :width].masked_fill(~rollouts.mask[..., None], 0.0)
        weights = None if scores is None else scores.weights(rows)
        caught.grads["logits" if weights is None else "weights"] = rows if weights is None else weights

    caught.passes += 1
    if logits.requires_grad:
        logits.register_hook(keep)


def part_of(caught: Caught, rollouts: Rollouts, **more: Any) -> Part:
    """The micro-batch whose logits were watched."""
    grad, weights = caught.grads.get("logits"), caught.grads.get("weights")
    if grad is None and weights is None:
        weights = torch.zeros_like(caught.values["log_probs"])
    cotangent = weights if grad is None else grad
    return Part(
        rollouts,
        weights=weights,
        rows=None if grad is None else lambda numbers, logits: grad[numbers].to(logits),
        log_probs=caught.values["log_probs"],
        empty=cotangent is None or not bool(cotangent.any()),
        **more,
    )
