"""Verdicts from records whose truth is known, and the claims file against the paper's own numbers."""

import re
from dataclasses import replace
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import yaml

from zsrbook.claims import CLAIMS, ClaimError, Outcome, Verdicts, _parts, judge, load, verdicts
from zsrbook.evaluation.protocol import METRICS, Protocol
from zsrbook.evaluation.ranks import RankTable
from zsrbook.evaluation.retrieval import SearchProtocol
from zsrbook.experiments import prerec, prerec_tables, search
from zsrbook.records import REPOSITORY, RecordError, RunRecord, find
from zsrbook.scale import Scale
from zsrbook.tables import paper_numbers

USER = np.sort(np.random.default_rng(0).integers(0, 300, 3000))


def ranks_of(recall, seed, users=USER, worst=50):
    """Ranks with about this Recall@20: a hit at rank 1, a miss far below."""
    hit = np.random.default_rng(seed).random(len(users)) < recall
    return RankTable.of(np.where(hit, 0, worst).tolist(), [0] * len(users), 1000, users.tolist())


def record_of(method, recall, seeds=3, *, ranks=True, source="grocery", target="pantry", scale="toy", experiment="zero-shot", **changes):
    first = sum(map(ord, method))
    tables = {s: ranks_of(recall, first + s) for s in range(seeds)}
    found = [Protocol().summary(t) for t in tables.values()]
    settings = dict(
        paper="zesrec",
        experiment=experiment,
        source=source,
        target=target,
        method=method,
        scale=scale,
        protocol=Protocol().settings(),
        config={},
        seeds=list(tables),
        metrics={name: [f[name] for f in found] for name in METRICS},
        data_sha256="ab" * 32,
        minutes=1.0,
        ranks=tables if ranks else {},
        device="a device",
        code_version="c" * 40,
        date="2021-05-18",
    )
    return RunRecord(**settings | changes)


def claim_of(tmp_path, holds, **changes):
    entry = {"id": "it", "where": "Table 2", "claim": "so it is", "at": "near", "holds": holds} | changes
    entry = {k: v for k, v in entry.items() if v is not None}
    groups = {"near": {"toy": ["grocery--pantry"]}, "far": {"paper": ["a--b"]}, "five": {"toy": list("vwxyz")}}
    content = {"protocol": Protocol().settings(), "pairs": groups, "claims": [entry]}
    (tmp_path / "p.yml").write_text(yaml.safe_dump(content, sort_keys=False))
    return load("p", tmp_path)[0]


RECORDS = [record_of("A", 0.30), record_of("A2", 0.295), record_of("B", 0.10), record_of("C", 0.20)]


@pytest.mark.parametrize(
    ("holds", "outcome"),
    [
        ({"better": {"a": "A", "b": "B", "by": 0.0}}, Outcome.REPRODUCED),
        ({"better": {"a": "A", "b": "B", "by": 0.1}}, Outcome.REPRODUCED),
        ({"better": {"a": "A", "b": "B", "by": 0.3}}, Outcome.NOT_REPRODUCED),
        ({"better": {"a": "B", "b": "A", "by": 0.0}}, Outcome.NOT_REPRODUCED),
        ({"better": {"a": ["A", "C"], "b": "B", "by": 0.0, "metric": "Recall@20"}}, Outcome.REPRODUCED),
        ({"better": {"a": ["A", "B"], "b": "C", "by": 0.0}}, Outcome.PARTLY),  # one holds, one does not
        ({"near": {"a": "A", "b": "A2", "within": 0.2}}, Outcome.REPRODUCED),
        ({"near": {"a": "A", "b": "B", "within": 0.2, "metric": "MRR@20"}}, Outcome.NOT_REPRODUCED),  # not below, but far above
        ({"between": {"a": "C", "b": "A", "low": 0.5, "high": 0.9}}, Outcome.REPRODUCED),
        ({"between": {"a": "B", "b": "A", "low": 0.5, "high": 0.9}}, Outcome.NOT_REPRODUCED),
        ({"ratio_at_least": {"a": "C", "b": "A", "ratio": 0.5}}, Outcome.REPRODUCED),
        ({"ratio_at_least": {"a": "C", "b": "A", "ratio": 0.8}}, Outcome.NOT_REPRODUCED),
        ({"ratio_at_most": {"a": "B", "b": "A", "ratio": 0.5}}, Outcome.REPRODUCED),
        ({"ratio_at_most": {"a": "C", "b": "A", "ratio": 0.5}}, Outcome.NOT_REPRODUCED),
        ({"smaller_gap": {"gap": ["A", "C"], "than": ["A", "B"]}}, Outcome.REPRODUCED),
        ({"smaller_gap": {"gap": ["A", "B"], "than": ["A", "C"]}}, Outcome.NOT_REPRODUCED),
        ({"value": {"a": "A", "value": 0.3, "within": 0.2}}, Outcome.REPRODUCED),
        ({"all": [{"better": {"a": "A", "b": "B", "by": 0.0}}, {"better": {"a": "C", "b": "B", "by": 0.0}}]}, Outcome.REPRODUCED),
        ({"all": [{"better": {"a": "A", "b": "B", "by": 0.0}}, {"better": {"a": "B", "b": "C", "by": 0.0}}]}, Outcome.PARTLY),
        ({"any": [{"better": {"a": "B", "b": "A", "by": 0.0}}, {"better": {"a": "C", "b": "B", "by": 0.0}}]}, Outcome.REPRODUCED),
        ({"any": [{"better": {"a": "B", "b": "A", "by": 0.0}}, {"better": {"a": "B", "b": "C", "by": 0.0}}]}, Outcome.NOT_REPRODUCED),
        # what is missing does not decide, but keeps a claim from being reproduced in full
        ({"better": {"a": ["A", "Z"], "b": "B", "by": 0.0}}, Outcome.PARTLY),
        ({"better": {"a": ["B", "Z"], "b": "A", "by": 0.0}}, Outcome.NOT_REPRODUCED),
        ({"better": {"a": "Z", "b": "A", "by": 0.0}}, Outcome.NOT_TESTABLE),
    ],
)
def test_predicates(tmp_path, holds, outcome):
    verdict = judge(claim_of(tmp_path, holds), RECORDS, "toy")
    assert verdict.outcome == outcome
    assert verdict.reason


def test_close_call_is_partly_and_names_the_interval(tmp_path):
    records = [record_of("A", 0.2, seeds=1), record_of("B", 0.2, seeds=1)]
    a, b = (r.mean("Recall@20") for r in records)
    better, worse = ("A", "B") if a > b else ("B", "A")
    verdict = judge(claim_of(tmp_path, {"better": {"a": better, "b": worse, "by": 0.0, "metric": "Recall@20"}}), records, "toy")
    assert verdict.outcome == Outcome.PARTLY
    assert verdict.reason == "the one comparison is too close to call"
    assert f"{better} − {worse} = +{abs(a - b):.4f} [-0." in verdict.findings[0].detail


def test_nothing_is_partly_so_where_nothing_holds_and_something_fails_beyond_chance(tmp_path):
    close = [record_of(m, 0.2, seeds=1) for m in "AB"]
    better, worse = sorted(close, key=lambda r: -r.mean("Recall@20"))
    records = [replace(better, method="A"), replace(worse, method="B"), record_of("C", 0.6), record_of("D", 0.05)]
    for rivals, outcome in ((["B"], Outcome.PARTLY), (["B", "C"], Outcome.NOT_REPRODUCED), (["B", "C", "D"], Outcome.PARTLY)):
        assert judge(claim_of(tmp_path, {"better": {"a": "A", "b": rivals, "by": 0.0, "metric": "Recall@20"}}), records, "toy").outcome == outcome


def test_a_failure_within_its_interval_says_so(tmp_path):
    records = [record_of("A", 0.2, seeds=1), record_of("B", 0.2, seeds=1), record_of("C", 0.6, seeds=1)]
    better, worse = ("A", "B") if records[0].mean("Recall@20") > records[1].mean("Recall@20") else ("B", "A")
    narrow = judge(claim_of(tmp_path, {"better": {"a": worse, "b": better, "by": 0.0, "metric": "Recall@20"}}), records, "toy")
    assert narrow.outcome == Outcome.NOT_REPRODUCED
    assert narrow.reason == "the one comparison fails (by no more than the interval)"
    assert "(not reproduced, by no more than the interval)" in Verdicts([narrow])._repr_html_()
    both = judge(claim_of(tmp_path, {"better": {"a": worse, "b": [better, "C"], "by": 0.0, "metric": "Recall@20"}}), records, "toy")
    assert both.reason == "2 of 2 comparisons fail (1 by no more than the interval)"
    clear = judge(claim_of(tmp_path, {"better": {"a": worse, "b": "C", "by": 0.0, "metric": "Recall@20"}}), records, "toy")
    assert clear.reason == "the one comparison fails"


def test_far_better_than_the_paper_asks_for_a_leak_check(tmp_path):
    verdict = judge(claim_of(tmp_path, {"value": {"a": "A", "value": 0.15, "within": 0.1}}), RECORDS, "toy")
    assert verdict.outcome == Outcome.NOT_REPRODUCED  # above the lower bound, but above the upper one too
    assert len(verdict.findings) == 3  # one a metric
    assert all(f.suspicious for f in verdict.findings)
    assert "look for leaks" in verdict.reason
    assert "leaks" not in judge(claim_of(tmp_path, {"value": {"a": "A", "value": 0.28, "within": 0.1}}), RECORDS, "toy").reason


def test_reasons_for_not_testable(tmp_path):
    better = {"better": {"a": "A", "b": "B", "by": 0.0}}
    claim = claim_of(tmp_path, better)
    assert judge(claim, [], "toy").reason == "no record of A in zero-shot at toy scale for grocery → pantry"
    assert judge(claim, RECORDS, "small").reason == "no data at small scale stands for this pair"
    assert judge(claim_of(tmp_path, None, untestable="it is a wish", at=None), RECORDS, "toy").reason == "it is a wish"
    other = record_of("B", 0.1, protocol=Protocol(positions="last").settings())
    assert judge(claim, [RECORDS[0], other], "toy").reason == "B was judged by another protocol (positions)"
    less = ranks_of(0.1, 0, USER[:-200])
    other = record_of("B", 0.1, seeds=1, ranks={}, metrics={k: [v] for k, v in Protocol().summary(less).items()})
    object.__setattr__(other, "ranks", {0: less})
    assert "same test set" in judge(claim, [RECORDS[0], other], "toy").reason
    assert (
        judge(claim_of(tmp_path, {"better": {"a": "A", "b": "B", "by": 0, "metric": "AUC"}}), RECORDS, "toy").reason == "the record of A holds no AUC"
    )


def test_without_ranks_the_seeds_decide(tmp_path):
    claim = claim_of(tmp_path, {"better": {"a": "A", "b": "B", "by": 0.0}})
    many = judge(claim, [record_of("A", 0.3, ranks=False), record_of("B", 0.1, ranks=False)], "toy")
    assert many.outcome == Outcome.REPRODUCED
    assert "seeds only" in many.findings[0].detail
    one = judge(claim, [record_of("A", 0.3, 1, ranks=False), record_of("B", 0.1, 1, ranks=False)], "toy")
    assert one.outcome == Outcome.PARTLY  # one number without an interval shows a direction, no more


@pytest.mark.parametrize("ranks", [False, True])
def test_records_of_different_data_are_not_compared(tmp_path, ranks):
    claim = claim_of(tmp_path, {"better": {"a": "A", "b": "B", "by": 0.0}})
    records = [record_of("A", 0.3, ranks=ranks), record_of("B", 0.1, ranks=ranks, data_sha256="cd" * 32)]
    assert judge(claim, records, "toy").reason == "the records were judged on different data"


def test_method_of_the_target_alone_serves_every_pair_and_experiments_have_an_order(tmp_path):
    records = [record_of("A", 0.3, experiment="incremental"), record_of("A", 0.1), record_of("B", 0.2, source=None)]
    better = {"better": {"a": "A", "b": "B", "by": 0.0}}
    assert judge(claim_of(tmp_path, better, experiment=["incremental", "zero-shot"]), records, "toy").outcome == Outcome.REPRODUCED
    assert judge(claim_of(tmp_path, better), records, "toy").outcome == Outcome.NOT_REPRODUCED


def test_an_experiment_may_serve_some_methods_alone(tmp_path):
    """A was also trained on the target itself; where its run from elsewhere is missing, that must not stand in for it."""
    records = [record_of("A", 0.3, source=None, experiment="single"), record_of("B", 0.1, source=None, experiment="single")]
    better = {"better": {"a": "A", "b": "B", "by": 0.0}}
    claim = claim_of(tmp_path, better, experiment=["transfer", {"single": "B"}])
    assert claim.experiments == {"transfer": None, "single": ("B",)}
    assert judge(claim, records, "toy").reason == "no record of A in transfer at toy scale for grocery → pantry"
    assert judge(claim, [*records, record_of("A", 0.05, experiment="transfer")], "toy").outcome == Outcome.NOT_REPRODUCED
    assert judge(claim_of(tmp_path, better, experiment=["transfer", "single"]), records, "toy").outcome == Outcome.REPRODUCED


def test_a_variant_speaks_for_its_method_where_it_was_run(tmp_path):
    records = [record_of("A", 0.1), record_of("A (tuned)", 0.4), record_of("B", 0.2), record_of("A (tuned, shuffled)", 0.05)]
    claim = claim_of(tmp_path, {"better": {"a": "A", "b": ["B", "A (shuffled)"], "by": 0.0, "metric": "MRR@20"}})
    assert judge(claim, records, "toy").outcome == Outcome.NOT_REPRODUCED
    verdict = judge(claim, records, "toy", variant="tuned")
    assert verdict.outcome == Outcome.REPRODUCED
    assert verdict.findings[0].detail.startswith("A (tuned) − B = +0.")
    assert verdict.findings[1].detail.startswith("A (tuned) − A (tuned, shuffled) = +0.")
    assert "tuned settings where they were run" in Verdicts([verdict])._repr_html_()
    named = replace(claim, experiments={"zero-shot": ("A", "B", "A (shuffled)")})
    assert judge(named, records, "toy", variant="tuned").findings == verdict.findings


@pytest.mark.parametrize("holds", [{"any": ["close", "fails"]}, {"all": [{"any": ["close", "fails"]}]}])
def test_what_may_fail_in_part_is_not_refused_for_it(tmp_path, holds):
    """Of ``any``, the best counts, also where nothing holds and something fails beyond chance."""
    parts = {"close": {"better": {"a": "A2", "b": "A", "metric": "Recall@20", "by": -0.006}}}
    parts["fails"] = {"better": {"a": "B", "b": "A", "metric": "Recall@20", "by": 0.0}}

    def filled(node):
        return parts[node] if isinstance(node, str) else {kind: [filled(child) for child in children] for kind, children in node.items()}

    verdict = judge(claim_of(tmp_path, filled(holds)), RECORDS, "toy")
    assert [f.outcome for f in verdict.findings] == [Outcome.PARTLY, Outcome.NOT_REPRODUCED]
    assert verdict.outcome == Outcome.PARTLY
    both = judge(claim_of(tmp_path, {"all": list(parts.values())}), RECORDS, "toy")
    assert both.outcome == Outcome.NOT_REPRODUCED


def test_a_search_is_held_to_the_queries_that_another_answers(tmp_path):
    rules = SearchProtocol("log")

    def made(method, greater):
        table = RankTable.of(greater, [0] * 6, 10, user=[0, 0, 1, 1, 2, 2])
        shape = dict(paper="search", experiment="log", source=None, target="grocery--pantry", protocol=rules.settings(), seeds=1, ranks=False)
        return replace(record_of(method, 0.1, **shape), ranks={0: table}, metrics={"Recall@5": [rules.summary(table, ("Recall@5",))["Recall@5"]]})

    log = made("Log", [0, 1, 9, 0, 10, 10])  # it knows no word of query 2
    mixed = made("Mixed", [0, 9, 9, 0, 0, 0])  # and another answers in its place
    assert mixed.mean("Recall@5") > log.mean("Recall@5")
    held = mixed.where_answered(log)
    assert held.ranks[0].user.tolist() == [0, 0, 1, 1]
    assert held.mean("Recall@5") == 0.5
    better = {"better": {"a": "Mixed", "b": "Log", "metric": "Recall@5", "by": 0.0}}
    for answered_by, outcome in ((None, Outcome.PARTLY), ("Log", Outcome.NOT_REPRODUCED)):
        claim = replace(claim_of(tmp_path, better, answered_by=answered_by), protocol=rules, experiments={"log": None})
        verdict = judge(claim, [log, mixed], "toy")
        assert verdict.outcome == outcome
    assert verdict.reason.endswith("asked of queries of which Log knows a word")
    with pytest.raises(RecordError, match="no query that"):
        mixed.where_answered(made("Silent", [10] * 6))


def test_of_the_toy_world_a_search_may_be_held_to_kinds_of_queries(tmp_path):
    rules, kind = SearchProtocol("labels", "apart"), search.toy_world().queries("grocery").texts["kind"]
    moods, families = (np.flatnonzero(kind == name)[:2] for name in ("mood", "mood family"))

    def made(method, greater):
        table = RankTable.of(greater, [0] * 4, 10, user=[*moods, *families])
        shape = dict(paper="search", experiment="apart", source=None, target="grocery", protocol=rules.settings(), seeds=1, ranks=False)
        return replace(record_of(method, 0.1, **shape), ranks={0: table}, metrics={"MAP": [rules.summary(table, ("MAP",))["MAP"]]})

    links, texts = made("Links", [0, 0, 9, 9]), made("Texts", [1, 1, 0, 0])
    better = {"better": {"a": "Links", "b": "Texts", "metric": "MAP", "by": 0.0}}
    claim = replace(claim_of(tmp_path, better), protocol=rules, experiments={"apart": None}, pairs={"toy": ("grocery",), "small": ("grocery",)})
    assert judge(claim, [links, texts], "toy").outcome == Outcome.NOT_REPRODUCED
    held = replace(claim, kinds=("mood",))
    assert judge(held, [links, texts], "toy").outcome == Outcome.REPRODUCED
    assert judge(held, [links, texts], "toy").reason.endswith("asked of queries of the kinds mood")
    assert "no ranks beside it" in judge(held, [links, replace(texts, ranks={})], "toy").reason
    elsewhere = [replace(r, scale="small") for r in (links, texts)]
    assert judge(held, elsewhere, "small").reason == judge(claim, elsewhere, "small").reason


def test_what_changes_nothing_is_told_from_what_loses(tmp_path):
    better = {"a": ["A", "B"], "b": "B", "metric": "Recall@20", "by": 0.0}
    a, b = record_of("A", 0.2), record_of("B", 0.2)
    a = replace(a, ranks={seed: replace(table, greater=table.greater[::-1]) for seed, table in b.ranks.items()})
    assert "(2 by no more than the interval, 1 of them unchanged)" in judge(claim_of(tmp_path, {"better": better}), [a, b], "toy").reason
    alone = judge(claim_of(tmp_path, {"better": better | {"a": "B"}}), [b], "toy")
    assert alone.reason == "the one comparison fails (by no more than the interval, unchanged)"


def on(target, sha256="ab" * 32, **recalls):
    """Records of one data set, a method each."""
    return [record_of(m, recall, source=None, target=target, data_sha256=sha256) for m, recall in recalls.items()]


@pytest.mark.parametrize(
    ("gains", "outcome", "reason"),
    [
        # holds by far: 0.3 over 0.1; fails: 0.1 over 0.3; close call: 0.2 over 0.2, since A's draws happen to beat B's
        ("+++++", Outcome.REPRODUCED, "holds on 5 of 5, asked for 3; 5 of 5 comparisons hold"),
        ("+++--", Outcome.REPRODUCED, "holds on 3 of 5, asked for 3; 3 of 5 comparisons hold; 2 of 5 comparisons fail"),
        ("+++  ", Outcome.REPRODUCED, "holds on 3 of 5, asked for 3; 3 of 3 comparisons hold; 2 more have no record"),
        ("++?--", Outcome.PARTLY, "holds on 2 of 5, asked for 3; 2 of 5 comparisons hold; 1 of 5 comparisons is too close to call; 2 of 5"),
        ("++---", Outcome.NOT_REPRODUCED, "holds on 2 of 5, asked for 3; 2 of 5 comparisons hold; 3 of 5 comparisons fail"),
        ("++-  ", Outcome.NOT_TESTABLE, "holds on 2 of 5, asked for 3; 2 of 3 comparisons hold; 1 of 3 comparisons fails; 2 more have no record"),
        ("+--- ", Outcome.NOT_REPRODUCED, "holds on 1 of 5, asked for 3; 1 of 4 comparisons holds; 3 of 4 comparisons fail; 1 more has no record"),
        ("     ", Outcome.NOT_TESTABLE, "no record of A in zero-shot at toy scale for v"),
    ],
)
def test_a_claim_of_three_data_sets_in_five(tmp_path, gains, outcome, reason):
    pair = {"+": (0.3, 0.1), "-": (0.1, 0.3)}
    records = [r for target, gain in zip("vwxyz", gains, strict=True) if gain in pair for r in on(target, **dict(zip("AB", pair[gain], strict=True)))]
    if "?" in gains:  # one seed against another of the same truth, the better one as A
        close = [record_of(m, 0.2, seeds=1, source=None, target="vwxyz"[gains.index("?")]) for m in "AB"]
        better, worse = sorted(close, key=lambda r: -r.mean("Recall@20"))
        records += [replace(better, method="A"), replace(worse, method="B")]
    holds = {"better": {"a": "A", "b": "B", "by": 0.0, "metric": "Recall@20"}}
    verdict = judge(claim_of(tmp_path, holds, at="five", enough=3), records, "toy")
    assert verdict.outcome == outcome
    assert verdict.reason.startswith(reason)


def test_closer_compares_data_sets(tmp_path):
    """A is 0.9 of B here, 0.5 of it on x, and as far from it on y as here."""
    holds = {"closer": {"a": "A", "b": "B", "metric": "Recall@20", "than": "five"}}
    here, x, y = (on(t, sha * 32, A=a, B=0.4) for t, sha, a in (("pantry", "ab", 0.36), ("x", "cd", 0.2), ("y", "ef", 0.36)))
    claim = claim_of(tmp_path, holds)
    verdict = judge(claim, [*here, *x], "toy")
    assert verdict.outcome == Outcome.PARTLY  # the other four of five have no record
    assert verdict.reason == "the one comparison holds; 4 more have no record"
    assert verdict.findings[0].detail == "no record of A in zero-shot at toy scale for v"
    (on_x,) = (f for f in verdict.findings if f.outcome == Outcome.REPRODUCED)
    ratios = [a.mean("Recall@20") / b.mean("Recall@20") for a, b in (here, x)]
    assert on_x.text == "Recall@20 of A over B above the same on x"
    assert on_x.detail.startswith(f"A / B on grocery → pantry − A / B on x = +{ratios[0] - ratios[1]:.4f} [+0.")
    assert on_x.detail.endswith("needs more than 0; the spread of users and of seeds, each data set apart")
    outcomes = {f.text[-1]: f.outcome for f in judge(claim, [*here, *x, *y], "toy").findings}
    assert outcomes["x"] == Outcome.REPRODUCED
    assert outcomes["y"] != Outcome.REPRODUCED
    turned = claim_of(tmp_path, {"closer": {"a": "B", "b": "A", "metric": "Recall@20", "than": "five"}})
    assert judge(turned, [*here, *x], "toy").outcome == Outcome.NOT_REPRODUCED


def test_closer_says_what_is_missing(tmp_path):
    def reason(records, than="five", **more):
        holds = {"closer": {"a": "A", "b": "B", "metric": "Recall@20", "than": than}}
        return judge(claim_of(tmp_path, holds, **more), records, "toy").reason

    here, none = on("pantry", A=0.3, B=0.4), on("v", A=0.3, B=0.0)
    assert reason(here, "far") == "no data at toy scale stands for far"
    assert reason([*here, *none]) == "B scores 0, so there is no ratio to it"
    assert reason([*on("pantry", A=0.3), *on("pantry", "cd" * 32, B=0.4), *on("v", A=0.3, B=0.4)]) == "the records were judged on different data"
    bare = [replace(r, ranks={}) for r in [*here, *on("v", A=0.2, B=0.4)]]
    assert reason(bare) == "the one comparison is too close to call; 4 more have no record"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"holds": {"beter": {"a": "A"}}}, "unknown predicate 'beter'"),
        ({"holds": {"better": {"a": "A", "b": "B"}}}, "better has a, b; expected a, b, by"),
        ({"holds": {"better": ["A", "B"]}}, r"better has \['A', 'B'\]; expected a, b, by"),
        ({"holds": {"all": []}}, "holds compares nothing"),
        ({"holds": "__import__('os')"}, "is no predicate"),
        ({"at": "nowhere"}, "expected some of near, far, five"),
        ({"at": None}, "expected some of near, far, five"),
        ({"where": None}, r"missing \['where'\]"),
        ({"untestable": "both"}, "either holds or untestable"),
        ({"enough": 0, "at": "five"}, "enough is 0; expected a number of pairs, from 1 to the 5"),
        ({"enough": 6, "at": "five"}, "enough is 6; expected a number of pairs, from 1 to the 5"),
        ({"enough": True, "at": "five"}, "enough is True"),
        ({"holds": None, "untestable": "x", "enough": 1, "at": "five"}, "beside holds"),
        ({"holds": {"closer": {"a": "A", "b": "B", "than": "nowhere"}}}, "claim 'it': than is nowhere; expected one of near, far, five"),
        (
            {"holds": {"all": [{"better": {"a": "A", "b": "B", "by": 0}}, {"closer": {"a": "A", "b": "B", "than": "nowhere"}}]}},
            "than is nowhere; expected",
        ),
        ({"holds": {"closer": {"a": "A", "b": "B"}}}, "expected a, b, than"),
        ({"remark": "x"}, r"unknown \['remark'\]"),
        ({"protocol": {"positions": "first"}}, "positions is 'first'; expected one of all, last"),
    ],
)
def test_bad_claims_are_named(tmp_path, change, message):
    with pytest.raises(ClaimError, match=message) as caught:
        claim_of(tmp_path, **{"holds": {"better": {"a": "A", "b": "B", "by": 0.0}}} | change)
    assert "p.yml, claim 'it'" in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [("claims: [", "no YAML"), ("{protocol: {}, pairs: {}, claims: [it]}", "'it' is no claim; expected")])
def test_a_claims_file_that_can_not_be_read_is_named(tmp_path, text, message):
    (tmp_path / "p.yml").write_text(text)
    with pytest.raises(ClaimError, match=rf"p\.yml: {message}"):
        load("p", tmp_path)


def test_one_value_serves_for_a_list_of_one(tmp_path):
    claim = claim_of(tmp_path, {"better": {"a": "A", "b": "B", "by": 0.0}}, experiment={"single": ["A", "B"]}, kinds="mood")
    assert claim.experiments == {"single": ("A", "B")}
    assert claim.kinds == ("mood",)


def test_unknown_paper_lists_the_known():
    with pytest.raises(ClaimError, match="zesrec"):
        load("zesrek")


def test_every_claims_file_loads_and_degrades_without_records(tmp_path):
    for path in CLAIMS.glob("*.yml"):
        for scale in ("toy", "small", "paper"):
            found = verdicts(path.stem, scale, root=tmp_path)
            assert found
            assert {v.outcome for v in found} == {Outcome.NOT_TESTABLE}
            assert all(v.reason for v in found)


def papers_own_records(paper):
    """The paper's tables as records of two equal seeds, so that every interval is a point."""
    tables = {
        "zesrec": {"zero-shot": ["zesrec_table2"], "dataset-bias": ["zesrec_table3"]},
        "mail": {"clicks": ["mail_table2", "mail_table3"]},
        "search": {"links": ["search_table1"], "log": ["search_table3"]},
    }
    records = []
    for experiment, names in tables[paper].items():
        protocol = next(claim for claim in load(paper) if experiment in claim.experiments).protocol.settings()
        table = pd.concat([paper_numbers(name) for name in names]).pivot_table(index=["pair", "method"], columns="metric", values="value")
        for (pair, method), row in table.iterrows():
            *source, target = pair.split("--")
            metrics = {metric: [value, value] for metric, value in row.dropna().items()}
            shape = dict(ranks=False, metrics=metrics, source="".join(source) or None, target=target, experiment=experiment)
            records.append(record_of(method, 0.1, seeds=2, paper=paper, scale="paper", protocol=protocol, **shape))
    return records


@pytest.mark.parametrize(
    ("paper", "exceptions", "least"),
    [
        # section 4.5 says so of both pairs, yet the movie rows of the table lie far below
        ("zesrec", {"competitive-in-domain": Outcome.PARTLY}, 20),
        # section 4.2 says so of every method, yet the public half of the table has no gain for the two rows of MAIL, which are asked
        ("mail", {"old-users-gain": Outcome.NOT_REPRODUCED}, 30),
        ("search", {}, 7),
    ],
)
def test_claims_say_what_the_papers_own_tables_say(paper, exceptions, least):
    """The bounds that we put on vague words must let the paper's own numbers pass, save where the paper contradicts itself."""
    records = papers_own_records(paper)
    found = {claim.id: judge(claim, records, "paper") for claim in load(paper)}
    decided = {
        i: v.outcome for i, v in found.items() if v.outcome != Outcome.NOT_TESTABLE and not any(f.outcome == Outcome.NOT_TESTABLE for f in v.findings)
    }
    for claim, outcome in decided.items():
        assert outcome == exceptions.get(claim, Outcome.REPRODUCED), found[claim].findings
    assert len(decided) >= least


def test_a_click_may_mean_something_else_but_all_else_must_be_as_the_claim_asks():
    claim = next(c for c in load("mail") if c.id == "llae-beats-emblr")

    def verdict(**changes):
        protocol = claim.protocol.settings() | changes
        values = {"LLAE": 0.62, "Emblr": 0.61}
        shape = dict(ranks=False, source=None, target="grocery", paper="mail", experiment="clicks", protocol=protocol)
        records = [record_of(m, 0.1, seeds=2, metrics={"AUC (new)": [v, v]}, **shape) for m, v in values.items()]
        return judge(claim, records, "toy")

    assert verdict(click="a rating of 4 stars or more").outcome == Outcome.REPRODUCED
    assert verdict(click="a rating of 4 stars or more", ids="removed").reason == "LLAE was judged by another protocol (ids)"
    assert verdict(new=0.2).reason == "LLAE was judged by another protocol (new)"


def test_a_claim_may_state_rules_of_its_own_over_those_of_the_file(tmp_path):
    better = {"better": {"a": "A", "b": "B", "by": 0.0}}
    claim = claim_of(tmp_path, better, protocol={"positions": "last"})
    assert claim.protocol == Protocol(positions="last")
    assert judge(claim, RECORDS, "toy").reason == "A was judged by another protocol (positions)"
    records = [record_of(name, recall, protocol=claim.protocol.settings()) for name, recall in (("A", 0.3), ("B", 0.1))]
    assert judge(claim, records, "toy").outcome == Outcome.REPRODUCED
    assert judge(claim_of(tmp_path, better), records, "toy").reason == "A was judged by another protocol (positions)"


def test_a_claim_leaves_open_how_many_queries_are_judged_but_they_must_be_the_same_for_all():
    claim = next(c for c in load("search") if c.id == "links-over-stl")
    values = {"ZSL_ME": 0.27, "ZSL_TE": 0.35, "STL": 0.18}

    def verdict(**most):
        shape = dict(ranks=False, source=None, target="grocery", paper="search", experiment="links")
        records = [
            record_of(m, 0.1, seeds=2, metrics={"Recall@R": [v, v]}, protocol=claim.protocol.settings() | {"most": most.get(m, 300)}, **shape)
            for m, v in values.items()
        ]
        return judge(claim, records, "toy")

    assert claim.protocol.most is None
    assert verdict().outcome == Outcome.REPRODUCED
    assert verdict(STL=None).reason == "the records were judged by different protocols"


def test_every_claim_on_search_asks_for_rows_and_rules_that_the_experiment_has():
    """A misspelt row or a wrong protocol would read as a missing record for ever. The rows are those of the toy world, which has them all."""
    spec = search.Spec(search.DATA["toy"][0], Scale.TOY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "tuned", lambda spec, name, stems=False: search.SquareSettings())  # which settings does not matter here
        rows = {row.name for row in [*search.systems(spec), *search.deviating(spec), *search.encoding(spec)]}
    groups = yaml.safe_load((CLAIMS / "search.yml").read_text(encoding="utf-8"))["pairs"]
    assert groups["public"]["toy"] == list(search.DATA["toy"])
    assert groups["public"]["small"] == list(search.DATA["small"])
    for claim in load("search"):
        if claim.holds is not None:
            assert all(replace(search.JUDGED[name.partition("-")[0]], most=None) == claim.protocol for name in claim.experiments), claim.id
            parts = list(_parts(claim.holds, claim.protocol.metrics))
            assert {name for part in parts for _, name in part.terms} <= rows, claim.id
            assert {part.metric for part in parts} <= set(claim.protocol.metrics), claim.id


def test_on_some_tails_an_exponential_fits_better():
    tails = prerec_tables.tails(find(paper="prerec", experiment="tails", scale="small")).loc[list(prerec.FIVE)]
    clear = np.sign(tails["exponential"])[tails["exponential p"] < 0.1]
    assert (set(clear.index[clear < 0]), (clear > 0).sum(), len(tails)) == ({("douban", "users"), ("ml-1m", "items")}, 5, 10)
    (claim,) = (c for c in load("prerec") if c.id == "heavy-tails")
    assert claim.untestable.startswith("On 2 of the 10 marginals of our five data sets, Douban's users and the items of MovieLens 1M,")
    assert "on 5 it fits worse" in claim.untestable


def test_every_claim_on_prerec_asks_for_rows_and_rules_that_the_experiments_have():
    spec = prerec.Spec(prerec.DATA["toy"][0], Scale.TOY)
    rows: dict[str, set[str]] = {}
    for experiment, of in prerec.ROWS.items():
        for name, method in (made for row in of(spec) for made in prerec.made_by(experiment, row)):
            rows.setdefault(name, set()).add(method)
    groups = yaml.safe_load((CLAIMS / "prerec.yml").read_text(encoding="utf-8"))["pairs"]
    for scale in Scale:
        assert groups["five"][scale] == list(prerec.FIVE if scale != Scale.TOY else prerec.DATA[scale][:3])
        assert set(groups["transfers"][scale]) == {f"{a}--{b}" for a, b in permutations(groups["five"][scale], 2)}
    sizes = pd.read_csv(REPOSITORY / "book" / "public_matrices.csv", index_col="name").loc[list(prerec.FIVE)]
    by_density = (sizes["ones"] / (sizes["users"] * sizes["items"])).sort_values().index
    assert [set(by_density[:1]), set(by_density[1:3]), set(by_density[3:])] == [{"sports"}, {*groups["sparse"]["small"]}, {*groups["dense"]["small"]}]
    assert set(groups["mixtures"]["toy"]) == {r.target for r in find(paper="prerec", experiment="interpolation", scale="toy")}
    for claim in load("prerec"):
        if claim.holds is not None:
            assert all(replace(prerec.rules(spec, name), most=None) == claim.protocol for name in claim.experiments), claim.id
            parts = list(_parts(claim.holds, claim.protocol.metrics))
            for method in {name for part in parts for _, name in part.terms}:
                assert any(method in rows[name] for name, only in claim.experiments.items() if only is None or method in only), (claim.id, method)
            assert {part.metric for part in parts} <= set(claim.protocol.metrics), claim.id


def test_records_at_hand_are_judged_without_a_folder():
    found = {v.claim.id: v for v in verdicts("zesrec", "toy", [record_of("ZESRec-H", 0.3), record_of("POP", 0.1, source=None)], variant="tuned")}
    assert found["near-beats-popularity"].outcome == Outcome.PARTLY  # ZESRec-H holds, the other two have no record
    assert "3 of 3 comparisons hold; 6 more have no record" in found["near-beats-popularity"].reason
    assert {v.variant for v in found.values()} == {"tuned"}


def test_a_reason_that_names_another_claim_links_to_it():
    page = verdicts("mail", "toy", [])._repr_html_()
    targets, anchors = set(re.findall(r'href="#(claim-[^"]+)"', page)), re.findall(r'id="(claim-[^"]+)"', page)
    assert "claim-better-tower-toy" in targets
    assert targets <= set(anchors)
    assert len(anchors) == len(set(anchors)) == page.count('<th scope="row"')


def test_html_is_escaped_and_shows_every_claim(tmp_path):
    shown = verdicts("zesrec", "toy", root=tmp_path)
    page = shown._repr_html_()
    assert page.count('<th scope="row"') == len(shown) == len(shown.to_frame())
    assert 'role="region"' in page
    assert "overflow-x:auto" in page
    assert "<figcaption" in page
    claim = claim_of(tmp_path, {"better": {"a": "<b>", "b": "B", "by": 0.0}}, claim="a < b & c")
    shown[:] = [judge(claim, RECORDS, "toy")]
    assert "a &lt; b &amp; c" in shown._repr_html_()
    assert "<b>" not in shown._repr_html_()
