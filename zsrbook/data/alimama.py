"""The Alimama display-ad clicks (Tianchi data set 56) in the form of ``clicks``: the public data of MAIL (section 4.1) and of DMR.

Four files: ``raw_sample.csv`` (26.6 million impressions of 8 days), ``ad_feature.csv``, ``user_profile.csv`` and ``behavior_log.csv``
(723 million views, carts, favourites and purchases of 22 days, 22 GB). Times are seconds since 1970; days and hours here are those of
Beijing, where the first impressions came just after midnight of 6 May 2017. The papers say little of how they prepared the data:

- user fields: the id and the 8 of the profile; item fields: ad, category, campaign, customer, brand, price. That gives the 9 and 6 of
  MAIL's Table 1. The log names no item, so a behaviour is (category, brand, action), with the vocabularies of the ad's fields; DEC
- context: scenario (pid), hour, weekday. Table 1 counts four, unnamed; in 8 days the day is the weekday by another name; DEC
- the last day is the test, as in the paper; the day before it is for validation, since a whole day has all hours; DEC
- behaviours strictly earlier than the impression, the newest 100 (the paper's length), and none older than a month: a broken clock; DEC
- price: 32 bins with equally many ads; a missing profile, cell or brand is code 0; DEC
- vocabularies hold what stands in the files, test day included, in ascending order of the ids; DEC

The log never lies in memory. It is read piece by piece, each is checked, cut down to the users who saw an ad, sorted by user and kept
as Parquet; then one range of users after the other is sorted by time, matched with its impressions, and cut to what their windows
reach. A piece or a range that is done stands under its own name and is not done again after an interruption. What comes out lies in
the cache folder as ``.npy`` files, which are mapped, not read.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
from filelock import FileLock
from rich.progress import track

from zsrbook.audience import watched
from zsrbook.cache import write_whole
from zsrbook.data.clicks import TEST, TRAIN, VALID, ClickData, Layout, split_in_time, windows_before
from zsrbook.data.dataset import DataError, Report
from zsrbook.data.files import GET_AGAIN, numbers, open_raw, read_table, refuse_html, require
from zsrbook.scale import cache_folder

PROFILE = (
    "cms_segid",
    "cms_group_id",
    "final_gender_code",
    "age_level",
    "pvalue_level",
    "shopping_level",
    "occupation",
    "new_user_class_level",
)
#: the files and their columns; the header of the third ends in a blank
SHOWN, ADS, USERS, LOG = "raw_sample.csv", "ad_feature.csv", "user_profile.csv", "behavior_log.csv"
FILES = {
    SHOWN: ("user", "time_stamp", "adgroup_id", "pid", "nonclk", "clk"),
    ADS: ("adgroup_id", "cate_id", "campaign_id", "customer", "brand", "price"),
    USERS: ("userid", *PROFILE),
    LOG: ("user", "time_stamp", "btag", "cate", "brand"),
}
PUBLISHED = {SHOWN: 26_557_961, ADS: 846_811, USERS: 1_061_768, LOG: 723_268_134}  #: rows
ACTIONS = ("pv", "cart", "fav", "buy")
LAYOUT = Layout(
    ("user", *PROFILE), ("pid", "hour", "weekday"), ("adgroup", "cate", "campaign", "customer", "brand", "price"), ("cate", "brand", "btag")
)
PAPER_ROWS = 6_000_000  #: impressions, as section 4.1 of MAIL counts them
DAY, BEIJING = 86_400, 8 * 3600  #: seconds; Beijing is 8 hours ahead of UTC
DAYS = 8  #: of impressions
OLDEST = 31 * DAY  #: before the first impression; the log begins two weeks before it
BINS = 32  #: of prices
PIECE = 1 << 27  #: bytes of a large file at once; a piece and its table take about 1 GB
RANGE = 8_000_000  #: behaviours and impressions of the users that are sorted at once: about 1 GB
FORM = 1  #: of the cache; another number makes all of it anew

ID = ("a whole number without sign", 0, 2**31 - 1)
#: of the two large files: what a column must hold; columns with numbers give smallest and largest
RULES = {
    "user": ID,
    "time_stamp": ("seconds since 1970, such as 1494032110", 10**9, 2**31 - 1),
    "adgroup_id": ID,
    "pid": ("a scenario, such as 430548_1007",),
    "clk": ("0 or 1", 0, 1),
    "nonclk": ("1 - clk, so that the two add to 1", 0, 1),
    "btag": (", ".join(ACTIONS[:-1]) + " or buy",),
    "cate": ID,
    "brand": ID,
}


def load(folder: Path, name: str = "alimama", longest: int = 100, paper_size: bool = False, seed: int = 0) -> ClickData:
    """The four files as click data; nobody is declared new yet. The arrays are mapped from the cache folder, so read-only.

    The first call on a folder prepares the cache (minutes to hours, for the log is read once; up to 1.2 times its size on disk
    while it runs; it may be killed and called again, and another process waits for it); later calls take seconds. Files that change in
    size or time are prepared anew.
    Generated files of the published size, 723 million behaviours and 26.6 million impressions of 1.1 million users, took 18 minutes of one
    core and 4.3 GB of memory at most.

    Args:
        longest: behaviours before an impression, at most.
        paper_size: a random sample of 6 million impressions, as section 4.1 of MAIL counts; users, items and behaviours stay whole.
        seed: of that sample.

    Raises:
        DataError: a file is missing, cut short, a web page, or lacks a column; a value is not what it should be (the line is
            named); the disk lacks room; or ``paper_size`` of fewer impressions.
    """
    folder = Path(folder)
    for file, columns in FILES.items():
        header(folder / file, columns)
    ready = cache_folder() / "alimama" / key(folder, longest)
    if not ready.is_dir():
        work = ready.with_suffix(".work")
        room(folder, work)
        work.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(work.parent.with_suffix(".lock")):  # of two runs at once the second waits, then finds all of it
            if not ready.is_dir():
                prepare(folder, work, ready, longest)
    data = read(ready, name)
    if not paper_size:
        return data
    if len(data) < PAPER_ROWS:
        raise DataError(f"{folder / SHOWN}: {len(data):,} impressions; paper_size samples {PAPER_ROWS:,} of them; leave it out")
    keep = np.zeros(len(data), bool)
    keep[np.random.default_rng(seed).choice(len(data), PAPER_ROWS, replace=False)] = True
    note = f"{name}: a random sample of {PAPER_ROWS:,} impressions (seed {seed})"
    return replace(data.subset(keep), name=f"{name}-6m", report=data.report + note)


# -- the cache --------------------------------------------------------------------------------------------------------------------


def key(folder: Path, longest: int) -> str:
    """Names what the cache was made of; size and time tell files apart without reading 22 GB."""
    stats = [(folder / file).stat() for file in FILES]
    return hashlib.sha256(repr((FORM, longest, [(s.st_size, s.st_mtime_ns) for s in stats])).encode()).hexdigest()[:16]


def read(ready: Path, name: str) -> ClickData:
    """What ``prepare`` left."""
    try:
        about = json.loads((ready / "about.json").read_text(encoding="utf-8"))
        parts = {p.stem: np.asarray(np.load(p, mmap_mode="r")) for p in ready.glob("*.npy")}
        report = Report(tuple(f"{name}: {line}" for line in about["report"]))
        return ClickData(name, LAYOUT, about["vocabularies"], **parts, new=np.zeros(len(parts["users"]), bool), report=report)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{ready}: this cache is damaged ({error}); delete the folder, it is made again") from error


def prepare(folder: Path, work: Path, ready: Path, longest: int) -> None:
    """Make the cache; all of it appears at once. ``work`` holds what is done so far."""
    work.mkdir(exist_ok=True)
    shown, lines = read_shown(folder / SHOWN)
    raw_users, user = np.unique(shown.pop("user"), return_inverse=True)
    user, time = user.astype(np.int32), shown["time_stamp"]  # (n,) rows of raw_users; (n,) int64 seconds
    ads, report = read_ads(folder / ADS)
    lines += report
    profiles, report = read_profiles(folder / USERS, raw_users)
    lines += report
    windows, rows, report = read_log(folder / LOG, raw_users, user, time, longest, work)
    lines += report

    known, vocabularies = {}, {"user": len(raw_users) + 1}
    for field in ("cate", "brand"):  # the ad and the log name the same things
        known[field] = np.unique(np.concatenate([ads[field], *(np.load(p)[field] for p in ranges(work))]))
    for field in LAYOUT.item[:-1]:
        known[field] = known.get(field, np.unique(ads[field]))
        known[field] = known[field][known[field] >= 0]
        vocabularies[field] = len(known[field]) + 1
    items = np.column_stack([*(codes(ads[f], known[f]) for f in LAYOUT.item[:-1]), price_bins(ads["price"])])
    item = codes(shown["adgroup_id"], ads["adgroup"]) - 1
    if (item < 0).any():
        lines.append(
            f"{(item < 0).sum():,} impressions of {len(np.unique(shown['adgroup_id'][item < 0])):,} ads that {ADS} lacks: all fields unknown"
        )
        item[item < 0] = len(items)
        items = np.vstack([items, np.zeros((1, items.shape[1]), np.int32)])
    levels = {field: np.unique(column[column >= 0]) for field, column in profiles.items()}
    users = np.column_stack([np.arange(1, len(raw_users) + 1), *(codes(column, levels[f]) for f, column in profiles.items())])
    vocabularies |= {field: len(level) + 1 for field, level in levels.items()}
    vocabularies |= {"price": BINS + 1, "pid": len(shown["pids"]) + 1, "hour": 25, "weekday": 8, "btag": len(ACTIONS) + 1}
    day = (time + BEIJING) // DAY
    hour = (time + BEIJING) // 3600 % 24
    repeated = np.sort((user.astype(np.int64) * len(items) + item) * (DAYS * DAY) + time - time[0])
    if (count := (np.diff(repeated) == 0).sum()) > 0:
        lines.append(f"{count:,} impressions repeat another's user, ad and second; kept")
    fold = np.where(day == day[-1], TEST, np.where(day == day[-1] - 1, VALID, TRAIN))
    lines.append(f"{len(user):,} impressions, {shown['clk'].mean():.2%} clicked; " + ", ".join(f"{n:,}" for n in np.bincount(fold)) + " in the folds")

    whole = work / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir()
    parts = {"user": user, "item": item, "time": time.astype(np.float64), "click": shown["clk"], "windows": windows, "fold": fold.astype(np.int8)}
    parts |= {"context": np.column_stack([shown["pid"], hour + 1, (day + 3) % 7 + 1]).astype(np.int32)}  # 1 January 1970 was a Thursday
    parts |= {"users": users.astype(np.int32), "items": items.astype(np.int32)}
    for part, values in parts.items():
        np.save(whole / f"{part}.npy", values)
    with (whole / "behaviours.npy").open("wb") as flat:  # written, not mapped: 4 GB of the original
        about = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.int32)), "fortran_order": False, "shape": (rows, 3)}
        np.lib.format.write_array_header_1_0(flat, about)
        for path in ranges(work):
            raw = np.load(path)["behaviours"]
            flat.write(np.column_stack([codes(raw[:, 0], known["cate"]), codes(raw[:, 1], known["brand"]), raw[:, 2]]).tobytes())
    (whole / "about.json").write_text(json.dumps({"vocabularies": vocabularies, "report": lines}), encoding="utf-8")
    os.replace(whole, ready)
    shutil.rmtree(work, ignore_errors=True)


def room(folder: Path, work: Path) -> None:
    """Raises DataError where the disk can't hold what is made on the way: a row of the log takes 30 bytes or so, and 29 at most here."""
    there = next(p for p in work.parents if p.is_dir())
    done = sum(p.stat().st_size for p in work.glob("*")) if work.is_dir() else 0
    needed = int(1.2 * sum((folder / file).stat().st_size for file in FILES)) - done
    free = shutil.disk_usage(there).free
    if free < needed:
        raise DataError(
            f"{there}: {free / 1e9:,.1f} GB free; preparing {folder} may take {needed / 1e9:,.1f} GB; free some, or set XDG_CACHE_HOME"
            " to a folder on a larger disk"
        )


# -- tables -----------------------------------------------------------------------------------------------------------------------


def read_shown(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """The columns of the impressions in the order of time; ``pid`` as codes from 1 of ``pids``; and what is to be said of them."""
    names = header(path, FILES[SHOWN])
    table = pl.concat([read_piece(path, *ends, names, FILES[SHOWN]) for ends in watch(pieces(path), SHOWN)])
    time = table["time_stamp"].to_numpy()
    days = (time + BEIJING) // DAY
    if not 3 <= days.max() - days.min() + 1 <= DAYS:
        ends = [f"line {at + 2}: {pd.Timestamp(int(time[at]) + BEIJING, unit='s')}" for at in (time.argmin(), time.argmax())]
        raise DataError(
            f"{path}: time_stamp runs from {ends[0]} to {ends[1]} in Beijing, {days.max() - days.min() + 1:,} days; expected {DAYS} days"
            " (3 at least, for training, validation and test); correct these lines, or get the file again"
        )
    lines = [counted(SHOWN, len(table))]
    if late := int((np.diff(time) < 0).sum()):
        lines.append(f"{SHOWN}: sorted by time: {late:,} rows stood after a later one; rows of equal time keep the file's order")
    pids = table["pid"].unique().sort()
    table = table.with_columns(pl.col("pid").replace_strict(pids, range(1, len(pids) + 1), return_dtype=pl.Int32))
    table = table.drop("nonclk").sort("time_stamp", maintain_order=True)
    return {column: table[column].to_numpy() for column in table.columns} | {"pids": pids.to_numpy()}, lines


def read_ads(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """The item fields by ascending ad, int64 with -1 for a missing brand; ``price`` float64 with NaN where it is missing."""
    frame = read_table(path)
    columns = {field: cells(path, frame[name], field == "brand") for field, name in zip(LAYOUT.item[:-1], FILES[ADS][:-1], strict=True)}
    price = cells(path, frame["price"], True, whole=False)
    columns["price"] = np.where(price < 0, np.nan, price)
    once(path, frame["adgroup_id"], columns["adgroup"])
    order = np.argsort(columns["adgroup"])
    lines = [counted(ADS, len(frame))]
    if missing := int((columns["brand"] < 0).sum()):
        lines.append(f"{ADS}: {missing:,} ads without a brand: unknown")
    return {field: column[order] for field, column in columns.items()}, lines


def read_profiles(path: Path, users: np.ndarray) -> tuple[dict[str, np.ndarray], list[str]]:
    """(U,) int64 a profile field for each of ``users`` (ascending ids), -1 where it is missing."""
    frame = read_table(path)
    ids = cells(path, frame["userid"])
    once(path, frame["userid"], ids)
    row = codes(ids, users) - 1
    lines = [counted(USERS, len(frame))]
    fields = {}
    for field in PROFILE:
        column = cells(path, frame[field], True)
        fields[field] = np.full(len(users), -1)
        fields[field][row[row >= 0]] = column[row >= 0]
        if missing := int((column < 0).sum()):
            lines.append(f"{USERS}: {missing:,} rows without {field}: unknown")
    if surplus := int((row < 0).sum()):
        lines.append(f"{USERS}: {surplus:,} users who saw no ad; left out")
    lines.append(f"{len(users) - (row >= 0).sum():,} of {len(users):,} users have no profile: all 8 fields unknown")
    return fields, lines


def cells(path: Path, column: pd.Series, may_miss: bool = False, whole: bool = True) -> np.ndarray:
    """The numbers of a text column, -1 where a cell is empty or NULL."""
    missing = column.str.strip().isin(["", "NULL"]) if may_miss else pd.Series(False, column.index)
    values = np.full(len(column), -1.0)
    expected = ("a whole number" if whole else "a number") + " from 0 on" + (", or nothing" if may_miss else "")
    values[~missing] = numbers(path, column[~missing], expected, 0, 2**31 - 1, step=1 if whole else None)
    return values.astype(np.int64) if whole else values


def once(path: Path, column: pd.Series, ids: np.ndarray) -> None:
    require(path, column, ~pd.Series(ids).duplicated().to_numpy(), "each id once")


def counted(file: str, rows: int) -> str:
    return f"{file}: {rows:,} rows" + (", as published" if rows == PUBLISHED[file] else f"; the published file has {PUBLISHED[file]:,}")


def codes(values: np.ndarray, vocabulary: np.ndarray) -> np.ndarray:
    """int32: 1 + the place of each value in the ascending vocabulary, 0 where it has none."""
    if not len(vocabulary):
        return np.zeros(len(values), np.int32)
    at = np.minimum(np.searchsorted(vocabulary, values), len(vocabulary) - 1)
    return np.where(vocabulary[at] == values, at + 1, 0).astype(np.int32)


def price_bins(price: np.ndarray) -> np.ndarray:
    """int32: 1 to ``BINS``, each with about equally many ads, 0 where the price is missing. Their logarithms would have the same bins."""
    there = ~np.isnan(price)
    if not there.any():
        return np.zeros(len(price), np.int32)
    edges = np.quantile(price[there], np.arange(1, BINS) / BINS)
    return np.where(there, 1 + np.searchsorted(edges, price, side="right"), 0).astype(np.int32)


# -- the log ----------------------------------------------------------------------------------------------------------------------


def read_log(path: Path, users: np.ndarray, user: np.ndarray, time: np.ndarray, longest: int, work: Path) -> tuple[np.ndarray, int, list[str]]:
    """Sort the log and cut it to what the windows reach; its parts are left in ``work``, see ``ranges``.

    Args:
        users: (U,) ascending ids of those who saw an ad.
        user, time: (n,) rows of ``users`` and seconds of the impressions, in the order of time.

    Returns:
        (n, 2) windows, how many behaviours they reach, and what is to be said of it.
    """
    plan = work / "plan.npz"
    if not plan.exists():
        write_whole(plan, lambda temporary: save(temporary, **spread(path, users, np.bincount(user), work)))
    with np.load(plan) as kept:
        edges, rows, total = kept["edges"], kept["rows"], int(kept["total"])
    order = np.argsort(user, kind="stable")  # by user, then time
    bounds = np.searchsorted(user[order], edges)
    chunks = [chunk(work, ends) for ends in pieces(path)]
    paths = [work / f"range-{r:06d}.npz" for r in range(len(edges) - 1)]
    for r in watch([r for r, p in enumerate(paths) if not p.exists()], "behaviours before impressions"):
        mine = order[bounds[r] : bounds[r + 1]]
        write_whole(paths[r], lambda out, r=r, mine=mine: save(out, **one_range(chunks, edges[r : r + 2], user[mine], time[mine], time[0], longest)))
    for done in chunks:
        done.unlink(missing_ok=True)  # all is in the ranges now

    windows, reached, late, stray = np.empty((len(user), 2), np.int64), 0, 0, 0
    for r, part in enumerate(paths):
        with np.load(part) as done:
            windows[order[bounds[r] : bounds[r + 1]]] = done["windows"] + reached
            reached += len(done["behaviours"])
            late, stray = late + int(done["late"]), stray + int(done["stray"])
    bare = windows[:, 0] == windows[:, 1]
    never = np.ones(len(users), bool)
    never[user[~bare]] = False
    lines = [
        counted(LOG, total),
        f"{LOG}: {total - rows.sum():,} rows of users who saw no ad; left out",
        f"{LOG}: {stray:,} rows more than a month before the first impression or after the last day; left out" if stray else "",
        f"{LOG}: sorted by time: {late:,} rows stood after a later row of the same user" if late else "",
        f"{reached:,} behaviours stand in the windows, {np.diff(windows, axis=1).mean():.1f} before an impression on average",
        f"{bare.sum():,} impressions without any behaviour before them (bare)",
        f"{never.sum():,} users without any before any impression, of whom {(never & (rows > 0)).sum():,} have later ones",
    ]
    return windows, reached, [line for line in lines if line]


def spread(path: Path, users: np.ndarray, shown: np.ndarray, work: Path) -> dict[str, np.ndarray]:
    """Keep each piece of the log as Parquet, checked and sorted by user; then divide the users into ranges of about equal work."""
    names = header(path, FILES[LOG])
    rows, total = np.zeros(len(users), np.int64), 0
    for ends in watch(pieces(path), LOG):
        if not chunk(work, ends).exists():
            piece = read_piece(path, *ends, names, FILES[LOG])
            row = codes(piece["user"].to_numpy(), users) - 1
            kept = piece.with_columns(user=pl.Series(row), btag=pl.col("btag").replace_strict(ACTIONS, range(1, 5), return_dtype=pl.Int8))
            kept = kept.filter(pl.col("user") >= 0).sort("user", maintain_order=True)
            about = {"rows": str(len(piece))}
            write_whole(chunk(work, ends), lambda out, kept=kept, about=about: kept.write_parquet(out, row_group_size=1 << 17, metadata=about))
        total += int(pl.read_parquet_metadata(chunk(work, ends))["rows"])
        rows += np.bincount(pl.read_parquet(chunk(work, ends), columns=["user"])["user"].to_numpy(), minlength=len(users))
    load = rows + shown
    edges = np.flatnonzero(np.diff((load.cumsum() - load) // RANGE)) + 1
    return {"edges": np.concatenate([[0], edges, [len(users)]]), "rows": rows, "total": np.int64(total)}


def one_range(chunks: list[Path], edges: np.ndarray, user: np.ndarray, time: np.ndarray, first: int, longest: int) -> dict[str, np.ndarray]:
    """The behaviours that the windows of these users reach, user by user, oldest first, and the windows, counted from 0.

    Args:
        edges: first user, and the one behind the last.
        user, time: (k,) of all their impressions.
        first: second of the first impression of all.
    """
    inside = pl.col("user").is_between(int(edges[0]), int(edges[1]) - 1)
    log = pl.concat([pl.scan_parquet(path).filter(inside).collect() for path in chunks]).sort("user", maintain_order=True)
    late = ((pl.col("time_stamp").diff() < 0) & (pl.col("user").diff() == 0)).sum()
    counts = {"late": log.select(late).item(), "stray": len(log)}
    last_midnight = (first + BEIJING) // DAY * DAY - BEIJING + DAYS * DAY
    log = log.filter(pl.col("time_stamp").is_between(first - OLDEST, last_midnight - 1)).sort("user", "time_stamp", maintain_order=True)
    counts["stray"] -= len(log)
    windows = windows_before(user, time, log["user"].to_numpy(), log["time_stamp"].to_numpy(), longest)
    size = len(log) + 1
    reached = (np.bincount(windows[:, 0], minlength=size) - np.bincount(windows[:, 1], minlength=size)).cumsum()[:-1] > 0
    behaviours = log.select(pl.col("cate", "brand", "btag").cast(pl.Int32)).to_numpy()[reached]
    moved = np.concatenate([[0], reached.cumsum()])  # what a window covers is kept whole, so it stays in one piece
    distinct = {field: np.unique(behaviours[:, column]) for column, field in enumerate(("cate", "brand"))}
    return {"behaviours": behaviours, "windows": moved[windows], **distinct, **counts}


def chunk(work: Path, ends: tuple[int, int]) -> Path:
    """Where a piece of the log is kept."""
    return work / f"log-{ends[0]}-{ends[1]}.parquet"


def ranges(work: Path) -> list[Path]:
    """What ``one_range`` made, in the order of users."""
    return sorted(work.glob("range-*.npz"))


def save(path: Path, **arrays: np.ndarray) -> None:
    with path.open("wb") as out:  # given a path, NumPy would add an ending
        np.savez(out, **arrays)


# -- large CSV files, piece by piece ----------------------------------------------------------------------------------------------


def header(path: Path, columns: tuple[str, ...]) -> list[str]:
    """The names of the columns as they stand in the file, without blanks around them.

    Raises:
        DataError: missing, empty, a web page, no rows, a column is missing or named twice, or the last line is cut short.
    """
    with open_raw(path) as stream:
        start = stream.readline(1 << 16)
        refuse_html(path, start)
        row = stream.read(1)
        stream.seek(-1, os.SEEK_END)
        whole = stream.read(1) == b"\n"
        stream.seek(max(0, path.stat().st_size - 200))
        last = stream.read().decode("utf-8", "replace").split("\n")[-1]
    names = [name.strip() for name in start.decode("utf-8-sig", "replace").split(",")]
    if absent := [column for column in columns if column not in names]:
        raise DataError(f"{path}: line 1 names no column {', '.join(absent)}; it is {', '.join(names)[:200]!r}; expected {', '.join(columns)}")
    if any(names.count(column) > 1 for column in columns):
        raise DataError(f"{path}: line 1 names a column twice: {', '.join(names)[:200]}; expected each name once")
    if not row:
        raise DataError(f"{path}: line 1 has the names of the columns and nothing follows; {GET_AGAIN}")
    if not whole:
        raise DataError(
            f"{path}: the last line is {last[-80:]!r} without a line end, so the file was cut short; {GET_AGAIN}, or end that line if it is whole"
        )
    return names


def pieces(path: Path) -> list[tuple[int, int]]:
    """(begin, end) in bytes, about ``PIECE`` each, from line end to line end; the header is left out."""
    with path.open("rb") as stream:
        stream.readline()
        cuts, size = [stream.tell()], path.stat().st_size
        while cuts[-1] < size:
            stream.seek(min(cuts[-1] + PIECE, size) - 1)
            stream.readline()
            cuts.append(stream.tell())
    return list(itertools.pairwise(cuts))


def read_piece(path: Path, begin: int, end: int, names: list[str], columns: tuple[str, ...]) -> pl.DataFrame:
    """These columns of the lines between two bytes, checked against ``RULES``: numbers as int32 (times int64, labels int8), else text.

    Raises:
        DataError: the first line that has another number of columns or a bad value.
    """
    with path.open("rb") as stream:
        stream.seek(begin)
        data = stream.read(end - begin)
    kinds = {"time_stamp": pl.Int64, "clk": pl.Int8, "nonclk": pl.Int8, "pid": pl.String, "btag": pl.String}
    schema = {name: kinds.get(name, pl.Int32) if name in columns else pl.String for name in names}
    try:
        table = pl.read_csv(data, has_header=False, schema=schema, quote_char=None, ignore_errors=True, encoding="utf8-lossy").select(columns)
    except pl.exceptions.PolarsError:
        table = None  # the walk over the lines finds out why
    if table is None or len(table) != data.count(b"\n") or data.count(b",") != len(table) * (len(names) - 1):
        raise first_fault(path, begin, data, names)
    good = table.select(rule(column).fill_null(False) for column in columns)
    if not good.select(pl.all_horizontal(pl.all()).all()).item():
        at = good.select(pl.all_horizontal(pl.all()).not_().arg_true()).to_series()[0]
        raise first_fault(path, begin, data, names, at, next(c for c in RULES if c in columns and not good[c][at]))
    return table


def rule(column: str) -> pl.Expr:
    """Whether a value is what ``RULES`` says."""
    if column == "pid":
        return pl.col(column).str.len_bytes() > 0
    if column == "btag":
        return pl.col(column).is_in(ACTIONS)
    within = pl.col(column).is_between(*RULES[column][1:])
    return within & (pl.col("nonclk") + pl.col("clk") == 1) if column == "nonclk" else within


def first_fault(path: Path, begin: int, data: bytes, names: list[str], at: int | None = None, column: str = "") -> DataError:
    """Names line ``at`` of a piece and its bad column; or, without them, the first line that has another number of columns."""
    lines = [line.rstrip("\r") for line in data.decode("utf-8", "replace").split("\n")[:-1]]
    if at is None:
        at = next((i for i, line in enumerate(lines) if line.count(",") != len(names) - 1), 0)
    values = lines[at].split(",")
    where = f"{path}: line {lines_before(path, begin) + at + 1}"
    if len(values) != len(names):
        return DataError(f"{where} has {len(values)} columns: {lines[at][:80]!r}; expected {len(names)} ({', '.join(names)}); {GET_AGAIN}")
    value = values[names.index(column)] if column else lines[at]
    what = f"{column} is {value[:80]!r}; expected {RULES[column][0]}" if column else f"{value[:80]!r} can't be read; expected {', '.join(names)}"
    return DataError(f"{where}: {what}; the whole line is {lines[at][:80]!r}; correct it, or get the file again")


def lines_before(path: Path, begin: int) -> int:
    """How many lines end before this byte."""
    with path.open("rb") as stream:
        blocks: Iterator[bytes] = iter(lambda: stream.read(min(1 << 24, begin - stream.tell())), b"")
        return sum(block.count(b"\n") for block in blocks)


def watch(tasks: list, title: str) -> Iterator:
    """The tasks, with a bar for whoever watches."""
    return track(tasks, title, disable=not watched())


# -- the sample of PaddleRec ------------------------------------------------------------------------------------------------------


def load_sample(path: Path, name: str = "alimama-sample") -> ClickData:
    """Rows as DMR reads them, in the layout that PaddleRec documents: 267 numbers with commas between, no header.

    0–49 action, 50–99 category, 100–149 brand of the behaviours, oldest first; 150–199 their mask; 200–249 a mask of DMR's own loss
    (left out); 250–258 user; 259–264 item, the price as a float; 265 scenario; 266 click. 0 is an unknown gender, purchasing power,
    shopping depth, city tier or brand, and code 0 here; other ids are numbered anew, so that 500 rows need no tables of a million.
    There is no clock: ``time`` is the row, and the folds (7 : 1 : 2) follow the order of rows.

    Raises:
        DataError: a row has another number of columns or a value that is no number; a mask or label that is not 0 or 1.
    """
    frame = read_table(path, columns=[f"column {c}" for c in range(267)])
    table = np.column_stack([numbers(path, frame[c], "a number from 0 on", 0) for c in frame])  # (n, 267)
    for c in (*range(150, 200), 266):
        require(path, frame[f"column {c}"], np.isin(table[:, c], (0, 1)), "0 or 1")
    n, mask = len(table), table[:, 150:200] > 0
    past = np.stack([table[:, 50:100], table[:, 100:150], table[:, :50]], axis=2)[mask]  # (M, 3) cate, brand, action
    ends = mask.sum(1).cumsum()
    columns = dict(zip((*LAYOUT.user, *LAYOUT.item, "pid"), table[:, 250:266].T, strict=True))
    some_unknown = ("final_gender_code", "pvalue_level", "shopping_level", "new_user_class_level", "cate", "brand")
    known = {}
    for field in (*LAYOUT.user, *LAYOUT.item[:-1], "pid"):
        also = past[:, ("cate", "brand").index(field)] if field in ("cate", "brand") else ()
        known[field] = np.unique(np.concatenate([columns[field], also]))
        if field in some_unknown:
            known[field] = known[field][known[field] > 0]
    fields = {field: codes(columns[field], known[field]) for field in known}
    users, user = np.unique(np.column_stack([fields[f] for f in LAYOUT.user]), axis=0, return_inverse=True)
    _, shown, ad = np.unique(columns["adgroup"], return_index=True, return_inverse=True)
    fields["price"] = price_bins(columns["price"][shown])[ad]
    items, item = np.unique(np.column_stack([fields[f] for f in LAYOUT.item]), axis=0, return_inverse=True)
    time = np.arange(n, dtype=np.float64)
    actions = len(ACTIONS) + 1
    if past[:, 2].max(initial=0) >= actions:
        raise DataError(f"{path}: an action is {past[:, 2].max():g}; expected 1 to {len(ACTIONS)}")
    return ClickData(
        name,
        Layout(LAYOUT.user, ("pid",), LAYOUT.item, LAYOUT.behaviour),
        {field: len(values) + 1 for field, values in known.items()} | {"price": BINS + 1, "btag": actions},
        user.astype(np.int32),
        item.astype(np.int32),
        time,
        table[:, 266].astype(np.int8),
        fields["pid"][:, None],
        users,
        items,
        np.column_stack([codes(past[:, 0], known["cate"]), codes(past[:, 1], known["brand"]), past[:, 2].astype(np.int32)]),
        np.column_stack([ends - mask.sum(1), ends]).astype(np.int64),
        split_in_time(time, valid=0.125),
        np.zeros(len(users), bool),
        Report((f"{name}: {n:,} rows of {len(users):,} users with {len(items):,} ads, {table[:, 266].mean():.1%} clicked; no clock, order kept",)),
    )
