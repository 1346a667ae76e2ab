"""A run's probe measures every estimator by name, the task's own score included."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import kvar
from kvar.analysis import toward_over_training
from kvar.distill import DistillationConfig, build_model
from kvar.evaluation.evaluate import response_texts
from kvar.records import RunWriter
from kvar.study.run.build import build_probes
from kvar.study.run.parts import Parts
from kvar.study.run.tasks import check_score
from kvar.study.settings.run_settings import ProbeSettings
from kvar.tasks import ArithmeticTask


def test_a_probe_asks_the_task_for_scores(tmp_path) -> None:
    task = ArithmeticTask(1, 1)
    tokenizer = task.build_tokenizer()
    size = {"model_type": "t5", "d_model": 8, "d_kv": 4, "num_heads": 2, "d_ff": 8, "num_layers": 1}
    student, teacher = (build_model(size, tokenizer, seed=seed) for seed in (0, 1))
    settings = ProbeSettings(
        probe_every=1, probe_prompts=3, probe_rollouts=2, probe_kernels="1, kl immediate exact, score - leave-one-out"
    )
    training = DistillationConfig(output_dir=str(tmp_path), max_new_tokens=5, use_cpu=True, report_to="none")
    (probe,) = build_probes(settings, training, Parts(task, tokenizer, student, teacher), None)
    m = probe.measure(student)
    assert m.names == ("K=1", "kl immediate exact", "score - leave-one-out")
    asked = probe.settings.score(m.rollouts)
    examples = task.examples("validation", 3)
    texts = response_texts(m.rollouts, tokenizer)
    assert asked == task.example_scores(texts, [examples[i] for i in m.rollouts.prompt_index.tolist()])
    assert bool(torch.isfinite(m.moments.pair).all())


def test_a_probe_records_targets(tmp_path) -> None:
    """The data and a score of the task are measured with the rest, recorded, and read back as targets."""
    task = ArithmeticTask(1, 1)
    tokenizer = task.build_tokenizer()
    size = {"model_type": "t5", "d_model": 8, "d_kv": 4, "num_heads": 2, "d_ff": 8, "num_layers": 1}
    student, teacher = (build_model(size, tokenizer, seed=seed) for seed in (0, 1))
    settings = ProbeSettings(
        probe_every=1, probe_prompts=8, probe_rollouts=2, probe_kernels="K=1, kl K=1", probe_references=True,
        probe_score="partial_credit",
    )  # fmt: skip
    training = DistillationConfig(output_dir=str(tmp_path), max_new_tokens=5, use_cpu=True, report_to="none")
    with RunWriter(tmp_path / "run", {"parameters": 1}) as writer:
        (probe,) = build_probes(settings, training, Parts(task, tokenizer, student, teacher), writer)
        for step in (0, 5):
            probe.record(m := probe.measure(student, step))
    assert m.names == ("K=1", "kl K=1", "score - leave-one-out", "data")
    table = toward_over_training(kvar.load(tmp_path / "run"), 16)
    assert set(table["step"]) == {0, 5} and set(table["target"]) == {"data", "J", "J_kl", "score"}
    again = m.toward(16)
    assert table[table["step"] == 5]["leads"].tolist() == again["leads"].tolist()
    np.testing.assert_allclose(table[table["step"] == 5]["efficiency"], again["efficiency"], rtol=1e-4)
    with pytest.raises(ValueError, match="probe_score is 'chrf' but probe_rollouts is 1"):
        ProbeSettings(probe_score="chrf", probe_rollouts=1)
    with pytest.raises(ValueError, match="score 'chrf' is unknown for this task; choose one of"):
        check_score(task, "chrf")
