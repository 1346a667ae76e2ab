"""Batches on disk: safetensors and Parquet files as mappings of names to values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["read_batch"]


def read_batch(path: str | Path) -> dict[str, Any]:
    """The fields of a batch that was dumped as safetensors, one tensor a field, or as Parquet, one row a response.

    Args:
        path: ``FILE.safetensors`` or ``FILE.parquet``.

    Returns:
        Name -> tensor, or list of N values or lists: an input of :func:`kvar.rollouts.from_batch`.

    Raises:
        ValueError: no such file, another kind of file, or a damaged one.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no file {path}: dump a batch as safetensors or Parquet first.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        if path.suffix in (".parquet", ".pq"):
            from pyarrow import parquet

            table = parquet.read_table(path)
            return {name: table.column(name).to_pylist() for name in table.column_names}
    except Exception as error:
        raise ValueError(f"{path} cannot be read ({str(error).splitlines()[0]}): dump it again.") from error
    raise ValueError(f"{path} is of an unknown kind: kvar reads .safetensors and .parquet.")
