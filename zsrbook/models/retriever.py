"""What every search of the book can do: score all items for a query."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, Self

import numpy as np

from zsrbook.data.dataset import Columns
from zsrbook.data.search import SearchData

Score = Literal["cosine", "dot"]


class Retriever(ABC):
    """Scores every item of a corpus for every query; a higher score means a better answer.

    A query that a method can make nothing of (no known word) gets a row of NaN, and counts as a miss.
    """

    @abstractmethod
    def fit(self, data: SearchData) -> Self:
        """Learn from ``data``: the zero-shot methods from its texts and links alone."""

    @abstractmethod
    def scores(self, queries: Sequence[str]) -> np.ndarray:
        """(Q, n) float32: one row a query text."""

    def similar(self, data: SearchData, items: np.ndarray) -> np.ndarray:
        """(k, n) float32: how well all items go with each of ``items``, codes in the data of ``fit``; here their texts are the queries."""
        return self.scores(data.items[Columns.TEXT].iloc[items].tolist())


class VectorRetriever(Retriever):
    """Queries and items are vectors, compared by cosine or inner product.

    Attributes:
        score: which of the two.
        items: (n, d) float32, set by ``fit``; an item that nothing was learned of is zero.
    """

    score: Score
    items: np.ndarray

    @abstractmethod
    def query_vectors(self, queries: Sequence[str]) -> np.ndarray:
        """(Q, d) float32; a query without a known word is NaN."""

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        return compare(self.query_vectors(queries), self.items, self.score)

    def similar(self, data: SearchData, items: np.ndarray) -> np.ndarray:
        """(k, n) float32: item vectors on both sides (section 5.1 of the paper)."""
        return compare(self.items[items], self.items, self.score)


def compare(left: np.ndarray, right: np.ndarray, score: Score) -> np.ndarray:
    """(a, b) cosine or inner products of (a, d) and (b, d); the cosine with a zero vector is the lowest there is, −1.

    A row of NaN on the left gives a row of NaN, whatever is on the right.

    >>> compare(np.array([[2.0, 0.0]]), np.array([[3.0, 0.0], [0.0, 0.0]]), "cosine").tolist()
    [[1.0, -1.0]]
    """
    if score == "dot":
        return left @ right.T
    lengths = [np.linalg.norm(x, axis=1, keepdims=True) for x in (left, right)]
    unit = [x / np.where(length > 0, length, 1.0) for x, length in zip((left, right), lengths, strict=True)]
    lowest = (lengths[0] == 0) | (lengths[1] == 0).T & ~np.isnan(lengths[0])
    return np.where(lowest, np.float32(-1.0), unit[0] @ unit[1].T)
