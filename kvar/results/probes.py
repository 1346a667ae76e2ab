"""One measurement as advice needs it: moments, lengths, and how the run that it belongs to trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kvar.analysis.frames.recorded import moments_at, probes_of
from kvar.analysis.frames.reference import parsed
from kvar.analysis.step.best_k import competing
from kvar.gradients.moments import GradientMoments
from kvar.records import Run
from kvar.results.choices import probe_at
from kvar.results.study_cells import trained_estimator
from kvar.results.training_batch import trajectories_a_step

__all__ = ["Probe", "estimator_in_use", "probe_of", "responses_of"]

MEASURE = "kvar.measure(..., prompts), then .advise()"
TRAINED = "trained"
"""What a batch's probe calls the trainer's own estimator (``kvar.hooks.BatchProbe``)."""


@dataclass(frozen=True, eq=False)
class Probe:
    """One measurement.

    Attributes:
        place: what it is, for a reader.
        moments: of whole responses.
        length: tokens of a response, on average.
        step: training step.
        steps: of the whole training; None where that is not known.
        current: name of the estimator that the run trains with; None where that is not known.
        batch: trajectories of a training step.
        again: how it is measured again on {count} prompts, for a reader.
    """

    place: str
    moments: GradientMoments
    length: float
    step: int = 0
    steps: int | None = None
    current: str | None = None
    batch: float = 64
    again: str = MEASURE

    def of_group(self, group: str) -> Probe:
        """The same with the moments of one group only.

        Raises:
            ValueError: no such group, or a number in its moments that is not finite.
        """
        part = self.moments[group]
        if part.pair is not None:
            bad = ~part.pair.isfinite().all(dim=2).diagonal()
            if bool(bad.any()):
                names = ", ".join(name for name, is_bad in zip(self.moments.names, bad, strict=True) if is_bad)
                raise ValueError(
                    f"{self.place}: the gradients of {names} in group {group!r} are not finite; measure again without "
                    "them, or in float32."
                )
        return replace(self, moments=replace(self.moments, groups={group: part}))


def probe_of(run: Run, step: int | str = "last") -> Probe:
    """A run's measurement at a step, or its last.

    Raises:
        ValueError: no probe there; only parts of responses; norms only; no responses beside the gradients.
    """
    name, at = probe_at(run, step)
    moments = moments_at(run, name, at)
    if moments is None:
        raise ValueError(f"{run.path}: the probe at step {at} measured only parts of responses; probe whole ones too.")
    rows = run.read("trajectories", ["length"], {"probe": name, "step": at, "position": 0})
    if not len(rows):
        raise ValueError(
            f"{run.path}: the probe at step {at} has no rows in trajectories, so that the responses' lengths are not "
            "known; probe again."
        )
    length = float(rows["length"].sum()) / int(responses_of(moments).sum())
    planned = int(run.config.get("max_steps") or 0)
    current = estimator_in_use(run.config, moments.names)
    batch = trajectories_a_step(run) if current else 64
    again = _again(run, at) if "task" in run.config else MEASURE
    return Probe(
        f"{run.path}: {name} at step {at}", moments, length, at, planned if planned > 0 else None, current, batch, again
    )


def _again(run: Run, step: int) -> str:
    """The command for the student as it was probed, where the run still holds it."""
    folder = run.path / f"checkpoint-{step}"
    if folder.is_dir():
        which = f" --checkpoints {step}"
    elif (run.path / "model").is_dir() and step == max(at for _, at in probes_of(run)):
        which = ""
    else:
        return "probe again with --probe_prompts {count}, then kvar advise"
    return f"kvar probe {run.path}{which} --probe_prompts {{count}} --probe_seed 1 --output DIR, then kvar advise DIR"


def responses_of(moments: GradientMoments) -> np.ndarray:
    """(M,) sampled responses of each prompt; references do not count."""
    index = moments.prompt_index.numpy()
    if moments.on is not None:
        index = index[moments.on[competing(moments.names)].any(dim=0).numpy()]
    return np.unique(index, return_counts=True)[1]


def estimator_in_use(config: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """The estimator that a run trains with, as a probe names it; None for a measurement or another objective."""
    if TRAINED in names:
        return TRAINED
    name = trained_estimator(config) if "objective" in config else None
    estimator = None if name is None else parsed(name)
    return name if estimator is None else estimator.name
