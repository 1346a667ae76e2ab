"""What is said before a run starts."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from kvar.study.run import preflight
from kvar.study.run.preflight import check_machine
from kvar.study.settings.reading import settings_from


def check(folder: Path, **fields: object) -> list[str]:
    """The warnings of a run's check."""
    plain = {
        "report_to": "none",
        "use_cpu": True,
        "output_dir": str(folder),
        "teacher": "arithmetic",
        "student_layers": "every 2",
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_machine(*settings_from({**plain, **fields}, "test"))
    return [str(w.message) for w in caught if "bfloat16" in str(w.message)]


@pytest.mark.parametrize(
    ("there", "fields", "named"),
    [
        (False, {"bf16": True}, "bf16"),
        (False, {"teacher_dtype": "bfloat16"}, "teacher_dtype"),
        (False, {"bf16": True, "teacher_dtype": "bfloat16"}, "bf16 and teacher_dtype"),
        (False, {}, None),
        (True, {"bf16": True, "teacher_dtype": "bfloat16"}, None),
    ],
)
def test_bfloat16_without_its_instructions_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool, fields: dict, named: str | None
) -> None:
    monkeypatch.setattr(preflight, "_has_bfloat16", lambda: there)
    said = check(tmp_path, **fields)
    if named is None:
        assert not said
    else:
        assert len(said) == 1 and said[0].startswith(f"{named}: this processor") and "float32" in said[0]


@pytest.mark.parametrize(
    ("prompts", "rollouts", "warned"), [(2, 4, True), (3, 4, False), (2, 1, False), (1, 1, True), (8, 4, False)]
)
def test_a_probe_too_small_to_be_reported_is_warned_of(prompts: int, rollouts: int, warned: bool) -> None:
    settings, _ = settings_from(
        {"task": "arithmetic", "objective": "sft", "probe_rollouts": rollouts, "output_dir": "x", "use_cpu": True,
         "student_layers": "every 2", "teacher": "arithmetic"}, "test",
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        preflight.check_probe_size(settings.probe, prompts)
    said = [str(w.message) for w in caught]
    assert len(said) == int(warned)
    assert not warned or (f"has {prompts} prompts with {rollouts} responses" in said[0] and "at least 3" in said[0])
