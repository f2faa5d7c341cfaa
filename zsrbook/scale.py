"""The one switch of the book: how large a run is, and where raw data lies.

``ZSRBOOK_SCALE``  ``toy`` (generated data, no network), ``small`` (public data, minutes) or ``paper`` (a GPU server, hours)
``ZSRBOOK_DATA``   the folder of raw public data; default: the user's cache folder
"""

import os
from enum import StrEnum
from pathlib import Path


class ScaleError(ValueError):
    """``ZSRBOOK_SCALE`` names no scale, or ``ZSRBOOK_DATA`` no folder; the message says what it may be."""


class Scale(StrEnum):
    TOY = "toy"
    SMALL = "small"
    PAPER = "paper"


def current_scale() -> Scale:
    """The scale that ``ZSRBOOK_SCALE`` asks for; ``toy`` when unset.

    Raises:
        ScaleError: the variable holds something else.
    """
    asked = os.environ.get("ZSRBOOK_SCALE", "").strip() or Scale.TOY
    try:
        return Scale(asked)
    except ValueError:
        raise ScaleError(f"ZSRBOOK_SCALE is {asked!r}; it must be one of {', '.join(Scale)}. Unset it for toy.") from None


def cache_folder() -> Path:
    """Where zsrbook keeps what it can make again: item vectors, checkpoints, downloads (``XDG_CACHE_HOME`` is honoured)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zsrbook"


def data_folder() -> Path:
    """Where raw public data lies: ``ZSRBOOK_DATA``, or ``data`` in the cache folder.

    Raises:
        ScaleError: the variable begins with ``~`` and the name of nobody.
    """
    asked = os.environ.get("ZSRBOOK_DATA", "").strip()
    try:
        return Path(asked).expanduser().resolve() if asked else cache_folder() / "data"
    except RuntimeError as error:
        raise ScaleError(f"ZSRBOOK_DATA is {asked!r}, which is no folder ({error}); write the folder out in full") from None
