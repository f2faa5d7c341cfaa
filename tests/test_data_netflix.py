import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zsrbook.data import netflix
from zsrbook.data.dataset import DataError

TITLES = '1,2003,Dinosaur Planet\n2,1997,"Goodbye, Columbus", He Said\n3,NULL,Amélie\n'
COMBINED = ["1:\n7,3,2005-09-06\n8,5,2000-01-02\n2:\n9,4,2000-01-01\n", "3:\n7,1,2000-01-02\n6,2,2000-01-02\n"]


def make(folder, parts=COMBINED):
    (folder / "movie_titles.csv").write_text(TITLES, "latin-1")
    for n, part in enumerate(parts, 1):
        (folder / f"combined_data_{n}.txt").write_text(part)
    return folder


def rows(data):
    raw = zip(data.users["raw"].to_numpy()[data.interactions["user"]], data.items["raw"].to_numpy()[data.interactions["item"]], strict=True)
    return set(raw)


def test_both_forms_and_titles_with_commas(tmp_path):
    one = netflix.load(make(tmp_path), first=None)
    assert one.items["text"].tolist() == ["Dinosaur Planet", '"Goodbye, Columbus", He Said', "Amélie"]
    assert one.items["year"].isna().tolist() == [False, False, True]
    for path in tmp_path.glob("combined*"):
        path.unlink()
    (tmp_path / "training_set").mkdir()
    for n, text in enumerate(("1:\n7,3,2005-09-06\n8,5,2000-01-02\n", "2:\n9,4,2000-01-01\n", COMBINED[1]), 1):
        (tmp_path / "training_set" / f"mv_{n:07}.txt").write_text(text)
    assert netflix.load(tmp_path, first=None).sha256() == one.sha256()


def test_first_ratings_by_date_then_film_then_customer(tmp_path):
    make(tmp_path)
    wanted = [("9", "2"), ("8", "1"), ("6", "3"), ("7", "3"), ("7", "1")]
    for n in range(1, 6):
        data = netflix.load(tmp_path, first=n)
        assert rows(data) == set(wanted[:n])
        assert data.items["raw"].tolist() == sorted({film for _, film in wanted[:n]})
    assert "last day 2000-01-02, of which 2 of 3" in str(netflix.load(tmp_path, first=3).report)
    with pytest.raises(DataError, match=r"asked for the first 6 ratings; the 2 files .* hold 5"):
        netflix.load(tmp_path, first=6)


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 30), st.integers(1, 9)), min_size=1, max_size=40, unique_by=lambda r: r[:2]),
    st.integers(1, 7),
    st.data(),
)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pieces_of_any_length_give_the_plain_answer(tmp_path, monkeypatch, ratings, at_once, data):
    monkeypatch.setattr(netflix, "ROWS_AT_ONCE", at_once)
    films = sorted({f for f, _, _ in ratings})
    make(tmp_path, ["".join(f"{f}:\n" + "".join(f"{c},3,2000-01-0{d}\n" for g, c, d in ratings if g == f) for f in films), "1:\n"])
    n = data.draw(st.integers(1, len(ratings)))
    plain = sorted(ratings, key=lambda r: (r[2], r[0], r[1]))[:n]
    assert rows(netflix.load(tmp_path, first=n)) == {(str(c), str(f)) for f, c, _ in plain}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7,3,2005-09-06\n", "line 1: customer is '7'; expected a line such as '1:'"),
        ("1:\n7,6,2005-09-06\n", "line 2: stars is '6'"),
        ("1:\n7,3,06.09.2005\n", "line 2: date is '06.09.2005'; expected a date as 2005-09-06"),
        ("1:\n7,3,2005-13-01\n", "line 2: date is '2005-13-01'"),
        ("1:\n7,3\n", "line 2: date is missing"),
        ("1:\n7,3,2005-09-1", "line 2: date is '2005-09-1'; expected a date as 2005-09-06"),
        ("1:\n7,3,2005-09-06,9\n", "line 2: surplus is '9'; expected three columns"),
        ("1:\n7,3,2005-09-06\n8,3,2005-09-06,9,9\n", r"combined_data_1\.txt: line 3 is '8,3,2005-09-06,9,9', 5 columns; expected .* correct it, or"),
        ("7,3,2005-09-06,9,9\n", "line 1: surplus is '9'; expected three columns"),
        ("1:\nx,3,2005-09-06\n", "line 2: customer is 'x'"),
        ("1:\n7.5,3,2005-09-06\n", "line 2: customer is '7.5'; expected a customer number"),
        ("1:\n9999999999,3,2005-09-06\n", "line 2: customer is '9999999999'; expected a customer number"),
        ("1:\n7,3,2005-09-06\nx:\n8,3,2005-09-06\n", "line 3: customer is 'x:'; expected a line such as '1:' with the number of a film"),
        ("1.5:\n7,3,2005-09-06\n", "line 1: customer is '1.5:'"),
        ("1:\n\n7,3,2005-09-06\n", "line 2: customer is missing"),
        ("<html>\n", "web page"),
        ("", "empty"),
    ],
)
def test_bad_ratings(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        netflix.load(make(tmp_path, [text]), first=None)


@pytest.mark.parametrize("line", [b"7\xe9,3,2005-09-06", b"7,\xe9,2005-09-06", b"7,3,2005-09-06\xe9"])
@pytest.mark.parametrize("at_once", [1, 100])
def test_a_byte_that_is_not_utf_8_is_told_with_its_line(tmp_path, monkeypatch, line, at_once):
    monkeypatch.setattr(netflix, "ROWS_AT_ONCE", at_once)
    make(tmp_path)
    (tmp_path / "combined_data_2.txt").write_bytes(b"3:\n6,2,2000-01-02\n" + line + b"\n")
    seen = re.escape(repr(line.decode("ascii", "backslashreplace")))
    with pytest.raises(DataError, match=rf"combined_data_2\.txt: line 3 is {seen}: byte 0xe9 can't stand in UTF-8; expected .* correct it, or"):
        netflix.load(tmp_path, first=None)


def test_too_many_columns_are_told_in_whichever_piece_they_stand(tmp_path, monkeypatch):
    monkeypatch.setattr(netflix, "ROWS_AT_ONCE", 2)
    with pytest.raises(DataError, match="line 4 is '9,3,2005-09-06,,,,', 7 columns"):
        netflix.load(make(tmp_path, ["1:\n7,3,2005-09-06\n8,3,2005-09-06\n9,3,2005-09-06,,,,\n"]), first=None)


def test_a_copy_is_not_read_beside_the_file(tmp_path):
    (make(tmp_path) / "combined_data_1 (1).txt").write_text(COMBINED[0])  # as a browser names what it downloads again
    with pytest.raises(DataError, match=r"combined_data_1 \(1\)\.txt and combined_data_1\.txt have the same number; expected one file a number"):
        netflix.load(tmp_path, first=None)


def test_bad_titles_and_no_files(tmp_path):
    with pytest.raises(DataError, match=r"holds no combined_data_\*\.txt"):
        netflix.load(tmp_path)
    (tmp_path / "combined_data_all.txt").write_text(COMBINED[0])  # without a number it is none of the published files
    with pytest.raises(DataError, match=r"holds no combined_data_\*\.txt"):
        netflix.load(tmp_path)
    make(tmp_path)
    (tmp_path / "movie_titles.csv").write_text("1,2003,A\n2,2003,Amélie\n", "utf-8")
    with pytest.raises(DataError, match=r"movie_titles\.csv: line 2 is written in UTF-8"):
        netflix.load(tmp_path, first=None)
    for line in ("x,2003,B", "2,20²3,B", "2,99999999999999999999,B"):
        (tmp_path / "movie_titles.csv").write_text(f"1,2003,A\n{line}\n", "latin-1")
        with pytest.raises(DataError, match=rf"movie_titles\.csv: line 2 is '{line}'"):
            netflix.load(tmp_path, first=None)
    (tmp_path / "movie_titles.csv").write_text("1,2003,A\n2,1997,B\n2,1998,C\n")
    with pytest.raises(DataError, match=r"movie_titles\.csv: line 3: id is '2'; expected each id once"):
        netflix.load(tmp_path, first=None)
    (tmp_path / "movie_titles.csv").write_text("1,2003,A\n")
    with pytest.raises(DataError, match=r"combined_data_1\.txt: line 4: customer is '2:'; expected one of the films in movie_titles\.csv"):
        netflix.load(tmp_path, first=None)
