"""The README's code example runs as it stands, on the teacher that ships in place of hub models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from kvar.study.teachers import resolve
from kvar.tasks import ArithmeticTask

README = Path(__file__).parents[1] / "README.md"


def test_the_first_example_runs() -> None:
    code = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)[0]
    code = re.sub(r"google/flan-t5-\w+", str(resolve("arithmetic")), code)
    code = code.replace("prompts=16", "prompts=2").replace("batch=64", "batch=4")
    names: dict[str, Any] = {"prompts": [e.prompt for e in ArithmeticTask().examples("test", 8)]}
    exec(compile(code, "README.md", "exec"), names)
    assert names["trace_covariance"](names["moments"]).value.shape == (5,)
    assert names["rollouts"].tokens.shape[0] == 32


def test_paths_the_readme_names_exist() -> None:
    text = README.read_text()
    for path in re.findall(r"\]\(((?:figures|docs|notebooks|benchmarks|CONTRIBUTING|CITATION)[^)]*)\)", text):
        assert (README.parent / path).exists(), path
