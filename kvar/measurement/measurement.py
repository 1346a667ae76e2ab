"""The result of a measurement, :class:`Measurement`: statistics, tables, figures and folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.measurement.data import MeasurementData

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from kvar.analysis import OptimalKernel
    from kvar.intervals import Interval
    from kvar.report.advise import Advice

__all__ = ["Measurement"]


class Measurement(MeasurementData):
    """A measurement with its statistics, tables, figures and folder.

    Printing it, also as the last line of a notebook's cell, shows the table for a step of 64 trajectories, one to a
    prompt; that of a probe, for a step of the trainer's. Its
    attributes are ``step``, ``rollouts``, ``values``, ``moments``, ``seconds`` and ``config``, see
    :class:`MeasurementData`.
    """

    def statistics(self, batch: float = 64, **options: Any) -> pd.DataFrame:
        """Every statistic of every group and estimator, one per row, as a frame for ``kvar.plots``.

        Args:
            batch: B, trajectories per step.
            options: ``target``, or ``reference``: the target of bias, error and efficiency, an objective ("J", "J_kl",
                "score") that some estimator is unbiased for, or an estimator's name; default J. And
                ``rollouts_per_prompt`` of that step (1), ``unit``, ``confidence`` (0.95) and ``theory`` (False), see
                :func:`kvar.analysis.summarise`. ``unit`` is "prompt" by default where prompts have several rollouts,
                here and in the methods below; with fewer than three prompts intervals and probabilities are NaN.

        Returns:
            Columns student, parameters, step, group, kernel, k, statistic, value, low, high, n: the numbers of
            ``kvar report`` for the saved measurement.

        Raises:
            ValueError: fewer than two trajectories, or an impossible option.
        """
        from kvar.measurement.statistics import statistics_of_measurement

        return statistics_of_measurement(self, batch, **options)

    def table(self, batch: float = 64, group: str = "all", **options: Any) -> pd.DataFrame:
        """One row per estimator: the statistics of a step of ``batch`` trajectories, with 95 % intervals.

        Args:
            batch: B, trajectories per step, of efficiency, mse, snr, norm_test and the probabilities.
            group: parameter group.
            options: as for :meth:`statistics`.

        Returns:
            Columns kernel, k, n (number of prompts or trajectories behind the intervals), and each statistic's value,
            with columns ``_low`` and ``_high`` where it has an interval: trace, trace_ratio (to K=1),
            relative_variance, snr, signal, bias_sq, efficiency, mse, within, between, within_share, norm_test,
            trace_ratio_t0, best_probability, mse_best_probability (``kvar.plots.STATISTICS`` explains each). NaN means
            not measured. An estimator with efficiency below zero points away from the target. ``attrs["reference"]``
            is the name of the target's estimator.

        Raises:
            ValueError: as :meth:`statistics`, and no such group.
        """
        from kvar.measurement.statistics import wide_table

        return wide_table(self, batch, group, **options)

    def best_k(self, prompts: float, rollouts_per_prompt: float = 1, **options: Any) -> pd.DataFrame:
        """The best estimator for a step of M prompts x R rollouts, with its probability, as ``kvar choose-k``.

        Args:
            prompts: M.
            rollouts_per_prompt: R.
            options: ``target`` or ``reference`` as for :meth:`statistics`; ``group``, ``unit``, ``confidence`` and
                ``seed`` of :func:`kvar.analysis.best_k`.

        Returns:
            The table of :func:`kvar.analysis.best_k`: error and efficiency of each, and the probabilities that its
            error is the smallest and its efficiency the largest.

        Raises:
            ValueError: as :func:`kvar.analysis.best_k`.
        """
        from kvar.measurement.statistics import best_of

        return best_of(self, prompts, rollouts_per_prompt, **options)

    def toward(
        self, batch: float = 64, targets: Mapping[str, str] | Sequence[str] | None = None, **options: Any
    ) -> pd.DataFrame:
        """Whether a step of each estimator leads toward the data, J, J_kl and the score, or away from them.

        See :func:`kvar.analysis.toward` for the columns.

        Args:
            batch: B, trajectories per step.
            targets: estimators by name, or objectives; by default ``data`` where references were given, and every
                objective that some estimator is unbiased for.
            options: ``rollouts_per_prompt``, ``group``, ``unit`` and ``confidence``.

        Raises:
            ValueError: a target that is not measured, or no target.
        """
        from kvar.measurement.statistics import toward_of

        return toward_of(self, batch, targets, **options)

    def plan(self, target: str = "data", batch: float = 64, **options: Any) -> pd.DataFrame:
        """How many prompts a fresh measurement takes to tell whether a step of each estimator leads toward a target.

        See :func:`kvar.analysis.plan` for the columns; ``kvar.measure(resolve=target)`` plans and measures at once.

        Args:
            target: an estimator's name, or an objective ("J", "J_kl", "score").
            batch: B, trajectories per step.
            options: ``power`` (0.8), ``rollouts_per_prompt``, ``group``, ``unit`` and ``confidence``.

        Raises:
            ValueError: a target that is not measured, or a power outside (0, 1).
        """
        from kvar.measurement.statistics import plan_of

        return plan_of(self, target, batch, **options)

    def optimal_kernel(self, batch: float = 64, target: str = "J", **options: Any) -> OptimalKernel:
        """The return kernel whose steps lead best toward a target, fitted to this measurement, and what it gains.

        Measure ``kernels=kvar.estimators.lag_estimators()``, of whose lags it weighs each group; train with ``.name``.

        Args:
            batch: B, trajectories per step.
            target: an objective or an estimator's name, "data" for instance.
            options: ``rollouts_per_prompt``, ``among``, ``group``, ``unit`` and ``confidence`` of
                :func:`kvar.analysis.optimal_kernel`.

        Raises:
            ValueError: as :func:`kvar.analysis.optimal_kernel`.
        """
        from kvar.measurement.statistics import optimal_of

        return optimal_of(self, batch, target, **options)

    def overtakes(self, estimator: str, other: str, target: str = "J", **options: Any) -> Interval:
        """The number of trajectories beyond which a step, or the mean of a run's, of one estimator points better.

        Noise averages out over trajectories and steps, bias stays: see :func:`kvar.analysis.overtakes` for the number
        and its interval.

        Args:
            estimator: name of the one that overtakes, the less biased as a rule.
            other: name of the one that is overtaken.
            target: an objective or an estimator's name, "data" for instance.
            options: ``rollouts_per_prompt``, ``group``, ``unit`` and ``confidence``.

        Raises:
            ValueError: as :func:`kvar.analysis.overtakes`.
        """
        from kvar.measurement.statistics import overtakes_of

        return overtakes_of(self, estimator, other, target, **options)

    def advise(self, tokens: float | None = None, **options: Any) -> Advice:
        """One page of plain words: the estimator, prompts x responses and size of a step for a budget of tokens.

        Args:
            tokens: sampled tokens of one optimiser step; default those of 64 responses.
            options: ``prompt_cost``, tokens that a prompt costs beside its responses (0); ``steps``, for the mean of
                how many such steps the estimator is chosen (1); ``target`` or ``reference`` as for :meth:`statistics`;
                ``group``.

        Returns:
            The numbers, which print as the page of ``kvar advise``.

        Raises:
            ValueError: as :func:`kvar.report.advise.advise`.
        """
        from kvar.measurement.statistics import advice_of

        return advice_of(self, tokens, **options)

    def plot(self, kind: str = "efficiency", batch: float = 64, **options: Any) -> Axes:
        """One of the figures of ``kvar.plots``.

        Args:
            kind: "efficiency", "variance", "mse", "snr", "bias", "shares" (within and between prompts), "theory" or
                "layers" (with groups="layers"); or the name of the function.
            batch: B, trajectories per step.
            options: passed to the function, for instance ``ax`` or ``group``.

        Returns:
            The axes; notebooks show their ``.figure``, ``kvar.plots.save`` writes it.

        Raises:
            ValueError: no such kind, or a statistic that was not measured or is not resolved.
        """
        from kvar.measurement.pictures import draw

        return draw(self, kind, batch, **options)

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write the measurement as a run's folder, for ``kvar.load`` and ``kvar report``; returns the folder.

        Args:
            folder: created if missing.
            overwrite: discard another run or measurement in the folder.

        Raises:
            kvar.records.RecordsError: the folder holds another run's records.
        """
        from kvar.measurement.folder import save_measurement

        return save_measurement(self, folder, overwrite)

    @property
    def trajectories(self) -> pd.DataFrame:
        """One row per response token: the table ``trajectories`` of ``kvar.records``."""
        return self._frame("trajectories")

    @property
    def gradients(self) -> pd.DataFrame:
        """One row per group, pair of estimators and trajectory: the table ``gradients`` of ``kvar.records``."""
        return self._frame("gradients")

    @property
    def prompt_gradients(self) -> pd.DataFrame:
        """One row per group, pair of estimators and prompt: the table ``prompt_gradients`` of ``kvar.records``."""
        return self._frame("prompt_gradients")

    @property
    def metrics(self) -> pd.DataFrame:
        """One row per scalar (seconds, gap, length, share finished): the table ``metrics`` of ``kvar.records``."""
        return self._frame("metrics")

    def _frame(self, table: str) -> pd.DataFrame:
        from kvar.measurement.records import record_frames

        return record_frames(self)[table]

    def __str__(self) -> str:
        from kvar.measurement.show import as_text

        return as_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from kvar.measurement.show import as_html

        return as_html(self)
