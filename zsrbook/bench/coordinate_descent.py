"""Rows of ``make bench`` for the square-loss solver: beside implicit's alternating least squares, as the positives grow, at full size, and on a card.

The floor counts what a sweep of coordinate descent needs with z positives, width d, n items and m words: for a positive and a coordinate
the slope, the curvature and the update of c, 2 operations each, on both sides, and for a row 2 d² products and d² more of the Gram matrix:
12 z d + 6 d² (n + m), at the rate of a large matrix product, which no sparse product comes near: a positive fetches a row from anywhere.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numba
import numpy as np
import torch
from scipy import sparse

from zsrbook import records
from zsrbook.bench import THREADS, Peer, PeerError, Row, _last_line, _load, _peak_memory, _timed, alternate
from zsrbook.models.coordinate_descent import Factorisation, Task, Vectors, averaging
from zsrbook.models.coordinate_descent_gpu import FactorisationOnGPU

OMEGA, LAM = 0.001, 4.0  #: the paper's


@dataclass(frozen=True)
class Shape:
    """Of an item × word matrix; by default of one that leaves no cache unused, yet takes a second a sweep."""

    items: int = 100_000
    words: int = 30_000
    positives: int = 2_000_000
    width: int = 64

    def matrix(self) -> sparse.csr_array:
        """Texts of equal length whose words have a popularity with a heavy tail; a word that is drawn twice counts once."""
        rng = np.random.default_rng(0)
        weights = np.cumsum(1.0 / (np.arange(self.words) + 100))
        drawn = np.searchsorted(weights, weights[-1] * rng.random(self.positives)).astype(np.int32)
        begins = np.linspace(0, self.positives, self.items + 1).astype(np.int32)
        found = sparse.csr_array((np.ones(self.positives, np.float32), drawn, begins), shape=(self.items, self.words))
        found.sum_duplicates()
        found.data[:] = 1
        return found

    def floor(self, positives: int, ceiling: float) -> float:
        """Seconds a sweep at that many operations a second."""
        return (12 * positives * self.width + 6 * self.width**2 * (self.items + self.words)) / ceiling

    def __str__(self) -> str:
        return f"{self.items:,} items × {self.words:,} words, {self.positives:,} positives, width {self.width}"


LARGE = Shape(1_000_000, 300_000, 20_000_000)


def against_implicit(ceiling: float, shape: Shape = Shape(), rounds: int = 5) -> list[Row]:
    """A sweep against an iteration of implicit, on the same loss from the same start; and the loss of both after the same time.

    A sweep sets each coordinate once, four at a time; an iteration takes three steps of conjugate gradients a row. These are not the same
    work: hence the second row, in which ours does as many sweeps as fit into the time of the peer's iterations.
    """
    numba.set_num_threads(min(THREADS, numba.config.NUMBA_NUM_THREADS))
    positives = shape.matrix()
    model = Factorisation([Task(positives)], shape.width, OMEGA, LAM)
    floor = 1 / shape.floor(positives.nnz, ceiling)
    speed = Row(f"sweep of the square loss, {shape}", None, "sweeps/s", "implicit 0.7.3, an iteration of ALS", floor=floor, goal=1 / 1.5)
    loss = Row(f"square loss after the time of {rounds} iterations", None, "of the peer's", "implicit 0.7.3", goal=1.0)
    with tempfile.TemporaryDirectory() as folder:
        sparse.save_npz(Path(folder) / "positives.npz", sparse.csr_matrix(positives))
        start = _saved(model.vectors, Path(folder))
        arguments = (folder, str(THREADS), str(OMEGA), str(LAM))
        try:
            with Peer("implicit", *arguments) as peer:
                speed.value, speed.peer, speed.ratio, speed.noise = alternate(lambda: 1 / _timed(model.sweep), peer.round, rounds)
            speed.note = f"both float32, {THREADS} threads, load {_load()}"
            _saved(start, Path(folder))
            with Peer("implicit", *arguments) as peer:
                losses = _after_equal_time(positives, start, peer, Path(folder), rounds)
            loss.value, loss.peer, loss.ratio = losses[-1][0] / losses[-1][1], 1.0, losses[-1][1] / losses[-1][0]
            loss.note = "ours / the peer's after each: " + ", ".join(f"{ours:,.0f} / {theirs:,.0f}" for ours, theirs in losses)
        except PeerError as error:
            model.sweep()
            speed.value = 1 / float(np.median([_timed(model.sweep) for _ in range(rounds)]))
            speed.note = loss.note = str(error)
    speed.of_floor = speed.value / floor
    return [speed, loss]


def _saved(vectors: Vectors, folder: Path) -> Vectors:
    """Written for the peer, and a copy."""
    items, contexts = vectors.items.copy(), vectors.contexts[0].copy()
    np.save(folder / "items.npy", items)
    np.save(folder / "contexts.npy", contexts)
    return Vectors(items, [contexts])


def _after_equal_time(positives: sparse.csr_array, start: Vectors, peer: Peer, folder: Path, rounds: int) -> list[tuple[float, float]]:
    """The losses of both after each iteration of the peer; ours goes on while a sweep as long as its last fits into the time the peer has had."""

    def at(vectors: Vectors) -> Factorisation:
        return Factorisation([Task(positives)], start.items.shape[1], OMEGA, LAM, start=vectors)

    ours, losses, allowed, spent, seconds = at(start), [], 0.0, 0.0, 0.0
    for _ in range(rounds):
        allowed += 1 / peer.round()
        while spent + seconds <= allowed:
            seconds = _timed(ours.sweep)
            spent += seconds
        theirs = Vectors(np.load(folder / "items.npy"), [np.load(folder / "contexts.npy")])
        losses.append((ours.objective(), at(theirs).objective()))
    return losses


def by_positives(ceiling: float, shape: Shape = Shape(), factors: tuple[int, ...] = (1, 2, 4)) -> list[Row]:
    """Seconds a sweep as the positives grow from a quarter of the shape's, items and words as they are: STL, and ZSL_TE with as many neighbours."""
    rows = []
    for factor in factors:
        grown = replace(shape, positives=shape.positives // 4 * factor)
        words = grown.matrix()
        neighbours = replace(grown, words=grown.items).matrix()
        for name, task in (("STL", Task(words)), ("ZSL_TE", Task(neighbours, averaging(words)))):
            model = Factorisation([task], shape.width, OMEGA, LAM)
            model.sweep()
            seconds = float(np.median([_timed(model.sweep) for _ in range(3)]))
            row = Row(f"sweep of {name} with {words.nnz:,} words in texts", seconds, "s", note=f"{grown}, {THREADS} threads, load {_load()}")
            if name == "STL":
                row.floor = grown.floor(words.nnz, ceiling)
                row.of_floor = row.floor / seconds
            rows.append(row)
    return rows


def on_gpu(shape: Shape = LARGE, device: str = "cuda", rounds: int = 5) -> list[Row]:
    """Sweeps on a graphics card against the compiled ones: STL, and ZSL_TE with as many neighbours as words."""
    if device == "cuda" and not torch.cuda.is_available():
        return [Row(f"sweep on a graphics card, {shape}", None, "sweeps/s", note="no CUDA device here")]
    words = shape.matrix()
    neighbours = replace(shape, words=shape.items).matrix()

    def sweep(model: FactorisationOnGPU) -> None:
        model.sweep()
        if device == "cuda":
            torch.cuda.synchronize()

    rows = []
    for name, task in (("STL", Task(words)), ("ZSL_TE", Task(neighbours, averaging(words)))):
        compiled, other = Factorisation([task], shape.width, OMEGA, LAM), FactorisationOnGPU([task], shape.width, OMEGA, LAM, device=device)
        note = f"{records.device()}; compiled on {numba.get_num_threads()} threads"
        row = Row(f"sweep of {name} on a graphics card, {shape}", None, "sweeps/s", "the compiled sweep", goal=1.0, note=note)
        row.value, row.peer, row.ratio, row.noise = alternate(
            lambda m=other: 1 / _timed(lambda: sweep(m)), lambda m=compiled: 1 / _timed(m.sweep), rounds
        )
        rows.append(row)
    return rows


def at_full_size(shape: Shape = LARGE, limit: float = 8.0) -> list[Row]:
    """Peak of memory and seconds a sweep, in a fresh process.

    Floor of memory: a positive is stored by rows and by columns, 8 bytes each, and a vector in float32.
    """
    numbers = (shape.items, shape.words, shape.positives, shape.width)
    command = [sys.executable, "-c", f"from zsrbook.bench.coordinate_descent import Shape, sweep_once; sweep_once(Shape{numbers})"]
    done = subprocess.run(command, capture_output=True, text=True)
    names = f"memory of a fit of the square loss, {shape}", f"sweep of the square loss, {shape}"
    if done.returncode:
        return [Row(name, None, unit, note=_last_line(done.stderr)) for name, unit in zip(names, ("GB", "s"), strict=True)]
    peak, seconds, positives = map(float, done.stdout.split())
    floor = (16 * positives + 4 * shape.width * (shape.items + shape.words)) / 1e9
    note = f"{positives:,.0f} distinct positives, {THREADS} threads, load {_load()}"
    return [
        Row(
            names[0],
            peak,
            "GB",
            f"the limit of {limit:g} GB",
            limit / peak,
            floor,
            1.0,
            limit,
            floor / peak,
            None,
            note + "; peak of the process, all included",
        ),
        Row(names[1], seconds, "s", note=note + "; the second sweep, compiled"),
    ]


def sweep_once(shape: Shape) -> None:
    """Prints the peak of memory in GB, the seconds of a second sweep, and how many positives there were."""
    numba.set_num_threads(min(THREADS, numba.config.NUMBA_NUM_THREADS))
    positives = shape.matrix()
    model = Factorisation([Task(positives)], shape.width, OMEGA, LAM)
    model.sweep()
    seconds = _timed(model.sweep)
    print(_peak_memory() / 1e9, seconds, positives.nnz)
