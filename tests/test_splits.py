"""Splits and filters as properties."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_dataset import ROWS, make

from zsrbook.data import splits
from zsrbook.data.dataset import DataError

MANY = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 6), st.integers(0, 5)), min_size=30, max_size=80)


def users(data):
    return set(data.interactions["user"])


@given(MANY, st.integers(0, 3), st.integers(1, 4))
@settings(deadline=None, max_examples=30)
def test_by_user_no_user_in_two_parts_and_none_lost(rows, seed, first):
    data = make(rows)
    assume(data.n_users >= 5)
    split = splits.split_by_user(data, seed=seed, first=first)
    parts = [users(split.train), users(split.valid.data), users(split.test.data)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == data.n_users
    assert len(split.train) + len(split.valid.data) + len(split.test.data) == len(data)
    for fold in (split.valid, split.test):
        np.testing.assert_array_equal(fold.targets, fold.sequences.positions >= first - 1)
    assert split.sha256 == splits.split_by_user(data, seed=seed, first=first).sha256


def test_by_user_another_seed_or_first_target_is_another_split():
    data = make([(u, u % 7, t) for u in range(20) for t in range(3)])
    hashes = {splits.split_by_user(data, seed=s, first=f).sha256 for s in (0, 1) for f in (1, 2)}
    assert len(hashes) == 4


def test_by_user_says_when_there_are_too_few():
    with pytest.raises(DataError, match=r"1 users are too few for a split with shares test=0.2, valid=0.1; expected 3 or more"):
        splits.split_by_user(make([(0, 0, 0), (0, 1, 1)]))
    two = [(user, item, item) for user in range(2) for item in range(2)]
    with pytest.raises(DataError, match=r"2 users are too few .*; expected 3 or more"):
        splits.split_by_user(make(two), test=0.8)
    splits.split_by_user(make([*two, (2, 0, 0)]), test=0.8)
    with pytest.raises(DataError, match="expected shares that leave some to train"):
        splits.split_by_user(make(two), test=1.0)


@given(MANY)
@settings(deadline=None, max_examples=30)
def test_by_time_training_is_before_every_target_and_parts_add_up(rows):
    data = make(rows)
    assume(sum(t == max(r[2] for r in rows) for _, _, t in rows) < 0.2 * len(rows))
    split = splits.split_by_time(data)
    time = lambda d: d.interactions["time"].to_numpy()  # noqa: E731
    valid, test = (time(f.data)[f.targets] for f in (split.valid, split.test))
    assert len(split.train) + len(valid) + len(test) == len(data)
    assert (valid > time(split.train).max()).all()
    assert (test > time(split.valid.data).max()).all()
    assert len(split.test.data) == len(data)


def test_by_time_needs_a_clock():
    with pytest.raises(DataError, match="no time stamps"):
        splits.split_by_time(make([(0, 0, 0), (0, 1, 1)], clock=False))
    with pytest.raises(DataError, match="share one time stamp"):
        splits.split_by_time(make([(0, 0, 5), (0, 1, 5)]))


@given(ROWS)
def test_leave_one_out_takes_the_newest(rows):
    data = make(rows)
    split = splits.split_leave_one_out(data)
    lengths = data.sequences().lengths
    assert split.test.targets.sum() == (lengths >= 2).sum()
    assert split.valid.targets.sum() == (lengths >= 3).sum()
    last = data.sequences().starts[1:] - 1
    assert set(np.flatnonzero(split.test.targets)) == set(last[lengths >= 2])
    assert len(split.train) == np.maximum(lengths - 2, 0).sum()
    assert len(split.valid.data) == (lengths - 1).sum()
    ends = split.valid.sequences.starts[1:] - 1
    assert set(np.flatnonzero(split.valid.targets)) <= set(ends)


@given(MANY, st.integers(1, 4), st.integers(1, 5))
@settings(deadline=None, max_examples=30)
def test_at_least_is_the_largest_fixpoint(rows, user, item):
    data = make(rows)
    left = list(zip(data.interactions["user"], data.interactions["item"], strict=True))
    while True:
        by_user, by_item = ([sum(r[k] == q for r in left) for q in range(20)] for k in (0, 1))
        kept = [r for r in left if by_user[r[0]] >= user and by_item[r[1]] >= item]
        if kept == left:
            break
        left = kept
    if not left:
        with pytest.raises(DataError, match="nothing is left"):
            splits.at_least(data, user, item)
        return
    core = splits.at_least(data, user, item)
    assert list(zip(core.interactions["user"], core.interactions["item"], strict=True)) == left
    assert splits.at_least(core, user, item).interactions.equals(core.interactions)
    assert core.n_items == data.n_items


def test_at_least_once_is_not_a_fixpoint():
    data = make([(0, 0, 0), (0, 1, 1), (1, 0, 0), (2, 0, 0), (2, 2, 1)])
    once = splits.at_least(data, user=2, item=2, repeat=False)
    assert once.interactions["item"].tolist() == [0, 0]


@given(MANY)
@settings(deadline=None, max_examples=30)
def test_compact_keeps_every_interaction_under_new_codes(rows):
    data = make(rows).with_features(np.arange(14).reshape(7, 2))
    small = splits.compact(splits.at_least(data, item=1))
    assert small.n_items == data.interactions["item"].nunique()
    assert len(small.users) == data.n_users
    raw = lambda d: (d.users["raw"].to_numpy()[d.interactions["user"]].tolist(), d.items["raw"].to_numpy()[d.interactions["item"]].tolist())  # noqa: E731
    assert raw(small) == raw(data)
    np.testing.assert_array_equal(small.features[small.interactions["item"]], data.features[data.interactions["item"]])


@given(ROWS)
def test_without_repeats_keeps_first_times(rows):
    data = make(rows)
    single = splits.without_repeats(data)
    pairs = list(zip(data.interactions["user"], data.interactions["item"], strict=True))
    assert list(zip(single.interactions["user"], single.interactions["item"], strict=True)) == list(dict.fromkeys(pairs))


@given(MANY, st.integers(1, 30), st.integers(0, 5))
@settings(deadline=None, max_examples=30)
def test_subset_takes_whole_users_and_no_more_than_needed(rows, wanted, seed):
    data = make(rows)
    part = splits.subset_of_users(data, wanted, seed)
    lengths = data.interactions["user"].value_counts()
    kept = part.interactions["user"].value_counts()
    assert (kept == lengths[kept.index]).all()
    assert wanted <= len(part) < wanted + kept.max()
    assert f"with {len(part)} interactions" in str(part.report)
    assert part.sha256() == splits.subset_of_users(data, wanted, seed).sha256()


def test_subset_says_when_there_is_not_enough():
    with pytest.raises(DataError, match="asked for 3 interactions, but there are 2"):
        splits.subset_of_users(make([(0, 0, 0), (0, 1, 1)]), 3, 0)


@given(MANY, st.integers(0, 3), st.booleans())
@settings(deadline=None, max_examples=30)
def test_two_shops_share_nobody_and_nothing_and_keep_groups_whole(rows, seed, grouped):
    data = make(rows)
    groups = np.arange(data.n_items) // 2 if grouped else None
    assume(data.n_items >= 4)
    try:
        source, target = splits.two_shops(data, groups, seed)
    except DataError as error:
        if "nothing is left" not in str(error):  # a side where nobody has two interactions
            raise
        return
    assert not set(source.users["raw"]) & set(target.users["raw"])
    assert not set(source.items["raw"]) & set(target.items["raw"])
    if grouped:
        side = [{data.items["raw"].tolist().index(raw) // 2 for raw in shop.items["raw"]} for shop in (source, target)]
        assert not side[0] & side[1]
    for shop in (source, target):
        assert (shop.sequences().lengths >= 2).all()
        assert "items" in str(shop.report)
    again = splits.two_shops(data, groups, seed)
    assert [shop.sha256() for shop in again] == [source.sha256(), target.sha256()]


def test_two_shops_need_two_groups():
    data = make([(u, u % 7, t) for u in range(20) for t in range(3)])
    with pytest.raises(DataError, match="1 group of items can't be cut in two"):
        splits.two_shops(data, np.zeros(data.n_items))


def test_shuffled_ties_move_nothing_but_ties():
    data = make([(u, i % 7, i // 4) for u in range(20) for i in range(8)])  # four at a time
    shuffled = splits.shuffle_ties(data)
    before, after = (d.interactions[["user", "time", "item"]].to_numpy() for d in (data, shuffled))
    np.testing.assert_array_equal(before[:, :2], after[:, :2])
    assert sorted(map(tuple, before)) == sorted(map(tuple, after))
    assert not np.array_equal(before, after)
    assert "120 of 160 interactions share their time" in str(shuffled.report)
    without = make([(u, i % 7, i) for u in range(5) for i in range(8)])
    assert splits.shuffle_ties(without).sha256() == without.sha256()
    assert splits.shuffle_ties(data, 0).sha256() == shuffled.sha256() != splits.shuffle_ties(data, 1).sha256()


def test_thinned_keeps_shares_of_users_and_items():
    data = make([(u, i % 7, i) for u in range(40) for i in range(14)])
    fewer = splits.thinned(data, users=0.5)
    assert fewer.n_users == 20
    assert (fewer.sequences().lengths == 14).all()
    poorer = splits.thinned(data, items=3 / 7)
    assert (poorer.n_users, poorer.n_items) == (40, 3)
    assert (poorer.sequences().lengths == 6).all()
    assert "50% of the users and 100% of the items" in str(fewer.report)
    others = [splits.thinned(data, 0.5, seed=seed).users["raw"].tolist() for seed in (0, 1)]
    assert others[0] == fewer.users["raw"].tolist() != others[1]


def test_thinned_takes_part_of_a_split_whose_codes_have_gaps():
    data = make([(u, i % 7, i) for u in range(40) for i in range(14)])
    part = splits.split_by_user(data, test=0.5, valid=0.0).train
    assert part.interactions["user"].max() >= part.n_users == 20
    assert splits.thinned(part, users=0.5).n_users == 10
    poorer = splits.thinned(part.where(part.interactions["item"].to_numpy() != 0), items=0.5)
    assert (poorer.n_users, poorer.n_items) == (20, 3)
