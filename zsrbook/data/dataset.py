"""The one form that all data takes: interactions, items, users, and what the loader did to them.

Interactions are integer-coded and sorted by user, then time, then their order in the source file, so that ties in time
are broken the same way on every machine. Models see codes only; raw ids live in the ``items`` and ``users`` tables.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd


class Columns:
    """Every column name of the common form."""

    USER = "user"  #: int32 code, 0 … users-1: the row in the users table
    ITEM = "item"  #: int32 code, 0 … items-1: the row in the items table
    TIME = "time"  #: float64, seconds since 1970, or the position in the user's history where the source has no clock
    VALUE = "value"  #: float32: stars, or 1 where the source has none
    RAW = "raw"  #: str: the id in the source, in the items and users tables
    TEXT = "text"  #: str: what the item says of itself; "" where the source says nothing


class DataError(ValueError):
    """Bad input, said so that a person can act: which file, which row or column, what was seen, what was expected."""


def check_codes(where: str, what: str, codes: np.ndarray, size: int | None) -> None:
    """Stop where a code is none of 0 … size - 1: below 0 NumPy would count from the end and take another one in silence.

    Args:
        where, what: for the error, such as ``cacm: log`` and ``item``.
        size: None where it is not known yet, so that any code from 0 on will do.

    Raises:
        DataError: the first such code and its place.
    """
    if len(codes) and (codes.min() < 0 or (size is not None and codes.max() >= size)):
        at = int(np.flatnonzero((codes < 0) | (False if size is None else codes >= size))[0])
        hint = "; -1 is what get_indexer gives for an unknown id, leave those out" if codes[at] == -1 else ""
        expected = "0 or more" if size is None else f"0 to {size - 1}"
        raise DataError(f"{where}: {what} code {codes[at]} at place {at}; expected {expected}{hint}")


def counted(n: int, what: str) -> str:
    """How many, in words; ``{s}`` is where the plural goes.

    >>> counted(1, "user{s} without any"), counted(2000, "user{s} without any")
    ('1 user without any', '2,000 users without any')
    """
    return f"{n:,} {what.format(s='s' * (n != 1))}"


@dataclass(frozen=True)
class Report:
    """What a loader or a split kept, repaired and dropped: one line an act, with counts."""

    lines: tuple[str, ...] = ()

    def __add__(self, other: Report | str) -> Report:
        return Report(self.lines + (other.lines if isinstance(other, Report) else (other,)))

    def __str__(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True)
class Sequences:
    """Histories as one flat array: user row ``r`` holds ``items[starts[r]:starts[r + 1]]``, oldest first.

    Shapes: ``items`` (N,) int32; ``starts`` (U + 1,) int64; ``users`` (U,) int32 codes; ``times`` (N,) float64 seconds or
    None where the source has no clock; ``now`` (U,) float64 seconds, when each user's next item is asked for, or None where
    that is not known. A model that follows the clock (popularity of late, PrepRec) reads ``now``; the others have no use for it.
    """

    items: np.ndarray
    starts: np.ndarray
    users: np.ndarray
    times: np.ndarray | None = None
    now: np.ndarray | None = None

    @classmethod
    def of(cls, histories: Iterable[Sequence[int]]) -> Sequences:
        """From plain lists of item codes; users are numbered from 0.

        >>> Sequences.of([[3, 1], []]).lengths
        array([2, 0])

        Raises:
            DataError: a code is below 0; a model knows how many items there are, and checks the other end.
        """
        rows = [np.asarray(h, dtype=np.int32) for h in histories]
        for row, codes in enumerate(rows):
            check_codes(f"history {row}", "item", codes, None)
        starts = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
        items = np.concatenate(rows).astype(np.int32) if rows else np.zeros(0, np.int32)
        return cls(items, starts, np.arange(len(rows), dtype=np.int32))

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)

    @property
    def rows(self) -> np.ndarray:
        """(N,) the user row of each interaction."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def positions(self) -> np.ndarray:
        """(N,) how many items stand before each interaction in its own history."""
        return np.arange(len(self.items)) - np.repeat(self.starts[:-1], self.lengths)

    def moments(self, end: float) -> np.ndarray:
        """(U,) when each user's next item is asked for: ``now``, else the time of the newest item, else (no clock, no item) ``end``."""
        if self.now is not None:
            return self.now
        moments = np.full(len(self), end)
        if self.times is not None:
            some = self.lengths > 0
            moments[some] = self.times[self.starts[1:][some] - 1]
        return moments

    def take(self, rows: np.ndarray) -> Sequences:
        """These user rows, in this order."""
        return replace(self.ranges(rows, self.starts[:-1][rows], self.starts[1:][rows]), now=None if self.now is None else self.now[rows])

    def prefixes(self, at: np.ndarray) -> Sequences:
        """For each flat index in ``at``, the history that stands before that interaction; ``now`` is when that one happened."""
        rows = np.searchsorted(self.starts, at, side="right") - 1
        return replace(self.ranges(rows, self.starts[rows], at), now=None if self.times is None else self.times[at])

    def last(self, n: int) -> Sequences:
        """The newest ``n`` items of each history."""
        return replace(self.ranges(np.arange(len(self)), np.maximum(self.starts[:-1], self.starts[1:] - n), self.starts[1:]), now=self.now)

    def ranges(self, rows: np.ndarray, begin: np.ndarray, end: np.ndarray) -> Sequences:
        """One history ``items[begin[i]:end[i]]`` for each row."""
        lengths = end - begin
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        flat = np.arange(starts[-1]) + np.repeat(begin - starts[:-1], lengths)
        return Sequences(self.items[flat], starts, self.users[rows], None if self.times is None else self.times[flat])


@dataclass(frozen=True)
class Dataset:
    """Interactions with the items and users that they name.

    Attributes:
        name: short, lower case, fit for a path, such as ``ml-1m``.
        interactions: columns ``user``, ``item``, ``time``, ``value``, sorted by user, then time, then source order.
        items: row = item code; at least ``raw`` and ``text``; further fields as the source has them.
        users: row = user code; at least ``raw``; further attributes as the source has them.
        clock: whether ``time`` is in real seconds (else it is the position in the history).
        features: (items, d) float32 item vectors, or None; what content models read.
        report: what was kept, repaired and dropped on the way here.

    Raises:
        DataError: an interaction has the code of no user or of no item.
    """

    name: str
    interactions: pd.DataFrame
    items: pd.DataFrame
    users: pd.DataFrame
    clock: bool = True
    features: np.ndarray | None = None
    report: Report = field(default=Report(), repr=False)

    def __post_init__(self) -> None:
        for column, table in ((Columns.USER, self.users), (Columns.ITEM, self.items)):
            check_codes(f"{self.name}: interactions", column, self.interactions[column].to_numpy(), len(table))

    @classmethod
    def from_raw(
        cls,
        name: str,
        interactions: pd.DataFrame,
        items: pd.DataFrame,
        users: pd.DataFrame | None = None,
        clock: bool = True,
        report: Report = Report(),
    ) -> Dataset:
        """Code raw ids and sort. ``interactions`` has raw ids in ``user`` and ``item``, in the order of the source file.

        Items are numbered in the order of the ``items`` table (all of them, also those that nobody took); users in the
        order of ``users``, or of first appearance where there is no such table.

        Raises:
            DataError: an interaction names an unknown item or user or has no time, a raw id stands twice in a table, or nothing is left.
        """
        if interactions.empty:
            raise DataError(f"{name}: no interactions; nothing to load")
        if users is None:
            users = pd.DataFrame({Columns.RAW: pd.unique(interactions[Columns.USER].astype(str))})
        tables = {Columns.ITEM: items, Columns.USER: users}
        codes = {}
        for column, table in tables.items():
            raw = table[Columns.RAW].astype(str)
            twice = raw[raw.duplicated()]
            if len(twice):
                raise DataError(
                    f"{name}: {column} id {twice.iloc[0]!r} stands {(raw == twice.iloc[0]).sum()} times in the {column} table; expected once"
                )
            found = pd.Index(raw).get_indexer(interactions[column].astype(str))
            if (found < 0).any():
                row = int(np.flatnonzero(found < 0)[0])
                raise DataError(
                    f"{name}: interaction row {row} names {column} {interactions[column].iloc[row]!r}, which the {column} table"
                    f" does not hold ({int((found < 0).sum())} such rows); add it there or drop those rows"
                )
            codes[column] = found.astype(np.int32)
        time = interactions[Columns.TIME].to_numpy(np.float64) if clock else np.arange(len(interactions), dtype=np.float64)
        if not np.isfinite(time).all():
            row = int(np.flatnonzero(~np.isfinite(time))[0])
            raise DataError(f"{name}: interaction row {row} has no time ({time[row]}); expected seconds since 1970, or clock=False for all rows")
        order = np.lexsort((np.arange(len(time)), time, codes[Columns.USER]))
        value = interactions[Columns.VALUE] if Columns.VALUE in interactions else pd.Series(np.ones(len(interactions)))
        coded = pd.DataFrame(
            {
                Columns.USER: codes[Columns.USER][order],
                Columns.ITEM: codes[Columns.ITEM][order],
                Columns.TIME: time[order],
                Columns.VALUE: value.to_numpy(np.float32)[order],
            }
        )
        data = cls(name, coded, items.reset_index(drop=True), users.reset_index(drop=True), clock, None, report)
        if not clock:
            coded[Columns.TIME] = data.sequences().positions.astype(np.float64)
        return data

    @property
    def n_items(self) -> int:
        return len(self.items)

    @property
    def n_users(self) -> int:
        """Users with at least one interaction here (a split keeps the whole users table)."""
        return self.interactions[Columns.USER].nunique()

    def __len__(self) -> int:
        return len(self.interactions)

    def sequences(self) -> Sequences:
        """The histories of all users who have one, in the order of their codes."""
        user = self.interactions[Columns.USER].to_numpy()
        users, starts = np.unique(user, return_index=True)
        # copies, since pandas hands out read-only views and torch wants to own what it wraps
        items = np.array(self.interactions[Columns.ITEM], np.int32)
        times = np.array(self.interactions[Columns.TIME]) if self.clock else None
        return Sequences(items, np.append(starts, len(user)).astype(np.int64), users.astype(np.int32), times)

    def where(self, keep: np.ndarray, note: str = "") -> Dataset:
        """The interactions that the mask keeps; items, users and their codes stay as they are."""
        return replace(self, interactions=self.interactions[keep].reset_index(drop=True), report=self.report + note if note else self.report)

    def with_features(self, features: np.ndarray) -> Dataset:
        """The same data with these item vectors, one row an item.

        Raises:
            DataError: another number of rows than items, or a value that is not finite.
        """
        if len(features) != self.n_items:
            raise DataError(f"{self.name}: {len(features)} item vectors for {self.n_items} items; expected one an item")
        if not np.isfinite(features).all():
            row = int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
            raise DataError(f"{self.name}: the vector of item {row} ({self.items[Columns.RAW][row]!r}) holds NaN or infinity")
        return replace(self, features=np.asarray(features, np.float32))

    def with_shuffled_features(self, seed: int) -> Dataset:
        """The leak control: every item gets the vector of a random other item of the same catalogue.

        Raises:
            DataError: there are no vectors.
        """
        if self.features is None:
            raise DataError(f"{self.name}: there are no item vectors to shuffle; call with_features first")
        order = np.random.default_rng(seed).permutation(self.n_items)
        shuffled = np.empty_like(self.features)
        shuffled[order] = self.features[np.roll(order, 1)]  # one cycle through all items, so none keeps its own vector
        return replace(self, features=shuffled)

    def sha256(self) -> str:
        """A hash of the interactions and of the texts of the items; equal data gives an equal hash on every machine."""
        digest = hashlib.sha256()
        for column, kind in ((Columns.USER, "<i4"), (Columns.ITEM, "<i4"), (Columns.TIME, "<f8"), (Columns.VALUE, "<f4")):
            digest.update(self.interactions[column].to_numpy().astype(kind).tobytes())
        digest.update(json.dumps([self.items[column].astype(str).tolist() for column in (Columns.RAW, Columns.TEXT)]).encode())
        return digest.hexdigest()
