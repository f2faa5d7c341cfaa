"""A check says what it thinks of an answer, whatever the answer, and proves itself."""

import pytest

from zsrbook.exercises import Exercise

THREE = Exercise(lambda n: n == 3, "count the wheels.")


def test_it_tells_right_from_wrong_and_from_nothing(capsys):
    assert [THREE(answer) for answer in (3, 4, None)] == [True, False, False]
    assert capsys.readouterr().out.splitlines() == [
        "Right.",
        "Not yet: count the wheels.",
        "Your turn: put your answer in place of None and run this cell again.",
    ]


def test_an_answer_that_cannot_be_checked_is_wrong_and_says_why(capsys):
    root = Exercise(lambda x: abs(x - 1.5) < 0.01, "a number, please.")
    assert not root("three")
    assert "TypeError" in capsys.readouterr().out


def test_a_proof_holds_the_check_against_both_sides():
    THREE.prove(3, wrong=[2, "3", [3]])
    with pytest.raises(AssertionError, match="refuses its own solution, 4"):
        THREE.prove(4, wrong=[])
    with pytest.raises(AssertionError, match="lets a wrong answer pass: 3"):
        THREE.prove(3, wrong=[2, 3])
