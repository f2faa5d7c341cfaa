"""The experiments of the ZESRec chapter: what each row learns from, what it is judged on, and worlds where the answer is known."""

from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from zsrbook import claims
from zsrbook.data.dataset import Columns, DataError, Dataset, Report
from zsrbook.data.splits import Fold, Split
from zsrbook.evaluation.protocol import Protocol
from zsrbook.experiments import seeds, zesrec
from zsrbook.experiments.zesrec import Bench, Pair, PairSpec, System, case_studies, explained_by, load_pair, systems
from zsrbook.models.anchored import share_of_repeats
from zsrbook.models.baselines import EmbKNN, EmbKNNSettings, NewOnly, Popularity, Random
from zsrbook.models.zesrec import ZESRec
from zsrbook.records import RecordError, code_version
from zsrbook.scale import Scale
from zsrbook.tables import paper_numbers
from zsrbook.text import HashedWords, TextEncoder
from zsrbook.training import Training


@pytest.fixture(scope="module", autouse=True)
def tiny_world():
    with tiny.shrunk():
        yield


@pytest.fixture(scope="module")
def pair(tiny_world):
    return load_pair("grocery", "pantry", Scale.TOY)


@pytest.fixture(scope="module")
def table2(pair):
    """Every row that has a GRU or nothing in it, over two seeds."""
    rows = zesrec.rows_side_by_side(pair, [0, 1], systems(Scale.TOY, ("gru",)), "zero-shot", Protocol())
    return {r.method: r for r in rows + zesrec.ceiling(pair)}


@pytest.fixture
def trained(monkeypatch):
    """Enough steps to learn something of the tiny world."""
    settings = Training(epochs=10, optimizer="adam", learning_rate=0.02, patience=None)
    monkeypatch.setitem(zesrec.SIZED, Scale.TOY, zesrec.SIZED[Scale.TOY] | {"training": settings})


def row(name: str) -> System:
    return next(s for s in (*systems(Scale.TOY), *zesrec.deviating(Scale.TOY)) if s.name == name)


def made(name: str, histories: list[list[int]], features: np.ndarray | None = None, titles: list[str] | None = None, items: int = 0) -> Dataset:
    """A data set by hand; ``items`` of them, or as many as there are features or titles."""
    items = items or len(features if titles is None else titles)
    titles = [f"{name} thing {i}" for i in range(items)] if titles is None else titles
    frame = pd.DataFrame([(f"{name} user {u}", i, t) for u, h in enumerate(histories) for t, i in enumerate(h)], columns=["user", "item", "time"])
    table = pd.DataFrame({Columns.RAW: [str(i) for i in range(items)], Columns.TEXT: titles})
    data = Dataset.from_raw(name, frame, table)
    return data if features is None else data.with_features(features)


# ---------------------------------------------------------------- data


def same(a: Pair, b: Pair) -> bool:
    return a.target_split.sha256 == b.target_split.sha256 and a.source_split.sha256 == b.source_split.sha256


def test_names_are_those_of_the_markets(pair):
    assert (pair.source.name, pair.target.name, pair.scale) == ("grocery", "pantry", Scale.TOY)


@pytest.mark.parametrize("repeats", [True, False])
def test_pair_is_dense_and_disjoint(repeats):
    pair = load_pair("grocery", "pantry", Scale.TOY, repeats=repeats)
    for data in (pair.source, pair.target):
        assert data.sequences().lengths.min() >= 2
        assert np.array_equal(np.unique(data.interactions["item"]), np.arange(data.n_items))
        assert np.array_equal(np.unique(data.interactions["user"]), np.arange(len(data.users)))
        assert data.interactions.duplicated(["user", "item"]).any() == repeats
        assert np.array_equal(data.features, tiny.WORDS.transform(data.items["text"]).toarray().astype(np.float16))
    assert not set(pair.source.users["raw"]) & set(pair.target.users["raw"])
    assert not set(pair.source.items["text"]) & set(pair.target.items["text"])


def test_catalogue_stays_dense_where_a_user_repeats_one_item_only(monkeypatch):
    histories = [[0, 1], [1, 0], [2, 2], [0, 1, 0]]
    monkeypatch.setattr(zesrec, "load", lambda name, scale, structure: made(name, histories, items=3))
    for disjoint in (True, False):
        pair = load_pair("a", "b", Scale.TOY, repeats=False, structure=0.125, disjoint=disjoint)
        assert [d.n_items for d in (pair.source, pair.target)] == [2, 2]


def test_load_drops_users_with_one_interaction(monkeypatch):
    data = made("pantry", [[0, 1], [2], [1, 1]], items=4)
    monkeypatch.setattr(zesrec.catalogue, "load", lambda name: data)
    found = zesrec.load("pantry", Scale.SMALL)
    assert (len(found), found.n_users, found.n_items) == (4, 2, 2)


def test_splits_are_of_whole_users_and_the_source_has_no_test(pair):
    train, valid, test = pair.target_split.train, pair.target_split.valid, pair.target_split.test
    users = [set(d.interactions["user"]) for d in (train, valid.data, test.data)]
    assert len(set.union(*users)) == sum(map(len, users)) == pair.target.n_users
    assert len(users[2]) == round(0.2 * pair.target.n_users)
    assert not pair.source_split.test.targets.size
    assert len(pair.source_split.valid.data) + len(pair.source_split.train) == len(pair.source)


def test_same_pair_again_is_the_same_to_the_bit(pair):
    zesrec.pair_of.cache_clear()
    tiny.world.cache_clear()
    assert same(load_pair("grocery", "pantry", Scale.TOY), pair)


def test_structure_reaches_the_world(pair):
    flat = load_pair("grocery", "pantry", Scale.TOY, structure=0.0)
    assert not same(flat, pair)
    assert zesrec.statistics([flat.target])["repeats"].item() < 0.7 * zesrec.statistics([pair.target])["repeats"].item()


def test_pair_that_is_not_disjoint_keeps_the_whole_source(monkeypatch):
    titles = {"a": ["Tea", "Biscuit", "Juice"], "b": ["Tea", "Soap", "Broom"]}
    monkeypatch.setattr(zesrec, "load", lambda name, scale, structure: made(name, [[0, 1, 2], [1, 2, 0], [1, 2]], titles=titles[name]))
    whole = load_pair("a", "b", Scale.TOY, structure=0.25, disjoint=False)
    cut = load_pair("a", "b", Scale.TOY, structure=0.25)
    assert whole.source.items["text"].tolist() == ["Tea", "Biscuit", "Juice"]
    assert cut.source.items["text"].tolist() == ["Biscuit", "Juice"]
    assert cut.target.items["text"].tolist() == titles["b"]


def test_unknown_market_is_named():
    with pytest.raises(DataError, match="'moon'"):
        load_pair("moon", "pantry", Scale.TOY)


def test_statistics_by_hand():
    found = zesrec.statistics([made("shop", [[0, 1, 1, 1], [1, 0]], items=3)])
    assert found.loc["shop"].to_dict() == {"interactions": 6, "items": 3, "users": 2, "a user": 3, "an item": 2, "repeats": pytest.approx(2 / 6)}


# ---------------------------------------------------------------- rows


def test_every_row_of_the_papers_table_is_there_and_the_controls_too():
    names = [s.name for s in systems(Scale.PAPER)]
    assert len(set(names)) == len(names)
    assert set(paper_numbers("zesrec_table2")["method"]) <= set(names)
    for _, zero_shot in zesrec.NETWORKS.values():
        assert {f"{zero_shot} ({control})" for control in ("shuffled", "tuned", "tuned, shuffled")} <= set(names)


def test_rows_that_fit_the_same_model_share_it_and_no_others():
    rows = systems(Scale.TOY)
    key = {s.name: s.model for s in rows}
    for name in key:
        partner = name.replace("shuffled", "").replace(", )", ")").replace(" ()", "")
        assert {n for n in key if key[n] == key[name]} == {n for n in (partner, partner + " (shuffled)", partner[:-1] + ", shuffled)") if n in key}
    assert key["HRNN-Meta"] != key["ZESRec-H"]  # one network, fitted on other data


def test_seeds():
    rows = {s.name: s for s in systems(Scale.TOY)}
    fixed = {name for name, s in rows.items() if s.seeds([3, 4]) == [0]}
    assert fixed == {"POP", *(s.name for s in zesrec.neighbours())}
    assert all(rows[name].seeds(range(3, 5)) == [3, 4] for name in rows.keys() - fixed)
    for name in rows.keys() - fixed - {"Random"}:
        assert rows[name].make(7).settings.training.seed == 7
    assert rows["Random"].make(7).seed == 7


def test_habits_are_asked_of_chance_popularity_and_every_untrained_neighbour():
    names = {s.name for s in zesrec.with_habits(Scale.TOY)}
    assert {"POP", "Random", "ZESRec-H", "ZESRec-H (shuffled)", "Anchored", *(s.name for s in zesrec.neighbours())} <= names


def test_settings_differ_where_they_say():
    for scale in Scale:
        paper, tuned = asdict(zesrec.paper_settings(scale)), asdict(zesrec.tuned_settings(scale))
        assert {k for k in paper if paper[k] != tuned[k]} == {"standardise", "text_dropout", "popularity", "training"}
        assert {k for k in paper["training"] if paper["training"][k] != tuned["training"][k]} == {"optimizer", "learning_rate"}
        assert zesrec.tuned_settings(scale, users="tcn", standardise=False).users == "tcn"
    assert asdict(zesrec.paper_settings(Scale.PAPER)).items() >= {"width": 300, "hidden": 512, "dropout": 0.2}.items()
    assert zesrec.paper_settings(Scale.PAPER).training.optimizer == "adagrad"


def test_each_deviation_changes_what_it_says_and_nothing_else():
    changes = zesrec.deviation_settings(Scale.TOY)
    of = {key: "ZESRec-H" if "users" in fields else "ZESRec-G" for key, (_, fields) in changes.items()}
    rows = zesrec.deviating(Scale.TOY)
    assert [s.name for s in rows] == [f"{name} ({key})" for key, name in of.items()]
    for system, name, (_, fields) in zip(rows, of.values(), changes.values(), strict=True):
        paper = asdict(row(name).make(0).settings)
        assert system.learns_from == "source"
        assert {k for k, v in asdict(system.make(0).settings).items() if v != paper[k]} == set(fields) - {"users"}
        assert fields.get("users", "gru") == paper["users"]


@pytest.mark.parametrize("scale", Scale)
def test_a_rehearsal_tries_the_tuned_settings_and_single_steps_away_from_them(scale):
    rows = {s.name: s for s in zesrec.rehearsed(scale)}
    assert rows["ZESRec-G (tuned)"].model == next(s for s in systems(scale) if s.name == "ZESRec-G (tuned)").model
    for chosen in ("ZESRec-G (tuned", "Anchored"):
        base, *others = [asdict(s.make(0).settings) for name, s in rows.items() if name.startswith(chosen)]
        assert len(others) >= 4
        assert all(sum(base[k] != other[k] for k in base) == 1 for other in others)


# ---------------------------------------------------------------- Table 2


def test_record_of_every_row_says_where_it_comes_from(table2, pair):
    for name, record in table2.items():
        if name == "Bayes-optimal":
            continue
        assert record.source == ("grocery" if row(name).learns_from == "source" else None)
        assert record.seeds == row(name).seeds([0, 1])
    assert table2.keys() == {s.name for s in systems(Scale.TOY, ("gru",))} | {"Bayes-optimal"}
    for record in table2.values():
        assert (record.target, record.scale, record.experiment) == ("pantry", "toy", "zero-shot")
        assert record.data_sha256 == pair.target_split.sha256
        assert list(record.ranks) == record.seeds
        for seed, table in record.ranks.items():
            assert len(table) == pair.target_split.test.targets.sum()
            found = Protocol().summary(table)
            assert all(record.metrics[name][record.seeds.index(seed)] == found[name] for name in found)


def test_rows_of_one_model_are_scored_apart_and_seeds_differ(table2):
    a, b = table2["ZESRec-G"], table2["ZESRec-G (shuffled)"]
    assert a.config == b.config
    assert a.metrics != b.metrics
    assert a.metrics["MRR@20"][0] != a.metrics["MRR@20"][1]


def test_nobody_beats_the_ceiling(table2):
    best = table2["Bayes-optimal"]
    assert best.source is None
    assert best.seeds == [0]
    assert all(best.mean(m) >= max(r.mean(m) for r in table2.values()) for m in ("Recall@20", "MRR@20", "NDCG@20"))


def test_no_ceiling_where_repeats_are_dropped():
    pair = load_pair("grocery", "pantry", Scale.TOY, repeats=False)
    protocol = Protocol(repeats="removed", history="removed")
    assert zesrec.ceiling(pair, "zero-shot-no-repeats", protocol) == []
    (record,) = zesrec.rows_side_by_side(pair, [0], [row("POP")], "zero-shot-no-repeats", protocol)
    assert (record.method, record.experiment, record.protocol) == ("POP", "zero-shot-no-repeats", protocol.settings())


def test_curve_is_recorded(table2):
    for name in ("GRU4Rec", "ZESRec-G (tuned)"):
        (losses,) = table2[name].config["curve"]  # one epoch
        assert len(losses) == 2
        assert np.isfinite(losses).all()
    assert "curve" not in table2["Emb-KNN (last, cosine)"].config
    assert zesrec.configuration(Popularity()) == {}


def test_side_by_side_gives_the_same_ranks(table2, pair, monkeypatch):
    monkeypatch.setenv("ZSRBOOK_WORKERS", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(zesrec, "ranked", tiny.ranked_in_tiny_world)
    wanted = ("ZESRec-G", "ZESRec-G (shuffled)", "POP")
    for record in zesrec.rows_side_by_side(pair, [0, 1], [row(name) for name in wanted], "zero-shot", Protocol()):
        before = table2[record.method]
        assert record.metrics == before.metrics
        assert record.config == before.config
        for seed, table in record.ranks.items():
            assert all(np.array_equal(getattr(table, c), getattr(before.ranks[seed], c)) for c in vars(table))


def test_rows_are_fitted_and_stopped_on_what_they_say(pair):
    seen = {}

    class Watched(EmbKNN):
        def fit(self, data, valid=None):
            seen[learns_from] = data, valid
            return super().fit(data)

    for learns_from in ("source", "target", "nothing"):
        model, _ = Bench(pair).fitted(System("watched", learns_from, lambda seed: Watched()), 0)
        assert model.n_items == pair.target.n_items
    for learns_from, split in (("source", pair.source_split), ("target", pair.target_split)):
        assert seen[learns_from][0] is split.train
        assert seen[learns_from][1] is split.valid
    assert seen["nothing"] == (pair.target, None)


@pytest.mark.parametrize("name", ["ZESRec-G", "ZESRec-H (tuned)", "ZESRec-G (tuned, shuffled)", "Emb-KNN (mean, inner)"])
def test_no_purchase_of_the_target_is_read(pair, name):
    rng = np.random.default_rng(0)
    split = pair.target_split

    def scrambled(data: Dataset) -> Dataset:
        return replace(data, interactions=data.interactions.assign(item=rng.permutation(data.interactions["item"].to_numpy())))

    other = replace(split, train=scrambled(split.train), valid=Fold(scrambled(split.valid.data), split.valid.targets))
    changed = replace(pair, target_split=other, target=scrambled(pair.target))
    histories = split.test.sequences.take(np.arange(5))
    scores = [Bench(p).fitted(row(name), 0)[0].scores(histories) for p in (pair, changed)]
    assert torch.equal(*scores)
    scores = [Bench(p).fitted(row("POP"), 0)[0].fit(p.target_split.train).scores(histories) for p in (pair, changed)]
    assert torch.equal(*scores)  # a permutation keeps how often each item stands there, so the check above can't pass by that
    scores = [Bench(p).fitted(row("GRU4Rec"), 0)[0].scores(histories) for p in (pair, changed)]
    assert not torch.equal(*scores)


def test_a_row_that_is_told_knows_the_habits_of_the_training_users_alone(pair):
    bench = Bench(pair)
    untold, told = (bench.fitted(s, 0)[0] for s in (row("Anchored (anchors only)"), *zesrec.told_rows(Scale.TOY)))
    assert len(bench.models) == 1
    assert told.repeat == share_of_repeats(pair.target_split.train.sequences()) != untold.repeat
    assert untold.repeat == share_of_repeats(pair.source_split.train.sequences())


def test_shuffled_rows_read_the_vectors_of_other_items(pair, trained):
    bench = Bench(pair)
    named = {s.name: bench.record(s, [0, 1]) for s in map(row, ("ZESRec-G", "ZESRec-G (shuffled)"))}
    assert len(bench.models) == 2  # one a seed
    assert named["ZESRec-G (shuffled)"].mean("MRR@20") < 0.8 * named["ZESRec-G"].mean("MRR@20")
    assert named["ZESRec-G (shuffled)"].mean("Recall@20") < named["ZESRec-G"].mean("Recall@20")
    model, _ = bench.fitted(row("ZESRec-G (shuffled)"), 1)
    assert np.array_equal(model.network.items.features.cpu(), pair.target.with_shuffled_features(1).features)


# ---------------------------------------------------------------- Figures 2 and 3


def test_incremental_records(pair):
    records = [Bench(pair).record(row, [0, 1], "incremental") for row in zesrec.few_rows(Scale.TOY, (200, 400), ("gru",))]
    assert [r.method for r in records] == ["GRU4Rec@200", "GRU4Rec@400", "GRU4Rec-Meta@200", "GRU4Rec-Meta@400"]
    for record in records:
        assert (record.experiment, record.source, record.seeds) == ("incremental", None, [0, 1])
        assert record.data_sha256 == pair.target_split.sha256
        assert record.metrics["MRR@20"][0] != record.metrics["MRR@20"][1]
        assert record.config["items"] == ("text" if "Meta" in record.method else "ids")
        assert record.config["training"]["seed"] == 0
        assert all(len(t) == pair.target_split.test.targets.sum() for t in record.ranks.values())
        assert set(record.ranks[1].user) == set(pair.target_split.test.data.interactions["user"])


def test_each_point_is_fitted_on_random_users_of_the_train_part(pair, monkeypatch):
    seen = {}

    class Watched(Popularity):
        settings = zesrec.paper_settings(Scale.TOY)

        def __init__(self, settings):
            self.seed = settings.training.seed

        def fit(self, data, valid):
            seen[self.seed] = np.union1d(data.interactions["user"], valid.data.interactions["user"])
            assert 0 < valid.data.n_users == round(0.1 * len(seen[self.seed]))
            return super().fit(data)

    monkeypatch.setattr(zesrec, "ZESRec", Watched)
    ids, text = zesrec.few_rows(Scale.TOY, (400,), ("tcn",))
    assert (ids.name, text.name) == ("TCN@400", "TCN-Meta@400")
    Bench(pair).record(ids, [0, 1], "incremental")
    train = pair.target_split.train.interactions.groupby("user").size()
    for users in seen.values():
        assert set(users) <= set(train.index)
        assert 400 <= train[users].sum() < 400 + train.max()
    assert set(seen[0]) != set(seen[1])


def test_more_than_there_is_can_not_be_drawn(pair):
    with pytest.raises(DataError, match=r"pantry: asked for 1000000 interactions, but there are \d+"):
        Bench(pair).record(zesrec.few_rows(Scale.TOY, (1_000_000,), ("gru",))[0], [0], "incremental")


# ---------------------------------------------------------------- Figures 4 to 6


def judged(source: Dataset, target: Dataset) -> Pair:
    """A pair whose target users are all test users."""
    nobody, everything = np.zeros(len(target), bool), np.ones(len(target), bool)
    split = Split(target, Fold(target, nobody), Fold(target, everything), Report())
    return Pair(PairSpec(source.name, target.name, Scale.TOY), source, target, split, split)


LAST = EmbKNN(EmbKNNSettings("last", "inner"))  # the user's vector is that of the fifth item; the sixth is foreseen if nearest to it


def test_case_studies_find_the_pair_that_is_alike():
    e = np.eye(3, dtype=np.float32)
    source = made("s", [[1, 2, 1, 2, 0, 0], [0, 2, 0, 2, 1, 1, 2], [0, 1, 2, 1, 2, 0], [0, 0, 1, 2, 2], [2, 2]], np.stack([100 * e[0], e[1], e[2]]))
    # the cosine with e1 is the larger, though the inner product with 100 e0 is
    near = np.stack([0.6 * e[0] + 0.8 * e[1], -e[0], e[2]]).astype(np.float32)
    target = made("t", [[1, 2, 1, 2, 0, 0], [1, 2, 1, 2, 1, 1], [0, 1, 2, 0, 0, 1], [0, 0, 0, 0, 0]], near)
    studies, counts = case_studies(LAST, judged(source, target))
    assert list(counts.index) == ["users", "drawn", "six or more items", *(f"sixth item in the top {k}" for k in (1, 5, 20))]
    assert counts["source"].tolist() == [5, 5, 3, 2, 3, 3]
    assert counts["target"].tolist() == [4, 4, 3, 2, 3, 3]
    assert [(s.source.users.tolist(), s.target.users.tolist()) for s in studies] == [([1], [0]), ([1], [1])]  # the most alike first
    assert [s.similarity for s in studies] == pytest.approx([0.8, 0.0])
    assert studies[0].source.items.tolist() == [0, 2, 0, 2, 1, 1]  # six of seven
    assert studies[0].target.items.tolist() == [1, 2, 1, 2, 0, 0]
    assert {(s.rank_source, s.rank_target) for s in studies} == {(1, 1)}


def fan(name: str, sixth: list[int]) -> Dataset:
    """Thirty items, each farther from item 0 than the one before: after item 0, item j has rank j + 1."""
    angles = np.linspace(0, np.pi / 2, 30)
    return made(name, [[0, 0, 0, 0, 0, j] for j in sixth], np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))


@pytest.mark.parametrize(
    ("source", "target", "ranks"),
    [([0, 3], [0, 9], [(1, 1)]), ([3, 9], [0, 2], [(4, 1), (4, 3)]), ([0, 25], [19], [(1, 20)]), ([0, 1], [20, 29], []), ([20], [0], [])],
)
def test_case_studies_fall_back_to_rank_5_and_20_and_then_to_nothing(source, target, ranks):
    studies, counts = case_studies(LAST, judged(fan("s", source), fan("t", target)))
    assert [(s.rank_source, s.rank_target) for s in studies] == ranks
    assert counts.loc["six or more items"].tolist() == [len(source), len(target)]


def test_case_studies_where_histories_are_short_or_all_scores_are_equal():
    short = made("s", [[0, 0, 0, 0, 0]], np.ones((30, 2)))
    same = made("t", [[0, 0, 0, 0, 0, 0]], np.ones((30, 2)))
    studies, counts = case_studies(LAST, judged(short, same))
    assert studies == []
    assert counts.loc["six or more items"].tolist() == [0, 1]
    assert counts.loc["sixth item in the top 20"].tolist() == [0, 0]  # thirty items of one score foresee nothing


def test_case_studies_of_a_network_are_the_ranks_that_the_protocol_gives(pair):
    system = row("ZESRec-H")
    bench = Bench(pair)
    bench.fitted(system, 0)
    model = bench.models[(*system.model, 0)][0]
    studies, counts = case_studies(model, pair, source_users=150)
    assert counts.loc["drawn", "source"] == 150 < counts.loc["users", "source"]
    assert [s.similarity for s in studies] == sorted((s.similarity for s in studies), reverse=True)
    (table,) = bench.record(system, [0]).ranks.values()
    sixth = table.where(table.position == 5)
    ranks = dict(zip(sixth.user.tolist(), (1 + sixth.greater + sixth.ties).tolist(), strict=True))
    assert len(ranks) == counts.loc["six or more items", "target"]
    assert studies
    assert all(s.rank_target == ranks[s.target.users[0]] for s in studies)
    best = studies[0]
    sides = (pair.source, best.source), (pair.target, best.target)
    after_five = [model.transfer(data).user_vectors(six.prefixes(np.array([5])))[-1] for data, six in sides]
    assert float(torch.cosine_similarity(*after_five, dim=0)) == pytest.approx(best.similarity, rel=1e-5)


@given(
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=7), min_size=1, max_size=5),
    st.lists(st.booleans(), min_size=25, max_size=25),
)
def test_explained_by_is_the_plain_loop(histories, cells):
    relation = np.array(cells).reshape(5, 5)
    data = made("x", histories, items=5)
    found = explained_by(relation, Fold(data, np.ones(len(data), bool)))
    plain = [any(relation[before, item] for before in h[:k]) for h in histories for k, item in enumerate(h)]
    assert found.tolist() == plain


def test_habits_are_judged_on_disjoint_parts_of_the_test_targets(pair):
    rows = [row("Emb-KNN (last, cosine)"), row("Random")]
    records = zesrec.habit_records(Bench(pair), rows, [0])
    assert [(r.experiment, r.method) for r in records] == [(f"habit-{h}", s.name) for h in ("again", "flavour", "complement") for s in rows]
    whole = Bench(pair).record(rows[0], [0]).ranks[0]
    everything = set(zip(whole.user.tolist(), whole.position.tolist(), strict=True))
    parts = {r.experiment: r.ranks[0] for r in records if r.method == rows[0].name}
    keys = {name: set(zip(t.user.tolist(), t.position.tolist(), strict=True)) for name, t in parts.items()}
    assert all(part and part < everything for part in keys.values())
    assert len(set.union(*keys.values())) == sum(map(len, keys.values()))
    again = parts["habit-again"]
    histories = pair.target.interactions.groupby("user")["item"].agg(list)
    for user, position, target in zip(again.user.tolist(), again.position.tolist(), again.target.tolist(), strict=True):
        assert target in histories[user][:position]


# ---------------------------------------------------------------- Table 3


@pytest.fixture
def two_cinemas(monkeypatch):
    """Eighteen films that both have, under other numbers, and two that only one has; in both the next film follows each film."""
    n, rng = 18, np.random.default_rng(0)
    films = {"a": np.concatenate([[18], np.arange(n), [19]]), "b": np.concatenate([rng.permutation(n), [20, 21]])}  # code -> film
    titles = ["".join(rng.choice(list("abcdefghijklmnoprst"), 9)) for _ in range(22)]

    def load(name, scale, structure):
        own = np.setdiff1d(films[name], np.arange(n))
        seen = [[*((start + np.arange(6)) % n), own[start % 2]] for start in rng.integers(0, n, 240)]
        code = np.argsort(films[name])  # place of the k-th smallest film
        return made(name, [code[np.searchsorted(np.sort(films[name]), h)].tolist() for h in seen], titles=[titles[f] for f in films[name]])

    monkeypatch.setattr(zesrec, "load", load)
    zesrec.pair_of.cache_clear()


def test_dataset_bias_carries_each_film_to_its_own_code(two_cinemas, trained):
    bench = Bench(load_pair("a", "b", Scale.TOY, common=True))
    records = [bench.record(row, [0], "dataset-bias") for row in zesrec.bias_rows(Scale.TOY)]
    named = {r.method: r for r in records}
    assert named.keys() == {"HRNN", "HRNN (Join)", "ZESRec-H", "ZESRec-H (tuned)", "POP", "Random", *(s.name for s in zesrec.neighbours())}
    assert len({r.data_sha256 for r in records}) == 1
    for record in records:
        assert record.experiment == "dataset-bias"
        assert set(record.ranks[0].n_candidates) == {18}  # the common films alone
        assert record.source == ("a" if "ZESRec" in record.method or "Join" in record.method else None)
    join = named["HRNN (Join)"]
    assert join.metrics["titles"] == [18.0]
    assert len(join.config["curve"]) == 10
    assert (join.ranks[0].greater == 0).mean() > 0.9  # the next film comes first, though it goes by another number there


def test_dataset_bias_needs_common_titles(monkeypatch):
    monkeypatch.setattr(zesrec, "load", lambda name, scale, structure: made(name, [[0, 1], [1, 0], [0, 1, 1]], items=2))
    zesrec.pair_of.cache_clear()
    with pytest.raises(DataError, match="a and b share no title"):
        load_pair("a", "b", Scale.TOY, common=True)


# ---------------------------------------------------------------- maps and records


def test_item_map(pair):
    model = ZESRec(zesrec.paper_settings(Scale.TOY)).fit(pair.source_split.train)
    found = zesrec.item_map(model, pair, "t-SNE", each=20)
    assert list(found.columns) == ["domain", "text", "item", "x", "y"]
    assert found["domain"].value_counts().to_dict() == {"grocery": 20, "pantry": 20}
    assert np.isfinite(found[["x", "y"]]).all(axis=None)
    for data in (pair.source, pair.target):
        part = found[found["domain"] == data.name]
        assert part["text"].tolist() == data.items["text"].to_numpy()[part["item"]].tolist()
    assert found.equals(zesrec.item_map(model, pair, "t-SNE", each=20))
    with pytest.raises(ValueError, match="method is 'PCA'; expected 't-SNE' or 'UMAP'"):
        zesrec.item_map(model, pair, "PCA", each=20)


def test_item_map_shows_all_items_of_a_small_catalogue(pair):
    found = zesrec.item_map(EmbKNN().fit(pair.source), pair, "t-SNE")
    assert found["domain"].value_counts().to_dict() == {"grocery": pair.source.n_items, "pantry": pair.target.n_items}


def test_results_run_seed_0_at_toy_scale_and_are_looked_up_above(pair, table2, monkeypatch):
    recorded, other = table2["ZESRec-G"], replace(table2["ZESRec-G"], source="films")
    monkeypatch.setattr(zesrec, "find", lambda **asked: [recorded, other, table2["POP"]])
    monkeypatch.setattr(seeds, "SEEDS", recorded.seeds)
    worse = {name: [0.01] for name in recorded.metrics}
    live = replace(recorded, seeds=[0], metrics=worse, ranks={0: recorded.ranks[1]}, config=recorded.config | {"curve": [(9.0, 9.0)]})
    asked = []

    def run(seeds, record=live):
        asked.append(list(seeds))
        return [record] if seeds == [0] else [recorded]

    (joined,) = zesrec.results("zero-shot", pair, run)
    assert asked == [[0]]
    assert joined.seeds == recorded.seeds == [0, 1]
    assert joined.metrics["Recall@20"] == [0.01, recorded.metrics["Recall@20"][1]]  # seed 0 as it ran now
    assert joined.ranks == {0: recorded.ranks[1], 1: recorded.ranks[1]}
    assert joined.config["curve"] == [(9.0, 9.0)]

    for stale in (
        replace(live, data_sha256="0" * 64),
        replace(live, protocol=zesrec.NO_REPEATS.settings()),
        replace(live, config=live.config | {"width": 9}),
        replace(live, method="new"),
    ):
        asked.clear()
        assert zesrec.results("zero-shot", pair, lambda seeds, stale=stale: run(seeds, stale)) == [recorded]
        assert asked == [[0], seeds.SEEDS], "what the records do not hold is run in full"

    monkeypatch.setattr(seeds, "SEEDS", [0, 1, 2])
    asked.clear()
    zesrec.results("zero-shot", pair, run)
    assert asked == [[0], [0, 1, 2]], "two seeds of three are too few"

    small = replace(pair, spec=replace(pair.spec, scale=Scale.SMALL))
    assert zesrec.results("zero-shot", small, lambda seeds: pytest.fail("hours of work")) == [recorded, table2["POP"]]


def test_rows_from_the_records_train_only_what_these_do_not_hold(pair, monkeypatch):
    rows = [s for s in zesrec.systems(Scale.TOY) if s.name in ("POP", "ZESRec-G")]
    monkeypatch.setattr(zesrec, "SEEDS", [0, 1])
    found = {r.method: r for r in zesrec.rows_side_by_side(pair, [0, 1], rows, "epochs", Protocol())}
    asked, run = [], zesrec.rows_side_by_side
    monkeypatch.setattr(
        zesrec, "rows_side_by_side", lambda pair, seeds, rows, *rest: asked.extend(r.name for r in rows) or run(pair, seeds, rows, *rest)
    )

    def shown(*records):
        monkeypatch.setattr(zesrec, "find", lambda **wanted: list(records))
        asked.clear()
        return [r.method for r in zesrec.from_records("epochs", pair, rows)]

    both = [row.name for row in rows]
    assert shown(*found.values()) == both
    assert not asked
    model = found["ZESRec-G"]
    for stale in (replace(model, data_sha256="0"), replace(model, config=model.config | {"width": 9}), replace(model, ranks={0: model.ranks[0]})):
        assert shown(found["POP"], stale) == both
        assert asked == ["ZESRec-G"]

    half = zesrec.load_pair("grocery", "pantry", Scale.TOY, users=0.5)  # its target is the same, so nothing in a record tells it from the whole
    asked.clear()
    assert [r.method for r in zesrec.from_records("epochs", half, rows)] == both == asked
    small = replace(half, spec=replace(half.spec, scale=Scale.SMALL))
    assert zesrec.from_records("epochs", small, rows) == []


def test_drift_holds_a_page_against_the_records(table2, monkeypatch):
    recorded = table2["ZESRec-G"]
    live = replace(recorded, metrics=recorded.metrics | {"Recall@20": [0.5, 0.5]})
    monkeypatch.setattr(seeds, "find", lambda **asked: [r for r in table2.values() if r.method == asked["method"]])
    frame = seeds.drift([table2["POP"], live], "Recall@20")
    assert frame.index.tolist() == [("zero-shot", "grocery--pantry", "ZESRec-G"), ("zero-shot", "pantry", "POP")]
    assert frame["difference"].tolist() == [pytest.approx(0.5 - recorded.metrics["Recall@20"][0]), 0]


def test_neighbours_kept_is_all_for_a_turn_and_chance_for_noise(pair):
    data, rng = pair.target, np.random.default_rng(0)
    model = ZESRec(replace(zesrec.paper_settings(Scale.TOY), width=data.features.shape[1], nonlinearity="none", hidden=data.features.shape[1]))
    model.build(data.n_items, torch.as_tensor(data.features))
    first, _, second = model.network.items.mlp
    turn, _ = np.linalg.qr(rng.normal(size=2 * [data.features.shape[1]]))
    for layer, weight in ((first, turn), (second, np.eye(len(turn)))):
        layer.weight.data, layer.bias.data[:] = torch.as_tensor(weight, dtype=torch.float32), 0.0
    assert zesrec.neighbours_kept(model, data) > 0.98  # float16 vectors leave a near tie or two
    untrained = next(row for row in zesrec.systems(Scale.TOY) if row.name == "Emb-KNN (mean, cosine)")
    (plain,) = zesrec.rows_side_by_side(pair, [0], [untrained], "zero-shot", Protocol())
    assert zesrec.neighbours_in(model, pair).mean("Recall@20") == pytest.approx(plain.mean("Recall@20"), abs=0.003)
    noise = data.with_shuffled_features(0)
    assert zesrec.neighbours_kept(model, data, k=data.n_items - 1) == 1
    model.transfer = lambda _: EmbKNN().fit(noise)
    assert zesrec.neighbours_kept(model, data) == pytest.approx(10 / (data.n_items - 1), abs=0.1)


@pytest.mark.parametrize("changes", zesrec.INGREDIENTS.values(), ids=str)
def test_an_ingredient_changes_the_source_or_its_vectors_and_no_test_user(pair, changes):
    changed = zesrec.load_pair("grocery", "pantry", Scale.TOY, **changes)
    assert changed.target_split.sha256 == pair.target_split.sha256
    smaller = {"users": changed.source.n_users < pair.source.n_users, "items": changed.source.n_items < pair.source.n_items}
    assert all(smaller[what] for what in changes if what in smaller)
    if "encoder" in changes:
        assert changed.spec.encoder != pair.spec.encoder


def test_cost_varies_one_size_at_a_time():
    frame = zesrec.cost({"users": (20, 40), "items": (10, 30), "purchases a user": (3, 6)})
    assert frame[["what", "value"]].values.tolist() == [
        ["users", 20], ["users", 40], ["items", 10], ["items", 30], ["purchases a user", 3], ["purchases a user", 6]
    ]  # fmt: skip
    assert (frame["seconds"] > 0).all()


def test_in_short_looks_its_numbers_up(table2, monkeypatch):
    """Toy: the gap that rows close. Public data: on how many pairs the best ZESRec row wins. Both from records alone."""

    def at(method, source, recall, scale="toy"):
        metrics = {name: [recall**2 if name == "MRR@20" else recall] for name in table2["POP"].metrics}
        return replace(table2["POP"], method=method, source=source, metrics=metrics, scale=scale, ranks={}, seeds=[0])

    toy = [at("POP", None, 0.2), at("Bayes-optimal", None, 0.6), at("ZESRec-G", "grocery", 0.3), at("ZESRec-T", "grocery", 0.32)]
    toy += [at("ZESRec-G (tuned)", "grocery", 0.44), at("ZESRec-G (tuned, shuffled)", "grocery", 0.5), at(zesrec.UNTRAINED, None, 0.4)]
    toy += [at("Emb-KNN (last, inner)", None, 0.5)]  # that another reading is better here counts for nothing
    small = {
        "office": [at("POP", None, 0.1, "small"), at(zesrec.UNTRAINED, None, 0.3, "small"), at("ZESRec-G", "scientific", 0.2, "small")],
        "yelp": [at("POP", None, 0.1, "small"), at(zesrec.UNTRAINED, None, 0.3, "small")],
    }
    small["office"] += [at(f"{name}-Meta (tuned)", None, recall, "small") for name, recall in (("GRU4Rec", 0.4), ("TCN", 0.2), ("HRNN", 0.3))]
    small["office"] += [at("ZESRec-G (tuned)", "scientific", 0.1, "small"), at("ZESRec-T (tuned)", "scientific", 0.02, "small")]
    monkeypatch.setattr(zesrec, "find", lambda target, scale, **asked: toy if scale == "toy" else small.get(target, []))
    text = zesrec.in_short(Scale.TOY)
    assert "ZESRec-T with the paper's settings closes 30% of the way from popularity to that score in Recall@20" in text
    assert "ZESRec-G (tuned) 60%, and a neighbour in text space that learns nothing 50%; in MRR@20" in text
    assert "ZESRec-G (tuned) closes 48%, the neighbour 38%." in text
    assert "On the one pair of public data on which ZESRec itself was run, its best row beats popularity on 1 and the" in text
    assert "untrained neighbour on none." in text
    assert "its network beats that neighbour in 1 of 2 runs; taught in another shop, it keeps 10% to 25% of its Recall@20." in text
    counted = f"Of the paper's {len(claims.load('zesrec'))} claims"
    assert counted in text
    assert text.endswith("not testable here.")
    assert "By those on public data: " in text
    assert "By those on public data" not in zesrec.in_short(Scale.SMALL)
    monkeypatch.setattr(zesrec, "find", lambda **asked: [])
    assert zesrec.in_short(Scale.TOY).startswith(counted)


@pytest.mark.parametrize("hidden", ["items", "kinds"])
def test_a_rehearsal_shares_nothing_and_lies_within_the_source(hidden):
    found = zesrec.load_rehearsal("grocery", Scale.TOY, hidden)
    whole = zesrec.load("grocery", Scale.TOY)
    for table in ("users", "items"):
        raw = [set(getattr(data, table)["raw"]) for data in (found.source, found.target)]
        assert not raw[0] & raw[1]
        assert raw[0] | raw[1] <= set(getattr(whole, table)["raw"])
    assert (found.source.name, found.target.name) == ("grocery", f"grocery-new-{hidden}")
    assert found.source.features.shape[1] == found.target.features.shape[1]
    if hidden == "kinds":  # what is alike stays together
        x, y = (d.features / np.linalg.norm(d.features, axis=1, keepdims=True) for d in (found.source, found.target))
        any_items = zesrec.load_rehearsal("grocery", Scale.TOY, "items")
        v, w = (d.features / np.linalg.norm(d.features, axis=1, keepdims=True) for d in (any_items.source, any_items.target))
        assert (x @ y.T).max(1).mean() < (v @ w.T).max(1).mean()


def test_pair_spec_tells_pairs_apart():
    a = PairSpec("a", "b", Scale.TOY)
    assert a == PairSpec("a", "b", Scale.TOY, TextEncoder())
    changes = (
        {"repeats": False},
        {"shuffled_ties": True},
        {"hidden": "items"},
        {"structure": 0.5},
        {"disjoint": False},
        {"encoder": TextEncoder(pooling="cls")},
        {"encoder": HashedWords()},
        {"target": "c"},
    )
    assert len({a, *(replace(a, **change) for change in changes)}) == 1 + len(changes)


def test_a_model_says_what_it_was_made_with_or_is_not_recorded(pair):
    @dataclass(frozen=True)
    class HalfSettings:
        share: float = 0.5

    class Half(Popularity):
        def __init__(self, settings: HalfSettings = HalfSettings()):
            self.settings = settings

    class Silent(Popularity):
        def __init__(self, share: float):
            self.share = share

    class Loose(Silent):
        settings: ClassVar = {"share": 0.5}

    assert zesrec.configuration(Half()) == zesrec.configuration(NewOnly(Half())) == {"share": 0.5}
    assert zesrec.configuration(Popularity()) == zesrec.configuration(NewOnly(Popularity())) == zesrec.configuration(Random(1)) == {}
    for silent in (Silent(0.5), Loose(0.5), NewOnly(Silent(0.5))):
        with pytest.raises(RecordError, match=r"takes share, which no record could tell; keep what it is made with in its settings, a dataclass"):
            zesrec.configuration(silent)
    with pytest.raises(RecordError, match="Silent takes share"):
        Bench(pair).record(System("Silent", "target", lambda seed: Silent(0.5), chance=False), [0])


def test_a_record_says_where_no_commit_holds_its_model(pair, monkeypatch):
    class Mine(Popularity):
        pass

    def version(make) -> str:
        return Bench(pair).record(System("mine", "target", make, chance=False), [0]).code_version

    commit = code_version()
    assert version(lambda seed: Popularity()) == version(lambda seed: NewOnly(Popularity())) == version(lambda seed: Mine()) == commit
    monkeypatch.setattr(Mine, "__module__", "a notebook")
    assert version(lambda seed: Mine()) == version(lambda seed: NewOnly(Mine())) == "unknown"
