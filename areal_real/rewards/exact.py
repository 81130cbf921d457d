"""Answers that must equal the reference to the letter."""

from __future__ import annotations


def score(reference: str, answer: str) -> float:
    """1.0 if both texts are equal, blanks around them aside; else 0.0."""
    return float(answer.strip() == reference.strip())
