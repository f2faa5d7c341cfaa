import gzip
import json
import zipfile

import pytest

from zsrbook.data import amazon, catalogue
from zsrbook.data.dataset import DataError

DAY = 86_400


def review(user, item, time, stars=5.0, **more):
    return {"reviewerID": user, "asin": item, "unixReviewTime": time, "overall": stars, **more}


REVIEWS = [
    review("U1", "B2", 3 * DAY),
    review("U1", "B1", 3 * DAY),
    review("U1", "B1", 5 * DAY),  # bought again
    review("U2", "B9", 1 * DAY, 1.0),
    review("U2", "B9", 1 * DAY, 1.0, reviewText="the same twice"),
    review("U2", "B3", 0 * DAY, style={"Size:": "9"}),
]
META = [
    {"asin": "B1", "title": "Tea &amp; Cups", "description": ["<b>Green</b> tea.", "Two cups."], "brand": "Leaf", "category": ["Food", "Tea"]},
    {"asin": "B2", "title": '<span class="a"', "description": ["Plain words."]},
    {"asin": "B1", "title": "another record", "description": []},
    {"asin": "B3", "title": "var aPageStart = (new Date()).getTime();", "description": []},
    {"asin": "B4", "title": "Never bought", "description": ""},
]


def gz(path, records):
    path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in records).encode()))
    return path


@pytest.fixture
def folder(tmp_path):
    gz(tmp_path / "T_5.json.gz", REVIEWS)
    gz(tmp_path / "meta_T.json.gz", META)
    return tmp_path


def test_reviews_and_metadata(folder):
    data = amazon.load("t", folder / "T_5.json.gz", folder / "meta_T.json.gz")
    assert data.items["raw"].tolist() == ["B2", "B1", "B9", "B3"]
    assert data.items["text"].tolist() == ["Plain words.", "Tea & Cups Green tea. Two cups.", "", ""]
    assert data.items["brand"].tolist() == ["", "Leaf", "", ""]
    assert data.items["category"][1] == "Food Tea"
    first = data.interactions[data.interactions["user"] == 0]
    assert first["item"].tolist() == [0, 1, 1]  # a day's ties keep the file's order; the second purchase stays
    report = str(data.report)
    for line in (
        "dropped 1 records of items",
        "emptied 2 titles",
        "1 of 4 items are not in meta_T.json.gz",
        "left out 1 items",
        "dropped 1 rows that repeat",
        "2 items without text",
    ):
        assert line in report


def test_options(folder):
    assert set(amazon.load("t", folder / "T_5.json.gz").items["text"]) == {""}
    with pytest.raises(DataError, match="release is 2016; expected"):
        amazon.load("t", folder / "T_5.json.gz", release=2016)


def test_2014_metadata_and_zip(folder):
    meta = folder / "meta_2014.json"
    meta.write_text("{'asin': 'B1', 'title': \"Cup's\", 'categories': [['Home', 'Cups']], 'salesRank': {'Home': 1}}\n")
    with zipfile.ZipFile(folder / "T_5.json.zip", "w") as archive:
        archive.writestr("T.json", "".join(json.dumps(r) + "\n" for r in REVIEWS))
    data = amazon.load("t", folder / "T_5.json.zip", meta, release=2014)
    assert data.items.set_index("raw").loc["B1", ["text", "category"]].tolist() == ["Cup's", "Home Cups"]


def test_originals_of_2014_are_read_by_name(folder, monkeypatch):
    monkeypatch.setenv("ZSRBOOK_DATA", str(folder))
    (folder / "amazon-beauty-2014").mkdir()
    gz(folder / "amazon-beauty-2014/reviews_Beauty_5.json.gz", REVIEWS)
    (folder / "amazon-beauty-2014/meta_Beauty.json.gz").write_bytes(gzip.compress(b"{'asin': 'B1', 'title': \"Cup's\"}\n"))
    data = catalogue.load("amazon-beauty-2014")
    assert len(data) == 5
    assert data.items.set_index("raw").at["B1", "text"] == "Cup's"


def test_a_written_date_stands_in_for_missing_seconds(folder):
    record = {"reviewerID": "U1", "asin": "B1", "overall": 5, "reviewTime": "06 17, 2018"}
    data = amazon.load("t", gz(folder / "d.json.gz", [record]))
    assert data.interactions["time"].tolist() == [1529193600.0]
    assert "read the time of 1 reviews without seconds off their written date" in str(data.report)
    assert "written date" not in str(amazon.load("t", folder / "T_5.json.gz").report)


USER, ASIN = "A2IBPI20UZIR0U", "B000123456"


def test_ratings_only_in_both_orders(folder):
    new, old = folder / "T.csv", folder / "ratings_T.csv"
    new.write_text(f"{ASIN},{USER},5.0,{DAY}\n")
    old.write_text(f"{USER},{ASIN},5.0,{DAY}\n")
    assert amazon.load("t", new).items["raw"].tolist() == [ASIN]
    assert amazon.load("t", old, release=2014).users["raw"].tolist() == [USER]
    with pytest.raises(DataError, match=r"line 1 is .*load it with release=2014"):
        amazon.load("t", old)
    with pytest.raises(DataError, match="load it with release=2018"):
        amazon.load("t", new, release=2014)


@pytest.mark.parametrize("times", [(1_400_000_000, 900_000_000), (900_000_000, 1_400_000_000), (900_000_000, 999_999_999)])
def test_ratings_that_end_in_the_middle_of_a_time_are_refused(folder, times):
    rows = "\n".join(f"{ASIN}{n},{USER},5.0,{time}" for n, time in enumerate(times))
    (folder / "T.csv").write_text(rows)
    assert len(amazon.load("t", folder / "T.csv")) == 2
    for length in range(1, len(str(times[-1]))):
        seen = str(times[-1])[:length]
        (folder / "T.csv").write_text(rows[: len(rows) - len(str(times[-1])) + length])
        with pytest.raises(DataError, match=rf"T\.csv: line 2: time is '{seen}'; expected no time so far below all others .*get the file again"):
            amazon.load("t", folder / "T.csv")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (review("U", "B", 5, 0.0), "line 7: value is '0.0'; expected 1 to 5 whole stars"),
        (review("U", "B", 5, None), "line 7: value is missing"),
        (review("U", "B", None), "line 7: time is missing"),
        (review("U", "B", 1529193600000), "line 7: time is '1529193600000'"),
        (review(None, "B", 5), "line 7: user is missing"),
        (review("U", "", 5), "line 7: item is ''"),
        (review("U\ud83d", "B", 5), r"line 7: user is 'U\\ud83d'; expected a user id of whole signs"),
        (review("U", "\udc00", 5), r"line 7: item is '\\udc00'; expected an item id of whole signs"),
    ],
)
def test_bad_reviews(folder, bad, message):
    with pytest.raises(DataError, match=message):
        amazon.load("t", gz(folder / "bad.json.gz", [*REVIEWS, bad]))


def test_bad_files(folder):
    (folder / "page.json").write_text("<html><head><title>403</title>")
    with pytest.raises(DataError, match="web page"):
        amazon.load("t", folder / "page.json")
    (folder / "cut.json.gz").write_bytes((folder / "T_5.json.gz").read_bytes()[:-30])
    with pytest.raises(DataError, match="cut short"):
        amazon.load("t", folder / "cut.json.gz")
    for given in ({}, {"asin": ""}, {"asin": ["B1"]}, {"asin": 1}, {"asin": "B\ud83d"}):
        with pytest.raises(DataError, match=r"line 1: asin is .* \(its fields: .*title\); expected the id of an item"):
            amazon.load("t", folder / "T_5.json.gz", gz(folder / "m.json.gz", [given | {"title": "x"}]))
    for wrong in ((folder / "none.json.gz", None), (folder / "T_5.json.gz", folder / "none.json.gz")):
        with pytest.raises(DataError, match=r"none\.json\.gz: holds no line, or blank ones only"):
            amazon.load("t", gz(folder / "none.json.gz", []) and wrong[0], wrong[1])
    with pytest.raises(DataError, match="no such file"):
        amazon.load("t", folder / "T_5.json.gz", folder / "meta.json.gz")
    (folder / "T.csv").write_text("B1,U1,5.0\n")
    with pytest.raises(DataError, match="line 1 has 3 columns; expected 4"):
        amazon.load("t", folder / "T.csv")
