"""LLAE: its solution against the gradient of its objective, and what it does to a click model."""

from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch

from zsrbook.data.clicks import TEST, TRAIN, VALID
from zsrbook.data.dataset import DataError
from zsrbook.data.toy import ToySettings, ToyWorld
from zsrbook.models import llae
from zsrbook.models.dmr import DMR, DMRSettings
from zsrbook.models.llae import LLAE, LLAESettings, beyond, solve
from zsrbook.models.ranking import BaseDNN, Emblr, RankingModel, RankingSettings, batch_of
from zsrbook.training import Training

K, D, N = 7, 4, 30
SETTINGS = LLAESettings(low_rank=5.0, corruption=0.2)


def drawn(k=K, d=D, n=N):
    """(k, n) and (d, n) noise: attributes, and behaviours that have nothing to do with them."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(k, n)), rng.normal(size=(d, n))


def gram_of(s, x):
    return np.concatenate([s, x]) @ np.concatenate([s, x]).T


def objective(w, u, s, x, reconstruct, settings=SETTINGS):
    """The objective as it is written, the expectation summed over every way to corrupt a column."""
    d, chance = len(x), settings.corruption
    total = (x - w.T @ s).square().sum() + settings.low_rank * (w.T @ u @ w).trace()
    for kept in product((0.0, 1.0), repeat=d):
        share = np.prod([1 - chance if keep else chance for keep in kept])
        total = total + reconstruct * share * (w @ (torch.tensor(kept, dtype=torch.double)[:, None] * x) - s).square().sum()
    return total


@pytest.mark.parametrize(("reconstruct", "rank"), [(0.3, 2), (4.0, 1), (0.01, 4)])
def test_the_gradient_of_the_objective_vanishes_at_the_solution(reconstruct, rank):
    s, x = drawn()
    u = beyond(solve(gram_of(s, x), D, reconstruct, rank, replace(SETTINGS, rounds=4)), rank)
    w = torch.tensor(solve(gram_of(s, x), D, reconstruct, rank, SETTINGS), requires_grad=True)
    at = partial(objective, u=torch.tensor(u), s=torch.tensor(s), x=torch.tensor(x), reconstruct=reconstruct)
    (gradient,) = torch.autograd.grad(at(w), w)
    zero = torch.zeros_like(w, requires_grad=True)
    (elsewhere,) = torch.autograd.grad(at(zero), zero)
    assert gradient.norm() < 1e-6 * elsewhere.norm()
    (gradient,) = torch.autograd.grad(at(w, u=torch.zeros(K, K, dtype=torch.double)), w)
    assert rank == D or gradient.norm() > 1e-3 * elsewhere.norm()  # the term that stands for the rank is part of it


def test_what_lies_beyond_the_rank_is_a_projection():
    w = drawn()[0] @ drawn()[1].T  # (K, D)
    u = beyond(w, 2)
    np.testing.assert_allclose(u @ u, u, atol=1e-12)
    assert np.trace(u) == pytest.approx(K - 2)
    singular = np.linalg.svd(w, compute_uv=False)
    assert np.trace(w.T @ u @ w) == pytest.approx((singular[2:] ** 2).sum())
    np.testing.assert_allclose(beyond(w, 50) @ w, 0, atol=1e-10)


def test_the_surrogate_pushes_down_the_singular_values_beyond_the_rank():
    s, x = drawn(k=12, d=8, n=200)
    found = {beta: np.linalg.svd(solve(gram_of(s, x), 8, 0.1, 3, LLAESettings(low_rank=beta)), compute_uv=False) for beta in (0.0, 1e3, 1e6)}
    for weak, strong in ((0.0, 1e3), (1e3, 1e6)):
        assert (found[strong][3:] < 0.5 * found[weak][3:]).all()
    assert (found[1e6][3:] < 1e-3 * found[1e6][2]).all()
    assert (found[1e6][:3] > 0.5 * found[0.0][:3]).all()  # and leaves the others be


def test_behaviours_of_a_linear_world_are_recovered():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(12, 3)) @ rng.normal(size=(3, 8))
    s, noise = drawn(k=12, d=8, n=3000)
    w = solve(gram_of(s, truth.T @ s + 0.3 * noise), 8, 1e-6, 3)
    unseen = rng.normal(size=(12, 500))
    assert np.linalg.norm((w - truth).T @ unseen) < 0.02 * np.linalg.norm(truth.T @ unseen)


@pytest.fixture(scope="module")
def data():
    return ToyWorld(ToySettings(users=(400, 60, 60), items=(40, 30, 30))).clicks("grocery", 6_000).made_new(0.4)


@pytest.fixture(scope="module")
def base(data):
    training = Training(epochs=3, optimizer="adam", learning_rate=1e-2, clip=None, patience=None)
    return RankingModel(Emblr, RankingSettings(width=8, batch=256, training=training)).fit(data)


@pytest.fixture(scope="module")
def model(data, base):
    return LLAE(base, LLAESettings(reconstruct=(0.01, 1.0), ranks=(2, 8))).fit(data)


def plain_pairs(data, base, rows, form):
    """S and X, impression by impression, from the table of embeddings alone."""
    table = base.network.fields.table.weight.detach().numpy().astype(np.float64)
    starts = dict(zip(data.vocabularies, np.cumsum([0, *data.vocabularies.values()]), strict=False))
    s, x = [], []
    for row in rows:
        codes = list(zip(data.layout.user, data.users[data.user[row]], strict=True))
        if form == "one-hot":
            parts = [np.eye(data.vocabularies[name])[code] for name, code in codes[1:]]
        else:
            parts = [table[starts[name] + code] for name, code in codes[0 if form == "embedded" else 1 :]]
        s.append(np.concatenate(parts))
        begin, end = data.windows[row]
        *ids, last = data.layout.behaviour
        x.append(
            sum(
                sum(table[starts[name] + code] for name, code in zip(ids, b, strict=False)) * table[starts[last] + b[-1]]
                for b in data.behaviours[begin:end]
            )
        )
    return np.array(s).T, np.array(x).T


@pytest.mark.parametrize("form", ["embedded", "profile", "one-hot"])
def test_sums_in_pieces_are_those_of_the_whole(data, base, form, monkeypatch):
    sizes = []

    def pieces(rows, size, cut=llae.in_batches):
        found = list(cut(rows, 97))
        sizes.append(len(found))
        return iter(found)

    monkeypatch.setattr(llae, "in_batches", pieces)
    settings = LLAESettings(attributes=form, reconstruct=(0.1,), ranks=(4,))
    found = LLAE(base, settings).fit(data).network.weight
    assert sizes[0] > 10
    rows = data.rows(TRAIN, "old")
    whole = solve(gram_of(*plain_pairs(data, base, rows, form)), 8, 0.1, 4, settings)
    np.testing.assert_allclose(found.numpy(), whole, rtol=1e-3, atol=1e-5 * np.abs(whole).max())


def test_who_has_no_behaviour_is_scored_with_a_predicted_one(data, base, model):
    rows = np.concatenate([data.rows(TEST, "new")[:40], data.rows(TRAIN, "bare")[:40]])
    batch = batch_of(data, rows, torch.device("cpu"))
    assert batch.new.all()
    with torch.no_grad():
        x = base.network.fields(batch)
        made = x.a.flatten(1) @ model.network.weight
        groups = [made, x.a.sum(1), x.c.sum(1), x.t.sum(1)]
        expected = base.network.tower.out(torch.cat(groups, dim=1)).squeeze(1)
    np.testing.assert_allclose(model.scores(data, rows), expected.numpy(), rtol=1e-5, atol=1e-6)
    assert np.abs(model.scores(data, rows) - base.scores(data, rows)).max() > 1e-3


def test_over_emblr_all_impressions_of_a_new_user_move_by_one_amount(data, base, model):
    rows = data.rows(TEST, "new")
    moved = model.scores(data, rows) - base.scores(data, rows)
    _, first, user = np.unique(data.user[rows], return_index=True, return_inverse=True)
    np.testing.assert_allclose(moved, moved[first][user], atol=1e-5)
    assert moved.std() > 1e-4


def test_scores_of_old_users_are_exactly_those_of_the_base(data, base, model):
    rows = data.rows(TEST)
    old = data.group[rows] == 1
    mine, theirs = model.scores(data, rows), base.scores(data, rows)
    assert 0 < old.sum() < len(rows)
    np.testing.assert_array_equal(mine[old], theirs[old])
    assert mine.dtype == np.float32


def test_settings_are_chosen_by_old_users_alone(data, base, model):
    best = min(model.tried, key=lambda row: row["valid"])
    assert len(model.tried) == 4
    assert len({row["valid"] for row in model.tried}) > 1
    rows = data.rows(VALID, "old")
    assert model.loss(replace(data, new=np.ones_like(data.new)), rows) == best["valid"]
    others = replace(data, click=np.where(data.new[data.user], 1 - data.click, data.click).astype(np.int8))
    again = LLAE(base, model.linear).fit(others)
    assert again.tried == model.tried
    assert torch.equal(again.network.weight, model.network.weight)


def test_it_stands_on_any_tower_that_reads_sums_and_on_no_other(data, base):
    one = LLAESettings(reconstruct=(0.1,), ranks=(4,))
    small = RankingSettings(width=8, training=replace(base.settings.training, epochs=1))
    deep = LLAE(RankingModel(partial(BaseDNN, hidden=(8, 4)), small), one).fit(data)  # fits the base too
    assert np.isfinite(deep.scores(data, data.rows(TEST))).all()
    with pytest.raises(ValueError, match="DMR reads more of them; use Emblr"):
        LLAE(RankingModel(partial(DMR, settings=DMRSettings(hidden=(8,), negatives=5)), small), one).fit(data)


def test_what_can_not_be_learned_from_is_refused(data, base):
    with pytest.raises(DataError, match="no training impression of an old user comes after a behaviour"):
        LLAE(base).fit(replace(data, new=np.ones_like(data.new)))
    early = data.subset(data.fold != VALID)
    with pytest.raises(DataError, match="no validation impression of an old user to choose among 16 settings by"):
        LLAE(base).fit(early)
    model = LLAE(base, LLAESettings(reconstruct=(0.1,), ranks=(4,))).fit(early)
    assert len(model.tried) == 1
    with pytest.raises(DataError, match=r"hour \(26 codes\).*, but the model was fitted on data with .*hour \(25"):
        model.scores(replace(data, vocabularies=data.vocabularies | {"hour": 26}), data.rows(TEST))
    with pytest.raises(ValueError, match="each above 0"):
        LLAESettings(reconstruct=(0.0,))
    with pytest.raises(ValueError, match="each 1 or above"):
        LLAESettings(ranks=())
    with pytest.raises(ValueError, match="'hot'; expected one of embedded, profile, one-hot"):
        LLAESettings(attributes="hot")
