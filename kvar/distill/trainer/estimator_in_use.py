"""``EstimatorInUse``: a trainer whose estimator may change between two steps, and is saved with each checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvar.distill.adaptive import is_adaptive, with_estimator
from kvar.distill.trainer.checkpoints import WholeCheckpoints

if TYPE_CHECKING:
    from kvar.distill.config import DistillationConfig

__all__ = ["EstimatorInUse", "saved_estimator"]

ESTIMATOR_FILE = "kvar_estimator.json"


def saved_estimator(checkpoint: Path) -> str:
    """Name of the estimator that an adaptive training used when it saved a checkpoint.

    Raises:
        ValueError: the checkpoint holds none.
    """
    try:
        return str(json.loads((checkpoint / ESTIMATOR_FILE).read_text(encoding="utf-8"))["estimator"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(
            f"checkpoint {checkpoint} does not say which estimator was in use ({ESTIMATOR_FILE}), which a training "
            "with estimator auto goes on with: resume from a checkpoint of such a training, or start anew."
        ) from None


class EstimatorInUse(WholeCheckpoints):
    """A Trainer that knows which estimator its next step is taken by.

    With ``estimator: auto`` that is ``auto_start`` until a callback calls :meth:`use_estimator`; ``args`` stay as they
    are. A callback that does so has an attribute ``chooses_estimator`` that is true.
    """

    args: DistillationConfig
    _settings: DistillationConfig | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if is_adaptive(self.args):
            self.checkpoint_hooks.append(self._save_estimator)

    @property
    def settings(self) -> DistillationConfig:
        """The settings of the next step: ``args``, with the estimator in use in place of ``auto``."""
        if not is_adaptive(self.args):
            return self.args
        if self._settings is None:
            self._settings = with_estimator(self.args, self.args.auto_start)
        return self._settings

    @property
    def estimator(self) -> str | None:
        """Name of the estimator of the next step; None for objectives that do not follow one."""
        return self.settings.estimator

    def use_estimator(self, name: str) -> None:
        """Take the next steps by an estimator.

        Raises:
            ValueError: the training is not adaptive, or no such estimator.
        """
        from kvar.distill.objectives.on_policy.policy_gradient import named_estimator

        if not is_adaptive(self.args):
            raise ValueError(f"estimator is {self.args.estimator!r} in this training: set estimator auto to change it.")
        settings = with_estimator(self.args, name)
        named_estimator(settings)
        self._settings = settings

    def begin(self, checkpoint: Path | None) -> None:
        """Go on with a checkpoint's estimator, or begin with ``auto_start``.

        Raises:
            ValueError: nothing chooses the estimator, or the checkpoint does not say which was in use.
        """
        super().begin(checkpoint)
        if not is_adaptive(self.args):
            return
        if not any(getattr(callback, "chooses_estimator", False) for callback in self.callback_handler.callbacks):
            raise ValueError(
                "estimator is auto, but nothing chooses: add kvar.hooks.AutoEstimator(trainer, probe), or name an "
                "estimator."
            )
        self.use_estimator(self.args.auto_start if checkpoint is None else saved_estimator(checkpoint))

    def _save_estimator(self, folder: Path) -> None:
        (folder / ESTIMATOR_FILE).write_text(json.dumps({"estimator": self.estimator}) + "\n", encoding="utf-8")
