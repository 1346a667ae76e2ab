"""T0 and T1 against measurement, why T0 fails, and variance per score power, for the students of the Multi30k study.

    kvar train multi30k-teacher --data FOLDER --output_dir runs/multi30k/teacher
    kvar study multi30k --data FOLDER --output runs/multi30k
    python figures/theory/run.py --data FOLDER --runs runs/multi30k

A student and stage that was measured before (its files are in figures/theory/data) is not measured again.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from kvar.analysis import flatness, power_law, score_power, theory, trace_covariance, variance_per_score_power
from kvar.distill import count_parameters, load_model, load_tokenizer
from kvar.gradients import gradient_moments, score_projections
from kvar.returns import parse_kernel, returns
from kvar.rollouts import sample, score
from kvar.tasks import task_from_options

HERE = Path(__file__).parent
STUDENTS, STAGES = ("0.3M", "1.1M", "2.9M"), ("start", "K=1", "K=4")
KERNELS = [parse_kernel(name) for name in ("K=1", "K=2", "K=4", "K=8", "K=16", "immediate")]
NAMES = [kernel.name for kernel in KERNELS]
TABLES = ("calibration", "breakdown", "power")


def measure(student: str, stage: str, data: str, runs: Path, prompts: int, rollouts: int, directions: int) -> None:
    """Measure one checkpoint and write its three tables."""
    start = time.perf_counter()
    folder = runs / student / stage / "model"
    model, tokenizer = load_model(str(folder)), load_tokenizer(str(folder))
    teacher = load_model(str(runs / "teacher" / "model"))
    task = task_from_options("translation", data=data, source_field="en", target_field="de", prefix="")
    texts = [example.prompt for example in task.examples("validation", prompts)]
    drawn = sample(
        model, texts, tokenizer, rollouts_per_prompt=rollouts, max_new_tokens=40, seed=1, vocabulary=len(tokenizer)
    )
    values = score(teacher, drawn, vocabulary=len(tokenizer))
    moments = gradient_moments(model, drawn, returns(values, drawn.mask, KERNELS), NAMES, micro_batch=128)
    record = score_projections(model, drawn, directions=directions, seed=0, micro_batch=128)
    norms = (record.projections**2).mean(dim=0)  # unbiased for |s_t|^2, token by token
    everything = replace(moments["all"], score_power=norms.sum(dim=1))
    moments = replace(moments, groups={"all": everything})
    unit = "prompt"
    at = {"student": student, "parameters": count_parameters(model), "stage": stage}
    calibration = theory.calibrate(moments, values, drawn.mask, KERNELS, norms, unit=unit)
    breakdown = theory.breakdown(moments, values, drawn.mask, KERNELS, norms, unit=unit)
    ratio, power, trace = (f(moments, unit=unit) for f in (variance_per_score_power, score_power, trace_covariance))
    rows = [("score power", "", power, 0)]
    rows += [("trace", n, trace, e) for e, n in enumerate(NAMES)]
    rows += [("trace / score power", n, ratio, e) for e, n in enumerate(NAMES)]
    table = pd.DataFrame(
        [(name, kernel, f.value[e], f.low[e], f.high[e], f.n) for name, kernel, f, e in rows],
        columns=["statistic", "kernel", "value", "low", "high", "n"],
    )
    for name, frame in zip(TABLES, (calibration, breakdown, table), strict=True):
        (HERE / "data").mkdir(exist_ok=True)
        path = HERE / "data" / f"{name}-{student}-{stage}.parquet"
        pd.concat([pd.DataFrame([at] * len(frame)), frame.reset_index(drop=True)], axis=1).to_parquet(path)
    print(f"{student} {stage}: {len(drawn)} trajectories, {time.perf_counter() - start:.0f} s", flush=True)


def joined(name: str) -> pd.DataFrame:
    """All cells of one table, in order."""
    frames = [
        pd.read_parquet(path)
        for stage in STAGES
        for student in STUDENTS
        if (path := HERE / "data" / f"{name}-{student}-{stage}.parquet").exists()
    ]
    return pd.concat(frames, ignore_index=True)


def draw() -> None:
    """Calibration at the start and after K = 1, and the breakdown of the largest student, as PNG and SVG."""
    import matplotlib

    matplotlib.use("Agg")
    from kvar.plots import breakdown_of_variance, save, theory_beside_measurement

    calibration = joined("calibration")
    frame = calibration[calibration["scale"] == "relative"].rename(columns={"calibration": "value"})
    frame = frame.assign(
        statistic="calibration_" + frame["level"].str.lower(),
        group="all",
        step=frame["stage"].map({stage: i for i, stage in enumerate(STAGES)}),
        k=[float("inf") if name == "immediate" else float(name[2:]) for name in frame["kernel"]],
    )
    breakdown = joined("breakdown")
    for i, stage in enumerate(STAGES):
        name = stage.replace("=", "")
        save(theory_beside_measurement(frame, step=i), HERE / f"calibration-{name}")
        largest = breakdown[(breakdown["stage"] == stage) & (breakdown["student"] == STUDENTS[-1])]
        save(breakdown_of_variance(largest, student=STUDENTS[-1]), HERE / f"breakdown-{name}-{STUDENTS[-1]}")


def report() -> str:
    """Calibration, breakdown and size tables as text; every number of README.md is one of these."""
    lines = []
    pd.set_option("display.width", 200)
    calibration = joined("calibration")
    calibration["cell"] = [
        f"{v:.2f} [{a:.2f}, {b:.2f}]" for v, a, b in calibration[["calibration", "low", "high"]].to_numpy()
    ]
    for scale in ("relative", "absolute"):
        part = calibration[calibration["scale"] == scale]
        table = part.pivot_table(
            index=["stage", "student", "level"], columns="kernel", values="cell", aggfunc="first", sort=False
        )
        lines += [f"predicted over measured tr Cov, {scale}", table.to_string(), ""]
    breakdown = joined("breakdown")
    breakdown["cell"] = [f"{v:+.2f}" for v in breakdown["share"]]
    table = breakdown[breakdown["kernel"].isin(["K=1", "K=4", "K=16"])].pivot_table(
        index=["stage", "student", "kernel"], columns="term", values="cell", aggfunc="first", sort=False
    )
    lines += ["terms of tr Cov, as shares of it", table.to_string(), ""]
    power = joined("power")
    for stage in STAGES:
        own = power[power["stage"] == stage]
        fisher = own[own["statistic"] == "score power"]
        if len(fisher) < 2:
            continue
        fit = power_law(fisher["parameters"].to_numpy(float), fisher["value"].to_numpy(), _log_error(fisher))
        lines.append(
            f"{stage}: tr F {', '.join(f'{s} {v:.3g}' for s, v in fisher[['student', 'value']].to_numpy())}; "
            f"exponent in the parameter count {fit.exponent:.2f} [{fit.low:.2f}, {fit.high:.2f}]"
        )
        for kernel in NAMES:
            rows = own[(own["statistic"] == "trace / score power") & (own["kernel"] == kernel)]
            flat = flatness(rows["value"].to_numpy(), _log_error(rows))
            lines.append(
                f"  {kernel:>9}: tr Cov / tr F {', '.join(f'{v:.3g}' for v in rows['value'])}; largest over smallest "
                f"{flat.ratio:.2f} [{flat.ratio_low:.2f}, {flat.ratio_high:.2f}], p(flat) {flat.p:.2g}"
            )
    return "\n".join(lines)


def _log_error(rows: pd.DataFrame) -> np.ndarray:
    """Standard errors of log value, from 95 % intervals formed for the logarithm."""
    return (np.log(rows["high"].to_numpy()) - np.log(rows["low"].to_numpy())) / (2 * 1.96)


def main() -> None:
    """Measure what is missing, then write table.txt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with Multi30k; not needed when nothing is to be measured")
    parser.add_argument("--runs", type=Path, default=Path("runs/multi30k"))
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--rollouts", type=int, default=4)
    parser.add_argument("--directions", type=int, default=32)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for student in STUDENTS:
        for stage in STAGES:
            if not (HERE / "data" / f"{TABLES[-1]}-{student}-{stage}.parquet").exists():
                measure(
                    student, stage, arguments.data, arguments.runs, arguments.prompts, arguments.rollouts,
                    arguments.directions,
                )  # fmt: skip
    text = report()
    (HERE / "table.txt").write_text(text + "\n")
    print(text)
    draw()


if __name__ == "__main__":
    main()
