import gzip
import io
import json
import os
import subprocess
import sys

import pandas as pd
import pytest
from test_data_amazon import META, REVIEWS, gz
from test_data_movielens import FORMS
from test_data_netflix import make as make_netflix
from typer.testing import CliRunner

from zsrbook.data import catalogue, fetch
from zsrbook.data.commands import app
from zsrbook.data.dataset import DataError

run = lambda *args: CliRunner().invoke(app, [str(a) for a in args])  # noqa: E731


def test_list(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSRBOOK_DATA", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "yelp-s3rec").mkdir()
    (tmp_path / "yelp-s3rec" / "Yelp.txt").write_text("1 1\n")
    result = run("list")
    assert result.exit_code == 0
    for name, source in fetch.SOURCES.items():
        assert name in result.output
        assert source.licence.split(",")[0] in result.output
    assert "1 of 2 files missing" in result.output
    (tmp_path / "yelp-s3rec" / "Yelp.item.json.letter").touch()  # an empty one is none
    assert "1 of 2 files missing" in run("list").output


def test_paths_and_ids_are_said_as_they_are(tmp_path, monkeypatch):
    folder = tmp_path / "data:b:x [/red]"
    monkeypatch.setenv("ZSRBOOK_DATA", str(folder))
    monkeypatch.setenv("COLUMNS", "300")
    assert f"Data sets in {folder}" in run("list").output
    assert f"It belongs in {folder}" in run("check", "ml-1m").output


def test_get_what_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSRBOOK_DATA", str(tmp_path))
    for name, message in (("moon", "no data set is called 'moon'"), ("netflix-2m", "can't be downloaded without an account")):
        result = run("get", name)
        assert result.exit_code == 1
        assert message in result.output
        assert "Traceback" not in result.output


def test_get_takes_several_and_a_slip_in_the_last_name_stops_it_before_the_first(monkeypatch):
    got = []
    monkeypatch.setattr(fetch, "get", lambda name, say: got.append(name))
    result = run("get", "ml-100k", "ml-1n")
    assert (result.exit_code, got) == (1, [])
    assert "no data set is called 'ml-1n'" in result.output
    assert run("get", "ml-100k", "ml-1m").exit_code == 0
    assert got == ["ml-100k", "ml-1m"]


@pytest.mark.parametrize("make", [make for make, _ in FORMS])
def test_check_a_movielens_folder(tmp_path, make):
    result = run("check", make(tmp_path))
    assert result.exit_code == 0
    assert "kept 4 interactions of 2 users with 3 items" in result.output


def test_check_one_file_of_a_known_folder(tmp_path):
    make, _ = FORMS[0]
    assert "kept 4 interactions" in run("check", make(tmp_path) / "u.data").output


def test_check_other_forms(tmp_path):
    gz(tmp_path / "T_5.json.gz", REVIEWS)
    gz(tmp_path / "meta_T.json.gz", META)
    for path in (tmp_path, tmp_path / "T_5.json.gz"):
        result = run("check", path)
        assert result.exit_code == 0
        assert "kept 5 interactions of 2 users with 4 items" in result.output
    (tmp_path / "n").mkdir()
    assert "kept 5 interactions" in run("check", make_netflix(tmp_path / "n")).output
    own = tmp_path / "own"
    own.mkdir()
    (own / "interactions.csv").write_text("user,item,time\nu,a,1\nu,b,2\n")
    (own / "items.csv").write_text("item,text\na,tea\nb,cup\n")
    for path in (own, own / "interactions.csv"):
        result = run("check", path)
        assert "kept 2 interactions of 1 user with 2 items" in result.output
        assert "without text" not in result.output
    ratings = tmp_path / "Prime_Pantry.csv"
    ratings.write_text("B000123456,A2IBPI20UZIR0U,5.0,86400\n")
    assert catalogue.guess(ratings).items["raw"].tolist() == ["B000123456"]
    assert catalogue.guess(ratings.rename(own / "Prime_Pantry.CSV")).items["raw"].tolist() == ["B000123456"]
    (tmp_path / "pantry").mkdir()
    gz(tmp_path / "pantry" / "meta_Prime_Pantry.json.gz", [{"asin": "B000123456", "title": "Tea"}])
    (own / "Prime_Pantry.CSV").rename(tmp_path / "pantry" / "Prime_Pantry.csv")
    assert catalogue.guess(tmp_path / "pantry").items["text"].tolist() == ["Tea"]
    (own / "Scientific.inter.json").write_text(json.dumps({"0": [0]}))
    (own / "Scientific.item.json").write_text(json.dumps({"0": {"title": "Thing"}}))
    assert catalogue.guess(own).name == "own"
    for name in ("interactions.csv", "items.csv"):
        (own / name).unlink()
    assert catalogue.guess(own).name == "scientific"


def test_of_several_endings_the_last_counts(tmp_path):
    (tmp_path / "orders.json.csv").write_text(TOOK)
    assert "kept 2 interactions" in run("check", tmp_path / "orders.json.csv").output
    (tmp_path / "orders.parquet.csv").write_text(TOOK)
    assert "kept 2 interactions" in run("check", tmp_path / "orders.parquet.csv").output
    gz(tmp_path / "orders.csv.json.gz", REVIEWS)
    assert "kept 5 interactions" in run("check", tmp_path / "orders.csv.json.gz").output


def test_what_the_terminal_can_not_show_stops_nothing(tmp_path):
    (tmp_path / "茶.csv").write_text("user,item\nu,茶\n", encoding="utf-8")
    command = [sys.executable, "-m", "zsrbook", "data", "check", tmp_path / "茶.csv"]
    done = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": "cp1252"}, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"?: kept 1 interaction of 1 user with 1 item" in done.stdout


def test_the_metadata_of_2014_is_found_beside_its_reviews(tmp_path):
    gz(tmp_path / "reviews_T_5.json.gz", REVIEWS)
    gz(tmp_path / "meta_T.json.gz", META)
    for path in (tmp_path, tmp_path / "reviews_T_5.json.gz"):
        assert catalogue.guess(path).items["text"].ne("").any()


@pytest.mark.parametrize("other", ["U_5.json.gz", "T.json.gz"])
def test_of_several_files_of_reviews_none_is_taken_in_silence(tmp_path, other):
    for name in ("T_5.json.gz", other):
        gz(tmp_path / name, REVIEWS)
    said = run("check", tmp_path)
    assert said.exit_code == 1
    assert f"holds several data sets; name one of the files {', '.join(sorted(('T_5.json.gz', other)))}" in said.output


ITEMS, TOOK = "item,text\na,tea\nb,cup\n", "user,item,time\nu,a,1\nu,b,2\n"


def put(path, content):
    """The same table in the form that the ending names."""
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".parquet":
        pd.read_csv(io.StringIO(content)).to_parquet(path)
    else:
        content = content.replace(",", "\t") if ".tsv" in path.suffixes else content
        path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())


@pytest.mark.parametrize("items", ["items.csv", "catalogue.csv", "catalogue.tsv", "items.csv.gz", "catalogue.parquet"])
@pytest.mark.parametrize("took", ["interactions.csv", "history.csv", "history.tsv.gz", "interactions.parquet"])
def test_check_tables_of_ones_own(tmp_path, items, took):
    put(tmp_path / "own" / items, ITEMS)
    for path in (tmp_path / "own", tmp_path / "own" / items):
        assert run("check", path).output.splitlines()[0].endswith(": 2 items")
    put(tmp_path / "own" / took, TOOK)
    for path in (tmp_path / "own", tmp_path / "own" / took):
        said = run("check", path).output
        assert "kept 2 interactions of 1 user with 2 items" in said
        assert "without text" not in said


@pytest.mark.parametrize("stray", ["ratings.txt", "movie_titles.csv", "cacm.all", "ratings.csv movies.csv", "tags.dat movies.dat", "T_5.json.gz"])
def test_tables_of_ones_own_win_over_what_lies_beside_them(tmp_path, stray):
    own = tmp_path / "own"
    put(own / "catalogue.csv", ITEMS)
    for name in stray.split():
        (own / name).touch()
    assert run("check", own).output.splitlines()[0] == "own: 2 items"
    put(own / "history.csv", TOOK)
    assert "own: kept 2 interactions of 1 user with 2 items" in run("check", own).output
    (own / "catalogue.csv").unlink()
    assert "own: kept 2 interactions of 1 user with 2 items" in run("check", own).output


def test_check_names_in_capital_letters(tmp_path):
    for items, took in (("CATALOGUE.CSV", "History.CSV"), ("Items.Parquet", "INTERACTIONS.Parquet")):
        own = tmp_path / items.lower()
        own.mkdir()
        for name, content in ((items, ITEMS), (took, TOOK)):
            put(own / name.lower(), content)
            (own / name.lower()).rename(own / name)
        for path in (own, own / took):
            said = run("check", path).output
            assert "kept 2 interactions of 1 user with 2 items" in said
            assert "without text" not in said
        assert ": 2 items" in run("check", own / items).output


def test_a_catalogue_may_have_a_column_user(tmp_path):
    for name in ("catalogue.csv", "items.csv"):
        (tmp_path / name).write_text("item,user,text\na,seller,tea\nb,seller,cup\n")
        assert run("check", tmp_path / name).output.splitlines()[0].endswith(": 2 items")
    (tmp_path / "items.csv").unlink()
    (tmp_path / "bought.csv").write_text("item,user,text\na,u,tea\nb,u,cup\n")
    assert "kept 2 interactions of 1 user" in run("check", tmp_path / "bought.csv").output


def test_of_two_tables_that_of_the_same_kind_is_taken(tmp_path):
    for name, content in (("items.csv", "item,text\na,\nb,\n"), ("items.parquet", ITEMS), ("history.parquet", TOOK)):
        put(tmp_path / name, content)
    assert catalogue.guess(tmp_path).items["text"].tolist() == ["tea", "cup"]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("interactions", ["interactions.csv", "interactions.parquet"]),
        ("interactions", ["History.csv", "interactions.csv"]),
        ("items", ["catalogue.csv", "items.csv"]),
    ],
)
def test_of_two_tables_that_both_would_do_none_is_taken_in_silence(tmp_path, kind, names):
    for name in names:
        put(tmp_path / name.lower(), ITEMS if kind == "items" else TOOK)
        (tmp_path / name.lower()).rename(tmp_path / name)
    said = run("check", tmp_path)
    assert said.exit_code == 1
    assert f"holds {' and '.join(names)}; expected one table of {kind}; take the others away" in said.output
    assert run("check", tmp_path / names[1]).exit_code == 0


def test_check_in_another_encoding(tmp_path):
    (tmp_path / "catalogue.csv").write_text("item,text\na,thé\n", encoding="latin-1")
    assert "with --encoding" in run("check", tmp_path).output
    assert run("check", tmp_path, "--encoding", "latin-1").exit_code == 0
    for path in (tmp_path, tmp_path / "catalogue.csv"):
        said = run("check", path, "--encoding", "utf-16")
        assert said.exit_code == 1
        assert "catalogue.csv: line 1 does not start with the mark of UTF-16" in said.output
        said = run("check", path, "--encoding", "rot13")  # Python knows it, but not as an encoding of texts
        assert said.exit_code == 1
        assert "catalogue.csv: unknown encoding 'rot13'" in said.output


def test_check_a_name(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSRBOOK_DATA", str(tmp_path))
    monkeypatch.setattr(fetch, "check", lambda path, file: None)  # the files stand in for the published ones
    (tmp_path / "ml-100k").mkdir()
    FORMS[0][0](tmp_path / "ml-100k")
    result = run("check", "ml-100k")
    assert result.exit_code == 0
    assert "kept 4 interactions of 2 users with 3 items" in result.output
    for name in ("ml-1m", "alimama", "cisi", "blogcatalog"):
        assert f"{name}: " in (said := run("check", name).output)
        assert "is missing. It belongs in" in said
    assert set(fetch.SOURCES) <= set(catalogue.LOADERS) | set(catalogue.CLICKS) | set(catalogue.SEARCH) | set(catalogue.GRAPHS)


def test_check_bad_input(tmp_path, monkeypatch):
    def refused(path, *_):
        raise PermissionError(13, "Permission denied", path.name)

    (tmp_path / "t.csv").write_text("user,item,time\nu,a,yesterday\n")
    for path, message in (
        (tmp_path / "t.csv", "line 2: time is 'yesterday'"),
        (tmp_path / "no", "no such file or folder, nor a data set of that name"),
        (tmp_path, "no known form"),
    ):
        result = run("check", path)
        assert result.exit_code == 1
        assert message in result.output
    (tmp_path / "own.csv").write_text(TOOK)
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.open", refused)
        result = run("check", tmp_path / "own.csv")
    assert (result.exit_code, result.output) == (1, "error: [Errno 13] Permission denied: 'own.csv'\n")
    for name, message in (("t.xlsx", "t.xlsx: is a spreadsheet; save the sheet as CSV"), ("t.doc", "t.doc: the ending tells no kind of file")):
        (tmp_path / name).write_text("x")
        with pytest.raises(DataError, match=message):
            catalogue.guess(tmp_path / name)
    for text, message in (("MovieID,CustomerID\n1,2\n", "no column user, item; it has MovieID"), ("MovieID;CustomerID\n1;2\n", "separated by ';'")):
        (tmp_path / "other.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            catalogue.guess(tmp_path / "other.csv")
