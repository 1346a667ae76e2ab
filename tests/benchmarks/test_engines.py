"""What the benchmark of the engines says must be what it measured, and its instruments must measure."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks import measure, plot, tables
from benchmarks.cases import case
from benchmarks.contestants import CONTESTANTS
from kvar.gradients import gradient_moments

HERE = Path(__file__).parents[2] / "benchmarks"


def test_the_readme_says_what_the_data_say(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text((HERE / "README.md").read_text())
    tables.write(pd.read_csv(HERE / "engines.csv"), page)
    assert page.read_text() == (HERE / "README.md").read_text()


def test_the_plot_is_drawn_from_the_data(tmp_path: Path) -> None:
    plot.draw(pd.read_csv(HERE / "engines.csv"), tmp_path / "engines")
    assert (tmp_path / "engines.png").stat().st_size > 10_000
    assert (tmp_path / "engines.svg").stat().st_size > 10_000


def test_operations_are_those_of_the_products() -> None:
    a, b = torch.randn(5, 7), torch.randn(7, 11)
    assert measure.operations(lambda: (a @ b).sum()) == 2 * 5 * 7 * 11


def test_peak_memory_sees_what_was_held_and_freed() -> None:
    def job() -> None:
        held = torch.ones(2**24)  # 64 MiB
        del held
        torch.ones(2**22)

    found = measure.peak_memory(job, lambda: torch.ones(2))
    if found != found:
        pytest.skip("no /proc here")
    assert 0.9 * 2**26 <= found <= 1.2 * 2**26, found


def test_contestants_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    order: list[str] = []
    found = measure.interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3, once={"b"})
    assert order == ["a", "b", "a", "a"]
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 3, "b": 1}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.raises(RuntimeError, match="OMP_NUM_THREADS=1"):
        measure.interleaved({}, 1)


@pytest.mark.parametrize("kind", ["t5", "gpt2", "untied"])
def test_contestants_measure_the_same(kind: str) -> None:
    tiny = case(kind, "0.3M", n=2, t=3, e=2, s=3)
    truth = gradient_moments(tiny.student, tiny.rollouts, tiny.weights, engine="loop", fields="norms").sq_norm
    for name in ("one-pass, norms", "one-pass, all fields"):
        job = CONTESTANTS[name](tiny)
        assert job is not None
        torch.testing.assert_close(job().sq_norm, truth, rtol=1e-4, atol=0)
    job = CONTESTANTS["torch.func vmap"](tiny)
    assert job is not None
    torch.testing.assert_close(job().double(), truth, rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", ["t5", "gpt2", "untied"])
def test_the_output_layer_is_measured_at_the_right_positions(kind: str) -> None:
    """The head's inputs picked out of a forward pass are those that made the logits."""
    tiny = case(kind, "0.3M", n=2, t=3, e=2, s=3)
    job = CONTESTANTS["output layer, pairs"](tiny)
    assert job is not None
    hidden, logits = job.args[:2]
    head = tiny.student.head if kind == "untied" else tiny.student.lm_head
    torch.testing.assert_close(head(hidden), logits, rtol=1e-4, atol=1e-5)
