"""Ranks against a plain reading: score one history at a time and count."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from zsrbook.data.dataset import DataError, Dataset
from zsrbook.data.splits import Fold
from zsrbook.evaluation.protocol import Protocol, evaluate
from zsrbook.evaluation.ranks import RankTable, load_ranks, rank_targets, save_ranks
from zsrbook.models import base
from zsrbook.models.base import Recommender


class Table(Recommender):
    """Scores from a fixed table: the row is the sum of the history, so a prefix and its batch must agree."""

    def __init__(self, scores):
        self.table, self.n_items = torch.as_tensor(np.asarray(scores), dtype=torch.float32), len(scores[0])

    def fit(self, data, valid=None):
        return self

    def scores(self, histories):
        total = np.bincount(histories.rows, weights=histories.items, minlength=len(histories)).astype(int)
        return self.table[total % len(self.table)]


class Backwards(Table):
    """Serves the indices in its own order, one at a time."""

    def prefix_scores(self, sequences, at):
        for i in at[::-1]:
            yield np.array([i]), self.scores(sequences.prefixes(np.array([i])))


def fold_of(histories, n_items, targets=None):
    frame = pd.DataFrame(
        [(u, i, t, 1.0) for u, h in enumerate(histories) for t, i in enumerate(h)], columns=["user", "item", "time", "value"]
    ).astype({"user": "int32", "item": "int32"})
    items = pd.DataFrame({"raw": [f"i{n}" for n in range(n_items)], "text": ""})
    data = Dataset("tiny", frame, items, pd.DataFrame({"raw": [f"u{n}" for n in range(len(histories))]}))
    return Fold(data, data.sequences().positions > 0 if targets is None else np.asarray(targets))


def slow_ranks(model, fold, remove_history):
    """(greater, ties, candidates) of each target, read off one row of scores with plain Python."""
    found = []
    for user, history in fold.data.interactions.groupby("user")["item"]:
        for position, target in enumerate(history):
            index = np.flatnonzero(fold.data.interactions["user"] == user)[position]
            if not fold.targets[index]:
                continue
            scores = model.scores(base.Sequences.of([list(history[:position])]))[0].tolist()
            own = scores[target]
            taken = set(history[:position]) - {target} if remove_history else set()
            others = [s for i, s in enumerate(scores) if i != target and i not in taken]
            below = own != own
            greater = sum((s == s) if below else (s > own) for s in others)
            ties = sum((s != s) if below else (s == own) for s in others)
            found.append((greater, ties, len(others) + 1))
    return np.array(found).T


@st.composite
def worlds(draw):
    n_items = draw(st.integers(2, 7))
    histories = draw(st.lists(st.lists(st.integers(0, n_items - 1), min_size=1, max_size=6), min_size=1, max_size=4))
    score = st.sampled_from([0.0, 1.0, 2.0, -1.0, float("nan"), float("inf"), float("-inf")])
    table = draw(st.lists(st.lists(score, min_size=n_items, max_size=n_items), min_size=1, max_size=4))
    n = sum(map(len, histories))
    targets = draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(any))
    return fold_of(histories, n_items, targets), table


@given(worlds(), st.booleans(), st.sampled_from([Table, Backwards]), st.sampled_from([1, 10, 1000]))
@settings(max_examples=150, deadline=None)
def test_counts_equal_the_plain_reading(world, remove_history, kind, at_once):
    fold, scores = world
    model = kind(scores)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "SCORES_AT_ONCE", at_once)
        table = rank_targets(model, fold, remove_history=remove_history)
    greater, ties, candidates = slow_ranks(model, fold, remove_history)
    assert_array_equal(table.greater, greater)
    assert_array_equal(table.ties, ties)
    assert_array_equal(table.n_candidates, candidates)
    assert_array_equal(table.target, fold.data.interactions["item"][fold.targets])
    assert_array_equal(table.user, fold.data.interactions["user"][fold.targets])


@pytest.mark.gpu
@pytest.mark.parametrize("remove_history", [False, True])
def test_counting_on_a_gpu_changes_nothing(remove_history):
    rng = np.random.default_rng(0)
    fold = fold_of([rng.integers(0, 50, 20) for _ in range(30)], 50)
    model = Table(rng.integers(0, 9, (40, 50)))
    expected = rank_targets(model, fold, remove_history=remove_history)
    model.table = model.table.cuda()
    found = rank_targets(model, fold, remove_history=remove_history)
    for name, column in vars(expected).items():
        assert_array_equal(getattr(found, name), column)


def test_nan_ranks_last():
    fold = fold_of([[0, 1, 2]], 4)
    nan = float("nan")
    table = rank_targets(Table([[nan, nan, 5.0, nan]]), fold)
    assert_array_equal(table.greater, [1, 0])  # item 1 loses to item 2 alone; item 2 loses to nobody
    assert_array_equal(table.ties, [2, 0])


def test_nothing_to_rank_is_explained():
    with pytest.raises(DataError, match="the fold holds 2 interactions but no target; nothing to rank: a target follows something that the same"):
        rank_targets(Table([[0, 1]]), fold_of([[0], [1]], 2))


def test_history_counts_once_and_a_repeated_target_stays():
    fold = fold_of([[3, 3, 1, 3]], 5)
    table = rank_targets(Table([[0, 0, 0, 9, 0]]), fold, remove_history=True)
    assert_array_equal(table.target, [3, 1, 3])
    assert_array_equal(table.n_candidates, [5, 4, 4])
    assert_array_equal(table.greater, [0, 0, 0])


def test_last_only_takes_the_newest_target_of_each_user():
    fold = fold_of([[0, 1, 2], [4], [3, 0]], 5, [0, 1, 1, 1, 1, 0])
    table = rank_targets(Table([np.arange(5.0)]), fold, last_only=True)
    assert_array_equal(table.user, [0, 1, 2])
    assert_array_equal(table.target, [2, 4, 3])
    assert_array_equal(table.position, [2, 0, 0])
    assert_array_equal(table.greater, [2, 0, 1])


def test_errors_say_what_to_do():
    fold = fold_of([[0, 1]], 3)
    with pytest.raises(DataError, match=r"scores 4 items, but tiny has 3.*transfer"):
        rank_targets(Table([[0.0] * 4]), fold)
    with pytest.raises(DataError, match="no target"):
        rank_targets(Table([[0.0] * 3]), Fold(fold.data, np.zeros(2, bool)))


def random_table(rng, n=3000, items=10_000):
    user = np.sort(rng.integers(0, 900, n))
    position = np.arange(n) - np.searchsorted(user, user)
    columns = (user, position, rng.integers(0, items, n), rng.integers(0, items, n), rng.integers(0, 3, n), np.full(n, items))
    return RankTable(*(c.astype(np.int32) for c in columns))


def test_file_gives_back_every_seed(tmp_path):
    rng = np.random.default_rng(0)
    shared = random_table(rng)
    tables = {3: shared, 5: RankTable(**{**vars(shared), "greater": shared.greater[::-1].copy()}), 9: random_table(rng, n=40)}
    path = tmp_path / "POP.toy.npz"
    assert save_ranks(path, tables) == [3, 5, 9]
    back = load_ranks(path)
    assert list(back) == [3, 5, 9]
    for seed, table in tables.items():
        for name, column in vars(table).items():
            assert_array_equal(getattr(back[seed], name), np.full_like(column, -1) if name == "target" else column)
            assert getattr(back[seed], name).dtype == np.int32


def test_file_is_small_and_keeps_to_its_limit(tmp_path):
    rng = np.random.default_rng(0)
    shared = random_table(rng, n=45_000)
    tables = {s: RankTable(**{**vars(shared), "greater": rng.integers(0, 10_000, 45_000, dtype=np.int32)}) for s in range(9)}
    path = tmp_path / "Random.paper.npz"
    written = save_ranks(path, tables, limit=400_000)
    assert path.stat().st_size <= 400_000
    assert written == [0, 1, 2, 3]  # 14 bits a rank, written as 16: what a random method needs, which no compression can help
    assert list(load_ranks(path)) == written
    assert save_ranks(path, tables, limit=10) == [0]  # the first always


def test_single_prediction_table_round_trips(tmp_path):
    save_ranks(tmp_path / "a.npz", {0: RankTable.of([70_000], [0], 100_000)})
    assert load_ranks(tmp_path / "a.npz")[0].greater.tolist() == [70_000]


@pytest.mark.parametrize(
    ("protocol", "targets"),
    [
        (Protocol(), [3, 1, 3, 2]),
        (Protocol(first=1), [3, 3, 1, 3, 0, 2]),
        (Protocol(first=3), [1, 3]),
        (Protocol(positions="last"), [3, 2]),
        (Protocol(repeats="removed"), [1, 2]),
    ],
)
def test_protocol_chooses_the_targets(protocol, targets):
    fold = fold_of([[3, 3, 1, 3], [0, 2]], 5, np.ones(6, bool))
    table = evaluate(Table([np.arange(5.0)]), fold, protocol)
    assert table.target.tolist() == targets


def test_protocol_removes_history_and_averages():
    fold = fold_of([[3, 1, 2], [4, 2]], 5)
    model = Table([np.arange(5.0)])  # the higher the code, the better
    kept, removed = evaluate(model, fold), evaluate(model, fold, Protocol(history="removed"))
    assert (kept.greater - removed.greater).tolist() == [1, 1, 1]
    assert Protocol().summary(kept, metrics=("Recall@3",)) == {"Recall@3": pytest.approx(2 / 3)}
    assert Protocol(average="macro").summary(kept, ("Recall@3",)) == {"Recall@3": pytest.approx(3 / 4)}


def test_protocol_goes_through_a_record_and_refuses_what_it_does_not_know():
    protocol = Protocol(positions="last", history="removed")
    assert Protocol.of(protocol.settings()) == protocol
    with pytest.raises(ValueError, match="unknown setting 'tie'"):
        Protocol.of({"tie": "expected"})
    with pytest.raises(ValueError, match="positions is 'first'"):
        Protocol(positions="first")
    with pytest.raises(ValueError, match="whole number from 1"):
        Protocol(first=0)


def test_every_setting_changes_the_caption():
    captions = {Protocol().caption()}
    for change in ({"positions": "last"}, {"first": 3}, {"repeats": "removed"}, {"history": "removed"}, {"average": "macro"}, {"ties": "median"}):
        captions.add(Protocol(**change).caption())
    assert len(captions) == 7
