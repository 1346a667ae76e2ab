"""Corrections of trajectories that another policy drew."""

from kvar.estimators.corrections.base import Correction
from kvar.estimators.corrections.ppo_clip import PPOClip
from kvar.estimators.corrections.ratio import Ratio, Truncated
from kvar.estimators.corrections.sequence import SequenceRatio

__all__ = ["Correction", "PPOClip", "Ratio", "SequenceRatio", "Truncated"]
