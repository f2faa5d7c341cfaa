"""Metrics against every order of the ties, scikit-learn and chance."""

import doctest
import itertools
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import hypergeom
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score, top_k_accuracy_score

from zsrbook.evaluation import auc, intervals, metrics, protocol, ranks
from zsrbook.evaluation.metrics import GAINS, TieRule, average, by_user, recall_at, sampled, values
from zsrbook.evaluation.ranks import RankTable

NAMES = ["Recall@1", "Recall@3", "MRR@3", "NDCG@3", "MRR@20", "NDCG@20"]


def table_of(scores, target):
    """Ranks of column ``target`` in each row."""
    own = scores[:, [target]]
    greater, ties = (scores > own).sum(1), (scores == own).sum(1) - 1
    return RankTable.of(greater.tolist(), ties.tolist(), scores.shape[1])


@given(st.lists(st.integers(0, 3), min_size=2, max_size=6), st.sampled_from(NAMES))
@settings(deadline=None)
def test_expected_value_is_the_mean_over_all_tie_orders(scores, name):
    metric, k = metrics.parse(name)
    found = []
    for order in itertools.permutations(range(len(scores))):  # sorted() is stable, so each order breaks the ties its own way
        rank = sorted(order, key=lambda i: -scores[i]).index(0) + 1
        found.append(GAINS[metric](np.array([float(rank)]))[0] if rank <= k else 0.0)
    table = table_of(np.array([scores]), 0)
    assert_allclose(values(table, name)[0], np.mean(found), rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [1, 5, 20, 60])
def test_ndcg_equals_scikit_learn_with_ties(k):
    scores = np.random.default_rng(0).integers(0, 12, (300, 50)).astype(float)
    truth = np.zeros_like(scores)
    truth[:, 7] = 1
    assert_allclose(values(table_of(scores, 7), f"NDCG@{k}").mean(), ndcg_score(truth, scores, k=k, ignore_ties=False), rtol=0, atol=1e-9)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_recall_equals_scikit_learn_without_ties(k):
    scores = np.random.default_rng(1).permuted(np.tile(np.arange(50.0), (200, 1)), axis=1)
    theirs = top_k_accuracy_score(np.full(200, 7), scores, k=k, labels=np.arange(50))
    for rule in get_args(TieRule):
        assert_allclose(recall_at(table_of(scores, 7), k, rule).mean(), theirs, rtol=0, atol=1e-9)


def test_mrr_equals_scikit_learn_which_takes_the_worst_rank_of_a_tie():
    scores = np.random.default_rng(2).integers(0, 12, (300, 50)).astype(float)
    truth = np.zeros_like(scores)
    truth[:, 7] = 1
    theirs = label_ranking_average_precision_score(truth, scores)
    assert_allclose(values(table_of(scores, 7), "MRR@50", "pessimistic").mean(), theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("k", "items"), [(20, 3600), (20, 10_000), (20, 7)])
def test_constant_scorer_gets_chance_level(k, items):
    table = RankTable.of([0], [items - 1], items)
    inside = np.arange(1, min(k, items) + 1)
    assert_allclose(recall_at(table, k), len(inside) / items)
    assert_allclose(values(table, f"MRR@{k}"), (1 / inside).sum() / items)
    assert_allclose(values(table, f"NDCG@{k}"), (1 / np.log2(inside + 1)).sum() / items)
    assert recall_at(table, k, "optimistic")[0] == 1  # the mistake that the default avoids


def test_paper_random_row_is_a_uniform_ranking_of_the_full_catalogue():
    """ZESRec, Table 2, Random: 0.000 / 0.001 / 0.002 on Prime Pantry with 10 thousand items."""
    table = RankTable.of([0], [9_999], 10_000)
    assert [round(float(values(table, n)[0]), 3) for n in ("MRR@20", "NDCG@20", "Recall@20")] == [0.000, 0.001, 0.002]


@given(st.integers(0, 40), st.integers(0, 10), st.sampled_from(NAMES))
@settings(deadline=None)
def test_tie_rules_are_in_order(greater, ties, name):
    table = RankTable.of([greater], [ties], 60)
    low, middle, high = (values(table, name, rule)[0] for rule in ("pessimistic", "expected", "optimistic"))
    assert low <= middle + 1e-12
    assert middle <= high + 1e-12
    assert low <= values(table, name, "median")[0] <= high


def test_median_rank_of_an_odd_number_of_ties_lies_between():
    table = RankTable.of([1], [1], 9)  # rank 2 or 3
    assert values(table, "MRR@5", "median")[0] == pytest.approx(1 / 2.5)


@pytest.mark.parametrize("name", ["Recall@3", "MRR@3", "NDCG@3"])
def test_sampled_equals_all_samples_of_a_small_catalogue(name):
    scores = np.array([[2, 3, 2, 1, 0, 2, 5], [0, 0, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6, 7]])
    for negatives in (1, 3, 6):
        samples = list(itertools.combinations(range(1, 7), negatives))
        brute = np.mean([values(table_of(scores[:, [0, *sample]], 0), name) for sample in samples], axis=0)
        assert_allclose(sampled(table_of(scores, 0), name, negatives), brute, rtol=0, atol=1e-12)


def test_sampled_reads_a_catalogue_size_a_row():
    parts = [RankTable.of([5], [2], 40), RankTable.of([5], [2], 30)]
    both = RankTable(*(np.concatenate([getattr(p, f) for p in parts]) for f in vars(parts[0])))
    assert_allclose(sampled(both, negatives=20), np.concatenate([sampled(p, negatives=20) for p in parts]))
    with pytest.raises(ValueError, match="only 29 other candidates"):
        sampled(both, negatives=30)


def test_averages_agree_with_plain_means():
    rng = np.random.default_rng(0)
    user, found = rng.integers(0, 7, 50), rng.random(50)
    table = RankTable.of([0] * 50, [0] * 50, 9, user=user.tolist())
    means = [found[user == u].mean() for u in np.unique(user)]
    assert_allclose(by_user(table, found)["mean"], means)
    assert average(table, found) == pytest.approx(found.mean())
    assert average(table, found, "macro") == pytest.approx(np.mean(means))


@pytest.mark.parametrize("name", ["Recall", "Recall@", "Recall@0", "Recall@R", "Precision@5", "MRR@-1"])
def test_unknown_names_are_refused(name):
    with pytest.raises(ValueError, match="such as Recall@20"):
        values(RankTable.of([0], [0], 9), name)
    assert not protocol.Protocol().knows(name)


def test_unknown_rules_are_refused():
    table = RankTable.of([0], [0], 9)
    with pytest.raises(ValueError, match="expected one of expected"):
        recall_at(table, 5, "first")
    with pytest.raises(ValueError, match="expected one of micro"):
        average(table, np.ones(1), "both")


@pytest.mark.parametrize("module", [ranks, metrics, auc, intervals, protocol], ids=lambda m: m.__name__)
def test_docstring_examples_run(module):
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


def test_sampling_is_the_hypergeometric_mean_over_all_places_of_the_ties():
    rng = np.random.default_rng(0)
    others = rng.integers(100, 140, 60)  # as where histories are removed: many sizes, some of which leave next to nothing out
    greater = rng.integers(0, others)
    ties = np.minimum(rng.integers(0, 30, 60), others - greater)
    table = RankTable.of(greater, ties, 1)
    table = replace(table, n_candidates=(others + 1).astype(np.int32))
    gain = 1 / np.log2(np.arange(2, 12))
    plain = [
        np.mean([hypergeom.pmf(np.arange(10), size, b, 100) @ gain for b in range(g, g + t + 1)])
        for g, t, size in zip(greater, ties, others, strict=True)
    ]
    assert sampled(table, "NDCG@10", 100) == pytest.approx(np.array(plain), abs=1e-9)
