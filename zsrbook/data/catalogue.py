"""All data sets by name: ``load("ml-1m")`` reads it from the data folder, ``load_clicks``, ``load_search`` and ``load_graph`` those of other forms;
``guess`` tells what a file or a folder holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from zsrbook.data import alimama, amazon, blogcatalog, derived, fetch, hidden_words, movielens, movielens_tags, netflix, smart, social, table, yelp
from zsrbook.data.blogcatalog import LabelledGraph
from zsrbook.data.clicks import ClickData
from zsrbook.data.dataset import Columns, DataError, Dataset
from zsrbook.data.files import form, open_raw
from zsrbook.data.search import SearchData


def amazon_2014(name: str, category: str) -> Callable[[Path], Dataset]:
    return lambda folder: amazon.load(name, folder / f"reviews_{category}_5.json.gz", folder / f"meta_{category}.json.gz", release=2014)


def amazon_2018(name: str, category: str, five_core: bool) -> Callable[[Path], Dataset]:
    reviews = f"{category}_5.json.gz" if five_core else f"{category}.csv"
    return lambda folder: amazon.load(name, folder / reviews, folder / f"meta_{category}.json.gz")


#: name -> what reads its folder; these names, those of ``GRAPHS``, and all sources of ``CLICKS`` and ``SEARCH`` are the names in ``fetch.SOURCES``
LOADERS: dict[str, Callable[[Path], Dataset]] = {
    "ml-100k": movielens.load_100k,
    "ml-1m": partial(movielens.load_1m, whole=True),
    "ml-latest-small": movielens.load_latest_small,
    "netflix-2m": netflix.load,
    "amazon-prime-pantry-2018": amazon_2018("amazon-prime-pantry-2018", "Prime_Pantry", five_core=False),
    "amazon-grocery-2018": amazon_2018("amazon-grocery-2018", "Grocery_and_Gourmet_Food", five_core=False),
    "amazon-gift-cards-2018": amazon_2018("amazon-gift-cards-2018", "Gift_Cards", five_core=True),
    "amazon-magazine-subscriptions-2018": amazon_2018("amazon-magazine-subscriptions-2018", "Magazine_Subscriptions", five_core=True),
    "amazon-musical-instruments-2014": lambda folder: amazon.load(
        "amazon-musical-instruments-2014", folder / "Musical_Instruments_5.json.zip", release=2014
    ),
    "amazon-sports-2014": amazon_2014("amazon-sports-2014", "Sports_and_Outdoors"),
    "amazon-beauty-2014": amazon_2014("amazon-beauty-2014", "Beauty"),
    "amazon-toys-2014": amazon_2014("amazon-toys-2014", "Toys_and_Games"),
    "scientific": derived.load_scientific,
    "games": derived.load_games,
    "office": derived.load_office,
    "industrial": derived.load_industrial,
    "yelp": derived.load_yelp,
    "sports": derived.load_sports,
    "beauty": derived.load_beauty,
    "toys": derived.load_toys,
    "epinions": social.load_epinions,
    "ciao": social.load_ciao,
    "douban": social.load_douban,
    "flixster": social.load_flixster,
    "filmtrust": social.load_filmtrust,
    "yelp-hin": social.load_yelp_friends,
    "yelp-open": lambda folder: yelp.load(folder / yelp.REVIEWS),
    "douban-movie": social.load_douban_movie,
    "douban-hin": social.load_douban_network,
}
#: the same for data of impressions and clicks: the source, and what reads its folder
CLICKS: dict[str, tuple[str, Callable[[Path], ClickData]]] = {
    "alimama": ("alimama", alimama.load),
    "alimama-6m": ("alimama", partial(alimama.load, paper_size=True)),
    "alimama-sample": ("alimama-sample", lambda folder: alimama.load_sample(folder / "alimama_sampled_train.txt")),
}
#: the same for graphs whose nodes have labels
GRAPHS: dict[str, Callable[[Path], LabelledGraph]] = {"blogcatalog": blogcatalog.load}
#: the same for search data: the sources, and what reads their folders
SEARCH: dict[str, tuple[tuple[str, ...], Callable[..., SearchData]]] = {
    "cisi": (("cisi",), smart.load_cisi),
    "cacm": (("cacm",), smart.load_cacm),
    "ml-10m-tags": (("ml-10m-tags",), movielens_tags.load_10m),
    "ml-latest-small-tags": (("ml-latest-small",), movielens_tags.load_latest_small),
    "ml-1m-tags": (("ml-1m", "ml-10m-tags"), partial(movielens_tags.load_1m, whole=True)),
    "scientific-titles": (("scientific",), lambda folder: hidden_words.hide_title_words(derived.load_scientific(folder))),
    "games-titles": (("games",), lambda folder: hidden_words.hide_title_words(derived.load_games(folder))),
}


def load(name: str) -> Dataset:
    """A data set from ``ZSRBOOK_DATA``, its files checked against their known hashes. Never downloads.

    Raises:
        DataError: no such name; a file is missing (the message says where it comes from) or is not what it should be.
    """
    refuse_others(name, "interactions")
    folder = fetch.locate(name)
    return LOADERS[name](folder)


def load_clicks(name: str) -> ClickData:
    """The same for data of impressions and clicks.

    Raises:
        DataError: as ``load``, or the name is that of interactions.
    """
    refuse_others(name, "impressions and clicks")
    if name not in CLICKS:
        fetch.source_of(name)  # which refuses a name that nobody knows
    source, loader = CLICKS[name]
    return loader(fetch.locate(source))


def refuse_others(name: str, wanted: str) -> None:
    """Raises DataError if a data set of this name holds something else than is wanted, such as ``interactions``."""
    kinds = {
        "interactions": (LOADERS, "load"),
        "impressions and clicks": (CLICKS, "load_clicks"),
        "queries and what is relevant to them": (SEARCH, "load_search"),
        "a graph": (GRAPHS, "load_graph"),
    }
    for kind, (names, reader) in kinds.items():
        if kind != wanted and name in names:
            raise DataError(f"{name} holds {kind}, not {wanted}; read it with {reader} of {__name__}")


def load_search(name: str) -> SearchData:
    """The same for search data.

    Raises:
        DataError: as ``load``, or there is no search data of this name.
    """
    if name not in SEARCH:
        raise DataError(f"no search data is called {name!r}; there are {', '.join(SEARCH)}")
    sources, loader = SEARCH[name]
    return loader(*map(fetch.locate, sources))


def load_graph(name: str) -> LabelledGraph:
    """The same for graphs.

    Raises:
        DataError: as ``load``, or there is no graph of this name.
    """
    if name not in GRAPHS:
        raise DataError(f"no graph is called {name!r}; there are {', '.join(GRAPHS)}")
    return GRAPHS[name](fetch.locate(name))


def load_any(name: str) -> Dataset | ClickData | SearchData | LabelledGraph:
    """The data set of this name, in whatever form it has.

    Raises:
        DataError: as ``load``, or there is no data set of this name.
    """
    for names, loader in ((LOADERS, load), (CLICKS, load_clicks), (SEARCH, load_search), (GRAPHS, load_graph)):
        if name in names:
            return loader(name)
    raise DataError(f"{name}: no such file or folder, nor a data set of that name; `python -m zsrbook data list` shows those that there are")


def guess(path: Path, encoding: str = "utf-8") -> Dataset:
    """Load a file or a folder after the look of its file names.

    Args:
        encoding: of tables of one's own; that of public files is known.

    Raises:
        DataError: nothing there looks like a form that this package reads, or what is there is bad.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    return guess_folder(path, encoding) if path.is_dir() else guess_file(path, encoding)


def guess_search(path: Path) -> SearchData | None:
    """What a folder of search data holds, or None where its file names do not look like that, or tables of one's own lie there."""
    forms = {("CISI.ALL",): smart.load_cisi, ("cacm.all",): smart.load_cacm, ("tags.dat", "movies.dat"): movielens_tags.load_10m}
    folder = Path(path)
    if not folder.is_dir() or own_table(folder, "interactions") or own_table(folder, "items"):
        return None
    for names, loader in forms.items():
        if all((folder / n).is_file() for n in names):
            return loader(folder)
    return None


#: a file whose name alone tells a data set -> what reads its folder; several may lie in one folder, so naming the file settles which is meant
ALONE: dict[str, Callable[[Path], Dataset]] = {
    "Scientific.inter.json": derived.load_scientific,
    "Games-6k.test.inter": derived.load_games,
    "Office_Products.test.csv": derived.load_office,
    "Industrial_and_Scientific.test.csv": derived.load_industrial,
    "Yelp.txt": derived.load_yelp,
    "Sports_and_Outdoors.txt": derived.load_sports,
    "Beauty.txt": derived.load_beauty,
    "Toys_and_Games.txt": derived.load_toys,
    "epinions_rating_with_timestamp.mat": social.load_epinions,
    "ciao_rating_with_timestamp.mat": social.load_ciao,
    "training_test_dataset.mat": lambda folder: social.monti(folder, folder.resolve().name.lower()),
    "ratings.txt": social.load_filmtrust,
    "user_business.dat": social.load_yelp_friends,
    yelp.REVIEWS: lambda folder: yelp.load(folder / yelp.REVIEWS),
    f"{yelp.REVIEWS}.gz": lambda folder: yelp.load(folder / f"{yelp.REVIEWS}.gz"),
    "yelp_dataset.tar": lambda folder: yelp.load(folder / "yelp_dataset.tar" / yelp.REVIEWS),
    "douban_movie.tsv": social.load_douban_movie,
    "Douban.tar.gz": lambda folder: social.load_douban_movie(folder / "Douban.tar.gz"),
    "user_movie.dat": social.load_douban_network,
}


#: what tables of one's own may be called, and how their names may end
OWN = {"interactions": ("interactions", "history"), "items": ("items", "catalogue"), "users": ("users",)}
ENDINGS = (".csv", ".tsv", ".parquet", ".csv.gz", ".tsv.gz", ".csv.zip", ".tsv.zip")


def own_table(folder: Path, kind: str, ending: str = "") -> Path | None:
    """The table of this kind in a folder, if there is one; of several that with this ending. Capital letters are as good as small ones.

    Raises:
        DataError: several would do.
    """
    names = {f"{name}{end}" for end in ENDINGS for name in OWN[kind]}
    there = [file for file in sorted(folder.iterdir()) if file.is_file() and file.name.lower() in names]
    alike = [file for file in there if ending and file.name.lower().endswith(ending.lower())]
    found = alike or there
    if len(found) > 1:
        raise DataError(f"{folder}: holds {' and '.join(file.name for file in found)}; expected one table of {kind}; take the others away")
    return found[0] if found else None


def published(folder: Path) -> Dataset | None:
    """What a folder of files as they are published holds (but for Amazon's, whose names vary), or None where it does not look like one.

    Raises:
        DataError: it holds several data sets.
    """
    forms = {
        ("u.data", "u.item"): movielens.load_100k,
        ("ratings.dat", "movies.dat"): movielens.load_1m,
        ("ratings.csv", "movies.csv"): movielens.load_latest_small,
    }
    for names, loader in forms.items():
        if all((folder / n).is_file() for n in names):
            return loader(folder)
    if alone := [n for n in ALONE if (folder / n).is_file()]:
        return ALONE[the_one(folder, alone)](folder)
    if (folder / "movie_titles.csv").is_file():
        return netflix.load(folder, "netflix", first=None)
    return None


def the_one(folder: Path, names: list[str]) -> str:
    """Raises DataError if there are several."""
    if len(names) > 1:
        raise DataError(f"{folder}: holds several data sets; name one of the files {', '.join(names)}")
    return names[0]


def guess_folder(folder: Path, encoding: str = "utf-8") -> Dataset:
    """Tables of one's own, whatever else lies beside them; else what is there as it was published.

    Raises:
        DataError: nothing is there, or several data sets.
    """
    name = folder.resolve().name.lower()
    if interactions := own_table(folder, "interactions"):
        others = (own_table(folder, kind, "".join(interactions.suffixes)) for kind in ("items", "users"))
        return table.load(interactions, *others, name=name, encoding=encoding)
    if items := own_table(folder, "items"):
        return table.alone(items, name, encoding)
    if (data := published(folder)) is not None:
        return data
    reviews = sorted(f.name for kind in ("gz", "zip") for f in folder.glob(f"*.json.{kind}") if not f.name.startswith("meta_"))
    if reviews := reviews or sorted(f.name for f in folder.glob("*.csv") if is_ratings_only(f)):
        return guess_file(folder / the_one(folder, reviews))
    raise DataError(
        f"{folder}: holds no known form; expected MovieLens, Amazon, Netflix Prize, Yelp or Douban files as they are published, or interactions.csv"
        f" (columns user,item, if you have them time,value) with items.csv (columns item,text); history.csv and catalogue.csv will do as names"
    )


def guess_file(path: Path, encoding: str = "utf-8") -> Dataset:
    """One file: Amazon reviews or ratings (with the metadata beside them), a table of interactions (with the items beside it) or of items,
    or one of a known folder."""
    if path.name in ALONE:
        return ALONE[path.name](path.parent)
    name = path.name.split(".")[0].lower().replace("_", "-")
    category = re.sub("^(reviews|ratings)_|_5$", "", path.name.split(".")[0])
    metadata = path.with_name(f"meta_{category}.json.gz")
    beside = metadata if metadata.is_file() and metadata != path else None
    kind = form(path)
    if kind == ".json":
        return amazon.load(name, path, beside)
    if kind == ".csv" and is_ratings_only(path):
        return amazon.load(name, path, beside, release=2014 if path.name.startswith("ratings_") else 2018)
    if kind in (".csv", ".tsv", ".parquet"):
        columns = set(table.columns(path, encoding))
        if {Columns.ITEM, Columns.TEXT} <= columns and (Columns.USER not in columns or name in OWN["items"]):
            return table.alone(path, encoding=encoding)
        items = own_table(path.parent, "items", "".join(path.suffixes))
        return table.load(path, None if items == path else items, encoding=encoding)
    if (data := published(path.parent)) is not None:
        return data
    table.refuse_kind(path)


def is_ratings_only(path: Path) -> bool:
    """Whether the first line is two ids, a number of stars and seconds, rather than names of columns."""
    with open_raw(path) as stream:
        return re.fullmatch(rb"\w+,\w+,\d(\.\d+)?,\d+", stream.readline().strip()) is not None
