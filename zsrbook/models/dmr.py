"""Deep Match to Rank: how near a user is to an item, told to the ranker in so many words (Lyu et al., AAAI 2020).

Two small networks read the behaviours e_1 … e_T, each beside an embedding p_t of how long ago it was, and each gives one number, a
relevance, next to the usual representations:

    user to item   a_t = z · tanh(W_p p_t + W_e e_t + b),            u = PReLU(W Σ_t softmax(a)_t e_t + b'),   r = u · v'
    item to item   â_t = ẑ · tanh(Ŵ_c e_c + Ŵ_p p_t + Ŵ_e e_t + b̂),  û = Σ_t softmax(â)_t e_t,                 r̂ = Σ_t â_t
    log-odds       MLP[user, item, context, û, r, r̂]

v' is the target's row in an output table V', apart from the table that embeds inputs, as in word2vec. u is taught to be near what the user
does next: from the first T - 1 behaviours the T-th is to be told from k others,

    L_NS = - mean over rows of [ log σ(u_{T-1} · v'_T) + Σ_j log σ(- u_{T-1} · v'_j) ],   L = L_click + β L_NS.

How the paper is read here, where it leaves a choice:

- A behaviour may have several ids (category and brand). Its row of V' is the sum of one row an id, and so is the target's: of those of its
  fields that read a behaviour's vocabularies. e_c is the sum of the same fields' input embeddings, so it lies where behaviours lie.
- The k others are whole behaviours, drawn with replacement from all those of the batch and shared by its rows. Each id then comes as often
  as people do it, brands come with categories that they are sold in, and a step touches few rows of V'. Drawn evenly from a vocabulary,
  most would be ids that nobody meets, and V' would learn popularity; against this draw it learns what is more than popularity. A row's own
  past is drawn from as well; only a draw that is the row's own answer is left out for that row.
- Fields are summed a group, as the other towers of MAIL have it; DMR lays them side by side.
- Embeddings begin with a standard deviation of 0.05, and so do behaviours, whose actions begin at about 1. u and û are sums and products of
  such, far smaller than what a dense layer is made for; ``normalise`` brings them to one size.
- Without behaviour both sums over behaviours are 0, û and r̂ with them; r then tells of the item alone, through b'.

The authors' code differs: its attention is DIN's, 80-40-1 over [q, k, q - k, q ⊙ k] with sigmoids; every prefix is attended to at once;
the match loss is a sampled softmax with k category ids from a learned unigram distribution, through a mask that is not published; the
history's sum and its product with the target go into the MLP too; and a batch norm before the MLP always uses the batch at hand.

Shape legend: B impressions, L behaviours, d width, h of attention, k negatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsrbook.models.ranking import Batch, Dropout, Embedded, Space, Tower


@dataclass(frozen=True)
class DMRSettings:
    """One line a choice; ``DEC`` marks what the paper leaves open and the book decides."""

    hidden: tuple[int, ...] = (512, 256, 128)  #: of the MLP, with PReLU; paper
    dropout: float = 0.0  #: before each dense layer of the MLP; paper has none, MAIL's towers 0.5
    normalise: bool = False  #: batch norm after each, as in MAIL's towers; paper has none
    attention: int = 64  #: h; DEC
    position: int = 8  #: width of p_t; authors' code
    match: float = 0.1  #: β; paper
    negatives: int = 2000  #: k; paper
    spread: float = 0.05  #: standard deviation of V' and of p at the start; DEC
    sparse: bool = True  #: a step touches the rows of V' at hand alone; DEC


class Attention(nn.Module):
    """How much each behaviour counts: a_t, and with a target â_t."""

    def __init__(self, width: int, position: int, inner: int, target: bool = False):
        super().__init__()
        self.behaviour = nn.Linear(width, inner)  # W_e and b
        self.position = nn.Linear(position, inner, bias=False)  # W_p
        self.target = nn.Linear(width, inner, bias=False) if target else None  # W_c
        self.out = nn.Linear(inner, 1, bias=False)  # z

    def forward(self, v: Tensor, positions: Tensor, ages: Tensor, target: Tensor | None = None) -> Tensor:
        """(B, L, d) behaviours, (longest, ·) embeddings of positions, (B, L) ages, (B, d) target → (B, L)."""
        inner = F.embedding(ages, self.position(positions))  # (B, L, h); positions are projected once, not once a row
        inner += self.behaviour(v)  # in place, since to fetch memory for so many numbers costs more than to add them
        if target is not None:
            inner += self.target(target).unsqueeze(1)
        return self.out(inner.tanh_()).squeeze(2)


class DMR(Tower):
    """The ranking tower: ``RankingModel(DMR)``, or ``RankingModel(partial(DMR, settings=...))``.

    Raises:
        ValueError: an id of behaviours that items don't have, so that no row of V' tells how near a target is.
    """

    def __init__(self, space: Space, settings: DMRSettings = DMRSettings()):
        super().__init__()
        self.settings, self.longest = settings, space.longest
        ids = space.layout.behaviour[:-1]
        for name in ids:
            if name not in space.layout.item:
                raise ValueError(f"DMR: behaviours have the id {name!r}, items only {', '.join(space.layout.item)}; expected it among them")
        self.shared = [space.layout.item.index(name) for name in ids]  # the target's fields that behaviours have too
        sizes = torch.tensor([space.vocabularies[name] for name in ids])
        self.register_buffer("starts", sizes.cumsum(0) - sizes, persistent=False)
        self.output = nn.Embedding(int(sizes.sum()), space.width, sparse=settings.sparse)  # V', a slice a vocabulary
        self.positions = nn.Parameter(torch.empty(space.longest, settings.position))  # p, the newest first
        for table in (self.output.weight, self.positions):
            nn.init.normal_(table, std=settings.spread)
        with torch.no_grad():
            self.output.weight[self.starts] = 0.0  # code 0, as in the table of inputs
        self.to_item = Attention(space.width, settings.position, settings.attention)
        self.among_items = Attention(space.width, settings.position, settings.attention, target=True)
        self.project = nn.Sequential(nn.Linear(space.width, space.width), nn.PReLU())  # g
        layers, inputs = [], 4 * space.width + 2
        for n in settings.hidden:
            layers += [Dropout(settings.dropout), nn.Linear(inputs, n), nn.BatchNorm1d(n) if settings.normalise else nn.Identity(), nn.PReLU()]
            inputs = n
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, 1))

    def forward(self, x: Embedded) -> Tensor:
        r = (self.user(x.v, x.mask) * self.output_of(x.item[:, self.shared])).sum(1)  # (B,)
        u_hat, r_hat = self.matches(x)
        inputs = torch.cat([x.a.sum(1), x.t.sum(1), x.c.sum(1), u_hat, r.unsqueeze(1), r_hat.unsqueeze(1)], dim=1)  # (B, 4 d + 2)
        return self.layers(inputs).squeeze(1)

    def user(self, v: Tensor, mask: Tensor) -> Tensor:
        """u (B, d), from behaviours (B, L, d) where the mask (B, L) has them."""
        a = self.to_item(v, self.positions, self.ages(mask))
        return self.project(weighted(a, v, mask))

    def matches(self, x: Embedded) -> tuple[Tensor, Tensor]:
        """û (B, d) and r̂ (B,)."""
        a = self.among_items(x.v, self.positions, self.ages(x.mask), x.t[:, self.shared].sum(1))
        return weighted(a, x.v, x.mask), (a * x.mask).sum(1)

    def ages(self, mask: Tensor) -> Tensor:
        """(B, L) how many behaviours came after each: 0 for the newest. Those past ``longest`` share the last."""
        steps = torch.arange(mask.shape[1], device=mask.device)
        return (mask.sum(1, keepdim=True) - 1 - steps).clamp(0, self.longest - 1)

    def output_of(self, codes: Tensor) -> Tensor:
        """(…, ids) → (…, d): v'."""
        return self.output(codes + self.starts).sum(-2)

    def negatives(self, batch: Batch) -> Tensor:
        """(k, ids) codes of behaviours drawn from the batch."""
        there = torch.arange(batch.behaviour.shape[1], device=batch.lengths.device) < batch.lengths[:, None]
        codes = batch.behaviour[there][:, :-1]  # (behaviours of the batch, ids)
        return codes[torch.randint(len(codes), (self.settings.negatives,), device=codes.device)]

    def auxiliary(self, x: Embedded, batch: Batch) -> Tensor:
        """β L_NS over the rows with two behaviours or more; 0 where there is none."""
        rows, last = (batch.lengths > 1).nonzero().squeeze(1), batch.lengths - 1  # (n,), (B,)
        if not (len(rows) and self.settings.match):
            return super().auxiliary(x, batch)
        before = torch.arange(x.v.shape[1], device=last.device) < last[:, None]  # (B, L)
        u = self.user(x.v, before)[rows]  # (n, d); to leave out the rows of v that have no part would copy the others
        answers, negatives = batch.behaviour[rows, last[rows]][:, :-1], self.negatives(batch)  # (n, ids), (k, ids)
        right = (u * self.output_of(answers)).sum(1)  # (n,)
        wrong = F.logsigmoid(-u @ self.output_of(negatives).T).sum(1)
        kind = numbered(torch.cat([answers, negatives]))
        own = kind[len(rows) :].bincount(minlength=len(kind))[kind[: len(rows)]]  # (n,) how many of the draws are the row's answer
        return -self.settings.match * (F.logsigmoid(right) + wrong - own * F.logsigmoid(-right)).mean()


def numbered(codes: Tensor) -> Tensor:
    """(n, ids) → (n,) numbers below n, the same for two rows that agree in every id, and for no others."""
    kind = codes.new_zeros(len(codes))
    for column in codes.unbind(1):
        kind = (kind * (column.max() + 1) + column).unique(return_inverse=True)[1]
    return kind


def weighted(a: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Σ_t softmax(a)_t v_t over what the mask has: (B, L), (B, L, d) → (B, d), 0 where it has nothing."""
    weights = a.masked_fill(~mask, torch.finfo(a.dtype).min).softmax(1) * mask
    return (weights.unsqueeze(1) @ v).squeeze(1)
