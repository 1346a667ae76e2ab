"""Variance by position and by layer: parts that add up to the whole."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from kvar.analysis import by_position, trace_covariance
from kvar.analysis.exact import TokenMDP, moments_of
from kvar.gradients import gradient_moments, layer_groups
from kvar.returns import Immediate, KStep, position_edges, returns, split_by_position
from tests.cases import MODELS

KERNELS = [KStep(1), Immediate()]


def test_the_parts_add_up_to_the_whole() -> None:
    mdp = TokenMDP(3, 5, seed=0, state="last-token")
    rollouts, values = mdp.sample(300, seed=1)
    weights = returns(values, rollouts.mask, KERNELS)
    split, names = split_by_position(weights, ["K=1", "immediate"], [0, 1, 3, 5])
    moments = gradient_moments(mdp.student, rollouts, torch.cat([split, weights]), [*names, "a", "b"])
    only = gradient_moments(mdp.student, rollouts, split, names)
    table = by_position(only)
    assert list(table["kernel"].unique()) == ["K=1", "immediate"] and len(table) == 6
    np.testing.assert_allclose(table.groupby("kernel")["share"].sum(), 1.0)
    own = table.set_index(["kernel", "first"])["own"]
    whole = trace_covariance(moments)
    assert own["K=1", 0] == pytest.approx(whole.value[0]) and own["immediate", 3] == pytest.approx(whole.value[5])
    for e, kernel in enumerate(("K=1", "immediate")):
        rows = [i for i, name in enumerate(names) if name.startswith(kernel + " ")]
        summed = moments.mean_pair[rows][:, rows].sum()
        assert float(summed) == pytest.approx(float(moments.mean_pair[6 + e, 6 + e]))


def test_edges_hold_about_as_many_tokens_each() -> None:
    lengths = torch.randint(1, 41, (400, 1), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(40) < lengths
    edges = position_edges(mask, 4)
    counts = [int(mask[:, a:b].sum()) for a, b in itertools.pairwise(edges)]
    assert len(counts) == 4 and max(counts) < 1.4 * min(counts)
    assert position_edges(torch.arange(5) < torch.ones(3, 1), 2) == [0, 1, 5]  # all tokens at one position


@pytest.mark.parametrize(
    ("edges", "names"), [([0, 3], ["a"]), ([1, 5], ["a"]), ([0, 2, 2, 5], ["a"]), ([0, 5], ["a", "b"])]
)
def test_bad_edges_and_names_are_refused(edges: list[int], names: list[str]) -> None:
    with pytest.raises(ValueError, match="edges must ascend|one name each"):
        split_by_position(torch.ones(1, 2, 5), names, edges)


def test_estimators_that_are_no_ranges_are_refused() -> None:
    with pytest.raises(ValueError, match="no range of positions"):
        by_position(moments_of(torch.randn(1, 5, 2), names=["K=1"]))


@pytest.mark.parametrize("kind", MODELS)
def test_every_parameter_is_in_one_layer_group(kind: str) -> None:
    model = MODELS[kind]()
    groups = layer_groups(model)
    named = [name for names in groups.values() for name in names]
    assert sorted(named) == sorted(name for name, _ in model.named_parameters())
    blocks = [name for name in groups if name.rsplit(".", 1)[-1].isdigit()]
    assert len(blocks) == (2 if model.config.is_encoder_decoder else 1) and "embeddings" in groups
