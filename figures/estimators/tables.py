"""All estimators at the start, best first."""

from __future__ import annotations

import pandas as pd

from figures.estimators.cells import TARGETS, noise, over, reciprocal, wide


def table(gradients: pd.DataFrame, cells: pd.MultiIndex | None = None) -> str:
    """One row an estimator, best first toward J: means over cells, t intervals."""
    power, trace = noise(gradients), wide(gradients, "trace")
    reach = {target: wide(gradients, "efficiency", target) for target in TARGETS}
    step = wide(gradients, "cosine", "score")
    bias = {target: wide(gradients, "bias", target) for target in ("J", "data")}
    if cells is not None:
        power, trace, step = (x.loc[cells] for x in (power, trace, step))
        reach, bias = ({t: x.loc[cells] for t, x in held.items()} for held in (reach, bias))
    order = reach["J"].mean().sort_values(ascending=False).index
    head = [
        "estimator", "tr Cov, of K = 1", "tr Cov / \\|E g\\|²", "toward J", "toward J_kl", "toward the data",
        "bias to J", "bias to data", "cosine with a score step",
    ]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name in order:
        row = [
            str(over(trace[name] / trace["K=1"], "log")),
            str(reciprocal(over(power[name]))),
            *(str(over(reach[target][name])) for target in ("J", "J_kl", "data")),
            *(f"{bias[target][name].mean():.2f}" for target in ("J", "data")),
            str(over(step[name])),
        ]
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"
