"""Made-up frames of a study with seeds, for the tests of figures with panels; seeded."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from tests.plots.statistics_frames import KS

TASKS = ("translation", "sums")
STUDENTS = {"small": 52_000, "large": 420_000}
METHODS = ("llmr", "K=2", "K=4", "immediate")


def curves() -> pd.DataFrame:
    """Learning curves of four methods, three seeds and three steps; "kl" has a loss alone."""
    noise = np.random.default_rng(0)
    rows = []
    for task, student, (m, method), seed, step in product(
        TASKS, STUDENTS, enumerate((*METHODS, "kl")), range(3), (10, 20, 30)
    ):
        for quantity in ("loss",) if method == "kl" else ("loss", "total_gap", "response_length"):
            value = 50 - step / 2 - 3 * m + 5 * seed + noise.normal()
            rows.append((task, student, STUDENTS[student], method, seed, step, quantity, value))
    names = ["task", "student", "parameters", "method", "seed", "step", "quantity", "value"]
    return pd.DataFrame(rows, columns=names)


def points() -> pd.DataFrame:
    """A gain for every method and seed that falls as x grows, without noise in the order."""
    rows = [
        (task, student, STUDENTS[student], method, seed, 0.1 * (m + 1) + 0.01 * seed, 5.0 - m + 0.2 * seed)
        for task, student, (m, method), seed in product(TASKS, STUDENTS, enumerate(METHODS), range(3))
    ]
    return pd.DataFrame(rows, columns=["task", "student", "parameters", "method", "seed", "x", "y"])


def kernels() -> pd.DataFrame:
    """Statistics of five kernels, combined over seeds."""
    rows = []
    for task, (s, student), (i, (kernel, k)) in product(TASKS, enumerate(STUDENTS), enumerate(KS.items())):
        ratio = 0.3**i * (1 + 0.2 * s)
        values = {
            "trace_ratio": ratio,
            "bias_in_noise": 0.02 * i - 0.01,
            "mse_in_noise": ratio + 0.03 * i,
            "efficiency": 0.1 + 0.02 * i,
        }
        for statistic, value in values.items():
            half = 0.2 * abs(value)
            where = (task, student, STUDENTS[student], 0, "all", kernel, k)
            rows.append((*where, statistic, value, value - half, value + half, 3))
    columns = [
        "task",
        "student",
        "parameters",
        "step",
        "group",
        "kernel",
        "k",
        "statistic",
        "value",
        "low",
        "high",
        "n",
    ]
    return pd.DataFrame(rows, columns=columns)


def chances() -> pd.DataFrame:
    """Probabilities of five kernels at two occasions."""
    p = dict(zip(KS.values(), (0.05, 0.1, 0.6, 0.2, 0.05), strict=True))
    rows = [
        (task, student, STUDENTS[student], when, k, chance)
        for task, student, when, (k, chance) in product(TASKS, STUDENTS, ("at the start", "after llmr"), p.items())
    ]
    return pd.DataFrame(rows, columns=["task", "student", "parameters", "when", "k", "probability"])
