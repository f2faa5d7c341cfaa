"""Two-sample numbers against plain loops, and on clouds whose answer is known."""

import numpy as np
import pytest
from scipy.stats import kstest

from zsrbook.evaluation.two_sample import coverage, mmd_test, neighbour_accuracy


def cloud(n: int, seed: int, shift: float = 0.0, width: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, size=(n, width))


def mmd_by_loops(a: np.ndarray, b: np.ndarray) -> float:
    """The unbiased estimate, pair by pair; σ² is the median squared distance of all pairs."""
    points = [*a, *b]
    variance = np.median([((points[i] - points[j]) ** 2).sum() for i in range(len(points)) for j in range(i)])

    def mean(pairs):
        return np.mean([np.exp(-((x - y) ** 2).sum() / (2 * variance)) for x, y in pairs])

    within_a = mean([(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j])
    within_b = mean([(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j])
    return within_a + within_b - 2 * mean([(x, y) for x in a for y in b])


@pytest.mark.parametrize(("n", "m"), [(7, 7), (6, 11), (12, 5)])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_mmd_is_that_of_the_loops(n, m, shift):
    a, b = cloud(n, 0), cloud(m, 1, shift)
    expected = mmd_by_loops(a, b)
    assert mmd_test(a, b)[0] == pytest.approx(expected, rel=1e-9)
    assert mmd_test(b, a)[0] == pytest.approx(expected, rel=1e-9)
    assert mmd_test(a[::-1] * 1000, b * 1000)[0] == pytest.approx(expected, rel=1e-9)  # the bandwidth goes along


@pytest.mark.parametrize(("n", "m"), [(30, 30), (20, 40)])
def test_p_is_uniform_where_there_is_nothing_to_find(n, m):
    p = [mmd_test(cloud(n, 2 * s), cloud(m, 2 * s + 1), permutations=99, seed=s)[1] for s in range(200)]
    assert kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) <= 0.05) < 0.1


def test_p_is_least_where_clouds_are_apart():
    for permutations in (19, 200):
        assert mmd_test(cloud(25, 0), cloud(40, 1, 3.0), permutations)[1] == pytest.approx(1 / (permutations + 1))


def test_p_is_a_count_over_the_permutations_and_follows_the_seed():
    a, b = cloud(15, 0), cloud(20, 1, 0.3)
    for permutations in (0, 1, 9, 50):
        p = mmd_test(a, b, permutations)[1] * (permutations + 1)
        assert p == pytest.approx(round(p))
        assert 1 <= round(p) <= permutations + 1
    assert mmd_test(a, b, seed=3) == mmd_test(a, b, seed=3)
    assert len({mmd_test(a, b, seed=s)[1] for s in range(5)}) > 1


def test_clouds_of_one_point_repeated_are_alike():
    value, p = mmd_test(np.ones((8, 2)), np.ones((5, 2)))
    assert (value, p) == (pytest.approx(0.0, abs=1e-12), 1.0)


def test_neighbours_tell_nothing_of_one_distribution_and_all_of_two():
    assert np.mean([neighbour_accuracy(cloud(100, 2 * s), cloud(100, 2 * s + 1)) for s in range(20)]) == pytest.approx(0.5, abs=0.03)
    assert neighbour_accuracy(cloud(50, 0), cloud(30, 1, 50.0)) == 1.0


def test_neighbours_are_those_of_the_loops():
    a, b = cloud(12, 0), cloud(9, 1, 0.7)
    points, label = [*a, *b], [True] * len(a) + [False] * len(b)
    right = 0
    for i, x in enumerate(points):
        others = [(((x - y) ** 2).sum(), label[j]) for j, y in enumerate(points) if j != i]
        right += min(others)[1] == label[i]
    assert neighbour_accuracy(a, b) == right / len(points)


@pytest.mark.parametrize(("n", "m", "k"), [(20, 15, 3), (12, 30, 5), (9, 1, 1)])
def test_coverage_is_that_of_the_loops(n, m, k):
    real, made = cloud(n, 0), cloud(m, 1, 0.5)
    covered = 0
    for i, x in enumerate(real):
        radius = sorted(((x - y) ** 2).sum() for j, y in enumerate(real) if j != i)[k - 1]
        covered += any(((x - y) ** 2).sum() <= radius for y in made)
    assert coverage(real, made, k) == covered / n


def test_coverage_from_nothing_to_all():
    real = cloud(100, 0)
    assert coverage(real, real) == 1.0
    assert coverage(real, real + 50.0) == 0.0
    assert coverage(real, cloud(100, 1)) > 0.9
    narrow = 0.05 * cloud(100, 1)  # in the midst of the real ones, and yet far from most of them
    assert coverage(real, narrow) < 0.3 < 0.9 < coverage(narrow, real[:0:-1] * 0.05)
