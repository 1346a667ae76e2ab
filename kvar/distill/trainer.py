"""``DistillationTrainer``: ``transformers.Trainer`` with a teacher, sampled responses and a named objective."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kvar.distill.checkpoints import WholeCheckpoints
from kvar.distill.config import DistillationConfig
from kvar.distill.data import Collator, reference_rollouts
from kvar.distill.objectives import OBJECTIVES, Batch, Objective
from kvar.distill.sampler import LengthBatches
from kvar.distill.seeds import response_seeds
from kvar.distill.through import through
from kvar.distill.throughput import Throughput
from kvar.rollouts import sample

__all__ = ["DistillationTrainer"]


class DistillationTrainer(WholeCheckpoints):
    """Trains a student by any registered objective; loop, schedule and state are transformers' own.

    Args:
        model: the student, seq2seq or causal.
        teacher: a frozen model with the same tokenizer; None for objectives that need none.
        args: the run's settings.
        train_dataset: rows of ``kvar.distill.data.build_dataset``.
        processing_class: the tokenizer.
        kwargs: passed on to ``transformers.Trainer``.

    Raises:
        ValueError: an objective that needs a teacher without one, or a tokenizer without pad or end-of-sequence token.
    """

    args: DistillationConfig
    objective: Objective

    def __init__(
        self, model: nn.Module, args: DistillationConfig, *, teacher: nn.Module | None = None, **kwargs: Any
    ) -> None:
        self.objective = OBJECTIVES[args.objective]
        if self.objective.teacher and teacher is None:
            raise ValueError(f"objective {args.objective!r} needs a teacher: pass teacher=, or use objective sft.")
        tokenizer: Any = kwargs.get("processing_class")
        for token in ("pad_token_id", "eos_token_id"):
            if getattr(tokenizer, token, None) is None:
                raise ValueError(
                    f"processing_class must be a tokenizer with a {token}; got {type(tokenizer).__name__}."
                )
        kwargs.setdefault("data_collator", Collator(tokenizer.pad_token_id))
        super().__init__(model=model, args=args, **kwargs)
        self.model_accepts_loss_kwargs = False  # our losses are means over their own micro-batch
        self.tokenizer: Any = tokenizer
        self.teacher = teacher
        if teacher is not None:
            teacher.requires_grad_(False).eval()
            teacher.to(self.args.device)
        self._logs: dict[str, list[float]] = defaultdict(list)
        self.throughput = Throughput()
        self.add_callback(self.throughput)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The objective's loss on one micro-batch; samples the student's responses first where it needs them."""
        references = reference_rollouts(inputs, self.tokenizer.eos_token_id)
        student = self.accelerator.unwrap_model(model)
        samples = None
        if self.objective.samples:
            samples = sample(
                student,
                (inputs["prompt_ids"], inputs["prompt_mask"]),
                self.tokenizer,
                rollouts_per_prompt=self.args.rollouts_per_prompt,
                max_new_tokens=self.args.max_new_tokens,
                temperature=self.args.temperature,
                top_k=self.args.top_k,
                seed=response_seeds(
                    self.args.seed, self.state.global_step, inputs["index"].tolist(), self.args.rollouts_per_prompt
                ),
                vocabulary=len(self.tokenizer),
            )
        batch = Batch(references, samples, len(self.tokenizer))
        kept = []

        def compute() -> Tensor:  # inside the wrapper's forward, so that DDP sees one forward however many there are
            kept.append(self.objective.compute(student, self.teacher, batch, self.args))
            return kept[0].value

        value = through(model, student, compute)
        loss = replace(kept[0], value=value)
        if model.training:
            self.throughput.count((references if samples is None else samples).mask)
            for name, value in loss.logs.items():
                self._logs[name].append(value)
            if samples is not None and loss.values is not None:
                for callback in self.callback_handler.callbacks:
                    if hasattr(callback, "on_rollouts"):  # kvar.hooks.OutputLayerProbe, or anyone's
                        callback.on_rollouts(samples, loss.values)
        if not bool(torch.isfinite(loss.value)):
            rows = inputs["index"].tolist()
            raise ValueError(
                f"loss is {loss.value.item()} at step {self.state.global_step} on examples {rows}; the last checkpoint "
                "is untouched. Lower learning_rate, or set max_grad_norm or return_clip."
            )
        return (loss.value, {"loss": loss.value}) if return_outputs else loss.value

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The objective's loss on a validation batch; generated-text metrics come from ``kvar.distill.evaluate``."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            return self.compute_loss(model, inputs).detach(), None, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of the objective's own numbers since the last log."""
        if "loss" in logs:
            logs = {**logs, **{name: sum(values) / len(values) for name, values in self._logs.items()}}
            self._logs.clear()
            speed = self.throughput.take(self.args.device, self.args.world_size)
            if speed is not None:
                logs["tokens_per_second"] = speed
        super().log(logs, start_time)

    def pending_logs(self) -> dict[str, list[float]]:
        """The objective's numbers since the last log."""
        return dict(self._logs)

    def restore_pending_logs(self, pending: dict[str, list[float]]) -> None:
        """Go on gathering from what a checkpoint held."""
        self._logs.update(pending)

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int] | None:
        """Transformers' choice, but batches of like length come in random order (``LengthBatches``)."""
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length" or "length" not in getattr(
            dataset, "column_names", ()
        ):
            return super()._get_train_sampler(train_dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return LengthBatches(
            dataset["length"],
            self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size,
            seed,
        )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Transformers' optimizer; with ``scale_learning_rate`` one group a tensor, learning rates scaled by RMS.

        A tensor's rate is learning_rate * max(RMS(initial weights), 1e-3), the parameter scaling of Adafactor (Shazeer
        and Stern 2018, arXiv 1804.04235) taken once: T5's embeddings start at RMS 1, its projections at 1/sqrt(width),
        and one rate for both leaves the embeddings behind.
        """
        optimizer = super().create_optimizer(model)
        if self.args.scale_learning_rate and len(optimizer.param_groups) <= 2:
            groups = [dict(group) for group in optimizer.param_groups]
            optimizer.param_groups.clear()
            for group in groups:
                for parameter in group.pop("params"):
                    rms = float(parameter.detach().float().square().mean().sqrt())
                    scaled = {**group, "params": [parameter], "lr": group["lr"] * max(rms, 1e-3)}
                    optimizer.add_param_group(scaled)
        return optimizer
