"""Imports run downwards only: the contracts in pyproject.toml hold, and each of them would notice a breach."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """Run the import linter on the kvar package under ``root``."""
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache", "--no-logo"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A copy of the package and its contracts, to be broken."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copy(ROOT / "pyproject.toml", root)
    shutil.copytree(
        ROOT / "kvar",
        root / "kvar",
        ignore=shutil.ignore_patterns("__pycache__", "*.safetensors", "*.json", "*.yaml"),
    )
    return root


def test_the_contracts_hold():
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 broken" in result.stdout


BREACHES = [
    ("returns", "analysis", "Floors"),
    ("returns", "rollouts", "Floors"),
    ("records", "tasks", "Floors"),
    ("intervals", "returns", "Floors"),
    ("gradients", "distill", "Floors"),
    ("distill", "gradients", "Floors"),
    ("analysis", "hooks", "Floors"),
    ("measurement", "hooks", "Floors"),
    ("report", "measurement", "Floors"),
    ("hooks", "front", "Floors"),
    ("plots", "report", "Floors"),
    ("hooks", "distill", "Hooks, measurements"),
    ("measurement", "distill", "Hooks, measurements"),
    ("analysis", "tasks", "Hooks, measurements"),
    ("rollouts", "tasks", "Rollouts, estimators and gradients"),
    ("gradients", "records", "Rollouts, estimators and gradients"),
    ("estimators", "gradients", "Floors"),
    ("distill", "records", "The trainer writes no records"),
    ("results", "plots", "Floors"),
    ("report", "study", "Plots, results and report"),
    ("results", "hooks", "Plots, results and report"),
    ("study", "returns", "A study measures through hooks"),
]
"""Room, what it must not import, and the contract that says so."""


@pytest.fixture(scope="module")
def reported(copy) -> dict[str, str]:
    """What the linter says of each contract where every breach is made, each in a file of its own."""
    for room, imported, _ in BREACHES:
        (copy / "kvar" / room / f"breach_{imported}.py").write_text(f"def late():\n    import kvar.{imported}\n")
    result = lint(copy)
    assert result.returncode == 1, result.stdout + result.stderr
    _, _, details = result.stdout.partition("Broken contracts")
    parts = re.split(r"^(.+)\n-+\n", details, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize(("room", "imported", "contract"), BREACHES)
def test_a_breach_is_noticed(reported, room, imported, contract):
    (said,) = (text for name, text in reported.items() if name.startswith(contract))
    assert f"kvar.{room}.breach_{imported} -> kvar.{imported}" in said


def test_a_room_that_is_on_no_floor_is_noticed(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for room in [path.parent for path in (ROOT / "kvar").glob("*/__init__.py")]:
        (tmp_path / "kvar" / room.name).mkdir(parents=True)
        (tmp_path / "kvar" / room.name / "__init__.py").write_text("")
    for name in ("__init__", "__main__", "_bounds", "_version"):
        (tmp_path / "kvar" / f"{name}.py").write_text("")
    assert lint(tmp_path).returncode == 0
    (tmp_path / "kvar" / "attic.py").write_text("")
    result = lint(tmp_path)
    assert result.returncode == 1
    assert "attic" in result.stdout


def imported_files(root: Path) -> dict[str, set[str]]:
    """Module -> the modules of the package that it names in any import: lazy and type-only ones count."""
    paths = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in root.glob("kvar/**/*.py")
    }
    edges: dict[str, set[str]] = {}
    for name, path in paths.items():
        named: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.module is not None and node.level == 0, f"{path}: a relative import"
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                named |= {module if module in paths else node.module for module in inner}
        edges[name] = (named & set(paths)) - {name}
    return edges


def circles(edges: dict[str, set[str]]) -> set[frozenset[str]]:
    """Sets of modules that import each other, directly or through others."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(edges[start])
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting += edges[module]
        return seen

    reach = {module: reached(module) for module in edges}
    return {
        frozenset(other for other in reach[module] if module in reach[other])
        for module in edges
        if module in reach[module]
    }


def test_no_files_import_each_other_in_a_circle():
    assert circles(imported_files(ROOT)) == set()


def test_a_circle_of_lazy_and_type_only_imports_is_noticed(tmp_path):
    room = tmp_path / "kvar" / "room"
    room.mkdir(parents=True)
    (room.parent / "__init__.py").write_text("")
    (room / "__init__.py").write_text("")
    (room / "first.py").write_text("def late():\n    from kvar.room import second\n")
    (room / "second.py").write_text("if TYPE_CHECKING:\n    from kvar.room.third import Third\n")
    (room / "third.py").write_text("import kvar.room.first\n")
    (room / "aside.py").write_text("from kvar.room.first import late\n")
    ring = frozenset(f"kvar.room.{name}" for name in ("first", "second", "third"))
    assert circles(imported_files(tmp_path)) == {ring}
