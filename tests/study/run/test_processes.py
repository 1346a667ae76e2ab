"""Two processes on one machine (gloo) end with the parameters of one, by a real launch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import kvar

CONFIG = """
task: arithmetic
min_problem_steps: 1
max_problem_steps: 1
teacher: arithmetic
student_config: {model_type: t5, d_model: 16, d_kv: 8, num_heads: 2, d_ff: 32, num_layers: 1, num_decoder_layers: 1,
  dropout_rate: 0.0}
kernel: K=2
train_limit: 16
max_steps: 5
max_new_tokens: 8
learning_rate: 1.0e-3
logging_steps: 1
save_steps: 3
eval_limit: 2
probe_prompts: 4
probe_rollouts: 2
probe_kernels: K=1, K=2
report_to: none
use_cpu: true
"""


def run(config: Path, folder: Path, processes: int, *words: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command = [sys.executable, *(launch if processes > 1 else []), "-m", "kvar", "train", str(config)]
    done = subprocess.run(
        [*command, "--output_dir", str(folder), *words], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr


def largest_difference(one: Path, two: Path) -> float:
    from safetensors.torch import load_file

    a, b = (load_file(folder / "model" / "model.safetensors") for folder in (one, two))
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("--objective", "sft"),
        ("--objective", "ketchup", "--baseline", "batch-mean", "--probe_every", "2"),
        ("--objective", "ketchup + 0.1 sft", "--train_sampling_strategy", "group_by_length"),
    ],
)
def test_two_processes_end_where_one_does(words: tuple[str, ...], tmp_path: Path) -> None:
    """Five steps of 8 examples over two epochs: 8 at once; 2 processes of 2, accumulated twice."""
    (tmp_path / "run.yaml").write_text(CONFIG)
    one, two = tmp_path / "one", tmp_path / "two"
    run(tmp_path / "run.yaml", one, 1, "--per_device_train_batch_size", "8", *words)
    split = ("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2")
    run(tmp_path / "run.yaml", two, 2, *split, *words)
    assert largest_difference(one, two) < 1e-5
    losses = [kvar.load(folder).metrics.query("name == 'loss'")["value"].tolist() for folder in (one, two)]
    assert len(losses[0]) == 5
    assert losses[0] == pytest.approx(losses[1], rel=1e-4, abs=1e-5)
    if "--probe_every" in words:
        rows = [kvar.load(folder).gradients for folder in (one, two)]
        # every process draws its own responses, to its own share of the prompts
        assert sorted(rows[0]["prompt"]) == sorted(rows[1]["prompt"])
        assert len(rows[0]) == len(rows[1])
