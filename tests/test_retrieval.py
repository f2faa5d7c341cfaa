"""The judging of searches against ir_measures, against all orders that ties allow, and against a plain reading of ranks."""

from dataclasses import replace
from itertools import permutations

import ir_measures
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from zsrbook.data.dataset import Columns, DataError
from zsrbook.data.search import SearchData, links_of
from zsrbook.evaluation import retrieval
from zsrbook.evaluation.intervals import interval
from zsrbook.evaluation.retrieval import METRICS, SearchProtocol, evaluate, judge, rank_relevant, sharing
from zsrbook.models.retriever import Retriever, VectorRetriever
from zsrbook.records import RunRecord, protocol_of

NAMES = ("Recall@R", "Recall@1", "Recall@3", "Recall@10", "MAP", "NDCG@2", "NDCG@10", "MRR@2", "MRR@10")
NAN = float("nan")


def ranked(scores, relevant, **more):
    """Ranks of relevant items, given as a list a query."""
    scores = np.asarray(scores, np.float64)
    query = np.repeat(np.arange(len(relevant)), [len(r) for r in relevant])
    return rank_relevant(lambda codes: scores[codes], query, np.concatenate(relevant).astype(int), scores.shape[1], **more)


def by_query(table, name):
    return judge(table, name, np.unique(table.user, return_inverse=True)[1])


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    scores = rng.permuted(np.tile(np.arange(60.0), (25, 1)), axis=1)
    return scores, [rng.choice(60, rng.integers(1, 30), replace=False) for _ in range(25)]


def test_metrics_agree_with_ir_measures(world):
    scores, relevant = world
    measures = {"MAP": "AP", "Recall@R": "Rprec", "NDCG@10": "nDCG@10", "Recall@5": "R@5", "Recall@60": "R@60", "MRR@10": "RR@10"}
    parsed = {name: ir_measures.parse_measure(theirs) for name, theirs in measures.items()}
    qrels = {str(q): {str(i): 1 for i in items} for q, items in enumerate(relevant)}
    run = {str(q): {str(i): score for i, score in enumerate(row)} for q, row in enumerate(scores)}
    expected = pd.DataFrame([(str(m.measure), int(m.query_id), m.value) for m in ir_measures.iter_calc(parsed.values(), qrels, run)])
    expected = expected.pivot(index=1, columns=0, values=2).sort_index()
    table = ranked(scores, relevant)
    for name, measure in parsed.items():
        assert_allclose(by_query(table, name), expected[str(measure)], rtol=0, atol=1e-9, err_msg=name)


def plain(order, relevant, name):
    """A metric of one order of items, as a textbook has it."""
    hits = np.isin(order, relevant)
    metric, _, k = name.partition("@")
    k = len(relevant) if k == "R" else int(k or len(order))
    first = hits[:k]
    rank = np.arange(1, len(first) + 1)
    if metric == "Recall":
        return first.sum() / len(relevant)
    if metric == "MRR":
        return 1 / (np.argmax(first) + 1) if first.any() else 0.0
    if metric == "NDCG":
        return (first / np.log2(rank + 1)).sum() / sum(1 / np.log2(r + 2) for r in range(min(k, len(relevant))))
    return (first * first.cumsum() / rank).sum() / len(relevant)


@st.composite
def small_rankings(draw):
    n = draw(st.integers(1, 5))
    relevant = draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=n, unique=True))
    return draw(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=n, max_size=n)), relevant


@given(small_rankings())
@settings(max_examples=60, deadline=None)
def test_ties_give_the_mean_over_all_orders(ranking):
    scores, relevant = ranking
    orders = [sorted(order, key=lambda i: -scores[i]) for order in permutations(range(len(scores)))]
    table = ranked([scores], [relevant])
    for name in NAMES:
        assert by_query(table, name)[0] == pytest.approx(np.mean([plain(order, relevant, name) for order in orders]), abs=1e-12), name


@pytest.mark.parametrize("relevant", [1, 3, 40, 100])
def test_equal_scores_give_chance(relevant):
    n = 100
    table = ranked(np.zeros((1, n)), [np.arange(relevant)])
    assert by_query(table, "Recall@R")[0] == pytest.approx(relevant / n, abs=1e-15)
    assert by_query(table, "Recall@7")[0] == pytest.approx(7 / n, abs=1e-15)
    place = np.arange(n)  # others before it, of which (relevant − 1) / (n − 1) are relevant on average
    assert by_query(table, "MAP")[0] == pytest.approx(((1 + place * (relevant - 1) / (n - 1)) / (place + 1)).mean(), abs=1e-13)


def test_average_precision_keeps_its_digits_in_a_large_corpus():
    n, relevant = 200_000, 50
    scores = np.repeat(np.arange(n // 1000), 1000)[None]
    table = ranked(scores, [np.arange(0, n, n // relevant)])
    greater, size = table.greater.astype(int), 1000
    place = np.arange(size)
    above = np.argsort(np.argsort(greater))  # every relevant item stands in a block of its own
    slow = np.mean([((c + 1) / (g + place + 1)).mean() for g, c in zip(greater, above, strict=True)])
    assert by_query(table, "MAP")[0] == pytest.approx(slow, rel=1e-9)


@st.composite
def rankings(draw):
    q, n = draw(st.integers(1, 4)), draw(st.integers(2, 7))
    number = st.sampled_from([0.0, 1.0, 2.0, -1.0, NAN, float("inf"), float("-inf")])
    scores = draw(st.lists(st.lists(number, min_size=n, max_size=n), min_size=q, max_size=q))
    relevant = draw(st.lists(st.lists(st.integers(0, n - 1), min_size=1, max_size=n), min_size=q, max_size=q))
    removed = np.array(draw(st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=q, max_size=q)))
    for row, items in enumerate(relevant):
        removed[row, items] = False
    pool = sorted({i for items in relevant for i in items} | set(draw(st.lists(st.integers(0, n - 1)))))
    return scores, relevant, removed, pool


@given(rankings(), st.sampled_from([1, 10, 1000]), st.sampled_from([np.float32, np.float64]))
@settings(max_examples=150, deadline=None)
def test_counts_equal_the_plain_reading(ranking, at_once, kind):
    scores, relevant, removed, pool = ranking
    places = csr_array(removed.astype(np.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "AT_ONCE", at_once)
        table = ranked(np.array(scores, kind), relevant, pool=np.array(pool), without=places)
    pairs = [(q, i) for q, items in enumerate(relevant) for i in sorted(items)]
    assert_array_equal(np.stack([table.user, table.target], 1), pairs)
    for (q, i), greater, ties, total in zip(pairs, table.greater, table.ties, table.n_candidates, strict=True):
        row = scores[q]
        others = [row[j] for j in pool if j != i and not removed[q, j]]
        assert total == len(others) + 1
        if all(s != s for s in row):
            assert (greater, ties) == (total, 0)
        elif row[i] != row[i]:
            assert (greater, ties) == (sum(s == s for s in others), sum(s != s for s in others))
        else:
            assert (greater, ties) == (sum(s > row[i] for s in others), sum(s == row[i] for s in others))


def test_a_query_of_unknown_words_is_a_miss_in_every_metric():
    table = ranked([[NAN] * 4, [1.0, NAN, NAN, 0.0]], [[0, 1, 2, 3], [1]])
    for name in (*NAMES, "Recall@100", "MRR@100", "NDCG@100"):
        assert by_query(table, name)[0] == 0, name
    assert by_query(table, "Recall@2")[1] == 0
    assert by_query(table, "Recall@3")[1] == 0.5  # it shares the last two places


def test_chunks_are_bounded_and_change_nothing(world, monkeypatch):
    scores, relevant = world
    whole = ranked(scores, relevant)
    sizes = []

    def score(codes):
        sizes.append(len(codes))
        return scores[codes]

    monkeypatch.setattr(retrieval, "AT_ONCE", 7 * 60)
    query = np.repeat(np.arange(25), [len(r) for r in relevant])
    parts = rank_relevant(score, query, np.concatenate(relevant), 60)
    assert sizes == [7, 7, 7, 4]
    for name in ("user", "target", "greater", "ties", "n_candidates"):
        assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_errors_of_ranks_name_the_pair():
    with pytest.raises(ValueError, match="item 2 is relevant to query 0 but no candidate of it; 1 such pairs of 2"):
        ranked([[0.0, 1.0, 2.0]], [[1, 2]], pool=np.array([0, 1]))
    with pytest.raises(ValueError, match="item 1 is relevant to query 0"):
        ranked([[0.0, 1.0, 2.0]], [[1, 2]], without=links_of(np.array([0]), np.array([1]), 3))
    with pytest.raises(ValueError, match=r"scores of shape \(1, 3\) for 1 queries and 4 items"):
        rank_relevant(lambda codes: np.zeros((1, 3)), np.array([0]), np.array([0]), 4)


class Table(Retriever):
    """Scores read from a table; the text of a query is its row."""

    def __init__(self, scores):
        self.table = np.asarray(scores, np.float32)

    def fit(self, data):
        return self

    def scores(self, queries):
        return self.table[[int(query) for query in queries]]


class Vectors(VectorRetriever):
    score = "cosine"

    def __init__(self, items):
        self.items = np.asarray(items, np.float32)

    def fit(self, data):
        return self

    def query_vectors(self, queries):
        return self.items[[int(query) for query in queries]]


@pytest.fixture
def data():
    n = 6
    items = pd.DataFrame({"raw": [str(i) for i in range(n)], "title": "", Columns.TEXT: [str(i % 4) for i in range(n)]})
    queries = pd.DataFrame({"text": list("0123"), "kind": ["music", "sport", "music", "sport"]})
    relevance = pd.DataFrame({"query": [0, 0, 1, 2, 2], Columns.ITEM: [0, 1, 2, 1, 3], "grade": 1})
    log = pd.DataFrame({"query": [0, 0, 3], Columns.ITEM: [5, 4, 4], Columns.TIME: [1, 2, 3]})
    links = links_of(np.array([0, 0, 1, 4, 5]), np.array([1, 2, 0, 5, 4]), n)
    return SearchData("tiny", items, links, queries, relevance, log)


@pytest.fixture
def model():
    return Table(np.random.default_rng(1).permuted(np.tile(np.arange(6.0), (4, 1)), axis=1))


def test_a_pool_is_what_is_relevant_to_queries_of_the_same_kind(data, model):
    table = evaluate(model, data, SearchProtocol("labels", "pool"))
    assert dict(zip(table.user.tolist(), table.n_candidates.tolist(), strict=True)) == {0: 3, 1: 1, 2: 3}  # {0, 1, 3} and {2}
    for query, item, greater in zip(table.user, table.target, table.greater, strict=True):
        others = [0, 1, 3] if query in (0, 2) else [2]
        assert greater == (model.table[query, others] > model.table[query, item]).sum()
    assert (evaluate(model, data, SearchProtocol("labels")).n_candidates == 6).all()
    for most in (1, 2):
        few = evaluate(model, data, SearchProtocol("labels", "pool", most))
        assert few.n_candidates.tolist() == [1 if query == 1 else 3 for query in few.user]


def test_apart_is_judged_what_shares_no_word_with_the_query(data, model):
    table = evaluate(model, data, SearchProtocol("labels", "apart"))
    # item 0 says "0" as query 0 does, so it is neither relevant to it nor a candidate of it
    rows = zip(table.user.tolist(), table.target.tolist(), table.n_candidates.tolist(), strict=True)
    assert sorted(rows) == [(0, 1, 2), (1, 2, 1), (2, 1, 3), (2, 3, 3)]
    row = table.user == 0
    assert table.greater[row].tolist() == [int(model.table[0, 3] > model.table[0, 1])]
    with pytest.raises(DataError, match="every relevant item shares a word"):
        evaluate(model, replace(data, relevance=data.relevance[:1]), SearchProtocol("labels", "apart"))


def test_sharing_counts_stems_and_no_stop_words():
    found = sharing(("the calming tea", "a calm evening", "bread of rye"), ("calmed", "the evening", "of"))
    assert_array_equal(found.toarray() > 0, [[True, True, False], [False, True, False], [False, False, False]])


def test_pairs_of_the_log_count_each_by_itself(data, model):
    protocol = SearchProtocol("log")
    table = evaluate(model, data, protocol)
    rank = 6 - model.table[[0, 0, 3], [4, 5, 4]]
    assert protocol.summary(table, ("Recall@2", "MRR@6")) == pytest.approx({"Recall@2": (rank <= 2).mean(), "MRR@6": (1 / rank).mean()})
    assert protocol.per_query(table, "Recall@2")["count"].tolist() == [2, 1]


def test_items_ask_for_their_neighbours_and_never_for_themselves(data):
    vectors = Vectors([[1, 0], [1, 0.1], [0, 1], [0, 0], [1, 1], [1, 0.9]])
    table = evaluate(vectors, data, SearchProtocol("links"))
    assert (table.n_candidates == 5).all()
    assert_array_equal(np.stack([table.user, table.target, table.greater], 1), [[0, 1, 0], [0, 2, 3], [1, 0, 0], [4, 5, 0], [5, 4, 0]])
    # without vectors an item is asked for by its text: items 4 and 5 read as 0 and 1
    scores = np.eye(4, 6)
    assert evaluate(Table(scores), data, SearchProtocol("links")).user.tolist() == [0, 0, 1, 4, 5]


def test_held_out_links_are_sought_among_what_was_not_trained_on(data):
    held = data.hold_out(0.4, seed=1)
    table = evaluate(Vectors(np.random.default_rng(0).normal(size=(6, 3))), held, SearchProtocol("held-out"))
    assert_array_equal(np.stack([table.user, table.target]), held.held_out.nonzero())
    known = np.diff(held.links.indptr)
    assert_array_equal(table.n_candidates, 5 - known[table.user])


def test_no_more_than_asked_for_are_judged_and_always_the_same(data, model):
    protocol = SearchProtocol("links", most=2)
    tables = [evaluate(other, data, protocol) for other in (Table(np.zeros((4, 6))), model)]
    assert len(np.unique(tables[0].user)) == 2
    assert_array_equal(tables[0].target, tables[1].target)
    assert "at most 2 items, drawn at random" in protocol.caption()


@pytest.mark.parametrize("judged", list(METRICS))
def test_ranks_keep_all_that_the_metrics_need(data, judged, tmp_path):
    protocol = SearchProtocol(judged)
    data = data.hold_out(0.4)
    rng = np.random.default_rng(2)
    tables = {seed: evaluate(Table(rng.integers(3, size=(4, 6))), data, protocol) for seed in range(3)}
    assert tuple(protocol.summary(tables[0])) == protocol.metrics == METRICS[judged]
    assert protocol.save(tmp_path / "ranks.npz", tables) == [0, 1, 2]
    for seed, table in protocol.load(tmp_path / "ranks.npz").items():
        assert protocol.summary(table) == protocol.summary(tables[seed])
    for metric in protocol.metrics:
        found = protocol.per_user(tables, metric)
        assert found.value == pytest.approx(np.mean([protocol.summary(table)[metric] for table in tables.values()]))
        estimate = interval(found)
        assert np.isnan(estimate.low) or estimate.low <= estimate.value <= estimate.high


def test_a_record_reads_its_own_ranks(data, model):
    protocol = SearchProtocol("labels", "pool")
    table = evaluate(model, data, protocol)
    assert protocol_of(protocol.settings()) == protocol
    record = RunRecord(
        paper="search",
        experiment="labels",
        target="tiny",
        method="Table",
        scale="toy",
        protocol=protocol.settings(),
        config={},
        seeds=[0],
        metrics={name: [value] for name, value in protocol.summary(table).items()} | {"queries": [3.0]},
        data_sha256=data.sha256,
        minutes=0.0,
        ranks={0: table},
    )
    assert not list(record.contradictions())
    assert record.knows_users("MAP")
    assert not record.knows_users("queries")
    assert record.per_user("MAP").value == pytest.approx(record.mean("MAP"))
    assert list(replace(record, metrics={"MAP": [0.123]}).contradictions())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"judged": "clicks"}, "judged is 'clicks'; expected one of labels, log, links, held-out"),
        ({"candidates": "all"}, "candidates is 'all'; expected one of corpus, pool, apart"),
        ({"judged": "log", "candidates": "pool"}, "candidates is 'pool' with judged 'log'"),
        ({"most": 0}, "most is 0; expected a whole number from 1"),
    ],
)
def test_protocols_refuse_what_makes_no_sense(change, message):
    with pytest.raises(ValueError, match=message):
        SearchProtocol(**{"judged": "labels", **change})


def test_nothing_to_judge_is_said(data, model):
    with pytest.raises(DataError, match="tiny: no held-out to judge by"):
        evaluate(model, data, SearchProtocol("held-out"))
    with pytest.raises(ValueError, match="'Recall@x' is no metric"):
        SearchProtocol("labels").summary(evaluate(model, data, SearchProtocol("labels")), ("Recall@x",))
    assert not SearchProtocol("labels").knows("Recall@x")
