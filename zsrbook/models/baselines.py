"""What every zero-shot table must be held against: popularity, chance, and neighbours in the text space that learn nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from zsrbook.data.dataset import Columns, DataError, Dataset, Sequences
from zsrbook.data.splits import Fold
from zsrbook.models.base import Recommender, VectorRecommender, Wrapper, features_of, in_chunks
from zsrbook.training import check_words


class Popularity(VectorRecommender):
    """POP: how often each item was taken in training, for everybody alike (ZESRec section 4.2). It has seen the target."""

    def fit(self, data: Dataset, valid: Fold | None = None) -> Self:
        self.n_items = data.n_items
        self.counts = torch.as_tensor(np.bincount(data.interactions["item"], minlength=data.n_items), dtype=torch.float32)
        return self

    def item_vectors(self) -> Tensor:
        return self.counts[:, None]

    def user_vectors(self, sequences: Sequences) -> Tensor:
        return torch.ones(len(sequences.items) + len(sequences), 1)

    def state(self) -> dict[str, Tensor]:
        return {"counts": self.counts}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.counts = state["counts"]
        self.n_items = len(self.counts)


@dataclass(frozen=True)
class RecentPopularitySettings:
    days: float = 30.0  #: how far back it counts; infinity counts all that came before


class RecentPopularity(Recommender):
    """How often each item was taken in the last days before the moment of prediction, for everybody alike.

    It learns nothing, so it is at once at home in any catalogue with a clock. Of the interactions that it is given, each
    prediction counts only those strictly before its own moment (``Sequences.moments``).
    """

    zero_shot = True

    def __init__(self, settings: RecentPopularitySettings = RecentPopularitySettings()):
        self.settings = settings

    def fit(self, data: Dataset, valid: Fold | None = None) -> Self:
        self.bind(data)
        return self

    def bind(self, target: Dataset) -> None:
        """Take over the interactions of ``target``.

        Raises:
            DataError: the data has no clock.
        """
        self.items, self.times = in_time_order(target, "RecentPopularity")
        self.n_items = target.n_items

    def scores(self, histories: Sequences) -> Tensor:
        out = torch.empty(len(histories), self.n_items)
        for rows, counts in self._counts(histories.moments(self.end)):
            out[torch.as_tensor(rows)] = counts
        return out

    def prefix_scores(self, sequences: Sequences, at: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
        for rows, counts in self._counts(np.full(len(at), self.end) if sequences.times is None else sequences.times[at]):
            yield at[rows], counts

    @property
    def end(self) -> float:
        """When all is known: for histories without a clock."""
        return self.times[-1] + 1.0

    def _counts(self, moments: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
        """(rows, (n, items) counts) in chunks, oldest moment first: the window slides on, so each interaction enters and leaves once."""
        order = np.argsort(moments, kind="stable")
        enter = np.searchsorted(self.times, moments[order], side="left")  # those strictly before the moment
        leave = np.searchsorted(self.times, moments[order] - self.settings.days * 86400, side="left")
        counts, newest, oldest = np.zeros(self.n_items, np.float32), 0, 0
        for places in in_chunks(np.arange(len(order)), self.n_items):
            out = np.empty((len(places), self.n_items), np.float32)
            for row, place in enumerate(places):
                np.add.at(counts, self.items[newest : enter[place]], 1)
                np.subtract.at(counts, self.items[oldest : leave[place]], 1)
                newest, oldest = enter[place], leave[place]
                out[row] = counts
            yield order[places], torch.from_numpy(out)

    def state(self) -> dict[str, Tensor]:
        return {"items": torch.as_tensor(self.items), "times": torch.as_tensor(self.times), "n_items": torch.tensor(self.n_items)}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.items, self.times, self.n_items = state["items"].numpy(), state["times"].numpy(), int(state["n_items"])


def in_time_order(data: Dataset, model: str) -> tuple[np.ndarray, np.ndarray]:
    """(N,) items and (N,) times of all interactions, oldest first.

    Raises:
        DataError: the data has no clock.
    """
    if not data.clock:
        raise DataError(f"{model} follows popularity through time, but {data.name} has no time stamps; take data with a clock, or use Popularity")
    times = data.interactions[Columns.TIME].to_numpy()
    order = np.argsort(times, kind="stable")
    return np.array(data.interactions[Columns.ITEM].to_numpy()[order], np.int32), times[order]


class Random(Recommender):
    """Scores drawn from a hash of history and item: no pattern, and yet the same history always gets the same list."""

    zero_shot = True

    def __init__(self, seed: int = 0):
        self.seed = seed

    def fit(self, data: Dataset, valid: Fold | None = None) -> Self:
        self.n_items = data.n_items
        return self

    def scores(self, histories: Sequences) -> Tensor:
        # a history's key is the sum of the mixed (position, item) pairs
        pairs = _mix(histories.positions.astype(np.uint64) << np.uint64(32) | histories.items.astype(np.uint64))
        sums = np.concatenate([[np.uint64(0)], np.cumsum(pairs, dtype=np.uint64)])
        keys = _mix(sums[histories.starts[1:]] - sums[histories.starts[:-1]] + np.uint64(self.seed))
        mixed = _mix(keys[:, None] ^ _mix(np.arange(self.n_items, dtype=np.uint64)))
        return torch.as_tensor((mixed >> np.uint64(40)).astype(np.float32) / np.float32(2**24))

    def state(self) -> dict[str, Tensor]:
        return {"n_items": torch.tensor(self.n_items), "seed": torch.tensor(self.seed)}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.n_items, self.seed = int(state["n_items"]), int(state["seed"])


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele et al. 2014): every input bit flips each output bit about half of the time."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@dataclass(frozen=True)
class EmbKNNSettings:
    """Emb-KNN is one line in the paper, and each version reads it differently, so each reading is a row."""

    history: Literal["mean", "last", "decay"] = "mean"  #: which items speak for the user; "mean" is the later version's
    similarity: Literal["inner", "cosine"] = "inner"  #: the paper says inner product
    whiten: float | None = None  #: centre the catalogue's vectors, and even out their variance to this power (see ``whitened``)
    decay: float = 0.7  #: weight of an item relative to the one after it, for "decay"

    def __post_init__(self) -> None:
        check_words(self, "Emb-KNN settings")


class EmbKNN(VectorRecommender):
    """Items nearest to the history in the space of frozen text vectors (ZESRec section 4.2). Nothing is learned from behaviour."""

    zero_shot = True

    def __init__(self, settings: EmbKNNSettings = EmbKNNSettings()):
        self.settings = settings

    def fit(self, data: Dataset, valid: Fold | None = None) -> Self:
        self.bind(data)
        return self

    def bind(self, target: Dataset) -> None:
        self.vectors = features_of(target, "Emb-KNN")
        if self.settings.whiten is not None:
            self.vectors = whitened(self.vectors, self.settings.whiten)
        if self.settings.similarity == "cosine":
            self.vectors = torch.nn.functional.normalize(self.vectors, dim=1)
        self.n_items = target.n_items

    def item_vectors(self) -> Tensor:
        return self.vectors

    def user_vectors(self, sequences: Sequences) -> Tensor:
        return history_vectors(self.vectors, sequences, self.settings.history, self.settings.decay)

    def state(self) -> dict[str, Tensor]:
        return {"vectors": self.vectors}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.vectors = state["vectors"]
        self.n_items = len(self.vectors)


class NewOnly(Wrapper):
    """Another recommender that never offers what the user already has: those items get minus infinity."""

    def __init__(self, inner: Recommender):
        super().__init__(inner)
        if hasattr(inner, "settings"):  # a record keeps them; popularity, say, has none
            self.settings = inner.settings

    def scores(self, histories: Sequences) -> Tensor:
        return self._without(self.inner.scores(histories), histories)

    def prefix_scores(self, sequences: Sequences, at: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
        for chunk, scores in self.inner.prefix_scores(sequences, at):
            yield chunk, self._without(scores, sequences.prefixes(chunk))

    @staticmethod
    def _without(scores: Tensor, histories: Sequences) -> Tensor:
        scores[torch.as_tensor(histories.rows), torch.as_tensor(histories.items, dtype=torch.int64)] = -torch.inf
        return scores


def history_vectors(items: Tensor, sequences: Sequences, pooling: str, decay: float) -> Tensor:
    """(N + U, d) one vector a prefix, laid out as ``VectorRecommender.user_vectors``; the empty prefix gets zeros.

    ``mean`` averages the prefix, ``last`` takes its newest item, ``decay`` sums it with weights decay^age.
    """
    keep = {"mean": 1.0, "last": 0.0, "decay": decay}[pooling]
    out = torch.zeros(len(sequences.items) + len(sequences), items.shape[1])
    codes = torch.as_tensor(sequences.items, dtype=torch.int64)
    order = np.argsort(-sequences.lengths, kind="stable")  # longest first, so that those still going on are a prefix
    longest_first = sequences.lengths[order]
    running = torch.zeros(len(sequences), items.shape[1])
    for step in range(int(longest_first[0]) if len(order) else 0):
        going_on = order[: np.searchsorted(-longest_first, -step)]
        at = sequences.starts[going_on] + step
        running[: len(going_on)] = running[: len(going_on)] * keep + items[codes[at]]
        out[at + going_on + 1] = running[: len(going_on)] / (step + 1 if pooling == "mean" else 1)
    return out


def whitened(vectors: Tensor, power: float = 1.0, floor: float = 1e-3) -> Tensor:
    """(I, d) centred, and each principal axis divided by its standard deviation to ``power``: 1 makes all axes equal, 0 leaves them.

    The result is turned back to the axes of ``vectors``, so that a direction means the same in every catalogue. Whitening gives
    axes of noise the same say as axes of meaning; none lets the few largest decide. Axes whose variance is below ``floor`` of the
    largest are treated as that large, and where all vectors are equal they stay at 0.
    """
    centred = (vectors - vectors.mean(0)).double()
    variance, axes = torch.linalg.eigh(centred.T @ centred / len(vectors))
    scale = variance.clamp(min=max(float(variance[-1]) * floor, 1e-12)).pow(-power / 2)
    return (((centred @ axes) * scale) @ axes.T).float()
