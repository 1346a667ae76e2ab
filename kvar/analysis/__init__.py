"""Statistics of gradient moments, with intervals; theory and exact ground truth to hold them against."""

from kvar.analysis import exact, theory
from kvar.analysis.best_k import best_k
from kvar.analysis.bias import bias
from kvar.analysis.cosine import cosine
from kvar.analysis.decompose import Decomposition, decompose, within_share
from kvar.analysis.efficiency import efficiency
from kvar.analysis.estimate import Estimate
from kvar.analysis.mse import mse
from kvar.analysis.noise_scale import noise_scale, relative_variance
from kvar.analysis.paired import difference_to, ratio_to
from kvar.analysis.signal import signal
from kvar.analysis.snr import snr
from kvar.analysis.summary import summarise
from kvar.analysis.trace_covariance import trace_covariance

__all__ = [
    "Decomposition",
    "Estimate",
    "best_k",
    "bias",
    "cosine",
    "decompose",
    "difference_to",
    "efficiency",
    "exact",
    "mse",
    "noise_scale",
    "ratio_to",
    "relative_variance",
    "signal",
    "snr",
    "summarise",
    "theory",
    "trace_covariance",
    "within_share",
]
