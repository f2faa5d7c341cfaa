"""How click predictions are judged: AUC and GAUC of new and of old users apart (MAIL, section 4.1.3).

All that these metrics need of a score is its rank among the test impressions, so that is what is kept: two bytes an impression.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from zsrbook.data.clicks import GROUPS, TEST, ClickData
from zsrbook.evaluation.auc import auc_by_user, gauc
from zsrbook.evaluation.intervals import PerUser
from zsrbook.evaluation.ranks import write_seeds
from zsrbook.training import check_words

#: what the MAIL paper reports (Table 2)
METRICS = ("AUC (new)", "GAUC (new)", "AUC (old)", "GAUC (old)")
#: classes of scores that are told apart; scores are put into as many of equal size where there are more
LEVELS = 65_536


@dataclass(frozen=True)
class ClickRanks:
    """One row a test impression.

    Attributes:
        user: (n,) int32 code.
        click: (n,) int8.
        group: (n,) int8 index in ``data.clicks.GROUPS``.
        rank: (n,) uint16: how many different scores lie below this one; equal scores have equal ranks.
    """

    user: np.ndarray
    click: np.ndarray
    group: np.ndarray
    rank: np.ndarray

    @classmethod
    def of(cls, data: ClickData, scores: np.ndarray) -> ClickRanks:
        """Scores of all test impressions, in the order of ``data.rows(TEST)``.

        Raises:
            ValueError: another number of scores, or one that is NaN.
        """
        rows = data.rows(TEST)
        if len(scores) != len(rows) or np.isnan(scores).any():
            raise ValueError(f"{data.name}: {len(scores)} scores, {int(np.isnan(scores).sum())} of them NaN; expected {len(rows)} numbers")
        values, rank = np.unique(scores, return_inverse=True)
        if len(values) > LEVELS:
            rank = rank * LEVELS // len(values)
        return cls(data.user[rows].astype(np.int32), data.click[rows], data.group[rows], rank.astype(np.uint16))

    def where(self, group: str) -> ClickRanks:
        """The impressions of one kind of users."""
        keep = self.group == GROUPS.index(group)
        return ClickRanks(*(getattr(self, f.name)[keep] for f in fields(self)))

    def by_user(self, metric: str) -> pd.DataFrame:
        """Index ``user``; ``sum`` over ``count`` gives the metric when summed over users.

        Raises:
            ValueError: no such metric, or the group has one class alone.
        """
        if metric not in METRICS:
            raise ValueError(f"{metric!r} is no metric of clicks; expected one of {', '.join(METRICS)}")
        name, _, group = metric.rstrip(")").partition(" (")
        mine = self.where(group)
        return auc_by_user(mine.click, mine.rank, mine.user) if name == "AUC" else gauc(mine.click, mine.rank, mine.user).by_user


def save_click_ranks(path: Path, tables: Mapping[int, ClickRanks], limit: int | None = None) -> list[int]:
    """Write one or more seeds of the same impressions as a compressed ``.npz`` (no pickle), in order while they fit into ``limit`` bytes.

    Returns:
        the seeds that were written; the first one always is.
    """
    first = next(iter(tables.values()))
    shared = {f"click_{name}": getattr(first, name) for name in ("user", "click", "group")}

    def arrays() -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for seed, table in tables.items():
            if not all(np.array_equal(getattr(table, name), getattr(first, name)) for name in ("user", "click", "group")):
                raise ValueError(f"seed {seed} was judged on other impressions than the first; one record holds one test")
            yield seed, {f"rank.{seed}": table.rank}

    return write_seeds(path, shared, arrays(), limit)


def load_click_ranks(path: Path) -> dict[int, ClickRanks]:
    """What ``save_click_ranks`` wrote: one table a seed."""
    with np.load(path, allow_pickle=False) as file:
        shared = [file[f"click_{name}"] for name in ("user", "click", "group")]
        return {int(seed): ClickRanks(*shared, file[f"rank.{seed}"]) for seed in file["seeds"]}


@dataclass(frozen=True)
class ClickProtocol:
    """How impressions are chosen and judged.

    Attributes:
        click: what counts as a click, in words.
        split: ``time``: the newest impressions are the test.
        new: share of the users whose behaviour is hidden.
        ids: ``kept``: impressions of new users stay in training, and so do their ids, as in the paper; ``removed``: neither does.
    """

    click: str
    split: Literal["time"] = "time"
    new: float = 0.4
    ids: Literal["kept", "removed"] = "kept"
    task: Literal["clicks"] = "clicks"

    metrics = METRICS

    def __post_init__(self) -> None:
        check_words(self, "protocol")
        if not 0 < self.new < 1:
            raise ValueError(f"protocol: new is {self.new}; expected a share between 0 and 1")

    def settings(self) -> dict[str, str | float]:
        """As a run record holds it."""
        return asdict(self)

    def caption(self) -> str:
        """One line for people.

        >>> ClickProtocol("a click", ids="removed").caption().split(" · ")[2:4]
        ['40% of the users made new', 'ids and training impressions of new users removed']
        """
        return " · ".join(
            (
                f"a click is {self.click}",
                "the newest impressions are the test",
                f"{self.new:.0%} of the users made new",
                f"ids and training impressions of new users {self.ids}",
                "GAUC weighted by impressions, users of one class skipped",
                "ties count one half",
            )
        )

    save = staticmethod(save_click_ranks)
    load = staticmethod(load_click_ranks)

    def knows(self, metric: str) -> bool:
        """Whether ranks tell this metric."""
        return metric in METRICS

    def summary(self, ranks: ClickRanks, metrics: tuple[str, ...] = METRICS) -> dict[str, float]:
        """Metric name -> value."""
        frames = {name: ranks.by_user(name) for name in metrics}
        return {name: float(frame["sum"].sum() / frame["count"].sum()) for name, frame in frames.items()}

    def per_user(self, ranks: Mapping[int, ClickRanks], metric: str) -> PerUser:
        """A metric user by user and seed by seed, for intervals."""
        return PerUser.of({seed: table.by_user(metric) for seed, table in ranks.items()})
