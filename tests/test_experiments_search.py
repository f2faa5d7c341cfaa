"""The experiments of the search chapter on a tiny toy world: what each row learns from and is judged on, and numbers whose answer is known."""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from itertools import product
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import numpy as np
import pandas as pd
import pytest
import snowballstemmer
import torch
import yaml
from scipy.sparse import csr_array
from tiny import WORDS

from zsrbook.data.dataset import Columns, DataError
from zsrbook.data.search import SearchData
from zsrbook.data.toy import ToyWorld
from zsrbook.evaluation.intervals import difference
from zsrbook.evaluation.ranks import RankTable
from zsrbook.evaluation.retrieval import METRICS
from zsrbook.experiments import search
from zsrbook.experiments.search import (
    SQUARE,
    Spec,
    System,
    as_record,
    deviating,
    encoding,
    fitted,
    judged,
    load,
    parts,
    scored,
    systems,
    tuned,
    tuning,
)
from zsrbook.experiments.seeds import as_config
from zsrbook.models.retriever import Retriever
from zsrbook.models.search import shuffled_links
from zsrbook.records import RunRecord
from zsrbook.scale import Scale
from zsrbook.text import TextEncoder

SPEC, HELD = Spec("grocery", Scale.TOY), Spec("grocery", Scale.TOY, held_out=True)
WAYS = ("labels", "apart", "log", "links")
#: rows that held-out links would change, a few of them
LEARN_LINKS = (
    *("ZSL_ME", "ZSL_TE", "ZSL_TE (folded in)", "ZSL_ME (cross-entropy)", "ZSL_TE (cross-entropy)", "ZSL_TE (shuffled)"),
    *("ZSL_ME (rewired)", "ZSL_TE (rewired)", "Popular", "BM25 + Popular"),
)
STEMMER = snowballstemmer.stemmer("english")
toy_world = search.toy_world


@cache
def small_world(*told: float) -> ToyWorld:
    """As the chapter's, of fewer people and items."""
    return ToyWorld(replace(toy_world(*told).settings, users=(150, 20, 20), items=(80, 20, 20)))


def forget() -> None:
    for cached in (load, tuning):
        cached.cache_clear()


@pytest.fixture(scope="module", autouse=True)
def tiny_world(tmp_path_factory):
    """Few people, one epoch or two sweeps, narrow vectors, four settings to choose from at first, bags of words for the text encoder, one
    thread, a cache of its own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sizes = search.SIZES[Scale.TOY]
    short = search.Sizes(
        replace(sizes.square, width=8, sweeps=2),
        replace(sizes.softmax, width=8, batch=1024, longest=8, training=replace(sizes.softmax.training, epochs=1)),
        lsi=8,
        draws=2,
        kept=3,
        until=8,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZSRBOOK_WORKERS", "1")
        patch.setattr(search, "toy_world", small_world)
        patch.setattr(search, "CLICKS", 1000)
        patch.setattr(search, "LAMBDAS", (0.03, 0.3))
        patch.setattr(search, "OMEGAS", (0.03, 0.3))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(TextEncoder, "encode", lambda self, texts, cache=True: WORDS.transform(texts).toarray().astype(np.float16))
        patch.setitem(search.SIZES, Scale.TOY, short)
        forget()
        yield
    forget()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tiny_world) -> SearchData:
    return load(SPEC)


@pytest.fixture(scope="module")
def rows(tiny_world) -> list[System]:
    return [*systems(SPEC), *deviating(SPEC), *encoding(SPEC)]


@pytest.fixture(scope="module")
def records(rows) -> dict[tuple[str, str], RunRecord]:
    """Seed 0 of every row, judged in every way."""
    return {(r.experiment, r.method): r for r in search.run(SPEC, [0], rows)}


def only(*names: str) -> list[System]:
    return [row for row in systems(SPEC) if row.name in names]


def made(row: System, seed: int) -> Retriever:
    """Its model and those below, not fitted."""
    return row.make(seed, *(made(below, seed) for below in row.on))


def pairs_of(table: RankTable) -> set[tuple[int, int]]:
    return set(zip(table.user.tolist(), table.target.tolist(), strict=True))


def stems(text: str) -> set[str]:
    return {STEMMER.stemWord(word) for word in re.findall(r"\w+", text.lower())}


def same_ranks(one: RankTable, two: RankTable) -> bool:
    return all((getattr(one, name) == getattr(two, name)).all() for name in ("user", "target", "greater", "ties", "n_candidates"))


class Spy(Retriever):
    """Keeps what it is fitted on, and knows nothing."""

    def __init__(self, seed: int = 0):
        self.seed = seed

    def fit(self, data: SearchData) -> Self:
        self.seen = data
        return self

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        return np.zeros((len(queries), self.seen.n_items), np.float32)


# ---------------------------------------------------------------- the rows


def test_rows_are_there_once_and_have_what_they_stand_on(rows):
    names = [row.name for row in rows]
    assert len(set(names)) == len(names) == 50 + 14
    assert all(below in rows for row in rows for below in row.on)
    certain = {"BM25", "BM25 (spread)", "Sentences", "Popular", "BM25 + Popular", "Sentences + Popular"}
    assert {row.name for row in rows if not row.chance} == certain
    controls = {row.name: row.links for row in rows if row.links != "own"}
    of_zsl = {f"{name} ({how})": how for name in ("ZSL_ME", "ZSL_TE") for how in ("shuffled", "rewired")}
    assert controls == of_zsl | {"BM25 (spread, shuffled)": "shuffled"}
    assert {row.name for row in rows if row.log} == {name for name in names if "SMC" in name or "rescaled" in name}


def test_without_a_log_that_can_teach_there_is_no_row_that_learns_from_it(data, monkeypatch):
    silent = replace(data, log=data.log[:0])
    lone = replace(data, queries=data.queries.assign(text=[f"word{i}" for i in range(len(data.queries))]))
    lone = replace(lone, log=data.log.drop_duplicates("query"))  # and none that was searched for three times
    for untaught in (silent, lone):
        monkeypatch.setattr(search, "load", lambda spec, found=untaught: found.hold_out() if spec.held_out else found)
        assert not [row.name for row in systems(SPEC) if "SMC" in row.name or "rescaled" in row.name]


def test_a_word_that_many_search_for_teaches_though_it_stands_in_one_query(data):
    once = SearchData(data.name, data.items, data.links, data.queries[:1].assign(text="cosy"), data.relevance[:0], data.log[:3].assign(query=0))
    assert search.SMC(search.SIZES[Scale.TOY].softmax).fit(once).vocabulary.words == ("cosy",)


def test_who_read_the_log_is_not_judged_by_labels_made_of_it(data, rows, monkeypatch):
    smc, stl = ({row.name: row for row in rows}[name] for name in ("SMC", "STL"))
    everything = {"labels", "apart", "log", "links"}
    assert judged(SPEC, smc).keys() == judged(SPEC, stl).keys() == everything
    monkeypatch.setattr(search, "load", lambda spec: replace(data, labels_from_log=True))
    assert judged(SPEC, smc).keys() == {"log", "links"}
    assert judged(SPEC, stl).keys() == everything


def test_links_that_settings_were_chosen_on_are_others_than_those_judged():
    judged_here = set(zip(*search.load(replace(SPEC, held_out=True)).held_out.nonzero(), strict=True))
    for draw in range(search.SIZES[Scale.TOY].draws):
        tuned_on = set(zip(*search.load(SPEC).hold_out(seed=draw).held_out.nonzero(), strict=True))
        assert len(judged_here & tuned_on) < 0.25 * len(judged_here)


def test_rows_travel_to_other_processes(rows):
    for row in rows:
        sent = ForkingPickler.loads(ForkingPickler.dumps(row))
        assert (sent.name, sent.config) == (row.name, row.config)
        assert type(made(sent, 3)) is type(made(row, 3))


def test_the_settings_of_a_row_are_those_of_its_model(rows):
    for row in rows:
        model = made(row, 0)
        if hasattr(model, "settings"):
            assert {name: value for name, value in row.config.items() if name != "model"} == as_config(model.settings), row.name
            assert row.config.get("model", type(model).__name__) == type(model).__name__
        assert all(row.config[f"of {below.name}"] == below.config for below in row.on)


def test_a_seed_reaches_every_model_that_has_one(rows):
    for row in rows:
        if row.chance and not row.on and row.name != "BM25 (spread, shuffled)":  # whose chance lies in its links alone
            model = made(row, 7)
            settings = getattr(model, "settings", model)
            assert 7 in (getattr(settings, "seed", None), getattr(model, "seed", None), getattr(getattr(settings, "training", None), "seed", None))


def test_every_row_is_judged_by_all_that_the_data_knows(records, rows, data):
    _, newer = parts(data)
    known = {
        "labels": set(data.relevance[["query", Columns.ITEM]].itertuples(index=False, name=None)),
        "log": set(newer.log[["query", Columns.ITEM]].itertuples(index=False, name=None)),
        "links": set(zip(*(codes.tolist() for codes in data.links.nonzero()), strict=True)),
    }
    said, asked = ([*map(stems, texts)] for texts in (data.items[Columns.TEXT], data.queries["text"]))
    known["apart"] = {(query, item) for query, item in known["labels"] if not asked[query] & said[item]}
    assert 0 < len(known["apart"]) < len(known["labels"])
    assert [*records] == [(way, row.name) for row in rows for way in WAYS]
    for (way, name), record in records.items():
        rules = search.JUDGED[way]
        assert record.protocol == rules.settings()
        assert tuple(record.metrics) == rules.metrics
        assert all(len(values) == 1 and 0 <= values[0] <= 1 for values in record.metrics.values())
        assert list(record.contradictions()) == []
        assert pairs_of(record.ranks[0]) == known[way], name
        assert (record.target, record.scale, record.seeds, record.data_sha256) == ("grocery", Scale.TOY, [0], data.sha256)
        assert list(record.ranks) == [0]


def test_recall_is_the_share_of_labels_at_the_top_of_the_pool(records, data):
    model = fitted(SPEC, only("LSI")[0], 0)[0]
    scores = model.scores(data.queries["text"].tolist())
    kind, found = data.queries["kind"].to_numpy(), []
    for query, relevant in data.relevance.groupby("query")[Columns.ITEM]:
        pool = data.relevance[kind[data.relevance["query"]] == kind[query]][Columns.ITEM].unique()
        best = pool[np.argsort(-scores[query, pool], kind="stable")][: len(relevant)]
        found.append(0.0 if np.isnan(scores[query]).all() else np.isin(best, relevant).mean())
    assert records["labels", "LSI"].metrics["Recall@R"][0] == pytest.approx(np.mean(found), abs=0.003)  # ties are in expectation


def test_the_log_is_judged_pair_by_pair(records, data):
    _, newer = parts(data)
    table = records["log", "Popular"].ranks[0]
    counts = np.bincount(data.links.indices, minlength=data.n_items)
    greater = (counts[None, :] > counts[newer.log[Columns.ITEM], None]).sum(1)
    ties = (counts[None, :] == counts[newer.log[Columns.ITEM], None]).sum(1) - 1
    assert sorted(table.greater) == sorted(greater)
    expected = np.clip((10 - greater) / (ties + 1), 0, 1).mean()
    assert records["log", "Popular"].metrics["Recall@10"][0] == pytest.approx(expected)


def test_what_the_data_does_not_know_judges_nobody(data, monkeypatch):
    def ways(spec: Spec, **changes) -> list[str]:
        monkeypatch.setattr(search, "load", lambda spec: replace(data, **changes))
        return list(judged(spec))

    collection, films = Spec("cacm", Scale.SMALL), Spec("ml-1m-tags", Scale.SMALL)
    assert ways(SPEC) == ["labels", "apart", "log", "links"]
    assert ways(collection) == ["labels", "apart", "corpus", "log", "links"]
    assert ways(films, log=data.log[:0]) == ["labels", "apart", "links"]
    says = data.items.assign(**{Columns.TEXT: " ".join(data.queries["text"])})
    assert ways(SPEC, items=says) == ["labels", "log", "links"]
    assert ways(films, relevance=data.relevance[:0], links=csr_array(data.links.shape)) == ["log"]


def test_seeds_repeat_exactly_in_any_company(records, rows):
    rows = [*systems(SPEC), *(row for row in rows if row.name in ("ZSL_TE (search-9)", "ZSL_TE (GRU)", "ZSL_ME (attention)"))]
    again = {(r.experiment, r.method): r for r in search.run(SPEC, [1, 0], rows[::-1])}
    for row in rows:
        differs = False
        for way in WAYS:
            first, second = records[way, row.name], again[way, row.name]
            assert second.seeds == ([1, 0] if row.chance else [0])
            assert same_ranks(first.ranks[0], second.ranks[0]), (way, row.name)
            differs |= row.chance and not same_ranks(second.ranks[1], second.ranks[0])
        assert differs == row.chance, row.name
    for row in only("SMC + ZSL_TE (rescaled)", "BM25 + ZSL_ME"):  # and alone
        assert all(same_ranks(scored(SPEC, [row], 0)[row.name][0][way], records[way, row.name].ranks[0]) for way in WAYS)


def test_a_row_without_chance_has_one_seed_whichever_are_asked_for():
    assert {r.method: r.seeds for r in search.run(SPEC, [3, 2], only("Popular", "Random"))} == {"Popular": [2], "Random": [3, 2]}


def test_rows_that_stand_on_a_model_fit_it_once_and_count_its_seconds(monkeypatch):
    class Slow(Spy):
        def fit(self, data: SearchData) -> Self:
            fits.append(self.seed)
            now[0] += 3.0
            return super().fit(data)

    class Above(Spy):
        def __init__(self, *on: Retriever):
            self.seen = on[0].seen

    fits, now = [], [0.0]
    monkeypatch.setattr(search.time, "perf_counter", lambda: now[0])
    below = System("below", Slow, {})
    above = [search.on_top(name, Above, below) for name in ("one", "two")]
    found = scored(SPEC, [*above, below], 5)
    assert fits == [5]
    assert {name: seconds for name, (_, seconds) in found.items()} == {"one": 3.0, "two": 3.0, "below": 3.0}


# ---------------------------------------------------------------- who may see what


def test_parts_split_the_log_in_time(data):
    older, newer = parts(data)
    assert older.log[Columns.TIME].max() < newer.log[Columns.TIME].min()
    assert len(newer.log) == 200
    joined = pd.concat([older.log, newer.log]).sort_values(Columns.TIME, kind="stable", ignore_index=True)
    pd.testing.assert_frame_equal(joined, data.log.sort_values(Columns.TIME, kind="stable", ignore_index=True))
    for part in (older, newer):
        assert part.links is data.links
        assert part.relevance is data.relevance


def test_clicks_of_one_moment_are_on_one_side(data):
    log = data.log.assign(**{Columns.TIME: np.arange(len(data.log)) // 300})
    older, newer = parts(replace(data, log=log))
    assert not set(older.log[Columns.TIME]) & set(newer.log[Columns.TIME])
    assert len(newer.log) <= 0.2 * len(log)


def test_an_empty_log_has_two_empty_parts(data):
    assert [len(part.log) for part in parts(replace(data, log=data.log[:0]))] == [0, 0]


@pytest.mark.parametrize("name", ["SMC", "SMC (cosine)"])
def test_smc_sees_the_older_log_alone(data, monkeypatch, name):
    (row,) = only(name)
    before = fitted(SPEC, row, 0)[0]
    newest = data.log[Columns.TIME].to_numpy() > parts(data)[0].log[Columns.TIME].max()

    def items(moved: np.ndarray) -> np.ndarray:
        log = data.log.assign(**{Columns.ITEM: np.where(moved, 0, data.log[Columns.ITEM])})
        monkeypatch.setattr(search, "load", lambda spec: replace(data, log=log))
        return fitted(SPEC, row, 0)[0].items

    np.testing.assert_array_equal(items(newest), before.items)
    assert (items(~newest) != before.items).any()


def test_zero_shot_rows_see_no_query_no_label_and_no_click(data, monkeypatch):
    rows = [row for row in systems(SPEC) if not row.log]
    blind = replace(data, queries=data.queries[:0], relevance=data.relevance[:0], log=data.log[:0])
    queries = data.queries["text"].tolist()
    sighted = {row.name: fitted(SPEC, row, 0)[0].scores(queries) for row in rows}
    monkeypatch.setattr(search, "load", lambda spec: blind)
    for row in rows:
        np.testing.assert_array_equal(fitted(SPEC, row, 0)[0].scores(queries), sighted[row.name], err_msg=row.name)


def test_held_out_links_are_judged_and_never_trained_on(data):
    held = load(HELD)
    assert held.links.multiply(held.held_out).nnz == 0
    assert (held.links + held.held_out != data.links).nnz == 0
    pairs = len({frozenset(pair) for pair in zip(*data.links.nonzero(), strict=True)})
    assert len({frozenset(pair) for pair in zip(*held.held_out.nonzero(), strict=True)}) == round(pairs / 10)
    assert (held.held_out + held.held_out.T).multiply(held.links).nnz == 0, "the way back of a held-out link is held out too"
    model, _ = fitted(HELD, System("spy", Spy, {}), 0)
    assert (model.seen.links != held.links).nnz == 0
    (record,) = search.run(HELD, [0], only("ZSL_TE"))
    assert (record.experiment, record.protocol) == ("held-out", search.HELD_OUT.settings())
    assert pairs_of(record.ranks[0]) == set(zip(*(codes.tolist() for codes in held.held_out.nonzero()), strict=True))
    known = np.diff(held.links.indptr)
    assert (record.ranks[0].n_candidates == data.n_items - 1 - known[record.ranks[0].user]).all(), "nor are links of training candidates"
    assert record.data_sha256 != data.sha256


def test_nothing_learns_from_what_is_held_out(monkeypatch):
    rows = only("STL", *LEARN_LINKS)
    held, queries = load(HELD), load(HELD).queries["text"].tolist()
    before = {row.name: fitted(HELD, row, 0)[0].scores(queries) for row in rows}
    for row in only(*LEARN_LINKS):
        assert not np.array_equal(fitted(SPEC, row, 0)[0].scores(queries), before[row.name], equal_nan=True), "all links teach something else"
    monkeypatch.setattr(search, "load", lambda spec: replace(held, held_out=None))
    for row in rows:
        np.testing.assert_array_equal(fitted(HELD, row, 0)[0].scores(queries), before[row.name], err_msg=row.name)


@pytest.mark.parametrize("seed", [0, 1])
def test_shuffled_rows_learn_from_links_between_other_items(data, seed):
    shuffled, straight = (fitted(SPEC, System("spy", Spy, {}, links=which), seed)[0].seen for which in ("shuffled", "own"))
    assert (straight.links != data.links).nnz == 0
    assert (shuffled.links != shuffled_links(data, seed).links).nnz == 0
    assert shuffled.links.nnz == data.links.nnz
    assert shuffled.links.multiply(data.links).nnz < 0.4 * data.links.nnz
    assert shuffled.items is data.items


# ---------------------------------------------------------------- settings without a query


@pytest.mark.parametrize("stems", [False, True])
def test_the_best_of_the_grid_is_taken(stems):
    for name in SQUARE:
        scores, chosen = tuning(SPEC, name, stems)["MAP"], tuned(SPEC, name, stems)
        lams, omegas = (list(level) for level in scores.index.levels)
        assert list(scores.index) == list(product(lams, omegas)), "a full grid"
        assert scores.index.names == ["λ", "ω₀"]
        assert scores.max() == scores[chosen.lam, chosen.omega]
        assert scores.nunique() > 1
        words = search.STEMS if stems else {}
        assert chosen == replace(search.SIZES[Scale.TOY].square, lam=chosen.lam, omega=chosen.omega, **words)
        assert tuned(HELD, name, stems) == chosen
        for best, values, limits in ((chosen.lam, lams, search.LAMBDA_LIMITS), (chosen.omega, omegas, search.OMEGA_LIMITS)):
            assert min(values) < best < max(values) or best in limits, "the best has neighbours on both sides, or there are none"


def test_the_grid_grows_towards_a_best_at_its_edge_and_no_further(monkeypatch):
    fits = []

    def summary(self, table, metrics):
        fits.append(table)
        return {"MAP": -abs(np.log(table["lam"] / 20)) - abs(np.log(table["omega"] / 0.2))}

    monkeypatch.setattr(search, "kept", lambda key, make: make())
    monkeypatch.setattr(search, "evaluate", lambda model, asked, rules: {"lam": model.settings.lam, "omega": model.settings.omega})
    monkeypatch.setattr(search.SearchProtocol, "summary", summary)
    monkeypatch.setitem(search.SQUARE, "STL", lambda settings: SimpleNamespace(fit=lambda data: SimpleNamespace(settings=settings)))
    scores = tuning.__wrapped__(SPEC, "STL")["MAP"]
    assert scores.idxmax() == (30.0, 0.3)
    assert [list(level) for level in scores.index.levels] == [[0.03, 0.3, 3.0, 30.0, 300.0], [0.03, 0.3, 1.0]]
    assert len(fits) == 2 * len(scores) == 30, "each of them once a draw"


def test_what_was_tuned_is_not_fitted_again(monkeypatch):
    before = tuning(SPEC, "ZSL_TE")
    monkeypatch.setattr(search, "evaluate", lambda *_: pytest.fail("fitted again"))
    pd.testing.assert_frame_equal(tuning.__wrapped__(SPEC, "ZSL_TE"), before, check_exact=True)


def test_tuning_asks_for_two_words_of_a_text(data):
    means, settings = [], replace(search.SIZES[Scale.TOY].square, lam=0.03, omega=0.03)
    for draw in range(2):
        held = data.hold_out(seed=draw)
        model, precisions = SQUARE["ZSL_TE"](replace(settings, seed=draw)).fit(replace(held, held_out=None)), []
        asked = search.made_up(held, draw)
        for query, text in enumerate(asked.queries["text"]):
            relevant = asked.relevance.loc[asked.relevance["query"] == query, Columns.ITEM]
            order = np.argsort(-model.scores([text])[0], kind="stable")
            places = np.sort(np.flatnonzero(np.isin(order, relevant))) + 1
            precisions.append(np.mean(np.arange(1, len(places) + 1) / places))
        means.append(np.mean(precisions))
    assert tuning(SPEC, "ZSL_TE")["MAP"][0.03, 0.03] == pytest.approx(np.mean(means), abs=1e-4)


def test_made_up_queries_are_words_of_an_item_that_answers_them_with_its_held_out_neighbours(data):
    held = data.hold_out()
    asked, others = search.made_up(held, 3), search.made_up(held, 4)
    assert list(asked.queries["text"]) != list(others.queries["text"])
    pd.testing.assert_frame_equal(asked.relevance, others.relevance)
    texts = [set(re.findall(r"\w+", text.lower())) for text in held.items[Columns.TEXT]]
    item, of = held.held_out.nonzero()
    seen = []
    for query, text in enumerate(asked.queries["text"]):
        words, relevant = set(text.split()), set(asked.relevance.loc[asked.relevance["query"] == query, Columns.ITEM])
        assert len(words) == search.TYPED
        mine = [j for j in relevant if words <= texts[j] and relevant == {j, *item[of == j]}]
        assert mine, text
        seen += mine
    assert set(seen) >= set(of.tolist())
    assert len(asked.queries) == len(set(of.tolist()))


def test_tuning_uses_no_query(data, monkeypatch):
    before, asked = {name: tuning(SPEC, name) for name in SQUARE}, []

    def other(spec: Spec) -> SearchData:
        asked.append(spec)
        queries = data.queries.assign(text="tea")[:3]
        return replace(data, queries=queries, relevance=pd.DataFrame({"query": [2], Columns.ITEM: [5], "grade": [1]}), log=data.log[:0])

    monkeypatch.setattr(search, "load", other)
    monkeypatch.setattr(search, "kept", lambda key, make: make())
    for name in SQUARE:
        pd.testing.assert_frame_equal(tuning.__wrapped__(SPEC, name), before[name], check_exact=True)
    assert set(asked) == {SPEC}


def test_rows_under_cross_entropy_take_about_as_many_steps(data, monkeypatch):
    sizes = search.SIZES[Scale.TOY]
    sizes = replace(sizes, softmax=replace(sizes.softmax, training=replace(sizes.softmax.training, epochs=100)))
    monkeypatch.setitem(search.SIZES, Scale.TOY, sizes)
    pairs = {"STL": data.n_items, "ZSL_ME": data.links.nnz, "ZSL_TE": data.links.nnz, "SMC": len(parts(data)[0].log)}
    for name, count in pairs.items():
        more = max(1.0, data.links.nnz / count)
        assert [search.trained(SPEC, name, times).training.epochs for times in (1.0, 2.0)] == pytest.approx([100 * more, 200 * more], abs=0.5)
    monkeypatch.setitem(search.SIZES, Scale.TOY, replace(sizes, smc=10))
    monkeypatch.setitem(search.CHOSEN, "grocery", {"SMC": 3.0, "ZSL_ME": 0.5})
    short = 3 * 10 * sizes.softmax.batch / pairs["SMC"]
    chosen = {row.name: row.config["training"]["epochs"] for row in [*systems(SPEC), *encoding(SPEC)] if "training" in row.config}
    assert chosen["SMC"] == chosen["SMC (cosine)"] == round(short) < 100
    assert (chosen["ZSL_ME (cross-entropy)"], chosen["ZSL_ME (cross-entropy, stems)"], chosen["ZSL_ME (GRU)"]) == (50, 50, 100)


def test_epochs_are_chosen_on_what_a_model_may_know(data, monkeypatch):
    asked, learned = [], []
    monkeypatch.setattr(search, "evaluate", lambda model, judge, rules: asked.append((judge, rules)) or RankTable.of([0], [0], 9))
    for name in ("SMC", "ZSL_TE"):
        row = next(row for row in search.by_epochs(SPEC) if row.name.startswith(name))
        spy = SimpleNamespace(fit=learned.append)
        search.rehearsed(SPEC, replace(row, make=lambda seed, spy=spy: spy), 1)
    (clicks, by_clicks), (labels, _), (words, by_words), (again, _) = asked
    older, newer = parts(data)
    assert len(learned[0].log) + len(clicks.log) == len(older.log)
    assert learned[0].log[Columns.TIME].max() < clicks.log[Columns.TIME].min()
    assert clicks.log[Columns.TIME].max() < newer.log[Columns.TIME].min()
    assert (by_clicks.judged, by_words.candidates) == ("log", "corpus")
    assert labels is again is data
    assert words.sha256 == search.made_up(data.hold_out(seed=1), 1).sha256
    assert not learned[1].links.multiply(learned[1].held_out).nnz


# ---------------------------------------------------------------- the ceiling


def test_the_ceiling_is_above_every_row(records):
    best = {r.experiment: r for r in search.ceiling(SPEC)}
    assert list(best) == ["labels", "apart", "log"]
    assert all(values == [pytest.approx(1.0)] for values in best["labels"].metrics.values())
    for way, record in best.items():
        assert (record.method, record.seeds, record.protocol) == ("Bayes-optimal", [0], search.JUDGED[way].settings())
        assert list(record.contradictions()) == []
    for (way, name), record in records.items():
        for metric in METRICS[way] if way == "labels" else ():
            assert record.metrics[metric][0] <= best[way].metrics[metric][0] + 1e-9, (name, metric)
        if way == "log":
            gap = difference(best[way].per_user("Recall@10"), record.per_user("Recall@10"))
            assert gap.high > 0, name


def test_the_ceiling_knows_the_rates_of_the_world(data):
    world, texts = small_world(), data.queries["text"].tolist()
    assert len(set(texts)) == len(texts)
    found = search.Truth(SPEC).scores(texts[5:9][::-1])
    np.testing.assert_allclose(found, world.search_rates("grocery")[[8, 7, 6, 5]], rtol=1e-6)


def test_there_is_no_ceiling_elsewhere():
    assert search.ceiling(HELD) == search.ceiling(Spec("cacm", Scale.SMALL)) == []


# ---------------------------------------------------------------- what a page shows


@pytest.fixture(scope="module")
def recorded(tiny_world) -> list[RunRecord]:
    """Two seeds of three rows."""
    return search.run(SPEC, [0, 1], only("LSI", "BM25", "Random"))


@pytest.fixture
def page(monkeypatch, recorded) -> Callable[..., dict[tuple[str, str], RunRecord]]:
    """``results`` of the rows and seeds of ``recorded``, given what the records hold; ``page.ran`` tells what ran."""
    chosen, run = only("LSI", "BM25", "Random"), search.run
    monkeypatch.setattr(search, "systems", lambda spec: chosen)
    monkeypatch.setattr(search, "SEEDS", [0, 1])
    marked = [replace(r, metrics={name: [v + 0.5 for v in values] for name, values in r.metrics.items()}) for r in recorded]

    def show(records: list[RunRecord], **more) -> dict[tuple[str, str], RunRecord]:
        def again(spec: Spec, seeds: Sequence[int], rows: Sequence[System]) -> list[RunRecord]:
            show.ran.extend((row.name, *seeds) for row in rows)
            return run(spec, seeds, rows)

        show.ran, wanted = [], {}
        monkeypatch.setattr(search, "find", lambda **asked: wanted.update(asked) or records)
        monkeypatch.setattr(search, "run", again)
        found = {(r.experiment, r.method): r for r in search.results(SPEC, **more)}
        assert wanted == {"paper": "search", "target": "grocery", "scale": Scale.TOY}
        return found

    show.true, show.marked = ({(r.experiment, r.method): r for r in some} for some in (recorded, marked))
    return show


def test_a_page_takes_from_the_records_what_still_holds(page):
    found = page([*page.marked.values()])
    assert page.ran == []
    assert [*found] == [(way, name) for way in WAYS for name in ("BM25", "LSI", "Random")] + [
        (way, "Bayes-optimal") for way in ("labels", "apart", "log")
    ]
    assert all(found[key] == record for key, record in page.marked.items())


def test_rows_that_are_live_run_their_first_seed(page):
    models = {}
    found = page([*page.marked.values()], live=("LSI",), models=models)
    assert page.ran == []
    assert list(models) == ["LSI"]
    for way in WAYS:
        for metric, values in found[way, "LSI"].metrics.items():
            assert values == [page.true[way, "LSI"].metrics[metric][0], page.marked[way, "LSI"].metrics[metric][1]]
        assert found[way, "Random"] == page.marked[way, "Random"]


@pytest.mark.parametrize(
    "change",
    [
        lambda r: replace(r, data_sha256="0"),
        lambda r: replace(r, config=r.config | {"width": 9}),
        lambda r: replace(r, protocol=r.protocol | {"most": 7}),
        lambda r: replace(r, seeds=[0], metrics={name: values[:1] for name, values in r.metrics.items()}, ranks={0: r.ranks[0]}),
        lambda r: replace(r, ranks={0: r.ranks[0]}),
        lambda r: None,
    ],
    ids=["data", "settings", "protocol", "seeds", "ranks", "missing"],
)
def test_a_row_whose_stamp_is_another_runs_again(page, change):
    for way in WAYS:  # one of the three is enough
        stale = page.marked | {(way, "LSI"): change(page.marked[way, "LSI"])}
        found = page([record for record in stale.values() if record is not None])
        assert page.ran == [("LSI", 0, 1)]
        assert all(found[w, "LSI"].metrics == page.true[w, "LSI"].metrics for w in WAYS)
        assert all(found[w, "BM25"] == page.marked[w, "BM25"] for w in WAYS)


def test_settings_that_changed_run_again(page, monkeypatch):
    (bm25, lsi, chance) = search.systems(SPEC)
    settings = replace(made(lsi, 0).settings, width=4)
    monkeypatch.setattr(
        search, "systems", lambda spec: [bm25, replace(lsi, make=partial(search.lsi, settings=settings), config=asdict(settings)), chance]
    )
    found = page([*page.marked.values()])
    assert page.ran == [("LSI", 0, 1)]
    assert found["labels", "LSI"].config["width"] == 4
    assert found["labels", "LSI"].metrics != page.true["labels", "LSI"].metrics


def test_at_a_larger_scale_a_page_shows_the_records_alone(data, monkeypatch):
    spec, row = Spec("cacm", Scale.SMALL), System("BM25", Spy, {})
    monkeypatch.setattr(search, "load", lambda spec: replace(data, name="cacm"))
    empty = RankTable.of([0], [0], 9)
    kept = [as_record(spec, way, search.JUDGED["labels"], row, {0: (empty, 0.0)}) for way in ("labels", "labels-deviations")]
    monkeypatch.setattr(search, "find", lambda **wanted: kept)
    assert search.results(spec) == kept[:1]
    monkeypatch.setattr(search, "find", lambda **wanted: [])
    assert search.results(spec) == []


# ---------------------------------------------------------------- what departs from the paper


def test_deviations_change_one_setting_each(monkeypatch):
    settings = search.SIZES[Scale.TOY].square
    monkeypatch.setattr(search, "tuned", lambda spec, name: settings)
    papers = yaml.safe_load((Path(__file__).parents[1] / "book/deviations.yml").read_text(encoding="utf-8"))
    assert set(search.DEVIATIONS) <= {entry["id"] for entry in next(paper["deviations"] for paper in papers if paper["paper"] == "Search")}
    bases = {name: {"model": name, **asdict(settings)} for name in SQUARE}
    bases |= {row.name: row.config for row in search.softmax_rows(SPEC, "bow")}
    for row, (key, (words, name, changes)) in zip(deviating(SPEC), search.DEVIATIONS.items(), strict=True):
        base = bases[name]
        changes = changes(search.load(SPEC), base) if callable(changes) else changes
        assert words
        assert row.name == f"{name} ({key})"
        assert row.config == base | changes
        assert {k for k in base if row.config[k] != base[k]} == set(changes)
        made = row.make(1)
        assert asdict(made.settings).items() >= changes.items()
        assert type(made).__name__ == ("SoftmaxTE" if "cross-entropy" in name else name)


# ---------------------------------------------------------------- when which of them is best


def test_landscape_is_of_worlds_of_their_own():
    found = search.landscape((0.0, 1.0), (3.0,))
    assert found.index.names == ["telling", "taste", "kind"]
    assert list(found.columns) == [*SQUARE, "alike"]
    assert found.index.droplevel("kind").unique().tolist() == [(0.0, 3.0), (1.0, 3.0)]
    for telling in (0.0, 1.0):
        data = small_world(telling, 3.0).search("grocery", search.CLICKS)
        note, table = data.items["note"].tolist(), found.loc[telling, 3.0]
        assert set(table.index) == {*data.queries["kind"], "all"}
        assert set(table["alike"]) == {np.mean([note[i] == note[j] for i, j in zip(*data.links.nonzero(), strict=True)])}
        ranks = search.evaluate(SQUARE["STL"](tuned(SPEC, "STL")).fit(data), data, search.JUDGED["labels"])
        recall = search.JUDGED["labels"].per_query(ranks, "Recall@R")["mean"]
        kind = data.queries["kind"].to_numpy()
        for name in table.index:
            mine = [value for query, value in recall.items() if name in ("all", kind[query])]
            assert table.loc[name, "STL"] == pytest.approx(np.mean(mine))


def test_the_audit_counts_what_a_page_should_know(data):
    fine = search.audit(data)
    assert fine.iloc[:3].tolist() == [0, 0, True]
    assert fine["judged queries without a word that some text holds, which count as misses"] == 0
    texts = data.items[Columns.TEXT].where(data.items.index != 4, "  ")
    queries = data.queries.assign(text=data.queries["text"].where(data.queries.index != data.relevance["query"].iloc[0], "xyzzy"))
    links = data.links.tolil()
    links[4] = 0
    odd = search.audit(replace(data, items=data.items.assign(**{Columns.TEXT: texts}), queries=queries, links=csr_array(links)))
    assert odd["judged queries without a word that some text holds, which count as misses"] == 1
    assert odd["items without text"] == 1
    assert odd["items without a link"] == fine["items without a link"] + 1


# ---------------------------------------------------------------- Table 2 and Figure 3


def test_statistics_are_counts(data):
    found = search.statistics(data)
    assert set(found.columns) == set(data.queries["kind"])
    for kind in found.columns:
        pairs = [(q, i) for q, i in data.relevance[["query", Columns.ITEM]].itertuples(index=False) if data.queries["kind"][q] == kind]
        asked, pool = {q for q, _ in pairs}, {i for _, i in pairs}
        assert found[kind].to_dict() == {
            "queries": len(asked),
            "items in the pool": len(pool),
            "relevant items a query": pytest.approx(len(pairs) / len(asked)),
            "queries a pool item answers": pytest.approx(len(pairs) / len(pool)),
        }


def test_kinds_split_the_labels_by_query(data):
    runs = search.run(SPEC, [0, 1], only("LSI", "ZSL_TE"))
    found = search.kinds(runs, data, ["ZSL_TE", "nobody", "LSI"])
    assert list(dict.fromkeys(found["method"])) == ["ZSL_TE", "LSI"]
    named = {r.method: r for r in runs if r.experiment == "labels"}
    kind = data.queries["kind"].to_numpy()
    for row in found.itertuples():
        tables = named[row.method].ranks.values()
        values = [search.JUDGED["labels"].per_query(table, "Recall@R")["mean"] for table in tables]
        mine = [value[kind[value.index] == row.kind].mean() for value in values]
        assert row.value == pytest.approx(np.mean(mine))
        assert row.low <= row.value <= row.high
    weight = [(kind == name).sum() for name in found[found["method"] == "LSI"]["kind"]]
    assert np.average(found[found["method"] == "LSI"]["value"], weights=weight) == pytest.approx(named["LSI"].mean("Recall@R"))


def test_clicks_are_split_by_what_the_older_log_holds(data):
    runs = search.run(SPEC, [0, 1], only("LSI", "SMC"))
    found = search.by_memory(runs, data, ["SMC", "nobody", "LSI"])
    assert list(dict.fromkeys(found["method"])) == ["SMC", "LSI"]
    older, newer = search.parts(data)
    held = {*zip(older.log["query"], older.log[Columns.ITEM], strict=True)}
    met = [pair in held for pair in zip(newer.log["query"], newer.log[Columns.ITEM], strict=True)]
    named = {r.method: r for r in runs if r.experiment == "log"}
    for method, both in found.groupby("method"):
        assert dict(zip(both["met"], both["pairs"], strict=True)) == {True: sum(met), False: len(met) - sum(met)}
        assert np.average(both["value"], weights=both["pairs"]) == pytest.approx(named[method].mean("Recall@10"))
    row = only("LSI")[0]
    model = row.make(0).fit(older)
    scores = model.scores(newer.queries["text"].tolist())
    hits = [(scores[q] > scores[q, i]).sum() < 10 for q, i in zip(newer.log["query"], newer.log[Columns.ITEM], strict=True)]
    told = found[found["method"] == "LSI"].set_index("met")["value"]
    assert told[True] == pytest.approx(np.mean([hit for hit, known in zip(hits, met, strict=True) if known]))
    with pytest.raises(DataError, match="other data"):
        search.by_memory([replace(named["SMC"], data_sha256="0")], data, ["SMC"])


def test_queries_are_split_by_the_answers_that_share_a_word(data):
    runs = search.run(SPEC, [0, 1], only("LSI", "ZSL_TE"))
    named = {way: {r.method: r for r in runs if r.experiment == way} for way in ("labels", "apart")}
    cut, kinds = [*map(stems, data.items[Columns.TEXT])], {}
    for query, mine in data.relevance.groupby("query"):
        asked = stems(data.queries["text"][query])
        held = [bool(asked & cut[item]) for item in mine[Columns.ITEM]]
        kinds[query] = search.SHARED[0 if all(held) else 1 if any(held) else 2]
    found = search.by_shared_words(named["labels"], named["apart"]["LSI"], least=1)
    assert len(found) > 1
    assert list(found) == [name for name in search.SHARED if name in kinds.values()]
    for name, answered in found.items():
        assert list(answered) == list(named["labels"])
        for row, r in answered.items():
            for seed, table in r.ranks.items():
                assert set(table.user) == {query for query, kind in kinds.items() if kind == name}
                recall = search.JUDGED["labels"].per_query(named["labels"][row].ranks[seed], "Recall@R")["mean"]
                part = search.JUDGED["labels"].per_query(table, "Recall@R")["mean"]
                assert part.tolist() == recall[part.index].tolist()
    sizes = {name: list(kinds.values()).count(name) for name in found}
    assert list(search.by_shared_words(named["labels"], named["apart"]["LSI"], least=max(sizes.values()))) == [max(sizes, key=sizes.get)]
    assert list(search.by_shared_words(named["labels"], None)) == [search.SHARED[0]]
    assert search.by_shared_words({}, None) == {}
    with pytest.raises(DataError, match="other data"):
        search.by_shared_words(named["labels"], replace(named["apart"]["LSI"], data_sha256="0"))


def test_gaps_are_of_rows_that_were_both_recorded_on_this_data(records):
    labels = [r for (way, _), r in records.items() if way == "labels"]
    found = search.gaps(labels, [("ZSL_ME", "STL"), ("nobody", "STL"), ("STL", "BM25")])
    assert found[["a", "b"]].to_numpy().tolist() == [["ZSL_ME", "STL"], ["STL", "BM25"]]
    for row in found.itertuples():
        one, two = (records["labels", name].metrics["Recall@R"][0] for name in (row.a, row.b))
        assert row.difference == pytest.approx(one - two)
        assert row.low <= row.difference <= row.high
    other = [replace(r, data_sha256="0") if r.method == "STL" else r for r in labels]
    assert search.gaps(other, [("ZSL_ME", "STL")]).empty
    assert list(search.gaps([], [("ZSL_ME", "STL")]).columns) == list(found.columns)


def test_contrast_has_the_data_sets_on_which_both_rows_were_recorded(records):
    labels = {name: r for (way, name), r in records.items() if way == "labels"}
    found = search.contrast({"here": labels, "there": {"STL": labels["STL"]}}, ("ZSL_ME", "STL"))
    assert list(found.index) == ["here"]
    assert found.iloc[0].tolist() == search.gaps(labels.values(), [("ZSL_ME", "STL")]).iloc[0].tolist()
    assert search.contrast({}, ("ZSL_ME", "STL")).empty


def test_answers_are_judged_in_the_corpus_where_that_was_recorded(records):
    stl, bm25 = records["labels", "STL"], records["labels", "BM25"]
    corpus, other = replace(stl, experiment="corpus"), replace(bm25, target="elsewhere")
    found = search.answers([stl, bm25, corpus, records["links", "STL"], other, replace(stl, experiment="labels-deviations")])
    assert found == {"grocery": {"STL": corpus}, "elsewhere": {"BM25": other}}
    assert search.answers([]) == {}


# ---------------------------------------------------------------- the daily refresh


@pytest.mark.parametrize("name", SQUARE)
def test_a_warm_start_begins_below_a_fresh_one_and_stays_near_yesterday(name):
    found = search.refresh(SPEC, name, sweeps=3)
    assert list(found.index) == [0, 1, 2, 3]
    assert list(found.columns) == ["warm", "fresh", "moved", "moved (fresh)", "new items", "new words"]
    for what in ("new items", "new words"):
        assert found.loc[0, what] < 0.5  # they begin anywhere
        assert found.loc[3, what] > 0.8
    assert found.loc[0, "warm"] < found.loc[0, "fresh"]
    assert found.loc[0, "moved"] == pytest.approx(1.0, abs=1e-6)
    assert (found["moved"] <= 1 + 1e-6).all()
    assert found.loc[1:, "moved"].min() > found["moved (fresh)"].abs().max()
    assert (found[["warm", "fresh"]].diff().dropna() < 1e-6).all(axis=None), "a sweep never raises the loss"


def test_subset_keeps_items_and_the_links_between_them(data):
    keep = np.random.default_rng(0).random(data.n_items) < 0.7
    part, place = search.subset(data, keep), np.flatnonzero(keep)
    assert part.items[Columns.RAW].tolist() == data.items[Columns.RAW].to_numpy()[place].tolist()
    np.testing.assert_array_equal(part.links.toarray(), data.links.toarray()[np.ix_(place, place)])
    assert len(part.queries) == len(part.relevance) == len(part.log) == 0
