"""``python -m zsrbook run``: run an experiment and record it under ``book/runs``; ``claims``: what the records say of a paper."""

from __future__ import annotations

import math
import os
from collections import Counter
from typing import Annotated

import typer
from rich.console import Console

from zsrbook import claims as ledger
from zsrbook import records
from zsrbook.data.dataset import DataError
from zsrbook.experiments import zesrec
from zsrbook.scale import Scale, current_scale

app = typer.Typer(help="Run experiments and judge claims.", no_args_is_help=True)
console = Console()

ZESREC = ("zero-shot", "zero-shot-no-repeats", "incremental", "dataset-bias", "deviations")


@app.command()
def run(
    experiment: Annotated[str, typer.Argument(help=f"one of {', '.join(ZESREC)}")],
    source: str,
    target: str,
    seeds: Annotated[int, typer.Option(help="how many seeds (or draws), from 0")] = 5,
    only: Annotated[str, typer.Option(help="rows to run, split by ';'; default all")] = "",
    scale: Annotated[Scale | None, typer.Option(help="default: ZSRBOOK_SCALE")] = None,
) -> None:
    """Run an experiment of the ZESRec chapter on one pair and write its records. Needs a clean working tree."""
    if experiment not in ZESREC:
        raise typer.BadParameter(f"experiment is {experiment!r}; expected one of {', '.join(ZESREC)}")
    scale, chosen = scale or current_scale(), range(seeds)
    os.environ["ZSRBOOK_SCALE"] = scale
    names = [name.strip() for name in only.split(";") if name.strip()]
    rows = [row for row in zesrec.systems(scale) if not names or row.name in names]
    if names and len(rows) < len(names):
        raise typer.BadParameter(f"no such row: {', '.join(set(names) - {row.name for row in rows})}; see experiments/zesrec.py, systems()")
    try:
        if experiment == "dataset-bias":
            found, matched = zesrec.dataset_bias(source, target, scale, chosen)
            console.print(f"{matched:,} titles stand in both")
        elif experiment == "zero-shot-no-repeats":
            protocol = zesrec.Protocol(repeats="removed", history="removed")
            found = zesrec.zero_shot(zesrec.load_pair(source, target, scale, repeats=False), chosen, rows, experiment, protocol)
        else:
            pair = zesrec.load_pair(source, target, scale)
            if experiment == "zero-shot":
                found = zesrec.zero_shot(pair, chosen, rows)
            elif experiment == "incremental":
                found = zesrec.incremental(pair, chosen)
            else:
                found = zesrec.zero_shot(pair, chosen, zesrec.deviating(scale), experiment)
        for record in found:
            console.print(f"{record.method:40} Recall@20 {record.mean('Recall@20'):.4f}  {records.write(record)}")
    except (DataError, records.RecordError) as error:
        console.print(f"[red]{error}[/]")
        raise typer.Exit(1) from None


@app.command()
def verify() -> None:
    """Work out the metrics of every record again from its ranks, and count the verdicts; exit code 1 where they differ."""
    found, wrong = records.find(records.RUNS), 0
    for record in found:
        protocol = zesrec.Protocol.of(record.protocol)
        for seed, table in record.ranks.items():
            for name, value in zesrec.summary(table, protocol).items():
                said = record.metrics[name][record.seeds.index(seed)]
                if not math.isclose(said, value, rel_tol=1e-6):
                    console.print(f"[red]{record.path}: {name} of seed {seed} is {said}, but its ranks give {value}[/]")
                    wrong += 1
    console.print(f"{len(found)} records, {wrong} values that their ranks do not give")
    for scale in Scale:
        counts = Counter(str(verdict.outcome) for verdict in ledger.verdicts("zesrec", scale))
        console.print(f"zesrec at {scale}: " + ", ".join(f"{n} {outcome}" for outcome, n in counts.most_common()))
    raise typer.Exit(1 if wrong else 0)


@app.command()
def claims(
    paper: Annotated[str, typer.Argument()] = "zesrec", scale: Annotated[Scale | None, typer.Option(help="default: ZSRBOOK_SCALE")] = None
) -> None:
    """The verdict on each claim of a paper, from the records at this scale."""
    for verdict in ledger.verdicts(paper, scale or current_scale()):
        console.print(f"{verdict.outcome:20} {verdict.claim.id}: {verdict.why}")
