"""What the probes add to training time: the full one every 50 steps, the output layer's at every step."""

from __future__ import annotations

import sys
from typing import Any

from benchmarks import training_setup as setup
from kvar.hooks import GradientProbe, OutputLayerProbe
from kvar.returns import Geometric, Immediate, KStep

KERNELS = (KStep(1), KStep(2), KStep(4), KStep(8), Immediate(), Geometric(0.95))
EVERY, STEPS, ROLLOUTS = 50, 3, 4
PAIRS = {
    "T5 0.9 M, teacher 3 M": (lambda: setup.t5("0.9 M"), lambda: setup.t5("3 M", 1)),
    "T5 9.9 M, teacher 9.9 M": (lambda: setup.t5("9.9 M"), lambda: setup.t5("9.9 M", 1)),
    "GPT-2 0.9 M, teacher 3 M": (lambda: setup.gpt2("0.9 M"), lambda: setup.gpt2("3 M", 1)),
}


class _Clocked(OutputLayerProbe):
    """The probe, with (CPU, wall) seconds of every measurement."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seconds: list[tuple[float, float]] = []

    def on_rollouts(self, *args: Any, **kwargs: Any) -> None:
        """Measure under the clocks."""
        self.seconds.append(setup.timed(lambda: OutputLayerProbe.on_rollouts(self, *args, **kwargs)))


def run(rounds: int) -> list[dict[str, Any]]:
    """One entry a pair: seconds of steps without and with the output-layer probe, of it alone, and of full probes."""
    return [_pair(name, student(), teacher(), rounds) for name, (student, teacher) in PAIRS.items()]


def _pair(name: str, student: Any, teacher: Any, rounds: int) -> dict[str, Any]:
    plain: list[list[tuple[float, float]]] = []
    watched: list[list[tuple[float, float]]] = []
    output_layer: dict[str, list[tuple[float, float]]] = {"norms": [], "means": []}
    full: list[tuple[float, float]] = []
    prompts = tuple(x[: setup.BATCH // ROLLOUTS] for x in setup.batch())
    for i in range(rounds):
        print(f"probes, {name}: round {i + 1} of {rounds}", file=sys.stderr, flush=True)
        plain.append(setup.kvar_steps(student, teacher, STEPS, objective="ketchup")[0])
        probe = _Clocked(KERNELS, vocabulary=setup.VOCABULARY)
        watched.append(setup.kvar_steps(student, teacher, STEPS, callbacks=[probe], objective="ketchup")[0])
        for seconds, found in zip(probe.seconds, probe.measurements, strict=True):
            output_layer["norms" if found.inner is None else "means"].append(seconds)
        whole = GradientProbe(
            prompts, KERNELS, teacher=teacher, rollouts_per_prompt=ROLLOUTS, max_new_tokens=setup.TOKENS,
            tokenizer=setup.tokenizer(), vocabulary=setup.VOCABULARY, engine="one-pass",
        )  # fmt: skip
        full.append(setup.timed(lambda whole=whole, i=i: whole.measure(student, i)))
        student.zero_grad()
    return {
        "pair": name,
        "plain": plain,
        "watched": watched,
        "output_layer": output_layer,
        "full": full,
        "means_every": probe.means_every,
    }
