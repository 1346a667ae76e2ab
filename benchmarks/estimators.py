"""What exact sums cost: six estimators of one reward with exact terms beside six sets of token weights.

python -m benchmarks.estimators              measure T5 of 9.4 M; write estimators.csv and ESTIMATORS.md's table
python -m benchmarks.estimators --quick      T5 of 1 M, fewer rounds, printed alone
python -m benchmarks.estimators --render     the table again from estimators.csv
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import re
import statistics
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

HERE = Path(__file__).parent
WEIGHTS = "K=1, K=2, K=4, K=8, immediate, K=1 - position-mean"
EXACT = (
    "kl immediate exact, kl K=1 exact, kl K=1 exact expected, kl K=4 free exact expected, "
    "kl geometric(0.9) exact expected, kl K=1 exact expected - position-mean"
)
LIMIT = 1.3
"""Most times the moments of the weights that those with exact terms are to take."""
COLUMNS = (
    "contestant",
    "estimators",
    "ratio_to",
    "seconds_min",
    "seconds_median",
    "ratio",
    "memory_bytes",
    "memory_ratio",
)


def jobs_of(size: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The jobs by name, and the same with 4 trajectories."""
    import torch
    import transformers

    from benchmarks import cases
    from kvar.estimators import gather, parse_estimators
    from kvar.gradients import gradient_moments
    from kvar.hooks import estimator_weights
    from kvar.rollouts import score
    from tests.cases import CASES

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    case = cases.case("t5", size)
    torch.manual_seed(7)
    teacher = CASES["t5"](cases.SIZES[size]["t5"])
    plain, exact = parse_estimators(WEIGHTS), parse_estimators(EXACT)

    def of(n: int) -> dict[str, Any]:
        student, rollouts = case.student, case.rollouts[:n]
        values = score(teacher, rollouts)
        weights = estimator_weights(plain, values, rollouts.mask, rollouts.prompt_index)
        evidence = gather(student, teacher, rollouts, estimators=exact)
        jobs: dict[str, Any] = {}
        for fields in ("norms", "all"):
            jobs[f"token weights, {fields}"] = lambda f=fields: gradient_moments(student, rollouts, weights, fields=f)
            jobs[f"exact terms, {fields}"] = lambda f=fields: gradient_moments(
                student, rollouts, (evidence, exact), fields=f
            )
        jobs["score (for token weights)"] = lambda: score(teacher, rollouts)
        jobs["gather (for exact terms)"] = lambda: gather(student, teacher, rollouts, estimators=exact)
        return jobs

    return of(len(case.rollouts)), of(4)


def memories(size: str) -> dict[str, float]:
    """Bytes of each job at its peak; what was freed before is given back, so that no job uses it again uncounted."""
    import ctypes

    from benchmarks.measure import _M_MMAP_THRESHOLD, peak_memory

    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 16)
    jobs, few = jobs_of(size)
    return {name: peak_memory(job, few[name]) for name, job in jobs.items()}


def times(size: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each job in each round."""
    from benchmarks.measure import interleaved

    jobs, few = jobs_of(size)
    for job in few.values():
        job()
    return interleaved(jobs, rounds)


def measured(size: str, rounds: int) -> list[dict[str, Any]]:
    """One row a job, its ratios to the job of token weights that it stands beside; processes of their own measure."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        memory = pool.apply(memories, (size,))
    with context.Pool(1) as pool:
        seconds = pool.apply(times, (size, rounds))
    beside = {name: name.replace("exact terms", "token weights") for name in seconds}
    beside["gather (for exact terms)"] = "score (for token weights)"
    return [
        {
            "contestant": name,
            "ratio_to": beside[name],
            "seconds_min": min(found),
            "seconds_median": statistics.median(found),
            "ratio": min(found) / min(seconds[beside[name]]),
            "memory_bytes": memory[name],
            "memory_ratio": memory[name] / (memory[beside[name]] or float("nan")),
        }
        for name, found in seconds.items()
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = [
        "| job | ms: min | median | times its token weights | peak memory, MiB | times |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        ms = [f"{1000 * float(row[name]):,.0f}" for name in ("seconds_min", "seconds_median")]
        memory = f"{float(row['memory_bytes']) / 2**20:,.0f} | {float(row['memory_ratio']):.2f}"
        lines.append(f"| {row['contestant']} | {ms[0]} | {ms[1]} | {float(row['ratio']):.2f} | {memory} |")
    return "\n".join(lines)


def render(rows: list[dict[str, Any]], machine: str | None = None) -> None:
    """Put the table, and the machine where it was measured now, between ESTIMATORS.md's marks."""
    page = HERE / "ESTIMATORS.md"
    text = page.read_text(encoding="utf-8")
    for mark, new in {"costs": table(rows), "machine": machine}.items():
        if new is not None:
            text = re.sub(rf"(<!-- {mark} -->\n).*?(\n<!-- end -->)", rf"\g<1>{new}\g<2>", text, flags=re.DOTALL)
    page.write_text(text, encoding="utf-8")


def main() -> None:
    """Measure or render."""
    import pandas as pd
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="T5 of 1 M alone, printed")
    parser.add_argument("--render", action="store_true", help="the page again from estimators.csv")
    parser.add_argument("--rounds", type=int, default=7, help="rounds in turn")
    arguments = parser.parse_args()
    if arguments.render:
        render(pd.read_csv(HERE / "estimators.csv").to_dict("records"))
        return
    rows = measured("1M" if arguments.quick else "9M", 3 if arguments.quick else arguments.rounds)
    print(table(rows))
    if arguments.quick:
        return
    pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(HERE / "estimators.csv", index=False, float_format="%.6g")
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    render(rows, f"{os.cpu_count()} cores, 1 thread used, {versions}; load average {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
