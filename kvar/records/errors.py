"""Errors and warnings of records."""

from __future__ import annotations

__all__ = ["RecordsError", "RecordsWarning"]


class RecordsError(ValueError):
    """Records that cannot be written or read as asked; the message names the file or folder and the remedy."""


class RecordsWarning(UserWarning):
    """Records were read without some rows (a truncated part), or rows were superseded."""
