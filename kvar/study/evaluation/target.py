"""What ``kvar evaluate`` is given: a run, one of its checkpoints, or a model with a config."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.study.settings.reading import find_config, load_yaml, settings_from
from kvar.study.settings.run_settings import SECTIONS, RunSettings

if TYPE_CHECKING:
    from kvar.distill import DistillationConfig

__all__ = ["Target", "find_target"]

# what an evaluation takes of the trainer's
TRAINER_FIELDS = ("max_new_tokens", "max_prompt_tokens", "centre", "value", "use_cpu", "seed")
NO_START = ("student", "student_config", "student_layers", "lora_rank", "lora_alpha", "lora_targets", "tokenizer")


@dataclass(frozen=True)
class Target:
    """A model with the settings to evaluate it by.

    Attributes:
        name: as given, with the checkpoint where there is one.
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
        """The JSON file: beside the run, or in the current folder."""
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
    """The target that ``name`` says.

    Args:
        name: a run's folder, or the config of a run or study (a YAML file, or one that ships with kvar).
        overrides: fields over the run's own, such as ``{"eval_split": "test"}``.
        checkpoint: of a run: "checkpoint-200", "200" or "last"; None for its final model.
        model: folder or hub name of the weights to evaluate by a config; None for the config's own ``student``.
        kernels: names, comma-separated; None for the run's objective's and its probe's.
        teacher: whether the teacher is wanted.

    Raises:
        ValueError: no such run, config, checkpoint or model; or settings out of range.
    """
    if (Path(name) / "config.json").is_file():
        return _of_run(Path(name), overrides, checkpoint, model, kernels, teacher)
    if Path(name).is_dir():
        raise ValueError(
            f"{name} is a folder but no run (no config.json). Name a run's folder, or a config and --model {name}."
        )
    path = find_config(name)
    values = load_yaml(path)
    if "stages" in values:
        if model is None:
            raise ValueError(f"{path} is a study; name the folder of one of its runs, or a model of yours by --model.")
        values = dict(values.get("common") or {})
    if checkpoint is not None:
        raise ValueError(f"--checkpoint {checkpoint} is one of a run, and {name} is a config; use --model FOLDER.")
    chosen = model or values.get("student")
    if chosen is None:
        raise ValueError(f"{path} names no trained student; say which model to evaluate: --model FOLDER or hub name.")
    return _make(f"{chosen} by {name}", values, str(path), overrides, str(chosen), None, 0, kernels, teacher)


def _of_run(
    run: Path,
    overrides: Mapping[str, Any] | None,
    checkpoint: str | None,
    model: str | None,
    kernels: str | None,
    teacher: bool,
) -> Target:
    from kvar.records import load

    values = dict(load(run).config)
    if model is not None:
        return _make(f"{model} by {run}", values, str(run), overrides, model, None, 0, kernels, teacher)
    folder = _weights(run, checkpoint)
    name = str(run) if checkpoint is None else str(folder)
    return _make(name, values, str(run), overrides, str(folder), run, _step(run, folder), kernels, teacher)


def _make(
    name: str,
    values: dict[str, Any],
    origin: str,
    overrides: Mapping[str, Any] | None,
    model: str,
    run: Path | None,
    step: int,
    kernels: str | None,
    teacher: bool,
) -> Target:
    mine = [f.name for section in SECTIONS for f in fields(section)]
    # the adapters of a run's checkpoint, whose start is the run's own; any other adapter names its base
    adapters = run is not None and (Path(model) / "adapter_config.json").is_file()
    left_out = () if adapters else NO_START
    kept = {k: v for k, v in values.items() if (k in mine and k not in left_out) or k in TRAINER_FIELDS}
    if not adapters:
        kept["student"] = model
    kept |= {"probe_every": 0, "eval_limit": values.get("eval_limit") or 500, "report_to": "none"}
    if not teacher:
        kept["teacher"] = None
    settings, training = settings_from(kept, origin, overrides)
    from kvar.hooks import parse_estimators

    probed = parse_estimators(str(kernels or values.get("probe_kernels") or settings.probe.probe_kernels))
    words = [e.kernel.name for e in probed if kernels is not None or e.reward is None]
    if kernels is None and values.get("objective", "ketchup") == "ketchup" and values.get("kernel"):
        words.insert(0, str(values["kernel"]))
    named_model = model if adapters else settings.models.student or model
    return Target(name, settings, training, named_model, run, step, list(dict.fromkeys(words)))


def _weights(run: Path, checkpoint: str | None) -> Path:
    there = sorted(run.glob("checkpoint-*"), key=lambda path: int(re.sub(r"\D", "", path.name) or 0))
    holds = f"it holds {', '.join(p.name for p in there)}" if there else "it holds no checkpoint either"
    if checkpoint is None:
        if not (run / "model").is_dir():
            raise ValueError(f"{run} has no final model yet; {holds}. Finish the run, or choose with --checkpoint.")
        return run / "model"
    if checkpoint == "last" and there:
        return there[-1]
    for candidate in (run / checkpoint, run / f"checkpoint-{checkpoint}"):
        if candidate.is_dir():
            return candidate
    raise ValueError(f"{run} has no checkpoint {checkpoint!r}; {holds.replace(' either', '')}.")


def _step(run: Path, weights: Path) -> int:
    """The training step of a checkpoint, or, of the final model, the last that the run's metrics know."""
    from kvar.records import load

    state = weights / "trainer_state.json"
    if state.is_file():
        return int(json.loads(state.read_text())["global_step"])
    steps = load(run).read("metrics", ["step"])["step"]
    return int(steps.max()) if len(steps) else 0


def _slug(text: str) -> str:
    return re.sub(r"[^\w.=-]+", "-", text).strip("-")[-60:]
