"""A measurement of the batch that is being trained on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kvar.estimators import Score
from kvar.gradients import gradient_moments, layer_groups
from kvar.hooks.batch.joined import with_trained
from kvar.hooks.batch.part import Caught, Part
from kvar.hooks.measurement_settings import MeasurementSettings
from kvar.hooks.valuation import Valued, terms_of, valued, weigh
from kvar.measurement import Measurement
from kvar.returns.precision import at_least_float32
from kvar.rollouts import Rollouts, behaviour_numbers, token_logits
from kvar.rollouts.modes import undisturbed
from kvar.rollouts.rows import row_numbers

__all__ = ["check_log_probs", "measure_batch", "padded_log_probs"]

_STALE = 0.5
"""Mean difference a token from which old log-probabilities count as another model's: a few steps make less."""
_SAMPLE = 8
"""Trajectories whose log-probabilities are computed again."""


def measure_batch(
    student: nn.Module,
    part: Part,
    settings: MeasurementSettings,
    *,
    teacher: nn.Module | None = None,
    step: int = 0,
    scale: float = 1.0,
    config: Mapping[str, Any] | None = None,
) -> Measurement:
    """Measure the trainer's estimator and others on one batch; the student's state stays as it is.

    Args:
        student: the model that is trained, unwrapped.
        part: the batch.
        settings: of the measurement; its ``score`` is replaced by the batch's scores.
        teacher: in place of the one whose logits or values the batch holds.
        step: names the measurement.
        scale: by which the trainer multiplied the loss against underflow.
        config: of the measurement, see :class:`kvar.measurement.Measurement`.
    """
    start = time.perf_counter()
    rollouts, scores = part.rollouts, part.scores
    if scores is not None:
        settings = replace(settings, score=lambda _: scores)
    asked: Any = teacher
    if teacher is None and part.teacher is not None:
        asked = _caught_teacher(part, part.teacher)
    evidence = None
    held = part.values is not None and part.valued == (settings.centre, settings.value)
    if part.values is not None and held and all(e.plain for e in settings.estimators):
        responses = Valued(rollouts, part.values, {})
    else:
        reward = None if asked is not None else Score(settings.score, constant=True).sampled
        with undisturbed(student):
            responses, evidence = valued(student, rollouts, settings, asked, reward)
    weights, names = weigh(responses, settings, slice(0, len(rollouts)), rollouts.tokens.shape[1], evidence)
    terms = with_trained(terms_of(weights, names, rollouts), part, -len(rollouts) / scale)
    moments = gradient_moments(
        student,
        rollouts,
        terms,
        groups=layer_groups(student) if settings.groups == "layers" else settings.groups,
        engine=settings.engine,
        fields=settings.fields,
        micro_batch=settings.micro_batch,
    )
    numbers = {} if part.log_probs is None else behaviour_numbers(rollouts, part.log_probs)
    whole = {**(config or {}), "numbers": {name: x for name, x in numbers.items() if math.isfinite(x)}}
    return Measurement(step, rollouts, responses.values, moments, time.perf_counter() - start, whole)


def _caught_teacher(part: Part, teacher: Callable[[Tensor], Tensor]) -> Callable[[Rollouts], Tensor]:
    """Some of the rollouts -> the teacher's logits, (n, T, V), as caught.

    Raises:
        ValueError: one response to one prompt has two teachers, which are told apart by more than these.
    """
    rows = row_numbers(part.rollouts)
    same = rows(part.rollouts)
    twice = (same != torch.arange(len(same), device=same.device)).nonzero()[:, 0]
    if len(twice):
        mask = part.rollouts.mask[twice]
        if not torch.allclose(teacher(twice)[mask], teacher(same[twice])[mask], rtol=1e-3, atol=1e-2):
            raise ValueError(
                f"rows {int(twice[0])} and {int(same[twice[0]])} of the batch have one prompt, one response and "
                "teachers that were told different things: leave out estimators of the teacher, such as kl."
            )
    return lambda some: teacher(rows(some))[:, : some.tokens.shape[1]]


@torch.no_grad()
def check_log_probs(student: nn.Module, part: Part, tolerance: float) -> None:
    """Refuse a batch of another policy, or a pass that gave other log-probabilities than the student without padding.

    Args:
        student: the model that is trained.
        part: the batch.
        tolerance: largest mean difference a token of the pass.

    Raises:
        ValueError: names the difference, and the likely cause.
    """
    if part.log_probs is None:
        return
    mask, drawn = part.rollouts.mask, part.rollouts.log_probs
    apart = (drawn - part.log_probs)[mask].abs() if bool(drawn.any()) else drawn.new_zeros(1)
    if float(apart.nanmean()) > _STALE:
        raise ValueError(
            f"the batch's old log-probabilities differ from the student's by {float(apart.nanmean()):.2g} a token at "
            f"temperature {part.temperature:g}: another model or temperature gave them, or the student has moved far "
            "in the steps that share them (num_iterations, steps_per_generation)."
        )
    rows = torch.linspace(0, len(part.rollouts) - 1, min(_SAMPLE, len(part.rollouts))).round().long().unique()
    some, given = part.rollouts[rows], part.log_probs[rows]
    with undisturbed(student):
        again = _log_probs(student, some, part.temperature)
    difference = float((given.to(again) - again)[some.mask].abs().mean()) if bool(some.mask.any()) else 0.0
    if not difference <= tolerance:
        raise ValueError(
            f"the trainer's forward pass gives log-probabilities that differ by {difference:.2g} a token from the "
            f"student's at temperature {part.temperature:g}: left padding shifts the positions of a model that learns "
            "them (GPT-2, OPT), or another model computed them. Use a model with rotary positions, or prompts of one "
            "length."
        )


@torch.no_grad()
def padded_log_probs(student: nn.Module, caught: Caught, temperature: float) -> Tensor | None:
    """(B, T) log-probabilities of one micro-batch padded as the trainer pads it, without dropout; None for rollouts."""
    layout = caught.layout
    if layout is None:
        return None
    with undisturbed(student):
        seen = (layout.prompt | layout.response).long()
        logits = student(input_ids=layout.ids, attention_mask=seen, use_cache=False).logits[:, :-1]
    log_pi = (at_least_float32(logits) / temperature).log_softmax(dim=-1)
    return caught.of_tokens(log_pi.gather(-1, layout.ids[:, 1:, None])[..., 0])


def _log_probs(student: nn.Module, rollouts: Rollouts, temperature: float) -> Tensor:
    """(N, T) log pi(y_t) at a temperature."""
    log_pi = (at_least_float32(token_logits(student, rollouts)) / temperature).log_softmax(dim=-1)
    return log_pi.gather(-1, rollouts.tokens.masked_fill(~rollouts.mask, 0)[..., None])[..., 0]
