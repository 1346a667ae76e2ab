"""Imports run downwards only: the contracts in pyproject.toml hold, and each of them would notice a breach."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize(
    ("room", "imported", "contract"),
    [
        ("returns", "analysis", "Floors"),
        ("returns", "rollouts", "Floors"),
        ("records", "tasks", "Floors"),
        ("intervals", "returns", "Floors"),
        ("gradients", "distill", "Floors"),
        ("distill", "gradients", "Floors"),
        ("hooks", "analysis", "Floors"),
        ("plots", "report", "Floors"),
        ("hooks", "distill", "Hooks and analysis"),
        ("analysis", "tasks", "Hooks and analysis"),
        ("rollouts", "tasks", "Rollouts and gradients"),
        ("gradients", "records", "Rollouts and gradients"),
        ("distill", "records", "The trainer writes no records"),
        ("results", "plots", "Floors"),
        ("report", "study", "Plots, results and report"),
        ("results", "hooks", "Plots, results and report"),
        ("study", "returns", "A study measures through hooks"),
    ],
)
def test_a_breach_is_noticed(copy, room, imported, contract):
    breach = copy / "kvar" / room / "breach.py"
    breach.write_text(f"def late():\n    import kvar.{imported}\n")
    try:
        result = lint(copy)
    finally:
        breach.unlink()
    assert result.returncode == 1, result.stdout + result.stderr
    broken = [line for line in result.stdout.splitlines() if line.endswith(" BROKEN")]
    assert any(line.startswith(contract) for line in broken), result.stdout
    assert f"kvar.{room}.breach -> kvar.{imported}" in result.stdout


def test_a_room_that_is_on_no_floor_is_noticed(copy):
    room = copy / "kvar" / "attic"
    room.mkdir()
    (room / "__init__.py").write_text("")
    try:
        result = lint(copy)
    finally:
        shutil.rmtree(room)
    assert result.returncode == 1
    assert "attic" in result.stdout
