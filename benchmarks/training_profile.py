"""Where a training step's time goes, and how far each part is from what its matrix products alone would take."""

from __future__ import annotations

import sys
from typing import Any

import torch

from benchmarks import training_setup as setup
from kvar.returns import KStep, returns
from kvar.rollouts import log_probs, score

PAIRS = {
    "T5 0.9 M, teacher 3 M": (lambda: setup.t5("0.9 M"), lambda: setup.t5("3 M", 1)),
    "T5 9.9 M, teacher 9.9 M": (lambda: setup.t5("9.9 M"), lambda: setup.t5("9.9 M", 1)),
    "GPT-2 0.9 M, teacher 3 M": (lambda: setup.gpt2("0.9 M"), lambda: setup.gpt2("3 M", 1)),
}


def run(rounds: int) -> list[dict[str, Any]]:
    """One entry a pair: (CPU, wall) seconds of every part in every round, its operations, and the machine's rate."""
    return [_pair(name, student(), teacher(), rounds) for name, (student, teacher) in PAIRS.items()]


def _pair(name: str, student: Any, teacher: Any, rounds: int) -> dict[str, Any]:
    print(f"profile: {name}", file=sys.stderr, flush=True)
    rollouts = setup.draw(student)
    advantages = returns(score(teacher, rollouts), rollouts.mask, [KStep(4)])[0]
    held: list[torch.Tensor] = []

    def forward() -> None:
        held.append(-(log_probs(student, rollouts, vocabulary=setup.VOCABULARY) * advantages).sum())

    def backward() -> None:
        held.pop().backward()

    parts = {
        "generation": lambda: setup.draw(student, seed=len(seconds["step"])),
        "teacher": lambda: score(teacher, rollouts, vocabulary=setup.VOCABULARY),
        "forward": forward,
        "backward": backward,
    }
    seconds: dict[str, list[tuple[float, float]]] = {part: [] for part in ("step", *parts)}
    operations = {part: setup.flops(work) for part, work in parts.items()}
    rates, tokens = [], 0.0
    for _ in range(rounds):
        rates.append(setup.matmul_rate())
        steps, tokens = setup.kvar_steps(student, teacher, 1, objective="ketchup", kernel="K=4")
        seconds["step"] += steps
        student.train()
        for part, work in parts.items():
            seconds[part].append(setup.timed(work))
        student.zero_grad()
    return {"pair": name, "seconds": seconds, "flops": operations, "matmul_rate": max(rates), "tokens": tokens}
