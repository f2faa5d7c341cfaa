"""How a search is judged: where the relevant items of each query stand among the candidates (Wu et al. 2020, section 5).

A rank is kept as in ``evaluation.ranks``, here with one row a pair of a query and an item that is relevant to it: how many candidates
score higher, and how many score the same. That is enough for every metric below, because the items that are not relevant only count.

Scores that tie stand in random order, and each metric is its expected value over all these orders, worked out exactly. So equal scores
for all items give what chance gives. A query that a method can make nothing of, a row of NaN, gets 0 in every metric: nothing was found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Literal

import numpy as np
import pandas as pd
from numba import njit
from scipy.sparse import csr_array, eye_array
from scipy.special import digamma

from zsrbook.data.dataset import Columns, DataError
from zsrbook.data.search import SearchData, Vocabulary
from zsrbook.evaluation.intervals import PerUser
from zsrbook.evaluation.metrics import by_user, is_metric, parse, values
from zsrbook.evaluation.ranks import RankTable, load_ranks, save_ranks
from zsrbook.models.retriever import Retriever
from zsrbook.training import check_words

Judged = Literal["labels", "log", "links", "held-out"]
Candidates = Literal["corpus", "pool", "apart"]

#: scores that are held at once: 64 MB
AT_ONCE = 1 << 24
#: what a table shows of each task; the cut-offs of the log are read off Figure 4
METRICS: dict[str, tuple[str, ...]] = {
    "labels": ("Recall@R", "MAP", "NDCG@10", "Recall@100"),
    "log": ("Recall@10", "Recall@50", "Recall@100", "Recall@300"),
    "links": ("Recall@R",),
    "held-out": ("Recall@R", "MAP", "Recall@100"),
}


def rank_relevant(
    score: Callable[[np.ndarray], np.ndarray],
    query: np.ndarray,
    item: np.ndarray,
    n_items: int,
    *,
    pool: np.ndarray | None = None,
    without: csr_array | None = None,
) -> RankTable:
    """Where relevant items stand.

    NaN ranks last: it loses to every number and ties with every other NaN. In a row of NaN alone every relevant item stands behind the
    last candidate (``greater`` is ``n_candidates``), as if nothing had been found.

    Args:
        score: (k,) query codes -> (k, n_items) scores; asked for ``AT_ONCE`` scores at most, unless one row is longer.
        query, item: (pairs,) codes of what is relevant to what; a pair that is named twice is two rows.
        n_items: size of the corpus.
        pool: codes of the candidates; default the whole corpus.
        without: (queries, n_items), entries where an item is no candidate of that query.

    Returns:
        one row a pair, sorted by query and item; ``user`` is the query, ``position`` 0.

    Raises:
        ValueError: scores of another shape, or a relevant item is no candidate.
    """
    order = np.lexsort((item, query))
    query, item = np.asarray(query)[order], np.asarray(item)[order]
    candidates = np.full(n_items, pool is None)
    if pool is not None:
        candidates[pool] = True
    codes, starts = np.unique(query, return_index=True)
    starts = np.append(starts, len(query))
    gone = csr_array((len(codes), n_items), dtype=np.int8) if without is None else without[codes]
    if (bad := ~candidates[item] | _within(gone, np.repeat(np.arange(len(codes)), np.diff(starts)), item)).any():
        pair = int(np.flatnonzero(bad)[0])
        raise ValueError(f"item {item[pair]} is relevant to query {query[pair]} but no candidate of it; {int(bad.sum())} such pairs of {len(item)}")

    counts = np.empty((len(query), 3), np.int32)  # greater, ties, candidates
    rows = max(1, AT_ONCE // n_items)
    for begin in range(0, len(codes), rows):
        chunk = slice(begin, min(begin + rows, len(codes)))
        scores = np.asarray(score(codes[chunk]))
        if scores.shape != (chunk.stop - begin, n_items):
            raise ValueError(f"scores of shape {scores.shape} for {chunk.stop - begin} queries and {n_items} items; expected one row a query")
        missing = np.isnan(scores)
        if missing.any():  # NaN is made the one lowest number
            scores = np.where(missing, -np.inf, np.maximum(scores, np.finfo(scores.dtype).min))
        bounds, of_chunk = starts[begin : chunk.stop + 1], gone[chunk]
        mine = slice(bounds[0], bounds[-1])
        counts[mine] = _count(scores, bounds - bounds[0], item[mine], candidates, of_chunk.indptr, of_chunk.indices)
        lost = mine.start + np.flatnonzero(np.repeat(missing.all(1), np.diff(bounds)))
        counts[lost, 0], counts[lost, 1] = counts[lost, 2], 0
    return RankTable(query.astype(np.int32), np.zeros(len(query), np.int32), item.astype(np.int32), *np.ascontiguousarray(counts.T))


def _within(matrix: csr_array, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """(pairs,) whether the matrix has an entry at each place."""
    coo, width = matrix.tocoo(), matrix.shape[1]
    return np.isin(row.astype(np.int64) * width + column, coo.row.astype(np.int64) * width + coo.col)


@njit(cache=True)
def _count(scores, starts, items, candidates, gone_starts, gone):
    """(pairs, 3) greater, ties and candidates of each pair: one pass over the scores, with a search among the row's own few."""
    found = np.empty((len(items), 3), np.int32)
    open_to = candidates.copy()
    for row in range(len(scores)):
        taken = gone[gone_starts[row] : gone_starts[row + 1]]
        for column in taken:
            open_to[column] = False
        own = scores[row][items[starts[row] : starts[row + 1]]]
        order = np.argsort(own)
        own = own[order]
        n = len(own)
        above, level = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64)  # [i]: candidates higher than, or as high as, the i lowest alone
        total = 0
        for column in range(scores.shape[1]):
            if open_to[column]:
                value = scores[row, column]
                i = np.searchsorted(own, value)
                above[i] += 1
                level[np.searchsorted(own, value, side="right") if i < n and own[i] == value else i] += 1
                total += 1
        higher, as_high = 0, 0
        for i in range(n - 1, -1, -1):
            higher += above[i + 1]
            as_high += level[i + 1]
            pair = starts[row] + order[i]
            found[pair, 0], found[pair, 1], found[pair, 2] = higher, as_high - higher - 1, total
        for column in taken:
            open_to[column] = candidates[column]
    return found


def judge(table: RankTable, metric: str, group: np.ndarray) -> np.ndarray:
    """(groups,) expected value of a metric, where the pairs of one group are all that is relevant to one query.

    With R relevant items:

    ``Recall@R``  the share of them among the first R, also called R-precision: the Recall@k_i of sections 5.1 and 5.2
    ``Recall@K``  the share of them among the first K
    ``MAP``       average precision: the mean, over the relevant items, of the precision where each of them stands
    ``NDCG@K``    with gains of 0 and 1; the ideal has its first min(K, R) places filled
    ``MRR@K``     one over the rank of the first of them, or 0 below rank K

    Args:
        group: (pairs,) 0 to groups − 1, each of them named.

    >>> table = RankTable.of(greater=[0, 2], ties=[0, 1], n_candidates=9, user=[0, 0])  # the second takes rank 3 or 4
    >>> one = np.zeros(2, int)
    >>> [round(float(judge(table, name, one)[0]), 3) for name in ("Recall@R", "Recall@3", "MAP", "MRR@10")]
    [0.5, 0.75, 0.792, 1.0]

    Raises:
        ValueError: no such metric.
    """
    relevant = np.bincount(group)
    found = table.greater < table.n_candidates
    if metric == "MAP":
        worth = _precision(table, group)
    elif metric == "Recall@R":
        worth = np.clip((relevant[group] - table.greater) / (table.ties + 1), 0, 1)
    else:
        name, k = parse(metric)
        if name == "MRR":
            return _reciprocal(table, group, k)
        worth = values(table, metric)
        if name == "NDCG":
            ideal = np.cumsum(1 / np.log2(np.arange(2, k + 2)))
            return np.bincount(group, worth * found) / ideal[np.minimum(relevant, k) - 1]
    return np.bincount(group, worth * found) / relevant


def runs_of(table: RankTable, group: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order of the pairs by group and rank; and in this order how many of the group stand above each, and how many stand level, itself included."""
    order = np.lexsort((table.greater, group))
    mine, greater = group[order], table.greater[order]
    new = np.append(True, (mine[1:] != mine[:-1]) | (greater[1:] != greater[:-1]))
    run = np.cumsum(new) - 1
    return order, np.flatnonzero(new)[run] - np.searchsorted(mine, mine), np.bincount(run)[run]


def _precision(table: RankTable, group: np.ndarray) -> np.ndarray:
    """(pairs,) expected precision at the rank of each relevant item (derived as in McSherry and Najork, ECIR 2008, but in closed form).

    Among s level candidates that have g candidates and c relevant ones above them, r are relevant. One of these takes each of the s places
    with equal chance. At place i, c + 1 of the g + i so far are relevant for sure, and each of the i − 1 level ones before it with chance
    β = (r − 1) / (s − 1). The mean over i of (c + 1 + (i − 1) β) / (g + i) needs nothing but a difference of harmonic numbers:
    with i − 1 = (g + i) − (g + 1) it is β + (c + 1 − (g + 1) β) (H(g + s) − H(g)) / s.
    """
    order, c, r = runs_of(table, group)
    g, s = table.greater[order].astype(float), table.ties[order] + 1.0
    beta = (r - 1) / np.maximum(s - 1, 1)
    found = np.empty(len(table))
    found[order] = beta + (c + 1 - (g + 1) * beta) * (digamma(g + s + 1) - digamma(g + 1)) / s
    return found


def _reciprocal(table: RankTable, group: np.ndarray, k: int) -> np.ndarray:
    """(groups,) expected reciprocal rank of the first relevant item: of r among s level ones it takes place m if none took a place before."""
    order, _, r = runs_of(table, group)
    first = np.searchsorted(group[order], np.arange(group.max() + 1))
    best = order[first]
    g, s = table.greater[best][:, None], table.ties[best][:, None] + 1
    place = np.arange(1, k + 1)
    chance = np.minimum(r[first][:, None] / np.maximum(s - place + 1, 1), 1.0)  # of place m, given none before
    none = np.cumprod(np.insert(1 - chance[:, :-1], 0, 1.0, axis=1), axis=1)
    within = (g + place <= k) & (g < table.n_candidates[best][:, None])
    return (chance * none * within / (g + place)).sum(1)


@dataclass(frozen=True)
class SearchProtocol:
    """What is judged, among which candidates.

    Attributes:
        judged: ``labels``: what answers a query (section 5.2); ``log``: each pair of a query and an item by itself (5.3); ``links``: each
            item asks for its neighbours, those it was trained on (5.1); ``held-out``: for the neighbours that were held out.
        candidates: ``corpus``; ``pool``: all that is relevant to any query of the same kind, as in section 5.2; or ``apart``: those of the
            pool that share no word with the query, so that matching words finds nothing ("funny" and "prank" in section 4).
        most: judge this many queries (or items that ask) at most, the same ones for every method; None for all.

    Raises:
        ValueError: a value that is not among the choices, or a pool where there are no labels.
    """

    judged: Judged
    candidates: Candidates = "corpus"
    most: int | None = None
    task: Literal["search"] = "search"

    def __post_init__(self) -> None:
        check_words(self, "protocol")
        if self.candidates != "corpus" and self.judged != "labels":
            raise ValueError(f"protocol: candidates is {self.candidates!r} with judged {self.judged!r}; a pool is made of labels")
        if self.most is not None and (not isinstance(self.most, int) or self.most < 1):
            raise ValueError(f"protocol: most is {self.most!r}; expected a whole number from 1, or None for all queries")

    @property
    def metrics(self) -> tuple[str, ...]:
        """What a table shows."""
        return METRICS[self.judged]

    def settings(self) -> dict[str, str | int | None]:
        """As a run record holds it."""
        return asdict(self)

    def caption(self) -> str:
        """One line for people.

        >>> SearchProtocol("labels", "pool").caption().split(" · ")[:2]
        ['relevant is what answers the query', 'ranked in the pool of all that is relevant to a query of the same kind']
        """
        relevant = {
            "labels": "relevant is what answers the query",
            "log": "relevant is what was consumed after a search",
            "links": "relevant to an item are its neighbours, which the methods were trained on",
            "held-out": "relevant to an item are its neighbours that were held out of training",
        }
        pool = "pool of all that is relevant to a query of the same kind"
        where = {"corpus": "whole corpus", "pool": pool, "apart": f"{pool}, less what shares a word with the query"}[self.candidates]
        left_out = {"links": " without the item itself", "held-out": " without the item itself and its neighbours of training"}
        who = "queries" if self.judged in ("labels", "log") else "items"
        return " · ".join(
            (
                relevant[self.judged],
                f"ranked in the {where}{left_out.get(self.judged, '')}",
                *([] if self.most is None else [f"at most {self.most:,} {who}, drawn at random"]),
                f"mean over {'pairs of a query and an item' if self.judged == 'log' else who}",
                *(["a query of unknown words counts 0"] if who == "queries" else []),
                "ties: expected value",
            )
        )

    def knows(self, metric: str) -> bool:
        """Whether ranks tell this metric."""
        return metric in ("MAP", "Recall@R") or is_metric(metric)

    def per_query(self, table: RankTable, metric: str) -> pd.DataFrame:
        """Index ``user``, the query; columns ``sum``, ``count`` and ``mean`` over its pairs where these are judged by themselves, else one value."""
        if self.judged == "log":
            return by_user(table, judge(table, metric, np.arange(len(table))))
        queries, group = np.unique(table.user, return_inverse=True)
        value = judge(table, metric, group)
        return pd.DataFrame({"sum": value, "count": 1, "mean": value}, index=pd.Index(queries, name="user"))

    def summary(self, table: RankTable, metrics: tuple[str, ...] | None = None) -> dict[str, float]:
        """Metric name -> value.

        >>> SearchProtocol("labels").summary(RankTable.of([0, 2], [0, 0], 9, user=[5, 5]), ("Recall@R", "Recall@3"))
        {'Recall@R': 0.5, 'Recall@3': 1.0}
        """
        frames = {name: self.per_query(table, name) for name in (self.metrics if metrics is None else metrics)}
        return {name: float(frame["sum"].sum() / frame["count"].sum()) for name, frame in frames.items()}

    def per_user(self, tables: Mapping[int, RankTable], metric: str) -> PerUser:
        """A metric query by query and seed by seed, for intervals."""
        return PerUser.of({seed: self.per_query(table, metric) for seed, table in tables.items()})

    save = staticmethod(save_ranks)
    load = staticmethod(load_ranks)


def evaluate(model: Retriever, data: SearchData, protocol: SearchProtocol) -> RankTable:
    """Where all that the protocol calls relevant stands; queries to which nothing is relevant are left out.

    Raises:
        DataError: the data holds no pair of what is judged.
    """
    pairs = {
        "labels": lambda: data.relevance[["query", Columns.ITEM]].to_numpy(np.int64).T,
        "log": lambda: data.log[["query", Columns.ITEM]].to_numpy(np.int64).T,
        "links": lambda: data.links.nonzero(),
        "held-out": lambda: ((), ()) if data.held_out is None else data.held_out.nonzero(),
    }
    query, item = of, what = tuple(map(np.asarray, pairs[protocol.judged]()))
    asked = np.unique(query)
    if not len(asked):
        raise DataError(f"{data.name}: no {protocol.judged} to judge by; expected at least one pair of a query and an item")
    if protocol.most is not None and protocol.most < len(asked):
        keep = np.isin(query, np.random.default_rng(0).choice(asked, protocol.most, replace=False))
        query, item = query[keep], item[keep]
    if protocol.judged in ("links", "held-out"):
        itself = eye_array(data.n_items, dtype=np.float32, format="csr")
        known = itself if protocol.judged == "links" else itself + data.links
        return rank_relevant(lambda codes: model.similar(data, codes), query, item, data.n_items, without=known)
    texts = data.queries["text"].to_numpy(object)

    def score(codes: np.ndarray) -> np.ndarray:
        return model.scores(texts[codes].tolist())

    if protocol.candidates == "corpus":
        return rank_relevant(score, query, item, data.n_items)
    kind = data.queries["kind"].to_numpy()
    pools = {k: np.unique(what[kind[of] == k]) for k in pd.unique(kind[query])}  # of all queries, also those that are not asked
    shared = None
    if protocol.candidates == "apart":
        shared = sharing(tuple(data.items[Columns.TEXT]), tuple(texts))
        keep = ~_within(shared, query, item)
        query, item = query[keep], item[keep]
        if not len(query):
            raise DataError(f"{data.name}: every relevant item shares a word with its query, so there is nothing to judge apart from words")
    tables = [
        rank_relevant(score, query[mine], item[mine], data.n_items, pool=pool, without=shared)
        for mine, pool in ((kind[query] == k, pool) for k, pool in pools.items())
        if mine.any()
    ]
    return RankTable(*(np.concatenate([getattr(table, f.name) for table in tables]) for f in fields(RankTable)))


@lru_cache(maxsize=2)
def sharing(texts: tuple[str, ...], queries: tuple[str, ...]) -> csr_array:
    """(queries, texts) with an entry where a query and a text have a word in common: a stem, stop words left out."""
    words = Vocabulary.of(texts, longest=1, stem=True, stop=True)
    return csr_array(words.matrix(queries) @ words.matrix(texts).T)
