"""Node2Vec against the probabilities of the paper, a plain reading of the updates, and graphs whose parts are known."""

import doctest
import itertools
from dataclasses import replace

import numba
import numpy as np
import pytest
from scipy import sparse, stats

from zsrbook.data.dataset import DataError
from zsrbook.models import node2vec
from zsrbook.models.node2vec import Node2VecSettings, bipartite, cached, embed, walks

SMALL = Node2VecSettings(dimension=10, walks=3, length=14, window=4, negatives=4)  # neither is a multiple of a block


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def all_threads():
    """A worker of the tests gives numba one."""
    given = numba.get_num_threads()
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    yield
    numba.set_num_threads(given)


def random_graph(n=9, share=0.5, weighted=False, seed=0):
    """Connected, with triangles and without: a ring and chords."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((n, n)) < share, 1) | np.roll(np.eye(n, dtype=bool), 1, 1)
    weights = rng.lognormal(0, 1, (n, n)).astype(np.float32) if weighted else np.ones((n, n), np.float32)
    upper = np.triu(upper | upper.T, 1) * weights
    return sparse.csr_array(upper + upper.T)


def parts(sizes=(30, 30, 30), inside=0.3, across=0.02, seed=0):
    rng = np.random.default_rng(seed)
    part = np.repeat(np.arange(len(sizes)), sizes)
    upper = np.triu(rng.random(2 * (len(part),)) < np.where(part[:, None] == part, inside, across), 1)
    return sparse.csr_array((upper | upper.T).astype(float)), part


# -- walks ------------------------------------------------------------------------------------------------------------------------


def exact(graph, t, v, p, q):
    """Section 3.2.2 of the paper: the chance of every next node after t, v."""
    w = graph.toarray().astype(float)
    alpha = np.where(np.arange(len(w)) == t, 1 / p, np.where(w[t] > 0, 1.0, 1 / q))
    chance = alpha * w[v]
    return chance / chance.sum()


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize(("p", "q"), [(1, 1), (0.25, 0.25), (4, 0.5), (0.5, 3), (0.02, 1), (50, 50)])
def test_steps_have_the_chances_of_the_paper(p, q, weighted):
    graph = random_graph(weighted=weighted)
    n = graph.shape[0]
    drawn = walks(graph, Node2VecSettings(walks=200, length=60, p=p, q=q, seed=3))
    counts = np.zeros((n, n, n))
    np.add.at(counts, (drawn[:, :-2].ravel(), drawn[:, 1:-1].ravel(), drawn[:, 2:].ravel()), 1)
    statistic, freedom = 0.0, 0
    for t, v in np.argwhere(counts.sum(2) > 0):
        expected = exact(graph, t, v, p, q) * counts[t, v].sum()
        assert not counts[t, v][expected == 0].any()
        usual = expected >= 5  # what is rarer follows no chi-squared
        if usual.sum() > 1:
            seen, awaited = counts[t, v][usual], expected[usual]
            statistic += stats.chisquare(seen, awaited * seen.sum() / awaited.sum()).statistic
            freedom += usual.sum() - 1
    assert freedom > 50
    assert 1e-4 < stats.chi2.sf(statistic, freedom) < 1 - 1e-4


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
def test_the_first_step_goes_by_weight_whatever_p_and_q(weighted):
    graph = random_graph(weighted=weighted)
    copies = sparse.block_diag([graph] * 100, format="csr")  # of 20,000 rounds over nine nodes, starting the rounds would be all the work
    drawn = walks(copies, Node2VecSettings(walks=200, length=2, p=0.1, q=7))
    copy, (start, end) = drawn // graph.shape[0], drawn.T % graph.shape[0]
    assert (copy[:, 0] == copy[:, 1]).all()
    for v, row in enumerate(graph.toarray().astype(float)):
        ends = np.bincount(end[start == v], minlength=len(row))
        assert ends.sum() == 20_000
        assert not ends[row == 0].any()
        assert stats.chisquare(ends[row > 0], row[row > 0] / row.sum() * 20_000).pvalue > 1e-4


def test_the_tables_hold_the_weights_exactly():
    rng = np.random.default_rng(0)
    begins = np.array([0, 1, 1, 4, 9, 500])
    weights = rng.lognormal(0, 3, 500)
    keep, instead = node2vec._alias_tables(begins, weights)
    for first, end in itertools.pairwise(begins):
        n = end - first
        kept = (keep[first:end].astype(float) + (keep[first:end] == 2**32 - 1)) / 2**32
        chance = kept / n
        np.add.at(chance, instead[first:end], (1 - kept) / n)
        assert chance == pytest.approx(weights[first:end] / weights[first:end].sum(), abs=1e-9)


@pytest.mark.parametrize(("p", "q"), [(1, 1), (0.5, 2)])
def test_every_node_starts_as_many_walks_and_each_keeps_to_the_links(p, q):
    graph, _ = parts()
    drawn = walks(graph, replace(SMALL, p=p, q=q))
    n = graph.shape[0]
    assert drawn.shape == (3 * n, 14)
    assert drawn.dtype == np.int32
    for turn in np.split(drawn[:, 0], 3):
        assert sorted(turn) == list(range(n))
    assert (graph[drawn[:, :-1].ravel(), drawn[:, 1:].ravel()] > 0).all()
    assert len(np.unique(drawn, axis=0)) > 0.9 * len(drawn)


def test_walks_repeat_with_the_seed_and_do_not_depend_on_threads(all_threads):
    graph, _ = parts()
    for p in (1.0, 0.5):
        settings = replace(SMALL, p=p)
        first = walks(graph, settings)
        assert np.array_equal(walks(graph, settings), first)
        assert np.array_equal(walks(graph, replace(settings, threads=3)), first)
        assert not np.array_equal(walks(graph, replace(settings, seed=1)), first)


def test_isolated_nodes_stay_where_they_are():
    graph, _ = parts((20, 20))
    alone = sparse.block_diag([graph, sparse.csr_array((2, 2))], format="csr")
    for p in (1.0, 0.5):
        drawn = walks(alone, replace(SMALL, p=p))
        lonely = drawn[:, 0] >= 40
        assert lonely.sum() == 6
        assert (drawn[lonely, 1:] == -1).all()
        assert (drawn[~lonely] >= 0).all()
    found = embed(alone, SMALL)
    assert not found[40:].any()
    assert np.abs(found[:40]).min() > 0
    assert not embed(sparse.csr_array((3, 3)), SMALL).any()


def test_equal_weights_are_no_weights():
    graph, _ = parts()
    assert np.array_equal(walks(graph * 7, SMALL), walks(graph, SMALL))


# -- skip-gram --------------------------------------------------------------------------------------------------------------------


def plain_reading(graph, settings):
    """Inputs and outputs after all epochs, in float64 and a pair at a time; walks and random numbers alone are the compiled ones."""
    n, d = graph.shape[0], settings.dimension
    inputs, outputs = (np.random.default_rng(settings.seed).random((n, d), np.float32).astype(float) - 0.5) / d, np.zeros((n, d))
    read = walks(graph, settings)
    noise = np.bincount(read.ravel(), minlength=n) ** settings.power
    keep, instead = node2vec._alias_tables(np.array([0, n]), noise)
    key, total = node2vec._key(settings, 1), settings.epochs * len(read)

    def negatives(centre):
        nonlocal counter
        targets = np.full(settings.negatives + 1, centre)
        counter = np.uint64(node2vec._draw_negatives(keep, instead, settings.negatives, n, counter, targets))
        return [k for k in targets[1:] if k < n]

    def slopes(x, y, centre, drawn):
        """Of L by the input, and by the output of every target."""
        of_x, of_y = np.zeros(d), []
        for target, label in [(centre, 1.0), *((k, 0.0) for k in drawn)]:
            error = 1 / (1 + np.exp(-x @ y[target])) - label
            of_x += error * y[target]
            of_y.append((target, error * x))
        return of_x, of_y

    for done, walk in enumerate(np.tile(read, (settings.epochs, 1))):
        rate = settings.learning_rate * max(1 - done / total, 1e-4)
        counter = np.uint64(node2vec._counter(key, done))
        for at, centre in enumerate(walk):
            counter = np.uint64((int(counter) + 0x9E3779B97F4A7C15) % 2**64)
            reach = 1 + node2vec._below(np.uint64(node2vec._mixed(counter)), settings.window)
            around = [walk[j] for j in range(max(0, at - reach), min(len(walk), at + reach + 1)) if j != at]
            shared = negatives(centre) if settings.shared_negatives else None
            x, y = (inputs.copy(), outputs.copy()) if settings.shared_negatives else (inputs, outputs)
            for context in around:
                of_x, of_y = slopes(x[context], y, centre, shared if shared is not None else negatives(centre))
                inputs[context] -= rate * of_x
                for target, slope in of_y:
                    outputs[target] -= rate * slope
    return inputs


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "word2vec"])
def test_it_is_the_plain_reading(shared, weighted):
    settings = replace(SMALL, shared_negatives=shared, learning_rate=0.1, epochs=2, q=0.5 if weighted else 1.0)
    graph = random_graph(12, 0.3, weighted)  # so small that windows hold nodes twice, and negatives are the centre, or one another
    expected = plain_reading(graph, settings)
    assert np.abs(expected).max() > 0.3  # far from the start
    assert embed(graph, settings) == pytest.approx(expected, abs=1e-5)


def test_a_pair_steps_down_the_slope_of_its_loss():
    """Finite differences of L = -log σ(u·o) - Σ log σ(-u·o_neg)."""
    rng = np.random.default_rng(0)
    d, negatives, rate = 16, 5, 0.01
    inputs, outputs = node2vec._aligned(8 + node2vec._SPARE, d), node2vec._aligned(8 + node2vec._SPARE, d)
    inputs[:8], outputs[:8] = rng.normal(size=(2, 8, d))
    targets = np.arange(6)

    def loss(u, o):
        products = o[targets] @ u
        return np.logaddexp(0, -products[0]) + np.logaddexp(0, products[1:]).sum()

    before = inputs[:8].astype(float).copy(), outputs[:8].astype(float).copy()
    contexts, counts = np.array([3, 0, 0, 0]), np.array([1, 0, 0, 0], np.float32)
    space = node2vec._aligned(4, d), node2vec._aligned(6, d), node2vec._aligned(4, 6)
    node2vec._update(contexts, counts, 1, targets.copy(), negatives + 1, np.float32(rate), inputs, outputs, *space)
    for f in range(d):
        move = np.eye(d)[f] * 1e-5
        slope = (loss(before[0][3] + move, before[1]) - loss(before[0][3] - move, before[1])) / 2e-5
        assert inputs[3, f] - before[0][3, f] == pytest.approx(-rate * slope, abs=1e-6)
    for target in targets:
        moved = np.zeros((8, d))
        moved[target, 2] = 1e-5
        slope = (loss(before[0][3], before[1] + moved) - loss(before[0][3], before[1] - moved)) / 2e-5
        assert outputs[target, 2] - before[1][target, 2] == pytest.approx(-rate * slope, abs=1e-6)
    assert not inputs[8:].any()
    assert not outputs[8:].any()


def test_the_logistic_function_is_right_to_rounding():
    x = np.linspace(-40, 40, 20_001, dtype=np.float32)
    found = np.array([node2vec._logistic(value) for value in x])
    assert found == pytest.approx(1 / (1 + np.exp(-x.astype(float))), abs=3e-7)


def test_the_same_bits_with_the_same_seed_whatever_the_blocks(monkeypatch):
    graph, _ = parts()
    for p in (1.0, 0.5):
        settings = replace(SMALL, p=p, epochs=2)
        first = embed(graph, settings)
        assert first.dtype == np.float32
        assert first.shape == (90, 10)
        assert np.array_equal(embed(graph, settings), first)
        assert not np.array_equal(embed(graph, replace(settings, seed=1)), first)
        with monkeypatch.context() as patch:
            patch.setattr(node2vec, "_BLOCK", 100)
            assert np.array_equal(embed(graph, settings), first)


def cosines(vectors, part):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine, same = unit @ unit.T, part[:, None] == part
    return cosine[same].mean(), cosine[~same].mean()


@pytest.mark.parametrize(
    "more",
    [{}, {"shared_negatives": False}, {"threads": 2}, {"p": 0.25, "q": 4.0}],
    ids=["default", "word2vec", "threads", "near"],
)
def test_nodes_of_a_part_lie_together(more, all_threads):
    graph, part = parts()
    found = embed(graph, Node2VecSettings(**{"dimension": 16, "window": 5, "epochs": 5} | more))
    assert np.isfinite(found).all()
    within, across = cosines(found, part)
    assert within > across + 0.2


def test_a_vector_may_be_one_number():
    found = embed(parts()[0], replace(SMALL, dimension=1))
    assert found.shape == (90, 1)
    assert np.isfinite(found).all()


def test_users_and_items_of_one_taste_lie_together():
    rng = np.random.default_rng(0)
    users, items = np.repeat([0, 1], 40), np.repeat([0, 1], 20)
    matrix = sparse.csr_array((rng.random((80, 40)) < np.where(users[:, None] == items, 0.3, 0.02)).astype(float))
    graph = bipartite(matrix)
    assert graph.shape == (120, 120)
    assert (graph != graph.T).nnz == 0
    assert np.array_equal(graph.toarray()[:80, 80:], matrix.toarray())
    assert not graph.toarray()[:80, :80].any()
    within, across = cosines(embed(graph, Node2VecSettings(dimension=16, epochs=5)), np.concatenate([users, items]))
    assert within > across + 0.2


# -- the cache, and what goes wrong -----------------------------------------------------------------------------------------------


def test_the_cache_holds_what_was_computed(tmp_path, monkeypatch):
    graph, _ = parts()
    first = cached(graph, SMALL)
    assert np.array_equal(first, embed(graph, SMALL))
    assert isinstance(first, np.memmap)
    assert [path.suffixes for path in tmp_path.rglob("*.*")] == [[".npy"]]
    with monkeypatch.context() as patch:
        patch.setattr(node2vec, "embed", lambda *_: pytest.fail("computed although it is there"))
        assert np.array_equal(cached(graph.tocoo().tocsr(), SMALL), first)
    others = [cached(graph, replace(SMALL, seed=1)), cached(graph, replace(SMALL, q=2.0)), cached(graph[:60][:, :60], SMALL)]
    assert len(list(tmp_path.rglob("*.npy"))) == 4
    assert not any(other.shape == first.shape and np.array_equal(other, first) for other in others)


def test_what_breaks_off_leaves_nothing_in_the_cache(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(node2vec, "embed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cached(parts()[0], SMALL)
    assert not list(tmp_path.rglob("*.npy"))


def altered(*changes):
    graph = random_graph(6, 0.2).toarray()
    for row, column, value in changes:
        graph[row, column] = value
    return sparse.csr_array(graph)


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (sparse.csr_array((0, 0)), r"the graph is \(0, 0\); expected a sparse \(n, n\) matrix of at least one node"),
        (sparse.csr_array((3, 4)), r"the graph is \(3, 4\); .* of users × items `bipartite` makes one"),
        (altered((2, 2, 1.0)), r"the link from node 2 to node 2 is a self-loop; expected none.*\(1 such of"),
        (altered((1, 2, 0.0)), r"the link from node 2 to node 1 weighs 1, but not so the way back; expected an undirected graph"),
        (altered((1, 2, 3.0)), r"the link from node 1 to node 2 weighs 3, but not so the way back"),
        (altered((1, 2, -0.5), (2, 1, -0.5)), r"the link from node 1 to node 2 weighs -0.5; expected a number above 0.*\(2 such of"),
        (altered((4, 5, np.nan), (5, 4, np.nan)), r"the link from node 4 to node 5 weighs nan; expected a number above 0"),
        (altered((4, 5, np.inf), (5, 4, np.inf)), r"weighs inf; expected a number above 0"),
    ],
)
@pytest.mark.parametrize("function", [walks, embed, cached])
def test_bad_graphs_are_refused(function, graph, words):
    with pytest.raises(DataError, match=words):
        function(graph, SMALL)


@pytest.mark.parametrize("function", [walks, embed])
def test_a_graph_that_is_not_sparse_is_refused(function):
    with pytest.raises(DataError, match=r"the graph is \(3, 3\); expected a sparse"):
        function(np.eye(3), SMALL)


def test_stored_zeros_are_no_links_and_doubles_add_up():
    graph = random_graph(6, 0.2)
    pairs = np.array(graph.tocoo().coords)
    stored = sparse.coo_array((np.append(graph.data, 0.0), np.hstack([pairs, [[0], [0]]])), shape=graph.shape)
    assert stored.tocsr().nnz == graph.nnz + 1
    twice = sparse.coo_array((np.tile(graph.data / 2, 2), np.tile(pairs, 2)), shape=graph.shape)
    for other in (stored, twice):
        assert np.array_equal(walks(other, SMALL), walks(graph, SMALL))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 0) for name in ("dimension", "walks", "length", "window", "negatives", "epochs", "threads")),
        *(("p", 0.0), ("q", -1.0), ("p", np.nan), ("q", np.inf), ("learning_rate", 0.0), ("power", -0.1), ("power", np.nan), ("seed", -1)),
    ],
)
def test_bad_settings_are_refused(name, value):
    with pytest.raises(DataError, match=f"Node2Vec settings: {name} is {value}; expected"):
        Node2VecSettings(**{name: value})


def test_a_rate_that_is_far_too_high_is_said():
    with pytest.raises(FloatingPointError, match=r"no longer finite; lower learning_rate \(1e\+25\)"):
        embed(parts()[0], replace(SMALL, learning_rate=1e25))


def test_walks_of_one_node_teach_nothing():
    graph, _ = parts()
    start = embed(graph, replace(SMALL, length=1))
    assert np.abs(start).max() <= 0.5 / SMALL.dimension


def test_doctests():
    result = doctest.testmod(node2vec)
    assert result.attempted
    assert not result.failed


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread is all that numba was given")
def test_more_threads_are_as_good(all_threads):
    graph, part = parts((60, 60, 60))
    one, two = (cosines(embed(graph, Node2VecSettings(dimension=16, window=5, epochs=3, threads=threads)), part) for threads in (1, 2))
    assert two[0] - two[1] == pytest.approx(one[0] - one[1], abs=0.1)
