"""``kvar.measure`` on rollouts from elsewhere and ``kvar measure FILE``: against autograd written out, and refusals."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import save_file

import kvar
from kvar.commands.main import main
from kvar.distill import build_model
from kvar.rollouts import from_batch, sample, token_logits
from kvar.rollouts.behaviour import effective_sample_size
from kvar.tasks import ArithmeticTask

TASK = ArithmeticTask(1, 1)
TEXTS = [example.prompt for example in TASK.examples("validation", 3)]
K = 4


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return TASK.build_tokenizer()


def small(tokenizer: Any, seed: int) -> Any:
    size = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 96}
    model = build_model(size, tokenizer, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():  # far from uniform, so that temperatures and models differ
            parameter.mul_(4)
    return model.eval()


@pytest.fixture(scope="module")
def models(tokenizer: Any) -> tuple[Any, Any]:
    return small(tokenizer, 0), small(tokenizer, 1)


@pytest.fixture(scope="module")
def batch(models: tuple[Any, Any], tokenizer: Any) -> dict[str, torch.Tensor]:
    """Rollouts as another trainer would hold them, with what their teacher said."""
    student, teacher = models
    rollouts = sample(student, TEXTS, tokenizer, rollouts_per_prompt=2, max_new_tokens=4, seed=3)
    with torch.no_grad():
        log_p = token_logits(teacher, rollouts).double().log_softmax(dim=-1)
    top = log_p.topk(K, dim=-1)
    return {
        "prompt_ids": rollouts.prompt_ids,
        "prompt_mask": rollouts.prompt_mask.long(),
        "responses": rollouts.tokens,
        "response_mask": rollouts.mask.long(),
        "prompt_index": rollouts.prompt_index,
        "old_log_probs": rollouts.log_probs,
        "teacher_log_probs": log_p.gather(-1, rollouts.tokens[..., None])[..., 0],
        "teacher_top_log_probs": top.values,
        "teacher_top_ids": top.indices,
    }


def written_out(student: Any, batch: dict, losses: list) -> torch.Tensor:
    """(E, N) squared norms of the gradient of each loss, one backward pass a trajectory."""
    rows = []
    for row in range(len(batch["responses"])):
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
        response = batch["responses"][row][batch["response_mask"][row].bool()]
        norms = []
        for loss in losses:
            ids = torch.cat([prompt, response])
            log_pi = student(ids[None]).logits[0, len(prompt) - 1 : -1].log_softmax(dim=-1)
            held = {name: value[row][: len(response)] for name, value in batch.items() if name.startswith("teacher")}
            student.zero_grad()
            loss(log_pi, response, held).backward()
            norms.append(sum(float(p.grad.double().square().sum()) for p in student.parameters() if p.grad is not None))
        rows.append(norms)
    student.zero_grad()
    return torch.tensor(rows, dtype=torch.float64).T


def picked(log_pi: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
    return log_pi.gather(-1, response[:, None])[:, 0]


def kl_all(log_pi, response, held):
    """-sum_t (sum_{j >= t} r_j) log pi(y_t): reverse KL's score-function gradient with the whole future."""
    ratio = held["teacher_log_probs"] - picked(log_pi, response).detach()
    return (ratio.flip(0).cumsum(0).flip(0) * picked(log_pi, response)).sum()


def k3(log_pi, response, held):
    """k3 as a loss: exp(r) - 1 - r back-propagated, r = log p - log pi."""
    ratio = held["teacher_log_probs"] - picked(log_pi, response)
    return (ratio.exp() - 1 - ratio).sum()


def forward_top(log_pi, response, held):
    """verl's forward KL over the teacher's best: sum_a p (log p - log pi)."""
    log_p = held["teacher_top_log_probs"]
    return (log_p.exp() * (log_p - log_pi.gather(-1, held["teacher_top_ids"]))).sum()


def reverse_top(log_pi, response, held):
    """Reverse KL over the teacher's best, both renormalised."""
    log_q = log_pi.gather(-1, held["teacher_top_ids"]).log_softmax(dim=-1)
    return (log_q.exp() * (log_q - held["teacher_top_log_probs"].log_softmax(dim=-1))).sum()


def reverse_tail(log_pi, response, held):
    """Reverse KL over the teacher's best, the rest as one token."""
    log_p, ids = held["teacher_top_log_probs"], held["teacher_top_ids"]
    log_q = log_pi.gather(-1, ids)
    p, q = 1 - log_p.exp().sum(-1), 1 - log_q.exp().sum(-1)
    return (log_q.exp() * (log_q - log_p)).sum() + (q * (q.log() - p.log())).sum()


NAMES = {
    "kl K=1": kl_all,
    "k3-loss immediate": k3,
    f"forward-top-k({K}) immediate exact": forward_top,
    f"teacher-top-k({K}) immediate exact": reverse_top,
    f"teacher-top-k-tail({K}) immediate exact": reverse_tail,
}


@pytest.mark.parametrize("with_teacher", [False, True])
def test_losses_of_a_given_teacher_are_autograds(models, batch, tokenizer, with_teacher: bool) -> None:
    student, teacher = models
    m = kvar.measure(
        student, teacher if with_teacher else None, tokenizer=tokenizer,
        rollouts=from_batch(batch, tokenizer=tokenizer), estimators=list(NAMES),
    )  # fmt: skip
    assert m.names == tuple(NAMES)
    truth = written_out(student, batch, list(NAMES.values()))
    assert torch.allclose(m.moments.sq_norm, truth, rtol=2e-3, atol=1e-6 * float(truth.max()))
    assert m.config["prompts"] == 3 and m.config["rollouts_per_prompt"] == 2
    ratio = batch["teacher_log_probs"] - batch["old_log_probs"].double()
    if not with_teacher:
        assert torch.allclose(m.values.q, ratio.masked_fill(batch["response_mask"] == 0, 0.0), atol=1e-4)


def test_given_values_are_the_teachers(models, batch, tokenizer) -> None:
    student, teacher = models
    rollouts, _ = from_batch(batch, tokenizer=tokenizer)
    values = kvar.rollouts.score(teacher, rollouts)
    held = {"teacher_q": values.q, "teacher_v": values.v}
    given = kvar.measure(student, tokenizer=tokenizer, rollouts=(rollouts, held), kernels="1, 2, immediate")
    asked = kvar.measure(student, teacher, tokenizer=tokenizer, rollouts=rollouts, kernels="1, 2, immediate")
    assert torch.allclose(
        given.moments.pair, asked.moments.pair, rtol=1e-4, atol=1e-6 * float(asked.moments.pair.max())
    )
    assert kvar.measure(student, tokenizer=tokenizer, rollouts=(rollouts, held)).names[:2] == ("K=1", "K=2")
    with pytest.raises(
        ValueError, match="'gap K=1' needs the teacher's full logits; of the teacher there is teacher_q"
    ):
        kvar.measure(student, tokenizer=tokenizer, rollouts=(rollouts, held), kernels="gap 1")


LACKING = {
    "K=4": "needs the teacher's q and V .teacher_q, teacher_v.; of the teacher there is log-",
    "kl immediate": "needs teacher_log_probs of the sampled tokens",
    "kl immediate exact": "needs the teacher's full logits for its sum over the next token, not those of its best",
    "forward-kl immediate exact": "needs the teacher's full logits",
    "top-k(4) immediate exact": "needs the teacher's full logits",
    "teacher-top-k(5) immediate exact": "needs the teacher's 5 best tokens",
}


@pytest.mark.parametrize("name", LACKING)
def test_a_teacher_whose_logits_are_only_top_k(models, batch, tokenizer, name: str) -> None:
    held = {key: value for key, value in batch.items() if key != "teacher_log_probs"}
    with pytest.raises(ValueError, match=LACKING[name]):
        kvar.measure(models[0], tokenizer=tokenizer, rollouts=from_batch(held, tokenizer=tokenizer), estimators=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher_top_ids": torch.full((6, 4, K), 3)}, "holds a token twice"),
        ({"teacher_top_ids": torch.full((6, 4, K), 900)}, "not among the student's"),
        ({"teacher_top_log_probs": torch.full((6, 4, K), -0.1)}, "they sum to 3.619"),
        ({"teacher_top_log_probs": torch.full((6, 4, K), -9.0)}, "cannot be the teacher's most probable tokens"),
        ({"teacher_top_ids": None, "teacher_top_log_probs": None, "teacher_log_probs": None}, "a teacher is needed"),
        ({"teacher_q": torch.zeros(6, 4)}, "teacher_q and teacher_v must be given together"),
    ],
)
def test_impossible_teachers(models, batch, tokenizer, changes: dict, message: str) -> None:
    changed = {name: x[:, : batch["responses"].shape[1]] if x is not None else x for name, x in changes.items()}
    with pytest.raises(ValueError, match=message):
        kvar.measure(
            models[0], tokenizer=tokenizer, rollouts=from_batch({**batch, **changed}, tokenizer=tokenizer),
        )  # fmt: skip


def test_sampled_and_best_log_probabilities_that_disagree_are_refused(models, batch, tokenizer) -> None:
    changed = {**batch, "teacher_log_probs": batch["teacher_top_log_probs"][..., 0]}
    with pytest.raises(ValueError, match=r"teacher_log_probs and teacher_top_log_probs disagree by [\d.]+ a token"):
        kvar.measure(models[0], tokenizer=tokenizer, rollouts=from_batch(changed, tokenizer=tokenizer))
    rounded = {name: x.bfloat16() if name.startswith("teacher_log") else x for name, x in batch.items()}
    kvar.measure(models[0], tokenizer=tokenizer, rollouts=from_batch(rounded, tokenizer=tokenizer))


def test_another_temperature_or_model_is_detected(models, batch, tokenizer) -> None:
    student, teacher = models
    hot = sample(student, TEXTS, tokenizer, rollouts_per_prompt=2, max_new_tokens=4, seed=0, temperature=1.5)
    with pytest.raises(ValueError, match=r"differ .* by \d.* they are its own at temperature 1.5 \(difference"):
        kvar.measure(student, teacher, rollouts=hot, tokenizer=tokenizer)
    with pytest.raises(ValueError, match="another model, or an earlier state of this one, drew them.*stale=True"):
        kvar.measure(teacher, student, rollouts=from_batch(batch, tokenizer=tokenizer), tokenizer=tokenizer)
    m = kvar.measure(student, teacher, rollouts=hot, tokenizer=tokenizer, stale=True, kernels="kl 1 ratio")
    ratio = kvar.rollouts.log_probs(student, hot).detach().double() - hot.log_probs.double()
    weights = ratio.sum(dim=1).exp()
    numbers = m.config["numbers"]
    assert numbers["effective_sample_size"] == pytest.approx(float(weights.sum() ** 2 / (weights**2).sum()), rel=1e-3)
    tokens = ratio[hot.mask].exp()
    share = float(tokens.sum() ** 2 / (tokens**2).sum()) / len(tokens)
    assert numbers["effective_token_share"] == pytest.approx(share, rel=1e-3)
    assert "Another policy drew them" in " ".join(str(m).split())
    assert "effective_sample_size" in set(m.metrics["name"])


def test_greedy_responses_without_log_probs_are_no_samples(models, tokenizer) -> None:
    student, teacher = models
    greedy = sample(student, TEXTS * 8, tokenizer, rollouts_per_prompt=4, max_new_tokens=8, temperature=0)
    with pytest.raises(ValueError, match="their tokens are more probable than such samples, by"):
        kvar.measure(student, teacher, rollouts=greedy, tokenizer=tokenizer)
    drawn = sample(student, TEXTS * 8, tokenizer, rollouts_per_prompt=4, max_new_tokens=8, seed=0)
    blank = replace(drawn, log_probs=torch.zeros_like(drawn.log_probs))
    assert "numbers" not in kvar.measure(student, teacher, rollouts=blank, tokenizer=tokenizer, kernels="1").config
    with pytest.raises(ValueError, match="stale rollouts need log-probabilities"):
        kvar.measure(student, teacher, rollouts=blank, tokenizer=tokenizer, stale=True)


def test_bad_arguments(models, batch, tokenizer) -> None:
    student, teacher = models
    rollouts, _ = from_batch(batch, tokenizer=tokenizer)
    for message, options in {
        "either prompts, to sample": {"prompts": TEXTS, "rollouts": rollouts},
        "either prompts, to sample responses to, or rollouts=": {},
        "references are for prompts": {"rollouts": rollouts, "references": TEXTS},
        "stale=True is for rollouts=": {"prompts": TEXTS, "stale": True},
        "rollouts is empty": {"rollouts": rollouts[:0]},
        "rollouts.mask is false everywhere": {"rollouts": replace(rollouts, mask=torch.zeros_like(rollouts.mask))},
        "the prompts have token id 5000": {"rollouts": replace(rollouts, prompt_ids=rollouts.prompt_ids + 5000)},
    }.items():
        message = message.replace("5000", str(int(rollouts.prompt_ids[rollouts.prompt_mask].max()) + 5000))
        with pytest.raises(ValueError, match=re.escape(message)):
            kvar.measure(student, teacher, tokenizer=tokenizer, **options)
    with pytest.raises(
        TypeError, match="rollouts must be Rollouts, or what kvar.rollouts.from_batch returns; got dict"
    ):
        kvar.measure(student, teacher, tokenizer=tokenizer, rollouts=batch)
    with pytest.raises(TypeError, match="teacher must be"):
        kvar.measure(student, None, TEXTS)


def test_effective_sample_size_by_hand() -> None:
    assert effective_sample_size(torch.tensor([1.0, 2.0, 3.0]).log()) == pytest.approx(36 / 14)


def test_the_command_reads_both_kinds_of_file(models, batch, tokenizer, tmp_path, capsys) -> None:
    student, _ = models
    student.save_pretrained(tmp_path / "student")
    tokenizer.save_pretrained(tmp_path / "student")
    save_file({name: x.contiguous() for name, x in batch.items()}, tmp_path / "batch.safetensors")
    rows = {}
    for name, x in batch.items():
        if x.dim() == 1:
            rows[name] = x.tolist()
        else:
            mask = batch["prompt_mask" if name.startswith("prompt") else "response_mask"].bool()
            rows[name] = [values[kept].tolist() for values, kept in zip(x, mask, strict=True)]
    parquet.write_table(pa.table(rows), tmp_path / "batch.parquet")
    tables = []
    for kind in ("safetensors", "parquet"):
        words = ["measure", str(tmp_path / f"batch.{kind}"), "--student", str(tmp_path / "student")]
        assert main([*words, "--output", str(tmp_path / kind)]) == 0
        assert "kl K=1" in capsys.readouterr().out
        tables.append(kvar.load(tmp_path / kind).table(batch=8))
    assert list(tables[0]["kernel"]) == ["kl K=1", "kl K=4", "kl immediate", "k3-loss immediate"]
    assert tables[0]["trace"].to_numpy() == pytest.approx(tables[1]["trace"].to_numpy(), rel=1e-4)
    for words, message in (
        ([str(tmp_path / "none.parquet")], "no file"),
        ([str(tmp_path / "student" / "config.json")], "unknown kind"),
        ([str(tmp_path / "batch.parquet"), "--behaviour", "other"], "other must hold one log-probability"),
    ):
        assert main(["measure", *words, "--student", str(tmp_path / "student")]) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    assert main(["measure", str(tmp_path / "bad.safetensors"), "--student", "x"]) == 2
    assert "cannot be read" in capsys.readouterr().err
