"""How well the output layer's figures follow those of all parameters: tables and figure from the runs of run.py.

    python figures/output-layer/analyse.py --runs runs/output-layer

Writes beside itself ``statistics.parquet`` (every number of both layers at every probe, and of the free probe around
it), ``correlations.parquet`` and ``table.txt`` (the rank correlations), and the figure.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats

import kvar
from kvar.analysis import efficiency, noise_scale, trace_covariance
from kvar.analysis.frames.recorded import probes_of
from kvar.analysis.output_layer import output_layer_statistics
from kvar.gradients.frames import moments_from_frames
from kvar.plots.parts.save import save
from kvar.plots.parts.style import DOUBLE_WIDTH, OKABE_ITO, context

HERE = Path(__file__).parent
REFERENCE = "K=1 - leave-one-out"
KERNELS = ["K=1", "K=2", "K=4", "K=8", "immediate"]
STATISTICS = ["trace", "signal / trace", "efficiency"]
"""What is ranked: the reciprocal of the relative variance keeps its order where an estimated signal is negative."""


def statistics_of(run: kvar.Run, student: str, trained: str, every: int) -> pd.DataFrame:
    """Both layers at every probe, and the mean squared norm of each half of the prompts for independent comparisons."""
    rows = []
    for probe, step in probes_of(run):
        tables = [
            table[(table["probe"].astype(str) == probe) & (table["step"] == step)]
            for table in (run.gradients, run.prompt_gradients)
        ]
        moments = moments_from_frames(*tables)
        half = moments.prompt_index % 2 == 0
        for group in ("all", "output"):
            found = {
                "trace": trace_covariance(moments, group=group),
                "relative_variance": noise_scale(moments, group=group),
                "efficiency": efficiency(moments, 64, group=group, reference=REFERENCE),
            }
            for e, kernel in enumerate(moments.names):
                norms = moments[group].sq_norm[e]
                rows += [
                    (step, kernel, group, name, est.value[e], est.low[e], est.high[e], est.n)
                    for name, est in found.items()
                ]
                for name, own in (("power even", half), ("power odd", ~half)):
                    rows.append((step, kernel, group, name, float(norms[own].mean()), np.nan, np.nan, int(own.sum())))
    frame = pd.DataFrame(rows, columns=["step", "kernel", "group", "statistic", "value", "low", "high", "n"])
    free = output_layer_statistics(run.metrics, window=every, centres=sorted(frame["step"].unique()))
    frame = pd.concat([frame, free.assign(group="free")[frame.columns]], ignore_index=True)
    ranked = frame[frame["statistic"] == "relative_variance"].assign(
        statistic="signal / trace", value=lambda x: 1 / x["value"], low=np.nan, high=np.nan
    )
    frame = pd.concat([frame, ranked], ignore_index=True)
    return frame.assign(student=student, trained=trained, parameters=int(run.config["parameters"]))


def rank_correlation(x: pd.Series, y: pd.Series) -> tuple[float, float, float, int]:
    """Spearman's rho of two aligned series and Fisher's interval with Fieller's variance, 1.06 / (n - 3)."""
    both = pd.concat([x, y], axis=1, join="inner").dropna()
    n = len(both)
    if n < 5:
        return np.nan, np.nan, np.nan, n
    rho = float(stats.spearmanr(both.iloc[:, 0], both.iloc[:, 1]).statistic)
    z, half = np.arctanh(np.clip(rho, -0.999, 0.999)), 1.96 * (1.06 / (n - 3)) ** 0.5
    return rho, float(np.tanh(z - half)), float(np.tanh(z + half)), n


def over_training(frame: pd.DataFrame) -> pd.DataFrame:
    """Rank correlations over the probes of one run, for every kernel and way of comparing."""
    wide = frame.pivot_table(index=["kernel", "step"], columns=["statistic", "group"], values="value", dropna=False)
    rows = []
    for kernel in KERNELS:
        own = wide.loc[kernel]
        pairs = {("same trajectories", s): (own[s, "all"], own[s, "output"]) for s in STATISTICS}
        change = np.log(own["trace", "all"]).diff(), np.log(own["trace", "output"]).diff()
        pairs["same trajectories", "change of log trace"] = change
        for one, other in (("even", "odd"), ("odd", "even")):
            pairs[f"half ({one} prompts) against half", "power"] = (
                own[f"power {one}", "all"],
                own[f"power {other}", "output"],
            )
        pairs.update({("training batches", s): (own[s, "all"], own[s, "free"]) for s in STATISTICS})
        pairs.update({("output layer, twice", s): (own[s, "output"], own[s, "free"]) for s in STATISTICS})
        for (how, statistic), (x, y) in pairs.items():
            rows.append((kernel, how, statistic, *rank_correlation(x, y)))
    return pd.DataFrame(rows, columns=["kernel", "compared", "statistic", "rho", "low", "high", "n"])


def between_kernels(frame: pd.DataFrame) -> pd.DataFrame:
    """At each step: the rank correlation over kernels, and whether both layers name the same best one."""
    rows = []
    names = [*KERNELS, REFERENCE]
    for step, own in frame[frame["kernel"].isin(names)].groupby("step"):
        for statistic in STATISTICS:
            wide = own[own["statistic"] == statistic].pivot_table(index="kernel", columns="group", values="value")
            wide = wide.reindex(columns=["all", "output"]).dropna()
            if len(wide) < 4:
                continue
            rho = float(stats.spearmanr(wide["all"], wide["output"]).statistic)
            best = wide.idxmin() if statistic == "trace" else wide.idxmax()
            rows.append((step, statistic, rho, best["all"], best["output"], best["all"] == best["output"]))
    return pd.DataFrame(rows, columns=["step", "statistic", "rho", "best_all", "best_output", "agree"])


def table_of(frames: pd.DataFrame, over: pd.DataFrame, between: pd.DataFrame) -> str:
    """All correlations as text."""
    out = ["Rank correlation over training, output layer against all parameters (rho, 95 % interval, probes)", ""]
    for (student, trained, how, statistic), own in over.groupby(
        ["student", "trained", "compared", "statistic"], sort=False
    ):
        cells = [
            f"{r.kernel} {r.rho:.2f} ({r.low:.2f} to {r.high:.2f})" for r in own.itertuples() if np.isfinite(r.rho)
        ]
        out.append(f"{student}, trained by {trained}, {how}, {statistic}, n = {own['n'].max()}: " + "; ".join(cells))
    out += [
        "",
        "Between kernels at one step: mean rho over steps (least to greatest), steps with the same best kernel",
        "",
    ]
    for (student, trained, statistic), own in between.groupby(["student", "trained", "statistic"], sort=False):
        out.append(
            f"{student}, trained by {trained}, {statistic}: {own['rho'].mean():.2f} ({own['rho'].min():.2f} to "
            f"{own['rho'].max():.2f}), {own['agree'].mean():.2f} of {len(own)} steps"
        )
    out += ["", "Output layer's trace as a share of the full trace (mean over steps), K=1 and immediate", ""]
    wide = frames[frames["statistic"] == "trace"].pivot_table(
        index=["student", "trained", "kernel", "step"], columns="group", values="value"
    )
    share = (wide["output"] / wide["all"]).groupby(level=[0, 1, 2]).agg(["mean", "min", "max"])
    for (student, trained, kernel), row in share.iterrows():
        if kernel in ("K=1", "immediate"):
            out.append(
                f"{student}, trained by {trained}, {kernel}: {row['mean']:.5f} ({row['min']:.5f} to {row['max']:.5f})"
            )
    return "\n".join(out) + "\n"


def figure(frames: pd.DataFrame, trained: str) -> plt.Figure:
    """Trace, relative variance (no mark where the signal came out negative) and efficiency over training."""
    names = {"trace": "tr Cov / first", "relative_variance": "tr Cov / |E g|²", "efficiency": "efficiency, B = 64"}
    marks = {
        "all": ("o", "-", "all parameters"),
        "output": ("s", "--", "output layer, same responses"),
        "free": ("x", ":", "output layer, training batches"),
    }
    frames = frames[frames["trained"] == trained]
    students = list(dict.fromkeys(frames["student"]))
    with context():
        size = (DOUBLE_WIDTH / 3 * len(students), 5.5)
        made, axes = plt.subplots(3, len(students), figsize=size, sharex="col", squeeze=False, layout="constrained")
        for (row, statistic), (column, student) in product(enumerate(names), enumerate(students)):
            ax = axes[row, column]
            here = frames[(frames["student"] == student) & (frames["statistic"] == statistic)]
            for (colour, kernel), (group, (marker, line, text)) in product(
                zip(OKABE_ITO, ("K=1", "K=4"), strict=False), marks.items()
            ):
                own = here[(here["kernel"] == kernel) & (here["group"] == group)].sort_values("step")
                own = own[(own["value"] > 0) | (statistic == "efficiency")]
                y = own["value"] / (own["value"].iloc[0] if statistic == "trace" and len(own) else 1.0)
                ax.plot(own["step"], y, color=colour, marker=marker, linestyle=line, ms=3, label=f"{kernel}, {text}")
            ax.set_yscale("linear" if statistic == "efficiency" else "log")
            ax.set_title(f"{student} student" if row == 0 else "")
            ax.set_xlabel("training step" if row == 2 else "")
            ax.set_ylabel(names[statistic] if column == 0 else "")
        made.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncol=2)
    return made


def main() -> None:
    """Read the runs, write everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/output-layer"))
    args = parser.parse_args()
    frames, over, between = [], [], []
    for config in sorted(args.runs.glob("*/*/config.json")):
        run = kvar.load(config.parent)
        at = {"student": run.config["student"], "trained": run.config["kernel"]}
        frame = statistics_of(run, at["student"], at["trained"], int(run.config["every"]))
        frames.append(frame)
        over.append(over_training(frame).assign(**at))
        between.append(between_kernels(frame).assign(**at))
    every, over, between = (pd.concat(x, ignore_index=True) for x in (frames, over, between))
    every.to_parquet(HERE / "statistics.parquet", index=False)
    over.to_parquet(HERE / "correlations.parquet", index=False)
    (HERE / "table.txt").write_text(table_of(every, over, between))
    for trained in dict.fromkeys(every["trained"]):
        save(figure(every, trained), HERE / f"output_layer_{trained.replace('=', '')}")
    print((HERE / "table.txt").read_text())


if __name__ == "__main__":
    main()
