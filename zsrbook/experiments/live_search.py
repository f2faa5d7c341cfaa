"""The live experiment of the Search chapter (Wu et al. 2020, section 5.4: Table 4, Figure 5), staged in the toy world, where the truth is known.

A person wants an item, popular ones and those of the own taste more often, and types a query that this item answers. The list is read as
in the dynamic Bayesian network of clicks (Chapelle and Zhang, WWW 2009): from the top, item by item; an item is clicked on with a
probability that depends on its grade and the person's taste; a click may satisfy, and ends the search; otherwise the person reads on, or
stops, and at the end of a page may turn it. Who is not satisfied may refine the query: type another one that shares a word with it and
whose answers all answer the first one too.

Taste and query are all that the next step depends on, so ``expected`` has the exact mean of every metric in both arms, where a real test
has one noisy estimate: ``ab_test`` and ``lifts`` show how noisy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.stats import norm
from sklearn.feature_extraction.text import CountVectorizer

from zsrbook.data.dataset import Columns, DataError
from zsrbook.data.toy import ToyWorld
from zsrbook.evaluation.intervals import influence, variance_over_people

#: candidates that the zero-shot model adds (section 5.4)
CANDIDATES = 100
#: queries an arm that raters see (section 5.4), and the name of what they say
SAMPLE, RATED = 250, "Relevance (250 rated)"
ARMS = ("control", "treatment")
LENGTHS = ("all", "1", "2", "3+")
#: means over queries: with a click or more; clicks; followed by a refined query; of which a page was turned; mean grade of the first page
METRICS = ("Query Coverage", "User Interaction", "Query Refinement", "Next-page CTR", "Relevance")


@dataclass(frozen=True)
class Searcher:
    """How people search; tuples are by grade 0, 1, 2."""

    sessions: float = 4.0  #: of a person on average, 1 at least, geometrically distributed: a few people search a lot
    page: int = 10  #: results on a page
    pages: int = 3  #: pages that anybody reads at most
    attraction: tuple[float, float, float] = (0.02, 0.7, 1.0)  #: times the toy world's click probability: the chance of a click once seen
    satisfied: tuple[float, float, float] = (0.1, 0.5, 0.7)  #: chance that a click ends the search well
    onward: float = 0.9  #: chance of going on to the next result
    next_page: float = 0.4  #: chance of turning the page at its end
    refine: float = 0.5  #: chance that who is not satisfied refines the query, where there is a way to

    def __post_init__(self) -> None:
        chances = np.array([*self.attraction, *self.satisfied, self.onward, self.next_page])
        if min(self.sessions, self.page, self.pages) < 1 or ((chances < 0) | (chances > 1)).any() or not 0 <= self.refine < 1:
            raise DataError(f"{self}: expected sessions, page and pages of 1 or more, chances from 0 to 1, and refine below 1")

    @property
    def on(self) -> np.ndarray:
        """(page · pages,) the chance of going on from each place."""
        chances = np.tile(np.r_[np.full(self.page - 1, self.onward), self.next_page], self.pages)
        chances[-1] = 0.0
        return chances


@dataclass(frozen=True)
class Traffic:
    """Who asks what, and what answers it; both arms share it. K tastes, Q queries, n items.

    Attributes:
        taste: (U,) the hidden taste of each user of the market.
        appeal: (K, n) the chance of a click on an item that is just what was asked for.
        demand: (K, Q) how often a taste starts with a query; rows sum to 1.
        grades: (Q, n) 0, 1 or 2.
        follow_ups: (Q, Q) csr of ones: the refinements of each query.
        lengths: (Q,) unigrams of each query.
    """

    taste: np.ndarray
    appeal: np.ndarray
    demand: np.ndarray
    grades: np.ndarray
    follow_ups: csr_array
    lengths: np.ndarray

    @classmethod
    def of(cls, world: ToyWorld, market: str) -> Traffic:
        queries, popularity = world.queries(market), world.popularity(market)
        known = world.tastes(market, world.dataset(market).sequences(), knows="user")
        kinds, items = np.eye(known.shape[1]), np.arange(len(popularity))
        appeal = np.stack([world.click_probability(market, items, items, np.broadcast_to(kind, (len(items), len(kind)))) for kind in kinds])
        grades = np.zeros((len(queries.texts), len(items)), np.int8)
        grades[queries.relevance["query"], queries.relevance[Columns.ITEM]] = queries.relevance["grade"]
        answers = (grades > 0).astype(float)
        wish = popularity * appeal * answers.any(0)
        demand = (wish / wish.sum(1, keepdims=True)) @ (answers / np.maximum(answers.sum(0), 1)).T
        words = CountVectorizer(binary=True, token_pattern=r"\S+").fit_transform(queries.texts["text"])
        share = (words @ words.T).toarray() > 0
        within = answers @ answers.T == answers.sum(1)  # [q, r]: all that answers r answers q
        follow_ups = csr_array(share & within & ~np.eye(len(grades), dtype=bool), dtype=np.int8)
        return cls(known.argmax(1), appeal, demand, grades, follow_ups, np.asarray(words.sum(1)).ravel())


def _groups(lengths: np.ndarray) -> np.ndarray:
    """(n, 4) bool: which of ``LENGTHS`` each counts in."""
    return np.column_stack([lengths > 0, lengths == 1, lengths == 2, lengths > 2])


def _pages(traffic: Traffic, scores: np.ndarray, searcher: Searcher) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What one arm shows: (Q, places) the items, whether there is one, and its grade; (Q,) mean grade of the first page, 0 where it is blank."""
    if scores.shape != traffic.grades.shape:
        raise DataError(f"scores of shape {scores.shape} for {traffic.grades.shape[0]} queries and {traffic.grades.shape[1]} items")
    if (places := len(searcher.on)) > scores.shape[1]:
        raise DataError(f"{searcher.pages} pages of {searcher.page} results take {places} items; the market has {scores.shape[1]}")
    items = np.argsort(-scores, axis=1, kind="stable")[:, :places]  # NaN comes last
    shown = ~np.isnan(np.take_along_axis(scores, items, 1))
    grades = np.where(shown, np.take_along_axis(traffic.grades, items, 1), 0)
    return items, shown, grades, grades[:, : searcher.page].mean(1)


def expected(traffic: Traffic, scores: np.ndarray, searcher: Searcher = Searcher()) -> pd.DataFrame:
    """The exact mean of each metric where all users of the market get the lists of these scores.

    Args:
        scores: (Q, n); NaN where an item is not retrieved.

    Returns:
        index ``length`` (``LENGTHS``), columns ``METRICS``, and ``queries``: typed in a session.
    """
    items, shown, grades, relevance = _pages(traffic, scores, searcher)
    shape = len(traffic.appeal), len(scores)
    here = np.ones(shape)  # (K, Q) chance that the place is seen
    bare = np.ones(shape)  # … with no click before it
    clicks, covered, happy, turned = np.zeros((4, *shape))
    for place, on in enumerate(searcher.on):
        grade, seen = grades[:, place], shown[:, place]
        click = np.take(searcher.attraction, grade) * traffic.appeal[:, items[:, place]]
        well = click * np.take(searcher.satisfied, grade)
        here, bare = here * seen, bare * seen
        clicks += here * click
        covered += bare * click
        happy += here * well
        here, bare = here * (1 - well) * on, bare * (1 - click) * on
        if place == searcher.page - 1:
            turned = here
    choices = traffic.follow_ups.sum(1)
    refined = (1 - happy) * searcher.refine * (choices > 0)
    step = traffic.follow_ups.toarray() / np.maximum(choices, 1)[:, None]
    share = np.bincount(traffic.taste, minlength=len(traffic.appeal)) / len(traffic.taste)
    # how often a query is typed, at first or after another one: (I − Pᵀ) x = demand
    leads = refined[:, :, None] * step
    typed = np.linalg.solve(np.eye(len(scores)) - leads.transpose(0, 2, 1), (share[:, None] * traffic.demand)[:, :, None])[:, :, 0]
    values = [covered, clicks, refined, turned, np.broadcast_to(relevance, shape)]
    groups = _groups(traffic.lengths)
    queries = typed.sum(0) @ groups
    means = {name: (typed * value).sum(0) @ groups / queries for name, value in zip(METRICS, values, strict=True)}
    return pd.DataFrame(means | {"queries": queries}, index=pd.Index(LENGTHS, name="length"))


def search(traffic: Traffic, scores: np.ndarray, user: np.ndarray, searcher: Searcher, rng: np.random.Generator) -> pd.DataFrame:
    """One session of each of these users of the market, a user named twice having two.

    Returns:
        one row a query typed: ``session`` (position in ``user``), ``query``, ``length``, and ``METRICS``.
    """
    items, shown, grades, relevance = _pages(traffic, scores, searcher)
    choices = traffic.follow_ups.sum(1)
    session, taste, start = np.arange(len(user)), traffic.taste[user], rng.random(len(user))
    query = np.empty(len(user), np.int64)
    for kind, demand in enumerate(traffic.demand):
        query[taste == kind] = np.searchsorted(demand.cumsum()[:-1], start[taste == kind], side="right")
    frames = []
    while len(session):
        chance = rng.random((len(session), searcher.page * searcher.pages, 3))
        here, happy, turned = np.ones(len(session), bool), *np.zeros((2, len(session)), bool)
        clicks = np.zeros(len(session), np.int64)
        for place, on in enumerate(searcher.on):
            grade = grades[query, place]
            here &= shown[query, place]
            attraction = np.take(searcher.attraction, grade) * traffic.appeal[taste, items[query, place]]
            click = here & (chance[:, place, 0] < attraction)
            well = click & (chance[:, place, 1] < np.take(searcher.satisfied, grade))
            clicks += click
            happy |= well
            here &= ~well & (chance[:, place, 2] < on)
            if place == searcher.page - 1:
                turned = here.copy()
        again, which = rng.random((2, len(session)))
        refined = ~happy & (again < searcher.refine) & (choices[query] > 0)
        values = zip(METRICS, (clicks > 0, clicks, refined, turned, relevance[query]), strict=True)
        frames.append(pd.DataFrame({"session": session, "query": query, "length": traffic.lengths[query]} | {n: v.astype(float) for n, v in values}))
        step = traffic.follow_ups.indptr[query] + (which * choices[query]).astype(np.int64)
        query = traffic.follow_ups.indices[step[refined]].astype(np.int64)
        session, taste = session[refined], taste[refined]
    return pd.concat(frames, ignore_index=True)


def ab_test(
    traffic: Traffic,
    control: np.ndarray,
    treatment: np.ndarray,
    people: int = 20_000,
    searcher: Searcher = Searcher(),
    seed: int = 0,
) -> pd.DataFrame:
    """Half of the people get the lists of ``control``, the others those of ``treatment``, in all of their sessions.

    Args:
        control, treatment: (Q, n) scores; NaN where an item is not retrieved.
        people: in both arms; each has the taste of a random user of the market. A session takes about 1 kB of memory.

    Returns:
        the rows of ``search`` with ``arm`` and ``user``.
    """
    rng = np.random.default_rng(seed)
    like, arm = rng.integers(len(traffic.taste), size=people), rng.permutation(people) % len(ARMS)
    count, frames = rng.geometric(1 / searcher.sessions, people), []
    for a, scores in enumerate((control, treatment)):
        user = np.repeat(np.flatnonzero(arm == a), count[arm == a])
        rows = search(traffic, scores, like[user], searcher, rng)
        frames.append(rows.assign(arm=ARMS[a], user=user[rows["session"]]))
    return pd.concat(frames, ignore_index=True)


def lifts(log: pd.DataFrame) -> pd.DataFrame:
    """Relative differences of the metrics. What was assigned are people, so they are what varies; intervals are symmetric in the logarithm.

    Args:
        log: as from ``ab_test``.

    Returns:
        index ``length``, ``metric``; columns ``control``, ``treatment`` (means over queries), and in percent of control ``lift``, ``error``
        (standard error), ``low``, ``high`` (95 % interval); ``p`` (two-sided, of no difference). What never happens in one arm alone
        has no error, interval or p (NaN).
    """
    means, variances = [], []
    for name in ARMS:
        rows = log[log["arm"] == name]
        people, person = np.unique(rows["user"], return_inverse=True)
        values = np.column_stack([rows[list(METRICS)], np.ones(len(rows))])
        parts = (_groups(rows["length"].to_numpy())[:, :, None] * values[:, None, :]).reshape(len(rows), -1)
        sums = csr_array((np.ones(len(rows)), (person, np.arange(len(rows))))) @ parts
        sums = sums.reshape(len(people), len(LENGTHS), -1)
        found, counts = sums[..., :-1], sums[..., -1:]
        with np.errstate(invalid="ignore"):  # no query of this length
            means.append((found.sum(0) / counts.sum(0)).ravel())
        variances.append(variance_over_people(influence(found, counts)).ravel())
    control, treatment = means
    with np.errstate(invalid="ignore", divide="ignore"):  # nothing that happened after a query: no ratio
        ratio = treatment / control
        log_ratio, spread = np.log(ratio), np.sqrt(variances[0] / control**2 + variances[1] / treatment**2)
        low, high = (100 * np.expm1(log_ratio + tail * norm.ppf(0.975) * spread) for tail in (-1, 1))
        p = np.where(np.isnan(ratio) | (ratio == 1), 1.0, 2 * norm.sf(np.abs(log_ratio) / spread))
        error = 100 * ratio * spread
    lift = np.where(np.isfinite(ratio), 100 * (ratio - 1), np.nan)
    columns = {"control": control, "treatment": treatment, "lift": lift, "error": error, "low": low, "high": high, "p": p}
    return pd.DataFrame(columns, pd.MultiIndex.from_product([LENGTHS, METRICS], names=["length", "metric"]))


def live(
    traffic: Traffic,
    control: np.ndarray,
    treatment: np.ndarray,
    people: int = 20_000,
    searcher: Searcher = Searcher(),
    seed: int = 0,
) -> pd.DataFrame:
    """Table 4 and Figure 5: one A/B test, what is true, and how many people it takes to see that. Arguments as in ``ab_test``.

    Returns:
        ``lifts``, and a row (``all``, ``RATED``): the relevance of 250 random queries an arm, as raters would be given them. Further columns:
        ``truth``, the exact lift in percent; ``needed``, in both arms, for a test that finds it 8 times in 10: people, or rated queries.
    """
    log = ab_test(traffic, control, treatment, people, searcher, seed)
    rng = np.random.default_rng(seed)
    sample = pd.concat([log[log["arm"] == arm].sample(SAMPLE, replace=True, random_state=rng) for arm in ARMS])
    raters = lifts(sample.assign(user=np.arange(len(sample)))).loc[[("all", "Relevance")]].rename({"Relevance": RATED})
    found = pd.concat([lifts(log), raters])
    before, after = (expected(traffic, scores, searcher)[list(METRICS)].stack() for scores in (control, treatment))
    found["truth"] = 100 * (after / before - 1)
    found.loc[("all", RATED), "truth"] = found.loc[("all", "Relevance"), "truth"]
    units = np.where(found.index.get_level_values("metric") == RATED, 2 * SAMPLE, people)
    found["needed"] = units * ((norm.ppf(0.975) + norm.ppf(0.8)) * found["error"] / found["truth"]) ** 2
    return found
