"""``python -m zsrbook run``: run an experiment and record it under ``book/runs``; ``claims``: what the records say of a paper."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from itertools import chain, groupby
from pathlib import Path
from types import ModuleType
from typing import Annotated, TypeVar

import torch
import typer

from zsrbook import claims as ledger
from zsrbook import records
from zsrbook.data import catalogue
from zsrbook.data.dataset import DataError
from zsrbook.evaluation.protocol import Protocol
from zsrbook.experiments import blogcatalog, mail, preprec, prerec, search, zesrec
from zsrbook.parallel import workers
from zsrbook.records import RunRecord
from zsrbook.scale import Scale, cache_folder, current_scale
from zsrbook.terminal import errors_for_people, say
from zsrbook.training import Processes

app = typer.Typer(help="Run experiments and judge claims.", no_args_is_help=True)
runs = typer.Typer(help="Run an experiment of a chapter and record it. Needs a clean working tree.", no_args_is_help=True)
app.add_typer(runs, name="run")

#: what each chapter can run
ZESREC = tuple(zesrec.ROWS)
MAIL = tuple(mail.ROWS)
SEARCH = ("judged", "held-out", "deviations", "encoders", "epochs")
PREREC = (*prerec.ROWS, "tails", "stability", "node2vec")
#: what a person can mend
MENDABLE = (DataError, OSError, records.RecordError, ledger.ClaimError)

Row = TypeVar("Row", zesrec.System, mail.System, search.System, prerec.System, preprec.System)


def public(name: str) -> str:
    """The name of a data set, and no file: what is recorded has to be there for others, too."""
    path = Path(name)
    if name and (path.is_file() or len(path.parts) > 1 or (path.is_dir() and catalogue.own_table(path, "interactions"))):
        raise typer.BadParameter(
            f"{name!r} is no data set that others have, too, as `run` needs; `python -m zsrbook export` learns from files of your own, and"
            " book/your-own-catalogue.md shows how to judge a pair of them"
        )
    return name


Seeds = Annotated[int, typer.Option(min=1, help="how many seeds (or draws), from 0")]
Only = Annotated[str, typer.Option(help="rows to run, split by ';'; default all")]
AtScale = Annotated[Scale | None, typer.Option(help="default: ZSRBOOK_SCALE")]
Force = Annotated[bool, typer.Option("--force", help="replace records that hold more seeds than are asked for")]


@runs.command("zesrec")
def run_zesrec(
    experiment: Annotated[str, typer.Argument(help=f"one of {', '.join(ZESREC)}")],
    source: Annotated[str, typer.Argument(callback=public)],
    target: Annotated[str, typer.Argument(callback=public, help="of a rehearsal: items or kinds, which part of the source plays the target")],
    seeds: Seeds = 5,
    only: Only = "",
    scale: AtScale = None,
    force: Force = False,
) -> None:
    """An experiment of the ZESRec chapter on one pair.

    A record is written when some seeds of its row are there, and grows with each further one. Say the same again after it was stopped,
    and it goes on: with the seeds that this very code has not recorded yet, from the last epoch of each model that it had begun.
    """
    if experiment not in ZESREC:
        raise typer.BadParameter(f"experiment is {experiment!r}; expected one of {', '.join(ZESREC)}")
    scale, chosen = scale or current_scale(), range(seeds)
    if experiment == "rehearsal" and target not in ("items", "kinds"):
        raise typer.BadParameter(f"of a rehearsal the target is items or kinds, not {target!r}")
    if experiment in ("structure-0", "habits") and scale is not Scale.TOY:
        raise typer.BadParameter(f"{experiment} asks for the truth behind the data, which only the toy world knows; say --scale toy")
    rows = named(only, experiment, zesrec.ROWS[experiment](scale))
    with errors_for_people(*MENDABLE):
        records.check_clean()
        version = records.code_version()  # what runs is the code as it is now, whatever is committed meanwhile
        keep = Keeper(version, seeds, force)
        for record in recorded(experiment, source, target, scale, chosen, rows, keep):
            keep(record, "Recall@20")


def drop(checkpoints: Path) -> None:
    """Take away the checkpoints of runs that ended; of several processes the first does, once none goes on from them any more."""
    processes = Processes()
    if processes.count > 1:
        torch.distributed.barrier()
    if processes.rank == 0:
        shutil.rmtree(checkpoints, ignore_errors=True)


def recorded(experiment: str, source: str, target: str, scale: Scale, seeds: range, rows: list[zesrec.System], keep: Keeper) -> Iterator[RunRecord]:
    """The records of an experiment, each as soon as some of its seeds are there, so that a long run that stops early keeps what it has."""
    pair = pair_of(experiment, source, target, scale)

    def place(row: zesrec.System, experiment: str = experiment) -> Path:
        learned = pair.source.name if row.learns_from == "source" else None
        return records.place(zesrec.PAPER, experiment, learned, pair.target.name, row.name, scale)

    if experiment == "habits":
        keep.look(place(row, habit) for row in rows for habit in zesrec.HABITS)
        yield from zesrec.habit_records(zesrec.Bench(pair), rows, seeds)
        return
    protocol = Protocol() if pair.spec.repeats else zesrec.NO_REPEATS
    groups = [list(group) for _, group in groupby(rows, key=lambda row: row.model)]
    known = []
    for group in groups:
        stamp = (pair.source.name if group[0].learns_from == "source" else None, pair.target_split.sha256)
        known.append(carried_on(zesrec, experiment, pair.target.name, scale, stamp, group, keep.version))
    keep.look(map(place, rows), chain.from_iterable(some.values() for some in known))
    for group, there in zip(groups, known, strict=True):
        # a folder a model, so that rows that end leave what others had begun
        learned = sha256(repr(group[0].model).encode()).hexdigest()[:16]
        checkpoints = cache_folder() / "runs" / "-".join((keep.version, experiment, source, target, scale, learned))

        def run(some: list[int], group: list[zesrec.System] = group, checkpoints: Path = checkpoints) -> list[RunRecord]:
            return zesrec.rows_side_by_side(pair, some, group, experiment, protocol, checkpoints)

        yield from grown(there, group[0].seeds(seeds), run)
        drop(checkpoints)
    yield from zesrec.ceiling(pair, experiment, protocol)


def carried_on(
    chapter: ModuleType, experiment: str, target: str, scale: Scale, stamp: tuple[str | None, str], group: list[Row], version: str
) -> dict[str, RunRecord]:
    """Method -> the record that further seeds join, of rows that share a model.

    Args:
        chapter: the experiments' module.
        stamp: source and hash of the data; what was recorded under another one, by other code, or for some of the rows alone, runs anew.
        version: of the code that runs.
    """
    own, names = own_records(chapter, stamp[0], target, scale, version, stamp[1]), {row.name for row in group}
    known = {method: record for (of, method), record in own.items() if of == experiment and method in names}
    return known if known.keys() == names and len({tuple(r.seeds) for r in known.values()}) == 1 else {}


def grown(known: dict[str, RunRecord], seeds: list[int], run: Callable[[list[int]], list[RunRecord]]) -> Iterator[RunRecord]:
    """The records of rows that share a model, after each few seeds that were still to run.

    Args:
        known: as ``carried_on`` gives it; it grows.
        run: some seeds -> a record a row.
    """
    done = next(iter(known.values())).seeds if known else []
    asked = [seed for seed in seeds if seed not in done]
    at_once = workers(len(asked))
    for begin in range(0, len(asked), at_once):
        for record in run(asked[begin : begin + at_once]):
            known[record.method] = known[record.method].with_more_seeds(record) if record.method in known else record
            yield known[record.method]


def pair_of(experiment: str, source: str, target: str, scale: Scale) -> zesrec.Pair:
    """The pair as the experiment needs it."""
    if experiment == "rehearsal":
        return zesrec.load_rehearsal(source, scale, target)
    return zesrec.load_pair(source, target, scale, **zesrec.CHANGES.get(experiment, {}))


def named(only: str, experiment: str, rows: list[Row]) -> list[Row]:
    """The rows that ``only`` names, or all.

    Raises:
        typer.BadParameter: it names a row that is not there.
    """
    names = [name.strip() for name in only.split(";") if name.strip()]
    unknown = [name for name in names if name not in {row.name for row in rows}]
    if unknown:
        raise typer.BadParameter(f"{experiment} has no row {'; '.join(unknown)}; it has {'; '.join(row.name for row in rows)}")
    return [row for row in rows if not names or row.name in names]


@runs.command("mail")
def run_mail(
    experiment: Annotated[str, typer.Argument(help=f"one of {', '.join(MAIL)}")],
    data: Annotated[str, typer.Argument(callback=public, help="such as grocery (toy), ml-100k-stars (small), alimama (paper)")],
    seeds: Seeds = 5,
    only: Only = "",
    scale: AtScale = None,
    force: Force = False,
) -> None:
    """An experiment of the MAIL chapter on one data set.

    A record is written when some seeds of its row are there, and grows with each further one. Say the same again after it was stopped,
    and it goes on with the seeds that this very code has not recorded yet.
    """
    if experiment not in MAIL:
        raise typer.BadParameter(f"experiment is {experiment!r}; expected one of {', '.join(MAIL)}")
    online = experiment == "online"
    spec = mail.Spec(data, scale or current_scale(), strict=online or experiment.endswith("-strict"))
    if online and spec.scale is not Scale.TOY:
        raise typer.BadParameter("online asks what would have been clicked, which only the toy world knows; say --scale toy")
    rows, metric = named(only, experiment, mail.ROWS[experiment](spec.scale)), "click (new)" if online else "AUC (new)"
    with errors_for_people(*MENDABLE):
        records.check_clean()
        version = records.code_version()
        keep = Keeper(version, seeds, force)
        stamp, groups = (None, mail.load(spec).sha256), mail.groups_of(rows)
        known = [carried_on(mail, experiment, data, spec.scale, stamp, group, version) for group in groups]
        ahead = (records.place(mail.PAPER, experiment, None, data, row.name, spec.scale) for row in rows)
        keep.look(ahead, chain.from_iterable(some.values() for some in known))
        for group, there in zip(groups, known, strict=True):

            def run(some: list[int], group: list[mail.System] = group) -> list[RunRecord]:
                return mail.online_records(spec, some, group) if online else mail.run(spec, some, group, experiment)

            asked = list(range(seeds)) if group[0].chance else [0]
            for record in grown(there, asked, run):
                keep(record, metric)
        for record in mail.ceiling(spec, experiment) if experiment.startswith("clicks") else []:
            keep(record, metric)


@runs.command("search")
def run_search(
    experiment: Annotated[str, typer.Argument(help=f"one of {', '.join(SEARCH)}")],
    data: Annotated[str, typer.Argument(callback=public, help="such as grocery (toy), cacm (small)")],
    seeds: Seeds = 5,
    only: Only = "",
    scale: AtScale = None,
    force: Force = False,
) -> None:
    """An experiment of the search chapter on one data set; ``judged`` is all that its labels, its log and its links can judge,
    ``epochs`` what models under cross-entropy find after more steps or fewer, which their epochs were chosen by.

    Records are written seed by seed. Say the same again after it was stopped, and it goes on with the seeds that this very code has not
    recorded yet.
    """
    if experiment not in SEARCH:
        raise typer.BadParameter(f"experiment is {experiment!r}; expected one of {', '.join(SEARCH)}")
    spec = search.Spec(data, scale or current_scale(), held_out=experiment == "held-out")
    with errors_for_people(*MENDABLE):
        records.check_clean()
        version = records.code_version()
        keep = Keeper(version, seeds, force)
        rows_of_it = {"deviations": search.deviating, "encoders": search.encoding, "epochs": search.by_epochs}.get(experiment)
        rehearsed, suffix = experiment == "epochs", f"-{experiment}" if rows_of_it else ""
        rows = named(only, experiment, (rows_of_it or search.systems)(spec))
        known = own_records(search, None, data, spec.scale, version, search.load(spec).sha256)
        models: dict[int, dict] = {seed: {} for seed in range(seeds)}  # rows of one seed stand on one another

        def ways(row: search.System) -> list[tuple[str, str]]:
            there = search.rehearsals(spec, row) if rehearsed else [way + suffix for way in search.judged(spec, row)]
            return [(way, row.name) for way in there]

        keep.look((records.place(search.PAPER, way, None, data, name, spec.scale) for row in rows for way, name in ways(row)), known.values())

        def run(row: search.System, seed: int) -> list[RunRecord]:
            if rehearsed:
                return search.rehearsed(spec, row, seed)
            return search.records_of(spec, row, {seed: search.scored(spec, [row], seed, models[seed])[row.name]}, suffix)

        for record in seed_by_seed(known, rows, range(seeds), ways, lambda row: row.chance, run):
            keep(record, next(iter(record.metrics)))
        for record in search.ceiling(spec) if not suffix else []:
            keep(record, next(iter(record.metrics)))


@runs.command("prerec")
def run_prerec(
    experiment: Annotated[str, typer.Argument(help=f"one of {', '.join(PREREC)}")],
    data: Annotated[str, typer.Argument(callback=public, help="such as grocery (toy), ml-1m (small), or all")],
    source: Annotated[str, typer.Option(callback=public, help="of a transfer: what was learned from; default every other data set")] = "",
    seeds: Seeds = 5,
    only: Only = "",
    scale: AtScale = None,
    force: Force = False,
) -> None:
    """An experiment of the PreRec chapter on one data set, or on all of them in turn.

    Records are written seed by seed. Say the same again after it was stopped, and it goes on with the seeds that this very code has not
    recorded yet.
    """
    if experiment not in PREREC:
        raise typer.BadParameter(f"experiment is {experiment!r}; expected one of {', '.join(PREREC)}")
    if experiment == "stability" and seeds < 2:
        raise typer.BadParameter("stability compares seeds; ask for 2 or more")
    if only and experiment not in prerec.ROWS:
        raise typer.BadParameter(f"{experiment} has no rows to choose from, but --only {only!r} was given; leave it out")
    scale = scale or current_scale()
    with errors_for_people(*MENDABLE):
        records.check_clean()
        version = records.code_version()
        keep = Keeper(version, seeds, force)
        asked = prerec.tasks(experiment, data, source, scale)
        if experiment == "node2vec":  # a graph with labels in the place of a matrix
            graph = catalogue.load_graph(data)
            keep.look(records.place(prerec.PAPER, experiment, None, graph.name, name, Scale.SMALL) for name in blogcatalog.VARIANTS)
            for record in blogcatalog.records(graph, range(seeds)):
                keep(record, "macro")
            return
        if experiment == "tails":  # nothing is trained
            for spec, _ in asked:
                for record in prerec.tail_records(spec):
                    keep(record, "exponent")
            return
        if experiment == "stability":
            keep.look(records.place(prerec.PAPER, experiment, None, spec.label, prerec.STABLE, scale) for spec, _ in asked)
            for spec, _ in asked:
                keep(prerec.stability_record(spec, range(seeds)), "adjusted Rand index")
            return
        makes, drawn, todo = partial(prerec.made_by, experiment), partial(prerec.draws, experiment), []
        for spec, of in asked:
            rows, learned = named(only, experiment, prerec.ROWS[experiment](of or spec)), of and of.label
            known = own_records(prerec, learned, spec.label, scale, version, prerec.load(spec).sha256)
            ahead = (records.place(prerec.PAPER, kind, learned, spec.label, name, scale) for row in rows for kind, name in makes(row))
            keep.look(ahead, known.values())
            todo.append((spec, of, rows, known))
        for spec, of, rows, known in todo:

            def run(row: prerec.System, seed: int, spec: prerec.Spec = spec, of: prerec.Spec | None = of) -> list[RunRecord]:
                return prerec.run(spec, experiment, [seed], [row], of)

            for record in seed_by_seed(known, rows, range(seeds), makes, drawn, run):
                keep(record, "NDCG@20")


@runs.command("preprec")
def run_preprec(
    data: Annotated[
        str, typer.Argument(callback=public, help="with time stamps, such as grocery (toy), ml-100k (small); or all, with the chapter's transfers")
    ],
    source: Annotated[str, typer.Option(callback=public, help="of a transfer: what was learned from")] = "",
    deviations: Annotated[bool, typer.Option("--deviations", help="in place of the rows: PrepRec with one decision at a time undone")] = False,
    seeds: Seeds = 5,
    only: Only = "",
    scale: AtScale = None,
    force: Force = False,
) -> None:
    """PrepRec, the successor in the PreRec chapter, beside popularity that looks at the clock.

    Records are written seed by seed. Say the same again after it was stopped, and it goes on with the seeds that this very code has not
    recorded yet.
    """
    scale = scale or current_scale()
    with errors_for_people(*MENDABLE):
        records.check_clean()
        version = records.code_version()
        keep = Keeper(version, seeds, force)
        todo = []
        experiment, rows_of = (preprec.DEVIATIONS, preprec.deviating) if deviations else (preprec.EXPERIMENT, preprec.systems)
        for spec, of in preprec.tasks(data, source, scale):
            rows, learned = named(only, experiment, rows_of(spec, of)), of and of.name
            known = own_records(preprec, learned, spec.name, scale, version, preprec.load(spec).sha256)
            keep.look((records.place(preprec.PAPER, experiment, learned, spec.name, row.name, scale) for row in rows), known.values())
            todo.append((spec, of, rows, known))
        for spec, of, rows, known in todo:

            def run(row: preprec.System, seed: int, spec: preprec.Spec = spec, of: preprec.Spec | None = of) -> list[RunRecord]:
                return preprec.run(spec, [seed], [row], of)

            for record in seed_by_seed(known, rows, range(seeds), lambda row: [(row.experiment, row.name)], lambda row: row.chance, run):
                keep(record, "NDCG@20")


def own_records(
    chapter: ModuleType, source: str | None, target: str, scale: Scale, version: str, data_sha256: str
) -> dict[tuple[str, str], RunRecord]:
    """(experiment, method) -> what this very code of a chapter's experiments has recorded on this very data; source None where the target
    itself was learned from. A commit that leaves alone all that these experiments import is this very code, too."""
    found, stamp = records.find(records.RUNS, paper=chapter.PAPER, target=target, scale=scale), (source, data_sha256)
    mine = (r for r in found if (r.source, r.data_sha256) == stamp and records.same_code(r.code_version, version, chapter.__name__))
    return {(r.experiment, r.method): r for r in mine}


def seed_by_seed(
    known: dict[tuple[str, str], RunRecord],
    rows: list[Row],
    seeds: Iterable[int],
    makes: Callable[[Row], list[tuple[str, str]]],
    drawn: Callable[[Row], bool],
    run: Callable[[Row, int], list[RunRecord]],
) -> Iterator[RunRecord]:
    """The records of rows that may make several each, one seed after the other, each as soon as it has grown by a seed.

    Args:
        known: (experiment, method) -> what this very code has recorded; it grows.
        makes: which records a row makes.
        drawn: whether chance plays a part in a row; if not, seed 0 is all.
        run: one seed of one row.
    """
    for seed in seeds:
        for row in rows:
            if (seed and not drawn(row)) or all(key in known and seed in known[key].seeds for key in makes(row)):
                continue
            for record in run(row, seed):
                key = record.experiment, record.method
                if key in known and seed in known[key].seeds:
                    continue  # the run before stopped between two records of this row
                known[key] = known[key].with_more_seeds(record) if key in known else record
                yield known[key]


@dataclass(frozen=True)
class Keeper:
    """Writes what one command finds, as what this code has found, and says so; never in the place of a record that holds more seeds.

    A record may begin with fewer seeds than the one that it replaces, as long as it will have as many in the end. Where several processes
    share a run, all find the same, and the first of them writes.

    Attributes:
        version: the code that runs.
        seeds: how many were asked for.
        force: whether a record that holds more may go.
    """

    version: str
    seeds: int
    force: bool

    def look(self, ahead: Iterable[Path], known: Iterable[RunRecord] = ()) -> None:
        """Stop before anything is trained, where what is to come may not be written.

        Args:
            ahead: the paths of the records to come.
            known: those of them that further seeds will join.

        Raises:
            RecordError: a record that would go holds more seeds than were asked for.
        """
        for path in sorted(set(ahead) - {record.path for record in known}):
            self._refuse(path, self.seeds)

    def __call__(self, record: RunRecord, metric: str) -> None:
        """Write a record, if this is the first process.

        Raises:
            RecordError: it may not, so nothing is written.
        """
        if Processes().rank:
            return
        self._refuse(record.path, max(self.seeds, len(record.seeds)))
        path = records.write(replace(record, code_version=self.version), root=records.RUNS)
        say(f"{record.method:40} {metric} {record.mean(metric):.4f}  {path}")

    def _refuse(self, where: Path, seeds: int) -> None:
        path = records.RUNS / where
        if self.force or not path.exists():
            return
        there = records.read(path)
        if len(there.seeds) > seeds:
            raise records.RecordError(
                f"{path} holds {len(there.seeds)} seeds of code version {there.code_version[:8]}, and what runs now would leave {seeds} in"
                f" their place; ask for --seeds {len(there.seeds)} or more, or say --force to replace them"
            )


@app.command()
def verify() -> None:
    """Work out the metrics of every record again from its ranks, and count the verdicts; exit code 1 where they differ."""
    wrong = 0
    with errors_for_people(*MENDABLE):
        found = records.find(records.RUNS)
        for record in found:
            for line in record.contradictions():
                say(line)
                wrong += 1
        say(f"{len(found)} records, {wrong} values that their ranks do not give")
        for scale in Scale:
            for paper in sorted(path.stem for path in ledger.CLAIMS.glob("*.yml")):
                say(f"{paper} at {scale}: {ledger.verdicts(paper, scale, root=records.RUNS).counted()}")
    raise typer.Exit(1 if wrong else 0)


@app.command()
def claims(paper: Annotated[str, typer.Argument()] = "zesrec", scale: AtScale = None) -> None:
    """The verdict on each claim of a paper, from the records at this scale."""
    with errors_for_people(*MENDABLE):
        scale = scale or current_scale()
        verdicts = ledger.verdicts(paper, scale, root=records.RUNS)
        say(f"{paper} at scale {scale}, {len(verdicts)} claims")
        for verdict in verdicts:
            say(f"{verdict.outcome:20} {verdict.claim.id}: {verdict.reason}")
