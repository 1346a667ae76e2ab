"""Inner products of outer products of rows with weighted sums of them over all tokens, without the (d, p) sums.

<a_t (x) b_t, sum_s w_s^f a_s (x) b_s> = sum_s w_s^f (a_t . a_s)(b_t . b_s): one Gram of all tokens serves every
estimator, while writing out the sums takes a product for each.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["bilinear_forms", "token_gram"]

_ROWS = 256
"""Tokens in one block of a Gram."""


def token_gram(left: Tensor, right: Tensor, weights: Tensor, bias: bool = False) -> Tensor:
    """(E, R): <a_t (x) b_t, sum_s w_s^e a_s (x) b_s>, in blocks of tokens; R (R - 1) / 2 inner products on each side.

    Args:
        left: (R, p), the rows a.
        right: (R, d), the rows b.
        weights: (E, R).
        bias: append a one to every a (the gradient of a bias besides the matrix).

    Example:
        >>> left, right = torch.eye(2), torch.ones(2, 3)
        >>> token_gram(left, right, torch.tensor([[1.0, 2.0]]))
        tensor([[3., 6.]])
    """
    out = weights.new_zeros(weights.shape)
    starts = range(0, len(left), _ROWS)
    for i in starts:
        a = slice(i, i + _ROWS)
        for j in starts[i // _ROWS :]:
            b = slice(j, j + _ROWS)
            kernel = left[a] @ left[b].T
            if bias:
                kernel += 1
            kernel *= right[a] @ right[b].T
            out[:, a] += weights[:, b] @ kernel.T
            if i != j:
                out[:, b] += weights[:, a] @ kernel
    return out


def bilinear_forms(left: Tensor, right: Tensor, matrices: Tensor) -> Tensor:
    """(E, R): b_t . M^e a_t for (E, d, p) matrices."""
    return torch.stack([((left @ matrix.T) * right).sum(dim=1) for matrix in matrices])
