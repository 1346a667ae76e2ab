"""Opacus: GradSampleModule's per-sample gradients, and the norms of its ghost clipping; one pass per estimator."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from opacus.grad_sample import GradSampleModule
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.contestants import scalar


def per_sample(case: Case) -> Callable[[], Tensor]:
    """(E, N) squared norms of per-sample gradients written out."""
    own = _wrapped(case, GradSampleModule)

    def norms() -> Tensor:
        total = torch.zeros(len(case.rollouts))
        for p in own.student.parameters():
            total += p.grad_sample.flatten(1).square().sum(dim=1)
            p.grad_sample = None
        return total

    return lambda: _each(own, norms)


def ghost(case: Case) -> Callable[[], Tensor]:
    """(E, N) squared norms, by Grams where Opacus has them."""
    own = _wrapped(case, GradSampleModuleFastGradientClipping)
    return lambda: _each(own, lambda: own.student.get_norm_sample().square())


def _wrapped(case: Case, wrapper: type) -> Case:
    student = wrapper(copy.deepcopy(case.student).train(), loss_reduction="sum")
    student.config = case.student.config
    return replace(case, student=student)


def _each(case: Case, norms: Callable[[], Tensor]) -> Tensor:
    out = []
    for weights in case.weights:
        case.student.zero_grad(set_to_none=True)
        scalar(case, weights).backward()
        out.append(norms())
    return torch.stack(out)
