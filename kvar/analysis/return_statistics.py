"""Statistics of returns under any kernel and baseline, from recorded (q, V) alone; no gradient, no model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from kvar.analysis.frames.trajectory_batches import trajectory_batches
from kvar.intervals.jackknife import Array
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
        other.

    Raises:
        ValueError: another baseline, or no trajectories at these steps.
    """
    import pandas as pd

    if baseline not in (None, "teacher-value"):
        raise ValueError(f"baseline must be None or 'teacher-value' for recorded returns; got {baseline!r}.")
    rows: list[tuple[object, ...]] = []
    for probe, step in _measurements(run, steps):
        sums = _Sums()
        for batch in trajectory_batches(run, probe, step):
            mask = batch.mask
            g = returns(batch.values, mask, kernels, baseline=baseline).numpy()  # zero where masked
            length = mask.sum(dim=1).numpy().astype(float)
            tokens, squares = g.sum(axis=2).T, (g**2).sum(axis=2).T  # (N, E)
            gap = batch.values.gap.sum(dim=1).numpy()
            sums.add(
                np.column_stack([g[:, :, 0].T, tokens, squares, gap, length, batch.finished.astype(float)]),
                batch.prompt,
            )
        e = len(kernels)
        mean_length = sums.mean[3 * e + 1]
        level, second = sums.mean[e : 2 * e] / mean_length, sums.mean[2 * e : 3 * e] / mean_length
        for i, kernel in enumerate(kernels):
            first, token, square, size = (np.zeros(3 * e + 3) for _ in range(4))
            first[i], token[e + i], square[2 * e + i], size[3 * e + 1] = 1.0, 1.0, 1.0, 1.0
            slope = (token - level[i] * size) / mean_length
            spread = (square - second[i] * size) / mean_length - 2 * level[i] * slope
            for name, value, gradient in (
                ("return", sums.mean[i], first),
                ("token_return", level[i], slope),
                ("token_variance", second[i] - level[i] ** 2, spread),
            ):
                rows.append((probe, step, kernel.name, name, *sums.interval(value, gradient, confidence)))
        for j, name in enumerate(("total_gap", "length", "finished")):
            one = np.zeros(3 * e + 3)
            one[3 * e + j] = 1.0
            rows.append((probe, step, "", name, *sums.interval(sums.mean[3 * e + j], one, confidence)))
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
        sums = _Sums()
        for batch in trajectory_batches(run, probe, step):
            gap, mask = batch.values.gap.numpy(), batch.mask.numpy()
            centred = np.where(mask, gap - total / count, 0.0)
            t = gap.shape[1]
            columns = np.zeros((len(gap), 2 * (lags + 1)))
            for lag in range(min(lags, t - 1) + 1):
                columns[:, lag] = (centred[:, : t - lag] * centred[:, lag:]).sum(axis=1)
                columns[:, lags + 1 + lag] = mask[:, lag:].sum(axis=1)
            sums.add(columns, batch.prompt)
        pairs = sums.mean[lags + 1 :]
        variance = sums.mean[0] / pairs[0]
        for lag in range(lags + 1):
            if pairs[lag] == 0 or variance == 0:
                continue
            covariance = sums.mean[lag] / pairs[lag]
            rho = covariance / variance
            gradient = np.zeros(2 * (lags + 1))
            gradient[lag] += 1 / (pairs[lag] * variance)
            gradient[lags + 1 + lag] -= covariance / (pairs[lag] * variance)
            gradient[0] -= rho / (pairs[0] * variance)
            gradient[lags + 1] += rho / pairs[0]
            rows.append((probe, step, lag, *sums.interval(rho, gradient, confidence)))
    return pd.DataFrame(rows, columns=["probe", "step", "lag", "value", "low", "high", "n"])


def _measurements(run: Run, steps: Iterable[int] | None) -> list[tuple[str, int]]:
    wanted = None if steps is None else set(steps)
    found = [pair for pair in run.measurements("trajectories") if wanted is None or pair[1] in wanted]
    if not found:
        at = "" if wanted is None else f" at steps {sorted(wanted)}"
        raise ValueError(f"{run.path} holds no trajectories{at}; train it with probe_every above 0.")
    return found


class _Sums:
    """Means of per-trajectory columns, and the sums of each prompt's trajectories about them."""

    def __init__(self) -> None:
        self._parts: list[tuple[np.ndarray, Array]] = []

    def add(self, columns: Array, prompt: np.ndarray) -> None:
        """Add the (N, C) columns of N trajectories, summed by prompt."""
        prompts, member = np.unique(prompt, return_inverse=True)
        sums = np.zeros((len(prompts), columns.shape[1] + 1))
        np.add.at(sums, member.reshape(-1), np.column_stack([columns, np.ones(len(columns))]))
        self._parts.append((prompts, sums))

    @cached_property
    def _by_prompt(self) -> Array:
        """(U, C + 1) sums of each prompt, the number of its trajectories last."""
        prompts, member = np.unique(np.concatenate([prompt for prompt, _ in self._parts]), return_inverse=True)
        out = np.zeros((len(prompts), self._parts[0][1].shape[1]))
        np.add.at(out, member.reshape(-1), np.concatenate([sums for _, sums in self._parts]))
        return out

    @cached_property
    def mean(self) -> Array:
        """(C,) means over trajectories."""
        total = self._by_prompt.sum(axis=0)
        return np.asarray(total[:-1] / total[-1])

    @cached_property
    def _deviation(self) -> Array:
        """(U, C) each prompt's sum less what its trajectories would have at the mean, over N."""
        sums, size = self._by_prompt[:, :-1], self._by_prompt[:, -1:]
        return np.asarray((sums - size * self.mean) / size.sum())

    def interval(self, value: float, gradient: Array, confidence: float) -> tuple[float, float, float, int]:
        """Value, low, high, n of a function of the means with this gradient, by the delta method."""
        from scipy.special import stdtrit

        units = len(self._by_prompt)
        if units < 2:
            return float(value), float("nan"), float("nan"), units
        error = np.sqrt(units / (units - 1) * float(((self._deviation @ gradient) ** 2).sum()))
        half = float(stdtrit(units - 1, 0.5 + confidence / 2)) * error
        return float(value), float(value - half), float(value + half), units
