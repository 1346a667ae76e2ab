"""Presets: named sets of fields. ``reference`` is the released KETCHUP recipe's formula and numbers."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from kvar.returns import KStep, parse_kernel

__all__ = ["PRESETS", "apply_preset"]

PRESETS = ("reference",)

FORMULA: dict[str, Any] = {
    "centre": "mean", "value": "max", "baseline": None, "importance_weight": "policy", "importance_clip": None,
    "return_scale": 1.0, "return_clip": 50.0, "normalisation": "sequence-token-mean", "entropy_weight": 0.0,
    "uniform_weight": 0.0, "temperature": 1.0, "top_k": 0,
}  # fmt: skip
"""q = logit less its mean over the vocabulary, hard V, and per response - sum clip(pi G, 50) log pi / its tokens: the
recipe runs one response at a time and averages eight, which is a mean of responses' means."""

GREEDY: dict[str, Any] = {"top_k": 1}
"""Fields of the formula that may have another value: rollouts are sampled, as the recipe says, or greedy, as its code
makes them, since the flags of sampling do not reach ``generate`` there."""

RECIPE: dict[str, Any] = {
    "learning_rate": 1e-5, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8, "max_new_tokens": 512,
    "max_prompt_tokens": 512,
}  # fmt: skip


def apply_preset(config: Any) -> None:
    """Set the fields of ``config.preset``, in place.

    The formula's fields are fixed; any other value of theirs is an error. The recipe's fields (learning rate, batch,
    lengths) take the preset's value where they have their default.

    Raises:
        ValueError: an unknown preset, a contradicting field, an objective or kernel that is not the reference's.
    """
    if config.preset not in PRESETS:
        raise ValueError(f"preset {config.preset!r} is unknown; choose none or one of: {', '.join(PRESETS)}.")
    if "ketchup" not in config.mixture and "llmr" not in config.mixture:
        raise ValueError(
            f"preset reference is a REINFORCE recipe; got objective {config.objective!r}. Use ketchup or llmr."
        )
    kernel = parse_kernel(config.kernel)
    if not (isinstance(kernel, KStep) and kernel.terminal == "anchored"):
        raise ValueError(
            f"preset reference has K-step anchored returns; got kernel {kernel.name!r}. Use a kernel such as K=4."
        )
    defaults = {f.name: f.default if f.default is not MISSING else None for f in fields(config)}
    for name, wanted in FORMULA.items():
        given = getattr(config, name)
        if name in GREEDY and given == GREEDY[name]:
            continue
        if given not in (wanted, defaults[name]):
            also = f" (or {GREEDY[name]}, greedy rollouts)" if name in GREEDY else ""
            raise ValueError(
                f"preset reference fixes {name} = {wanted}{also}; got {given}. Leave {name} out, or leave the preset "
                "out."
            )
        setattr(config, name, wanted)
    for name, wanted in RECIPE.items():
        if getattr(config, name) == defaults[name]:
            setattr(config, name, wanted)
