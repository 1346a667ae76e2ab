"""The free probe: what it reads off a training step is the head's gradient, and it costs and changes little."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

import kvar
from kvar.estimators import gather
from kvar.gradients import gradient_moments
from kvar.gradients.output_layer.head_watch import HeadWatch
from kvar.hooks import Estimator, OutputLayerProbe, StepStatistics, estimator_weights
from kvar.records import RunWriter
from kvar.returns import Immediate, KStep, TokenValues
from kvar.rollouts import log_probs, sample, score
from tests.cases import CASES, MODELS, build, ragged_prompts, rollouts, tiny_gpt2, tiny_llama, tiny_t5
from tests.gradients.truth import assert_close, weights

KERNELS = [KStep(1), KStep(2), Immediate(), Estimator(KStep(1), "batch-mean")]


class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 64

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {"labels": torch.tensor(i)}


class OwnTrainer(Trainer):
    """A REINFORCE trainer of somebody's own: samples, scores, runs forward, hands over."""

    teacher: Any
    probe: OutputLayerProbe
    seen: list

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        data = sample(model, ragged_prompts(), rollouts_per_prompt=2, max_new_tokens=5, seed=self.state.global_step)
        values = score(self.teacher, data)
        log_pi = log_probs(model, data)
        self.seen.append((data, values, {k: v.clone() for k, v in model.state_dict().items()}))
        if self.probe is not None:
            self.probe.on_rollouts(data, values)
        return (values.gap.detach() * log_pi).sum() / 10


def own_trainer(folder: Path, make: Any, probe: OutputLayerProbe | None, **changes: Any) -> OwnTrainer:
    settings = {
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "save_strategy": "no",
        **changes,
    }
    args = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        **settings,
    )
    trainer = OwnTrainer(model=make(), args=args, train_dataset=Rows(), callbacks=[probe] if probe else [])
    trainer.teacher, trainer.probe, trainer.seen = make(seed=1), probe, []
    return trainer


@pytest.mark.parametrize("name", ["t5-v1.1", "gpt2", "bart", "smollm"])
def test_the_watched_pass_gives_the_heads_own_gradient(name: str) -> None:
    """Every field, ragged prompts and responses; a tied head is untied first, since its own use is what is measured."""
    model, data = build(name), rollouts(n=7)
    w = weights(data)
    with HeadWatch(model) as watch:
        log_probs(model, data)
        got = watch.moments(data, w)
        log_probs(model, data)
        norms = watch.norms(data, w)
    torch.testing.assert_close(norms, got.sq_norm, rtol=1e-9, atol=0)
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    truth = gradient_moments(model, data, w, groups={"output": [head.weight]}, engine="loop", score_power=True)
    assert_close({"output": got}, {"output": truth["output"]}, max(CASES[name].tolerance, 1e-9))


@pytest.mark.parametrize("make", [tiny_t5, tiny_gpt2])
def test_each_step_of_anyones_trainer_is_measured(tmp_path: Path, make: Any) -> None:
    probe = OutputLayerProbe(KERNELS, means_every=2)
    trainer = own_trainer(tmp_path, make, probe)
    trainer.train()
    assert [m.step for m in probe.measurements] == [0, 1, 2, 3]
    for found, (data, values, state) in zip(probe.measurements, trainer.seen, strict=True):
        student = make()
        student.load_state_dict(state)
        head = student.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        w = estimator_weights(probe.estimators, values, data.mask, data.prompt_index)
        truth = gradient_moments(student, data, w, groups={"output": [head.weight]}, engine="loop")["output"]
        torch.testing.assert_close(found.power, truth.sq_norm.mean(dim=1), rtol=1e-4, atol=1e-6)
        assert (found.inner is None) == (found.step % 2 == 1)
        if found.inner is not None:
            other = data.prompt_index[:, None] != data.prompt_index
            inner = _gram(student, data, w, head.weight)[:, :, other].mean(dim=-1)
            torch.testing.assert_close(found.inner, inner, rtol=1e-3, atol=1e-4 * float(truth.sq_norm.mean()))


def _gram(student: Any, data: Any, w: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(E, E, N, N) inner products of all pairs of trajectories."""
    log_pi = log_probs(student, data)
    rows = [
        [torch.autograd.grad((w[e, i] * log_pi[i]).sum(), weight, retain_graph=True)[0].flatten().double()
         for i in range(len(data))]
        for e in range(len(w))
    ]  # fmt: skip
    g = torch.stack([torch.stack(r) for r in rows])
    return torch.einsum("eip,fjp->efij", g, g)


def test_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    ends = []
    for probe in (None, OutputLayerProbe(KERNELS, every=2)):
        trainer = own_trainer(tmp_path, lambda seed=0: tiny_t5(seed=seed, dropout_rate=0.3), probe)
        trainer.train()
        ends.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert torch.equal(*ends)
    assert probe is not None
    assert [m.step for m in probe.measurements] == [0, 2]
    assert not trainer.model.get_output_embeddings()._forward_hooks


def test_micro_batches_and_records(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", {"parameters": 5}) as writer:
        probe = OutputLayerProbe(KERNELS, writer=writer, means_every=2)
        trainer = own_trainer(tmp_path, tiny_t5, probe, gradient_accumulation_steps=2, max_steps=3)
        trainer.train()
    metrics = kvar.load(tmp_path / "run").metrics
    rows = metrics[metrics["split"] == "output-layer"]
    assert sorted(rows["step"].unique()) == [0, 1, 2]
    assert (rows.loc[rows["name"] == "n", "value"] == 12).all()  # two micro-batches of six
    assert {"power K=1", "signal immediate", "inner K=2", "power K=1 - batch-mean"} <= set(rows["name"])
    assert rows.loc[rows["name"] == "signal K=1", "step"].tolist() == [0, 2]


def test_a_second_training_and_a_resumed_one_are_measured_anew(tmp_path: Path) -> None:
    """What a broken-off training left unwritten, or measured past the checkpoint, is not taken for the next one's."""
    plain = OutputLayerProbe(KERNELS)
    for _ in range(2):
        own_trainer(tmp_path, tiny_t5, plain, max_steps=2).train()
    assert [m.step for m in plain.measurements] == [0, 1, 0, 1]
    args, control = TrainingArguments("unused", use_cpu=True, report_to="none"), TrainerControl()
    plain.on_train_begin(args, TrainerState(global_step=1), control, model=tiny_t5())
    assert [m.step for m in plain.measurements] == [0, 1, 0]
    with RunWriter(tmp_path / "run", {"parameters": 5}) as writer:
        probe = OutputLayerProbe(KERNELS, writer=writer)
        probe._pending = [StepStatistics(step, torch.ones(4), None, 6, 0.0) for step in (0, 1, 2)]
        own_trainer(tmp_path, tiny_t5, probe, max_steps=2).train()
    rows = kvar.load(tmp_path / "run").metrics
    assert sorted(rows["step"].unique()) == [0, 1]
    assert (rows.loc[rows["name"] == "n", "value"] == 6).all()


def test_only_the_first_process_measures() -> None:
    student = tiny_t5()
    data = sample(student, ragged_prompts(), max_new_tokens=5)
    values, args = score(tiny_t5(seed=1), data), TrainingArguments("unused", use_cpu=True, report_to="none")
    for first in (True, False):
        probe, state = OutputLayerProbe(KERNELS), TrainerState(is_world_process_zero=first)
        probe.on_train_begin(args, state, TrainerControl(), model=student)
        log_probs(student.train(), data)
        probe.on_rollouts(data, values)
        probe.on_train_end(args, state, TrainerControl())
        assert len(probe.measurements) == int(first)
    with pytest.raises(ValueError, match="not in a training yet"):
        OutputLayerProbe(KERNELS).on_rollouts(data, values)


def test_distillation_trainer_hands_over(tmp_path: Path) -> None:
    from tests.distill.trainer.test_trainer import T5, TASK, trainer

    probe = OutputLayerProbe([KStep(1), KStep(2)])
    run = trainer(
        tmp_path, TASK.build_tokenizer(), T5, T5, objective="ketchup", max_steps=3, save_strategy="no", max_new_tokens=6
    )
    run.add_callback(probe)
    run.train()
    assert [m.step for m in probe.measurements] == [0, 1, 2]
    assert all(bool((m.power > 0).all()) for m in probe.measurements)


@pytest.mark.parametrize("name", MODELS)
def test_hidden_states_are_aligned(name: str) -> None:
    student = MODELS[name]()
    data = sample(student, ragged_prompts(), rollouts_per_prompt=2, max_new_tokens=5)
    with HeadWatch(student) as watch:
        expected = log_probs(student, data)
        _, logits = watch.aligned(data)
    got = logits.log_softmax(-1).gather(-1, data.tokens[..., None])[..., 0].masked_fill(~data.mask, 0.0)
    torch.testing.assert_close(got, expected)


def test_what_cannot_be_measured_is_refused() -> None:
    data = sample(tiny_t5(), ragged_prompts(), max_new_tokens=5)
    w = torch.ones(1, *data.tokens.shape)
    with HeadWatch(tiny_t5()) as watch, pytest.raises(ValueError, match="ran in no forward pass"):
        watch.moments(data, w)
    student = tiny_t5()
    with HeadWatch(student, training_only=True) as watch:
        with torch.no_grad():
            log_probs(student.train(), data)
        with pytest.raises(ValueError, match="ran in no forward pass"):
            watch.moments(data, w)
        log_probs(student, data)
        with pytest.raises(ValueError, match="not kvar's pass over 2 rollouts"):
            watch.moments(data[:2], w[:, :2])
    capped = tiny_llama()
    capped.config.final_logit_softcapping = 30.0
    with pytest.raises(ValueError, match="final_logit_softcapping = 30.0"):
        HeadWatch(capped)
    with pytest.raises(ValueError, match="names no output layer"):
        HeadWatch(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="distinct names"):
        OutputLayerProbe([])
    with pytest.raises(ValueError, match="every must be at least 1; got 0"):
        OutputLayerProbe(KERNELS, every=0)


class Evening(OwnTrainer):
    """Its first prompt's two responses are repeats that only even out the processes' batches: no token counts."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        data = sample(model, ragged_prompts(), rollouts_per_prompt=2, max_new_tokens=5, seed=self.state.global_step)
        data = replace(data, mask=data.mask & (data.prompt_index > 0)[:, None])
        values = score(self.teacher, data)
        log_pi = log_probs(model, data)
        kept = data.prompt_index > 0
        state = {k: v.clone() for k, v in model.state_dict().items()}
        self.seen.append((data[kept], TokenValues(values.q[kept], values.v[kept]), state))
        self.probe.on_rollouts(data, values)
        self.probe.on_rollouts(replace(data, mask=torch.zeros_like(data.mask)), values)  # nothing but repeats
        return (values.gap.detach() * log_pi).sum() / 10


@pytest.mark.parametrize("means_every", [1, 100])
def test_repeats_that_even_out_processes_are_no_sample(tmp_path: Path, means_every: int) -> None:
    probe = OutputLayerProbe(KERNELS, means_every=means_every)
    trainer = own_trainer(tmp_path, tiny_gpt2, None, max_steps=2)
    evening = Evening(
        model=trainer.model, args=trainer.args, train_dataset=Rows(), callbacks=[probe], processing_class=None
    )
    evening.teacher, evening.probe, evening.seen = trainer.teacher, probe, []
    evening.train()
    assert [m.step for m in probe.measurements] == [0, 1]
    for found, (data, values, state) in zip(probe.measurements, evening.seen, strict=True):
        assert found.n == len(data) == 2 * (len(ragged_prompts()[0]) - 1)
        student = tiny_gpt2()
        student.load_state_dict(state)
        head = student.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        w = estimator_weights(probe.estimators, values, data.mask, data.prompt_index)
        gram = _gram(student, data, w, head.weight)
        power = torch.stack([gram[e, e].diagonal().mean() for e in range(len(KERNELS))])
        torch.testing.assert_close(found.power.double(), power, rtol=1e-4, atol=1e-6)
        if found.inner is not None:
            other = data.prompt_index[:, None] != data.prompt_index
            inner = gram[:, :, other].mean(dim=-1)
            torch.testing.assert_close(found.inner, inner, rtol=1e-3, atol=1e-4 * float(power.mean()))


@pytest.mark.parametrize("make", [tiny_t5, tiny_gpt2])
def test_exact_terms_at_each_step(tmp_path: Path, make: Any) -> None:
    names = "K=2, kl immediate exact, kl K=1 exact expected - leave-one-out"
    teacher = make(seed=1)
    probe = OutputLayerProbe(names, teacher=teacher, means_every=2)
    trainer = own_trainer(tmp_path, make, probe)
    trainer.train()
    assert [m.step for m in probe.measurements] == [0, 1, 2, 3]
    for found, (data, _, state) in zip(probe.measurements, trainer.seen, strict=True):
        student = make()
        student.load_state_dict(state)
        estimators = probe.estimators
        evidence = gather(student, teacher, data, estimators=estimators)
        head = student.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        truth = gradient_moments(student, data, (evidence, estimators), groups={"output": [head.weight]}, engine="loop")
        torch.testing.assert_close(found.power, truth["output"].sq_norm.mean(dim=1), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match=r"'kl immediate exact' is more than a weight by q and V.* with teacher="):
        OutputLayerProbe(names)
    with pytest.raises(ValueError, match="scores whole responses, of which a step has few"):
        OutputLayerProbe("score - leave-one-out", teacher=teacher)
