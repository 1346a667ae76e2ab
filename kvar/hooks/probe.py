"""``GradientProbe``: policy-gradient moments of every kernel on fresh rollouts, along any transformers training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch.distributed as dist
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from kvar.gradients.state import unwrap
from kvar.hooks.autocast import plain_forward
from kvar.hooks.estimators import Estimator, check_plain
from kvar.hooks.measure import Reward, Valuation, measure_gradients, reward_values, teacher_values
from kvar.measurement import Measurement, record
from kvar.records import RunWriter
from kvar.returns import Kernel
from kvar.rollouts import check_apart, check_lengths, encode_prompts, policy_of
from kvar.rollouts.text.encoder import check_prompts

__all__ = ["GradientProbe"]


class GradientProbe(TrainerCallback):
    """Measures every estimator's gradient moments every ``every`` steps on fresh rollouts of a fixed prompt set.

    Responses are drawn from the student itself at temperature 1, so that the estimates are on-policy and need no
    importance weights. The training run is not disturbed: parameters, ``.grad``, buffers, modes and random state are
    as before, and the probe's own sampling depends on (seed, step) alone.

    Args:
        prompts: in any form that ``kvar.rollouts.encode_prompts`` takes.
        estimators: kernels, or :class:`Estimator` with baselines, in any mix; names must differ.
        teacher: scores the responses; None with ``reward``.
        reward: rollouts -> (N, T) per-token rewards u_t, used as theory.md (4') does.
        tokenizer: needed for texts; default the trainer's.
        every: training steps between probes; the last step is measured whatever it is.
        first: measure the student before its first step as well.
        rollouts_per_prompt: responses to each prompt.
        max_new_tokens: length limit of responses.
        seed: seed of the sampling.
        writer: where to append ``trajectories``, ``gradients``, ``prompt_gradients`` and timings; None keeps
            measurements in ``.measurements`` only.
        name: the probe's name in the records.
        groups: parameter groups, see ``kvar.gradients.gradient_moments``; "layers" for one a layer
            (``kvar.gradients.layer_groups``).
        position_bins: also split every estimator over this many ranges of positions, named "K=4 @ 0-3"
            (``kvar.returns.split_by_position``), at the cost of as many more estimators; 0 for none.
        engine: see there.
        fields: see there.
        micro_batch: see there; also the rows that one teacher pass takes.
        centre: of the teacher's logits, see ``kvar.returns.token_values``.
        value: hard or soft V, see there.
        vocabulary: draw, score and normalise over the first this many tokens only; default the tokenizer's.

    Raises:
        ValueError: no prompts or estimators, neither or both of teacher and reward, numbers out of range.
    """

    def __init__(
        self,
        prompts: Any,
        estimators: Sequence[Kernel | Estimator],
        *,
        teacher: nn.Module | None = None,
        reward: Reward | None = None,
        tokenizer: Any = None,
        every: int = 50,
        first: bool = True,
        rollouts_per_prompt: int = 4,
        max_new_tokens: int = 64,
        seed: int = 0,
        writer: RunWriter | None = None,
        name: str = "probe",
        groups: Mapping[str, Any] | Literal["layers"] | None = None,
        position_bins: int = 0,
        engine: str = "auto",
        fields: Literal["all", "norms"] = "all",
        micro_batch: int | None = None,
        centre: Literal["mean", "logsumexp", "none"] = "mean",
        value: Literal["max", "soft"] = "max",
        vocabulary: int | None = None,
    ) -> None:
        if (teacher is None) == (reward is None):
            raise ValueError("GradientProbe needs exactly one of teacher= and reward=.")
        if every < 1:
            raise ValueError(f"every must be at least 1 training step; got {every}.")
        self.estimators = [e if isinstance(e, Estimator) else Estimator(e) for e in estimators]
        check_plain(self.estimators)
        names = [e.name for e in self.estimators]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"estimators must be one or more, with distinct names; got {names}.")
        if reward is not None and any(e.baseline == "teacher-value" for e in self.estimators):
            raise ValueError("baseline teacher-value needs teacher=; a reward has no V. Use another baseline.")
        check_prompts(prompts)
        if isinstance(groups, str) and groups != "layers":
            raise ValueError(f"groups must be a mapping, 'layers' or None; got {groups!r}.")
        if position_bins < 0:
            raise ValueError(f"position_bins must be 0 or more ranges of positions; got {position_bins}.")
        self.prompts, self.teacher, self.reward, self.tokenizer = prompts, teacher, reward, tokenizer
        self._prompts, self._taken = prompts, False  # as given; whether the tokenizer is a trainer's
        self.every, self.rollouts_per_prompt, self.max_new_tokens = every, rollouts_per_prompt, max_new_tokens
        self.first = first
        self.seed, self.writer, self.name, self.groups = seed, writer, name, groups
        self.position_bins = position_bins
        self.engine, self.fields, self.micro_batch = engine, fields, micro_batch
        self.centre, self.value, self.vocabulary = centre, value, vocabulary
        self.measurements: list[Measurement] = []
        self._done: set[int] = set()
        self._first = 0  # of ``measurements``, the present training's

    def measure(self, student: nn.Module, step: int = 0, distributed: bool = False) -> Measurement:
        """Sample, score and measure ``student`` now; nothing is recorded.

        Args:
            student: seq2seq or causal model, plain or data-parallel.
            step: names the measurement, and selects its random stream.
            distributed: share the prompts out among all processes, which must all call and all get the whole.

        Raises:
            ValueError: fewer prompts than processes.
        """
        student = unwrap(student)
        policy = policy_of(student, self.tokenizer, teacher=self.teacher, vocabulary=self.vocabulary)
        self.prompts = encode_prompts(self.prompts, self.tokenizer, student, policy=policy)
        return measure_gradients(
            student,
            self.prompts,
            self.estimators,
            self._valuation(),
            policy=policy,
            tokenizer=self.tokenizer,
            rollouts_per_prompt=self.rollouts_per_prompt,
            max_new_tokens=self.max_new_tokens,
            seed=self.seed,
            step=step,
            groups=self.groups,
            position_bins=self.position_bins,
            engine=self.engine,
            fields=self.fields,
            micro_batch=self.micro_batch,
            distributed=distributed,
            config={"parameters": sum(p.numel() for p in student.parameters() if p.requires_grad)},
        )

    def record(self, measurement: Measurement) -> None:
        """Append a measurement to the writer's tables; the same (name, step) again replaces, never repeats."""
        if self.writer is None:
            return
        record(measurement, self.writer, self.name)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the trainer's tokenizer, and measure the student before its first step, unless ``first`` is False.

        A new training is measured anew; one that goes on from a checkpoint, from there on.
        """
        if self.tokenizer is None or self._taken:
            self.tokenizer, self._taken, self.prompts = kwargs.get("processing_class"), True, self._prompts
        check_apart(unwrap(kwargs["model"]), self.teacher)
        self._check_lengths(kwargs["model"])
        step = state.global_step
        self._done = {done for done in self._done if done <= step} if step else set()
        self._first = self._first if step else len(self.measurements)
        self.measurements[self._first :] = [m for m in self.measurements[self._first :] if m.step <= step]
        if self.writer is not None and state.is_world_process_zero:
            self.writer.begin(step, self.name)
        if self.first and state.global_step == 0:
            self._probe(kwargs["model"], 0, args, state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure after every ``every``-th optimiser step."""
        if state.global_step % self.every == 0:
            self._probe(kwargs["model"], state.global_step, args, state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the trained student, unless its last step was measured already."""
        self._probe(kwargs["model"], state.global_step, args, state)

    def _check_lengths(self, student: nn.Module) -> None:
        """Before training, not at the first measurement."""
        self.prompts = encode_prompts(self.prompts, self.tokenizer, unwrap(student))
        lengths = self.prompts[1].sum(dim=1)
        row = int(lengths.argmax())
        where = f"prompt {row} of the probe {self.name!r}"
        check_lengths(unwrap(student), self.teacher, int(lengths[row]), self.max_new_tokens, prompt=where)

    def _probe(self, student: nn.Module, step: int, args: TrainingArguments, state: TrainerState) -> None:
        if step in self._done:
            return
        self._done.add(step)
        with plain_forward(student):
            measurement = self.measure(student, step, distributed=args.world_size > 1 and dist.is_initialized())
        if not state.is_world_process_zero:
            return
        if self.writer is None:
            self.measurements.append(measurement)
        self.record(measurement)

    def _valuation(self) -> Valuation:
        if self.teacher is None:
            assert self.reward is not None
            return reward_values(self.reward)
        return teacher_values(self.teacher, centre=self.centre, value=self.value, micro_batch=self.micro_batch)
