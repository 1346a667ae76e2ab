"""The sentences of a verdict, each in all its branches: what numbers and their intervals support, and no more."""

from __future__ import annotations

import math
from collections.abc import Mapping

from kvar.estimators import DATA
from kvar.intervals import Interval, number
from kvar.plots.parts.ticks import k_label
from kvar.report.words.choice import clause

__all__ = [
    "Row",
    "best_sentence",
    "beyond_scale",
    "bias_sentence",
    "fall_sentence",
    "lead_sentences",
    "noise_sentence",
    "reference_k",
    "scale_sentence",
    "size_sentence",
    "split_by_interval",
]

Row = Mapping[float | str, Interval]


def _kernel(k: float) -> str:
    """How a sentence names a K: "K = 4", or "K = ∞" for the immediate kernel."""
    return f"K = {k_label(k)}"


def _list(ks: list[float]) -> str:
    names = [_kernel(k) if i == 0 else _kernel(k).removeprefix("K = ") for i, k in enumerate(ks)]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def split_by_interval(ratio: Row) -> tuple[list[float], list[float], list[float]]:
    """K whose variance is below that of K = 1, above it, and not resolved from it."""
    ks = sorted(float(k) for k in ratio if k != 1.0)
    falls = [k for k in ks if ratio[k].below(1.0)]
    rises = [k for k in ks if ratio[k].above(1.0)]
    return falls, rises, [k for k in ks if k not in falls and k not in rises]


def reference_k(ks: list[float]) -> float:
    """The K that sentences speak of: the largest finite one, or infinity where there is no other."""
    return max((k for k in ks if math.isfinite(k)), default=math.inf)


def fall_sentence(ratio: Row) -> str:
    """Does tr Cov, eq. (8), fall with K: only where the paired ratio's interval excludes one."""
    falls, rises, open_ = split_by_interval(ratio)
    if not falls + rises + open_:
        return "No variance ratio was measured for a K beyond 1, so whether variance falls with K is not known."
    if not falls + rises:
        k = reference_k(open_)
        return (
            f"No change of the variance with K is resolved: at {_kernel(k)} it is {ratio[k]} of that at K = 1"
            f"{', an interval that includes 1.' if ratio[k].known else ', with no interval.'}"
        )
    if falls and not rises and not open_:
        k = reference_k(falls)
        if any(ratio[b].above(ratio[a]) for i, a in enumerate(falls) for b in falls[i + 1 :]):
            low = min(falls, key=lambda q: ratio[q].value)
            return (
                "Variance is below that at K = 1 at every K measured, but does not fall in step with K: "
                f"it is {ratio[low]} of that at {_kernel(low)}, the lowest, and {ratio[k]} at {_kernel(k)}."
            )
        return f"Variance falls with K: at {_kernel(k)} it is {ratio[k]} of that at K = 1."
    parts = []
    for verb, ks in (("falls", falls), ("rises", rises)):
        if ks:
            k = reference_k(ks)
            where = "" if len(ks) == 1 else f" at {_kernel(k)}"
            parts.append(f"{verb} at {_list(ks)} (to {ratio[k]} of that at K = 1{where})")
    tail = f"; at {_list(open_)} no change is resolved" if open_ else ""
    return f"Variance {' and '.join(parts)}{tail}."


def beyond_scale(k: float, signal: Row, relative: Row) -> bool:
    """Whether a gain that no rescaling gives is resolved: relative variance wholly below that of K = 1.

    Where a signal is not resolved from zero, its quotient tr Cov / |E g|^2 is not trusted.
    """
    if not all(q in row for q in (1.0, k) for row in (signal, relative)):
        return False
    resolved = signal[1.0].above(0.0) and signal[k].above(0.0)
    return resolved and relative[1.0].known and relative[k].below(relative[1.0])


def scale_sentence(k: float, ratio: Interval, signal: Row, relative: Row) -> str:
    """How much of a fall is mere scale (theory.md section 4), by |E g|^2 and tr Cov / |E g|^2 at K and at 1.

    In logarithms the ratio of variances is the ratio of signals times that of relative variances; the first is scale.
    """
    one, at = signal.get(1.0), signal.get(k)
    if one is None or at is None:
        return "How much of that is mere scale is not known: the signal |E g|^2 was not measured at both K."
    if not (one.above(0.0) and at.above(0.0)):
        weak = _list([q for q, cell in ((1.0, one), (k, at)) if not cell.above(0.0)])
        return (
            f"How much of that is mere scale cannot be told: the signal |E g|^2 is not resolved from zero at {weak}; "
            "more trajectories would tell."
        )
    share = math.log(at.value / one.value) / math.log(ratio.value)
    shrank = f"|E g|^2 is {number(at.value / one.value)} of that at K = 1"
    if share <= 0:
        how = f"None of that is mere scale: the mean gradient does not shrink ({shrank})"
    elif share >= 1:
        how = f"All of that is mere scale: the mean gradient shrinks at least as fast ({shrank})"
    else:
        how = f"About {100 * share:.0f} % of that, in logarithms, is mere scale ({shrank})"
    r1, rk = relative.get(1.0), relative.get(k)
    if r1 is None or rk is None:
        return f"{how}; the relative variance was not measured."
    if beyond_scale(k, signal, relative):
        return f"{how}, yet the scale-free relative variance tr Cov / |E g|^2 falls too, from {r1} to {rk}."
    if rk.above(r1) and r1.known:
        return f"{how}, and the scale-free relative variance tr Cov / |E g|^2 rises, from {r1} to {rk}."
    return (
        f"{how}; no gain beyond scale is resolved, since the relative variance tr Cov / |E g|^2 is {rk} "
        f"against {r1} at K = 1."
    )


def bias_sentence(k: float, bias: Row, signal: Row) -> str:
    """At what bias, eq. (7): a bias is claimed only where the interval of its square excludes zero."""
    at, one = bias.get(k), signal.get(1.0)
    if at is None:
        return f"The bias at {_kernel(k)} was not measured."
    if not at.above(0.0):
        return f"The squared bias at {_kernel(k)}, {at}, is not resolved from zero."
    part = f", {100 * at.value / one.value:.0f} % of |g*|^2" if one is not None and one.above(0.0) else ""
    return f"The price at {_kernel(k)} is a squared bias of {at}{part}."


def best_sentence(left: Mapping[str, float] | None, efficiency: Mapping[float | str, Interval]) -> str:
    """Which estimator points best, eq. (11'), beside K = 1; or which cannot be told apart.

    Args:
        left: the estimators that may be the best, of :func:`kvar.intervals.candidates`; None where the efficiency was
            not measured.
        efficiency: of every estimator.
    """
    if left is None:
        return "Which estimator points best is not known: the efficiency was not measured."
    if len(left) != 1:
        return f"Which estimator points best is {clause(left)}."
    ((name, chance),) = left.items()
    against = f", against {efficiency['K=1']} of K=1" if name != "K=1" and "K=1" in efficiency else ""
    return f"{name} points best, with probability {chance:.2f}: its efficiency is {efficiency[name]}{against}."


def _clearest(snr: Mapping[float | str, Interval]) -> tuple[str, list[str]]:
    """The estimator of the largest SNR, and those whose interval lies wholly below its own; ``data`` cannot be it."""
    known = [name for name in snr if snr[name].known and name != DATA]
    first = max(known, key=lambda name: snr[name].value, default="")
    return str(first), [str(name) for name in snr if first and snr[first].above(snr[name])]


def noise_sentence(snr: Mapping[float | str, Interval]) -> str:
    """Which estimator has the largest SNR, eq. (12), and above which others that is resolved.

    Args:
        snr: estimator -> SNR.
    """
    first, above = _clearest(snr)
    if not above:
        return "Which estimator has the most signal for its noise (largest SNR) is not resolved: the intervals overlap."
    than = f" against {snr['K=1']} of K=1" if "K=1" in above else ""
    others = "those of all others" if len(above) == len(snr) - 1 > 1 else f"that of {', '.join(above)}"
    return (
        f"{first} has the most signal for its noise (largest SNR): the SNR of a step is {snr[first]}{than}; its "
        f"interval lies above {others}."
    )


def lead_sentences(
    best: Mapping[str, Mapping[str, float]], snr: Mapping[str, Mapping[float | str, Interval]]
) -> list[str]:
    """In how many of several students the best estimator is resolved, and the one of largest SNR, and which it is.

    Args:
        best: student's label -> the estimators that may be the best.
        snr: student's label -> estimator -> SNR.
    """
    pointing = {label: next(iter(left)) for label, left in best.items() if len(left) == 1}
    clear = {label: first for label, row in snr.items() for first, above in [_clearest(row)] if "K=1" in above}
    return [
        f"Which estimator points best is resolved in {_where(pointing, len(best))}.",
        f"A larger SNR than that of K=1 is resolved in {_where(clear, len(best))}.",
    ]


def _where(winners: Mapping[str, str], students: int) -> str:
    """How many students have a winner, then each winner's students: by label where they are few."""
    by_name: dict[str, list[str]] = {}
    for label, name in winners.items():
        by_name.setdefault(name, []).append(label)
    which = [f"{name} in {' and '.join(who) if students <= 4 else len(who)}" for name, who in by_name.items()]
    return f"{len(winners)} of {students} students{': ' * bool(which)}{', '.join(which)}"


def size_sentence(ratios: Mapping[str, Row], sizes: Mapping[str, int], labels: Mapping[str, str]) -> str:
    """Does the effect depend on student size: only where intervals of different students do not overlap.

    Args:
        ratios: student -> K -> variance ratio.
        sizes: student -> parameters.
        labels: student -> how to call it.
    """
    ordered = sorted(ratios, key=lambda name: (sizes[name], name))
    if len({sizes[name] for name in ordered}) < 2:
        return "Whether the effect depends on student size is not known: variance ratios of one size only."
    shared = [
        float(k) for k in ratios[ordered[0]] if k != 1.0 and all(k in ratios[n] and ratios[n][k].known for n in ordered)
    ]
    if not shared:
        return (
            "Whether the effect depends on student size is not known: no K has a ratio and interval for every student."
        )
    k = reference_k(shared)
    at = {name: ratios[name][k] for name in ordered}
    small, large = ordered[0], ordered[-1]
    both = f"{at[small]} for {labels[small]}, {at[large]} for {labels[large]}"
    where = f"the variance ratio at {_kernel(k)}"
    if at[large].below(at[small]):
        return f"The effect depends on student size: {where} is lower for the largest student ({both})."
    if at[large].above(at[small]):
        return f"The effect depends on student size: {where} is higher for the largest student ({both})."
    if max(cell.low for cell in at.values()) > min(cell.high for cell in at.values()):
        named = list(at)
        if len(at) > 6:
            named = [min(at, key=lambda name: at[name].value), max(at, key=lambda name: at[name].value)]
        every = (", " if named == list(at) else " to ").join(f"{at[name]} for {labels[name]}" for name in named)
        return f"The effect differs between students, but not from the smallest to the largest: {where} is {every}."
    return f"No dependence on student size is resolved: {where} is {both}, and the intervals overlap."
