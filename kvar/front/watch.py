"""``kvar.watch``: the noise and bias of the policy gradient in the tracker, while any transformers Trainer trains."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from torch import nn
from transformers import Trainer

from kvar.analysis.frames.reference import default_reference
from kvar.estimators import DATA, TRAINED
from kvar.front.measure import DEFAULT
from kvar.hooks import BatchProbe, Estimator, GradientProbe, TrainerLog
from kvar.hooks.batch.attach import chosen_estimators
from kvar.hooks.batch.known import kind_of
from kvar.hooks.scalars import PREFIX
from kvar.hooks.valuation import Reward
from kvar.returns import Kernel
from kvar.study.settings.probed import estimator_of

__all__ = ["watch"]

TEACHERS = ("teacher", "teacher_model")
"""Attributes under which trainers hold their teacher."""
LENGTHS = ("max_new_tokens", "max_completion_length")
"""Settings of trainers that limit a response's length."""


def watch(
    trainer: Trainer,
    prompts: Any = None,
    estimators: str | Kernel | Estimator | Sequence[str | int | Kernel | Estimator] | None = None,
    *,
    every: int = 50,
    teacher: nn.Module | None = None,
    reward: Reward | None = None,
    batch: float | None = None,
    target: str | None = None,
    name: str | None = None,
    **options: Any,
) -> GradientProbe | BatchProbe:
    """Measure the gradient while a trainer trains, and log the numbers with it, under "kvar/".

    Call it once the trainer is made, before ``trainer.train()``. The numbers, which docs/howto/watch.md lists, go to
    whatever the trainer reports to and into ``trainer.state.log_history``. The training itself is not changed.

    Args:
        trainer: any transformers Trainer: TRL's, kvar's, yours.
        prompts: fresh responses of the student to these prompts are measured, in any form of
            ``kvar.rollouts.encode_prompts``; None: the batch that is being trained on, of the trainers that
            :class:`kvar.hooks.BatchProbe` knows, with the trainer's own estimator as ``trained``.
        estimators: as of :func:`kvar.measure`, and by default the same and the one that kvar's trainer trains with, if
            it has a name; without prompts those that the batch allows.
        every: optimiser steps between measurements.
        teacher: values the responses; by default ``trainer.teacher`` or ``trainer.teacher_model``.
        reward: in place of a teacher, rollouts -> (N, T) per-token rewards; with prompts only.
        batch: B, trajectories of an optimiser step, that efficiency, SNR, bias share and best estimator are for; by
            default the trainer's.
        target: of bias and efficiency: an objective ("J", "J_kl", "score") or an estimator; default J.
        name: a second probe of one trainer needs one; its numbers are under "kvar/NAME/".
        options: the probe's other arguments, such as ``rollouts_per_prompt``, ``first``, ``score``, ``writer`` and
            ``micro_batch``; with prompts, ``max_new_tokens`` is the trainer's by default, if it has one.

    Returns:
        The probe, which is one of the trainer's callbacks now. ``probe.history`` is a statistics frame for
        ``kvar.plots``, ``probe.measurements`` holds all else, and functions in ``probe.listeners`` are called with
        each measurement, for instance to draw it.

    Raises:
        TypeError: no transformers Trainer; without prompts, a trainer whose batches are not known; an unknown option.
        ValueError: no teacher, a trainer that is watched under this name already, a target that none of the
            estimators is unbiased for; and as :class:`kvar.hooks.GradientProbe`.
    """
    if not isinstance(trainer, Trainer):
        raise TypeError(
            f"watch needs a transformers Trainer that is made already; got {type(trainer).__name__}. In a loop of your "
            "own, measure by kvar.hooks.GradientProbe(...).measure(student, step) and log kvar.hooks.scalars of it."
        )
    log = TrainerLog(trainer, batch, target=target, prefix=PREFIX if name is None else f"{PREFIX}/{name}")
    for callback in trainer.callback_handler.callbacks:
        if any(getattr(other, "prefix", None) == log.prefix for other in getattr(callback, "listeners", ())):
            raise ValueError(f"this trainer is watched under {log.prefix!r} already: give the second probe a name=.")
    options |= {"teacher": teacher, "every": every, **({} if name is None else {"name": name})}
    probe: GradientProbe | BatchProbe
    if prompts is None:
        chosen = _of_batch(trainer, estimators, reward, teacher)
        default_reference([*(estimator.name for estimator in chosen), TRAINED], target)
        probe = BatchProbe(trainer, chosen, **options)  # among the trainer's callbacks now
    else:
        if teacher is None and reward is None:
            options["teacher"] = _teacher_of(trainer)
        lengths = [getattr(trainer.args, length, None) for length in LENGTHS]
        options.setdefault("max_new_tokens", next(filter(None, lengths), 64))
        probe = GradientProbe(prompts, DEFAULT if estimators is None else estimators, reward=reward, **options)
        if estimators is None and reward is None:
            _add_trained(probe, trainer)
        extra = [DATA] if options.get("references") is not None else []
        default_reference([*(estimator.name for estimator in probe.estimators), *extra], target)
        trainer.add_callback(probe)
    probe.batch = batch
    probe.listeners.append(log)
    return probe


def _add_trained(probe: GradientProbe, trainer: Trainer) -> None:
    """Measure what kvar's trainer trains with too, if it has a name, and the probe all that it takes."""
    from kvar.distill import DistillationConfig

    own = estimator_of(trainer.args) if isinstance(trainer.args, DistillationConfig) else None
    if own is not None:
        with suppress(ValueError):  # no score, or one response to a prompt
            probe.add([own])


def _of_batch(
    trainer: Trainer, estimators: Any, reward: Reward | None, teacher: nn.Module | None
) -> tuple[Estimator, ...]:
    """The estimators of the trainer's own batch.

    Raises:
        TypeError: a trainer whose batches are not known.
        ValueError: a reward, and as :class:`kvar.hooks.BatchProbe`.
    """
    if reward is not None:
        raise ValueError("reward= is for prompts=: without prompts the trainer's own batch and scores are measured.")
    try:
        kind = kind_of(trainer)
    except TypeError as error:
        raise TypeError(f"{str(error).removesuffix('.')}: kvar.watch(trainer, prompts).") from None
    return chosen_estimators(kind, trainer, estimators, teacher)


def _teacher_of(trainer: Trainer) -> nn.Module:
    """The teacher that a trainer holds.

    Raises:
        ValueError: none, or the student itself.
    """
    for attribute in TEACHERS:
        model = getattr(trainer, attribute, None)
        if isinstance(model, nn.Module) and model is not trainer.model:
            return model
    raise ValueError(
        f"{type(trainer).__name__} holds no teacher (as {' or '.join(TEACHERS)}): pass teacher=, a model with the "
        "student's tokenizer, or reward=, a function from rollouts to (N, T) per-token rewards."
    )
