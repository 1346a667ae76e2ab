"""``kvar train --fsdp`` on one process or, by tests/study/run/test_sharded.py, on two; not a test itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from kvar.study.run.run import train_run
from kvar.study.settings.reading import settings_from
from tests.sharding import fsdp_on_cpus

SETTINGS: dict[str, Any] = {
    "task": "arithmetic", "min_problem_steps": 1, "max_problem_steps": 1, "teacher": "arithmetic",
    "student_config": {
        "model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 96, "resid_pdrop": 0.0,
        "embd_pdrop": 0.0, "attn_pdrop": 0.0,
    },
    "objective": "ketchup", "baseline": "batch-mean", "train_limit": 16, "max_steps": 4, "max_new_tokens": 8,
    "learning_rate": 1e-3, "logging_steps": 1, "save_steps": 2, "eval_limit": 2, "probe_prompts": 4,
    "probe_rollouts": 2, "probe_every": 2, "probe_kernels": "K=1, kl immediate exact", "report_to": "none",
    "use_cpu": True, "disable_tqdm": True,
}  # fmt: skip


def run(folder: Path, **changes: Any) -> None:
    train_run(*settings_from({**SETTINGS, "output_dir": str(folder), **changes}, "test"))


def main(folder: Path) -> None:
    """Train in FOLDER/two, split by accelerate."""
    torch.distributed.init_process_group("gloo")
    with fsdp_on_cpus():
        run(folder / "two", fsdp=True, fsdp_config={"version": 2}, per_device_train_batch_size=4)
    torch.save({}, folder / f"{torch.distributed.get_rank()}.pt")
    torch.distributed.destroy_process_group()
