"""Forward-mode projections: exact along each direction, unbiased over directions, with an honest error."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import nn

from kvar.gradients import GradientMoments, gradient_moments, score_projections
from kvar.gradients.forward_mode.engine import directions_of
from kvar.rollouts import log_probs
from tests.cases import CASES, build, rollouts
from tests.gradients.truth import as_callable, weights


@pytest.mark.parametrize("name", ["t5", "bart", "gpt2", "llama", "gemma", "opt"])
def test_a_projection_is_the_inner_product_with_the_score(name: str) -> None:
    """<s_t, v> against autograd's score, token by token, tied weights and padding included."""
    model, data = build(name), rollouts(n=4)
    record = score_projections(model, data, directions=2, seed=3, micro_batch=3)
    parameters = [p for p in model.parameters() if p.requires_grad]
    log_pi = log_probs(model, data)
    for d, v in enumerate(directions_of(parameters, 2, seed=3)):
        expected = torch.zeros(data.mask.shape, dtype=torch.float64)
        for i, t in data.mask.nonzero().tolist():
            score = torch.autograd.grad(log_pi[i, t], parameters, retain_graph=True, materialize_grads=True)
            expected[i, t] = sum(float((s.double() * v[id(p)]).sum()) for s, p in zip(score, parameters, strict=True))
        error = float((record.projections[d] - expected).norm() / expected.norm())
        assert error <= (1e-6 if name.startswith("t5") else CASES[name].tolerance), error  # T5 norms are float32


def test_the_directions_are_signs_and_extend() -> None:
    p = [nn.Parameter(torch.zeros(40, 50)), nn.Parameter(torch.zeros(3))]
    few, many = (list(directions_of(p, count, seed=5)) for count in (1, 3))
    assert torch.equal(few[0][id(p[0])], many[0][id(p[0])])
    assert not torch.equal(many[0][id(p[0])], many[1][id(p[0])])
    assert set(many[2][id(p[0])].flatten().tolist()) == {-1.0, 1.0}
    assert abs(float(many[2][id(p[0])].mean())) < 4 / 2000**0.5


class NoHooks(nn.Module):
    """Multiplies by weights that belong to no layer, through a function: nothing a hook could see."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Parameter(torch.randn(23, 6, dtype=torch.float64))
        self.mix = nn.Parameter(torch.randn(6, 6, dtype=torch.float64))
        self.config = type("Config", (), {"is_encoder_decoder": False})()

    def forward(self, input_ids: torch.Tensor, **inputs: object) -> object:
        """Logits of a bag of words."""
        hidden = torch.tanh(self.table[input_ids] @ self.mix).cumsum(dim=1)
        return type("Output", (), {"logits": hidden @ self.table.T})()


GROUPS = {"t5": {"encoder": "encoder", "head": "shared"}, "no-hooks": {"mix": "mix"}}
D = {"t5": 60, "no-hooks": 1000}


@pytest.fixture(scope="module", params=GROUPS)
def measured(request: pytest.FixtureRequest) -> tuple:
    """(record, weights, truth): many directions, groups that overlap; a tied T5, and a module without layers."""
    name, data = request.param, rollouts(n=5)
    model = NoHooks() if name == "no-hooks" else build(name)
    w = weights(data, e=2)
    record = score_projections(model, data, directions=D[name], groups=GROUPS[name])
    return record, w, gradient_moments(model, data, w, groups=GROUPS[name], engine="loop", score_power=True)


def _fields(moments: GradientMoments, group: str) -> dict[str, torch.Tensor]:
    names = ("sq_norm", "mean_pair", "alignment", "cross", "pair", "prompt_pair", "score_power")
    return {name: getattr(moments[group], name) for name in names}


def test_every_field_is_unbiased(measured: tuple) -> None:
    """Each of some hundred numbers within Student's t of the truth, the smallest p-value by Bonferroni above 1 %."""
    record, w, truth = measured
    found = record.moments(w)
    alone = [replace(record, cells=c).moments(w) for c in record.cells.split(1)]
    p_values = []
    for group in truth:
        for field, exact in _fields(truth, group).items():
            value = _fields(found, group)[field]
            error = torch.stack([_fields(m, group)[field] for m in alone]).std(dim=0) / len(alone) ** 0.5
            assert value.shape == exact.shape, (group, field)
            z = ((value - exact) / error).flatten().numpy()
            p_values += list(2 * stats.t.sf(abs(z), record.directions - 1))
    assert len(p_values) > 100
    assert min(p_values) * len(p_values) > 0.01
    assert sum(p < 0.05 for p in p_values) < 0.2 * len(p_values)


@pytest.mark.parametrize("measured", ["no-hooks"], indirect=True)
def test_the_reported_error_covers(measured: tuple) -> None:
    """Intervals from 40 directions hold the exact trace nearly as often as they say; the error is the true spread."""
    record, w, truth = measured
    n = len(record.mask)
    exact = n / (n - 1) * (truth.sq_norm.mean(dim=1) - truth.mean_pair.diagonal())
    parts = [replace(record, cells=c).trace_covariance(w) for c in record.cells.split(40)]
    values, relative = (torch.stack(x) for x in zip(*parts, strict=True))
    inside = (values - exact).abs() <= stats.t.ppf(0.975, 39) * relative * values
    assert int(inside.sum()) >= stats.binom.ppf(0.001, 50, 0.95)
    one = torch.cat([replace(record, cells=c).project(w) for c in record.cells.split(1)])  # (1000, C, E, N)
    spread = n / (n - 1) * ((one**2).mean(-1) - one.mean(-1) ** 2).sum(dim=1)
    assert bool((spread.std(dim=0) <= 2**0.5 * 1.05 * exact).all())  # at most sqrt(2/D)
    expected = spread.std(dim=0) / 40**0.5
    reported = (relative * values).pow(2).mean(dim=0).sqrt()
    assert bool(((reported / expected - 1).abs() < 0.1).all())


def test_trace_agrees_with_its_moments(measured: tuple) -> None:
    record, w, _ = measured
    for group in record.members:
        m, n = record.moments(w)[group], len(record.mask)
        expected = n / (n - 1) * (m.sq_norm.mean(dim=1) - m.mean_pair.diagonal())
        torch.testing.assert_close(record.trace_covariance(w, group)[0], expected)


def test_groups_are_unions_of_cells() -> None:
    record = score_projections(build("t5"), rollouts(n=2), directions=1, groups=GROUPS["t5"])
    assert record.cells.shape[1] == 3  # the tied embedding, which lies in both; the rest of the encoder; the rest
    assert {name: len(cells) for name, cells in record.members.items()} == {"all": 3, "encoder": 2, "head": 1}
    assert set(record.members["head"]) < set(record.members["encoder"])


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_as_an_engine(name: str) -> None:
    """The engine is the record's moments; a callable that weighs tokens gives the same numbers."""
    model, data = build(name), rollouts(n=4)
    w = weights(data, e=2)
    groups = {"some": [next(iter(model.parameters()))]}
    record = score_projections(model, data, directions=5, groups=groups)
    expected = record.moments(w)
    for weighting in (w, as_callable(data, w)):
        got = gradient_moments(model, data, weighting, groups=groups, engine="jvp", directions=5, score_power=True)
        for group in ("all", "some"):
            for field, value in _fields(expected, group).items():
                torch.testing.assert_close(_fields(got, group)[field], value, msg=f"{group} {field}")
    norms = gradient_moments(model, data, w, engine="jvp", directions=5, fields="norms", micro_batch=2)
    assert norms.pair is None
    torch.testing.assert_close(norms.sq_norm, score_projections(model, data, directions=5).moments(w).sq_norm)


def test_attention_backends_are_put_back() -> None:
    model, data = build("gpt2"), rollouts(n=3)
    assert model.config._attn_implementation == "sdpa"
    before = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()
    score_projections(model, data, directions=1)
    assert (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()) == before
    assert all(p.grad is None for p in model.parameters())


class OwnBackward(torch.autograd.Function):
    """An operation with a backward of its own and no forward-mode derivative."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: object, g: torch.Tensor) -> torch.Tensor:
        return g * 2


def test_bad_input_is_named() -> None:
    model, data = NoHooks(), rollouts(n=3)
    record = score_projections(model, data, directions=1)
    with pytest.raises(ValueError, match="directions must be at least 1; got 0"):
        score_projections(model, data, directions=0)
    with pytest.raises(ValueError, match="N = 0"):
        score_projections(model, data[[]])
    with pytest.raises(ValueError, match="one direction has no spread"):
        record.trace_covariance(weights(data))
    with pytest.raises(ValueError, match=r"\(E, 3, 6\); got \(3, 6\)"):
        record.moments(weights(data)[0])
    with pytest.raises(ValueError, match="3 distinct names"):
        record.moments(weights(data), ["a", "a", "b"])
    with pytest.raises(ValueError, match="directions=8 is for engine='jvp'"):
        gradient_moments(model, data, weights(data), engine="loop", directions=8)
    model.forward = lambda input_ids, **k: type(
        "O", (), {"logits": OwnBackward.apply(model.table[input_ids]) @ model.table.T}
    )
    with pytest.raises(RuntimeError, match="NoHooks has an operation without a forward-mode derivative"):
        score_projections(model, data, directions=1)
