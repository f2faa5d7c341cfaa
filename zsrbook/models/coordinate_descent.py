"""Square losses over all pairs, minimised by implicit coordinate descent: the solver of STL, ZSL_ME and ZSL_TE (Wu et al. 2020, CIKM).

An item i has a vector v_i, and every task has contexts j with vectors x_j: words, neighbours, or neighbours' texts. A positive pair, which
weighs α_ij, should have the product 1, and every other pair, which weighs ω, the product 0 (section 4 of the paper):

    L = Σ_positives [α (v_i·x_j - 1)² - ω (v_i·x_j)²] + ω Σ_i,j (v_i·x_j)² + λ |θ|²

The second sum is over all pairs, and yet costs d² numbers, ⟨VᵀV, XᵀX⟩, so that L and its derivatives cost what the positives cost (Bayer
et al., WWW 2017). L is quadratic in the coordinates of a vector; a sweep sets four at a time to their minimum given all others, so L never rises.

    STL      Factorisation([Task(item × word)])                             θ = V, W
    ZSL_ME   Factorisation([Task(item × word), Task(item × neighbour)])     θ = V, W, U: all contexts side by side, V against all of them
    ZSL_TE   Factorisation([Task(item × neighbour, encoder=neighbour × word)])   θ = V, W; x_j = Σ_w ā_jw w_w, the mean of its words (Eq. 2)

What a sweep does, and its cost with d coordinates:

- The items are independent given X, so a core takes an item, all coordinates of it. For a coordinate f with c_j = (α_j - ω) v·x_j - α_j,
  L'/2 = Σ_j c_j x_jf + ω (J v)_f + λ v_f and L''/2 = Σ_j (α_j - ω) x_jf² + ω J_ff + λ, where J = XᵀX and j runs over the positives of the item.
- Four coordinates at a time share a pass over the positives: it brings c up to date for the last four and collects L' and the 4 × 4 of
  second derivatives of the next, which are solved. One at a time would read memory four times as often, and need about a seventh more
  sweeps; eight would need half as many passes, but twice the arithmetic for the second derivatives.
- Contexts that are free go the same way. The words of an encoder are coupled through the texts that share them and come one after another,
  on one core; what the neighbours add to L' and L'' of a text's vector is collected first, in parallel.
- O(d (nnz(positives) + nnz(encoder)) + d² (items + contexts + words)) operations. c is computed anew in each sweep, so rounding does not add up.

Nothing is summed across cores, so the result does not depend on how many there are (``NUMBA_NUM_THREADS``). ``coordinate_descent_gpu``
has the same for a graphics card.

Shape legend: n items, d width, m contexts of all tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit, prange
from scipy import sparse

#: coordinates that share a pass; the vectors are padded with zeros, which stay zero, to a multiple of it
_BLOCK = 4
#: how many pieces of equal cost the rows are cut into, for the cores to share
_PIECES = 256
#: sums may be reordered, as vector instructions need it; NaN and infinity keep their meaning
_FAST = {"fastmath": {"reassoc", "contract", "nsz"}, "error_model": "numpy", "cache": True}


@dataclass(frozen=True, eq=False)
class Task:
    """Items and the contexts that should give them.

    Attributes:
        positives: (n, contexts) sparse, the weight α of each positive pair, such as from ``reweighted``.
        encoder: (contexts, words) sparse, such as from ``averaging``: the contexts' vectors are ``encoder @ W``. None: they are free.
    """

    positives: sparse.csr_array
    encoder: sparse.csr_array | None = None


class Vectors(NamedTuple):
    """All that is learned.

    Attributes:
        items: (n, d), V.
        contexts: of each task (contexts, d), or (words, d) if it has an encoder.
    """

    items: np.ndarray
    contexts: list[np.ndarray]


def reweighted(positives: sparse.csr_array) -> sparse.csr_array:
    """α_ij = r_i c_j for the non-zeros of a matrix, so that popular rows and columns do not dominate (section 4.3 of the paper).

    r is proportional to 1/√nnz of the row, with mean 1 over the rows that have non-zeros, and c likewise for the columns. The values are
    not read.

    >>> reweighted(sparse.csr_array([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]])).toarray().round(2)
    array([[0.51, 0.72, 0.72, 0.72],
           [1.02, 0.  , 0.  , 0.  ],
           [0.  , 0.  , 0.  , 0.  ]], dtype=float32)
    """
    positives = _canonical(positives)
    rows, columns = np.diff(positives.indptr), np.bincount(positives.indices, minlength=positives.shape[1])
    r, c = (1 / np.sqrt(np.maximum(count, 1)) / np.mean(1 / np.sqrt(count[count > 0]) if count.any() else 1.0) for count in (rows, columns))
    alpha = np.repeat(r, rows) * c[positives.indices]
    return sparse.csr_array((alpha.astype(np.float32), positives.indices, positives.indptr), shape=positives.shape)


def averaging(words: sparse.csr_array) -> sparse.csr_array:
    """Rows that sum to 1, of (texts, words) counts or ones: times the words' vectors, the mean of each text's. An empty text stays empty.

    >>> averaging(sparse.csr_array([[1, 1], [0, 3], [0, 0]])).toarray()
    array([[0.5, 0.5],
           [0. , 1. ],
           [0. , 0. ]], dtype=float32)
    """
    words = _canonical(words)
    total = np.asarray(words.sum(1), np.float64).ravel()
    share = words.data / np.repeat(total, np.diff(words.indptr))
    return sparse.csr_array((share.astype(np.float32), words.indices, words.indptr), shape=words.shape)


class Factorisation:
    """Vectors of items and contexts, and the sweeps that improve them.

    Args:
        tasks: over the same items.
        width: d.
        omega: ω, the weight of every pair that is no positive.
        lam: λ, of the squared length of everything learned.
        seed: of the start, normal with mean 0 and standard deviation 0.1/√d.
        start: vectors to go on from. Their rows keep their place and their values; rows that came since stand behind them and start at random.
        dtype: of all vectors; sums over rows are in float64 in any case.

    Raises:
        ValueError: shapes do not fit, a number is out of range, or the weight of a positive is not above 0.

    >>> texts = sparse.csr_array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]])
    >>> found = Factorisation([Task(reweighted(texts))], width=2, omega=0.1, lam=0.01)
    >>> for _ in range(100):
    ...     found.sweep()
    >>> V, (W,) = found.vectors
    >>> (V @ W.T).round(1) + 0  # -0.0 is 0.0
    array([[1., 1., 0., 0.],
           [1., 1., 0., 0.],
           [0., 0., 1., 1.]], dtype=float32)
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        width: int,
        omega: float,
        lam: float,
        seed: int = 0,
        start: Vectors | None = None,
        dtype: type[np.floating] = np.float32,
    ):
        positives = [_canonical(task.positives) for task in tasks]
        _check(tasks, positives, width, omega, lam)
        self.width, self.omega, self.lam, self.dtype = width, omega, lam, np.dtype(dtype)
        encoders = [None if task.encoder is None else _canonical(task.encoder) for task in tasks]
        self._links = _Links.of(sparse.hstack(positives, format="csr") if len(tasks) > 1 else positives[0], self.dtype)
        self._backward = [_Links.of(matrix.T, self.dtype) for matrix in positives]
        self._texts = [None if encoder is None else _Links.of(encoder, self.dtype) for encoder in encoders]
        self._occurrences = [None if encoder is None else _Links.of(encoder.T, self.dtype) for encoder in encoders]

        rng = np.random.default_rng(seed)
        sizes = [matrix.shape[1] for matrix in positives]
        free = [size if encoder is None else encoder.shape[1] for size, encoder in zip(sizes, encoders, strict=True)]
        if start is not None and len(start.contexts) != len(tasks):
            raise ValueError(f"start has the contexts of {len(start.contexts)} tasks, but there are {len(tasks)}")
        self._items = self._started(rng, "items", positives[0].shape[0], None if start is None else start.items)
        self._x = np.zeros((sum(sizes), self._items.shape[1]), self.dtype)
        self._of_task = np.split(self._x, np.cumsum(sizes)[:-1])  # views
        self._contexts = []
        for t, (rows, x, texts) in enumerate(zip(free, self._of_task, self._texts, strict=True)):
            drawn = self._started(rng, f"contexts of task {t}", rows, None if start is None else start.contexts[t])
            if texts is None:
                x[:] = drawn
            else:
                _encode(*texts, drawn, x)
            self._contexts.append(x if texts is None else drawn)

    @property
    def vectors(self) -> Vectors:
        """What is learned so far: views, which the next sweep changes."""
        return Vectors(self._items[:, : self.width], [x[:, : self.width] for x in self._contexts])

    def sweep(self) -> None:
        """Sets all coordinates to their minimum given the others, four of a vector at a time: of items, then of each task's contexts or words."""
        omega = self.dtype.type(self.omega)
        _fit_rows(*self._links, omega, self._x, self._everywhere(self._x, self.lam), self._items)
        for x, backward, texts, occurrences, contexts in zip(
            self._of_task, self._backward, self._texts, self._occurrences, self._contexts, strict=True
        ):
            if texts is None:
                _fit_rows(*backward, omega, self._items, self._everywhere(self._items, self.lam), x)
            else:
                self._fit_words(x, backward, texts, occurrences, contexts)

    def objective(self) -> float:
        """L at the present vectors, over all pairs."""
        on_positives = _losses(*self._links, self.omega, self._items, self._x).sum()
        gram = _gram(self._items)
        squares = np.trace(gram) + sum(np.trace(_gram(x)) for x in self._contexts)
        return float(on_positives + self.omega * (gram * _gram(self._x)).sum() + self.lam * squares)

    def _started(self, rng: np.random.Generator, what: str, rows: int, start: np.ndarray | None) -> np.ndarray:
        vectors = np.zeros((rows, -(-self.width // _BLOCK) * _BLOCK), self.dtype)
        vectors[:, : self.width] = rng.normal(0, 0.1 / np.sqrt(self.width), (rows, self.width))
        if start is not None:
            if start.ndim != 2 or len(start) > rows or start.shape[1] != self.width:
                raise ValueError(
                    f"start has {what} of shape {start.shape}; expected at most {rows} rows of width {self.width}. "
                    "Rows keep their place from one fit to the next: new ones come behind, and old ones stay, even without positives."
                )
            vectors[: len(start), : self.width] = start
        return vectors

    def _everywhere(self, x: np.ndarray, lam: float) -> np.ndarray:
        """(d, d) half the second derivatives of a row by its coordinates that do not depend on its positives: ω J + λ I."""
        return (self.omega * _gram(x) + lam * np.eye(x.shape[1])).astype(self.dtype)

    def _fit_words(self, x: np.ndarray, backward: _Links, texts: _Links, occurrences: _Links, words: np.ndarray) -> None:
        omega, lam = self.dtype.type(self.omega), self.dtype.type(self.lam)
        everywhere = self._everywhere(self._items, 0.0)
        slopes = np.empty(len(backward.others), self.dtype)
        _all_slopes(*backward, omega, self._items, x, slopes)
        sums = np.empty((len(x), 16), self.dtype)  # 14 are used, 16 are a cache line
        steps, before = np.zeros((len(words), _BLOCK), self.dtype), np.zeros((len(self._items), _BLOCK), self.dtype)
        for first in range(0, words.shape[1], _BLOCK):
            now = self._items[:, first : first + _BLOCK]
            _collect(*backward, *texts[1:], omega, np.hstack([before, now]), everywhere, x, slopes, steps, first, sums)
            _step_words(*occurrences[1:], lam, sums, first, words, steps)
            before = now
        _encode(*texts, words, x)  # anew, so that rounding does not add up


class _Links(NamedTuple):
    """A sparse matrix by rows, as the compiled functions take it."""

    pieces: np.ndarray  #: where to cut the rows into pieces that cost about the same
    begins: np.ndarray  #: where the non-zeros of a row begin
    others: np.ndarray  #: their columns
    weights: np.ndarray  #: their values

    @classmethod
    def of(cls, matrix: sparse.sparray, dtype: np.dtype) -> _Links:
        matrix = matrix.tocsr()
        cost = matrix.indptr + 10.0 * np.arange(len(matrix.indptr))  # a row without non-zeros costs about as much as ten of these
        pieces = np.searchsorted(cost, np.linspace(0, cost[-1], _PIECES + 1))
        return cls(np.unique(pieces), matrix.indptr.astype(np.int64), matrix.indices.astype(np.uint32), matrix.data.astype(dtype))


def _canonical(matrix: sparse.csr_array) -> sparse.csr_array:
    """By rows, each pair once, no stored zeros."""
    matrix = sparse.csr_array(matrix)
    if not matrix.has_canonical_format or not matrix.data.all():
        matrix = matrix.copy()
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
    return matrix


def _check(tasks: Sequence[Task], positives: Sequence[sparse.csr_array], width: int, omega: float, lam: float) -> None:
    if not tasks:
        raise ValueError("no task to learn from; expected one or more")
    for name, value, least in (("width", width, 1), ("omega", omega, 0), ("lam", lam, 0)):
        if not least <= value < np.inf:
            raise ValueError(f"{name} is {value}; expected {least} or more")
    for t, (task, matrix) in enumerate(zip(tasks, positives, strict=True)):
        if matrix.shape[0] != positives[0].shape[0]:
            raise ValueError(f"task {t} has {matrix.shape[0]} items, task 0 has {positives[0].shape[0]}; all tasks need the same items, as rows")
        if task.encoder is not None and task.encoder.shape[0] != matrix.shape[1]:
            raise ValueError(f"task {t} has {matrix.shape[1]} contexts, but its encoder has rows for {task.encoder.shape[0]}")
        low = np.flatnonzero(~((matrix.data > 0) & (matrix.data < np.inf)))
        if len(low):
            at = int(low[0])
            row, column = int(np.searchsorted(matrix.indptr, at, "right")) - 1, int(matrix.indices[at])
            raise ValueError(
                f"task {t}, item {row}, context {column}: a positive weighs {matrix.data[at]:g}; expected a number above 0 "
                f"({len(low)} such of {matrix.nnz}). Leave pairs that should not count out of the matrix."
            )


def _gram(x: np.ndarray) -> np.ndarray:
    """(rows, d) → (d, d) xᵀx, summed in float64 over pieces that keep float32 exact enough and fast."""
    return sum((piece.T @ piece for piece in np.split(x, range(4096, len(x), 4096))), np.zeros((x.shape[1],) * 2))


# -- compiled ---------------------------------------------------------------------------------------------------------------------
# What they share: a row has links, to ``others`` in X, each with its weight α; ``everywhere`` is ω J (+ λ I); slopes are c.


@njit(**_FAST)
def _dot(a, b):
    total = a.dtype.type(0)
    for f in range(len(a)):
        total += a[f] * b[f]
    return total


@njit(**_FAST)
def _row_slopes(others, weights, omega, X, v, c):
    """c_j = (α_j - ω) v·x_j - α_j for the links of a row."""
    for k in range(len(others)):
        c[k] = (weights[k] - omega) * _dot(X[others[k]], v) - weights[k]


@njit(**_FAST)
def _pass(others, weights, omega, X, c, last, steps, first, sums):
    """One pass over the links of a row: c follows ``steps`` of the coordinates from ``last``; L'/2 and L''/2 of those from ``first`` are added.

    ``sums``: L'/2 of the four, then the lower triangle of their (4, 4) second derivatives, row by row.
    """
    s0, s1, s2, s3 = steps
    p0, p1, p2, p3, h00, h10, h11, h20, h21, h22, h30, h31, h32, h33 = sums
    for k in range(len(others)):
        x = X[others[k]]
        w = weights[k] - omega
        e = c[k] + w * (s0 * x[last] + s1 * x[last + 1] + s2 * x[last + 2] + s3 * x[last + 3])
        c[k] = e
        x0, x1, x2, x3 = x[first], x[first + 1], x[first + 2], x[first + 3]
        w0, w1, w2, w3 = w * x0, w * x1, w * x2, w * x3
        p0 += e * x0
        p1 += e * x1
        p2 += e * x2
        p3 += e * x3
        h00 += w0 * x0
        h10 += w1 * x0
        h11 += w1 * x1
        h20 += w2 * x0
        h21 += w2 * x1
        h22 += w2 * x2
        h30 += w3 * x0
        h31 += w3 * x1
        h32 += w3 * x2
        h33 += w3 * x3
    return p0, p1, p2, p3, h00, h10, h11, h20, h21, h22, h30, h31, h32, h33


@njit(**_FAST)
def _inverse(pivot, curvature):
    """Of a pivot; 0, which leaves its coordinate where it is, if the others say all that it could, or if it is one of padding without λ.

    In the type of the pivot: a plain 1 or 0 would make every sum after it a float64, and the passes take half as long again.
    """
    real = type(pivot)
    return real(1) / pivot if pivot > 1e-5 * curvature else pivot * real(0)  # NaN stays NaN


@njit(**_FAST)
def _four_steps(sums):
    """To the minimum over four coordinates: H s = -p by elimination, with nothing but numbers that stay in registers."""
    p0, p1, p2, p3, h00, h10, h11, h20, h21, h22, h30, h31, h32, h33 = sums
    i0 = _inverse(h00, h00)
    l10, l20, l30 = h10 * i0, h20 * i0, h30 * i0
    i1 = _inverse(h11 - l10 * h10, h11)
    e21, e31 = h21 - l10 * h20, h31 - l10 * h30
    l21, l31 = e21 * i1, e31 * i1
    i2 = _inverse(h22 - l20 * h20 - l21 * e21, h22)
    e32 = h32 - l20 * h30 - l21 * e31
    l32 = e32 * i2
    i3 = _inverse(h33 - l30 * h30 - l31 * e31 - l32 * e32, h33)
    y1 = p1 - l10 * p0
    y2 = p2 - l20 * p0 - l21 * y1
    y3 = p3 - l30 * p0 - l31 * y1 - l32 * y2
    s3 = -y3 * i3
    s2 = -y2 * i2 - l32 * s3
    s1 = -y1 * i1 - l21 * s2 - l31 * s3
    s0 = -p0 * i0 - l10 * s1 - l20 * s2 - l30 * s3
    return s0, s1, s2, s3


@njit(**_FAST)
def _from_everywhere(everywhere, b, p0, p1, p2, p3):
    """The sums of ``_pass`` before the first link: slopes, and second derivatives of the four coordinates from ``b``."""
    h = everywhere[b : b + 4, b : b + 4]
    return p0, p1, p2, p3, h[0, 0], h[1, 0], h[1, 1], h[2, 0], h[2, 1], h[2, 2], h[3, 0], h[3, 1], h[3, 2], h[3, 3]


@njit(parallel=True, **_FAST)
def _fit_rows(pieces, begins, others, weights, omega, X, everywhere, V):
    """Every coordinate of every row of V once, given X."""
    d = V.shape[1]
    zero = V.dtype.type(0)
    for piece in prange(len(pieces) - 1):
        longest = 0
        for i in range(pieces[piece], pieces[piece + 1]):
            longest = max(longest, begins[i + 1] - begins[i])
        slopes, r = np.empty(longest, V.dtype), np.empty(d, V.dtype)
        for i in range(pieces[piece], pieces[piece + 1]):
            near, weight, v = others[begins[i] : begins[i + 1]], weights[begins[i] : begins[i + 1]], V[i]
            c = slopes[: len(near)]
            _row_slopes(near, weight, omega, X, v, c)
            r[:] = zero  # everywhere @ v, kept up to date
            for f in range(d):
                s = v[f]
                for g in range(d):
                    r[g] += s * everywhere[f, g]
            last, steps = 0, (zero, zero, zero, zero)
            for b in range(0, d, 4):
                sums = _from_everywhere(everywhere, b, r[b], r[b + 1], r[b + 2], r[b + 3])
                steps = _four_steps(_pass(near, weight, omega, X, c, last, steps, b, sums))
                s0, s1, s2, s3 = steps
                v[b] += s0
                v[b + 1] += s1
                v[b + 2] += s2
                v[b + 3] += s3
                for g in range(d):
                    r[g] += s0 * everywhere[b, g] + s1 * everywhere[b + 1, g] + s2 * everywhere[b + 2, g] + s3 * everywhere[b + 3, g]
                last = b


@njit(parallel=True, **_FAST)
def _all_slopes(pieces, begins, others, weights, omega, X, V, slopes):
    for piece in prange(len(pieces) - 1):
        for i in range(pieces[piece], pieces[piece + 1]):
            _row_slopes(others[begins[i] : begins[i + 1]], weights[begins[i] : begins[i + 1]], omega, X, V[i], slopes[begins[i] : begins[i + 1]])


@njit(parallel=True, **_FAST)
def _encode(pieces, begins, words, shares, W, U):
    """Every row of U from the words of its text."""
    for piece in prange(len(pieces) - 1):
        for j in range(pieces[piece], pieces[piece + 1]):
            u = U[j]
            u[:] = W.dtype.type(0)
            for k in range(begins[j], begins[j + 1]):
                w, share = W[words[k]], shares[k]
                for f in range(len(u)):
                    u[f] += share * w[f]


@njit(parallel=True, **_FAST)
def _collect(pieces, begins, others, weights, text_begins, words, shares, omega, panel, everywhere, U, slopes, steps, b, all_sums):
    """L'/2 and L''/2 by the coordinates from ``b`` of every row of U, after the ``steps`` of the words in the four before, which U takes here.

    ``panel``: of X the four before and the four from ``b``, side by side.
    """
    d = U.shape[1]
    zero = U.dtype.type(0)
    last = max(b - 4, 0)
    for piece in prange(len(pieces) - 1):
        for j in range(pieces[piece], pieces[piece + 1]):
            u = U[j]
            s0 = s1 = s2 = s3 = zero
            for k in range(text_begins[j], text_begins[j + 1]):
                s, share = steps[words[k]], shares[k]
                s0 += share * s[0]
                s1 += share * s[1]
                s2 += share * s[2]
                s3 += share * s[3]
            u[last] += s0
            u[last + 1] += s1
            u[last + 2] += s2
            u[last + 3] += s3
            p0 = p1 = p2 = p3 = zero
            for f in range(d):
                p0 += u[f] * everywhere[b, f]
                p1 += u[f] * everywhere[b + 1, f]
                p2 += u[f] * everywhere[b + 2, f]
                p3 += u[f] * everywhere[b + 3, f]
            sums = _from_everywhere(everywhere, b, p0, p1, p2, p3)
            lo, hi = begins[j], begins[j + 1]
            sums = _pass(others[lo:hi], weights[lo:hi], omega, panel, slopes[lo:hi], 0, (s0, s1, s2, s3), 4, sums)
            for a, value in enumerate(sums):
                all_sums[j, a] = value


@njit(**_FAST)
def _step_words(begins, contexts, shares, lam, all_sums, b, W, steps):
    """The four coordinates from ``b`` of every word, one word after another; the sums of their contexts follow."""
    zero = W.dtype.type(0)
    for x in range(len(W)):
        w = W[x, b : b + 4]
        p0, p1, p2, p3 = lam * w[0], lam * w[1], lam * w[2], lam * w[3]
        h00 = h11 = h22 = h33 = lam
        h10 = h20 = h21 = h30 = h31 = h32 = zero
        for k in range(begins[x], begins[x + 1]):
            t, share = all_sums[contexts[k]], shares[k]
            square = share * share
            p0 += share * t[0]
            p1 += share * t[1]
            p2 += share * t[2]
            p3 += share * t[3]
            h00 += square * t[4]
            h10 += square * t[5]
            h11 += square * t[6]
            h20 += square * t[7]
            h21 += square * t[8]
            h22 += square * t[9]
            h30 += square * t[10]
            h31 += square * t[11]
            h32 += square * t[12]
            h33 += square * t[13]
        s0, s1, s2, s3 = _four_steps((p0, p1, p2, p3, h00, h10, h11, h20, h21, h22, h30, h31, h32, h33))
        for a, s in enumerate((s0, s1, s2, s3)):
            w[a] += s
            steps[x, a] = s
        for k in range(begins[x], begins[x + 1]):
            t, share = all_sums[contexts[k]], shares[k]
            a0, a1, a2, a3 = share * s0, share * s1, share * s2, share * s3
            t[0] += a0 * t[4] + a1 * t[5] + a2 * t[7] + a3 * t[10]
            t[1] += a0 * t[5] + a1 * t[6] + a2 * t[8] + a3 * t[11]
            t[2] += a0 * t[7] + a1 * t[8] + a2 * t[9] + a3 * t[12]
            t[3] += a0 * t[10] + a1 * t[11] + a2 * t[12] + a3 * t[13]


@njit(parallel=True, **_FAST)
def _losses(pieces, begins, others, weights, omega, V, X):
    """(rows,) float64: what the positives of a row add to L beyond ω (v·x)²."""
    losses = np.zeros(len(V))
    for piece in prange(len(pieces) - 1):
        for i in range(pieces[piece], pieces[piece + 1]):
            for k in range(begins[i], begins[i + 1]):
                y = np.float64(_dot(X[others[k]], V[i]))
                losses[i] += weights[k] * (y - 1) ** 2 - omega * y**2
    return losses
