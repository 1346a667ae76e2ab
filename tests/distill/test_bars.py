"""Files on this machine are read and written without transformers' bars; other bars stay as they were."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers.utils import logging

from kvar.distill import load_model
from kvar.distill.config import DistillationConfig
from kvar.distill.models import save_model
from kvar.distill.models.bars import without_bars


def test_a_local_model_is_read_and_saved_without_a_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logging.enable_progress_bar()
    model = load_model("arithmetic-50k")
    save_model(model, tmp_path / "own")
    assert capfd.readouterr().err == ""
    assert logging.is_progress_bar_enabled()
    model.save_pretrained(tmp_path / "theirs")
    assert "Writing model shards" in capfd.readouterr().err  # what the two lines above leave out


def test_bars_that_were_off_stay_off_and_those_of_a_download_stay_on() -> None:
    logging.enable_progress_bar()
    with without_bars(False):
        assert logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with without_bars():
            pass
        assert not logging.is_progress_bar_enabled()
    finally:
        logging.enable_progress_bar()


def test_nothing_is_pinned_without_an_accelerator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    assert not DistillationConfig(output_dir=str(tmp_path), report_to="none").dataloader_pin_memory
