"""Filters and splits. Each says what it dropped; none drops cold users or items silently, since they are the point here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from zsrbook.data.clicks import TEST, TRAIN, VALID, split_in_time
from zsrbook.data.dataset import Columns, DataError, Dataset, Report, Sequences


@dataclass(frozen=True)
class Fold:
    """Histories together with the interactions in them that are to be predicted.

    ``targets`` (N,) bool, one an interaction of ``data``: the model sees what stands before a target in the same history.
    """

    data: Dataset
    targets: np.ndarray

    @cached_property  # early stopping asks for them every epoch
    def sequences(self) -> Sequences:
        return self.data.sequences()

    def sha256(self) -> str:
        """A hash of the histories and of what is to be predicted in them."""
        return _sha256((self.data, self.targets))


@dataclass(frozen=True)
class Split:
    """Train, validation and test. ``sha256`` names this exact split in a run record."""

    train: Dataset
    valid: Fold
    test: Fold
    report: Report

    @cached_property  # every record asks for it
    def sha256(self) -> str:
        return _sha256((self.train, None), (self.valid.data, self.valid.targets), (self.test.data, self.test.targets))


def _sha256(*parts: tuple[Dataset, np.ndarray | None]) -> str:
    """A hash of data and of the targets in them."""
    digest = hashlib.sha256()
    for data, targets in parts:
        digest.update(data.sha256().encode())
        digest.update(b"" if targets is None else np.packbits(targets).tobytes())
    return digest.hexdigest()


def split_by_user(data: Dataset, test: float = 0.2, valid: float = 0.1, seed: int = 0, first: int = 2) -> Split:
    """Whole users to test and train (ZESRec, section 4.1); a share of the training users is set apart for validation.

    Args:
        test: share of all users; 0 for a source, on which nobody is judged.
        valid: share of the remaining users.
        first: the earliest position that is a target, counted from 1; 2 asks for at least one item of history.

    Raises:
        DataError: there are too few users for these shares.
    """
    users = data.sequences().users
    order = np.random.default_rng(seed).permutation(len(users))
    n_test = round(test * len(users))
    n_valid = round(valid * (len(users) - n_test))
    if (test and not n_test) or len(users) - n_test - n_valid == 0:
        sizes = ((n, round(test * n)) for n in range(len(users) + 1, 1_000))
        enough = (f"{n} or more" for n, tested in sizes if (tested or not test) and n - tested - round(valid * (n - tested)) > 0)
        raise DataError(
            f"{data.name}: {len(users)} users are too few for a split with shares test={test}, valid={valid};"
            f" expected {next(enough, 'shares that leave some to train')}"
        )
    parts = np.split(users[order], [n_test, n_test + n_valid])
    column = data.interactions[Columns.USER].to_numpy()
    datasets = [data.where(np.isin(column, part)) for part in parts]
    folds = [Fold(d, d.sequences().positions >= first - 1) for d in datasets[:2]]
    report = Report((f"{data.name}: split by user (seed {seed}): {len(parts[2])} train, {n_valid} validation, {n_test} test users",))
    return Split(datasets[2], folds[1], folds[0], report)


def split_by_time(data: Dataset, test: float = 0.2, valid: float = 0.1) -> Split:
    """Train before a cut in time, validate up to a second cut, test after it; histories reach back across the cuts.

    Raises:
        DataError: the data has no clock, or no interaction is newer than the cut.
    """
    if not data.clock:
        raise DataError(f"{data.name}: has no time stamps, so it can't be split by time; split by user or leave one out")
    fold = split_in_time(data.interactions[Columns.TIME].to_numpy(), valid, test)
    if not (fold == TEST).any():
        raise DataError(f"{data.name}: the newest {test:.0%} of the interactions share one time stamp, so none is left to test on; split by user")
    train, seen = data.where(fold == TRAIN), data.where(fold != TEST)
    folds = [Fold(seen, fold[fold != TEST] == VALID), Fold(data, fold == TEST)]
    lines = (f"{data.name}: split by time: {len(train)} train, {folds[0].targets.sum()} validation, {folds[1].targets.sum()} test interactions",)
    return Split(train, folds[0], folds[1], Report(lines))


def split_leave_one_out(data: Dataset) -> Split:
    """The newest item of each user is the test target, the one before it the validation target, the rest trains."""
    sequences = data.sequences()
    left = np.repeat(sequences.lengths, sequences.lengths) - sequences.positions  # 1 at the newest
    train, seen = data.where(left > 2), data.where(left > 1)
    valid_targets = (left == 2)[left > 1] & (seen.sequences().positions > 0)
    test_targets = (left == 1) & (sequences.positions > 0)
    short = int((sequences.lengths < 3).sum())
    lines = (f"{data.name}: leave one out: {test_targets.sum()} test targets; {short} users with fewer than 3 interactions do not train",)
    return Split(train, Fold(seen, valid_targets), Fold(data, test_targets), Report(lines))


def at_least(data: Dataset, user: int = 1, item: int = 1, repeat: bool = True) -> Dataset:
    """Keep users and items with this many interactions, again and again until nothing changes (k-core), or once.

    The catalogue stays whole: an item without interactions can still be recommended. See ``compact`` to cut it.

    Raises:
        DataError: nothing is left.
    """
    kept = data
    while True:
        counts = [kept.interactions[c].map(kept.interactions[c].value_counts()) for c in (Columns.USER, Columns.ITEM)]
        keep = (counts[0].to_numpy() >= user) & (counts[1].to_numpy() >= item)
        if keep.all():
            break
        kept = kept.where(keep)
        if not repeat or not len(kept):
            break
    if not len(kept):
        most = [data.interactions[c].value_counts().max() if len(data) else 0 for c in (Columns.USER, Columns.ITEM)]
        raise DataError(
            f"{data.name}: nothing is left with at least {user} interactions a user and {item} an item:"
            f" no user here has more than {most[0]}, and no item more than {most[1]}"
        )
    counts = f"{len(kept)} of {len(data)} interactions, {kept.n_users} of {data.n_users} users"
    return replace(kept, report=kept.report + f"{data.name}: at least {user} a user and {item} an item: kept {counts}")


def compact(data: Dataset) -> Dataset:
    """Cut the catalogue and the users table down to those that have interactions, and code them anew."""
    taken = np.unique(data.interactions[Columns.ITEM])
    users = np.unique(data.interactions[Columns.USER])
    return select_items(data, taken, f"{data.name}: catalogue cut to the {len(taken)} of {data.n_items} items with interactions", users)


def select_items(data: Dataset, items: np.ndarray, note: str, users: np.ndarray | None = None) -> Dataset:
    """Only these items (codes, sorted), coded anew in that order; interactions with other items are dropped."""
    code = np.full(data.n_items, -1, np.int32)
    code[items] = np.arange(len(items), dtype=np.int32)
    kept = data.where(code[data.interactions[Columns.ITEM]] >= 0, note)
    frame = kept.interactions.assign(**{Columns.ITEM: code[kept.interactions[Columns.ITEM]]})
    table = data.users
    if users is not None:
        user_code = np.full(len(table), -1, np.int32)
        user_code[users] = np.arange(len(users), dtype=np.int32)
        frame[Columns.USER] = user_code[frame[Columns.USER]]
        table = table.iloc[users].reset_index(drop=True)
    features = None if data.features is None else data.features[items]
    return Dataset(data.name, frame, data.items.iloc[items].reset_index(drop=True), table, data.clock, features, kept.report)


def two_shops(data: Dataset, groups: np.ndarray | None = None, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Cut one data set into two that share no user and no item: a rehearsal of zero-shot transfer within the source.

    Half of the users keep what they did with about half of the catalogue, the others what they did with the rest.

    Args:
        groups: (I,) a number an item; items of one group stay together. None: each item for itself.

    Raises:
        DataError: there are fewer than two groups, or a side keeps no user with two interactions.
    """
    names, group = np.unique(np.arange(data.n_items) if groups is None else groups, return_inverse=True)
    if len(names) < 2:
        raise DataError(f"{data.name}: {len(names)} group of items can't be cut in two; give at least two groups")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(names))
    weight = np.bincount(group[data.interactions[Columns.ITEM]], minlength=len(names))[order].cumsum()
    cut = np.clip(np.searchsorted(weight, weight[-1] / 2) + 1, 1, len(names) - 1)
    users = rng.permutation(data.sequences().users)
    shops = []
    for chosen, people in ((order[:cut], users[: len(users) // 2]), (order[cut:], users[len(users) // 2 :])):
        kept = data.where(np.isin(data.interactions[Columns.USER], people))
        codes = np.flatnonzero(np.isin(group, chosen))
        kept = select_items(kept, codes, f"{data.name}: {len(codes)} of {data.n_items} items, {len(people)} of {len(users)} users (seed {seed})")
        shops.append(compact(at_least(kept, user=2, repeat=False)))
    return shops[0], shops[1]


def shuffle_ties(data: Dataset, seed: int = 0) -> Dataset:
    """Put interactions of one user at the same time in random order.

    Elsewhere the order of the source file breaks such ties, and a file may have been written in an order that says something
    about the items.
    """
    frame = data.interactions
    user, time = frame[Columns.USER].to_numpy(), frame[Columns.TIME].to_numpy()
    order = np.lexsort((np.random.default_rng(seed).permutation(len(frame)), time, user))
    tied = (user[1:] == user[:-1]) & (time[1:] == time[:-1])
    note = f"{data.name}: {tied.sum()} of {len(frame)} interactions share their time with the one before; such ties are in random order (seed {seed})"
    return replace(data, interactions=frame.iloc[order].reset_index(drop=True), report=data.report + note)


def thinned(data: Dataset, users: float = 1.0, items: float = 1.0, seed: int = 0) -> Dataset:
    """Keep random users and random items, each with this share, and what remains of the histories where that is two interactions or more.

    Raises:
        DataError: nothing is left.
    """
    rng = np.random.default_rng(seed)
    kept = []
    for column, share in ((Columns.USER, users), (Columns.ITEM, items)):
        there = np.unique(data.interactions[column])  # a part of a split has but some of the codes
        kept.append(np.isin(data.interactions[column], rng.permutation(there)[: round(share * len(there))]))
    note = f"{data.name}: {users:.0%} of the users and {items:.0%} of the items, at random (seed {seed})"
    return compact(at_least(data.where(kept[0] & kept[1], note), user=2, repeat=False))


def without_repeats(data: Dataset) -> Dataset:
    """Keep the first time that a user takes an item (the later version of the ZESRec paper judges on such data)."""
    keep = ~data.interactions.duplicated([Columns.USER, Columns.ITEM]).to_numpy()
    return data.where(keep, f"{data.name}: dropped {int((~keep).sum())} repeated interactions of {len(data)}")


def subset_of_users(data: Dataset, interactions: int, seed: int) -> Dataset:
    """Random users with their whole histories until at least this many interactions are reached (ZESRec, Figures 2 and 3).

    Raises:
        DataError: the data holds fewer.
    """
    if interactions > len(data):
        raise DataError(f"{data.name}: asked for {interactions} interactions, but there are {len(data)}")
    sequences = data.sequences()
    order = np.random.default_rng(seed).permutation(len(sequences))
    enough = int(np.searchsorted(np.cumsum(sequences.lengths[order]), interactions)) + 1
    chosen = sequences.users[order[:enough]]
    kept = int(sequences.lengths[order[:enough]].sum())
    note = f"{data.name}: {enough} random users with {kept} interactions, the first to reach {interactions} (seed {seed})"
    return data.where(np.isin(data.interactions[Columns.USER], chosen), note)
