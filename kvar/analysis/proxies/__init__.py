"""Cheap numbers that trainers log in place of the gradient's variance, each by its published formula.

``figures/proxies`` holds them against the exact numbers of :func:`kvar.gradients.gradient_moments`.
"""

from kvar.analysis.proxies.effective_sample_share import effective_sample_share
from kvar.analysis.proxies.gradient_norm import gradient_norm
from kvar.analysis.proxies.micro_batches import NoiseScale, micro_batch_noise_scale
from kvar.analysis.proxies.norm_layers import norm_layer_noise_scale, norm_layers
from kvar.analysis.proxies.w_proxy import VarianceProxy, w_proxy

__all__ = [
    "NoiseScale",
    "VarianceProxy",
    "effective_sample_share",
    "gradient_norm",
    "micro_batch_noise_scale",
    "norm_layer_noise_scale",
    "norm_layers",
    "w_proxy",
]
