import gzip

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from zsrbook.data import table
from zsrbook.data.dataset import DataError

INTERACTIONS = "user,item,time,value,shop\nu,a,5,1,x\nu,b,3,2,x\nv,a,4,3,y\n"
ITEMS = 'item,text,brand\na,"tea, green",Leaf\nb,,Leaf\nc,cup,\n'


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "interactions.csv").write_text(INTERACTIONS)
    (tmp_path / "items.csv").write_text(ITEMS)
    (tmp_path / "users.csv").write_text("user,city\nu,Ulm\nv,Bonn\nw,Kiel\n")
    return tmp_path


def test_csv_and_parquet_agree(folder):
    files = [folder / f"{n}.csv" for n in ("interactions", "items", "users")]
    data = table.load(*files, name="shop")
    assert data.items["text"].tolist() == ["tea, green", "", "cup"]
    assert data.items["brand"].tolist() == ["Leaf", "Leaf", ""]
    assert data.users["city"].tolist() == ["Ulm", "Bonn", "Kiel"]
    assert data.interactions["item"].tolist() == [1, 0, 0]
    for file in files:
        pd.read_csv(file).to_parquet(file.with_suffix(".parquet"))
    assert table.load(*(f.with_suffix(".parquet") for f in files), name="shop").sha256() == data.sha256()


def test_without_time_the_order_of_rows_counts(folder):
    (folder / "i.csv").write_text("user,item\nu,b\nu,a\nu,b\n")
    data = table.load(folder / "i.csv", folder / "items.csv")
    assert not data.clock
    assert data.name == "i"
    assert data.interactions["item"].tolist() == [1, 0, 1]
    assert "no items table" in str(table.load(folder / "i.csv").report)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_dates(folder, kind):
    path = folder / f"d.{kind}"
    rows = pd.DataFrame({"user": ["u", "u"], "item": ["a", "b"], "time": ["1970-01-02", "1970-01-01 00:00:01"]})
    rows.to_csv(path, index=False) if kind == "csv" else rows.assign(time=pd.to_datetime(rows["time"], format="ISO8601")).to_parquet(path)
    assert table.load(path).interactions["time"].tolist() == [1.0, 86_400.0]
    zoned = folder / "z.csv"
    zoned.write_text("user,item,time\nu,a,1970-01-01T01:00:00+01:00\n")
    assert table.load(zoned).interactions["time"].tolist() == [0.0]


def test_a_time_without_a_zone_is_utc_whatever_stands_above_it(folder):
    times = ["1970-01-01T02:00+02:00", "1970-01-01T01:00", "1970-01-01 02:00Z", "1970-01-02", "1970-01-02 10:00-0500"]
    path = folder / "z.csv"
    path.write_text("user,item,time\n" + "".join(f"u,{n},{time}\n" for n, time in enumerate(times)))
    assert table.load(path).interactions["time"].tolist() == [0, 3600, 7200, 86_400, 140_400]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,thing\nu,a\n", "no column item; it has user, thing"),
        ("user,item,time\nu,a,\nu,b,5\n", "line 2: time is ''; expected seconds"),
        ("user,item,time\nu,a,1529193600000\n", "line 2: time is '1529193600000'.*milliseconds"),
        ("user,item,time\nu,a,yesterday\n", "line 2: time is 'yesterday'"),
        ("user,item,value\nu,a,lots\n", "line 2: value is 'lots'"),
        ("user,item,value\nu,a,1e300\n", r"line 2: value is '1e300'; expected a number up to 3.4e\+38"),
        ("user,item\nu,a\n,b\n", "line 3: user is ''"),
        ("user,item\nu,z\n", "line 2: item is 'z'; expected one of the ids in items.csv"),
        ("user,item\nu,0a\n", r"ids in items.csv, such as 'a' and 'b' \(it fits but for zeros in front: leading zeros lost\?\) \(1 such"),
        ("user,item\nu, b\n", r"such as 'a' and 'b' \(it fits but for blanks around it: take them out\)"),
        ("user,item\nu,B\n", r"such as 'a' and 'b' \(it fits but for capital letters: spell both alike\)"),
        ("user,item\nu,b.0\n", r"such as 'a' and 'b' \(it fits but for .0 at the end: read as a number\?\)"),
        ("user,item,time\nu,a,20240301\nu,b,20231231\n", "line 2: time is '20240301'; expected seconds since 1970, or a date with dashes"),
        ("user,item,time\nu,a,2024-05-01\nu,b,0\nu,a,2024-05-02\nu,b,2024-05-03\n", "line 3: time is '0'; expected .* a date as 2024"),
        ("user,item,time\nu,a,5\nu,b,6\nu,a,2024-05-02\n", "line 4: time is '2024-05-02'; expected seconds since 1970"),
        ("user,item\nu,a\nu ,b\n", "line 3: user is 'u '; expected one spelling of each id .another line has it with other blanks around it"),
        ("user,item\nu ,a\nu ,b\nu,b\n", r"line 2: user is 'u '; expected one spelling.* \(2 such of 3 lines\)"),
        ('user,item\nu,a\nv,"a "\n', "line 3: item is 'a '; expected one spelling"),
        ("user,item\n", "line 1 is .* and nothing follows"),
        ("user,item\nu\n", "has 1 columns; expected 2"),
    ],
)
def test_bad_interactions(folder, text, message):
    (folder / "bad.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        table.load(folder / "bad.csv", folder / "items.csv")


def test_durations_in_parquet_are_seconds_whatever_their_unit(folder):
    for unit in ("s", "ms", "ns"):
        pd.DataFrame({"user": "a", "item": ["x", "y"], "time": pd.to_timedelta([1, 3], unit="s").as_unit(unit)}).to_parquet(folder / "timed.parquet")
        assert table.load(folder / "timed.parquet").interactions["time"].tolist() == [1.0, 3.0]


@pytest.mark.parametrize("name", ["Time", "DATE", "timestamp", "date time", "time_stamp", "Datetime"])
def test_a_column_that_seems_to_say_when_is_not_left_out_in_silence(folder, name):
    (folder / "i.csv").write_text(f"user,item,{name}\nu,a,2024-05-01\n")
    with pytest.raises(DataError, match=rf"i\.csv: no column time, but '{name}'; rename it to time if it says when, or take it out if the order"):
        table.load(folder / "i.csv", folder / "items.csv")
    (folder / "i.csv").write_text(f"user,item,{name},time\nu,a,x,2024-05-01\n")
    assert table.load(folder / "i.csv", folder / "items.csv").clock
    (folder / "i.csv").write_text("user,item,update,times\nu,a,x,y\n")
    data = table.load(folder / "i.csv", folder / "items.csv")
    assert "there is no column time, so the order of the rows counts" in str(data.report)


@pytest.mark.skipif(int(pd.__version__.partition(".")[0]) < 3, reason="before pandas 3 such dates are refused in words")
def test_dates_of_any_century(folder):
    (folder / "i.csv").write_text("user,item,time\nu,a,9999-12-31\nu,b,1600-01-01\n")
    assert table.load(folder / "i.csv").interactions["time"].tolist() == [-11_676_096_000.0, 253_402_214_400.0]


def test_numbers_that_may_be_no_seconds_are_kept_and_reported(folder):
    for times, told in (((46082, 46090), True), ((1, 2), True), ((2023, 2024), True), ((5, 1_709_251_200), False)):
        (folder / "i.csv").write_text("user,item,time\n" + "".join(f"u,{item},{time}\n" for item, time in zip("ab", times, strict=True)))
        data = table.load(folder / "i.csv", folder / "items.csv")
        assert data.interactions["time"].tolist() == list(times)
        assert ("i: times run from 1970-01-01 to 1970-01-01, read as seconds since 1970; " in str(data.report)) is told
    (folder / "i.csv").write_text("user,item,time\nu,a,1971-05-01\n")
    assert "times run from" not in str(table.load(folder / "i.csv", folder / "items.csv").report)


def test_seconds_that_are_no_days(folder):
    (folder / "i.csv").write_text("user,item,time\nu,a,20240301\nu,b,1709251200\n")
    assert len(table.load(folder / "i.csv")) == 2
    (folder / "i.csv").write_text("user,item,time\nu,a,20241301\n")
    assert len(table.load(folder / "i.csv")) == 1


def test_parquet_texts_are_utf8_and_its_rows_are_called_rows(folder):
    text = pa.array([b"tea", "café".encode(), None])
    pa.parquet.write_table(pa.table({"item": ["a", "b", "c"], "text": text}), folder / "items.parquet")
    assert table.alone(folder / "items.parquet").items["text"].tolist() == ["tea", "café", ""]
    text = pa.array([b"tea", None, "café".encode("latin-1")])
    unchecked = pa.StringArray.from_buffers(3, text.buffers()[1], text.buffers()[2], text.buffers()[0])
    for column in (text, unchecked):
        pa.parquet.write_table(pa.table({"item": ["a", "b", "c"], "text": column}), folder / "items.parquet")
        with pytest.raises(DataError, match=r"items.parquet: row 3: text is b'caf\\xe9'; expected text in UTF-8"):
            table.alone(folder / "items.parquet")
    pa.parquet.write_table(pa.table({"user": ["u", "u"], "item": ["a", "x"]}), folder / "i.parquet")
    with pytest.raises(DataError, match=r"i.parquet: row 2: item is 'x'; .* \(1 such of 2 rows\)"):
        table.load(folder / "i.parquet", folder / "items.csv")


def test_a_missing_text_in_parquet_is_the_empty_one_as_in_csv(folder):
    items = pd.read_csv(folder / "items.csv").assign(title=["tea", None, None], colour=pd.Series([None] * 3, dtype=object), price=[1.5, None, 2.0])
    items.to_parquet(folder / "items.parquet")
    loaded = table.load(folder / "interactions.csv", folder / "items.parquet").items
    assert loaded[["title", "colour", "brand"]].to_numpy().tolist() == [["tea", "", "Leaf"], ["", "", "Leaf"], ["", "", ""]]
    assert loaded["price"].isna().tolist() == [False, True, False]


def test_categories_and_an_index_in_parquet_are_columns_as_others(folder):
    frame = pd.DataFrame({"item": ["a", "b", "c"], "text": pd.Categorical(["tea", None, "tea"]), "stock": pd.Categorical([3, 4, 3])})
    for made in (frame, frame.set_index("item"), frame.astype({"item": "category"}).set_index("item")):
        made.to_parquet(folder / "items.parquet")
        items = table.alone(folder / "items.parquet").items
        assert items["raw"].tolist() == ["a", "b", "c"]
        assert items["text"].tolist() == ["tea", "", "tea"]
        assert items["stock"].tolist() == [3, 4, 3]
        assert "item" in table.columns(folder / "items.parquet", "utf-8")
    text = pa.array(["café".encode("latin-1")] * 2).dictionary_encode()
    pa.parquet.write_table(pa.table({"item": ["a", "b"], "text": text}), folder / "items.parquet")
    with pytest.raises(DataError, match=r"items.parquet: row 1: text is b'caf\\xe9'; expected text in UTF-8"):
        table.alone(folder / "items.parquet")


def test_endings_in_capital_letters(folder):
    (folder / "items.csv").rename(folder / "ITEMS.CSV")
    (folder / "T.TSV").write_text("user\titem\nu\ta\n")
    assert table.columns(folder / "T.TSV", "utf-8") == ["user", "item"]
    assert len(table.load(folder / "T.TSV", folder / "ITEMS.CSV")) == 1
    pd.DataFrame({"item": ["a"], "text": ["tea"]}).to_parquet(folder / "I.Parquet")
    assert table.columns(folder / "I.Parquet", "utf-8") == ["item", "text"]
    assert table.alone(folder / "I.Parquet").n_items == 1


def test_a_catalogue_alone(folder):
    data = table.alone(folder / "items.csv")
    assert (data.name, data.n_items, data.n_users, len(data)) == ("items", 3, 0, 0)
    assert data.report.lines == ("items: 3 items", "items: 1 item without text")
    assert data.sha256()


@pytest.mark.parametrize(
    ("name", "encoding", "head"),
    [
        ("i.csv", "utf-8", '\ufeffitem,"text", "price, EUR",\r\n'),
        ("i.tsv.gz", "utf-8", "item\ttext\tprice, EUR\t\n"),
        ("i.csv", "utf-16", 'item,text,"price, EUR",\n'),
    ],
)
def test_names_of_columns_are_read_without_the_rest(tmp_path, name, encoding, head):
    data = head.encode(encoding) + "never read: é".encode("latin-1")
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert table.columns(tmp_path / name, encoding) == ["item", "text", "price, EUR", "column 4"]
    with pytest.raises(DataError, match="unknown encoding"):
        table.columns(tmp_path / name, "utf-9")


def test_names_of_columns_in_parquet(folder, monkeypatch):
    pd.DataFrame({"item": ["a"], "text": ["tea"]}).to_parquet(folder / "i.parquet")
    monkeypatch.setattr(pa.parquet, "read_table", None)
    assert table.columns(folder / "i.parquet", "utf-8") == ["item", "text"]
    (folder / "i.parquet").write_text("no parquet")
    for path, message in ((folder / "i.parquet", "can't be read as Parquet"), (folder / "no.parquet", "no such file")):
        with pytest.raises(DataError, match=message):
            table.columns(path, "utf-8")


def test_bad_items_and_kinds(folder):
    (folder / "twice.csv").write_text("item,text\na,x\nb,y\na,z\n")
    with pytest.raises(DataError, match="line 4: item is 'a'; expected each id once"):
        table.load(folder / "interactions.csv", folder / "twice.csv")
    (folder / "blanks.csv").write_text("item,text\na,x\nb,y\na ,z\n")
    with pytest.raises(DataError, match="line 4: item is 'a '; expected one spelling of each id"):
        table.alone(folder / "blanks.csv")
    for name, message in (("i.doc", r"expected \.csv, \.tsv or \.parquet"), ("i.xlsx", "is a spreadsheet; save the sheet as CSV")):
        (folder / name).write_text("x")
        with pytest.raises(DataError, match=message):
            table.load(folder / name)
    with pytest.raises(DataError, match="is a folder; name the file in it"):
        table.load(folder)
    (folder / "i.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="can't be read as Parquet"):
        table.load(folder / "i.parquet")


@pytest.mark.parametrize("name", ["i.csv.gz", "i.csv.zip", "i.parquet"])
def test_a_web_page_under_the_name_of_a_packed_table(tmp_path, name):
    (tmp_path / name).write_text("<!DOCTYPE html><html><title>403</title>")
    with pytest.raises(DataError, match=rf"{name}: line 1 is '<!DOCTYPE html>.*a web page, not data"):
        table.load(tmp_path / name)
