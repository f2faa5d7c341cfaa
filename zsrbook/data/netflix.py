"""The Netflix Prize ratings in their two published forms, cut to the first N by date without ever holding all 100 million.

ZESRec (section 4.1) sorts all ratings by time and keeps the first two million. Dates are days, so the last day is cut in the
middle; there, rows are taken in the order of film, then customer, which is the same on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd

from zsrbook.data.dataset import Columns, DataError, Dataset, Report
from zsrbook.data.files import GET_AGAIN, build, open_raw, own_ids, read_lines, refuse_html, require

ROWS_AT_ONCE = 2_000_000
TITLE = re.compile(r"(\d{1,9}),(\d{4}|NULL),(.*)", re.ASCII)
DAY = r"\d{4}-\d\d-\d\d"
EPOCH = pd.Timestamp("1970-01-01")


def load(folder: Path, name: str = "netflix-2m", first: int | None = 2_000_000) -> Dataset:
    """``movie_titles.csv`` with ``combined_data_*.txt`` or ``training_set/mv_*.txt``.

    Items are the films that the kept ratings name, with ``title`` and ``year``; text = the title. Users have no attributes. ``time`` is
    midnight UTC of the day. Two passes: one counts ratings a day and finds the day of the cut, one keeps the rows up to it.

    Args:
        first: how many ratings from the oldest on; None keeps all (then all must fit in memory).

    Raises:
        DataError: a file is missing or a line does not fit (named), or there are fewer ratings than asked for.
    """
    folder = Path(folder)
    paths = rating_files(folder)
    films = read_titles(folder / "movie_titles.csv")
    known = films[Columns.RAW].astype(np.int64).to_numpy()
    days = np.zeros(0, np.int64)
    for part in read_ratings(paths, known):
        counts = np.bincount(part["day"])
        days = np.pad(days, (0, max(0, len(counts) - len(days))))
        days[: len(counts)] += counts
    total = int(days.sum())
    wanted = total if first is None else first
    if wanted > total or wanted < 1:
        raise DataError(f"{name}: asked for the first {wanted:,} ratings; the {len(paths)} files in {folder} hold {total:,}")
    cut = int(np.searchsorted(np.cumsum(days), wanted))
    kept = pd.concat([part[part["day"] <= cut] for part in read_ratings(paths, known)], ignore_index=True)
    kept = kept.sort_values(["day", "film", "customer"], kind="stable", ignore_index=True).iloc[:wanted]
    interactions = pd.DataFrame(
        {
            Columns.USER: kept["customer"].astype(str),
            Columns.ITEM: kept["film"].astype(str),
            Columns.TIME: kept["day"] * 86_400.0,
            Columns.VALUE: kept["stars"].astype(np.float64),
        }
    )
    last = (EPOCH + pd.Timedelta(days=cut)).date()
    at_cut = int((kept["day"] == cut).sum())
    report = Report((f"{name}: first {wanted:,} of {total:,} ratings; last day {last}, of which {at_cut:,} of {days[cut]:,} by film, then customer",))
    films = films[films[Columns.RAW].isin(pd.unique(interactions[Columns.ITEM]))]
    return build(name, interactions, films, report=report)


def rating_files(folder: Path) -> list[Path]:
    """The rating files in the order of their numbers, in whichever form the folder holds.

    Raises:
        DataError: there is none, or two have the same number.
    """
    number = lambda path: int(re.search(r"\d+", path.name)[0])  # noqa: E731
    for pattern in ("combined_data_[0-9]*.txt", "training_set/mv_[0-9]*.txt", "mv_[0-9]*.txt"):
        paths = sorted(folder.glob(pattern), key=lambda p: (number(p), p.name))
        for one, other in pairwise(paths):
            if number(one) == number(other):  # such as "combined_data_1 (1).txt", which a browser writes: each rating in it would count twice
                raise DataError(f"{folder}: {one.name} and {other.name} have the same number; expected one file a number; take the other away")
        if paths:
            return paths
    raise DataError(f"{folder}: holds no combined_data_*.txt and no training_set/mv_*.txt; put the Netflix Prize files there")


def read_titles(path: Path) -> pd.DataFrame:
    """``id,year,title`` in latin-1; titles hold commas, so a line is split at its first two; the year may be NULL."""
    rows = {}
    for number, line in read_lines(path, "latin-1"):
        found = TITLE.fullmatch(line)
        if not found:
            raise DataError(f"{path}: line {number} is {line[:80]!r}; expected id,year,title, with NULL for an unknown year")
        film, year, title = found.groups()
        rows[number] = film, title.strip(), title, pd.NA if year == "NULL" else int(year)
    films = pd.DataFrame.from_dict(rows, orient="index", columns=[Columns.RAW, Columns.TEXT, "title", "year"]).rename_axis("line")
    own_ids(path, films[Columns.RAW].rename("id"))
    return films.astype({"year": "Int64"})


def read_ratings(paths: list[Path], known: np.ndarray) -> Iterator[pd.DataFrame]:
    """Pieces with columns film (one of ``known``), customer (int32), stars (int8), day (int32, days since 1970)."""
    for path in paths:
        film, line = None, 1
        with open_raw(path) as stream:
            refuse_html(path, stream.readline())
            stream.seek(0)
            kinds = {"customer": str, "stars": "category", "date": "category", "surplus": "category"}  # few values, each parsed once
            # quoting 3: a quotation mark is a character like any other
            form = {"header": None, "names": list(kinds), "quoting": 3, "skip_blank_lines": False}
            try:
                for chunk in pd.read_csv(stream, dtype=kinds, chunksize=ROWS_AT_ONCE, **form):
                    chunk.index = pd.RangeIndex(line, line + len(chunk))
                    line += len(chunk)
                    piece, film = parse(path, chunk, film, known)
                    yield piece
            except (pd.errors.ParserError, UnicodeDecodeError) as error:
                refuse_unread(path, error)


def refuse_unread(path: Path, error: Exception) -> NoReturn:
    """Look, line by line, for what pandas could not read: its own words name neither the file nor what the line holds.

    Raises:
        DataError: always.
    """
    expected = f"expected a line such as '1:' or customer,stars,date in UTF-8; correct it, or {GET_AGAIN}"
    with open_raw(path) as stream:
        for number, raw in enumerate(stream, 1):
            line = raw.decode("utf-8", "backslashreplace").rstrip("\r\n")
            if line.count(",") > 2:
                raise DataError(f"{path}: line {number} is {line[:80]!r}, {line.count(',') + 1} columns; {expected}") from None
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError as bad:
                raise DataError(f"{path}: line {number} is {line[:80]!r}: byte 0x{raw[bad.start]:02x} can't stand in UTF-8; {expected}") from None
    raise DataError(f"{path}: can't be read ({error}); {expected}") from error


def parse(path: Path, chunk: pd.DataFrame, film: int | None, known: np.ndarray) -> tuple[pd.DataFrame, int | None]:
    """Lines such as ``7:`` name the film of the ratings that follow; ``film`` is the one that the chunk begins in."""
    require(path, chunk["surplus"], chunk["surplus"].isna().to_numpy(), "three columns: customer,stars,date")
    heads = chunk["customer"].str.endswith(":", na=False).to_numpy(bool)
    ids = pd.to_numeric(chunk["customer"].where(heads).str.rstrip(":"), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    require(path, chunk["customer"], ~heads | numbered(ids), "a line such as '1:' with the number of a film")
    require(path, chunk["customer"], ~heads | np.isin(ids, known), "one of the films in movie_titles.csv")
    films = pd.Series(ids, chunk.index).ffill().fillna(np.nan if film is None else film)
    require(path, chunk["customer"], films.notna().to_numpy(), "a line such as '1:' with the film before its ratings")
    rows = chunk[~heads]
    customer = pd.to_numeric(rows["customer"], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    stars = by_category(rows["stars"], pd.to_numeric(rows["stars"].cat.categories, errors="coerce"))
    require(path, rows["customer"], numbered(customer), "a customer number")
    require(path, rows["stars"], np.isin(stars, (1, 2, 3, 4, 5)), "1 to 5 stars")
    stamps = pd.to_datetime(rows["date"].cat.categories.astype(str), format="%Y-%m-%d", errors="coerce")
    stamps = stamps.where(rows["date"].cat.categories.astype(str).str.fullmatch(DAY))  # a file that is cut short may end in 2005-09-1
    days = by_category(rows["date"], (stamps - EPOCH) / pd.Timedelta(days=1))
    require(path, rows["date"], days >= 0, "a date as 2005-09-06")
    piece = pd.DataFrame(
        {
            "film": films[~heads].to_numpy().astype(np.int32),
            "customer": customer.astype(np.int32),
            "stars": stars.astype(np.int8),
            "day": days.astype(np.int32),
        }
    )
    return piece, int(films.iloc[-1]) if len(films) else film


def numbered(values: np.ndarray) -> np.ndarray:
    """bool: whole numbers from 1 on that int32 can hold."""
    return (values >= 1) & (values < 2**31) & (values % 1 == 0)


def by_category(column: pd.Series, values: pd.Index) -> np.ndarray:
    """float64: the value of each row's category, NaN where the row is empty."""
    return np.append(values.to_numpy(np.float64, na_value=np.nan), np.nan)[column.cat.codes]
