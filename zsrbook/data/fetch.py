"""Where public data comes from, on which terms, and how it gets here: downloaded whole, checked, then moved into place.

Nothing is downloaded unless asked for (``python -m zsrbook data get NAME``), and nothing here may be passed on: every source has
its own terms. A file whose hash is not known to this registry says so when it arrives; the hash then seen is printed.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import pooch

from zsrbook.data.dataset import DataError
from zsrbook.data.files import beginning, refuse_html
from zsrbook.scale import data_folder


@dataclass(frozen=True)
class File:
    """One file in a source's folder.

    Attributes:
        path: below the folder.
        sha256: None where it is not known for certain, so that it can't be checked.
        size: bytes, None where not known.
        url: None where the file comes out of the source's archive, or can't be had without an account or a visit to the page.
        mirror: a second address of the very same bytes, tried after ``url``.
    """

    path: str
    sha256: str | None = None
    size: int | None = None
    url: str | None = None
    mirror: str | None = None


@dataclass(frozen=True)
class Archive:
    """A ``.zip`` that holds a source's files, and the MD5 that its publisher gives, None where there is none."""

    url: str
    md5: str | None = None


@dataclass(frozen=True)
class Source:
    """A public data set: its files, folder below the data folder, terms, citation key in the book's bibliography, and page."""

    folder: str
    files: tuple[File, ...]
    licence: str
    citation: str
    page: str
    archive: Archive | None = None

    @property
    def size(self) -> int | None:
        """Bytes on disk, None if any is unknown."""
        sizes = [f.size for f in self.files]
        return None if None in sizes else sum(sizes)

    @property
    def where(self) -> Path:
        return data_folder() / self.folder

    def missing(self) -> list[File]:
        """The files that are not there, or are empty."""
        paths = {f: self.where / f.path for f in self.files}
        return [f for f, path in paths.items() if not path.is_file() or not path.stat().st_size]


MOVIELENS = "research only, cite, no redistribution"
AMAZON = "research only, cite"
GROUPLENS = "https://files.grouplens.org/datasets/movielens"
AMAZON_2014 = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
AMAZON_2018 = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2"
AMAZON_2014_PAGE = "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html"
AMAZON_2018_PAGE = "https://nijianmo.github.io/amazon/index.html"


def github(repository: str, commit: str, path: str) -> str:
    """The address of one file at one commit, so that it can't change."""
    return f"https://raw.githubusercontent.com/{repository}/{commit}/{path}"


CACM = ("kavinsan/Information-Retrieval-Project", "feda4806b8d19af85753c580640d40e572f99339")
CISI = ("PsychoProg/tf-idf", "beee251dd1356ee4ffb453ac60cf8f9112840f5d")
COLLISION = ("Nishikata97/CollisionGenRec", "505d5be3166f7c38ae67957daf8a3b7ec7092577")
DEEPWALK = ("phanein/deepwalk", "6e6dff245e4692e9bea47e9017c1034e51afbf29")
HIN = ("librahu/HIN-Datasets-for-Recommendation-and-Network-Embedding", "cc05c484b628b08237f0a876fcebf99d736ccbea")
IGMC = ("muhanzhang/IGMC", "5fa0e3cb1bdc46ffcb97fa6e0249a553e2e0b438")
LLMRANK = ("RUCAIBox/LLMRank", "5ec1154cb74cbf68ed5721212f1d7e79336c39c7")
MINIONEREC = ("AkaliKong/MiniOneRec", "81b4ba9811cfb152cf161f1c486fe516510d081e")
PADDLEREC = ("PaddlePaddle/PaddleRec", "656326adf3c4117c11ec0eff5e8f61acd8191c2a")
QREC = ("Coder-Yu/QRec", "a141bb37cb7706b2f53b2eed5843de3269f9f37f")
S3REC = ("RUCAIBox/CIKM2020-S3Rec", "2a81540ae18615d88ef88227b0c066e5b74781e5")
TRUST = ("vinhqdang/trust_predict_ciao_epinions", "cda9a716c5478c66f9660cdb39a04a0f0b5de869")


def ratings_only_2018(category: str) -> tuple[File, ...]:
    """Ratings and metadata of a whole category. UCSD gives no hashes for these, so sha256 is None."""
    return (
        File(f"{category}.csv", url=f"{AMAZON_2018}/categoryFilesSmall/{category}.csv"),
        File(f"meta_{category}.json.gz", url=f"{AMAZON_2018}/metaFiles2/meta_{category}.json.gz"),
    )


def five_core_2014(name: str, category: str) -> Source:
    """5-core reviews and metadata of a category. There are no published hashes for these, so sha256 is None."""
    files = (File(path, url=f"{AMAZON_2014}/{path}") for path in (f"reviews_{category}_5.json.gz", f"meta_{category}.json.gz"))
    return Source(name, tuple(files), AMAZON, "mcauley2015image", AMAZON_2014_PAGE)


def five_core_2018(category: str, reviews: tuple[str, int], metadata: tuple[str, int], mirror: tuple[str, str]) -> tuple[File, ...]:
    names = (f"{category}_5.json.gz", f"meta_{category}.json.gz")
    return tuple(
        File(name, sha256, size, f"{AMAZON_2018}/{folder}/{name}", github(*mirror, name))
        for name, folder, (sha256, size) in zip(names, ("categoryFilesSmall", "metaFiles2"), (reviews, metadata), strict=True)
    )


def minionerec(category: str, items: tuple[str, int], valid: tuple[str, int], test: tuple[str, int]) -> Source:
    span = f"{category}_5_2016-10-2018-11.csv"
    return Source(
        "amazon-office-industrial-minionerec",
        (
            File(f"{category}.item.json", *items, github(*MINIONEREC, f"data/Amazon/index/{category}.item.json")),
            File(f"{category}.valid.csv", *valid, github(*MINIONEREC, f"data/Amazon/valid/{span}")),
            File(f"{category}.test.csv", *test, github(*MINIONEREC, f"data/Amazon/test/{span}")),
        ),
        AMAZON,
        "ni2019amazon",
        f"https://github.com/{MINIONEREC[0]}",
    )


def smart(name: str, mirror: tuple[str, str], *files: tuple[str, str, int]) -> Source:
    """A test collection of the SMART system; a copy of the files that the University of Glasgow hands out."""
    return Source(
        name,
        tuple(File(path, sha256, size, github(*mirror, path)) for path, sha256, size in files),
        "public test collection, research use, cite",
        "fox1983collections",
        f"https://ir.dcs.gla.ac.uk/resources/test_collections/{name}/",
    )


def amazon_s3rec(category: str, sha256: str, size: int) -> Source:
    name = f"{category}.txt"
    files = (File(name, sha256, size, github(*S3REC, f"data/{name}")),)
    return Source("amazon-5core-2014-s3rec", files, AMAZON, "mcauley2015image", f"https://github.com/{S3REC[0]}")


def one_file(folder: str, path: str, sha256: str, size: int, mirror: tuple[str, str], inside: str, citation: str, page: str) -> Source:
    """A copy, kept beside somebody's code, of ratings whose collectors ask to be cited; ``inside`` is the folder there."""
    return Source(folder, (File(path, sha256, size, github(*mirror, f"{inside}/{path}")),), "research use, cite", citation, page)


SOURCES = {
    "ml-100k": Source(
        "ml-100k",
        (
            File("u.data", "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490", 1_979_173),
            File("u.item", "553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701", 236_344),
            File("u.user", "f120e114da2e8cf314fd28f99417c94ae9ddf1cb6db8ce0e4b5995d40e90e62c", 22_628),
        ),
        MOVIELENS,
        "harper2015movielens",
        "https://grouplens.org/datasets/movielens/100k/",
        Archive(f"{GROUPLENS}/ml-100k.zip", "0e33842e24a9c977be4e0107933c0723"),
    ),
    "ml-1m": Source(
        "ml-1m",
        (
            File("ratings.dat"),  # the loader checks the count of every star instead, since copies that differ in their bytes go around
            File("movies.dat", "0140fc2356357c1a851d0f52e893a1e4d3696df632c4141cea8d5bc3d621f0b9", 171_308),
            File("users.dat", "1dc3a95300cb19f7c10e027daf29b8cdf1d908dab65b5edfb45950aa389a10a3", 134_368),
        ),
        MOVIELENS,
        "harper2015movielens",
        "https://grouplens.org/datasets/movielens/1m/",
        Archive(f"{GROUPLENS}/ml-1m.zip", "c4d9eecfca2ab87c1945afe126590906"),
    ),
    "ml-latest-small": Source(
        "ml-latest-small",
        (
            File("ratings.csv", "aa289ca83157595d0df6aea1be6a4ded676ddc4385472e8313a8ed9805352646", 2_483_723),
            File("movies.csv", "5a5f32dd9bb3797b8e728a1b98958789d2b13f294a69fdfbc5727f8a9611aa07", 494_431),
            File("tags.csv", None, 118_660),
        ),
        MOVIELENS,
        "harper2015movielens",
        "https://grouplens.org/datasets/movielens/latest/",
        Archive(f"{GROUPLENS}/ml-latest-small.zip"),
    ),
    "ml-10m-tags": Source(
        "ml-10m-tags",
        (
            File("tags.dat", None, 3_584_119),
            File("movies.dat", "a9ecf64cdb12d3af6dc32b45711d81c0cfded374bdd9a6d77efd0d3077381c16", 522_197),
        ),
        MOVIELENS,
        "harper2015movielens",
        "https://grouplens.org/datasets/movielens/10m/",
        Archive(f"{GROUPLENS}/ml-10m.zip", "ce571fd55effeba0271552578f2648bd"),
    ),
    "netflix-2m": Source(
        "netflix-prize",
        (*(File(f"combined_data_{n}.txt") for n in (1, 2, 3, 4)), File("movie_titles.csv")),
        "research only, do not republish; needs an account at the page named here",
        "bennett2007netflix",
        "https://www.kaggle.com/datasets/netflix-inc/netflix-prize-data",
    ),
    "alimama": Source(
        "alimama",
        tuple(File(name) for name in ("raw_sample.csv", "ad_feature.csv", "user_profile.csv", "behavior_log.csv")),
        "research only, non-commercial; needs an account at the page named here",
        "tianchi2018ad",
        "https://tianchi.aliyun.com/dataset/56",
    ),
    "alimama-sample": Source(
        "alimama-sample",
        (
            File(
                "alimama_sampled_train.txt",
                "046a8d71a4912a5647adc93a6b5cf951dee1407dd72deb164652ef90c1a3f819",
                481_263,
                github(*PADDLEREC, "models/rank/dmr/data/sample_data/alimama_sampled_train.txt"),
            ),
        ),
        "research only, non-commercial",
        "tianchi2018ad",
        f"https://github.com/{PADDLEREC[0]}",
    ),
    "amazon-prime-pantry-2018": Source("amazon-prime-pantry-2018", ratings_only_2018("Prime_Pantry"), AMAZON, "ni2019amazon", AMAZON_2018_PAGE),
    "amazon-grocery-2018": Source("amazon-grocery-2018", ratings_only_2018("Grocery_and_Gourmet_Food"), AMAZON, "ni2019amazon", AMAZON_2018_PAGE),
    "amazon-gift-cards-2018": Source(
        "amazon-gift-cards-2018",
        five_core_2018(
            "Gift_Cards",
            ("41e1f0e50d3c1c9d7d949fb6315944c8bde51ea6b7429a29fdd0d02cbc07ef25", 176_952),
            ("07fd154b7275ab9b1537e3802913508c7a5f84ed00f73201cd3fa18b2b51b342", 380_174),
            ("ncloud50/giftcard", "f9e7a74233d8ae463a411dd92fe539d4ac992110"),
        ),
        AMAZON,
        "ni2019amazon",
        AMAZON_2018_PAGE,
    ),
    "amazon-magazine-subscriptions-2018": Source(
        "amazon-magazine-subscriptions-2018",
        five_core_2018(
            "Magazine_Subscriptions",
            ("95c124603d62d6acdfd1bd62284934fb6c513db836ea64c2e8176c14256426f2", 401_655),
            ("4e64f9028648dee43200a4bd3e7b8c497ffd80ea52018e8f994a5fbd5d97faf6", 1_241_608),
            ("ncloud50/hello2", "b327d276611ef3f5f90d583f38c939c696bcd8eb"),
        ),
        AMAZON,
        "ni2019amazon",
        AMAZON_2018_PAGE,
    ),
    "amazon-musical-instruments-2014": Source(
        "amazon-musical-instruments-2014",
        (
            File(
                "Musical_Instruments_5.json.zip",
                "27679efc609cb9ad12a6f6c4a23044a083f85994986ed69b9a654871f2d1466b",
                2_480_060,
                github("recohut/coldstart-recsys", "da72950ca514faee94f010a2cb6e99a373044ec1", "data/DaRE/Musical_Instruments.zip"),
            ),
        ),
        AMAZON,
        "mcauley2015image",
        AMAZON_2014_PAGE,
    ),
    "amazon-sports-2014": five_core_2014("amazon-sports-2014", "Sports_and_Outdoors"),
    "amazon-beauty-2014": five_core_2014("amazon-beauty-2014", "Beauty"),
    "amazon-toys-2014": five_core_2014("amazon-toys-2014", "Toys_and_Games"),
    "scientific": Source(
        "amazon-scientific-2018",
        (
            File(
                "Scientific.inter.json",
                "32c6c01876ebecebdfabd2dbd358594be36655e9e7b168772a7a3aa3624ee1b4",
                408_626,
                github(*COLLISION, "data/Scientific/Scientific.inter.json"),
            ),
            File(
                "Scientific.item.json",
                "ad24200106868dac2b544d812305d61a11bf07fed78b2f7cdca41d66f3418e71",
                3_709_486,
                github(*COLLISION, "data/Scientific/Scientific.item.json"),
            ),
        ),
        AMAZON,
        "ni2019amazon",
        f"https://github.com/{COLLISION[0]}",
    ),
    "games": Source(
        "amazon-video-games-2018",
        (
            File(
                "Games-6k.item",
                "be9cea58a8de4f940a20b0ad6b58bad46b22fd6f9dbc82d1a1902e1c62e96ade",
                837_183,
                github(*LLMRANK, "llmrank/dataset/Games-6k/Games-6k.item"),
            ),
            File(
                "Games-6k.test.inter",
                "b241e4c8a52d2d41530fd073296e8bced4b61753e86ed6c51467c657704bab19",
                2_501_199,
                github(*LLMRANK, "llmrank/dataset/Games-6k/Games-6k.test.inter"),
            ),
        ),
        AMAZON,
        "ni2019amazon",
        f"https://github.com/{LLMRANK[0]}",
    ),
    "office": minionerec(
        "Office_Products",
        ("398cb2bb7868bedf2ed8ed6b24d25e172f21b7022554d1f8ea52200478494c1c", 2_570_582),
        ("a7d8f049ae425f413def22687cebcd172c65833633ff76dd3d90a83bca98234f", 3_038_060),
        ("c1967034e197a7837a8962f2556efaabc12eb5bb84e1fdc79cd0accbce71add5", 3_310_265),
    ),
    "industrial": minionerec(
        "Industrial_and_Scientific",
        ("937600c7a03652f55864a1d12d6e9fe8ca3e24ecc4e255a88216b25c5f949496", 3_008_778),
        ("12bbb02bced0bd754a8b4e0f9ca4086416e30d12b0b73a2c95e7b195dd67385a", 2_915_875),
        ("973dd1db4fd549f3f2b40a0f039dbae157ebb92c716197cc246401e4e82c3a46", 3_105_687),
    ),
    "yelp": Source(
        "yelp-s3rec",
        (
            File("Yelp.txt", "724b219106b81dd2349027da997334ddb6da9fe2f152ad6e0d97a93170f7caed", 1_814_224, github(*S3REC, "data/Yelp.txt")),
            File(
                "Yelp.item.json.letter",
                "8f58a9d54111fc10ccd675f99e6f2afe988cd0ee70b40f1e37d04f9aea764c2d",
                2_673_394,
                github(*COLLISION, "data/Yelp/Yelp.item.json"),
            ),
        ),
        "academic use, no redistribution",
        "zhou2020s3rec",
        f"https://github.com/{S3REC[0]}",
    ),
    "sports": amazon_s3rec("Sports_and_Outdoors", "2a095e0648872beb9982408958290f5d655db5be2911c3756b5446de9f0b8de2", 1_707_483),
    "beauty": amazon_s3rec("Beauty", "226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8", 1_090_094),
    "toys": amazon_s3rec("Toys_and_Games", "176c680c688d497598c4a89a03b402c0fe78d795e5db335c2e78dd5f2d778a3f", 922_166),
    "epinions": one_file(
        "epinions-ciao-timestamps",
        "epinions_rating_with_timestamp.mat",
        "a92e055b71b2e6ca70875979af79b90ef23360f4573204cade9a381ac1958509",
        3_704_431,
        TRUST,
        "code",
        "tang2012etrust",
        "https://www.cse.msu.edu/~tangjili/datasetcode/truststudy.htm",
    ),
    "ciao": one_file(
        "epinions-ciao-timestamps",
        "ciao_rating_with_timestamp.mat",
        "488e9aa5f60e6a52a972795b6402f922fc0d9d273152f4d124a5c5bdefb86a71",
        1_529_576,
        TRUST,
        "code",
        "tang2012mtrust",
        "https://www.cse.msu.edu/~tangjili/datasetcode/truststudy.htm",
    ),
    "douban": one_file(
        "douban-monti",
        "training_test_dataset.mat",
        "1f4476321cbfe0f606e7e35d0695ca15447a1b0b2c811df130109b6cb9a067ae",
        2_778_554,
        IGMC,
        "raw_data/douban",
        "monti2017geometric",
        f"https://github.com/{IGMC[0]}",
    ),
    "flixster": one_file(
        "flixster-monti",
        "training_test_dataset.mat",
        "8b07e0387edfe7ffdccead2826bb3844ddbd9e6a8ccba264ce81a3b59b273197",
        2_776_221,
        IGMC,
        "raw_data/flixster",
        "monti2017geometric",
        f"https://github.com/{IGMC[0]}",
    ),
    "filmtrust": one_file(
        "filmtrust",
        "ratings.txt",
        "241167424e24d588e8871d68641e94ead98d5b3a4f0db01ef3181a74ad35e7a1",
        376_445,
        QREC,
        "dataset/FilmTrust",
        "guo2013filmtrust",
        "https://guoguibing.github.io/librec/datasets.html",
    ),
    "yelp-hin": Source(
        "yelp-hin",
        (
            File(
                "user_business.dat",
                "d57853e95c3f49f0060f31ee9365ab3fffe1010999c76863c3cd9628b91e994d",
                2_490_385,
                github(*HIN, "Yelp/user_business.dat"),
            ),
        ),
        "academic use, no redistribution",
        "shi2019herec",
        f"https://github.com/{HIN[0]}",
    ),
    "yelp-open": Source(
        "yelp-open",
        (File("yelp_academic_dataset_review.json"), File("yelp_academic_dataset_business.json")),
        "academic use, no redistribution; accept the terms at the page named here",
        "yelp2022open",
        "https://business.yelp.com/data/resources/open-dataset/",
    ),
    "douban-movie": Source(
        "douban-movie",
        (File("douban_movie.tsv"),),
        "research use, cite",
        "song2019dgrec",
        "https://github.com/DeepGraphLearning/RecommenderSystems/blob/master/socialRec/README.md#douban-data",
    ),
    "douban-hin": Source(
        "douban-hin",
        (File("user_movie.dat", url=github(*HIN, "Douban%20Movie/user_movie.dat")),),
        "research use, cite",
        "shi2019herec",
        f"https://github.com/{HIN[0]}",
    ),
    "blogcatalog": Source(
        "blogcatalog",
        (
            File(
                "blogcatalog.mat",
                "d4f4fb89ce1ccd4b7e2a183386c000773cc9362cc61f1be5b246a6d9c259da8f",
                1_255_783,
                github(*DEEPWALK, "example_graphs/blogcatalog.mat"),
            ),
        ),
        "research use, cite",
        "tang2009relational",
        f"https://github.com/{DEEPWALK[0]}",
    ),
    "cisi": smart(
        "cisi",
        CISI,
        ("CISI.ALL", "c751e11dcdce83a572a4fcfd67eea453bdb9ecfd7bc93c21e50fc792ba8fb9a0", 2_119_354),
        ("CISI.QRY", "b72de0e0cb8aa5c93ac988e5be0400cc18949d0a94913a248783a37dd97d5470", 66_632),
        ("CISI.REL", "f7396c92586c61953ccb7ae99ad8d3ac749ac3b989041fc93a9e311568f58997", 77_850),
    ),
    "cacm": smart(
        "cacm",
        CACM,
        ("cacm.all", "0d0eaa9e54987161482a217dcef670a8032d687b1bbe84ba0a8e310b675bd52f", 2_187_735),
        ("query.text", "2fe81273fd7db3beccad1090c84630dea561469b7c19ad03e71370c8c7399cc9", 13_689),
        ("qrels.text", "da4202b0c70cad7d91c9a028eaf8cbd0a4ca981ebdc3955eb75ba7b6de6f185c", 9_948),
    ),
}


def source_of(name: str) -> Source:
    """
    Raises:
        DataError: there is no source of this name.
    """
    if name not in SOURCES:
        raise DataError(f"no data set is called {name!r}; there are {', '.join(SOURCES)}")
    return SOURCES[name]


def locate(name: str) -> Path:
    """The folder of a source whose files are all there and have their known hashes; never downloads.

    Raises:
        DataError: a file is missing (the message names address, terms, folder and command) or has another hash or size.
    """
    source = source_of(name)
    for file in source.missing():
        address = file.url or (source.archive.url if source.archive else source.page)
        state = "empty" if (source.where / file.path).is_file() else "missing"
        raise DataError(
            f"{name}: {file.path} is {state}. It belongs in {source.where} and comes from {address} (terms: {source.licence};"
            f" see {source.page}). " + how(name, source)
        )
    for file in source.files:
        check(source.where / file.path, file)
    return source.where


def how(name: str, source: Source) -> str:
    if source.archive or all(f.url for f in source.files):
        return f"Get it with `python -m zsrbook data get {name}`, or put it there and set ZSRBOOK_DATA to the folder above it."
    return (
        "It can't be downloaded without an account or a visit to that page; get it there, put it into that folder,"
        " and set ZSRBOOK_DATA to the folder above it."
    )


def get(name: str, say: Callable[[str], None] = print) -> Path:
    """Download what is missing of a source; each file appears under its name as soon as it is whole and checked, and stays if a later one fails.

    Raises:
        DataError: no address, no connection, a broken-off download, another hash, or an archive that tries to write elsewhere.
    """
    source = source_of(name)
    missing = source.missing()
    for file in source.files:
        if file not in missing:
            check(source.where / file.path, file)
    if not missing:
        say(f"{name}: all files are in {source.where}")
        return source.where
    if not source.archive and not all(f.url for f in missing):
        raise DataError(f"{name}: {', '.join(f.path for f in missing)} missing in {source.where}; page {source.page}. " + how(name, source))
    say(f"{name}: terms: {source.licence}; see {source.page}; cite {source.citation}")
    work = data_folder() / f".get-{name}"
    try:
        shutil.rmtree(work, ignore_errors=True)  # what a download left that was killed
        work.mkdir(parents=True)
        for file, path in fetched(source, missing, work, say):
            if file.sha256 is None:
                say(f"{name}: {file.path} has sha256 {sha256(path)}; this registry knows none, so it could not be checked")
            source.where.mkdir(exist_ok=True)
            os.replace(path, source.where / file.path)
            say(f"{name}: {source.where / file.path}")
    except OSError as error:
        raise DataError(f"{name}: can't write {error.filename or source.where} ({error.strerror}); set ZSRBOOK_DATA to a folder of yours") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return source.where


def fetched(source: Source, missing: list[File], work: Path, say: Callable[[str], None]) -> Iterator[tuple[File, Path]]:
    """Each missing file, whole and checked, in the work folder, as soon as it is there."""
    if source.archive is None:
        for file in missing:
            yield file, download_file(file, work, say)
        return
    packed = download(source.archive.url, work)
    check_md5(packed, source.archive)
    extract(packed, work / "content")
    found = {f: member(work / "content", f) for f in missing}
    for file, path in found.items():
        check(path, file, source.archive.url)
        yield file, path


def download_file(file: File, work: Path, say: Callable[[str], None]) -> Path:
    """From its address, else from its mirror; the last error if both fail."""

    def checked(address: str) -> Path:
        path = download(address, work)
        check(path, file, address)
        return path

    try:
        return checked(file.url)
    except DataError as error:
        if not file.mirror:
            raise
        say(f"{error}; trying {file.mirror}")
    return checked(file.mirror)


def download(url: str, work: Path) -> Path:
    """One file, whole, below the work folder: in a folder of its own, since pooch does not ask again for a name that is there, and both a
    mirror and another file of the source may have the same one.

    Raises:
        DataError: no connection, a broken-off download, or a web page in place of the file.
    """
    pooch.get_logger().setLevel("WARNING")
    own = tempfile.mkdtemp(dir=work)
    try:
        path = Path(pooch.retrieve(url, known_hash=None, path=own, fname=url.rsplit("/", 1)[-1]))
        (new := Path(own, ".new")).touch()
        path.chmod(new.stat().st_mode)  # that of any new file here; pooch leaves one that no other account can read
    except Exception as error:  # requests, urllib3 and the system each have errors of their own
        raise DataError(f"{url} could not be downloaded ({type(error).__name__}: {error}); nothing of it was kept; try again later") from error
    try:
        refuse_html(path, beginning(path))
    except DataError as error:
        raise DataError(f"{url} sent a web page, not the file: {error}") from None
    return path


def digest(path: Path, kind: str) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, kind).hexdigest()


def sha256(path: Path) -> str:
    return digest(path, "sha256")


def check(path: Path, file: File, address: str = "") -> None:
    """
    Args:
        address: where the file has just come from; if it is another one, it will be gone when that is read.

    Raises:
        DataError: the file has another sha256 than the registry knows; or another size, where it knows no sha256.
    """
    size = path.stat().st_size
    sizes = f"{size:,} bytes" + ("" if file.size is None else f", expected {file.size:,}")
    if file.sha256 is not None:
        seen = sha256(path)
        wrong = f"sha256 is {seen}; expected {file.sha256} ({sizes})" if seen != file.sha256 else ""
    else:
        wrong = sizes if file.size not in (None, size) else ""
    if wrong:
        raise DataError(
            f"{f'{file.path} from {address}' if address else path}: {wrong}: not the file that the book was made with;"
            f" {'nothing of it was kept; try again later' if address else 'move it away and get it again'}"
        )


def check_md5(path: Path, archive: Archive) -> None:
    if archive.md5 is not None and (seen := digest(path, "md5")) != archive.md5:
        raise DataError(f"{archive.url}: md5 is {seen}; its publisher says {archive.md5}; nothing of it was kept; try again later")


def member(folder: Path, file: File) -> Path:
    """The one unpacked file of this name, however deep it lies."""
    found = sorted(folder.rglob(PurePosixPath(file.path).name))
    if len(found) != 1:
        raise DataError(f"the archive holds {len(found)} files called {file.path}; expected one")
    return found[0]


def extract(archive: Path, into: Path) -> None:
    """Unpack a ``.zip`` below ``into`` alone; it is read whole before a byte is written.

    Raises:
        DataError: no zip, damaged, packed with a password or in a way that Python does not know, or a member would land elsewhere, or is a link.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                inside(archive, info.filename, stat.S_ISLNK(info.external_attr >> 16))
            if broken := packed.testzip():
                raise DataError(f"{archive}: member {broken} is damaged; get it again")
            packed.extractall(into, [info for info in packed.infolist() if PurePosixPath(info.filename).parts])  # Python 3.12.1 stops at "./"
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError) as error:  # the last of a password
        shutil.rmtree(into, ignore_errors=True)
        raise DataError(f"{archive}: can't be unpacked ({error}); get it again") from error


def inside(archive: Path, name: str, link: bool) -> None:
    path = PureWindowsPath(name)  # knows both slashes, and drives
    if link or path.anchor or ".." in path.parts:
        what = "is a link" if link else "points outside the folder"
        raise DataError(f"{archive}: member {name!r} {what}; nothing was unpacked; such an archive is not to be trusted, so delete it")
