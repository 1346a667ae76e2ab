"""``kvar.measure``: its numbers against autograd written out, what it refuses, and that it leaves no trace."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import kvar
from kvar.analysis import best_k
from kvar.distill import build_model
from kvar.distill.models.shipped import SHIPPED
from kvar.hooks import Estimator, GradientProbe
from kvar.results.choices import choices
from kvar.returns import Immediate, KStep
from kvar.tasks import ArithmeticTask
from tests.cases import ragged_prompts, tiny_bart, tiny_gpt2, tiny_llama, tiny_t5

TASK = ArithmeticTask(1, 1)
TEXTS = [example.prompt for example in TASK.examples("validation", 3)]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return TASK.build_tokenizer()


def small(tokenizer: Any, seed: int = 0, **changes: Any) -> Any:
    config = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 128, **changes}
    return build_model(config, tokenizer, seed=seed)


def logits_of(model: Any, prompt: list[int], response: list[int]) -> torch.Tensor:
    """(T, V) logits that scored one response, without any padding."""
    if model.config.is_encoder_decoder:
        start = [model.config.decoder_start_token_id, *response[:-1]]
        return model(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([start])).logits[0]
    return model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]


def gradient(student: Any, teacher: Any, prompt: list[int], response: list[int], k: int | None) -> torch.Tensor:
    """g = sum_t G_t grad log pi(y_t | s_t), theory.md (5), with G by (3): anchored K, or None for immediate."""
    with torch.no_grad():
        f = logits_of(teacher, prompt, response)
        q = f - f.mean(dim=-1, keepdim=True)
        own, gap = [], []
        for t, token in enumerate(response):
            own.append(float(q[t, token]))
            gap.append(float(q[t].max() - q[t, token]))
    last = len(response) - 1
    log_pi = logits_of(student, prompt, response).log_softmax(dim=-1)
    total = torch.zeros(())
    for t, token in enumerate(response):
        later = [] if k is None else [i for i in range(t + 1, last + 1) if (i - t) % k == 0 or i == last]
        total = total + (own[t] - sum(gap[i] for i in later)) * log_pi[t, token]
    parameters = [p for p in student.parameters() if p.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(total, parameters)]).double()


def gradients(m: Any, student: Any, teacher: Any) -> list[torch.Tensor]:
    """(N, P) for K = 1, K = 2 and immediate, one backward pass a trajectory and kernel."""
    rows = []
    for k in (1, 2, None):
        each = []
        for i in range(len(m.rollouts)):
            prompt = m.rollouts.prompt_ids[i][m.rollouts.prompt_mask[i]].tolist()
            each.append(gradient(student, teacher, prompt, m.rollouts.tokens[i][m.rollouts.mask[i]].tolist(), k))
        rows.append(torch.stack(each))
    return rows


@pytest.mark.parametrize("make", [tiny_t5, tiny_gpt2, tiny_bart, tiny_llama])
def test_the_table_is_that_of_autograd_written_out(make: Any) -> None:
    """One response a prompt: tr Cov, |E g|^2 and the squared bias from explicit gradients of every trajectory."""
    student, teacher = make(), make(seed=1)
    m = kvar.measure(
        student, teacher, ragged_prompts(5), kernels="1, 2, immediate", rollouts_per_prompt=1, max_new_tokens=6
    )
    table = m.table(batch=8).set_index("kernel")
    found = gradients(m, student, teacher)
    n = len(m.rollouts)
    assert n == 5 and m.rollouts.policy is not None
    signals = []
    for name, g in zip(("K=1", "K=2", "immediate"), found, strict=True):
        mean = g.mean(dim=0)
        trace = float(((g - mean) ** 2).sum()) / (n - 1)
        signal = float(mean @ mean) - trace / n
        bias = g - found[0]
        pairs = float((bias.sum(dim=0) ** 2).sum() - (bias**2).sum()) / (n * (n - 1))
        row = table.loc[name]
        assert row["trace"] == pytest.approx(trace, rel=2e-4)
        assert row["signal"] == pytest.approx(signal, rel=2e-3, abs=2e-4 * trace)
        assert row["bias_sq"] == pytest.approx(pairs, rel=2e-3, abs=2e-4 * trace)
        assert row["mse"] == pytest.approx(pairs + trace / 8, rel=2e-3, abs=2e-4 * trace)
        assert row["trace_low"] < row["trace"] < row["trace_high"]
        signals.append(signal)
    first = float(((found[0] - found[0].mean(dim=0)) ** 2).sum())
    second = float(((found[1] - found[1].mean(dim=0)) ** 2).sum())
    assert table.loc["K=2", "trace_ratio"] == pytest.approx(second / first, rel=1e-3)
    assert table.loc["K=1", ["k", "n"]].tolist() == [1.0, 5] and math.isinf(table.loc["immediate", "k"])


def test_several_responses_a_prompt_are_no_independent_draws() -> None:
    """|E g|^2 from pairs of distinct prompts, within from differences inside a prompt; intervals leave prompts out."""
    student, teacher = tiny_t5(), tiny_t5(seed=1)
    m = kvar.measure(student, teacher, ragged_prompts(4), kernels="1, 2, inf", rollouts_per_prompt=3, max_new_tokens=5)
    table = m.table().set_index("kernel")
    for name, g in zip(m.names, gradients(m, student, teacher), strict=True):
        by_prompt = g.view(4, 3, -1)
        means = by_prompt.mean(dim=1)
        signal = float((means.sum(dim=0) ** 2).sum() - (means**2).sum()) / 12
        within = float(((by_prompt - means[:, None]) ** 2).sum()) / (4 * 2)
        power = float((g**2).sum(dim=1).mean())
        assert table.loc[name, "signal"] == pytest.approx(signal, rel=2e-3, abs=2e-4 * power)
        assert table.loc[name, "trace"] == pytest.approx(power - signal, rel=2e-4)
        assert table.loc[name, "within"] == pytest.approx(within, rel=2e-4)
        assert table.loc[name, "n"] == 4


def test_it_is_what_the_probe_measures() -> None:
    student, teacher, prompts = tiny_gpt2(), tiny_gpt2(seed=1), ragged_prompts()
    kernels = [KStep(1), Estimator(KStep(2), "leave-one-out"), "4", Immediate()]
    m = kvar.measure(student, teacher, prompts, kernels=kernels, rollouts_per_prompt=2, max_new_tokens=5, seed=3)
    estimators = [KStep(1), Estimator(KStep(2), "leave-one-out"), KStep(4), Immediate()]
    probe = GradientProbe(prompts, estimators, teacher=teacher, rollouts_per_prompt=2, max_new_tokens=5, seed=3)
    same = probe.measure(student)
    assert type(same) is type(m) and same.names == m.names
    assert torch.equal(same.rollouts.tokens, m.rollouts.tokens) and torch.equal(same.moments.pair, m.moments.pair)
    assert m.best_k(4, 2).equals(best_k(m.moments, 4, 2, reference="K=1", unit="prompt"))


@pytest.mark.parametrize(("prompts", "rollouts"), [(4, 3), (5, 1), (2, 3)])
def test_one_step_has_one_answer(prompts: int, rollouts: int, tmp_path: Path) -> None:
    """The table, best_k and choose-k tell the same of a step of 8 prompts x 1 rollout."""
    m = kvar.measure(
        tiny_t5(), tiny_t5(seed=1), ragged_prompts(prompts), kernels="1, 2, immediate", rollouts_per_prompt=rollouts,
        max_new_tokens=5,
    )  # fmt: skip
    m.save(tmp_path)
    table, best = m.table(8), m.best_k(8)
    (chosen,) = choices([kvar.records.load(tmp_path)], [8], [1])
    for name in ("mse", "mse_low", "mse_high", "efficiency", "efficiency_low", "efficiency_high"):
        np.testing.assert_allclose(best[name], table[name], rtol=1e-9, err_msg=name)
        rounding = 1e-6 * np.abs(table[name]).max()  # records are in single precision, and an mse may be near 0
        np.testing.assert_allclose(chosen.table[name], table[name], rtol=1e-5, atol=rounding, err_msg=name)
    for name, column in (("efficiency_best", "best_probability"), ("mse_best", "mse_best_probability")):
        np.testing.assert_allclose(best[name], table[column])
        np.testing.assert_allclose(chosen.table[name], table[column], atol=1e-3)


def test_models_stay_as_they_are() -> None:
    """Weights, gradients, buffers, modes of every module, random state: also where a module is in another mode."""
    student, teacher = tiny_t5(dropout_rate=0.5), tiny_t5(seed=1, dropout_rate=0.5)
    student.train(), teacher.train()
    student.encoder.eval()
    student.shared.weight.grad = torch.ones_like(student.shared.weight)
    models = (student, teacher)
    before = [copy.deepcopy(model.state_dict()) for model in models]
    modes = [[module.training for module in model.modules()] for model in models]
    random = torch.get_rng_state()
    one, two = (kvar.measure(*models, ragged_prompts(), kernels="1, 4", max_new_tokens=4) for _ in range(2))
    for model, state, mode in zip(models, before, modes, strict=True):
        assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
        assert [module.training for module in model.modules()] == mode
    assert torch.equal(student.shared.weight.grad, torch.ones_like(student.shared.weight))
    assert all(p.grad is None for name, p in student.named_parameters() if name != "shared.weight")
    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(one.moments.pair, two.moments.pair)  # dropout is off
    assert [p.grad for p in teacher.parameters()] == [None] * len(list(teacher.parameters()))


def test_names_folders_and_modules_give_the_same(tmp_path: Path, tokenizer: Any) -> None:
    student, teacher = small(tokenizer), small(tokenizer, seed=1)
    for model, folder in ((student, "a"), (teacher, "b")):
        model.save_pretrained(tmp_path / folder)
    tokenizer.save_pretrained(tmp_path / "a")  # the teacher's folder has none
    options = {"kernels": "1, 2", "max_new_tokens": 4}
    named = kvar.measure(str(tmp_path / "a"), tmp_path / "b", TEXTS, **options)
    given = kvar.measure(student, teacher, iter(TEXTS), tokenizer, **options)
    assert torch.equal(named.moments.pair, given.moments.pair)
    assert (named.student, given.student, named.config["teacher"]) == ("a", "gpt2", "b")
    assert kvar.measure(student, teacher, TEXTS, tokenizer, name="tiny", **options).student == "tiny"


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "arithmetic"])
def test_shipped_students_are_known_by_name(name: str) -> None:
    m = kvar.measure(name, "arithmetic", TEXTS, kernels="1", max_new_tokens=3)
    assert m.student == name
    assert float(m.config["parameters"]) == pytest.approx(1000 * float(name.split("-")[1][:-1]), rel=0.04)


def test_the_shipped_teacher_lends_its_tokenizer() -> None:
    size = {"model_type": "t5", "d_model": 8, "d_kv": 4, "num_heads": 2, "d_ff": 8, "num_layers": 1}
    student = build_model(size, ArithmeticTask().build_tokenizer())
    m = kvar.measure(student, "arithmetic", TEXTS, kernels="1", max_new_tokens=3)
    assert m.config["teacher"] == "arithmetic" and m.rollouts.policy.size == len(ArithmeticTask().build_tokenizer())


def test_a_missing_pad_token_is_settled_and_the_tokenizer_stays(tokenizer: Any) -> None:
    bare = copy.deepcopy(tokenizer)
    bare.pad_token = None
    options = {"kernels": "1, 2", "max_new_tokens": 4}
    student, teacher = small(tokenizer), small(tokenizer, seed=1)
    m = kvar.measure(student, teacher, TEXTS, bare, **options)
    assert bare.pad_token is None
    assert torch.equal(m.moments.pair, kvar.measure(student, teacher, TEXTS, tokenizer, **options).moments.pair)


def test_models_of_different_tokenizers_are_refused(tmp_path: Path, tokenizer: Any) -> None:
    """By folder, and as modules that were loaded from a folder, whatever tokenizer is passed."""
    from tokenizers import Tokenizer, models
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    words = {"<pad>": 0, "</s>": 1, **{f"w{i}": i for i in range(2, len(tokenizer))}}
    other = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words)), eos_token="</s>", pad_token="<pad>"
    )
    small(tokenizer).save_pretrained(tmp_path / "a")
    tokenizer.save_pretrained(tmp_path / "a")
    small(other).save_pretrained(tmp_path / "b")
    other.save_pretrained(tmp_path / "b")
    module = AutoModelForCausalLM.from_pretrained(tmp_path / "b")
    for student, teacher, given in (
        (tmp_path / "a", tmp_path / "b", None),
        (tmp_path / "a", module, None),
        (small(tokenizer), module, tokenizer),
        (small(tokenizer), tmp_path / "b", tokenizer),
    ):
        with pytest.raises(ValueError, match="student and teacher have different tokenizers"):
            kvar.measure(student, teacher, TEXTS, given)
