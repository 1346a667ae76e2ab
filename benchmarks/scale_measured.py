"""Measured runs: what they took, from their own records, and how well operations predict it.

A row of ``scale.csv`` is one kind of work of one run, or of one probe. Seconds are wall seconds of a machine that did
other work at the same time; see docs/scale.md.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.scale_shapes import Sizes, count

__all__ = ["Fit", "Row", "collect", "fit", "read_rows", "write_rows"]

ENGINE_PASSES = 2  # the one-pass engine with fields="all" in chunks goes over them twice


@dataclass(frozen=True)
class Row:
    """Work done ``times`` times.

    Attributes:
        run: the run's folder.
        kind: given (a step on given responses), sampled (a step on the student's) or probe.
        objective: of the run.
        student: sizes.
        teacher: sizes; empty where there is none.
        sequences: a step, or a probe.
        prompt: tokens, padding included.
        response: tokens, padding included.
        estimators: of a probe, else 0.
        times: steps, or probes.
        seconds: of all of them.
    """

    run: str
    kind: str
    objective: str
    student: str
    teacher: str
    sequences: int
    prompt: float
    response: float
    estimators: int
    times: int
    seconds: float

    @property
    def operations(self) -> float:
        """Of one step or probe."""
        source, target = max(1, round(self.prompt)), max(1, round(self.response))
        own = count(Sizes.read(self.student), source, target).forward
        total = own if self.kind != "given" else 0.0  # sampling
        if self.teacher:
            total += count(Sizes.read(self.teacher), source, target).forward
        total += own * (3 if not self.estimators else ENGINE_PASSES * (1 + 2 * self.estimators))
        return total * self.sequences

    @property
    def calls(self) -> float:
        """Layer calls of one step or probe, each a Python call whatever its sizes: decoding has one a token."""
        own = Sizes.read(self.student)
        layers = own.num_layers + own.num_decoder_layers
        total = 3.0 * layers
        if self.teacher:
            teacher = Sizes.read(self.teacher)
            total += teacher.num_layers + teacher.num_decoder_layers
        if self.kind != "given":
            total += own.num_layers + own.num_decoder_layers * self.response
        return total


@dataclass(frozen=True)
class Fit:
    """seconds = operations / rate + calls * overhead, fitted to relative errors.

    Attributes:
        rate: operations a second.
        overhead: seconds a layer call.
        ratios: predicted / measured, a row each.
    """

    rate: float
    overhead: float
    ratios: list[float]

    def seconds(self, row: Row) -> float:
        """Predicted seconds of one step or probe."""
        return row.operations / self.rate + row.calls * self.overhead


def fit(rows: Sequence[Row], held_out: Sequence[Row] = ()) -> Fit:
    """Fit rate and overhead on ``rows``; the ratios are those of ``held_out`` where given, else of the same rows."""
    from scipy.optimize import nnls

    measured = np.array([row.seconds / row.times for row in rows])
    table = np.array([[row.operations, row.calls] for row in rows]) / measured[:, None]
    scale = table.max(axis=0)
    inverse_rate, overhead = nnls(table / scale, np.ones(len(rows)))[0] / scale
    made = Fit(1 / inverse_rate if inverse_rate else float("inf"), float(overhead), [])
    return Fit(made.rate, made.overhead, [made.seconds(r) * r.times / r.seconds for r in held_out or rows])


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV."""
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([field.name for field in fields(Row)])
        for row in rows:
            values = [getattr(row, field.name) for field in fields(Row)]
            table.writerow([f"{v:.4g}" if isinstance(v, float) else v for v in values])


def read_rows(path: Path) -> list[Row]:
    """Rows of a CSV file."""
    kinds = {"int": int, "float": float, "str": str}
    with path.open(newline="") as file:
        return [Row(**{f.name: kinds[str(f.type)](line[f.name]) for f in fields(Row)}) for line in csv.DictReader(file)]


def collect(folder: Path) -> list[Row]:
    """Rows of every finished T5 run below a folder, but SeqKD's and those of the minimum-variance baseline."""
    rows: list[Row] = []
    for path in sorted(folder.glob("**/evaluation.json")):
        rows += _rows_of(path.parent, folder)
    return rows


def _sizes(config: dict[str, Any]) -> Sizes:
    names = ("d_model", "d_kv", "num_heads", "d_ff", "num_layers", "num_decoder_layers", "vocab_size")
    return Sizes(*(int(config[name]) for name in names))


def _rows_of(run: Path, above: Path) -> list[Row]:
    from transformers import AutoTokenizer

    import kvar
    from kvar.distill.models.shipped import resolve

    model = json.loads((run / "model" / "config.json").read_text())
    loaded = kvar.load(run)
    config, metrics = loaded.config, loaded.metrics
    if config["objective"] == "seqkd" or config.get("baseline") == "minimum-variance":
        return []  # these do more than a row says: beam search, score norms
    if model["model_type"] != "t5" or "train_runtime" not in set(metrics["name"]):
        return []
    teacher = config.get("teacher")
    if teacher:
        teacher = _sizes(json.loads((Path(str(resolve(teacher))) / "config.json").read_text())).text
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    prompt, reference = _lengths(config, tokenizer)

    def of(name: str) -> list[float]:
        return [float(v) for v in metrics.loc[metrics["name"] == name, "value"]]

    batch = int(config.get("per_device_train_batch_size", 8)) * int(config.get("gradient_accumulation_steps", 1))
    probes = of("probe_seconds")
    evaluations = [
        float(v) for v in metrics.loc[(metrics["name"] == "runtime") & (metrics["split"] != "test"), "value"]
    ]
    seconds = of("train_runtime")[-1] - sum(probes) - sum(evaluations)
    steps = int(metrics.loc[metrics["name"] == "train_runtime", "step"].iloc[-1])
    sampled = config["objective"] in ("ketchup", "llmr", "gkd", "reverse-kl")
    common = {"run": str(run.relative_to(above)), "objective": config["objective"], "student": _sizes(model).text}
    rows = []
    response = reference
    if sampled or probes:
        own = loaded.trajectories[loaded.trajectories["probe"] == "probe"]
        lengths = own.groupby(["step", "trajectory"])["length"].first().to_numpy()
        size = batch if sampled else int(config.get("probe_micro_batch") or 128)
        longest = mean(float(lengths[i : i + size].max()) for i in range(0, len(lengths), size))
        response = longest if sampled else reference
    kind = "sampled" if sampled else "given"
    rows.append(Row(kind=kind, teacher=teacher or "", sequences=batch, prompt=prompt, response=response, estimators=0,
                    times=steps, seconds=seconds, **common))  # fmt: skip
    if probes:
        kernels = len(str(config["probe_kernels"]).split(","))
        number = int(config["probe_prompts"]) * int(config["probe_rollouts"])
        rows.append(Row(kind="probe", teacher=teacher or "", sequences=number, prompt=prompt, response=longest,
                        estimators=kernels, times=len(probes), seconds=sum(probes), **common))  # fmt: skip
    return rows


def _lengths(config: dict[str, Any], tokenizer: Any) -> tuple[float, float]:
    """Mean tokens of a training prompt and of its reference."""
    from dataclasses import fields as fields_of

    from kvar.study.run.tasks import build_task, fit_task
    from kvar.study.settings.run_settings import TaskSettings

    known = {field.name for field in fields_of(TaskSettings)}
    settings = TaskSettings(**{name: value for name, value in config.items() if name in known})
    examples = fit_task(settings, build_task(settings), tokenizer).examples("train", 1000)
    prompts = mean(len(tokenizer(example.prompt)["input_ids"]) for example in examples)
    return prompts, mean(len(tokenizer(example.target)["input_ids"]) for example in examples)
