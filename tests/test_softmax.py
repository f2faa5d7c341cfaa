"""The two softmax losses against PyTorch's own cross-entropy, and the sampled one against what it estimates."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from zsrbook.models import softmax
from zsrbook.models.softmax import full_softmax_loss, sampled_softmax_loss

POSITIONS, ITEMS, WIDTH = 37, 53, 8


def problem(positions=POSITIONS, items=ITEMS, width=WIDTH, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    users, catalogue = (torch.randn(n, width, generator=generator) * scale for n in (positions, items))
    return users, catalogue, torch.randint(items, (positions,), generator=generator)


def value_and_gradients(loss, users, items, targets):
    u, z = users.clone().requires_grad_(), items.clone().requires_grad_()
    value = loss(u, z, targets)
    value.backward()
    return value.detach(), u.grad, z.grad


def plain(users, items, targets):
    return F.cross_entropy(users @ items.T, targets, reduction="sum")


def exact(users, items, targets):
    return [t.float() for t in value_and_gradients(plain, users.double(), items.double(), targets)]


def in_bfloat16(device):
    def low(*parts):
        with torch.autocast(device, torch.bfloat16):
            return full_softmax_loss(*parts)

    return low


@pytest.mark.parametrize("block", [1, ITEMS, 5 * ITEMS, POSITIONS * ITEMS, 10**9])
def test_full_softmax_equals_cross_entropy_whatever_the_block(monkeypatch, block):
    monkeypatch.setattr(softmax, "bytes_at_once", lambda device: 4 * block)
    for got, expected in zip(value_and_gradients(full_softmax_loss, *problem()), exact(*problem()), strict=True):
        torch.testing.assert_close(got, expected, rtol=2e-6, atol=2e-6 * float(expected.abs().max()))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 9), st.floats(0.01, 20), st.integers(1, 400), st.integers(0, 10**6))
def test_full_softmax_equals_cross_entropy_on_any_problem(positions, items, width, scale, block, seed):
    given_problem = problem(positions, items, width, scale, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(softmax, "bytes_at_once", lambda device: 4 * block)
        found = value_and_gradients(full_softmax_loss, *given_problem)
    for got, expected in zip(found, exact(*given_problem), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("block", [7 * 2000, 10**9])
def test_full_softmax_is_that_of_float64_within_its_precision(monkeypatch, device, block):
    """In float32 to 1e-4 of the largest; in bfloat16, where a score of 90 is right to a quarter, to some hundredths of the length."""
    monkeypatch.setattr(softmax, "bytes_at_once", lambda device: 4 * block)
    for scale, hundredths in ((0.3, 1), (1.0, 3)):  # scores of up to 9, and of up to 90
        given_problem = problem(300, 2000, 300, scale)
        expected, there = exact(*given_problem), [part.to(device) for part in given_problem]
        for got, value in zip(value_and_gradients(full_softmax_loss, *there), expected, strict=True):
            torch.testing.assert_close(got.cpu(), value, rtol=1e-4, atol=1e-4 * float(value.abs().max()))
        for got, value in zip(value_and_gradients(in_bfloat16(device), *there), expected, strict=True):
            assert (got.cpu() - value).norm() < hundredths / 100 * value.norm()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_without_gradients_bfloat16_gives_the_same_loss(device):
    there = [part.to(device) for part in problem()]
    torch.testing.assert_close(in_bfloat16(device)(*there), value_and_gradients(in_bfloat16(device), *there)[0])


@pytest.mark.parametrize("above", [60, 80, 87.5, 88.5, 200, 5e4])
def test_bfloat16_survives_an_item_far_above_all_targets(above):
    """So far that its exponential, relative to the largest target, is huge, its product with a vector overflows, or it does itself."""
    users, items = torch.zeros(2 * softmax.SOME, 8), torch.zeros(40, 8)
    users[:, 0], items[:, 1], items[39, :2] = 1.0, 7.0, torch.tensor([float(above), 30.0])
    given_problem = users, items, torch.arange(len(users)) % 39
    for got, value in zip(value_and_gradients(in_bfloat16("cpu"), *given_problem), exact(*given_problem), strict=True):
        torch.testing.assert_close(got, value, rtol=0.01, atol=0.01 * float(value.abs().max()))


@pytest.mark.parametrize("loss", [full_softmax_loss, in_bfloat16("cpu")], ids=["float32", "bfloat16"])
def test_full_softmax_survives_scores_that_overflow_an_exponential(loss):
    value, grad_users, grad_items = value_and_gradients(loss, *problem(scale=30.0))
    assert value.isfinite()
    assert grad_users.isfinite().all()
    assert grad_items.isfinite().all()


def test_the_gradient_is_that_of_finite_differences():
    """Independent of any autograd: central differences of a float64 reading of Eq. 2."""
    users, items, targets = problem(4, 6, 3)

    def loss(flat):
        u, z = flat[:12].reshape(4, 3), flat[12:].reshape(6, 3)
        scores = u @ z.T
        return (np.log(np.exp(scores).sum(1)) - scores[np.arange(4), targets.numpy()]).sum()

    at = torch.cat([users.flatten(), items.flatten()]).double().numpy()
    numeric = np.array([(loss(at + step) - loss(at - step)) / 2e-6 for step in np.eye(len(at)) * 1e-6])
    value, grad_users, grad_items = value_and_gradients(full_softmax_loss, users, items, targets)
    assert float(value) == pytest.approx(loss(at), rel=1e-6)
    np.testing.assert_allclose(torch.cat([grad_users.flatten(), grad_items.flatten()]).numpy(), numeric, atol=1e-5)


def test_the_gradient_of_a_mean_is_scaled():
    users, items, targets = problem()
    mean = value_and_gradients(lambda *a: full_softmax_loss(*a) / POSITIONS, users, items, targets)
    for got, expected in zip(mean, value_and_gradients(full_softmax_loss, users, items, targets), strict=True):
        torch.testing.assert_close(got, expected / POSITIONS)


def test_one_side_may_be_frozen():
    users, items, targets = problem()
    expected = value_and_gradients(full_softmax_loss, users, items, targets)
    for frozen in (0, 1):
        operands = [users.clone().requires_grad_(frozen != 0), items.clone().requires_grad_(frozen != 1)]
        full_softmax_loss(*operands, targets).backward()
        assert operands[frozen].grad is None
        torch.testing.assert_close(operands[1 - frozen].grad, expected[2 - frozen])
    with torch.no_grad():
        torch.testing.assert_close(full_softmax_loss(users, items, targets), expected[0])


def test_bfloat16_is_near_float32_and_not_the_same():
    given_problem = problem(200, 300, 32, scale=0.5)
    with torch.autocast("cpu", torch.bfloat16):
        low = value_and_gradients(full_softmax_loss, *given_problem)
    for got, expected in zip(low, exact(*given_problem), strict=True):
        assert got.dtype == torch.float32
        error = float((got - expected).norm() / expected.norm())
        assert 1e-7 < error < 1e-2, "bfloat16 keeps 8 bits: errors of a few thousandths, and not none"


def test_an_empty_batch_costs_nothing():
    users, items, targets = problem(0)
    value, _, grad_items = value_and_gradients(full_softmax_loss, users, items, targets)
    assert value == 0
    assert not grad_items.any()


# -- sampled -------------------------------------------------------------------------------------------------------------------


def sample(n, draws, items=ITEMS, seed=0):
    """(draws, n) negatives from a skewed distribution, and its log probabilities."""
    generator = torch.Generator().manual_seed(seed)
    log_q = torch.log_softmax(torch.randn(items, generator=generator), 0)
    return torch.multinomial(log_q.exp(), n * draws, replacement=True, generator=generator).view(draws, n), log_q


def test_the_estimated_sum_over_the_catalogue_is_right_on_average():
    users, items, targets = problem(5, 20, 4, scale=0.7)
    negatives, log_q = sample(30, 2500, items=20)
    estimates = []
    for drawn in negatives:
        by_user = [sampled_softmax_loss(u[None], items, t[None], drawn, log_q[drawn] + np.log(30)) for u, t in zip(users, targets, strict=True)]
        estimates.append((torch.stack(by_user) + (users * items[targets]).sum(1)).exp())  # exp(loss + own score) is the estimated sum
    estimates = torch.stack(estimates)
    error = (estimates.mean(0) - (users @ items.T).exp().sum(1)) / (estimates.std(0) / len(estimates) ** 0.5)
    assert error.abs().max() < 4, "more than four standard errors off"


def sampled_with(negatives, log_q):
    return lambda users, items, targets: sampled_softmax_loss(users, items, targets, negatives, log_q[negatives] + np.log(len(negatives)))


def test_many_negatives_give_the_full_loss_and_gradient():
    given_problem = problem(20, ITEMS, WIDTH, scale=0.5)
    negatives, log_q = sample(200_000, 1)
    found = value_and_gradients(sampled_with(negatives[0], log_q), *given_problem)
    for got, right in zip(found, exact(*given_problem), strict=True):
        assert float((got - right).norm() / right.norm()) < 0.02


def test_few_negatives_point_the_gradient_the_right_way_on_average():
    given_problem = problem(20, ITEMS, WIDTH, scale=0.5)
    negatives, log_q = sample(40, 300)
    draws = [value_and_gradients(sampled_with(drawn, log_q), *given_problem)[1:] for drawn in negatives]
    for got, right in zip((torch.stack(g).mean(0) for g in zip(*draws, strict=True)), exact(*given_problem)[1:], strict=True):
        assert F.cosine_similarity(got.flatten(), right.flatten(), dim=0) > 0.99
        assert float(got.norm() / right.norm()) == pytest.approx(1, rel=0.1)


def test_an_accidental_hit_does_not_count():
    users, items, targets = problem(1)
    own, other = targets, (targets + 1) % ITEMS
    log_expected = torch.zeros(3)
    mixed = sampled_softmax_loss(users, items, targets, torch.cat([own, other, own]), log_expected)
    torch.testing.assert_close(mixed, sampled_softmax_loss(users, items, targets, other, torch.zeros(1)))
    assert sampled_softmax_loss(users, items, targets, own, torch.zeros(1)) == pytest.approx(0, abs=1e-6)


def test_a_hit_of_one_position_still_counts_for_another():
    users, items, _ = problem(2)
    targets, negatives = torch.tensor([3, 4]), torch.tensor([3])
    scores = users @ items.T
    expected = F.cross_entropy(scores[1, [4, 3]][None], torch.tensor([0]))  # position 0 has no competitor, position 1 has item 3
    torch.testing.assert_close(sampled_softmax_loss(users, items, targets, negatives, torch.zeros(1)), expected)


def test_sampled_bfloat16_is_near_float32():
    users, items, targets = problem(100, 200, 32, scale=0.5)
    negatives, log_q = sample(64, 1, items=200)
    arguments = (targets, negatives[0], log_q[negatives[0]] + np.log(64))
    with torch.autocast("cpu", torch.bfloat16):
        low = sampled_softmax_loss(users, items, *arguments)
    assert low.dtype == torch.float32
    assert float(low) == pytest.approx(float(sampled_softmax_loss(users, items, *arguments)), rel=5e-3)
