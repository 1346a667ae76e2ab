"""BackPACK: BatchGrad's per-sample gradients and BatchL2Grad's norms; one forward, one backward pass per estimator."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from backpack import backpack, extend
from backpack.extensions import BatchGrad, BatchL2Grad
from torch import Tensor, nn

from benchmarks.cases import Case
from benchmarks.contestants import scalar


def batch_grad(case: Case) -> Callable[[], Tensor]:
    """(E, N) squared norms of per-sample gradients written out."""

    def norms(p: nn.Parameter) -> Tensor:
        found = p.grad_batch.flatten(1).square().sum(dim=1)
        del p.grad_batch
        return found

    return _each(case, BatchGrad(), norms)


def batch_l2(case: Case) -> Callable[[], Tensor]:
    """(E, N) squared norms, as BackPACK takes them."""
    return _each(case, BatchL2Grad(), lambda p: p.batch_l2)


def _each(case: Case, extension: object, norms: Callable[[nn.Parameter], Tensor]) -> Callable[[], Tensor]:
    student = copy.deepcopy(case.student)
    for module in student.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            extend(module)
    own = replace(case, student=student)

    def run() -> Tensor:
        out = []
        for weights in own.weights:
            student.zero_grad(set_to_none=True)
            with backpack(extension):
                scalar(own, weights).backward()
            out.append(sum(norms(p) for p in student.parameters()))
        return torch.stack(out)

    return run
