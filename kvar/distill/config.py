"""``DistillationConfig``: every setting of a distillation run, on top of ``transformers.TrainingArguments``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from transformers import TrainingArguments

from kvar._bounds import AtLeast0, AtLeast1, BelowOne, Fraction, NotNegative, Positive, check_bounds, option

if TYPE_CHECKING:
    from kvar.distill.objectives import Mixture

__all__ = ["DistillationConfig"]


@dataclass
class DistillationConfig(TrainingArguments):
    """Settings of ``DistillationTrainer``.

    Everything of ``transformers.TrainingArguments`` works as documented there; the fields below are kvar's.

    Raises:
        ValueError: a field out of range or contradicting another; the message names field, value and remedy.
    """

    objective: str = option(
        "ketchup",
        "what is minimised: sft, seqkd, kl, reverse-kl, js, tvd, gkd, llmr, ketchup or policy-gradient, or a weighted "
        "sum such as 'ketchup + 0.1 sft' (in YAML also a mapping, {ketchup: 1, sft: 0.1})",
    )
    estimator: str | None = option(
        None,
        "the gradient estimator of policy-gradient, as kvar.estimators names it: kl immediate exact, gap K=1 exact "
        "expected - leave-one-out, score - leave-one-out, ...; means in baselines are over the whole optimiser step. "
        "auto measures as training goes on, and takes the one whose step points best at auto_target",
    )
    auto_start: str = option("gap immediate exact", "estimator auto: in use until the first choice changes it")
    auto_candidates: str = option(
        "gap immediate exact, gap K=1 exact expected - position-mean, fitted",
        "estimator auto: what is chosen among, comma-separated; fitted is the kernel that the measurement says is best",
    )
    auto_target: str = option(
        "J", "estimator auto: what a step is to point at: J, J_kl, data, score, or an estimator's name"
    )
    auto_on: Literal["probe", "batch"] = option(
        "probe", "estimator auto: measure on the probe's prompts, or on the batch that is trained on"
    )
    auto_every: AtLeast0 = option(100, "estimator auto: steps between choices; 0 for one, before the first step")
    auto_horizon: AtLeast0 = option(
        0,
        "estimator auto: steps whose gradients are taken to average before their direction counts; efficiency is that "
        "of a step of so many times the responses, so that a large number weighs bias and a small one noise; 0 for the "
        "steps until the next choice",
    )
    auto_margin: NotNegative = option(0.1, "estimator auto: gain in efficiency, as a share, that is worth a change")
    auto_confidence: BelowOne = option(
        0.95, "estimator auto: confidence that a gain needs; 0 takes the candidate that looks best, whatever is in use"
    )
    preset: str | None = option(None, "reference: formula and numbers of the released KETCHUP recipe")
    kernel: str = option("K=4", "return kernel of ketchup: K=4, K=4 free, immediate, geometric(0.95), lags(1, 0.5)")
    baseline: str | None = option(
        None,
        "subtracted from the returns of ketchup and llmr: none, teacher-value, batch-mean, position-mean, "
        "leave-one-out, minimum-variance (one more forward pass of the student) or another baseline of "
        "kvar.estimators; means are over the whole optimiser step",
    )
    centre: Literal["mean", "logsumexp", "none"] = option(
        "mean", "c(s) of the teacher's logits: mean, logsumexp or none"
    )
    value: Literal["max", "soft"] = option("max", "V(s): max (hard) or soft")
    importance_weight: Literal["behaviour", "policy", "none"] = option(
        "behaviour",
        "rho of ketchup and llmr, detached: behaviour is pi over the probability it was sampled with, policy is pi "
        "(the released recipe's), none is 1",
    )
    importance_clip: Positive | None = option(None, "largest rho; none leaves it unclipped")
    return_scale: Positive = option(1.0, "multiply returns by this")
    return_clip: Positive | None = option(None, "clip rho times return to plus or minus this")
    length_normalised_returns: bool = option(
        False, "divide each response's rewards by its number of tokens, before any baseline"
    )
    normalisation: Literal["token-mean", "sequence-mean", "sequence-token-mean"] = option(
        "token-mean",
        "divide the sum over a step's tokens by the number of tokens (token-mean) or responses (sequence-mean), or "
        "average each response's mean over its tokens (sequence-token-mean)",
    )
    entropy_weight: NotNegative = option(
        0.0, "ketchup, llmr and policy-gradient: weight of the policy's entropy, which is maximised"
    )
    uniform_weight: NotNegative = option(
        0.0,
        "ketchup, llmr and policy-gradient: weight of the cross-entropy from uniform to policy, which is minimised "
        "(called entropy in the released recipes)",
    )
    responses: Literal["data", "student", "teacher"] | None = option(
        None,
        "responses that kl, reverse-kl and the off-policy part of js, tvd and gkd are computed on: data, teacher or "
        "student; by default data for kl and gkd, student for reverse-kl, teacher for js and tvd",
    )
    seqkd_beams: AtLeast0 = option(
        4, "beams of the search for the teacher's responses, 1 is greedy; 0 samples them at temperature and top_k"
    )
    gkd_beta: Fraction = option(0.5, "gkd: the teacher's weight in the generalised JSD; 0 is forward KL, 1 reverse KL")
    gkd_lambda: Fraction = option(0.5, "gkd: probability that a step is on the student's own responses")
    rollouts_per_prompt: AtLeast1 = option(1, "responses sampled per prompt")
    max_new_tokens: AtLeast1 = option(64, "length limit of sampled and decoded responses")
    max_prompt_tokens: AtLeast1 | None = option(None, "prompts longer than this are refused")
    temperature: float = option(1.0, "sampling temperature")
    top_k: AtLeast0 = option(0, "sample among the k most probable tokens; 0 for all")
    sampler: str | None = option(
        None,
        "address of an engine such as vLLM, http://host:8000/v1, that draws the student's responses at temperature 1; "
        "the training does not send it weights: where it lags, an objective with a correction is needed",
    )
    sampler_model: str | None = option(None, "the engine's model; default its only one")
    sample_micro_batch: AtLeast1 | None = option(
        None, "responses sampled at a time; none for all responses of an optimiser step on a process"
    )
    teacher_micro_batch: AtLeast1 | None = option(
        None, "responses scored by the teacher at a time; none for as many as its logits leave room for"
    )
    scale_learning_rate: bool = option(False, "scale each tensor's learning rate by its initial RMS")
    report_to: None | str | list[str] = field(  # noqa: RUF036 (the order that transformers' parser wants)
        default="tensorboard",
        metadata={"help": "where to log: tensorboard (in the run's folder), trackio, wandb or others, or none"},
    )
    remove_unused_columns: bool = option(False, "kept false: the collator needs every column")

    def __post_init__(self) -> None:
        """Check kvar's fields before transformers checks its own."""
        from kvar.distill.objectives import parse_objective
        from kvar.distill.preset import apply_preset
        from kvar.returns import parse_kernel

        self.objective = parse_objective(self.objective).name
        if self.fsdp in ("true", "false"):  # transformers declares text for its old values
            self.fsdp = self.fsdp == "true"  # type: ignore[assignment]
        for name in ("preset", "estimator", "baseline", "responses", "sampler", "sampler_model"):
            if getattr(self, name) in ("none", ""):
                setattr(self, name, None)
        if self.preset is not None:
            apply_preset(self)
        try:
            parse_kernel(self.kernel)
        except ValueError as error:
            raise ValueError(f"kernel is {self.kernel!r}: {error}") from None
        check_bounds(self)
        self._check_estimators()
        self._check_contradictions()
        super().__post_init__()
        if not torch.accelerator.is_available():
            self.dataloader_pin_memory = False  # there is nothing to pin for, and torch warns of it
        for name in ("fp16", "fp16_full_eval"):  # the device is only known now
            if getattr(self, name) and self.device.type == "cpu":
                raise ValueError(
                    f"{name} is true, but the run is on the CPU, where float16 training is not supported. "
                    f"Leave it out, or set {name.replace('fp', 'bf')} true."
                )

    @property
    def mixture(self) -> Mixture:
        """The objectives and their weights."""
        from kvar.distill.objectives import parse_objective

        return parse_objective(self.objective)

    def _check_estimators(self) -> None:
        from kvar.distill.adaptive import check_adaptive, is_adaptive, trained_settings
        from kvar.distill.objectives.on_policy.policy_gradient import named_estimator
        from kvar.estimators import Estimator
        from kvar.returns import LLMR

        Estimator(LLMR(), self.baseline)  # refuses an unknown baseline
        mixture = self.mixture
        trained = "policy-gradient" in mixture
        check_adaptive(self)
        if trained and not is_adaptive(self):
            self.estimator = named_estimator(self).name
        elif not trained and self.estimator is not None:
            raise ValueError(
                f"estimator is {self.estimator!r}, but objective {mixture.name!r} does not follow it: set objective "
                "policy-gradient, or leave estimator out."
            )
        if trained and "ketchup" not in mixture and "llmr" not in mixture:
            for name in ("kernel", "baseline", "importance_weight", "importance_clip", "return_scale", "return_clip"):
                if getattr(self, name) not in (type(self).__dataclass_fields__[name].default, "none"):
                    raise ValueError(
                        f"{name} is {getattr(self, name)}, which only ketchup and llmr use: state it in the estimator "
                        f"({self.estimator!r} now), or leave {name} out."
                    )
        named = [
            (f"{field} cannot be trained: " if is_adaptive(self) else "", estimator)
            for field, settings in trained_settings(self).items()
            for estimator in mixture.estimators(settings).values()
        ]
        for what, estimator in named:
            baseline = estimator.subtracted
            if baseline is not None and baseline.scope == "prompt" and self.rollouts_per_prompt < 2:
                raise ValueError(
                    f"{what}baseline {baseline.name} needs rollouts_per_prompt >= 2; got {self.rollouts_per_prompt}. "
                    "Raise it or choose another baseline."
                )
            if estimator.correction is not None and self.top_k == 1:
                raise ValueError(
                    f"{what}correction {estimator.correction.name!r} needs the probabilities that responses are "
                    "sampled with; with top_k 1 nothing is sampled. Raise top_k, or leave the correction out."
                )

    def _check_contradictions(self) -> None:
        orders = type(self).__dataclass_fields__["train_sampling_strategy"].metadata.get("choices", ())
        if orders and self.train_sampling_strategy not in orders:  # transformers would shuffle without a word
            raise ValueError(
                f"train_sampling_strategy {self.train_sampling_strategy!r} is unknown to this version of transformers; "
                f"choose one of: {', '.join(orders)}."
            )
        if self.max_steps < -1:
            raise ValueError(f"max_steps must be at least 1, or -1 for num_train_epochs; got {self.max_steps}.")
        if not self.temperature > 0:
            raise ValueError(
                f"temperature must be positive in training; got {self.temperature}. Greedy rollouts have no policy "
                "gradient."
            )
        if self.importance_clip is not None and self.importance_weight == "none":
            raise ValueError(
                f"importance_clip is {self.importance_clip}, but importance_weight is none: nothing is left to "
                "clip. Drop one."
            )
        if self.sampler is not None and (self.temperature != 1 or self.top_k):
            raise ValueError(
                f"sampler {self.sampler!r} draws at temperature 1 from all tokens; got temperature {self.temperature}, "
                f"top_k {self.top_k}. Leave them out, or leave sampler out."
            )
        if self.sampler_model is not None and self.sampler is None:
            raise ValueError(f"sampler_model is {self.sampler_model!r}, but there is no sampler: give its address.")
        mixture = self.mixture
        for name, users in (
            ("entropy_weight", ("ketchup", "llmr", "policy-gradient")),
            ("uniform_weight", ("ketchup", "llmr", "policy-gradient")),
            ("label_smoothing_factor", ("sft", "seqkd")),
        ):
            if getattr(self, name) and not any(user in mixture for user in users):
                raise ValueError(
                    f"{name} is {getattr(self, name)}, but objective {mixture.name!r} has neither "
                    f"{' nor '.join(users)}, which use it. Set {name} 0."
                )
        for name in ("js", "tvd", "gkd"):
            if name in mixture and self.responses == "student":
                raise ValueError(
                    f"responses student contradicts objective {name}, whose other part already uses the student's "
                    "responses. Use data or teacher."
                )
