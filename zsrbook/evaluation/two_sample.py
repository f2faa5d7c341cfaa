"""Are two clouds of points drawn from one distribution? Numbers for what a map can only suggest."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist


def mmd_test(a: np.ndarray, b: np.ndarray, permutations: int = 200, seed: int = 0) -> tuple[float, float]:
    """Squared maximum mean discrepancy (unbiased) with a Gaussian kernel whose σ² is the median squared distance, and its p-value by
    permutation (Gretton et al. 2012), 1 / (permutations + 1) at least.

    Args:
        a, b: (n, d), (m, d), two points or more in each.

    >>> rng = np.random.default_rng(0)
    >>> mmd_test(rng.normal(size=(80, 2)), rng.normal(size=(80, 2)))[1] > 0.05
    True
    """
    points, n, m = np.concatenate([a, b]), len(a), len(b)
    squares = cdist(points, points, "sqeuclidean")
    kernel = np.exp(-squares / (2 * max(np.median(squares[np.triu_indices(n + m, 1)]), 1e-12)))
    np.fill_diagonal(kernel, 0.0)
    rng = np.random.default_rng(seed)
    first = np.stack([np.arange(n + m) < n, *(rng.permutation(n + m) < n for _ in range(permutations))]).astype(float)  # (P, n + m)
    second = 1 - first
    within = np.einsum("pi,pi->p", first @ kernel, first) / (n * (n - 1)) + np.einsum("pi,pi->p", second @ kernel, second) / (m * (m - 1))
    values = within - 2 * np.einsum("pi,pi->p", first @ kernel, second) / (n * m)
    return float(values[0]), float((values >= values[0]).mean())


def neighbour_accuracy(a: np.ndarray, b: np.ndarray) -> float:
    """How often a point's nearest other point tells from which cloud it is: 0.5 where the clouds can't be told apart, 1 where they are
    apart, with equally many points in both (Lopez-Paz and Oquab 2017).

    >>> neighbour_accuracy(np.zeros((5, 1)) + np.arange(5)[:, None], np.arange(5)[:, None] + 100.0)
    1.0
    """
    distances = cdist(np.concatenate([a, b]), np.concatenate([a, b]))
    np.fill_diagonal(distances, np.inf)
    label = np.arange(len(distances)) < len(a)
    return float((label[distances.argmin(1)] == label).mean())


def coverage(real: np.ndarray, made: np.ndarray, k: int = 5) -> float:
    """Share of the real points that have a made one as near as their k-th nearest real neighbour, or nearer (Naeem et al. 2020).

    >>> coverage(np.arange(20.0)[:, None], np.array([[3.0]]), k=2)
    0.15
    """
    own = cdist(real, real)
    np.fill_diagonal(own, np.inf)
    radius = np.partition(own, k - 1, axis=1)[:, k - 1]
    return float((cdist(real, made).min(1) <= radius).mean())
