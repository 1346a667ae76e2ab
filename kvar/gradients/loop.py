"""The ``loop`` engine: one trajectory at a time by autograd. Slow and simple; the reference for other engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from kvar.estimators.terms import Terms
from kvar.gradients.cotangents import Weights
from kvar.gradients.group_sums import GroupSums
from kvar.gradients.moments import GroupMoments
from kvar.returns.precision import at_least_float32
from kvar.rollouts.forward import token_logits
from kvar.rollouts.types import Rollouts

__all__ = ["loop_moments"]

_HELD = 2**26
"""Gradient entries (E N P) up to which per-trajectory gradients are kept instead of computed twice."""


def loop_moments(
    student: nn.Module,
    rollouts: Rollouts,
    weights: Weights,
    groups: dict[str, list[nn.Parameter]],
    *,
    fields: Literal["all", "norms"] = "all",
    score_power: bool = False,
    micro_batch: int | None = None,
) -> dict[str, GroupMoments]:
    """Moments of per-trajectory gradients, each computed alone from its own unpadded row; theory.md (5), (12), (13).

    Two passes over the trajectories: the first sums the means (over all, and prompt by prompt), the second takes inner
    products with them and is skipped for fields="norms". A callable gets the logits of all rows; each of its scalars is
    differentiated with respect to its row's logits, and from there through a forward pass of that row. Inner products
    are taken in float64 whatever the student's precision. ``score_power`` takes one backward pass per token.

    Arguments and result are those of every engine (:data:`kvar.gradients.measure.ENGINES`); ``micro_batch`` is ignored,
    since one trajectory is held at a time.
    """
    del micro_batch
    parameters = groups["all"]
    n = len(rollouts)
    gradient_of, e = _gradients(student, rollouts, weights, parameters)
    keep = fields == "all" and e * n * sum(p.numel() for p in parameters) <= _HELD
    held: dict[int, list[Tensor]] = {}

    def gradient(i: int) -> list[Tensor]:
        if i in held:
            return held.pop(i)
        g = gradient_of(i)
        if keep:
            held[i] = g
        return g

    _, prompt = rollouts.prompt_index.unique(return_inverse=True)
    sums = GroupSums(groups, n, int(prompt.max()) + 1)
    sums.begin(e)

    def add(field: str, parts: list[Tensor], where: int | None = None) -> None:
        """Add ``parts[k]``, parameter k's contribution, at place ``where`` of the field's last axis."""
        for p, part in zip(parameters, parts, strict=True):
            if where is None:
                sums.add(field, p, part)
            else:
                sums.add(field, p, part[..., None], torch.tensor([where]))

    total = [torch.zeros(e, p.numel(), dtype=torch.float64, device=p.device) for p in parameters]
    for m in range(sums.prompts):
        rows = (prompt == m).nonzero()[:, 0].tolist()
        prompt_sum = [torch.zeros_like(block) for block in total]
        for i in rows:
            g = gradient(i)
            add("sq_norm", [(block**2).sum(dim=1) for block in g], i)
            for block, term in zip(prompt_sum, g, strict=True):
                block += term
        mean = [block / len(rows) for block in prompt_sum]
        add("prompt_pair", [block @ block.T for block in mean], m)
        for block, term in zip(total, prompt_sum, strict=True):
            block += term
    gbar = [block / n for block in total]
    add("mean_pair", [block @ block.T for block in gbar])
    for i in range(n if fields == "all" else 0):
        g = gradient(i)
        add("cross", [block @ mean.T for block, mean in zip(g, gbar, strict=True)], i)
        add("pair", [block @ block.T for block in g], i)
    for i in range(n if score_power else 0):
        for term in _row_log_probs(student, rollouts, i):
            add("score_power", [(g**2).sum() for g in _gradient(term, parameters)], i)
    return sums.moments(fields, score_power)


def _gradients(
    student: nn.Module, rollouts: Rollouts, weights: Weights, parameters: list[nn.Parameter]
) -> tuple[Callable[[int], list[Tensor]], int]:
    """A function from i to g_i, one (E, numel) float64 tensor per parameter; and E."""
    if isinstance(weights, Tensor):
        e = weights.shape[0]

        def from_row(i: int) -> list[Tensor]:
            log_probs = _row_log_probs(student, rollouts, i)
            return _each([(w[: len(log_probs)].to(log_probs) * log_probs).sum() for w in weights[:, i]], parameters)

        return from_row, e
    if isinstance(weights, Terms):
        terms = weights

        def from_terms(i: int) -> list[Tensor]:
            row = _alone(rollouts, i)
            if not int(row.lengths):
                return _each([torch.zeros(())] * len(terms.names), parameters)
            return _each(list(_with_exact(terms, i, token_logits(student, row), row)), parameters)

        return from_terms, len(weights.names)
    with torch.no_grad():
        logits = token_logits(student, rollouts)
    logits = logits.detach().requires_grad_()
    scalars = weights(logits)

    def from_scalars(i: int) -> list[Tensor]:
        row = token_logits(student, rollouts[i : i + 1])[0]
        row = row.masked_fill(row == -torch.inf, 0.0)  # no actions: their cotangents are zero
        return _each([(row * _row_cotangent(scalar, logits, i)).sum() for scalar in scalars[:, i]], parameters)

    return from_scalars, scalars.shape[0]


def _row_cotangent(scalar: Tensor, logits: Tensor, i: int) -> Tensor:
    """(T, V): d scalar / d logits of row i, the only row it may depend on; NaN in other rows has no effect."""
    (grad,) = torch.autograd.grad(scalar, logits, retain_graph=True, allow_unused=True, materialize_grads=True)
    return grad[i]


def _row_log_probs(student: nn.Module, rollouts: Rollouts, i: int) -> Tensor:
    """(T_i,) log-probabilities of row i's tokens, computed without its padding; empty for an empty response."""
    row = _alone(rollouts, i)
    if int(row.lengths) == 0:
        return torch.zeros(0, device=rollouts.tokens.device)
    logits = at_least_float32(token_logits(student, row)[0])
    return logits.log_softmax(dim=-1).gather(1, row.tokens[0][:, None])[:, 0]


def _alone(rollouts: Rollouts, i: int) -> Rollouts:
    """Row i without its padding."""
    return rollouts[i : i + 1].until(int(rollouts.lengths[i]))


def _with_exact(terms: Terms, i: int, logits: Tensor, row: Rollouts) -> Tensor:
    """(E,) scalars of row i: sum_t w_t log pi(y_t) + k_t sum_a pi(a) u(a), u held fixed."""
    logits = at_least_float32(logits)
    log_pi = logits[0].log_softmax(dim=-1)
    columns = slice(0, len(log_pi))
    scalars = terms.weights[:, i, columns].to(log_pi) @ log_pi.gather(1, row.tokens[0][:, None])[:, 0]
    for name, scales in terms.exact.items():
        u = terms.evidence.table(name, row, logits)[0]
        action = log_pi.detach() > -torch.inf
        pi = torch.where(action, log_pi, 0.0).exp()
        sums = torch.where(action, pi * torch.where(action, u, 0.0), 0.0).sum(dim=-1)
        scalars = scalars + scales[:, i, columns].to(sums) @ sums
    return scalars


def _each(scalars: list[Tensor], parameters: list[nn.Parameter]) -> list[Tensor]:
    """Gradients of E scalars on one graph: per parameter an (E, numel) float64 tensor."""
    rows = [_gradient(scalar, parameters) for scalar in scalars]
    return [torch.stack([row[k] for row in rows]) for k in range(len(parameters))]


def _gradient(scalar: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """D scalar / d parameter, flat float64; zeros where the scalar does not depend on it."""
    if not scalar.requires_grad:
        return [torch.zeros(p.numel(), dtype=torch.float64, device=p.device) for p in parameters]
    grads = torch.autograd.grad(scalar, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
    return [g.detach().flatten().double() for g in grads]
