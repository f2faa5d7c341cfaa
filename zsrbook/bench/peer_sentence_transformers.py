# ruff: noqa: E402  (stdout is taken over before the peer is imported)
"""sentence-transformers under the clock; run by the Python of the peers' environment, which has no zsrbook.

Usage: ``python peer_sentence_transformers.py MODEL_FOLDER TEXTS.json VECTORS.npy THREADS``. After ``ready`` on stdout, each
line on stdin asks for one pass over the texts and is answered by ``texts seconds``; the vectors lie in VECTORS.npy.
"""

import json
import os
import sys
import time

model_folder, texts_file, vectors_file, threads = sys.argv[1:]
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

torch.set_num_threads(int(threads))
encoder = SentenceTransformer(model_folder, device="cpu")
with open(texts_file) as file:
    texts = json.load(file)

print("ready", file=answers, flush=True)
for _ in sys.stdin:
    began = time.perf_counter()
    vectors = encoder.encode(texts, show_progress_bar=False)
    seconds = time.perf_counter() - began
    np.save(vectors_file, vectors)
    print(len(texts), seconds, file=answers, flush=True)
