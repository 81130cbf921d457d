"""What counts as the same mathematical answer."""

import pytest

from areal_real.rewards.math_answer import last_box, score


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        (r"\frac{1}{2}", r"so it is \boxed{0.5}"),
        ("1/2", r"\boxed{\frac{2}{4}}"),
        ("42", "The final answer is 42. I hope it is correct."),
        ("42", r"first \boxed{41}, no: \boxed{42}"),
        ("42", r"\boxed{42}. The final answer is 41. I hope it is correct."),
        (r"\boxed{2\sqrt{3}}", r"$\boxed{\sqrt{12}}$"),
        ("$x^2 + 1$", r"\boxed{1 + x^2}"),
        (r"\{1, 2\}", r"\boxed{\{2, 1\}}"),
        ("(1, 2)", r"\boxed{(1,2)}"),
        ("1,000", r"\boxed{1000}"),
        (r"50\%", r"\boxed{50\%}"),
        ("7", "we get 3 and then 7"),
    ],
)
def test_equal(reference: str, answer: str) -> None:
    assert score(reference, answer) == 1.0


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("42", r"\boxed{43}"),
        ("42", ""),
        ("42", "I do not know"),
        ("42", r"\boxed{}"),
        ("42", r"42 it is, or \boxed{41}"),
        ("(1, 2)", r"\boxed{(2, 1)}"),
        ("x + 1", r"\boxed{x + 2}"),
        ("42", r"\boxed{" + "{" * 50),
        ("42", r"\boxed{__import__('os')._exit(0)}"),
        ("42", "\x00\ud800\\boxed{\\frac{}{}}"),
        ("42", r"\boxed{\infty}"),
    ],
)
def test_not_equal(reference: str, answer: str) -> None:
    assert score(reference, answer) == 0.0


@pytest.mark.parametrize("reference", ["", "   ", r"\boxed{}"])
def test_a_reference_without_an_answer_is_the_users_error(reference: str) -> None:
    with pytest.raises(ValueError, match="no mathematical answer in the reference"):
        score(reference, "1")


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"\boxed{1}", r"\boxed{1}"),
        (r"\boxed{1} or \boxed{\frac{1}{2}}.", r"\boxed{\frac{1}{2}}"),
        (r"\boxed{1} and then \boxed{2", r"\boxed{1}"),
        (r"\boxed {\{1\}} }", r"\boxed {\{1\}}"),
        (r"\boxed{1 + \boxed{2}}", r"\boxed{1 + \boxed{2}}"),
        (r"\boxed 1 {2}", ""),
        ("}{" * 1000, ""),
    ],
)
def test_the_last_closed_box(text: str, box: str) -> None:
    assert last_box(text) == box
