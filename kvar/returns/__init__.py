"""Values, returns and baselines: pure tensors, no model (theory.md, sections 1 to 3)."""

from kvar.returns.baselines import batch_mean, leave_one_out, minimum_variance, position_mean, teacher_value
from kvar.returns.kernels import LLMR, Geometric, Immediate, Kernel, KStep, LagKernel
from kvar.returns.lag_basis import kernel_coefficients, lag_basis
from kvar.returns.lag_sums import lag_sums
from kvar.returns.masks import check_mask
from kvar.returns.parse_kernel import parse_kernel
from kvar.returns.positions import position_edges, split_by_position
from kvar.returns.returns import BASELINES, Baseline, returns
from kvar.returns.scaled_comb import ScaledComb
from kvar.returns.score_norms import output_layer_score_norms
from kvar.returns.stepwise import Stepwise
from kvar.returns.thinning import Thinning
from kvar.returns.values import TokenValues, token_values
from kvar.returns.window import Window

__all__ = [
    "BASELINES",
    "LLMR",
    "Baseline",
    "Geometric",
    "Immediate",
    "KStep",
    "Kernel",
    "LagKernel",
    "ScaledComb",
    "Stepwise",
    "Thinning",
    "TokenValues",
    "Window",
    "batch_mean",
    "check_mask",
    "kernel_coefficients",
    "lag_basis",
    "lag_sums",
    "leave_one_out",
    "minimum_variance",
    "output_layer_score_norms",
    "parse_kernel",
    "position_edges",
    "position_mean",
    "returns",
    "split_by_position",
    "teacher_value",
    "token_values",
]
