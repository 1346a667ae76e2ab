"""Ways to compile a student or split it over processes that sampling and measuring cannot work with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from kvar.rollouts.sharded import is_sharded, unwrap

if TYPE_CHECKING:
    from kvar.distill.config import DistillationConfig

__all__ = ["check_strategy", "check_whole", "fsdp_version"]


def check_whole(student: Any, teacher: Any | None) -> None:
    """Refuse models that a trainer cannot sample from and score with.

    Raises:
        ValueError: a student that cannot be made whole, see :func:`kvar.rollouts.whole`; a teacher that is sharded.
    """
    unwrap(student)
    if is_sharded(teacher):
        raise ValueError("teacher is sharded: load it whole on each process, in bfloat16 where memory is short.")


def check_strategy(training: DistillationConfig, *, probe_every: int = 0) -> None:
    """Check torch.compile, FSDP and DeepSpeed among a training's settings, which ``accelerate launch`` adds to.

    Args:
        training: objective and settings.
        probe_every: steps between probes; 0 for none.

    Raises:
        ValueError: torch.compile; FSDP1 or DeepSpeed ZeRO-3 with probes or an objective that samples from the student.
    """
    if training.torch_compile or os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() not in ("no", ""):
        raise ValueError(
            "torch_compile is on, and compiled modules do not see what is put around the student's forward pass: set "
            "torch_compile false (accelerate launch --dynamo_backend no)."
        )
    if probe_every:
        what = f"probe_every is {probe_every}"
    elif any("student" in training.mixture.sources(training, coin) for coin in (False, True)):
        what = f"objective {training.objective!r} samples from the student"
    else:
        return
    what += ", which needs the whole student in each process"
    instead = "DDP, or an objective on given responses, such as sft or kl"
    if fsdp_version(training) == 1:
        raise ValueError(
            f"{what}; FSDP1 splits it for good. Use FSDP2 (version 2 in fsdp_config, accelerate launch --fsdp_version "
            f"2), {instead}."
        )
    if training.deepspeed_plugin is not None and training.deepspeed_plugin.zero_stage == 3:
        raise ValueError(f"{what}; DeepSpeed ZeRO-3 splits it for good. Use stage 2, FSDP2, {instead}.")


def fsdp_version(training: DistillationConfig) -> int:
    """1 or 2; 0 without FSDP."""
    if training.fsdp_plugin_args:
        return int(training.fsdp_plugin_args.get("fsdp_version", 1))
    launched = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true", "yes")
    return int(os.environ.get("FSDP_VERSION", "1")) if launched else 0
