"""Fits of heavy tails: against a slow reading of the definitions, an independent library, and laws whose truth is known."""

import doctest
import itertools
import warnings
from functools import cache

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from public import needs
from scipy import stats
from scipy.optimize import minimize_scalar
from scipy.special import zeta

from zsrbook.data import catalogue
from zsrbook.data.dataset import DataError
from zsrbook.data.matrix import binary, taken
from zsrbook.evaluation import heavy_tails
from zsrbook.evaluation.heavy_tails import fit_tail
from zsrbook.models.matrix import degrees

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
    """The power law alone: the others take most of the time of a fit, and have tests of their own."""
    for name in ("_against_lognormal", "_against_exponential", "_against_cutoff"):
        monkeypatch.setattr(heavy_tails, name, lambda *_: heavy_tails.Comparison(np.nan, np.nan))


def slow_fit(degrees):
    """Every minimum, its exponent by a search, its distance over every integer."""
    best = (np.inf,)
    for minimum in np.unique(degrees)[:-1]:
        tail = np.sort(degrees[degrees >= minimum])
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


@pytest.mark.parametrize("seed", range(4))
def test_a_fit_is_what_the_definitions_say(seed, one_law):
    rng = np.random.default_rng(seed)
    degrees = np.concatenate([rng.integers(1, 12, 80), rng.zipf(2.3, 150) * 3 + 5])  # gaps of three, so both ends of a gap matter
    degrees = degrees[degrees < 3000]
    fit = fit_tail(degrees, draws=0)
    distance, minimum, exponent, tail = slow_fit(degrees)
    assert (fit.minimum, fit.tail, fit.nodes) == (minimum, tail, len(degrees))
    assert fit.distance == pytest.approx(distance, abs=1e-6)
    assert fit.exponent == pytest.approx(exponent, rel=1e-6)
    x = np.array([1, minimum, minimum + 1, 500])
    above = np.where(x >= minimum, zeta(exponent, x) / zeta(exponent, minimum) * tail / len(degrees), np.nan)
    np.testing.assert_allclose(heavy_tails.power_law_ccdf(x, fit.exponent, fit.minimum, fit.tail / fit.nodes), above, rtol=1e-5)


def test_comparisons_agree_with_an_independent_library():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import powerlaw

        rng = np.random.default_rng(0)
        straight = drawn(2.4, 3, 1500, 0, 3000)
        thinned = straight[rng.random(1500) < np.exp(-straight / 40)]
        for degrees in (np.rint(rng.lognormal(2.5, 1.0, 500)), rng.geometric(0.05, 300), straight, thinned):
            minimum = np.quantile(degrees[degrees > 0], 0.3)
            values, counts = np.unique(degrees[degrees >= minimum], return_counts=True)
            values, counts = values.astype(float), counts.astype(float)
            exponent = heavy_tails._likeliest(counts @ np.log(values / values[0]) / counts.sum(), values[0])
            # its own bound on the exponent is 3, which would change the fit in silence
            ranges = {"alpha": [1.001, 50], "mu": [None, None], "sigma": [1e-3, None], "Lambda": [1e-12, None]}
            theirs = powerlaw.Fit(degrees, xmin=values[0], parameter_ranges=ranges, discrete=True, estimate_discrete=False, verbose=False)
            assert exponent == pytest.approx(theirs.power_law.alpha, rel=1e-3)
            lognormal, exponential, cutoff = (
                getattr(heavy_tails, f"_against_{law}")(values, counts, exponent) for law in ("lognormal", "exponential", "cutoff")
            )
            if degrees is not straight:  # where the log-normal has next to no bend, its error functions underflow; see the next test
                ratio, p = theirs.distribution_compare("power_law", "lognormal")
                assert lognormal.ratio == pytest.approx(ratio, rel=1e-3, abs=0.02)
                assert lognormal.p == pytest.approx(max(p, stats.chi2.sf(2 * abs(ratio), 1)), rel=0.02, abs=0.002)
            ratio, p = theirs.distribution_compare("power_law", "exponential")
            assert exponential.ratio == pytest.approx(ratio, rel=1e-3, abs=0.02)
            assert exponential.p == pytest.approx(p, rel=0.02, abs=0.002)
            ratio, p = theirs.distribution_compare("power_law", "truncated_power_law", nested=True)
            if theirs.truncated_power_law.alpha > 1.1:  # else its bound holds it back
                assert cutoff.ratio == pytest.approx(min(ratio, 0), rel=1e-3, abs=0.02)
                assert cutoff.p == pytest.approx(p, rel=0.05, abs=0.002)
            else:
                assert cutoff.ratio < ratio + 0.02


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


def test_what_is_no_power_law_is_ruled_out():
    rng = np.random.default_rng(0)
    fit = fit_tail(rng.integers(1, 13, 5000), draws=100)
    assert fit.p < 0.02
    assert fit.lognormal.ratio < -20
    assert max(fit.lognormal.p, fit.exponential.p, fit.cutoff.p) < 1e-4
    straight = fit_tail(drawn(2.5, 5, 5000, 1), draws=100)
    assert straight.p > 0.1
    assert straight.lognormal.ratio > -3
    assert straight.lognormal.p > 0.05
    assert straight.cutoff.p > 0.05
    assert straight.cutoff.ratio <= 0


def test_a_heavy_tail_is_told_from_an_exponential():
    """Either law is likelier where it is the true one."""
    heavy = fit_tail(drawn(2.5, 5, 2000, 0), draws=0).exponential
    assert heavy.ratio > 0
    assert heavy.p < 1e-3
    light = np.random.default_rng(0).geometric(0.05, 2000).astype(float)
    values, counts = np.unique(light, return_counts=True)
    exponent = heavy_tails._likeliest(counts @ np.log(values) / counts.sum(), 1.0)
    other = heavy_tails._against_exponential(values, counts.astype(float), exponent)
    assert other.ratio < 0
    assert other.p < 1e-3


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


@given(DEGREES)
def test_inequality_and_shares_are_what_they_say(degrees):
    degrees = np.array(degrees)
    n = len(degrees)
    pairs = np.abs(degrees[:, None] - degrees[None]).sum() / (2 * n * degrees.sum())  # half the relative mean difference
    assert heavy_tails.gini(degrees) == pytest.approx(pairs, abs=1e-12)
    values, above = heavy_tails.ccdf(degrees)
    positive = degrees[degrees > 0]
    assert values.tolist() == sorted(set(positive.tolist()))
    np.testing.assert_allclose(above, [(positive >= v).mean() for v in values])


@pytest.mark.small
@pytest.mark.parametrize(
    ("name", "nodes", "user", "item"),
    [
        ("epinions", (20_355, 30_738), (2.592, 42), (2.148, 5)),
        ("sports", (35_598, 18_357), (4.081, 26), (3.217, 77)),
        ("flixster", (1_281, 2_019), (4.593, 43), (4.202, 15)),
    ],
)
def test_real_tails_after_five_core(name, nodes, user, item):
    needs(name)
    fits = [fit_tail(ones, draws=0) for ones in degrees(taken(binary(catalogue.load(name))))]
    assert tuple(fit.nodes for fit in fits) == nodes
    assert [(fit.exponent, fit.minimum) for fit in fits] == [(pytest.approx(exponent, abs=5e-4), minimum) for exponent, minimum in (user, item)]
