"""ZESRec against plain readings of its equations, its batches, and the offsets of the hierarchical version."""

import copy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_models_sequence import array, plain_gru, plain_hrnn, plain_tcn, shaken
from torch.nn import functional as F

from zsrbook.data.dataset import Columns, DataError, Dataset, Sequences
from zsrbook.data.splits import Fold
from zsrbook.models import zesrec
from zsrbook.models.zesrec import ItemText, ZESRec, ZESRecSettings, batches_of, by_length, in_pieces, padded
from zsrbook.training import Training

CPU = torch.device("cpu")
TEXT_WIDTH, N_ITEMS = 6, 7
QUICK = Training(epochs=2, optimizer="adam", learning_rate=0.01, patience=None, device="cpu")
SMALL = ZESRecSettings(width=4, hidden=5, dropout=0.0, training=QUICK)

histories_of_items = st.lists(st.lists(st.integers(0, N_ITEMS - 1), min_size=1, max_size=12), min_size=1, max_size=15)


def dataset(seed=0, users=12, clock=True, n_items=N_ITEMS) -> Dataset:
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), rng.integers(1, 9, users))
    item = rng.integers(n_items, size=len(user))
    time = 1e9 + rng.exponential(90_000, len(user)).cumsum()
    interactions = pd.DataFrame({Columns.USER: user.astype(str), Columns.ITEM: item.astype(str), Columns.TIME: time})
    items = pd.DataFrame({Columns.RAW: [str(i) for i in range(n_items)], Columns.TEXT: ""})
    return Dataset.from_raw(f"tiny-{seed}", interactions, items, clock=clock).with_features(rng.normal(size=(n_items, TEXT_WIDTH)))


def built(data: Dataset, choice: ZESRecSettings = SMALL, **more) -> ZESRec:
    """A model with all weights away from zero, not trained."""
    model = ZESRec(replace(choice, **more))
    popularity = torch.full((data.n_items,), -np.log(data.n_items), dtype=torch.float32)
    model.build(data.n_items, torch.as_tensor(data.features) if model.zero_shot else None, popularity, len(data))
    torch.manual_seed(1)
    shaken(model.network)
    return model


def plain_item_vectors(model: ZESRec, data: Dataset) -> np.ndarray:
    """Eq. 4."""
    if not model.zero_shot:
        return array(model.network.items.table.weight)
    first, _, second = model.network.items.mlp
    hidden = data.features.astype(np.float64) @ array(first.weight).T + array(first.bias)
    if model.settings.nonlinearity == "relu":
        hidden = np.maximum(hidden, 0)
    return hidden @ array(second.weight).T + array(second.bias)


def plain_user_vectors(model: ZESRec, z: np.ndarray, items: np.ndarray, times: np.ndarray | None) -> np.ndarray:
    """Eq. 5 with a learned start vector: (n + 1, d)."""
    inputs = np.concatenate([array(model.network.start)[None], z[items]])
    network = model.network.users
    if model.settings.users == "tcn":
        return plain_tcn(network, inputs)
    if model.settings.users == "hrnn":
        return plain_hrnn(network, inputs, times)
    return plain_gru(network.cells, inputs)


def plain_loss(model: ZESRec, data: Dataset) -> float:
    """Eq. 2, with the sign of a loss: over all users and all positions, one at a time."""
    z, total, sequences = plain_item_vectors(model, data), 0.0, data.sequences()
    for begin, end in zip(sequences.starts[:-1], sequences.starts[1:], strict=True):
        items = sequences.items[begin:end]
        u = plain_user_vectors(model, z, items, None if sequences.times is None else sequences.times[begin:end])
        for k, target in enumerate(items):
            scores = z @ u[k]
            total -= scores[target] - np.log(np.exp(scores).sum())
    return total


every_network = pytest.mark.parametrize(("users", "items"), [(u, i) for u in ("gru", "tcn", "hrnn") for i in ("text", "ids")])


# -- the equations -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nonlinearity", ["relu", "none"])
def test_item_vectors_are_equation_4(nonlinearity):
    data = dataset()
    model = built(data, nonlinearity=nonlinearity)
    np.testing.assert_allclose(array(model.item_vectors()), plain_item_vectors(model, data), rtol=1e-5, atol=1e-5)


def test_layers_that_begin_orthogonal_keep_angles():
    vectors = torch.randn(9, 8, generator=torch.Generator().manual_seed(0))
    network = ItemText(vectors, ZESRecSettings(width=20, hidden=16, nonlinearity="none", orthogonal=True))
    torch.testing.assert_close(network() @ network().T, vectors @ vectors.T)


@pytest.mark.parametrize("way", ["standardise", "centre"])
def test_text_vectors_are_standardised_or_centred_by_the_statistics_of_the_source(way):
    source, target = dataset(0), dataset(1, n_items=9)
    model = built(source, **{way: True})
    mean, spread = source.features.mean(0), source.features.std(0, ddof=1) if way == "standardise" else 1.0
    scaled = target.with_features((target.features - mean) / spread)
    np.testing.assert_allclose(array(model.transfer(target).item_vectors()), plain_item_vectors(model, scaled), rtol=1e-4, atol=1e-5)


@every_network
def test_scores_are_equation_3(users, items):
    data = dataset()
    model = built(data, users=users, items=items)
    sequences, z = data.sequences(), plain_item_vectors(model, data)
    expected = [
        z @ plain_user_vectors(model, z, sequences.items[begin:end], sequences.times[begin:end])[-1]
        for begin, end in zip(sequences.starts[:-1], sequences.starts[1:], strict=True)
    ]
    np.testing.assert_allclose(array(model.scores(sequences)), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@every_network
@pytest.mark.parametrize("clock", [True, False])
def test_the_loss_is_equation_2(users, items, clock):
    data = dataset(clock=clock)
    model = built(data, users=users, items=items)
    batch = padded(data.sequences(), np.arange(data.n_users), CPU)
    loss, count = model.network(batch)
    assert count == len(data)
    assert loss.item() == pytest.approx(plain_loss(model, data), rel=1e-5)
    everything = Fold(data, np.ones(len(data), bool))
    assert model.loss(everything) == pytest.approx(plain_loss(model, data) / len(data), rel=1e-5)


def test_the_validation_loss_counts_the_targets_of_the_fold_alone():
    data = dataset()
    model = built(data)
    targets = data.sequences().positions >= 2
    scores = model.scores(data.sequences().prefixes(np.flatnonzero(targets)))
    expected = F.cross_entropy(scores, torch.as_tensor(data.sequences().items[targets], dtype=torch.int64))
    assert model.loss(Fold(data, targets)) == pytest.approx(float(expected), rel=1e-5)


@every_network
def test_a_batch_costs_what_its_histories_cost_alone(users, items):
    """Value and gradient: padding teaches nothing."""
    data = dataset()
    model = built(data, users=users, items=items)

    def gradient(groups):
        model.network.zero_grad()
        losses = [model.network(padded(data.sequences(), np.array(rows), CPU))[0] for rows in groups]
        torch.stack(losses).sum().backward()
        return torch.cat([p.grad.flatten() for p in model.network.parameters() if p.grad is not None])

    alone, together = gradient([[r] for r in range(data.n_users)]), gradient([range(data.n_users)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5 * float(alone.abs().max()))


def test_an_empty_part_of_a_batch_costs_nothing():
    data = dataset()
    loss, count = built(data).network(padded(data.sequences(), np.zeros(0, np.int64), CPU))
    assert (float(loss.detach()), count) == (0.0, 0)
    loss.backward()


def test_a_large_catalogue_in_pieces_has_the_same_vectors_and_gradients():
    features = torch.randn(2 * 16_384 + 5, 3)
    items = ItemText(features, SMALL)
    weight = torch.randn(len(features), SMALL.width)

    def gradient(vectors):
        items.zero_grad()
        (vectors * weight).sum().backward()
        return [p.grad.clone() for p in items.parameters()]

    torch.testing.assert_close(items(), items.mlp(features))
    for got, expected in zip(gradient(items()), gradient(items.mlp(features)), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


# -- the sampled softmax, as the network uses it -------------------------------------------------------------------------------


@pytest.mark.parametrize("items", ["text", "ids"])
def test_with_many_negatives_the_sampled_loss_is_the_full_one(items):
    data = dataset()
    full, sampled = (built(data, items=items, sampled_above=above, negatives=50_000) for above in (10**9, 0))
    batch = padded(data.sequences(), np.arange(data.n_users), CPU)
    torch.manual_seed(0)
    losses = [model.network(batch)[0] for model in (full, sampled)]
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.01)
    for loss in losses:
        loss.backward()
    for (name, expected), got in zip(full.network.named_parameters(), sampled.network.parameters(), strict=True):
        assert float((got.grad - expected.grad).norm() / expected.grad.norm()) < 0.05, name


def test_the_sample_is_drawn_by_smoothed_popularity(monkeypatch):
    data, seen = dataset(), []
    monkeypatch.setattr(zesrec, "sampled_softmax_loss", lambda u, z, t, n, expected: seen.append(expected) or (u.sum() + z.sum()))
    ZESRec(replace(SMALL, sampled_above=0, negatives=3000)).fit(data)
    counts = np.bincount(data.interactions[Columns.ITEM], minlength=data.n_items) + 1
    expected = np.unique((3000 * counts / counts.sum()).round(2))
    np.testing.assert_allclose(np.unique(torch.cat(seen).exp().numpy().round(2)), expected, rtol=1e-3)


# -- the hierarchical version --------------------------------------------------------------------------------------------------


def test_user_offset_gives_the_gradient_of_the_minimum():
    """Brute force: minimise over every offset in float64, and differentiate that minimum by finite differences."""
    data, strength = dataset(users=4), 40.0
    model = built(data, items="ids", user_offset=strength)
    sequences = data.sequences()
    batch = padded(sequences, np.arange(len(sequences)), CPU)
    valid = torch.arange(batch.items.shape[1]) < batch.lengths[:, None]

    def minimum(network) -> float:
        with torch.no_grad():
            z = network.items()
            u = network.user_vectors(z[batch.items[:, :-1]], None)[valid]
        offset = torch.zeros_like(u, requires_grad=True)
        optimizer = torch.optim.LBFGS([offset], max_iter=200, tolerance_grad=1e-13, tolerance_change=1e-15, line_search_fn="strong_wolfe")

        def objective():
            optimizer.zero_grad()
            value = F.cross_entropy((u + offset) @ z.T, batch.items[valid], reduction="sum") + 0.5 * strength * offset.square().sum()
            value.backward()
            return value

        optimizer.step(objective)
        return float(objective().detach())

    def gradients(network):
        network.zero_grad()
        network(batch)[0].backward()
        return {name: p.grad for name, p in network.named_parameters()}

    with_offset = gradients(model.network)
    model.network.settings = replace(model.settings, user_offset=None)
    without = gradients(model.network)
    exact = copy.deepcopy(model.network).double()
    for name in ("start", "items.table.weight"):
        parameter, numeric = dict(exact.named_parameters())[name], []
        for i in range(parameter.numel()):
            flat, values = parameter.data.view(-1), []
            for step in (1e-5, -1e-5):
                flat[i] += step
                values.append(minimum(exact))
                flat[i] -= step
            numeric.append((values[0] - values[1]) / 2e-5)
        numeric = torch.tensor(numeric).view_as(parameter)
        error, distance = float((with_offset[name] - numeric).norm()), float((without[name] - numeric).norm())
        assert distance > 0.01 * float(numeric.norm()), "the offset must matter for the comparison to say anything"
        assert error < 0.15 * distance, name


def test_user_offset_vanishes_as_its_price_grows():
    data = dataset()
    batch = padded(data.sequences(), np.arange(data.n_users), CPU)
    plain, nearly, strongly = (built(data, user_offset=price).network(batch)[0].item() for price in (None, 1e6, 20.0))
    assert nearly == pytest.approx(plain, rel=1e-5)
    assert strongly < plain - 0.1, "the offset is there to lower the loss"


@pytest.mark.parametrize("name", ["user_offset", "item_offset"])
def test_offsets_are_dropped_where_scores_are_made(name, tmp_path):
    """At scoring, in the validation loss and in the target: there, one cannot know them."""
    data, target = dataset(), dataset(1, n_items=9)
    with_offsets = ZESRec(replace(SMALL, **{name: 0.5}, training=replace(QUICK, epochs=4, learning_rate=0.1))).fit(data)
    if name == "item_offset":
        assert with_offsets.network.items.offsets.weight.abs().max() > 0.01, "they must have been learned"
    bare = ZESRec(SMALL)
    bare.build(data.n_items, torch.as_tensor(data.features))
    bare.network.load_state_dict({k: v for k, v in with_offsets.network.state_dict().items() if "offsets" not in k})
    some, fold = data.sequences(), Fold(data, np.ones(len(data), bool))
    assert torch.equal(with_offsets.scores(some), bare.scores(some))
    assert with_offsets.loss(fold) == bare.loss(fold)
    there = Sequences.of([[8, 1], []])
    moved = with_offsets.transfer(target)
    assert torch.equal(moved.scores(there), bare.transfer(target).scores(there))
    for model, asked in ((with_offsets, some), (moved, there)):
        model.save(tmp_path / "model.safetensors")
        assert torch.equal(ZESRec(with_offsets.settings).load(tmp_path / "model.safetensors").scores(asked), model.scores(asked))


def test_item_offset_acts_in_training_and_an_epoch_pays_for_it_once():
    """MAP estimate: λ_v/2 Σ |ε|² stands beside the sum over all positions, however an epoch is cut into batches."""
    data, strength = dataset(), 3.0
    model = built(data, item_offset=strength)
    network, sequences = model.network, data.sequences()
    offsets = network.items.offsets.weight.detach()
    network.train()
    free = copy.deepcopy(model)
    free.network.settings = replace(model.settings, item_offset=0.0)
    for groups in ([range(data.n_users)], [[r] for r in range(data.n_users)]):
        batches = [padded(sequences, np.array(rows), CPU) for rows in groups]
        paid = sum(float(network(b)[0].detach()) - float(free.network(b)[0].detach()) for b in batches)
        assert paid == pytest.approx(0.5 * strength * float(offsets.square().sum()), rel=1e-3)
    torch.testing.assert_close(network.items() - network.eval().items(), offsets, rtol=1e-4, atol=1e-5)


# -- fitting -------------------------------------------------------------------------------------------------------------------


def test_moving_gives_the_network_of_the_source_over_the_vectors_of_the_target():
    source, target = dataset(0), dataset(1, n_items=9)
    model = built(source)
    moved = model.transfer(target)
    some = target.sequences()
    z = plain_item_vectors(model, target)
    expected = [z @ plain_user_vectors(model, z, some.items[b:e], None)[-1] for b, e in zip(some.starts[:-1], some.starts[1:], strict=True)]
    np.testing.assert_allclose(array(moved.scores(some)), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert (model.n_items, moved.n_items) == (source.n_items, target.n_items)


def test_text_of_another_width_is_an_error():
    model = built(dataset())
    with pytest.raises(DataError, match="tiny-1: item vectors of width 7, but ZESRec was fitted on 6"):
        model.transfer(dataset(1).with_features(np.ones((N_ITEMS, TEXT_WIDTH + 1))))


def test_a_validation_fold_without_targets_is_an_error():
    data = dataset()
    with pytest.raises(DataError, match="no targets"):
        ZESRec(SMALL).fit(data, Fold(data, np.zeros(len(data), bool)))


def test_the_loss_falls():
    data = dataset(users=40)
    model = ZESRec(replace(SMALL, training=replace(QUICK, epochs=15))).fit(data)
    losses = [row["train"] for row in model.curve]
    assert losses[0] == pytest.approx(np.log(N_ITEMS), rel=0.1), "at the start, all items are about as likely"
    assert losses[-1] < losses[0] - 0.02


@every_network
@pytest.mark.parametrize("sampled", [False, True])
def test_bfloat16_learns_as_float32_does(users, items, sampled):
    data = dataset(users=40)
    above, curves = 0 if sampled else 10**9, {}
    for precision in ("float32", "bfloat16"):
        training = replace(QUICK, epochs=6, precision=precision)
        model = ZESRec(replace(SMALL, users=users, items=items, sampled_above=above, negatives=64, user_offset=50.0, training=training)).fit(data)
        assert all(p.dtype == torch.float32 for p in model.network.parameters())
        curves[precision] = [row["train"] for row in model.curve]
    assert curves["bfloat16"] == pytest.approx(curves["float32"], rel=0.01)
    assert curves["bfloat16"] != curves["float32"]


def test_the_seed_decides_the_start_and_nothing_else_does():
    data = dataset()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    models = [ZESRec(replace(SMALL, dropout=0.3, training=replace(QUICK, seed=seed))).fit(data) for seed in (0, 0, 1)]
    weights = [torch.cat([v.flatten() for v in m.network.state_dict().values()]) for m in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    models[0].transfer(dataset(1))
    assert torch.equal(torch.get_rng_state(), before), "fitting and moving must leave the caller's random state alone"


# -- batches -------------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(histories_of_items, st.integers(1, 14))
def test_pieces_hold_every_item_once_and_in_order(histories, length):
    sequences = replace(Sequences.of(histories), times=np.arange(sum(map(len, histories)), dtype=np.float64))
    pieces = in_pieces(sequences, length)
    assert pieces.items.tolist() == sequences.items.tolist()
    assert pieces.times.tolist() == sequences.times.tolist()
    assert pieces.lengths.max() <= length
    for user, history in enumerate(histories):
        expected = [min(length, len(history) - begin) for begin in range(0, len(history), length)]
        assert pieces.lengths[pieces.users == user].tolist() == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 90), st.booleans())
def test_groups_hold_every_row_once_within_the_budget(lengths, budget, shuffle):
    lengths = np.array(lengths, dtype=np.int64)
    order = np.random.default_rng(0).permutation(len(lengths)) if shuffle else None
    groups = by_length(lengths, budget, order)
    assert sorted(np.concatenate(groups).tolist() if groups else []) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(1, lengths[group].max()) <= budget
    if not shuffle:
        assert (np.diff(lengths[np.concatenate(groups)]) >= 0).all() if groups else True
        for group, after in pairwise(groups):
            assert (len(group) + 1) * max(1, lengths[after[0]]) > budget, "a row more would have fitted"


@settings(max_examples=60, deadline=None)
@given(histories_of_items, st.integers(1, 60), st.integers(0, 5), st.integers(1, 3))
def test_an_epoch_holds_every_target_once_whatever_the_number_of_processes(histories, budget, epoch, processes):
    sequences = Sequences.of(histories)
    seen, rounds = [], []
    for rank in range(processes):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(zesrec, "Processes", lambda rank=rank: type("Alone", (), {"rank": rank, "count": processes}))
            batches = list(batches_of(sequences, budget, CPU, (0, epoch)))
        rounds.append(len(batches))
        seen += [b.items[row, :length].tolist() for b in batches for row, length in enumerate(b.lengths.tolist())]
    assert len(set(rounds)) == 1, "every process must take the same number of steps"
    assert sorted(seen) == sorted(histories)


def test_epochs_differ_and_repeat():
    sequences = dataset(users=30).sequences()
    epochs = [[b.items.tolist() for b in batches_of(sequences, 20, CPU, (0, epoch))] for epoch in (0, 1, 0)]
    assert epochs[0] == epochs[2]
    assert epochs[0] != epochs[1]


@settings(max_examples=60, deadline=None)
@given(histories_of_items, st.booleans(), st.data())
def test_padded_puts_histories_side_by_side(histories, clock, draw):
    sequences = Sequences.of(histories)
    if clock:
        sequences = replace(sequences, times=1e9 + np.arange(len(sequences.items)))
    rows = np.array(draw.draw(st.lists(st.integers(0, len(histories) - 1), max_size=5)), dtype=np.int64)
    batch = padded(sequences, rows, CPU)
    assert batch.items.dtype == torch.int64
    assert batch.items.shape == (len(rows), max((len(histories[r]) for r in rows), default=0))
    assert (batch.times is not None) == clock
    for row, (r, items) in enumerate(zip(rows, batch.items.tolist(), strict=True)):
        n = len(histories[r])
        assert batch.lengths[row] == n
        assert items == histories[r] + [0] * (len(items) - n)
        if clock:
            assert batch.times.dtype == torch.float64
            assert batch.times[row, :n].tolist() == sequences.times[sequences.starts[r] : sequences.starts[r + 1]].tolist()


@pytest.mark.parametrize("sampled_above", [1000, 0])
def test_popularity_explains_its_share_in_training_and_stays_behind(sampled_above):
    """The loss is that of z · u + γ log popularity; scores, and losses in the target, know nothing of it."""
    data, gamma, rng = dataset(), 0.7, np.random.default_rng(0)
    log_popularity = torch.as_tensor(np.log(rng.dirichlet(np.ones(data.n_items))), dtype=torch.float32)
    model = built(data, popularity=gamma, sampled_above=sampled_above, negatives=20_000)
    plain = built(data)
    model.network.log_popularity = plain.network.log_popularity = log_popularity
    batch = padded(data.sequences(), np.arange(data.n_users), CPU)
    everything = Fold(data, np.ones(len(data), bool))
    sequences = data.sequences()
    scores = plain.scores(sequences.prefixes(np.arange(len(data))))
    expected = F.cross_entropy(scores + gamma * log_popularity, torch.as_tensor(sequences.items, dtype=torch.int64)).item()
    assert model.network(batch)[0].item() / len(data) == pytest.approx(expected, rel=1e-5 if sampled_above else 0.05)
    assert model.loss(everything) == pytest.approx(expected, rel=1e-5)
    assert torch.equal(model.scores(sequences), plain.scores(sequences))
    target = dataset(1, n_items=9)
    there = Fold(target, np.ones(len(target), bool))
    assert model.transfer(target).loss(there) == plain.transfer(target).loss(there)


def test_text_dropout_acts_in_training_alone():
    data = dataset()
    model, plain = built(data, text_dropout=0.5), built(data)
    assert torch.equal(model.item_vectors(), plain.item_vectors())
    model.network.train()
    assert not torch.allclose(model.network.items(), plain.item_vectors())


def test_levels_reach_the_tcn():
    assert [len(built(dataset(), users="tcn", levels=n).network.users.blocks) for n in (1, 3)] == [1, 3]


def test_an_id_model_on_some_of_its_items_scores_them_as_before():
    model, some = built(dataset(), items="ids"), np.array([4, 0, 2])
    few = model.on_items(some)
    history, same = Sequences.of([[4, 2, 2]]), Sequences.of([[0, 2, 2]])
    torch.testing.assert_close(few.scores(same), model.scores(history)[:, some])
    assert few.n_items == 3
    assert model.n_items == N_ITEMS == model.network.items.count


def test_settings_of_unknown_words_are_refused():
    with pytest.raises(ValueError, match="ZESRec settings: users is 'lstm'; expected one of gru, tcn, hrnn"):
        ZESRecSettings(users="lstm")


@pytest.mark.parametrize("standardise", [False, True])
def test_settled_it_takes_away_what_all_items_of_the_target_share(standardise):
    source, target, histories = dataset(0), dataset(1), [[3, 1, 1], [], [6]]
    target = target.with_features(target.features + 4.0)  # all its texts lie to one side
    plain, settled = (built(source, standardise=standardise, settled=settles).transfer(target) for settles in (False, True))
    if standardise:
        plain.network.items.mean = torch.as_tensor(np.asarray(target.features, np.float32).mean(0))
    u, z = plain.user_vectors(Sequences.of(histories)), plain.item_vectors()
    after_one = torch.stack([plain.user_vectors(Sequences.of([[i]]))[1] for i in range(N_ITEMS)])
    last = [3, 4, 6]  # rows of the whole histories
    wanted = (u[last] - after_one.mean(0)) @ (z / z.norm(dim=1, keepdim=True)).T
    torch.testing.assert_close(settled.scores(Sequences.of(histories)), wanted)
    assert not torch.allclose(wanted, plain.scores(Sequences.of(histories)), atol=1e-3)


@pytest.mark.parametrize("clock", [True, False])
def test_settled_the_mean_user_has_the_clock_of_the_target(clock):
    """HRNN adds to every item of a history with times what it learned of gaps, also to a first one."""
    source, target = dataset(0), dataset(1, clock=clock)
    plain, settled = (built(source, users="hrnn", settled=settles).transfer(target) for settles in (False, True))
    histories = target.sequences()
    firsts = [Sequences(np.array([i], np.int32), np.array([0, 1]), np.zeros(1, np.int32), np.array([1e9]) if clock else None) for i in range(N_ITEMS)]
    mean = torch.stack([plain.user_vectors(one)[1] for one in firsts]).mean(0)
    torch.testing.assert_close(settled.user_vectors(histories), plain.user_vectors(histories) - mean)


def test_it_settles_in_targets_alone():
    source = dataset(0)
    plain, settled = built(source), built(source, settled=True)
    asked = Sequences.of([[3, 1], [2]])
    assert torch.equal(plain.scores(asked), settled.scores(asked))
    moved = settled.transfer(dataset(1))
    assert torch.equal(plain.scores(asked), settled.scores(asked))
    torch.testing.assert_close(moved.transfer(dataset(2)).scores(asked), settled.transfer(dataset(2)).scores(asked))
