"""One training run from its settings: task, tokenizer, models, trainer, final evaluation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.study.settings import RunSettings

if TYPE_CHECKING:
    from kvar.distill import DistillationConfig
    from kvar.tasks import Example, Task

__all__ = ["Parts", "assemble", "train_run"]


@dataclass
class Parts:
    """What a run works with, loaded and checked: task, tokenizer, student and, where there is one, teacher."""

    task: Task
    tokenizer: Any
    student: Any
    teacher: Any


def assemble(settings: RunSettings, seed: int) -> Parts:
    """Load or build everything that the settings name.

    Args:
        settings: a run's settings.
        seed: seed of a student's random weights.

    Raises:
        ValueError: something named cannot be loaded, or teacher and student have different tokenizers.
    """
    from kvar.distill import build_model, load_model, load_tokenizer
    from kvar.rollouts import check_same_tokenizer
    from kvar.study.teachers import resolve
    from kvar.tasks import task_from_options

    task = task_from_options(
        settings.task,
        data=settings.data,
        source_field=settings.source_field,
        target_field=settings.target_field,
        prefix=settings.prefix,
        vocabulary=settings.vocabulary,
        difficulty=(settings.min_problem_steps, settings.max_problem_steps),
        seed=settings.task_seed,
        held_out=settings.held_out,
    )
    teacher_name = resolve(settings.teacher)
    teacher = load_model(teacher_name) if teacher_name else None
    named = settings.tokenizer or settings.student or teacher_name
    tokenizer = load_tokenizer(resolve(named) or named) if named else task.build_tokenizer()
    if teacher_name:
        check_same_tokenizer(tokenizer, load_tokenizer(teacher_name))
    if settings.student:
        student = load_model(settings.student)
    else:
        student = build_model(settings.student_config, tokenizer, seed=seed)
    return Parts(task, tokenizer, student, teacher)


def train_run(settings: RunSettings, training: DistillationConfig) -> dict[str, float]:
    """Train a student, save it under ``output_dir/model`` and score it; a killed run goes on where it stopped.

    Args:
        settings: task, models, evaluation and probe.
        training: trainer's settings; ``output_dir`` is the run's folder.

    Returns:
        The final metrics, also written to ``output_dir/evaluation.json``.

    Raises:
        ValueError: bad settings or data, or a folder that holds another run; before training starts.
    """
    from transformers.trainer_utils import get_last_checkpoint

    from kvar.distill import DistillationTrainer, build_dataset, count_parameters

    folder = Path(str(training.output_dir))
    parts = assemble(settings, training.seed)
    longest = {"max_target_tokens": training.max_new_tokens, "max_prompt_tokens": training.max_prompt_tokens}
    train = build_dataset(parts.task.examples("train", settings.train_limit), parts.tokenizer, **longest)
    held_out = parts.task.examples("validation")
    validation = build_dataset(held_out[: settings.eval_limit or 500], parts.tokenizer, **longest)
    print(f"student: {count_parameters(parts.student):,} parameters; {len(train):,} training examples", flush=True)
    trainer = DistillationTrainer(
        model=parts.student,
        args=training,
        teacher=parts.teacher,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=parts.tokenizer,
    )
    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    parts.student.save_pretrained(folder / "model")
    parts.tokenizer.save_pretrained(folder / "model")
    if not settings.eval_limit:
        return {}
    return score_run(settings, training, parts)


def score_run(settings: RunSettings, training: DistillationConfig, parts: Parts) -> dict[str, float]:
    """Decode ``eval_split`` with the trained student and write metrics and texts to ``evaluation.json``."""
    from kvar.distill import evaluate

    examples: list[Example] = parts.task.examples(settings.eval_split, settings.eval_limit)
    result = evaluate(
        parts.student,
        parts.task,
        examples,
        parts.tokenizer,
        max_new_tokens=training.max_new_tokens,
        num_beams=settings.eval_beams,
    )
    rows = [
        {"prompt": e.prompt, "target": e.target, "text": t} for e, t in zip(examples[:50], result.texts, strict=False)
    ]
    content = {"split": settings.eval_split, "examples": len(examples), "metrics": result.metrics, "samples": rows}
    path = Path(str(training.output_dir)) / "evaluation.json"
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False))
    print(f"{settings.eval_split} ({len(examples)} examples): {result.metrics}", flush=True)
    return result.metrics
