"""The smallest token MDPs in which a larger K, or an exact sum, has more variance."""

from __future__ import annotations

import math
from typing import Literal

import torch

from kvar.analysis.exact.mdp import TokenMDP

__all__ = ["exact_raising_mdp", "variance_raising_mdp"]


def variance_raising_mdp(terminal: Literal["anchored", "free"] = "anchored") -> TokenMDP:
    """An MDP of two tokens where K = 2 has more variance than K = 1, in absolute terms and relative to |E g|^2.

    Tokens "go on" and "end". At the first state the student goes on with probability 1/4, and q is 1 for going on, -1
    for ending, so that under K = 2 the two outcomes' gradients are 3/4 and 1/4 of one vector. At the second state the
    student (almost) always goes on, at a gap of 2/3: K = 1 subtracts it from the first return, both outcomes give
    nearly 1/4 of that vector, and the variance all but vanishes. K = 2 skips that gap.

    It is the smallest of its kind. With responses of one token every K gives the same estimator, so the free comb needs
    two tokens (3 responses); anchored, T is always in I_K(t), so responses of two tokens do not tell K = 1 from K = 2
    either, and three are needed (4 responses).

    Args:
        terminal: the comb's end, as in :class:`kvar.returns.KStep`.

    Returns:
        An MDP of horizon 2 ("free") or 3 ("anchored").

    Raises:
        ValueError: another terminal.

    Example:
        >>> from kvar.returns import KStep
        >>> mdp = variance_raising_mdp("free")
        >>> [round(mdp.exact(KStep(k, "free")).trace, 4) for k in (1, 2)]
        [0.0001, 0.0938]
    """
    if terminal not in ("anchored", "free"):
        raise ValueError(f"terminal must be 'anchored' or 'free'; got {terminal!r}.")
    teacher = [[1.0, -1.0], [-1 / 3, 1 / 3], [0.0, 0.0]]
    student = [[0.0, math.log(3.0)], [8.0, 0.0], [0.0, 8.0]]
    horizon = 2 if terminal == "free" else 3
    mdp = TokenMDP(vocabulary=2, horizon=horizon)
    mdp.teacher = torch.tensor(teacher[:horizon], dtype=torch.float64)
    with torch.no_grad():
        mdp.student.table.weight.copy_(torch.tensor(student[:horizon], dtype=torch.float64))
    return mdp


def exact_raising_mdp(kernel: Literal["immediate", "K=1"] = "immediate") -> TokenMDP:
    """An MDP of two tokens where the exact immediate term of reverse KL has more variance than the sampled one.

    "immediate": the student's table has one row for all positions behind the first (horizon 3). The noise that the
    sampled reward of the second token brings into that row is anti-aligned with the exact term of the third, so that it
    cancels part of it; without that noise the third term stands alone. With responses of at most two tokens no row is
    shared, and exact sums cannot raise the variance.

    "K=1": a row for every prefix, horizon 2. Going on gains 2 now and loses 4 later, ending loses 2: sampled, the
    return is nearly the same for both tokens; with the reward's part exact, the future's noise stands alone. With
    one token there is no future.

    Args:
        kernel: which.

    Returns:
        The MDP.

    Raises:
        ValueError: another kernel.

    Example:
        >>> from kvar.estimators import parse_estimators
        >>> mdp = exact_raising_mdp("immediate")
        >>> [round(mdp.exact(e).trace, 4) for e in parse_estimators("kl immediate, kl immediate exact")]
        [0.0196, 0.3382]
    """
    if kernel not in ("immediate", "K=1"):
        raise ValueError(f"kernel must be 'immediate' or 'K=1'; got {kernel!r}.")
    shared = kernel == "immediate"
    teacher = [[2.0, 0.0], [-3.0, 0.0], [4.0, 0.0]] if shared else [[2.0, 0.0], [5.0, 0.0]]
    student = [[-1.0, 0.0], [2.0, 0.0]] if shared else [[-2.0, 0.0], [-2.0, 0.0]]
    mdp = TokenMDP(vocabulary=2, horizon=3 if shared else 2, state="last-token" if shared else "prefix")
    mdp.teacher = torch.tensor(teacher, dtype=torch.float64)
    with torch.no_grad():
        mdp.student.table.weight.copy_(torch.tensor(student, dtype=torch.float64))
    return mdp
