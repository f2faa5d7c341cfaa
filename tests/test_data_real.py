"""The loaders on the real files: the counts that the sources state."""

import functools

import ir_measures
import numpy as np
import pandas as pd
import pytest
from public import needs

from zsrbook.data import catalogue, fetch, movielens, movielens_tags, netflix, overlap, smart, titles
from zsrbook.data.dataset import Columns, DataError
from zsrbook.evaluation import retrieval
from zsrbook.experiments import prerec, zesrec
from zsrbook.models.search_baselines import BM25
from zsrbook.records import REPOSITORY
from zsrbook.scale import Scale

pytestmark = pytest.mark.small


@functools.cache
def load(name):
    """The data set, or a skip that says which file is missing."""
    needs(name)
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
    "sports": (35_598, 18_357, 18_357, 296_337),
    "beauty": (22_363, 12_101, 12_101, 198_502),
    "toys": (19_412, 11_924, 11_924, 167_597),
    "epinions": (22_164, 296_277, 296_277, 922_267),
    "ciao": (7_375, 105_114, 105_114, 284_086 - 290),
    "douban": (2_999, 3_000, 3_000, 136_891),
    "flixster": (2_341, 3_000, 2_956, 26_173),
    "filmtrust": (1_508, 2_071, 2_071, 35_497),
    "yelp-hin": (16_239, 14_284, 14_284, 198_397),
}


PUBLIC = pd.read_csv(REPOSITORY / "book" / "public_data.csv", index_col="name")


@pytest.mark.parametrize("name", PUBLIC.index)
def test_what_the_book_says_of_public_data(name):
    load(name)  # or skip
    counted = zesrec.statistics([zesrec.load(name, Scale.SMALL)]).loc[name]
    told = PUBLIC.loc[name, ["users", "items", "interactions", "repeats"]].astype(float)
    assert told.to_dict() == pytest.approx(counted[told.index].to_dict(), abs=1e-6)


MATRICES = pd.read_csv(REPOSITORY / "book" / "public_matrices.csv", index_col="name")


@pytest.mark.parametrize("name", MATRICES.index)
def test_what_the_book_says_of_public_matrices(name):
    load(name)  # or skip
    split = prerec.load(prerec.Spec(name, Scale.SMALL))
    assert [*split.train.shape, (split.known + split.test).nnz] == MATRICES.loc[name].tolist()


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name):
    data = load(name)
    assert (data.n_users, data.n_items, data.interactions["item"].nunique(), len(data)) == COUNTS[name]
    assert not data.items["text"].str.contains(r"<[a-z]+[ >]|&amp;", regex=True).any()
    assert data.name == name


def test_what_the_docstrings_of_sites_with_friends_say():
    stars = {"epinions": (1, 5), "ciao": (0, 5), "douban": (1, 5), "flixster": (0.5, 5), "filmtrust": (0.5, 4), "yelp-hin": (1, 5)}
    repeats = {"epinions": 9_826, "ciao": 1_146, "douban": 0, "flixster": 0, "filmtrust": 3, "yelp-hin": 0}
    for name, ends in stars.items():
        frame = load(name).interactions
        assert (frame["value"].min(), frame["value"].max()) == ends
        assert frame.duplicated(["user", "item"]).sum() == repeats[name]
        assert load(name).items["text"].eq("").all()
    assert {name: load(name).items["category"].nunique() for name in ("epinions", "ciao")} == {"epinions": 27, "ciao": 28}
    days = load("ciao").interactions["time"] / 86_400
    assert set((days % 1 * 24).round(6)) == {7.0}
    assert "epinions: 11 periods instead of times" in str(load("epinions").report)


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


def test_blogcatalog():
    needs("blogcatalog")
    data = catalogue.load_graph("blogcatalog")
    assert data.graph.shape == (10_312, 10_312)
    assert data.graph.nnz == 2 * 333_983
    assert np.diff(data.graph.indptr).min() == 1
    assert data.labels.shape == (10_312, 39)
    assert data.labels.sum() == 14_476


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
    assert audit.shared_users is None
    audit.assert_disjoint(unknown_users=True)
    assert audit.near_duplicates < 0.01 * audit.items


def test_one_category_under_two_numberings_is_caught():
    audit = overlap.audit(load("scientific"), load("industrial"))
    assert audit.verdict == "same category under other ids"
    assert audit.shared_users is None
    with pytest.raises(DataError, match="no zero-shot pair"):
        audit.assert_disjoint(unknown_users=True)


def test_movielens_pair_shares_no_film_once_the_shared_films_are_gone():
    target = load("ml-1m")
    source = overlap.without_shared(load("ml-latest-small"), target, by=("names",), near=True)
    overlap.audit(source, target).assert_disjoint(unknown_users=True)
    assert overlap.audit(source, target).equal_titles == 0


@functools.cache
def load_search(name):
    for source in catalogue.SEARCH[name][0]:
        needs(source)
    return catalogue.load_search(name)


#: items, linked pairs, items with a link, queries that are judged, relevant pairs
SEARCH = {"cisi": (1_460, 38_672, 1_439, 76, 3_114), "cacm": (3_204, 12_813, 1_751, 52, 796)}


@pytest.mark.parametrize("name", SEARCH)
def test_counts_of_test_collections(name):
    data = load_search(name)
    links = data.links
    assert (links != links.T).nnz == 0
    assert (len(data.items), links.nnz // 2, np.count_nonzero(links.sum(axis=1)), len(data.queries), len(data.relevance)) == SEARCH[name]
    assert data.items["text"].str.contains(r"\w").all()
    assert data.name == name


def test_queries_judged_or_not_and_abstracts():
    for name, queries, dropped in (("cisi", 112, 36), ("cacm", 64, 12)):
        report = str(load_search(name).report)
        assert f"{name}: {queries} queries in" in report
        assert f"left out {dropped} queries that nobody judged" in report
    assert "cisi" not in [line.split(":")[0] for line in str(load_search("cisi").report).splitlines() if "without an abstract" in line]
    assert f"cacm: {3_204 - 1_587:,} documents without an abstract" in str(load_search("cacm").report)


@pytest.mark.parametrize(("name", "level"), [("cacm", 0.3), ("cisi", 0.2)])
def test_collections_are_judged_as_ir_measures_judges_them(name, level):
    """And BM25 with stems stands where others have it (the test collections' MAP of about 0.3 and 0.2)."""
    data, rules = load_search(name), retrieval.SearchProtocol("labels")
    model = BM25().fit(data)
    table = retrieval.evaluate(model, data, rules)
    scores = model.scores(data.queries["text"].tolist())
    scores = np.nan_to_num(scores, nan=-1.0) + 1e-9 * np.random.default_rng(0).random(scores.shape)  # they break ties by name, we by expectation
    qrels = {str(q): {str(i): 1 for i in mine[Columns.ITEM]} for q, mine in data.relevance.groupby("query")}
    run = {str(q): {str(i): s for i, s in enumerate(row)} for q, row in enumerate(scores.astype(float))}
    for ours, theirs in {"MAP": ir_measures.AP, "Recall@R": ir_measures.Rprec, "NDCG@10": ir_measures.nDCG @ 10}.items():
        expected = ir_measures.calc_aggregate([theirs], qrels, run)[theirs]
        assert rules.summary(table, (ours,))[ours] == pytest.approx(expected, abs=1e-3), ours
    assert rules.summary(table, ("MAP",))["MAP"] > level


def test_what_links_can_not_reach_in_cacm():
    data = load_search("cacm")
    alone = data.links.sum(axis=0) + data.links.sum(axis=1) == 0
    assert alone.mean() == pytest.approx(0.45, abs=0.01)
    assert alone[data.relevance[Columns.ITEM]].mean() == pytest.approx(0.2, abs=0.01)


def test_relations_of_cacm_add_up_to_all_its_links():
    load_search("cacm")
    links = {r: smart.load_cacm(fetch.source_of("cacm").where, [r]).links for r in smart.RELATIONS}
    assert {r: m.nnz // 2 for r, m in links.items()} == {"coupling": 6_165, "citation": 2_720, "co-citation": 5_320}
    assert sum(m.nnz for m in links.values()) // 2 == 14_205
    assert np.count_nonzero(links["citation"].sum(axis=1)) == 1_751


@pytest.mark.parametrize(
    ("name", "items", "queries", "pairs"),
    [
        ("ml-latest-small-tags", 9_742, 63, 427),
        ("ml-1m-tags", 3_883, 619, 7_697),
        ("ml-10m-tags", 10_681, 1_358, 20_914),
        ("scientific-titles", 4_344, 400, 4_948),
        ("games-titles", 16_859, 400, 7_974),
    ],
)
def test_counts_of_search_data_from_sequences(name, items, queries, pairs):
    data = load_search(name)
    assert (data.n_items, len(data.queries), len(data.relevance)) == (items, queries, pairs)
    assert (data.links.nnz > 0) == (name != "ml-10m-tags")
    answered = data.relevance.groupby("query").size()
    assert len(answered) == queries
    assert answered.min() >= (3 if "tags" in name else 5)
    assert (len(data.log) > 0) == ("tags" in name)


def test_numbers_of_films_mean_the_same_in_1m_and_10m_but_not_in_100k():
    load_search("ml-10m-tags")
    films, acts = movielens_tags.read_10m(fetch.source_of("ml-10m-tags").where)
    assert (len(films), len(acts), acts["raw"].nunique(), acts["tag"].nunique()) == (10_681, 95_580, 7_601, 16_529)
    same, _ = movielens_tags.same_films("ml-1m", load("ml-1m").items, films)
    assert len(same) == 3_848
    with pytest.raises(DataError, match="number films in different ways"):
        movielens_tags.same_films("ml-100k", load("ml-100k").items, films)


def test_search_names_are_not_those_of_other_forms():
    with pytest.raises(DataError, match="cisi holds queries and what is relevant to them, not interactions; read it with load_search"):
        catalogue.load("cisi")
    with pytest.raises(DataError, match="read it with load_search"):
        catalogue.load_clicks("cacm")
    with pytest.raises(DataError, match="no search data is called 'ml-1m'; there are cisi, cacm"):
        catalogue.load_search("ml-1m")
