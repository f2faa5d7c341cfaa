"""gensim's Word2Vec under the clock; run by the Python of the peers' environment, which has no zsrbook.

Usage: ``python peer_gensim.py FOLDER DIMENSION WINDOW NEGATIVES THREADS``, where FOLDER holds ``walks.npy``, one walk a row. After ``ready``
on stdout, each line on stdin asks for one epoch over that many rows with a model of its own and is answered by ``positions seconds``; the
vectors then lie in ``vectors.npy``, zeros where a node was on none of the walks.
"""

import sys
import time
from pathlib import Path

import numpy as np
from gensim.models import Word2Vec

folder, (dimension, window, negatives, threads) = Path(sys.argv[1]), map(int, sys.argv[2:])
walks = np.load(folder / "walks.npy")

print("ready", flush=True)
for line in sys.stdin:
    sentences = [list(map(str, walk)) for walk in walks[: int(line)].tolist()]
    model = Word2Vec(
        vector_size=dimension,
        window=window,
        negative=negatives,
        sg=1,
        hs=0,
        sample=0,  # no node is left out for being visited often: so it is in ours
        min_count=1,
        alpha=0.025,
        min_alpha=0.025e-4,
        epochs=1,
        workers=threads,
        seed=0,
    )
    model.build_vocab(sentences)
    began = time.perf_counter()
    model.train(sentences, total_examples=len(sentences), epochs=1)
    seconds = time.perf_counter() - began
    vectors = np.zeros((walks.max() + 1, dimension), np.float32)
    vectors[np.array(model.wv.index_to_key, int)] = model.wv.vectors
    np.save(folder / "vectors.npy", vectors)
    print(sum(map(len, sentences)), seconds, flush=True)
