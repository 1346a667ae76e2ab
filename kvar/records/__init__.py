"""The records of a run: tidy Parquet tables in its folder, written append by append, readable at any time."""

from kvar.records.errors import RecordsError, RecordsWarning
from kvar.records.load import Run, load
from kvar.records.schema import SCHEMA_VERSION, TABLES, empty_frame
from kvar.records.store import RunWriter, check_folder

__all__ = [
    "SCHEMA_VERSION",
    "TABLES",
    "RecordsError",
    "RecordsWarning",
    "Run",
    "RunWriter",
    "check_folder",
    "empty_frame",
    "load",
]
