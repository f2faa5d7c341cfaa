"""LLAE: behaviour as a linear map of attributes, through a low-rank linear autoencoder (Li et al., AAAI 2019, arXiv 1906.08511).

MAIL compares itself with it over Emblr. One matrix W (k × d) goes both ways: from a user's behaviour to attributes, and back,

    min  |X - Wᵀ S|² + λ E|W X_c - S|² + β tr(Wᵀ U W),        behaviour of a new user: Wᵀ s,

where the columns of S (k × N) are attributes, those of X (d × N) behaviours, X_c is X with 5 % of its numbers set to 0, and
U = I - V_r V_rᵀ with V_r the r leading left singular vectors of W stands for β rank(W): it charges for what lies beyond the r-th. For
given U the gradient vanishes where

    (S Sᵀ + β U) W + W (λ E[X_c X_cᵀ]) = S Xᵀ + λ E[S X_cᵀ],

a Sylvester equation. It is solved and U drawn from the solution in turns, five rounds from U = 0.

How the paper is read here, where it leaves a choice:

- A column is an old user's training impression: x the sum of the embedded behaviours before it, which is what Emblr reads (Eq. 11 of MAIL),
  s the embedded attributes side by side, with or without the id's, or one-hot codes without the id's. All embeddings are those of a trained
  Emblr, at rest.
- The corruption is worked out in expectation, not drawn: with G = X Xᵀ and a share q of numbers kept, E[X_c X_cᵀ] is q² G off the
  diagonal and q G on it, and E[S X_cᵀ] = q S Xᵀ. So S Sᵀ, S Xᵀ and X Xᵀ are all that is needed of the data, whatever N; they are summed
  up in pieces, and are exact.
- Sums run over all impressions, as written; β = 30 therefore counts for less in larger data.
- Emblr adds up, so a predicted behaviour moves all impressions of a new user by one amount: it tells users apart, and so may move AUC,
  but never the order of a user's items, and so not GAUC. MAIL's Table 2 has GAUC move by 0.7 %, so its Emblr or its LLAE was another.
- λ and r have the least log loss on validation impressions of old users whose behaviour is hidden: no new user has a part in it.

The cost is N (k² + k d + d²) for the sums, once, and k³ for each solution.

Shape legend: N impressions, k numbers in attributes (288 in MAIL), d width (32), r rank.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from scipy.linalg import solve_sylvester
from torch import Tensor, nn

from zsrbook.audience import watched
from zsrbook.data.clicks import TRAIN, VALID, ClickData
from zsrbook.data.dataset import DataError
from zsrbook.models.ranking import BaseDNN, Batch, ClickNetwork, Embedded, Emblr, RankingModel, batch_of, in_batches
from zsrbook.training import check_words

Attributes = Literal["embedded", "profile", "one-hot"]


@dataclass(frozen=True)
class LLAESettings:
    """One line a choice; ``DEC`` marks what the paper leaves open and the book decides.

    Raises:
        ValueError: an unknown word, nothing to choose from, a λ that is not above 0 (the solution would not be unique), or a rank below 1.
    """

    attributes: Attributes = "embedded"  #: what S holds: the embedded user; that without the id; one-hot codes without the id; DEC
    reconstruct: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0)  #: λ to choose from; DEC
    ranks: tuple[int, ...] = (4, 8, 16, 32)  #: r to choose from; DEC
    low_rank: float = 30.0  #: β; MAIL
    corruption: float = 0.05  #: share of X set to 0; authors' code
    rounds: int = 5  #: authors' code

    def __post_init__(self) -> None:
        check_words(self, "LLAE settings")
        if not self.reconstruct or min(self.reconstruct) <= 0:
            raise ValueError(f"LLAE settings: reconstruct is {self.reconstruct}; expected one λ or more, each above 0")
        if not self.ranks or min(self.ranks) < 1:
            raise ValueError(f"LLAE settings: ranks is {self.ranks}; expected one r or more, each 1 or above")


def beyond(w: np.ndarray, rank: int) -> np.ndarray:
    """(k, k) U of (k, d) W: projects on what its leading left singular vectors leave."""
    leading = np.linalg.svd(w, full_matrices=False)[0][:, :rank]
    return np.eye(len(w)) - leading @ leading.T


def solve(gram: np.ndarray, width: int, reconstruct: float, rank: int, settings: LLAESettings = LLAESettings()) -> np.ndarray:
    """(k, d) W of the last round.

    Args:
        gram: (k + d, k + d) float64: the products of S over X with itself, so S Sᵀ, S Xᵀ and X Xᵀ in one.
        width: d.
    """
    k, kept = len(gram) - width, 1 - settings.corruption
    ss, sx, xx = gram[:k, :k], gram[:k, k:], gram[k:, k:]
    corrupted = kept**2 * xx + kept * (1 - kept) * np.diag(np.diag(xx))  # E[X_c X_cᵀ]
    u = np.zeros_like(ss)
    for _ in range(settings.rounds):
        w = solve_sylvester(ss + settings.low_rank * u, reconstruct * corrupted, (1 + reconstruct * kept) * sx)
        u = beyond(w, rank)
    return w


class LLAENetwork(nn.Module):
    """A frozen network that reads Wᵀ s where there is no behaviour."""

    def __init__(self, base: ClickNetwork, form: Attributes, sizes: list[int]):
        super().__init__()
        self.fields, self.tower = base.fields, base.tower
        self.form, self.sizes = form, sizes  # codes of each field of the profile
        self.register_buffer("weight", None)  # (k, d) W

    def attributes(self, batch: Batch, x: Embedded) -> Tensor:
        """(B, k) s."""
        if self.form == "one-hot":
            return torch.cat([F.one_hot(code, size) for code, size in zip(batch.user[:, 1:].T, self.sizes, strict=True)], dim=1).to(x.a.dtype)
        return (x.a if self.form == "embedded" else x.a[:, 1:]).flatten(1)

    @torch.no_grad()
    def pairs(self, batch: Batch) -> Tensor:
        """(B, k + d) float64 s beside x."""
        x = self.fields(batch)
        return torch.cat([self.attributes(batch, x), x.v.sum(1)], dim=1).double()

    @torch.no_grad()
    def log_odds(self, batch: Batch) -> Tensor:
        """(B,) of a click."""
        x = self.fields(batch)
        v = torch.where(batch.new.unsqueeze(1), self.attributes(batch, x) @ self.weight, x.v.sum(1))  # (B, d)
        return self.tower(x._replace(v=v.unsqueeze(1), mask=x.mask[:, :1] | batch.new.unsqueeze(1))).float()


class LLAE(RankingModel):
    """A frozen base, with a predicted sum of behaviours for users who have none.

    Args:
        base: ``RankingModel(Emblr)``, or another whose tower reads of behaviours their sum alone; fitted first, unless it is on the same
            data already. Frozen afterwards.

    Attributes:
        tried: one row a choice of λ and r, with its log loss on the hidden part of the validation fold.

    Raises:
        DataError: from ``fit``, where no old user has a behaviour to learn from, or none to choose λ and r by.
        ValueError: the base's tower reads more of a behaviour than its sum.
    """

    def __init__(self, base: RankingModel, settings: LLAESettings = LLAESettings()):
        super().__init__(base.make_tower, base.settings)
        self.base, self.linear = base, settings
        self.tried: list[dict[str, float]] = []

    def fit(self, data: ClickData) -> Self:
        """W from the training impressions of old users, λ and r by their validation impressions with the behaviour hidden."""
        settings, rows, valid = self.linear, data.rows(TRAIN, "old"), data.rows(VALID, "old")
        choices = list(product(settings.reconstruct, settings.ranks))
        if not len(rows):
            raise DataError(f"{data.name}: no training impression of an old user comes after a behaviour; expected some, to learn behaviours from")
        if not len(valid) and len(choices) > 1:
            raise DataError(f"{data.name}: no validation impression of an old user to choose among {len(choices)} settings by; give one λ and one r")
        base = self.base.frozen(data)
        self.space = self.base.space
        if not isinstance(base.tower, Emblr | BaseDNN):
            raise ValueError(f"LLAE predicts the sum of behaviours, but {type(base.tower).__name__} reads more of them; use Emblr")
        self.network = LLAENetwork(base, settings.attributes, [data.vocabularies[name] for name in data.layout.user[1:]])
        table, gram = base.fields.table.weight, 0.0
        for part in track(list(in_batches(rows, 8192)), f"behaviours on {data.name}", disable=not watched(), transient=True):
            pairs = self.network.pairs(batch_of(data, part, table.device))
            gram = gram + pairs.T @ pairs
        self.tried = []
        hidden, solved = replace(data, new=np.ones_like(data.new)), {}  # everyone as if new
        for reconstruct, rank in choices:
            solved[reconstruct, rank] = solve(gram.cpu().numpy(), table.shape[1], reconstruct, rank, settings)
            self.use(solved[reconstruct, rank])
            self.tried.append({"reconstruct": reconstruct, "rank": rank, "valid": self.loss(hidden, valid) if len(valid) else float("nan")})
        best = min(self.tried, key=lambda row: row["valid"])
        self.use(solved[best["reconstruct"], best["rank"]])
        return self

    def use(self, w: np.ndarray) -> None:
        """Take this (k, d) W."""
        self.network.weight = torch.as_tensor(w).to(self.network.fields.table.weight)
