"""Where a step of each estimator leads, along a recorded training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kvar.analysis.frames.measured import design_unit
from kvar.analysis.frames.recorded import moments_at, probes_of
from kvar.analysis.frames.reference import targets_among
from kvar.analysis.targets import toward
from kvar.records import Run

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["toward_over_training"]


def toward_over_training(
    run: Run,
    batch: float = 64,
    targets: Mapping[str, str] | Sequence[str] | None = None,
    *,
    steps: Sequence[int] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """The table of :func:`kvar.analysis.toward` at every probe of a run, with a column ``step`` in front.

    Args:
        run: from ``kvar.load``.
        batch: B, trajectories a step.
        targets: as of :func:`kvar.analysis.toward`; by default ``data`` where references were probed
            (``probe_references``), and every objective that some estimator is unbiased for.
        steps: which steps; None for all.
        options: of :func:`kvar.analysis.toward`.

    Raises:
        ValueError: no probes, or as :func:`kvar.analysis.toward`.
    """
    import pandas as pd

    frames = [pd.DataFrame()]
    for probe, step in probes_of(run):
        if steps is not None and step not in steps:
            continue
        moments = moments_at(run, probe, step)
        wanted = targets if targets or moments is None else targets_among(moments.names)
        if moments is None or not wanted:
            continue
        unit = options.get("unit") or design_unit(moments, options.get("rollouts_per_prompt", 1))
        table = toward(moments, wanted, batch, **{**options, "unit": unit})
        table.insert(0, "step", step)
        table.attrs.clear()
        frames.append(table)
    return pd.concat(frames, ignore_index=True)
