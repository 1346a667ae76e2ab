"""Scalars against the moments worked out by hand, their names, and how a trainer logs them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from kvar.gradients import GradientMoments
from kvar.gradients.moments import GroupMoments
from kvar.hooks import GradientProbe, Measurement, TrainerLog, scalars
from kvar.hooks.scalars import slugs
from kvar.hooks.trainer_log import step_design
from kvar.returns import TokenValues
from kvar.rollouts import Rollouts
from tests.cases import ragged_prompts, tiny_t5
from tests.hooks.test_probe import Rows


def measured(gradients: torch.Tensor, prompt_index: torch.Tensor, names: tuple[str, ...]) -> Measurement:
    """A measurement of E estimators whose (E, N, P) gradients are given."""
    n = gradients.shape[1]
    mean = gradients.mean(dim=1)
    pair = torch.einsum("enp,fnp->efn", gradients, gradients)
    cross = torch.einsum("enp,fp->efn", gradients, mean)
    by_prompt = torch.stack([gradients[:, prompt_index == m].mean(dim=1) for m in prompt_index.unique()])
    prompt_pair = torch.einsum("mep,mfp->efm", by_prompt, by_prompt)
    moments = GroupMoments.of_products(mean @ mean.T, cross, pair, prompt_pair)
    mask = torch.ones(n, 2, dtype=torch.bool)
    mask[0, 1] = False
    tokens = torch.zeros(n, 2, dtype=torch.long)
    ids, one = prompt_index[:, None], torch.ones(n, 1, dtype=torch.bool)
    rollouts = Rollouts(ids, one, tokens, mask, mask[:, 1], prompt_index, mask.float())
    values = TokenValues(torch.zeros(n, 2), mask.float())
    return Measurement(7, rollouts, values, GradientMoments(names, {"all": moments}, prompt_index), 0.25)


def two_estimators(prompts: int = 12, rollouts: int = 1) -> tuple[torch.Tensor, Measurement]:
    """K=1, and an estimator of another direction with less noise."""
    n = prompts * rollouts
    noise = torch.randn(n, 3, generator=torch.Generator().manual_seed(0)).double()
    first = torch.tensor([4.0, 0.0, 0.0]) + noise
    second = torch.tensor([4.0, 2.0, 0.0]) + noise / 2
    gradients = torch.stack([first, second])
    return gradients, measured(gradients, torch.arange(prompts).repeat_interleave(rollouts), ("K=1", "K=4"))


def by_numpy(g: np.ndarray, batch: int) -> dict[str, np.ndarray]:
    """Each ratio as its page states it, of (E, N, P) gradients of one response a prompt."""
    n = g.shape[1]
    trace = g.var(axis=1, ddof=1).sum(axis=1)
    gram = np.einsum("enp,fmp->efnm", g, g)
    inner = (gram.sum(axis=(2, 3)) - np.trace(gram, axis1=2, axis2=3)) / (n * (n - 1))  # pairs of distinct ones
    signal, bias = inner.diagonal(), inner.diagonal() + inner[0, 0] - 2 * inner[0]
    return {
        "relative_variance": trace / signal,
        "noise_scale": trace / signal,
        "snr": signal / (trace / batch),
        "efficiency": inner[0] ** 2 / ((signal + trace / batch) * inner[0, 0]),
        "bias_share": bias / (bias + trace / batch),
    }


def test_the_numbers_by_hand() -> None:
    gradients, measurement = two_estimators()
    got = scalars(measurement, batch=6)
    g = gradients.numpy()
    whole, n = by_numpy(g, 6), 12
    parts = [by_numpy(np.delete(g, i, axis=1), 6)["efficiency"] for i in range(n)]
    whole["efficiency"] = n * whole["efficiency"] - (n - 1) * np.mean(parts, axis=0)  # the jackknife's correction
    for e, slug in enumerate(("K1", "K4")):
        for statistic, values in whole.items():
            left_out = statistic == "relative_variance" or (statistic, slug) == ("bias_share", "K1")
            assert (f"kvar/{statistic}/{slug}" not in got) == left_out
            assert left_out or got[f"kvar/{statistic}/{slug}"] == pytest.approx(values[e], abs=1e-9), statistic
        assert got[f"kvar/efficiency_low/{slug}"] < whole["efficiency"][e] < got[f"kvar/efficiency_high/{slug}"]
    assert got["kvar/best_probability/K1"] + got["kvar/best_probability/K4"] == pytest.approx(1.0)
    assert got["kvar/batch"] == 6
    best = int(got["kvar/best/estimator"])
    assert got["kvar/best/probability"] == got[f"kvar/best_probability/{('K1', 'K4')[best]}"] >= 0.5
    assert got["kvar/response_length"] == pytest.approx((2 * 12 - 1) / 12) == got["kvar/total_gap"]
    assert got["kvar/finished"] == pytest.approx(11 / 12) and got["kvar/seconds"] == 0.25
    zero = torch.zeros_like(measurement.values.q)
    without_teacher = scalars(replace(measurement, values=TokenValues(zero, zero)), batch=6)
    assert set(got) - set(without_teacher) == {"kvar/total_gap"}


def test_the_noise_scale_is_for_the_rollouts_of_a_step() -> None:
    """theory.md (9): B* = R (between + within / R) / |E g|^2."""
    gradients, measurement = two_estimators(prompts=6, rollouts=3)
    got = scalars(measurement, batch=6, rollouts_per_prompt=2)
    of = measurement.statistics(6, rollouts_per_prompt=2).set_index(["statistic", "kernel"])["value"]
    for name, slug in (("K=1", "K1"), ("K=4", "K4")):
        step = of["between", name] + of["within", name] / 2
        assert got[f"kvar/noise_scale/{slug}"] == pytest.approx(2 * step / of["signal", name])
        assert got[f"kvar/relative_variance/{slug}"] == pytest.approx(of["trace", name] / of["signal", name])
    single = measured(gradients, torch.arange(18), ("K=1", "K=4"))
    assert scalars(single, 6, rollouts_per_prompt=2) == scalars(single, 6)  # within a prompt is not known


def test_what_is_not_resolved_is_left_out_and_nothing_is_infinite() -> None:
    gradients, measurement = two_estimators()
    flat = gradients - gradients.mean(dim=1, keepdim=True)  # no signal: the estimate of |E g|^2 is negative
    got = scalars(measured(flat, torch.arange(12), ("K=1", "K=4")), batch=6)
    left = {name.split("/")[1] for name in got if name.endswith("K4")}
    assert left == {"snr", "bias_share"} and got["kvar/snr/K4"] < 0
    assert not {"kvar/best/estimator", "kvar/best/probability"} & set(got)
    for numbers in (got, scalars(measurement, 6)):
        assert all(math.isfinite(x) for x in numbers.values())
    norms = replace(measurement.moments["all"], cross=None, pair=None, alignment=None, prompt_pair=None)
    bare = replace(measurement, moments=replace(measurement.moments, groups={"all": norms}))
    assert {"kvar/noise_scale/K1", "kvar/snr/K4"} <= set(scalars(bare, 6, rollouts_per_prompt=2))


def test_a_trainers_own_scale_is_not_held_beside_others() -> None:
    """Whatever the loss's factor is, no number of any estimator changes, and none needs it."""
    gradients, _ = two_estimators()
    names = ("trained", "K=1", "K=4")
    index = torch.arange(12)
    got = []
    for factor in (1.0, 1e-3):
        measurement = measured(torch.cat([factor * gradients[1:], gradients]), index, names)
        table = measurement.table(6).set_index("kernel")
        assert table.loc["trained", ["trace_ratio", "bias_sq", "mse", "mse_best_probability"]].isna().all()
        assert table.loc["trained", "trace"] == pytest.approx(factor**2 * table.loc["K=4", "trace"])
        assert table.loc["K=1", "trace_ratio"] == 1.0 and table.attrs["reference"] == "K=1"
        assert table["mse_best_probability"].sum() == pytest.approx(1.0)
        best = measurement.best_k(6).set_index("kernel")
        assert np.isnan(best.loc["trained", "mse"]) and best.loc["trained", "efficiency"] > 0
        own = measurement.table(6, target="trained").set_index("kernel")["bias_sq"]
        assert own["trained"] == 0 and own[["K=1", "K=4"]].isna().all()
        text = str(measurement)
        row = next(line for line in text.splitlines() if line.startswith("trained") and "[" in line)
        assert row.split()[1] == "-" and "Its scale is that of the loss" in " ".join(text.split())
        got.append(scalars(measurement, 6))
    assert "kvar/bias_share/trained" not in got[0] and got[0]["kvar/noise_scale/trained"] > 0
    assert got[0] == pytest.approx(got[1])
    alone = measured(torch.cat([gradients[1:], gradients[:1]]), index, ("trained", "score - leave-one-out"))
    assert alone.table(6).set_index("kernel")["trace_ratio"]["score - leave-one-out"] == 1.0


def test_names_are_made_of_characters_that_trackers_keep() -> None:
    assert slugs(["K=1", "immediate", "kl geometric(0.9)", "K=4 free - teacher-value"]) == [
        "K1", "immediate", "kl_geometric_0.9", "K4_free_teacher-value",
    ]  # fmt: skip
    assert slugs(["é", "ü", "a b", "a, b"]) == ["estimator", "estimator_2", "a_b", "a_b_2"]
    _, measurement = two_estimators()
    with_more = replace(measurement, config={"numbers": {"effective_sample_size": 0.5}})
    assert scalars(with_more, 6, prefix="kvar/mine")["kvar/mine/effective_sample_size"] == 0.5


def trainer_of(folder: Path, *callbacks: Any, model: Any = None, **changes: Any) -> Trainer:
    settings = {
        "max_steps": 6, "logging_steps": 2, "report_to": "none", "save_strategy": "no", "learning_rate": 1e-2, **changes
    }  # fmt: skip
    args = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=4, use_cpu=True, disable_tqdm=True, **settings
    )
    return Trainer(
        model=model or tiny_t5(), args=args, train_dataset=Rows(), eval_dataset=Rows(), callbacks=list(callbacks)
    )


def watched(trainer: Trainer, **changes: Any) -> GradientProbe:
    settings = {"every": 2, "rollouts_per_prompt": 2, "max_new_tokens": 5, "teacher": tiny_t5(seed=1), **changes}
    probe = GradientProbe(ragged_prompts(), ["K=1", "K=4"], **settings)
    probe.listeners.append(TrainerLog(trainer))
    trainer.add_callback(probe)
    return probe


def logged(trainer: Trainer) -> list[int]:
    return [entry["step"] for entry in trainer.state.log_history if "kvar/response_length" in entry]


def test_a_trainers_own_log_of_the_step_is_still_made_and_ends_the_history(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    probe = watched(trainer)
    trainer.train()
    history = trainer.state.log_history
    assert logged(trainer) == [0, 2, 4, 6] == sorted(probe.history["step"].unique())
    assert [entry["step"] for entry in history if "loss" in entry] == [2, 4, 6]
    assert "train_loss" in history[-1]
    for measurement in probe.measurements:
        entry = next(e for e in history if e["step"] == measurement.step and "kvar/seconds" in e)
        assert entry.items() >= scalars(measurement, batch=4).items()


class Broken(TrainerCallback):
    def __init__(self) -> None:
        self.calls = 0

    def on_log(self, *args: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "kvar/seconds" in logs:
            self.calls += 1
            raise ConnectionError("the tracker is down")


class Seen(TrainerCallback):
    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "kvar/seconds" in logs:
            self.steps.append(state.global_step)


def test_a_tracker_that_fails_is_told_of_once_and_training_goes_on(tmp_path: Path) -> None:
    broken, seen = Broken(), Seen()
    trainer = trainer_of(tmp_path, broken, seen)
    watched(trainer)
    with pytest.warns(
        RuntimeWarning, match="Broken failed at step 0; training goes on. ConnectionError: the t"
    ) as told:
        trainer.train()
    assert sum("Broken" in str(one.message) for one in told) == 1
    assert broken.calls == 4 and seen.steps == [0, 2, 4, 6] == logged(trainer)
    assert trainer.state.global_step == 6


def test_a_listener_that_fails_stops_no_training(tmp_path: Path) -> None:
    def draw(measurement: Measurement) -> None:
        raise KeyError("efficiency")

    trainer = trainer_of(tmp_path, max_steps=2)
    watched(trainer).listeners.insert(0, draw)
    with pytest.warns(RuntimeWarning, match="draw failed at step 0; training goes on. KeyError: 'efficiency'") as told:
        trainer.train()
    assert sum("draw" in str(one.message) for one in told) == 1 and logged(trainer) == [0, 2]


def test_a_measurement_without_statistics_logs_its_responses(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    one = {"teacher": tiny_t5(seed=1), "rollouts_per_prompt": 1, "max_new_tokens": 3}
    probe = GradientProbe([[3, 4]], ["K=1"], **one)
    probe.listeners.append(TrainerLog(trainer))
    trainer.add_callback(probe)
    with pytest.warns(RuntimeWarning, match="statistics failed at step 0; .*at least two trajectories"):
        trainer.train()
    assert logged(trainer) == [0, 6] and not any("efficiency" in k for e in trainer.state.log_history for k in e)
    assert probe.history.empty


def test_a_resumed_training_logs_each_step_once(tmp_path: Path) -> None:
    first = trainer_of(tmp_path, save_strategy="steps", save_steps=4)
    watched(first)
    first.train()
    trainer = trainer_of(tmp_path)
    probe = watched(trainer)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert logged(trainer) == [0, 2, 4, 6] == logged(first)
    probe.listeners[0](probe.measurements[-1])  # as a training that resumes at its end measures again
    assert logged(trainer) == [0, 2, 4, 6]


def test_no_history_without_a_log() -> None:
    with pytest.raises(ValueError, match="attach it by kvar.watch"):
        _ = GradientProbe(ragged_prompts(), ["K=1"], teacher=tiny_t5()).history


def test_the_step_of_a_trainer(tmp_path: Path) -> None:
    args = TrainingArguments(str(tmp_path), per_device_train_batch_size=3, gradient_accumulation_steps=2, use_cpu=True)
    assert step_design(args) == (6, 1)
    args.num_generations = 3
    assert step_design(args) == (6, 3)
    args.rollouts_per_prompt = 4
    assert step_design(args) == (24, 4)
