"""Independent runs side by side: a seed, a draw or a network each, one process a core.

The networks of the book are small, so a second thread on one of them gains little, and two of them at once gain all of it. On a
GPU, and where several processes share a run, the runs follow each other in this process.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from typing import Any

import numba
import torch
from rich.progress import track

from zsrbook.audience import watched
from zsrbook.data.dataset import DataError
from zsrbook.training import process_count


def workers(tasks: int) -> int:
    """How many of so many tasks run at once: one on a GPU, and one where several processes share the run, whose rank others would take for theirs.

    Raises:
        DataError: ``ZSRBOOK_WORKERS`` is set, but not to a number.
    """
    asked = os.environ.get("ZSRBOOK_WORKERS", "").strip()
    if asked and not asked.isdecimal():
        raise DataError(f"ZSRBOOK_WORKERS is {asked!r}; expected how many processes may run at once. Unset it for one a core.")
    return 1 if torch.cuda.is_available() or process_count() > 1 else max(1, min(tasks, int(asked or os.cpu_count() or 1)))


def side_by_side(function: Callable[..., Any], tasks: Sequence[tuple], title: str = "runs") -> list[Any]:
    """``[function(*task) for task in tasks]``, spread over the cores.

    Args:
        function: from a module, not from a notebook, since the processes import it.
        tasks: its arguments, which travel to the process, so small ones.

    Raises:
        DataError: as ``workers``.
        whatever the function raises, once the runs under way have ended; those that had not begun are given up.
    """
    count = workers(len(tasks))
    bar = {"description": title, "total": len(tasks), "disable": not watched()}
    if count < 2:
        return [function(*task) for task in track(tasks, **bar)]
    pool = _pool(count, tuple(sorted(item for item in os.environ.items() if item[0].startswith(("ZSRBOOK_", "XDG_")))))
    try:
        futures = [pool.submit(function, *task) for task in tasks]
        return [future.result() for future in track(futures, **bar)]
    except BaseException:
        _pool.cache_clear()
        pool.shutdown(cancel_futures=True)  # waits for what is under way, so that nothing goes on unseen
        raise


@lru_cache(maxsize=1)  # a chapter asks for runs in many cells, and starting processes costs as much as some of its models
def _pool(workers: int, environment: tuple) -> ProcessPoolExecutor:
    """Processes that stay for the next call; anew where the environment, from which they read scale and folders, has changed."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads, and hang
    return ProcessPoolExecutor(workers, context, initializer=_one_thread)


def one_torch_thread() -> None:
    """Torch on one thread, and so it stays: numba shares its threads, and would give torch one a core when it first runs anything in parallel."""
    numba.get_num_threads()  # so that this happens now, and not in the middle of a chapter
    torch.set_num_threads(1)


def _one_thread() -> None:
    """A process a core leaves nothing for a second thread in any of them."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    one_torch_thread()
    numba.set_num_threads(1)


def _end_with_parent() -> None:
    """Where the parent was killed, a run would go on for hours, unseen, though nobody waits for what it finds."""
    multiprocessing.parent_process().join()
    os._exit(1)
