"""What a run's probe measures: the names that are given, by default some and the one that the run trains with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvar.records import RunWriter
from kvar.study.run.identity import run_config
from kvar.study.run.probing import plan_probe
from kvar.study.settings.probed import not_measured
from kvar.study.settings.reading import settings_from

PLAIN = "K=1,K=2,K=4,K=8,immediate"
GAP = "gap K=1 exact expected - position-mean"
POLICY = {"objective": "policy-gradient", "estimator": "kl immediate exact"}
BASE = {
    "student": "arithmetic-50k", "teacher": "arithmetic", "output_dir": "runs/a", "report_to": "none", "use_cpu": True,
    "probe_every": 10,
}  # fmt: skip


def probed(**fields: Any) -> str | None:
    settings, training = settings_from({**BASE, **fields}, "test")
    assert run_config(settings, training)["probe_kernels"] == settings.probe.probe_kernels
    return settings.probe.probe_kernels


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        (POLICY, f"{PLAIN},kl immediate exact"),
        ({**POLICY, "estimator": "gap 1 expected exact - position-mean"}, f"{PLAIN},{GAP}"),
        ({}, PLAIN),  # K=4, measured already
        ({"kernel": "inf"}, PLAIN),
        ({"objective": "llmr"}, PLAIN),
        ({"kernel": "K=16"}, f"{PLAIN},K=16"),
        ({"baseline": "batch-mean"}, f"{PLAIN},K=4 - batch-mean"),
        ({"baseline": "batch-mean", "probe_baseline": "batch-mean"}, PLAIN),
        ({"baseline": "leave-one-out", "rollouts_per_prompt": 2}, f"{PLAIN},K=4 - leave-one-out"),
        ({"baseline": "leave-one-out", "rollouts_per_prompt": 2, "probe_rollouts": 1}, PLAIN),
        ({"kernel": "K=16", "probe_baseline": "batch-mean"}, PLAIN),  # which would name another estimator
        ({**POLICY, "estimator": "score - batch-mean"}, f"{PLAIN},score - batch-mean"),
        ({**POLICY, "estimator": "score - batch-mean", "probe_score": "exact_answer"}, PLAIN),
        ({"objective": "kl"}, PLAIN),
        ({"objective": "ketchup + 0.1 sft", "kernel": "K=16"}, PLAIN),
        ({**POLICY, "estimator": "auto"}, PLAIN),
        ({**POLICY, "probe_every": 0}, PLAIN),
        ({**POLICY, "probe_kernels": "K=1, K=4"}, "K=1, K=4"),
        ({**POLICY, "probe_kernels": PLAIN}, PLAIN),
    ],
)  # fmt: skip
def test_the_default_measures_what_is_trained_and_given_names_stay(fields: dict[str, Any], names: str) -> None:
    assert probed(**fields) == names


def test_why_the_trained_estimator_is_not_measured() -> None:
    rows = {"baseline": "leave-one-out", "rollouts_per_prompt": 2, "probe_rollouts": 1}
    scored = {**POLICY, "estimator": "score", "probe_score": "exact_answer"}
    said = {}
    for name, fields in (("rows", rows), ("scored", scored), ("kl", {"objective": "kl"}), ("plain", POLICY)):
        settings, training = settings_from({**BASE, **fields}, "test")
        said[name] = not_measured(settings.probe, training)
    assert said == {
        "rows": "probe_rollouts is 1, and K=4 - leave-one-out needs 2 responses to a prompt or more",
        "scored": "probe_score is exact_answer: name score in probe_kernels if reward_score is the same",
        "kl": None,
        "plain": None,
    }


@pytest.mark.parametrize("every", [0, 10])
def test_a_run_without_probes_is_measured_with_what_it_trained(tmp_path: Path, every: int) -> None:
    """A run that has probes keeps its names: their records hold these."""
    with RunWriter(tmp_path, {**BASE, **POLICY, "probe_every": every, "probe_kernels": PLAIN}):
        pass
    (tmp_path / "model").mkdir()
    for file in ("config.json", "model.safetensors"):
        (tmp_path / "model" / file).touch()
    plan = plan_probe(str(tmp_path))
    settings, _ = settings_from({**plan.values, "student": "arithmetic-50k", "probe_every": 1}, "test")
    assert settings.probe.probe_kernels == (PLAIN if every else f"{PLAIN},kl immediate exact")
