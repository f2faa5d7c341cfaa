"""AUC and GAUC against scikit-learn, user by user."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from zsrbook.evaluation.auc import auc, gauc


@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=30).filter(lambda rows: len({label for label, _ in rows}) == 2))
@settings(deadline=None)
def test_auc_equals_scikit_learn_with_ties(rows):
    labels, scores = map(np.array, zip(*rows, strict=True))
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)


def test_gauc_equals_scikit_learn_user_by_user():
    rng = np.random.default_rng(0)
    users, labels = rng.integers(0, 200, 2000), rng.random(2000) < 0.15
    scores = np.round(rng.normal(size=2000) + labels, 1)  # rounded, so that there are ties
    theirs, weights = [], []
    for user in np.unique(users):
        rows = users == user
        if 0 < labels[rows].sum() < rows.sum():
            theirs.append(roc_auc_score(labels[rows], scores[rows]))
            weights.append(rows.sum())
    found = gauc(labels, scores, users)
    assert found.value == pytest.approx(np.average(theirs, weights=weights), abs=1e-9)
    assert found.by_user["mean"].to_numpy() == pytest.approx(np.array(theirs), abs=1e-9)
    assert found.by_user["count"].tolist() == weights
    assert found.skipped == len(np.unique(users)) - len(theirs) > 0


def test_constant_score_is_chance():
    labels = np.array([1, 0, 0, 1, 0])
    assert auc(labels, np.zeros(5)) == 0.5
    assert gauc(labels, np.ones(5), np.array([1, 1, 1, 2, 2])).value == 0.5


def test_order_of_rows_does_not_matter():
    rng = np.random.default_rng(1)
    users, labels, scores = rng.integers(0, 20, 300), rng.integers(0, 2, 300), rng.integers(0, 9, 300)
    order = rng.permutation(300)
    assert gauc(labels, scores, users).value == pytest.approx(gauc(labels[order], scores[order], users[order]).value)


def test_errors_name_the_row():
    with pytest.raises(ValueError, match="row 1: the score is nan"):
        auc(np.array([1, 0]), np.array([0.1, np.nan]))
    with pytest.raises(ValueError, match="row 0: the label is 2"):
        auc(np.array([2, 0]), np.array([0.1, 0.2]))
    with pytest.raises(ValueError, match="both classes"):
        auc(np.array([1, 1]), np.array([0.1, 0.2]))
    with pytest.raises(ValueError, match="none of the 2 users"):
        gauc(np.array([1, 0]), np.array([0.1, 0.2]), np.array([0, 1]))
    with pytest.raises(ValueError, match="none of the 1 users"):
        gauc(np.array([1, 1]), np.array([0.1, 0.2]), np.array([0, 0]))
