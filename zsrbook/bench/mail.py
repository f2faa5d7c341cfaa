"""Rows of ``make bench`` for click models: DMR and MAIL-DMR beside the nearest tower that installs, and what reading Alimama's files costs.

That tower is DIN of deepctr-torch: attention over behaviours with the target, as in DMR, but neither DMR's second attention nor its loss on
negatives. No package on the index has DMR itself. The floor counts the operations of the matrix products of a step, there and back, as
PyTorch counts them, at the rate of a large matrix product.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from zsrbook import records
from zsrbook.bench import ON_CPU, THREADS, Peer, PeerError, Row, _last_line, _load, _peak_memory, _timed, alternate, product_ceiling
from zsrbook.data.alimama_generator import generate, loading
from zsrbook.data.clicks import TRAIN, ClickData, Layout
from zsrbook.data.toy import ATTRIBUTES
from zsrbook.models.dmr import DMR, DMRSettings
from zsrbook.models.mail import MAIL
from zsrbook.models.ranking import Batch, RankingModel, RankingSettings, batch_of, in_batches
from zsrbook.training import Training, runs_in, train


@dataclass(frozen=True)
class Shape:
    """Of clicks as Alimama's, each user with as many behaviours as a window holds; widths and batch are the paper's."""

    impressions: int = 40_960
    users: int = 10_000
    ads: int = 20_000
    categories: int = 2_000
    brands: int = 10_000
    length: int = 50  #: behaviours before an impression
    batch: int = 1024
    width: int = 32
    hidden: tuple[int, ...] = (512, 256, 128)

    def data(self, new: float = 0.0) -> ClickData:
        """Random codes, none of them unknown; all impressions are for training.

        Args:
            new: share of the users whose behaviours are hidden.
        """
        rng = np.random.default_rng(0)
        sizes = {"user": self.users, **ATTRIBUTES, "pid": 2, "ad": self.ads, "category": self.categories, "brand": self.brands, "action": 4}
        fields = Layout(("user", *list(ATTRIBUTES)[:-1]), ("pid",), ("ad", "category", "brand"), ("category", "brand", "action"))

        def codes(rows: int, names: tuple[str, ...]) -> np.ndarray:
            return np.column_stack([rng.integers(1, sizes[name] + 1, rows) for name in names]).astype(np.int32)

        users, items = codes(self.users, fields.user), codes(self.ads, fields.item)
        users[:, 0], items[:, 0] = np.arange(1, self.users + 1), np.arange(1, self.ads + 1)
        user = rng.integers(self.users, size=self.impressions).astype(np.int32)
        return ClickData(
            "generated",
            fields,
            {name: size + 1 for name, size in sizes.items()},
            user,
            rng.integers(self.ads, size=self.impressions).astype(np.int32),
            np.arange(self.impressions, dtype=float),
            (rng.random(self.impressions) < 0.05).astype(np.int8),
            codes(self.impressions, fields.context),
            users,
            items,
            codes(self.users * self.length, fields.behaviour),
            self.length * np.column_stack([user, user + 1]).astype(np.int64),
            np.full(self.impressions, TRAIN, np.int8),
            rng.random(self.users) < new,
        )

    def __str__(self) -> str:
        return f"{self.length} behaviours, width {self.width}, batches of {self.batch:,}"


def training(ceiling: float, shape: Shape = Shape(), steps: int = 20, rounds: int = 5) -> list[Row]:
    """Impressions a second of training: DMR against DIN, where everybody has behaviours, and MAIL-DMR against DMR, where 40 % are new.

    DMR's goal is to be half as fast again as DIN, both in float32. The others are no race: they say what MAIL costs, in float32 and in the
    precision in which the experiments train here. Their goal is at most twice the time, but MAIL rebuilds all behaviours of an impression
    twice, through dense layers of up to 1,024 units; the note says how many times the operations that is, and how fast beside DMR its matrix
    products alone would be, at the rate of a large one.
    """
    seen, mixed = shape.data(), shape.data(new=0.4)
    dmr, seen_floor = _stepping(shape, seen, ceiling)
    row = Row(f"training of DMR, {shape}", None, "impressions/s", "DIN of deepctr-torch 0.3.0", floor=seen_floor, goal=1.5)
    with tempfile.TemporaryDirectory() as folder:
        _for_peer(shape, seen, Path(folder))
        try:
            with Peer("deepctr", folder, str(THREADS)) as peer:
                row.value, row.peer, row.ratio, row.noise = alternate(partial(dmr, steps), lambda: peer.round(steps), rounds)
            row.note = f"same fields, Adam over the same tables, MLP {shape.hidden}, {THREADS} threads, load {_load()}; DIN lacks DMR's second loss"
        except PeerError as error:
            row.value, row.note = float(np.median([dmr(steps) for _ in range(rounds)])), str(error)
    row.of_floor = row.value / seen_floor
    rows = [row]
    for precision in dict.fromkeys(("float32", runs_in("auto", torch.device("cpu")))):
        if precision == "bfloat16":
            ceiling = product_ceiling("cpu", 2048)
        settings = replace(ON_CPU, precision=precision)
        (alone, dmr_floor), (filled, floor) = (_stepping(shape, mixed, ceiling, filler, settings) for filler in (None, MAIL))
        value, peer, ratio, noise = alternate(partial(filled, steps), partial(alone, steps), rounds)
        note = f"{dmr_floor / floor:.1f} times the operations of DMR, so {floor / peer:.2f} of its speed at the floor; 40 % of users new"
        note += f", {THREADS} threads, load {_load()}"
        name = f"training of MAIL-DMR in {precision}, {shape}"
        rows.append(Row(name, value, "impressions/s", "DMR without MAIL", ratio, floor, 0.5, peer, value / floor, noise, note))
    return rows


def on_gpu(shape: Shape = Shape(), device: str = "cuda", steps: int = 40, rounds: int = 5) -> list[Row]:
    """The second row of ``training`` on a graphics card, where products cost little; in bfloat16, as the experiments train there."""
    name = f"training of MAIL-DMR on a graphics card, {shape}"
    if device == "cuda" and not torch.cuda.is_available():
        return [Row(name, None, "impressions/s", note="no CUDA device here")]
    data, on_it, ceiling = shape.data(new=0.4), replace(ON_CPU, device=device, precision="bfloat16"), product_ceiling(device)
    (alone, _), (filled, floor) = (_stepping(shape, data, ceiling, filler, on_it) for filler in (None, MAIL))
    value, peer, ratio, noise = alternate(partial(filled, steps), partial(alone, steps), rounds)
    note = f"{records.device()}, bfloat16; 40 % of users new"
    return [Row(name, value, "impressions/s", "DMR without MAIL", ratio, floor, 0.5, peer, value / floor, noise, note)]


def _stepping(
    shape: Shape, data: ClickData, ceiling: float, filler: type[MAIL] | None = None, training: Training = ON_CPU
) -> tuple[Callable[[int], float], float]:
    """What trains for some steps and gives impressions a second, and the most that this could be."""
    settings = RankingSettings(width=shape.width, batch=shape.batch, training=replace(training, clip=None))
    model = RankingModel(partial(DMR, settings=DMRSettings(hidden=shape.hidden)), settings, filler)
    model.build(data)
    turn, device = itertools.count(), torch.device(training.device)
    model.network.to(device)

    def batches(epoch: int = 0) -> Iterator[Batch]:
        order = np.random.default_rng(next(turn)).permutation(data.rows(TRAIN))
        return (batch_of(data, rows, device) for rows in in_batches(order, shape.batch))

    def step(n: int) -> float:
        shown = 0

        def some(epoch: int) -> Iterator[Batch]:
            nonlocal shown
            for batch in itertools.islice(batches(), n):
                shown += len(batch.click)
                yield batch

        seconds = _timed(lambda: train(model.network, some, settings.training))
        return shown / seconds

    first = next(batches())
    with FlopCounterMode(display=False) as counter:
        model.network(first)[0].backward()
    model.network.zero_grad()
    return step, ceiling * len(first.click) / counter.get_total_flops()


def _for_peer(shape: Shape, data: ClickData, folder: Path) -> None:
    """Codes field by field and impression by impression, as deepctr-torch reads them, and the sizes that both sides share."""
    groups = {"user": data.users[data.user], "context": data.context, "item": data.items[data.item]}
    columns = {name: codes[:, i] for group, codes in groups.items() for i, name in enumerate(getattr(data.layout, group))}
    windows = data.windows[:, :1] + np.arange(shape.length)
    columns |= {f"hist_{name}": data.behaviours[windows, i] for i, name in enumerate(data.layout.behaviour)}
    np.savez(folder / "columns.npz", click=data.click, **columns)
    (folder / "sizes.json").write_text(json.dumps({**asdict(shape), "vocabularies": dict(data.vocabularies)}))


def readings(sizes: Sequence[int] = (1_000_000, 3_000_000, 10_000_000), users: int = 20_000) -> list[Row]:
    """``reading`` of more and more behaviours, with an impression to ten of them; the notes of the largest say how time and memory grew."""
    found = [reading(behaviours, behaviours // 10, users) for behaviours in sizes]
    (speed, memory), (last_speed, last_memory) = found[0], found[-1]
    if all(row.value is not None for row in (speed, memory, last_speed, last_memory)):
        times = sizes[-1] / sizes[0]
        last_speed.note += f"; {times:.3g} times the behaviours of the smallest take {times * speed.value / last_speed.value:.1f} times as long"
        last_memory.note += f"; {times:.3g} times the behaviours of the smallest take {last_memory.value / memory.value:.1f} times the memory"
    return [row for rows in found for row in rows]


def reading(behaviours: int, impressions: int, users: int) -> list[Row]:
    """Alimama's files for the first time, in a fresh process: behaviours a second, and the memory that this adds to that of the imports."""
    what = f"Alimama's files, {behaviours:,} behaviours and {impressions:,} impressions"
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), impressions, behaviours, users)
        command = [sys.executable, "-c", f"from zsrbook.bench.mail import read_once; read_once({folder!r})"]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "POLARS_MAX_THREADS": str(THREADS)})
    names = f"reading {what}", f"memory of reading {what}"
    if done.returncode:
        return [Row(name, None, unit, note=_last_line(done.stderr)) for name, unit in zip(names, ("behaviours/s", "GB"), strict=True)]
    first, cpu, again, base, peak = map(float, done.stdout.split())
    note = f"{first:.1f} s, {cpu:.1f} s of the processor; {again:.2f} s from the cache; {THREADS} threads, load {_load()}"
    return [
        Row(names[0], behaviours / first, "behaviours/s", note=note),
        Row(names[1], peak - base, "GB", note=f"the most at once, above {base:.2f} GB of the imports"),
    ]


def read_once(folder: str) -> None:
    """Prints the seconds of a first reading, by the clock and of the processor, and of one from the cache; GB before and at most."""
    base = _peak_memory()
    print(*loading(Path(folder)), base / 1e9, _peak_memory() / 1e9)
