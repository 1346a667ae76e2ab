"""One million recorded trajectories of 64 tokens: the time and memory of every table made from them.

    python -m benchmarks.records [--trajectories 1000000] [--folder FOLDER]

Trajectories come in measurements of 1,024, as a probe writes them, with gradient moments of four estimators. Each table
is made in a process of its own (gradient statistics by two more); the peak resident memory, of the largest process, is
the operating system's own count.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PER_PROBE, TOKENS, KERNELS = 1024, 64, ("K=1", "K=2", "K=4", "immediate")

TABLES = {
    "returns of five kernels": "return_statistics(run, [*map(parse_kernel, KERNELS), Geometric(0.9)])",
    "gap autocorrelation": "gap_autocorrelation(run, lags=16)",
    "gradient statistics, two processes": "statistics_of(run, 'student', reference='K=1', processes=2)",
}

READ = """
import json, resource, sys, time
import torch
import kvar
from benchmarks.records import KERNELS
from kvar.analysis.return_statistics import gap_autocorrelation, return_statistics
from kvar.analysis.frames.recorded import statistics_of
from kvar.returns import Geometric, parse_kernel

if __name__ == "__main__":
    torch.set_num_threads({threads})
    start = time.perf_counter()
    run = kvar.load(sys.argv[1])
    table = {expression}
    took = time.perf_counter() - start
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps(dict(seconds=took, rows=len(table), gib=max(peaks) / 2**20)))
"""


def write(folder: Path, trajectories: int) -> int:
    """Write a run; returns its size on disk in bytes."""
    import torch

    from kvar.analysis.exact import moments_of
    from kvar.gradients.frames import gradient_frame, prompt_frame, trajectory_frame
    from kvar.records import RunWriter
    from kvar.returns import TokenValues
    from kvar.rollouts import Rollouts

    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(PER_PROBE, TOKENS, dtype=torch.bool)
    prompts = torch.arange(PER_PROBE) // 4
    with RunWriter(folder, {"parameters": 1}) as writer:
        for step in range(-(-trajectories // PER_PROBE)):
            v = torch.rand(PER_PROBE, TOKENS, generator=generator, dtype=torch.float64)
            gap = torch.rand(PER_PROBE, TOKENS, generator=generator, dtype=torch.float64)
            tokens = torch.randint(4000, mask.shape, generator=generator)
            rollouts = Rollouts(
                prompt_ids=prompts[:, None], prompt_mask=torch.ones(PER_PROBE, 1, dtype=torch.bool), tokens=tokens,
                mask=mask, finished=mask[:, 0], prompt_index=prompts, log_probs=-v,
            )  # fmt: skip
            g = 1 + torch.randn(len(KERNELS), PER_PROBE, 20, generator=generator)
            moments = moments_of(g, prompts, KERNELS)
            at = {"probe": "probe", "step": step}
            writer.append(
                "trajectories", trajectory_frame(rollouts, TokenValues(v - gap, v), **at), key=("probe", step)
            )
            writer.append("gradients", gradient_frame(moments, **at), key=("probe", step))
            writer.append("prompt_gradients", prompt_frame(moments, **at), key=("probe", step))
            if step % 100 == 99:
                print(f"  {(step + 1) * PER_PROBE:,} trajectories written", flush=True)
    return sum(path.stat().st_size for path in folder.rglob("*.parquet"))


def main() -> None:
    """Write the run, make each table, print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where to write; a folder that is thrown away by default")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch) / "run"
        start = time.perf_counter()
        size = write(folder, arguments.trajectories)
        print(f"{arguments.trajectories:,} trajectories of {TOKENS} tokens: {size / 2**30:.2f} GiB on disk, ", end="")
        print(f"written in {time.perf_counter() - start:.0f} s")
        print("| table | rows | seconds | peak memory, GiB |\n|---|---:|---:|---:|")
        for name, expression in TABLES.items():
            script = Path(scratch) / "read.py"
            script.write_text(READ.format(expression=expression, threads=arguments.threads))
            here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
            command = [sys.executable, str(script), str(folder)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=here)
            found = json.loads(done.stdout.splitlines()[-1])
            print(f"| {name} | {found['rows']:,} | {found['seconds']:.1f} | {found['gib']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
