"""One step of training by an estimator, on one process or on two for test_policy_gradient.py, beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kvar.distill import DistillationConfig, DistillationTrainer, build_dataset, build_model
from kvar.distill.objectives import Batch
from kvar.tasks import ArithmeticTask, Example

TASK = ArithmeticTask(1, 1)
TOKENIZER: Any = TASK.build_tokenizer()
GPT2 = {
    "model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 96, "bos_token_id": 1,
    "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
}  # fmt: skip
DATA = build_dataset(TASK.examples("train", 4), TOKENIZER)
NAMES = (
    "K=4",
    "kl immediate exact",
    "kl immediate",
    "gap immediate centred",
    "gap K=1 exact expected - leave-one-out",
    "kl geometric(0.9) expected - position-mean",
    "kl K=2 - group-normalised",
    "gap window(2) - batch-mean",
    "kl K=1 - minimum-variance",
    "gap thinning(2) exact",
    "gap window(3) exact - w-proxy",
    "kl K=1 free - position-optimum",
    "gap stepwise(1:-0.71, 2:0.03, 5:0.16) exact expected - leave-one-out",
    "kl immediate exact sequence-ratio",
    "gap K=1 centred truncated(1.05)",
    "kl K=1 ppo-clip(0.02) - batch-mean",
    "gap K=1 exact ratio - leave-one-out",
    "jsd(0.3) immediate exact",
    "forward-kl immediate exact",
    "k2-loss immediate",
    "k3-loss immediate",
    "top-k(3) immediate exact",
    "teacher-top-k-tail(4) immediate",
    "score - leave-one-out",
    "score - group-normalised",
)

SHARED = (
    "kl immediate exact",
    "K=4",
    "gap K=1 exact expected - leave-one-out",
    "kl geometric(0.9) expected - position-mean",
    "kl K=1 - minimum-variance",
    "gap window(3) exact - w-proxy",
    "gap K=1 centred truncated(1.05)",
    "kl K=1 ppo-clip(0.02) - batch-mean",
    "score - group-normalised",
)
"""Those of them that are tried in micro-batches and on processes too."""


def letters(texts: list[str], examples: list[Example]) -> list[float]:
    """A score that differs between responses, and looks at the example."""
    return [len(text) + 0.1 * text.count("1") + 0.01 * len(e.target) for text, e in zip(texts, examples, strict=True)]


def models() -> tuple[Any, Any]:
    """Student and teacher whose responses end at different places."""
    pair = tuple(build_model(GPT2, TOKENIZER, seed=seed).double() for seed in (0, 1))
    with torch.no_grad():
        for model in pair:
            model.transformer.ln_f.bias.fill_(1.0)
            model.get_output_embeddings().weight *= 3.0
            model.get_output_embeddings().weight[TOKENIZER.eos_token_id] += 0.25
    return pair


def trained(
    folder: Path, rows: int, steps: int, *, alone: bool = False, callbacks: Any = None, **changes: Any
) -> tuple[Tensor, list[Batch], dict[str, float]]:
    """The gradient that the optimiser gets, the step's batches, and what was logged."""
    batches: list[Batch] = []
    gradients: list[Tensor] = []

    class Kept(DistillationTrainer):
        def _prepared(self, *args: Any, **kwargs: Any) -> list[Batch]:
            prepared = super()._prepared(*args, **kwargs)
            batches.extend(prepared)
            return prepared

        def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
            unwrapped = self.accelerator.unwrap_model(model)
            gradients.append(torch.cat([p.grad.flatten() for p in unwrapped.parameters()]))
            return super()._get_grad_norm(model, grad_norm)

    plain = {
        "output_dir": str(folder), "use_cpu": True, "report_to": "none", "disable_tqdm": True, "max_steps": 1,
        "save_strategy": "no", "per_device_train_batch_size": rows, "gradient_accumulation_steps": steps,
        "max_new_tokens": 7, "rollouts_per_prompt": 3, "logging_steps": 1, "objective": "policy-gradient",
        "normalisation": "sequence-mean", "temperature": 1.1, "max_grad_norm": 1e30, "learning_rate": 0.0,
    }  # fmt: skip
    student, teacher = models()
    teacher = None if alone else teacher
    trainer = Kept(
        student, DistillationConfig(**{**plain, **changes}), teacher=teacher, score=letters, train_dataset=DATA,
        processing_class=TOKENIZER, callbacks=callbacks,
    )  # fmt: skip
    trainer.train()
    return gradients[0], batches, next(log for log in trainer.state.log_history if "loss" in log)


def main(folder: Path) -> None:
    """The gradients on two processes, of one micro-batch and of two on each, into FOLDER/RANK.pt."""
    torch.distributed.init_process_group("gloo")
    gradients = {
        (name, rows): trained(folder / f"{place}-{rows}", rows, 2 // rows, estimator=name, ddp_backend="gloo")[0]
        for place, name in enumerate(SHARED)
        for rows in (1, 2)
    }
    torch.save(gradients, folder / f"{torch.distributed.get_rank()}.pt")
    torch.distributed.destroy_process_group()
