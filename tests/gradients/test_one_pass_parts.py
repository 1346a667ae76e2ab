"""The pieces of the one-pass engine: factors against written-out gradients, chunks, cuts, the head, the front door."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kvar.gradients import gradient_moments
from kvar.gradients.capture.capture import capture
from kvar.gradients.cotangents import Estimators
from kvar.gradients.loop import loop_moments
from kvar.gradients.one_pass.chunks import chunked
from kvar.gradients.one_pass.engine import one_pass_moments
from kvar.gradients.one_pass.trial import coverage
from kvar.gradients.products.blocks import Dense, Groups
from kvar.gradients.products.factor import Factor, Scaled
from kvar.gradients.products.matrix import Factored
from kvar.rollouts import token_logits
from tests.cases import V, build, rollouts
from tests.gradients.truth import assert_close, splits, weights

N, E, D, P = 5, 3, 7, 4


def _factor(kind: str, t: int, g: torch.Generator) -> Factor:
    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    if kind == "ids-0":
        return Factor(torch.randint(0, D, (N, t), generator=g), [randn(N, t, P) for _ in range(E)], 0)
    if kind == "ids-1":
        return Factor(torch.randint(0, P, (N, t), generator=g), [randn(N, t, D) for _ in range(E)], 1)
    if kind == "dense-0":
        return Factor(randn(N, t, D), [randn(N, t, P) for _ in range(E)], 0)
    if kind == "dense-1":
        return Factor(randn(N, t, P), [randn(N, t, D) for _ in range(E)], 1)
    return Scaled(randn(N, t, P), randn(N, t, D), randn(E, N, t), 1)


KINDS = ["ids-0", "ids-1", "dense-0", "dense-1", "scaled"]


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", [None, *KINDS])
@pytest.mark.parametrize("t", [1, 3, 40])
@pytest.mark.parametrize("traffic", [-(10**9), 10**9])
def test_factors_equal_written_out(
    first: str, second: str | None, t: int, traffic: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every kind of use, and every pair of kinds sharing one matrix; by Grams and written out, whatever is cheaper."""
    monkeypatch.setattr("kvar.gradients.products.matrix._TRAFFIC", traffic)
    monkeypatch.setattr(Factored, "_gram_cost", lambda self, norms: 0)  # so that the sign of the traffic decides
    monkeypatch.setattr("kvar.gradients.products.matrix._CAP", 2 * E * D * P)
    g = torch.Generator().manual_seed(t)
    factors = [_factor(kind, t + k, g) for k, kind in enumerate([first, second]) if kind is not None]
    block = Factored(factors, (D, P))
    truth = Dense(sum(f.written_out(D if f.side == 0 else P) for f in factors).flatten(2))
    by_hand = torch.zeros(N, E, D, P, dtype=torch.float64)
    for f in factors:
        fixed = nn.functional.one_hot(f.fixed, D if f.side == 0 else P).double() if f.ids else f.fixed
        by_hand += torch.einsum("ntk,entm->nekm" if f.side == 0 else "ntk,entm->nemk", fixed, torch.stack(f.grads))
    close = dict(rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(truth.grad, by_hand.flatten(2), **close)
    groups = Groups(torch.tensor([1, 0, 1, 1, 0]))
    mean = truth.total() / N
    for ours, theirs in ((block, truth), (block.regroup(groups), truth.regroup(groups))):
        torch.testing.assert_close(ours.pair(), theirs.pair(), **close)
        torch.testing.assert_close(ours.norms(), theirs.norms(), **close)
        torch.testing.assert_close(ours.total(), theirs.total(), **close)
        torch.testing.assert_close(ours.cross(mean), theirs.cross(mean), **close)
        for x, y in zip(ours.pair_and_total(), (theirs.pair(), theirs.total()), strict=True):
            torch.testing.assert_close(x, y, **close)
    torch.testing.assert_close(truth.norms(), truth.pair().diagonal(dim1=0, dim2=1).T, **close)


@pytest.mark.parametrize("size", [None, 1, 2, 3, 4, 8])
def test_chunks_partition_and_keep_prompts_together(size: int | None) -> None:
    prompt_index = torch.tensor([4, 1, 1, 4, 4, 9, 4, 1, 4, 2])
    chunks = chunked(prompt_index, size)
    assert sorted(torch.cat([c.rows for c in chunks]).tolist()) == list(range(10))
    ends: dict[int, int] = {}
    for chunk in chunks:
        assert len(chunk.rows) <= (size or 10)
        assert torch.equal(prompt_index.unique()[chunk.prompts][chunk.labels], prompt_index[chunk.rows])
        assert not chunk.part or len(chunk.prompts) == 1
        for prompt in chunk.prompts.tolist():
            assert ends.get(prompt, 0) == 0
            ends[prompt] = int(chunk.last)
    assert set(ends.values()) == {1}


class Block(nn.Module):
    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)
        self.in_place = in_place

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        y = self.inner(x * 1.0).tanh()
        if self.in_place:
            x += y
            return (x,)
        return (x + y,)


class Deep(nn.Module):
    """A residual network of blocks whose logits are ``cap``ped, or not."""

    def __init__(self, in_place: bool = False, cap: bool = False) -> None:
        super().__init__()
        self.config = SimpleNamespace(is_encoder_decoder=False)
        self.embed = nn.Embedding(V, 6)
        self.blocks = nn.ModuleList([Block(in_place) for _ in range(3)])
        self.head = nn.Linear(6, V)
        self.cap = cap

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        del attention_mask, use_cache
        x = self.embed(input_ids)
        for block in self.blocks:
            (x,) = block(x)
        logits = self.head(x)
        return SimpleNamespace(logits=3 * (logits / 3).tanh() if self.cap else logits)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("cap", [False, True])
@pytest.mark.filterwarnings("error:no rule covers")
def test_cuts_and_capped_logits(in_place: bool, cap: bool) -> None:
    torch.manual_seed(0)
    model, data = Deep(in_place, cap).double().eval(), rollouts(n=7)
    w, groups = weights(data), splits(model)
    truth = loop_moments(model, data, w, groups, score_power=True)
    assert_close(one_pass_moments(model, data, w, groups, score_power=True), truth, 1e-9)
    assert coverage(model, data, {id(p): p for p in groups["all"]}).cut is not in_place


class Table(nn.Module):
    """A bigram table less the batch's mean: only a trajectory alone has a gradient of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(is_encoder_decoder=False)
        self.table = nn.Parameter(torch.randn(V, V))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        del attention_mask, use_cache
        logits = self.table[input_ids]
        return SimpleNamespace(logits=logits - logits.exp().mean(dim=0))


@pytest.mark.parametrize("size", [None, 2])
def test_a_student_that_no_rule_covers(size: int | None) -> None:
    torch.manual_seed(0)
    model, data = Table().double().eval(), rollouts()
    w, groups = weights(data), {"all": list(model.parameters())}
    truth = loop_moments(model, data, w, groups, score_power=True)
    with pytest.warns(UserWarning, match="no rule covers table"):
        ours = one_pass_moments(model, data, w, groups, score_power=True, micro_batch=size)
    assert_close(ours, truth, 1e-9)


@pytest.mark.parametrize("name", ["t5", "bart", "gpt2"])
def test_cut_graph_gives_the_same_logits_and_leaves_no_wrapper(name: str) -> None:
    model, data = build(name), rollouts()
    wanted = {id(p): p for p in model.parameters() if p.requires_grad}
    with capture(model, wanted, len(data), cut=True) as captured:
        logits = token_logits(model, data)
    assert captured.links
    torch.testing.assert_close(logits, token_logits(model, data))
    assert all("forward" not in vars(m) for m in model.modules())
    assert all(p.requires_grad for p in wanted.values())


def test_parameters_are_restored_when_the_model_raises() -> None:
    model, data = build("gpt2"), rollouts()
    flags = [p.requires_grad for p in model.parameters()]

    def fail(*args: object) -> None:
        raise RuntimeError("midway")

    handle = model.transformer.h[1].mlp.c_fc.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="midway"):
        one_pass_moments(model, data, weights(data), splits(model))
    handle.remove()
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all("forward" not in vars(m) for m in model.modules())


def test_front_door() -> None:
    model, data = build("t5"), rollouts()
    model.train()
    model.lm_head.weight.grad = torch.ones_like(model.lm_head.weight)
    state = torch.get_rng_state()
    w = weights(data)
    ours = gradient_moments(model, data, w, groups={"encoder": "encoder"}, engine="one-pass")
    truth = gradient_moments(model, data, w, groups={"encoder": "encoder"}, engine="loop")
    assert_close(dict(ours.groups), dict(truth.groups), 1e-9)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert float(model.lm_head.weight.grad.min()) == 1.0


def test_later_calls_reuse_what_was_found_out() -> None:
    model, data = build("gpt2"), rollouts()
    wanted = {id(p): p for p in model.parameters()}
    first = coverage(model, data, wanted)
    assert coverage(model, data, wanted) is first
    model.transformer.h[0].attn.c_attn.weight.requires_grad_(False)
    fewer = {id(p): p for p in model.parameters() if p.requires_grad}
    assert coverage(model, data, fewer) is not first


def test_a_chunk_is_as_wide_as_its_longest_response_unless_a_callable_reads_all_logits() -> None:
    data = rollouts(n=3, t=6)
    lengths = torch.tensor([2, 4, 6])
    data = replace(data, mask=torch.arange(6) < lengths[:, None])
    student = build("t5")
    widths = [
        Estimators(data, torch.ones(1, 3, 6)).logits(student, torch.tensor(rows)).shape[1] for rows in ([0, 1], [2])
    ]
    assert widths == [4, 6]
    assert Estimators(data, lambda logits: logits.sum((1, 2))[None]).logits(student, torch.tensor([0])).shape[1] == 6
