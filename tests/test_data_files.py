"""Bad files: each is refused with its name, line, value and what to do."""

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from zsrbook.data import files
from zsrbook.data.dataset import DataError


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read_all(path, **options):
    return files.read_table(path, ",", ["a", "b"], **options)


def test_missing_and_empty(tmp_path):
    with pytest.raises(DataError, match=r"t\.csv: no such file"):
        read_all(tmp_path / "t.csv")
    for content in ("", "\n\n"):
        with pytest.raises(DataError, match=r"t\.csv: the file is empty"):
            read_all(write(tmp_path / "t.csv", content))


@pytest.mark.parametrize(("content", "line", "seen"), [("1,2\n3\n", 2, 1), ("1,2\n3,4\n5,6,7\n", 3, 3)])
def test_wrong_number_of_columns(tmp_path, content, line, seen):
    with pytest.raises(DataError, match=rf"t\.csv: line {line} has {seen} columns; expected 2 \(a, b\)"):
        read_all(write(tmp_path / "t.csv", content))


def test_a_column_too_many_may_be_a_text_without_quotes(tmp_path):
    for content, line in (("1,2\n3,tea, green\n", 2), ('1, "tea, green"\n', 1), ('1,"two\nlines"\n3,4\n5,tea, green\n', 4)):
        with pytest.raises(DataError, match=rf"line {line} has 3 columns; .*; a text that holds ',' belongs in quotes, with no blank before the"):
            read_all(write(tmp_path / "t.csv", content))
    with pytest.raises(DataError, match=r"line 1 has 1 columns; expected 2 \(a, b\): '1'$"):
        read_all(write(tmp_path / "t.csv", "1\n"))


def test_blank_lines_and_a_lonely_header(tmp_path):
    with pytest.raises(DataError, match=r"line 2 is blank; expected 2 columns"):
        read_all(write(tmp_path / "t.csv", "1,2\n\n3,4\n"))
    with pytest.raises(DataError, match=r"line 1 is 'a,b' and nothing follows"):
        files.read_table(write(tmp_path / "t.csv", "a,b\n"))
    with pytest.raises(DataError, match="one column; it looks separated by ';', and ',' is expected"):
        files.read_table(write(tmp_path / "t.csv", "a;b\n1;2, 3\n"))
    with pytest.raises(DataError, match="names a column twice: a, a"):
        files.read_table(write(tmp_path / "t.csv", "a,a\n1,2\n"))
    for sign in ",;":
        with pytest.raises(DataError, match=f"line 1 is 'sep={sign}', which is for Excel alone; expected a line of names; take line 1 out"):
            files.read_table(write(tmp_path / "t.csv", f"sep={sign}\r\na{sign}b\r\n1{sign}2\r\n"))


def test_names_in_quotes_and_columns_without_a_name(tmp_path):
    frame = files.read_table(write(tmp_path / "t.csv", 'item, "price, EUR" ,"a ""b""",,\r\n1,2,3,,\r\n'))
    assert frame.columns.tolist() == ["item", "price, EUR", 'a "b"', "column 4", "column 5"]
    with pytest.raises(DataError, match="expected a line of names"):
        files.read_table(write(tmp_path / "t.csv", "x" * 200_000 + "\n1\n"))


def test_index_is_the_line_in_the_file(tmp_path):
    assert read_all(write(tmp_path / "t.csv", "1,2\n3,4\n")).index.tolist() == [1, 2]
    frame = files.read_table(write(tmp_path / "h.csv", "\ufeffa,b\r\n1,2\r\n3,4\r\n"))
    assert frame.columns.tolist() == ["a", "b"]
    assert frame.index.tolist() == [2, 3]


def test_line_breaks_in_fields_move_the_lines_below(tmp_path):
    content = 'a,b\n1,"two\r\nlines"\n"three\n\nlines","two\nlines"\n5,6\n7,x\n'
    frame = files.read_table(write(tmp_path / "t.csv", content))
    assert frame.index.tolist() == [2, 4, 8, 9]
    assert frame.index.name == "line"
    with pytest.raises(DataError, match=r"line 9: b is 'x'"):
        files.numbers(tmp_path / "t.csv", frame["b"].iloc[2:], "a number")
    with pytest.raises(DataError, match=r"line 10 has 1 columns"):
        files.read_table(write(tmp_path / "t.csv", content + "7\n"))
    with pytest.raises(DataError, match=r"line 10 is blank"):
        files.read_table(write(tmp_path / "t.csv", content + ",\n7,8\n"))


def test_rows_of_any_length(tmp_path):
    long = "tea " * 500_000
    frame = files.read_table(write(tmp_path / "t.csv", f'a,b\n1,{long}\n2,"{long}\n{long}"\n3,x\n'))
    assert frame["b"].str.len().tolist() == [len(long), 2 * len(long) + 1, 1]
    assert frame.index.tolist() == [2, 3, 5]


def test_long_separators_and_quotes(tmp_path):
    frame = files.read_table(write(tmp_path / "t.dat", '1::He said "no": twice\n'), "::", ["a", "b"], quoted=False)
    assert frame["b"].tolist() == ['He said "no": twice']
    with pytest.raises(DataError, match=r"line 2 has 3 columns; expected 2 \(a, b\): '1::2::3'$"):
        files.read_table(write(tmp_path / "t.dat", "1::2\n1::2::3\n"), "::", ["a", "b"], quoted=False)
    frame = files.read_table(write(tmp_path / "q.csv", 'a,b\n1,"x, ""y""\nz"\n'))
    assert frame["b"].tolist() == ['x, "y"\nz']


@pytest.mark.parametrize(
    ("content", "separator", "message"),
    [
        ('1,2\n3,"open\n5,6\n7,8\n', ",", "line 2: the quote before 'open' never closes"),
        ('1,2\n"3",open "quote\n"5,6\n', ",", "line 3: the quote before '5,6' never closes"),
        ('1,2\n3,"open\n5,6\n7,"tea, green"\n', ",", "line 2: the quote before 'open' closes in the middle of line 4"),
        ('"1","2"\n"3","open\r\n"5","6"\n', ",", "line 2: the quote before 'open' closes in the middle of line 3"),
        ('1,"two\nlines"\n3,"open\n5,""\n', ",", "line 3: the quote before 'open' never closes"),
        ('1\t2\n3\t"open\n5\t6\n', "\t", "line 2: the quote before 'open' never closes"),
        ('1\t2\n3\t"', "\t", "line 2: the quote before '' never closes"),
    ],
)
def test_a_quote_that_does_not_close_swallows_no_rows(tmp_path, content, separator, message):
    with pytest.raises(DataError, match=rf"t\.csv: {message}; expected a second"):
        files.read_table(write(tmp_path / "t.csv", content), separator, ["a", "b"])


def test_quotes_that_are_fine(tmp_path):
    content = '"a","b"\n1,"two\r\nlines, ""and"" a comma"\n2,24" screen\n3,"Best" tea\n4,""\n"5\n","last\n"\n'
    frame = files.read_table(write(tmp_path / "t.csv", content))
    assert frame["a"].tolist() == ["1", "2", "3", "4", "5\n"]
    assert frame["b"].tolist() == ['two\r\nlines, "and" a comma', '24" screen', "Best tea", "", "last\n"]


def test_encodings(tmp_path):
    path = write(tmp_path / "t.csv", "1,2\n3,é\n".encode("latin-1"))
    assert read_all(path, encoding="latin-1")["b"].tolist() == ["2", "é"]
    with pytest.raises(DataError, match=r"line 2: byte 0xe9 can't stand in utf-8; if the table is your own, name its .* if .* published, delete it"):
        read_all(path)
    for unknown in ("latin-99", "undefined", "rot13"):
        with pytest.raises(DataError, match=f"unknown encoding '{unknown}'"):
            read_all(path, encoding=unknown)
    for order in ("utf-16-le", "utf-16-be"):
        wide = write(tmp_path / "w.csv", "\ufeff1,2\n3,é\n".encode(order))
        assert read_all(wide, encoding="utf-16")["b"].tolist() == ["2", "é"]
        for wrong in ("utf-8", "latin-1"):
            with pytest.raises(DataError, match=r"line 1 starts with the mark of UTF-16, and .* is expected; say --encoding utf-16"):
                read_all(wide, encoding=wrong)
    for wrong in ("utf-16", "utf-32"):
        with pytest.raises(DataError, match=rf"line 1 does not start with the mark of {wrong.upper()}; leave --encoding out"):
            read_all(path, encoding=wrong)
    with pytest.raises(DataError, match="line 2: byte 0xe9"):
        list(files.read_lines(path))


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "iso8859-15", "mac-roman", "ascii", "cp1251"])
def test_utf8_is_not_read_as_a_code_page(tmp_path, encoding):
    for content, line in (("1,2\n3,é\n", 2), ("\ufeff1,2\n", 1)):
        with pytest.raises(DataError, match=rf"t\.csv: line {line} is written in UTF-8, and .* is expected; save it in that, or leave"):
            read_all(write(tmp_path / "t.csv", content), encoding=encoding)
    assert len(read_all(write(tmp_path / "t.csv", "1,2\n3,4\n"), encoding=encoding)) == 2
    with pytest.raises(DataError, match=r"t\.csv: line 2 is written in UTF-8"):
        list(files.read_lines(write(tmp_path / "t.csv", "1,2\n3,é\n"), encoding=encoding))


def test_what_is_in_another_encoding_is_read_in_it(tmp_path):
    for encoding, text in (("cp1252", "naïve"), ("cp1251", "чай"), ("shift-jis", "茶"), ("gb18030", "茶"), ("utf-8-sig", "\ufeffé"), ("utf-16", "é")):
        assert read_all(write(tmp_path / "t.csv", f"{text},2\n".encode(encoding)), encoding=encoding)["a"].tolist() == [text.strip("\ufeff")]


def test_a_web_page_is_no_data(tmp_path):
    for page in ("<!DOCTYPE html><html>", "\n<html><body>404", "<?xml version='1.0'?>"):
        path = write(tmp_path / "t.json", page)
        for reader in (read_all, files.read_json):
            with pytest.raises(DataError, match="a web page, not data"):
                reader(path)
    with pytest.raises(DataError, match="a web page, not data"):
        list(files.read_records(path))


def test_truncated_and_damaged_archives(tmp_path):
    whole = gzip.compress(b"1,2\n" * 10_000)
    with pytest.raises(DataError, match="cut short"):
        read_all(write(tmp_path / "t.csv.gz", whole[: len(whole) // 2]))
    with pytest.raises(DataError, match="can't be unpacked"):
        read_all(write(tmp_path / "t.csv.gz", b"1,2\n3,4\n"))
    flipped = bytearray(whole)
    flipped[-6] ^= 255
    with pytest.raises(DataError, match="can't be unpacked"):
        read_all(write(tmp_path / "t.csv.gz", bytes(flipped)))
    with pytest.raises(DataError, match="can't be unpacked"):
        read_all(write(tmp_path / "t.csv.zip", b"PK no"))


def test_zips_that_python_can_not_unpack(tmp_path):
    path = tmp_path / "t.csv.zip"
    for flag, method, message in ((1, 0, "password required"), (0, 97, "compression method is not supported")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("t.csv", "1,2\n")
        data = bytearray(path.read_bytes())
        for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # the head of the file, and its line in the directory: flags, then method
            begin = data.index(mark) + place
            data[begin : begin + 4] = bytes([flag, 0, method, 0])
        with pytest.raises(DataError, match=rf"t\.csv\.zip: .*{message}.*; pack it anew, without a password, or unpack it"):
            read_all(write(path, bytes(data)))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("t.csv", "1,2\n" * 1000)
    data = bytearray(path.read_bytes())
    data[50:60] = b"\xff" * 10
    with pytest.raises(DataError, match="can't be unpacked"):
        read_all(write(path, bytes(data)))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("t.csv", "1,2\n" * 1000)
    data = bytearray(path.read_bytes())
    data[50:60] = b"\xff" * 10
    with pytest.raises(DataError, match=r"t\.csv\.zip: can't be unpacked \(Invalid data stream\)"):
        read_all(write(path, bytes(data)))


def test_errors_of_those_who_read_a_zip_are_their_own(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("t.csv", "1,2\n")
    with pytest.raises(RuntimeError, match="my own"), files.open_raw(tmp_path / "t.zip"):
        raise RuntimeError("my own")


def test_endings_in_capital_letters(tmp_path):
    assert len(read_all(write(tmp_path / "T.CSV.GZ", gzip.compress(b"1,2\n")))) == 1
    with zipfile.ZipFile(tmp_path / "T.ZIP", "w") as archive:
        archive.writestr("t.csv", "1,2\n")
    assert len(read_all(tmp_path / "T.ZIP")) == 1


def test_a_zip_holds_one_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("a.csv", "1,2\n")
    assert len(read_all(tmp_path / "t.zip")) == 1
    with zipfile.ZipFile(tmp_path / "t.zip", "a") as archive:
        archive.writestr("b.csv", "1,2\n")
    with pytest.raises(DataError, match="holds 2 files; expected one"):
        read_all(tmp_path / "t.zip")


def test_json_lines(tmp_path):
    path = write(tmp_path / "t.json", '{"a": 1}\n\n{"a": 2}\n')
    assert list(files.read_records(path)) == [(1, {"a": 1}), (3, {"a": 2})]
    python = write(tmp_path / "p.json", "{'a': 'it\\'s'}\n")
    assert list(files.read_records(python, loose=True)) == [(1, {"a": "it's"})]
    deep = ("[" * 100_000, "{'a': " + "-" * 100_000 + "1}")
    for bad in (*deep, "[1]\n", '{"a": 1\n', "__import__('os').getcwd()\n", "{'a': print(1)}\n"):
        with pytest.raises(DataError, match=r"line 1 is .*expected one JSON object a line"):
            list(files.read_records(write(tmp_path / "b.json", bad), loose=True))
    with pytest.raises(DataError, match=r"line 2: .*expected one JSON object"):
        files.read_json(write(tmp_path / "j.json", '{"a":\n}'))
    with pytest.raises(DataError, match="holds a list"):
        files.read_json(write(tmp_path / "j.json", "[]"))


def test_whole_numbers_of_any_length_are_no_more_than_out_of_range():
    column = pd.Series([1, 10**400, True, None, "2"], index=range(1, 6), name="stars", dtype=object)
    with pytest.raises(DataError, match=r"line 2: stars is '1000.*'; expected 1 to 5 .*3 such of 5 lines"):
        files.numbers(Path("t"), column, "1 to 5", 1, 5)


def test_numbers_name_the_first_bad_line():
    column = pd.Series(["1", "x", "9", ""], index=[2, 3, 4, 5], name="stars")
    with pytest.raises(DataError, match=r"f: line 3: stars is 'x'; expected 1 to 5 \(3 such of 4 lines\)"):
        files.numbers("f", column, "1 to 5", 1, 5)
    for bad in ("nan", "inf", "-1", "6", ""):
        with pytest.raises(DataError, match="line 0"):
            files.numbers("f", pd.Series([bad], name="stars"), "1 to 5", 0, 5)
    np.testing.assert_array_equal(files.numbers("f", pd.Series(["1", "4.5"], name="stars"), "1 to 5", 1, 5), [1, 4.5])


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a &amp; b", "a & b"),
        ("<b>x</b><br/>y", "x y"),
        ('<span class="a-size-medium a-color-secondary"', ""),
        ("5 < 6 and 7 > 2", "5 < 6 and 7 > 2"),
        ("<script>var x = '<b>';</script>z", "z"),
        ("&lt;i&gt;q&lt;/i&gt;", "q"),
        (" a\n\t b ", "a b"),
        ("tea \ud83c", "tea \ufffd"),
        ("tea \ud83c\udf75", "tea \U0001f375"),
    ],
)
def test_plain(text, clean):
    assert files.plain(text) == clean


def frame(*rows):
    return pd.DataFrame(rows, columns=["user", "item", "time", "value"])


def test_build_counts_what_it_does():
    items = pd.DataFrame({"raw": ["a", "b", "c"], "text": ["x", "", "y"]})
    rows = frame(("u", "a", 2.0, 5.0), ("u", "b", 1.0, 5.0), ("u", "b", 1.0, 5.0), ("u", "a", 3.0, 5.0), ("v", "a", 1.0, 1.0))
    data = files.build("d", rows, items)
    assert len(data) == 4  # the exact repeat goes, buying "a" again at another time stays
    report = str(data.report)
    for line in ("dropped 1 rows", "1 rows stood after a later row", "kept 4 interactions of 2 users with 3 items"):
        assert line in report
    for line in ("1 user with one interaction", "1 item that nobody took", "1 item without text"):
        assert line in report
    assert "2 items without text" in str(files.build("d", rows, items.assign(text=[" ", "", "y"])).report)
    unclocked = files.build("d", rows[["user", "item"]], items, clock=False)
    assert len(unclocked) == 5
    assert "with 3 items; there is no column time, so the order of the rows counts" in str(unclocked.report)
    with pytest.raises(DataError, match="no interactions"):
        files.build("d", rows[:0], items)
