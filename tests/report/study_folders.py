"""Small studies with seeds, as ``kvar study`` leaves them, with numbers that a test can choose."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import pandas as pd

from kvar.records import RunWriter, load
from tests.report.small_runs import write_run

METHODS: dict[str, dict[str, object]] = {
    "start": {"objective": "kl"},
    "kl": {"objective": "kl"},
    "llmr": {"objective": "llmr"},
    "llmr-mean": {"objective": "llmr", "baseline": "batch-mean"},
    "K=2": {"objective": "ketchup", "kernel": "K=2"},
    "K=4": {"objective": "ketchup", "kernel": "K=4"},
    "immediate": {"objective": "ketchup", "kernel": "immediate"},
}
KERNELS = ("K=1", "K=2", "K=4", "immediate", "K=1 - leave-one-out")
SAMPLES = [{"prompt": f"p{i}", "target": f"t{i}", "text": "<script>alert(1)</script>"} for i in range(3)]


def write_study(
    folder: Path,
    score: Callable[[str, str, str, int], float],
    *,
    gap: Callable[[str, str, str, int], float] = lambda task, student, method, seed: 10.0,
    tasks: Sequence[str] = ("sums",),
    students: dict[str, int] = {"small": 1_000, "large": 5_000},  # noqa: B006 (read only)
    methods: Sequence[str] = tuple(METHODS),
    seeds: Sequence[int] = (0, 1, 2),
    metric: str = "bleu",
    missing: Sequence[str] = (),
    probes: bool = True,
    prompts: int = 12,
) -> Path:
    """A study folder; its finished cells have records, probes where the method samples, and an evaluation.

    Args:
        folder: of the study.
        score: (task, student, method, seed) -> the metric.
        gap: likewise, the total gap of the last probe and of the logs.
        tasks: their names.
        students: name -> parameters.
        methods: of :data:`METHODS`.
        seeds: of every cell.
        metric: the score's name.
        missing: cells that are not finished.
        probes: whether any run has probes.
        prompts: of each probe.
    """
    cells = {}
    for task, student, method, seed in product(tasks, students, methods, seeds):
        name = f"{task}/{student}/{method}/seed-{seed}"
        start = None if method == "start" else f"{task}/{student}/start/seed-{seed}"
        cells[name] = {**METHODS[method], "seed": seed, "from": start}
        if name not in missing:
            key = (task, student, method, seed)
            sampled = METHODS[method]["objective"] in ("llmr", "ketchup")
            wanted = prompts if probes and (sampled or method == "start") else 0
            _write_cell(
                folder / name, cells[name], students[student], {metric: score(*key)}, gap(*key), sampled, wanted
            )
    (folder / "study.json").write_text(json.dumps({"cells": cells}))
    return folder


def _write_cell(
    path: Path, fields: dict, parameters: int, metrics: dict[str, float], gap: float, sampled: bool, prompts: int
) -> None:
    config = {name: value for name, value in fields.items() if name not in ("from", "seed")}
    config |= {"parameters": parameters, "per_device_train_batch_size": 16, "teacher": "table"}
    step = 30
    if prompts:
        write_run(path, prompts=prompts, kernels=KERNELS, steps=(step,), seed=int(fields["seed"]), **config)
    else:
        RunWriter(path, {**config, "seed": fields["seed"]}).close()
    logged = {"loss": 1.0} | ({"total_gap": gap, "response_length": 7.0} if sampled else {})
    rows = [
        {"step": at, "split": "train", "name": name, "value": value * (1 + 1 / at)}
        for at in (10, 20, 30)
        for name, value in logged.items()
    ]
    if prompts:
        rows += [
            {"step": step, "split": "probe", "name": "total_gap", "value": gap},
            {"step": step, "split": "probe", "name": "response_length", "value": 6.0},
        ]
    with RunWriter(path, load(path).config, keep=True) as writer:
        writer.append("metrics", pd.DataFrame(rows), key=("all", 0))
    metrics = {**metrics, "length": 5.0, "finished": 1.0}
    content = {"split": "test", "examples": 3, "metrics": metrics, "samples": SAMPLES}
    (path / "evaluation.json").write_text(json.dumps(content))
