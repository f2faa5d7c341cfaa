"""Search data from any catalogue with sequences: a query is a word of titles, and it is hidden from the items that answer it.

Shops publish no queries, so words of titles stand for them. Two samples of the items are drawn, and words that titles in both
samples and in the rest hold become queries, each of them asked twice:

``hidden``  relevant are the items of the first sample whose title holds the word. All words asked are taken out of the texts of this
            sample, titles and descriptions, with other words of the same stem; no lexical match is left. What remains are the other
            words of a text, and the links to items whose texts still hold the word.
``shown``   relevant are the items of the second sample whose title holds the word. Their texts are whole: the same words, asked of a
            catalogue that says what it sells.

Each kind is a set of queries with its own pool of candidates, the items that answer any of them (section 5.2 of the paper). Beyond
the pool of ``hidden`` stand items that still hold the word, and would be found first, rightly.

Limits: a query is one word. An item that is about the word without naming it in its title counts as not relevant. Words with two
meanings are not told apart. And the hidden words are gone from training too, so that texts of that sample teach less.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import snowballstemmer

from zsrbook.data.dataset import Columns, DataError, Dataset
from zsrbook.data.search import TOP, SearchData, Vocabulary, links_in_sequences


def hide_title_words(
    data: Dataset, queries: int = 200, share: float = 0.2, at_least: int = 5, at_most: float = 0.1, top: int = TOP, seed: int = 0
) -> SearchData:
    """Items and links of ``data``, queries and relevance as the module says.

    Args:
        data: items with ``title``, else their text counts as title.
        queries: words to ask, at most; drawn at random from those that fit.
        share: of the items that each sample holds, below a half.
        at_least: titles that must hold a word, in each sample and in the rest.
        at_most: share of all titles that may hold a word.
        top: neighbours that an item keeps.
        seed: of the samples and of the words.

    Raises:
        DataError: ``share`` is no such number, or no word fits.
    """
    if not 0 < share < 0.5:
        raise DataError(f"share is {share}; expected a number between 0 and 0.5, as two samples of this size are drawn")
    rng = np.random.default_rng(seed)
    titles = data.items["title" if "title" in data.items else Columns.TEXT]
    stems = Vocabulary.of(titles, longest=1, stem=True, stop=True)
    held = stems.matrix(titles)
    parts = np.split(rng.permutation(data.n_items), np.round([share * data.n_items, 2 * share * data.n_items]).astype(int))
    enough = [held[np.sort(part)].sum(axis=0) >= at_least for part in parts]
    word = [len(stem) > 2 and stem.isalpha() for stem in stems.words]
    fit = np.flatnonzero(np.all([*enough, held.sum(axis=0) <= at_most * data.n_items, word], axis=0))
    if not len(fit):
        raise DataError(f"{data.name}: no word stands in {at_least} titles of each sample; lower at_least, or take a larger catalogue")
    asked = np.sort(rng.permutation(fit)[:queries])
    chosen = {stems.words[column]: query for query, column in enumerate(asked)}
    hidden, shown = (np.sort(part) for part in parts[:2])
    texts = data.items[Columns.TEXT].to_numpy(object).copy()
    texts[hidden] = without(texts[hidden], set(chosen))
    pairs = []
    for sample, first in ((hidden, 0), (shown, len(asked))):
        item, query = held[sample][:, asked].nonzero()
        pairs.append(pd.DataFrame({"query": query + first, Columns.ITEM: sample[item], "grade": 1}))
    relevance = pd.concat(pairs).sort_values(["query", Columns.ITEM], ignore_index=True)
    links = links_in_sequences(data, top)
    report = data.report + (
        f"{data.name}: {len(asked):,} of {len(fit):,} words of titles asked (seed {seed}), hidden from {len(hidden):,} items,"
        f" {(texts[hidden] == '').sum():,} of which have no text left, and shown by {len(shown):,}"
    )
    report += f"{data.name}: {links.nnz:,} links, at most {top} an item; {(links.sum(axis=1) == 0).sum():,} items have none"
    table = pd.DataFrame({"text": 2 * commonest(titles, chosen), "kind": np.repeat(["hidden", "shown"], len(asked))})
    return SearchData(f"{data.name}-titles", data.items.assign(**{Columns.TEXT: texts}), links, table, relevance, report=report)


def forms(texts: pd.Series | np.ndarray) -> tuple[Vocabulary, list[str]]:
    """All words of texts as they are written, and the stem of each."""
    words = Vocabulary.of(texts, longest=1)
    return words, snowballstemmer.stemmer("english").stemWords(words.words)


def without(texts: np.ndarray, stems: set[str]) -> np.ndarray:
    """(n,) the texts without any word of these stems."""
    words, stem = forms(texts)
    gone = [re.escape(word) for word, of in zip(words.words, stem, strict=True) if of in stems]
    if not gone:
        return texts
    # \w+ on both sides, so that a word goes as a whole, as the vocabulary reads it
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(gone)})(?!\w)", re.IGNORECASE)
    return np.array([" ".join(pattern.sub(" ", text).split()) for text in texts], object)


def commonest(titles: pd.Series, chosen: dict[str, int]) -> list[str]:
    """For each chosen stem the word of that stem that most titles hold."""
    words, stem = forms(titles)
    table = pd.DataFrame({"word": words.words, "titles": words.matrix(titles).sum(axis=0), "query": pd.Series(stem).map(chosen)}).dropna()
    return table.sort_values(["query", "titles", "word"], ascending=[True, False, True]).drop_duplicates("query")["word"].tolist()
