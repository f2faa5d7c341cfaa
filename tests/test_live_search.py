"""The simulated live experiment: the reading against plain loops and recursion, the test against what is known to be true."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from zsrbook.data.dataset import DataError
from zsrbook.data.toy import ToySettings, ToyWorld
from zsrbook.experiments.live_search import METRICS, RATED, Searcher, Traffic, ab_test, expected, lifts, live, search
from zsrbook.models.search_baselines import fused

BETTER = np.array([-1.0 if name in ("Query Refinement", "Next-page CTR") else 1.0 for name in METRICS])


@pytest.fixture(scope="module")
def world() -> ToyWorld:
    return ToyWorld(ToySettings(users=(400, 20, 20), items=(120, 20, 20)))


@pytest.fixture(scope="module")
def traffic(world) -> Traffic:
    return Traffic.of(world, "grocery")


@pytest.fixture(scope="module")
def noisy(traffic) -> np.ndarray:
    """A system that is neither good nor bad, and does not retrieve some items."""
    rng = np.random.default_rng(5)
    scores = traffic.grades + rng.normal(0, 1.0, traffic.grades.shape)
    scores[rng.random(scores.shape) < 0.1] = np.nan
    scores[::7, 6:] = np.nan  # less than a page
    scores[3] = np.nan
    return scores


def test_fusion_is_that_of_the_loops():
    rng = np.random.default_rng(0)
    lists = [rng.integers(0, 6, (4, 9)).astype(float), rng.normal(size=(4, 9)), rng.normal(size=(4, 9))]
    lists[0][rng.random((4, 9)) < 0.3] = np.nan
    lists[1][2] = np.nan
    depths = [None, 4, 0]
    found = fused(lists, depths, k=10)
    for q in range(4):
        for i in range(9):
            total = 0.0
            for scores, depth in zip(lists, depths, strict=True):
                row = [x for x in scores[q] if x == x]
                if scores[q, i] == scores[q, i]:
                    rank = sum(x > scores[q, i] for x in row) + (1 + sum(x == scores[q, i] for x in row)) / 2
                    total += 1 / (10 + rank) if depth is None or rank <= depth else 0.0
            assert found[q, i] == pytest.approx(total) if total else np.isnan(found[q, i])


def test_fusion_keeps_the_order_of_a_list_alone_or_said_twice():
    scores = np.random.default_rng(1).normal(size=(5, 30))
    for lists, depths in (([scores], None), ([scores, scores], None), ([scores, -scores], [None, 0]), ([scores, scores], [None, 7])):
        assert np.argsort(-fused(lists, depths), axis=1).tolist() == np.argsort(-scores, axis=1).tolist()


def test_fusion_of_lists_of_other_shapes_is_refused():
    with pytest.raises(DataError, match=r"shapes \(2, 3\) and \(2, 4\)"):
        fused([np.zeros((2, 3)), np.zeros((2, 4))])


def test_traffic_is_what_the_world_says(world, traffic):
    queries, popularity = world.queries("grocery"), world.popularity("grocery")
    texts = queries.texts["text"].tolist()
    answers = {q: {} for q in range(len(texts))}
    for row in queries.relevance.itertuples():
        answers[row.query][row.item] = row.grade
    for user in range(0, 400, 80):
        assert traffic.appeal[traffic.taste[user]] == pytest.approx(world.click_probability("grocery", np.full(120, user), np.arange(120)))
    assert traffic.demand.sum(1) == pytest.approx(1)
    for q in range(0, len(texts), 9):
        assert traffic.lengths[q] == len(texts[q].split())
        assert [traffic.grades[q, i] for i in range(120)] == [answers[q].get(i, 0) for i in range(120)]
        for z in range(len(traffic.demand)):
            wish = sum(popularity[i] * traffic.appeal[z, i] / sum(i in a for a in answers.values()) for i in answers[q])
            assert traffic.demand[z, q] == pytest.approx(wish / (popularity * traffic.appeal[z]).sum())
        follow = {r for r in answers if r != q and set(texts[q].split()) & set(texts[r].split()) and answers[r].keys() <= answers[q].keys()}
        assert set(traffic.follow_ups[[q]].indices) == follow
    moods = np.flatnonzero(traffic.lengths == 1)
    assert (traffic.follow_ups.sum(1)[moods] > 0).all()


def by_loops(traffic: Traffic, scores: np.ndarray, user: np.ndarray, searcher: Searcher, rng: np.random.Generator) -> pd.DataFrame:
    """The same sessions, one after another, with the same random numbers."""
    first, rows = rng.random(len(user)), []
    now = []
    for session, u in enumerate(user):
        total, q = traffic.demand[traffic.taste[u], 0], 0
        while total <= first[session] and q < len(scores) - 1:
            q += 1
            total += traffic.demand[traffic.taste[u], q]
        now.append((session, q))
    while now:
        chance, (again, which), then = rng.random((len(now), searcher.page * searcher.pages, 3)), rng.random((2, len(now))), []
        for n, (session, q) in enumerate(now):
            z = traffic.taste[user[session]]
            ranked = sorted((i for i in range(scores.shape[1]) if not np.isnan(scores[q, i])), key=lambda i: -scores[q, i])
            clicks, happy, turned, place = 0, False, False, 0
            while place < len(ranked):
                grade = traffic.grades[q, ranked[place]]
                if chance[n, place, 0] < searcher.attraction[grade] * traffic.appeal[z, ranked[place]]:
                    clicks += 1
                    if chance[n, place, 1] < searcher.satisfied[grade]:
                        happy = True
                        break
                place += 1
                if place == searcher.page * searcher.pages:
                    break
                if chance[n, place - 1, 2] >= (searcher.next_page if place % searcher.page == 0 else searcher.onward):
                    break
                turned |= place == searcher.page
            choices = sorted(traffic.follow_ups[[q]].indices)
            refined = not happy and again[n] < searcher.refine and len(choices) > 0
            if refined:
                then.append((session, choices[int(which[n] * len(choices))]))
            top = sum(int(traffic.grades[q, i]) for i in ranked[: searcher.page]) / searcher.page
            rows.append((session, q, traffic.lengths[q], float(clicks > 0), float(clicks), float(refined), float(turned), top))
        now = then
    return pd.DataFrame(rows, columns=["session", "query", "length", *METRICS])


@pytest.mark.parametrize("searcher", [Searcher(), Searcher(page=4, pages=2, next_page=0.9, refine=0.9, satisfied=(0.0, 0.2, 0.3)), Searcher(pages=1)])
def test_sessions_are_those_of_the_loops(traffic, noisy, searcher):
    user = np.random.default_rng(2).integers(400, size=150)
    found, slow = (run(traffic, noisy, user, searcher, np.random.default_rng(3)) for run in (search, by_loops))
    pd.testing.assert_frame_equal(found, slow, check_dtype=False)
    assert found["Query Refinement"].sum() == len(found) - len(user)
    assert (found["Next-page CTR"].sum() > 0) == (searcher.pages > 1)


def tiny_traffic() -> Traffic:
    """Two tastes, four queries, of two, one, no and three refinements, and eight items."""
    rng = np.random.default_rng(4)
    follow_ups = csr_array(np.array([[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]]))
    return Traffic(
        np.array([0, 0, 1]), rng.random((2, 8)), rng.dirichlet(np.ones(4), 2), rng.integers(0, 3, (4, 8)), follow_ups, np.array([1, 2, 3, 4])
    )


def test_sessions_are_those_of_the_loops_on_every_kind_of_query():
    tiny, rng = tiny_traffic(), np.random.default_rng(10)
    user, scores, searcher = rng.integers(3, size=200), rng.random((4, 8)), Searcher(page=2, pages=3, next_page=0.7, refine=0.9)
    found, slow = (run(tiny, scores, user, searcher, np.random.default_rng(11)) for run in (search, by_loops))
    pd.testing.assert_frame_equal(found, slow, check_dtype=False)
    followed = found.groupby("query")["Query Refinement"].sum()
    assert (followed[[0, 1, 3]] > 0).all()
    assert followed[2] == 0


def by_recursion(attraction: list[float], satisfied: list[float], on: list[float], page: int) -> np.ndarray:
    """Mean of (clicked, clicks, not satisfied, page turned), over all that can happen on a list, one branch at a time."""

    def after(place: int, chance: float, clicks: int, turned: bool) -> np.ndarray:
        end = chance * np.array([clicks > 0, clicks, 1.0, turned])
        if place == len(attraction):
            return end
        a, s = attraction[place], satisfied[place]
        total = chance * a * s * np.array([1.0, clicks + 1, 0.0, turned])
        for weight, more in ((chance * a * (1 - s), 1), (chance * (1 - a), 0)):
            go = on[place] if place + 1 < len(attraction) or place + 1 == page else 0.0
            total += after(place + 1, weight * go, clicks + more, turned or place + 1 == page)
            total += weight * (1 - go) * np.array([clicks + more > 0, clicks + more, 1.0, turned])
        return total

    return after(0, 1.0, 0, False)


@pytest.mark.parametrize("refine", [0.0, 0.4, 0.95])
def test_expectations_are_those_of_all_that_can_happen(refine):
    rng = np.random.default_rng(4)
    tiny = tiny_traffic()
    appeal, grades, follow_ups = tiny.appeal, tiny.grades, tiny.follow_ups
    scores = rng.random((4, 8))
    scores[1, 2:] = np.nan  # a page that is just full, and none after it
    scores[2, 1:] = np.nan
    searcher = Searcher(page=2, pages=2, attraction=(0.3, 0.6, 1.0), satisfied=(0.2, 0.5, 0.8), onward=0.7, next_page=0.6, refine=refine)
    on = [0.7, 0.6, 0.7, 0.0]
    typed, means, step = np.zeros((2, 4)), np.zeros((2, 4, 5)), follow_ups.toarray() / np.maximum(follow_ups.toarray().sum(1), 1)[:, None]
    for z, share in enumerate((2 / 3, 1 / 3)):
        for q in range(4):
            ranked = [i for i in np.argsort(-scores[q]) if not np.isnan(scores[q, i])][:4]
            a = [searcher.attraction[grades[q, i]] * appeal[z, i] for i in ranked]
            covered, clicks, unhappy, turned = by_recursion(a, [searcher.satisfied[grades[q, i]] for i in ranked], on, page=2)
            means[z, q] = covered, clicks, unhappy * refine * (step[q].sum() > 0), turned, grades[q, ranked[:2]].sum() / 2
        wave = share * tiny.demand[z]
        for _ in range(2000):
            typed[z] += wave
            wave = (wave * means[z, :, 2]) @ step
    found = expected(tiny, scores, searcher)
    for length, some in zip(found.index, (slice(None), [0], [1], [2, 3]), strict=True):
        mean = (typed[:, some, None] * means[:, some]).sum((0, 1)) / typed[:, some].sum()
        assert found.loc[length, list(METRICS)].to_numpy() == pytest.approx(mean)
        assert found.loc[length, "queries"] == pytest.approx(typed[:, some].sum())
    assert found.loc["all", "queries"] > 1 - 1e-9
    assert (found.loc["all", "queries"] == pytest.approx(1)) == (refine == 0)


def test_expectations_are_the_means_of_many_sessions(traffic, noisy):
    rng = np.random.default_rng(6)
    log, truth = search(traffic, noisy, rng.integers(400, size=100_000), Searcher(), rng), expected(traffic, noisy)
    assert len(log) / 100_000 == pytest.approx(truth.loc["all", "queries"], rel=0.01)
    for length, rows in {"all": log, "1": log[log["length"] == 1], "2": log[log["length"] == 2], "3+": log[log["length"] > 2]}.items():
        away = (rows[list(METRICS)].mean() - truth.loc[length, list(METRICS)]) / (rows[list(METRICS)].std() / len(rows) ** 0.5)
        assert away.abs().max() < 4.5


def test_truth_ranks_systems_as_it_should(traffic):
    rng = np.random.default_rng(7)
    control = traffic.grades + rng.normal(0, 1.0, traffic.grades.shape)
    base, perfect, worst = (expected(traffic, s).loc["all"] for s in (control, traffic.grades.astype(float), rng.random(control.shape)))
    assert ((perfect - base)[list(METRICS)] * BETTER > 0).all()
    assert ((worst - base)[list(METRICS)] * BETTER < 0).all()
    assert perfect["queries"] < base["queries"] < worst["queries"]


def test_a_test_sees_a_perfect_candidate_source_and_a_random_one(traffic):
    rng = np.random.default_rng(8)
    control = traffic.grades + rng.normal(0, 1.0, traffic.grades.shape)
    for source, sign in ((traffic.grades.astype(float), 1.0), (rng.random(control.shape), -1.0)):
        found = live(traffic, control, fused([control, source], [None, 30]), people=8000).loc["all"]
        truth = found.loc[list(METRICS)]
        assert (truth["truth"] * BETTER * sign > 0).all()
        assert (truth["lift"] * BETTER * sign > 0).all()
        assert (truth["p"] < 0.05).all()
        assert ((truth["lift"] - truth["truth"]).abs() < 4 * truth["error"]).all()
        assert found.loc[RATED, "truth"] == found.loc["Relevance", "truth"]
        assert found.loc[RATED, "error"] > 2 * found.loc["Relevance", "error"]


@pytest.fixture(scope="module")
def repeated(traffic) -> dict[str, tuple[pd.DataFrame, list[pd.DataFrame]]]:
    """The truth and 120 small tests: of a system against itself, and against a better one with the people that a test of coverage needs."""
    rng = np.random.default_rng(9)
    control, made = traffic.grades + rng.normal(0, 1.0, traffic.grades.shape), {}
    for name, treatment, people in (("same", control, 300), ("better", control + 0.6 * traffic.grades, None)):
        before, after = (expected(traffic, s).loc["all", list(METRICS)] for s in (control, treatment))
        people = people or round(live(traffic, control, treatment, 6000).loc[("all", "Query Coverage"), "needed"])
        tests = [lifts(ab_test(traffic, control, treatment, people, seed=s)).loc["all"] for s in range(120)]
        made[name] = 100 * (after / before - 1), tests
    return made


def test_the_same_system_in_both_arms_differs_at_the_nominal_rate(repeated):
    truth, tests = repeated["same"]
    assert (truth == 0).all()
    p = np.array([found["p"] for found in tests])
    assert (p <= 0.05).mean(0) == pytest.approx(0.05, abs=0.06)  # 3 standard deviations of a share of 120
    assert 0.02 < (p <= 0.05).mean() < 0.08  # over all metrics, where none at all would be too few
    assert (p <= 0.5).mean(0) == pytest.approx(0.5, abs=0.14)


@pytest.mark.parametrize("name", ["same", "better"])
def test_intervals_hold_the_truth_as_often_as_they_say(repeated, name):
    truth, tests = repeated[name]
    held = np.array([(found["low"] <= truth) & (truth <= found["high"]) for found in tests])
    assert held.mean(0) == pytest.approx(0.95, abs=0.06)
    assert 0.92 < held.mean() < 0.98  # nor are they so wide that they hold anything
    errors, spread = np.mean([found["error"] for found in tests], axis=0), np.std([found["lift"] for found in tests], axis=0, ddof=1)
    assert errors == pytest.approx(spread, rel=0.2)


def test_the_people_needed_find_it_eight_times_in_ten(repeated):
    _, tests = repeated["better"]
    assert np.mean([found.loc["Query Coverage", "p"] <= 0.05 for found in tests]) == pytest.approx(0.8, abs=0.11)


def test_lifts_are_ratios_of_means_with_the_errors_of_the_delta_method(traffic, noisy):
    log = ab_test(traffic, noisy, traffic.grades.astype(float), people=3000)
    found, errors = lifts(log), {}
    for length, rows in {"all": log, "1": log[log["length"] == 1], "3+": log[log["length"] > 2]}.items():
        for metric in METRICS:
            mean, variance = {}, 0.0
            for arm, part in rows.groupby("arm"):
                people = part.groupby("user")[metric].agg(["sum", "count"])
                mean[arm] = part[metric].mean()
                variance += ((people["sum"] - mean[arm] * people["count"]) ** 2).sum() / (mean[arm] * len(part)) ** 2
            ratio = mean["treatment"] / mean["control"]
            assert found.loc[(length, metric), ["control", "treatment"]].tolist() == pytest.approx([mean["control"], mean["treatment"]])
            assert found.loc[(length, metric), "lift"] == pytest.approx(100 * (ratio - 1))
            errors[length, metric] = 100 * ratio * variance**0.5
    assert found.loc[list(errors), "error"].to_numpy() == pytest.approx(np.array(list(errors.values())), rel=1e-3)
    assert (found["low"] <= found["lift"]).all()
    assert (found["lift"] <= found["high"]).all()


def test_of_one_person_an_arm_no_lift_is_known(traffic, noisy):
    log = ab_test(traffic, noisy, traffic.grades.astype(float), people=200)
    found = lifts(log[log["user"].isin(log.groupby("arm")["user"].first())])
    told = found[(found["control"] > 0) & (found["treatment"] > 0)]
    assert len(told)
    assert (told["low"] == -100).all()
    assert np.isinf(told[["error", "high"]]).all(axis=None)
    assert (told["p"] == 1).all()


def test_people_are_assigned_once_and_all_follows_the_seed(traffic, noisy):
    one, same, other = (ab_test(traffic, noisy, noisy, 500, seed=s) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(one, same)
    assert not one.equals(other)
    assert (one.groupby("user")["arm"].nunique() == 1).all()
    assert one.groupby("arm")["user"].nunique().tolist() == [250, 250]
    assert one.groupby(["arm", "user"])["session"].nunique().mean() == pytest.approx(4, abs=0.6)
    pd.testing.assert_frame_equal(live(traffic, noisy, noisy, 200, seed=3), live(traffic, noisy, noisy, 200, seed=3))


def test_what_never_happens_has_no_lift(traffic):
    blind = Searcher(attraction=(0.0, 0.0, 0.0), next_page=0.0)
    found = live(traffic, traffic.grades.astype(float), traffic.grades.astype(float), 100, blind).loc["all"]
    assert found.loc["Query Coverage", ["control", "treatment"]].tolist() == [0, 0]
    assert found.loc[["Query Coverage", "User Interaction", "Next-page CTR"], "lift"].isna().all()
    assert (found.loc[["Query Coverage", "User Interaction", "Next-page CTR"], "p"] == 1).all()
    assert found.loc["Query Refinement", "needed"] == np.inf


@pytest.mark.parametrize("wrong", [{"page": 0}, {"sessions": 0.5}, {"onward": 1.1}, {"attraction": (0.0, -0.1, 1.0)}, {"refine": 1.0}])
def test_searchers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(DataError, match=next(iter(wrong))):
        Searcher(**wrong)


def test_scores_that_do_not_fit_are_refused(traffic):
    with pytest.raises(DataError, match=r"scores of shape \(2, 120\) for \d+ queries and 120 items"):
        expected(traffic, np.zeros((2, 120)))
    with pytest.raises(DataError, match="take 150 items; the market has 120"):
        expected(traffic, traffic.grades.astype(float), Searcher(pages=15))
