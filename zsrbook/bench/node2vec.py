"""Rows of ``make bench`` for Node2Vec: walks beside PecanPy's, training beside gensim's Word2Vec, and how good the vectors of both are.

The graph is BlogCatalog, or where it is absent one of its size, drawn so that degrees have a heavy tail.

Floor of training: with d numbers a node, m negatives and the window w, whose reach is drawn from 1 to w, a position has about w + 1
pairs, fewer at the ends of a walk; a pair has m + 1 products of d, and each takes three times 2 d operations, for the value and both steps.
Ours shares its negatives over a window, so that its products are those of small matrices; gensim draws them for each pair. A walk has no
such floor: its steps wait for memory, one after another.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import sparse

from zsrbook.bench import THREADS, Peer, PeerError, Row, _load, _timed, alternate
from zsrbook.data import blogcatalog
from zsrbook.experiments.blogcatalog import f1
from zsrbook.models.node2vec import Node2VecSettings, embed, walks
from zsrbook.scale import data_folder

#: PecanPy's classes, the p = q at which they stand beside ours, and the walks from each node in a round
MODES = (("FirstOrderUnweighted", 1.0, 10), ("SparseOTF", 0.25, 1), ("PreComp", 0.25, 10))


@dataclass(frozen=True)
class Shape:
    """Of the graph that is drawn where BlogCatalog is absent: its size."""

    nodes: int = 10_312
    links: int = 333_983

    def graph(self) -> sparse.csr_array:
        rng = np.random.default_rng(0)
        weights = 1.0 / (np.arange(self.nodes) + 20)
        ends = rng.choice(self.nodes, (2, 2 * self.links), p=weights / weights.sum())
        ends = ends[:, ends[0] != ends[1]]
        ring = np.stack([np.arange(self.nodes), np.roll(np.arange(self.nodes), 1)])  # so that no node is alone
        ends = np.unique(np.sort(np.hstack([ring, ends[:, : self.links]]), axis=0), axis=1)
        upper = sparse.csr_array((np.ones(ends.shape[1], np.float32), ends), shape=2 * (self.nodes,))
        return sparse.csr_array(upper + upper.T)


def _graph(shape: Shape) -> tuple[str, sparse.csr_array, np.ndarray | None]:
    """Name, adjacency, and labels if there are any."""
    folder = data_folder() / "blogcatalog"
    if (folder / "blogcatalog.mat").is_file():
        data = blogcatalog.load(folder)
        return data.name, data.graph, data.labels
    return "a generated graph", shape.graph(), None


def walking(shape: Shape = Shape(), rounds: int = 5) -> list[Row]:
    """Walks of 80 a second, made by the compiled part of both."""
    name, graph, _ = _graph(shape)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        sparse.save_npz(Path(folder) / "graph.npz", sparse.csr_matrix(graph))
        for mode, p, each in MODES:
            settings = Node2VecSettings(p=p, q=p, walks=each, threads=THREADS)
            row = Row(f"walks of {settings.length}, p = q = {p:g}, {name}", None, "walks/s", f"{mode} of PecanPy 2.0.9", goal=1.0)

            def ours(settings: Node2VecSettings = settings) -> float:
                return settings.walks * graph.shape[0] / _timed(lambda: walks(graph, settings))

            try:
                with Peer("pecanpy", folder, mode, str(p), str(p), str(settings.length), str(THREADS)) as peer:
                    row.value, row.peer, row.ratio, row.noise = alternate(ours, lambda peer=peer, n=settings.walks: peer.round(n), rounds)
                row.note = f"{THREADS} threads, load {_load()}"
                if mode == "PreComp":
                    size = 8e-9 * float((np.diff(graph.indptr).astype(float) ** 2).sum())
                    row.note += f"; not counted: the peer's tables of {size:.1f} GB, ours has none"
            except PeerError as error:
                ours()
                row.value, row.note = float(np.median([ours() for _ in range(rounds)])), str(error)
            rows.append(row)
    return rows


def training(ceiling: float, shape: Shape = Shape(), rounds: int = 3) -> list[Row]:
    """Positions a second of one epoch over a walk from each node, the peer on ours; then over all ten walks, what F1 the vectors of both reach.

    Ours draws the walks within its time, once to count visits and once to learn; the peer is given them.
    """
    name, graph, labels = _graph(shape)
    settings = Node2VecSettings(threads=THREADS)
    once = replace(settings, walks=1)
    at, reach = np.arange(settings.length)[:, None], np.arange(1, settings.window + 1)
    pairs = (np.minimum(at, reach) + np.minimum(settings.length - 1 - at, reach)).mean()
    floor = ceiling / (pairs * 6 * settings.dimension * (settings.negatives + 1))
    what = f"Node2Vec, d = {settings.dimension}, window {settings.window}, {settings.negatives} negatives, {name}"
    speed = Row(f"training of {what}", None, "positions/s", "gensim 4.4.0", floor=floor, goal=1.0)
    quality = Row(f"macro-F1 of {what}", None, "F1", "gensim 4.4.0 on the same walks", goal=1.0)

    def ours() -> float:
        return graph.shape[0] * settings.length / _timed(lambda: embed(graph, once))

    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "walks.npy", walks(graph, settings))
        try:
            with Peer("gensim", folder, str(settings.dimension), str(settings.window), str(settings.negatives), str(THREADS)) as peer:
                speed.value, speed.peer, speed.ratio, speed.noise = alternate(ours, lambda: peer.round(graph.shape[0]), rounds)
                if labels is not None:
                    peer.round(settings.walks * graph.shape[0])
                    quality.peer = float(f1(np.load(Path(folder) / "vectors.npy"), labels)["macro"].mean())
            speed.note = f"both float32, {THREADS} threads, load {_load()}; {pairs:.1f} pairs a position"
        except PeerError as error:
            ours()
            speed.value, speed.note = float(np.median([ours() for _ in range(rounds)])), str(error)
            quality.note = str(error)
    speed.of_floor = speed.value / floor
    if labels is None:
        quality.note = "only BlogCatalog has labels; get it with `python -m zsrbook data get blogcatalog`"
    else:
        began = time.perf_counter()
        vectors = embed(graph, settings)
        seconds = time.perf_counter() - began
        quality.value = float(f1(vectors, labels)["macro"].mean())
        if quality.peer:
            quality.ratio = quality.value / quality.peer
        about = f"one epoch over ten walks of {settings.length} from each node, p = q = 1, in {seconds:.0f} s; half of the labels known, ten draws"
        quality.note = "; ".join(filter(None, (quality.note, about)))
    return [speed, quality]
