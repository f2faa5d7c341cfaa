"""What every recommender of the PreRec chapter can do: learn from a binary matrix, score all items for any of its users."""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import ClassVar, Self

import numpy as np
import torch
from numba import njit
from scipy.sparse import csr_array
from torch import Tensor

from zsrbook.data.dataset import DataError, check_codes
from zsrbook.data.matrix import rows_of
from zsrbook.models.base import Scorer

#: scores that are held at once: 64 MB
AT_ONCE = 1 << 24


class MatrixModel(Scorer):
    """Scores every item for a user of the matrix that it is bound to; a higher score means a better guess at a one that is hidden.

    Attributes:
        train: (U, I) the ones that it may read, set by ``fit`` and ``bind``; what a user has may be scored, the evaluation leaves it out.
        knows: what of another matrix it can serve without learning anew: ``nothing`` (it keeps a vector a user), ``users`` (new users of the
            same items, from what they took), ``anything``.
    """

    knows: ClassVar[str] = "nothing"
    train: csr_array

    def check(self, users: np.ndarray) -> None:
        check_codes(f"{type(self).__name__}: users", "user", np.asarray(users), self.train.shape[0])

    @abstractmethod
    def fit(self, train: csr_array, valid: csr_array | None = None) -> Self:
        """Learn from ``train``; ``valid`` serves early stopping and the choice of settings alone."""

    @abstractmethod
    def scores(self, users: np.ndarray) -> np.ndarray:
        """(n, I) float32: one row a user code.

        Raises:
            DataError: the matrix has no such user.
        """

    def bind(self, train: csr_array) -> None:
        """Take over another matrix without learning from it.

        Raises:
            DataError: as ``with_ones``.
        """
        self.train = with_ones(train, type(self).__name__)

    def transfer(self, train: csr_array) -> Self:
        """A copy that scores the items of another matrix for its users, and reads its ones, but has learned nothing from them.

        Raises:
            DataError: the model knows users or items by their ids, and these are others; or as ``with_ones``.
        """
        name = type(self).__name__
        if self.knows == "nothing":
            raise DataError(f"{name} keeps a vector for each user and item, so it can't serve another matrix; fit it there")
        moved = copy.copy(self)
        moved.bind(train)
        if self.knows == "users" and train.shape[1] != self.train.shape[1]:
            raise DataError(f"{name} knows items by their ids: it was fitted on {self.train.shape[1]} items, and the matrix has {train.shape[1]}")
        return moved


#: what a sparse matrix by rows consists of
PARTS = ("data", "indices", "indptr", "shape")


def tensors_of(matrix: csr_array, name: str) -> dict[str, Tensor]:
    """The parts of a matrix, as a model's ``state`` holds them."""
    return {f"{name}.{part}": torch.as_tensor(getattr(matrix, part)) for part in PARTS}


def matrix_in(state: dict[str, Tensor], name: str) -> csr_array:
    """The inverse of ``tensors_of``.

    Raises:
        ValueError: these are not the parts of one matrix.
    """
    data, indices, indptr, shape = (state[f"{name}.{part}"].numpy() for part in PARTS)
    matrix = csr_array((data, indices, indptr), tuple(shape))
    matrix.check_format()  # all of it: compiled code reads what the codes point at
    return matrix


def degrees(matrix: csr_array) -> tuple[np.ndarray, np.ndarray]:
    """The ones of each user (U,) and of each item (I,): the marginals, int64."""
    return np.diff(matrix.indptr), np.bincount(matrix.indices, minlength=matrix.shape[1])


def with_ones(train: csr_array, name: str) -> csr_array:
    """The same, sorted by user and item, each pair once and as a one of float32: ratings, counts and doubled edges all say that it was taken.

    Raises:
        DataError: it is no sparse matrix by rows, holds no one, or holds what can't stand for a one.
    """
    if getattr(train, "format", None) != "csr":
        raise DataError(f"{name}: a {type(train).__name__} in place of the matrix; expected a scipy.sparse.csr_array, users × items")
    if not (np.isfinite(train.data) & (train.data > 0)).all():
        odd = train.data[~(np.isfinite(train.data) & (train.data > 0))]
        raise DataError(f"{name}: {len(odd)} entries of the matrix are such as {odd[0]}; expected ones, and blanks for what was not taken")
    if not train.nnz:
        raise DataError(f"{name}: the matrix of {train.shape[0]} users and {train.shape[1]} items holds no one; expected some")
    if not train.has_canonical_format:
        train = train.copy()
        train.sum_duplicates()  # sorts, too
    if train.dtype == np.float32 and (train.data == 1).all():
        return train
    return csr_array((np.ones(train.nnz, np.float32), train.indices, train.indptr), train.shape)


def not_taken(train: csr_array, users: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) int64 an item for each of these users, drawn evenly from those that the user doesn't have; −1 for a user of everything.

    Args:
        train: with sorted indices, as from ``with_ones``.

    >>> not_taken(csr_array([[1, 0, 1], [1, 1, 1]]), np.array([0, 1]), np.random.default_rng(0)).tolist()
    [1, -1]
    """
    return _not_taken(train.indptr, train.indices, train.shape[1], users, rng.random(len(users)))


def popular_not_taken(train: csr_array, users: np.ndarray, rng: np.random.Generator, tries: int = 20) -> np.ndarray:
    """(n,) int64 the same, but drawn as often as an item was taken; evenly for a user who had all that came up in so many tries."""
    found, keys = not_taken(train, users, rng), rows_of(train) * np.int64(train.shape[1]) + train.indices  # in order
    todo = np.flatnonzero(found >= 0)
    for _ in range(tries):
        drawn = train.indices[rng.integers(train.nnz, size=len(todo))]
        key = users[todo] * np.int64(train.shape[1]) + drawn
        free = keys[np.minimum(np.searchsorted(keys, key), len(keys) - 1)] != key
        found[todo[free]] = drawn[free]
        todo = todo[~free]
    return found


@njit(cache=True)
def _not_taken(starts, items, n_items, users, draws):
    """The r-th item that a row lacks stands after as many of the row as have fewer than r + 1 gaps before them: a binary search, no rejection."""
    found = np.empty(len(users), np.int64)
    for k in range(len(users)):
        begin, end = starts[users[k]], starts[users[k] + 1]
        gaps = n_items - (end - begin)
        r = min(int(draws[k] * gaps), gaps - 1)
        low, high = begin, end
        while low < high:
            middle = (low + high) // 2
            if items[middle] - (middle - begin) <= r:
                low = middle + 1
            else:
                high = middle
        found[k] = r + (low - begin) if gaps else -1
    return found


def validation_ndcg(model: MatrixModel, valid: csr_array, k: int = 20, most: int = 1000) -> float:
    """What early stopping watches: mean NDCG@k of the ones of ``valid``, among all items that the user doesn't have in training.

    Half of what ties with a one stands above it, and NaN ranks last. The evaluation, which is what tables show, averages over all orders
    instead.

    Args:
        most: judge this many users at most, always the same ones.

    Raises:
        DataError: there is no one to judge, or the matrix is not of the model's users and items.
    """
    if valid.shape != model.train.shape:
        name = type(model).__name__
        raise DataError(f"{name}: a validation matrix of shape {valid.shape}; expected {model.train.shape}, the same users and items as in training")
    people = np.flatnonzero(np.diff(valid.indptr))
    if not len(people):
        raise DataError(f"{type(model).__name__}: the validation matrix holds no one, so nothing can stop the training early; fit without it")
    if len(people) > most:
        people = np.sort(np.random.default_rng(0).choice(people, most, replace=False))
    worth = 1 / np.log2(np.arange(2, k + 2))
    ideal, total = np.cumsum(worth), 0.0
    for users in np.array_split(people, -(-len(people) * valid.shape[1] // AT_ONCE)):
        wanted, taken = valid[users], model.train[users]
        scores = np.array(model.scores(users))
        scores[np.isnan(scores)] = np.finfo(scores.dtype).min  # else nothing would compare with it, and it would seem to rank first
        scores[rows_of(taken), taken.indices] = -np.inf
        above = _above(scores, wanted.indptr, wanted.indices)
        gain = np.where(above < k, worth[np.minimum(above, k - 1)], 0.0)
        of_user = np.bincount(rows_of(wanted), gain, len(users))
        total += (of_user / ideal[np.minimum(np.diff(wanted.indptr), k) - 1]).sum()
    return float(total / len(people))


@njit(cache=True)
def _above(scores, starts, items):
    """(n,) how many of a row score higher than each of its items, and half of those that score the same."""
    found = np.empty(len(items), np.int64)
    for row in range(len(scores)):
        for place in range(starts[row], starts[row + 1]):
            own, higher, level = scores[row, items[place]], 0, 0
            for value in scores[row]:
                higher += value > own
                level += value == own
            found[place] = higher + (level - 1) // 2
    return found
