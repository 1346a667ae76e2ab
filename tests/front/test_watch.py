"""``kvar.watch``: attached to anyone's trainer, it changes nothing but the logs, to which it adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import EarlyStoppingCallback, Trainer

import kvar
from kvar.distill import build_dataset, build_model
from kvar.hooks import BatchProbe, GradientProbe
from kvar.plots import variance_over_training
from kvar.tasks import ArithmeticTask
from tests.cases import ragged_prompts, tiny_gpt2, tiny_t5
from tests.hooks.test_scalars import logged, trainer_of

NAMES = ("total_gap", "response_length", "finished", "seconds", "snr/K1", "bias_share/K4")
"""Numbers of every measurement, whatever it resolves."""
TEACHER = tiny_t5(seed=1)
TIMES = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "step_time", "num_tokens_per_second")


def watch(trainer: Any, prompts: Any = None, estimators: str = "1, 4", **changes: Any) -> GradientProbe:
    settings = {"teacher": TEACHER, "every": 2, "rollouts_per_prompt": 2, "max_new_tokens": 5, **changes}
    return kvar.watch(trainer, ragged_prompts() if prompts is None else prompts, estimators, **settings)


def others(trainer: Any) -> list[dict[str, float]]:
    """The trainer's own logs, without times."""
    return [
        {name: value for name, value in entry.items() if name not in TIMES}
        for entry in trainer.state.log_history
        if not any(name.startswith("kvar/") for name in entry)
    ]


def test_a_watched_training_ends_with_the_same_weights_and_logs(tmp_path: Path) -> None:
    ends, logs = [], []
    for watched in (False, True):
        trainer = trainer_of(tmp_path, model=tiny_t5(dropout_rate=0.3))
        probe = watch(trainer) if watched else None
        trainer.train()
        ends.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
        logs.append(others(trainer))
    assert torch.equal(*ends)
    assert logs[0] == logs[1]
    assert logged(trainer) == [0, 2, 4, 6]
    for entry in trainer.state.log_history:
        if "kvar/seconds" in entry:
            assert {f"kvar/{name}" for name in NAMES} <= set(entry)
    assert probe is not None and isinstance(probe, GradientProbe)
    history = probe.history
    assert set(history["kernel"]) == {"K=1", "K=4"} and sorted(history["step"].unique()) == [0, 2, 4, 6]
    snr = history[(history["statistic"] == "snr") & (history["kernel"] == "K=4") & (history["step"] == 2)]
    (entry,) = (e for e in trainer.state.log_history if e["step"] == 2 and "kvar/snr/K4" in e)
    assert entry["kvar/snr/K4"] == snr["value"].item()
    assert variance_over_training(history, statistic="snr").lines


def test_a_training_that_stops_early_is_measured_before_its_last_log(tmp_path: Path) -> None:
    stop = {"eval_strategy": "steps", "eval_steps": 1, "learning_rate": 0.0, "metric_for_best_model": "loss"}
    trainer = trainer_of(tmp_path, EarlyStoppingCallback(1), **stop)
    watch(trainer, every=100, first=False)
    trainer.train()
    assert logged(trainer) == [trainer.state.global_step] and trainer.state.global_step < 6
    assert "train_loss" in trainer.state.log_history[-1]


def test_two_probes_have_two_names(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, max_steps=1)
    watch(trainer, every=10)
    with pytest.raises(ValueError, match="watched under 'kvar' already: give the second probe a name="):
        watch(trainer)
    second = watch(trainer, estimators="immediate", every=10, name="hard", batch=1000, target="immediate")
    seen: list[int] = []
    second.listeners.append(lambda measurement: seen.append(measurement.step))
    trainer.train()
    (first,) = (entry for entry in trainer.state.log_history if "kvar/snr/K1" in entry and entry["step"] == 0)
    (other,) = (e for e in trainer.state.log_history if "kvar/hard/snr/immediate" in e and e["step"] == 0)
    assert first["kvar/response_length"] == other["kvar/hard/response_length"]  # drawn with the same seed
    assert "kvar/hard/bias_share/immediate" not in other and second.name == "hard" and seen == [0, 1]
    measured = second.measurements[0]
    assert other["kvar/hard/snr/immediate"] == measured.table(1000).loc[0, "snr"]
    assert (first["kvar/batch"], other["kvar/hard/batch"]) == (4, 1000)  # of the log, and of what is printed
    printed = [" ".join(str(m).split()) for m in (trainer_probe(trainer).measurements[0], measured)]
    assert "variance of a step of 4;" in printed[0] and "variance of a step of 1000;" in printed[1]


def trainer_probe(trainer: Trainer) -> GradientProbe:
    """The first probe of a trainer."""
    return next(c for c in trainer.callback_handler.callbacks if isinstance(c, GradientProbe))


@pytest.fixture(scope="module")
def words() -> Any:
    tokenizer = ArithmeticTask(1, 1).build_tokenizer()
    tokenizer.padding_side = "left"
    return tokenizer


def small(words: Any, seed: int) -> Any:
    size = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    size |= {"model_type": "llama", "num_key_value_heads": 2, "max_position_embeddings": 64}
    return build_model(size, words, seed=seed)


SHORT = {
    "max_steps": 2, "per_device_train_batch_size": 4, "max_completion_length": 6, "report_to": "none", "use_cpu": True,
    "save_strategy": "no", "disable_tqdm": True, "bf16": False, "logging_steps": 2,
}  # fmt: skip


def test_trls_distillation_brings_its_teacher_and_its_length(words: Any, tmp_path: Path) -> None:
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list([{"prompt": e.prompt} for e in ArithmeticTask(1, 1).examples("train", 8)])
    trainer = trl.DistillationTrainer(
        model=small(words, 1), teacher_model=small(words, 2), args=trl.DistillationConfig(str(tmp_path), **SHORT),
        train_dataset=rows, processing_class=words,
    )  # fmt: skip
    prompts = [example.prompt for example in ArithmeticTask(1, 1).examples("validation", 4)]
    probe = kvar.watch(trainer, prompts, "1, kl immediate exact", every=2, rollouts_per_prompt=2)
    trainer.train()
    assert logged(trainer) == [0, 2] and probe.settings.max_new_tokens == 6
    assert probe.teacher is trainer.teacher_model
    assert "kvar/snr/kl_immediate_exact" in trainer.state.log_history[0]


@pytest.mark.parametrize("fresh", [True, False])
def test_trls_grpo_logs_the_same_averages(words: Any, tmp_path: Path, fresh: bool) -> None:
    """Its ``log`` empties what it gathered since the last log; measured between two logs, it must not.

    Two steps train on each batch, so that the second step's weights differ.
    """
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list([{"prompt": e.prompt} for e in ArithmeticTask(1, 1).examples("train", 8)])
    prompts = [example.prompt for example in ArithmeticTask(1, 1).examples("validation", 4)]
    logs = []
    for watched in (False, True):
        args = trl.GRPOConfig(str(tmp_path), num_generations=2, num_iterations=2, learning_rate=0.01, **SHORT)
        trainer = trl.GRPOTrainer(
            model=small(words, 1), args=args, train_dataset=rows, processing_class=words,
            reward_funcs=lambda completions, **_: [float(len(text)) for text in completions],
        )  # fmt: skip
        if watched and fresh:
            kvar.watch(trainer, prompts, "1, 4", teacher=small(words, 2), every=1, rollouts_per_prompt=2)
        elif watched:
            with pytest.raises(ValueError, match="reference 'nothing' is none of the estimators"):
                kvar.watch(trainer, target="nothing")
            assert isinstance(kvar.watch(trainer, every=1, target="trained"), BatchProbe)
        trainer.train()
        logs.append(others(trainer))
    assert logged(trainer) == ([0, 1, 2] if fresh else [0, 1])
    if not fresh:
        first, second = (entry for entry in trainer.state.log_history if "kvar/snr/trained" in entry)
        assert first["kvar/effective_sample_size"] == pytest.approx(4.0, abs=4e-6)  # all of the batch
        assert 1 <= second["kvar/effective_sample_size"] < 3.9996
    assert "reward" in logs[0][0]
    assert logs[0] == logs[1]


def test_what_cannot_be_watched(tmp_path: Path) -> None:
    with pytest.raises(
        TypeError, match="needs a transformers Trainer that is made already; got Linear. In a loop of you"
    ):
        watch(torch.nn.Linear(1, 1))
    trainer = trainer_of(tmp_path)
    with pytest.raises(TypeError, match=r"does not know the batches of Trainer .*: kvar.watch\(trainer, prompts\)"):
        kvar.watch(trainer)
    with pytest.raises(ValueError, match="reward= is for prompts="):
        kvar.watch(trainer, reward=lambda rollouts: rollouts.tokens.float())
    with pytest.raises(ValueError, match=r"Trainer holds no teacher \(as teacher or teacher_model\): pass teacher="):
        watch(trainer, teacher=None)
    trainer.teacher = trainer.model  # a student that is its own teacher
    with pytest.raises(ValueError, match="holds no teacher"):
        watch(trainer, teacher=None)
    with pytest.raises(ValueError, match="reference 'score' is none of the estimators K=1, K=4"):
        watch(trainer, target="score")
    with pytest.raises(ValueError, match="every must be at least 1"):
        watch(trainer, every=0)
    with pytest.raises(TypeError, match="rollout_per_prompt"):
        watch(trainer, rollout_per_prompt=3)
    assert not any(isinstance(callback, GradientProbe) for callback in trainer.callback_handler.callbacks)
    reward = watch(trainer, teacher=None, reward=lambda rollouts: rollouts.tokens.float())
    assert reward.teacher is None and "watch" in dir(kvar)


def test_a_trainers_teacher_is_taken(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, model=tiny_gpt2())
    trainer.teacher_model = tiny_gpt2(seed=1)
    assert watch(trainer, teacher=None).teacher is trainer.teacher_model


def test_kvars_trainer_is_measured_with_what_it_trains(words: Any, tmp_path: Path) -> None:
    """By default only, and only what the probe has everything for."""
    from kvar.distill import DistillationConfig, DistillationTrainer

    data = build_dataset(ArithmeticTask(1, 1).examples("train", 4), words, model=small(words, 1))

    def names(estimator: str, given: str | None = None, **options: Any) -> list[str]:
        args = DistillationConfig(
            str(tmp_path), objective="policy-gradient", estimator=estimator, rollouts_per_prompt=2, max_new_tokens=5,
            use_cpu=True, report_to="none",
        )  # fmt: skip
        trainer = DistillationTrainer(
            small(words, 1), args, teacher=small(words, 2),
            score=lambda texts, examples: [0.0] * len(texts), train_dataset=data, processing_class=words,
        )  # fmt: skip
        return [e.name for e in kvar.watch(trainer, ragged_prompts(), given, **options).estimators]

    plain = ["K=1", "K=2", "K=4", "K=8", "immediate"]
    assert names("kl immediate exact") == [*plain, "kl immediate exact"]
    assert names("K=4") == plain
    assert names("kl immediate exact", "K=1") == ["K=1"]
    assert names("K=2 - leave-one-out", rollouts_per_prompt=1) == plain
    assert names("score") == plain
