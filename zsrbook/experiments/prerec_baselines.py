"""The baselines of the PreRec chapter: what they are tuned over, and whether they stand where others' do.

The paper's full text was not to be had, and no table of it is known, so there is no number of its own to hold the baselines against. RecBole
(Zhao et al. 2021) publishes what its implementations reach on MovieLens-1M, tuned, with filter and split stated: ``book/papers/recbole_ml1m.csv``
holds them, and ``recbole_split`` makes the same kind of split from the official file: ratings of 3 stars or more, 10-core (834,449 of them, the
very number that they state), 8 : 1 : 1 within each user at random, the two small parts rounded down.
Its row of popularity is lower than popularity really is: that implementation counts an item once a batch, so the most popular ones tie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import product
from typing import Any

from zsrbook.data.dataset import Columns, Dataset
from zsrbook.data.matrix import MatrixSplit, split_matrix
from zsrbook.data.splits import at_least, compact
from zsrbook.models.collaborative import BPRMF, EASE, BPRSettings, EASESettings, ItemKNN, ItemKNNSettings, MostPop
from zsrbook.models.matrix import MatrixModel
from zsrbook.models.neural_collaborative import LightGCN, LightGCNSettings, MultVAE, MultVAESettings, NeuMF, NeuMFSettings

#: each family and the settings that it is tuned over: at most eight fits a family and data set
GRIDS: dict[str, tuple[Callable[..., MatrixModel], Sequence[Any]]] = {
    "ItemKNN": (ItemKNN, [ItemKNNSettings(k, shrinkage) for k, shrinkage in product((20, 50, 200, 800), (10.0, 100.0))]),
    "EASE": (EASE, [EASESettings(lam) for lam in (20.0, 60.0, 200.0, 600.0, 2000.0)]),
    "BPR-MF": (BPRMF, [BPRSettings(learning_rate=rate, lam=lam) for rate, lam in product((0.02, 0.1), (0.01, 0.02, 0.04, 0.08))]),
    "NeuMF": (NeuMF, [NeuMFSettings(decay=decay) for decay in (1e-5, 1e-4, 1e-3)]),
    "LightGCN": (LightGCN, [LightGCNSettings(layers=layers, decay=decay) for layers, decay in product((1, 3), (1e-4, 1e-3))]),
    "Mult-VAE": (MultVAE, [MultVAESettings(dropout=dropout, beta=beta) for dropout, beta in product((0.5, 0.7), (0.2, 1.0))]),
}

#: each and the settings at which it is held against RecBole's numbers: theirs where they carry over, else what tuning on the same split led to
LEVEL: dict[str, tuple[Callable[..., MatrixModel], Any]] = {
    "MostPop": (MostPop, None),
    "ItemKNN": (ItemKNN, ItemKNNSettings(neighbours=250, shrinkage=1.2)),
    "EASE": (EASE, EASESettings(lam=1000.0)),
    "BPR-MF": (BPRMF, BPRSettings(learning_rate=0.02, lam=0.01)),
    "NeuMF": (NeuMF, NeuMFSettings(decay=1e-5)),
    "LightGCN": (LightGCN, LightGCNSettings(layers=2, decay=1e-3)),
    "Mult-VAE": (MultVAE, MultVAESettings()),
}


def in_words(settings: Any, grid: Sequence[Any]) -> str:
    """What sets one of a grid's settings apart from the others, such as ``lam 60``."""
    ways = [asdict(one) for one in grid]
    return ", ".join(f"{name} {value:g}" for name, value in asdict(settings).items() if any(way[name] != value for way in ways))


def recbole_split(data: Dataset, seed: int = 0) -> MatrixSplit:
    """MovieLens-1M as RecBole's published runs have it; see the top of this file.

    Raises:
        DataError: nothing is left.
    """
    liked = data.where(data.interactions[Columns.VALUE].to_numpy() >= 3, f"{data.name}: ratings of 3 stars or more")
    return split_matrix(compact(at_least(liked, 10, 10)), seed=seed, rounding="down")
