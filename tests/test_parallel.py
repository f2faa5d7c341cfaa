"""Runs side by side: their order, their threads, their number, and errors that stop the rest; and who sees the bars above them."""

import os
import subprocess
import sys
import time
from concurrent.futures import Future

import pytest
import torch

from zsrbook import parallel
from zsrbook.audience import watched
from zsrbook.data.dataset import DataError
from zsrbook.parallel import side_by_side
from zsrbook.scale import cache_folder


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(autouse=True)
def no_pool_of_another_test():
    parallel._pool.cache_clear()


def whereabouts(number: int, seconds: float) -> tuple[int, int, int]:
    time.sleep(seconds)
    return number, os.getpid(), torch.get_num_threads()


def fail_or_leave_a_trace(number: int, folder) -> None:
    if number == 0:
        raise KeyError("the first one")
    time.sleep(0.2)
    (folder / str(number)).touch()


def test_spawned_runs_keep_the_order_and_one_thread_each(monkeypatch):
    monkeypatch.setenv("ZSRBOOK_WORKERS", "2")
    found = side_by_side(whereabouts, [(0, 1.0), (1, 0.0), (2, 0.0)])
    assert [number for number, _, _ in found] == [0, 1, 2]
    assert os.getpid() not in {pid for _, pid, _ in found}
    assert {threads for _, _, threads in found} == {1}


def test_runs_find_the_folders_of_now(monkeypatch, tmp_path):
    monkeypatch.setenv("ZSRBOOK_WORKERS", "2")
    for name in ("one", "two"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        assert set(side_by_side(cache_folder, [(), ()])) == {tmp_path / name / "zsrbook"}


def test_torch_keeps_its_one_thread_when_numba_begins():
    """In a process of its own, since numba begins once."""
    code = """
import numba, torch
from zsrbook.parallel import one_torch_thread

one_torch_thread()

@numba.njit(parallel=True)
def total(n):
    s = 0.0
    for i in numba.prange(n):
        s += i
    return s

assert total(100) == 4950
print(torch.get_num_threads(), numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "True"]


def test_error_in_a_process_reaches_the_caller_and_what_has_not_begun_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setenv("ZSRBOOK_WORKERS", "2")
    with pytest.raises(KeyError, match="the first one"):
        side_by_side(fail_or_leave_a_trace, [(n, tmp_path) for n in range(40)])
    done = len(list(tmp_path.iterdir()))
    assert done < 39
    time.sleep(1.0)
    assert len(list(tmp_path.iterdir())) == done  # nothing goes on unseen


def test_error_in_this_process_stops_the_rest(monkeypatch, tmp_path):
    monkeypatch.setenv("ZSRBOOK_WORKERS", "1")
    with pytest.raises(KeyError, match="the first one"):
        side_by_side(fail_or_leave_a_trace, [(n, tmp_path) for n in range(3)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("asked", "tasks"), [("1", 3), ("0", 3), ("4", 1), ("4", 0)])
def test_one_worker_or_one_task_needs_no_process(monkeypatch, asked, tasks):
    monkeypatch.setenv("ZSRBOOK_WORKERS", asked)
    found = side_by_side(whereabouts, [(n, 0.0) for n in range(tasks)])
    assert [(number, pid) for number, pid, _ in found] == [(n, os.getpid()) for n in range(tasks)]


class Counted:
    """Stands for a pool, and runs everything at once in this process."""

    asked: list[int]

    def __init__(self, workers, *args, **kwargs):
        self.asked.append(workers)

    def submit(self, function, *task):
        future = Future()
        future.set_result(function(*task))
        return future

    def shutdown(self, **how):
        pass


@pytest.mark.parametrize(("asked", "tasks", "workers"), [("3", 5, 3), ("3", 2, 2), ("", 9, 6), (None, 9, 6), (None, 4, 4)])
def test_number_of_workers(monkeypatch, asked, tasks, workers):
    monkeypatch.setattr(parallel, "ProcessPoolExecutor", Counted)
    monkeypatch.setattr(Counted, "asked", [], raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.delenv("ZSRBOOK_WORKERS", raising=False)
    if asked is not None:
        monkeypatch.setenv("ZSRBOOK_WORKERS", asked)
    assert side_by_side(divmod, [(n, 2) for n in range(tasks)]) == [divmod(n, 2) for n in range(tasks)]
    assert Counted.asked == [workers]


def test_number_of_workers_must_be_a_number(monkeypatch):
    monkeypatch.setenv("ZSRBOOK_WORKERS", "two")
    with pytest.raises(DataError, match="ZSRBOOK_WORKERS is 'two'; expected how many"):
        side_by_side(whereabouts, [(0, 0.0)])


@pytest.mark.skipif(os.name != "posix", reason="needs process groups")
def test_runs_end_where_their_parent_was_killed(tmp_path):
    """Whatever killed it, such as a session that was closed or memory that ran out."""
    program = tmp_path / "program.py"
    began = [tmp_path / name for name in "ab"]
    program.write_text(
        "import test_parallel\n"
        "from zsrbook.parallel import side_by_side\n"
        f"if __name__ == '__main__': side_by_side(test_parallel.leave_a_trace_and_stay, [({str(began[0])!r},), ({str(began[1])!r},)])\n"
    )
    path = os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])
    parent = subprocess.Popen([sys.executable, program], env=os.environ | {"PYTHONPATH": path, "ZSRBOOK_WORKERS": "2"}, start_new_session=True)
    assert soon(lambda: all(trace.exists() for trace in began), 60)
    parent.kill()
    parent.wait()

    def nobody_left() -> bool:
        try:
            os.killpg(parent.pid, 0)
        except ProcessLookupError:
            return True
        return False

    assert soon(nobody_left, 20)


def leave_a_trace_and_stay(trace: str) -> None:
    open(trace, "w").close()
    time.sleep(300)


def soon(holds, seconds: float) -> bool:
    """Whether it comes to hold within so many seconds."""
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        time.sleep(0.1)
    return holds()


def test_on_a_gpu_the_runs_follow_each_other_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("ZSRBOOK_WORKERS", "4")
    assert {pid for _, pid, _ in side_by_side(whereabouts, [(n, 0.0) for n in range(3)])} == {os.getpid()}


def test_where_several_processes_share_a_run_none_starts_more(monkeypatch):
    monkeypatch.setenv("ZSRBOOK_WORKERS", "4")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert {pid for _, pid, _ in side_by_side(whereabouts, [(n, 0.0) for n in range(3)])} == {os.getpid()}


@pytest.mark.parametrize(
    ("terminal", "notebook", "book", "child", "expected"),
    [
        (True, False, False, False, True),
        (False, True, False, False, True),
        (False, False, False, False, False),  # a pipe, a log
        (True, True, True, False, False),
        (True, True, False, True, False),
    ],
)
def test_bars_are_drawn_for_people_alone(monkeypatch, terminal, notebook, book, child, expected):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)  # where the bars are drawn
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    if notebook:
        monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.setenv("ZSRBOOK_BUILD", "1" if book else "")
    monkeypatch.setattr("multiprocessing.parent_process", lambda: object() if child else None)
    assert watched() == expected
