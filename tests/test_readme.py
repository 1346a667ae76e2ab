"""The README's code example runs as it stands, on the teacher that ships in place of hub models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import kvar
from kvar.tasks import ArithmeticTask

README = Path(__file__).parents[1] / "README.md"


def test_the_first_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)[0]
    assert code.count("\n") <= 10
    code = re.sub(r"google/flan-t5-\w+", "arithmetic", code)
    names: dict[str, Any] = {"prompts": [e.prompt for e in ArithmeticTask().examples("test", 8)]}
    exec(compile(code, "README.md", "exec"), names)
    m = names["m"]
    assert m.names == ("K=1", "K=2", "K=4", "K=8", "immediate") and len(m.rollouts) == 32
    assert kvar.load("runs/flan").table().equals(m.table()) and Path("variance.png").is_file()


def test_paths_the_readme_names_exist() -> None:
    text = README.read_text()
    for path in re.findall(r"\]\(((?:figures|docs|notebooks|benchmarks|CONTRIBUTING|CITATION)[^)]*)\)", text):
        assert (README.parent / path).exists(), path
