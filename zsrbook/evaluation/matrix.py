"""How a recommender of a binary matrix is judged: where the ones that were held out stand among all items that the user was not known to have.

A rank is kept as in ``evaluation.ranks``, one row a held-out one. Nothing else is needed for a full ranking, for a ranking against
sampled negatives (in expectation, worked out exactly), and for the AUC of each user.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from zsrbook.data.dataset import DataError
from zsrbook.data.matrix import MatrixSplit, rows_of
from zsrbook.evaluation.intervals import PerUser
from zsrbook.evaluation.metrics import is_metric, sampled, values
from zsrbook.evaluation.ranks import RankTable, load_ranks, save_ranks
from zsrbook.evaluation.retrieval import judge, rank_relevant, runs_of
from zsrbook.models.matrix import MatrixModel
from zsrbook.training import check_words

#: what a table shows; the last two rank against 100 sampled negatives, as the authors' later work does
METRICS = ("Recall@10", "Recall@20", "NDCG@10", "NDCG@20", "AUC", "Recall@10 (1+100)", "NDCG@10 (1+100)")
SAMPLED = " (1+100)"

Targets = Literal["all", "new users", "new items", "both new"]


@dataclass(frozen=True)
class MatrixProtocol:
    """Which of the held-out ones are judged.

    Attributes:
        targets: all of them, or those whose user, item or both were kept from the training of the weights.
        most: judge this many users at most, the same ones for every method; None for all.
        part: validation serves choices alone.

    Raises:
        ValueError: a value that is not among the choices.
    """

    targets: Targets = "all"
    most: int | None = None
    part: Literal["test", "valid"] = "test"
    task: Literal["matrix"] = "matrix"

    metrics = METRICS

    def __post_init__(self) -> None:
        check_words(self, "protocol")
        if self.most is not None and (not isinstance(self.most, int) or self.most < 1):
            raise ValueError(f"protocol: most is {self.most!r}; expected a whole number from 1, or None for all users")

    def settings(self) -> dict[str, str | int | None]:
        """As a run record holds it."""
        return asdict(self)

    def caption(self) -> str:
        """One line for people.

        >>> MatrixProtocol(most=500).caption().split(" · ")[2]
        '500 users at most, drawn at random'
        """
        who = {"all": "", "new users": ", of new users", "new items": ", of new items", "both new": ", where user and item are new"}
        return " · ".join(
            (
                f"a tenth of each user's ones is held out{who[self.targets]}",
                "ranked among all items that the user was not known to have",
                *([] if self.most is None else [f"{self.most:,} users at most, drawn at random"]),
                "mean over users",
                "ties: expected value",
            )
        )

    def people(self, users: np.ndarray) -> np.ndarray:
        """Those of these users who are judged, sorted: all, or ``most`` of them at random."""
        users = np.unique(users)
        if self.most is None or self.most >= len(users):
            return users
        return np.sort(np.random.default_rng(0).choice(users, self.most, replace=False))

    def knows(self, metric: str) -> bool:
        """Whether ranks tell this metric."""
        return metric == "AUC" or is_metric(metric.removesuffix(SAMPLED))

    def by_user(self, table: RankTable, metric: str) -> pd.DataFrame:
        """Index ``user``; columns ``sum``, ``count`` and ``mean``: one value a user.

        Raises:
            ValueError: no such metric.
        """
        users, group = np.unique(table.user, return_inverse=True)
        if metric == "AUC":
            value = auc_of_ranks(table, group)
        elif metric.endswith(SAMPLED):
            value = np.bincount(group, against_sample(alone(table, group), metric.removesuffix(SAMPLED))) / np.bincount(group)
        else:
            value = judge(table, metric, group)
        return pd.DataFrame({"sum": value, "count": 1, "mean": value}, index=pd.Index(users, name="user"))

    def summary(self, table: RankTable, metrics: tuple[str, ...] = METRICS) -> dict[str, float]:
        """Metric name -> value.

        >>> MatrixProtocol().summary(RankTable.of([0, 30], [0, 0], 50, user=[3, 3]), ("Recall@20", "AUC"))
        {'Recall@20': 0.5, 'AUC': 0.6979166666666667}
        """
        return {name: float(self.by_user(table, name)["mean"].mean()) for name in metrics}

    def per_user(self, tables: Mapping[int, RankTable], metric: str) -> PerUser:
        """A metric user by user and seed by seed, for intervals."""
        return PerUser.of({seed: self.by_user(table, metric) for seed, table in tables.items()})

    save = staticmethod(save_ranks)
    load = staticmethod(load_ranks)


def auc_of_ranks(table: RankTable, group: np.ndarray) -> np.ndarray:
    """(groups,) the chance that a random held-out one of the user stands above a random candidate that is none; a tie counts half.

    Among the n ones of a user, n (n − 1) / 2 pairs lie one above the other, ties counted half, whatever their order; the rest of what
    stands above is negatives. Where nothing was found, each one stands behind all candidates, the other ones among them: 0.
    """
    n = np.bincount(group)
    above = np.bincount(group, table.greater + table.ties / 2) - n * (n - 1) / 2
    negatives = np.zeros(len(n))
    negatives[group] = table.n_candidates
    negatives -= n
    with np.errstate(invalid="ignore"):  # a user who has, or is known to want, all there is: nothing to tell apart
        return np.where(negatives > 0, np.clip(1 - above / (n * negatives), 0, 1), 0.5)


def alone(table: RankTable, group: np.ndarray) -> RankTable:
    """The same with the user's other held-out ones taken out of the candidates, so that each stands against negatives alone."""
    order, higher, level = runs_of(table, group)  # ones of a user that tie have equal counts above
    above, beside = np.empty((2, len(order)), np.int32)
    above[order], beside[order] = higher, level - 1
    candidates = (table.n_candidates - (np.bincount(group) - 1)[group]).astype(np.int32)
    # where nothing was found, ones don't tie, and stand behind all candidates: of those that are left, too
    greater, ties = np.minimum(table.greater - above, candidates), np.maximum(table.ties - beside, 0)
    return replace(table, greater=greater, ties=ties, n_candidates=candidates)


def against_sample(table: RankTable, metric: str, negatives: int = 100) -> np.ndarray:
    """(n,) ``metrics.sampled``; against all negatives where there are fewer."""
    few = table.n_candidates - 1 < negatives
    found = np.empty(len(table))
    found[~few] = sampled(table.where(~few), metric, negatives)
    found[few] = values(table.where(few), metric)
    return found


def evaluate(
    model: MatrixModel,
    split: MatrixSplit,
    protocol: MatrixProtocol = MatrixProtocol(),
    new: tuple[np.ndarray, np.ndarray] | None = None,
) -> RankTable:
    """Where the ones that the protocol asks for stand, all that the user is known to have left out.

    Args:
        new: which users (U,) and items (I,) were kept from training, where the protocol asks for them (``data.matrix.strangers``).

    Raises:
        DataError: the model serves another matrix, or there is nothing to judge.
    """
    if model.train.shape != split.train.shape:
        raise DataError(
            f"{type(model).__name__} serves a matrix of shape {model.train.shape}; {split.name} is {split.train.shape}; use model.transfer"
        )
    judged, known = (split.test, split.known) if protocol.part == "test" else (split.valid, split.train)
    user, item = rows_of(judged), judged.indices
    if protocol.targets != "all":
        fresh_user, fresh_item = new[0][user], new[1][item]
        keep = {"new users": fresh_user & ~fresh_item, "new items": ~fresh_user & fresh_item, "both new": fresh_user & fresh_item}[protocol.targets]
        user, item = user[keep], item[keep]
    if not len(user):
        raise DataError(f"{split.name}: no {protocol.part} one with targets {protocol.targets!r}; nothing to judge")
    keep = np.isin(user, protocol.people(user))
    user, item = user[keep], item[keep]
    return rank_relevant(model.scores, user, item, judged.shape[1], without=csr_array(known))
