"""Every rule against one-at-a-time truth, and what happens where a rule is missing, wrong or bypassed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from kvar.gradients.loop import loop_moments
from kvar.gradients.one_pass.engine import one_pass_moments
from kvar.gradients.rules import Call, Outer, PerRow, find_rule, rule
from tests.cases import V, build, rollouts
from tests.gradients.layers import Tiny, checked
from tests.gradients.truth import assert_close, splits, weights


class Gain(nn.Module):
    def __init__(self, size: int = 6) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.randn(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * x


class RuledGain(Gain):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * x


@rule(RuledGain, parameters=("gain",))
def ruled_gain(call: Call) -> dict:
    return {"gain": PerRow(lambda grad: call.rows(grad * call.input).sum(dim=1))}


class WrongGain(RuledGain):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * x


@rule(WrongGain, parameters=("gain",))
def wrong_gain(call: Call) -> dict:
    return {"gain": PerRow(lambda grad: call.rows(grad).sum(dim=1))}


class MisshapenGain(RuledGain):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * x


@rule(MisshapenGain, parameters=("gain",))
def misshapen_gain(call: Call) -> dict:
    return {"gain": PerRow(lambda grad: call.rows(grad))}


class Overriding(RuledGain):
    """Inherits the rule's class but computes something else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.gain**2) * x


class Bypassed(nn.Module):
    """Calls a linear layer and also uses its weight behind its back."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + x @ self.inner.weight


class Twice(nn.Module):
    """One linear layer called three times, once on flattened rows."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(self.inner(x).relu())
        return self.inner(y.reshape(-1, 6)).reshape(x.shape)


class InPlaceInput(nn.Module):
    """The linear layer's input is changed after the layer has read it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = x.detach().clone()
        y = self.inner(z)
        z.mul_(2)
        return y + z


class InPlaceOutput(nn.Module):
    """The linear layer's output is changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(x)
        y *= x.sigmoid()
        return y


class Positions(nn.Module):
    """Learned positions looked up once for all trajectories: with a batch axis of one, or with none."""

    def __init__(self, axis: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(40, 6)
        self.axis = axis

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ids = torch.arange(x.shape[1])
        return x + self.table(ids[None] if self.axis else ids)


class Mixing(nn.Module):
    """Subtracts the mean over the batch: trajectories are not independent."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + self.inner(x).mean(dim=0, keepdim=True)


class NoGrad(nn.Module):
    """Uses a layer under no_grad and detached: those uses carry no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            quiet = self.inner(x)
        return self.inner(x) + quiet * self.inner(x).detach()


class Tied(Tiny):
    """Embedding and head share one matrix."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(6, 6))
        self.head.weight = self.embed.weight


COVERED = {
    "linear": lambda: nn.Linear(6, 6),
    "linear without bias": lambda: nn.Linear(6, 6, bias=False),
    "layer norm": lambda: nn.LayerNorm(6),
    "layer norm without bias": lambda: nn.LayerNorm(6, bias=False),
    "rms norm": lambda: nn.RMSNorm(6),
    "custom rule": RuledGain,
    "called three times": Twice,
    "positions, axis of one": lambda: Positions(axis=True),
    "no_grad and detached": NoGrad,
    "wide, written out": lambda: nn.Sequential(nn.Linear(6, 2), nn.Linear(2, 6)),
}


@pytest.mark.parametrize("name", COVERED)
def test_covered(name: str) -> None:
    assert checked(Tiny(COVERED[name]())) == []


def test_conv1d() -> None:
    from transformers.pytorch_utils import Conv1D

    assert checked(Tiny(nn.Sequential(Conv1D(9, 6), Conv1D(6, 9)))) == []


def test_tied_embedding_and_padding_index() -> None:
    assert checked(Tied()) == []
    model = Tiny(nn.Linear(6, 6))
    model.embed = nn.Embedding(V, 6, padding_idx=-3)
    assert checked(model) == []


def test_tied_norms() -> None:
    norm = nn.LayerNorm(6)
    other = nn.LayerNorm(6)
    other.weight = norm.weight
    assert checked(Tiny(nn.Sequential(norm, nn.Linear(6, 6), other))) == []


BY_OPERATION = {
    "no rule": Gain,
    "wrong rule": WrongGain,
    "overridden forward": Overriding,
    "bypassed": Bypassed,
    "no batch axis": lambda: Positions(axis=False),
    "reparametrised": lambda: parametrizations.weight_norm(nn.Linear(6, 6)),
}


@pytest.mark.parametrize("name", BY_OPERATION)
def test_where_no_rule_helps_the_operations_do(name: str) -> None:
    assert checked(Tiny(BY_OPERATION[name]())) == []


def test_tolerant_of_positions_without_axis_when_n_equals_t() -> None:
    """(T, d) look-ups that could pass for (N, d) ones."""
    model = Tiny(Positions(axis=False)).double().eval()
    for n in range(3, 9):
        data = rollouts(n=n, s=1, t=5)
        w, groups = weights(data), splits(model)
        ours = one_pass_moments(model, data, w, groups)
        assert_close(ours, loop_moments(model, data, w, groups), 1e-9)


def test_mixing_trajectories_is_noticed() -> None:
    """A batch statistic: the rules' numbers would not be a lone trajectory's."""
    texts = checked(Tiny(Mixing()))
    assert len(texts) == 1
    assert "layer.inner.weight" in texts[0]


def test_an_output_changed_in_place_is_never_silently_wrong() -> None:
    """By rules where the graph still passes through the layer's own output, else row by row: exact either way."""
    assert len(checked(Tiny(InPlaceOutput()))) <= 1


def test_an_input_changed_in_place_is_refused_as_autograd_refuses_it() -> None:
    model = Tiny(InPlaceInput()).double().eval()
    data = rollouts()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        one_pass_moments(model, data, weights(data), splits(model))


def test_a_bypass_that_only_a_later_batch_takes() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) if x.shape[0] <= 2 else F.linear(x, self.inner.weight, self.inner.bias)

    assert len(checked(Tiny(Sometimes()))) == 1


def test_misshapen_rule_is_an_error() -> None:
    model = Tiny(MisshapenGain()).double().eval()
    data = rollouts()
    with pytest.raises(ValueError, match="misshapen_gain.*MisshapenGain"):
        one_pass_moments(model, data, weights(data), splits(model))


def test_misshapen_outer_is_an_error() -> None:
    class Odd(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    @rule(Odd, parameters=("weight",))
    def odd(call: Call) -> dict:
        return {"weight": Outer(call.rows(call.input)[..., :3], side=1)}

    model = Tiny(Odd(6, 6)).double().eval()
    data = rollouts()
    with pytest.raises(ValueError, match="odd"):
        one_pass_moments(model, data, weights(data), splits(model))


def test_registry_prefers_the_nearest_class_and_minds_overrides() -> None:
    assert find_rule(WrongGain()).function is wrong_gain
    assert find_rule(RuledGain()).function is ruled_gain
    assert find_rule(Overriding()) is None
    assert find_rule(Gain()) is None


def test_unused_parameter_has_zero_gradient() -> None:
    model = build("t5")
    model.extra = nn.Linear(2, 2).double()
    data = rollouts()
    groups = {"all": list(model.parameters()), "extra": list(model.extra.parameters())}
    ours = one_pass_moments(model, data, weights(data), groups)
    assert float(ours["extra"].pair.abs().max()) == 0.0
    assert_close({"all": ours["all"]}, loop_moments(model, data, weights(data), {"all": groups["all"]}), 1e-9)


@pytest.mark.filterwarnings("ignore:no rule covers")
@pytest.mark.parametrize("name", ["t5", "gpt2"])
def test_embeddings_scaled_by_frequency(name: str) -> None:
    """Their gradients count an id's occurrences in a trajectory; the longest, which is tried, repeats none."""
    model, data = build(name), rollouts()
    data.tokens[:] = torch.arange(3, 9)
    data.tokens[:-1, 1:] = 4
    data.prompt_ids[:] = torch.arange(10, 14)
    model.get_input_embeddings().scale_grad_by_freq = True
    w, groups = weights(data), splits(model)
    assert_close(one_pass_moments(model, data, w, groups), loop_moments(model, data, w, groups), 1e-9)
