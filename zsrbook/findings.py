"""What the four papers come to at a glance: each idea beside what does without it, in the toy world and on public data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from zsrbook.evaluation.intervals import difference, relative
from zsrbook.experiments import mail, prerec, prerec_tables, search, zesrec
from zsrbook.records import RunRecord, find
from zsrbook.scale import Scale


class Line(NamedTuple):
    """One row on one data set, as a multiple of the yardstick there."""

    paper: str
    scale: Scale
    where: str
    kind: str  #: ``paper``: as the paper has it; ``ours``: another form of it; ``today``: a model of this book; those of ``WITHOUT``
    method: str
    times: float  #: its metric over the yardstick's
    low: float  #: 95 % interval, over users and seeds
    high: float


#: kinds that do without the idea: what is simpler, and the paper's own model where what it lives on has been spoiled
WITHOUT = ("rival", "control")


class Measure(NamedTuple):
    """What a paper is judged by here, and what its lines are."""

    metric: str
    yardstick: str
    kinds: Mapping[str, str]  #: kind of line -> what it is, in words that a legend has room for


MEASURES = {
    "ZESRec": Measure(
        "Recall@20",
        "popularity in the target",
        {
            "paper": "the best network with the paper's settings",
            "ours": "the best one with tuned settings",
            "today": "Anchored (anchors only), this book's own",
            "rival": "an untrained neighbour, the same everywhere",
        },
    ),
    "MAIL": Measure(
        "AUC (new)",
        "BaseDNN, which has nothing in the place of behaviour",
        {"paper": "MAIL-Base", "rival": "rates of clicks by attributes, counted"},
    ),
    "Search": Measure(
        "Recall@R",
        "STL, which reads texts alone",
        {
            "paper": "ZSL_TE",
            "ours": "ZSL_ME",
            "rival": "BM25 along links, which learns nothing",
            "control": "ZSL_ME with links that tell popularity alone",
        },
    ),
    "PreRec": Measure(
        "NDCG@20",
        "popularity in the target",
        {
            "paper": "PreRec with the settings of the register",
            "ours": "PreRec with settings chosen in the source",
            "rival": "ItemKNN, which counts in the target",
        },
    ),
}


def at_a_glance(paper: str) -> list[Line]:
    """All that is recorded of this, the toy world before public data; nothing where the yardstick is not recorded, or no row that has the idea."""
    return list({"ZESRec": _zesrec, "MAIL": _mail, "Search": _search, "PreRec": _prerec}[paper]())


def _lines(paper: str, scale: Scale, where: str, yardstick: RunRecord | None, rows: Mapping[str, RunRecord | None]) -> Iterator[Line]:
    """A line for each kind of row that is there, if the yardstick is, and one that has the idea."""
    if yardstick is None or not any(rows[kind] for kind in rows.keys() - {*WITHOUT}):
        return
    metric = MEASURES[paper].metric
    base = yardstick.per_user(metric)
    for kind, record in rows.items():
        if record is not None:
            found = relative(record.per_user(metric), base)
            yield Line(paper, scale, where, kind, record.method, 1 + found.value, 1 + found.low, 1 + found.high)


def _named(records: Iterable[RunRecord]) -> dict[str, RunRecord]:
    return {r.method: r for r in records}


def _best(records: Mapping[str, RunRecord], names: Iterable[str], metric: str) -> RunRecord | None:
    return max((records[name] for name in names if name in records), key=lambda r: r.mean(metric), default=None)


def zesrec_rows(source: str, target: str, scale: Scale, told: bool = False) -> dict[str, RunRecord]:
    """Row -> record on one pair; ``told``: with those that were told how often people of the target take a thing again."""
    experiments = ("zero-shot", "told") if told else ("zero-shot",)
    return _named(r for experiment in experiments for r in zesrec.recorded(scale, source, target, experiment))


def _zesrec() -> Iterator[Line]:
    networks = [name for _, name in zesrec.NETWORKS.values()]
    for scale in (Scale.TOY, Scale.SMALL):
        for source, target in zesrec.PAIRS[scale]:
            there = zesrec_rows(source, target, scale)
            names = {
                "paper": networks,
                "ours": [f"{name} (tuned)" for name in networks],
                "today": ["Anchored (anchors only)"],
                "rival": [zesrec.UNTRAINED],
            }
            yield from _lines(
                "ZESRec",
                scale,
                f"{source} → {target}",
                there.get("POP"),
                {kind: _best(there, some, "Recall@20") for kind, some in names.items()},
            )


def _mail() -> Iterator[Line]:
    for scale in (Scale.TOY, Scale.SMALL):
        for name in mail.DATA[scale]:
            for experiment, words in (("clicks", "the paper's protocol"), ("clicks-strict", "strict")):
                there = _named(find(paper="mail", experiment=experiment, target=name, scale=scale))
                rows = {"paper": there.get("MAIL-Base"), "rival": there.get("Item rate by attributes")}
                yield from _lines("MAIL", scale, f"{name}, {words}", there.get("BaseDNN"), rows)


def _search() -> Iterator[Line]:
    for scale in (Scale.TOY, Scale.SMALL):
        judged = (r for experiment in ("labels", "corpus") for r in find(paper="search", experiment=experiment, scale=scale))
        for name, there in search.answers(judged).items():
            methods = {"paper": "ZSL_TE", "ours": "ZSL_ME", "rival": "BM25 (spread)", "control": "ZSL_ME (rewired)"}
            yield from _lines("Search", scale, name, there.get("STL"), {kind: there.get(method) for kind, method in methods.items()})


def _prerec() -> Iterator[Line]:
    for scale, targets in ((Scale.TOY, prerec.DATA[Scale.TOY]), (Scale.SMALL, prerec.FIVE)):
        for target in targets:
            single = _named(find(paper="prerec", experiment="single", target=target, scale=scale))
            source = next(name for name in targets if name != target)
            moved = _named(find(paper="prerec", experiment="transfer", source=source, target=target, scale=scale))
            rows = {"paper": moved.get("PreRec"), "ours": moved.get("PreRec (tuned)"), "rival": single.get("ItemKNN")}
            yield from _lines("PreRec", scale, f"{source} → {target}", single.get("MostPop"), rows)


# ---------------------------------------------------------------- what each comes to on public data, in a sentence


def beyond_the_picture(paper: str) -> str:
    """What the first pages say of a paper and the picture does not show, with its numbers; empty where nothing is recorded or missing."""
    return {"ZESRec": _zesrec_at_home, "MAIL": _mail_before_dmr, "Search": _search_by_words, "PreRec": _prerec_over_pairs}[paper]()


def side(ours: RunRecord, base: RunRecord, metric: str) -> int:
    """Whether the interval of the difference lies above zero, 1, or below, -1; 0 where it holds zero."""
    found = difference(ours.per_user(metric), base.per_user(metric))
    return int(found.low > 0) - int(found.high < 0)


def _zesrec_at_home() -> str:
    metric, popular, untrained = "Recall@20", {}, {}
    for source, target in zesrec.PAIRS[Scale.SMALL]:
        there = zesrec_rows(source, target, Scale.SMALL)
        for r in find(paper="zesrec", experiment="at-home", target=target, scale=Scale.SMALL):
            if "-Meta" in r.method and "@" not in r.method:
                popular.setdefault(target, []).append(r.mean(metric) / there["POP"].mean(metric))
                untrained.setdefault(target, []).append(r.mean(metric) / there[zesrec.UNTRAINED].mean(metric))
    if not popular:
        return ""
    told = (f"{where} {_range(popular[where])} times popularity's and {_range(untrained[where])} times the neighbour's" for where in popular)
    return f"{metric} of its networks with tuned settings, taught in the target itself: {'; '.join(told)}."


def _mail_before_dmr() -> str:
    metric, found = "AUC (new)", []
    for name in mail.DATA[Scale.SMALL]:
        for experiment in ("clicks", "clicks-strict"):
            there = _named(find(paper="mail", experiment=experiment, target=name, scale=Scale.SMALL))
            if {"MAIL-DMR", "DMR", "Emblr"} <= there.keys():
                found.append(there)
    if not found:
        return ""
    helped = [there for there in found if side(there["MAIL-DMR"], there["DMR"], metric) > 0]
    short = [there["Emblr"].mean(metric) - there["DMR"].mean(metric) for there in helped]
    below = f"; in each of these DMR stands {min(short):.3f} to {max(short):.3f} of AUC below Emblr, a logistic regression" if helped else ""
    return f"In front of DMR it gains beyond the interval in {len(helped)} of {len(found)} comparisons on public data{below}."


def _search_by_words() -> str:
    metric, times, told = "Recall@R", {}, {}
    judged = (r for experiment in ("labels", "corpus") for r in find(paper="search", experiment=experiment, scale=Scale.SMALL))
    for name, there in search.answers(judged).items():
        apart = next(iter(find(paper="search", experiment="apart", target=name, scale=Scale.SMALL)), None)
        if {"STL", "ZSL_ME"} <= there.keys():
            for kind, some in search.by_shared_words({method: there[method] for method in ("STL", "ZSL_ME")}, apart).items():
                gain = relative(some["ZSL_ME"].per_user(metric), some["STL"].per_user(metric))
                times.setdefault(kind, []).append(1 + gain.value)
                told.setdefault(kind, []).append(gain.low > 0)
    if not times:
        return ""
    parts = (
        f"{kind}: {_range(times[kind])} times, beyond the interval on {sum(told[kind])} of {len(told[kind])} data sets" for kind in search.SHARED
    )
    return f"{metric} of ZSL_ME beside STL's on public data, by how many right answers share a word with the query. {'; '.join(parts).capitalize()}."


def _prerec_over_pairs() -> str:
    metric, told = "NDCG@20", []
    popular = prerec_tables.popularity_of(find(paper="prerec", experiment="single", scale=Scale.SMALL))
    for method, words in (("PreRec (tuned)", "With settings chosen in the source"), ("PreRec", "with those of the register")):
        moved = [r for r in find(paper="prerec", experiment="transfer", method=method, scale=Scale.SMALL) if {r.source, r.target} <= {*prerec.FIVE}]
        sides = [side(r, popular[r.target], metric) for r in moved if r.target in popular]
        if sides:
            told.append(
                f"{words} it beats popularity beyond the interval in {sides.count(1)} of {len(sides)} transfers, and falls below in {sides.count(-1)}"
            )
    return "; ".join(told) + "." if told else ""


def _range(values: list[float]) -> str:
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return low if low == high else f"{low} to {high}"
