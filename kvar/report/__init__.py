"""The report of a study: one HTML file, a table for the terminal, and a verdict in plain words."""

from __future__ import annotations

from kvar.report.page.sections import section
from kvar.report.table import render_table
from kvar.report.verdict import verdict
from kvar.report.write import write_report

__all__ = ["render_table", "section", "verdict", "write_report"]
