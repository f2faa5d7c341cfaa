"""A paper's table beside ours: every row of the paper, every row that we ran, and the rules under which both were made.

The papers' numbers stand in ``book/papers/*.csv`` with the place that they come from: columns ``citation``, ``where``, ``pair``
(``source--target``), ``method`` (our name), ``printed`` (the paper's name), ``metric``, ``value``.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from zsrbook.claims import SUSPICIOUS, estimate, framed, lookup
from zsrbook.evaluation.intervals import difference
from zsrbook.evaluation.protocol import METRICS
from zsrbook.records import REPOSITORY, RUNS, RecordError, RunRecord, find, protocol_of

PAPERS = REPOSITORY / "book" / "papers"
#: rows that know the truth of a generated world; they are ceilings, or near to one, and no methods, so they are never printed as the best
_TOLD = ["Bayes-optimal", "Truth"]
NOT_RUN = "not run here"
#: relative difference that still counts as the paper's number, and as level with the yardstick in the paper, which prints no intervals
CLOSE = 0.1
#: the same for AUC and GAUC, which begin at 0.5 and are argued about in the third decimal: relative to the paper's number, and from the yardstick
CLOSE_AUC, LEVEL_AUC = 0.01, 0.001
#: half a unit of the third decimal, to which the papers' tables of Recall are printed
_ROUNDING = 0.0005


@dataclass(frozen=True)
class Table:
    """A table that a notebook shows as HTML and that code reads as a frame.

    Attributes:
        frame: index ``method``; columns (metric, ``paper`` | ``ours`` | ``low`` | ``high``) and (``verdict``, "").
        title: what stands in it.
        caption: protocol, scale, data, device, date, seeds.
        records: where the records stand that the rows were made from.
    """

    frame: pd.DataFrame
    title: str
    caption: str
    records: tuple[Path, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """A copy of the numbers; what was not run is NaN."""
        return self.frame.copy()

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics, in order."""
        return [name for name in self.frame.columns.get_level_values(0).unique() if name != "verdict"]

    def _repr_html_(self) -> str:
        best = {(m, c): self._best(m, c) for m in self.metrics for c in ("paper", "ours")}
        groups = "".join(f'<th scope="colgroup" colspan="2">{html.escape(m)}</th>' for m in self.metrics)
        heads = '<th scope="col">paper</th><th scope="col">ours ± 95 %</th>' * len(self.metrics)
        rows = []
        for method, row in self.frame.iterrows():
            cells = []
            for metric in self.metrics:
                paper, ours, low, high = (row[metric, c] for c in ("paper", "ours", "low", "high"))
                digits = 4 if "AUC" in metric else 3  # as the papers print them
                cells.append(_bold("" if pd.isna(paper) else f"{paper:.{digits}f}", paper == best[metric, "paper"]))
                ours_is_best = ours == best[metric, "ours"]
                cells.append("–" if pd.isna(ours) else _bold(f"{ours:.{digits}f}", ours_is_best) + half_below(low, high, digits))
            tds = "".join(f'<td style="text-align:right;white-space:nowrap">{c}</td>' for c in cells)
            # the verdict stands under the name, where it leaves the numbers their room
            name = f"{html.escape(str(method))}<br><small>{html.escape(row['verdict', ''])}</small>"
            rows.append(f'<tr><th scope="row">{name}</th>{tds}</tr>')
        head = f'<tr><th scope="col" rowspan="2">Method, and the verdict on it</th>{groups}</tr><tr>{heads}</tr>'
        return framed(f"<thead>{head}</thead><tbody>{''.join(rows)}</tbody>", self.title, self.caption, self.records)

    def _best(self, metric: str, column: str) -> float:
        return self.frame[metric, column].drop(_TOLD, errors="ignore").max()


@dataclass(frozen=True)
class Measured:
    """A table of our runs alone, where no paper has printed one.

    Attributes:
        frame: index ``method``; columns (metric, ``ours`` | ``low`` | ``high`` | ``difference`` | ``below`` | ``above``), the last three against the
            yardstick, with a 95 % interval.
        title, caption, records: as in ``Table``.
        yardstick: the row that all others are held against.
    """

    frame: pd.DataFrame
    title: str
    caption: str
    yardstick: str
    records: tuple[Path, ...] = ()

    def _repr_html_(self) -> str:
        metrics = list(self.frame.columns.get_level_values(0).unique())
        best = {m: self.frame[m, "ours"].drop(_TOLD, errors="ignore").max() for m in metrics}
        rows = []
        for method, row in self.frame.iterrows():
            cells = []
            for m in metrics:
                cells.append(_bold(f"{row[m, 'ours']:.3f}", row[m, "ours"] == best[m]) + half_below(row[m, "low"], row[m, "high"]))
                # bold would say too much: a difference whose interval holds 0 is grey
                gap, clear = row[m, "difference"], row[m, "below"] > 0 or row[m, "above"] < 0
                cells.append("–" if pd.isna(gap) else f"{gap:+.3f}" if clear else f'<span style="opacity:.65">({gap:+.3f})</span>')
            tds = "".join(f'<td style="text-align:right;white-space:nowrap">{c}</td>' for c in cells)
            rows.append(f'<tr><th scope="row">{html.escape(str(method))}</th>{tds}</tr>')
        groups = "".join(f'<th scope="colgroup" colspan="2">{html.escape(m)}</th>' for m in metrics)
        heads = f'<th scope="col">± 95 %</th><th scope="col">to {html.escape(self.yardstick)}</th>' * len(metrics)
        head = f'<tr><th scope="col" rowspan="2">Method</th>{groups}</tr><tr>{heads}</tr>'
        caption = f"{self.caption} · in brackets: a difference whose interval holds 0"
        return framed(f"<thead>{head}</thead><tbody>{''.join(rows)}</tbody>", self.title, caption, self.records)


def measured(records: Sequence[RunRecord], metrics: Sequence[str], yardstick: str, title: str) -> Measured:
    """Our runs of one data set beside one another, in the order given, each held against the yardstick (paired over users and seeds).

    Raises:
        ValueError: no records, or the yardstick is not among them.
    """
    named = {r.method: r for r in records}
    if yardstick not in named:
        raise ValueError(f"{title}: no record of the yardstick {yardstick}; there are {', '.join(named) or 'none'}")
    rows = {}
    for method, record in named.items():
        cells: dict[tuple[str, str], float] = {}
        for metric in metrics:
            own = estimate([(1.0, record)], metric)[:3]
            gap = (float("nan"),) * 3 if method == yardstick else estimate([(1.0, record), (-1.0, named[yardstick])], metric)[:3]
            cells |= {(metric, column): x for column, x in zip(("ours", "low", "high", "difference", "below", "above"), own + gap, strict=True)}
        rows[method] = cells
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.columns = pd.MultiIndex.from_tuples(frame.columns)
    caption, paths = _caption(named, records[0].scale, metrics[0], yardstick), tuple(r.path for r in named.values())
    return Measured(frame.rename_axis("method"), title, caption, yardstick, paths)


def across(groups: Mapping[str, Sequence[str]], columns: Mapping[str, Mapping[str, RunRecord]], metric: str, title: str, caption: str) -> str:
    """One metric on several data sets as HTML: a row a method, methods of one kind under a line that names it, the best of each column in bold.

    Args:
        groups: kind -> its methods; within a kind the best in the first column stands first, then the best in the next, and so on.
        columns: heading -> method -> record; what was not run there gets a dash. A heading breaks after its arrow.
    """
    values = {where: {method: r.mean(metric) for method, r in named.items()} for where, named in columns.items()}
    best = {where: max((x for method, x in found.items() if method not in _TOLD), default=float("nan")) for where, found in values.items()}

    def cell(where: str, method: str) -> str:
        if method not in columns[where]:
            return "<td>–</td>"
        record, value = columns[where][method], values[where][method]
        _, low, high, _ = estimate([(1.0, record)], metric)
        seeds = f" ({len(record.seeds)})" if len(record.seeds) > 1 else ""
        return f"<td>{_bold(f'{value:.3f}', value == best[where])}{half_below(low, high, more=seeds)}</td>"

    parts = []
    for kind, methods in groups.items():
        known = [m for m in methods if any(m in named for named in columns.values())]
        known.sort(key=lambda m: [-values[where].get(m, float("-inf")) for where in columns])
        rows = "".join(f'<tr><th scope="row">{html.escape(m)}</th>{"".join(cell(where, m) for where in columns)}</tr>' for m in known)
        if rows:
            parts.append(f'<tbody><tr><th scope="rowgroup" colspan="{1 + len(columns)}">{html.escape(kind)}</th></tr>{rows}</tbody>')
    heads = "".join(f'<th scope="col">{html.escape(where).replace("→ ", "→<br>")}</th>' for where in columns)
    experiments = [r.path.parent for named in columns.values() for r in named.values()]  # their folders would be a list of data sets
    head = f'<thead><tr><th scope="col">Method</th>{heads}</tr></thead>'
    return framed(f"{head}{''.join(parts)}", title, caption, experiments, "zsr-across")


def stacked(value: float, low: float, high: float, digits: int = 3) -> str:
    """A difference and below it its interval, or "?" where that is not known, as HTML for the cell of a table that is wide as it is."""
    number = f"{{:+.{digits}f}}".format
    interval = f"{number(low)} to {number(high)}" if high - low < float("inf") else "?"
    return f'{number(value)}<br><span class="zsr-interval">{interval}</span>'


def half_below(low: float, high: float, digits: int = 3, more: str = "") -> str:
    """Half of an interval, as HTML for the line below its value; nothing where it is not known, but for what ``more`` says."""
    half = f"±\N{NO-BREAK SPACE}{(high - low) / 2:.{digits}f}" if high - low < float("inf") else ""
    return f"<br><small>{half}{more}</small>" if half or more else ""


def paper_numbers(name: str, folder: Path = PAPERS) -> pd.DataFrame:
    """One table of a paper, such as ``zesrec_table2``, as its file has it.

    Raises:
        FileNotFoundError: no such table; the message lists those that there are.
    """
    path = folder / f"{name}.csv"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such table; there are {', '.join(sorted(p.stem for p in folder.glob('*.csv'))) or 'none'}")
    return pd.read_csv(path)


def beside(
    name: str,
    paper_pair: str,
    pair: str,
    scale: str,
    experiments: Sequence[str] = ("zero-shot",),
    *,
    records: Sequence[RunRecord] | None = None,
    metrics: Sequence[str] = METRICS,
    yardstick: str = "POP",
    level: float = CLOSE,
    root: Path = RUNS,
    folder: Path = PAPERS,
) -> Table:
    """A paper's table beside our records of one pair at one scale. No row is dropped: what we lack says "not run here".

    The verdict compares with the paper's numbers where data and scale are the paper's own, and elsewhere says on which side of
    the yardstick a method stands here and in the paper (in the first metric, paired).

    Args:
        name: the paper's table, such as ``zesrec_table2``; what stands before the underscore is the paper in the records.
        paper_pair: the pair in the paper's table, such as ``netflix-2m--ml-1m``.
        pair: our pair.
        experiments: a method's record is taken from the first that holds it.
        records: default all under ``root``.
        level: numbers of the paper that lie within this share of the yardstick's count as level with it; AUCs have a bound of their own.

    Raises:
        FileNotFoundError: as ``paper_numbers``.
        ValueError: the paper's table has no such pair.
        RecordError: the records were made under different protocols, so they can't stand in one table.
    """
    numbers = paper_numbers(name, folder)
    numbers = numbers[numbers["pair"] == paper_pair]
    if numbers.empty:
        raise ValueError(f"{name} has no pair {paper_pair!r}; it has {', '.join(paper_numbers(name, folder)['pair'].unique())}")
    paper = numbers.pivot(index="method", columns="metric", values="value").reindex(numbers["method"].unique())
    records = find(root, paper=name.partition("_")[0], scale=scale) if records is None else records
    target = pair.split("--")[-1]
    run = [r.method for r in records if r.experiment in experiments and r.pair in (pair, target) and r.scale == scale]
    methods = list(dict.fromkeys([*paper.index, *run]))
    ours = {m: found for m in methods if (found := lookup(records, pair, m, experiments, scale))}
    protocols = {protocol_of(r.protocol) for r in ours.values()}
    if len(protocols) > 1:
        raise RecordError(
            f"{pair} at {scale} scale: records under {len(protocols)} protocols ({' | '.join(p.caption() for p in protocols)}); run them under one"
        )
    rows = {}
    for method in methods:
        cells: dict[tuple[str, str], object] = {}
        for metric in metrics:
            cells[metric, "paper"] = paper.at[method, metric] if method in paper.index and metric in paper else float("nan")
            found = estimate([(1.0, ours[method])], metric) if method in ours and metric in ours[method].metrics else (float("nan"),) * 3
            cells |= {(metric, column): value for column, value in zip(("ours", "low", "high"), found[:3], strict=True)}
        own_data = scale == "paper" and pair == paper_pair and method in paper.index
        if method not in ours:
            verdict = NOT_RUN
        else:
            verdict = _beside_paper(cells, metrics) if own_data else _beside_yardstick(method, ours, paper, metrics[0], yardstick, level)
        rows[method] = cells | {("verdict", ""): verdict}
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.columns = pd.MultiIndex.from_tuples(frame.columns)
    first = numbers.iloc[0]
    arrow = " → ".join(pair.split("--"))
    return Table(
        frame.rename_axis("method"),
        f"{first['citation']}, {first['where']} ({paper_pair.replace('--', ' → ')}), beside our {arrow}",
        _caption(ours, scale, metrics[0], yardstick),
        tuple(r.path for r in ours.values()),
    )


def circumstances(records: Sequence[RunRecord]) -> str:
    """Protocol, scale, data, seeds, device and date of the records in a table, in a line; empty where there are none."""
    if not records:
        return ""
    dates, seeds = sorted({r.date for r in records}), sorted({len(r.seeds) for r in records})
    spread = f"{dates[0]} to {dates[-1]}" if len(dates) > 1 else dates[0]
    data = ", ".join(sorted({f"{r.target} ({r.data_sha256[:8]})" for r in records}))
    seeds_said = f"{seeds[0]} to {seeds[-1]} seeds" if len(seeds) > 1 else f"{seeds[0]} seed{'s' * (seeds[0] > 1)}"
    devices = "; ".join(sorted({r.device for r in records}))
    rules, titles = protocol_of(records[0].protocol), {int(value) for r in records for value in r.metrics.get("titles", [])}
    # a pair with common titles has candidates of its own
    said = rules.caption(f"among the {' or '.join(f'{n:,}' for n in sorted(titles))} titles in common") if titles else rules.caption()
    return " · ".join((said, f"{records[0].scale} scale", f"data {data}", seeds_said, devices, spread))


def _caption(ours: dict[str, RunRecord], scale: str, metric: str, yardstick: str) -> str:
    """The circumstances of a table, how to read it, and how fine a difference it can tell."""
    if not ours:
        return f"{scale} scale · no run recorded yet: the columns “ours” are empty"
    records = list(ours.values())
    parts = [circumstances(records)]
    parts += ["mean over seeds ± half of the 95 % interval (over users and seeds)", "bold: best, the ceiling aside"]
    base = ours.get(yardstick)
    known = [r for r in records if r.knows_users(metric)]
    comparable = [r for r in known if base in known and r is not base and r.data_sha256 == base.data_sha256]
    fine = [found for r in comparable if (found := difference(r.per_user(metric), base.per_user(metric)).detectable) < float("inf")]
    if fine:
        digits = 4 if "AUC" in metric else 3
        bounds = dict.fromkeys(f"{bound:.{digits}f}" for bound in (min(fine), max(fine)))
        said = f"{' to '.join(bounds)}{', by row' * (len(bounds) > 1)}"
        parts.append(f"the least difference from {yardstick} in {metric} that would be found 8 times in 10: {said}")
    return " · ".join(parts)


def _beside_paper(cells: dict[tuple[str, str], object], metrics: Sequence[str]) -> str:
    """How our numbers lie to the paper's, on the paper's own data; two-sided."""
    pairs = [(cells[m, "ours"], cells[m, "paper"]) for m in metrics]
    pairs = [(ours, paper) for ours, paper in pairs if pd.notna(ours) and pd.notna(paper)]
    if not pairs:
        return "no number of the paper to compare with"
    if any(ours > SUSPICIOUS * (paper + _ROUNDING) for ours, paper in pairs):
        return "far above the paper: look for leaks"
    close = CLOSE_AUC if all("AUC" in m for m in metrics) else CLOSE
    off = {1 if ours > paper else -1 for ours, paper in pairs if abs(ours - paper) > close * paper + _ROUNDING}
    return {(): f"as in the paper, within {close:.0%}", (1,): "above the paper", (-1,): "below the paper"}.get(
        tuple(off), "above and below the paper"
    )


def _beside_yardstick(method: str, ours: dict[str, RunRecord], paper: pd.DataFrame, metric: str, yardstick: str, close: float) -> str:
    """On which side of the yardstick a method stands here, and whether that is so in the paper."""
    if method == yardstick:
        return "the yardstick"
    if yardstick not in ours:
        return f"{yardstick} {NOT_RUN}"
    try:
        _, low, high, _ = estimate([(1.0, ours[method]), (-1.0, ours[yardstick])], metric)
    except ValueError as error:
        return f"can't be compared with {yardstick}: {error}"
    here = _side(low > 0, high < 0)
    said = f"{here} {yardstick}"
    if method not in paper.index or yardstick not in paper.index or metric not in paper:
        return said
    gap = paper.at[method, metric] - paper.at[yardstick, metric]
    if pd.isna(gap):
        return said
    level = LEVEL_AUC if "AUC" in metric else close * paper.at[yardstick, metric]
    there = _side(gap > level, gap < -level)
    return f"{said}, {'as in the paper' if here == there else f'in the paper {there} it'}"


def _side(above: bool, below: bool) -> str:
    return "above" if above else "below" if below else "level with"


def _bold(text: str, best: bool) -> str:
    return f"<strong>{text}</strong>" if best else text
