"""Methods of a study side by side: means over seeds, paired differences, and what their estimators measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from kvar.intervals.over_seeds import mean_with_interval

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "GROUPS",
    "LOWER_IS_BETTER",
    "NEITHER",
    "compare_methods",
    "main_outcomes",
    "methods_frame",
    "not_resolved_from_best",
]

GROUPS = ["task", "student", "method"]
LOWER_IS_BETTER = frozenset({"total_gap", "train_total_gap", "gap_per_token"})
"""Outcomes of which less is better: maximising J of theory.md (6) is minimising the expected total gap."""
NEITHER = frozenset({"length", "finished", "probe_length", "train_response_length"})
"""Outcomes that describe, of which neither more nor less is better."""


def compare_methods(
    outcomes: pd.DataFrame, *, references: Iterable[str] = ("llmr", "start"), confidence: float = 0.95
) -> pd.DataFrame:
    """Every method's mean over seeds, and its paired difference to each reference.

    Intervals are t intervals of (seeds - 1) degrees of freedom over the seeds' values, or over the seeds' differences:
    the spread among seeds is all that counts, and sampling noise within a seed is part of it. At three seeds they are
    4.3 standard errors wide to either side. They are of one comparison each; nothing is corrected for there being many.

    Args:
        outcomes: task, student, method, seed, outcome, value, one row each.
        references: methods to subtract, seed by seed; one that a (task, student) lacks gives blanks.
        confidence: of the intervals.

    Returns:
        One row a (task, student, method, outcome) in order of first appearance: n, the seeds; value, low, high (ends
        NaN for one seed); and for each reference R: less_R, less_R_low, less_R_high, less_R_n, over the seeds that both
        have (NaN and 0 where there are none; exactly 0 for R itself).

    Raises:
        ValueError: a seed that occurs twice for one quantity.

    Example:
        >>> import pandas as pd
        >>> names = ["task", "student", "method", "seed", "outcome", "value"]
        >>> rows = [("t", "s", m, k, "bleu", v) for m, vs in {"a": (1, 2, 3), "llmr": (0, 2, 1)}.items()
        ...         for k, v in enumerate(vs)]
        >>> table = compare_methods(pd.DataFrame(rows, columns=names))
        >>> table.loc[0, ["n", "value", "less_llmr", "less_llmr_n"]].tolist()
        [3.0, 2.0, 1.0, 3.0]
    """
    import pandas as pd

    keys = [*GROUPS, "outcome"]
    twice = outcomes[outcomes.duplicated([*keys, "seed"])]
    if len(twice):
        row = twice.iloc[0]
        raise ValueError(
            f"seed {row['seed']} occurs twice for {', '.join(f'{k}={row[k]}' for k in keys)}: give each run one seed."
        )
    series = {key: part.set_index("seed")["value"] for key, part in outcomes.groupby(keys, sort=False, observed=True)}
    rows = []
    for (task, student, method, outcome), by_seed in series.items():
        value, low, high = mean_with_interval(by_seed.to_numpy(dtype=float), confidence)
        entry: dict[str, Any] = {"task": task, "student": student, "method": method, "outcome": outcome}
        entry |= {"n": len(by_seed), "value": value, "low": low, "high": high}
        for name in references:
            other = series.get((task, student, name, outcome))
            difference = np.empty(0) if other is None else (by_seed - other).dropna().to_numpy(dtype=float)
            ends = mean_with_interval(difference, confidence) if len(difference) else (np.nan,) * 3
            entry |= dict(zip((f"less_{name}", f"less_{name}_low", f"less_{name}_high"), ends, strict=True))
            entry[f"less_{name}_n"] = len(difference)
        rows.append(entry)
    return pd.DataFrame(rows)


def main_outcomes(outcomes: pd.DataFrame) -> dict[str, str]:
    """Task -> its first metric, such as bleu, rouge1 or exact_answer."""
    rows = outcomes[~outcomes["outcome"].isin(NEITHER | LOWER_IS_BETTER)]
    return {str(task): str(part["outcome"].iloc[0]) for task, part in rows.groupby("task", sort=False, observed=True)}


def not_resolved_from_best(
    outcomes: pd.DataFrame, outcome: str, *, confidence: float = 0.95
) -> dict[tuple[str, str], set[str]]:
    """(task, student) -> the method of the best mean and those whose paired difference to it spans zero.

    Only methods with as many seeds as the one with most take part; a mean over other seeds is no fair rival. The best
    is chosen by the same numbers that it is then compared by, so a method left out of the set is told from the best of
    this sample, and one inside may be worse still.

    Args:
        outcomes: as for :func:`compare_methods`.
        outcome: which one; :data:`LOWER_IS_BETTER` says its direction.
        confidence: of each comparison.

    Returns:
        An entry a (task, student) with two seeds or more; nothing can be told of others.
    """
    unresolved: dict[tuple[str, str], set[str]] = {}
    sign = -1.0 if outcome in LOWER_IS_BETTER else 1.0
    rows = outcomes[outcomes["outcome"] == outcome].dropna(subset="value")
    for (task, student), part in rows.groupby(["task", "student"], sort=False, observed=True):
        table = part.pivot(index="seed", columns="method", values="value")
        full = table.loc[:, table.count() == table.count().max()].dropna()
        if len(full) < 2:
            continue
        means = sign * full.mean()
        best = means.idxmax()
        alike = {str(best)}
        for method in [name for name in full.columns if name != best]:
            _, low, high = mean_with_interval((full[best] - full[method]).to_numpy(dtype=float), confidence)
            if low <= 0 <= high:
                alike.add(str(method))
        unresolved[str(task), str(student)] = alike
    return unresolved


def methods_frame(cells: pd.DataFrame, compared: pd.DataFrame, estimators: pd.DataFrame) -> pd.DataFrame:
    """One row a (task, student, method): everything that is known of it.

    Args:
        cells: of ``StudyValues``.
        compared: of :func:`compare_methods`.
        estimators: of ``kvar.results.trained_estimators.estimator_table``.

    Returns:
        task, student, parameters, method, planned (seeds), seeds (finished), estimator, probed; for every outcome O: O,
        O_low, O_high, O_n, O_less_R and its _low, _high, _n; then the estimator's columns. What is not known is NaN.
    """
    import pandas as pd

    heads = cells.groupby(GROUPS, sort=False, observed=True)
    left = heads.agg(planned=("finished", "size"), seeds=("finished", "sum"), estimator=("estimator", "first"),
                     probed=("probed", "any")).reset_index()  # fmt: skip
    left["seeds"] = left["seeds"].astype(int)
    sizes = cells.groupby(["task", "student"], observed=True)["parameters"].max()
    left.insert(
        2, "parameters", [sizes[task, student] for task, student in zip(left["task"], left["student"], strict=True)]
    )
    wide = {}
    quantities = [name for name in compared.columns if name not in (*GROUPS, "outcome")]
    for outcome, part in compared.groupby("outcome", sort=False, observed=True):
        for name in quantities:
            column = str(outcome) if name == "value" else f"{outcome}_{name}"
            wide[column] = part.set_index(GROUPS)[name]
    out = left.join(pd.DataFrame(wide), on=GROUPS)
    return out.join(estimators.set_index(GROUPS), on=GROUPS) if len(estimators) else out
