"""The tables of a run and their columns: one observation a row.

``trajectories``: one row per probe, step, trajectory and response token.
    probe, step, trajectory, prompt; position (0, 1, ... in the response), token (its id); q and v, the teacher's q_t
    and V_t (theory.md (1)), in logits; log_prob, natural log-probability under the behaviour policy; length, tokens of
    the response; finished, whether it ends with end-of-sequence.
``gradients``: one row per probe, step, parameter group, pair of estimators and trajectory.
    With e = estimator and f = other: pair = <g_i^e, g_i^f>, cross = <g_i^e, gbar^f> (theory.md, section 5; squared
    gradient units; NaN where not measured). The diagonal e = f holds |g_i^e|^2 and the alignment.
``prompt_gradients``: one row per probe, step, group, pair of estimators and prompt.
    prompt_pair = <gbar_m^e, gbar_m^f>, gbar_m the mean over the trajectories of prompt m.
``choices``: one row per probe and step at which an adaptive training chose its estimator.
    estimator, in use from then on; previous, in use before; changed; target, the estimator that stands for the target;
    batch, trajectories of the step, or of auto_horizon steps, that efficiency is of; gain with gain_low and gain_high,
    efficiency of the best candidate less that of previous (NaN where the target is not resolved); reason; seconds that
    it took, the measurement included.
``candidates``: one row per probe, step and estimator that was chosen among.
    efficiency, cross-fitted, with efficiency_low and efficiency_high; no rows where the target is not resolved.
``metrics``: one row per step, split and name: anything scalar. split is a data split or the probe it was measured on.

Text columns are dictionary-encoded: categories in pandas, plain text to everyone else. Floats are float64.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import pyarrow as pa

from kvar.records.errors import RecordsError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SCHEMA_VERSION", "TABLES", "empty_frame", "schema_of", "to_arrow"]

SCHEMA_VERSION = 2

_TEXT = pa.dictionary(pa.int32(), pa.string())
_KINDS = {"text": _TEXT, "int": pa.int32(), "float": pa.float64(), "float?": pa.float64(), "bool": pa.bool_()}

_COLUMNS: dict[str, dict[str, str]] = {
    "trajectories": {
        "probe": "text",
        "step": "int",
        "trajectory": "int",
        "prompt": "int",
        "position": "int",
        "token": "int",
        "q": "float",
        "v": "float",
        "log_prob": "float",
        "length": "int",
        "finished": "bool",
    },
    "gradients": {
        "probe": "text",
        "step": "int",
        "group": "text",
        "estimator": "text",
        "other": "text",
        "trajectory": "int",
        "prompt": "int",
        "pair": "float?",
        "cross": "float?",
    },
    "prompt_gradients": {
        "probe": "text",
        "step": "int",
        "group": "text",
        "estimator": "text",
        "other": "text",
        "prompt": "int",
        "prompt_pair": "float?",
    },
    "choices": {
        "probe": "text",
        "step": "int",
        "estimator": "text",
        "previous": "text",
        "changed": "bool",
        "target": "text",
        "batch": "int",
        "gain": "float?",
        "gain_low": "float?",
        "gain_high": "float?",
        "reason": "text",
        "seconds": "float",
    },
    "candidates": {
        "probe": "text",
        "step": "int",
        "estimator": "text",
        "efficiency": "float?",
        "efficiency_low": "float?",
        "efficiency_high": "float?",
    },
    "metrics": {
        "step": "int",
        "split": "text",
        "name": "text",
        "value": "float?",
    },
}

TABLES: tuple[str, ...] = tuple(_COLUMNS)


def schema_of(table: str) -> pa.Schema:
    """The Arrow schema of a table.

    Args:
        table: one of ``TABLES``.

    Returns:
        Its columns in order; a column kind ending in "?" may hold nulls (NaN in pandas).

    Raises:
        RecordsError: there is no such table.
    """
    if table not in _COLUMNS:
        raise RecordsError(f"no table {table!r} in a run; choose one of {', '.join(TABLES)}.")
    columns = _COLUMNS[table].items()
    return pa.schema([pa.field(name, _KINDS[kind], nullable=kind.endswith("?")) for name, kind in columns])


def to_arrow(table: str, frame: pd.DataFrame) -> pa.Table:
    """Check a frame against a table's schema and convert it, losing nothing.

    Args:
        table: one of ``TABLES``.
        frame: the table's columns, in any order; the index is dropped.

    Returns:
        The same rows under ``schema_of(table)``.

    Raises:
        RecordsError: columns are missing or unknown, a value does not fit its column's type without loss, or a value is
            missing where it must not be. The message names table, column and value.

    Example:
        >>> import pandas as pd
        >>> to_arrow("metrics", pd.DataFrame({"step": [1], "split": ["test"], "name": ["bleu"]}))
        Traceback (most recent call last):
        kvar.records.errors.RecordsError: metrics: missing columns value; the table has step, split, name, value.
    """
    schema = schema_of(table)
    has = ", ".join(schema.names)
    missing = [name for name in schema.names if name not in frame.columns]
    if missing:
        raise RecordsError(f"{table}: missing columns {', '.join(missing)}; the table has {has}.")
    unknown = [str(name) for name in frame.columns if name not in schema.names]
    if unknown or len(frame.columns) != len(schema.names):
        raise RecordsError(f"{table}: unknown or repeated columns {', '.join(unknown)}; the table has {has}.")
    columns = [_column(table, field, frame[field.name]) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def empty_frame(table: str) -> pd.DataFrame:
    """A frame with a table's columns and types and no rows."""
    return schema_of(table).empty_table().to_pandas()


def _column(table: str, field: pa.Field, values: pd.Series) -> pa.Array:
    import pandas as pd

    nulls = values.isna()
    if not field.nullable and nulls.any():
        row: Hashable = nulls.idxmax()
        raise RecordsError(f"{table}.{field.name}: no value (None or NaN) in row {row}; this column needs one.")
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(values.cat.categories.dtype)
    if len(values) and pa.types.is_string(kind) != pd.api.types.is_string_dtype(values):
        raise RecordsError(f"{table}.{field.name}: expected {kind}, got {values.dtype} ({str(values.iloc[0])!r}).")
    try:
        array = pa.Array.from_pandas(values, type=kind)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise RecordsError(f"{table}.{field.name}: expected {kind}; {error.args[0]}.") from error
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return array.dictionary_encode().cast(field.type) if pa.types.is_dictionary(field.type) else array
