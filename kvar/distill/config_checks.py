"""Settings out of range, and settings that contradict one another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kvar.distill.objectives.normalise import NORMALISATIONS

if TYPE_CHECKING:
    from kvar.distill.config import DistillationConfig

__all__ = ["check_config", "check_precision"]

CHOICES = {
    "centre": ("mean", "logsumexp", "none"),
    "value": ("max", "soft"),
    "importance_weight": ("behaviour", "policy", "none"),
    "normalisation": NORMALISATIONS,
    "responses": ("data", "teacher", "student", None),
}
LEAST = {
    "rollouts_per_prompt": 1,
    "max_new_tokens": 1,
    "max_prompt_tokens": 1,
    "top_k": 0,
    "seqkd_beams": 0,
    "sample_micro_batch": 1,
    "teacher_micro_batch": 1,
}
POSITIVE = ("importance_clip", "return_clip", "return_scale")
NOT_NEGATIVE = ("entropy_weight", "uniform_weight")
FRACTIONS = ("gkd_beta", "gkd_lambda")


def check_config(config: DistillationConfig) -> None:
    """Check kvar's fields; ``config.mixture`` is the parsed objective.

    Raises:
        ValueError: the message names the field, its value and the remedy.
    """
    from kvar.returns import parse_kernel

    parse_kernel(config.kernel)
    _check_ranges(config)
    _check_baseline(config)
    _check_contradictions(config)


def check_precision(config: DistillationConfig) -> None:
    """Check what is known only once the device is.

    Raises:
        ValueError: float16 where there is no GPU.
    """
    for name in ("fp16", "fp16_full_eval"):
        if getattr(config, name) and config.device.type == "cpu":
            raise ValueError(
                f"{name} is true, but the run is on a processor, which float16 and its loss scaling are not for. Leave "
                f"it out, or set {name.replace('fp', 'bf')} true."
            )


def _check_ranges(config: DistillationConfig) -> None:
    for name, choices in CHOICES.items():
        if getattr(config, name) not in choices:
            listed = ", ".join(str(choice).lower() for choice in choices)
            raise ValueError(f"{name} {getattr(config, name)!r} is unknown; choose one of: {listed}.")
    for name, least in LEAST.items():
        value = getattr(config, name)
        if value is not None and int(value) < least:
            raise ValueError(f"{name} must be at least {least}; got {value}.")
    for name in POSITIVE:
        value = getattr(config, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a positive number; got {value}.")
    for name in NOT_NEGATIVE:
        if not (math.isfinite(getattr(config, name)) and getattr(config, name) >= 0):
            raise ValueError(f"{name} must be 0 or a positive number; got {getattr(config, name)}.")
    for name in FRACTIONS:
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"{name} must be between 0 and 1; got {getattr(config, name)}.")
    if not config.temperature > 0:
        raise ValueError(
            f"temperature must be positive in training; got {config.temperature}. Greedy rollouts have no policy "
            "gradient."
        )


def _check_baseline(config: DistillationConfig) -> None:
    from kvar.distill.objectives.on_policy.advantages import TRAINING_BASELINES

    if config.baseline is None:
        return
    if config.baseline not in TRAINING_BASELINES:
        raise ValueError(
            f"baseline {config.baseline!r} is unknown; choose none or one of: {', '.join(TRAINING_BASELINES)}."
        )
    if config.baseline == "leave-one-out" and config.rollouts_per_prompt < 2:
        raise ValueError(
            f"baseline leave-one-out needs rollouts_per_prompt >= 2; got {config.rollouts_per_prompt}. Raise it or "
            "choose another baseline."
        )


def _check_contradictions(config: DistillationConfig) -> None:
    mixture = config.mixture
    reinforce = [name for name in ("ketchup", "llmr") if name in mixture]
    for name in NOT_NEGATIVE:
        if getattr(config, name) and not reinforce:
            raise ValueError(
                f"{name} is {getattr(config, name)}, but objective {mixture.name!r} has neither ketchup nor llmr, "
                f"which alone use it. Set {name} 0."
            )
    if config.importance_clip is not None and config.importance_weight == "none":
        raise ValueError(
            f"importance_clip is {config.importance_clip}, but importance_weight is none: nothing is left to "
            "clip. Drop one."
        )
    for name in ("js", "tvd", "gkd"):
        if name in mixture and config.responses == "student":
            raise ValueError(
                f"responses student contradicts objective {name}, whose other part is on the student's responses "
                "already. Use data or teacher."
            )
    if config.label_smoothing_factor and "sft" not in mixture and "seqkd" not in mixture:
        raise ValueError(
            f"label_smoothing_factor is {config.label_smoothing_factor}, but {mixture.name!r} has neither sft "
            "nor seqkd, which alone use it. Set it 0."
        )
