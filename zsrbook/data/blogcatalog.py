"""BlogCatalog: bloggers, who is whose friend, and the topics of their blogs (Tang and Liu 2009, KDD), on which methods for nodes of graphs
are compared. It says nothing of recommenders: it is here so that Node2Vec can be held against what others report of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.io import loadmat

from zsrbook.data.dataset import DataError
from zsrbook.data.files import GET_AGAIN, open_raw, refuse_html


@dataclass(frozen=True, eq=False)
class LabelledGraph:
    """
    Attributes:
        name: of the data set.
        graph: (n, n) symmetric, 1 where two nodes are linked.
        labels: (n, labels) bool, one or more a node.
    """

    name: str
    graph: sparse.csr_array
    labels: np.ndarray


def load(folder: Path, name: str = "blogcatalog") -> LabelledGraph:
    """``blogcatalog.mat``: 10,312 bloggers, 333,983 friendships, 39 topics, 1.4 of them a blogger.

    Raises:
        DataError: the file is missing, damaged, or does not hold a symmetric ``network`` of ones and a ``group`` for all of its nodes.
    """
    path = Path(folder) / "blogcatalog.mat"
    with open_raw(path) as stream:
        refuse_html(path, stream.read(200))
        stream.seek(0)
        try:
            found = loadmat(stream, variable_names=["network", "group"], spmatrix=False)
        except Exception as error:  # of a damaged file scipy raises whatever its bytes lead to
            raise DataError(f"{path}: can't be read as a MATLAB file ({type(error).__name__}: {error}); {GET_AGAIN}") from error
    for part in ("network", "group"):
        if not sparse.issparse(found.get(part)):
            raise DataError(f"{path}: has no sparse matrix {part!r}; expected 'network' and 'group'; {GET_AGAIN}")
    graph, group = (sparse.csr_array(found[part]) for part in ("network", "group"))
    if graph.shape != 2 * (group.shape[0],):
        raise DataError(f"{path}: 'network' is {graph.shape} and 'group' {group.shape}; expected (n, n) and (n, groups); {GET_AGAIN}")
    if not (graph.data == 1).all() or (graph != graph.T).nnz or graph.diagonal().any():
        raise DataError(f"{path}: 'network' is not symmetric, holds more than ones, or links a node to itself; {GET_AGAIN}")
    labels = group.toarray() != 0
    if not labels.any(1).all():
        raise DataError(f"{path}: node {int(labels.any(1).argmin())} is in no group; expected one or more; {GET_AGAIN}")
    return LabelledGraph(name, graph, labels)
