"""The recommenders of the first chapter, held to the contract."""

from itertools import product
from math import log2
from types import SimpleNamespace
from typing import ClassVar

import pytest
from contract import REMOVED, RecommenderContract, ndcg, world

from zsrbook.data.dataset import DataError
from zsrbook.evaluation.protocol import Protocol
from zsrbook.models.baselines import EmbKNN, EmbKNNSettings, NewOnly, Popularity, Random
from zsrbook.models.zesrec import ZESRec, ZESRecSettings
from zsrbook.training import Training

NEW = Protocol(repeats="removed", history="removed")


class TestPopularity(RecommenderContract):
    variants: ClassVar = {"popularity": lambda seed, device: Popularity()}
    margin = None
    reads_features = False

    def test_beats_chance_on_new_users(self, variant):
        assert ndcg(self.in_target(variant), REMOVED) > 1.1 * ndcg(Random().fit(world().target), REMOVED)


class TestRandom(RecommenderContract):
    variants: ClassVar = {"random": lambda seed, device: Random(seed)}
    margin = None
    reads_features = False

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


def zesrec(users: str, items: str, **more):
    """Small and quick: a few seconds to fit."""

    def make(seed: int, device: str) -> ZESRec:
        training = Training(epochs=6 if items == "text" else 12, optimizer="adam", learning_rate=0.01, patience=None, device=device, seed=seed)
        sizes = {"width": 32, "hidden": 64, "levels": 2, "batch_targets": 256}  # histories of 9, of which a TCN sees the last 13
        return ZESRec(ZESRecSettings(items=items, users=users, dropout=0.1, training=training, **sizes, **more))

    return make


class TestZESRec(RecommenderContract):
    """Fitted in the source on text, judged in a market it has never seen."""

    variants: ClassVar = {users: zesrec(users, "text") for users in ("gru", "tcn", "hrnn")}
    variants |= {"settled": zesrec("gru", "text", settled=True)}
    margin = 1.2
    reads_features = True


class TestItemIds(RecommenderContract):
    """GRU4Rec, TCN and HRNN: fitted on other users of the target."""

    variants: ClassVar = {users: zesrec(users, "ids") for users in ("gru", "tcn", "hrnn")}
    margin = 1.5
    reads_features = False


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
    reads_features = False
    new_only = True


class Leaking(EmbKNN):
    """Says that it is zero-shot, and counts what is popular in the target."""

    def bind(self, target):
        super().bind(target)
        self.popular = Popularity().fit(target).counts

    def item_vectors(self):
        return super().item_vectors() + 1e-4 * self.popular[:, None]


class LeakingContract(RecommenderContract):
    variants: ClassVar = {"leaking": lambda seed, device: Leaking()}
    margin = 1.5
    reads_features = True


class QuietContract(LeakingContract):
    """The same, said to read no item vectors, so that the tests with shuffled and with reordered ones are skipped."""

    variants: ClassVar = {"quiet": lambda seed, device: Leaking()}
    margin = None
    reads_features = False


def test_a_model_that_counts_in_the_target_fails_whatever_is_said_of_it():
    told, quiet = LeakingContract(), QuietContract()
    with pytest.raises(AssertionError):
        told.test_a_new_order_of_the_catalogue_reorders_the_scores("leaking")
    for one, variant in ((told, "leaking"), (quiet, "quiet")):
        with pytest.raises(AssertionError):
            one.test_transfer_reads_item_vectors_alone_and_leaves_the_model_as_it_was(variant)


def test_a_model_that_is_wrongly_said_to_read_no_item_vectors_fails():
    class Wrong(RecommenderContract):
        variants: ClassVar = {"wrong": lambda seed, device: EmbKNN()}
        margin = None
        reads_features = False

    with pytest.raises(DataError, match="with_features"):
        Wrong().test_transfer_reads_item_vectors_alone_and_leaves_the_model_as_it_was("wrong")


def test_what_is_not_said_is_asked_for_before_any_test_runs():
    class TestSilent(RecommenderContract):
        variants: ClassVar = {"silent": lambda seed, device: Random(seed)}

    with pytest.raises(pytest.Collector.CollectError, match="TestSilent does not set margin and reads_features; set variants = "):
        TestSilent.pytest_generate_tests(SimpleNamespace(cls=TestSilent))
