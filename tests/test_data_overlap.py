from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from zsrbook.data import overlap
from zsrbook.data.dataset import DataError, Dataset
from zsrbook.data.toy import ToySettings, ToyWorld


def make(name, users, titles, raws=None, start=0.0, clock=True):
    """Each user takes all items in order."""
    raws = raws or [f"{name}-{t}" for t in titles]
    rows = pd.DataFrame([(u, r, start + 86_400.0 * k) for u in users for k, r in enumerate(raws)], columns=["user", "item", "time"])
    items = pd.DataFrame({"raw": raws, "text": [f"{t} and what it is" for t in titles], "title": titles})
    return Dataset.from_raw(name, rows, items, clock=clock)


FILMS = ["Matrix, The (1999)", "Seven (a.k.a. Se7en) (1995)", "Toy Story (1995)", "Alien (1979)"]
TOOLS = ["Claw hammer", "Adjustable wrench", "Cordless drill", "Spirit level", "Wood saw"]


def test_shared_items_by_each_way():
    a = make("a", ["Uxq"], FILMS)
    b = make("b", ["Vxq"], ["Se7en", "The Matrix", "Aliens", "toy story"])
    pairs = lambda by: list(overlap.shared_items(a, b, by).itertuples(index=False, name=None))  # noqa: E731
    assert pairs("title") == [(0, 1), (2, 3)]
    assert pairs("names") == [(1, 0), (0, 1), (2, 3)]
    assert pairs("raw") == []
    assert len(overlap.shared_items(a, a, "raw")) == 4
    with pytest.raises(DataError, match="by is 'colour'"):
        overlap.shared_items(a, b, "colour")


def test_ids_that_a_source_numbers_itself_say_nothing():
    for ids in (["1", "2", "3", "4"], ["A1", "A2", "A3", "A4"]):
        a, b = make("a", ["u1"], FILMS, ids), make("b", ["u1"], TOOLS[:4], ids)
        audit = overlap.audit(a, b)
        assert audit.shared_items is None
        assert audit.shared_users is None
        assert audit.verdict == overlap.UNKNOWN == "no shared text; users can't be compared"
        assert audit.table().loc["verdict", "answer"] == overlap.UNKNOWN
        with pytest.raises(DataError, match="a → b: the user ids of one side are numbers of its own"):
            audit.assert_disjoint()
        audit.assert_disjoint(tolerance=0, unknown_users=True)
    left = overlap.without_shared(a, b)
    assert len(left) == len(a)
    assert "a: dropped 0 of 4 items that b has too; users can't be compared, so none was dropped" in str(left.report)


def test_items_without_text_match_nothing():
    a, b = make("a", ["Uxq"], ["", ""], ["B00X", "B00Y"]), make("b", ["Vxq"], ["", ""], ["C00X", "C00Y"])
    a.items["text"] = b.items["text"] = ""
    assert len(overlap.shared_items(a, b, "title")) == len(overlap.near_duplicates(a, b)) == 0
    for data, text in ((a, "tea"), (b, "cup")):  # nor do titles that are missing: then the text counts
        data.items["title"], data.items["text"] = pd.Series([None, None], dtype=object), [f"{text} of {what}" for what in ("gold", "iron")]
    assert len(overlap.shared_items(a, b, "title")) == 0
    assert overlap.audit(a, b).equal_titles == 0


def test_near_duplicates_find_the_best_match_in_any_chunking(monkeypatch):
    a = make("a", ["Uxq"], TOOLS)
    b = make("b", ["Vxq"], ["Green tea", "Cordless drill 18V", "Wood saw.", "Claw hammer"])
    found = overlap.near_duplicates(a, b, threshold=0.6)
    assert list(zip(found["source"], found["target"], strict=True)) == [(2, 1), (4, 2), (0, 3)]
    assert found["similarity"].between(0.6, 1.0001).all()
    monkeypatch.setattr(overlap, "PAIRS_AT_ONCE", 1)
    pd.testing.assert_frame_equal(overlap.near_duplicates(a, b, threshold=0.6), found)


def test_without_shared_drops_both_and_counts():
    other = make("other", ["Uxa", "Uxb"], FILMS)
    data = make("data", ["Uxb", "Uxc"], ["The Matrix", "Brazil", "Alien!", "Brasil"]).with_features(np.eye(4))
    left = overlap.without_shared(data, other)
    assert left.items["title"].tolist() == ["Brazil", "Brasil"]
    assert left.users["raw"].tolist() == ["Uxc"]
    assert left.interactions["item"].tolist() == [0, 1]
    assert left.features.tolist() == np.eye(4)[[1, 3]].tolist()
    assert "data: dropped 2 of 4 items and 1 of 2 users that other has too" in str(left.report)
    assert overlap.without_shared(data, other, by=()).items["title"].tolist() == ["The Matrix", "Brazil", "Alien!", "Brasil"]
    assert overlap.audit(other, left).verdict == "disjoint"
    with pytest.raises(DataError, match="no interactions are left"):
        overlap.without_shared(other, other)


def test_audit_catches_the_same_category_under_other_ids():
    a = make("a", ["Uxa"], TOOLS, clock=False)
    alike = make("b", ["1"], TOOLS, clock=False)
    with pytest.raises(DataError, match=r"a → b is no zero-shot pair \(same category"):  # of users nothing is known, of items all too much
        overlap.audit(a, alike).assert_disjoint(unknown_users=True)
    b = make("b", ["Vxa"], [t + "." for t in TOOLS], clock=False)
    audit = overlap.audit(a, b)
    assert audit.verdict == "same category under other ids"
    assert audit.equal_titles == audit.near_duplicates == 5
    assert audit.time_overlap() == "no clock"
    with pytest.raises(DataError, match="a → b is no zero-shot pair"):
        audit.assert_disjoint()


def test_audit_of_users_ids_and_time():
    a = make("a", ["Uxa", "Uxb"], TOOLS, [f"B00{t[-1]}{t[0]}" for t in TOOLS])
    b = make("b", ["Uxb", "Uxc", "Uxd", "Uxe"], ["Green tea", "Oat bar"], ["B00rC", "B00Z"], start=3 * 86_400.0)
    audit = overlap.audit(a, b)
    assert (audit.shared_users, audit.shared_items, audit.verdict) == (1, 1, "some overlap")
    table = audit.table()
    assert table.loc["shared users", "answer"] == "1 of 4"
    assert table.loc["shared users", "share"] == 0.25
    assert table.loc["overlap in time", "answer"] == "1970-01-04 to 1970-01-05"
    assert table.loc["verdict", "answer"] == "some overlap"
    with pytest.raises(DataError, match="1 shared users, 1 shared item ids"):
        audit.assert_disjoint(tolerance=1)
    later = make("c", ["Wxa"], ["Green tea"], start=1e9)
    assert overlap.audit(a, later).time_overlap() == "none"


def test_the_toy_markets_are_disjoint():
    world = ToyWorld(ToySettings(users=(60, 40, 30)))
    sets = [world.dataset(market) for market in world.markets]
    for a, b in permutations(sets, 2):
        audit = overlap.audit(a, b)
        assert audit.verdict == "disjoint"
        audit.assert_disjoint(tolerance=0)
