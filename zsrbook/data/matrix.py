"""The form of data that Wang et al. (2023) read: a binary matrix of users and items, and nothing else, not even the order of events.

A matrix is a ``csr_array`` of float32 ones, one row a user, indices sorted; an entry says that this user took that item at least once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.sparse import csr_array

from zsrbook.data.dataset import Columns, DataError, Dataset, Report, check_codes
from zsrbook.data.splits import at_least, compact, without_repeats


def matrix_of(
    rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int], where: str = "pairs", what: tuple[str, str] = ("user", "item")
) -> csr_array:
    """(U, I) a one for each pair that is named, however often.

    Args:
        where, what: for the error, what is read, and what rows and columns stand for.

    >>> matrix_of(np.array([0, 0, 1]), np.array([2, 2, 0]), (2, 3)).toarray().tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]

    Raises:
        DataError: a code lies outside the shape.
    """
    for axis, codes in enumerate((rows, columns)):
        check_codes(where, what[axis], codes, shape[axis])
    matrix = csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def taken(data: Dataset) -> csr_array:
    """(users in the table, items) who took what; values, times and repeats play no part."""
    frame = data.interactions
    return matrix_of(frame[Columns.USER].to_numpy(), frame[Columns.ITEM].to_numpy(), (len(data.users), data.n_items))


def rows_of(matrix: csr_array) -> np.ndarray:
    """(N,) the user of each entry, in the order of ``matrix.indices``."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def binary(data: Dataset, core: int | None = 5) -> Dataset:
    """The data as the paper reads it: any rating is a one, repeats are merged, and users and items with fewer than ``core`` ones are dropped,
    again and again until none is left (k-core); None keeps all that have an interaction.

    Raises:
        DataError: nothing is left.
    """
    return compact(without_repeats(data) if core is None else at_least(without_repeats(data), core, core))


@dataclass(frozen=True)
class MatrixSplit:
    """The ones of a matrix, each in one of three parts; ``sha256`` names this exact split in a run record.

    Attributes:
        name: of the data.
        train, valid, test: (U, I) disjoint matrices.
        report: what the split did.
    """

    name: str
    train: csr_array
    valid: csr_array
    test: csr_array
    report: Report

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256(repr(self.train.shape).encode())
        for part in (self.train, self.valid, self.test):
            digest.update(part.indptr.astype("<i8").tobytes() + part.indices.astype("<i4").tobytes())
        return digest.hexdigest()

    @cached_property
    def known(self) -> csr_array:
        """(U, I) train and validation: what no test ranks again."""
        return (self.train + self.valid).astype(np.float32)


def split_matrix(data: Dataset, valid: float = 0.1, test: float = 0.1, seed: int = 0, rounding: Literal["chance", "down"] = "chance") -> MatrixSplit:
    """A share of each user's ones to validation and to test, at random; the rest trains.

    Of a user with n ones, n · share go to each part, rounded up or down by chance so that the mean is exact: a user of five is now and then
    judged. At least one stays in training. Rounding always ``down``, as some libraries do, leaves out who has few.

    Raises:
        DataError: the shares leave nothing to train on or to test.
    """
    if valid < 0 or test <= 0 or valid + test >= 1:
        raise DataError(f"{data.name}: shares valid={valid} and test={test}; expected valid from 0, test above 0, and a sum below 1")
    matrix = taken(data)
    rng = np.random.default_rng(seed)
    user, counts = rows_of(matrix), np.diff(matrix.indptr)
    # the place of each one in a random order of its user's
    place = np.empty(len(user), np.int64)
    order = np.lexsort((rng.random(len(user)), user))
    place[order] = np.arange(len(user)) - np.repeat(matrix.indptr[:-1], counts)
    chance = rng.random((2, len(counts))) * (rounding == "chance")
    n_test, n_valid = (np.floor(counts * share + up).astype(int) for share, up in zip((test, valid), chance, strict=True))
    n_test = np.minimum(n_test, np.maximum(counts - 1, 0))
    n_valid = np.minimum(n_valid, np.maximum(counts - 1 - n_test, 0))
    part = np.where(place < n_test[user], 2, np.where(place < (n_test + n_valid)[user], 1, 0))
    parts = [matrix_of(user[part == p], matrix.indices[part == p], matrix.shape) for p in range(3)]
    if not parts[2].nnz:
        raise DataError(f"{data.name}: {matrix.nnz} interactions of {matrix.shape[0]} users leave none to test with a share of {test}; ask for more")
    line = f"{data.name}: split within users (seed {seed}): {parts[0].nnz:,} train, {parts[1].nnz:,} validation, {parts[2].nnz:,} test ones"
    return MatrixSplit(data.name, *parts, data.report + line)


def strangers(split: MatrixSplit, share: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Users (U,) and items (I,), bool, that are new to whoever learns from ``among`` the others: a random share of each."""
    rng = np.random.default_rng(seed)
    return tuple(rng.permutation(size) < round(share * size) for size in split.train.shape)


def among(split: MatrixSplit, users: np.ndarray, items: np.ndarray) -> MatrixSplit:
    """The split among these users (U,) and items (I,), bool, coded anew in their order."""
    parts = [csr_array(part[users][:, items]) for part in (split.train, split.valid, split.test)]
    line = f"{split.name}: among {users.sum():,} of {len(users):,} users and {items.sum():,} of {len(items):,} items"
    return MatrixSplit(split.name, *parts, split.report + line)
