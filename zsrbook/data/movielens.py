"""MovieLens 100K, 1M and latest-small, as GroupLens publishes them (Harper and Konstan, 2015).

All three give items with ``title`` (as in the source), ``year`` and ``genres`` (joined with ``|``), and text = the title without
its year and with its article in front ("The Matrix"), so that it reads as in other catalogues. Every film of the source's list
is an item, also one that nobody rated.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from zsrbook.data import titles
from zsrbook.data.dataset import Columns, DataError, Dataset, Report
from zsrbook.data.files import build, filled, joined, listed, numbers, own_ids, read_table, with_header

GENRES_100K = [
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
]
RATING_COLUMNS = [Columns.USER, Columns.ITEM, Columns.VALUE, Columns.TIME]

#: the whole 1M file: ratings with 1, 2, … 5 stars, and its size in bytes
STARS_1M = (56_174, 107_557, 261_197, 348_971, 226_310)
BYTES_1M = 24_594_131


def load_100k(folder: Path, name: str = "ml-100k", text: str = "title") -> Dataset:
    """``u.data``, ``u.item`` (latin-1), ``u.user``: 100,000 ratings, 943 users with age, gender, occupation, zip; 1,682 films.

    Args:
        text: ``title`` or ``title+genres``: what the item says of itself.

    Raises:
        DataError: a file is missing, damaged, or holds a line that does not fit; the message names it.
    """
    folder = Path(folder)
    ratings = read_table(folder / "u.data", "\t", RATING_COLUMNS, quoted=False)
    other = ["title", "released", "video", "address"]
    films = read_table(folder / "u.item", "|", [Columns.RAW, *other, *GENRES_100K], "latin-1", quoted=False)
    flags = np.column_stack([numbers(folder / "u.item", films[g], "0 or 1", 0, 1, 1) for g in GENRES_100K]).astype(bool)
    films["genres"] = ["|".join(np.asarray(GENRES_100K, object)[row]) for row in flags]
    users = read_table(folder / "u.user", "|", [Columns.RAW, "age", "gender", "occupation", "zip"], "latin-1", quoted=False)
    users["age"] = numbers(folder / "u.user", users["age"], "an age in whole years", 0, 130, 1).astype(int)
    films = catalogue(films[[Columns.RAW, "title", "genres"]], text)
    return assemble(name, folder / "u.data", ratings, (folder / "u.item", films), (folder / "u.user", users))


def load_1m(folder: Path, name: str = "ml-1m", text: str = "title", whole: bool = False) -> Dataset:
    """``ratings.dat``, ``movies.dat`` (latin-1), ``users.dat``: 1,000,209 ratings, 6,040 users, 3,883 films, 3,706 of them rated.

    Users carry gender, age and occupation (codes as in the source's README) and zip. Copies of ``ratings.dat`` that differ from
    the official file go around; one whose count of every star agrees is read, with a line in the report.

    Args:
        whole: refuse a copy whose counts differ; else it is read as well, and the report says so.

    Raises:
        DataError: as ``load_100k``, or the copy is not ``whole``.
    """
    folder = Path(folder)
    ratings = read_table(folder / "ratings.dat", "::", RATING_COLUMNS, quoted=False)
    films = read_table(folder / "movies.dat", "::", [Columns.RAW, "title", "genres"], "latin-1", quoted=False)
    users = read_table(folder / "users.dat", "::", [Columns.RAW, "gender", "age", "occupation", "zip"], "latin-1", quoted=False)
    size = (folder / "ratings.dat").stat().st_size
    report = Report()
    if size != BYTES_1M:
        stars = tuple(ratings[Columns.VALUE].value_counts().reindex(list("12345"), fill_value=0))
        agree = stars == STARS_1M
        seen = "counts and histogram agree" if agree else f"and its stars {tuple(map(int, stars))} differ from {STARS_1M}"
        odd = f"ratings.dat is not the official file ({size:,} bytes, official {BYTES_1M:,}), {seen}"
        if whole and not agree:
            raise DataError(f"{folder}: {odd}; it is cut short or another; move it away and get it again")
        report += f"{name}: {odd}"
    films = catalogue(films, text)
    return assemble(name, folder / "ratings.dat", ratings, (folder / "movies.dat", films), (folder / "users.dat", users), report)


def load_latest_small(folder: Path, name: str = "ml-latest-small", text: str = "title") -> Dataset:
    """``ratings.csv``, ``movies.csv`` (UTF-8): 100,836 ratings in half stars, 610 users, 9,742 films. There are no user attributes."""
    folder = Path(folder)
    ratings = with_header(folder / "ratings.csv", ["userId", "movieId", "rating", "timestamp"])
    ratings.columns = RATING_COLUMNS
    films = with_header(folder / "movies.csv", ["movieId", "title", "genres"])
    films.columns = [Columns.RAW, "title", "genres"]
    films["genres"] = films["genres"].replace("(no genres listed)", "")
    return assemble(name, folder / "ratings.csv", ratings, (folder / "movies.csv", catalogue(films, text)), None, low=0.5)


def catalogue(films: pd.DataFrame, text: str) -> pd.DataFrame:
    """Items with raw id, text, title, year (Int64, missing where the title has none) and genres."""
    ways = {
        "title": lambda title, genres: titles.readable(title),
        "title+genres": lambda title, genres: joined(titles.readable(title), genres.replace("|", ", ")),
    }
    if text not in ways:
        raise DataError(f"text is {text!r}; expected one of {', '.join(ways)}")
    return pd.DataFrame(
        {
            Columns.RAW: films[Columns.RAW].astype(str),
            Columns.TEXT: [ways[text](t, g) for t, g in zip(films["title"], films["genres"], strict=True)],
            "title": films["title"],
            "year": pd.array([titles.year(t) for t in films["title"]], dtype="Int64"),
            "genres": films["genres"],
        }
    )


def assemble(
    name: str,
    path: Path,
    ratings: pd.DataFrame,
    films: tuple[Path, pd.DataFrame],
    people: tuple[Path, pd.DataFrame] | None,
    report: Report = Report(),
    low: float = 1,
) -> Dataset:
    """Check each column of the ratings against itself and the tables of films and people, then the steps that all loaders share."""
    frame = pd.DataFrame(
        {
            Columns.USER: filled(path, ratings[Columns.USER], "a user id"),
            Columns.ITEM: filled(path, ratings[Columns.ITEM], "a film id"),
            Columns.TIME: numbers(path, ratings[Columns.TIME], "seconds since 1970", 0, 1e11),
            Columns.VALUE: numbers(path, ratings[Columns.VALUE], f"{low:g} to 5 stars in steps of {low:g}", low, 5, low),
        }
    )
    for column, given in ((Columns.ITEM, films), (Columns.USER, people)):
        if given is not None:
            file, table = given
            listed(path, frame[column], file, own_ids(file, table[Columns.RAW].rename("id")))
    return build(name, frame, films[1], None if people is None else people[1], report=report)
