"""Versions of the libraries that a run is computed with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["versions"]

LIBRARIES = ("torch", "transformers")


def versions() -> dict[str, str]:
    """Name -> version of Python, torch and transformers; one that is not installed is left out.

    The version is the one that pip knows, so that torch is not imported: from PyPI it is without torch's ``+cu130``.
    """
    installed = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed
