"""Click prediction: what every ranking tower shares, and the two plainest towers, Emblr and BaseDNN (MAIL, sections 3.2.3 and 4.1.2).

A tower reads four groups of embedded fields, of the user, of what the user did, of the context and of the item, and gives the log-odds
of a click. It knows nothing of where the behaviour comes from: that is what lets MAIL hand it a made-up one.

Shape legend: B impressions, L behaviours, d width (32); n_a, n_c, n_t fields of user, context and item.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsrbook.data.clicks import TRAIN, VALID, ClickData, Layout
from zsrbook.data.dataset import DataError
from zsrbook.training import Training, pick_device, train


class Batch(NamedTuple):
    """Codes of some impressions; behaviours are padded behind their end with code 0."""

    user: Tensor  # (B, n_a) int64
    context: Tensor  # (B, n_c)
    item: Tensor  # (B, n_t)
    behaviour: Tensor  # (B, L, ids + action), oldest first
    lengths: Tensor  # (B,)
    new: Tensor  # (B,) bool: no behaviour may be seen (the flag of Eq. 9)
    click: Tensor  # (B,) float32


class Space(NamedTuple):
    """What a tower or a filler must know of the data to be built."""

    layout: Layout
    vocabularies: Mapping[str, int]
    width: int  # d
    longest: int  # behaviours before any impression, at most


class Embedded(NamedTuple):
    """What a tower reads."""

    a: Tensor  # (B, n_a, d) user attributes
    v: Tensor  # (B, L, d) behaviours, 0 where there are none
    mask: Tensor  # (B, L) bool: where there are behaviours
    c: Tensor  # (B, n_c, d) context
    t: Tensor  # (B, n_t, d) item
    item: Tensor  # (B, n_t) int64 codes of the item, for a tower with a table of its own


class Fields(nn.Module):
    """All embeddings in one table, a slice a vocabulary, so that a batch is one lookup a group.

    With ``sparse`` the gradient holds the rows at hand alone, and a step costs by the batch, not by the table.

    Attributes:
        unknown: the rows of code 0, one a vocabulary.
    """

    def __init__(self, space: Space, sparse: bool):
        super().__init__()
        sizes = space.vocabularies
        starts = dict(zip(sizes, np.cumsum([0, *sizes.values()])[:-1].tolist(), strict=True))
        self.unknown = list(starts.values())
        self.table = nn.Embedding(sum(sizes.values()), space.width, sparse=sparse)
        for group in Layout._fields:
            offsets = torch.tensor([starts[name] for name in getattr(space.layout, group)], dtype=torch.int64)
            self.register_buffer(f"{group}_at", offsets, persistent=False)

    def forward(self, batch: Batch) -> Embedded:
        mask = torch.arange(batch.behaviour.shape[1], device=batch.lengths.device) < batch.lengths[:, None]  # (B, L)
        *groups, behaviour = (getattr(batch, group) + getattr(self, f"{group}_at") for group in Layout._fields)
        codes = [*groups, *behaviour.unbind(2)]  # of behaviours each field by itself, so that no gradient is put together from slices
        found = self.table(torch.cat(codes, dim=1))  # one lookup, so that one gradient is as large as the table
        a, c, t, first, *more, action = found.split([part.shape[1] for part in codes], dim=1)
        v = sum(more, first) * action * mask.unsqueeze(-1)  # what ⊙ what was done with it (section 3.1)
        return Embedded(a, v, mask, c, t, batch.item)


class Tower(nn.Module):
    """What a ranking tower is: log-odds from embedded fields, and maybe a loss of its own."""

    def forward(self, x: Embedded) -> Tensor:
        """(B,) log-odds of a click."""
        raise NotImplementedError

    def auxiliary(self, x: Embedded, batch: Batch) -> Tensor:
        """A further loss on rows whose behaviours are real, already weighted; none by default."""
        return x.a.new_zeros(())


def pooled(x: Embedded) -> Tensor:
    """(B, 4 d) each group summed, then side by side (Eq. 11)."""
    return torch.cat([group.sum(1) for group in (x.v, x.a, x.c, x.t)], dim=1)


class Emblr(Tower):
    """Logistic regression on the pooled embeddings (section 4.1.2)."""

    def __init__(self, space: Space):
        super().__init__()
        self.out = nn.Linear(4 * space.width, 1)

    def forward(self, x: Embedded) -> Tensor:
        return self.out(pooled(x)).squeeze(1)


def dropout(x: Tensor, rate: float) -> Tensor:
    """``F.dropout``; on processors by a random byte a number, so with a rate to the nearest 1/256, in an eighth of the time."""
    hidden = round(256 * rate)
    if x.device.type != "cpu" or hidden in (0, 256):
        return F.dropout(x, rate)
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)  # all 64 bits
    kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= hidden
    return x * kept.to(x.dtype).mul_(256 / (256 - hidden))


class Dropout(nn.Dropout):
    """As a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training else x


class BaseDNN(Tower):
    """Two blocks of dropout, dense, batch norm and leaky ReLU, then one unit (Eqs. 11 and 12)."""

    def __init__(self, space: Space, hidden: tuple[int, ...] = (512, 256), dropout: float = 0.5):
        super().__init__()
        sizes = (4 * space.width, *hidden)
        blocks = [(Dropout(dropout), nn.Linear(n, m), nn.BatchNorm1d(m), nn.LeakyReLU()) for n, m in zip(sizes, hidden, strict=False)]
        self.layers = nn.Sequential(*(layer for block in blocks for layer in block), nn.Linear(sizes[-1], 1))

    def forward(self, x: Embedded) -> Tensor:
        return self.layers(pooled(x)).squeeze(1)


class Filler(nn.Module):
    """What stands in for the behaviour of a user who has none, and how it learns to."""

    #: name -> number of the last call of ``losses`` that its reader may want to see beside them
    notes: Mapping[str, Tensor] = MappingProxyType({})

    def losses(self, x: Embedded) -> dict[str, Tensor]:
        """Name -> loss, on rows with real behaviour; ``x`` carries no gradient into the embeddings."""
        return {}

    def fill(self, x: Embedded, new: Tensor) -> Embedded:
        """The same rows, with a made-up behaviour where ``new``; the others untouched."""
        raise NotImplementedError


@dataclass(frozen=True)
class RankingSettings:
    """One line a choice; ``DEC`` marks what the paper leaves open and the book decides."""

    width: int = 32  #: of every embedding; paper
    spread: float = 0.05  #: standard deviation of embeddings at the start, but of the unknown, which is 0 until training meets it; DEC
    batch: int = 1024  #: impressions a step; paper
    sparse_above: int = 200_000  #: codes in all vocabularies above which a step touches the embeddings at hand alone; DEC
    training: Training = field(default_factory=lambda: Training(epochs=2, optimizer="adam", learning_rate=1e-3, clip=None, patience=None))


class ClickNetwork(nn.Module):
    """Embeddings, tower, and maybe a filler; a call gives the loss of a batch.

    Raises:
        TypeError: the tower is no ``Tower``.
    """

    def __init__(self, space: Space, settings: RankingSettings, tower: Tower):
        super().__init__()
        if not isinstance(tower, Tower):
            raise TypeError(f"{type(tower).__name__} is no ranking tower; derive it from zsrbook.models.ranking.Tower, and give it a forward")
        self.fields = Fields(space, sum(space.vocabularies.values()) > settings.sparse_above)
        nn.init.normal_(self.fields.table.weight, std=settings.spread)
        first = int(self.fields.behaviour_at[-1])
        with torch.no_grad():
            self.fields.table.weight[self.fields.unknown] = 0.0  # a user, say, whom no training impression shows, must add nothing that chance drew
            # what ⊙ how begins as what: a product of two small numbers would leave behaviour far below all else
            self.fields.table.weight[first : first + space.vocabularies[space.layout.behaviour[-1]]] += 1.0
        self.tower = tower
        self.filler: Filler | None = None
        self.trace: list[dict[str, Tensor | float]] = []  # by name the losses and notes of each step that led to these weights, for Figure 4

    def forward(self, batch: Batch) -> tuple[Tensor, int]:
        """The loss summed over the batch (Eq. 14), and its size."""
        x, old = self.fields(batch), ~batch.new
        real = x if old.all() else Embedded(*(part[old] for part in x))
        losses = {} if self.filler is None else self.filler.losses(Embedded(*(part.detach() for part in real)))
        auxiliary = self.tower.auxiliary(real, Batch(*(part[old] for part in batch)))
        losses["ranking"] = F.binary_cross_entropy_with_logits(self.tower(self.filled(x, batch.new)), batch.click)
        notes = {} if self.filler is None else self.filler.notes
        self.trace.append({name: value.detach() for name, value in {**losses, **notes}.items()})
        return (sum(losses.values()) + auxiliary) * len(batch.click), len(batch.click)

    def get_extra_state(self) -> Tensor:
        """The trace goes where the weights go, so that a run that is resumed has it whole; as JSON in bytes, since a state holds tensors."""
        self.trace = [{name: float(value) for name, value in step.items()} for step in self.trace]
        return torch.frombuffer(bytearray(json.dumps(self.trace), "utf-8"), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        self.trace = json.loads(state.cpu().numpy().tobytes())

    def filled(self, x: Embedded, new: Tensor) -> Embedded:
        return x if self.filler is None else self.filler.fill(x, new)

    @torch.no_grad()
    def log_odds(self, batch: Batch) -> Tensor:
        """(B,) of a click."""
        return self.tower(self.filled(self.fields(batch), batch.new)).float()


class RankingModel:
    """A click model: ``fit`` it on the training impressions, ask ``scores`` of any others.

    Args:
        tower: makes a fresh ranking tower for a space.
        filler: makes a fresh filler; None: new users have no behaviour.
        checkpoint: written after each epoch, and read where it is there.
    """

    def __init__(
        self,
        tower: Callable[[Space], Tower],
        settings: RankingSettings = RankingSettings(),
        filler: Callable[[Space], Filler] | None = None,
        checkpoint: Path | None = None,
    ):
        self.settings = settings
        self.make_tower, self.make_filler = tower, filler
        self.checkpoint = checkpoint
        self.curve: list[dict[str, float]] = []

    def build(self, data: ClickData) -> None:
        """A fresh network for these vocabularies."""
        self.space = Space(data.layout, data.vocabularies, self.settings.width, data.longest)
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.training.seed)
            self.network = ClickNetwork(self.space, self.settings, self.make_tower(self.space))
            if self.make_filler:  # drawn last, so that all else begins the same with and without it
                self.network.filler = self.make_filler(self.space)
        self.network.eval()

    def fit(self, data: ClickData) -> Self:
        """Learn from the training fold; the validation fold stops early, if patience is set.

        Raises:
            DataError: fewer than two training impressions, of which batch norm makes nothing.
        """
        if (shown := len(data.rows(TRAIN))) < 2:
            raise DataError(f"{data.name}: {shown} training impressions; expected 2 or more")
        self.build(data)
        device = pick_device(self.settings.training.device)

        def batches(epoch: int) -> Iterator[Batch]:
            order = np.random.default_rng((self.settings.training.seed, epoch)).permutation(data.rows(TRAIN))
            return (batch_of(data, rows, device) for rows in in_batches(order, self.settings.batch))

        valid = data.rows(VALID)
        validate = (lambda: self.loss(data, valid)) if len(valid) and self.settings.training.patience is not None else None
        self.curve = train(
            self.network,
            batches,
            self.settings.training,
            validate,
            self.checkpoint,
            f"clicks on {data.name}",
            shares=False,
            of=lambda: self.chosen() | {"data": data.sha256},
        )
        return self

    def chosen(self) -> dict[str, Any]:
        """All settings of what was fitted, by name."""
        parts = {"tower": self.network.tower, "filler": self.network.filler}
        return asdict(self.settings) | {name: repr(getattr(part, "settings", part)) for name, part in parts.items()}

    def frozen(self, data: ClickData) -> ClickNetwork:
        """The network, fitted first where it isn't yet, and no longer to be trained: for a model that stands on this one.

        Raises:
            DataError: it was fitted on data with other fields or vocabularies, whose codes mean something else.
        """
        if not hasattr(self, "network"):
            self.fit(data)
        self.refuse_others(data)
        return self.network.requires_grad_(False).eval()

    def refuse_others(self, data: ClickData) -> None:
        """Raises DataError if what was fitted on has other fields or vocabularies than ``data``, whose codes would read rows of something else."""
        for what, here in described(data).items():
            there = described(self.space)[what]
            if here != there:
                raise DataError(f"{data.name} has the {what} {here}, but the model was fitted on data with {there}; fit it on {data.name}")

    def scores(self, data: ClickData, rows: np.ndarray) -> np.ndarray:
        """(n,) float32 log-odds of a click at these impressions.

        Raises:
            DataError: as ``refuse_others``.
        """
        self.refuse_others(data)
        device = self.network.fields.table.weight.device
        pieces = in_batches(rows, 2048)  # of more, the behaviours would no longer lie in the processor's cache
        parts = [self.network.log_odds(batch_of(data, piece, device)).cpu().numpy() for piece in pieces]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def loss(self, data: ClickData, rows: np.ndarray) -> float:
        """Mean log loss at these impressions."""
        return log_loss(self.scores(data, rows), data.click[rows])


def described(data: ClickData | Space) -> dict[str, str]:
    """What decides which row of the table a code reads, in words: the fields of each group, and the codes of each vocabulary."""
    fields = {f"{group} fields": ", ".join(names) for group, names in data.layout._asdict().items()}
    return fields | {"vocabularies": ", ".join(f"{name} ({size:,} codes)" for name, size in data.vocabularies.items())}


def log_loss(log_odds: np.ndarray, click: np.ndarray) -> float:
    """Mean of -log p(what happened) (Eq. 13)."""
    return float(np.logaddexp(0, np.where(click == 1, -log_odds, log_odds).astype(np.float64)).mean())


def in_batches(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Pieces of this size; a last one of a single row joins the one before, since batch norm can't train on it."""
    cuts = np.arange(size, len(rows) - 1, size)
    return iter(np.split(rows, cuts)) if len(rows) else iter(())


def batch_of(data: ClickData, rows: np.ndarray, device: torch.device) -> Batch:
    """These impressions as tensors, behaviours padded to the longest among them."""
    begin, end = data.windows_seen(rows).T
    lengths = end - begin
    at = begin[:, None] + np.arange(max(1, lengths.max(initial=0)))  # (B, L)
    inside = at < end[:, None]
    behaviour = (
        data.behaviours[np.where(inside, at, 0)] * inside[..., None] if len(data.behaviours) else np.zeros((*at.shape, len(data.layout.behaviour)))
    )
    codes = (data.users[data.user[rows]], data.context[rows], data.items[data.item[rows]], behaviour, lengths)
    tensors = [torch.as_tensor(part, dtype=torch.int64, device=device) for part in codes]
    return Batch(*tensors, tensors[-1] == 0, torch.as_tensor(data.click[rows], dtype=torch.float32, device=device))
