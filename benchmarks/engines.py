"""What the gradient engines cost, beside a plain training step and beside other libraries.

python -m benchmarks.engines                 measure everything; write engines.csv, the plot and README's tables
python -m benchmarks.engines --quick         the small sizes alone, fewer rounds, into runs/benchmarks/
python -m benchmarks.engines --only t5-9M    measure some parts again; the others' rows stay
python -m benchmarks.engines --render        the plot and the tables again from engines.csv
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

HERE = Path(__file__).parent
KVAR = ("plain step", "one-pass, norms", "one-pass, all fields", "output layer, pairs", "output layer, all fields")
LOOPS = ("loop, norms", "loop, all fields")
PEERS = ("torch.func vmap", "Opacus, per-sample", "Opacus, ghost norms", "BackPACK, BatchGrad", "BackPACK, BatchL2Grad")
PARTS: dict[str, tuple[str, ...]] = {
    "t5-1M": (*KVAR, *LOOPS, "jvp", "torch.func vmap"),
    "t5-9M": (*KVAR, *LOOPS, "jvp", "torch.func vmap"),
    "gpt2-1M": (*KVAR, *LOOPS, "jvp", "torch.func vmap"),
    "gpt2-9M": KVAR,
    "untied-1M": (*KVAR[:3], *PEERS),
    "untied-9M": (*KVAR[:3], *PEERS),
}
"""Student and size -> who is measured on it."""
CURVES: dict[str, tuple[int, ...]] = {"n": (8, 16, 32, 64), "t": (8, 16, 32, 64), "e": (1, 2, 4, 6, 12)}
"""What grows -> to what, on T5 of 1 M parameters; P is read off the sizes."""


def measure(part: str, rounds: int, fast: bool = False) -> list[dict[str, object]]:
    """The rows of one part: a student at the standard sizes, or a curve."""
    if part in PARTS:
        kind, size = part.split("-")
        rows = compare(part, (kind, size), {}, KVAR if fast else PARTS[part], rounds)
        if kind == "t5":  # a prompt's rollouts make one field more expensive: inner products of prompt means
            names = ("plain step", "one-pass, all fields")
            rows += compare(f"{part}-4", (kind, size), {"rollouts_per_prompt": 4}, names, rounds)
        return rows
    if part == "curve-p":
        return compare(part, ("t5", "0.3M"), {}, KVAR[:3], rounds)
    axis = part.removeprefix("curve-")
    return [row for v in CURVES[axis] for row in compare(part, ("t5", "1M"), {axis: v}, KVAR[:3], rounds)]


def compare(part: str, *what: object) -> list[dict[str, object]]:
    """As ``compared``, in a new process, so that no memory freed earlier is used again unseen."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(compared, (part, *what))


def compared(
    part: str, student: tuple[str, str], sizes: dict[str, int], names: tuple[str, ...], rounds: int
) -> list[dict[str, object]]:
    """One row a contestant: seconds, peak memory and operations, and their ratios to the plain step's."""
    import statistics

    import torch
    import transformers

    from benchmarks import cases
    from benchmarks.contestants import CONTESTANTS, SLOW, scale
    from benchmarks.measure import interleaved, operations, peak_memory

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    case = cases.case(*student, **sizes)
    jobs, small, memory, flops = {}, {}, {}, {}
    for name in names:
        few, job = CONTESTANTS[name](case.rows(4)), CONTESTANTS[name](case)
        if few is None or job is None:
            print(f"  {name}: not installed, left out", flush=True)
            continue
        small[name], jobs[name] = few, job
    for name, job in jobs.items():  # before anything has run here: a child would use freed memory again, uncounted
        memory[name] = peak_memory(job, small[name])
    for few in small.values():
        few()
    for name, job in jobs.items():
        counted = name not in SLOW or case.size != "9M"  # a second run of what takes minutes
        flops[name] = operations(job) * scale(name, case) if counted else float("nan")
    seconds = interleaved(jobs, rounds, once=SLOW if case.size == "9M" else ())
    unit = seconds["plain step"]
    rows = []
    for name, found in seconds.items():
        found = [s * scale(name, case) for s in found]
        e, n, t = case.weights.shape
        rows.append(
            {
                "part": part, "kind": case.kind, "size": case.size, "parameters": case.parameters,
                "estimators": e, "trajectories": n, "tokens": t, "contestant": name, "rounds": len(found),
                "seconds_min": min(found), "seconds_median": statistics.median(found),
                "steps_min": min(found) / min(unit), "steps_median": statistics.median(found) / statistics.median(unit),
                "memory_bytes": memory[name], "memory_ratio": memory[name] / (memory["plain step"] or float("nan")),
                "flop": flops[name], "flop_ratio": flops[name] / flops["plain step"],
            }
        )  # fmt: skip
        shown = rows[-1]
        print(f"  {name}: {shown['steps_min']:.2f} steps (median {shown['steps_median']:.2f}), ", end="")
        print(f"memory {shown['memory_ratio']:.2f}, operations {shown['flop_ratio']:.2f}", flush=True)
    return rows


def main() -> None:
    """The command line."""
    parts = [*PARTS, *(f"curve-{axis}" for axis in ("p", *CURVES))]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="sizes of 1 M alone, two rounds, into runs/benchmarks/")
    parser.add_argument("--only", nargs="+", choices=parts, metavar="PART", help=f"some of: {', '.join(parts)}")
    parser.add_argument("--rounds", type=int, default=4, help="interleaved rounds (default: 4)")
    parser.add_argument("--fast", action="store_true", help="without the loop, jvp and other libraries")
    parser.add_argument("--render", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    where = Path("runs/benchmarks") if arguments.quick else HERE
    where.mkdir(parents=True, exist_ok=True)
    data = where / "engines.csv"
    if not arguments.render:
        chosen = arguments.only or [p for p in parts if not arguments.quick or p.endswith("-1M")]
        _measure_all(chosen, 2 if arguments.quick else arguments.rounds, data, arguments.fast)

    import pandas as pd

    from benchmarks import plot, tables

    frame = pd.read_csv(data)
    plot.draw(frame, where / "engines")
    if arguments.quick:
        print(tables.costs(frame))
    else:
        tables.write(frame, HERE / "README.md")


def _measure_all(parts: list[str], rounds: int, data: Path, fast: bool) -> None:
    """Each part's rows replace those of the same part; written after each, so that a killed run can be taken up."""
    import pandas as pd
    import torch

    from benchmarks.measure import machine

    torch.set_num_threads(1)
    for part in parts:
        start, on = time.time(), machine()
        print(f"{part} ({on})", flush=True)
        new = pd.DataFrame(measure(part, rounds, fast)).assign(machine=on)
        if data.exists():
            old = pd.read_csv(data)
            new = pd.concat([old[~old["part"].isin([part, f"{part}-4"])], new], ignore_index=True)
        new.to_csv(data, index=False, float_format="%.6g")
        print(f"  {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
