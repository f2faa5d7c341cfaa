"""``python -m zsrbook data``: list what there is, get it, check files of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from zsrbook.data import catalogue, fetch
from zsrbook.data.blogcatalog import LabelledGraph
from zsrbook.data.dataset import DataError, Dataset
from zsrbook.scale import data_folder
from zsrbook.terminal import Encoding, console, errors_for_people, say

#: what a person can mend
MENDABLE = (DataError, OSError)

app = typer.Typer(no_args_is_help=True, help="List, download and check data sets.")


@app.command("list")
def list_() -> None:
    """All data sets: size, terms, and whether they are here."""
    table = Table(
        Column("name", no_wrap=True),
        "size",
        "terms",
        "here",
        title=f"Data sets in {data_folder()}",
        caption="get some: python -m zsrbook data get NAME NAME …",
    )
    for name, source in fetch.SOURCES.items():
        absent = len(source.missing())
        here = "yes" if not absent else "no" if absent == len(source.files) else f"{absent} of {len(source.files)} files missing"
        table.add_row(name, "unknown" if source.size is None else f"{source.size / 1e6:.1f} MB", source.licence, here)
    console().print(table)


@app.command()
def get(names: Annotated[list[str], typer.Argument(metavar="NAME", help="Names that `list` shows.")]) -> None:
    """Download data sets into the data folder, one after the other, and check them. The terms of each are printed first."""
    with errors_for_people(*MENDABLE):
        for name in names:
            fetch.source_of(name)  # a slip in the last name is told before the first download
        for name in names:
            fetch.get(name, say=say)


@app.command()
def check(
    source: Annotated[str, typer.Argument(help="A file or a folder, of your own or as it is published, or a name that `list` shows.")],
    encoding: Encoding = "utf-8",
) -> None:
    """Load it, and print what was kept, repaired and dropped; exit code 1 if it can't be loaded."""
    with errors_for_people(*MENDABLE):
        path = Path(source)
        data = (catalogue.guess_search(path) or catalogue.guess(path, encoding)) if path.exists() else catalogue.load_any(source)
        if isinstance(data, LabelledGraph):
            say(f"{data.name}: {data.graph.shape[0]:,} nodes, {data.graph.nnz // 2:,} links, {data.labels.shape[1]:,} labels")
            return
        say(str(data.report))
        say(f"{data.name}: sha256 of the loaded data: {data.sha256() if isinstance(data, Dataset) else data.sha256}")
