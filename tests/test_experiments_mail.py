"""The experiments of the MAIL chapter on a tiny toy world: what each row learns from and is judged on, and numbers whose answer is known."""

from collections.abc import Iterable
from dataclasses import asdict, fields, is_dataclass, replace
from functools import partial
from multiprocessing.reduction import ForkingPickler
from typing import get_args, get_type_hints

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm, ttest_1samp

from zsrbook import claims
from zsrbook.claims import verdicts
from zsrbook.data.clicks import TEST, TRAIN, ClickData
from zsrbook.data.dataset import DataError, Sequences
from zsrbook.data.toy import ToySettings, ToyWorld
from zsrbook.evaluation.auc import gauc
from zsrbook.evaluation.clicks import METRICS, ClickRanks
from zsrbook.evaluation.intervals import relative
from zsrbook.evaluation.two_sample import coverage, mmd_test, neighbour_accuracy
from zsrbook.experiments import mail
from zsrbook.experiments.mail import Spec, System, as_record, deviating, fitted, load, strangers, systems, visits
from zsrbook.experiments.seeds import stamp
from zsrbook.records import RunRecord
from zsrbook.scale import Scale
from zsrbook.tables import paper_numbers

SPEC, STRICT = Spec("grocery", Scale.TOY), Spec("grocery", Scale.TOY, strict=True)
ROWS = [*systems(Scale.TOY), *deviating(Scale.TOY)]
NAMES = [row.name for row in ROWS]


@pytest.fixture(scope="module")
def world() -> ToyWorld:
    return ToyWorld(ToySettings(users=(200, 20, 20), items=(60, 20, 20), history=6.0))


@pytest.fixture(scope="module", autouse=True)
def tiny_world(world):
    """Few users, two epochs, few choices, one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sizes = mail.SIZES[Scale.TOY]
    short = {name: replace(getattr(sizes, name), training=replace(getattr(sizes, name).training, epochs=2)) for name in ("ranking", "meta")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZSRBOOK_WORKERS", "1")
        patch.setattr(mail, "toy_world", lambda: world)
        patch.setattr(mail, "IMPRESSIONS", 2000)
        patch.setitem(mail.SIZES, Scale.TOY, replace(sizes, llae=replace(sizes.llae, reconstruct=(0.1, 1.0), ranks=(4, 8)), **short))
        load.cache_clear()
        yield
    load.cache_clear()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tiny_world) -> ClickData:
    return load(SPEC)


def clicks(spec: Spec, rows: Iterable[System]) -> list[RunRecord]:
    """Seed 0 of these rows, and the ceiling."""
    experiment = "clicks-strict" if spec.strict else "clicks"
    return mail.run(spec, [0], rows, experiment) + mail.ceiling(spec, experiment)


@pytest.fixture(scope="module")
def records(tiny_world) -> dict[str, RunRecord]:
    """Seed 0 of every row, and the ceiling."""
    found = clicks(SPEC, systems(Scale.TOY)) + mail.run(SPEC, [0], deviating(Scale.TOY), "deviations")
    return {r.method: r for r in found}


@pytest.fixture(scope="module")
def again(tiny_world) -> dict[str, RunRecord]:
    """Every row once more, the other way round, after another seed."""
    rows = [*systems(Scale.TOY), *deviating(Scale.TOY)]
    return {r.method: r for r in mail.run(SPEC, [1, 0], rows[::-1], "again")}


def order_of(ranks: ClickRanks, group: str) -> np.ndarray:
    """Ranks among the impressions of these users alone: other users' scores move the ranks themselves."""
    return np.unique(ranks.where(group).rank, return_inverse=True)[1]


def only(*names: str) -> list[System]:
    return [row for row in systems(Scale.TOY) if row.name in names]


# ---------------------------------------------------------------- the rows


def test_rows_of_the_tables_are_there_once():
    assert len(set(NAMES)) == len(NAMES)
    printed = {method for table in ("mail_table2", "mail_table3") for method in paper_numbers(table)["method"]}
    assert {*printed, *mail.TABLE_3, *mail.BASELINES, *mail.BASELINES.values()} <= set(NAMES)
    assert {row.on.name for row in ROWS if row.on} <= set(NAMES)
    assert [row.name for row in ROWS if row.shuffled] == ["MAIL-Base (shuffled)"]


@pytest.mark.parametrize("name", ["ml-100k", "ml-1m-clicks", "alimama"])
def test_data_without_clicks_are_named_as_they_were_asked_for(name):
    with pytest.raises(DataError, match=f"{name} has no clicks at small scale; there are ml-100k-stars, "):
        load(Spec(name, Scale.SMALL))


def test_rows_travel_to_other_processes():
    for row in ROWS:
        sent, on = ForkingPickler.loads(ForkingPickler.dumps(row)), [row.on.make(3)] if row.on else []
        assert (sent.name, sent.config) == (row.name, row.config)
        assert type(sent.make(3, *on)) is type(row.make(3, *on))


def test_a_row_that_no_list_holds_runs_as_given(records):
    (chance,) = only("Random")
    mine = replace(chance, model="Mine", make=partial(mail.rate_model, of=mail.ItemRate))
    (record,) = mail.run(SPEC, [0], [mine], "clicks")
    assert record.method == "Mine"
    assert record.metrics == records["Item rate"].metrics


@pytest.mark.parametrize("name", NAMES)
def test_every_row_judges_all_test_impressions(records, data, name):
    record, test = records[name], data.rows(TEST)
    ranks = record.ranks[0]
    np.testing.assert_array_equal(ranks.user, data.user[test])
    np.testing.assert_array_equal(ranks.click, data.click[test])
    np.testing.assert_array_equal(ranks.group, data.group[test])
    assert tuple(record.metrics) == METRICS
    assert all(len(values) == 1 and 0 < values[0] < 1 for values in record.metrics.values())
    assert list(record.contradictions()) == []
    assert (record.target, record.scale, record.seeds, record.data_sha256) == ("grocery", Scale.TOY, [0], data.sha256)
    assert len(np.unique(ranks.rank)) > 30


def test_improvements_are_ratios_to_a_baseline_that_is_measured_too(records):
    found = mail.improvements(records.values()).set_index(["method", "metric"])
    assert list(found.index.unique("method")) == list(mail.BASELINES)
    for (method, metric), row in found.iterrows():
        ours, base = records[method], records[row["over"]]
        assert row["improvement"] == pytest.approx(100 * (ours.mean(metric) / base.mean(metric) - 1), abs=1e-6)
        assert row["low"] - 1e-6 <= row["improvement"] <= row["high"] + 1e-6
    ours, base = (records[name].per_user("AUC (new)") for name in ("MAIL-DMR", "DMR"))
    ratio = relative(ours, base)
    assert found.loc[("MAIL-DMR", "AUC (new)"), ["low", "high"]].tolist() == pytest.approx([100 * ratio.low, 100 * ratio.high])


def test_records_stand_in_the_order_asked(records, again):
    assert list(records) == [*[row.name for row in systems(Scale.TOY)], "Bayes-optimal", *[row.name for row in deviating(Scale.TOY)]]
    assert list(again) == NAMES[::-1]


@pytest.mark.parametrize("name", NAMES)
def test_seeds_repeat_exactly(records, again, name):
    first, second, chance = records[name], again[name], not name.startswith("Item rate")
    assert second.seeds == ([1, 0] if chance else [1])
    ranks = second.ranks[second.seeds[-1]]
    np.testing.assert_array_equal(ranks.rank, first.ranks[0].rank)
    assert {metric: values[-1] for metric, values in second.metrics.items()} == {metric: values[0] for metric, values in first.metrics.items()}
    assert stamp(first) == stamp(replace(second, protocol=first.protocol))
    if chance:
        assert (second.ranks[1].rank != ranks.rank).any()


@pytest.mark.parametrize(("below", "above"), [("Emblr", "LLAE"), ("BaseDNN", "MetaEmb"), ("MAIL-Base", "MAIL-Base (shuffled)")])
def test_rows_that_share_a_model_do_not_change_it(records, below, above):
    for alone in (below, above):
        (record,) = mail.run(SPEC, [0], only(alone), "clicks")
        np.testing.assert_array_equal(record.ranks[0].rank, records[alone].ranks[0].rank)
        assert record.metrics == records[alone].metrics
        assert record.config == records[alone].config
    ranks = {name: records[name].ranks[0] for name in (below, above)}
    np.testing.assert_array_equal(order_of(ranks[below], "old"), order_of(ranks[above], "old"))
    assert (order_of(ranks[below], "new") != order_of(ranks[above], "new")).any()
    assert all(records[below].metrics[f"{m} (old)"] == records[above].metrics[f"{m} (old)"] for m in ("AUC", "GAUC"))


def test_rows_that_share_a_model_are_fitted_once(monkeypatch):
    fits = []
    fit = mail.RankingModel.fit
    monkeypatch.setattr(mail.RankingModel, "fit", lambda self, data: fits.append(self.make_tower) or fit(self, data))
    rows = only("BaseDNN", "MetaEmb", "MAIL-Base", "MAIL-Base (shuffled)")
    assert [[row.name for row in group] for group in mail.groups_of(rows)] == [["BaseDNN", "MetaEmb"], ["MAIL-Base", "MAIL-Base (shuffled)"]]
    mail.run(SPEC, [0], rows, "clicks")
    assert len(fits) == 2


def test_llae_never_moves_a_users_own_items(records):
    assert records["LLAE"].metrics["GAUC (new)"] == records["Emblr"].metrics["GAUC (new)"]


@pytest.mark.parametrize("spec", [SPEC, STRICT])
def test_nothing_beats_the_ceiling(records, spec):
    found = records if spec is SPEC else {r.method: r for r in clicks(spec, only("BaseDNN", "MAIL-Base", "DMR", "Item rate", "Random"))}
    for metric in ("AUC (new)", "AUC (old)"):
        best = found["Bayes-optimal"].metrics[metric][0]
        assert best > 0.65
        assert all(r.metrics[metric][0] < best + 0.02 for name, r in found.items() if name != "Bayes-optimal")


def test_there_is_no_ceiling_outside_the_toy_world():
    assert mail.ceiling(Spec("ml-100k-stars", Scale.SMALL), "clicks") == []


def test_item_rate_is_the_shrunk_share(data):
    rate = mail.ItemRate().fit(data).rate
    train = data.fold == TRAIN
    for item in (0, 7):
        mine = data.click[train & (data.item == item)]
        assert rate[item] == pytest.approx((mine.sum() + 20 * data.click[train].mean()) / (len(mine) + 20))


def test_strangers_swap_the_attributes_of_new_users(data):
    for given in (data, load(STRICT)):
        other = strangers(given, seed=0)
        np.testing.assert_array_equal(other.users[:, 0], given.users[:, 0])
        np.testing.assert_array_equal(other.users[~given.new], given.users[~given.new])
        before, after = (np.sort([repr(row) for row in table[given.new, 1:].tolist()]) for table in (given.users, other.users))
        np.testing.assert_array_equal(after, before)
        assert (other.users[given.new, 1:] != given.users[given.new, 1:]).any(1).mean() > 0.95
        assert other.sha256 == strangers(given, seed=0).sha256 != strangers(given, seed=1).sha256


def test_strangers_are_never_oneself(data):
    """With an attribute that names the user, nobody keeps it."""
    column = np.arange(len(data.users), dtype=np.int32) + 1
    marked = replace(
        data,
        layout=data.layout._replace(user=("user", "mark")),
        vocabularies=dict(data.vocabularies) | {"mark": len(column) + 1},
        users=np.column_stack([data.users[:, 0], column]),
    )
    for seed in range(5):
        mark = strangers(marked, seed).users[:, 1]
        assert (mark[data.new] != column[data.new]).all()
        assert set(mark[data.new]) == set(column[data.new])


# ---------------------------------------------------------------- protocols, settings


def test_strict_removes_ids_and_past_and_says_so(data):
    strict = load(STRICT)
    np.testing.assert_array_equal(strict.new, data.new)
    assert (strict.users[strict.new, 0] == 0).all()
    assert not strict.new[strict.user[strict.fold != TEST]].any()
    records = {spec: clicks(spec, only("Item rate")) for spec in (SPEC, STRICT)}
    for spec, word, experiment in ((SPEC, "kept", "clicks"), (STRICT, "removed", "clicks-strict")):
        assert f"ids and training impressions of new users {word}" in spec.protocol.caption()
        assert [(r.protocol["ids"], r.experiment) for r in records[spec]] == [(word, experiment)] * 2
    assert all(stamp(a) != stamp(b) for a, b in zip(*records.values(), strict=True))


def test_protocol_says_what_a_click_is():
    said = {name: Spec(name, Scale.SMALL).protocol.click for name in ("ml-1m-stars", "ml-1m-watched", "alimama", "grocery")}
    assert "4 stars" in said["ml-1m-stars"]
    assert "was rated" in said["ml-1m-watched"]
    assert said["alimama"] == said["grocery"] == "a click on what was shown"


def leaves(thing: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every setting, as the names that lead to it."""
    return [leaf for f in fields(thing) for leaf in leaves(getattr(thing, f.name), (*path, f.name))] if is_dataclass(thing) else [path]


def other(thing: object, name: str) -> object:
    """Another value of the same kind."""
    value, words = getattr(thing, name), get_args(get_type_hints(type(thing))[name])
    if isinstance(value, str):
        return next((word for word in words[::-1] if word != value), "cpu")
    if isinstance(value, tuple):
        return (value[0] + 1, *value[1:])
    return not value if isinstance(value, bool) else 1.0 if value is None else value + 1


def changed(thing: object, path: tuple[str, ...]) -> object:
    name, rest = path[0], path[1:]
    return replace(thing, **{name: changed(getattr(thing, name), rest) if rest else other(thing, name)})


def stamps(record: RunRecord) -> dict[str, str]:
    """Of every row, as if this record were its own."""
    return {row.name: stamp(replace(record, config=row.config)) for row in (*systems(Scale.TOY), *deviating(Scale.TOY))}


#: settings that rows choose for themselves, and those rows
CHOSEN = {
    ("mail", "form"): {"MAIL-None", "MAIL-Single", "MAIL-Dual", "MAIL-Base", "MAIL-Base (shuffled)"},
    ("mail", "alignment"): {"MAIL-Base (mail-1)", "MAIL-Base (mail-4)", "MAIL-Base (mail-5)"},
    ("mail", "bandwidth"): {"MAIL-Base (mail-2)", "MAIL-Base (mail-3)"},
    ("mail", "padding"): {"MAIL-Base (mail-6)"},
    ("mail", "joint"): {"MAIL-Base (mail-7)"},
    ("dmr", "dropout"): {"DMR (mail-29)", "MAIL-DMR (mail-29)"},
    ("llae", "attributes"): {"LLAE (mail-38)"},
}
#: all settings but one, which MAIL-None refuses to have changed
PATHS = [path for path in leaves(mail.SIZES[Scale.TOY]) if path != ("mail", "fill_training")]


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_every_setting_is_in_the_stamp_of_the_rows_that_it_moves(data, monkeypatch, path):
    record = as_record(SPEC, "clicks", ROWS[0], {0: (ClickRanks.of(data, np.arange(len(data.rows(TEST)))), 0.0, [])})
    before = stamps(record)
    monkeypatch.setitem(mail.SIZES, Scale.TOY, changed(mail.SIZES[Scale.TOY], path))
    moved = {name for name, after in stamps(record).items() if after != before[name]}
    learned = {name for name in before if not name.startswith(("Item rate", "Random"))}
    mails = {name for name in learned if name.startswith("MAIL")}
    dmr = {name for name in learned if "DMR" in name}
    linear = {"LLAE", "LLAE (mail-38)"}
    users = {
        "ranking": learned,
        "tower": learned - dmr - linear - {"Emblr"},
        "dropout": learned - dmr - linear - {"Emblr"},
        "mail": mails - CHOSEN.get(path, set()),
        "dmr": dmr - CHOSEN.get(path, set()),
        "meta": {"MetaEmb"},
        "llae": linear - CHOSEN.get(path, set()),
    }
    assert moved == users[path[0]]


def test_a_stamp_says_nothing_of_how_a_run_went(data):
    ranks = ClickRanks.of(data, np.arange(len(data.rows(TEST))))
    one, two = (as_record(SPEC, "clicks", only("DMR")[0], {0: (ranks, s, [(s, s)])}) for s in (1.0, 2.0))
    assert one.config["curve"] != two.config["curve"]
    assert stamp(one) == stamp(two)


@pytest.mark.parametrize("scale", Scale)
def test_deviations_change_one_setting_each(scale):
    base, found = asdict(mail.SIZES[scale].mail), mail.deviation_settings(scale)
    assert list(found) == [f"mail-{i}" for i in range(1, len(found) + 1)]
    rows = {row.name: row for row in deviating(scale)}
    for key, (words, settings) in found.items():
        assert rows.pop(f"MAIL-Base ({key})").config["mail"] == asdict(settings)
        assert sum(value != base[name] for name, value in asdict(settings).items()) == 1
        assert words
    linear = rows.pop("LLAE (mail-38)")
    assert (linear.on.name, linear.config["llae"]) == ("Emblr", asdict(mail.SIZES[scale].llae) | {"attributes": "one-hot"})
    undone = {name: row.config["mail"] for name, row in rows.items()}
    assert undone == {f"{name} (mail-{i})": mail for i in (28, 29) for name, mail in (("DMR", None), ("MAIL-DMR", base))}


def test_what_the_toy_world_has_otherwise_of_dmr_is_undone_in_either():
    toy, small = ({key: settings for key, (_, settings) in mail.dmr_deviation_settings(scale).items()} for scale in (Scale.TOY, Scale.SMALL))
    assert (toy["mail-28"].match, small["mail-28"].match) == (0.1, 0.0)
    assert ((toy["mail-29"].normalise, toy["mail-29"].dropout), (small["mail-29"].normalise, small["mail-29"].dropout)) == ((False, 0.0), (True, 0.5))
    assert [words for words, _ in mail.dmr_deviation_settings(Scale.SMALL).values()] == [
        "DMR without its match loss",
        "DMR with batch norm and dropout",
    ]


def test_one_class_counts_whom_gauc_skips(data):
    user = np.array([0, 0, 1, 1, 2, 2, 2, 3, 4], np.int32)
    click = np.array([1, 1, 0, 1, 0, 0, 0, 1, 0], np.int8)
    group = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2], np.int8)  # the last has no behaviour by nature
    found = mail.one_class(ClickRanks(user, click, group, np.zeros(9, np.uint16)))
    assert found.to_dict("list") == {"users": [2, 2], "skipped": [1, 2], "impressions": [0.5, 1.0]}

    ranks, audit = ClickRanks.of(data, np.zeros(len(data.rows(TEST)))), mail.audit(data)
    for kind in ("new", "old"):
        mine, said = ranks.where(kind), audit.index.get_loc(f"{kind} users in the test")
        assert audit.iloc[said] == len(np.unique(mine.user))
        assert audit.iloc[said + 1] == gauc(mine.click, mine.rank, mine.user).skipped > 0
    assert audit.index.is_unique


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        (0.2, "MAIL raises the AUC of new users by"),
        (-0.2, "MAIL lowers the AUC of new users by"),
        (0.0, "which its interval can't tell from nothing"),
    ],
)
def test_in_short_says_on_which_side_mail_stands(data, monkeypatch, tmp_path, shift, words):
    monkeypatch.setattr(claims, "verdicts", partial(verdicts, root=tmp_path))
    rows, rng = data.rows(TEST), np.random.default_rng(0)
    noise = rng.normal(size=len(rows))
    scores = {"BaseDNN": data.click[rows] + noise, "MAIL-Base": (1 + 4 * shift) * data.click[rows] + noise}
    found = [as_record(SPEC, "clicks", System(name, None, {}), {0: (ClickRanks.of(data, s), 0.0, [])}) for name, s in scores.items()]
    monkeypatch.setattr(mail, "find", lambda *, scale, experiment, **more: found if (scale, experiment) == (Scale.TOY, "clicks") else [])
    first, *_ = mail.in_short(Scale.TOY).split("In the toy world, with")
    assert first.startswith("In the toy world, as the paper has it, MAIL ")
    assert words in first


def test_the_priors_of_rates_are_those_recorded():
    for row in only("Item rate", "Item rate by attributes"):
        assert row.config == {name: getattr(row.make(0), name) for name in row.config}


# ---------------------------------------------------------------- Table 1


def test_statistics_are_counts(data):
    found = mail.statistics(data)
    lengths = [end - begin for begin, end in data.windows if end > begin]
    assert found.name == "grocery"
    assert found.to_dict() == {
        "all users": 200,
        "new users": 80,
        "items": 60,
        "user attributes": 10,
        "context features": 2,
        "item features": 6,
        "mean behaviours": pytest.approx(np.mean(lengths)),
        "impressions": 2000,
        "clicks an impression": pytest.approx(data.click.sum() / 2000),
    }


# ---------------------------------------------------------------- Figures 5 and 6


@pytest.fixture(scope="module")
def model(tiny_world):
    (row,) = only("MAIL-Base")
    return fitted(SPEC, row, 0)[0]


def newest_rows(data: ClickData, new: bool) -> list[int]:
    """The last impression of each such user, where something stands before it; in the order of time."""
    last = {int(u): row for row, u in enumerate(data.user)}
    return sorted(row for u, row in last.items() if data.new[u] == new and data.windows[row, 0] < data.windows[row, 1])


def test_clouds_hold_the_true_behaviour_of_all(model, data):
    clouds = mail.clouds(model, data, each=10_000)
    table = model.network.fields.table.weight.detach().double().numpy()
    starts = dict(zip(data.vocabularies, np.cumsum([0, *data.vocabularies.values()])[:-1], strict=True))
    for kind, new in (("old", False), ("new", True)):
        rows = newest_rows(data, new)
        assert len(rows) > 50
        expected = np.zeros((len(rows), table.shape[1]))
        for i, row in enumerate(rows):
            for codes in data.behaviours[slice(*data.windows[row])]:
                family, flavour, action = (table[starts[name] + code] for name, code in zip(data.layout.behaviour, codes, strict=True))
                expected[i] += (family + flavour) * action
        np.testing.assert_allclose(clouds[f"real {kind}"], expected, rtol=1e-4, atol=1e-5)
        assert clouds[f"made {kind}"].shape == clouds[f"attributes {kind}"].shape == expected.shape


def test_made_behaviour_comes_of_attributes_alone(model, data):
    before = mail.clouds(model, data, each=10_000)
    moved = data.behaviours.copy()
    moved[:, 0] = moved[:, 0] % (data.vocabularies["family"] - 1) + 1  # the next family
    after = mail.clouds(model, replace(data, behaviours=moved), each=10_000)
    swapped = mail.clouds(model, strangers(data, 0), each=10_000)
    for name in before:
        same = (before[name] == after[name]).all()
        assert same == (not name.startswith("real"))
        assert (before[name] == swapped[name]).all() == (name.startswith("real") or name.endswith("old"))


def test_clouds_are_as_large_as_asked_and_follow_the_seed(model, data):
    one, same, another = (mail.clouds(model, data, each=20, seed=seed) for seed in (0, 0, 1))
    for name in one:
        assert one[name].shape == (20, mail.SIZES[Scale.TOY].ranking.width)
        assert len(np.unique(one[name], axis=0)) == 20
        np.testing.assert_array_equal(one[name], same[name])
        assert (one[name] != another[name]).any()


def test_compared_takes_equally_many_of_each():
    rng = np.random.default_rng(0)
    clouds = {"wide": rng.normal(size=(60, 2)), "narrow": 0.2 * rng.normal(size=(40, 2)), "far": 50 + rng.normal(size=(60, 2))}
    found = mail.compared(clouds, [("wide", "narrow"), ("wide", "far")])
    assert found.index.names == ["first", "second"]
    assert found.columns.tolist() == ["MMD²", "p-value", "1-NN accuracy", "coverage"]
    a, b = clouds["wide"], clouds["far"]
    assert found.loc[("wide", "far")].tolist() == pytest.approx([mmd_test(a, b)[0], 1 / 201, neighbour_accuracy(a, b), coverage(a, b)])
    kept, narrow = clouds["wide"][np.random.default_rng(0).permutation(60)[:40]], clouds["narrow"]
    assert found.loc[("wide", "narrow"), "MMD²"] == pytest.approx(mmd_test(kept, narrow)[0])
    assert found.loc[("wide", "narrow"), "coverage"] == coverage(kept, narrow)


# ---------------------------------------------------------------- section 4.5


class Truth:
    """Scores by the true probability of a click, or by its opposite."""

    def __init__(self, world: ToyWorld, sign: float = 1.0):
        self.world, self.sign = world, sign

    def scores(self, data: ClickData, rows: np.ndarray) -> np.ndarray:
        return self.sign * self.world.click_probability("grocery", data.user[rows], data.item[rows])


def test_visits_come_after_all_is_learned(data, world):
    found = visits(data, n=150, candidates=4)
    assert len(found) == 600
    assert (found.user.reshape(150, 4) == found.user[::4, None]).all()
    assert (found.time > data.time.max()).all()
    assert not found.click.any()
    assert (found.fold == TEST).all()
    bought = world.dataset("grocery").interactions
    for row in range(0, 600, 4):
        mine = np.flatnonzero((bought["user"] == found.user[row]) & (bought["time"] < found.time[row]))
        assert list(range(*found.windows[row])) == mine[-data.longest :].tolist()
    assert found.sha256 == visits(data, 150, 4).sha256 != visits(data, 150, 4, seed=1).sha256


def test_candidates_follow_popularity(data, world):
    found = visits(data, n=5000, candidates=10)
    assert np.bincount(found.item, minlength=60) / 50_000 == pytest.approx(world.popularity("grocery"), abs=0.005)
    assert np.bincount(found.user, minlength=200) / 50_000 == pytest.approx(1 / 200, abs=0.003)


def test_who_knows_the_truth_gets_the_most_clicks(data, world):
    arms = {"Item rate": mail.ItemRate().fit(data), "truth": Truth(world), "same": Truth(world), "worst": Truth(world, -1), "chance": mail.Chance()}
    found = mail.online(data, arms, n=400, candidates=6)
    assert found.columns.tolist() == ["visit", "new", "arm", "click", "conversion"]
    assert found["arm"].unique().tolist() == list(arms)
    clicks = found.pivot(index="visit", columns="arm", values="click")
    assert clicks.shape == (400, 5)
    assert (clicks.le(clicks["truth"], axis=0) & clicks.ge(clicks["worst"], axis=0)).all(axis=None)
    assert clicks.mean()["truth"] > clicks.mean()["Item rate"] > clicks.mean()["chance"] > clicks.mean()["worst"]
    one, two = (found[found["arm"] == name].drop(columns="arm").reset_index(drop=True) for name in ("truth", "same"))
    pd.testing.assert_frame_equal(one, two)
    assert found["conversion"].between(0, found["click"]).all()
    assert found["new"].mean() == pytest.approx(data.new.mean(), abs=0.1)


def test_online_answers_each_visit_with_its_best_candidate(data, world):
    arm = mail.ItemRate().fit(data)
    found = mail.online(data, {"Item rate": arm}, n=30, candidates=5)
    shown = visits(data, 30, 5)
    sequences = world.dataset("grocery").sequences()
    for visit, row in found.iterrows():
        user, items = shown.user[5 * visit], shown.item[5 * visit : 5 * visit + 5]
        item = items[np.argmax(arm.rate[items])]
        mine = Sequences(*(getattr(sequences.take(np.array([user])), name) for name in ("items", "starts", "users")))
        following = world.next_item_probabilities("grocery", mine, knows="user")[0]
        click = world.click_probability("grocery", np.array([user]), np.array([item]))[0]
        assert row["click"] == pytest.approx(click)
        assert row["conversion"] == pytest.approx(click * following[item] / following.max())
        assert row["new"] == data.new[user]


def test_lifts_pair_the_seeds_and_have_students_interval():
    (made,) = mail.online_records(STRICT, [0], only("Item rate"))

    def arm(name: str, *clicks: float) -> RunRecord:
        return replace(made, method=name, seeds=[*range(len(clicks))], metrics={metric: list(clicks) for metric in made.metrics})

    found = mail.lifts([arm("DMR", 0.1, 0.2, 0.4), arm("MAIL-DMR", 0.11, 0.24, 0.4), arm("BaseDNN", 0.1, 0.2, 0.4)])
    assert found["tower"].tolist() == ["DMR"] * 4  # MAIL-Base is not there
    expected = ttest_1samp([0.1, 0.2, 0.0], 0.0).confidence_interval(0.95)
    assert found.loc[0, ["lift", "low", "high"]].tolist() == pytest.approx([0.1, *expected])
    assert found.loc[0, "visits"] == pytest.approx(mail.visits_needed(0.7 / 3, 0.25))
    arms = [replace(r, metrics=r.metrics | {"click (old)": [2 * r.metrics["click (old)"][0]]}) for r in (arm("DMR", 0.1), arm("MAIL-DMR", 0.2))]
    of_all = mail.lifts(arms, new=0.25).set_index(["users", "what"]).loc["all"]
    assert of_all["with MAIL"].tolist() == pytest.approx([0.25 * 0.2 + 0.75 * 0.4, 0.2])
    single = mail.lifts([arm("DMR", 0.1, 0.3), arm("MAIL-DMR", 0.11)])  # a run that was stopped: seeds that both have
    assert single["lift"].tolist() == pytest.approx([0.1] * 4)
    assert np.isnan(single["low"]).all()


def test_each_arm_of_the_online_test_is_a_record_that_grows():
    rows = mail.arms(Scale.TOY)[:2]
    first, both = (mail.online_records(STRICT, seeds, rows) for seeds in ([0], [0, 1]))
    assert [r.method for r in both] == ["BaseDNN", "MAIL-Base"]
    assert [r.metrics["click (new)"][0] for r in both] == [r.metrics["click (new)"][0] for r in first]
    model, _ = fitted(STRICT, rows[1], 1)
    seen = mail.online(load(STRICT), {"MAIL-Base": model})
    assert both[1].metrics["conversion (old)"][1] == pytest.approx(seen.loc[~seen["new"], "conversion"].mean())


def test_improvements_stand_beside_those_that_the_papers_numbers_give(records):
    printed = paper_numbers("mail_table2").query("pair == 'alimama'").pivot(index="method", columns="metric", values="value")
    found, table = mail.improvements(records.values()), mail.improvement_table(records.values(), printed)
    row = found.set_index(["method", "metric"]).loc[("MAIL-DMR", "GAUC (new)")]
    assert table.at[("MAIL-DMR over DMR", "GAUC (new)"), "ours"].startswith(f"{row['improvement']:+.2f} [{row['low']:+.2f}")
    assert table.at[("MAIL-DMR over DMR", "AUC (new)"), "paper"] == "+1.34"  # as printed there
    parts = mail.improvement_table(records.values(), printed.drop("MAIL-Base"), mail.WHOLE, ["AUC (new)"])
    assert parts.index.tolist() == [(f"{name} over MAIL-Base", "AUC (new)") for name in mail.TABLE_3[:-1]]
    assert (parts["paper"] == "–").all()
    ours = [replace(r, ranks={0: replace(r.ranks[0], user=np.zeros_like(r.ranks[0].user))}) for r in records.values()]  # all is one user's
    alone = mail.improvement_table(ours, printed).loc[("MAIL-Base over BaseDNN", "AUC (new)")]
    gain = records["MAIL-Base"].mean("AUC (new)") / records["BaseDNN"].mean("AUC (new)") - 1
    assert alone[["ours", "findable"]].tolist() == [f"{100 * gain:+.2f}", "–"]


def test_margins_take_the_rows_that_are_there(records):
    found = mail.margins(records.values(), ["BaseDNN", "MetaEmb", "nobody"])
    assert list(found) == ["BaseDNN", "MetaEmb"]
    ours, base = records["MAIL-Base"], records["BaseDNN"]
    assert found["BaseDNN"].value == pytest.approx(ours.mean("AUC (new)") - base.mean("AUC (new)"))


def test_visits_needed_is_the_textbooks():
    """Fleiss, Levin and Paik (2003), table 4 without continuity correction, by hand."""
    for rate, better, power, level in ((0.1, 0.11, 0.8, 0.05), (0.3, 0.2, 0.9, 0.01), (0.02, 0.03, 0.5, 0.1)):
        a, b, mean = norm.ppf(1 - level / 2), norm.ppf(power), (rate + better) / 2
        expected = (a * (2 * mean * (1 - mean)) ** 0.5 + b * (rate * (1 - rate) + better * (1 - better)) ** 0.5) ** 2 / (rate - better) ** 2
        assert mail.visits_needed(rate, better, power, level) == pytest.approx(expected)
        assert mail.visits_needed(better, rate, power, level) == pytest.approx(expected)


def test_visits_needed_find_the_difference_as_often_as_they_should():
    n = round(mail.visits_needed(0.1, 0.13))
    a, b = (np.random.default_rng(seed).binomial(n, rate, size=20_000) / n for seed, rate in enumerate((0.1, 0.13)))
    mean = (a + b) / 2
    assert (np.abs(b - a) / np.sqrt(2 * mean * (1 - mean) / n) > norm.ppf(0.975)).mean() == pytest.approx(0.8, abs=0.015)


# ---------------------------------------------------------------- section 3.3


def clicks_of(**settings) -> ClickData:
    made = ToyWorld(ToySettings(users=(1500, 20, 20), items=(60, 20, 20), history=15.0, **settings))
    return made.clicks("grocery", 6000).made_new(mail.NEW)


def test_attributes_foretell_taste_and_nothing_where_there_is_none():
    none, telling = (mail.interests(clicks_of(**more), [1, 3, 8]) for more in ({"structure": 0.0}, {"attributes": 1.5, "taste": 2.0}))
    assert none.index.name == "interests"
    assert none.columns.tolist() == ["held", "foretold", "items"]
    assert none["foretold"].to_numpy() == pytest.approx(0.0, abs=0.02)
    assert (telling["foretold"] > 0.15).all()
    assert telling.loc[1, "foretold"] > telling.loc[8, "foretold"]


def test_interests_by_hand():
    """Counts in a table, directions as eigenvectors, ridge regression by its normal equations, each penalty by leaving one user out."""
    data = clicks_of(attributes=1.5, taste=2.0)
    found = mail.interests(data, [1, 2])
    newest = {int(u): row for row, u in enumerate(data.user) if not data.new[u]}
    users = sorted(newest)
    counts = pd.DataFrame([pd.Series([tuple(b[:2]) for b in data.behaviours[slice(*data.windows[newest[u]])]]).value_counts() for u in users])
    counts = counts.fillna(0).to_numpy(float)
    counts = counts / np.maximum(np.sqrt((counts**2).sum(1, keepdims=True)), 1)
    train = np.random.default_rng(0).random(len(users)) < 2 / 3
    centred = counts - counts[train].mean(0)
    _, vectors = np.linalg.eigh(centred[train].T @ centred[train])
    known = pd.get_dummies(pd.DataFrame(data.users[users][:, 1:]).astype(str)).to_numpy(float)
    x = known - known[train].mean(0)
    made = np.empty((len(users), 2))
    for direction in (0, 1):
        target = centred @ vectors[:, -1 - direction]
        tried = []
        for penalty in np.logspace(0, 4, 9):
            inverse = np.linalg.inv(x[train].T @ x[train] + penalty * np.eye(x.shape[1]))
            guess = x @ inverse @ x[train].T @ target[train] + target[train].mean()
            own = np.einsum("ni,ij,nj->n", x[train], inverse, x[train]) + 1 / train.sum()  # what a user's own target adds to the guess for it
            tried.append(((((target - guess)[train] / (1 - own)) ** 2).sum(), guess))
        made[:, direction] = min(tried, key=lambda pair: pair[0])[1]
    for r in (1, 2):
        target = centred @ vectors[:, [-1, -2][:r]]
        foretold = 1 - ((target - made[:, :r])[~train] ** 2).sum() / (target[~train] ** 2).sum()
        held = (target[~train] ** 2).sum() / (centred[~train] ** 2).sum()
        assert found.loc[r].tolist() == pytest.approx([held, foretold, held * foretold], rel=1e-6)


def test_more_interests_hold_more():
    data = clicks_of()
    found = mail.interests(data, [1, 2, 4, 8, 32, 1000])
    assert (found["held"].diff().dropna() > 0).all()
    assert found.loc[1000, "held"] == pytest.approx(1.0)
    assert found["items"].tolist() == pytest.approx((found["held"] * found["foretold"]).tolist())


def test_every_id_of_a_behaviour_counts_and_its_action_does_not():
    data = clicks_of(attributes=1.5, taste=2.0)
    before = mail.interests(data, [1, 3])
    for column, same in enumerate((False, False, True)):  # family, flavour, action
        moved = data.behaviours.copy()
        moved[:, column] = 1 - moved[:, column] if same else 1
        assert mail.interests(replace(data, behaviours=moved), [1, 3]).equals(before) == same


def test_behaviour_of_new_users_is_no_part_of_interests():
    data = clicks_of()
    mine = data.new[data.user]
    gone = replace(data, windows=np.where(mine[:, None], 0, data.windows))
    pd.testing.assert_frame_equal(mail.interests(data, [2, 5]), mail.interests(gone, [2, 5]))


def test_a_page_takes_from_the_records_what_still_holds(monkeypatch):
    spec = mail.Spec("grocery", Scale.TOY)
    rows = [s for s in mail.systems(Scale.TOY) if s.name in ("Emblr", "Item rate")]
    monkeypatch.setattr(mail, "systems", lambda scale: rows)
    monkeypatch.setattr(mail, "SEEDS", [0, 1])
    recorded = mail.run(spec, [0, 1], rows, "clicks")
    kept = [replace(r, metrics={name: [v + 0.5 for v in values] for name, values in r.metrics.items()}) for r in recorded]
    asked, run = [], mail.run
    monkeypatch.setattr(
        mail, "run", lambda spec, seeds, rows, experiment: asked.extend((r.name, *seeds) for r in rows) or run(spec, seeds, rows, experiment)
    )

    def page(records, **more):
        monkeypatch.setattr(mail, "find", lambda **wanted: records)
        asked.clear()
        return {r.method: r for r in mail.results("clicks", spec, **more)}

    assert page(kept)["Emblr"].metrics == kept[0].metrics
    assert not asked
    models = {}
    live = page(kept, live=("Emblr",), models=models)["Emblr"].metrics["AUC (new)"]
    assert live == [recorded[0].metrics["AUC (new)"][0], kept[0].metrics["AUC (new)"][1]]
    assert list(models) == ["Emblr"]
    for stale in (replace(kept[0], data_sha256="0"), replace(kept[0], config={}), replace(kept[0], protocol=kept[0].protocol | {"new": 0.3})):
        assert page([stale, kept[1]])["Emblr"].metrics == recorded[0].metrics
        assert asked == [("Emblr", 0, 1)], "a row that the records don't hold runs with all seeds; the other rests"
    assert list(page([])) == ["Emblr", "Item rate", "Bayes-optimal"]
