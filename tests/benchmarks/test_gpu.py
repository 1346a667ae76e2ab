"""The benchmark of a card runs on the CPU at toy size, and says why it is skipped without a card."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.gpu import CONFIGS, PRECISIONS, SIZES, main, table


def test_the_page_has_a_row_for_each_student_and_precision(tmp_path: Path) -> None:
    words = ["--device", "cpu", "--only", "t5-tiny", "--rounds", "1", "--budget", "1e6", "--output"]
    main([*words, str(tmp_path / "GPU.md")])
    page = (tmp_path / "GPU.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| t5")]
    assert [(row[1].strip(), row[2].strip()) for row in rows] == [("t5-tiny", p) for p in PRECISIONS]
    assert all(float(row[column].replace(",", "")) > 0 for row in rows for column in range(3, 7))
    assert all(not row[column].strip() for row in rows for column in range(7, 10))  # memory is a card's
    assert torch.__version__ in page


def test_what_was_not_measured_is_empty() -> None:
    assert table([("a", "float32", {"plain ms": 1.25, "norms": 4.0})]).splitlines()[-1] == (
        "| a | float32 | 1.2 | 4.00 |  |  |  |  |  |"
    )


def test_a_machine_without_a_card_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    main([])
    assert capsys.readouterr().out == f"make gpu: skipped, torch {torch.__version__} sees no CUDA device here\n"


def test_sizes_run_from_a_tenth_to_one_and_a_half_billion() -> None:
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    for name in SIZES["all"]:
        fields = dict(CONFIGS[name])
        config = CONFIG_MAPPING[fields.pop("model_type")](**fields)
        auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        with torch.device("meta"):
            parameters = sum(p.numel() for p in auto.from_config(config).parameters())
        assert parameters == pytest.approx(float(name.split("-")[1][:-1]) * 1e9, rel=0.25), name
