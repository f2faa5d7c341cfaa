"""The experiments of the PreRec chapter in a world so small that a model is fitted in a moment."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_prerec
from tiny_prerec import CROWD, GROCERY, PANTRY, QUICK, recorded, rows

from zsrbook.data.dataset import DataError
from zsrbook.data.matrix import strangers
from zsrbook.experiments import prerec
from zsrbook.experiments.prerec import Spec
from zsrbook.models.collaborative import EASE
from zsrbook.models.matrix import degrees
from zsrbook.scale import Scale
from zsrbook.tables import paper_numbers

small_world, single, moved = tiny_prerec.small_world, tiny_prerec.single, tiny_prerec.moved  # fixtures


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


@pytest.mark.parametrize("name", ["PreRec (prerec-16)", "PreRec (prerec-21)"])
def test_a_model_that_was_fitted_before_is_served_as_it_was(name):
    (row,) = rows("deviations", GROCERY, (name,))
    users = np.arange(20)
    before, again = (prerec.fitted(GROCERY, row, 0)[0].scores(users) for _ in range(2))
    assert (before == again).all()


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
    found = recorded("carried", PANTRY, names, source=GROCERY)
    assert [(r.method, r.pair) for r in found] == [(name, "grocery--pantry") for name in names]
    assert prerec.tasks("carried", "pantry", "grocery", Scale.TOY) == [(PANTRY, GROCERY)]


def test_shuffled_descriptions_find_nothing(single):
    named = {r.method: r.mean("AUC") for r in single}
    assert named["PreRec (shuffled)"] == pytest.approx(0.5, abs=0.05)
    assert named["PreRec"] > 0.55


def test_nothing_is_transferred_that_the_audit_forbids():
    audit = prerec.audit(PANTRY, GROCERY)
    assert not audit.iloc[:5].any()
    assert audit["numbers that travel"] < 10_000


def test_strangers_are_judged_apart():
    found = recorded("strangers", GROCERY, ("MostPop", "EASE", "PreRec", "BPR-MF"))
    named = {(r.experiment, r.method): r for r in found}
    assert {kind for kind, _ in named} == set(prerec.STRANGERS)
    assert ("new-users", "BPR-MF (trained on all)") in named
    assert named["new-users", "EASE"].mean("AUC") > 0.6
    assert named["new-items", "EASE"].mean("Recall@20") == 0  # it gives an item that it never met no score
    assert named["new-items", "EASE (trained on all)"].mean("AUC") > 0.6
    assert named["both-new", "PreRec"].mean("AUC") > named["both-new", "EASE"].mean("AUC")


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


def test_a_mixture_gives_the_records_that_it_is_said_to_make():
    found = recorded("interpolation", GROCERY, ("MostPop", "EASE"))
    assert {r.method for r in found} == {
        name for row in rows("interpolation", GROCERY, ("MostPop", "EASE")) for _, name in prerec.made_by("interpolation", row)
    }


def test_the_guard_and_its_absence_can_be_seen():
    looks = prerec.leak(GROCERY)
    means = {name: values.mean() for name, values in looks.items()}
    assert abs(means["learned from, guarded"] - means["to be found"]) < abs(means["learned from, unguarded"] - means["to be found"])
    other = prerec.leak(GROCERY, seed=1)
    assert all(values.mean() != means[name] for name, values in other.items()), "another seed has other questions, walks and vectors"


def test_every_decision_has_words_and_settings_of_its_own():
    settings = [s for _, s in prerec.deviation_settings(Scale.TOY).values()]
    assert len(set(map(str, settings))) == len(settings)
    assert str(prerec.SETTINGS[Scale.TOY]) not in map(str, settings)


def test_mult_vae_is_tried_as_small_as_its_data_set_has_it():
    small, full = (prerec.tried(Spec(name, Scale.SMALL))["Mult-VAE"].values() for name in ("yelp", "douban"))
    assert {(s.hidden, s.training.epochs) for s in small} == {(200, 5)}
    assert {s.hidden for s in full} == {600}
    assert [(s.dropout, s.beta) for s in small] == [(s.dropout, s.beta) for s in full]


def test_a_row_that_does_not_fit_is_left_out():
    epinions, yelp = (Spec(name, Scale.SMALL) for name in ("epinions", "yelp"))
    assert "EASE" not in [row.name for row in prerec.baselines(epinions)]
    assert "EASE" in [row.name for row in prerec.baselines(yelp)]


def test_the_level_is_asked_of_every_published_baseline_and_of_one_data_set_alone():
    [(spec, source)] = prerec.tasks("level", "ml-1m", "", Scale.SMALL)
    assert (spec.label, source, prerec.rules(spec).most) == ("ml-1m-recbole", None, None)
    made = {row.name: row.make(3) for row in prerec.level_rows(spec)}
    assert set(made) == set(paper_numbers("recbole_ml1m")["method"])
    assert (made["BPR-MF"].settings.seed, made["LightGCN"].settings.training.seed, made["EASE"].settings.lam) == (3, 3, 1000.0)
    assert [row.name for row in prerec.level_rows(spec) if not row.chance] == ["MostPop", "ItemKNN", "EASE"]
    with pytest.raises(DataError, match="published for ml-1m alone, but 'all' was given"):
        prerec.tasks("level", "all", "", Scale.SMALL)


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


def test_what_run_is_asked_for_becomes_tasks():
    assert len(prerec.tasks("transfer", "all", "", Scale.TOY)) == 20
    assert prerec.tasks("transfer", "pantry", "grocery", Scale.TOY) == [(PANTRY, GROCERY)]
    assert [s.label for s, _ in prerec.tasks("open", "grocery", "", Scale.TOY)][-1] == "grocery-split1"
    with pytest.raises(DataError, match="leave --source out"):
        prerec.tasks("single", "grocery", "pantry", Scale.TOY)
    with pytest.raises(DataError, match="say another --source"):
        prerec.tasks("transfer", "pantry", "pantry", Scale.TOY)


def test_a_page_takes_from_the_records_what_still_holds(monkeypatch, single):
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


def test_a_trial_is_judged_on_validation_ones_and_the_best_is_chosen():
    rows = [row for row in prerec.trials(GROCERY) if row.name.startswith("EASE")]
    made = prerec.run(GROCERY, "tuning", [0], rows)
    assert [r.config["lam"] for r in made] == [20.0, 60.0, 200.0, 600.0, 2000.0]
    assert {r.protocol["part"] for r in made} == {"valid"}
    assert not any(r.ranks for r in made)
    best = max(made, key=lambda r: r.metrics["NDCG@20"][0])
    assert prerec.chosen(GROCERY, made) == {"EASE": best.method}
    assert prerec.chosen(GROCERY, []) == {}


def test_a_trial_does_not_read_the_test_part(monkeypatch):
    rows = [row for row in prerec.trials(GROCERY) if row.name.startswith("ItemKNN")][:2]
    before = [r.metrics for r in prerec.run(GROCERY, "tuning", [0], rows)]
    split = prerec.load(GROCERY)
    monkeypatch.setattr(prerec, "load", lambda spec: replace(split, test=split.test[:, ::-1]))
    assert [r.metrics for r in prerec.run(GROCERY, "tuning", [0], rows)] == before


def test_another_split_hides_other_ones_of_the_same_matrix():
    first, second = prerec.load(GROCERY), prerec.load(replace(GROCERY, split=1))
    assert second.name == "grocery-split1"
    assert first.sha256 != second.sha256
    whole = [(split.known + split.test).astype(bool) for split in (first, second)]
    assert (whole[0] != whole[1]).nnz == 0


def test_likes_are_the_ones_of_enough_stars(monkeypatch):
    data = prerec.raw(GROCERY)
    assert not prerec.can_be(data, {"liked": 4.0}), "the toy world has no ratings"
    stars = np.arange(len(data.interactions)) % 5 + 1.0
    rated = replace(data, interactions=data.interactions.assign(value=stars))
    assert prerec.can_be(rated, {"liked": 4.0})
    monkeypatch.setattr(prerec, "raw", lambda spec: rated)
    split = prerec.load(Spec("rated", Scale.TOY, core=None, liked=4.0))
    assert split.name == "rated-all-liked4"
    pairs = rated.interactions[stars >= 4][["user", "item"]].drop_duplicates()
    assert (split.known + split.test).nnz == len(pairs)


def test_clusters_of_one_seed_agree_with_themselves():
    table = prerec.stability(GROCERY, seeds=(0, 0))
    assert table["adjusted Rand index"].tolist() == [1.0]
    other = prerec.stability(GROCERY, seeds=(0, 1))
    assert 0 < other["adjusted Rand index"].iloc[0] < 1


def test_agreement_is_told_by_the_seeds_that_were_asked_for():
    assert prerec.stability(GROCERY, iter((2, 5)))[["seed", "other seed"]].to_numpy().tolist() == [[2, 5]]


def test_stability_is_recorded_as_the_mean_over_the_other_seeds():
    pairs, record = prerec.stability(GROCERY, (0, 1, 2)), prerec.stability_record(GROCERY, (0, 1, 2))
    assert record.seeds == [0, 1, 2]
    assert not record.ranks
    first = pairs[(pairs["seed"] == 0) | (pairs["other seed"] == 0)]
    assert record.metrics["size within a bin"][0] == pytest.approx(first["size within a bin"].mean())
