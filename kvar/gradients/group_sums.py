"""The fields of a measurement as sums over parameters, group by group: :class:`GroupSums`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kvar.gradients.moments import GroupMoments

__all__ = ["GroupSums"]


class GroupSums:
    """Sums of every group's fields over its parameters.

    Args:
        groups: group name -> parameters.
        n: N, trajectories.
        prompts: M.
    """

    def __init__(self, groups: dict[str, list[nn.Parameter]], n: int, prompts: int) -> None:
        self.groups = list(groups)
        self.members: dict[int, list[str]] = {}
        for name, members in groups.items():
            for key in {id(p) for p in members}:
                self.members.setdefault(key, []).append(name)
        self.n, self.prompts = n, prompts
        self.estimators = 0
        self.arrays: dict[str, dict[str, Tensor]] = {}

    def begin(self, estimators: int) -> None:
        """Allocate the arrays for E estimators, at the first call."""
        if self.arrays:
            return
        e = self.estimators = estimators
        shapes = {
            "sq_norm": (e, self.n),
            "mean_pair": (e, e),
            "cross": (e, e, self.n),
            "pair": (e, e, self.n),
            "prompt_pair": (e, e, self.prompts),
            "score_power": (self.n,),
        }
        self.arrays = {
            group: {field: torch.zeros(shape, dtype=torch.float64) for field, shape in shapes.items()}
            for group in self.groups
        }

    def add(self, field: str, parameter: nn.Parameter, value: Tensor, where: Tensor | None = None) -> None:
        """Add a parameter's part of a field, at the indices ``where`` of its last axis."""
        value = value.detach().double().cpu()
        for group in self.members[id(parameter)]:
            array = self.arrays[group][field]
            if where is None:
                array += value
            else:
                array[..., where.cpu()] += value

    def moments(self, fields: str, score_power: bool) -> dict[str, GroupMoments]:
        """The finished fields."""
        out = {}
        for group, a in self.arrays.items():
            power = a["score_power"] if score_power else None
            if fields == "norms":
                out[group] = GroupMoments(sq_norm=a["sq_norm"], mean_pair=a["mean_pair"], score_power=power)
                continue
            out[group] = GroupMoments.of_products(a["mean_pair"], a["cross"], a["pair"], a["prompt_pair"], power)
        return out
