"""Intervals and tests by resampling users within seeds.

A run has two sources of chance: which people happen to be in the test, and which seed trained the model. Both are resampled
at once (the pigeonhole bootstrap of Owen, Annals of Applied Statistics 2007): a person who is drawn twice counts twice in every
seed, and a seed that is drawn twice counts twice for every person. What is chance of one person in one seed alone is counted up to
three times, so intervals lean to the wide side; the share that is due to seeds comes out a fifth too small with five of them, as
in any bootstrap of five numbers. With one seed only people are resampled.

People get Poisson(1) weights, so a resample is one matrix product, and a micro average is a ratio of two resampled sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.stats import norm

from zsrbook.evaluation.metrics import Average, TieRule, by_user, values
from zsrbook.evaluation.ranks import RankTable

#: users whose weights are drawn, and kept for the next method, at once: 4 MB at 1000 resamples
_BLOCK = 4096


@dataclass(frozen=True, eq=False)  # compared by identity, so that resamples can be cached
class PerUser:
    """A metric of one method, user by user and seed by seed.

    Attributes:
        users: (U,) sorted codes.
        seeds: S seeds.
        sums: (U, S) float64, the sum over the predictions of that user in that seed.
        counts: (U, S) float64, how many predictions; 0 where the user is not in that seed's test.
    """

    users: np.ndarray
    seeds: tuple[int, ...]
    sums: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, frames: Mapping[int, pd.DataFrame], average: Average = "micro") -> PerUser:
        """From one frame a seed as ``metrics.by_user`` and ``auc.gauc`` give it."""
        if not frames or any(frame.empty for frame in frames.values()):
            raise ValueError("there is nothing to resample: no seed, or a seed without users")
        users = np.unique(np.concatenate([frame.index.to_numpy() for frame in frames.values()]))
        sums, counts = np.zeros((2, len(users), len(frames)))
        for column, frame in enumerate(frames.values()):
            row = np.searchsorted(users, frame.index)
            sums[row, column] = frame["sum"] if average == "micro" else frame["mean"]
            counts[row, column] = frame["count"] if average == "micro" else 1
        return cls(users, tuple(frames), sums, counts)

    @classmethod
    def of_ranks(cls, tables: Mapping[int, RankTable], name: str, ties: TieRule = "expected", average: Average = "micro") -> PerUser:
        """A metric such as ``Recall@20`` from one table of ranks a seed."""
        return cls.of({seed: by_user(table, values(table, name, ties)) for seed, table in tables.items()}, average)

    @property
    def value(self) -> float:
        """The mean over seeds."""
        return float((self.sums.sum(0) / self.counts.sum(0)).mean())


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Attributes:
        value: the estimate itself, not the mean of its resamples.
        low, high: the interval, by percentiles.
        p: two-sided p-value of the hypothesis that the true value is 0.
        detectable: the smallest true difference from 0 that this test would find in 8 of 10 repetitions.
    """

    value: float
    low: float
    high: float
    p: float
    detectable: float


def interval(method: PerUser, resamples: int = 1000, seed: int = 0) -> Estimate:
    """The mean over seeds with its interval.

    >>> one = pd.DataFrame({"sum": [1.0, 0.0] * 200, "count": 1, "mean": [1.0, 0.0] * 200})
    >>> found = interval(PerUser.of({0: one}))
    >>> found.value, 0.44 < found.low < 0.46, 0.54 < found.high < 0.56
    (0.5, True, True)
    """
    return contrast([(1.0, method)], resamples, seed)


def difference(a: PerUser, b: PerUser, resamples: int = 1000, seed: int = 0) -> Estimate:
    """``a`` minus ``b``, paired: both are judged on the same resampled users, and seeds where they have the same.

    Raises:
        ValueError: the two were not judged on the same predictions.
    """
    return contrast([(1.0, a), (-1.0, b)], resamples, seed)


def contrast(terms: Sequence[tuple[float, PerUser]], resamples: int = 1000, seed: int = 0) -> Estimate:
    """A weighted sum of methods, such as ``a - 0.9 b``, all on the same resampled users.

    Args:
        terms: (weight, method) pairs.
        resamples: how many.
        seed: equal seeds give equal intervals.

    Raises:
        ValueError: the methods were not judged on the same predictions.
    """
    _refuse_others([method for _, method in terms])
    found = sum(weight * _resampled(method, resamples, seed) for weight, method in terms)
    return _estimate(sum(weight * method.value for weight, method in terms), found)


def ratio_difference(here: tuple[PerUser, PerUser], there: tuple[PerUser, PerUser], resamples: int = 1000, seed: int = 0) -> Estimate:
    """``a / b`` on one data set minus ``a / b`` on another: whether a method keeps closer to another one here than there.

    Within a data set the two methods are paired; the two data sets share no user and are resampled apart. Resamples in which a ``b`` is 0
    are left out.

    Raises:
        ValueError: the two methods of a data set were not judged on the same predictions, or a ``b`` is 0.

    >>> people = pd.DataFrame({"sum": [1.0, 0.0, 1.0] * 100, "count": 1, "mean": [1.0, 0.0, 1.0] * 100})
    >>> half, whole = PerUser.of({0: people / 2}, "macro"), PerUser.of({0: people}, "macro")
    >>> found = ratio_difference((whole, whole), (half, whole))
    >>> found.value, round(found.low, 6), round(found.high, 6)
    (0.5, 0.5, 0.5)
    """
    value, found = 0.0, np.zeros(resamples)
    for sign, (a, b), draws in ((1, here, seed), (-1, there, seed + 1)):
        _refuse_others([a, b])
        if not b.value:
            raise ValueError("there is no ratio to a method that scores 0")
        value += sign * a.value / b.value
        with np.errstate(divide="ignore", invalid="ignore"):
            found += sign * _resampled(a, resamples, draws) / _resampled(b, resamples, draws)
    return _estimate(value, found)


def relative(ours: PerUser, base: PerUser) -> Estimate:
    """``ours / base - 1`` on one data set; users are paired.

    Raises:
        ValueError: as ``ratio_difference``.
    """
    return ratio_difference((ours, base), (base, base))  # the base beside itself is 1


def _refuse_others(methods: Sequence[PerUser]) -> None:
    """Raises ValueError unless all were judged on the same predictions."""
    first = methods[0]
    for other in methods[1:]:
        same = np.array_equal(first.users, other.users)
        # a method without chance may have one seed where the others have five; its users must then stand in all of theirs
        if not same or not all(np.array_equal(c, first.counts[:, i % first.counts.shape[1]]) for i, c in enumerate(other.counts.T)):
            raise ValueError(
                f"can't compare {len(first.users)} users with {first.counts.sum(0).tolist()} predictions a seed and {len(other.users)} users with"
                f" {other.counts.sum(0).tolist()}: a paired test needs the same test set; evaluate both on one fold and one protocol"
            )


def _estimate(value: float, found: np.ndarray) -> Estimate:
    """From the value and its (resamples,) resampled ones."""
    found = found[np.isfinite(found)]
    low, high = np.quantile(found, [0.025, 0.975])
    # float32 sums are off by a few 1e-7, so a resample that equals the estimate must not be told apart from it
    p = (1 + (np.abs(found - value) >= abs(value) - 1e-6).sum()) / (1 + len(found))
    detectable = (norm.ppf(0.975) + norm.ppf(0.8)) * found.std(ddof=1)
    return Estimate(value, float(low), float(high), float(p), float(detectable))


@lru_cache(maxsize=1024)
def _resampled(method: PerUser, resamples: int, seed: int) -> np.ndarray:
    """(resamples,) the metric in each resample. Methods with equally many users, or seeds, get the same draws of them: so they pair."""
    n_users, n_seeds = method.sums.shape
    both = np.concatenate([method.sums, method.counts], axis=1).astype(np.float32)
    total = np.zeros((resamples, 2 * n_seeds))
    for block in range(0, n_users, _BLOCK):
        rows = both[block : block + _BLOCK]
        total += _people(block // _BLOCK, resamples, seed)[:, : len(rows)].astype(np.float32) @ rows
    seeds = np.random.default_rng([seed, 1]).multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), resamples) / n_seeds
    with np.errstate(invalid="ignore"):  # 0 / 0 where a resample of very few users drew none
        return (total[:, :n_seeds] / total[:, n_seeds:] * seeds).sum(1)


@lru_cache(maxsize=16)
def _people(block: int, resamples: int, seed: int) -> np.ndarray:
    """(resamples, _BLOCK) uint8: how often each user of a block is drawn."""
    return np.random.default_rng([seed, 0, block]).poisson(1.0, (resamples, _BLOCK)).astype(np.uint8)
