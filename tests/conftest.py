"""Tests run on one torch thread, hypothesis draws the same examples each time, and what is skipped is told why."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
settings.load_profile("deterministic")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line for each reason why tests were skipped or left out: how many, and how to get them."""
    reasons = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", []))
    for reason, count in reasons.most_common():
        remedy = " (make setup installs it)" if "could not import" in reason else ""
        terminalreporter.write_line(f"skipped {count}: {reason.removeprefix('Skipped: ')}{remedy}")
    slow = sum("slow" in item.keywords for item in terminalreporter.stats.get("deselected", []))
    if slow:
        terminalreporter.write_line(f"left out {slow}: they take minutes; make slow runs them")
