"""Save and score the student at the end of a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.records import RunWriter
from kvar.records.parts import replace_file
from kvar.records.study_folder import EVALUATION
from kvar.rollouts import whole
from kvar.rollouts.sharded import is_sharded
from kvar.study.run.parts import Parts
from kvar.study.settings.run_settings import EvaluationSettings

if TYPE_CHECKING:
    from kvar.distill import DistillationConfig, DistillationTrainer
    from kvar.tasks import Example

__all__ = ["save_student", "score_run"]


def save_student(trainer: DistillationTrainer, parts: Parts, folder: Path, card: str) -> None:
    """Write weights, config, tokenizer and card, all or nothing. Every process calls this."""
    if is_sharded(trainer.model):
        with whole(trainer.model) as student:
            _save(trainer, student, None, parts, folder, card)
    else:
        state = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None  # FSDP1
        _save(trainer, trainer.accelerator.unwrap_model(trainer.model), state, parts, folder, card)


def _save(trainer: DistillationTrainer, student: Any, state: Any, parts: Parts, folder: Path, card: str) -> None:
    if not trainer.args.should_save:
        return
    from kvar.distill.models import save_model

    staged = folder.with_name(f".{folder.name}.saving")
    shutil.rmtree(staged, ignore_errors=True)
    if state is None:
        save_model(student, staged)
    else:
        student.save_pretrained(staged, state_dict=state)
    parts.tokenizer.save_pretrained(staged)
    (staged / "README.md").write_text(card, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    staged.rename(folder)


def score_run(
    settings: EvaluationSettings,
    training: DistillationConfig,
    parts: Parts,
    writer: RunWriter,
    *,
    step: int,
    scored: Callable[[dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Decode ``eval_split`` with the trained student; metrics go to the records and, with texts, to evaluation.json.

    ``scored`` is called with the metrics before evaluation.json, which marks the run as finished.
    """
    import pandas as pd

    from kvar.distill import evaluate

    path = Path(str(training.output_dir)) / EVALUATION
    if not settings.eval_limit:
        empty = {"split": settings.eval_split, "examples": 0, "metrics": {}, "samples": []}
        replace_file(path, json.dumps(empty).encode())
        return {}

    examples: list[Example] = parts.task.examples(settings.eval_split, settings.eval_limit)
    result = evaluate(
        parts.student,
        parts.task,
        examples,
        parts.tokenizer,
        max_new_tokens=training.max_new_tokens,
        num_beams=settings.eval_beams,
        calculator=settings.calculator,
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
    if scored is not None:
        scored(result.metrics)
    replace_file(path, json.dumps(content, indent=1, ensure_ascii=False).encode())  # last: it marks the run as done
    shown = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
    print(f"{settings.eval_split} ({len(examples)} examples): {shown}", flush=True)
    return result.metrics
