"""Estimators from their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from kvar.estimators.baselines import BASELINES
from kvar.estimators.corrections import Correction, PPOClip, Ratio, SequenceRatio, Truncated
from kvar.estimators.estimator import Estimator
from kvar.estimators.nearest import nearest
from kvar.estimators.rewards import (
    JSD,
    ForwardKL,
    ForwardTopK,
    Gap,
    K1Loss,
    K2Loss,
    K3Loss,
    LogRatio,
    Reward,
    Score,
    TopK,
)
from kvar.returns import LLMR, Kernel, parse_kernel

__all__ = ["parse_estimators", "parse_reward", "split_names"]

_M = TypeVar("_M")

_REWARDS: dict[str, tuple[Callable[..., Reward], type | None]] = {
    "gap": (Gap, None),
    "kl": (LogRatio, None),
    "score": (Score, None),
    "forward-kl": (ForwardKL, None),
    "forward-top-k": (ForwardTopK, int),
    "k1-loss": (K1Loss, None),
    "k2-loss": (K2Loss, None),
    "k3-loss": (K3Loss, None),
    "jsd": (JSD, float),
    "top-k": (TopK, int),
    "top-k-tail": (lambda k: TopK(k, tail=True), int),
    "teacher-top-k": (lambda k: TopK(k, by="teacher"), int),
    "teacher-top-k-tail": (lambda k: TopK(k, by="teacher", tail=True), int),
}
"""Name -> how to make it, and the type of the number in parentheses, None for none."""
_CORRECTIONS: dict[str, tuple[Callable[..., Correction], type | None]] = {
    "ratio": (Ratio, None),
    "truncated": (Truncated, float),
    "ppo-clip": (PPOClip, float),
    "sequence-ratio": (SequenceRatio, None),
}
_IMMEDIATE = {"sampled": "sampled", "centred": "centred", "centered": "centred", "exact": "exact"}
_KERNELS = ("immediate", "llmr", "geometric", "lags", "window", "scaled-comb", "thinning", "stepwise")


def parse_estimators(
    text: str | Sequence[str],
    baseline: str | None = None,
    *,
    rewards: Iterable[Reward] = (),
    kernels: Iterable[Kernel] = (),
) -> list[Estimator]:
    """Estimators from names such as ``"K=4, gap K=1 exact expected - leave-one-out, kl immediate exact, score"``.

    A name is [reward] kernel [words] [- baseline]. Words: ``exact`` or ``centred`` (the immediate term), ``expected``
    (the future), ``ratio``, ``truncated(2)``, ``ppo-clip(0.2)``, ``sequence-ratio`` (the correction), in any order;
    ``Estimator.name`` has them in this one. Without a reward it is theory.md (4): the gap, sampled, V_t left in.
    ``score`` needs no kernel: it takes all lags.

    Args:
        text: names, or one text that separates them by commas.
        baseline: for every name without one.
        rewards: your own rewards, read by their names.
        kernels: your own kernels, read by their names.

    Returns:
        The estimators, in order.

    Raises:
        TypeError: something that holds no names.
        ValueError: a word that is unknown, out of place or given twice (named, with the nearest known one); no
            estimator, or the same one twice.

    Example:
        >>> [e.name for e in parse_estimators("1, 4, inf, kl expected immediate exact, score - leave-one-out")]
        ['K=1', 'K=4', 'immediate', 'kl immediate exact expected', 'score - leave-one-out']
    """
    if not isinstance(text, Iterable):
        raise TypeError(f"estimators must be names, for instance 'K=4, kl immediate exact'; got {type(text).__name__}.")
    words = split_names(text) if isinstance(text, str) else [str(word).strip() for word in text]
    custom_rewards = {reward.name: reward for reward in rewards}
    custom_kernels = {kernel.name: kernel for kernel in kernels}
    estimators = [_one(word, baseline, custom_rewards, custom_kernels) for word in filter(None, words)]
    names = [estimator.name for estimator in estimators]
    if not names:
        raise ValueError("estimators are empty: name at least one, for example K=1.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"estimators name {', '.join(twice)} twice; keep one of each.")
    return estimators


def split_names(text: str) -> list[str]:
    """The names in a text that separates them by commas; those inside parentheses separate none.

    Example:
        >>> split_names("K=4, lags(1, 0.5)")
        ['K=4', 'lags(1, 0.5)']
    """
    return _split(text, ",")


def parse_reward(text: str) -> Reward:
    """A reward from its name, such as ``kl`` or ``jsd(0.5)``.

    Raises:
        ValueError: no such reward.
    """
    made = _made(_REWARDS, text.strip().lower())
    if made is None:
        raise ValueError(f"reward {text!r} is unknown{nearest(text, _REWARDS)}; choose one of {', '.join(_REWARDS)}.")
    return made


def _one(text: str, baseline: str | None, rewards: dict[str, Reward], kernels: dict[str, Kernel]) -> Estimator:
    head, _, after = re.sub(r"\s+", " ", text).partition(" - ")
    words = _split(head, " ")
    if not words:
        raise ValueError(f"estimator {text!r} has no kernel before its baseline, for instance 'K=1 - leave-one-out'.")
    reward = rewards.get(words[0]) or _made(_REWARDS, words[0].lower(), text)
    if reward is not None:
        words = words[1:]
    kernel, words = _kernel(text, words, reward, kernels)
    chosen: dict[str, str | Correction] = {}
    for word in words:
        kind, value = _word(text, word, [*rewards, *kernels])
        if kind in chosen:
            raise ValueError(f"estimator {text!r}: {word!r} is a second {kind}; keep one.")
        chosen[kind] = value
    try:
        return Estimator(
            kernel,
            after.strip() or baseline,
            reward,
            chosen.get("immediate term", "sampled"),  # type: ignore[arg-type]
            chosen.get("future", "sampled"),  # type: ignore[arg-type]
            chosen.get("correction"),  # type: ignore[arg-type]
        )
    except ValueError as error:
        raise ValueError(str(error) if text in str(error) else f"estimator {text!r}: {error}") from None


def _kernel(text: str, words: list[str], reward: Reward | None, kernels: dict[str, Kernel]) -> tuple[Kernel, list[str]]:
    """The kernel, which may stand anywhere among the words, and the words that are left."""
    for first in range(len(words)):
        for count in (4, 3, 2, 1):  # "K = 4 free"
            several = " ".join(words[first : first + count])
            if first + count > len(words):
                continue
            if several in kernels:
                return kernels[several], words[:first] + words[first + count :]
            if count == 1 and (several.lower() in (*_IMMEDIATE, "expected")):
                continue
            try:
                return parse_kernel(several), words[:first] + words[first + count :]
            except ValueError as error:
                if count == 1 and "is unknown" not in str(error):
                    raise ValueError(f"estimator {text!r}: {error}") from None
    if isinstance(reward, Score):
        return LLMR(), words
    for word in words:
        _word(text, word, kernels)  # a word that is unknown is the likelier mistake
    raise ValueError(
        f"estimator {text!r} names no kernel: say which later rewards count, for instance 'K=1' (all) or 'immediate'."
    )


def _word(text: str, word: str, custom: Iterable[str]) -> tuple[str, str | Correction]:
    """The field that a word besides reward and kernel sets, and its value."""
    lower = word.lower()
    if lower in _IMMEDIATE:
        return "immediate term", _IMMEDIATE[lower]
    if lower == "expected":
        return "future", "expected"
    made = _made(_CORRECTIONS, lower, text)
    if made is not None:
        return "correction", made
    bare = lower.partition("(")[0]
    if bare in BASELINES or bare == "teacher-value":
        raise ValueError(f"estimator {text!r}: baseline {word!r} follows a dash: '... - {word}'.")
    if bare in _REWARDS:
        raise ValueError(f"estimator {text!r}: reward {word!r} stands first, and there is one at most.")
    known = [*_REWARDS, *_IMMEDIATE, "expected", *_CORRECTIONS, *_KERNELS, *custom]
    raise ValueError(
        f"estimator {text!r}: the word {word!r} is unknown{nearest(bare, known)}. A name is [reward] kernel [exact or "
        "centred] [expected] [correction] [- baseline], for instance 'gap K=1 exact expected - leave-one-out'; "
        "kernels are K=4, immediate, geometric(0.95) and others."
    )


def _made(table: Mapping[str, tuple[Callable[..., _M], type | None]], word: str, text: str | None = None) -> _M | None:
    """The table's entry for a word such as ``kl`` or ``jsd(0.5)``; None where it has no such name."""
    match = re.fullmatch(r"([a-z0-9-]+)(?:\((.*)\))?", word)
    if match is None or match[1] not in table:
        return None
    make, kind = table[match[1]]
    where = "" if text is None else f"estimator {text!r}: "
    if kind is None:
        if match[2] is not None:
            raise ValueError(f"{where}{match[1]} takes no number; got {word!r}.")
        return make()
    example = {"jsd": "0.5", "truncated": "2", "ppo-clip": "0.2"}.get(match[1], "32")
    if match[2] is None:
        raise ValueError(f"{where}{match[1]} takes a number, for instance '{match[1]}({example})'.")
    try:
        return make(kind(match[2]))
    except ValueError as error:
        told = "" if "could not convert" in str(error) or "invalid literal" in str(error) else f" ({error})"
        raise ValueError(
            f"{where}{word!r} needs {'an integer' if kind is int else 'a number'} in range, for instance "
            f"'{match[1]}({example})'{told}."
        ) from None


def _split(text: str, at: str) -> list[str]:
    """The non-empty parts of a text, stripped, split at a separator outside parentheses."""
    parts, depth, start = [], 0, 0
    for i, letter in enumerate(text + at):
        depth += (letter == "(") - (letter == ")")
        if letter == at and (depth <= 0 or i == len(text)):
            parts.append(text[start:i].strip())
            start, depth = i + 1, 0
    return [part for part in parts if part]
