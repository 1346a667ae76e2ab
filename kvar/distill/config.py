"""``DistillationConfig``: every setting of a distillation run, on top of ``transformers.TrainingArguments``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from transformers import TrainingArguments

if TYPE_CHECKING:
    from kvar.distill.objectives import Mixture

__all__ = ["DistillationConfig"]


def _option(default: object, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class DistillationConfig(TrainingArguments):
    """Settings of ``DistillationTrainer``.

    Everything of ``transformers.TrainingArguments`` works as documented there; the fields below are kvar's.

    Raises:
        ValueError: a field out of range or contradicting another; the message names field, value and remedy.
    """

    objective: str = _option(
        "ketchup",
        "what is minimised: sft, seqkd, kl, reverse-kl, js, tvd, gkd, llmr or ketchup, or a weighted sum such as "
        "'ketchup + 0.1 sft' (in YAML also a mapping, {ketchup: 1, sft: 0.1})",
    )
    preset: str | None = _option(None, "reference: formula and numbers of the released KETCHUP recipe")
    kernel: str = _option("K=4", "return kernel of ketchup: K=4, K=4 free, immediate, geometric(0.95), lags(1, 0.5)")
    baseline: str | None = _option(
        None,
        "subtracted from returns: none, teacher-value, batch-mean, position-mean, leave-one-out or minimum-variance "
        "(one more forward pass of the student); means are over the whole optimiser step",
    )
    centre: Literal["mean", "logsumexp", "none"] = _option(
        "mean", "c(s) of the teacher's logits: mean, logsumexp or none"
    )
    value: Literal["max", "soft"] = _option("max", "V(s): max (hard) or soft")
    importance_weight: Literal["behaviour", "policy", "none"] = _option(
        "behaviour",
        "rho, detached: behaviour is pi over the probability it was sampled with, policy is pi (the released "
        "recipe's), none is 1",
    )
    importance_clip: float | None = _option(None, "largest rho; none leaves it unclipped")
    return_scale: float = _option(1.0, "multiply returns by this")
    return_clip: float | None = _option(None, "clip rho times return to plus or minus this")
    normalisation: Literal["token-mean", "sequence-mean", "sequence-token-mean"] = _option(
        "token-mean",
        "the sum over a step's tokens is divided by its tokens (token-mean) or its responses (sequence-mean); or each "
        "response's token mean is averaged (sequence-token-mean)",
    )
    entropy_weight: float = _option(0.0, "ketchup and llmr: weight of the policy's entropy, which is made larger")
    uniform_weight: float = _option(
        0.0,
        "ketchup and llmr: weight of the cross-entropy from uniform to policy, which is made smaller (what the "
        "released recipes call entropy)",
    )
    responses: Literal["data", "student", "teacher"] | None = _option(
        None,
        "whose responses kl, reverse-kl and the off-policy part of js, tvd and gkd are on: data, teacher or student; "
        "none is data for kl and gkd, student for reverse-kl, teacher for js and tvd",
    )
    seqkd_beams: int = _option(
        4, "beams that decode the teacher's responses, 1 is greedy; 0 samples them at temperature and top_k"
    )
    gkd_beta: float = _option(0.5, "gkd: the teacher's weight in the generalised JSD; 0 is forward KL, 1 reverse KL")
    gkd_lambda: float = _option(0.5, "gkd: probability that a step is on the student's own responses")
    rollouts_per_prompt: int = _option(1, "responses sampled per prompt")
    max_new_tokens: int = _option(64, "length limit of sampled and decoded responses")
    max_prompt_tokens: int | None = _option(None, "prompts longer than this are refused")
    temperature: float = _option(1.0, "sampling temperature")
    top_k: int = _option(0, "sample among the k most probable tokens; 0 for all")
    sample_micro_batch: int | None = _option(
        None, "responses sampled at a time; none for all of an optimiser step's on a process"
    )
    teacher_micro_batch: int | None = _option(
        None, "responses a teacher pass takes at a time; none for as many as its logits leave room for"
    )
    scale_learning_rate: bool = _option(False, "scale each tensor's learning rate by its initial RMS")
    report_to: None | str | list[str] = field(  # noqa: RUF036 (the order that transformers' parser wants)
        default="tensorboard",
        metadata={"help": "where logs go: tensorboard (in the run's folder), trackio, wandb or others, or none"},
    )
    remove_unused_columns: bool = _option(False, "kept false: the collator needs every column")

    def __post_init__(self) -> None:
        """Check kvar's fields before transformers checks its own."""
        from kvar.distill.config_checks import check_config, check_precision
        from kvar.distill.objectives import parse_objective
        from kvar.distill.preset import apply_preset

        self.objective = parse_objective(self.objective).name
        for name in ("preset", "baseline", "responses"):
            if getattr(self, name) in ("none", ""):
                setattr(self, name, None)
        if self.preset is not None:
            apply_preset(self)
        check_config(self)
        super().__post_init__()
        check_precision(self)

    @property
    def mixture(self) -> Mixture:
        """The objectives and their weights."""
        from kvar.distill.objectives import parse_objective

        return parse_objective(self.objective)
