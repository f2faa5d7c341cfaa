"""``python -m zsrbook doctor``: whether this machine is ready for the book."""

from __future__ import annotations

import os
import shutil

import typer
from rich.table import Column, Table
from rich.text import Text

from zsrbook.data import catalogue, fetch
from zsrbook.experiments import mail, preprec, prerec, search, zesrec
from zsrbook.notebook import device_name, versions
from zsrbook.scale import Scale, current_scale, data_folder
from zsrbook.terminal import console
from zsrbook.text import embedded_minilm
from zsrbook.training import pick_device

app = typer.Typer(help="Say whether this machine is ready.")

#: what Chromium is called, as systems install it
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def data_of_pages(scale: Scale) -> list[str]:
    """The public data sets that the chapters load at this scale, by the names that ``data get`` knows; all else comes from records."""
    if scale is Scale.TOY:
        return []
    names = [name for pair in zesrec.PAIRS[scale][:2] for name in pair]
    names += [name.removesuffix("-stars") for name in mail.DATA[scale][:1]]  # what counts as a click is no part of the data's name
    names += [source for name in search.DATA[scale][:1] for source in catalogue.SEARCH[name][0]]
    names += [*prerec.DATA[scale], *preprec.DATA[scale][:1]]
    return list(dict.fromkeys(names))


@app.command()
def doctor() -> None:
    """Say what this machine has, what is missing, and what to do about it; exit code 1 if the chosen scale can't run."""
    scale, data = current_scale(), data_folder()
    wanted = data_of_pages(scale)
    lacking = [name for name in wanted if fetch.source_of(name).missing()]
    try:
        encoder, advice = embedded_minilm(), "run `make setup`; until then the encoder comes from the Hugging Face hub"
    except OSError as error:
        encoder, advice = None, str(error)
    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)

    checks = [  # what, seen, is it fine, is it needed, what to do
        ("scale", f"{scale} (ZSRBOOK_SCALE)", True, True, ""),
        ("device", device_name(pick_device()), True, True, ""),
        ("text encoder", str(encoder or "not found"), encoder is not None, False, advice),
        (
            "raw data",
            f"{data}: {len(wanted) - len(lacking)} of the {len(wanted)} data sets that the pages load" if wanted else "none needed",
            not lacking,
            bool(wanted),
            f"The pages of this scale load {', '.join(lacking)} too; `python -m zsrbook data get {' '.join(lacking)}`, or set ZSRBOOK_DATA"
            " to the folder that holds the public data; `python -m zsrbook data list` says what belongs there, and on which terms",
        ),
        ("browser", browser or "not found", browser is not None, False, "install chromium to test the built pages, or set CHROMIUM to its path"),
    ]
    there, optional, missing = Text("✓", "green"), Text("!", "yellow"), Text("✗", "red")
    table = Table("", "", Column(overflow="fold"), box=None, show_header=False)  # a path that is cut short is none
    for package, found in versions().itertuples(index=False):
        table.add_row(optional if found == "not installed" else there, package, found)
    for what, seen, fine, needed, _ in checks:
        table.add_row(there if fine else missing if needed else optional, what, seen)
    console().print(table)
    for what, _, fine, needed, todo in checks:
        if not fine:
            console().print(f"{'Missing' if needed else 'Optional'}: {what}. {todo}")
    ready = all(fine or not needed for _, _, fine, needed, _ in checks)
    console().print(f"Ready for scale {scale}." if ready else f"Not ready for scale {scale}.")
    raise typer.Exit(0 if ready else 1)
