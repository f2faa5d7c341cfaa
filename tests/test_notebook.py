"""What notebooks and the command line say about the machine, and how they show source."""

import random
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from zsrbook import notebook, plots
from zsrbook.__main__ import app
from zsrbook.data import fetch
from zsrbook.doctor import data_of_pages
from zsrbook.records import REPOSITORY
from zsrbook.scale import Scale


@pytest.fixture
def shown(monkeypatch):
    pieces = []
    monkeypatch.setenv("ZSRBOOK_BUILD", "1")
    monkeypatch.setattr(notebook, "display", lambda html: pieces.append(html.data))
    return pieces


def test_setup_says_what_a_chapter_runs_on_and_seeds_everything(shown, monkeypatch):
    monkeypatch.setenv("ZSRBOOK_SCALE", "toy")
    draws = []
    for _ in range(2):
        session = notebook.setup(minutes={"toy": 1.5}, seed=3)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002 - the global state is what is tested
    assert draws[0] == draws[1]
    assert session.scale is Scale.TOY
    assert torch.get_num_threads() == 1
    for part in ("toy", "1.5 min", torch.__version__):
        assert part in shown[0]


def test_setup_is_open_about_a_time_that_nobody_measured(shown, monkeypatch):
    monkeypatch.setenv("ZSRBOOK_SCALE", "small")
    notebook.setup(minutes={"toy": 1})
    assert "not measured yet" in shown[0]


@pytest.mark.parametrize("thing", [plots.Card, plots.lines_with_bands, plots])
def test_source_is_shown_with_its_place(shown, thing):
    notebook.show_source(thing)
    assert "zsrbook/plots.py</code>, lines" in shown[0]
    assert 'class="highlight"' in shown[0]


@pytest.mark.parametrize(("imported", "exit_code"), [("os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT), ("SimpleNamespace(app=Typer())", 0)])
def test_an_interruption_while_commands_are_imported_is_no_traceback(imported, exit_code):
    """And once they are, it is an exception again."""
    code = f"""if True:
        import importlib, os, signal
        from types import SimpleNamespace
        from typer import Typer
        signal.signal(signal.SIGINT, signal.default_int_handler)
        importlib.import_module = lambda name: {imported}
        import zsrbook.__main__
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert (done.returncode, done.stderr) == (exit_code, "")


def test_doctor_is_content_with_toy(monkeypatch):
    monkeypatch.setenv("ZSRBOOK_SCALE", "toy")
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    assert "Ready for scale toy" in result.output


@pytest.mark.parametrize("folder", ["nowhere", "empty", "[old]", "a [/b]", "c:b:d"])
def test_doctor_says_what_to_do_about_missing_data(monkeypatch, tmp_path, folder):
    (tmp_path / "empty" / "ml-1m").mkdir(parents=True)
    monkeypatch.setenv("ZSRBOOK_SCALE", "small")
    monkeypatch.setenv("ZSRBOOK_DATA", str(tmp_path / folder))
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "ZSRBOOK_DATA" in result.output
    assert "Not ready for scale small" in result.output
    assert f"{folder}: 0 of the".replace(" ", "") in "".join(result.output.split())
    assert all(name in result.output for name in data_of_pages(Scale.SMALL))


def test_a_data_folder_of_nobody_is_said(monkeypatch):
    monkeypatch.setenv("ZSRBOOK_SCALE", "toy")
    monkeypatch.setenv("ZSRBOOK_DATA", "~nobody-of-this-name/data")
    result = CliRunner().invoke(app, ["data", "list"])
    assert result.exit_code == 1
    assert "ZSRBOOK_DATA is '~nobody-of-this-name/data', which is no folder" in result.output


def test_doctor_names_the_data_that_is_missing_and_no_other(monkeypatch, tmp_path):
    monkeypatch.setenv("ZSRBOOK_SCALE", "small")
    monkeypatch.setenv("ZSRBOOK_DATA", str(tmp_path))
    wanted = data_of_pages(Scale.SMALL)
    assert {"scientific", "ml-1m", "ml-100k", "cisi", "epinions", "toys"} <= set(wanted)
    for name in wanted:
        source = fetch.source_of(name)
        for file in source.files:
            (source.where / file.path).parent.mkdir(parents=True, exist_ok=True)
            (source.where / file.path).write_text("x")  # doctor looks where it lies, and reads nothing
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    assert "Ready for scale small" in result.output
    (fetch.source_of("cisi").where / "CISI.REL").unlink()
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "Missing: raw data. The pages of this scale load cisi too; `python -m zsrbook data get cisi`" in " ".join(result.output.split())


@pytest.mark.parametrize("scale", Scale)
def test_data_of_pages_is_known_to_the_registry(scale):
    assert set(data_of_pages(scale)) <= set(fetch.SOURCES)


def test_the_published_book_gets_the_data_that_its_pages_load():
    workflow = (REPOSITORY / ".github/workflows/pages.yml").read_text(encoding="utf-8")
    names = re.search(r"for name in(.*?)\bdo\b", workflow, re.DOTALL)[1].replace("\\", " ").split()
    assert sorted(names) == sorted(data_of_pages(Scale.SMALL))


@pytest.mark.parametrize("name", ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"])
def test_doctor_finds_a_browser_by_any_of_its_names(monkeypatch, name):
    monkeypatch.setenv("ZSRBOOK_SCALE", "toy")
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setattr("shutil.which", lambda asked: f"/bin/{name}" if asked == name else None)
    assert f"/bin/{name}" in CliRunner().invoke(app, ["doctor"]).output
