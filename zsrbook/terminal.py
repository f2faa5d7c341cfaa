"""What every command says, and how it fails."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console


def say(text: str) -> None:
    """One line on the terminal, as it is: no markup, no wrapping."""
    Console().print(text, markup=False, highlight=False, soft_wrap=True)  # made here, since it takes its width when it is made


@contextmanager
def errors_for_people(*kinds: type[Exception]) -> Iterator[None]:
    """What a person can mend is said without a traceback, and ends with exit code 1."""
    try:
        yield
    except kinds as error:
        say(f"error: {error}")
        raise typer.Exit(1) from None
