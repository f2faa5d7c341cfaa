"""The classic recommenders of a binary matrix against a plain reading of their equations, and on a world whose structure is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from zsrbook.data.dataset import DataError
from zsrbook.data.matrix import binary, split_matrix
from zsrbook.data.toy import ToySettings, ToyWorld
from zsrbook.evaluation.matrix import MatrixProtocol, evaluate
from zsrbook.models import collaborative
from zsrbook.models.collaborative import BPRMF, EASE, BPRSettings, EASESettings, ItemKNN, ItemKNNSettings, MostPop, learn_bpr
from zsrbook.models.matrix import not_taken, validation_ndcg

RNG = np.random.default_rng(0)
X = (RNG.random((40, 12)) < 0.3).astype(np.float32)
EVERYONE = np.arange(40)


def toy_split(structure: float = 1.0):
    world = ToyWorld(ToySettings(users=(2500, 20, 20), structure=structure, history=14))
    return split_matrix(binary(world.dataset("grocery")), test=0.2)


@pytest.fixture(scope="module")
def structured():
    return toy_split()


@pytest.fixture(scope="module")
def structureless():
    return toy_split(0.0)


def ndcg(model, split) -> float:
    return MatrixProtocol().summary(evaluate(model, split), ("NDCG@20",))["NDCG@20"]


MODELS = {
    "ItemKNN": ItemKNN,
    "EASE": EASE,
    "BPR-MF": lambda: BPRMF(BPRSettings(learning_rate=0.05, lam=0.08)),
}


@pytest.mark.parametrize("name", MODELS)
def test_structure_is_learned(structured, name):
    popular = ndcg(MostPop().fit(structured.train), structured)
    assert ndcg(MODELS[name]().fit(structured.train, structured.valid), structured) > 1.1 * popular


@pytest.mark.parametrize("name", MODELS)
def test_where_there_is_no_structure_popularity_is_not_beaten(structureless, name):
    popular = ndcg(MostPop().fit(structureless.train), structureless)
    assert ndcg(MODELS[name]().fit(structureless.train, structureless.valid), structureless) < 1.01 * popular


def test_most_pop_counts():
    model = MostPop().fit(csr_array(X))
    assert (model.scores(EVERYONE) == X.sum(0)).all()
    other = (RNG.random((5, 3)) < 0.5).astype(np.float32)
    assert (model.transfer(csr_array(other)).scores(np.array([4])) == other.sum(0)).all()
    assert (model.scores(EVERYONE) == X.sum(0)).all()


@pytest.mark.parametrize("k", [1, 4, 12, 99])
@pytest.mark.parametrize("shrinkage", [0.0, 3.0])
def test_item_knn_is_its_equation(k, shrinkage):
    together = X.T @ X
    likeness = together / (np.sqrt(np.outer(X.sum(0), X.sum(0))) + shrinkage)
    np.fill_diagonal(likeness, 0)
    for j in range(12):  # of those level, the first in the catalogue
        likeness[np.argsort(-likeness[:, j], kind="stable")[k:], j] = 0
    model = ItemKNN(ItemKNNSettings(k, shrinkage)).fit(csr_array(X))
    assert np.allclose(model.weights.toarray(), likeness, atol=1e-6)
    assert np.allclose(model.scores(EVERYONE), X @ likeness, atol=1e-5)


def test_ease_is_ridge_with_a_zero_diagonal():
    """Each column by itself: least squares on all other items."""
    lam = 2.5
    weights = np.zeros((12, 12))
    for j in range(12):
        rest = np.arange(12) != j
        others = X[:, rest].astype(float)
        weights[rest, j] = np.linalg.solve(others.T @ others + lam * np.eye(11), others.T @ X[:, j])
    model = EASE(EASESettings(lam)).fit(csr_array(X))
    assert np.allclose(model.weights, weights, atol=1e-5)
    assert np.allclose(model.scores(EVERYONE), X @ weights, atol=1e-5)
    assert model.scores(EVERYONE).dtype == np.float32


def test_ease_of_more_items_than_a_block():
    many = (RNG.random((300, 150)) < 0.1).astype(np.float32)
    p = np.linalg.inv(many.T.astype(float) @ many + 10 * np.eye(150))
    weights = -p / np.diag(p)
    np.fill_diagonal(weights, 0)
    assert np.allclose(EASE(EASESettings(10.0)).fit(csr_array(many)).weights, weights, atol=1e-4)


def test_a_penalty_lost_in_float32_is_refused():
    """An item that nobody took, and one that ten thousand did: λ is all that there is of the first."""
    with pytest.raises(ValueError, match=r"in float32 λ = 1e-46 is lost beside the counts of 3 items; raise lam"):
        EASE(EASESettings(1e-46)).fit(csr_array(np.hstack([np.ones((9, 2)), np.zeros((9, 1))]).astype(np.float32)))


def test_a_catalogue_too_large_for_ease_is_refused():
    with pytest.raises(DataError, match=r"EASE: 12 items need .* expected at most 11"):
        EASE(EASESettings(largest=11)).fit(csr_array(X))


def test_a_step_of_bpr_climbs_its_gradient():
    p, q = RNG.normal(size=(3, 4)).astype(np.float32), RNG.normal(size=(5, 4)).astype(np.float32)
    lam, rate, (u, i, j) = 0.3, 1e-2, (1, 4, 2)

    def objective(theta):
        users, items = theta[:12].reshape(3, 4), theta[12:].reshape(5, 4)
        touched = (users[u] ** 2).sum() + (items[i] ** 2).sum() + (items[j] ** 2).sum()
        return -np.log1p(np.exp(-users[u] @ (items[i] - items[j]))) - lam / 2 * touched

    theta = np.concatenate([p.ravel(), q.ravel()]).astype(float)
    slope = np.array([(objective(theta + e) - objective(theta - e)) / 2e-6 for e in 1e-6 * np.eye(len(theta))])
    learn_bpr(np.array([u]), np.array([i]), np.array([j]), p, q, rate, lam)
    assert np.allclose(np.concatenate([p.ravel(), q.ravel()]) - theta, rate * slope, atol=1e-6)


def test_a_triple_without_a_zero_is_left_out():
    p, q = np.ones((1, 2), np.float32), np.ones((1, 2), np.float32)
    learn_bpr(np.array([0]), np.array([0]), np.array([-1]), p, q, 0.1, 0.1)
    assert (p == 1).all()
    assert (q == 1).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sets(st.integers(0, 6)), min_size=1, max_size=5), st.integers(0, 99))
def test_zeros_are_drawn_from_what_a_user_lacks(rows, seed):
    dense = np.array([[item in row for item in range(7)] for row in rows], np.float32)
    train = csr_array(dense)
    users = np.repeat(np.arange(len(rows)), 4)
    found = not_taken(train, users, np.random.default_rng(seed))
    full = dense.all(1)[users]
    assert (found[full] == -1).all()
    assert (dense[users[~full], found[~full]] == 0).all()


def test_zeros_are_drawn_evenly():
    train = csr_array(np.array([[1, 0, 0, 1, 0, 1]], np.float32))
    found = not_taken(train, np.zeros(30_000, int), np.random.default_rng(0))
    share = np.bincount(found, minlength=6) / len(found)
    assert share == pytest.approx([0, 1 / 3, 1 / 3, 0, 1 / 3, 0], abs=0.01)


def test_validation_ndcg_agrees_with_the_evaluation(structured):
    model = EASE().fit(structured.train)
    protocol = MatrixProtocol(part="valid")
    expected = protocol.summary(evaluate(model, structured, protocol), ("NDCG@20",))["NDCG@20"]
    assert validation_ndcg(model, structured.valid, most=10_000) == pytest.approx(expected, abs=1e-3)
    assert validation_ndcg(model, structured.valid, most=50) == validation_ndcg(model, structured.valid, most=50)


def test_validation_without_ones_is_refused(structured):
    nothing = csr_array(structured.train.shape, dtype=np.float32)
    with pytest.raises(DataError, match="BPRMF: the validation matrix holds no one"):
        BPRMF().fit(structured.train, nothing)


def test_early_stopping_keeps_the_best(structured):
    model = BPRMF(BPRSettings(width=16, learning_rate=0.05, patience=5)).fit(structured.train, structured.valid)
    assert validation_ndcg(model, structured.valid) == pytest.approx(max(model.curve))
    assert len(model.curve) == np.argmax(model.curve) + 1 + 5


def test_vectors_that_diverge_late_leave_the_best_ones(structured, monkeypatch):
    epochs = iter(range(99))

    def diverging(user, item, other, p, q, rate, lam):
        learn_bpr(user, item, other, p, q, rate, lam)
        if next(epochs) >= 3:
            p.fill(np.nan)

    monkeypatch.setattr(collaborative, "learn_bpr", diverging)
    settings = BPRSettings(width=16, learning_rate=0.05, patience=2)
    model = BPRMF(settings).fit(structured.train, structured.valid)
    assert np.isfinite(model.scores(EVERYONE)).all()
    assert validation_ndcg(model, structured.valid) == max(model.curve) == max(model.curve[:3])
    monkeypatch.setattr(collaborative, "learn_bpr", lambda user, item, other, p, q, rate, lam: p.fill(np.nan))
    with pytest.raises(FloatingPointError, match=r"BPRMF: the vectors are no longer finite; lower learning_rate \(0\.05\)"):
        BPRMF(settings).fit(structured.train, structured.valid)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="neighbours=0"):
        ItemKNNSettings(0)
    with pytest.raises(ValueError, match=r"lam is 0\.0"):
        EASESettings(0.0)


def test_a_validation_matrix_of_other_items_is_refused():
    ones = csr_array(np.eye(3, dtype=np.float32))
    with pytest.raises(DataError, match=r"BPRMF: a validation matrix of shape \(3, 2\); expected \(3, 3\)"):
        BPRMF(BPRSettings(epochs=1)).fit(ones, csr_array(np.eye(3, 2, dtype=np.float32)))
