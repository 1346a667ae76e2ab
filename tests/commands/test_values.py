"""Options out of range are refused with their name, before any work."""

from __future__ import annotations

import pytest

from kvar.commands.main import main


@pytest.mark.parametrize(
    "words",
    [
        ["report", "run", "--output", "out", "--batch", "0"],
        ["report", "run", "--output", "out", "--step", "abc"],
        ["choose-k", "run", "--step", "x"],
        ["choose-k", "run", "--prompts", "0"],
        ["study", "demo", "--output", "out", "--jobs", "0"],
        ["demo", "--batch", "-1"],
        ["evaluate", "run", "--beams", "many"],
    ],
)
def test_a_value_out_of_range_is_told_by_its_option(words, capsys):
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words[-2] in line
    assert repr(words[-1]) in line


def test_fewer_than_no_steps_are_refused(tmp_path, capsys):
    assert main(["train", "arithmetic-teacher", "--output_dir", str(tmp_path), "--max_steps", "-3"]) == 2
    assert "max_steps must be at least 1" in capsys.readouterr().err
