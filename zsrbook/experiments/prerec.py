"""The experiments of the PreRec chapter: single data sets, strangers, the transfer matrix, families, interpolation, leaks, noise, sessions.

No table of the paper is known, so none stands beside ours; what is known are a few claims in words (``book/claims/prerec.yml``). Each
experiment gives run records with the rank of every held-out one that is judged.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from itertools import combinations, permutations
from math import factorial

import numpy as np
import pandas as pd
from IPython.display import Markdown
from pandas.io.formats.style import Styler
from scipy.sparse import csr_array
from scipy.stats import rankdata
from sklearn.metrics import adjusted_rand_score

from zsrbook.claims import estimate, verdicts
from zsrbook.data import catalogue
from zsrbook.data.dataset import Columns, DataError, Dataset
from zsrbook.data.matrix import MatrixSplit, among, binary, matrix_of, rows_of, split_matrix, strangers
from zsrbook.data.toy import ToySettings, ToyWorld
from zsrbook.evaluation.bootstrap import PerUser, difference, ratio_difference
from zsrbook.evaluation.heavy_tails import fit_tail, gini
from zsrbook.evaluation.matrix import MatrixProtocol, Targets, against_sample, alone, evaluate
from zsrbook.evaluation.metrics import values
from zsrbook.evaluation.ranks import RankTable
from zsrbook.experiments.prerec_baselines import LEVEL, Tuned, recbole_split, tuned
from zsrbook.experiments.seeds import SEEDS, Key, complete, record_of, stamp_of
from zsrbook.models.collaborative import BPRMF, EASE, BPRSettings, EASESettings, ItemKNN, ItemKNNSettings, MostPop
from zsrbook.models.matrix import MatrixModel, degrees
from zsrbook.models.neural_collaborative import LightGCN, LightGCNSettings, MultVAE, MultVAESettings, NeuMF, NeuMFSettings
from zsrbook.models.node2vec import Node2VecSettings
from zsrbook.models.prerec import (
    FAMILIES,
    BinnedPopularity,
    Density,
    FeatureSettings,
    Interpolated,
    PreRec,
    PreRecSettings,
    Statistics,
    statistics_of,
)
from zsrbook.parallel import side_by_side
from zsrbook.records import RunRecord, find
from zsrbook.scale import Scale
from zsrbook.tables import Measured, measured, paper_numbers
from zsrbook.training import Training

PAPER = "prerec"
#: what every table says that shows numbers of the model
RECONSTRUCTED = "PreRec as reconstructed here"

#: the paper's five, or what there is of them, and five more; in the toy world three markets of the same statistics, then two of others
FIVE = ("ml-1m", "epinions", "yelp", "douban", "sports")
DATA = {
    Scale.TOY: ("grocery", "pantry", "films", "even", "crowd"),
    Scale.SMALL: (*FIVE, "ciao", "filmtrust", "flixster", "beauty", "toys"),
    Scale.PAPER: FIVE,
}
#: toy markets whose statistics are not those of the others: the market that they are made from, what is changed, and in words
OTHER_STATISTICS = {
    "even": ("pantry", {"tail": 0.0}, "all items equally popular, habits and tastes as elsewhere"),
    "crowd": ("pantry", {"structure": 0.0}, "no habits and no tastes: everybody draws from one popularity"),
}
#: users that are judged, at most; more of them by mixtures, whose gains are small
MOST = {Scale.TOY: None, Scale.SMALL: 1000, Scale.PAPER: None}
MOST_BY_MIXTURES = {Scale.TOY: None, Scale.SMALL: 5000, Scale.PAPER: None}
#: baselines that PreRec is mixed with
BASES = ("ItemKNN", "EASE", "BPR-MF", "NeuMF", "LightGCN", "Mult-VAE")
#: what a table shows of ``MatrixProtocol.metrics``
SHOWN = ("NDCG@20", "Recall@20", "NDCG@10 (1+100)", "AUC")
#: the kinds of strangers, by experiment
STRANGERS: dict[str, Targets] = {"new-users": "new users", "new-items": "new items", "both-new": "both new"}


# ---------------------------------------------------------------- data


@dataclass(frozen=True)
class Spec:
    """What names the data exactly, small enough to travel to another process."""

    name: str
    scale: Scale
    core: int | None = 5  #: users and items keep so many ones; None keeps all
    dropped: float = 0.0  #: share of the training ones that are taken away
    corrupted: float = 0.0  #: share of the training ones whose item is another at random
    sessions: bool = False  #: a session is a user
    recbole: bool = False  #: filtered and split as in RecBole's published runs, and all users judged: ``prerec_baselines.recbole_split``

    @property
    def label(self) -> str:
        """The name under which results are kept."""
        notes = {
            "all": self.core is None,
            f"drop{self.dropped:.0%}": self.dropped,
            f"noise{self.corrupted:.0%}": self.corrupted,
            "sessions": self.sessions,
            "recbole": self.recbole,
        }
        return "-".join([self.name, *(note.rstrip("%") for note, holds in notes.items() if holds)])


@lru_cache(maxsize=4)
def toy_world(**changes: float) -> ToyWorld:
    """Markets in which tastes are strong and popularity is heavy-tailed, so that the matrix has a shape to carry over."""
    return ToyWorld(ToySettings(**({"users": (3000, 3000, 3000), "history": 30.0, "tail": 1.0, "taste": 3.0} | changes)))


def raw(spec: Spec) -> Dataset:
    """The interactions as they are, of one data set or one toy market."""
    if spec.scale is not Scale.TOY:
        return catalogue.load(spec.name)
    market, changes, _ = OTHER_STATISTICS.get(spec.name, (spec.name, {}, ""))
    return replace(toy_world(**changes).dataset(market), name=spec.name)


@lru_cache(maxsize=16)
def load(spec: Spec) -> MatrixSplit:
    """The matrix, split; one split for every method and seed.

    Raises:
        DataError: the data is missing or bad; the message says what to do.
    """
    data = raw(spec)
    if spec.recbole:
        return replace(recbole_split(data), name=spec.label)
    if spec.sessions:
        data = by_session(data)
    split = replace(split_matrix(binary(data, spec.core)), name=spec.label)
    return damaged(split, spec.dropped, spec.corrupted) if spec.dropped or spec.corrupted else split


def by_session(data: Dataset, gap: float = 86_400.0) -> Dataset:
    """Each run of interactions without a pause of ``gap`` seconds as a user of its own.

    Raises:
        DataError: the data has no clock.
    """
    if not data.clock:
        raise DataError(f"{data.name} has no time stamps, so sessions can't be told; use data with a clock")
    frame = data.interactions
    user, moment = frame[Columns.USER].to_numpy(), frame[Columns.TIME].to_numpy()
    new = np.append(True, (user[1:] != user[:-1]) | (np.diff(moment) > gap))
    session = np.cumsum(new).astype(np.int32) - 1
    users = data.users.iloc[user[new]].reset_index(drop=True)
    users[Columns.RAW] = users[Columns.RAW].astype(str) + "/" + pd.Series(np.arange(len(users)).astype(str))
    return replace(data, interactions=frame.assign(**{Columns.USER: session}), users=users)


def damaged(split: MatrixSplit, dropped: float, corrupted: float, seed: int = 0) -> MatrixSplit:
    """The same to be found, with fewer training ones, or with some whose item is another one at random."""
    rng, train = np.random.default_rng(seed), split.train
    user, item = rows_of(train), train.indices.copy()
    keep = rng.random(len(user)) >= dropped
    wrong = rng.random(len(user)) < corrupted
    item[wrong] = rng.integers(train.shape[1], size=wrong.sum())
    heard = matrix_of(user[keep], item[keep], train.shape)
    hidden = (split.valid + split.test).astype(bool)
    heard = matrix_of(*(heard - heard.multiply(hidden)).nonzero(), train.shape)  # a wrong one may fall on what is to be found
    line = f"{split.name}: {dropped:.0%} of the training ones dropped, {corrupted:.0%} given another item"
    return replace(split, train=heard, report=split.report + line)


# ---------------------------------------------------------------- settings


def _adam(**changes: float) -> Training:
    return Training(**({"optimizer": "adam", "learning_rate": 3e-3, "clip": None, "epochs": 30, "patience": 3} | changes))


#: by scale; the toy world is small, and so are its vectors
SETTINGS = {
    Scale.TOY: PreRecSettings(features=FeatureSettings(node2vec=Node2VecSettings(dimension=32, walks=10, length=40, window=5)), training=_adam()),
    Scale.SMALL: PreRecSettings(training=_adam()),
    Scale.PAPER: PreRecSettings(training=_adam()),
}


@dataclass(frozen=True)
class System:
    """A row: how to make its model for a seed, and the settings as a record keeps them. It travels to other processes."""

    name: str
    make: Callable[[int], MatrixModel]
    config: dict = field(default_factory=dict)
    chance: bool = True  #: whether seeds differ
    shuffled: bool = False  #: every user and item is given the description of another one


class Random(MatrixModel):
    """A random score a pair."""

    knows = "anything"

    def __init__(self, seed: int = 0):
        self.seed = seed

    def fit(self, train, valid=None):
        self.bind(train)
        return self

    def scores(self, users: np.ndarray) -> np.ndarray:
        return np.stack([np.random.default_rng((self.seed, user)).random(self.train.shape[1], dtype=np.float32) for user in users])


class Truth(MatrixModel):
    """Who knows the toy world's popularity, tastes and habits, and of each user what everybody knows: ``ToyWorld.set_scores``."""

    knows = "users"

    def __init__(self, spec: Spec):
        self.spec = spec

    def fit(self, train, valid=None):
        market, changes, _ = OTHER_STATISTICS.get(self.spec.name, (self.spec.name, {}, ""))
        self.world, self.market = toy_world(**changes), market
        everything = pd.Index(self.world.dataset(market).items[Columns.RAW])
        self.places = everything.get_indexer(binary(raw(self.spec), self.spec.core).items[Columns.RAW])
        self.everything = len(everything)
        self.bind(train)
        return self

    def scores(self, users: np.ndarray) -> np.ndarray:
        some = self.train[users]
        known = matrix_of(rows_of(some), self.places[some.indices], (len(users), self.everything))
        return self.world.set_scores(self.market, known)[:, self.places].astype(np.float32)


def prerec(seed: int, settings: PreRecSettings) -> PreRec:
    return PreRec(replace(settings, features=replace(settings.features, seed=seed), training=replace(settings.training, seed=seed)))


def prerec_row(name: str, settings: PreRecSettings, **more: bool) -> System:
    return System(name, partial(prerec, settings=settings), asdict(settings), **more)


def no_seed(seed: int, model: Callable[..., MatrixModel], settings: object = None) -> MatrixModel:
    """A model in which chance plays no part."""
    return model() if settings is None else model(settings)


def seeded(seed: int, model: Callable[..., MatrixModel], settings: object) -> MatrixModel:
    """A model whose settings name the seed, themselves or in their ``training``."""
    training = getattr(settings, "training", None)
    return model(replace(settings, seed=seed) if training is None else replace(settings, training=replace(training, seed=seed)))


#: Mult-VAE's cost goes by users times items: a smaller network and few passes, where both are many
_SHORT_VAE = MultVAESettings(hidden=200, batch=500, training=replace(MultVAESettings().training, epochs=5))


def reading(scale: Scale, bins: int, density: Density, guard: bool = True) -> PreRecSettings:
    """PreRec with the decisions that move it most made otherwise: two of its features, and whether the ones that it learns from are left out."""
    base = SETTINGS[scale]
    return replace(base, features=replace(base.features, bins=bins, density=density), guard=guard)


def chosen_reading(spec: Spec) -> Tuned:
    """PreRec as it does best on validation: users and items clustered together or apart, and how many bins; then the best of these without guard.

    Nine settings, where a baseline may have eight. What came of it stands in ``TUNED``.
    """
    split = load(spec)
    first = tuned(split, PreRec, [reading(spec.scale, bins, density) for density in ("edges", "between") for bins in (10, 20, 50, 100)])
    second = tuned(split, PreRec, [first.model.settings, replace(first.model.settings, guard=False)])
    return Tuned(second.model, first.tried + second.tried[1:])


#: settings that did best on validation: of PreRec by ``chosen_reading``, of baselines among the ``GRIDS`` of ``experiments.prerec_baselines``;
#: where a data set or a family is not named, the families' own did best or nothing was tried. On the three large sets of public data PreRec and
#: ItemKNN alone were tuned
TUNED: dict[str, dict[str, object]] = {
    "pantry": {"PreRec": reading(Scale.TOY, 50, "between", guard=False)},
    "films": {"PreRec": reading(Scale.TOY, 10, "between", guard=False)},
    "crowd": {"PreRec": reading(Scale.TOY, 100, "between", guard=False)},
    "even": {"PreRec": reading(Scale.TOY, 20, "between")},
    "grocery": {
        "PreRec": reading(Scale.TOY, 20, "between"),
        "ItemKNN": ItemKNNSettings(neighbours=50, shrinkage=0.0),
        "BPR-MF": BPRSettings(learning_rate=0.1, lam=0.02),
        "LightGCN": LightGCNSettings(layers=1, decay=1e-3),
        "Mult-VAE": MultVAESettings(dropout=0.7),
    },
    "douban": {
        "PreRec": reading(Scale.SMALL, 20, "between"),
        "ItemKNN": ItemKNNSettings(neighbours=20, shrinkage=30.0),
        "BPR-MF": BPRSettings(learning_rate=0.02, lam=0.04),
        "NeuMF": NeuMFSettings(decay=1e-3),
        "Mult-VAE": MultVAESettings(beta=1.0),
    },
    "ml-1m": {  # the networks as they did best on the same ratings in RecBole's split, ``prerec_baselines.LEVEL``
        "PreRec": reading(Scale.SMALL, 100, "between", guard=False),
        "ItemKNN": ItemKNNSettings(neighbours=200, shrinkage=100.0),
        "EASE": EASESettings(lam=600.0),
        "LightGCN": LightGCNSettings(layers=2, decay=1e-3),
    },
    "yelp": {
        "PreRec": reading(Scale.SMALL, 50, "between", guard=False),
        "ItemKNN": ItemKNNSettings(neighbours=800, shrinkage=100.0),
        "Mult-VAE": _SHORT_VAE,
    },
    "sports": {
        "PreRec": reading(Scale.SMALL, 100, "between", guard=False),
        "ItemKNN": ItemKNNSettings(neighbours=50, shrinkage=100.0),
        "Mult-VAE": _SHORT_VAE,
    },
    "epinions": {
        "PreRec": reading(Scale.SMALL, 100, "between", guard=False),
        "ItemKNN": ItemKNNSettings(neighbours=50, shrinkage=100.0),
        "Mult-VAE": _SHORT_VAE,
    },
}


#: data set -> recommender -> why it has no row there
LEFT_OUT = {"epinions": {"EASE": "30,738 items: 3.8 GB of weights"}}


def baselines(spec: Spec) -> list[System]:
    """Popularity, chance, and recommenders that know users or items by their ids; but for those that are ``LEFT_OUT``."""
    sure = {"ItemKNN": (ItemKNN, ItemKNNSettings()), "EASE": (EASE, EASESettings())}
    drawn = {
        "BPR-MF": (BPRMF, BPRSettings()),
        "NeuMF": (NeuMF, NeuMFSettings()),
        "LightGCN": (LightGCN, LightGCNSettings()),
        "Mult-VAE": (MultVAE, MultVAESettings()),
    }
    own = TUNED.get(spec.name, {})
    rows = [
        System("MostPop", partial(no_seed, model=MostPop), chance=False),
        System("MostPop (binned)", partial(no_seed, model=BinnedPopularity, settings=SETTINGS[spec.scale].features), chance=False),
        System("Random", Random),
    ]
    for make, chosen in ((no_seed, sure), (seeded, drawn)):
        for name, (model, default) in chosen.items():
            settings = own.get(name, default)
            rows.append(System(name, partial(make, model=model, settings=settings), asdict(settings), chance=make is seeded))
    return [row for row in rows if row.name not in LEFT_OUT.get(spec.name, {})]


def systems(spec: Spec) -> list[System]:
    """Every row of the table of a single data set."""
    whole = prerec_row("PreRec", SETTINGS[spec.scale])
    return [*baselines(spec), whole, replace(whole, name="PreRec (shuffled)", shuffled=True)]


def single_rows(spec: Spec) -> list[System]:
    """The same, PreRec as it did best on validation, and in the toy world one who knows the truth, to tell how much there is to gain."""
    best = TUNED.get(spec.name, {}).get("PreRec")
    rows = [*systems(spec), *([prerec_row("PreRec (tuned)", best)] if best else [])]
    if spec.scale is not Scale.TOY:
        return rows
    return [*rows, System("Truth", partial(no_seed, model=Truth, settings=spec), {"world": asdict(toy_world().settings)}, chance=False)]


def apart(settings: PreRecSettings) -> PreRecSettings:
    """The same, with users and items clustered apart."""
    return replace(settings, features=replace(settings.features, density="between"))


def carried_rows(spec: Spec) -> list[System]:
    """Each family alone, to be carried elsewhere; and the second reading of node clusters, alone and in the whole."""
    settings = SETTINGS[spec.scale]
    rows = [prerec_row(f"PreRec ({family})", replace(settings, families=(family,))) for family in FAMILIES]
    alone_ = prerec_row("PreRec (co-occurrence, sides apart)", apart(replace(settings, families=("co-occurrence",))))
    return [*rows, alone_, prerec_row("PreRec (sides apart)", apart(settings))]


def family_rows(spec: Spec) -> list[System]:
    """Each family alone, each pair of families, all three; other ways to join the three; and nodes clustered by side."""
    settings, rows = SETTINGS[spec.scale], []
    for size in (1, 2, 3):
        for chosen in combinations(FAMILIES, size):
            name = "PreRec" if size == 3 else f"PreRec ({' + '.join(chosen)})"
            rows.append(prerec_row(name, replace(settings, families=chosen)))
    rows += [prerec_row(f"PreRec ({form})", replace(settings, combine=form)) for form in ("joint", "attention")]
    other = {"co-occurrence, sides apart": ("co-occurrence",), "activity + co-occurrence, sides apart": FAMILIES[:2], "sides apart": FAMILIES}
    return [*rows, *(prerec_row(f"PreRec ({name})", apart(replace(settings, families=chosen))) for name, chosen in other.items())]


def deviation_settings(scale: Scale) -> dict[str, tuple[str, PreRecSettings]]:
    """Id in the register of deviations -> what is decided otherwise, in words and as settings."""
    base = SETTINGS[scale]
    features = base.features

    def with_features(**changes: object) -> PreRecSettings:
        return replace(base, features=replace(features, **changes))

    def with_walks(**changes: float) -> PreRecSettings:
        return with_features(node2vec=replace(features.node2vec, **changes))

    return {
        "prerec-1": ("activity in bins of equal numbers of ones", with_features(activity="mass")),
        "prerec-2": ("activity in bins of the logarithm", with_features(activity="log")),
        "prerec-3": ("20 bins of each number", with_features(bins=20)),
        "prerec-4": ("50 bins of each number", with_features(bins=50)),
        "prerec-5": ("100 bins of each number", with_features(bins=100)),
        "prerec-6": ("25 clusters of nodes", with_features(clusters=25)),
        "prerec-7": ("200 clusters of nodes", with_features(clusters=200)),
        "prerec-8": ("density of a node cluster as closeness to its centre", with_features(density="distance")),
        "prerec-9": ("pairs as averages of their nodes", with_features(operator="average")),
        "prerec-10": ("pairs as absolute differences", with_features(operator="l1")),
        "prerec-11": ("pairs as squared differences", with_features(operator="l2")),
        "prerec-12": ("50 clusters of pairs", with_features(pair_clusters=50)),
        "prerec-13": ("walks that stay near, q = 4", with_walks(q=4.0)),
        "prerec-14": ("walks that move away, q = 0.25", with_walks(q=0.25)),
        "prerec-15": ("half of the ones as questions", replace(base, questions=0.5)),
        "prerec-16": ("no dropout and no decay", replace(base, dropout=0.0, decay=0.0)),
        "prerec-52": ("users and items clustered apart, density between them", apart(base)),
    }


def deviating(spec: Spec) -> list[System]:
    """PreRec with one decision at a time made otherwise."""
    return [prerec_row(f"PreRec ({key})", settings) for key, (_, settings) in deviation_settings(spec.scale).items()]


def leaking(spec: Spec) -> list[System]:
    """PreRec without its guards: ones that describe themselves while it learns, a served matrix that holds what is to be found, and both."""
    guarded = SETTINGS[spec.scale]
    open_ = replace(guarded, guard=False)
    return [
        prerec_row("PreRec", guarded),
        prerec_row("PreRec (no guard)", open_),
        prerec_row("PreRec (sees the test)", guarded),
        prerec_row("PreRec (no guard, sees the test)", open_),
    ]


def mixed(spec: Spec) -> list[System]:
    """Every baseline with PreRec mixed in; ``scored`` makes three rows of each."""
    ours = {"prerec": asdict(SETTINGS[spec.scale])}
    return [replace(row, config=row.config | ours) for row in baselines(spec) if row.name in ("MostPop", *BASES)]


def level_rows(spec: Spec) -> list[System]:
    """The baselines with the settings at which they are held against RecBole's numbers."""
    rows = []
    for name, made in LEVEL.items():
        settings = made.args[0] if made.args else None
        drawn = getattr(settings, "training", None) is not None or hasattr(settings, "seed")
        make = partial(seeded if drawn else no_seed, model=made.func, settings=settings)
        rows.append(System(name, make, {} if settings is None else asdict(settings), chance=drawn))
    return rows


#: experiment -> its rows on the data that they are trained on, which is the source where there is one
ROWS: dict[str, Callable[[Spec], list[System]]] = {
    "single": single_rows,
    "families": family_rows,
    "deviations": deviating,
    "leaks": leaking,
    "interpolation": mixed,
    "transfer": lambda spec: [row for row in single_rows(spec) if row.name.startswith("PreRec")],
    "carried": carried_rows,
    "strangers": systems,
    "open": lambda spec: [row for row in systems(spec) if row.name in ASKED],
    "level": level_rows,
}

#: experiments with a source: PreRec as a whole, and its families one by one
CARRYING = ("transfer", "carried")


# ---------------------------------------------------------------- runs and records


@dataclass(frozen=True)
class Run:
    """One row and seed: where the held-out ones stand, the seconds of training, and numbers beside the ranks."""

    table: RankTable
    seconds: float
    beside: dict[str, float] = field(default_factory=dict)


#: PreRec's weights as trained in this process: a transfer serves each of them on every target
_WEIGHTS: dict[str, tuple[PreRec, float]] = {}
#: the last few other models: a table and mixtures of one data set share them
_MODELS: dict[tuple[str, str], tuple[MatrixModel, float]] = {}
_MOST_MODELS = 8


def fitted(spec: Spec, row: System, seed: int) -> tuple[MatrixModel, float]:
    """The model of a row on its own data, and the seconds that it took."""
    key = f"{spec}-{seed}-{stamp_of(load(spec).sha256, {}, row.config)}"
    if key in _WEIGHTS:
        model, took = _WEIGHTS[key]
        return model.transfer(load(spec).train), took
    if (row.name, key) in _MODELS:
        return _MODELS[row.name, key]
    began, split = time.perf_counter(), load(spec)
    model = row.make(seed).fit(split.train, split.valid)
    took = time.perf_counter() - began
    if isinstance(model, PreRec):
        _WEIGHTS[key] = model.bare(), took
    else:
        if len(_MODELS) == _MOST_MODELS:
            del _MODELS[next(iter(_MODELS))]
        _MODELS[row.name, key] = model, took
    return model, took


def served(model: PreRec, row: System, seed: int) -> PreRec:
    """The model as the row has it: with the descriptions of strangers, where it is shuffled."""
    if row.shuffled:
        model = copy.copy(model)
        model.described = model.described.shuffled(seed)
    return model


def rules(spec: Spec, experiment: str = "single") -> MatrixProtocol:
    """How an experiment is judged."""
    most = (MOST_BY_MIXTURES if experiment == "interpolation" else MOST)[spec.scale]
    return MatrixProtocol(STRANGERS.get(experiment, "all"), None if spec.recbole else most)


def scored(spec: Spec, experiment: str, row: System, seed: int, source: Spec | None = None) -> dict[tuple[str, str], Run]:
    """(experiment, method) -> run: one row on one seed, which may be judged in several ways."""
    split = load(spec)
    if experiment == "strangers":
        return strange(spec, row, seed)
    if experiment == "interpolation":
        return interpolated(spec, row, seed)
    model, seconds = fitted(source or spec, row, seed)
    if source:
        model = model.transfer(split.train)
    if row.name.endswith("sees the test)"):
        model = model.transfer((split.train + split.test).astype(np.float32))  # what is to be found, and nothing else that the others lack
    return {(experiment, row.name): Run(evaluate(served(model, row, seed), split, rules(spec)), seconds)}


def strange(spec: Spec, row: System, seed: int) -> dict[tuple[str, str], Run]:
    """Weights learned from four fifths of the users and of the items, judged on the others; what those did is known when they are served.

    Item-based models learn from the old users, and stop early by them, with the columns of new items empty. ``(trained on all)`` has learned
    from everybody: what has no score for a stranger otherwise, and what is item-based, beside itself.
    """
    split, new = load(spec), strangers(load(spec))
    model, found = row.make(seed), {}
    if model.knows != "anything":
        found[f"{row.name} (trained on all)"] = fitted(spec, row, seed)
    began = time.perf_counter()
    if model.knows == "users":
        model.fit(*(old_ones(part, new) for part in (split.train, split.valid)))
        found[row.name] = model.transfer(split.train), time.perf_counter() - began
    elif model.knows == "anything":
        inner = among(split, ~new[0], ~new[1])
        found[row.name] = served(model.fit(inner.train, inner.valid).transfer(split.train), row, seed), time.perf_counter() - began
    return {
        (kind, name): Run(evaluate(model, split, rules(spec, kind), new), seconds) for name, (model, seconds) in found.items() for kind in STRANGERS
    }


def old_ones(part: csr_array, new: tuple[np.ndarray, np.ndarray]) -> csr_array:
    """The ones of old users (rows) on old items; new items keep their columns, empty."""
    wide = part[~new[0]].tocoo()
    old = ~new[1][wide.col]
    return matrix_of(wide.row[old], wide.col[old], wide.shape)


class Kept(MatrixModel):
    """Another model's scores, worked out once for the users who are judged."""

    def __init__(self, model: MatrixModel, users: np.ndarray):
        self.train, self.users, self.table = model.train, users, model.scores(users)

    def fit(self, train, valid=None):
        raise NotImplementedError("it is fitted")

    def scores(self, users: np.ndarray) -> np.ndarray:
        return self.table[np.searchsorted(self.users, users)]


#: weights of the base that are tried
ALPHAS = np.linspace(0, 1, 11).round(1)


def interpolated(spec: Spec, row: System, seed: int) -> dict[tuple[str, str], Run]:
    """The base, and the base with PreRec mixed in: by the best weight on validation; by the best on the test, which nobody could know; and
    half of each raw score, as the authors' later work does."""
    split, own = load(spec), SETTINGS[spec.scale]
    alone_ = next(base for base in baselines(spec) if base.name == row.name)
    (base, took), (ours, ours_took) = fitted(spec, alone_, seed), fitted(spec, prerec_row("PreRec", own), seed)
    test, valid = rules(spec, "interpolation"), replace(rules(spec), part="valid")
    tables, best = {}, {}
    for protocol in (valid, test):
        judged = split.valid if protocol.part == "valid" else split.test
        users = protocol.people(rows_of(judged))
        both = [Kept(model, users) for model in (base, ours)]
        for alpha in ALPHAS:
            mix = Interpolated(*both, alpha=float(alpha))
            mix.bind(split.train)
            tables[protocol.part, float(alpha)] = evaluate(mix, split, protocol)
        scores = {a: protocol.summary(tables[protocol.part, float(a)], ("NDCG@20",))["NDCG@20"] for a in ALPHAS}
        best[protocol.part] = float(max(scores, key=scores.get))
    raw_half = Interpolated(*both, standardise=False)
    raw_half.bind(split.train)
    seconds = took + ours_took
    found = {row.name: Run(tables["test", 1.0], took)}
    for note, part in (("", "valid"), (" (oracle)", "test")):
        found[f"{row.name} + PreRec{note}"] = Run(tables["test", best[part]], seconds, {"alpha": best[part]})
    found[f"{row.name} + PreRec (raw, half)"] = Run(evaluate(raw_half, split, test), seconds, {"alpha": 0.5})
    return {("interpolation", name): run for name, run in found.items()}


def run(spec: Spec, experiment: str, seeds: Iterable[int], rows: Iterable[System], source: Spec | None = None) -> list[RunRecord]:
    """The records of rows, in their order; seeds and rows side by side."""
    seeds = list(seeds)
    tasks = [(spec, experiment, row, seed, source) for row in rows for seed in (seeds if draws(experiment, row) else seeds[:1])]
    found: dict[tuple[str, str], tuple[System, dict[int, Run]]] = {}
    for (_, _, row, seed, _), runs in zip(tasks, side_by_side(scored, tasks, f"{experiment} {spec.label}"), strict=True):
        for key, one in runs.items():
            found.setdefault(key, (row, {}))[1][seed] = one
    return [as_record(spec, *key, row, runs, source) for key, (row, runs) in found.items()]


def as_record(spec: Spec, experiment: str, method: str, row: System, runs: dict[int, Run], source: Spec | None = None) -> RunRecord:
    """The runs of one row, seed by seed, as its record."""
    protocol = rules(spec, experiment)
    sums = [protocol.summary(one.table) | one.beside for one in runs.values()]
    return record_of(
        {seed: one.table for seed, one in runs.items()},
        sums,
        sum(one.seconds for one in runs.values()),
        protocol,
        paper=PAPER,
        experiment=experiment,
        source=source and source.label,
        target=spec.label,
        method=method,
        scale=spec.scale,
        config=row.config,
        data_sha256=load(spec).sha256,
    )


def made_by(experiment: str, row: System) -> list[tuple[str, str]]:
    """(experiment, method) of the records that a row gives."""
    if experiment == "interpolation":
        return [(experiment, row.name + note) for note in ("", " + PreRec", " + PreRec (oracle)", " + PreRec (raw, half)")]
    if experiment == "strangers":
        all_, own = f"{row.name} (trained on all)", row.name
        return [(kind, name) for name in {"nothing": [all_], "users": [own, all_], "anything": [own]}[row.make(0).knows] for kind in STRANGERS]
    return [(experiment, row.name)]


def draws(experiment: str, row: System) -> bool:
    """Whether chance plays a part: PreRec, which has seeds, is mixed into every base."""
    return row.chance or experiment == "interpolation"


def tasks(experiment: str, data: str, source: str, scale: Scale) -> list[tuple[Spec, Spec | None]]:
    """(target, source) of what ``run prerec`` is asked for; source None but for a transfer.

    Raises:
        DataError: a source where nothing is transferred; or data whose level nobody published.
    """
    if experiment == "level" and data != "ml-1m":
        raise DataError(f"level is held against numbers that are published for ml-1m alone, but {data!r} was given; say ml-1m, at small scale")
    if source and experiment not in CARRYING:
        raise DataError(f"{experiment} has no source, but {source!r} was given; leave --source out")
    targets = [Spec(name, scale, recbole=experiment == "level") for name in (DATA[scale] if data == "all" else (data,))]
    if experiment in CARRYING:
        return [(t, Spec(s, scale)) for t in targets for s in ((source,) if source else DATA[scale]) if s != t.name]
    if experiment == "open":
        return [(replace(t, **c), None) for t in targets for c in OPEN_QUESTIONS.values() if c and ("sessions" not in c or raw(t).clock)]
    return [(t, None) for t in targets]


def results(experiment: str, spec: Spec, live: Iterable[str] = (), source: Spec | None = None, only: Iterable[str] | None = None) -> list[RunRecord]:
    """What a page shows of an experiment on one data set, or of the transfer from one to another.

    At toy scale a row comes from the records, if these hold all seeds of it on this very data with these very settings; else all seeds
    run now. Of the rows in ``live`` seed 0 runs now in any case. At a larger scale all of it was recorded; where nothing was, there is
    nothing.

    Args:
        only: names of rows; default all.
    """
    recorded = find(paper=PAPER, source=source and source.label, target=spec.label, scale=spec.scale)
    known = {(r.experiment, r.method): r for r in recorded if (r.source is None) == (source is None)}
    rows = [row for row in ROWS[experiment](source or spec) if only is None or row.name in set(only)]
    if spec.scale is not Scale.TOY:
        return [known[key] for row in rows for key in made_by(experiment, row) if key in known]

    def expected(row: System) -> tuple[list[int], dict[Key, str]]:
        stamps = {key: stamp_of(load(spec).sha256, rules(spec, key[0]).settings(), row.config) for key in made_by(experiment, row)}
        return SEEDS if draws(experiment, row) else SEEDS[:1], stamps

    found = complete(known, rows, expected, lambda seeds, some: run(spec, experiment, seeds, some, source), SEEDS, live)
    return [found[key] for row in rows for key in made_by(experiment, row)]


# ---------------------------------------------------------------- what the chapter makes of the records


def gains(ours: Iterable[RunRecord], base: Mapping[str, RunRecord], metric: str = "NDCG@20") -> pd.DataFrame:
    """Each record beside the base of its target, in percent of the base, with 95 % intervals.

    Args:
        base: target -> the record to compare with, such as that of MostPop.

    Returns:
        columns ``source``, ``target``, ``method``, ``value``, ``base``, ``gain``, ``low``, ``high``, one row a record whose target has a base.
    """
    rows = []
    for record in ours:
        if record.target in base:
            below = base[record.target]
            ours_, theirs = record.per_user(metric), below.per_user(metric)
            found = ratio_difference((ours_, theirs), (theirs, theirs))  # the base beside itself is 1
            percent = (100 * x for x in (found.value, found.low, found.high))
            rows.append((record.source or record.target, record.target, record.method, record.mean(metric), below.mean(metric), *percent))
    return pd.DataFrame(rows, columns=["source", "target", "method", "value", "base", "gain", "low", "high"])


def transfers(scale: Scale, live: tuple[str, str] | None = None) -> list[RunRecord]:
    """The records of every pair of data sets, and, where source and target are one, of that data set alone.

    Args:
        live: a pair whose seed 0 runs now.
    """
    specs, found = [Spec(name, scale) for name in DATA[scale]], []
    for target in specs:
        for source in specs:
            now = ("PreRec",) if live == (source.name, target.name) else ()
            found += results("single", target, only=("MostPop", "PreRec")) if source == target else results("transfer", target, now, source)
    return found


def beside(moved: Sequence[RunRecord], popular: Mapping[str, RunRecord], counted: Mapping[str, float]) -> pd.DataFrame:
    """The transfers of PreRec, and what stands beside each.

    Args:
        popular: as for ``gains``.
        counted: target -> what ItemKNN reaches there, which trains no weight either.

    Returns:
        index source and target; columns ``PreRec``, ``tuned``, ``MostPop``, ``ItemKNN`` (NDCG@20), and in percent of MostPop ``gain``, ``low``,
        ``high`` of PreRec, ``shuffled``, the gain of its control, and ``tuned low``, ``tuned high``, the interval of that of the tuned row.
    """
    ours, tuned_, control = (
        gains((r for r in moved if r.method == name and r.source), popular).set_index(["source", "target"])
        for name in ("PreRec", "PreRec (tuned)", "PreRec (shuffled)")
    )
    found = ours.rename(columns={"value": "PreRec", "base": "MostPop"})
    found["ItemKNN"] = found.index.get_level_values("target").map(counted)
    found["tuned"], found["tuned low"], found["tuned high"], found["shuffled"] = tuned_["value"], tuned_["low"], tuned_["high"], control["gain"]
    return found[["PreRec", "tuned", "MostPop", "ItemKNN", "gain", "low", "high", "shuffled", "tuned low", "tuned high"]]


def carried(records: Iterable[RunRecord], base: Mapping[str, RunRecord], metric: str = "NDCG@20") -> pd.DataFrame:
    """What of PreRec carries over: each method over all its pairs of source and target, against the target's popularity.

    Args:
        base: target -> the record to compare with.

    Returns:
        index method, without the name PreRec where it says what is read; columns ``metric`` (mean over pairs), ``gain``, ``lowest`` and
        ``highest`` (median, least and largest gain of a pair, in percent), ``better`` and ``worse`` (pairs whose interval lies above or below
        0) and ``pairs``.
    """
    found = gains(records, base, metric)
    found["method"] = found["method"].str.replace(r"^PreRec \((.*)\)$", r"\1", regex=True)
    grouped = found.assign(better=found["low"] > 0, worse=found["high"] < 0).groupby("method", sort=False)
    columns = {metric: ("value", "mean"), "gain": ("gain", "median"), "lowest": ("gain", "min"), "highest": ("gain", "max")}
    return grouped.agg(**columns, better=("better", "sum"), worse=("worse", "sum"), pairs=("better", "size"))


def popularity_of(records: Iterable[RunRecord]) -> dict[str, RunRecord]:
    """Target -> the record of MostPop."""
    return {r.target: r for r in records if r.method == "MostPop" and r.experiment == "single"}


def described(split: MatrixSplit, seed: int, scale: Scale) -> Statistics:
    """What PreRec reads of the training ones of a data set."""
    settings = SETTINGS[scale].features
    return statistics_of(split.train, replace(settings, seed=seed), FAMILIES)


def stability(spec: Spec, seeds: Iterable[int] = range(3)) -> pd.DataFrame:
    """How far two seeds agree: the adjusted Rand index of the clusters of nodes, and the share of nodes whose bins of size and of density agree
    to within one."""
    found = [described(load(spec), seed, spec.scale) for seed in seeds]
    rows = []
    for (a, first), (b, second) in combinations(enumerate(found), 2):
        linked = first.clusters >= 0
        bins = [np.concatenate([d.users, d.items])[linked].astype(int) for d in (first, second)]
        near = (np.abs(bins[0] - bins[1]) <= 1).mean(0)
        rows.append((a, b, adjusted_rand_score(first.clusters[linked], second.clusters[linked]), near[1], near[2]))
    return pd.DataFrame(rows, columns=["seed", "other seed", "adjusted Rand index", "size within a bin", "density within a bin"])


def levels(model: MatrixModel, users: np.ndarray) -> pd.Series:
    """How many different scores the items of a user get, at the median over users, and how many items tie with the best one."""
    scores = model.scores(users)
    different = [len(np.unique(row)) for row in scores]
    best = (scores == scores.max(1, keepdims=True)).sum(1)
    return pd.Series({"items": scores.shape[1], "different scores": np.median(different), "items level with the best": np.median(best)})


def only(metric: PerUser, people: np.ndarray) -> PerUser:
    """A metric of some of the users."""
    keep = np.isin(metric.users, people)
    return replace(metric, users=metric.users[keep], sums=metric.sums[keep], counts=metric.counts[keep])


def by_activity(ours: RunRecord, base: RunRecord, split: MatrixSplit, groups: int = 4, metric: str = "NDCG@20") -> pd.DataFrame:
    """Where one method beats another: users in groups of equal size by their training ones.

    Returns:
        one row a group: ``ones`` (the range), ``users``, ``ours``, ``base``, ``low`` and ``high`` of the difference.
    """
    ones = degrees(split.train)[0]
    mine, theirs = ours.per_user(metric), base.per_user(metric)
    group = pd.qcut(pd.Series(ones[mine.users]).rank(method="first"), groups, labels=False).to_numpy()
    rows = []
    for g in range(groups):
        people = mine.users[group == g]
        parts = [only(p, people) for p in (mine, theirs)]
        found = difference(*parts)
        count = ones[people]
        rows.append((f"{count.min()} to {count.max()}", len(people), parts[0].value, parts[1].value, found.low, found.high))
    return pd.DataFrame(rows, columns=["ones", "users", "ours", "base", "low", "high"])


def by_known(ours: Iterable[RunRecord], base: Mapping[str, RunRecord], metric: str = "NDCG@20") -> pd.DataFrame:
    """The same over many transfers, from the ranks alone: users of each target in quarters, by how many items they are known to have, which is how
    few candidates are left to rank.

    Args:
        ours: transfers of one method.
        base: target -> the record to compare with.

    Returns:
        index ``users``, from the fewest known ones to the most; columns ``gain`` (median over the transfers, in percent of the base), ``better`` and
        ``worse`` (transfers whose difference in that quarter lies above or below 0 beyond the interval), and ``transfers``.
    """
    names, rows = ("fewest", "fewer", "more", "most"), []
    for record in ours:
        below = base[record.target]
        table = next(iter(below.ranks.values()))
        people, first = np.unique(table.user, return_index=True)
        known = pd.Series(-table.n_candidates[first].astype(int)).rank(method="first")
        quarter = pd.qcut(known, len(names), labels=False).to_numpy()
        for which, name in enumerate(names):
            mine, theirs = (only(r.per_user(metric), people[quarter == which]) for r in (record, below))
            found = difference(mine, theirs)
            rows.append((name, 100 * found.value / theirs.value if theirs.value else np.nan, found.low > 0, found.high < 0))
    table = pd.DataFrame(rows, columns=["users", "gain", "better", "worse"]).groupby("users", sort=False)
    return table.agg(gain=("gain", "median"), better=("better", "sum"), worse=("worse", "sum"), transfers=("better", "size"))


def dial(records: Iterable[RunRecord], negatives: Iterable[int], metric: str = "NDCG@10") -> pd.DataFrame:
    """A metric against so many sampled negatives, up to all, worked out from the ranks: how the order of methods depends on the sample.

    Returns:
        index ``negatives``; one column a method; the last row, ``all``, ranks against every negative.
    """
    columns = {}
    for record in records:
        found = []
        for count in [*negatives, None]:
            per_seed = [against(table, metric, count) for table in record.ranks.values()]
            found.append(float(np.mean(per_seed)))
        columns[record.method] = found
    return pd.DataFrame(columns, index=pd.Index([*map(str, negatives), "all"], name="negatives"))


def against(table: RankTable, metric: str, negatives: int | None) -> float:
    """Mean over users of a metric in which each held-out one stands alone against sampled negatives; None: against all."""
    _, group = np.unique(table.user, return_inverse=True)
    single = alone(table, group)
    worth = values(single, metric) if negatives is None else against_sample(single, metric, negatives)
    return float((np.bincount(group, worth) / np.bincount(group)).mean())


#: how a data set is summed up, to see which of it goes with a transfer that works
def summary_of(split: MatrixSplit, scale: Scale) -> pd.Series:
    """What PreRec could use of a matrix: its size, how dense and how heavy-tailed it is; and in the toy world, where walks take seconds and not
    minutes, how far its ones gather in clusters."""
    user, item = degrees(split.train)
    found = {
        "users": len(user),
        "items": len(item),
        "ones a user": user.mean(),
        "density": split.train.nnz / (len(user) * len(item)),
        "Gini of items": gini(item[item > 0]),
        "Gini of users": gini(user[user > 0]),
    }
    if scale is Scale.TOY:
        clusters = described(split, 0, scale).clusters
        found["ones inside clusters"] = (clusters[rows_of(split.train)] == clusters[split.train.shape[0] + split.train.indices]).mean()
    return pd.Series(found, name=split.name)


def foretelling(grid: pd.DataFrame, summaries: pd.DataFrame) -> pd.DataFrame:
    """Which statistics go with the gain of a transfer: Spearman's ρ over the pairs of the matrix, the diagonal left out.

    For each statistic: of the target, of the source, and how far apart the two are, as the absolute difference of logarithms. The pairs share
    sources and targets, so a p-value is from permuting data sets, not pairs: all orders of them, or 999 at random where there are more.

    Args:
        grid: as ``gains`` gives it, one method.
        summaries: index data set, one column a statistic.
    """
    pairs = grid[grid["source"] != grid["target"]]
    logs, n, rows = np.log(summaries.clip(lower=1e-9)), len(summaries), []
    every = factorial(n) <= 999
    orders = list(permutations(range(n))) if every else list(np.random.default_rng(0).permuted(np.tile(np.arange(n), (999, 1)), axis=1))

    ends = [logs.index.get_indexer(pairs[side]) for side in ("source", "target")]

    def ranked(x: np.ndarray) -> np.ndarray:
        """(…, pairs) ranks, centred and of length 1, so that ρ is an inner product."""
        ranks = rankdata(x, axis=-1)
        ranks -= ranks.mean(-1, keepdims=True)
        return ranks / np.maximum(np.linalg.norm(ranks, axis=-1, keepdims=True), 1e-12)

    gain = ranked(pairs["gain"].to_numpy())
    for name in summaries:
        dealt = logs[name].to_numpy()[[range(n), *orders]]  # as it is, and then in each other order
        source, target = (dealt[:, end] for end in ends)
        for which, x in {"of the target": target, "of the source": source, "how far apart": np.abs(source - target)}.items():
            rho, *chance = ranked(x) @ gain
            as_large = np.sum(np.abs(chance) >= abs(rho) - 1e-9)
            rows.append((name, which, rho, as_large / len(chance) if every else (1 + as_large) / (1 + len(chance))))
    return pd.DataFrame(rows, columns=["statistic", "reading", "ρ", "p"]).set_index(["statistic", "reading"])


def audit(spec: Spec, source: Spec) -> pd.Series:
    """What a transfer must not know, counted on the data itself."""
    split = load(spec)
    mine, theirs = (raw(s) for s in (spec, source))
    model, _ = fitted(source, prerec_row("PreRec", SETTINGS[spec.scale]), 0)
    before = {name: value.clone() for name, value in model.networks.state_dict().items()}
    moved = model.transfer(split.train)
    return pd.Series(
        {
            "users in both": len(set(mine.users[Columns.RAW]) & set(theirs.users[Columns.RAW])),
            "items in both": len(set(mine.items[Columns.RAW]) & set(theirs.items[Columns.RAW])),
            "ones in both training and test": int(split.train.multiply(split.test).nnz),
            "ones in both validation and test": int(split.valid.multiply(split.test).nnz),
            "weights that moved in the target": sum(not bool((before[n] == v).all()) for n, v in moved.networks.state_dict().items()),
            "numbers that travel": sum(v.numel() for v in before.values()),
        },
        name=f"{source.label} → {spec.label}",
    )


def table(records: Sequence[RunRecord], yardstick: str, title: str, metrics: Sequence[str] = SHOWN) -> Measured | Markdown:
    """The records of one data set, or a word that there are none."""
    return measured(records, metrics, yardstick, f"{title} · {RECONSTRUCTED}") if records else Markdown("*Not recorded at this scale yet.*")


def sizes(scale: Scale) -> pd.DataFrame:
    """One row a data set: ``users``, ``items``, ``ones``, how many a user and an item have, and the share of pairs that are ones."""
    rows = {}
    for name in DATA[scale]:
        try:
            split = load(Spec(name, scale))
        except DataError:  # a page at small scale shows what there is
            continue
        ones, (users, items) = (split.known + split.test).nnz, split.train.shape
        rows[name] = (users, items, ones, ones / users, ones / items, ones / (users * items))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["users", "items", "ones", "ones a user", "ones an item", "density"])


def tail_records(spec: Spec, draws: int = 500) -> list[RunRecord]:
    """The power law fitted to the ones of users, and of items, as records: ``exponent``, ``from`` (the smallest degree of the tail), ``share``
    (of the nodes that it holds), ``p`` (how often the law itself would lie as far from its fit), ``log-normal`` (log-likelihood ratio of the power
    law to it), ``its p``, ``Gini``.

    Args:
        draws: of the goodness-of-fit test.
    """
    split, found = load(spec), []
    for side, ones in zip(("users", "items"), degrees((split.known + split.test).tocsr()), strict=True):
        began, fit = time.perf_counter(), fit_tail(ones, draws=draws)
        numbers = {"exponent": fit.exponent, "from": fit.minimum, "share": fit.tail / fit.nodes, "p": fit.p}
        numbers |= {"log-normal": fit.lognormal.ratio, "its p": fit.lognormal.p, "Gini": gini(ones[ones > 0])}
        record = RunRecord(
            paper=PAPER,
            experiment="tails",
            target=spec.label,
            method=side,
            scale=spec.scale,
            protocol=rules(spec).settings(),
            config={"draws": draws},
            seeds=[0],
            metrics={name: [float(value)] for name, value in numbers.items()},
            data_sha256=split.sha256,
            minutes=round((time.perf_counter() - began) / 60, 3),
        )
        found.append(record)
    return found


def tails(records: Iterable[RunRecord]) -> pd.DataFrame:
    """``tail_records`` as a table: one row a data set and side."""
    rows = {(r.target, r.method): {name: values_[0] for name, values_ in r.metrics.items()} for r in records}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["data", "of"]) if rows else pd.DataFrame()


def by_kind(records: Iterable[RunRecord], metric: str) -> pd.DataFrame:
    """Strangers of each kind: one row a method, one column a kind."""
    rows: dict[str, dict[str, float]] = {}
    for record in records:
        rows.setdefault(record.method, {})[STRANGERS[record.experiment]] = record.mean(metric)
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(STRANGERS.values()))


def cell(record: RunRecord, metric: str = "NDCG@20") -> str:
    """``0.149 ± 0.012 (5)``: the mean, half of its 95 % interval, and the number of seeds where it is more than one."""
    value, low, high, _ = estimate([(1.0, record)], metric)
    text = f"{value:.3f} ± {(high - low) / 2:.3f}".replace(" ", "\N{NO-BREAK SPACE}")
    return text + (f" ({len(record.seeds)})" if len(record.seeds) > 1 else "")


def across(found: Mapping[str, Iterable[RunRecord]], metric: str = "NDCG@20") -> pd.DataFrame:
    """Index method, one column a data set, each ``cell``; ``–`` where nothing was recorded."""
    return pd.DataFrame({name: {r.method: cell(r, metric) for r in records} for name, records in found.items()}, dtype=object).fillna("–")


def board(names: Iterable[str], scale: Scale, metric: str = "NDCG@20") -> pd.DataFrame:
    """Every row of the table of a single data set, on each data set, as ``across`` has it; ``too large`` where a row is left out."""
    found = across({name: results("single", Spec(name, scale)) for name in names}, metric)
    there = dict.fromkeys([*found.index, *(method for name in found for method in LEFT_OUT.get(name, {}))])
    usual = [row.name for row in systems(Spec("", scale)) if row.name in there]
    found = found.reindex([*usual, *(method for method in there if method not in usual)]).fillna("–")
    for name in found:
        found.loc[[*LEFT_OUT.get(name, {})], name] = "too large"
    return found


def shares(names: Iterable[str], scale: Scale, ours: str, base: str, metrics: Iterable[str]) -> pd.DataFrame:
    """What one method reaches of another at home, by several ways of ranking: one row a data set that has both, one column a metric."""
    rows = {}
    for name in names:
        found = {r.method: r for r in results("single", Spec(name, scale)) if r.method in (ours, base)}
        if len(found) == 2:
            rows[name] = {metric: found[ours].mean(metric) / found[base].mean(metric) for metric in metrics}
    return pd.DataFrame.from_dict(rows, orient="index")


def costs(names: Iterable[str], scale: Scale) -> pd.DataFrame:
    """Minutes of one core that a seed of each row of ``board`` takes to train, as recorded; a shuffled row trains nothing of its own.

    Returns:
        index method, one column a data set; NaN where nothing was recorded.
    """
    found = {name: {r.method: r.minutes / len(r.seeds) for r in results("single", Spec(name, scale))} for name in names}
    return pd.DataFrame(found).drop("PreRec (shuffled)", errors="ignore")


def benchmark(records: Iterable[RunRecord], published: str = "recbole_ml1m") -> pd.DataFrame:
    """Baselines beside what others publish of theirs on the same data, split alike.

    Args:
        records: of the experiment ``level``.
        published: name of the table of numbers.

    Returns:
        index method; columns (metric, ``ours`` | ``theirs`` | ``off``), the last in percent of theirs.
    """
    numbers = paper_numbers(published)
    theirs = numbers.pivot(index="method", columns="metric", values="value")
    rows = {}
    for record in records:
        if record.method in theirs.index:
            pairs = {metric: (record.per_user(metric).value, theirs.at[record.method, metric]) for metric in numbers["metric"].unique()}
            rows[record.method] = {(m, c): v for m, (a, b) in pairs.items() for c, v in (("ours", a), ("theirs", b), ("off", 100 * (a / b - 1)))}
    return pd.DataFrame.from_dict(rows, orient="index")


def narrow(styled: Styler) -> Styler:
    """A table of many columns in smaller letters, its row names no wider than they need."""
    small = [{"selector": "", "props": "font-size: .85em"}, {"selector": "th.row_heading", "props": "min-width: 0 !important"}]
    return styled.set_table_styles(small, overwrite=False)


def reconstructed(styled: Styler) -> Styler:
    """The same for numbers of PreRec, whose caption ends with what they are."""
    return narrow(styled.set_caption(" · ".join(filter(None, (styled.caption, RECONSTRUCTED)))))


def mixtures(records: Iterable[RunRecord], metric: str = "NDCG@20") -> pd.DataFrame:
    """What PreRec adds to each base, in percent of the base with 95 % intervals.

    Returns:
        index ``base``; columns ``alone``, ``mixed``, ``gain``, ``low``, ``high``, ``α``, ``oracle`` and ``raw, half`` (gains, too).
    """
    named, rows = {r.method: r for r in records}, {}
    for base in ("MostPop", *BASES):
        if base in named:
            mix, oracle, half = (named[f"{base} + PreRec{note}"] for note in ("", " (oracle)", " (raw, half)"))
            found = gains([mix], {mix.target: named[base]}, metric).iloc[0]
            more = [100 * (r.mean(metric) / found["base"] - 1) for r in (oracle, half)]
            rows[base] = (*found[["base", "value", "gain", "low", "high"]], mix.mean("alpha"), *more)
    columns = ["alone", "mixed", "gain", "low", "high", "α", "oracle", "raw, half"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("base")


def leak(spec: Spec, seed: int = 0) -> dict[str, np.ndarray]:
    """The inner product of a pair's vectors, for three kinds of ones: learned from with the guard, without it, and to be found."""
    split, settings = load(spec), SETTINGS[spec.scale]
    user, item = rows_of(split.train), split.train.indices
    asked = np.random.default_rng(seed).random(len(user)) < settings.questions
    guarded = statistics_of(matrix_of(user[~asked], item[~asked], split.train.shape), settings.features, FAMILIES)
    whole = described(split, seed, spec.scale)

    def product(found: Statistics, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        return (found.vectors[0][user] * found.vectors[1][item]).sum(1).numpy()

    return {
        "learned from, guarded": product(guarded, user[asked], item[asked]),
        "learned from, unguarded": product(whole, user[asked], item[asked]),
        "to be found": product(whole, rows_of(split.test), split.test.indices),
    }


def summaries(scale: Scale, names: Iterable[str] | None = None) -> pd.DataFrame:
    """``summary_of`` each of these data sets, or all, one row each."""
    return pd.DataFrame([summary_of(load(Spec(name, scale)), scale) for name in (DATA[scale] if names is None else names)])


def recorded_summaries(names: Iterable[str], scale: Scale) -> pd.DataFrame:
    """What the records tell of data sets that are not at hand: how unequal and how heavy-tailed their marginals are, how many candidates a user
    has at the median, and how far popularity alone gets, one row each; without those of which something is not recorded."""
    rows = {}
    for name in names:
        fits = {r.method: r for r in find(paper=PAPER, experiment="tails", target=name, scale=scale)}
        popular = next(iter(find(paper=PAPER, experiment="single", target=name, method="MostPop", scale=scale)), None)
        if popular is None or not {"users", "items"} <= fits.keys():
            continue
        found = {f"{of} of {side}": fits[side].mean(key) for of, key in (("Gini", "Gini"), ("exponent", "exponent")) for side in ("items", "users")}
        candidates = np.median(next(iter(popular.ranks.values())).n_candidates)
        rows[name] = found | {"candidates": candidates, "NDCG@20 of MostPop": popular.mean("NDCG@20")}
    return pd.DataFrame.from_dict(rows, orient="index")


#: the open questions: what is asked, and of which data
OPEN_QUESTIONS: dict[str, dict[str, object]] = {
    "as it is": {},
    "half of the ones dropped": {"dropped": 0.5},
    "four in five ones dropped": {"dropped": 0.8},
    "one in ten ones wrong": {"corrupted": 0.1},
    "three in ten ones wrong": {"corrupted": 0.3},
    "no 5-core": {"core": None},
    "sessions in place of people": {"sessions": True},
}
ASKED = ("MostPop", "EASE", "LightGCN", "PreRec")


def open_questions(spec: Spec, metric: str = "NDCG@20") -> pd.DataFrame:
    """One row a kind of data, one column a method."""
    rows = {}
    for words, changes in OPEN_QUESTIONS.items():
        other = replace(spec, **changes)
        rows[words] = {r.method: r.mean(metric) for r in results("open" if changes else "single", other) if r.method in ASKED}
    return pd.DataFrame.from_dict(rows, orient="index")


def in_short(scale: Scale) -> str:
    """What the records say of the paper, in a few sentences; the numbers are looked up, never written."""
    first, other = DATA[Scale.TOY][:2]
    single = {r.method: r for r in find(paper=PAPER, experiment="single", target=first, scale=Scale.TOY)}
    moved = find(paper=PAPER, experiment="transfer", source=first, target=other, method="PreRec", scale=Scale.TOY)
    popular = popularity_of(find(paper=PAPER, experiment="single", method="MostPop", scale=Scale.TOY))
    sentences = ["The paper's full text and code could not be had, so this is a reconstruction; its decisions are named, and many are measured."]
    if {"PreRec", "MostPop", "EASE"} <= single.keys():
        ours, popularity, ease = (single[name].mean("NDCG@20") for name in ("PreRec", "MostPop", "EASE"))
        where = "above both" if ours > max(popularity, ease) else "below both" if ours < min(popularity, ease) else "between"
        sentences.append(
            f"In a toy market whose tastes are strong, PreRec reaches NDCG@20 {ours:.3f}, {where} popularity ({popularity:.3f})"
            f" and EASE ({ease:.3f}), which knows the items by their ids."
        )
    if moved and other in popular:
        row = gains(moved, popular).iloc[0]
        sentences.append(
            f"Carried to another market with no shared user or item, it reaches {row.value:.3f}, where popularity has {row.base:.3f}"
            f" ({row.gain:+.0f} %, 95 %: {row.low:+.0f} to {row.high:+.0f})."
        )
    public = [r for r in find(paper=PAPER, experiment="transfer", scale=Scale.SMALL) if {r.source, r.target} <= {*FIVE}]
    popular = popularity_of(find(paper=PAPER, experiment="single", method="MostPop", scale=Scale.SMALL))
    overview = carried([r for r in public if r.method in ("PreRec", "PreRec (tuned)")], popular)
    if "PreRec" in overview.index:
        row = overview.loc["PreRec"]
        sentences.append(f"Between public data sets {row.better:.0f} of {row.pairs:.0f} transfers beat popularity and {row.worse:.0f} fall below it.")
    if "tuned" in overview.index:
        row = overview.loc["tuned"]
        sentences.append(
            f"With the settings that did best in the source {row.better:.0f} of {row.pairs:.0f} transfers between public data sets beat popularity"
            f" and {row.worse:.0f} fall below it."
        )
    judged = verdicts(PAPER, scale)
    return " ".join([*sentences, f"Of the paper's {len(judged)} known claims, judged by the runs recorded at the {scale} scale: {judged.counted()}."])
