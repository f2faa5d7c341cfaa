"""Each notebook runs in a clean kernel from top to bottom, within its budget.

The build of the book does just that, with any exception fatal, so a book that is built from the present sources is proof enough.
``make notebooks`` (``ZSRBOOK_NOTEBOOKS=run``) runs them without the book, and names the cell that fails.
"""

import os
from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.md"))
SECONDS_A_CELL = {"toy": 300, "small": 1800}.get(os.environ.get("ZSRBOOK_SCALE", "toy"))

pytestmark = pytest.mark.notebooks


def run(path: Path) -> None:
    notebook = jupytext.read(path)
    try:
        NotebookClient(notebook, timeout=SECONDS_A_CELL, kernel_name="python3", resources={"metadata": {"path": ROOT}}).execute()
    except CellExecutionError as error:
        failed = next(i for i, cell in enumerate(notebook.cells) if any(out.output_type == "error" for out in cell.get("outputs", [])))
        pytest.fail(f"{path.name}, cell {failed + 1}:\n{notebook.cells[failed].source}\n\n{error.ename}: {error.evalue}", pytrace=False)


if os.environ.get("ZSRBOOK_NOTEBOOKS") == "run":

    @pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
    def test_runs_from_top_to_bottom(path):
        run(path)

else:

    @pytest.mark.xdist_group("book")
    @pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
    def test_ran_in_the_book(book, path):
        page = book / "notebooks" / f"{path.stem}.html"
        assert page.exists(), f"{path.name} is in no table of contents; add it to book/_toc.yml"
        assert "cell_output" in page.read_text(encoding="utf-8"), f"{path.name} left no output on its page"


def test_prerec_reads_its_records_at_small_scale(tmp_path):
    """No public data is at hand and nothing is trained: each cell above the exercises shows what was recorded, or says which file is missing."""
    page = jupytext.read(ROOT / "notebooks" / "prerec.md")
    page.cells = page.cells[: next(i for i, cell in enumerate(page.cells) if cell.source.startswith("## Exercises"))]
    client = NotebookClient(page, timeout=120, kernel_name="python3", resources={"metadata": {"path": ROOT}}, allow_errors=True)
    client.execute(env=os.environ | {"ZSRBOOK_SCALE": "small", "ZSRBOOK_DATA": str(tmp_path)})
    errors = [(out.ename, out.evalue, cell.source) for cell in page.cells for out in cell.get("outputs", []) if out.output_type == "error"]
    assert not [error for error in errors if error[0] != "DataError" or "is missing" not in error[1]]
    assert len(errors) < 5, "most cells need no data"


def test_a_failing_cell_is_named(tmp_path):
    notebook = jupytext.reads("a = 1\n\n# %%\nprint(a / 0)\n", fmt="py:percent")
    path = tmp_path / "broken.md"
    jupytext.write(notebook, path, fmt="md:myst")
    with pytest.raises(pytest.fail.Exception, match=r"broken\.md, cell 2(.|\n)*ZeroDivisionError"):
        run(path)
