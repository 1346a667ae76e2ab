"""Checks of the input and result of a gradient measurement; each error names field, value and remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from kvar.estimators.terms import Terms
from kvar.gradients.cotangents import Weights
from kvar.gradients.moments import GroupMoments
from kvar.rollouts.types import Rollouts

__all__ = ["check_finite", "check_name_count", "checked_scalars", "checked_weights", "no_checkpointing"]


def checked_weights(weights: Weights, rollouts: Rollouts, micro_batch: int | None) -> Weights:
    """Weights, or terms, on the rollouts' device and zero where masked; callables unchanged."""
    if micro_batch is not None and (not isinstance(micro_batch, int) or micro_batch < 1):
        raise ValueError(f"micro_batch must be a positive integer or None; got {micro_batch!r}.")
    if isinstance(weights, Terms):
        weights.check(rollouts)
        exact = {name: scales.to(rollouts.mask.device) for name, scales in weights.exact.items()}
        plain, *_ = (_checked_tensor(w, rollouts, weights.names) for w in (weights.weights, *exact.values()))
        return plain if not exact else replace(weights, weights=plain, exact=exact)
    if not isinstance(weights, Tensor):
        if not callable(weights):
            raise TypeError(
                "weights must be an (E, N, T) tensor, a pair (evidence, estimators), or a callable, logits -> (E, N); "
                f"got {type(weights).__name__}."
            )
        if micro_batch is not None:
            raise ValueError(
                f"micro_batch={micro_batch} with a callable in place of weights: the callable sees the logits of all N "
                "trajectories at once; leave micro_batch None and pass fewer rollouts."
            )
        return weights
    return _checked_tensor(weights, rollouts)


def _checked_tensor(weights: Tensor, rollouts: Rollouts, names: tuple[str, ...] | None = None) -> Tensor:
    n, t = rollouts.tokens.shape
    if weights.dim() != 3 or weights.shape[0] == 0 or tuple(weights.shape[1:]) != (n, t):
        remedy = " (for one estimator, pass weights[None])" if tuple(weights.shape) == (n, t) else ""
        raise ValueError(
            f"weights must have shape (E, N, T) = (E, {n}, {t}), E at least 1, beside these rollouts; "
            f"got {tuple(weights.shape)}{remedy}."
        )
    weights = weights.detach().to(rollouts.mask.device)
    if not weights.is_floating_point():
        weights = weights.to(torch.get_default_dtype())
    bad = ~torch.isfinite(weights) & rollouts.mask
    if bool(bad.any()):
        e, i, step = (int(x) for x in bad.nonzero()[0])
        raise ValueError(
            f"weights[{e}, {i}, {step}] is {float(weights[e, i, step])}: estimator "
            f"{e if names is None else repr(names[e])}, trajectory {i}, "
            f"position {step} must be finite; look at the teacher's logits there."
        )
    return torch.where(rollouts.mask, weights, torch.zeros_like(weights))


def checked_scalars(
    weights: Callable[[Tensor], Tensor], names: tuple[str, ...] | None, n: int
) -> Callable[[Tensor], Tensor]:
    """The same callable, logits (N, T, V) -> (E, N), which raises where its scalars cannot be differentiated.

    Raises:
        ValueError: scalars of another shape, or detached from the logits.
        FloatingPointError: a scalar that is not finite, before its gradient spreads to other estimators.
    """

    def checked(logits: Tensor) -> Tensor:
        scalars = weights(logits)
        shape = tuple(scalars.shape) if isinstance(scalars, Tensor) else type(scalars).__name__
        if not isinstance(scalars, Tensor) or scalars.dim() != 2 or scalars.shape[1] != n:
            raise ValueError(f"weights(logits) must return (E, N) scalars, N = {n}; got {shape}.")
        if torch.is_grad_enabled() and not scalars.requires_grad:
            raise ValueError(
                "weights(logits) returned scalars without a gradient: compute them from the logits, undetached."
            )
        present = logits.detach().flatten(1).any(dim=1)  # engines put zeros in place of omitted rows
        bad = ~torch.isfinite(scalars.detach()) & present
        if bool(bad.any()):
            e, i = (int(x) for x in bad.nonzero()[0])
            name = names[e] if names is not None and e < len(names) else str(e)
            raise FloatingPointError(
                f"weights(logits) is {float(scalars[e, i].detach())} for estimator {name!r} (number {e}), "
                f"trajectory {i}: it must be finite."
            )
        return scalars

    return checked


def check_name_count(names: tuple[str, ...], count: int) -> None:
    """Refuse names that are not one for each of ``count`` estimators."""
    if len(names) != count:
        raise ValueError(f"names has {len(names)} entries {list(names)} for {count} estimators: give one name each.")


def check_finite(result: Mapping[str, GroupMoments], names: tuple[str, ...]) -> None:
    """Refuse a non-finite norm: FloatingPointError with estimator, trajectory and the smallest group it shows in."""
    for group in sorted(result, key=lambda name: name == "all"):  # name the smallest group
        bad = ~torch.isfinite(result[group].sq_norm)
        if bool(bad.any()):
            e, i = (int(x) for x in bad.nonzero()[0])
            raise FloatingPointError(
                f"non-finite gradient: estimator {names[e]!r} (number {e}), trajectory {i}, group {group!r}. Look at "
                "this trajectory's logits and weights; half precision overflows where float32 or bfloat16 does not."
            )


@contextmanager
def no_checkpointing() -> Iterator[None]:
    """Raise a ValueError with the remedy where activation checkpointing makes a backward pass fail."""
    try:
        yield
    except RuntimeError as error:
        if "checkpoint" not in str(error).lower():
            raise
        raise ValueError(
            "the student recomputes activations (torch.utils.checkpoint) in eval mode too, which this engine cannot "
            "follow: switch that off while measuring; with use_reentrant=False, engine='loop' works as well."
        ) from error
