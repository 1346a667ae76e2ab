"""Made-up statistics frames of a plausible shape, for the tests of figures and reports."""

from __future__ import annotations

import numpy as np
import pandas as pd

SIZES = {"small": 22_000, "medium": 90_000, "large": 500_000}
KS = {"K=1": 1.0, "K=2": 2.0, "K=4": 4.0, "K=8": 8.0, "immediate": float("inf")}
_RATIO = dict(zip(KS, (1.0, 0.25, 0.079, 0.029, 0.015), strict=True))
_SIGNAL = dict(zip(KS, (0.0044, 0.0013, 0.0005, 0.0003, 0.0002), strict=True))
_BIAS = dict(zip(KS, (0.0, 0.0010, 0.0022, 0.0037, -0.0004), strict=True))
_ETA = {
    "small": (0.035, 0.05, 0.065, 0.06, 0.04),
    "medium": (0.032, 0.08, 0.15, 0.231, 0.2),
    "large": (0.004, 0.03, 0.09, 0.149, 0.12),
}
_CHANCE = {
    "small": (0.05, 0.2, 0.4, 0.3, 0.05),
    "medium": (0.0, 0.0, 0.02, 0.97, 0.01),
    "large": (0.0, 0.01, 0.09, 0.7, 0.2),
}


def row(
    student: str, kernel: str, statistic: str, value: float, low: float, high: float, step: int = 0, **more: object
) -> dict[str, object]:
    """One observation; ``more`` replaces parameters, k, group or n."""
    base = {
        "student": student, "parameters": SIZES.get(student, 1_000), "step": step, "group": "all", "kernel": kernel,
        "k": KS.get(kernel, float("nan")), "statistic": statistic, "value": value, "low": low, "high": high, "n": 256,
    }  # fmt: skip
    return base | more


def study(steps: tuple[int, ...] = (0, 100, 200), students: tuple[str, ...] = tuple(SIZES)) -> pd.DataFrame:
    """Three students, five kernels, every statistic, a few training steps; seeded."""
    noise = np.random.default_rng(0)
    rows = []
    for s, student in enumerate(students):
        for step in steps:
            unit = 0.6 * 3.0**s * (1 - step / 500)
            for e, kernel in enumerate(KS):
                ratio = _RATIO[kernel] ** (1 + 0.03 * s) * (1 if e == 0 else float(np.exp(noise.normal(0, 0.04))))
                exact = e == 0
                trace, signal, bias = unit * ratio, unit * _SIGNAL[kernel], unit * _BIAS[kernel]
                eta, chance = _ETA[student][e], _CHANCE[student][e]

                def add(statistic, value, rel=0.0, ab=0.0, known=True, key=(student, kernel), step=step):
                    half = abs(value) * rel + ab
                    ends = (value - half, value + half) if known else (np.nan, np.nan)
                    rows.append(row(*key, statistic, value, *ends, step=step))

                add("trace", trace, 0.15)
                add("trace_ratio", ratio, 0.0 if exact else 0.18)
                add("trace_ratio_t0", ratio * (1 if exact else 1.3 + 0.1 * e), known=False)
                add("trace_ratio_t1", ratio * (1 if exact else 1.2 + 0.05 * e), known=False)
                add("calibration_t0", 1.0 if exact else 1.3 + 0.1 * e, 0.0 if exact else 0.08)
                add("calibration_t1", 1.0 if exact else 1.2 + 0.05 * e, 0.0 if exact else 0.08)
                add("signal", signal, 0.3, 0.0001 * unit)
                add("snr", 256 * signal / trace, 0.35)
                add("norm_test", trace / signal / 64, 0.2)
                add("relative_variance", trace / signal, 0.2)
                add("bias_sq", bias, 0.0 if exact else 0.2, 0.0 if exact else 0.0003 * unit)
                add("efficiency", eta, 0.3, 0.005)
                add("mse", max(bias, 0.0) + trace / 64, 0.2)
                add("within", trace * (0.99 - 0.03 * e), 0.1)
                add("between", trace * (0.01 + 0.03 * e), 0.1)
                add("within_share", 0.99 - 0.03 * e, 0.02)
                add("best_probability", chance, known=False)
                add("mse_best_probability", _CHANCE[student][4 - e], known=False)
                add("score_power", 40.0 * 2.0**s, 0.05)
                add("variance_per_score_power", trace / (40.0 * 2.0**s), 0.15)
    return pd.DataFrame(rows)


def layers(step: int = 200) -> pd.DataFrame:
    """The last step of :func:`study` with three parameter groups beside "all"."""
    whole = study()
    whole = whole[whole["step"] == step]
    shares = {"embeddings": 0.01, "encoder.block.0": 0.2, "decoder.block.0": 0.79}
    parts = []
    for group, share in shares.items():
        scale = np.where(whole["statistic"] == "trace", share, 1.0)
        parts.append(whole.assign(group=group, **{end: whole[end] * scale for end in ("value", "low", "high")}))
    return pd.concat([whole, *parts], ignore_index=True)


def positions() -> pd.DataFrame:
    """A table of ``kvar.analysis.by_position``: two students, two kernels, three ranges."""
    rows = []
    for s, student in enumerate(("small", "large")):
        for e, kernel in enumerate(("K=1", "immediate")):
            for (first, last), share in zip(
                ((0, 3), (4, 9), (10, 31)), (0.6 - 0.1 * e, 0.5, -0.1 + 0.1 * e), strict=True
            ):
                own = max(abs(share), 0.01) * 10.0**-e * (1 + s)
                rows.append((student, kernel, first, last, own, own / 2, own * 2, share, share - 0.1, share + 0.1, 64))
    names = [
        "student",
        "kernel",
        "first",
        "last",
        "own",
        "own_low",
        "own_high",
        "share",
        "share_low",
        "share_high",
        "n",
    ]
    return pd.DataFrame(rows, columns=names)


def autocorrelation() -> pd.DataFrame:
    """A table of ``gap_autocorrelation`` for two students and two steps."""
    rows = []
    for s, student in enumerate(("large", "small")):
        for step in (0, 100):
            for lag in range(6):
                rho = (0.5 - 0.1 * s - step / 1000) ** lag if lag else 1.0
                half = 0.05 if lag else 0.0
                rows.append((student, SIZES[student], "probe", step, lag, rho, rho - half, rho + half, 64))
    names = ["student", "parameters", "probe", "step", "lag", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=names)


def breakdown() -> pd.DataFrame:
    """A table of ``kvar.analysis.theory.breakdown`` for three kernels; the terms add up to the trace."""
    from kvar.analysis.theory import TERMS

    rows = []
    for kernel, trace, shares in (
        ("K=1", 50.0, (0.7, 0.1, 0.02, 0.2, -0.05, 0.04, -0.01)),
        ("K=4", 4.0, (0.9, 0.05, -0.02, 0.1, 0.0, -0.02, -0.01)),
        ("immediate", 1.0, (1.6, 0.0, 0.0, 0.0, -0.6, 0.01, -0.01)),
    ):
        for term, share in (*zip(TERMS, shares, strict=True), ("trace", 1.0)):
            value = share * trace
            rows.append(("small", kernel, term, value, value - 0.05 * trace, value + 0.05 * trace, share, 64))
    return pd.DataFrame(rows, columns=["student", "kernel", "term", "value", "low", "high", "share", "n"])
