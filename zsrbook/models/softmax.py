"""Cross-entropy over a whole catalogue without ever holding positions × items scores.

The plain way keeps a (P, I) matrix of scores and one of its gradient: 4,096 positions on 238,000 items are 7.8 GB. Here a
few hundred positions at a time are scored, and their share of the gradient is taken at once, so the memory is that of the
two operands and one small block. Three matrix products a block, as many as the plain way.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: scores held at once: 32 million float32 are 128 MB. With 238,000 items that is 134 positions; with fewer at a time, most of the
#: time goes into reading and writing the gradient of the items
BLOCK = 32_000_000


class _FullSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, users: Tensor, items: Tensor, targets: Tensor, low: torch.dtype) -> Tensor:
        need = users.requires_grad or items.requires_grad
        operand, catalogue = users.detach().to(low), items.detach().to(low)
        grad_users = torch.empty_like(users) if need else None
        grad_items = torch.zeros(items.shape, dtype=torch.float32, device=items.device) if need else None
        loss = torch.zeros((), dtype=torch.float32, device=users.device)
        step = max(1, BLOCK // len(items))
        for begin in range(0, len(users), step):
            u, t = operand[begin : begin + step], targets[begin : begin + step, None]
            scores = (u @ catalogue.T).float()  # (step, I)
            chosen = scores.gather(1, t)
            top = scores.amax(dim=1, keepdim=True)
            scores.sub_(top).exp_()
            total = scores.sum(dim=1, keepdim=True)
            loss += (total.log() + top - chosen).sum()
            if need:
                scores.div_(total)  # now probabilities
                scores.scatter_add_(1, t, torch.full_like(chosen, -1.0))  # d loss / d scores
                slope = scores.to(low)
                grad_users[begin : begin + step] = (slope @ catalogue).to(users.dtype)
                if low == torch.float32:
                    grad_items.addmm_(slope.T, u)  # no (I, d) temporary a block
                else:
                    grad_items += slope.T @ u
        if need:
            ctx.save_for_backward(grad_users, grad_items.to(items.dtype))
        return loss

    @staticmethod
    def backward(ctx, upstream: Tensor):
        grad_users, grad_items = ctx.saved_tensors
        return grad_users * upstream, grad_items * upstream, None, None


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
