"""Rewards of sampled tokens and of every next token; theory.md (21)."""

from kvar.estimators.rewards.base import NextTokenReward, Reward, SampledReward
from kvar.estimators.rewards.called import TokenReward
from kvar.estimators.rewards.forward_kl import ForwardKL
from kvar.estimators.rewards.forward_top_k import ForwardTopK
from kvar.estimators.rewards.gap import Gap
from kvar.estimators.rewards.jsd import JSD
from kvar.estimators.rewards.k_losses import K1Loss, K2Loss, K3Loss
from kvar.estimators.rewards.kl import LogRatio
from kvar.estimators.rewards.score import Score
from kvar.estimators.rewards.top_k import TopK

__all__ = [
    "JSD",
    "ForwardKL",
    "ForwardTopK",
    "Gap",
    "K1Loss",
    "K2Loss",
    "K3Loss",
    "LogRatio",
    "NextTokenReward",
    "Reward",
    "SampledReward",
    "Score",
    "TokenReward",
    "TopK",
]
