"""The successor's experiment in a market so small that it is trained in a moment."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from zsrbook.data.dataset import Columns, DataError
from zsrbook.data.toy import ToySettings, ToyWorld
from zsrbook.evaluation.ranks import rank_targets
from zsrbook.experiments import choices, preprec, prerec, prerec_tables
from zsrbook.experiments.preprec import BEST, EMPTY, HOME, RULES, TUNED, Spec
from zsrbook.models.baselines import RecentPopularity, RecentPopularitySettings
from zsrbook.models.preprec import PopularityClock
from zsrbook.records import RunRecord
from zsrbook.scale import Scale

GROCERY, PANTRY = (Spec(name, Scale.TOY) for name in ("grocery", "pantry"))


@pytest.fixture(autouse=True, scope="module")
def small_world():
    """A hundred and twenty people a market and two epochs."""
    quick = preprec.SETTINGS[Scale.TOY]
    quick = replace(quick, width=8, training=replace(quick.training, epochs=2))
    world = ToyWorld(ToySettings(users=(120, 120, 120), items=(60, 60, 60), history=20.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(preprec.SETTINGS, Scale.TOY, quick)
        patch.setitem(preprec.PAIRS, Scale.TOY, (("grocery", "pantry"),))
        patch.setattr(prerec, "toy_world", lambda **dials: world)
        for cached in (preprec.load, preprec.fitted):
            cached.cache_clear()
        yield
    for cached in (preprec.load, preprec.fitted):
        cached.cache_clear()


@pytest.fixture(scope="module")
def home() -> dict[str, RunRecord]:
    return {r.method: r for r in preprec.run(PANTRY, [0, 1], preprec.systems(PANTRY))}


@pytest.fixture(scope="module")
def moved() -> dict[str, RunRecord]:
    return {r.method: r for r in preprec.run(PANTRY, [0, 1], preprec.systems(PANTRY, GROCERY), GROCERY)}


def test_the_newest_item_of_each_user_is_judged_and_nobody_has_it_yet():
    split = preprec.load(GROCERY)
    frame = split.test.data.interactions
    assert not frame.duplicated([Columns.USER, Columns.ITEM]).any()
    for column in (Columns.USER, Columns.ITEM):
        assert frame[column].value_counts().min() >= 5
    assert split.test.targets.sum() == split.test.data.n_users
    assert len(split.train) == len(frame) - 2 * split.test.data.n_users


def test_records_hold_what_their_ranks_give(home, moved):
    for record in (*home.values(), *moved.values()):
        assert not list(record.contradictions())
        assert record.protocol == RULES.settings()
    assert list(home) == [row.name for row in preprec.systems(PANTRY)]
    assert home["MostPop"].seeds == home[TUNED].seeds == [0]
    assert home["PrepRec"].seeds == [0, 1]
    assert home["PrepRec"].metrics["NDCG@20"][0] != home["PrepRec"].metrics["NDCG@20"][1]
    assert list(moved) == ["PrepRec", EMPTY]
    assert moved["PrepRec"].path.parent.name == "grocery--pantry"
    assert moved["PrepRec"].data_sha256 == home["PrepRec"].data_sha256


def test_the_window_is_chosen_on_validation(home):
    (chosen,) = home[TUNED].metrics["days"]
    assert chosen in preprec.WINDOWS
    assert home[TUNED].metrics["NDCG@20"] == home[f"Recent popularity ({chosen:g} days)"].metrics["NDCG@20"]
    valid = preprec.load(PANTRY).valid
    worth = {}
    for days in preprec.WINDOWS:
        table = rank_targets(RecentPopularity(RecentPopularitySettings(days)).fit(valid.data), valid, remove_history=True, last_only=True)
        worth[days] = RULES.summary(table, ("NDCG@20",))["NDCG@20"]
    assert worth[chosen] == max(worth.values())


def test_without_histories_everybody_gets_the_same_at_one_moment():
    model = preprec.without_history(PANTRY, GROCERY, 0)
    sequences = preprec.load(PANTRY).test.sequences
    now = np.full(len(sequences), sequences.times.max())
    scores = model.scores(replace(sequences, now=now))
    assert (scores == scores[:1]).all()
    other = model.scores(replace(sequences, now=now - 60 * 86_400))
    assert not torch.equal(other[0], scores[0])
    assert not torch.equal(model.inner.scores(replace(sequences, now=now))[0], scores[0])


def test_no_weight_moves_on_the_way():
    weights = preprec.fitted(GROCERY, 0, None)[0].network.state_dict()
    served = preprec.preprec(PANTRY, GROCERY, 0).network.state_dict()
    assert all(torch.equal(value, served[name]) for name, value in weights.items())
    drawn = preprec.untrained(PANTRY, None, 0).network.state_dict()
    assert not torch.equal(drawn["item.0.weight"], weights["item.0.weight"])


def test_a_page_shows_the_rows_at_home_and_then_those_from_elsewhere(home, moved, monkeypatch):
    recorded = [*home.values(), *moved.values()]
    monkeypatch.setattr(preprec, "find", lambda **asked: recorded)
    monkeypatch.setattr(preprec, "shown", lambda found, scale, run: found)  # as at a larger scale
    shown = preprec.judged_on(PANTRY)
    assert [r.method for r in shown] == [*home, "PrepRec from grocery", f"{EMPTY} from grocery"]
    assert "PrepRec from grocery" in prerec_tables.table(shown, TUNED, "pantry", preprec.SHOWN)._repr_html_()
    monkeypatch.setattr(preprec, "find", lambda **asked: [])
    assert preprec.judged_on(PANTRY) == []


def test_each_preprec_is_held_against_its_target_and_its_own_control(home, moved):
    away = [replace(r, method=f"{r.method} from grocery") for r in moved.values()]  # as a page names them
    found = preprec.contrasts([*home.values(), *away])
    assert found.groupby("source")["yardstick"].agg(list).to_dict() == {"pantry": list(preprec.YARDSTICKS)[:-1], "grocery": list(preprec.YARDSTICKS)}
    assert found.equals(preprec.contrasts([*home.values(), *moved.values()]))
    there = found[found["source"] == "grocery"].set_index("yardstick")
    assert (there["target"] == "pantry").all()
    windows = [home[f"Recent popularity ({days:g} days)"] for days in preprec.WINDOWS]
    bases = {"Popularity so far": home["Popularity so far"], TUNED: home[TUNED], EMPTY: moved[EMPTY], HOME: home["PrepRec"]}
    bases[BEST] = max(windows, key=lambda r: r.mean("NDCG@20"))
    for yardstick, base in bases.items():
        gap = moved["PrepRec"].mean("NDCG@20") - base.mean("NDCG@20")
        assert there.loc[yardstick, "gap"] == pytest.approx(gap)
        assert there.loc[yardstick, "low"] <= gap <= there.loc[yardstick, "high"]


def test_words_count_what_lies_clear_of_the_yardstick():
    columns = ["source", "target", "yardstick", "value", "gap", "low", "high"]
    rows = [
        ("a", "b", TUNED, 0.1, 0.02, 0.01, 0.03),
        ("b", "a", TUNED, 0.1, 0.02, -0.01, 0.05),
        ("a", "a", TUNED, 0.1, -0.02, -0.03, -0.01),
        ("a", "a", EMPTY, 0.1, 0.0, -0.01, 0.01),
    ]
    assert preprec.in_words(pd.DataFrame(rows, columns=columns)) == (
        "PrepRec trained at home (1 data set): held against recent popularity with the window that validation chose, it is below it in 1 of 1;"
        " no difference keeps clear of 0 against itself without histories."
        " PrepRec carried to items and people that it has never seen (2 transfers):"
        " held against recent popularity with the window that validation chose, it is above it in 1 of 2."
    )
    assert preprec.in_words(pd.DataFrame([], columns=columns)) == "Not recorded at this scale yet."


def test_among_few_candidates_more_is_found(home):
    sampled = preprec.among_sampled(home.values(), negatives=10)
    assert list(sampled.index) == list(home)
    assert all(sampled[name] >= record.mean("Recall@10") for name, record in home.items())


def test_courses_follow_three_items_through_time():
    frame = preprec.courses(GROCERY, among=0.5)
    assert list(frame) == ["rose most", "fell most", "steadiest"]
    assert frame.index.is_monotonic_increasing
    assert (frame.max() <= 100 + 1e-6).all()
    assert (frame.min() > 0).all()
    begin = frame.iloc[len(frame) // 4]
    change = frame.iloc[-1] - begin
    assert change["rose most"] >= change["steadiest"] >= change["fell most"]


def test_what_run_is_asked_for_becomes_tasks():
    assert preprec.tasks("pantry", "", Scale.TOY) == [(PANTRY, None)]
    assert preprec.tasks("pantry", "films", Scale.TOY) == [(PANTRY, Spec("films", Scale.TOY))]
    assert preprec.tasks("all", "", Scale.TOY) == [(GROCERY, None), (PANTRY, GROCERY)]
    for data, source, scale, match in (
        ("pantry", "pantry", Scale.TOY, "leave --source out"),
        ("all", "films", Scale.TOY, "no transfer from films"),
        ("all", "", Scale.PAPER, "at paper scale the chapter has no data"),
    ):
        with pytest.raises(DataError, match=match):
            preprec.tasks(data, source, scale)
    for scale, pairs in preprec.PAIRS.items():
        if scale is not Scale.TOY:
            assert {name for pair in pairs for name in pair} <= set(preprec.DATA[scale])


def test_each_decision_is_undone_in_few_settings_and_one_row():
    """Beside the row as it is, on the same data under the same rules; what stays with ours keeps the config that it always had."""
    rows = preprec.deviating(PANTRY)
    assert [row.name for row in rows] == [f"PrepRec ({key})" for key in preprec.WORDS]
    (plain,) = (row.config for row in preprec.systems(PANTRY) if row.name == "PrepRec")
    assert "as_code" not in plain
    moved = [[name for name in row.config if row.config[name] != plain.get(name)] for row in rows]
    assert moved == [["as_code"], ["as_code"], ["coarse_days", "fine_days"], *[["as_code"]] * 4, ["training"], ["counted"]]
    assert rows[0].config["as_code"] == {"running": True}


def test_decisions_undone_are_measured_against_the_row_as_it_is(home):
    found = preprec.run(PANTRY, [0], preprec.deviating(PANTRY))
    assert {r.experiment for r in found} == {preprec.DEVIATIONS}
    effects = choices.effects(found, [home["PrepRec"]])
    assert effects["id"].tolist() == list(preprec.WORDS)
    assert (effects["effect"] != 0).any()
    for record in found:
        assert not list(record.contradictions())
    assert (choices.by_pair(effects, preprec.WORDS).reset_index()["what changes"].isin(preprec.WORDS.values())).all()


def test_popularity_of_the_training_part_moves_no_weight_and_knows_less():
    ours, other = preprec.preprec(PANTRY, GROCERY, 0), preprec.counting_training(PANTRY, GROCERY, 0)
    assert ours.network is other.network
    expected = PopularityClock.of(preprec.load(PANTRY).train, ours.settings)
    np.testing.assert_array_equal(other.clock.coarse.table, expected.coarse.table)
    assert not np.array_equal(other.clock.coarse.table[-1], ours.clock.coarse.table[-1])


def test_a_transfer_has_its_decisions_undone_at_the_source():
    (row,) = (row for row in preprec.deviating(PANTRY, GROCERY) if row.name == "PrepRec (prerec-p6)")
    (record,) = preprec.run(PANTRY, [0], [row], GROCERY)
    assert record.pair == "grocery--pantry"
    served = row.serve(PANTRY, GROCERY, 0)
    assert served.settings.as_code.no_start
    assert served.network is preprec.fitted(GROCERY, 0, row.settings)[0].network
