"""``DistillationTrainer``: ``transformers.Trainer`` with a teacher, sampled responses and a named objective."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from accelerate.utils import gather_object  # type: ignore[import-untyped]
from torch import Tensor, nn

from kvar.distill.adaptive import trained_settings
from kvar.distill.config import DistillationConfig
from kvar.distill.data.dataset import Collator, prepared
from kvar.distill.data.epochs import Epochs
from kvar.distill.data.order import LengthBatches, ShuffledExamples
from kvar.distill.data.whole_batches import check_whole_batches, rows_together, whole_batches_only
from kvar.distill.models.check import check_models, check_rows
from kvar.distill.objectives import Batch, Mixture, Passes
from kvar.distill.step.evened import EvenedRows, EvenedSampler, MarkingCollator, check_evened
from kvar.distill.step.responses import Scorer, Step, distinct_rows, on_policy_coin, prepare_step
from kvar.distill.step.teacher_responses import TeacherResponses
from kvar.distill.trainer.estimator_in_use import EstimatorInUse
from kvar.distill.trainer.learning_rates import scale_learning_rates
from kvar.distill.trainer.not_finite import not_finite
from kvar.distill.trainer.step_logs import StepLogs
from kvar.distill.trainer.strategy import check_strategy, check_whole
from kvar.distill.trainer.throughput import Throughput
from kvar.distill.trainer.undivided_loss import UndividedLoss
from kvar.distill.trainer.wrapped_forward import through
from kvar.rollouts import NonFiniteLogitsError, Sampler, check_apart, policy_of, sampler_of, whole
from kvar.rollouts.policy import adopt

__all__ = ["DistillationTrainer"]


STEP = "optimiser_step"
"""Key of a micro-batch's step, and its position in it, among its inputs."""


class DistillationTrainer(EstimatorInUse, UndividedLoss):
    """Trains a student by any registered objective, or a weighted sum of them.

    Loop, schedule and state are those of transformers. The loss of an optimiser step is that of one big batch, however
    many micro-batches and processes it is split into.

    Args:
        model: the student, seq2seq or causal.
        teacher: a frozen model with the same tokenizer; None for objectives that need none.
        args: the run's settings.
        score: responses and their examples (texts) -> one number each, for the reward ``score``: ``example_scores``.
        sampler: draws the student's responses, see ``kvar.rollouts.Sampler``; default ``args.sampler``, or the student.
        train_dataset: rows of ``kvar.distill.data.dataset.build_dataset``; or raw rows (prompt and target or
            completion, or messages), which are encoded by it. The same for ``eval_dataset``.
        processing_class: the tokenizer.
        kwargs: passed on to ``transformers.Trainer``.

    Raises:
        ValueError: an objective that needs a teacher without one; models, tokenizer and lengths that do not fit
            (``check_models``, ``check_lengths``); a teacher that shares trained parameters with the student.
    """

    args: DistillationConfig
    mixture: Mixture

    def __init__(
        self,
        model: nn.Module,
        args: DistillationConfig,
        *,
        teacher: nn.Module | None = None,
        score: Scorer | None = None,
        sampler: Sampler | None = None,
        **kwargs: Any,
    ) -> None:
        self.mixture = args.mixture
        for settings in trained_settings(args).values():
            self.mixture.check_given(settings, teacher, score)
        check_strategy(args)
        check_whole(model, teacher)
        tokenizer: Any = kwargs.get("processing_class")
        if not hasattr(tokenizer, "eos_token_id"):
            raise ValueError(f"processing_class must be a tokenizer; got {type(tokenizer).__name__}.")
        check_models(model, teacher, tokenizer)
        check_apart(model, teacher)
        adopt(model, policy_of(model, tokenizer, teacher=teacher))
        if "data_collator" not in kwargs:
            limits = {"max_target_tokens": args.max_new_tokens, "max_prompt_tokens": args.max_prompt_tokens}
            for name in ("train_dataset", "eval_dataset"):
                kwargs[name] = prepared(kwargs.get(name), model, tokenizer, name=name, **limits)
        datasets = {name: kwargs.get(name) for name in ("train_dataset", "eval_dataset")}
        check_rows(datasets, model, teacher, args.max_new_tokens)
        kwargs.setdefault("data_collator", Collator(tokenizer.pad_token_id))
        super().__init__(model=model, args=args, **kwargs)
        check_whole_batches(self.train_dataset, self.args, rows_together(self.accelerator, self.args.train_batch_size))
        self.tokenizer: Any = tokenizer
        self.teacher, self.score, self.sampler = teacher, score, sampler_of(sampler or args.sampler, args.sampler_model)
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
        self._logs, self._current = StepLogs(), Step([])
        self.throughput = Throughput()
        self.add_callback(self.throughput)
        self.epochs = Epochs()
        self.add_callback(self.epochs)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """The micro-batches of the next optimiser step, each with a reference to its step."""
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
                    if hasattr(callback, "on_rollouts"):  # such as kvar.hooks.OutputLayerProbe
                        callback.on_rollouts(samples, values)

        logs: dict[str, float] = {}

        def compute() -> Tensor:  # inside the wrapper's forward, so that DDP sees a single forward
            passes = Passes(student, self.teacher, batch, self.settings, on_samples)
            value, numbers = self.mixture.loss(passes, self.settings)
            logs.update(numbers)
            return value

        loss = through(model, student, compute)
        if not bool(torch.isfinite(loss)):
            raise ValueError(not_finite(f"loss is {loss.item()}", self.state.global_step, [inputs], self.tokenizer))
        if model.training:
            self.throughput.count(torch.cat([rollouts.mask.flatten() for rollouts in batch.responses.values()]))
            micro_batches = len(inputs[STEP][0].inputs) if STEP in inputs else 1
            self._logs.add(logs, rows=int(distinct_rows(inputs).sum()), micro_batches=micro_batches)
        return (loss, {"loss": loss}) if return_outputs else loss

    def _batch(self, student: nn.Module, inputs: dict[str, Any]) -> Batch:
        """The micro-batch, prepared with the rest of its step."""
        if STEP not in inputs:  # not called by the training loop: a step of one micro-batch on this process
            return self._prepared(student, [inputs], alone=True)[0]
        step, place = inputs[STEP]
        if step.batches is None:
            step.inputs = [self._prepare_inputs(batch) for batch in step.inputs]
            step.batches = dict(enumerate(self._prepared(student, step.inputs)))
            self._current = step
        return step.batches.pop(place)

    def _prepared(self, student: nn.Module, inputs: list[dict[str, Any]], *, alone: bool = False) -> list[Batch]:
        # Outside training the random stream is always the same, so that evaluations differ by the policy alone.
        step = self.state.global_step if student.training else -1
        coin = on_policy_coin(self.args.seed, step, self.args.gkd_lambda)
        sampled = "student" in self.mixture.sources(self.args, coin)  # else it is only trained
        several = self.args.world_size > 1 and not alone
        watched = any(hasattr(callback, "on_rollouts") for callback in self.callback_handler.callbacks)
        try:
            with whole(student, as_trained=True) if sampled else nullcontext(student) as plain:
                return prepare_step(
                    inputs,
                    student=plain,
                    teacher=self.teacher,
                    teacher_responses=self._teacher_responses,
                    mixture=self.mixture,
                    settings=self.settings,
                    tokenizer=self.tokenizer,
                    step=step,
                    on_policy=coin,
                    scorer=self.score,
                    sampler=self.sampler,
                    values=watched and student.training,
                    all_sum=(lambda x: self.accelerator.reduce(x, reduction="sum")) if several else None,
                    all_parts=(lambda part: gather_object([part])) if several else None,
                    processes=self.args.world_size if several else 1,
                    process=self.args.process_index if several else 0,
                )
        except NonFiniteLogitsError as error:
            what = "a model's logits are not finite while responses are sampled"
            raise ValueError(not_finite(what, self.state.global_step, inputs, self.tokenizer)) from error

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Transformers' norm; raises ValueError where it is not finite, unless a loss scaler skips the step."""
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
        """The objective's loss on a validation batch of all processes."""
        with torch.no_grad():
            loss = self.compute_loss(model, {**inputs, STEP: (Step([inputs]), 0)}).detach()
            return (self.accelerator.reduce(loss, reduction="mean") if self.args.world_size > 1 else loss), None, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of the objective's numbers since the last log."""
        if "loss" in logs:
            logs = {**logs, **self._logs.take(self._all_sum if self.args.world_size > 1 else None)}
            speed = self.throughput.take(self.args.device, self.args.world_size)
            if speed is not None:
                logs["tokens_per_second"] = speed
        super().log(logs, start_time)

    def _all_sum(self, numbers: Tensor) -> Tensor:
        """The sum over processes, which must all call."""
        return self.accelerator.reduce(numbers.to(self.args.device), reduction="sum")

    def pending_logs(self) -> dict[str, Any]:
        """The objective's numbers since the last log: sums and weights."""
        return {"sums": dict(self._logs.sums)}

    def restore_pending_logs(self, pending: dict[str, Any]) -> None:
        """Replace the numbers gathered so far by those of a checkpoint."""
        self._logs.sums.clear()
        self._logs.sums.update(pending.get("sums", {}))

    def _get_dataloader(self, dataset: Any, description: str, batch_size: int, *more: Any, **options: Any) -> Any:
        """Transformers' loader; on several processes the repeated rows at its end are marked."""
        sampler_fn = more[0] if more else options.pop("sampler_fn", None)
        training = bool(options.get("is_training"))
        if self.args.dataloader_drop_last and not training and hasattr(dataset, "__len__"):  # evaluate every row
            with whole_batches_only(self.args, False):
                return self._get_dataloader(dataset, description, batch_size, sampler_fn, *more[1:], **options)
        check_evened(dataset, self.args, training=training)
        rebalanced = training and self.args.train_sampling_strategy == "batch_rebalance"
        if self.args.world_size == 1 or self.args.dataloader_drop_last or rebalanced:
            return super()._get_dataloader(dataset, description, batch_size, sampler_fn, *more[1:], **options)
        together = rows_together(self.accelerator, batch_size)

        def sampler(evened: Any) -> EvenedSampler:
            order = sampler_fn(evened.rows) if sampler_fn is not None else None
            return EvenedSampler(range(len(evened)) if order is None else order, len(evened), together)

        plain, self.data_collator = self.data_collator, MarkingCollator(self.data_collator)
        try:
            return super()._get_dataloader(EvenedRows(dataset), description, batch_size, sampler, *more[1:], **options)
        finally:
            self.data_collator = plain

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        """Validation rows in an order that is the same for any number of processes: by length, else as they are."""
        if not hasattr(eval_dataset, "__len__"):
            return super()._get_eval_sampler(eval_dataset)
        strategy = self.args.train_sampling_strategy
        if strategy == "group_by_length" and "length" in getattr(eval_dataset, "column_names", ()):
            lengths = list(eval_dataset["length"])
            return sorted(range(len(lengths)), key=lengths.__getitem__)
        return torch.utils.data.SequentialSampler(eval_dataset)

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int] | None:
        """Transformers' choice; random orders are kvar's, the same for any number of processes."""
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
        """Transformers' optimizer; ``scale_learning_rate`` as in :mod:`kvar.distill.trainer.learning_rates`."""
        optimizer = super().create_optimizer(model)
        if self.args.scale_learning_rate:
            scale_learning_rates(optimizer)
        return optimizer
