"""The front door: inputs are checked, the student is left as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from kvar.analysis.exact import TokenMDP
from kvar.gradients import gradient_moments
from kvar.gradients.groups import resolve_groups
from kvar.gradients.measure import ENGINES
from kvar.rollouts import Rollouts


class Noisy(nn.Module):
    """A student with dropout, a buffer that moves at every call, and a random draw in its forward pass."""

    def __init__(self, mdp: TokenMDP) -> None:
        super().__init__()
        self.inner, self.config = mdp.student, mdp.student.config
        self.dropout, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(3).eval()
        self.register_buffer("calls", torch.zeros(()))
        self.fail = False

    def forward(self, input_ids: torch.Tensor, **inputs: torch.Tensor):
        """Logits, after drawing a random number."""
        self.calls += 1
        torch.rand(3)
        if self.fail:
            raise RuntimeError("no forward today")
        out = self.inner(input_ids, **inputs)
        out.logits = self.dropout(out.logits)
        return out


@pytest.fixture
def mdp() -> TokenMDP:
    return TokenMDP(3, 4, seed=0, state="last-token")


@pytest.fixture
def rollouts(mdp: TokenMDP) -> Rollouts:
    return mdp.sample(4, seed=0)[0]


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_is_left_behind(mdp: TokenMDP, rollouts: Rollouts, engine: str, fail: bool) -> None:
    student = Noisy(mdp).train()
    student.norm.eval()  # a submodule frozen in eval mode stays so
    student.fail = fail
    table = mdp.student.table.weight
    table.grad = torch.randn_like(table)
    grad, values = table.grad, table.grad.clone()
    modes = [m.training for m in student.modules()]
    state, buffers = torch.get_rng_state(), copy.deepcopy(dict(student.named_buffers()))
    if fail:
        with pytest.raises(RuntimeError, match="no forward today"):
            gradient_moments(student, rollouts, torch.ones(1, 4, 4), engine=engine)
    else:
        with torch.no_grad():
            first = gradient_moments(student, rollouts, torch.ones(1, 4, 4), engine=engine)
        plain = gradient_moments(mdp.student, rollouts, torch.ones(1, 4, 4), engine=engine)
        torch.testing.assert_close(first.sq_norm, plain.sq_norm)  # dropout was off
    assert table.grad is grad and torch.equal(grad, values)
    assert [m.training for m in student.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    for name, buffer in student.named_buffers():
        assert torch.equal(buffer, buffers[name]), name


def test_gradients_that_were_absent_stay_absent(mdp: TokenMDP, rollouts: Rollouts) -> None:
    gradient_moments(mdp.student, rollouts, torch.ones(1, 4, 4))
    assert mdp.student.table.weight.grad is None


def test_a_data_parallel_wrapper_is_looked_through(mdp: TokenMDP, rollouts: Rollouts) -> None:
    plain = gradient_moments(mdp.student, rollouts, torch.ones(1, 4, 4), engine="loop")
    wrapped = gradient_moments(nn.DataParallel(mdp.student), rollouts, torch.ones(1, 4, 4), engine="loop")
    assert torch.equal(plain.sq_norm, wrapped.sq_norm)


def test_compiled_modules_are_refused(mdp: TokenMDP, rollouts: Rollouts) -> None:
    with pytest.raises(ValueError, match="_orig_mod"):
        gradient_moments(torch.compile(mdp.student), rollouts, torch.ones(1, 4, 4))
    mdp.student.compile()
    with pytest.raises(ValueError, match=r"compiled in place"):
        gradient_moments(mdp.student, rollouts, torch.ones(1, 4, 4))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (
            {"weights": torch.ones(1, 4, 5)},
            ValueError,
            r"weights must have shape \(E, N, T\) = \(E, 4, 4\).*\(1, 4, 5\)",
        ),
        ({"weights": torch.ones(4, 4)}, ValueError, r"pass weights\[None\]"),
        ({"weights": torch.ones(0, 4, 4)}, ValueError, "E at least 1"),
        ({"weights": 3}, TypeError, "got int"),
        (
            {"weights": torch.full((2, 4, 4), torch.nan)},
            ValueError,
            r"weights\[0, 0, 0\] is nan: estimator 0, trajectory 0",
        ),
        ({"names": ["a", "b"]}, ValueError, "names has 2 entries"),
        ({"names": ["a", "a"], "weights": torch.ones(2, 4, 4)}, ValueError, "distinct"),
        ({"engine": "fast"}, ValueError, "engine must be one of 'auto', 'one-pass', 'loop', 'jvp'; got 'fast'"),
        ({"fields": "some"}, ValueError, "fields must be"),
        ({"micro_batch": 0}, ValueError, "micro_batch must be a positive integer"),
        ({"weights": lambda logits: logits.sum((1, 2))[None], "micro_batch": 2}, ValueError, "leave micro_batch None"),
        ({"student": "gpt2"}, TypeError, "got str"),
        ({"groups": {"head": "head"}}, ValueError, "groups\\['head'\\] names 'head'.*'table.weight'"),
        ({"groups": {"other": [nn.Parameter(torch.ones(1))]}}, ValueError, "no parameter of the student"),
    ],
)
def test_bad_input_is_named(mdp: TokenMDP, rollouts: Rollouts, change: dict, error: type, match: str) -> None:
    arguments = {"student": mdp.student, "rollouts": rollouts, "weights": torch.ones(1, 4, 4)} | change
    with pytest.raises(error, match=match):
        gradient_moments(**arguments)


def test_empty_rollouts_and_frozen_students_are_refused(mdp: TokenMDP, rollouts: Rollouts) -> None:
    with pytest.raises(ValueError, match="N = 0"):
        gradient_moments(mdp.student, rollouts[[]], torch.ones(1, 0, 4))
    mdp.student.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameter"):
        gradient_moments(mdp.student, rollouts, torch.ones(1, 4, 4))


def test_weights_do_not_matter_where_masked(mdp: TokenMDP, rollouts: Rollouts) -> None:
    weights = torch.ones(1, 4, 4)
    plain = gradient_moments(mdp.student, rollouts, weights)
    weights[:, ~rollouts.mask] = torch.nan
    assert bool((~rollouts.mask).any())
    assert torch.equal(gradient_moments(mdp.student, rollouts, weights).sq_norm, plain.sq_norm)


def test_a_non_finite_gradient_names_estimator_trajectory_and_group(mdp: TokenMDP, rollouts: Rollouts) -> None:
    weights = torch.ones(2, 4, 4, dtype=torch.float64)
    weights[1, 2] = 1e200  # finite, but its square is not
    with pytest.raises(FloatingPointError, match="estimator 'bad'.*trajectory 2, group 'table'"):
        gradient_moments(
            mdp.student, rollouts, weights, names=["good", "bad"], groups={"table": "table"}, engine="loop"
        )


def test_names_and_prompt_index_come_along(mdp: TokenMDP, rollouts: Rollouts) -> None:
    found = gradient_moments(mdp.student, rollouts, torch.ones(2, 4, 4), names=["a", "b"])
    assert found.names == ("a", "b") and torch.equal(found.prompt_index, rollouts.prompt_index)
    assert gradient_moments(mdp.student, rollouts, torch.ones(2, 4, 4)).names == ("0", "1")


def test_groups_by_name_module_and_parameter() -> None:
    student = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    student[2].weight = student[1].weight  # tied
    student[0].bias.requires_grad_(False)
    found = resolve_groups(student, {"first": "0", "tied": ["2.weight"], "one": [student[1].bias], "two": ["1", "0."]})
    assert {k: len(v) for k, v in found.items()} == {"all": 4, "first": 1, "tied": 1, "one": 1, "two": 3}
    assert found["tied"][0] is student[1].weight
    assert len(resolve_groups(student, {"all": list(student.parameters())})["all"]) == 4
    with pytest.raises(ValueError, match="'all' always means every"):
        resolve_groups(student, {"all": "0"})
    with pytest.raises(ValueError, match="has no trainable parameter"):
        resolve_groups(student, {"frozen": "0.bias"})
