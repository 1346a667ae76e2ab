"""Train the students of figures/multi30k by KETCHUP and measure both layers: the output layer's and all parameters'.

For every student and kernel, ``runs/output-layer/STUDENT/KERNEL`` holds a run with two probes: every ``--every`` steps
the full gradient on fresh rollouts (groups "all" and "output", the head's own use of its weight), and at every step the
output layer of the training batch (``OutputLayerProbe``). A finished run is skipped, a killed one starts again.

    python figures/output-layer/run.py --data FOLDER_OF_MULTI30K --study runs/multi30k --output runs/output-layer
    python figures/output-layer/analyse.py --runs runs/output-layer
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kvar.distill import DistillationConfig, DistillationTrainer, build_dataset, count_parameters, load_model
from kvar.distill.models import load_tokenizer
from kvar.gradients.output_layer.head_watch import HeadWatch
from kvar.hooks import GradientProbe, Measurement, OutputLayerProbe, Recorder, estimator_weights, parse_estimators
from kvar.records import RunWriter
from kvar.rollouts import log_probs
from kvar.tasks import task_from_options

KERNELS = "K=1, K=2, K=4, K=8, immediate"


class BothLayers(GradientProbe):
    """A GradientProbe that adds the group "output", the head's own use of its (here tied) weight."""

    def measure(self, student: Any, step: int = 0) -> Measurement:
        """The moments of all parameters and those of the output layer on the same trajectories."""
        found = super().measure(student, step)
        data = found.rollouts
        weights = estimator_weights(self.estimators, found.values, data.mask, data.prompt_index)
        with HeadWatch(student) as watch, torch.no_grad():
            modes = student.training
            student.eval()
            log_probs(student, data)
            output = watch.moments(data, weights)
            student.train(modes)
        moments = replace(found.moments, groups={**found.moments.groups, "output": output})
        return replace(found, moments=moments)


def train(args: argparse.Namespace, size: str, kernel: str) -> None:
    """One run, unless it is there."""
    folder = args.output / size / kernel
    if (folder / "done").exists():
        return
    start = args.study / size / "start" / "model"
    task = task_from_options("translation", data=str(args.data), source_field="en", target_field="de", prefix="")
    tokenizer, student = load_tokenizer(str(start)), load_model(str(start))
    teacher = load_model(str(args.study / "teacher" / "model"))
    training = DistillationConfig(
        output_dir=str(folder), objective="ketchup", kernel=kernel, baseline="batch-mean", max_steps=args.steps,
        per_device_train_batch_size=32, learning_rate=1e-4, scale_learning_rate=True, lr_scheduler_type="constant",
        adam_beta2=0.98, max_grad_norm=1.0, train_sampling_strategy="group_by_length", max_new_tokens=40,
        logging_steps=10, save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True, seed=args.seed,
    )  # fmt: skip
    config = {
        "student": size, "kernel": kernel, "steps": args.steps, "every": args.every, "prompts": args.prompts,
        "rollouts": args.rollouts, "seed": args.seed, "parameters": count_parameters(student),
    }  # fmt: skip
    with RunWriter(folder, config) as writer:
        writer.drop_after(-1)
        full = BothLayers(
            [example.prompt for example in task.examples("validation", args.prompts)],
            parse_estimators(f"{KERNELS}, K=1 - leave-one-out"),
            teacher=teacher, tokenizer=tokenizer, every=args.every, rollouts_per_prompt=args.rollouts,
            max_new_tokens=40, seed=args.seed, writer=writer, vocabulary=len(tokenizer), micro_batch=args.micro_batch,
        )  # fmt: skip
        free = OutputLayerProbe(
            parse_estimators(f"{KERNELS}, K=1 - batch-mean"),
            means_every=1,
            writer=writer,
            vocabulary=len(tokenizer),
        )
        trainer = DistillationTrainer(
            student, training, teacher=teacher, processing_class=tokenizer,
            train_dataset=build_dataset(task.examples("train"), tokenizer, max_target_tokens=40),
            callbacks=[Recorder(writer), full, free],
        )  # fmt: skip
        begun = time.time()
        trainer.train()
        print(f"{folder}: {time.time() - begun:.0f} s", flush=True)
    (folder / "done").touch()


def main() -> None:
    """Every student and kernel, the smallest first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of Multi30k")
    parser.add_argument("--study", type=Path, default=Path("runs/multi30k"), help="where kvar study multi30k wrote")
    parser.add_argument("--output", type=Path, default=Path("runs/output-layer"))
    parser.add_argument("--sizes", nargs="+", default=["0.3M", "1.1M", "2.9M"])
    parser.add_argument("--kernels", nargs="+", default=["K=1", "K=4"])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--rollouts", type=int, default=4)
    parser.add_argument("--micro-batch", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for kernel in args.kernels:
        for size in args.sizes:
            train(args, size, kernel)


if __name__ == "__main__":
    main()
