import json

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


def test_get_what_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSRBOOK_DATA", str(tmp_path))
    for name, message in (("moon", "no data set is called 'moon'"), ("netflix-2m", "can't be downloaded without an account")):
        result = run("get", name)
        assert result.exit_code == 1
        assert message in result.output
        assert "Traceback" not in result.output


@pytest.mark.parametrize(("make", "load"), FORMS)
def test_check_a_movielens_folder(tmp_path, make, load):
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
        assert "kept 2 interactions of 1 users with 2 items" in result.output
        assert "without text" not in result.output
    ratings = tmp_path / "Prime_Pantry.csv"
    ratings.write_text("B000123456,A2IBPI20UZIR0U,5.0,86400\n")
    assert catalogue.guess(ratings).items["raw"].tolist() == ["B000123456"]
    (own / "Scientific.inter.json").write_text(json.dumps({"0": [0]}))
    (own / "Scientific.item.json").write_text(json.dumps({"0": {"title": "Thing"}}))
    assert catalogue.guess(own).name == "scientific"


def test_check_bad_input(tmp_path):
    (tmp_path / "t.csv").write_text("user,item,time\nu,a,yesterday\n")
    for path, message in (
        (tmp_path / "t.csv", "line 2: time is 'yesterday'"),
        (tmp_path / "no", "no such file or folder"),
        (tmp_path, "no known form"),
    ):
        result = run("check", path)
        assert result.exit_code == 1
        assert message in result.output
    (tmp_path / "t.xlsx").write_text("x")
    with pytest.raises(DataError, match="no known form"):
        catalogue.guess(tmp_path / "t.xlsx")
    for text, message in (("MovieID,CustomerID\n1,2\n", "no column user, item; it has MovieID"), ("MovieID;CustomerID\n1;2\n", "separated by ';'")):
        (tmp_path / "other.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            catalogue.guess(tmp_path / "other.csv")
