"""Tags of films as queries, on films made by hand."""

import numpy as np
import pytest

from zsrbook.data import movielens_tags
from zsrbook.data.dataset import Columns, DataError
from zsrbook.data.movielens_tags import Choice

FILMS = [(str(i), f"Film number {i} (1999)", "Sci-Fi" if i % 2 else "Drama") for i in range(12)]
#: every film is tagged "Dark  Humor" by two users, all odd ones "sci-fi"; the last is tagged by one user alone
ACTS = [
    *((user, film, tag, 10 * i + user) for i, (film, _, _) in enumerate(FILMS) for user, tag in ((1, "Dark  Humor"), (2, "dark humor"))),
    *((1 + i % 3, film, "sci-fi", 500 - i) for i, (film, _, genre) in enumerate(FILMS) if genre == "Sci-Fi"),
    *((9, film, "mine", 1) for film, _, _ in FILMS),
    (1, "77", "dark humor", 3),
    (1, "0", "!!", 4),
]
BOTH = Choice(at_least=1, users=2)


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "movies.dat").write_text("".join("::".join(film) + "\n" for film in FILMS))
    (tmp_path / "tags.dat").write_text("".join("::".join(map(str, act)) + "\n" for act in ACTS))
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n" + "".join(",".join(film) + "\n" for film in FILMS))
    (tmp_path / "tags.csv").write_text("userId,movieId,tag,timestamp\n" + "".join(",".join(map(str, act)) + "\n" for act in ACTS))
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,0,4.0,10\n1,1,4.0,20\n1,2,4.0,30\n2,0,3.0,5\n2,1,3.0,6\n")
    return tmp_path


def test_silent_films_answer_and_their_tags_stand_in_no_text(folders):
    data = movielens_tags.load_latest_small(folders, BOTH)
    tells = data.items["text"].str.contains("dark humor").to_numpy()
    assert tells.sum() == 6
    assert not tells[data.relevance[Columns.ITEM]].any()
    assert not tells[data.log[Columns.ITEM]].any()
    assert data.items["text"][tells].str.count("dark humor").eq(1).all()
    assert data.items["text"][tells].str.contains("mine").all()  # a told film says all its tags, also those that nobody asks
    assert data.queries["text"].tolist() == ["dark humor", "sci fi"]
    assert data.queries["kind"].tolist() == ["none", "all"]
    assert "dropped 1 acts of tagging of films that are not there" in str(data.report)
    assert "dropped 1 tags without a word" in str(data.report)


def test_grades_count_users_and_the_log_stands_in_the_order_of_time(folders):
    data = movielens_tags.load_latest_small(folders, Choice(at_least=1, users=2, told=0))
    humor, space = (data.relevance[data.relevance["query"] == query] for query in (0, 1))
    assert humor[Columns.ITEM].tolist() == list(range(12))
    assert set(humor["grade"]) == {2}
    assert space[Columns.ITEM].tolist() == [1, 3, 5, 7, 9, 11]
    assert set(space["grade"]) == {1}
    assert len(data.log) == 24 + 6
    assert data.log[Columns.TIME].is_monotonic_increasing
    assert (data.log.iloc[-1] == [1, 1, 499]).all()
    assert data.items["text"].tolist()[:2] == ["Film number 0 Drama", "Film number 1 Sci-Fi"]


def test_links_are_films_rated_one_after_the_other(folders):
    links = movielens_tags.load_latest_small(folders, BOTH).links
    assert list(zip(*links.nonzero(), strict=True)) == [(0, 1), (1, 2)]
    assert movielens_tags.load_10m(folders, BOTH).links.nnz == 0


def test_seeds_draw_other_films_and_equal_seeds_the_same(folders):
    one, same, other = (movielens_tags.load_10m(folders, Choice(1, 2, seed=seed)) for seed in (0, 0, 1))
    assert one.sha256 == same.sha256 != other.sha256


def test_tags_of_another_release_come_where_number_and_title_agree(folders, tmp_path):
    own = tmp_path / "1m"
    own.mkdir()
    titles = [title.replace("(1999)", "(2000)") for _, title, _ in FILMS]
    titles[3] = "Elsewhere (1999)"
    (own / "movies.dat").write_text("".join(f"{film}::{title}::{genre}\n" for (film, _, genre), title in zip(FILMS, titles, strict=True)))
    (own / "ratings.dat").write_text("1::0::5::1\n1::1::5::2\n")
    (own / "users.dat").write_text("1::F::1::10::48067\n")
    data = movielens_tags.load_1m(own, folders, Choice(at_least=1, users=2, told=0))
    assert sorted(data.relevance[data.relevance["query"] == 0][Columns.ITEM]) == [i for i in range(12) if i != 3]
    assert "12 of 12 film ids are in the release with tags too, 11 with equal titles; tags of 1 whose titles share no word were left out" in str(
        data.report
    )
    (own / "movies.dat").write_text("".join(f"{film}::Other {film} (1999)::Drama\n" for film, _, _ in FILMS))
    with pytest.raises(DataError, match=r"12 film ids stand in both releases, but only 0 of them with one title; .* can't be taken over"):
        movielens_tags.load_1m(own, folders, BOTH)


def test_bad_input(folders):
    with pytest.raises(DataError, match="none of 3 tags stands on 7 films of each part and comes from 3 users; lower both"):
        movielens_tags.load_10m(folders, Choice(at_least=7))
    with pytest.raises(DataError, match=r"told is 1.0; expected a share"):
        Choice(told=1.0)
    (folders / "tags.dat").write_text("1::0::dark::yesterday\n")
    with pytest.raises(DataError, match=r"tags.dat: line 1: time is 'yesterday'; expected seconds since 1970"):
        movielens_tags.load_10m(folders)
    (folders / "tags.csv").write_text("userId,movieId,tag\n1,0,dark\n")
    with pytest.raises(DataError, match="line 1 names the columns userId, movieId, tag; expected userId, movieId, tag, timestamp"):
        movielens_tags.load_latest_small(folders)


def test_users_of_a_tag_are_counted_over_all_films(folders):
    asked = lambda users: movielens_tags.load_10m(folders, Choice(at_least=1, users=users, told=0)).queries["text"].tolist()  # noqa: E731
    assert asked(1) == ["dark humor", "mine", "sci fi"]
    assert asked(3) == ["sci fi"]
    assert np.all([tag in asked(1) for tag in asked(2)])
