"""``DistillationConfig``: every setting of a distillation run, on top of ``transformers.TrainingArguments``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from transformers import TrainingArguments

__all__ = ["DistillationConfig"]


def _option(default: object, text: str) -> object:
    return field(default=default, metadata={"help": text})


@dataclass
class DistillationConfig(TrainingArguments):
    """Settings of ``DistillationTrainer``.

    Everything of ``transformers.TrainingArguments`` works as documented there; the fields below are kvar's.

    Raises:
        ValueError: a field out of range; the message names the field, its value and the remedy.
    """

    objective: str = _option("ketchup", "what is minimised: sft, kl, llmr or ketchup")  # type: ignore[assignment]
    kernel: str = _option("K=4", "return kernel of ketchup: K=4, K=4 free, immediate, geometric(0.95)")  # type: ignore[assignment]
    baseline: str | None = _option(None, "none, teacher-value, batch-mean, position-mean or leave-one-out")  # type: ignore[assignment]
    centre: Literal["mean", "logsumexp", "none"] = _option(
        "mean", "c(s) of the teacher's logits: mean, logsumexp or none"
    )  # type: ignore[assignment]
    value: Literal["max", "soft"] = _option("max", "V(s): max (hard) or soft")  # type: ignore[assignment]
    importance_weight: bool = _option(True, "multiply by rho = pi / behaviour, detached")  # type: ignore[assignment]
    importance_clip: float | None = _option(None, "largest rho; none leaves it unclipped")  # type: ignore[assignment]
    return_scale: float = _option(1.0, "multiply returns by this")  # type: ignore[assignment]
    return_clip: float | None = _option(None, "clip rho times return to plus or minus this")  # type: ignore[assignment]
    rollouts_per_prompt: int = _option(1, "responses sampled per prompt")  # type: ignore[assignment]
    max_new_tokens: int = _option(64, "length limit of sampled responses")  # type: ignore[assignment]
    max_prompt_tokens: int | None = _option(None, "prompts longer than this are refused")  # type: ignore[assignment]
    temperature: float = _option(1.0, "sampling temperature")  # type: ignore[assignment]
    top_k: int = _option(0, "sample among the k most probable tokens; 0 for all")  # type: ignore[assignment]
    scale_learning_rate: bool = _option(False, "scale each tensor's learning rate by its initial RMS")  # type: ignore[assignment]
    remove_unused_columns: bool = _option(False, "kept false: the collator needs every column")  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Check kvar's fields before transformers checks its own."""
        from kvar.distill.objectives import OBJECTIVES
        from kvar.returns import BASELINES, parse_kernel

        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective {self.objective!r} is unknown; choose one of: {', '.join(OBJECTIVES)}.")
        parse_kernel(self.kernel)
        for name, least in (("rollouts_per_prompt", 1), ("max_new_tokens", 1), ("top_k", 0)):
            if int(getattr(self, name)) < least:
                raise ValueError(f"{name} must be at least {least}; got {getattr(self, name)}.")
        if self.temperature <= 0:
            raise ValueError(
                f"temperature must be positive in training; got {self.temperature}. Greedy rollouts have no policy "
                "gradient."
            )
        if self.baseline in ("none", ""):
            self.baseline = None
        if self.baseline is not None and self.baseline not in BASELINES:
            raise ValueError(f"baseline {self.baseline!r} is unknown; choose none or one of: {', '.join(BASELINES)}.")
        if self.baseline == "leave-one-out" and self.rollouts_per_prompt < 2:
            raise ValueError(
                f"baseline leave-one-out needs rollouts_per_prompt >= 2; got {self.rollouts_per_prompt}. Raise it or "
                "choose another baseline."
            )
        super().__post_init__()
