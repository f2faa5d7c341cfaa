"""User networks shared by the chapters: what a user did so far, step by step, into one vector a step.

All of them are causal: the output at step k depends on the inputs 0 … k alone. Histories are padded on the right, so the
padding comes after everything that counts and changes nothing.

Shape legend: B users in the batch, L longest history in it, d width of item and user vectors.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from zsrbook.data.dataset import Sequences

#: edges of the gap buckets of HRNN, in seconds: a minute, ten, an hour, six, a day, a week, a month, a year
GAP_EDGES = (60.0, 600.0, 3600.0, 21600.0, 86400.0, 604800.0, 2592000.0, 31536000.0)
#: histories that ``GRU.read`` takes through a step together: enough to fill a product, few enough to stay in cache
_TOGETHER = 1024


def states_of(cells: nn.GRU, inputs: Tensor) -> Tensor:
    """(B, n, inputs) → (B, n, d): the state after each step; on a card in float32, whatever autocast asks for.

    There PyTorch's autocast runs recurrent cells in float16, also where it was told bfloat16 (AutocastRNN.cpp), and in float16 the
    gradient of a loss that is summed over thousands of targets overflows.
    """
    if not inputs.is_cuda:
        return cells(inputs)[0]
    with torch.autocast(inputs.device.type, enabled=False):
        return cells(inputs.float())[0]


class GRU(nn.Module):
    """GRU4Rec's recurrent network over a whole history, trained through time (Hidasi et al. 2016; ZESRec Eq. 5).

    GRU4Rec proper trains on parallel sessions one step at a time and cuts the gradient between steps. Histories here are
    long, so the gradient runs through all of a history instead.
    """

    def __init__(self, width: int, dropout: float, layers: int = 1):
        super().__init__()
        self.cells = nn.GRU(width, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)

    def forward(self, steps: Tensor, times: Tensor | None) -> Tensor:
        """(B, L + 1, d) start vector and item vectors, (B, L) times unused → (B, L + 1, d) user vectors."""
        return self.dropout(states_of(self.cells, self.dropout(steps)))

    @torch.no_grad()
    def read(self, start: Tensor, items: Tensor, sequences: Sequences) -> Tensor:
        """The user vectors of many histories, as ``forward`` gives them without dropout, on CPUs in a third to half of the time.

        What an item adds to the gates is worked out once an item, not once a time that it was taken; and all histories take a step
        together, longest first, so that those that have ended cost nothing. One layer.

        Args:
            start: (d,) the vector before every history.
            items: (I, d) item vectors.

        Returns:
            (N + U, d) in the layout of ``VectorRecommender.user_vectors``.
        """
        ((of_inputs, of_states, bias, state_bias),) = self.cells.all_weights  # rows: reset gate, update gate, candidate
        d, (used, local) = len(start), np.unique(sequences.items, return_inverse=True)
        # the reset gate scales what comes from the state, so of the candidate alone the state's bias can't be added here
        bias = bias + torch.cat([state_bias[: 2 * d], torch.zeros_like(state_bias[2 * d :])])
        gates = torch.addmm(bias, torch.cat([start[None], items[torch.as_tensor(used)]]), of_inputs.T)  # (1 + items that occur, 3 d)
        first = sequences.starts[:-1] + np.arange(len(sequences))  # where each history's first vector goes
        inputs = np.zeros(len(sequences.items) + len(sequences), np.int64)
        inputs[np.arange(len(sequences.items)) + sequences.rows + 1] = 1 + local
        out = torch.empty(len(inputs), d)
        order = np.argsort(-sequences.lengths, kind="stable")
        for begin in range(0, len(order), _TOGETHER):
            rows = order[begin : begin + _TOGETHER]
            steps = sequences.lengths[rows] + 1
            alive = np.searchsorted(-steps, -np.arange(steps[0]), side="left")  # histories that have a step 0, 1, …
            place = np.concatenate([first[rows[:n]] + k for k, n in enumerate(alive)])
            states, state = torch.empty(len(place), d), torch.zeros(len(rows), d)
            takes = torch.as_tensor(inputs[place]).split(alive.tolist())
            for n, take, new in zip(alive, takes, states.split(alive.tolist()), strict=True):
                own, old = gates[take], state[:n] @ of_states.T
                reset, update = own[:, : 2 * d].add_(old[:, : 2 * d]).sigmoid_().chunk(2, dim=1)
                candidate = own[:, 2 * d :].addcmul_(reset, old[:, 2 * d :].add_(state_bias[2 * d :])).tanh_()
                state = torch.lerp(candidate, state[:n], update, out=new)
            out[torch.as_tensor(place)] = states
        return out


class TCN(nn.Module):
    """Temporal convolutional network: dilated causal convolutions with residuals (Bai et al. 2018).

    With kernel k and n levels of two convolutions each, a step sees the last 1 + 2 (k - 1) (2^n - 1) inputs: 61 by default.
    """

    def __init__(self, width: int, dropout: float, levels: int = 4, kernel: int = 3):
        super().__init__()
        self.blocks = nn.ModuleList(CausalBlock(width, kernel, 2**level, dropout) for level in range(levels))
        self.dropout = nn.Dropout(dropout)

    def forward(self, steps: Tensor, times: Tensor | None) -> Tensor:
        """(B, L + 1, d) start vector and item vectors, (B, L) times unused → (B, L + 1, d) user vectors."""
        x = self.dropout(steps).transpose(1, 2)  # (B, d, L + 1)
        for block in self.blocks:
            x = block(x)
        return x.transpose(1, 2)


class CausalBlock(nn.Module):
    """Twice (weight-normalised convolution padded on the left, ReLU, dropout), then the residual and a last ReLU."""

    def __init__(self, width: int, kernel: int, dilation: int, dropout: float):
        super().__init__()
        self.pad = (kernel - 1) * dilation
        self.convolutions = nn.ModuleList(nn.Conv1d(width, width, kernel, dilation=dilation) for _ in range(2))
        for convolution in self.convolutions:
            nn.init.normal_(convolution.weight, 0.0, 0.01)
            weight_norm(convolution)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, d, L + 1) → (B, d, L + 1)."""
        out = x
        for convolution in self.convolutions:
            out = self.dropout(F.relu(convolution(F.pad(out, (self.pad, 0)))))
        return F.relu(out + x)


class HRNN(nn.Module):
    """A GRU that is told about sessions through its inputs: an **approximation** of HRNN (Ma et al. 2020).

    The text of that paper could not be had. What is public says that session context enters a flat RNN as input, in place
    of the second level of Quadrana et al. 2017. So each step gets, beside the item vector, c numbers of context: one vector for the
    time since the step before (log-spaced buckets), one if it opens a session, and a linear summary of the session before,
    which is the state that a first pass without summaries reached at that session's end (no gradient flows into it).
    Beside the item vector and not added to it: at a rate of 0.1 the context grows in a few steps to several times the length of
    an item vector, and drowns it. ``session_gap``: seconds of pause that end a session; None: nothing does.
    """

    def __init__(self, width: int, dropout: float, context: int = 16, session_gap: float | None = 86400.0):
        super().__init__()
        self.session_gap = session_gap
        self.gap = nn.Embedding(len(GAP_EDGES) + 1, context)
        nn.init.uniform_(self.gap.weight, -0.1, 0.1)
        self.opens = nn.Parameter(torch.zeros(context))
        self.summary = nn.Linear(width, context, bias=False)
        self.cells = nn.GRU(width + context, width, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("edges", torch.tensor(GAP_EDGES, dtype=torch.float64), persistent=False)

    def forward(self, steps: Tensor, times: Tensor | None) -> Tensor:
        """(B, L + 1, d) start vector and item vectors, (B, L) times in seconds or None → (B, L + 1, d) user vectors."""
        context = steps.new_zeros(*steps.shape[:2], len(self.opens))  # (B, L + 1, c); the start vector has none
        if times is not None and times.shape[1] > 0:
            gaps = torch.diff(times, dim=1, prepend=times[:, :1])  # (B, L), 0 for the first item
            opens = gaps > (torch.inf if self.session_gap is None else self.session_gap)
            context = F.pad(self.gap(torch.bucketize(gaps, self.edges)) + opens.unsqueeze(-1) * self.opens, (0, 0, 1, 0))
            with torch.no_grad():
                states = states_of(self.cells, torch.cat([steps, context], dim=2))  # (B, L + 1, d); states[:, k] has read k items
            # a session's summary is the state before its first item; before the first session there is none
            at = torch.arange(times.shape[1], device=times.device).expand_as(opens)
            opened = torch.where(opens, at, -1).cummax(dim=1).values  # (B, L) index of the item that opened the session
            previous = states.gather(1, opened.clamp(min=0).unsqueeze(-1).expand(-1, -1, states.shape[-1]))
            previous = previous * (opened >= 0).unsqueeze(-1)
            context = context + F.pad(self.summary(previous), (0, 0, 1, 0))
        return self.dropout(states_of(self.cells, torch.cat([self.dropout(steps), context], dim=2)))


USER_NETWORKS = {"gru": GRU, "tcn": TCN, "hrnn": HRNN}
