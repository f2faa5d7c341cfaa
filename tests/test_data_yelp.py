"""Yelp's own files: as they lie, packed, and in the tar; and how bad ones are refused."""

import gzip
import json
import random
import tarfile
import tracemalloc

import pytest
from typer.testing import CliRunner

from zsrbook.data import catalogue, yelp
from zsrbook.data.commands import app
from zsrbook.data.dataset import DataError

DAY = 86_400


def review(user, business, date, stars=5.0, **more):
    return {"review_id": "r", "user_id": user, "business_id": business, "stars": stars, "useful": 0, "text": "Nice.\nVery.", "date": date} | more


REVIEWS = [
    review("ann", "deli", "1970-01-03 00:00:05"),
    review("ann", "bar", "1970-01-02 00:00:00", 2),
    review("bob", "deli", "1970-01-01 00:00:01", 1.0),
    review("ann", "deli", "1970-01-05 12:00:00", 3.0),  # went there again
    review("ann", "deli", "1970-01-05 12:00:00", 3.0, review_id="the same twice"),
    review("bob", "gone", "1970-01-04"),  # as older releases write it
]
BUSINESSES = [
    {"business_id": "bar", "name": "Salt &amp; Pepper", "city": "Reno", "state": "NV", "categories": None, "stars": 4.5},
    {"business_id": "deli", "name": "Emerald  Deli", "city": "Tampa", "state": "FL", "categories": "Sandwiches, Restaurants"},
    {"business_id": "deli", "name": "another record", "categories": ["Food"]},
    {"business_id": "quiet", "name": "Nobody came"},
]


def lines(records):
    return "".join(json.dumps(r) + "\n" for r in records).encode()


def make(folder, reviews=REVIEWS, businesses=BUSINESSES):
    (folder / yelp.REVIEWS).write_bytes(lines(reviews))
    (folder / yelp.BUSINESSES).write_bytes(lines(businesses))
    return folder / yelp.REVIEWS


def pack(folder, mode, *names, inside="Yelp JSON"):
    """``yelp_dataset.tar`` of these files; they are taken away."""
    with tarfile.open(folder / "yelp_dataset.tar", mode) as archive:
        for name in names:
            archive.add(folder / name, f"{inside}/{name}")
            (folder / name).unlink()
    return folder / "yelp_dataset.tar"


def test_reviews_and_businesses(tmp_path):
    data = yelp.load(make(tmp_path))
    assert data.users["raw"].tolist() == ["ann", "bob"]
    assert data.items["raw"].tolist() == ["deli", "bar", "gone"]
    assert data.items["text"].tolist() == ["Emerald Deli Sandwiches, Restaurants", "Salt & Pepper", ""]
    assert data.items["title"].tolist() == ["Emerald Deli", "Salt & Pepper", ""]
    assert data.items["category"].tolist() == ["Sandwiches, Restaurants", "", ""]
    assert data.items["city"].tolist() == ["Tampa", "Reno", ""]
    assert data.items["state"].tolist() == ["FL", "NV", ""]
    frame = data.interactions
    assert frame["user"].tolist() == [0, 0, 0, 1, 1]
    assert frame["item"].tolist() == [1, 0, 0, 0, 2]
    assert frame["value"].tolist() == [2, 5, 3, 1, 5]
    assert frame["time"].tolist() == [DAY, 2 * DAY + 5, 4 * DAY + DAY / 2, 1, 3 * DAY]
    assert data.clock
    report = str(data.report)
    for line in (
        "dropped 1 records of businesses",
        f"left out 1 businesses of {yelp.BUSINESSES} that nobody reviewed",
        f"1 of 3 businesses are not in {yelp.BUSINESSES}; kept without text",
        "dropped 1 rows that repeat another exactly",
        "sorted by time: 1 rows stood after a later row",
        "yelp-open: kept 5 interactions of 2 users with 3 items",
    ):
        assert line in report


def test_categories_as_a_list(tmp_path):
    data = yelp.load(make(tmp_path, REVIEWS[:1], [{"business_id": "deli", "name": "Deli", "categories": ["Food", "Tea &amp; Cups"]}]))
    assert data.items["text"].tolist() == ["Deli Food, Tea & Cups"]


def test_without_businesses(tmp_path):
    reviews = make(tmp_path)
    whole = yelp.load(reviews)
    (tmp_path / yelp.BUSINESSES).unlink()
    data = yelp.load(reviews)
    assert set(data.items["text"]) == {""}
    assert data.interactions.equals(whole.interactions)
    assert f"no {yelp.BUSINESSES} beside {yelp.REVIEWS}, so no business has a text" in str(data.report)
    renamed = yelp.load((tmp_path / yelp.REVIEWS).rename(tmp_path / "reviews.json"))
    assert f"no {yelp.BUSINESSES} beside reviews.json, so no business has a text" in str(renamed.report)


def test_packed_forms_hold_the_same(tmp_path):
    plain = yelp.load(make(tmp_path)).sha256()
    names = (yelp.BUSINESSES, yelp.REVIEWS)
    for mode in ("w", "w:gz"):  # Yelp's .tar is packed in spite of its name
        make(tmp_path)
        tar = pack(tmp_path, mode, *names)
        assert [p.name for p in tmp_path.iterdir()] == ["yelp_dataset.tar"]
        for path in (tmp_path, tar):
            assert catalogue.guess(path).sha256() == plain
        assert [p.name for p in tmp_path.iterdir()] == ["yelp_dataset.tar"]  # read in place
        tar.unlink()
    make(tmp_path)
    for name in names:
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        (tmp_path / name).unlink()
    for path in (tmp_path, tmp_path / f"{yelp.REVIEWS}.gz"):
        assert catalogue.guess(path).sha256() == plain


def test_pieces_of_any_length_give_the_same(tmp_path, monkeypatch):
    reviews = make(tmp_path)
    whole = yelp.load(reviews)
    for rows in (1, 2, 5, 6):
        monkeypatch.setattr(yelp, "ROWS_AT_ONCE", rows)
        assert yelp.load(reviews).sha256() == whole.sha256()
    monkeypatch.setattr(yelp, "ROWS_AT_ONCE", 2)
    with pytest.raises(DataError, match="line 7: stars is '0'"):
        yelp.load(make(tmp_path, [*REVIEWS, review("u", "b", "2018-07-07", 0)]))


def test_memory_does_not_grow_with_what_is_not_read(tmp_path):
    rng = random.Random(0)
    reviews = make(tmp_path, [review(f"u{rng.randrange(99)}", f"b{rng.randrange(9)}", "2018-07-07 22:09:11", text="x" * 5_000) for _ in range(4_000)])
    tracemalloc.start()
    yelp.load(reviews)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < reviews.stat().st_size / 4


def test_by_name_and_by_command(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSRBOOK_DATA", str(tmp_path))
    run = lambda *args: CliRunner().invoke(app, [str(a) for a in args])  # noqa: E731
    said = run("check", "yelp-open")
    assert said.exit_code == 1
    for part in (yelp.REVIEWS, "https://business.yelp.com", "academic use", "a visit to that page", str(tmp_path / "yelp-open")):
        assert part in said.output.replace("\n", "")
    (tmp_path / "yelp-open").mkdir()
    make(tmp_path / "yelp-open")
    for what in ("yelp-open", tmp_path / "yelp-open", tmp_path / "yelp-open" / yelp.REVIEWS):
        said = run("check", what)
        assert said.exit_code == 0
        assert "yelp-open: kept 5 interactions of 2 users with 3 items" in said.output
    assert catalogue.load("yelp-open").name == "yelp-open"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (review("u", "b", "2018-07-07", 6), r"line 7: stars is '6'; expected 1 to 5 whole stars \(1 such of 7 lines\)"),
        (review("u", "b", "2018-07-07", 0.5), r"line 7: stars is '0\.5'"),
        (review("u", "b", "2018-07-07", "many"), "line 7: stars is 'many'"),
        (review("u", "b", "2018-07-07", None), "line 7: stars is missing"),
        (review("u", "b", "07.07.2018"), r"line 7: date is '07\.07\.2018'; expected a time such as 2018-07-07 22:09:11, or a day"),
        (review("u", "b", "2018-13-01 00:00:00"), "line 7: date is '2018-13-01 00:00:00'"),
        (review("u", "b", "2018-07"), "line 7: date is '2018-07'"),
        (review("u", "b", 1530993600), "line 7: date is '1530993600'"),
        (review("u", "b", None), "line 7: date is missing"),
        (review("", "b", "2018-07-07"), "line 7: user_id is ''; expected a user id"),
        ({"business_id": "b", "stars": 5, "date": "2018-07-07"}, "line 7: user_id is missing"),
        ({"user_id": "u", "stars": 5, "date": "2018-07-07"}, "line 7: business_id is missing; expected the id of a business"),
    ],
)
def test_bad_reviews(tmp_path, bad, message):
    with pytest.raises(DataError, match=message) as error:
        yelp.load(make(tmp_path, [*REVIEWS, bad]))
    assert str(tmp_path / yelp.REVIEWS) in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>", "line 1 is '<!DOCTYPE html><html>': a web page, not data"),
        (lines(REVIEWS) + b'{"user_id": "u", "busi', "line 7 is '.*busi'; expected one JSON object a line; delete it and get it again"),
        (lines(REVIEWS) + b"[1, 2]\n", r"line 7 is '\[1, 2\]'; expected one JSON object"),
        (json.dumps(REVIEWS, indent=1).encode(), r"line 1 is '\['; expected one JSON object"),
        (lines(REVIEWS) + '{"text": "café"}\n'.encode("latin-1"), "line 7: byte 0xe9 can't stand in utf-8"),
        (lines(REVIEWS).decode().encode("utf-16"), "line 1 starts with the mark of UTF-16"),
        (b"\n\n", "holds no line, or blank ones only"),
        (b"", r"the file is empty \(0 bytes\)"),
    ],
)
def test_bad_files(tmp_path, content, message):
    path = make(tmp_path)
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        yelp.load(path)
    path.unlink()
    with pytest.raises(DataError, match="no such file; put it there"):
        yelp.load(path)
    assert [p.name for p in tmp_path.iterdir()] == [yelp.BUSINESSES]


def test_bad_businesses(tmp_path):
    with pytest.raises(DataError, match=rf"{yelp.BUSINESSES}: line 2 has no 'business_id' \(its fields: name\)"):
        yelp.load(make(tmp_path, businesses=[BUSINESSES[0], {"name": "x"}]))
    for odd in (["b1"], {"b1": 1}, 1.5):
        with pytest.raises(DataError, match=rf"{yelp.BUSINESSES}: line 2: business_id is .*; expected the id of a business"):
            yelp.load(make(tmp_path, businesses=[BUSINESSES[0], {"business_id": odd}]))
    make(tmp_path)
    (tmp_path / yelp.BUSINESSES).write_bytes(b"")
    with pytest.raises(DataError, match=rf"{yelp.BUSINESSES}: the file is empty"):
        yelp.load(tmp_path / yelp.REVIEWS)


def test_archives_that_are_cut_short_or_none(tmp_path):
    rng = random.Random(0)
    many = [review(f"{rng.random()}", f"{rng.random()}", "2018-07-07 22:09:11") for _ in range(300)]
    packed = tmp_path / f"{yelp.REVIEWS}.gz"
    packed.write_bytes(gzip.compress(lines(many))[:-200])
    with pytest.raises(DataError, match=r"review\.json\.gz: ends in the middle of its compressed data, so the download was cut short"):
        yelp.load(packed)
    packed.unlink()
    for mode in ("w", "w:gz"):
        make(tmp_path, many)
        tar = pack(tmp_path, mode, yelp.BUSINESSES, yelp.REVIEWS)
        whole = tar.read_bytes()
        for length in (1, 300, len(whole) // 3, len(whole) // 2, int(len(whole) * 0.7)):
            tar.write_bytes(whole[:length])
            with pytest.raises(DataError, match=r"yelp_dataset\.tar: (ends in the middle|can't be unpacked|holds no file)") as error:
                catalogue.guess(tar)
            assert "\n" not in str(error.value)
    for content, message in (
        (b"", "the file is empty"),
        (b"<html>403", "a web page, not data"),
        (b"text" * 999, "can't be unpacked .* expected tar data"),
    ):
        tar.write_bytes(content)
        with pytest.raises(DataError, match=rf"yelp_dataset\.tar: {message}|yelp_dataset\.tar: line 1 is .*{message}"):
            catalogue.guess(tar)
    assert [p.name for p in tmp_path.iterdir()] == ["yelp_dataset.tar"]


def test_a_tar_that_lacks_the_file_or_hides_it_behind_a_link(tmp_path):
    make(tmp_path)
    (tmp_path / yelp.REVIEWS).unlink()
    tar = pack(tmp_path, "w", yelp.BUSINESSES)
    with pytest.raises(DataError, match=rf"holds no file {yelp.REVIEWS}; it holds Yelp JSON/{yelp.BUSINESSES}"):
        catalogue.guess(tar)
    with tarfile.open(tar, "w") as archive:
        link = tarfile.TarInfo(yelp.REVIEWS)
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(DataError, match="holds no file"):
        catalogue.guess(tar)


def test_names_in_a_tar_that_point_elsewhere_write_nothing(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    make(inside)
    tar = pack(inside, "w", yelp.BUSINESSES, yelp.REVIEWS, inside="../..")
    assert len(catalogue.guess(tar)) == 5
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["inside", "yelp_dataset.tar"]
