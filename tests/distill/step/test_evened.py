"""Rows repeated so that processes run as many batches weigh nothing: weights, logs and losses are one process's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kvar.distill import DistillationConfig, DistillationTrainer, build_dataset, build_model
from kvar.distill.data.order import ShuffledExamples
from kvar.distill.step.evened import REPEATED, EvenedRows, EvenedSampler, MarkingCollator, check_evened
from tests.distill.step.ragged_worker import CASES, CUTS, T5, TASK, main, trained
from tests.two_processes import results

GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 96, "bos_token_id": 1}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    """What each of two processes ended with."""
    return results(main, tmp_path_factory.mktemp("two"))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_nine_rows_on_two_processes_end_where_one_process_does(two: Any, name: str, tmp_path: Path) -> None:
    """Steps of 4 + 4 + 1 rows: the last leaves one process, and one of two micro-batches, without a row of its own."""
    one = trained(tmp_path, *CUTS[1][0], **CASES[name])
    assert len(one["logs"]) == 6
    for cut in CUTS[2]:
        for process in two:
            got = process[name, cut]
            assert float((got["weights"] - one["weights"]).abs().max()) < 1e-5
            assert got["eval"] == pytest.approx(one["eval"], rel=1e-5, abs=1e-6)
            for log, truth in zip(got["logs"], one["logs"], strict=True):
                for number in {"loss", "loss_sft", "return", "response_length"} & truth.keys():
                    assert log[number] == pytest.approx(truth[number], rel=1e-4, abs=1e-5), number


def gradient(trainer: Any, rows: list[dict[str, Any]], repeated: list[bool] | None) -> tuple[torch.Tensor, float]:
    inputs = trainer.data_collator(rows)
    if repeated is not None:
        inputs[REPEATED] = torch.tensor(repeated)
    trainer.model.zero_grad()
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]), loss.item()


@pytest.mark.parametrize("family", [T5, {**GPT2, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}])
@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "ketchup", "baseline": "batch-mean", "normalisation": "sequence-mean"},
        {"objective": "ketchup", "baseline": "position-mean"},
        {"objective": "llmr", "baseline": "minimum-variance", "rollouts_per_prompt": 2, "entropy_weight": 0.1},
        {"objective": "llmr", "baseline": "leave-one-out", "rollouts_per_prompt": 2},
        {
            "objective": "policy-gradient",
            "estimator": "gap K=1 exact expected - position-mean",
            "length_normalised_returns": True,
        },
        {"objective": "policy-gradient", "estimator": "kl K=1 - group-normalised", "rollouts_per_prompt": 2},
        {"objective": "js + 0.1 sft", "normalisation": "sequence-token-mean"},
        {"objective": "seqkd + kl", "normalisation": "sequence-mean"},
    ],
    ids=lambda value: str(value.get("objective", value.get("model_type"))),
)
def test_a_repeated_row_changes_no_gradient_and_no_log(tmp_path: Path, family: dict, changes: dict) -> None:
    tokenizer: Any = TASK.build_tokenizer()
    args = DistillationConfig(
        output_dir=str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True, max_new_tokens=8, seqkd_beams=1,
        **changes,
    )  # fmt: skip
    student, teacher = (build_model(family, tokenizer, seed=seed).double() for seed in (0, 1))
    rows = build_dataset(TASK.examples("train", 3), tokenizer, max_target_tokens=8)
    trainer = DistillationTrainer(student, args, teacher=teacher, train_dataset=rows, processing_class=tokenizer)
    a, b, c = (rows[i] for i in range(3))
    truth, loss = gradient(trainer, [a, b], None)
    logs = trainer._logs.take()
    got, evened = gradient(trainer, [a, c, b, c], [False, True, False, True])
    assert float(truth.norm()) > 1e-6
    torch.testing.assert_close(got, truth, rtol=0, atol=1e-12 * max(1.0, float(truth.norm())))
    assert evened == pytest.approx(loss, rel=1e-12, abs=1e-14)
    assert trainer._logs.take() == pytest.approx(logs, rel=1e-6)
    without, nothing = gradient(trainer, [a, b], [True, True])
    assert (float(without.norm()), nothing) == (0.0, 0.0)


def test_rounds_are_filled_up_and_said_to_be() -> None:
    """Ten rows for two processes of three: two rounds of six, the last two rows repeated from the epoch's start."""
    order = ShuffledExamples(10, seed=3)
    sampler = EvenedSampler(order, 10, 6)
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        plain, filled = list(order), list(sampler)
        assert (len(sampler), filled[:10]) == (12, plain)
        rows = EvenedRows([{"x": i} for i in range(10)])
        assert [rows[i] for i in filled[10:]] == [{"x": i, REPEATED: True} for i in plain[:2]]
    assert [rows[i][REPEATED] for i in plain] == [False] * 10
    assert list(EvenedSampler(range(12), 12, 6)) == list(range(12))
    batch = MarkingCollator(lambda given: {"rows": given})([rows[2], rows[13]])
    assert batch["rows"] == [{"x": 2}, {"x": 3}]
    assert batch[REPEATED].tolist() == [False, True]


def settings(**changes: Any) -> Any:
    plain = {"world_size": 1, "dataloader_drop_last": False, "gradient_accumulation_steps": 2, "train_batch_size": 2}
    return SimpleNamespace(**{**plain, "train_sampling_strategy": "random", **changes})


def test_what_cannot_be_evened_is_refused() -> None:
    stream = iter([])
    with pytest.raises(ValueError, match="eval_dataset has no length, so 2 processes .* dataloader_drop_last true"):
        check_evened(stream, settings(world_size=2), training=False)
    check_evened(stream, settings(), training=True)
    check_evened(stream, settings(world_size=2, dataloader_drop_last=True), training=True)
    rebalanced = settings(train_sampling_strategy="batch_rebalance")
    with pytest.raises(ValueError, match="batch_rebalance would repeat rows: the last step has 1 for 2 batches"):
        check_evened(range(9), rebalanced, training=True)  # 4 + 4 + 1 rows, two batches a step
    check_evened(range(10), rebalanced, training=True)
    check_evened(range(9), settings(), training=True)
