"""Who watches: a page of the book, a person, or nobody."""

import multiprocessing
import os
import sys


def in_book() -> bool:
    """Whether ``make book`` runs this kernel, so that the page brings the style sheet and plotly.js itself."""
    return os.environ.get("ZSRBOOK_BUILD") == "1"


def watched() -> bool:
    """Whether progress bars find a person: on a terminal or in a live notebook, not on a page, in a pipe or in a child process."""
    if multiprocessing.parent_process() is not None or in_book():
        return False
    return sys.stdout.isatty() or "ipykernel" in sys.modules
