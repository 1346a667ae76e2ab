"""``DistillationTrainer``: ``transformers.Trainer`` with a teacher, sampled responses and a named objective."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kvar.distill.checkpoints import WholeCheckpoints
from kvar.distill.config import DistillationConfig
from kvar.distill.data import Collator
from kvar.distill.epochs import Epochs
from kvar.distill.learning_rates import scale_learning_rates
from kvar.distill.models.check import check_lengths, check_models
from kvar.distill.not_finite import not_finite
from kvar.distill.objectives import Batch, Mixture, Passes
from kvar.distill.sampler import LengthBatches, ShuffledExamples
from kvar.distill.step import Step, on_policy_coin, prepare_step
from kvar.distill.teacher_responses import TeacherResponses
from kvar.distill.through import through
from kvar.distill.throughput import Throughput
from kvar.rollouts import NonFiniteLogitsError

__all__ = ["DistillationTrainer"]


STEP = "optimiser_step"
"""Where a micro-batch's inputs hold its step and its place in it."""


class DistillationTrainer(WholeCheckpoints):
    """Trains a student by any registered objective, or a weighted sum of them.

    Loop, schedule and state are transformers' own. The loss of an optimiser step is that of one big batch, however many
    micro-batches and processes it is made of.

    Args:
        model: the student, seq2seq or causal.
        teacher: a frozen model with the same tokenizer; None for objectives that need none.
        args: the run's settings.
        train_dataset: rows of ``kvar.distill.data.build_dataset``.
        processing_class: the tokenizer.
        kwargs: passed on to ``transformers.Trainer``.

    Raises:
        ValueError: an objective that needs a teacher without one; models, tokenizer and lengths that do not go together
            (``check_models``, ``check_lengths``).
    """

    args: DistillationConfig
    mixture: Mixture

    def __init__(
        self, model: nn.Module, args: DistillationConfig, *, teacher: nn.Module | None = None, **kwargs: Any
    ) -> None:
        self.mixture = args.mixture
        if self.mixture.teacher and teacher is None:
            raise ValueError(f"objective {args.objective!r} needs a teacher: pass teacher=, or use objective sft.")
        tokenizer: Any = kwargs.get("processing_class")
        if not hasattr(tokenizer, "eos_token_id"):
            raise ValueError(f"processing_class must be a tokenizer; got {type(tokenizer).__name__}.")
        check_models(model, teacher, tokenizer)
        for dataset in (kwargs.get("train_dataset"), kwargs.get("eval_dataset")):
            if dataset is not None and "prompt_length" in (getattr(dataset, "column_names", None) or ()):
                check_lengths(model, teacher, max(dataset["prompt_length"]), args.max_new_tokens)
        kwargs.setdefault("data_collator", Collator(tokenizer.pad_token_id))
        super().__init__(model=model, args=args, **kwargs)
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = True  # divided by the whole step's tokens or responses, see prepare_step
        self.tokenizer: Any = tokenizer
        self.teacher = teacher
        self._teacher_responses: TeacherResponses | None = None
        if teacher is not None:
            teacher.requires_grad_(False).eval()
            teacher.to(self.args.device)
            self._teacher_responses = TeacherResponses(
                teacher,
                tokenizer,
                beams=args.seqkd_beams,
                max_new_tokens=args.max_new_tokens,
                temperature=args.temperature,
                top_k=args.top_k,
                seed=args.seed,
                folder=args.output_dir,
                process=args.process_index,
            )
        self._logs: dict[str, list[float]] = defaultdict(list)
        self._current = Step([])
        self.throughput = Throughput()
        self.add_callback(self.throughput)
        self.epochs = Epochs()
        self.add_callback(self.epochs)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """The micro-batches of the next optimiser step, each with a reference to all of them."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        step = Step(batches)
        return [{**inputs, STEP: (step, place)} for place, inputs in enumerate(batches)], None

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """One micro-batch's share of its step's loss; the step's responses are sampled at its first micro-batch."""
        student = self.accelerator.unwrap_model(model)
        batch = self._batch(student, inputs)
        samples, values = batch.responses.get("student"), batch.values

        def on_samples() -> None:
            if model.training and samples is not None and values is not None:
                for callback in self.callback_handler.callbacks:
                    if hasattr(callback, "on_rollouts"):  # kvar.hooks.OutputLayerProbe, or anyone's
                        callback.on_rollouts(samples, values)

        logs: dict[str, float] = {}

        def compute() -> Tensor:  # inside the wrapper's forward, so that DDP sees one forward however many there are
            passes = Passes(student, self.teacher, batch, self.args, on_samples)
            value, numbers = self.mixture.loss(passes, self.args)
            logs.update(numbers)
            return value

        loss = through(model, student, compute)
        if not bool(torch.isfinite(loss)):
            raise ValueError(not_finite(f"loss is {loss.item()}", self.state.global_step, [inputs], self.tokenizer))
        if model.training:
            self.throughput.count(torch.cat([rollouts.mask.flatten() for rollouts in batch.responses.values()]))
            for name, number in logs.items():
                self._logs[name].append(number)
        return (loss, {"loss": loss}) if return_outputs else loss

    def _batch(self, student: nn.Module, inputs: dict[str, Any]) -> Batch:
        """The micro-batch's responses and what is known of them, prepared with the rest of its step."""
        if STEP not in inputs:  # evaluation, or a caller of its own: a step of one micro-batch, on this process alone
            return self._prepared(student, [inputs], alone=True)[0]
        step, place = inputs[STEP]
        if step.batches is None:
            step.inputs = [self._prepare_inputs(batch) for batch in step.inputs]
            step.batches = dict(enumerate(self._prepared(student, step.inputs)))
            self._current = step
        return step.batches.pop(place)

    def _prepared(self, student: nn.Module, inputs: list[dict[str, Any]], *, alone: bool = False) -> list[Batch]:
        # Outside training there is one random stream for all times, so that evaluations differ by the policy alone.
        step = self.state.global_step if student.training else -1
        several = self.args.world_size > 1 and not alone
        try:
            return prepare_step(
                inputs,
                student=student,
                teacher=self.teacher,
                teacher_responses=self._teacher_responses,
                mixture=self.mixture,
                settings=self.args,
                tokenizer=self.tokenizer,
                step=step,
                on_policy=on_policy_coin(self.args.seed, step, self.args.gkd_lambda),
                all_sum=(lambda x: self.accelerator.reduce(x, reduction="sum")) if several else None,
                processes=self.args.world_size if several else 1,
            )
        except NonFiniteLogitsError as error:
            what = "a model's logits are not finite while responses are sampled"
            raise ValueError(not_finite(what, self.state.global_step, inputs, self.tokenizer)) from error

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Transformers' norm; a step whose gradient is not finite is not taken, unless a loss scaler skips it."""
        norm = super()._get_grad_norm(model, grad_norm)
        if self.accelerator.scaler is None and not math.isfinite(float(norm)):
            what, inputs = f"the gradient's norm is {float(norm)}", self._current.inputs
            raise ValueError(not_finite(what, self.state.global_step, inputs, self.tokenizer))
        return norm

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
            logs = {**logs, **self._mean_logs()}
            self._logs.clear()
            speed = self.throughput.take(self.args.device, self.args.world_size)
            if speed is not None:
                logs["tokens_per_second"] = speed
        super().log(logs, start_time)

    def _mean_logs(self) -> dict[str, float]:
        """Means of the objective's numbers since the last log, over micro-batches and processes."""
        names = sorted(self._logs)
        sums = torch.tensor([[sum(self._logs[name]), len(self._logs[name])] for name in names], dtype=torch.float32)
        if self.args.world_size > 1 and names:  # every process logs, and has the same names
            sums = self.accelerator.reduce(sums.to(self.args.device), reduction="sum")
            return {name: float(total / number) for name, (total, number) in zip(names, sums, strict=True)}
        return {name: sum(self._logs[name]) / len(self._logs[name]) for name in names}

    def pending_logs(self) -> dict[str, list[float]]:
        """The objective's numbers since the last log."""
        return dict(self._logs)

    def restore_pending_logs(self, pending: dict[str, list[float]]) -> None:
        """Go on gathering from what a checkpoint held."""
        self._logs.update(pending)

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int] | None:
        """Transformers' choice, in an order of our own where it is random, the same for any number of processes."""
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        strategy = self.args.train_sampling_strategy
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        if strategy == "group_by_length" and "length" in getattr(dataset, "column_names", ()):
            self.epochs.sampler = LengthBatches(dataset["length"], batch, seed)
        elif strategy == "random" and hasattr(dataset, "__len__"):
            self.epochs.sampler = ShuffledExamples(len(dataset), seed)
        else:
            return super()._get_train_sampler(train_dataset)
        return self.epochs.sampler

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Transformers' optimizer; with ``scale_learning_rate`` as :mod:`kvar.distill.learning_rates` has it."""
        optimizer = super().create_optimizer(model)
        if self.args.scale_learning_rate:
            scale_learning_rates(optimizer)
        return optimizer
