"""One training run from its settings, on one process or many."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from kvar.records import TABLES, RunWriter
from kvar.records.load import CONFIG
from kvar.records.lock import lock_folder
from kvar.records.parts import replace_file
from kvar.records.study_folder import EVALUATION
from kvar.study.run.build import assemble, build_datasets, build_trainer
from kvar.study.run.finish import save_student, score_run
from kvar.study.run.identity import check_checkpoint, check_output, find_checkpoint, run_config, setting_defaults
from kvar.study.run.interrupted import interrupted_run
from kvar.study.run.model_card import model_card
from kvar.study.run.preflight import check_machine, check_room
from kvar.study.run.prompt_lengths import check_scored
from kvar.study.settings.run_settings import RunSettings

if TYPE_CHECKING:
    from kvar.distill import DistillationConfig

__all__ = ["train_run"]


def train_run(settings: RunSettings, training: DistillationConfig, *, overwrite: bool = False) -> dict[str, float]:
    """Train a student with its probes, save it under ``output_dir/model`` and score it.

    A run of the same settings in the folder is resumed from its last checkpoint, and records of later steps are
    dropped. A finished run only returns its metrics. Under ``accelerate launch`` every process calls this; the first
    writes, measures and scores.

    Args:
        settings: task, models, evaluation and probe.
        training: trainer's settings; ``output_dir`` is the run's folder.
        overwrite: discard a run in the folder.

    Returns:
        The final metrics, also written to ``output_dir/evaluation.json``; empty on processes but the first.

    Raises:
        ValueError: bad settings or data, or a folder that holds another run; before training starts.
    """
    from accelerate import PartialState  # type: ignore[import-untyped]

    from kvar.distill import count_parameters
    from kvar.distill.models.bars import without_bars
    from kvar.distill.trainer.checkpoints import clean_folder
    from kvar.rollouts import whole

    folder = Path(str(training.output_dir))
    check_machine(settings, training)
    check_output(settings, training, overwrite=overwrite)
    main = training.process_index == 0
    if main:
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(folder)  # held to the end, so that no other process removes files of this one
        if overwrite:
            _discard(folder)
        clean_folder(folder)
    PartialState().wait_for_everyone()
    done = folder / EVALUATION
    if done.exists():
        if main:
            print(f"{folder}: already finished; nothing to do.", flush=True)
        return dict(json.loads(done.read_text())["metrics"])
    parts = assemble(settings, training.seed)
    train, validation = build_datasets(settings.task, settings.evaluation, training, parts)
    check_scored(settings.evaluation, training, parts)
    parameters = count_parameters(parts.student)
    check_room(training, parameters)
    config = run_config(settings, training)
    checkpoint, start = find_checkpoint(training), -1  # -1: without a checkpoint no record is kept
    if checkpoint is not None:
        check_checkpoint(checkpoint, parts.student, config)
        start = int(json.loads((checkpoint / "trainer_state.json").read_text())["global_step"])
    described = {**config, "parameters": parameters}
    recorded = RunWriter(folder, described, defaults=setting_defaults()) if main else nullcontext()
    with interrupted_run(folder), recorded as writer:
        if writer is not None:
            print(f"{folder}: student of {parameters:,} parameters, {len(train):,} training examples", flush=True)
            if checkpoint is not None:
                print(f"{folder}: resuming from {checkpoint}", flush=True)
            writer.drop_after(start)
        trainer = build_trainer(settings.probe, training, parts, train, validation, writer, config, start=start)
        with without_bars():
            trainer.train(resume_from_checkpoint=checkpoint)
        step = trainer.state.global_step
        save_student(trainer, parts, folder / "model", model_card(config, {}, parameters=parameters, step=step))

        def rewrite_card(metrics: dict[str, float]) -> None:
            card = model_card(config, metrics, parameters=parameters, step=step, split=settings.evaluation.eval_split)
            replace_file(folder / "model" / "README.md", card.encode())

        with whole(parts.student):  # all processes help to gather a sharded student; the first decodes with it
            if writer is None:
                return {}
            metrics = score_run(settings.evaluation, training, parts, writer, step=step, scored=rewrite_card)
    del lock
    return metrics


def _discard(folder: Path) -> None:
    """Remove a run's records, checkpoints, model and evaluation from ``folder``, but no other files."""
    from kvar.distill.trainer.checkpoints import clean_folder

    for name in ("model", ".model.saving", "tensorboard", *TABLES):
        shutil.rmtree(folder / name, ignore_errors=True)
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    clean_folder(folder)
    for name in (EVALUATION, CONFIG):
        (folder / name).unlink(missing_ok=True)
