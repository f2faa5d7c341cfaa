"""Search under cross-entropy: the three zero-shot models with any encoder, and SMC, which learns from a log (Wu et al. 2020, sections 4 and 5).

A pair is a source and the item that it should give; a source is a text, encoded to q, or a neighbour with a vector u of its own:

    Pr(i | q) = exp(v_i · q) / Σ_l exp(v_l · q),      L = - Σ_pairs α log Pr(i | q or u)

    SoftmaxSTL    text of i → i
    SoftmaxME     text of i → i,  u_j → i for j in Ne(i)
    SoftmaxTE     text of j → i for j in Ne(i)
    SMC           text of a query → the item that was consumed, for each row of the log

Encoders: ``bow``, the mean of the words' vectors, all that the paper ran; ``gru``, the last state of a recurrent network; ``attention``, the
mean of what self-attention makes of the words and their positions. The latter two read unigrams in the order of the text.

How the paper is read where it can be read in several ways; each is a setting or can be undone in a line:

- The sum over l runs over all items, in chunks, up to ``sampled_above`` items. Above, it is estimated from ``negatives`` items a batch, drawn
  as often as they are targets (plus one) and corrected for that (log-Q).
- The weights α = r_i c_j of links decide how often a pair is drawn: an epoch draws as many pairs as there are, with replacement, in
  proportion to α. So the loss is right on average. Without weights an epoch has every pair once.
- SMC is trained by Adam, not by plain gradient descent at 0.06, which takes millions of steps; its log has no weights.
- λ is off: the paper names it for both losses but ran it with the square loss alone. Epochs are what holds overfitting back.
- Zero-shot models are trained by inner product and asked by cosine, as the paper does.

Shape legend: n items, m words, d width, B texts in a batch, P pairs in it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from zsrbook.data.dataset import Columns, DataError, Sequences
from zsrbook.data.search import SearchData
from zsrbook.models.coordinate_descent import reweighted
from zsrbook.models.search import SearchSettings, TextRetriever, oriented
from zsrbook.models.sequence import GRU
from zsrbook.models.softmax import full_softmax_loss, sampled_softmax_loss
from zsrbook.training import Training, pick_device, train

Encoder = Literal["bow", "gru", "attention"]


@dataclass(frozen=True)
class SoftmaxSettings(SearchSettings):
    """And what cross-entropy adds.

    Raises:
        ValueError: an unknown word, or heads that don't share the width evenly.
    """

    encoder: Encoder = "bow"  #: of texts and queries; paper
    layers: int = 1  #: of ``gru`` and ``attention``; DEC
    heads: int = 4  #: of ``attention``; DEC
    dropout: float = 0.1  #: in ``gru`` and ``attention``; DEC
    longest: int = 128  #: words that ``gru`` and ``attention`` read of a text; DEC
    batch: int = 128  #: pairs a step; paper (SMC)
    sampled_above: int = 50_000  #: items above which the softmax is sampled; DEC
    negatives: int = 10_000  #: of the sampled softmax, a batch; paper (SMC)
    training: Training = field(default_factory=lambda: Training(epochs=10, optimizer="adam", learning_rate=3e-3, clip=None, patience=None))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder == "attention" and self.width % self.heads:
            raise ValueError(f"search settings: {self.heads} heads can't share a width of {self.width} evenly; change one of the two")


class Pairs(NamedTuple):
    """What is learned from; P pairs in all."""

    texts: Sequence[str]
    source: np.ndarray  #: (P,) a row of ``texts``, or behind these an item's code: ``len(texts) + j`` is the u of item j
    target: np.ndarray  #: (P,) codes of items
    weight: np.ndarray | None = None  #: (P,) α; None: all the same


class Batch(NamedTuple):
    """The pairs of a step; those from texts come first."""

    words: Tensor  #: (L,) int64, one text after another
    lengths: Tensor  #: (B,) int64 on the CPU: words of each text, 1 or more
    rows: Tensor  #: int64, the text of each pair that has one
    contexts: Tensor  #: int64, the neighbour of each pair that has one
    targets: Tensor  #: (P,) int64


class Reader(nn.Module):
    """Words in, one vector a text out (Eq. 1)."""

    def __init__(self, n_words: int, settings: SoftmaxSettings):
        super().__init__()
        width, self.encoder = settings.width, settings.encoder
        self.words = nn.Embedding(n_words, width)
        nn.init.normal_(self.words.weight, std=width**-0.5)  # lengths of about 1
        if self.encoder == "gru":
            self.network = GRU(width, settings.dropout, settings.layers)
        elif self.encoder == "attention":
            self.positions = nn.Embedding(settings.longest, width)
            nn.init.normal_(self.positions.weight, std=width**-0.5)
            layer = nn.TransformerEncoderLayer(width, settings.heads, 4 * width, settings.dropout, F.gelu, batch_first=True, norm_first=True)
            self.network = nn.TransformerEncoder(layer, settings.layers, enable_nested_tensor=False)

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        """(L,) words of B texts, one after another, and (B,) how many each has, 1 or more → (B, d)."""
        if self.encoder == "bow":
            return F.embedding_bag(words, self.words.weight, (lengths.cumsum(0) - lengths).to(words.device), mode="mean")
        steps = self.words(pad_sequence(words.split(lengths.tolist()), batch_first=True))  # (B, longest, d)
        lengths = lengths.to(words.device)
        if self.encoder == "gru":
            return self.network(steps, None)[torch.arange(len(lengths), device=words.device), lengths - 1]
        inside = torch.arange(steps.shape[1], device=words.device) < lengths[:, None]  # (B, longest)
        read = self.network(steps + self.positions.weight[: steps.shape[1]], src_key_padding_mask=~inside)
        return (read * inside[:, :, None]).sum(1) / lengths[:, None]


class PairNetwork(nn.Module):
    """The loss of a batch of pairs.

    Args:
        share: (n,) how likely each item is drawn as a negative, where the softmax is sampled; sums to 1.
        contexts: whether items have a vector u beside v.
    """

    def __init__(self, reader: Reader, share: Tensor, contexts: bool, settings: SoftmaxSettings):
        super().__init__()
        self.reader, self.negatives, self.sampled = reader, settings.negatives, len(share) > settings.sampled_above
        self.items = nn.Embedding(len(share), settings.width, sparse=self.sampled)
        self.contexts = nn.Embedding(len(share), settings.width, sparse=self.sampled) if contexts else None
        for table in (self.items, self.contexts):
            if table is not None:
                nn.init.normal_(table.weight, std=settings.width**-0.5)
        self.register_buffer("share", share, persistent=False)

    def forward(self, batch: Batch) -> tuple[Tensor, int]:
        """L summed over the pairs, and how many these are."""
        sources = [self.reader(batch.words, batch.lengths)[batch.rows]] if len(batch.lengths) else []
        if len(batch.contexts):
            sources.append(self.contexts(batch.contexts))
        q, count = torch.cat(sources), len(batch.targets)  # (P, d)
        if not self.sampled:
            return full_softmax_loss(q, self.items.weight, batch.targets), count
        negatives = torch.multinomial(self.share, self.negatives, replacement=True)
        codes, local = torch.cat([batch.targets, negatives]).unique(return_inverse=True)
        log_expected = (self.negatives * self.share[negatives]).log()
        return sampled_softmax_loss(q, self.items(codes), local[:count], local[count:], log_expected), count


class Softmax(TextRetriever):
    """Learns its ``pairs`` by cross-entropy.

    Attributes:
        reader: the trained encoder of texts and queries.
        curve: the mean loss of a pair, an epoch a row; see ``train``.

    Raises:
        DataError: from ``fit``, where the data hold no pair to learn from.
    """

    settings: SoftmaxSettings
    reader: Reader

    def __init__(self, settings: SoftmaxSettings = SoftmaxSettings(), checkpoint: Path | None = None):
        self.settings, self.checkpoint = settings, checkpoint
        self.curve: list[dict[str, float]] = []

    @abstractmethod
    def pairs(self, data: SearchData) -> Pairs:
        """All there are, also those of texts without a known word, which ``fit`` leaves out."""

    def neighbours(self, data: SearchData, network: PairNetwork) -> np.ndarray | None:
        """(n, d) u, if the model has them."""
        return None

    def read(self, pairs: Pairs) -> Sequence[str]:
        """The texts of which a word needs ``at_least`` to be known."""
        return pairs.texts

    def fit(self, data: SearchData) -> Self:
        settings, training, device = self.settings, self.settings.training, pick_device(self.settings.training.device)
        pairs = self.pairs(data)
        if not len(pairs.source):
            raise DataError(f"{data.name}: {type(self).__name__} finds no pair to learn from; expected links, or rows in the log for SMC")
        self.raw = data.items[Columns.RAW].tolist()
        self.vocabulary = (settings if settings.encoder == "bow" else replace(settings, bigrams=False)).vocabulary(self.read(pairs))
        documents = self._documents(pairs.texts)
        kept = np.flatnonzero(np.append(documents.lengths, np.ones(data.n_items))[pairs.source])
        if not len(kept):
            raise DataError(f"{data.name}: {type(self).__name__} finds no pair to learn from whose text has a known word; expected some")
        pairs = Pairs(pairs.texts, pairs.source[kept], pairs.target[kept], None if pairs.weight is None else pairs.weight[kept])
        counts = np.bincount(pairs.target, minlength=data.n_items)
        share = torch.as_tensor((counts + 1) / (counts + 1).sum(), dtype=torch.float32)
        with torch.random.fork_rng():
            torch.manual_seed(training.seed)
            self.reader = Reader(len(self.vocabulary), settings)
            network = PairNetwork(self.reader, share, bool((pairs.source >= len(documents)).any()), settings)

        def batches(epoch: int) -> Iterator[Batch]:
            rng = np.random.default_rng((training.seed, epoch))
            order = drawn(pairs.weight, len(pairs.source), rng)
            for begin in range(0, len(order), settings.batch):
                yield batch_of(documents, pairs, order[begin : begin + settings.batch], device)

        title = f"{type(self).__name__} on {data.name}"
        self.curve = train(
            network, batches, training, None, self.checkpoint, title, shares=False, of=lambda: asdict(settings) | {"data": data.sha256}
        )
        self.items = network.items.weight.detach().cpu().numpy()
        self.contexts = self.neighbours(data, network)
        if settings.fold_in:
            bare = np.flatnonzero(counts == 0)
            vectors = self.query_vectors(data.items[Columns.TEXT].iloc[bare].tolist())
            self.items[bare] = np.where(np.isnan(vectors), self.items[bare], vectors)
        return self

    @torch.no_grad()
    def query_vectors(self, queries: Sequence[str]) -> np.ndarray:
        documents, device = self._documents(queries), self.reader.words.weight.device
        vectors = np.full((len(queries), self.settings.width), np.nan, np.float32)
        known = np.flatnonzero(documents.lengths)
        order = known[np.argsort(documents.lengths[known], kind="stable")]  # texts of a batch about as long
        for begin in range(0, len(order), 1024):
            rows = order[begin : begin + 1024]
            taken = documents.take(rows)
            vectors[rows] = self.reader(torch.as_tensor(taken.items, dtype=torch.int64, device=device), torch.as_tensor(taken.lengths)).float().cpu()
        return vectors

    def state(self) -> dict[str, Tensor]:
        return super().state() | {f"reader.{name}": value for name, value in self.reader.state_dict().items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        super().restore(state)
        with torch.random.fork_rng(devices=[]):  # the first weights are drawn, then replaced
            self.reader = Reader(len(self.vocabulary), self.settings).eval()
        self.reader.load_state_dict({name.removeprefix("reader."): value for name, value in state.items() if name.startswith("reader.")})
        self.reader.to(pick_device(self.settings.training.device))

    def _documents(self, texts: Sequence[str]) -> Sequences:
        """The known words of each text, as rows: each once for ``bow``, else in their order, up to ``longest``."""
        if self.settings.encoder == "bow":
            held = self.vocabulary.matrix(texts)
            return Sequences(held.indices, held.indptr.astype(np.int64), np.arange(len(texts)))
        analyse, codes = self.vocabulary.vectorizer.build_analyzer(), self.vocabulary.vectorizer.vocabulary_
        return Sequences.of([codes[word] for word in analyse(text) if word in codes][: self.settings.longest] for text in texts)


class SoftmaxSTL(Softmax):
    """Single task: texts alone."""

    def pairs(self, data: SearchData) -> Pairs:
        codes = np.arange(data.n_items)
        return Pairs(data.items[Columns.TEXT].tolist(), codes, codes)


class SoftmaxTE(Softmax):
    """Item-to-text transformed encoder: the texts of neighbours (section 4.2)."""

    def pairs(self, data: SearchData) -> Pairs:
        links = oriented(data.links, self.settings.direction)
        if self.settings.reweight:
            links = reweighted(links)  # which sorts the links of an item, where they were not
        target = np.repeat(np.arange(data.n_items), np.diff(links.indptr))
        return Pairs(data.items[Columns.TEXT].tolist(), links.indices.astype(np.int64), target, links.data if self.settings.reweight else None)

    def neighbours(self, data: SearchData, network: PairNetwork) -> np.ndarray:
        return np.nan_to_num(self.query_vectors(data.items[Columns.TEXT].tolist()))


class SoftmaxME(SoftmaxTE):
    """Multi-task item encoder: texts, and neighbours with a vector of their own (section 4.1)."""

    def pairs(self, data: SearchData) -> Pairs:
        links, codes = super().pairs(data), np.arange(data.n_items)
        weight = None if links.weight is None else np.concatenate([np.ones(data.n_items, np.float32), links.weight])
        return Pairs(links.texts, np.concatenate([codes, data.n_items + links.source]), np.concatenate([codes, links.target]), weight)

    def neighbours(self, data: SearchData, network: PairNetwork) -> np.ndarray | None:
        return None if network.contexts is None else network.contexts.weight.detach().cpu().numpy()


class SMC(Softmax):
    """Supervised multiclass classification: the log's queries and what was consumed after them (section 5); no zero-shot method."""

    def __init__(self, settings: SoftmaxSettings = SoftmaxSettings(score="dot"), checkpoint: Path | None = None):
        super().__init__(settings, checkpoint)

    def pairs(self, data: SearchData) -> Pairs:
        asked, source = np.unique(data.log["query"].to_numpy(np.int64), return_inverse=True)
        return Pairs(data.queries["text"].iloc[asked].tolist(), source, data.log[Columns.ITEM].to_numpy(np.int64))

    def read(self, pairs: Pairs) -> Sequence[str]:
        """Every search in the log, also where one was made before: a word that many search for is known though it stands in one query."""
        return [pairs.texts[row] for row in pairs.source]


def drawn(weight: np.ndarray | None, count: int, rng: np.random.Generator) -> np.ndarray:
    """(P,) the pairs of an epoch: each once in random order, or with replacement in proportion to their weights."""
    if weight is None:
        return rng.permutation(count)
    return rng.choice(count, count, p=weight / weight.sum(dtype=np.float64))


def batch_of(documents: Sequences, pairs: Pairs, rows: np.ndarray, device: torch.device) -> Batch:
    """These pairs, with each text once."""
    source, target = pairs.source[rows], pairs.target[rows]
    told = source < len(documents)
    texts, inverse = np.unique(source[told], return_inverse=True)
    taken = documents.take(texts)
    parts = (inverse, source[~told] - len(documents), np.concatenate([target[told], target[~told]]))
    words, *parts = (torch.as_tensor(part, dtype=torch.int64, device=device) for part in (taken.items, *parts))
    return Batch(words, torch.as_tensor(taken.lengths), *parts)
