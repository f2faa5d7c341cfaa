"""The common form: coding, order, ties, hash, sequences."""

import doctest
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsrbook.data import dataset
from zsrbook.data.dataset import Columns, DataError, Dataset, Report, Sequences

ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=40)


def make(rows, clock=True, n_items=7, name="made"):
    """Rows of (user, item, time)."""
    frame = pd.DataFrame(rows, columns=["user", "item", "time"]).astype({"user": str, "item": str})
    items = pd.DataFrame({"raw": [str(i) for i in range(n_items)], "text": [f"thing {i}" for i in range(n_items)]})
    return Dataset.from_raw(name, frame, items, clock=clock)


def test_doctests():
    result = doctest.testmod(dataset)
    assert result.attempted
    assert not result.failed


@given(ROWS)
def test_rows_are_sorted_by_user_time_and_place_in_the_file(rows):
    data = make(rows)
    raw = data.users["raw"].tolist()
    wanted = sorted(enumerate(rows), key=lambda r: (raw.index(str(r[1][0])), r[1][2], r[0]))
    assert data.interactions["item"].tolist() == [item for _, (_, item, _) in wanted]
    assert data.interactions["time"].tolist() == [time for _, (_, _, time) in wanted]
    assert data.n_users == len({u for u, _, _ in rows})
    assert len(data) == len(rows)


@given(ROWS)
def test_without_a_clock_the_order_of_the_file_is_the_order_of_events(rows):
    data = make(rows, clock=False)
    for code, raw in enumerate(data.users["raw"]):
        own = data.interactions[data.interactions["user"] == code]
        assert own["item"].tolist() == [i for u, i, _ in rows if str(u) == raw]
        assert own["time"].tolist() == list(range(len(own)))
    assert data.sequences().times is None


@given(ROWS)
def test_hash_is_stable_and_blind_to_the_width_of_integers(rows):
    data = make(rows)
    assert data.sha256() == make(rows).sha256()
    wide = replace(data, interactions=data.interactions.astype({"user": np.int64, "item": np.int64}))
    assert wide.sha256() == data.sha256()


@pytest.mark.parametrize("column", ["user", "item", "time", "value"])
def test_hash_notices_any_changed_number(column):
    data = make([(0, 0, 1), (0, 1, 2), (1, 2, 3)])
    changed = data.interactions.copy()
    changed.loc[1, column] += 1
    assert replace(data, interactions=changed).sha256() != data.sha256()


def test_hash_notices_a_changed_text_and_text_that_moves_between_columns():
    data = make([(0, 0, 1)], n_items=1)
    for raw, text in (("ab", ""), ("a", "b"), ("", "ab")):
        items = pd.DataFrame({"raw": [raw], "text": [text]})
        others = [pd.DataFrame({"raw": [r], "text": [t]}) for r, t in (("ab", ""), ("a", "b"), ("", "ab")) if (r, t) != (raw, text)]
        assert all(replace(data, items=items).sha256() != replace(data, items=o).sha256() for o in others)


def test_rows_that_do_not_fit_are_named():
    items = pd.DataFrame({"raw": ["a", "b"], "text": ["", ""]})
    rows = pd.DataFrame({"user": ["u", "v"], "item": ["a", "z"], "time": [1.0, 2.0]})
    with pytest.raises(DataError, match=r"row 1 names item 'z'.*1 such"):
        Dataset.from_raw("d", rows, items)
    with pytest.raises(DataError, match="item id 'a' stands 2 times"):
        Dataset.from_raw("d", rows, pd.DataFrame({"raw": ["a", "a"], "text": ["", ""]}))
    with pytest.raises(DataError, match="row 1 has no time"):
        Dataset.from_raw("d", rows.assign(item="a", time=[1.0, np.nan]), items)
    with pytest.raises(DataError, match="no interactions"):
        Dataset.from_raw("d", rows[:0], items)


def test_users_table_gives_the_codes_and_keeps_users_without_interactions():
    rows = pd.DataFrame({"user": ["v"], "item": ["a"], "time": [1.0]})
    users = pd.DataFrame({"raw": ["u", "v"], "age": [3, 4]})
    data = Dataset.from_raw("d", rows, pd.DataFrame({"raw": ["a"], "text": ["x"]}), users)
    assert data.interactions["user"].tolist() == [1]
    assert data.n_users == 1
    assert data.interactions[Columns.VALUE].tolist() == [1.0]


def test_features_are_checked_and_shuffled_so_that_none_stays():
    data = make([(0, 0, 1)])
    vectors = np.arange(14, dtype=np.float64).reshape(7, 2)
    with pytest.raises(DataError, match="3 item vectors for 7 items"):
        data.with_features(vectors[:3])
    bad = vectors.copy()
    bad[4, 1] = np.nan
    with pytest.raises(DataError, match="item 4"):
        data.with_features(bad)
    with pytest.raises(DataError, match="no item vectors"):
        data.with_shuffled_features(0)
    given_ = data.with_features(vectors)
    for seed in range(20):
        shuffled = given_.with_shuffled_features(seed).features
        assert (shuffled != given_.features).all()
        assert sorted(map(tuple, shuffled)) == sorted(map(tuple, given_.features))
    np.testing.assert_array_equal(given_.with_shuffled_features(3).features, given_.with_shuffled_features(3).features)


@given(st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=6), st.data())
def test_sequences_take_prefixes_and_last(histories, data):
    sequences = Sequences.of(histories)
    assert [sequences.items[a:b].tolist() for a, b in zip(sequences.starts, sequences.starts[1:], strict=False)] == histories
    n = data.draw(st.integers(0, 7))
    last = sequences.last(n)
    assert [last.items[a:b].tolist() for a, b in zip(last.starts, last.starts[1:], strict=False)] == [h[len(h) - min(n, len(h)) :] for h in histories]
    at = np.arange(len(sequences.items))
    before = sequences.prefixes(at)
    wanted = [h[:k] for h in histories for k in range(len(h))]
    assert [before.items[a:b].tolist() for a, b in zip(before.starts, before.starts[1:], strict=False)] == wanted
    assert sequences.positions.tolist() == [k for h in histories for k in range(len(h))]
    assert sequences.rows.tolist() == [r for r, h in enumerate(histories) for _ in h]


def test_reports_add_up():
    assert str(Report(("a",)) + "b" + Report(("c",))) == "a\nb\nc"


def test_a_code_of_nothing_is_refused_where_it_comes_in():
    data = make([(0, 0, 0), (1, 6, 1)])
    for column, code, last in (("item", -3, 6), ("item", 99, 6), ("user", 2, 1)):
        with pytest.raises(DataError, match=f"{column} code {code} at place 1; expected 0 to {last}"):
            replace(data, interactions=data.interactions.assign(**{column: [0, code]}))
    unknown = pd.Index(data.items["raw"]).get_indexer(["3", "such a thing"])
    with pytest.raises(DataError, match="history 1: item code -1 at place 1; expected 0 or more; -1 is what get_indexer gives"):
        Sequences.of([[0], unknown])
