"""The intervals cover the truth as often as they say, and the tests find what they should find."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import sem, ttest_1samp
from scipy.stats import t as student

from zsrbook.evaluation.intervals import PerUser, contrast, difference, interval, ratio_difference, relative, variance_over_people
from zsrbook.evaluation.protocol import Protocol
from zsrbook.evaluation.ranks import RankTable


def per_user(sums, counts=None, average="micro"):
    """From (U, S) arrays."""
    sums = np.atleast_2d(np.asarray(sums, float).T).T
    counts = np.ones_like(sums) if counts is None else counts
    frames = {s: pd.DataFrame({"sum": sums[:, s], "count": counts[:, s], "mean": sums[:, s] / counts[:, s]}) for s in range(sums.shape[1])}
    return PerUser.of(frames, average)


def test_interval_covers_a_micro_average_19_times_in_20():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        counts = rng.integers(1, 30, 150)
        taste = rng.beta(2, 6, 150)  # users differ, and so the rows of one user go together
        sums = rng.binomial(counts, taste)
        found = interval(per_user(sums, counts[:, None]))
        hits += found.low <= 0.25 <= found.high
    assert 0.91 <= hits / 300 <= 0.985


def test_interval_covers_when_seeds_and_users_both_vary():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        quality = 0.3 + 0.05 * rng.normal(size=(200, 1)) + 0.01 * rng.normal(size=(1, 5)) + 0.1 * rng.normal(size=(200, 5))
        found = interval(per_user(quality))
        hits += found.low <= 0.3 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


@pytest.mark.parametrize(
    ("seeds", "of_seeds", "of_users", "least"), [(5, 0.02, 0.02, 0.92), (5, 0.02, 0.2, 0.92), (3, 0.02, 0.02, 0.92), (2, 0.02, 0.1, 0.86)]
)
def test_a_difference_covers_the_truth_where_few_seeds_vary_much(seeds, of_seeds, of_users, least):
    """Nothing is different, but training moves a whole method up or down; resampling five seeds would miss 0 in every eighth case."""
    rng = np.random.default_rng(12)

    def judged():
        taste = rng.random((150, 1))
        return [per_user(taste + of_users * rng.normal(size=(150, seeds)) + of_seeds * rng.normal(size=(1, seeds))) for _ in range(2)]

    found = [difference(*judged()) for _ in range(400)]
    assert least <= np.mean([f.low <= 0 <= f.high for f in found]) <= 0.995


def test_seeds_without_users_count_in_the_value_and_in_the_interval():
    rng = np.random.default_rng(13)
    taste = rng.random((200, 1)) * 0.1
    five = per_user(taste + np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
    whole, kept = interval(five), replace(per_user(taste + 0.1), more={1: 0.25, 2: 0.35, 3: 0.45, 4: 0.55})
    found = interval(kept)
    assert found.value == pytest.approx(whole.value, abs=0.005)
    assert found.high - found.low == pytest.approx(whole.high - whole.low, rel=0.01)
    base = replace(per_user(taste + 0.1), more={1: 0.25, 4: 0.55, 9: 7.0})  # the seeds of both count, and pair
    assert difference(kept, base).value == pytest.approx(0, abs=1e-9)
    assert difference(kept, base).high < 1e-6


def test_people_move_methods_on_the_seeds_that_these_share():
    rng = np.random.default_rng(17)
    five = per_user(rng.random((100, 5)))
    two, four = (per_user(five.sums[:, :n]) for n in (2, 4))
    assert [(e.value, e.low, e.high, e.p) for e in (difference(five, two), relative(five, two))] == [(0, 0, 0, 1)] * 2
    other = per_user(rng.random((100, 5)))
    for one, cut in ((difference(five, two), difference(four, two)), (relative(other, two), relative(per_user(other.sums[:, :2]), two))):
        assert (one.low, one.high) == (pytest.approx(cut.low), pytest.approx(cut.high))
    no_users = replace(two, seeds=(5, 6), more=five.by_seed)  # of the seeds that both have it knows no users, so its people are those of the others
    found = difference(five, no_users)
    assert found.value == pytest.approx(0, abs=1e-15)
    assert found.high - found.low > 0.01


def test_methods_without_seeds_in_common_are_not_paired():
    rng = np.random.default_rng(14)
    taste, moves = rng.random((300, 1)), 0.02 * rng.normal(size=(1, 6))
    a, b = per_user(taste + moves[:, :3]), replace(per_user(taste + moves[:, 3:]), seeds=(3, 4, 5))
    found = difference(a, b)
    assert found.value == pytest.approx(a.value - b.value)
    both = sum(np.var(m, ddof=1) / 3 for m in (moves[0, :3], moves[0, 3:]))
    assert (found.high - found.low) / 2 > 2.7 * both**0.5  # Student's t with four degrees at most


def test_a_ratio_keeps_its_interval_above_minus_one_and_covers_the_truth():
    rng = np.random.default_rng(15)

    def judged():
        taste, training = rng.gamma(2, 0.2, (80, 1)), np.exp(0.3 * rng.normal(size=(1, 5)) - 0.045)
        return per_user(0.5 * taste * training), per_user(taste)

    found = [relative(*judged()) for _ in range(300)]
    assert all(-1 < f.low < f.value < f.high for f in found)
    assert 0.9 <= np.mean([f.low <= -0.5 <= f.high for f in found]) <= 0.99
    nothing = relative(per_user(np.zeros(9)), per_user(np.ones(9)))
    assert (nothing.value, nothing.low, nothing.high) == (-1, -1, -1)


def test_pooling_users_of_all_seeds_would_be_too_sure():
    """The same people are tested in each seed, so five seeds without chance tell no more than one."""
    sums = np.random.default_rng(2).random((300, 1))
    one, five = interval(per_user(sums)), interval(per_user(np.repeat(sums, 5, axis=1)))
    assert five.high - five.low == pytest.approx(one.high - one.low, rel=0.1)


def test_p_value_is_uniform_without_a_difference_and_small_with_one():
    rng = np.random.default_rng(3)
    p = []
    for _ in range(200):
        taste = rng.random(120)
        p.append(difference(per_user(taste + 0.1 * rng.normal(size=120)), per_user(taste + 0.1 * rng.normal(size=120))).p)
    assert 0.01 <= np.mean(np.array(p) < 0.05) <= 0.10
    assert 0.4 <= np.mean(p) <= 0.6
    taste = rng.random(500)
    found = difference(per_user(taste + 0.02), per_user(taste + 0.01 * rng.normal(size=500)))
    assert found.p < 0.01
    assert 0.018 < found.low < found.value < found.high < 0.022


def test_pairing_is_what_makes_it_sharp():
    taste = np.random.default_rng(4).random(500)
    a, b = per_user(taste + 0.01), per_user(taste)
    assert difference(a, b).high - difference(a, b).low < 1e-6
    assert interval(a).high - interval(a).low > 0.04


def test_equal_methods_do_not_differ():
    method = per_user(np.random.default_rng(5).random((100, 3)))
    found = difference(method, method)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_detectable_difference_is_found_8_times_in_10():
    rng = np.random.default_rng(6)
    size = difference(per_user(rng.normal(size=200)), per_user(np.zeros(200))).detectable
    found = [difference(per_user(size + rng.normal(size=200)), per_user(np.zeros(200))).p < 0.05 for _ in range(200)]
    assert 0.68 <= np.mean(found) <= 0.92


def test_contrast_is_linear():
    rng = np.random.default_rng(7)
    a, b = per_user(rng.random((50, 2))), per_user(rng.random((50, 2)))
    found = contrast([(2.0, a), (-0.5, b)])
    assert found.value == pytest.approx(2 * a.value - 0.5 * b.value)
    assert found.low < found.value < found.high


def test_difference_of_ratios_covers_the_truth_and_pairs_within_a_data_set():
    """Two data sets whose users differ widely in taste: a is 0.9 of b on one and 0.6 of b on the other, with little noise between them."""
    rng = np.random.default_rng(10)

    def judged(ratio, users):
        taste = rng.gamma(2, 0.2, users)
        return per_user(ratio * taste + 0.05 * rng.normal(size=users)), per_user(taste + 0.05 * rng.normal(size=users))

    found = [ratio_difference(judged(0.9, 150), judged(0.6, 250)) for _ in range(300)]
    assert 0.91 <= np.mean([f.low <= 0.3 <= f.high for f in found]) <= 0.985
    assert np.mean([f.value for f in found]) == pytest.approx(0.3, abs=0.003)
    # unpaired, the spread of taste alone would make the interval of one ratio 0.3 wide
    assert np.mean([f.high - f.low for f in found]) < 0.08


def test_data_sets_of_one_shape_are_taken_apart():
    """Pairing the users of two data sets would let equal ones cancel, and the difference would seem to be sure."""
    rng = np.random.default_rng(11)
    a, b = per_user(rng.random(200)), per_user(rng.random(200))
    found = ratio_difference((a, b), (a, b))
    assert found.value == 0
    assert found.p > 0.9
    one = 1.96 * np.std([(rng.choice(a.sums[:, 0] - b.sums[:, 0], 200)).mean() for _ in range(500)]) / b.value
    assert found.high - found.low == pytest.approx(2 * np.sqrt(2) * one, rel=0.25)


def test_ratios_that_make_no_sense_are_refused():
    one, none = per_user(np.ones(9)), per_user(np.zeros(9))
    with pytest.raises(ValueError, match="scores 0"):
        ratio_difference((one, one), (one, none))
    with pytest.raises(ValueError, match="same test set"):
        ratio_difference((one, one), (one, per_user(np.ones(8))))


def test_one_person_tells_nothing_of_others():
    """Neither alone nor in any seed, even against itself; by two an interval is wide, but known."""
    one, other = per_user(np.full((1, 3), 0.5)), per_user(np.array([[0.2, 0.3, 0.1]]))
    for found in (interval(one), difference(one, other), difference(one, one), ratio_difference((one, other), (one, other))):
        assert (found.low, found.high, found.p, found.detectable) == (-np.inf, np.inf, 1, np.inf)
    found = relative(one, other)
    assert (found.low, found.high, found.p, found.detectable) == (-1, np.inf, 1, np.inf)
    assert interval(one).value == 0.5
    assert found.value == pytest.approx(1.5)
    two = interval(per_user(np.array([0.4, 0.6])))
    assert two.high - two.low == pytest.approx(0.2 * student.isf(0.025, 1))


def test_what_endless_draws_of_people_would_find_is_found_without_a_draw():
    """Two methods in three seeds, users with very unequal numbers of predictions, 20,000 paired draws of users."""
    rng = np.random.default_rng(8)
    counts = np.repeat(rng.geometric(0.1, (400, 1)), 3, axis=1)
    taste = rng.beta(1, 4, (400, 1))
    a, b = (per_user(rng.binomial(counts, np.minimum(1, taste * better)), counts) for better in (1.2, 1.0))
    found = variance_over_people(a.influence - b.influence)
    for weights in (rng.multinomial(400, np.full(400, 1 / 400), 20_000), rng.poisson(1.0, (20_000, 400))):
        drawn = [((weights @ method.sums) / (weights @ method.counts)).mean(1) for method in (a, b)]
        assert found == pytest.approx(np.var(drawn[0] - drawn[1]), rel=0.05)


def test_without_seeds_and_with_one_prediction_a_user_it_is_students_test():
    taste = np.random.default_rng(16).random(30)
    found = interval(per_user(taste))
    low, high = student.interval(0.95, 29, taste.mean(), sem(taste))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.p == pytest.approx(ttest_1samp(taste, 0).pvalue)


def test_a_method_without_chance_pairs_with_one_of_many_seeds():
    rng = np.random.default_rng(9)
    many, one = per_user(rng.random((80, 5))), per_user(rng.random((80, 1)))
    found = difference(many, one)
    assert found.value == pytest.approx(many.value - one.value)


def test_other_predictions_are_refused():
    a, b = per_user(np.ones((9, 1))), per_user(np.ones((9, 1)), np.full((9, 1), 2))
    with pytest.raises(ValueError, match="same test set"):
        difference(a, b)
    with pytest.raises(ValueError, match="same test set"):
        difference(a, per_user(np.ones((8, 1))))
    changing = per_user(np.ones((9, 2)), np.tile([1, 2], (9, 1)))  # seeds of different tests, of which the first is that of a
    for pair in ((a, changing), (changing, a)):
        with pytest.raises(ValueError, match="same test set"):
            difference(*pair)
    with pytest.raises(ValueError, match="nothing to take an interval of"):
        PerUser.of({})


def test_ranks_give_micro_and_macro_values():
    table = RankTable.of([0, 30, 0], [0, 0, 0], 100, user=[4, 4, 7])
    assert Protocol().per_user({0: table}, "Recall@20").value == pytest.approx(2 / 3)
    assert Protocol(average="macro").per_user({0: table}, "Recall@20").value == pytest.approx(3 / 4)
    other = RankTable.of([0, 0], [0, 0], 100, user=[4, 9])  # another split in another seed
    both = Protocol().per_user({0: table, 1: other}, "Recall@20")
    assert both.users.tolist() == [4, 7, 9]
    assert both.value == pytest.approx((2 / 3 + 1) / 2)
