"""Collaborative filtering by networks: Mult-VAE, NeuMF and LightGCN, the baselines that papers on binary matrices most often name.

    MultVAE    what a user took → a Gaussian → a softmax over all items (Liang et al., WWW 2018, arXiv 1802.05814)
    NeuMF      a product of vectors beside a network over vectors, one number a pair (He et al., WWW 2017, arXiv 1708.05031)
    LightGCN   vectors of users and items, smoothed over the graph of who took what (He et al., SIGIR 2020, arXiv 2002.02126)

All three train by Adam in ``zsrbook.training`` and stop early by NDCG@20 on at most 1000 users of the validation matrix; the curve's ``valid``
is its negative. Only Mult-VAE serves users that it never saw.

Where this differs from the papers:

- Mult-VAE's annealing is counted in steps, and the KL divergence keeps the weight that it ends at; the paper takes the weight at which
  validation peaked in a first run.
- NeuMF starts from random vectors; in the paper its two halves are trained alone first. The network's first layer is worked out for users and for
  items apart, and the sums of its halves serve all pairs: the same numbers for a fraction of the cost.
- LightGCN's step takes many more triples than the paper's 2,048 and so there are fewer steps, at a higher rate: a step costs a pass over
  the whole graph, whatever its triples.

Shape legend: U users, I items, B in a batch, h hidden units, d width.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn import functional as F

from zsrbook.data.matrix import rows_of
from zsrbook.models.matrix import MatrixModel, degrees, matrix_in, not_taken, tensors_of, validation_ndcg
from zsrbook.training import Training, pick_device
from zsrbook.training import train as train_network

#: pairs of which NeuMF scores so many at once
PAIRS_AT_ONCE = 1 << 17


class NeuralMatrixModel(MatrixModel):
    """A network that the one training loop fits; subclasses say which network, and what its batches are.

    Attributes:
        settings: with a ``training`` part.
        curve: one row an epoch, as ``training.train`` returns it; empty where everybody has everything, and nothing was to be learned.
    """

    network: nn.Module

    @abstractmethod
    def build(self, train: csr_array) -> nn.Module:
        """A fresh network for this matrix."""

    @abstractmethod
    def batches(self, rng: np.random.Generator) -> Iterator[NamedTuple]:
        """What an epoch goes through."""

    def settle(self) -> None:
        """Bring what ``scores`` reads up to date with the weights."""

    def begin(self, train: csr_array) -> None:
        """Bind the matrix, with a fresh network for it."""
        self.bind(train)
        with torch.random.fork_rng():
            torch.manual_seed(self.settings.training.seed)
            self.network = self.build(self.train).to(self.device).eval()

    def fit(self, train: csr_array, valid: csr_array | None = None) -> Self:
        settings = self.settings.training
        self.begin(train)
        self.curve = []
        if next(self.batches(np.random.default_rng()), None) is None:  # everybody has everything
            self.settle()
            return self

        def validate() -> float:
            self.settle()
            return -validation_ndcg(self, valid)

        self.curve = train_network(
            self.network,
            lambda epoch: self.batches(np.random.default_rng((settings.seed, epoch))),
            settings,
            None if valid is None else validate,
            title=type(self).__name__,
            shares=False,
        )
        self.settle()
        return self

    def state(self) -> dict[str, Tensor]:
        return tensors_of(self.train, "train") | {f"network.{name}": value for name, value in self.network.state_dict().items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.begin(matrix_in(state, "train"))
        self.network.load_state_dict({name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")})
        self.settle()

    @property
    def device(self) -> torch.device:
        return pick_device(self.settings.training.device)

    def ones(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Users and items of the ones in random order, but for users of everything, who have no zeros to learn from."""
        user = rows_of(self.train)
        order = rng.permutation(np.flatnonzero((np.diff(self.train.indptr) < self.train.shape[1])[user]))
        return user[order], self.train.indices[order]

    def on_device(self, codes: np.ndarray) -> Tensor:
        return torch.as_tensor(codes, dtype=torch.int64, device=self.device)


# -- Mult-VAE ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MultVAESettings:
    """One line a choice; few large steps at a high rate overfit later, on MovieLens-1M, than the paper's many small ones."""

    hidden: int = 600  #: h, of both halves; paper
    latent: int = 64  #: d; the paper has 200, for 20,000 items
    dropout: float = 0.5  #: share of a user's ones that are hidden from the encoder; paper
    beta: float = 0.2  #: weight that the KL divergence ends at; paper
    anneal: int = 500  #: steps over which it rises from 0; the paper's 200,000 suit its larger data
    batch: int = 1000  #: users a step; the paper has 500
    training: Training = field(default_factory=lambda: Training(epochs=100, optimizer="adam", learning_rate=5e-3, clip=None, patience=10))


class Taken(NamedTuple):
    """The ones of some users, side by side."""

    items: Tensor  # (n,) int64
    rows: Tensor  # (n,) the user of each, 0 … B − 1
    counts: Tensor  # (B,)


class MultVAENetwork(nn.Module):
    """Encoder and decoder of two layers each, tanh between them."""

    def __init__(self, n_items: int, settings: MultVAESettings):
        super().__init__()
        h, d = settings.hidden, settings.latent
        self.settings = settings
        self.enter = nn.Embedding(n_items, h)  # a row an item: the transposed weights of the first layer
        self.enter_bias = nn.Parameter(torch.zeros(h))
        self.encode, self.decode, self.leave = nn.Linear(h, 2 * d), nn.Linear(d, h), nn.Linear(h, n_items)
        for weight in (self.enter.weight, self.encode.weight, self.decode.weight, self.leave.weight):
            nn.init.xavier_normal_(weight)
        for bias in (self.encode.bias, self.decode.bias, self.leave.bias):
            nn.init.zeros_(bias)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # for the annealing

    def posterior(self, taken: Taken) -> tuple[Tensor, Tensor]:
        """(B, d) mean and (B, d) log variance, of a row of ones that is scaled to length 1 and loses some of them in training."""
        weight = F.dropout(taken.counts.float().rsqrt()[taken.rows], self.settings.dropout, self.training)  # (n,)
        starts = taken.counts.cumsum(0) - taken.counts
        x = F.embedding_bag(taken.items, self.enter.weight, starts, mode="sum", per_sample_weights=weight)  # (B, h)
        mean, log_variance = self.encode(torch.tanh(x + self.enter_bias)).chunk(2, dim=1)
        return mean, log_variance

    def logits(self, z: Tensor) -> Tensor:
        """(B, d) → (B, I)."""
        return self.leave(torch.tanh(self.decode(z)))

    def forward(self, taken: Taken) -> tuple[Tensor, int]:
        """Σ_u −E_q log p(x_u | z_u) + β KL(q(z_u | x_u) ‖ N(0, 1)), with one draw of z a user (Eq. 3), and B."""
        mean, log_variance = self.posterior(taken)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        log_p = self.logits(mean + noise * (log_variance / 2).exp()).log_softmax(1)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2
        beta = self.settings.beta * min(1.0, int(self.steps) / max(1, self.settings.anneal))
        if self.training:
            self.steps += 1
        return beta * divergence - log_p[taken.rows, taken.items].sum(), len(mean)


class MultVAE(NeuralMatrixModel):
    """Scores are the logits at the posterior mean. A user of nothing gets what the biases say, which is close to popularity."""

    knows = "users"

    def __init__(self, settings: MultVAESettings = MultVAESettings()):
        self.settings = settings

    def build(self, train: csr_array) -> MultVAENetwork:
        return MultVAENetwork(train.shape[1], self.settings)

    def batches(self, rng: np.random.Generator) -> Iterator[Taken]:
        users = rng.permutation(np.flatnonzero(np.diff(self.train.indptr)))
        return (self.taken(part) for part in np.array_split(users, -(-len(users) // self.settings.batch)))

    def taken(self, users: np.ndarray) -> Taken:
        chosen = self.train[users]
        return Taken(*map(self.on_device, (chosen.indices, rows_of(chosen), np.diff(chosen.indptr))))

    @torch.no_grad()
    def scores(self, users: np.ndarray) -> np.ndarray:
        return self.network.logits(self.network.posterior(self.taken(users))[0]).cpu().numpy()


# -- NeuMF ------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NeuMFSettings:
    """One line a choice."""

    width: int = 32  #: d, of the vectors of either half; the paper tries 8 to 64
    layers: tuple[int, ...] = (32, 16)  #: units of the network's layers above its 2 d inputs
    negatives: int = 4  #: zeros drawn a one; paper
    dropout: float = 0.0  #: of the network's inputs and layers
    decay: float = 1e-5  #: λ, of the squared length of the vectors at hand
    batch: int = 4096  #: ones a step
    training: Training = field(default_factory=lambda: Training(epochs=30, optimizer="adam", learning_rate=2e-3, clip=None, patience=3))


class Lists(NamedTuple):
    """Users, and for each an item that it took, followed by m − 1 that it didn't."""

    users: Tensor  # (B,) int64
    items: Tensor  # (B, m) int64


class NeuMFNetwork(nn.Module):
    """ŷ = σ(hᵀ [p ∘ q ; MLP(p′, q′)]), He et al. 2017, Eq. 12."""

    def __init__(self, shape: tuple[int, int], settings: NeuMFSettings):
        super().__init__()
        d, layers = settings.width, settings.layers
        self.settings = settings
        self.users, self.items = (nn.Embedding(size, 2 * d) for size in shape)  # p beside p′, q beside q′
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.01)
        self.first = nn.Linear(2 * d, layers[0])
        self.rest = nn.ModuleList(nn.Linear(*sizes) for sizes in pairwise(layers))
        for linear in (self.first, *self.rest):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.last = nn.Linear(d + layers[-1], 1)

    def log_odds(self, p: Tensor, q: Tensor) -> Tensor:
        """(B, 1, 2 d) vectors of users, (B or 1, m, 2 d) of items → (B, m) log-odds that the user takes the item."""
        d, drop = self.settings.width, lambda x: F.dropout(x, self.settings.dropout, self.training)
        of_users, of_items = self.first.weight.split(d, dim=1)
        x = F.relu(drop(p[..., d:]) @ of_users.T + drop(q[..., d:]) @ of_items.T + self.first.bias)  # (B, m, units)
        for linear in self.rest:
            x = F.relu(linear(drop(x)))
        on_product, on_network = self.last.weight[0].split([d, x.shape[-1]])
        product = q[..., :d] @ (p[..., :d] * on_product).transpose(1, 2)  # (B, m, 1)
        return product.squeeze(2) + x @ on_network + self.last.bias

    def forward(self, lists: Lists) -> tuple[Tensor, int]:
        """Cross-entropy (Eq. 7) and λ |vectors|², summed over the pairs, and their number."""
        p, q = self.users(lists.users).unsqueeze(1), self.items(lists.items)
        log_odds = self.log_odds(p, q)
        loss = F.softplus(log_odds).sum() - log_odds[:, 0].sum()
        return loss + self.settings.decay * (p.square().sum() + q.square().sum()), log_odds.numel()


class NeuMF(NeuralMatrixModel):
    """One number a pair: scoring all items of a user costs a pass of the network an item. Users of everything, who have no zeros, don't teach."""

    def __init__(self, settings: NeuMFSettings = NeuMFSettings()):
        self.settings = settings

    def build(self, train: csr_array) -> NeuMFNetwork:
        return NeuMFNetwork(train.shape, self.settings)

    def batches(self, rng: np.random.Generator) -> Iterator[Lists]:
        users, items = self.ones(rng)
        for begin in range(0, len(users), self.settings.batch):
            user, item = users[begin : begin + self.settings.batch], items[begin : begin + self.settings.batch]
            zeros = not_taken(self.train, np.repeat(user, self.settings.negatives), rng).reshape(len(user), -1)
            yield Lists(self.on_device(user), self.on_device(np.column_stack([item, zeros])))

    @torch.no_grad()
    def scores(self, users: np.ndarray) -> np.ndarray:
        p, q = self.network.users(self.on_device(users)).unsqueeze(1), self.network.items.weight.unsqueeze(0)
        parts = p.split(max(1, PAIRS_AT_ONCE // q.shape[1]))
        return torch.cat([self.network.log_odds(part, q) for part in parts]).cpu().numpy()


# -- LightGCN ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LightGCNSettings:
    """One line a choice."""

    width: int = 64  #: d; paper
    layers: int = 3  #: how far vectors travel; paper. 0: matrix factorisation
    decay: float = 1e-4  #: λ, of the squared length of the first vectors of a triple; paper
    batch: int = 16_384  #: triples a step; the paper's 2,048 take as many passes over the graph as there are steps
    training: Training = field(default_factory=lambda: Training(epochs=40, optimizer="adam", learning_rate=0.02, clip=None, patience=10))


class Triples(NamedTuple):
    """Users, an item that each took, and one that it didn't."""

    users: Tensor  # (B,) int64
    ones: Tensor  # (B,) int64
    zeros: Tensor  # (B,) int64


class Mixing(torch.autograd.Function):
    """x → 1/(K+1) Σ_k Aᵏ x of a symmetric A. As the map is linear and symmetric, the gradient goes through the very same map."""

    @staticmethod
    def forward(ctx, x: Tensor, adjacency: Tensor, layers: int) -> Tensor:
        ctx.adjacency, ctx.layers = adjacency, layers
        total = layer = x
        for _ in range(layers):
            layer = adjacency @ layer
            total = total + layer
        return total / (layers + 1)

    @staticmethod
    def backward(ctx, slope: Tensor):
        return Mixing.apply(slope.contiguous(), ctx.adjacency, ctx.layers), None, None


class LightGCNNetwork(nn.Module):
    """Vectors of users, then of items, and their mean over the layers (He et al. 2020, Eqs. 3, 4 and 8)."""

    def __init__(self, train: csr_array, settings: LightGCNSettings):
        super().__init__()
        self.settings, self.n_users = settings, train.shape[0]
        self.first = nn.Parameter(torch.empty(sum(train.shape), settings.width))
        nn.init.normal_(self.first, std=0.1)
        self.register_buffer("adjacency", normalised(train), persistent=False)

    def vectors(self) -> tuple[Tensor, Tensor]:
        """(U, d) and (I, d)."""
        mixed = Mixing.apply(self.first, self.adjacency, self.settings.layers)
        return mixed[: self.n_users], mixed[self.n_users :]

    def forward(self, triples: Triples) -> tuple[Tensor, int]:
        """−ln σ(s_ui − s_uj) and λ |first vectors|² / 2 (Eq. 15), summed over the triples, and their number."""
        users, items = self.vectors()
        difference = (users[triples.users] * (items[triples.ones] - items[triples.zeros])).sum(1)
        rows = (triples.users, self.n_users + triples.ones, self.n_users + triples.zeros)
        lengths = self.first.square().sum(1)  # (U + I,)
        return self.settings.decay / 2 * sum(lengths[row].sum() for row in rows) - F.logsigmoid(difference).sum(), len(difference)


def normalised(train: csr_array) -> Tensor:
    """(U + I, U + I) sparse D^−½ A D^−½ of the graph of users and items; who has no neighbour gets nothing."""
    n_users, (of_users, of_items) = train.shape[0], degrees(train)
    weight = (1 / np.sqrt(of_users[rows_of(train)] * of_items[train.indices])).astype(np.float32)
    right = csr_array((weight, train.indices, train.indptr), shape=train.shape)
    left = right.T.tocsr()
    starts = np.concatenate([right.indptr, right.nnz + left.indptr[1:]])
    columns, values = np.concatenate([right.indices + n_users, left.indices]), np.concatenate([right.data, left.data])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(*map(torch.as_tensor, (starts, columns, values)), size=(sum(train.shape),) * 2, check_invariants=True)


class LightGCN(NeuralMatrixModel):
    """s(u, i) = e_u · e_i."""

    def __init__(self, settings: LightGCNSettings = LightGCNSettings()):
        self.settings = settings

    def build(self, train: csr_array) -> LightGCNNetwork:
        return LightGCNNetwork(train, self.settings)

    def batches(self, rng: np.random.Generator) -> Iterator[Triples]:
        users, ones = self.ones(rng)
        zeros = not_taken(self.train, users, rng)
        for begin in range(0, len(users), self.settings.batch):
            yield Triples(*(self.on_device(part[begin : begin + self.settings.batch]) for part in (users, ones, zeros)))

    @torch.no_grad()
    def settle(self) -> None:
        self.users, self.items = (part.cpu().numpy() for part in self.network.vectors())

    def scores(self, users: np.ndarray) -> np.ndarray:
        return self.users[users] @ self.items.T
