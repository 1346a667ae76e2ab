"""What the probe of the trainer's own batch adds: every second step of one training is measured and logged."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any

from transformers import PrinterCallback

import kvar
from benchmarks import training_against as against
from benchmarks import training_probe as probes
from benchmarks import training_setup as setup

ESTIMATORS: dict[str, Any] = {"default": None, "six kernels": probes.KERNELS}
TRL = "GPT-2 0.9 M, teacher 3 M"


def run(rounds: int) -> list[dict[str, Any]]:
    """One entry a pair, trainer and choice of estimators, see :func:`_measured`; a round is two steps."""
    steps = 2 * rounds
    out = []
    for pair, (student, teacher) in probes.PAIRS.items():
        train = partial(setup.kvar_steps, student(), teacher(), steps, objective="ketchup")
        out += [_measured(pair, "kvar ketchup", name, train) for name in ESTIMATORS]
    student, teacher = probes.PAIRS[TRL]
    train = partial(against.trl_distillation, student(), teacher(), steps)
    return [*out, _measured(TRL, "TRL DistillationTrainer", "default", train)]


def _measured(pair: str, trainer: str, estimators: str, train: Any) -> dict[str, Any]:
    """(CPU, wall) seconds of alternate steps, "plain" and "probed" ones, after a first probed step."""
    print(f"batch probe, {pair}, {trainer}: {estimators}", file=sys.stderr, flush=True)
    attached = []

    def attach(trainer: Any) -> None:
        trainer.remove_callback(PrinterCallback)
        attached.append(kvar.watch(trainer, estimators=ESTIMATORS[estimators], every=2))

    seconds = train(prepare=attach)[0]
    return {
        "pair": pair,
        "trainer": trainer,
        "estimators": estimators,
        "count": len(attached[0].measurements[0].moments.names),
        "plain": seconds[::2],
        "probed": seconds[1::2],
        "load": round(os.getloadavg()[0], 2),
    }
