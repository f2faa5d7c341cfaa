r"""How heavy are the tails of a data set's marginals? Degrees of users and items of the binary matrix, after Clauset, Shalizi and
Newman (SIAM Review, 2009), in whose terms a degree $x$ follows a discrete power law from $x_\min$ on if

$$p(x) = x^{-\alpha} / \zeta(\alpha, x_\min), \qquad x = x_\min, x_\min + 1, \ldots$$

- $\alpha$ is the maximum of the exact discrete likelihood, not of the usual approximation, which is off where $x_\min$ is small
  (their equations 3.5 and 3.7).
- $x_\min$ is the degree whose fit lies nearest to the data from there on (Kolmogorov-Smirnov distance over all integers, section 3.3).
- p is that of their section 4.1: how often data drawn from the fit, below $x_\min$ from the observed degrees, and fitted anew with
  an $x_\min$ of their own, lie as far from their fit. They rule a power law out below 0.1. A high p is no proof: it says that the
  data can't tell, as they often can't where few nodes are left from $x_\min$ on.
- A log-normal, an exponential and a power law with an exponential cut-off, fitted from the same $x_\min$ on, are compared by
  likelihood (their section 5 and appendix C). An exponential is where heavy tails begin: what falls as fast is not one.

That degrees are independent draws is an assumption of all of this: the users' and the items' add up to the same number, and k-core
filtering couples them further.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.optimize import minimize
from scipy.special import erfc, log_ndtr

from zsrbook.data.dataset import DataError

#: exponents are sought below this; a tail that falls faster is not heavy in any sense
STEEPEST = 100.0
#: a fit asks for so many different degrees, since fewer agree with almost anything
DISTINCT = 5
#: integers from xmin on that a drawn degree is looked up among; the few beyond come from the continuous law, which is the same there
TABLE = 1024


@dataclass(frozen=True)
class Comparison:
    """The power law against another law from the same minimum on.

    ``ratio`` is the difference of log-likelihoods in natural units, positive where the power law is likelier. ``p`` is how often a
    difference as large would come about if both were equally near the truth; below 0.1 the sign means something.
    """

    ratio: float
    p: float


@dataclass(frozen=True)
class TailFit:
    """A power law fitted to degrees from ``minimum`` on."""

    exponent: float  #: α
    exponent_error: float  #: one standard error of α at this minimum; that the minimum was chosen too adds to it
    minimum: int  #: xmin, the degree from which on the law is fitted
    tail: int  #: nodes with this degree or a higher one
    nodes: int  #: nodes with any degree but 0
    distance: float  #: Kolmogorov-Smirnov, between fit and tail
    p: float  #: goodness of fit; NaN without draws
    p_error: float  #: one standard error of p, from the number of draws
    draws: int
    lognormal: Comparison
    exponential: Comparison
    cutoff: Comparison  #: against x^-α e^-λx, which holds the power law as λ = 0: its ratio is never positive


def fit_tail(degrees: np.ndarray, draws: int = 2500, seed: int = 0) -> TailFit:
    """Fit a discrete power law, judge the fit by ``draws`` bootstrap samples, and compare it with three other laws.

    Args:
        degrees: (n,) whole numbers; those that are 0 are left out, since no power law holds them.
        draws: 2500 give p to within 0.01 (one standard error) at worst, 100 to within 0.05; 0 leaves p open.

    Raises:
        DataError: a degree is negative or not whole, or there are fewer than five different ones.

    >>> round(fit_tail(np.random.default_rng(0).zipf(2.5, 2000), draws=0).exponent, 1)
    2.5
    """
    values, counts = _counted(degrees)
    if len(values) < DISTINCT:
        raise DataError(
            f"the degrees take {len(values)} different values; expected {DISTINCT} or more to fit a tail: take more data, or cut less of it away"
        )
    start, exponent, distance = _scan(values, counts)
    minimum, tail, nodes = values[start], int(counts[start:].sum()), int(counts.sum())
    body, above = counts[:start] / max(nodes - tail, 1), _survival(minimum + np.arange(TABLE + 1), exponent, minimum)
    rng, further = np.random.default_rng(seed), 0
    for _ in range(draws):
        further += _scan(*_draw(values[:start], body, minimum, exponent, above, nodes, tail / nodes, rng))[2] >= distance
    p = (1 + further) / (1 + draws) if draws else np.nan
    return TailFit(
        exponent=exponent,
        exponent_error=_standard_error(exponent, minimum, tail),
        minimum=int(minimum),
        tail=tail,
        nodes=nodes,
        distance=distance,
        p=p,
        p_error=float(np.sqrt(p * (1 - p) / draws)) if draws else np.nan,
        draws=draws,
        lognormal=_against_lognormal(values[start:], counts[start:], exponent),
        exponential=_against_exponential(values[start:], counts[start:], exponent),
        cutoff=_against_cutoff(values[start:], counts[start:], exponent),
    )


def ccdf(degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(k,) the different degrees but 0, rising, and (k,) the share of nodes with that degree or a higher one.

    >>> ccdf(np.array([1, 1, 0, 4, 2]))
    (array([1., 2., 4.]), array([1.  , 0.5 , 0.25]))
    """
    values, counts = _counted(degrees)
    return values, np.cumsum(counts[::-1])[::-1] / counts.sum()


def power_law_ccdf(degrees: np.ndarray, exponent: float, minimum: float, share: float) -> np.ndarray:
    """What a fit expects where ``ccdf`` has the data: the share of all nodes with this degree or a higher one, NaN below the minimum.

    Args:
        share: of the nodes that the fitted tail holds.

    >>> power_law_ccdf(np.array([1, 10, 20]), exponent=3.0, minimum=10, share=0.5).round(2).tolist()
    [nan, 0.5, 0.12]
    """
    degrees = np.asarray(degrees, np.float64)
    return np.where(degrees >= minimum, share * _survival(degrees, exponent, float(minimum)), np.nan)


def gini(degrees: np.ndarray) -> float:
    """How unequal the degrees are: 0 if all are equal, near 1 if one node has them all. Nodes of degree 0 count if they are given.

    >>> gini(np.array([3, 3, 3])), gini(np.array([0, 0, 0, 4]))
    (0.0, 0.75)
    """
    rising = np.sort(np.asarray(degrees, np.float64))
    n = len(rising)
    return float((2 * np.arange(1, n + 1) - n - 1) @ rising / (n * rising.sum()))


def _counted(degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different degrees but 0 (float64, rising), and how many nodes have each (float64)."""
    degrees = np.asarray(degrees)
    if degrees.ndim != 1 or degrees.dtype.kind not in "iuf":
        raise DataError(f"degrees are {degrees.shape} of {degrees.dtype}; expected one whole number a node")
    wrong = ~((degrees >= 0) & (degrees == np.floor(degrees)) & (degrees < 1e15))
    if wrong.any():
        node = int(np.flatnonzero(wrong)[0])
        raise DataError(f"node {node} has degree {degrees[node]}; expected a whole number, 0 or more ({wrong.sum()} such of {len(degrees)})")
    values, counts = np.unique(degrees[degrees > 0].astype(np.float64), return_counts=True)
    return values, counts.astype(np.float64)


@njit(cache=True)
def _sum_from(first: float, exponent: float, base: float) -> float:
    """Σ (n / base)^-exponent over n = first, first + 1, …: ζ(exponent, first) in units that can't underflow.

    The first terms one by one, the rest by the formula of Euler and Maclaurin up to its fifth derivative.
    """
    total, n, s = 0.0, first, exponent
    while n < 10 + s:
        total += (n / base) ** -s
        n += 1
    series = n / (s - 1) + 0.5 + s / (12 * n) - s * (s + 1) * (s + 2) / (720 * n**3) + s * (s + 1) * (s + 2) * (s + 3) * (s + 4) / (30240 * n**5)
    return total + series * (n / base) ** -s


@njit(cache=True)
def _survival(degrees: np.ndarray, exponent: float, minimum: float) -> np.ndarray:
    """Share of the fitted tail with each degree (a float array) or a higher one."""
    whole, out = _sum_from(minimum, exponent, minimum), np.empty(len(degrees))
    for k in range(len(degrees)):
        out[k] = _sum_from(max(degrees[k], minimum), exponent, minimum) / whole
    return out


@njit(cache=True)
def _moments(exponent: float, minimum: float) -> tuple[float, float]:
    """Mean and variance of ln(x / minimum) under the law: the first two derivatives of ln ζ, by central differences."""
    h = 1e-4 * (exponent - 1)
    below, above = np.log(_sum_from(minimum, exponent - h, minimum)), np.log(_sum_from(minimum, exponent + h, minimum))
    here = np.log(_sum_from(minimum, exponent, minimum))
    return (below - above) / (2 * h), (above - 2 * here + below) / (h * h)


@njit(cache=True)
def _likeliest(mean_log: float, minimum: float) -> float:
    """The exponent whose mean of ln(x / minimum) is this one, by Newton's method from the approximation of their equation 3.7."""
    s = min(1 + 1 / (mean_log + np.log(minimum / (minimum - 0.5))), STEEPEST)
    for _ in range(50):
        mean, variance = _moments(s, minimum)
        step = (mean - mean_log) / variance
        new = min(max(s + step, 1 + (s - 1) / 4), STEEPEST)
        if abs(new - s) < 1e-9 * s:
            break
        s = new
    return s


@njit(cache=True)
def _scan(values: np.ndarray, counts: np.ndarray) -> tuple[int, float, float]:
    """The best minimum among the different degrees but the last: its position, exponent and distance.

    The distance is the largest gap between the shares of data and fit with a degree above x, over all integers x from the minimum on.
    Where the data have no node, their share stands still while that of the fit falls, so each run of integers is judged at both ends.
    """
    best, position, exponent = np.inf, 0, np.nan
    tail, logs = counts[-1], counts[-1] * np.log(values[-1])
    tails, mean_logs = np.empty(len(values)), np.empty(len(values))
    for k in range(len(values) - 2, -1, -1):
        tail += counts[k]
        logs += counts[k] * np.log(values[k])
        tails[k], mean_logs[k] = tail, logs / tail - np.log(values[k])
    for k in range(len(values) - 1):
        s = _likeliest(mean_logs[k], values[k])
        whole, left, gap = _sum_from(values[k], s, values[k]), tails[k], 0.0
        for j in range(k, len(values)):
            left -= counts[j]
            gap = max(gap, abs(left / tails[k] - _sum_from(values[j] + 1, s, values[k]) / whole))
            if j + 1 < len(values) and values[j + 1] > values[j] + 1:
                gap = max(gap, abs(left / tails[k] - _sum_from(values[j + 1], s, values[k]) / whole))
            if gap >= best:
                break
        if gap < best:
            best, position, exponent = gap, k, s
    return position, exponent, best


def _draw(
    below: np.ndarray,
    body: np.ndarray,
    minimum: float,
    exponent: float,
    above: np.ndarray,
    nodes: int,
    share: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """One bootstrap sample, counted: each node is drawn from the fitted tail with probability ``share``, else from the degrees below it.

    Args:
        below, body: the degrees below the minimum and their shares among the nodes there.
        above: (TABLE + 1,) the fit's share with degree minimum, minimum + 1, … or higher.
    """
    n = rng.binomial(nodes, share)
    lower = rng.multinomial(nodes - n, body) if len(body) else np.zeros(0, np.int64)
    upper = rng.multinomial(n, np.append(above[:-1] - above[1:], above[-1]))
    beyond = (minimum + TABLE - 0.5) * (1 - rng.random(upper[-1])) ** (-1 / (exponent - 1)) + 0.5
    beyond, times = np.unique(np.floor(np.minimum(beyond, 1e12)), return_counts=True)  # where 1 can still be told apart
    values = np.concatenate([below, minimum + np.arange(TABLE), beyond])
    counts = np.concatenate([lower, upper[:-1], times]).astype(np.float64)
    return values[counts > 0], counts[counts > 0]


def _standard_error(exponent: float, minimum: float, tail: int) -> float:
    """From the curvature of the likelihood (their equation 3.6)."""
    return float(1 / np.sqrt(tail * _moments(exponent, minimum)[1]))


def _log_power_law(values: np.ndarray, exponent: float) -> np.ndarray:
    return -exponent * np.log(values / values[0]) - np.log(_sum_from(values[0], exponent, values[0]))


def _log_lognormal(values: np.ndarray, b: float, c: float) -> np.ndarray:
    """Of a log-normal that is rounded to whole degrees and cut at the first of them.

    With t = ln(x / (first - 1/2)) its density is proportional to exp(-b t - c t² / 2) dt. c = 1 / σ² is its bend on double
    logarithmic paper, and c = 0 is a power law of exponent b + 1, up to the rounding. Near it all mass lies so far out in the normal
    law that only logarithms hold it.
    """
    edges = np.log((values + np.array([[-0.5], [0.5]])) / (values[0] - 0.5))  # (2, k)
    low, high = edges * np.sqrt(c) + b / np.sqrt(c)
    mirrored = low + high < 0  # the side that is far from 1 keeps its digits
    low, high = np.where(mirrored, -high, low), np.where(mirrored, -low, high)
    mass = log_ndtr(-low) + np.log(-np.expm1(np.minimum(log_ndtr(-high) - log_ndtr(-low), -1e-300)))
    return mass - log_ndtr(-b / np.sqrt(c))


def _against_lognormal(values: np.ndarray, counts: np.ndarray, exponent: float) -> Comparison:
    """Vuong's test for laws that are not nested (their appendix C).

    A log-normal can follow a power law as closely as its bend can fall (here to a millionth). The two then differ by next to nothing
    at every node alike, which Vuong's test takes for certainty; so p is never below that of Wilks's test for the same difference.
    """
    bounds = ((-STEEPEST, STEEPEST), np.log((1e-6, 1e3)))
    b, log_c = _best(lambda p: -counts @ _log_lognormal(values, p[0], np.exp(p[1])), (exponent - 1, np.log(0.1)), bounds)
    found = _vuong(_log_power_law(values, exponent) - _log_lognormal(values, b, np.exp(log_c)), counts)
    return Comparison(found.ratio, max(found.p, _wilks(found.ratio)))


def _against_exponential(values: np.ndarray, counts: np.ndarray, exponent: float) -> Comparison:
    """Vuong's test again. Of a discrete exponential from the minimum on, (1 - e^-λ) e^-λ(x - min), the best λ is known."""
    beyond = values - values[0]
    rate = np.log1p(counts.sum() / (counts @ beyond))
    return _vuong(_log_power_law(values, exponent) - (np.log(-np.expm1(-rate)) - rate * beyond), counts)


def _vuong(gain: np.ndarray, counts: np.ndarray) -> Comparison:
    """From what each node of a degree has more of log-likelihood by the power law than by the other."""
    n, ratio = counts.sum(), float(counts @ gain)
    spread = np.sqrt(max(counts @ gain**2 / n - (ratio / n) ** 2, 0.0))
    return Comparison(ratio, float(erfc(abs(ratio) / (np.sqrt(2 * n) * spread))) if spread > 0 else 1.0)


def _against_cutoff(values: np.ndarray, counts: np.ndarray, exponent: float) -> Comparison:
    """Wilks's test for nested laws: twice the difference against χ² with one degree of freedom. λ can't be negative, so p is up to
    twice too large; it is not corrected, as in their paper.

    The sum over all degrees is taken one by one for the first 1024 and by the midpoint rule on a logarithmic scale beyond, until
    e^-λx is nothing even for the smallest λ, a thousandth of 1 / the largest degree.
    """
    smallest, step = 1e-3 / values[-1], 1e-3
    near = values[0] + np.arange(TABLE)
    far = np.exp(np.arange(np.log(near[-1] + 0.5), np.log(near[-1] + 60 / smallest), step) + step / 2)
    support, weights = np.concatenate([near, far]), np.concatenate([np.ones(TABLE), far * step])
    log_support, log_values = np.log(support / values[0]), np.log(values / values[0])

    def logs(parameters: np.ndarray) -> np.ndarray:
        s, rate = parameters[0], np.exp(parameters[1])
        total = weights @ np.exp(-s * log_support - rate * (support - values[0]))
        return -s * log_values - rate * (values - values[0]) - np.log(total)

    bounds = ((-STEEPEST, STEEPEST), np.log((smallest, 10.0)))
    other = counts @ logs(_best(lambda p: -counts @ logs(p), (exponent, -np.log(values[-1])), bounds))
    ratio = min(float(counts @ _log_power_law(values, exponent) - other), 0.0)
    return Comparison(ratio, _wilks(ratio))


def _wilks(ratio: float) -> float:
    """How often χ² with one degree of freedom is above twice this difference of log-likelihoods."""
    return float(erfc(np.sqrt(abs(ratio))))


def _best(cost, start: tuple[float, float], bounds: tuple) -> np.ndarray:
    """The lowest point in two dimensions; it is the only one, since both families are exponential, one of them up to rounding."""
    options = {"xatol": 1e-6, "fatol": 1e-6, "maxiter": 2000}
    return minimize(cost, start, method="Nelder-Mead", bounds=bounds, options=options).x
