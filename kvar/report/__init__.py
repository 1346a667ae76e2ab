"""The report of a study: one HTML file, a table for the terminal, and a verdict in sentences."""

from __future__ import annotations

from kvar.report.page.by_run import write_report
from kvar.report.page.sections import section
from kvar.report.tables.terminal import render_table
from kvar.report.words.by_run import verdict

__all__ = ["render_table", "section", "verdict", "write_report"]
