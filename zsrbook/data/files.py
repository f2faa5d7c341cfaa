"""Reading raw files so that bad input is caught at its line, and the last steps that all loaders share.

Every function here names the file, the line, the value seen and what was expected, and none writes anything.
"""

from __future__ import annotations

import ast
import codecs
import csv
import gzip
import html
import json
import lzma
import re
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from zsrbook.data.dataset import Columns, DataError, Dataset, Report, counted

GET_AGAIN = "delete it and get it again"
PIECE = 1 << 26  #: bytes of a large table that are parsed at once
#: what a file in these encodings starts with, as one of the two orders of bytes must be told
MARKS = {"utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)}


@contextmanager
def open_raw(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a plain file, of a ``.gz``, of the one file inside a ``.zip``, or of the file of this name in a tar.

    A tar, packed or not, stands in the path where a folder would: ``yelp_dataset.tar/yelp_academic_dataset_review.json``, however
    deep the file lies inside. It is read in place; nothing is unpacked, so nothing can land anywhere.

    Raises:
        DataError: missing, empty, truncated or damaged; the ``.zip`` holds another number of files than one, or one that is packed with a
            password or in a way that Python does not know; or the tar holds no file of this name.
    """
    path = Path(path)
    kind = path.suffix.lower()
    file = path.parent if path.parent.is_file() else path
    if not file.is_file():
        raise DataError(f"{path}: no such file; put it there, or see `python -m zsrbook data list`")
    if file.stat().st_size == 0:
        raise DataError(f"{file}: the file is empty (0 bytes); {GET_AGAIN}")
    try:
        if file != path:
            with tarfile.open(file) as archive:
                member = next((m for m in archive if m.isreg() and PurePosixPath(m.name).name == path.name), None)
                if member is None:
                    raise DataError(f"{file}: holds no file {path.name}; it holds {', '.join(archive.getnames())[:200] or 'nothing'}")
                with archive.extractfile(member) as stream:
                    yield stream
        elif kind == ".gz":
            with gzip.open(path) as stream:
                yield stream
        elif kind == ".zip":
            with zipfile.ZipFile(path) as archive:
                names = [n for n in archive.namelist() if not n.endswith("/") and not n.startswith("__MACOSX")]
                if len(names) != 1:
                    raise DataError(f"{path}: holds {len(names)} files; expected one; unpack it and name the file that you mean")
                try:
                    stream = archive.open(names[0])
                except RuntimeError as error:  # also NotImplementedError, which is one
                    raise DataError(f"{path}: {error}; pack it anew, without a password, or unpack it and name the file in it") from None
                with stream:
                    yield stream
        else:
            with path.open("rb") as stream:
                yield stream
    except EOFError as error:
        raise DataError(f"{file}: ends in the middle of its compressed data, so the download was cut short; {GET_AGAIN}") from error
    except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, lzma.LZMAError, tarfile.TarError) as error:
        refuse_html(file, beginning(file))
        raise damaged(file, error) from error
    except OSError as error:  # such as from bzip2 in a zip or tar; what names a file itself is of another kind
        if error.filename is not None or (file == path and kind != ".zip"):
            raise
        raise damaged(file, error) from error


def damaged(file: Path, error: Exception) -> DataError:
    """The error for a packed file that Python can't unpack."""
    why = str(error).partition("\n")[0].rstrip(":")
    return DataError(f"{file}: can't be unpacked ({why}); expected {file.suffix[1:]} data; {GET_AGAIN}")


def form(path: Path) -> str:
    """The ending that tells what a file holds, packed or not, in small letters.

    >>> form(Path("ORDERS.json.CSV.gz"))
    '.csv'
    """
    return next((suffix.lower() for suffix in reversed(path.suffixes) if suffix.lower() not in (".gz", ".zip")), "")


def beginning(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(200)


def refuse_html(path: Path, start: bytes) -> None:
    """Servers that refuse a download often send a web page instead, with the name of the file that was asked for.

    Raises:
        DataError: this is such a page.
    """
    seen = start.lstrip()[:60]
    if seen[:1] == b"<" and re.match(rb"<(!doctype|html|head|\?xml|!--)", seen, re.IGNORECASE):
        raise DataError(f"{path}: line 1 is {seen.decode('latin-1')!r}: a web page, not data; {GET_AGAIN}, and look at the page: it often says why")


def decode(path: Path, data: bytes, encoding: str, first_line: int = 1) -> str:
    """``data`` as text; never guesses another encoding.

    Raises:
        DataError: the encoding is unknown, a byte (whose line is named) can't stand in it, the file says itself that it is UTF-16 or does not
            say so where that is expected, or it is UTF-8 and would be read in silence as something else.
    """
    try:
        known = codecs.lookup(encoding).name
        if first_line == 1 and data.startswith(MARKS["utf-16"]) and not known.startswith(("utf-16", "utf-32")):
            raise DataError(f"{path}: line 1 starts with the mark of UTF-16, and {known} is expected; say --encoding utf-16, or save it as UTF-8")
        if first_line == 1 and known in MARKS and data and not data.startswith(MARKS[known]):
            raise DataError(
                f"{path}: line 1 does not start with the mark of {known.upper()}; leave --encoding out, or name the encoding that it is in;"
                " it holds for all files of a command, so if they differ, save them all as UTF-8"
            )
        if not known.startswith("utf-8"):
            refuse_utf8(path, data, known, first_line)
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = first_line + data.count(b"\n", 0, error.start)
        raise DataError(
            f"{path}: line {line}: byte 0x{data[error.start]:02x} can't stand in {known}; if the table is your own, name its true encoding"
            f" with --encoding, often latin-1 in older files and cp1252 from Excel; if the file is as it was published, {GET_AGAIN}"
        ) from None
    except (LookupError, UnicodeError):  # an encoding of Python's own, such as "undefined", may refuse all bytes
        raise DataError(f"{path}: unknown encoding {encoding!r}; expected a name that Python knows, such as 'utf-8' or 'latin-1'") from None


def refuse_utf8(path: Path, data: bytes, encoding: str, first_line: int) -> None:
    """In a code page of one byte a letter, most bytes mean something, so UTF-8 gets through as well: with two wrong letters for each "é".

    Raises:
        DataError: the encoding is such a code page, and the data is UTF-8 and more than ASCII.
    """
    beyond_ascii = re.search(rb"[\x80-\xff]", data)
    if beyond_ascii is None or not (data.startswith(codecs.BOM_UTF8) or is_utf8(data)):
        return
    if len(bytes(range(128, 256)).decode(encoding, "replace")) == 128:
        line = first_line + data.count(b"\n", 0, beyond_ascii.start())
        raise DataError(
            f"{path}: line {line} is written in UTF-8, and {encoding} is expected; save it in that, or leave --encoding out if you gave one:"
            f" it holds for all files of a command, so if another one is in {encoding}, save that one as UTF-8"
        )


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """(line number from 1, text without its end) of each line that is not blank.

    Raises:
        DataError: there is none, or a line is in another encoding.
    """
    empty = True
    with open_raw(path) as stream:
        for number, raw in enumerate(stream, 1):
            if number == 1:
                refuse_html(path, raw)
            if text := decode(path, raw, encoding, number).strip("\r\n"):
                empty = False
                yield number, text
    if empty:  # also where only what it is packed in has a size
        raise DataError(f"{path}: holds no line, or blank ones only; {GET_AGAIN}")


def read_records(path: Path, loose: bool = False) -> Iterator[tuple[int, dict]]:
    """(line number, record) of a file with one JSON object a line.

    Args:
        loose: also read Python literals, as the 2014 Amazon metadata has them (parsed, never run).
    """
    for number, line in read_lines(path):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            try:
                record = ast.literal_eval(line) if loose else None
            except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # the last two of what is nested too deep
                record = None
        if not isinstance(record, dict):
            raise DataError(f"{path}: line {number} is {line[:60]!r}; expected one JSON object a line; {GET_AGAIN}")
        yield number, record


def read_json(path: Path) -> dict:
    """A file that is one JSON object.

    Raises:
        DataError: it is none, or an object in it names something twice, of which all but the last would be lost.
    """

    def once(pairs: list[tuple[str, object]]) -> dict:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
            raise DataError(f"{path}: {twice[:60]!r} stands in one object twice; expected each name once; {GET_AGAIN}")
        return found

    with open_raw(path) as stream:
        data = stream.read()
    refuse_html(path, data[:200])
    text = decode(path, data, "utf-8")
    try:
        value = json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: line {error.lineno}: {error.msg}; expected one JSON object; {GET_AGAIN}") from None
    except DataError:
        raise
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, and what is nested too deep
        raise DataError(f"{path}: can't be read as JSON ({error}); expected one JSON object; {GET_AGAIN}") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds a {type(value).__name__}; expected one JSON object")
    return value


def read_table(path: Path, separator: str = ",", columns: list[str] | None = None, encoding: str = "utf-8", quoted: bool = True) -> pd.DataFrame:
    """A delimited file as text columns; the index is the line of the file on which a row begins.

    Args:
        separator: may be longer than one character, as ``::`` in MovieLens 1M.
        columns: the names, where the file has no header line.
        quoted: whether ``"`` encloses fields, which may then hold line breaks.

    Raises:
        DataError: a line has another number of columns, a quote does not close, or the file is empty, damaged, a web page or in another encoding.
    """
    with open_raw(path) as stream:
        return parse_table(path, stream.read(), separator, columns, encoding, quoted)


def parse_table(
    path: Path, data: bytes, separator: str, columns: list[str] | None = None, encoding: str = "utf-8", quoted: bool = True, first: int = 1
) -> pd.DataFrame:
    """``read_table`` of bytes that are at hand: the lines of the file from number ``first`` on."""
    refuse_html(path, data[:200])
    text = decode(path, data, encoding, first).removeprefix("\ufeff").rstrip("\r\n")
    if not text:
        raise DataError(f"{path}: the file is empty; {GET_AGAIN}")
    written = separator
    if len(separator) > 1:
        text, separator = text.replace(separator, "\x1f"), "\x1f"
    header = columns is None
    top, _, rest = text.partition("\n")
    if header and not rest:
        raise DataError(f"{path}: line 1 is {top[:80]!r} and nothing follows; expected a line of names, then rows")
    if header and re.match('"?sep=', top):
        raise DataError(f"{path}: line 1 is {top.strip()!r}, which is for Excel alone; expected a line of names; take line 1 out")
    names = header_names(path, top, separator, quoted) if header else columns
    if header and len(names) == 1 and (other := next((sign for sign in (";", "\t", "|", ",") if sign in top), None)):
        raise DataError(
            f"{path}: line 1 is {top[:80]!r}, one column; it looks separated by {other!r}, and {separator!r} is expected:"
            " save it as CSV with commas, or name it .tsv if tabs part the columns"
        )
    if len(set(names)) < len(names):
        raise DataError(f"{path}: line 1 names a column twice: {', '.join(names)}; expected each name once")
    if quoted:
        refuse_open_quotes(path, text, separator)
    bad = []

    def remember(row):
        bad.append(row)
        return "error"

    try:
        table = pa.csv.read_csv(
            pa.BufferReader(text.encode()),
            pa.csv.ReadOptions(use_threads=False, block_size=PIECE, column_names=names, skip_rows=int(header)),  # a block holds a row at least
            pa.csv.ParseOptions(
                delimiter=separator,
                quote_char='"' if quoted else False,
                ignore_empty_lines=False,
                newlines_in_values=quoted,
                invalid_row_handler=remember,
            ),
            pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        if not bad:
            raise DataError(f"{path}: can't be read as a table with columns {', '.join(names)}: {error}") from None
        row = bad[0]  # its number counts rows, so its line is looked for
        begin = re.search(rf"^{re.escape(row.text)}\r?$", text, re.MULTILINE)
        line = f"line {first + text.count(chr(10), 0, begin.start())}" if begin else "a line"
        hint = f"; a text that holds {separator!r} belongs in quotes, with no blank before the first"
        raise DataError(
            f"{path}: {line} has {row.actual_columns} columns; expected {row.expected_columns} ({', '.join(names)}): "
            f"{row.text.replace(separator, written)[:80]!r}{hint if quoted and row.actual_columns > row.expected_columns else ''}"
        ) from None
    frame = table.to_pandas()
    frame.index = pd.RangeIndex(first + header, first + header + len(frame), name="line")
    if quoted and text.count("\n") + 1 - header > len(frame):  # fields hold line breaks, each of which moves all rows below
        breaks = sum(frame[name].str.count("\n") for name in frame).to_numpy(np.int64)
        frame.index += np.append(0, np.cumsum(breaks)[:-1])
    blank = frame.eq("").all(axis=1)
    if blank.any():
        raise DataError(f"{path}: line {blank.idxmax()} is blank; expected {len(names)} columns ({', '.join(names)}); take the line out")
    return frame


def header_names(path: Path, line: str, separator: str, quoted: bool = True) -> list[str]:
    """The names in a header line; a column without one is called after its place.

    >>> header_names(Path("t.csv"), 'item,"price, EUR",', ",")
    ['item', 'price, EUR', 'column 3']

    Raises:
        DataError: it is no line of names.
    """
    try:
        names = next(csv.reader([line], delimiter=separator, skipinitialspace=True)) if quoted else line.split(separator)
    except csv.Error as error:  # such as one name that would never end
        raise DataError(f"{path}: line 1 is {line[:80]!r}; expected a line of names ({error})") from None
    return [name.strip() or f"column {place}" for place, name in enumerate(names, 1)]


def with_header(path: Path, columns: list[str], separator: str = ",", quoted: bool = True) -> pd.DataFrame:
    """As ``read_table``, of a file whose first line names these columns.

    Raises:
        DataError: it names others, and as ``read_table``.
    """
    frame = read_table(path, separator, quoted=quoted)
    require_names(path, frame, columns)
    return frame


def read_large(path: Path, columns: list[str], separator: str) -> Iterator[pd.DataFrame]:
    """As ``with_header`` of a table without quotes, in pieces, so that the text of a file of any length never lies in memory whole."""
    first = 1
    with open_raw(path) as stream:
        while data := stream.read(PIECE) + stream.readline():
            frame = parse_table(path, data, separator, None if first == 1 else columns, quoted=False, first=first)
            require_names(path, frame, columns)
            yield frame
            first += data.count(b"\n")


def require_names(path: Path, frame: pd.DataFrame, columns: list[str]) -> None:
    if list(frame.columns) != columns:
        raise DataError(f"{path}: line 1 names the columns {', '.join(frame.columns)}; expected {', '.join(columns)}")


def refuse_open_quotes(path: Path, text: str, separator: str) -> None:
    """A quote that opens a field and is forgotten swallows all up to the next quote: whole rows, which nobody would miss.

    A field may hold line breaks, but then what closes it stands at the end of a field.

    Raises:
        DataError: a quote never closes, or closes lines later in the middle of a field, as where it has met the quote that opens another.
    """
    for field in re.finditer(rf'(?:^|{re.escape(separator)})("(?:[^"]|"")*+)("?)', text, re.MULTILINE):
        after = text[field.end() : field.end() + 1]
        if not field[2] or ("\n" in field[1] and after not in ("", separator, "\r", "\n")):
            line, start = 1 + text.count("\n", 0, field.start(1)), field[1][1:41].partition("\n")[0].rstrip()
            end = f"closes in the middle of line {line + field[1].count(chr(10))}" if field[2] else "never closes"
            raise DataError(
                f'{path}: line {line}: the quote before {start!r} {end}; expected a second " at the end of that field:'
                ' add it, or write a " that belongs to the text as "" in a field in quotes'
            )


def numbers(path: Path, column: pd.Series, expected: str, low: float = -np.inf, high: float = np.inf, step: float | None = None) -> np.ndarray:
    """The column as float64, all from ``low`` to ``high``; the index of the column holds line numbers.

    Args:
        step: of which each must be a multiple; None: any number will do.

    Raises:
        DataError: a value is missing, no number, out of range, or between steps.
    """
    try:
        values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    except OverflowError:  # JSON holds whole numbers of any length
        values = pd.to_numeric(column.astype(str).where(lambda text: text.str.len() < 300), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    good = (values >= low) & (values <= high) & np.isfinite(values)
    require(path, column, good if step is None else good & (np.where(good, values, 0) % step == 0), expected)
    return values


def refuse_cut_time(path: Path, column: pd.Series, times: np.ndarray) -> None:
    """A file that is cut short within its last time still has a number there, but of fewer digits.

    Args:
        column: as it is written, the last row of the file included.
        times: of all rows, the last one included.

    Raises:
        DataError: the last time is less than half of any other.
    """
    if len(column) and len(times) > 1 and times[-1] < (least := times[:-1].min()) / 2:
        whole = np.arange(len(column)) < len(column) - 1
        require(path, column, whole, f"no time so far below all others (from {least:.0f} on): the file seems to end in the middle of the number")


def filled(path: Path, column: pd.Series, expected: str) -> pd.Series:
    """The column as text, none of it empty or broken (see ``broken``)."""
    try:
        text = column.astype(str)
        if text.dtype == object:  # pandas 2 keeps any text, and pandas 3 none that is broken
            "".join(text).encode()
    except UnicodeEncodeError:
        require(path, column, ~np.array([broken(str(value)) for value in column]), f"{expected} of whole signs")
        raise
    require(path, column, (column.notna() & text.str.strip().ne("")).to_numpy(bool), expected)
    return text


def broken(text: str) -> bool:
    """Whether it has half of a sign of two, as where JSON was cut within an emoji: no file can be written of it."""
    return re.search("[\ud800-\udfff]", text) is not None


def own_ids(path: Path, column: pd.Series) -> pd.Series:
    """The ids that a table lists as text: none is empty, and each stands there once."""
    ids = filled(path, column, "an id")
    require(path, ids, ~ids.duplicated().to_numpy(), "each id once")
    return ids


def listed(path: Path, column: pd.Series, table: Path, ids: pd.Series) -> None:
    """Raises DataError where the column names what ``ids``, those of the file ``table``, do not hold."""
    known = column.isin(ids).to_numpy()
    require(path, column, known, f"one of the ids in {table.name}, {such_as(ids, column[~known])}")


def such_as(known: pd.Series, unknown: pd.Series) -> str:
    """For an error about unknown ids: what the known ones look like, and what may have become of the others.

    >>> such_as(pd.Series(["0115", "0116"]), pd.Series(["115"]))
    "such as '0115' and '0116' (it fits but for zeros in front: leading zeros lost?)"
    """
    guess = ""
    for what, bare in (
        (" (it fits but for zeros in front: leading zeros lost?)", lambda ids: ids.str.lstrip("0")),
        (" (it fits but for .0 at the end: read as a number?)", lambda ids: ids.str.removesuffix(".0")),
        (" (it fits but for blanks around it: take them out)", lambda ids: ids.str.strip()),
        (" (it fits but for capital letters: spell both alike)", lambda ids: ids.str.lower()),
    ):
        if bare(unknown.astype(str)).isin(bare(known.astype(str))).any():
            guess = what
    return f"such as {' and '.join(map(repr, known[:2]))}{guess}"


def require(path: Path, column: pd.Series, good: np.ndarray, expected: str) -> None:
    """Raises DataError naming the first line where ``good`` is false, its value, and how many more there are.

    What has no lines, such as a matrix, is counted in what the column's index is named after.
    """
    if not good.all():
        where = column.index.name or "line"
        row = int(np.flatnonzero(~good)[0])
        value = column.iloc[row]
        raise DataError(
            f"{path}: {where} {column.index[row]}: {column.name} is {'missing' if pd.isna(value) else repr(str(value))}; expected {expected}"
            f" ({int((~good).sum())} such of {len(column)} {where}s); correct it, or get the file again"
        )


#: scripts and styles with what they hold; tags, also one that the end of the text cuts off
TAGS = re.compile(r"<(script|style)\b.*?</\1\s*>|</?[a-zA-Z!][^<>]*(?:>|$)", re.IGNORECASE | re.DOTALL)


def plain(text: str) -> str:
    """Text of a web shop without HTML: entities resolved, tags and scripts gone, runs of white space made one space.

    Half of a sign of two, as where JSON was cut within an emoji, is no text; it becomes U+FFFD.

    >>> plain("Salt &amp; Pepper<br>Grinder")
    'Salt & Pepper Grinder'
    """
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return " ".join(TAGS.sub(" ", html.unescape(whole)).split())


def joined(*parts: str) -> str:
    """The parts that are not empty, with a space between: title, then description.

    >>> joined("Grinder", "")
    'Grinder'
    """
    return " ".join(p for p in parts if p)


def build(
    name: str,
    interactions: pd.DataFrame,
    items: pd.DataFrame,
    users: pd.DataFrame | None = None,
    clock: bool = True,
    report: Report = Report(),
) -> Dataset:
    """The steps that all loaders end with: drop rows that repeat another exactly, count what is odd, code and sort.

    Rows are equal if user, item, time and value are; where there is no clock a repeat can't be told from a second purchase,
    so all are kept. Users with one interaction and items without text are kept and counted.

    Raises:
        DataError: as ``Dataset.from_raw``.
    """
    if interactions.empty:
        raise DataError(f"{name}: no interactions; nothing to load")
    if clock:
        repeated = interactions.duplicated().to_numpy()
        if repeated.any():
            interactions = interactions[~repeated]
            report += f"{name}: dropped {repeated.sum():,} rows that repeat another exactly"
        time = interactions[Columns.TIME]
        back = (time.groupby(interactions[Columns.USER], sort=False).diff() < 0).sum()
        if back:
            report += f"{name}: sorted by time: {back:,} rows stood after a later row of the same user; rows of equal time keep the file's order"
    data = Dataset.from_raw(name, interactions, items, users, clock, report)
    lengths = data.sequences().lengths
    lines = [
        f"{name}: kept {counted(len(data), 'interaction{s}')} of {counted(data.n_users, 'user{s}')} with {counted(data.n_items, 'item{s}')}"
        + ("" if clock else "; there is no column time, so the order of the rows counts")
    ]
    odd = {
        "user{s} with one interaction": int((lengths == 1).sum()),
        "user{s} without any": len(data.users) - data.n_users,
        "item{s} that nobody took": data.n_items - data.interactions[Columns.ITEM].nunique(),
        "item{s} without text (kept; a content model can't tell them apart)": int(items[Columns.TEXT].str.strip().eq("").sum()),
    }
    lines += [f"{name}: {counted(count, what)}" for what, count in odd.items() if count]
    return replace(data, report=data.report + Report(tuple(lines)))
