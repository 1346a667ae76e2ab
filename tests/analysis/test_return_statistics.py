"""Statistics of recorded returns: streamed, for kernels that were not foreseen, with intervals that cover."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import kvar
from kvar.analysis.exact import TokenMDP
from kvar.analysis.frames.trajectory_batches import trajectory_batches
from kvar.analysis.return_statistics import gap_autocorrelation, return_statistics
from kvar.gradients.frames import trajectory_frame
from kvar.records import RunWriter
from kvar.returns import Geometric, Immediate, KStep, returns
from kvar.rollouts import Rollouts

KERNELS = [KStep(1), KStep(3), Geometric(0.8), Immediate()]


def recorded(folder: Path, n: int, seed: int = 0, rollouts: int = 1) -> tuple[kvar.records.Run, Rollouts, object]:
    mdp = TokenMDP(4, 6, seed=2, prompts=1)
    sampled, values = mdp.sample(n, seed=seed)
    sampled = Rollouts(**{**sampled.__dict__, "prompt_index": torch.arange(n) // rollouts})
    with RunWriter(folder, {}) as writer:
        writer.append("trajectories", trajectory_frame(sampled, values, probe="p", step=3), key=("p", 3))
    return kvar.load(folder), sampled, values


@pytest.mark.parametrize("baseline", [None, "teacher-value"])
def test_values_are_those_of_the_returns_themselves(tmp_path: Path, baseline: str | None) -> None:
    run, sampled, values = recorded(tmp_path, 300)
    table = return_statistics(run, KERNELS, baseline=baseline).set_index(["kernel", "statistic"])["value"]
    g = returns(values, sampled.mask, KERNELS, baseline=baseline)
    for e, kernel in enumerate(KERNELS):
        tokens = g[e][sampled.mask]
        assert table[kernel.name, "return"] == pytest.approx(float(g[e, :, 0].mean()))
        assert table[kernel.name, "token_return"] == pytest.approx(float(tokens.mean()))
        assert table[kernel.name, "token_variance"] == pytest.approx(float(tokens.var(unbiased=False)))
    assert table["", "length"] == pytest.approx(float(sampled.mask.sum(dim=1).double().mean()))
    assert table["", "finished"] == pytest.approx(float(sampled.finished.double().mean()))


def test_rows_read_in_pieces_give_whole_trajectories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups end in the middle of trajectories; nothing is lost, doubled or torn."""
    monkeypatch.setattr(pq, "write_table", lambda *a, _own=pq.write_table, **k: _own(*a, **{**k, "row_group_size": 7}))
    run, sampled, values = recorded(tmp_path, 50)
    batches = list(trajectory_batches(run, "p", 3))
    assert len(batches) > 5
    assert torch.cat([b.mask.sum(dim=1) for b in batches]).tolist() == sampled.mask.sum(dim=1).tolist()
    gap = torch.cat([b.values.gap.sum(dim=1) for b in batches])
    torch.testing.assert_close(gap, values.gap.sum(dim=1))
    assert np.concatenate([b.prompt for b in batches]).tolist() == list(range(50))


def test_autocorrelation_matches_its_definition(tmp_path: Path) -> None:
    run, sampled, values = recorded(tmp_path, 400)
    found = gap_autocorrelation(run, lags=9).set_index("lag")["value"]
    gap, mask = values.gap.numpy(), sampled.mask.numpy()
    centred = np.where(mask, gap - gap[mask].mean(), 0.0)
    for lag in range(6):
        covariance = (centred[:, : 6 - lag] * centred[:, lag:]).sum() / mask[:, lag:].sum()
        assert found[lag] == pytest.approx(covariance / ((centred**2).sum() / mask.sum()))
    assert found[0] == 1.0 and 9 not in found.index  # no response is that long


def test_intervals_cover_with_rollouts_of_a_prompt_as_one_unit(tmp_path: Path) -> None:
    """Four copies of each response are one observation, not four."""
    mdp = TokenMDP(4, 6, seed=2)
    every, table = mdp.responses()
    p = mdp.probabilities
    g = returns(table, every.mask, [KStep(3)])[0]
    size = float((p * every.mask.sum(dim=1)).sum())
    mean = float((p * g.sum(dim=1)).sum()) / size
    truth = {"return": float((p * g[:, 0]).sum()), "token_return": mean,
             "token_variance": float((p * (g**2).sum(dim=1)).sum()) / size - mean**2}  # fmt: skip
    hits, repeats = dict.fromkeys(truth, 0), 200
    for seed in range(repeats):
        sampled, values = mdp.sample(600, seed=seed)
        rows = torch.arange(600).repeat_interleave(4)
        many = replace(sampled[rows], prompt_index=rows)
        copies = type(values)(values.q[rows], values.v[rows])
        folder = tmp_path / str(seed)
        with RunWriter(folder, {}) as writer:
            writer.append("trajectories", trajectory_frame(many, copies, probe="p", step=0))
        found = return_statistics(kvar.load(folder), [KStep(3)]).set_index("statistic")
        for name, value in truth.items():
            hits[name] += found.loc[name, "low"] <= value <= found.loc[name, "high"]
    shares = {name: count / repeats for name, count in hits.items()}
    assert all(0.90 < share < 0.985 for share in shares.values()), shares


def test_bad_input_is_named(tmp_path: Path) -> None:
    run, _, _ = recorded(tmp_path, 5)
    with pytest.raises(ValueError, match="baseline must be None or 'teacher-value'"):
        return_statistics(run, KERNELS, baseline="batch-mean")
    with pytest.raises(ValueError, match=r"no trajectories at steps \[9\]"):
        return_statistics(run, KERNELS, steps=[9])
    with pytest.raises(ValueError, match="lags must be at least 1"):
        gap_autocorrelation(run, lags=0)
