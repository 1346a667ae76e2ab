"""The result of a gradient measurement, :class:`GradientMoments`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

__all__ = ["GradientMoments", "GroupMoments"]


@dataclass(frozen=True)
class GroupMoments:
    """Inner products of per-trajectory gradients restricted to one group of parameters; float64 on the CPU.

    With g_i^e the gradient of trajectory i under estimator e and gbar^e = (1/N) sum_i g_i^e (theory.md, section 5):

    Attributes:
        sq_norm: (E, N), |g_i^e|^2.
        mean_pair: (E, E), <gbar^e, gbar^f>.
        alignment: (E, N), <g_i^e, gbar^e>; None with fields="norms".
        cross: (E, E, N), <g_i^e, gbar^f>; None with fields="norms".
        pair: (E, E, N), <g_i^e, g_i^f>; None with fields="norms".
        prompt_pair: (E, E, M), <gbar_m^e, gbar_m^f> with gbar_m the mean over the trajectories of the m-th prompt, in
            the order of ``GradientMoments.prompts``; None with fields="norms".
        score_power: (N,), sum_t |grad log pi(y_t | s_t)|^2; None unless asked for.
    """

    sq_norm: Tensor
    mean_pair: Tensor
    alignment: Tensor | None = None
    cross: Tensor | None = None
    pair: Tensor | None = None
    prompt_pair: Tensor | None = None
    score_power: Tensor | None = None

    @classmethod
    def of_products(
        cls,
        mean_pair: Tensor,
        cross: Tensor,
        pair: Tensor,
        prompt_pair: Tensor | None = None,
        score_power: Tensor | None = None,
    ) -> GroupMoments:
        """All fields, ``sq_norm`` and ``alignment`` being the diagonals of ``pair`` and ``cross``."""
        sq_norm, alignment = (x.diagonal(dim1=0, dim2=1).T.clone() for x in (pair, cross))
        return cls(sq_norm, mean_pair, alignment, cross, pair, prompt_pair, score_power)


@dataclass(frozen=True)
class GradientMoments:
    """Gradient moments of E estimators on the same N trajectories, for every parameter group.

    The fields of the group "all" are also attributes: ``moments.sq_norm is moments["all"].sq_norm``.

    Attributes:
        names: the E estimators' names.
        groups: group name -> :class:`GroupMoments`; always includes "all".
        prompt_index: (N,) int64, the prompt of each trajectory.
        on: (E, N) bool, the trajectories that each estimator uses; its gradients on others are 0 and do not count. None
            if each uses all N.
    """

    names: tuple[str, ...]
    groups: Mapping[str, GroupMoments]
    prompt_index: Tensor
    on: Tensor | None = None

    def __getitem__(self, group: str) -> GroupMoments:
        """The moments of one parameter group.

        Raises:
            ValueError: no such group; the message lists the measured ones.
        """
        try:
            return self.groups[group]
        except KeyError:
            raise ValueError(f"no parameter group {group!r}; measured groups: {', '.join(self.groups)}.") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.groups)

    @property
    def prompts(self) -> Tensor:
        """(M,) the distinct values of ``prompt_index``, ascending: the order of ``prompt_pair``."""
        return self.prompt_index.unique()

    @property
    def repeated_prompts(self) -> int:
        """How many prompts have two trajectories or more."""
        return int((self.prompt_index.unique(return_counts=True)[1] > 1).sum())

    @property
    def sq_norm(self) -> Tensor:
        """(E, N), |g_i^e|^2 over all parameters."""
        return self.groups["all"].sq_norm

    @property
    def mean_pair(self) -> Tensor:
        """(E, E), <gbar^e, gbar^f> over all parameters."""
        return self.groups["all"].mean_pair

    @property
    def alignment(self) -> Tensor | None:
        """(E, N), <g_i^e, gbar^e> over all parameters, or None."""
        return self.groups["all"].alignment

    @property
    def cross(self) -> Tensor | None:
        """(E, E, N), <g_i^e, gbar^f> over all parameters, or None."""
        return self.groups["all"].cross

    @property
    def pair(self) -> Tensor | None:
        """(E, E, N), <g_i^e, g_i^f> over all parameters, or None."""
        return self.groups["all"].pair

    @property
    def prompt_pair(self) -> Tensor | None:
        """(E, E, M), <gbar_m^e, gbar_m^f> over all parameters, or None."""
        return self.groups["all"].prompt_pair

    @property
    def score_power(self) -> Tensor | None:
        """(N,), sum_t |s_t|^2 over all parameters, or None."""
        return self.groups["all"].score_power
