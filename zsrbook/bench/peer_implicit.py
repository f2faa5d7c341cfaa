"""implicit's alternating least squares under the clock; run by the Python of the peers' environment, which has no zsrbook.

Usage: ``python peer_implicit.py FOLDER THREADS OMEGA LAM``, where FOLDER holds ``positives.npz`` and the start, ``items.npy`` and
``contexts.npy``. After ``ready`` on stdout, each line on stdin asks for that many iterations and is answered by ``iterations seconds``;
the vectors then lie where the start lay.

implicit minimises Σ c (p - x·y)² + its λ (|x|² + |y|²) with c = 1 where p = 0: that is ours over ω, with c = α / ω and λ over ω.
"""

import os
import sys
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as implicit asks: its own threads share the rows

import numpy as np
import scipy.sparse
from implicit.als import AlternatingLeastSquares

folder, threads, omega, lam = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
confidence = scipy.sparse.csr_matrix(scipy.sparse.load_npz(folder / "positives.npz"))
confidence.data = (confidence.data / omega).astype(np.float32)
start = np.load(folder / "items.npy"), np.load(folder / "contexts.npy")
model = AlternatingLeastSquares(factors=start[0].shape[1], regularization=lam / omega, num_threads=threads)
model.user_factors, model.item_factors = start

print("ready", flush=True)
for line in sys.stdin:
    model.iterations, seconds = int(line), []
    model.fit(confidence, show_progress=False, callback=lambda iteration, elapsed, *loss, seconds=seconds: seconds.append(elapsed))
    np.save(folder / "items.npy", model.user_factors)
    np.save(folder / "contexts.npy", model.item_factors)
    print(len(seconds), sum(seconds), flush=True)  # of the iterations alone, without turning the matrix round
