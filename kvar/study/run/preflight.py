"""Checks of machine and installation, made before any long work starts."""

from __future__ import annotations

import os
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
    """Check that this machine and installation can do the run, and warn of what they do very slowly.

    Raises:
        ValueError: a package of ``report_to`` is missing or unknown, the output folder cannot be written to, or FSDP
            is asked for what needs the whole student in one process. The message names the remedy.
    """
    _check_reporters([training.report_to] if isinstance(training.report_to, str) else list(training.report_to or []))
    check_folder_place(str(training.output_dir), "output_dir")
    _warn_of_slow_bfloat16(settings.models, training)
    samples = any("student" in training.mixture.sources(training, coin) for coin in (False, True))
    if _uses_fsdp(training) and (settings.probe.probe_every or samples):
        what = (
            f"probe_every is {settings.probe.probe_every}"
            if settings.probe.probe_every
            else f"objective {training.objective!r} samples from the student"
        )
        raise ValueError(
            f"{what}, which needs the whole student in each process; FSDP splits it. Use DDP, or an objective on given "
            "responses, such as sft or kl."
        )


def check_probe_size(settings: ProbeSettings, prompts: int) -> None:
    """Warn of a probe that is recorded but too small to be reported.

    Args:
        settings: of the probe.
        prompts: prompts that the probe has, at most ``probe_prompts``.
    """
    from kvar.analysis.frames.recorded import LEAST_PROMPTS

    several = settings.probe_rollouts > 1
    if prompts < (LEAST_PROMPTS if several else 2):
        warnings.warn(
            f"probe_prompts is {settings.probe_prompts} and {prompts} are there, with {settings.probe_rollouts} "
            "responses each: too few for variances and their intervals, so kvar report will leave this run's probes "
            f"out. Give at least {LEAST_PROMPTS} prompts.",
            stacklevel=3,
        )


def check_room(training: DistillationConfig, parameters: int) -> None:
    """Check that at least one checkpoint fits on the disk.

    Args:
        training: says where, and whether, checkpoints go.
        parameters: of the student; a checkpoint holds them, and as a rule the optimizer's two moments, in fp32.

    Raises:
        ValueError: too little room.
    """
    if training.save_strategy == "no":
        needed = 4 * parameters
    else:
        needed = 4 * parameters * (1 if training.save_only_model else 3)
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
                "choose another (tensorboard is always there), or none."
            )


def _warn_of_slow_bfloat16(settings: ModelSettings, training: DistillationConfig) -> None:
    """Processors without bfloat16 instructions emulate them, at a small part of float32's speed."""
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
    except (AttributeError, RuntimeError):  # a build without oneDNN: nothing is known
        return True


def _nearest(folder: Path) -> Path:
    """The folder, or the closest one above it that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _uses_fsdp(training: DistillationConfig) -> bool:
    return bool(training.fsdp) or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true", "yes")
