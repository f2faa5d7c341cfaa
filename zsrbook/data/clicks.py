"""The form that click data takes: impressions, the fields of users, contexts and items, and what each user did before.

MAIL (Feng et al. 2021, section 4.1) and the ranking towers read four groups of categorical fields an impression, and the behaviour of
its user up to that moment. Behaviours lie flat, user by user, oldest first, and an impression names a window of them, so that
hundreds of them before each of millions of impressions cost two numbers an impression.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from zsrbook.data.dataset import DataError, Report, check_codes

TRAIN, VALID, TEST = 0, 1, 2
#: the kinds of users that are judged apart
GROUPS = ("new", "old", "bare")


class Layout(NamedTuple):
    """Which vocabulary each field reads; fields that name the same one share their embeddings.

    A behaviour is one or more ids and an action (viewed, bought, rated 4 …), which stands last.
    """

    user: tuple[str, ...]
    context: tuple[str, ...]
    item: tuple[str, ...]
    behaviour: tuple[str, ...]


@dataclass(frozen=True)
class ClickData:
    """Impressions with all that a model may know of them. Every code is int32; code 0 of a vocabulary means unknown.

    Shapes: n impressions, U users, I items, M behaviours.

    Attributes:
        name: short, fit for a path, such as ``ml-1m-stars``.
        layout: the fields of the four groups.
        vocabularies: name -> number of codes, the unknown one included.
        user, item: (n,) rows of ``users`` and ``items``.
        time: (n,) float64 seconds; impressions stand in the order of time.
        click: (n,) int8, 0 or 1.
        context: (n, fields) codes.
        users: (U, fields) codes; the first field is the user's id.
        items: (I, fields) codes.
        behaviours: (M, fields) codes.
        windows: (n, 2) int64: behaviours ``begin`` to ``end`` stand before the impression, strictly earlier, and are the newest of its user.
        fold: (n,) int8: ``TRAIN``, ``VALID`` or ``TEST``.
        new: (U,) bool: users whose behaviours are hidden, as if they had just come.
        report: what was kept, repaired and dropped on the way here.

    Raises:
        DataError: the parts do not fit together, a code is none of its table or vocabulary, a window reaches out of the behaviours, impressions
            are not in the order of time, or a label is neither 0 nor 1.
    """

    name: str
    layout: Layout
    vocabularies: Mapping[str, int]
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    click: np.ndarray
    context: np.ndarray
    users: np.ndarray
    items: np.ndarray
    behaviours: np.ndarray
    windows: np.ndarray
    fold: np.ndarray
    new: np.ndarray
    report: Report = field(default=Report(), repr=False)

    def __post_init__(self) -> None:
        n = len(self.user)
        for what in ("item", "time", "click", "context", "windows", "fold"):
            if len(getattr(self, what)) != n:
                raise DataError(f"{self.name}: {len(getattr(self, what))} values of {what} for {n} impressions; expected one an impression")
        if len(self.new) != len(self.users):
            raise DataError(f"{self.name}: {len(self.new)} flags of new users for {len(self.users)} users; expected one a user")
        for group, codes in (("user", self.users), ("context", self.context), ("item", self.items), ("behaviour", self.behaviours)):
            fields = getattr(self.layout, group)
            if codes.ndim != 2 or codes.shape[1] != len(fields):
                raise DataError(f"{self.name}: {group} codes of shape {codes.shape}; expected a column for each of {', '.join(fields) or 'no field'}")
            for column, name in zip(codes.T, fields, strict=True):
                if name not in self.vocabularies:
                    raise DataError(f"{self.name}: the {group} field {name} has no vocabulary; there are {', '.join(self.vocabularies)}")
                check_codes(f"{self.name}: {group} fields", name, column, self.vocabularies[name])
        for what, codes, table in (("user", self.user, self.users), ("item", self.item, self.items)):
            check_codes(f"{self.name}: impressions", what, codes, len(table))
        (begin, end), there = self.windows.T, len(self.behaviours)
        if (wrong := (begin < 0) | (begin > end) | (end > there)).any():
            at = wrong.argmax()
            raise DataError(f"{self.name}: impression {at} has the window {begin[at]} to {end[at]} of {there} behaviours; expected one within")
        if not (self.time[:-1] <= self.time[1:]).all():
            raise DataError(f"{self.name}: impressions do not stand in the order of time; sort them, and their windows with them")
        if not np.isin(self.click, (0, 1)).all():
            raise DataError(f"{self.name}: a label is {self.click[~np.isin(self.click, (0, 1))][0]}; expected 0 or 1")

    def __len__(self) -> int:
        return len(self.user)

    def windows_seen(self, rows: np.ndarray) -> np.ndarray:
        """(r, 2) the windows that a model may look at: those of new users are empty."""
        windows = self.windows[rows]
        return np.where(self.new[self.user[rows]][:, None], windows[:, :1], windows)

    @cached_property
    def longest(self) -> int:
        """Behaviours before any impression, at most."""
        return int(np.diff(self.windows, axis=1).max(initial=1))

    @cached_property
    def group(self) -> np.ndarray:
        """(n,) int8 index in ``GROUPS``: declared new; old; or bare: has no behaviour by nature, so belongs to neither."""
        bare = self.windows[:, 0] == self.windows[:, 1]
        return np.where(self.new[self.user], 0, np.where(bare, 2, 1)).astype(np.int8)

    def rows(self, fold: int, group: str | None = None) -> np.ndarray:
        """The impressions of a fold, of one kind of users if asked."""
        chosen = self.fold == fold
        return np.flatnonzero(chosen if group is None else chosen & (self.group == GROUPS.index(group)))

    def made_new(self, share: float = 0.4, seed: int = 0) -> ClickData:
        """The same data with this share of all users declared new (section 4.1 of MAIL), drawn at random; all methods share the draw."""
        chosen = np.zeros(len(self.users), bool)
        chosen[np.random.default_rng(seed).permutation(len(chosen))[: int(share * len(chosen))]] = True
        return replace(self, new=chosen, report=self.report + f"{self.name}: {chosen.sum():,} of {len(chosen):,} users declared new (seed {seed})")

    def strict(self) -> ClickData:
        """Cold start taken at its word: nothing of new users before the test, neither their impressions nor their ids.

        The paper keeps both, so that a new user's id is trained on clicks before it is met in the test.
        """
        users = self.users.copy()
        users[self.new, 0] = 0
        gone = self.new[self.user] & (self.fold != TEST)
        note = f"{self.name}: strict: {gone.sum():,} impressions of new users before the test removed, and their ids"
        return replace(self.subset(~gone), users=users, report=self.report + note)

    def subset(self, keep: np.ndarray) -> ClickData:
        """The impressions that the mask keeps."""
        parts = {what: getattr(self, what)[keep] for what in ("user", "item", "time", "click", "context", "windows", "fold")}
        return replace(self, **parts)

    @cached_property
    def sha256(self) -> str:
        """A hash of all that a model reads; equal data gives an equal hash on every machine."""
        digest = hashlib.sha256(repr((self.layout, sorted(self.vocabularies.items()))).encode())
        for part in (self.user, self.item, self.time, self.click, self.context, self.users, self.items, self.windows, self.fold, self.new):
            digest.update(np.ascontiguousarray(part).data)
        digest.update(np.ascontiguousarray(self.behaviours).data)
        return digest.hexdigest()


def windows_before(user: np.ndarray, time: np.ndarray, owner: np.ndarray, moment: np.ndarray, longest: int) -> np.ndarray:
    """(n, 2) for each impression the newest ``longest`` behaviours of its user that are strictly earlier.

    Args:
        user, time: (n,) of the impressions.
        owner, moment: (M,) user and time of the behaviours, sorted by user, then time.
    """
    begin = np.searchsorted(owner, user, side="left")
    moments, codes = np.unique(np.concatenate([moment, time]), return_inverse=True)  # ranks, so that user and time make one sortable number
    scale = np.int64(len(moments))
    end = np.searchsorted(owner.astype(np.int64) * scale + codes[: len(moment)], user.astype(np.int64) * scale + codes[len(moment) :], side="left")
    return np.stack([np.maximum(begin, end - longest), end], axis=1).astype(np.int64)


def split_in_time(time: np.ndarray, valid: float = 0.1, test: float = 0.2) -> np.ndarray:
    """(n,) int8 folds: the newest share is the test, and of the rest the newest share is for validation."""
    end = np.quantile(time, 1 - test, method="lower")
    begin = np.quantile(time[time <= end], 1 - valid, method="lower")
    return np.where(time > end, TEST, np.where(time > begin, VALID, TRAIN)).astype(np.int8)
