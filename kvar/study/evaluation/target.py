"""The model that ``kvar evaluate`` scores: a run's, a checkpoint's, or one that a config describes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.records import load
from kvar.records.load import CONFIG
from kvar.study.run.weights import weights_of
from kvar.study.settings.reading import find_config, is_study, load_yaml, settings_from
from kvar.study.settings.run_settings import SECTIONS, START_FIELDS, RunSettings

if TYPE_CHECKING:
    from kvar.distill import DistillationConfig

__all__ = ["Target", "find_target"]

TRAINER_FIELDS = ("max_new_tokens", "max_prompt_tokens", "centre", "value", "use_cpu", "seed")
"""The trainer's settings that an evaluation uses."""


@dataclass(frozen=True)
class Target:
    """A model and the settings of its evaluation.

    Attributes:
        name: as given, or the checkpoint's path.
        settings: task, model, teacher and evaluation.
        training: length limit and value conventions; the rest is unused.
        model: folder or hub name of the weights; of adapters, the folder of a LoRA run's checkpoint.
        run: the run's folder, or None.
        step: the training step of the weights; 0 where unknown.
        kernels: names of the kernels whose returns are reported.
    """

    name: str
    settings: RunSettings
    training: DistillationConfig
    model: str
    run: Path | None
    step: int
    kernels: list[str]

    def describe(self) -> str:
        """Split, examples, search and length limit, in words."""
        settings = self.settings.evaluation
        beams = settings.eval_beams
        how = "greedy" if beams == 1 else f"{beams} beams"
        limit = f"first {settings.eval_limit} of " if settings.eval_limit else ""
        calculator = ", calculator" if settings.calculator else ""
        return f"{limit}{settings.eval_split}, {how}, {self.training.max_new_tokens} tokens at most{calculator}"

    def default_output(self) -> Path:
        """The JSON file: in the run's folder, or in the current folder."""
        return self._folder() / f"{self._stem()}.json"

    def comparison_output(self, other: Target) -> Path:
        """The JSON file of a comparison with another target."""
        return self._folder() / f"{self._stem()}-against-{_slug(other.name)}.json"

    def _folder(self) -> Path:
        return self.run if self.run is not None else Path()

    def _stem(self) -> str:
        model = Path(self.model).name if self.run is not None else _slug(self.model)
        settings = self.settings.evaluation
        parts = ["evaluation", settings.eval_split, *([] if model == "model" else [model])]
        return "-".join([*parts, *([f"{settings.eval_beams}beams"] if settings.eval_beams > 1 else [])])


def find_target(
    name: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    checkpoint: str | None = None,
    model: str | None = None,
    kernels: str | None = None,
    teacher: bool = True,
) -> Target:
    """The model and settings called ``name``.

    Args:
        name: a run's folder, or the config of a run or study (a YAML file, or one that ships with kvar).
        overrides: fields that replace the run's, such as ``{"eval_split": "test"}``.
        checkpoint: of a run: "checkpoint-200", "200" or "last"; None for its final model.
        model: folder or hub name of the weights to evaluate with a config; None for the config's ``student``.
        kernels: names, comma-separated; None for those of the run's objective and probe.
        teacher: whether to load the teacher.

    Raises:
        ValueError: no such run, config, checkpoint or model; or settings out of range.
    """
    from kvar.hooks import parse_estimators

    run, step, label = None, 0, name
    if (Path(name) / CONFIG).is_file():
        values, origin = dict(load(name).config), name
        if model is None:
            run = Path(name)
            weights = weights_of(run, checkpoint)
            if len(weights) > 1:
                raise ValueError(f"--checkpoint {checkpoint} names {len(weights)} checkpoints of {run}; name one.")
            step, model = weights[0][0], str(weights[0][1])
            label = name if checkpoint is None else model
    elif Path(name).is_dir():
        raise ValueError(
            f"{name} is a folder but not a run (no config.json). Name a run's folder, or a config and --model {name}."
        )
    else:
        origin = str(find_config(name))
        values = load_yaml(Path(origin))
        if is_study(values):
            if model is None:
                raise ValueError(f"{origin} is a study; name the folder of one of its runs, or a model by --model.")
            values = dict(values.get("common") or {})
        if checkpoint is not None:
            raise ValueError(f"--checkpoint {checkpoint} needs a run, but {name} is a config; use --model FOLDER.")
        model = model or values.get("student")
        if model is None:
            raise ValueError(
                f"{origin} names no trained student; say which model to evaluate: --model FOLDER or hub name."
            )
    if run is None:
        label = f"{model} by {name}"
    # the adapters of a run's checkpoint need the run's student; any other adapter names its base
    adapters = run is not None and (Path(model) / "adapter_config.json").is_file()
    kept = (*TRAINER_FIELDS, *(f.name for section in SECTIONS for f in fields(section)))
    left_out = () if adapters else (*START_FIELDS, "tokenizer")
    values |= {"probe_every": 0, "eval_limit": values.get("eval_limit") or 500}
    chosen = {field: value for field, value in values.items() if field in kept and field not in left_out}
    chosen["report_to"] = "none"
    if not adapters:
        chosen["student"] = model
    if not teacher:
        chosen["teacher"] = None
    settings, training = settings_from(chosen, origin, overrides)
    probed = parse_estimators(str(kernels or values.get("probe_kernels") or settings.probe.probe_kernels))
    words = [e.kernel.name for e in probed if kernels is not None or e.reward is None]
    if kernels is None and values.get("objective", "ketchup") == "ketchup" and values.get("kernel"):
        words.insert(0, str(values["kernel"]))
    if not adapters:
        model = settings.models.student or model
    return Target(label, settings, training, model, run, step, list(dict.fromkeys(words)))


def _slug(text: str) -> str:
    return re.sub(r"[^\w.=-]+", "-", text).strip("-")[-60:]
