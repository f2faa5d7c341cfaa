"""Run records: what was run, on what, with which result, so that any number of the book can be traced and recomputed.

A record is a JSON file ``<root>/<paper>/<experiment>/<source>--<target>/<method>.<scale>.json`` (no source: just ``<target>``).
The ranks of all test targets stand beside it under the same name as ``.npz``, for the seeds that fit into ``RANKS_LIMIT``.
"""

from __future__ import annotations

import ast
import inspect
import json
import math
import os
import platform
import re
import subprocess
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import date
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from zsrbook.cache import whole, write_whole
from zsrbook.evaluation.clicks import ClickProtocol, ClickRanks
from zsrbook.evaluation.intervals import PerUser
from zsrbook.evaluation.matrix import MatrixProtocol
from zsrbook.evaluation.protocol import Protocol
from zsrbook.evaluation.ranks import RankTable
from zsrbook.evaluation.retrieval import SearchProtocol
from zsrbook.scale import Scale

REPOSITORY = Path(__file__).resolve().parents[1]
#: the same, for readers of the pages
ADDRESS = "https://github.com/zsrbook/zsrbook"
#: the records that the book shows
RUNS = REPOSITORY / "book" / "runs"
#: bytes of ranks beside one record; the repository must stay light
RANKS_LIMIT = 450_000

AnyProtocol = Protocol | ClickProtocol | SearchProtocol | MatrixProtocol

_PACKAGES = ("torch", "numpy", "pandas", "scipy", "scikit-learn", "transformers")


class RecordError(ValueError):
    """A record that can't be written or read, said so that a person can act."""


def code_version(of: type | None = None) -> str:
    """The git commit of the package's own repository, or ``unknown`` where there is none, or where it knows no file with the class ``of``."""
    try:
        if of is not None:
            _git("ls-files", "--error-unmatch", str(Path(inspect.getfile(of)).resolve()))
        return _git("rev-parse", "HEAD").strip()
    except (RecordError, TypeError, OSError):  # a class of a notebook has no file at all
        return "unknown"


@lru_cache(maxsize=256)  # one command asks of the same few commits for each pair of data sets
def same_code(old: str, new: str, module: str) -> bool:
    """Whether two commits have one and the same of a module of this package and of all that it imports from here, however far down.

    Other chapters, pages and records may have changed in between. Where git can't tell, such as of a commit that the clone lacks, they differ.
    """
    if old == new:
        return True
    found, todo = set(), [module]
    while todo:
        name = todo.pop()
        base = REPOSITORY.joinpath(*name.split("."))
        path = next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.exists()), None)
        if path is None or path in found:  # a name in a module, or one that was seen before
            continue
        found.add(path)
        todo.append(name.rpartition(".")[0] or name)  # the package that it is in runs first
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                todo += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                todo += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    try:
        return not _git("diff", "--name-only", old, new, "--", *map(str, sorted(found)))
    except RecordError:
        return False


def packages() -> dict[str, str]:
    """Versions of Python and of the packages that can change a result."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def device() -> str:
    """The hardware in words: the GPU's name, or the processor and its cores.

    >>> device() != ""
    True
    """
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU {platform.machine()}, {os.cpu_count()} cores"


def _today() -> str:
    return date.today().isoformat()


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One method in one experiment on one pair of data sets.

    Attributes:
        paper: such as ``zesrec``.
        experiment: such as ``zero-shot``.
        source: name of the data that the method learned from, or None where it is the target itself.
        target: name of the data that it was judged on.
        method: as tables print it, such as ``ZESRec-H`` or ``HRNN@2000``.
        scale: ``toy``, ``small`` or ``paper``.
        protocol: ``Protocol.settings()``, or those of ``ClickProtocol``, ``SearchProtocol`` or ``MatrixProtocol``.
        config: the settings of the method.
        seeds: one or more.
        metrics: name -> one value a seed, in the order of ``seeds``.
        data_sha256: ``Split.sha256`` of the target's split; only records that agree in it are compared.
        minutes: of training, all seeds together, by the clock on the wall: what a reader with such a device waits. A process that is held up,
            or a neighbour on its cores, adds to it; processor time would leave a GPU out, and count each core.
        device, packages, code_version, date: where (and in what precision, if the settings leave it open), with what and when; filled in by
            themselves.
        ranks: seed -> ranks of all test targets, or of all test impressions; not in the JSON file but beside it, and maybe not for all
            seeds.
        strays: seeds whose ranks stand beside the JSON file, though it does not name them, as where a run was killed while it wrote; they
            are left out of ``ranks``.

    Raises:
        RecordError: a value that does not fit the others.
    """

    paper: str
    experiment: str
    source: str | None = None
    target: str
    method: str
    scale: str
    protocol: dict
    config: dict
    seeds: list[int]
    metrics: dict[str, list[float]]
    data_sha256: str
    minutes: float
    device: str = field(default_factory=device)
    packages: dict[str, str] = field(default_factory=packages)
    code_version: str = field(default_factory=code_version)
    date: str = field(default_factory=_today)
    ranks: Mapping[int, RankTable | ClickRanks] = field(default_factory=dict, repr=False, compare=False)
    strays: tuple[int, ...] = field(default=(), repr=False, compare=False)
    _per_user: dict[str, PerUser] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        where = f"record {self.path}"
        if self.scale not in list(Scale):
            raise RecordError(f"{where}: scale is {self.scale!r}; expected one of {', '.join(Scale)}")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise RecordError(f"{where}: seeds are {self.seeds}; expected one or more, each once")
        for name, per_seed in self.metrics.items():
            if len(per_seed) != len(self.seeds) or not all(map(math.isfinite, per_seed)):
                raise RecordError(f"{where}: metric {name} has {per_seed}; expected one finite value for each of the seeds {self.seeds}")
        if set(self.ranks) - set(self.seeds):
            raise RecordError(f"{where}: ranks of seeds {sorted(set(self.ranks) - set(self.seeds))}, which are not among the seeds {self.seeds}")
        try:
            protocol_of(self.protocol)
        except (TypeError, ValueError) as error:
            raise RecordError(f"{where}: {error}") from None

    @property
    def pair(self) -> str:
        """``source--target``, or the target alone."""
        return f"{self.source}--{self.target}" if self.source else self.target

    @property
    def path(self) -> Path:
        """Where the record stands below the root."""
        return place(self.paper, self.experiment, self.source, self.target, self.method, self.scale)

    def mean(self, metric: str) -> float:
        """The mean over seeds.

        Raises:
            RecordError: the record lacks that metric.
        """
        if metric not in self.metrics:
            raise RecordError(f"record {self.path} has no {metric}; it has {', '.join(self.metrics)}")
        return math.fsum(self.metrics[metric]) / len(self.seeds)

    def with_more_seeds(self, more: RunRecord) -> RunRecord:
        """This record and further seeds of the same run as one; with what and when are those of ``more``, where are those of both."""
        where = "; ".join(dict.fromkeys([*self.device.split("; "), more.device]))
        metrics = {name: [*values, *more.metrics[name]] for name, values in self.metrics.items()}
        joined = {"seeds": [*self.seeds, *more.seeds], "metrics": metrics, "minutes": round(self.minutes + more.minutes, 3)}
        return replace(more, config=self.config, ranks={**self.ranks, **more.ranks}, device=where, **joined)

    def where_answered(self, by: RunRecord) -> RunRecord:
        """This record of a search on those queries alone that another method of the same data answers, since it knows a word of them.

        Raises:
            RecordError: no ranks stand beside one of the two, the two are of different data, or no query is left.
        """
        if not self.ranks or not by.ranks or self.data_sha256 != by.data_sha256:
            raise RecordError(f"record {self.path} can't be held to what {by.path} answers: both need ranks, on the same data")
        theirs = next(iter(by.ranks.values()))
        answered = theirs.user[theirs.greater < theirs.n_candidates]  # a query of unknown words has all candidates before the target
        return self.on_queries(answered, f"that {by.path} answers")

    def on_queries(self, queries: np.ndarray, which: str) -> RunRecord:
        """This record of a search on these queries alone, of the seeds whose ranks are there.

        Args:
            queries: numbers, as ranks have them for users.
            which: what they have in common, for the error.

        Raises:
            RecordError: no ranks stand beside the record, or none of the queries is in them.
        """
        tables = {seed: table.where(np.isin(table.user, queries)) for seed, table in self.ranks.items()}
        if not tables:
            raise RecordError(f"record {self.path} has no ranks beside it, so it is not known for queries {which}")
        if not all(map(len, tables.values())):
            raise RecordError(f"record {self.path} has no query {which}")
        protocol = protocol_of(self.protocol)
        names = tuple(name for name in self.metrics if protocol.knows(name))
        sums = [protocol.summary(table, names) for table in tables.values()]
        return replace(self, seeds=list(tables), metrics={name: [s[name] for s in sums] for name in names}, ranks=tables)

    def contradictions(self) -> Iterator[str]:
        """What the metrics say and the ranks do not, a line each; and ranks of which the metrics say nothing."""
        if self.strays:
            yield f"{self.path}: ranks of seeds {list(self.strays)} stand beside it, which are not among the seeds {self.seeds}; run them again"
        protocol = protocol_of(self.protocol)
        names = tuple(name for name in self.metrics if protocol.knows(name))
        for seed, table in self.ranks.items():
            for name, value in protocol.summary(table, names).items():
                said = self.metrics[name][self.seeds.index(seed)]
                if not math.isclose(value, said, rel_tol=1e-6, abs_tol=1e-9):
                    yield f"{self.path}: {name} of seed {seed} is {said}, but its ranks give {value}"

    def knows_users(self, metric: str) -> bool:
        """Whether ``per_user`` can tell this metric."""
        return bool(self.ranks) and metric in self.metrics and protocol_of(self.protocol).knows(metric)

    def per_user(self, metric: str) -> PerUser:
        """A metric such as ``Recall@20`` user by user, under the record's own protocol, and in whole of the seeds without ranks; worked out once.

        Raises:
            RecordError: no ranks stand beside the record.
        """
        if not self.ranks:
            raise RecordError(f"record {self.path} has no ranks beside it, so {metric} is not known user by user")
        if metric not in self._per_user:
            known = dict(zip(self.seeds, self.metrics[metric], strict=True)) if metric in self.metrics else {}
            more = {seed: value for seed, value in known.items() if seed not in self.ranks}
            self._per_user[metric] = replace(protocol_of(self.protocol).per_user(self.ranks, metric), more=more)
        return self._per_user[metric]


def protocol_of(settings: Mapping[str, str | float | None]) -> AnyProtocol:
    """The rules behind a record: of clicks, of search or of a matrix where its settings say so, else of ranked targets.

    Raises:
        ValueError, TypeError: an unknown name or value.
    """
    tasks, task = {"clicks": ClickProtocol, "search": SearchProtocol, "matrix": MatrixProtocol}, settings.get("task")
    return tasks[task](**settings) if task in tasks else Protocol.of(dict(settings))


def place(paper: str, experiment: str, source: str | None, target: str, method: str, scale: str) -> Path:
    """Where a record stands below the root.

    Raises:
        RecordError: no file can be named after the method.

    >>> place("zesrec", "zero-shot", "grocery", "pantry", "ZESRec-G (tuned)", "toy").as_posix()
    'zesrec/zero-shot/grocery--pantry/zesrec-g-tuned.toy.json'
    """
    if not slug(method):
        raise RecordError(f"method is {method!r}; its record is a file of that name, so there has to be a letter from a to z in it, or a digit")
    return Path(paper, experiment, f"{source}--{target}" if source else target, f"{slug(method)}.{scale}.json")


def slug(method: str) -> str:
    """The method's name as a file name.

    >>> slug("Emb-KNN (last, cosine)"), slug("HRNN@2000")
    ('emb-knn-last-cosine', 'hrnn-2000')
    """
    return "-".join(re.findall(r"[a-z0-9]+", method.lower()))


def check_clean() -> None:
    """Stop where the code that runs is not the code of a commit; call it before hours of work, not only after.

    Raises:
        RecordError: files other than records differ from the last commit.
    """
    dirty = _git("status", "--porcelain", "--", ".", ":(exclude)book/runs").splitlines()
    if dirty:
        listed = ", ".join(line[3:] for line in dirty[:5]) + (" …" if len(dirty) > 5 else "")
        raise RecordError(f"{len(dirty)} files differ from the last commit ({listed}); commit them, so that the record can name the code that ran")


def write(record: RunRecord, ranks: Mapping[int, RankTable | ClickRanks] | None = None, root: Path = RUNS) -> Path:
    """Write a record and its ranks, each whole or not at all.

    The ranks are moved into place first: if the run is killed before the record follows, ``read`` leaves out those of seeds that the record
    lacks, ``contradictions`` tells of them, and the next run, which makes these seeds again, mends it.

    Args:
        ranks: seed -> table; default ``record.ranks``. Seeds are kept in order as long as they fit into ``RANKS_LIMIT``.

    Returns:
        the path of the JSON file.

    Raises:
        RecordError: files other than records differ from the last commit, or no commit holds the model, so that the code version would not
            name the code that ran; the metrics are not what the ranks give; or the record of another method stands in this place.
    """
    check_clean()
    if record.code_version == "unknown":
        raise RecordError(f"record {record.path}: no commit of {REPOSITORY} has the code of the model; put it into a file, commit it, and run again")
    ranks = record.ranks if ranks is None else ranks
    for wrong in replace(record, ranks=ranks, strays=()).contradictions():
        raise RecordError(f"record {wrong}; pass the ranks of this very run")
    path = root / record.path
    beside = path.with_suffix(".npz")
    _refuse_another(path, record.method)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({name: getattr(record, name) for name in _KEYS}, indent=1, ensure_ascii=False, allow_nan=False, default=_plain) + "\n"
    with whole(path) as temporary:  # written before the ranks, so that nothing is left to do between the two moves
        temporary.write_text(text, encoding="utf-8")
        if ranks:
            write_whole(beside, lambda other: protocol_of(record.protocol).save(other, ranks, RANKS_LIMIT))
        else:
            beside.unlink(missing_ok=True)
    return path


def _refuse_another(path: Path, method: str) -> None:
    """Raises RecordError if the record there is of another method, whose name makes the same file name."""
    try:
        there = json.loads(path.read_text(encoding="utf-8"))["method"]
    except (FileNotFoundError, ValueError, KeyError):  # none, or one that was cut short and is to be written again
        return
    if there != method:
        raise RecordError(f"{path} is the record of {there}, whose place {method} would take; give {method} a name that differs in letters or digits")


def read(path: Path) -> RunRecord:
    """A record and the ranks beside it, of its seeds alone; one and the same object for as long as the two files stay as they are.

    Raises:
        RecordError: not JSON, or a key is missing, unknown or holds what it can't, or the ranks are damaged; the file is named.
    """
    beside = path.with_suffix(".npz")
    return _read(path, beside, *((s.st_ino, s.st_mtime_ns, s.st_size) for s in (p.stat() for p in (path, beside) if p.exists())))


@lru_cache(maxsize=2048)  # a page asks for the same records in many places, and unpacking them would be most of its time
def _read(path: Path, beside: Path, *stamps: tuple[int, ...]) -> RunRecord:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecordError(f"{path}: no JSON ({error}); run the experiment again") from None
    if not isinstance(found, dict):
        raise RecordError(f"{path}: holds {found!r:.60}; expected an object with keys {', '.join(_KEYS)}")
    for what, keys in (("lacks", set(_KEYS) - set(found)), ("has unknown", set(found) - set(_KEYS))):
        if keys:
            raise RecordError(f"{path}: {what} keys {', '.join(sorted(keys))}; expected {', '.join(_KEYS)}")
    for key, value in found.items():
        kinds = _KINDS.get(key, (str,))
        if not isinstance(value, kinds):
            raise RecordError(f"{path}: {key} is {value!r:.60}; expected a {' or '.join(kind.__name__ for kind in kinds)}; run the experiment again")
    try:
        ranks = protocol_of(found["protocol"]).load(beside) if beside.exists() else {}
        strays = tuple(seed for seed in ranks if seed not in found["seeds"])
        return RunRecord(**found, ranks={seed: table for seed, table in ranks.items() if seed not in strays}, strays=strays)
    except (BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise RecordError(f"{beside}: these ranks can't be read ({error}); run the experiment again") from None
    except (RecordError, TypeError, ValueError) as error:
        raise RecordError(f"{path}: {error}") from None


def find(
    root: Path = RUNS,
    *,
    paper: str | None = None,
    experiment: str | None = None,
    source: str | None = None,
    target: str | None = None,
    method: str | None = None,
    scale: str | None = None,
) -> list[RunRecord]:
    """All records that agree with what is given, in the order of their paths; none is an empty list."""
    asked = {"paper": paper, "experiment": experiment, "source": source, "target": target, "method": method, "scale": scale}
    pattern = f"{paper or '*'}/{experiment or '*'}/*/{slug(method) if method else '*'}.{scale or '*'}.json"
    records = [read(path) for path in sorted(root.glob(pattern))]
    return [r for r in records if all(value is None or getattr(r, name) == value for name, value in asked.items())]


#: what JSON must hold for a key, where it is no text
_KINDS = {
    "source": (str, type(None)),
    "seeds": (list,),
    "minutes": (int, float),
    **dict.fromkeys(("protocol", "config", "metrics", "packages"), (dict,)),
}
_KEYS = tuple(f.name for f in fields(RunRecord) if f.name not in ("ranks", "strays", "_per_user"))


def _plain(value: object) -> object:
    """What JSON does not know: NumPy numbers as numbers, paths and the like as text."""
    return value.item() if isinstance(value, np.generic) else str(value)


def _git(*arguments: str) -> str:
    # an installed copy may lie inside somebody else's clone, whose commit says nothing about this code: don't look above
    env = os.environ | {"GIT_CEILING_DIRECTORIES": str(REPOSITORY.parent)}
    try:
        return subprocess.run(["git", *arguments], cwd=REPOSITORY, env=env, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        raise RecordError("git is not installed; records are written from a git clone, so that they can name the code that ran") from None
    except subprocess.CalledProcessError as error:
        raise RecordError(f"{REPOSITORY} is no git clone ({error.stderr.strip()}); records are written from one, to name the code that ran") from None
