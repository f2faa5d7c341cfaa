"""What every command says, and how it fails."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

Encoding = Annotated[
    str, typer.Option("--encoding", help="of tables of your own that are text (CSV, TSV), such as latin-1, cp1252 (Excel on Windows) or utf-16")
]


def console(error: bool = False) -> Console:
    """The terminal, which shows texts as they are: a path may hold ``[brackets]``, and an id ``:colons:``. What it can't show becomes ``?``."""
    stream = sys.stderr if error else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")  # such as cp1252, where output goes to a file on Windows
    return Console(stderr=error, markup=False, highlight=False, emoji=False)  # made anew, since it takes its width when it is made


def say(text: str, error: bool = False) -> None:
    """One line on the terminal, not wrapped."""
    console(error).print(text, soft_wrap=True)


@contextmanager
def errors_for_people(*kinds: type[Exception], interrupted: str = "interrupted") -> Iterator[None]:
    """What a person can mend is said without a traceback, on the error stream, and ends with exit code 1; an interruption with 130."""
    try:
        yield
    except kinds as error:
        say(f"error: {error}", error=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        say(interrupted, error=True)
        raise typer.Exit(130) from None
