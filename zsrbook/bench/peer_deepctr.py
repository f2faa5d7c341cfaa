# ruff: noqa: E402  (stdout is taken over before the peer is imported)
"""deepctr-torch's DIN under the clock; run by the Python of the peers' environment, which has no zsrbook.

Usage: ``python peer_deepctr.py FOLDER THREADS``, where FOLDER holds ``columns.npz`` and ``sizes.json``. After ``ready`` on stdout, each
line on stdin asks for that many steps of training and is answered by ``impressions seconds``.

Adam goes over dense tables, and nothing is regularised: a penalty on whole tables would cost the peer what ours does not pay.
"""

import json
import os
import sys
import time
from pathlib import Path

folder, threads = Path(sys.argv[1]), int(sys.argv[2])
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import numpy as np
import torch
from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat
from deepctr_torch.models.din import DIN

torch.set_num_threads(threads)
sizes = json.loads((folder / "sizes.json").read_text())
with np.load(folder / "columns.npz") as file:
    columns = dict(file)
click = columns.pop("click").astype(np.float32)
columns["length"] = np.full(len(click), sizes["length"])


def one(name, vocabulary):
    return SparseFeat(name, sizes["vocabularies"][vocabulary], embedding_dim=sizes["width"], embedding_name=vocabulary)


features = []
for name in columns:
    if name.startswith("hist_"):
        features.append(VarLenSparseFeat(one(name, name.removeprefix("hist_")), maxlen=sizes["length"], length_name="length"))
    elif name != "length":
        features.append(one(name, name))
model = DIN(features, ["category", "brand"], dnn_hidden_units=sizes["hidden"], l2_reg_embedding=0.0)
model.compile("adam", "binary_crossentropy")
rng = np.random.default_rng(0)

print("ready", file=answers, flush=True)
for line in sys.stdin:
    rows = rng.permutation(len(click))[: int(line) * sizes["batch"]]
    inputs, labels = {name: column[rows] for name, column in columns.items()}, click[rows]
    began = time.perf_counter()
    model.fit(inputs, labels, batch_size=sizes["batch"], epochs=1, verbose=0)
    print(len(rows), time.perf_counter() - began, file=answers, flush=True)
