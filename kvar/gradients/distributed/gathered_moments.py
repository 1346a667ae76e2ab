"""Moments over the trajectories of all processes, equal to those of one process that holds them all.

Norms, pairs and products of prompts do not depend on other processes and are gathered. Alignments need the mean over
all, which is summed over processes: G^f = sum_r sum_i g_i^f, one backward pass per estimator. Then for every trajectory

    <g_i^e, gbar^f> = sum_t w_it^e <s_it, gbar^f>,      gbar^f = G^f / N,

where <s_it, gbar^f> is the derivative of log pi(y_t | s_t) along gbar^f: one forward-mode pass per estimator gives it
for all tokens. Both are exact, so any engine serves for the rest. (Models that compute their norms in float32 whatever
their weights are, T5 and Llama among them, do so in both modes, and differ there by 1e-7 or so.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from kvar.gradients.distributed.processes import all_or_none
from kvar.gradients.forward_mode.engine import cells_of, derivative_along, scalars_of
from kvar.gradients.local import LocalMeasurement
from kvar.gradients.moments import GroupMoments
from kvar.gradients.products.blocks import slices
from kvar.gradients.state import untouched
from kvar.rollouts.forward import chosen_log_probs, token_logits
from kvar.rollouts.types import Rollouts

__all__ = ["joined_moments"]


def joined_moments(
    measure: Callable[[], LocalMeasurement], process_group: dist.ProcessGroup | None = None, on: Tensor | None = None
) -> tuple[LocalMeasurement, dict[str, GroupMoments], Tensor, Tensor | None]:
    """Measure on every process, then compute the fields that depend on the mean over all.

    Besides ``measure`` this takes one forward and E backward passes, and for fields="all" E forward-mode passes for
    every cell of the groups.

    Args:
        measure: this process's measurement.
        process_group: the processes; None for all.
        on: (E, n) of this process, :attr:`kvar.gradients.GradientMoments.on`.

    Returns:
        This process's measurement; moments of all N trajectories, in the order of ranks; their prompts (N,); (E, N) of
        all processes' ``on``, or None.

    Raises:
        ValueError: processes measure different things, or a prompt is on two of them.
        RuntimeError: ``torch.distributed`` is not set up, or another process failed.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            "distributed=True needs torch.distributed.init_process_group, called for you by torchrun or accelerate."
        )
    held: list[LocalMeasurement] = []

    def portable() -> dict[str, Any]:
        local = measure()
        held.append(local)
        plain = {name: {k: v.cpu() for k, v in vars(m).items() if v is not None} for name, m in local.moments.items()}
        sizes = {name: sum(p.numel() for p in members) for name, members in local.groups.items()}
        kept = sorted(plain["all"])
        estimators = f"{len(plain['all']['sq_norm'])} estimators{'' if on is None else ' on some trajectories each'}"
        return {
            "index": local.rollouts.prompt_index.detach().cpu().long(),
            "moments": plain,
            "on": on,
            "shape": f"{estimators}, fields {kept}, groups of {sizes} parameters",
        }

    every = all_or_none(portable, process_group)
    _check_agreement(every)
    local = held[0]
    indices = [part["index"] for part in every]
    with untouched(local.student):
        means = _means(local, sum(map(len, indices)), process_group)
        everything = local.options["fields"] == "all"
        crosses = all_or_none(lambda: _crosses(local, means) if everything else {}, process_group)
    order = torch.cat([index.unique() for index in indices]).argsort()
    result = {}
    for name, members in local.groups.items():
        rows = [torch.stack([mean[id(p)].flatten().double() for mean in means]) for p in members]
        mean_pair = sum((row @ row.T for row in rows), torch.zeros((), dtype=torch.float64)).cpu()
        parts = [part["moments"][name] for part in every]
        fields = {k: torch.cat([part[k] for part in parts], dim=-1) for k in parts[0] if k not in _OF_THE_MEAN}
        if everything:
            cross = torch.cat([part[name] for part in crosses], dim=-1)
            fields |= {"cross": cross, "alignment": cross.diagonal(dim1=0, dim2=1).T.clone()}
            fields["prompt_pair"] = fields["prompt_pair"][..., order]
        result[name] = GroupMoments(**fields, mean_pair=mean_pair)
    return local, result, torch.cat(indices), None if on is None else torch.cat([part["on"] for part in every], dim=1)


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


def _means(local: LocalMeasurement, n: int, process_group: dist.ProcessGroup | None) -> list[dict[int, Tensor]]:
    """gbar^e over all N trajectories: for each of E estimators, id of a parameter -> a tensor like it."""
    parameters = local.groups["all"]
    totals: list[dict[int, Tensor]] = []
    for rows in _rows(local):
        some = local.rollouts[rows]
        scalars = _scalars(local, rows)(token_logits(local.student, some), some)
        if isinstance(local.weights, Tensor):
            scalars = torch.einsum("ent,nt->en", local.weights[:, rows].to(scalars), scalars)
        for e, scalar in enumerate(scalars.sum(dim=1)):
            grads = torch.autograd.grad(
                scalar, parameters, retain_graph=e < len(scalars) - 1, allow_unused=True, materialize_grads=True
            )
            if e == len(totals):
                totals.append({id(p): torch.zeros_like(p) for p in parameters})
            for p, grad in zip(parameters, grads, strict=True):
                totals[e][id(p)] += grad
    for block in (block for total in totals for block in total.values()):
        dist.all_reduce(block, group=process_group)
        block /= n
    return totals


def _crosses(local: LocalMeasurement, means: list[dict[int, Tensor]]) -> dict[str, Tensor]:
    """Group name -> (E, E, N_r), <g_i^e, gbar^f>, by the derivative along gbar^f."""
    weights, e = local.weights, len(means)
    cells, members = cells_of(local.groups)
    by_cell = torch.zeros(len(cells), e, e, len(local.rollouts), dtype=torch.float64)
    for rows in _rows(local):
        scalars = _scalars(local, rows)
        for c, cell in enumerate(cells):
            for f, mean in enumerate(means):
                direction = {id(p): mean[id(p)] for p in cell}
                along = derivative_along(local.student, local.rollouts[rows], direction, scalars).double()
                if isinstance(weights, Tensor):
                    along = torch.einsum("ent,nt->en", weights[:, rows].double(), along)
                by_cell[c, :, f, rows] = along.cpu()
    return {name: by_cell[list(cell)].sum(dim=0) for name, cell in members.items()}


def _scalars(local: LocalMeasurement, rows: slice) -> Callable[[Tensor, Rollouts], Tensor]:
    """Token log-probabilities (n, T) for token weights, else the estimators' scalars (E, n)."""
    if isinstance(local.weights, Tensor):
        return chosen_log_probs
    return scalars_of(local.weights, local.student, local.rollouts, rows)


def _rows(local: LocalMeasurement) -> Iterator[slice]:
    n = len(local.rollouts)
    return slices(n, 1, local.options["micro_batch"] or n)
