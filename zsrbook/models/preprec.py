"""PrepRec: items known by how their popularity moves, users by their sequence (Wang, Rathi and Sundaram 2024, arXiv 2401.01497).

An item at a moment is a list of **popularity percentiles**: where it stood among the items known so far at the end of each of the last
twelve *coarse* windows (ten days, older counts halved from window to window), and by the count of the last four *fine* windows (two
days each). Nothing else of an item is read, so that what is learned in one catalogue means the same in any other that has a clock.

    x_i(t) = [enc₁₁(coarse percentile of i, one window back) … (twelve back), enc₆(fine percentile of i)]         138 numbers
    z_i(t) = W₂ relu(W₁ x_i(t) + b₁) + b₂                                                                         138 → 100 → 50
    u_k    = causal self-attention over z of the items 1 … k, each at its own time, + position + rank of the gap    two blocks
    score  = u_k · z_i(t), t the moment of prediction

``enc`` spreads a percentile over evenly spaced points, linearly between the two nearest; an item that nobody has taken yet is all zeros.
The network has 44,950 weights without the start vector, which agrees with the 0.045 million that a public summary reports of the paper.

The paper's own text was out of reach beyond its abstract and summaries, so this follows the authors' public code, CrowdDynamicsLab/preprec:
data/data.py at 6736e0d, data/preprocess.sh at 19cce56 (lengths of the windows), data.py at 2b8b350 (gaps), model.py, train_test.py and parse.py at
22d0432, and a later model.py whose commit is not known here. Departures, ``prerec-p*`` in the deviation register; ``AsCode`` undoes those that
are neither plain settings nor a matter of what is judged:

- p1 Causality. A percentile here knows complete windows before the moment alone. At 22d0432 the coarse percentile of a target counts the whole
  window that it falls into, itself included. The later code steps one window back, though not in the first window, and in its evaluation
  adds the running fine window, for the candidates only.
- p2 In training the later code looks up the fine window of targets and negatives by the number of the *coarse* window. Here by its own.
- p3 Windows are on the clock. In the code windows without interactions don't count, and the end of a year cuts one short.
- p4 Relative time. The code adds a sinusoid of ``argsort`` of the gaps, which is no rank, over all gaps of the history, later ones
  included. Here: of the rank of the gap among those up to that step. As in the code, an item's gap is the one after it, up to now.
- p5 Positions count from the oldest item that is read. The code pads on the left, so that its last position is always the same.
- p6 A learned start vector stands before every history, and the first item is a target too: it serves empty histories.
- p7 The code trains on the newest 200 items of a user. Here every item is a target once, and is predicted from the 100 to 200 before it
  (or all, where there are fewer).
- p8 Training: the loss is the code's, a binary cross-entropy on each next item against one item that the user never takes. The best epoch is
  that of the lowest validation loss, not of the highest NDCG@10 on 100 negatives; gradients are clipped; Adam's β₂ is 0.999, not 0.98.
- p9 Ranking is in the full catalogue with ties at their expected value; the code ranks the target among 100 random items.

A full softmax is no option here: every moment has other item vectors, so a step would cost catalogue × moments passes of the item network.
``loss="softmax"`` with more ``negatives`` is as near as it gets.

Shape legend: B windows of histories in a batch, L longest of them, P predictions in it, K negatives, I items, C coarse windows, d width (50).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional as F

from zsrbook.data.dataset import DataError, Dataset, Sequences
from zsrbook.data.splits import Fold
from zsrbook.models.base import Recommender, check_targets, in_chunks, run_of
from zsrbook.models.baselines import in_time_order
from zsrbook.models.zesrec import by_length, shuffled_groups
from zsrbook.training import LATER, Processes, Training, check_words, pick_device, train

DAY = 86400.0
#: a percentile of 100 as an int16: steps of 0.003
FULL = 32_767
#: bytes that the percentiles of one horizon may take
TABLE_LIMIT = 2_000_000_000


@dataclass(frozen=True)
class AsCode:
    """Decisions of ours undone, to see what each is worth; the numbers are those of the departures above."""

    running: bool = False  #: p1: coarse percentiles of targets and candidates count the whole window of the moment, what is still to come included
    slip: bool = False  #: p2: in training, the fine window of targets and negatives is looked up by the number of the coarse one
    all_gaps: bool = False  #: p4: relative time is argsort of all gaps that are read in one pass, later ones included
    from_newest: bool = False  #: p5: positions count so that the last item read in a pass is always at ``max_length``
    no_start: bool = False  #: p6: no start vector, and the first item is no target; an empty history scores all items 0
    newest: bool = False  #: p7: training sees the newest items of a user alone, in one window of ``max_length``


@dataclass(frozen=True)
class PrepRecSettings:
    """One line a choice; "code" is the authors' code, ``DEC`` is decided here."""

    coarse_days: float = 10.0  #: length of a coarse window; code
    coarse_windows: int = 12  #: so many of them are read; code
    decay: float = 0.5  #: of counts from one coarse window to the next; code
    coarse_points: int = 11  #: that a coarse percentile is spread over; code
    fine_days: float = 2.0  #: length of a fine window; code
    fine_span: int = 4  #: fine windows that are counted together; code
    fine_points: int = 6  #: that a fine percentile is spread over; code
    moment: Literal["now", "last"] = "now"  #: candidates are as popular as when the next item is asked for (code), or when the last one was taken
    gaps: bool = True  #: relative time: the rank of each gap; code
    width: int = 50  #: of item and user vectors, half of that of the layer between; code
    blocks: int = 2  #: of self-attention; code
    heads: int = 1  #: code
    dropout: float = 0.2  #: code
    max_length: int = 200  #: items of a history that are read at once; code
    loss: Literal["bce", "softmax"] = "bce"  #: code: binary cross-entropy; the other is a softmax over the target and its negatives
    negatives: int = 1  #: a target, uniform among the items that the user never takes; code
    batch_targets: int = 4096  #: targets a step, about the code's 128 users; DEC
    #: 80 epochs of Adam at 0.001, stopped after 20 without a better validation loss; code
    training: Training = field(default_factory=lambda: Training(epochs=80, optimizer="adam", learning_rate=1e-3, patience=20))
    as_code: AsCode = field(default=AsCode(), metadata=LATER)  #: what of the code is done that is otherwise left; DEC

    def __post_init__(self) -> None:
        check_words(self, "PrepRec settings")


# -- popularity through time ---------------------------------------------------------------------------------------------------


def percentiles(counts: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(I,) in (0, 100]: the rank of each seen item among the seen ones, in percent; equal counts share their mean rank; 0 for unseen.

    >>> percentiles(np.array([3.0, 0.0, 1.0, 1.0, 0.0]), np.array([True, False, True, True, True]))
    array([100. ,   0. ,  62.5,  62.5,  25. ])
    """
    out = np.zeros(len(counts))
    if seen.any():
        out[seen] = 100 * rankdata(counts[seen]) / seen.sum()
    return out


@dataclass(frozen=True)
class Horizon:
    """Percentiles of all items at the end of every window that changed them.

    Attributes:
        seconds: length of a window; window w holds the times from w × seconds up to (w + 1) × seconds, the end left out.
        windows: (R,) int64 numbers of the windows after which the percentiles are others than before.
        table: (R + 1, I) int16 percentiles in steps of 100 / ``FULL``; row r holds after ``windows[r - 1]``, row 0 before all of them.
    """

    seconds: float
    windows: np.ndarray
    table: np.ndarray

    @classmethod
    def of(cls, items: np.ndarray, times: np.ndarray, n_items: int, days: float, decay: float = 1.0, span: int | None = None) -> Self:
        """Counts that shrink by ``decay`` from window to window, or, with ``span``, counts of that many windows.

        Args:
            items, times: (N,) interactions in any order.

        Raises:
            DataError: the table would be larger than ``TABLE_LIMIT``.
        """
        seconds = days * DAY
        window = np.floor(times / seconds).astype(np.int64)
        when, item, step = window, items, np.ones(len(items))
        if span is not None:  # what enters a count also leaves it
            when, item, step = np.concatenate([when, when + span]), np.concatenate([item, item]), np.concatenate([step, -step])
        order = np.argsort(when, kind="stable")
        windows, begin = np.unique(when[order], return_index=True)
        size = 2 * (len(windows) + 1) * n_items
        if size > TABLE_LIMIT:
            raise DataError(
                f"the popularity of {n_items} items after each of {len(windows)} windows of {days:g} days takes {size / 1e9:.1f} GB;"
                f" expected at most {TABLE_LIMIT / 1e9:g}: take longer windows, or fewer items"
            )
        table = np.zeros((len(windows) + 1, n_items), np.int16)
        counts, seen = np.zeros(n_items), np.zeros(n_items, bool)
        pieces = np.split(order, begin[1:])
        for row, piece in enumerate(pieces):
            counts *= decay ** (windows[row] - windows[row - 1] if row else 0)
            np.add.at(counts, item[piece], step[piece])
            seen[item[piece]] = True
            table[row + 1] = np.maximum(np.rint(percentiles(counts, seen) * (FULL / 100)), seen)  # never 0 for a seen item
        return cls(seconds, windows, table)

    def number(self, moments: np.ndarray) -> np.ndarray:
        """(…,) of the newest window that is complete at the moment."""
        return np.floor(np.asarray(moments) / self.seconds).astype(np.int64) - 1

    def rows(self, newest: np.ndarray, back: int = 1) -> np.ndarray:
        """(…, back) table rows of the windows with these numbers, and of those before them."""
        return np.searchsorted(self.windows, newest[..., None] - np.arange(back), side="right")


@dataclass(frozen=True)
class PopularityClock:
    """What every item's popularity was at any moment, by the interactions of complete windows before it.

    Attributes:
        coarse, fine: the two horizons.
        back: coarse windows that are read.
        end: the moment of histories without a clock: all interactions lie in complete fine windows, and the newest of these still count.
    """

    coarse: Horizon
    fine: Horizon
    back: int
    end: float

    @classmethod
    def of(cls, data: Dataset, settings: PrepRecSettings) -> Self:
        """From the interactions of ``data``.

        Raises:
            DataError: the data has no clock, or the tables would be too large.
        """
        items, times = in_time_order(data, "PrepRec")
        try:
            coarse = Horizon.of(items, times, data.n_items, settings.coarse_days, decay=settings.decay)
            fine = Horizon.of(items, times, data.n_items, settings.fine_days, span=settings.fine_span)
        except DataError as error:
            raise DataError(f"{data.name}: {error}") from None
        return cls(coarse, fine, settings.coarse_windows, times[-1] + fine.seconds)

    @property
    def n_items(self) -> int:
        return self.coarse.table.shape[1]

    def rows(self, moments: np.ndarray, running: bool = False, slip: bool = False) -> np.ndarray:
        """(…, C + 1) rows of the coarse table, newest first, and one of the fine table; equal rows mean equal item vectors.

        Args:
            running, slip: see ``AsCode``.
        """
        coarse, fine = self.coarse.number(moments), self.fine.number(moments)
        if slip:  # the code numbers both from the first interaction on
            fine = self.fine.windows[0] + coarse - self.coarse.windows[0]
        return np.concatenate([self.coarse.rows(coarse + running, self.back), self.fine.rows(fine)], axis=-1)

    def at(self, items: np.ndarray, rows: np.ndarray) -> Tensor:
        """(…, C + 1) float32 percentiles of these items at moments with these ``rows``, coarse ones first."""
        return self._look_up(rows, np.asarray(items)[..., None])

    def catalogue(self, rows: np.ndarray) -> Tensor:
        """(I, C + 1) float32 percentiles of all items at a moment with these ``rows``."""
        return self._look_up(rows, np.arange(self.n_items)[:, None])

    def _look_up(self, rows: np.ndarray, items: np.ndarray) -> Tensor:
        coarse, fine = self.coarse.table[rows[..., :-1], items], self.fine.table[rows[..., -1:], items]
        return torch.from_numpy(np.concatenate([coarse, fine], axis=-1).astype(np.float32) * np.float32(100 / FULL))


def spread(percentile: Tensor, points: int) -> Tensor:
    """(…, n) percentiles → (…, n, points): weights on evenly spaced points, linear between the two nearest; 0 gives no weight at all.

    >>> spread(torch.tensor([25.0, 100.0, 0.0]), 6)
    tensor([[0.0000, 0.7500, 0.2500, 0.0000, 0.0000, 0.0000],
            [0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 1.0000],
            [0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000]])
    """
    place = percentile.unsqueeze(-1) * ((points - 1) / 100)
    weights = (1 - (place - torch.arange(points, device=percentile.device)).abs()).clamp(min=0)
    return weights * (percentile > 0).unsqueeze(-1)


# -- the network ---------------------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Windows of histories, padded on the right, and what is to be predicted from them."""

    percentiles: Tensor  # (B, L, C + 1) of each item when it was taken
    gaps: Tensor  # (B, L) float64 seconds; infinite where padded
    row: Tensor  # (P,) int64 window of each prediction
    step: Tensor  # (P,) int64 items of that window that it has read
    targets: Tensor | None = None  # (P, 1 + K, C + 1) of the target and its negatives at the moment of prediction


class Block(nn.Module):
    """SASRec's block (Kang and McAuley 2018) as its PyTorch port has it: only the queries are normalised before the attention."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.before, self.between = nn.LayerNorm(width, eps=1e-8), nn.LayerNorm(width, eps=1e-8)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.feed = nn.Sequential(nn.Linear(width, width), nn.Dropout(dropout), nn.ReLU(), nn.Linear(width, width), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """(B, L + 1, d) → (B, L + 1, d); step k sees the steps 0 … k."""
        asked = self.before(x)
        q, k, v = (f(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f, y in ((self.query, asked), (self.key, x), (self.value, x)))
        seen = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0, is_causal=True)
        x = self.between(asked + seen.transpose(1, 2).flatten(2))
        return x + self.feed(x)


class PrepRecNetwork(nn.Module):
    """Percentiles in, item and user vectors out."""

    def __init__(self, settings: PrepRecSettings):
        super().__init__()
        self.settings = settings
        width = settings.width
        inputs = settings.coarse_windows * settings.coarse_points + settings.fine_points
        self.item = nn.Sequential(nn.Linear(inputs, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.blocks = nn.ModuleList(Block(width, settings.heads, settings.dropout) for _ in range(settings.blocks))
        self.last = nn.LayerNorm(width, eps=1e-8)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)  # as the code
            elif name == "item.0.bias":
                nn.init.zeros_(parameter)
        self.start = nn.Parameter(torch.empty(width).uniform_(-0.1, 0.1))  # stands before every history; not read with ``no_start``

    def item_vectors(self, percentile: Tensor) -> Tensor:
        """(…, C + 1) → (…, d)."""
        coarse, fine = percentile[..., :-1], percentile[..., -1:]
        x = torch.cat([spread(coarse, self.settings.coarse_points).flatten(-2), spread(fine, self.settings.fine_points).flatten(-2)], dim=-1)
        return self.item(x)

    def user_vectors(self, percentile: Tensor, gaps: Tensor) -> Tensor:
        """(B, L, C + 1), (B, L) → (B, L + 1, d): before the first item and after each."""
        z, code = self.item_vectors(percentile), self.settings.as_code
        x = torch.cat([self.start.to(z.dtype).expand(len(z), 1, -1), z], dim=1)
        places = torch.arange(x.shape[1], device=x.device)
        if code.from_newest:
            places = places + self.settings.max_length - gaps.isfinite().sum(1, keepdim=True)
        x = x + sinusoid(places, x.shape[2])
        if self.settings.gaps:
            ranks = gaps.argsort(dim=1, stable=True) if code.all_gaps else ranks_so_far(gaps)
            x = x + sinusoid(F.pad(ranks, (1, 0)), x.shape[2])
        if code.no_start:
            x = x[:, 1:]
        for block in self.blocks:
            x = block(x)
        u = self.last(x)
        return F.pad(u, (0, 0, 1, 0)) if code.no_start else u

    def forward(self, batch: Batch) -> tuple[Tensor, int]:
        """The loss summed over predictions, and their number P."""
        if not len(batch.row):  # a process that got no part of this batch
            return self.start.sum() * 0.0, 0
        u = self.user_vectors(batch.percentiles, batch.gaps)[batch.row, batch.step]  # (P, d)
        scores = torch.einsum("pd,pkd->pk", u, self.item_vectors(batch.targets)).float()  # (P, 1 + K), the target first
        if self.settings.loss == "softmax":
            return -scores.log_softmax(1)[:, 0].sum(), len(scores)
        return (F.softplus(-scores[:, 0]) + F.softplus(scores[:, 1:]).mean(1)).sum(), len(scores)


def sinusoid(places: Tensor, width: int) -> Tensor:
    """(…,) → (…, width): sines at even and cosines at odd places, of wavelengths from 2π to 10,000 · 2π."""
    number = torch.arange(width, device=places.device)
    angle = places.unsqueeze(-1).float() / 10_000 ** (2 * (number // 2) / width)
    return torch.where(number % 2 == 0, angle.sin(), angle.cos())


def ranks_so_far(gaps: Tensor) -> Tensor:
    """(B, L) → (B, L) float32: the rank of each gap among those up to it, from 1 for the smallest; equal gaps share their mean rank.

    >>> ranks_so_far(torch.tensor([[5.0, 2.0, 9.0, 5.0]]))
    tensor([[1.0000, 1.0000, 3.0000, 2.5000]])
    """
    mine, other = gaps.unsqueeze(2), gaps.unsqueeze(1)
    earlier = ((other < mine) + 0.5 * (other == mine)).float().tril(-1)  # (B, L, L)
    return 1 + earlier.sum(2)


# -- the recommender -----------------------------------------------------------------------------------------------------------


class Queries(NamedTuple):
    """What is asked of histories: of row ``row``, after ``read`` items, at ``moment``; all (n,)."""

    row: np.ndarray
    read: np.ndarray
    moment: np.ndarray


class Windows(NamedTuple):
    """Stretches of histories that are read at once; query q is answered in window ``of[q]``. The others are (W,)."""

    row: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    of: np.ndarray


def windows_of(queries: Queries, length: int, newest: bool = False) -> Windows:
    """Each query reads back to a multiple of half the length, as far as the length allows: to the start, or 1/2 to 1 of the length.

    Where a window begins depends on how many items the query has read and on nothing else, so neighbours share their window and
    yet get what they would get alone. With ``newest``, see ``AsCode``, all queries of a row share the one window that its newest query reads.
    """
    stride = max(1, length // 2)
    begin = np.where(queries.read > length, -(-(queries.read - length) // stride) * stride, 0)
    if newest:
        most = np.zeros(queries.row.max(initial=-1) + 1, np.int64)
        np.maximum.at(most, queries.row, queries.read)
        begin = np.maximum(most - length, 0)[queries.row]
    key, of = np.unique(queries.row * (begin.max(initial=0) + 1) + begin, return_inverse=True)
    row, begin = np.divmod(key, begin.max(initial=0) + 1)
    end = np.zeros(len(key), np.int64)
    np.maximum.at(end, of, queries.read)
    return Windows(row, begin, end, of)


class PrepRec(Recommender):
    """The recommender around the network: popularity up to each moment, training, and one pass over whole histories for scoring.

    ``fit`` and ``transfer`` both read the interactions of the data that they get, and both only before each moment. So in one
    catalogue, too, ``fit(split.train)`` followed by ``transfer(split.test.data)`` moves on to the popularity of test time, and
    changes no weight. A history without times is read as if all of it happened just after the data ends.
    """

    zero_shot = True

    def __init__(self, settings: PrepRecSettings = PrepRecSettings(), checkpoint: Path | None = None):
        self.settings = settings
        self.checkpoint = checkpoint
        self.curve: list[dict[str, float]] = []

    def build(self) -> None:
        """A fresh network."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.training.seed)
            self.network = PrepRecNetwork(self.settings).eval()

    def fit(self, data: Dataset, valid: Fold | None = None) -> Self:
        """Learn from ``data``.

        Raises:
            DataError: no clock, in ``data`` or in ``valid``; tables too large; a validation fold without targets.
        """
        check_targets(valid)
        self.bind(data)
        self.build()
        seed = self.settings.training.seed
        home = Examples(data.sequences(), self.clock, self.settings, training=True)
        validate = None
        if valid is not None:
            away = Examples(valid.sequences, PopularityClock.of(valid.data, self.settings), self.settings, np.flatnonzero(valid.targets))

            @torch.no_grad()
            def validate() -> float:
                sums = [self.network(batch) for batch in away.batches((seed, 2**31), shares=False)]  # the same negatives each time
                return float(sum(loss for loss, _ in sums)) / sum(n for _, n in sums)

        self.curve = train(
            self.network,
            lambda epoch: home.batches((seed, epoch)),
            self.settings.training,
            validate,
            self.checkpoint,
            f"PrepRec on {data.name}",
            of=lambda: run_of(self.settings, data, valid),
        )
        return self

    def bind(self, target: Dataset) -> None:
        self.clock = PopularityClock.of(target, self.settings)
        self.n_items = target.n_items

    @torch.no_grad()
    def scores(self, histories: Sequences) -> Tensor:
        moments = histories.moments(self.clock.end)
        if self.settings.moment == "last":
            moments = np.where(histories.lengths > 0, replace(histories, now=None).moments(self.clock.end), moments)
        queries = Queries(np.arange(len(histories)), histories.lengths, moments)
        out = torch.empty(len(histories), self.n_items, device=self.network.start.device)
        for rows, scores in self._answers(histories, queries):
            out[torch.as_tensor(rows, device=out.device)] = scores
        return out

    def prefix_scores(self, sequences: Sequences, at: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
        for rows, scores in self._answers(sequences, queries_at(sequences, at, self.clock.end, self.settings.moment)):
            yield at[rows], scores

    def _answers(self, sequences: Sequences, queries: Queries) -> Iterator[tuple[np.ndarray, Tensor]]:
        """(queries, their scores) in chunks, one moment after the other: all queries between two window ends share their item vectors."""
        u = self._user_vectors(sequences, queries)
        rows, group = np.unique(self.clock.rows(queries.moment, self.settings.as_code.running), axis=0, return_inverse=True)
        order = np.argsort(group.ravel(), kind="stable")
        bounds = np.searchsorted(group.ravel()[order], np.arange(len(rows) + 1))
        for row, begin, end in zip(rows, bounds, bounds[1:], strict=False):
            z = self._item_vectors(row)
            for chunk in in_chunks(order[begin:end], self.n_items):
                yield chunk, u[torch.as_tensor(chunk, device=u.device)] @ z.T

    @torch.no_grad()
    def _item_vectors(self, row: np.ndarray) -> Tensor:
        """(I, d) of the whole catalogue at a moment with these rows of the clock."""
        pieces = self.clock.catalogue(row).split(65_536)
        return torch.cat([self.network.item_vectors(piece.to(self.network.start.device)) for piece in pieces]).float()

    @torch.no_grad()
    def _user_vectors(self, sequences: Sequences, queries: Queries) -> Tensor:
        """(n, d)."""
        examples = Examples(sequences, self.clock, self.settings, queries=queries)
        out = torch.empty(len(queries.row), self.settings.width, device=self.network.start.device)
        for windows in by_length(examples.lengths, 32_768):
            batch, asked = examples.batch(windows)
            out[torch.as_tensor(asked, device=out.device)] = self.network.user_vectors(batch.percentiles, batch.gaps)[batch.row, batch.step].float()
        return out

    def state(self) -> dict[str, Tensor]:
        clock = self.clock
        tables = {"coarse.windows": clock.coarse.windows, "coarse.table": clock.coarse.table, "fine.windows": clock.fine.windows}
        tables |= {"fine.table": clock.fine.table, "end": np.array(clock.end)}
        return {f"network.{k}": v for k, v in self.network.state_dict().items()} | {k: torch.as_tensor(v) for k, v in tables.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.build()
        self.network.load_state_dict({k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")})
        self.network.to(pick_device(self.settings.training.device))
        days = (("coarse", self.settings.coarse_days), ("fine", self.settings.fine_days))
        horizons = [Horizon(length * DAY, state[f"{name}.windows"].numpy(), state[f"{name}.table"].numpy()) for name, length in days]
        self.clock = PopularityClock(*horizons, self.settings.coarse_windows, float(state["end"]))
        self.n_items = self.clock.n_items


def queries_at(sequences: Sequences, at: np.ndarray, end: float, moment: str) -> Queries:
    """One query for each flat index: what comes there, given what stands before it?"""
    rows = np.searchsorted(sequences.starts, at, side="right") - 1
    read = at - sequences.starts[rows]
    if sequences.times is None:
        return Queries(rows, read, np.full(len(at), end))
    return Queries(rows, read, sequences.times[at - (read > 0)] if moment == "last" else sequences.times[at])


def learned_from(sequences: Sequences, settings: PrepRecSettings) -> np.ndarray:
    """(n,) flat indices of the items that training predicts: all, but for those that ``AsCode`` leaves out."""
    keep, code = np.ones(len(sequences.items), bool), settings.as_code
    if code.no_start:
        keep &= sequences.positions > 0
    if code.newest:
        keep &= sequences.positions >= np.repeat(sequences.lengths, sequences.lengths) - settings.max_length
    return np.flatnonzero(keep)


class Examples:
    """Histories cut into windows, and what is asked in each: what comes at ``at``, by default at every item, or ``queries``.

    In ``training`` the defaults and lookups are those of ``AsCode``, where it speaks of training.
    """

    def __init__(
        self,
        sequences: Sequences,
        clock: PopularityClock,
        settings: PrepRecSettings,
        at: np.ndarray | None = None,
        queries: Queries | None = None,
        training: bool = False,
    ):
        self.sequences, self.clock, self.settings = sequences, clock, settings
        code = settings.as_code if training else replace(settings.as_code, slip=False, no_start=False, newest=False)
        self.target_rows = partial(clock.rows, running=code.running, slip=code.slip)
        self.at = learned_from(sequences, replace(settings, as_code=code)) if at is None else at
        self.queries = queries_at(sequences, self.at, clock.end, settings.moment) if queries is None else queries
        self.windows = windows_of(self.queries, settings.max_length, code.newest)
        self.lengths = self.windows.end - self.windows.begin
        self.order = np.argsort(self.windows.of, kind="stable")  # queries by window
        self.bounds = np.searchsorted(self.windows.of[self.order], np.arange(len(self.lengths) + 1))
        self.times = np.full(len(sequences.items), clock.end) if sequences.times is None else sequences.times
        self.gaps = self._gaps()

    def _gaps(self) -> np.ndarray:
        """(N,) seconds from each item to the next one or to now (0 where that is not known), or since the one before."""
        starts = self.sequences.starts
        some = self.sequences.lengths > 0
        if self.settings.moment == "last":
            gaps = np.diff(self.times, prepend=0.0)
            gaps[starts[:-1][some]] = 0.0
            return gaps
        gaps = np.diff(self.times, append=0.0)
        newest = starts[1:][some] - 1
        gaps[newest] = 0.0 if self.sequences.now is None else self.sequences.now[some] - self.times[newest]
        return gaps

    def batch(self, windows: np.ndarray, rng: np.random.Generator | None = None) -> tuple[Batch, np.ndarray]:
        """These windows side by side, and the (P,) queries asked in them; with ``rng`` also their targets and random negatives."""
        device = pick_device(self.settings.training.device)
        row, begin, lengths = self.windows.row[windows], self.windows.begin[windows], self.lengths[windows]
        place = np.arange(lengths.max(initial=0))
        flat = np.where(place < lengths[:, None], (self.sequences.starts[row] + begin)[:, None] + place, 0)  # (B, L)
        asked = np.concatenate([self.order[self.bounds[w] : self.bounds[w + 1]] for w in windows]) if len(windows) else np.zeros(0, np.int64)
        of = np.repeat(np.arange(len(windows)), self.bounds[windows + 1] - self.bounds[windows])
        step = self.queries.read[asked] - begin[of]
        percentile = self.clock.at(self.sequences.items[flat], self.clock.rows(self.times[flat]))
        gaps = torch.from_numpy(np.where(place < lengths[:, None], self.gaps[flat], np.inf))
        targets = None
        if rng is not None:
            items = np.column_stack([self.sequences.items[self.at[asked]], self._negatives(rng, self.queries.row[asked])])
            targets = self.clock.at(items, self.target_rows(self.queries.moment[asked, None])).to(device)
        return Batch(percentile.to(device), gaps.to(device), *(torch.as_tensor(x, device=device) for x in (of, step)), targets), asked

    def batches(self, seed: tuple[int, ...], shares: bool = True) -> Iterator[Batch]:
        """All windows with their targets, in random order; with several processes and ``shares``, this one's part of each batch."""
        processes = Processes() if shares else None
        rng = np.random.default_rng((*seed, processes.rank if processes else 0))
        for windows in shuffled_groups(self.lengths, self.settings.batch_targets, seed):
            yield self.batch(windows[processes.rank :: processes.count] if processes else windows, rng)[0]

    @cached_property
    def taken(self) -> np.ndarray:
        """(user row, item) pairs as sorted numbers."""
        return np.unique(self.sequences.rows * self.clock.n_items + self.sequences.items)

    def _negatives(self, rng: np.random.Generator, rows: np.ndarray) -> np.ndarray:
        """(P, K) items that these users never take here; a user who takes nearly all of them gets some of those too."""
        n_items = self.clock.n_items
        drawn = rng.integers(n_items, size=(len(rows), self.settings.negatives))
        for _ in range(20):
            pairs = rows[:, None] * n_items + drawn
            found = np.searchsorted(self.taken, pairs).clip(max=len(self.taken) - 1)  # ten times as fast as np.isin
            taken = self.taken[found] == pairs
            if not taken.any():
                break
            drawn[taken] = rng.integers(n_items, size=int(taken.sum()))
        return drawn
