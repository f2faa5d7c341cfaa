"""The seeds of a row as one record, and what a page shows of it: seed 0 as it runs now, and the further seeds from the records."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol, TypeVar

import pandas as pd

from zsrbook.evaluation.clicks import ClickRanks
from zsrbook.evaluation.ranks import RankTable
from zsrbook.records import AnyProtocol, RunRecord, device, find
from zsrbook.scale import Scale
from zsrbook.training import pick_device, runs_in

#: of every row in which chance plays a part
SEEDS = [0, 1, 2, 3, 4]


def record_of(
    tables: Mapping[int, RankTable | ClickRanks | None], sums: Sequence[Mapping[str, float]], seconds: float, protocol: AnyProtocol, **about: Any
) -> RunRecord:
    """The runs of one row, seed by seed, as its record.

    Args:
        tables: seed -> ranks; None where there are none, or where the sums are all that is kept.
        sums: metric -> value, one mapping a seed.
        seconds: of training, all seeds together.
        about: the keys of the record that say what ran on which data.
    """
    metrics = {name: [s[name] for s in sums] for name in sums[0]}
    minutes = round(seconds / 60, 3)
    chosen = sorted(set(precisions_chosen(about["config"])))
    where = device() + (f" ({', '.join(chosen)})" if chosen else "")
    ranks = {seed: table for seed, table in tables.items() if table is not None}
    return RunRecord(protocol=protocol.settings(), seeds=list(tables), metrics=metrics, minutes=minutes, ranks=ranks, device=where, **about)


def precisions_chosen(config: Mapping) -> Iterator[str]:
    """What each precision that the settings leave open (``auto``) comes to on this machine, such as ``bfloat16``.

    It is kept with the device; in ``config`` the word stays, since records are held against the settings of now, on whatever machine.
    """
    if config.get("precision") == "auto":
        yield runs_in("auto", pick_device(config["device"]))
    for part in config.values():
        if isinstance(part, Mapping):
            yield from precisions_chosen(part)


def shown(recorded: Iterable[RunRecord], scale: Scale, run: Callable[[list[int]], list[RunRecord]]) -> list[RunRecord]:
    """The records of an experiment with all their seeds.

    At toy scale seed 0 of every row runs now, and the other seeds come from the records, which hold all five, or one where chance plays no
    part; where they hold another number, or were made with other data or other settings, all five run now. At a larger scale all of it was
    recorded, since running it takes hours; where nothing was, there is nothing.

    Args:
        recorded: what the records hold of it.
        run: seeds -> records.
    """
    recorded = list(recorded)
    if scale is not Scale.TOY:
        return recorded
    known = {(r.experiment, r.method, r.pair): r for r in recorded if len(r.seeds) == 1 or len(r.seeds) >= len(SEEDS)}
    live = run(SEEDS[:1])
    joined = [with_seeds_of(r, known.get((r.experiment, r.method, r.pair))) for r in live]
    return run(SEEDS) if None in joined else joined


def as_config(settings: Any, later: bool = False) -> dict[str, Any]:
    """The settings of a model as a record keeps them: ``asdict``, less what is ``LATER``, or a part of what is (``later``), and at its default."""
    found = {}
    for one in fields(settings):
        value, new = getattr(settings, one.name), later or "later" in one.metadata
        if not new or value != one.default:
            found[one.name] = as_config(value, new) if is_dataclass(value) else value
    return found


Settings = TypeVar("Settings")


def seeded(settings: Settings, seed: int) -> Settings:
    """Settings of a model, trained with this seed."""
    return replace(settings, training=replace(settings.training, seed=seed))


class Named(Protocol):
    """A row of a table, of whatever chapter."""

    @property
    def name(self) -> str: ...


Row = TypeVar("Row", bound=Named)
#: experiment and method of a record
Key = tuple[str, str]


def complete(
    known: Mapping[Key, RunRecord],
    rows: Sequence[Row],
    expected: Callable[[Row], tuple[list[int], Mapping[Key, str]]],
    run: Callable[[list[int], list[Row]], Iterable[RunRecord]],
    seeds: list[int],
    live: Iterable[str] = (),
    again: Callable[[list[Row]], Iterable[RunRecord]] | None = None,
) -> dict[Key, RunRecord]:
    """Every row with all its seeds: from its records where these hold, else run now. Of the rows in ``live`` seed 0 runs now in any case.

    Args:
        known: what was recorded.
        expected: row -> the seeds that it should have, and the stamp that each of its records would have now.
        run: seeds, rows -> records.
        seeds: all, for ``run``, which takes the first where nothing is left to chance.
        live: names of rows.
        again: rows -> records of seed 0; default ``run``.
    """
    stale = [row for row in rows if not _hold(known, *expected(row))]
    found = {**known, **{(r.experiment, r.method): r for r in run(seeds, stale)}}
    names = set(live)
    fresh = [row for row in rows if row.name in names and row not in stale]
    for record in again(fresh) if again else run(seeds[:1], fresh):
        key = record.experiment, record.method
        found[key] = with_seeds_of(record, found[key])
    return found


def _hold(known: Mapping[Key, RunRecord], seeds: list[int], stamps: Mapping[Key, str]) -> bool:
    """Whether there are records with these stamps, with these seeds and their ranks; further seeds may follow."""
    found = [(known.get(key), expected) for key, expected in stamps.items()]
    return all(r is not None and stamp(r) == expected and _ranked(r, len(seeds)) == r.seeds[: len(seeds)] == seeds for r, expected in found)


def _ranked(record: RunRecord, n: int) -> list[int]:
    """The first n of the seeds whose ranks are there."""
    return list(record.ranks)[:n]


def with_seeds_of(live: RunRecord, recorded: RunRecord | None) -> RunRecord | None:
    """The record with its first seed as it ran now; None where the two are not the same experiment."""
    if recorded is None or live.seeds != recorded.seeds[:1] or stamp(live) != stamp(recorded):
        return None
    if _ranked(recorded, len(SEEDS)) != recorded.seeds[: len(SEEDS)]:
        return None
    metrics = {name: [*live.metrics[name], *values[1:]] for name, values in recorded.metrics.items()}
    return replace(recorded, config=live.config, metrics=metrics, ranks={**recorded.ranks, **live.ranks})


def stamp(record: RunRecord) -> str:
    """What two records must share to be runs of the same thing: data, protocol and settings."""
    return stamp_of(record.data_sha256, record.protocol, record.config)


def stamp_of(data_sha256: str, protocol: Mapping, config: Mapping) -> str:
    """The same before anything has run; losses in ``config`` are no setting."""
    settings = {name: value for name, value in config.items() if name != "curve"}
    return json.dumps([data_sha256, protocol, settings], sort_keys=True, default=str)


def drift(records: Iterable[RunRecord], metric: str) -> pd.DataFrame:
    """Seed 0 as this page ran it and as it was recorded.

    Returns:
        index ``experiment``, ``pair``, ``method``; columns ``here``, ``recorded``, ``difference``; the largest difference first.
    """
    rows = []
    for r in records:
        for before in find(paper=r.paper, experiment=r.experiment, source=r.source, target=r.target, method=r.method, scale=r.scale):
            if metric in before.metrics and before.pair == r.pair:
                rows.append((r.experiment, r.pair, r.method, r.metrics[metric][0], before.metrics[metric][0]))
    frame = pd.DataFrame(rows, columns=["experiment", "pair", "method", "here", "recorded"]).set_index(["experiment", "pair", "method"])
    frame["difference"] = frame["here"] - frame["recorded"]
    return frame.sort_values("difference", key=lambda column: -column.abs())
