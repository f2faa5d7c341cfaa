"""What the four papers come to at a glance: each idea beside what does without it, in the toy world and on public data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from zsrbook.evaluation.intervals import relative
from zsrbook.experiments import mail, prerec, search, zesrec
from zsrbook.records import RunRecord, find
from zsrbook.scale import Scale


class Line(NamedTuple):
    """One row on one data set, as a multiple of the yardstick there."""

    paper: str
    scale: Scale
    where: str
    kind: str  #: ``paper``: as the paper has it; ``ours``, ``today``: other forms of the idea; ``rival``: what needs none of it
    method: str
    times: float  #: its metric over the yardstick's
    low: float  #: 95 % interval, over users and seeds
    high: float


class Measure(NamedTuple):
    """What a paper is judged by here, and what its lines are."""

    metric: str
    yardstick: str
    kinds: Mapping[str, str]  #: kind of line -> what it is, in words


MEASURES = {
    "ZESRec": Measure(
        "Recall@20",
        "popularity in the target",
        {
            "paper": "the best network with the paper's settings",
            "ours": "the best one with tuned settings",
            "today": "anchors only: what we would build today",
            "rival": "an untrained neighbour, the same everywhere",
        },
    ),
    "MAIL": Measure(
        "AUC (new)",
        "BaseDNN, which has nothing in the place of behaviour",
        {"paper": "MAIL-Base", "rival": "MetaEmb, which makes up an id alone"},
    ),
    "Search": Measure(
        "Recall@R",
        "STL, which reads texts alone",
        {"paper": "ZSL_TE", "ours": "ZSL_ME", "rival": "ZSL_ME with links that tell popularity alone"},
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
    """All that is recorded of this, the toy world before public data; nothing where the yardstick is not recorded, or a rival alone."""
    return list({"ZESRec": _zesrec, "MAIL": _mail, "Search": _search, "PreRec": _prerec}[paper]())


def _lines(paper: str, scale: Scale, where: str, yardstick: RunRecord | None, rows: Mapping[str, RunRecord | None]) -> Iterator[Line]:
    """A line for each kind of row that is there, if the yardstick is, and a rival is not all that there is."""
    if yardstick is None or not any(rows[kind] for kind in rows.keys() - {"rival"}):
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
    return _named(r for e in experiments for r in find(paper="zesrec", experiment=e, target=target, scale=scale) if r.source in (source, None))


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
                rows = {"paper": there.get("MAIL-Base"), "rival": there.get("MetaEmb")}
                yield from _lines("MAIL", scale, f"{name}, {words}", there.get("BaseDNN"), rows)


def _search() -> Iterator[Line]:
    for scale in (Scale.TOY, Scale.SMALL):
        judged = (r for experiment in ("labels", "corpus") for r in find(paper="search", experiment=experiment, scale=scale))
        for name, there in search.answers(judged).items():
            rows = {"paper": there.get("ZSL_TE"), "ours": there.get("ZSL_ME"), "rival": there.get("ZSL_ME (rewired)")}
            yield from _lines("Search", scale, name, there.get("STL"), rows)


def _prerec() -> Iterator[Line]:
    for scale, targets in ((Scale.TOY, prerec.DATA[Scale.TOY]), (Scale.SMALL, prerec.FIVE)):
        for target in targets:
            single = _named(find(paper="prerec", experiment="single", target=target, scale=scale))
            source = next(name for name in targets if name != target)
            moved = _named(find(paper="prerec", experiment="transfer", source=source, target=target, scale=scale))
            rows = {"paper": moved.get("PreRec"), "ours": moved.get("PreRec (tuned)"), "rival": single.get("ItemKNN")}
            yield from _lines("PreRec", scale, f"{source} → {target}", single.get("MostPop"), rows)
