"""Anybody's own data: two or three tables, as CSV, TSV or Parquet.

``interactions``  columns ``user``, ``item``; if there ``time`` (seconds since 1970, or ISO dates such as ``2024-05-01 18:30``)
                  and ``value`` (a number); further columns are left out
``items``         columns ``item``, ``text``; further columns stay as fields; none is called ``raw``
``users``         columns ``user``; further columns stay as attributes; none is called ``raw``

Ids are text. Without a ``time`` column, the order of the rows is the order of events; then no column is called ``date`` or the like.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from zsrbook.data.dataset import Columns, DataError, Dataset, Report, counted
from zsrbook.data.files import (
    beginning,
    build,
    decode,
    filled,
    form,
    header_names,
    is_utf8,
    listed,
    numbers,
    open_raw,
    own_ids,
    read_table,
    refuse_html,
    require,
)


def load(interactions: Path, items: Path | None = None, users: Path | None = None, name: str | None = None, encoding: str = "utf-8") -> Dataset:
    """The documented form, checked.

    Args:
        items: without it, the catalogue is what ``interactions`` names, and no item has text.
        name: default: the name of the interactions file, lower case.

    Raises:
        DataError: a column or value is missing, no number, or an id is unknown; the message names file, line and value.
    """
    path = Path(interactions)
    name = name or path.name.split(".")[0].lower()
    report = Report()
    frame = read(path, [Columns.USER, Columns.ITEM], encoding)
    clock = Columns.TIME in frame
    if not clock:
        refuse_other_clock(path, frame)
    rows = {
        Columns.USER: filled(path, frame[Columns.USER], "a user id"),
        Columns.ITEM: filled(path, frame[Columns.ITEM], "an item id"),
    }
    for ids in rows.values():
        one_spelling(path, ids)
    if clock:
        rows[Columns.TIME] = times = seconds(path, frame[Columns.TIME])
        if len(times) and times.max() < 1e8 and not dated(frame[Columns.TIME]):
            first, last = (pd.Timestamp(time, unit="s").date() for time in (times.min(), times.max()))
            report += (
                f"{name}: times run from {first} to {last}, read as seconds since 1970; to tell an order they will do,"
                " but days as Excel counts them (46082) and years are no seconds"
            )
    if Columns.VALUE in frame:
        rows[Columns.VALUE] = numbers(path, frame[Columns.VALUE], f"a number up to {LARGEST:.2g}", -LARGEST, LARGEST)
    rows = pd.DataFrame(rows)
    tables = {}
    for column, given, needed in ((Columns.ITEM, items, [Columns.ITEM, Columns.TEXT]), (Columns.USER, users, [Columns.USER])):
        if given is None:
            continue
        tables[column] = entities(Path(given), column, needed, encoding)
        listed(path, rows[column], Path(given), tables[column][Columns.RAW])
    if Columns.ITEM not in tables:
        tables[Columns.ITEM] = pd.DataFrame({Columns.RAW: pd.unique(rows[Columns.ITEM]), Columns.TEXT: ""})
        report += f"{name}: no items table; content models need one with columns item,text"
    return build(name, rows, tables[Columns.ITEM], tables.get(Columns.USER), clock, report)


def alone(items: Path, name: str | None = None, encoding: str = "utf-8") -> Dataset:
    """An items table from which nobody has taken anything yet, nor is there anybody.

    Args:
        name: default: the name of the file, lower case.

    Raises:
        DataError: as ``load``.
    """
    path = Path(items)
    name = name or path.name.split(".")[0].lower()
    frame = entities(path, Columns.ITEM, [Columns.ITEM, Columns.TEXT], encoding)
    blank = int(frame[Columns.TEXT].str.strip().eq("").sum())
    report = Report((f"{name}: {counted(len(frame), 'item{s}')}", *([f"{name}: {counted(blank, 'item{s} without text')}"] if blank else [])))
    nothing = pd.DataFrame({column: np.zeros(0, np.int32) for column in (Columns.USER, Columns.ITEM, Columns.TIME, Columns.VALUE)})
    return Dataset(name, nothing, frame, pd.DataFrame({Columns.RAW: []}), clock=False, report=report)


def read(path: Path, needed: list[str], encoding: str) -> pd.DataFrame:
    """A table with at least these columns; the kind of file is told by its ending."""
    if form(path) == ".parquet":
        frame = read_parquet(path)
    elif form(path) in (".csv", ".tsv"):
        frame = read_table(path, separator(path), encoding=encoding)
    else:
        refuse_kind(path)
    absent = [c for c in needed if c not in frame]
    if absent:
        raise DataError(f"{path}: no column {', '.join(absent)}; it has {', '.join(map(str, frame.columns))}; rename the columns that fit")
    return frame


#: what a value may be, since it is kept in 32 bits
LARGEST = float(np.finfo(np.float32).max)
#: what people call a column of times
CLOCKS = {"time", "timestamp", "date", "datetime"}


def refuse_other_clock(path: Path, frame: pd.DataFrame) -> None:
    """Raises DataError where there is no column ``time`` but one that seems to be it: left out, it would leave the order to the rows."""
    other = next((name for name in frame if "".join(filter(str.isalpha, str(name).lower())) in CLOCKS), None)
    if other is not None:
        raise DataError(
            f"{path}: no column {Columns.TIME}, but {other!r};"
            f" rename it to {Columns.TIME} if it says when, or take it out if the order of the rows does"
        )


def refuse_kind(path: Path) -> NoReturn:
    """Raises DataError: what is no table, and what would be one."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name the file in it")
    if path.suffix.lower() in (".xlsx", ".xls", ".ods", ".numbers"):
        raise DataError(f"{path}: is a spreadsheet; save the sheet as CSV (UTF-8) and name that file")
    raise DataError(f"{path}: the ending tells no kind of file; expected .csv, .tsv or .parquet (also .csv.gz)")


def columns(path: Path, encoding: str) -> list[str]:
    """The names that a table gives its columns, from its first line or its schema: what follows, sound or not, stays unread.

    Raises:
        DataError: missing, empty or damaged, the encoding is unknown, or the first line holds no names.
    """
    if form(path) == ".parquet":
        with parquet_errors(path):
            return pa.parquet.read_schema(path).names
    decode(path, b"", encoding)  # refuses an unknown one
    with open_raw(path) as stream:
        data = stream.read(1 << 16)
    try:
        text = data.decode(encoding, "replace")
    except (LookupError, UnicodeError):  # of what is no encoding of texts, such as rot13
        text = decode(path, data, encoding)
    return header_names(path, re.split("[\r\n]", text.removeprefix("\ufeff"), maxsplit=1)[0], separator(path))


def separator(path: Path) -> str:
    return "\t" if form(path) == ".tsv" else ","


@contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """Raises DataError where there is no such file, or it is no sound Parquet."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; put it there")
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        refuse_html(path, beginning(path))
        raise DataError(f"{path}: can't be read as Parquet: {error}; write it anew, or get it again") from None


def read_parquet(path: Path) -> pd.DataFrame:
    """A Parquet file, its columns as they lie in it: what pandas had as an index is a column. The index counts rows from 1.

    Bytes are taken for text, and categories for what they stand for.

    Raises:
        DataError: missing, damaged, or a text is not UTF-8.
    """
    with parquet_errors(path):
        table = pa.parquet.read_table(path)
    for place, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
            table = table.set_column(place, name, column)
        if column.type in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary()):
            column = column.cast(pa.large_binary())
            try:  # a writer need not check its texts, and a reader does not
                table = table.set_column(place, name, column.cast(pa.large_string()))
            except pa.ArrowInvalid:
                row = next(row for row, text in enumerate(column, 1) if text.is_valid and not is_utf8(text.as_py()))
                raise DataError(
                    f"{path}: row {row}: {name} is {column[row - 1].as_py()[:60]!r}; expected text in UTF-8; decode it and write the file anew"
                ) from None
    frame = table.to_pandas(ignore_metadata=True)
    frame.index = pd.RangeIndex(1, len(frame) + 1, name="row")
    return frame


def entities(path: Path, column: str, needed: list[str], encoding: str) -> pd.DataFrame:
    """The items or users table, with ``raw`` for the id; an empty text stays "", and so does every other column of texts where one is missing."""
    frame = read(path, needed, encoding)
    if Columns.RAW in frame:
        raise DataError(f"{path}: has a column {Columns.RAW}, a name that is taken for the ids themselves; rename it")
    raw = own_ids(path, frame[column])
    one_spelling(path, raw)
    frame = frame.assign(**{column: raw}).rename(columns={column: Columns.RAW})
    for name in frame:
        if pd.api.types.infer_dtype(frame[name]) in ("string", "empty"):
            frame[name] = frame[name].astype(object).where(frame[name].notna(), "").astype(str)
    if Columns.TEXT in needed:
        frame[Columns.TEXT] = frame[Columns.TEXT].fillna("").astype(str)
    return frame.reset_index(drop=True)


def one_spelling(path: Path, ids: pd.Series) -> None:
    """Raises DataError where two ids are the same but for blanks around them: a person would take them for one."""
    different = ids.drop_duplicates()
    bare = different.str.strip()
    doubtful = different[bare.duplicated(keep=False) & (different != bare)]
    require(path, ids, ~ids.isin(doubtful).to_numpy(), "one spelling of each id (another line has it with other blanks around it: take them out)")


def dated(column: pd.Series) -> bool:
    """Whether times are told by dates, rather than numbers: by what most of the values are."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return True
    there = column[column.notna() & column.astype(str).str.strip().ne("")]
    return bool(pd.to_numeric(there, errors="coerce").isna().mean() > 0.5)


#: how a date with a time ends that says in which zone it is
ZONED = r"[T ]\d.*(?:[zZ]|[+-]\d\d(?::?\d\d)?)\s*$"


def stamps_of(column: pd.Series) -> pd.Series:
    """Dates as time stamps in UTC, NaT where there is none."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return pd.to_datetime(column, utc=True)
    zoned = column.astype(str).str.contains(ZONED)  # apart, since in pandas 2 a text without a zone takes on that of the texts above it
    parts = [pd.to_datetime(part, utc=True, errors="coerce", format="ISO8601") for part in (column[zoned], column[~zoned])]
    return pd.concat(parts).reindex(column.index)


def seconds(path: Path, column: pd.Series) -> np.ndarray:
    """Seconds since 1970 from numbers, ISO texts (UTC unless they say otherwise), time stamps, or durations since any moment.

    Raises:
        DataError: a value is none of these, is no date where most are, is so large that it must be milliseconds; or all look like days as 20240501.
    """
    if dated(column):
        stamps = stamps_of(column)
        require(path, column, stamps.notna().to_numpy(), "seconds since 1970, or a date as 2024-05-01 18:30")
        epoch = pd.Timestamp("1970-01-01", tz="UTC")  # in seconds, which reach further than the nanoseconds of Timestamp(0)
        return ((stamps - epoch) / pd.Timedelta(seconds=1)).to_numpy(np.float64)
    if column.dtype.kind == "m":
        column = column.dt.total_seconds()
    values = numbers(path, column, "seconds since 1970 (milliseconds must be divided by 1000)", 0, 1e11)
    year, month, day = values // 10_000, values // 100 % 100, values % 100
    days = (year >= 1900) & (year <= 2100) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    mistaken = days & days.all()  # all of them would lie in some weeks of 1970
    require(path, column, ~mistaken, "seconds since 1970, or a date with dashes as 2024-05-01 (this looks like a date without)")
    return values
