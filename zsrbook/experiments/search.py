"""The experiments of the search chapter: Tables 1 to 4 and Figures 3 to 5, what departs from the paper, and the daily refresh.

One run fits every model of a data set and judges it by all that the data can judge by: each gives run records with the rank of every
relevant item, so that tables, intervals and claims can be computed from them, whether they just ran or were recorded earlier.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from itertools import product
from typing import Literal, Self

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from zsrbook import claims
from zsrbook.cache import kept
from zsrbook.data import catalogue
from zsrbook.data import search as data_search
from zsrbook.data.dataset import Columns, DataError
from zsrbook.data.search import SearchData, Vocabulary
from zsrbook.data.toy import search_world as toy_world
from zsrbook.evaluation import retrieval
from zsrbook.evaluation.intervals import difference, interval
from zsrbook.evaluation.ranks import RankTable
from zsrbook.evaluation.retrieval import SearchProtocol, evaluate
from zsrbook.experiments.seeds import SEEDS, Key, as_config, complete, record_of, seeded, stamp_of
from zsrbook.models import coordinate_descent, retriever
from zsrbook.models import search as models_search
from zsrbook.models.coordinate_descent import Factorisation, Task, averaging, reweighted
from zsrbook.models.retriever import Retriever
from zsrbook.models.search import (
    STL,
    ZSL_ME,
    ZSL_TE,
    Ensemble,
    Rescaled,
    SquareLoss,
    SquareSettings,
    omega_at_scale,
    rewired_links,
    shuffled_links,
)
from zsrbook.models.search_baselines import BM25, LSI, BM25Settings, Hybrid, LSISettings, PopularItems, RandomItems, SentenceSearch
from zsrbook.models.search_softmax import SMC, Encoder, SoftmaxME, SoftmaxSettings, SoftmaxSTL, SoftmaxTE
from zsrbook.parallel import side_by_side
from zsrbook.records import RunRecord, find
from zsrbook.scale import Scale
from zsrbook.training import Training

PAPER = "search"

#: data by scale; the first is the chapter's main one
DATA = {
    Scale.TOY: ("grocery",),
    Scale.SMALL: ("cisi", "cacm", "ml-latest-small-tags", "ml-1m-tags", "scientific-titles", "games-titles"),
    Scale.PAPER: (),
}
#: what a run is judged by, and under which rules; ``apart`` asks for what matching words can't find, ``corpus`` is how test collections
#: are judged elsewhere
JUDGED = {
    "labels": SearchProtocol("labels", "pool"),
    "apart": SearchProtocol("labels", "apart"),
    "corpus": SearchProtocol("labels"),
    "log": SearchProtocol("log"),
    "links": SearchProtocol("links", most=300),
}
#: the links of a tenth of the linked pairs are held out of training, and judged
HELD_OUT = SearchProtocol("held-out", most=300)

SQUARE: dict[str, type[SquareLoss]] = {"STL": STL, "ZSL_ME": ZSL_ME, "ZSL_TE": ZSL_TE}
SOFTMAX = {"STL": SoftmaxSTL, "ZSL_ME": SoftmaxME, "ZSL_TE": SoftmaxTE}
ENCODERS: dict[Encoder, str] = {"bow": "cross-entropy", "gru": "GRU", "attention": "attention"}


@dataclass(frozen=True)
class Sizes:
    """What depends on the size of the data alone; ``SIZES`` gives them by scale."""

    square: SquareSettings
    softmax: SoftmaxSettings
    lsi: int  #: width
    draws: int  #: of held-out links that λ and ω₀ are chosen on
    kept: int  #: positions of the ensemble that are SMC's alone; 150 in the paper
    until: int  #: the last one that is filled in turns; 300 in the paper
    smc: int | None = None  #: steps that SMC takes at most


def _adam(**changes) -> Training:
    return Training(**({"epochs": 10, "optimizer": "adam", "learning_rate": 3e-3, "clip": None, "patience": None} | changes))


SIZES = {
    Scale.TOY: Sizes(
        SquareSettings(width=32, at_least=3),
        SoftmaxSettings(width=32, at_least=3, heads=2, training=_adam(epochs=30, precision="float32")),
        lsi=32,
        draws=5,
        kept=5,
        until=10,
    ),
    Scale.SMALL: Sizes(SquareSettings(), SoftmaxSettings(width=64, training=_adam()), lsi=200, draws=1, kept=150, until=300, smc=800),
    Scale.PAPER: Sizes(SquareSettings(), SoftmaxSettings(width=200, training=_adam()), lsi=200, draws=1, kept=150, until=300, smc=800),
}


@dataclass(frozen=True)
class Spec:
    """What names the data exactly, small enough to travel to another process."""

    name: str
    scale: Scale
    held_out: bool = False  #: a tenth of the linked pairs is held out


#: the draw of held-out links that is judged; ``tuning`` has others
JUDGED_DRAW = 1000
#: clicks in the log of the toy world: so few that a supervised search has something left to learn
CLICKS = 2000


@lru_cache(maxsize=4)
def load(spec: Spec) -> SearchData:
    """The data, with the whole of its log.

    Raises:
        DataError: the data is missing or bad; the message says what to do.
    """
    data = replace(toy_world().search(spec.name, CLICKS), name=spec.name) if spec.scale is Scale.TOY else catalogue.load_search(spec.name)
    return data.hold_out(seed=JUDGED_DRAW) if spec.held_out else data


def parts(data: SearchData, share: float = 0.8) -> tuple[SearchData, SearchData]:
    """The data with the older part of its log, which SMC learns from, and with the newest, which judges: 20 %, or what ``share`` leaves."""
    newest = data.log[Columns.TIME] > data.log[Columns.TIME].quantile(share, interpolation="lower") if len(data.log) else np.zeros(0, bool)
    older, newer = (replace(data, log=data.log[mask].reset_index(drop=True)) for mask in (~newest, newest))
    return older, newer


# ---------------------------------------------------------------- the systems


@dataclass(frozen=True)
class System:
    """A row: what it is called, how to make its model for a seed, and its settings as a record keeps them. It travels to other processes."""

    name: str
    make: Callable[..., Retriever]  # of a seed, and of the models that it stands on
    config: dict
    on: tuple[System, ...] = ()  # the rows whose fitted models it stands on; it is not fitted itself
    chance: bool = True  # whether seeds differ
    links: Literal["own", "shuffled", "rewired"] = "own"  # those that it is fitted on; see the functions of ``CONTROLS``
    log: bool = False  # learns from the log, so needs one


#: how far BM25 spreads along links. Of 0.01, 0.03, 0.1, 0.3 and 1 it answers ``made_up`` queries of the toy world best
SPREAD = 0.1
#: links that say less: of other items, or of how many there are alone
CONTROLS = {"shuffled": shuffled_links, "rewired": rewired_links}


def square(seed: int, model: type[SquareLoss], settings: SquareSettings) -> SquareLoss:
    return model(replace(settings, seed=seed))


def softmax(seed: int, model: type, settings: SoftmaxSettings) -> Retriever:
    return model(seeded(settings, seed))


def without_seed(seed: int, *on: Retriever, make: Callable[..., Retriever]) -> Retriever:
    return make(*on)


def lsi(seed: int, settings: LSISettings) -> LSI:
    return LSI(settings, seed)


def square_row(name: str, model: str, settings: SquareSettings, **changes) -> System:
    """A model under the square loss."""
    return System(name, partial(square, model=SQUARE[model], settings=settings), {"model": model, **asdict(settings)}, **changes)


def softmax_row(name: str, model: type, settings: SoftmaxSettings, **changes) -> System:
    """A model under cross-entropy."""
    return System(name, partial(softmax, model=model, settings=settings), {"model": model.__name__, **asdict(settings)}, **changes)


def bm25_row(name: str, settings: BM25Settings) -> System:
    """Matching words."""
    return System(name, partial(without_seed, make=partial(BM25, settings)), as_config(settings), chance=False)


def on_top(name: str, make: Callable[..., Retriever], *on: System, **config) -> System:
    """A row that is made of fitted models."""
    below = {f"of {row.name}": row.config for row in on}
    return System(
        name, partial(without_seed, make=partial(make, **config)), below | config, on, any(r.chance for r in on), log=any(r.log for r in on)
    )


def systems(spec: Spec) -> list[System]:
    """Every row of Tables 1 to 3 and Figures 3 and 4, the baselines, and the controls."""
    sizes = SIZES[spec.scale]
    zero_shot = {name: square_row(name, name, tuned(spec, name)) for name in SQUARE}
    stems = {name: square_row(f"{name} (stems)", name, tuned(spec, name, stems=True)) for name in SQUARE}
    smc = softmax_row("SMC", SMC, trained(spec, "SMC"), log=True)
    cosine = softmax_row("SMC (cosine)", SMC, replace(trained(spec, "SMC"), score="cosine"), log=True)
    bm25 = bm25_row("BM25", BM25Settings())
    spread = bm25_row("BM25 (spread)", BM25Settings(spread=SPREAD))
    popular = System("Popular", partial(without_seed, make=PopularItems), {}, chance=False)
    latent = System("LSI", partial(lsi, settings=LSISettings(width=sizes.lsi)), asdict(LSISettings(width=sizes.lsi)))
    sentences = System("Sentences", partial(without_seed, make=SentenceSearch), {"encoder": "all-MiniLM-L6-v2"}, chance=False)
    rescaled = {name: on_top(f"{name} (rescaled)", Rescaled, row, smc) for name, row in zero_shot.items()}
    turns = {"kept": sizes.kept, "until": sizes.until}
    rows = [
        *zero_shot.values(),
        *(square_row(f"{name} (paper's λ, ω₀)", name, sizes.square) for name in SQUARE),
        *stems.values(),
        *softmax_rows(spec, "bow"),
        *softmax_rows(spec, "bow", stems=True),
        *(replace(zero_shot[name], name=f"{name} ({control})", links=control) for control in CONTROLS for name in ("ZSL_ME", "ZSL_TE")),
        square_row("ZSL_TE (folded in)", "ZSL_TE", replace(tuned(spec, "ZSL_TE"), fold_in=True)),
        smc,
        cosine,
        *rescaled.values(),
        on_top("SMC + ZSL_TE", Ensemble, smc, zero_shot["ZSL_TE"], **turns),
        on_top("SMC + ZSL_TE (rescaled)", Ensemble, smc, rescaled["ZSL_TE"], **turns),
        bm25,
        spread,
        replace(spread, name="BM25 (spread, shuffled)", links="shuffled", chance=True),
        latent,
        sentences,
        *(
            on_top(f"{one.name} + {other.name}", Hybrid, one, other)
            for squares in (zero_shot, stems)
            for one, other in (
                (bm25, squares["ZSL_TE"]),
                (bm25, squares["ZSL_ME"]),
                (latent, squares["ZSL_TE"]),
                (sentences, squares["ZSL_TE"]),
            )
        ),
        on_top("BM25 + Popular", Hybrid, bm25, popular),
        on_top("Sentences + Popular", Hybrid, sentences, popular),
        popular,
        System("Random", RandomItems, {}),
    ]
    taught = taught_by_log(spec)
    return [row for row in rows if taught or not row.log]


def taught_by_log(spec: Spec) -> bool:
    """Whether SMC finds a word often enough in the older part of the log; where it doesn't, its rows are left out."""
    older, _ = parts(load(spec))
    smc = SMC()
    try:
        SIZES[spec.scale].softmax.vocabulary(smc.read(smc.pairs(older)))
    except DataError:
        return False
    return True


#: data -> model under cross-entropy -> by how much longer it trains, or less long; what ``trials`` has for the best, and otherwise 1
CHOSEN = {"grocery": {"STL": 0.25, "ZSL_ME": 2.0, "ZSL_TE": 0.5}}


def trained(spec: Spec, name: str, times: float | None = None) -> SoftmaxSettings:
    """The settings of a model under cross-entropy, with the epochs that give all models about as many steps.

    An epoch of ZSL_ME and ZSL_TE has a pair a link. STL has one pair an item and SMC one a click, so these get as many more epochs; but where
    there are far more links than clicks, SMC stops after ``Sizes.smc`` steps.

    Args:
        times: how much longer it trains than that, or less long; default what was chosen.
    """
    sizes, data = SIZES[spec.scale], load(spec)
    pairs = max(1, {"STL": data.n_items, "SMC": len(parts(data)[0].log)}.get(name, data.links.nnz))
    epochs = sizes.softmax.training.epochs * max(1.0, data.links.nnz / pairs)
    if name == "SMC" and sizes.smc is not None:
        epochs = min(epochs, sizes.smc * sizes.softmax.batch / pairs)
    times = CHOSEN.get(spec.name, {}).get(name, 1.0) if times is None else times
    settings = replace(sizes.softmax, training=replace(sizes.softmax.training, epochs=max(1, round(epochs * times))))
    return replace(settings, score="dot") if name == "SMC" else settings


def softmax_rows(spec: Spec, encoder: Encoder, stems: bool = False) -> list[System]:
    """The three zero-shot models under cross-entropy. Epochs are chosen for the bag of words, and only there."""
    changes = {"encoder": encoder, **(STEMS if stems else {})}
    how = f"{ENCODERS[encoder]}, stems" if stems else ENCODERS[encoder]
    times = None if encoder == "bow" else 1.0
    return [softmax_row(f"{name} ({how})", model, replace(trained(spec, name, times), **changes)) for name, model in SOFTMAX.items()]


def encoding(spec: Spec) -> list[System]:
    """The same with encoders that read the words in their order, which the paper names and did not try."""
    return [row for encoder in ("gru", "attention") for row in softmax_rows(spec, encoder)]


# ---------------------------------------------------------------- settings without a query

#: λ and ω₀ that are tried first; where the best stands at an edge, ten times as much, or a tenth, is tried too, until it does not. The
#: paper's own, 4 and 0.001, are a row apart
LAMBDAS, OMEGAS = (0.03, 0.3, 3.0), (0.003, 0.03, 0.3)
#: and how far that goes; a pair that is not there can't weigh more than one that is
LAMBDA_LIMITS, OMEGA_LIMITS = (3e-5, 300.0), (3e-5, 1.0)
#: changes to the settings that give a model the words of BM25 and LSI: stems, without stop words, and also those that are rare
STEMS = {"stem": True, "stop": True, "at_least": LSISettings().at_least}


def tuned(spec: Spec, name: str, stems: bool = False) -> SquareSettings:
    """The λ and ω₀ that answer ``made_up`` queries best, of the grid of ``tuning``.

    Args:
        stems: of the model that has the words of ``STEMS``.
    """
    scores = tuning(replace(spec, held_out=False), name, stems)
    lam, omega = scores["MAP"].idxmax()
    return replace(SIZES[spec.scale].square, lam=lam, omega=omega, **(STEMS if stems else {}))


@lru_cache(maxsize=32)
def tuning(spec: Spec, name: str, stems: bool = False) -> pd.DataFrame:
    """Index ``λ``, ``ω₀``, a full grid; column ``MAP`` of ``made_up`` queries. What was fitted once is kept on disk.

    Links are held out anew in each of the draws, and vectors begin elsewhere; the mean over draws is taken.
    """
    sizes = SIZES[spec.scale]
    held, asked = zip(*(rehearsal(replace(spec, held_out=False), draw) for draw in range(sizes.draws)), strict=True)
    base = replace(sizes.square, **(STEMS if stems else {}))
    code = [inspect.getsource(module) for module in (coordinate_descent, models_search, retriever, data_search, retrieval)]
    stamps = [query.sha256 for query in asked]

    def precision(settings: SquareSettings) -> float:
        models = (SQUARE[name](replace(settings, seed=draw)).fit(one) for draw, one in enumerate(held))
        tables = (evaluate(model, queries, JUDGED["corpus"]) for model, queries in zip(models, asked, strict=True))
        return float(np.mean([JUDGED["corpus"].summary(table, ("MAP",))["MAP"] for table in tables]))

    def found(settings: SquareSettings) -> float:
        digest = hashlib.sha256(json.dumps([*stamps, name, asdict(settings), *code]).encode()).hexdigest()
        return float(kept(f"search/{digest[:32]}", lambda: np.array(precision(settings))))

    lams, omegas, scores = list(LAMBDAS), list(OMEGAS), {}
    while new := [point for point in product(lams, omegas) if point not in scores]:
        scores |= {(lam, omega): found(replace(base, lam=lam, omega=omega)) for lam, omega in new}
        lam, omega = max(scores, key=scores.get)
        lams, omegas = beyond(lams, lam, LAMBDA_LIMITS), beyond(omegas, omega, OMEGA_LIMITS)
    return pd.DataFrame({"MAP": scores}).rename_axis(["λ", "ω₀"]).sort_index()


def beyond(values: list[float], best: float, limits: tuple[float, float]) -> list[float]:
    """The values, sorted, and where the best is the least or the largest of them, one more in that direction, within the limits.

    >>> beyond([0.03, 0.3], 0.3, (0.001, 1.0)), beyond([0.03, 0.3, 1.0], 1.0, (0.001, 1.0)), beyond([0.03, 0.3, 1.0], 0.3, (0.001, 1.0))
    ([0.03, 0.3, 1.0], [0.03, 0.3, 1.0], [0.03, 0.3, 1.0])
    """
    further = [step for step, edge in ((best / 10, min(values)), (best * 10, max(values))) if best == edge]
    return sorted({*values, *(float(f"{min(max(step, limits[0]), limits[1]):.6g}") for step in further)})


def rehearsal(spec: Spec, draw: int) -> tuple[SearchData, SearchData]:
    """What a zero-shot model learns from and what it is asked, where its settings are chosen: links without those held out, and ``made_up``."""
    held = load(spec).hold_out(seed=draw)
    return held, made_up(held, draw)


#: by how much longer models under cross-entropy were trained, or less long, where their epochs are chosen
TIMES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)


def for_epochs(spec: Spec, name: str, times: float) -> System:
    """A model under cross-entropy that trains by so much longer, or less long."""
    settings = trained(spec, name, times)
    model = {**SOFTMAX, "SMC": SMC}[name]
    return softmax_row(f"{name} ({settings.training.epochs} epochs)", model, settings, log=name == "SMC")


def by_epochs(spec: Spec) -> list[System]:
    """Models under cross-entropy, each for several numbers of epochs."""
    models = [*SOFTMAX, *(["SMC"] if taught_by_log(spec) else [])]
    rows = (for_epochs(spec, name, times) for name, times in product(models, TIMES))
    return list({row.name: row for row in rows}.values())


def trials(spec: Spec, name: str) -> pd.DataFrame:
    """What was recorded of one model of ``by_epochs``.

    Returns:
        index ``times``, of ``TIMES``, those that were recorded; columns ``epochs``; ``asked``, what it finds of what it may know, MAP of a zero-shot
        model and Recall@10 of SMC; and ``labels``, the Recall@R of the same models on labels, where it is judged by these.
    """
    known = {(r.experiment, r.method): r for r in find(paper=PAPER, target=spec.name, scale=spec.scale) if r.experiment.startswith("epochs")}
    found = {}
    for times, row in ((times, for_epochs(spec, name, times)) for times in TIMES):
        if record := known.get(("epochs", row.name)):
            labels = known.get(("epochs-labels", row.name))
            asked = record.mean("Recall@10" if row.log else "MAP")
            found[times] = {"epochs": record.config["training"]["epochs"], "asked": asked, "labels": labels.mean("Recall@R") if labels else np.nan}
    return pd.DataFrame.from_dict(found, orient="index", columns=["epochs", "asked", "labels"]).rename_axis("times")


def rehearsals(spec: Spec, row: System) -> dict[str, SearchProtocol]:
    """Experiment -> the rules by which a row of ``by_epochs`` is judged."""
    labels = {"epochs-labels": JUDGED["labels"]} if "labels" in judged(spec, row) else {}
    return {"epochs": JUDGED["log" if row.log else "corpus"]} | labels


def rehearsed(spec: Spec, row: System, seed: int) -> list[RunRecord]:
    """One seed of a row of ``by_epochs``, on what it may know before it is judged, and, for those who want to see what the choice cost, on labels.

    A zero-shot model is asked ``made_up`` queries, each seed on links of its own. SMC learns from the log that it always learns from, without the
    newest tenth of it, and is asked for that.
    """
    learned, asked = parts(parts(load(spec))[0], 0.9) if row.log else rehearsal(spec, seed)
    began = time.perf_counter()
    model = row.make(seed).fit(learned)
    seconds = time.perf_counter() - began
    tables = {way: evaluate(model, asked if way == "epochs" else load(spec), rules) for way, rules in rehearsals(spec, row).items()}
    return [as_record(spec, way, rules, row, {seed: (tables[way], seconds)}) for way, rules in rehearsals(spec, row).items()]


#: words of a query that is made up, as many as people typed
TYPED = 2


def made_up(data: SearchData, seed: int = 0) -> SearchData:
    """Queries that nobody asked, made of texts and held-out links, the only questions and answers that a search may know before it is used.

    Whoever types two words of an item's text may mean this item, or one that goes with it. So two words are drawn from the text of each item
    j that has a held-out link; relevant are j itself and each i that j is a held-out neighbour of. Stop words are not drawn, nor words that
    stand in one text alone. The words are the same for all models, however these cut a text.
    """
    item, of = data.held_out.nonzero()
    asked = np.unique(of)
    words = Vocabulary.of(data.items[Columns.TEXT], at_least=2, longest=1, stop=True)
    held, rng = words.matrix(data.items[Columns.TEXT].iloc[asked]), np.random.default_rng(seed)
    texts = [" ".join(words.words[code] for code in rng.permutation(row)[:TYPED]) for row in np.split(held.indices, held.indptr[1:-1])]
    query = np.append(np.searchsorted(asked, of), np.arange(len(asked)))
    relevance = pd.DataFrame({"query": query, Columns.ITEM: np.append(item, asked), "grade": 1})
    return replace(data, queries=pd.DataFrame({"text": texts, "kind": "made up"}), relevance=relevance, log=data.log[:0])


# ---------------------------------------------------------------- runs and records

#: of each experiment the ranks; and the seconds that the row took, with those that it stands on
Run = tuple[dict[str, RankTable], float]


def fitted(spec: Spec, row: System, seed: int, models: dict[str, tuple[Retriever, float]] | None = None) -> tuple[Retriever, float]:
    """The model of a row, and the seconds that it took; ``models`` holds those made so far with this seed, and gains this one."""
    models = {} if models is None else models
    if row.name not in models:
        data, _ = parts(load(spec))
        below = [fitted(spec, r, seed, models) for r in row.on]
        began = time.perf_counter()
        model = row.make(seed, *(model for model, _ in below))
        if not row.on:
            model.fit(data if row.links == "own" else CONTROLS[row.links](data, seed))
        models[row.name] = model, sum(seconds for _, seconds in below) + time.perf_counter() - began
    return models[row.name]


def scored(spec: Spec, rows: Sequence[System], seed: int, models: dict[str, tuple[Retriever, float]] | None = None) -> dict[str, Run]:
    """All that the data can judge each row by, one seed."""
    models, found = {} if models is None else models, {}
    for row in rows:
        model, seconds = fitted(spec, row, seed, models)
        found[row.name] = {name: evaluate(model, judge, rules) for name, (rules, judge) in judged(spec, row).items()}, seconds
    return found


def judged(spec: Spec, row: System | None = None) -> dict[str, tuple[SearchProtocol, SearchData]]:
    """Experiment -> the rules, and the data that holds what is judged; only those that the data knows something for.

    Args:
        row: then without labels that were made of the log, where the row learned from that log: it has read most of the answers.
    """
    data = load(spec)
    if spec.held_out:
        return {"held-out": (HELD_OUT, data)}
    _, newer = parts(data)
    collection = spec.name in ("cisi", "cacm")  # elsewhere, what is relevant is known within the pool alone
    there = {"labels": len(data.relevance), "apart": _knows_apart(data), "corpus": collection, "log": len(newer.log), "links": data.links.nnz}
    read = JUDGED.keys() - {"log", "links"} if row is not None and row.log and data.labels_from_log else ()
    return {name: (rules, newer) for name, rules in JUDGED.items() if there[name] and name not in read}


def _knows_apart(data: SearchData) -> bool:
    """Whether some item is relevant to a query that it shares no word with."""
    if not len(data.relevance):
        return False
    shared = retrieval.sharing(tuple(data.items[Columns.TEXT]), tuple(data.queries["text"]))
    return not shared[*data.relevance[["query", Columns.ITEM]].to_numpy().T].all()


def run(spec: Spec, seeds: Iterable[int], rows: Iterable[System]) -> list[RunRecord]:
    """One record a row and experiment; seeds side by side. A row without chance has the lowest seed alone."""
    rows, seeds = list(rows), list(seeds)
    tasks = [(spec, some, seed) for seed in seeds if (some := [row for row in rows if row.chance or seed == min(seeds)])]
    runs: dict[str, dict[int, Run]] = {row.name: {} for row in rows}
    for (_, _, seed), found in zip(tasks, side_by_side(scored, tasks, f"search in {spec.name}"), strict=True):
        for name, one in found.items():
            runs[name][seed] = one
    return [record for row in rows for record in records_of(spec, row, runs[row.name])]


def records_of(spec: Spec, row: System, runs: dict[int, Run], suffix: str = "") -> list[RunRecord]:
    """The runs of one row, seed by seed: a record for each way in which it was judged.

    Args:
        suffix: of the experiments' names, for rows that are no part of the usual tables.
    """
    return [
        as_record(spec, name + suffix, rules, row, {seed: (found[name], s) for seed, (found, s) in runs.items()})
        for name, (rules, _) in judged(spec, row).items()
    ]


def as_record(spec: Spec, experiment: str, rules: SearchProtocol, row: System, runs: dict[int, tuple[RankTable, float]]) -> RunRecord:
    """The runs of one row, seed by seed, judged in one way, as its record."""
    tables = {seed: table for seed, (table, _) in runs.items()}
    sums = [rules.summary(table) for table in tables.values()]
    return record_of(
        tables,
        sums,
        sum(seconds for _, seconds in runs.values()),
        rules,
        paper=PAPER,
        experiment=experiment,
        target=load(spec).name,
        method=row.name,
        scale=spec.scale,
        config=row.config,
        data_sha256=load(spec).sha256,
    )


class Truth(Retriever):
    """The best scores there are in the toy world: how often an item is clicked on after a query, and nothing learned."""

    def __init__(self, spec: Spec):
        self.spec = spec

    def fit(self, data: SearchData) -> Self:
        return self

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        world = toy_world()
        rows = pd.Series(np.arange(len(world.queries(self.spec.name).texts)), world.queries(self.spec.name).texts["text"])
        return world.search_rates(self.spec.name)[rows[list(queries)].to_numpy()].astype(np.float32)


def ceiling(spec: Spec) -> list[RunRecord]:
    """The Bayes-optimal row of the toy world, where labels or the log judge; none elsewhere."""
    if spec.scale is not Scale.TOY or spec.held_out:
        return []
    row = System("Bayes-optimal", lambda seed: Truth(spec), {}, chance=False)
    rules = {name: both for name, both in judged(spec).items() if name != "links"}
    return [as_record(spec, name, protocol, row, {0: (evaluate(Truth(spec), judge, protocol), 0.0)}) for name, (protocol, judge) in rules.items()]


def results(spec: Spec, live: Iterable[str] = (), models: dict[str, tuple[Retriever, float]] | None = None) -> list[RunRecord]:
    """What a page shows of all that a run is judged by.

    At toy scale a row comes from the records, if these hold all seeds of it on this very data with these very settings; else all seeds
    run now. Of the rows in ``live`` seed 0 runs now in any case. At a larger scale all of it was recorded; where nothing was, there is
    nothing.

    Args:
        models: as for ``fitted``; gains those of the live rows.
    """
    ways = judged(spec)
    known = {(r.experiment, r.method): r for r in find(paper=PAPER, target=load(spec).name, scale=spec.scale) if r.experiment in ways}
    if spec.scale is not Scale.TOY:
        return list(known.values())

    def expected(row: System) -> tuple[list[int], dict[Key, str]]:
        stamps = {(name, row.name): stamp_of(load(spec).sha256, rules.settings(), row.config) for name, (rules, _) in judged(spec, row).items()}
        return SEEDS if row.chance else SEEDS[:1], stamps

    def again(rows: list[System]) -> list[RunRecord]:
        runs = scored(spec, rows, 0, models)
        return [record for row in rows for record in records_of(spec, row, {0: runs[row.name]})]

    rows = systems(spec)
    found = complete(known, rows, expected, lambda seeds, some: run(spec, seeds, some), SEEDS, live, again)
    return [*(found[name, row.name] for name in ways for row in rows if (name, row.name) in found), *ceiling(spec)]


# ---------------------------------------------------------------- what departs from the paper


#: id in the deviation register -> what is changed, in words, in which row, and the settings; some depend on the data, or on the row's own
DEVIATIONS: dict[str, tuple[str, str, dict | Callable[[SearchData, dict], dict]]] = {
    "search-1": ("an item's words combined into one pair, as in section 4.1", "STL", {"combined": True}),
    "search-2": ("an item's words combined into one pair", "ZSL_ME", {"combined": True}),
    "search-3": ("links turned round, so that the earlier item predicts the later", "ZSL_TE", {"direction": "transposed"}),
    "search-4": ("links in both directions", "ZSL_TE", {"direction": "symmetric"}),
    "search-5": ("inner product in place of cosine", "ZSL_TE", {"score": "dot"}),
    "search-6": ("positives all of one weight", "ZSL_TE", {"reweight": False}),
    "search-7": ("ω₀ so that negatives weigh as in the paper, or 1 where that is above", "ZSL_TE", lambda data, own: {"omega": omega_at_scale(data)}),
    "search-8": ("unigrams alone", "ZSL_TE", {"bigrams": False}),
    "search-9": ("English stems", "ZSL_TE", {"stem": True}),
    "search-19": ("rare words too, from two texts on", "ZSL_TE", {"at_least": STEMS["at_least"]}),
    "search-43": ("no stop words", "ZSL_TE", {"stop": True}),
    "search-47": ("λ ten times as large", "ZSL_TE", lambda data, own: {"lam": 10 * own["lam"]}),
    "search-48": ("λ a tenth", "ZSL_TE", lambda data, own: {"lam": own["lam"] / 10}),
    "search-49": ("a softmax over 100 sampled items", "ZSL_TE (cross-entropy)", {"sampled_above": 0, "negatives": 100}),
}


def deviating(spec: Spec) -> list[System]:
    """A row with one choice at a time changed."""
    as_they_are = {row.name: row for row in (*(square_row(name, name, tuned(spec, name)) for name in SQUARE), *softmax_rows(spec, "bow"))}
    rows = []
    for key, (_, name, changes) in DEVIATIONS.items():
        row = as_they_are[name]
        changes = changes(load(spec), row.config) if callable(changes) else changes
        settings = replace(row.make.keywords["settings"], **changes)
        rows.append(replace(row, name=f"{name} ({key})", make=partial(row.make, settings=settings), config=row.config | changes))
    return rows


# ---------------------------------------------------------------- when which of them is best


def landscape(tellings: Sequence[float], tastes: Sequence[float]) -> pd.DataFrame:
    """The three zero-shot models in toy worlds whose texts tell more or less, and whose links do.

    λ and ω₀ are those tuned for the chapter's own world.

    Returns:
        index ``telling``, ``taste``, ``kind``; columns of ``SQUARE`` with Recall@R, and ``alike``: the share of links between items of one note.
    """
    rows = {}
    for telling, taste in product(tellings, tastes):
        data = toy_world(telling, taste).search("grocery", CLICKS)
        note, (row, column) = data.items["note"].to_numpy(), data.links.nonzero()
        alike = float((note[row] == note[column]).mean())
        by_kind = {}
        for name, model in SQUARE.items():
            fitted_here = model(tuned(Spec("grocery", Scale.TOY), name)).fit(data)
            by_kind[name] = recall_by_kind(evaluate(fitted_here, data, JUDGED["labels"]), data)
        for kind in by_kind["STL"].index:
            rows[telling, taste, kind] = {name: values[kind] for name, values in by_kind.items()} | {"alike": alike}
    return pd.DataFrame(rows).T.rename_axis(["telling", "taste", "kind"])


def recall_by_kind(table: RankTable, data: SearchData) -> pd.Series:
    """Mean Recall@R over the queries of each kind, and of ``all``."""
    values = JUDGED["labels"].per_query(table, "Recall@R")["mean"]
    kinds = data.queries["kind"].to_numpy()[values.index]
    return pd.concat([values.groupby(kinds).mean(), pd.Series({"all": values.mean()})])


# ---------------------------------------------------------------- Table 2 and Figure 3


def statistics(data: SearchData) -> pd.DataFrame:
    """The quantities of Table 2, a column a kind of query."""
    kind = data.queries["kind"].to_numpy()[data.relevance["query"]]
    groups = data.relevance.groupby(kind)
    sizes = {
        "queries": groups["query"].nunique(),
        "items in the pool": groups[Columns.ITEM].nunique(),
        "relevant items a query": groups.size() / groups["query"].nunique(),
        "queries a pool item answers": groups.size() / groups[Columns.ITEM].nunique(),
    }
    return pd.DataFrame(sizes).T


def kinds(records: Iterable[RunRecord], data: SearchData, methods: Sequence[str]) -> pd.DataFrame:
    """Recall@R by kind of query with 95 % intervals over queries and seeds (Figure 3).

    Returns:
        one row a method and kind: ``method``, ``kind``, ``value``, ``low``, ``high``.
    """
    named, rows = {r.method: r for r in records if r.experiment == "labels"}, []
    for method in methods:
        for kind in dict.fromkeys(data.queries["kind"]):
            mine = np.flatnonzero(data.queries["kind"].to_numpy() == kind)
            tables = {seed: table.where(np.isin(table.user, mine)) for seed, table in named[method].ranks.items()} if method in named else {}
            if tables and all(len(table) for table in tables.values()):
                found = interval(JUDGED["labels"].per_user(tables, "Recall@R"))
                rows.append((method, kind, found.value, found.low, found.high))
    return pd.DataFrame(rows, columns=["method", "kind", "value", "low", "high"])


#: how many of the items that are relevant to a query share a word with it
SHARED = ("all answers share a word", "some do", "none does")


def by_shared_words(answered: Mapping[str, RunRecord], apart: RunRecord | None, least: int = 10) -> dict[str, dict[str, RunRecord]]:
    """The queries of one data set in categories that tell whether matching words could find what is relevant (Figure 3).

    The categories are read off the records, so that they need no data at hand: what shares a word with its query, or a stem, is missing
    where such candidates are taken out.

    Args:
        answered: row -> record, of all that is relevant; rows without ranks are left out.
        apart: the record of any row under ``apart`` on the same data; None where every relevant item shares a word with its query.
        least: queries of a category that is shown.

    Returns:
        category, of ``SHARED``, in that order -> row -> its record on those queries alone, without metrics: ask it ``per_user``.

    Raises:
        DataError: ``apart`` is of other data.
    """
    ranked = {name: r for name, r in answered.items() if r.ranks}
    if not ranked:
        return {}
    if any(apart is not None and r.data_sha256 != apart.data_sha256 for r in ranked.values()):
        raise DataError(f"{apart.path} is of other data than the rows that it should split")
    whole = next(iter(next(iter(ranked.values())).ranks.values()))
    left = [] if apart is None else next(iter(apart.ranks.values())).user
    queries, relevant = np.unique(whole.user, return_counts=True)
    strange = np.bincount(left, minlength=queries.max() + 1)[queries] if len(left) else np.zeros(len(queries), int)
    kind = np.select([strange == 0, strange < relevant], SHARED[:2], SHARED[2])
    found = {}
    for name in SHARED:
        mine = queries[kind == name]
        if len(mine) >= least:
            tables = {row: {seed: t.where(np.isin(t.user, mine)) for seed, t in r.ranks.items()} for row, r in ranked.items()}
            found[name] = {row: replace(r, ranks=tables[row], metrics={}) for row, r in ranked.items()}
    return found


# ---------------------------------------------------------------- section 5.4: the daily refresh, and the live experiment


def refresh(spec: Spec, name: str, sweeps: int = 10, share: float = 0.1, seed: int = 0) -> pd.DataFrame:
    """A day later: a tenth of the items are new, and everything that links to them. Warm start beside a fresh one.

    Returns:
        index ``sweep``; columns ``warm`` and ``fresh``: the loss over what the fresh start reaches after 50 sweeps, less 1; ``moved``: mean
        cosine between old items' vectors now and before the refresh, and ``moved (fresh)`` the same for the fresh start; ``new items`` and
        ``new words``: mean cosine between their vectors now and where the warm start has them after 50 sweeps.
    """
    data, _ = parts(load(spec))
    newcomers = np.random.default_rng(seed).random(data.n_items) < share
    old = subset(data, ~newcomers)
    settings = tuned(spec, name)
    before = SQUARE[name](settings).fit(old)
    place = np.flatnonzero(~newcomers)
    floor = SQUARE[name](replace(settings, sweeps=50)).fit(data).history[-1]
    end = copy(before).refresh(data, 50)
    fresh_words = ~np.isin(end.vocabulary.words, before.vocabulary.words)
    warm, fresh = copy(before).refresh(data, 0), SQUARE[name](replace(settings, sweeps=0)).fit(data)
    rows = {}
    for count in range(sweeps + 1):
        rows[count] = {
            "warm": warm.history[-1] / floor - 1,
            "fresh": fresh.history[-1] / floor - 1,
            "moved": _alike(before.items, warm.items[place]),
            "moved (fresh)": _alike(before.items, fresh.items[place]),
            "new items": _alike(end.items[newcomers], warm.items[newcomers]),
            "new words": _alike(end.words[fresh_words], warm.words[fresh_words]),
        }
        if count < sweeps:
            warm, fresh = warm.refresh(data, 1), fresh.refresh(data, 1)
    return pd.DataFrame(rows).T.rename_axis("sweep")


def subset(data: SearchData, keep: np.ndarray) -> SearchData:
    """The items that the mask keeps, and the links between them; nothing to judge by."""
    links = csr_array(data.links[keep][:, keep])
    return SearchData(f"{data.name}-part", data.items[keep].reset_index(drop=True), links, data.queries[:0], data.relevance[:0])


def _alike(before: np.ndarray, now: np.ndarray) -> float:
    """Mean cosine between rows, of those that are not zero in either."""
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(now, axis=1)
    there = lengths > 0
    return float(((before * now).sum(1)[there] / lengths[there]).mean())


# ---------------------------------------------------------------- what the chapter shows


def audit(data: SearchData) -> pd.Series:
    """What must hold for a search to have seen no query, counted on the data itself."""
    older, newer = parts(data)
    held = data.hold_out()
    both = held.links.multiply(held.held_out).nnz
    linked = data.links.sum(0) + data.links.sum(1)
    judged_queries = data.queries["text"].iloc[data.relevance["query"].unique()]
    known = Vocabulary.of(data.items[Columns.TEXT], longest=1).matrix(judged_queries).sum(1)
    return pd.Series(
        {
            "links that are trained on and held out at once": both,
            "items linked to themselves": int(np.count_nonzero(data.links.diagonal())),
            "newest click that SMC learns from before the first it is judged by": bool(
                not len(newer.log) or older.log[Columns.TIME].max() < newer.log[Columns.TIME].min()
            ),
            "share of judged queries that SMC has met": float(data.relevance["query"].drop_duplicates().isin(older.log["query"]).mean()),
            "items without a link": int((data.links.sum(1) == 0).sum()),
            "items without text": int((data.items[Columns.TEXT].str.strip() == "").sum()),
            "judged queries without a word that some text holds, which count as misses": int((known == 0).sum()),
            "relevant pairs whose item has no link": int((linked[data.relevance[Columns.ITEM]] == 0).sum()),
        },
        name=data.name,
    )


def table(records: Iterable[RunRecord], experiment: str, metrics: Sequence[str]) -> pd.DataFrame:
    """All rows of one experiment: mean over seeds, and half of the 95 % interval over queries and seeds.

    Returns:
        index ``method``; columns (metric, ``mean`` | ``±``); the best in the first metric on top.
    """
    rows = {}
    for r in records:
        if r.experiment == experiment:
            found = {metric: interval(r.per_user(metric)) for metric in metrics}
            rows[r.method] = {
                (metric, part): value for metric, e in found.items() for part, value in (("mean", e.value), ("±", (e.high - e.low) / 2))
            }
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
    return frame.sort_values((metrics[0], "mean"), ascending=False) if rows else frame


def gaps(records: Iterable[RunRecord], pairs: Iterable[tuple[str, str]], metric: str = "Recall@R") -> pd.DataFrame:
    """How much more one row finds than another, by the records of one experiment on one data set.

    Args:
        pairs: names of two rows; left out where either was not recorded, or the two on different data.

    Returns:
        one row a pair that is there: ``a``, ``b``, ``difference``, ``low``, ``high``, ``p``, ``detectable``; see ``intervals.difference``.
    """
    named, rows = {r.method: r for r in records}, []
    for a, b in pairs:
        if a in named and b in named and named[a].data_sha256 == named[b].data_sha256:
            e = difference(named[a].per_user(metric), named[b].per_user(metric))
            rows.append((a, b, e.value, e.low, e.high, e.p, e.detectable))
    return pd.DataFrame(rows, columns=["a", "b", "difference", "low", "high", "p", "detectable"])


def answers(records: Iterable[RunRecord]) -> dict[str, dict[str, RunRecord]]:
    """Data set -> row -> the record of how it answers queries: in the whole corpus where that was judged, else in the pool."""
    found: dict[str, dict[str, dict[str, RunRecord]]] = {}
    for r in records:
        if r.experiment in ("corpus", "labels"):
            found.setdefault(r.target, {}).setdefault(r.experiment, {})[r.method] = r
    return {name: ways.get("corpus", ways.get("labels", {})) for name, ways in found.items()}


def contrast(answered: Mapping[str, Mapping[str, RunRecord]], pair: tuple[str, str], metric: str = "Recall@R") -> pd.DataFrame:
    """How much more one row finds than another on each data set.

    Args:
        answered: as ``answers`` gives it.
        pair: names of two rows.

    Returns:
        index: the data sets on which both were recorded; columns as those of ``gaps``.
    """
    found = {name: gaps(mine.values(), [pair], metric) for name, mine in answered.items()}
    return pd.concat(found).droplevel(1) if found else gaps([], [])


def curve(record: RunRecord, cuts: Sequence[int]) -> pd.DataFrame:
    """Index K; columns ``value``, ``low``, ``high`` of Recall@K (Figure 4)."""
    rules = JUDGED["log"]
    found = {k: interval(rules.per_user(record.ranks, f"Recall@{k}")) for k in cuts}
    return pd.DataFrame({k: {"value": e.value, "low": e.low, "high": e.high} for k, e in found.items()}).T.rename_axis("K")


def by_memory(records: Iterable[RunRecord], data: SearchData, methods: Sequence[str], metric: str = "Recall@10") -> pd.DataFrame:
    """The newest part of the log in two: pairs of a query and an item that the older part holds as well, and others (lesson 2 of section 6).

    Returns:
        one row a method and part: ``method``, ``met``, ``pairs``, ``value``, ``low``, ``high``; a part without pairs has none.

    Raises:
        DataError: a record is of other data.
    """
    older, newer = parts(data)
    pair = ["query", Columns.ITEM]
    judged = newer.log[pair].sort_values(pair)  # as ranks are kept
    met = pd.MultiIndex.from_frame(judged).isin(pd.MultiIndex.from_frame(older.log[pair]))
    named, rows = {r.method: r for r in records if r.experiment == "log"}, []
    for r in (named[method] for method in methods if method in named and named[method].ranks):
        if r.data_sha256 != data.sha256:
            raise DataError(f"{r.path} is of other data than the log that should split it")
        for known, mask in ((True, met), (False, ~met)):
            if mask.any():
                found = interval(JUDGED["log"].per_user({seed: table.where(mask) for seed, table in r.ranks.items()}, metric))
                rows.append((r.method, known, int(mask.sum()), found.value, found.low, found.high))
    return pd.DataFrame(rows, columns=["method", "met", "pairs", "value", "low", "high"])


def cases(data: SearchData, better: Retriever, worse: Retriever, n: int = 3) -> pd.DataFrame:
    """The queries in which one method finds most that another does not, among the top R, R being how many are relevant.

    Returns:
        one row a query, the largest gap first: ``query``, ``text``, ``kind``, ``better``, ``worse`` (Recall@R).
    """
    rules = SearchProtocol("labels")
    values = [rules.per_query(evaluate(model, data, rules), "Recall@R")["mean"] for model in (better, worse)]
    frame = pd.DataFrame({"better": values[0], "worse": values[1]}).rename_axis("query").reset_index()
    frame["text"], frame["kind"] = (data.queries[c].to_numpy()[frame["query"]] for c in ("text", "kind"))
    return frame.iloc[(frame["worse"] - frame["better"]).argsort(kind="stable")[:n]].reset_index(drop=True)


def word_cosines(model: SquareLoss, words: Sequence[str]) -> pd.DataFrame:
    """(words, words) cosines of word vectors."""
    vectors = model.query_vectors(list(words))
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return pd.DataFrame(vectors @ vectors.T, words, words)


def sweep_seconds(pairs: Sequence[int], size: int = 5_000, width: int = 32) -> pd.DataFrame:
    """Index ``pairs``, columns ``STL`` and ``ZSL_TE``: seconds a sweep on random square matrices; the median of five.

    STL has so many pairs of words and items; ZSL_TE has so many links, and texts of as many words. All take turns, so that what else the
    machine does for a while slows none of them alone.
    """

    def random(count: int) -> csr_array:
        return csr_array((np.ones(count, np.float32), rng.integers(size, size=(2, count))), shape=(size, size))

    solvers = {}
    for count in pairs:
        rng = np.random.default_rng(0)
        drawn, texts = random(count), random(count)
        solvers[count, "STL"] = Factorisation([Task(reweighted(drawn))], width, 0.001, 0.1)
        solvers[count, "ZSL_TE"] = Factorisation([Task(reweighted(drawn), averaging(texts))], width, 0.001, 0.1)
    for solver in solvers.values():
        solver.sweep()  # compiles, the first time
    seconds = {key: [] for key in solvers}
    for _ in range(5):
        for key, solver in solvers.items():
            began = time.perf_counter()
            solver.sweep()
            seconds[key].append(time.perf_counter() - began)
    return pd.Series({key: np.median(taken) for key, taken in seconds.items()}).unstack().rename_axis("pairs")


def in_short(scale: Scale) -> str:
    """What the records say of the paper, in a few sentences; the numbers are looked up, never written."""
    name = DATA[Scale.TOY][0]
    labels = {r.method: r for r in find(paper=PAPER, experiment="labels", target=name, scale=Scale.TOY)}
    sentences = []
    for better, worse in (("ZSL_ME", "STL"), ("ZSL_TE", "STL"), ("ZSL_ME", "SMC"), ("ZSL_TE", "SMC")):
        if better in labels and worse in labels:
            found = difference(labels[better].per_user("Recall@R"), labels[worse].per_user("Recall@R"))
            word = "above" if found.low > 0 else "below" if found.high < 0 else "level with"
            sentences.append(f"{better} is {word} {worse} by {abs(found.value):.3f}" if word != "level with" else f"{better} is level with {worse}")
    names = "STL learns from the words of texts, ZSL_ME and ZSL_TE from links between items too, SMC from what was clicked."
    said = [f"{names} On the judged queries of the toy world, in Recall@R: {'; '.join(sentences)}."] if sentences else []
    judged_small = [r for way in ("corpus", "labels") for r in find(paper=PAPER, experiment=way, scale=Scale.SMALL)]
    public, helped, harmed = answers(judged_small), {}, {}
    for name in ("ZSL_ME", "ZSL_TE"):
        rivals = ((name, "STL"), (f"{name} (stems)", "STL (stems)"), (name, f"{name} (rewired)"))
        over = pd.concat([contrast(public, pair) for pair in rivals], keys=["words", "stems", "rewired"], axis=1, join="inner")
        helped[name] = (over.xs("low", axis=1, level=1) > 0).all(axis=1).sum()
        harmed[name] = [(over[read]["high"] < 0).sum() for read in ("words", "stems")]
    if public:
        told = " and ".join(f"{name} above STL on {n or 'none'}" for name, n in helped.items())
        below = ", ".join(f"{name} on {words or 'none'} and {stems or 'none'}" for name, (words, stems) in harmed.items())
        said.append(
            f"On {len(public)} public data sets, links lift {told}, whether words are taken as they stand or as stems, and by more than links do"
            f" that tell popularity alone. Below STL, in words and in stems, stand {below}."
        )
    if len(spread := contrast(public, ("BM25 (spread)", "BM25"))):
        said.append(f"BM25 that hands scores along links, and learns nothing from them, is above BM25 on {(spread['low'] > 0).sum() or 'none'}.")
    return " ".join([*said, claims.in_short(PAPER, scale)])
