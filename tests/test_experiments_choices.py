"""What a choice is worth: rows with one choice made otherwise beside the rows as they are."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from zsrbook.evaluation.intervals import difference
from zsrbook.experiments import choices
from zsrbook.records import find


@pytest.fixture(scope="module")
def recipe():
    return find(paper="search", experiment="labels", target="grocery", scale="toy", method="ZSL_TE")[0]


@pytest.fixture(scope="module")
def otherwise():
    return find(paper="search", experiment="labels-deviations", target="grocery", scale="toy", method="ZSL_TE (search-5)")[0]


def test_an_effect_is_the_difference_to_the_row_as_it_is(recipe, otherwise):
    chance = find(paper="search", experiment="labels", target="grocery", scale="toy", method="Random")[0]
    found = choices.effects([otherwise], [recipe, chance]).iloc[0]
    expected = difference(otherwise.per_user("Recall@R"), recipe.per_user("Recall@R"))
    assert (found["id"], found["row"], found["pair"], found["seeds"]) == ("search-5", "ZSL_TE", "grocery", len(otherwise.seeds))
    assert (found["effect"], found["low"], found["high"]) == (expected.value, expected.low, expected.high)
    assert (found["before"], found["otherwise"]) == (recipe.mean("Recall@R"), otherwise.mean("Recall@R"))
    assert found["above"] == recipe.mean("Recall@R") - chance.mean("Recall@R")
    assert pd.isna(choices.effects([otherwise], [recipe])["above"]).all()


@pytest.mark.parametrize(
    "other", [{"data_sha256": "0" * 64}, {"target": "pantry"}, {"scale": "small"}, {"method": "ZSL_ME"}], ids=["split", "data", "scale", "row"]
)
def test_rows_on_other_data_are_no_counterpart(recipe, otherwise, other):
    assert choices.effects([otherwise], [replace(recipe, **other)]).empty


def test_other_rules_are_no_counterpart(recipe, otherwise):
    asked_of_all = replace(recipe, protocol=recipe.protocol | {"candidates": "corpus"})
    assert asked_of_all.protocol != recipe.protocol
    assert choices.effects([otherwise], [asked_of_all]).empty


def test_seeds_that_one_of_the_two_lacks_are_left_out(recipe, otherwise):
    """A mean of one seed and a mean of five differ by chance alone."""
    first = replace(recipe, seeds=recipe.seeds[:1], metrics={n: v[:1] for n, v in recipe.metrics.items()}, ranks={0: recipe.ranks[0]})
    found = choices.effects([otherwise], [first]).iloc[0]
    assert found["seeds"] == 1
    assert found["effect"] == pytest.approx(otherwise.metrics["Recall@R"][0] - recipe.metrics["Recall@R"][0])
    assert choices.effects([otherwise], [first, recipe, first]).iloc[0]["seeds"] == len(otherwise.seeds), "the one with most seeds in common"
    assert choices.effects([otherwise], [replace(first, seeds=[9], ranks={})]).empty


def test_a_chapter_is_shown_what_the_register_shows():
    some = choices.recorded("prerec", "small")
    assert set(some["scale"]) == {"small"}
    assert set(some["paper"]) == {"prerec"}
    whole = choices.recorded()
    same = whole[(whole["paper"] == "prerec") & (whole["scale"] == "small")].reset_index(drop=True)
    pd.testing.assert_frame_equal(some, same)


def test_rows_that_are_named_after_no_entry_are_passed_over(recipe, otherwise):
    named = replace(otherwise, method="ZSL_TE (folded in)")
    assert choices.effects([named], [recipe]).empty
    assert choices.effects([], []).columns.tolist() == choices.effects([otherwise], [recipe]).columns.tolist()


def test_every_record_of_a_choice_differs_from_its_recipe_in_few_settings():
    for (paper, changed), bases in choices.EXPERIMENTS.items():
        recipes = [r for base in bases for r in find(paper=paper, experiment=base)]
        found = choices.effects(find(paper=paper, experiment=changed), recipes)
        assert len(found) > 0
        settings = {(r.pair, r.scale, r.method): _flat(r.config) for r in recipes}
        for r in find(paper=paper, experiment=changed):
            row = r.method.rpartition(" (")[0]
            if (r.pair, r.scale, row) in settings:
                here, there = _flat(r.config), settings[r.pair, r.scale, row]
                moved = [name for name in here.keys() | there.keys() if here.get(name, "not there") != there.get(name, "not there")]
                assert 1 <= len(moved) <= 3, f"{r.path} differs in {moved}"


def _flat(config: dict, prefix: str = "") -> dict:
    """Nested settings by dotted names; losses are no setting."""
    nested = [_flat(value, f"{prefix}{name}.") for name, value in config.items() if isinstance(value, dict)]
    own = {prefix + name: value for name, value in config.items() if not isinstance(value, dict) and name != "curve"}
    return own | {name: value for part in nested for name, value in part.items()}


def test_the_table_of_a_chapter_has_words_and_signs(recipe, otherwise):
    html = choices.table(choices.effects([otherwise], [recipe]), {"search-5": "inner product"}).to_html()
    assert "inner product" in html
    assert "search-5" in html
    assert f"{otherwise.mean('Recall@R') - recipe.mean('Recall@R'):+.3f}<br>" in html


def test_data_sets_stand_side_by_side_with_a_star_where_zero_is_out():
    columns = ["id", "pair", "effect", "low", "high"]
    rows = [("a-1", "x", 0.1, 0.05, 0.15), ("a-1", "y", -0.02, -0.03, 0.01), ("a-2", "y", -0.2, -0.3, -0.1)]
    found = choices.by_pair(pd.DataFrame(rows, columns=columns), {"a-1": "one", "a-2": "two"})
    assert found.columns.tolist() == ["x", "y"]
    assert found.loc[("a-1", "one")].tolist() == ["+0.100*", "-0.020"]
    assert found.loc[("a-2", "two")].tolist() == ["", "-0.200*"]
