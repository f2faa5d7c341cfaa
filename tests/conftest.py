"""What may be skipped, and what may not.

``ZSRBOOK_REQUIRE`` lists what this machine is known to have (``data``, ``browser``): there a test that skips for want of it fails.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numba
import pytest
import torch

from zsrbook import records

pytest.register_assert_rewrite("contract")  # so that a failing contract test shows its values

ROOT = Path(__file__).resolve().parents[1]
REQUIRED = set(os.environ.get("ZSRBOOK_REQUIRE", "").split())
MARKER_OF = {"data": "small", "browser": "browser"}


def pytest_configure(config):
    if "PYTEST_XDIST_WORKER" in os.environ:
        # workers that share cores would wait for each other's threads, up to a hundred times longer
        numba.set_num_threads(1)  # its first call also gives torch as many threads as there are cores: so before torch is told
        torch.set_num_threads(1)
    unknown = REQUIRED - set(MARKER_OF)
    if unknown:
        raise pytest.UsageError(f"ZSRBOOK_REQUIRE names {', '.join(sorted(unknown))}; it may name {', '.join(MARKER_OF)}")


def pytest_collection_modifyitems(items):
    has_data = "data" in REQUIRED or bool(os.environ.get("ZSRBOOK_DATA")) or os.environ.get("ZSRBOOK_SCALE") == "small"
    for item in items:
        if item.get_closest_marker("small") and not has_data:
            item.add_marker(
                pytest.mark.skip(reason="needs real public data; set ZSRBOOK_DATA to its folder, or ZSRBOOK_SCALE=small where doctor finds it")
            )
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    for name in REQUIRED:
        if report.skipped and not hasattr(report, "wasxfail") and item.get_closest_marker(MARKER_OF[name]):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} skipped, but ZSRBOOK_REQUIRE says that this machine has {name}: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def book() -> Path:
    """The folder of the built book's pages; built first where it is absent or older than its sources (``make test`` has done so)."""
    done = subprocess.run([sys.executable, "book/build.py"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"the book does not build:\n{(done.stdout + done.stderr)[-6000:]}", pytrace=False)
    return ROOT / "build" / "html"


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """A small clean git clone in the place of this one; gives its folder of records, which is not there yet."""
    (tmp_path / "code.py").write_text("1\n")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "start"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(records, "REPOSITORY", tmp_path)
    return tmp_path / "book" / "runs"


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Sums over several threads differ in the last digit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
