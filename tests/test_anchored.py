"""Anchored neighbours: the contract of all recommenders, a plain reading of the formula, and what it is before training."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from contract import RecommenderContract, ndcg, world
from hypothesis import given, settings
from hypothesis import strategies as st

from zsrbook.data.dataset import Columns, DataError, Dataset, Sequences
from zsrbook.models.anchored import Anchored, AnchoredSettings, seen_before
from zsrbook.models.baselines import EmbKNN, EmbKNNSettings, history_vectors, whitened
from zsrbook.training import Training


def places(vectors: torch.Tensor, power: float) -> torch.Tensor:
    """What the model makes of text vectors before it learns anything."""
    return torch.nn.functional.normalize(whitened(vectors, power), dim=1)


QUICK = Training(epochs=3, optimizer="adam", learning_rate=0.03, patience=None, device="cpu")
N_ITEMS, WIDTH = 9, 5


def anchored(seed: int, device: str, **changes) -> Anchored:
    return Anchored(AnchoredSettings(batch_targets=256, training=replace(QUICK, seed=seed, device=device), **changes))


class TestAnchored(RecommenderContract):
    variants: ClassVar = {
        "full softmax": lambda seed, device: anchored(seed, device),
        "sampled softmax": lambda seed, device: anchored(seed, device, candidates=40),
        "anchors alone": lambda seed, device: anchored(seed, device, rank=0),
    }
    margin = 1.5
    reads_features = True


def dataset(histories: list[list[int]], seed: int = 0) -> Dataset:
    user = np.repeat(np.arange(len(histories)), [len(h) for h in histories])
    item = np.concatenate(histories)
    frame = pd.DataFrame({Columns.USER: user.astype(str), Columns.ITEM: item.astype(str), Columns.TIME: np.arange(len(item), dtype=float)})
    items = pd.DataFrame({Columns.RAW: [str(i) for i in range(N_ITEMS)], Columns.TEXT: ""})
    return Dataset.from_raw("tiny", frame, items).with_features(np.random.default_rng(seed).normal(size=(N_ITEMS, WIDTH)))


def untrained(data: Dataset, repeat: float = 0.5, **changes) -> Anchored:
    model = Anchored(AnchoredSettings(**changes))
    model.bind(data)
    model.repeat = repeat
    return model


TINY = dataset([[0, 1, 2, 3], [4, 5, 4], [6, 7, 8, 0, 1]])


def plain_chances(model: Anchored, history: list[int]) -> np.ndarray:
    """(I,) p by the formulas of the module, one item and one anchor at a time."""
    network, x = model.network, model.network.vectors.numpy().astype(np.float64)
    x = x + x @ network.down.detach().numpy() @ network.up.detach().numpy()
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    beta, tau, floor = (float(p.detach().double().exp()) for p in (network.log_sharpness, network.log_temperature, network.floor))
    recency = network.recency.detach().double().numpy()
    newest = history[::-1][: len(recency)]
    weights = np.exp(recency[: len(newest)])
    weights = weights / weights.sum() if len(newest) else weights
    s = np.array(
        [tau / beta * np.log(floor + sum(w * np.exp(beta * x[t] @ x[j]) for w, t in zip(weights, newest, strict=True))) for j in range(len(x))]
    )
    p = np.zeros(len(x))
    for coin, group in ((model.repeat, sorted(set(history))), (1 - model.repeat, sorted(set(range(len(x))) - set(history)))):
        if group:
            p[group] = coin * np.exp(s[group]) / np.exp(s[group]).sum()
    return p


@given(st.lists(st.integers(0, N_ITEMS - 1), max_size=9), st.floats(0.01, 0.99), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_scores_are_the_logarithms_of_the_written_chances(history, repeat, seed):
    model = untrained(TINY, repeat, anchors=4, rank=2)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter += torch.randn(parameter.shape, generator=noise) * 0.5
    expected = plain_chances(model, history)
    if 0 < len(set(history)) < N_ITEMS:
        assert expected.sum() == pytest.approx(1)
    np.testing.assert_allclose(model.scores(Sequences.of([history]))[0].exp().numpy(), expected, rtol=2e-3, atol=1e-6)


@given(st.integers(0, N_ITEMS - 1), st.integers(0, 20))
@settings(max_examples=25, deadline=None)
def test_before_training_it_is_the_neighbour_of_the_last_item(item, seed):
    """History of one item, nothing whitened: the order of the unseen items is that of Emb-KNN by cosine of centred vectors."""
    data = dataset([[0, 1], [2, 3]], seed)
    centred = data.with_features(data.features - data.features.mean(0))
    neighbour = EmbKNN(EmbKNNSettings("last", "cosine")).fit(centred)
    history = Sequences.of([[item]])
    unseen = np.delete(np.arange(N_ITEMS), item)
    ours, theirs = (m.scores(history)[0, unseen].argsort(descending=True) for m in (untrained(data, whitening=0.0), neighbour))
    assert torch.equal(ours, theirs)


def test_a_sharpness_near_zero_is_the_neighbour_of_the_weighted_mean():
    data = dataset([[0, 1], [2, 3]])
    model = untrained(data, anchors=5, sharpness=1e-2, decay=0.7, whitening=1.0)
    with torch.no_grad():
        model.network.floor.fill_(-30.0)
    x, history = places(torch.as_tensor(data.features), 1.0), Sequences.of([[3, 0, 8, 5]])
    pooled = history_vectors(x, history, "decay", 0.7)[-1] @ x.T
    unseen = [1, 2, 4, 6, 7]
    assert torch.equal(model.scores(history)[0, unseen].argsort(), pooled[unseen].argsort())


def test_a_large_sharpness_takes_the_nearest_anchor_where_the_mean_would_not():
    x = np.array([[1.0, 0.0], [-1.0, 0.1], [0.96, -0.28], [0.05, 1.0], [-0.7, -0.82]])
    data = replace(TINY, items=TINY.items[:5], interactions=TINY.interactions.query("item < 5")).with_features(x)
    model = untrained(data, sharpness=20.0, temperature=20.0, decay=1.0, whitening=0.0)
    vectors = model.network.vectors
    cosine = vectors[[0, 1]] @ vectors[2:].T
    assert int(model.scores(Sequences.of([[0, 1]]))[0, 2:].argmax()) == int(cosine.amax(0).argmax())


def test_learning_moves_all_its_numbers_towards_the_truth():
    """A world in which the next item is always the neighbour of the one before the last: recency must find that out."""
    rng = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    steps = rng.integers(0, 60, size=(300, 8))
    for k in range(2, 8):
        steps[:, k] = (steps[:, k - 2] + rng.choice([-1, 1], 300)) % 60
    frame = pd.DataFrame(
        {Columns.USER: np.repeat(np.arange(300), 8).astype(str), Columns.ITEM: steps.ravel().astype(str), Columns.TIME: np.arange(2400.0)}
    )
    items = pd.DataFrame({Columns.RAW: [str(i) for i in range(60)], Columns.TEXT: ""})
    data = Dataset.from_raw("ring", frame, items).with_features(np.stack([np.cos(angles), np.sin(angles)], 1))
    model = Anchored(AnchoredSettings(anchors=4, batch_targets=128, training=replace(QUICK, epochs=12, learning_rate=0.1))).fit(data)
    recency = model.network.recency.detach()
    assert int(recency.argmax()) == 1
    assert model.curve[-1]["train"] < model.curve[0]["train"] - 0.3


def test_the_coin_is_the_share_of_repeats_in_the_source():
    data = dataset([[0, 0, 1, 0], [2, 3]])
    model = Anchored(AnchoredSettings(training=QUICK)).fit(data)
    assert model.repeat == pytest.approx((2 + 0.5) / (4 + 1))
    without = Anchored(AnchoredSettings(training=QUICK)).fit(dataset([[0, 1, 2], [3, 4, 5]]))
    chances = without.scores(Sequences.of([[7, 8]]))[0].exp()
    assert float(chances[[7, 8]].sum()) == pytest.approx(0.5 / 5)
    assert float(chances.sum()) == pytest.approx(1)


@given(st.lists(st.lists(st.integers(0, 4), max_size=8), max_size=8))
@settings(max_examples=40, deadline=None)
def test_seen_before_is_what_a_loop_finds(histories):
    assert seen_before(Sequences.of(histories)).tolist() == [item in history[:i] for history in histories for i, item in enumerate(history)]


def test_whitening_goes_from_centred_to_equal_variances():
    x = torch.as_tensor(np.random.default_rng(0).normal(size=(500, 4)) * [4, 2, 1, 0.5] + 3, dtype=torch.float32)
    centred = torch.nn.functional.normalize(x - x.mean(0), dim=1)
    torch.testing.assert_close(places(x, 0.0) @ places(x, 0.0).T, centred @ centred.T, rtol=0, atol=1e-5)
    spread = places(x, 1.0).std(0)
    assert spread.max() < 1.2 * spread.min()


def test_without_steps_to_learn_from_it_says_so():
    with pytest.raises(DataError, match="tiny: no user takes a second item"):
        Anchored().fit(dataset([[0], [1, 1]]))


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="anchored on tiny: 2 processes were started"):
        Anchored(AnchoredSettings(training=QUICK)).fit(TINY)


def test_a_killed_run_goes_on_to_the_very_same_end(tmp_path, monkeypatch):
    data, settings = dataset([[0, 1, 2, 3], [2, 1, 4], [3, 0, 4, 1]]), AnchoredSettings(training=Training(epochs=3, patience=None, device="cpu"))
    whole = Anchored(settings).fit(data)
    resumed, calls = Anchored(settings, checkpoint=tmp_path / "run.pt"), iter([None, None])

    def until_killed(self, *given):
        next(calls)
        return positions(self, *given)

    positions = Anchored.positions
    with monkeypatch.context() as patch:
        patch.setattr(Anchored, "positions", until_killed)
        with pytest.raises(RuntimeError, match="StopIteration"):
            resumed.fit(data)
    assert len(torch.load(tmp_path / "run.pt", weights_only=True)["curve"]) == 2
    again = Anchored(settings, checkpoint=tmp_path / "run.pt").fit(data)
    assert [row["train"] for row in again.curve] == [row["train"] for row in whole.curve]
    assert all(torch.equal(value, whole.state()[name]) for name, value in again.state().items())


def test_it_beats_the_neighbour_that_it_starts_from():
    target = world().target
    before = untrained(target)
    after = anchored(0, "cpu").fit(world().source).transfer(target)
    assert ndcg(after) > ndcg(before)
    assert ndcg(after) > 1.05 * ndcg(EmbKNN(EmbKNNSettings("decay", "cosine", whiten=1.0)).fit(target))


def test_other_vectors_than_it_was_fitted_on_are_refused():
    model = Anchored(AnchoredSettings(training=QUICK)).fit(TINY)
    wider = TINY.with_features(np.ones((N_ITEMS, WIDTH + 1)))
    with pytest.raises(DataError, match="width 6, but Anchored was fitted on 5"):
        model.transfer(wider)


def test_places_keep_the_axes_of_the_encoder():
    """Whitening turns back to the axes it came from: else what is learned about directions would mean nothing elsewhere."""
    x = torch.as_tensor(np.random.default_rng(0).normal(size=(400, 3)) * [3, 2, 1], dtype=torch.float32)
    turned = places(x, 0.5)
    cosines = torch.nn.functional.cosine_similarity(turned, torch.nn.functional.normalize(x - x.mean(0), dim=1))
    assert cosines.min() > 0.8


def test_a_coin_that_is_given_is_kept():
    assert Anchored(AnchoredSettings(repeat=0.2, training=QUICK)).fit(dataset([[0, 0, 1, 0], [2, 3]])).transfer(TINY).repeat == 0.2


def test_told_of_other_habits_it_changes_the_coin_and_nothing_else():
    taught = Anchored(AnchoredSettings(training=QUICK)).fit(dataset([[0, 1, 2], [3, 4, 5]])).transfer(TINY)
    told, asked = taught.told(Sequences.of([[0, 0, 1, 0], [2, 3], [4], []])), Sequences.of([[7, 8]])
    assert told.repeat == told.settings.repeat == pytest.approx((2 + 0.5) / (4 + 1))
    assert (taught.repeat, taught.settings.repeat) == (pytest.approx(0.5 / 5), None)
    before, after = (m.scores(asked)[0].log_softmax(0) for m in (taught, told))
    for part in ([7, 8], list(range(7))):
        torch.testing.assert_close(after[part] - after[part].logsumexp(0), before[part] - before[part].logsumexp(0))
    assert float(after[[7, 8]].exp().sum()) == pytest.approx(told.repeat)


@pytest.mark.filterwarnings("error")
def test_repeats_may_never_come_or_always():
    for repeat, never in ((0.0, [0, 1]), (1.0, list(range(2, N_ITEMS)))):
        scores = untrained(TINY, repeat).scores(Sequences.of([[0, 1]]))[0]
        assert torch.isneginf(scores).nonzero().flatten().tolist() == never
    with pytest.raises(ValueError, match=r"repeat is 1\.5; expected a share from 0 to 1, or None"):
        AnchoredSettings(repeat=1.5)
