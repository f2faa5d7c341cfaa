"""Yelp's own open data set: who reviewed which business, when, and with how many stars; and what the businesses are called.

Two of the five files of ``yelp_dataset.tar``, which Yelp hands out to whoever accepts its terms, one JSON object a line:
``yelp_academic_dataset_review.json`` and ``yelp_academic_dataset_business.json``. Each release has taken the place of the one before;
that of 2022 holds 6,990,280 reviews of 150,346 businesses. Older ones, with days for times and lists for categories, are read as well.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pandas as pd

from zsrbook.data.dataset import Columns, DataError, Dataset, Report
from zsrbook.data.files import build, filled, joined, numbers, plain, read_records, require

REVIEWS, BUSINESSES = "yelp_academic_dataset_review.json", "yelp_academic_dataset_business.json"
#: the fields of a review that are read; its text and its votes are not
FIELDS = {"user_id": Columns.USER, "business_id": Columns.ITEM, "date": Columns.TIME, "stars": Columns.VALUE}
ROWS_AT_ONCE = 500_000  #: reviews that lie in memory as Python objects: some 200 MB


def load(reviews: Path, name: str = "yelp-open") -> Dataset:
    """Reviews as interactions, and the file of businesses beside them, if there is one, as texts.

    Text = the name, then the categories, such as "Emerald Deli Sandwiches, Restaurants"; "" where the businesses are missing. Items carry
    ``title``, ``category``, ``city``, ``state``; businesses that nobody reviewed are left out. Times are read as UTC, since Yelp names no
    zone; in older releases they are days, so many of a user's rows tie. Another review of the same business by the same user is an
    interaction of its own.

    Read line by line: about half a minute a million reviews, on one core; of each, only the fields named above stay in memory.

    Args:
        reviews: ``yelp_academic_dataset_review.json``, also as ``.gz``, or inside ``yelp_dataset.tar``
            (``yelp_dataset.tar/yelp_academic_dataset_review.json``, see ``files.open_raw``).

    Raises:
        DataError: a file is missing or damaged, or a line does not fit; the message names file, line and value.
    """
    reviews = Path(reviews)
    frame = read_reviews(reviews)
    businesses = reviews.with_name(BUSINESSES + (".gz" if reviews.suffix == ".gz" else ""))
    taken = pd.unique(frame[Columns.ITEM])
    if businesses.is_file() or reviews.parent.is_file():
        items, report = read_businesses(name, businesses, taken)
    else:
        items = pd.DataFrame({Columns.RAW: taken, Columns.TEXT: ""})
        report = Report((f"{name}: no {businesses.name} beside {reviews.name}, so no business has a text",))
    return build(name, frame, items, report=report)


def read_reviews(path: Path) -> pd.DataFrame:
    """Columns user, item, time, value, in the order of the file."""
    rows = ((line, [record.get(field) for field in FIELDS]) for line, record in read_records(path))
    parts = []
    while some := list(itertools.islice(rows, ROWS_AT_ONCE)):
        lines, values = zip(*some, strict=True)
        parts.append(checked(path, pd.DataFrame(list(values), pd.Index(lines, name="line"), list(FIELDS), dtype=object)))
    return pd.concat(parts, ignore_index=True)


def checked(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Columns user, item, time (seconds since 1970), value of so many reviews."""
    written = frame["date"].astype(str)
    time = pd.to_datetime(written, format="%Y-%m-%d %H:%M:%S", errors="coerce")
    if (other := time.isna()).any():
        time[other] = pd.to_datetime(written[other], format="%Y-%m-%d", errors="coerce")
    require(path, frame["date"], time.notna().to_numpy(), "a time such as 2018-07-07 22:09:11, or a day such as 2018-07-07")
    return pd.DataFrame(
        {
            Columns.USER: filled(path, frame["user_id"], "a user id"),
            Columns.ITEM: filled(path, frame["business_id"], "the id of a business"),
            Columns.TIME: (time - pd.Timestamp(0)) / pd.Timedelta(seconds=1),
            Columns.VALUE: numbers(path, frame["stars"], "1 to 5 whole stars", 1, 5, 1),
        }
    )


def read_businesses(name: str, path: Path, taken: pd.Index) -> tuple[pd.DataFrame, Report]:
    """Items (raw, text, title, category, city, state) in the order of ``taken``, the first record of each, and what was left out."""
    known: dict[str, dict | None] = dict.fromkeys(taken)
    twice = untaken = 0
    for line, record in read_records(path):
        raw = record.get("business_id")
        if not raw:
            raise DataError(f"{path}: line {line} has no 'business_id' (its fields: {', '.join(record)}); expected the id of a business")
        if not isinstance(raw, str | int):
            raise DataError(f"{path}: line {line}: business_id is {raw!r:.60}; expected the id of a business")
        if raw not in known:
            untaken += 1
        elif known[raw] is not None:
            twice += 1
        else:
            title, category = words(record.get("name")), words(record.get("categories"))
            known[raw] = {Columns.TEXT: joined(title, category), "title": title, "category": category}
            known[raw] |= {field: words(record.get(field)) for field in ("city", "state")}
    missing = sum(record is None for record in known.values())
    blank = dict.fromkeys((Columns.TEXT, "title", "category", "city", "state"), "")
    items = pd.DataFrame([{Columns.RAW: raw} | (record or blank) for raw, record in known.items()])
    odd = {
        f"dropped {twice:,} records of businesses that stand there before (the first was kept)": twice,
        f"left out {untaken:,} businesses of {path.name} that nobody reviewed": untaken,
        f"{missing:,} of {len(known):,} businesses are not in {path.name}; kept without text": missing,
    }
    return items, Report(tuple(f"{name}: {what}" for what, count in odd.items() if count))


def words(value: object) -> str:
    """Categories are one text since 2018, a list before, and null where a business has none."""
    return plain(", ".join(map(str, value)) if isinstance(value, list) else str(value or ""))
