"""Do two domains share users, items or texts? Zero-shot claims need the answer no, so it is asked before every transfer.

Where a source numbers its users itself the answer is not to be had for them: then it is "can't be compared", and never "no".

ZESRec's first version did not remove what Amazon's Grocery and Pantry share; its second did. ``audit`` measures, ``without_shared``
removes, ``Audit.assert_disjoint`` stops a run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer

from zsrbook.data import titles
from zsrbook.data.dataset import Columns, DataError, Dataset
from zsrbook.data.splits import select_items

#: characters of a text that are compared, and pairs of items compared at once
LETTERS, PAIRS_AT_ONCE = 200, 20_000_000
#: cosine of character 4-grams from which two texts count as near-duplicates
NEAR = 0.8
#: share of the target's items with a near-duplicate in the source from which the two are one category under other ids
SAME = 0.2
#: the verdict where no text is shared and ids tell nothing of users
UNKNOWN = "no shared text; users can't be compared"


def comparable(a: pd.Series, b: pd.Series) -> bool:
    """Whether equal ids mean equal things: not where a source numbers its users or items itself (17, A17, u_17).

    Some such ids do mean the same, as films in two releases of MovieLens; equal titles show that.
    """
    numbered = r"[A-Za-z]{0,5}[_-]?\d{1,9}"
    return not (a.str.fullmatch(numbered).all() or b.str.fullmatch(numbered).all())


def active_users(data: Dataset) -> pd.Series:
    """The raw ids of the users with interactions; index = user code."""
    return data.users[Columns.RAW].astype(str).iloc[data.sequences().users]


def short_texts(data: Dataset) -> pd.Series:
    """The title of each item, or the start of its text where the source gives no title."""
    text = data.items[Columns.TEXT].astype(str)
    title = data.items["title"].fillna("").astype(str) if "title" in data.items else pd.Series("", data.items.index)
    return title.where(title.str.strip().ne(""), text).str[:LETTERS]


def shared_users(source: Dataset, target: Dataset) -> np.ndarray:
    """Codes of the users of ``target`` whose raw id also stands in ``source``; none where ids can't be compared."""
    mine, theirs = active_users(target), active_users(source)
    return mine.index[mine.isin(theirs)].to_numpy() if comparable(mine, theirs) else np.zeros(0, np.int64)


def shared_items(source: Dataset, target: Dataset, by: str = "title") -> pd.DataFrame:
    """Pairs of item codes, columns ``source`` and ``target``, one for each way in which two items agree.

    Args:
        by: ``raw`` equal ids (never, where a side numbers its items itself); ``title`` equal ``titles.normalise``;
            ``names`` any equal name of ``titles.names``, a.k.a. included.

    Raises:
        DataError: ``by`` is another word.
    """
    if by == "raw" and not comparable(source.items[Columns.RAW].astype(str), target.items[Columns.RAW].astype(str)):
        return pd.DataFrame({"source": [], "target": []}, dtype=np.int64)
    sides = [
        pd.DataFrame({"key": keys(data, by), side: range(data.n_items)}).explode("key") for data, side in ((source, "source"), (target, "target"))
    ]
    sides = [side[side["key"].notna() & side["key"].ne("")] for side in sides]
    pairs = sides[0].merge(sides[1], on="key")[["source", "target"]]
    return pairs.drop_duplicates().astype(np.int64).sort_values(["target", "source"], ignore_index=True)


def keys(data: Dataset, by: str) -> pd.Series:
    ways = {
        "raw": lambda: data.items[Columns.RAW].astype(str),
        "title": lambda: short_texts(data).map(titles.normalise),
        "names": lambda: short_texts(data).map(lambda t: sorted(titles.names(t))),
    }
    if by not in ways:
        raise DataError(f"by is {by!r}; expected one of {', '.join(ways)}")
    return ways[by]()


def near_duplicates(source: Dataset, target: Dataset, threshold: float = NEAR) -> pd.DataFrame:
    """For each target item the most similar source item, where the cosine of their titles reaches ``threshold``.

    Titles (texts, where there are none) become TF-IDF vectors of character 4-grams within words. Returns columns ``source``,
    ``target`` (item codes) and ``similarity``. Memory is bounded by ``PAIRS_AT_ONCE``, not by the product of the catalogues.
    """
    texts = [short_texts(d).map(titles.spelling) for d in (source, target)]
    codes = [t.index[t.str.strip().ne("")].to_numpy() for t in texts]
    if not len(codes[0]) or not len(codes[1]):
        return pd.DataFrame({"source": np.zeros(0, np.int64), "target": np.zeros(0, np.int64), "similarity": np.zeros(0)})
    texts = [t[c] for t, c in zip(texts, codes, strict=True)]
    vectoriser = TfidfVectorizer(analyzer="char_wb", ngram_range=(4, 4), sublinear_tf=True, dtype=np.float32).fit(pd.concat(texts))
    theirs, mine = (vectoriser.transform(t) for t in texts)
    theirs = theirs.T.tocsr()
    best, which = [], []
    step = max(1, PAIRS_AT_ONCE // theirs.shape[1])
    for begin in range(0, mine.shape[0], step):
        cosine = mine[begin : begin + step] @ theirs
        best.append(cosine.max(axis=1).toarray().ravel())
        which.append(np.asarray(cosine.argmax(axis=1)).ravel())
    best, which = np.concatenate(best), np.concatenate(which)
    found = np.flatnonzero(best >= threshold)
    return pd.DataFrame({"source": codes[0][which[found]], "target": codes[1][found], "similarity": best[found]})


def without_shared(data: Dataset, other: Dataset, by: tuple[str, ...] = ("raw", "title"), near: bool = False) -> Dataset:
    """``data`` without the items that ``other`` has too, and without the users of ``other`` and all that they did; coded anew.

    Args:
        by: ways of ``shared_items`` in which an item counts as shared.
        near: also drop items with a near-duplicate.

    Raises:
        DataError: nothing is left.
    """
    gone = [shared_items(other, data, way)["target"].to_numpy() for way in by]
    if near:
        gone.append(near_duplicates(other, data)["target"].to_numpy())
    gone = np.unique(np.concatenate([np.zeros(0, np.int64), *gone]))
    known = shared_users(other, data)
    column = data.interactions[Columns.USER].to_numpy()
    kept = np.setdiff1d(np.arange(data.n_items), gone)
    rest = np.setdiff1d(np.arange(len(data.users)), known)
    if comparable(active_users(other), active_users(data)):
        people, unknown = f" and {len(known):,} of {data.n_users:,} users", ""
    else:
        people, unknown = "", "; users can't be compared, so none was dropped"
    note = f"{data.name}: dropped {len(gone):,} of {data.n_items:,} items{people} that {other.name} has too{unknown}"
    left = select_items(data.where(~np.isin(column, known)), kept, note, rest)
    if not len(left):
        raise DataError(f"{data.name}: no interactions are left without what {other.name} has too; choose another pair")
    return left


@dataclass(frozen=True)
class Audit:
    """What a source and a target share. Counts are of the target; None where ids are numbers of a source's own and tell nothing."""

    source: str
    target: str
    users: int
    items: int
    shared_users: int | None
    shared_items: int | None
    equal_titles: int
    near_duplicates: int
    source_time: tuple[float, float] | None
    target_time: tuple[float, float] | None

    @property
    def verdict(self) -> str:
        """``disjoint``, ``some overlap``, ``same category under other ids``, or ``UNKNOWN``, which is less than disjoint."""
        if max(self.near_duplicates, self.equal_titles) > SAME * self.items:
            return "same category under other ids"
        counts = (self.shared_users or 0, self.shared_items or 0, self.equal_titles, self.near_duplicates)
        if any(counts):
            return "some overlap"
        return UNKNOWN if self.shared_users is None else "disjoint"

    def table(self) -> pd.DataFrame:
        """One row a question: index ``question``; columns ``answer`` and ``share`` of the target (NaN where there is none)."""
        no_ids = "ids are numbers of a source's own"
        counts = {
            "shared users": (self.shared_users, self.users),
            "shared items by id": (self.shared_items, self.items),
            "equal titles": (self.equal_titles, self.items),
            f"near-duplicate titles (cosine at least {NEAR})": (self.near_duplicates, self.items),
        }
        rows = [(q, no_ids if n is None else f"{n:,} of {of:,}", np.nan if n is None else n / max(1, of)) for q, (n, of) in counts.items()]
        rows += [(f"time of {n}", days(t), np.nan) for n, t in ((self.source, self.source_time), (self.target, self.target_time))]
        rows += [("overlap in time", self.time_overlap(), np.nan), ("verdict", self.verdict, np.nan)]
        return pd.DataFrame(rows, columns=["question", "answer", "share"]).set_index("question")

    def time_overlap(self) -> str:
        if self.source_time is None or self.target_time is None:
            return "no clock"
        begin, end = max(self.source_time[0], self.target_time[0]), min(self.source_time[1], self.target_time[1])
        return days((begin, end)) if begin <= end else "none"

    def assert_disjoint(self, tolerance: float = 0.01, unknown_users: bool = False) -> None:
        """Stop unless no user and no item id is shared and at most this share of the target's titles is equal or nearly so.

        Args:
            unknown_users: let a pair pass whose users can't be compared, since nothing better is to be had; all else is asked all the same.

        Raises:
            DataError: the pair is no zero-shot pair, or nobody can know of its users; the message says what to do.
        """
        titled = max(self.equal_titles, self.near_duplicates)
        if self.shared_users or self.shared_items or titled > tolerance * self.items:
            raise DataError(
                f"{self.source} → {self.target} is no zero-shot pair ({self.verdict}): {self.shared_users or 0:,} shared users,"
                f" {self.shared_items or 0:,} shared item ids, {self.equal_titles:,} equal and {self.near_duplicates:,} near-duplicate titles of"
                f" {self.items:,} items; drop them with without_shared(…, near=True), or choose another pair"
            )
        if self.shared_users is None and not unknown_users:
            raise DataError(
                f"{self.source} → {self.target}: the user ids of one side are numbers of its own, so whether somebody is in both can't be known;"
                " say assert_disjoint(unknown_users=True) to go on, and say it beside the results"
            )


def audit(source: Dataset, target: Dataset) -> Audit:
    """Measure what ``target`` shares with ``source``: seconds for ten thousand items a side, minutes for ten thousand against a quarter million."""
    numbered_users = not comparable(active_users(source), active_users(target))
    numbered_items = not comparable(source.items[Columns.RAW].astype(str), target.items[Columns.RAW].astype(str))
    return Audit(
        source=source.name,
        target=target.name,
        users=target.n_users,
        items=target.n_items,
        shared_users=None if numbered_users else len(shared_users(source, target)),
        shared_items=None if numbered_items else shared_items(source, target, "raw")["target"].nunique(),
        equal_titles=shared_items(source, target, "title")["target"].nunique(),
        near_duplicates=len(near_duplicates(source, target)),
        source_time=time_range(source),
        target_time=time_range(target),
    )


def time_range(data: Dataset) -> tuple[float, float] | None:
    """Seconds of the first and the last interaction, or None without a clock."""
    time = data.interactions[Columns.TIME]
    return (float(time.min()), float(time.max())) if data.clock else None


def days(time: tuple[float, float] | None) -> str:
    return "no clock" if time is None else " to ".join(str(pd.Timestamp(t, unit="s").date()) for t in time)
