"""Tests run on one torch thread, hypothesis draws the same examples each time, and what is skipped is told why."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
settings.load_profile("deterministic")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a card where torch sees none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device; make gpu runs them on one"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line for each reason why tests were skipped or left out: how many, and how to get them."""
    reasons = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", []))
    for reason, count in reasons.most_common():
        remedy = " (make setup installs it)" if "could not import" in reason else ""
        terminalreporter.write_line(f"skipped {count}: {reason.removeprefix('Skipped: ')}{remedy}")
    slow = sum("slow" in item.keywords for item in terminalreporter.stats.get("deselected", []))
    if slow:
        terminalreporter.write_line(f"left out {slow}: they take minutes; make slow runs them")
