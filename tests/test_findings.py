import pytest

from zsrbook import findings
from zsrbook.experiments import mail, prerec_tables, zesrec
from zsrbook.findings import MEASURES, at_a_glance, beyond_the_picture
from zsrbook.records import find
from zsrbook.scale import Scale


@pytest.mark.parametrize("paper", MEASURES)
def test_each_paper_has_its_lines_in_both_worlds_and_each_interval_holds_its_value(paper):
    lines = at_a_glance(paper)
    assert {line.scale for line in lines} == {Scale.TOY, Scale.SMALL}
    assert {line.kind for line in lines} == set(MEASURES[paper].kinds)
    assert all(line.low <= line.times <= line.high for line in lines)
    assert len({(line.scale, line.where, line.kind) for line in lines}) == len(lines)


def test_a_line_is_what_the_chapters_say():
    records = find(paper="mail", experiment="clicks", target="grocery", scale="toy")
    (row,) = mail.improvements(records, {"MAIL-Base": "BaseDNN"}, ["AUC (new)"]).itertuples()
    (line,) = (line for line in at_a_glance("MAIL") if (line.where, line.kind) == ("grocery, the paper's protocol", "paper"))
    assert 100 * (line.times - 1) == pytest.approx(row.improvement)
    assert 100 * (line.low - 1) == pytest.approx(row.low)
    moved = find(paper="prerec", experiment="transfer", source="grocery", target="pantry", method="PreRec", scale="toy")
    popular = {r.target: r for r in find(paper="prerec", experiment="single", target="pantry", method="MostPop", scale="toy")}
    (gain,) = prerec_tables.gains(moved, popular).itertuples()
    (line,) = (line for line in at_a_glance("PreRec") if (line.where, line.kind) == ("grocery → pantry", "paper"))
    assert (100 * (line.times - 1), 100 * (line.high - 1)) == pytest.approx((gain.gain, gain.high))


def test_legends_have_room_for_their_words():
    assert max(len(words) for measure in MEASURES.values() for words in measure.kinds.values()) <= 44


def test_without_a_yardstick_or_with_a_rival_alone_there_is_no_line(monkeypatch):
    kept = find(paper="mail", scale="toy")
    for gone, left in (("BaseDNN", set()), ("MAIL-Base", set()), ("Item rate by attributes", {"paper"})):
        some = [r for r in kept if r.method != gone]
        monkeypatch.setattr(findings, "find", lambda some=some, **asked: [r for r in some if all(getattr(r, k) == v for k, v in asked.items())])
        assert {line.kind for line in at_a_glance("MAIL")} == left


@pytest.mark.parametrize("paper", MEASURES)
def test_what_no_picture_shows_is_said_with_its_numbers_and_only_where_there_are_records(paper, monkeypatch):
    said = {
        "ZESRec": "office 2.8 to 3.0 times popularity's",
        "MAIL": "in 3 of 5 comparisons",
        "Search": "on 3 of 4 data sets",
        "PreRec": "in 12 of 20",
    }
    assert said[paper] in beyond_the_picture(paper)
    monkeypatch.setattr(findings, "find", lambda **asked: [])
    assert beyond_the_picture(paper) == ""


def test_what_the_first_page_says_of_public_data_is_what_the_records_say():
    """book/intro.md and README.md say it in words, so no build would change them."""

    def public(paper):
        places = {}
        for line in at_a_glance(paper):
            if line.scale is Scale.SMALL:
                places.setdefault(line.where, {})[line.kind] = line
        return list(places.values())

    for there in public("ZESRec"):
        networks = [there[kind] for kind in ("paper", "ours") if kind in there]
        assert all(line.low <= 1 and line.times < there["rival"].times for line in networks)
        assert there["rival"].method == zesrec.UNTRAINED
        if there["rival"].where.count("ml-") == 2:  # films
            assert max(line.high for line in (*networks, there["rival"])) < 1
        else:
            assert all(line.high < there["rival"].low for line in networks)
    assert all(there["paper"].low <= 1 for there in public("MAIL"))
    prerec = [there for there in public("PreRec") if "ours" in there]
    assert sum(there["ours"].low > 1 for there in prerec) >= len(prerec) / 2
    assert all(there["ours"].times < there["rival"].times for there in prerec)
    for paper in MEASURES:  # at toy scale, one form of each is ahead somewhere
        assert any(line.low > 1 for line in at_a_glance(paper) if line.scale is Scale.TOY and line.kind in ("paper", "ours"))
    assert not any(find(paper=paper.lower(), scale=Scale.PAPER) for paper in MEASURES)
