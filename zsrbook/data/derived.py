"""Prepared derivatives of public data, used at ``small`` scale where the originals are large: who prepared each, and what was done.

None of them has a clock: the order of a user's items is kept, the times are gone. Their ids were numbered anew, so they can't
be joined with each other or with the originals. Every docstring says what is known of the preparation.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from zsrbook.data.dataset import Columns, DataError, Dataset, Report
from zsrbook.data.files import GET_AGAIN, broken, build, joined, plain, read_json, read_lines, read_table, require, with_header

#: a whole number as these files write them
NUMBER = r"[0-9]{1,9}"


def load_scientific(folder: Path, name: str = "scientific") -> Dataset:
    """Amazon Industrial and Scientific, 2018: 8,317 users, 4,344 items, 58,492 interactions.

    Prepared by the CollisionGenRec project (its ``data/Scientific``): 5-core, repeats within a user removed, items numbered in
    the order in which the sequences name them. Fields: title, description, brand, categories.
    """
    folder = Path(folder)
    items = json_items(folder / "Scientific.item.json")
    path = folder / "Scientific.inter.json"
    histories = read_json(path)
    wrong = [u for u, h in histories.items() if not isinstance(h, list) or not h or broken(u)]
    if wrong:
        raise DataError(f"{path}: user {wrong[0]!r} has {histories[wrong[0]]!r:.60}; expected an id of whole signs, and a list of item numbers")
    return sequences(name, path, pd.Series(list(histories)), list(histories.values()), items)


def load_games(folder: Path, name: str = "games") -> Dataset:
    """Amazon Video Games, 2018: 50,546 users, 16,859 items with titles only, 440,264 interactions.

    Prepared by the LLMRank project (its ``dataset/Games-6k``, the form of RecBole): 5-core; a row of ``test.inter`` is a
    history of at most 49 items and the item that came next. Put together they are all that is left of a user.
    """
    folder = Path(folder)
    path = folder / "Games-6k.item"
    table = with_header(path, ["item_id:token", "title:token_seq"], "\t", quoted=False)
    titles = table["title:token_seq"].map(plain)
    items = pd.DataFrame({Columns.RAW: table["item_id:token"], Columns.TEXT: titles, "title": titles}).reset_index(drop=True)
    path = folder / "Games-6k.test.inter"
    rows = with_header(path, ["user_id:token", "item_id_list:token_seq", "item_id:token"], "\t", quoted=False)
    histories = (rows["item_id_list:token_seq"] + " " + rows["item_id:token"]).str.split()
    return sequences(name, path, rows["user_id:token"], histories, items)


def load_office(folder: Path, name: str = "office") -> Dataset:
    """Amazon Office Products, 2018, late users only: 3,459 items with title and description. See ``rejoined`` for its limits."""
    return rejoined(Path(folder), "Office_Products", name)


def load_industrial(folder: Path, name: str = "industrial") -> Dataset:
    """Amazon Industrial and Scientific, 2018, late users only: 3,686 items. See ``rejoined`` for its limits.

    The same shop category as ``scientific`` under other numbers, so the two are no zero-shot pair.
    """
    return rejoined(Path(folder), "Industrial_and_Scientific", name)


def load_yelp(folder: Path, name: str = "yelp") -> Dataset:
    """Yelp, 2019 and later: 30,431 users, 20,033 businesses, 316,354 visits.

    Sequences prepared by the S3-Rec project (5-core, one user a line: its number, then businesses numbered from 1, oldest first;
    repeated visits kept); names and categories prepared by the CollisionGenRec project for the same businesses, numbered from 0.
    """
    folder = Path(folder)
    items = json_items(folder / "Yelp.item.json.letter")
    odd = items[Columns.RAW][~items[Columns.RAW].str.fullmatch(NUMBER)]
    if len(odd):
        raise DataError(f"{folder / 'Yelp.item.json.letter'}: item {odd.iloc[0][:60]!r}; expected whole numbers for ids")
    items[Columns.RAW] = (items[Columns.RAW].astype(int) + 1).astype(str)
    path = folder / "Yelp.txt"
    return sequences(name, path, *lines_of_items(path), items)


def load_sports(folder: Path, name: str = "sports") -> Dataset:
    """Amazon Sports and Outdoors, 2014: 35,598 users, 18,357 items without text, 296,337 interactions. See ``amazon_s3rec``."""
    return amazon_s3rec(Path(folder) / "Sports_and_Outdoors.txt", name)


def load_beauty(folder: Path, name: str = "beauty") -> Dataset:
    """Amazon Beauty, 2014: 22,363 users, 12,101 items without text, 198,502 interactions. See ``amazon_s3rec``."""
    return amazon_s3rec(Path(folder) / "Beauty.txt", name)


def load_toys(folder: Path, name: str = "toys") -> Dataset:
    """Amazon Toys and Games, 2014: 19,412 users, 11,924 items without text, 167,597 interactions. See ``amazon_s3rec``."""
    return amazon_s3rec(Path(folder) / "Toys_and_Games.txt", name)


def amazon_s3rec(path: Path, name: str) -> Dataset:
    """A category of the Amazon reviews up to 2014, as the S3-Rec project prepared it: 5-core, items numbered from 1 in the order in
    which the sequences name them, times gone, titles and products' own ids not kept; so text is "".
    """
    users, histories = lines_of_items(path)
    named = sorted({item for history in histories for item in history}, key=int)
    return sequences(name, path, users, histories, pd.DataFrame({Columns.RAW: named, Columns.TEXT: ""}))


def lines_of_items(path: Path) -> tuple[pd.Series, list[list[str]]]:
    """The form of the S3-Rec project: a line holds the number of a user, then those of the items, oldest first. The index of users is the line."""
    users, histories = {}, []
    for line, text in read_lines(path):
        user, *history = text.split()
        if not history:
            raise DataError(f"{path}: line {line} is {text[:60]!r}; expected a user, then at least one item")
        if wrong := [number for number in (user, *history) if not re.fullmatch(NUMBER, number)]:
            raise DataError(f"{path}: line {line} holds {wrong[0][:60]!r}; expected whole numbers: a user, then items")
        users[line] = user
        histories.append(history)
    return pd.Series(users), histories


def rejoined(folder: Path, category: str, name: str) -> Dataset:
    """One sequence a user out of the validation and test rows of the MiniOneRec project (its ``data/Amazon``).

    There, a 5-core cut of October 2016 to November 2018 was turned into rows of up to ten items and the item that came next,
    and the rows were divided by time into train, validation and test; the rows of the last two are read here. A user's oldest
    row gives what came before; each later row adds its item. Every later row must repeat the sequence so far in its history,
    which is checked.

    Limits: users whose last event lies in the training period are missing, and where a user's oldest row already has ten items,
    those before them are missing too (counted in the report). Repeats are kept. Only the order of events is known.
    """
    items = json_items(folder / f"{category}.item.json")
    parts = []
    for part in ("valid", "test"):
        path = folder / f"{category}.{part}.csv"
        frame = read_table(path)
        absent = {"user_id", "history_item_id", "item_id"} - set(frame.columns)
        if absent:
            raise DataError(f"{path}: no column {', '.join(sorted(absent))}; it has {', '.join(frame.columns)}")
        parts.append(frame[["user_id", "history_item_id", "item_id"]].assign(path=path, line=frame.index))
    rows = pd.concat(parts, ignore_index=True)
    rows["history"] = [number_list(p, n, text) for p, n, text in zip(rows["path"], rows["line"], rows["history_item_id"], strict=True)]
    users, histories, cut = [], [], 0
    for user, own in rows.groupby("user_id", sort=False):
        whole = [*own["history"].iloc[0], *own["item_id"]]
        first = len(own["history"].iloc[0])
        for position, (history, path, line) in enumerate(zip(own["history"], own["path"], own["line"], strict=True)):
            if history != whole[max(0, first + position - 10) : first + position]:
                raise DataError(
                    f"{path}: line {line}: the history of user {user!r} is {history}; the rows before it give"
                    f" {whole[max(0, first + position - 10) : first + position]}"
                )
        cut += first == 10
        users.append(user)
        histories.append(whole)
    lines = [f"{name}: put {len(rows):,} rows together to {len(users):,} sequences; {cut:,} may lack items before the oldest ten"]
    return sequences(name, folder / f"{category}.test.csv", pd.Series(users), histories, items, Report(tuple(lines)))


def number_list(path: Path, line: int, text: str) -> list[str]:
    """``[3, 1]`` as item ids; parsed as a literal, never run."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two of what is nested too deep
        value = None
    if not isinstance(value, list) or not all(isinstance(v, int) for v in value):
        raise DataError(f"{path}: line {line}: history_item_id is {text[:60]!r}; expected a list of item numbers such as [3, 1]")
    return [str(v) for v in value]


def json_items(path: Path) -> pd.DataFrame:
    """Items from ``{"0": {"title": …, "description": …}}``; text = title, then description, without HTML.

    A description may be a list of paragraphs printed as Python code; it is parsed as a literal, never run.
    """
    records = read_json(path)
    if not records:
        raise DataError(f"{path}: holds no item; {GET_AGAIN}")
    rows = []
    for raw, record in records.items():
        if not isinstance(record, dict) or "title" not in record:
            raise DataError(f"{path}: item {raw!r} is {str(record)[:60]!r}; expected an object with a title")
        clean = {field: "" if text is None else plain(paragraphs(str(text))) for field, text in record.items()}
        rows.append({Columns.RAW: raw, Columns.TEXT: joined(clean["title"], clean.get("description", "")), **clean})
    return pd.DataFrame(rows)


def paragraphs(text: str) -> str:
    if not (text.startswith("[") and text.endswith("]")):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text
    return " ".join(map(str, value)) if isinstance(value, list) else text


def sequences(name: str, path: Path, users: pd.Series, histories: Collection[list], items: pd.DataFrame, report: Report = Report()) -> Dataset:
    """A Dataset without a clock from one list of item ids a user, oldest first; the index of ``users`` is the line, for errors."""
    users = users.astype(str).rename(Columns.USER)
    require(path, users, ~users.duplicated().to_numpy(), "each user once")
    lengths = [len(h) for h in histories]
    taken = pd.Series([str(item) for history in histories for item in history], name=Columns.ITEM, dtype=str)
    known = taken.isin(items[Columns.RAW]).to_numpy()
    if not known.all():
        raise DataError(f"{path}: names item {taken[~known].iloc[0]!r}, which the items file does not hold ({(~known).sum()} such)")
    frame = pd.DataFrame({Columns.USER: np.repeat(users.to_numpy(), lengths), Columns.ITEM: taken})
    return build(name, frame, items, pd.DataFrame({Columns.RAW: users}), clock=False, report=report)
