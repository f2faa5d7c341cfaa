"""Rating sites whose data came to research because people there name whom they trust or befriend: Epinions, Ciao, FilmTrust, Douban,
Flixster, and Yelp with its friends. Only the ratings are read.

None of them says what an item is, so text is "" throughout and content models have nothing to work with; they serve models that see
nothing but who took what.

MATLAB files are read by SciPy and h5py. Neither runs anything that a file holds, but a file made to do harm can crash both, so read
a file of unknown origin by ``catalogue.load``, which compares its hash before it is opened.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy import io, sparse

from zsrbook.data.dataset import Columns, DataError, Dataset, Report
from zsrbook.data.files import GET_AGAIN, build, numbers, open_raw, read_large, read_table, refuse_cut_time, refuse_html

#: of the one matrix in the files of Epinions and Ciao, as their description names them; one row a rating
TRUST_COLUMNS = (Columns.USER, Columns.ITEM, "category", Columns.VALUE, "helpfulness", Columns.TIME)
#: of the film ratings of Song and others, as their first line names them
DOUBAN_COLUMNS = ["UserId", "ItemId", "Rating", "Timestamp"]
#: what damaged files raise in SciPy and h5py: each kind was met by cutting files short and by changing a few bytes
DAMAGED = (OSError, ValueError, TypeError, KeyError, IndexError, RuntimeError, MemoryError, zlib.error, io.matlab.MatReadError)


def load_epinions(folder: Path, name: str = "epinions") -> Dataset:
    """Epinions with dates: 922,267 ratings in whole stars, 22,164 users, 296,277 things of 27 categories.

    Collected by Tang and others (eTrust, 2012); how they chose the users, the file does not say. It gives the number of one of 11
    periods, not a time: ratings are put in the order of the periods, and within one in the file's order, which is not known to
    mean anything. 9,826 ratings are of a thing that the same user had rated before (5,445 of them with as many stars in the same
    period) and are kept; ``splits.without_repeats`` drops them.

    Items carry ``category``, the number that their first row gives (577 of them stand in several). How helpful others found a
    rating is not read.
    """
    path = Path(folder) / "epinions_rating_with_timestamp.mat"
    rows = trust_rows(path)
    frame, items = checked(path, rows, 1, 5), with_category(path, rows)
    period = whole(path, rows[Columns.TIME], "the number of a period, 1 to 11", high=11)
    report = Report((f"{name}: {len(np.unique(period))} periods instead of times; rows of one period keep the file's order",))
    return build(name, frame.iloc[np.argsort(period, kind="stable")], items, clock=False, report=report)


def load_ciao(folder: Path, name: str = "ciao") -> Dataset:
    """Ciao with dates: 284,086 rows, 7,375 users, 105,114 things of 28 categories; May 2000 to April 2011.

    Collected by Tang and others (mTrust, 2012); how they chose the users, the file does not say. Times are days: midnight, seven
    hours behind UTC. 290 rows repeat user, thing, day and stars of another and are dropped; 1,146 further ones are of a thing that
    the same user had rated before and are kept. 34 rows have 0 stars, the rest 1 to 5; they are kept.

    Items carry ``category`` as in ``load_epinions`` (101 of them stand in several).
    """
    path = Path(folder) / "ciao_rating_with_timestamp.mat"
    rows = trust_rows(path)
    frame, items = checked(path, rows, 0, 5), with_category(path, rows)
    frame[Columns.TIME] = numbers(path, rows[Columns.TIME], "seconds since 1970", 0, 1e11)
    return build(name, frame, items)


def load_douban(folder: Path, name: str = "douban") -> Dataset:
    """Douban's films: 136,891 ratings in whole stars on 3,000 users (one of them without any) and 3,000 films.

    A small subset, cut out by Monti and others (2017) to have a network of friends on the users; how the 3,000 were chosen is not
    said. No times: a user's ratings stand in the order of the films' numbers, which means nothing. Their split in two (matrices
    ``Otraining`` and ``Otest``) is not used.
    """
    return monti(Path(folder), name)


def load_douban_movie(folder: Path, name: str = "douban-movie") -> Dataset:
    """Douban's films, the whole release: 94,890 users, 81,906 films and 11,742,260 ratings, as its collectors count; 2005 to 2017.

    ``movie/douban_movie.tsv`` in ``Douban.tar.gz``, which Song and others collected for DGRec (WSDM 2019), beside books, music and who
    follows whom. It is what Douban Movie means where large data or times are asked for; the authors of PreRec's successor name it as the
    source of theirs. Tabs between the columns, stars in whole numbers, -1 where a row gives none: these rows are dropped, as the collectors'
    own script drops them, and counted. Times are days: midnight in Beijing. Films have numbers from 0 and no titles.

    Read in pieces: about ten seconds a million rows.

    Args:
        folder: that of the file; or the archive itself, which is then read in place.
    """
    path = Path(folder) / "douban_movie.tsv"
    parts, rows = [], 0
    for piece in read_large(path, DOUBAN_COLUMNS, "\t"):
        rows += len(piece)
        rated = piece[~piece["Rating"].isin(("-1", "-1.0"))].set_axis([Columns.USER, Columns.ITEM, Columns.VALUE, Columns.TIME], axis=1)
        part = checked(path, rated, 1, 5, first=0)
        part[Columns.TIME] = numbers(path, rated[Columns.TIME], "seconds since 1970", 0, 1e11)
        parts.append(part)
    frame = pd.concat(parts, ignore_index=True)
    refuse_cut_time(path, rated[Columns.TIME], frame[Columns.TIME].to_numpy())
    report = Report((f"{name}: dropped {rows - len(frame):,} of {rows:,} rows, which give no stars",))
    return build(name, frame, textless(frame), report=report)


def load_douban_network(folder: Path, name: str = "douban-hin") -> Dataset:
    """Douban's films: 1,068,278 ratings in whole stars, 13,367 users, 12,677 films.

    ``Douban Movie/user_movie.dat``, the other data that go by this name: prepared by Shi and others (2019) for networks of several kinds
    of nodes, as ``yelp-hin`` was; how they were chosen is not said. No times; the file's order is kept and is not known to mean anything.
    """
    return untimed(Path(folder) / "user_movie.dat", name, "\t", 1)


def load_flixster(folder: Path, name: str = "flixster") -> Dataset:
    """Flixster: 26,173 ratings in half stars; 2,341 of 3,000 users and 2,956 of 3,000 films have any.

    Cut out as Douban's were (see ``load_douban``), with networks on both sides.
    """
    return monti(Path(folder), name)


def load_filmtrust(folder: Path, name: str = "filmtrust") -> Dataset:
    """FilmTrust, whole: 35,497 ratings from 0.5 to 4 stars, 1,508 users, 2,071 films (Guo, Zhang and Yorke-Smith, 2013).

    Three pairs of user and film stand there twice and are kept. No times; a user's ratings keep the order of the file.
    """
    return untimed(Path(folder) / "ratings.txt", name, " ", 0.5, 4)


def load_yelp_friends(folder: Path, name: str = "yelp-hin") -> Dataset:
    """Yelp: 198,397 ratings in whole stars, 16,239 users, 14,284 businesses.

    A subset that Shi and others (2019) prepared for networks of several kinds of nodes; how it was chosen is not said. Not the
    users and numbers of ``yelp``. No times; the file's order is kept and is not known to mean anything.
    """
    return untimed(Path(folder) / "user_business.dat", name, "\t", 1)


def untimed(path: Path, name: str, separator: str, low: float, high: float = 5) -> Dataset:
    """A file of user, item and stars from ``low`` to ``high``, in the order of the file."""
    frame = checked(path, read_table(path, separator, [Columns.USER, Columns.ITEM, Columns.VALUE], quoted=False), low, high)
    return build(name, frame, textless(frame), clock=False)


def trust_rows(path: Path) -> pd.DataFrame:
    """The matrix ``rating`` with its six columns; the index counts rows from 1."""
    refuse_other(path)
    try:
        held = io.whosmat(path)
        matrix = io.loadmat(path, variable_names=["rating"]).get("rating")
    except NotImplementedError:  # how SciPy says that this is HDF5
        raise DataError(f"{path}: is of MATLAB 7.3; expected an older form, with a matrix called rating; {GET_AGAIN}") from None
    except DAMAGED as error:
        raise DataError(f"{path}: can't be read as a MATLAB file ({error}); it is cut short or damaged; {GET_AGAIN}") from error
    if matrix is None:
        raise DataError(f"{path}: holds {', '.join(n for n, *_ in held) or 'nothing'}; expected a matrix called rating")
    if sparse.issparse(matrix) or matrix.ndim != 2 or matrix.shape[1] != len(TRUST_COLUMNS) or matrix.dtype.kind not in "iuf":
        raise DataError(
            f"{path}: rating is {matrix.shape} of {matrix.dtype}; expected numbers in {len(TRUST_COLUMNS)} columns: {', '.join(TRUST_COLUMNS)}"
        )
    return pd.DataFrame(matrix, pd.RangeIndex(1, 1 + len(matrix), name="row"), TRUST_COLUMNS)


def monti(folder: Path, name: str) -> Dataset:
    """Matrix ``M`` of the form that Monti and others used: users by films, 0 where there is no rating. All rows and columns are kept."""
    path = folder / "training_test_dataset.mat"
    refuse_other(path)
    try:
        with h5py.File(path, "r") as file:
            held = list(file)
            matrix = np.asarray(file["M"][()]).T if "M" in held else None  # (users, films): HDF5 has MATLAB's columns as rows
    except DAMAGED as error:
        raise DataError(
            f"{path}: can't be read as a MATLAB 7.3 file ({error}); it is of another version, cut short or damaged; {GET_AGAIN}"
        ) from error
    if matrix is None:
        raise DataError(f"{path}: holds {', '.join(map(str, held)) or 'nothing'}; expected a matrix called M")
    if matrix.ndim != 2 or matrix.dtype.kind not in "iuf":
        raise DataError(f"{path}: M is {matrix.shape} of {matrix.dtype}; expected numbers, one row a user and one column a film")
    users, films = np.nonzero(matrix)  # NaN is not zero, so it is checked below
    cells = pd.Index([f"{u},{i}" for u, i in zip(users + 1, films + 1, strict=True)], name="cell")
    stars = numbers(path, pd.Series(matrix[users, films], cells, name="M"), "0.5 to 5 stars in steps of 0.5, or 0 for none", 0.5, 5, 0.5)
    frame = pd.DataFrame({Columns.USER: (users + 1).astype(str), Columns.ITEM: (films + 1).astype(str), Columns.VALUE: stars})
    sides = [pd.DataFrame({Columns.RAW: np.arange(1, n + 1).astype(str)}) for n in matrix.shape]
    return build(name, frame, sides[1].assign(**{Columns.TEXT: ""}), sides[0], clock=False)


def refuse_other(path: Path) -> None:
    """Missing, empty, or a web page; SciPy and h5py open files themselves and say less."""
    with open_raw(path) as stream:
        refuse_html(path, stream.read(200))


def checked(path: Path, rows: pd.DataFrame, low: float, high: float, first: int = 1) -> pd.DataFrame:
    """User and item as whole numbers from ``first`` on, written as text, and stars from ``low`` to ``high``."""
    return pd.DataFrame(
        {
            Columns.USER: whole(path, rows[Columns.USER], f"the number of a user, from {first}", first).astype(str),
            Columns.ITEM: whole(path, rows[Columns.ITEM], f"the number of an item, from {first}", first).astype(str),
            Columns.VALUE: numbers(path, rows[Columns.VALUE], f"{low:g} to {high:g} stars", low, high),
        }
    )


def whole(path: Path, column: pd.Series, expected: str, low: float = 1, high: float = 2**31) -> np.ndarray:
    return numbers(path, column, expected, low, high, step=1).astype(np.int64)


def textless(frame: pd.DataFrame) -> pd.DataFrame:
    """The items that the ratings name, in the order of their numbers, none of which says anything of itself."""
    raw = np.unique(frame[Columns.ITEM].to_numpy(np.int64)).astype(str)
    return pd.DataFrame({Columns.RAW: raw, Columns.TEXT: ""})


def with_category(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    first = rows.drop_duplicates(Columns.ITEM).sort_values(Columns.ITEM)
    category = whole(path, first["category"], "the number of a category, from 1")
    raw = first[Columns.ITEM].astype(np.int64).astype(str)
    return pd.DataFrame({Columns.RAW: raw, Columns.TEXT: "", "category": category}).reset_index(drop=True)
