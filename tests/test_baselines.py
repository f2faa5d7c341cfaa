"""Popularity, chance, and neighbours in the text space."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zsrbook.data.dataset import Columns, DataError, Dataset, Sequences
from zsrbook.models.base import Recommender
from zsrbook.models.baselines import EmbKNN, EmbKNNSettings, NewOnly, Popularity, Random, RecentPopularity, history_vectors, whitened

HISTORIES = [[2, 0, 2], [], [1], [3, 3, 1, 0, 2]]


def dataset(histories=HISTORIES, n_items=4, features=None):
    user = np.repeat(np.arange(len(histories)), [len(h) for h in histories])
    interactions = pd.DataFrame({Columns.USER: user.astype(str), Columns.ITEM: np.concatenate(histories).astype(int).astype(str)})
    items = pd.DataFrame({Columns.RAW: [str(i) for i in range(n_items)], Columns.TEXT: ""})
    data = Dataset.from_raw("tiny", interactions, items, clock=False)
    return data if features is None else data.with_features(features)


def vectors(n=4, width=3, seed=0):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def plain_history_vector(items, history, pooling, decay):
    if not history:
        return torch.zeros(items.shape[1])
    if pooling == "mean":
        return sum(items[i] for i in history) / len(history)
    if pooling == "last":
        return items[history[-1]]
    return sum(decay**age * items[i] for age, i in enumerate(reversed(history)))


def test_popularity_counts():
    scores = Popularity().fit(dataset()).scores(Sequences.of([[], [1, 2]]))
    assert scores.tolist() == [[2, 2, 3, 2]] * 2
    assert Popularity().fit(dataset(n_items=6)).scores(Sequences.of([[]])).tolist() == [[2, 2, 3, 2, 0, 0]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), max_size=8), max_size=6), st.sampled_from(["mean", "last", "decay"]), st.floats(0.1, 1.0))
def test_history_vectors_equal_a_plain_loop(histories, pooling, decay):
    items = vectors()
    found = history_vectors(items, Sequences.of(histories), pooling, decay)
    expected = [plain_history_vector(items, h[:k], pooling, decay) for h in histories for k in range(len(h) + 1)]
    torch.testing.assert_close(found, torch.stack(expected) if expected else torch.zeros(0, 3))


@pytest.mark.parametrize("similarity", ["inner", "cosine"])
def test_embknn_scores_by_inner_product_or_cosine(similarity):
    features = vectors().numpy() * np.array([[1], [5], [0.1], [2]], np.float32)
    used = features / np.linalg.norm(features, axis=1, keepdims=True) if similarity == "cosine" else features
    model = EmbKNN(EmbKNNSettings("mean", similarity)).fit(dataset(features=features))
    np.testing.assert_allclose(model.scores(Sequences.of([[1, 3]])).numpy()[0], used @ used[[1, 3]].mean(0), rtol=1e-5)


def test_embknn_prefers_long_vectors_by_inner_product_and_not_by_cosine():
    """Why the paper's raw inner product is a weak baseline: a long vector is near to everything."""
    features = np.array([[1, 0], [0.9, 0.1], [10, 10]], np.float32)
    data = dataset([[0]], 3, features)
    best = {s: int(EmbKNN(EmbKNNSettings("last", s)).fit(data).scores(Sequences.of([[1]])).argmax()) for s in ("inner", "cosine")}
    assert best == {"inner": 2, "cosine": 1}


def test_embknn_needs_item_vectors():
    with pytest.raises(DataError, match=r"tiny has none; call data\.with_features"):
        EmbKNN().fit(dataset())


def test_embknn_whitens_by_the_catalogue_it_scores():
    source, target = (dataset(features=vectors(seed=s).numpy()) for s in (0, 1))
    settings = EmbKNNSettings(whiten=1.0)
    some = Sequences.of(HISTORIES)
    torch.testing.assert_close(EmbKNN(settings).fit(source).transfer(target).scores(some), EmbKNN(settings).fit(target).scores(some))


def test_whitened_vectors_have_identity_covariance():
    mixing = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    white = whitened(vectors(500, 6) @ mixing + 3)
    torch.testing.assert_close(white.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(white.T @ white / 500, torch.eye(6), atol=1e-4, rtol=0)


def test_whitening_blows_no_axis_up_beyond_the_floor():
    spread = torch.tensor([1.0, 0.3, 1e-4])  # the last axis lies below the floor: variance 1e-8 of the largest
    original = vectors(800, 3) * spread
    white = whitened(original, floor=1e-3)
    variance = torch.linalg.eigvalsh(torch.cov(white.T, correction=0))
    torch.testing.assert_close(variance[1:], torch.ones(2), atol=1e-3, rtol=0)
    largest = torch.linalg.eigvalsh(torch.cov(original.T, correction=0))[-1]
    smallest = torch.linalg.eigvalsh(torch.cov(original.double().T, correction=0))[0]
    assert float(variance[0]) == pytest.approx(float(smallest / (1e-3 * largest)), rel=0.05)


def test_whitening_keeps_distances_up_to_the_covariance():
    """Mahalanobis distances, by an independent way to them."""
    original = vectors(50, 4, seed=3) @ torch.diag(torch.tensor([3.0, 1.0, 0.5, 0.2]))
    white = whitened(original, floor=1e-9)
    difference = (original[0] - original[1]).double()
    expected = difference @ torch.linalg.inv(torch.cov(original.double().T, correction=0)) @ difference
    assert float((white[0] - white[1]).square().sum()) == pytest.approx(float(expected), rel=1e-4)


def test_equal_vectors_whiten_to_zero_not_to_nan():
    assert not whitened(torch.ones(5, 3)).any()
    scores = EmbKNN(EmbKNNSettings(similarity="cosine", whiten=1.0)).fit(dataset(features=np.ones((4, 3)))).scores(Sequences.of([[1]]))
    assert scores.isfinite().all()


def test_random_scores_are_uniform_and_independent():
    rng = np.random.default_rng(0)
    scores = Random().fit(dataset(n_items=300)).scores(Sequences.of([*rng.integers(0, 4, (400, 5)).tolist(), []])).numpy()
    unique = np.unique(scores[:-1], axis=0)
    assert scores.min() >= 0
    assert scores.max() < 1
    counts = np.histogram(unique, bins=20, range=(0, 1))[0]
    expected = unique.size / 20
    assert ((counts - expected) ** 2 / expected).sum() < 43.8, "chi-square of 19 degrees of freedom, 1 in 1,000"
    assert np.abs(np.corrcoef(unique)[np.triu_indices(len(unique), 1)]).mean() < 1.1 * np.sqrt(2 / np.pi / 300)


def test_random_tells_the_order_of_a_history_and_its_users_are_exchangeable():
    model = Random().fit(dataset(n_items=50))
    scores = model.scores(Sequences.of([[1, 2], [2, 1], [1, 2], [1], [1, 1], []]))
    assert torch.equal(scores[0], scores[2])
    assert len(torch.unique(scores, dim=0)) == 5


def test_a_recommender_that_knows_ids_alone_says_so():
    with pytest.raises(DataError, match="Popularity knows items by their ids, so it can't score the items of tiny; fit it there"):
        Popularity().fit(dataset()).transfer(dataset())


def test_prefix_scores_come_in_chunks_that_fit(monkeypatch):
    monkeypatch.setattr("zsrbook.models.base.SCORES_AT_ONCE", 9)
    sequences = Sequences.of(HISTORIES)
    for model in (Popularity().fit(dataset()), Random().fit(dataset())):
        chunks = list(model.prefix_scores(sequences, np.arange(9)))
        assert [len(indices) for indices, _ in chunks] == [2, 2, 2, 2, 1]
        assert torch.equal(torch.cat([s for _, s in chunks]), model.scores(sequences.prefixes(np.arange(9))))


def test_a_model_that_keeps_nothing_can_not_be_saved(tmp_path):
    class Forgetful(Recommender):
        def fit(self, data, valid=None):
            return self

        def scores(self, histories):
            return torch.zeros(len(histories), 1)

    with pytest.raises(NotImplementedError):
        Forgetful().save(tmp_path / "model.safetensors")


def test_new_only_puts_the_history_last_and_changes_nothing_else():
    data = dataset(n_items=6, features=np.random.default_rng(0).normal(size=(6, 3)))
    plain, new = EmbKNN().fit(data), NewOnly(EmbKNN()).fit(data)
    histories = Sequences.of([[1, 4, 1], [], [0]])
    expected = plain.scores(histories).clone()
    for row, history in enumerate([[1, 4], [], [0]]):
        expected[row, history] = -torch.inf
    torch.testing.assert_close(new.scores(histories), expected)
    for at, scores in new.prefix_scores(histories, np.array([1, 2, 3])):
        torch.testing.assert_close(scores, new.scores(histories.prefixes(at)))
    assert torch.isneginf(new.transfer(data).scores(histories)[0, 4])
    assert torch.isneginf(NewOnly(Popularity()).fit(data).scores(histories)[0, 4])  # which has no settings


def test_settings_of_unknown_words_are_refused():
    with pytest.raises(ValueError, match="Emb-KNN settings: similarity is 'Cosine'; expected one of inner, cosine"):
        EmbKNNSettings(similarity="Cosine")
    with pytest.raises(ValueError, match="Emb-KNN settings: history is 'newest'; expected one of mean, last, decay"):
        EmbKNNSettings(history="newest")


@pytest.mark.parametrize("model", [Popularity(), RecentPopularity(), Random(), EmbKNN()], ids=lambda model: type(model).__name__)
def test_a_history_of_another_catalogue_is_refused(model):
    model.fit(replace(dataset(features=vectors().numpy()), clock=True))
    with pytest.raises(DataError, match=f"{type(model).__name__}: histories: item code 4 at place 1; expected 0 to 3"):
        model.scores(Sequences.of([[0, 4]]))
