"""What every recommender of the PreRec chapter can do: learn from a binary matrix, score all items for any of its users."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import ClassVar, Self

import numpy as np
from scipy.sparse import csr_array

from zsrbook.data.dataset import DataError


class MatrixModel(ABC):
    """Scores every item for a user of the matrix that it is bound to; a higher score means a better guess at a one that is hidden.

    Attributes:
        train: (U, I) the ones that it may read, set by ``fit`` and ``bind``; what a user has may be scored, the evaluation leaves it out.
        knows: what of another matrix it can serve without learning anew: ``nothing`` (it keeps a vector a user), ``users`` (new users of the
            same items, from what they took), ``anything``.
    """

    knows: ClassVar[str] = "nothing"
    train: csr_array

    @abstractmethod
    def fit(self, train: csr_array, valid: csr_array | None = None) -> Self:
        """Learn from ``train``; ``valid`` serves early stopping and the choice of settings alone."""

    @abstractmethod
    def scores(self, users: np.ndarray) -> np.ndarray:
        """(n, I) float32: one row a user code."""

    def bind(self, train: csr_array) -> None:
        """Take over another matrix without learning from it."""
        self.train = train

    def transfer(self, train: csr_array) -> Self:
        """A copy that scores the items of another matrix for its users, and reads its ones, but has learned nothing from them.

        Raises:
            DataError: the model knows users or items by their ids, and these are others.
        """
        name = type(self).__name__
        if self.knows == "nothing":
            raise DataError(f"{name} keeps a vector for each user and item, so it can't serve another matrix; fit it there")
        if self.knows == "users" and train.shape[1] != self.train.shape[1]:
            raise DataError(f"{name} knows items by their ids: it was fitted on {self.train.shape[1]} items, and the matrix has {train.shape[1]}")
        moved = copy.copy(self)
        moved.bind(train)
        return moved


def degrees(matrix: csr_array) -> tuple[np.ndarray, np.ndarray]:
    """The ones of each user (U,) and of each item (I,): the marginals, int64."""
    return np.diff(matrix.indptr), np.bincount(matrix.indices, minlength=matrix.shape[1])
