"""What measuring costs on one card, from 0.1 to 1.5 B parameters; writes benchmarks/GPU.md.

python -m benchmarks.gpu                                  every size, ten minutes at most; skipped without a CUDA device
python -m benchmarks.gpu --only qwen3-0.6B t5-0.8B        some sizes
python -m benchmarks.gpu --device cpu --sizes tiny        the same code in seconds, into runs/benchmarks/GPU.md

Models are made from configs with random weights, so that no network is needed. A size that does not fit, or whose share
of the time is over, leaves its cells empty.
"""

from __future__ import annotations

import argparse
import gc
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import rollouts_of
from kvar.gradients import gradient_moments
from kvar.rollouts import Rollouts, log_probs, sample

HERE = Path(__file__).parent
PRECISIONS = ("float32", "bf16 autocast", "bf16 weights")
ESTIMATORS, ROUNDS, BUDGET = 6, 5, 540.0


def _t5(d: int, inner: int, layers: int, heads: int, vocabulary: int = 32128) -> dict[str, Any]:
    return {
        "model_type": "t5", "vocab_size": vocabulary, "d_model": d, "d_kv": d // heads, "d_ff": inner,
        "num_layers": layers, "num_heads": heads, "dropout_rate": 0.0, "feed_forward_proj": "gated-gelu",
        "decoder_start_token_id": 0,
    }  # fmt: skip


def _qwen3(d: int, inner: int, layers: int, heads: int, vocabulary: int = 151936) -> dict[str, Any]:
    return {
        "model_type": "qwen3", "vocab_size": vocabulary, "hidden_size": d, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": heads // 2,
        "head_dim": 128 if d >= 1024 else d // heads, "tie_word_embeddings": True, "pad_token_id": 0,
        "eos_token_id": 1, "bos_token_id": 2,
    }  # fmt: skip


CONFIGS: dict[str, dict[str, Any]] = {
    "t5-tiny": _t5(16, 24, 1, 2, 64),
    "qwen3-tiny": _qwen3(16, 24, 1, 2, 64),
    "t5-small": _t5(384, 1024, 6, 6, 8000),
    "qwen3-small": _qwen3(512, 1536, 8, 8, 8000),
    "gpt2-0.1B": {"model_type": "gpt2", "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "pad_token_id": 0},
    "t5-0.25B": _t5(768, 2048, 12, 12),
    "qwen3-0.6B": _qwen3(1024, 3072, 28, 16),
    "t5-0.8B": _t5(1024, 2816, 24, 16),
    "qwen3-1.5B": _qwen3(2048, 6144, 24, 16),
}
"""Student -> config: shapes of flan-t5-base and -large, of Qwen3's 0.6 B and, with four layers fewer, its 1.7 B."""
SIZES = {"tiny": ("t5-tiny", "qwen3-tiny"), "all": ("gpt2-0.1B", "t5-0.25B", "qwen3-0.6B", "t5-0.8B", "qwen3-1.5B")}
COLUMNS = ("plain ms", "norms", "all fields", "tokens/s", "training GB", "memory norms", "memory all fields")


@dataclass(frozen=True)
class Cell:
    """A student and its batch: N rollouts of T tokens after S prompt tokens."""

    kind: str
    size: str
    n: int = 16
    s: int = 64
    t: int = 128

    @property
    def name(self) -> str:
        """Of the config."""
        return f"{self.kind}-{self.size}"


@contextmanager
def in_precision(model: Any, precision: str, device: str) -> Iterator[None]:
    """A block in float32 without TF32, under bfloat16 autocast, or with the model's weights in bfloat16 (for good)."""
    if precision == "bf16 weights":
        model.bfloat16()
    auto: AbstractContextManager[Any] = torch.autocast(device, torch.bfloat16)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with auto if precision == "bf16 autocast" else nullcontext():
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def built(name: str, device: str) -> Any:
    """The student of a config, with random weights, in float32 and eval mode."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    fields = dict(CONFIGS[name])
    config = CONFIG_MAPPING[fields.pop("model_type")](**fields)
    torch.manual_seed(0)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.device(device):
        return auto.from_config(config, dtype=torch.float32).eval()


def measured_cell(
    cell: Cell, precision: str, device: str, *, rounds: int = ROUNDS, deadline: float = float("inf")
) -> dict[str, float]:
    """One row's numbers, as many as can be had in memory and before ``deadline`` (``time.monotonic``).

    ``plain ms`` is forward and backward of one estimator, ``norms`` and ``all fields`` are in plain steps, ``training
    GB`` is the peak of a step with AdamW, whose state stays, and ``memory ...`` are the peaks of a measurement beside
    that state, divided by it; memory is known on a card only.
    """
    numbers: dict[str, float] = {}
    model = built(cell.name, device)
    with in_precision(model, precision, device):
        data, w = rollouts_of(model.config.vocab_size, cell.n, cell.t, ESTIMATORS, s=cell.s)
        data, w = data.to(device), w.to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

        def plain() -> None:
            model.zero_grad(set_to_none=True)
            (log_probs(model, data, check=False) * w[0]).sum().backward()

        def step() -> None:
            plain()
            optimizer.step()
            model.zero_grad(set_to_none=True)

        jobs: dict[str, Callable[[], Any]] = {
            "plain": plain,
            "norms": lambda: gradient_moments(model, data, w, fields="norms"),
            "all fields": lambda: gradient_moments(model, data, w),
        }
        try:
            step()  # AdamW's state is there from now on
            training = peak(step, device)
            for name, job in jobs.items():
                if time.monotonic() > deadline:
                    return numbers
                job()  # trials and memory pools
                model.zero_grad(set_to_none=True)
                most = peak(job, device)
                seconds = statistics.median(timed(job, rounds, device, deadline))
                model.zero_grad(set_to_none=True)
                if name == "plain":
                    numbers["plain ms"] = 1e3 * seconds
                    numbers |= {"training GB": training / 1e9} if training else {}
                else:
                    numbers[name] = 1e3 * seconds / numbers["plain ms"]
                    numbers |= {f"memory {name}": most / training} if training else {}
            if time.monotonic() < deadline:
                numbers["tokens/s"] = sampled_per_second(model, data, device)
        except torch.OutOfMemoryError:
            print(f"{cell.name}, {precision}: out of memory, the rest of its row is left empty", flush=True)
    return numbers


def peak(job: Callable[[], Any], device: str) -> float:
    """Most bytes allocated on the card while a job runs; 0 elsewhere."""
    if device != "cuda":
        return 0.0
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    job()
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated())


def timed(job: Callable[[], Any], rounds: int, device: str, deadline: float) -> list[float]:
    """Seconds of each run, at least one."""
    seconds: list[float] = []
    while not seconds or (len(seconds) < rounds and time.monotonic() < deadline):
        synchronize(device)
        start = time.perf_counter()
        job()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return seconds


def sampled_per_second(model: Any, data: Rollouts, device: str) -> float:
    """Response tokens a second of one call of ``sample`` over the batch's prompts, after a short one."""
    prompts: tuple[Tensor, Tensor] = (data.prompt_ids, data.prompt_mask)
    sample(model, prompts, max_new_tokens=2)
    synchronize(device)
    start = time.perf_counter()
    drawn = sample(model, prompts, max_new_tokens=data.tokens.shape[1], check=False)
    synchronize(device)
    return int(drawn.mask.sum()) / (time.perf_counter() - start)


def synchronize(device: str) -> None:
    """Wait for the card."""
    if device == "cuda":
        torch.cuda.synchronize()


def machine(device: str) -> str:
    """Card, driver and versions."""
    import transformers

    card = platform.processor() or platform.machine()
    if device == "cuda":
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            driver = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split("\n")[0]
        except (OSError, subprocess.CalledProcessError):
            driver = "unknown"
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        card = f"{torch.cuda.get_device_name(0)} ({memory:.0f} GB), driver {driver}, CUDA {torch.version.cuda}"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}"
    return f"{card}; {versions}"


def table(rows: list[tuple[str, str, dict[str, float]]]) -> str:
    """The rows in Markdown."""
    heads = ("plain step, ms", "norms, plain steps", "all fields, plain steps", "sampling, tokens/s",
             "training's peak, GB", "norms, peak / training's", "all fields, peak / training's")  # fmt: skip
    lines = [f"| model | precision | {' | '.join(heads)} |", "|---|---|" + "---:|" * len(heads)]
    digits = {"plain ms": ".1f", "tokens/s": ",.0f", "training GB": ".1f"}
    for model, precision, numbers in rows:
        cells = [f"{numbers[c]:{digits.get(c, '.2f')}}" if c in numbers else "" for c in COLUMNS]
        lines.append(f"| {model} | {precision} | {' | '.join(cells)} |")
    return "\n".join(lines)


def page(rows: list[tuple[str, str, dict[str, float]]], device: str, cell: Cell, rounds: int, budget: float) -> str:
    """GPU.md."""
    batch = f"N = {cell.n} trajectories of T = {cell.t} tokens after {cell.s} prompt tokens"
    return f"""# On one card

Written by `make gpu` (`python -m benchmarks.gpu`): {machine(device)}.

{ESTIMATORS} estimators on {batch}; random weights, made from configs.
A plain step is forward and backward of one estimator on that batch, the median of {rounds} as all times. Float32 is
without TF32. Peaks are of memory allocated: training's is a step with AdamW, and a measurement's is taken beside
AdamW's state, as in a training that is probed. Empty: out of memory, or out of time ({budget:,.0f} s for all).

{table(rows)}
"""


def main(arguments: list[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sizes", choices=SIZES, default="all")
    parser.add_argument("--only", nargs="+", choices=CONFIGS, help="these students")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for all")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of which the median time is taken")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        print(f"make gpu: skipped, torch {torch.__version__} sees no CUDA device here")
        return
    names = args.only or SIZES[args.sizes]
    start, rows = time.monotonic(), []
    for place, name in enumerate(names):
        for number, precision in enumerate(PRECISIONS):
            left = args.budget - (time.monotonic() - start)
            share = left / ((len(names) - place) * len(PRECISIONS) - number)  # what others leave over is shared
            cell = Cell(*name.split("-"), **({"n": 4, "s": 5, "t": 6} if name.endswith("tiny") else {}))
            deadline = time.monotonic() + share
            numbers = measured_cell(cell, precision, args.device, rounds=args.rounds, deadline=deadline)
            gc.collect()
            if args.device == "cuda":
                torch.cuda.empty_cache()
            print(f"{name}, {precision}: {numbers}", flush=True)
            rows.append((name, precision, numbers))
            output = args.output or (HERE / "GPU.md" if args.device == "cuda" else Path("runs/benchmarks/GPU.md"))
            output.parent.mkdir(parents=True, exist_ok=True)
            # written after each row, so that a run that is killed leaves what it has measured
            output.write_text(page(rows, args.device, cell, args.rounds, args.budget), encoding="utf-8")
    print(output)


if __name__ == "__main__":
    main()
