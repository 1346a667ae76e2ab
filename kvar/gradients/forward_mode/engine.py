"""The ``jvp`` engine: random directions by forward-mode differentiation, for any module and any number of weightings.

For a direction v over the parameters one forward pass gives the logits and their derivative along v, and so for every
token d/dv log pi(y_t | s_t) = <s_t, v>. With independent random signs as the entries of v (Hutchinson 1990,
doi:10.1080/03610919008812866), E v v^T = 1, and products of two projections are unbiased for inner products of
gradients: no hook, no rule and no backward pass, at an error of at most about sqrt(2/D) for D directions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from kvar.estimators.terms import Terms
from kvar.gradients.cotangents import Weights, surrogate
from kvar.gradients.forward_mode.projections import ScoreProjections, projected_moments
from kvar.gradients.groups import GroupSpec, resolve_groups
from kvar.gradients.moments import GroupMoments
from kvar.gradients.products.blocks import slices
from kvar.gradients.state import untouched, unwrap
from kvar.rollouts.forward import chosen_log_probs, token_logits
from kvar.rollouts.sharded import given_whole
from kvar.rollouts.trial.truth import check_rollouts
from kvar.rollouts.types import Rollouts

__all__ = [
    "DIRECTIONS",
    "cells_of",
    "derivative_along",
    "directions_of",
    "jvp_moments",
    "scalars_of",
    "score_projections",
]

DIRECTIONS = 64
"""The default number of directions: a relative error of at most 0.18."""


@given_whole("student")
def score_projections(
    student: nn.Module,
    rollouts: Rollouts,
    directions: int = DIRECTIONS,
    seed: int = 0,
    groups: Mapping[str, GroupSpec] | None = None,
    micro_batch: int | None = None,
) -> ScoreProjections:
    """Project every token's score on random directions: one forward-mode pass for each (and each cell of the groups).

    Works for modules that cannot be hooked and parameters shared in any way. Attention runs on PyTorch's MATH backend,
    the student in eval mode; its state is restored, see ``gradient_moments``.

    Args:
        student: as for ``gradient_moments``.
        rollouts: N trajectories.
        directions: D; the relative error of what follows is at most about sqrt(2/D).
        seed: of the directions; direction d is the same whatever D is.
        groups: as for ``gradient_moments``. Every cell of the finest split of the parameters that the groups make costs
            D passes: two disjoint groups that cover all parameters double the cost.
        micro_batch: most trajectories in one pass; None for all.

    Returns:
        The record, from which any kernel, baseline or weighting is evaluated without the model.

    Raises:
        ValueError: ``directions`` below 1, no rollouts, no trainable parameter, a compiled or sharded student.
        RuntimeError: an operation of the student has no forward-mode derivative; the message names it.

    Example:
        >>> from kvar.analysis.exact import TokenMDP
        >>> mdp = TokenMDP(3, 4, seed=0)
        >>> data, _ = mdp.sample(8, seed=0)
        >>> record = score_projections(mdp.student, data, directions=16)
        >>> tuple(record.projections.shape)
        (16, 8, 4)
        >>> value, relative_error = record.trace_covariance(torch.ones(1, 8, 4))
        >>> bool(relative_error < 0.4)
        True
    """
    student = unwrap(student)
    if directions < 1:
        raise ValueError(f"directions must be at least 1; got {directions}.")
    if len(rollouts) == 0:
        raise ValueError("rollouts is empty (N = 0): sample at least one response.")
    resolved = resolve_groups(student, groups)
    rollouts = rollouts.to(resolved["all"][0].device)
    cells, members = cells_of(resolved)
    size = micro_batch or len(rollouts)
    projections = torch.zeros(directions, len(cells), *rollouts.mask.shape, dtype=torch.float64)
    with untouched(student):
        check_rollouts(student, rollouts)
        for d, tangents in enumerate(directions_of(resolved["all"], directions, seed)):
            for c, cell in enumerate(cells):
                along = {id(p): tangents[id(p)] for p in cell}
                for rows in slices(len(rollouts), 1, size):
                    scores = derivative_along(student, rollouts[rows], along, chosen_log_probs)
                    projections[d, c, rows] = scores.cpu().double()
    index = rollouts.prompt_index.detach().cpu().long()
    return ScoreProjections(projections, members, rollouts.mask.cpu(), index)


def jvp_moments(
    student: nn.Module,
    rollouts: Rollouts,
    weights: Weights,
    groups: dict[str, list[nn.Parameter]],
    *,
    fields: Literal["all", "norms"] = "all",
    score_power: bool = False,
    micro_batch: int | None = None,
    directions: int = DIRECTIONS,
    seed: int = 0,
) -> dict[str, GroupMoments]:
    """Unbiased estimates of all moments from D = ``directions`` random directions, with the error given above.

    Arguments and result are those of every engine (:data:`kvar.gradients.measure.ENGINES`).

    Raises:
        RuntimeError: an operation without a forward-mode derivative.
    """
    record = None
    if score_power or isinstance(weights, Tensor):
        named = {name: members for name, members in groups.items() if name != "all"}
        record = score_projections(student, rollouts, directions, seed, named, micro_batch)
    if isinstance(weights, Tensor):
        assert record is not None
        projected, members = record.project(weights), record.members
    else:
        cells, members = cells_of(groups)
        chunks = []
        for rows in slices(len(rollouts), 1, micro_batch or len(rollouts)):
            of = scalars_of(weights, student, rollouts, rows)
            chunk = [
                [
                    derivative_along(student, rollouts[rows], {id(p): v[id(p)] for p in c}, of).cpu().double()
                    for c in cells
                ]
                for v in directions_of(groups["all"], directions, seed)
            ]
            chunks.append(torch.stack([torch.stack(cell) for cell in chunk]))
        projected = torch.cat(chunks, dim=-1)
    moments = projected_moments(projected, members, rollouts.prompt_index.detach().cpu(), fields=fields)
    if record is None or not score_power:
        return moments
    return {name: replace(m, score_power=record.score_power(name)) for name, m in moments.items()}


def scalars_of(
    weights: Terms | Callable[[Tensor], Tensor], student: nn.Module, rollouts: Rollouts, rows: slice
) -> Callable[[Tensor, Rollouts], Tensor]:
    """A function (logits, the rollouts ``rows``) -> (E, n) scalars whose derivative is that of the estimators.

    Args:
        weights: terms, whose rewards are computed once, in this call; or a callable, which takes all rows.
        student: gives the logits at which the rewards are held fixed.
        rollouts: all N trajectories.
        rows: n of them.
    """
    if not isinstance(weights, Terms):
        return lambda logits, _: weights(logits)
    numbers = torch.arange(len(rollouts), device=rollouts.tokens.device)[rows]
    with torch.no_grad():
        return surrogate(weights, numbers, token_logits(student, rollouts[rows]))


def directions_of(parameters: list[nn.Parameter], count: int, seed: int = 0) -> Iterator[dict[int, Tensor]]:
    """Random signs for every entry of every parameter, direction by direction.

    Args:
        parameters: of the student, in its order.
        count: D.
        seed: direction d depends on it, d and the parameters' shapes alone.

    Yields:
        id of a parameter -> its part of the direction, like the parameter.
    """
    for d in range(count):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + d) % 2**63)
        yield {
            id(p): (2 * torch.randint(0, 2, p.shape, generator=generator, dtype=torch.int8) - 1).to(p)
            for p in parameters
        }


def cells_of(groups: Mapping[str, list[nn.Parameter]]) -> tuple[list[list[nn.Parameter]], dict[str, tuple[int, ...]]]:
    """The finest split of the parameters of which every group is a union, and each group's parts of it."""
    ids = {name: {id(p) for p in members} for name, members in groups.items()}
    cells: dict[tuple[str, ...], list[nn.Parameter]] = {}
    for p in groups["all"]:
        cells.setdefault(tuple(name for name in groups if id(p) in ids[name]), []).append(p)
    return list(cells.values()), {name: tuple(c for c, key in enumerate(cells) if name in key) for name in groups}


class _Passes(nn.Module):
    """A student's logits as a module, so that its parameters can be exchanged for one call."""

    def __init__(self, student: nn.Module, rollouts: Rollouts, of: Callable[[Tensor, Rollouts], Tensor]) -> None:
        super().__init__()
        self.student = student
        self.rollouts, self.of = rollouts, of

    def forward(self) -> Tensor:
        """``of(logits, rollouts)``."""
        return self.of(token_logits(self.student, self.rollouts), self.rollouts)


class _PaddingRows(TorchFunctionMode):
    """Sets the derivative of rows looked up by an embedding's padding index to zero, as in the backward pass."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is F.embedding and (padding := (kwargs or {}).get("padding_idx", (*args, None, None)[2])) is not None:
            return torch.where((args[0] == padding % len(args[1]))[..., None], out.detach(), out)
        return out


@torch.no_grad()  # no backward graph; forward mode is unaffected
def derivative_along(
    student: nn.Module, rollouts: Rollouts, tangents: dict[int, Tensor], of: Callable[[Tensor, Rollouts], Tensor]
) -> Tensor:
    """The derivative of ``of(logits, rollouts)`` along one direction; zero where it does not depend on it."""
    passes = _Passes(student, rollouts, of)
    try:
        with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH), _PaddingRows():
            duals = {
                name: forward_ad.make_dual(p.detach(), tangents[id(p)])
                for name, p in passes.named_parameters()
                if id(p) in tangents
            }
            primal, tangent = forward_ad.unpack_dual(functional_call(passes, duals, ()))
    except (NotImplementedError, RuntimeError) as error:
        if "forward AD" in str(error) or "forward mode" in str(error) or "jvp" in str(error):
            raise RuntimeError(
                f"{type(student).__name__} has an operation without a forward-mode derivative ({error}): use eager "
                "attention (attn_implementation='eager'), or engine='one-pass' or 'loop'."
            ) from error
        raise
    return torch.zeros_like(primal) if tangent is None else tangent
