"""Anchored neighbours: ZESRec's idea, begun from the untrained neighbour instead of from nothing.

As in ZESRec, items are known by their text and users by their sequence, and all learning happens in the source. But ZESRec
learns from scratch where each text *goes* (an MLP of half a million weights) and what a history says (a GRU of as many), and
first forgets what the text encoder knew. Here the text vectors stay, and what is learned is how people *move* between them:

1. Places. With x a unit text vector, z = normalise(x + V U x), of rank 32: which differences between texts matter to buyers.
   V begins at zero. U and V are one linear map of the encoder's axes, so they mean the same in every catalogue.
2. Anchors. Each of the last A items is an anchor t with weight a_t ∝ exp(recency[age of t]):

       s(j) = τ / β · log( exp(floor) + Σ_t a_t exp(β z_t · z_j) )

   β → 0 is the neighbour of the weighted mean; a large β asks for an item close to *one* of the anchors, whichever it is.
   The floor is a purchase that follows nothing; it changes no order, but keeps such purchases from blunting τ and β.
3. A coin of chance r says whether the next item is one that the user took before; r is the share of the source's targets
   that were. Given the coin, s is normalised over those items, or over all others:

       p(j) = r · softmax_{seen}(s)_j  or  (1 − r) · softmax_{unseen}(s)_j

   Nothing else tells a catalogue of groceries, which are bought again, from one of reviews, which are written once.
   A source that keeps one row a user and item says r near 0, whatever its users do; where the target differs, set ``repeat``, or
   take the share in histories of the target (``told``).
4. While learning, s(j) + γ log(1 + how often j was taken) is used: popularity explains its share and is left behind, so that
   the rest need not. (The offsets of ZESRec's later version do the same with a free vector an item.)

The normaliser runs over the catalogue or a uniform sample of it. exp(β z_t · z_j) is worked out once for each *different*
anchor of a batch and each candidate, and a position is a mean of A such rows. Positions of one user stand together and share
their anchors, so a position costs about what an inner product costs.

Before training it is the untrained neighbour: for a history of one item its order of unseen items is that of cosine similarity.

Shape legend: P positions, A anchors of each, U different anchors among them, C candidates, I items, d width of text vectors.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zsrbook.data.dataset import DataError, Dataset, Sequences
from zsrbook.data.splits import Fold
from zsrbook.models.base import SCORES_AT_ONCE, Recommender, features_of, in_chunks, run_of
from zsrbook.models.baselines import whitened
from zsrbook.training import Training, pick_device, train


@dataclass(frozen=True)
class AnchoredSettings:
    """One line a choice.

    Raises:
        ValueError: ``repeat`` is no share.
    """

    anchors: int = 20  #: the newest items of a history that may be the reason for the next
    rank: int = 32  #: of what is learned about places; 0: nothing
    dropout: float = 0.3  #: between U and V
    whitening: float = 0.5  #: a principal axis of the catalogue is divided by its standard deviation to this power; 0: centred only
    repeat: float | None = None  #: r, where it is known how the target keeps repeats; None: as often as in the source
    sharpness: float = 8.0  #: β before training
    temperature: float = 10.0  #: τ before training
    decay: float = 0.6  #: weight of an anchor relative to the one after it, before training
    batch_targets: int = 512  #: positions a step
    epoch_targets: int = 20_000  #: positions an epoch at most, of random users
    candidates: int = 2048  #: random items that the softmax runs over while learning; all, where there are fewer
    training: Training = field(default_factory=lambda: Training(epochs=8, optimizer="adam", learning_rate=0.003, patience=None))

    def __post_init__(self) -> None:
        if self.repeat is not None and not 0 <= self.repeat <= 1:
            raise ValueError(f"Anchored settings: repeat is {self.repeat}; expected a share from 0 to 1, or None")


class Positions(NamedTuple):
    """Places in histories, and the items before and at them."""

    anchors: Tensor  # (P, A) int64, the newest first; 0 where the history is shorter
    there: Tensor  # (P, A) bool, False where it is shorter
    targets: Tensor  # (P,) int64
    candidates: Tensor  # (C,) int64


class AnchorNetwork(nn.Module):
    """All that is learned: A + 4 numbers, and U and V."""

    def __init__(self, settings: AnchoredSettings, width: int):
        super().__init__()
        draw = torch.Generator().manual_seed(settings.training.seed)
        self.down = nn.Parameter(torch.randn(width, settings.rank, generator=draw) * width**-0.5)  # U
        self.up = nn.Parameter(torch.zeros(settings.rank, width))  # V
        self.dropout = nn.Dropout(settings.dropout)
        self.recency = nn.Parameter(float(np.log(settings.decay)) * torch.arange(settings.anchors, dtype=torch.float32))  # (A,)
        self.log_sharpness = nn.Parameter(torch.tensor(float(np.log(settings.sharpness))))  # log β
        self.log_temperature = nn.Parameter(torch.tensor(float(np.log(settings.temperature))))  # log τ
        self.floor = nn.Parameter(torch.tensor(-3.0))
        self.popularity = nn.Parameter(torch.tensor(1.0))  # γ, of use in the source alone

    def bind(self, vectors: Tensor, log_counts: Tensor | None = None) -> None:
        """Take these items for the catalogue: (I, d) unit vectors and, while learning, (I,) log(1 + how often it was taken)."""
        device = self.floor.device
        self.register_buffer("vectors", vectors.to(device), persistent=False)
        self.register_buffer("log_counts", None if log_counts is None else log_counts.to(device), persistent=False)

    def places(self, vectors: Tensor) -> Tensor:
        """z, (n, d) unit vectors → (n, d) unit vectors."""
        return F.normalize(vectors + self.dropout(vectors @ self.down) @ self.up, dim=1)

    def forward(self, batch: Positions) -> tuple[Tensor, int]:
        """-log softmax of the new item among all new ones, summed over positions, and their number."""
        candidates, targets = self.score(batch.anchors, batch.there, batch.candidates, batch.targets)
        candidates = candidates + self.popularity * self.log_counts[batch.candidates]
        targets = targets + self.popularity * self.log_counts[batch.targets]
        weight = float(np.log(len(self.vectors) / len(batch.candidates)))  # each candidate stands for as many items
        out = batch.candidates == batch.targets[:, None]  # counted as the target already
        for age in range(batch.anchors.shape[1]):
            out |= (batch.candidates == batch.anchors[:, age, None]) & batch.there[:, age, None]  # seen, so not new
        others = (candidates + weight).masked_fill(out, -torch.inf)
        return (torch.logsumexp(torch.cat([targets[:, None], others], dim=1), dim=1) - targets).sum(), len(targets)

    def score(self, anchors: Tensor, there: Tensor, candidates: Tensor | None = None, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """s of the candidates (None: all items) → (P, C), and of the targets → (P,)."""
        beta, tau = self.log_sharpness.exp(), self.log_temperature.exp()
        weights = (self.recency - self.recency.amax()).exp() * there  # (P, A)
        weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-30)
        different, which = anchors.unique(return_inverse=True)
        mixing = torch.zeros(len(anchors), len(different), device=anchors.device).scatter_add(1, which, weights)  # (P, U), rows sum to 1
        z = self.places(self.vectors[different])
        items = self.places(self.vectors if candidates is None else self.vectors[candidates])
        blocks = [mixing @ (beta * (z @ block.T)).exp() for block in items.split(max(1, SCORES_AT_ONCE // max(1, len(different))))]
        near = torch.cat(blocks, dim=1)  # (P, C)
        at_targets = None
        if targets is not None:
            cosine = torch.einsum("pad,pd->pa", F.embedding(which, z), self.places(self.vectors[targets]))
            at_targets = ((weights * (beta * cosine).exp()).sum(dim=1) + self.floor.exp()).log() * (tau / beta)
        return (near + self.floor.exp()).log() * (tau / beta), at_targets


class Anchored(Recommender):
    """Fit in the source, ``transfer`` to any catalogue with vectors of the same encoder.

    Args:
        checkpoint: written after each epoch, and read where it is there.

    Raises:
        DataError: from ``fit``, where no source user ever takes a second, new item; from both, where there are no item vectors.
    """

    zero_shot = True

    def __init__(self, settings: AnchoredSettings = AnchoredSettings(), checkpoint: Path | None = None):
        self.settings = settings
        self.checkpoint = checkpoint
        self.network: AnchorNetwork | None = None
        self.repeat = 0.5 if settings.repeat is None else settings.repeat  # r
        self.curve: list[dict[str, float]] = []

    def fit(self, data: Dataset, valid: Fold | None = None) -> Self:
        """``valid`` is not read: its users take items that were learned from, and so reward learning them by heart."""
        sequences, settings = data.sequences(), self.settings
        again = seen_before(sequences)
        later = sequences.positions > 0
        if not (later & ~again).any():
            raise DataError(
                f"{data.name}: no user takes a second item that is new to them, so there is no step to learn from; expected histories of 2 or more"
            )
        if settings.repeat is None:
            self.repeat = share_of_repeats(sequences)
        self.network = None
        self.bind(data)
        counts = np.bincount(data.interactions["item"], minlength=data.n_items)
        self.network.bind(self.network.vectors, torch.as_tensor(np.log1p(counts), dtype=torch.float32))

        def batches(epoch: int) -> Iterator[Positions]:
            rng = np.random.default_rng((settings.training.seed, epoch))
            rows = rng.permutation(len(sequences))
            rows = rows[: int(np.searchsorted(np.cumsum(sequences.lengths[rows]), settings.epoch_targets)) + 1]
            drawn = sequences.take(rows)
            at = np.flatnonzero((drawn.positions > 0) & ~seen_before(drawn))
            groups = np.array_split(at, max(1, -(-len(at) // settings.batch_targets)))  # users stay together, so they share anchors
            for i in rng.permutation(len(groups)):
                chosen = np.sort(rng.permutation(data.n_items)[: settings.candidates])
                yield self.positions(drawn, drawn.starts[drawn.rows[groups[i]]], groups[i], drawn.items[groups[i]], chosen)

        self.curve = train(
            self.network,
            batches,
            settings.training,
            None,
            self.checkpoint,
            f"anchored on {data.name}",
            shares=False,
            of=lambda: run_of(settings, data, features=features_of(data, "Anchored")),
        )
        self.network.bind(self.network.vectors)
        return self

    def bind(self, target: Dataset) -> None:
        features = features_of(target, "Anchored", None if self.network is None else len(self.network.down))
        network = AnchorNetwork(self.settings, features.shape[1]).to(pick_device(self.settings.training.device))
        if self.network is not None:
            network.load_state_dict(self.network.state_dict())
        network.bind(F.normalize(whitened(features, self.settings.whitening), dim=1))
        self.network, self.n_items = network.eval(), target.n_items

    def told(self, histories: Sequences) -> Self:
        """A copy with the r of these histories, as of users of the target whom it need not serve; all else is as the source taught it."""
        return self.with_repeat(share_of_repeats(histories))

    def with_repeat(self, repeat: float) -> Self:
        """A copy with this r."""
        other = copy.copy(self)
        other.repeat, other.settings = repeat, replace(self.settings, repeat=repeat)
        return other

    def scores(self, histories: Sequences) -> Tensor:
        parts = [self._log_chances(histories.take(rows)) for rows in in_chunks(np.arange(len(histories)), self.n_items)]
        return torch.cat(parts) if parts else torch.zeros(0, self.n_items)

    @torch.no_grad()
    def _log_chances(self, histories: Sequences) -> Tensor:
        """(U, I) log p given each history."""
        batch = self.positions(histories, histories.starts[:-1], histories.starts[1:])
        scores, _ = self.network.score(batch.anchors, batch.there)
        seen = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
        seen[torch.as_tensor(histories.rows, device=scores.device), torch.as_tensor(histories.items, dtype=torch.int64, device=scores.device)] = True
        old = scores.masked_fill(~seen, -torch.inf).logsumexp(1, keepdim=True)
        new = scores.masked_fill(seen, -torch.inf).logsumexp(1, keepdim=True)
        with np.errstate(divide="ignore"):  # a coin that is always the same
            log_old, log_new = float(np.log(self.repeat)), float(np.log1p(-self.repeat))
        return torch.where(seen, log_old + scores - old, log_new + scores - new)

    def positions(
        self, sequences: Sequences, begin: np.ndarray, end: np.ndarray, targets: np.ndarray | None = None, candidates: np.ndarray | None = None
    ) -> Positions:
        """The anchors of the histories ``items[begin:end]``; without targets those and the candidates are empty."""
        place = end[:, None] - 1 - np.arange(self.settings.anchors)
        there = place >= begin[:, None]
        items = sequences.items if len(sequences.items) else np.zeros(1, np.int32)
        parts = (np.where(there, items[np.where(there, place, 0)], 0), there, targets, candidates)
        kinds = (torch.int64, torch.bool, torch.int64, torch.int64)
        device = self.network.floor.device
        return Positions(*(torch.as_tensor([] if p is None else p, dtype=k, device=device) for p, k in zip(parts, kinds, strict=True)))

    def state(self) -> dict[str, Tensor]:
        learned = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        return learned | {"vectors": self.network.vectors, "repeat": torch.tensor(self.repeat, dtype=torch.float64)}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.network = AnchorNetwork(self.settings, len(state["network.down"])).to(pick_device(self.settings.training.device)).eval()
        self.network.load_state_dict({name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")})
        self.network.bind(state["vectors"])
        self.repeat, self.n_items = float(state["repeat"]), len(state["vectors"])


def share_of_repeats(sequences: Sequences) -> float:
    """How much of what users take after their first item they took before; by half a purchase of each kind never quite 0 or 1."""
    later = sequences.positions > 0
    return float((seen_before(sequences)[later].sum() + 0.5) / (later.sum() + 1))


def seen_before(sequences: Sequences) -> np.ndarray:
    """(N,) bool: whether the user took the same item earlier in the history."""
    keys = sequences.rows * (int(sequences.items.max(initial=0)) + 1) + sequences.items
    first = np.unique(keys, return_index=True)[1]
    again = np.ones(len(keys), dtype=bool)
    again[first] = False
    return again
