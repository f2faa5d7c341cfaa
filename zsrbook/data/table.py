"""Anybody's own data: two or three tables, as CSV, TSV or Parquet.

``interactions``  columns ``user``, ``item``; if there ``time`` (seconds since 1970, or ISO dates such as ``2024-05-01 18:30``)
                  and ``value`` (a number); further columns are left out
``items``         columns ``item``, ``text``; further columns stay as fields
``users``         columns ``user``; further columns stay as attributes

Ids are text. Without a ``time`` column, the order of the rows is the order of events.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from zsrbook.data.dataset import Columns, DataError, Dataset, Report
from zsrbook.data.files import build, filled, numbers, read_table, require


def load(
    interactions: Path,
    items: Path | None = None,
    users: Path | None = None,
    name: str | None = None,
    encoding: str = "utf-8",
    missing_time: str = "error",
) -> Dataset:
    """The documented form, checked.

    Args:
        items: without it, the catalogue is what ``interactions`` names, and no item has text.
        name: default: the name of the interactions file, lower case.
        missing_time: ``error``, or ``drop`` to drop (and count) rows whose time is empty.

    Raises:
        DataError: a column or value is missing, no number, or an id is unknown; the message names file, line and value.
    """
    if missing_time not in ("error", "drop"):
        raise DataError(f"missing_time is {missing_time!r}; expected 'error' or 'drop'")
    path = Path(interactions)
    name = name or path.name.split(".")[0].lower()
    report = Report()
    frame = read(path, [Columns.USER, Columns.ITEM], encoding)
    clock = Columns.TIME in frame
    if clock and missing_time == "drop":
        empty = frame[Columns.TIME].isna() | frame[Columns.TIME].astype(str).str.strip().eq("")
        frame = frame[~empty]
        if empty.any():
            report += f"{name}: dropped {empty.sum():,} rows without a time"
    rows = {
        Columns.USER: filled(path, frame[Columns.USER], "a user id"),
        Columns.ITEM: filled(path, frame[Columns.ITEM], "an item id"),
    }
    if clock:
        rows[Columns.TIME] = seconds(path, frame[Columns.TIME])
    if Columns.VALUE in frame:
        rows[Columns.VALUE] = numbers(path, frame[Columns.VALUE], "a number")
    rows = pd.DataFrame(rows)
    tables = {}
    for column, given, needed in ((Columns.ITEM, items, [Columns.ITEM, Columns.TEXT]), (Columns.USER, users, [Columns.USER])):
        if given is None:
            continue
        tables[column] = entities(Path(given), column, needed, encoding)
        known = rows[column].isin(tables[column][Columns.RAW]).to_numpy()
        require(path, rows[column], known, f"one of the ids in {Path(given).name}")
    if Columns.ITEM not in tables:
        tables[Columns.ITEM] = pd.DataFrame({Columns.RAW: pd.unique(rows[Columns.ITEM]), Columns.TEXT: ""})
        report += f"{name}: no items table; content models need one with columns item,text"
    return build(name, rows, tables[Columns.ITEM], tables.get(Columns.USER), clock, report)


def read(path: Path, needed: list[str], encoding: str) -> pd.DataFrame:
    """A table with at least these columns; the kind of file is told by its ending."""
    if ".parquet" in path.suffixes:
        if not path.is_file():
            raise DataError(f"{path}: no such file; put it there")
        try:
            frame = pa.parquet.read_table(path).to_pandas()
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{path}: can't be read as Parquet: {error}") from None
        frame.index = pd.RangeIndex(1, len(frame) + 1)
    elif {".csv", ".tsv"} & set(path.suffixes):
        frame = read_table(path, "\t" if ".tsv" in path.suffixes else ",", encoding=encoding)
    else:
        raise DataError(f"{path}: the ending tells no kind of file; expected .csv, .tsv or .parquet (also .csv.gz)")
    absent = [c for c in needed if c not in frame]
    if absent:
        raise DataError(f"{path}: no column {', '.join(absent)}; it has {', '.join(map(str, frame.columns))}; rename the columns that fit")
    return frame


def entities(path: Path, column: str, needed: list[str], encoding: str) -> pd.DataFrame:
    """The items or users table, with ``raw`` for the id; an empty text stays ""."""
    frame = read(path, needed, encoding)
    if Columns.RAW in frame:
        raise DataError(f"{path}: has a column {Columns.RAW}, a name that is taken for the ids themselves; rename it")
    raw = filled(path, frame[column], "an id")
    require(path, raw, ~raw.duplicated().to_numpy(), "each id once")
    frame = frame.assign(**{column: raw}).rename(columns={column: Columns.RAW})
    if Columns.TEXT in needed:
        frame[Columns.TEXT] = frame[Columns.TEXT].fillna("").astype(str)
    return frame.reset_index(drop=True)


def seconds(path: Path, column: pd.Series) -> np.ndarray:
    """Seconds since 1970 from numbers, ISO texts (UTC unless they say otherwise) or time stamps.

    Raises:
        DataError: a value is none of these, or so large that it must be milliseconds.
    """
    if pd.api.types.is_datetime64_any_dtype(column) or pd.to_numeric(column, errors="coerce").isna().all():
        stamps = pd.to_datetime(column, utc=True, errors="coerce", format=None if column.dtype.kind == "M" else "ISO8601")
        require(path, column, stamps.notna().to_numpy(), "seconds since 1970, or a date as 2024-05-01 18:30")
        return ((stamps - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)).to_numpy(np.float64)
    return numbers(path, column, "seconds since 1970 (milliseconds must be divided by 1000)", 0, 1e11)
