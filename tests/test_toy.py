"""The toy world says what is true of itself; here that is held against slow arithmetic and against what it generates."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.stats import chi2

from zsrbook.data.dataset import DataError, Sequences
from zsrbook.data.splits import Fold, compact
from zsrbook.data.toy import ATTRIBUTES, ToySettings, ToyWorld
from zsrbook.data.toy_language import GROCERIES, LANGUAGES, MARKETS, NOTES
from zsrbook.evaluation.metrics import recall_at
from zsrbook.evaluation.ranks import rank_targets
from zsrbook.models.baselines import Popularity

TINY = ToySettings(users=(40, 30, 30), items=(60, 50, 50), history=4.0)


@pytest.fixture(scope="module")
def world() -> ToyWorld:
    return ToyWorld()


@pytest.fixture(scope="module")
def tiny() -> ToyWorld:
    return ToyWorld(TINY)


def plain(world: ToyWorld, market: str, taste: int, history: list[int]) -> np.ndarray:
    """p(j | h, z) as the module's docstring has it: loops, one habit at a time, from the items table alone."""
    s, items = world.settings, world.dataset(market).items.to_dict("records")
    language = LANGUAGES[MARKETS[market].language]
    n = len(items)
    affinity = np.ones(n)
    for j, item in enumerate(items):
        nats = (item["note"] == NOTES[taste]) + 0.5 * (sorted(language.diets).index(item["diet"]) == taste)
        affinity[j] = np.exp(s.structure * s.taste * nats)
    popular = world.popularity(market) * affinity
    popular /= popular.sum()
    if not history:
        return popular
    look_back = np.zeros(n)
    pull = np.array([s.recency ** (len(history) - 1 - t) * affinity[i] for t, i in enumerate(history)])
    for weight, anchor in zip(pull / pull.sum(), history, strict=True):
        a = items[anchor]
        for share, habit in ((s.again, "again"), (s.flavour, "flavour"), (s.complement, "complement")):
            to = np.zeros(n)
            for j, item in enumerate(items):
                if habit == "again":
                    to[j] = j == anchor
                elif habit == "flavour" and item["family"] == a["family"] and item["flavour"] != a["flavour"]:
                    to[j] = s.loyalty if item["brand"] == a["brand"] else 1
                elif habit == "complement" and item["family"] == language.families[a["family"]].complement:
                    to[j] = s.match if item["diet"] == a["diet"] else 1
            to *= affinity
            look_back += weight * share / s.look_back * (to / to.sum() if to.sum() else popular)
    back = s.structure * s.look_back
    return (1 - back) * popular + back * look_back


@pytest.mark.parametrize("structure", [1.0, 0.4])
def test_probabilities_and_posterior_equal_plain_arithmetic(structure):
    world = ToyWorld(ToySettings(users=(9, 9, 9), items=(30, 30, 30), structure=structure))
    sequences = world.dataset("pantry").sequences().take(np.arange(3)).last(4)
    posterior, user = [], world.tastes("pantry", sequences, "user").argmax(1)
    for row in range(3):
        history = sequences.items[sequences.starts[row] : sequences.starts[row + 1]].tolist()
        likelihood = [np.prod([plain(world, "pantry", z, history[:t])[item] for t, item in enumerate(history)]) for z in range(len(NOTES))]
        posterior.append(np.array(likelihood) / np.sum(likelihood))
        given_taste = [plain(world, "pantry", z, history) for z in range(len(NOTES))]
        found = {knows: world.next_item_probabilities("pantry", sequences, knows)[row] for knows in ("history", "user")}
        np.testing.assert_allclose(found["history"], posterior[-1] @ given_taste, rtol=1e-10)
        np.testing.assert_allclose(found["user"], given_taste[user[row]], rtol=1e-10)
    np.testing.assert_allclose(world.tastes("pantry", sequences), posterior, rtol=1e-9)


@pytest.mark.parametrize("knows", ["history", "attributes", "user"])
def test_rows_sum_to_one_and_empty_histories_are_served(tiny, knows):
    histories = Sequences.of([[], [0], [3, 3, 3], list(range(20)), []])
    probabilities = tiny.next_item_probabilities("grocery", histories, knows)
    assert probabilities.shape == (5, 60)
    assert (probabilities > 0).all()
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-12)
    one = np.concatenate([tiny.next_item_probabilities("grocery", histories.take(np.array([r])), knows) for r in range(5)])
    np.testing.assert_allclose(one, probabilities, rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    structure=st.floats(0, 1),
    shares=st.tuples(*[st.floats(0, 0.33)] * 3),
    recency=st.floats(0.01, 1),
    histories=st.lists(st.lists(st.integers(0, 39), max_size=12), min_size=1, max_size=6),
)
def test_any_dials_and_histories_give_distributions(structure, shares, recency, histories):
    dials = dict(zip(("again", "flavour", "complement"), shares, strict=True), structure=structure, recency=recency)
    world = ToyWorld(ToySettings(users=(8, 8, 8), items=(40, 40, 40), **dials))
    for knows in ("history", "attributes", "user"):
        probabilities = world.next_item_probabilities("films", Sequences.of(histories), knows)
        assert (probabilities >= 0).all()
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-9)
        np.testing.assert_allclose(world.tastes("films", Sequences.of(histories), knows).sum(1), 1, rtol=1e-9)


@pytest.mark.parametrize("knows", ["history", "attributes", "user"])
def test_what_users_buy_next_follows_the_stated_probabilities(world, knows):
    """Two chi-square tests at level 1e-4: how often each item comes next, and how often what was given p per cent comes true."""
    sequences = world.dataset("pantry").sequences()
    at = np.arange(len(sequences.items))
    predicted = world.next_item_probabilities("pantry", sequences.prefixes(at), knows)
    happened = np.zeros_like(predicted)
    happened[at, sequences.items] = 1
    expected, seen = predicted.sum(0), happened.sum(0)
    assert ((seen - expected) ** 2 / expected).sum() < chi2.ppf(1 - 1e-4, len(expected) - 1)
    edges = np.quantile(predicted, np.linspace(0, 1, 21)[1:-1])
    level = np.digitize(predicted, np.append(edges, [0.02, 0.05, 0.1, 0.2, 0.3])).ravel()
    expected, seen, spread = (np.bincount(level, v.ravel()) for v in (predicted, happened, predicted * (1 - predicted)))
    assert ((seen - expected) ** 2 / spread).sum() < chi2.ppf(1 - 1e-4, len(expected))


def test_the_posterior_over_tastes_is_calibrated(world):
    empty = Sequences.of([[]] * 6000)
    truth = world.tastes("grocery", empty, "user")
    for belief in (world.tastes("grocery", empty, "attributes"), world.tastes("grocery", world.dataset("grocery").sequences())):
        right = (belief.argmax(1) == truth.argmax(1)).mean()
        spread = np.sqrt((belief.max(1) * (1 - belief.max(1))).sum()) / len(belief)
        assert abs(right - belief.max(1).mean()) < 4 * spread
        assert right > 0.5  # chance is a quarter


def test_without_structure_nothing_beats_popularity():
    world = ToyWorld(ToySettings(structure=0.0))
    sequences = world.dataset("pantry").sequences()
    for knows in ("history", "attributes", "user"):
        probabilities = world.next_item_probabilities("pantry", sequences, knows)
        np.testing.assert_allclose(probabilities, np.tile(world.popularity("pantry"), (len(sequences), 1)), rtol=1e-12)
    bought = np.bincount(sequences.items, minlength=280)
    expected = len(sequences.items) * world.popularity("pantry")
    assert ((bought - expected) ** 2 / expected).sum() < chi2.ppf(1 - 1e-4, 279)


def test_the_oracle_beats_popularity_by_far(world):
    data = world.dataset("grocery")
    fold = Fold(data, (data.sequences().positions > 0) & (np.random.default_rng(0).random(len(data)) < 0.2))
    recall = {
        name: recall_at(rank_targets(model.fit(data), fold), 20).mean()
        for name, model in {"pop": Popularity(), "history": world.oracle("grocery"), "user": world.oracle("grocery", "user")}.items()
    }
    assert 0.15 < recall["pop"] < 0.3
    assert 0.5 < recall["history"] < 0.65
    assert recall["history"] - 0.01 < recall["user"] < recall["history"] + 0.05


def test_scores_of_sets_equal_plain_arithmetic():
    """With a recency of 1 the order of a history is of no account, so rates are those of ``plain``."""
    world = ToyWorld(replace(TINY, recency=1.0))
    known = [3, 17, 30, 44]
    found = world.set_scores("pantry", csr_array(np.isin(np.arange(50), known)[None] * 1.0))[0]
    asked, by_taste = [0, 5, 41], np.zeros((len(NOTES), 3))
    for z in range(len(NOTES)):
        own = [np.log(plain(world, "pantry", z, [k for k in known if k != i])[i]) for i in known]
        for column, j in enumerate(asked):
            after = [np.log(plain(world, "pantry", z, [k for k in known if k != i] + [j])[i]) for i in known]
            by_taste[z, column] = sum(own) + np.log(plain(world, "pantry", z, known)[j]) + (sum(after) - sum(own)) / 2
    assert found[asked] == pytest.approx(np.log(np.exp(by_taste).sum(0)))


def test_each_habit_makes_up_its_share(world):
    """Buying again, other flavours and complements each make up their share of what follows the newest purchase."""
    sequences = world.dataset("grocery").sequences()
    at = np.flatnonzero(sequences.positions == 1)  # one earlier purchase, so the anchor is known
    before, after = sequences.items[at - 1], sequences.items[at]
    s = world.settings
    for name, share in (("again", s.again), ("flavour", s.flavour), ("complement", s.complement)):
        measured = world.relations("grocery")[name][before, after].mean()
        by_chance = (1 - s.look_back) * 0.15  # what popularity brings by accident
        assert share - 0.03 < measured < share + by_chance


def test_clicks_come_as_often_as_stated(world):
    shown = world.impressions("pantry", 40_000, seed=3)
    p, click = shown["probability"].to_numpy(), shown["click"].to_numpy()
    np.testing.assert_allclose(p, world.click_probability("pantry", shown["user"].to_numpy(), shown["item"].to_numpy()))
    level = np.unique(p.round(9), return_inverse=True)[1]
    expected, seen, spread = (np.bincount(level, v) for v in (p, click, p * (1 - p)))
    assert len(expected) > 2
    assert ((seen - expected) ** 2 / spread).sum() < chi2.ppf(1 - 1e-4, len(expected))
    assert shown["time"].is_monotonic_increasing
    belief = world.tastes("pantry", Sequences.of([[]] * 2000), "attributes")[shown["user"]]
    guessed = world.click_probability("pantry", shown["user"].to_numpy(), shown["item"].to_numpy(), belief)
    assert abs(guessed.mean() - click.mean()) < 0.01
    assert np.corrcoef(guessed, click)[0, 1] > 0.5 * np.corrcoef(p, click)[0, 1]


def test_markets_share_a_language_and_nothing_else(world):
    data = {market: world.dataset(market) for market in world.markets}
    assert tuple(data) == ("grocery", "pantry", "films")
    for a, b in (("grocery", "pantry"), ("grocery", "films"), ("pantry", "films")):
        for table, column in (("items", "raw"), ("users", "raw"), ("items", "brand"), ("items", "title"), ("items", "text")):
            assert not set(getattr(data[a], table)[column]) & set(getattr(data[b], table)[column]), (a, b, column)
    for column in ("family", "flavour", "diet", "note"):
        assert set(data["grocery"].items[column]) == set(data["pantry"].items[column])
    assert not set(data["grocery"].items["family"]) & set(data["films"].items["family"])
    brands = {market: set(words.brands) for market, words in MARKETS.items()}
    assert not any(brand in text for brand in brands["grocery"] for text in data["pantry"].items["text"])
    assert not any(brand in text for brand in brands["pantry"] for text in data["grocery"].items["text"])


@pytest.mark.parametrize("market", ["grocery", "pantry", "films"])
def test_items_read_well(world, market):
    items = world.dataset(market).items
    assert items["title"].is_unique
    assert not items["text"].str.contains(r"[{}_]|\b[Aa] [aeiou]|\.\.| ,|  ").any()
    assert (items["text"] == items["title"] + ". " + items["description"]).all()
    language = LANGUAGES[MARKETS[market].language]
    for _, item in items.iterrows():
        moods = [(name, mood) for name, note in language.notes.items() for mood in note.moods if re.search(rf"\b{mood}\b", item["text"])]
        assert len(moods) == 1, item["text"]
        assert moods[0][0] == item["note"]


def test_users_and_times(world):
    data = world.dataset("grocery")
    assert data.clock
    assert list(data.users.columns) == ["raw", *ATTRIBUTES]
    assert len(ATTRIBUTES) == 9
    for name, levels in ATTRIBUTES.items():
        assert data.users[name].between(1, levels).all()
    sequences = data.sequences()
    assert abs(sequences.lengths.mean() - world.settings.history) < 0.3
    gaps = np.diff(sequences.times)[np.diff(sequences.rows) == 0]
    assert (gaps > 0).all()
    assert 0.4 < (gaps <= 600).mean() < 0.6
    assert (gaps[gaps > 600] >= 43_200).all()
    assert sequences.times.min() >= 1_704_067_200


@pytest.mark.parametrize("market", ["grocery", "films"])
def test_relevance_of_queries(world, market):
    queries, items = world.queries(market), world.dataset(market).items
    pairs = queries.relevance.merge(queries.texts, on="query").merge(items, left_on="item", right_index=True, suffixes=("_query", "_item"))
    assert set(queries.texts["kind"]) == {"mood", "pair", "mood family", "flavour family", "diet family"}
    assert queries.texts["text"].is_unique
    assert set(pairs["query"]) == set(queries.texts["query"])
    assert set(pairs["grade"]) == {1, 2}
    words = pairs[pairs["kind"].isin(["mood", "pair"])]
    assert (words.groupby("query")["note"].nunique() == 1).all()
    for _, pair in words.sample(300, random_state=0).iterrows():
        says = [bool(re.search(rf"\b{word}\b", pair["text_item"])) for word in pair["text_query"].split()]
        assert (pair["grade"] == 2) == any(says)
        assert sum(says) < 2  # the two words of a pair never stand in one text
    assert {"funny prank", "prank goofy"} <= set(queries.texts["text"]) or market == "grocery"


def test_words_that_never_meet_have_common_neighbours(world):
    """Who buys an item that says one word of a pair goes on to items that say the other, more than chance has it."""
    sequences, text = world.dataset("films").sequences(), world.dataset("films").items["text"]
    funny, prank = (text.str.contains(rf"\b{word}\b").to_numpy() for word in ("funny", "prank"))
    at = np.flatnonzero(sequences.positions > 0)
    before, after = sequences.items[at - 1], sequences.items[at]
    assert not (funny & prank).any()
    assert prank[after][funny[before]].mean() > 1.3 * prank[after][~funny[before]].mean()


def test_the_search_log_clicks_relevant_items_and_prefers_popular_ones(world):
    log, queries = world.search_log("pantry", 30_000, seed=0), world.queries("pantry")
    judged = log.merge(queries.relevance, on=["query", "item"], how="left")
    assert judged["grade"].notna().all()
    fair = ToyWorld(ToySettings(bias=0.0)).search_log("pantry", 30_000, seed=0)
    popularity = world.popularity("pantry")
    assert popularity[log["item"]].mean() > 1.3 * popularity[fair["item"]].mean()


def test_seeds_repeat_and_differ():
    def world(**dials) -> ToyWorld:
        return ToyWorld(ToySettings(**{"users": TINY.users, "items": TINY.items, **dials}))

    a, b, c = world(), world(), world(seed=1)
    assert a.dataset("films").sha256() == b.dataset("films").sha256() != c.dataset("films").sha256()
    assert a.impressions("films", 50, 1).equals(b.impressions("films", 50, 1))
    assert not a.impressions("films", 50, 1).equals(a.impressions("films", 50, 2))
    assert a.search_log("films", 50, 1).equals(b.search_log("films", 50, 1))
    # a dial moves what it names alone: the catalogue and its popularity stay when behaviour changes
    d = world(structure=0.2)
    assert d.dataset("films").items.equals(a.dataset("films").items)
    np.testing.assert_array_equal(d.popularity("films"), a.popularity("films"))


def test_the_tail_dial():
    share = [np.sort(ToyWorld(ToySettings(tail=tail)).popularity("grocery"))[-20:].sum() for tail in (0.0, 0.5, 1.0)]
    assert share[0] == pytest.approx(20 / 360)
    assert share[0] < share[1] < share[2]


def test_errors_say_what_to_do(tiny):
    with pytest.raises(DataError, match="no market 'garden'; it has grocery, pantry, films"):
        tiny.dataset("garden")
    with pytest.raises(DataError, match="knows is 'all'; it must be history, attributes or user"):
        tiny.oracle("grocery", "all")
    with pytest.raises(DataError, match="item code 60 at place 0; expected 0 to 59"):
        tiny.oracle("grocery").scores(Sequences.of([[60]]))
    with pytest.raises(DataError, match="histories: user code 40 at place 40; expected 0 to 39"):
        tiny.next_item_probabilities("grocery", Sequences.of([[1]] * 41), "user")
    with pytest.raises(DataError, match="the oracle knows the whole catalogue only"):
        tiny.oracle("films").fit(compact(tiny.dataset("grocery")))
    with pytest.raises(DataError, match=r"structure=1\.5; expected 0 to 1"):
        ToySettings(structure=1.5)
    with pytest.raises(DataError, match=r"again=0\.9, flavour=0\.25, complement=0\.2; expected a sum below 1"):
        ToySettings(again=0.9)
    with pytest.raises(DataError, match=r"make \d+ at most; ask for fewer"):
        ToyWorld(ToySettings(items=(100_000, 50, 50))).dataset("grocery")


def test_complements_lead_somewhere():
    for language in LANGUAGES.values():
        assert {f.complement for f in language.families.values()} <= set(language.families)
        for note in language.notes.values():
            assert all(set(note.flavours) & set(f.flavours) for f in language.families.values())
    assert {name for name, f in GROCERIES.families.items() if f.complement == "herbal tea"} >= {"snack bar", "dark chocolate"}


def test_texts_may_keep_their_flavour_to_themselves() -> None:
    told, silent = (ToyWorld(ToySettings(users=(50, 20, 20), telling=telling)) for telling in (1.0, 0.0))
    before, after = told.dataset("grocery"), silent.dataset("grocery")
    pd.testing.assert_frame_equal(before.interactions, after.interactions)
    names = zip(before.items["text"], after.items["text"], before.items["flavour"], strict=True)
    assert all(flavour in text.lower() and flavour not in still.lower() for text, still, flavour in names)
    grades = [world.queries("grocery").relevance.set_index(["query", "item"])["grade"] for world in (told, silent)]
    assert (grades[1] <= grades[0]).all()  # the same answers, fewer of which say so
    assert grades[1].sum() < grades[0].sum()


def test_search_data_holds_what_the_world_says(world):
    data = world.search("grocery", n=500)
    found, log = world.queries("grocery"), world.search_log("grocery", 500, 0)
    assert data.items["text"].tolist() == world.dataset("grocery").items["text"].tolist()
    assert data.queries["text"].tolist() == found.texts["text"].tolist()
    assert data.relevance.equals(found.relevance)
    assert data.log.equals(log)
    assert data.links.sum(axis=1).max() == 20
    assert world.search("grocery", n=500).sha256 == data.sha256 != world.search("grocery", n=500, seed=1).sha256
    assert (world.search("grocery", top=5).links.sum(axis=1) <= 5).all()


def test_no_text_holds_both_words_of_a_pair_and_links_join_items_of_one_note(world):
    for market in ("grocery", "pantry", "films"):
        data = world.search(market, n=1)
        pairs = data.queries["text"][data.queries["kind"] == "pair"].str.split()
        says = {word: data.items["text"].str.contains(rf"\b{word}\b") for pair in pairs for word in pair}
        assert len(pairs) == 12
        assert not any((says[one] & says[other]).any() for one, other in pairs)
        assert np.add.reduce([mood.to_numpy(int) for mood in says.values()]).tolist() == [1] * data.n_items

        row, column = data.links.nonzero()
        note = data.items["note"].to_numpy()
        same = (note[row] == note[column]).mean()
        chance = sum((note == name).mean() ** 2 for name in NOTES)
        assert same > chance + 0.06


def test_links_say_nothing_without_structure():
    data = ToyWorld(ToySettings(structure=0.0)).search("grocery", n=1)
    note, (row, column) = data.items["note"].to_numpy(), data.links.nonzero()
    chance = sum((note == name).mean() ** 2 for name in NOTES)
    assert (note[row] == note[column]).mean() == pytest.approx(chance, abs=0.02)


def test_the_hint_for_a_class_shows_the_true_chances_of_what_comes_next(capsys):
    page = (Path(__file__).resolve().parents[1] / "book" / "teaching.md").read_text(encoding="utf-8")
    world = ToyWorld(TINY)
    pantry = world.dataset("pantry")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    exec(code, {"np": np, "world": world, "pantry": pantry, "sequences": pantry.sequences(), "Sequences": Sequences})
    assert re.search(r"(\n0\.\d{3} \w.+){5}\ntaken: \w.+\n$", capsys.readouterr().out)
