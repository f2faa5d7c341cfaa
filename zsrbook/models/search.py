"""Search that learns from no search: words meet items through texts and links (Wu et al. 2020, arXiv 2008.02930, sections 3 to 5).

Words get vectors w, items v. A query is the mean q of its words' vectors, and the items of the highest cosine with it are the answer.
All that is learned from is which item comes with which text and which neighbours, here under the square loss:

    STL       text of i → i
    ZSL_ME    text of i → i,  and neighbour j → i through a vector u_j of its own, for j in Ne(i)
    ZSL_TE    text of j → i, for j in Ne(i):  u_j = mean of the words of j (Eq. 2)

    L = Σ_S α (v_i · u_j - 1)² + ω₀ Σ_not-S (v_i · u_j)² + λ (|V|² + |W|² + |U|²)

with S the pairs that are there, each with a weight α = r_i c_j. Every pair that is not there counts too; ``coordinate_descent`` goes down L
in time linear in the pairs that are. ``search_softmax`` has the same three under cross-entropy, and what learns from a log.

How the paper is read where it can be read in several ways; each is a setting or can be undone in a line:

- STL and ZSL_ME were run "without combining" the text: each (item, word) is a pair by itself, so an item of 155 words has 155. Section 4.1
  has one pair an item, of it and the mean of its words; that is ``combined``. ZSL_TE knows the mean alone.
- M[q, p] = 1 says that p came after q, and L has p's text predict q. That is ``literal``; ``transposed`` predicts what comes after.
- r and c are in proportion to 1/√(pairs of the row or column), with mean 1 over those that have any; negatives keep the weight ω₀. Pairs
  of items and words are weighted by the same rule.
- ω₀ meets n or m negatives a row, so 0.001 says little in a small corpus: see ``omega_at_scale``.
- The best vector of an item without pairs is 0, and there it begins: a first draw would shrink over the sweeps, but a cosine sees no
  length. Under ZSL_TE that is an item without links, whatever its text, for v never meets its own text. ``fold_in`` gives it the vector
  that a query of its text would have: a departure, open to us because queries and items share one space.
- A neighbour without a known word has u = 0 under ZSL_TE; its pairs can teach nothing, and are left out.

Shape legend: n items, m words, d width.
"""

from __future__ import annotations

import copy
import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal, Self

import numpy as np
import pandas as pd
import torch
from rich.progress import track
from scipy.sparse import csr_array, diags_array, eye_array
from torch import Tensor

from zsrbook.audience import watched
from zsrbook.data.dataset import Columns
from zsrbook.data.search import SearchData, Vocabulary
from zsrbook.models.base import Recommender
from zsrbook.models.coordinate_descent import Factorisation, Task, Vectors, averaging, reweighted
from zsrbook.models.coordinate_descent_gpu import FactorisationOnGPU
from zsrbook.models.retriever import Retriever, Score, VectorRetriever
from zsrbook.training import check_words

Direction = Literal["literal", "transposed", "symmetric"]


@lru_cache(maxsize=4)  # the seeds of a row and the settings of a grid read the same texts, and reading them is a third of a small fit
def words_of(texts: tuple[str, ...], at_least: int, longest: int, stem: bool, stop: bool) -> tuple[Vocabulary, csr_array]:
    """The words of these texts, and which text holds which; not to be changed."""
    words = Vocabulary.of(texts, at_least, longest, stem, stop)
    return words, words.matrix(texts)


@dataclass(frozen=True)
class SearchSettings:
    """What every model of the chapter has to settle; ``DEC`` marks what the paper leaves open and the book decides.

    Raises:
        ValueError: an unknown word, or a number out of its range.
    """

    width: int = 200  #: d; paper
    at_least: int = 5  #: texts that must hold a word; DEC
    bigrams: bool = True  #: beside unigrams; paper
    stem: bool = False  #: English stems in place of words; DEC
    stop: bool = False  #: leave out the most common English words; DEC
    direction: Direction = "literal"  #: in which links predict; DEC
    reweight: bool = True  #: pairs of frequent rows and columns count less; paper
    fold_in: bool = False  #: items without pairs get the vector of their text; DEC
    score: Score = "cosine"  #: paper; "dot" for SMC

    def __post_init__(self) -> None:
        check_words(self, "search settings")
        if self.width < 1:
            raise ValueError(f"search settings: width is {self.width}; expected 1 or more")

    def vocabulary(self, texts: Sequence[str]) -> Vocabulary:
        """The words of these texts."""
        return self.words(texts)[0]

    def words(self, texts: Sequence[str]) -> tuple[Vocabulary, csr_array]:
        """The same, and a (texts, m) matrix of ones: which text holds which."""
        return words_of(tuple(texts), self.at_least, 2 if self.bigrams else 1, self.stem, self.stop)


@dataclass(frozen=True)
class SquareSettings(SearchSettings):
    """And what the square loss adds."""

    combined: bool = False  #: STL and ZSL_ME predict from the mean of an item's words (section 4.1), not from each (what was run)
    omega: float = 0.001  #: ω₀, the weight of a pair that is not there; paper
    lam: float = 4.0  #: λ; paper
    sweeps: int = 10  #: over all coordinates; paper
    seed: int = 0  #: of the first vectors, each number N(0, 0.1/√d); DEC

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.omega <= 1:
            raise ValueError(f"search settings: omega is {self.omega}; expected 0 to 1, the weight of a pair that is there")
        if self.lam < 0 or self.sweeps < 0:
            raise ValueError(f"search settings: lam is {self.lam} and sweeps {self.sweeps}; expected 0 or more of both")


def omega_at_scale(data: SearchData) -> float:
    """The ω₀ at which an item's negatives weigh against its links as in the paper: 0.001 · 17,714,821 to 176. At most 1.

    >>> from zsrbook.data.search import links_of
    >>> items, none = pd.DataFrame({"text": ["a"] * 4000}), pd.DataFrame({"query": [], "item": [], "text": []})
    >>> ring = links_of(np.arange(4000), (np.arange(4000) + 1) % 4000, 4000)
    >>> round(omega_at_scale(SearchData("ring", items, ring, none, none)), 4)
    0.0252
    """
    return min(1.0, 0.001 * 17_714_821 / 176 * data.links.nnz / data.n_items**2)


def oriented(links: csr_array, direction: Direction) -> csr_array:
    """(n, n) whose row i holds what predicts item i."""
    if direction == "literal":
        return links
    back = csr_array(links.T)
    return back if direction == "transposed" else csr_array(links.maximum(back))


class TextRetriever(VectorRetriever):
    """What square loss and cross-entropy share: a vocabulary, the items' names, and files.

    Attributes:
        contexts: (n, d) float32, the u of the paper; None for a model without.
        vocabulary: the words that a query may hold.
        raw: the source's names of the items, by which ``refresh`` finds them again.
    """

    settings: SearchSettings
    contexts: np.ndarray | None = None
    vocabulary: Vocabulary
    raw: list[str]
    save, load = Recommender.save, Recommender.load  # of ``state``, as every model of the book

    @property
    def score(self) -> Score:
        return self.settings.score

    def state(self) -> dict[str, Tensor]:
        """All that ``load`` needs to score again."""
        arrays = {"items": self.items} if self.contexts is None else {"items": self.items, "contexts": self.contexts}
        return {name: torch.as_tensor(array) for name, array in arrays.items()} | {"raw": _packed(self.raw), "terms": _packed(self.vocabulary.words)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of ``state``."""
        self.items = state["items"].numpy()
        self.contexts = state["contexts"].numpy() if "contexts" in state else None
        self.raw, terms = (json.loads(state[name].numpy().tobytes()) for name in ("raw", "terms"))
        longest = 1 + max(term.count(" ") for term in terms)
        vectorizer = Vocabulary.of(["0"], 1, longest, self.settings.stem, self.settings.stop).vectorizer  # for its way to cut texts
        vectorizer.vocabulary_ = {term: code for code, term in enumerate(terms)}
        self.vocabulary = Vocabulary(vectorizer, tuple(terms))


class SquareLoss(TextRetriever):
    """Goes down the square loss of its ``tasks``, the first of which is about words.

    Args:
        device: ``cpu`` for the compiled solver; else a device of torch, such as ``cuda``. No setting, since it does not say what is learned:
            STL and ZSL_ME take the same steps on both, and ZSL_TE and ``combined`` go another way to the same place.

    Attributes:
        words: (m, d) float32.
        history: L before the first sweep, and after each.
    """

    words: np.ndarray
    history: list[float]

    def __init__(self, settings: SquareSettings = SquareSettings(), device: str = "cpu"):
        self.settings, self.device = settings, device

    @abstractmethod
    def tasks(self, texts: csr_array, links: csr_array) -> list[Task]:
        """Of the (n, m) words in each text, and of (n, n) links in the chosen direction."""

    def neighbours(self, texts: csr_array, learned: list[np.ndarray]) -> np.ndarray | None:
        """(n, d) u, if the model has them, from the words in each text and what was learned beside the items, a task an entry."""
        return None

    def fit(self, data: SearchData) -> Self:
        return self._descend(data, self.settings.sweeps)

    def refresh(self, data: SearchData, sweeps: int = 3) -> Self:
        """Learn of newer data, where items, words and links have come and gone: what is known by name goes on from where it stands.

        So axes keep their meaning, and vectors of yesterday and today can be compared (section 5.4).
        """
        return self._descend(data, sweeps, copy.copy(self))

    def query_vectors(self, queries: Sequence[str]) -> np.ndarray:
        return self._means(self.vocabulary.matrix(queries))

    def state(self) -> dict[str, Tensor]:
        return super().state() | {"words": torch.as_tensor(self.words)}

    def restore(self, state: dict[str, Tensor]) -> None:
        super().restore(state)
        self.words = state["words"].numpy()

    def _means(self, texts: csr_array) -> np.ndarray:
        """(t, m) words of texts → (t, d) the means of their vectors (Eqs. 1 and 2); NaN for a text of none."""
        vectors = averaging(texts) @ self.words
        vectors[np.diff(texts.indptr) == 0] = np.nan
        return vectors

    def _alpha(self, pairs: csr_array) -> csr_array:
        return reweighted(pairs) if self.settings.reweight else pairs

    def _descend(self, data: SearchData, sweeps: int, old: Self | None = None) -> Self:
        settings, texts = self.settings, data.items[Columns.TEXT].tolist()
        self.raw = data.items[Columns.RAW].tolist()
        self.vocabulary, held = settings.words(texts)
        tasks = self.tasks(held, oriented(data.links, settings.direction))
        rng = np.random.default_rng(settings.seed)
        items, words, contexts = (
            rng.normal(0, 0.1 / np.sqrt(settings.width), (count, settings.width)).astype(np.float32)
            for count in (data.n_items, len(self.vocabulary), data.n_items)
        )
        if old is not None:
            carry(old.vocabulary.words, old.words, self.vocabulary.words, words)
            carry(old.raw, old.items, self.raw, items)
            if old.contexts is not None:
                carry(old.raw, old.contexts, self.raw, contexts)
        bare = sum(np.diff(task.positives.indptr) for task in tasks) == 0
        items[bare] = 0.0
        if len(tasks) > 1:
            contexts[np.bincount(tasks[1].positives.indices, minlength=data.n_items) == 0] = 0.0
        start = Vectors(items, [words, contexts][: len(tasks)])
        solver_on = Factorisation if self.device == "cpu" else partial(FactorisationOnGPU, device=self.device)
        solver = solver_on(tasks, settings.width, settings.omega, settings.lam, start=start)
        self.history = [solver.objective()]
        for _ in track(range(sweeps), f"{type(self).__name__} on {data.name}", disable=not watched(), transient=True):
            solver.sweep()
            self.history.append(solver.objective())
        self.items, learned = solver.vectors.items.copy(), [side.copy() for side in solver.vectors.contexts]
        self.words = learned[0]
        self.contexts = self.neighbours(held, learned)
        if settings.fold_in:
            self.items[bare] = np.nan_to_num(self._means(held[bare]))
        return self


class STL(SquareLoss):
    """Single task: texts alone (section 5, "STL")."""

    def tasks(self, texts: csr_array, links: csr_array) -> list[Task]:
        if not self.settings.combined:
            return [Task(self._alpha(texts))]
        own = csr_array(eye_array(texts.shape[0], dtype=np.float32, format="csr"))
        return [Task(self._alpha(told(own, texts)), averaging(texts))]


class ZSL_ME(STL):
    """Multi-task item encoder: texts, and neighbours with a vector of their own (section 4.1)."""

    def tasks(self, texts: csr_array, links: csr_array) -> list[Task]:
        return [*super().tasks(texts, links), Task(self._alpha(links))]

    def neighbours(self, texts: csr_array, learned: list[np.ndarray]) -> np.ndarray:
        return learned[1]


class ZSL_TE(SquareLoss):
    """Item-to-text transformed encoder: neighbours, each the mean of its words (section 4.2)."""

    def tasks(self, texts: csr_array, links: csr_array) -> list[Task]:
        return [Task(self._alpha(told(links, texts)), averaging(texts))]

    def neighbours(self, texts: csr_array, learned: list[np.ndarray]) -> np.ndarray:
        return np.nan_to_num(self._means(texts))


class Rescaled(VectorRetriever):
    """The directions of one model's item vectors with the lengths of another's, by inner product ("ZSL_TE(rescale)", section 5.3).

    Args:
        directions: such as ZSL_TE.
        lengths: such as SMC, whose lengths tell of popularity; of the same items.
    """

    score = "dot"

    def __init__(self, directions: VectorRetriever, lengths: VectorRetriever):
        self.directions, self.lengths = directions, lengths

    def fit(self, data: SearchData) -> Self:
        self.directions.fit(data)
        self.lengths.fit(data)
        return self

    @property
    def items(self) -> np.ndarray:
        own = np.linalg.norm(self.directions.items, axis=1, keepdims=True)
        return self.directions.items / np.where(own > 0, own, 1.0) * np.linalg.norm(self.lengths.items, axis=1, keepdims=True)

    def query_vectors(self, queries: Sequence[str]) -> np.ndarray:
        return self.directions.query_vectors(queries)


class Ensemble(Retriever):
    """The best of one list, then that list and another in turns, then what is left of the first (section 5.3); scores are minus positions.

    Turns begin with the other list; each skips what is listed already. Where one of the two can make nothing of a query, the other's list
    stands alone.

    Args:
        first: such as SMC.
        other: such as ZSL_TE.
        kept: positions that are the first's alone; paper.
        until: the last position that is filled in turns; paper.
    """

    def __init__(self, first: Retriever, other: Retriever, kept: int = 150, until: int = 300):
        if not 0 <= kept <= until:
            raise ValueError(f"Ensemble: kept is {kept} and until {until}; expected 0 <= kept <= until")
        self.first, self.other, self.kept, self.until = first, other, kept, until

    def fit(self, data: SearchData) -> Self:
        self.first.fit(data)
        self.other.fit(data)
        return self

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        first, other = self.first.scores(queries), self.other.scores(queries)
        silent = np.isnan(first).any(axis=1) & np.isnan(other).any(axis=1)
        first, other = (np.where(np.isnan(a).any(axis=1, keepdims=True), b, a) for a, b in ((first, other), (other, first)))
        return np.where(silent[:, None], np.float32(np.nan), -in_turns(first, other, self.kept, self.until).astype(np.float32))


def in_turns(first: np.ndarray, other: np.ndarray, kept: int, until: int) -> np.ndarray:
    """(Q, n) scores of two methods → (Q, n) positions from 1 in the list that ``Ensemble`` makes of them.

    >>> in_turns(np.array([[5, 4, 3, 2, 1]]), np.array([[1, 2, 3, 4, 5]]), 1, 4).tolist()
    [[1, 3, 5, 4, 2]]
    """
    own, others = (np.argsort(-scores, axis=1, kind="stable") for scores in (first, other))
    place = np.zeros(first.shape, np.int64)  # 0: not listed yet
    until = min(until, first.shape[1])
    np.put_along_axis(place, own[:, :kept], np.arange(1, min(kept, until) + 1)[None], axis=1)
    for position in range(min(kept, until) + 1, until + 1):
        heads = (others if (position - kept) % 2 == 1 else own)[:, :until]  # at most until - 1 of which are listed
        chosen = np.take_along_axis(heads, (np.take_along_axis(place, heads, axis=1) == 0).argmax(axis=1)[:, None], axis=1)
        np.put_along_axis(place, chosen, position, axis=1)
    left = np.take_along_axis(place, own, axis=1) == 0
    rest = np.where(left, until + left.cumsum(axis=1), np.take_along_axis(place, own, axis=1))
    np.put_along_axis(place, own, rest, axis=1)
    return place


def shuffled_links(data: SearchData, seed: int = 0) -> SearchData:
    """A control: the same graph between other items, so that links say nothing of texts any more. What is judged on stays as it was."""
    order = np.random.default_rng(seed).permutation(data.n_items)
    links = csr_array(data.links[order][:, order])
    links.sort_indices()
    return data.linked(links, f"{data.name}-shuffled-{seed}")


def rewired_links(data: SearchData, seed: int = 0, rounds: int = 100) -> SearchData:
    """A finer control: each item links to as many others as before, and as many link to it, but which ones is chance.

    So links still say which items are popular, and nothing else. Targets are dealt anew, and those that fall on the item itself or twice on
    one item are dealt again with as many others; the few that are left after all rounds are dropped. What is judged on stays as it was.
    """
    rng, n = np.random.default_rng(seed), data.n_items
    source, target = np.repeat(np.arange(n), np.diff(data.links.indptr)), rng.permutation(data.links.indices.astype(np.int64))
    for left in range(rounds, -1, -1):
        order = np.lexsort((target, source))
        twice = np.zeros(len(target), bool)
        twice[order[1:]] = (np.diff(source[order]) == 0) & (np.diff(target[order]) == 0)
        bad = np.flatnonzero(twice | (source == target))
        if not len(bad) or not left:
            break
        again = np.union1d(bad, rng.integers(len(target), size=len(bad)))
        target[again] = rng.permutation(target[again])
    keep = np.setdiff1d(np.arange(len(target)), bad)
    links = csr_array((np.ones(len(keep), np.float32), (source[keep], target[keep])), shape=(n, n))
    return data.linked(links, f"{data.name}-rewired-{seed}")


def told(pairs: csr_array, texts: csr_array) -> csr_array:
    """The pairs whose column is a text with a known word."""
    kept = csr_array(pairs @ diags_array((np.diff(texts.indptr) > 0).astype(np.float32)))
    kept.eliminate_zeros()
    return kept


def carry(old: Sequence[str], vectors: np.ndarray, new: Sequence[str], onto: np.ndarray) -> None:
    """Vectors of old names go to the rows where these names are now."""
    at = pd.Index(old).get_indexer(pd.Index(new))
    onto[at >= 0] = vectors[at[at >= 0]]


def _packed(names: Sequence[str]) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(list(names)).encode()), dtype=torch.uint8)
