"""Efficiency of the fitted kernel beside measured ones, claimed on one set of prompts and checked on another.

python figures/optimal-kernel/run.py [--prompts 192] [--rollouts 4]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import kvar
from kvar.analysis import efficiency, optimal_kernel
from kvar.estimators import lag_estimators
from kvar.gradients import GradientMoments, recombine
from kvar.intervals import Interval
from kvar.tasks import ArithmeticTask

LISTED = ["K=1", "K=8", "gap geometric(0.9) exact expected - leave-one-out"]
BATCHES = (16, 64, 256)


def measured(student: str, prompts: list[str], rollouts: int, seed: int) -> GradientMoments:
    """Moments of the estimators by lag and of some others, on responses to some prompts."""
    return kvar.measure(
        student, "arithmetic", prompts, kernels=[*lag_estimators(), *LISTED], rollouts_per_prompt=rollouts, seed=seed
    ).moments


def with_kernel(moments: GradientMoments, name: str, weights: tuple[float, ...]) -> GradientMoments:
    """The moments with one more estimator, whose groups of lags have these weights."""
    count = len(weights)  # the estimators of lag_estimators() come first
    mixed = np.array(weights) @ np.diff(np.eye(count), axis=0, prepend=0.0)
    coefficients = torch.eye(len(moments.names), dtype=torch.float64)
    row = torch.zeros(1, len(moments.names), dtype=torch.float64)
    row[0, :count] = torch.tensor(mixed)
    return recombine(moments, torch.cat([coefficients, row]), [*moments.names, name])


def rows(student: str, first: GradientMoments, second: GradientMoments) -> list[str]:
    """Lines of the table of one student: fitted on the first set of prompts, checked on the second."""
    whole = lag_estimators()[-1].name
    lines = []
    for batch in BATCHES:
        best = optimal_kernel(first, batch, unit="prompt")
        each = efficiency(first, batch, reference=whole, unit="prompt")
        for name in first.names:
            if name in (*LISTED, whole, "gap immediate exact", best.listed):
                e = first.names.index(name)
                value = Interval(float(each.value[e]), float(each.low[e]), float(each.high[e]))
                lines.append(f"{student} | {batch} | {name} | {value} |")
        if best.fitted is None:
            lines.append(f"{student} | {batch} | {best.reason} | |")
            continue
        other = efficiency(with_kernel(second, "fitted", best.weights), batch, reference=whole, unit="prompt")[-1]
        value = Interval(float(other.value), float(other.low), float(other.high))
        check = value if value.low > -1 or value.high < 1 else "target not resolved"
        lines.append(f"{student} | {batch} | {best.fitted.kernel.name} | {best.efficiency} | {check}")
        lines.append(f"{student} | {batch} | gain on {best.listed} | {best.gain} |")
    return lines


def main() -> None:
    """Measure, fit and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=192)
    parser.add_argument("--rollouts", type=int, default=4)
    parser.add_argument("--students", nargs="+", default=["arithmetic-90k-early", "arithmetic-50k"])
    options = parser.parse_args()
    texts = [e.prompt for e in ArithmeticTask().examples("validation", 2 * options.prompts)]
    lines = ["student | step of | estimator | efficiency (95 %) | on other prompts"]
    for student in options.students:
        parts = texts[: options.prompts], texts[options.prompts :]
        first, second = (measured(student, part, options.rollouts, seed) for seed, part in enumerate(parts))
        lines += rows(student, first, second)
    Path(__file__).with_name("table.txt").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
