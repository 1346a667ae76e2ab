"""Coverage of the interval of ``overtakes`` on enumerable token MDPs.

``python -m tests.analysis.overtakes_coverage [REPEATS] [TRAJECTORIES ...]`` prints a table: a line a pair of kernels.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kvar.analysis import overtakes
from kvar.analysis.exact import TokenMDP, moments_of
from kvar.gradients import GradientMoments
from kvar.returns import Immediate, KStep

NAMES = ("K=1", "K=2", "K=4", "immediate")
KERNELS = (KStep(1), KStep(2), KStep(4), Immediate())
DESIGNS: dict[str, dict[str, Any]] = {
    "two tokens": dict(vocabulary=2, horizon=9, seed=1, state="last-token"),
    "three tokens": dict(vocabulary=3, horizon=7, seed=2, state="last-token"),
    "flat policy": dict(vocabulary=3, horizon=8, seed=5, state="last-token", policy_scale=0.5),
    "a sharp teacher": dict(vocabulary=4, horizon=6, seed=3, state="last-token", teacher_scale=2.0),
}


@cache
def enumerated(design: str) -> tuple[Tensor, Tensor]:
    """(4, R, P) gradients of every response under each kernel, and (R,) their probabilities."""
    mdp = TokenMDP(**DESIGNS[design])
    return torch.stack([mdp.gradients(kernel) for kernel in KERNELS]), mdp.probabilities


def exact(design: str, other: str, estimator: str = "K=1") -> float:
    """B_x from sums over all responses: (30), as its quotient, 0 where the first leads at every B and inf at none."""
    table, p = enumerated(design)
    mean = torch.einsum("r,erp->ep", p, table)
    square = torch.einsum("r,erp->e", p, table.square())
    power = mean.square().sum(dim=1)
    cosine = (mean @ mean[0]) / (power * power[0]).sqrt()
    relative = square / power - 1
    first, second = NAMES.index(estimator), NAMES.index(other)
    c1, c2 = (float(cosine[e].clamp(min=0.0) ** 2) for e in (first, second))
    if c1 <= c2:
        return math.inf
    return max(float(c2 * relative[first] - c1 * relative[second]) / (c1 - c2), 0.0)


def sample(design: str, n: int, seed: int) -> GradientMoments:
    """The moments of n responses."""
    table, p = enumerated(design)
    rows = torch.multinomial(p, n, replacement=True, generator=torch.Generator().manual_seed(seed))
    return moments_of(table[:, rows], names=NAMES)


def coverage(design: str, other: str, n: int, repeats: int) -> dict[str, float]:
    """Shares of the draws that resolve the target: whose interval holds B_x, lies above it, is bounded; and medians."""
    truth, found = exact(design, other), []
    for seed in range(repeats):
        x = overtakes(sample(design, n, seed), "K=1", other)
        if not math.isnan(x.value):
            found.append((x.value, x.low, x.high))
    value, low, high = np.array(found).T
    return {
        "exact": truth,
        "resolved": len(found) / repeats,
        "covered": float(((low <= truth) & (truth <= high)).mean()),
        "above": float((low > truth).mean()),
        "bounded": float(np.isfinite(high).mean()),
        "median": float(np.median(value)),
        "low": float(np.median(low)),
        "high": float(np.median(high)),
    }


def main(repeats: int = 200, sizes: Sequence[int] = (256,)) -> None:
    """Print the table."""
    columns = ("exact", "resolved", "covered", "above", "bounded", "median", "low", "high")
    print(f"| design | other | trajectories | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 3) + "|")
    for design in DESIGNS:
        for other in NAMES[1:]:
            for n in sizes:
                row = coverage(design, other, n, repeats)
                print(f"| {design} | {other} | {n} | {' | '.join(f'{row[c]:.3g}' for c in columns)} |", flush=True)


if __name__ == "__main__":
    main(*[int(word) for word in sys.argv[1:2]], **({"sizes": [int(w) for w in sys.argv[2:]]} if sys.argv[2:] else {}))
