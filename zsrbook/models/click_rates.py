"""What click models must be held against: how often items are clicked, by anybody and by people of like attributes, and chance."""

from __future__ import annotations

from typing import Self

import numpy as np
from scipy.special import logit

from zsrbook.data.clicks import TRAIN, ClickData


class ItemRate:
    """The share of clicks on an item in training, shrunk towards that of all: what needs no user at all."""

    def __init__(self, prior: float = 20.0):
        self.prior = prior  # impressions that the mean of all items is worth

    def fit(self, data: ClickData) -> Self:
        rows = data.rows(TRAIN)
        shown, clicked = counted(data.item[rows], data.click[rows], len(data.items))
        self.rate = (clicked + self.prior * data.click[rows].mean()) / (shown + self.prior)
        return self

    def scores(self, data: ClickData, rows: np.ndarray) -> np.ndarray:
        return self.rate[data.item[rows]].astype(np.float32)


class AttributeRate(ItemRate):
    """The same for each value of each attribute of the user, as if these knew nothing of each other (naive Bayes).

    Who has value v of attribute a clicks on item i at the rate r(i, a, v), the share of clicks of such people on it, shrunk towards r(i), that
    of all. The score is the logit of the chance that all values together give:

        logit r(i) + Σ_a [logit r(i, a, v) − logit r(i)]

    Ids are no attributes. Nothing is embedded, no behaviour is read, and a new user is no other case than an old one.
    """

    def __init__(self, prior: float = 20.0, own: float = 40.0):
        super().__init__(prior)
        self.own = own  #: impressions that the rate of the item is worth; of 5 to 320, the best on validation in the toy world

    def fit(self, data: ClickData) -> Self:
        super().fit(data)
        rows, n = data.rows(TRAIN), len(data.items)
        of_all = self.rate[:, None]
        self.log_odds, self.gains = log_odds(self.rate), {}
        for column, name in enumerate(data.layout.user[1:], 1):  # the first is the id
            values = data.vocabularies[name]
            pair = data.item[rows].astype(np.int64) * values + data.users[data.user[rows], column]
            shown, clicked = (part.reshape(n, values) for part in counted(pair, data.click[rows], n * values))
            self.gains[column] = log_odds((clicked + self.own * of_all) / (shown + self.own)) - self.log_odds[:, None]
        return self

    def scores(self, data: ClickData, rows: np.ndarray) -> np.ndarray:
        item, user = data.item[rows], data.user[rows]
        gained = sum(gain[item, data.users[user, column]] for column, gain in self.gains.items())
        return (self.log_odds[item] + gained).astype(np.float32)


class Chance:
    """A random score an impression."""

    def __init__(self, seed: int = 0):
        self.seed = seed

    def fit(self, data: ClickData) -> Self:
        return self

    def scores(self, data: ClickData, rows: np.ndarray) -> np.ndarray:
        return np.random.default_rng(self.seed).random(len(rows), dtype=np.float32)


def counted(code: np.ndarray, click: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each of n codes was shown, and clicked on."""
    return np.bincount(code, minlength=n), np.bincount(code, weights=click, minlength=n)


def log_odds(rate: np.ndarray) -> np.ndarray:
    return logit(rate.clip(1e-9, 1 - 1e-9))  # 0 and 1 occur where nothing was ever clicked, or everything
