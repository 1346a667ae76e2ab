"""Run on each of two processes: measures what tests/gradients/test_distributed.py compares; not a test itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer, TrainingArguments

from kvar.estimators import gather
from kvar.gradients import distinct_prompts, gradient_moments
from kvar.gradients.state import unwrap
from kvar.hooks import GradientProbe, TrainerLog, parse_estimators
from kvar.hooks.measure import measure_gradients
from kvar.hooks.measurement_settings import MeasurementSettings
from kvar.rollouts import Rollouts, log_probs, policy_of, sample
from tests.cases import V, build, ragged_prompts, rollouts, tiny_gpt2, tiny_t5
from tests.gradients.truth import as_callable, weights
from tests.hooks.test_probe import Rows

ROWS = {0: [0, 2, 3, 5, 6], 1: [1, 4, 7, 8]}
"""Which of the nine trajectories each process holds: unequal numbers, whole prompts."""
ESTIMATORS = "K=1, K=2, immediate, K=1 - leave-one-out, K=2 - batch-mean"
EXACT = (
    "K=2, kl immediate exact, kl K=1 exact expected - leave-one-out, jsd(0.5) immediate exact, "
    "kl geometric(0.9) centred - batch-mean, gap immediate - position-optimum, score - leave-one-out"
)
"""Exact terms of two rewards, baselines over all processes' responses, a score."""
WITHIN = EXACT.replace(" - batch-mean", "").replace(" - position-optimum", "")
"""The same without baselines that are formed over the processes' responses together."""
WITH_DATA = "K=2, kl immediate exact, kl K=1 - leave-one-out"
"""Measured beside references."""
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "loop, groups": {"engine": "loop", "score_power": True},
    "micro-batches": {"micro_batch": 2},
    "norms": {"fields": "norms"},
}


def double_norms(model: torch.nn.Module) -> torch.nn.Module:
    """The same model with its norms in the weights' precision (T5's own are float32)."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).__name__ == "T5LayerNorm":
                norm = torch.nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon, dtype=torch.float64)
                norm.weight = child.weight
                setattr(module, name, norm)
    return model


def groups_of(model: torch.nn.Module) -> dict[str, Any]:
    """Two groups that overlap."""
    every = [p for p in model.parameters() if p.requires_grad]
    return {"odd": every[1::2], "third": every[::3]}


def score(data: Rollouts) -> torch.Tensor:
    """A score of whole responses."""
    return (data.tokens * data.mask).sum(dim=1) % 5


def teacher(data: Rollouts) -> torch.Tensor:
    """Logits of a teacher, by the tokens before alone."""
    table = torch.randn(64, V, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    before = torch.nn.functional.pad(data.tokens.masked_fill(~data.mask, 0), (1, -1)).cumsum(dim=1)
    return table[before % 64]


def cut(data: Rollouts, w: torch.Tensor, rows: list[int]) -> tuple[Rollouts, torch.Tensor]:
    """Some rows, without the columns that none of them needs."""
    own = data[rows]
    t = int(own.lengths.max())
    return replace(own, tokens=own.tokens[:, :t], mask=own.mask[:, :t], log_probs=own.log_probs[:, :t]), w[:, rows, :t]


def moments(rank: int) -> dict[str, Any]:
    """Joint moments of every case, on this process."""
    out: dict[str, Any] = {}
    for name in ("t5", "gpt2", "t5-float32-norms"):
        model = build("t5" if name.startswith("t5") else name)
        model = double_norms(model) if name == "t5" else model
        data, w = cut(rollouts(n=9), weights(rollouts(n=9)), ROWS[rank])
        for label, options in OPTIONS.items():
            groups = groups_of(model) if "groups" in label else None
            found = gradient_moments(
                DistributedDataParallel(model), data, w, groups=groups, distributed=True, **options
            )
            out[f"{name} {label}"] = found
        if name != "t5-float32-norms":
            estimators = parse_estimators(WITHIN)
            for label in ("plain", "micro-batches", "norms"):
                evidence = gather(model, teacher, data, score, estimators=estimators)
                found = gradient_moments(model, data, (evidence, estimators), distributed=True, **OPTIONS[label])
                out[f"{name} exact, {label}"] = found
    out["t5-float32-norms callable"] = gradient_moments(model, data, as_callable(data, w), distributed=True)
    assert all(p.grad is None for p in model.parameters())
    return out


def refusals(rank: int) -> dict[str, str]:
    """What is said where processes do not fit together; a process that fails alone must not leave the other waiting."""
    out, model = {}, build("gpt2")
    data, w = cut(rollouts(n=9), weights(rollouts(n=9)), ROWS[rank])
    clash = replace(data, prompt_index=torch.zeros(len(data), dtype=torch.long))
    cases: dict[str, dict[str, Any]] = {
        "prompt": {"rollouts": clash},
        "estimators": {"weights": w[: 3 - rank]},
        "one fails": {"weights": w if rank == 0 else w * float("nan")},
    }
    for name, change in cases.items():
        try:
            gradient_moments(**{"student": model, "rollouts": data, "weights": w, "distributed": True, **change})
        except (ValueError, RuntimeError) as error:
            out[name] = f"{type(error).__name__}: {error}"
    fixed = distinct_prompts(clash)
    out["fixed"] = str(gradient_moments(model, fixed, w, distributed=True).prompts.tolist())
    return out


def written(make: Any) -> Rollouts:
    """A reference to each of the probe's prompts."""
    return sample(make(seed=1), ragged_prompts(5), max_new_tokens=7, seed=5, policy=policy_of(make()))


def probed(folder: Path, make: Any) -> dict[str, Any]:
    """A Trainer's run on both processes with a probe."""
    probe = GradientProbe(
        ragged_prompts(5), parse_estimators(ESTIMATORS), teacher=make(seed=1), every=2, rollouts_per_prompt=2,
        max_new_tokens=5,
    )  # fmt: skip
    args = TrainingArguments(
        output_dir=str(folder), max_steps=4, per_device_train_batch_size=4, use_cpu=True, report_to="none",
        disable_tqdm=True, save_strategy="no", learning_rate=1e-2, ddp_backend="gloo",
    )  # fmt: skip
    trainer = Trainer(model=make(), args=args, train_dataset=Rows(), callbacks=[probe])
    probe.listeners.append(TrainerLog(trainer))
    assert trainer.args.world_size == 2
    trainer.train()
    last = probe.measure(trainer.model, 99, distributed=True)
    exact = GradientProbe(
        ragged_prompts(5), EXACT, teacher=make(seed=1), score=score, rollouts_per_prompt=2, max_new_tokens=5
    ).measure(trainer.model, 99, distributed=True)
    data = measure_gradients(
        unwrap(trainer.model), ragged_prompts(5),
        MeasurementSettings(tuple(parse_estimators(WITH_DATA)), rollouts_per_prompt=2, max_new_tokens=5),
        teacher=make(seed=1), references=written(make), policy=policy_of(make()), step=99, distributed=True,
    )  # fmt: skip
    state = {k: v.detach().clone() for k, v in trainer.model.state_dict().items()}
    return {
        "steps": [m.step for m in probe.measurements],
        "logs": [entry for entry in trainer.state.log_history if "kvar/seconds" in entry],
        "last": last,
        "exact": exact,
        "data": data,
        "state": state,
        "train": trainer.model.training,
    }


def main(folder: Path) -> None:
    """Everything, into FOLDER/RANK.pt."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    log_probs(build("gpt2"), rollouts())
    found = {"moments": moments(rank), "refusals": refusals(rank)}
    found["t5"] = probed(folder / "t5", tiny_t5)
    found["gpt2"] = probed(folder / "gpt2", tiny_gpt2)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()
