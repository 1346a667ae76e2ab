"""Sufficient statistics of gradient moments, with all units and with each unit left out; theory.md (12), (13)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from kvar.analysis.unit_sums import UnitSums, need_pairs, unit_sums
from kvar.estimators import TRAINED
from kvar.gradients.moments import GradientMoments, GroupMoments
from kvar.intervals.jackknife import Array

__all__ = ["Replicates", "Unit", "need_pairs", "replicates", "resolve_reference"]

Unit: TypeAlias = Literal["trajectory", "prompt"] | None


@dataclass(frozen=True, eq=False)
class Replicates:
    """Sums over trajectories; the first axis is 1 (nothing left out) + U (each unit left out in turn).

    Attributes:
        names: the E estimators.
        units: U, or N when there are no replicates.
        n: (1+U, E) trajectories counted.
        shared: (1+U, E, E) those that two estimators share.
        square: (1+U, E, E), sum_i <g_i^e, g_i^f>.
        total: (1+U, E, E), <sum_i g_i^e, sum_i g_i^f>.
        same: (1+U, E, E), sum over prompts of <sum_{i in m} g_i^e, sum_{i in m} g_i^f>; None unless values are to be
            unbiased for prompts drawn as clusters.
        same_n: (1+U, E, E), sum over prompts of n_m^e n_m^f; None likewise.
        inner: (1+U, E, E), covariance within prompts pooled by their counts, over prompts with two rollouts or more;
            None where prompts are not the units.
    """

    names: tuple[str, ...]
    units: int
    n: Array
    shared: Array
    square: Array
    total: Array
    same: Array | None = None
    same_n: Array | None = None
    inner: Array | None = None

    def signal(self) -> Array:
        """(1+U, E, E) unbiased estimates of <E g^e, E g^f>: the mean over distinct trajectories, (12).

        With ``same``, over trajectories of distinct prompts.
        """
        pairs = self.n[:, :, None] * self.n[:, None, :]
        with np.errstate(all="ignore"):
            if self.same is not None and self.same_n is not None:
                return np.asarray((self.total - self.same) / (pairs - self.same_n))
            return np.asarray((self.total - self.square) / (pairs - self.shared))

    def noise(self) -> Array:
        """(E, E) what products of sample means exceed :meth:`signal` by, all units counted."""
        return np.asarray(self.total[0] / (self.n[0, :, None] * self.n[0]) - self.signal()[0])

    def covariance(self) -> Array:
        """(1+U, E, E) estimates of tr Cov(g^e, g^f), (12): mean of products minus product of means.

        NaN for two estimators that share no trajectory.
        """
        with np.errstate(all="ignore"):
            return np.asarray(self.square / self.shared - self.signal())

    def within(self) -> Array:
        """(1+U, E, E) estimates of E_x tr Cov(g^e, g^f | x), (9).

        Raises:
            ValueError: prompts are not the units, or none has two rollouts.
        """
        if self.inner is None:
            raise ValueError(
                "the variance within prompts needs at least two prompts, two of them with two rollouts or more: sample "
                "with rollouts_per_prompt=2 or more, and measure with fields='all'."
            )
        return self.inner


def replicates(moments: GradientMoments, group: str = "all", unit: Unit = None, by_prompt: bool = False) -> Replicates:
    """Collect the sums of one parameter group and leave out units.

    Args:
        moments: the measurement.
        group: parameter group.
        unit: "trajectory": N trajectories drawn independently, values by (12), intervals by leaving one out.
            "prompt": prompts drawn independently with their rollouts; values by pairs of distinct prompts, intervals by
            leaving a prompt out. None: values by (12); intervals by prompt if every prompt has the same number of
            rollouts, two or more, else by trajectory. Estimators from different trajectories of the same prompts
            (``moments.on``) are "prompt".
        by_prompt: with unit None, leave prompts out whatever the design is (the variance within prompts needs it).

    Returns:
        The sums; without replicates where the measurement holds norms only.

    Raises:
        ValueError: fewer than two trajectories, an unknown unit, or prompts as units where there are fewer than two
            (three for unit="prompt") or only norms were measured.
    """
    data = moments[group]
    n = int(data.sq_norm.shape[1])
    if n < 2:
        raise ValueError(f"a variance needs at least two trajectories; these moments hold {n}. Sample more rollouts.")
    if unit not in (None, "trajectory", "prompt"):
        raise ValueError(f"unit must be 'trajectory', 'prompt' or None; got {unit!r}.")
    if moments.on is not None:
        if unit == "trajectory":
            raise ValueError(
                "unit='trajectory' counts two trajectories of one prompt as independent, and these estimators are from "
                "different trajectories of the same prompts: leave unit None."
            )
        unit = "prompt"
    counts = np.unique(moments.prompt_index.numpy(), return_counts=True)[1]
    balanced = len(counts) > 1 and counts[0] > 1 and bool((counts == counts[0]).all())
    prompts = unit == "prompt" or (unit is None and (balanced or by_prompt))
    if prompts and unit == "prompt" and len(counts) < 3:
        raise ValueError(
            f"unit='prompt' needs at least three prompts to leave one out; there are {len(counts)}. Use more prompts, "
            "or unit='trajectory'."
        )
    if prompts and len(counts) < 2:
        raise ValueError("one prompt says nothing about prompts: use more of them, or a statistic by trajectory.")
    if unit == "prompt" or by_prompt:
        need_pairs(moments, group, "prompts as units")
    if data.pair is None:
        return _norms_only(moments.names, data, n)
    return _leave_one_out(unit_sums(moments, group, prompts), clustered=unit == "prompt")


def resolve_reference(names: tuple[str, ...], reference: str | int | None) -> int:
    """Number of the reference estimator: by name or number; None: the first called K=1 or LLMR, else the first.

    The trainer's own, ``trained``, is none by default where there is another.

    Raises:
        ValueError: no such estimator.
    """
    if reference is None:
        others = [e for e, name in enumerate(names) if name != TRAINED] or [0]
        return next((e for e in others if names[e].lower().split(" ")[0] in ("k=1", "llmr")), others[0])
    if isinstance(reference, str):
        if reference in names:
            return names.index(reference)
    elif -len(names) <= reference < len(names):
        return int(reference) % len(names)
    raise ValueError(f"reference {reference!r} is none of the estimators {', '.join(names)} (or their numbers).")


def _norms_only(names: tuple[str, ...], data: GroupMoments, n: int) -> Replicates:
    e = len(names)
    square = np.full((1, e, e), np.nan)
    np.fill_diagonal(square[0], data.sq_norm.sum(dim=1).numpy())
    counts = np.full((1, e), float(n)), np.full((1, e, e), float(n))
    return Replicates(names, n, *counts, square, n**2 * data.mean_pair.numpy()[None])


def _leave_one_out(sums: UnitSums, clustered: bool) -> Replicates:
    same, size = sums.same, sums.size
    inner = None
    if sums.inner is not None:
        with np.errstate(all="ignore"):
            count = _left_out(sums.inner_size.sum(axis=0), sums.inner_size)
            inner = _left_out(sums.inner.sum(axis=0), sums.inner) / count
    products = size[:, :, None] * size[:, None, :]
    return Replicates(
        names=sums.names,
        units=len(size),
        n=_left_out(size.sum(axis=0), size),
        shared=_left_out(sums.shared.sum(axis=0), sums.shared),
        square=_left_out(sums.square.sum(axis=0), sums.square),
        total=_left_out(sums.total, sums.with_total - same),
        same=_left_out(same.sum(axis=0), same) if clustered else None,
        same_n=_left_out(products.sum(axis=0), products) if clustered else None,
        inner=inner,
    )


def _left_out(whole: Array | float, parts: Array) -> Array:
    """The whole, then the whole less each part."""
    return np.concatenate([np.asarray(whole)[None], np.asarray(whole) - parts])
