"""PecanPy's walks under the clock; run by the Python of the peers' environment, which has no zsrbook.

Usage: ``python peer_pecanpy.py FOLDER MODE P Q LENGTH THREADS``, where FOLDER holds ``graph.npz``, a sparse adjacency matrix of ones, and MODE
is a class of PecanPy: ``FirstOrderUnweighted``, ``SparseOTF`` or ``PreComp``. After ``ready`` and the seconds for tables, each line on
stdin asks for that many walks from every node and is answered by ``walks seconds``.

The clock runs for the compiled walks alone, not for the lists of names that PecanPy makes of them for Word2Vec.
"""

import sys
import time
from pathlib import Path

import numba
import numpy as np
import scipy.sparse
from numba_progress import ProgressBar
from pecanpy import pecanpy

folder, mode, p, q, length, threads = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6])
numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
adjacency = scipy.sparse.csr_matrix(scipy.sparse.load_npz(folder / "graph.npz"))
graph = getattr(pecanpy, mode)(p=p, q=q, workers=threads)
graph.set_node_ids([str(node) for node in range(adjacency.shape[0])])
graph.indptr, graph.indices = adjacency.indptr.astype(np.uint32), adjacency.indices.astype(np.uint32)
graph.data = adjacency.data.astype(np.float32)
began = time.perf_counter()
graph.preprocess_transition_probs()
tables = time.perf_counter() - began
steps = graph.get_has_nbrs(), graph.get_move_forward()  # once, or each call would compile anew

print("ready", tables, flush=True)
for line in sys.stdin:
    starts = np.tile(np.arange(adjacency.shape[0], dtype=np.uint32), int(line))
    np.random.default_rng(0).shuffle(starts)
    with ProgressBar(total=len(starts), disable=True) as progress:
        began = time.perf_counter()
        graph._random_walks(len(starts), length - 1, None, starts, *steps, progress)  # it counts steps, we count nodes
        seconds = time.perf_counter() - began
    print(len(starts), seconds, flush=True)
