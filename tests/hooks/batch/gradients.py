"""The check that the mean of "trained" is the gradient that a trainer takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from kvar.hooks import BatchProbe
from kvar.hooks.batch import probe as probe_file
from kvar.hooks.batch.part import Part
from kvar.rollouts.forward import chosen_log_probs, token_logits
from tests.hooks.batch.trainers import quiet_train


class Gradients(TrainerCallback):
    """Keeps the student's ``.grad`` before every optimiser step."""

    def __init__(self) -> None:
        self.taken: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        named = kwargs["model"].named_parameters()
        self.taken.append({name: p.grad.clone() for name, p in named if p.grad is not None})


def mean_gradient(student: Any, part: Part) -> dict[str, torch.Tensor]:
    """Minus the sum of the trajectories' parts, by autograd through kvar's own forward pass."""
    logits = token_logits(student, part.rollouts)
    if part.weights is not None:
        total = (part.weights * chosen_log_probs(logits, part.rollouts)).sum()
    else:
        assert part.rows is not None
        rows = part.rows(torch.arange(len(part.rollouts)), logits.detach())
        actions = logits.masked_fill(logits == -torch.inf, 0.0)
        total = (actions * rows)[part.rollouts.mask].sum()
    named = [(name, p) for name, p in student.named_parameters() if p.requires_grad]
    grads = torch.autograd.grad(total, [p for _, p in named])
    return {name: grad for (name, _), grad in zip(named, grads, strict=True)}


def trained_is_the_gradient(
    trainer: Any, student: Any, estimators: str, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> None:
    """Train; compare "trained", as a vector and by its norm in each parameter, with the trainer's own ``.grad``."""
    taken, means = Gradients(), []
    measure = probe_file.measure_batch

    def kept(student: Any, part: Part, *given: Any, **named: Any) -> Any:
        means.append(mean_gradient(student, part))
        return measure(student, part, *given, **named)

    monkeypatch.setattr(probe_file, "measure_batch", kept)
    trainer.add_callback(taken)
    groups = {name: [parameter] for name, parameter in student.named_parameters()}
    probe = BatchProbe(trainer, estimators, every=1, groups=groups, **options)
    quiet_train(trainer)
    assert len(probe.measurements) == trainer.args.max_steps == len(taken.taken)
    for measurement, mean, gradient in zip(probe.measurements, means, taken.taken, strict=True):
        assert measurement.names[0] == "trained"
        rows = trainer.args.per_device_train_batch_size * trainer.args.gradient_accumulation_steps
        assert len(measurement.rollouts) == rows * getattr(trainer.args, "rollouts_per_prompt", 1)
        largest = max(float(g.abs().max()) for g in gradient.values())
        for name, g in gradient.items():
            torch.testing.assert_close(mean[name], g, rtol=1e-5, atol=1e-5 * largest)
            power = float(measurement.moments[name].mean_pair[0, 0])
            assert power == pytest.approx(float(g.double().square().sum()), rel=2e-5, abs=2e-10 * largest**2)
