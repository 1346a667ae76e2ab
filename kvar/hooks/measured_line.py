"""What a terminal says of a measurement: its line, and why there is no efficiency."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from kvar.analysis.frames.measured import LEAST_PROMPTS
from kvar.analysis.frames.reference import objective_of
from kvar.estimators import TRAINED
from kvar.intervals import Interval, candidates
from kvar.measurement import Measurement

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["measured_line", "no_efficiency"]


def measured_line(
    measurement: Measurement, frame: pd.DataFrame | None, trained: Collection[str], batch: float, name: str = "probe"
) -> str:
    """One line: step, best estimator with its efficiency, relative variance as trained, seconds.

    Args:
        measurement: a probe's.
        frame: of :func:`kvar.hooks.scalars.step_statistics`; None where there are no statistics.
        trained: names of the estimators that are trained with; those that were not measured are left out.
        batch: B, trajectories of the step that the efficiency is for.
        name: the probe's.
    """
    parts = ["no statistics"]
    if frame is not None:
        columns = [frame[name].tolist() for name in ("statistic", "kernel", "value", "low", "high")]
        of = {(row[0], row[1]): Interval(*row[2:]) for row in zip(*columns, strict=True)}
        parts = [_best(of, measurement, batch)]
        for one in filter(trained.__contains__, measurement.names):
            told = of["signal", one].above(0.0)  # else the quotient has no upper end
            variance = of["relative_variance", one] if told else "not resolved"
            parts.append(f"relative variance{'' if one == TRAINED else f' of {one}'} as trained {variance}")
    return ", ".join([f"step {measurement.step:,}, {name}: {parts[0]}", *parts[1:], f"{measurement.seconds:.1f} s"])


def _best(of: dict[tuple[str, str], Interval], measurement: Measurement, batch: float) -> str:
    chances = {name: of["best_probability", name].value for name in measurement.names}
    left = candidates(chances)
    if not left:
        return f"best of {len(chances)} estimators not resolved by {len(measurement.rollouts)} responses"
    first = next(iter(left))
    many = f"best not resolved, likeliest {first}" if len(left) > 1 else f"best {first}"
    efficiency = of["efficiency", first]
    unknown = (efficiency.low, efficiency.high) == (-1.0, 1.0)
    return f"{many} ({left[first]:.2f}), efficiency of a step of {batch:g} {'not resolved' if unknown else efficiency}"


def no_efficiency(measurement: Measurement, frame: pd.DataFrame, *, best: bool = False) -> str | None:
    """Why no estimator has an efficiency, and the remedy; None where one has.

    Args:
        measurement: a probe's.
        frame: its statistics, with the target's estimator in ``attrs``.
        best: also tell why there are efficiencies, and none has a probability to be the largest.
    """
    of_efficiency = frame.loc[frame["statistic"] == "efficiency", "value"].notna().any()
    if of_efficiency and (not best or frame.loc[frame["statistic"] == "best_probability", "value"].notna().any()):
        return None
    if measurement.moments["all"].pair is None:
        return "no efficiency, bias or best estimator with fields='norms': measure with fields='all'."
    prompts = len(measurement.moments.prompts)
    if of_efficiency and prompts < LEAST_PROMPTS:
        return f"no intervals and no best estimator by {prompts} prompts: measure {LEAST_PROMPTS} or more."
    reference = str(frame.attrs["reference"])
    said = f"no {'best estimator' if of_efficiency else 'efficiency'}, since the mean of {reference}"
    if (objective := objective_of(reference)) is not None:
        said += f", which is the gradient of {objective},"
    said += f" is not told from zero by {len(measurement.rollouts)} responses"
    if TRAINED in measurement.names:
        return f"{said}: kvar.watch(trainer, prompts, name='held-out') measures fresh responses to more prompts."
    return f"{said}: measure more prompts."
