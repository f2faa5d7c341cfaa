"""MAIL's zero-shot tower against a plain reading of its equations, what may learn from what, and the ranking towers that it stands before."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from test_models_dmr import array, dense
from torch import Tensor, nn

from zsrbook.data.clicks import TEST, TRAIN, VALID, Layout
from zsrbook.data.dataset import DataError
from zsrbook.data.toy import ToySettings, ToyWorld
from zsrbook.evaluation.auc import auc
from zsrbook.models import ranking
from zsrbook.models.dmr import DMR, DMRSettings
from zsrbook.models.mail import MAIL, MAILSettings, discrepancy, kernel_sums
from zsrbook.models.ranking import (
    BaseDNN,
    Dropout,
    Embedded,
    RankingModel,
    RankingSettings,
    Space,
    Tower,
    batch_of,
    dropout,
    pooled,
)
from zsrbook.training import Training, optimizers_of

FORMS, ALIGNMENTS, BANDWIDTHS = ("none", "single", "dual", "mail"), ("mmd", "printed", "unbiased", "paired"), ("one", "median", "several")
N_A, WIDTH, LONGEST, SLOPE = 3, 4, 5, 0.2
SPACE = Space(
    Layout(("u", "age", "job"), ("hour",), ("item",), ("item", "action")), {"u": 9, "age": 3, "job": 3, "hour": 4, "item": 9}, WIDTH, LONGEST
)
TINY = MAILSettings(attention=6, encoder=(9, 8, 7), decoder=(6, 10), dropout=0.0)


def tower(seed: int = 0, space: Space = SPACE, **more) -> MAIL:
    """In float64, all weights away from zero."""
    torch.manual_seed(seed)
    made = MAIL(space, replace(TINY, **more)).double()
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.randn_like(weight) * 0.4)
    return made


def embedded(lengths: list[int], seed: int = 0, scale: float = 1.0) -> Embedded:
    """Rows with behaviours of these lengths, padded to the longest of them, not to the longest there is."""
    generator, n = torch.Generator().manual_seed(seed), len(lengths)

    def draw(*shape: int) -> Tensor:
        return scale * torch.randn(*shape, WIDTH, generator=generator, dtype=torch.float64)

    mask = torch.arange(max([1, *lengths])) < torch.tensor(lengths, dtype=torch.int64).reshape(n, 1)
    return Embedded(draw(n, N_A), draw(n, mask.shape[1]) * mask.unsqueeze(2), mask, draw(n, 1), draw(n, 1), torch.zeros(n, 1, dtype=torch.int64))


# -- the equations, one row at a time --------------------------------------------------------------------------------------


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, SLOPE * x)


def plain_attention(attention, rows: np.ndarray) -> np.ndarray:
    """Eqs. 1 and 2, over rows that are there."""
    z = array(attention.out.weight)[0]
    e = np.array([z @ np.tanh(dense(attention.dense, row)) for row in rows])
    alpha = np.exp(e) / np.exp(e).sum()
    return sum(weight * row for weight, row in zip(alpha, rows, strict=True))


def plain_residual(layers: nn.ModuleList, h: np.ndarray) -> np.ndarray:
    """Eqs. 15 and 16 up to the last dense layer, without dropout."""
    z1 = leaky(dense(layers[0], h))
    z2 = leaky(dense(layers[1], np.concatenate([z1, h])))
    return dense(layers[2], np.concatenate([z2, h]))


def plain_p(made: MAIL, x: Embedded, row: int) -> np.ndarray:
    return leaky(plain_residual(made.encode_a.layers, plain_attention(made.attend_a, array(x.a[row]))))


def plain_q(made: MAIL, x: Embedded, row: int) -> np.ndarray:
    return leaky(plain_residual(made.encode_v.layers, plain_attention(made.attend_v, array(x.v[row][x.mask[row]]))))


def plain_error(made: MAIL, x: Embedded, row: int, code: np.ndarray) -> float:
    """Eq. 3 or 4 of one row."""
    behaviour = plain_residual(made.decode_v.layers, code).reshape(LONGEST, WIDTH)
    length = int(x.mask[row].sum())
    counted = LONGEST if made.settings.padding else length
    target = np.zeros((LONGEST, WIDTH))
    target[:length] = array(x.v[row, :length])
    attributes = plain_residual(made.decode_a.layers, code).reshape(N_A, WIDTH)
    return ((attributes - array(x.a[row])) ** 2).sum() + sum(((behaviour[i] - target[i]) ** 2).sum() for i in range(counted))


def plain_alignment(p: list[np.ndarray], q: list[np.ndarray], alignment: str, bandwidth: str) -> float:
    """Eqs. 5 and 6 by loops over pairs."""
    n = len(p)
    if alignment == "paired":
        return sum(((a - b) ** 2).sum() for a, b in zip(p, q, strict=True)) / n

    everything = p + q
    far = sorted(((everything[i] - everything[j]) ** 2).sum() for i in range(2 * n) for j in range(i))
    middle = far[(len(far) - 1) // 2]  # the lower one of two
    variances = {"one": [1.0], "median": [middle], "several": [middle * f for f in (0.25, 0.5, 1, 2, 4)]}[bandwidth]

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([np.exp(-((a - b) ** 2).sum() / (2 * v)) for v in variances]))

    pairs = [(i, j) for i in range(n) for j in range(n) if alignment != "unbiased" or i != j]
    divisor = {"mmd": n**2, "printed": n, "unbiased": n * (n - 1)}[alignment]
    return sum(k(p[i], p[j]) + k(q[i], q[j]) for i, j in pairs) / divisor - 2 * sum(k(a, b) for a in p for b in q) / n**2


LENGTHS = [2, 4, 1, 3]


def test_codes_and_generated_behaviour_follow_the_equations():
    made, x = tower(), embedded(LENGTHS)
    for row in range(len(LENGTHS)):
        np.testing.assert_allclose(array(made.p(x))[row], plain_p(made, x, row), rtol=1e-9)
        np.testing.assert_allclose(array(made.q(x))[row], plain_q(made, x, row), rtol=1e-9)
        plain = plain_residual(made.decode_v.layers, plain_p(made, x, row)).reshape(LONGEST, WIDTH)
        np.testing.assert_allclose(array(made.generated(x))[row], plain, rtol=1e-9)


def test_the_linear_map_reads_the_attributes_alone():
    made, x = tower(form="none"), embedded(LENGTHS)
    assert {name for name, _ in made.named_parameters()} == {"map.weight", "map.bias"}
    plain = [dense(made.map, array(row).ravel()).reshape(LONGEST, WIDTH) for row in x.a]
    np.testing.assert_allclose(array(made.generated(x)), plain, rtol=1e-9)


@pytest.mark.parametrize("padding", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_reconstruction_losses_follow_equations_3_and_4(form, padding):
    made, x = tower(form=form, padding=padding), embedded(LENGTHS)
    found = made.losses(x)
    assert list(found) == {"none": [], "single": ["attributes"], "dual": ["attributes", "behaviour"]}.get(
        form, ["attributes", "behaviour", "alignment"]
    )
    plain = {"attributes": plain_p, "behaviour": plain_q}
    for name in set(found) & set(plain):
        mean = np.mean([plain_error(made, x, row, plain[name](made, x, row)) for row in range(len(LENGTHS))])
        assert found[name].item() == pytest.approx(mean, rel=1e-9)


@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_the_alignment_loss_follows_equations_5_and_6(alignment, bandwidth):
    lengths = [*LENGTHS, 5, 2, 3]
    made, x = tower(alignment=alignment, bandwidth=bandwidth), embedded(lengths, scale=0.5)
    p, q = ([plain(made, x, row) for row in range(len(lengths))] for plain in (plain_p, plain_q))
    assert made.losses(x)["alignment"].item() == pytest.approx(plain_alignment(p, q, alignment, bandwidth), rel=1e-6, abs=1e-9)
    if alignment != "paired":
        codes = [*p, *q]
        values = [plain_alignment([a], [b], "mmd", "one") for i, a in enumerate(codes) for b in codes[:i]]  # 2 - 2 k
        if bandwidth == "one":
            assert float(made.notes["kernel"]) == pytest.approx(1 - np.mean(values) / 2, rel=1e-6)
        assert 0 < float(made.notes["kernel"]) < 1


def test_discrepancies_differ_as_they_should():
    codes = torch.randn(2000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    n = 1000
    p, q = codes[:n], codes[n:]
    assert float(discrepancy(*kernel_sums(p, q), n, "unbiased")) == pytest.approx(0, abs=1e-3)
    assert 0 < float(discrepancy(*kernel_sums(p, q), n)) < 3e-3
    assert float(discrepancy(*kernel_sums(p, q + 1), n)) > 0.1
    apart = torch.tensor(2.0 * n), torch.tensor(0.0)  # every kernel value of different codes is 0
    assert float(discrepancy(*apart, n)) == pytest.approx(2 / n)
    assert float(discrepancy(*apart, n, "printed")) == pytest.approx(2)
    assert float(discrepancy(*apart, n, "unbiased")) == 0


def test_base_dnn_and_its_loss_follow_equations_11_to_13():
    torch.manual_seed(0)
    made, x = BaseDNN(SPACE, hidden=(7, 6)).double(), embedded(LENGTHS)
    layers = [layer for layer in made.layers if isinstance(layer, (nn.Linear, nn.BatchNorm1d))]
    with torch.no_grad():
        for layer in layers:
            for weight in layer.parameters():
                weight.copy_(torch.randn_like(weight))
            if isinstance(layer, nn.BatchNorm1d):  # running statistics far from where they begin
                layer.running_mean.copy_(torch.randn_like(layer.running_mean))
                layer.running_var.copy_(torch.rand_like(layer.running_var) + 0.5)
    first, norm_1, second, norm_2, last = layers

    def normal(norm: nn.BatchNorm1d, z: np.ndarray) -> np.ndarray:
        centred = (z - array(norm.running_mean)) / np.sqrt(array(norm.running_var) + 1e-5)
        return array(norm.weight) * centred + array(norm.bias)

    def block(layer: nn.Linear, norm: nn.BatchNorm1d, z: np.ndarray) -> np.ndarray:
        z = normal(norm, dense(layer, z))
        return np.where(z > 0, z, 0.01 * z)

    def odds(row: int) -> float:
        sums = [array(group[row]).sum(0) for group in (x.v, x.a, x.c, x.t)]  # Eq. 11
        return dense(last, block(second, norm_2, block(first, norm_1, np.concatenate(sums))))[0]  # Eq. 12 before the sigmoid

    plain, click = np.array([odds(row) for row in range(len(LENGTHS))]), [1, 0, 0, 1]
    log_odds = made.eval()(x)
    np.testing.assert_allclose(array(log_odds), plain, atol=1e-5)
    chances = 1 / (1 + np.exp(-plain))
    loss = -np.mean([y * np.log(y_hat) + (1 - y) * np.log(1 - y_hat) for y, y_hat in zip(click, chances, strict=True)])  # Eq. 13, averaged
    assert ranking.log_loss(array(log_odds), np.array(click)) == pytest.approx(loss, abs=1e-5)


# -- the edges -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_batches_of_no_or_one_old_row_give_finite_losses_and_slopes(alignment, bandwidth, rows):
    made = tower(alignment=alignment, bandwidth=bandwidth)
    found = made.losses(embedded([2] * rows))
    sum(found.values()).backward()
    assert all(loss.isfinite() for loss in [*found.values(), *made.notes.values()])
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in made.parameters())
    if not rows:
        assert all(loss.item() == 0 for loss in found.values())


def test_equal_codes_give_finite_slopes():
    for bandwidth in BANDWIDTHS:
        codes = torch.ones(6, 3, requires_grad=True)
        discrepancy(*kernel_sums(codes[:3], codes[3:], bandwidth), 3).backward()
        assert codes.grad.isfinite().all()


def test_what_lies_outside_the_mask_has_no_influence():
    made, x = tower(), embedded([2, 3])
    noise = torch.randn_like(x.v) * ~x.mask.unsqueeze(2)
    assert torch.equal(made.q(x), made.q(x._replace(v=x.v + noise)))
    wider = x._replace(v=torch.cat([x.v, torch.zeros(2, 2, WIDTH)], 1), mask=torch.cat([x.mask, torch.zeros(2, 2, dtype=torch.bool)], 1))
    torch.testing.assert_close(made.q(wider), made.q(x))
    for name, loss in made.losses(wider).items():
        torch.testing.assert_close(loss, made.losses(x)[name])
    masked = tower(padding=False)
    for name, loss in masked.losses(x._replace(v=x.v + noise)).items():
        torch.testing.assert_close(loss, masked.losses(x)[name])


def test_fill_gives_new_rows_a_whole_behaviour_and_leaves_the_others():
    for form in FORMS:
        made, x, new = tower(form=form), embedded([3, 0, 2, 0]), torch.tensor([False, True, False, True])
        filled = made.fill(x, new)
        assert filled.v.shape == (4, LONGEST, WIDTH)
        assert filled.mask.shape == (4, LONGEST)
        torch.testing.assert_close(filled.v[new], made.generated(x)[new])
        assert filled.mask[new].all()
        assert torch.equal(filled.v[~new, :3], x.v[~new])
        assert torch.equal(filled.mask[~new, :3], x.mask[~new])
        assert not filled.v[~new, 3:].any()
        assert not filled.mask[~new, 3:].any()
        for before, after in zip((x.a, x.c, x.t), (filled.a, filled.c, filled.t), strict=True):
            assert before is after
        assert made.fill(x, new & False) is x


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.5, 0.1, 0.001])
def test_dropout_hides_its_share_and_makes_up_for_it(rate, dtype):
    hidden = round(256 * rate) / 256  # 0.001 is so near 0 that nothing is hidden by chance bytes, and PyTorch's own takes it
    x = torch.ones(101, 1009, dtype=dtype, requires_grad=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = dropout(x, rate), dropout(x, rate)
    kept = first != 0
    assert kept.float().mean().item() == pytest.approx(1 - (hidden or rate), abs=5e-3)
    assert not torch.equal(kept, second != 0)
    assert first[kept].float().unique().tolist() == pytest.approx([1 / (1 - (hidden or rate))], rel=4e-3)
    first.sum().backward()
    assert torch.equal(x.grad, first)
    assert torch.equal(Dropout(rate).eval()(x), x)


def test_dropout_draws_each_number_by_itself():
    """Neighbours in a row or a column are hidden together by chance alone, also across the words that the bytes come from."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hidden = (dropout(torch.ones(1000, 1000), 0.5) == 0).float()
    for step in (1, 2, 7, 8, 9):
        for a, b in ((hidden[step:], hidden[:-step]), (hidden[:, step:], hidden[:, :-step])):
            assert (a * b).mean().item() == pytest.approx(0.25, abs=3e-3)


def test_dropout_is_off_in_what_is_made_up_and_on_in_the_losses():
    made, x, new = tower(dropout=0.5), embedded([3, 0, 2]), torch.tensor([False, True, False])
    old = Embedded(*(part[~new] for part in x))
    made.eval()
    still, quiet = made.fill(x, new).v, made.losses(old)
    made.train()
    assert torch.equal(made.fill(x, new).v, still)
    assert all(not torch.equal(loss, quiet[name]) for name, loss in made.losses(old).items())


def test_new_users_may_be_filled_at_inference_alone():
    made, x, new = tower(fill_training=False), embedded([3, 0]), torch.tensor([False, True])
    assert made.train().fill(x, new) is x
    assert made.eval().fill(x, new).mask[1].all()


def test_dense_layers_begin_as_xavier_says():
    made = MAIL(Space(SPACE.layout, SPACE.vocabularies, 32, 50))
    layer = made.decode_v.layers[2]
    assert layer.weight.shape == (50 * 32, 1024 + 512)
    assert layer.weight.abs().max().item() == pytest.approx(np.sqrt(6 / sum(layer.weight.shape)), rel=1e-3)
    assert not layer.bias.any()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"form": "triple"}, "none, single, dual, mail"),
        ({"alignment": "mdd"}, "'mdd'"),
        ({"form": "none", "fill_training": False}, "fill_training=True"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        MAILSettings(**wrong)


def test_behaviours_longer_than_the_tower_are_refused():
    with pytest.raises(ValueError, match=r"6 rows.*5 at most"):
        tower().fill(embedded([6, 0]), torch.tensor([False, True]))


@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
@pytest.mark.parametrize("alignment", ["mmd", "unbiased", "paired"])
def test_alignment_draws_the_two_kinds_of_codes_together(alignment, bandwidth):
    made, x = tower(alignment=alignment, bandwidth=bandwidth), embedded([1, 2, 3, 4, 5] * 8)

    def apart() -> float:
        """Distance of the mean codes over the spread of the codes."""
        p, q = made.p(x).detach(), made.q(x).detach()
        return float((p.mean(0) - q.mean(0)).norm() / torch.cat([p, q]).std(0).norm())

    before, adam = apart(), torch.optim.Adam(made.parameters(), 0.01)
    for _ in range(60):
        adam.zero_grad()
        made.losses(x)["alignment"].backward()
        adam.step()
    assert apart() < 0.5 * before


# -- in a ranking model ----------------------------------------------------------------------------------------------------


class DIN(Tower):
    """A reader's own tower: behaviours weighted by what they share with the item (Zhou et al. 2018), in the plainest form."""

    def __init__(self, space: Space):
        super().__init__()
        self.weigh = nn.Sequential(nn.Linear(3 * space.width, 16), nn.PReLU(), nn.Linear(16, 1))
        self.layers = nn.Sequential(nn.Linear(4 * space.width, 16), nn.PReLU(), nn.Linear(16, 1))

    def forward(self, x: Embedded) -> Tensor:
        item = x.t.sum(1, keepdim=True).expand_as(x.v)  # (B, L, d)
        weight = self.weigh(torch.cat([x.v, item, x.v * item], dim=2)) * x.mask.unsqueeze(2)  # (B, L, 1)
        return self.layers(pooled(x._replace(v=x.v * weight))).squeeze(1)


TWICE = Training(epochs=2, optimizer="adam", learning_rate=0.01, clip=None, patience=None, device="cpu")
QUICK = RankingSettings(width=8, spread=0.5, batch=256, training=TWICE)  # so large a spread that there is something to give back from the start
SMALL = MAILSettings(attention=16, encoder=(32, 16, 16), decoder=(16, 32), dropout=0.1)
base = partial(BaseDNN, hidden=(16, 8), dropout=0.1)


def small(**more) -> partial:
    return partial(MAIL, settings=replace(SMALL, **more))


@pytest.fixture(scope="module")
def clicks():
    return ToyWorld(ToySettings(users=(300, 1, 1), items=(60, 40, 40))).clicks("grocery", 4000, longest=6).made_new(0.4)


@pytest.mark.parametrize("kept", [0, 1])
def test_training_impressions_that_are_not_there_are_said(clicks, kept):
    few = clicks.subset((clicks.fold != TRAIN) | (np.arange(len(clicks)) == clicks.rows(TRAIN)[0]) & (kept > 0))
    with pytest.raises(DataError, match=f"{kept} training impressions; expected 2 or more"):
        RankingModel(BaseDNN, QUICK).fit(few)


@pytest.fixture(scope="module")
def fitted(clicks):
    return RankingModel(base, QUICK, small()).fit(clicks)


def gradients(clicks, pick, **more) -> tuple[dict[str, bool], nn.Module]:
    """Which weights get a gradient from one of a batch's losses."""
    model = RankingModel(base, QUICK, small(**more))
    model.build(clicks)
    network = model.network.train()
    batch = batch_of(clicks, clicks.rows(TRAIN)[:300], torch.device("cpu"))
    x = network.fields(batch)
    old = Embedded(*(part[~batch.new].detach() for part in x))
    loss = sum(network.filler.losses(old).values()) if pick == "zero-shot" else network.tower(network.filled(x, batch.new)).square().sum()
    loss.backward()
    return {name: w.grad is not None and bool(w.grad.to_dense().any()) for name, w in network.named_parameters()}, network


@pytest.mark.parametrize("form", FORMS[1:])
def test_zero_shot_losses_reach_the_whole_tower_and_nothing_else(clicks, form):
    found, _ = gradients(clicks, "zero-shot", form=form)
    assert all(reached == name.startswith("filler.") for name, reached in found.items()), found


def test_the_ranking_loss_reaches_the_tower_only_if_asked(clicks):
    for form in FORMS[1:]:
        found, _ = gradients(clicks, "ranking", form=form)
        assert not any(reached for name, reached in found.items() if name.startswith("filler."))
        assert found["fields.table.weight"]
    made = {"attend_a", "encode_a", "decode_v"}  # the way of Eq. 8
    found, _ = gradients(clicks, "ranking", joint=True)
    assert all(reached == (name.split(".")[1] in made) for name, reached in found.items() if name.startswith("filler."))
    found, _ = gradients(clicks, "ranking", form="none")
    assert found["filler.map.weight"]


def test_embeddings_move_by_the_ranking_loss_alone(clicks):
    """The whole loss of a step: where no row is filled, the gradient in the table is that without a tower."""
    table = {}
    for filler in (None, small(fill_training=False)):
        model = RankingModel(base, QUICK, filler)
        model.build(clicks)
        model.network.train().tower.eval()  # no dropout, so that both see the same
        loss, n = model.network(batch_of(clicks, clicks.rows(TRAIN)[:300], torch.device("cpu")))
        (loss / n).backward()
        table[filler is None] = model.network.fields.table.weight.grad.to_dense()
    assert table[True].any()
    torch.testing.assert_close(table[True], table[False])


@torch.no_grad()
def test_a_ranking_model_learns_by_equation_13(clicks):
    """What training minimises without a filler or a tower's own loss is the log loss of its scores."""
    model = RankingModel(partial(BaseDNN, hidden=(7, 6)), QUICK)
    model.build(clicks)
    rows = clicks.rows(TRAIN)[:200]
    loss, n = model.network(batch_of(clicks, rows, torch.device("cpu")))
    assert n == len(rows)
    assert float(loss) / n == pytest.approx(model.loss(clicks, rows), abs=1e-5)


def test_it_learns_and_every_loss_falls(clicks, fitted):
    trace = {name: np.array([float(step[name]) for step in fitted.network.trace]) for name in fitted.network.trace[0]}
    assert set(trace) == {"attributes", "behaviour", "alignment", "ranking", "kernel"}
    for name in ("attributes", "behaviour", "ranking"):
        assert trace[name][-3:].mean() < 0.95 * trace[name][:3].mean(), name
    assert ((trace["kernel"] > 0) & (trace["kernel"] <= 1)).all()
    rows = np.concatenate([clicks.rows(fold) for fold in (VALID, TEST)])
    assert auc(clicks.click[rows], fitted.scores(clicks, rows)) > 0.55


def test_data_whose_codes_mean_something_else_get_no_scores(clicks, fitted):
    others = ToyWorld(ToySettings(users=(301, 1, 1), items=(60, 40, 40))).clicks("grocery", 4000, longest=6)
    with pytest.raises(DataError, match=r"vocabularies user \(302 codes\).*, but the model was fitted on data with user \(301 codes\)"):
        fitted.scores(others, others.rows(TEST))


def test_seeds_repeat_exactly(clicks, fitted):
    rows = clicks.rows(TEST)
    again = RankingModel(base, QUICK, small()).fit(clicks)
    assert np.array_equal(again.scores(clicks, rows), fitted.scores(clicks, rows))
    other = RankingModel(base, replace(QUICK, training=replace(QUICK.training, seed=1)), small()).fit(clicks)
    assert not np.array_equal(other.scores(clicks, rows), fitted.scores(clicks, rows))


@pytest.mark.gpu
@pytest.mark.parametrize("tower", [base, partial(DMR, settings=DMRSettings(hidden=(16, 8), attention=16, negatives=5))], ids=["BaseDNN", "DMR"])
def test_cpu_equals_gpu(clicks, tower):
    """Equal weights give scores equal to 1e-4 of the largest; and what the GPU learns by itself is as good, in float32 and in bfloat16."""
    rows, here = clicks.rows(TEST), RankingModel(tower, QUICK, small()).fit(clicks)
    for precision in ("float32", "bfloat16"):
        settings = replace(QUICK, training=replace(TWICE, device="cuda", precision=precision))
        there = RankingModel(tower, settings, small()).fit(clicks)
        assert auc(clicks.click[rows], there.scores(clicks, rows)) == pytest.approx(auc(clicks.click[rows], here.scores(clicks, rows)), abs=0.05)
    there.network.load_state_dict(here.network.state_dict())
    np.testing.assert_allclose(there.scores(clicks, rows), here.scores(clicks, rows), atol=1e-4 * np.abs(here.scores(clicks, rows)).max())


def test_a_run_that_was_killed_keeps_the_trace_of_all_its_steps(clicks, monkeypatch, tmp_path):
    long = replace(QUICK, training=replace(TWICE, epochs=4))
    whole = RankingModel(base, long, small(), checkpoint=tmp_path / "whole.pt").fit(clicks)
    left, cut = [len(whole.network.trace) * 5 // 8], ranking.batch_of

    def until_killed(*given):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return cut(*given)

    resumed = RankingModel(base, long, small(), checkpoint=tmp_path / "killed.pt")
    with monkeypatch.context() as patch:
        patch.setattr(ranking, "batch_of", until_killed)
        with pytest.raises(KeyboardInterrupt):
            resumed.fit(clicks)
    assert len(resumed.fit(clicks).curve) == 4
    assert {tuple(step) for step in resumed.network.trace} == {("attributes", "behaviour", "alignment", "ranking", "kernel")}
    assert resumed.network.trace == whole.network.trace


def test_the_trace_ends_where_the_best_weights_were_found(clicks):
    restless = replace(QUICK, training=replace(TWICE, epochs=5, learning_rate=0.1, patience=1))
    model = RankingModel(base, restless).fit(clicks)
    best = min(model.curve, key=lambda row: row["valid"])["epoch"]
    steps = len(list(ranking.in_batches(clicks.rows(TRAIN), QUICK.batch)))
    assert best + 1 < len(model.curve)
    assert len(model.network.trace) == (best + 1) * steps


@torch.no_grad()
def test_made_up_behaviour_follows_the_attributes_and_nothing_else(clicks, fitted):
    network = fitted.network
    batch = batch_of(clicks, clicks.rows(TEST, "new")[:64], torch.device("cpu"))
    x = network.fields(batch)
    made = network.filler.generated(x)
    assert made.shape == (64, clicks.longest, QUICK.width)
    torch.testing.assert_close(made, network.filler.generated(x._replace(c=x.c * 0, t=x.t * 0, v=x.v + 1)))
    other = network.filler.generated(x._replace(a=x.a.roll(1, 0)))
    torch.testing.assert_close(other, made.roll(1, 0))
    assert (made - other).flatten(1).norm(dim=1).median() > 1e-3 * made.flatten(1).norm(dim=1).median()


# -- what is unknown -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
@pytest.mark.parametrize("sparse_above", [0, 10**9])
def test_what_training_never_meets_stays_at_nothing(clicks, sparse_above, optimizer):
    """New users share the unknown id under the strict protocol; padding and code 0 of all other fields move nothing either."""
    strict, settings = clicks.strict(), replace(QUICK, sparse_above=sparse_above, training=replace(TWICE, optimizer=optimizer))
    model = RankingModel(base, settings, small()).fit(strict)
    fields = model.network.fields
    assert fields.table.sparse == (sparse_above == 0)
    nothing = dict(zip(strict.vocabularies, fields.table.weight[fields.unknown].detach(), strict=True))
    assert list(nothing) == list(strict.vocabularies)
    for name, row in nothing.items():  # an action multiplies, so for it nothing is 1
        assert (row == (name == "action")).all(), name
    x = fields(batch_of(strict, strict.rows(TEST, "new"), torch.device("cpu")))
    assert not x.a[:, 0].any()
    assert (x.a[:, 1:].abs().sum(2) > 0).all()


@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
def test_a_step_costs_by_the_batch_and_not_by_the_table(clicks, optimizer):
    """Gradients hold the rows that the batch reads, whatever the table, and the step leaves all others to the last bit."""
    found = []
    for more in (0, 50_000):
        sizes = clicks.vocabularies | {"item": clicks.vocabularies["item"] + more}
        settings = replace(QUICK, sparse_above=0, training=replace(TWICE, optimizer=optimizer, epochs=1))
        model = RankingModel(partial(BaseDNN, hidden=(8,)), settings)
        model.build(replace(clicks, vocabularies=sizes))
        table, batch = model.network.fields.table.weight, batch_of(clicks, clicks.rows(TRAIN)[:64], torch.device("cpu"))
        before = table.detach().clone()
        loss, _ = model.network(batch)
        loss.backward()
        touched = table.grad.coalesce().indices()[0]
        found.append(len(touched))
        for step in optimizers_of(model.network, settings.training):
            step.step()
        moved = (table.detach() != before).any(1)
        assert not moved[~torch.isin(torch.arange(len(table)), touched)].any()
        assert moved.any()
    assert found[0] == found[1] < len(before) / 100


@pytest.mark.parametrize("sparse_above", [0, 10**9])
def test_the_unknown_is_learned_where_training_meets_it(clicks, sparse_above):
    users = clicks.users.copy()
    users[::3, 1] = 0
    model = RankingModel(base, replace(QUICK, sparse_above=sparse_above)).fit(replace(clicks, users=users))
    nothing = model.network.fields.table.weight[model.network.fields.unknown]
    learned = {name for name, row in zip(clicks.vocabularies, nothing, strict=True) if name != "action" and row.any()}
    assert learned == {clicks.layout.user[1]}


@pytest.mark.parametrize("filler", [None, *(small(form=form) for form in FORMS)])
def test_a_readers_own_tower_plugs_in(clicks, filler):
    model = RankingModel(DIN, QUICK, filler).fit(clicks)
    new, old = (clicks.rows(TEST, group) for group in ("new", "old"))
    assert np.isfinite(model.scores(clicks, new)).all()
    assert auc(clicks.click[old], model.scores(clicks, old)) > 0.5
    if filler:  # old users don't depend on who else is in the batch
        np.testing.assert_allclose(model.scores(clicks, np.concatenate([new, old]))[len(new) :], model.scores(clicks, old), rtol=1e-4, atol=1e-5)


def test_what_is_no_tower_is_refused_with_a_word_of_what_to_do(clicks):
    with pytest.raises(TypeError, match=r"Linear is no ranking tower; derive it from zsrbook\.models\.ranking\.Tower"):
        RankingModel(lambda space: nn.Linear(4, 1), QUICK).build(clicks)
