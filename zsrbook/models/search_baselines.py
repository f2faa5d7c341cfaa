"""What every search must be held against: words that match, words that go together, frozen sentences, both at once, popularity and chance.

Of what was searched for only ``PopularItems`` by the log learns; all others are as zero-shot as the methods of the paper. None of them is a row
of the paper, though the production system of its live test also matches words.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Literal, Self
from zlib import crc32

import numpy as np
from scipy.sparse import csc_array, csr_array, diags_array
from scipy.stats import rankdata
from sklearn.decomposition import TruncatedSVD
from sklearn.preprocessing import normalize

from zsrbook.data.dataset import Columns, DataError
from zsrbook.data.search import SearchData, Vocabulary
from zsrbook.models.retriever import Retriever, Score, VectorRetriever
from zsrbook.text import TextEncoder
from zsrbook.training import LATER, check_words

# where JAX is installed, bm25s tries it out as it is imported, which takes three quarters of a card's memory for JAX; nothing here asks for it
sys.modules.setdefault("jax", None)
import bm25s  # noqa: E402

if sys.modules["jax"] is None:
    del sys.modules["jax"]


def counts(words: Vocabulary, texts: Sequence[str]) -> csr_array:
    """(texts, m): how often each word stands in each text, which ``Vocabulary.matrix`` leaves out.

    >>> counts(Vocabulary.of(["to be or not to be"], longest=1), ["to be, to do"]).toarray().tolist()
    [[1.0, 0.0, 0.0, 2.0]]
    """
    counter = copy(words.vectorizer)
    counter.binary = False
    return csr_array(counter.transform(texts))


@dataclass(frozen=True)
class BM25Settings:
    """The defaults are those of Lucene."""

    k1: float = 1.2  #: how much further occurrences of a word still add
    b: float = 0.75  #: how far long texts are held against their length: 0 not at all, 1 in full
    stem: bool = True
    stop: bool = True
    spread: float = field(default=0.0, metadata=LATER)  #: how much of its neighbours' mean score an item gains; 0: links are not looked at

    def __post_init__(self) -> None:
        if not 0 <= self.spread < np.inf:
            raise ValueError(f"BM25 settings: spread is {self.spread}; expected a number, 0 or more")


class BM25(Retriever):
    """Words that a query and an item share, rare ones counting more (Robertson and Zaragoza, FTIR 2009), in Lucene's form.

    With tf the occurrences of a word in a text, L its length in words, df the texts with that word, of n:

        score = Σ over the query's words  ln(1 + (n − df + ½) / (df + ½)) · tf / (tf + k1 (1 − b + b L / mean L))

    as ``bm25s`` works it out (variant ``lucene``; Kamphuis et al., ECIR 2020, compare the variants and find no difference that matters).
    A word that the query repeats counts each time. Items that share no word with the query all score 0.

    With ``spread`` an item gains from the scores of the items that it links to, though nothing is learned from any link: a step of the
    propagation that web search has long known (Qin et al., SIGIR 2005, compare its forms).
    """

    def __init__(self, settings: BM25Settings = BM25Settings()):
        self.settings = settings

    def fit(self, data: SearchData) -> Self:
        s = self.settings
        self.words = Vocabulary.of(data.items[Columns.TEXT], longest=1, stem=s.stem, stop=s.stop)
        found = counts(self.words, data.items[Columns.TEXT])
        tokens = np.split(np.repeat(found.indices, found.data.astype(int)), np.cumsum(found.sum(1), dtype=np.int64)[:-1])
        index = bm25s.BM25(k1=s.k1, b=s.b, method="lucene").build_index_from_ids(
            range(len(self.words)), [text.tolist() for text in tokens], show_progress=False
        )
        # a word's score in an item does not depend on the query, so a search is one sparse product
        self.weights = csc_array((index["data"], index["indices"], index["indptr"]), shape=found.shape)
        if s.spread:
            share = s.spread / np.maximum(1, data.links.sum(1))
            self.weights = csc_array(self.weights + diags_array(share) @ data.links @ self.weights, dtype=np.float32)
        return self

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        asked = counts(self.words, queries)
        return unknown(asked, (asked @ self.weights.T).toarray())


def unknown(asked: csr_array, found: np.ndarray) -> np.ndarray:
    """The same rows, those of queries without a known word made NaN."""
    found[np.diff(asked.indptr) == 0] = np.nan
    return found


@dataclass(frozen=True)
class LSISettings:
    """The defaults follow Dumais (1991), who found log-entropy the best of her weights."""

    width: int = 200  #: d, as in the paper; fewer where there are fewer texts or words
    weight: Literal["log-entropy", "tf-idf"] = "log-entropy"
    at_least: int = 2  #: texts that must hold a word: one that stands in one text goes together with nothing
    stem: bool = True
    stop: bool = True

    def __post_init__(self) -> None:
        check_words(self, "LSI settings")


class LSI(VectorRetriever):
    """Latent semantic indexing: words that stand in the same texts come close (Deerwester et al. 1990).

    The weighted matrix X of texts and words is cut to its d largest singular values, X ≈ U S Vᵀ. An item is its row of X V = U S, and a
    query, folded in, its row times V, both compared by cosine. Weights of tf occurrences, rows then scaled to length 1:

        log-entropy   ln(1 + tf) · (1 + Σ over texts p ln p / ln n),  p the share of the word's occurrences that the text holds
        tf-idf        tf · ln(n / df)
    """

    score: Score = "cosine"

    def __init__(self, settings: LSISettings = LSISettings(), seed: int = 0):
        self.settings, self.seed = settings, seed

    def fit(self, data: SearchData) -> Self:
        s, texts = self.settings, data.items[Columns.TEXT]
        self.words = Vocabulary.of(texts, s.at_least, longest=1, stem=s.stem, stop=s.stop)
        found = counts(self.words, texts)
        if min(found.shape) < 2:
            raise DataError(f"{data.name}: {found.shape[0]} texts of {found.shape[1]} words; LSI needs two of each")
        if s.weight == "log-entropy":
            share = found @ diags_array(1 / found.sum(0))
            share.data *= np.log(share.data)
            self.weight = 1 + share.sum(0) / np.log(len(texts))
        else:
            self.weight = np.log(len(texts) / np.bincount(found.indices, minlength=len(self.words)))
        self.svd = TruncatedSVD(min(s.width, min(found.shape) - 1), random_state=self.seed)
        self.items = self.svd.fit_transform(self._weighted(found)).astype(np.float32)
        return self

    def query_vectors(self, queries: Sequence[str]) -> np.ndarray:
        if not len(queries):  # scikit-learn refuses them
            return np.zeros((0, self.items.shape[1]), np.float32)
        asked = counts(self.words, queries)
        return unknown(asked, self.svd.transform(self._weighted(asked)).astype(np.float32))

    def _weighted(self, found: csr_array) -> csr_array:
        weighted = found.astype(np.float64)
        if self.settings.weight == "log-entropy":
            weighted.data = np.log1p(weighted.data)
        return normalize(weighted @ diags_array(self.weight))


class SentenceSearch(VectorRetriever):
    """Vectors of whole texts by a frozen encoder, compared by cosine. It was trained on other texts, and on nothing here."""

    score: Score = "cosine"

    def __init__(self, encoder: TextEncoder = TextEncoder()):
        self.encoder = encoder

    def fit(self, data: SearchData) -> Self:
        self.items = self._vectors(data.items[Columns.TEXT].tolist())
        self.items[np.isnan(self.items)] = 0  # an item without text is not found, as the contract of ``items`` has it
        return self

    def query_vectors(self, queries: Sequence[str]) -> np.ndarray:
        return self._vectors(list(queries))

    def _vectors(self, texts: list[str]) -> np.ndarray:
        vectors = self.encoder.encode(texts).astype(np.float32)
        vectors[[not text.strip() for text in texts]] = np.nan
        return vectors


def fused(lists: Sequence[np.ndarray], depths: Sequence[int | None] | None = None, k: float = 60.0) -> np.ndarray:
    """Reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009): Σ 1 / (k + rank) over the lists that hold an item.

    Args:
        lists: (Q, n) scores each; NaN where a list does not hold the item. Equal scores share their mean rank.
        depths: how many of a list's best items take part; None: all of them.

    Returns:
        (Q, n) scores, NaN where no list holds the item.

    >>> fused([np.array([[3.0, 2.0, np.nan, np.nan]]), np.array([[1.0, 2.0, 3.0, np.nan]])], [None, 2], k=1).round(2).tolist()
    [[0.5, 0.67, 0.5, nan]]
    """
    total = np.zeros(lists[0].shape)
    for scores, depth in zip(lists, depths or [None] * len(lists), strict=True):
        if scores.shape != total.shape:
            raise DataError(f"lists of shapes {total.shape} and {scores.shape}; expected one score a query and item in each")
        rank = rankdata(np.nan_to_num(-scores, nan=np.inf), axis=1)
        total += np.where(np.isnan(scores) | (rank > (np.inf if depth is None else depth)), 0.0, 1 / (k + rank))
    return np.where(total > 0, total, np.nan)


class Hybrid(Retriever):
    """Several searches at once, which must be fitted before or are fitted here, by one of two rules.

        ranks    Σ 1 / (60 + rank), reciprocal rank fusion (Cormack et al., SIGIR 2009); tied items share their mean rank
        scores   Σ of scores that are stretched, query by query, to run from 0 to 1 (CombSUM of Fox and Shaw 1994)

    A search that can make nothing of a query adds nothing; where none can, the row is NaN.
    """

    def __init__(self, *parts: Retriever, by: Literal["ranks", "scores"] = "ranks", k: float = 60):
        if not parts or by not in ("ranks", "scores"):
            raise ValueError(f"Hybrid of {len(parts)} searches by {by!r}; expected one or more, by ranks or scores")
        self.parts, self.by, self.k = parts, by, k

    def fit(self, data: SearchData) -> Self:
        for part in self.parts:
            part.fit(data)
        return self

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        return self._fused([part.scores(queries) for part in self.parts])

    def similar(self, data: SearchData, items: np.ndarray) -> np.ndarray:
        return self._fused([part.similar(data, items) for part in self.parts])

    def _fused(self, parts: list[np.ndarray]) -> np.ndarray:
        silent = [np.isnan(found).all(1, keepdims=True) for found in parts]
        if self.by == "ranks":  # an item without a score is the last that a search offers, unless it offers none
            ranked = [np.where(nothing, np.nan, np.where(np.isnan(found), -np.inf, found)) for found, nothing in zip(parts, silent, strict=True)]
            return fused(ranked, k=self.k).astype(np.float32)
        total = np.zeros(parts[0].shape)
        for found, nothing in zip(parts, silent, strict=True):
            filled = np.where(nothing, 0.0, found)
            low, high = np.nanmin(filled, 1, keepdims=True), np.nanmax(filled, 1, keepdims=True)
            total += np.nan_to_num((filled - low) / np.where(high > low, high - low, 1.0))
        return np.where(np.all(silent, axis=0), np.nan, total).astype(np.float32)


class PopularItems(Retriever):
    """The same list for every query: what the log names most often (it has seen clicks), or what most items link to."""

    def __init__(self, by: Literal["log", "links"] = "links"):
        if by not in ("log", "links"):
            raise ValueError(f"PopularItems by {by!r}; expected log or links")
        self.by = by

    def fit(self, data: SearchData) -> Self:
        of = data.log[Columns.ITEM].to_numpy(np.int64) if self.by == "log" else data.links.indices
        self.counts = np.bincount(of, minlength=data.n_items).astype(np.float32)
        return self

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        return np.tile(self.counts, (len(queries), 1))


class RandomItems(Retriever):
    """Chance: a query always gets the same list, another query another one."""

    def __init__(self, seed: int = 0):
        self.seed = seed

    def fit(self, data: SearchData) -> Self:
        self.n_items = data.n_items
        return self

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        rows = [np.random.default_rng([self.seed, crc32(query.encode())]).random(self.n_items, np.float32) for query in queries]
        return np.array(rows, np.float32).reshape(len(queries), self.n_items)
