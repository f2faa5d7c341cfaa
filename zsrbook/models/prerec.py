"""PreRec: what the shape of a user-item matrix alone can carry to another one (Wang, Krishnan, Sundaram and Li 2023, arXiv 2309.01188).

Only the abstract and a summary of the paper could be had, so this is a **reconstruction**: what is stated is marked [S], and every other
choice is ours and stands in the register of deviations (prerec-1 and on).

Users and items of different matrices share no id, but they can be described in the same words [S]. That each is binned is stated, and that
clusters are binned by size and density; percentiles, densities, the operator b and what becomes of a pair that is no edge are ours.

* **activity**: how many ones a user or an item has, as a bin of its percentile,
* **co-occurrence**: nodes are embedded by Node2Vec on the bipartite graph and clustered; a node is described by the bins of its cluster's
  size and density, since vectors and cluster numbers mean nothing elsewhere,
* **interaction**: a pair is the vector ``E = b(n_u, n_i)`` of its two nodes; the vectors of all ones are clustered, and a pair is described by
  the bins of size and density of the cluster that it falls into.

MLPs read them, trained with BPR [S]; here they are two, one for the nodes' bins and one for the pair's: ``s(u, i) = c f(u, i) + (1 − c) g(u, i)``.
Nothing but these MLPs moves to another matrix. All bins are percentiles within one matrix, so that bin 9 is "the most active tenth" everywhere.

A one in the training matrix helps to make the very cluster that describes it, and a negative does not; a model would learn that, and not
find it where it serves. So a share of the ones, the *questions*, is kept out of the statistics and is all that BPR learns from.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import ClassVar, Literal, Self, get_args

import numpy as np
import torch
from scipy.sparse import csr_array
from sklearn.cluster import KMeans, MiniBatchKMeans
from torch import Tensor, nn

from zsrbook.data.dataset import DataError
from zsrbook.data.matrix import matrix_of, rows_of
from zsrbook.models.matrix import MatrixModel, degrees, not_taken, popular_not_taken, validation_ndcg, with_ones
from zsrbook.models.node2vec import Node2VecSettings, bipartite, cached
from zsrbook.training import LATER, Training, check_words, pick_device
from zsrbook.training import train as train_networks

Family = Literal["activity", "co-occurrence", "interaction"]
Operator = Literal["hadamard", "average", "l1", "l2"]
Density = Literal["edges", "distance", "between"]
FAMILIES: tuple[Family, ...] = get_args(Family)

#: distances of pairs to centroids that are held at once: 4 MB, which the processor's cache has room for
AT_ONCE = 1 << 20
#: users whose pairs are compared in one product
TOGETHER = 4
#: bytes of pairs' clusters that are kept for the next model
KEPT = 256_000_000


@dataclass(frozen=True)
class FeatureSettings:
    """How a matrix is described. None of it is stated in what is known of the paper, but for Node2Vec, clusters and bins themselves."""

    bins: int = 10  #: of each number; percentiles, so that they mean the same in every matrix
    activity: Literal["nodes", "mass", "log"] = "nodes"  #: percentiles of the nodes or of their ones, or the log of the ones relative to the mean
    equal: Literal["together", "apart"] = field(default="together", metadata=LATER)  #: nodes with equally many ones: one bin, or by chance
    without: Literal["lowest", "middle"] = field(default="lowest", metadata=LATER)  #: the bins of nodes without a one
    clusters: int | None = None  #: of nodes; None: the root of half the nodes, 200 at most
    #: of a node cluster: the share of its pairs that are ones, or closeness to its centre; or users and items are clustered apart, and the density
    #: is that between the cluster of the user and that of the item
    density: Density = "edges"
    directions: bool = field(default=True, metadata=LATER)  #: whether nodes are clustered by the directions of their vectors alone
    counted: Literal["members", "clusters"] = field(default="members", metadata=LATER)  #: percentiles of sizes and densities are over these
    operator: Operator = "hadamard"  #: makes the vector of a pair out of those of its nodes
    pair_clusters: int = 200  #: of pairs
    pair_sample: int = 100_000  #: ones that the centres of pairs are found on
    #: of a cluster of pairs: the share of the pairs of its users and items that are its ones, or closeness to its centre
    pair_density: Literal["edges", "distance"] = field(default="edges", metadata=LATER)
    node2vec: Node2VecSettings = field(default_factory=Node2VecSettings)
    seed: int = 0  #: of walks, vectors and clusters

    def __post_init__(self) -> None:
        check_words(self, "feature settings")
        if not 1 <= self.bins <= 256:
            raise DataError(f"bins is {self.bins}; expected 1 to 256")
        if not 1 <= self.pair_clusters <= 256:
            raise DataError(f"pair_clusters is {self.pair_clusters}; expected 1 to 256, which a byte holds")


def percentile_bins(values: np.ndarray, bins: int, weights: np.ndarray | None = None, chance: np.random.Generator | None = None) -> np.ndarray:
    """(n,) uint8: the bin of each value's percentile among all; equal values share one, at the middle of the percentiles they take up.

    So a matrix in which half of the users have five ones leaves bins empty instead of telling equal users apart.

    Args:
        weights: (n,) what each counts for; default 1.
        chance: puts equal values in an order, so that they share no percentile.

    >>> percentile_bins(np.array([5, 5, 5, 5, 9, 100]), 6).tolist()
    [2, 2, 2, 2, 4, 5]
    """
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    if chance is None:
        _, level = np.unique(values, return_inverse=True)
    else:
        level = np.lexsort((chance.random(len(values)), values)).argsort()
    mass = np.bincount(level, weights)
    middle = (np.cumsum(mass) - mass / 2) / max(mass.sum(), 1e-12)
    return np.minimum(middle * bins, bins - 1).astype(np.uint8)[level]


def log_bins(values: np.ndarray, bins: int) -> np.ndarray:
    """(n,) uint8: the bin of log2(value / mean), from a thirty-second of the mean to 32 times it, in equal steps."""
    octaves = np.log2(np.maximum(values, 1e-9) / max(values.mean(), 1e-9))
    return np.clip((octaves + 5) / 10 * bins, 0, bins - 1).astype(np.uint8)


class Statistics:
    """One matrix in words that mean the same in every other.

    Attributes:
        users (U, 3), items (I, 3): uint8 bins of activity, of the size and of the density of the node's cluster. The setting ``without`` gives
            those of a node without ones, and those of all nodes where no family needs them.
        clusters: (U + I,) int32 the cluster of each node, users first; -1 without ones. Where users and items are clustered apart, those of the
            items go on counting from those of the users.
        sizes, densities: (K,) of the clusters of nodes; where they are clustered apart, densities are (K users', K items').
        between: (K users' + 1, K items' + 1) uint8, where they are clustered apart: the bin of the density between a cluster of users and one of
            items; it takes the place of the item's bin of density, and the user's is the same for all. The last row and column are for nodes
            without ones.
        pairs: (P, 2) uint8 the bins of size and density of each cluster of pairs; zeros where no family needs them.
    """

    def __init__(self, matrix: csr_array, settings: FeatureSettings, families: Iterable[Family] = FAMILIES):
        """Args:
            families: co-occurrence and interaction need vectors of nodes, which cost most; activity needs none.

        Raises:
            DataError: the matrix holds no one.
        """
        if not matrix.nnz:
            raise DataError(f"the matrix of {matrix.shape[0]} users and {matrix.shape[1]} items holds no one; there is nothing to describe")
        self.matrix, self.settings = matrix, settings
        self.between: np.ndarray | None = None
        self._shuffled: dict[int, Statistics] = {}
        self._places: tuple[np.ndarray, np.ndarray] | None = None  # of whom each has the description, where they are shuffled
        taken = degrees(matrix)
        self._nothing = 0 if settings.without == "lowest" else settings.bins // 2
        self.users, self.items = (np.full((len(ones), 3), self._nothing, np.uint8) for ones in taken)
        for table, ones in ((self.users, taken[0]), (self.items, taken[1])):
            table[ones > 0, 0] = self._activity(ones[ones > 0])
        if "co-occurrence" in families:
            self._describe_nodes()
        self._pairs: PairClusters | None = None
        self.pairs = np.zeros((1, 2), np.uint8)
        if "interaction" in families:
            self._describe_pairs()

    @cached_property
    def vectors(self) -> tuple[Tensor, Tensor]:
        """(U, d) and (I, d) ``node_vectors``."""
        return node_vectors(self.matrix, self.settings)

    def _activity(self, ones: np.ndarray) -> np.ndarray:
        if self.settings.activity == "log":
            return log_bins(ones, self.settings.bins)
        chance = np.random.default_rng((self.settings.seed, len(ones))) if self.settings.equal == "apart" else None
        return percentile_bins(ones, self.settings.bins, ones if self.settings.activity == "mass" else None, chance)

    def _over(self, number: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(n,) uint8: the bin of a number of each one's cluster, of (K,) numbers and (n,) labels."""
        if self.settings.counted == "members":
            return percentile_bins(number[labels], self.settings.bins)
        return percentile_bins(number, self.settings.bins)[labels]

    def _describe_nodes(self) -> None:
        self.clusters = np.full(sum(self.matrix.shape), -1, np.int32)
        if self.settings.density == "between":
            return self._describe_sides()
        (found,) = node_clusters(self.matrix, self.settings, apart=False)
        self.clusters[found.nodes] = found.labels
        user, item = np.split(self.clusters, [self.matrix.shape[0]])
        self.sizes = found.sizes
        if self.settings.density == "edges":
            self.densities = _density(self.matrix, user, item, len(self.sizes))
        else:
            self.densities = _closeness(found.labels, found.distances, self.sizes)
        for column, number in ((1, self.sizes), (2, self.densities)):
            bins = np.full(len(self.clusters), self._nothing, np.uint8)
            bins[found.nodes] = self._over(number, found.labels)
            self.users[:, column], self.items[:, column] = np.split(bins, [self.matrix.shape[0]])

    def _describe_sides(self) -> None:
        """Users and items clustered apart: sizes as percentiles within a side, and the density between two clusters as one over the ones."""
        found = node_clusters(self.matrix, self.settings, apart=True)
        counts = [side.sizes for side in found]
        for table, side, node, cluster in zip((self.users, self.items), found, (0, self.matrix.shape[0]), (0, len(counts[0])), strict=True):
            table[side.nodes - node, 1] = self._over(side.sizes, side.labels)
            self.clusters[side.nodes] = cluster + side.labels
        self.sizes = np.concatenate(counts)
        self.between = np.zeros([len(sizes) + 1 for sizes in counts], np.uint8)  # two clusters that never met keep 0
        pair = self.sides(rows_of(self.matrix), self.matrix.indices)
        met = np.zeros([len(sizes) for sizes in counts])
        np.add.at(met, pair, 1)
        self.densities = met / np.outer(*counts)
        self.between[pair] = percentile_bins(self.densities[pair], self.settings.bins)
        self.between[-1] = self.between[:, -1] = self._nothing

    def sides(self, user: np.ndarray, item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where ``between`` has the pairs of these users and items: the clusters of either side, each counted from 0; -1 without ones."""
        mine, theirs = self.clusters[user], self.clusters[self.matrix.shape[0] + item]
        return mine, np.where(theirs < 0, -1, theirs + 1 - len(self.between))

    def _describe_pairs(self) -> None:
        self._pairs = pair_clusters(self.matrix, self.settings)
        size = self._pairs.sizes
        some = size > 0  # a cluster that no one falls into keeps 0
        self.pairs = np.zeros((len(size), 2), np.uint8)
        for column, number in enumerate((size, self._pairs.densities)):
            self.pairs[some, column] = percentile_bins(number[some], self.settings.bins, size[some] if self.settings.counted == "members" else None)

    def clusters_of(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """(n,) uint8: the cluster of pairs that each of these pairs falls into; 0 where no family needs it."""
        if self._pairs is None:
            return np.zeros(len(user), np.uint8)
        if self._places is not None:
            user, item = self._places[0][user], self._places[1][item]
        return self._pairs.of(user, item)

    def clusters_of_users(self, users: np.ndarray) -> np.ndarray:
        """(n, I) uint8: the same for all items of these users."""
        if self._places is None:
            return self._pairs.of_users(users)
        return self._pairs.of_users(self._places[0][users])[:, self._places[1]]

    def nodes(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """(n, 6) uint8: the bins of the nodes of these pairs, the user's and then the item's."""
        found = np.concatenate([self.users[user], self.items[item]], axis=1)
        if self.between is not None:
            found[:, 5] = self.between[self.sides(user, item)]
        return found

    def alike(self, users: np.ndarray, items: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """For users, and for items: one of each kind that ``nodes`` can tell apart, and (n,) the place of each one's kind among them."""
        found = []
        for nodes, table, first in ((users, self.users, 0), (items, self.items, self.matrix.shape[0])):
            described = table[nodes].astype(np.int64)
            if self.between is not None:
                described = np.column_stack([described, self.clusters[first + nodes]])
            _, one, kind = np.unique(described, axis=0, return_index=True, return_inverse=True)
            found.append((nodes[one], kind))
        return tuple(found)

    def shuffled(self, seed: int) -> Statistics:
        """The control: every user and every item gets the description of another one. Kept, since each source is held against it."""
        if seed in self._shuffled:
            return self._shuffled[seed]
        rng, dealt = np.random.default_rng((seed, 1)), copy.copy(self)  # not the draw of ``strangers``, who would all get what the first codes have
        users, items = dealt._places = tuple(rng.permutation(size) for size in self.matrix.shape)
        dealt.users, dealt.items = self.users[users], self.items[items]
        if self.between is not None:
            dealt.clusters = self.clusters[np.concatenate([users, self.matrix.shape[0] + items])]
        self._shuffled[seed] = dealt
        return dealt


def node_vectors(matrix: csr_array, settings: FeatureSettings) -> tuple[Tensor, Tensor]:
    """(U, d) and (I, d) Node2Vec vectors; they mean nothing outside this matrix, so no model reads them."""
    found = cached(bipartite(matrix), replace(settings.node2vec, seed=settings.seed))
    return tuple(torch.as_tensor(np.array(part)) for part in np.split(found, [matrix.shape[0]]))


@dataclass(frozen=True)
class NodeClusters:
    """Nodes in clusters of their vectors: ``nodes`` (n,) that have ones, users before items, ``labels`` (n,) their clusters, ``sizes`` (K,)
    of the clusters, and ``distances`` (n,) to the centre of their own."""

    nodes: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray
    distances: np.ndarray


def node_clusters(matrix: csr_array, settings: FeatureSettings, apart: bool) -> tuple[NodeClusters, ...]:
    """Users and items together; or users, and items, apart. Kept: many ways to describe a matrix share them."""
    return _node_clusters(_Ones(matrix), _those(settings, "clusters", "directions", "node2vec", "seed"), apart)


def pair_clusters(matrix: csr_array, settings: FeatureSettings) -> PairClusters:
    """The clusters of pairs. Kept, as ``node_clusters`` are."""
    return _pair_clusters(_Ones(matrix), _those(settings, "operator", "pair_clusters", "pair_sample", "pair_density", "node2vec", "seed"))


def _those(settings: FeatureSettings, *names: str) -> FeatureSettings:
    """These settings alone, the others as by default: what the others don't change is worked out once."""
    return FeatureSettings(**{name: getattr(settings, name) for name in names})


class PairClusters:
    """The vectors of the pairs of one matrix in clusters.

    Attributes:
        vectors: (U, d) and (I, d) of the nodes.
        centres: (P, d) of the clusters.
        sizes, densities: (P,) how many ones fall into each, and what share that is of the pairs of their users and items, or how close they are.
    """

    def __init__(self, matrix: csr_array, settings: FeatureSettings):
        self.vectors, self.operator = node_vectors(matrix, settings), settings.operator
        self._rows: dict[int, np.ndarray] = {}
        user, item = rows_of(matrix), matrix.indices
        some = np.random.default_rng(settings.seed).permutation(len(user))[: settings.pair_sample]
        vectors = combined(self.vectors[0][user[some]], self.vectors[1][item[some]], self.operator).numpy()
        count = max(1, min(settings.pair_clusters, len(some)))
        means = MiniBatchKMeans(count, n_init=1, batch_size=4096, random_state=settings.seed).fit(vectors)
        self.centres = torch.as_tensor(means.cluster_centers_.astype(np.float32))
        mine = self.of(user, item)
        self.sizes = np.bincount(mine, minlength=count)
        if settings.pair_density == "distance":
            self.densities = _closeness(mine, self._distances(user, item, mine), self.sizes)
            return
        wide = mine.astype(np.int64)
        ends = [np.bincount(np.unique(wide * n + node) // n, minlength=count) for n, node in zip(matrix.shape, (user, item), strict=True)]
        self.densities = self.sizes / np.maximum(ends[0] * ends[1], 1)

    def of(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """(n,) uint8: the cluster that each of these pairs falls into, the one with the nearest centre."""
        found = np.zeros(len(user), np.uint8)
        lengths = (self.centres**2).sum(1) / 2
        for begin in range(0, len(user), step := max(1, AT_ONCE // len(self.centres))):
            some = slice(begin, begin + step)
            pairs = combined(self.vectors[0][user[some]], self.vectors[1][item[some]], self.operator)
            found[some] = (pairs @ self.centres.T - lengths).argmax(1).numpy()
        return found

    def _distances(self, user: np.ndarray, item: np.ndarray, cluster: np.ndarray) -> np.ndarray:
        """(n,) of these pairs to the centres of these clusters."""
        found = np.empty(len(user), np.float32)
        for begin in range(0, len(user), step := max(1, AT_ONCE // self.centres.shape[1])):
            some = slice(begin, begin + step)
            pairs = combined(self.vectors[0][user[some]], self.vectors[1][item[some]], self.operator)
            found[some] = (pairs - self.centres[cluster[some].astype(np.int64)]).norm(dim=1).numpy()
        return found

    def of_users(self, users: np.ndarray) -> np.ndarray:
        """(n, I) uint8: the same for all items of these users; rows are kept for the next model that asks, ``KEPT`` bytes at most."""
        n_items = len(self.vectors[1])
        missing = np.array([user for user in users if user not in self._rows], np.int64)
        found = {}
        for begin in range(0, len(missing), TOGETHER):
            some = missing[begin : begin + TOGETHER]
            found |= zip(some, self._nearest(some), strict=True)
        rows = np.array([found[user] if user in found else self._rows[user] for user in users], np.uint8).reshape(len(users), n_items)
        room = KEPT // n_items - len(self._rows)
        self._rows |= dict(list(found.items())[: max(0, room)])
        return rows

    def _nearest(self, users: np.ndarray) -> np.ndarray:
        """(n, I) uint8. Of |e − m|² only |m|² − 2 e·m tells centres apart. With e = u ∘ i the product e·m is (u ∘ m)·i, one matrix product for
        many pairs, and so with the average and the squared difference; only |u − i| must be written out."""
        items, m = self.vectors[1], self.centres
        if self.operator == "l1":
            every = np.arange(len(items))
            return self.of(np.repeat(users, len(items)), np.tile(every, len(users))).reshape(len(users), -1)
        u, found = self.vectors[0][users], np.empty((len(users), len(items)), np.uint8)
        lengths = (m**2).sum(1) / 2
        both = (u[:, None] * m).reshape(-1, m.shape[1]).T.contiguous()  # (d, n P): u ∘ m
        for begin in range(0, len(items), step := max(1, AT_ONCE // both.shape[1])):
            i = items[begin : begin + step]
            if self.operator == "average":
                score = (i @ m.T / 2)[:, None] + (u @ m.T / 2 - lengths)
            else:
                score = (i @ both).reshape(len(i), len(u), len(m))  # the clusters last, where a search for the best is fast
                if self.operator == "hadamard":
                    score -= lengths
                else:  # (u − i)²·m = u²·m − 2 (u ∘ m)·i + m·i²
                    score = (i**2 @ m.T)[:, None] - 2 * score + (u**2 @ m.T - lengths)
            found[:, begin : begin + step] = score.argmax(2).T.numpy()
        return found


def _density(matrix: csr_array, user: np.ndarray, item: np.ndarray, count: int) -> np.ndarray:
    """(count,) the share of the pairs of a cluster's users and items that are ones; 0 where it has none of either."""
    mine = user[rows_of(matrix)]
    inside = np.bincount(mine[mine == item[matrix.indices]], minlength=count)
    possible = np.prod([np.bincount(side[side >= 0], minlength=count) for side in (user, item)], axis=0)
    return inside / np.maximum(possible, 1)


def _closeness(labels: np.ndarray, distances: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(K,) one over the mean distance of a cluster's (n,) members to its centre."""
    return 1 / (np.bincount(labels, distances, len(sizes)) / np.maximum(sizes, 1) + 1e-6)


def combined(u: Tensor, i: Tensor, operator: Operator) -> Tensor:
    """(n, d) the vector of each pair out of (n, d) vectors of its user and item (Grover and Leskovec 2016, Table 1)."""
    return {"hadamard": lambda: u * i, "average": lambda: (u + i) / 2, "l1": lambda: (u - i).abs(), "l2": lambda: (u - i) ** 2}[operator]()


class _Ones:
    """A matrix that equals another if they hold the same ones."""

    def __init__(self, matrix: csr_array):
        self.matrix = matrix
        self.sha256 = hashlib.sha256(repr(matrix.shape).encode() + matrix.indptr.tobytes() + matrix.indices.tobytes()).digest()

    def __hash__(self) -> int:
        return hash(self.sha256)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Ones) and self.sha256 == other.sha256


# how many are kept: many models, from many sources, are judged on one target, and five data sets have two matrices each, guarded and whole


@lru_cache(maxsize=24)
def _node_clusters(ones: _Ones, settings: FeatureSettings, apart: bool) -> tuple[NodeClusters, ...]:
    matrix, found = ones.matrix, []
    vectors = torch.cat(node_vectors(matrix, settings))
    vectors = (nn.functional.normalize(vectors, dim=1) if settings.directions else vectors).numpy()
    sides = [np.flatnonzero(side) for side in degrees(matrix)]
    sides[1] += matrix.shape[0]
    for nodes in sides if apart else [np.concatenate(sides)]:
        own = vectors[nodes]
        count = settings.clusters or min(200, round(np.sqrt(len(own) / 2)))
        count = max(1, min(count, len(np.unique(own, axis=0))))
        means = KMeans(count, n_init=1, max_iter=50, random_state=settings.seed).fit(own)
        distances = np.linalg.norm(own - means.cluster_centers_[means.labels_], axis=1)
        found.append(NodeClusters(nodes, means.labels_, np.bincount(means.labels_, minlength=count), distances))
    return tuple(found)


@lru_cache(maxsize=12)
def _pair_clusters(ones: _Ones, settings: FeatureSettings) -> PairClusters:
    return PairClusters(ones.matrix, settings)


@lru_cache(maxsize=24)
def _statistics(ones: _Ones, settings: FeatureSettings, families: frozenset[Family]) -> Statistics:
    return Statistics(ones.matrix, settings, families)


def statistics_of(matrix: csr_array, settings: FeatureSettings, families: Iterable[Family]) -> Statistics:
    """``Statistics``, of which those of the last few matrices are kept."""
    return _statistics(_Ones(matrix), settings, frozenset(families))


# ---------------------------------------------------------------- the two MLPs


@dataclass(frozen=True)
class PreRecSettings:
    """The model. That MLPs are trained with BPR, and that two may be combined, is stated; the sizes are ours."""

    families: tuple[Family, ...] = FAMILIES  #: what is read
    features: FeatureSettings = field(default_factory=FeatureSettings)
    combine: Literal["two", "joint", "attention"] = "two"  #: two MLPs weighed on validation; one that reads all; or weights of families by user
    hidden: tuple[int, ...] = (128, 64)
    dropout: float = 0.2
    decay: float = 1e-5  #: of squared weights, in the loss
    questions: float = 0.1  #: share of the ones that BPR learns from, and that the statistics leave out
    guard: bool = True  #: whether they leave them out; without it a one helps to make what describes it
    served: Literal["all", "learned"] = field(default="all", metadata=LATER)  #: ones that describe the matrix it was fitted on, when that is served
    weight: float | None = field(default=None, metadata=LATER)  #: of the first of two MLPs; None: chosen on validation
    negatives: Literal["even", "popular"] = field(default="even", metadata=LATER)  #: items that a user lacks, or as often as they are taken
    batch: int = 4096
    training: Training = field(default_factory=lambda: Training(epochs=30, optimizer="adam", learning_rate=1e-3, clip=None, patience=3))

    def __post_init__(self) -> None:
        check_words(self, "PreRec settings")
        if not self.families or set(self.families) - set(FAMILIES):
            raise DataError(f"families are {self.families}; expected one or more of {', '.join(FAMILIES)}")
        if not 0 < self.questions < 1:
            raise DataError(f"questions is {self.questions}; expected a share between 0 and 1")


#: family -> its columns among the eight bins of a pair: of the user activity, size, density; of the item the same; of the pair size, density
COLUMNS: dict[Family, tuple[int, ...]] = {"activity": (0, 3), "co-occurrence": (1, 2, 4, 5), "interaction": (6, 7)}


class BinnedMLP(nn.Module):
    """An MLP of one-hot bins; its first layer looks rows up instead of multiplying by ones and zeros."""

    def __init__(self, columns: tuple[int, ...], bins: int, settings: PreRecSettings, out: int = 1):
        super().__init__()
        first, *rest = settings.hidden
        self.columns, self.bins = columns, bins
        self.rows = nn.EmbeddingBag(len(columns) * bins, first, mode="sum")
        nn.init.uniform_(self.rows.weight, -((len(columns) * bins) ** -0.5), (len(columns) * bins) ** -0.5)  # as nn.Linear does
        self.bias = nn.Parameter(torch.zeros(first))
        layers: list[nn.Module] = [nn.ReLU(), nn.Dropout(settings.dropout)]
        for before, after in zip(settings.hidden[:-1], rest, strict=True):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(settings.dropout)]
        self.rest = nn.Sequential(*layers, nn.Linear(settings.hidden[-1], out))
        self.register_buffer("offsets", torch.arange(len(columns)) * bins, persistent=False)

    def forward(self, bins: Tensor) -> Tensor:
        """(n, 8) bins, wherever they are -> (n, out) where the weights are."""
        own = bins[:, self.columns].to(self.offsets.device)  # matrices are described on the CPU, and the networks may be on a card
        return self.rest(self.rows(own.long() + self.offsets) + self.bias)


class Networks(nn.Module):
    """The scorers of the chosen families, and what joins them."""

    def __init__(self, settings: PreRecSettings):
        super().__init__()
        bins, chosen = settings.features.bins, [f for f in FAMILIES if f in settings.families]
        groups = {
            "two": [[f for f in chosen if f != "interaction"], [f for f in chosen if f == "interaction"]],
            "joint": [chosen],
            "attention": [[f] for f in chosen],
        }[settings.combine]
        columns = [sum((COLUMNS[f] for f in group), ()) for group in groups if group]
        self.scorers = nn.ModuleList(BinnedMLP(c, bins, settings) for c in columns)
        self.gate = BinnedMLP((0, 1, 2), bins, settings, out=len(columns)) if settings.combine == "attention" else None
        self.decay = settings.decay

    def parts(self, bins: Tensor) -> Tensor:
        """(n, 8) bins -> (n, scorers)."""
        return torch.cat([scorer(bins) for scorer in self.scorers], dim=1)

    def joined(self, bins: Tensor) -> Tensor:
        """(n,) the scores as one: weighed by the user's gate if there is one, else summed."""
        parts = self.parts(bins)
        return (parts if self.gate is None else parts * self.gate(bins).softmax(1)).sum(1)

    def forward(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        """BPR over (n, 8) bins of ones and of negatives. The MLPs of ``two`` have a loss each, since they are trained apart."""
        one, negative = (self.parts(bins) if self.gate is None else self.joined(bins)[:, None] for bins in batch)  # (n, scorers) or (n, 1)
        margin = one - negative
        loss = -nn.functional.logsigmoid(margin).sum()
        return loss + self.decay * len(margin) * sum((p**2).sum() for p in self.parameters()), len(margin)


class PreRec(MatrixModel):
    """The reconstruction of the paper's model; see the module's docstring."""

    knows: ClassVar[str] = "anything"

    def __init__(self, settings: PreRecSettings = PreRecSettings()):
        self.settings = settings

    def fit(self, train: csr_array, valid: csr_array | None = None) -> Self:
        """Learn from a matrix; ``valid`` chooses the weight of the two MLPs.

        Raises:
            DataError: fewer than 20 ones, too few to keep some as questions; none among them by chance; or no blank to hold them against.
        """
        train = with_ones(train, "PreRec")
        if train.nnz < 20:
            raise DataError(f"a matrix of {train.nnz} ones is too small to learn from; expected at least 20")
        settings, rng = self.settings, np.random.default_rng(self.settings.training.seed)
        user, item = rows_of(train), train.indices
        asked = rng.random(train.nnz) < settings.questions
        rest = matrix_of(user[~asked], item[~asked], train.shape) if settings.guard else train
        described = statistics_of(rest, settings.features, settings.families)
        user, item = user[asked], item[asked]
        judged = rng.random(len(user)) < 0.1  # of the questions, for early stopping
        if judged.all():  # or there are none
            raise DataError(f"none of {train.nnz} ones became a question to learn from; expected more ones, or questions above {settings.questions}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.training.seed)
            self.networks = Networks(settings)

        def pairs(chosen: np.ndarray, seed: int) -> tuple[Tensor, Tensor]:
            """(n, 8) bins of ones and of as many items that their users lack; without users of everything."""
            draw = not_taken if settings.negatives == "even" else popular_not_taken
            other = draw(train, user[chosen], np.random.default_rng((settings.training.seed, seed)))
            lacks = other >= 0
            mine = user[chosen][lacks]
            return tuple(bins_of(described, mine, i[lacks]) for i in (item[chosen], other))

        learned, kept = np.flatnonzero(~judged), pairs(np.flatnonzero(judged), 0)

        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            order = np.random.default_rng((settings.training.seed, epoch)).permutation(learned)
            ones, negatives = pairs(order, 1 + epoch)
            return zip(ones.split(settings.batch), negatives.split(settings.batch), strict=True)

        @torch.no_grad()
        def validate() -> float:
            return float(self.networks(kept)[0]) / len(kept[0])

        if not (np.diff(train.indptr)[user[learned]] < train.shape[1]).any():
            raise DataError(
                "no user of the questions lacks an item, so there is nothing that a one could be told from; expected blanks to learn from"
            )
        self.curve = train_networks(self.networks, batches, settings.training, validate if len(kept[0]) else None, title="PreRec", shares=False)
        self.bind(train)
        if settings.served == "learned":
            self.described = described
        given = 0.5 if settings.weight is None else settings.weight  # c: of f against g, where there are two
        chooses = settings.weight is None and valid is not None and valid.nnz and settings.combine == "two" and len(self.networks.scorers) == 2
        self.weight = self._best_weight(valid) if chooses else given
        return self

    def bind(self, train: csr_array) -> None:
        """Describe the matrix that is to be served; nothing is learned from it."""
        super().bind(train)
        self.described = statistics_of(self.train, self.settings.features, self.settings.families)

    def bare(self) -> Self:
        """A copy without the matrix that it was fitted on: what is left is all that moves to another one."""
        weights = copy.copy(self)
        weights.train = weights.described = None
        return weights

    def _best_weight(self, valid: csr_array) -> float:
        """The weight from 0 to 1, in tenths, with the best NDCG@20 on validation."""
        found = {}
        for weight in np.linspace(0, 1, 11).round(1).tolist():
            self.weight = weight
            found[weight] = validation_ndcg(self, valid, most=500)
        return max(found, key=found.get)

    def scores(self, users: np.ndarray) -> np.ndarray:
        """(n, I) float32. Users with equal bins have equal node scores, and pairs of one cluster equal pair scores: ties abound."""
        if self.settings.combine != "two":
            return self._written_out(users)
        weights = iter([self.weight, 1 - self.weight] if len(self.networks.scorers) == 2 else [1.0])
        total = np.zeros((len(users), len(self.described.items)), np.float32)
        for scorer in self.networks.scorers:
            part = self._pair_scores(scorer, users) if 6 in scorer.columns else self._node_scores(scorer, users)
            total += next(weights) * part
        return total

    @torch.no_grad()
    def _node_scores(self, scorer: BinnedMLP, users: np.ndarray) -> np.ndarray:
        """A look-up: there are far fewer different descriptions than nodes."""
        every = np.arange(len(self.described.items))
        (some, user), (kinds, item) = self.described.alike(users, every)
        nodes = self.described.nodes(np.repeat(some, len(kinds)), np.tile(kinds, len(some)))
        bins = torch.as_tensor(np.pad(nodes, ((0, 0), (0, 2))))
        table = torch.cat([scorer(part)[:, 0] for part in bins.split(100_000)]).cpu().numpy().reshape(len(some), len(kinds))
        return table[user[:, None], item]

    @torch.no_grad()
    def _pair_scores(self, scorer: BinnedMLP, users: np.ndarray) -> np.ndarray:
        bins = np.concatenate([np.zeros((len(self.described.pairs), 6), np.uint8), self.described.pairs], axis=1)
        return scorer(torch.as_tensor(bins))[:, 0].cpu().numpy()[self.described.clusters_of_users(users)]

    @torch.no_grad()
    def _written_out(self, users: np.ndarray) -> np.ndarray:
        n = len(self.described.items)
        flat = bins_of(self.described, np.repeat(users, n), np.tile(np.arange(n), len(users)))
        return torch.cat([self.networks.joined(some) for some in flat.split(100_000)]).cpu().numpy().reshape(len(users), n)

    def state(self) -> dict[str, Tensor]:
        """All that moves to another matrix: the weights of the MLPs and how to weigh them."""
        return self.networks.state_dict() | {"weight": torch.tensor(self.weight, dtype=torch.float64)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of ``state``; call ``bind`` with a matrix before ``scores``."""
        self.weight = float(state["weight"])
        with torch.random.fork_rng(devices=[]):  # the first weights are drawn, then replaced
            self.networks = Networks(self.settings)
        self.networks.load_state_dict({name: value for name, value in state.items() if name != "weight"})
        self.networks.to(pick_device(self.settings.training.device)).eval()


def bins_of(described: Statistics, user: np.ndarray, item: np.ndarray) -> Tensor:
    """(n, 8) uint8 bins of pairs, in the order of ``COLUMNS``; 0 where a family was not worked out."""
    return torch.as_tensor(np.concatenate([described.nodes(user, item), described.pairs[described.clusters_of(user, item)]], axis=1))


# ---------------------------------------------------------------- what PreRec is mixed with, and held against


class Interpolated(MatrixModel):
    """Another recommender and PreRec, weighed after both were trained: the stand-in for Equation 11 of the paper.

    ``s = α base + (1 − α) ours``, each standardised over the items of a user, so that neither's scale decides.
    """

    def __init__(self, base: MatrixModel, ours: MatrixModel, alpha: float = 0.5, standardise: bool = True):
        self.base, self.ours, self.alpha, self.standardise = base, ours, alpha, standardise

    def fit(self, train: csr_array, valid: csr_array | None = None) -> Self:
        """Fit both."""
        self.base.fit(train, valid)
        self.ours.fit(train, valid)
        self.bind(train)
        return self

    def scores(self, users: np.ndarray) -> np.ndarray:
        parts = [model.scores(users) for model in (self.base, self.ours)]
        if self.standardise:
            parts = [(p - p.mean(1, keepdims=True)) / np.maximum(p.std(1, keepdims=True), 1e-12) for p in parts]
        return np.float32(self.alpha) * parts[0] + np.float32(1 - self.alpha) * parts[1]


class BinnedPopularity(MatrixModel):
    """Items by the bin of their popularity: what PreRec can make of activity alone, since a user's own bin is the same for all items."""

    knows: ClassVar[str] = "anything"

    def __init__(self, features: FeatureSettings | None = None):
        self.features = features or FeatureSettings()

    def fit(self, train: csr_array, valid: csr_array | None = None) -> Self:
        self.bind(train)
        return self

    def bind(self, train: csr_array) -> None:
        super().bind(train)
        self.bins = statistics_of(self.train, self.features, ("activity",)).items[:, 0]

    def scores(self, users: np.ndarray) -> np.ndarray:
        return np.tile(self.bins.astype(np.float32), (len(users), 1))
