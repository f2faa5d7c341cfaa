"""What every recommender of the book can do.

A recommender is fitted on one data set and scores that data set's items. If it is ``zero_shot``, ``transfer`` gives a copy
that scores the items of another data set. Of that it reads what the model says it reads (item vectors, or what was taken when), and trains nothing.
"""

from __future__ import annotations

import copy
import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from zsrbook.data.dataset import DataError, Dataset, Sequences, check_codes
from zsrbook.data.splits import Fold

#: scores held at once while ranking: 16 million float32 are 64 MB
SCORES_AT_ONCE = 16_000_000


class Scorer(ABC):
    """What scores, and can be kept in a file.

    Its ``scores`` look at the codes first: one beyond the catalogue would be ignored by one model and read past the end by another, and
    user -1 would be answered as the last one.
    """

    def __init_subclass__(cls, **more) -> None:
        super().__init_subclass__(**more)
        if scores := cls.__dict__.get("scores"):

            @functools.wraps(scores)
            def checked(self: Scorer, asked: Any) -> Any:
                self.check(asked)
                return scores(self, asked)

            cls.scores = checked

    @abstractmethod
    def check(self, asked: Any) -> None:
        """Stop before ``scores`` where it is asked for what this model doesn't have.

        Raises:
            DataError: a code of nothing; which, and where.
        """

    def state(self) -> dict[str, Tensor]:
        """All that ``load`` needs to score again."""
        raise NotImplementedError

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of ``state``."""
        raise NotImplementedError

    def save(self, path: Path, about: Mapping[str, str] | None = None) -> None:
        """Write the state as safetensors; ``about`` becomes the metadata of the file."""
        save_file({k: v.detach().cpu().contiguous() for k, v in self.state().items()}, path, about)

    def load(self, path: Path) -> Self:
        """Read what ``save`` wrote into a model made with the same settings.

        Raises:
            DataError: the file was cut short, or holds something else.
        """
        try:
            self.restore(load_file(path))
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise DataError(f"{path}: cut short, or not what {type(self).__name__} saves under these settings ({error}); save it again") from None
        return self


class Recommender(Scorer):
    """Scores every item of a catalogue for every history; a higher score means a better guess at the next item.

    Subclasses set ``n_items`` in ``fit``. Their ``scores`` is asked only for histories whose codes the catalogue has.
    """

    zero_shot: ClassVar[bool] = False
    n_items: int

    def check(self, histories: Sequences) -> None:
        check_codes(f"{type(self).__name__}: histories", "item", histories.items, self.n_items)

    @abstractmethod
    def fit(self, data: Dataset, valid: Fold | None = None) -> Self:
        """Learn from ``data``; ``valid`` serves early stopping alone."""

    @abstractmethod
    def scores(self, histories: Sequences) -> Tensor:
        """(U, n_items) float32: one row a history, which may be empty.

        Raises:
            DataError: a history holds the code of no item of this catalogue.
        """

    def prefix_scores(self, sequences: Sequences, at: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
        """For each flat index in ``at``, the scores given what stands before it; in chunks of (indices, (n, n_items)), in any order."""
        for chunk in in_chunks(at, self.n_items):
            yield chunk, self.scores(sequences.prefixes(chunk))

    def transfer(self, target: Dataset) -> Self:
        """A copy that scores the items of ``target`` and has trained nothing on it.

        Raises:
            DataError: the model knows items by their ids only.
        """
        if not self.zero_shot:
            raise DataError(f"{type(self).__name__} knows items by their ids, so it can't score the items of {target.name}; fit it there")
        moved = copy.copy(self)
        moved.bind(target)
        return moved

    def bind(self, target: Dataset) -> None:
        """Take over the catalogue of ``target``; models that keep more of it than its size override this."""
        self.n_items = target.n_items


class Wrapper(Recommender):
    """Another recommender, asked or answered otherwise; subclasses say how in ``scores``."""

    def __init__(self, inner: Recommender):
        self.inner = inner

    @property
    def zero_shot(self) -> bool:
        return self.inner.zero_shot

    @property
    def n_items(self) -> int:
        return self.inner.n_items

    def fit(self, data: Dataset, valid: Fold | None = None) -> Self:
        self.inner.fit(data, valid)
        return self

    def bind(self, target: Dataset) -> None:
        self.inner = self.inner.transfer(target)

    def state(self) -> dict[str, Tensor]:
        return self.inner.state()

    def restore(self, state: dict[str, Tensor]) -> None:
        self.inner.restore(state)


class VectorRecommender(Recommender):
    """Score = inner product of a user vector and an item vector, so all positions of a user cost one pass."""

    @abstractmethod
    def item_vectors(self) -> Tensor:
        """(n_items, d) float32."""

    @abstractmethod
    def user_vectors(self, sequences: Sequences) -> Tensor:
        """(N + U, d) float32: for each user a vector before the first item, after the first, … after the last.

        The vector before ``items[i]`` of user row ``r`` stands at ``i + r``; the one after all of its items at ``starts[r + 1] + r``.
        """

    def scores(self, histories: Sequences) -> Tensor:
        last = torch.as_tensor(histories.starts[1:] + np.arange(len(histories)))
        return self.user_vectors(histories)[last] @ self.item_vectors().T

    def prefix_scores(self, sequences: Sequences, at: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
        vectors, items = self.user_vectors(sequences), self.item_vectors()
        rows = np.searchsorted(sequences.starts, at, side="right") - 1
        for chunk, row in zip(in_chunks(at, self.n_items), in_chunks(rows, self.n_items), strict=True):
            yield chunk, vectors[torch.as_tensor(chunk + row)] @ items.T


def in_chunks(indices: np.ndarray, n_items: int) -> Iterator[np.ndarray]:
    """Pieces so small that one row of scores for each index stays within ``SCORES_AT_ONCE``."""
    step = max(1, SCORES_AT_ONCE // max(1, n_items))
    for begin in range(0, len(indices), step):
        yield indices[begin : begin + step]


def check_targets(valid: Fold | None) -> None:
    """Stop where there is a validation fold that can't stop a training early.

    Raises:
        DataError: it has no targets.
    """
    if valid is not None and not valid.targets.any():
        raise DataError(f"{valid.data.name}: the validation fold has no targets, so nothing can stop the training early; fit without it")


def run_of(settings: Any, data: Dataset, valid: Fold | None = None, features: Tensor | None = None) -> dict[str, Any]:
    """What makes the training of a recommender what it is (see ``training.train``): a checkpoint of any other is of no use to it.

    Args:
        settings: a dataclass.
        valid, features: what the training reads beside the interactions; None: it reads none.
    """
    more = {"item vectors": None if features is None else sha256_of(features.numpy()), "validation": None if valid is None else valid.sha256()}
    return asdict(settings) | {"data": data.sha256()} | more


def sha256_of(numbers: np.ndarray) -> str:
    """A hash of numbers, piece by piece on all processors: a gigabyte takes a second or two on one of them.

    >>> sha256_of(np.zeros((2, 3))) == sha256_of(np.zeros((3, 2)))
    False
    """
    memory = np.ascontiguousarray(numbers).reshape(-1).view(np.uint8)
    pieces = np.split(memory, range(1 << 24, len(memory), 1 << 24))
    with ThreadPoolExecutor() as threads:
        digests = list(threads.map(lambda piece: hashlib.sha256(piece).digest(), pieces))
    return hashlib.sha256(f"{numbers.dtype} {numbers.shape}".encode() + b"".join(digests)).hexdigest()


def features_of(data: Dataset, model: str, width: int | None = None) -> Tensor:
    """(items, d) the item vectors of ``data``; ``width`` is the d that the model was fitted on, if it was.

    Raises:
        DataError: there are none, or they are of another width.
    """
    if data.features is None:
        raise DataError(f"{model} knows items by their vectors, and {data.name} has none; call data.with_features(encoder.encode(texts)) first")
    found = data.features.shape[1]
    if width is not None and found != width:
        raise DataError(f"{data.name}: item vectors of width {found}, but {model} was fitted on {width}; use the same encoder")
    return torch.as_tensor(data.features, dtype=torch.float32)
