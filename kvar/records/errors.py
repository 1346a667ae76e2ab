"""What records raise, and what they warn of."""

from __future__ import annotations

__all__ = ["RecordsError", "RecordsWarning"]


class RecordsError(ValueError):
    """Records that cannot be written or read as asked; the message names the file or folder and the remedy."""


class RecordsWarning(UserWarning):
    """Records that were read, but not to their last row (a truncated tail)."""
