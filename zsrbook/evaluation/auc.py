"""AUC, and its mean over users weighted by impressions (GAUC), with ties counted one half."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class GroupedAUC:
    """GAUC with what it rests on.

    Attributes:
        value: the mean of the users' AUC, weighted by their impressions.
        by_user: index ``user``; ``mean`` the user's AUC, ``count`` impressions, ``sum`` their product: what the bootstrap takes.
        skipped: users with clicks only or non-clicks only, for whom AUC is not defined.
    """

    value: float
    by_user: pd.DataFrame
    skipped: int


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """The chance that a random positive scores above a random negative; a tie counts one half.

    Args:
        labels: (n,) bool or 0/1.
        scores: (n,) numbers.

    >>> auc(np.array([1, 0, 1, 0]), np.array([0.9, 0.1, 0.4, 0.4]))
    0.875

    Raises:
        ValueError: one class only, a score that is NaN, or a label other than 0 and 1.
    """
    found = gauc(labels, scores, np.zeros(len(labels), np.int64))
    if found.skipped:
        raise ValueError(f"AUC needs both classes, but all {len(labels)} labels are {int(labels[0])}")
    return found.value


def gauc(labels: np.ndarray, scores: np.ndarray, users: np.ndarray) -> GroupedAUC:
    """AUC a user, averaged with the users' impressions as weights; users with one class are skipped and counted.

    >>> found = gauc(np.array([1, 0, 1, 0, 1]), np.array([0.9, 0.1, 0.3, 0.4, 0.5]), np.array([7, 7, 8, 8, 9]))
    >>> found.value, found.skipped
    (0.5, 1)

    Raises:
        ValueError: no user with both classes, a score that is NaN, or a label other than 0 and 1.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    for what, bad, expected in (("score", np.isnan(scores), "a number"), ("label", (labels != 0) & (labels != 1), "0 or 1")):
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            seen = (scores if what == "score" else labels)[row]
            raise ValueError(f"row {row}: the {what} is {seen}; expected {expected} ({int(bad.sum())} such rows of {len(labels)})")
    names, code = np.unique(users, return_inverse=True)
    rank = pd.Series(scores).groupby(code).rank(method="average").to_numpy()  # 1 = lowest; ties share their mean rank
    count = np.bincount(code, minlength=len(names))
    positive = np.bincount(code, weights=labels, minlength=len(names))
    pairs = positive * (count - positive)
    wins = np.bincount(code, weights=rank * labels, minlength=len(names)) - positive * (positive + 1) / 2
    both = pairs > 0
    if not both.any() and len(names) != 1:
        raise ValueError(f"GAUC needs a user with both classes, but none of the {len(names)} users has both")
    mean, count = wins[both] / pairs[both], count[both]
    frame = pd.DataFrame({"sum": mean * count, "count": count, "mean": mean}, index=pd.Index(names[both], name="user"))
    value = float(frame["sum"].sum() / count.sum()) if both.any() else float("nan")
    return GroupedAUC(value, frame, int((~both).sum()))
