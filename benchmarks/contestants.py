"""Who is measured: a name -> a function of the case that returns the job to be timed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from benchmarks.cases import Case
from kvar.gradients import gradient_moments
from kvar.gradients.output_layer.head_moments import output_layer_moments, output_layer_pairs
from kvar.rollouts import token_logits

Job = Callable[[], object]

JVP_DIRECTIONS = 4
"""Random directions in one run of the forward-mode engine; its cost is linear in them, its error sqrt(2 / D)."""
LOOP_ROWS = 4
"""Trajectories in one run of the loop, whose cost is linear in them."""


def plain(case: Case) -> Job:
    """Forward and backward of one estimator: the unit of all ratios."""

    def step() -> None:
        case.student.zero_grad(set_to_none=True)
        scalar(case, case.weights[0]).backward()

    return step


def scalar(case: Case, weights: Tensor) -> Tensor:
    """sum_{i,t} w_it log pi(y_it | s_it)."""
    log_probs = token_logits(case.student, case.rollouts).log_softmax(dim=-1)
    return (weights * log_probs.gather(2, case.rollouts.tokens[..., None])[..., 0]).sum()


def one_pass(case: Case, fields: Literal["all", "norms"]) -> Job:
    """Every estimator, every parameter."""
    return partial(gradient_moments, case.student, case.rollouts, case.weights, fields=fields)


def loop(case: Case, fields: Literal["all", "norms"]) -> Job:
    """The first trajectories one by one."""
    few = case.rows(LOOP_ROWS)
    return partial(gradient_moments, few.student, few.rollouts, few.weights, engine="loop", fields=fields)


def jvp(case: Case) -> Job | None:
    """Projections of every token's score on random directions; None before the engine is registered."""
    try:
        module = importlib.import_module("kvar.gradients.forward_mode.engine")
    except ImportError:
        return None
    return partial(module.score_projections, case.student, case.rollouts, directions=JVP_DIRECTIONS)


def output_layer(case: Case, fields: Literal["all", "pairs"]) -> Job:
    """On top of a forward pass that has been done anyway."""
    seen: list[Tensor] = []
    head = case.student.head if case.kind == "untied" else case.student.lm_head
    with torch.no_grad():
        hook = head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        logits = token_logits(case.student, case.rollouts)
        hook.remove()
    data, t = case.rollouts, case.rollouts.tokens.shape[1]
    first = data.prompt_ids.shape[1] - 1 if case.kind == "untied" else 0  # transformers compute no others
    hidden = seen[0][:, first : first + t]
    if fields == "pairs":
        return partial(output_layer_pairs, hidden, logits, data.tokens, data.mask, case.weights)
    return partial(output_layer_moments, hidden, logits, data.tokens, data.mask, case.weights, data.prompt_index)


def peer(case: Case, module: str, function: str) -> Job | None:
    """A job of benchmarks.peers; None where the peer is not installed."""
    try:
        return getattr(importlib.import_module(f"benchmarks.peers.{module}"), function)(case)
    except ImportError:
        return None


CONTESTANTS: dict[str, Callable[[Case], Job | None]] = {
    "plain step": plain,
    "one-pass, norms": partial(one_pass, fields="norms"),
    "one-pass, all fields": partial(one_pass, fields="all"),
    "output layer, pairs": partial(output_layer, fields="pairs"),
    "output layer, all fields": partial(output_layer, fields="all"),
    "loop, norms": partial(loop, fields="norms"),
    "loop, all fields": partial(loop, fields="all"),
    "jvp": jvp,
    "torch.func vmap": partial(peer, module="vmap", function="norms"),
    "Opacus, per-sample": partial(peer, module="opacus", function="per_sample"),
    "Opacus, ghost norms": partial(peer, module="opacus", function="ghost"),
    "BackPACK, BatchGrad": partial(peer, module="backpack", function="batch_grad"),
    "BackPACK, BatchL2Grad": partial(peer, module="backpack", function="batch_l2"),
}
"""Peers do what a user would: one backward pass per estimator (six), and the norms of what it leaves per sample."""

SLOW = frozenset(
    {"jvp", "torch.func vmap"} | {name for name in CONTESTANTS if name.startswith(("loop", "Opacus", "BackPACK"))}
)
"""Measured fewer times."""


def scale(name: str, case: Case) -> float:
    """What a measured time is multiplied by."""
    return len(case.rollouts) / LOOP_ROWS if name.startswith("loop") else 1.0
