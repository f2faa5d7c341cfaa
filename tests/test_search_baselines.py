"""The baselines of search against plain readings of their formulas."""

import math
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from zsrbook.data.dataset import Columns, DataError
from zsrbook.data.search import SearchData, Vocabulary, links_of
from zsrbook.models import search_baselines
from zsrbook.models.retriever import compare
from zsrbook.models.search_baselines import (
    BM25,
    LSI,
    BM25Settings,
    Hybrid,
    LSISettings,
    PopularItems,
    RandomItems,
    SentenceSearch,
    counts,
)
from zsrbook.text import TextEncoder

TEXTS = ["the car and the automobile", "an automobile engine", "a car engine, an engine!", "flowers of spring", "spring flowers flowers", ""]


def search_data(texts=TEXTS):
    n = len(texts)
    items = pd.DataFrame({"raw": [str(i) for i in range(n)], "title": "", Columns.TEXT: texts})
    log = pd.DataFrame({"query": [0, 0, 0], Columns.ITEM: [2, 2, 1], Columns.TIME: [0, 1, 2]})
    relevance = pd.DataFrame({"query": [], Columns.ITEM: [], "grade": []}, dtype=int)
    links = links_of(np.array([0, 1, 2]), np.array([1, 0, 1]), n)
    return SearchData("tiny", items, links, pd.DataFrame({"text": ["car"], "kind": "all"}), relevance, log)


@pytest.fixture
def data():
    return search_data()


def random_texts(rng, n=40):
    words = [f"w{i}" for i in range(60)]
    return [" ".join(rng.choice(words, rng.integers(0, 30), p=np.arange(60, 0, -1) / 1830)) for _ in range(n)]


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.9, 0.4), (2.0, 0.0)])
def test_bm25_is_its_formula(k1, b):
    rng = np.random.default_rng(0)
    texts, queries = random_texts(rng), ["w1 w2 w2 w55 unseen", "w3", *random_texts(rng, 5)[1:]]
    found = BM25(BM25Settings(k1, b, stem=False, stop=False)).fit(search_data(texts)).scores(queries)
    tokens = [re.findall(r"\w+", text) for text in texts]
    mean = sum(map(len, tokens)) / len(tokens)
    df = {word: sum(word in text for text in tokens) for text in tokens for word in text}
    expected = [
        [
            sum(
                math.log(1 + (len(texts) - df[word] + 0.5) / (df[word] + 0.5))
                * text.count(word)
                / (text.count(word) + k1 * (1 - b + b * len(text) / mean))
                for word in query.split()
                if word in df
            )
            for text in tokens
        ]
        for query in queries
    ]
    assert found.dtype == np.float32
    assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_bm25_tells_texts_apart_behind_more_words_than_float32_can_count(monkeypatch):
    found = csr_array(np.array([[2**24, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32))
    monkeypatch.setattr(search_baselines, "counts", lambda words, texts: found)
    model = BM25().fit(search_data(["tea", "pot", "cup"]))
    assert_array_equal(model.weights.toarray() > 0, np.eye(3, dtype=bool))


def test_bm25_stems_and_stops(data):
    found = BM25().fit(data).scores(["engines", "the"])
    assert found[0].argmax() == 2
    assert_array_equal(found[0] > 0, [False, True, True, False, False, False])
    assert np.isnan(found[1]).all()
    assert not np.isnan(BM25(BM25Settings(stop=False)).fit(data).scores(["the"])).any()


def test_bm25_spreads_what_neighbours_score(data):
    """Item 0 links to 1, item 1 to 0, item 2 to 1; 3 and 5 link to none. With two neighbours it is their mean that counts."""
    queries = ["engine car", "spring", "the"]
    own, spread = (BM25(BM25Settings(spread=share)).fit(data).scores(queries) for share in (0.0, 0.5))
    links = data.links.toarray()
    assert_allclose(spread, own + 0.5 * own @ (links / np.maximum(1, links.sum(1, keepdims=True))).T, rtol=1e-6)
    assert spread.dtype == np.float32
    assert own[0, 0] < spread[0, 0]
    assert_array_equal(spread[:, 3:], own[:, 3:])
    two = links_of(np.array([0, 0]), np.array([1, 2]), data.n_items)
    gained = BM25(BM25Settings(spread=1.0)).fit(data.linked(two, "two")).scores(queries)[0] - own[0]
    assert_allclose(gained[:2], [own[0, 1:3].mean(), 0], rtol=1e-6)
    for bad in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match="expected a number, 0 or more"):
            BM25Settings(spread=bad)


@pytest.mark.parametrize("weight", ["log-entropy", "tf-idf"])
def test_lsi_of_full_width_compares_weighted_counts(weight):
    rng = np.random.default_rng(1)
    texts = [text for text in random_texts(rng) if text]
    model = LSI(LSISettings(width=1000, weight=weight, at_least=1, stem=False, stop=False)).fit(search_data(texts))
    tf = counts(Vocabulary.of(texts, longest=1), texts).toarray().astype(float)
    if weight == "log-entropy":
        share = tf / tf.sum(0)
        safe = np.where(share > 0, share, 1)
        x = np.log(1 + tf) * (1 + (share * np.log(safe)).sum(0) / np.log(len(texts)))
    else:
        x = tf * np.log(len(texts) / (tf > 0).sum(0))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    u, s, v = np.linalg.svd(x, full_matrices=False)
    d = min(x.shape) - 1
    expected = compare(x @ v[:d].T, u[:, :d] * s[:d], "cosine")
    assert_allclose(model.scores(texts), expected, atol=1e-4)
    assert_allclose(np.diag(model.scores(texts)), 1, atol=1e-5)  # a text is found by itself


def test_lsi_finds_words_that_go_together(data):
    found = LSI(LSISettings(width=2)).fit(data).scores(["car", "automobile", "unseen"])
    assert found[0, 1] > 0.5 > found[0, [3, 4]].max()  # item 1 says automobile and never car
    assert found[0, 5] == -1  # no text
    assert np.isnan(found[2]).all()
    assert LSI(LSISettings(width=2)).fit(data).scores([]).shape == (0, 6)
    again = LSI(LSISettings(width=2)).fit(data).scores(["car"])
    assert_array_equal(again[0], found[0])
    with pytest.raises(DataError, match="tiny: 3 texts of 1 words; LSI needs two of each"):
        LSI().fit(search_data(["tea", "tea", "tea"]))


class Letters(TextEncoder):
    """Counts letters."""

    def encode(self, texts, cache=True):
        return np.array([[text.count(letter) for letter in "abc"] for text in texts], np.float16)


def test_sentences_are_compared_by_cosine_and_blank_ones_are_not():
    model = SentenceSearch(Letters()).fit(search_data(["ab", "c", " "]))
    found = model.scores(["aabb", "  "])
    assert_allclose(found[0], [1, 0, -1], atol=1e-6)
    assert np.isnan(found[1]).all()


class Fixed(RandomItems):
    """Gives what it is given."""

    def __init__(self, rows):
        self.rows = np.asarray(rows, np.float32)

    def scores(self, queries):
        return self.rows[: len(queries)]


def test_ranks_are_fused_with_ties_shared(data):
    nan = np.nan
    a, b = Fixed([[3, 1, 1, 2], [nan] * 4, [nan] * 4]), Fixed([[0, 0, 0, 9], [1, 2, nan, 3], [nan] * 4])
    found = Hybrid(a, b).fit(data).scores(["x", "y", "z"])
    assert_allclose(found[0], [1 / 61 + 1 / 63, 1 / 63.5 + 1 / 63, 1 / 63.5 + 1 / 63, 1 / 62 + 1 / 61], rtol=1e-6)
    assert_allclose(found[1], [1 / 63, 1 / 62, 1 / 64, 1 / 61], rtol=1e-6)
    assert np.isnan(found[2]).all()


def test_scores_are_fused_on_one_scale(data):
    nan = np.nan
    a, b = Fixed([[3, 1, 1, 2], [nan] * 4, [nan] * 4]), Fixed([[0, 0, 0, 9], [1, 2, nan, 3], [nan] * 4])
    found = Hybrid(a, b, by="scores").fit(data).scores(["x", "y", "z"])
    assert_allclose(found[:2], [[1, 0, 0, 1.5], [0, 0.5, 0, 1]], rtol=1e-6)
    assert np.isnan(found[2]).all()
    with pytest.raises(ValueError, match="Hybrid of 0 searches by 'ranks'"):
        Hybrid()


def test_popularity_is_the_same_for_all(data):
    assert PopularItems("log").fit(data).scores(["car", "x"]).tolist() == [[0, 1, 2, 0, 0, 0]] * 2
    assert PopularItems("links").fit(data).scores(["car"]).tolist() == [[1, 2, 0, 0, 0, 0]]
    with pytest.raises(ValueError, match="PopularItems by 'clicks'; expected log or links"):
        PopularItems("clicks")


def test_chance_goes_by_query_and_seed(data):
    model = RandomItems(3).fit(data)
    found = model.scores(["car", "tea"])
    assert_array_equal(model.scores(["tea"])[0], found[1])
    assert (found[0] != found[1]).any()
    assert (found != RandomItems(4).fit(data).scores(["car", "tea"])).any()
    assert model.scores([]).shape == (0, 6)


def test_similar_items_are_asked_for_by_text_or_by_vector(data):
    bm25, lsi = BM25().fit(data), LSI(LSISettings(width=2)).fit(data)
    asked = np.array([4, 1])
    assert_array_equal(bm25.similar(data, asked), bm25.scores([TEXTS[4], TEXTS[1]]))
    assert_array_equal(lsi.similar(data, asked), compare(lsi.items[asked], lsi.items, "cosine"))
    assert Hybrid(bm25, lsi).similar(data, asked).shape == (2, 6)


def test_a_query_that_nothing_is_known_of_is_nan_also_beside_empty_items():
    found = compare(np.array([[np.nan, np.nan], [0, 0], [1, 0]]), np.array([[0.0, 0.0], [2.0, 0.0]]), "cosine")
    assert_array_equal(found, [[np.nan, np.nan], [-1, -1], [-1, 1]])


def test_a_weight_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="LSI settings: weight is 'tfidf'; expected one of log-entropy, tf-idf"):
        LSISettings(weight="tfidf")


def test_the_library_behind_bm25_does_not_start_jax_where_it_is_installed(tmp_path):
    """Which takes three quarters of a card's memory as it starts; a notebook that asks for JAX itself still gets it."""
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("print('JAX began')")
    code = "import zsrbook.models.search_baselines, sys; assert 'jax' not in sys.modules; print('then'); import jax"
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    assert done.stdout.split("\n")[:2] == ["then", "JAX began"], done.stderr
