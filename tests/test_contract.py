"""The recommenders of the first chapter, held to the contract."""

from itertools import product
from math import log2
from typing import ClassVar

import pytest
from contract import REMOVED, RecommenderContract, ndcg, world

from zsrbook.evaluation.protocol import Protocol
from zsrbook.models.baselines import EmbKNN, EmbKNNSettings, NewOnly, Popularity, Random
from zsrbook.models.zesrec import ZESRec, ZESRecSettings
from zsrbook.training import Training

NEW = Protocol(repeats="removed", history="removed")


class TestPopularity(RecommenderContract):
    variants: ClassVar = {"popularity": lambda seed, device: Popularity()}

    def test_beats_chance_on_new_users(self, variant):
        assert ndcg(self.in_target(variant), REMOVED) > 1.1 * ndcg(Random().fit(world().target), REMOVED)


class TestRandom(RecommenderContract):
    variants: ClassVar = {"random": lambda seed, device: Random(seed)}

    def test_is_chance(self, variant):
        """Discounted gain of a uniform rank in 80 items, within what 1,700 predictions allow."""
        chance = sum(1 / log2(rank + 1) for rank in range(1, 21)) / world().target.n_items
        assert sum(ndcg(self.in_target(variant, seed)) for seed in range(5)) / 5 == pytest.approx(chance, rel=0.06)

    def test_another_seed_gives_another_list(self, variant):
        assert ndcg(self.in_target(variant, 0)) != ndcg(self.in_target(variant, 1))


class TestEmbKNN(RecommenderContract):
    variants: ClassVar = {
        f"{history}-{similarity}{'-whitened' if whiten else ''}": lambda seed, device, s=EmbKNNSettings(history, similarity, whiten): EmbKNN(s)
        for history, similarity, whiten in product(("mean", "last", "decay"), ("inner", "cosine"), (None, 1.0))
    }
    margin = 1.5  # half of the distance is buying again
    reads_features = True


def zesrec(users: str, items: str):
    """Small and quick: a few seconds to fit."""

    def make(seed: int, device: str) -> ZESRec:
        training = Training(epochs=6 if items == "text" else 12, optimizer="adam", learning_rate=0.01, patience=None, device=device, seed=seed)
        sizes = {"width": 32, "hidden": 64, "levels": 2, "batch_targets": 256}  # histories of 9, of which a TCN sees the last 13
        return ZESRec(ZESRecSettings(items=items, users=users, dropout=0.1, training=training, **sizes))

    return make


class TestZESRec(RecommenderContract):
    """Fitted in the source on text, judged in a market it has never seen."""

    variants: ClassVar = {users: zesrec(users, "text") for users in ("gru", "tcn", "hrnn")}
    margin = 1.2
    reads_features = True


class TestItemIds(RecommenderContract):
    """GRU4Rec, TCN and HRNN: fitted on other users of the target."""

    variants: ClassVar = {users: zesrec(users, "ids") for users in ("gru", "tcn", "hrnn")}
    margin = 1.5


class TestNewOnly(RecommenderContract):
    """Another model that never offers what the user has: judged on what is new to the user, against others without those items."""

    variants: ClassVar = {
        "neighbour": lambda seed, device: NewOnly(EmbKNN(EmbKNNSettings("decay", "cosine", whiten=0.5))),
        "zesrec": lambda seed, device: NewOnly(zesrec("gru", "text")(seed, device)),
    }
    margin = 1.0  # what buying again adds is gone
    judged = NEW
    reads_features = True
    new_only = True


class TestNewOnlyById(RecommenderContract):
    """Around a model that knows items by their codes, which it therefore can't carry to another catalogue."""

    variants: ClassVar = {"gru": lambda seed, device: NewOnly(zesrec("gru", "ids")(seed, device))}
    margin = 1.2
    judged = NEW
    new_only = True
