"""Run the notebooks of this folder from top to bottom and keep their outputs: ``python -m notebooks.run [NAME ...]``.

Numbers are those of the notebooks' own parameters; ``make notebooks`` runs all of them. What is kept is what a reader
of the file can use: figures, tables and text, without widget models, timings or the machine's own details.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

HERE = Path(__file__).parent
WIDGET = "application/vnd.jupyter.widget-view+json"


def notebooks() -> list[Path]:
    """The notebooks, in order."""
    return sorted(HERE.glob("[0-9]_*.ipynb"))


def with_parameters(path: Path, parameters: Mapping[str, Any]) -> NotebookNode:
    """A notebook that sets some of its parameters otherwise, in one more cell after the one tagged "parameters".

    Args:
        path: the notebook.
        parameters: name -> value.

    Raises:
        ValueError: no cell is tagged, or it does not set one of the names.
    """
    book = nbformat.read(path, as_version=4)
    tagged = [i for i, cell in enumerate(book.cells) if "parameters" in cell.metadata.get("tags", ())]
    if len(tagged) != 1:
        raise ValueError(f"{path.name}: {len(tagged)} cells are tagged 'parameters'; tag one.")
    absent = [name for name in parameters if f"\n{name} = " not in "\n" + book.cells[tagged[0]].source]
    if absent:
        raise ValueError(f"{path.name}: its parameters do not include {', '.join(absent)}.")
    lines = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    book.cells.insert(tagged[0] + 1, nbformat.v4.new_code_cell(lines, id="injected"))
    return book


def execute(path: Path, parameters: Mapping[str, Any] | None = None, timeout: int = 1800) -> NotebookNode:
    """Run a notebook in a fresh kernel, in its own folder.

    Args:
        path: the notebook.
        parameters: as for :func:`with_parameters`.
        timeout: seconds a cell may take.

    Returns:
        The notebook with its outputs.

    Raises:
        ValueError: as for :func:`with_parameters`.
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    book = with_parameters(path, parameters) if parameters else nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as sockets:  # files of this user's; nothing of a kernel is on the network
        config = Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}})
        NotebookClient(
            book, config=config, timeout=timeout, startup_timeout=300, kernel_name="python3", record_timing=False,
            store_widget_state=False, resources={"metadata": {"path": str(path.parent)}},
        ).execute()  # fmt: skip
    return book


def tidy(book: NotebookNode) -> NotebookNode:
    """Leave out what only the running kernel could use, so that the same outputs give the same file."""
    for number, cell in enumerate(book.cells, start=1):
        cell["id"] = f"cell-{number}"
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop(WIDGET, None)
            if "metadata" in output:
                output["metadata"] = {}
    book.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return book


def main() -> None:
    """Run the notebooks named, or all, in place."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="notebooks' numbers or names; all by default")
    names = parser.parse_args().names
    for path in notebooks():
        if names and not any(path.name.startswith(name) for name in names):
            continue
        start = time.perf_counter()
        nbformat.write(tidy(execute(path)), path)
        print(f"{path.name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
