"""Hooks that join any transformers training to kvar's gradients and records."""

from kvar.hooks.auto_estimator import AutoEstimator
from kvar.hooks.batch.probe import BatchProbe
from kvar.hooks.estimators import Estimator, estimator_weights, parse_estimators
from kvar.hooks.measuring import Measuring
from kvar.hooks.output_layer import OutputLayerProbe, StepStatistics
from kvar.hooks.probe import GradientProbe
from kvar.hooks.progress import Progress
from kvar.hooks.recorder import Recorder
from kvar.hooks.scalars import scalars
from kvar.hooks.trainer_log import TrainerLog
from kvar.measurement import Measurement

__all__ = [
    "AutoEstimator",
    "BatchProbe",
    "Estimator",
    "GradientProbe",
    "Measurement",
    "Measuring",
    "OutputLayerProbe",
    "Progress",
    "Recorder",
    "StepStatistics",
    "TrainerLog",
    "estimator_weights",
    "parse_estimators",
    "scalars",
]
