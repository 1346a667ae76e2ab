"""Statistics of returns under any kernel and baseline, from recorded (q, V) alone; no gradient, no model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kvar.analysis.frames.trajectory_batches import trajectory_batches
from kvar.intervals.jackknife import Array, Estimate, jackknife
from kvar.records import Run
from kvar.returns import Kernel, returns

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["gap_autocorrelation", "return_statistics"]


def return_statistics(
    run: Run,
    kernels: Sequence[Kernel],
    baseline: str | None = None,
    steps: Iterable[int] | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Mean and variance of returns for kernels that need not have been foreseen when the run was recorded.

    Read a million tokens at a time, so that runs of any length fit in memory.

    Args:
        run: from ``kvar.load``.
        kernels: E kernels.
        baseline: None or "teacher-value": baselines of a whole batch would depend on how the rows are read.
        steps: training steps; None for all.
        confidence: of the intervals.

    Returns:
        Columns probe, step, kernel, statistic, value, low, high, n (prompts). Statistics: "return", E G_1 (the
        teacher-scored return of a response); "token_return", E G_t over tokens; "token_variance", Var G_t over tokens;
        and, once a step under kernel "", "total_gap" and "length" of a trajectory and "finished", the share that ended
        by itself. Prompts are the units of all intervals: rollouts of one, and tokens of one response, depend on each
        other; intervals are by delete-one jackknife.

    Raises:
        ValueError: another baseline, or no trajectories at these steps.
    """
    import pandas as pd

    if baseline not in (None, "teacher-value"):
        raise ValueError(f"baseline must be None or 'teacher-value' for recorded returns; got {baseline!r}.")
    rows: list[tuple[object, ...]] = []
    for probe, step in _measurements(run, steps):
        sums = []
        for batch in trajectory_batches(run, probe, step):
            g = returns(batch.values, batch.mask, kernels, baseline=baseline).numpy()  # zero where masked
            lengths = batch.mask.sum(dim=1).numpy()
            columns = [*g[:, :, 0], *g.sum(axis=2), *(g**2).sum(axis=2)]
            columns += [batch.values.gap.sum(dim=1).numpy(), lengths, batch.finished, np.ones(len(lengths))]
            sums.append(pd.DataFrame(np.column_stack(columns)).groupby(batch.prompt).sum())
        first, token, square, about = np.split(_left_out(sums), np.arange(1, 4) * len(kernels), axis=1)
        with np.errstate(all="ignore"):
            of_trajectories, tokens = about[:, :3] / about[:, 3:], about[:, 1:2]
            by_kernel = {
                "return": first / about[:, 3:],
                "token_return": token / tokens,
                "token_variance": square / tokens - (token / tokens) ** 2,
            }
        estimates = {name: jackknife(values, len(first) - 1, confidence) for name, values in by_kernel.items()}
        for e, kernel in enumerate(kernels):
            rows += [(probe, step, kernel.name, name, *_row(estimate, e)) for name, estimate in estimates.items()]
        estimate = jackknife(of_trajectories, len(first) - 1, confidence)
        names = ("total_gap", "length", "finished")
        rows += [(probe, step, "", name, *_row(estimate, i)) for i, name in enumerate(names)]
    return pd.DataFrame(rows, columns=["probe", "step", "kernel", "statistic", "value", "low", "high", "n"])


def gap_autocorrelation(
    run: Run, lags: int = 16, steps: Iterable[int] | None = None, confidence: float = 0.95
) -> pd.DataFrame:
    """Autocorrelation of gaps along a response by lag: what T0 takes for zero and T1 for measured.

    Gaps are centred at their mean over all tokens; lag j pairs every token with that j later in the same response.

    Args:
        run: from ``kvar.load``.
        lags: longest lag.
        steps: training steps; None for all.
        confidence: of the intervals; prompts are the units, and the mean gap counts as known.

    Returns:
        Columns probe, step, lag, value, low, high, n (prompts); lag 0 is 1 exactly. Lags that no response is long
        enough for are left out.

    Raises:
        ValueError: lags below 1, or no trajectories at these steps.
    """
    import pandas as pd

    if lags < 1:
        raise ValueError(f"lags must be at least 1; got {lags}.")
    rows: list[tuple[object, ...]] = []
    for probe, step in _measurements(run, steps):
        total, count = 0.0, 0
        for batch in trajectory_batches(run, probe, step):
            total += float(batch.values.gap.sum())
            count += int(batch.mask.sum())
        sums = []
        for batch in trajectory_batches(run, probe, step):
            gap, mask = batch.values.gap.numpy(), batch.mask.numpy()
            centred = np.where(mask, gap - total / count, 0.0)
            t = gap.shape[1]
            columns = np.zeros((len(gap), 2, lags + 1))
            for lag in range(min(lags, t - 1) + 1):
                columns[:, 0, lag] = (centred[:, : t - lag] * centred[:, lag:]).sum(axis=1)
                columns[:, 1, lag] = mask[:, lag:].sum(axis=1)
            sums.append(pd.DataFrame(columns.reshape(len(gap), -1)).groupby(batch.prompt).sum())
        products, pairs = np.split(_left_out(sums), 2, axis=1)
        with np.errstate(all="ignore"):
            covariance = products / pairs
            estimate = jackknife(covariance / covariance[:, :1], len(pairs) - 1, confidence)
        known = np.flatnonzero(np.isfinite(estimate.value))
        rows += [(probe, step, lag, *_row(estimate, lag)) for lag in known.tolist()]
    return pd.DataFrame(rows, columns=["probe", "step", "lag", "value", "low", "high", "n"])


def _measurements(run: Run, steps: Iterable[int] | None) -> list[tuple[str, int]]:
    wanted = None if steps is None else set(steps)
    pairs = [pair for pair in run.measurements("trajectories") if wanted is None or pair[1] in wanted]
    if not pairs:
        at = "" if wanted is None else f" at steps {sorted(wanted)}"
        raise ValueError(f"{run.path} holds no trajectories{at}; train it with probe_every above 0.")
    return pairs


def _left_out(sums: Sequence[pd.DataFrame]) -> Array:
    """(1 + U, C) sums over all prompts, then with each prompt left out, from each batch's sums by prompt."""
    import pandas as pd

    by_prompt = pd.concat(sums).groupby(level=0).sum().to_numpy(dtype=float)
    whole = by_prompt.sum(axis=0)
    return np.concatenate([whole[None], whole - by_prompt])


def _row(estimate: Estimate, e: int) -> tuple[float, float, float, int]:
    return float(estimate.value[e]), float(estimate.low[e]), float(estimate.high[e]), estimate.n
