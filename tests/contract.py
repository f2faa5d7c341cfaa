"""What every recommender owes its users, as tests to inherit.

A test module states what it holds to the contract and gets every test below for each variant::

    class TestMine(RecommenderContract):
        variants = {"plain": lambda seed, device: Mine(seed=seed, device=device)}
        margin = 1.3
        reads_features = True

The model has to have ``state`` and ``restore``, too: what can't be kept in a file can't serve elsewhere.

The world is a small toy world of two markets with disjoint items, users and brands. A zero-shot model is fitted in the first and moved
to the second; any other is fitted on training users of the second. Both are judged there, on the same users.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from functools import cache
from typing import ClassVar, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from zsrbook.data.dataset import Columns, DataError, Dataset, Sequences
from zsrbook.data.splits import Split, split_by_user
from zsrbook.data.toy import ToySettings, ToyWorld
from zsrbook.evaluation.protocol import Protocol, evaluate
from zsrbook.models.base import Recommender
from zsrbook.models.baselines import Popularity, Random

KEPT, REMOVED = Protocol(), Protocol(repeats="removed")


class World(NamedTuple):
    """A source with item vectors, a target with item vectors split by user, and the best that can be reached there."""

    source: Dataset
    target: Dataset
    split: Split
    oracle: Recommender


@cache
def world() -> World:
    """About 7,000 purchases in the source and 4,000 in the target; popularity is nearly flat, so that it is no strong guess."""
    toy = ToyWorld(ToySettings(users=(800, 450, 1), items=(110, 80, 60), tail=0.2))
    source, target = (toy.dataset(market) for market in ("grocery", "pantry"))
    source, target = (data.with_features(bag_of_words(data.items[Columns.TEXT])) for data in (source, target))
    return World(source, target, split_by_user(target, test=0.4), toy.oracle("pantry"))


def bag_of_words(texts: list[str], width: int = 192) -> np.ndarray:
    """(texts, width) unit vectors of hashed words: a text encoder that costs nothing."""
    out = np.zeros((len(texts), width), np.float32)
    for row, text in enumerate(texts):
        for word in set(re.findall(r"[a-z]+", text.lower())):
            out[row, zlib.crc32(word.encode()) % width] += 1
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def ndcg(model: Recommender, protocol: Protocol = KEPT) -> float:
    return protocol.summary(evaluate(model, world().split.test, protocol))["NDCG@20"]


def histories() -> Sequences:
    """Test users with their times; the last of them has by far the longest history."""
    sequences = world().split.test.sequences
    longest = int(np.argmax(sequences.lengths))
    return sequences.take(np.append(np.delete(np.arange(40), longest) if longest < 40 else np.arange(40), longest))


def close(a: Tensor, b: Tensor, relative: float = 1e-5) -> None:
    """Equal up to this share of the largest score; what is infinite in one is so in the other."""
    largest = b.masked_fill(b.isinf(), 0.0).abs().max()
    torch.testing.assert_close(a.cpu(), b.cpu(), rtol=relative, atol=relative * float(largest.clamp(min=1e-30)))


@pytest.mark.contract
class RecommenderContract:
    """Subclasses set ``variants``, ``margin`` and ``reads_features``, which have no defaults, since they decide which tests are skipped."""

    #: name → a model from a seed and a device
    variants: ClassVar[dict[str, Callable[[int, str], Recommender]]]
    #: NDCG@20 over that of popularity that each variant must reach under the rules ``judged``; None where it can't learn
    margin: ClassVar[float | None]
    #: the rules of that comparison, the same for both and for the ceiling
    judged: ClassVar[Protocol] = KEPT
    #: whether the model reads item vectors; of a zero-shot model it is asked whether that is true
    reads_features: ClassVar[bool]
    #: whether what the user has gets minus infinity, and nothing else does
    new_only: ClassVar[bool] = False

    def scored(self, scores: Tensor, histories: Sequences) -> bool:
        """Whether every item has a finite score, but for those that the model is never to offer."""
        barred = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
        if self.new_only:
            barred[torch.as_tensor(histories.rows), torch.as_tensor(histories.items, dtype=torch.int64)] = True
        return bool(scores[~barred].isfinite().all() and scores[barred].isneginf().all())

    @classmethod
    def pytest_generate_tests(cls, metafunc):
        if unsaid := [name for name in ("variants", "margin", "reads_features") if not hasattr(metafunc.cls, name)]:
            raise pytest.Collector.CollectError(
                f"{metafunc.cls.__name__} does not set {' and '.join(unsaid)}; set variants = {{name: lambda seed, device: model}}, margin = how many"
                " times popularity's NDCG@20 it reaches, or None where it can't learn, and reads_features = whether it reads item vectors"
            )
        # one worker fits a variant once and runs all its tests
        group = pytest.mark.xdist_group
        variants = [pytest.param(name, marks=group(f"{metafunc.cls.__name__}-{name}")) for name in metafunc.cls.variants]
        metafunc.parametrize("variant", variants)

    @classmethod
    @cache
    def _fitted(cls, variant: str, seed: int, device: str, fit: int) -> tuple[Recommender, Recommender]:
        model = cls.variants[variant](seed, device)
        model.fit(world().source if model.zero_shot else world().split.train)
        return model, model.transfer(world().target) if model.zero_shot else model

    @classmethod
    def at_home(cls, variant: str) -> Recommender:
        """The model where it was fitted."""
        return cls._fitted(variant, 0, "cpu", 0)[0]

    @classmethod
    def in_target(cls, variant: str, seed: int = 0, device: str = "cpu", fit: int = 0) -> Recommender:
        """The model that scores the target's items; another number for ``fit`` asks for another fit with the same seed."""
        return cls._fitted(variant, seed, device, fit)[1]

    # -- learning ---------------------------------------------------------------------------------------------------------

    def test_learns_the_toy_world_and_stays_below_its_ceiling(self, variant):
        if self.margin is None:
            pytest.skip("this model does not learn the next item")
        rivals = (self.in_target(variant), Popularity().fit(world().split.train), world().oracle)
        reached, popularity, ceiling = (ndcg(model, self.judged) for model in rivals)
        assert reached > self.margin * popularity
        assert reached < ceiling, "better than the truth: something leaks"

    def test_fails_the_toy_world_when_item_vectors_are_shuffled(self, variant):
        """A shuffled vector still names its item, so buying again survives: judged with repeats removed."""
        model = self.at_home(variant)
        if not (self.reads_features and model.zero_shot):
            pytest.skip("this model does not carry meaning from item vectors to another catalogue")
        shuffled = np.mean([ndcg(model.transfer(world().target.with_shuffled_features(seed)), REMOVED) for seed in range(10)])
        assert shuffled < ndcg(Popularity().fit(world().split.train), REMOVED)
        assert shuffled == pytest.approx(ndcg(Random().fit(world().target), REMOVED), rel=0.35)

    # -- the same scores, however they are asked for -----------------------------------------------------------------------

    def test_scores_are_finite_float32_one_row_a_history(self, variant):
        scores = self.in_target(variant).scores(histories())
        assert scores.shape == (len(histories()), world().target.n_items)
        assert scores.dtype == torch.float32
        assert not scores.requires_grad
        assert self.scored(scores, histories())
        assert torch.equal(scores, self.in_target(variant).scores(histories())), "scoring must have no chance in it"

    def test_batch_equals_one_at_a_time(self, variant):
        model, some = self.in_target(variant), histories()
        close(model.scores(some), torch.cat([model.scores(some.take(np.array([r]))) for r in range(len(some))]))

    def test_padding_changes_nothing(self, variant):
        model, some = self.in_target(variant), histories()
        short = np.flatnonzero(some.lengths <= 4)[:5]
        assert some.lengths[-1] > 20
        close(model.scores(some.take(np.append(short, len(some) - 1)))[:-1], model.scores(some.take(short)))

    def test_order_of_the_users_changes_nothing(self, variant):
        model, some = self.in_target(variant), histories()
        order = np.random.default_rng(0).permutation(len(some))
        close(model.scores(some.take(order)), model.scores(some)[torch.as_tensor(order)])

    def test_prefix_scores_are_the_scores_of_the_prefixes(self, variant):
        model, some = self.in_target(variant), histories()
        at = np.flatnonzero(np.random.default_rng(0).random(len(some.items)) < 0.3)
        found = {}
        for indices, scores in model.prefix_scores(some, at):
            assert scores.shape == (len(indices), model.n_items)
            found |= dict(zip(indices.tolist(), scores, strict=True))
        assert sorted(found) == at.tolist()
        close(torch.stack([found[i] for i in at.tolist()]), model.scores(some.prefixes(at)))

    def test_later_items_change_no_earlier_scores(self, variant):
        """No position may see what it is to predict, nor anything after it."""
        model, some = self.in_target(variant), histories()
        cut = some.starts[:-1] + some.lengths // 2  # the first item that changes in each history
        late = some.positions >= np.repeat(some.lengths // 2, some.lengths)
        items = np.where(late, (some.items + 1) % model.n_items, some.items).astype(np.int32)
        times = None if some.times is None else some.times + np.where(late, 1e6, 0.0)
        changed = Sequences(items, some.starts, some.users, times)
        early = np.flatnonzero(~late | np.isin(np.arange(len(late)), cut))
        before, after = (torch.cat([s for _, s in model.prefix_scores(sequences, early)]) for sequences in (some, changed))
        close(after, before)

    # -- whom it must serve ------------------------------------------------------------------------------------------------

    def test_empty_history_gets_scores(self, variant):
        model = self.in_target(variant)
        some = Sequences.of([[], [0, 1], []])
        scores = model.scores(some)
        assert scores.shape == (3, model.n_items)
        assert self.scored(scores, some)
        close(scores[:1], scores[2:])
        close(model.scores(Sequences.of([[]])), scores[:1])
        assert model.scores(Sequences.of([])).shape == (0, model.n_items)

    def test_unseen_users_and_items_get_scores(self, variant):
        """Users whose codes no table holds, and items that nobody has taken."""
        model = self.in_target(variant)
        everything = Sequences(np.arange(model.n_items, dtype=np.int32), np.array([0, model.n_items]), np.array([10**6], np.int32))
        scores = model.scores(everything)
        assert scores.shape == (1, model.n_items)
        assert self.scored(scores, everything)
        if not model.zero_shot:  # fitted without the newest items, it must still score them
            train = world().split.train
            thin = train.where(train.interactions[Columns.ITEM].to_numpy() < model.n_items - 5)
            newest = Sequences.of([[model.n_items - 1]])
            assert self.scored(self.variants[variant](0, "cpu").fit(thin).scores(newest), newest)

    def test_transfer_reads_item_vectors_alone_and_leaves_the_model_as_it_was(self, variant):
        model, target, some = self.at_home(variant), world().target, histories()
        if not model.zero_shot:
            with pytest.raises(DataError, match=target.name):
                model.transfer(target)
            return
        at_home = world().source.sequences().take(np.arange(20))
        before = model.scores(at_home)
        drawn = np.random.default_rng(0).integers(target.n_items // 2, size=len(target))  # in reversed order alone, all would be as popular as before
        history = target.interactions.assign(**{Columns.ITEM: drawn})
        other = Dataset(target.name, history, target.items, target.users, target.clock, target.features)
        assert torch.equal(model.transfer(other).scores(some), self.in_target(variant).scores(some))
        assert torch.equal(model.scores(at_home), before)
        assert model.n_items == world().source.n_items
        bare = Dataset(target.name, target.interactions, target.items, target.users)
        if self.reads_features:
            with pytest.raises(DataError, match="with_features"):
                model.transfer(bare)
        else:
            model.transfer(bare)

    def test_a_new_order_of_the_catalogue_reorders_the_scores(self, variant):
        """A zero-shot model knows no item by its code."""
        model, target = self.at_home(variant), world().target
        if not (self.reads_features and model.zero_shot):
            pytest.skip("this model knows items by their codes")
        order = np.random.default_rng(0).permutation(target.n_items)
        code = np.argsort(order).astype(np.int32)
        items = target.items.iloc[order].reset_index(drop=True)
        moved = Dataset(target.name, target.interactions, items, target.users, target.clock, target.features[order])
        some = histories()
        renamed = Sequences(code[some.items], some.starts, some.users, some.times)
        close(model.transfer(moved).scores(renamed), self.in_target(variant).scores(some)[:, torch.as_tensor(order)], 1e-4)

    # -- keeping and repeating ---------------------------------------------------------------------------------------------

    def test_save_and_load_give_equal_scores(self, variant, tmp_path):
        for model, some in ((self.in_target(variant), histories()), (self.at_home(variant), Sequences.of([[], [1, 2, 3], [5]]))):
            model.save(tmp_path / "model.safetensors")
            loaded = self.variants[variant](1, "cpu").load(tmp_path / "model.safetensors")
            assert loaded.n_items == model.n_items
            assert torch.equal(loaded.scores(some), model.scores(some))

    def test_the_seed_repeats_exactly(self, variant):
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002 - neither global state may matter
        again = self.in_target(variant, fit=1)
        assert torch.equal(again.scores(histories()), self.in_target(variant).scores(histories()))

    @pytest.mark.gpu
    def test_cpu_equals_gpu(self, variant, tmp_path, monkeypatch):
        """Equal weights give scores equal to 1e-4 of the largest in float32 proper; and what the GPU learns by itself is as good."""
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
        model, some = self.in_target(variant), histories()
        model.save(tmp_path / "model.safetensors")
        close(self.variants[variant](0, "cuda").load(tmp_path / "model.safetensors").scores(some), model.scores(some), 1e-4)
        assert ndcg(self.in_target(variant, device="cuda")) == pytest.approx(ndcg(model), rel=0.1)
