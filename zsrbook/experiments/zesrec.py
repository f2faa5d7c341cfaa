"""The experiments of the ZESRec chapter: Table 1, Table 2, Figures 2 and 3, the case studies of Figures 4 to 6, Table 3.

Those that train take a ``Pair`` and give run records with all ranks, so that tables, intervals and claims can be computed from them, whether
they just ran or were recorded earlier.
"""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from functools import cache, lru_cache
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from sklearn.cluster import KMeans

from zsrbook import claims
from zsrbook.data import catalogue
from zsrbook.data.dataset import Columns, DataError, Dataset, Sequences
from zsrbook.data.overlap import shared_items, without_shared
from zsrbook.data.splits import (
    Fold,
    Split,
    at_least,
    compact,
    select_items,
    shuffle_ties,
    split_by_user,
    subset_of_users,
    thinned,
    two_shops,
    without_repeats,
)
from zsrbook.data.toy import ToySettings, ToyWorld
from zsrbook.evaluation.protocol import Protocol, evaluate
from zsrbook.evaluation.ranks import RankTable, rank_targets
from zsrbook.experiments.seeds import SEEDS, Key, as_config, complete, record_of, seeded, shown, stamp_of
from zsrbook.models.anchored import Anchored, AnchoredSettings
from zsrbook.models.base import Recommender, Wrapper
from zsrbook.models.baselines import EmbKNN, EmbKNNSettings, NewOnly, Popularity, Random
from zsrbook.models.zesrec import ZESRec, ZESRecSettings
from zsrbook.parallel import side_by_side
from zsrbook.records import RecordError, RunRecord, code_version, find
from zsrbook.scale import Scale
from zsrbook.text import HashedWords, TextEncoder
from zsrbook.training import Training

PAPER = "zesrec"
NETWORKS = {"gru": ("GRU4Rec", "ZESRec-G"), "tcn": ("TCN", "ZESRec-T"), "hrnn": ("HRNN", "ZESRec-H")}

#: source and target of each pair, by scale; the first is the chapter's main pair
PAIRS = {
    Scale.TOY: (("grocery", "pantry"), ("films", "pantry")),
    Scale.SMALL: (
        ("scientific", "office"),
        ("ml-latest-small", "ml-1m"),
        ("ml-1m", "ml-latest-small"),
        ("games", "scientific"),
        ("scientific", "games"),
        ("games", "yelp"),
    ),
    Scale.PAPER: (("amazon-grocery-2018", "amazon-prime-pantry-2018"), ("netflix-2m", "ml-1m")),
}

#: the reading of Emb-KNN that sums up what learns nothing: of all it finds most in the rehearsals of the toy source, where no target is in view. It
#: is one and the same on every pair, where the best of all would be picked by each pair's own test users
UNTRAINED = "Emb-KNN (decay, cosine, half-whitened)"

#: the later version of the paper
NO_REPEATS = Protocol(repeats="removed", history="removed")

#: Figures 2 and 3
SIZES = (2000, 5000, 10_000)

#: the patterns of the case studies; experiments of their own, since each has other test purchases
HABITS = ("habit-again", "habit-flavour", "habit-complement")

#: settings that depend on the size of the data alone: the toy world has 360 items, for which 64 numbers an item are plenty, and
#: histories of 9 on average, of which a TCN with 2 levels sees the last 13
SIZED = {
    Scale.TOY: {"width": 64, "hidden": 128, "levels": 2, "batch_targets": 1024, "training": Training()},
    Scale.SMALL: {"training": Training(precision="auto")},
    Scale.PAPER: {"batch_targets": 4096, "training": Training(precision="auto")},
}


@dataclass(frozen=True)
class PairSpec:
    """What names a pair exactly, small enough to travel to another process."""

    source: str
    target: str
    scale: Scale
    encoder: TextEncoder | HashedWords = field(default_factory=TextEncoder)
    repeats: bool = True  #: False drops repeated purchases, as the later version of the paper does
    structure: float = 1.0  #: the dial of the toy world
    disjoint: bool = True  #: False keeps what the two share
    common: bool = False  #: the target keeps the titles that the source has too and no others, as in section 4.7; the source keeps all
    users: float = 1.0  #: share of the source's users that are kept
    items: float = 1.0  #: share of the source's items that are kept
    shuffled_ties: bool = False  #: purchases of one user at the same time in random order, not in that of the file
    hidden: Literal["items", "kinds"] | None = None  #: a rehearsal: a part of the source, with other users, plays the target


@dataclass(frozen=True)
class Pair:
    """A source to learn from and a target to be judged in, split and with item vectors.

    ``joined``: where the two have common titles alone, the item of the source (code) that each item of the target is.
    """

    spec: PairSpec
    source: Dataset
    target: Dataset
    source_split: Split
    target_split: Split
    joined: np.ndarray | None = None

    @property
    def scale(self) -> Scale:
        return self.spec.scale


@cache
def toy_world(structure: float = 1.0) -> ToyWorld:
    return ToyWorld(ToySettings(structure=structure))


def load(name: str, scale: Scale, structure: float = 1.0) -> Dataset:
    """A data set as the paper prepares it (section 4.1): users with a single interaction removed, items nobody took removed.

    Raises:
        DataError: the data is missing or bad; the message says what to do.
    """
    data = replace(toy_world(structure).dataset(name), name=name) if scale is Scale.TOY else catalogue.load(name)
    return compact(at_least(data, user=2, repeat=False))


def load_pair(source: str, target: str, scale: Scale, **spec) -> Pair:
    """Both data sets, what they share removed from the source, split, with text vectors. ``spec``: further fields of ``PairSpec``."""
    return pair_of(PairSpec(source, target, scale, **spec))


def load_rehearsal(name: str, scale: Scale, hidden: str) -> Pair:
    """Zero-shot transfer rehearsed within one data set, so that settings can be chosen before any target is known.

    Half of its users and items are the source, the others the target. ``hidden="items"``: any items, so the kinds are known;
    ``"kinds"``: whole clusters of texts, so that what the target sells is new.
    """
    return pair_of(PairSpec(name, f"{name}-new-{hidden}", scale, hidden=hidden))


@lru_cache(maxsize=4)  # what a chapter has at hand: near, far, without repeats, without structure
def pair_of(spec: PairSpec) -> Pair:
    if spec.hidden:
        return rehearsal_of(spec)
    return prepared(spec, *(load(name, spec.scale, spec.structure) for name in (spec.source, spec.target)))


def own_pair(source: Dataset, target: Dataset, scale: Scale = Scale.SMALL, **spec) -> Pair:
    """A pair of two data sets of your own, prepared as those of ``load_pair``; for ``Bench``, since no other process could load it by name.

    Args:
        scale: of the settings that ``systems`` takes.
        spec: further fields of ``PairSpec``.

    Raises:
        DataError: nobody in one of them took two items, or nothing is left without what the two share.
    """
    data = (compact(at_least(one, user=2, repeat=False)) for one in (source, target))
    return prepared(PairSpec(source.name, target.name, scale, **spec), *data)


def prepared(spec: PairSpec, source: Dataset, target: Dataset) -> Pair:
    """The two as the spec asks for them, split, with text vectors."""
    if spec.shuffled_ties:
        source, target = shuffle_ties(source), shuffle_ties(target)
    if not spec.repeats:
        source, target = (compact(at_least(without_repeats(data), user=2, repeat=False)) for data in (source, target))
    joined = None
    if spec.common:
        target, joined = with_common_titles(source, target)
    elif spec.disjoint:
        source = compact(at_least(without_shared(source, target, by=("raw", "names"), near=True), user=2, repeat=False))
    if spec.users < 1 or spec.items < 1:
        source = thinned(source, spec.users, spec.items)
    source, target = (encoded(data, spec.encoder) for data in (source, target))
    return Pair(spec, source, target, split_by_user(source, test=0.0), split_by_user(target), joined)


def with_common_titles(source: Dataset, target: Dataset) -> tuple[Dataset, np.ndarray]:
    """The target's items whose title the source has too, and for each of them the source's item (code). Of equal titles the first counts.

    Raises:
        DataError: there are none.
    """
    matched = shared_items(source, target).drop_duplicates("target").drop_duplicates("source").sort_values("target")
    if matched.empty:
        raise DataError(f"{source.name} and {target.name} share no title; the bias study needs items that are in both")
    kept = select_items(target, matched["target"].to_numpy(), f"{len(matched):,} titles that {source.name} has too")
    return at_least(kept, user=2, repeat=False), matched["source"].to_numpy()


def encoded(data: Dataset, encoder: TextEncoder | HashedWords) -> Dataset:
    """The data with a vector for the text of each item."""
    return data.with_features(np.asarray(encoder.encode(data.items[Columns.TEXT].tolist())))


def rehearsal_of(spec: PairSpec) -> Pair:
    data = encoded(load(spec.source, spec.scale, spec.structure), spec.encoder)
    kinds = None
    if spec.hidden == "kinds":
        x = data.features / np.linalg.norm(data.features, axis=1, keepdims=True)
        kinds = KMeans(max(2, data.n_items // 20), n_init=3, random_state=0).fit_predict(x)
    source, target = two_shops(data, kinds)
    target = replace(target, name=spec.target)
    return Pair(spec, source, target, split_by_user(source, test=0.0), split_by_user(target, test=0.9))  # nothing is fitted in the target


def statistics(datasets: Iterable[Dataset]) -> pd.DataFrame:
    """Table 1: interactions, items, users, and their ratios."""
    rows = {}
    for data in datasets:
        rows[data.name] = {
            "interactions": len(data),
            "items": data.n_items,
            "users": data.n_users,
            "a user": len(data) / data.n_users,
            "an item": len(data) / data.n_items,
            "repeats": data.interactions.duplicated([Columns.USER, Columns.ITEM]).mean(),
        }
    return pd.DataFrame(rows).T


# ---------------------------------------------------------------- the systems of Table 2


def paper_settings(scale: Scale, **changes) -> ZESRecSettings:
    """The paper's settings at this scale; ``changes`` name the fields that differ."""
    return ZESRecSettings(**(SIZED[scale] | changes))


def tuned_settings(scale: Scale, **changes) -> ZESRecSettings:
    """The paper's network with what the rehearsal within the toy source chose (see ``rehearsed``).

    Other scales take the same, but a third of the rate, which no rehearsal chose. One within *scientific* came later, and found little to gain.
    """
    rate = 3e-3 if scale is Scale.TOY else 1e-3
    tuned = {"standardise": True, "text_dropout": 0.5, "popularity": 0.5, "training": with_adam(scale, rate)}
    return paper_settings(scale, **(tuned | changes))


def with_adam(scale: Scale, rate: float = 1e-3) -> Training:
    return replace(SIZED[scale]["training"], optimizer="adam", learning_rate=rate)


@dataclass(frozen=True)
class System:
    """A row of the table: what it is called, what it learns from, and how to make it for a seed."""

    name: str
    learns_from: str  # "source", "target" or "nothing"
    make: Callable[[int], Recommender]
    chance: bool = True  # whether seeds differ
    shuffled: bool = False  # scored on target vectors that were dealt out at random
    told: bool = False  # how often users of the target, other than those of the test, take an item again
    few: int | None = None  # learns from random target users with this many interactions, other users with each seed

    @property
    def model(self) -> tuple:
        """Equal for rows that fit the same model."""
        fresh = self.make(0)
        return self.learns_from, self.few, type(fresh).__name__, repr(getattr(fresh, "settings", ""))

    def seeds(self, asked: Iterable[int]) -> list[int]:
        """The seeds to run: one is enough where nothing is left to chance."""
        return list(asked) if self.chance else [0]


def zesrec_row(name: str, settings: ZESRecSettings, learns_from: str = "source", shuffled: bool = False) -> System:
    return System(name, learns_from, lambda seed: ZESRec(seeded(settings, seed)), shuffled=shuffled)


def anchored_row(name: str, settings: AnchoredSettings, **scored: bool) -> System:
    return System(name, "source", lambda seed: Anchored(seeded(settings, seed)), **scored)


def neighbours() -> list[System]:
    """Emb-KNN in four readings (section 4.2 of both versions), and three variants of ours, the strongest untrained ones that we know."""
    half = EmbKNNSettings("decay", "cosine", whiten=0.5)
    readings = {
        "Emb-KNN (mean, inner)": EmbKNNSettings("mean", "inner"),
        "Emb-KNN (mean, cosine)": EmbKNNSettings("mean", "cosine"),
        "Emb-KNN (last, inner)": EmbKNNSettings("last", "inner"),
        "Emb-KNN (last, cosine)": EmbKNNSettings("last", "cosine"),
        "Emb-KNN (decay, cosine, whitened)": EmbKNNSettings("decay", "cosine", whiten=1.0),
        "Emb-KNN (decay, cosine, half-whitened)": half,
    }
    rows = [System(name, "nothing", lambda seed, s=settings: EmbKNN(s), chance=False) for name, settings in readings.items()]
    return [*rows, System("Emb-KNN (decay, cosine, half-whitened, new only)", "nothing", lambda seed: NewOnly(EmbKNN(half)), chance=False)]


def systems(scale: Scale, networks: Iterable[str] = tuple(NETWORKS)) -> list[System]:
    """Every row of Table 2, the controls (shuffled vectors, the recipe with repaired settings), and what we would build today."""
    rows = []
    for network in networks:
        in_domain, zero_shot = NETWORKS[network]
        paper, tuned = paper_settings(scale, users=network), tuned_settings(scale, users=network)
        rows += [
            zesrec_row(in_domain, replace(paper, items="ids"), "target"),
            zesrec_row(f"{in_domain}-Meta", paper, "target"),
            zesrec_row(zero_shot, paper),
            zesrec_row(f"{zero_shot} (shuffled)", paper, shuffled=True),
            zesrec_row(f"{zero_shot} (tuned)", tuned),
            zesrec_row(f"{zero_shot} (tuned, shuffled)", tuned, shuffled=True),
        ]
    rows += [
        anchored_row("Anchored", AnchoredSettings()),
        anchored_row("Anchored (shuffled)", AnchoredSettings(), shuffled=True),
        anchored_row("Anchored (anchors only)", AnchoredSettings(rank=0)),
        System("POP", "target", lambda seed: Popularity(), chance=False),
        *neighbours(),
        System("Random", "nothing", Random),
    ]
    return rows


class Bench:
    """Fits each model once a seed and keeps it, so that rows, figures and case studies of one chapter share their models.

    ``checkpoints``: a folder for what is learned after each epoch, so that a run that was killed goes on from there. It must be of
    this pair and this code alone.
    """

    def __init__(self, pair: Pair, checkpoints: Path | None = None):
        self.pair = pair
        self.checkpoints = checkpoints
        self.models: dict[tuple, tuple[Recommender, float]] = {}

    def trained(self, system: System, seed: int) -> tuple[Recommender, float]:
        """The model on the catalogue that it learned from, and the seconds that its training took."""
        key = (*system.model, seed)
        if key not in self.models:
            fresh = system.make(seed)
            if self.checkpoints and isinstance(fresh, ZESRec | Anchored):
                fresh.checkpoint = self.checkpoints / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.pt"
            began = time.perf_counter()
            if system.learns_from == "source":
                fresh.fit(self.pair.source_split.train, self.pair.source_split.valid)
            elif system.learns_from == "target":
                own = self.pair.target_split
                if system.few:  # a tenth of these users serves for early stopping, as elsewhere: a young shop has no others
                    own = split_by_user(subset_of_users(own.train, system.few, seed), test=0.0, seed=seed)
                fresh.fit(own.train, own.valid)
            else:
                fresh.fit(self.pair.target)
            epochs = sum(row["seconds"] for row in getattr(fresh, "curve", []))  # those before a restart, too
            self.models[key] = fresh, max(epochs, time.perf_counter() - began)
        return self.models[key]

    def fitted(self, system: System, seed: int) -> tuple[Recommender, float]:
        """The model on the target's catalogue, and the seconds that its training took."""
        model, seconds = self.trained(system, seed)
        if system.learns_from == "source" and isinstance(model, ZESRec) and model.settings.items == "ids":
            model = model.on_items(self.pair.joined)
        elif system.learns_from == "source":
            model = model.transfer(self.pair.target.with_shuffled_features(seed) if system.shuffled else self.pair.target)
            model = model.told(self.pair.target_split.train.sequences()) if system.told else model
        return model, seconds

    def ranks(self, system: System, seed: int, protocol: Protocol = Protocol(), fold: Fold | None = None) -> tuple[RankTable, float, dict]:
        """The ranks of the test targets (or of another fold), the seconds of training, and the settings."""
        model, seconds = self.fitted(system, seed)
        table = evaluate(model, self.pair.target_split.test if fold is None else fold, protocol)
        return table, seconds, configuration(model)

    def record(
        self, system: System, seeds: Iterable[int], experiment: str = "zero-shot", protocol: Protocol = Protocol(), fold: Fold | None = None
    ) -> RunRecord:
        """One row over all seeds, in this process. Its code version is ``unknown`` where no commit holds the model, as in a notebook.

        Raises:
            RecordError: as ``configuration``.
        """
        runs = {seed: self.ranks(system, seed, protocol, fold) for seed in system.seeds(seeds)}
        learner = within(self.trained(system, next(iter(runs)))[0])
        return replace(together(experiment, system, runs, self.pair, protocol), code_version=code_version(type(learner)))


def within(model: Recommender) -> Recommender:
    """The model itself, where others are wrapped around it."""
    while isinstance(model, Wrapper):
        model = model.inner
    return model


def configuration(model: Recommender) -> dict:
    """The settings of a model and, where it trained, its losses: ``curve`` holds (training, validation) an epoch.

    Raises:
        RecordError: the model was made with values that its ``settings`` don't tell.
    """
    settings = getattr(model, "settings", None)
    learner = type(within(model))
    unsaid = ", ".join(sorted(inspect.signature(learner).parameters.keys() - {"seed"}))
    if unsaid and not is_dataclass(settings):
        raise RecordError(f"{learner.__name__} takes {unsaid}, which no record could tell; keep what it is made with in its settings, a dataclass")
    settings = as_config(settings) if is_dataclass(settings) else {}
    curve = [(round(row["train"], 4), round(row["valid"], 4)) for row in getattr(model, "curve", [])]
    return settings | ({"curve": curve} if curve else {})


def together(experiment: str, system: System, runs: Mapping[int, tuple[RankTable, float, dict]], pair: Pair, protocol: Protocol) -> RunRecord:
    """The runs of one row, seed by seed, as its record."""
    tables = {seed: table for seed, (table, _, _) in runs.items()}
    took = sum(seconds for _, seconds, _ in runs.values())
    config = next(iter(runs.values()))[2]
    return as_record(experiment, system.name, tables, pair, protocol, config, took, learned=system.learns_from == "source")


def as_record(
    experiment: str,
    method: str,
    tables: Mapping[int, RankTable],
    pair: Pair,
    protocol: Protocol,
    config: dict,
    seconds: float,
    learned: bool = True,
) -> RunRecord:
    """Rank tables, one a seed, as a run record. ``learned``: whether the source is part of its name."""
    titles = {} if pair.joined is None else {"titles": float(len(pair.joined))}
    sums = [protocol.summary(table) | titles for table in tables.values()]
    return record_of(
        tables,
        sums,
        seconds,
        protocol,
        paper=PAPER,
        experiment=experiment,
        source=pair.source.name if learned else None,
        target=pair.target.name,
        method=method,
        scale=pair.scale,
        config=config,
        data_sha256=pair.target_split.sha256,
    )


def rows_side_by_side(
    pair: Pair, seeds: Iterable[int], rows: list[System], experiment: str, protocol: Protocol, checkpoints: Path | None = None
) -> list[RunRecord]:
    """One record a row, in the order of the rows; ``checkpoints`` as for ``Bench``."""
    seeds = list(seeds)
    groups: dict[tuple, list[System]] = {}
    for row in rows:  # rows that differ in how they are scored alone share a model, so they go to the same process
        for seed in row.seeds(seeds):
            groups.setdefault((row.model, seed), []).append(row)
    tasks = [(pair.spec, [row.name for row in group], seed, protocol, checkpoints) for (_, seed), group in groups.items()]
    runs: dict[str, dict[int, tuple]] = {row.name: {} for row in rows}
    for (_, _, seed, *_), found in zip(tasks, side_by_side(ranked, tasks, f"{experiment} {pair.source.name} → {pair.target.name}"), strict=True):
        for name, run in found.items():
            runs[name][seed] = run
    return [together(experiment, row, runs[row.name], pair, protocol) for row in rows]


def ceiling(pair: Pair, experiment: str = "zero-shot", protocol: Protocol = Protocol()) -> list[RunRecord]:
    """The Bayes-optimal row of the toy world; none elsewhere, and none without repeats, since its probabilities are those of whole histories.

    It knows the target alone, so it stands beside the models themselves and not again beside each of their variants.
    """
    whole = pair.spec.repeats and protocol.repeats == "kept"
    if pair.scale is not Scale.TOY or not whole or experiment not in ("zero-shot", "structure-0"):
        return []
    oracle = toy_world(pair.spec.structure).oracle(pair.target.name)
    best = {0: evaluate(oracle, pair.target_split.test, protocol)}
    return [as_record(experiment, "Bayes-optimal", best, pair, protocol, {}, 0.0, learned=False)]


def ranked(
    spec: PairSpec, names: list[str], seed: int, protocol: Protocol, checkpoints: Path | None = None
) -> dict[str, tuple[RankTable, float, dict]]:
    """The runs of some rows that share a model, for one seed; what ``rows_side_by_side`` sends to a process."""
    bench, rows = Bench(pair_of(spec), checkpoints), {row.name: row for rows_of in ROWS.values() for row in rows_of(spec.scale)}
    return {name: bench.ranks(rows[name], seed, protocol) for name in names}


# ---------------------------------------------------------------- Figures 2 and 3


def few_rows(scale: Scale, sizes: Iterable[int] = SIZES, networks: Iterable[str] = tuple(NETWORKS)) -> list[System]:
    """In-domain models on a few target users at a time; judged on the same test users as Table 2."""
    rows = []
    for network, items, size in product(networks, ("ids", "text"), sizes):
        row = zesrec_row(
            f"{NETWORKS[network][0]}{'' if items == 'ids' else '-Meta'}@{size}", paper_settings(scale, users=network, items=items), "target"
        )
        rows.append(replace(row, few=size))
    return rows


# ---------------------------------------------------------------- Figures 4 to 6


@dataclass(frozen=True)
class CaseStudy:
    """A target user and the source user whose vector is nearest, both with five items of history and the sixth."""

    source: Sequences
    target: Sequences
    similarity: float
    rank_source: int
    rank_target: int


def case_studies(model: ZESRec, pair: Pair, source_users: int = 10_000, seed: int = 0) -> tuple[list[CaseStudy], pd.DataFrame]:
    """The paper's procedure (section 4.4): users whose sixth item is predicted from the first five, aligned by their vectors.

    The paper keeps users with "at least 5" interactions, but a sixth item must exist, so we ask for 6. "Correctly predicted"
    is rank 1; where that leaves nobody on a side, rank 5 and then 20. Ties count against the model, so that equal scores for all
    items are no success. Likeness is the cosine of user vectors.

    Args:
        model: fitted on the source.
        source_users: how many random source users take part.

    Returns:
        the studies, the most alike first, and how many users each step left (columns ``source``, ``target``).
    """
    sides = {}
    counts: dict[str, dict[str, int]] = {}
    rng = np.random.default_rng(seed)
    for side, data, bound in (
        ("source", pair.source, model.transfer(pair.source)),
        ("target", pair.target_split.test.data, model.transfer(pair.target)),
    ):
        sequences = data.sequences()
        drawn = np.arange(len(sequences))
        if side == "source" and len(drawn) > source_users:
            drawn = np.sort(rng.choice(len(drawn), source_users, replace=False))
        long = sequences.users[drawn[sequences.lengths[drawn] >= 6]]
        first_six = data.where(np.isin(data.interactions[Columns.USER], long) & (sequences.positions < 6))
        counts[side] = {"users": len(sequences), "drawn": len(drawn), "six or more items": len(long)}
        fold = Fold(first_six, first_six.sequences().positions == 5)
        if len(long):
            table, sixth = rank_targets(bound, fold), np.flatnonzero(fold.targets)
            ranks = 1 + table.greater + table.ties
            vectors = bound.user_vectors(fold.sequences)[torch.as_tensor(sixth + np.arange(len(sixth)))].cpu()  # after five items
        else:
            ranks, vectors = np.zeros(0, np.int32), torch.zeros(0, 1)
        counts[side] |= {f"sixth item in the top {k}": (ranks <= k).sum() for k in (1, 5, 20)}
        sides[side] = fold.sequences, torch.nn.functional.normalize(vectors, dim=1), ranks
    top = next((k for k in (1, 5, 20) if all((ranks <= k).any() for _, _, ranks in sides.values())), None)
    if top is None:
        return [], pd.DataFrame(counts)
    (source, u_source, r_source), (target, u_target, r_target) = sides["source"], sides["target"]
    keep_source, keep_target = np.flatnonzero(r_source <= top), np.flatnonzero(r_target <= top)
    likeness = u_target[keep_target] @ u_source[keep_source].T
    best, at = likeness.max(1)
    studies = []
    for t, b, a in zip(keep_target, best.tolist(), keep_source[at.numpy()], strict=True):
        studies.append(CaseStudy(source.take(np.array([a])), target.take(np.array([t])), b, int(r_source[a]), int(r_target[t])))
    return sorted(studies, key=lambda s: -s.similarity), pd.DataFrame(counts)


def habit_records(bench: Bench, rows: Iterable[System], seeds: Sequence[int]) -> list[RunRecord]:
    """The three patterns of the case studies as numbers: the test purchases that only one habit of the toy world explains."""
    pair, rows, world = bench.pair, list(rows), toy_world(bench.pair.spec.structure)
    test = pair.target_split.test
    codes = pd.Index(world.dataset(pair.target.name).items[Columns.RAW]).get_indexer(pair.target.items[Columns.RAW])
    explained = {name: explained_by(table[np.ix_(codes, codes)], test) for name, table in world.relations(pair.target.name).items()}
    records = []
    for name, mine in explained.items():
        alone = mine & ~np.any([other for key, other in explained.items() if key != name], axis=0)
        fold = Fold(test.data, test.targets & alone)
        records += [bench.record(row, seeds, f"habit-{name}", fold=fold) for row in rows]
    return records


def with_habits(scale: Scale) -> list[System]:
    """The rows that the case studies compare."""
    wanted = {"POP", "Random", "Anchored", *(row.name for row in neighbours())}
    wanted |= {"ZESRec-H", "ZESRec-H (shuffled)", "ZESRec-H (tuned)", "ZESRec-H (tuned, shuffled)"}
    return [s for s in systems(scale, ("hrnn",)) if s.name in wanted]


def explained_by(relation: np.ndarray, fold: Fold) -> np.ndarray:
    """(N,) whether some earlier item of the history leads to this one under an (I, I) relation."""
    sequences = fold.sequences
    found, positions = np.zeros(len(sequences.items), bool), sequences.positions
    for back in range(1, int(sequences.lengths.max(initial=1))):
        at = np.flatnonzero(positions >= back)
        found[at] |= relation[sequences.items[at - back], sequences.items[at]]
    return found


# ---------------------------------------------------------------- Table 3


def bias_rows(scale: Scale) -> list[System]:
    """The data-set-bias study (section 4.7), on a pair with common titles: what carries texts, and an ID model whose ids cross over.

    Every row is ranked on the common items alone. (The paper's rows for the oracle and for chance repeat Table 2, whose
    catalogue is larger; on 2,042 items chance has a recall of 0.0098, not 0.006.)
    """
    asked = ("HRNN", "ZESRec-H", "ZESRec-H (tuned)", "POP", "Random", *(row.name for row in neighbours()))
    joined = zesrec_row("HRNN (Join)", paper_settings(scale, users="hrnn", items="ids"))
    return [*(row for row in systems(scale, ("hrnn",)) if row.name in asked), joined]


# ---------------------------------------------------------------- maps and deviations


def neighbours_kept(model: ZESRec, data: Dataset, k: int = 10) -> float:
    """How much of text space a network leaves in place: the share of each item's ``k`` nearest texts that are still among the ``k``
    nearest by the vectors that it learned, by cosine, averaged over the items of ``data``.
    """
    nearest = []
    for vectors in (torch.as_tensor(data.features, dtype=torch.float32), model.transfer(data).item_vectors().cpu()):
        unit = torch.nn.functional.normalize(vectors, dim=1)
        nearest.append((unit @ unit.T).fill_diagonal_(-2.0).topk(k).indices)
    both = torch.cat(nearest, dim=1).sort(dim=1).values
    return float((both[:, 1:] == both[:, :-1]).sum(1).float().mean() / k)


def neighbours_in(model: ZESRec, pair: Pair) -> RunRecord:
    """Emb-KNN (mean, cosine) in the target among the vectors that a network learned for items, in place of their texts': what these are worth
    without the network's reading of histories. Not for the records; its seed is called 0.
    """
    vectors = model.transfer(pair.target).item_vectors().cpu().numpy()
    neighbour = EmbKNN(EmbKNNSettings("mean", "cosine")).fit(pair.target.with_features(vectors))
    return as_record("spaces", "Emb-KNN (learned)", {0: evaluate(neighbour, pair.target_split.test, Protocol())}, pair, Protocol(), {}, 0.0)


def item_map(model: ZESRec, pair: Pair, method: str, each: int = 500, seed: int = 0) -> pd.DataFrame:
    """Two dimensions of the model's item vectors, source and target on one map.

    Args:
        method: ``t-SNE`` or ``UMAP``.
        each: at most this many random items of each domain.

    Returns:
        columns ``x``, ``y``, ``domain``, ``text``, and ``item`` (the code in its domain).
    """
    rng, parts, vectors = np.random.default_rng(seed), [], []
    for data in (pair.source, pair.target):
        chosen = np.sort(rng.choice(data.n_items, min(each, data.n_items), replace=False))
        vectors.append(model.transfer(data).item_vectors()[torch.as_tensor(chosen)].cpu().numpy())
        parts.append(pd.DataFrame({"domain": data.name, "text": data.items[Columns.TEXT].to_numpy()[chosen], "item": chosen}))
    frame, z = pd.concat(parts, ignore_index=True), np.concatenate(vectors)
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    if method == "t-SNE":
        from sklearn.manifold import TSNE

        points = TSNE(init="pca", metric="cosine", perplexity=min(30, len(z) / 4), random_state=seed).fit_transform(z)
    elif method == "UMAP":
        from umap import UMAP

        points = UMAP(metric="cosine", random_state=seed, n_jobs=1).fit_transform(z)
    else:
        raise ValueError(f"method is {method!r}; expected 't-SNE' or 'UMAP'")
    return frame.assign(x=points[:, 0], y=points[:, 1])


def deviation_settings(scale: Scale) -> dict[str, tuple[str, dict]]:
    """Id in the deviation register -> what is changed in the paper's recipe, in words and as settings."""
    adam, training = with_adam(scale), paper_settings(scale).training
    return {
        "zes-9": ("no non-linearity in the item MLP", {"nonlinearity": "none"}),
        "zes-10": ("text vectors standardised", {"standardise": True}),
        "zes-11": ("Adam at 0.001", {"training": adam}),
        "zes-12": ("standardised, and Adam at 0.001", {"standardise": True, "training": adam}),
        "zes-13": ("hierarchical form: item offsets, λ = 10", {"item_offset": 10.0}),
        "zes-14": ("hierarchical form: user offsets, λ = 10", {"user_offset": 10.0}),
        "zes-17": ("Adagrad's sums begin at 0.01", {"training": replace(training, accumulator=0.01)}),
        "zes-18": ("text dropout of 0.5", {"text_dropout": 0.5}),
        "zes-19": ("half of the log popularity left behind", {"popularity": 0.5}),
        "zes-27": ("a session ends after half an hour", {"users": "hrnn", "session_gap": 1800.0}),
        "zes-28": ("no sessions, only pauses", {"users": "hrnn", "session_gap": None}),
        "zes-29": ("item MLP begins orthogonal", {"orthogonal": True}),
        "zes-30": ("text vectors centred", {"centre": True}),
        "zes-31": ("centred, and Adam at 0.001", {"centre": True, "training": adam}),
    }


def deviating(scale: Scale) -> list[System]:
    """The paper's recipe with one choice at a time changed: of ZESRec-G, and of ZESRec-H where a choice is about sessions."""
    changed = {f"{NETWORKS[changes.get('users', 'gru')][1]} ({key})": changes for key, (_, changes) in deviation_settings(scale).items()}
    return [zesrec_row(method, paper_settings(scale, **changes)) for method, changes in changed.items()]


#: λ of the later version's offsets, beside the 10 of zes-13 and zes-14
PENALTIES = (100.0, 1000.0, 10_000.0)


def offset_rows(scale: Scale) -> list[System]:
    """ZESRec-G in the later version's hierarchical form, its offsets held back by other λ."""
    rows = [(side, penalty) for side in ("item", "user") for penalty in PENALTIES]
    return [zesrec_row(f"ZESRec-G ({side} offsets, λ = {penalty:g})", paper_settings(scale, **{f"{side}_offset": penalty})) for side, penalty in rows]


#: experiment -> what of the source, or of the text encoder, it changes in ``PairSpec``
INGREDIENTS = {
    "users-25": {"users": 0.25},
    "users-50": {"users": 0.5},
    "items-25": {"items": 0.25},
    "items-50": {"items": 0.5},
    "cls": {"encoder": TextEncoder(pooling="cls")},
    "words": {"encoder": HashedWords()},
}
#: experiment -> what it changes in ``PairSpec``; of all others nothing
CHANGES = {
    "zero-shot-no-repeats": {"repeats": False},
    "structure-0": {"structure": 0.0},
    "shuffled-ties": {"shuffled_ties": True},
    "dataset-bias": {"common": True},
    **INGREDIENTS,
}
#: at most, where the paper has 20
EPOCHS = (5, 10, 40)


def ingredient_rows(scale: Scale) -> list[System]:
    """The rows that show what a source must have."""
    wanted = {"ZESRec-G", "ZESRec-G (tuned)", "Anchored", "Emb-KNN (mean, cosine)"}
    return [s for s in systems(scale, ("gru",)) if s.name in wanted]


def epoch_rows(scale: Scale) -> list[System]:
    """ZESRec-G with other numbers of epochs."""
    rows = []
    for epochs in EPOCHS:
        for name, settings in (("ZESRec-G", paper_settings(scale)), ("ZESRec-G (tuned)", tuned_settings(scale))):
            rows.append(zesrec_row(f"{name}, {epochs} epochs", replace(settings, training=replace(settings.training, epochs=epochs))))
    return rows


def told_rows(scale: Scale) -> list[System]:
    """What we would build today, where a source without repeats can't say how often people of the target take an item again."""
    return [anchored_row("Anchored (anchors only, told)", AnchoredSettings(rank=0), told=True)]


def tuned_at_home(scale: Scale) -> list[System]:
    """The tuned settings without the journey: each network learns in the target, by ids or by texts; by texts from a part of it, too."""
    ids = [zesrec_row(f"{name} (tuned)", tuned_settings(scale, users=users, items="ids"), "target") for users, (name, _) in NETWORKS.items()]
    texts = [zesrec_row(f"{name}-Meta (tuned)", tuned_settings(scale, users=users), "target") for users, (name, _) in NETWORKS.items()]
    return [*ids, *texts, *(replace(row, name=f"{row.name}@{size}", few=size) for row in texts for size in SIZES)]


def settled_rows(scale: Scale) -> list[System]:
    """ZESRec that gets used to the target's catalogue before it recommends, with the paper's settings and with tuned ones."""
    forms = (("settled", paper_settings), ("tuned, settled", tuned_settings))
    return [zesrec_row(f"{name} ({words})", of(scale, users=users, settled=True)) for users, (_, name) in NETWORKS.items() for words, of in forms]


def rehearsed(scale: Scale) -> list[System]:
    """What was tried when settings were chosen: the choice itself, and one step away from it in each direction.

    Judged in ``load_rehearsal`` alone, where nothing of any target is known.
    """
    rate = tuned_settings(scale).training.learning_rate
    steps = {
        "ZESRec-G (tuned)": {},
        "ZESRec-G (tuned, raw vectors)": {"standardise": False},
        "ZESRec-G (tuned, no text dropout)": {"text_dropout": 0.0},
        "ZESRec-G (tuned, γ = 0)": {"popularity": 0.0},
        "ZESRec-G (tuned, γ = 1)": {"popularity": 1.0},
        "ZESRec-G (tuned, dropout 0.4)": {"dropout": 0.4},
        "ZESRec-G (tuned, a third of the rate)": {"training": with_adam(scale, rate / 3)},
        "ZESRec-G (tuned, three times the rate)": {"training": with_adam(scale, rate * 3)},
        "ZESRec-G (tuned, no non-linearity)": {"nonlinearity": "none"},
    }
    anchors = {
        "Anchored": {},
        "Anchored (whitening 0)": {"whitening": 0.0},
        "Anchored (whitening 1)": {"whitening": 1.0},
        "Anchored (sharpness 2)": {"sharpness": 2.0},
        "Anchored (anchors only)": {"rank": 0},
    }
    return [
        zesrec_row("ZESRec-G", paper_settings(scale)),
        *(zesrec_row(name, tuned_settings(scale, **changes)) for name, changes in steps.items()),
        *(anchored_row(name, AnchoredSettings(**changes)) for name, changes in anchors.items()),
        System("POP", "target", lambda seed: Popularity(), chance=False),
        *neighbours(),
    ]


#: experiment -> its rows
ROWS: dict[str, Callable[[Scale], list[System]]] = {
    "zero-shot": systems,
    "zero-shot-no-repeats": systems,
    "incremental": few_rows,
    "dataset-bias": bias_rows,
    "deviations": deviating,
    "offsets": offset_rows,
    "rehearsal": rehearsed,
    "structure-0": systems,
    "habits": with_habits,
    "shuffled-ties": systems,
    # what learns in the target, where there is a graphics card, to be held against what a processor found
    "on-a-card": lambda scale: [row for row in systems(scale) if row.learns_from == "target" and row.chance],
    "epochs": epoch_rows,
    "told": told_rows,
    "at-home": tuned_at_home,
    "settled": settled_rows,
    **dict.fromkeys(INGREDIENTS, ingredient_rows),
}


# ---------------------------------------------------------------- what the chapter shows


def results(experiment: str | tuple[str, ...], pair: Pair, run: Callable[[list[int]], list[RunRecord]]) -> list[RunRecord]:
    """What a page shows of an experiment on this pair, in-domain rows included; see ``seeds.shown``.

    Args:
        experiment: its name, or several names where one run gives the records of several.
        run: seeds -> records, such as ``lambda seeds: habit_records(bench, rows, seeds)``.
    """
    names = (experiment,) if isinstance(experiment, str) else experiment
    return shown([r for name in names for r in recorded(pair.scale, pair.source.name, pair.target.name, name)], pair.scale, run)


def from_records(experiment: str, pair: Pair, rows: Iterable[System], protocol: Protocol = Protocol(), live: Iterable[str] = ()) -> list[RunRecord]:
    """Rows of an experiment without training anything, where the records hold all their seeds on this very data with these very settings.

    At toy scale the other rows run now, with all seeds, and of the rows named in ``live`` seed 0 runs now in any case; at a larger scale
    what was not recorded is left out. No record is of a pair whose source, or whose text encoder, is other than the experiment's own.
    """
    own = PairSpec(pair.spec.source, pair.spec.target, pair.scale, hidden=pair.spec.hidden, **CHANGES.get(experiment, {}))
    there = recorded(pair.scale, pair.source.name, pair.target.name, experiment) if pair.spec == own else []
    rows, known = list(rows), {(experiment, r.method): r for r in there}
    keys = [(experiment, row.name) for row in rows]
    if pair.scale is not Scale.TOY:
        return [known[key] for key in keys if key in known]

    def expected(row: System) -> tuple[list[int], dict[Key, str]]:
        stamp = stamp_of(pair.target_split.sha256, protocol.settings(), configuration(row.make(0)))
        return row.seeds(SEEDS), {(experiment, row.name): stamp}

    found = complete(known, rows, expected, lambda seeds, some: rows_side_by_side(pair, seeds, some, experiment, protocol), SEEDS, live)
    return [found[key] for key in keys]


#: what ``cost`` varies; the first value of each stands while the others vary
COSTS = {"users": (1000, 2000, 4000), "items": (500, 2000, 8000), "purchases a user": (10, 20, 40)}


def cost(points: Mapping[str, tuple[int, ...]] = COSTS, seed: int = 0) -> pd.DataFrame:
    """Seconds that an epoch of ZESRec-G takes at toy width on random purchases, one size varied at a time.

    Returns:
        columns ``what`` (the keys of ``points``), ``value``, ``seconds``.
    """
    first = {what: values[0] for what, values in points.items()}
    settings, rng, rows = paper_settings(Scale.TOY), np.random.default_rng(seed), []
    for what, values in points.items():
        for value in values:
            users, items, length = (first | {what: value}).values()
            bought = [[f"{u}", f"{i}", float(t)] for u in range(users) for t, i in enumerate(rng.integers(items, size=length))]
            frame = pd.DataFrame(bought, columns=[Columns.USER, Columns.ITEM, Columns.TIME])
            goods = pd.DataFrame({Columns.RAW: [f"{i}" for i in range(items)], Columns.TEXT: ""})
            data = Dataset.from_raw("random", frame, goods).with_features(rng.normal(size=(items, 384)).astype(np.float32))
            model = ZESRec(replace(settings, training=replace(settings.training, epochs=3, patience=None))).fit(data)
            rows.append((what, value, min(epoch["seconds"] for epoch in model.curve[1:])))  # the first epoch warms up; others may share the machine
    return pd.DataFrame(rows, columns=["what", "value", "seconds"])


# ---------------------------------------------------------------- the verdict at the top


def in_short(scale: Scale) -> str:
    """What the records say of the paper, in a few sentences; the numbers are looked up, never written."""
    sentences = []
    toy = {r.method: r for r in recorded(Scale.TOY, *PAIRS[Scale.TOY][0])}
    if {"Bayes-optimal", "POP", UNTRAINED, "ZESRec-G", "ZESRec-G (tuned)"} <= toy.keys():
        values = {metric: {name: r.mean(metric) for name, r in toy.items()} for metric in ("Recall@20", "MRR@20")}
        closed, higher_up = (
            {name: (value - named["POP"]) / (named["Bayes-optimal"] - named["POP"]) for name, value in named.items()} for named in values.values()
        )
        paper, tuned = (
            max((name for name in closed if wanted(name)), key=closed.get)
            for wanted in (
                lambda name: name.startswith("ZESRec") and "(" not in name,
                lambda name: name.startswith("ZESRec") and name.endswith("(tuned)"),
            )
        )
        sentences.append(
            f"In the toy world, where the best possible score is known, {paper} with the paper's settings closes {closed[paper]:.0%} of the way from"
            f" popularity to that score in Recall@20, {tuned} {closed[tuned]:.0%}, and a neighbour in text space that learns nothing"
            f" {closed[UNTRAINED]:.0%}; in MRR@20, which asks for the very top, {tuned} closes {higher_up[tuned]:.0%}, the neighbour"
            f" {higher_up[UNTRAINED]:.0%}."
        )
    rivals = {"popularity": "POP", "the untrained neighbour": UNTRAINED}
    wins, known = dict.fromkeys(rivals, 0), 0
    for pair in PAIRS[Scale.SMALL]:
        rows = {r.method: r.mean("Recall@20") for r in recorded(Scale.SMALL, *pair)}
        ours = [value for name, value in rows.items() if name.startswith("ZESRec") and "shuffled" not in name]
        if ours and rows.keys() >= set(rivals.values()):
            known += 1
            for rival, name in rivals.items():
                wins[rival] += max(ours) > rows[name]
    if known:
        often = " and ".join(f"{rival} on {won or 'none'}" for rival, won in wins.items())
        pairs_of = f"the {known} pairs" if known > 1 else "the one pair"
        sentences.append(f"On {pairs_of} of public data on which ZESRec itself was run, its best row beats {often}.")
    kept = []
    for source, target in PAIRS[Scale.SMALL]:
        rows = {r.method: r.mean("Recall@20") for experiment in ("zero-shot", "at-home") for r in recorded(Scale.SMALL, source, target, experiment)}
        homes = ((rows.get(f"{name}-Meta (tuned)"), rows.get(f"{abroad} (tuned)"), rows.get(UNTRAINED)) for name, abroad in NETWORKS.values())
        kept += [(home > untrained, abroad / home) for home, abroad, untrained in homes if home and abroad and untrained]
    if kept:
        ahead, least, most = sum(won for won, _ in kept), min(share for _, share in kept), max(share for _, share in kept)
        sentences.append(
            f"With tuned settings and taught in the target itself, its network beats that neighbour in {ahead} of {len(kept)} runs; taught in another"
            f" shop, it keeps {least:.0%} to {most:.0%} of its Recall@20."
        )
    return " ".join([*sentences, claims.in_short(PAPER, scale)])


def recorded(scale: Scale, source: str, target: str, experiment: str = "zero-shot") -> list[RunRecord]:
    """The records of an experiment on one pair, in-domain rows included."""
    found = find(paper=PAPER, experiment=experiment, target=target, scale=scale)
    return [r for r in found if r.source in (source, None)]
