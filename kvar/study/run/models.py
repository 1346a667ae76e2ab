"""The tokenizer, student and teacher that a run's settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvar.distill.models.shipped import resolve

if TYPE_CHECKING:
    from kvar.study.settings.run_settings import ModelSettings
    from kvar.tasks import Task

__all__ = ["load_models"]


def load_models(settings: ModelSettings, task: Task, seed: int) -> tuple[Any, Any, Any]:
    """Load or build tokenizer, student and teacher.

    The student comes from ``student``, ``student_config`` or ``student_layers``, in float32, with LoRA adapters where
    ``lora_rank`` is set; the teacher is in ``teacher_dtype``.

    Args:
        settings: of the models.
        task: builds the tokenizer where none is named.
        seed: seed of a student's random weights and adapters.

    Returns:
        tokenizer, student, and teacher or None.

    Raises:
        ValueError: a model cannot be loaded, teacher and student have different tokenizers, or models and tokenizer
            do not fit (``check_models``).
    """
    import torch

    from kvar.distill import add_lora, build_model, check_models, load_model, load_tokenizer, parse_layers, prune_layers
    from kvar.rollouts import check_same_tokenizer

    teacher_name = resolve(settings.teacher)
    named = resolve(settings.tokenizer or settings.student) or teacher_name
    tokenizer = load_tokenizer(named) if named else task.build_tokenizer()
    if teacher_name and teacher_name != named:
        check_same_tokenizer(tokenizer, load_tokenizer(teacher_name))
    whole = settings.student_layers is not None  # layers are copied before any rounding
    teacher: Any = load_model(teacher_name, "float32" if whole else settings.teacher_dtype) if teacher_name else None
    if settings.student:
        student = load_model(str(resolve(settings.student)))
    elif settings.student_layers is not None:
        student = prune_layers(teacher, **parse_layers(settings.student_layers))
        teacher = teacher.to(getattr(torch, settings.teacher_dtype))
    else:
        student = build_model(settings.student_config or {}, tokenizer, seed=seed)
    check_models(student, teacher, tokenizer)
    if settings.lora_rank is not None:
        student = add_lora(student, settings.lora_rank, settings.lora_alpha, settings.lora_targets, seed=seed)
    return tokenizer, student, teacher
