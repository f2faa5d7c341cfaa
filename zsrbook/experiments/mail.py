"""The experiments of the MAIL chapter: Tables 1 to 3, Figures 5 and 6, the online test of section 4.5, the argument of section 3.3.

Those that train give run records, those of Tables 2 and 3 with the rank of every test impression, so that tables, intervals and claims can be
computed from them, whether they just ran or were recorded earlier.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache, partial
from typing import Protocol as Shape
from typing import Self

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array
from scipy.stats import norm
from scipy.stats import t as student
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import OneHotEncoder, normalize

from zsrbook import claims
from zsrbook.data import catalogue, movielens_clicks
from zsrbook.data.clicks import GROUPS, TEST, TRAIN, ClickData, windows_before
from zsrbook.data.dataset import Columns, DataError
from zsrbook.data.toy import ToySettings, ToyWorld
from zsrbook.evaluation.clicks import METRICS, ClickProtocol, ClickRanks
from zsrbook.evaluation.intervals import Estimate, difference, relative
from zsrbook.evaluation.two_sample import coverage, mmd_test, neighbour_accuracy
from zsrbook.experiments.seeds import SEEDS, Key, complete, record_of, seeded, stamp_of
from zsrbook.models.click_rates import AttributeRate, Chance, ItemRate
from zsrbook.models.dmr import DMR, DMRSettings
from zsrbook.models.llae import LLAE, LLAESettings
from zsrbook.models.mail import MAIL, MAILSettings
from zsrbook.models.metaemb import MetaEmb, MetaEmbSettings
from zsrbook.models.ranking import BaseDNN, Emblr, Filler, RankingModel, RankingSettings, Tower, batch_of
from zsrbook.parallel import side_by_side
from zsrbook.records import RunRecord, find
from zsrbook.scale import Scale
from zsrbook.training import Training

PAPER = "mail"

#: data by scale; the first is the chapter's main one
DATA = {
    Scale.TOY: ("grocery",),
    Scale.SMALL: ("ml-100k-stars", "ml-100k-watched", "ml-1m-stars", "ml-1m-watched"),
    Scale.PAPER: ("alimama",),
}
#: share of users whose behaviour is hidden (section 4.1)
NEW = 0.4
#: impressions of the toy world: as many as it takes to tell a hundredth of AUC
IMPRESSIONS = 120_000

TABLE_3 = ("BaseDNN", "MAIL-None", "MAIL-Single", "MAIL-Dual", "MAIL-Base")
#: whose improvement over whom the paper prints (Table 2)
BASELINES = {"LLAE": "Emblr", "MetaEmb": "BaseDNN", "MAIL-Base": "BaseDNN", "MAIL-DMR": "DMR"}


@dataclass(frozen=True)
class Sizes:
    """What depends on the size of the data alone; ``SIZES`` gives them by scale."""

    ranking: RankingSettings
    tower: tuple[int, ...]
    dropout: float
    mail: MAILSettings
    dmr: DMRSettings
    meta: MetaEmbSettings
    llae: LLAESettings


def _adam(**changes) -> Training:
    return Training(**({"optimizer": "adam", "learning_rate": 1e-3, "clip": None, "precision": "auto"} | changes))


SIZES = {
    Scale.TOY: Sizes(
        RankingSettings(training=_adam(epochs=10, learning_rate=3e-3, patience=1, precision="float32")),
        (64, 32),
        0.2,
        MAILSettings(encoder=(64, 32, 32), decoder=(32, 64), attention=32),
        DMRSettings(hidden=(64, 32), dropout=0.2, normalise=True, attention=32, negatives=100, match=0.0),
        MetaEmbSettings(rate=1.0, training=_adam(epochs=10, learning_rate=1e-2, patience=2, precision="float32")),
        LLAESettings(),
    ),
    Scale.SMALL: Sizes(  # the paper's zero-shot tower would take two cores an hour a row
        RankingSettings(training=_adam(epochs=10, patience=2)),
        (512, 256),
        0.5,
        MAILSettings(encoder=(256, 128, 128), decoder=(128, 256), attention=64),
        DMRSettings(),
        MetaEmbSettings(users=25, training=_adam(epochs=20, learning_rate=1e-2, patience=3)),  # 256 a step would be two steps an epoch
        LLAESettings(),
    ),
    Scale.PAPER: Sizes(
        RankingSettings(training=_adam(epochs=2, patience=None)), (512, 256), 0.5, MAILSettings(), DMRSettings(), MetaEmbSettings(), LLAESettings()
    ),
}

#: behaviours before an impression of MovieLens, at most; half the paper's, which halves the cost of a tower that reads or makes them
LONGEST = 50


@dataclass(frozen=True)
class Spec:
    """What names the data exactly, small enough to travel to another process."""

    name: str
    scale: Scale
    strict: bool = False  #: nothing of new users before the test: neither impressions nor ids

    @property
    def protocol(self) -> ClickProtocol:
        meaning = movielens_clicks.MEANING.get(self.name.rpartition("-")[2], "a click on what was shown")
        return ClickProtocol(meaning, new=NEW, ids="removed" if self.strict else "kept")


@cache
def toy_world() -> ToyWorld:
    """Many users with long histories, of whom few clicks are known, as in the data of the paper."""
    return ToyWorld(ToySettings(users=(20_000, 20, 20), history=30.0))


@lru_cache(maxsize=4)
def load(spec: Spec) -> ClickData:
    """Impressions with 40 % of the users made new; the draw is the same for every method and seed.

    Raises:
        DataError: the data is missing or bad; the message says what to do.
    """
    if spec.scale is Scale.TOY:
        data = replace(toy_world().clicks(spec.name, IMPRESSIONS), name=spec.name)
    elif spec.scale is Scale.PAPER:
        data = catalogue.load_clicks(spec.name)
    else:
        source, _, click = spec.name.rpartition("-")
        if click not in movielens_clicks.MEANING:
            raise DataError(f"{spec.name} has no clicks at {spec.scale} scale; there are {', '.join(DATA[spec.scale])}")
        data = movielens_clicks.clicks(catalogue.load(source), click, LONGEST)
    data = data.made_new(NEW)
    return data.strict() if spec.strict else data


# ---------------------------------------------------------------- the systems of Tables 2 and 3


class ClickModel(Shape):
    """What a row needs of its model."""

    def fit(self, data: ClickData) -> Self: ...

    def scores(self, data: ClickData, rows: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class System:
    """A row: how to make its model for a seed, the settings as a record keeps them, and how it is judged. It travels to other processes."""

    model: str  # equal for rows that fit the same model
    make: Callable[..., ClickModel]  # of a seed, and of the model that it stands on
    config: dict
    on: System | None = None  # the row whose fitted model it stands on
    chance: bool = True  # whether seeds differ
    shuffled: bool = False  # scored with strangers' attributes

    @property
    def name(self) -> str:
        """What the row is called in tables, records and claims."""
        return f"{self.model} (shuffled)" if self.shuffled else self.model


def ranking_model(seed: int, tower: Callable[..., Tower], settings: RankingSettings, filler: Callable[..., Filler] | None) -> RankingModel:
    return RankingModel(tower, seeded(settings, seed), filler)


def llae(seed: int, on: RankingModel, settings: LLAESettings) -> LLAE:
    return LLAE(on, settings)


def metaemb(seed: int, on: RankingModel, settings: MetaEmbSettings) -> MetaEmb:
    return MetaEmb(on, seeded(settings, seed))


def rate_model(seed: int, of: type[ItemRate]) -> ItemRate:
    return of()


def rate_row(name: str, of: type[ItemRate]) -> System:
    """Rates of clicks, which are counted."""
    return System(name, partial(rate_model, of=of), vars(of()), chance=False)


def ranking_row(name: str, scale: Scale, tower: str = "BaseDNN", mail: MAILSettings | None = None, dmr: DMRSettings | None = None) -> System:
    """A ranking tower, alone or with the zero-shot tower before it; ``dmr`` in place of the settings of ``SIZES``."""
    sizes = SIZES[scale]
    dmr = dmr or sizes.dmr
    towers: dict[str, Callable[..., Tower]] = {
        "Emblr": Emblr,
        "BaseDNN": partial(BaseDNN, hidden=sizes.tower, dropout=sizes.dropout),
        "DMR": partial(DMR, settings=dmr),
    }
    own = {"hidden": sizes.tower, "dropout": sizes.dropout} if tower == "BaseDNN" else asdict(dmr) if tower == "DMR" else {}
    make = partial(ranking_model, tower=towers[tower], settings=sizes.ranking, filler=mail and partial(MAIL, settings=mail))
    config = {"tower": {"name": tower} | own, "mail": mail and asdict(mail), "ranking": asdict(sizes.ranking)}
    return System(name, make, config)


def llae_row(name: str, scale: Scale, settings: LLAESettings | None = None) -> System:
    """LLAE on an Emblr; ``settings`` in place of those of ``SIZES``."""
    settings, emblr = settings or SIZES[scale].llae, ranking_row("Emblr", scale, "Emblr")
    return System(name, partial(llae, settings=settings), emblr.config | {"llae": asdict(settings)}, on=emblr)


def systems(scale: Scale) -> list[System]:
    """Every row of Tables 2 and 3, and the controls."""
    sizes = SIZES[scale]
    linear, base = llae_row("LLAE", scale), ranking_row("BaseDNN", scale)
    forms = {"None": "none", "Single": "single", "Dual": "dual", "Base": "mail"}
    mails = [ranking_row(f"MAIL-{name}", scale, mail=replace(sizes.mail, form=form)) for name, form in forms.items()]
    return [
        linear.on,
        linear,
        base,
        System("MetaEmb", partial(metaemb, settings=sizes.meta), base.config | {"meta": asdict(sizes.meta)}, on=base),
        *mails,
        replace(mails[-1], shuffled=True),
        ranking_row("DMR", scale, "DMR"),
        ranking_row("MAIL-DMR", scale, "DMR", sizes.mail),
        rate_row("Item rate", ItemRate),
        rate_row("Item rate by attributes", AttributeRate),
        System("Random", Chance, {}),
    ]


def deviation_settings(scale: Scale) -> dict[str, tuple[str, MAILSettings]]:
    """Id in the deviation register -> what is changed in the zero-shot tower of MAIL-Base, in words and as settings."""
    mail = SIZES[scale].mail
    return {
        "mail-1": ("MMD as printed, with 1/n before two of its sums", replace(mail, alignment="printed")),
        "mail-2": ("MMD with the median distance as bandwidth", replace(mail, bandwidth="median")),
        "mail-3": ("MMD with five bandwidths", replace(mail, bandwidth="several")),
        "mail-4": ("paired squared error in place of MMD, as in the authors' code", replace(mail, alignment="paired")),
        "mail-5": ("MMD without its bias", replace(mail, alignment="unbiased")),
        "mail-6": ("padding outside the reconstruction", replace(mail, padding=False)),
        "mail-7": ("the ranking loss reaches the zero-shot tower", replace(mail, joint=True)),
        "mail-8": ("new users filled at inference alone, as in the authors' code", replace(mail, fill_training=False)),
    }


def dmr_deviation_settings(scale: Scale) -> dict[str, tuple[str, DMRSettings]]:
    """The same of DMR: what the toy world has otherwise than public data is undone in either."""
    dmr, dropout = SIZES[scale].dmr, SIZES[scale].dropout
    without = {True: "without", False: "with"}
    return {
        "mail-28": (f"DMR {without[dmr.match > 0]} its match loss", replace(dmr, match=0.0 if dmr.match else DMRSettings().match)),
        "mail-29": (
            f"DMR {without[dmr.normalise]} batch norm and dropout",
            replace(dmr, normalise=not dmr.normalise, dropout=0.0 if dmr.normalise else dropout),
        ),
    }


def llae_deviation_settings(scale: Scale) -> dict[str, tuple[str, LLAESettings]]:
    """The same of LLAE."""
    return {"mail-38": ("LLAE reads one-hot codes of the profile, without the id", replace(SIZES[scale].llae, attributes="one-hot"))}


def choice_words(scale: Scale) -> dict[str, str]:
    """Id in the deviation register -> what is changed, in words."""
    settings = deviation_settings(scale) | dmr_deviation_settings(scale) | llae_deviation_settings(scale)
    return {key: words for key, (words, _) in settings.items()}


def deviating(scale: Scale) -> list[System]:
    """MAIL-Base with one choice at a time changed; LLAE; and DMR, by itself and under MAIL."""
    rows = [ranking_row(f"MAIL-Base ({key})", scale, mail=mail) for key, (_, mail) in deviation_settings(scale).items()]
    rows += [llae_row(f"LLAE ({key})", scale, settings) for key, (_, settings) in llae_deviation_settings(scale).items()]
    for key, (_, dmr) in dmr_deviation_settings(scale).items():
        rows += [ranking_row(f"{name} ({key})", scale, "DMR", mail, dmr) for name, mail in (("DMR", None), ("MAIL-DMR", SIZES[scale].mail))]
    return rows


#: base arm of the online test -> the same tower with MAIL in front of it
ARMS = {"BaseDNN": "MAIL-Base", "DMR": "MAIL-DMR"}


def arms(scale: Scale) -> list[System]:
    """The rows that answer visits."""
    return [row for row in systems(scale) if row.name in {*ARMS, *ARMS.values()}]


#: experiment -> its rows
ROWS: dict[str, Callable[[Scale], list[System]]] = {
    "clicks": systems,
    "clicks-strict": systems,
    "deviations": deviating,
    "deviations-strict": deviating,
    "online": arms,
}


# ---------------------------------------------------------------- runs and records


Run = tuple[ClickRanks, float, list[tuple[float, float]]]


def fitted(spec: Spec, row: System, seed: int, models: dict[str, tuple[ClickModel, float]] | None = None) -> tuple[ClickModel, float]:
    """The model of a row, and the seconds that it took; ``models`` holds those made so far with this seed, and gains this one."""
    models = {} if models is None else models
    if row.model not in models:
        on, before = fitted(spec, row.on, seed, models) if row.on else (None, 0.0)
        began = time.perf_counter()
        model = row.make(seed, *([on] if row.on else [])).fit(load(spec))
        models[row.model] = model, before + time.perf_counter() - began
    return models[row.model]


def scored(spec: Spec, rows: list[System], seed: int, models: dict[str, tuple[ClickModel, float]] | None = None) -> dict[str, Run]:
    """Rows that stand on one another, one seed: the ranks of the test impressions, the seconds of training, the losses an epoch."""
    data, models, runs = load(spec), {} if models is None else models, {}
    for row in rows:
        model, seconds = fitted(spec, row, seed, models)
        curve = [(round(epoch["train"], 4), round(epoch["valid"], 4)) for epoch in getattr(model, "curve", [])]
        judged = strangers(data, seed) if row.shuffled else data
        runs[row.name] = ClickRanks.of(data, model.scores(judged, data.rows(TEST))), seconds, curve
    return runs


def strangers(data: ClickData, seed: int) -> ClickData:
    """The control: every new user has the attributes of another new user, but keeps the id."""
    users, new = data.users.copy(), np.flatnonzero(data.new)
    order = np.random.default_rng(seed).permutation(new)
    users[order, 1:] = users[np.roll(order, 1), 1:]
    return replace(data, users=users)


def run(spec: Spec, seeds: Iterable[int], rows: Iterable[System], experiment: str) -> list[RunRecord]:
    """One record a row, in their order; seeds and rows side by side."""
    rows, seeds = list(rows), list(seeds)
    tasks = [(spec, group, seed) for group in groups_of(rows) for seed in (seeds if group[0].chance else seeds[:1])]
    runs: dict[str, dict[int, Run]] = {row.name: {} for row in rows}
    for (_, _, seed), found in zip(tasks, side_by_side(scored, tasks, f"{experiment} {spec.name}"), strict=True):
        for name, one in found.items():
            runs[name][seed] = one
    return [as_record(spec, experiment, row, runs[row.name]) for row in rows]


def groups_of(rows: Iterable[System]) -> list[list[System]]:
    """Rows that share a model, or stand on one: each group goes to one process, where that model is fitted once."""
    groups: dict[str, list[System]] = {}
    for row in rows:
        groups.setdefault((row.on or row).model, []).append(row)
    return list(groups.values())


def as_record(spec: Spec, experiment: str, row: System, runs: dict[int, Run]) -> RunRecord:
    """The runs of one row, seed by seed, as its record."""
    tables = {seed: table for seed, (table, _, _) in runs.items()}
    sums = [spec.protocol.summary(table) for table in tables.values()]
    curve = next(iter(runs.values()))[2]
    return record_of(
        tables,
        sums,
        sum(seconds for _, seconds, _ in runs.values()),
        spec.protocol,
        paper=PAPER,
        experiment=experiment,
        target=load(spec).name,
        method=row.name,
        scale=spec.scale,
        config=row.config | ({"curve": curve} if curve else {}),
        data_sha256=load(spec).sha256,
    )


def ceiling(spec: Spec, experiment: str) -> list[RunRecord]:
    """The Bayes-optimal row of the toy world; none elsewhere."""
    if spec.scale is not Scale.TOY:
        return []
    data = load(spec)
    best = ClickRanks.of(data, toy_world().click_oracle(spec.name, data, data.rows(TEST)))
    return [as_record(spec, experiment, System("Bayes-optimal", lambda seed: None, {}, chance=False), {0: (best, 0.0, [])})]


def results(experiment: str, spec: Spec, live: Iterable[str] = (), models: dict[str, tuple[ClickModel, float]] | None = None) -> list[RunRecord]:
    """What a page shows of ``clicks`` or ``clicks-strict``: Tables 2 and 3, in the toy world with the best that any model could do.

    At toy scale a row comes from the records, if these hold all seeds of it on this very data with these very settings; else all seeds
    run now. Of the rows in ``live`` seed 0 runs now in any case. At a larger scale all of it was recorded; where nothing was, there is
    nothing.

    Args:
        models: as for ``fitted``; gains those of the live rows.
    """
    known = {(experiment, r.method): r for r in find(paper=PAPER, experiment=experiment, target=spec.name, scale=spec.scale)}
    if spec.scale is not Scale.TOY:
        return list(known.values())

    def expected(row: System) -> tuple[list[int], dict[Key, str]]:
        stamp = stamp_of(load(spec).sha256, spec.protocol.settings(), row.config)
        return SEEDS if row.chance else SEEDS[:1], {(experiment, row.name): stamp}

    def again(rows: list[System]) -> list[RunRecord]:
        made = {} if models is None else models
        slowest_first = rows[::-1]  # as the towers of Table 2 grow
        made |= zip((row.model for row in slowest_first), side_by_side(fitted, [(spec, row, 0) for row in slowest_first], "live rows"), strict=True)
        runs = scored(spec, rows, 0, made)
        return [as_record(spec, experiment, row, {0: runs[row.name]}) for row in rows]

    rows = systems(spec.scale)
    found = complete(known, rows, expected, lambda seeds, some: run(spec, seeds, some, experiment), SEEDS, live, again)
    return [*(found[experiment, row.name] for row in rows), *ceiling(spec, experiment)]


# ---------------------------------------------------------------- Table 1


def statistics(data: ClickData) -> pd.Series:
    """The quantities of Table 1."""
    lengths = np.diff(data.windows, axis=1)
    return pd.Series(
        {
            "all users": len(data.users),
            "new users": int(data.new.sum()),
            "items": len(data.items),
            "user attributes": len(data.layout.user),
            "context features": len(data.layout.context),
            "item features": len(data.layout.item),
            "mean behaviours": float(lengths[lengths > 0].mean()),
            "impressions": len(data),
            "clicks an impression": float(data.click.mean()),
        },
        name=data.name,
    )


# ---------------------------------------------------------------- Figures 5 and 6


def clouds(model: RankingModel, data: ClickData, each: int = 1000, seed: int = 0) -> dict[str, np.ndarray]:
    """What the zero-shot tower makes of attributes beside the truth, for random users with behaviour at their newest impression.

    Returns:
        ``real old``, ``real new``, ``made old``, ``made new``: (n, d) behaviours summed over the history, as BaseDNN reads them; the
        behaviour of new users is real and was hidden from the model. ``attributes old``, ``attributes new``: (n, d) the attended h^a.
    """
    rng = np.random.default_rng(seed)
    newest = pd.Series(np.arange(len(data))).groupby(data.user).last().to_numpy()
    newest = newest[data.windows[newest, 0] < data.windows[newest, 1]]
    bare = replace(data, new=np.zeros_like(data.new))  # all behaviours in sight
    found = {}
    for kind, mine in (("old", newest[~data.new[data.user[newest]]]), ("new", newest[data.new[data.user[newest]]])):
        rows = np.sort(rng.choice(mine, min(each, len(mine)), replace=False))
        with torch.no_grad():
            x = model.network.fields(batch_of(bare, rows, model.network.fields.table.weight.device))
            found[f"real {kind}"] = x.v.sum(1).cpu().numpy()
            found[f"made {kind}"] = model.network.filler.generated(x).sum(1).cpu().numpy()
            found[f"attributes {kind}"] = model.network.filler.attend_a(x.a).cpu().numpy()
    return found


def compared(clouds_: dict[str, np.ndarray], pairs: Iterable[tuple[str, str]], seed: int = 0) -> pd.DataFrame:
    """Two-sample numbers for pairs of clouds, equally many points of each.

    Returns:
        index ``first``, ``second``; columns ``MMD²``, ``p-value``, ``1-NN accuracy``, ``coverage`` (of the first by the second).
    """
    rows = {}
    for first, second in pairs:
        n = min(len(clouds_[first]), len(clouds_[second]))
        rng = np.random.default_rng(seed)
        a, b = (clouds_[name][rng.permutation(len(clouds_[name]))[:n]] for name in (first, second))
        value, p = mmd_test(a, b, seed=seed)
        rows[first, second] = {"MMD²": value, "p-value": p, "1-NN accuracy": neighbour_accuracy(a, b), "coverage": coverage(a, b)}
    return pd.DataFrame(rows).T.rename_axis(["first", "second"])


# ---------------------------------------------------------------- section 4.5, the online test


def visits(data: ClickData, n: int, candidates: int, seed: int = 0) -> ClickData:
    """``n`` visits of random users after all is learned, each with the same number of candidates, one a row, visit by visit."""
    world, rng = toy_world(), np.random.default_rng(seed)
    bought = world.dataset(data.name).interactions
    user = np.repeat(rng.integers(len(data.users), size=n), candidates).astype(np.int32)
    item = rng.choice(len(data.items), size=len(user), p=world.popularity(data.name)).astype(np.int32)
    time = np.full(len(user), data.time.max() + 1.0)
    windows = windows_before(user, time, bought[Columns.USER].to_numpy(), bought[Columns.TIME].to_numpy(), data.longest)
    return replace(
        data,
        user=user,
        item=item,
        time=time,
        click=np.zeros(len(user), np.int8),
        context=np.repeat(data.context[-1:], len(user), axis=0),
        windows=windows,
        fold=np.full(len(user), TEST, np.int8),
    )


def online(data: ClickData, arms: Mapping[str, ClickModel], n: int = 4_000, candidates: int = 20, seed: int = 0) -> pd.DataFrame:
    """A simulated A/B test: each visit is answered by every arm with its best candidate, and the truth says what would happen.

    All arms answer the same visits, so no user has to be split and no click has to be drawn: the numbers are expectations. A click is
    followed by a purchase with the probability that the item is the user's next purchase, relative to the likeliest item.

    Returns:
        one row a visit and arm: ``visit``, ``new``, ``arm``, ``click``, ``conversion`` (probabilities).
    """
    world, shown = toy_world(), visits(data, n, candidates, seed)
    histories = world.dataset(data.name).sequences()
    following = world.next_item_probabilities(data.name, histories, knows="user")
    following /= following.max(1, keepdims=True)
    frames, first = [], np.arange(n) * candidates
    for name, model in arms.items():
        scores = np.asarray(model.scores(shown, np.arange(len(shown))))
        best = first + scores.reshape(n, candidates).argmax(1)
        user, item = shown.user[best], shown.item[best]
        click = world.click_probability(data.name, user, item)
        bought = click * following[np.searchsorted(histories.users, user), item]
        frames.append(pd.DataFrame({"visit": np.arange(n), "new": data.new[user], "arm": name, "click": click, "conversion": bought}))
    return pd.concat(frames, ignore_index=True)


def visited(spec: Spec, row: System, seed: int) -> tuple[dict[str, float], float]:
    """One arm of ``online``, one seed: its mean clicks and conversions a visit of new and of old users, and the seconds of training."""
    model, seconds = fitted(spec, row, seed)
    means = online(load(spec), {row.name: model}).groupby("new")[["click", "conversion"]].mean()
    return {f"{what} ({group})": float(means.loc[new, what]) for what in means for group, new in (("new", True), ("old", False))}, seconds


def online_records(spec: Spec, seeds: Iterable[int], rows: Iterable[System]) -> list[RunRecord]:
    """Each arm of the simulated test as a record; the same visits for every seed and arm, so that seeds differ by what was learned alone."""
    rows, seeds = list(rows), list(seeds)
    found = side_by_side(visited, [(spec, row, seed) for row in rows for seed in seeds], f"online {spec.name}")
    of_row = [found[n * len(seeds) : (n + 1) * len(seeds)] for n in range(len(rows))]
    return [
        record_of(
            dict.fromkeys(seeds),
            [means for means, _ in some],
            sum(seconds for _, seconds in some),
            spec.protocol,
            paper=PAPER,
            experiment="online",
            target=load(spec).name,
            method=row.name,
            scale=spec.scale,
            config=row.config,
            data_sha256=load(spec).sha256,
        )
        for row, some in zip(rows, of_row, strict=True)
    ]


def lifts(records: Iterable[RunRecord], new: float | None = None) -> pd.DataFrame:
    """What MAIL adds to each tower in the simulated test, with 95 % intervals over the seeds (Student's t); seeds are paired.

    Args:
        new: share of the visits that new users make; given, there are rows of all visits, too.

    Returns:
        columns ``tower``, ``users``, ``what``, ``without MAIL``, ``with MAIL`` (means a visit), ``lift``, ``low``, ``high`` (shares), ``visits``
        (an arm, to see it); low and high are NaN of a single seed.
    """
    named, rows = {r.method: r for r in records}, []
    for base, ours in ARMS.items():
        if not {base, ours} <= named.keys():
            continue
        pair = named[ours], named[base]
        seeds = [seed for seed in pair[0].seeds if seed in pair[1].seeds]
        shares = {"new": {"new": 1.0}, "old": {"old": 1.0}} | ({} if new is None else {"all": {"new": new, "old": 1 - new}})
        for group, parts in shares.items():
            for what in ("click", "conversion"):
                a, b = (
                    sum(share * np.array([r.metrics[f"{what} ({part})"][r.seeds.index(seed)] for seed in seeds]) for part, share in parts.items())
                    for r in pair
                )
                rows.append((base, group, what, b.mean(), a.mean(), *_over_seeds(a / b - 1), visits_needed(b.mean(), a.mean())))
    return pd.DataFrame(rows, columns=["tower", "users", "what", "without MAIL", "with MAIL", "lift", "low", "high", "visits"])


def visits_needed(rate: float, better: float, power: float = 0.8, level: float = 0.05) -> float:
    """Visits an arm that a two-sided test of two shares needs to find the difference; infinite where there is none.

    >>> round(visits_needed(0.10, 0.11))
    14751
    """
    if rate == better:
        return float("inf")
    mean = (rate + better) / 2
    spread = norm.isf(level / 2) * np.sqrt(2 * mean * (1 - mean)) + norm.isf(1 - power) * np.sqrt(rate * (1 - rate) + better * (1 - better))
    return float((spread / (better - rate)) ** 2)


# ---------------------------------------------------------------- section 3.3, interests against items


def interests(data: ClickData, numbers: Iterable[int], seed: int = 0) -> pd.DataFrame:
    """How well attributes foretell behaviour, as a function of how finely behaviour is described.

    Behaviours of each old user are counted item by item, as finely as a behaviour names one; the first r directions of these counts are r
    latent interests. A ridge regression from attributes, one-hot, is fitted on two thirds of the users and judged on the others; how much
    it is held back is chosen interest by interest. Counts and attributes stay sparse, so that the cost follows the behaviours.

    Args:
        numbers: of interests; more than there are directions means all.

    Returns:
        index ``interests``; ``held``: share of the variance of behaviour that r interests hold; ``foretold``: share of the variance
        of these interests that attributes foretell (R², held-out users); ``items``: the share of the whole that this comes to.
    """
    newest = pd.Series(np.arange(len(data))).groupby(data.user).last()
    newest = newest[~data.new[newest.index.to_numpy()]]
    begin, end = data.windows[newest.to_numpy()].T
    lengths = end - begin
    rows = np.repeat(np.arange(len(newest)), lengths)  # (N,) whose behaviour
    at = np.arange(lengths.sum()) + np.repeat(begin - lengths.cumsum() + lengths, lengths)
    codes = np.ravel_multi_index(data.behaviours[at, :-1].T, [data.vocabularies[name] for name in data.layout.behaviour[:-1]])  # without the action
    kinds, kind = np.unique(codes, return_inverse=True)
    counts = normalize(csr_array((np.ones(len(rows)), (rows, kind)), shape=(len(newest), len(kinds))))
    known = OneHotEncoder().fit_transform(data.users[newest.index.to_numpy()][:, 1:])
    train = np.random.default_rng(seed).random(len(newest)) < 2 / 3
    numbers = np.array(list(numbers))
    most = min(numbers.max(), *counts[train].shape)
    solver = "arpack" if most < min(counts[train].shape) else "covariance_eigh"  # the first finds some directions, the second all
    directions = PCA(most, svd_solver=solver, random_state=seed).fit(counts[train])
    target = directions.transform(counts)  # (users, most)
    guess = RidgeCV(np.logspace(0, 4, 9), alpha_per_target=True).fit(known[train], target[train]).predict(known[~train]).reshape(-1, most)
    wrong, held = (((target[~train] - made) ** 2).sum(0).cumsum()[np.minimum(numbers, most) - 1] for made in (guess, 0.0))
    middle = directions.mean_
    whole = (counts[~train] ** 2).sum() - 2 * (counts[~train] @ middle).sum() + (~train).sum() * middle @ middle
    foretold = 1 - wrong / held
    return pd.DataFrame({"held": held / whole, "foretold": foretold, "items": foretold * held / whole}, pd.Index(numbers, name="interests"))


# ---------------------------------------------------------------- what the chapter shows


def audit(data: ClickData) -> pd.Series:
    """What must hold for the new users to be new, counted on the data itself."""
    test = data.rows(TEST)
    seen = data.windows_seen(np.arange(len(data)))
    past = np.isin(data.user[test], np.unique(data.user[data.rows(TRAIN)]))
    judged = one_class(ClickRanks.of(data, np.zeros(len(test))))
    return pd.Series(
        {
            "behaviours of new users that a model can see": int((seen[:, 1] - seen[:, 0])[data.new[data.user]].sum()),
            "test impressions of new users": len(data.rows(TEST, "new")),
            "… of old users": len(data.rows(TEST, "old")),
            "… of users without behaviour by nature": len(data.rows(TEST, "bare")),
            "share of new users' test impressions whose id was trained on": float(past[data.new[data.user[test]]].mean()),
            "… of old users'": float(past[~data.new[data.user[test]]].mean()),
            "new users in the test": int(judged.loc["new", "users"]),
            "… whom GAUC skips, since they clicked on all or on nothing": int(judged.loc["new", "skipped"]),
            "old users in the test": int(judged.loc["old", "users"]),
            "… whom GAUC skips": int(judged.loc["old", "skipped"]),
            "newest training impression before the first test impression": bool(data.time[data.rows(TRAIN)].max() < data.time[test].min()),
        },
        name=data.name,
    )


def one_class(ranks: ClickRanks) -> pd.DataFrame:
    """How many users GAUC can't judge, since they clicked on all that they were shown, or on nothing.

    Returns:
        index ``new``, ``old``; columns ``users`` in the test, ``skipped`` of them, and ``impressions``, their share of all impressions.
    """
    frame = pd.DataFrame({"user": ranks.user, "click": ranks.click})
    rows = {}
    for group in ("new", "old"):
        clicks = frame[ranks.group == GROUPS.index(group)].groupby("user")["click"].agg(["sum", "size"])
        one = (clicks["sum"] == 0) | (clicks["sum"] == clicks["size"])
        rows[group] = {"users": len(one), "skipped": one.sum(), "impressions": clicks["size"][one].sum() / max(1, clicks["size"].sum())}
    return pd.DataFrame(rows).T.astype({"users": int, "skipped": int})


def improvements(records: Iterable[RunRecord], baselines: Mapping[str, str] = BASELINES, metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """Relative improvement over the baseline in percent (Eq. 18), from metrics that are not rounded, with 95 % intervals.

    Returns:
        one row a method and metric: ``method``, ``over``, ``metric``, ``improvement``, ``low``, ``high``, ``detectable``.
    """
    named, rows = {r.method: r for r in records}, []
    for method, over in baselines.items():
        for metric in metrics:
            if method in named and over in named:
                found = relative(named[method].per_user(metric), named[over].per_user(metric))
                rows.append((method, over, metric, *(100 * x for x in (found.value, found.low, found.high, found.detectable))))
    return pd.DataFrame(rows, columns=["method", "over", "metric", "improvement", "low", "high", "detectable"])


def margins(records: Iterable[RunRecord], others: Iterable[str], metric: str = "AUC (new)") -> dict[str, Estimate]:
    """MAIL-Base less each of the others that is there, with 95 % intervals over users and seeds."""
    named = {r.method: r for r in records}
    there = [other for other in others if {"MAIL-Base", other} <= named.keys()]
    return {other: difference(named["MAIL-Base"].per_user(metric), named[other].per_user(metric)) for other in there}


def _over_seeds(values: np.ndarray) -> tuple[float, float, float]:
    """Mean of a number a seed, and its 95 % interval."""
    mean = float(values.mean())
    half = float(student.isf(0.025, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    return mean, mean - half, mean + half


#: the tower's parts against the whole: whom Table 3 measures improvement by
WHOLE = {name: "MAIL-Base" for name in TABLE_3[:-1]}


def improvement_table(
    records: Iterable[RunRecord], printed: pd.DataFrame, baselines: Mapping[str, str] = BASELINES, metrics: Sequence[str] = METRICS
) -> pd.DataFrame:
    """``improvements`` as the paper sets them (RI), beside its own, worked out from the numbers that it prints.

    Args:
        printed: index method, columns metrics.

    Returns:
        index "method over baseline" and metric; in percent, columns ``ours``, as ``+0.53 [+0.10, +0.97]``, ``paper``, and ``findable``, the
        least gain that would be found eight times in ten; of one test user, who says nothing of others, ``+0.53`` and a dash.
    """
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in improvements(records, baselines, metrics).itertuples():
        known = row.detectable < np.inf
        cells = rows[f"{row.method} over {row.over}", row.metric] = {
            "ours": f"{row.improvement:+.2f}" + (f" [{row.low:+.2f}, {row.high:+.2f}]" if known else ""),
            "findable": f"{row.detectable:.2f}" if known else "–",
        }
        if row.metric in printed and {row.method, row.over} <= {*printed.index}:
            cells["paper"] = f"{100 * (printed.at[row.method, row.metric] / printed.at[row.over, row.metric] - 1):+.2f}"
    return pd.DataFrame.from_dict(rows, orient="index", columns=["ours", "paper", "findable"]).fillna("–")


def in_short(scale: Scale) -> str:
    """What the records say of the paper, in a few sentences; the numbers are looked up, never written."""
    tail = ", which its interval can't tell from nothing"
    sentences, moved, nobody = [], {"raises": [], "lowers": [], "moves": []}, []
    for of, experiment, words in (
        (Scale.TOY, "clicks", "as the paper has it"),
        (Scale.TOY, "clicks-strict", "with new users who are new to training, too"),
        (Scale.SMALL, "clicks", "the paper's protocol"),
        (Scale.SMALL, "clicks-strict", "the strict one"),
    ):
        records = find(paper=PAPER, experiment=experiment, scale=of)
        for name in dict.fromkeys(r.target for r in records):
            for row in improvements([r for r in records if r.target == name], {"MAIL-Base": "BaseDNN"}, ["AUC (new)"]).itertuples():
                word = "raises" if row.low > 0 else "lowers" if row.high < 0 else "moves"
                change = f"{row.improvement:+.2f} %{tail if word == 'moves' else ''}"
                change += f" (95 %: {row.low:+.2f} to {row.high:+.2f})"
                if of is Scale.TOY:
                    sentences.append(f"In the toy world, {words}, MAIL {word} the AUC of new users by {change}.")
                else:
                    moved[word].append(f"{name} under {words}, by {change}")
                    nobody += margins([r for r in records if r.target == name], ["Item rate"]).values()
    known = sum(map(len, moved.values()))
    if known:
        raised, lowered = (f"{len(moved[word]) or 'none'}" + f" ({'; '.join(moved[word])})" * bool(moved[word]) for word in ("raises", "lowers"))
        sentences.append(
            f"In {known} comparisons on public data it raises it in {raised} and lowers it in {lowered}; in the others the interval holds zero."
        )
    if nobody:
        ahead, behind = (sum(sign(e) for e in nobody) for sign in (lambda e: e.low > 0, lambda e: e.high < 0))
        sentences.append(
            f"Of an item's rate of clicks, which ignores the user, it is ahead there in {ahead or 'none'} of {len(nobody)}, and behind it in"
            f" {behind or 'none'}."
        )
    return " ".join([*sentences, claims.in_short(PAPER, scale, "claims, under its own protocol")])
