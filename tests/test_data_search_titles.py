"""Words of titles as queries, hidden from the items that answer them."""

import numpy as np
import pandas as pd
import pytest

from zsrbook.data.dataset import Columns, DataError, Dataset
from zsrbook.data.hidden_words import hide_title_words, without
from zsrbook.data.search import Vocabulary, links_in_sequences

THINGS = ("kettle", "teapot", "grinder", "toaster", "mixer", "whisk", "ladle", "strainer")


def shop(n: int = 400, seed: int = 0) -> Dataset:
    """Titles of a made-up maker and one of eight things, sometimes in the plural; texts say the thing once more."""
    rng = np.random.default_rng(seed)
    thing = rng.permutation(n) % len(THINGS)  # equally many of each
    titles = [f"maker{i % 37} {THINGS[t]}{'s' * int(rng.random() < 0.3)} {i}" for i, t in enumerate(thing)]
    items = pd.DataFrame({"raw": [str(i) for i in range(n)], "title": titles})
    items["text"] = [f"{title}. A {THINGS[t].upper()} for you" for title, t in zip(titles, thing, strict=True)]
    rows = pd.DataFrame({Columns.USER: np.repeat(np.arange(200), 5).astype(str), Columns.ITEM: rng.integers(n, size=1000).astype(str)})
    return Dataset.from_raw("shop", rows, items, clock=False)


@pytest.fixture(scope="module")
def pair():
    source = shop()
    return source, hide_title_words(source, at_most=0.5, seed=3)


def test_hidden_words_are_gone_from_the_texts_that_answer_and_from_no_other(pair):
    source, data = pair
    changed = (data.items["text"] != source.items["text"]).to_numpy()
    assert changed.sum() == 80  # a fifth of all items; each title holds one of the things
    words = Vocabulary.of([*source.items["text"], *data.queries["text"]], longest=1, stem=True)
    asked, held = words.matrix(data.queries["text"]), words.matrix(data.items["text"])
    kinds = data.queries["kind"].to_numpy()[data.relevance["query"]]
    item = data.relevance[Columns.ITEM].to_numpy()
    says = asked[data.relevance["query"].to_numpy()].multiply(held[item]).sum(axis=1)
    assert changed[item[kinds == "hidden"]].all()
    assert not changed[item[kinds == "shown"]].any()
    assert (says[kinds == "hidden"] == 0).all()
    assert (says[kinds == "shown"] == 1).all()
    hidden = np.flatnonzero(changed)
    assert held[hidden].multiply(asked.sum(axis=0)[None, :]).sum() == 0  # no hidden text holds any word that is asked
    assert data.items["title"].equals(source.items["title"])


def test_relevance_is_who_holds_the_word_in_the_title(pair):
    source, data = pair
    assert sorted(data.queries["text"][: len(THINGS)]) == sorted(THINGS)  # the singular is commoner; stems are asked once
    assert data.queries["text"].tolist() == 2 * data.queries["text"][: len(THINGS)].tolist()
    hidden = np.flatnonzero(data.items["text"] != source.items["text"])
    for query, word in enumerate(data.queries["text"][: len(THINGS)]):
        answers = data.relevance[data.relevance["query"] == query][Columns.ITEM].tolist()
        assert answers == [i for i in hidden if word in source.items["title"][i]]
    assert (links_in_sequences(source) != data.links).nnz == 0


def test_seeds(pair):
    source, data = pair
    assert hide_title_words(source, at_most=0.5, seed=3).sha256 == data.sha256 != hide_title_words(source, at_most=0.5, seed=4).sha256
    few = hide_title_words(source, queries=3, at_most=0.5)
    assert few.queries["kind"].tolist() == ["hidden"] * 3 + ["shown"] * 3


def test_words_too_rare_or_too_common_are_not_asked(pair):
    source, _ = pair
    with pytest.raises(DataError, match="shop: no word stands in 90 titles of each sample"):
        hide_title_words(source, at_least=90, at_most=0.5)
    with pytest.raises(DataError, match="no word stands"):
        hide_title_words(source, at_most=0.01)
    with pytest.raises(DataError, match=r"share is 0\.5; expected a number between 0 and 0\.5"):
        hide_title_words(source, share=0.5)


def test_without_takes_whole_words_of_a_stem():
    texts = np.array(["Gloves, GLOVE and glover", "a foxglove", "", "(glove)"], object)
    assert without(texts, {"glove"}).tolist() == [", and glover", "a foxglove", "", "( )"]
    assert without(texts, {"none"}).tolist() == texts.tolist()
