"""The whole of Douban's film ratings, read in pieces; ``test_data_social`` has the other forms."""

import tarfile

import pytest
from typer.testing import CliRunner

from zsrbook.data import catalogue, files, social
from zsrbook.data.commands import app
from zsrbook.data.dataset import DataError

HEAD = "UserId\tItemId\tRating\tTimestamp"
DAY = 86_400
#: the file stands in the order of films; the fourth row repeats the third, the fifth gives no stars, nor does the only row of film 7
ROWS = ["9\t0\t5\t172800.0", "4\t0\t1\t86400.0", "9\t3\t2\t86400.0", "9\t3\t2\t86400.0", "4\t3\t-1\t86400.0", "9\t10\t4\t172800.0", "4\t7\t-1\t0.0"]


def make(folder, rows=ROWS, head=HEAD):
    (folder / "douban_movie.tsv").write_text("".join(f"{row}\n" for row in (head, *rows)))
    return folder


def test_ratings_with_times_and_rows_without_stars(tmp_path):
    data = social.load_douban_movie(make(tmp_path))
    assert data.users["raw"].tolist() == ["9", "4"]
    assert data.items["raw"].tolist() == ["0", "3", "10"]
    assert set(data.items["text"]) == {""}
    frame = data.interactions
    assert frame["user"].tolist() == [0, 0, 0, 1]
    assert frame["item"].tolist() == [1, 0, 2, 0]  # a day's ties keep the file's order
    assert frame["value"].tolist() == [2, 5, 4, 1]
    assert frame["time"].tolist() == [DAY, 2 * DAY, 2 * DAY, DAY]
    assert data.clock
    report = str(data.report)
    for line in (
        "douban-movie: dropped 2 of 7 rows, which give no stars",
        "dropped 1 rows that repeat another exactly",
        "sorted by time: 1 rows stood after a later row",
        "kept 4 interactions of 2 users with 3 items",
    ):
        assert line in report


@pytest.mark.parametrize("piece", [40, 60, 90, 1_000])
def test_pieces_of_any_length_give_the_same(tmp_path, monkeypatch, piece):
    whole = social.load_douban_movie(make(tmp_path)).sha256()
    monkeypatch.setattr(files, "PIECE", piece)
    assert social.load_douban_movie(tmp_path).sha256() == whole
    assert "dropped 2 of 7 rows" in str(social.load_douban_movie(tmp_path).report)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_in_the_archive_as_it_is_published(tmp_path, mode):
    whole = social.load_douban_movie(make(tmp_path)).sha256()
    with tarfile.open(tmp_path / "Douban.tar.gz", mode) as archive:
        archive.add(tmp_path / "douban_movie.tsv", "Douban/movie/douban_movie.tsv")
    (tmp_path / "douban_movie.tsv").unlink()
    for path in (tmp_path, tmp_path / "Douban.tar.gz"):
        assert catalogue.guess(path).sha256() == whole
    assert [p.name for p in tmp_path.iterdir()] == ["Douban.tar.gz"]


def test_by_name_and_by_command(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSRBOOK_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"douban_movie\.tsv is missing.*socialRec/README\.md.*a visit to that page"):
        catalogue.load("douban-movie")
    with pytest.raises(DataError, match=r"user_movie\.dat is missing.*Douban%20Movie/user_movie\.dat.*data get douban-hin"):
        catalogue.load("douban-hin")
    (tmp_path / "douban-movie").mkdir()
    make(tmp_path / "douban-movie")
    for what in ("douban-movie", tmp_path / "douban-movie", tmp_path / "douban-movie" / "douban_movie.tsv"):
        said = CliRunner().invoke(app, ["check", str(what)])
        assert said.exit_code == 0
        assert "douban-movie: kept 4 interactions of 2 users with 3 items" in said.output


@pytest.mark.parametrize("piece", [40, 1_000])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("4\t3\t6\t0.0", r"line 9: value is '6'; expected 1 to 5 stars"),
        ("4\t3\t0\t0.0", "line 9: value is '0'"),
        ("4\t3\t-2\t0.0", "line 9: value is '-2'"),
        ("4\t3\t\t0.0", "line 9: value is ''"),
        ("4\t3\tfive\t0.0", "line 9: value is 'five'"),
        ("-4\t3\t5\t0.0", "line 9: user is '-4'; expected the number of a user, from 0"),
        ("4\t3.5\t5\t0.0", r"line 9: item is '3\.5'; expected the number of an item, from 0"),
        ("4\t3\t5\t2007-06-17", "line 9: time is '2007-06-17'; expected seconds since 1970"),
        ("4\t3\t5\t1182009600000", "line 9: time is '1182009600000'"),
        ("4\t3\t5", r"line 9 has 3 columns; expected 4 \(UserId, ItemId, Rating, Timestamp\)"),
        ("4\t3\t5\t0.0\t1", "line 9 has 5 columns; expected 4"),
        ("4,3,5,0.0", "line 9 has 1 columns; expected 4"),
    ],
)
def test_bad_rows_are_named_in_whichever_piece_they_stand(tmp_path, monkeypatch, bad, message, piece):
    monkeypatch.setattr(files, "PIECE", piece)
    with pytest.raises(DataError, match=rf"douban_movie\.tsv: {message}"):
        social.load_douban_movie(make(tmp_path, [*ROWS, bad, "4\t3\t5\t0.0"]))


@pytest.mark.parametrize("piece", [40, 1_000])
def test_a_file_that_ends_in_the_middle_of_a_time_is_refused(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(files, "PIECE", piece)
    with pytest.raises(DataError, match=r"douban_movie\.tsv: line 9: time is '8640'; expected no time so far below all others \(from 86400 on\)"):
        social.load_douban_movie(make(tmp_path, [*ROWS, "4\t3\t5\t8640"]))


def test_bad_files(tmp_path):
    path = make(tmp_path) / "douban_movie.tsv"
    for content, message in (
        (b"", r"the file is empty \(0 bytes\)"),
        (b"<html><head>", "a web page, not data"),
        (f"{HEAD}\n".encode(), "line 1 is .* and nothing follows"),
        ("\n".join(ROWS).encode(), "line 1 names a column twice|line 1 names the columns 9, 0, 5, 172800.0; expected UserId, ItemId"),
        (HEAD.replace("Rating", "Stars").encode() + b"\n1\t1\t1\t1\n", "line 1 names the columns UserId, ItemId, Stars, Timestamp; expected UserId"),
        (f"{HEAD}\n1\t1\té\t1\n".encode("latin-1"), "line 2: byte 0xe9 can't stand in utf-8"),
        (f"{HEAD}\n1\t1\t-1\t1\n".encode(), "no interactions; nothing to load"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            social.load_douban_movie(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["douban_movie.tsv"]
