"""A teacher is a fixed target: it must not share weights that the student's training changes."""

from __future__ import annotations

from torch import nn

__all__ = ["check_apart"]

SHOWN = 3


def check_apart(student: nn.Module, teacher: nn.Module | None) -> None:
    """Refuse a teacher that shares memory with a parameter that the student trains.

    Frozen parameters may be shared.

    Args:
        student: the model that is trained.
        teacher: the model that scores, or None.

    Raises:
        ValueError: they share trained parameters, which the message names.
    """
    if teacher is None:
        return
    fixed = {_memory(p): name for name, p in teacher.named_parameters() if p.device.type != "meta" and p.numel()}
    shared = [
        name if name == fixed[_memory(p)] else f"{name} (the teacher's {fixed[_memory(p)]})"
        for name, p in student.named_parameters()
        if p.requires_grad and _memory(p) in fixed
    ]
    if shared:
        more = f" and {len(shared) - SHOWN} more" if len(shared) > SHOWN else ""
        raise ValueError(
            f"student and teacher share parameters that are trained: {', '.join(shared[:SHOWN])}{more}. The teacher "
            "would change with the student. Give it weights of its own (teacher = copy.deepcopy(teacher)), or freeze "
            "them in the student (requires_grad_(False))."
        )


def _memory(parameter: nn.Parameter) -> int:
    part = parameter.to_local() if hasattr(parameter, "to_local") else parameter  # this process's, where it is sharded
    return int(part.untyped_storage().data_ptr())
