"""PrepRec and the popularity of late: encodings against plain readings, no look into the future, and a world in which popularity moves."""

from dataclasses import replace
from functools import cache
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from contract import RecommenderContract, close, histories, world
from public import needs

from zsrbook.data import catalogue
from zsrbook.data.dataset import Columns, DataError, Dataset, Sequences
from zsrbook.data.splits import Fold, Split, split_by_time, split_leave_one_out
from zsrbook.evaluation.protocol import Protocol, evaluate
from zsrbook.models import preprec
from zsrbook.models.base import Recommender
from zsrbook.models.baselines import Popularity, RecentPopularity, RecentPopularitySettings
from zsrbook.models.preprec import (
    DAY,
    FULL,
    AsCode,
    Horizon,
    PopularityClock,
    PrepRec,
    PrepRecNetwork,
    PrepRecSettings,
    Queries,
    learned_from,
    percentiles,
    ranks_so_far,
    spread,
    windows_of,
)
from zsrbook.training import Training

RNG = np.random.default_rng(0)


def dataset(user, item, time, n_items: int, name: str = "trends") -> Dataset:
    items = pd.DataFrame({Columns.RAW: [f"{name} {i}" for i in range(n_items)], Columns.TEXT: ""})
    rows = pd.DataFrame({Columns.USER: [f"{name} {u}" for u in user], Columns.ITEM: [f"{name} {i}" for i in item], Columns.TIME: time})
    return Dataset.from_raw(name, rows, items)


def without_clock(data: Dataset) -> Dataset:
    return Dataset(data.name, data.interactions, data.items, data.users, clock=False)


def random_data(n: int = 400, users: int = 30, n_items: int = 12, days: float = 90) -> Dataset:
    rng = np.random.default_rng(n)
    return dataset(rng.integers(users, size=n), rng.integers(n_items - 2, size=n), 1e9 + rng.uniform(0, days * DAY, n), n_items)


# -- plain readings ------------------------------------------------------------------------------------------------------------


def plain_percentile(counts: dict[int, float], n_items: int) -> np.ndarray:
    """By its definition: the share of the known items that are below, half of those that are level, itself counted in."""
    out = np.zeros(n_items)
    for item, count in counts.items():
        below = sum(c < count for c in counts.values())
        level = sum(c == count for c in counts.values())
        out[item] = 100 * (below + (level + 1) / 2) / len(counts)
    return out


def plain_spread(percentile: float, points: int) -> np.ndarray:
    """By cases, as the code reads: all at a point that is hit, else shared by its two neighbours."""
    out = np.zeros(points)
    if percentile > 0:
        step = 100 / (points - 1)
        left = int(percentile // step)
        share = percentile % step / step
        out[left] = 1 - share
        if share > 0:
            out[left + 1] = share
    return out


def plain_state(data: Dataset, moment: float, settings: PrepRecSettings, running: bool = False) -> np.ndarray:
    """(I, C + 1) percentiles by counting anew from all interactions, window by window; ``running``: coarse ones one window later."""
    frame = data.interactions
    columns = []
    for back in range(settings.coarse_windows):
        last = int(moment // (settings.coarse_days * DAY)) - 1 - back + running
        counts: dict[int, float] = {}
        for item, time in zip(frame[Columns.ITEM], frame[Columns.TIME], strict=True):
            if (window := int(time // (settings.coarse_days * DAY))) <= last:
                counts[item] = counts.get(item, 0) + settings.decay ** (last - window)
        columns.append(plain_percentile(counts, data.n_items))
    last = int(moment // (settings.fine_days * DAY)) - 1
    counts = {}
    for item, time in zip(frame[Columns.ITEM], frame[Columns.TIME], strict=True):
        if (window := int(time // (settings.fine_days * DAY))) <= last:
            counts[item] = counts.get(item, 0) + (window > last - settings.fine_span)
    return np.column_stack([*columns, plain_percentile(counts, data.n_items)])


def test_percentiles_with_ties_equal_the_plain_reading():
    for _ in range(20):
        counts, seen = RNG.integers(0, 4, 15).astype(float), RNG.random(15) < 0.7
        known = {i: counts[i] for i in range(15) if seen[i]}
        np.testing.assert_allclose(percentiles(counts, seen), plain_percentile(known, 15))
    assert not percentiles(np.zeros(3), np.zeros(3, bool)).any()


@pytest.mark.parametrize("points", [6, 11])
def test_spread_equals_the_plain_reading(points):
    values = np.concatenate([[0, 1e-3, 50, 100, 20, 99.999], RNG.uniform(0, 100, 200)])
    found = spread(torch.tensor(values), points)
    np.testing.assert_allclose(found, [plain_spread(v, points) for v in values], atol=1e-9)
    np.testing.assert_allclose(found.sum(1), values > 0)


@pytest.mark.parametrize(("n", "days"), [(150, 60), (40, 300)])
def test_the_clock_equals_counting_anew(n, days):
    """Also where most windows are empty."""
    settings = PrepRecSettings(coarse_days=7.0, coarse_windows=3, decay=0.9, fine_days=1.5, fine_span=3)
    data = random_data(n, days=days)
    clock = PopularityClock.of(data, settings)
    times = data.interactions[Columns.TIME].to_numpy()
    for moment in (times.min(), *RNG.uniform(times.min(), times.max() + 40 * DAY, 25), clock.end):
        found = clock.catalogue(clock.rows(np.array(moment))).numpy()
        np.testing.assert_allclose(found, plain_state(data, moment, settings), atol=100 / FULL)
        peeking = clock.catalogue(clock.rows(np.array(moment), running=True)).numpy()
        np.testing.assert_allclose(peeking, plain_state(data, moment, settings, running=True), atol=100 / FULL)
        assert torch.equal(clock.at(np.array([3, 0]), clock.rows(np.array([moment, moment]))), torch.as_tensor(found[[3, 0]]))
    assert not clock.catalogue(clock.rows(times.min())).any(), "nothing is known before the first window ends"


def test_without_a_clock_what_counts_is_what_was_taken_as_the_data_ended():
    settings, data = PrepRecSettings(), random_data(150, days=60)
    clock, items, times = PopularityClock.of(data, settings), *(data.interactions[name].to_numpy() for name in (Columns.ITEM, Columns.TIME))
    window = times // (settings.fine_days * DAY)
    counts = np.bincount(items[window > window.max() - settings.fine_span], minlength=data.n_items)
    expected = percentiles(counts, np.bincount(items, minlength=data.n_items) > 0)
    assert len(np.unique(expected)) > 2
    np.testing.assert_allclose(clock.catalogue(clock.rows(np.array(clock.end)))[:, -1], expected, atol=100 / FULL)


def test_a_window_without_interactions_changes_no_order():
    """Where nobody takes anything, the counts halve and their order stays; the fine count runs out."""
    items, times = np.array([0, 0, 1, 2], np.int32), np.array([0.0, 1.0, 2.0, 3.0]) * DAY
    coarse, fine = Horizon.of(items, times, 4, 1.0, decay=0.5), Horizon.of(items, times, 4, 1.0, span=2)
    later = np.array([5.0, 50.0, 5000.0]) * DAY
    assert len(set(coarse.rows(coarse.number(later))[:, 0])) == 1
    np.testing.assert_allclose(fine.table[fine.rows(fine.number(later[1:]))[:, 0]] / FULL, [[2 / 3, 2 / 3, 2 / 3, 0]] * 2, atol=1e-4)


def test_a_seen_item_is_never_taken_for_an_unseen_one():
    """Not even where there are more items than steps in the table."""
    items = np.repeat(np.arange(80_000, dtype=np.int32), 2)[1:]  # item 0 once, the others twice
    horizon = Horizon.of(items, np.zeros(len(items)), 80_001, 1.0)
    assert horizon.table[1, 0] == 1
    assert horizon.table[1, -1] == 0


def test_a_table_too_large_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr(preprec, "TABLE_LIMIT", 100)
    with pytest.raises(DataError, match=r"trends: the popularity of 12 items after each of \d+ windows of 10 days .* longer windows"):
        PopularityClock.of(random_data(), PrepRecSettings())


def test_ranks_so_far_equal_the_plain_reading():
    gaps = RNG.integers(0, 5, (3, 12)).astype(float)
    plain = [[1 + (row[:k] < row[k]).sum() + 0.5 * (row[:k] == row[k]).sum() for k in range(12)] for row in gaps]
    np.testing.assert_allclose(ranks_so_far(torch.tensor(gaps)), plain)


WAYS = [AsCode(), AsCode(all_gaps=True), AsCode(from_newest=True), AsCode(no_start=True)]


@pytest.mark.parametrize("code", WAYS, ids=["ours", "all gaps", "from newest", "no start"])
def test_the_network_equals_a_plain_reading(code):
    """One history, item by item, in NumPy and float64."""
    settings = PrepRecSettings(width=6, heads=2, coarse_windows=2, max_length=9, training=Training(seed=3), as_code=code)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PrepRecNetwork(settings).double().eval()
        for parameter in network.parameters():  # no bias may hide behind a zero, no norm behind a one
            torch.nn.init.normal_(parameter, 0.3, 0.5)
    w = {name: value.detach().numpy() for name, value in network.named_parameters()}
    percentile, gaps = RNG.uniform(0, 100, (5, 3)), RNG.uniform(0, 9, 5)

    def linear(name, x):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name, x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-8) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def wave(place):
        return np.array([(np.sin, np.cos)[j % 2](place / 10_000 ** (2 * (j // 2) / 6)) for j in range(6)])

    x = np.array([np.concatenate([plain_spread(p[0], 11), plain_spread(p[1], 11), plain_spread(p[2], 6)]) for p in percentile])
    z = linear("item.2", np.maximum(linear("item.0", x), 0))
    ranks = [0, *(1 + sum(gaps[j] < gaps[k] for j in range(k)) for k in range(5))]
    if code.all_gaps:
        ranks = [0, *sorted(range(5), key=lambda k: gaps[k])]
    first = 9 - 5 if code.from_newest else 0
    h = np.vstack([w["start"], z]) + np.array([wave(first + k) + wave(ranks[k]) for k in range(6)])
    h = h[code.no_start :]
    for b in range(2):
        asked = norm(f"blocks.{b}.before", h)
        q, k, v = linear(f"blocks.{b}.query", asked), linear(f"blocks.{b}.key", h), linear(f"blocks.{b}.value", h)
        seen = np.zeros_like(h)
        for head in (slice(0, 3), slice(3, 6)):
            for step in range(len(h)):
                weight = np.exp(q[step, head] @ k[: step + 1, head].T / np.sqrt(3))
                seen[step, head] = weight / weight.sum() @ v[: step + 1, head]
        h = norm(f"blocks.{b}.between", asked + seen)
        h = h + linear(f"blocks.{b}.feed.3", np.maximum(linear(f"blocks.{b}.feed.0", h), 0))
    expected = np.vstack([np.zeros((6 - len(h), 6)), norm("last", h)])
    with torch.no_grad():
        found = network.user_vectors(torch.tensor(percentile)[None], torch.tensor(gaps)[None])[0]
        padded = network.user_vectors(torch.tensor(np.pad(percentile, ((0, 2), (0, 0))))[None], torch.tensor([[*gaps, np.inf, np.inf]]))[0, :6]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)  # the waves are float32
    np.testing.assert_allclose(padded, found, atol=1e-9)


def test_the_network_has_as_many_weights_as_the_paper_reports():
    """0.045 million; the start vector is ours."""
    assert sum(p.numel() for p in PrepRecNetwork(PrepRecSettings()).parameters()) == 44_950 + 50


def test_windows_hold_all_queries_and_depend_on_what_was_read_alone():
    row, read = RNG.integers(0, 5, 300), RNG.integers(0, 40, 300)
    windows = windows_of(Queries(row, read, np.zeros(300)), 8)
    begin, end = windows.begin[windows.of], windows.end[windows.of]
    np.testing.assert_array_equal(windows.row[windows.of], row)
    assert (end >= read).all()
    assert (end - begin <= 8).all()
    assert ((read - begin >= 5) | (begin == 0)).all(), "more than half of the length is read"
    assert (begin % 4 == 0).all(), "neighbours share their window"
    alone = [windows_of(Queries(row[i : i + 1], read[i : i + 1], np.zeros(1)), 8).begin[0] for i in range(50)]
    np.testing.assert_array_equal(begin[:50], alone)
    assert len(windows_of(Queries(np.zeros(0, int), np.zeros(0, int), np.zeros(0)), 8).row) == 0


def test_with_newest_each_row_is_one_window_of_its_newest_items():
    rng = np.random.default_rng(1)
    lengths = np.array([3, 8, 9, 30, 0])
    sequences = Sequences.of([rng.integers(5, size=n).tolist() for n in lengths])
    at = learned_from(sequences, PrepRecSettings(max_length=8, as_code=AsCode(newest=True)))
    kept = [np.arange(max(0, n - 8), n) for n in lengths]
    np.testing.assert_array_equal(sequences.positions[at], np.concatenate(kept))
    row, read = np.repeat(np.arange(5), [len(k) for k in kept]), np.concatenate(kept)
    windows = windows_of(Queries(row, read, np.zeros(len(read))), 8, newest=True)
    np.testing.assert_array_equal(windows.row, [0, 1, 2, 3])
    np.testing.assert_array_equal(windows.begin, [0, 0, 0, 21])  # the newest item of 30 is predicted from the eight before it
    np.testing.assert_array_equal(windows.end, [2, 7, 8, 29])
    assert len(windows_of(Queries(*np.zeros((3, 0), int)), 8, newest=True).row) == 0


def test_what_the_code_does_in_training_is_done_there_alone():
    """The fine window by the number of the coarse one, no first items, no old ones; a validation loss knows nothing of it."""
    data, settings = random_data(900, users=10), PrepRecSettings(max_length=40, as_code=AsCode(slip=True, no_start=True, newest=True))
    clock, plain = PopularityClock.of(data, settings), replace(settings, as_code=AsCode())
    learning, judging, usual = (
        preprec.Examples(data.sequences(), clock, of, training=training) for of, training in ((settings, True), (settings, False), (plain, True))
    )
    targets = [e.batch(np.arange(len(e.lengths)), np.random.default_rng(0)) for e in (learning, judging, usual)]
    assert all(torch.equal(a, b) for a, b in zip(targets[1][0], targets[2][0], strict=True))
    batch, asked = targets[0]
    positions = data.sequences().positions[learning.at]
    assert positions.min() == 1 or (data.sequences().lengths > 40).all()
    assert len(asked) == np.minimum(data.sequences().lengths, 40).sum() - (data.sequences().lengths <= 40).sum()
    coarse, fine, times = settings.coarse_days * DAY, settings.fine_days * DAY, data.interactions[Columns.TIME].to_numpy()
    for found, item, moment in zip(batch.targets[:, 0], learning.sequences.items[learning.at[asked]], learning.queries.moment[asked], strict=True):
        expected = plain_state(data, moment, settings)[item]
        since = moment // coarse - 1 - times.min() // coarse
        expected[-1] = plain_state(data, (times.min() // fine + since + 1) * fine, settings)[item, -1]
        np.testing.assert_allclose(found, expected, atol=100 / FULL)


def test_a_running_window_tells_of_the_future_and_a_complete_one_does_not():
    """Whoever takes an item later in the same window moves what is said of it as a candidate, not what history says."""
    data = random_data()
    frame, sequences = data.interactions, data.sequences()
    moment = 1e9 + 47.5 * DAY
    window = moment // (10 * DAY)
    times = frame[Columns.TIME].to_numpy()
    later = (times > moment) & (times // (10 * DAY) == window)
    assert later.sum() > 5
    other = Dataset(data.name, frame.assign(**{Columns.ITEM: np.where(later, 0, frame[Columns.ITEM]).astype(np.int32)}), data.items, data.users)
    asked = replace(sequences.take(np.arange(4)).last(0), now=np.full(4, moment))
    found = {}
    for running in (False, True):
        model = PrepRec(PrepRecSettings(as_code=AsCode(running=running)))
        model.build()
        found[running] = [model.transfer(target).scores(asked) for target in (data, other)]
    assert torch.equal(*found[False])
    assert not torch.equal(*found[True])
    assert not torch.equal(found[True][0], found[False][0])


def test_an_empty_history_without_a_start_scores_all_items_0():
    model = PrepRec(PrepRecSettings(as_code=AsCode(no_start=True)))
    model.build()
    model.bind(random_data())
    scores = model.scores(Sequences.of([[], [1, 2]]))
    assert not scores[0].any()
    assert scores[1].any()
    assert not model.scores(Sequences.of([[]])).any()


def test_moments_of_histories():
    sequences = Sequences(np.array([4, 5, 6], np.int32), np.array([0, 2, 2, 3]), np.arange(3), np.array([1.0, 2.0, 5.0]))
    np.testing.assert_array_equal(sequences.moments(9.0), [2, 9, 5])
    asked = sequences.prefixes(np.array([0, 1, 2]))
    np.testing.assert_array_equal(asked.moments(9.0), [1, 2, 5])  # when that item was taken
    np.testing.assert_array_equal(asked.lengths, [0, 1, 0])
    np.testing.assert_array_equal(asked.take(np.array([2, 0])).moments(9.0), [5, 1])
    np.testing.assert_array_equal(asked.last(1).moments(9.0), [1, 2, 5])
    np.testing.assert_array_equal(Sequences.of([[1], []]).moments(9.0), [9, 9])


# -- popularity of late --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("days", [0.5, 10.0, np.inf])
def test_recent_popularity_equals_counting_anew(days):
    data = random_data()
    frame, sequences = data.interactions, data.sequences()
    model = RecentPopularity(RecentPopularitySettings(days)).fit(data)
    for at, scores in model.prefix_scores(sequences, np.arange(0, len(data), 7)):
        for i, found in zip(at, scores, strict=True):
            age = sequences.times[i] - frame[Columns.TIME]
            expected = np.bincount(frame[Columns.ITEM][(age > 0) & (age <= days * DAY)], minlength=data.n_items)
            np.testing.assert_array_equal(found, expected)


def test_recent_popularity_counts_what_is_strictly_earlier():
    data = dataset([0, 1, 2], [0, 1, 2], [5.0, 5.0, 6.0], 3)
    model = RecentPopularity().fit(data)
    scores = model.scores(Sequences(np.zeros(0, np.int32), np.zeros(4, np.int64), np.arange(3), np.zeros(0), np.array([5.0, 6.0, 7.0])))
    np.testing.assert_array_equal(scores, [[0, 0, 0], [1, 1, 0], [1, 1, 1]])


# -- the contract --------------------------------------------------------------------------------------------------------------


class ClockContract(RecommenderContract):
    """Of the contract, what reads differently for a model that follows the clock.

    It reads no item vectors, so shuffling them is no control (shuffled times are, below), and the toy world is nearly flat and
    does not move, so there is nothing to learn (there is in the moving world, below).
    """

    margin = None
    reads_features = False

    def test_later_items_change_no_earlier_scores(self, variant):
        """The moment at which the next item is taken is known, since that is when it is asked for; the item is not, nor what follows."""
        model, some = self.in_target(variant), histories()
        cut = some.starts[:-1] + some.lengths // 2
        middle = np.repeat(some.lengths // 2, some.lengths)
        items = np.where(some.positions >= middle, (some.items + 1) % model.n_items, some.items).astype(np.int32)
        changed = Sequences(items, some.starts, some.users, some.times + np.where(some.positions > middle, 1e6, 0.0))
        early = torch.as_tensor((some.positions < middle) | np.isin(np.arange(len(items)), cut))
        before, after = (self.by_index(model, sequences, np.arange(len(items))) for sequences in (some, changed))
        close(after[early], before[early])
        assert not torch.equal(after, before)

    def test_transfer_reads_item_vectors_alone_and_leaves_the_model_as_it_was(self, variant):
        """It reads the target's interactions, each prediction those before it, and learns nothing."""
        model, target, some = self.at_home(variant), world().target, histories()
        at_home = world().source.sequences().take(np.arange(20))
        before = model.scores(at_home)
        frame, rng = target.interactions, np.random.default_rng(0)
        times = frame[Columns.TIME].to_numpy()
        half = np.median(times)
        early = np.flatnonzero(some.times <= half)
        assert len(early) > 50
        items = frame[Columns.ITEM].to_numpy().copy()
        items[times >= half] = rng.integers(target.n_items, size=(times >= half).sum())
        after = np.where(times >= half, half + (times - half) * 2, times)
        other = Dataset(target.name, frame.assign(**{Columns.ITEM: items, Columns.TIME: after}), target.items, target.users)
        moved = [self.by_index(m, some, early) for m in (model.transfer(other), self.in_target(variant))]
        assert torch.equal(*moved), "something of the future is read"
        assert not torch.equal(model.transfer(other).scores(some), self.in_target(variant).scores(some)), "the past is not read either"
        assert torch.equal(model.scores(at_home), before)
        assert model.n_items == world().source.n_items
        with pytest.raises(DataError, match=f"{target.name} has no time stamps"):
            model.transfer(without_clock(target))

    def test_a_new_order_of_the_catalogue_reorders_the_scores(self, variant):
        model, target, some = self.at_home(variant), world().target, histories()
        order = np.random.default_rng(0).permutation(target.n_items)
        code = np.argsort(order).astype(np.int32)
        frame = target.interactions.assign(**{Columns.ITEM: code[target.interactions[Columns.ITEM]]})
        moved = Dataset(target.name, frame, target.items.iloc[order].reset_index(drop=True), target.users)
        renamed = Sequences(code[some.items], some.starts, some.users, some.times)
        close(model.transfer(moved).scores(renamed), self.in_target(variant).scores(some)[:, torch.as_tensor(order)])

    @staticmethod
    def by_index(model: Recommender, sequences: Sequences, at: np.ndarray) -> torch.Tensor:
        found = {}
        for indices, scores in model.prefix_scores(sequences, at):
            found |= dict(zip(indices.tolist(), scores, strict=True))
        return torch.stack([found[i] for i in at.tolist()])


def small(**settings):
    """A second or two to fit; histories of the toy world are longer than its windows."""

    def make(seed: int, device: str) -> PrepRec:
        training = Training(epochs=2, optimizer="adam", learning_rate=0.01, patience=None, device=device, seed=seed)
        return PrepRec(PrepRecSettings(**({"width": 16, "max_length": 10, "batch_targets": 1024} | settings), training=training))

    return make


class TestPrepRec(ClockContract):
    variants: ClassVar = {"now": small(), "last": small(moment="last", loss="softmax", negatives=3), "no-gaps": small(gaps=False, heads=2)}
    variants |= {"as-code": small(as_code=AsCode(slip=True, no_start=True, newest=True))}


class TestRecentPopularity(ClockContract):
    variants: ClassVar = {"recent": lambda seed, device: RecentPopularity()}


# -- a world in which popularity moves -----------------------------------------------------------------------------------------


def moving(name: str, seed: int, n_items: int, users: int = 250, events: int = 7000, days: float = 200.0) -> Dataset:
    """Two kinds of users: seven in ten take what others took in the last twelve days, the rest anything.

    So what is popular drifts, and the history of a user tells which kind it is.
    """
    rng = np.random.default_rng(seed)
    times = 1e9 + np.sort(rng.uniform(0, days * DAY, events))
    user = rng.integers(users, size=events)
    follows = (rng.random(users) < 0.7)[user] & (rng.random(events) < 0.95)
    since = np.searchsorted(times, times - 12 * DAY)
    item = rng.integers(n_items, size=events)
    for e in range(20, events):
        if follows[e] and since[e] < e:
            item[e] = item[rng.integers(since[e], e)]
    return dataset(user, item, times, n_items, name)


def shuffle_items(data: Dataset) -> Dataset:
    """The control: every interaction keeps its user and time, and gets the item of another."""
    items = np.random.default_rng(0).permutation(data.interactions[Columns.ITEM].to_numpy())
    return Dataset(data.name, data.interactions.assign(**{Columns.ITEM: items}), data.items, data.users)


@cache
def market(name: str) -> Split:
    return split_by_time(moving(name, *{"north": (0, 150), "south": (1, 110)}[name]))


@cache
def of_the_north() -> PrepRec:
    """Three coarse windows for twelve: the course of an item over 120 days names it, and so few interactions would be learned by heart."""
    training = Training(epochs=10, optimizer="adam", learning_rate=2e-3, patience=6)
    settings = PrepRecSettings(coarse_windows=3, dropout=0.3, batch_targets=512, training=training)
    return PrepRec(settings).fit(market("north").train, market("north").valid)


def ndcg(model: Recommender, fold: Fold) -> float:
    return Protocol().summary(evaluate(model, fold), ("NDCG@10",))["NDCG@10"]


def recent(fold: Fold, days: float) -> float:
    return ndcg(RecentPopularity(RecentPopularitySettings(days)).fit(fold.data), fold)


@pytest.mark.parametrize("name", ["north", "south"])
def test_learns_a_moving_world_and_carries_it_to_another(name):
    """Learned in the north. In the south no user and no item is the same, and nothing is learned there."""
    split = market(name)
    found = ndcg(of_the_north().transfer(split.test.data), split.test)
    assert found > 2 * ndcg(Popularity().fit(split.train), split.test)
    assert found > 0.9 * recent(split.test, 12.0), "it should read from percentiles what the counts of just the right days tell"
    assert found < 2 * recent(split.test, 12.0), "too good: something leaks"


def test_shuffled_items_leave_standing_popularity_alone():
    """Where nothing moves there is nothing to follow: it can't do better than counts of all that came before."""
    test = market("south").test
    shuffled = Fold(shuffle_items(test.data), test.targets)
    assert ndcg(of_the_north().transfer(shuffled.data), shuffled) < 1.05 * recent(shuffled, np.inf)


def test_stopping_early_keeps_the_best_epoch():
    curve = of_the_north().curve
    assert min(row["valid"] for row in curve) < curve[0]["valid"]


# -- words for people ----------------------------------------------------------------------------------------------------------


def test_no_clock_is_refused():
    data = random_data()
    bare = without_clock(data)
    fold = Fold(bare, np.ones(len(bare), bool))
    for act in (lambda: PrepRec().fit(bare), lambda: PrepRec().fit(data, fold), lambda: RecentPopularity().fit(bare)):
        with pytest.raises(DataError, match=r"trends has no time stamps; take data with a clock"):
            act()


def test_a_validation_fold_without_targets_is_refused():
    data = random_data()
    with pytest.raises(DataError, match="no targets"):
        PrepRec().fit(data, Fold(data, np.zeros(len(data), bool)))


def test_negatives_are_never_taken_by_the_user():
    data = random_data(n_items=60)  # of which nobody takes a third; who takes nearly all of a few gets some of those
    examples = preprec.Examples(data.sequences(), PopularityClock.of(data, PrepRecSettings()), PrepRecSettings(negatives=5))
    rows = RNG.integers(0, len(examples.sequences), 200)
    taken = [set(examples.sequences.take(np.array([r])).items.tolist()) for r in range(len(examples.sequences))]
    drawn = examples._negatives(np.random.default_rng(0), rows)
    assert drawn.shape == (200, 5)
    assert not any(item in taken[row] for row, items in zip(rows, drawn.tolist(), strict=True) for item in items)


def test_a_process_without_a_share_of_a_batch_loses_nothing():
    data, settings = random_data(), PrepRecSettings()
    examples = preprec.Examples(data.sequences(), PopularityClock.of(data, settings), settings)
    batch, asked = examples.batch(np.zeros(0, np.int64), np.random.default_rng(0))
    loss, count = PrepRecNetwork(settings)(batch)
    assert (loss.item(), count, len(asked)) == (0.0, 0, 0)


@pytest.mark.small
def test_real_popularity_moves():
    """Counts of the last three months beat those of all time where times are real, and so they are the baseline to beat."""
    needs("amazon-musical-instruments-2014")
    split = split_leave_one_out(catalogue.load("amazon-musical-instruments-2014"))
    protocol = Protocol(positions="last", history="removed")
    models = RecentPopularity(RecentPopularitySettings(90.0)).fit(split.test.data), Popularity().fit(split.train)
    recent, all_time = (protocol.summary(evaluate(model, split.test, protocol), ("Recall@20",))["Recall@20"] for model in models)
    assert recent > 1.15 * all_time


def test_settings_that_are_words_are_held_to_those_that_there_are():
    for wrong, said in (({"loss": "hinge"}, "loss is 'hinge'; expected one of bce, softmax"), ({"moment": "then"}, "expected one of now, last")):
        with pytest.raises(ValueError, match=said):
            PrepRecSettings(**wrong)
