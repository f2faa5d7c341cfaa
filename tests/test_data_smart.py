"""The files of CISI and CACM: fields, links, judgements, and all that may be wrong with them."""

import numpy as np
import pytest
from typer.testing import CliRunner

from zsrbook.data import smart
from zsrbook.data.commands import app
from zsrbook.data.dataset import DataError

DOCUMENTS = """.I 1
.T
Sorting by
  merging
.A
Ann, A.
.W
Two runs
are merged.
.K
sorting, tape
.X
2\t4\t1
2\t4\t1
2\t5\t1
1\t5\t1
3\t6\t1
.I 2
.T
Tape drives
.X
1\t4\t2
1\t4\t2
1\t5\t2
.I 3
.W
Of files.
.X
1\t6\t3
.I 4
.T
Alone
"""
QUERIES = """.I 1
.W
 how to sort?
.N
 1. somebody
.I 2
.W
papers of Ann
.A
Ann, A.
.I 3
.T
Files
.W
A document that asks.
.I 4
.W
never judged
.I 0
"""
JUDGED = "01 1 0 0\n1 3 0 0\n2 1 0 0\n3 4 0 0\n"


@pytest.fixture
def cacm(tmp_path):
    """Writes the three files, some of them changed, and loads them."""

    def load(documents=DOCUMENTS, queries=QUERIES, judged=JUDGED, **settings):
        for name, text in (("cacm.all", documents), ("query.text", queries), ("qrels.text", judged)):
            (tmp_path / name).write_text(text)
        return smart.load_cacm(tmp_path, **settings)

    return load


def test_texts_are_title_and_abstract(cacm):
    data = cacm()
    assert data.items["raw"].tolist() == ["1", "2", "3", "4"]
    assert data.items["text"].tolist() == ["Sorting by merging Two runs are merged.", "Tape drives", "Of files.", "Alone"]
    assert data.items["title"].tolist() == ["Sorting by merging", "Tape drives", "", "Alone"]
    assert data.items["authors"][0] == "Ann, A."


def test_each_relation_makes_its_links_and_none_leads_to_itself(cacm):
    pairs = lambda **settings: set(zip(*map(list, cacm(**settings).links.nonzero()), strict=True))  # noqa: E731
    assert pairs() == {(0, 1), (1, 0), (0, 2), (2, 0)}
    assert pairs(relations=["coupling"]) == pairs(relations=["citation"]) == {(0, 1), (1, 0)}
    assert pairs(relations=["co-citation"]) == {(0, 2), (2, 0)}


def test_queries_are_those_judged_and_their_codes_are_renumbered(cacm):
    data = cacm(queries=QUERIES, judged="3 4 0 0\n2 1 0 0\n2 1 0 0\n2 9 0 0\n9 1 0 0\n")
    assert data.queries["raw"].tolist() == ["2", "3"]
    assert data.queries["text"].tolist() == ["papers of Ann", "Files A document that asks."]
    assert data.queries["kind"].tolist() == ["author", "document"]
    assert sorted(data.relevance.itertuples(index=False, name=None)) == [(0, 0, 1), (1, 3, 1)]
    for line in (
        "dropped 1 judgements in qrels.text of queries that are not there; the first is line 5",
        "dropped 1 judgements in qrels.text of documents that are not there; the first is line 4",
        "dropped 1 judgements in qrels.text that repeat another",
        "2 relevant pairs of 2 queries; left out 2 queries that nobody judged",
        "dropped 1 records of query.text without a field",
        "2 documents without an abstract",
        "1 documents without a link (kept)",
    ):
        assert line in str(data.report)


def test_a_judged_query_without_a_word_is_left_out_and_counted(cacm):
    data = cacm(queries=".I 1\n.W\n?!\n.N\nx\n" + QUERIES.replace(".I 1\n", ".I 9\n"))
    assert data.queries["raw"].tolist() == ["2", "3"]
    assert "left out 1 queries without a word, 1 of them judged" in str(data.report)


def test_what_is_odd_but_harmless_is_counted(cacm):
    data = cacm(".X\n" + DOCUMENTS.replace("Alone", ".").replace("3\t6\t1", "3\t6\t1\n77\t6\t1\n78\t4\t1") + ".I 5\n.A\nNobody\n.")
    assert data.items["text"].tolist()[3:] == ["", ""]  # an empty title, and an author alone
    for line in (
        "dropped 2 links to documents that cacm.all does not hold; the first stands in line 19",
        "2 documents without any text (kept; only links can find them)",
        "3 lines of cacm.all are signs alone, or a field before the first record, and were passed over",
    ):
        assert line in str(data.report)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (".I 2", ".I two", r"cacm.all: line 18: the id is 'two'; expected a whole number"),
        (".I 2", ".I", r"line 18: the id is ''"),
        (".I 4", ".I 1", r"line 30: id 1 is also that of line 1; expected each id once"),
        (".I 1\n", "lost\n.I 1\n", r"line 1 is 'lost', outside any field of a record"),
        ("2\t5\t1", "2\t5", r"line 15 is '2 5'; expected another document, a number, and 1"),
        ("2\t5\t1", "2\tfive\t1", r"line 15 is '2 five 1'"),
        ("2\t5\t1", f"2\t{'9' * 23}\t1", r"line 15 is '2 9{23} 1'"),
        (".I 2", f".I {'9' * 5_000}", r"line 18: the id is '999"),
        ("2\t5\t1", "2\t5\t3", r"line 15 is '2 5 3'; expected another document, a number, and 1"),
        ("2\t5\t1", "2\t7\t1", r"line 15: the link is of type 7; expected 4, 5 or 6"),
        (DOCUMENTS, "", r"cacm.all: the file is empty"),
        (DOCUMENTS, "<html>", r"a web page, not data"),
        (DOCUMENTS, "the end of a file\n", r"line 1 is 'the end of a file', outside any field"),
        (DOCUMENTS, ".T\n.I 1\n.I 2\n", r"no line begins a record \(.I and a number\) that has a field"),
    ],
)
def test_bad_documents(cacm, old, new, message):
    with pytest.raises(DataError, match=message):
        cacm(DOCUMENTS.replace(old, new, 1))


def test_bad_judgements_and_settings(cacm):
    with pytest.raises(DataError, match=r"qrels.text: line 1 is 'one 2'; expected a query, a document"):
        cacm(judged="one 2\n")
    with pytest.raises(DataError, match=r"qrels.text: line 1 is '999.*'; expected a query, a document"):
        cacm(judged="9" * 5_000 + " 2\n")
    with pytest.raises(DataError, match=r"qrels.text: holds no line, or blank ones only"):
        cacm(judged="\n\n")
    with pytest.raises(DataError, match=r"qrels.text: judges no query of query.text that has words"):
        cacm(judged="7 1 0 0\n")
    with pytest.raises(DataError, match="relations names 'cites'; expected some of coupling, citation, co-citation"):
        cacm(relations=["cites"])


def test_cisi_counts_stand_in_the_middle_and_repeated_lines_count_once(tmp_path):
    (tmp_path / "CISI.ALL").write_text(".I 1\n.W\na\n.X\n1 5 1\n2 3 1\n3 1 1\n3 1 1\n.I 2\n.W\nb\n.X\n1 3 2\n.I 3\n.W\nc\n.X\n1 1 3\n1 1 3\n")
    (tmp_path / "CISI.QRY").write_text(".I 1\n.W\nwhat?\n")
    (tmp_path / "CISI.REL").write_text("     1      2\t0\t0.000000\n")
    np.testing.assert_array_equal(smart.load_cisi(tmp_path).links.toarray(), [[0, 1, 1], [1, 0, 0], [1, 0, 0]])
    result = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert result.exit_code == 0
    assert "1 relevant pairs of 1 queries" in result.output
    assert "sha256 of the loaded data" in result.output
