"""Run records: written whole from a clean tree, read back equal, refused when something does not fit."""

import doctest
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from zsrbook import records, training
from zsrbook.evaluation.protocol import Protocol
from zsrbook.evaluation.ranks import RankTable
from zsrbook.experiments import blogcatalog, mail, preprec, prerec, search, zesrec
from zsrbook.experiments.seeds import record_of, stamp
from zsrbook.records import RecordError, RunRecord, device, find, read, slug, write
from zsrbook.scale import Scale
from zsrbook.training import Training


def tables(seeds=(0, 1), n=500, items=300):
    rng = np.random.default_rng(0)
    user = np.sort(rng.integers(0, 90, n)).tolist()
    return {s: RankTable.of(rng.integers(0, items - 1, n).tolist(), [0] * n, items, user) for s in seeds}


def record(ranks=None, **changes):
    ranks = tables() if ranks is None else ranks
    values = [Protocol().summary(t) for t in ranks.values()]
    settings = dict(
        paper="zesrec",
        experiment="zero-shot",
        source="grocery",
        target="pantry",
        method="ZESRec-H",
        scale="toy",
        protocol=Protocol().settings(),
        config={"hidden": 300, "lr": 0.1},
        seeds=list(ranks),
        metrics={name: [v[name] for v in values] for name in values[0]},
        data_sha256="0" * 64,
        minutes=1.5,
    )
    return RunRecord(**settings | changes)


def test_what_is_written_is_read(clone):
    ranks = tables()
    path = write(record(), ranks, clone)
    assert path == clone / "zesrec/zero-shot/grocery--pantry/zesrec-h.toy.json"
    back = read(path)
    assert back == record()
    assert back.ranks.keys() == ranks.keys()
    assert all(np.array_equal(back.ranks[s].greater, ranks[s].greater) for s in ranks)
    assert len(back.code_version) == 40
    assert back.packages["torch"]
    assert back.date
    assert back.device
    assert sorted(p.name for p in path.parent.iterdir()) == ["zesrec-h.toy.json", "zesrec-h.toy.npz"]  # no temporary file is left


def test_a_file_is_read_once_and_again_when_it_or_its_ranks_change(clone):
    path = write(record(), tables(), clone)
    first = read(path)
    assert read(path) is first
    write(replace(record(), minutes=2.5), tables(), clone)
    assert read(path).minutes == 2.5
    path.with_suffix(".npz").unlink()
    assert read(path).ranks == {}


@pytest.mark.parametrize(("hardware", "said"), [(True, "bfloat16"), (False, "float32")])
def test_a_precision_that_is_left_open_is_recorded_with_the_device_and_is_no_other_run(monkeypatch, hardware, said):
    monkeypatch.setattr(training, "has_bfloat16", lambda device: hardware)

    def run(base: str, meta: str) -> RunRecord:
        config = {"training": asdict(Training(precision=base)), "meta": {"training": asdict(Training(precision=meta))}}
        about = {"paper": "mail", "experiment": "e", "target": "t", "method": "m", "scale": "toy", "config": config, "data_sha256": "0" * 64}
        ranks = tables()
        return record_of(ranks, [Protocol().summary(table) for table in ranks.values()], 90.0, Protocol(), **about)

    assert run("float32", "bfloat16").device == device()
    for precisions in (("auto", "float32"), ("float32", "auto"), ("auto", "auto")):
        found = run(*precisions)
        assert found.device == f"{device()} ({said})"
        assert stamp(found) == stamp(replace(found, device=device())), "records from before say nothing of it, and are of the same run"
        assert stamp(found) != stamp(run(said, said))


def test_settings_may_hold_numpy_numbers_and_paths(clone):
    path = write(record(config={"hidden": np.int64(300), "lr": np.float32(0.5), "cache": Path("a/b")}), tables(), clone)
    assert read(path).config == {"hidden": 300, "lr": 0.5, "cache": "a/b"}


def test_dirty_tree_is_refused_but_records_are_no_dirt(clone):
    write(record(), tables(), clone)
    write(record(method="POP"), tables(), clone)  # the first record is not committed, and that is fine
    (clone.parents[1] / "code.py").write_text("2\n")
    with pytest.raises(RecordError, match=r"1 files differ from the last commit \(code.py\); commit"):
        write(record(method="Random"), tables(), clone)
    assert not list(clone.glob("*/*/*/random*"))


def test_no_method_takes_the_place_of_another_one(clone):
    path = write(record(method="GRU4Rec"), tables(), clone)
    before = path.read_bytes()
    with pytest.raises(RecordError, match=r"gru4rec.toy.json is the record of GRU4Rec, whose place GRU4Rec\+ would take"):
        write(record(method="GRU4Rec+"), tables(), clone)
    assert path.read_bytes() == before
    path.write_bytes(before[:40])  # cut short, so it is nobody's
    write(record(method="GRU4Rec+"), tables(), clone)
    assert read(path).method == "GRU4Rec+"
    with pytest.raises(RecordError, match="method is '我'; its record is a file of that name"):
        record(method="我")


def test_a_model_that_no_commit_holds_is_measured_but_not_recorded(clone, monkeypatch):
    def mine(file):
        monkeypatch.setitem(sys.modules, "mine", SimpleNamespace(__file__=str(file)))
        return type("Mine", (), {"__module__": "mine"})

    commit = records.code_version(mine(clone.parents[1] / "code.py"))
    assert commit == records.code_version() != "unknown"
    for file in (clone / "untracked.py", Path(records.__file__)):  # below it, and elsewhere
        assert records.code_version(mine(file)) == "unknown"
    monkeypatch.setitem(sys.modules, "mine", SimpleNamespace())  # a cell of a notebook
    assert records.code_version(type("Mine", (), {"__module__": "mine"})) == "unknown"
    assert write(record(code_version=commit), tables(), clone)
    with pytest.raises(RecordError, match=r"zesrec-h.toy.json: no commit of .* has the code of the model; put it into a file, commit it"):
        write(record(code_version="unknown"), tables(), clone)


def test_folder_without_git_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "REPOSITORY", tmp_path)
    with pytest.raises(RecordError, match="no git clone"):
        write(record(), tables(), tmp_path)
    assert records.code_version() == "unknown"


def test_copy_inside_another_clone_does_not_take_its_commit(clone, monkeypatch):
    assert len(records.code_version()) == 40
    installed = clone.parents[1] / "venv"
    installed.mkdir()
    monkeypatch.setattr(records, "REPOSITORY", installed)
    assert records.code_version() == "unknown"


def test_code_is_the_same_while_nothing_that_it_imports_has_changed(clone):
    top = clone.parents[1]

    def commit(**texts):
        for name, text in texts.items():
            (top / "zsrbook" / f"{name}.py").write_text(text)
        for command in (["add", "."], ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "next"]):
            subprocess.run(["git", *command], cwd=top, check=True)
        return records.code_version()

    (top / "zsrbook").mkdir()
    first = commit(
        __init__="",
        chapter="from zsrbook import model\nfrom zsrbook.parts import part",
        model="import zsrbook.deep",
        parts="part = 1",
        deep="import zsrbook.chapter",
        page="import zsrbook.chapter",
    )
    other = commit(page="import zsrbook.model")
    assert records.same_code(first, other, "zsrbook.chapter")
    assert not records.same_code(first, other, "zsrbook.page")
    for name in ("chapter", "model", "parts", "deep", "__init__"):
        before, after = records.code_version(), commit(**{name: (top / "zsrbook" / f"{name}.py").read_text() + "\nchanged = True\n"})
        assert not records.same_code(before, after, "zsrbook.chapter"), name
        assert not records.same_code(first, after, "zsrbook.chapter"), name
    assert not records.same_code("f" * 40, after, "zsrbook.chapter"), "git has no such commit"
    assert records.same_code("unknown", "unknown", "zsrbook.chapter")


def test_metrics_must_be_those_of_the_ranks(clone):
    wrong = record(metrics={"Recall@20": [0.9, 0.9]})
    with pytest.raises(RecordError, match=r"Recall@20 of seed 0 is 0.9, but its ranks give"):
        write(wrong, tables(), clone)


def test_metrics_user_by_user_are_those_of_the_record(clone):
    back = read(write(record(), tables(), clone))
    assert back.mean("Recall@20") == pytest.approx(back.per_user("Recall@20").value)
    assert back.per_user("Recall@20") is back.per_user("Recall@20")  # worked out once
    with pytest.raises(RecordError, match="has no AUC"):
        back.mean("AUC")
    with pytest.raises(RecordError, match="no ranks beside it"):
        record().per_user("Recall@20")
    assert record(source=None).pair == "pantry"


def test_macro_metrics_are_checked_under_their_own_protocol(clone):
    ranks, protocol = tables(), Protocol(average="macro")
    values = [protocol.summary(t) for t in ranks.values()]
    write(record(protocol=protocol.settings(), metrics={"MRR@20": [v["MRR@20"] for v in values]}), ranks, clone)


def test_failed_write_leaves_the_old_record(clone, monkeypatch):
    path = write(record(), tables(), clone)
    before = path.read_bytes()
    monkeypatch.setattr(records.os, "replace", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write(record(minutes=9), tables(), clone)
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 2


def test_a_kill_between_ranks_and_record_is_read_told_and_mended(clone, monkeypatch):
    ranks = tables()
    path = write(record({0: ranks[0]}), {0: ranks[0]}, clone)
    moved = []

    def killed(temporary, into):
        if moved:
            raise KeyboardInterrupt
        moved.append(into)
        temporary.rename(into)  # replace is what is patched

    with monkeypatch.context() as patch:
        patch.setattr(records.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write(record(ranks), ranks, clone)
    assert moved == [path.with_suffix(".npz")]
    (back,) = find(clone)
    assert back.seeds == [0] == list(back.ranks)
    assert back.per_user("Recall@20").seeds == (0,)
    (told,) = back.contradictions()
    assert "ranks of seeds [1] stand beside it, which are not among the seeds [0]" in told
    mended = read(write(back.with_more_seeds(record({1: ranks[1]})), ranks, clone))
    assert mended.seeds == [0, 1] == list(mended.ranks)
    assert not list(mended.contradictions())


def test_a_record_that_grows_elsewhere_names_both_places():
    here = replace(record({0: tables()[0]}), device="CPU, 2 cores (float32)")
    for grown, places in (
        (here.with_more_seeds(replace(here, seeds=[1])), here.device),
        (here.with_more_seeds(replace(here, seeds=[1], device="CPU, 2 cores (bfloat16)")), f"{here.device}; CPU, 2 cores (bfloat16)"),
    ):
        assert grown.device == places
        assert grown.with_more_seeds(replace(here, seeds=[2])).device == places


def test_ranks_of_no_seed_of_the_record_are_refused_in_the_making(clone):
    with pytest.raises(RecordError, match=r"ranks of seeds \[1\], which are not among the seeds \[0\]"):
        write(record({0: tables()[0]}), tables(), clone)
    assert not list(clone.rglob("*.npz"))


def test_rewriting_without_ranks_takes_the_old_ranks_away(clone):
    path = write(record(), tables(), clone)
    write(record(), {}, clone)
    assert read(path).ranks == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("device"), "lacks keys device"),
        (lambda d: d.update(divice=1), "has unknown keys divice"),
        (lambda d: d.update(scale="huge"), "scale is 'huge'"),
        (lambda d: d.update(seeds=[0]), "one finite value for each of the seeds"),
        (lambda d: d["protocol"].update(ties="lucky"), "ties is 'lucky'"),
        (lambda d: d.update(metrics=[]), r"metrics is \[\]; expected a dict; run the experiment again"),
        (lambda d: d.update(method=None), "method is None; expected a str"),
        (lambda d: d.update(protocol=5), "protocol is 5; expected a dict"),
    ],
)
def test_bad_files_are_named(clone, change, message):
    path = write(record(), tables(), clone)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match=message) as caught:
        read(path)
    assert "zesrec-h.toy.json" in str(caught.value)


def test_half_file_is_named(clone):
    path = write(record(), tables(), clone)
    path.write_text(path.read_text()[:40])
    with pytest.raises(RecordError, match=r"zesrec-h.toy.json: no JSON"):
        read(path)
    for other in ("null", "5", "[]"):
        path.write_text(other)
        with pytest.raises(RecordError, match=r"zesrec-h.toy.json: holds .*; expected an object with keys"):
            read(path)


@pytest.mark.parametrize("spoil", [lambda ranks: b"", lambda ranks: ranks[:-9], lambda ranks: ranks.replace(b"seeds", b"seats")])
def test_ranks_that_are_damaged_are_named(clone, spoil):
    path = write(record(), tables(), clone)
    beside = path.with_suffix(".npz")
    beside.write_bytes(spoil(beside.read_bytes()))
    with pytest.raises(RecordError, match=r"zesrec-h\.toy\.npz: these ranks can't be read"):
        read(path)


def test_nan_is_refused():
    with pytest.raises(RecordError, match="finite"):
        record(metrics={"Recall@20": [float("nan"), 0.1]})


def test_find_agrees_with_what_is_asked(clone):
    for method, scale, source in (
        ("POP", "toy", None),
        ("ZESRec-H", "toy", "grocery"),
        ("ZESRec-H", "small", "games"),
        ("Emb-KNN (mean, inner)", "toy", None),
    ):
        write(record(method=method, scale=scale, source=source), tables(), clone)
    assert [r.method for r in find(clone, scale="toy")] == ["ZESRec-H", "Emb-KNN (mean, inner)", "POP"]
    assert [r.pair for r in find(clone, method="ZESRec-H")] == ["games--pantry", "grocery--pantry"]
    assert [r.method for r in find(clone, method="Emb-KNN (mean, inner)")] == ["Emb-KNN (mean, inner)"]
    assert find(clone, target="office") == []
    assert find(clone / "nowhere") == []


def test_record_of_a_large_test_stays_under_half_a_megabyte(clone):
    path = write(record(ranks := tables(range(5), n=60_000, items=10_000)), ranks, clone)
    size = sum(p.stat().st_size for p in path.parent.iterdir())
    assert size < 500_000
    kept = list(read(path).ranks)
    assert kept == list(range(len(kept)))
    assert kept


def test_method_names_give_different_files():
    names = [
        "POP",
        "Random",
        "Emb-KNN (mean, inner)",
        "Emb-KNN (last, cosine)",
        "GRU4Rec",
        "GRU4Rec-Meta",
        "ZESRec-G",
        "ZESRec-G (shuffled)",
        "HRNN@2000",
        "HRNN",
    ]
    assert len({slug(n) for n in names}) == len(names)


def test_no_two_rows_of_an_experiment_share_a_file(monkeypatch):
    monkeypatch.setattr(search, "tuned", lambda spec, name, stems=False: search.SquareSettings())  # names do not depend on it
    names = {"node2vec": [*blogcatalog.VARIANTS]}
    spec = search.Spec("grocery", Scale.TOY)  # nor on the data
    names |= {rows.__name__: [row.name for row in rows(spec)] for rows in (search.systems, search.deviating, search.encoding)}
    for scale in Scale:
        for chapter in (zesrec, mail):
            names |= {(chapter.PAPER, experiment, scale): [row.name for row in rows(scale)] for experiment, rows in chapter.ROWS.items()}
        for spec in (prerec.Spec(name, scale) for name in prerec.DATA.get(scale, ())):
            for experiment, rows in prerec.ROWS.items():
                made = [key for row in rows(spec) for key in prerec.made_by(experiment, row)]
                names |= {(spec, kind): [method for of, method in made if of == kind] for kind, _ in made}
        for spec in (preprec.Spec(name, scale) for name in preprec.DATA[scale]):
            names |= {(spec, rows.__name__): [row.name for row in rows(spec, None)] for rows in (preprec.systems, preprec.deviating)}
    assert len(names) > 50
    for experiment, methods in names.items():
        files = [slug(method) for method in [*methods, "Bayes-optimal"]]
        assert len(set(files)) == len(set(methods)) + 1, experiment
        assert all(files)


def test_docstring_examples_run():
    result = doctest.testmod(records)
    assert result.attempted
    assert not result.failed
