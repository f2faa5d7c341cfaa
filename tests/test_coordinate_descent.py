"""Implicit coordinate descent against plain dense readings of the loss: the objective, its derivatives, every step, and where it ends."""

import doctest

import numba
import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from zsrbook.models import coordinate_descent, coordinate_descent_gpu
from zsrbook.models.coordinate_descent import Factorisation, Task, Vectors, averaging, reweighted
from zsrbook.models.coordinate_descent_gpu import FactorisationOnGPU

N, WORDS, WIDTH, OMEGA, LAM = 30, 17, 6, 0.05, 0.3  # the width is no multiple of the block
MODELS = ("STL", "STL combined", "ZSL_ME", "ZSL_TE", "ME with texts")


def bags(rng, rows=N, columns=WORDS, share=0.2):
    found = rng.random((rows, columns)) < share
    found[3] = found[:, 5] = False  # an item without words or neighbours, a word or a neighbour that nobody has
    found[0, 0] = True
    return sparse.csr_array(found.astype(float))


@pytest.fixture(autouse=True)
def one_numba_thread():
    """Problems as small as these gain nothing from a second thread, and waiting for one takes long on a busy machine."""
    given = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(given)


@pytest.fixture(params=MODELS)
def tasks(request):
    rng = np.random.default_rng(0)
    texts, neighbours = bags(rng), bags(rng, columns=N)
    words, links, own = Task(reweighted(texts)), Task(reweighted(neighbours)), Task(sparse.eye_array(N, format="csr"), averaging(texts))
    return {
        "STL": [words],
        "STL combined": [own],
        "ZSL_ME": [words, links],
        "ZSL_TE": [Task(links.positives, averaging(texts))],
        "ME with texts": [own, links],
    }[request.param]


def fitted(tasks, sweeps=0, omega=OMEGA, lam=LAM, **more):
    model = Factorisation(tasks, **({"width": WIDTH, "dtype": np.float64} | more), omega=omega, lam=lam)
    for _ in range(sweeps):
        model.sweep()
    return model


class Dense:
    """The loss with every pair written out."""

    def __init__(self, tasks, omega=OMEGA, lam=LAM):
        self.lam = lam
        self.alpha = [task.positives.toarray().astype(float) for task in tasks]
        self.target = [(alpha > 0).astype(float) for alpha in self.alpha]
        self.weight = [np.where(alpha > 0, alpha, omega) for alpha in self.alpha]
        self.encoder = [np.eye(task.positives.shape[1]) if task.encoder is None else task.encoder.toarray().astype(float) for task in tasks]

    def objective(self, vectors):
        V, contexts = vectors
        parts = zip(self.weight, self.target, self.encoder, contexts, strict=True)
        loss = sum((weight * (V @ (encoder @ x).T - target) ** 2).sum() for weight, target, encoder, x in parts)
        return loss + self.lam * ((V**2).sum() + sum((x**2).sum() for x in contexts))

    def gradient(self, vectors):
        V, contexts = vectors
        errors = [w * (V @ (a @ x).T - t) for w, t, a, x in zip(self.weight, self.target, self.encoder, contexts, strict=True)]
        of_items = sum(error @ a @ x for error, a, x in zip(errors, self.encoder, contexts, strict=True)) + self.lam * V
        of_contexts = [a.T @ error.T @ V + self.lam * x for error, a, x in zip(errors, self.encoder, contexts, strict=True)]
        return Vectors(2 * of_items, [2 * part for part in of_contexts])

    def sweep(self, vectors):
        """Four coordinates of one vector at a time to their minimum, by Newton's step on the whole loss."""

        def step(block, gradient, curvatures, V):
            for first in range(0, WIDTH, 4):
                at = slice(first, first + 4)
                for row in range(len(block)):
                    half = V[:, at].T @ (curvatures[:, [row]] * V[:, at]) + self.lam * np.eye(V[:, at].shape[1])
                    block[row, at] -= np.linalg.solve(half, gradient()[row, at] / 2)

        V, contexts = vectors
        encoded = np.concatenate([encoder @ x for encoder, x in zip(self.encoder, contexts, strict=True)])
        step(V, lambda: self.gradient(vectors).items, np.hstack(self.weight).T, encoded)
        for t, x in enumerate(contexts):
            step(x, lambda t=t: self.gradient(vectors).contexts[t], self.weight[t] @ self.encoder[t] ** 2, V)


def copied(vectors):
    return Vectors(vectors.items.copy(), [x.copy() for x in vectors.contexts])


def flat(vectors):
    return np.concatenate([part.ravel() for part in (vectors.items, *vectors.contexts)])


def unflat(values, like):
    shapes = [part.shape for part in (like.items, *like.contexts)]
    items, *contexts = (part.reshape(shape) for part, shape in zip(np.split(values, np.cumsum([a * b for a, b in shapes])[:-1]), shapes, strict=True))
    return Vectors(items, contexts)


def test_the_objective_is_that_over_all_pairs(tasks):
    model = fitted(tasks, sweeps=2)
    assert model.objective() == pytest.approx(Dense(tasks).objective(model.vectors), rel=1e-12)


def test_it_never_rises(tasks):
    model = fitted(tasks)
    values = [model.objective()]
    for _ in range(60):
        model.sweep()
        values.append(model.objective())
    assert (np.diff(values) <= 1e-12 * values[0]).all()
    assert values[-1] < 0.9 * values[0]


def test_every_step_is_that_of_a_dense_solver(tasks):
    model, dense = fitted(tasks), Dense(tasks)
    expected = copied(model.vectors)
    for _ in range(2):
        model.sweep()
        dense.sweep(expected)
        assert flat(model.vectors) == pytest.approx(flat(expected), abs=1e-8)


def test_the_gradient_vanishes_where_it_ends(tasks):
    model = fitted(tasks, sweeps=1000)
    gradient = flat(Dense(tasks).gradient(model.vectors))
    assert np.abs(gradient).max() < 1e-9


def test_finite_differences_of_the_objective_agree_with_the_gradient(tasks):
    vectors = copied(fitted(tasks, sweeps=1).vectors)
    values, gradient = flat(vectors), flat(Dense(tasks).gradient(vectors))

    def at(moved):
        return fitted(tasks, start=unflat(moved, vectors)).objective()

    for k in np.random.default_rng(1).choice(len(values), 12, replace=False):
        move = np.zeros_like(values)
        move[k] = 1e-4
        assert (at(values + move) - at(values - move)) / 2e-4 == pytest.approx(gradient[k], abs=1e-6)


def test_another_solver_finds_nothing_lower(tasks):
    dense, model = Dense(tasks), fitted(tasks, sweeps=1)
    start = copied(model.vectors)
    found = minimize(
        lambda values: dense.objective(unflat(values, start)),
        flat(start),
        jac=lambda values: flat(dense.gradient(unflat(values, start))),
        method="L-BFGS-B",
        options={"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-15, "gtol": 1e-9},
    )
    for _ in range(1000):
        model.sweep()
    assert model.objective() <= found.fun * (1 + 1e-6)


def test_what_has_no_positives_ends_at_zero(tasks):
    V = fitted(tasks, sweeps=300).vectors.items
    lonely = [i for i in range(N) if all(not task.positives[[i]].nnz for task in tasks)]
    assert np.abs(V[lonely]).max(initial=0) < 1e-6
    assert np.isfinite(V).all()


def test_a_single_item_without_a_positive_and_an_empty_text():
    nothing = Task(sparse.csr_array((1, 1)), sparse.csr_array((1, 3)))
    model = fitted([nothing], sweeps=3)
    V, (W,) = model.vectors
    assert V.tolist() == [[0.0] * WIDTH]
    assert W.tolist() == [[0.0] * WIDTH] * 3
    assert model.objective() == 0


def test_no_regulariser_leaves_no_hole(tasks):
    model = fitted(tasks, sweeps=50, lam=0.0)
    assert np.isfinite(flat(model.vectors)).all()
    assert model.objective() == pytest.approx(Dense(tasks, lam=0.0).objective(model.vectors), rel=1e-9)


def test_a_warm_start_keeps_old_rows_and_takes_new_ones():
    rng = np.random.default_rng(3)
    texts, neighbours = bags(rng, 40, 25), bags(rng, 40, 40)

    def tasks(n, words):
        return [Task(reweighted(texts[:n, :words])), Task(reweighted(neighbours[:n, :n]), averaging(texts[:n, :words]))]

    old = fitted(tasks(30, 20), sweeps=20)
    new = fitted(tasks(40, 25), start=old.vectors, seed=5)
    assert [len(part) for part in (new.vectors.items, *new.vectors.contexts)] == [40, 25, 25]
    for before, after in zip((old.vectors.items, *old.vectors.contexts), (new.vectors.items, *new.vectors.contexts), strict=True):
        assert np.array_equal(after[: len(before)], before)
        assert after[len(before) :].std() == pytest.approx(0.1 / np.sqrt(WIDTH), rel=0.5)
    assert new.objective() == pytest.approx(Dense(tasks(40, 25)).objective(new.vectors), rel=1e-12)
    warm, cold = new, fitted(tasks(40, 25), seed=5)
    warm.sweep(), cold.sweep()
    assert warm.objective() < cold.objective()


def test_going_on_is_the_same_as_not_having_stopped(tasks):
    straight = fitted(tasks, sweeps=6)
    again = fitted(tasks, start=copied(fitted(tasks, sweeps=3).vectors), sweeps=3)
    assert np.array_equal(flat(again.vectors), flat(straight.vectors))


def big_tasks():
    rng = np.random.default_rng(4)
    texts = sparse.random_array((6000, 300), density=0.02, rng=rng, format="csr")
    neighbours = sparse.random_array((6000, 6000), density=0.001, rng=rng, format="csr")
    return [Task(reweighted(texts)), Task(reweighted(neighbours), averaging(texts))]


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread is all that numba was given")
def test_the_number_of_threads_changes_nothing():
    tasks, found = big_tasks(), []
    for threads in (1, 2):
        numba.set_num_threads(threads)
        with threadpool_limits(threads):
            model = fitted(tasks, sweeps=2, dtype=np.float32, omega=0.001)
            found.append((flat(model.vectors), model.objective()))
    assert np.array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_float32_follows_float64():
    tasks = big_tasks()
    single, double = (fitted(tasks, sweeps=3, omega=0.001, dtype=dtype) for dtype in (np.float32, np.float64))
    assert flat(single.vectors).dtype == np.float32
    assert flat(single.vectors) == pytest.approx(flat(double.vectors), abs=1e-3)
    assert single.objective() == pytest.approx(double.objective(), rel=1e-5)
    values = []
    for _ in range(5):
        values.append(single.objective())
        single.sweep()
    assert (np.diff(values) < 0).all()


def test_float32_is_not_widened():
    """A plain 1 in the solver would make all that follows float64: the same vectors, in a third more time."""
    coordinate_descent._four_steps((np.float32(1),) * 14)
    kinds = [
        (compiled.signature.args[0].dtype, compiled.signature.return_type.dtype) for compiled in coordinate_descent._four_steps.overloads.values()
    ]
    assert (numba.float32, numba.float32) in kinds
    assert all(taken == given for taken, given in kinds)


def test_reweighting_is_the_formula_of_the_paper():
    positives = bags(np.random.default_rng(5)).toarray()
    rows, columns = positives.sum(1), positives.sum(0)
    r = np.array([1 / np.sqrt(k) if k else np.nan for k in rows])
    c = np.array([1 / np.sqrt(k) if k else np.nan for k in columns])
    expected = np.outer(r / np.nanmean(r), c / np.nanmean(c))
    found = reweighted(sparse.csr_array(7 * positives)).toarray()
    assert found[positives > 0] == pytest.approx(expected[positives > 0], rel=1e-6)
    assert not found[positives == 0].any()
    assert reweighted(sparse.csr_array((2, 3))).nnz == 0


def test_means_of_bags():
    texts = bags(np.random.default_rng(6))
    means = averaging(texts).toarray().sum(1)
    assert means == pytest.approx((texts.toarray().sum(1) > 0).astype(float), abs=1e-6)
    twice = sparse.coo_array((np.ones(3), ([0, 0, 0], [1, 1, 2])), shape=(1, 3))
    assert averaging(twice).toarray()[0] == pytest.approx([0, 2 / 3, 1 / 3])


def test_words_that_never_meet_in_a_text_are_linked_by_neighbours():
    """ "funny" and "prank": no text has both, but the items are neighbours of the same items."""
    texts = sparse.csr_array(np.repeat(np.eye(4), 10, 0))  # 40 items, each with one of four words: of topic A 0 and 1, of topic B 2 and 3
    topic = np.repeat([0, 0, 1, 1], 10)
    neighbours = sparse.csr_array((topic[:, None] == topic) & ~np.eye(40, dtype=bool)).astype(float)

    def cosine(tasks):
        W = fitted(tasks, sweeps=1000, width=4, omega=0.1, lam=0.1).vectors.contexts[0]
        return [W[0] @ W[k] / (np.linalg.norm(W[0]) * np.linalg.norm(W[k])) for k in (1, 2)]

    apart, _ = cosine([Task(reweighted(texts))])
    near, far = cosine([Task(reweighted(neighbours), averaging(texts))])
    assert apart < 0.1
    assert near > 0.9
    assert abs(far) < 0.1


def test_doctests():
    result = doctest.testmod(coordinate_descent)
    assert result.attempted
    assert not result.failed


def test_errors_say_what_to_do():
    eye = sparse.eye_array(3, format="csr")
    with pytest.raises(ValueError, match=r"task 0, item 1, context 1: a positive weighs -0.05; expected a number above 0 \(1 such of 3\)"):
        fitted([Task(sparse.csr_array(np.diag([1.0, -0.05, 1.0])))], omega=0.1)
    with pytest.raises(ValueError, match="a positive weighs nan"):
        fitted([Task(eye * np.nan)])
    with pytest.raises(ValueError, match="task 1 has 2 items, task 0 has 3"):
        fitted([Task(eye), Task(eye[:2])])
    with pytest.raises(ValueError, match="task 0 has 3 contexts, but its encoder has rows for 2"):
        fitted([Task(eye, eye[:2])])
    with pytest.raises(ValueError, match="no task"):
        fitted([])
    for name, value in (("width", 0), ("omega", -1.0), ("lam", np.nan)):
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            fitted([Task(eye)], **{name: value})
    old = fitted([Task(eye)]).vectors
    with pytest.raises(ValueError, match=r"start has items of shape \(3, 6\); expected at most 2 rows of width 6"):
        fitted([Task(eye[:2])], start=old)
    with pytest.raises(ValueError, match="contexts of 1 tasks, but there are 2"):
        fitted([Task(eye), Task(eye)], start=old)


def on(device, tasks, **more):
    return FactorisationOnGPU(tasks, WIDTH, OMEGA, LAM, **({"dtype": np.float64} | more), device=device)


class TestOnGPU:
    """On the CPU of torch, where every machine can run it; and on a card, where there is one."""

    def test_sweeps_of_free_vectors_are_the_compiled_ones(self, tasks):
        if any(task.encoder is not None for task in tasks):
            pytest.skip("words that share texts go another way")
        compiled, other = fitted(tasks), on("cpu", tasks)
        for _ in range(5):
            compiled.sweep()
            other.sweep()
            np.testing.assert_allclose(flat(other.vectors), flat(compiled.vectors), atol=1e-10)

    @pytest.mark.parametrize("lam", [LAM, 0.0])
    def test_the_objective_is_the_same_and_never_rises(self, tasks, lam):
        model = FactorisationOnGPU(tasks, WIDTH, OMEGA, lam, dtype=np.float64, device="cpu")
        values = [model.objective()]
        for _ in range(20):
            model.sweep()
            values.append(model.objective())
        assert np.diff(values).max() < 1e-9
        assert values[-1] == pytest.approx(Dense(tasks, lam=lam).objective(model.vectors), rel=1e-12)

    def test_it_ends_where_the_compiled_form_ends(self, tasks):
        end = fitted(tasks, 3000)
        same, other = on("cpu", tasks, start=end.vectors), on("cpu", tasks)
        for _ in range(50):
            same.sweep()
            other.sweep()
        np.testing.assert_allclose(flat(same.vectors), flat(end.vectors), atol=1e-8)
        assert other.objective() == pytest.approx(end.objective(), rel=0.02)

    def test_more_positives_than_a_piece_holds(self, tasks, monkeypatch):
        whole = on("cpu", tasks)
        whole.sweep()
        monkeypatch.setattr(coordinate_descent_gpu, "_POSITIVES", 7)
        pieces = on("cpu", tasks)
        pieces.sweep()
        np.testing.assert_array_equal(flat(pieces.vectors), flat(whole.vectors))

    @pytest.mark.gpu
    def test_a_card_does_what_the_cpu_does(self, tasks):
        here, there = on("cpu", tasks), on("cuda", tasks)
        for _ in range(5):
            here.sweep()
            there.sweep()
        np.testing.assert_allclose(flat(there.vectors), flat(here.vectors), atol=1e-8)
        assert there.objective() == pytest.approx(here.objective(), rel=1e-10)
