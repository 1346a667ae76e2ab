"""Run on each of two processes: DDP and FSDP2 students, for tests/hooks/test_sharded.py; not a test itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import kvar
from kvar.distill import DistillationConfig, DistillationTrainer, build_dataset, build_model
from kvar.gradients import gradient_moments, score_projections, step_moments
from kvar.hooks import GradientProbe, OutputLayerProbe
from kvar.rollouts import log_probs, sample, score, token_logits, whole
from kvar.rollouts.sharded import is_sharded
from kvar.tasks import ArithmeticTask
from tests.cases import build, ragged_prompts, rollouts, tiny_gpt2, tiny_t5
from tests.gradients.distributed_worker import ROWS, cut
from tests.gradients.truth import weights
from tests.sharding import fsdp_on_cpus, sharded

TASK = ArithmeticTask(1, 1)
MODELS: dict[str, dict[str, Any]] = {
    "t5": {
        "model_type": "t5", "d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 32, "num_layers": 1,
        "num_decoder_layers": 1, "dropout_rate": 0.0,
    },
    "gpt2": {
        "model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 96, "bos_token_id": 1,
        "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
    },
}  # fmt: skip
OBJECTIVES: dict[str, dict[str, Any]] = {
    "llmr": {"objective": "llmr", "baseline": "minimum-variance", "rollouts_per_prompt": 2},
    "ketchup": {"objective": "ketchup + 0.1 sft", "baseline": "batch-mean", "normalisation": "sequence-mean"},
    "policy-gradient": {"objective": "policy-gradient", "estimator": "kl K=1 exact expected - leave-one-out",
                        "rollouts_per_prompt": 2},
}  # fmt: skip
PROBED = "K=1, K=2, kl immediate exact, gap K=1 exact expected - leave-one-out"
HEAD = "K=1, immediate, kl immediate exact"


def trained(
    folder: Path, kind: str, batch: int, split: Callable[[Any], Any] | None = None, probes: bool = False, **changes: Any
) -> dict[str, Any]:
    """Three steps of four rows, and what two probes measure along them."""
    tokenizer = TASK.build_tokenizer()
    student, teacher = (build_model(MODELS[kind], tokenizer, seed=seed) for seed in (0, 1))
    prompts = [e.prompt for e in TASK.examples("validation", 4)]
    gradient = GradientProbe(prompts, PROBED, teacher=teacher, every=2, rollouts_per_prompt=2, max_new_tokens=6)
    head = OutputLayerProbe(HEAD, teacher=teacher, means_every=2)
    args = DistillationConfig(
        output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no", max_steps=3,
        per_device_train_batch_size=batch, max_new_tokens=8, learning_rate=0.05, optim="sgd", logging_steps=1,
        lr_scheduler_type="constant", **changes,
    )  # fmt: skip
    trainer = DistillationTrainer(
        student if split is None else split(student), args, teacher=teacher, processing_class=tokenizer,
        train_dataset=build_dataset(TASK.examples("train", 12), tokenizer, max_target_tokens=8),
        callbacks=[gradient, head] if probes else None,
    )  # fmt: skip
    trainer.train()
    with whole(trainer.model) as student:
        weights = torch.cat([p.detach().flatten() for p in student.parameters()])
    logs = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    return {
        "weights": weights, "logs": logs, "sharded": is_sharded(trainer.model), "gradient": gradient.measurements,
        "head": head.measurements,
    }  # fmt: skip


def trainings(folder: Path) -> dict[Any, Any]:
    """Every objective and model under DDP and FSDP2."""
    results = {}
    for way in ("ddp", "fsdp2"):
        with fsdp_on_cpus() if way == "fsdp2" else nullcontext():
            for kind in MODELS:
                settings: dict[str, Any] = {"fsdp": True} if way == "fsdp2" else {}
                by_hand = way == "fsdp2" and kind == "t5"  # accelerate splits tied embeddings as torch refuses it
                if by_hand:
                    settings["fsdp_config"] = {"auto_wrap_policy": "NO_WRAP"}
                for name, changes in OBJECTIVES.items():
                    results[way, kind, name] = trained(
                        folder / f"{way}-{kind}-{name}",
                        kind,
                        2,
                        sharded if by_hand else None,
                        name == "llmr",
                        **settings,
                        **changes,
                    )
    return results


def measured(kind: str, make: Callable[..., Any], rank: int) -> dict[str, Any]:
    """What functions give for a split model and for the plain one."""
    plain, split = make(), sharded(make())
    local = [p.to_local().clone() for p in split.parameters()]
    data = sample(plain, ragged_prompts(), max_new_tokens=5, seed=rank)
    w = weights(data)
    some = list(split.parameters())[1:3]
    functions: dict[str, Callable[[nn.Module], Tensor]] = {
        "sample": lambda m: sample(m, ragged_prompts(), max_new_tokens=5, seed=rank).log_probs,
        "score": lambda m: score(m, data).gap,
        "log_probs": lambda m: log_probs(m, data).detach(),
        "moments": lambda m: gradient_moments(m, data, w).pair,
        "group": lambda m: (
            gradient_moments(m, data, w, groups={"some": some if m is split else list(m.parameters())[1:3]})[
                "some"
            ].pair
        ),
        "projections": lambda m: score_projections(m, data, directions=2).projections,
        "steps": lambda m: step_moments(m, [(data[:2], w[:, :2]), (data[2:], w[:, 2:])]).pair,
        "measure": lambda m: (
            kvar.measure(
                m, make(seed=1), ragged_prompts(), kernels=PROBED, vocabulary=None, max_new_tokens=4
            ).moments.pair
        ),
        "teacher": lambda m: kvar.measure(make(), m, ragged_prompts(), kernels=PROBED, max_new_tokens=4).moments.pair,
        "within": lambda m: _between_passes(m, data),
    }
    ours = {name: (function(split), function(plain)) for name, function in functions.items()}
    joint = cut(rollouts(n=9), weights(rollouts(n=9)), ROWS[rank])
    model = build(kind)
    fresh = {
        "ddp": gradient_moments(DistributedDataParallel(model), *joint, distributed=True),
        "fsdp2": gradient_moments(sharded(build(kind).float()), *joint, distributed=True),
    }
    untouched = all(torch.equal(a, p.to_local()) for a, p in zip(local, split.parameters(), strict=True))
    return {"pairs": ours, "joint": fresh, "untouched": untouched and is_sharded(split)}


def _between_passes(model: nn.Module, data: Any) -> Tensor:
    """The gradient of a backward pass before which the model is made whole."""
    model.zero_grad()
    loss = token_logits(model, data).square().mean()
    with whole(model) as plain, torch.no_grad():
        again = token_logits(plain, data).square().mean()
    loss.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    if is_sharded(model):
        grads = [g.full_tensor() for g in grads]
    else:
        for g in grads:
            dist.all_reduce(g, op=dist.ReduceOp.SUM)
            g /= 2
    model.zero_grad()
    return torch.cat([again[None], *(g.flatten() for g in grads)])


def mixed() -> tuple[Tensor, Tensor]:
    """Logits of FSDP2's mixed precision, and of the whole model as it is trained."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    model, data = tiny_gpt2(), sample(tiny_gpt2(), ragged_prompts(), max_new_tokens=5)
    fully_shard(model, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    ours = token_logits(model, data).detach()
    with whole(model, as_trained=True) as plain, torch.no_grad():
        return ours, token_logits(plain, data)


def main(folder: Path) -> None:
    """Everything, into FOLDER/RANK.pt."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    results: dict[str, Any] = {
        kind: measured(kind, make, rank) for kind, make in (("t5", tiny_t5), ("gpt2", tiny_gpt2))
    }
    results["mixed"] = mixed()
    results["trainings"] = trainings(folder)
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()
