"""A row of ``make bench`` that asks for a graphics card: ZESRec-G trained at the size of the paper's Amazon data, over the full softmax."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from zsrbook import records
from zsrbook.bench import Row, generated, product_ceiling
from zsrbook.models.zesrec import ZESRec, ZESRecSettings
from zsrbook.training import Training


@dataclass(frozen=True)
class Shape:
    """The paper's Amazon data (its Table 1), generated; the last three are ours."""

    users: int = 862_000
    items: int = 238_000
    interactions: int = 3_240_000
    features: int = 768
    #: targets a step. All items pass the MLP in each, so at the book's 2,048 that would be half of the operations
    batch: int = 131_072
    side: int = 8192  #: of the matrices that give the ceiling

    def __str__(self) -> str:
        return f"{self.users:,} users, {self.items:,} items, {self.interactions:,} interactions"


def training(shape: Shape = Shape(), device: str = "cuda", epochs: int = 20, goal: float = 90.0) -> list[Row]:
    """Seconds of all epochs in bfloat16, and the share of what a large product in bfloat16 reaches on the same card.

    Floor: six operations a number of every product (a value and its two gradients), 6 d² of the GRU and d I of the softmax a target, and
    f · 512 + 512 d of the MLP an item and step.
    """
    name = f"{epochs} epochs of ZESRec-G on a graphics card, full softmax, {shape}"
    if device == "cuda" and not torch.cuda.is_available():
        return [Row(name, None, "s", note="no CUDA device here")]
    rng = np.random.default_rng(0)
    lengths = rng.multinomial(shape.interactions - shape.users, np.full(shape.users, 1 / shape.users)) + 1
    data = generated(shape.items, lengths, rng).with_features(rng.standard_normal((shape.items, shape.features), dtype=np.float32))
    settings = ZESRecSettings(
        batch_targets=shape.batch,
        sampled_above=shape.items,
        # Adam, since the paper's Adagrad at 0.1 throws scores of noise into the thousands, where nothing is learned and exponentials overflow
        training=Training(epochs=epochs, optimizer="adam", learning_rate=1e-3, patience=None, precision="bfloat16", device=device),
    )
    ceiling = product_ceiling(device, shape.side)
    seconds = sum(row["seconds"] for row in ZESRec(settings).fit(data).curve)
    width, steps = settings.width, -(-shape.interactions // shape.batch)
    softmax = 6 * shape.interactions * (6 * width**2 + width * shape.items)
    mlp = 6 * steps * shape.items * settings.hidden * (shape.features + width)
    floor = epochs * (softmax + mlp) / ceiling
    note = f"{records.device()}, batches of {shape.batch:,} targets, bfloat16, {ceiling / 1e12:,.1f} TFLOP/s in a product of {shape.side:,}³"
    return [Row(name, seconds, "s", f"the limit of {goal:g} s", goal / seconds, floor, 1.0, goal, floor / seconds, None, note)]
