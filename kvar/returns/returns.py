"""Returns of sampled tokens from a teacher's values: values, kernels and baseline combined, theory.md eq. (4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kvar.returns.baselines import batch_mean, leave_one_out, position_mean, teacher_value
from kvar.returns.kernels import Kernel
from kvar.returns.lag_sums import lag_sums
from kvar.returns.values import TokenValues

__all__ = ["BASELINES", "Baseline", "returns"]

BASELINES = ("teacher-value", "batch-mean", "position-mean", "leave-one-out")
Baseline = str | Callable[[Tensor, Tensor], Tensor] | None


def returns(
    values: TokenValues,
    mask: Tensor,
    kernels: Sequence[Kernel],
    baseline: Baseline = None,
    prompt_index: Tensor | None = None,
) -> Tensor:
    """Every kernel's return of every token, G_t = V_t - sum_{j>=0} w_j gap_{t+j}; theory.md eq. (4).

    With their kernels this is the K-step return of eq. (3) and LLMR's of eq. (2). The expression is the same for a
    response that ends in EOS and one that the length limit cut (its unknown tail V_{T+1} added back).

    Args:
        values: the teacher's values of N responses of T tokens.
        mask: (N, T), true on response tokens; right padding only.
        kernels: E kernels.
        baseline: subtracted from the returns: None, "teacher-value", "batch-mean", "position-mean", "leave-one-out"
            (the functions of ``kvar.returns.baselines``, which say what each does to E[g]), or a callable that takes
            the returns (E, N, T) and the bool mask and gives what to subtract, to be broadcast with the returns.
        prompt_index: (N,), the prompt of each response; "leave-one-out" needs it.

    Returns:
        (E, N, T), zero where masked, in the values' dtype and in logit units.

    Raises:
        ValueError: values and mask of different shapes, a mask with a hole, an unknown baseline, "leave-one-out"
            without prompt_index, or a callable's result of a shape that cannot be broadcast.
        TypeError: an entry of ``kernels`` is not a kernel, or a baseline is neither a name nor callable.

    Examples:
        >>> import torch
        >>> from kvar.returns import KStep, TokenValues
        >>> values = TokenValues(q=torch.tensor([[1.0, 2.0, 3.0]]), v=torch.tensor([[2.0, 4.0, 6.0]]))
        >>> returns(values, torch.ones(1, 3), [KStep(1), KStep(2)])[:, 0].tolist()
        [[-4.0, -1.0, 3.0], [-2.0, -1.0, 3.0]]
        >>> returns(values, torch.ones(1, 3), [KStep(1)], baseline="teacher-value")[:, 0].tolist()
        [[-6.0, -5.0, -3.0]]
    """
    if values.q.shape != mask.shape:
        raise ValueError(f"mask must have the values' shape (N, T) = {tuple(values.q.shape)}; got {tuple(mask.shape)}.")
    _check_baseline(baseline, prompt_index)
    advantages = lag_sums(-values.gap, mask, kernels)
    keep = mask.bool()
    if baseline == "teacher-value":
        return advantages
    full = (teacher_value(values) + advantages).masked_fill(~keep, 0.0)
    if baseline is None:
        return full
    if baseline == "batch-mean":
        shift = batch_mean(full, keep)
    elif baseline == "position-mean":
        shift = position_mean(full, keep)
    elif baseline == "leave-one-out":
        assert prompt_index is not None  # checked above
        shift = leave_one_out(full, keep, prompt_index)
    else:
        assert callable(baseline)  # checked above
        shift = baseline(full, keep)
        _check_broadcast(shift, full)
    return (full - shift).masked_fill(~keep, 0.0)


def _check_baseline(baseline: Baseline, prompt_index: Tensor | None) -> None:
    if baseline is None or callable(baseline):
        return
    if not isinstance(baseline, str):
        raise TypeError(f"baseline must be None, a name or a callable; got {baseline!r}.")
    if baseline not in BASELINES:
        raise ValueError(
            f"baseline={baseline!r} is unknown; choose None, one of {', '.join(BASELINES)}, or a callable "
            "(for instance one around minimum_variance, which needs score norms)."
        )
    if baseline == "leave-one-out" and prompt_index is None:
        raise ValueError("baseline='leave-one-out' needs prompt_index, the (N,) prompt of each response.")


def _check_broadcast(shift: Tensor, full: Tensor) -> None:
    try:
        fits = torch.broadcast_shapes(shift.shape, full.shape) == full.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"the baseline's result must broadcast with the returns (E, N, T) = {tuple(full.shape)}; "
            f"got {tuple(shift.shape)}."
        )
