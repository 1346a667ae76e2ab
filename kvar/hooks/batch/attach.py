"""Estimators held against what a trainer's batches hold, before training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from kvar.estimators import Estimator, NextTokenReward, Score
from kvar.hooks.batch.kind import BatchKind
from kvar.hooks.estimators import estimators_of

__all__ = ["chosen_estimators", "warn_of_sampling"]

_PLAIN: dict[str, tuple[Any, Any]] = {
    "temperature": (None, 1),
    "top_p": (None, 1),
    "top_k": (None, 0),
    "min_p": (None, 0),
    "repetition_penalty": (None, 1),
    "do_sample": (None, True),
}
"""Settings of sampling -> their values under which responses are drawn from the student's own distribution."""


def chosen_estimators(kind: BatchKind, trainer: Any, given: Any, teacher: nn.Module | None) -> tuple[Estimator, ...]:
    """The estimators to be measured on a trainer's batches.

    Args:
        kind: of the batches.
        trainer: the trainer.
        given: names, kernels and estimators; None for a few that the batches have everything for.
        teacher: in place of the trainer's own.

    Raises:
        ValueError: an estimator that needs what the batches lack; its name, what it needs, and the remedy.
    """
    chosen = estimators_of(_default_estimators(kind, trainer, teacher) if given is None else given)
    _check_estimators(chosen, kind, trainer, teacher)
    return chosen


def _default_estimators(kind: BatchKind, trainer: Any, teacher: nn.Module | None) -> str:
    """A few estimators that the trainer's batches have everything for."""
    names = []
    if teacher is None and kind.own_teacher(trainer) is not None:
        names += ["K=1", "immediate"]  # of the values that the batch holds
    elif _taught(kind, trainer, teacher):
        names += ["kl immediate exact", "kl immediate", "K=1"]
    if kind.scores is not None:
        grouped = kind.group_size(trainer) > 1 and kind.whole_groups(trainer)
        names += ["score - leave-one-out", "score - group-normalised"] if grouped else ["score"]
    if not names:
        raise ValueError(
            f"the batches of {type(trainer).__name__} hold neither a teacher's logits nor scores: pass teacher=."
        )
    return ", ".join(names)


def _check_estimators(
    estimators: Sequence[Estimator], kind: BatchKind, trainer: Any, teacher: nn.Module | None
) -> None:
    whose = f"a batch of {type(trainer).__name__}"
    taught = _taught(kind, trainer, teacher)
    for e in estimators:
        of_teacher = isinstance(e.reward, NextTokenReward) or e.baseline == "teacher-value"
        if not taught and (of_teacher or (e.reward is None and kind.scores is None)):
            raise ValueError(f"estimator {e.name!r} needs a teacher, which {whose} has none of: pass teacher=.")
        if isinstance(e.reward, Score) and e.reward.function is None and kind.scores is None:
            raise ValueError(f"estimator {e.name!r} needs scores of responses, which {whose} does not hold.")
        if e.correction is not None and not kind.has_behaviour(trainer):
            raise ValueError(
                f"estimator {e.name!r} needs log-probabilities of the policy that drew the tokens, which {whose} does "
                "not hold: leave the correction out."
            )
        if getattr(e.subtracted, "scope", None) == "prompt" and kind.group_size(trainer) < 2:
            raise ValueError(
                f"estimator {e.name!r} needs several responses to a prompt; {whose} has one: use another baseline."
            )
        if getattr(e.subtracted, "scope", None) == "prompt" and not kind.whole_groups(trainer):
            raise ValueError(
                f"estimator {e.name!r} needs all responses to a prompt, and one step of {type(trainer).__name__} holds "
                "some of them: set steps_per_generation to gradient_accumulation_steps, or use another baseline."
            )


def _taught(kind: BatchKind, trainer: Any, teacher: nn.Module | None) -> bool:
    """Whether there is a teacher: given, caught or the trainer's own."""
    return teacher is not None or kind.has_teacher(trainer) or kind.own_teacher(trainer) is not None


def warn_of_sampling(estimators: Sequence[Estimator], trainer: Any) -> None:
    """Warn where responses are not drawn from the student's own distribution and some estimator does not correct it."""
    more = getattr(trainer.args, "generation_kwargs", None)
    more = more if isinstance(more, Mapping) else {}
    set_to = {name: more.get(name, getattr(trainer.args, name, None)) for name in _PLAIN}
    other = ", ".join(f"{name}={value}" for name, value in set_to.items() if value not in _PLAIN[name])
    plain = [e.name for e in estimators if e.correction is None]
    if plain and (share := getattr(trainer, "lmbda", 1.0)) < 1:
        warnings.warn(
            f"{type(trainer).__name__} trains on responses that the student did not draw (lmbda={share:g}), on which "
            f"estimators of its own samples mean nothing ({', '.join(plain)}): set lmbda=1, or read 'trained' alone.",
            stacklevel=3,
        )
    if other and plain:
        warnings.warn(
            f"{type(trainer).__name__} samples with {other}, which biases estimators without a correction "
            f"({', '.join(plain)}): sample with {', '.join(f'{n}={v[1]}' for n, v in _PLAIN.items())}.",
            stacklevel=3,
        )
