"""Whether files can be written to a path, checked before the work that makes them."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["check_file_place", "check_folder_place"]


def check_folder_place(folder: str | Path, what: str) -> None:
    """Refuse a folder that cannot be made or written to.

    Args:
        folder: the folder; it need not exist.
        what: the option that names it, for the message.

    Raises:
        ValueError: a part of the path is a file or a broken link, or the folder cannot be written to.
    """
    path = Path(folder).absolute()
    for step in (path, *path.parents):
        if step.is_symlink() and not step.exists():
            target = os.readlink(step)
            raise ValueError(
                f"{what} {folder}: {step} is a link to {target}, which is not there; make that folder, or name another."
            )
        if step.exists():
            break
    if not step.is_dir():
        lies = "is a file" if step == path else f"lies below {step}, which is a file"
        raise ValueError(f"{what} {folder} {lies}; name another folder.")
    if not os.access(step, os.W_OK | os.X_OK):
        raise ValueError(f"{what} {folder} cannot be written to; name a folder of your own.")


def check_file_place(file: str | Path, what: str) -> None:
    """Refuse a file that cannot be written: it is a folder, or its folder is refused.

    Raises:
        ValueError: as :func:`check_folder_place`.
    """
    path = Path(file)
    if path.is_dir():
        raise ValueError(f"{what} {file} is a folder; name a file in it.")
    check_folder_place(path.parent, f"{what} {file}, in")
