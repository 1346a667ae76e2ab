"""What a run was computed with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["versions"]

LIBRARIES = ("torch", "transformers")


def versions() -> dict[str, str]:
    """Name -> version of Python and of the libraries that compute; one that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
