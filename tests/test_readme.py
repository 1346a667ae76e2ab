"""The README's first two code examples run as they stand, on few prompts, with shipped models for those of a hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import kvar

README = Path(__file__).parents[1] / "README.md"


def test_the_first_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    first, own = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)[:2]
    assert first.count("\n") <= 10 and "256)" in first
    names: dict[str, Any] = {}
    exec(compile(first.replace("256)", "8)"), "README.md", "exec"), names)
    printed = capsys.readouterr().out
    shown = README.read_text().split("```")[3]
    for name in ("kernel  ", *names["m"].names):
        assert name in shown and name in printed
    own = own.replace("google/flan-t5-small", "arithmetic-50k").replace("google/flan-t5-xl", "arithmetic")
    exec(compile(own, "README.md", "exec"), names)
    m = names["m"]
    assert m.names == ("K=1", "K=2", "K=4", "K=8", "immediate") and len(m.rollouts) == 32
    assert kvar.load("runs/flan").table().equals(m.table()) and Path("variance.png").is_file()


def test_paths_the_readme_names_exist() -> None:
    text = README.read_text()
    for path in re.findall(r"\]\(((?:figures|docs|notebooks|benchmarks|CONTRIBUTING|CITATION)[^)]*)\)", text):
        assert (README.parent / path).exists(), path
