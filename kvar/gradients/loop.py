"""The ``loop`` engine: one trajectory at a time by autograd. Slow, plain, and the truth for every other engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kvar.estimators.terms import Terms
from kvar.gradients.cotangents import Weights
from kvar.gradients.moments import GroupMoments
from kvar.rollouts.forward import token_logits
from kvar.rollouts.types import Rollouts

__all__ = ["loop_moments"]

_HELD = 2**26
"""Gradient entries (E N P) up to which per-trajectory gradients are kept rather than computed a second time."""


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

    Two passes over the trajectories: the first adds up the means (over all, and prompt by prompt), the second takes
    inner products with them. A callable sees the logits of all rows; each of its scalars is differentiated to its own
    row's logits, and from there through a forward pass of that row alone. Inner products are taken in float64 whatever
    the student's precision is.

    Args:
        student: in eval mode.
        rollouts: N trajectories on the student's device.
        weights: (E, N, T), zero where masked; or terms; or a callable, logits (N, T, V) -> (E, N).
        groups: group name -> parameters; "all" holds them all.
        fields: "norms" skips the second pass.
        score_power: also sum_t |grad log pi(y_t | s_t)|^2, one backward per token.
        micro_batch: ignored, since one trajectory is held at a time.

    Returns:
        Group name -> moments.

    Raises:
        ValueError: a callable whose result is not (E, N) or does not depend on the logits.
    """
    del micro_batch
    parameters = groups["all"]
    n = len(rollouts)
    gradient_of, e = _gradients(student, rollouts, weights, parameters)
    keep = e * n * sum(p.numel() for p in parameters) <= _HELD
    held: dict[int, list[Tensor]] = {}

    def gradient(i: int) -> list[Tensor]:
        if i in held:
            return held[i]
        found = gradient_of(i)
        if keep and fields == "all":
            held[i] = found
        return found

    new: dict[str, Any] = {"dtype": torch.float64, "device": parameters[0].device}
    prompts = rollouts.prompt_index.unique()
    total = [torch.zeros(e, p.numel(), **new) for p in parameters]
    sq_norm = _Sums(groups, (e, n), new)
    prompt_pair = _Sums(groups, (e, e, len(prompts)), new)
    for m, prompt in enumerate(prompts):
        rows = (rollouts.prompt_index == prompt).nonzero()[:, 0].tolist()
        prompt_sum = [torch.zeros_like(block) for block in total]
        for i in rows:
            g = gradient(i)
            sq_norm.put([(block**2).sum(dim=1) for block in g], (slice(None), i))
            for block, term in zip(prompt_sum, g, strict=True):
                block += term
        mean = [block / len(rows) for block in prompt_sum]
        prompt_pair.put([block @ block.T for block in mean], (slice(None), slice(None), m))
        for block, term in zip(total, prompt_sum, strict=True):
            block += term
    gbar = [block / n for block in total]
    mean_pair = _Sums(groups, (e, e), new)
    mean_pair.put([block @ block.T for block in gbar], ())
    result = {name: GroupMoments(sq_norm=sq_norm.of[name], mean_pair=mean_pair.of[name]) for name in groups}
    if fields == "all":
        cross, pair = _Sums(groups, (e, e, n), new), _Sums(groups, (e, e, n), new)
        for i in range(n):
            g = gradient(i)
            cross.put([block @ mean.T for block, mean in zip(g, gbar, strict=True)], (slice(None), slice(None), i))
            pair.put([block @ block.T for block in g], (slice(None), slice(None), i))
        for name in groups:
            result[name] = replace(
                result[name],
                cross=cross.of[name],
                alignment=cross.of[name].diagonal(dim1=0, dim2=1).T.clone(),
                pair=pair.of[name],
                prompt_pair=prompt_pair.of[name],
            )
    if score_power:
        power = _Sums(groups, (n,), new)
        for i in range(n):
            for score in _scores(student, rollouts, i, parameters):
                power.put([(block**2).sum() for block in score], (i,))
        result = {name: replace(moments, score_power=power.of[name]) for name, moments in result.items()}
    return result


class _Sums:
    """One array per group, into which every parameter of the group adds its part."""

    def __init__(self, groups: dict[str, list[nn.Parameter]], shape: tuple[int, ...], new: dict[str, Any]) -> None:
        self.of = {name: torch.zeros(shape, **new) for name in groups}
        position = {id(p): k for k, p in enumerate(groups["all"])}
        self._members = {name: [position[id(p)] for p in members] for name, members in groups.items()}

    def put(self, parts: list[Tensor], where: tuple) -> None:
        """Add ``parts[k]``, parameter k's contribution, at index ``where`` of every group that holds parameter k."""
        for name, members in self._members.items():
            for k in members:
                self.of[name][where] += parts[k]


def _gradients(
    student: nn.Module,
    rollouts: Rollouts,
    weights: Weights,
    parameters: list[nn.Parameter],
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
            logits = token_logits(student, row)
            scalars = _with_exact(terms, i, logits, row)
            return _each(list(scalars), parameters)

        return from_terms, len(weights.names)
    with torch.no_grad():
        logits = token_logits(student, rollouts)
    logits = logits.detach().requires_grad_()
    scalars = weights(logits)
    shape = tuple(scalars.shape) if isinstance(scalars, Tensor) else type(scalars).__name__
    if not isinstance(scalars, Tensor) or scalars.dim() != 2 or scalars.shape[1] != len(rollouts):
        raise ValueError(f"weights(logits) must return (E, N) scalars, N = {len(rollouts)}; got {shape}.")
    if not scalars.requires_grad:
        raise ValueError(
            "weights(logits) returned scalars without a gradient: compute them from the logits, undetached."
        )

    def from_scalars(i: int) -> list[Tensor]:
        own = token_logits(student, rollouts[i : i + 1])[0]
        own = own.masked_fill(own == -torch.inf, 0.0)  # no actions: their cotangents are zero
        return _each([(own * _row_cotangent(scalar, logits, i)).sum() for scalar in scalars[:, i]], parameters)

    return from_scalars, scalars.shape[0]


def _row_cotangent(scalar: Tensor, logits: Tensor, i: int) -> Tensor:
    """(T, V): d scalar / d logits of row i, the only row it may depend on: a NaN that others hold stays with them."""
    (grad,) = torch.autograd.grad(scalar, logits, retain_graph=True, allow_unused=True, materialize_grads=True)
    return grad[i]


def _row_log_probs(student: nn.Module, rollouts: Rollouts, i: int) -> Tensor:
    """(T_i,) log-probabilities of row i's own tokens, computed without its padding; empty for an empty response."""
    row = _alone(rollouts, i)
    if int(row.lengths) == 0:
        return torch.zeros(0, device=rollouts.tokens.device)
    logits = token_logits(student, row)[0]
    precise = logits if logits.dtype == torch.float64 else logits.float()
    return precise.log_softmax(dim=-1).gather(1, row.tokens[0][:, None])[:, 0]


def _alone(rollouts: Rollouts, i: int) -> Rollouts:
    """Row i without its padding."""
    row = rollouts[i : i + 1]
    own = slice(0, int(row.lengths))
    return replace(row, tokens=row.tokens[:, own], mask=row.mask[:, own], log_probs=row.log_probs[:, own])


def _with_exact(terms: Terms, i: int, logits: Tensor, row: Rollouts) -> Tensor:
    """(E,) scalars of row i: sum_t w_t log pi(y_t) + k_t sum_a pi(a) u(a), u held fixed."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    log_pi = logits[0].log_softmax(dim=-1)
    own = slice(0, len(log_pi))
    scalars = terms.weights[:, i, own].to(log_pi) @ log_pi.gather(1, row.tokens[0][:, None])[:, 0]
    for name, scales in terms.exact.items():
        u = terms.evidence.table(name, row, logits)[0]
        action = log_pi.detach() > -torch.inf
        sums = torch.where(action, torch.where(action, log_pi, 0.0).exp() * torch.where(action, u, 0.0), 0.0).sum(
            dim=-1
        )
        scalars = scalars + scales[:, i, own].to(sums) @ sums
    return scalars


def _each(scalars: list[Tensor], parameters: list[nn.Parameter]) -> list[Tensor]:
    """Gradients of E scalars on one graph: per parameter an (E, numel) float64 tensor."""
    rows = [_gradient(scalar, parameters) for scalar in scalars]
    return [torch.stack([row[k] for row in rows]) for k in range(len(parameters))]


def _gradient(scalar: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """D scalar / d parameter, flat float64; zeros where the scalar does not depend on it."""
    if not scalar.requires_grad:
        return [torch.zeros(p.numel(), dtype=torch.float64, device=p.device) for p in parameters]
    found = torch.autograd.grad(scalar, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
    return [g.detach().flatten().double() for g in found]


def _scores(student: nn.Module, rollouts: Rollouts, i: int, parameters: list[nn.Parameter]) -> list[list[Tensor]]:
    """Grad log pi(y_t | s_t) of every token of row i."""
    return [_gradient(term, parameters) for term in _row_log_probs(student, rollouts, i)]
