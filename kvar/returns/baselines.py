"""Baselines b subtracted from returns G before they weigh the scores s_t, theory.md section 3.

With A_t = G_t - b the estimate g = sum_t A_t s_t keeps its mean whenever b, given the state s_t, does not depend on the
action y_t or on what follows it, since E[s_t | state] = 0. Each function says whether that is so. "Biased by O(1/N)"
means that a row's own return enters its baseline; the bias vanishes as the number N of trajectories grows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kvar.returns.masks import check_mask
from kvar.returns.values import TokenValues

__all__ = ["batch_mean", "leave_one_out", "minimum_variance", "position_mean", "teacher_value"]


def teacher_value(values: TokenValues) -> Tensor:
    """The state's value V_t, which eq. (4) holds already: A_t = -sum_j w_j gap_{t+j}.

    E[g] is exactly unchanged, since V_t depends on the state only. It costs nothing, but need not reduce the variance:
    the gaps' mean stays uncentred.

    Args:
        values: of N responses of T tokens.

    Returns:
        (N, T), ``values.v``.
    """
    return values.v


def batch_mean(returns: Tensor, mask: Tensor) -> Tensor:
    """One number a kernel: the mean return over all unmasked tokens of the batch.

    Biases E[g] by O(1/N): a row's own returns, and its length, enter the mean.

    Args:
        returns: (E, N, T).
        mask: (N, T), true on response tokens.

    Returns:
        (E, 1, 1); 0 for a batch without tokens.
    """
    keep = _checked(returns, mask)
    total = returns.masked_fill(~keep, 0.0).sum(dim=(1, 2), keepdim=True)
    return total / keep.sum().clamp(min=1)


def position_mean(returns: Tensor, mask: Tensor) -> Tensor:
    """One number a kernel and position: the mean over the n_t trajectories that have a t-th token.

    Biases E[g] by O(1/N): a row's own return has weight 1/n_t in it. For independent trajectories position t's part of
    g shrinks by exactly 1 - 1/n_t, given n_t, and is lost where n_t = 1.

    Args:
        returns: (E, N, T).
        mask: (N, T), true on response tokens.

    Returns:
        (E, 1, T); 0 at positions that no trajectory reaches.
    """
    keep = _checked(returns, mask)
    total = returns.masked_fill(~keep, 0.0).sum(dim=1, keepdim=True)
    return total / keep.sum(dim=0).clamp(min=1)


def leave_one_out(returns: Tensor, mask: Tensor, prompt_index: Tensor) -> Tensor:
    """The mean return of the *other* rollouts of the same prompt, at the same position (RLOO, by position).

    Where none of them has a t-th token: the mean over all their tokens. Where there are none, or only empty ones: 0.
    E[g] is exactly unchanged: rollouts of a prompt are independent given it, so every one of these three numbers, and
    the choice among them, depends on the prompt, the position and the other rollouts, never on the row's own actions.

    Args:
        returns: (E, N, T).
        mask: (N, T), true on response tokens.
        prompt_index: (N,) integers, equal for rollouts of one prompt.

    Returns:
        (E, N, T).

    Raises:
        ValueError: prompt_index not of shape (N,), or no prompt with two rollouts.
    """
    keep = _checked(returns, mask)
    if prompt_index.shape != keep.shape[:1]:
        raise ValueError(
            f"prompt_index must have shape (N,) = {tuple(keep.shape[:1])}; got {tuple(prompt_index.shape)}."
        )
    prompts, row_prompt = prompt_index.to(returns.device).unique(return_inverse=True)
    n = keep.shape[0]
    if n and len(prompts) == n:
        raise ValueError("baseline 'leave-one-out' needs two or more rollouts of a prompt; every prompt here has one.")

    def others(x: Tensor) -> Tensor:  # (B, N, T) -> for every row the sum over its prompt's other rows
        groups = x.new_zeros((x.shape[0], len(prompts), x.shape[2])).index_add(1, row_prompt, x)
        return groups[:, row_prompt] - x

    kept = returns.masked_fill(~keep, 0.0)
    total = others(kept.double())
    count = others(keep[None].double())
    anywhere = total.sum(dim=2, keepdim=True) / count.sum(dim=2, keepdim=True).clamp(min=1)
    return torch.where(count > 0, total / count.clamp(min=1), anywhere).to(returns.dtype)


def minimum_variance(returns: Tensor, sq_score_norm: Tensor, mask: Tensor) -> Tensor:
    """The scalar b = E[G |s|^2] / E[|s|^2] a kernel (Greensmith, Bartlett and Baxter 2004).

    It minimises E sum_t (G_t - b)^2 |s_t|^2: the variance of g for one-token responses, and its diagonal part, without
    the cross terms <s_t, s_u>, for longer ones. A constant leaves E[g] exactly unchanged; estimated on the very
    batch that it is subtracted from it biases E[g] by O(1/N), as ``batch_mean`` does.

    Args:
        returns: (E, N, T).
        sq_score_norm: (N, T), |s_t|^2 = |grad log pi(y_t | s_t)|^2; what padding holds does not matter.
        mask: (N, T), true on response tokens.

    Returns:
        (E,); 0 where every score norm is 0.

    Raises:
        ValueError: shapes that disagree.

    Examples:
        >>> import torch
        >>> returns = torch.tensor([[[1.0, 3.0]]])
        >>> minimum_variance(returns, torch.tensor([[1.0, 3.0]]), torch.ones(1, 2)).tolist()
        [2.5]
    """
    keep = _checked(returns, mask)
    if sq_score_norm.shape != keep.shape:
        raise ValueError(
            f"sq_score_norm must have shape (N, T) = {tuple(keep.shape)}; got {tuple(sq_score_norm.shape)}."
        )
    power = sq_score_norm.masked_fill(~keep, 0.0).to(returns.dtype)
    weighted = (returns.masked_fill(~keep, 0.0) * power).sum(dim=(1, 2))
    total = power.sum()
    return torch.where(total > 0, weighted / torch.where(total > 0, total, 1.0), 0.0)


def _checked(returns: Tensor, mask: Tensor) -> Tensor:
    """The mask as bool, its shape and the returns' checked."""
    if returns.dim() != 3 or returns.shape[1:] != mask.shape:
        raise ValueError(
            f"returns must have shape (E, N, T) with (N, T) = {tuple(mask.shape)}; got {tuple(returns.shape)}."
        )
    return check_mask(mask)
