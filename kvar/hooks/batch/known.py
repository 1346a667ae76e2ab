"""The batches that are known, by trainer."""

from __future__ import annotations

from typing import Any

from kvar.hooks.batch.distill import DistillBatch
from kvar.hooks.batch.divergence import DivergenceBatch
from kvar.hooks.batch.gkd import GKDBatch, IWOPDBatch
from kvar.hooks.batch.grpo import GRPOBatch
from kvar.hooks.batch.kind import BatchKind
from kvar.hooks.batch.rloo import RLOOBatch
from kvar.hooks.batch.self_distillation import SDFTBatch, SDPOBatch

__all__ = ["KINDS", "kind_of"]

KINDS: tuple[BatchKind, ...] = (
    GRPOBatch(),
    RLOOBatch(),
    DivergenceBatch(),
    GKDBatch(),
    IWOPDBatch(),
    SDFTBatch(),
    SDPOBatch(),
    DistillBatch(),
)


def kind_of(trainer: Any) -> BatchKind:
    """The kind of a trainer's batches, by the names of its class and those it derives from.

    Raises:
        TypeError: a trainer whose batches are not known.
    """
    for base in type(trainer).__mro__:
        for kind in KINDS:
            if base.__name__ in kind.trainers and base.__module__.split(".")[0] == kind.package:
                return kind
    names = ", ".join(name for kind in KINDS for name in kind.trainers if kind.package == "trl")
    raise TypeError(
        f"BatchProbe does not know the batches of {type(trainer).__name__} but those of TRL's {names}, and kvar's "
        "DistillationTrainer: measure fresh rollouts of a fixed set of prompts with GradientProbe, which joins any "
        "trainer."
    )
