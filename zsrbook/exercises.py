"""Exercises that check themselves, and checks that prove themselves.

A chapter makes an ``Exercise`` from a question's check, and calls it with the reader's answer. Behind the solution, in a cell that no page
shows, ``prove`` lets the solution and some planted wrong answers through the same check, so a check that is too easy or too hard breaks
the build.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


class Exercise:
    """A question; call it with an answer, and it prints what it thinks of it.

    Args:
        right: whether an answer is right. What it raises on an odd answer counts as no.
        hint: printed with "Not yet".
    """

    def __init__(self, right: Callable[[Any], bool], hint: str):
        self.right = right
        self.hint = hint

    def __call__(self, answer: Any) -> bool:
        """True if the answer is right; None is no answer yet."""
        if answer is None:
            print("Your turn: put your answer in place of None and run this cell again.")
            return False
        try:
            fine, problem = bool(self.right(answer)), ""
        except Exception as error:  # an answer can be anything, and fail in any way
            fine, problem = False, f"checking it raised {type(error).__name__}: {error}. "
        print("Right." if fine else f"Not yet: {problem}{self.hint}")
        return fine

    def prove(self, solution: Any, wrong: Iterable[Any]) -> None:
        """Hold the check against an answer that is right and others that are not.

        Raises:
            AssertionError: it refuses the solution, or lets a wrong answer pass.
        """
        assert self(solution), f"the check refuses its own solution, {solution!r}"
        for answer in [None, *wrong]:
            assert not self(answer), f"the check lets a wrong answer pass: {answer!r}"
