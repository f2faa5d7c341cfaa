"""Where each target stands in the full catalogue, counted in one pass over the scores.

A rank is kept as two counts, the candidates that score strictly higher and those that score the same, so that every cut-off,
every tie rule and every sampled protocol can be worked out later without the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zsrbook.data.dataset import Columns, DataError
from zsrbook.data.splits import Fold
from zsrbook.models.base import Recommender


@dataclass(frozen=True)
class RankTable:
    """One row a prediction; every column is (n,) int32.

    Attributes:
        user: code of the user in the data set of the fold.
        position: how many items stand before the target in the user's history.
        target: item code of the target.
        greater: candidates that score strictly higher than the target.
        ties: other candidates with the same score.
        n_candidates: size of the candidate set, the target included.
    """

    user: np.ndarray
    position: np.ndarray
    target: np.ndarray
    greater: np.ndarray
    ties: np.ndarray
    n_candidates: np.ndarray

    @classmethod
    def of(cls, greater: list[int], ties: list[int], n_candidates: int, user: list[int] | None = None) -> RankTable:
        """A small table by hand, for examples and tests; every target is item 0.

        >>> RankTable.of(greater=[0, 4], ties=[0, 0], n_candidates=5).n_candidates
        array([5, 5], dtype=int32)
        """
        n = len(greater)
        columns = (np.arange(n) if user is None else user, np.ones(n), np.zeros(n), greater, ties, np.full(n, n_candidates))
        return cls(*(np.asarray(c).astype(np.int32) for c in columns))

    def __len__(self) -> int:
        return len(self.user)

    def where(self, keep: np.ndarray) -> RankTable:
        """The predictions that the mask (or the indices) keeps."""
        return RankTable(*(getattr(self, f.name)[keep] for f in fields(self)))


def rank_targets(model: Recommender, fold: Fold, *, remove_history: bool = False, last_only: bool = False) -> RankTable:
    """Rank every target of the fold in the whole catalogue, given what stands before it.

    NaN ranks last: a NaN target loses to every number and ties with every other NaN.

    Args:
        remove_history: take the items that the user already had out of the candidates; a target that the user had before stays.
        last_only: the newest target of each user alone.

    Raises:
        DataError: the fold has no targets, or the model scores another catalogue than the fold's.
    """
    sequences, data = fold.sequences, fold.data
    at = np.flatnonzero(fold.targets)
    rows = np.searchsorted(sequences.starts, at, side="right") - 1
    if last_only:
        newest = np.append(rows[1:] != rows[:-1], True)[: len(at)]
        at, rows = at[newest], rows[newest]
    if not len(at):
        raise DataError(
            f"{data.name}: the fold holds {len(data)} interactions but no target; nothing to rank:"
            " a target follows something that the same user took, so where nobody took two there is none"
        )
    if model.n_items != data.n_items:
        raise DataError(
            f"{type(model).__name__} scores {model.n_items} items, but {data.name} has {data.n_items};"
            " rank with model.transfer(target), or with a model fitted on this catalogue"
        )
    # an item's first time in a history is also its first time in every longer prefix, so one mask makes all prefixes distinct
    first = ~data.interactions.duplicated([Columns.USER, Columns.ITEM]).to_numpy() if remove_history else None
    counts = np.zeros((3, len(at)), np.int32)  # greater, ties, candidates
    with torch.no_grad():
        for chunk, scores in model.prefix_scores(sequences, at):
            target = torch.as_tensor(sequences.items[chunk], dtype=torch.long, device=scores.device)
            own = scores.gather(1, target[:, None])  # (n, 1)
            greater, equal = (c.sum(1, dtype=torch.int32) for c in _compare(scores, own))  # (n,) each; int32 halves the time
            candidates = torch.full_like(greater, data.n_items)
            if remove_history:
                row, item = _history(sequences.starts, sequences.items, first, chunk)
                row, item = torch.as_tensor(row, device=scores.device), torch.as_tensor(item, dtype=torch.long, device=scores.device)
                taken = _compare(scores[row, item], own[row, 0])
                greater -= torch.bincount(row[taken[0]], minlength=len(chunk))
                equal -= torch.bincount(row[taken[1]], minlength=len(chunk))
                candidates -= torch.bincount(row, minlength=len(chunk))
            # models may serve the indices in an order of their own
            counts[:, np.searchsorted(at, chunk)] = torch.stack([greater, equal - 1, candidates]).cpu().numpy()
    return RankTable(sequences.users[rows].astype(np.int32), sequences.positions[at].astype(np.int32), sequences.items[at].astype(np.int32), *counts)


def _compare(scores: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Which scores beat the target's own, and which equal it, with NaN below every number and equal to itself."""
    greater, equal = scores > own, scores == own
    lost = own.isnan()
    if lost.any():
        missing = scores.isnan()
        greater |= lost & ~missing
        equal |= lost & missing
    return greater, equal


def _history(starts: np.ndarray, items: np.ndarray, first: np.ndarray, chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(row in the chunk, item) for each distinct item that stands before each target, the target itself left out."""
    begin = starts[np.searchsorted(starts, chunk, side="right") - 1]
    lengths = chunk - begin
    row = np.repeat(np.arange(len(chunk)), lengths)
    flat = np.arange(len(row)) + np.repeat(begin - (np.cumsum(lengths) - lengths), lengths)
    keep = first[flat] & (items[flat] != items[chunk][row])
    return row[keep], items[flat[keep]]


#: columns in a file; the first two change slowly along the table, and so take next to no space as differences
_SLOW = ("user", "position")
_COLUMNS = (*_SLOW, "greater", "ties", "n_candidates")


def save_ranks(path: Path, tables: Mapping[int, RankTable], limit: int | None = None) -> list[int]:
    """Write the tables of one or more seeds as a compressed ``.npz`` (no pickle); a column that all seeds share is written once.

    Integers take the narrowest type that holds them. Targets are left out, since user and position name them in the split, and
    they would double the file. ``limit`` and what comes back are those of ``write_seeds``.
    """
    first = next(iter(tables.values()), None)

    def arrays() -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for seed, table in tables.items():
            columns = {name: getattr(table, name) for name in _COLUMNS}
            own = {name: c for name, c in columns.items() if table is first or not np.array_equal(c, getattr(first, name))}
            yield seed, {f"{name}.{seed}": _narrow(np.diff(c, prepend=0) if name in _SLOW else c) for name, c in own.items()}

    return write_seeds(path, {}, arrays(), limit)


def write_seeds(path: Path, shared: Mapping[str, np.ndarray], seeds: Iterable[tuple[int, Mapping[str, np.ndarray]]], limit: int | None) -> list[int]:
    """Write what all seeds share, and the arrays of each seed in the order given while they fit into ``limit`` bytes; the first one always is.

    Returns:
        the seeds that were written, which stand in the file as ``seeds``.
    """
    arrays, written = dict(shared), []
    for seed, new in seeds:
        _write(path, {**arrays, **new, "seeds": np.array([*written, seed])})
        if written and limit is not None and path.stat().st_size > limit:
            _write(path, {**arrays, "seeds": np.array(written)})
            break
        arrays |= new
        written.append(seed)
    return written


def load_ranks(path: Path) -> dict[int, RankTable]:
    """What ``save_ranks`` wrote: one table a seed, with -1 for every target."""
    with np.load(path, allow_pickle=False) as file:
        columns = {entry: file[entry] for entry in file.files}  # each is unpacked once, also what all seeds share
    seeds = columns.pop("seeds").tolist()
    for entry, column in columns.items():
        columns[entry] = np.cumsum(column, dtype=np.int32) if entry.partition(".")[0] in _SLOW else column.astype(np.int32)
    tables = {}
    for seed in seeds:
        own = {name: columns.get(f"{name}.{seed}", columns[f"{name}.{seeds[0]}"]) for name in _COLUMNS}
        tables[seed] = RankTable(target=np.full(len(own["user"]), -1, np.int32), **own)
    return tables


def _narrow(column: np.ndarray) -> np.ndarray:
    """The same integers in the narrowest type that holds them all."""
    bounds = (column.min(initial=0), column.max(initial=0))
    return column.astype(np.result_type(*(np.min_scalar_type(int(b)) for b in bounds)))


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with path.open("wb") as file:  # an open file, since numpy adds .npz to a bare name that lacks it
        np.savez_compressed(file, **arrays)
