"""The student, teacher and tokenizer of a measurement, from modules, folders or names, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kvar.distill import check_models, count_parameters, load_model
from kvar.front.tokenizer import settled_tokenizer
from kvar.gradients.state import unwrap
from kvar.rollouts import sharded
from kvar.rollouts.output_embedding import logit_width

__all__ = ["Models", "resolve_models"]


@dataclass(frozen=True)
class Models:
    """Student, teacher and tokenizer, checked.

    Attributes:
        student: the plain module.
        teacher: on the student's device; None where none was given.
        tokenizer: of both, with a pad token; None where none is known, and prompts have to be token ids.
        config: for records: student, teacher, tokenizer, parameters.
    """

    student: Any
    teacher: Any
    tokenizer: Any
    config: dict[str, Any]


def resolve_models(
    student: Any,
    teacher: Any,
    tokenizer: Any = None,
    *,
    vocabulary: int | None = None,
    device: Any = None,
    teacher_dtype: str = "float32",
    name: str | None = None,
) -> Models:
    """Load models given by name, and check that student, teacher and tokenizer fit together.

    Arguments as of :func:`kvar.measure`.

    Raises:
        TypeError: a student or teacher that is neither module nor name.
        ValueError: a model that cannot be loaded; models on different devices or of different tokenizers; see
            :func:`kvar.distill.check_models`.
    """
    for role, model in (("student", student), ("teacher", teacher)):
        if role == "teacher" and model is None:
            continue
        if not isinstance(model, nn.Module | str | Path):
            raise TypeError(
                f"{role} must be a module, a model folder or a name such as 'arithmetic'; got {type(model).__name__}."
            )
    if isinstance(teacher, nn.Module) and teacher_dtype != "float32":
        raise ValueError(
            f"teacher_dtype {teacher_dtype!r} is for a teacher given by name; cast a module by teacher.to(dtype)."
        )
    place = _device(student, teacher, device)
    names = (_name_of(student), None if teacher is None else _name_of(teacher))
    tokenizer = settled_tokenizer(tokenizer, student, student if teacher is None else teacher)
    made = [
        load_model(model, dtype).to(place) if isinstance(model, str | Path) else model
        for model, dtype in ((student, "float32"), (teacher, teacher_dtype))
    ]
    plain = sharded.unwrap(made[1], "teacher") if isinstance(made[1], nn.Module) else made[1]
    made = [unwrap(made[0]), plain]
    if tokenizer is not None and teacher is not None:
        check_models(made[0], made[1], tokenizer)
    _check_widths(made[0], made[1], tokenizer, vocabulary)
    config = {
        "student": name or _short(names[0], made[0]),
        "teacher": None if teacher is None else _short(names[1], made[1]),
        "tokenizer": getattr(tokenizer, "name_or_path", None) or None,
        "parameters": count_parameters(made[0]),
    }
    return Models(made[0], made[1], tokenizer, config)


def _device(student: Any, teacher: Any, device: Any) -> torch.device:
    """The device of both models, determined before loading."""
    at = {role: _place(m) for role, m in (("student", student), ("teacher", teacher)) if isinstance(m, nn.Module)}
    wanted = None if device is None else _known_device(device)
    for role, place in at.items():
        if wanted is not None and place != wanted:
            raise ValueError(f"device is {wanted}, the {role} on {place}: move it, {role}.to({str(wanted)!r}).")
    if len(set(at.values())) > 1:
        raise ValueError(
            f"the teacher is on {at['teacher']}, the student on {at['student']}: move one, for example "
            f"teacher.to({str(at['student'])!r})."
        )
    if wanted is None and at:
        wanted = next(iter(at.values()))
    return wanted or torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _place(model: nn.Module) -> torch.device:
    first = next(iter(model.parameters()), None)
    return torch.device("cpu") if first is None else first.device


def _known_device(device: Any) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device {device!r} is not available ({reason}); leave device out, or set it to 'cpu'."
        ) from error


def _inner(model: Any) -> Any:
    """The model inside a data-parallel wrapper."""
    parallel = isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel)
    return model.module if parallel else model


def _name_of(model: Any) -> str | None:
    """The name that a model is loaded by."""
    if not isinstance(model, nn.Module):
        return str(model)
    return str(getattr(getattr(_inner(model), "config", None), "_name_or_path", "") or "") or None


def _short(name: str | None, model: Any) -> str:
    """A short name: the last part of the model's name, else its family."""
    kind = getattr(getattr(model, "config", None), "model_type", None) or type(model).__name__
    return Path(name).name if name else str(kind)


def _check_widths(student: Any, teacher: Any, tokenizer: Any, vocabulary: int | None) -> None:
    """Refuse an action set that a model has no logits for, or that is unknown."""
    widths = {"student": logit_width(student), "teacher": logit_width(student if teacher is None else teacher)}
    for role, width in widths.items():
        if vocabulary is not None and width is not None and width < vocabulary:
            raise ValueError(f"vocabulary is {vocabulary}, but the {role} has {width} tokens: lower it to {width}.")
    if tokenizer is None and vocabulary is None and None not in widths.values() and len(set(widths.values())) > 1:
        raise ValueError(
            f"the student has {widths['student']} tokens, the teacher {widths['teacher']}, and without a tokenizer the "
            "padding is unknown: pass tokenizer=, or vocabulary= where they share one and are padded differently."
        )
