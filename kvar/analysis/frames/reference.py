"""Which estimator stands for the true gradient in bias, error and efficiency, and of what it is the gradient."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from kvar.estimators import DATA, Estimator, parse_estimators

__all__ = ["default_reference", "objective_of", "parsed", "target_words", "targets_among"]


@cache
def objective_of(name: str) -> str | None:
    """The objective whose gradient an estimator of that name is unbiased for, see ``Estimator.objective``; or None.

    Example:
        >>> [objective_of(name) for name in ("K=1 - leave-one-out", "kl K=1 exact", "K=4", "a reward of mine K=1")]
        ['J', 'J_kl', None, None]
    """
    estimator = parsed(name)
    return None if estimator is None else estimator.objective


def default_reference(names: Sequence[str], target: str | None = None) -> str:
    """The estimator that stands for g*: of those that are unbiased for the target, the one of least noise by its form.

    That is with a leave-one-out baseline rather than without, then with an expected future, then with an exact or
    centred immediate term; the choice does not look at the data.

    Args:
        names: the estimators measured.
        target: an estimator's name, which is taken, or an objective: "J", "J_kl" or a reward's name such as "score".
            None: J, or the first objective that some estimator is unbiased for; the first estimator where there is
            none.

    Raises:
        ValueError: a target that none of them is unbiased for.
    """
    if target in names:
        return str(target)
    known = {name: objective for name in names if (objective := objective_of(name)) is not None}
    if target is None:
        target = "J" if "J" in known.values() else next(iter(known.values()), None)
        if target is None:
            return names[0]
    fitting = [name for name, objective in known.items() if objective == target]
    if not fitting:
        of = ", ".join(dict.fromkeys(known.values())) or "none"
        raise ValueError(
            f"reference {target!r} is none of the estimators {', '.join(names)}, and no objective that one of them is "
            f"unbiased for ({of}). For J measure 'K=1', for J_kl 'kl K=1', for the score 'score - leave-one-out'; "
            "for data give references=."
        )
    return max(fitting, key=_quiet)


def targets_among(names: Sequence[str]) -> list[str]:
    """The targets that some estimators give: ``data`` where measured, and each objective one of them is unbiased for.

    >>> targets_among(["K=1", "K=4", "kl K=1", "score - leave-one-out", "data"])
    ['data', 'J', 'J_kl', 'score']
    """
    return [*([DATA] if DATA in names else []), *dict.fromkeys(filter(None, map(objective_of, names)))]


def target_words(reference: str) -> str:
    """What bias and efficiency are toward, for the reader of a table."""
    objective = objective_of(reference)
    if objective is None:
        return f"what {reference} estimates, no unbiased estimator of an objective being measured"
    return f"the gradient of {objective}, estimated by {reference}"


def _quiet(name: str) -> tuple[int, ...]:
    e = parsed(name)
    assert e is not None  # it has an objective
    rank = ("sampled", "centred", "exact").index(e.immediate)
    return (e.baseline == "leave-one-out", e.future == "expected", rank, e.baseline is not None)


@cache
def parsed(name: str) -> Estimator | None:
    """The estimator of that name; None where the name does not parse, as of rewards and kernels of the user's."""
    try:
        return parse_estimators([name])[0]
    except ValueError:
        return None
