"""Checks of machine and installation before a run starts."""

from __future__ import annotations

import shutil
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from kvar.records.place import check_folder_place
from kvar.study.settings.run_settings import ModelSettings, ProbeSettings, RunSettings

if TYPE_CHECKING:
    from kvar.distill import DistillationConfig

__all__ = ["check_machine", "check_probe_size", "check_room"]


def check_machine(settings: RunSettings, training: DistillationConfig) -> None:
    """Check that this machine and installation can do the run, and warn of slow bfloat16.

    Raises:
        ValueError: a package of ``report_to`` is missing or unknown, the output folder cannot be written to, or the
            student is split in a way that sampling or probes cannot work with.
    """
    from kvar.distill.trainer.strategy import check_strategy, fsdp_version

    _check_reporters([training.report_to] if isinstance(training.report_to, str) else list(training.report_to or []))
    check_folder_place(str(training.output_dir), "output_dir")
    _warn_of_slow_bfloat16(settings.models, training)
    check_strategy(training, probe_every=settings.probe.probe_every)
    _check_auto(settings, training)
    if fsdp_version(training) and training.device.type == "cpu":
        warnings.warn("fsdp: accelerate splits students on accelerators only; on CPUs it uses DDP.", stacklevel=3)


def _check_auto(settings: RunSettings, training: DistillationConfig) -> None:
    """Raise ValueError where the probe of the settings cannot measure what ``estimator: auto`` chooses by."""
    from kvar.distill.adaptive import is_adaptive
    from kvar.estimators.adaptive import adaptive
    from kvar.hooks.auto_estimator import check_measurable

    if not is_adaptive(training):
        return
    if settings.models.teacher is None:
        raise ValueError("estimator is auto, which is chosen by measuring beside a teacher: set teacher.")
    check_measurable(
        adaptive(training),
        prompts=settings.probe.probe_prompts,
        rollouts=settings.probe.probe_rollouts,
        step_rollouts=training.rollouts_per_prompt,
        references=True,
    )


def check_probe_size(settings: ProbeSettings, prompts: int) -> None:
    """Warn where a probe has too few ``prompts`` to be reported."""
    from kvar.analysis.frames.measured import LEAST_PROMPTS

    several = settings.probe_rollouts > 1
    if prompts < (LEAST_PROMPTS if several else 2):
        warnings.warn(
            f"probe_prompts is {settings.probe_prompts} and the probe has {prompts} prompts with "
            f"{settings.probe_rollouts} responses each: too few for variances and their intervals, so kvar report "
            f"leaves this run's probes out. Give at least {LEAST_PROMPTS} prompts.",
            stacklevel=3,
        )


def check_room(training: DistillationConfig, parameters: int) -> None:
    """Raise ValueError where the disk has no room for one checkpoint.

    A checkpoint holds the student's parameters and, unless ``save_only_model``, the optimizer's two moments, in fp32.
    """
    needed = 4 * parameters * (1 if training.save_strategy == "no" or training.save_only_model else 3)
    free = shutil.disk_usage(_nearest(Path(str(training.output_dir)))).free
    if free < needed:
        raise ValueError(
            f"output_dir {training.output_dir} has {free / 1e6:,.0f} MB free; a checkpoint of {parameters:,} weights "
            f"takes about {needed / 1e6:,.0f} MB. Free some space, name another folder, or set save_only_model true."
        )


def _check_reporters(names: list[str]) -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise ValueError(f"report_to {name!r} is unknown; choose none, or any of: {known}.")
        if find_spec("azureml" if name == "azure_ml" else name) is None:
            raise ValueError(
                f"report_to {name!r} needs a package that is not installed: pip install {name.replace('_', '-')}, or "
                "choose another (tensorboard is always installed), or none."
            )


def _warn_of_slow_bfloat16(settings: ModelSettings, training: DistillationConfig) -> None:
    """Warn of bfloat16 on processors without its instructions, which emulate it slowly."""
    asked = [
        name
        for name, used in (("bf16", training.bf16), ("teacher_dtype", settings.teacher_dtype))
        if used in (True, "bfloat16")
    ]
    if asked and training.device.type == "cpu" and not _has_bfloat16():
        warnings.warn(
            f"{' and '.join(asked)}: this processor has no bfloat16 instructions and is many times slower in it than "
            "in float32; leave bf16 out and set teacher_dtype float32.",
            stacklevel=3,
        )


def _has_bfloat16() -> bool:
    import torch

    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # unknown in builds without oneDNN
        return True


def _nearest(folder: Path) -> Path:
    """The folder, or the closest one above it that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder
