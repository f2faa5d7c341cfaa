"""The loaders on the real files: the counts that the sources state."""

import functools
import os

import numpy as np
import pytest

from zsrbook.data import catalogue, fetch, movielens, netflix, overlap, titles
from zsrbook.data.dataset import DataError

pytestmark = [
    pytest.mark.small,
    pytest.mark.skipif(not os.environ.get("ZSRBOOK_DATA"), reason="ZSRBOOK_DATA is not set: the folder of real public data"),
]


@functools.cache
def load(name):
    """The data set, or a skip that says which file is missing."""
    if missing := fetch.source_of(name).missing():
        pytest.skip(f"{missing[0].path} is not in {fetch.source_of(name).where}; get it with `python -m zsrbook data get {name}`")
    return catalogue.load(name)


#: users, items in the catalogue, items taken, interactions
COUNTS = {
    "ml-100k": (943, 1_682, 1_682, 100_000),
    "ml-1m": (6_040, 3_883, 3_706, 1_000_209),
    "ml-latest-small": (610, 9_742, 9_724, 100_836),
    "amazon-gift-cards-2018": (458, 148, 148, 2_972 - 3),
    "amazon-magazine-subscriptions-2018": (348, 157, 157, 2_375 - 47),
    "amazon-musical-instruments-2014": (1_429, 900, 900, 10_261),
    "scientific": (8_317, 4_344, 4_344, 58_492),
    "games": (50_546, 16_859, 16_859, 440_264),
    "office": (3_231, 3_459, 3_317, 22_447),
    "industrial": (3_285, 3_686, 3_541, 22_743),
    "yelp": (30_431, 20_033, 20_033, 316_354),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name):
    data = load(name)
    assert (data.n_users, data.n_items, data.interactions["item"].nunique(), len(data)) == COUNTS[name]
    assert not data.items["text"].str.contains(r"<[a-z]+[ >]|&amp;", regex=True).any()
    assert data.name == name


def test_distinct_pairs_of_office_and_industrial():
    for name, pairs in (("office", 21_188), ("industrial", 21_664)):
        assert len(load(name).interactions.drop_duplicates(["user", "item"])) == pairs


def test_movielens_texts_and_users():
    data = load("ml-1m")
    films = data.items.set_index("raw")
    assert films.loc["2571", "text"] == "The Matrix"
    assert films.loc["73", "title"] == "Misérables, Les (1995)"
    assert films["year"].notna().all()
    assert np.bincount(data.interactions["value"].astype(int)).tolist()[1:] == list(movielens.STARS_1M)
    assert set(data.users["gender"]) == {"F", "M"}
    assert load("ml-100k").users["age"].between(7, 73).all()


def test_netflix_samples():
    folder = fetch.source_of("netflix-2m").where
    if not (folder / "movie_titles.csv").is_file():
        pytest.skip(f"movie_titles.csv is not in {folder}")
    films = netflix.read_titles(folder / "movie_titles.csv")
    assert len(films) == 17_770
    assert films.set_index("raw").loc["72", "title"] == "At Home Among Strangers, A Stranger Among His Own"
    if not list(folder.glob("combined_data_*.txt")):
        pytest.skip(f"combined_data_*.txt is not in {folder}")
    small = netflix.load(folder, first=1_000)
    assert len(small) == 1_000
    everything = netflix.load(folder, first=None)
    assert small.interactions["time"].max() <= np.sort(everything.interactions["time"])[1_000]


def test_titles_match_across_movielens_releases():
    one, other = load("ml-latest-small"), load("ml-1m")
    same_id = one.items.merge(other.items, on="raw")
    equal = [titles.normalise(a) == titles.normalise(b) for a, b in zip(same_id["title_x"], same_id["title_y"], strict=True)]
    assert np.mean(equal) > 0.85


@pytest.mark.parametrize(("source", "target"), [("games", "scientific"), ("scientific", "games"), ("games", "yelp"), ("scientific", "office")])
def test_zero_shot_pairs_pass_the_audit(source, target):
    audit = overlap.audit(load(source), load(target))
    audit.assert_disjoint()
    assert audit.near_duplicates < 0.01 * audit.items


def test_one_category_under_two_numberings_is_caught():
    audit = overlap.audit(load("scientific"), load("industrial"))
    assert audit.verdict == "same category under other ids"
    assert audit.shared_users is None
    with pytest.raises(DataError, match="no zero-shot pair"):
        audit.assert_disjoint()


def test_movielens_pair_is_disjoint_once_the_shared_films_are_gone():
    target = load("ml-1m")
    source = overlap.without_shared(load("ml-latest-small"), target, by=("names",), near=True)
    overlap.audit(source, target).assert_disjoint()
    assert overlap.audit(source, target).equal_titles == 0
