"""What bias and efficiency are toward, and the sign of an efficiency."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import kvar
from kvar.analysis import best_k, efficiency
from kvar.analysis.exact import TokenMDP
from kvar.analysis.frames.reference import default_reference, objective_of, target_words
from kvar.estimators import parse_estimators
from kvar.gradients.moments import GradientMoments, GroupMoments
from tests.cases import ragged_prompts, tiny_gpt2


def test_estimators_of_an_objective_have_one_mean_and_the_others_another() -> None:
    mdp = TokenMDP(vocabulary=3, horizon=3, seed=0)
    text = (
        "K=1, gap K=1, gap K=1 exact expected, K=1 - teacher-value, kl K=1, kl K=1 centred, kl K=1 exact expected, "
        "K=2, kl immediate exact, gap geometric(0.5), k3-loss K=1"
    )
    estimators = parse_estimators(text)
    means = {e.name: mdp.exact(e).mean for e in estimators}
    for e in estimators:
        same = {"J": "K=1", "J_kl": "kl K=1"}
        for objective, standard in same.items():
            apart = float((means[e.name] - means[standard]).norm())
            assert (apart < 1e-10) == (e.objective == objective), (e.name, objective)


def test_the_reference_is_the_quietest_of_the_unbiased() -> None:
    names = ["K=4", "K=1", "kl K=1", "K=1 - leave-one-out", "gap K=1 exact expected - leave-one-out", "score"]
    assert default_reference(names) == names[4]
    assert default_reference(names[:4]) == "K=1 - leave-one-out" and default_reference(names[:3]) == "K=1"
    assert default_reference(names, "J_kl") == "kl K=1" and default_reference(names, "score") == "score"
    assert default_reference(names, "K=4") == "K=4" and default_reference(["K=4", "K=8"]) == "K=4"
    assert default_reference(["kl immediate exact", "kl K=1"]) == "kl K=1"
    assert objective_of("K=1 - batch-mean") is None and objective_of("K=1 ratio") is None
    assert objective_of("kl K=1 sequence-ratio - leave-one-out") == "J_kl"
    with pytest.raises(ValueError, match=r"reference 'J_kl' is none of the estimators K=4, K=1, and no obj.*\(J\)"):
        default_reference(["K=4", "K=1"], "J_kl")
    with pytest.raises(ValueError, match="for data give references="):
        default_reference(["K=4", "K=1"], "data")
    assert "gradient of J_kl, estimated by kl K=1" in target_words("kl K=1")
    assert target_words("K=4").startswith("what K=4 estimates")


def moments_of(g: torch.Tensor, names: list[str]) -> GradientMoments:
    """(E, N, P) gradients, one trajectory a prompt."""
    n = g.shape[1]
    mean = g.mean(dim=1)
    pair, cross = torch.einsum("enp,fnp->efn", g, g), torch.einsum("enp,fp->efn", g, mean)
    group = GroupMoments(
        (g**2).sum(-1), mean @ mean.T, torch.einsum("enp,ep->en", g, mean), cross, pair, prompt_pair=pair
    )
    return GradientMoments(tuple(names), {"all": group}, torch.arange(n))


def test_what_points_away_has_an_efficiency_below_zero_and_is_not_the_best() -> None:
    noise = torch.randn(3, 200, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ahead = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    g = torch.stack([ahead + noise[0], -3 * ahead + noise[1], 0.3 * ahead + noise[2]])
    found = efficiency(moments_of(g, ["K=1", "away", "weak"]), batch=16)
    assert found.value[1] < -0.8 and found.high[1] < -0.7 and found.value[2] > 0
    s = g.mean(dim=1)
    exact = float(s[1] @ s[0]) ** 2 / float((s[1] @ s[1] + 4 / 16) * (s[0] @ s[0]))
    assert -found.value[1] == pytest.approx(exact, rel=0.05)
    table = best_k(moments_of(g, ["K=1", "away", "weak"]), 16)
    assert table.attrs["best_efficiency"] == "K=1" and table["efficiency_best"][1] == 0


def test_a_table_says_what_it_is_toward() -> None:
    m = kvar.measure(
        tiny_gpt2(), tiny_gpt2(seed=1), ragged_prompts(6), kernels="1, 1 - leave-one-out, kl 1, immediate",
        rollouts_per_prompt=3, max_new_tokens=5,
    )  # fmt: skip
    text = " ".join(str(m).split())
    assert "toward the gradient of J, estimated by K=1 - leave-one-out (also measured: J_kl)." in text
    assert m._repr_html_().count("estimated by K=1 - leave-one-out") == 1
    toward = m.table(target="J_kl").set_index("kernel")
    assert toward.loc["kl K=1", "bias_sq"] == 0 and toward.loc["K=1 - leave-one-out", "bias_sq"] != 0
    assert m.table(reference="kl K=1").equals(m.table(target="J_kl"))
    assert m.table(target="J_kl").attrs["reference"] == "kl K=1"
    assert m.best_k(4, target="J_kl").equals(m.best_k(4, reference="kl K=1"))
    assert np.isfinite(m.best_k(4)["mse"]).all()
    with pytest.raises(ValueError, match="are the same option"):
        m.table(target="J", reference="K=1")
