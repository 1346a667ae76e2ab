"""The gradients of estimators' scalars with respect to a student's logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

from kvar.estimators.terms import Terms
from kvar.returns.precision import at_least_float32
from kvar.rollouts.forward import chosen_log_probs, unrestricted_logits
from kvar.rollouts.types import Rollouts

__all__ = ["Cotangents", "Estimators", "Weights", "exact_rows", "surrogate"]

Weights: TypeAlias = Tensor | Callable[[Tensor], Tensor] | Terms


class Estimators:
    """E scalars per trajectory, for any subset of the trajectories.

    Args:
        rollouts: all N trajectories.
        weights: (E, N, T) token weights; or terms, with exact sums over the vocabulary; or a callable from all logits
            (N, T, V) to (E, N), whose scalar [e, i] depends on row i only.
    """

    def __init__(self, rollouts: Rollouts, weights: Weights) -> None:
        self.rollouts = rollouts
        self.weights = weights

    def logits(self, student: nn.Module, rows: Tensor) -> Tensor:
        """(n, t, V) from one forward pass over some rows, including tokens that are no actions.

        Padding behind all these rows is left out: t is the length of their longest response, and T for a callable.
        """
        return unrestricted_logits(student, self._some(rows))

    def cotangents(self, logits: Tensor, rows: Tensor) -> Cotangents:
        """The gradients of the estimators' scalars, summed over some rows, with respect to the logits of these rows."""
        if isinstance(self.weights, Tensor):
            return TokenCotangents(logits, self._some(rows), self.weights[:, rows])
        if isinstance(self.weights, Terms):
            return TokenCotangents(logits, self._some(rows), self.weights.weights[:, rows], (self.weights, rows))
        leaf = logits.detach().requires_grad_()
        return ScalarCotangents(self._scalars(leaf, rows), leaf)

    def score_cotangents(self, logits: Tensor, rows: Tensor, positions: range) -> Cotangents:
        """The same for estimators that are each the log-probability of the token at one position."""
        eye = torch.eye(self.rollouts.tokens.shape[1], device=logits.device)
        return TokenCotangents(logits, self._some(rows), eye[list(positions), None].expand(-1, len(rows), -1))

    def _some(self, rows: Tensor) -> Rollouts:
        some = self.rollouts[rows]
        columns = torch.arange(1, some.prompt_mask.shape[1] + 1, device=rows.device)
        read = max(1, int((some.prompt_mask.any(dim=0) * columns).amax()))
        some = replace(some, prompt_ids=some.prompt_ids[:, :read], prompt_mask=some.prompt_mask[:, :read])
        return some.until(max(1, int(some.lengths.max()))) if isinstance(self.weights, Tensor | Terms) else some

    def _scalars(self, logits: Tensor, rows: Tensor) -> Tensor:
        """(E, n) scalars of a callable; the logits of omitted rows are zeros."""
        assert callable(self.weights)
        n = len(self.rollouts)
        whole = len(rows) == n and bool((rows == torch.arange(n, device=rows.device)).all())
        policy = self.rollouts.policy
        logits = logits if policy is None else policy.restricted(logits)
        every = logits if whole else logits.new_zeros(n, *logits.shape[1:]).index_copy(0, rows, logits)
        return self.weights(every)[:, rows]


class Cotangents(Protocol):
    """E gradients with respect to the logits."""

    def __len__(self) -> int:
        """E."""
        ...

    def __getitem__(self, e: int) -> Tensor:
        """(n, T, V), that of estimator e."""
        ...


class TokenCotangents:
    """w_t (onehot(y_t) - pi_t), and for exact terms k_t pi_t o (c_t - pi_t . c_t): one softmax for all estimators.

    The first is the gradient of sum_t w_t log pi(y_t | s_t), the second that of sum_t k_t sum_a pi(a | s_t) c_t(a) with
    c = u(s_t, .) held fixed. pi_t and both gradients are zero at tokens outside the rollouts' action set.

    Args:
        logits: (n, T, V).
        rollouts: the n trajectories.
        weights: (E, n, T), or longer, with zeros past the longest response.
        exact: terms with exact sums, and the (n,) numbers of these trajectories in them.

    Attributes:
        parts: arrays of rows (n, T, V) with their scales (E, n, T); estimator e is the sum of the scaled rows.
    """

    def __init__(
        self, logits: Tensor, rollouts: Rollouts, weights: Tensor, exact: tuple[Terms, Tensor] | None = None
    ) -> None:
        raw = logits.detach()
        precise = at_least_float32(raw)
        policy = rollouts.policy
        actions = precise if policy is None else policy.restricted(precise)
        pi = actions.softmax(dim=-1)
        self.parts: list[tuple[Tensor, Tensor]] = []
        if exact is not None:
            flows = exact_rows(*exact, actions, pi, rollouts.mask)
            self.parts = [(_padded(flow, raw.shape[-1]), scales) for flow, scales in flows]
        residual = _padded(pi.neg_(), raw.shape[-1])
        tokens = rollouts.tokens.masked_fill(~rollouts.mask, 0)[..., None]
        residual.scatter_add_(-1, tokens, residual.new_ones(tokens.shape))
        self.parts.insert(0, (residual, weights[..., : raw.shape[1]].to(residual).masked_fill(~rollouts.mask, 0.0)))
        self.dtype = raw.dtype

    def __len__(self) -> int:
        return len(self.parts[0][1])

    def __getitem__(self, e: int) -> Tensor:
        scaled = [rows * scales[e, ..., None] for rows, scales in self.parts]
        return sum(scaled[1:], scaled[0]).to(self.dtype)


def exact_rows(terms: Terms, rows: Tensor, actions: Tensor, pi: Tensor, mask: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The exact terms at the logits, for each reward pi o (c - pi . c) with its scales.

    Args:
        terms: of all N trajectories, of T tokens or more.
        rows: (n,) which of them.
        actions: (n, T, V) their logits over the action set.
        pi: (n, T, V) their softmax.
        mask: (n, T).

    Returns:
        Pairs of (n, T, V) rows and (E, n, T) scales, zero where masked.
    """
    parts = []
    for name, flow in terms.weighted(rows, actions).items():  # pi o c
        flow -= pi * flow.sum(dim=-1, keepdim=True)
        scales = terms.exact[name][:, rows, : mask.shape[1]].to(flow)
        parts.append((flow, scales.masked_fill(~mask, 0.0)))
    return parts


class ScalarCotangents:
    """Gradients of given scalars.

    Args:
        scalars: (E, n).
        logits: the leaf they were computed from.
    """

    def __init__(self, scalars: Tensor, logits: Tensor) -> None:
        self.scalars = scalars
        self.logits = logits

    def __len__(self) -> int:
        return len(self.scalars)

    def __getitem__(self, e: int) -> Tensor:
        (grad,) = torch.autograd.grad(
            self.scalars[e].sum(), self.logits, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return grad


def _padded(rows: Tensor, width: int) -> Tensor:
    """(..., V) of (..., size): zeros for the logits that are no actions."""
    return rows if rows.shape[-1] == width else torch.nn.functional.pad(rows, (0, width - rows.shape[-1]))


def surrogate(terms: Terms, rows: Tensor, student: Tensor) -> Callable[[Tensor, Rollouts], Tensor]:
    """A function whose gradient is that of each estimator: sum_t [ w_t log pi(y_t) + k_t sum_a pi(a) u(x_t, a) ].

    Args:
        terms: of all N trajectories.
        rows: (n,) which of them.
        student: (n, T, V) their logits over the action set, at which u is held fixed.

    Returns:
        (logits (n, T, V) over the action set, the n trajectories) -> (E, n).
    """
    student = at_least_float32(student.detach())
    pi = student.softmax(dim=-1)
    fixed = {name: torch.where(pi > 0, flow / pi, 0.0) for name, flow in terms.weighted(rows, student).items()}

    def of(logits: Tensor, rollouts: Rollouts) -> Tensor:
        log_pi = chosen_log_probs(logits, rollouts)
        scalars = (terms.weights[:, rows].to(log_pi) * log_pi).sum(dim=-1)
        probabilities = at_least_float32(logits).softmax(dim=-1)
        for name, u in fixed.items():
            scalars = scalars + (terms.exact[name][:, rows].to(u) * (probabilities * u).sum(dim=-1)).sum(dim=-1)
        return scalars

    return of
