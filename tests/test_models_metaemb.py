"""MetaEmb: its meta gradient against finite differences, its inner step by hand, and whom it touches."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from zsrbook.data.clicks import TEST, TRAIN, VALID
from zsrbook.data.dataset import DataError
from zsrbook.data.toy import ToySettings, ToyWorld
from zsrbook.models.metaemb import MetaEmb, MetaEmbSettings, MetaNetwork, tasks
from zsrbook.models.ranking import BaseDNN, RankingModel, RankingSettings, batch_of
from zsrbook.training import Training

RATE = 30.0
CPU = torch.device("cpu")
TRAINING = Training(epochs=2, optimizer="adam", learning_rate=3e-3, clip=None, patience=None)
SETTINGS = MetaEmbSettings(rate=0.5, samples=4, users=32, training=TRAINING)


@pytest.fixture(scope="module")
def data():
    return ToyWorld(ToySettings(users=(300, 60, 60), items=(40, 30, 30))).clicks("grocery", 4_000).made_new(0.4)


@pytest.fixture(scope="module")
def base(data):
    return RankingModel(partial(BaseDNN, hidden=(16, 8), dropout=0.2), RankingSettings(width=8, spread=0.3, training=TRAINING)).fit(data)


@pytest.fixture(scope="module")
def model(data, base):
    return MetaEmb(base, SETTINGS).fit(data)


@pytest.fixture
def network(base, data):
    """In float64, with a generator far from zero and a long inner step, so that both are felt, on a copy of the base."""
    copied = RankingModel(base.make_tower, base.settings)
    copied.build(data)
    copied.network.load_state_dict(base.network.state_dict())
    torch.manual_seed(1)
    network = MetaNetwork(copied.frozen(data).double(), replace(SETTINGS, rate=RATE)).double()
    torch.nn.init.normal_(network.generator.weight, std=0.5)
    return network


@pytest.fixture
def task(data):
    """The first step of an epoch, of few users, in float64."""
    found = next(tasks(data, data, replace(SETTINGS, users=5), np.random.default_rng(0), CPU))
    return found._replace(a=found.a._replace(click=found.a.click.double()), b=found.b._replace(click=found.b.click.double()))


def log_loss(network, batch, row, phi):
    """Of one impression, with φ for the id, through the base's own forward pass."""
    x = network.fields(batch)
    a = x.a.clone()
    a[row, 0] = phi
    z = network.base.tower(x._replace(a=a))[row]
    return float(torch.nn.functional.softplus(-z if batch.click[row] else z))


def mean_loss(network, batch, who, user, phi):
    return np.mean([log_loss(network, batch, row, phi) for row in np.flatnonzero(who.numpy() == user)])


def test_the_inner_step_is_the_one_computed_by_hand(network, task):
    with torch.no_grad():
        x = network.fields(task.a)
        expected = []
        for user, first in enumerate(task.first.tolist()):
            profile = x.a[first, 1:].flatten().numpy()
            phi = torch.as_tensor(np.tanh(network.generator.weight.numpy() @ profile))
            before = mean_loss(network, task.a, task.who, user, phi)
            slope, h = np.zeros(len(phi)), 1e-6
            for i in range(len(phi)):
                step = torch.zeros_like(phi)
                step[i] = h
                slope[i] = (mean_loss(network, task.a, task.who, user, phi + step) - mean_loss(network, task.a, task.who, user, phi - step)) / (2 * h)
            after = mean_loss(network, task.b, task.who, user, phi - RATE * torch.as_tensor(slope))
            expected.append(0.1 * before + 0.9 * after)
            assert after != pytest.approx(mean_loss(network, task.b, task.who, user, phi), rel=1e-4)  # the step is felt
    np.testing.assert_allclose(network.meta_losses(task).detach().numpy(), expected, rtol=1e-6)


def test_the_meta_gradient_is_that_of_finite_differences(network, task):
    loss, count = network(task)
    assert count == 5
    (gradient,) = torch.autograd.grad(loss, network.generator.weight)
    rng, weight = np.random.default_rng(0), network.generator.weight.data
    for _ in range(12):
        i, j, h = rng.integers(len(weight)), rng.integers(weight.shape[1]), 1e-5
        kept, sides = weight[i, j].item(), []
        for value in (kept + h, kept - h):
            weight[i, j] = value
            sides.append(float(network(task)[0].detach()))
        weight[i, j] = kept
        assert float(gradient[i, j]) == pytest.approx((sides[0] - sides[1]) / (2 * h), rel=1e-5, abs=1e-8)


def test_the_second_order_is_in_the_gradient(network, task):
    """The gradient without it, φ' taken for φ plus a constant, is another one."""
    (gradient,) = torch.autograd.grad(network.meta_losses(task).sum(), network.generator.weight)
    a, b = network.fields(task.a), network.fields(task.b)
    phi = network.generated(type(a)(*(part[task.first] for part in a)))
    before = network.losses(phi, a, task.a.click, task.who)
    (slope,) = torch.autograd.grad(before.sum(), phi, retain_graph=True)
    after = network.losses(phi - RATE * slope, b, task.b.click, task.who)
    (first_order,) = torch.autograd.grad((0.1 * before + 0.9 * after).sum(), network.generator.weight)
    assert (gradient - first_order).norm() > 0.01 * gradient.norm()


def test_the_draws_of_a_user_are_disjoint_equal_in_number_and_of_that_user(data):
    rows = data.rows(TRAIN)
    count = np.bincount(data.user[rows], minlength=len(data.users))
    met = []
    for task in tasks(data, data, SETTINGS, np.random.default_rng(0), CPU):
        ids = task.a.user[:, 0]
        assert (ids == task.b.user[:, 0]).all()
        users = ids[task.first].numpy() - 1  # the toy's codes
        met.extend(users)
        assert (ids.numpy() - 1 == users[task.who.numpy()]).all()
        assert (np.bincount(task.who) == np.minimum(4, count[users] // 2)).all()
    assert not data.new[met].any()
    assert sorted(met) == np.flatnonzero(~data.new & (count >= 2)).tolist()
    marked = replace(data, context=np.column_stack([np.arange(len(data)), data.context[:, 1]]), vocabularies={**data.vocabularies, "hour": len(data)})
    for task in tasks(marked, marked, SETTINGS, np.random.default_rng(0), CPU):
        drawn = torch.cat([task.a.context[:, 0], task.b.context[:, 0]])
        assert len(drawn.unique()) == len(drawn)  # no impression twice
        assert (data.fold[drawn.numpy()] == TRAIN).all()


def test_scores_of_old_users_are_exactly_those_of_the_base(data, base, model):
    rows = data.rows(TEST)
    old = data.group[rows] == 1
    assert 0 < old.sum() < len(rows)
    mine, theirs = model.scores(data, rows), base.scores(data, rows)
    np.testing.assert_array_equal(mine[old], theirs[old])
    assert mine.dtype == np.float32
    assert (mine[~old] != theirs[~old]).all()


def test_scores_of_new_users_do_not_read_their_own_row(data, model):
    rows = data.rows(TEST, "new")
    shuffled = data.users.copy()
    shuffled[data.new, 0] = np.random.default_rng(0).permutation(shuffled[data.new, 0])
    np.testing.assert_array_equal(model.scores(replace(data, users=shuffled), rows), model.scores(data, rows))
    other = data.users.copy()
    other[data.new, 1] = 0
    assert (model.scores(replace(data, users=other), rows) != model.scores(data, rows)).any()


def test_the_score_of_a_new_user_is_that_of_the_base_with_the_generated_row(data, base, model):
    batch = batch_of(data, data.rows(TEST, "new")[:50], CPU)
    with torch.no_grad():
        x = base.network.fields(batch)
        x.a[:, 0] = torch.tanh(x.a[:, 1:].flatten(1) @ model.network.generator.weight.T)
        expected = base.network.tower(x)
    torch.testing.assert_close(model.network.log_odds(batch), expected)


def test_the_base_stays_as_it_was_and_a_seed_repeats(data, base, model):
    before = {name: value.clone() for name, value in base.network.state_dict().items()}
    again, other = (MetaEmb(base, replace(SETTINGS, training=replace(TRAINING, seed=seed))).fit(data) for seed in (0, 1))
    for name, value in base.network.state_dict().items():
        assert torch.equal(value, before[name]), name
    rows = data.rows(TEST)
    np.testing.assert_array_equal(again.scores(data, rows), model.scores(data, rows))
    assert (other.scores(data, rows) != model.scores(data, rows)).any()


def test_it_learns_to_serve_users_taken_for_new(data, base):
    hidden, rows = replace(data, new=np.ones_like(data.new)), data.rows(VALID, "old")
    model = MetaEmb(base, replace(SETTINGS, training=replace(TRAINING, epochs=0))).fit(data)
    unlearned = model.loss(hidden, rows)
    model = MetaEmb(base, replace(SETTINGS, training=replace(TRAINING, epochs=6, patience=6))).fit(data)
    assert model.loss(hidden, rows) < unlearned
    assert model.curve[-1]["train"] < model.curve[0]["train"]


def test_it_fits_the_base_where_it_is_not_fitted_yet(data, base, model):
    whole = MetaEmb(RankingModel(base.make_tower, base.settings), SETTINGS).fit(data)
    np.testing.assert_array_equal(whole.scores(data, data.rows(TEST)), model.scores(data, data.rows(TEST)))


def test_several_processes_are_refused_by_base_and_generator(data, base, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"clicks on .*: 2 processes were started"):
        RankingModel(base.make_tower, base.settings).fit(data)
    with pytest.raises(ValueError, match=r"ids of .*: 2 processes were started"):
        MetaEmb(base, SETTINGS).fit(data)


def test_users_of_no_impression_do_not_teach():
    with pytest.raises(ValueError, match="fewest is 0 and samples 20; expected 1 or more of both"):
        MetaEmbSettings(fewest=0)


def test_what_can_not_be_learned_from_is_refused(data, base):
    with pytest.raises(DataError, match=r"none of 180 old users has 200 training impressions"):
        MetaEmb(base, replace(SETTINGS, fewest=100)).fit(data)
    bare = replace(data, layout=data.layout._replace(user=("user",)), users=data.users[:, :1])
    with pytest.raises(DataError, match="no field but 'user'"):
        MetaEmb(base, SETTINGS).fit(bare)
    sizes, taught = dict(data.vocabularies), MetaEmb(base, SETTINGS).fit(data)
    for other in ({**sizes, "hour": 99}, {**sizes, "hour": sizes["hour"] + 1, "weekday": sizes["weekday"] - 1}, dict(reversed(sizes.items()))):
        coded_anew = replace(data, vocabularies=other, context=np.minimum(data.context, 1))
        said = rf"the vocabularies .*hour \({other['hour']} codes\).*, but the model was fitted on data with .*hour \(25"
        with pytest.raises(DataError, match=said):
            MetaEmb(base, SETTINGS).fit(coded_anew)
        with pytest.raises(DataError, match=said):
            taught.scores(coded_anew, data.rows(TEST))
    swapped = replace(data, layout=data.layout._replace(context=("weekday", "hour")), context=data.context[:, ::-1])
    with pytest.raises(DataError, match="the context fields weekday, hour, but the model was fitted on data with hour, weekday; fit it on"):
        MetaEmb(base, SETTINGS).fit(swapped)
