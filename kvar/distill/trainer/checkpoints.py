"""Checkpoints that are complete or absent, and that a run resumes from without a trace in its results."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import Trainer, TrainerCallback, __version__
from transformers.trainer_utils import sort_checkpoints

from kvar.distill.trainer import TESTED

__all__ = ["CheckpointError", "WholeCheckpoints", "clean_folder", "last_checkpoint", "step_of"]

STAGING = ".saving"
REMOVING = ".removing-"
UNLOGGED = "unlogged-{}.json"
LEANED_ON = (
    "_run_epoch", "_finalize_training", "_maybe_log_save_evaluate", "_get_output_dir", "_save_checkpoint",
    "_get_grad_norm", "_get_dataloader", "_get_train_sampler", "_get_eval_sampler", "get_batch_samples",
)  # fmt: skip
"""Methods of transformers' Trainer, most of them private, that kvar's overrides or calls."""
_NAME = re.compile(r"checkpoint-(\d+)")


class CheckpointError(OSError):
    """A checkpoint that could not be saved; earlier ones are unchanged."""


def last_checkpoint(folder: str | Path) -> Path | None:
    """The complete checkpoint of the most training steps in a run's folder, which need not exist; or None."""
    whole = [path for path in map(Path, sort_checkpoints(str(folder))) if _whole(path)]
    return whole[-1] if whole else None


def step_of(checkpoint: str | Path) -> int:
    """The training step in a checkpoint's name."""
    match = _NAME.fullmatch(Path(checkpoint).name)
    if match is None:
        raise ValueError(f"{checkpoint} is not a checkpoint: its name must be checkpoint-STEP.")
    return int(match[1])


def clean_folder(folder: str | Path) -> None:
    """Remove checkpoints that a killed process left half saved or half removed."""
    for path in (Path(folder) / STAGING, *Path(folder).glob(f"{REMOVING}*")):
        shutil.rmtree(path, ignore_errors=True)


def _whole(path: Path) -> bool:
    """Whether the trainer's state, which is written last, can be read."""
    try:
        return int(json.loads((path / "trainer_state.json").read_text())["global_step"]) == step_of(path)
    except (OSError, ValueError, KeyError):
        return False


def _sync(folder: Path) -> None:
    """Flush a folder's files to the disk."""
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove(path: Path) -> None:
    """Remove a checkpoint; readers see it whole or not at all."""
    doomed = path.with_name(REMOVING + path.name)
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _move(staged: Path, place: Path) -> None:
    _sync(staged)
    if place.exists():
        _remove(place)
    staged.rename(place)
    shutil.rmtree(staged.parent, ignore_errors=True)
    handle = os.open(place.parent, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def _disk_is_full(error: BaseException, folder: Path) -> bool:
    text = str(error)
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text:
        return True
    return "file write failed" in text or shutil.disk_usage(folder).free < 1 << 20


class WholeCheckpoints(Trainer):
    """A Trainer whose checkpoints get their names only when complete and on the disk.

    transformers writes a checkpoint under its final name, so a killed process or a full disk leaves a broken one. Here
    it is written into a hidden folder and renamed. Numbers gathered since the last log are saved with it, so that a
    resumed run logs the same numbers as an uninterrupted one.

    Attributes:
        checkpoint_hooks: called on the saving process with a checkpoint's folder before it is renamed.
    """

    _staging: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        missing = [name for name in LEANED_ON if not hasattr(Trainer, name)]
        if missing:
            raise RuntimeError(
                f"transformers {__version__} has no Trainer.{missing[0]}, which kvar's trainer overrides or calls: "
                f"install transformers {' to '.join(TESTED)}."
            )
        self.checkpoint_hooks: list[Callable[[Path], None]] = []
        super().__init__(*args, **kwargs)
        self._resumed_from: Path | None = None
        self._finished_epoch = False
        self.add_callback(_Restore(self))

    def train(
        self,
        resume_from_checkpoint: str | Path | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """As ``transformers.Trainer.train``; True resumes from the last complete checkpoint of ``output_dir``."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_checkpoint(str(self.args.output_dir))
            if resume_from_checkpoint is None:
                raise ValueError(f"no whole checkpoint in {self.args.output_dir}; train without resuming.")
        self._resumed_from = Path(resume_from_checkpoint) if resume_from_checkpoint else None
        self._finished_epoch = False
        self.begin(self._resumed_from)
        source = str(self._resumed_from) if self._resumed_from else None
        return super().train(source, trial, ignore_keys_for_eval)

    def begin(self, checkpoint: Path | None) -> None:
        """Called before a training, with the checkpoint that it resumes from."""

    def _run_epoch(self, **call: Any) -> None:  # type: ignore[override]
        """As transformers does, but a run resumed at its last step takes no more steps."""
        self._finish_epoch(
            call["model"], call["trial"], call["epoch"], call["ignore_keys_for_eval"], call["start_time"]
        )
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(**call)

    def _finalize_training(self, trial: Any, num_train_samples: int, start_time: float) -> Any:
        self._finish_epoch(self.model_wrapped, trial, int(self.state.epoch or 0), None, start_time)
        return super()._finalize_training(trial, num_train_samples, start_time)

    def _finish_epoch(self, model: nn.Module, trial: Any, epoch: int, ignore: Any, start_time: float) -> None:
        """Log and evaluate at the end of an epoch, once, if the checkpoint was saved just before."""
        if self._resumed_from is None or self._finished_epoch:
            return
        self._finished_epoch = True
        done = self.state.epoch or 0.0
        if self.state.global_step < self.state.max_steps and abs(done - round(done)) > 1e-6:
            return
        self.control = self.callback_handler.on_epoch_end(self.args, self.state, self.control)
        self.control.should_save = False
        self._maybe_log_save_evaluate(self._tr_loss, None, model, trial, epoch, ignore, start_time)

    def pending_logs(self) -> dict[str, Any]:
        """Numbers gathered since the last log, as JSON types, to save with a checkpoint."""
        return {}

    def restore_pending_logs(self, pending: dict[str, Any]) -> None:
        """Restore the numbers of :meth:`pending_logs`."""

    def _get_output_dir(self, trial: Any) -> str:
        return self._staging or super()._get_output_dir(trial)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(super()._get_output_dir(trial))
        staging, name = folder / STAGING, f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._staging = str(staging)
        try:
            super()._save_checkpoint(model, trial)
            self._save_unlogged(staging / name)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                self._place_best(folder, staging)
                for hook in self.checkpoint_hooks:
                    hook(staging / name)
                self.state.save_to_json(str(staging / name / "trainer_state.json"))
                _move(staging / name, folder / name)
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(staging, ignore_errors=True)
            raise CheckpointError(_message(error, folder, name)) from error
        finally:
            self._staging = None
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self._drop_old(folder)

    def _place_best(self, folder: Path, staging: Path) -> None:
        best = self.state.best_model_checkpoint
        if best is not None and Path(best).parent == staging:
            self.state.best_model_checkpoint = str(folder / Path(best).name)

    def _drop_old(self, folder: Path) -> None:
        """Remove the oldest beyond ``save_total_limit``, but not the last or the best."""
        limit, best = self.args.save_total_limit or 0, self.state.best_model_checkpoint
        best = str(folder / Path(best).name) if best else None  # the run's folder may have been moved
        paths = sort_checkpoints(str(folder), best_model_checkpoint=best)  # the best and the last come last
        kept = max(limit, 2 if best in paths[:-1] else 1)
        for path in paths[:-kept] if limit > 0 else []:
            _remove(Path(path))

    def _save_unlogged(self, folder: Path) -> None:
        numbers = {
            "loss": float(self._tr_loss),
            "total_loss": self._total_loss_scalar,
            "last_logged": self._globalstep_last_logged,
            "pending": self.pending_logs(),
        }
        (folder / UNLOGGED.format(self.args.process_index)).write_text(json.dumps(numbers))

    def _restore_unlogged(self) -> None:
        path = self._resumed_from and self._resumed_from / UNLOGGED.format(self.args.process_index)
        if path is None or not path.is_file():
            self.restore_pending_logs({})
            return
        numbers = json.loads(path.read_text())
        self._tr_loss = torch.tensor(numbers["loss"], device=self.args.device)
        self._total_loss_scalar = numbers["total_loss"]
        self._globalstep_last_logged = numbers["last_logged"]
        self.restore_pending_logs(numbers["pending"])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As transformers does, but ``train_loss`` is the mean over the whole run, before and after a resume."""
        if "train_loss" in logs and self._resumed_from is not None:
            logs = {**logs, "train_loss": self._total_loss_scalar / max(self.state.global_step, 1)}
        super().log(logs, start_time)


class _Restore(TrainerCallback):
    """Restores the unlogged numbers after transformers has set them to zero."""

    def __init__(self, trainer: WholeCheckpoints) -> None:
        self.trainer = trainer

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.trainer._restore_unlogged()


def _message(error: BaseException, folder: Path, name: str) -> str:
    last = last_checkpoint(folder)
    kept = f"{last.name} is complete and unchanged" if last else "there is no earlier one"
    full = _disk_is_full(error, folder)
    remedy = "The disk is full: free some space or lower save_total_limit" if full else "Fix the cause"
    cause = " ".join(str(error).split())
    return f"{folder / name} could not be saved ({cause}); {kept}. {remedy}, then run the same command again."
