"""Fits of heavy tails: against a slow reading of the definitions, an independent library, and laws whose truth is known."""

import doctest
import itertools
import os
import warnings
from functools import cache

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse, stats
from scipy.optimize import minimize_scalar
from scipy.special import zeta

from zsrbook.data import catalogue, fetch
from zsrbook.data.dataset import DataError
from zsrbook.data.matrix import binary, taken
from zsrbook.evaluation import heavy_tails
from zsrbook.evaluation.heavy_tails import fit_tail

DEGREES = st.lists(st.integers(0, 50), min_size=2, max_size=60).filter(any)


def drawn(exponent, minimum, n, seed, most=100_000):
    """A sample of the discrete power law by its inverse, cut far out."""
    return minimum + np.searchsorted(-survival(exponent, minimum, most), -np.random.default_rng(seed).random(n), side="right") - 1


@cache
def survival(exponent, minimum, most):
    """(most,) the chance of ``minimum``, ``minimum + 1``, … or more; many samples are drawn from each."""
    return zeta(exponent, np.arange(minimum, minimum + most)) / zeta(exponent, minimum)


@pytest.fixture
def one_law(monkeypatch):
    """The power law alone: the two others take most of the time of a fit, and have tests of their own."""
    for name in ("_against_lognormal", "_against_cutoff"):
        monkeypatch.setattr(heavy_tails, name, lambda *_: heavy_tails.Comparison(np.nan, np.nan))


def slow_fit(degrees, covering=0.0):
    """Every minimum, its exponent by a search, its distance over every integer."""
    best = (np.inf,)
    for minimum in np.unique(degrees)[:-1]:
        tail = np.sort(degrees[degrees >= minimum])
        if len(tail) < covering * len(degrees):
            continue
        cost = lambda s: s * np.log(tail).sum() + len(tail) * np.log(zeta(s, minimum))  # noqa: B023, E731
        exponent = minimize_scalar(cost, bounds=(1.001, 50), method="bounded", options={"xatol": 1e-9}).x
        x = np.arange(minimum, tail[-1] + 1)
        data, fit = np.searchsorted(tail, x, side="right") / len(tail), 1 - zeta(exponent, x + 1) / zeta(exponent, minimum)
        best = min(best, (np.abs(data - fit).max(), minimum, exponent, len(tail)))
    return best


def test_doctests():
    result = doctest.testmod(heavy_tails)
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize("exponent", [1.01, 1.5, 2.5, 6, 20, 99])
@pytest.mark.parametrize("first", [1, 2, 7, 40, 300])
def test_the_sum_is_the_zeta_function(exponent, first):
    ours = heavy_tails._sum_from(float(first), float(exponent), float(first))
    exact = zeta(exponent, first) * float(first) ** exponent
    assert ours == pytest.approx(exact, rel=1e-8)


@pytest.mark.parametrize("covering", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_fit_is_what_the_definitions_say(seed, covering, one_law):
    rng = np.random.default_rng(seed)
    degrees = np.concatenate([rng.integers(1, 12, 80), rng.zipf(2.3, 150) * 3 + 5])  # gaps of three, so both ends of a gap matter
    degrees = degrees[degrees < 3000]
    fit = fit_tail(degrees, covering, draws=0)
    distance, minimum, exponent, tail = slow_fit(degrees, covering)
    assert (fit.minimum, fit.tail, fit.nodes) == (minimum, tail, len(degrees))
    assert fit.distance == pytest.approx(distance, abs=1e-6)
    assert fit.exponent == pytest.approx(exponent, rel=1e-6)
    x = np.array([1, minimum, minimum + 1, 500])
    above = np.where(x >= minimum, zeta(exponent, x) / zeta(exponent, minimum) * tail / len(degrees), np.nan)
    np.testing.assert_allclose(fit.ccdf(x), above, rtol=1e-5)


def test_comparisons_agree_with_an_independent_library():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import powerlaw

        rng = np.random.default_rng(0)
        straight = drawn(2.4, 3, 1500, 0, 3000)
        thinned = straight[rng.random(1500) < np.exp(-straight / 40)]
        for degrees in (np.rint(rng.lognormal(2.5, 1.0, 500)), rng.geometric(0.05, 300), straight, thinned):
            fit = fit_tail(degrees, draws=0, covering=0.6)
            # its own bound on the exponent is 3, which would change the fit in silence
            ranges = {"alpha": [1.001, 50], "mu": [None, None], "sigma": [1e-3, None], "Lambda": [1e-12, None]}
            theirs = powerlaw.Fit(degrees, xmin=fit.minimum, parameter_ranges=ranges, discrete=True, estimate_discrete=False, verbose=False)
            assert fit.exponent == pytest.approx(theirs.power_law.alpha, rel=1e-3)
            assert fit.tail == theirs.n_tail
            if degrees is not straight:  # where the log-normal has next to no bend, its error functions underflow; see the next test
                ratio, p = theirs.distribution_compare("power_law", "lognormal")
                assert fit.lognormal.ratio == pytest.approx(ratio, rel=1e-3, abs=0.02)
                assert fit.lognormal.p == pytest.approx(max(p, stats.chi2.sf(2 * abs(ratio), 1)), rel=0.02, abs=0.002)
            ratio, p = theirs.distribution_compare("power_law", "truncated_power_law", nested=True)
            if theirs.truncated_power_law.alpha > 1.1:  # else its bound holds it back
                assert fit.cutoff.ratio == pytest.approx(min(ratio, 0), rel=1e-3, abs=0.02)
                assert fit.cutoff.p == pytest.approx(p, rel=0.05, abs=0.002)
            else:
                assert fit.cutoff.ratio < ratio + 0.02


@pytest.mark.parametrize(("b", "c"), [(1.4, 1e-6), (1.4, 1e-3), (0.5, 0.3), (-3.0, 0.5), (-8.0, 2.0)])
def test_the_log_normal_keeps_its_digits(b, c):
    """Against 60 digits, from a bell whose peak lies among the degrees to one that is a power law."""
    values = np.array([5.0, 6, 7, 20, 100, 3000])
    with mpmath.workdps(60):
        sigma, t = 1 / mpmath.sqrt(c), lambda x: mpmath.log(mpmath.mpf(x) / 4.5)
        above = lambda x: mpmath.erfc((t(x) + mpmath.mpf(b) / c) / sigma / mpmath.sqrt(2))  # noqa: E731
        exact = [float(mpmath.log((above(v - 0.5) - above(v + 0.5)) / above(4.5))) for v in values]
    np.testing.assert_allclose(heavy_tails._log_lognormal(values, b, c), exact, rtol=1e-6)


@pytest.mark.parametrize(("exponent", "minimum"), [(1.8, 1), (2.5, 1), (3.5, 5)])
def test_the_exponent_is_found_within_its_error(exponent, minimum, one_law):
    fits = [fit_tail(drawn(exponent, minimum, 1500, seed), draws=0) for seed in range(40)]
    off = np.array([(f.exponent - exponent) / f.exponent_error for f in fits])
    # a minimum that is chosen takes in some noise, so the error, of one that is given, is a little small
    assert 0.7 < off.std() < 1.5
    assert abs(off.mean()) < 0.6
    assert np.abs(off).max() < 4.5


def test_p_is_even_where_the_power_law_is_true(one_law):
    p = [fit_tail(drawn(2.5, 1, 300, seed), draws=60, seed=seed).p for seed in range(80)]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert min(p) >= 1 / 61


def test_p_is_even_too_with_a_body_that_is_no_power_law(one_law):
    rejected = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        degrees = np.concatenate([rng.integers(1, 10, 240), drawn(2.5, 10, 360, seed)])
        fit = fit_tail(degrees, draws=60, seed=seed)
        rejected += fit.p < 0.1
        assert fit.minimum >= 8
    assert rejected <= 14  # 6 expected; 14 or fewer with probability 0.999


def test_a_power_law_with_a_bend_is_told_from_one_without():
    bent = np.rint(np.random.default_rng(0).lognormal(2.0, 1.0, 5000))
    fit = fit_tail(bent, covering=0.5, draws=100)
    assert fit.p < 0.02
    assert fit.lognormal.ratio < -20
    assert fit.lognormal.p < 1e-4
    assert fit.cutoff.p < 1e-4
    straight = fit_tail(drawn(2.5, 5, 5000, 1), covering=0.5, draws=100)
    assert straight.p > 0.1
    assert straight.lognormal.ratio > -3
    assert straight.lognormal.p > 0.05
    assert straight.cutoff.p > 0.05
    assert straight.cutoff.ratio <= 0


def test_draws_have_the_shares_of_the_fit():
    """Body, table and the far tail: where there are few, within five standard errors."""
    exponent, minimum, nodes = 1.4, 10.0, 200_000
    above = heavy_tails._survival(minimum + np.arange(heavy_tails.TABLE + 1), exponent, minimum)
    values, counts = heavy_tails._draw(np.array([1.0, 4.0]), np.array([0.25, 0.75]), minimum, exponent, above, nodes, 0.6, np.random.default_rng(0))
    assert counts.sum() == nodes
    assert (np.diff(values) > 0).all()
    edges = np.array([1, 2, 5, 10, 11, 30, 1000, 1034, 3000, 10**5, 10**7, np.inf])
    upper = zeta(exponent, np.maximum(edges[:-1], 10)) / zeta(exponent, 10) * 0.6
    expected = np.append(-np.diff(upper), upper[-1])
    expected[:3] = 0.1, 0.3, 0.0
    seen = np.array([counts[(values >= a) & (values < b)].sum() for a, b in itertools.pairwise(edges)])
    assert (np.abs(seen - nodes * expected) <= 5 * np.sqrt(nodes * expected * (1 - expected))).all()


def test_the_seed_repeats_and_p_knows_its_error():
    degrees = drawn(2.2, 2, 400, 0)
    fit = fit_tail(degrees, draws=50, seed=3)
    assert fit == fit_tail(degrees, draws=50, seed=3)
    assert fit == fit_tail(np.append(degrees[::-1], np.zeros(7, int)), draws=50, seed=3)
    assert fit.p * 51 == pytest.approx(round(fit.p * 51))
    assert fit.p_error == pytest.approx(np.sqrt(fit.p * (1 - fit.p) / 50))
    assert np.isnan(fit_tail(degrees, draws=0).p)


@pytest.mark.parametrize(
    ("degrees", "message"),
    [
        ([5, 5, 6, 0, 7], "take 3 different values; expected 5 or more to fit a tail"),
        ([], "take 0 different values|expected one whole number a node"),
        ([0, 0], "take 0 different values"),
        ([1, 2, -3, 4, 5, 6], r"node 2 has degree -3; expected a whole number, 0 or more \(1 such of 6\)"),
        ([1, 2.5, 3, 4, 5, 6], r"node 1 has degree 2\.5"),
        ([1, np.nan, 3, 4, 5, np.inf], r"node 1 has degree nan; .* \(2 such of 6\)"),
        (["1", "2"], "expected one whole number a node"),
        (np.ones((2, 2)), r"degrees are \(2, 2\) of float64"),
    ],
)
def test_bad_degrees(degrees, message):
    with pytest.raises(DataError, match=message):
        fit_tail(np.array(degrees), draws=0)


def test_bad_share():
    with pytest.raises(DataError, match=r"covering is 1\.5; expected a share of the nodes, 0 to 1"):
        fit_tail(np.arange(1, 20), covering=1.5)


@given(DEGREES)
def test_inequality_and_shares_are_what_they_say(degrees):
    degrees = np.array(degrees)
    n = len(degrees)
    pairs = np.abs(degrees[:, None] - degrees[None]).sum() / (2 * n * degrees.sum())  # half the relative mean difference
    assert heavy_tails.gini(degrees) == pytest.approx(pairs, abs=1e-12)
    assert heavy_tails.top_share(degrees, 1.0) == pytest.approx(1)
    assert heavy_tails.top_share(degrees, 0.0) == pytest.approx(degrees.max() / degrees.sum())
    values, above = heavy_tails.ccdf(degrees)
    positive = degrees[degrees > 0]
    assert values.tolist() == sorted(set(positive.tolist()))
    np.testing.assert_allclose(above, [(positive >= v).mean() for v in values])


def test_a_data_set_in_one_row():
    rng = np.random.default_rng(0)
    rows, columns = drawn(2.0, 1, 4000, 1, 300) - 1, rng.integers(0, 50, 4000) ** 2 // 50
    matrix = sparse.coo_array((np.ones(4000), (rows, columns)), shape=(310, 60)).tocsr()  # entries given twice are summed
    matrix.data[matrix.data > 5] = 0  # and zeros written out
    taken = matrix.toarray() > 0
    row = heavy_tails.describe(matrix, draws=20)
    users, items = taken.sum(1), taken.sum(0)
    users, items = users[users > 0], items[items > 0]
    assert (row["users"], row["items"], row["interactions"]) == (len(users), len(items), taken.sum())
    assert row["density"] == pytest.approx(taken.sum() / (len(users) * len(items)))
    for side, degrees in (("user", users), ("item", items)):
        fit = fit_tail(degrees, draws=20)
        assert row[f"{side} gini"] == heavy_tails.gini(degrees)
        assert row[f"{side} least"] == degrees.min()
        assert row[f"{side} at least degree"] == (degrees == degrees.min()).mean()
        assert (row[f"{side} exponent"], row[f"{side} minimum"], row[f"{side} p"]) == (fit.exponent, fit.minimum, fit.p)
        assert row[f"{side} tail"] == fit.tail / fit.nodes
    assert heavy_tails.describe(taken, draws=20) == row
    assert list(heavy_tails.describe(taken.T, draws=0, covering=1.0)) == list(row)


def test_a_data_set_that_can_t_be_described():
    with pytest.raises(DataError, match="matrix of 3 users and 4 items has no entry"):
        heavy_tails.describe(sparse.csr_array((3, 4)))
    with pytest.raises(DataError, match="users: the degrees take 1 different values"):
        heavy_tails.describe(np.ones((3, 4)))
    with pytest.raises(DataError, match="items: the degrees take 1 different values"):
        heavy_tails.describe(np.repeat(np.eye(9), np.arange(1, 10), axis=1), draws=0)


@pytest.mark.small
@pytest.mark.skipif(not os.environ.get("ZSRBOOK_DATA"), reason="ZSRBOOK_DATA is not set: the folder of real public data")
@pytest.mark.parametrize(
    ("name", "size", "user", "item"),
    [
        ("epinions", (20_355, 30_738, 532_837), (2.592, 42), (2.148, 5)),
        ("sports", (35_598, 18_357, 296_337), (4.081, 26), (3.217, 77)),
        ("flixster", (1_281, 2_019, 21_228), (4.593, 43), (4.202, 15)),
    ],
)
def test_real_tails_after_five_core(name, size, user, item):
    if missing := fetch.source_of(name).missing():
        pytest.skip(f"{missing[0].path} is not in {fetch.source_of(name).where}; get it with `python -m zsrbook data get {name}`")
    row = heavy_tails.describe(taken(binary(catalogue.load(name))), draws=0)
    assert (row["users"], row["items"], row["interactions"]) == size
    assert (row["user exponent"], row["user minimum"]) == (pytest.approx(user[0], abs=5e-4), user[1])
    assert (row["item exponent"], row["item minimum"]) == (pytest.approx(item[0], abs=5e-4), item[1])
    assert row["user least"] == row["item least"] == 5
