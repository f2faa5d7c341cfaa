"""The rules under which a number was obtained, in one object that is printed under every table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal

from zsrbook.data.dataset import Columns
from zsrbook.data.splits import Fold
from zsrbook.evaluation.intervals import PerUser
from zsrbook.evaluation.metrics import Average, TieRule, average, by_user, is_metric, values
from zsrbook.evaluation.ranks import RankTable, load_ranks, rank_targets, save_ranks
from zsrbook.models.base import Recommender
from zsrbook.training import check_words

#: what the ZESRec paper reports (section 4.4)
METRICS = ("Recall@20", "MRR@20", "NDCG@20")

Kept = Literal["kept", "removed"]


@dataclass(frozen=True)
class Protocol:
    """How predictions are chosen, ranked and averaged. The defaults are the book's reading of the first ZESRec version.

    Attributes:
        positions: predict every position of a history, or the newest alone.
        first: the earliest position that is predicted, counted from 1; 2 asks for one item of history.
        repeats: ``removed`` drops an item that the user took before from the histories and the targets alike.
        history: ``removed`` takes what the user already had out of the candidates.
        candidates: the whole catalogue; there is no other choice.
        average: over predictions (``micro``) or over users (``macro``).
        ties: see ``metrics``.

    Raises:
        ValueError: a value that is not among the choices.
    """

    positions: Literal["all", "last"] = "all"
    first: int = 2
    repeats: Kept = "kept"
    history: Kept = "kept"
    candidates: Literal["full"] = "full"
    average: Average = "micro"
    ties: TieRule = "expected"

    metrics = METRICS

    def __post_init__(self) -> None:
        check_words(self, "protocol")
        if not isinstance(self.first, int) or self.first < 1:
            raise ValueError(f"protocol: first is {self.first!r}; expected a whole number from 1")

    @classmethod
    def of(cls, settings: dict[str, str | int]) -> Protocol:
        """The inverse of ``settings``.

        Raises:
            ValueError: an unknown name or value.
        """
        unknown = set(settings) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"protocol: unknown setting {sorted(unknown)[0]!r}; expected {', '.join(f.name for f in fields(cls))}")
        return cls(**settings)

    def settings(self) -> dict[str, str | int]:
        """As a run record holds it."""
        return asdict(self)

    def caption(self, candidates: str = "in the full catalogue") -> str:
        """One line for people, with what the targets are ranked among, in words.

        >>> Protocol(positions="last", average="macro").caption().split(" · ")[1::3]
        ['newest position of each user', 'mean over users']
        """
        where = f"every position from item {self.first} on" if self.positions == "all" else "newest position of each user"
        ties = "expected value" if self.ties == "expected" else f"{self.ties} rank"
        return " · ".join(
            (
                f"ranked {candidates}",
                where,
                f"history {'stays among' if self.history == 'kept' else 'is removed from'} the candidates",
                f"repeats {self.repeats}",
                f"mean over {'predictions' if self.average == 'micro' else 'users'}",
                f"ties: {ties}",
            )
        )

    def knows(self, metric: str) -> bool:
        """Whether ranks tell this metric."""
        return is_metric(metric)

    def summary(self, table: RankTable, metrics: tuple[str, ...] = METRICS) -> dict[str, float]:
        """Metric name -> value, averaged and with ties broken as the protocol says.

        >>> Protocol().summary(RankTable.of([0, 30], [0, 0], 50))
        {'Recall@20': 0.5, 'MRR@20': 0.5, 'NDCG@20': 0.5}
        """
        return {name: average(table, values(table, name, self.ties), self.average) for name in metrics}

    def per_user(self, tables: Mapping[int, RankTable], metric: str) -> PerUser:
        """A metric user by user and seed by seed, for intervals."""
        return PerUser.of({seed: by_user(table, values(table, metric, self.ties)) for seed, table in tables.items()}, self.average)

    save = staticmethod(save_ranks)
    load = staticmethod(load_ranks)

    def fold(self, fold: Fold) -> Fold:
        """The fold with the targets, and without the repeats, that the protocol asks for."""
        if self.repeats == "removed":
            keep = ~fold.data.interactions.duplicated([Columns.USER, Columns.ITEM]).to_numpy()
            note = f"{fold.data.name}: the protocol drops {int((~keep).sum())} repeated interactions of {len(keep)}"
            fold = Fold(fold.data.where(keep, note), fold.targets[keep])
        return Fold(fold.data, fold.targets & (fold.sequences.positions >= self.first - 1))


def evaluate(model: Recommender, fold: Fold, protocol: Protocol = Protocol()) -> RankTable:
    """Rank the targets that the protocol asks for."""
    return rank_targets(model, protocol.fold(fold), remove_history=protocol.history == "removed", last_only=protocol.positions == "last")
