"""PreRec against plain readings of its features, its loss and its scores, and against what is known of the toy world."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.stats import ks_2samp

from zsrbook.data.dataset import DataError
from zsrbook.data.matrix import MatrixSplit, binary, matrix_of, rows_of, split_matrix, strangers
from zsrbook.data.toy import ToySettings, ToyWorld
from zsrbook.evaluation.matrix import MatrixProtocol, evaluate
from zsrbook.models.matrix import degrees, popular_not_taken
from zsrbook.models.node2vec import Node2VecSettings
from zsrbook.models.prerec import (
    BinnedMLP,
    BinnedPopularity,
    FeatureSettings,
    Interpolated,
    Networks,
    PreRec,
    PreRecSettings,
    Statistics,
    bins_of,
    combined,
    pair_clusters,
    percentile_bins,
    statistics_of,
)
from zsrbook.training import Training

SHORT = Node2VecSettings(dimension=32, walks=10, length=20, window=5)
#: strong tastes, so that the matrix has a shape beyond popularity
WORLD = ToyWorld(ToySettings(users=(1200, 1200, 20), history=25.0, tail=1.0, taste=3.0))
FEATURES = FeatureSettings(node2vec=SHORT, clusters=12, pair_clusters=100)
QUICK = Training(epochs=15, optimizer="adam", learning_rate=3e-3, clip=None, patience=3, device="cpu")
SMALL = PreRecSettings(features=FEATURES, hidden=(32, 16), questions=0.2, training=QUICK)


@pytest.fixture(scope="module")
def split() -> MatrixSplit:
    return split_matrix(binary(WORLD.dataset("grocery")))


@pytest.fixture(scope="module")
def described(split) -> Statistics:
    return statistics_of(split.train, FEATURES, SMALL.families)


@pytest.fixture(scope="module")
def model(split) -> PreRec:
    return PreRec(SMALL).fit(split.train, split.valid)


def test_equal_values_share_a_bin_at_the_middle_of_their_percentiles():
    values = np.random.default_rng(0).integers(5, 12, 500)
    bins = percentile_bins(values, 10)
    for value in np.unique(values):
        middle = ((values < value).sum() + (values <= value).sum()) / 2 / len(values)
        assert (bins[values == value] == int(np.floor(10 * middle - 1e-12))).all()
    assert len(np.unique(bins)) <= len(np.unique(values))


def test_bins_do_not_depend_on_the_size_of_the_matrix():
    values = np.random.default_rng(0).permutation(200)
    assert (percentile_bins(values, 10) == percentile_bins(np.tile(values * 7, 3), 10)[:200]).all()


def test_activity_is_the_bin_of_the_marginal(split, described):
    for table, ones in zip((described.users, described.items), degrees(split.train), strict=True):
        linked = ones > 0
        assert (table[linked, 0] == percentile_bins(ones[linked], 10)).all()
        assert not table[~linked].any()


def test_clusters_of_nodes_are_described_as_a_plain_count_does(split, described):
    dense, n = split.train.toarray(), split.train.shape[0]
    for cluster in range(len(described.sizes)):
        members = np.flatnonzero(described.clusters == cluster)
        user, item = members[members < n], members[members >= n] - n
        assert described.sizes[cluster] == len(members)
        possible = len(user) * len(item)
        assert described.densities[cluster] == pytest.approx(dense[np.ix_(user, item)].sum() / possible if possible else 0)
    node = described.clusters[described.clusters >= 0]
    bins = np.concatenate([described.users, described.items])[described.clusters >= 0]
    assert (bins[:, 1] == percentile_bins(described.sizes[node], 10)).all()
    assert (bins[:, 2] == percentile_bins(described.densities[node], 10)).all()


def test_sides_are_clustered_apart_and_described_as_a_plain_count_does(split):
    found = Statistics(split.train, replace(FEATURES, density="between"), ("co-occurrence",))
    dense, n = split.train.toarray(), split.train.shape[0]
    of_users, of_items = found.clusters[:n], found.clusters[n:]
    assert not set(of_users[of_users >= 0]) & set(of_items[of_items >= 0])
    assert (found.sizes == np.bincount(found.clusters[found.clusters >= 0])).all()
    first = of_users.max() + 1
    for a, b in np.ndindex(found.densities.shape):
        user, item = np.flatnonzero(of_users == a), np.flatnonzero(of_items == first + b)
        assert found.densities[a, b] == pytest.approx(dense[np.ix_(user, item)].mean())
    linked = of_users >= 0
    assert (found.users[linked, 1] == percentile_bins(found.sizes[of_users[linked]], 10)).all()
    user, item = rows_of(split.train), split.train.indices
    of_ones = found.densities[of_users[user], of_items[item] - first]
    nodes = found.nodes(user, item)
    assert (nodes[:, 5] == percentile_bins(of_ones, 10)).all()
    assert (nodes[:, [0, 1, 3, 4]] == np.concatenate([found.users[user], found.items[item]], axis=1)[:, [0, 1, 3, 4]]).all()
    assert not nodes[:, 2].any()


def test_the_density_between_sides_tells_ones_from_blanks(split):
    """It is a number of the pair; size and density of one joint cluster are numbers of a node, and tell a user's items apart by little."""
    rng, n = np.random.default_rng(0), split.test.nnz
    blanks = rng.integers(split.train.shape[0], size=n), rng.integers(split.train.shape[1], size=n)
    found = Statistics(split.train, replace(FEATURES, density="between"), ("co-occurrence",))
    hidden, other = (found.nodes(*pair)[:, 5].mean() for pair in ((rows_of(split.test), split.test.indices), blanks))
    assert hidden > other + 1
    shuffled = found.shuffled(0)
    hidden, other = (shuffled.nodes(*pair)[:, 5].mean() for pair in ((rows_of(split.test), split.test.indices), blanks))
    assert hidden == pytest.approx(other, abs=0.3)


def test_the_shuffled_control_deals_strangers_the_descriptions_of_anybody(split):
    found = Statistics(split.train, FEATURES, ("activity",))
    found.users, found.items = (np.arange(size)[:, None] for size in split.train.shape)  # each described by its own code
    for seed in range(3):
        dealt = found.shuffled(seed)
        for new, table in zip(strangers(split, seed=seed), (dealt.users, dealt.items), strict=True):
            assert (table[new, 0] < new.sum()).mean() < 0.5  # a fifth by chance; all of them, were both drawn alike


@pytest.mark.parametrize("operator", ["hadamard", "average", "l1", "l2"])
def test_pairs_fall_to_the_nearest_centre(split, operator):
    found = Statistics(split.train, replace(FEATURES, operator=operator), ("interaction",))
    rng = np.random.default_rng(0)
    user, item = rng.integers(split.train.shape[0], size=200), rng.integers(split.train.shape[1], size=200)
    u, i = (part.numpy()[codes] for part, codes in zip(found.vectors, (user, item), strict=True))
    plain = {"hadamard": u * i, "average": (u + i) / 2, "l1": abs(u - i), "l2": (u - i) ** 2}[operator]
    distance = ((plain[:, None] - pair_clusters(split.train, found.settings).centres.numpy()) ** 2).sum(2)
    mine = found.clusters_of(user, item)
    assert distance[np.arange(200), mine] == pytest.approx(distance.min(1), abs=1e-4)
    rows = found.clusters_of_users(user[:20])
    assert (rows == found.clusters_of_users(user[:20])).all()
    again = distance[np.arange(20), rows[np.arange(20), item[:20]]]
    assert again == pytest.approx(distance[:20].min(1), abs=1e-4)


def test_clusters_of_pairs_are_described_as_a_plain_count_does(split, described):
    user, item = rows_of(split.train), split.train.indices
    mine = described.clusters_of(user, item)
    size, density = np.zeros(len(described.pairs)), np.zeros(len(described.pairs))
    for cluster in np.unique(mine):
        inside = mine == cluster
        size[cluster] = inside.sum()
        density[cluster] = inside.sum() / (len(np.unique(user[inside])) * len(np.unique(item[inside])))
    assert (described.pairs[mine, 0] == percentile_bins(size[mine], 10)).all()
    assert (described.pairs[mine, 1] == percentile_bins(density[mine], 10)).all()


@pytest.mark.parametrize("density", ["edges", "between"])
def test_a_node_without_ones_is_described_by_zeros_and_scored(split, density):
    features = replace(FEATURES, density=density)
    dense = split.train.toarray()
    dense[3], dense[:, 5] = 0, 0
    hollow = csr_array(dense)
    found = Statistics(hollow, features)
    assert not found.users[3].any()
    assert not found.items[5].any()
    assert found.clusters[3] == -1
    assert not found.nodes(np.array([3, 3, 4]), np.array([5, 6, 5]))[:, [2, 5]].any() or density == "edges"
    scores = PreRec(replace(SMALL, features=features)).fit(hollow).scores(np.array([3, 4]))
    assert np.isfinite(scores).all()


def test_nodes_of_equal_activity_may_be_told_apart_by_chance(split):
    """Bins are then as full as each other, and still in the order of activity."""
    found = Statistics(split.train, replace(FEATURES, equal="apart"), ("activity",))
    for table, ones in zip((found.users, found.items), degrees(split.train), strict=True):
        bins, ones = table[ones > 0, 0], ones[ones > 0]
        assert np.ptp(np.bincount(bins, minlength=10)) <= 1
        assert all(ones[bins == b].max() <= ones[bins == b + 1].min() for b in range(9))
    again = Statistics(split.train, replace(FEATURES, equal="apart", seed=1), ("activity",))
    assert (again.users[:, 0] != found.users[:, 0]).any()


def test_percentiles_may_be_over_clusters(split, described):
    found = Statistics(split.train, replace(FEATURES, counted="clusters"))
    assert (found.clusters == described.clusters).all()
    linked = found.clusters >= 0
    bins = np.concatenate([found.users, found.items])[linked]
    for column, number in ((1, found.sizes), (2, found.densities)):
        assert (bins[:, column] == percentile_bins(number, 10)[found.clusters[linked]]).all()
    pairs = pair_clusters(split.train, FEATURES)
    assert (found.pairs[pairs.sizes > 0, 0] == percentile_bins(pairs.sizes[pairs.sizes > 0], 10)).all()


def test_nodes_may_be_clustered_with_the_lengths_of_their_vectors(split, described):
    found = Statistics(split.train, replace(FEATURES, directions=False))
    linked, vectors = found.clusters >= 0, torch.cat(described.vectors).numpy()
    centres = np.array([vectors[found.clusters == c].mean(0) for c in range(len(found.sizes))])
    nearest = ((vectors[linked][:, None] - centres) ** 2).sum(2).argmin(1)
    assert np.mean(nearest == found.clusters[linked]) > 0.95  # but for what the last steps of k-means would move
    assert np.mean(nearest == described.clusters[linked]) < 0.95


def test_the_density_of_a_cluster_of_pairs_may_be_closeness_to_its_centre(split):
    found = pair_clusters(split.train, replace(FEATURES, pair_density="distance"))
    user, item = rows_of(split.train), split.train.indices
    mine, e = found.of(user, item), (found.vectors[0][user] * found.vectors[1][item]).numpy()
    for cluster in np.flatnonzero(found.sizes)[:20]:
        far = np.linalg.norm(e[mine == cluster] - found.centres[cluster].numpy(), axis=1).mean()
        assert found.densities[cluster] == pytest.approx(1 / (far + 1e-6), rel=1e-4)


def test_nodes_without_ones_may_get_the_middle_bins(split):
    lonely = csr_array(np.pad(split.train.toarray(), ((0, 1), (0, 1))))
    found = Statistics(lonely, replace(FEATURES, without="middle"), ("activity", "co-occurrence"))
    assert found.users[-1].tolist() == found.items[-1].tolist() == [5, 5, 5]
    apart = Statistics(lonely, replace(FEATURES, without="middle", density="between"), ("co-occurrence",))
    assert apart.nodes(np.array([-1, -1, 0]), np.array([-1, 0, -1]))[:, 5].tolist() == [5, 5, 5]


def test_it_may_be_served_by_what_it_learned_from(split, model):
    """Then the questions are no part of the description."""
    found = PreRec(replace(SMALL, served="learned")).fit(split.train, split.valid)
    assert found.described.matrix.nnz < model.described.matrix.nnz == split.train.nnz
    assert found.networks.state_dict().keys() == model.networks.state_dict().keys()
    assert all(torch.equal(found.networks.state_dict()[name], weights) for name, weights in model.networks.state_dict().items())
    assert not np.array_equal(found.scores(np.arange(50)), model.scores(np.arange(50)))


def test_the_weight_of_the_two_may_be_given(split):
    assert PreRec(replace(SMALL, weight=0.3, training=replace(QUICK, epochs=1))).fit(split.train, split.valid).weight == 0.3


def test_negatives_may_be_drawn_as_often_as_they_are_taken(split):
    """Never one that the user has, and otherwise in proportion to how often each was taken."""
    dense, users = split.train.toarray(), np.repeat(np.arange(100), 400)
    found = popular_not_taken(split.train, users, np.random.default_rng(0))
    assert not dense[users, found].any()
    ones = degrees(split.train)[1]
    expected = np.zeros(len(ones))
    for user in range(100):
        free = np.where(dense[user] > 0, 0, ones)
        expected += 400 * free / free.sum()
    often = expected > 50
    assert abs(np.bincount(found, minlength=len(ones))[often] / expected[often] - 1).max() < 0.4
    assert (popular_not_taken(csr_array(np.array([[1.0, 1.0], [0.0, 1.0]])), np.array([0, 1]), np.random.default_rng(0)) == [-1, 0]).all()


def test_combined_is_symmetric_where_the_operator_is():
    u, i = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    for operator in ("hadamard", "average", "l1", "l2"):
        assert torch.equal(combined(u, i, operator), combined(i, u, operator))


def test_the_first_layer_is_that_of_an_mlp_on_one_hot_bins():
    torch.manual_seed(0)
    mlp = BinnedMLP((0, 3, 7), 4, SMALL).eval()
    bins = torch.randint(0, 4, (9, 8), dtype=torch.uint8)
    hot = torch.cat([torch.nn.functional.one_hot(bins[:, c].long(), 4) for c in (0, 3, 7)], dim=1).numpy()
    hidden = np.maximum(hot @ mlp.rows.weight.detach().numpy() + mlp.bias.detach().numpy(), 0)
    for layer in mlp.rest:
        if isinstance(layer, torch.nn.Linear):
            last = hidden @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
            hidden = np.maximum(last, 0)
    assert mlp(bins).detach().numpy() == pytest.approx(last, abs=1e-5)


def test_the_networks_read_bins_from_another_device():
    """Only the shapes are worked out on ``meta``, but a tensor of the CPU is refused there as it is on a card."""
    bins = torch.randint(0, 10, (9, 8), dtype=torch.uint8)
    for combine in ("two", "joint", "attention"):
        networks = Networks(replace(SMALL, combine=combine)).to("meta")
        assert networks.joined(bins).device.type == "meta"
        assert networks((bins, bins))[0].device.type == "meta"


class OnACard(torch.Tensor):
    """What NumPy can't read before it is brought to the CPU."""

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def numpy(self):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


@pytest.mark.parametrize("combine", ["two", "joint", "attention"])
def test_scores_are_brought_back_to_the_cpu(split, combine, monkeypatch):
    settings = replace(SMALL, combine=combine, training=replace(QUICK, epochs=1))
    fitted, users, there = PreRec(settings).fit(split.train), np.arange(3), BinnedMLP.forward
    expected = fitted.scores(users)
    monkeypatch.setattr(BinnedMLP, "forward", lambda self, bins: there(self, bins).as_subclass(OnACard))
    np.testing.assert_array_equal(fitted.scores(users), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("combine", ["two", "joint", "attention"])
def test_cpu_equals_gpu(split, combine):
    """Equal weights give scores equal to 1e-4; and what the GPU learns by itself is as good."""
    settings, users = replace(SMALL, combine=combine), np.arange(50)
    here, there = (PreRec(replace(settings, training=replace(QUICK, device=device))) for device in ("cpu", "cuda"))
    here.fit(split.train, split.valid)
    there.restore(here.state())
    there.bind(split.train)
    np.testing.assert_allclose(there.scores(users), here.scores(users), atol=1e-4)
    found, expected = (MatrixProtocol().summary(evaluate(m, split))["NDCG@20"] for m in (there.fit(split.train, split.valid), here))
    assert found == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("combine", ["two", "joint", "attention"])
def test_the_loss_is_bpr_with_squared_weights(combine):
    torch.manual_seed(0)
    networks = Networks(replace(SMALL, combine=combine, decay=0.01)).eval()
    one, negative = torch.randint(0, 10, (2, 50, 8), dtype=torch.uint8)
    loss, count = networks((one, negative))
    parts = [networks.parts(b).detach().numpy() for b in (one, negative)]
    if combine == "attention":
        gates = [networks.gate(b).detach().numpy() for b in (one, negative)]
        weights = [np.exp(g) / np.exp(g).sum(1, keepdims=True) for g in gates]
        parts = [(p * w).sum(1, keepdims=True) for p, w in zip(parts, weights, strict=True)]
    plain = np.log1p(np.exp(-(parts[0] - parts[1]))).sum() + 0.01 * 50 * sum(float((p.detach() ** 2).sum()) for p in networks.parameters())
    assert count == 50
    assert float(loss.detach()) == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize(("combine", "density"), [("two", "edges"), ("joint", "edges"), ("attention", "edges"), ("two", "between")])
def test_scores_are_the_networks_on_the_bins_of_each_pair(split, combine, density):
    fitted = PreRec(replace(SMALL, combine=combine, features=replace(FEATURES, density=density))).fit(split.train, split.valid)
    users, n = np.array([0, 7, 31]), split.train.shape[1]
    bins = bins_of(fitted.described, np.repeat(users, n), np.tile(np.arange(n), 3))
    weights = torch.tensor([fitted.weight, 1 - fitted.weight])
    with torch.no_grad():
        plain = (fitted.networks.parts(bins) @ weights if combine == "two" else fitted.networks.joined(bins)).numpy().reshape(3, n)
    assert fitted.scores(users) == pytest.approx(plain, abs=1e-5)
    assert fitted.scores(users[1:2]) == pytest.approx(plain[1:2], abs=1e-5)


def test_activity_alone_ranks_as_binned_popularity_does():
    """To the last digit, where popularity is all there is and there is enough of it to learn from."""
    crowd = split_matrix(binary(ToyWorld(ToySettings(users=(40_000, 20, 20), tail=1.2, structure=0.0)).dataset("grocery")))
    features = replace(FEATURES, bins=5)
    alone = PreRec(replace(SMALL, families=("activity",), features=features, questions=0.5)).fit(crowd.train)
    tables = [evaluate(m, crowd) for m in (alone, BinnedPopularity(features).fit(crowd.train))]
    assert (tables[0].greater == tables[1].greater).all()
    assert (tables[0].ties == tables[1].ties).all()
    assert MatrixProtocol().summary(tables[0]) == MatrixProtocol().summary(tables[1])


@pytest.fixture(scope="module")
def sparse() -> tuple[MatrixSplit, FeatureSettings]:
    """Few ones a user and walks that turn back, so that one edge weighs much: what the guard is for."""
    data = ToyWorld(ToySettings(users=(1500, 20, 20), tail=1.0, taste=3.0)).dataset("grocery")
    walks = Node2VecSettings(dimension=64, walks=10, length=40, window=2, p=0.25)
    return split_matrix(binary(data, 3)), FeatureSettings(node2vec=walks)


def test_with_the_guard_questions_look_like_what_is_served_and_without_it_they_do_not(sparse):
    """Both in the inner product of a pair's vectors and in the density of its cluster (two-sample Kolmogorov-Smirnov)."""
    split, features = sparse
    user, item = rows_of(split.train), split.train.indices
    asked = np.random.default_rng(0).random(split.train.nnz) < 0.1
    guarded = Statistics(matrix_of(user[~asked], item[~asked], split.train.shape), features)
    served = Statistics(split.train, features)

    def looks(described: Statistics, user: np.ndarray, item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u, i = described.vectors[0][user], described.vectors[1][item]
        return (u * i).sum(1).numpy(), described.pairs[described.clusters_of(user, item), 1].astype(float)

    found = looks(served, rows_of(split.test), split.test.indices)
    for learned, same in ((looks(guarded, user[asked], item[asked]), True), (looks(served, user[asked], item[asked]), False)):
        for a, b in zip(learned, found, strict=True):
            p = ks_2samp(a, b).pvalue
            assert p > 0.01 if same else p < 1e-9


def test_features_that_see_the_test_find_more_than_there_is_to_know(sparse):
    """The other leak: if the matrix that is served holds what is to be found, finding it is no feat."""
    split, features = sparse
    model = PreRec(replace(SMALL, features=features)).fit(split.train, split.valid)
    fair, leaking = (evaluate(m, split) for m in (model, model.transfer((split.known + split.test).astype(np.float32))))
    assert MatrixProtocol().summary(leaking)["Recall@20"] > 1.05 * MatrixProtocol().summary(fair)["Recall@20"]


def test_it_finds_more_than_popularity_where_tastes_are_strong(split, model):
    found, popular = (
        MatrixProtocol().summary(evaluate(m, split))["Recall@20"] for m in (model, BinnedPopularity(replace(FEATURES, bins=100)).fit(split.train))
    )
    assert found > 1.1 * popular


def test_it_serves_another_matrix_and_learns_nothing_there(split, model):
    other = split_matrix(binary(WORLD.dataset("pantry")))
    before = {name: value.clone() for name, value in model.networks.state_dict().items()}
    moved = model.transfer(other.train)
    assert moved.scores(np.arange(3)).shape == (3, other.train.shape[1])
    assert all(torch.equal(before[name], value) for name, value in moved.networks.state_dict().items())
    assert model.train.shape == split.train.shape
    dealt = moved.transfer(other.train)
    dealt.described = moved.described.shuffled(0)
    assert np.sort(dealt.described.items, axis=0).tolist() == np.sort(moved.described.items, axis=0).tolist()
    fair, control = (MatrixProtocol().summary(evaluate(m, other))["Recall@20"] for m in (moved, dealt))
    assert control < fair


def test_interpolation_is_the_base_at_one_and_ours_at_none(split, model):
    base = BinnedPopularity(FEATURES).fit(split.train)
    ends = []
    for alpha in (1.0, 0.0):
        mixed = Interpolated(base, model, alpha)
        mixed.bind(split.train)
        ends.append(MatrixProtocol().summary(evaluate(mixed, split))["NDCG@20"])
    assert ends == pytest.approx([MatrixProtocol().summary(evaluate(m, split))["NDCG@20"] for m in (base, model)], abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (lambda: replace(SMALL, families=()), "one or more of activity"),
        (lambda: replace(SMALL, questions=1.0), "a share between 0 and 1"),
        (lambda: replace(FEATURES, pair_clusters=300), "expected 1 to 256"),
        (lambda: PreRec(SMALL).fit(csr_array(np.eye(3, dtype=np.float32))), "too small to learn from"),
        (lambda: Statistics(csr_array((3, 3), dtype=np.float32), FEATURES), "holds no one"),
    ],
)
def test_bad_input_is_said(settings, said):
    with pytest.raises(DataError, match=said):
        settings()


@pytest.mark.parametrize(
    ("settings", "change", "said"),
    [
        (FEATURES, {"operator": "sum"}, "feature settings: operator is 'sum'; expected one of hadamard, average, l1, l2"),
        (FEATURES, {"density": "volume"}, "feature settings: density is 'volume'; expected one of edges, distance, between"),
        (FEATURES, {"activity": "rank"}, "feature settings: activity is 'rank'; expected one of nodes, mass, log"),
        (SMALL, {"combine": "sum"}, "PreRec settings: combine is 'sum'; expected one of two, joint, attention"),
    ],
)
def test_a_word_that_no_setting_knows_is_refused(settings, change, said):
    with pytest.raises(ValueError, match=said):
        replace(settings, **change)


def test_several_processes_are_refused(split, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="PreRec: 2 processes were started"):
        PreRec(replace(SMALL, families=("activity",))).fit(split.train)


def test_ones_of_which_none_is_a_question_are_refused():
    with pytest.raises(DataError, match="none of 20 ones became a question to learn from"):
        PreRec(replace(SMALL, families=("activity",), questions=0.001)).fit(matrix_of(np.arange(20), np.arange(20), (20, 20)))


def test_a_catalogue_of_one_item_is_served_but_teaches_nothing(model):
    one = matrix_of(np.arange(40), np.zeros(40, int), (40, 1))
    assert model.transfer(one).scores(np.arange(2)).shape == (2, 1)
    with pytest.raises(DataError, match="expected blanks to learn from"):
        PreRec(SMALL).fit(one)


def test_a_user_of_everything_is_served():
    user = np.concatenate([np.zeros(30, int), np.arange(1, 30)])
    everything = matrix_of(user, np.concatenate([np.arange(30), np.arange(29)]), (30, 30))
    assert np.isfinite(PreRec(SMALL).fit(everything).scores(np.arange(30))).all()
