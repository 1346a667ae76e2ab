"""Reinforce shipped students and measure, along each training, the exact numbers and the proxies of them.

A run is student x method x seed. At step 0 and every ``--every`` steps: a probe (fixed validation problems) and a batch
(other training problems), both of fresh responses, one a problem, with the exact moments of every estimator and every
proxy of them; and responses of the student as it was at the probe before, for the effective sample size. A finished
run is skipped, a killed one starts again; seeds are the outermost loop, so that any number of finished runs is balanced
as far as it goes.

    python figures/proxies/run.py --output runs/proxies
    python figures/proxies/run.py --output runs/proxies --cost
    python figures/proxies/analyse.py --runs runs/proxies
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import TrainerCallback

from kvar.analysis import efficiency, trace_covariance
from kvar.analysis.proxies import (
    effective_sample_share,
    gradient_norm,
    micro_batch_noise_scale,
    norm_layer_noise_scale,
    norm_layers,
    w_proxy,
)
from kvar.analysis.replicates import replicates
from kvar.analysis.signal import signal_of
from kvar.analysis.statistic_table import estimate
from kvar.analysis.trace_covariance import trace_of
from kvar.distill import DistillationConfig, DistillationTrainer, build_dataset, load_model
from kvar.distill.models import load_tokenizer
from kvar.estimators import Evidence, Terms, gather
from kvar.gradients import GradientMoments, gradient_moments
from kvar.gradients.output_layer.head_watch import HeadWatch
from kvar.hooks import parse_estimators
from kvar.rollouts import Rollouts, encode_prompts, log_probs, policy_of, sample, token_logits
from kvar.tasks import task_from_options

STUDENTS = ("arithmetic-50k", "arithmetic-90k-early")
METHODS: dict[str, dict[str, Any]] = {
    "K=1 - batch-mean": {"objective": "llmr", "baseline": "batch-mean"},
    "K=8": {"objective": "ketchup", "kernel": "K=8"},
    "kl immediate exact": {"objective": "policy-gradient", "estimator": "kl immediate exact"},
}
ESTIMATORS = parse_estimators(
    "K=1 - batch-mean, K=4, K=8, immediate, kl immediate, gap immediate exact, kl immediate exact"
)
REFERENCE = "K=1 - batch-mean"
STALE = parse_estimators("K=8 ratio, K=8 sequence-ratio, kl immediate exact sequence-ratio")
ADVANTAGES = {"gap immediate exact": "gap", "kl immediate exact": "kl"}
"""What a trainer's advantages are where the gradient is an exact sum: the sampled token's reward."""
LENGTH, MICRO, PROBLEMS = 40, 16, 4_000


def task() -> Any:
    """Problems of two steps, the shortest that the students know."""
    return task_from_options("arithmetic", difficulty=(2, 2))


class Proxies(TrainerCallback):
    """Measures at step 0 and every ``every`` steps; rows of (step, set, estimator, quantity, value, low, high)."""

    def __init__(self, tokenizer: Any, teacher: Any, every: int, prompts: int, batch: int, seed: int) -> None:
        self.tokenizer, self.teacher, self.every, self.seed = tokenizer, teacher, every, seed
        self.prompts = [example.prompt for example in task().examples("validation", prompts)]
        self.training = [example.prompt for example in task().examples("train", PROBLEMS)]
        self.batch, self.rows, self.previous = batch, [], None
        self.random = np.random.default_rng(seed)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before the first step."""
        self.measure(kwargs["model"], 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After every ``every`` steps."""
        if state.global_step % self.every == 0:
            self.measure(kwargs["model"], state.global_step)

    def measure(self, student: Any, step: int) -> None:
        """All numbers of one student."""
        others = [self.training[i] for i in self.random.choice(len(self.training), self.batch, replace=False)]
        for number, (name, prompts) in enumerate((("probe", self.prompts), ("batch", others))):
            data, evidence = self.responses(student, student, prompts, ESTIMATORS, 3 * step + number)
            for row in numbers(student, data, evidence):
                self.rows.append((step, name, *row))
        if self.previous is not None:
            data, evidence = self.responses(self.previous, student, self.prompts, STALE, 3 * step + 2)
            moments = gradient_moments(student, data, (evidence, STALE), fields="norms")
            self.rows += [(step, "stale", *row) for row in each("trace", moments.names, trace_covariance(moments))]
            for level in ("token", "sequence"):
                share = effective_sample_share(evidence.log_ratio("ratio"), data.mask, level)  # type: ignore[arg-type]
                self.rows.append((step, "stale", "", f"effective sample size, {level}", share, np.nan, np.nan))
        self.previous = copy.deepcopy(student).eval()

    def responses(
        self, drawing: Any, student: Any, prompts: list[str], estimators: Any, stream: int
    ) -> tuple[Rollouts, Evidence]:
        """One response a prompt, every micro-batch's with a number of its own, and the evidence of ``student``."""
        policy = policy_of(student, self.tokenizer, teacher=self.teacher)
        encoded = encode_prompts(prompts, self.tokenizer, student, policy=policy)
        seed = self.seed * 1_000_003 + stream
        data = sample(drawing, encoded, self.tokenizer, max_new_tokens=LENGTH, seed=seed, policy=policy)
        data = replace(data, prompt_index=torch.arange(len(data)) // MICRO)
        return data, gather(student, self.teacher, data, estimators=estimators, values=True)


def each(quantity: str, names: Any, values: Any) -> Iterator[tuple[str, str, float, float, float]]:
    """Rows of one quantity of every estimator, from an estimate or numbers."""
    ends = (values.value, values.low, values.high) if hasattr(values, "low") else (values, None, None)
    for e, name in enumerate(names):
        yield (name, quantity, *(np.nan if end is None else float(end[e]) for end in ends))


def exact(moments: GradientMoments, group: str, prefix: str) -> Iterator[tuple[str, str, float, float, float]]:
    """Trace, signal and efficiency of a group of parameters."""
    sums = replicates(moments, group, "trajectory")
    for name, of in (("trace", trace_of), ("signal", signal_of)):
        yield from each(f"{prefix}{name}", moments.names, estimate(name, of(sums), sums.units, 0.95))
    points = efficiency(moments, 64, group=group, reference=REFERENCE, unit="trajectory")
    yield from each(f"{prefix}efficiency", moments.names, points)


def numbers(student: Any, data: Rollouts, evidence: Evidence) -> Iterator[tuple[str, str, float, float, float]]:
    """Rows (estimator, quantity, value, low, high): the exact numbers and all proxies, on the same trajectories."""
    terms = Terms.of(ESTIMATORS, evidence)
    moments = gradient_moments(student, data, terms, groups={"norms": norm_layers(student)})
    with HeadWatch(student) as watch, torch.no_grad():
        modes = student.training
        student.eval()
        log_probs(student, data)
        moments = replace(moments, groups={**moments.groups, "output": watch.moments(data, terms)})
        student.train(modes)
    yield from exact(moments, "all", "")
    yield from exact(moments, "output", "output layer ")
    norms = norm_layer_noise_scale(moments)
    assert moments["all"].prompt_pair is not None
    squares = moments["all"].prompt_pair.diagonal(dim1=0, dim2=1).mean(dim=0).numpy()  # of micro-batches' means
    whole = np.diagonal(moments.mean_pair.numpy())
    two = micro_batch_noise_scale(squares, whole, MICRO, len(data))
    for name, scale in (("norm layers", norms), ("micro-batches", two)):
        yield from each(f"{name} trace", moments.names, scale.trace)
        yield from each(f"{name} signal", moments.names, scale.signal)
    length = gradient_norm(moments)
    yield from each("gradient norm", moments.names, length)
    for e, name in enumerate(moments.names):
        advantages = evidence.reward(ADVANTAGES[name]) if name in ADVANTAGES else terms.weights[e]
        proxy = w_proxy(advantages, evidence.logit_power, data.mask, float(length[e]))
        by_token = (advantages.square() * evidence.logit_power).masked_fill(~data.mask, 0.0).sum(dim=1).mean()
        assert proxy.noise is not None
        for quantity, value in (("W power", proxy.power), ("W noise", proxy.noise), ("W by token", float(by_token))):
            yield name, quantity, value, np.nan, np.nan


def train(args: argparse.Namespace, student_name: str, method: str, seed: int) -> None:
    """One run, unless it is there."""
    folder = args.output / student_name / method.replace(" ", "_")
    file = folder / f"seed-{seed}.parquet"
    if file.exists():
        return
    begun = time.process_time()
    tokenizer, student, teacher = load_tokenizer(student_name), load_model(student_name), load_model("arithmetic")
    training = DistillationConfig(
        output_dir=str(folder), max_steps=args.steps, per_device_train_batch_size=32, learning_rate=args.rate,
        scale_learning_rate=True, lr_scheduler_type="constant", adam_beta2=0.98, max_grad_norm=1.0,
        max_new_tokens=LENGTH, logging_steps=args.steps, save_strategy="no", report_to="none", use_cpu=True,
        disable_tqdm=True, seed=seed, **METHODS[method],
    )  # fmt: skip
    probe = Proxies(tokenizer, teacher, args.every, args.prompts, args.batch, seed)
    examples = task().examples("train", PROBLEMS)
    trainer = DistillationTrainer(
        student, training, teacher=teacher, processing_class=tokenizer,
        train_dataset=build_dataset(examples, tokenizer, max_target_tokens=LENGTH), callbacks=[probe],
    )  # fmt: skip
    trainer.train()
    frame = pd.DataFrame(probe.rows, columns=["step", "set", "estimator", "quantity", "value", "low", "high"])
    folder.mkdir(parents=True, exist_ok=True)
    frame.assign(student=student_name, method=method, seed=seed).to_parquet(file, index=False)
    print(f"{file}: {time.process_time() - begun:.0f} s of processor time", flush=True)


def cost(args: argparse.Namespace, rounds: int = 5) -> None:
    """Processor seconds of every number, in turns in one process, in plain steps; the median of the rounds."""
    rows = []
    for name in args.students:
        tokenizer, student, teacher = load_tokenizer(name), load_model(name), load_model("arithmetic")
        made = Proxies(tokenizer, teacher, 1, args.prompts, args.batch, 0)
        drawn: list[Any] = []

        def drawing() -> None:
            drawn[:] = made.responses(student, student, made.training[: args.batch], ESTIMATORS, 0)  # noqa: B023

        drawing()
        data, evidence = drawn
        seconds = {what: [] for what in (*costed(student, data, evidence), "sampling and teacher")}
        for _ in range(rounds):
            for what, function in {**costed(student, data, evidence), "sampling and teacher": drawing}.items():
                begun = time.process_time()
                function()
                seconds[what].append(time.process_time() - begun)
        plain = np.array(seconds["plain step"])
        for what, values in seconds.items():
            ratio = np.array(values) / plain
            low, middle, high = np.quantile(ratio, (0.25, 0.5, 0.75))
            rows.append((name, what, float(np.median(values)), middle, low, high, rounds))
            print(f"{name} {what}: {middle:.3f} ({low:.3f} to {high:.3f}) plain steps", flush=True)
    columns = ["student", "what", "seconds", "plain_steps", "low", "high", "rounds"]
    args.output.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=columns).to_csv(args.output / "cost.csv", index=False, float_format="%.4g")


def costed(student: Any, data: Rollouts, evidence: Evidence) -> dict[str, Callable[[], object]]:
    """What is timed, by name; the step is one batch's forward and backward pass."""
    terms = Terms.of(ESTIMATORS[2:3], evidence)  # K=8
    every = Terms.of(ESTIMATORS, evidence)
    weights = terms.weights[0].float()
    parameters = list(student.parameters())

    def step(some: Rollouts = data, rows: slice = slice(None)) -> Tensor:
        logits = token_logits(student, some)
        student.zero_grad()
        chosen = logits.log_softmax(-1).gather(-1, some.tokens[..., None])[..., 0]
        (-(weights[rows] * chosen.masked_fill(~some.mask, 0.0)).sum() / len(data)).backward()
        return logits.detach()

    def length() -> Tensor:
        return torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()

    logits = step()

    def from_logits() -> None:
        pi = logits.softmax(-1)
        power = 1 - 2 * pi.gather(-1, data.tokens[..., None])[..., 0] + pi.square().sum(-1)
        w_proxy(weights, power, data.mask, 1.0)

    def accumulated() -> None:
        for start in range(0, len(data), MICRO):
            rows = slice(start, start + MICRO)
            step(data[rows], rows)
            length()

    def norm_layers_alone() -> None:
        wanted = set(norm_layers(student))
        for name, parameter in student.named_parameters():
            parameter.requires_grad_(name in wanted)
        norm_layer_noise_scale(gradient_moments(student, data, terms, fields="norms"), "all")
        for parameter in parameters:
            parameter.requires_grad_(True)

    def head() -> None:
        with torch.no_grad():
            watch.moments(data, terms)
            log_probs(student, data)  # the pass that the step makes anyway; timed apart

    watch = HeadWatch(student)
    log_probs(student, data)

    def forward() -> None:
        with torch.no_grad():
            log_probs(student, data)

    ratio = torch.zeros(data.mask.shape)
    return {
        "plain step": step,
        "forward pass": forward,
        "gradient norm": length,
        "W proxy": from_logits,
        "effective sample size": lambda: effective_sample_share(ratio, data.mask),
        "micro-batches": accumulated,
        "norm layers": norm_layers_alone,
        "output layer and a forward pass": head,
        "exact trace, one estimator": lambda: gradient_moments(student, data, terms, fields="norms"),
        "exact, one estimator": lambda: gradient_moments(student, data, terms),
        "exact, seven estimators": lambda: gradient_moments(student, data, every),
    }


def main() -> None:
    """Every run, or the cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/proxies"))
    parser.add_argument("--students", nargs="+", default=STUDENTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=6)
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--cost", action="store_true", help="measure the cost of every number, and no run")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.cost:
        cost(args)
        return
    for seed, student, method in product(range(args.seeds), args.students, METHODS):
        train(args, student, method, seed)


if __name__ == "__main__":
    main()
