"""The experiments of the PreRec chapter: their data, settings and rows, what runs them, and the records that come of it.

They are single data sets, families, decisions taken otherwise, leaks, interpolation, transfers of the whole and of each family, strangers, open
questions (fewer ones, noise, sessions), trials of tuning, and the level of the baselines. Each gives run records with the rank of every held-out
one that is judged; trials, the fits of heavy tails and the stability of clusters give records without ranks. Besides: what PreRec reads of a
matrix, the audit of a transfer, and how pairs of vectors give ones away without the guard. What the chapter makes of finished records is in
``prerec_tables``.

No table of the paper is known, so none stands beside ours; what is known are a few claims in words (``book/claims/prerec.yml``).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from sklearn.metrics import adjusted_rand_score

from zsrbook.data import catalogue
from zsrbook.data.dataset import Columns, DataError, Dataset
from zsrbook.data.matrix import MatrixSplit, among, binary, matrix_of, rows_of, split_matrix, strangers
from zsrbook.data.toy import ToySettings, ToyWorld
from zsrbook.evaluation.heavy_tails import ccdf, fit_tail, gini
from zsrbook.evaluation.matrix import MatrixProtocol, Targets, evaluate
from zsrbook.evaluation.ranks import RankTable
from zsrbook.experiments.prerec_baselines import GRIDS, LEVEL, in_words, recbole_split
from zsrbook.experiments.seeds import SEEDS, Key, as_config, complete, record_of, seeded, stamp_of
from zsrbook.models.collaborative import BPRSettings, EASESettings, ItemKNNSettings, MostPop
from zsrbook.models.matrix import MatrixModel, degrees
from zsrbook.models.neural_collaborative import LightGCNSettings, MultVAESettings, NeuMFSettings
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
from zsrbook.training import Training

PAPER = "prerec"

#: the paper's five, or what there is of them, and five more; in the toy world three markets of the same statistics, then two of others
FIVE = ("ml-1m", "epinions", "yelp", "douban", "sports")
DATA = {
    Scale.TOY: ("grocery", "pantry", "films", "even", "crowd"),
    Scale.SMALL: (*FIVE, "ciao", "filmtrust", "flixster", "beauty", "toys"),
    Scale.PAPER: FIVE,
}
#: toy markets whose statistics are not those of the others: the market that they are made from, and what is changed
OTHER_STATISTICS = {
    "even": ("pantry", {"tail": 0.0}),  # all items equally popular, habits and tastes as elsewhere
    "crowd": ("pantry", {"structure": 0.0}),  # no habits and no tastes: everybody draws from one popularity
}
#: users that are judged, at most; more of them by mixtures, whose gains are small
MOST = {Scale.TOY: None, Scale.SMALL: 1000, Scale.PAPER: None}
MOST_BY_MIXTURES = {Scale.TOY: None, Scale.SMALL: 5000, Scale.PAPER: None}
#: baselines that PreRec is mixed with
BASES = tuple(GRIDS)
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
    liked: float = 0.0  #: ratings below it are no ones
    split: int = 0  #: seed of the split
    recbole: bool = False  #: filtered and split as in RecBole's published runs, and all users judged: ``prerec_baselines.recbole_split``

    @property
    def label(self) -> str:
        """The name under which results are kept."""
        notes = {
            "all": self.core is None,
            f"drop{self.dropped:.0%}": self.dropped,
            f"noise{self.corrupted:.0%}": self.corrupted,
            "sessions": self.sessions,
            f"liked{self.liked:g}": self.liked,
            f"split{self.split}": self.split,
            "recbole": self.recbole,
        }
        return "-".join([self.name, *(note.rstrip("%") for note, holds in notes.items() if holds)])


@lru_cache(maxsize=4)
def toy_world(**changes: float) -> ToyWorld:
    """Markets in which tastes are strong and popularity is heavy-tailed, so that the matrix has a shape to carry over."""
    return ToyWorld(ToySettings(**({"users": (3000, 3000, 3000), "history": 30.0, "tail": 1.0, "taste": 3.0} | changes)))


def toy_market(name: str) -> tuple[ToyWorld, str]:
    """The world that a toy market is in, and its name there."""
    market, changes = OTHER_STATISTICS.get(name, (name, {}))
    return toy_world(**changes), market


def raw(spec: Spec) -> Dataset:
    """The interactions as they are, of one data set or one toy market."""
    if spec.scale is not Scale.TOY:
        return catalogue.load(spec.name)
    world, market = toy_market(spec.name)
    return replace(world.dataset(market), name=spec.name)


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
    if spec.liked:
        enough = data.interactions[Columns.VALUE].to_numpy() >= spec.liked
        data = data.where(enough, f"{data.name}: ratings of {spec.liked:g} or more")
    split = replace(split_matrix(binary(data, spec.core), seed=spec.split), name=spec.label)
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
        self.world, self.market = toy_market(self.spec.name)
        everything = pd.Index(self.world.dataset(self.market).items[Columns.RAW])
        self.places = everything.get_indexer(binary(raw(self.spec), self.spec.core).items[Columns.RAW])
        self.everything = len(everything)
        self.bind(train)
        return self

    def scores(self, users: np.ndarray) -> np.ndarray:
        some = self.train[users]
        known = matrix_of(rows_of(some), self.places[some.indices], (len(users), self.everything))
        return self.world.set_scores(self.market, known)[:, self.places].astype(np.float32)


def prerec(seed: int, settings: PreRecSettings) -> PreRec:
    return PreRec(seeded(replace(settings, features=replace(settings.features, seed=seed)), seed))


def prerec_row(name: str, settings: PreRecSettings, **more: bool) -> System:
    return System(name, partial(prerec, settings=settings), as_config(settings), **more)


def no_seed(seed: int, model: Callable[..., MatrixModel], settings: object = None) -> MatrixModel:
    """A model in which chance plays no part."""
    return model() if settings is None else model(settings)


def with_seed(seed: int, model: Callable[..., MatrixModel], settings: object) -> MatrixModel:
    """A model whose settings name the seed, themselves or in their ``training``."""
    return model(seeded(settings, seed) if hasattr(settings, "training") else replace(settings, seed=seed))


def row_of(name: str, model: Callable[..., MatrixModel], settings: object = None) -> System:
    """A recommender with these settings; chance plays a part where they name a seed."""
    drawn = any(hasattr(settings, part) for part in ("seed", "training"))
    make = partial(with_seed if drawn else no_seed, model=model, settings=settings)
    return System(name, make, {} if settings is None else as_config(settings), chance=drawn)


#: Mult-VAE's cost goes by users times items: a smaller network and few passes, where both are many
_SHORT_VAE = MultVAESettings(hidden=200, batch=500, training=replace(MultVAESettings().training, epochs=5))


def reading(scale: Scale, bins: int, density: Density, guard: bool = True) -> PreRecSettings:
    """PreRec with the decisions that move it most made otherwise: two of its features, and whether the ones that it learns from are left out."""
    base = SETTINGS[scale]
    return replace(base, features=replace(base.features, bins=bins, density=density), guard=guard)


#: settings that did best on validation, by the records of their ``trials``, to which a test holds them. Where a data set or a family is not named,
#: the families' own did best or nothing was tried
TUNED: dict[str, dict[str, object]] = {
    "pantry": {"PreRec": reading(Scale.TOY, 50, "between", guard=False)},
    "films": {"PreRec": reading(Scale.TOY, 10, "between", guard=False)},
    "crowd": {"PreRec": reading(Scale.TOY, 100, "edges", guard=False)},
    "even": {"PreRec": reading(Scale.TOY, 20, "between")},
    "grocery": {
        "PreRec": reading(Scale.TOY, 20, "between"),
        "BPR-MF": BPRSettings(learning_rate=0.1, lam=0.02),
        "LightGCN": LightGCNSettings(layers=1, decay=1e-3),
        "Mult-VAE": MultVAESettings(dropout=0.7),
    },
    "douban": {
        "PreRec": reading(Scale.SMALL, 50, "between", guard=False),
        "ItemKNN": ItemKNNSettings(neighbours=20),
        "BPR-MF": BPRSettings(lam=0.04),
        "NeuMF": NeuMFSettings(decay=1e-3),
        "Mult-VAE": MultVAESettings(beta=1.0),
    },
    "ml-1m": {
        "PreRec": reading(Scale.SMALL, 100, "between", guard=False),
        "ItemKNN": ItemKNNSettings(shrinkage=100.0),
        "EASE": EASESettings(lam=600.0),
        "NeuMF": NeuMFSettings(decay=1e-4),
        "LightGCN": LightGCNSettings(decay=1e-3),
        "Mult-VAE": MultVAESettings(beta=1.0),
    },
    "yelp": {
        "PreRec": reading(Scale.SMALL, 50, "between", guard=False),
        "ItemKNN": ItemKNNSettings(neighbours=800, shrinkage=100.0),
        "BPR-MF": BPRSettings(learning_rate=0.1, lam=0.04),
        "NeuMF": NeuMFSettings(decay=1e-3),
        "Mult-VAE": replace(_SHORT_VAE, beta=1.0),
    },
    "sports": {
        "PreRec": reading(Scale.SMALL, 50, "between", guard=False),
        "ItemKNN": ItemKNNSettings(neighbours=800, shrinkage=100.0),
        "EASE": EASESettings(lam=600.0),
        "BPR-MF": BPRSettings(learning_rate=0.1, lam=0.04),
        "NeuMF": NeuMFSettings(decay=1e-3),
        "LightGCN": LightGCNSettings(decay=1e-3),
        "Mult-VAE": replace(_SHORT_VAE, beta=1.0),
    },
    "epinions": {
        "PreRec": reading(Scale.SMALL, 20, "between", guard=False),
        "ItemKNN": ItemKNNSettings(neighbours=50, shrinkage=100.0),
        "BPR-MF": BPRSettings(lam=0.04),
        "NeuMF": NeuMFSettings(decay=1e-3),
        "LightGCN": LightGCNSettings(decay=1e-3),
        "Mult-VAE": replace(_SHORT_VAE, dropout=0.7),
    },
}


#: data set -> recommender -> why it has no row there
LEFT_OUT = {"epinions": {"EASE": "30,738 items: 3.8 GB of weights"}}


def baselines(spec: Spec) -> list[System]:
    """Popularity, chance, and recommenders that know users or items by their ids; but for those that are ``LEFT_OUT``."""
    own = TUNED.get(spec.name, {})
    rows = [
        row_of("MostPop", MostPop),
        System("MostPop (binned)", partial(no_seed, model=BinnedPopularity, settings=SETTINGS[spec.scale].features), chance=False),
        System("Random", Random),
        *(row_of(name, model, own.get(name, type(grid[0])())) for name, (model, grid) in GRIDS.items()),
    ]
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
    rows.append(prerec_row("PreRec (co-occurrence, sides apart)", apart(replace(settings, families=("co-occurrence",)))))
    return [*rows, prerec_row("PreRec (sides apart)", apart(settings))]


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

    def with_vectors(**changes: float) -> PreRecSettings:
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
        "prerec-13": ("walks that stay near, q = 4", with_vectors(q=4.0)),
        "prerec-14": ("walks that move away, q = 0.25", with_vectors(q=0.25)),
        "prerec-15": ("half of the ones as questions", replace(base, questions=0.5)),
        "prerec-16": ("no dropout and no decay", replace(base, dropout=0.0, decay=0.0)),
        "prerec-21": ("served by what it learned from, without the questions", replace(base, served="learned")),
        "prerec-23": ("nodes with equally many ones told apart by chance", with_features(equal="apart")),
        "prerec-24": ("percentiles over clusters", with_features(counted="clusters")),
        "prerec-25": ("nodes clustered by their vectors as they are", with_features(directions=False)),
        "prerec-26": ("centres of pairs found on 10,000 of them", with_features(pair_sample=10_000)),
        "prerec-27": ("density of a cluster of pairs as closeness to its centre", with_features(pair_density="distance")),
        "prerec-29": ("negatives of its own for each pair of a walk", with_vectors(shared_negatives=False)),
        "prerec-30": ("the middle bins for nodes without a one", with_features(without="middle")),
        "prerec-32": ("two MLPs that weigh the same", replace(base, weight=0.5)),
        "prerec-33": ("negatives as often as they are taken", replace(base, negatives="popular")),
        "prerec-34": ("a third of the learning rate", replace(base, training=replace(base.training, learning_rate=1e-3))),
        "prerec-52": ("users and items clustered apart, density between them", apart(base)),
        "prerec-53": ("three passes over the walks", with_vectors(epochs=3)),
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
    ours = {"prerec": as_config(SETTINGS[spec.scale])}
    return [replace(row, config=row.config | ours) for row in baselines(spec) if row.name in ("MostPop", *BASES)]


def level_rows(spec: Spec) -> list[System]:
    """The baselines with the settings at which they are held against RecBole's numbers."""
    return [row_of(name, *model) for name, model in LEVEL.items()]


#: how the names of trials without the guard end
NO_GUARD = ", no guard)"


def tried(spec: Spec) -> dict[str, dict[str, object]]:
    """Family -> row -> settings: what the validation ones of a data set choose among.

    Baselines have eight fits at most. PreRec has nine: users and items clustered together or apart, with four numbers of bins; and the best of
    these once more without its guard, so of the rows without it ``trials`` runs one.
    """
    own = TUNED.get(spec.name, {})
    found: dict[str, dict[str, object]] = {}
    for family, (_, grid) in GRIDS.items() if spec.name in (*FIVE, DATA[Scale.TOY][0]) else ():
        if family == "Mult-VAE" and family in own:  # its size and passes are those of the data set, which no grid names
            grid = [replace(own[family], dropout=s.dropout, beta=s.beta) for s in grid]
        if family not in LEFT_OUT.get(spec.name, {}):
            found[family] = {f"{family} ({in_words(one, grid)})": one for one in grid}
    found["PreRec"] = {
        f"PreRec ({density}, {bins} bins{')' if guard else NO_GUARD}": reading(spec.scale, bins, density, guard)
        for guard in (True, False)
        for density in ("edges", "between")
        for bins in (10, 20, 50, 100)
    }
    return found


def trials(spec: Spec) -> list[System]:
    """A row for each of these settings, of PreRec without its guard the one row that ``tried`` names, once the records of the others tell which.

    They are judged on validation ones, and their records hold no ranks.
    """
    ways, settings_of = {family: model for family, (model, _) in GRIDS.items()}, tried(spec)
    known = {r.method: r for r in find(paper=PAPER, experiment="tuning", target=spec.label, scale=spec.scale)}
    guarded = [name for name in settings_of["PreRec"] if not name.endswith(NO_GUARD)]
    best = chosen(spec, [known[name] for name in guarded])["PreRec"] if known.keys() >= set(guarded) else ""
    return [
        row_of(name, ways[family], settings) if family in ways else prerec_row(name, settings)
        for family, some in settings_of.items()
        for name, settings in some.items()
        if not name.endswith(NO_GUARD) or name == f"{best[:-1]}{NO_GUARD}"
    ]


def chosen(spec: Spec, runs: Iterable[RunRecord]) -> dict[str, str]:
    """Family -> the row of ``trials`` that did best on validation, by their records; a family without a record is not there."""
    reached = {r.method: r.metrics["NDCG@20"][0] for r in runs}
    there = {family: [name for name in some if name in reached] for family, some in tried(spec).items()}
    return {family: max(names, key=reached.__getitem__) for family, names in there.items() if names}


#: the open questions, and two decisions on data: what is asked, and of which data
OPEN_QUESTIONS: dict[str, dict[str, object]] = {
    "as it is": {},
    "half of the ones dropped": {"dropped": 0.5},
    "four in five ones dropped": {"dropped": 0.8},
    "one in ten ones wrong": {"corrupted": 0.1},
    "three in ten ones wrong": {"corrupted": 0.3},
    "no 5-core": {"core": None},
    "sessions in place of people": {"sessions": True},
    "four stars or more": {"liked": 4.0},
    "another split": {"split": 1},
}
ASKED = ("MostPop", "EASE", "LightGCN", "PreRec")

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
    "tuning": trials,
}

#: experiments with a source: PreRec as a whole, and its families one by one
CARRYING = ("transfer", "carried")
#: the method that records of ``stability`` name
STABLE = "clusters of nodes"


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
    if isinstance(model, PreRec) and model.settings.served == "all":  # else it is served by what weights don't tell
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
    if experiment == "tuning":
        return MatrixProtocol(part="valid", most=1000)
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
    return {(experiment, row.name): Run(evaluate(served(model, row, seed), split, rules(spec, experiment)), seconds)}


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
ALPHAS = np.linspace(0, 1, 11).round(1).tolist()


def interpolated(spec: Spec, row: System, seed: int) -> dict[tuple[str, str], Run]:
    """The base, and the base with PreRec mixed in: by the best weight on validation; by the best on the test, which nobody could know; and
    half of each raw score, as the authors' later work does."""
    split, own = load(spec), SETTINGS[spec.scale]
    base_row = next(base for base in baselines(spec) if base.name == row.name)
    (base, took), (ours, ours_took) = fitted(spec, base_row, seed), fitted(spec, prerec_row("PreRec", own), seed)
    valid, test = replace(rules(spec), part="valid"), rules(spec, "interpolation")

    def mixing(protocol: MatrixProtocol) -> Callable[..., RankTable]:
        """The ranks of a mixture under these rules, whichever it is; each of the two scores their users once."""
        users = protocol.people(rows_of(split.valid if protocol is valid else split.test))
        both = [Kept(model, users) for model in (base, ours)]

        def ranks(**how: float | bool) -> RankTable:
            mix = Interpolated(*both, **how)
            mix.bind(split.train)
            return evaluate(mix, split, protocol)

        return ranks

    def by_weight(ranks: Callable[..., RankTable], protocol: MatrixProtocol) -> tuple[dict[float, RankTable], float]:
        tables = {alpha: ranks(alpha=alpha) for alpha in ALPHAS}
        return tables, max(ALPHAS, key=lambda alpha: protocol.summary(tables[alpha], ("NDCG@20",))["NDCG@20"])

    _, validated = by_weight(mixing(valid), valid)
    to_test = mixing(test)
    tables, oracle = by_weight(to_test, test)
    seconds = took + ours_took
    found = {row.name: Run(tables[1.0], took)}
    for note, alpha in (("", validated), (" (oracle)", oracle)):
        found[f"{row.name} + PreRec{note}"] = Run(tables[alpha], seconds, {"alpha": alpha})
    found[f"{row.name} + PreRec (raw, half)"] = Run(to_test(standardise=False), seconds, {"alpha": 0.5})
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
        {seed: None if experiment == "tuning" else one.table for seed, one in runs.items()},  # of many settings a number each, to choose by
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


def can_be(data: Dataset, changes: dict[str, object]) -> bool:
    """Whether data can be changed so: sessions need a clock, and likes ratings."""
    return ("sessions" not in changes or data.clock) and ("liked" not in changes or data.interactions[Columns.VALUE].nunique() > 1)


def tasks(experiment: str, data: str, source: str, scale: Scale) -> list[tuple[Spec, Spec | None]]:
    """(target, source) of what ``run prerec`` is asked for; source None but for a transfer.

    Raises:
        DataError: a source where nothing is transferred, or that is the target, too; or data whose level nobody published.
    """
    if experiment == "level" and data != "ml-1m":
        raise DataError(f"level is held against numbers that are published for ml-1m alone, but {data!r} was given; say ml-1m, at small scale")
    if source and experiment not in CARRYING:
        raise DataError(f"{experiment} has no source, but {source!r} was given; leave --source out")
    if source and source == data:
        raise DataError(f"{source} is source and target of a transfer; say another --source")
    targets = [Spec(name, scale, recbole=experiment == "level") for name in (DATA[scale] if data == "all" else (data,))]
    if experiment in CARRYING:
        return [(t, Spec(s, scale)) for t in targets for s in ((source,) if source else DATA[scale]) if s != t.name]
    if experiment == "open":
        return [(replace(t, **changes), None) for t in targets for changes in OPEN_QUESTIONS.values() if changes and can_be(raw(t), changes)]
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
    wanted = None if only is None else set(only)
    rows = [row for row in ROWS[experiment](source or spec) if wanted is None or row.name in wanted]
    if spec.scale is not Scale.TOY:
        return [known[key] for row in rows for key in made_by(experiment, row) if key in known]

    def expected(row: System) -> tuple[list[int], dict[Key, str]]:
        stamps = {key: stamp_of(load(spec).sha256, rules(spec, key[0]).settings(), row.config) for key in made_by(experiment, row)}
        return SEEDS if draws(experiment, row) else SEEDS[:1], stamps

    found = complete(known, rows, expected, lambda seeds, some: run(spec, experiment, seeds, some, source), SEEDS, live)
    return [found[key] for row in rows for key in made_by(experiment, row)]


def tail_records(spec: Spec, draws: int = 500) -> list[RunRecord]:
    """The power law fitted to the ones of users, and of items, as records: ``exponent``, ``from`` (the smallest degree of the tail), ``share``
    (of the nodes that it holds), ``p`` (how often the law itself would lie as far from its fit), ``log-normal`` (log-likelihood ratio of the power
    law to it), ``its p``, the same two of an ``exponential`` and of a power law with a ``cut-off``, ``Gini``; and in the config a ``curve``, 60
    points at most of the share with as many ones or more (``ccdf``).

    Args:
        draws: of the goodness-of-fit test.
    """
    split, found = load(spec), []
    for side, ones in zip(("users", "items"), degrees((split.known + split.test).tocsr()), strict=True):
        began, fit = time.perf_counter(), fit_tail(ones, draws=draws)
        numbers = {"exponent": fit.exponent, "from": fit.minimum, "share": fit.tail / fit.nodes, "p": fit.p}
        numbers |= {"log-normal": fit.lognormal.ratio, "its p": fit.lognormal.p, "Gini": gini(ones[ones > 0])}
        numbers |= {"exponential": fit.exponential.ratio, "exponential p": fit.exponential.p}
        numbers |= {"cut-off": fit.cutoff.ratio, "cut-off p": fit.cutoff.p}
        x, share = ccdf(ones)
        some = np.unique(np.searchsorted(x, np.geomspace(x[0], x[-1], 60)))
        record = record_of(
            {0: None},
            [{name: float(value) for name, value in numbers.items()}],
            time.perf_counter() - began,
            rules(spec),
            paper=PAPER,
            experiment="tails",
            target=spec.label,
            method=side,
            scale=spec.scale,
            config={"draws": draws, "curve": [(int(x[i]), round(float(share[i]), 6)) for i in some]},
            data_sha256=split.sha256,
        )
        found.append(record)
    return found


# ---------------------------------------------------------------- what is asked of data and models themselves


def described(split: MatrixSplit, seed: int, scale: Scale) -> Statistics:
    """What PreRec reads of the training ones of a data set."""
    settings = SETTINGS[scale].features
    return statistics_of(split.train, replace(settings, seed=seed), FAMILIES)


def stability(spec: Spec, seeds: Iterable[int] = range(3)) -> pd.DataFrame:
    """How far two seeds agree: the adjusted Rand index of the clusters of nodes, and the share of nodes whose bins of size and of density agree
    to within one."""
    found, rows = [(seed, described(load(spec), seed, spec.scale)) for seed in seeds], []
    for (a, first), (b, second) in combinations(found, 2):
        linked = first.clusters >= 0
        bins = [np.concatenate([d.users, d.items])[linked].astype(int) for d in (first, second)]
        near = (np.abs(bins[0] - bins[1]) <= 1).mean(0)
        rows.append((a, b, adjusted_rand_score(first.clusters[linked], second.clusters[linked]), near[1], near[2]))
    return pd.DataFrame(rows, columns=["seed", "other seed", "adjusted Rand index", "size within a bin", "density within a bin"])


def stability_record(spec: Spec, seeds: Iterable[int] = range(3)) -> RunRecord:
    """``stability`` as a record without ranks: of each seed the mean over the others."""
    began, pairs = time.perf_counter(), stability(spec, seeds)
    both = pd.concat([pairs, pairs.rename(columns={"seed": "other seed", "other seed": "seed"})])
    means = both.drop(columns="other seed").groupby("seed").mean()
    return record_of(
        dict.fromkeys(means.index.tolist()),
        means.to_dict("records"),
        time.perf_counter() - began,
        rules(spec),
        paper=PAPER,
        experiment="stability",
        target=spec.label,
        method=STABLE,
        scale=spec.scale,
        config=as_config(SETTINGS[spec.scale].features),
        data_sha256=load(spec).sha256,
    )


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


def leak(spec: Spec, seed: int = 0) -> dict[str, np.ndarray]:
    """The inner product of a pair's vectors, for three kinds of ones: learned from with the guard, without it, and to be found."""
    split, settings = load(spec), SETTINGS[spec.scale]
    user, item = rows_of(split.train), split.train.indices
    asked = np.random.default_rng(seed).random(len(user)) < settings.questions  # as ``PreRec.fit`` draws them
    guarded = described(replace(split, train=matrix_of(user[~asked], item[~asked], split.train.shape)), seed, spec.scale)
    whole = described(split, seed, spec.scale)

    def product(found: Statistics, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        return (found.vectors[0][user] * found.vectors[1][item]).sum(1).numpy()

    return {
        "learned from, guarded": product(guarded, user[asked], item[asked]),
        "learned from, unguarded": product(whole, user[asked], item[asked]),
        "to be found": product(whole, rows_of(split.test), split.test.indices),
    }
