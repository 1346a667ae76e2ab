"""Moments over the trajectories of all processes, equal to those of one process that holds them all.

Norms, pairs and prompts need nothing of other processes and are gathered. Alignments need the mean over all, which is
summed over processes: G^f = sum_r sum_i g_i^f, one backward pass per estimator. Then for every trajectory

    <g_i^e, gbar^f> = sum_t w_it^e <s_it, gbar^f>,      gbar^f = G^f / N,

where <s_it, gbar^f> is the derivative of log pi(y_t | s_t) along gbar^f: one forward-mode pass per estimator gives it
for all tokens. Both are exact, so any engine serves for the rest. (Models that compute their norms in float32 whatever
their weights are, T5 and Llama among them, do so in both modes, and differ there by 1e-7 or so.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kvar.estimators.terms import Terms
from kvar.gradients.cotangents import Weights, surrogate
from kvar.gradients.distributed.processes import all_or_none
from kvar.gradients.forward_mode.engine import cells_of, derivative_along, scalars_of
from kvar.gradients.moments import GroupMoments
from kvar.gradients.state import untouched
from kvar.rollouts.forward import chosen_log_probs, token_logits
from kvar.rollouts.types import Rollouts

__all__ = ["joined_moments"]


class Local(Protocol):
    """What one process measured, and from what, checked."""

    @property
    def student(self) -> nn.Module:
        """The plain module; parameters are the same on every process."""
        ...

    @property
    def rollouts(self) -> Rollouts:
        """N_r trajectories, no prompt on two processes."""
        ...

    @property
    def weights(self) -> Weights:
        """As the engine had them."""
        ...

    @property
    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Group name -> parameters."""
        ...

    @property
    def moments(self) -> dict[str, GroupMoments]:
        """Of the N_r trajectories, from any exact engine."""
        ...

    @property
    def options(self) -> dict[str, Any]:
        """The engine's keywords."""
        ...


L = TypeVar("L", bound=Local)


def joined_moments(
    measure: Callable[[], L], process_group: dist.ProcessGroup | None = None
) -> tuple[L, dict[str, GroupMoments], Tensor]:
    """Measure on every process and complete what depends on the mean over all.

    Beside ``measure`` it costs one forward and E backward passes, and for fields="all" E forward-mode passes for every
    cell of the groups.

    Args:
        measure: this process's measurement.
        process_group: which processes; None for all.

    Returns:
        This process's measurement; moments of all N trajectories, process after process; their prompts (N,).

    Raises:
        ValueError: processes that disagree in what they measure, or a prompt on two of them.
        RuntimeError: ``torch.distributed`` is not set up, or another process failed.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            "distributed=True needs torch.distributed.init_process_group, called for you by torchrun or accelerate."
        )
    held: list[L] = []

    def portable() -> dict[str, Any]:
        own = measure()
        held.append(own)
        plain = {name: {k: v.cpu() for k, v in m.__dict__.items() if v is not None} for name, m in own.moments.items()}
        sizes = {name: sum(p.numel() for p in members) for name, members in own.groups.items()}
        kept = sorted(plain["all"])
        estimators = len(plain["all"]["sq_norm"])
        return {
            "index": own.rollouts.prompt_index.detach().cpu().long(),
            "moments": plain,
            "shape": f"{estimators} estimators, fields {kept}, groups of {sizes} parameters",
        }

    every = all_or_none(portable, process_group)
    _check_agreement(every)
    own = held[0]
    indices = [part["index"] for part in every]
    with untouched(own.student):
        means = _means(own, sum(map(len, indices)), process_group)
        wanted = own.options["fields"] == "all"
        crosses = all_or_none(lambda: _crosses(own, means) if wanted else {}, process_group)
    order = torch.cat([index.unique() for index in indices]).argsort()
    position = {id(p): k for k, p in enumerate(own.groups["all"])}
    found = {}
    for name, members in own.groups.items():
        mean_pair = torch.zeros(len(means), len(means), dtype=torch.float64)
        for k in (position[id(p)] for p in members):
            rows = torch.stack([mean[k].flatten().double() for mean in means])
            mean_pair += (rows @ rows.T).cpu()
        parts = [part["moments"][name] for part in every]
        fields = {k: torch.cat([part[k] for part in parts], dim=-1) for k in parts[0] if k not in _OF_THE_MEAN}
        if wanted:
            cross = torch.cat([part[name] for part in crosses], dim=-1)
            fields |= {"cross": cross, "alignment": cross.diagonal(dim1=0, dim2=1).T.clone()}
            fields["prompt_pair"] = fields["prompt_pair"][..., order]
        found[name] = GroupMoments(**fields, mean_pair=mean_pair)
    return own, found, torch.cat(indices)


_OF_THE_MEAN = ("mean_pair", "alignment", "cross")


def _check_agreement(every: list[dict[str, Any]]) -> None:
    for rank, part in enumerate(every[1:], start=1):
        if part["shape"] != every[0]["shape"]:
            raise ValueError(
                f"processes 0 and {rank} measure different things (estimators, fields, groups with parameters): "
                f"{every[0]['shape']} and {part['shape']}; call with the same arguments everywhere."
            )
    seen: dict[int, int] = {}
    for rank, part in enumerate(every):
        for prompt in part["index"].unique().tolist():
            if prompt in seen:
                raise ValueError(
                    f"prompt_index {prompt} is on processes {seen[prompt]} and {rank}: a prompt must be on one process "
                    "alone. If these are different prompts, number them by kvar.gradients.distinct_prompts(rollouts)."
                )
            seen[prompt] = rank


def _means(own: Local, n: int, process_group: dist.ProcessGroup | None) -> list[list[Tensor]]:
    """gbar^e over all N trajectories: E lists of one tensor a parameter."""
    rollouts, weights, parameters = own.rollouts, own.weights, own.groups["all"]
    totals: list[list[Tensor]] = []
    for rows in _slices(len(rollouts), own.options["micro_batch"]):
        part = rollouts[rows]
        logits = token_logits(own.student, part)
        if isinstance(weights, Tensor):
            log_pi = chosen_log_probs(logits, part)
            scalars = torch.einsum("ent,nt->e", weights[:, rows].to(log_pi), log_pi)
        elif isinstance(weights, Terms):
            scalars = surrogate(weights, _numbers(own, rows), logits)(logits, part).sum(dim=1)
        else:
            scalars = scalars_of(weights)(logits, part).sum(dim=1)
        for e, scalar in enumerate(scalars):
            grads = torch.autograd.grad(
                scalar, parameters, retain_graph=e < len(scalars) - 1, allow_unused=True, materialize_grads=True
            )
            if e == len(totals):
                totals.append([g.detach().clone() for g in grads])
            else:
                for block, g in zip(totals[e], grads, strict=True):
                    block += g
    for block in (block for total in totals for block in total):
        dist.all_reduce(block, group=process_group)
        block /= n
    return totals


def _crosses(own: Local, means: list[list[Tensor]]) -> dict[str, Tensor]:
    """Group name -> (E, E, N_r), <g_i^e, gbar^f>, by the derivative along gbar^f."""
    weights, n, e = own.weights, len(own.rollouts), len(means)
    cells, members = cells_of(own.groups)
    position = {id(p): k for k, p in enumerate(own.groups["all"])}

    def of(rows: slice) -> Callable[[Tensor, Rollouts], Tensor]:
        if isinstance(weights, Tensor):
            return chosen_log_probs
        if not isinstance(weights, Terms):
            return scalars_of(weights)
        with torch.no_grad():
            return surrogate(weights, _numbers(own, rows), token_logits(own.student, own.rollouts[rows]))

    found = torch.zeros(len(cells), e, e, n, dtype=torch.float64)
    for rows in _slices(n, own.options["micro_batch"]):
        scalars = of(rows)
        for c, cell in enumerate(cells):
            for f, mean in enumerate(means):
                direction = {id(p): mean[position[id(p)]] for p in cell}
                along = derivative_along(own.student, own.rollouts[rows], direction, scalars).double()
                if isinstance(weights, Tensor):
                    along = torch.einsum("ent,nt->en", weights[:, rows].double(), along)
                found[c, :, f, rows] = along.cpu()
    return {name: found[list(cell)].sum(dim=0) for name, cell in members.items()}


def _numbers(own: Local, rows: slice) -> Tensor:
    """Trajectories' numbers in a slice."""
    return torch.arange(len(own.rollouts), device=own.rollouts.tokens.device)[rows]


def _slices(n: int, size: int | None) -> list[slice]:
    step = size or max(n, 1)
    return [slice(start, start + step) for start in range(0, n, step)]
