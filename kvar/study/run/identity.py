"""The settings that identify a run, and checks that a folder or checkpoint belongs to it."""

from __future__ import annotations

import json
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.records import check_folder
from kvar.study.settings.run_settings import SECTIONS, RunSettings

if TYPE_CHECKING:
    from kvar.distill import DistillationConfig

__all__ = ["RUN_FILE", "check_checkpoint", "check_output", "find_checkpoint", "run_config", "setting_defaults"]

RUN_FILE = "kvar_run.json"
ALWAYS = ("objective", "kernel", "baseline")
# Logging, storage and distribution of a run; these do not change its results.
NO_MATTER = (
    "output_dir", "logging_dir", "run_name", "disable_tqdm", "report_to", "project", "log_level", "log_level_replica",
    "log_on_each_node", "resume_from_checkpoint", "local_rank", "save_total_limit", "dataloader_num_workers",
    "dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_prefetch_factor", "skip_memory_metrics",
    "push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push", "hub_revision",
    "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "ddp_timeout", "ddp_backend",
    "probe_log",
)  # fmt: skip


def run_config(settings: RunSettings, training: DistillationConfig) -> dict[str, Any]:
    """The run's settings, and the trainer's that differ from the defaults, without those that change no result.

    Call it before building a trainer: it makes a config for the defaults, which resets accelerate's state.
    """
    given, plain = training.to_dict(), _defaults(training.use_cpu)
    differing = {k: v for k, v in given.items() if v != plain.get(k) or k in ALWAYS}
    return {k: v for k, v in {**settings.flat(), **differing}.items() if k not in NO_MATTER}


def setting_defaults() -> dict[str, Any]:
    """The default of each setting that matters, used for runs recorded before the setting existed."""
    return {f.name: f.default for section in SECTIONS for f in fields(section) if f.name not in NO_MATTER}


@cache
def _defaults(use_cpu: bool) -> dict[str, Any]:
    from kvar.distill import DistillationConfig

    return {**DistillationConfig(output_dir="defaults", use_cpu=use_cpu).to_dict(), "use_cpu": False}


def check_output(settings: RunSettings, training: DistillationConfig, *, overwrite: bool = False) -> None:
    """Raise ValueError where the output folder holds another run that is not to be overwritten."""
    if not overwrite:
        check_folder(str(training.output_dir), run_config(settings, training), setting_defaults())


def find_checkpoint(training: DistillationConfig) -> Path | None:
    """The checkpoint to resume from: ``resume_from_checkpoint``, else the run's last complete one, or None.

    Raises:
        ValueError: ``resume_from_checkpoint`` is not a complete checkpoint.
    """
    from kvar.distill.trainer.checkpoints import last_checkpoint

    given = training.resume_from_checkpoint
    if given is None:
        return last_checkpoint(str(training.output_dir))
    path = Path(given)
    if not (path / "trainer_state.json").is_file():
        near = sorted(p.parent.name for p in path.glob("*/trainer_state.json")) if path.is_dir() else []
        hint = f" It holds {', '.join(near)}: name one of them." if near else " Name a checkpoint-STEP folder."
        raise ValueError(f"resume_from_checkpoint {given!r} is not a checkpoint (no trainer_state.json).{hint}")
    return path


def check_checkpoint(checkpoint: Path, student: Any, config: dict[str, Any]) -> None:
    """Check that a checkpoint belongs to this student and these settings.

    Args:
        checkpoint: a checkpoint's folder.
        student: the model to load the weights into.
        config: of the present run, see :func:`run_config`.

    Raises:
        ValueError: a weight is missing, extra or of another shape, a setting differs, or (for estimator auto) it does
            not say which estimator was in use.
    """
    from kvar.distill.trainer.estimator_in_use import saved_estimator
    from kvar.estimators.adaptive import AUTO

    shapes = {name: list(tensor.shape) for name, tensor in student.state_dict().items()}
    remedy = "Train with the checkpoint's config, or leave out resume_from_checkpoint."
    for name, shape in _shapes(checkpoint).items():
        if shapes.get(name) != shape:
            mine = f"of shape {tuple(shapes[name])}" if name in shapes else "without it"
            raise ValueError(
                f"checkpoint {checkpoint} is of another student: its {name} has shape {tuple(shape)}, the student is "
                f"{mine}. {remedy}"
            )
    path = checkpoint / RUN_FILE
    if config.get("estimator") == AUTO:
        saved_estimator(checkpoint)
    if path.is_file():
        saved = {**json.loads(json.dumps(setting_defaults(), default=str)), **json.loads(path.read_text())}
        now = json.loads(json.dumps(config, default=str))
        for name in sorted({*saved, *now}):
            if saved.get(name) != now.get(name):
                raise ValueError(
                    f"checkpoint {checkpoint} is of another run: its {name} is {saved.get(name)!r}, this run's "
                    f"{now.get(name)!r}. {remedy} To start a new run from its weights, set student to it."
                )


def _shapes(checkpoint: Path) -> dict[str, list[int]]:
    """Shapes of a checkpoint's weights, from the file's header; empty where it is not one safetensors file."""
    from safetensors import safe_open

    path = checkpoint / "model.safetensors"
    if not path.is_file():
        return {}
    with safe_open(str(path), framework="pt") as file:
        return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
