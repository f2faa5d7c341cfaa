"""The form of search data: links from sequences, held-out links, vocabularies, and the errors."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from zsrbook.data.dataset import Columns, DataError, Dataset
from zsrbook.data.search import SearchData, Vocabulary, kinds_by_words, links_in_sequences, links_of, strongest


def corpus(n: int = 4, links: tuple[tuple[int, int], ...] = ((0, 1), (1, 0), (2, 3))) -> SearchData:
    items = pd.DataFrame({"raw": [str(i) for i in range(n)], "title": "t", "text": [f"word{i} common" for i in range(n)]})
    row, column = np.array(links).T
    queries = pd.DataFrame({"text": ["word1", "common"], "kind": "all"})
    relevance = pd.DataFrame({"query": [0, 1, 1], Columns.ITEM: [1, 0, 2], "grade": 1})
    return SearchData("tiny", items, links_of(row, column, n), queries, relevance)


def shop(histories: list[list[str]]) -> Dataset:
    rows = [(u, item) for u, history in enumerate(histories) for item in history]
    interactions = pd.DataFrame(rows, columns=[Columns.USER, Columns.ITEM])
    names = sorted({item for _, item in rows})
    return Dataset.from_raw("shop", interactions, pd.DataFrame({Columns.RAW: names, Columns.TEXT: names}), clock=False)


def test_links_point_from_an_item_to_what_was_taken_right_after() -> None:
    links = links_in_sequences(shop([["a", "b", "b", "c"], ["a", "c"]]))
    np.testing.assert_array_equal(links.toarray(), [[0, 1, 1], [0, 0, 1], [0, 0, 0]])


def test_the_most_frequent_neighbours_stay_and_ties_go_to_the_lower_code() -> None:
    data = shop([["a", "d"], ["a", "d"], ["a", "c"], ["a", "b"]])
    np.testing.assert_array_equal(links_in_sequences(data, top=2).toarray()[0], [0, 1, 0, 1])


def test_the_strongest_of_each_row_stay() -> None:
    rng = np.random.default_rng(0)
    table = rng.integers(0, 4, (20, 20)).astype(float)
    for top in (1, 5, 20):
        expected = np.zeros_like(table)
        for row in range(20):
            others = [j for j in sorted(range(20), key=lambda j, row=row: (-table[row, j], j)) if j != row and table[row, j] > 0]
            expected[row, others[:top]] = 1
        np.testing.assert_array_equal(strongest(csr_array(table), top).toarray(), expected)
    twice = csr_array((np.array([1.0, 1.0, 1.5]), (np.array([0, 0, 0]), np.array([1, 1, 2]))), shape=(3, 3))
    np.testing.assert_array_equal(strongest(twice, 1).toarray()[0], [0, 1, 0])  # 1 and 1 add up


def test_kinds_say_whether_words_could_find_what_is_relevant() -> None:
    texts = ["a dark comedy", "dark humor", "the heist"]
    queries = ["dark comedies", "dark", "robbery", "the", "humor heists", "unanswered"]
    relevance = pd.DataFrame({"query": [0, 1, 1, 2, 3, 4, 4], Columns.ITEM: [1, 0, 1, 2, 2, 1, 2], "grade": 1})
    assert kinds_by_words(texts, queries, relevance).tolist() == ["some", "all", "none", "none", "some", "some"]


def test_held_out_links_go_by_pairs() -> None:
    data = corpus(6, ((0, 1), (1, 0), (2, 3), (3, 2), (4, 5), (5, 4)))
    held = data.hold_out(1 / 3, seed=1)
    assert (held.held_out.nnz, held.links.nnz) == (2, 4)
    np.testing.assert_array_equal((held.links + held.held_out).toarray(), data.links.toarray())
    np.testing.assert_array_equal(held.held_out.toarray(), held.held_out.toarray().T)
    assert held.sha256 != data.sha256 == corpus(6, ((0, 1), (1, 0), (2, 3), (3, 2), (4, 5), (5, 4))).sha256


def test_a_vocabulary_holds_unigrams_and_bigrams_of_enough_texts() -> None:
    words = Vocabulary.of(["green tea", "green tea, green!", "black tea"], at_least=2)
    assert words.words == ("green", "green tea", "tea")
    np.testing.assert_array_equal(words.matrix(["tea tea", "unknown", ""]).toarray(), [[0, 0, 1], [0, 0, 0], [0, 0, 0]])


def test_stems_and_stop_words() -> None:
    words = Vocabulary.of(["the connected networks", "connecting a network"], at_least=2, longest=1, stem=True, stop=True)
    assert words.words == ("connect", "network")
    with pytest.raises(DataError, match="no word stands in 5 of the 1 texts"):
        Vocabulary.of(["once"], at_least=5)


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(DataError, match="2 items are linked to themselves"):
        corpus(4, ((0, 0), (1, 1)))
    data = corpus()
    with pytest.raises(DataError, match="bad: relevance: item code 9 at place 0; expected 0 to 3"):
        SearchData("bad", data.items, data.links, data.queries, pd.DataFrame({"query": [0], Columns.ITEM: [9], "grade": 1}))
    with pytest.raises(DataError, match="item 1 is judged twice for query 0"):
        SearchData("bad", data.items, data.links, data.queries, pd.concat([data.relevance, data.relevance[:1]]))
    with pytest.raises(DataError, match=r"links of shape \(3, 3\) for 4 items"):
        SearchData("bad", data.items, links_of(np.array([0]), np.array([1]), 3), data.queries, data.relevance)


def test_links_to_items_that_are_not_there_and_texts_that_are_none_are_told():
    with pytest.raises(DataError, match="links: neighbour code 9 at place 1; expected 0 to 2"):
        links_of(np.array([1, 0]), np.array([2, 9]), 3)
    with pytest.raises(DataError, match=r"text 1 is None; expected a string, which may be empty \(1 such of 3\)"):
        Vocabulary.of(["red", None, "red"])
