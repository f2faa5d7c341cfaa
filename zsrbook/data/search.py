"""The form that search data takes: items with text, links between them, queries, what is relevant to each, and a log of clicks.

A zero-shot search (Wu et al. 2020, section 3) learns from texts and links alone; queries, relevance and the log serve the judging,
and the one supervised method.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd
import snowballstemmer
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

from zsrbook.data.dataset import Columns, DataError, Dataset, Report, check_codes
from zsrbook.data.matrix import matrix_of

#: neighbours that an item keeps, at most (section 5 of the paper)
TOP = 250


@dataclass(frozen=True)
class SearchData:
    """A corpus of n items, and Q queries to it.

    Attributes:
        name: short, fit for a path, such as ``cacm``.
        items: row = item code; at least ``raw``, ``title`` and ``text``, which may be empty.
        links: (n, n) csr of ones, the M of the paper: row i holds the neighbours of item i; no item is its own neighbour.
        queries: row = query code; columns ``text`` and ``kind``, the category that tables are split by.
        relevance: columns ``query``, ``item``, ``grade`` (1 or more); pairs that are absent are not relevant.
        log: columns ``query``, ``item``, ``time``: what was consumed after a search; may be empty.
        labels_from_log: whether ``relevance`` was made of the acts in ``log``, so that a model of the log has read the answers.
        held_out: (n, n) csr of ones, links that were taken out of ``links`` to be judged on; None until ``hold_out``.
        report: what was kept, repaired and dropped on the way here.
    """

    name: str
    items: pd.DataFrame
    links: csr_array
    queries: pd.DataFrame
    relevance: pd.DataFrame
    log: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"query": [], Columns.ITEM: [], Columns.TIME: []}))
    labels_from_log: bool = False
    held_out: csr_array | None = None
    report: Report = field(default=Report(), repr=False)

    def __post_init__(self) -> None:
        n = len(self.items)
        if self.links.shape != (n, n):
            raise DataError(f"{self.name}: links of shape {self.links.shape} for {n} items; expected ({n}, {n})")
        if (own := int(np.count_nonzero(self.links.diagonal()))) > 0:
            raise DataError(f"{self.name}: {own} items are linked to themselves; drop these links")
        for what, table in (("relevance", self.relevance), ("log", self.log)):
            for column, size in (("query", len(self.queries)), (Columns.ITEM, n)):
                check_codes(f"{self.name}: {what}", column, table[column].to_numpy(), size)
        if self.relevance.duplicated(["query", Columns.ITEM]).any():
            row = self.relevance[self.relevance.duplicated(["query", Columns.ITEM])].iloc[0]
            raise DataError(f"{self.name}: item {row[Columns.ITEM]} is judged twice for query {row['query']}; expected once")

    @property
    def n_items(self) -> int:
        return len(self.items)

    def hold_out(self, share: float = 0.1, seed: int = 0) -> SearchData:
        """The same data with this share of the linked pairs in ``held_out``; both directions of a pair go together."""
        coo = self.links.tocoo()
        pair = np.minimum(coo.row, coo.col).astype(np.int64) * self.n_items + np.maximum(coo.row, coo.col)
        pairs = np.unique(pair)
        gone = np.random.default_rng(seed).permutation(pairs)[: round(share * len(pairs))]
        out = np.isin(pair, gone)
        kept, held = (links_of(coo.row[mask], coo.col[mask], self.n_items) for mask in (~out, out))
        note = f"{self.name}: {held.nnz:,} of {self.links.nnz:,} links held out (seed {seed})"
        return replace(self, links=kept, held_out=held, report=self.report + note)

    def linked(self, links: csr_array, name: str) -> SearchData:
        """The same data under other links, such as their transpose."""
        return replace(self, name=name, links=links)

    @cached_property
    def sha256(self) -> str:
        """A hash of all that a model reads or is judged by; equal data gives an equal hash on every machine."""
        digest = hashlib.sha256(json.dumps([self.items[Columns.TEXT].tolist(), self.queries["text"].tolist()]).encode())
        for links in (self.links, self.held_out):
            if links is not None:
                digest.update(links.indptr.astype("<i8").tobytes() + links.indices.astype("<i4").tobytes())
        for table, columns in ((self.relevance, ("query", Columns.ITEM, "grade")), (self.log, ("query", Columns.ITEM, Columns.TIME))):
            for column in columns:
                digest.update(table[column].to_numpy().astype("<f8").tobytes())
        return digest.hexdigest()


def links_of(row: np.ndarray, column: np.ndarray, n: int) -> csr_array:
    """(n, n) csr of ones at these places, sorted; a place that is named twice is one all the same.

    Raises:
        DataError: a link from or to an item that is not there.
    """
    return matrix_of(row, column, (n, n), "links", ("item", "neighbour"))


def links_in_sequences(data: Dataset, top: int = TOP) -> csr_array:
    """(n, n) csr of ones: M[q, p] = 1 where some user took p right after q (section 5 of the paper); an item that follows itself says
    nothing. Of an item's neighbours those stay that followed most often, ``top`` at most; the lower code first among equals.
    """
    sequences = data.sequences()
    follows = np.flatnonzero(sequences.positions > 0)
    before, after = sequences.items[follows - 1], sequences.items[follows]
    counts = csr_array((np.ones(len(follows)), (before, after)), shape=(data.n_items, data.n_items))
    return strongest(counts, top)


def strongest(strength: csr_array, top: int) -> csr_array:
    """(n, n) csr of ones: of each row the ``top`` columns of largest strength, the lower code first among equals; never the item itself.
    Strengths that are named twice add up.
    """
    coo = strength.tocsr().tocoo()
    other = coo.row != coo.col
    row, column, weight = coo.row[other], coo.col[other], coo.data[other]
    order = np.lexsort((column, -weight, row))
    first = np.searchsorted(row[order], row[order])
    kept = order[np.arange(len(order)) - first < top]
    return links_of(row[kept], column[kept], strength.shape[0])


def kinds_by_words(texts: Sequence[str], queries: Sequence[str], relevance: pd.DataFrame) -> np.ndarray:
    """For each query whether its words could find what is relevant: ``all`` where every relevant text holds every word of the query,
    ``none`` where no relevant text holds any of them, ``some`` between the two, and also where nothing is relevant.

    Words are English stems without stop words; a query of stop words alone is ``none``.

    >>> relevance = pd.DataFrame({"query": [0, 1, 1, 2], "item": [0, 0, 1, 1]})
    >>> kinds_by_words(["a funny film", "a prank"], ["films", "the fun film", "comedy"], relevance).tolist()
    ['all', 'some', 'none']
    """
    words = Vocabulary.of([*texts, *queries], longest=1, stem=True, stop=True)
    asked, held = words.matrix(queries), words.matrix(texts)
    query, item = relevance["query"].to_numpy(), relevance[Columns.ITEM].to_numpy()
    found = asked[query].multiply(held[item]).sum(axis=1)
    table = pd.DataFrame({"query": query, "any": found > 0, "all": found == asked.sum(axis=1)[query]}).groupby("query")
    any_, all_ = (table[c].agg(c).reindex(range(len(queries)), fill_value=c == "any").to_numpy(bool) for c in ("any", "all"))
    return np.select([~any_, all_], ["none", "all"], "some")


@dataclass(frozen=True)
class Vocabulary:
    """Unigrams and bigrams of texts (section 5 of the paper), as a set: how often a word stands in a text is not counted.

    Attributes:
        vectorizer: fitted.
        words: the m words, in the order of the columns.
    """

    vectorizer: CountVectorizer
    words: tuple[str, ...]

    @classmethod
    def of(cls, texts: Sequence[str], at_least: int = 1, longest: int = 2, stem: bool = False, stop: bool = False) -> Vocabulary:
        """Built on training text alone.

        Args:
            at_least: texts that must hold a word.
            longest: words in a row that make one entry: 1 for unigrams alone.
            stem: English stems (Porter's second algorithm) in place of words.
            stop: leave out the most common English words.

        Raises:
            DataError: no word is left, or a text is none.
        """
        if no_text := [(k, text) for k, text in enumerate(texts) if not isinstance(text, str)]:
            raise DataError(f"text {no_text[0][0]} is {no_text[0][1]!r}; expected a string, which may be empty ({len(no_text)} such of {len(texts)})")
        stemmed = lru_cache(maxsize=None)(snowballstemmer.stemmer("english").stemWord)  # a word costs 20 µs, and most come again
        plain = CountVectorizer(token_pattern=r"(?u)\b\w+\b").build_tokenizer()

        def tokens(text: str) -> list[str]:
            found = [word for word in plain(text) if not (stop and word in ENGLISH_STOP_WORDS)]
            return [stemmed(word) for word in found] if stem else found

        vectorizer = CountVectorizer(tokenizer=tokens, token_pattern=None, ngram_range=(1, longest), min_df=at_least, binary=True, dtype=np.float32)
        try:
            vectorizer.fit(texts)
        except ValueError:
            raise DataError(f"no word stands in {at_least} of the {len(texts)} texts; lower at_least, or give texts with words") from None
        return cls(vectorizer, tuple(vectorizer.get_feature_names_out()))

    def __len__(self) -> int:
        return len(self.words)

    def matrix(self, texts: Sequence[str]) -> csr_array:
        """(texts, m) csr of ones; a text of unknown words is an empty row."""
        return csr_array(self.vectorizer.transform(texts))
