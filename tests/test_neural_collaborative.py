"""The networks on a binary matrix against a plain NumPy reading of their equations, and on a world whose structure is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.special import expit, log_softmax
from test_collaborative import X, ndcg, toy_split

from zsrbook.models.collaborative import MostPop
from zsrbook.models.matrix import validation_ndcg
from zsrbook.models.neural_collaborative import LightGCN, LightGCNSettings, Lists, MultVAE, MultVAESettings, NeuMF, NeuMFSettings, Triples
from zsrbook.training import Training

pytestmark = pytest.mark.usefixtures("one_thread")

TRAIN = csr_array(X)
EVERYONE = np.arange(40)


def training(rate: float, epochs: int = 25, patience: int = 4) -> Training:
    return Training(epochs=epochs, optimizer="adam", learning_rate=rate, clip=None, patience=patience)


MODELS = {
    "MultVAE": (MultVAE, MultVAESettings(hidden=64, latent=16, batch=100, anneal=100, training=training(5e-3))),
    "NeuMF": (NeuMF, NeuMFSettings(width=16, layers=(32, 16), decay=1e-3, batch=512, training=training(2e-3, 13, 5))),
    "LightGCN": (LightGCN, LightGCNSettings(width=16, batch=2048, training=training(0.01))),
}


def small(name: str, epochs: int = 1, **changes):
    make, settings = MODELS[name]
    return make(replace(settings, training=replace(settings.training, epochs=epochs), **changes))


def numbers(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.double().numpy() for name, value in module.state_dict().items()}


@pytest.fixture(scope="module")
def structured():
    return toy_split()


@pytest.fixture(scope="module")
def structureless():
    return toy_split(0.0)


@pytest.mark.parametrize("name", MODELS)
def test_structure_is_learned(structured, name):
    make, settings = MODELS[name]
    popular = ndcg(MostPop().fit(structured.train), structured)
    assert ndcg(make(settings).fit(structured.train, structured.valid), structured) > 1.05 * popular


@pytest.mark.parametrize("name", MODELS)
def test_where_there_is_no_structure_popularity_is_not_beaten(structureless, name):
    make, settings = MODELS[name]
    popular = ndcg(MostPop().fit(structureless.train), structureless)
    assert ndcg(make(settings).fit(structureless.train, structureless.valid), structureless) < 1.02 * popular


def test_the_vae_is_its_equations():
    model = small("MultVAE").fit(TRAIN)
    w = numbers(model.network)
    x = X / np.sqrt(np.maximum(X.sum(1, keepdims=True), 1))
    code = np.tanh(x @ w["enter.weight"] + w["enter_bias"]) @ w["encode.weight"].T + w["encode.bias"]
    mean, log_variance = code[:, :16], code[:, 16:]
    logits = np.tanh(mean @ w["decode.weight"].T + w["decode.bias"]) @ w["leave.weight"].T + w["leave.bias"]
    assert np.allclose(model.scores(EVERYONE), logits, atol=1e-5)
    divergence = (mean**2 + np.exp(log_variance) - 1 - log_variance).sum() / 2
    model.network.steps += model.settings.anneal  # past the end of the annealing
    loss, users = model.network(model.taken(EVERYONE))
    assert loss.item() == pytest.approx(model.settings.beta * divergence - (X * log_softmax(logits, axis=1)).sum(), rel=1e-5)
    assert users == 40


def test_the_draw_of_the_vae_is_the_posterior():
    """In training, the mean over many draws is the bound that quadrature would give; here by NumPy's own draws."""
    model = small("MultVAE", dropout=0.0).fit(TRAIN)
    taken, rng = model.taken(np.array([3])), np.random.default_rng(0)
    model.network.steps += model.settings.anneal
    with torch.no_grad():
        mean, log_variance = (part.double().numpy() for part in model.network.posterior(taken))
        draws = mean + rng.normal(size=(4000, 16)) * np.exp(log_variance / 2)
        log_p = log_softmax(model.network.logits(torch.as_tensor(draws).float()).numpy(), axis=1)[:, X[3] > 0].sum(1)
        divergence = (mean**2 + np.exp(log_variance) - 1 - log_variance).sum() / 2
        model.network.train()
        torch.manual_seed(0)
        losses = [model.network(taken)[0].item() for _ in range(4000)]
    expected = model.settings.beta * divergence - log_p.mean()
    assert np.mean(losses) == pytest.approx(expected, abs=5 * np.hypot(log_p.std(), np.std(losses)) / np.sqrt(4000))


def test_the_divergence_comes_in_step_by_step():
    model = small("MultVAE", anneal=8).fit(TRAIN)
    assert int(model.network.steps) == 1  # 40 users are one batch
    model.network.eval()
    losses = []
    for steps in (0, 4, 8, 80):
        model.network.steps.fill_(steps)
        losses.append(model.network(model.taken(EVERYONE))[0].item())
    assert losses[1] - losses[0] == pytest.approx((losses[2] - losses[0]) / 2, rel=1e-3)
    assert losses[2] == losses[3] > losses[0]


def test_neumf_is_its_equations():
    model = small("NeuMF").fit(TRAIN)
    w = numbers(model.network)
    p, q = w["users.weight"], w["items.weight"]
    expected = np.empty(X.shape)
    for user in range(40):
        for item in range(12):
            x = np.concatenate([p[user, 16:], q[item, 16:]])
            for layer in ("first", "rest.0"):
                x = np.maximum(w[f"{layer}.weight"] @ x + w[f"{layer}.bias"], 0)
            both = np.concatenate([p[user, :16] * q[item, :16], x])
            expected[user, item] = w["last.weight"][0] @ both + w["last.bias"][0]
    assert np.allclose(model.scores(EVERYONE), expected, atol=1e-6)
    lists = Lists(torch.tensor([5, 7]), torch.tensor([[1, 2, 3], [4, 5, 6]]))
    chosen = np.stack([expected[5, [1, 2, 3]], expected[7, [4, 5, 6]]])
    likely = expit(chosen)
    squares = 3 * (p[[5, 7]] ** 2).sum() + (q[[1, 2, 3, 4, 5, 6]] ** 2).sum()
    loss, pairs = model.network(lists)
    cross_entropy = -np.log(likely[:, 0]).sum() - np.log(1 - likely[:, 1:]).sum()
    assert loss.item() == pytest.approx(cross_entropy + model.settings.decay * squares, rel=1e-5)
    assert pairs == 6


def test_neumf_learns_from_ones_and_zeros():
    model = small("NeuMF")
    model.train = TRAIN
    batches = list(model.batches(np.random.default_rng(0)))
    users, items = (torch.cat([getattr(batch, name) for batch in batches]).numpy() for name in ("users", "items"))
    assert sorted(zip(users, items[:, 0], strict=True)) == sorted(zip(*map(list, X.nonzero()), strict=True))
    assert (X[users[:, None], items[:, 1:]] == 0).all()


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_lightgcn_is_its_equations(layers):
    model = small("LightGCN", layers=layers, decay=0.3).fit(TRAIN)
    graph = np.block([[np.zeros((40, 40)), X], [X.T, np.zeros((12, 12))]])
    degree = np.maximum(graph.sum(1), 1)  # one user has nothing
    adjacency = graph / np.sqrt(np.outer(degree, degree))
    first = model.network.first.detach().double().numpy()
    mixed = sum(np.linalg.matrix_power(adjacency, k) for k in range(layers + 1)) @ first / (layers + 1)
    assert np.allclose(np.vstack([model.users, model.items]), mixed, atol=1e-6)
    assert np.allclose(model.scores(EVERYONE), mixed[:40] @ mixed[40:].T, atol=1e-5)
    u, i, j = np.array([[1, 2, 2], [3, 4, 5], [6, 7, 7]])
    difference = (mixed[u] * (mixed[40 + i] - mixed[40 + j])).sum(1)
    squares = sum((first[rows] ** 2).sum() for rows in (u, 40 + i, 40 + j))
    loss, triples = model.network(Triples(*map(torch.as_tensor, (u, i, j))))
    assert loss.item() == pytest.approx(np.log1p(np.exp(-difference)).sum() + 0.15 * squares, rel=1e-5)
    assert triples == 3


def test_the_gradient_of_lightgcn_goes_through_the_graph():
    network = small("LightGCN").fit(TRAIN).network.double()
    network.zero_grad()
    triples = Triples(torch.tensor([1, 2]), torch.tensor([3, 4]), torch.tensor([6, 7]))
    network(triples)[0].backward()
    slope = network.first.grad.numpy().copy()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for _ in range(5):
            step = torch.as_tensor(rng.normal(size=slope.shape))
            values = []
            for sign in (1, -1):
                network.first += sign * 1e-5 * step
                values.append(network(triples)[0].item())
                network.first -= sign * 1e-5 * step
            assert (values[0] - values[1]) / 2e-5 == pytest.approx((slope * step.numpy()).sum(), rel=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_early_stopping_keeps_the_best(structured, name):
    model = small(name, 4).fit(structured.train, structured.valid)
    assert validation_ndcg(model, structured.valid) == pytest.approx(-min(row["valid"] for row in model.curve))
