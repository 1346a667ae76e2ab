"""Batches of TRL's DistillationTrainer: a divergence from the teacher, computed from hidden states in chunks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from kvar.estimators.rewards import JSD, ForwardKL, LogRatio
from kvar.hooks.batch.kind import BatchKind
from kvar.hooks.batch.part import Caught, Part, Rows
from kvar.rollouts import Rollouts
from kvar.rollouts.patching import replaced

__all__ = ["DivergenceBatch", "divergence_rows"]

_MODULE, _FUNCTION = "trl.trainer.distillation_trainer", "ChunkedDivergenceFunction"


class DivergenceBatch(BatchKind):
    """TRL's ``DistillationTrainer``: per token JSD_beta of student and teacher at a temperature.

    Its loss never holds logits, so what is caught is the gradient with respect to each token's divergence and the
    teacher's hidden states, from which the teacher's logits follow without a second pass of the teacher.
    """

    trainers = ("DistillationTrainer",)

    def check(self, trainer: Any) -> None:
        """See :class:`BatchKind`."""
        if not hasattr(sys.modules.get(_MODULE), _FUNCTION):
            raise ValueError(
                f"{type(trainer).__name__} has no {_MODULE}.{_FUNCTION}: it is of another TRL version than the one "
                "that kvar pins. Install that version."
            )

    def has_teacher(self, trainer: Any) -> bool:
        """True."""
        return True

    @contextmanager
    def catching(self, trainer: Any, inputs: Mapping[str, Any], caught: Caught) -> Iterator[None]:
        """See :class:`BatchKind`."""
        module: Any = sys.modules[_MODULE]
        original = getattr(module, _FUNCTION)
        completions = inputs["completion_mask"].bool() & (inputs["tool_mask"].bool() if "tool_mask" in inputs else True)

        def aligned(values: Tensor) -> Tensor:
            """(B, C, ...) of the (B C, ...) or, on a GPU, of the unmasked entries alone."""
            if len(values) == completions.numel():
                return values.view(*completions.shape, *values.shape[1:])
            out = values.new_zeros(*completions.shape, *values.shape[1:])
            out[completions] = values
            return out

        def apply(*given: Any) -> Any:
            caught.passes += 1
            out = original.apply(*given)
            heads = {"student": (*given[:3], *given[8:10]), "teacher": (*given[3:6], *given[10:])}
            for name, (hidden, weight, *rest) in heads.items():
                caught.values[name] = caught.of_tokens(aligned(hidden))
                caught.settings[name] = (weight.detach(), *rest)
            caught.settings |= {"beta": given[6], "temperature": given[7]}

            def keep(grad: Tensor) -> None:
                caught.grads["divergence"] = caught.of_tokens(aligned(grad))

            out[0].register_hook(keep)
            return out

        with replaced(module, _FUNCTION, SimpleNamespace(apply=apply)):  # type: ignore[arg-type]
            yield

    def part(self, trainer: Any, inputs: Mapping[str, Any], caught: Caught, ends: tuple[int, ...]) -> Part:
        """See :class:`BatchKind`."""
        rollouts, weights = caught.rollouts(ends), caught.grads["divergence"]
        beta, temperature = caught.settings["beta"], caught.settings["temperature"]

        def teacher(numbers: Tensor) -> Tensor:
            return _logits(caught.values["teacher"][numbers], *caught.settings["teacher"])

        return Part(
            rollouts,
            rows=divergence_rows(weights, teacher, beta, temperature),
            teacher=teacher,
            log_probs=_log_probs(caught.values["student"], caught.settings["student"], rollouts, temperature),
            temperature=temperature,
            empty=not bool(weights.any()),
        )


@torch.no_grad()
def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, scale: float, cap: float | None) -> Tensor:
    """(..., V) logits of (..., H) hidden states: head, scale, soft cap."""
    logits = torch.nn.functional.linear(hidden.to(weight.dtype), weight, bias).float() * scale
    return logits if cap is None else cap * torch.tanh(logits / cap)


def _log_probs(hidden: Tensor, head: tuple[Any, ...], rollouts: Rollouts, temperature: float) -> Tensor:
    """(B, T) log pi(y_t) at a temperature, one row at a time."""
    rows = []
    for row, tokens in zip(hidden, rollouts.tokens, strict=True):
        log_pi = (_logits(row, *head) / temperature).log_softmax(dim=-1)
        rows.append(log_pi.gather(-1, tokens[:, None])[:, 0])
    return torch.stack(rows).masked_fill(~rollouts.mask, 0.0)


def divergence_rows(weights: Tensor, teacher: Callable[[Tensor], Tensor], beta: float, temperature: float) -> Rows:
    """The gradient of sum_t w_t JSD_beta at the student's logits: -w pi o (u - pi.u) / temperature, (23).

    JSD_beta is KL(p || pi) at beta = 0 and KL(pi || p) at beta = 1, p the teacher's softmax; u is the reward whose
    exact immediate term is the gradient of minus that divergence.

    Args:
        weights: (B, T), w.
        teacher: row numbers -> the teacher's (n, T, V) logits.
        beta: from 0 to 1.
        temperature: of both.
    """
    reward = {0.0: ForwardKL(), 1.0: LogRatio()}.get(float(beta)) or JSD(beta)

    def rows(numbers: Tensor, logits: Tensor) -> Tensor:
        student = logits.detach() / temperature
        weighted = reward.weighted(teacher(numbers).to(logits) / temperature, student)
        centred = weighted - student.softmax(dim=-1) * weighted.sum(dim=-1, keepdim=True)
        return -weights[numbers, :, None].to(logits) / temperature * centred

    return rows
