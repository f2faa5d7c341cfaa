"""MovieLens as search data: films with their titles and genres, linked by consecutive ratings, and free-text tags as queries.

A tag is what a user writes on a film, so the films that carry it answer it: grade 2 where two users or more wrote it, grade 1 where
one did. Titles and genres alone hold few of the words that people ask for, and no method learns a word that it never reads. So the
films are drawn into two parts, ``told`` and the rest. The text of a film that is told ends with its tags. The others are silent: their
tags are hidden, and they alone are relevant to queries and stand in the log. A tag that is asked is carried by films of both parts,
so that what it means can be learned from texts and links. Candidates are the silent films (section 5.2 of the paper); beyond them
stand the told ones, which say the word.

The log holds each act of tagging of a silent film, in the order of time. Popular films are tagged more, and a film without a tag may
well deserve it, so the log is biased as logs of searches are.

The kind of a query says whether words could find its films (``search.kinds_by_words``): ``all`` by a genre or a word that every
title has, ``some``, or ``none``, as where silent films tagged "dystopia" nowhere say so.

Tags are kept as written, in one spelling (``titles.spelling``). Many speak of the user, not the film ("owned", "in netflix queue");
those of one person's are dropped by asking for several users, others stay.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from zsrbook.data import movielens, titles
from zsrbook.data.dataset import Columns, DataError, Report
from zsrbook.data.files import filled, joined, numbers, read_table, with_header
from zsrbook.data.search import TOP, SearchData, kinds_by_words, links_in_sequences

TAG_COLUMNS = [Columns.USER, Columns.RAW, "tag", Columns.TIME]
#: share of films with the same number whose titles agree, so that two releases number films alike
ALIKE = 0.9


@dataclass(frozen=True)
class Choice:
    """Which tags are asked, and which films tell theirs."""

    at_least: int = 3  #: films that must carry a tag, in each part
    users: int = 3  #: users who must have written it, on whatever film
    told: float = 0.5  #: share of the films whose texts hold their tags; 0: none, and all films with tags are silent
    seed: int = 0  #: of the draw of these films

    def __post_init__(self) -> None:
        if not 0 <= self.told < 1:
            raise DataError(f"told is {self.told}; expected a share of the films from 0 to below 1")


def load_latest_small(folder: Path, choice: Choice = Choice(), top: int = TOP, name: str = "ml-latest-small-tags") -> SearchData:
    """latest-small with its own ``tags.csv``: 3,683 acts of tagging by 58 users.

    Args:
        top: neighbours that a film keeps.

    Raises:
        DataError: a file is missing, damaged, or holds a line that does not fit; the message names it. Or no tag is left to ask.
    """
    folder = Path(folder)
    data = movielens.load_latest_small(folder, text="title+genres")
    tags = with_header(folder / "tags.csv", ["userId", "movieId", "tag", "timestamp"])
    tags.columns = TAG_COLUMNS
    return tagged(name, data.items, links_in_sequences(data, top), checked(folder / "tags.csv", tags), choice, data.report)


def load_1m(folder: Path, tags: Path, choice: Choice = Choice(), top: int = TOP, name: str = "ml-1m-tags", whole: bool = False) -> SearchData:
    """The films and ratings of 1M (of 2000 to 2003), and the tags that ``tags``, the folder of 10M, has for them (of 2005 to 2009).

    Both releases number films alike; tags are taken over where number and title agree. See ``load_latest_small`` for the rest, and
    ``movielens.load_1m`` for ``whole``.
    """
    data = movielens.load_1m(folder, text="title+genres", whole=whole)
    films, acts = read_10m(tags)
    same, report = same_films(name, data.items, films)
    return tagged(name, data.items, links_in_sequences(data, top), acts[acts[Columns.RAW].isin(same)], choice, data.report + report)


def load_10m(folder: Path, choice: Choice = Choice(), name: str = "ml-10m-tags") -> SearchData:
    """The films and tags of 10M alone, 95,580 acts of tagging on 7,601 of 10,681 films: queries without links."""
    films, acts = read_10m(folder)
    items = movielens.catalogue(films, "title+genres").reset_index(drop=True)
    report = Report((f"{name}: films and tags without ratings, so there are no links",))
    return tagged(name, items, csr_array((len(items), len(items)), dtype=np.float32), acts, choice, report)


def read_10m(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Films (``raw``, ``title``, ``genres``) and acts of tagging (``user``, ``raw``, ``tag``, ``time``) of ``movies.dat`` and ``tags.dat``."""
    folder = Path(folder)
    films = read_table(folder / "movies.dat", "::", [Columns.RAW, "title", "genres"], quoted=False)
    films["genres"] = films["genres"].replace("(no genres listed)", "")
    tags = checked(folder / "tags.dat", read_table(folder / "tags.dat", "::", TAG_COLUMNS, quoted=False))
    return films, tags


def checked(path: Path, tags: pd.DataFrame) -> pd.DataFrame:
    return tags.assign(
        **{
            Columns.USER: filled(path, tags[Columns.USER], "a user id"),
            Columns.RAW: filled(path, tags[Columns.RAW], "a film id"),
            Columns.TIME: numbers(path, tags[Columns.TIME], "seconds since 1970", 0, 1e11),
        }
    )


def same_films(name: str, items: pd.DataFrame, films: pd.DataFrame) -> tuple[set[str], Report]:
    """The numbers that mean one film in both tables: their titles share a word, also where spelling or year differ.

    Raises:
        DataError: too few of the common numbers have titles that agree.
    """
    both = items.merge(films, on=Columns.RAW)
    exact, near = [], []
    for one, other in zip(both["title_x"], both["title_y"], strict=True):
        one, other = titles.normalise(one), titles.normalise(other)
        exact.append(one == other)
        near.append(not set(one.split()).isdisjoint(other.split()))
    if not np.mean(exact or [0]) >= ALIKE:
        raise DataError(
            f"{name}: {len(both):,} film ids stand in both releases, but only {sum(exact):,} of them with one title; expected {ALIKE:.0%}:"
            f" the two number films in different ways (as 100K does), so tags can't be taken over"
        )
    note = f"{name}: {len(both):,} of {len(items):,} film ids are in the release with tags too, {sum(exact):,} with equal titles"
    return set(both[Columns.RAW][near]), Report((f"{note}; tags of {len(both) - sum(near):,} whose titles share no word were left out",))


def tagged(name: str, items: pd.DataFrame, links: csr_array, acts: pd.DataFrame, choice: Choice, report: Report) -> SearchData:
    """Texts, queries, relevance and the log from acts of tagging (``user``, ``raw``, ``tag``, ``time``).

    Raises:
        DataError: no tag is left.
    """
    code = pd.Index(items[Columns.RAW]).get_indexer(acts[Columns.RAW])
    text = np.array([titles.spelling(tag) for tag in acts["tag"]], object)
    worded = np.array([re.search(r"\w", tag) is not None for tag in text], bool)
    for count, what in (((code < 0).sum(), "acts of tagging of films that are not there"), ((~worded).sum(), "tags without a word")):
        if count:
            report += f"{name}: dropped {count:,} {what}"
    acts = acts[[Columns.USER, Columns.TIME]].assign(text=text, **{Columns.ITEM: code})[worded & (code >= 0)]

    tells = np.random.default_rng(choice.seed).permutation(len(items)) < round(choice.told * len(items))
    told, silent = (acts[part] for part in (tells[acts[Columns.ITEM]], ~tells[acts[Columns.ITEM]]))
    said = told.drop_duplicates([Columns.ITEM, "text"]).groupby(Columns.ITEM)["text"].agg(", ".join).reindex(range(len(items)), fill_value="")
    items = items.assign(**{Columns.TEXT: [joined(*parts) for parts in zip(items[Columns.TEXT], said, strict=True)]})

    tags = pd.DataFrame({"users": acts.groupby("text")[Columns.USER].nunique()})
    tags["silent"], tags["told"] = (part.groupby("text")[Columns.ITEM].nunique() for part in (silent, told))
    enough = (tags["users"] >= choice.users) & (tags["silent"] >= choice.at_least) & ((tags["told"] >= choice.at_least) | (choice.told == 0))
    asked = tags.index[enough]
    if asked.empty:
        raise DataError(
            f"{name}: none of {len(tags):,} tags stands on {choice.at_least} films of each part and comes from {choice.users} users; lower both"
        )
    silent = silent.assign(query=asked.get_indexer(silent["text"]))
    log = silent.loc[silent["query"] >= 0, ["query", Columns.ITEM, Columns.TIME, Columns.USER]]
    relevance = log.groupby(["query", Columns.ITEM])[Columns.USER].nunique().clip(upper=2).rename("grade").reset_index()
    log = log.drop(columns=Columns.USER).sort_values([Columns.TIME, "query", Columns.ITEM], kind="stable", ignore_index=True)
    queries = pd.DataFrame({"text": asked, "kind": kinds_by_words(items[Columns.TEXT], asked, relevance)})
    counts = ", ".join(f"{count:,} {kind}" for kind, count in queries["kind"].value_counts().items())
    report += f"{name}: {tells.sum():,} films tell their tags, {np.count_nonzero(said):,} of which have any (seed {choice.seed})"
    report += (
        f"{name}: {len(asked):,} of {len(tags):,} tags are asked, each on {choice.at_least} films or more of each part and of {choice.users} users or"
        f" more: {len(relevance):,} relevant pairs, {len(log):,} acts in the log; words could find their films: {counts}"
    )
    return SearchData(name, items, links, queries, relevance, log, labels_from_log=True, report=report)
