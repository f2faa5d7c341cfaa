"""Amazon reviews, releases of 2014 and 2018, as UCSD publishes them: any category.

2014: McAuley, Targett, Shi and van den Hengel, SIGIR 2015. 2018: Ni, Li and McAuley, EMNLP 2019. Three kinds of file:
reviews, one JSON object a line (``Gift_Cards_5.json.gz``); ratings only (``Prime_Pantry.csv``: no header, and the columns
in another order in each release); metadata (``meta_Gift_Cards.json.gz``: JSON a line in 2018, Python literals in 2014).
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from zsrbook.data.dataset import Columns, DataError, Dataset, Report
from zsrbook.data.files import broken, build, filled, form, joined, numbers, plain, read_records, read_table, refuse_cut_time

#: the columns of the ratings-only files
RATINGS_ONLY = {
    2014: [Columns.USER, Columns.ITEM, Columns.VALUE, Columns.TIME],
    2018: [Columns.ITEM, Columns.USER, Columns.VALUE, Columns.TIME],
}
META_FIELDS = ["title", "description", "brand", "category"]


def load(name: str, reviews: Path, metadata: Path | None = None, release: int = 2018) -> Dataset:
    """Interactions from ``reviews`` (JSON lines or ratings only, also in a ``.gz`` or ``.zip``), texts from ``metadata``.

    Text = title, then description, without HTML; where the shop gives one of them, that one; where neither, "". Items also
    carry ``title``, ``description``, ``brand``, ``category``. Times are days, so many of a user's rows tie: they keep the
    file's order. Buying the same item at another time is an interaction of its own; rows equal in user, item, stars and time are
    one (the 2018 release holds some reviews twice). Items of ``metadata`` that nobody reviewed are left out.

    Args:
        release: 2014 or 2018; they order the columns of ratings-only files differently.

    Raises:
        DataError: a file is missing or damaged, or a line does not fit; the message names file, line and value.
    """
    if release not in RATINGS_ONLY:
        raise DataError(f"{name}: release is {release!r}; expected 2014 or 2018")
    reviews = Path(reviews)
    frame, report = (read_ratings_only(reviews, release), Report()) if form(reviews) == ".csv" else read_reviews(name, reviews)
    items, notes = read_metadata(name, Path(metadata)) if metadata else (pd.DataFrame(columns=[Columns.RAW, Columns.TEXT]), Report())
    report += notes
    taken = pd.unique(frame[Columns.ITEM])
    known = items[Columns.RAW]
    missing = pd.Index(taken).difference(known, sort=False)
    if metadata and len(missing):
        report += f"{name}: {len(missing):,} of {len(taken):,} items are not in {Path(metadata).name}; kept without text"
    if untaken := int((~known.isin(taken)).sum()):
        report += f"{name}: left out {untaken:,} items of {Path(metadata).name} that nobody reviewed"
    items = items.set_index(Columns.RAW).reindex(taken).fillna("").rename_axis(Columns.RAW).reset_index()
    return build(name, frame, items, report=report)


def read_reviews(name: str, path: Path) -> tuple[pd.DataFrame, Report]:
    """Columns user, item, time, value of a file with one review a line, and what was repaired."""
    fields = ["reviewerID", "asin", "unixReviewTime", "reviewTime", "overall"]
    rows, lines = [], []
    for line, record in read_records(path, loose=True):
        rows.append([record.get(f) for f in fields])
        lines.append(line)
    frame = pd.DataFrame(rows, columns=fields, index=pd.Index(lines, name="line"), dtype=object)
    dated = pd.to_datetime(frame["reviewTime"], format="%m %d, %Y", errors="coerce", utc=True)
    seconds = (dated - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
    absent = frame["unixReviewTime"].isna()
    frame["unixReviewTime"] = frame["unixReviewTime"].where(~absent, seconds)
    report = Report((f"{name}: read the time of {absent.sum():,} reviews without seconds off their written date",) if absent.any() else ())
    return checked(path, frame.set_axis([Columns.USER, Columns.ITEM, Columns.TIME, "date", Columns.VALUE], axis=1)), report


def read_ratings_only(path: Path, release: int) -> pd.DataFrame:
    """Columns user, item, time, value of a ratings-only file.

    Raises:
        DataError: the ids show that the file has the column order of the other release, or it ends in the middle of a time.
    """
    frame = read_table(path, ",", RATINGS_ONLY[release], quoted=False)
    asin = r"[0-9B][0-9A-Z]{9}"
    if frame[Columns.USER].str.fullmatch(asin).mean() > 0.9 and frame[Columns.ITEM].str.fullmatch(asin).mean() < 0.1:
        other = 2014 + 2018 - release
        raise DataError(
            f"{path}: line 1 is {','.join(frame.iloc[0])!r}: item ids stand where release {release} has users (its columns are"
            f" {','.join(RATINGS_ONLY[release])}); load it with release={other}"
        )
    rows = checked(path, frame)
    refuse_cut_time(path, frame[Columns.TIME], rows[Columns.TIME].to_numpy())
    return rows


def checked(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            Columns.USER: filled(path, frame[Columns.USER], "a user id"),
            Columns.ITEM: filled(path, frame[Columns.ITEM], "an item id"),
            Columns.TIME: numbers(path, frame[Columns.TIME], "seconds since 1970", 0, 1e11),
            Columns.VALUE: numbers(path, frame[Columns.VALUE], "1 to 5 whole stars", 1, 5, 1),
        }
    )


def read_metadata(name: str, path: Path) -> tuple[pd.DataFrame, Report]:
    """Items (raw, text, title, description, brand, category), the first record of each id, and what was repaired."""
    records = {}
    twice = scripts = marked = 0
    for line, record in read_records(path, loose=True):
        raw = record.get("asin")
        if not isinstance(raw, str) or not raw or broken(raw):
            raise DataError(f"{path}: line {line}: asin is {raw!r} (its fields: {', '.join(record)}); expected the id of an item")
        if raw in records:
            twice += 1
            continue
        given = {field: flat(record.get(field)) for field in META_FIELDS}
        given["category"] = given["category"] or flat(record.get("categories"))
        if "getTime()" in given["title"]:  # the 2018 crawl took a piece of the page's program for some titles
            scripts += 1
            given["title"] = ""
        clean = {field: plain(text) for field, text in given.items()}
        marked += bool(given["title"]) and not clean["title"]
        records[raw] = {Columns.TEXT: joined(clean["title"], clean["description"]), **clean}
    items = pd.DataFrame.from_dict(records, orient="index", columns=[Columns.TEXT, *META_FIELDS]).rename_axis(Columns.RAW).reset_index()
    odd = {
        "dropped": (twice, "records of items that stand there before (the first was kept)"),
        "emptied": (scripts + marked, "titles that were program code or HTML and nothing else"),
    }
    lines = [f"{name}: {path.name}: {act} {count:,} {what}" for act, (count, what) in odd.items() if count]
    return items, Report(tuple(lines))


def flat(value: object) -> str:
    """Text of a field that is a string in one release and a list, or a list of lists, in the other."""
    if isinstance(value, list):
        return " ".join(flat(v) for v in value)
    return value if isinstance(value, str) else ""
