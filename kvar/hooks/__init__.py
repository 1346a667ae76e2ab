"""Hooks that join any transformers training to kvar's gradients and records."""

from kvar.hooks.estimators import Estimator, estimator_weights, parse_estimators
from kvar.hooks.output_layer import OutputLayerProbe, StepStatistics
from kvar.hooks.probe import GradientProbe
from kvar.hooks.progress import Progress
from kvar.hooks.recorder import Recorder
from kvar.measurement import Measurement

__all__ = [
    "Estimator",
    "GradientProbe",
    "Measurement",
    "OutputLayerProbe",
    "Progress",
    "Recorder",
    "StepStatistics",
    "estimator_weights",
    "parse_estimators",
]
