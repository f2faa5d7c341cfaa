import pytest

from zsrbook.data import catalogue, fetch, movielens
from zsrbook.data.dataset import DataError

RATINGS = [(2, 1, 5, 978300760), (1, 3, 3, 978302109), (1, 1, 4, 978301968), (1, 2, 1, 978301968)]
FILMS = [("1", "Matrix, The (1999)"), ("2", "Amélie (2001)"), ("3", "unknown")]


def join(rows, separator):
    return "\n".join(separator.join(map(str, r)) for r in rows) + "\n"


def make_1m(folder, ratings=RATINGS):
    (folder / "ratings.dat").write_text(join(ratings, "::"))
    (folder / "movies.dat").write_text(join([(*f, "Action|Drama") for f in FILMS], "::"), "latin-1")
    (folder / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::70072\n")
    return folder


def make_100k(folder, ratings=RATINGS):
    (folder / "u.data").write_text(join(ratings, "\t"))
    flags = ["0", "1", "1"] + ["0"] * 16
    (folder / "u.item").write_text(join([(*f, "01-Jan-1995", "", "http://x", *flags) for f in FILMS], "|"), "latin-1")
    (folder / "u.user").write_text("1|24|M|technician|85711\n2|53|F|other|94043\n")
    return folder


def make_small(folder, ratings=RATINGS):
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + join(ratings, ","))
    rows = [(i, f'"{t}"', "(no genres listed)" if t == "unknown" else "Action|Drama") for i, t in FILMS]
    (folder / "movies.csv").write_text("movieId,title,genres\n" + join(rows, ","), "utf-8")
    return folder


FORMS = [(make_100k, movielens.load_100k), (make_1m, movielens.load_1m), (make_small, movielens.load_latest_small)]


@pytest.mark.parametrize(("make", "load"), FORMS)
def test_each_form_gives_the_same(tmp_path, make, load):
    data = load(make(tmp_path))
    assert data.items["raw"].tolist() == ["1", "2", "3"]
    assert data.items["text"].tolist() == ["The Matrix", "Amélie", "unknown"]
    assert data.items["title"].tolist() == [t for _, t in FILMS]
    assert data.items["year"].tolist()[:2] == [1999, 2001]
    assert data.items["year"].isna().tolist() == [False, False, True]
    assert set(data.items["genres"]) <= {"Action|Adventure", "Action|Drama", ""}
    first = data.interactions[data.interactions["user"] == data.users["raw"].tolist().index("1")]
    assert first["item"].tolist() == [0, 1, 2]  # films 1 and 2 tie: the file's order
    assert first["value"].tolist() == [4, 1, 3]


def test_user_attributes(tmp_path):
    users = movielens.load_1m(make_1m(tmp_path)).users
    assert users.columns.tolist() == ["raw", "gender", "age", "occupation", "zip"]
    assert users.iloc[1].tolist() == ["2", "M", "56", "16", "70072"]
    users = movielens.load_100k(make_100k(tmp_path)).users
    assert users.columns.tolist() == ["raw", "age", "gender", "occupation", "zip"]
    assert users["age"].tolist() == [24, 53]


def test_texts(tmp_path):
    make_1m(tmp_path)
    assert movielens.load_1m(tmp_path, text="title+genres").items["text"][0] == "The Matrix Action, Drama"
    with pytest.raises(DataError, match="text is 'plot'"):
        movielens.load_1m(tmp_path, text="plot")


def test_a_file_that_is_not_the_official_one_says_so(tmp_path):
    assert "ratings.dat is not the official file" in str(movielens.load_1m(make_1m(tmp_path)).report)
    assert "differ from" in str(movielens.load_1m(tmp_path).report)


@pytest.mark.parametrize(("name", "load"), [("ml-1m", catalogue.load), ("ml-1m-tags", catalogue.load_search)])
def test_by_its_name_1m_is_whole_or_refused(tmp_path, monkeypatch, name, load):
    make_1m(tmp_path)
    monkeypatch.setattr(fetch, "locate", lambda _: tmp_path)
    with pytest.raises(DataError, match=r"ratings\.dat is not the official file .* its stars \(1, 0, 1, 1, 1\) differ from .*; move it away"):
        load(name)


@pytest.mark.parametrize(("make", "load"), FORMS)
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ((1, 2, 6, 5), "value is '6'; expected (1|0.5) to 5 stars"),
        ((1, 2, 0, 5), "value is '0'"),
        ((1, 2, 3.7, 5), r"value is '3\.7'; expected (1 to 5 stars in steps of 1|0\.5 to 5 stars in steps of 0\.5)"),
        ((1, 2, "x", 5), "value is 'x'"),
        ((1, 2, 3, ""), "time is ''; expected seconds since 1970"),
        ((1, 2, 3, 978300760000), "time is '978300760000'"),
        (("", 2, 3, 5), "user is ''"),
        ((1, 99, 3, 5), r"line [56]: item is '99'; expected one of the ids in (u\.item|movies\.\w+), such as '1' and '2'"),
        ((1, 2, 3), "has 3 columns; expected 4"),
        ((1, 2, 3, 4, 5), "has 5 columns; expected 4"),
    ],
)
def test_bad_rows(tmp_path, make, load, bad, message):
    with pytest.raises(DataError, match=message):
        load(make(tmp_path, [*RATINGS, bad]))


def test_bad_rows_name_their_line(tmp_path):
    with pytest.raises(DataError, match=r"ratings\.dat: line 5"):
        movielens.load_1m(make_1m(tmp_path, [*RATINGS, (1, 2, 6, 5)]))
    with pytest.raises(DataError, match=r"ratings\.csv: line 6"):
        movielens.load_latest_small(make_small(tmp_path, [*RATINGS, (1, 2, 6, 5)]))


@pytest.mark.parametrize(("make", "load"), FORMS)
@pytest.mark.parametrize(("film", "message"), [("1", "id is '1'; expected each id once"), ("", "id is ''; expected an id")])
def test_a_film_has_one_line_and_a_number(tmp_path, monkeypatch, make, load, film, message):
    monkeypatch.setitem(globals(), "FILMS", [*FILMS, (film, "Heat (1995)")])
    with pytest.raises(DataError, match=rf"(u\.item|movies\.\w+): line [45]: {message}"):
        load(make(tmp_path))


def test_a_user_of_a_rating_is_one_of_the_users(tmp_path):
    make_1m(tmp_path, [*RATINGS, (7, 2, 3, 5)])
    with pytest.raises(DataError, match=r"ratings\.dat: line 5: user is '7'; expected one of the ids in users\.dat"):
        movielens.load_1m(tmp_path)
    make_1m(tmp_path)
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n1::M::56::16::70072\n")
    with pytest.raises(DataError, match=r"users\.dat: line 2: id is '1'; expected each id once"):
        movielens.load_1m(tmp_path)


@pytest.mark.parametrize(
    ("file", "right", "wrong", "message"),
    [
        ("u.item", "|0|1|", "|0|0.5|", r"u\.item: line 1: Action is '0\.5'; expected 0 or 1"),
        ("u.user", "|53|", "|53.5|", r"u\.user: line 2: age is '53\.5'; expected an age in whole years"),
    ],
)
def test_numbers_that_must_be_whole(tmp_path, file, right, wrong, message):
    path = make_100k(tmp_path) / file
    path.write_text(path.read_text("latin-1").replace(right, wrong, 1), "latin-1")
    with pytest.raises(DataError, match=message):
        movielens.load_100k(tmp_path)


def test_repeated_rows_are_dropped_and_counted(tmp_path):
    data = movielens.load_1m(make_1m(tmp_path, [*RATINGS, RATINGS[0]]))
    assert len(data) == 4
    assert "dropped 1 rows" in str(data.report)


def test_wrong_header(tmp_path):
    make_small(tmp_path)
    (tmp_path / "ratings.csv").write_text("user,movie,rating,timestamp\n1,1,5,5\n")
    with pytest.raises(DataError, match="line 1 names the columns user, movie"):
        movielens.load_latest_small(tmp_path)
