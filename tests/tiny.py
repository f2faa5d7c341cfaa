"""The ZESRec experiments on a world so small that a model is fitted in a moment: for tests alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import HashingVectorizer

from zsrbook.data.toy import ToySettings, ToyWorld
from zsrbook.experiments import zesrec
from zsrbook.scale import Scale
from zsrbook.text import TextEncoder
from zsrbook.training import Training

WORDS = HashingVectorizer(n_features=128)
ranked = zesrec.ranked


@cache
def world(structure: float = 1.0) -> ToyWorld:
    return ToyWorld(ToySettings(users=(400, 200, 60), items=(60, 40, 40), tail=0.3, structure=structure))


@contextmanager
def shrunk() -> Iterator[None]:
    """A tiny world, bags of words in the place of the text encoder, networks of a few units, one thread; in this process alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums over several threads differ in the last digit
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZSRBOOK_WORKERS", "1")
        patch.setattr(zesrec, "toy_world", world)
        patch.setattr(TextEncoder, "encode", lambda self, texts, cache=True: WORDS.transform(texts).toarray().astype(np.float16))
        patch.setitem(zesrec.SIZED, Scale.TOY, {"width": 16, "hidden": 32, "batch_targets": 512, "training": Training(epochs=1)})
        zesrec.pair_of.cache_clear()
        yield
    zesrec.pair_of.cache_clear()
    torch.set_num_threads(threads)


def ranked_in_tiny_world(*task):
    """``zesrec.ranked`` as another process runs it."""
    with shrunk():
        return ranked(*task)
