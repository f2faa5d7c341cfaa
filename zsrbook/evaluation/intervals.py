"""Intervals and tests that hold both chances of a run: which people happen to be in the test, and which seed trained the model.

All metrics here are ratios of two sums over people, so what drawing people anew (the bootstrap) would find in endless draws is known to first
order without a draw: a person's influence is how far the metric moves with one more like them, and the variance of the metric is the sum
of the squared influences (the infinitesimal jackknife: Efron, The Jackknife, the Bootstrap and Other Resampling Plans, SIAM 1982, chapter 6).
Methods that are judged on the same people pair by adding their influences person by person.

Seeds are too few for that: five would seem to spread a fifth less than they do. They enter by the variance of their mean, paired where methods
share them, and the interval is that of Student's t, with the degrees of freedom of a sum of two variances of which each is only estimated
(Satterthwaite, Biometrics Bulletin 1946). What is chance of one person in one seed alone is in both parts, so intervals lean to the wide
side. With one seed the chance of training is not known, and left out.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, variance

import numpy as np
import pandas as pd
from scipy.stats import t as student

from zsrbook.evaluation.metrics import Average

#: sums are off by some 1e-15, so a variance as small as the square of that is none
_ROUNDING = 1e-26


@dataclass(frozen=True, eq=False)  # arrays have no single answer to ==
class PerUser:
    """A metric of one method, user by user and seed by seed.

    Attributes:
        users: (U,) sorted codes.
        seeds: S seeds.
        sums: (U, S) float64, the sum over the predictions of that user in that seed.
        counts: (U, S) float64, how many predictions; 0 where the user is not in that seed's test.
        more: seed -> the metric of further seeds, of which no users are known.
    """

    users: np.ndarray
    seeds: tuple[int, ...]
    sums: np.ndarray
    counts: np.ndarray
    more: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, frames: Mapping[int, pd.DataFrame], average: Average = "micro") -> PerUser:
        """From one frame a seed as ``metrics.by_user`` and ``auc.gauc`` give it.

        Raises:
            ValueError: no seed, or a seed without users.
        """
        if not frames or any(frame.empty for frame in frames.values()):
            raise ValueError("there is nothing to take an interval of: no seed, or a seed without users")
        users = np.unique(np.concatenate([frame.index.to_numpy() for frame in frames.values()]))
        sums, counts = np.zeros((2, len(users), len(frames)))
        for column, frame in enumerate(frames.values()):
            row = np.searchsorted(users, frame.index)
            sums[row, column] = frame["sum"] if average == "micro" else frame["mean"]
            counts[row, column] = frame["count"] if average == "micro" else 1
        return cls(users, tuple(frames), sums, counts)

    @cached_property
    def by_seed(self) -> dict[int, float]:
        """Seed -> the metric, of all seeds."""
        return dict(zip(self.seeds, (self.sums.sum(0) / self.counts.sum(0)).tolist(), strict=True)) | dict(self.more)

    @property
    def value(self) -> float:
        """The mean over all seeds."""
        return fmean(self.by_seed.values())

    @cached_property
    def influence(self) -> np.ndarray:
        """(U,) how far the mean over the seeds moves with one more of each user."""
        return influence(self.sums, self.counts).mean(1)

    def influence_on(self, seeds: Container[int]) -> np.ndarray:
        """(U,) the same of the mean over these seeds alone; of all that know their users, where none of these does."""
        kept = [column for column, seed in enumerate(self.seeds) if seed in seeds]
        return influence(self.sums[:, kept], self.counts[:, kept]).mean(1) if 0 < len(kept) < len(self.seeds) else self.influence


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Attributes:
        value: the estimate.
        low, high: the interval; infinite where one person alone was judged, so that nothing is known of others.
        p: two-sided p-value of the hypothesis that the true value is 0.
        detectable: the smallest true difference from 0 that this test would find in 8 of 10 repetitions.
    """

    value: float
    low: float
    high: float
    p: float
    detectable: float


def influence(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """How far each ratio of sums over people moves with one more of each person, to first order.

    Args:
        sums, counts: (U, ...) what each person adds to the numerator and to the denominator.

    Returns:
        as ``sums``; adds up to 0 over people. NaN where nothing was counted.
    """
    total = counts.sum(0)
    with np.errstate(invalid="ignore"):
        return (sums - sums.sum(0) / total * counts) / total


def variance_over_people(moves: np.ndarray) -> np.ndarray:
    """The variance that a number has because other people might have been in the test; of one person alone nothing tells, so it is infinite.

    Args:
        moves: (U, ...) each person's influence on it.
    """
    people = len(moves)
    if people < 2:
        return np.full(moves.shape[1:], np.inf)
    return (moves**2).sum(0) * (people / (people - 1))


def interval(method: PerUser) -> Estimate:
    """The mean over seeds with its interval.

    >>> one = pd.DataFrame({"sum": [1.0, 0.0] * 200, "count": 1, "mean": [1.0, 0.0] * 200})
    >>> found = interval(PerUser.of({0: one}))
    >>> found.value, 0.44 < found.low < 0.46, 0.54 < found.high < 0.56
    (0.5, True, True)
    """
    return contrast([(1.0, method)])


def difference(a: PerUser, b: PerUser) -> Estimate:
    """``a`` minus ``b``, paired: user by user, and seed by seed where they have the same.

    Raises:
        ValueError: the two were not judged on the same predictions.
    """
    return contrast([(1.0, a), (-1.0, b)])


def contrast(terms: Sequence[tuple[float, PerUser]]) -> Estimate:
    """A weighted sum of methods, such as ``a - 0.9 b``, all judged on the same users.

    Methods of several seeds are compared on those that all of them have, if these are two or more; else each on its own.

    Args:
        terms: (weight, method) pairs.

    Raises:
        ValueError: the methods were not judged on the same predictions.
    """
    weights, methods = zip(*terms, strict=True)
    _refuse_others(methods)
    seeds = _shared(methods)
    value = sum(w * fmean(found.values()) for w, found in zip(weights, seeds, strict=True))
    return _estimate(value, [_of_people(weights, methods, seeds), *_of_seeds(weights, seeds)])


def ratio_difference(here: tuple[PerUser, PerUser], there: tuple[PerUser, PerUser]) -> Estimate:
    """``a / b`` on one data set minus ``a / b`` on another: whether a method keeps closer to another one here than there.

    Within a data set the two methods are paired; the two data sets share no user, so their variances add. Spreads are those of the
    ratio's linear part.

    Raises:
        ValueError: the two methods of a data set were not judged on the same predictions, or a ``b`` is 0.

    >>> people = pd.DataFrame({"sum": [1.0, 0.0, 1.0] * 100, "count": 1, "mean": [1.0, 0.0, 1.0] * 100})
    >>> half, whole = PerUser.of({0: people / 2}, "macro"), PerUser.of({0: people}, "macro")
    >>> found = ratio_difference((whole, whole), (half, whole))
    >>> found.value, round(found.low, 6), round(found.high, 6)
    (0.5, 0.5, 0.5)
    """
    (first, spread), (second, other) = _ratio(*here), _ratio(*there)
    return _estimate(first - second, spread + other)


def relative(ours: PerUser, base: PerUser) -> Estimate:
    """``ours / base - 1`` on one data set; users and seeds are paired. The interval is symmetric in the logarithm of the ratio.

    Raises:
        ValueError: as ``ratio_difference``.
    """
    ratio, parts = _ratio(ours, base)
    found = _estimate(ratio - 1, parts)
    if ratio <= 0:
        return found
    log = _estimate(np.log(ratio), [(spread / ratio**2, freedom) for spread, freedom in parts])
    return Estimate(ratio - 1, float(np.expm1(log.low)), float(np.expm1(log.high)), log.p, found.detectable)


#: a variance, and its degrees of freedom
Spread = tuple[float, float]


def _ratio(a: PerUser, b: PerUser) -> tuple[float, list[Spread]]:
    """``a / b``, and the variances of its linear part, which are those of ``(a - ratio b) / b``."""
    _refuse_others([a, b])
    seeds = _shared([a, b])
    over, under = (fmean(found.values()) for found in seeds)
    if not under:
        raise ValueError("there is no ratio to a method that scores 0")
    weights = 1 / under, -over / under**2
    return over / under, [_of_people(weights, (a, b), seeds), *_of_seeds(weights, seeds)]


def _shared(methods: Sequence[PerUser]) -> list[dict[int, float]]:
    """Seed -> value a method; of those with several seeds on the seeds that all of them have, if these are two or more.

    A method of one seed keeps it: most have one since chance plays no part in them.
    """
    several = [set(method.by_seed) for method in methods if len(method.by_seed) > 1]
    shared = set.intersection(*several) if several else set()
    if len(shared) < 2:
        return [method.by_seed for method in methods]
    return [{s: x for s, x in m.by_seed.items() if s in shared} if len(m.by_seed) > 1 else m.by_seed for m in methods]


def _of_people(weights: Sequence[float], methods: Sequence[PerUser], seeds: Sequence[Container[int]]) -> Spread:
    """The variance of a weighted sum of methods, each on its seeds, over people."""
    moves = sum(weight * method.influence_on(found) for weight, method, found in zip(weights, methods, seeds, strict=True))
    return float(variance_over_people(moves)), max(1, len(moves) - 1)


def _of_seeds(weights: Sequence[float], seeds: Sequence[Mapping[int, float]]) -> list[Spread]:
    """The variance of a weighted sum of means over seeds: of the sums seed by seed where the methods have the same seeds, else method by method."""
    several = [(weight, found) for weight, found in zip(weights, seeds, strict=True) if len(found) > 1]
    if len({frozenset(found) for _, found in several}) == 1:
        several = [(1.0, {s: sum(weight * found[s] for weight, found in several) for s in several[0][1]})]
    return [(weight**2 * variance(found.values()) / len(found), len(found) - 1) for weight, found in several]


def _refuse_others(methods: Sequence[PerUser]) -> None:
    """Raises ValueError unless all were judged on the same predictions."""
    first = methods[0]
    for other in methods[1:]:
        # a method without chance may have one seed where the others have five; its users must then stand in all of theirs
        seeds = range(max(len(first.seeds), len(other.seeds)))
        pairs = ((first.counts[:, i % len(first.seeds)], other.counts[:, i % len(other.seeds)]) for i in seeds)
        if not np.array_equal(first.users, other.users) or not all(np.array_equal(mine, theirs) for mine, theirs in pairs):
            raise ValueError(
                f"can't compare {len(first.users)} users with {first.counts.sum(0).tolist()} predictions a seed and {len(other.users)} users with"
                f" {other.counts.sum(0).tolist()}: a paired test needs the same test set; evaluate both on one fold and one protocol"
            )


def _estimate(value: float, parts: Sequence[Spread]) -> Estimate:
    """From the value and the variances that it has, each independent of the others."""
    total = sum(spread for spread, _ in parts)
    if total <= _ROUNDING:
        return Estimate(float(value), float(value), float(value), float(abs(value) <= _ROUNDING**0.5), 0.0)
    if total == np.inf:
        return Estimate(float(value), -np.inf, np.inf, 1.0, np.inf)
    freedom = total**2 / sum(spread**2 / own for spread, own in parts)
    error, tail = total**0.5, student.isf(0.025, freedom)
    p = 2 * student.sf(abs(value) / error, freedom)
    return Estimate(
        float(value), float(value - tail * error), float(value + tail * error), float(p), float((tail + student.isf(0.2, freedom)) * error)
    )
