"""Every kernel's efficiency and error for steps of M prompts x R rollouts, from one run or from several seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from kvar.analysis.frames.across_seeds import across_seeds
from kvar.analysis.frames.measured import LEAST_PROMPTS, design_unit
from kvar.analysis.frames.recorded import moments_at, probes_of
from kvar.analysis.frames.reference import default_reference
from kvar.analysis.replicates import Replicates, need_pairs, replicates, resolve_reference
from kvar.analysis.step.best_k import best_k_of, competing, without_intervals
from kvar.analysis.step.design import check_design, design_replicates
from kvar.analysis.trace_covariance import trace_of
from kvar.gradients.moments import GradientMoments
from kvar.intervals import candidates, probability_over_seeds, units_to_resolve
from kvar.records import Run
from kvar.results.same_run import need_different_probes, need_seeds_of_one_run
from kvar.results.target_units import target_units

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CRITERIA", "Choice", "choices", "leaders", "probe_at"]

CRITERIA = ("efficiency", "mse")
"""What a kernel is chosen by: the largest efficiency (11'), or the smallest squared error (10)."""


@dataclass(frozen=True)
class Choice:
    """What is known about one design.

    Attributes:
        prompts: M.
        rollouts: R.
        table: a row a kernel: kernel; efficiency and mse, each with _low, _high and _best (probability).
        units: how many independent units the probabilities rest on.
        unit: what they are: "prompts", "responses" or "seeds".
        needed: criterion -> how many of them would tell the winner, were the present differences the true ones.
        reason: why the design cannot be told; the table is empty then.
        reference: the estimator that efficiency and error are toward.
        silent: whether the probe saw no noise at all: all responses have one and the same gradient.
        target_units: units that would tell |g*|^2 of the target from zero in four cases of five, infinite where that is
            not known; NaN where it is told far enough for a probability to be the best.
    """

    prompts: int
    rollouts: int
    table: pd.DataFrame
    units: int = 0
    unit: str = "prompts"
    needed: dict[str, float] | None = None
    reason: str | None = None
    reference: str = ""
    silent: bool = False
    target_units: float = math.nan


def probe_at(run: Run, step: int | str) -> tuple[str, int]:
    """(probe, step) of a run's measurement at a step, or of its last.

    Raises:
        ValueError: no probe there.
    """
    probes = probes_of(run)
    wanted = [pair for pair in probes if step in ("last", pair[1])]
    if not wanted:
        raise ValueError(f"{run.path} has no probe at step {step}; choose of {sorted({s for _, s in probes})}.")
    return wanted[-1]


def choices(
    runs: Sequence[Run],
    prompts: Sequence[int],
    rollouts: Sequence[int],
    *,
    step: int | str = "last",
    group: str = "all",
    reference: str | None = None,
) -> list[Choice]:
    """Every (M, R), rollouts fastest.

    Args:
        runs: one with a probe, or several seeds of one run.
        prompts: values of M.
        rollouts: values of R.
        step: training step of the probe, or "last".
        group: parameter group.
        reference: unbiased estimator, or an objective ("J", "J_kl", "score"); by default J's.

    Raises:
        ValueError: no probe at that step, another group or reference, M or R below 1, runs that do not belong together,
            fewer than two trajectories, or no design that can be told.
    """
    if len(runs) > 1:
        need_seeds_of_one_run(runs)
    places = [probe_at(run, step) for run in runs]
    if len({at for _, at in places}) > 1:
        steps = ", ".join(f"{run.path}: {at}" for run, (_, at) in zip(runs, places, strict=True))
        raise ValueError(f"the last probes are of different steps ({steps}); name one with step.")
    recorded = [moments_at(run, *place) for run, place in zip(runs, places, strict=True)]
    measured = [moments for moments in recorded if moments is not None]
    if len(measured) < len(runs) or len({moments.names for moments in measured}) > 1:
        kernels = "; ".join(", ".join(m.names) if m is not None else "only parts of responses" for m in recorded)
        raise ValueError(f"these runs differ in the kernels measured, or measured none whole: {kernels}.")
    need_different_probes({str(run.path): moments for run, moments in zip(runs, measured, strict=True)})
    first = measured[0]
    if group not in first.groups:
        raise ValueError(f"no parameter group {group!r}; measured groups: {', '.join(first)}.")
    reference = default_reference(first.names, reference)
    r = resolve_reference(first.names, reference)
    silent = all(_silent(moments, group) for moments in measured)
    sums: dict[bool, list[Replicates]] = {}
    out = []
    for m in prompts:
        for per_prompt in rollouts:
            check_design(m, per_prompt)
            reason = next((why for x in measured if (why := _refused(x, m, per_prompt))), None)
            if reason:
                out.append(Choice(m, per_prompt, _empty(), reason=reason))
                continue
            if (per_prompt > 1) not in sums:
                sums[per_prompt > 1] = [_replicates(moments, group, per_prompt) for moments in measured]
            data = sums[per_prompt > 1]
            tables = [_table(moments, one, r, m, per_prompt) for moments, one in zip(measured, data, strict=True)]
            out.append(_combined(tables, measured, r, m, per_prompt, silent))
    if all(choice.reason for choice in out):
        raise ValueError(f"none of these steps can be told: {out[0].reason}")
    needed = math.nan
    if any(map(_untold, out)) and all(len(x.prompts) == 1 or len(x.prompts) >= LEAST_PROMPTS for x in measured):
        needed = max(target_units(moments, group, reference) for moments in measured)
    return [replace(x, reference=reference, target_units=needed if _untold(x) else math.nan) for x in out]


def _untold(choice: Choice) -> bool:
    return not choice.reason and not leaders(choice, "efficiency")


def _refused(moments: GradientMoments, m: int, r: int) -> str | None:
    """Why a design cannot be told from these moments."""
    prompts = len(moments.prompts)
    if prompts == 1 and m > 1:
        return (
            "the probe has one prompt, which says nothing about how prompts differ; only steps of that prompt can be "
            "told (--prompts 1). Probe more prompts."
        )
    if prompts > 1 and r > 1 and moments.repeated_prompts < 2:
        return (
            "the probe has one rollout a prompt, which does not tell the variance within prompts from that between; "
            "only R = 1 can be told. Probe with 2 rollouts a prompt or more."
        )
    return None


def _replicates(moments: GradientMoments, group: str, rollouts: int) -> Replicates:
    need_pairs(moments, group, "choose-k")
    if len(moments.prompts) == 1:
        return replicates(moments, group, "trajectory")
    return design_replicates(moments, group, design_unit(moments, rollouts), rollouts)


def _table(moments: GradientMoments, data: Replicates, reference: int, m: int, r: int) -> pd.DataFrame:
    if len(moments.prompts) == 1:  # R rollouts of this very prompt: independent, and nothing is between
        return best_k_of(data, reference, r)
    table = best_k_of(data, reference, m, r)
    return without_intervals(table) if len(moments.prompts) < LEAST_PROMPTS else table


def _combined(
    tables: Sequence[pd.DataFrame], measured: Sequence[GradientMoments], reference: int, m: int, r: int, silent: bool
) -> Choice:
    """The choice of one design from every run's table of ``best_k``."""
    import pandas as pd

    if len(tables) == 1:
        attrs = tables[0].attrs
        needed = {name: attrs[f"units_{name}"] for name in CRITERIA}
        whole = measured[0]
        unit = "prompts" if 1 < len(whole.prompts) == attrs["units"] else "responses"
        return Choice(m, r, tables[0], attrs["units"], unit, needed, silent=silent)
    table = pd.DataFrame({"kernel": tables[0]["kernel"]})
    along = np.stack([t["efficiency"].to_numpy(dtype=float) for t in tables])
    compared = np.isfinite(along[:, reference]).all() & competing(measured[0].names)
    needed = {}
    for name in CRITERIA:
        values = np.stack([t[name].to_numpy(dtype=float) for t in tables])
        long = pd.concat(
            [
                t[["kernel"]].assign(
                    statistic=name, value=t[name], low=t[f"{name}_low"], high=t[f"{name}_high"], seed=seed
                )
                for seed, t in enumerate(tables)
            ]
        )
        means = across_seeds(long, by=("kernel", "statistic")).set_index("kernel").loc[table["kernel"]]
        for ending, column in (("", "value"), ("_low", "low"), ("_high", "high")):
            table[f"{name}{ending}"] = means[column].to_numpy()
        values = np.where(compared, values, np.nan)
        table[f"{name}_best"] = probability_over_seeds(values, smallest=name == "mse")
        left = (values.sum(axis=0) - values) / (len(values) - 1)
        needed[name] = units_to_resolve(np.concatenate([values.mean(axis=0)[None], left]), smallest=name == "mse")
    return Choice(m, r, table, len(tables), "seeds", needed, silent=silent)


def _silent(moments: GradientMoments, group: str) -> bool:
    spread = trace_of(replicates(moments, group))[0]
    return bool((abs(spread) <= 1e-12 * moments[group].sq_norm.mean(dim=1).numpy()).all())


def _empty() -> pd.DataFrame:
    import pandas as pd

    columns = ["kernel", *(f"{name}{ending}" for name in CRITERIA for ending in ("", "_low", "_high", "_best"))]
    return pd.DataFrame(columns=columns)


def leaders(choice: Choice, criterion: str) -> dict[str, float]:
    """Kernels that cannot be told apart as the best, the likeliest first: :func:`kvar.intervals.candidates`."""
    return candidates(dict(zip(choice.table["kernel"], choice.table[f"{criterion}_best"], strict=True)))
