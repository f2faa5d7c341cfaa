"""Files of exactly the form of the Alimama display-ad clicks, of any size, made from the toy world: to measure and to try models on.

People, what they like and how often they click follow the grocery market of ``toy``. A leaf category is a flavour of a family (tea
with mint), so what people look at tells their taste, and the taste moves their clicks: a model can learn from the files, and the log
is worth reading. Each ad shows one item; ads that share a brand share customers. Every purchase of the toy world is surrounded by
views, carts and favourites of the same thing, spread over the 22 days of the log.

The quirks of the original are kept: the header of the profiles ends in a blank, 7 % of the users have no profile, half of the
``pvalue_level`` and a third of the ``new_user_class_level`` cells are empty, a brand may be NULL, and neither the log nor the
impressions are sorted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from zsrbook.cache import write_whole
from zsrbook.data import alimama
from zsrbook.data.alimama import ACTIONS, ADS, DAY, FILES, LOG, PROFILE, SHOWN, USERS
from zsrbook.data.dataset import Columns, DataError, Dataset
from zsrbook.data.toy import ToySettings, ToyWorld

MARKET = "grocery"
BEGIN = 1_494_000_000  #: midnight of 6 May 2017 in Beijing: the first impressions
LOG_DAYS, SHOWN_DAYS = 22, 8  #: both end at midnight of 14 May
PIDS = ("430548_1007", "430539_1007")
SHARES = (0.95, 0.02, 0.015, 0.015)  #: of ``ACTIONS`` in the log
PER_AD = 30  #: impressions an ad, as in the original
NO_PROFILE, NO_PVALUE, NO_CLASS, NO_BRAND = 0.07, 0.5, 0.33, 0.3  #: shares that are missing
FROM_ZERO = ("cms_segid", "cms_group_id", "age_level", "occupation")  #: whose levels begin at 0; those of the other fields at 1
ROWS = 1_000_000  #: written at once


def generate(folder: Path, impressions: int = 100_000, behaviours: int = 1_000_000, users: int = 5_000, seed: int = 0) -> ToyWorld:
    """Write the four files; equal arguments give equal bytes. Files that are there are replaced, each once it is whole.

    A million impressions and ten million behaviours take about 5 seconds; memory follows the users, not the rows.

    Returns:
        The world behind them; the user in row r of its market has the id ``people(users, seed)[r]``.

    Raises:
        DataError: a number below 1.
    """
    sizes = {"impressions": impressions, "behaviours": behaviours, "users": users}
    for what, size in sizes.items():
        if size < 1:
            raise DataError(f"{what} is {size}; expected 1 or more")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    world = ToyWorld(ToySettings(users=(users, 1, 1), seed=seed))
    data = world.dataset(MARKET)
    ads = advertised(data.items, max(1, impressions // PER_AD // data.n_items), seed)
    tables = {
        ADS: iter([ads[stream(seed, 5).permutation(len(ads))]]),
        USERS: iter([profiles(data.users, seed)]),
        SHOWN: shown(world, ads["item"].to_numpy(), impressions, users, seed),
        LOG: log(data, behaviours, seed),
    }
    for file, parts in tables.items():
        write_whole(folder / file, lambda path, parts=parts, file=file: write(path, parts, FILES[file]))
    return world


def write(path: Path, parts: Iterator[pl.DataFrame], columns: tuple[str, ...]) -> None:
    with path.open("wb") as out:
        blank = " " if columns[0] == "userid" else ""
        out.write((",".join(columns) + blank + "\n").encode())
        for part in parts:
            part.select(columns).write_csv(out, include_header=False)


def people(users: int, seed: int) -> np.ndarray:
    """(users,) the id of each row of the market's users, from 1 on."""
    return stream(seed, 0).permutation(users) + 1


def stream(seed: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, purpose])


def leaves(items: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(I,) category and (I,) brand of each item, numbered from 1: a flavour of a family, and the brand."""
    cate = np.unique(items["family"] + " " + items["flavour"], return_inverse=True)[1]
    return cate + 1, np.unique(items["brand"], return_inverse=True)[1] + 1


def advertised(items: pd.DataFrame, copies: int, seed: int) -> pl.DataFrame:
    """``copies`` ads for each item, in a random order: the columns of ``ad_feature.csv``, and ``item``."""
    rng, n = stream(seed, 1), len(items) * copies
    cate, brand = leaves(items)
    item = rng.permutation(np.arange(n) % len(items))
    customer = brand[item] * 100 + rng.integers(max(1, min(100, copies)), size=n)
    price = items["price"].to_numpy()[item] * rng.lognormal(0, 0.1, n)
    return pl.DataFrame(
        {
            "adgroup_id": np.arange(1, n + 1),
            "cate_id": cate[item],
            "campaign_id": customer * 1000 + rng.integers(2, size=n),
            "customer": customer,
            "brand": np.where(rng.random(n) < NO_BRAND, "NULL", brand[item].astype(str)),
            "price": price.round(2),
            "item": item,
        }
    )


def profiles(users: pd.DataFrame, seed: int) -> pl.DataFrame:
    """The eight attributes that the toy world took from Alimama, of the users who have a profile."""
    rng, n = stream(seed, 2), len(users)
    table = pl.DataFrame({"userid": people(n, seed)} | {f: users[f].to_numpy() - (f in FROM_ZERO) for f in PROFILE})
    for field, share in (("pvalue_level", NO_PVALUE), ("new_user_class_level", NO_CLASS)):
        table = table.with_columns(pl.when(pl.Series(rng.random(n) >= share)).then(pl.col(field)).alias(field))
    return table.filter(pl.Series(rng.random(n) >= NO_PROFILE))


def shown(world: ToyWorld, item_of: np.ndarray, impressions: int, users: int, seed: int) -> Iterator[pl.DataFrame]:
    """Ads of popular items are shown more often; a click follows the toy world's probability."""
    rng, ids = stream(seed, 3), people(users, seed)
    by_item = np.argsort(item_of, kind="stable").reshape(world.popularity(MARKET).size, -1)  # (I, copies) rows of the ads
    for size in parts(impressions):
        user = rng.integers(users, size=size)
        item = rng.choice(len(by_item), size=size, p=world.popularity(MARKET))
        click = rng.random(size) < world.click_probability(MARKET, user, item)
        yield pl.DataFrame(
            {
                "user": ids[user],
                "time_stamp": BEGIN + rng.integers(SHOWN_DAYS * DAY, size=size),
                "adgroup_id": by_item[item, rng.integers(by_item.shape[1], size=size)] + 1,
                "pid": pl.Series(PIDS).gather(rng.integers(2, size=size)),
                "nonclk": (~click).astype(np.int8),
                "clk": click.astype(np.int8),
            }
        )


def log(data: Dataset, behaviours: int, seed: int) -> Iterator[pl.DataFrame]:
    """Each row belongs to a random purchase: within an hour of it. Purchases keep their order, evenly spread over the 22 days."""
    rng, bought = stream(seed, 4), data.interactions
    user, item = people(len(data.users), seed)[bought[Columns.USER]], bought[Columns.ITEM].to_numpy()
    rank = bought[Columns.TIME].rank().to_numpy() / (len(bought) + 1)
    moment = BEGIN + SHOWN_DAYS * DAY - LOG_DAYS * DAY * (1 - rank)
    cate, brand = leaves(data.items)
    for size in parts(behaviours):
        which = rng.integers(len(bought), size=size)
        seconds = (moment[which] + rng.uniform(-3600, 3600, size)).astype(np.int64)
        yield pl.DataFrame(
            {
                "user": user[which],
                "time_stamp": seconds.clip(BEGIN - (LOG_DAYS - SHOWN_DAYS) * DAY, BEGIN + SHOWN_DAYS * DAY - 1),
                "btag": pl.Series(ACTIONS).gather(rng.choice(len(ACTIONS), size=size, p=SHARES)),
                "cate": cate[item[which]],
                "brand": brand[item[which]],
            }
        )


def parts(rows: int) -> list[int]:
    """``ROWS`` again and again, then the rest."""
    return [min(ROWS, rows - begin) for begin in range(0, rows, ROWS)]


# -- what the loader costs --------------------------------------------------------------------------------------------------------


def timed(function: Callable[..., object], *arguments: object) -> float:
    began = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - began


def loading(folder: Path) -> tuple[float, float, float]:
    """Seconds of a first reading, the same on the processor's clock, which neighbours slow down less, and of one from the cache.

    Changes the environment, so for a process of its own.
    """
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    before = time.process_time()
    first = timed(alimama.load, folder)
    cpu = time.process_time() - before
    return first, cpu, timed(alimama.load, folder)
