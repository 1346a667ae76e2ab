"""``GradientProbe``: policy-gradient moments of every kernel on fresh rollouts, along any transformers training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch.distributed as dist
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from kvar.gradients.state import unwrap
from kvar.hooks.autocast import plain_forward
from kvar.hooks.estimators import Estimator, estimators_of
from kvar.hooks.measure import measure_gradients
from kvar.hooks.measurement_settings import Groups, MeasurementSettings, ScoreFunction
from kvar.hooks.measuring import Measuring
from kvar.hooks.valuation import Reward
from kvar.measurement import Measurement
from kvar.records import RunWriter
from kvar.returns import Kernel
from kvar.rollouts import Sampler, check_apart, check_lengths, encode_prompts, policy_of, references
from kvar.rollouts.samplers.drawn import sampler_of
from kvar.rollouts.text.encoder import check_prompts

__all__ = ["GradientProbe"]


class GradientProbe(Measuring):
    """Measures every estimator's gradient moments every ``every`` steps on fresh rollouts of a fixed prompt set.

    Responses are drawn from the student at temperature 1, so that the estimates are on-policy and need no importance
    weights. The training run is not disturbed: parameters, ``.grad``, buffers, modes and random state stay as they are,
    and the probe's sampling depends on (seed, step) only.

    Args:
        prompts: in any form that ``kvar.rollouts.encode_prompts`` takes.
        estimators: names that :func:`kvar.hooks.parse_estimators` reads, kernels and :class:`Estimator` in any mix; all
            are measured on the same responses.
        teacher: scores the responses; None with ``reward``.
        reward: rollouts -> (N, T) per-token rewards u_t, used as theory.md (4') does.
        score: rollouts -> N scores of whole responses, for estimators of the reward ``score``.
        references: the data's response to each prompt, as text; the gradient of their likelihood is measured as one
            more estimator, called ``data``. They are cut at ``max_new_tokens``.
        sampler: draws the responses in place of the student, or an engine's address, as of :func:`kvar.measure`.
        stale: accept the sampler's responses as an earlier student's, for estimators with corrections: an engine whose
            weights lag behind the training.
        tokenizer: needed for texts; default the trainer's.
        every: training steps between probes; the last step is always measured.
        first: also measure the student before its first step.
        rollouts_per_prompt: responses to each prompt.
        max_new_tokens: length limit of responses.
        seed: seed of the sampling.
        writer: appends ``trajectories``, ``gradients``, ``prompt_gradients`` and timings; None keeps measurements in
            ``.measurements``.
        name: the probe's name in the records.
        groups: parameter groups, see ``kvar.gradients.gradient_moments``; "layers" for one a layer
            (``kvar.gradients.layer_groups``).
        position_bins: also split every estimator over this many ranges of positions, named "K=4 @ 0-3"
            (``kvar.returns.split_by_position``), at the cost of as many more estimators; 0 for none.
        engine: see ``kvar.gradients.gradient_moments``.
        fields: see ``kvar.gradients.gradient_moments``.
        micro_batch: trajectories that the teacher and the gradient take at a time; None for all.
        centre: of the teacher's logits, see ``kvar.returns.token_values``.
        value: hard or soft V, see ``kvar.returns.token_values``.
        vocabulary: draw, score and normalise over the first this many tokens only; default the tokenizer's.

    Raises:
        ValueError: no prompts or estimators, neither or both of teacher and reward, numbers out of range.
    """

    def __init__(
        self,
        prompts: Any,
        estimators: str | Kernel | Estimator | Sequence[str | int | Kernel | Estimator],
        *,
        teacher: nn.Module | None = None,
        reward: Reward | None = None,
        score: ScoreFunction | None = None,
        references: Sequence[Any] | None = None,
        sampler: Sampler | str | None = None,
        stale: bool = False,
        tokenizer: Any = None,
        every: int = 50,
        first: bool = True,
        rollouts_per_prompt: int = 4,
        max_new_tokens: int = 64,
        seed: int = 0,
        writer: RunWriter | None = None,
        name: str = "probe",
        groups: Groups = None,
        position_bins: int = 0,
        engine: str = "auto",
        fields: Literal["all", "norms"] = "all",
        micro_batch: int | None = None,
        centre: Literal["mean", "logsumexp", "none"] = "mean",
        value: Literal["max", "soft"] = "max",
        vocabulary: int | None = None,
    ) -> None:
        super().__init__(writer, name)
        if every < 1:
            raise ValueError(f"every must be at least 1 training step; got {every}.")
        self.settings = MeasurementSettings(
            estimators_of(estimators),
            score,
            rollouts_per_prompt,
            max_new_tokens,
            seed,
            micro_batch,
            groups,
            position_bins,
            engine,
            fields,
            centre,
            value,
            vocabulary,
            constant_scores=True,
        )
        self.settings.check_teacher(teacher, reward)
        self.sampler, self.stale = sampler_of(sampler), stale
        check_prompts(prompts)
        self.references = None if references is None else list(references)
        if self.references is not None and len(self.references) != len(prompts):
            raise ValueError(f"references: {len(self.references)} for {len(prompts)} prompts; give one for each.")
        self.prompts, self.teacher, self.reward, self.tokenizer = prompts, teacher, reward, tokenizer
        self._prompts, self._taken = prompts, False  # as given; whether the tokenizer is a trainer's
        self.estimators = self.settings.estimators
        self.every, self.first = every, first
        self._done: set[int] = set()
        self._latest: Measurement | None = None

    def add(self, estimators: Sequence[Estimator]) -> None:
        """Measure further estimators too; one of a name that is measured already takes its place.

        Raises:
            ValueError: an estimator that the probe has no teacher, score or second response for.
        """
        added = {e.name: e for e in estimators}
        kept = {e.name: added.pop(e.name, e) for e in self.estimators}
        self.settings = replace(self.settings, estimators=(*kept.values(), *added.values()))
        self.settings.check_teacher(self.teacher, self.reward)
        self.estimators = self.settings.estimators

    def measure(self, student: nn.Module, step: int = 0, distributed: bool = False) -> Measurement:
        """Sample, score and measure ``student`` now; nothing is recorded.

        Args:
            student: seq2seq or causal model, plain, data-parallel or under FSDP2.
            step: names the measurement, and selects its random stream.
            distributed: divide the prompts among all processes; all must call this and all get the whole result.

        Raises:
            ValueError: fewer prompts than processes.
        """
        student = unwrap(student)
        policy = policy_of(student, self.tokenizer, teacher=self.teacher, vocabulary=self.settings.vocabulary)
        self.prompts = encode_prompts(self.prompts, self.tokenizer, student, policy=policy)
        written = None
        if self.references is not None:
            given = self._prompts if self.tokenizer is not None else self.prompts
            length = self.settings.max_new_tokens
            written = references(given, self.references, self.tokenizer, student, max_new_tokens=length, policy=policy)
        return measure_gradients(
            student,
            self.prompts,
            self.settings,
            teacher=self.teacher,
            reward=self.reward,
            references=written,
            sampler=self.sampler,
            stale=self.stale,
            policy=policy,
            tokenizer=self.tokenizer,
            step=step,
            distributed=distributed,
            config={"parameters": sum(p.numel() for p in student.parameters() if p.requires_grad)},
        )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin, and measure the student before its first step, unless ``first`` is False."""
        self.begin_training(state, **kwargs)
        if self.first and state.global_step == 0:
            self._probe(kwargs["model"], 0, args, state)

    def begin_training(self, state: TrainerState, **kwargs: Any) -> None:
        """Take the trainer's tokenizer and check the prompts.

        Measurements of an earlier training, or past the checkpoint that this one resumes from, are dropped.
        """
        if self.tokenizer is None or self._taken:
            self.tokenizer, self._taken, self.prompts = kwargs.get("processing_class"), True, self._prompts
        check_apart(unwrap(kwargs["model"]), self.teacher)
        self._check_lengths(kwargs["model"])
        self._done = {step for step in self._done if step <= state.global_step} if state.global_step else set()
        self._latest = None
        self.begin(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure after every ``every``-th optimiser step, and where training stops."""
        if state.global_step % self.every == 0 or control.should_training_stop:
            self._probe(kwargs["model"], state.global_step, args, state)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure where training stops after an evaluation: before the trainer's last log, which ends trackers."""
        if control.should_training_stop:
            self._probe(kwargs["model"], state.global_step, args, state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the trained student, unless its last step was measured already."""
        self._probe(kwargs["model"], state.global_step, args, state)

    def _check_lengths(self, student: nn.Module) -> None:
        """Check prompts and responses against the models' positions before training."""
        self.prompts = encode_prompts(self.prompts, self.tokenizer, unwrap(student))
        lengths = self.prompts[1].sum(dim=1)
        row = int(lengths.argmax())
        where = f"prompt {row} of the probe {self.name!r}"
        check_lengths(unwrap(student), self.teacher, int(lengths[row]), self.settings.max_new_tokens, prompt=where)

    def _probe(self, student: nn.Module, step: int, args: TrainingArguments, state: TrainerState) -> None:
        if step not in self._done:
            self.measured(student, step, args, state)

    def measured(self, student: nn.Module, step: int, args: TrainingArguments, state: TrainerState) -> Measurement:
        """The measurement of a step, which is made, and kept or recorded, unless it is the latest one.

        Every process must call it, and all get the whole.
        """
        if self._latest is None or self._latest.step != step:
            self._done.add(step)
            with plain_forward(student):
                several = args.world_size > 1 and dist.is_initialized()
                self._latest = self.measure(student, step, distributed=several)
            self.deliver(self._latest, state)
        return self._latest
