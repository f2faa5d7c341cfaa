"""``make bench``: our speed beside named peers, in one run on the same cores, and beside what the arithmetic allows.

Peers live in an environment of their own, ``build/bench-venv``, and run as processes that wait for their turn: ours and theirs
alternate (A B A B …), each round gives one ratio, and the median of the ratios is what counts, so that a neighbour who takes
the cores for a while slows both. The spread of the ratios is kept as ``noise``. A graphics card is used by the rows that name one, and by
no other.

A row of ``build/bench.json`` has ``name``, ``value``, ``unit``, ``against`` (the peer), ``ratio`` (how many times better than the
peer; above 1 is good), ``floor`` (the best value that this machine could give), and beside these ``goal`` for the ratio, ``peer``
(the peer's value), ``of_floor`` (1 = nothing left to gain), ``noise`` and ``note``. A row that could not be measured has the
value None and its reason in ``note``.

The floor counts the operations of the matrix products alone, at the rate of a large float32 product measured in the same run.
With width d, I items and 3 products for a value and its two gradients, one position of GRU4Rec costs 3 · (2 · 2 · 3 d² + 2 d I)
operations: 3.4 million at d = 128 and I = 3,706, of which the softmax has 2.8 million.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from zsrbook.data.dataset import Columns, Dataset
from zsrbook.data.splits import Fold, compact, split_leave_one_out
from zsrbook.evaluation.ranks import rank_targets
from zsrbook.models.zesrec import Batch, ZESRec, ZESRecSettings, batches_of, in_pieces
from zsrbook.scale import data_folder
from zsrbook.text import TextEncoder, embedded_minilm, loaded
from zsrbook.training import Training, train

BUILD = Path("build")
#: for ours and for the peers alike
THREADS = int(os.environ.get("OMP_NUM_THREADS", min(2, os.cpu_count() or 1)))
#: of what stands beside a peer or a floor: both are those of the cores, also where there is a card
ON_CPU = Training(epochs=1, optimizer="adam", learning_rate=1e-3, patience=None, device="cpu")

#: what each peer needs; RecBole 1.2.1 pins old packages that nothing here uses, so it comes without its own list; deepctr-torch forgets requests
PEERS = {
    "recbole": [
        ["numpy<2", "pandas<2.3", "scipy<1.14", "scikit-learn", "tqdm", "pyyaml", "colorlog", "colorama", "texttable", "psutil"],
        ["tabulate", "tensorboard", "thop", "numpy<2"],
        ["--no-deps", "recbole==1.2.1"],
    ],
    "sentence_transformers": [["sentence-transformers", "numpy<2"]],
    "implicit": [["implicit==0.7.3", "numpy<2"]],
    "pecanpy": [["pecanpy==2.0.9", "gensim==4.4.0", "numpy<2"]],
    "gensim": [["gensim==4.4.0", "numpy<2"]],
    "deepctr": [["deepctr-torch==0.3.0", "numpy<2", "requests"]],
}


@dataclass(frozen=True)
class Sizes:
    """How much of ZESRec is measured; search and MAIL have shapes of their own. A round is one turn of ours and one of the peer.

    With the defaults all takes about ten minutes on two idle cores.
    """

    rounds: int = 5
    gemm: int = 2048  #: side of the matrices that give the ceiling
    users: int = 600
    items: int = 3706  #: of generated data; MovieLens 1M has as many with ratings
    steps: int = 16  #: of ours a round, of 2,048 positions
    peer_steps: int = 2  #: of the peer a round, of as many
    loop_users: int = 100  #: whose positions up to the 50th the slow evaluation ranks
    memory_items: int = 238_000
    memory_positions: int = 4096
    texts: int = 400


@dataclass
class Row:
    """One line of ``build/bench.json``; see the head of the module."""

    name: str
    value: float | None
    unit: str
    against: str | None = None
    ratio: float | None = None
    floor: float | None = None
    goal: float | None = None
    peer: float | None = None
    of_floor: float | None = None
    noise: list[float] | None = None  #: smallest and largest ratio of a round (of the matrix product: to the best)
    note: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name}: not measured ({self.note})"
        ratio = "" if self.ratio is None else f"; {self.ratio:.2f} times as good as {self.against} (goal {self.goal:g})"
        floor = "" if self.of_floor is None else f"; {self.of_floor:.0%} of what the arithmetic allows"
        return f"{self.name}: {self.value:,.4g} {self.unit}{ratio}{floor}"


def main(sizes: Sizes = Sizes(), out: Path = BUILD / "bench.json") -> list[Row]:
    """Measure everything, print a table, write the rows."""
    from zsrbook.bench import coordinate_descent, mail, node2vec, zesrec_on_gpu  # which need this module

    torch.set_num_threads(THREADS)
    began, load = time.perf_counter(), _load()
    rows = [gemm(sizes)]
    ceiling = rows[0].value * 1e9
    data = film_data(sizes)
    parts = [
        lambda: [training(sizes, data, ceiling, width) for width in (128, 64)],
        lambda: [Row("GRU4Rec training, official PyTorch port", None, "positions/s", note="the port is on no package index; not installable here")],
        lambda: evaluation(sizes, data, ceiling),
        lambda: [memory(sizes)],
        lambda: [encoding(sizes, ceiling)],
        lambda: scaling(ceiling),
        zesrec_on_gpu.training,
        lambda: mail.training(ceiling),
        mail.on_gpu,
        mail.readings,
        lambda: coordinate_descent.against_implicit(ceiling),
        lambda: coordinate_descent.by_positives(ceiling),
        coordinate_descent.at_full_size,
        coordinate_descent.on_gpu,
        node2vec.walking,
        lambda: node2vec.training(ceiling),
    ]
    for part in parts:
        for row in part():
            rows.append(row)
            print(row, flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    print(f"{time.perf_counter() - began:.0f} s on {THREADS} threads, load {load} before and {_load()} after; wrote {out}")
    return rows


# -- what a row needs -------------------------------------------------------------------------------------------------------------


def gemm(sizes: Sizes) -> Row:
    """The ceiling: float32 matrix products, 2 n³ operations each; the best of several, as neighbours can only take away."""
    a, b = torch.randn(sizes.gemm, sizes.gemm), torch.randn(sizes.gemm, sizes.gemm)
    seconds = [_timed(lambda: a @ b) for _ in range(20)]
    rates = 2e-9 * sizes.gemm**3 / np.array(seconds)
    noise = [float(rates.min() / rates.max()), 1.0]
    note = f"{sizes.gemm}³ float32 products on {THREADS} threads of {platform.machine()}, load {_load()}; the ceiling that the floors use"
    return Row("matrix product", float(rates.max()), "GFLOP/s", noise=noise, note=note)


def product_ceiling(device: str, side: int = 8192) -> float:
    """The same in bfloat16, on a card or another device: operations a second of products of two (side, side) matrices, the best of several."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    wait: Callable[[], None] = torch.cuda.synchronize if device == "cuda" else lambda: None

    def product() -> None:
        a @ b
        wait()

    wait()
    return 2 * side**3 / min(_timed(product) for _ in range(10))


def film_data(sizes: Sizes) -> Dataset:
    """MovieLens 1M, cut to random users but with its whole catalogue; generated data of the same shape where it is absent."""
    folder = data_folder() / "ml-1m"
    rng = np.random.default_rng(0)
    if (folder / "ratings.dat").exists():
        from zsrbook.data.movielens import load_1m

        data = compact(load_1m(folder))
        return data.where(np.isin(data.interactions[Columns.USER], rng.permutation(len(data.users))[: sizes.users]))
    lengths = np.maximum(20, rng.lognormal(4.6, 0.95, sizes.users)).astype(int)  # MovieLens 1M: 165 on average, at least 20
    return generated(sizes.items, lengths, rng, "shaped-like-ml-1m")


def generated(n_items: int, lengths: np.ndarray, rng: np.random.Generator, name: str = "generated") -> Dataset:
    """Histories of these lengths, drawn from a popularity with a heavy tail."""
    weights = 1.0 / (np.arange(n_items) + 10)
    frame = pd.DataFrame(
        {
            Columns.USER: np.repeat(np.arange(len(lengths)), lengths),
            Columns.ITEM: rng.choice(n_items, lengths.sum(), p=weights / weights.sum()),
            Columns.TIME: np.arange(lengths.sum(), dtype=float),
        }
    )
    items = pd.DataFrame({Columns.RAW: np.arange(n_items).astype(str), Columns.TEXT: ""})
    return Dataset.from_raw(name, frame, items, pd.DataFrame({Columns.RAW: np.arange(len(lengths)).astype(str)}))


def peer_python(peer: str) -> Path:
    """The Python of the peers' environment, with this peer in it; made on first use.

    Raises:
        PeerError: it can't be installed here, with pip's last word.
    """
    folder = BUILD / "bench-venv"
    python, mark = (folder / "bin" / "python").absolute(), folder / f".{peer}"
    if mark.exists():
        return python
    steps = [] if python.exists() else [[sys.executable, "-m", "venv", str(folder)]]
    index = ["--index-url", os.environ["TORCH_INDEX"]] if os.environ.get("TORCH_INDEX") else []
    pip = [str(python), "-m", "pip", "install", "-q"]
    steps.append([*pip, *index, f"torch=={torch.__version__.split('+')[0]}"])  # the same torch on both sides
    steps += [[*pip, *packages] for packages in PEERS[peer]]
    print(f"== Installing {peer} into {folder}, once", flush=True)
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True)
        if done.returncode:
            raise PeerError(f"{peer} can't be installed here: {_last_line(done.stderr)}")
    mark.touch()
    return python


class PeerError(RuntimeError):
    """A peer can't be measured on this machine; says why."""


class Peer:
    """A peer in a process of its own, ready to run a round when told to."""

    def __init__(self, name: str, *arguments: str):
        self.name = name
        script = Path(__file__).resolve().with_name(f"peer_{name}.py")
        command = [str(peer_python(name)), str(script), *arguments]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed in __exit__)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            cwd=BUILD / "bench-venv",  # RecBole leaves logs where it runs
            env={**os.environ, "OMP_NUM_THREADS": str(THREADS)},
        )
        try:
            self._answer()
        except PeerError:
            self.__exit__()
            raise

    def round(self, n: int = 1) -> float:
        """Units a second in a round of ``n``."""
        with suppress(BrokenPipeError):  # it is dead, as the answer will tell
            self.process.stdin.write(f"{n}\n")
            self.process.stdin.flush()
        units, seconds = self._answer().split()
        return float(units) / float(seconds)

    def _answer(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            raise PeerError(f"{self.name} stopped: {_last_line(self.errors.read())}")
        return line

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_) -> None:
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()


def alternate(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> tuple[float, float, float, list[float]]:
    """Medians of both rates, of their ratios, and the extremes of the ratios; a first round of each warms up."""
    ours(), theirs()
    pairs = np.array([(ours(), theirs()) for _ in range(rounds)])
    ratios = pairs[:, 0] / pairs[:, 1]
    return float(np.median(pairs[:, 0])), float(np.median(pairs[:, 1])), float(np.median(ratios)), [float(ratios.min()), float(ratios.max())]


# -- the rows ---------------------------------------------------------------------------------------------------------------------


def training(sizes: Sizes, data: Dataset, ceiling: float, width: int) -> Row:
    """GRU4Rec, all positions of a piece of history at once, against RecBole, which trains on one copy a prefix.

    RecBole has embeddings of 64 and states of 128; our network has one width. At 128 the softmax costs us twice what it costs
    the peer, at 64 the recurrence costs us less; so both are shown. A sample of the peer sees up to 50 items before its target; a
    position of ours sees what stands before it in its piece of 50.

    Floor: see the head of the module. The peer's own count for a sample at its widths: 3 · (50 · 2 · 3 · (64 · 128 + 128²) + 50 · 2 · 128 · 64
    + 2 · 64 I) = 26 million operations with I = 3,706, between seven and eight times our 3.4 million.
    """
    name = f"GRU4Rec training, width {width}, histories of 50, {data.name}"
    settings = ZESRecSettings(items="ids", width=width, max_length=50, dropout=0.3, training=ON_CPU)
    pieces = in_pieces(data.sequences(), settings.max_length)
    model = ZESRec(settings)
    model.build(data.n_items, None)
    turn = itertools.count()

    def ours() -> float:
        positions, n = 0, next(turn)

        def batches(epoch: int) -> Iterator[Batch]:
            nonlocal positions
            for batch in itertools.islice(batches_of(pieces, settings.batch_targets, torch.device("cpu"), (0, n)), sizes.steps):
                positions += int(batch.lengths.sum())
                yield batch

        seconds = _timed(lambda: train(model.network, batches, settings.training))
        return positions / seconds

    operations = 3 * (2 * 2 * 3 * width**2 + 2 * width * data.n_items)
    floor = ceiling / operations
    row = Row(name, None, "positions/s", "RecBole 1.2.1 (embedding 64, hidden 128)", floor=floor, goal=8.0)
    with tempfile.TemporaryDirectory() as folder:
        atomic_files(data, Path(folder))
        try:
            with Peer("recbole", folder, str(THREADS)) as peer:
                row.value, row.peer, row.ratio, row.noise = alternate(ours, lambda: peer.round(sizes.peer_steps), sizes.rounds)
            row.note = f"both: full softmax over {data.n_items} items, Adam, about 2,048 positions a step, {THREADS} threads"
        except PeerError as error:
            row.value, row.note = float(np.median([ours() for _ in range(sizes.rounds)])), str(error)
    row.of_floor = row.value / floor
    return row


def atomic_files(data: Dataset, folder: Path) -> None:
    """The data as RecBole reads it, the whole catalogue in a file of its own so that both sides have as many items."""
    (folder / "bench").mkdir()
    frame = data.interactions[[Columns.USER, Columns.ITEM, Columns.TIME]]
    frame = frame.assign(**{Columns.TIME: np.arange(len(frame))})  # our order, whatever the ties in time
    header = ["user_id:token", "item_id:token", "timestamp:float"]
    frame.to_csv(folder / "bench" / "bench.inter", sep="\t", index=False, header=header)
    pd.DataFrame({"item_id:token": np.arange(data.n_items)}).to_csv(folder / "bench" / "bench.item", sep="\t", index=False)


def evaluation(sizes: Sizes, data: Dataset, ceiling: float) -> list[Row]:
    """Ranks in the full catalogue against the loop that one writes first: a user at a time, a target at a time; their ranks must agree.

    Floor: one pass of the network over each history and one product of (targets, d) and (d, items):
    12 d² operations an item read and 2 d I a target. With long histories the reading costs most, and it is the same for both.
    """
    rng = np.random.default_rng(0)
    short = generated(12_000, np.maximum(2, rng.poisson(9, sizes.users)), rng, "a shop (12,000 items, histories of 9)")
    few = data.where(np.isin(data.interactions[Columns.USER], data.sequences().users[: sizes.loop_users]))
    # every position of a history of 1,000 would take the loop minutes: the first 50 of each
    positions = few.sequences().positions
    folds = {
        f"newest item of each user, {short.name}": split_leave_one_out(short).test,
        f"newest item of each user, {data.name}": split_leave_one_out(data).test,
        f"every position up to the 50th, {data.name}": Fold(few, (positions > 0) & (positions <= 50)),
    }
    return [_evaluation(name, fold, ceiling, max(1, sizes.rounds // 2)) for name, fold in folds.items()]


def _evaluation(name: str, fold: Fold, ceiling: float, rounds: int) -> Row:
    width, n_items = 128, fold.data.n_items
    model = ZESRec(ZESRecSettings(items="ids", width=width))
    model.build(n_items, None)
    found, expected = rank_targets(model, fold).greater, _loop(model, fold)
    # sums in another order may swap items whose scores agree in every digit that counts
    off = np.abs(found - expected)
    if (off > 0).mean() > 0.02 or off.max() > 2:
        raise AssertionError(f"{name}: {(off > 0).sum()} of {len(off)} ranks differ from the loop's, by up to {off.max()}")
    value, peer, ratio, noise = alternate(
        lambda: len(expected) / _timed(lambda: rank_targets(model, fold)), lambda: len(expected) / _timed(lambda: _loop(model, fold)), rounds
    )
    read = fold.sequences.lengths.sum() / len(expected)  # items that the network reads a target
    floor = ceiling / (read * 12 * width**2 + 2 * width * n_items)
    note = (
        f"{len(expected)} targets, {read:.0f} items read a target, width {width}; {(off == 0).mean():.1%} of the ranks equal, none off by more than 2"
    )
    return Row(f"full-catalogue ranks, {name}", value, "targets/s", "a loop with argsort", ratio, floor, 10.0, peer, value / floor, noise, note)


@torch.no_grad()
def _loop(model: ZESRec, fold: Fold) -> np.ndarray:
    sequences = fold.sequences
    ranks = []
    for at in np.flatnonzero(fold.targets):
        scores = model.scores(sequences.prefixes(np.array([at])))[0].numpy()
        ranks.append(int(np.flatnonzero(np.argsort(-scores, kind="stable") == sequences.items[at])[0]))
    return np.array(ranks)


def memory(sizes: Sizes) -> Row:
    """How much a training step over the full softmax of a large catalogue adds to the memory of a fresh process, all included.

    Floor (bytes): text vectors in float16 (I · 768 · 2) and the item vectors with their gradient in float32 (I · 300 · 4 · 2):
    0.94 GB at 238,000 items. The plain way adds the scores and their gradient, P · I · 4 · 2 = 7.8 GB, to the same.
    """
    command = [sys.executable, "-c", f"from zsrbook.bench import memory_step; memory_step({sizes.memory_items}, {sizes.memory_positions}, {THREADS})"]
    done = subprocess.run(command, capture_output=True, text=True)
    name = f"training step, {sizes.memory_items:,} items, {sizes.memory_positions:,} positions, full softmax"
    if done.returncode:
        return Row(name, None, "GB", note=_last_line(done.stderr))
    peak, seconds = map(float, done.stdout.split())
    floor = sizes.memory_items * (768 * 2 + 300 * 4 * 2) / 1e9
    plain = floor + sizes.memory_positions * sizes.memory_items * 8 / 1e9
    note = f"peak resident memory above that of the imports; the goal is below 2 GB; the step took {seconds:.1f} s; the plain loss is worked out"
    return Row(name, peak, "GB", "the plain cross-entropy", plain / peak, floor, plain / 2.0, plain, floor / peak, None, note)


def memory_step(n_items: int, positions: int, threads: int) -> None:
    """One step of ZESRec over the full softmax; prints the peak of memory in GB above the start, and the seconds of the step."""
    torch.set_num_threads(threads)
    before = _peak_memory()
    features = torch.empty(n_items, 768, dtype=torch.float16)
    for piece in features.split(4096):
        piece.copy_(torch.randn(len(piece), 768))
    model = ZESRec(ZESRecSettings(sampled_above=n_items + 1))
    model.build(n_items, features)
    length = 64
    items = torch.randint(n_items, (positions // length, length))
    batch = Batch(items, torch.full((len(items),), length), None)
    seconds = _timed(lambda: train(model.network, lambda epoch: [batch], Training(epochs=1, patience=None, device="cpu")))
    print((_peak_memory() - before) / 1e9, seconds)


def _peak_memory() -> int:
    """Bytes that this process ever held at once. Linux lets ``ru_maxrss`` begin at the parent's, so its own count is read there."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def encoding(sizes: Sizes, ceiling: float) -> Row:
    """Texts of mixed length through MiniLM, against sentence-transformers on the same weights; both have loaded them before.

    Floor: 2 operations a weight and token for the 10.6 million weights of the six layers, 2 · 2 · 384 · T² a layer for the
    attention of a text of T tokens; tokenising comes for free in it.
    """
    texts = mixed_texts(sizes.texts)
    name = f"text encoding, MiniLM, {len(texts)} texts of mixed length"
    folder = embedded_minilm()
    row = Row(name, None, "texts/s", "sentence-transformers", goal=1.0)
    if folder is None:
        row.note = "the embedded encoder is not installed here; make setup installs it"
        return row
    encoder = TextEncoder()
    encode = partial(encoder.encode, texts, cache=False, device="cpu")  # where the peer is, whether there is a card or not
    vectors = encode().astype(np.float32)
    tokens = np.array([len(i) for i in loaded(encoder.name)[0](texts, truncation=True, max_length=encoder.max_tokens)["input_ids"]], float)
    row.floor = len(texts) * ceiling / float((2 * 10.6e6 * tokens + 6 * 4 * 384 * tokens**2).sum())

    def ours() -> float:
        return len(texts) / _timed(encode)

    with tempfile.TemporaryDirectory() as scratch:
        texts_file, vectors_file = Path(scratch) / "texts.json", Path(scratch) / "vectors.npy"
        texts_file.write_text(json.dumps(texts))
        try:
            with Peer("sentence_transformers", str(folder), str(texts_file), str(vectors_file), str(THREADS)) as peer:
                row.value, row.peer, row.ratio, row.noise = alternate(ours, peer.round, max(1, sizes.rounds // 2))
            theirs = np.load(vectors_file, allow_pickle=False)
            cosine = (vectors * theirs).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(theirs, axis=1)
            if cosine.min() < 0.99:
                raise AssertionError(f"text {int(cosine.argmin())}: our vector and that of sentence-transformers have cosine {cosine.min():.4f}")
            row.note = (
                f"{tokens.mean():.0f} word pieces a text, {tokens.min():.0f} to {tokens.max():.0f}; smallest cosine of the two {cosine.min():.5f}"
            )
        except PeerError as error:
            row.value, row.note = ours(), str(error)
    row.of_floor = row.value / row.floor
    return row


def mixed_texts(n: int) -> list[str]:
    """Titles, descriptions and several of these in a row, in random order, from the toy world: a few words up to two hundred."""
    from zsrbook.data.toy import ToyWorld

    world, rng = ToyWorld(), np.random.default_rng(0)
    pool = np.concatenate([world.dataset(market).items[Columns.TEXT].to_numpy(str) for market in world.markets])
    return [" ".join(rng.choice(pool, rng.integers(1, 7))) for _ in range(n // 2)] + rng.choice(pool, n - n // 2).tolist()


def scaling(ceiling: float) -> list[Row]:
    """Seconds an epoch of GRU4Rec (width 64) as users, items and history length grow, one at a time, on generated data."""
    base = {"users": 200, "items": 1000, "length": 20}
    rows = []
    for what, values in {"users": (200, 400, 800), "items": (1000, 4000, 16_000), "length": (20, 40, 80)}.items():
        for value in values:
            shape = base | {what: value}
            data = generated(shape["items"], np.full(shape["users"], shape["length"]), np.random.default_rng(0))
            settings = ZESRecSettings(items="ids", width=64, training=replace(ON_CPU, epochs=3))
            seconds = float(np.median([row["seconds"] for row in ZESRec(settings).fit(data).curve]))
            floor = len(data) * 3 * (12 * 64**2 + 2 * 64 * data.n_items) / ceiling
            note = f"{shape['users']} users, {shape['items']} items, histories of {shape['length']}, width 64"
            rows.append(Row(f"epoch by {what} = {value}", seconds, "s", floor=floor, of_floor=floor / seconds, note=note))
    return rows


def _timed(work: Callable[[], object]) -> float:
    """Seconds, with no garbage collection in the middle."""
    gc.collect()
    gc.disable()
    try:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began
    finally:
        gc.enable()


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1][:300]
