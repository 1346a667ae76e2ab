"""The probe: it measures what the engine measures, records it whole, and leaves the training as it found it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

import kvar
from kvar.analysis.frames.recorded import by_position_of, statistics_of
from kvar.gradients import gradient_moments
from kvar.gradients.frames import moments_from_frames, values_from_frame
from kvar.hooks import Estimator, GradientProbe, Recorder, estimator_weights, parse_estimators
from kvar.records import RecordsWarning, RunWriter
from kvar.returns import Immediate, KStep, returns
from kvar.rollouts import score
from tests.cases import ragged_prompts, tiny_gpt2, tiny_t5

KERNELS = [KStep(1), KStep(2), Immediate(), Estimator(KStep(1), "leave-one-out")]


def probe(**changes: Any) -> GradientProbe:
    settings = {"teacher": tiny_t5(seed=1), "every": 2, "rollouts_per_prompt": 2, "max_new_tokens": 5, **changes}
    return GradientProbe(ragged_prompts(), KERNELS, **settings)


def test_measure_equals_the_engine_on_its_own_rollouts() -> None:
    student, teacher = tiny_t5(), tiny_t5(seed=1)
    got = probe(teacher=teacher).measure(student, step=3)
    values = score(teacher, got.rollouts)
    weights = returns(values, got.rollouts.mask, [KStep(1), KStep(2), Immediate()])
    truth = gradient_moments(student, got.rollouts, weights, engine="loop")
    torch.testing.assert_close(got.moments.pair[:3, :3], truth.pair, rtol=1e-4, atol=1e-5)
    assert got.moments.names == ("K=1", "K=2", "immediate", "K=1 - leave-one-out")
    assert got.rollouts.prompt_index.tolist() == [0, 0, 1, 1, 2, 2]


def test_fresh_rollouts_each_step_and_the_same_for_one_step() -> None:
    student, it = tiny_t5(), probe()
    one, again, other = it.measure(student, 1), it.measure(student, 1), it.measure(student, 2)
    assert torch.equal(one.rollouts.tokens, again.rollouts.tokens)
    assert not torch.equal(one.rollouts.log_probs, other.rollouts.log_probs)


class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 16

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        ids = torch.tensor([3 + i % 5, 4, 5, 1])
        return {"input_ids": ids, "labels": ids}


def foreign_trainer(folder: Path, model: torch.nn.Module, callbacks: list) -> Trainer:
    """A plain transformers Trainer, nothing of ours."""
    args = TrainingArguments(
        output_dir=str(folder), max_steps=6, per_device_train_batch_size=4, use_cpu=True, report_to="none",
        disable_tqdm=True, save_strategy="no", logging_steps=2, learning_rate=1e-2,
    )  # fmt: skip
    return Trainer(model=model, args=args, train_dataset=Rows(), callbacks=callbacks)


@pytest.mark.parametrize(
    ("changes", "steps"), [({}, [0, 4, 6]), ({"first": False}, [4, 6]), ({"every": 100, "first": False}, [6])]
)
def test_the_last_step_is_always_measured_and_the_first_where_asked(tmp_path: Path, changes: dict, steps: list) -> None:
    student = tiny_t5()
    it = probe(**{"every": 4, **changes})
    foreign_trainer(tmp_path, student, [it]).train()
    assert [m.step for m in it.measurements] == steps


@pytest.mark.parametrize("make", [tiny_t5, tiny_gpt2])
def test_a_probed_training_ends_with_the_same_weights(tmp_path: Path, make: Any) -> None:
    dropout = {"dropout_rate": 0.3} if make is tiny_t5 else {"resid_pdrop": 0.3}
    ends = []
    for probes in ([], [probe(teacher=make(seed=1))]):
        trainer = foreign_trainer(tmp_path, make(**dropout), probes)
        trainer.train()
        ends.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert torch.equal(*ends)
    assert [m.step for m in probes[0].measurements] == [0, 2, 4, 6]


def test_records_give_the_measurement_back(tmp_path: Path) -> None:
    student, it = tiny_t5(), probe(groups={"decoder": "decoder"})
    with RunWriter(tmp_path / "run", {"parameters": 5}) as writer:
        it.writer = writer
        got = it.measure(student, 4)
        it.record(got)
        it.record(got)  # a repeated record replaces, never repeats
    run = kvar.load(tmp_path / "run")
    assert len(run.trajectories) == int(got.rollouts.mask.sum())
    back = moments_from_frames(run.gradients, run.prompt_gradients)
    assert back.names == got.moments.names
    for group in ("all", "decoder"):
        for field in ("sq_norm", "mean_pair", "alignment", "cross", "pair", "prompt_pair"):
            torch.testing.assert_close(
                getattr(back[group], field), getattr(got.moments[group], field), rtol=1e-5, atol=1e-5
            )
    values, mask = values_from_frame(run.trajectories)
    assert torch.equal(mask, got.rollouts.mask)
    torch.testing.assert_close(values.gap, got.values.gap.double(), rtol=1e-6, atol=1e-6)
    frame = statistics_of(run, "tiny")
    ratio = frame[(frame.statistic == "trace_ratio") & (frame.group == "all")].set_index("kernel")
    assert ratio.loc["K=1", "value"] == 1.0
    assert ratio["k"].isna().tolist() == [False, False, False, True]


def test_recorder_keeps_what_a_trainer_logs(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", {"parameters": 5}) as writer:
        foreign_trainer(tmp_path, tiny_gpt2(), [Recorder(writer)]).train()
    metrics = kvar.load(tmp_path / "run").metrics
    losses = metrics[metrics["name"] == "loss"]
    assert losses["step"].tolist() == [2, 4, 6] and set(losses["split"]) == {"train"}


def test_a_reward_in_place_of_a_teacher() -> None:
    """theory.md (4'): any per-token reward under the same kernels."""
    student = tiny_t5()
    it = GradientProbe(
        ragged_prompts(), [KStep(1), Immediate()], reward=lambda r: r.tokens.float(), max_new_tokens=5,
        rollouts_per_prompt=2,
    )  # fmt: skip
    got = it.measure(student)
    mask = got.rollouts.mask
    weights = estimator_weights(it.estimators, got.values, mask, got.rollouts.prompt_index)
    torch.testing.assert_close(weights[1], got.rollouts.tokens.float() * mask)
    tail = (got.rollouts.tokens.float() * mask).flip(1).cumsum(1).flip(1) * mask
    torch.testing.assert_close(weights[0], tail)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher": None}, "exactly one of teacher= and reward="),
        ({"reward": lambda r: r.log_probs}, "exactly one of teacher= and reward="),
        ({"every": 0}, "every must be at least 1 training step; got 0"),
    ],
)
def test_bad_settings(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        probe(**change)


def test_no_prompts_and_no_estimators() -> None:
    with pytest.raises(ValueError, match="prompts is empty"):
        GradientProbe([], KERNELS, teacher=tiny_t5())
    with pytest.raises(ValueError, match="kernels must be one or more, each once; got K=1, K=1"):
        GradientProbe(ragged_prompts(), [KStep(1), KStep(1)], teacher=tiny_t5())


def test_estimators_from_text() -> None:
    assert parse_estimators("K=1, inf", "batch-mean") == [
        Estimator(KStep(1), "batch-mean"),
        Estimator(Immediate(), "batch-mean"),
    ]
    for text, message in (("", "empty"), ("1, K=1", "K=1 twice"), ("K=0", "k must be an integer")):
        with pytest.raises(ValueError, match=message):
            parse_estimators(text)


def test_layers_and_ranges_of_positions_are_measured_and_recorded(tmp_path: Path) -> None:
    """The records give both back, and leave the ranges out of the table of whole estimators."""
    with RunWriter(tmp_path, {"parameters": 1}) as writer:
        it = probe(writer=writer, groups="layers", position_bins=3)
        measured = it.measure(tiny_t5())
        it.record(measured)
    assert {"all", "embeddings", "encoder.block.0", "decoder.block.0"} <= set(measured.moments.groups)
    names, means = measured.moments.names, measured.moments.mean_pair
    parts = [i for i, name in enumerate(names) if name.startswith("K=2 @")]
    assert len(parts) > 1 and names[1] == "K=2"
    assert float(means[parts][:, parts].sum()) == pytest.approx(float(means[1, 1]), rel=1e-4)
    run = kvar.load(tmp_path)
    frame = statistics_of(run, "tiny")
    assert set(frame["group"]) == set(measured.moments.groups)
    assert set(frame["kernel"]) == {"K=1", "K=2", "immediate", "K=1 - leave-one-out"}
    table = by_position_of(run, "tiny")
    assert table.groupby("kernel")["share"].sum().to_numpy() == pytest.approx(1.0)


def test_other_groups_and_negative_bins_are_refused() -> None:
    for change, match in (({"groups": "heads"}, "groups must be a mapping"), ({"position_bins": -1}, "position_bins")):
        with pytest.raises(ValueError, match=match):
            probe(**change)


def test_a_probe_given_to_a_second_training_measures_anew(tmp_path: Path) -> None:
    """A notebook's cell run again, and a training that goes on from a checkpoint with the same object."""
    it = probe()
    for seed in (0, 5):
        before = len(it.measurements)
        foreign_trainer(tmp_path, tiny_t5(seed=seed), [it]).train()
        assert [m.step for m in it.measurements[before:]] == [0, 2, 4, 6]
        alone = it.measure(tiny_t5(seed=seed), 0)
        torch.testing.assert_close(it.measurements[before].moments.pair, alone.moments.pair)
    state, args = TrainerState(global_step=3), TrainingArguments("unused", use_cpu=True, report_to="none")
    it.on_train_begin(args, state, TrainerControl(), model=tiny_t5())
    assert [m.step for m in it.measurements] == [0, 2, 4, 6, 0, 2]  # the first training's stay
    state.global_step = 4
    for _ in range(2):
        it.on_step_end(args, state, TrainerControl(), model=tiny_t5())
    assert [m.step for m in it.measurements[4:]] == [0, 2, 4]


def test_records_of_a_second_training_are_its_own(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", {"parameters": 5}) as writer:
        it, recorder = probe(writer=writer), Recorder(writer)
        foreign_trainer(tmp_path, tiny_t5(), [it, recorder]).train()
        first = kvar.load(tmp_path / "run")
        assert first.measurements() == [("probe", step) for step in (0, 2, 4, 6)]
        assert len(first.metrics)
        shorter = foreign_trainer(tmp_path, tiny_t5(seed=5), [it, recorder])
        shorter.args.max_steps = 2
        with pytest.warns(RecordsWarning, match="of an earlier training"):
            shorter.train()
    run = kvar.load(tmp_path / "run")
    assert run.measurements() == [("probe", 0), ("probe", 2)]
    assert run.metrics["step"].max() == 2
    alone = it.measure(tiny_t5(seed=5), 0)
    gap = run.metrics.query("name == 'total_gap' and step == 0")["value"].item()
    assert gap == pytest.approx(float(alone.values.gap.sum(dim=1).mean()), rel=1e-6)


class Words:
    """A tokenizer that knows a prompt's words by number, shifted."""

    eos_token_id, pad_token_id = 1, 0

    def __init__(self, shift: int) -> None:
        self.shift = shift

    def __call__(self, texts: list[str], **options: Any) -> dict[str, torch.Tensor]:
        ids = torch.tensor([[int(w) + self.shift for w in text.split() if w.isdigit()] for text in texts])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def test_each_trainings_own_tokenizer_encodes_the_prompts() -> None:
    it = GradientProbe(["3 4", "5 6"], KERNELS, teacher=tiny_t5(seed=1), rollouts_per_prompt=2, max_new_tokens=3)
    args = TrainingArguments("unused", use_cpu=True, report_to="none")
    for shift in (0, 2):
        it.on_train_begin(args, TrainerState(), TrainerControl(), model=tiny_t5(), processing_class=Words(shift))
        assert it.measurements[-1].rollouts.prompt_ids[0].tolist() == [3 + shift, 4 + shift]


def test_prompts_without_room_are_refused_before_training(tmp_path: Path) -> None:
    """64 positions: the third prompt's 4 tokens leave 60, also where only the last step is measured."""
    it = probe(teacher=tiny_gpt2(seed=1), first=False, max_new_tokens=61)
    student = tiny_gpt2()
    start = student.transformer.wte.weight.clone()
    with pytest.raises(ValueError, match=r"prompt 2 of the probe 'probe' has 4 tokens and max_new.* is 61.*64 pos"):
        foreign_trainer(tmp_path, student, [it]).train()
    assert torch.equal(student.transformer.wte.weight, start)


def test_a_training_causal_students_probe_prompts_have_no_end() -> None:
    from tests.cases import tiny_gpt2
    from tests.rollouts.tokenizers_by_hand import characters

    around = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<p>"}
    tokenizer = characters(["<p>", "<s>", "</s>"], single="<s> $A </s>", **around)
    student, teacher = (tiny_gpt2(len(tokenizer), seed=seed, eos_token_id=2) for seed in (0, 1))
    it = GradientProbe(["ab"], KERNELS, teacher=teacher, rollouts_per_prompt=2, max_new_tokens=3)
    args = TrainingArguments("unused", use_cpu=True, report_to="none")
    it.on_train_begin(args, TrainerState(), TrainerControl(), model=student, processing_class=tokenizer)
    assert it.measurements[-1].rollouts.prompt_ids[0].tolist() == [1, *tokenizer.convert_tokens_to_ids(["a", "b"])]
