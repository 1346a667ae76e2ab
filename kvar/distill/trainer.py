"""``DistillationTrainer``: ``transformers.Trainer`` with a teacher, sampled responses and a named objective."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from kvar.distill.config import DistillationConfig
from kvar.distill.data import Collator, reference_rollouts
from kvar.distill.objectives import OBJECTIVES, Batch, Objective
from kvar.distill.sampler import LengthBatches
from kvar.rollouts import sample

__all__ = ["DistillationTrainer"]


class DistillationTrainer(Trainer):
    """Trains a student by any registered objective; loop, schedule, checkpoints and resuming are transformers' own.

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
        self._micro_step = (-1, 0)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The objective's loss on one micro-batch; samples the student's responses first where it needs them."""
        references = reference_rollouts(inputs, self.tokenizer.eos_token_id)
        samples = None
        if self.objective.samples:
            samples = sample(
                self.accelerator.unwrap_model(model),
                (inputs["prompt_ids"], inputs["prompt_mask"]),
                self.tokenizer,
                rollouts_per_prompt=self.args.rollouts_per_prompt,
                max_new_tokens=self.args.max_new_tokens,
                temperature=self.args.temperature,
                top_k=self.args.top_k,
                seed=self._sampling_seed(),
                vocabulary=len(self.tokenizer),
            )
        loss = self.objective.compute(model, self.teacher, Batch(references, samples, len(self.tokenizer)), self.args)
        if model.training:
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
        super().log(logs, start_time)

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int] | None:
        """Transformers' choice, but batches of like length come in random order (``LengthBatches``)."""
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length" or "length" not in getattr(
            dataset, "column_names", ()
        ):
            return super()._get_train_sampler(train_dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return LengthBatches(
            dataset["length"], self.args.train_batch_size * self.args.gradient_accumulation_steps, seed
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

    def _sampling_seed(self) -> int:
        """A seed of its own for every micro-batch and process, the same after a resume."""
        step = self.state.global_step
        last, count = self._micro_step
        self._micro_step = (step, count + 1 if last == step else 0)
        parts = (self.args.seed, step, self._micro_step[1], self.args.process_index)
        seed = 0
        for part in parts:
            seed = (seed * 1_000_003 + part + 1) % (2**63 - 1)
        return seed
