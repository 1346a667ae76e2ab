"""What one pass costs on families of models beyond T5 and GPT-2, beside a plain training step.

python -m benchmarks.families                 measure all; write families.csv and FAMILIES.md's table
python -m benchmarks.families --only Cohere   some of them; the others' rows stay
python -m benchmarks.families --render        the table again from families.csv
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import statistics
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

HERE = Path(__file__).parent
JOBS = ("plain step", "one-pass, norms", "one-pass, all fields")


def measured(name: str, rounds: int) -> list[dict[str, object]]:
    """One row a job: seconds, peak memory and operations, and their ratios to the plain step's."""
    import torch
    import transformers

    from benchmarks.contestants import CONTESTANTS
    from benchmarks.measure import interleaved, machine, operations, peak_memory
    from benchmarks.students import family

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    warnings.filterwarnings("error", message="no rule covers")
    case, on = family(name), machine()
    few = case.rows(4)
    jobs = {job: CONTESTANTS[job](case) for job in JOBS}
    small = {job: CONTESTANTS[job](few) for job in JOBS}
    memory = {job: peak_memory(jobs[job], small[job]) for job in JOBS}  # type: ignore[arg-type]
    flops = {job: operations(run) for job, run in jobs.items()}  # type: ignore[arg-type]
    seconds = interleaved(jobs, rounds)  # type: ignore[arg-type]
    unit = seconds["plain step"]
    return [
        {
            "student": name, "parameters": case.parameters, "job": job, "rounds": rounds,
            "seconds_min": min(seconds[job]), "steps_min": min(seconds[job]) / min(unit),
            "steps_median": statistics.median(seconds[job]) / statistics.median(unit),
            "flop_ratio": flops[job] / flops["plain step"], "memory_ratio": memory[job] / memory["plain step"],
            "memory_bytes": memory[job], "machine": on,
        }
        for job in JOBS
    ]  # fmt: skip


def render() -> None:
    """The table of FAMILIES.md, from families.csv."""
    import pandas as pd

    frame = pd.read_csv(HERE / "families.csv")
    lines = [
        "| student | M parameters | norms, plain steps: min | median | operations | memory | all fields: min "
        "| operations | memory | plain step, ms |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for student, rows in frame.groupby("student", sort=False):
        plain, norms, every = (rows[rows["job"] == job].iloc[0] for job in JOBS)
        cells = [
            f"{plain['parameters'] / 1e6:.2f}",
            *(f"{norms[c]:.2f}" for c in ("steps_min", "steps_median", "flop_ratio", "memory_ratio")),
            *(f"{every[c]:.2f}" for c in ("steps_min", "flop_ratio", "memory_ratio")),
            f"{plain['seconds_min'] * 1e3:,.0f}",
        ]
        lines.append(f"| {student} | {' | '.join(cells)} |")
    general = frame["machine"].str.replace(r" load average.*?matrix product,", "", regex=True).unique()
    loads = frame["machine"].str.extract(r"load average ([\d.]+)")[0].astype(float)
    machine = f"{'; '.join(general)}; load average {loads.min():.1f} to {loads.max():.1f}."
    page = HERE / "FAMILIES.md"
    text = page.read_text()
    for mark, body in (("machine", machine), ("costs", "\n".join(lines))):
        pattern = rf"(<!-- {mark} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda m, b=body: f"{m[1]}{b}\n{m[2]}", text, flags=re.DOTALL)
    page.write_text(text)


def main() -> None:
    """The command line."""
    import pandas as pd

    from benchmarks.students import FAMILIES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FAMILIES, metavar="STUDENT", help=", ".join(FAMILIES))
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: 5)")
    parser.add_argument("--render", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    data = HERE / "families.csv"
    for name in () if arguments.render else arguments.only or FAMILIES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # so that no memory freed earlier is used again
            new = pd.DataFrame(pool.apply(measured, (name, arguments.rounds)))
        if data.exists():
            old = pd.read_csv(data)
            new = pd.concat([old[old["student"] != name], new], ignore_index=True)
        new.to_csv(data, index=False, float_format="%.6g")
        print(new[new["student"] == name].drop(columns="machine").to_string(index=False), flush=True)
    render()


if __name__ == "__main__":
    main()
