"""The toy world: markets that share one language of taste, and whose truth can be asked for.

A user has one of four tastes. The first purchase follows popularity. Each later one either follows popularity again, or looks
back at one earlier purchase, the *anchor* (the newer and the better liked, the likelier), and then buys it again, or another
flavour of the same thing, or its complement (after sweet things, herbal tea). With taste z and history h_1 … h_n:

    p(j | h, z) = (1 − s) P_z(j) + s Σ_t a_z(t) H_z(h_t, j),     a_z(t) ∝ recency^(n − t) A_z(h_t),     s = structure · look_back

where A_z(j) says how much the taste likes item j, P_z ∝ popularity · A_z, and each row of H_z mixes the three habits, each of
them reweighted by A_z and normalised. The taste is hidden, yet takes four values only, so a posterior over it is exact:
``oracle`` gives the best scores that any model can reach. With ``structure`` 0, A_z is 1 and s is 0: purchases are independent
draws from popularity, and no model can beat it.

The world costs one pass over the users a step: one million purchases of 110,000 users on 360 items take about a second on one CPU core,
and so does their exact likelihood; memory grows with items² (four dense tables).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array
from scipy.special import expit, logsumexp

from zsrbook.data.clicks import TRAIN, ClickData, Layout, split_in_time, windows_before
from zsrbook.data.dataset import Columns, DataError, Dataset, Report, Sequences, check_codes
from zsrbook.data.search import SearchData, links_in_sequences
from zsrbook.data.splits import Fold
from zsrbook.data.toy_language import LANGUAGES, MARKETS, NOTES, Language
from zsrbook.models.base import Recommender

DAY, MINUTE = 86_400.0, 60.0
EPOCH = 1_704_067_200.0  # 1 January 2024: the first purchases


@dataclass(frozen=True)
class ToySettings:
    """The dials of the world; those that name three numbers follow the order grocery, pantry, films."""

    users: tuple[int, int, int] = (6000, 2000, 2000)  #: users in each market
    items: tuple[int, int, int] = (360, 280, 300)  #: items in each market
    history: float = 9.0  #: mean number of purchases a user, each of whom has 2 at least
    tail: float = 0.7  #: the r-th most popular item has weight r^-tail; 0 makes all items equal
    structure: float = 1.0  #: 1: all habits and tastes; 0: independent draws from popularity
    again: float = 0.25  #: share of later purchases that are the anchor once more
    flavour: float = 0.25  #: share that is another flavour of the anchor
    complement: float = 0.20  #: share that is what goes with the anchor; the rest follows popularity
    recency: float = 0.6  #: weight of a purchase as the anchor falls by this factor with each later one
    loyalty: float = 6.0  #: another flavour of the same brand is so much likelier than one of another brand
    match: float = 4.0  #: a complement of the same diet is so much likelier than one of another diet
    taste: float = 1.2  #: nats by which a taste prefers its own note (half as many for its own diet)
    attributes: float = 0.6  #: how much the nine user attributes tell of the taste; 0: nothing
    click: float = -2.2  #: log-odds of a click on an item of mean appeal that the user is indifferent to
    clicked: float = 2.0  #: what a nat of taste adds to the log-odds of a click
    appeal: float = 0.5  #: standard deviation of what an item's own appeal adds to them, for everybody alike
    bias: float = 1.0  #: exponent of popularity in the search log; 0: only relevance counts
    telling: float = 1.0  #: share of items whose text names their flavour; that of the others leaves their note to one mood word
    seed: int = 0  #: all that is random follows from it

    def __post_init__(self) -> None:
        rules = [
            (("users", "items"), len(self.users) == len(self.items) == 3 and min(self.users + self.items) > 0, "three positive sizes each"),
            (("history",), self.history > 2, "a mean above 2"),
            (("structure",), 0 <= self.structure <= 1, "0 to 1"),
            (("telling",), 0 <= self.telling <= 1, "0 to 1"),
            (("again", "flavour", "complement"), min(self.again, self.flavour, self.complement) >= 0 and self.look_back < 1, "a sum below 1"),
            (("recency",), 0 < self.recency <= 1, "above 0, 1 at most"),
            (("loyalty", "match"), min(self.loyalty, self.match) > 0, "positive factors"),
        ]
        for names, good, expected in rules:
            if not good:
                raise DataError(f"toy settings: {', '.join(f'{n}={getattr(self, n)}' for n in names)}; expected {expected}")

    @property
    def look_back(self) -> float:
        """Share of the later purchases that look back, at structure 1."""
        return self.again + self.flavour + self.complement


#: level counts of the nine attributes. Eight are the profile fields of the Alimama data, with its vocabulary sizes; the ninth of the
#: MAIL paper is the user id itself, which tells nothing of a new user, so ``region`` stands in its place.
ATTRIBUTES = {
    "cms_segid": 97,
    "cms_group_id": 13,
    "final_gender_code": 2,
    "age_level": 7,
    "pvalue_level": 3,
    "shopping_level": 3,
    "occupation": 2,
    "new_user_class_level": 4,
    "region": 8,
}


@dataclass(frozen=True)
class Queries:
    """Free-text queries of a market and what is relevant to them.

    Attributes:
        texts: columns ``query`` (code, the row), ``text``, ``kind`` (``mood``: one mood word; ``pair``: two mood words of one
            meaning, which no item text holds together; ``mood family``; ``flavour family``; ``diet family``).
        relevance: columns ``query``, ``item``, ``grade``: 2 where the text says what was asked, 1 where the item answers without
            saying so; pairs that are absent have grade 0.
    """

    texts: pd.DataFrame
    relevance: pd.DataFrame


class ToyWorld:
    """The markets, their data, and the truth behind them. Equal settings give equal worlds on every call.

    >>> world = ToyWorld(ToySettings(users=(50, 20, 20)))
    >>> world.dataset("grocery").n_users, world.dataset("pantry").n_items
    (50, 280)
    """

    def __init__(self, settings: ToySettings = ToySettings()) -> None:
        self.settings = settings
        self.markets = tuple(MARKETS)
        self._built: dict[str, _Market] = {}
        self._running: dict[str, np.ndarray] = {}  # (K, M + 1) log-likelihood of a market's purchases, summed up to each; kept for ``click_oracle``

    # -- data ---------------------------------------------------------------------------------------------------------------

    def dataset(self, market: str) -> Dataset:
        """All purchases of a market; ``features`` is None.

        Items: ``raw``, ``text`` (title, full stop, description), ``title``, ``description``, ``category``, ``family``, ``brand``,
        ``flavour``, ``note`` (the taste that the flavour speaks to), ``diet``, ``price``. Users: ``raw`` and ``ATTRIBUTES``, each
        with levels from 1.

        Raises:
            DataError: there is no such market.
        """
        built = self._market(market)
        s = self.settings
        report = Report((f"toy-{market}: generated {len(built.interactions)} purchases (seed {s.seed}, structure {s.structure:g})",))
        return Dataset(f"toy-{market}", built.interactions.copy(), built.items.copy(), built.users.copy(), report=report)

    def impressions(self, market: str, n: int, seed: int) -> pd.DataFrame:
        """``n`` items shown to random users, popular ones more often.

        Returns:
            Columns ``user``, ``item``, ``time``, ``click`` (0 or 1), ``probability`` (of a click, the truth), in the order of time.
        """
        built, rng = self._market(market), self._rng(market, "impressions", seed)
        users = rng.integers(len(built.users), size=n).astype(np.int32)
        items = rng.choice(len(built.items), size=n, p=built.popularity).astype(np.int32)
        times = built.interactions[Columns.TIME]
        probability = self.click_probability(market, users, items)
        return pd.DataFrame(
            {
                Columns.USER: users,
                Columns.ITEM: items,
                Columns.TIME: np.sort(rng.uniform(times.min(), times.max(), n)),
                "click": (rng.random(n) < probability).astype(np.int8),
                "probability": probability,
            }
        )

    def queries(self, market: str) -> Queries:
        """What people may type, and what they mean by it."""
        built = self._market(market)
        if built.queries is None:
            built.queries = _queries(built.items, LANGUAGES[MARKETS[market].language])
        return built.queries

    def search_log(self, market: str, n: int, seed: int) -> pd.DataFrame:
        """``n`` clicks on search results: of the relevant items mostly the popular ones are clicked, so the log is biased.

        Returns:
            Columns ``query``, ``item``, ``time``, in the order of time.
        """
        built, rng, rate = self._market(market), self._rng(market, "search log", seed), self.search_rates(market)
        query = rng.integers(len(rate), size=n)
        times = built.interactions[Columns.TIME]
        item = _draw(_cumulative(rate), query, rng)
        return pd.DataFrame({"query": query, Columns.ITEM: item, Columns.TIME: np.sort(rng.uniform(times.min(), times.max(), n))})

    def search_rates(self, market: str) -> np.ndarray:
        """(Q, I) how often an item is clicked on after a query, up to a factor: what no search of the log can beat."""
        built, found = self._market(market), self.queries(market)
        rate = np.zeros((len(found.texts), len(built.items)))
        rate[found.relevance["query"], found.relevance[Columns.ITEM]] = 2.0 ** found.relevance["grade"] - 1
        return rate * built.popularity**self.settings.bias

    def search(self, market: str, n: int = 20_000, seed: int = 0, top: int = 20) -> SearchData:
        """Items with their texts, linked where one was bought right after the other; queries, what is relevant, and ``n`` clicks on results.

        A market has hardly more items than the neighbours that ``search.TOP`` would keep, so ``top`` is lower here. Of the links of grocery a
        third join items of one note at the default settings, half with ``taste=2``, and a quarter by chance.

        Args:
            seed: of the log alone.
            top: neighbours that an item keeps, those that followed most often.
        """
        data, found = self.dataset(market), self.queries(market)
        links = links_in_sequences(data, top)
        report = data.report + f"toy-{market}: {links.nnz:,} links, {n:,} clicks on results of {len(found.texts):,} queries (seed {seed})"
        texts = found.texts[["text", "kind"]].copy()
        return SearchData(f"toy-{market}", data.items, links, texts, found.relevance.copy(), self.search_log(market, n, seed), report=report)

    def clicks(self, market: str, n: int = 40_000, seed: int = 0, longest: int = 20) -> ClickData:
        """``n`` impressions with the fields that click models read, split by time (7 : 1 : 2); nobody is declared new yet.

        The user fields are the id and ``ATTRIBUTES``; behaviours are purchases, at most the newest ``longest`` before an impression.
        """
        built, shown = self._market(market), self.impressions(market, n, seed)
        bought = built.interactions
        user, time = shown[Columns.USER].to_numpy(), shown[Columns.TIME].to_numpy()
        names = ("family", "brand", "flavour", "diet")
        levels = {name: built.items[name].astype("category").cat for name in names}
        price = pd.qcut(built.items["price"], 8, labels=False)
        numbers = np.arange(len(built.users))
        users = np.column_stack([numbers + 1, *(built.users[name] for name in ATTRIBUTES)]).astype(np.int32)
        items = np.column_stack([np.arange(len(built.items)), *(levels[name].codes for name in names), price]).astype(np.int32) + 1
        context = np.column_stack([time // 3600 % 24, time // DAY % 7]).astype(np.int32) + 1
        return ClickData(
            f"toy-{market}",
            Layout(("user", *ATTRIBUTES), ("hour", "weekday"), ("item", *names, "price"), ("family", "flavour", "action")),
            {"user": len(users) + 1, **{name: count + 1 for name, count in ATTRIBUTES.items()}, "hour": 25, "weekday": 8}
            | {"item": len(items) + 1, **{name: len(levels[name].categories) + 1 for name in names}, "price": 9, "action": 2},
            user,
            shown[Columns.ITEM].to_numpy(),
            time,
            shown["click"].to_numpy(),
            context,
            users,
            items,
            np.column_stack([items[bought[Columns.ITEM]][:, [1, 3]], np.ones(len(bought), np.int32)]),
            windows_before(user, time, bought[Columns.USER].to_numpy(), bought[Columns.TIME].to_numpy(), longest),
            split_in_time(time, valid=0.125),
            np.zeros(len(users), bool),
            Report((f"toy-{market}: generated {n:,} impressions, {shown['click'].mean():.1%} clicked (seed {self.settings.seed}, {seed})",)),
        )

    def click_oracle(self, market: str, data: ClickData, rows: np.ndarray) -> np.ndarray:
        """(n,) the exact probability of a click at these impressions, given all that a model may know.

        That is the attributes; the purchases before the impression, also those that its window cuts off, unless the user is declared
        new; and, where the user's id is kept, what the user clicked on in training.

        Args:
            data: from ``clicks`` of this market, maybe with new users, maybe ``strict``.
        """
        built, n = self._market(market), len(self._market(market).users)
        log = self._attribute_likelihood(built)  # (users, K)
        past = data.rows(TRAIN)
        past = past[data.users[data.user[past], 0] > 0]
        by_taste = built.clicked[:, data.item[past]]  # (K, training impressions)
        said = np.log(np.where(data.click[past] == 1, by_taste, 1 - by_taste))
        for z in range(len(NOTES)):
            log[:, z] += np.bincount(data.user[past], said[z], minlength=n)
        bought = built.interactions
        owner = bought[Columns.USER].to_numpy()
        starts = np.searchsorted(owner, np.arange(n + 1))
        histories = Sequences(bought[Columns.ITEM].to_numpy(), starts, np.arange(n, dtype=np.int32), bought[Columns.TIME].to_numpy())
        if market not in self._running:
            self._running[market] = np.pad(self._purchase_likelihood(built, histories).cumsum(1), ((0, 0), (1, 0)))
        running = self._running[market]
        user = data.user[rows]
        end = np.where(data.new[user], starts[user], data.windows[rows, 1])
        log = log[user] + (running[:, end] - running[:, starts[user]]).T
        return self.click_probability(market, user, data.item[rows], np.exp(log - logsumexp(log, axis=1, keepdims=True)))

    # -- truth --------------------------------------------------------------------------------------------------------------

    def oracle(self, market: str, knows: str = "history") -> Oracle:
        """The Bayes-optimal recommender of a market; see ``tastes`` for what it may know."""
        return Oracle(self, market, knows)

    def next_item_probabilities(self, market: str, histories: Sequences, knows: str = "history") -> np.ndarray:
        """(U, I) float64: the exact probability of each next item; a row sums to 1. See ``tastes`` for ``knows``."""
        built, share = self._market(market), self._share
        belief = self.tastes(market, histories, knows)
        ages = np.repeat(histories.lengths, histories.lengths) - histories.positions - 1
        back = np.where(histories.lengths > 0, share, 0.0)
        probabilities = ((1 - back)[:, None] * belief) @ built.popular
        for z in range(len(NOTES)):
            weights = self.settings.recency**ages * built.affinity[z, histories.items]
            total = np.bincount(histories.rows, weights, minlength=len(histories))[histories.rows]
            weights *= (back * belief[:, z])[histories.rows] / total
            anchors = csr_array((weights, histories.items, histories.starts), shape=probabilities.shape)
            probabilities += anchors @ built.habits[z]
        return probabilities

    def tastes(self, market: str, histories: Sequences, knows: str = "history") -> np.ndarray:
        """(U, K) float64: the probability of each taste, given the history and what else is known.

        Args:
            knows: ``history``: nothing else; ``attributes``: the nine attributes of ``histories.users`` too, so an empty history
                gives what can be known of a new user; ``user``: the taste itself.

        Raises:
            DataError: another word for ``knows``, or a user or item code that the market does not have.
        """
        built = self._market(market)
        _check_knows(knows)
        check_codes(f"toy-{market}: histories", "item", histories.items, len(built.items))
        if knows != "history":
            check_codes(f"toy-{market}: histories", "user", histories.users, len(built.users))
        if knows == "user":
            return np.eye(len(NOTES))[built.taste[histories.users]]
        # all tastes are equally common, so the posterior is the normalised likelihood
        log = self._attribute_likelihood(built)[histories.users] if knows == "attributes" else np.zeros((len(histories), len(NOTES)))
        for z, purchases in enumerate(self._purchase_likelihood(built, histories)):
            log[:, z] += np.bincount(histories.rows, purchases, minlength=len(histories))
        return np.exp(log - logsumexp(log, axis=1, keepdims=True))

    def set_scores(self, market: str, known: csr_array) -> np.ndarray:
        """(U, I) float64 log-odds, up to a number a user, that an item is among a user's purchases, of which a set without order is known.

        Who knows the truth but no order can't be exact: there are too many orders. With n items known, rates take the place of orders, a further
        purchase being p(j | S, z) = (1 − s) P_z(j) + s Σ_{i ∈ S} a_z(i) H_z(i, j) with a_z ∝ A_z over S. A taste is believed by what it says of each
        known item given the others. The score of j is ln p(j | S, z), and half of what j adds to ln p of the known ones, as half of them would
        have come after it.

        Args:
            known: (U, I) ones, items in the order of the market's table.

        Raises:
            DataError: as many columns as the market has items are expected.
        """
        built, share = self._market(market), self._share
        if known.shape[1] != len(built.items):
            raise DataError(f"toy-{market}: the sets are of {known.shape[1]} items; it has {len(built.items)}")
        scores = np.zeros(known.shape)
        for user in range(len(scores)):
            one = known.indices[known.indptr[user] : known.indptr[user + 1]]
            by_taste = np.empty((len(NOTES), known.shape[1]))
            for z, (popular, affinity, habits) in enumerate(zip(built.popular, built.affinity, built.habits, strict=True)):
                follows = affinity[one, None] * habits[one]  # (n, I)
                rate = (1 - share) * popular + share * follows.sum(0) / max(affinity[one].sum(), 1e-300)
                others, liked = follows[:, one].sum(0) - np.diag(follows[:, one]), affinity[one].sum() - affinity[one]  # (n,) each, of the others
                own = np.log((1 - share) * popular[one] + share * others / np.maximum(liked, 1e-300))
                added = others + affinity[:, None] * habits[:, one]  # (I, n) with the item of the row
                after = np.log((1 - share) * popular[one] + share * added / (liked + affinity[:, None]))
                by_taste[z] = own.sum() + np.log(rate) + (after - own).sum(1) / 2
            scores[user] = logsumexp(by_taste, axis=0)
        return scores

    def click_probability(self, market: str, users: np.ndarray, items: np.ndarray, tastes: np.ndarray | None = None) -> np.ndarray:
        """(n,) the probability that ``users[i]`` clicks on ``items[i]`` when shown.

        Args:
            tastes: (n, K) what is believed of the taste of ``users[i]``, such as a row of ``tastes``; the truth when None.
        """
        built = self._market(market)
        by_taste = built.clicked[:, items]  # (K, n)
        if tastes is None:
            return by_taste[built.taste[users], np.arange(len(users))]
        return np.einsum("nk,kn->n", tastes, by_taste)

    def popularity(self, market: str) -> np.ndarray:
        """(I,) the chance of each item in a purchase at structure 0; sums to 1."""
        return self._market(market).popularity.copy()

    def relations(self, market: str) -> Mapping[str, np.ndarray]:
        """For each habit an (I, I) bool table: may the habit lead from the row item to the column item?"""
        return _relations(self._market(market).items, LANGUAGES[MARKETS[market].language])

    # -- the machine --------------------------------------------------------------------------------------------------------

    @property
    def _share(self) -> float:
        return self.settings.structure * self.settings.look_back

    def _rng(self, *purpose: object) -> np.random.Generator:
        """Independent streams, so that a dial moves only what it names."""
        return np.random.default_rng([self.settings.seed, zlib.crc32("/".join(map(str, purpose)).encode())])

    def _market(self, market: str) -> _Market:
        if market not in MARKETS:
            raise DataError(f"the toy world has no market {market!r}; it has {', '.join(MARKETS)}")
        if market not in self._built:
            self._built[market] = self._build(market)
        return self._built[market]

    def _build(self, market: str) -> _Market:
        s, place = self.settings, list(MARKETS).index(market)
        silent = self._rng(market, "telling").random(s.items[place]) >= s.telling
        items = _items(market, s.items[place], self._rng(market, "items"), silent)
        popularity = 1.0 + self._rng(market, "popularity").permutation(len(items))
        popularity = popularity**-s.tail / (popularity**-s.tail).sum()
        language = LANGUAGES[MARKETS[market].language]
        notes = items["note"].map(NOTES.index).to_numpy()
        diets = items["diet"].map(sorted(language.diets).index).to_numpy()  # each of the first four is the favourite of one taste
        tastes = np.arange(len(NOTES))[:, None]
        affinity = np.exp(s.structure * s.taste * ((notes == tastes) + 0.5 * (diets == tastes)))  # (K, I)
        popular = popularity * affinity
        popular /= popular.sum(1, keepdims=True)
        habits = self._habits(items, language, affinity, popular)
        appeal = s.structure * s.appeal * self._rng(market, "appeal").normal(size=len(items))

        rng = self._rng(market, "users")
        taste = rng.integers(len(NOTES), size=s.users[place])
        users = {Columns.RAW: [f"{market}-user-{u}" for u in range(len(taste))]}
        for name, table in self._attribute_tables().items():
            users[name] = 1 + _draw(_cumulative(table), taste, rng)
        clicked = expit(s.click + s.clicked * np.log(affinity) + appeal)
        built = _Market(items, pd.DataFrame(users), popularity, taste, affinity, popular, habits, clicked)
        built.interactions = self._simulate(market, built)
        return built

    def _habits(self, items: pd.DataFrame, language: Language, affinity: np.ndarray, popular: np.ndarray) -> np.ndarray:
        """(K, I, I) H_z: what follows an anchor. Where a habit leads nowhere, its share goes to popularity."""
        s, sets = self.settings, _relations(items, language)
        brand, diet = (items[c].to_numpy() for c in ("brand", "diet"))
        kernels = {
            "again": (s.again, sets["again"] * 1.0),
            "flavour": (s.flavour, sets["flavour"] * np.where(brand[:, None] == brand, s.loyalty, 1.0)),
            "complement": (s.complement, sets["complement"] * np.where(diet[:, None] == diet, s.match, 1.0)),
        }
        mixed = np.zeros((len(affinity), len(items), len(items)))
        for weight, kernel in kernels.values():
            liked = kernel * affinity[:, None, :]
            total = liked.sum(2, keepdims=True)
            mixed += weight / (s.look_back or 1.0) * np.divide(liked, total, out=np.zeros_like(liked), where=total > 0)
        return mixed + (1 - mixed.sum(2, keepdims=True)) * popular[:, None, :]

    def _simulate(self, market: str, built: _Market) -> pd.DataFrame:
        """All users take their t-th purchase at once."""
        s, rng = self.settings, self._rng(market, "purchases")
        n_users, n_items = len(built.users), len(built.items)
        lengths = 2 + rng.negative_binomial(3, 3 / (1 + s.history), n_users)  # mean 2 + (history − 2)
        order = np.argsort(-lengths, kind="stable")  # longest first: who still buys at step t is a slice
        taste, active = built.taste[order], lengths[order]
        popular, habits = _cumulative(built.popular), _cumulative(built.habits.reshape(-1, n_items))
        grid = np.zeros((n_users, lengths.max()), np.int32)
        for t in range(lengths.max()):
            n = int((active > t).sum())
            grid[:n, t] = _draw(popular, taste[:n], rng)
            if t:
                weights = s.recency ** np.arange(t - 1, -1, -1) * built.affinity[taste[:n, None], grid[:n, :t]]
                cumulative = weights.cumsum(1)
                position = (cumulative <= rng.random((n, 1)) * cumulative[:, -1:]).sum(1)
                anchor = grid[np.arange(n), np.minimum(position, t - 1)]
                back = np.flatnonzero(rng.random(n) < self._share)
                grid[back, t] = _draw(habits, taste[back] * n_items + anchor[back], rng)
        bought = np.empty_like(grid)
        bought[order] = grid
        taken = np.arange(grid.shape[1]) < lengths[:, None]
        return pd.DataFrame(
            {
                Columns.USER: np.repeat(np.arange(n_users, dtype=np.int32), lengths),
                Columns.ITEM: bought[taken],
                Columns.TIME: _times(taken, rng)[taken],
                Columns.VALUE: np.ones(lengths.sum(), np.float32),
            }
        )

    def _purchase_likelihood(self, built: _Market, histories: Sequences) -> np.ndarray:
        """(K, N) log p(h_i | what stands before it, taste), for every purchase; one pass over the lags."""
        items, positions = histories.items, histories.positions
        liked, total = np.zeros((2, len(NOTES), len(items)))
        for lag in range(1, int(histories.lengths.max(initial=0))):
            at = np.flatnonzero(positions >= lag)
            before = items[at - lag]
            weight = self.settings.recency ** (lag - 1) * built.affinity[:, before]
            liked[:, at] += weight * built.habits[:, before, items[at]]
            total[:, at] += weight
        first = positions == 0
        back = np.where(first, 0.0, self._share)
        return np.log((1 - back) * built.popular[:, items] + back * liked / np.where(first, 1.0, total))

    def _attribute_tables(self) -> dict[str, np.ndarray]:
        """(K, levels) for each attribute: how common a level is among the users of a taste; one language for all markets."""
        rng = self._rng("attributes")
        tables = {name: np.exp(self.settings.attributes * rng.normal(size=(len(NOTES), levels))) for name, levels in ATTRIBUTES.items()}
        return {name: table / table.sum(1, keepdims=True) for name, table in tables.items()}

    def _attribute_likelihood(self, built: _Market) -> np.ndarray:
        """(users, K) log p(attributes | taste)."""
        return sum(np.log(table[:, built.users[name] - 1]).T for name, table in self._attribute_tables().items())


class Oracle(Recommender):
    """The Bayes-optimal next-item scores: exact probabilities, nothing learned. ``fit`` only checks the catalogue."""

    def __init__(self, world: ToyWorld, market: str, knows: str = "history") -> None:
        _check_knows(knows)
        self.world, self.market, self.knows = world, market, knows
        self.n_items = len(world._market(market).items)

    def fit(self, data: Dataset, valid: Fold | None = None) -> Self:
        if data.n_items != self.n_items:
            raise DataError(f"{data.name} has {data.n_items} items, toy-{self.market} has {self.n_items}; the oracle knows the whole catalogue only")
        return self

    def scores(self, histories: Sequences) -> torch.Tensor:
        return torch.from_numpy(self.world.next_item_probabilities(self.market, histories, self.knows)).float()


@dataclass
class _Market:
    """One market, built: tables, and K tastes × I items of truth."""

    items: pd.DataFrame
    users: pd.DataFrame
    popularity: np.ndarray  # (I,)
    taste: np.ndarray  # (U,) the hidden taste of each user
    affinity: np.ndarray  # (K, I) A_z
    popular: np.ndarray  # (K, I) P_z
    habits: np.ndarray  # (K, I, I) H_z
    clicked: np.ndarray  # (K, I) probability of a click when shown
    interactions: pd.DataFrame | None = None
    queries: Queries | None = None


def _check_knows(knows: str) -> None:
    if knows not in ("history", "attributes", "user"):
        raise DataError(f"knows is {knows!r}; it must be history, attributes or user")


def _cumulative(weights: np.ndarray) -> np.ndarray:
    """(R, I) weights as one ascending line: row r runs from r to r + 1, so that one search finds any row."""
    sums = weights.cumsum(1)
    return sums / sums[:, -1:] + np.arange(len(weights))[:, None]


def _draw(cumulative: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One column for each row named, by inverse transform."""
    n = cumulative.shape[1]
    found = np.searchsorted(cumulative.ravel(), rows + rng.random(len(rows)), side="right") - rows * n
    return np.minimum(found, n - 1)  # rows + u may round up to rows + 1


def _times(taken: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(U, L) seconds since 1970: half of the purchases follow within minutes, in the same session, the others after days."""
    same = rng.random(taken.shape) < 0.5
    gaps = np.where(same, rng.uniform(0.5 * MINUTE, 10 * MINUTE, taken.shape), DAY * (0.5 + rng.exponential(5.0, taken.shape)))
    gaps[:, 0] = rng.uniform(0, 90 * DAY, len(taken))
    return EPOCH + gaps.cumsum(1).round()


def _relations(items: pd.DataFrame, language: Language) -> dict[str, np.ndarray]:
    family, flavour = (items[c].to_numpy() for c in ("family", "flavour"))
    partner = items["family"].map({name: f.complement for name, f in language.families.items()}).to_numpy()
    return {
        "again": np.eye(len(items), dtype=bool),
        "flavour": (family[:, None] == family) & (flavour[:, None] != flavour),
        "complement": partner[:, None] == family,
    }


def _items(market: str, n: int, rng: np.random.Generator, silent: np.ndarray) -> pd.DataFrame:
    """Brands make lines (a family in one diet), and a line comes in several flavours, which ``silent`` ones do not name."""
    language = LANGUAGES[MARKETS[market].language]
    lines = [(brand, family) for brand in MARKETS[market].brands for family in language.families]
    rows: list[dict] = []
    for line in rng.permutation(len(lines)):
        brand, family = lines[line]
        kind, diet = language.families[family], rng.choice(list(language.diets))
        flavours = rng.permutation(kind.flavours)[: rng.integers(4, 7)]
        rows += [{"brand": brand, "family": family, "flavour": str(f), "diet": str(diet), "category": kind.category} for f in flavours]
    if n > len(rows):
        raise DataError(f"toy-{market}: {n} items asked for, but its brands and flavours make {len(rows)} at most; ask for fewer")
    note = {flavour: name for name in NOTES for flavour in language.notes[name].flavours}
    places: dict[str, int] = {}
    for row, keeps_still in zip(rows[:n], silent, strict=True):
        kind = language.families[row["family"]]
        row["note"] = note[row["flavour"]]
        count = places[row["flavour"]] = places.get(row["flavour"], -1) + 1
        part, place = divmod(count, len(language.places))
        words = {
            **row,
            "Flavour": row["flavour"].title(),
            "thing": rng.choice(kind.things),
            "detail": rng.choice(kind.details),
            "mood": rng.choice(language.notes[row["note"]].moods),
            "scene": language.notes[row["note"]].flavours[row["flavour"]],
            "claim": rng.choice(language.diets[row["diet"]]),
            "size": rng.choice(kind.sizes),
            "place": language.places[place] + (f", Part {part + 1}" if part else ""),
        }
        if keeps_still:
            words |= {"Flavour": "House", "flavour": "house", "scene": "care"}
        row["title"] = language.title.format(**words)
        sentences = [re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", rng.choice(choices).format(**words)) for choices in language.sentences]
        row["description"] = " ".join(s[0].upper() + s[1:] for s in sentences)
        row["price"] = round(float(rng.lognormal(np.log(kind.price), 0.3)), 2)
    table = pd.DataFrame(rows[:n])
    table.insert(0, Columns.RAW, [f"{market}-item-{i}" for i in range(n)])
    table.insert(1, Columns.TEXT, table["title"] + ". " + table["description"])
    return table[["raw", "text", "title", "description", "category", "family", "brand", "flavour", "note", "diet", "price"]]


def _queries(items: pd.DataFrame, language: Language) -> Queries:
    """Every query that has an answer, in a fixed order."""
    says = {mood: items["text"].str.contains(rf"\b{mood}\b").to_numpy() for note in language.notes.values() for mood in note.moods}
    flavours = [flavour for note in language.notes.values() for flavour in note.flavours]
    names = {flavour: items["text"].str.contains(rf"\b{flavour}\b", case=False).to_numpy() for flavour in flavours}
    column = {c: items[c].to_numpy() for c in ("family", "flavour", "note", "diet")}
    asked: list[tuple[str, str, np.ndarray]] = []  # text, kind, (I,) grades

    def ask(text: str, kind: str, answers: np.ndarray, says_so: np.ndarray) -> None:
        if answers.any():
            asked.append((text, kind, answers.astype(int) + (answers & says_so)))

    for name, note in language.notes.items():
        means = column["note"] == name
        for i, mood in enumerate(note.moods):
            ask(mood, "mood", means, says[mood])
            for other in note.moods[i + 1 :]:
                ask(f"{mood} {other}", "pair", means, says[mood] | says[other])
            for family in language.families:
                ask(f"{mood} {family}", "mood family", means & (column["family"] == family), says[mood])
        for family in language.families:
            for flavour in note.flavours:
                if ((column["family"] == family) & (column["flavour"] == flavour)).any():
                    exact = names[flavour] & (column["flavour"] == flavour)
                    ask(f"{flavour} {family}", "flavour family", means & (column["family"] == family), exact)
    for diet in language.diets:
        for family in language.families:
            exact = (column["family"] == family) & (column["diet"] == diet)
            ask(f"{diet} {family}", "diet family", exact, exact)
    query, item = np.nonzero(np.stack([grades for _, _, grades in asked]))
    grade = np.concatenate([grades[grades > 0] for _, _, grades in asked])
    texts = pd.DataFrame({"query": np.arange(len(asked)), "text": [a[0] for a in asked], "kind": [a[1] for a in asked]})
    return Queries(texts, pd.DataFrame({"query": query, Columns.ITEM: item.astype(np.int32), "grade": grade}))


@lru_cache(maxsize=2)
def search_world(telling: float = 0.5, taste: float = 3.0) -> ToyWorld:
    """The world of the chapter on search: links say more of the notes than in the other chapters, and texts less; its log saw popular items mostly.

    Args:
        telling, taste: see ``ToySettings``; the two that decide whether texts or links know more.
    """
    settings = {"users": (6000, 20, 20), "tail": 0.5, "again": 0.1, "flavour": 0.7, "complement": 0.05, "bias": 2.0}
    return ToyWorld(ToySettings(taste=taste, telling=telling, **settings))
