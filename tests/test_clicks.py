"""Click data, and how predictions of clicks are judged."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from zsrbook.data.clicks import TEST, TRAIN, VALID, split_in_time, windows_before
from zsrbook.data.dataset import DataError
from zsrbook.data.toy import ToySettings, ToyWorld
from zsrbook.evaluation.auc import auc, auc_by_user
from zsrbook.evaluation.clicks import METRICS, ClickProtocol, ClickRanks
from zsrbook.evaluation.intervals import PerUser, interval


@pytest.fixture(scope="module")
def world():
    return ToyWorld(ToySettings(users=(400, 20, 20), items=(60, 20, 20)))


@pytest.fixture(scope="module")
def data(world):
    return world.clicks("grocery", 8000, longest=5).made_new(0.4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=30), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=20))
def test_windows_hold_the_newest_behaviours_before_an_impression(behaviours, impressions):
    behaviours.sort()
    owner, moment = np.array(behaviours, np.int64).reshape(-1, 2).T
    user, time = np.array(impressions, np.int64).reshape(-1, 2).T
    for (u, t), (begin, end) in zip(impressions, windows_before(user, time.astype(float), owner, moment.astype(float), 3), strict=True):
        before = [i for i, (o, m) in enumerate(behaviours) if o == u and m < t]
        assert list(range(begin, end)) == before[-3:]


def test_new_users_show_no_behaviour_and_strict_takes_their_past(data):
    new = data.new[data.user]
    assert 0.35 < data.new.mean() < 0.45
    seen = data.windows_seen(np.arange(len(data)))
    assert (seen[new, 0] == seen[new, 1]).all()
    np.testing.assert_array_equal(seen[~new], data.windows[~new])
    strict = data.strict()
    assert not strict.new[strict.user[strict.fold != TEST]].any()
    assert (strict.users[strict.new, 0] == 0).all()
    assert (strict.users[~strict.new] == data.users[~data.new]).all()
    assert (strict.fold == TEST).sum() == (data.fold == TEST).sum()
    assert data.sha256 != strict.sha256


def test_an_impression_names_a_user_and_an_item_that_are_there(data):
    for what, codes in (("user", data.user), ("item", data.item)):
        with pytest.raises(DataError, match=f"impressions: {what} code -1 at place 0"):
            replace(data, **{what: np.append(np.int32(-1), codes[1:])})


def test_windows_lie_within_the_behaviours_and_impressions_follow_the_clock(data):
    behaviours = len(data.behaviours)
    for window in ([-1, 2], [3, 2], [0, behaviours + 1]):
        said = rf"impression 7 has the window {window[0]} to {window[1]} of {behaviours} behaviours; expected one within"
        with pytest.raises(DataError, match=said):
            replace(data, windows=np.where(np.arange(len(data))[:, None] == 7, window, data.windows))
    for time in (data.time[::-1], np.full(len(data), np.nan)):
        with pytest.raises(DataError, match="impressions do not stand in the order of time"):
            replace(data, time=time)


def test_the_folds_follow_each_other_in_time():
    time = np.random.default_rng(0).random(1000)
    fold = split_in_time(time, valid=0.1, test=0.2)
    assert time[fold == TRAIN].max() < time[fold == VALID].min() <= time[fold == VALID].max() < time[fold == TEST].min()
    assert [(fold == f).sum() for f in (TRAIN, VALID, TEST)] == pytest.approx([720, 80, 200], abs=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"click": [2]}, r"a label is 2; expected 0 or 1"),
        ({"new": [True]}, r"1 flags of new users for 400 users"),
        ({"time": [0.0]}, r"1 values of time for 8000 impressions"),
        ({"items": [[99, 1, 1, 1, 1, 1]]}, r"item fields: item code 99 at place 0; expected 0 to 60"),
        ({"users": [[1, 2]]}, r"user codes of shape"),
    ],
)
def test_what_does_not_fit_is_named(data, change, message):
    ((name, value),) = change.items()
    value = np.resize(np.array(value, np.int8), len(data)) if name == "click" else np.array(value)
    if name == "users":
        value = np.resize(value, (len(data.users), 2))
    with pytest.raises(DataError, match=message):
        replace(data, **{name: value})


def test_the_oracle_knows_more_with_the_past_than_without(world, data):
    truth = world.click_probability("grocery", data.user, data.item)
    for group, least in (("new", 0.55), ("old", 0.6)):
        rows = data.rows(TEST, group)
        found = auc(data.click[rows], world.click_oracle("grocery", data, rows))
        assert least < found < auc(data.click[rows], truth[rows]) + 0.02
    rows = data.rows(TEST, "new")
    strict = data.strict()
    assert len(strict.rows(TEST, "new")) == len(rows)
    lost = auc(data.click[rows], world.click_oracle("grocery", strict, strict.rows(TEST, "new")))
    assert lost < auc(data.click[rows], world.click_oracle("grocery", data, rows))


def test_the_oracle_is_calibrated(world, data):
    """Among impressions with a believed probability near p, a share p is clicked."""
    rows = data.rows(TEST)
    believed = world.click_oracle("grocery", data, rows)
    cut = pd.qcut(believed, 5, labels=False)
    for level in range(5):
        mine = cut == level
        spread = 4 * np.sqrt(believed[mine].mean() * (1 - believed[mine].mean()) / mine.sum())
        assert abs(believed[mine].mean() - data.click[rows][mine].mean()) < spread


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_auc_by_user_adds_up_to_auc(seed):
    rng = np.random.default_rng(seed)
    labels, scores, users = rng.integers(2, size=40), rng.integers(6, size=40), rng.integers(8, size=40)
    labels[:2] = 0, 1
    frame = auc_by_user(labels, scores, users)
    assert frame["sum"].sum() / frame["count"].sum() == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert frame["count"].sum() == 40


def test_the_interval_of_auc_is_that_of_an_exact_bootstrap():
    rng = np.random.default_rng(1)
    users = np.repeat(np.arange(300), 8)
    taste = rng.normal(size=300)[users]
    scores = taste + rng.normal(size=len(users))
    labels = (0.8 * scores + taste + rng.normal(size=len(users)) > 0.5).astype(int)
    found = interval(PerUser.of({0: auc_by_user(labels, scores, users)}))
    exact = []
    for _ in range(400):
        weight = rng.poisson(1.0, 300)[users]
        exact.append(roc_auc_score(labels, scores, sample_weight=weight))
    low, high = np.quantile(exact, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.15 * (high - low))


def test_ranks_keep_all_that_the_metrics_need(data, tmp_path):
    rng = np.random.default_rng(0)
    rows = data.rows(TEST)
    tables = {seed: ClickRanks.of(data, rng.normal(size=len(rows)).round(1) + data.click[rows]) for seed in range(2)}
    protocol = ClickProtocol("a click")
    scores = rng.normal(size=len(rows)).round(1)
    found, mine = protocol.summary(ClickRanks.of(data, scores)), data.group[rows] == 0
    assert tuple(found) == METRICS
    assert found["AUC (new)"] == pytest.approx(roc_auc_score(data.click[rows][mine], scores[mine]), abs=1e-12)
    assert protocol.per_user(tables, "AUC (old)").value == pytest.approx(np.mean([protocol.summary(t)["AUC (old)"] for t in tables.values()]))
    assert protocol.save(tmp_path / "a.npz", tables) == [0, 1]
    for seed, table in protocol.load(tmp_path / "a.npz").items():
        np.testing.assert_array_equal(table.rank, tables[seed].rank)
        assert protocol.summary(table) == protocol.summary(tables[seed])
    assert protocol.save(tmp_path / "b.npz", tables, limit=10) == [0]
    assert list(protocol.load(tmp_path / "b.npz")) == [0]


def test_gauc_agrees_with_scikit_learn_user_by_user(data):
    rows = data.rows(TEST)
    scores = np.random.default_rng(3).normal(size=len(rows)).round(1)
    frame = ClickRanks.of(data, scores).by_user("GAUC (old)")
    for user, row in frame.iterrows():
        mine = data.user[rows] == user
        assert row["mean"] == pytest.approx(roc_auc_score(data.click[rows][mine], scores[mine]), abs=1e-12)
        assert row["count"] == mine.sum()


def test_many_scores_are_put_into_classes(data, monkeypatch):
    monkeypatch.setattr("zsrbook.evaluation.clicks.LEVELS", 100)
    scores = np.random.default_rng(0).normal(size=len(data.rows(TEST)))
    table = ClickRanks.of(data, scores)
    assert table.rank.max() == 99
    assert (np.diff(table.rank[np.argsort(scores)].astype(int)) >= 0).all()


@pytest.mark.parametrize(("change", "message"), [({"ids": "some"}, "ids is 'some'"), ({"new": 2}, "new is 2")])
def test_a_protocol_that_does_not_exist_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ClickProtocol("a click", **change)
