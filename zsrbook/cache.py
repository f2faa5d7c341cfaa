"""What takes long to make and can be made again, kept on disk: arrays whole, and rows that come a few at a time.

Whatever writes a file that others read writes it by ``whole`` or ``write_whole``.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from zsrbook.data.dataset import DataError
from zsrbook.scale import cache_folder


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Another name in the same folder, to write under; the file is moved into place at the end, so that no half file is ever seen."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, make: Callable[[Path], object]) -> None:
    """Have a file made under another name in the same folder, then move it into place."""
    with whole(path) as temporary:
        make(temporary)


def kept(key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array of this key, memory-mapped and read-only; made first where it is not there yet.

    Two runs that make the same do not meet, and one that is killed leaves nothing under this name.

    Args:
        key: folder and name, such as ``vectors/5f0c``; to hold a hash of all that the array depends on.

    Raises:
        DataError: the file is damaged, or can't be written.
    """
    path = cache_folder() / f"{key}.npy"
    if not path.exists():
        array = make()
        with _errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole(path) as temporary, temporary.open("wb") as file:  # an open file, since numpy adds .npy to a bare name that lacks it
                np.save(file, array)
    with _errors(path):
        return np.load(path, mmap_mode="r", allow_pickle=False)


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Raises DataError, with what to do, where the file is damaged or can't be written."""
    try:
        yield
    except (sqlite3.Error, OSError, ValueError, EOFError) as error:
        mend = "delete it, since it can be made again, or " if path.is_file() else ""
        raise DataError(f"{path}: this cache can't be read or written ({error}); {mend}set XDG_CACHE_HOME to a folder that can be written") from None


class Rows:
    """Bytes by key in one file of SQLite. What was added is kept, whatever stops the run after it; several processes may read and add at once.

    Args:
        name: folder and name of the file, such as ``vectors/5f0c``; to hold a hash of all that the rows depend on beside their keys.

    Raises:
        DataError: here and in ``find`` and ``add``: the file is damaged, or can't be written.
    """

    def __init__(self, name: str):
        self._path = cache_folder() / f"{name}.sqlite"
        with _errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(self._path, timeout=60)
        with _errors(self._path), self._file:
            self._file.execute("CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def find(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """Those of the keys that are there, and what was added under them."""
        asked = (self._file.execute("SELECT key, value FROM rows WHERE key = ?", (key,)).fetchone() for key in set(keys))
        with _errors(self._path):
            return dict(filter(None, asked))

    def add(self, rows: Mapping[bytes, bytes]) -> None:
        """All of these or none; a key that is there keeps what it has."""
        with _errors(self._path), self._file:
            self._file.executemany("INSERT OR IGNORE INTO rows VALUES (?, ?)", rows.items())
