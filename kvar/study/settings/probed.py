"""The estimators of a run's probe: those that its settings name, by default some and the one that is trained with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kvar.estimators import Estimator, Score, parse_estimators
from kvar.results.study_cells import trained_estimator
from kvar.study.settings.run_settings import ProbeSettings

if TYPE_CHECKING:
    from kvar.distill import DistillationConfig

__all__ = ["PROBED", "estimator_of", "not_measured", "with_estimators"]

PROBED = "K=1,K=2,K=4,K=8,immediate"
"""Measured by a probe whose settings name no estimators, with the one that the run trains with."""


def with_estimators(probe: ProbeSettings, training: DistillationConfig) -> ProbeSettings:
    """The settings with the names of the estimators that are measured.

    Names that are given stay as they are. By default they are :data:`PROBED` and, where the run has a probe, the
    estimator that it trains with, unless the probe cannot measure it (:func:`not_measured`) or it has no baseline while
    ``probe_baseline`` gives one to every name without.

    Args:
        probe: of the run.
        training: its trainer's settings.

    Example:
        >>> from kvar.distill import DistillationConfig
        >>> training = DistillationConfig("runs/a", objective="policy-gradient", estimator="kl immediate exact")
        >>> with_estimators(ProbeSettings(probe_every=10), training).probe_kernels
        'K=1,K=2,K=4,K=8,immediate,kl immediate exact'
        >>> with_estimators(ProbeSettings(probe_every=10, probe_kernels="K=1"), training).probe_kernels
        'K=1'
    """
    if probe.probe_kernels is not None:
        return probe
    names, trained = PROBED, estimator_of(training)
    if probe.probe_every and trained is not None and not_measured(probe, training) is None:
        (own,) = parse_estimators(trained.name, probe.probe_baseline)
        known = {e.name for e in parse_estimators(PROBED, probe.probe_baseline)}
        if own.name == trained.name and own.name not in known:
            names = f"{PROBED},{own.name}"
    return replace(probe, probe_kernels=names)


def not_measured(probe: ProbeSettings, training: DistillationConfig) -> str | None:
    """Why a probe cannot measure the estimator that the run trains with; None where it can, or there is none.

    Args:
        probe: of the run.
        training: its trainer's settings.

    Example:
        >>> from kvar.distill import DistillationConfig
        >>> training = DistillationConfig("runs/a", baseline="leave-one-out", rollouts_per_prompt=4)
        >>> not_measured(ProbeSettings(probe_every=10, probe_rollouts=1), training)
        'probe_rollouts is 1, and K=4 - leave-one-out needs 2 responses to a prompt or more'
    """
    trained = estimator_of(training)
    if trained is None:
        return None
    if probe.probe_rollouts == 1 and getattr(trained.subtracted, "scope", None) == "prompt":
        return f"probe_rollouts is 1, and {trained.name} needs 2 responses to a prompt or more"
    if probe.probe_score is not None and isinstance(trained.reward, Score):
        return f"probe_score is {probe.probe_score}: name {trained.name} in probe_kernels if reward_score is the same"
    return None


def estimator_of(training: DistillationConfig) -> Estimator | None:
    """The estimator that is trained with; None where there is none, or it changes."""
    from kvar.distill.adaptive import is_adaptive

    fields = ("objective", "kernel", "baseline", "estimator")
    name = None if is_adaptive(training) else trained_estimator({field: getattr(training, field) for field in fields})
    return None if name is None else parse_estimators(name)[0]
