"""Every notebook runs from top to bottom, and is committed as a clean run left it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbclient", reason="notebooks need the extra kvar[notebooks]")
pytest.importorskip("ipywidgets", reason="notebooks need the extra kvar[notebooks]")

import nbformat

from notebooks.run import WIDGET, execute, notebooks, tidy, with_parameters

SMALL: dict[str, dict[str, Any]] = {
    "1_quick_start": {"PROMPTS": 16, "ROLLOUTS": 2, "STEPS": 2},
    "2_variance_against_k": {"STEPS": 16, "EVERY": 8, "PROMPTS": 24, "ROLLOUTS": 3, "LENGTH": 64},
    "3_theory_against_measurement": {"N": 60, "REPEATS": 20, "DRAWS": 40, "HORIZON": 5},
    "4_student_size": {"WIDTHS": (16, 32, 48), "STEPS": 4, "PROMPTS": 8, "ROLLOUTS": 2},
    "5_your_own_kernel_or_layer_rule": {"PROMPTS": 8, "ROLLOUTS": 2, "LAGS": 8, "WIDTH": 16, "TRAJECTORIES": 8},
    "6_attach_the_probe": {"STEPS": 4, "EVERY": 2, "PROMPTS": 8, "ROLLOUTS": 2, "LENGTH": 6},
    "7_watch_a_trl_run_live": {"STEPS": 4, "EVERY": 2, "BATCH": 8, "LENGTH": 6},
}
SLOWER = {"2_variance_against_k", "4_student_size", "6_attach_the_probe", "7_watch_a_trl_run_live"}
BOOKS = notebooks()
ROOT = Path(__file__).parents[2]


def streams(book: Any, name: str) -> str:
    outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
    return "".join(o.text for o in outputs if o.output_type == "stream" and o.name == name)


def test_all_notebooks_are_known_here() -> None:
    assert [path.stem for path in BOOKS] == sorted(SMALL)


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] if p.stem in SLOWER else []) for p in BOOKS]
)
def test_runs_top_to_bottom(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    book = execute(path, SMALL[path.stem], timeout=600)
    assert streams(book, "stderr") == ""  # neither warnings nor progress bars
    figures = [o for c in book.cells for o in c.get("outputs", ()) if "image/png" in o.get("data", {})]
    assert figures


@pytest.mark.parametrize("path", BOOKS, ids=[p.stem for p in BOOKS])
def test_committed_as_a_clean_run_left_it(path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert book == tidy(nbformat.read(path, as_version=4))
    assert not streams(book, "stderr")
    whole = path.read_text(encoding="utf-8")
    assert len(whole) < 800_000
    assert not re.search(r"/home/|/root/|/tmp/|/Users/|site-packages", whole)
    assert not any(str(folder) in whole for folder in (ROOT, ROOT.parent, Path.home()) if len(folder.parts) > 1)
    assert "%|" not in whole  # a progress bar


@pytest.mark.parametrize("path", BOOKS, ids=[p.stem for p in BOOKS])
def test_numbers_in_prose_come_from_cells(path: Path) -> None:
    prose = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
    assert not re.search(r"\d\.\d", prose)
    assert "What remains uncertain" in prose


def test_parameters_must_be_the_notebooks_own() -> None:
    with pytest.raises(ValueError, match="do not include NOTHING"):
        with_parameters(BOOKS[0], {"NOTHING": 1})


def test_tidy_drops_widgets_and_keeps_their_picture() -> None:
    output = nbformat.v4.new_output("display_data", {WIDGET: {"model_id": "x"}, "image/png": "AAAA"})
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=[output])])
    book.metadata["widgets"] = {"state": 1}
    kept = tidy(book)
    assert list(kept.cells[0].outputs[0].data) == ["image/png"]
    assert "widgets" not in kept.metadata
