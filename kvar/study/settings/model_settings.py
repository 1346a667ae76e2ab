"""Whether a run's settings of models agree with each other; asked before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvar.study.settings.run_settings import RunSettings

__all__ = ["check_models"]

ORIGINS = {
    "student": "a folder or hub name",
    "student_config": "model_type and sizes",
    "student_layers": "some of the teacher's layers",
}


def check_models(settings: RunSettings) -> None:
    """Refuse settings that name no student, or two, or what cannot be.

    Raises:
        ValueError: the message names field, value and remedy.
    """
    given = [name for name in ORIGINS if getattr(settings, name) is not None]
    if len(given) > 1:
        raise ValueError(
            f"{' and '.join(given)} are {'both' if len(given) == 2 else 'all'} set; keep the one that the student "
            "should start from."
        )
    if not given:
        raise ValueError("no student: set " + " or ".join(f"{name} ({what})" for name, what in ORIGINS.items()) + ".")
    if settings.student_layers is not None:
        from kvar.distill import parse_layers

        parse_layers(settings.student_layers)
        if settings.teacher is None:
            raise ValueError(f"student_layers is {settings.student_layers!r} but no teacher has them: set teacher.")
    if settings.teacher_dtype not in ("float32", "bfloat16"):
        raise ValueError(
            f"teacher_dtype must be float32 or bfloat16; got {settings.teacher_dtype!r}. (T5 gives NaN in float16.)"
        )
    targets: object = settings.lora_targets
    if isinstance(targets, list):  # a YAML list
        settings.lora_targets = ",".join(targets)
    for name in ("lora_alpha", "lora_targets"):
        if settings.lora_rank is None and getattr(settings, name) is not None:
            raise ValueError(f"{name} is {getattr(settings, name)!r} but lora_rank is not set; set lora_rank (8, say).")
    for name in ("lora_rank", "lora_alpha"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}.")
