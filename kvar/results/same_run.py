"""Whether runs belong together: the same question asked of the same teacher in the same way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kvar.records import Run

__all__ = ["TASK_FIELDS", "differences", "need_seeds_of_one_run"]

TASK_FIELDS = ("task", "data", "teacher", "vocabulary", "max_new_tokens", "centre", "value")
"""Fields that must agree for numbers of different students to be compared."""

_RUN_FIELDS = (
    *TASK_FIELDS, "parameters", "objective", "kernel", "baseline", "learning_rate", "max_steps",
    "per_device_train_batch_size", "probe_kernels", "probe_baseline", "probe_score", "probe_prompts", "probe_rollouts",
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


def need_seeds_of_one_run(runs: Sequence[Run]) -> None:
    """Refuse runs that are not one and the same run under different seeds.

    Raises:
        ValueError: a field other than the seed differs, or two runs have the same seed; the message names it.
    """
    for field, values in differences(runs, _RUN_FIELDS).items():
        shown = ", ".join(map(str, values))
        raise ValueError(f"these runs differ in {field} ({shown}): only seeds of one run can be combined.")
    seeds = [run.config.get("seed") for run in runs]
    twice = next((seed for seed in seeds if seeds.count(seed) > 1), "none")
    if twice != "none":
        folders = ", ".join(str(run.path) for run, seed in zip(runs, seeds, strict=True) if seed == twice)
        raise ValueError(f"seed {twice} occurs twice ({folders}): runs are combined as independent seeds only.")
