"""The paper's tables beside ours: no row lost, numbers and verdicts right, HTML that a screen reader can follow."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from test_claims import record_of

from zsrbook.evaluation.intervals import difference
from zsrbook.evaluation.protocol import METRICS, Protocol
from zsrbook.records import ADDRESS, REPOSITORY, RecordError, find
from zsrbook.tables import PAPERS, across, beside, measured, paper_numbers, stacked

RECORDS = [
    record_of("POP", 0.10, seeds=1, source=None),
    record_of("ZESRec-H", 0.30),
    record_of("ZESRec-G", 0.10),
    record_of("Random", 0.02, seeds=1, source=None),
    record_of("ZESRec-G (shuffled)", 0.03),
    record_of("Bayes-optimal", 0.5, seeds=1, source=None),
]


PAPER_PAIR = "amazon-grocery-2018--amazon-prime-pantry-2018"


def table(records=RECORDS, **changes):
    return beside(**dict(name="zesrec_table2", paper_pair=PAPER_PAIR, pair="grocery--pantry", scale="toy", records=records) | changes)


def test_no_row_of_the_paper_or_of_ours_is_lost():
    frame = table().to_frame()
    paper = paper_numbers("zesrec_table2")
    assert set(paper["method"]) <= set(frame.index)
    assert {"ZESRec-G (shuffled)", "Bayes-optimal"} <= set(frame.index)
    assert frame.loc["HRNN", ("verdict", "")] == "not run here"
    assert np.isnan(frame.loc["HRNN", ("Recall@20", "ours")])
    assert frame.loc["HRNN", ("Recall@20", "paper")] == 0.174
    assert np.isnan(frame.loc["Bayes-optimal", ("Recall@20", "paper")])


def test_numbers_are_those_of_the_records_with_an_interval_around():
    frame = table().to_frame()
    row = frame.loc["ZESRec-H", "Recall@20"]
    assert row["ours"] == pytest.approx(RECORDS[1].mean("Recall@20"))
    assert row["low"] < row["ours"] < row["high"]
    row = frame.loc["POP", "Recall@20"]  # one seed: 3000 independent predictions
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * np.sqrt(0.1 * 0.9 / 3000), rel=0.15)


def test_verdicts_at_another_scale_compare_the_order():
    verdict = table().to_frame()["verdict", ""]
    assert verdict["ZESRec-H"] == "above POP, as in the paper"
    assert verdict["ZESRec-G"] == "level with POP, in the paper above it"
    assert table(level=10).frame["verdict", ""]["ZESRec-G"] == "level with POP, as in the paper"
    assert verdict["Random"] == "below POP, as in the paper"
    assert verdict["ZESRec-G (shuffled)"] == "below POP"
    assert verdict["POP"] == "the yardstick"
    assert table(RECORDS[1:]).to_frame()["verdict", ""]["ZESRec-H"] == "POP not run here"


def test_verdicts_on_the_papers_own_data_are_two_sided():
    paper = paper_numbers("zesrec_table2").query("pair == @PAPER_PAIR").pivot(index="method", columns="metric", values="value")

    def said(factor, shown=METRICS):
        metrics = {m: [v * factor] for m, v in paper.loc["ZESRec-H"].items()} | {"AUC": [0.9]}
        source, target = PAPER_PAIR.split("--")
        records = [record_of("ZESRec-H", 0.1, seeds=1, ranks=False, scale="paper", metrics=metrics, source=source, target=target)]
        return table(records, scale="paper", pair=PAPER_PAIR, metrics=shown).to_frame()["verdict", ""]["ZESRec-H"]

    assert said(1.05) == "as in the paper, within 10%"
    assert said(1.2) == "above the paper"
    assert said(0.7) == "below the paper"
    assert said(2.0) == "far above the paper: look for leaks"
    assert said(1.0, ("AUC",)) == "no number of the paper to compare with"


def test_a_number_that_the_paper_leaves_out_is_not_level_with_the_yardstick(tmp_path):
    printed = paper_numbers("zesrec_table2").query("pair == @PAPER_PAIR and not (method == 'ZESRec-H' and metric == 'Recall@20')")
    printed.to_csv(tmp_path / "zesrec_table2.csv", index=False)
    verdict = table(RECORDS, folder=tmp_path).to_frame()["verdict", ""]
    assert verdict["ZESRec-H"] == "above POP"


def test_in_papers_on_clicks_the_third_decimal_counts():
    numbers = paper_numbers("mail_table2").query("pair == 'alimama' and metric == 'AUC (new)'").set_index("method")["value"]
    verdict = beside("mail_table2", "alimama", "grocery", "toy", ("clicks",), metrics=("AUC (new)",), yardstick="BaseDNN").to_frame()["verdict", ""]
    assert numbers["MAIL-Base"] > numbers["BaseDNN"] + 0.005
    assert verdict["MAIL-Base"].endswith("in the paper above it")
    assert verdict["MAIL-DMR"].endswith("as in the paper")
    assert verdict["LLAE"].endswith("in the paper level with it")
    assert verdict["Emblr"].endswith("as in the paper")


def test_caption_holds_protocol_scale_data_device_and_date():
    caption = table().caption
    for part in (Protocol().caption(), "toy scale", "pantry (abababab)", "a device", "2021-05-18", "1 to 3 seeds"):
        assert part in caption
    least = sorted(difference(r.per_user("Recall@20"), RECORDS[0].per_user("Recall@20")).detectable for r in RECORDS[1:])
    said = f"the least difference from POP in Recall@20 that would be found 8 times in 10: {least[0]:.3f} to {least[-1]:.3f}, by row"
    assert said in caption
    assert "among the 700 titles in common" in table([record_of("POP", 0.1, metrics={"Recall@20": [0.1] * 3, "titles": [700.0] * 3})]).caption
    assert "no run recorded" in table([]).caption
    assert set(table([]).to_frame()["verdict", ""]) == {"not run here"}


def test_a_table_links_to_the_records_it_was_made_from_and_to_no_others():
    recorded = find(paper="zesrec", experiment="zero-shot", target="pantry", scale="toy")
    shown = beside("zesrec_table2", PAPER_PAIR, "grocery--pantry", "toy", records=recorded)._repr_html_()
    linked = re.findall(rf'href="{ADDRESS}/tree/main/([^"]+)"', shown)
    assert set(linked) == {f"book/runs/zesrec/zero-shot/{pair}" for pair in ("grocery--pantry", "pantry")}
    assert all((REPOSITORY / folder).is_dir() for folder in linked)
    assert "Run records" not in table([record_of("POP", 0.1, target="nowhere")], pair="elsewhere--nowhere")._repr_html_()


def test_records_under_two_protocols_do_not_stand_in_one_table():
    other = record_of("HRNN", 0.2, protocol=Protocol(average="macro").settings())
    with pytest.raises(RecordError, match="2 protocols"):
        table([*RECORDS, other])


def test_metrics_without_ranks_stand_in_a_table_too():
    records = [record_of("POP", 0.1, metrics={"AUC": [0.5, 0.51, 0.52]}), record_of("ZESRec-H", 0.1, metrics={"AUC": [0.7, 0.71, 0.72]})]
    shown = table(records, metrics=["AUC"])
    assert shown.to_frame().loc["ZESRec-H", ("AUC", "ours")] == pytest.approx(0.71)
    assert shown.to_frame()["verdict", ""]["ZESRec-H"] == "above POP"
    assert "8 times in 10" not in shown.caption


def test_unknown_names_list_the_known():
    with pytest.raises(FileNotFoundError, match="zesrec_table2"):
        paper_numbers("zesrec_table9")
    with pytest.raises(ValueError, match="netflix-2m--ml-1m"):
        table(paper_pair="books--films")


class Reader(HTMLParser):
    """Counts the cells of each row and checks that tags close."""

    def __init__(self, page):
        super().__init__()
        self.open, self.rows, self.scopes = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "br":
            return
        self.open.append(tag)
        attributes = dict(attributes)
        if tag == "tr":
            self.rows.append(0)
        if tag in ("td", "th"):
            self.rows[-1] += int(attributes.get("colspan", 1))
        if tag == "th":
            self.scopes.append(attributes.get("scope"))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_is_well_formed_and_every_header_has_a_scope():
    shown = table()
    page = Reader(shown._repr_html_())
    assert not page.open
    assert page.rows[2:] == [7] * len(shown.to_frame())  # method, three metrics twice
    assert page.rows[0] == 7
    assert page.rows[1] == 6
    assert set(page.scopes) == {"col", "colgroup", "row"}
    assert 'role="region"' in shown._repr_html_()
    assert "overflow-x:auto" in shown._repr_html_()


def test_the_verdict_stands_under_the_name():
    assert re.search(r">ZESRec-H<br><small>above POP, as in the paper</small></th><td [^>]*>0\.", table()._repr_html_())


def test_best_is_bold_and_the_ceiling_is_not():
    page = table()._repr_html_()
    best = f"<strong>{RECORDS[1].mean('Recall@20'):.3f}</strong><br><small>±"
    assert best in page
    assert f"<strong>{RECORDS[-1].mean('Recall@20'):.3f}" not in page
    assert "<strong>0.177</strong>" in page  # GRU4Rec, the paper's best recall


def test_every_paper_table_names_its_place():
    for path in PAPERS.glob("*.csv"):
        numbers = paper_numbers(path.stem)
        assert {"citation", "where", "value"} <= set(numbers)
        assert numbers.notna().all(axis=None)
        levels = numbers[numbers["quantity"] != "difference in %"] if "quantity" in numbers else numbers
        assert levels["value"].ge(0).all()


def test_our_runs_alone_are_held_against_a_yardstick():
    found = measured(RECORDS, ("Recall@20", "NDCG@20"), "POP", "ours")
    frame = found.frame
    gap = difference(RECORDS[1].per_user("Recall@20"), RECORDS[0].per_user("Recall@20"))
    row = frame.loc["ZESRec-H", "Recall@20"]
    assert row["difference"] == pytest.approx(gap.value, abs=1e-6)
    assert row["below"] == pytest.approx(gap.low, abs=1e-6)
    assert np.isnan(frame.loc["POP", ("Recall@20", "difference")])
    page = found._repr_html_()
    assert "to POP" in page
    assert page.count("<strong>") == 1 + 2  # the title, and the best of each metric, which is not the ceiling
    close = frame.loc["ZESRec-G", "Recall@20"]
    assert close["below"] < 0 < close["above"]
    assert f"({close['difference']:+.3f})" in page  # in brackets, since it can't be told from POP
    with pytest.raises(ValueError, match="no record of the yardstick HRNN"):
        measured(RECORDS, ("Recall@20",), "HRNN", "ours")


def test_several_data_sets_stand_side_by_side_by_kind_of_method():
    named = {r.method: r for r in RECORDS}
    some = {name: named[name] for name in ("POP", "ZESRec-G")}
    groups = {"learned": ["ZESRec-G", "ZESRec-H"], "not learned": ["POP", "Bayes-optimal"], "not run": ["HRNN"]}
    page = across(groups, {"grocery → pantry": named, "films → pantry": some}, "Recall@20", "ours", "means")
    assert not Reader(page).open
    assert 'class="zsr-scroll zsr-across"' in page
    assert "not run" not in page.replace("not learned", ""), "a kind without rows has no line"
    body = page.partition("<thead>")[2]
    assert re.findall(r'scope="row(?:group)?"[^>]*>([^<]+)<', body) == ["learned", "ZESRec-H", "ZESRec-G", "not learned", "Bayes-optimal", "POP"]
    assert "grocery →<br>pantry" in body
    assert re.search(r">ZESRec-H</th><td><strong>0\.\d{3}</strong><br><small>±\u00a00\.\d{3} \(\d\)</small></td><td>–</td>", body), (
        "best, with seeds, and a dash"
    )
    assert re.search(r">Bayes-optimal</th><td>0\.", body), "the ceiling is not printed as the best"


def test_a_difference_stands_above_its_interval():
    cell = stacked(0.02, -0.01, 0.05, 2)
    assert not Reader(f"<table><tr><td>{cell}</td></tr></table>").open
    assert re.sub("<[^>]*>", "|", cell) == "+0.02||-0.01 to +0.05|"
    assert re.sub("<[^>]*>", "|", stacked(0.02, -np.inf, np.inf)) == "+0.020||?|"


def test_of_one_user_tables_tell_the_value_alone():
    named = {}
    for record in RECORDS[:2]:
        ranks = {seed: ranks.where(ranks.user == ranks.user[0]) for seed, ranks in record.ranks.items()}
        metrics = [Protocol().summary(table) for table in ranks.values()]
        named[record.method] = replace(record, ranks=ranks, metrics={name: [m[name] for m in metrics] for name in METRICS})
    records = list(named.values())
    shown, ours = table(records), measured(records, ("Recall@20",), "POP", "ours")
    assert shown.to_frame().loc["ZESRec-H", ("Recall@20", "high")] == np.inf
    assert shown.to_frame().at["ZESRec-H", ("verdict", "")] == "level with POP, in the paper above it"
    pages = (shown._repr_html_(), ours._repr_html_(), across({"ours": list(named)}, {"pantry": named}, "Recall@20", "ours", ""))
    for words in (re.sub("<[^>]*>", " ", page).split() for page in pages):
        assert f"{named['ZESRec-H'].mean('Recall@20'):.3f}" in words
        assert not {"inf", "-inf", "+inf", "nan", "found"} & set(words)
