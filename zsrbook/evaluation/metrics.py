"""Recall, MRR and NDCG with one relevant item, one value a prediction, from a table of ranks.

With ``g`` candidates above the target and ``t`` level with it, the target may take any rank from ``g + 1`` to ``g + t + 1``.
The tie rule says which:

``expected``     the mean over all ranks that the ties allow (the default; a constant scorer gets chance level)
``optimistic``   rank ``g + 1``
``pessimistic``  rank ``g + t + 1``
``median``       rank ``g + t / 2 + 1``
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numba import njit
from scipy.special import gammaln

from zsrbook.evaluation.ranks import RankTable

TieRule = Literal["expected", "optimistic", "pessimistic", "median"]
Average = Literal["micro", "macro"]

#: what a target at rank r (a float array) is worth, if r is within the cut-off
GAINS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Recall": np.ones_like,
    "MRR": lambda r: 1 / r,
    "NDCG": lambda r: 1 / np.log2(r + 1),
}


def recall_at(table: RankTable, k: int, ties: TieRule = "expected") -> np.ndarray:
    """(n,) whether the target is among the first ``k``; with one relevant item this is also the hit rate.

    >>> table = RankTable.of(greater=[0, 19, 20, 18], ties=[0, 0, 0, 3], n_candidates=100)
    >>> recall_at(table, 20)  # the last one takes rank 19, 20, 21 or 22
    array([1. , 1. , 0. , 0.5])
    >>> recall_at(table, 20, ties="pessimistic")
    array([1., 1., 0., 0.])
    """
    return values(table, f"Recall@{k}", ties)


def values(table: RankTable, name: str, ties: TieRule = "expected") -> np.ndarray:
    """(n,) what each prediction is worth by the metric of a name such as ``Recall@20``; 0 below rank 20.

    >>> values(RankTable.of(greater=[0, 3, 20, 0], ties=[0, 0, 0, 1], n_candidates=100), "MRR@20")  # the last one takes rank 1 or 2
    array([1.  , 0.25, 0.  , 0.75])
    >>> values(RankTable.of(greater=[0, 2, 20], ties=[0, 0, 0], n_candidates=100), "NDCG@20")  # the ideal DCG of one relevant item is 1
    array([1. , 0.5, 0. ])

    Raises:
        ValueError: no such metric, or no such tie rule.
    """
    metric, k = parse(name)
    gain = GAINS[metric]
    if ties == "expected":  # the sum of gains over ranks g + 1 … g + t + 1 is a difference of two cumulative sums
        total = np.concatenate([[0], np.cumsum(gain(np.arange(1.0, k + 1)))])
        above, level = np.minimum(table.greater, k), np.minimum(table.greater + table.ties + 1, k)
        return (total[level] - total[above]) / (table.ties + 1)
    shares = {"optimistic": 0.0, "median": 0.5, "pessimistic": 1.0}
    if ties not in shares:
        raise ValueError(f"the tie rule is {ties!r}; expected one of {', '.join(get_args(TieRule))}")
    rank = table.greater + shares[ties] * table.ties + 1
    return np.where(rank <= k, gain(rank), 0.0)


def sampled(table: RankTable, name: str = "Recall@10", negatives: int = 100) -> np.ndarray:
    """(n,) the metric that ranking against ``negatives`` random candidates would give, in expectation, worked out exactly.

    The negatives are drawn without replacement from all candidates but the target. Of the ``b`` that beat it in the full
    catalogue, a hypergeometric number gets into the sample; ties are in random order (on why such numbers mislead: Krichene and Rendle, KDD 2020).

    >>> table = RankTable.of(greater=[0, 50], ties=[0, 0], n_candidates=101)
    >>> sampled(table, "Recall@10", negatives=100)  # all of them: the full ranking
    array([1., 0.])
    >>> sampled(table, "Recall@3", negatives=10).round(2)  # a target in the middle is hit now and then
    array([1.  , 0.05])

    Raises:
        ValueError: fewer candidates than negatives, or no such metric.
    """
    metric, k = parse(name)
    others = table.n_candidates - 1
    if len(table) and others.min() < negatives:
        raise ValueError(f"asked for {negatives} sampled negatives, but a prediction has only {others.min()} other candidates; ask for fewer")
    gains = GAINS[metric](np.arange(1.0, k + 1))
    order = np.argsort(others, kind="stable")
    factorials = gammaln(np.arange(1.0, others.max(initial=0) + 2.0))  # the logarithm of 0!, 1!, …
    columns = (column[order].astype(np.int64) for column in (table.greater, table.ties, others))
    result = np.empty(len(table))
    result[order] = _sampled(*columns, gains, negatives, factorials)
    return result


@njit(cache=True)
def _sampled(greater, ties, others, gains, negatives, log_factorial):
    """(n,) the mean, over all places that the ties allow, of the gain that is expected with b others above; rows sorted by ``others``.

    Catalogues differ by user where histories are removed, so the expectation is tabulated once for each size.
    """
    found = np.empty(len(greater))
    begin = 0
    while begin < len(greater):
        size, end = others[begin], begin
        deepest = 0
        while end < len(greater) and others[end] == size:
            deepest = max(deepest, greater[end] + ties[end])
            end += 1
        total = np.zeros(deepest + 2)  # [b]: the expectations with fewer than b above, summed
        draws = log_factorial[size] - log_factorial[negatives] - log_factorial[size - negatives]
        for b in range(deepest + 1):
            worth = 0.0
            for j in range(max(0, negatives - (size - b)), min(len(gains), b + 1, negatives + 1)):  # of the b, j are drawn
                above = log_factorial[b] - log_factorial[j] - log_factorial[b - j]
                below = log_factorial[size - b] - log_factorial[negatives - j] - log_factorial[size - b - negatives + j]
                worth += gains[j] * np.exp(above + below - draws)
            total[b + 1] = total[b] + worth
        for row in range(begin, end):
            last = greater[row] + ties[row] + 1
            found[row] = (total[last] - total[greater[row]]) / (ties[row] + 1)
        begin = end
    return found


def parse(name: str) -> tuple[str, int]:
    """Metric and cut-off of a name.

    >>> parse("NDCG@20")
    ('NDCG', 20)

    Raises:
        ValueError: no such metric, or the cut-off is no positive whole number.
    """
    metric, _, k = name.partition("@")
    if metric not in GAINS or not k.isdecimal() or int(k) < 1:
        raise ValueError(f"{name!r} is no metric; expected one of {', '.join(GAINS)} and a cut-off, such as Recall@20")
    return metric, int(k)


def is_metric(name: str) -> bool:
    """Whether ``parse`` can read the name.

    >>> is_metric("Recall@20"), is_metric("Recall@R")
    (True, False)
    """
    try:
        return bool(parse(name))
    except ValueError:
        return False


def by_user(table: RankTable, values: np.ndarray) -> pd.DataFrame:
    """Index ``user``, columns ``sum``, ``count`` and ``mean`` of one value a prediction.

    >>> by_user(RankTable.of([0, 0, 0], [0, 0, 0], 9, user=[4, 4, 7]), np.array([1.0, 0.0, 1.0]))["mean"].to_dict()
    {4: 0.5, 7: 1.0}
    """
    users, code = np.unique(table.user, return_inverse=True)
    total, count = np.bincount(code, weights=values), np.bincount(code)
    return pd.DataFrame({"sum": total, "count": count, "mean": total / count}, index=pd.Index(users, name="user"))


def average(table: RankTable, values: np.ndarray, how: Average = "micro") -> float:
    """Mean over predictions (``micro``), or over the means of users (``macro``).

    >>> table, found = RankTable.of([0, 0, 0], [0, 0, 0], 9, user=[4, 4, 7]), np.array([1.0, 0.0, 1.0])
    >>> round(average(table, found), 3), average(table, found, "macro")
    (0.667, 0.75)
    """
    if how not in get_args(Average):
        raise ValueError(f"average is {how!r}; expected one of {', '.join(get_args(Average))}")
    return float(values.mean() if how == "micro" else by_user(table, values)["mean"].mean())
