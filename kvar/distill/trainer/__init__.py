"""``DistillationTrainer`` and its additions to ``transformers.Trainer``."""

from transformers import __version__

TESTED = ("5.10", "5.24")
"""Oldest and newest transformers that the trainer is tested with; the oldest is that of pyproject.toml."""


def check_version(version: str) -> None:
    """Raise ImportError for a version of transformers that is older than those tested."""
    if tuple(map(int, version.split(".")[:2])) < tuple(map(int, TESTED[0].split("."))):
        raise ImportError(f"kvar's trainer needs transformers {TESTED[0]} or newer; {version} is installed.")


check_version(__version__)
