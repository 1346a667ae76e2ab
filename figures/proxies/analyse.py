"""How well each proxy follows the exact numbers: rank correlations and the figure, from the runs of run.py.

    python figures/proxies/analyse.py --runs runs/proxies

Writes beside itself ``measurements.parquet`` (every number), ``correlations.csv``, ``cost.csv`` (as measured) and the
figure. Along a training rho is Spearman's over the probes of a run; across estimators it is formed at each probe and
averaged over the probes of a run. Both are then averaged over runs, with a t interval over them (along a training of
Fisher's z), since the probes of a run follow one another.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats

from kvar.intervals import mean_with_interval
from kvar.plots.parts.save import save
from kvar.plots.parts.style import DOUBLE_WIDTH, OKABE_ITO, context

HERE = Path(__file__).parent
RUN = ["student", "method", "seed"]
EXACT_SUMS = ("gap immediate exact", "kl immediate exact")
PROXIES = {
    "W power": "W proxy, total power (verl)",
    "W noise": "W proxy, pure noise (verl)",
    "W by token": "W, advantages by token",
    "norm layers": "norm layers (nanoGNS)",
    "micro-batches": "micro-batches",
    "gradient norm": "gradient norm",
    "output layer": "output layer (kvar)",
    "": "exact, of the other batch",
}
"""Name in the measurements -> name in tables; those with a signal of their own have one for the noise scale too."""
TWO = ("norm layers", "micro-batches", "output layer", "")
COSTS = {
    "W power": "W proxy", "W noise": "W proxy", "W by token": "W proxy", "norm layers": "norm layers",
    "micro-batches": "micro-batches", "gradient norm": "gradient norm", "": "exact, one estimator",
    "output layer": "output layer and a forward pass",
}  # fmt: skip
TARGETS = ("tr Cov", "change of tr Cov", "signal / tr Cov", "efficiency")


def read(runs: Path) -> pd.DataFrame:
    """Every number of every finished run."""
    files = sorted(runs.glob("*/*/seed-*.parquet"))
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)


def truth(wide: pd.DataFrame, target: str) -> pd.DataFrame:
    """(steps, estimators) of the exact number; a noise scale as its inverse, which keeps its order below zero."""
    if target == "efficiency":
        return wide["efficiency"]
    return wide["trace"] if "tr Cov" in target and "signal" not in target else wide["signal"] / wide["trace"]


def proxy_of(wide: pd.DataFrame, proxy: str, target: str) -> pd.DataFrame:
    """(steps, estimators) of a proxy, signed so that it should rise with the target."""
    noise = target in ("tr Cov", "change of tr Cov")
    if proxy in TWO:
        prefix = f"{proxy} " if proxy else ""
        trace = wide[f"{prefix}trace"]
        return trace if noise else wide[f"{prefix}signal"] / trace
    return wide[proxy] if noise else -wide[proxy]


def rho(x: pd.Series, y: pd.Series) -> float:
    """Spearman's correlation of what both have; NaN for fewer than four or no spread."""
    both = pd.concat([x, y], axis=1).replace([np.inf, -np.inf], np.nan).dropna().to_numpy()
    if len(both) < 4 or (both == both[0]).all(axis=0).any():
        return np.nan
    return float(stats.spearmanr(both[:, 0], both[:, 1]).statistic)


def of_one_run(run: pd.DataFrame, method: str) -> Iterator[tuple[str, str, str, str, float, int]]:
    """(question, set, target, proxy, rho, n) of one run."""
    wide = {
        name: part.pivot_table(index="step", columns=["quantity", "estimator"], values="value", dropna=False)
        for name, part in run[run["set"] != "stale"].groupby("set")
    }
    exact = wide["probe"]
    for where, target in ((where, target) for where in ("probe", "batch") for target in TARGETS):
        y = truth(exact, target)
        for proxy in PROXIES:
            if where == "probe" and not proxy:
                continue
            x = proxy_of(wide[where], proxy, target)
            if target == "change of tr Cov":
                x, y_used = (np.log(v.where(v > 0)).diff() for v in (x, y))
            else:
                y_used = y
            over = {name: rho(x[name], y_used[name]) for name in y.columns}
            yield "along training, its estimator", where, target, proxy, over[method], int(y_used[method].notna().sum())
            known = [value for value in over.values() if np.isfinite(value)]
            mean = float(np.mean(known)) if len(known) == len(over) else np.nan
            yield "along training, mean of all", where, target, proxy, mean, int(y_used.notna().all(axis=1).sum())
            if target == "change of tr Cov":
                continue
            groups = {"all": list(y.columns)}
            groups["sampled"] = [name for name in y.columns if name not in EXACT_SUMS]
            for group, names in groups.items():
                for step in y.index:
                    value = rho(x.loc[step, names], y.loc[step, names])
                    yield f"across estimators, {group}", where, target, proxy, value, len(names)
    stale = run[run["set"] == "stale"].pivot_table(index="step", columns=["quantity", "estimator"], values="value")
    for level in ("token", "sequence"):
        inverse = 1 / stale[f"effective sample size, {level}"]  # of no estimator
        for name in stale["trace"].columns:
            plain = exact["trace"][name.split(" ratio")[0].split(" sequence-ratio")[0]].reindex(stale.index)
            factor = stale["trace"][name] / plain
            yield "stale, factor of tr Cov", "stale", name, f"1 / ESS, {level}", rho(inverse, factor), len(stale)
        on_policy = exact["trace"][method].reindex(stale.index)
        yield "stale, tr Cov on-policy", "stale", "tr Cov", f"1 / ESS, {level}", rho(inverse, on_policy), len(stale)


def correlations(frame: pd.DataFrame) -> pd.DataFrame:
    """Every rho with its interval, over all runs and over those of each method."""
    single = [
        (f"{student} {method} {seed}", method, *row)
        for (student, method, seed), run in frame.groupby(RUN, sort=False)
        for row in of_one_run(run, method)
    ]
    columns = ["run", "method", "question", "set", "target", "proxy", "rho", "n"]
    table = pd.DataFrame(single, columns=columns)
    rows = []
    for keys, part in table.groupby(columns[2:6], sort=False):
        for method, some in (("all", part), *part.groupby("method", sort=False)):
            rows.append((*keys, method, *pooled(some.dropna(), keys[0].startswith("across"))))
    return pd.DataFrame(rows, columns=[*columns[2:6], "method", "rho", "low", "high", "count", "n"])


def pooled(some: pd.DataFrame, by_step: bool) -> tuple[float, float, float, int, int]:
    """Mean rho, its interval, how many rhos it is of, and over how many numbers each is."""
    if not len(some):
        return np.nan, np.nan, np.nan, 0, 0
    runs = some.groupby("run", sort=False)["rho"].mean().to_numpy()
    if by_step:
        ends = mean_with_interval(runs)
    else:
        ends = tuple(float(np.tanh(x)) for x in mean_with_interval(np.arctanh(runs.clip(-0.999, 0.999))))
    value, low, high = ends
    return value, max(low, -1.0), min(high, 1.0), len(runs), int(some["n"].min())


def figure(table: pd.DataFrame, cost: pd.DataFrame | None) -> plt.Figure:
    """A panel a question, a row a proxy: rho with its interval, from the same trajectories and from another batch."""
    panels = {
        "along a training:\nfollows tr Cov": ("along training, mean of all", "tr Cov"),
        "along a training:\nfollows signal / tr Cov": ("along training, mean of all", "signal / tr Cov"),
        "across estimators:\norders tr Cov": ("across estimators, all", "tr Cov"),
        "across estimators:\norders signal / tr Cov": ("across estimators, all", "signal / tr Cov"),
    }
    sets = (("probe", "same trajectories", "o", OKABE_ITO[0]), ("batch", "another batch", "s", OKABE_ITO[1]))
    names = [name for name in PROXIES if table["rho"][table["proxy"] == name].notna().any()]
    with context():
        made, axes = plt.subplots(1, len(panels), figsize=(DOUBLE_WIDTH, 3.9), sharey=True, layout="constrained")
        for ax, (title, (question, target)) in zip(axes, panels.items(), strict=True):
            ax.axvline(0, color="0.7", lw=0.8)
            for shift, (where, label, marker, colour) in zip((-0.15, 0.15), sets, strict=True):
                some = table[
                    (table["question"] == question)
                    & (table["set"] == where)
                    & (table["target"] == target)
                    & (table["method"] == "all")
                ].set_index("proxy")
                some = some.reindex([name for name in names if name in some.index])
                y = [names.index(name) + shift for name in some.index]
                ends = np.array([some["rho"] - some["low"], some["high"] - some["rho"]])
                ax.errorbar(some["rho"], y, xerr=ends, fmt=marker, ms=3.5, lw=1, color=colour, label=label)
            ax.set_title(title, fontsize=7)
            ax.set_xlim(-1.05, 1.05)
            ax.set_xlabel("rank correlation")
        axes[0].set_yticks(range(len(names)), [_label(name, cost) for name in names])
        axes[0].invert_yaxis()
        made.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncol=2)
    return made


def _label(name: str, cost: pd.DataFrame | None) -> str:
    """A proxy's name and its cost in plain steps, the mean of the students."""
    if cost is None:
        return PROXIES[name]
    steps = cost[cost["what"] == COSTS[name]]["plain_steps"].mean()
    if name == "micro-batches":
        steps -= 1  # what running the step in parts costs beyond the step
    if name == "output layer":
        steps -= cost[cost["what"] == "forward pass"]["plain_steps"].mean()
    return f"{PROXIES[name]}\n{steps:.2g} plain steps"


def main() -> None:
    """Read the runs, write everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/proxies"))
    args = parser.parse_args()
    frame = read(args.runs)
    frame.to_parquet(HERE / "measurements.parquet", index=False)
    table = correlations(frame)
    table.to_csv(HERE / "correlations.csv", index=False, float_format="%.3f")
    if (args.runs / "cost.csv").exists():
        shutil.copy(args.runs / "cost.csv", HERE / "cost.csv")
    cost = pd.read_csv(HERE / "cost.csv") if (HERE / "cost.csv").exists() else None
    save(figure(table, cost), HERE / "proxies")[1].unlink()  # the PNG alone
    whole = table[table["method"] == "all"].drop(columns="method")
    print(frame.groupby(RUN).size())
    print(whole.to_string(index=False, float_format=lambda v: f"{v:.2f}"))


if __name__ == "__main__":
    main()
