"""``Part``: one micro-batch, with the gradient of the trainer's loss at its tokens or logits; ``Caught`` makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from kvar.returns import TokenValues
from kvar.rollouts import Policy, Rollouts
from kvar.rollouts.batches.layout import Layout

__all__ = ["Caught", "Part", "Rows", "token_rows"]

Rows = Callable[[Tensor, Tensor], Tensor]
"""(n,) numbers of trajectories and their (n, T, V) student logits -> an (n, T, V) gradient there."""


@dataclass
class Caught:
    """What is seen of one micro-batch in the trainer's own forward and backward pass.

    Attributes:
        layout: where its responses lie; None where the batch holds rollouts.
        values: name -> (B, T, ...), detached, what the trainer's pass computed: "log_probs", "teacher" and so on.
        grads: name -> the gradient of the trainer's loss with respect to a value; missing where it does not reach.
        settings: of the loss, where it is caught with them.
        passes: forward passes of the student with gradient.
        teacher: whether the teacher's logits are kept.
    """

    layout: Layout | None
    values: dict[str, Tensor] = field(default_factory=dict)
    grads: dict[str, Tensor] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    passes: int = 0
    teacher: bool = True

    def rollouts(self, ends: tuple[int, ...] = ()) -> Rollouts:
        """The responses; ``prompt_index`` counts the rows and ``log_probs`` are zero."""
        assert self.layout is not None
        prompt_ids, prompt_mask = self.layout.prompts()
        tokens, mask = (self.layout.responses(x) for x in (self.layout.ids, self.layout.response))
        return Rollouts.of_tokens(prompt_ids, prompt_mask, tokens, mask, policy=Policy(ends=ends))

    def of_tokens(self, values: Tensor, lag: int = 0) -> Tensor:
        """The entries of a (B, W, ...) tensor that belong to the response tokens.

        Args:
            values: its last column belongs to the last column of the sequences.
            lag: 1 where an entry belongs to the next column's token, as logits do, 0 where to its own.

        Returns:
            (B, T, ...), zero past a response's end.
        """
        assert self.layout is not None
        return self.layout.responses(values.detach(), self.layout.ids.shape[1] - values.shape[1] + lag)

    def watch(self, name: str, tensor: Tensor, lag: int = 0) -> None:
        """Keep the gradient that the backward pass gives a (B, W, ...) tensor, at the response tokens."""

        def keep(grad: Tensor) -> None:
            self.grads[name] = self.of_tokens(grad, lag)

        if tensor.requires_grad:
            tensor.register_hook(keep)


@dataclass(frozen=True)
class Part:
    """B trajectories of a micro-batch and the trainer's own estimator on them.

    The loss's gradient with respect to the logits of trajectory i is that of sum_t weights[i, t] log pi(y_t), or
    ``rows``; summed over the trajectories of a step's parts it gives the gradient that the trainer takes.

    Attributes:
        rollouts: the B trajectories; ``log_probs`` are the behaviour policy's where the batch tells them.
        weights: (B, T), or None.
        rows: the gradient at the logits, a block of trajectories at a time, or None.
        teacher: (n,) row numbers -> the teacher's (n, T, V) logits, as caught in the trainer's pass; or None.
        values: the teacher's, where the batch holds them.
        valued: centre and value of these, see ``kvar.returns.token_values``.
        scores: (B,) scores of whole responses, or None.
        log_probs: (B, T) log pi(y_t) at ``temperature``, as the trainer's pass gave them; None where it did not.
        temperature: by which the trainer divides the student's logits.
        empty: whether the gradient is zero.
    """

    rollouts: Rollouts
    weights: Tensor | None = None
    rows: Rows | None = None
    teacher: Callable[[Tensor], Tensor] | None = None
    values: TokenValues | None = None
    valued: tuple[str, str] = ("mean", "max")
    scores: Tensor | None = None
    log_probs: Tensor | None = None
    temperature: float = 1.0
    empty: bool = False

    def drawn_with(self, log_probs: Tensor | None) -> Part:
        """The part with the behaviour policy's log-probabilities; unchanged for None."""
        if log_probs is None:
            return self
        return replace(self, rollouts=replace(self.rollouts, log_probs=log_probs.float()))


def token_rows(tokens: Tensor, weights: Tensor, entropy: Tensor | None, temperature: float) -> Rows:
    """The gradient of sum_t [ w_t log pi(y_t) + h_t H(pi) ] at the logits, pi = softmax(z / temperature).

    Args:
        tokens: (B, T).
        weights: (B, T), w.
        entropy: (B, T), h; None for zeros.
        temperature: above 0.
    """

    def rows(numbers: Tensor, logits: Tensor) -> Tensor:
        log_pi = (logits / temperature).log_softmax(dim=-1)
        pi, w = log_pi.exp(), weights[numbers, :, None].to(log_pi)
        out = -w * pi
        out.scatter_add_(-1, tokens[numbers, :, None], w)
        if entropy is not None:
            total = (pi * log_pi).sum(dim=-1, keepdim=True)
            out -= entropy[numbers, :, None].to(log_pi) * pi * (log_pi - total)
        return out / temperature

    return rows
