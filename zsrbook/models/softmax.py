"""Cross-entropy over a whole catalogue without ever holding positions × items scores.

The plain way keeps a (P, I) matrix of scores and one of its gradient: 4,096 positions on 238,000 items are 7.8 GB. Here a
block of positions at a time is scored, and their share of the gradient is taken at once, so the memory is that of the
two operands and one small block. Three matrix products a block, as many as the plain way.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

#: items, the first of the targets, whose scores tell what to take off all scores of a row, so that their exponentials do not overflow
SOME = 1024


def bytes_at_once(device: torch.device) -> int:
    """How much memory a block of scores takes.

    128 MB: in float32 with 238,000 items that is 134 positions; with fewer at a time, most of the time goes into reading and writing the
    gradient of the items. A card is filled by large products alone, so there a sixteenth of its memory.
    """
    return torch.cuda.get_device_properties(device).total_memory // 16 if device.type == "cuda" else 128_000_000


class _FullSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, users: Tensor, items: Tensor, targets: Tensor, low: torch.dtype) -> Tensor:
        need = users.requires_grad or items.requires_grad
        step = max(1, bytes_at_once(users.device) // (low.itemsize * len(items)))
        given = users.detach(), items.detach(), targets, step, need
        loss, *gradients = _in_float32(*given) if low == torch.float32 else _in_low_precision(*given, low)
        if need:
            ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    def backward(ctx, upstream: Tensor):
        grad_users, grad_items = ctx.saved_tensors
        return grad_users * upstream, grad_items * upstream, None, None


def _in_float32(users: Tensor, items: Tensor, targets: Tensor, step: int, need: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss and, if need be, its gradients (P, d) and (I, d), ``step`` positions at a time."""
    grad_users, grad_items = (torch.empty_like(users), torch.zeros_like(items)) if need else (None, None)
    loss = torch.zeros((), device=items.device)
    for begin in range(0, len(users), step):
        u, t = users[begin : begin + step], targets[begin : begin + step, None]
        scores = u @ items.T  # (step, I)
        chosen = scores.gather(1, t)
        top = scores.amax(dim=1, keepdim=True)
        scores.sub_(top).exp_()
        total = scores.sum(dim=1, keepdim=True)
        loss += (total.log() + top - chosen).sum()
        if need:
            scores.div_(total)  # now probabilities
            scores.scatter_add_(1, t, torch.full_like(chosen, -1.0))  # d loss / d scores
            grad_users[begin : begin + step] = scores @ items
            grad_items.addmm_(scores.T, u)  # no (I, d) temporary a block
    return loss, grad_users, grad_items


def _in_low_precision(
    users: Tensor, items: Tensor, targets: Tensor, step: int, need: bool, low: torch.dtype
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """As ``_in_float32``, with products so fast that each pass over the scores costs as much as one of them; so there is one pass, for exp.

    - A row's scores are taken relative to its largest among some items, in the product itself: a column of the users holds what is taken
      off, where the items have ones. Only where another score is larger by so much that sums come near to overflow, two more passes follow.
    - The same ones make the sum of the exponentials a column of the next product, and the vectors are divided by it in place of the scores.
    - What a target takes away is taken from the gradients alone.
    - Columns of zeros fill the vectors up to a multiple of eight numbers, without which a card multiplies at a third of its rate.
    """
    width = items.shape[1]
    catalogue = F.pad(F.pad(items.to(low), (0, 1), value=1.0), (0, -(width + 1) % 8))  # (I, d'): vector, 1, zeros
    queries = F.pad(users.to(low), (0, catalogue.shape[1] - width))  # (P, d'): vector, what is taken off, zeros
    queries[:, width] = -(queries @ catalogue[targets[:SOME]].T).amax(dim=1)
    grad_users, grad_items = (torch.empty_like(users), torch.zeros_like(catalogue, dtype=torch.float32)) if need else (None, None)
    loss = torch.zeros((), device=items.device)
    for begin in range(0, len(users), step):
        u, t = queries[begin : begin + step], targets[begin : begin + step]
        weights = (u @ catalogue.T).exp_()  # (step, I)
        sums = (weights @ catalogue).float()  # (step, d')
        top = 0.0
        if not (sums.abs() < 1e30).all():  # nor is it if one is NaN
            weights = u @ catalogue.T
            top = weights.amax(dim=1, keepdim=True)
            sums = (weights.sub_(top).exp_() @ catalogue).float()
        total = sums[:, width : width + 1]
        chosen = (u.float() * catalogue[t].float()).sum(dim=1, keepdim=True)
        loss += (total.log() + top - chosen).sum()
        if need:
            grad_users[begin : begin + step] = sums[:, :width] / total - items[t]
            grad_items += weights.T @ (u / total).to(low)
    return loss, grad_users, grad_items[:, :width].index_add(0, targets, users, alpha=-1.0) if need else None


def full_softmax_loss(users: Tensor, items: Tensor, targets: Tensor) -> Tensor:
    """Sum over positions of -log softmax(users @ items.T)[target] (ZESRec Eq. 2, with the sign of a loss).

    Under autocast the matrix products run in its lower precision; sums and exponentials stay in float32.

    Args:
        users: (P, d).
        items: (I, d).
        targets: (P,) int64 rows of ``items``.
    """
    device = users.device.type
    low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
    return _FullSoftmax.apply(users.float(), items.float(), targets, low)


def sampled_softmax_loss(users: Tensor, items: Tensor, targets: Tensor, negatives: Tensor, log_expected: Tensor) -> Tensor:
    """As ``full_softmax_loss``, with the sum over the catalogue estimated from a shared sample (log-Q correction).

    Each negative stands for ``1 / expected`` items, so the estimated sum is right on average; a negative that happens to be
    a position's own target does not count against it.

    Args:
        users: (P, d).
        items: (I', d) vectors of the items at hand.
        targets: (P,) rows of ``items``.
        negatives: (n,) rows of ``items``, drawn with replacement.
        log_expected: (n,) log of how often each negative was expected in the sample: log(n q).
    """
    chosen = (users * items[targets]).sum(-1, keepdim=True).float()  # (P, 1)
    others = (users @ items[negatives].T).float() - log_expected  # (P, n)
    others = others.masked_fill(targets[:, None] == negatives[None, :], -torch.inf)
    return (torch.logsumexp(torch.cat([chosen, others], dim=1), dim=1) - chosen.squeeze(1)).sum()
