"""The statistics frame of recorded runs: every probe of every run, summarised."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch

from kvar.analysis.by_position import by_position
from kvar.analysis.frames.measured import LEAST_PROMPTS, measurement_frame, sampling_unit, whole_or_split
from kvar.analysis.frames.reference import default_reference
from kvar.gradients.frames import moments_from_frames, values_from_frame
from kvar.gradients.moments import GradientMoments
from kvar.records import Run, load

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["by_position_of", "default_reference", "moments_at", "probes_of", "statistics_of"]


def probes_of(run: Run) -> list[tuple[str, int]]:
    """(probe, step) of every measurement in a run, in the order of steps.

    Raises:
        ValueError: the run holds no probe.
    """
    pairs = run.measurements("gradients")
    if not pairs:
        raise ValueError(f"{run.path} holds no gradient probe; train it with probe_every above 0, or leave it out.")
    return sorted(pairs, key=lambda pair: (pair[1], pair[0]))


def statistics_of(
    run: Run,
    student: str,
    *,
    steps: Sequence[int] | None = None,
    reference: str | None = None,
    batch: float = 64,
    rollouts_per_prompt: int = 1,
    confidence: float = 0.95,
    theory: bool = False,
    processes: int = 1,
) -> pd.DataFrame:
    """One row per (step, group, kernel, statistic) of a run's probes.

    With several rollouts a prompt the sampling unit is the prompt; values are then debiased for it (see
    ``kvar.analysis.trace_covariance``). Estimators with a baseline take part, named as the probe named them; those
    split by position ("K=4 @ 0-7") are left to :func:`by_position_of`.

    Args:
        run: from ``kvar.load``; its config names the parameter count.
        student: the name to show for it.
        steps: which steps; None for all.
        reference: the estimator that stands for g*, or the objective whose gradient it is: "J", "J_kl", "score"; by
            default J, see :func:`kvar.analysis.frames.reference.default_reference`.
        batch: B of (11'), trajectories a training step.
        rollouts_per_prompt: R of that step.
        confidence: of the intervals.
        theory: also hold T0 and T1 against the measurement, which takes several times as long.
        processes: share many measurements out among this many processes, of one thread each.

    Returns:
        Columns student, parameters, step, group, kernel, k, statistic, value, low, high, n.

    Raises:
        ValueError: no probes, one of too few prompts, a reference that was not measured, or a config without
            ``parameters``.
    """
    import pandas as pd

    if "parameters" not in run.config:
        raise ValueError(f"{run.path}: its config names no parameters, the student's number of them; add the field.")
    at = [(probe, step) for probe, step in probes_of(run) if steps is None or step in steps]
    options: dict[str, Any] = {
        "prompts": batch / rollouts_per_prompt,
        "rollouts_per_prompt": rollouts_per_prompt,
        "batch": batch,
        "confidence": confidence,
        "theory": theory,
    }
    if processes > 1 and len(at) > 1:
        size = -(-len(at) // (4 * processes))
        parts = [at[start : start + size] for start in range(0, len(at), size)]
        work = partial(_loaded_statistics, run.path, reference, options)
        with _one_thread(), ProcessPoolExecutor(min(processes, len(parts)), mp_context=get_context("spawn")) as pool:
            frames = [frame for found in pool.map(work, parts) for frame in found]
    else:
        frames = _statistics(run, reference, options, at)
    if not frames:
        raise ValueError(f"{run.path} holds no probe at steps {list(steps or [])}.")
    out = pd.concat(frames, ignore_index=True)
    out.insert(0, "parameters", int(run.config["parameters"]))
    out.insert(0, "student", student)
    return out


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes that are started meanwhile multiply matrices with one thread each."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _loaded_statistics(
    path: Path, reference: str | None, options: dict[str, Any], at: Sequence[tuple[str, int]]
) -> list[pd.DataFrame]:
    """As :func:`_statistics`, in a process of its own."""
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    return _statistics(load(path), reference, options, at)


def _statistics(
    run: Run, reference: str | None, options: dict[str, Any], at: Sequence[tuple[str, int]]
) -> list[pd.DataFrame]:
    """A frame for every measurement; one at a time is held."""
    frames = []
    for probe, step in at:
        moments = moments_at(run, probe, step)
        if moments is None:
            continue
        columns = ["trajectory", "position", "q", "v"]
        values, mask = values_from_frame(run.read("trajectories", columns, {"probe": probe, "step": step}))
        if len(moments.prompts) < min(LEAST_PROMPTS, len(moments.prompt_index)):
            raise ValueError(
                f"{run.path}: the probe {probe!r} at step {step} has {len(moments.prompts)} prompts with several "
                f"responses each; intervals leave one prompt out and need {LEAST_PROMPTS}. Measure again with "
                f"probe_prompts {LEAST_PROMPTS} or more."
            )
        frames.append(measurement_frame(moments, values, mask, step=step, reference=reference, **options))
    return frames


def by_position_of(
    run: Run, student: str, *, steps: Sequence[int] | None = None, confidence: float = 0.95
) -> pd.DataFrame:
    """Where along the responses the variance arises, for probes whose estimators were split by position.

    Args:
        run: from ``kvar.load``.
        student: the name to show for it.
        steps: which steps; None for all.
        confidence: of the intervals.

    Returns:
        Columns student, step, and those of :func:`kvar.analysis.by_position`; without rows where no probe has such
        estimators.

    Raises:
        ValueError: no probes.
    """
    import pandas as pd

    frames = [pd.DataFrame()]
    for probe, step in probes_of(run):
        names = run.read("gradients", ["estimator"], where={"probe": probe, "step": step})["estimator"].unique()
        if (steps is not None and step not in steps) or not any(" @ " in str(name) for name in names):
            continue
        moments = moments_at(run, probe, step, split=True)
        assert moments is not None  # some name has a range
        table = by_position(moments, unit=sampling_unit(moments), confidence=confidence)
        table.insert(0, "step", step)
        frames.append(table)
    out = pd.concat(frames, ignore_index=True)
    out.insert(0, "student", student)
    return out


def moments_at(run: Run, probe: str, step: int, split: bool = False) -> GradientMoments | None:
    """The recorded moments of one measurement.

    Args:
        run: from ``kvar.load``.
        probe: its name.
        step: training step.
        split: those of the estimators that are split by position ("K=4 @ 0-7") instead of those that are not.

    Returns:
        The moments, or None where there are no such estimators.

    Raises:
        ValueError: no such measurement, or norms only.
    """
    gradients, prompts = (run.read(t, where={"probe": probe, "step": step}) for t in ("gradients", "prompt_gradients"))
    return whole_or_split(moments_from_frames(gradients, prompts), split)
