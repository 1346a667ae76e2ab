"""The two forms of a function that scores responses: of their rollouts, and of their texts with the data's examples."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["check_score_function"]

_FORMS = {
    "rollouts": ("score(rollouts)", "kvar.measure and GradientProbe"),
    "texts, examples": ("score(texts, examples)", "DistillationTrainer"),
}


def check_score_function(score: Any, takes: str) -> None:
    """Refuse what cannot be called with the arguments of the form that is wanted.

    Args:
        score: a function, or None.
        takes: "rollouts" or "texts, examples".

    Raises:
        ValueError: names both forms and where each belongs.
    """
    if score is None or _binds(score, takes.split(", ")):
        return
    (wanted, here), (other, there) = _FORMS[takes], *(form for name, form in _FORMS.items() if name != takes)
    texts = " Their texts are kvar.evaluation.response_texts(rollouts, tokenizer)." if takes == "rollouts" else ""
    raise ValueError(
        f"score of {here} must be a function {wanted} that returns one number a response, not {other}, which is "
        f"{there}'s; got {score!r}.{texts}"
    )


def _binds(function: Callable[..., Any], arguments: Sequence[str]) -> bool:
    """Whether a function can be called with so many arguments, as far as that can be told."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # of a builtin without a signature
        pass
    return True
