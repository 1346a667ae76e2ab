"""Moments of the language-model head, without a backward pass: theory.md (14) at the output layer.

With H the head's inputs and y the sampled tokens, the gradient of sum_t w_t log pi(y_t | s_t) with respect to the
logits of position t is w_t (onehot(y_t) - pi_t). So with A = H H^T (inputs) and S the same product of the rows
onehot(y_t) - pi_t, every estimator and every pair of estimators is a weighted sum over one array:

    <g_i^e, g_j^f> = sum_{t,s} w_it^e w_js^f (A o S)_{it,js}

where S = 1[y_t = y_s] - pi_t(y_s) - pi_s(y_t) + pi_t . pi_s. Exact terms of theory.md (23) are T more rows for each
reward, pi_t o (c_t - pi_t . c_t) with c_t = u(x_t, .), with their own scales.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kvar.estimators.terms import Terms
from kvar.gradients.cotangents import exact_rows
from kvar.gradients.moments import GroupMoments
from kvar.gradients.products.blocks import Groups, slices
from kvar.gradients.products.token_gram import token_gram

__all__ = ["kernel_of_scores", "output_layer_moments", "output_layer_pairs"]

_CAP = 2**19
"""Most logits processed together if no sum over trajectories is needed; they fit a processor's cache."""


@torch.no_grad()
def output_layer_moments(
    hidden: Tensor,
    logits: Tensor,
    tokens: Tensor,
    mask: Tensor,
    weights: Tensor | Terms,
    prompt_index: Tensor,
    *,
    bias: bool = False,
) -> GroupMoments:
    """All fields for the head's weight, from the inputs and outputs of the head in a forward pass.

    Of a weight tied to the input embedding only the use in the head is covered.

    Args:
        hidden: (N, T, p), the head's inputs that gave ``logits`` (after any scaling, as in tied T5).
        logits: (N, T, V), logits[:, t] scored tokens[:, t].
        tokens: (N, T) int64.
        mask: (N, T) bool.
        weights: (E, N, T) token weights; or the terms of E estimators on these N trajectories, exact sums included.
        prompt_index: (N,) int64.
        bias: include the head's bias in the group.

    Returns:
        The moments, float64 on the CPU; ``score_power`` included.

    Raises:
        ValueError: shapes that do not fit together.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> hidden, head = torch.randn(2, 3, 4, generator=g), torch.randn(5, 4, generator=g)
        >>> tokens, mask = torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()
        >>> weights = torch.ones(1, 2, 3)
        >>> out = output_layer_moments(hidden, hidden @ head.T, tokens, mask, weights, torch.tensor([0, 1]))
        >>> tuple(out.pair.shape), bool(torch.allclose(out.sq_norm, out.pair[0]))
        ((1, 1, 2), True)
    """
    _check(hidden, logits, tokens, mask, weights, prompt_index)
    n, t = tokens.shape
    rows, residual, w, keep = _rows(hidden, logits, tokens, mask, weights, slice(None))
    kernel = kernel_of_scores(rows, residual, bias)
    left = w.transpose(0, 1)  # (N, E, T)
    pair = torch.bmm(torch.bmm(left, kernel), left.mT).permute(1, 2, 0).double()

    tokens_of = rows.flatten(0, 1), residual.flatten(0, 1), w.flatten(1) / n
    if bool(keep.all()):
        aligned = _aligned(*tokens_of, bias)
    else:
        some = keep.reshape(-1)
        few = _aligned(tokens_of[0][some], tokens_of[1][some], tokens_of[2][:, some], bias)
        aligned = w.new_zeros(len(w), len(some)).masked_scatter_(some.expand(len(w), -1), few)
    cross = torch.einsum("ent,fnt->efn", w, aligned.view_as(w)).double()
    mean_pair = cross.mean(dim=2)

    _, labels = prompt_index.unique(return_inverse=True)
    sizes = torch.bincount(labels)
    if len(sizes) == n:
        prompt_pair = torch.empty_like(pair)
        prompt_pair[..., labels] = pair
    else:
        groups = Groups(labels)
        together = kernel_of_scores(rows[groups.index].flatten(1, 2), residual[groups.index].flatten(1, 2), bias)
        by_prompt = torch.where(groups.valid[:, :, None], w[:, groups.index], 0).flatten(2).transpose(0, 1)
        prompt_pair = torch.bmm(torch.bmm(by_prompt, together), by_prompt.mT).permute(1, 2, 0).double()
        prompt_pair = prompt_pair / sizes.double() ** 2
    power = kernel.diagonal(dim1=1, dim2=2)[:, :t].masked_fill(~mask, 0.0).sum(dim=1, dtype=torch.float64)
    fields = (mean_pair, cross, pair, prompt_pair, power)
    return GroupMoments.of_products(*(value.cpu() for value in fields))


@torch.no_grad()
def output_layer_pairs(
    hidden: Tensor, logits: Tensor, tokens: Tensor, mask: Tensor, weights: Tensor | Terms, *, bias: bool = False
) -> Tensor:
    """(E, E, N): <g_i^e, g_i^f> at the head, all pairs of estimators, for a probe at every step.

    The field ``pair`` of :func:`output_layer_moments` alone (its diagonal is ``sq_norm``), a few trajectories at a
    time. Means over trajectories are what the other fields cost: a Gram of all tokens instead of one per trajectory.

    Arguments and errors are those of :func:`output_layer_moments`.

    Returns:
        Float64 on the CPU.
    """
    _check(hidden, logits, tokens, mask, weights, torch.arange(len(tokens)))
    pairs = []
    for some in slices(len(tokens), logits[0].numel(), _CAP):
        rows, residual, w, _ = _rows(hidden, logits, tokens, mask, weights, some)
        left = w.transpose(0, 1)
        pairs.append(torch.bmm(torch.bmm(left, kernel_of_scores(rows, residual, bias)), left.mT))
    return torch.cat(pairs).permute(1, 2, 0).double().cpu()


def _rows(
    hidden: Tensor, logits: Tensor, tokens: Tensor, mask: Tensor, weights: Tensor | Terms, some: slice
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Some trajectories as rows: inputs, minus cotangents, scales, and a mask of rows that are not padding.

    The first T rows of a trajectory are its tokens' pi_t - onehot(y_t), followed by T for each reward with exact terms;
    the sign has no effect on inner products.
    """
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    rows, keep, actions = hidden[some].to(wide), mask[some], logits[some].to(wide)
    pi = actions.softmax(dim=-1)
    token_weights = weights.weights if isinstance(weights, Terms) else weights
    w = token_weights[:, some].to(wide).masked_fill(~keep, 0.0)
    exact: list[tuple[Tensor, Tensor]] = []
    if isinstance(weights, Terms) and weights.exact:
        numbers = torch.arange(len(tokens), device=tokens.device)[some]
        exact = exact_rows(weights, numbers, actions, pi, keep)
    residual = pi.scatter_add_(-1, tokens[some][..., None], pi.new_full((*keep.shape, 1), -1.0))
    if exact:
        residual = torch.cat([residual, *(flow.neg_() for flow, _ in exact)], dim=1)
        w = torch.cat([w, *(scales for _, scales in exact)], dim=-1)
        rows, keep = rows.repeat(1, 1 + len(exact), 1), keep.repeat(1, 1 + len(exact))
    return rows, residual, w, keep


def _aligned(rows: Tensor, residual: Tensor, scaled: Tensor, bias: bool) -> Tensor:
    """(E, R): <score_r, sum_s scaled^e_s score_s> for R tokens, by Grams or through the (V, p) sums."""
    count, p, v, e = *rows.shape, residual.shape[1], len(scaled)
    if count * (v + p) > 4 * e * v * p:
        out = scaled.new_zeros(e, count)
        for f, one in enumerate(scaled):
            matrix = residual.T @ (rows * one[:, None])
            out[f] = ((rows @ matrix.T) * residual).sum(dim=1)
            if bias:
                out[f] += residual @ (one @ residual)
        return out
    return token_gram(rows, residual, scaled, bias)


def kernel_of_scores(rows: Tensor, residual: Tensor, bias: bool) -> Tensor:
    """(G, T, T): A o S, inner products of the tokens' scores."""
    gram = torch.bmm(rows, rows.mT)
    return (gram + 1 if bias else gram) * _symmetric(residual)


def _symmetric(x: Tensor) -> Tensor:
    """(G, T, T): x x^T of (G, T, V), of whose two equal quarters one is multiplied."""
    half = x.shape[1] // 2
    first, second = x[:, :half], x[:, half:]
    left, corner = torch.bmm(x, first.mT), torch.bmm(second, second.mT)
    return torch.cat([left, torch.cat([left[:, half:].mT, corner], dim=1)], dim=2)


def _check(
    hidden: Tensor, logits: Tensor, tokens: Tensor, mask: Tensor, weights: Tensor | Terms, prompt_index: Tensor
) -> None:
    n, t = tokens.shape
    weights = weights.weights if isinstance(weights, Terms) else weights
    for name, value, head, axes in (
        ("hidden", hidden, (n, t), 3),
        ("logits", logits, (n, t), 3),
        ("mask", mask, (n, t), 2),
        ("prompt_index", prompt_index, (n,), 1),
    ):
        if value.dim() != axes or tuple(value.shape[: len(head)]) != head:
            raise ValueError(
                f"{name} must begin with shape {head}, of {axes} axes, beside these tokens; got {tuple(value.shape)}."
            )
    if weights.dim() != 3 or tuple(weights.shape[1:]) != (n, t):
        raise ValueError(f"weights must have shape (E, N, T) = (E, {n}, {t}); got {tuple(weights.shape)}.")
