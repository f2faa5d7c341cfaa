"""MovieLens as click data: nobody clicked there, so what stands for a click is said in the name of the data.

``stars``    each rating is an impression, and 4 stars or more are a click: the user chose to watch, the question is whether they liked it
``watched``  each rating is a click, and beside it stands a film that the user never rated, drawn at random: the question is what they watch

A behaviour is an earlier rating, the film and its stars. Of users: gender, age group, occupation and the first digit of the zip code.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from zsrbook.data.clicks import ClickData, Layout, split_in_time, windows_before
from zsrbook.data.dataset import Columns, DataError, Dataset

#: lower ends of the age groups that ML-1M has; ML-100K gives years, which are put into the same groups
AGES = (1, 18, 25, 35, 45, 50, 56)
MEANING = {"stars": "a rating of 4 stars or more", "watched": "a film that was rated, against one that was not"}


def clicks(data: Dataset, click: Literal["stars", "watched"] = "stars", longest: int = 100, seed: int = 0) -> ClickData:
    """Impressions from ratings, split by time (7 : 1 : 2); nobody is declared new yet.

    Args:
        data: from ``movielens.load_1m`` or ``load_100k``.
        longest: behaviours before an impression, at most.
        seed: of the films that stand beside those watched.

    Raises:
        DataError: the users of ``data`` lack their attributes, ``click`` is another word, or a user watched all there is.
    """
    if click not in MEANING:
        raise DataError(f"click is {click!r}; expected one of {', '.join(MEANING)}")
    lacking = {"gender", "age", "occupation", "zip"} - set(data.users)
    if lacking:
        raise DataError(f"{data.name}: the users table lacks {', '.join(sorted(lacking))}; click data needs MovieLens 100K or 1M")
    rated = data.interactions
    owner, moment = rated[Columns.USER].to_numpy(), rated[Columns.TIME].to_numpy()
    user, item, time = owner, rated[Columns.ITEM].to_numpy(), moment
    label = (rated[Columns.VALUE] >= 4).to_numpy(np.int8)
    note = f"{data.name}: {len(rated):,} ratings, {label.mean():.1%} of them with 4 stars or more"
    if click == "watched":
        user, time = np.tile(user, 2), np.tile(time, 2)
        item = np.concatenate([item, never_taken(owner, item, data.n_items, seed)])
        label = np.repeat([1, 0], len(rated)).astype(np.int8)
        note = f"{data.name}: {len(rated):,} ratings as clicks, and as many random films that the same user never rated (seed {seed})"
    order = np.lexsort((item, user, time))
    user, item, time, label = user[order], item[order], time[order], label[order]
    tables = {
        "gender": coded(data.users["gender"]),
        "age": np.digitize(data.users["age"].astype(int), AGES).astype(np.int32),
        "occupation": coded(data.users["occupation"]),
        "region": coded(data.users["zip"].astype(str).str.extract(r"^(\d)", expand=False)),
    }
    genres = data.items["genres"].replace("", np.nan)
    fields = {
        "genres": coded(genres),
        "genre": coded(genres.str.partition("|")[0]),
        "decade": coded(pd.to_numeric(data.items["year"]) // 10),
    }
    sizes = {name: int(codes.max()) + 1 for name, codes in (tables | fields).items()}
    return ClickData(
        f"{data.name}-{click}",
        Layout(("user", *tables), ("hour", "weekday"), ("item", *fields), ("item", "stars")),
        {"user": len(data.users) + 1, "item": data.n_items + 1, "hour": 25, "weekday": 8, "stars": 6} | sizes,
        user.astype(np.int32),
        item.astype(np.int32),
        time,
        label,
        np.column_stack([time // 3600 % 24, time // 86_400 % 7]).astype(np.int32) + 1,
        np.column_stack([np.arange(len(data.users), dtype=np.int32) + 1, *tables.values()]),
        np.column_stack([np.arange(data.n_items, dtype=np.int32) + 1, *fields.values()]),
        np.column_stack([rated[Columns.ITEM] + 1, rated[Columns.VALUE].round()]).astype(np.int32),
        windows_before(user, time, owner, moment, longest),
        split_in_time(time, valid=0.125),
        np.zeros(len(data.users), bool),
        data.report + note,
    )


def coded(column: pd.Series) -> np.ndarray:
    """(n,) int32 codes from 1 in the order of the values; 0 where there is none."""
    return column.astype("category").cat.codes.to_numpy(np.int32) + 1


def never_taken(user: np.ndarray, item: np.ndarray, n_items: int, seed: int) -> np.ndarray:
    """(N,) for each interaction a random item that its user never took; all such items are equally likely.

    Raises:
        DataError: a user took (nearly) all there is.
    """
    rng = np.random.default_rng(seed)
    taken = np.unique(user.astype(np.int64) * n_items + item)
    drawn = rng.integers(n_items, size=len(user))
    open_ = np.arange(len(user))
    for _ in range(1000):
        key = user[open_].astype(np.int64) * n_items + drawn[open_]
        at = np.minimum(np.searchsorted(taken, key), len(taken) - 1)
        open_ = open_[taken[at] == key]
        if not len(open_):
            return drawn
        drawn[open_] = rng.integers(n_items, size=len(open_))
    raise DataError(f"user code {user[open_[0]]} rated (nearly) all {n_items} films, which leaves none to stand beside them; take click='stars'")
