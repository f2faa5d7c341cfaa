"""Rating sites in MATLAB's two file forms and in plain text: what is read, and how bad files are refused."""

import h5py
import numpy as np
import pytest
from scipy import io, sparse
from typer.testing import CliRunner

from zsrbook.data import catalogue, social
from zsrbook.data.commands import app
from zsrbook.data.dataset import DataError
from zsrbook.data.splits import without_repeats

#: user, item, category, stars, helpfulness, time
ROWS = [[7, 30, 2, 5, 4, 3], [7, 9, 1, 3, 2, 1], [2, 9, 1, 1, 1, 2], [7, 100, 5, 4, 4, 3], [7, 30, 8, 5, 4, 3]]
FILES = {"epinions": "epinions_rating_with_timestamp.mat", "ciao": "ciao_rating_with_timestamp.mat"}
LOADERS = {"epinions": social.load_epinions, "ciao": social.load_ciao}


def trust(folder, rows=ROWS, name="epinions", **others):
    io.savemat(folder / FILES[name], {"rating": np.asarray(rows), **others}, do_compression=True)
    return LOADERS[name](folder)


def monti(folder, matrix, **others):
    """As MATLAB writes it: users by films there, films by users in HDF5."""
    with h5py.File(folder / "training_test_dataset.mat", "w") as file:
        for name, value in {"M": matrix, **others}.items():
            file.create_dataset(name, data=np.asarray(value).T, chunks=True, compression="gzip")
    return social.load_douban(folder)


def histories(data):
    """raw user -> (raw item, stars), in order."""
    raw_user, raw_item = data.users["raw"].to_numpy(), data.items["raw"].to_numpy()
    frame = data.interactions
    rows = {u: [] for u in raw_user}
    for user, item, stars in zip(frame["user"], frame["item"], frame["value"], strict=True):
        rows[raw_user[user]].append((raw_item[item], stars))
    return rows


def test_epinions_in_the_order_of_its_periods(tmp_path):
    data = trust(tmp_path)
    assert histories(data) == {"7": [("9", 3), ("30", 5), ("100", 4), ("30", 5)], "2": [("9", 1)]}
    assert data.items["raw"].tolist() == ["9", "30", "100"]
    assert data.items["category"].tolist() == [1, 2, 5]
    assert set(data.items["text"]) == {""}
    assert not data.clock
    assert "epinions: 3 periods instead of times" in str(data.report)
    assert len(without_repeats(data)) == 4


def test_ciao_has_a_clock_and_drops_rows_that_repeat(tmp_path):
    data = trust(tmp_path, [[*row[:5], 959_670_000 + 86_400 * row[5]] for row in ROWS], "ciao")
    assert histories(data) == {"7": [("9", 3), ("30", 5), ("100", 4)], "2": [("9", 1)]}
    assert data.clock
    assert data.interactions["time"].tolist() == [959_670_000 + 86_400 * k for k in (1, 3, 3, 2)]
    assert "dropped 1 rows that repeat another exactly" in str(data.report)
    assert catalogue.guess(tmp_path).name == "ciao"


def test_matlab_doubles_and_columns_that_are_not_read(tmp_path):
    rows = np.asarray(ROWS, float)
    rows[:, 4] = np.nan  # helpfulness
    assert trust(tmp_path, rows).sha256() == trust(tmp_path).sha256()


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (2, 0, 1.5, r"row 3: user is '1\.5'; expected the number of a user, from 1 \(1 such of 5 rows\)"),
        (0, 0, 0, r"row 1: user is '0\.0'"),
        (4, 1, -3, r"row 5: item is '-3\.0'; expected the number of an item"),
        (1, 1, np.nan, "row 2: item is missing"),
        (1, 1, np.inf, "row 2: item is 'inf'"),
        (1, 2, 2.5, r"row \d: category is '2\.5'; expected the number of a category"),
        (3, 3, 6, r"row 4: value is '6\.0'; expected 1 to 5 stars"),
        (3, 3, 0, r"row 4: value is '0\.0'; expected 1 to 5 stars"),
        (0, 5, 12, r"row 1: time is '12\.0'; expected the number of a period, 1 to 11"),
        (0, 5, 1.5, r"row 1: time is '1\.5'; expected the number of a period"),
    ],
)
def test_bad_values_are_named_with_row_and_column(tmp_path, row, column, value, message):
    rows = np.asarray(ROWS, float)
    rows[row, column] = value
    with pytest.raises(DataError, match=message) as error:
        trust(tmp_path, rows)
    assert FILES["epinions"] in str(error.value)


def test_bad_times_of_ciao(tmp_path):
    with pytest.raises(DataError, match=r"row 1: time is '-1'; expected seconds since 1970"):
        trust(tmp_path, [[1, 1, 1, 0, 1, -1]], "ciao")


def test_other_matlab_files_are_refused(tmp_path):
    path = tmp_path / FILES["epinions"]
    for content, message in (
        ({"trust": np.ones((2, 3))}, "holds trust; expected a matrix called rating"),
        ({}, "holds nothing; expected a matrix called rating"),
        ({"rating": np.ones((4, 3))}, r"rating is \(4, 3\) of float64; expected numbers in 6 columns: user, item, category, value"),
        ({"rating": np.ones((4, 6), complex)}, "of complex128; expected numbers"),
        ({"rating": np.full((4, 6), "a", object)}, "of object; expected numbers"),
        ({"rating": sparse.csc_array(np.ones((4, 6)))}, "of float64; expected numbers"),
        ({"rating": np.zeros((0, 6))}, "no interactions; nothing to load"),
    ):
        io.savemat(path, content)
        with pytest.raises(DataError, match=message):
            social.load_epinions(tmp_path)
    monti(tmp_path, np.ones((2, 2)))
    (tmp_path / "training_test_dataset.mat").rename(path)
    with pytest.raises(DataError, match=r"is of MATLAB 7\.3; expected an older form|can't be read as a MATLAB file"):
        social.load_epinions(tmp_path)


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    trust(tmp_path, ROWS * 200)
    path = tmp_path / FILES["epinions"]
    whole = path.read_bytes()
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"can't be read as a MATLAB file|holds nothing"):
            social.load_epinions(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="the file is empty"):
        social.load_epinions(tmp_path)
    path.write_bytes(b"<!DOCTYPE html><html>not found</html>")
    with pytest.raises(DataError, match="a web page, not data"):
        social.load_epinions(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        social.load_epinions(tmp_path)


def test_users_are_the_rows_that_matlab_shows(tmp_path):
    data = monti(tmp_path, [[0, 4, 0.5], [0, 0, 0], [0, 5, 0]], Otraining=np.ones((3, 3)))
    assert histories(data) == {"1": [("2", 4), ("3", 0.5)], "2": [], "3": [("2", 5)]}
    assert (data.n_users, data.n_items, len(data)) == (2, 3, 3)
    assert not data.clock
    assert set(data.items["text"]) == {""}
    assert social.load_flixster(tmp_path).name == "flixster"


def test_other_hdf5_files_are_refused(tmp_path):
    for matrix, message in (
        (np.zeros((3, 3)), "no interactions; nothing to load"),
        ([[0, 6.0]], r"cell 1,2: M is '6\.0'; expected 0\.5 to 5 stars in steps of 0\.5, or 0 for none \(1 such of 1 cells\)"),
        ([[1, 2.2]], r"cell 1,2: M is '2\.2'"),
        ([[1, 0], [-1, 0]], r"cell 2,1: M is '-1'"),
        ([[1, 0], [0, np.nan]], "cell 2,2: M is missing"),
        (np.ones(3), r"M is \(3,\) of float64; expected numbers, one row a user"),
        (np.array([[b"x"]]), "expected numbers, one row a user"),
    ):
        with pytest.raises(DataError, match=message):
            monti(tmp_path, matrix)
    path = tmp_path / "training_test_dataset.mat"
    with h5py.File(path, "w") as file:
        file.create_dataset("Otest", data=np.ones((2, 2)))
        file.create_dataset("W_users", data=np.ones((2, 2)))
    with pytest.raises(DataError, match="holds Otest, W_users; expected a matrix called M"):
        social.load_douban(tmp_path)
    with h5py.File(path, "w") as file:
        file.create_dataset("M", data=h5py.Empty("f8"))
    with pytest.raises(DataError, match="expected numbers, one row a user"):
        social.load_douban(tmp_path)
    with h5py.File(path, "w") as file:
        file.create_group("M")
    with pytest.raises(DataError, match=r"can't be read as a MATLAB 7\.3 file"):
        social.load_douban(tmp_path)
    io.savemat(path, {"M": np.ones((2, 2))})
    with pytest.raises(DataError, match="another version, cut short or damaged"):
        social.load_douban(tmp_path)
    monti(tmp_path, np.ones((30, 30)))
    whole = path.read_bytes()
    for length in range(1, len(whole), 3):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="cut short or damaged"):
            social.load_douban(tmp_path)


@pytest.mark.parametrize(
    ("load", "file", "separator", "high"),
    [
        (social.load_filmtrust, "ratings.txt", " ", 4),
        (social.load_yelp_friends, "user_business.dat", "\t", 5),
        (social.load_douban_network, "user_movie.dat", "\t", 5),
    ],
)
def test_plain_text(tmp_path, load, file, separator, high):
    write = lambda *rows: (tmp_path / file).write_text("".join(separator.join(row.split()) + "\n" for row in rows))  # noqa: E731
    write("3 10 2", "3 9 3.5", "1 10 1", "3 10 2")
    data = load(tmp_path)
    assert histories(data) == {"3": [("10", 2), ("9", 3.5), ("10", 2)], "1": [("10", 1)]}
    assert data.items["raw"].tolist() == ["9", "10"]
    assert not data.clock
    result = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert result.exit_code == 0
    assert f"{data.name}: kept 4 interactions of 2 users with 2 items" in result.output
    for rows, message in (
        (["1 1 2", "1 2"], "line 2 has 2 columns; expected 3"),
        (["1 1 9"], rf"line 1: value is '9'; expected [\d.]+ to {high} stars"),
        (["1 1 x"], "line 1: value is 'x'"),
        (["1 1.5 2"], r"line 1: item is '1\.5'; expected the number of an item"),
        (["a 1 2"], "line 1: user is 'a'; expected the number of a user"),
        ([], "the file is empty"),
    ):
        write(*rows)
        with pytest.raises(DataError, match=message):
            load(tmp_path)


def test_check_names_the_folder_of_a_matrix_and_asks_which_file(tmp_path):
    run = lambda path: CliRunner().invoke(app, ["check", str(path)])  # noqa: E731
    monti(tmp_path, [[1, 2]])
    result = run(tmp_path)
    assert result.exit_code == 0
    assert f"{tmp_path.name.lower()}: kept 2 interactions of 1 user with 2 items" in result.output
    trust(tmp_path)
    assert run(tmp_path).exit_code == 1
    assert "holds several data sets" in run(tmp_path).output
    assert "epinions: kept 5 interactions" in run(tmp_path / FILES["epinions"]).output
