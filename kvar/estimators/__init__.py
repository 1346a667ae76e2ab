"""Policy-gradient estimators as an algebra: reward x kernel x future x immediate x baseline x correction."""

from kvar.estimators.baselines import BASELINES, Baseline
from kvar.estimators.corrections import Correction, PPOClip, Ratio, SequenceRatio, Truncated
from kvar.estimators.data import DATA, with_references
from kvar.estimators.estimator import Estimator
from kvar.estimators.evidence import Evidence
from kvar.estimators.gather import gather
from kvar.estimators.given_teacher import GivenTeacher, default_estimators
from kvar.estimators.lag_estimators import lag_estimators
from kvar.estimators.parse import parse_estimators, parse_reward
from kvar.estimators.rewards import (
    JSD,
    ForwardKL,
    ForwardTopK,
    Gap,
    K1Loss,
    K2Loss,
    K3Loss,
    LogRatio,
    NextTokenReward,
    Reward,
    SampledReward,
    Score,
    TokenReward,
    TopK,
)
from kvar.estimators.terms import Terms
from kvar.estimators.trained import TRAINED, comparable

__all__ = [
    "BASELINES",
    "DATA",
    "JSD",
    "TRAINED",
    "Baseline",
    "Correction",
    "Estimator",
    "Evidence",
    "ForwardKL",
    "ForwardTopK",
    "Gap",
    "GivenTeacher",
    "K1Loss",
    "K2Loss",
    "K3Loss",
    "LogRatio",
    "NextTokenReward",
    "PPOClip",
    "Ratio",
    "Reward",
    "SampledReward",
    "Score",
    "SequenceRatio",
    "Terms",
    "TokenReward",
    "TopK",
    "Truncated",
    "comparable",
    "default_estimators",
    "gather",
    "lag_estimators",
    "parse_estimators",
    "parse_reward",
    "with_references",
]
