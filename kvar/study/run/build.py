"""The parts of a run from its settings: task, models, data sets, probes, trainer."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.records import RunWriter
from kvar.results.study_cells import trained_estimator
from kvar.study.run.identity import RUN_FILE
from kvar.study.run.model_card import model_card
from kvar.study.run.parts import Parts
from kvar.study.run.prompt_lengths import check_prompts, check_rows
from kvar.study.settings.probed import not_measured, with_estimators
from kvar.study.settings.run_settings import EvaluationSettings, ProbeSettings, RunSettings, TaskSettings

if TYPE_CHECKING:
    from kvar.distill import DistillationConfig, DistillationTrainer
    from kvar.hooks import GradientProbe

__all__ = ["assemble", "build_datasets", "build_probes", "build_trainer"]


SCORE = "score - leave-one-out"
"""The estimator of the score's gradient, which ``probe_score`` adds."""


def assemble(settings: RunSettings, seed: int) -> Parts:
    """Load or build task, tokenizer and models.

    Args:
        settings: of the run.
        seed: seed of a student's random weights.

    Raises:
        ValueError: a model or tokenizer cannot be loaded, or teacher and student have different tokenizers.
    """
    from kvar.study.run.models import load_models
    from kvar.study.run.tasks import build_task, check_calculator, check_score, fit_task

    task = build_task(settings.task)
    if settings.probe.probe_score is not None:
        check_score(task, settings.probe.probe_score)
    tokenizer, student, teacher = load_models(settings.models, task, seed)
    if settings.evaluation.calculator:
        check_calculator(task, tokenizer)
    return Parts(fit_task(settings.task, task, tokenizer, student), tokenizer, student, teacher)


def build_datasets(
    task: TaskSettings, evaluation: EvaluationSettings, training: DistillationConfig, parts: Parts
) -> tuple[Any, Any]:
    """Training data, and validation data where training evaluates.

    Of a training split that has more rows than the run's steps see, the others are not tokenised.

    Raises:
        ValueError: a split that is missing, or a prompt that is too long.
    """
    from kvar.distill.data.as_needed import RowsAsNeeded, rows_seen
    from kvar.rollouts import policy_of

    limits = {"train": task.train_limit}
    if training.eval_strategy != "no":
        limits["validation"] = evaluation.eval_limit or 500
    options: dict[str, Any] = {"model": parts.student, "max_target_tokens": training.max_new_tokens}
    options["policy"] = policy_of(parts.student, parts.tokenizer, teacher=parts.teacher)
    built = {}
    for split, limit in limits.items():
        examples = parts.task.examples(split, limit)
        build = partial(_rows, parts.tokenizer, split, options)
        seen = rows_seen(training, len(examples)) if split == "train" else None
        rows = build(examples) if seen is None else RowsAsNeeded(examples, build, seen)
        check_rows(split, rows, training, parts)
        built[split] = rows
    return built["train"], built.get("validation")


def _rows(tokenizer: Any, split: str, options: dict[str, Any], examples: Sequence[Any]) -> Any:
    from kvar.distill import build_dataset

    return build_dataset(examples, tokenizer, name=split, **options)


def build_probes(
    probe: ProbeSettings, training: DistillationConfig, parts: Parts, writer: RunWriter | None
) -> list[GradientProbe]:
    """The gradient probe of the settings, or none.

    Raises:
        ValueError: a prompt that is too long for student or teacher.
    """
    from kvar.distill.adaptive import is_adaptive
    from kvar.estimators import DATA
    from kvar.estimators.adaptive import adaptive
    from kvar.evaluation.evaluate import response_texts
    from kvar.hooks import GradientProbe, parse_estimators
    from kvar.study.run.preflight import check_probe_size

    chosen = adaptive(training) if is_adaptive(training) and training.auto_on == "probe" else None
    if not probe.probe_every and chosen is None:
        return []
    examples = parts.task.examples("validation", probe.probe_prompts)
    check_prompts("validation", examples, training, parts, teacher=True)
    check_probe_size(probe, len(examples))
    probe = with_estimators(probe, training)
    estimators = parse_estimators(str(probe.probe_kernels), probe.probe_baseline) if probe.probe_every else []
    if probe.probe_every and (why := not_measured(probe, training)) is not None:
        warnings.warn(f"the probe does not measure the estimator that is trained with: {why}.", stacklevel=2)
    if chosen is not None:
        known = {e.name for e in estimators}
        estimators += [e for e in chosen.measured(probe.probe_rollouts) if e.name not in known]
    if probe.probe_score is not None and SCORE not in {estimator.name for estimator in estimators}:
        estimators += parse_estimators(SCORE)
    references = probe.probe_references or (chosen is not None and chosen.target == DATA)
    return [
        GradientProbe(
            [example.prompt for example in examples],
            estimators,
            teacher=parts.teacher,
            score=lambda rollouts: parts.task.example_scores(
                response_texts(rollouts, parts.tokenizer),
                [examples[i] for i in rollouts.prompt_index.tolist()],
                probe.probe_score,
            ),
            references=[example.target for example in examples] if references else None,
            tokenizer=parts.tokenizer,
            every=max(probe.probe_every, 1),
            first=probe.probe_first,
            rollouts_per_prompt=probe.probe_rollouts,
            max_new_tokens=training.max_new_tokens,
            seed=probe.probe_seed,
            writer=writer,
            groups="layers" if probe.probe_groups else None,
            position_bins=probe.probe_positions,
            micro_batch=probe.probe_micro_batch,
            centre=training.centre,
            value=training.value,
        )
    ]


def build_trainer(
    probe: ProbeSettings,
    training: DistillationConfig,
    parts: Parts,
    train: Any,
    validation: Any,
    writer: RunWriter | None,
    config: dict[str, Any],
    *,
    start: int = -1,
) -> DistillationTrainer:
    """The trainer of a run with its callbacks: records and probes where there is a writer, progress, TensorBoard.

    Args:
        probe: settings of the probe.
        training: settings of the trainer.
        parts: models and tokenizer.
        train: training data set.
        validation: validation data set, or None.
        writer: None on processes that write nothing.
        config: from ``run_config``, for checkpoints and their model cards.
        start: step at which a resumed run begins.
    """
    from transformers.integrations import TensorBoardCallback
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    from kvar.distill import DistillationTrainer, count_parameters
    from kvar.distill.adaptive import is_adaptive
    from kvar.hooks import AutoEstimator, Recorder, TrainerLog
    from kvar.hooks.progress import Progress
    from kvar.hooks.scalars import PREFIX

    probes = build_probes(probe, training, parts, writer)  # every process measures its share of the prompts
    trainer = DistillationTrainer(
        model=parts.student,
        args=training,
        teacher=parts.teacher,
        score=parts.task.example_scores,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=parts.tokenizer,
        callbacks=[] if writer is None else [Recorder(writer)],
    )
    for default in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(default)
    progress = Progress(bar=False if training.disable_tqdm else None)
    trainer.add_callback(progress)
    if "tensorboard" in (training.report_to or []):
        trainer.remove_callback(TensorBoardCallback)
        if writer is not None:
            from torch.utils.tensorboard import SummaryWriter

            folder = Path(str(training.output_dir)) / "tensorboard"
            trainer.add_callback(TensorBoardCallback(SummaryWriter(str(folder), purge_step=start + 1)))
    for one in probes:  # after the callbacks that it logs to
        trained = filter(None, [trained_estimator(config)])
        one.listeners.append(TrainerLog(trainer, say=progress.say, trained=[*trained], logged=probe.probe_log))
        if probe.probe_every:
            trainer.add_callback(one)
    if is_adaptive(training):
        own = probes[0] if training.auto_on == "probe" else None
        AutoEstimator(trainer, own, writer=writer, log=probe.probe_log, say=progress.say)
    parameters = count_parameters(parts.student)

    def complete(checkpoint: Path) -> None:
        step = trainer.state.global_step
        numbers = [item for log in trainer.state.log_history for item in log.items() if isinstance(item[1], float)]
        logged = {k: v for k, v in numbers if not k.startswith(f"{PREFIX}/")}
        card = model_card(config, logged, parameters=parameters, step=step)
        (checkpoint / "README.md").write_text(card, encoding="utf-8")
        (checkpoint / RUN_FILE).write_text(json.dumps(config, default=str), encoding="utf-8")

    trainer.checkpoint_hooks.append(complete)
    return trainer
