"""MovieLens ratings as clicks, on ratings made by hand and on the real ones."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from public import needs

from zsrbook.data import catalogue, movielens_clicks
from zsrbook.data.clicks import TEST, TRAIN, VALID
from zsrbook.data.dataset import DataError, Dataset
from zsrbook.data.movielens_clicks import AGES, clicks, coded, never_taken

HOUR, DAY = 3600, 86_400
#: user, film, stars, time; the first two of Ann's stand at one moment
RATINGS = [
    ("ann", "m", 5, 10),
    ("ann", "n", 3, 10),
    ("ann", "o", 4, 20),
    ("ann", "p", 1, 30),
    ("bob", "o", 4, 5 + 3 * HOUR),
    ("bob", "m", 2, 20 + 5 * DAY),
    ("bob", "p", 3, 20 + 5 * DAY + HOUR),
    ("cy", "q", 5, 15),
]
USERS = {
    "raw": ["ann", "bob", "cy"],
    "gender": ["F", "M", "M"],
    "age": ["24", "56", "7"],
    "occupation": ["artist", "writer", "artist"],
    "zip": ["94043", "V3N4P", "02138"],
}
FILMS = {
    "raw": list("mnopqrst"),
    "text": list("mnopqrst"),
    "year": pd.array([1999, 1990, 2001, None, 1989, 1995, 1995, 1995], dtype="Int64"),
    "genres": ["Action|Drama", "Drama", "", "Action", "Action|Drama", "War", "War", "War"],
}


def made(ratings=RATINGS, users=USERS, films=FILMS) -> Dataset:
    frame = pd.DataFrame(ratings, columns=["user", "item", "value", "time"])
    return Dataset.from_raw("tiny", frame, pd.DataFrame(films), pd.DataFrame(users))


@pytest.fixture(scope="module", params=["stars", "watched"])
def data(request):
    return clicks(made(), request.param)


def named(data) -> list[tuple[str, str, float, int]]:
    """Each impression in the names of the source."""
    return [(USERS["raw"][u], FILMS["raw"][i], t, c) for u, i, t, c in zip(data.user, data.item, data.time, data.click, strict=True)]


def test_each_rating_is_an_impression_and_four_stars_are_a_click():
    data = clicks(made())
    assert sorted(named(data)) == sorted((u, i, t, int(stars >= 4)) for u, i, stars, t in RATINGS)
    assert data.name == "tiny-stars"
    assert str(data.report).splitlines()[-1] == "tiny: 8 ratings, 50.0% of them with 4 stars or more"


def test_each_film_watched_stands_beside_one_that_never_was():
    data = clicks(made(), "watched")
    watched = {(u, i) for u, i, _, _ in RATINGS}
    positive, negative = ([row for row in named(data) if row[3] == label] for label in (1, 0))
    assert sorted(positive) == sorted((u, i, t, 1) for u, i, _, t in RATINGS)
    assert Counter((u, t) for u, _, t, _ in negative) == Counter((u, t) for u, _, _, t in RATINGS)
    assert not watched & {(u, i) for u, i, _, _ in negative}
    assert data.name == "tiny-watched"
    assert "8 ratings as clicks, and as many random films that the same user never rated (seed 0)" in str(data.report)


def test_the_seed_moves_the_films_beside_and_nothing_else():
    one, same, other = (clicks(made(), "watched", seed=s) for s in (0, 0, 1))
    assert one.sha256 == same.sha256 != other.sha256
    assert [row for row in named(one) if row[3]] == [row for row in named(other) if row[3]]
    assert clicks(made(), seed=0).sha256 == clicks(made(), seed=1).sha256


def test_windows_hold_earlier_ratings_alone(data):
    owner = [u for u, _, _, _ in sorted(RATINGS, key=lambda row: row[0])]
    rated = sorted(RATINGS, key=lambda row: (row[0], row[3]))  # by user, then time, as behaviours lie
    for (user, _, time, _), (begin, end) in zip(named(data), data.windows, strict=True):
        assert list(range(begin, end)) == [k for k, row in enumerate(rated) if owner[k] == user and row[3] < time]
    lengths = {(u, t): end - begin for (u, _, t, _), (begin, end) in zip(named(data), data.windows, strict=True)}
    assert lengths["ann", 10] == 0  # neither of two ratings at one moment stands before the other
    assert lengths["ann", 20] == 2
    assert lengths["cy", 15] == 0


def test_windows_are_cut_to_the_newest():
    data = clicks(made(), longest=1)
    assert data.longest == 1
    last = named(data).index(("ann", "p", 30, 0))
    (begin, end), codes = data.windows[last], data.behaviours
    assert codes[begin:end].tolist() == [[FILMS["raw"].index("o") + 1, 4]]


def test_behaviours_are_films_and_their_stars(data):
    expected = [[FILMS["raw"].index(i) + 1, stars] for _, i, stars, _ in sorted(RATINGS, key=lambda row: (row[0], row[3]))]
    assert data.behaviours.tolist() == expected
    assert data.layout.behaviour == ("item", "stars")


def test_impressions_stand_in_the_order_of_time_and_so_do_folds(data):
    assert (np.diff(data.time) >= 0).all()
    assert data.time[data.fold == TRAIN].max() < data.time[data.fold == VALID].min() < data.time[data.fold == TEST].min()
    assert not data.new.any()


def test_order_of_one_moment_says_nothing_of_clicks():
    data = clicks(made(), "watched")
    keys = [(t, USERS["raw"].index(u), FILMS["raw"].index(i)) for u, i, t, _ in named(data)]
    assert keys == sorted(keys)


def test_codes_of_users():
    data = clicks(made())
    assert data.layout.user == ("user", "gender", "age", "occupation", "region")
    assert data.users.tolist() == [
        [1, 1, 2, 1, 2],  # 24 years: 18 to 24; zip 9…
        [2, 2, 7, 2, 0],  # no digit in front: no region
        [3, 2, 1, 1, 1],  # 7 years: below 18; zip 0…
    ]
    assert [data.vocabularies[name] for name in data.layout.user] == [4, 3, 8, 3, 3]


def test_ages_of_both_releases_fall_into_one_set_of_groups():
    ages = [1, 17, 18, 24, 25, 34, 35, 44, 45, 49, 50, 55, 56, 99]
    users = {name: [str(i) for i in range(len(ages))] if name == "raw" else ["1"] * len(ages) for name in USERS} | {"age": ages}
    data = clicks(made([("0", "m", 4, t) for t in range(9)], users))
    assert data.users[:, data.layout.user.index("age")].tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]
    assert np.digitize(AGES, AGES).tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_codes_of_films():
    data = clicks(made())
    assert data.layout.item == ("item", "genres", "genre", "decade")
    assert data.items.tolist() == [
        [1, 2, 1, 2],  # Action|Drama, Action, the nineties
        [2, 3, 2, 2],
        [3, 0, 0, 3],  # no genre said
        [4, 1, 1, 0],  # no year said
        [5, 2, 1, 1],
        [6, 4, 3, 2],
        [7, 4, 3, 2],
        [8, 4, 3, 2],
    ]


def test_hours_and_weekdays(data):
    for (_, _, time, _), codes in zip(named(data), data.context, strict=True):
        assert codes.tolist() == [1 + int(time) // HOUR % 24, 1 + int(time) // DAY % 7]
    assert data.context.max(0).tolist() == [4, 6]


def test_codes_are_from_one_in_order_and_zero_where_missing():
    assert coded(pd.Series(["b", None, "a", "b"])).tolist() == [2, 0, 1, 2]
    assert coded(pd.Series([None, None], dtype=object)).tolist() == [0, 0]


def test_films_beside_are_drawn_alike():
    user, item = np.zeros(60_000, np.int32), np.tile(np.array([1, 4], np.int32), 30_000)
    drawn = np.bincount(never_taken(user, item, 6, seed=0), minlength=6)
    assert drawn[[1, 4]].tolist() == [0, 0]
    assert drawn[[0, 2, 3, 5]] == pytest.approx(15_000, rel=0.03)


def test_words_that_are_no_click():
    with pytest.raises(DataError, match="click is 'likes'; expected one of stars, watched"):
        clicks(made(), "likes")


def test_users_without_attributes():
    with pytest.raises(DataError, match="tiny: the users table lacks gender, zip; click data needs MovieLens 100K or 1M"):
        clicks(made(users={name: USERS[name] for name in ("raw", "age", "occupation")}))


def test_a_user_who_rated_all_there_is():
    everything = [("bob", film, 4, t) for t, film in enumerate(FILMS["raw"])]
    assert len(clicks(made(everything))) == len(FILMS["raw"])
    with pytest.raises(DataError, match=r"user code 1 rated \(nearly\) all 8 films, .*take click='stars'"):
        clicks(made(everything), "watched")


@pytest.mark.small
def test_real_ratings():
    needs("ml-100k")
    rated = catalogue.load("ml-100k")
    stars, watched = (clicks(rated, click) for click in movielens_clicks.MEANING)
    assert (stars.name, watched.name) == ("ml-100k-stars", "ml-100k-watched")
    assert (len(stars), len(watched)) == (100_000, 200_000)
    assert stars.click.mean() == pytest.approx(0.554, abs=5e-4)
    assert watched.click.mean() == 0.5
    assert (len(stars.users), len(stars.items), len(stars.behaviours)) == (943, 1_682, 100_000)
    pairs = set(zip(rated.interactions["user"], rated.interactions["item"], strict=True))
    beside = watched.click == 0
    assert not pairs & set(zip(watched.user[beside], watched.item[beside], strict=True))
    for data in (stars, watched):
        assert np.bincount(data.fold) / len(data) == pytest.approx([0.7, 0.1, 0.2], abs=0.005)
        assert data.longest == 100
        for row in np.random.default_rng(0).integers(len(data), size=200):
            mine = rated.interactions[rated.interactions["user"] == data.user[row]]
            assert np.diff(data.windows[row]) == min(100, (mine["time"] < data.time[row]).sum())
        share = {name: (data.users[:, i] == 0).mean() for i, name in enumerate(data.layout.user)}
        assert 0 < share["region"] < 0.05
        assert all(share[name] == 0 for name in ("user", "gender", "age", "occupation"))
