"""A whole run under FSDP2 on two processes ends as that of one process: weights, records, probes and scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import kvar
from tests.study.run.sharded_run import main, run
from tests.two_processes import results


@pytest.mark.slow
def test_a_run_under_fsdp_ends_where_one_process_does(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    results(main, tmp_path)
    run(tmp_path / "one", per_device_train_batch_size=8)
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5)
    config = json.loads((tmp_path / "two" / "model" / "config.json").read_text())
    assert config["architectures"] == ["GPT2LMHeadModel"]
    rows = [kvar.load(tmp_path / name).gradients for name in ("one", "two")]
    assert sorted(rows[0]["prompt"]) == sorted(rows[1]["prompt"])
    scores = [json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("one", "two")]
    assert scores[0]["metrics"] == pytest.approx(scores[1]["metrics"])
    assert sorted(p.name for p in (tmp_path / "two").glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
