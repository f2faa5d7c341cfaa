"""What notebooks and the command line say about the machine, and how they show source."""

import random

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from zsrbook import notebook, plots
from zsrbook.__main__ import app
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


def test_doctor_is_content_with_toy(monkeypatch):
    monkeypatch.setenv("ZSRBOOK_SCALE", "toy")
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    assert "Ready for scale toy" in result.output


def test_doctor_says_what_to_do_about_missing_data(monkeypatch, tmp_path):
    monkeypatch.setenv("ZSRBOOK_SCALE", "small")
    monkeypatch.setenv("ZSRBOOK_DATA", str(tmp_path / "nowhere"))
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "ZSRBOOK_DATA" in result.output
    assert "Not ready for scale small" in result.output
