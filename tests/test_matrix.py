"""The binary matrix, its splits, and how a recommender of it is judged."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.metrics import roc_auc_score

from zsrbook.data.dataset import DataError, Dataset, Report
from zsrbook.data.matrix import MatrixSplit, among, binary, matrix_of, rows_of, split_matrix, strangers, taken
from zsrbook.data.toy import ToySettings, ToyWorld
from zsrbook.evaluation.matrix import METRICS, MatrixProtocol, against_sample, alone, evaluate
from zsrbook.evaluation.metrics import sampled
from zsrbook.evaluation.ranks import RankTable
from zsrbook.models.matrix import MatrixModel, degrees, validation_ndcg
from zsrbook.records import RunRecord, protocol_of


class Given(MatrixModel):
    """Scores as they are given."""

    def __init__(self, table: np.ndarray):
        self.table = table.astype(np.float32)

    def fit(self, train, valid=None):
        self.train = train
        return self

    def scores(self, users):
        return self.table[users]


def data_of(pairs: list[tuple[int, int]]) -> Dataset:
    frame = pd.DataFrame(pairs, columns=["user", "item"]).astype(str).assign(time=np.arange(len(pairs), dtype=float))
    items = pd.DataFrame({"raw": sorted(frame["item"].unique())}).assign(text="")
    return Dataset.from_raw("pairs", frame, items)


@pytest.fixture(scope="module")
def market() -> Dataset:
    return binary(ToyWorld(ToySettings(users=(600, 20, 20))).dataset("grocery"))


@pytest.fixture(scope="module")
def split(market) -> MatrixSplit:
    return split_matrix(market)


def test_a_repeated_pair_is_one_one():
    assert matrix_of(np.array([0, 0, 1]), np.array([2, 2, 0]), (2, 3)).toarray().tolist() == [[0, 0, 1], [1, 0, 0]]


def test_a_pair_outside_the_matrix_is_refused():
    with pytest.raises(DataError, match="pairs: item code 5 at place 0; expected 0 to 2"):
        matrix_of(np.array([0]), np.array([5]), (2, 3))


def test_a_core_leaves_that_many_ones_everywhere(market):
    matrix = taken(market)
    assert min(map(np.min, degrees(matrix))) >= 5
    assert matrix.nnz == len(market)


def test_without_a_core_everybody_stays():
    assert binary(data_of([(0, 0), (0, 0), (1, 2)]), core=None).n_users == 2
    with pytest.raises(DataError, match="nothing is left with at least 5"):
        binary(data_of([(0, 0), (1, 1)]))


def test_parts_are_disjoint_and_whole(market, split):
    parts = [split.train, split.valid, split.test]
    assert sum(part.nnz for part in parts) == len(market)
    assert (split.train + split.valid + split.test).max() == 1
    assert min(degrees(split.train)[0]) >= 1
    assert split.test.nnz / len(market) == pytest.approx(0.1, abs=0.01)
    assert split.known.nnz == split.train.nnz + split.valid.nnz


def test_a_split_is_named_by_its_hash(market, split):
    assert split.sha256 == split_matrix(market).sha256 != split_matrix(market, seed=1).sha256


def test_shares_may_be_rounded_down(market, split):
    counts = np.diff((split.known + split.test).indptr)
    down = split_matrix(market, rounding="down")
    assert (np.diff(down.test.indptr) == counts // 10).all()
    assert (np.diff(down.valid.indptr) == counts // 10).all()
    assert abs(np.diff(split.test.indptr) - counts / 10).max() < 1


def test_shares_that_leave_nothing_are_refused(market):
    with pytest.raises(DataError, match="a sum below 1"):
        split_matrix(market, 0.5, 0.5)
    with pytest.raises(DataError, match="leave none to test"):
        split_matrix(data_of([(0, 0), (1, 1)]))


def test_a_user_of_everything_and_a_catalogue_of_one_are_split():
    everything = split_matrix(data_of([(0, i) for i in range(20)] + [(1, 0)]), test=0.5)
    model = Given(np.zeros(everything.train.shape)).fit(everything.train)
    table = evaluate(model, everything)
    assert MatrixProtocol().summary(table)["AUC"] == 0.5  # all that is left is wanted
    assert np.isfinite(list(MatrixProtocol().summary(table).values())).all()
    with pytest.raises(DataError, match="leave none to test"):
        split_matrix(data_of([(u, 0) for u in range(9)]))


def test_strangers_share_nothing_with_those_who_are_known(split):
    users, items = strangers(split)
    assert users.mean() == pytest.approx(0.2, abs=0.01) == items.mean()
    inner = among(split, ~users, ~items)
    assert inner.train.shape == ((~users).sum(), (~items).sum())
    assert inner.train.nnz == split.train[~users][:, ~items].nnz


def test_targets_of_each_kind_add_up(split):
    model, new = Given(np.zeros(split.train.shape)).fit(split.train), strangers(split)
    kinds = {t: evaluate(model, split, MatrixProtocol(t), new) for t in ("all", "new users", "new items", "both new")}
    users, items = new
    known = ~users[rows_of(split.test)] & ~items[split.test.indices]
    assert sum(len(kinds[k]) for k in ("new users", "new items", "both new")) + known.sum() == len(kinds["all"])
    assert users[kinds["both new"].user].all()
    assert items[kinds["both new"].target].all()


def test_at_most_so_many_users_and_always_the_same(split):
    model = Given(np.zeros(split.train.shape)).fit(split.train)
    few = [evaluate(model, split, MatrixProtocol(most=30)).user for _ in range(2)]
    assert len(np.unique(few[0])) == 30
    assert (few[0] == few[1]).all()


def test_a_constant_gets_what_chance_gets(split):
    sums = MatrixProtocol().summary(evaluate(Given(np.zeros(split.train.shape)).fit(split.train), split))
    candidates = split.train.shape[1] - np.diff(split.known.indptr)[np.unique(rows_of(split.test))]
    assert sums["Recall@10"] == pytest.approx((10 / candidates).mean())
    assert sums["AUC"] == pytest.approx(0.5)
    assert sums["Recall@10 (1+100)"] == pytest.approx(10 / 101)


def dense(scores: np.ndarray, split: MatrixSplit, user: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of one user's candidates."""
    open_to = split.known[[user]].toarray()[0] == 0
    return scores[user, open_to], split.test[[user]].toarray()[0, open_to]


def test_metrics_agree_with_a_plain_reading(split):
    scores = np.random.default_rng(0).normal(size=split.train.shape).round(1)  # with ties
    protocol, table = MatrixProtocol(), evaluate(Given(scores).fit(split.train), split)
    areas = protocol.by_user(table, "AUC")["mean"]
    for user in areas.index[:40]:
        mine, label = dense(scores, split, user)
        assert areas[user] == pytest.approx(roc_auc_score(label, mine.astype(np.float32)))
    untied = np.random.default_rng(1).normal(size=split.train.shape)
    table = evaluate(Given(untied).fit(split.train), split)
    recall, ndcg = (protocol.by_user(table, f"{m}@20")["mean"] for m in ("Recall", "NDCG"))
    for user in recall.index[:40]:
        mine, label = dense(untied, split, user)
        top = label[np.argsort(-mine)][:20]
        assert recall[user] == pytest.approx(top.sum() / label.sum())
        ideal = (1 / np.log2(np.arange(2, 2 + min(20, int(label.sum()))))).sum()
        assert ndcg[user] == pytest.approx((top / np.log2(np.arange(2, 22))).sum() / ideal)


def test_each_one_alone_stands_against_negatives():
    table = RankTable.of([0, 2, 2, 5], [0, 2, 2, 0], 12, user=[0, 0, 0, 1])  # two of user 0 tie with each other and one more
    found = alone(table, np.array([0, 0, 0, 1]))
    assert found.greater.tolist() == [0, 1, 1, 5]
    assert found.ties.tolist() == [0, 1, 1, 0]
    assert found.n_candidates.tolist() == [10, 10, 10, 12]


def test_whoever_gets_nothing_but_nan_has_0_in_every_metric(split):
    scores = np.random.default_rng(2).normal(size=split.train.shape)
    lost = np.unique(rows_of(split.test))[::3]
    table = evaluate(Given(np.where(np.isin(np.arange(len(scores)), lost)[:, None], np.nan, scores)).fit(split.train), split)
    protocol, plain = MatrixProtocol(), evaluate(Given(scores).fit(split.train), split)
    for metric in ("AUC", "Recall@20", "NDCG@20", "Recall@10 (1+100)"):
        found, before = (protocol.by_user(t, metric)["mean"] for t in (table, plain))
        assert (found[lost] == 0).all()
        assert found.drop(lost).equals(before.drop(lost))
    single = alone(table, np.unique(table.user, return_inverse=True)[1])
    gone = np.isin(table.user, lost)
    assert (single.ties >= 0).all()
    assert (single.greater == single.n_candidates)[gone].all()
    assert (single.greater < single.n_candidates)[~gone].all()
    assert single.greater.dtype == single.ties.dtype == single.n_candidates.dtype == np.int32


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=3, max_size=6), st.integers(1, 3))
def test_recall_is_its_mean_over_all_orders_of_the_ties(scores, wanted):
    wanted = min(wanted, len(scores) - 1)
    nothing, held_out = (csr_array(np.array([row], np.float32)) for row in ([0] * len(scores), [1] * wanted + [0] * (len(scores) - wanted)))
    split = MatrixSplit("tiny", nothing, nothing, held_out, Report())
    found = MatrixProtocol().summary(evaluate(Given(np.array([scores])).fit(split.train), split), ("Recall@2", "NDCG@2"))
    orders = [sorted(order, key=lambda i: -scores[i]) for order in permutations(range(len(scores)))]
    hits = [[i < wanted for i in order[:2]] for order in orders]
    assert found["Recall@2"] == pytest.approx(np.mean([sum(h) for h in hits]) / wanted)
    ideal = 1 + (wanted > 1) / np.log2(3)
    assert found["NDCG@2"] == pytest.approx(np.mean([h[0] + h[1] / np.log2(3) for h in hits]) / ideal)


def test_few_candidates_are_all_negatives():
    table = RankTable.of([0, 60], [0, 0], 61)
    assert against_sample(table, "Recall@10").tolist() == [1, 0]
    many = RankTable.of([0, 60], [0, 0], 500)
    assert (against_sample(many, "Recall@10") == sampled(many, "Recall@10")).all()


def test_a_model_of_another_matrix_is_refused(split):
    with pytest.raises(DataError, match=r"use model\.transfer"):
        evaluate(Given(np.zeros((2, 2))).fit(csr_array(np.eye(2))), split)
    with pytest.raises(DataError, match="fit it there"):
        Given(np.zeros((2, 2))).fit(csr_array(np.eye(2))).transfer(split.train)


def test_early_stopping_sees_nan_ranked_last(split):
    scores = np.random.default_rng(0).normal(size=split.train.shape)
    lost = np.random.default_rng(1).random(scores.shape) < 0.1
    judged = {
        name: validation_ndcg(Given(table).fit(split.train), split.valid)
        for name, table in {
            "constant": np.zeros_like(scores),
            "all NaN": np.full_like(scores, np.nan),
            "some last": np.where(lost, scores.min() - 1, scores),
            "some NaN": np.where(lost, np.nan, scores),
        }.items()
    }
    assert judged["all NaN"] == judged["constant"] < 0.05
    assert judged["some NaN"] == judged["some last"]


def test_a_protocol_comes_back_from_its_record(split):
    protocol = MatrixProtocol("new items", most=7)
    assert protocol_of(protocol.settings()) == protocol
    assert protocol.knows("NDCG@10 (1+100)")
    assert not protocol.knows("GAUC")
    with pytest.raises(ValueError, match="targets is 'some'"):
        MatrixProtocol("some")
    table = evaluate(Given(np.random.default_rng(0).random(split.train.shape)).fit(split.train), split)
    sums = MatrixProtocol().summary(table)
    record = RunRecord(
        paper="prerec", experiment="single", target="pairs", method="Given", scale="toy", protocol=MatrixProtocol().settings(), config={},
        seeds=[0], metrics={name: [value] for name, value in sums.items()}, data_sha256=split.sha256, minutes=0.0, ranks={0: table},
    )  # fmt: skip
    assert not list(record.contradictions())
    assert set(METRICS) == set(sums)
