"""A training that is stopped in the middle, as by a signal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from transformers import TrainerCallback

from kvar.distill import DistillationTrainer

__all__ = ["killed"]


class KilledError(Exception):
    pass


@contextmanager
def killed(event: str, step: int) -> Iterator[None]:
    """The training in the block ends by an exception at a trainer's event, "on_step_end" for instance, of a step."""

    def stop(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == step:
            raise KilledError

    callback = type("Stop", (TrainerCallback,), {event: stop})()
    init = DistillationTrainer.__init__

    def with_stop(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **{**kwargs, "callbacks": [*kwargs["callbacks"], callback]})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DistillationTrainer, "__init__", with_stop)
        with pytest.raises(KilledError):
            yield
