"""MetaEmb: an embedding for an id that nobody has met, from what else is known of it (Pan et al., SIGIR 2019).

MAIL compares itself with it, with the user for the id: a new user's own row is replaced by one that a generator makes of the profile,
over a base model (BaseDNN) that is trained first and then frozen. For each training user i two disjoint draws of K impressions, a and b:

    φ = h_w(profile) = s · tanh(W [e_1; …; e_f])           the frozen embeddings of the profile, side by side
    l_a = mean over a of the log loss with φ for the id
    φ' = φ - η ∂l_a/∂φ                                     what one step on a would make of it
    l_b = mean over b of the log loss with φ' for the id
    L = α l_a + (1 - α) l_b + c |W|²                       good at once, and quick to become better

and W follows the gradient of L, which passes through φ', so through the Hessian of l_a.

How the paper is read here, where it leaves a choice:

- All impressions of an id share one φ, and l_a is their mean. The authors' code lets each sample have its own copy of φ and divides each
  one's gradient by the size of the batch, so that its inner step is 1/K of this, on each sample's own loss.
- Click data has few impressions a user: K is at most half of what a user has, so each brings as many as there are, the same number to a
  and to b. Users are drawn afresh each epoch, and so are their impressions.
- Training users are the old ones, their behaviours hidden unless told otherwise: the generator then learns among rows that look like
  those it will be asked for. The paper's ids, of ads, have no behaviours.
- The frozen base runs with its dropout off and its batch norm at rest.
- Whoever has no behaviour that may be seen is new (MAIL's Eq. 9), gets φ, and is never fine-tuned on clicks of the test; all others keep
  their row, and so their score.

Shape legend: n users in a step, R impressions of their draws a (and of b), f profile fields, d width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsrbook.data.clicks import TRAIN, VALID, ClickData
from zsrbook.data.dataset import DataError
from zsrbook.models.ranking import Batch, ClickNetwork, Embedded, RankingModel, batch_of, in_batches
from zsrbook.training import Training, pick_device, train


@dataclass(frozen=True)
class MetaEmbSettings:
    """One line a choice; ``DEC`` marks what the paper leaves open and the book decides.

    Raises:
        ValueError: ``fewest`` or ``samples`` is below 1.
    """

    alpha: float = 0.1  #: α, weight of the loss before the inner step; paper
    rate: float = 1e-2  #: η, of the inner step; DEC (authors' code: 1e-4, for each sample's own gradient)
    samples: int = 20  #: K at most; paper, of its smallest data
    fewest: int = 1  #: K at least: users with fewer than twice as many impressions don't teach; DEC
    users: int = 256  #: n; DEC (authors' code: 25 ids)
    scale: float = 1.0  #: s; paper (authors' code: 0.2)
    penalty: float = 1e-4  #: c; DEC
    hidden: bool = True  #: training users have no behaviour either; DEC
    training: Training = field(default_factory=lambda: Training(epochs=2, optimizer="adam", learning_rate=1e-3, clip=None, patience=None))

    def __post_init__(self) -> None:
        if min(self.fewest, self.samples) < 1:
            raise ValueError(f"MetaEmb settings: fewest is {self.fewest} and samples {self.samples}; expected 1 or more of both")


class Task(NamedTuple):
    """Two disjoint draws of some users' impressions, as many of a user in the one as in the other."""

    a: Batch  # R rows
    b: Batch  # R rows
    who: Tensor  # (R,) int64 number of the user in this step, sorted; the same in both
    first: Tensor  # (n,) int64 row of each user's first impression


class MetaNetwork(nn.Module):
    """The generator before a frozen base; a call gives the meta loss."""

    def __init__(self, base: ClickNetwork, settings: MetaEmbSettings):
        super().__init__()
        self.__dict__["base"] = base  # kept out of the modules: neither trained, nor switched, nor saved
        self.settings = settings
        width = base.fields.table.embedding_dim
        self.generator = nn.Linear((len(base.fields.user_at) - 1) * width, width, bias=False)  # W

    @property
    def fields(self) -> nn.Module:
        return self.base.fields

    def generated(self, x: Embedded) -> Tensor:
        """(B, d) φ of these rows' users."""
        return self.settings.scale * self.generator(x.a[:, 1:].flatten(1)).tanh()

    def meta_losses(self, task: Task) -> Tensor:
        """(n,) α l_a + (1 - α) l_b of each user."""
        a, b = self.fields(task.a), self.fields(task.b)
        phi = self.generated(Embedded(*(part[task.first] for part in a)))  # (n, d)
        before = self.losses(phi, a, task.a.click, task.who)
        (slope,) = torch.autograd.grad(before.sum(), phi, create_graph=True)  # a user's loss rests on that user's φ alone
        after = self.losses(phi - self.settings.rate * slope, b, task.b.click, task.who)
        return self.settings.alpha * before + (1 - self.settings.alpha) * after

    def losses(self, phi: Tensor, x: Embedded, click: Tensor, who: Tensor) -> Tensor:
        """(n,) mean log loss of each user's impressions, with (n, d) φ for the id."""
        each = F.binary_cross_entropy_with_logits(self.base.tower(with_id(x, phi[who])), click, reduction="none")
        return each.new_zeros(len(phi)).index_add(0, who, each) / torch.bincount(who, minlength=len(phi))

    def forward(self, task: Task) -> tuple[Tensor, int]:
        """The meta loss summed over users, and their number."""
        n = len(task.first)
        return self.meta_losses(task).sum() + n * self.settings.penalty * self.generator.weight.square().sum(), n

    @torch.no_grad()
    def log_odds(self, batch: Batch) -> Tensor:
        """(B,) of a click."""
        x = self.fields(batch)
        ids = torch.where(batch.new.unsqueeze(1), self.generated(x), x.a[:, 0])
        return self.base.tower(with_id(x, ids)).float()


def with_id(x: Embedded, ids: Tensor) -> Embedded:
    """The same rows with (B, d) others for the embeddings of the user's id, the first field."""
    return x._replace(a=torch.cat([ids.unsqueeze(1), x.a[:, 1:]], dim=1))


class MetaEmb(RankingModel):
    """A frozen base, with generated ids for new users.

    Args:
        base: what the ids are for, such as ``RankingModel(BaseDNN)``; fitted first, unless it is on the same data already. Frozen afterwards.
        checkpoint: of the generator, written after each epoch, and read where it is there.

    Raises:
        DataError: from ``fit``, where users have no field but their id, or no old user has impressions enough.
    """

    def __init__(self, base: RankingModel, settings: MetaEmbSettings = MetaEmbSettings(), checkpoint: Path | None = None):
        super().__init__(base.make_tower, base.settings, checkpoint=checkpoint)
        self.base, self.meta = base, settings

    def fit(self, data: ClickData) -> Self:
        """Learn from the training impressions of old users.

        If patience is set, the log loss on validation impressions of old users, taken for new, stops early.
        """
        if len(data.layout.user) < 2:
            raise DataError(f"{data.name}: users have no field but {data.layout.user[0]!r}, so there is nothing to make an id of; expected a profile")
        training, device = self.meta.training, pick_device(self.meta.training.device)
        base = self.base.frozen(data)
        self.space = self.base.space
        with torch.random.fork_rng():
            torch.manual_seed(training.seed)
            self.network = MetaNetwork(base, self.meta)
        hidden = replace(data, new=np.ones_like(data.new))  # everyone as if new
        seen = hidden if self.meta.hidden else data

        def batches(epoch: int) -> Iterator[Task]:
            return tasks(data, seen, self.meta, np.random.default_rng((training.seed, epoch)), device)

        valid = data.rows(VALID, "old")
        validate = (lambda: self.loss(hidden, valid)) if len(valid) and training.patience is not None else None
        self.curve = train(
            self.network,
            batches,
            training,
            validate,
            self.checkpoint,
            f"ids of {data.name}",
            shares=False,
            of=lambda: self.chosen() | {"data": data.sha256},
        )
        return self

    def chosen(self) -> dict[str, Any]:
        return asdict(self.meta) | {f"base {name}": value for name, value in self.base.chosen().items()}


def tasks(data: ClickData, seen: ClickData, settings: MetaEmbSettings, rng: np.random.Generator, device: torch.device) -> Iterator[Task]:
    """The old users of ``data`` in random order, each with two draws of training impressions, as ``seen`` shows them."""
    rows = data.rows(TRAIN)
    rows = rng.permutation(rows[~data.new[data.user[rows]]])
    rows = rows[np.argsort(data.user[rows], kind="stable")]  # user by user, each one's in random order
    users, starts, counts = np.unique(data.user[rows], return_index=True, return_counts=True)
    k = np.minimum(settings.samples, counts // 2)
    able = np.flatnonzero(k >= settings.fewest)
    if not len(able):
        raise DataError(
            f"{data.name}: none of {len(users):,} old users has {2 * settings.fewest} training impressions or more, so none can teach; lower fewest"
        )
    for chosen in in_batches(rng.permutation(able), settings.users):
        first = np.cumsum(k[chosen]) - k[chosen]  # (n,)
        who = np.repeat(np.arange(len(chosen)), k[chosen])  # (R,)
        at = starts[chosen][who] + np.arange(len(who)) - first[who]
        a, b = (batch_of(seen, rows[place], device) for place in (at, at + k[chosen][who]))
        yield Task(a, b, torch.as_tensor(who, device=device), torch.as_tensor(first, device=device))
