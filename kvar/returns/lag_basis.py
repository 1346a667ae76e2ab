"""Estimators, one a lag, of which every kernel's estimator is a weighted sum; theory.md (4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvar.returns.kernels import Kernel, KStep
from kvar.returns.masks import check_mask
from kvar.returns.thinning import Thinning
from kvar.returns.values import TokenValues

__all__ = ["kernel_coefficients", "lag_basis"]


def lag_basis(values: TokenValues, mask: Tensor, lags: int) -> tuple[Tensor, list[str]]:
    """Token weights V_t and -gap_{t+j}, j = 0 .. L-1: with them measured, any kernel can be evaluated afterwards.

    G^w_t = V_t - sum_j w_j gap_{t+j} is linear in (1, w_0, w_1, ...), and so is g; moments of the basis give those of
    every kernel whose weights depend on the lag only (:func:`kvar.gradients.recombine`).

    Args:
        values: (N, T) teacher values.
        mask: (N, T), true on response tokens.
        lags: L, from 1 to T; T holds every kernel exactly.

    Returns:
        (1 + L, N, T) weights and their names, "V", "lag 0", "lag 1", ...

    Raises:
        ValueError: a number of lags outside 1..T.

    Example:
        >>> values = TokenValues(q=torch.tensor([[1.0, 2.0]]), v=torch.tensor([[3.0, 7.0]]))
        >>> lag_basis(values, torch.ones(1, 2), 2)[0][:, 0].tolist()
        [[3.0, 7.0], [-2.0, -5.0], [-5.0, -0.0]]
    """
    keep = check_mask(mask)
    t = keep.shape[1]
    if not 1 <= lags <= t:
        raise ValueError(f"lags must lie between 1 and T = {t}; got {lags}.")
    gap = values.gap.masked_fill(~keep, 0.0)
    shifted = [-torch.nn.functional.pad(gap[:, j:], (0, j)) for j in range(lags)]
    basis = torch.stack([values.v, *shifted]).masked_fill(~keep, 0.0)
    return basis, ["V", *(f"lag {j}" for j in range(lags))]


def kernel_coefficients(kernels: Sequence[Kernel], lags: int, *, teacher_value: bool = False) -> Tensor:
    """(E, 1 + L) coefficients of kernels in :func:`lag_basis`.

    Args:
        kernels: E kernels whose weights depend on the lag alone.
        lags: L.
        teacher_value: subtract the teacher-value baseline, which leaves V_t out.

    Returns:
        float64; the first column is that of V.

    Raises:
        ValueError: an anchored comb with K > 1, whose weight at the last token depends on the response's length, or a
            random kernel.

    Example:
        >>> kernel_coefficients([KStep(2, "free")], 4).tolist()
        [[1.0, 1.0, 0.0, 1.0, 0.0]]
    """
    for kernel in kernels:
        if isinstance(kernel, KStep) and kernel.k > 1 and kernel.terminal == "anchored":
            raise ValueError(
                f"kernel {kernel.name!r} is anchored: its weight at the last token depends on the response's length, "
                f"not on the lag alone. Use KStep({kernel.k}, 'free'), or measure it itself."
            )
        if isinstance(kernel, Thinning):
            raise ValueError(f"kernel {kernel.name!r} draws its weights at random; measure it itself.")
    lag = torch.arange(lags)
    table = torch.stack([kernel(lag, torch.full_like(lag, lags)).double() for kernel in kernels])
    first = torch.full((len(kernels), 1), 0.0 if teacher_value else 1.0, dtype=torch.float64)
    return torch.cat([first, table], dim=1)
