"""BatchProbe: training is left alone, estimators agree with closed forms, and what cannot be measured is refused."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import kvar
from kvar.hooks import BatchProbe
from kvar.records import RunWriter
from tests.cases import tiny_gpt2
from tests.hooks.batch import trainers
from tests.hooks.batch.trainers import (
    distillation,
    gkd,
    grpo,
    model,
    quiet_train,
    rloo,
    sdft,
    sdpo,
    tokenizer,
)

pytest.importorskip("trl")


@pytest.mark.parametrize("make", ["grpo", "distillation", "gkd"])
def test_training_is_the_same_with_and_without(make: str, tmp_path: Path) -> None:
    ends = []
    for probed in (False, True):
        student = model(1)
        trainer = getattr(trainers, make)(tmp_path / str(probed), student)
        probe = BatchProbe(trainer, every=1) if probed else None
        quiet_train(trainer)
        state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        ends.append((student.state_dict(), state, trainer.state.log_history[0]))
        assert probe is None or len(probe.measurements) == 2
        assert "compute_loss" not in vars(trainer)
    (weights, state, log), (again, state_again, log_again) = ends
    assert all(torch.equal(x, again[name]) for name, x in weights.items())
    assert torch.equal(state[0], state_again[0]) and state[1:] == state_again[1:]
    timed = ("time", "second", "runtime")
    assert all(log_again[k] == v for k, v in log.items() if not any(word in k for word in timed))


def test_grpo_is_the_score_over_the_longest_length(tmp_path: Path) -> None:
    student = model(1)
    trainer = grpo(tmp_path, student, loss_type="dr_grpo", max_steps=1)
    probe = BatchProbe(trainer, "score, score - leave-one-out")
    quiet_train(trainer)
    moments = probe.measurements[0].moments
    assert moments.names == ("trained", "score", "score - leave-one-out")
    torch.testing.assert_close(moments.sq_norm[0] * 6**2, moments.sq_norm[1], rtol=1e-4, atol=1e-6)
    assert moments.pair is not None
    torch.testing.assert_close(moments.pair[0, 1] * 6, moments.sq_norm[1], rtol=1e-4, atol=1e-6)


def test_reverse_kl_is_kl_immediate_exact_and_takes_no_pass_of_the_teacher(tmp_path: Path) -> None:
    teacher, calls = model(9), []
    trainer = distillation(tmp_path, model(1), teacher, max_steps=1)
    teacher.base_model.register_forward_hook(lambda *_: calls.append(1))
    probe = BatchProbe(trainer, "kl immediate exact, K=1")
    quiet_train(trainer)
    assert len(calls) == 2  # the trainer's own, one a micro-batch
    measurement = probe.measurements[0]
    assert measurement.rollouts.prompt_index.unique().numel() > 1
    scale = len(measurement.rollouts) / float(measurement.rollouts.mask.sum())
    moments = measurement.moments
    torch.testing.assert_close(moments.sq_norm[0], moments.sq_norm[1] * scale**2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", [grpo, distillation])
def test_engines_and_micro_batches_agree(make: Any, tmp_path: Path) -> None:
    student = model(1)
    trainer = make(tmp_path, student, max_steps=1, temperature=0.8)
    names = "score" if make is grpo else "kl immediate exact"
    probes = [
        BatchProbe(trainer, names, **options)
        for options in ({}, {"engine": "loop"}, {"micro_batch": 3}, {"position_bins": 2}, {"fields": "norms"})
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quiet_train(trainer)
    first = probes[0].measurements[0].moments
    for probe in probes[1:4]:
        moments = probe.measurements[0].moments
        assert moments.pair is not None and first.pair is not None
        torch.testing.assert_close(moments.pair[:2, :2], first.pair, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(probes[4].measurements[0].moments.sq_norm, first.sq_norm, rtol=1e-4, atol=1e-6)


def test_two_probes_of_two_trainings_measure_each_step_once(tmp_path: Path) -> None:
    trainer = distillation(tmp_path, model(1), max_steps=1, gradient_accumulation_steps=1)
    probes = [BatchProbe(trainer, "kl immediate"), BatchProbe(trainer, "immediate")]
    for trainings in (1, 2):
        quiet_train(trainer)
        assert [len(probe.measurements) for probe in probes] == [trainings] * 2
        assert {len(m.rollouts) for probe in probes for m in probe.measurements} == {4}


def test_measurements_are_recorded(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", {"student": "tiny"})
    trainer = distillation(tmp_path / "trl", model(1), max_steps=2)
    BatchProbe(trainer, "kl immediate", every=1, writer=writer)
    quiet_train(trainer)
    run = kvar.load(tmp_path / "run")
    assert sorted(run.gradients["estimator"].astype(str).unique()) == ["kl immediate", "trained"]
    assert sorted(run.gradients["step"].unique()) == [0, 1]


def test_a_later_step_that_cannot_be_measured_does_not_stop_the_training(tmp_path: Path) -> None:
    far = {"delta": 1.01, "epsilon": 0.001, "num_iterations": 3, "learning_rate": 5e-2, "max_steps": 4}
    trainer = grpo(tmp_path, model(1), **far)
    probe = BatchProbe(trainer, "score", every=1)
    with pytest.warns(
        UserWarning, match=r"step \d is not measured: the batch's old log-probabilities differ .* moved far"
    ):
        trainer.train()
    assert trainer.state.global_step == 4 and 1 <= len(probe.measurements) < 4


def test_a_resumed_training_measures_each_step_once_and_alike(tmp_path: Path) -> None:
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    first = grpo(tmp_path, model(1), **settings)
    whole = kvar.watch(first, every=1)
    quiet_train(first)
    again = grpo(tmp_path, model(1), **settings)
    resumed = kvar.watch(again, every=1)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert [m.step for m in whole.measurements] == [0, 1, 2, 3] and [m.step for m in resumed.measurements] == [2, 3]
    for one, other in zip(whole.measurements[2:], resumed.measurements, strict=True):
        torch.testing.assert_close(one.moments.sq_norm, other.moments.sq_norm)
    assert [entry["step"] for entry in again.state.log_history if "kvar/seconds" in entry] == [0, 1, 2, 3]


def test_a_compiled_student_is_refused(tmp_path: Path) -> None:
    trainer = grpo(tmp_path, model(1))
    trainer.model.compile(backend="eager")
    with pytest.raises(ValueError, match=r"compiled in place by \.compile\(\): measure a copy that is not compiled"):
        BatchProbe(trainer)


def test_noise_in_the_forward_pass_is_refused(tmp_path: Path) -> None:
    trainer = grpo(tmp_path, model(1), neftune_noise_alpha=5.0)
    with pytest.raises(ValueError, match="neftune_noise_alpha=5 puts noise"):
        BatchProbe(trainer, "score")


def test_a_group_that_scores_alike_is_said_so(tmp_path: Path) -> None:
    trainer = grpo(tmp_path, model(1), lambda completions, **_: [1.0] * len(completions), max_steps=1)
    probe = BatchProbe(trainer, "score")
    with pytest.warns(UserWarning, match="step 0 is not measured: the trainer's gradient is zero, since every adv"):
        quiet_train(trainer)
    assert probe.measurements == []


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.filterwarnings("ignore:.*trains with dropout")
def test_shifted_positions_are_refused(dropout: float, tmp_path: Path) -> None:
    student = tiny_gpt2(len(tokenizer()))
    student.transformer.wpe.weight.data.normal_()
    student.transformer.drop.p = dropout
    trainer = distillation(tmp_path, student, max_steps=1)
    BatchProbe(trainer, "kl immediate")
    with pytest.raises(ValueError, match=r"log-probabilities that differ by [\d.]+ a token .* left padding"):
        quiet_train(trainer)


def test_old_log_probabilities_of_another_policy_are_refused(tmp_path: Path) -> None:
    trainer = grpo(tmp_path, model(1), max_steps=1, num_iterations=2)
    prepare = trainer._generate_and_score_completions

    def wrong(inputs: Any) -> Any:
        batch = prepare(inputs)
        return {**batch, "old_per_token_logps": batch["old_per_token_logps"] - 2.0}

    trainer._generate_and_score_completions = wrong
    BatchProbe(trainer, "score")
    with pytest.raises(ValueError, match="old log-probabilities differ from the student's by 2 a token"):
        quiet_train(trainer)


def test_old_log_probabilities_of_whole_responses_are_checked(tmp_path: Path) -> None:
    trainer = rloo(tmp_path, model(1), max_steps=1)
    prepare = trainer._generate_and_score_completions

    def wrong(inputs: Any) -> Any:
        batch = prepare(inputs)
        return {**batch, "old_logps": batch["old_logps"] - 3.0 * batch["completion_mask"].sum(dim=1)}

    trainer._generate_and_score_completions = wrong
    BatchProbe(trainer, "score")
    with pytest.raises(ValueError, match="old log-probabilities differ from the student's by 3 a token"):
        quiet_train(trainer)


def test_dropout_and_several_processes_are_told(tmp_path: Path) -> None:
    trainer = distillation(tmp_path, model(1, attention_dropout=0.2), max_steps=1)
    probe = BatchProbe(trainer, "kl immediate")
    with pytest.warns(UserWarning, match="trains with dropout, which is off while gradients are measured"):
        quiet_train(trainer)
    assert len(probe.measurements) == 1
    trainer.args._n_gpu = 2
    with pytest.raises(ValueError, match="BatchProbe measures on one process; this training has 1 with 2 devices"):
        BatchProbe(trainer, "kl immediate")


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (gkd, {"temperature": 1.0, "lmbda": 0.5}, r"trains on responses that the student did not draw \(lmbda=0.5\)"),
        (grpo, {"generation_kwargs": {"temperature": 3.0}}, "GRPOTrainer samples with temperature=3.0, which biases"),
        (distillation, {"repetition_penalty": 1.5}, "DistillationTrainer samples with repetition_penalty=1.5"),
    ],
)
def test_responses_of_another_policy_are_told(make: Any, changes: dict, message: str, tmp_path: Path) -> None:
    trainer = make(tmp_path, model(1), **changes)
    with pytest.warns(UserWarning, match=message):
        BatchProbe(trainer)


def test_one_response_with_two_teachers_is_refused(tmp_path: Path) -> None:
    student = model(1)
    trainer = sdft(tmp_path, student, max_steps=1, max_completion_length=1, generation_kwargs={"top_k": 1})
    trainer.train_dataset = trainer.train_dataset.map(lambda row: {"prompt": "a b"})
    BatchProbe(trainer, "kl immediate")
    with pytest.raises(ValueError, match="one prompt, one response and teachers that were told different things"):
        quiet_train(trainer)


def test_what_a_batch_lacks_is_refused_at_once(tmp_path: Path) -> None:
    student = model(1)
    trainer = grpo(tmp_path, student)
    for names, message in (
        ("kl immediate", "'kl immediate' needs a teacher, which a batch of GRPOTrainer has none of: pass teacher="),
        ("K=1 - teacher-value", "needs a teacher"),
    ):
        with pytest.raises(ValueError, match=message):
            BatchProbe(trainer, names)
    BatchProbe(trainer, "kl immediate exact, score", teacher=model(9))
    distilled = distillation(tmp_path, student)
    for names, message in (
        ("score", "needs scores of responses, which a batch of DistillationTrainer does not hold"),
        ("kl immediate ratio", "needs log-probabilities of the policy that drew the tokens"),
        ("kl immediate - leave-one-out", "needs several responses to a prompt"),
    ):
        with pytest.raises(ValueError, match=message):
            BatchProbe(distilled, names)
    with pytest.raises(ValueError, match="steps_per_generation"):
        BatchProbe(grpo(tmp_path, student, steps_per_generation=4), "score - leave-one-out")
    with pytest.raises(ValueError, match="every must be at least 1"):
        BatchProbe(trainer, "score", every=0)


def test_unknown_trainers_and_batches_are_refused(tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    args = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    with pytest.raises(TypeError, match=r"does not know the batches of Trainer but those of TRL's GRPOTrainer, .*GKD"):
        BatchProbe(Trainer(model=model(1), args=args))
    trainer = grpo(tmp_path, model(1))
    probe = BatchProbe(trainer, "score")
    row = torch.ones(1, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="its batch has no prompt_mask, completion_mask, advantages but prompt_ids"):
        probe.kind.checked({"prompt_ids": row, "completion_ids": row}, trainer)
    batch = {"prompt_ids": row, "prompt_mask": row, "completion_ids": row, "completion_mask": row[:, :1]}
    with pytest.raises(ValueError, match="completion_mask masks ids of shape"):
        probe.kind.layout(batch)
    long = torch.ones(1, 3, dtype=torch.long)
    batch |= {"completion_ids": long, "completion_mask": long, "tool_mask": torch.tensor([[1, 0, 1]])}
    with pytest.raises(ValueError, match="such as a tool's output"):
        probe.kind.layout(batch)
    labels = {"input_ids": row, "attention_mask": row, "labels": row + 1}
    with pytest.raises(ValueError, match="labels must be input_ids with -100"):
        BatchProbe(gkd(tmp_path, model(1)), "kl immediate").kind.layout(labels)


def test_sdpos_scores_are_its_rewards(tmp_path: Path) -> None:
    trainer = sdpo(tmp_path, model(1), max_steps=1)
    probe = BatchProbe(trainer, "score - group-normalised, kl immediate exact, kl immediate ratio")
    quiet_train(trainer)
    assert bool(probe.measurements[0].moments.sq_norm.isfinite().all())
