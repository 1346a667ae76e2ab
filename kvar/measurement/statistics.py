"""The numbers of a measurement: statistics frame, table with a row per estimator, best K."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kvar.analysis.frames.measured import LEAST_PROMPTS, design_unit, measurement_frame, sampling_unit, whole_or_split
from kvar.analysis.frames.reference import default_reference, targets_among
from kvar.analysis.optimal.optimal_kernel import OptimalKernel, optimal_kernel
from kvar.analysis.plan import plan
from kvar.analysis.statistic_table import TABLE
from kvar.analysis.step.best_k import best_k, without_intervals
from kvar.analysis.step.design import prompts_of
from kvar.analysis.step.overtakes import overtakes
from kvar.analysis.targets import toward
from kvar.gradients import GradientMoments
from kvar.intervals import Interval
from kvar.results.probes import Probe
from kvar.returns import TokenValues

if TYPE_CHECKING:
    import pandas as pd

    from kvar.measurement.data import MeasurementData
    from kvar.report.advise import Advice

__all__ = [
    "advice_of", "best_of", "known_rollouts", "optimal_of", "overtakes_of", "plan_of", "statistics_of_measurement",
    "toward_of", "whole_moments", "wide_table",
]  # fmt: skip

SHOWN = (
    "trace", "trace_ratio", "relative_variance", "snr", "signal", "bias_sq", "efficiency", "mse", "within", "between",
    "within_share", "norm_test", "trace_ratio_t0", "best_probability", "mse_best_probability",
)  # fmt: skip
"""The statistics of the table, in order."""


def statistics_of_measurement(measurement: MeasurementData, batch: float, **options: Any) -> pd.DataFrame:
    """See :meth:`kvar.measurement.Measurement.statistics`."""
    if not batch > 0:
        raise ValueError(f"batch must be a positive number of trajectories; got {batch!r}.")
    moments = whole_moments(measurement)
    rollouts_per_prompt = options.pop("rollouts_per_prompt", 1)
    options["reference"] = _reference(options)
    unit = options.pop("unit", None)
    values = TokenValues(measurement.values.q.double().cpu(), measurement.values.v.double().cpu())
    frame = measurement_frame(
        moments,
        values,
        measurement.rollouts.mask.cpu(),
        step=measurement.step,
        unit=unit,
        batch=batch,
        prompts=prompts_of(batch, rollouts_per_prompt),
        rollouts_per_prompt=rollouts_per_prompt,
        **options,
    )
    frame.insert(0, "parameters", int(measurement.config.get("parameters", 0)))
    frame.insert(0, "student", measurement.student)
    frame.attrs |= {
        "unit": unit or sampling_unit(moments), "batch": batch, "rollouts_per_prompt": rollouts_per_prompt
    }  # fmt: skip
    return frame


def known_rollouts(moments: GradientMoments, rollouts_per_prompt: float) -> float:
    """R of a step, or 1 where fewer than two prompts were measured with several responses, or norms alone."""
    return rollouts_per_prompt if moments.repeated_prompts > 1 and moments["all"].pair is not None else 1


def wide_table(measurement: MeasurementData, batch: float, group: str, **options: Any) -> pd.DataFrame:
    """See :meth:`kvar.measurement.Measurement.table`."""
    import pandas as pd

    if group not in measurement.moments.groups:
        raise ValueError(f"no parameter group {group!r}; measured groups: {', '.join(measurement.moments)}.")
    frame = statistics_of_measurement(measurement, batch, **options)
    frame = frame[frame["group"] == group]
    of = {str(name): rows.reset_index(drop=True) for name, rows in frame.groupby("statistic")}
    trace = of["trace"]
    columns: dict[str, Any] = {"kernel": trace["kernel"], "k": trace["k"], "n": trace["n"]}
    for name in SHOWN:
        columns[name] = of[name]["value"]
        if TABLE[name].scale is not None:
            columns |= {f"{name}_low": of[name]["low"], f"{name}_high": of[name]["high"]}
    table = pd.DataFrame(columns)
    table.attrs |= {"unit": frame.attrs["unit"], "batch": batch, "reference": frame.attrs["reference"]}
    return table


def best_of(measurement: MeasurementData, prompts: float, rollouts_per_prompt: float, **options: Any) -> pd.DataFrame:
    """See :meth:`kvar.measurement.Measurement.best_k`."""
    moments = whole_moments(measurement)
    reference = default_reference(moments.names, _reference(options))
    unit = options.pop("unit", None)
    default = design_unit(moments, rollouts_per_prompt)
    table = best_k(moments, prompts, rollouts_per_prompt, reference=reference, unit=unit or default, **options)
    return without_intervals(table) if unit is None and len(moments.prompts) < LEAST_PROMPTS else table


def toward_of(
    measurement: MeasurementData, batch: float, targets: Mapping[str, str] | Sequence[str] | None, **options: Any
) -> pd.DataFrame:
    """See :meth:`kvar.measurement.Measurement.toward`."""
    moments = whole_moments(measurement)
    options["unit"] = options.get("unit") or design_unit(moments, options.get("rollouts_per_prompt", 1))
    return toward(moments, targets_among(moments.names) if targets is None else targets, batch, **options)


def plan_of(measurement: MeasurementData, target: str, batch: float, **options: Any) -> pd.DataFrame:
    """See :meth:`kvar.measurement.Measurement.plan`."""
    moments = whole_moments(measurement)
    options["unit"] = options.get("unit") or design_unit(moments, options.get("rollouts_per_prompt", 1))
    return plan(moments, target, batch, **options)


def optimal_of(measurement: MeasurementData, batch: float, target: str, **options: Any) -> OptimalKernel:
    """See :meth:`kvar.measurement.Measurement.optimal_kernel`."""
    moments = whole_moments(measurement)
    options["unit"] = options.get("unit") or design_unit(moments, options.get("rollouts_per_prompt", 1))
    return optimal_kernel(moments, batch, target, **options)


def overtakes_of(measurement: MeasurementData, estimator: str, other: str, target: str, **options: Any) -> Interval:
    """See :meth:`kvar.measurement.Measurement.overtakes`."""
    moments = whole_moments(measurement)
    options["unit"] = options.get("unit") or design_unit(moments, options.get("rollouts_per_prompt", 1))
    return overtakes(moments, estimator, other, target, **options)


def advice_of(measurement: MeasurementData, tokens: float | None, **options: Any) -> Advice:
    """See :meth:`kvar.measurement.Measurement.advise`."""
    from kvar.report.advise import advise_probes

    probe = Probe(
        f"{measurement.student} at step {measurement.step}",
        whole_moments(measurement),
        float(measurement.rollouts.lengths.double().mean()),
        measurement.step,
    )
    return advise_probes([probe], tokens, reference=_reference(options), **options)


def _reference(options: dict[str, Any]) -> str | None:
    """Remove and return the option ``reference``, also called ``target``."""
    given = [options.pop(name, None) for name in ("reference", "target")]
    if None not in given:
        raise ValueError(f"reference={given[0]!r} and target={given[1]!r} are the same option: give one of them.")
    return given[0] if given[1] is None else given[1]


def whole_moments(measurement: MeasurementData) -> GradientMoments:
    """The moments of estimators over whole responses; ValueError where there are none."""
    moments = whole_or_split(measurement.moments)
    if moments is None:
        raise ValueError("only parts of responses are measured; measure estimators over whole responses too.")
    return moments
