"""The experiments of the PreRec chapter in a world so small that a model is fitted in a moment."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from zsrbook import records
from zsrbook.claims import Verdicts
from zsrbook.data.dataset import DataError
from zsrbook.data.matrix import rows_of, strangers
from zsrbook.data.toy import ToySettings, ToyWorld
from zsrbook.experiments import prerec
from zsrbook.experiments.prerec import Spec
from zsrbook.models.collaborative import EASE
from zsrbook.models.matrix import degrees
from zsrbook.scale import Scale
from zsrbook.tables import paper_numbers

GROCERY, PANTRY, CROWD = (Spec(name, Scale.TOY) for name in ("grocery", "pantry", "crowd"))
QUICK = ("MostPop", "EASE", "PreRec", "PreRec (shuffled)")


@pytest.fixture(autouse=True, scope="module")
def small_world():
    """Three hundred people a market, short walks, one process."""
    tiny = prerec.SETTINGS[Scale.TOY]
    walks = replace(tiny.features.node2vec, dimension=16, walks=5, length=20)
    quick = replace(
        tiny, features=replace(tiny.features, node2vec=walks, pair_clusters=40), hidden=(16, 8), training=replace(tiny.training, epochs=5)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZSRBOOK_WORKERS", "1")
        patch.setitem(prerec.SETTINGS, Scale.TOY, quick)
        patch.setattr(
            prerec, "toy_world", lambda **dials: ToyWorld(ToySettings(**({"users": (300, 300, 300), "history": 25.0, "taste": 3.0} | dials)))
        )
        patch.setattr(prerec, "_WEIGHTS", {})
        patch.setattr(prerec, "_MODELS", {})
        prerec.load.cache_clear()
        yield
    prerec.load.cache_clear()


def rows(experiment: str, spec: Spec, names: tuple[str, ...] = QUICK) -> list[prerec.System]:
    return [row for row in prerec.ROWS[experiment](spec) if row.name in names]


@pytest.fixture(scope="module")
def single() -> list[records.RunRecord]:
    return prerec.run(GROCERY, "single", [0, 1], rows("single", GROCERY))


@pytest.fixture(scope="module")
def moved() -> list[records.RunRecord]:
    return prerec.run(PANTRY, "transfer", [0], rows("transfer", PANTRY), GROCERY)


def test_markets_are_disjoint_and_their_split_is_named():
    names = [set(prerec.raw(s).users["raw"]) | set(prerec.raw(s).items["raw"]) for s in (GROCERY, PANTRY)]
    assert not names[0] & names[1]
    assert prerec.load(GROCERY).sha256 == prerec.load(Spec("grocery", Scale.TOY)).sha256


def test_a_market_of_other_statistics_has_them():
    share = {s: np.sort(degrees(prerec.load(s).train)[1])[-10:].sum() / prerec.load(s).train.nnz for s in (PANTRY, Spec("even", Scale.TOY))}
    assert share[Spec("even", Scale.TOY)] < share[PANTRY]


def test_records_hold_what_their_ranks_give(single, moved):
    for record in (*single, *moved):
        assert not list(record.contradictions())
    named = {r.method: r for r in single}
    assert named["MostPop"].seeds == [0]
    assert named["PreRec"].seeds == [0, 1]
    assert moved[0].pair == "grocery--pantry"


def test_a_seed_repeats(single):
    (again,) = prerec.run(GROCERY, "single", [1], rows("single", GROCERY, ("PreRec",)))
    first = next(r for r in single if r.method == "PreRec")
    assert [again.metrics[name][0] for name in again.metrics] == [first.metrics[name][1] for name in again.metrics]


def test_a_table_and_a_mixture_share_their_models_but_for_other_seeds_and_settings():
    """The last few alone are kept, since some are large."""
    (row,) = rows("single", GROCERY, ("EASE",))
    model, _ = prerec.fitted(GROCERY, row, 0)
    assert prerec.fitted(GROCERY, replace(row), 0)[0] is model
    assert prerec.fitted(GROCERY, row, 1)[0] is not model
    assert prerec.fitted(PANTRY, row, 0)[0] is not model
    assert len(prerec._MODELS) <= prerec._MOST_MODELS


def test_the_truth_is_ahead_of_all_that_learns_and_is_popularity_where_there_is_no_more():
    learned = {r.method: r.mean("NDCG@20") for r in prerec.run(GROCERY, "single", [0], rows("single", GROCERY, ("MostPop", "EASE", "Truth")))}
    assert learned["Truth"] > 1.1 * learned["EASE"]
    (row,) = rows("single", CROWD, ("Truth",))
    truth, split = row.make(0).fit(prerec.load(CROWD).train), prerec.load(CROWD)
    market = prerec.toy_world(structure=0.0)
    scores = truth.scores(np.array([0, 5]))
    popular = market.popularity(prerec.OTHER_STATISTICS["crowd"][0])[truth.places]
    assert scores.shape == (2, split.train.shape[1])
    assert np.argsort(-scores[1]).tolist() == np.argsort(-popular).tolist()


def test_a_family_is_carried_alone():
    names = ("PreRec (activity)", "PreRec (co-occurrence, sides apart)")
    found = prerec.run(PANTRY, "carried", [0], rows("carried", PANTRY, names), GROCERY)
    assert [(r.method, r.pair) for r in found] == [(name, "grocery--pantry") for name in names]
    assert prerec.tasks("carried", "pantry", "grocery", Scale.TOY) == [(PANTRY, GROCERY)]
    popular = prerec.popularity_of(prerec.run(PANTRY, "single", [0], rows("single", PANTRY, ("MostPop",))))
    table = prerec.carried(found, popular)
    assert table.index.tolist() == [name[8:-1] for name in names]
    assert table["NDCG@20"].tolist() == [r.mean("NDCG@20") for r in found]
    assert (table["lowest"] == table["highest"]).all()
    assert (table["better"] + table["worse"] <= table["pairs"]).all()
    assert table.loc[names[1][8:-1], "gain"] > table.loc["activity", "gain"]


def test_shuffled_descriptions_find_nothing(single):
    named = {r.method: r.mean("AUC") for r in single}
    assert named["PreRec (shuffled)"] == pytest.approx(0.5, abs=0.05)
    assert named["PreRec"] > 0.55


def test_nothing_is_transferred_that_the_audit_forbids():
    audit = prerec.audit(PANTRY, GROCERY)
    assert not audit.iloc[:5].any()
    assert audit["numbers that travel"] < 10_000


def test_strangers_are_judged_apart():
    found = prerec.run(GROCERY, "strangers", [0], rows("strangers", GROCERY, ("MostPop", "EASE", "PreRec", "BPR-MF")))
    named = {(r.experiment, r.method): r for r in found}
    assert {kind for kind, _ in named} == set(prerec.STRANGERS)
    assert ("new-users", "BPR-MF (trained on all)") in named
    assert named["new-users", "EASE"].mean("AUC") > 0.6
    assert named["new-items", "EASE"].mean("Recall@20") == 0  # it gives an item that it never met no score
    assert named["new-items", "EASE (trained on all)"].mean("AUC") > 0.6
    assert named["both-new", "PreRec"].mean("AUC") > named["both-new", "EASE"].mean("AUC")
    assert list(prerec.by_kind(found, "AUC").columns) == list(prerec.STRANGERS.values())


def test_item_based_models_learn_and_stop_without_strangers():
    seen = []

    class Watched(EASE):
        def fit(self, train, valid=None):
            seen.append((train, valid))
            return super().fit(train, valid)

    (row,) = rows("strangers", GROCERY, ("EASE",))
    prerec.strange(GROCERY, replace(row, make=lambda seed: Watched()), 0)
    split = prerec.load(GROCERY)
    users, items = strangers(split)
    for part, whole in zip(seen[-1], (split.train, split.valid), strict=True):
        assert part.shape == ((~users).sum(), split.train.shape[1])
        assert (part.toarray() == np.where(items, 0, whole.toarray()[~users])).all()


def test_a_mixture_is_never_worse_than_its_base_by_the_oracle():
    found = prerec.run(GROCERY, "interpolation", [0], rows("interpolation", GROCERY, ("MostPop", "EASE")))
    assert {r.method for r in found} == {
        name for row in rows("interpolation", GROCERY, ("MostPop", "EASE")) for _, name in prerec.made_by("interpolation", row)
    }
    table = prerec.mixtures(found)
    assert table["gain"].to_numpy() == pytest.approx((100 * (table["mixed"] / table["alone"] - 1)).to_numpy(), abs=1e-6)
    assert (table["low"] <= table["gain"]).all()
    assert (table["gain"] <= table["high"]).all()
    assert (table["oracle"] >= -1e-9).all()
    assert (table["oracle"] >= table["gain"] - 1e-9).all()
    assert table["α"].between(0, 1).all()


def test_the_guard_and_its_absence_can_be_seen():
    looks = prerec.leak(GROCERY)
    means = {name: values.mean() for name, values in looks.items()}
    assert abs(means["learned from, guarded"] - means["to be found"]) < abs(means["learned from, unguarded"] - means["to be found"])


def test_every_decision_has_words_and_settings_of_its_own():
    settings = [s for _, s in prerec.deviation_settings(Scale.TOY).values()]
    assert len(set(map(str, settings))) == len(settings)
    assert str(prerec.SETTINGS[Scale.TOY]) not in map(str, settings)


def test_a_row_that_does_not_fit_is_left_out_with_a_reason(monkeypatch):
    monkeypatch.setattr(prerec, "results", lambda experiment, spec: [])
    epinions, yelp = (Spec(name, Scale.SMALL) for name in ("epinions", "yelp"))
    assert "EASE" not in [row.name for row in prerec.baselines(epinions)]
    assert "EASE" in [row.name for row in prerec.baselines(yelp)]
    assert prerec.board(["epinions", "yelp"], Scale.SMALL).loc["EASE"].tolist() == ["too large", "–"]


def test_the_board_has_a_cell_a_method_and_data_set(single, monkeypatch):
    monkeypatch.setattr(prerec, "results", lambda experiment, spec: single)
    found = prerec.board(["grocery"], Scale.TOY)
    assert found.loc["MostPop", "grocery"].startswith(f"{single[0].mean('NDCG@20'):.3f}\N{NO-BREAK SPACE}± ".rstrip())
    assert found.loc["PreRec", "grocery"].endswith("(2)")


def test_shares_are_of_the_other_method_by_each_metric(single, monkeypatch):
    monkeypatch.setattr(prerec, "results", lambda experiment, spec: single if spec.name == "grocery" else single[:1])
    found = prerec.shares(["grocery", "pantry"], Scale.TOY, "PreRec", "EASE", ("NDCG@20", "AUC"))
    assert list(found.index) == ["grocery"]  # the other data set lacks one of the two
    named = {r.method: r for r in single}
    assert found.loc["grocery", "AUC"] == pytest.approx(named["PreRec"].mean("AUC") / named["EASE"].mean("AUC"))


def test_costs_are_those_of_a_seed(single, monkeypatch):
    monkeypatch.setattr(prerec, "results", lambda experiment, spec: single)
    found = prerec.costs(["grocery"], Scale.TOY)
    whole = next(r for r in single if r.method == "PreRec")
    assert found.loc["PreRec", "grocery"] == pytest.approx(whole.minutes / 2)
    assert "PreRec (shuffled)" not in found.index


def test_the_level_is_asked_of_every_published_baseline_and_of_one_data_set_alone():
    [(spec, source)] = prerec.tasks("level", "ml-1m", "", Scale.SMALL)
    assert (spec.label, source, prerec.rules(spec).most) == ("ml-1m-recbole", None, None)
    made = {row.name: row.make(3) for row in prerec.level_rows(spec)}
    assert set(made) == set(paper_numbers("recbole_ml1m")["method"])
    assert (made["BPR-MF"].settings.seed, made["LightGCN"].settings.training.seed, made["EASE"].settings.lam) == (3, 3, 1000.0)
    assert [row.name for row in prerec.level_rows(spec) if not row.chance] == ["MostPop", "ItemKNN", "EASE"]
    with pytest.raises(DataError, match="published for ml-1m alone, but 'all' was given"):
        prerec.tasks("level", "all", "", Scale.SMALL)


def test_a_baseline_stands_beside_what_is_published(single):
    found = prerec.benchmark(single)
    assert list(found.index) == ["MostPop", "EASE"]  # nobody publishes the others
    ours, theirs, off = found.loc["EASE", "NDCG@10"][["ours", "theirs", "off"]]
    assert (ours, theirs) == (pytest.approx(next(r for r in single if r.method == "EASE").mean("NDCG@10")), 0.2865)
    assert off == pytest.approx(100 * (ours / theirs - 1))


def test_damage_leaves_what_is_to_be_found():
    whole, fewer, wrong = (prerec.load(replace(GROCERY, **c)) for c in ({}, {"dropped": 0.5}, {"corrupted": 0.3}))
    for split in (fewer, wrong):
        assert (split.test != whole.test).nnz == 0
        assert split.train.multiply(whole.test + whole.valid).nnz == 0
    assert fewer.train.nnz == pytest.approx(0.5 * whole.train.nnz, rel=0.05)
    kept = wrong.train.multiply(whole.train).nnz / whole.train.nnz
    assert kept == pytest.approx(0.7, abs=0.1)
    assert replace(GROCERY, dropped=0.5).label == "grocery-drop50"


def test_sessions_end_at_a_pause_and_need_a_clock():
    data = prerec.by_session(prerec.raw(GROCERY))
    frame = data.interactions
    gap = frame.groupby("user")["time"].diff()
    assert gap.max() <= 86_400
    assert len(frame) == len(prerec.raw(GROCERY))
    with pytest.raises(DataError, match="no time stamps"):
        prerec.by_session(replace(data, clock=False))


def test_gains_are_held_against_the_popularity_of_the_target(single, moved):
    popular = prerec.popularity_of([*single, *prerec.run(PANTRY, "single", [0], rows("single", PANTRY, ("MostPop",)))])
    grid = prerec.gains([r for r in (*single, *moved) if r.method == "PreRec"], popular)
    assert list(zip(grid["source"], grid["target"], strict=True)) == [("grocery", "grocery"), ("grocery", "pantry")]
    assert (grid["low"] < grid["gain"]).all()
    assert (grid["gain"] < grid["high"]).all()


@pytest.mark.parametrize(("ours", "where"), [(0.2, "between"), (0.1, "between"), (0.05, "below both"), (0.4, "above both")])
def test_in_short_looks_up_where_prerec_stands(single, monkeypatch, ours, where):
    reached = {"MostPop": 0.1, "PreRec": ours, "EASE": 0.3}
    told = [replace(r, metrics={"NDCG@20": [reached[r.method]] * len(r.seeds)}, ranks={}) for r in single if r.method in reached]
    monkeypatch.setattr(
        prerec, "find", lambda experiment, scale, method="", **asked: told if (experiment, scale, method) == ("single", "toy", "") else []
    )
    monkeypatch.setattr(prerec, "verdicts", lambda paper, scale: Verdicts())
    assert f"NDCG@20 {ours:.3f}, {where} popularity (0.100) and EASE (0.300)" in prerec.in_short(Scale.TOY)


def test_in_short_tells_of_each_kind_of_transfer_by_itself(monkeypatch):
    counts = pd.DataFrame({"better": [5, 10], "worse": [9, 2], "pairs": [20, 21]}, ["PreRec", "tuned"])
    monkeypatch.setattr(prerec, "find", lambda **asked: [])
    monkeypatch.setattr(prerec, "verdicts", lambda paper, scale: Verdicts())
    told = []
    for there in (counts, counts.iloc[:1], counts.iloc[1:]):
        monkeypatch.setattr(prerec, "carried", lambda records, base, there=there: there)
        told.append(prerec.in_short(Scale.TOY))
    one, other = "Between public data sets 5 of 20 transfers beat popularity and 9 fall below it.", "10 of 21 transfers between public data sets beat"
    assert [one in text for text in told] == [True, True, False]
    assert [other in text for text in told] == [True, False, True]


def test_groups_of_users_make_up_all_of_them(single):
    named = {r.method: r for r in single}
    groups = prerec.by_activity(named["PreRec"], named["MostPop"], prerec.load(GROCERY))
    assert groups["users"].sum() == len(named["PreRec"].per_user("NDCG@20").users)
    assert np.average(groups["ours"], weights=groups["users"]) == pytest.approx(named["PreRec"].mean("NDCG@20"), abs=1e-6)


def test_quarters_by_known_ones_are_those_by_activity(moved):
    """What is known of a user is training and validation; a model that is ahead in every quarter is so by all of its transfers."""
    popular = prerec.run(PANTRY, "single", [0], rows("single", PANTRY, ("MostPop", "Random", "Truth")))
    base = prerec.popularity_of(popular)
    random, truth = (next(r for r in popular if r.method == name) for name in ("Random", "Truth"))
    found = prerec.by_known([truth, random], base)
    assert list(found.index) == ["fewest", "fewer", "more", "most"]
    assert (found["better"] == 1).all()
    assert (found["worse"] == 1).all()
    assert (found["transfers"] == 2).all()
    itself = prerec.by_known(popular[:1], base)
    assert (itself[["gain", "better", "worse"]] == 0).all().all()
    table = truth.ranks[0]
    known = degrees(prerec.load(PANTRY).known)[0][table.user]
    assert (table.n_candidates + known == prerec.load(PANTRY).train.shape[1]).all()


def test_the_dial_ends_at_the_full_ranking(single):
    turned = prerec.dial(single, (10, 50, 100))
    assert turned.index[-1] == "all"
    assert (turned.diff().iloc[1:] <= 1e-9).all().all()  # more negatives, more that may stand above
    assert turned.loc["100", "EASE"] == pytest.approx(next(r for r in single if r.method == "EASE").mean("NDCG@10 (1+100)"))


def test_statistics_that_decide_the_gain_are_found():
    names = list("abcdefg")
    size = pd.Series(np.arange(1.0, 8.0), names)
    pairs = [(s, t) for s in names for t in names if s != t]
    grid = pd.DataFrame(pairs, columns=["source", "target"]).assign(gain=[size[t] for _, t in pairs])
    found = prerec.foretelling(grid, pd.DataFrame({"size": size, "other": [3.0, 6.0, 1.0, 7.0, 4.0, 2.0, 5.0]}))
    assert found.loc[("size", "of the target"), "ρ"] == pytest.approx(1.0)
    assert found.loc[("size", "of the target"), "p"] < 0.05
    assert found.loc[("other", "of the target"), "p"] > 0.05


def test_few_data_sets_are_permuted_in_every_order():
    """Of four in 24 orders; what falls with the target is as far from chance as what rises with it."""
    names = list("abcd")
    size = pd.Series([1.0, 2.0, 3.0, 4.0], names)
    pairs = [(s, t) for s in names for t in names if s != t]
    grid = pd.DataFrame(pairs, columns=["source", "target"]).assign(gain=[size[t] for _, t in pairs])
    found = prerec.foretelling(grid, pd.DataFrame({"size": size, "small": 1 / size}))
    assert found["p"].mul(24).sub(found["p"].mul(24).round()).abs().max() < 1e-9
    assert found.loc[("size", "of the target"), "p"] == found.loc[("small", "of the target"), "p"] == pytest.approx(2 / 24)


def test_data_sets_that_are_not_at_hand_are_summed_up_by_their_records(single, monkeypatch):
    fits = prerec.tail_records(GROCERY, draws=2)
    kept = [*fits, *single]
    monkeypatch.setattr(prerec, "find", lambda **asked: [r for r in kept if all(getattr(r, k) == v for k, v in asked.items() if k != "scale")])
    found = prerec.recorded_summaries(["grocery", "nowhere"], Scale.TOY)
    assert list(found.index) == ["grocery"]
    popular = next(r for r in single if r.method == "MostPop")
    assert found.loc["grocery", "NDCG@20 of MostPop"] == popular.mean("NDCG@20")
    assert found.loc["grocery", "Gini of users"] == next(r for r in fits if r.method == "users").mean("Gini")
    assert found.loc["grocery", "candidates"] < prerec.load(GROCERY).train.shape[1]


def test_levels_count_ties():
    model, _ = prerec.fitted(GROCERY, prerec.family_rows(GROCERY)[0], 0)
    found = prerec.levels(model, np.unique(rows_of(prerec.load(GROCERY).test))[:20])
    assert found["different scores"] <= 10 < found["items"]
    assert found["items level with the best"] > 1


def test_clusters_of_one_seed_agree_with_themselves():
    table = prerec.stability(GROCERY, seeds=(0, 0))
    assert table["adjusted Rand index"].tolist() == [1.0]
    other = prerec.stability(GROCERY, seeds=(0, 1))
    assert 0 < other["adjusted Rand index"].iloc[0] < 1


def test_what_run_is_asked_for_becomes_tasks():
    assert len(prerec.tasks("transfer", "all", "", Scale.TOY)) == 20
    assert prerec.tasks("transfer", "pantry", "grocery", Scale.TOY) == [(PANTRY, GROCERY)]
    assert [s.label for s, _ in prerec.tasks("open", "grocery", "", Scale.TOY)][-1] == "grocery-sessions"
    with pytest.raises(DataError, match="leave --source out"):
        prerec.tasks("single", "grocery", "pantry", Scale.TOY)


def test_a_page_takes_from_the_records_what_still_holds(monkeypatch, tmp_path, single):
    """Rows with all of their seeds come from the records; others run, and a live row runs its first seed."""
    monkeypatch.setattr(prerec, "SEEDS", [0, 1])
    ran = []
    monkeypatch.setattr(prerec, "find", lambda **asked: single)
    run = prerec.run
    monkeypatch.setattr(
        prerec,
        "run",
        lambda spec, ex, seeds, some, source=None: ran.append((list(seeds), [r.name for r in some])) or run(spec, ex, seeds, some, source),
    )
    found = prerec.results("single", GROCERY, ("PreRec",), only=QUICK)
    assert ran == [([0, 1], []), ([0], ["PreRec"])]
    assert [r.method for r in found] == list(QUICK)
    assert next(r for r in found if r.method == "PreRec").metrics == next(r for r in single if r.method == "PreRec").metrics


def test_prerec_is_tuned_over_eight_readings_and_then_without_its_guard():
    found = prerec.chosen_reading(GROCERY)
    assert [fit["guard"] for fit in found.tried] == [True] * 8 + [False]
    best = max(found.tried, key=lambda fit: fit["valid"])
    assert (found.model.settings.guard, found.model.settings.features.bins) == (best["guard"], best["features"]["bins"])
    eight = max(found.tried[:8], key=lambda fit: fit["valid"])
    assert found.tried[-1]["features"] == eight["features"]
