"""MAIL: a made-up behaviour for users who have none, learned from users who have one (Feng et al. 2021, arXiv 2108.13592v1).

The zero-shot tower turns attributes into behaviour, and fills new users' gap in front of any ranking tower. On old users it learns two
autoencoders whose codes must be interchangeable, for a new user has only one of the two:

    p = E1(h^a),  q = E2(h^v)                    codes of the attributes and of the behaviour (Eqs. 1, 2, 15)
    L_a = |D1(p) - a|² + |D2(p) - v|²            the attributes' code must give both back (Eqs. 3, 16)
    L_v = |D1(q) - a|² + |D2(q) - v|²            and so must the behaviour's, through the same decoders (Eq. 4)
    L_d = MMD(P, Q)                              and over a batch the two kinds of codes must look alike (Eqs. 5, 6)
    v̂ = D2(E1(h^a))                              for a new user (Eq. 8)

How the paper is read where it can be read in several ways; each is a setting or can be undone in a line:

- Squared errors are summed over numbers and averaged over rows; nothing has a weight (Eq. 7), so a long behaviour weighs the most.
- Eq. 5 as printed divides the first two sums by n and the third by n²; its own first line says n² for all three, and so do we. As printed
  it starts near 2n, and what pays is to push the codes of one kind apart, each from each.
- σ = 1 is a length, and nothing keeps codes at one. Where they are long beside it, every kernel value of different codes is 0 and L_d
  rests at 2/n, with next to no slope. Where they are short, every value is near 1 and L_d is about the squared distance of the two mean
  codes: it pulls these together and sees hardly anything else. ``notes["kernel"]`` tells which it is.
- Short behaviours are padded with zeros, and the zeros are part of what is to be given back. A tower that can't tell how long a behaviour is
  then shrinks each row by the chance that there is one, so that the sum over rows is a sum over behaviours as long as usual. Without
  padding each row has the size of a real one, and the sum that of a behaviour of full length.
- A made-up behaviour is drawn with dropout off, and by weights that this batch has not moved yet (in Algorithm 1, that it just has).
- The two optimisers of the paper share no weight, and Adam moves each weight by itself: one Adam for both at one rate is the same.

The cost at the paper's sizes (d 32, 9 attributes, 100 behaviours), in millions of multiply-adds an impression: attention 0.5, an encoder
0.9, D1 1.8, D2 6.2, of which its last layer, 1536 × 3200, is 4.9. An old user asks for both encoders and for both decoders twice, 18.1,
and for the kernels, 3n · 512 = 0.9 with n = 614 old rows a batch; three times that with the backward pass. A new user asks for
attention, one encoder and D2, 7.1. BaseDNN asks for 0.2, so that the zero-shot tower is nearly all the cost: 38 on average in training,
60 % of the users being old. Both codes go through a decoder in one product, of 2n rows.

Shape legend: n rows, L behaviours (``Space.longest``), n_a attributes, d width, d_r of attention, d_h of codes.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zsrbook.models.ranking import Embedded, Filler, Space, dropout
from zsrbook.training import check_words

Form = Literal["none", "single", "dual", "mail"]
Alignment = Literal["mmd", "printed", "unbiased", "paired"]
Bandwidth = Literal["one", "median", "several"]


@dataclass(frozen=True)
class MAILSettings:
    """One line a choice; ``DEC`` marks what the paper leaves open and the book decides.

    Raises:
        ValueError: an unknown word, or a tower that nothing would teach.
    """

    form: Form = "mail"  #: row of Table 3: a linear map taught by the ranking loss; Eq. 3 alone; Eqs. 3 and 4; Eq. 7
    alignment: Alignment = "mmd"  #: L_d: sums over n²; as printed; the U-statistic; distance of a user's own two codes (authors' code); DEC
    bandwidth: Bandwidth = "one"  #: σ of Eq. 6: 1; the median distance; five about it; paper
    attention: int = 128  #: d_r; authors' code
    encoder: tuple[int, int, int] = (1024, 512, 512)  #: the last is d_h; paper
    decoder: tuple[int, int] = (512, 1024)  #: before the layer as wide as the target; paper
    dropout: float = 0.5  #: before all dense layers but the last; paper
    slope: float = 0.2  #: of leaky ReLU below 0; authors' code
    padding: bool = True  #: the zeros behind a short behaviour are to be given back as well; DEC
    joint: bool = False  #: the ranking loss flows through made-up behaviours into this tower; DEC
    fill_training: bool = True  #: new users are filled while training too; paper (the authors' code fills at inference alone)

    def __post_init__(self) -> None:
        check_words(self, "MAIL settings")
        if self.form == "none" and not self.fill_training:
            raise ValueError("MAIL settings: the linear map of form 'none' learns from filled training rows alone; set fill_training=True")


class Attention(nn.Module):
    """Sums rows by weights that they give themselves (Eqs. 1 and 2)."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.dense = nn.Linear(width, inner)  # w and b
        self.out = nn.Linear(inner, 1, bias=False)  # z

    def forward(self, rows: Tensor, mask: Tensor | None = None) -> Tensor:
        """(n, L, d) → (n, d); rows outside the mask get no weight."""
        e = self.out(self.dense(rows).tanh()).squeeze(2)  # (n, L)
        if mask is not None:
            e = e.masked_fill(~mask, torch.finfo(e.dtype).min)
        return (e.softmax(1).unsqueeze(1) @ rows).squeeze(1)


class Residual(nn.Module):
    """Three dense layers; the later two read the input once more (Eqs. 15 and 16)."""

    def __init__(self, inputs: int, sizes: tuple[int, int, int], slope: float):
        super().__init__()
        first, second, last = sizes
        self.layers = nn.ModuleList([nn.Linear(inputs, first), nn.Linear(first + inputs, second), nn.Linear(second + inputs, last)])
        self.slope = slope

    def forward(self, h: Tensor, rate: float) -> Tensor:
        """(…, inputs) → (…, last), linear."""
        z = F.leaky_relu(self.layers[0](dropout(h, rate)), self.slope)
        z = F.leaky_relu(self.layers[1](dropout(torch.cat([z, h], -1), rate)), self.slope)
        return self.layers[2](torch.cat([z, h], -1))


class MAIL(Filler):
    """The zero-shot tower, as ``filler`` of a ``RankingModel``: ``RankingModel(BaseDNN, filler=MAIL)`` is MAIL-Base.

    For figures, under ``torch.no_grad()``: ``x = network.fields(batch)``, then ``network.filler.generated(x)``, ``.p(x)`` and ``.q(x)``.
    """

    def __init__(self, space: Space, settings: MAILSettings = MAILSettings()):
        super().__init__()
        self.settings = settings
        self.shape = (space.longest, space.width)
        attributes, behaviour, code = len(space.layout.user) * space.width, space.longest * space.width, settings.encoder[-1]
        if settings.form == "none":
            self.map = nn.Linear(attributes, behaviour)
        else:
            self.attend_a = Attention(space.width, settings.attention)
            self.encode_a = Residual(space.width, settings.encoder, settings.slope)  # E1
            self.decode_a = Residual(code, (*settings.decoder, attributes), settings.slope)  # D1
            self.decode_v = Residual(code, (*settings.decoder, behaviour), settings.slope)  # D2
        if settings.form in ("dual", "mail"):
            self.attend_v = Attention(space.width, settings.attention)
            self.encode_v = Residual(space.width, settings.encoder, settings.slope)  # E2
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def p(self, x: Embedded, rate: float = 0.0) -> Tensor:
        """(n, d_h) codes of the attributes."""
        return F.leaky_relu(self.encode_a(self.attend_a(x.a), rate), self.settings.slope)

    def q(self, x: Embedded, rate: float = 0.0) -> Tensor:
        """(n, d_h) codes of the behaviour."""
        return F.leaky_relu(self.encode_v(self.attend_v(x.v, x.mask), rate), self.settings.slope)

    def generated(self, x: Embedded) -> Tensor:
        """(n, L, d) a behaviour made from the attributes alone (Eq. 8), dropout off."""
        flat = self.map(x.a.flatten(1)) if self.settings.form == "none" else self.decode_v(self.p(x), rate=0.0)
        return flat.unflatten(1, self.shape)

    def losses(self, x: Embedded) -> dict[str, Tensor]:
        """L_a, L_v and L_d, as far as the form has them: ``attributes``, ``behaviour``, ``alignment``; 0 each where there are no rows."""
        settings = self.settings
        if settings.form == "none":
            return {}
        rate, n = settings.dropout if self.training else 0.0, len(x.a)
        x = x._replace(**{part: in_blocks(getattr(x, part)) for part in ("a", "v", "mask")})  # m rows
        codes = torch.stack([encode(x, rate) for encode in ((self.p,) if settings.form == "single" else (self.p, self.q))])  # (2, m, d_h)
        x = self._padded(x)
        wrong_a = self.decode_a(codes, rate) - x.a.flatten(1)  # (2, m, n_a d)
        wrong_v = (self.decode_v(codes, rate) - x.v.flatten(1)).unflatten(2, self.shape)  # (2, m, L, d)
        if not settings.padding:
            wrong_v = wrong_v * x.mask.unsqueeze(2)
        errors = (wrong_a.square().sum(2) + wrong_v.square().sum((2, 3)))[:, :n].sum(1) / max(1, n)  # (2,)
        losses = dict(zip(("attributes", "behaviour"), errors, strict=False))
        if settings.form == "mail":
            losses["alignment"] = self._alignment(codes[:, :n])
        return losses

    def fill(self, x: Embedded, new: Tensor) -> Embedded:
        """New users get L live behaviours; the others keep theirs, padded to L. No gradient passes, unless ``joint`` or a linear map."""
        if (self.training and not self.settings.fill_training) or not new.any():
            return x
        with nullcontext() if self.settings.joint or self.settings.form == "none" else torch.no_grad():
            attributes = x.a[new]
            made = self.generated(x._replace(a=in_blocks(attributes)))[: len(attributes)]  # which reads attributes alone
        x = self._padded(x)
        return x._replace(v=x.v.index_put((new,), made.to(x.v.dtype)), mask=x.mask | new.unsqueeze(1))

    def _padded(self, x: Embedded) -> Embedded:
        """Behaviours of L rows, the last of them 0."""
        missing = self.shape[0] - x.v.shape[1]
        if missing < 0:
            raise ValueError(
                f"behaviours of {x.v.shape[1]} rows, but this tower was built for {self.shape[0]} at most; fit it on data that hold them"
            )
        return x._replace(v=F.pad(x.v, (0, 0, 0, missing)), mask=F.pad(x.mask, (0, missing)))

    def _alignment(self, codes: Tensor) -> Tensor:
        """L_d of (2, n, d_h) codes; on the way it notes the mean kernel value of different codes."""
        n = codes.shape[1]
        if self.settings.alignment == "paired":
            return (codes[0] - codes[1]).square().sum() / max(1, n)
        within, across = kernel_sums(*codes, self.settings.bandwidth)
        self.notes = {"kernel": (within + 2 * across - 2 * n).detach() / max(1, 2 * n * (2 * n - 1))}
        return discrepancy(within, across, n, self.settings.alignment)


def in_blocks(rows: Tensor, size: int = 32) -> Tensor:
    """(n, …) → (m, …) rows of 0 added, up to a multiple of ``size``.

    Each step has its own number of old and new rows, and for products in bfloat16 processors compile a kernel for each shape that they
    meet, which takes longer than the product. So they meet few. Cards don't, and get the rows as they are.
    """
    if rows.device.type != "cpu":
        return rows
    return F.pad(rows, (0, 0) * (rows.dim() - 1) + (0, -len(rows) % size))


def kernel_sums(p: Tensor, q: Tensor, bandwidth: Bandwidth = "one") -> tuple[Tensor, Tensor]:
    """The Gaussian kernel of Eq. 6 summed over pairs of one side, Σ k(p_i, p_j) + Σ k(q_i, q_j), and over those across, Σ k(p_i, q_j).

    ``median``: σ² is the median squared distance of all pairs of (n, d_h) codes p and q, as it now is: no gradient. ``several``: the mean
    of five kernels, with a quarter of that to four times.
    """
    p, q = (codes.to(torch.promote_types(codes.dtype, torch.float32)) for codes in (p, q))
    scales: list[float | Tensor] = [1.0]
    with torch.autocast(p.device.type, enabled=False):  # differences of large sums
        if bandwidth != "one":
            sigma = torch.pdist(torch.cat([p, q]).detach()).median().clamp(min=1e-6)
            scales = [sigma * factor for factor in ((1.0,) if bandwidth == "median" else (0.5, 2**-0.5, 1.0, 2**0.5, 2.0))]
        sums = [(_within(a) + _within(b), _kernel(a, b).sum()) for a, b in ((p / s, q / s) for s in scales)]
    within, across = (sum(part) / len(scales) for part in zip(*sums, strict=True))
    return within, across


def _within(a: Tensor) -> Tensor:
    """Σ k(a_i, a_j), whose slope is twice that in the first place: one product less on the way back."""
    total = _kernel(a, a.detach()).sum()
    return 2 * total - total.detach()


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """(n, d_h), (m, d_h) → (n, m) exp(-|a_i - b_j|² / 2)."""
    half_a, half_b = (codes.square().sum(1, keepdim=True) / 2 for codes in (a, b))
    one_a, one_b = torch.ones_like(half_a), torch.ones_like(half_b)
    exponent = torch.cat([a, half_a, one_a], 1) @ torch.cat([b, -one_b, -half_b], 1).T  # in one product
    with torch.no_grad():
        exponent.clamp_(max=0)  # rounding may leave it above 0, and has no slope
    return exponent.exp_()  # in place, here and above: to fetch memory for so many numbers costs more than to work them out


def discrepancy(within: Tensor, across: Tensor, n: int, form: Literal["mmd", "printed", "unbiased"] = "mmd") -> Tensor:
    """Squared maximum mean discrepancy of n codes from n others (Eq. 5), from the sums of their kernel (see ``kernel_sums``).

    ``mmd``: the biased V-statistic, 0 or more. ``printed``: with 1/n before the first two sums, so more by 2 where codes
    are far apart, and by up to 2n where they are close. ``unbiased``: the U-statistic, which leaves each code's kernel with itself, 1, out and
    may fall below 0; of a single row it says nothing, so 0.
    """
    if form == "unbiased" and n < 2:
        return within * 0.0
    pairs = {"mmd": n * n, "printed": n, "unbiased": n * (n - 1)}[form]
    if form == "unbiased":
        within = within - 2 * n
    return within / max(1, pairs) - 2 * across / max(1, n * n)
