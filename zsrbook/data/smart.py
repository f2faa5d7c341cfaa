"""CISI and CACM, two collections of scientific abstracts with queries, relevance and citations (Fox, 1983), from their SMART files.

A SMART file is a run of records. A line ``.I 7`` begins record 7, and a line with a full stop and a capital begins a field: ``.T``
title, ``.A`` authors, ``.W`` abstract or question, ``.K`` keywords, ``.X`` citation links. Relevance stands in a file of its own, one
query and one document a line.

Every link here is symmetric, since the files say which documents belong together, never which of two cites the other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from zsrbook.data.dataset import Columns, DataError, Report
from zsrbook.data.files import GET_AGAIN, joined, read_lines
from zsrbook.data.search import SearchData, links_of

#: how two documents of CACM may belong together, and the number that says so in the middle of a line of ``.X``
RELATIONS = {"coupling": 4, "citation": 5, "co-citation": 6}

#: a whole number, short enough to be one of a document
NUMBER = re.compile(r"\d{1,9}")


@dataclass
class Record:
    """One record: its id, its line, and for each field the lines (number, text) that are not blank."""

    raw: str
    line: int
    fields: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    def text(self, *names: str) -> str:
        """These fields with single spaces between words."""
        return joined(*(" ".join(" ".join(line for _, line in self.fields.get(name, [])).split()) for name in names))


def load_cisi(folder: Path, name: str = "cisi") -> SearchData:
    """``CISI.ALL``, ``CISI.QRY``, ``CISI.REL``: 1,460 documents of information science; 112 queries, 76 of them judged (3,114 pairs).

    Two documents are linked (38,672 pairs) where a third cites both; a line of ``.X`` gives the other document, how many cite both,
    and the document itself.

    Raises:
        DataError: a file is missing, damaged, or holds a line that does not fit; the message names it.
    """
    folder = Path(folder)
    path = folder / "CISI.ALL"
    documents, report = read(path, name, "documents")
    lines, notes = links(path, name, documents)
    return assemble(name, documents, lines, folder / "CISI.QRY", folder / "CISI.REL", report + notes)


def load_cacm(folder: Path, relations: Sequence[str] = tuple(RELATIONS), name: str = "cacm") -> SearchData:
    """``cacm.all``, ``query.text``, ``qrels.text``: 3,204 documents of computer science, 1,587 of them with an abstract; 64 queries, 52 of
    them judged (796 pairs).

    Args:
        relations: what links two documents: ``coupling``, both cite a third (6,165 pairs); ``citation``, one cites the other (2,720 pairs;
            the file does not say which); ``co-citation``, a third cites both (5,320 pairs). All three link 12,813 pairs.

    Raises:
        DataError: as ``load_cisi``, or a relation of another name.
    """
    if unknown := set(relations) - set(RELATIONS):
        raise DataError(f"relations names {', '.join(sorted(map(repr, unknown)))}; expected some of {', '.join(RELATIONS)}")
    folder = Path(folder)
    path = folder / "cacm.all"
    documents, report = read(path, name, "documents")
    lines, notes = links(path, name, documents)
    odd = lines[~lines["number"].isin(RELATIONS.values())]
    if len(odd):
        raise DataError(f"{path}: line {odd['line'].iloc[0]}: the link is of type {odd['number'].iloc[0]}; expected 4, 5 or 6; {GET_AGAIN}")
    lines = lines[lines["number"].isin([RELATIONS[r] for r in relations])]
    notes += f"{name}: links are {', '.join(relations)}"
    return assemble(name, documents, lines, folder / "query.text", folder / "qrels.text", report + notes)


def read(path: Path, name: str, what: str) -> tuple[list[Record], Report]:
    """The records of a file that have a field, each id once.

    Raises:
        DataError: there is none; something stands before the first; an id is no number, or stands twice.
    """
    found: list[Record] = []
    now, stray = None, 0
    for number, line in read_lines(path):
        if re.match(r"\.I\b", line):
            raw = line[2:].strip()
            if not NUMBER.fullmatch(raw):
                raise DataError(f"{path}: line {number}: the id is {raw!r}; expected a whole number, such as .I 7; {GET_AGAIN}")
            found.append(Record(str(int(raw)), number))
            now = None
        elif mark := re.fullmatch(r"\.([A-Z])\s*", line):
            now = found[-1].fields.setdefault(mark[1], []) if found else None
            stray += not found
        elif not re.search(r"\w", line):
            stray += bool(line.strip())
        elif now is None:
            raise DataError(f"{path}: line {number} is {line[:60]!r}, outside any field of a record; expected .I and a number first; {GET_AGAIN}")
        else:
            now.append((number, line))
    full = [record for record in found if record.fields]
    if not full:
        raise DataError(f"{path}: no line begins a record (.I and a number) that has a field, so these are no {what} of SMART; {GET_AGAIN}")
    lines: dict[str, int] = {}
    for record in full:
        if record.raw in lines:
            raise DataError(f"{path}: line {record.line}: id {record.raw} is also that of line {lines[record.raw]}; expected each id once")
        lines[record.raw] = record.line
    report = Report((f"{name}: {len(full):,} {what} in {path.name}",))
    if empty := len(found) - len(full):
        report += f"{name}: dropped {empty:,} records of {path.name} without a field"
    if stray:
        report += f"{name}: {stray:,} lines of {path.name} are signs alone, or a field before the first record, and were passed over"
    return full, report


def links(path: Path, name: str, documents: list[Record]) -> tuple[pd.DataFrame, Report]:
    """The lines of ``.X``: columns ``row`` and ``column`` (codes of two documents, never the same), ``number``, ``line``; and how many
    lines were dropped since they name a document that is not there.

    Raises:
        DataError: a line is not three whole numbers, or its last is not the document that it stands in.
    """
    rows = [(code, number, line.split()) for code, record in enumerate(documents) for number, line in record.fields.get("X", [])]
    for code, number, words in rows:
        if len(words) != 3 or not all(map(NUMBER.fullmatch, words)) or words[2] != documents[code].raw:
            raise DataError(
                f"{path}: line {number} is {' '.join(words)[:60]!r}; expected another document, a number, and {documents[code].raw},"
                f" the document that the line stands in; {GET_AGAIN}"
            )
    table = pd.DataFrame(
        {
            "row": np.array([code for code, _, _ in rows], np.int64),
            "column": pd.Index([record.raw for record in documents]).get_indexer([words[0] for _, _, words in rows]),
            "number": np.array([words[1] for _, _, words in rows], np.int64),
            "line": np.array([number for _, number, _ in rows], np.int64),
        }
    )
    unknown = table["column"] < 0
    report = Report()
    if unknown.any():
        first = table["line"][unknown].iloc[0]
        report += f"{name}: dropped {unknown.sum():,} links to documents that {path.name} does not hold; the first stands in line {first}"
    return table[~unknown & (table["row"] != table["column"])], report


def assemble(name: str, documents: list[Record], lines: pd.DataFrame, asked: Path, judged: Path, report: Report) -> SearchData:
    """Documents, the links that these lines of ``links`` name, and the queries that are judged; counts of all that is odd."""
    items = pd.DataFrame(
        {
            Columns.RAW: [record.raw for record in documents],
            "title": [record.text("T") for record in documents],
            Columns.TEXT: [record.text("T", "W") for record in documents],
            "authors": [record.text("A") for record in documents],
        }
    )
    links = links_of(lines["row"].to_numpy(), lines["column"].to_numpy(), len(documents))
    linked = (links.sum(axis=0) + links.sum(axis=1)) > 0
    odd = {
        "documents without an abstract": sum(not record.text("W") for record in documents),
        "documents without any text (kept; only links can find them)": int(items[Columns.TEXT].eq("").sum()),
        "documents without a link (kept)": int((~linked).sum()),
    }
    report += f"{name}: {links.nnz:,} links touch {linked.sum():,} documents"
    for what, count in odd.items():
        if count:
            report += f"{name}: {count:,} {what}"
    questions, notes = read(asked, name, "queries")
    texts = pd.DataFrame(
        {Columns.RAW: [q.raw for q in questions], "text": [q.text("T", "W") for q in questions], "kind": [kind(q) for q in questions]}
    )
    relevance, more = judgements(judged, name, texts[Columns.RAW], items[Columns.RAW])
    report += notes + more
    wordless = ~texts["text"].str.contains(r"\w")
    answered = texts.index.isin(relevance["query"])
    if wordless.any():
        report += f"{name}: left out {wordless.sum():,} queries without a word, {(wordless & answered).sum():,} of them judged"
    kept = answered & ~wordless.to_numpy()
    relevance = relevance[kept[relevance["query"]]]
    relevance = relevance.assign(query=(np.cumsum(kept) - 1)[relevance["query"]]).reset_index(drop=True)
    if relevance.empty:
        raise DataError(f"{judged}: judges no query of {asked.name} that has words; the two files do not belong together")
    report += f"{name}: {len(relevance):,} relevant pairs of {kept.sum():,} queries; left out {(~answered).sum():,} queries that nobody judged"
    return SearchData(name, items, links, texts[kept].reset_index(drop=True), relevance, report=report)


def kind(query: Record) -> str:
    """``document`` where a title and an abstract stand for the question, ``author`` where an author is asked for, else ``question``."""
    return "document" if query.text("T") else "author" if query.text("A") else "question"


def judgements(path: Path, name: str, queries: pd.Series, documents: pd.Series) -> tuple[pd.DataFrame, Report]:
    """Columns ``query``, ``item``, ``grade`` (1), in codes; and counts of lines that say nothing new or name what is not there.

    Raises:
        DataError: there is no line, or one does not begin with two whole numbers.
    """
    rows = []
    for number, line in read_lines(path):
        words = line.split()
        if len(words) < 2 or not all(map(NUMBER.fullmatch, words[:2])):
            raise DataError(f"{path}: line {number} is {line[:60]!r}; expected a query, a document, then numbers that are not read; {GET_AGAIN}")
        rows.append((number, str(int(words[0])), str(int(words[1]))))
    line, asked, found = zip(*rows, strict=True)
    table = pd.DataFrame({"query": pd.Index(queries).get_indexer(asked), Columns.ITEM: pd.Index(documents).get_indexer(found), "grade": 1})
    report = Report()
    for column, what in (("query", "queries"), (Columns.ITEM, "documents")):
        unknown = (table[column] < 0).to_numpy()
        if unknown.any():
            first = line[unknown.argmax()]
            report += f"{name}: dropped {unknown.sum():,} judgements in {path.name} of {what} that are not there; the first is line {first}"
    table = table[(table["query"] >= 0) & (table[Columns.ITEM] >= 0)]
    if twice := int(table.duplicated().sum()):
        report += f"{name}: dropped {twice:,} judgements in {path.name} that repeat another"
    return table.drop_duplicates().reset_index(drop=True), report
