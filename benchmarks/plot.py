"""Cost against N, T, number of kernels and P, and everyone's cost side by side."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

ENGINES = {"one-pass, norms": "#0072b2", "one-pass, all fields": "#d55e00"}


def draw(frame: pd.DataFrame, path: Path) -> None:
    """Write ``path``.png and .svg."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "kvar"
    figure, axes = plt.subplots(1, 5, figsize=(15, 3.4), width_ratios=[1, 1, 1, 1, 1.5], layout="constrained")
    size = frame[frame["part"].isin(["curve-p", "t5-1M", "t5-9M"])]
    panels = [
        (frame[frame["part"] == "curve-n"], "trajectories", "trajectories N", 1.0),
        (frame[frame["part"] == "curve-t"], "tokens", "response tokens T", 1.0),
        (frame[frame["part"] == "curve-e"], "estimators", "kernels", 1.0),
        (size, "parameters", "parameters, millions", 1e6),
    ]
    for axis, (part, x, label, unit) in zip(axes[:4], panels, strict=True):
        for name, colour in ENGINES.items():
            own = part[part["contestant"] == name].sort_values(x)
            axis.plot(own[x] / unit, own["steps_min"], "o-", color=colour, label=name, ms=4)
        floor = part[part["contestant"] == "one-pass, norms"].sort_values(x)
        axis.plot(floor[x] / unit, (1 + 2 * floor["estimators"]) / 3, ":", color="#555555", label="(1 + 2 kernels) / 3")
        axis.set_xlabel(label)
        axis.set_ylim(bottom=0)
        if x != "estimators":
            axis.set_xscale("log", base=2)
            axis.set_xticks([], minor=True)
            ticks = sorted(part[x].unique() / unit)
            axis.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axes[0].set_ylabel("plain training steps")
    axes[0].legend(fontsize=7, loc="lower left")
    _side_by_side(axes[4], frame)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, lw=0.6)
    figure.savefig(path.with_suffix(".png"), dpi=130)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)


def _side_by_side(axis: object, frame: pd.DataFrame) -> None:
    """Six kernels on a student that every peer can take, the largest size measured."""
    peers = frame[frame["kind"] == "untied"]
    if peers.empty:
        return
    size = peers["size"].iloc[peers["parameters"].argmax()]
    own = peers[(peers["size"] == size) & ~peers["contestant"].str.contains("plain|output")].sort_values("steps_min")
    axis.barh(own["contestant"], own["steps_min"], color=[ENGINES.get(c, "#999999") for c in own["contestant"]])
    for y, steps in enumerate(own["steps_min"]):
        axis.text(steps, y, f" {steps:.1f}", va="center", fontsize=8)
    axis.invert_yaxis()
    axis.tick_params(axis="y", labelsize=8)
    axis.set_xlabel(f"plain steps, six kernels, untied {own['parameters'].iloc[0] / 1e6:.1f} M", fontsize=9)
