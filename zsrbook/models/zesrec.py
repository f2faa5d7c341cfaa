"""ZESRec: items known by their text, users by their sequence (Ding et al. 2021, arXiv 2105.08318v1).

One network serves nine rows of the paper's Table 2. Its two halves are chosen by name:

- ``items="ids"``: a learned vector an item. With ``users="gru" | "tcn" | "hrnn"`` these are GRU4Rec, TCN and HRNN.
- ``items="text"``: an MLP over frozen text vectors (Eq. 4). Fitted in the target these are the "-Meta" rows; fitted in the
  source and transferred they are ZESRec-G, -T and -H. There is no other difference between the two.

The score of item i for user j after k steps is the inner product z_i · u_jk (Eq. 3): no output bias, so no item popularity
can ride along. Input and output share the item vectors (section 3.5).

Shape legend: B users in a batch, L longest history in it, P targets in it, I items, f width of text vectors, d width (300).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint as recompute

from zsrbook.data.dataset import Dataset, Sequences
from zsrbook.data.splits import Fold
from zsrbook.models.base import VectorRecommender, check_targets, features_of, run_of
from zsrbook.models.sequence import GRU, USER_NETWORKS
from zsrbook.models.softmax import full_softmax_loss, sampled_softmax_loss
from zsrbook.training import LATER, Processes, Training, check_words, pick_device, train

#: histories from which on ``GRU.read`` is the faster way on a CPU
_MANY = 32


@dataclass(frozen=True)
class ZESRecSettings:
    """One line a choice; ``DEC`` marks what the paper leaves open and the book decides (see the deviation register)."""

    items: Literal["text", "ids"] = "text"
    users: Literal["gru", "tcn", "hrnn"] = "gru"
    width: int = 300  #: of item and user vectors; paper
    hidden: int = 512  #: between the two layers of the item MLP; paper
    nonlinearity: Literal["relu", "none"] = "relu"  #: between them; DEC
    standardise: bool = False  #: text vectors to mean 0 and variance 1 by the source's statistics; DEC
    centre: bool = field(default=False, metadata=LATER)  #: text vectors to mean 0 alone, by the source's; ``standardise`` does that, too; DEC
    dropout: float = 0.2  #: paper
    text_dropout: float = 0.0  #: of the text vectors while training, so that no single direction of them names an item; DEC
    orthogonal: bool = field(default=False, metadata=LATER)  #: the item MLP's layers begin as orthogonal matrices, without biases; DEC
    popularity: float = 0.0  #: γ; while training, γ log(how often it was taken) is added to an item's score, and left behind; DEC
    levels: int = 4  #: of the TCN, whose step sees the last 1 + 4 (2^levels - 1) items; DEC
    session_gap: float | None = field(default=86400.0, metadata=LATER)  #: of HRNN: a longer pause, in seconds, ends a session; None: none does; DEC
    max_length: int = 256  #: longer histories are trained in pieces of this length; DEC
    batch_targets: int = 2048  #: targets a step; DEC
    sampled_above: int = 50_000  #: items above which the softmax is sampled; DEC
    negatives: int = 4096  #: of the sampled softmax; DEC
    item_offset: float | None = None  #: λ_v of the later, hierarchical version: a free offset an item, dropped in the target
    user_offset: float | None = None  #: λ_u of that version: an offset a step, dropped in the target
    settled: bool = field(default=False, metadata=LATER)  #: in a target, take away what all its items share (see ``ZESRec.settle``); DEC
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        check_words(self, "ZESRec settings")


class Batch(NamedTuple):
    """Histories padded on the right with item 0; ``lengths`` says where each ends."""

    items: Tensor  # (B, L) int64
    lengths: Tensor  # (B,) int64
    times: Tensor | None  # (B, L) float64 seconds


class ItemIds(nn.Module):
    """A free vector an item: knows nothing of an item that it was not trained on."""

    def __init__(self, n_items: int, width: int):
        super().__init__()
        self.table = nn.Embedding(n_items, width)
        nn.init.uniform_(self.table.weight, -0.1, 0.1)

    @property
    def count(self) -> int:
        return self.table.num_embeddings

    def forward(self, codes: Tensor | None = None) -> Tensor:
        """(n,) codes or None for all → (n, d)."""
        return self.table.weight if codes is None else self.table(codes)


class ItemText(nn.Module):
    """z = MLP(text vector), Eq. 4: f → 512 → 300."""

    def __init__(self, features: Tensor, settings: ZESRecSettings):
        super().__init__()
        between = nn.ReLU() if settings.nonlinearity == "relu" else nn.Identity()
        self.mlp = nn.Sequential(nn.Linear(features.shape[1], settings.hidden), between, nn.Linear(settings.hidden, settings.width))
        if settings.orthogonal:
            for layer in self.mlp[::2]:
                nn.init.orthogonal_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.dropout = nn.Dropout(settings.text_dropout)
        self.moved = settings.standardise or settings.centre
        mean = features.mean(0) if self.moved else torch.zeros(1)
        spread = features.std(0, correction=int(len(features) > 1)).clamp(min=1e-6) if settings.standardise else torch.ones(1)
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)
        self.offsets = nn.Embedding(len(features), settings.width) if settings.item_offset is not None else None
        if self.offsets is not None:
            nn.init.zeros_(self.offsets.weight)
        self.bind(features)

    def bind(self, features: Tensor) -> None:
        """Take these items for the catalogue; kept out of the state so that the learned part is the same everywhere."""
        self.register_buffer("features", features.to(self.mean.device), persistent=False)

    @property
    def count(self) -> int:
        return len(self.features)

    def forward(self, codes: Tensor | None = None) -> Tensor:
        """(n,) codes or None for all → (n, d). Large catalogues go through in pieces that the backward pass computes again."""
        rows = self.features if codes is None else self.features[codes]
        pieces = rows.split(262_144 if rows.is_cuda else 16_384)  # small products leave a card idle, and a gigabyte is little there
        if len(pieces) > 1 and torch.is_grad_enabled():
            z = torch.cat([recompute(self._encode, piece, use_reentrant=False) for piece in pieces])
        else:
            z = torch.cat([self._encode(piece) for piece in pieces])
        if self.offsets is not None and self.training:
            z = z + (self.offsets.weight if codes is None else self.offsets(codes))
        return z

    def _encode(self, rows: Tensor) -> Tensor:
        rows = rows.float()
        return self.mlp(self.dropout((rows - self.mean) / self.spread if self.moved else rows))


class NextItemNetwork(nn.Module):
    """Item vectors in, user vectors out, and the loss of Eq. 2 between the two."""

    def __init__(self, items: ItemIds | ItemText, settings: ZESRecSettings, log_popularity: Tensor | None = None, n_targets: int = 0):
        super().__init__()
        self.settings = settings
        self.n_targets = n_targets  # in an epoch
        self.items = items
        more = {"tcn": {"levels": settings.levels}, "hrnn": {"session_gap": settings.session_gap}}.get(settings.users, {})
        self.users = USER_NETWORKS[settings.users](settings.width, settings.dropout, **more)
        self.start = nn.Parameter(torch.empty(settings.width).uniform_(-0.1, 0.1))  # stands before every history
        self.register_buffer("log_popularity", log_popularity, persistent=False)  # (I,) log of the share of interactions

    def user_vectors(self, vectors: Tensor, times: Tensor | None) -> Tensor:
        """(B, L, d) item vectors → (B, L + 1, d) user vectors, before the first item and after each (Eq. 5)."""
        start = self.start.to(vectors.dtype).expand(len(vectors), 1, -1)
        return self.users(torch.cat([start, vectors], dim=1), times)

    def forward(self, batch: Batch) -> tuple[Tensor, int]:
        """The loss summed over all positions of all histories, and their number P."""
        if not len(batch.items):  # a process that got no part of this batch
            return self.start.sum() * 0.0, 0
        valid = torch.arange(batch.items.shape[1], device=batch.items.device) < batch.lengths[:, None]  # (B, L)
        targets = batch.items[valid]  # (P,)
        sampled = self.items.count > self.settings.sampled_above
        if sampled:  # only the items at hand get a vector: the step costs by the batch, not by the catalogue
            negatives = torch.multinomial(self.log_popularity.exp(), self.settings.negatives, replacement=True)
            codes, local = torch.cat([batch.items.flatten(), negatives]).unique(return_inverse=True)
            z, log_popularity = self.items(codes), self.log_popularity[codes]
            inputs, negative_rows = local[: batch.items.numel()].view_as(batch.items), local[batch.items.numel() :]
        else:
            z, log_popularity, inputs = self.items(), self.log_popularity, batch.items
        times = None if batch.times is None else batch.times[:, :-1]
        u = self.user_vectors(z[inputs[:, :-1]], times)[valid]  # (P, d): the vector before each target
        rows = inputs[valid]

        def loss_at(u: Tensor, z: Tensor) -> Tensor:
            u, z = self.beside_popularity(u, z, log_popularity)
            if sampled:
                log_expected = self.log_popularity[negatives] + np.log(self.settings.negatives)
                return sampled_softmax_loss(u, z, rows, negative_rows, log_expected)
            return full_softmax_loss(u, z, rows)

        if self.settings.user_offset is not None:
            u = u + self._user_offset(u.detach(), z.detach(), loss_at)
        loss = loss_at(u, z)
        if getattr(self.items, "offsets", None) is not None:
            share = len(targets) / self.n_targets  # each batch pays its part, so that an epoch pays λ_v/2 Σ |ε|² once
            loss = loss + 0.5 * self.settings.item_offset * share * self.items.offsets.weight.square().sum()
        return loss, len(targets)

    def beside_popularity(self, u: Tensor, z: Tensor, log_popularity: Tensor | None) -> tuple[Tensor, Tensor]:
        """Vectors whose inner products are z · u + γ log popularity: one more number a vector. In a target nothing is known of it."""
        if not self.settings.popularity or log_popularity is None:
            return u, z
        return torch.cat([u, torch.ones_like(u[:, :1])], dim=1), torch.cat([z, self.settings.popularity * log_popularity[:, None]], dim=1)

    def _user_offset(self, u: Tensor, z: Tensor, loss_at) -> Tensor:
        """The offset ξ that the later version adds to each user vector: argmin loss(u + ξ) + λ_u/2 |ξ|², by a gradient step.

        By the envelope theorem the gradient of the minimum with respect to u is that of the loss at u + ξ, so ξ needs neither
        storage nor a gradient of its own.
        """
        with torch.enable_grad():
            at = u.clone().requires_grad_()
            slope = torch.autograd.grad(loss_at(at, z), at)[0]
        return -slope / self.settings.user_offset


class ZESRec(VectorRecommender):
    """The recommender around the network: batches, training, and one pass over whole histories for scoring."""

    def __init__(self, settings: ZESRecSettings = ZESRecSettings(), checkpoint: Path | None = None):
        self.settings = settings
        self.checkpoint = checkpoint
        self.shift: Tensor | None = None  # (d,) of a target that it has settled in
        self.curve: list[dict[str, float]] = []

    @property
    def zero_shot(self) -> bool:
        return self.settings.items == "text"

    def build(self, n_items: int, features: Tensor | None, log_popularity: Tensor | None = None, n_targets: int = 0) -> None:
        """A fresh network for this catalogue."""
        self.n_items, self.shift = n_items, None
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.training.seed)
            items = ItemText(features, self.settings) if self.zero_shot else ItemIds(n_items, self.settings.width)
            self.network = NextItemNetwork(items, self.settings, log_popularity, n_targets)
        self.network.eval()

    def fit(self, data: Dataset, valid: Fold | None = None) -> Self:
        check_targets(valid)
        features = features_of(data, "ZESRec") if self.zero_shot else None
        popularity = np.bincount(data.interactions["item"], minlength=data.n_items) + 1.0
        self.build(data.n_items, features, torch.as_tensor(np.log(popularity / popularity.sum()), dtype=torch.float32), len(data))
        pieces = in_pieces(data.sequences(), self.settings.max_length)
        device = pick_device(self.settings.training.device)

        def batches(epoch: int) -> Iterator[Batch]:
            return batches_of(pieces, self.settings.batch_targets, device, (self.settings.training.seed, epoch))

        validate = None if valid is None else lambda: self.loss(valid)
        title = f"{self.settings.users}/{self.settings.items} on {data.name}"
        self.curve = train(
            self.network,
            batches,
            self.settings.training,
            validate,
            self.checkpoint,
            title,
            of=lambda: run_of(self.settings, data, valid, features),
        )
        return self

    def bind(self, target: Dataset) -> None:
        features = features_of(target, "ZESRec", self.network.items.features.shape[1])
        with torch.random.fork_rng(devices=[]):  # the first weights are drawn, then replaced
            items = ItemText(features, replace(self.settings, item_offset=None))  # offsets stay in the source
            moved = NextItemNetwork(items, self.settings)
        items.load_state_dict({k: v for k, v in self.network.items.state_dict().items() if not k.startswith("offsets.")})
        moved.users, moved.start = self.network.users, self.network.start
        self.network = moved.to(self.network.start.device).eval()
        self.n_items, self.shift = target.n_items, None
        if self.settings.settled:
            self.settle(target.clock)

    @torch.no_grad()
    def settle(self, clock: bool) -> None:
        """Take away what all items of this catalogue share, since it says nothing of any of them; nobody's purchases are read.

        The network learned to tell the items of the source apart. In another catalogue all texts lie to one side of those, so item vectors
        share a direction, user vectors another, and some items are near to everybody. So here texts are centred by their own mean (where the
        network centres them at all), user vectors by the mean of those after one item, each item once, and item vectors have length one.

        Args:
            clock: whether histories here have times, since a network that reads them takes one without for another.
        """
        items = self.network.items
        if items.moved:
            items.mean = items.features.float().mean(0)
        codes = np.arange(self.n_items, dtype=np.int32)
        after_one = Sequences(codes, np.arange(self.n_items + 1, dtype=np.int64), codes, np.zeros(self.n_items) if clock else None)
        self.shift = self._read(after_one)[1::2].mean(0)

    def on_items(self, codes: np.ndarray) -> ZESRec:
        """The same ID model on some of its items alone, in this order: how ids cross over where titles tell which item is which (section 4.7)."""
        kept = copy.deepcopy(self)
        kept.network.items.table = nn.Embedding.from_pretrained(self.network.items.table.weight.detach()[torch.tensor(codes)])
        kept.n_items = len(codes)
        return kept

    @torch.no_grad()
    def item_vectors(self) -> Tensor:
        z = self.network.items().detach().float()  # detached: a table of ids is the parameter itself
        return z if self.shift is None else F.normalize(z)

    @torch.no_grad()
    def user_vectors(self, sequences: Sequences) -> Tensor:
        u = self._read(sequences)
        return u if self.shift is None else u - self.shift

    def _read(self, sequences: Sequences) -> Tensor:
        """User vectors as the network gives them, whatever the catalogue."""
        network, device = self.network, self.network.start.device
        z = network.items()
        if isinstance(network.users, GRU) and device.type == "cpu" and len(sequences) >= _MANY:
            return network.users.read(network.start, z, sequences)
        out = torch.empty(len(sequences.items) + len(sequences), self.settings.width, device=device)
        for rows in by_length(sequences.lengths, 32_768):
            batch = padded(sequences, rows, device)
            u = network.user_vectors(z[batch.items], batch.times)  # (B, L + 1, d)
            keep = torch.arange(u.shape[1], device=device) <= batch.lengths[:, None]
            place = torch.as_tensor(sequences.starts[rows] + rows, device=device)[:, None] + torch.arange(u.shape[1], device=device)
            out[place[keep]] = u[keep].float()
        return out

    @torch.no_grad()
    def loss(self, fold: Fold) -> float:
        """Mean loss at the fold's targets, over the full catalogue; as in training, but without dropout and offsets."""
        sequences, at = fold.sequences, np.flatnonzero(fold.targets)
        place = torch.as_tensor(at + sequences.rows[at])
        targets = torch.as_tensor(sequences.items[at], dtype=torch.int64, device=self.network.start.device)
        u, z = self.network.beside_popularity(self.user_vectors(sequences)[place], self.item_vectors(), self.network.log_popularity)
        return float(full_softmax_loss(u, z, targets)) / len(at)

    def state(self) -> dict[str, Tensor]:
        kept = {f"network.{k}": v for k, v in self.network.state_dict().items() if "offsets" not in k}  # they serve training alone
        kept |= {"features": self.network.items.features} if self.zero_shot else {}
        return kept | ({} if self.shift is None else {"shift": self.shift})

    def restore(self, state: dict[str, Tensor]) -> None:
        features = state.get("features")
        count = len(features) if self.zero_shot else len(state["network.items.table.weight"])
        self.build(count, features)
        if self.zero_shot:
            self.network.items.offsets = None
        self.network.load_state_dict({k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")})
        self.network.to(pick_device(self.settings.training.device))
        self.shift = state["shift"].to(self.network.start.device) if "shift" in state else None


def in_pieces(sequences: Sequences, length: int) -> Sequences:
    """Cut histories into pieces of at most this length; a piece of one item is kept, as its own first item is a target."""
    pieces = -(-sequences.lengths // length)
    rows = np.repeat(np.arange(len(sequences)), pieces)
    number = np.arange(len(rows)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begin = sequences.starts[:-1][rows] + number * length
    return sequences.ranges(rows, begin, np.minimum(begin + length, sequences.starts[1:][rows]))


def by_length(lengths: np.ndarray, budget: int, order: np.ndarray | None = None) -> list[np.ndarray]:
    """Rows in groups of similar length, each group padded to at most ``budget`` items (a single row may be longer)."""
    order = np.argsort(lengths, kind="stable") if order is None else order
    groups, begin = [], 0
    sizes = np.maximum(lengths[order], 1)
    while begin < len(order):
        longest = np.maximum.accumulate(sizes[begin : begin + budget])
        end = begin + max(1, int(np.searchsorted(longest * np.arange(1, len(longest) + 1), budget, side="right")))
        groups.append(order[begin:end])
        begin = end
    return groups


def shuffled_groups(lengths: np.ndarray, budget: int, seed: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Rows in groups of similar length (see ``by_length``), in random order."""
    rng = np.random.default_rng(seed)
    jitter = rng.permutation(len(lengths))  # so that users of one length do not always meet the same others
    groups = by_length(lengths, budget, jitter[np.argsort(lengths[jitter], kind="stable")])
    for i in rng.permutation(len(groups)):
        yield groups[i]


def batches_of(sequences: Sequences, targets: int, device: torch.device, seed: tuple[int, ...]) -> Iterator[Batch]:
    """Batches of about this many targets, of similar lengths, in random order; with several processes, this one's share."""
    processes = Processes()
    for rows in shuffled_groups(sequences.lengths, targets, seed):
        yield padded(sequences, rows[processes.rank :: processes.count], device)


def padded(sequences: Sequences, rows: np.ndarray, device: torch.device) -> Batch:
    """The histories of these rows side by side."""
    lengths = sequences.lengths[rows]
    steps = np.arange(lengths.max(initial=0))
    place = np.minimum(sequences.starts[rows][:, None] + steps, max(0, len(sequences.items) - 1))
    inside = steps < lengths[:, None]
    items = np.where(inside, sequences.items[place], 0) if len(sequences.items) else np.zeros(place.shape)
    times = None
    if sequences.times is not None:
        times = torch.as_tensor(np.where(inside, sequences.times[place], 0.0) if len(sequences.items) else items, device=device)
    return Batch(torch.as_tensor(items, dtype=torch.int64, device=device), torch.as_tensor(lengths, device=device), times)
