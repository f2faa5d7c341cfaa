"""What the PreRec chapter makes of records, in a world so small that a model is fitted in a moment."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tiny_prerec
from tiny_prerec import GROCERY, PANTRY, recorded

from zsrbook import claims
from zsrbook.claims import Verdicts
from zsrbook.data.matrix import rows_of
from zsrbook.evaluation.ranks import RankTable
from zsrbook.experiments import prerec, prerec_tables
from zsrbook.experiments.prerec import STRANGERS
from zsrbook.models.matrix import degrees
from zsrbook.scale import Scale

small_world, single, moved = tiny_prerec.small_world, tiny_prerec.single, tiny_prerec.moved  # fixtures


def test_a_row_that_is_left_out_is_too_large_and_one_that_nobody_ran_has_a_dash(monkeypatch):
    monkeypatch.setattr(prerec_tables, "results", lambda experiment, spec: [])
    assert prerec_tables.board(["epinions", "yelp"], Scale.SMALL).loc["EASE"].tolist() == ["too large", "–"]


def test_the_board_has_a_cell_a_method_and_data_set(single, monkeypatch):
    monkeypatch.setattr(prerec_tables, "results", lambda experiment, spec: single)
    found = prerec_tables.board(["grocery"], Scale.TOY)
    assert found.loc["MostPop", "grocery"].startswith(f"{single[0].mean('NDCG@20'):.3f}\N{NO-BREAK SPACE}±")
    assert found.loc["PreRec", "grocery"].endswith("(2)")


def test_shares_are_of_the_other_method_by_each_metric(single, monkeypatch):
    monkeypatch.setattr(prerec_tables, "results", lambda experiment, spec: single if spec.name == "grocery" else single[:1])
    found = prerec_tables.shares(["grocery", "pantry"], Scale.TOY, "PreRec", "EASE", ("NDCG@20", "AUC"))
    assert list(found.index) == ["grocery"]  # the other data set lacks one of the two
    named = {r.method: r for r in single}
    assert found.loc["grocery", "AUC"] == pytest.approx(named["PreRec"].mean("AUC") / named["EASE"].mean("AUC"))


def test_costs_are_those_of_a_seed(single, monkeypatch):
    monkeypatch.setattr(prerec_tables, "results", lambda experiment, spec: single)
    found = prerec_tables.costs(["grocery"], Scale.TOY)
    whole = next(r for r in single if r.method == "PreRec")
    assert found.loc["PreRec", "grocery"] == pytest.approx(whole.minutes / 2)
    assert "PreRec (shuffled)" not in found.index


def test_tuning_says_what_was_tried_and_chosen(monkeypatch):
    rows = [row for row in prerec.trials(GROCERY) if row.name.startswith("EASE")]
    made = prerec.run(GROCERY, "tuning", [0], rows)
    monkeypatch.setattr(prerec_tables, "find", lambda **asked: made if asked["target"] == "grocery" else [])
    found = prerec_tables.tuning(["grocery", "pantry"], Scale.TOY)
    best = max(made, key=lambda r: r.metrics["NDCG@20"][0])
    (row,) = found.itertuples()
    assert (row.Index, row.fits, row.chosen) == (("grocery", "EASE"), 5, f"lam {best.config['lam']:g}")
    assert (row.worst, row.best) == (min(r.metrics["NDCG@20"][0] for r in made), best.metrics["NDCG@20"][0])
    assert prerec_tables.tuning(["pantry"], Scale.TOY).empty


def test_a_baseline_stands_beside_what_is_published(single):
    found = prerec_tables.benchmark(single)
    assert list(found.index) == ["MostPop", "EASE"]  # nobody publishes the others
    ours, theirs, off = found.loc["EASE", "NDCG@10"][["ours", "theirs", "off"]]
    assert (ours, theirs) == (pytest.approx(next(r for r in single if r.method == "EASE").mean("NDCG@10")), 0.2865)
    assert off == pytest.approx(100 * (ours / theirs - 1))


def test_levels_count_ties():
    model, _ = prerec.fitted(GROCERY, prerec.family_rows(GROCERY)[0], 0)
    found = prerec_tables.levels(model, np.unique(rows_of(prerec.load(GROCERY).test))[:20])
    assert found["different scores"] <= 10 < found["items"]
    assert found["items level with the best"] > 1


def test_luck_is_what_ties_are_worth(single):
    """Expected lies between; where nothing ties, luck plays no part. Two of one user that tie with each other can't both stand first."""
    found = prerec_tables.by_luck([r for r in single if r.method in ("MostPop", "EASE")])
    assert (found["last"] <= found["expected"]).all()
    assert (found["expected"] <= found["first"]).all()
    assert found.loc["MostPop", "first"] > found.loc["MostPop", "last"]
    named = {r.method: r for r in single}
    assert found.loc["MostPop", "expected"] == pytest.approx(named["MostPop"].mean("NDCG@20"))
    tied = RankTable.of(greater=[3, 3], ties=[4, 4], n_candidates=30, user=[0, 0])
    both = replace(named["EASE"], seeds=[0], metrics={"Recall@4": [0.0]}, ranks={0: tied})
    assert prerec_tables.by_luck([both], "Recall@4").loc["EASE"].round(6).tolist() == [0.2, 0.5, 0.0]


def test_the_dial_ends_at_the_full_ranking(single):
    turned = prerec_tables.dial(single, (10, 50, 100))
    assert turned.index[-1] == "all"
    assert (turned.diff().iloc[1:] <= 1e-9).all().all()  # more negatives, more that may stand above
    assert turned.loc["100", "EASE"] == pytest.approx(next(r for r in single if r.method == "EASE").mean("NDCG@10 (1+100)"))


def test_gains_are_held_against_the_popularity_of_the_target(single, moved):
    popular = prerec_tables.popularity_of([*single, *recorded("single", PANTRY, ("MostPop",))])
    grid = prerec_tables.gains([r for r in (*single, *moved) if r.method == "PreRec"], popular)
    assert list(zip(grid["source"], grid["target"], strict=True)) == [("grocery", "grocery"), ("grocery", "pantry")]
    assert (grid["low"] < grid["gain"]).all()
    assert (grid["gain"] < grid["high"]).all()


def test_groups_of_users_make_up_all_of_them(single):
    named = {r.method: r for r in single}
    groups = prerec_tables.by_activity(named["PreRec"], named["MostPop"], prerec.load(GROCERY))
    assert groups["users"].sum() == len(named["PreRec"].per_user("NDCG@20").users)
    assert np.average(groups["ours"], weights=groups["users"]) == pytest.approx(named["PreRec"].mean("NDCG@20"), abs=1e-6)


def test_quarters_by_known_ones_are_those_by_activity():
    """What is known of a user is training and validation; a model that is ahead in every quarter is so by all of its transfers."""
    popular = recorded("single", PANTRY, ("MostPop", "Random", "Truth"))
    base = prerec_tables.popularity_of(popular)
    random, truth = (next(r for r in popular if r.method == name) for name in ("Random", "Truth"))
    found = prerec_tables.by_known([truth, random], base)
    assert list(found.index) == ["fewest", "fewer", "more", "most"]
    assert (found["better"] == 1).all()
    assert (found["worse"] == 1).all()
    assert (found["transfers"] == 2).all()
    itself = prerec_tables.by_known(popular[:1], base)
    assert (itself[["gain", "better", "worse"]] == 0).all().all()
    table = truth.ranks[0]
    known = degrees(prerec.load(PANTRY).known)[0][table.user]
    assert (table.n_candidates + known == prerec.load(PANTRY).train.shape[1]).all()


def test_statistics_that_decide_the_gain_are_found():
    names = list("abcdefg")
    size = pd.Series(np.arange(1.0, 8.0), names)
    pairs = [(s, t) for s in names for t in names if s != t]
    grid = pd.DataFrame(pairs, columns=["source", "target"]).assign(gain=[size[t] for _, t in pairs])
    found = prerec_tables.foretelling(grid, pd.DataFrame({"size": size, "other": [3.0, 6.0, 1.0, 7.0, 4.0, 2.0, 5.0]}))
    assert found.loc[("size", "of the target"), "ρ"] == pytest.approx(1.0)
    assert found.loc[("size", "of the target"), "p"] < 0.05
    assert found.loc[("other", "of the target"), "p"] > 0.05


def test_few_data_sets_are_permuted_in_every_order():
    """Of four in 24 orders; what falls with the target is as far from chance as what rises with it."""
    names = list("abcd")
    size = pd.Series([1.0, 2.0, 3.0, 4.0], names)
    pairs = [(s, t) for s in names for t in names if s != t]
    grid = pd.DataFrame(pairs, columns=["source", "target"]).assign(gain=[size[t] for _, t in pairs])
    found = prerec_tables.foretelling(grid, pd.DataFrame({"size": size, "small": 1 / size}))
    assert found["p"].mul(24).sub(found["p"].mul(24).round()).abs().max() < 1e-9
    assert found.loc[("size", "of the target"), "p"] == found.loc[("small", "of the target"), "p"] == pytest.approx(2 / 24)


def test_data_sets_that_are_not_at_hand_are_summed_up_by_their_records(single, monkeypatch):
    fits = prerec.tail_records(GROCERY, draws=2)
    kept = [*fits, *single]
    monkeypatch.setattr(prerec_tables, "find", lambda **asked: [r for r in kept if all(getattr(r, k) == v for k, v in asked.items() if k != "scale")])
    found = prerec_tables.recorded_summaries(["grocery", "nowhere"], Scale.TOY)
    assert list(found.index) == ["grocery"]
    popular = next(r for r in single if r.method == "MostPop")
    assert found.loc["grocery", "NDCG@20 of MostPop"] == popular.mean("NDCG@20")
    assert found.loc["grocery", "Gini of users"] == next(r for r in fits if r.method == "users").mean("Gini")
    assert found.loc["grocery", "candidates"] < prerec.load(GROCERY).train.shape[1]


def test_what_carries_over_is_told_by_method():
    names = ("PreRec (activity)", "PreRec (co-occurrence, sides apart)")
    found = recorded("carried", PANTRY, names, source=GROCERY)
    table = prerec_tables.carried(found, prerec_tables.popularity_of(recorded("single", PANTRY, ("MostPop",))))
    assert table.index.tolist() == [name[8:-1] for name in names]
    assert table["NDCG@20"].tolist() == [r.mean("NDCG@20") for r in found]
    assert (table["lowest"] == table["highest"]).all()
    assert (table["better"] + table["worse"] <= table["pairs"]).all()
    assert table.loc[names[1][8:-1], "gain"] > table.loc["activity", "gain"]


def test_draws_are_all_runs_of_a_row_and_each_counts_once(single, monkeypatch):
    """The record of another experiment holds one of the two seeds again, and a run of another machine."""
    ours = next(r for r in single if r.method == "PreRec")
    elsewhere = {name: [values[0], values[0] / 2] for name, values in ours.metrics.items()}
    again = replace(ours, experiment="families", metrics=elsewhere)
    monkeypatch.setattr(prerec_tables, "find", lambda experiment, **asked: {"single": [ours], "families": [again]}.get(experiment, []))
    found = prerec_tables.draws_of("PreRec", "grocery", Scale.TOY)
    assert found.seeds == [0, 1, 2]
    assert found.metrics["AUC"] == [*ours.metrics["AUC"], ours.metrics["AUC"][0] / 2]
    assert list(found.ranks) == [0, 1, 2]
    monkeypatch.setattr(prerec_tables, "find", lambda **asked: [])
    assert prerec_tables.draws_of("PreRec", "grocery", Scale.TOY) is None


def test_a_gain_within_the_draws_of_the_other_row_is_not_clear(single):
    ours, random = (next(r for r in single if r.method == name) for name in ("EASE", "PreRec (shuffled)"))
    found = prerec_tables.beyond_draws([ours, random], {"grocery": replace(random)})
    assert found["clear"].tolist() == [1, 0]
    lucky = replace(random, metrics={name: [2 * ours.mean(name), 0.0] for name in random.metrics})
    assert prerec_tables.beyond_draws([ours], {"grocery": lucky})["clear"].tolist() == [0]
    for twin, clear in ((random, 1), (ours, 0)):  # beyond all draws, and no different from the one of its seed
        assert prerec_tables.beyond_draws([ours], {"grocery": random}, same={"grocery": twin})["clear"].tolist() == [clear]


def test_of_open_questions_those_are_shown_that_were_recorded(single, monkeypatch):
    asked = []
    monkeypatch.setattr(prerec_tables, "find", lambda target, **more: single if target in ("grocery", "grocery-drop50") else [])
    monkeypatch.setattr(prerec_tables, "results", lambda experiment, spec: asked.append((experiment, spec.label)) or single)
    found = prerec_tables.open_questions(GROCERY)
    assert found.index.tolist() == ["as it is", "half of the ones dropped"]
    assert asked == [("single", "grocery"), ("open", "grocery-drop50")]
    assert found.loc["as it is", "EASE"] == next(r for r in single if r.method == "EASE").mean("NDCG@20")


def test_strangers_have_a_column_a_kind(single):
    """What the ranks are does not matter here, so those of a single data set stand for strangers'."""
    found = prerec_tables.by_kind([replace(r, experiment=kind) for kind in STRANGERS for r in single], "AUC")
    assert list(found.columns) == list(STRANGERS.values())
    assert found.index.tolist() == [r.method for r in single]
    assert found["new items"].tolist() == [r.mean("AUC") for r in single]


def test_a_mixture_is_never_worse_than_its_base_by_the_oracle():
    table = prerec_tables.mixtures(recorded("interpolation", GROCERY, ("MostPop", "EASE")))
    assert table["gain"].to_numpy() == pytest.approx((100 * (table["mixed"] / table["alone"] - 1)).to_numpy(), abs=1e-6)
    assert (table["low"] <= table["gain"]).all()
    assert (table["gain"] <= table["high"]).all()
    assert (table["oracle"] >= -1e-9).all()
    assert (table["oracle"] >= table["gain"] - 1e-9).all()
    assert table["α"].between(0, 1).all()


@pytest.mark.parametrize(("ours", "where"), [(0.2, "between"), (0.1, "between"), (0.05, "below both"), (0.4, "above both")])
def test_in_short_looks_up_where_prerec_stands(single, monkeypatch, ours, where):
    reached = {"MostPop": 0.1, "PreRec": ours, "EASE": 0.3}
    told = [replace(r, metrics={"NDCG@20": [reached[r.method]] * len(r.seeds)}, ranks={}) for r in single if r.method in reached]
    monkeypatch.setattr(
        prerec_tables, "find", lambda experiment, scale, method="", **asked: told if (experiment, scale, method) == ("single", "toy", "") else []
    )
    monkeypatch.setattr(claims, "verdicts", lambda paper, scale: Verdicts())
    assert f"NDCG@20 {ours:.3f}, {where} popularity (0.100) and EASE (0.300)" in prerec_tables.in_short(Scale.TOY)


def test_in_short_tells_of_each_kind_of_transfer_by_itself(monkeypatch):
    counts = pd.DataFrame({"better": [5, 10], "worse": [9, 2], "pairs": [20, 21]}, ["PreRec", "tuned"])
    monkeypatch.setattr(prerec_tables, "find", lambda **asked: [])
    monkeypatch.setattr(claims, "verdicts", lambda paper, scale: Verdicts())
    told = []
    for there in (counts, counts.iloc[:1], counts.iloc[1:]):
        monkeypatch.setattr(prerec_tables, "carried", lambda records, base, there=there: there)
        told.append(prerec_tables.in_short(Scale.TOY))
    one, other = "Between public data sets 5 of 20 transfers beat popularity and 9 fall below it.", "10 of 21 transfers between public data sets beat"
    assert [one in text for text in told] == [True, True, False]
    assert [other in text for text in told] == [True, False, True]


def test_transfers_above_popularity_are_counted_by_target(monkeypatch):
    found = pd.DataFrame({"target": ["yelp", "douban", "douban", "ml-1m"], "low": [1.0, 2.0, 3.0, -1.0]})
    assert prerec_tables.into(found) == "douban 2, yelp 1"
    assert not prerec_tables.into(found[:0])
    monkeypatch.setattr(prerec_tables, "find", lambda **asked: [])
    assert prerec_tables.when() == []


def test_when_statistics_beat_popularity_is_told_by_world_and_beside_counting(single, monkeypatch):
    """The worlds have one transfer each; popularity is far below it in one, and far above it in the other."""
    ours, popular = (next(r for r in single if r.method == name) for name in ("PreRec", "MostPop"))
    never = replace(popular, metrics={name: [0.0] * len(popular.seeds) for name in popular.metrics})

    def found(experiment, scale, method="", **asked):
        source, target = ("pantry", "crowd") if scale is Scale.TOY else ("yelp", "douban")
        if experiment == "transfer":
            return [replace(ours, source=source, target=target, experiment=experiment)]
        return [replace(popular if method == "MostPop" else never, target=target, method=method)]

    monkeypatch.setattr(prerec_tables, "find", found)
    toy, public, counting = prerec_tables.when()
    assert "0 of 0 transfers between toy markets with tastes" in toy
    assert "Of 1 into or out of *crowd*" in toy
    assert " of 1 transfers beat popularity" in public
    assert "is above 0 of these 2 transfers" in counting


@pytest.mark.parametrize(("reached", "behind"), [(1.0, 1), (0.0, 0)])
def test_in_short_counts_transfers_that_item_knn_is_above(single, monkeypatch, reached, behind):
    ours = next(replace(r, source="yelp", target="epinions") for r in single if r.method == "PreRec")
    counted = replace(ours, source=None, method="ItemKNN", metrics={"NDCG@20": [reached] * len(ours.seeds)})
    there = {("transfer", "small", ""): [ours], ("single", "small", "ItemKNN"): [counted]}
    monkeypatch.setattr(prerec_tables, "find", lambda experiment, scale, method="", **asked: there.get((experiment, scale, method), []))
    monkeypatch.setattr(claims, "verdicts", lambda paper, scale: Verdicts())
    monkeypatch.setattr(prerec_tables, "carried", lambda records, base: pd.DataFrame())
    assert f"is above {behind} of these 1." in prerec_tables.in_short(Scale.TOY)
