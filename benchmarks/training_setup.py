"""What the training benchmarks share: models, prompts, trainers, clocks and the machine's own speed."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainerCallback

from kvar.distill import DistillationConfig, DistillationTrainer
from kvar.rollouts import sample

VOCABULARY, BATCH, PROMPT, TOKENS = 4096, 32, 16, 32
SPECIAL = ("<pad>", "</s>", "<unk>")
T5_SHAPES = {"0.9 M": (96, 384, 2, 4), "3 M": (192, 768, 2, 4), "9.9 M": (320, 1280, 3, 8)}
GPT2_SHAPES = {"0.9 M": (112, 3, 4), "3 M": (192, 5, 4)}


def t5(size: str, seed: int = 0) -> Any:
    """A T5 from config, dropout off."""
    from transformers import T5Config, T5ForConditionalGeneration

    width, inner, layers, heads = T5_SHAPES[size]
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=VOCABULARY, d_model=width, d_ff=inner, d_kv=width // heads, num_heads=heads, num_layers=layers,
        num_decoder_layers=layers, dropout_rate=0.0, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    return T5ForConditionalGeneration(config)


def gpt2(size: str, seed: int = 0) -> Any:
    """A GPT-2 from config, dropout off."""
    from transformers import GPT2Config, GPT2LMHeadModel

    width, layers, heads = GPT2_SHAPES[size]
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=width, n_layer=layers, n_head=heads, n_positions=128, pad_token_id=0,
        eos_token_id=1, bos_token_id=1, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


@cache
def tokenizer() -> Any:
    """A word tokenizer of exactly ``VOCABULARY`` tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL, *(f"w{i}" for i in range(len(SPECIAL), VOCABULARY))]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", padding_side="left"
    )


@cache
def prompts() -> list[list[int]]:
    """256 prompts of ``PROMPT`` random tokens, without special ones."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(len(SPECIAL), VOCABULARY, (256, PROMPT), generator=generator).tolist()


def batch(rows: int = BATCH) -> tuple[torch.Tensor, torch.Tensor]:
    """The first prompts as ids and mask."""
    ids = torch.tensor(prompts()[:rows])
    return ids, torch.ones_like(ids, dtype=torch.bool)


def draw(student: Any, seed: int = 0, rows: int = BATCH) -> Any:
    """Rollouts as a training step samples them."""
    return sample(student, batch(rows), tokenizer(), max_new_tokens=TOKENS, seed=seed, vocabulary=VOCABULARY)


def common_arguments(steps: int, rows: int) -> dict[str, Any]:
    """Settings that every trainer of the comparison gets."""
    return dict(
        output_dir=tempfile.mkdtemp(prefix="kvar-bench-"), per_device_train_batch_size=rows, max_steps=steps,
        learning_rate=1e-6, lr_scheduler_type="constant", max_grad_norm=1.0, logging_strategy="no",
        save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, bf16=False, fp16=False,
        gradient_checkpointing=False, remove_unused_columns=False, dataloader_num_workers=0, seed=0,
    )  # fmt: skip


class StepClock(TrainerCallback):
    """Seconds from one optimiser step's end to the next one's: everything that training spends on a step."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note both clocks."""
        self.marks.append((time.process_time(), time.perf_counter()))

    def seconds(self) -> list[tuple[float, float]]:
        """(CPU, wall) seconds of every step but the first."""
        return [(b[0] - a[0], b[1] - a[1]) for a, b in zip(self.marks, self.marks[1:], strict=False)]


def kvar_steps(
    student: Any,
    teacher: Any,
    steps: int,
    rows: int = BATCH,
    callbacks: list[Any] | None = None,
    prepare: Callable[[Any], None] | None = None,
    **settings: Any,
) -> tuple[list[tuple[float, float]], float]:
    """Train for one warm-up and ``steps`` timed steps: seconds of each, response tokens a step.

    ``prepare`` gets the trainer before it trains.
    """
    from datasets import Dataset

    ids = prompts()
    columns = {"prompt": ids, "target": [[5, 1]] * len(ids), "index": list(range(len(ids)))}
    columns |= {"length": [PROMPT + 2] * len(ids), "prompt_length": [PROMPT] * len(ids)}
    clock = StepClock()
    trainer = DistillationTrainer(
        student,
        DistillationConfig(**{**common_arguments(steps + 1, rows), "max_new_tokens": TOKENS, **settings}),
        teacher=teacher,
        train_dataset=Dataset.from_dict(columns),
        processing_class=tokenizer(),
        callbacks=[clock, *(callbacks or [])],
    )
    if prepare is not None:
        prepare(trainer)
    trainer.train()
    return clock.seconds(), trainer.throughput.tokens / (steps + 1)


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """(CPU, wall) seconds of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def flops(work: Callable[[], Any]) -> float:
    """Floating-point operations of the matrix products in one call."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def matmul_rate(size: int = 1024, repeats: int = 12) -> float:
    """Operations a second of a float32 product of two square matrices, the best of some."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = min(timed(lambda: a @ b)[0] for _ in range(repeats))
    return 2 * size**3 / best


def machine() -> dict[str, Any]:
    """What the numbers were measured on, in general terms."""
    import transformers
    import trl

    info = Path("/proc/cpuinfo")
    models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": trl.__version__,
    }
