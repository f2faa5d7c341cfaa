"""The user networks against slow, plain readings of their equations in NumPy."""

import numpy as np
import pytest
import torch

from zsrbook.data.dataset import Sequences
from zsrbook.models import sequence
from zsrbook.models.sequence import GAP_EDGES, GRU, HRNN, TCN, USER_NETWORKS

B, L, D = 3, 12, 5
DAY = 86_400.0


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def steps():
    """(B, L + 1, D) start vector and item vectors."""
    return torch.randn(B, L + 1, D)


@pytest.fixture
def times():
    """(B, L) seconds: minutes within sessions, days between them."""
    rng = np.random.default_rng(0)
    gaps = np.where(rng.random((B, L)) < 0.6, rng.uniform(1, 3000, (B, L)), rng.uniform(0.5 * DAY, 40 * DAY, (B, L)))
    return torch.as_tensor(1e9 + gaps.cumsum(1))


def shaken(network):
    """The same network with all weights away from zero, so that every term counts, and ready to be read."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.5)
    return network.eval()


def array(tensor):
    return tensor.detach().numpy().astype(np.float64)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def plain_gru(cells: torch.nn.GRU, inputs: np.ndarray) -> np.ndarray:
    """(n, width of the inputs) → (n, d): one history, one step after the other (Cho et al. 2014, with PyTorch's place for the reset gate)."""
    weight, recurrent, bias, recurrent_bias = (array(getattr(cells, f"{name}_l0")) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    state, states = np.zeros(recurrent.shape[1]), []
    for x in inputs:
        from_input, from_state = np.split(weight @ x + bias, 3), np.split(recurrent @ state + recurrent_bias, 3)
        reset, update = sigmoid(from_input[0] + from_state[0]), sigmoid(from_input[1] + from_state[1])
        new = np.tanh(from_input[2] + reset * from_state[2])
        state = (1 - update) * new + update * state
        states.append(state)
    return np.stack(states)


def plain_tcn(network: TCN, inputs: np.ndarray) -> np.ndarray:
    """(n, d) → (n, d): each output sums kernel taps at t, t - dilation, t - 2 dilation; what lies before the start is 0."""
    x = inputs
    for level, block in enumerate(network.blocks):
        out, dilation = x, 2**level
        for convolution in block.convolutions:
            length, direction = (array(getattr(convolution.parametrizations.weight, f"original{i}")) for i in (0, 1))
            weight = length * direction / np.sqrt((direction**2).sum((1, 2), keepdims=True))  # (out, in, kernel)
            after = np.tile(array(convolution.bias), (len(out), 1))
            for t in range(len(out)):
                for tap in range(weight.shape[2]):
                    before = t - (weight.shape[2] - 1 - tap) * dilation
                    if before >= 0:
                        after[t] += weight[:, :, tap] @ out[before]
            out = np.maximum(after, 0)
        x = np.maximum(out + x, 0)
    return x


def plain_hrnn(network: HRNN, inputs: np.ndarray, times: np.ndarray | None) -> np.ndarray:
    """(n + 1, d), (n,) or None → (n + 1, d): item by item, as the docstring of HRNN tells it."""
    if times is None:
        return plain_gru(network.cells, np.pad(inputs, ((0, 0), (0, len(network.opens)))))
    gap_vectors, opens_vector, project = array(network.gap.weight), array(network.opens), array(network.summary.weight)
    context, sessions, session = [np.zeros_like(opens_vector)], [], -1
    for k in range(len(times)):
        gap = times[k] - times[k - 1] if k else 0.0
        bucket = sum(gap > edge for edge in GAP_EDGES)
        opens = gap > network.session_gap
        session = k if opens else session
        sessions.append(session)  # which item opened the session that item k lies in; -1: the first session
        context.append(gap_vectors[bucket] + opens * opens_vector)
    first_pass = plain_gru(network.cells, np.concatenate([inputs, context], axis=1))  # first_pass[k] has read k items
    for k, opened_by in enumerate(sessions):
        context[k + 1] = context[k + 1] + (project @ first_pass[opened_by] if opened_by >= 0 else 0.0)
    return plain_gru(network.cells, np.concatenate([inputs, context], axis=1))


def test_gru_follows_its_equations(steps):
    network = shaken(GRU(D, dropout=0.2))
    expected = np.stack([plain_gru(network.cells, row) for row in array(steps)])
    np.testing.assert_allclose(array(network(steps, None)), expected, atol=1e-5)


@pytest.mark.parametrize("together", [1, 3, 1024])
def test_histories_are_read_as_one_step_after_the_other_gives_them(monkeypatch, together):
    """Histories of all lengths, the empty one among them, items that come back, and items that nobody took."""
    monkeypatch.setattr(sequence, "_TOGETHER", together)
    rng = np.random.default_rng(0)
    network = shaken(GRU(D, dropout=0.2))
    start, items = torch.randn(D), torch.randn(9, D)
    sequences = Sequences.of([rng.integers(7, size=n) for n in (4, 0, 11, 1, 4, 30, 0)])
    found = network.read(start, items, sequences)
    pieces = [
        array(torch.cat([start[None], items[torch.as_tensor(own, dtype=torch.int64)]])) for own in np.split(sequences.items, sequences.starts[1:-1])
    ]
    np.testing.assert_allclose(array(found), np.concatenate([plain_gru(network.cells, piece) for piece in pieces]), atol=1e-5)
    assert network.read(start, items, sequences.take(np.array([], int))).shape == (0, D)


def test_tcn_follows_its_equations(steps):
    network = shaken(TCN(D, dropout=0.2))
    expected = np.stack([plain_tcn(network, row) for row in array(steps)])
    assert (expected > 0).mean() > 0.2, "a comparison of zeros would say nothing"
    np.testing.assert_allclose(array(network(steps, None)), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_hrnn_follows_its_docstring(steps, times):
    network = shaken(HRNN(D, dropout=0.2))
    assert (np.diff(times.numpy()) > DAY).sum(1).min() >= 2, "the histories must hold several sessions"
    expected = np.stack([plain_hrnn(network, row, when) for row, when in zip(array(steps), times.numpy(), strict=True)])
    np.testing.assert_allclose(array(network(steps, times)), expected, atol=1e-5)
    assert np.abs(expected - array(network(steps, None))).max() > 0.1, "sessions must matter here"


def test_hrnn_without_a_clock_is_a_gru_with_empty_context(steps):
    network = shaken(HRNN(D, dropout=0.0))
    expected = np.stack([plain_hrnn(network, row, None) for row in array(steps)])
    np.testing.assert_allclose(array(network(steps, None)), expected, atol=1e-5)


def test_hrnn_lets_no_gradient_into_the_summary_of_the_session_before(steps):
    """A loss after a session break reaches earlier items through the recurrent state alone."""
    network = shaken(HRNN(D, dropout=0.0))
    times = torch.tensor([[0.0, 10 * DAY]])
    inputs = steps[:1, :3].clone().requires_grad_()
    network(inputs, times)[0, -1].sum().backward()

    buckets = torch.bucketize(torch.tensor([0.0, 10 * DAY]), network.edges)
    context = torch.stack([torch.zeros_like(network.opens), network.gap.weight[buckets[0]], network.gap.weight[buckets[1]] + network.opens])
    again = inputs.detach().clone().requires_grad_()
    summary = network.cells(torch.cat([again, context[None]], dim=2))[0][:, 1].detach()  # the state before the second item, which opens a session
    context = torch.cat([context[:2], context[2:] + network.summary(summary)]).detach()
    network.cells(torch.cat([again, context[None]], dim=2))[0][0, -1].sum().backward()
    torch.testing.assert_close(inputs.grad, again.grad)


def reach(network, length: int) -> np.ndarray:
    """Which inputs the last output depends on, by gradients; everything positive, so that no ReLU hides a path."""
    for name, parameter in network.named_parameters():
        torch.nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 0.1)
    inputs = torch.ones(1, length, D, requires_grad=True)
    network.eval()(inputs, None)[0, -1].sum().backward()
    return np.flatnonzero(inputs.grad.abs().sum(-1)[0].numpy())


@pytest.mark.parametrize(("levels", "kernel"), [(4, 3), (2, 2), (3, 4)])
def test_tcn_sees_as_far_back_as_its_docstring_says(levels, kernel):
    field = 1 + 2 * (kernel - 1) * (2**levels - 1)
    seen = reach(TCN(D, 0.0, levels, kernel), field + 20)
    assert seen.tolist() == list(range(20, field + 20))


def test_tcn_sees_61_steps_by_default():
    assert len(reach(TCN(D, 0.0), 100)) == 61


@pytest.mark.parametrize("name", USER_NETWORKS)
def test_no_output_depends_on_later_inputs(name, steps, times):
    network = shaken(USER_NETWORKS[name](D, 0.0))
    for k in range(L + 1):
        inputs = steps.clone().requires_grad_()
        network(inputs, times)[:, k].sum().backward()
        assert not inputs.grad[:, k + 1 :].any()
        assert inputs.grad[:, k].any()
    later = times.clone()
    later[:, 6:] += 5 * DAY
    torch.testing.assert_close(network(steps, later)[:, :7], network(steps, times)[:, :7])


class OnACard(torch.Tensor):
    """A tensor of the CPU that says it is on a card."""

    is_cuda = True


@pytest.mark.parametrize("name", ["gru", "hrnn"])
def test_on_a_card_autocast_leaves_recurrent_cells_alone(name, steps, times):
    """Else they would run in float16; here it is the CPU's own autocast that must be off while they run."""
    network, seen = shaken(USER_NETWORKS[name](D, 0.0)), []
    run = network.cells.forward
    network.cells.forward = lambda inputs: seen.append((inputs.dtype, torch.is_autocast_enabled("cpu"))) or run(inputs)
    for inputs, low in ((steps, True), (steps.bfloat16().as_subclass(OnACard), False)):
        seen.clear()
        with torch.autocast("cpu", torch.bfloat16):
            states = network(inputs, times)
        assert set(seen) == {(torch.float32, low)}
        assert states.dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["gru", "hrnn"])
def test_on_a_card_large_gradients_stay_finite_in_bfloat16(name, steps, times):
    """A slope of 10⁶ is far beyond what float16 holds, and within reach of a sum over thousands of targets."""
    network = shaken(USER_NETWORKS[name](D, 0.0)).train().cuda()
    with torch.autocast("cuda", torch.bfloat16):
        states = network(steps.cuda(), times.cuda())
    assert states.dtype == torch.float32
    (1e6 * states).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize("name", USER_NETWORKS)
def test_a_history_of_nothing_is_its_start_vector(name):
    network = shaken(USER_NETWORKS[name](D, 0.0))
    start = torch.randn(2, 1, D)
    with_clock = network(start, torch.empty(2, 0, dtype=torch.float64))
    assert with_clock.shape == (2, 1, D)
    torch.testing.assert_close(with_clock, network(start, None))


@pytest.mark.parametrize("name", USER_NETWORKS)
def test_dropout_acts_in_training_alone(name, steps, times):
    network = shaken(USER_NETWORKS[name](D, 0.5))
    torch.testing.assert_close(network(steps, times), network(steps, times))
    network.train()
    assert not torch.equal(network(steps, times), network(steps, times))


@pytest.mark.parametrize("name", USER_NETWORKS)
def test_every_weight_gets_a_gradient_at_the_start(name, steps, times):
    """Also those that begin at zero."""
    network = USER_NETWORKS[name](D, 0.0)
    network(steps, times).square().sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.any(), parameter_name
