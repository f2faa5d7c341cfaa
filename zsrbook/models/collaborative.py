"""Collaborative filtering without a network: what any method on a binary matrix must be held against.

    MostPop   how often an item was taken, for everybody alike
    ItemKNN   items that were taken together with the user's: cosine with shrinkage, k neighbours an item
    EASE      the linear item-to-item model of least squares with a zero diagonal, in closed form (Steck, WWW 2019, arXiv 1905.03375)
    BPRMF     a vector a user and an item, learned from pairs of a one and a zero by stochastic gradient (Rendle et al., UAI 2009)

With X the (U, I) matrix, scores are one sparse row of X times something for the first three, so they serve users that they never saw.
ItemKNN shrinks the denominator, as Ferrari Dacrema et al. (RecSys 2019) do, who show how far it gets when it is tuned.

Shape legend: U users, I items, N ones, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numba import njit
from scipy.linalg import lapack
from scipy.sparse import csc_array, csr_array
from torch import Tensor

from zsrbook.data.dataset import DataError
from zsrbook.data.matrix import rows_of
from zsrbook.models.matrix import MatrixModel, degrees, matrix_in, not_taken, tensors_of, validation_ndcg


class MostPop(MatrixModel):
    """How often each item was taken in the matrix at hand. Items that were taken equally often tie."""

    knows = "anything"

    def fit(self, train: csr_array, valid: csr_array | None = None) -> Self:
        self.bind(train)
        return self

    def bind(self, train: csr_array) -> None:
        super().bind(train)
        self.counts = degrees(self.train)[1].astype(np.float32)  # (I,)

    def scores(self, users: np.ndarray) -> np.ndarray:
        return np.broadcast_to(self.counts, (len(users), len(self.counts)))


@dataclass(frozen=True)
class ItemKNNSettings:
    """Raises ValueError if no neighbour is kept, or the shrinkage is negative."""

    neighbours: int = 200  #: k, that each item keeps, the most similar ones
    shrinkage: float = 10.0  #: added to the denominator, so that few common users make no strong likeness

    def __post_init__(self) -> None:
        if self.neighbours < 1 or self.shrinkage < 0:
            raise ValueError(f"ItemKNN settings: neighbours={self.neighbours}, shrinkage={self.shrinkage}; expected 1 or more, and 0 or more")


class ItemKNN(MatrixModel):
    """score(u, j) = Σ_i x_ui w_ij over the k items i most similar to j, where w_ij = c_ij / (√c_i √c_j + shrinkage).

    c_ij is the number of users who took both, c_i of those who took i; of equally similar items the first in the catalogue are kept. Costs
    Σ_u n_u² operations, where user u took n_u items, and k I numbers.
    """

    knows = "users"

    def __init__(self, settings: ItemKNNSettings = ItemKNNSettings()):
        self.settings = settings

    def fit(self, train: csr_array, valid: csr_array | None = None) -> Self:
        self.bind(train)
        by_item = csr_array(self.train.T)
        found = neighbours(by_item.indptr, by_item.indices, self.train.indptr, self.train.indices, self.settings.neighbours, self.settings.shrinkage)
        self.weights = csr_array(csc_array(found, shape=(train.shape[1],) * 2))  # (I, I): the column of j holds its neighbours
        return self

    def scores(self, users: np.ndarray) -> np.ndarray:
        return (self.train[users] @ self.weights).toarray()

    def state(self) -> dict[str, Tensor]:
        return tensors_of(self.train, "train") | tensors_of(self.weights, "weights")

    def restore(self, state: dict[str, Tensor]) -> None:
        self.bind(matrix_in(state, "train"))
        self.weights = matrix_in(state, "weights")


@njit(cache=True)
def neighbours(user_starts, users, item_starts, items, k, shrinkage):
    """The k most similar items of each: their weights, their codes, and where those of each item begin.

    Args:
        user_starts, users: the users of each item.
        item_starts, items: the items of each user.
    """
    n_items = len(user_starts) - 1
    norms = np.sqrt(np.diff(user_starts).astype(np.float32))
    starts = np.zeros(n_items + 1, np.int64)
    room = n_items * min(k, n_items - 1)
    weights, codes = np.empty(room, np.float32), np.empty(room, np.int64)
    together = np.zeros(n_items, np.float32)
    for item in range(n_items):
        for user in users[user_starts[item] : user_starts[item + 1]]:
            for other in items[item_starts[user] : item_starts[user + 1]]:
                together[other] += 1
        together[item] = 0
        met = np.flatnonzero(together)
        likeness = together[met] / (norms[item] * norms[met] + np.float32(shrinkage))
        together[met] = 0
        if len(met) > k:
            order = np.argsort(-likeness, kind="mergesort")[:k]  # stable: of those level the first
            met, likeness = met[order], likeness[order]
        begin = starts[item]
        starts[item + 1] = begin + len(met)
        weights[begin : begin + len(met)], codes[begin : begin + len(met)] = likeness, met
    return weights[: starts[-1]], codes[: starts[-1]], starts


@dataclass(frozen=True)
class EASESettings:
    """Raises ValueError if λ is not above 0."""

    lam: float = 200.0  #: λ, of the squared weights
    largest: int = 25_000  #: items above which ``fit`` refuses: the weights take 4 I² bytes, 2.5 GB at this size, and I³ operations

    def __post_init__(self) -> None:
        if self.lam <= 0:
            raise ValueError(f"EASE settings: lam is {self.lam}; expected a number above 0")


class EASE(MatrixModel):
    """scores = X B with B the minimum of |X − X B|² + λ |B|² under diag(B) = 0 (Steck 2019, Eq. 8).

    With P = (Xᵀ X + λ)⁻¹ it is B_ij = −P_ij / P_jj off the diagonal. One Cholesky factor and its inverse, in place and in float32.

    Raises:
        DataError: from ``fit``, where the catalogue is larger than the settings allow.
        ValueError: from ``fit``, where λ is too small for float32.
    """

    knows = "users"

    def __init__(self, settings: EASESettings = EASESettings()):
        self.settings = settings

    def fit(self, train: csr_array, valid: csr_array | None = None) -> Self:
        self.bind(train)
        n_items = train.shape[1]
        if n_items > self.settings.largest:
            raise DataError(
                f"EASE: {n_items:,} items need {4e-9 * n_items**2:.1f} GB for their weights, and time by the cube of their number; expected at most "
                f"{self.settings.largest:,}. Raise ``largest`` if there is room, cut the catalogue, or take ItemKNN, whose cost is sparse."
            )
        gram = (self.train.T @ self.train).toarray(order="F")
        diagonal = np.einsum("ii->i", gram)  # a view
        diagonal += self.settings.lam
        factor, failed = lapack.spotrf(gram, lower=True, clean=False, overwrite_a=True)
        if failed:
            raise ValueError(f"EASE: in float32 λ = {self.settings.lam:g} is lost beside the counts of {n_items:,} items; raise lam")
        p, _ = lapack.spotri(factor, lower=True, overwrite_c=True)
        self.weights = _mirrored(p.T)  # now in row order, with P in the upper triangle
        self.weights /= -np.einsum("ii->i", self.weights).copy()
        np.fill_diagonal(self.weights, 0)
        return self

    def scores(self, users: np.ndarray) -> np.ndarray:
        return self.train[users] @ self.weights

    def state(self) -> dict[str, Tensor]:
        return tensors_of(self.train, "train") | {"weights": torch.as_tensor(self.weights)}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.bind(matrix_in(state, "train"))
        self.weights = state["weights"].numpy()


@dataclass(frozen=True)
class BPRSettings:
    """One line a choice."""

    width: int = 64  #: d
    learning_rate: float = 0.02  #: η
    lam: float = 0.01  #: λ, of the squared length of what a step touches
    spread: float = 0.1  #: standard deviation of the numbers at the start
    epochs: int = 200  #: at most; an epoch draws as many triples as there are ones
    patience: int = 10  #: stop after this many epochs without a better validation NDCG@20, where there is a validation matrix
    seed: int = 0


class BPRMF(MatrixModel):
    """s(u, i) = p_u · q_i, so that ln σ(s(u, i) − s(u, j)) is high for ones i and zeros j (Rendle et al. 2009, LearnBPR).

    Each epoch goes through the ones in a new random order, with an even draw among what the user doesn't have, one triple after the other:

        θ ← θ + η (σ(s_uj − s_ui) ∂(s_ui − s_uj)/∂θ − λ θ)

    The paper draws ones with replacement, which comes to the same on average. One thread, so a seed names the result.

    Attributes:
        curve: validation NDCG@20 after each epoch.
    """

    def __init__(self, settings: BPRSettings = BPRSettings()):
        self.settings = settings

    def fit(self, train: csr_array, valid: csr_array | None = None) -> Self:
        s = self.settings
        self.bind(train)
        rng = np.random.default_rng(s.seed)
        self.users, self.items = (rng.normal(0, s.spread, (size, s.width)).astype(np.float32) for size in train.shape)
        user, item = rows_of(self.train), self.train.indices.astype(np.int64)
        self.curve: list[float] = []
        best = (-1.0, self.users, self.items)
        for _ in range(s.epochs):
            order = rng.permutation(len(user))
            who, other = user[order], not_taken(self.train, user[order], rng)
            learn_bpr(who, item[order], other, self.users, self.items, s.learning_rate, s.lam)
            if valid is None:
                continue
            self.curve.append(validation_ndcg(self, valid))
            if self.curve[-1] > best[0]:
                best = (self.curve[-1], self.users.copy(), self.items.copy())
            elif len(self.curve) - np.argmax(self.curve) > s.patience:
                break
        if valid is not None:
            _, self.users, self.items = best
        if not np.isfinite(self.users).all():
            raise FloatingPointError(f"BPRMF: the vectors are no longer finite; lower learning_rate ({s.learning_rate})")
        return self

    def scores(self, users: np.ndarray) -> np.ndarray:
        return self.users[users] @ self.items.T

    def state(self) -> dict[str, Tensor]:
        return tensors_of(self.train, "train") | {"users": torch.as_tensor(self.users), "items": torch.as_tensor(self.items)}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.bind(matrix_in(state, "train"))
        self.users, self.items = (state[side].numpy() for side in ("users", "items"))


@njit(cache=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")
def learn_bpr(user, item, other, p, q, rate, lam):
    """One stochastic step a triple, in place: (n,) codes of users, of ones and of zeros (−1: the triple is left out)."""
    rate, lam = np.float32(rate), np.float32(lam)
    for k in range(len(user)):
        u, i, j = user[k], item[k], other[k]
        if j < 0:
            continue
        difference = np.float32(0)
        for f in range(p.shape[1]):
            difference += p[u, f] * (q[i, f] - q[j, f])
        slope = np.float32(1) / (np.float32(1) + np.exp(difference))  # σ(s_uj − s_ui)
        for f in range(p.shape[1]):
            pu, qi, qj = p[u, f], q[i, f], q[j, f]
            p[u, f] += rate * (slope * (qi - qj) - lam * pu)
            q[i, f] += rate * (slope * pu - lam * qi)
            q[j, f] += rate * (-slope * pu - lam * qj)


@njit(cache=True)
def _mirrored(square):
    """The same (n, n), its lower triangle made that of the upper; in blocks that stay in the cache."""
    n, step = len(square), 64
    for top in range(0, n, step):
        for left in range(0, top + 1, step):
            for row in range(top, min(top + step, n)):
                for column in range(left, min(left + step, row)):
                    square[row, column] = square[column, row]
    return square
