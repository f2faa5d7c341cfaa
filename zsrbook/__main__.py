"""``python -m zsrbook``: the commands, each of which lives beside what it serves."""

from __future__ import annotations

import signal
from importlib import import_module

import typer

from zsrbook.scale import ScaleError, current_scale, data_folder
from zsrbook.terminal import errors_for_people

app = typer.Typer(help="Four papers on zero-shot recommendation, re-run in an interactive book.", no_args_is_help=True)

#: module with a typer ``app`` -> the group that its commands stand in (None: at the top)
GROUPS = {"zsrbook.doctor": None, "zsrbook.data.commands": "data", "zsrbook.experiments.commands": None, "zsrbook.recommend": None}
interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if interruptible:  # to import them takes seconds; interrupted there, Python would print where it was
    signal.signal(signal.SIGINT, signal.SIG_DFL)
for module, name in GROUPS.items():
    app.add_typer(import_module(module).app, name=name)
if interruptible:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@app.callback()
def main() -> None:
    """Four papers on zero-shot recommendation, re-run in an interactive book."""
    with errors_for_people(ScaleError):
        current_scale()
        data_folder()


if __name__ == "__main__":
    app()
