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
        by_user: index ``user``; ``mean`` the user's AUC, ``count`` impressions, ``sum`` their product: what intervals take.
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
    labels, scores = _checked(labels, scores)
    if len(np.unique(labels)) == 1:
        raise ValueError(f"AUC needs both classes, but all {len(labels)} labels are {int(labels[0])}")
    return gauc(labels, scores, np.zeros(len(labels), np.int64)).value


def gauc(labels: np.ndarray, scores: np.ndarray, users: np.ndarray) -> GroupedAUC:
    """AUC a user, averaged with the users' impressions as weights; users with one class are skipped and counted.

    >>> found = gauc(np.array([1, 0, 1, 0, 1]), np.array([0.9, 0.1, 0.3, 0.4, 0.5]), np.array([7, 7, 8, 8, 9]))
    >>> found.value, found.skipped
    (0.5, 1)

    Raises:
        ValueError: no user with both classes, a score that is NaN, or a label other than 0 and 1.
    """
    labels, scores = _checked(labels, scores)
    names, code = np.unique(users, return_inverse=True)
    rank = pd.Series(scores).groupby(code).rank(method="average").to_numpy()  # 1 = lowest; ties share their mean rank
    count = np.bincount(code, minlength=len(names))
    positive = np.bincount(code, weights=labels, minlength=len(names))
    pairs = positive * (count - positive)
    wins = np.bincount(code, weights=rank * labels, minlength=len(names)) - positive * (positive + 1) / 2
    both = pairs > 0
    if not both.any():
        raise ValueError(f"GAUC needs a user with both classes, but none of the {len(names)} users has both")
    mean, count = wins[both] / pairs[both], count[both]
    frame = pd.DataFrame({"sum": mean * count, "count": count, "mean": mean}, index=pd.Index(names[both], name="user"))
    return GroupedAUC(float(frame["sum"].sum() / count.sum()), frame, int((~both).sum()))


def auc_by_user(labels: np.ndarray, scores: np.ndarray, users: np.ndarray) -> pd.DataFrame:
    """AUC over all rows, and how much each user moves it, in the form that intervals take.

    AUC is no mean over users, but to first order it moves like one: a positive moves it by how far the share of negatives below it
    exceeds AUC, and a negative likewise (the placements of DeLong et al. 1988, summed within a user as Obuchowski 1997 does for clusters).

    Returns:
        index ``user``; ``count`` rows, ``sum`` such that ``sum`` over ``count`` is AUC when summed over users, ``mean`` their ratio.

    Raises:
        ValueError: as ``auc``.

    >>> found = auc_by_user(np.array([1, 0, 1, 0]), np.array([0.9, 0.1, 0.4, 0.4]), np.array([7, 7, 8, 8]))
    >>> float(found["sum"].sum() / found["count"].sum())
    0.875
    """
    value = auc(labels, scores)
    labels, scores = _checked(labels, scores)
    rank = pd.Series(scores).rank(method="average").to_numpy()
    within = pd.Series(scores).groupby(labels).rank(method="average").to_numpy()
    positives = labels.sum()
    others = np.where(labels == 1, len(labels) - positives, positives)
    below = (rank - within) / others  # share of the other class that lies below
    placement = np.where(labels == 1, below, 1 - below)
    moves = (placement - value) * len(labels) / np.where(labels == 1, positives, len(labels) - positives)
    names, code = np.unique(users, return_inverse=True)
    count = np.bincount(code)
    total = value * count + np.bincount(code, weights=moves)
    return pd.DataFrame({"sum": total, "count": count, "mean": total / count}, index=pd.Index(names, name="user"))


def _checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = np.asarray(labels), np.asarray(scores)
    for what, bad, expected in (("score", np.isnan(scores), "a number"), ("label", (labels != 0) & (labels != 1), "0 or 1")):
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            seen = (scores if what == "score" else labels)[row]
            raise ValueError(f"row {row}: the {what} is {seen}; expected {expected} ({int(bad.sum())} such rows of {len(labels)})")
    return labels, scores
