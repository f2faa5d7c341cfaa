"""The square losses of ``coordinate_descent`` on a graphics card: the same blocks of four coordinates, of all rows at once.

A pass over the positives is two products of a sparse matrix with a dense one, for L'/2 and for L''/2, so that rows whose vectors are free
take the very steps of the compiled form. Words that share texts are coupled. There they come one after another, which a card with
thousands of cores can't do; here conjugate gradients take the four coordinates of all words together close to their minimum. So sweeps of
ZSL_TE differ between the two forms, and where they end does not.

Shape legend: r rows, k other rows, p positives, B = 4 coordinates of a block.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zsrbook.models.coordinate_descent import _BLOCK, Factorisation, Vectors, _Links

#: of conjugate gradients over the words, a block; each costs two products with the texts
_STEPS = 10
#: whose products are taken at a time, so that memory does not grow with them
_POSITIVES = 1 << 22


class FactorisationOnGPU(Factorisation):
    """As ``Factorisation``, with the sweeps on a device of torch.

    Args:
        device: such as ``cuda``; ``cpu`` works too, more slowly than the compiled form.
        The others, and what they raise, as there.
    """

    def __init__(self, *arguments: Any, device: str | torch.device = "cuda", **more: Any):
        super().__init__(*arguments, **more)
        self.device = torch.device(device)
        self._v, self._all = self._there(self._items), self._there(self._x)
        self._parts = list(self._all.split([len(x) for x in self._of_task]))  # views
        self._words = [part if texts is None else self._there(own) for part, texts, own in zip(self._parts, self._texts, self._contexts, strict=True)]
        n = len(self._v)
        self._forth = _Pairs.of(self._links, len(self._all), self.device)
        self._back = [_Pairs.of(links, n, self.device) for links in self._backward]
        self._encoders = [
            None if texts is None else (_Pairs.of(texts, len(words), self.device), _Pairs.of(back, len(part), self.device))
            for texts, back, words, part in zip(self._texts, self._occurrences, self._words, self._parts, strict=True)
        ]

    @property
    def vectors(self) -> Vectors:
        """What is learned so far, copied to the CPU."""
        items, *contexts = (x[:, : self.width].cpu().numpy() for x in (self._v, *self._words))
        return Vectors(items, contexts)

    def sweep(self) -> None:
        """Sets four coordinates of all items at a time to their minimum given the others, then those of each task's contexts or words."""
        own = self.lam * torch.eye(self._v.shape[1], dtype=self._v.dtype, device=self.device)
        self._fit(self._forth, self._all, self._v, own, _of_rows)
        for x, back, encoder, words in zip(self._parts, self._back, self._encoders, self._words, strict=True):
            if encoder is None:
                self._fit(back, self._v, x, own, _of_rows)
            else:
                self._fit(back, self._v, x, 0 * own, self._of_words(*encoder, words))
                x[:] = encoder[0] @ words  # anew, so that rounding does not add up

    def objective(self) -> float:
        """L at the present vectors, over all pairs."""
        pairs, gram = self._forth, _gram(self._v)
        y = pairs.products(self._v, self._all).double()
        on_positives = (pairs.weights * (y - 1) ** 2 - self.omega * y**2).sum()
        squares = gram.trace() + sum(_gram(words).trace() for words in self._words)
        return float(on_positives + self.omega * (gram * _gram(self._all)).sum() + self.lam * squares)

    def _there(self, array: np.ndarray) -> Tensor:
        return torch.tensor(array, device=self.device)

    def _fit(self, pairs: _Pairs, other: Tensor, x: Tensor, own: Tensor, change: Callable[[slice, Tensor, Tensor], Tensor]) -> None:
        """Every block of x once, given ``other``: ``change`` says by how much, from its place, L'/2 (r, B) and L''/2 (r, B, B)."""
        everywhere = (self.omega * _gram(other)).to(x.dtype) + own
        w = pairs.weights - self.omega
        c = w * pairs.products(x, other) - pairs.weights
        slopes = x @ everywhere
        for first in range(0, x.shape[1], _BLOCK):
            block = slice(first, first + _BLOCK)
            near = other[:, block].contiguous()
            outer = (near[:, :, None] * near[:, None, :]).flatten(1)
            p = pairs.valued(c) @ near + slopes[:, block]
            h = (pairs.valued(w) @ outer).unflatten(1, (_BLOCK, _BLOCK)) + everywhere[block, block]
            step = change(block, p, h)
            x[:, block] += step
            slopes += step @ everywhere[block]
            c += w * pairs.products(step, near)

    def _of_words(self, texts: _Pairs, back: _Pairs, words: Tensor) -> Callable[[slice, Tensor, Tensor], Tensor]:
        """Conjugate gradients, each word preconditioned by its own second derivatives; the words move, and the change of their texts is returned."""
        squares = _Pairs(back.begins, back.others, back.rows, back.weights**2, back.width)
        lam = self.lam * torch.eye(_BLOCK, dtype=words.dtype, device=self.device)

        def change(block: slice, p: Tensor, h: Tensor) -> Tensor:
            own = (squares @ h.flatten(1)).unflatten(1, (_BLOCK, _BLOCK)) + lam
            moved = torch.zeros_like(words[:, block])
            left = -(back @ p) - self.lam * words[:, block]  # minus L'/2
            ahead = direction = _minimum(own, left)
            fall = (left * ahead).sum()
            for _ in range(_STEPS):
                bent = back @ (h @ (texts @ direction)[:, :, None])[:, :, 0] + self.lam * direction
                length = _over(fall, (direction * bent).sum())
                moved += length * direction
                left = left - length * bent
                ahead = _minimum(own, left)
                fall, before = (left * ahead).sum(), fall
                direction = ahead + _over(fall, before) * direction
            words[:, block] += moved
            return texts @ moved

        return change


class _Pairs(NamedTuple):
    """A sparse matrix by rows, on a device."""

    begins: Tensor  #: (r + 1,) where the non-zeros of a row begin
    others: Tensor  #: (p,) their columns
    rows: Tensor  #: (p,) their rows
    weights: Tensor  #: (p,) their values
    width: int  #: columns

    @classmethod
    def of(cls, links: _Links, width: int, device: torch.device) -> _Pairs:
        begins = torch.tensor(links.begins, device=device)
        others = torch.tensor(links.others.astype(np.int64), device=device)
        rows = torch.repeat_interleave(torch.arange(len(begins) - 1, device=device), begins.diff())
        return cls(begins, others, rows, torch.tensor(links.weights, device=device), width)

    def valued(self, values: Tensor) -> Tensor:
        """The matrix with other values."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            return torch.sparse_csr_tensor(self.begins, self.others, values, (len(self.begins) - 1, self.width), check_invariants=False)

    def __matmul__(self, dense: Tensor) -> Tensor:
        return self.valued(self.weights) @ dense.contiguous()

    def products(self, own: Tensor, other: Tensor) -> Tensor:
        """(p,) the inner product of the two rows of each non-zero."""
        parts = zip(self.rows.split(_POSITIVES), self.others.split(_POSITIVES), strict=True)
        return torch.cat([(own[rows] * other[others]).sum(1) for rows, others in parts])


def _over(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where there is nothing left to divide."""
    return torch.where(b > 0, a / b, torch.zeros_like(b))


def _gram(x: Tensor) -> Tensor:
    """(r, d) → (d, d) float64 xᵀx."""
    return x.double().T @ x.double()


def _of_rows(block: slice, p: Tensor, h: Tensor) -> Tensor:
    """The change of rows that are free."""
    return _minimum(h, -p)


def _minimum(h: Tensor, q: Tensor) -> Tensor:
    """(r, B, B), (r, B) → (r, B) s with h s = q, by elimination; a coordinate of which the others say all stays where it is."""
    h, s, inverse, curvature = h.clone(), q.clone(), torch.zeros_like(q), h.diagonal(dim1=1, dim2=2)
    for f in range(_BLOCK):
        pivot = h[:, f, f]
        inverse[:, f] = torch.where(pivot > 1e-5 * curvature[:, f], 1 / pivot, torch.zeros_like(pivot))
        for g in range(f + 1, _BLOCK):
            share = h[:, g, f] * inverse[:, f]
            h[:, g, f:] -= share[:, None] * h[:, f, f:]
            s[:, g] -= share * s[:, f]
    for f in reversed(range(_BLOCK)):
        s[:, f] = (s[:, f] - (h[:, f, f + 1 :] * s[:, f + 1 :]).sum(1)) * inverse[:, f]
    return s
