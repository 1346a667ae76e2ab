"""Whether runs belong together: the same question asked of the same teacher in the same way."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kvar.gradients.moments import GradientMoments
from kvar.records import Run

__all__ = ["TASK_FIELDS", "differences", "need_different_probes", "need_seeds_of_one_run"]

TASK_FIELDS = ("task", "data", "teacher", "vocabulary", "max_new_tokens", "centre", "value")
"""Fields that must agree for numbers of different students to be compared."""

_RUN_FIELDS = (
    *TASK_FIELDS, "parameters", "objective", "estimator", "kernel", "baseline", "learning_rate", "max_steps",
    "per_device_train_batch_size", "rollouts_per_prompt", "probe_kernels", "probe_baseline", "probe_score",
    "probe_prompts", "probe_rollouts",
)  # fmt: skip


def differences(runs: Sequence[Run], fields: Iterable[str] = TASK_FIELDS) -> dict[str, list[Any]]:
    """Field -> its distinct values, for the fields in which runs' configs differ; None stands for the default."""
    differing = {}
    for field in fields:
        values: list[Any] = []
        for run in runs:
            if run.config.get(field) not in values:
                values.append(run.config.get(field))
        if len(values) > 1:
            differing[field] = values
    return differing


def need_different_probes(measured: Mapping[str, GradientMoments]) -> None:
    """Refuse probes that are one and the same measurement: equal numbers under two names are no two draws.

    So it is before the first step of runs of one student: they share the prompts and the probe's seed.

    Args:
        measured: what a probe is called -> its moments.

    Raises:
        ValueError: two of them are equal.
    """
    for (one, x), (other, y) in itertools.combinations(measured.items(), 2):
        same = x.names == y.names and x.prompt_index.equal(y.prompt_index)
        if same and all(x[group].sq_norm.equal(y[group].sq_norm) for group in x if group in y.groups):
            raise ValueError(
                f"{one} and {other} are one and the same measurement (of one student, with one probe_seed): name "
                "one of the two, or a later step."
            )


def need_seeds_of_one_run(runs: Sequence[Run]) -> None:
    """Refuse runs that are not one and the same run under different seeds.

    Raises:
        ValueError: a field other than the seed differs, or two runs have the same seed; the message names it.
    """
    of_measurements = () if any("task" in run.config for run in runs) else ("student",)
    for field, values in differences(runs, (*_RUN_FIELDS, *of_measurements)).items():
        shown = ", ".join(map(str, values))
        raise ValueError(f"these runs differ in {field} ({shown}): only seeds of one run can be combined.")
    seeds = [run.config.get("seed") for run in runs]
    twice = next((seed for seed in seeds if seeds.count(seed) > 1), "none")
    if twice != "none":
        folders = ", ".join(str(run.path) for run, seed in zip(runs, seeds, strict=True) if seed == twice)
        raise ValueError(f"seed {twice} occurs twice ({folders}): runs are combined as independent seeds only.")
