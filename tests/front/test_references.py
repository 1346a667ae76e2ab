"""``kvar.measure`` with references, and a probe: the data's likelihood as a target."""

from __future__ import annotations

import numpy as np
import pytest

import kvar
from kvar.hooks import GradientProbe
from kvar.tasks import ArithmeticTask

KERNELS = "K=1, kl immediate exact, kl K=1 - leave-one-out"


@pytest.fixture(scope="module")
def examples():
    return ArithmeticTask().examples("validation", 6)


@pytest.fixture(scope="module")
def measured(examples):
    prompts, targets = [e.prompt for e in examples], [e.target for e in examples]
    options = {"references": targets, "rollouts_per_prompt": 2, "max_new_tokens": 12}
    return kvar.measure("arithmetic-50k", "arithmetic", prompts, kernels=KERNELS, **options)


def test_the_data_is_a_target_beside_the_others(measured):
    assert measured.names[-1] == "data"
    assert len(measured.rollouts) == 12
    rows = measured.toward(64)
    assert set(rows["target"]) == {"data", "J", "J_kl"}
    itself = rows[rows["reference"] == rows["estimator"]].set_index("target")["bias"]
    for target, resolved in rows.attrs["resolved"].items():  # six prompts resolve little
        assert itself[target] == pytest.approx(0.0 if resolved else np.nan, abs=1e-6, nan_ok=True)
    found = measured.best_k(6, 2).set_index("kernel")
    assert found.loc["data", ["mse_best", "efficiency_best"]].isna().all() and np.isnan(found.loc["data", "mse"])
    assert "data" in str(measured)


def test_it_is_saved_and_read_back(measured, tmp_path):
    back = kvar.load(measured.save(tmp_path / "m"))
    for ours, theirs in zip(measured.toward(64).to_numpy().T, back.toward(64).to_numpy().T, strict=True):
        assert (ours == theirs).all() or np.allclose(ours.astype(float), theirs.astype(float), equal_nan=True)


def test_a_probe_measures_the_same(measured, examples):
    from kvar.distill import load_model, load_tokenizer

    prompts, targets = [e.prompt for e in examples], [e.target for e in examples]
    options = {"rollouts_per_prompt": 2, "max_new_tokens": 12, "tokenizer": load_tokenizer("arithmetic")}
    probe = GradientProbe(prompts, KERNELS, teacher=load_model("arithmetic"), references=targets, **options)
    again = probe.measure(load_model("arithmetic-50k"))
    np.testing.assert_allclose(again.moments.sq_norm, measured.moments.sq_norm, rtol=1e-5)


@pytest.mark.parametrize(("given", "what"), [(["1"], "references: 1 for 6 prompts"), ("text", "references")])
def test_bad_references_are_refused_before_sampling(examples, given, what):
    with pytest.raises(ValueError, match=what):
        kvar.measure("arithmetic-50k", "arithmetic", [e.prompt for e in examples], references=given)
