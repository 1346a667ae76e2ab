"""One training run from its settings: task, tokenizer, models, trainer, final evaluation."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.records import TABLES, RunWriter, check_folder
from kvar.study.settings import RunSettings

if TYPE_CHECKING:
    from kvar.distill import DistillationConfig
    from kvar.hooks import GradientProbe
    from kvar.tasks import Example, Task

__all__ = ["Parts", "assemble", "check_output", "run_config", "score_run", "train_run"]


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


def train_run(settings: RunSettings, training: DistillationConfig, *, overwrite: bool = False) -> dict[str, float]:
    """Train a student with its probes, save it under ``output_dir/model`` and score it.

    A folder that holds a run of the same settings is gone on with from its last checkpoint; records of later steps,
    which will be measured again, are dropped first. A finished run only returns its metrics.

    Args:
        settings: task, models, evaluation and probe.
        training: trainer's settings; ``output_dir`` is the run's folder.
        overwrite: start anew in a folder that holds a run, throwing that run away.

    Returns:
        The final metrics, also written to ``output_dir/evaluation.json``.

    Raises:
        ValueError: bad settings or data, or a folder that holds another run; before training starts.
    """
    from transformers.trainer_utils import get_last_checkpoint

    from kvar.distill import DistillationTrainer, count_parameters
    from kvar.hooks import Recorder

    folder = Path(str(training.output_dir))
    check_output(settings, training, overwrite=overwrite)
    if overwrite and folder.is_dir():
        _discard(folder)
    parts = assemble(settings, training.seed)
    train, validation = _datasets(settings, training, parts)
    parameters = count_parameters(parts.student)
    config = {**run_config(settings, training), "parameters": parameters}
    with RunWriter(folder, config) as writer:
        done = folder / "evaluation.json"
        if done.exists():
            print(f"{folder}: finished before; nothing to do.", flush=True)
            return dict(json.loads(done.read_text())["metrics"])
        print(f"{folder}: student of {parameters:,} parameters, {len(train):,} training examples", flush=True)
        last = get_last_checkpoint(str(folder))
        writer.drop_after(_step_of(last))
        trainer = DistillationTrainer(
            model=parts.student,
            args=training,
            teacher=parts.teacher,
            train_dataset=train,
            eval_dataset=validation,
            processing_class=parts.tokenizer,
            callbacks=[Recorder(writer), *_probes(settings, training, parts, writer)],
        )
        trainer.train(resume_from_checkpoint=last)
        parts.student.save_pretrained(folder / "model")
        parts.tokenizer.save_pretrained(folder / "model")
        return score_run(settings, training, parts, writer, step=trainer.state.global_step)


def check_output(settings: RunSettings, training: DistillationConfig, *, overwrite: bool = False) -> None:
    """Refuse an output folder that holds another run, unless it is to be overwritten.

    Raises:
        ValueError: the folder's run differs; the message names a field and both its values.
    """
    if not overwrite:
        check_folder(str(training.output_dir), run_config(settings, training))


def run_config(settings: RunSettings, training: DistillationConfig) -> dict[str, Any]:
    """What makes a run this run: its own settings, and the trainer's where they differ from the defaults."""
    from kvar.distill import DistillationConfig

    given, plain = training.to_dict(), DistillationConfig(output_dir=str(training.output_dir)).to_dict()
    own = ("objective", "kernel", "baseline")
    differing = {k: v for k, v in given.items() if v != plain.get(k) or k in own}
    for name in ("output_dir", "logging_dir", "run_name", "disable_tqdm"):
        differing.pop(name, None)
    return {**asdict(settings), **differing}


def _datasets(settings: RunSettings, training: DistillationConfig, parts: Parts) -> tuple[Any, Any]:
    from kvar.distill import build_dataset

    longest = {"max_target_tokens": training.max_new_tokens, "max_prompt_tokens": training.max_prompt_tokens}
    train = build_dataset(parts.task.examples("train", settings.train_limit), parts.tokenizer, **longest)
    if training.eval_strategy == "no":
        return train, None
    return train, build_dataset(
        parts.task.examples("validation", settings.eval_limit or 500), parts.tokenizer, **longest
    )


def _probes(
    settings: RunSettings, training: DistillationConfig, parts: Parts, writer: RunWriter
) -> list[GradientProbe]:
    from kvar.hooks import GradientProbe, parse_estimators

    if not settings.probe_every:
        return []
    examples = parts.task.examples("validation", settings.probe_prompts)
    return [
        GradientProbe(
            [example.prompt for example in examples],
            parse_estimators(settings.probe_kernels, settings.probe_baseline),
            teacher=parts.teacher,
            tokenizer=parts.tokenizer,
            every=settings.probe_every,
            rollouts_per_prompt=settings.probe_rollouts,
            max_new_tokens=training.max_new_tokens,
            seed=settings.probe_seed,
            writer=writer,
            micro_batch=settings.probe_micro_batch,
            centre=training.centre,
            value=training.value,
            vocabulary=len(parts.tokenizer),
        )
    ]


def _step_of(checkpoint: str | None) -> int:
    """The training step a checkpoint was saved at; -1 without one, so that nothing recorded is kept."""
    if checkpoint is None:
        return -1
    return int(json.loads((Path(checkpoint) / "trainer_state.json").read_text())["global_step"])


def _discard(folder: Path) -> None:
    """Remove what a run of ours left in ``folder``: records, checkpoints, model, evaluation; nothing else."""
    for name in ("model", *TABLES):
        shutil.rmtree(folder / name, ignore_errors=True)
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    for name in ("evaluation.json", "config.json"):
        (folder / name).unlink(missing_ok=True)


def score_run(
    settings: RunSettings, training: DistillationConfig, parts: Parts, writer: RunWriter, *, step: int
) -> dict[str, float]:
    """Decode ``eval_split`` with the trained student; metrics go to the records and, with texts, to evaluation.json."""
    import pandas as pd

    from kvar.distill import evaluate

    path = Path(str(training.output_dir)) / "evaluation.json"
    if not settings.eval_limit:
        path.write_text(json.dumps({"split": settings.eval_split, "examples": 0, "metrics": {}, "samples": []}))
        return {}

    examples: list[Example] = parts.task.examples(settings.eval_split, settings.eval_limit)
    result = evaluate(
        parts.student,
        parts.task,
        examples,
        parts.tokenizer,
        max_new_tokens=training.max_new_tokens,
        num_beams=settings.eval_beams,
    )
    samples = [
        {"prompt": e.prompt, "target": e.target, "text": t} for e, t in zip(examples[:50], result.texts, strict=False)
    ]
    content = {"split": settings.eval_split, "examples": len(examples), "metrics": result.metrics, "samples": samples}
    rows = [
        {"step": step, "split": f"final {settings.eval_split}", "name": name, "value": value}
        for name, value in result.metrics.items()
    ]
    writer.append("metrics", pd.DataFrame(rows), key=("evaluation", settings.eval_split))
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False))
    print(f"{settings.eval_split} ({len(examples)} examples): {result.metrics}", flush=True)
    return result.metrics
