"""A search box for a page without a server: the reader asks, and the browser itself ranks a small catalogue by several searches side by side.

A page carries its catalogue along, so vectors go as int8. Rounded as they are, the items of ZSL_TE come out in another order where a strong
regulariser has left them nearly parallel. What goes on the page is therefore another factoring of the same scores: see ``packed``.
"""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from html import escape
from math import ceil
from pathlib import Path

import numpy as np
from IPython.display import HTML
from scipy.sparse import csr_array
from sklearn.preprocessing import normalize

from zsrbook.data.search import Vocabulary
from zsrbook.models.retriever import Score, compare
from zsrbook.models.search_baselines import BM25, counts

NO_WORD = "no word of the query"
#: an axis that moves scores less than this, relative to the one that moves them most, is lost in rounding anyway
_FAINT = 1e-3
_FOLDER = Path(__file__).parent


def search_box(
    titles: Sequence[str],
    texts: Sequence[str],
    vocabulary: Vocabulary,
    systems: Mapping[str, tuple[np.ndarray, np.ndarray, Score]],
    examples: Sequence[str],
    bm25: BM25 | None = None,
    k: int = 8,
    label: str = "Your query",
) -> HTML:
    """A search box over n items, with the answers to the examples as a table for readers without scripts, for print and for screen readers.

    The list shows the words of the query that an item's own text holds, so that an item found without any stands out. In 8 bits, neighbours
    in a list may swap: of a top 10, 96 to 99 % are those of the exact vectors, which the tables are made from.

    Base64 takes 4/3 byte a number: 1,000 items and 1,000 words of 64 axes ask for 0.17 MB a system, and the texts come on top.

    Args:
        titles: (n,) what an item is called.
        texts: (n,) what BM25 searches, and what is looked through for the words of a query.
        vocabulary: m words, cut as plain text: without stems and with stop words, since the browser has neither.
        systems: name -> words (m, d), items (n, d), and how the mean of a query's words is compared with items. Widths may differ.
        examples: queries on buttons and in the table; the first is asked at once.
        bm25: a further search, fitted on these texts without stems and with stop words; the browser works it out from the texts.
        k: how many items a search shows at most.
        label: the name of the input; give each box of a page another.

    Raises:
        ValueError: sizes that do not match, a vector that is not finite, stems or stop words, or nothing to show.
    """
    n, known = len(titles), Vocabulary.of(texts, longest=1)
    _check(titles, texts, vocabulary, known, systems, examples, bm25, k, label)
    packs = {name: packed(words, items, score) for name, (words, items, score) in systems.items()}
    catalogue = {
        "titles": list(titles),
        "vocabulary": vocabulary.words,
        "longest": vocabulary.vectorizer.ngram_range[1],
        "systems": packs,
        "terms": known.words,
        "postings": _postings(counts(known, texts)),
        "bm25": None if bm25 is None else {"k1": bm25.settings.k1, "b": bm25.settings.b},
        "k": k,
        "badge": NO_WORD,
    }
    data = b64encode(gzip.compress(json.dumps(catalogue, ensure_ascii=False, separators=(",", ":")).encode(), mtime=0)).decode()

    scores = {name: _by_vectors(vocabulary.matrix(examples), *system) for name, system in systems.items()}
    if bm25 is not None:
        found = bm25.scores(examples)
        scores["BM25"] = np.where(found > 0, found, -np.inf)
    cut = known.vectorizer.build_analyzer()
    table = "".join(_answers(query, {name: rows[q] for name, rows in scores.items()}, titles, texts, cut, k) for q, query in enumerate(examples))
    note = f"Ranked on this page, without a server, from {ceil(len(data) / 1000):,} kB that came with it: {n:,} items, vectors in 8 bits."
    if bm25 is not None:
        note += f" BM25 (k1 {bm25.settings.k1:g}, b {bm25.settings.b:g}) takes words as they stand, without stems."
    buttons = "".join(f'<button type="button">{escape(query)}</button>' for query in examples)
    columns = "".join(
        f'<div><p class="zsr-search-name">{escape(name)}</p><p class="zsr-search-message"></p><ol aria-label="{escape(name)}"></ol></div>'
        for name in scores
    )
    style, script = ((_FOLDER / f"search_box.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return HTML(
        f'<div class="zsr-search" data-catalogue="{data}"><style>{style}</style><div class="zsr-search-live" hidden>'
        f'<form role="search" aria-label="{escape(label)}"><label>{escape(label)} <input type="text" autocomplete="off" spellcheck="false"'
        f' value="{escape(examples[0])}"></label><button>Search</button></form>'
        f'<div class="zsr-search-examples" role="group" aria-label="Example queries"><span>Try:</span>{buttons}</div>'
        f'<p class="zsr-search-status" role="status"></p><div class="zsr-search-columns">{columns}</div>'
        f'<p class="zsr-search-note">{escape(note)}</p></div>'
        f"<details open><summary>The answers to the example queries, as tables</summary>{table}</details></div><script>{script}</script>"
    )


def packed(words: np.ndarray, items: np.ndarray, score: Score) -> dict[str, object]:
    """Vectors that rank as the words W and the items V do, made to bear int8, in the form that the script reads.

    Three things leave the order of items under every query as it is. Items of length 1 turn the cosine into an inner product. Their mean
    adds the same to all scores of a query, so it is taken out. And only the products P = W Vᵀ matter, not the axes: with P = A S Bᵀ, words
    A √S and items B √S share the error of rounding fairly, and axes on which S is next to nothing need not travel.

    Args:
        words: (m, d).
        items: (n, d).

    Returns:
        ``words`` and ``items``: int8 in base64, a row after the other, with a float32 scale a row; ``width`` of the rows; ``silent``: the
        items without a vector under the cosine, which are no answer to anything.
    """
    words, items = words.astype(np.float64), items.astype(np.float64)
    silent = _silent(items, score)
    if score == "cosine":
        items = normalize(items)
    items = np.where(silent[:, None], 0.0, items - items[~silent].mean(0) if (~silent).any() else 0.0)
    (of_words, left), (of_items, right) = np.linalg.qr(words), np.linalg.qr(items)
    a, s, b = np.linalg.svd(left @ right.T, full_matrices=False)
    kept = (s > _FAINT * s.max(initial=0.0)).sum()
    root = np.sqrt(s[:kept])
    return {
        "width": int(kept),
        "words": _rounded(of_words @ a[:, :kept] * root),
        "items": _rounded(of_items @ b[:kept].T * root),
        "silent": np.flatnonzero(silent).tolist(),
    }


def _rounded(rows: np.ndarray) -> dict[str, str]:
    scales = np.abs(rows).max(1, initial=0.0) / 127
    numbers = np.rint(rows / np.where(scales > 0, scales, 1.0)[:, None])
    return {"numbers": b64encode(numbers.astype(np.int8)).decode(), "scales": b64encode(scales.astype("<f4")).decode()}


def _silent(items: np.ndarray, score: Score) -> np.ndarray:
    return ~items.any(1) if score == "cosine" else np.zeros(len(items), bool)


def _postings(found: csr_array) -> list[list[int]]:
    """A list a word, of pairs: how many items further than the last (from -1), and how often the word stands there. Small numbers pack well."""
    columns = found.tocsc()
    columns.sort_indices()
    gaps = np.diff(columns.indices, prepend=-1)
    first = columns.indptr[:-1]
    gaps[first] = columns.indices[first] + 1
    pairs = np.stack([gaps, columns.data.astype(gaps.dtype)], axis=1)
    return [part.ravel().tolist() for part in np.split(pairs, first[1:])]


# ---------------------------------------------------------------- the same without a script


def _by_vectors(asked: csr_array, words: np.ndarray, items: np.ndarray, score: Score) -> np.ndarray:
    """(queries, n) scores of (queries, m) words; minus infinity for what is no answer."""
    means = normalize(asked, "l1") @ words
    scores = compare(means, items, score)
    return np.where(means.any(1)[:, None] & ~_silent(items, score), scores, -np.inf)


def _answers(
    query: str, scores: Mapping[str, np.ndarray], titles: Sequence[str], texts: Sequence[str], cut: Callable[[str], list[str]], k: int
) -> str:
    """One example as a table: a column a search, a row a rank."""
    asked, lists = set(cut(query)), []
    for of_items in scores.values():
        best = np.argsort(-of_items, kind="stable")[:k]
        lists.append([int(item) for item in best if of_items[item] > -np.inf])
    rows = []
    for rank in range(max(1, *map(len, lists))):
        cells = []
        for found in lists:
            if rank < len(found):
                badge = "" if asked & set(cut(texts[found[rank]])) else f' <span class="zsr-search-badge">{NO_WORD}</span>'
                cells.append(escape(titles[found[rank]]) + badge)
            else:
                cells.append("" if rank else "nothing found")
        rows.append(f'<tr><th scope="row">{rank + 1}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>')
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in scores)
    name = escape(f"Answers to {query}")
    return (
        f'<div class="zsr-search-table" role="region" tabindex="0" aria-label="{name}"><table><caption>{escape(query)}</caption>'
        f'<thead><tr><th scope="col">Rank</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _check(
    titles: Sequence[str],
    texts: Sequence[str],
    vocabulary: Vocabulary,
    known: Vocabulary,
    systems: Mapping[str, tuple[np.ndarray, np.ndarray, Score]],
    examples: Sequence[str],
    bm25: BM25 | None,
    k: int,
    label: str,
) -> None:
    if len(titles) != len(texts):
        raise ValueError(f"{len(titles)} titles and {len(texts)} texts; expected one of each an item")
    if not label.strip():
        raise ValueError("label is empty; say what is asked for, for readers who can't see the box")
    if not examples:
        raise ValueError("examples is empty; give a query or more, whose answers stand in where scripts do not run")
    if k < 1:
        raise ValueError(f"k is {k}; expected 1 or more items a search")
    if not systems and bm25 is None:
        raise ValueError("no systems and no bm25; give a search or more")
    if "BM25" in systems and bm25 is not None:
        raise ValueError("a system is named BM25, as is the search over the texts; name it otherwise, or give no bm25")
    if bm25 is not None and bm25.words.words != known.words:
        raise ValueError(
            f"bm25 knows {len(bm25.words)} words, the texts hold {len(known)}; fit it on these texts, by BM25Settings(stem=False, stop=False)"
        )
    for name, (words, items, score) in systems.items():
        if score not in ("cosine", "dot"):
            raise ValueError(f"{name}: the score is {score!r}; expected cosine or dot")
        if words.shape != (len(vocabulary), items.shape[1]) or len(items) != len(titles):
            raise ValueError(
                f"{name}: words of shape {words.shape} and items of shape {items.shape}; expected ({len(vocabulary)}, d) for the words of the"
                f" vocabulary, and ({len(titles)}, d) for the titles"
            )
        for what, vectors, of in (("word", words, vocabulary.words), ("item", items, titles)):
            bad = ~np.isfinite(vectors).all(1)
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise ValueError(f"{name}: the vector of {what} {row}, {of[row]!r}, is not finite ({int(bad.sum())} such of {len(bad)})")
    cut, plain = (words.vectorizer.build_tokenizer() for words in (vocabulary, known))
    for row, text in enumerate(texts):
        if cut(text.lower()) != plain(text.lower()):
            raise ValueError(
                f"text {row}, {text[:60]!r}: the vocabulary takes stems or leaves out stop words, which the browser can't; make one without"
            )
