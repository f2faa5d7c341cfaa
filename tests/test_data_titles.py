import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zsrbook.data import files, titles


def test_doctests():
    for module in (titles, files):
        result = doctest.testmod(module)
        assert result.attempted
        assert not result.failed


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Matrix, The (1999)", "The Matrix"),
        ("Bug's Life, A (1998)", "A Bug's Life"),
        ("City of Lost Children, The (Cité des enfants perdus, La) (1995)", "The City of Lost Children (Cité des enfants perdus, La)"),
        ("Seven (a.k.a. Se7en) (1995)", "Seven"),
        ("Seven (aka Se7en)", "seven"),
        ("Toy Story (1995)", "  toy  STORY "),
        ("Romeo & Juliet", "Romeo and Juliet"),
        ("Enfants du paradis, Les (1945)", "Les Enfants du paradis"),
        ("Avventura, L' (1960)", "L'Avventura"),
        ("Star Wars: Episode IV - A New Hope (1977)", "Star Wars Episode IV: A New Hope"),
        ("Ｍａｔｒｉｘ", "Matrix"),
        ("Amélie", "Ame\u0301lie"),
        ("Twin Peaks (1990-1991)", "Twin Peaks"),
        ("Schindler’s List", "Schindler's List"),
        ("STRASSE", "Straße"),
    ],
)
def test_equal(one, other):
    assert titles.normalise(one) == titles.normalise(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Alien", "Aliens"),
        ("1984 (1956)", "1985 (1956)"),
        ("2001: A Space Odyssey (1968)", "2010"),
        ("M (1931)", "W. (2008)"),
        ("***", "!!!"),
        ("Fortune, The", "Fortune"),
        ("Good, the Bad and the Ugly, The (1966)", "Good Bad Ugly"),
    ],
)
def test_different(one, other):
    assert titles.normalise(one) != titles.normalise(other)


def test_only_a_year_at_a_plausible_place_goes():
    assert titles.normalise("1984") == "1984"
    assert titles.normalise("Blade Runner 2049 (2017)") == "blade runner 2049"
    assert titles.year("Blade Runner 2049") is None
    assert titles.year("Twin Peaks (1990-1991)") == 1990
    assert titles.readable("Good, the Bad and the Ugly, The (1966)") == "The Good, the Bad and the Ugly"
    assert titles.readable("Land Before Time, The (1988) (V)") == "The Land Before Time (V)"


def test_names_hold_each_way_to_call_it():
    assert titles.names("Star Wars: Episode IV - A New Hope (a.k.a. Star Wars) (1977)") == {"star wars episode iv a new hope", "star wars"}
    assert "the city of lost children" in titles.names("City of Lost Children, The (Cité des enfants perdus, La) (1995)")


@given(
    st.one_of(
        st.text(max_size=30),
        st.lists(st.sampled_from(["The", ", ", "a.k.a. ", "(", ")", "(1999)", "Matrix", " ", "A", "ß", "ﬁ", "&", "'"])).map("".join),
    )
)
def test_normalising_twice_changes_nothing(title):
    once = titles.normalise(title)
    assert titles.normalise(once) == once
