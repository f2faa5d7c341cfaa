"""Node2Vec: vectors of the nodes of a graph, learned from random walks (Grover and Leskovec 2016, KDD).

A walk that came from t to v goes on to a neighbour x of v with a probability proportional to α(t, x) w(v, x) (section 3.2 of the paper):

    α = 1/p  if x = t (back again),   1  if t and x are linked,   1/q  otherwise

so a small p keeps a walk near its start, and a small q drives it away. With p = q = 1 a step depends on v alone: DeepWalk's walks. Walks are
then read as sentences. A node u, for which a vector is learned, should tell which nodes c stand within a window around it, against
negatives drawn by their visits to the power 0.75 (skip-gram with negative sampling, Mikolov et al. 2013). Per pair, with σ the logistic function:

    L = -log σ(u·o_c) - Σ_negatives log σ(-u·o_neg),   u += η (1 - σ(u·o_c)) o_c - η Σ_negatives σ(u·o_neg) o_neg,   and likewise o

As in word2vec the reach of the window is drawn from 1 to ``window`` for every position, a negative that is c itself is left out, and η falls
linearly. What differs:

- The pairs of one window share their negatives, and all step from the same vectors (Ji et al. 2016), so that a window is three small matrix
  products; ``shared_negatives=False`` draws for every pair and updates after each, as word2vec does. ``make bench`` holds the vectors against
  those of gensim, which does the latter.
- No table of second order, whose size is the sum of squared degrees: a neighbour is drawn by weight alone and taken with probability
  α / max(1, 1/q). What 1/p has above that bound would make most draws vain, and becomes a draw of its own for the way back.

Cost: a walk of length l has about l (window + 1) pairs, each of 6 d (negatives + 1) operations: at d = 128, window 10 and 5 negatives 50,000
a position, against some hundred for its step. A position brings in its own rows and those of its negatives, and they go back: 8 d
(negatives + 2) bytes, 7 KB, so 7 operations a byte, since neighbours are still in the nearest cache from the position before. That leaves
arithmetic as the floor unless the matrices outgrow all caches. What a measured run loses against it: windows are small matrices, filled up
to blocks, whose sums end in shuffles, and every product of three passes over rows that are loaded anew.

Every walk and its negatives come from a generator of their own, keyed by seed, round and start, so walks do not depend on how many threads
make them, and with one thread the vectors are the same bit by bit. More threads share both matrices without locks (Niu et al. 2011,
Hogwild): as good on average, never twice the same.

Shape legend: n nodes, d dimension, l length of a walk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from numba import njit, prange
from rich.progress import track
from scipy import sparse

from zsrbook.audience import watched
from zsrbook.cache import kept
from zsrbook.data.dataset import DataError
from zsrbook.models.coordinate_descent import _canonical

#: sums may be reordered, as vector instructions need it; NaN and infinity keep their meaning
_FAST = {"fastmath": {"reassoc", "contract", "arcp", "nsz"}, "error_model": "numpy", "cache": True}
#: rows behind the last node, always zero, for what only fills up a block; several, as compilers go slowly where two rows of a block are one
_SPARE = 4
#: floats in a cache line; rows of the matrices begin with one
_LINE = 16
#: positions of walks in memory at a time; about a second of work
_BLOCK = 1 << 20
#: walks that go on in turn, so that a processor waits for the memory of several at once
_ABREAST = 16
#: the share of the learning rate that is left at the end; word2vec's
_LEAST = 1e-4
#: of the vectors in the cache; to be raised with any change that alters them
_VERSION = 1


@dataclass(frozen=True)
class Node2VecSettings:
    """One line a choice; the defaults are the paper's (section 4.2), and word2vec's where it is silent.

    Raises:
        DataError: a number is out of range.
    """

    dimension: int = 128  #: d; paper
    walks: int = 10  #: from each node; paper
    length: int = 80  #: l, nodes of a walk, its start among them; paper
    window: int = 10  #: farthest pair, in steps; paper
    p: float = 1.0  #: return parameter; below 1 a walk often goes straight back
    q: float = 1.0  #: in-out parameter; below 1 a walk moves away
    negatives: int = 5  #: a pair, or a window if they are shared; word2vec
    power: float = 0.75  #: of the visits of a node, to which its chance to be a negative is proportional; word2vec
    shared_negatives: bool = True  #: by the pairs of a window; see the head of the module
    epochs: int = 1  #: how often all walks are read; the authors' code
    learning_rate: float = 0.025  #: η at the start; word2vec
    seed: int = 0
    threads: int = 1  #: with more, two runs differ

    def __post_init__(self) -> None:
        for name in ("dimension", "walks", "length", "window", "negatives", "epochs", "threads"):
            if getattr(self, name) < 1:
                raise DataError(f"Node2Vec settings: {name} is {getattr(self, name)}; expected 1 or more")
        for name in ("p", "q", "learning_rate"):
            if not 0 < getattr(self, name) < np.inf:
                raise DataError(f"Node2Vec settings: {name} is {getattr(self, name)}; expected a number above 0")
        if not 0 <= self.power < np.inf:
            raise DataError(f"Node2Vec settings: power is {self.power}; expected 0 or more")
        if not 0 <= self.seed < 2**63:
            raise DataError(f"Node2Vec settings: seed is {self.seed}; expected 0 to 2⁶³ - 1")


def bipartite(matrix: sparse.csr_array) -> sparse.csr_array:
    """The graph of a (users, items) matrix: (users + items, users + items), users first; a non-zero links its user and its item.

    >>> bipartite(sparse.csr_array([[1, 0], [1, 1]])).toarray()
    array([[0., 0., 1., 0.],
           [0., 0., 1., 1.],
           [1., 1., 0., 0.],
           [0., 1., 0., 0.]], dtype=float32)
    """
    matrix = _canonical(matrix).astype(np.float32)
    users, items = (sparse.csr_array((size, size), dtype=np.float32) for size in matrix.shape)
    return sparse.csr_array(sparse.block_array([[users, matrix], [matrix.T, items]], format="csr"))


def walks(graph: sparse.csr_array, settings: Node2VecSettings = Node2VecSettings()) -> np.ndarray:
    """All walks, in the order in which an epoch of ``embed`` reads them.

    Args:
        graph: (n, n) symmetric, weights above 0, no self-loops.

    Returns:
        (walks · n, l) int32; a walk from an isolated node is that node and then -1.

    Raises:
        DataError: the graph is not such; the message names a link.
    """
    links = _Links.of(graph)
    return np.concatenate([links.walk(_order(links, settings, turn), turn, settings) for turn in range(settings.walks)])


def embed(graph: sparse.csr_array, settings: Node2VecSettings = Node2VecSettings()) -> np.ndarray:
    """(n, d) float32 vectors of all nodes; zeros for those without a link.

    Args: as ``walks``.

    Raises:
        DataError: as ``walks``.
        FloatingPointError: the learning rate is so high that the vectors overflow.
    """
    links = _Links.of(graph)
    n, d = len(links.begins) - 1, settings.dimension
    linked = np.diff(links.begins) > 0
    visits, total = np.zeros(n), settings.epochs * settings.walks * int(linked.sum())
    for _, block in _blocks(links, settings, linked, 1, "walks"):
        visits += np.bincount(block.ravel(), minlength=n)
    noise = _alias_tables(np.array([0, n]), np.where(linked, visits**settings.power, 0.0)) if linked.any() else None

    inputs, outputs = (_aligned(n + _SPARE, d) for _ in range(2))
    inputs[:n, :d][linked] = (np.random.default_rng(settings.seed).random((int(linked.sum()), d), np.float32) - 0.5) / d
    contexts, targets = _filled_up(2 * settings.window, 4), _filled_up(settings.negatives + 1, 3)
    space = [_aligned(settings.threads, *shape) for shape in ((contexts, d), (targets, d), (contexts, targets))]
    sampling = settings.window, settings.negatives, settings.shared_negatives
    for done, block in _blocks(links, settings, linked, settings.epochs, "Node2Vec"):
        rates = settings.learning_rate * np.maximum(1 - np.arange(done, done + len(block)) / total, _LEAST)
        _train(block, rates.astype(np.float32), _key(settings, 1), done, *sampling, *noise, inputs, outputs, *space)
    if not np.isfinite(inputs).all():
        raise FloatingPointError(f"Node2Vec: vectors are no longer finite; lower learning_rate ({settings.learning_rate})")
    return np.ascontiguousarray(inputs[:n, :d])


def cached(graph: sparse.csr_array, settings: Node2VecSettings = Node2VecSettings()) -> np.ndarray:
    """``embed``, memory-mapped from the cache, and computed first where it is not there yet; keyed by the graph and all settings."""
    graph = _canonical(graph)
    digest = hashlib.sha256(json.dumps([_VERSION, asdict(settings), graph.shape]).encode())
    for part, dtype in ((graph.indptr, np.int64), (graph.indices, np.int64), (graph.data, np.float64)):
        digest.update(part.astype(dtype).tobytes())
    return kept(f"node2vec/{digest.hexdigest()[:32]}", lambda: embed(graph, settings))


class _Links(NamedTuple):
    """A graph as the compiled functions take it. Where all weights are equal the last four have no elements."""

    begins: np.ndarray  #: (n + 1,) where the links of a node begin
    others: np.ndarray  #: (links,) the nodes at their ends, rising
    keep: np.ndarray  #: alias tables, by which a link is drawn by weight
    instead: np.ndarray
    weights: np.ndarray  #: (links,)
    sums: np.ndarray  #: (n,) of weights

    @classmethod
    def of(cls, graph: sparse.csr_array) -> _Links:
        """
        Raises:
            DataError: as ``walks``.
        """
        if not sparse.issparse(graph) or graph.ndim != 2 or graph.shape[0] != graph.shape[1] or not graph.shape[0]:
            shape = getattr(graph, "shape", type(graph).__name__)
            raise DataError(f"the graph is {shape}; expected a sparse (n, n) matrix of at least one node; of users × items `bipartite` makes one")
        graph = _canonical(graph)
        begins, others, weights = graph.indptr.astype(np.int64), graph.indices.astype(np.int32), graph.data.astype(np.float64)
        rows = np.repeat(np.arange(len(begins) - 1), np.diff(begins))

        def require(good: np.ndarray, what: str, expected: str) -> None:
            if not good.all():
                at = int(np.flatnonzero(~good)[0])
                where = f"the link from node {rows[at]} to node {others[at]} {what.format(weights[at])}"
                raise DataError(f"{where}; expected {expected} ({int((~good).sum())} such of {len(good)})")

        require((weights > 0) & (weights < np.inf), "weighs {:g}", "a number above 0; leave out of the matrix what is no link")
        require(rows != others, "is a self-loop", "none; `graph.setdiag(0)` takes them out")
        back = sparse.csr_array(graph.T).astype(np.float64)
        back.sort_indices()
        if not (np.array_equal(back.indices, others) and np.array_equal(back.indptr, begins) and np.array_equal(back.data, weights)):
            # the pairs that one direction lacks or weighs otherwise
            same = np.asarray(graph.astype(np.float64)[rows, others] == back[rows, others]).ravel()
            require(same, "weighs {:g}, but not so the way back", "an undirected graph, such as `graph.maximum(graph.T)`")
        if len(weights) == 0 or weights.min() == weights.max():
            return cls(begins, others, np.empty(0, np.uint32), np.empty(0, np.int32), np.empty(0), np.empty(0))
        return cls(begins, others, *_alias_tables(begins, weights), weights, np.bincount(rows, weights, len(begins) - 1))

    def walk(self, starts: np.ndarray, turn: int, settings: Node2VecSettings) -> np.ndarray:
        """(starts,) → (starts, l) int32."""
        n = len(self.begins) - 1
        keys = np.uint64(turn * n) + starts.astype(np.uint64)
        out = np.empty((len(starts), settings.length), np.int32)
        _walk(*self, starts, keys, _key(settings, 0), float(settings.p), float(settings.q), settings.threads, out)
        return out


def _order(links: _Links, settings: Node2VecSettings, turn: int) -> np.ndarray:
    """(n,) every node once, in the order of that turn."""
    return np.random.default_rng([settings.seed, turn]).permutation(len(links.begins) - 1)


def _key(settings: Node2VecSettings, stream: int) -> np.uint64:
    """Of one of the streams of random numbers: 0 for walks, 1 for windows and negatives."""
    return np.random.SeedSequence([settings.seed, stream]).generate_state(1, np.uint64)[0]


def _blocks(links: _Links, settings: Node2VecSettings, linked: np.ndarray, epochs: int, title: str) -> Iterator[tuple[int, np.ndarray]]:
    """The walks from all linked nodes in pieces, drawn once more in every epoch; with each piece how many walks came before."""
    size, count = max(1, _BLOCK // settings.length), int(linked.sum())
    turns = [turn for _ in range(epochs) for turn in range(settings.walks)]
    for done, turn in enumerate(track(turns, f"{title} on {len(linked):,} nodes", disable=not watched(), transient=True)):
        order = _order(links, settings, turn)
        order = order[linked[order]]
        for begin in range(0, count, size):
            yield done * count + begin, links.walk(order[begin : begin + size], turn, settings)


def _aligned(*shape: int) -> np.ndarray:
    """Zeros whose rows are whole cache lines: a vector instruction that straddles two of them takes twice as long."""
    *rows, width = shape
    width = _filled_up(width, _LINE)
    raw = np.zeros(int(np.prod(rows)) * width + _LINE, np.float32)
    first = -(raw.ctypes.data // 4) % _LINE
    return raw[first : first + len(raw) - _LINE].reshape(*rows, width)


def _filled_up(size: int, block: int) -> int:
    return -(-size // block) * block


# -- compiled: random numbers -----------------------------------------------------------------------------------------------------
# SplitMix64 (Steele et al. 2014): a counter that steps by a constant, and a mix of its bits. Upper and lower half of a number serve as two.

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
_LOWER = np.uint64(0xFFFFFFFF)


@njit(**_FAST)
def _mixed(x):
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(**_FAST)
def _counter(key, number):
    """Where the generator of one walk begins."""
    return _mixed(key + np.uint64(number) * _GOLDEN)


@njit(**_FAST)
def _below(random, n):
    """The upper half as a number from 0 to n - 1."""
    return np.int64(((random >> _HALF) * np.uint64(n)) >> _HALF)


@njit(**_FAST)
def _uniform(random):
    return np.float64(random >> np.uint64(11)) * 2.0**-53


@njit(**_FAST)
def _alias_tables(begins, weights):
    """Tables (Walker 1977) by which one of the weights between two ``begins`` is drawn in one step.

    Returns:
        ``keep`` uint32, the chance in units of 2⁻³² to keep what was drawn evenly, and ``instead`` int32, what to take otherwise, counted
        from the begin.
    """
    keep, instead = np.empty(len(weights), np.uint32), np.empty(len(weights), np.int32)
    for row in range(len(begins) - 1):
        first, n = begins[row], begins[row + 1] - begins[row]
        rest = weights[first : first + n] * (n / max(weights[first : first + n].sum(), 1e-300))
        order = np.empty(n, np.int32)  # from the front those that have less than their share left, from the back the others
        few, many = 0, n
        for k in range(n):
            if rest[k] < 1:
                order[few] = k
                few += 1
            else:
                many -= 1
                order[many] = k
        while few > 0 and many < n:
            few -= 1
            poor, rich = order[few], order[many]
            keep[first + poor], instead[first + poor] = np.uint32(rest[poor] * 2.0**32), rich
            rest[rich] -= 1 - rest[poor]
            if rest[rich] < 1:
                many += 1
                order[few] = rich
                few += 1
        for k in range(n):  # what is left has its whole share, but for rounding
            if k < few or k >= many:
                keep[first + order[k]], instead[first + order[k]] = _LOWER, order[k]
    return keep, instead


@njit(**_FAST)
def _drawn(random, keep, instead, first, n):
    """One of n by the table that begins at ``first``, as an index of it."""
    k = first + _below(random, n)
    return k if (random & _LOWER) < np.uint64(keep[k]) else first + np.int64(instead[k])


# -- compiled: walks --------------------------------------------------------------------------------------------------------------


@njit(**_FAST)
def _by_weight(begins, keep, instead, v, random):
    """Index of a link of v."""
    first, n = begins[v], begins[v + 1] - begins[v]
    return _drawn(random, keep, instead, first, n) if len(keep) else first + _below(random, n)


@njit(**_FAST)
def _position(others, first, end, node):
    """Where the node stands, or would stand, among the rising ``others[first:end]``."""
    while first < end:
        middle = (first + end) >> 1
        if others[middle] < node:
            first = middle + 1
        else:
            end = middle
    return first


@njit(**_FAST)
def _linked(begins, others, a, b):
    """Looked up at the end that has fewer links."""
    if begins[a + 1] - begins[a] > begins[b + 1] - begins[b]:
        a, b = b, a
    at = _position(others, begins[a], begins[a + 1], b)
    return at < begins[a + 1] and others[at] == b


@njit(**_FAST)
def _onward(begins, others, keep, instead, weights, sums, t, v, came, p, q, counter):
    """Index of the link by which a walk goes on that came from t to v by link ``came``; and the counter."""
    bound = max(1.0, 1 / q)  # of α, but for the way back
    total = bound * (sums[v] if len(sums) else begins[v + 1] - begins[v])
    back = max(0.0, 1 / p - bound) * (weights[came] if len(weights) else 1.0)
    while True:
        if back > 0:
            counter += _GOLDEN
            if _uniform(_mixed(counter)) * (total + back) < back:
                return _position(others, begins[v], begins[v + 1], t), counter
        link = _by_weight(begins, keep, instead, v, _mixed(counter + _GOLDEN))
        counter += _GOLDEN + _GOLDEN
        x, level = others[link], _uniform(_mixed(counter)) * bound
        if x == t:
            taken = level < 1 / p
        elif level < min(1.0, 1 / q):
            taken = True
        else:
            taken = level < (1.0 if _linked(begins, others, t, x) else 1 / q)
        if taken:
            return link, counter


@njit(parallel=True, **_FAST)
def _walk(begins, others, keep, instead, weights, sums, starts, numbers, key, p, q, threads, out):
    """Every row of ``out``, of which the first is ``starts``."""
    first_order = p == 1 and q == 1
    length = out.shape[1]
    for piece in prange(threads):
        counters, came = np.empty(_ABREAST, np.uint64), np.empty(_ABREAST, np.int64)
        for first in range(len(starts) * piece // threads, len(starts) * (piece + 1) // threads, _ABREAST):
            abreast = min(_ABREAST, len(starts) * (piece + 1) // threads - first)
            for a in range(abreast):
                counters[a] = _counter(key, numbers[first + a])
                out[first + a, 0] = starts[first + a]
            for step in range(1, length):
                for a in range(abreast):
                    row = out[first + a]
                    v = row[step - 1]
                    if v < 0 or begins[v] == begins[v + 1]:
                        row[step] = -1
                        continue
                    if first_order or step == 1:
                        counters[a] += _GOLDEN
                        link = _by_weight(begins, keep, instead, v, _mixed(counters[a]))
                    else:
                        link, counter = _onward(begins, others, keep, instead, weights, sums, row[step - 2], v, came[a], p, q, counters[a])
                        counters[a] = counter
                    came[a], row[step] = link, others[link]


# -- compiled: skip-gram ----------------------------------------------------------------------------------------------------------
# Rows come in blocks of four contexts and three targets: as many products as stay in registers. What fills up the last block are spare
# rows, with slope 0. Arrays are passed whole and indexed by number: a view of a row costs as much as ten of its products.


@njit(**_FAST)
def _gather(matrix, rows, n_rows, into):
    for a in range(n_rows):
        row = rows[a]
        for f in range(into.shape[1]):
            into[a, f] = matrix[row, f]


@njit(**_FAST)
def _products(X, Y, n_contexts, n_targets, products):
    """x·y of every context and target."""
    zero = np.float32(0)
    for b in range(0, n_contexts, 4):
        for k in range(0, n_targets, 3):
            s00 = s01 = s02 = s10 = s11 = s12 = s20 = s21 = s22 = s30 = s31 = s32 = zero
            for f in range(X.shape[1]):
                x0, x1, x2, x3 = X[b, f], X[b + 1, f], X[b + 2, f], X[b + 3, f]
                y0, y1, y2 = Y[k, f], Y[k + 1, f], Y[k + 2, f]
                s00 += x0 * y0
                s01 += x0 * y1
                s02 += x0 * y2
                s10 += x1 * y0
                s11 += x1 * y1
                s12 += x1 * y2
                s20 += x2 * y0
                s21 += x2 * y1
                s22 += x2 * y2
                s30 += x3 * y0
                s31 += x3 * y1
                s32 += x3 * y2
            products[b, k], products[b, k + 1], products[b, k + 2] = s00, s01, s02
            products[b + 1, k], products[b + 1, k + 1], products[b + 1, k + 2] = s10, s11, s12
            products[b + 2, k], products[b + 2, k + 1], products[b + 2, k + 2] = s20, s21, s22
            products[b + 3, k], products[b + 3, k + 1], products[b + 3, k + 2] = s30, s31, s32


@njit(**_FAST)
def _logistic(x):
    """σ up to 3e-7: 1/2 + tanh(x/2)/2, with Lambert's fraction for the hyperbolic tangent of x/4; without a branch or a table, for vectors."""
    y = min(max(x, np.float32(-16)), np.float32(16)) * np.float32(0.25)
    z = y * y
    above = y * (np.float32(10395) + z * (np.float32(1260) + np.float32(21) * z))
    below = np.float32(10395) + z * (np.float32(4725) + z * (np.float32(210) + z))
    return np.float32(0.5) + above * below / (below * below + above * above)


@njit(**_FAST)
def _step_inputs(inputs, rows, n_rows, Y, n_targets, slopes):
    """Every row of the inputs by its slopes along the targets."""
    for b in range(0, n_rows, 4):
        r0, r1, r2, r3 = rows[b], rows[b + 1], rows[b + 2], rows[b + 3]
        for k in range(0, n_targets, 3):
            g00, g01, g02 = slopes[b, k], slopes[b, k + 1], slopes[b, k + 2]
            g10, g11, g12 = slopes[b + 1, k], slopes[b + 1, k + 1], slopes[b + 1, k + 2]
            g20, g21, g22 = slopes[b + 2, k], slopes[b + 2, k + 1], slopes[b + 2, k + 2]
            g30, g31, g32 = slopes[b + 3, k], slopes[b + 3, k + 1], slopes[b + 3, k + 2]
            for f in range(Y.shape[1]):
                y0, y1, y2 = Y[k, f], Y[k + 1, f], Y[k + 2, f]
                inputs[r0, f] += g00 * y0 + g01 * y1 + g02 * y2
                inputs[r1, f] += g10 * y0 + g11 * y1 + g12 * y2
                inputs[r2, f] += g20 * y0 + g21 * y1 + g22 * y2
                inputs[r3, f] += g30 * y0 + g31 * y1 + g32 * y2


@njit(**_FAST)
def _step_outputs(outputs, rows, n_rows, X, n_contexts, slopes):
    """Every row of the outputs by its slopes along the contexts."""
    for k in range(0, n_rows, 3):
        r0, r1, r2 = rows[k], rows[k + 1], rows[k + 2]
        for b in range(0, n_contexts, 4):
            g00, g01, g02 = slopes[b, k], slopes[b, k + 1], slopes[b, k + 2]
            g10, g11, g12 = slopes[b + 1, k], slopes[b + 1, k + 1], slopes[b + 1, k + 2]
            g20, g21, g22 = slopes[b + 2, k], slopes[b + 2, k + 1], slopes[b + 2, k + 2]
            g30, g31, g32 = slopes[b + 3, k], slopes[b + 3, k + 1], slopes[b + 3, k + 2]
            for f in range(X.shape[1]):
                x0, x1, x2, x3 = X[b, f], X[b + 1, f], X[b + 2, f], X[b + 3, f]
                outputs[r0, f] += g00 * x0 + g10 * x1 + g20 * x2 + g30 * x3
                outputs[r1, f] += g01 * x0 + g11 * x1 + g21 * x2 + g31 * x3
                outputs[r2, f] += g02 * x0 + g12 * x1 + g22 * x2 + g32 * x3


@njit(**_FAST)
def _update(contexts, counts, n_contexts, targets, n_targets, rate, inputs, outputs, X, Y, slopes):
    """One step for all pairs of contexts, each of which counts so often, and targets, of which the first is the positive.

    Both lists are filled up here.
    """
    spare = len(inputs) - _SPARE
    while n_contexts % 4:
        contexts[n_contexts], counts[n_contexts] = spare + n_contexts % 4, 0
        n_contexts += 1
    while n_targets % 3:
        targets[n_targets] = spare + n_targets % 3
        n_targets += 1
    _gather(inputs, contexts, n_contexts, X)  # all step from where they stand now
    _gather(outputs, targets, n_targets, Y)
    _products(X, Y, n_contexts, n_targets, slopes)
    for b in range(n_contexts):
        weight = rate * counts[b]
        for k in range(slopes.shape[1]):
            slopes[b, k] = -weight * _logistic(slopes[b, k])
        slopes[b, 0] += weight
    for k in range(1, n_targets):
        if targets[k] >= spare:
            for b in range(n_contexts):
                slopes[b, k] = np.float32(0)
    _step_inputs(inputs, contexts, n_contexts, Y, n_targets, slopes)
    _step_outputs(outputs, targets, n_targets, X, n_contexts, slopes)


@njit(**_FAST)
def _draw_negatives(keep, instead, negatives, spare, counter, targets):
    """Those behind the first of ``targets``, none of which is the first: there a spare row stands instead. Returns the counter."""
    for k in range(1, negatives + 1):
        counter += _GOLDEN
        node = _drawn(_mixed(counter), keep, instead, 0, len(keep))
        targets[k] = spare + k % 3 if node == targets[0] else node
    return counter


@njit(**_FAST)
def _train_walk(block, i, rate, counter, window, negatives, shared, keep, instead, inputs, outputs, contexts, counts, targets, X, Y, slopes):
    """Every position of walk i with those around it."""
    length, spare = block.shape[1], len(inputs) - _SPARE
    for at in range(length):
        counter += _GOLDEN
        reach = 1 + _below(_mixed(counter), window)
        targets[0] = block[i, at]
        n_contexts = 0
        for near in range(max(0, at - reach), min(length, at + reach + 1)):
            if near == at:
                continue
            node, seen = block[i, near], 0
            while seen < n_contexts and contexts[seen] != node:
                seen += 1
            if seen == n_contexts:
                contexts[seen], counts[seen] = node, 0
                n_contexts += 1
            counts[seen] += 1
            if not shared:
                counter = _draw_negatives(keep, instead, negatives, spare, counter, targets)
                _update(contexts, counts, 1, targets, negatives + 1, rate, inputs, outputs, X, Y, slopes)
                n_contexts = 0
        if n_contexts:
            counter = _draw_negatives(keep, instead, negatives, spare, counter, targets)
            _update(contexts, counts, n_contexts, targets, negatives + 1, rate, inputs, outputs, X, Y, slopes)


@njit(parallel=True, **_FAST)
def _train(block, rates, key, done, window, negatives, shared, keep, instead, inputs, outputs, X, Y, slopes):
    """Reads (walks, l) of a block, each walk at its rate, and steps both matrices; X, Y and ``slopes`` are space for each thread."""
    n_walks, threads = len(block), len(X)
    for piece in prange(threads):
        contexts, counts, targets = np.empty(X.shape[1], np.int64), np.empty(X.shape[1], np.float32), np.empty(Y.shape[1], np.int64)
        x, y, g = X[piece], Y[piece], slopes[piece]
        for i in range(n_walks * piece // threads, n_walks * (piece + 1) // threads):
            counter = _counter(key, done + i)
            _train_walk(block, i, rates[i], counter, window, negatives, shared, keep, instead, inputs, outputs, contexts, counts, targets, x, y, g)
