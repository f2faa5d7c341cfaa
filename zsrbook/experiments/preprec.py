"""What came after PreRec: PrepRec (Wang, Rathi and Sundaram 2024, arXiv 2401.01497) at home and in a shop that it has never seen.

PrepRec reads how popular items are becoming. Whatever it finds must therefore be held against what popularity alone finds when it, too, may
look at the clock: counts up to the moment of prediction, and counts of the last days. A trained PrepRec that is given no histories is the
other control: what is left of it is a curve of popularity, the same for everybody at that moment.

The newest item of each user is judged, in the full catalogue without what the user has. Popularity so far, recent popularity and PrepRec read
interactions strictly before the moment of each prediction; ``MostPop`` counts the training part of leave-one-out and so knows of the future.
The records are experiment ``successor`` of the PreRec chapter; those of PrepRec with one of our decisions undone are ``successor-deviations``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from zsrbook.data.dataset import Columns, DataError, Sequences
from zsrbook.data.splits import Split, at_least, compact, split_leave_one_out, subset_of_users, without_repeats
from zsrbook.evaluation.intervals import difference
from zsrbook.evaluation.metrics import average, sampled
from zsrbook.evaluation.protocol import Protocol, evaluate
from zsrbook.experiments import prerec
from zsrbook.experiments.seeds import as_config, record_of, seeded, shown
from zsrbook.models.base import Recommender, Wrapper
from zsrbook.models.baselines import Popularity, RecentPopularity, RecentPopularitySettings
from zsrbook.models.preprec import FULL, AsCode, PopularityClock, PrepRec, PrepRecSettings
from zsrbook.records import RunRecord, find
from zsrbook.scale import Scale
from zsrbook.training import Training

PAPER, EXPERIMENT, DEVIATIONS = prerec.PAPER, "successor", "successor-deviations"
#: at toy scale a market in which popularity does not move, so that nothing is to be had from watching it
DATA = {Scale.TOY: ("grocery",), Scale.SMALL: ("ml-100k", "amazon-musical-instruments-2014", "ml-latest-small"), Scale.PAPER: ()}
#: (source, target), of other goods
PAIRS = {
    Scale.TOY: (),
    Scale.SMALL: (
        ("ml-100k", "amazon-musical-instruments-2014"),
        ("ml-latest-small", "amazon-musical-instruments-2014"),
        ("amazon-musical-instruments-2014", "ml-100k"),
        ("amazon-musical-instruments-2014", "ml-latest-small"),
    ),
    Scale.PAPER: (),
}
#: interactions of random users that the toy market is cut down to, so that a page can train on it
TOY_INTERACTIONS = 12_000
#: days of recent popularity
WINDOWS = (30.0, 90.0, 365.0)
RULES = Protocol(positions="last", history="removed")
METRICS = ("NDCG@20", "Recall@20", "MRR@20", "NDCG@10", "Recall@10")
SHOWN = METRICS[:2]

TUNED, EMPTY = "Recent popularity (tuned)", "PrepRec (empty histories)"
BEST, HOME = "best window in hindsight", "PrepRec at home"
#: what a PrepRec is held against, and how a sentence says so
YARDSTICKS = {
    "Popularity so far": "popularity so far",
    TUNED: "recent popularity with the window that validation chose",
    BEST: "recent popularity with the window that is best in hindsight",
    EMPTY: "itself without histories",
    HOME: "the PrepRec that was trained there",
}


def _adam(**changes: int) -> Training:
    return Training(optimizer="adam", learning_rate=1e-3, **changes)


#: by scale; the code's, but that they stop earlier (it waits for 20 epochs)
SETTINGS = {
    Scale.TOY: PrepRecSettings(max_length=50, training=_adam(epochs=20, patience=3)),
    Scale.SMALL: PrepRecSettings(training=_adam(epochs=60, patience=8)),
    Scale.PAPER: PrepRecSettings(),
}


# ---------------------------------------------------------------- data


class Spec(NamedTuple):
    """Names the data exactly."""

    name: str
    scale: Scale


@lru_cache(maxsize=8)
def load(spec: Spec) -> Split:
    """Five or more interactions a user and an item; the newest of each user for the test, the one before it for validation.

    Raises:
        DataError: the data is missing or bad; the message says what to do.
    """
    data = prerec.raw(prerec.Spec(*spec))
    if spec.scale is Scale.TOY and len(data) > TOY_INTERACTIONS:
        data = subset_of_users(data, TOY_INTERACTIONS, seed=0)
    return split_leave_one_out(compact(at_least(without_repeats(data), user=5, item=5)))


def tasks(data: str, source: str, scale: Scale) -> list[tuple[Spec, Spec | None]]:
    """(target, source) of what ``run preprec`` is asked for; source None where a model stays at home.

    Raises:
        DataError: source and target are one, or the chapter has nothing of the kind at this scale.
    """
    if source and source == data:
        raise DataError(f"{source} is source and target of a transfer; leave --source out to stay at home")
    if data != "all":
        return [(Spec(data, scale), Spec(source, scale) if source else None)]
    homes = [] if source else [(Spec(name, scale), None) for name in DATA[scale]]
    found = [*homes, *((Spec(to, scale), Spec(of, scale)) for of, to in PAIRS[scale] if source in ("", of))]
    if not found:
        raise DataError(f"at {scale} scale the chapter has no {f'transfer from {source}' if source else 'data'}; name a data set in place of all")
    return found


# ---------------------------------------------------------------- rows


class NoHistory(Wrapper):
    """A trained PrepRec that is asked as if each user were new; only the moment is passed on."""

    def scores(self, histories: Sequences) -> Tensor:
        empty = Sequences.of([[]] * len(histories))
        return self.inner.scores(replace(empty, now=histories.moments(self.inner.clock.end)))


@dataclass(frozen=True)
class System:
    """A row.

    Attributes:
        serve: (target, source, seed) -> a model that is ready to rank the test items of the target.
        config: the settings as a record keeps them.
        trained: whether weights are learned, in the source if there is one; if not, the row belongs to the target alone.
        chance: whether seeds differ.
        experiment: that its records belong to.
        settings: of its training; None where they are those of the scale, or nothing is trained.
    """

    name: str
    serve: Callable[[Spec, Spec | None, int], Recommender]
    config: dict = field(default_factory=dict)
    trained: bool = False
    chance: bool = False
    experiment: str = EXPERIMENT
    settings: PrepRecSettings | None = None


@lru_cache(maxsize=32)
def fitted(spec: Spec, seed: int, settings: PrepRecSettings | None) -> tuple[PrepRec, float]:
    """PrepRec as trained on a data set, and the seconds that it took; every target is served by the same weights. None: with ``SETTINGS``."""
    began, split = time.perf_counter(), load(spec)
    model = PrepRec(seeded(settings or SETTINGS[spec.scale], seed)).fit(split.train, split.valid)
    return model, time.perf_counter() - began


def preprec(target: Spec, source: Spec | None, seed: int, settings: PrepRecSettings | None = None) -> PrepRec:
    """No weight moves here; what is read of the target are its counts before each moment."""
    return fitted(source or target, seed, settings)[0].transfer(load(target).test.data)


def counting_training(target: Spec, source: Spec | None, seed: int) -> PrepRec:
    """The same weights, with the target's popularity as its training interactions alone tell it."""
    return preprec(target, source, seed).transfer(load(target).train)


def without_history(target: Spec, source: Spec | None, seed: int) -> NoHistory:
    return NoHistory(preprec(target, source, seed))


def untrained(target: Spec, source: Spec | None, seed: int) -> PrepRec:
    """Weights as they are drawn."""
    model = PrepRec(seeded(SETTINGS[target.scale], seed))
    model.build()
    model.bind(load(target).test.data)
    return model


def most_popular(target: Spec, source: Spec | None, seed: int) -> Popularity:
    return Popularity().fit(load(target).train)


def recent(target: Spec, source: Spec | None, seed: int, days: float) -> RecentPopularity:
    return RecentPopularity(RecentPopularitySettings(days)).fit(load(target).test.data)


def tuned(target: Spec, source: Spec | None, seed: int) -> RecentPopularity:
    """The window that ranks the validation items best."""
    valid = load(target).valid

    def worth(days: float) -> float:
        table = evaluate(RecentPopularity(RecentPopularitySettings(days)).fit(valid.data), valid, RULES)
        return RULES.summary(table, ("NDCG@20",))["NDCG@20"]

    return recent(target, source, seed, max(WINDOWS, key=worth))


def systems(spec: Spec, source: Spec | None = None) -> list[System]:
    """The rows of a data set, or of the transfer into it: those that learned elsewhere."""
    settings = as_config(SETTINGS[spec.scale])
    rows = [
        System("MostPop", most_popular),
        System("Popularity so far", partial(recent, days=math.inf)),
        System(TUNED, tuned, {"windows": list(WINDOWS)}),
        *(System(f"Recent popularity ({days:g} days)", partial(recent, days=days), {"days": days}) for days in WINDOWS),
        System("PrepRec", preprec, settings, trained=True, chance=True),
        System(EMPTY, without_history, settings, trained=True, chance=True),
        System("PrepRec (untrained)", untrained, settings, chance=True),
    ]
    return [row for row in rows if row.trained or source is None]


#: the decision of ``prerec-p10``, which is no setting of the model
COUNTS = "prerec-p10"
#: what is changed in the rows of ``successor-deviations``, in words; ``prerec-p9`` is about what is judged, see ``among_sampled``
WORDS = {
    "prerec-p1": "coarse percentiles of candidates count their whole running window, the future included",
    "prerec-p2": "in training, the fine window by the number of the coarse one",
    "prerec-p3": "windows of 30 and 6 days",
    "prerec-p4": "relative time by argsort over all gaps",
    "prerec-p5": "positions counted from the newest item",
    "prerec-p6": "no start vector, and the first item no target",
    "prerec-p7": "training on the newest items of a user alone",
    "prerec-p8": "gradients not clipped",
    COUNTS: "popularity in the target by its training part alone",
}


def deviation_settings(scale: Scale) -> dict[str, tuple[str, PrepRecSettings]]:
    """Id in the register of deviations -> what is decided otherwise, in words and as settings; those of ``prerec-p10`` are as they are."""
    base = SETTINGS[scale]
    undone = {
        "prerec-p1": {"as_code": AsCode(running=True)},
        "prerec-p2": {"as_code": AsCode(slip=True)},
        "prerec-p3": {"coarse_days": 30.0, "fine_days": 6.0},
        "prerec-p4": {"as_code": AsCode(all_gaps=True)},
        "prerec-p5": {"as_code": AsCode(from_newest=True)},
        "prerec-p6": {"as_code": AsCode(no_start=True)},
        "prerec-p7": {"as_code": AsCode(newest=True)},
        "prerec-p8": {"training": replace(base.training, clip=None)},
    }
    return {key: (words, replace(base, **undone.get(key, {}))) for key, words in WORDS.items()}


def deviating(spec: Spec, source: Spec | None = None) -> list[System]:
    """PrepRec with one decision at a time undone."""
    rows = []
    for key, (_, settings) in deviation_settings(spec.scale).items():
        about = {"trained": True, "chance": True, "experiment": DEVIATIONS}
        if key == COUNTS:
            rows.append(System(f"PrepRec ({key})", counting_training, as_config(settings) | {"counted": "training part"}, **about))
        else:
            rows.append(System(f"PrepRec ({key})", partial(preprec, settings=settings), as_config(settings), settings=settings, **about))
    return rows


# ---------------------------------------------------------------- runs and records


def scored(spec: Spec, row: System, seed: int, source: Spec | None = None) -> prerec.Run:
    """Where the newest items stand, by one row on one seed."""
    began = time.perf_counter()
    model = row.serve(spec, source, seed)
    seconds = fitted(source or spec, seed, row.settings)[1] if row.trained else time.perf_counter() - began
    beside = {"days": model.settings.days} if row.name == TUNED else {}
    return prerec.Run(evaluate(model, load(spec).test, RULES), seconds, beside)


def run(spec: Spec, seeds: Sequence[int], rows: Iterable[System], source: Spec | None = None) -> list[RunRecord]:
    """The records of rows, in their order; ``minutes`` are those of training."""
    found = []
    for row in rows:
        runs = {seed: scored(spec, row, seed, source) for seed in (seeds if row.chance else seeds[:1])}
        sums = [RULES.summary(one.table, METRICS) | one.beside for one in runs.values()]
        record = record_of(
            {seed: one.table for seed, one in runs.items()},
            sums,
            sum(one.seconds for one in runs.values()),
            RULES,
            paper=PAPER,
            experiment=row.experiment,
            source=source and source.name,
            target=spec.name,
            method=row.name,
            scale=spec.scale,
            config=row.config,
            data_sha256=load(spec).sha256,
        )
        found.append(record)
    return found


# ---------------------------------------------------------------- what the chapter makes of the records


def results(spec: Spec, source: Spec | None = None) -> list[RunRecord]:
    """What a page shows of a data set, or of the transfer into it, in the order of the rows: at toy scale seed 0 runs now, the rest was recorded."""
    rows = systems(spec, source)
    recorded = find(paper=PAPER, experiment=EXPERIMENT, target=spec.name, scale=spec.scale)
    recorded = [r for r in recorded if r.source == (source and source.name)]
    named = {r.method: r for r in shown(recorded, spec.scale, lambda seeds: run(spec, seeds, rows, source))}
    return [named[row.name] for row in rows if row.name in named]


def judged_on(spec: Spec) -> list[RunRecord]:
    """All that was judged on a data set: its own rows, then models that come from elsewhere, with their source in their name."""
    found = results(spec)
    for of, to in PAIRS[spec.scale]:
        if to == spec.name:
            found += [replace(r, method=f"{r.method} from {of}") for r in results(spec, Spec(of, spec.scale))]
    return found


def contrasts(records: Iterable[RunRecord], metric: str = "NDCG@20") -> pd.DataFrame:
    """Each trained PrepRec less each yardstick on the same users, with 95 % intervals.

    Args:
        records: those of ``judged_on``, of any number of data sets.

    Returns:
        columns ``source``, ``target``, ``yardstick``, ``value``, ``gap``, ``low``, ``high``; at home the source is the target.
    """
    named = {(r.source, r.target, r.method.removesuffix(f" from {r.source}")): r for r in records}
    rows = []
    for (source, target, method), record in named.items():
        if method != "PrepRec":
            continue
        windows = [r for (of, to, name), r in named.items() if of is None and to == target and name.endswith("days)")]
        bases = {name: named.get((None, target, name)) for name in ("Popularity so far", TUNED)}
        bases |= {BEST: max(windows, key=lambda r: r.mean(metric), default=None), EMPTY: named.get((source, target, EMPTY))}
        bases |= {HOME: named.get((None, target, "PrepRec"))} if source else {}
        for yardstick, base in bases.items():
            if base is not None:
                found = difference(record.per_user(metric), base.per_user(metric))
                rows.append((source or target, target, yardstick, record.mean(metric), found.value, found.low, found.high))
    return pd.DataFrame(rows, columns=["source", "target", "yardstick", "value", "gap", "low", "high"])


def in_words(found: pd.DataFrame) -> str:
    """What ``contrasts`` come to; the counts are looked up, never written."""
    sentences, home = [], found["source"] == found["target"]
    for words, what, kind in (("trained at home", "data set", home), ("carried to items and people that it has never seen", "transfer", ~home)):
        clear, level = [], []
        for yardstick, against in YARDSTICKS.items():
            some = found[kind & (found["yardstick"] == yardstick)]
            sides = {"above": (some["low"] > 0).sum(), "below": (some["high"] < 0).sum()}
            said = " and ".join(f"{side} it in {n}" for side, n in sides.items() if n)
            if said:
                clear.append(f"held against {against}, it is {said} of {len(some)}")
            elif len(some):
                level.append(against)
        if clear or level:
            n = len(found[kind].groupby(["source", "target"]))
            if level:
                clear.append(f"no difference keeps clear of 0 against {', nor against '.join(level)}")
            sentences.append(f"PrepRec {words} ({n} {what}{'s' * (n > 1)}): {'; '.join(clear)}.")
    return " ".join(sentences) or "Not recorded at this scale yet."


def among_sampled(records: Iterable[RunRecord], metric: str = "Recall@10", negatives: int = 100) -> pd.Series:
    """Method -> the metric as the authors' code has it, each newest item among so many random others; exact, from the ranks, mean over seeds."""
    return pd.Series(
        {r.method: np.mean([average(table, sampled(table, metric, negatives)) for table in r.ranks.values()]) for r in records},
        dtype=float,
        name=f"{metric} (1+{negatives})",
    )


def courses(spec: Spec, among: float = 0.1) -> pd.DataFrame:
    """The coarse percentile, through time, of the item that rose most, of the one that fell most, and of the steadiest.

    Args:
        among: share of the catalogue, the most taken items, that the three are chosen from, if they were known after a quarter of the windows.

    Returns:
        index: when each window ended; one column an item; values in (0, 100], NaN before anybody had taken the item.
    """
    data = load(spec).test.data
    coarse = PopularityClock.of(data, SETTINGS[spec.scale]).coarse
    table, begin = coarse.table[1:] * (100 / FULL), len(coarse.windows) // 4
    often = np.argsort(-np.bincount(data.interactions[Columns.ITEM], minlength=data.n_items), kind="stable")[: max(3, round(among * data.n_items))]
    often = often[table[begin, often] > 0]
    change, spread = table[-1, often] - table[begin, often], table[begin:, often].std(0)
    chosen = {"rose most": often[change.argmax()], "fell most": often[change.argmin()], "steadiest": often[spread.argmin()]}
    ended = pd.to_datetime((coarse.windows + 1) * coarse.seconds, unit="s")
    frame = pd.DataFrame({words: table[:, item] for words, item in chosen.items()}, index=ended.rename("window ended"))
    return frame.where(frame > 0)
