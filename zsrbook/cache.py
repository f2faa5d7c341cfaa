"""Arrays that take long to make and can be made again, kept on disk."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from zsrbook.scale import cache_folder


def kept(key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array of this key, memory-mapped and read-only; made first where it is not there yet.

    A file appears under its name only once it is whole, so a run that is killed leaves none, and two that make the same do not meet.

    Args:
        key: folder and name, such as ``vectors/5f0c``; to hold a hash of all that the array depends on.
    """
    path = cache_folder() / f"{key}.npy"
    if not path.exists():
        array = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial.npy")
        np.save(partial, array)
        partial.replace(path)
    return np.load(path, mmap_mode="r", allow_pickle=False)
