"""What a paper claims, and what our records say about it.

``book/claims/<paper>.yml`` lists the claims. A claim is a predicate in a small declarative form; nothing in the file is run as code.
Each part of a predicate is a weighted sum of methods that should lie above a bound, such as ``ZESRec-H - 0.6 HRNN > 0``, so that one kind of
interval, over users and seeds, paired, judges all of them. ``closer`` alone compares data sets: by how far a method is from another one
here and there. A claim is asked of all its pairs, or of ``enough`` of them, and is

``reproduced``           the whole 95 % interval lies on the claimed side
``partly``               the estimate lies on the claimed side, the interval reaches across; or some parts hold and others do not
``not reproduced``       the estimate lies on the other side, be it by more or by less than the interval; the reason says how often by less
``not testable here``    there is no record to judge by; the reason says which
"""

from __future__ import annotations

import html
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import chain, product
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
import yaml
from scipy.stats import t as student

from zsrbook.data.toy import search_world
from zsrbook.evaluation.intervals import contrast, ratio_difference
from zsrbook.records import ADDRESS, REPOSITORY, RUNS, AnyProtocol, RunRecord, find, protocol_of
from zsrbook.scale import Scale

CLAIMS = REPOSITORY / "book" / "claims"

#: a value this many times the paper's is as suspicious as one far below it
SUSPICIOUS = 1.5
#: settings of a protocol that a claim leaves open: what the data means, and how much of it a run has the time to judge
OPEN = {"click", "most"}


class ClaimError(ValueError):
    """A claims file that can't be read; names the file, the claim and what was expected."""


class Outcome(StrEnum):
    """The verdict on a claim, and on each of its parts."""

    REPRODUCED = "reproduced"
    PARTLY = "partly"
    NOT_REPRODUCED = "not reproduced"
    NOT_TESTABLE = "not testable here"


@dataclass(frozen=True)
class Part:
    """One comparison: ``sum(weight * method) > above`` in one metric. With ``than``, which names a group of pairs: the first method divided by
    the second is more here than on each of those. With ``other``, the second bound of a band, the worse of the two decides."""

    text: str
    metric: str
    terms: tuple[tuple[float, str], ...]
    above: float = 0.0
    suspicious_above: float = math.inf
    than: str = ""
    other: Part | None = None


@dataclass(frozen=True)
class Finding:
    """What the records of one pair say about one part; of two pairs where the part compares them."""

    pair: str
    text: str
    outcome: Outcome
    detail: str
    #: so much better than the paper's number that leaks should be looked for
    suspicious: bool = False
    #: not reproduced, though the interval reaches over to the claimed side
    maybe_luck: bool = False
    #: nothing differs, for any user and seed
    same: bool = False


@dataclass(frozen=True)
class Verdict:
    """The judgement of one claim at one scale, with all that it rests on."""

    claim: Claim
    scale: str
    outcome: Outcome
    reason: str
    findings: tuple[Finding, ...] = ()
    variant: str = ""


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper, in our words.

    Attributes:
        id: short and stable, to link to.
        where: section, table or figure.
        text: the claim.
        experiments: name of an experiment -> the methods that are taken from it, or None for any; a method is taken from the first that
            holds it. Naming methods keeps one that was trained on the target from speaking for itself as trained elsewhere.
        pairs: scale -> ``source--target`` pairs at which the claim can be tested.
        protocol: how the numbers must have been obtained; that of the file, with what the claim itself says. ``OPEN`` may be otherwise.
        holds: the predicate, as the file has it, or None where no run can decide.
        untestable: why no run can decide.
        enough: on how many of the pairs it must hold; None for all.
        answered_by: a search that learned from searches; then those queries alone are judged of which it knows a word, as its ranks tell.
            Others it can't answer, so that a comparison with it would be one of vocabularies.
        kinds: of queries, as the toy world names them; there those alone are judged. Public data has no such kinds, and is judged in full.
        groups: the file's groups of pairs, by name and scale; ``closer`` names one.
    """

    id: str
    where: str
    text: str
    experiments: dict[str, tuple[str, ...] | None]
    pairs: dict[str, tuple[str, ...]]
    protocol: AnyProtocol
    holds: dict | None
    untestable: str = ""
    enough: int | None = None
    answered_by: str = ""
    kinds: tuple[str, ...] = ()
    groups: dict[str, dict[str, list[str]]] = field(default_factory=dict)


def load(paper: str, folder: Path = CLAIMS) -> list[Claim]:
    """The claims of a paper, in the order of the file.

    Raises:
        ClaimError: no such file, or an entry that does not make sense.
    """
    path = folder / f"{paper}.yml"
    if not path.exists():
        raise ClaimError(f"{path}: no such file; claims exist for {', '.join(sorted(p.stem for p in folder.glob('*.yml'))) or 'no paper'}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ClaimError(f"{path}: no YAML ({error})") from error
    if not isinstance(content, dict) or set(content) != {"protocol", "pairs", "claims"}:
        raise ClaimError(
            f"{path}: expected protocol, pairs and claims at the top; found {', '.join(content) if isinstance(content, dict) else content}"
        )
    groups, claims = content["pairs"], []
    for entry in content["claims"]:
        if not isinstance(entry, dict):
            raise ClaimError(f"{path}: {entry!r} is no claim; expected id, where, claim and either holds or untestable")
        where = f"{path}, claim {entry.get('id', '?')!r}"
        unknown = set(entry) - {"id", "where", "claim", "experiment", "protocol", "at", "holds", "enough", "answered_by", "kinds", "untestable"}
        missing = {"id", "where", "claim"} - set(entry)
        if unknown or missing or ("holds" in entry) == ("untestable" in entry):
            raise ClaimError(f"{where}: needs id, where, claim and either holds or untestable; missing {sorted(missing)}, unknown {sorted(unknown)}")
        if entry["id"] in [c.id for c in claims]:
            raise ClaimError(f"{where}: the id is taken; each claim needs its own")
        asked = _listed(entry.get("at", []))
        if set(asked) - set(groups) or ("holds" in entry and not asked):
            raise ClaimError(f"{where}: at is {asked}; expected some of {', '.join(groups)}")
        pairs = {scale: tuple(dict.fromkeys(p for g in asked for p in groups[g].get(scale, ()))) for scale in Scale}
        holds = entry.get("holds")
        try:
            protocol = protocol_of(content["protocol"] | entry.get("protocol", {}))
            experiments = _experiments(entry.get("experiment", "zero-shot"))
            parts = [] if holds is None else list(_parts(holds, protocol.metrics))
        except (TypeError, ValueError) as error:
            raise ClaimError(f"{where}: {error}") from error
        if holds is not None and not parts:
            raise ClaimError(f"{where}: holds compares nothing; expected a comparison or more")
        if others := {part.than for part in parts} - {"", *groups}:
            raise ClaimError(f"{where}: than is {', '.join(sorted(others))}; expected one of {', '.join(groups)}")
        enough, most = entry.get("enough"), min((len(p) for p in pairs.values() if p), default=0)
        if enough is not None and not (holds is not None and type(enough) is int and 1 <= enough <= most):
            raise ClaimError(f"{where}: enough is {enough!r}; expected a number of pairs, from 1 to the {most} that it is asked of, beside holds")
        text = " ".join(entry["claim"].split())
        why = " ".join(entry.get("untestable", "").split())
        answered_by, kinds = entry.get("answered_by", ""), tuple(_listed(entry.get("kinds", [])))
        claims.append(Claim(entry["id"], entry["where"], text, experiments, pairs, protocol, holds, why, enough, answered_by, kinds, groups))
    return claims


def _experiments(value: str | dict | list) -> dict[str, tuple[str, ...] | None]:
    """``[transfer, {single: [MostPop]}]``: any method from transfer, and MostPop alone from single."""
    found: dict[str, tuple[str, ...] | None] = {}
    for entry in _listed(value):
        found |= {name: tuple(_listed(methods)) for name, methods in entry.items()} if isinstance(entry, dict) else {entry: None}
    return found


def judge(claim: Claim, records: Sequence[RunRecord], scale: str, variant: str = "") -> Verdict:
    """The verdict on one claim from the records of one scale.

    Args:
        variant: such as ``tuned``: ``ZESRec-H (tuned)`` speaks for ``ZESRec-H``, wherever it was run. It answers whether a claim
            fails for its idea or for the paper's settings.
    """
    if claim.holds is None:
        return Verdict(claim, scale, Outcome.NOT_TESTABLE, claim.untestable, variant=variant)
    if not claim.pairs.get(scale):
        return Verdict(claim, scale, Outcome.NOT_TESTABLE, f"no data at {scale} scale stands for this pair", variant=variant)
    findings: list[Finding] = []
    usual = claim.protocol.metrics
    outcomes = [
        _judge(claim.holds, usual, lambda part, pair=pair: _findings(part, pair, claim, records, scale, variant), findings)
        for pair in claim.pairs[scale]
    ]
    outcome = _all(outcomes) if claim.enough is None else _enough(outcomes, claim.enough)
    counts = Counter(f.outcome for f in findings)
    beyond_luck = any(f.outcome is Outcome.NOT_REPRODUCED and not f.maybe_luck for f in findings)
    if outcome is Outcome.PARTLY and beyond_luck and Outcome.REPRODUCED not in counts and claim.enough is None and not _may_fail(claim.holds):
        outcome = Outcome.NOT_REPRODUCED  # all of it must hold, nothing does, and something fails by more than chance
    tested = len(findings) - counts[Outcome.NOT_TESTABLE]
    if not tested:
        reason = findings[0].detail
    else:
        parts = [f"holds on {outcomes.count(Outcome.REPRODUCED)} of {len(outcomes)}, asked for {claim.enough}"] if claim.enough else []
        parts += [_counted(counts[o], tested, *words) for o, words in _WORDS.items() if counts[o]]
        if luck := sum(f.maybe_luck for f in findings):
            same = sum(f.same for f in findings)
            unchanged = f", {f'{same} of them ' if same < luck else ''}unchanged" if same else ""
            parts[-1] += f" ({f'{luck} ' if counts[Outcome.NOT_REPRODUCED] > 1 else ''}by no more than the interval{unchanged})"
        untested = counts[Outcome.NOT_TESTABLE]
        parts += [f"{untested} more {'has' if untested == 1 else 'have'} no record"] if untested else []
        parts += ["far above the paper: look for leaks"] if any(f.suspicious for f in findings) else []
        parts += [f"asked of queries of which {claim.answered_by} knows a word"] if claim.answered_by else []
        parts += [f"asked of queries of the kinds {' and '.join(claim.kinds)}"] if claim.kinds and scale == Scale.TOY else []
        reason = "; ".join(parts)
    return Verdict(claim, scale, outcome, reason, tuple(findings), variant)


def verdicts(
    paper: str, scale: str, records: Sequence[RunRecord] | None = None, *, variant: str = "", root: Path = RUNS, folder: Path = CLAIMS
) -> Verdicts:
    """The verdicts on all claims of a paper, from these records or from all under ``root``; ``variant`` as for ``judge``."""
    records = find(root, paper=paper, scale=scale) if records is None else records
    return Verdicts([judge(claim, records, scale, variant) for claim in load(paper, folder)])


def in_short(paper: str, scale: Scale, of: str = "claims") -> str:
    """What came of a paper's claims by the runs of this scale, in a sentence; beside the toy world's, what came of them on public data."""
    judged = verdicts(paper, scale)
    said = f"Of the paper's {len(judged)} {of}, judged by the runs recorded at the {scale} scale: {judged.counted()}."
    return said if scale is not Scale.TOY else f"{said} By those on public data: {verdicts(paper, Scale.SMALL).counted()}."


class Verdicts(list[Verdict]):
    """Verdicts that a notebook shows as a table."""

    def counted(self) -> str:
        """How many of each, the good news first: ``2 partly, 3 not testable here``."""
        outcomes = [v.outcome for v in self]
        return ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in Outcome if outcome in outcomes)

    def to_frame(self) -> pd.DataFrame:
        """Index ``claim`` (the id); columns ``where``, ``text``, ``verdict``, ``reason``."""
        rows = [(v.claim.id, v.claim.where, v.claim.text, str(v.outcome), v.reason) for v in self]
        return pd.DataFrame(rows, columns=["claim", "where", "text", "verdict", "reason"]).set_index("claim")

    def _repr_html_(self) -> str:
        scale = self[0].scale if self else ""
        variant = f" · {self[0].variant} settings where they were run" if self and self[0].variant else ""
        caption = f"{scale} scale{variant} · 95 % intervals over users and seeds, paired"
        open_, judged = ([v for v in self if (v.outcome == Outcome.NOT_TESTABLE) is untested] for untested in (True, False))
        ids = [v.claim.id for v in self]
        tables = [framed(_table(judged, ids), "Claims and verdicts", caption)] if judged else []
        if open_:
            words = f"{len(open_)} {'more ' * bool(judged)}claim{'s' * (len(open_) > 1)} that can't be judged here, and why"
            tables.append(f'<details class="zsr-static"><summary>{words}</summary>{framed(_table(open_, ids), words, caption)}</details>')
        return "".join(tables)


def _table(verdicts: Sequence[Verdict], ids: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in ("What the paper says", "Verdict", "Why"))
    return f"<thead><tr>{head}</tr></thead><tbody>{''.join(_row(v, ids) for v in verdicts)}</tbody>"


def framed(table: str, title: str, caption: str, records: Iterable[Path] = (), form: str = "") -> str:
    """The rows of an HTML table as a figure that fits a phone: the caption wraps, the table below it scrolls and takes the keyboard.

    Args:
        records: ``RunRecord.path`` of each row; the caption links to the folders of those that are in the repository.
        form: a further class of the frame, by which the style sheet knows tables of this form.
    """
    folders = dict.fromkeys(path.parent.as_posix() for path in records if (RUNS / path).exists())
    links = ", ".join(f'<a href="{ADDRESS}/tree/main/book/runs/{folder}"><code>{folder}</code></a>' for folder in folders)
    name = f"zsr-{crc32((title + caption + table).encode()):08x}"
    return (
        f'<figure style="margin:1rem 0"><figcaption id="{name}"><strong>{html.escape(title)}</strong><br>{html.escape(caption)}'
        f"{f'<br>Run records: {links}' if links else ''}</figcaption>"
        f'<div class="{f"zsr-scroll {form}".rstrip()}" role="region" aria-labelledby="{name}" tabindex="0" style="overflow-x:auto">'
        f'<table aria-labelledby="{name}">{table}</table></div></figure>'
    )


def _row(verdict: Verdict, ids: Sequence[str]) -> str:
    """One claim; where its reason names another of the claims, by its id, it links there (ids without a hyphen are words like others)."""
    details = "".join(f"<li>{html.escape(f'{_arrow(f.pair)}: {f.text}: {f.detail}')} <em>({_said(f)})</em></li>" for f in verdict.findings)
    reason = html.escape(verdict.reason)
    others = "|".join(re.escape(name) for name in sorted(ids, key=len, reverse=True) if "-" in name and name != verdict.claim.id)
    if others:
        reason = re.sub(rf"(?<![\w-])({others})(?![\w-])", rf'<a href="#claim-\1-{verdict.scale}">\1</a>', reason)
    if n := len(verdict.findings):
        reason += f"<details><summary>{n} comparison{'s' * (n > 1)}</summary><ul>{details}</ul></details>"
    anchor, text = html.escape(f"claim-{verdict.claim.id}-{verdict.scale}"), html.escape(verdict.claim.text)
    about = f'<br><span style="font-size:.85em"><code>{html.escape(verdict.claim.id)}</code> · {html.escape(verdict.claim.where)}</span>'
    claim = f'<th scope="row" id="{anchor}" style="font-weight:normal;min-width:12em">{text}{about}</th>'
    outcome = f'<td style="min-width:6em"><strong>{html.escape(verdict.outcome)}</strong></td>'
    return f'<tr>{claim}{outcome}<td style="min-width:12em">{reason}</td></tr>'


def _said(finding: Finding) -> str:
    return f"{finding.outcome}{', by no more than the interval' if finding.maybe_luck else ''}"


def _arrow(pair: str) -> str:
    return pair.replace("--", " → ")


_WORDS = {
    Outcome.REPRODUCED: ("holds", "hold"),
    Outcome.PARTLY: ("is too close to call", "are too close to call"),
    Outcome.NOT_REPRODUCED: ("fails", "fail"),
}


def _counted(n: int, tested: int, one: str, several: str) -> str:
    return f"the one comparison {one}" if tested == 1 else f"{n} of {tested} comparisons {one if n == 1 else several}"


def _all(outcomes: Sequence[Outcome]) -> Outcome:
    """All must hold: what is untested keeps a claim from being reproduced in full, but does not decide it."""
    tested = {o for o in outcomes if o != Outcome.NOT_TESTABLE}
    if not tested:
        return Outcome.NOT_TESTABLE
    if len(tested) > 1 or (Outcome.REPRODUCED in tested and Outcome.NOT_TESTABLE in outcomes):
        return Outcome.PARTLY
    return tested.pop()


def _enough(outcomes: Sequence[Outcome], asked: int) -> Outcome:
    """So many must hold. It is partly so if it takes those that hold in part, and open if it takes those that have no record."""
    counted = 0
    for outcome in (Outcome.REPRODUCED, Outcome.PARTLY, Outcome.NOT_TESTABLE):
        counted += outcomes.count(outcome)
        if counted >= asked:
            return outcome
    return Outcome.NOT_REPRODUCED


def _any(outcomes: Sequence[Outcome]) -> Outcome:
    """One must hold: the best of those tested."""
    return next(o for o in Outcome if o in outcomes)


def _judge(predicate: dict, usual: Sequence[str], found_for: Callable[[Part], list[Finding]], findings: list[Finding]) -> Outcome:
    """Walk the predicate; each comparison goes through ``found_for`` and is kept in ``findings``."""
    ((kind, body),) = predicate.items()
    if kind in ("all", "any"):
        return (_all if kind == "all" else _any)([_judge(child, usual, found_for, findings) for child in body])
    found = [finding for part in _parts(predicate, usual) for finding in found_for(part)]
    findings += found
    return _all([f.outcome for f in found])


def _may_fail(predicate: dict) -> bool:
    """Whether some of its comparisons may fail and it holds all the same."""
    ((kind, body),) = predicate.items()
    return kind == "any" or (kind == "all" and any(map(_may_fail, body)))


def _listed(value: Any) -> list:
    """What the file has as a list, or as one value alone."""
    return value if isinstance(value, list) else [value]


def _parts(predicate: dict, usual: Sequence[str]) -> Iterator[Part]:
    """The comparisons that a predicate stands for. Lists of methods or metrics mean each of them."""
    if not isinstance(predicate, dict) or len(predicate) != 1:
        raise ValueError(f"{predicate!r} is no predicate; expected one of all, any, {', '.join(_FORMS)} with its settings")
    ((kind, body),) = predicate.items()
    if kind in ("all", "any"):
        for child in body:
            yield from _parts(child, usual)
        return
    if kind not in _FORMS:
        raise ValueError(f"unknown predicate {kind!r}; expected one of all, any, {', '.join(_FORMS)}")
    form, needed = _FORMS[kind]
    methods = [name for name in ("a", "b") if name in needed]
    if not isinstance(body, dict) or set(body) - {"metric"} != set(needed):
        has = ", ".join(body) if isinstance(body, dict) else repr(body)
        raise ValueError(f"{kind} has {has}; expected {', '.join(needed)} and maybe metric")
    others = {name: body[name] for name in needed if name not in methods}
    for metric in _listed(body.get("metric", list(usual))):
        for chosen in product(*(_listed(body[m]) for m in methods)):
            yield from form(metric, **dict(zip(methods, chosen, strict=True)), **others)


def _better(metric: str, a: str, b: str, by: float) -> Iterator[Part]:
    yield Part(f"{metric} of {a} above {b}" + (f" by {by:g}" if by else ""), metric, ((1.0, a), (-1.0, b)), by)


def _between(metric: str, a: str, b: str, low: float, high: float) -> Iterator[Part]:
    text = f"{metric} of {a} at least {low:g} and at most {high:g} of {b}"
    yield Part(text, metric, ((1.0, a), (-low, b)), other=Part(text, metric, ((-1.0, a), (high, b))))


def _near(metric: str, a: str, b: str, within: float) -> Iterator[Part]:
    yield from _between(metric, a, b, 1 - within, 1 + within)


def _ratio_at_least(metric: str, a: str, b: str, ratio: float) -> Iterator[Part]:
    yield Part(f"{metric} of {a} at least {ratio:g} of {b}", metric, ((1.0, a), (-ratio, b)))


def _ratio_at_most(metric: str, a: str, b: str, ratio: float) -> Iterator[Part]:
    yield Part(f"{metric} of {a} at most {ratio:g} of {b}", metric, ((-1.0, a), (ratio, b)))


def _smaller_gap(metric: str, gap: list[str], than: list[str]) -> Iterator[Part]:
    (a, b), (c, d) = gap, than
    merged: dict[str, float] = {}
    for weight, name in ((1.0, c), (-1.0, d), (-1.0, a), (1.0, b)):
        merged[name] = merged.get(name, 0) + weight
    yield Part(f"{metric}: gap {a} to {b} smaller than gap {c} to {d}", metric, tuple((w, n) for n, w in merged.items() if w))


def _closer(metric: str, a: str, b: str, than: str) -> Iterator[Part]:
    yield Part(f"{metric} of {a} over {b} above the same on", metric, ((1.0, a), (-1.0, b)), than=than)


def _value(metric: str, a: str, value: float, within: float) -> Iterator[Part]:
    low, high = value * (1 - within), value * (1 + within)
    text = f"{metric} of {a} at least {low:g} and at most {high:g}, the paper's {value:g} within {within:.0%}"
    yield Part(text, metric, ((1.0, a),), low, SUSPICIOUS * value, other=Part(text, metric, ((-1.0, a),), -high))


_FORMS: dict[str, tuple[Callable[..., Iterator[Part]], tuple[str, ...]]] = {
    "better": (_better, ("a", "b", "by")),
    "between": (_between, ("a", "b", "low", "high")),
    "near": (_near, ("a", "b", "within")),
    "ratio_at_least": (_ratio_at_least, ("a", "b", "ratio")),
    "ratio_at_most": (_ratio_at_most, ("a", "b", "ratio")),
    "smaller_gap": (_smaller_gap, ("gap", "than")),
    "closer": (_closer, ("a", "b", "than")),
    "value": (_value, ("a", "value", "within")),
}


def lookup(records: Sequence[RunRecord], pair: str, method: str, experiments: Sequence[str], scale: str) -> RunRecord | None:
    """The record of a method for a pair, from the first of the experiments that has it.

    A method that learns from the target alone is recorded once for the target, and serves every pair with that target.
    """
    target = pair.split("--")[-1]
    for experiment in experiments:
        for wanted in (pair, target):
            for record in records:
                if (record.experiment, record.pair, record.method, record.scale) == (experiment, wanted, method, scale):
                    return record
    return None


def _findings(part: Part, pair: str, claim: Claim, records: Sequence[RunRecord], scale: str, variant: str) -> list[Finding]:
    """One, or one for each pair that this pair is compared with."""
    if not part.than:
        return [_finding(part, part.text, (pair,), claim, records, scale, variant)]
    others = claim.groups[part.than].get(scale, ())
    found = [_finding(part, f"{part.text} {_arrow(other)}", (pair, other), claim, records, scale, variant) for other in others]
    return found or [Finding(pair, f"{part.text} {part.than}", Outcome.NOT_TESTABLE, f"no data at {scale} scale stands for {part.than}")]


def _finding(part: Part, text: str, places: tuple[str, ...], claim: Claim, records: Sequence[RunRecord], scale: str, variant: str) -> Finding:
    """What one comparison comes to on one pair, or on one against another; of a band the worse of its two sides."""
    try:
        found = _compared(part, places, claim, records, scale, variant)
        sides = [_side(side, text, places, found) for side in (part, part.other) if side]
    except ValueError as error:
        return Finding(places[0], text, Outcome.NOT_TESTABLE, str(error))
    worse = max(sides, key=lambda side: list(Outcome).index(side.outcome))
    return replace(worse, suspicious=any(side.suspicious for side in sides))


def _compared(
    part: Part, places: tuple[str, ...], claim: Claim, records: Sequence[RunRecord], scale: str, variant: str
) -> dict[tuple[str, str], RunRecord]:
    """The records that a comparison needs, by pair and method, on those queries that the claim is asked of.

    Raises:
        ValueError: there is none of a method, or one that can't speak for the claim; says why.
    """

    def serving(method: str) -> list[str]:
        return [name for name, methods in claim.experiments.items() if methods is None or method in methods]

    found, settings = {}, claim.protocol.settings()
    for place, (_, name) in product(places, part.terms):
        experiments = serving(name)
        varied = lookup(records, place, _in_variant(name, variant), experiments, scale) if variant else None
        record = varied or lookup(records, place, name, experiments, scale)
        if record is None:
            raise ValueError(f"no record of {name} in {' or '.join(experiments) or 'any experiment'} at {scale} scale for {_arrow(place)}")
        if part.metric not in record.metrics:
            raise ValueError(f"the record of {name} holds no {part.metric}")
        theirs = protocol_of(record.protocol).settings()
        if differ := [key for key in settings if key not in OPEN and theirs.get(key) != settings[key]]:
            raise ValueError(f"{name} was judged by another protocol ({', '.join(differ)})")
        found[place, name] = record
    if claim.answered_by and all(r.ranks for r in found.values()):  # a paper's own numbers have none
        answering = lookup(records, places[0], claim.answered_by, serving(claim.answered_by), scale)
        if answering is None:
            raise ValueError(f"no record of {claim.answered_by}, whose words say which queries are asked")
        found = {key: record.where_answered(answering) for key, record in found.items()}
    if claim.kinds and scale == Scale.TOY:
        found = {key: _of_kinds(record, claim.kinds) for key, record in found.items()}
    return found


def _side(part: Part, text: str, places: tuple[str, ...], found: Mapping[tuple[str, str], RunRecord]) -> Finding:
    """Whether a sum of methods lies above its bound.

    Raises:
        ValueError: the records can't be compared.
    """
    terms = [[(weight, found[place, name]) for weight, name in part.terms] for place in places]
    value, low, high, basis = estimate(terms[0], part.metric) if len(places) == 1 else estimate_closer(*terms, part.metric)
    outcome = Outcome.REPRODUCED if low > part.above else Outcome.PARTLY if value > part.above else Outcome.NOT_REPRODUCED
    formula = " ".join(f"{'−' if w < 0 else '+'} {'' if abs(w) == 1 else f'{abs(w):g} × '}{r.method}" for w, r in terms[0]).removeprefix("+ ")
    if part.than:
        formula = " − ".join(f"{a.method} / {b.method} on {_arrow(place)}" for place, ((_, a), (_, b)) in zip(places, terms, strict=True))
    margin = f" [{low:+.4f}, {high:+.4f}]" if math.isfinite(high - low) else " (no interval)"
    detail = f"{formula} = {value:+.4f}{margin}, needs more than {part.above:g}; {basis}"
    maybe_luck, same = outcome == Outcome.NOT_REPRODUCED and high >= part.above, part.above == low == value == high == 0
    return Finding(places[0], text, outcome, detail, value > part.suspicious_above, maybe_luck, same)


def _of_kinds(record: RunRecord, kinds: Sequence[str]) -> RunRecord:
    """The record on those queries of a toy market alone that are of these kinds.

    Raises:
        RecordError: it has none of them.
    """
    asked = np.flatnonzero(search_world().queries(record.target).texts["kind"].isin(kinds))
    return record.on_queries(asked, f"of the kinds {' and '.join(kinds)}")


def _in_variant(method: str, variant: str) -> str:
    """``ZESRec-H`` as ``ZESRec-H (tuned)``, ``ZESRec-H (shuffled)`` as ``ZESRec-H (tuned, shuffled)``."""
    name, _, rest = method.partition(" (")
    return f"{name} ({variant}, {rest}" if rest else f"{name} ({variant})"


def estimate(terms: Sequence[tuple[float, RunRecord]], metric: str) -> tuple[float, float, float, str]:
    """A weighted sum of records' metrics with its 95 % interval, and in words what the interval rests on.

    With ranks: over users and seeds, paired (``intervals.contrast``). Without: Student's t over the seeds; one seed gives an infinite interval.

    Raises:
        ValueError: the records were judged on different data, or by different protocols.
    """
    _refuse_unlike([record for _, record in terms])
    if all(record.knows_users(metric) for _, record in terms):
        found = contrast([(weight, record.per_user(metric)) for weight, record in terms])
        return found.value, found.low, found.high, _chances(record for _, record in terms)
    value = math.fsum(weight * record.mean(metric) for weight, record in terms)
    sizes = [len(record.seeds) for _, record in terms]
    if min(sizes) < 2:
        return value, -math.inf, math.inf, "one seed, and no ranks beside the record"
    spread = math.sqrt(math.fsum(w**2 * np.var(r.metrics[metric], ddof=1) / n for (w, r), n in zip(terms, sizes, strict=True)))
    half = student.ppf(0.975, min(sizes) - 1) * spread
    return value, value - half, value + half, "seeds only, since no ranks stand beside the records"


def estimate_closer(
    here: Sequence[tuple[float, RunRecord]], there: Sequence[tuple[float, RunRecord]], metric: str
) -> tuple[float, float, float, str]:
    """The first record over the second on one data set, less the same on another, with its 95 % interval, as ``estimate`` gives it.

    Raises:
        ValueError: two records of a data set were judged on different data or by different protocols, or the second scores 0.
    """
    pairs = []
    for terms in (here, there):
        a, b = (record for _, record in terms)
        _refuse_unlike([a, b])
        if not b.mean(metric):
            raise ValueError(f"{b.method} scores 0, so there is no ratio to it")
        pairs.append((a, b))
    if not all(record.knows_users(metric) for pair in pairs for record in pair):
        first, second = (a.mean(metric) / b.mean(metric) for a, b in pairs)
        return first - second, -math.inf, math.inf, "no ranks beside a record"
    found = ratio_difference(*(tuple(record.per_user(metric) for record in pair) for pair in pairs))
    return found.value, found.low, found.high, f"{_chances(chain.from_iterable(pairs))}, each data set apart"


def _chances(records: Iterable[RunRecord]) -> str:
    """What an interval with ranks holds, in words."""
    several = any(len(record.seeds) > 1 for record in records)
    return "the spread of users and of seeds" if several else "the spread of users; one seed, so the chance of training is left out"


def _refuse_unlike(records: Sequence[RunRecord]) -> None:
    """Raises ValueError unless all were judged alike."""
    if len({record.data_sha256 for record in records}) > 1:
        raise ValueError("the records were judged on different data")
    if len({protocol_of(record.protocol) for record in records}) > 1:
        raise ValueError("the records were judged by different protocols")
