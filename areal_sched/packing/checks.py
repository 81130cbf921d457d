"""Checks that every packing function makes on its input, and the errors they raise."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index


class PackingError(ValueError):
    """An argument of a packing function is wrong; the message names the place and the value."""


class OversizedSequence(PackingError):
    """One sequence alone is larger than a micro-batch may be.

    Attributes:
        index: Position of the sequence in the input.
        size: Its size, in the unit of the capacity (tokens, or the caller's cost).
        capacity: The most one micro-batch may hold.
    """

    def __init__(self, index: int, size: int, capacity: int) -> None:
        """Keep the three numbers and say them in one line."""
        super().__init__(
            f"sequence {index} has size {size}, over the micro-batch capacity {capacity}"
        )
        self.index = index
        self.size = size
        self.capacity = capacity

    def __reduce__(self) -> tuple[type[OversizedSequence], tuple[int, int, int]]:
        """Let the error travel between processes: its arguments are not its message."""
        return type(self), (self.index, self.size, self.capacity)


def checked_sizes(name: str, values: Sequence[int]) -> list[int]:
    """Return `values` as a list of plain integers, all of them positive.

    Args:
        name: What the caller calls the argument; it starts the error message.
        values: Integers, or what converts to one without loss (numpy integers do).

    Raises:
        PackingError: A value is not an integer or is below one.
    """
    try:
        plain = list(map(index, values))
    except TypeError:
        for position, value in enumerate(values):
            if not hasattr(value, "__index__"):
                raise PackingError(f"{name}[{position}] is {value!r}, not an integer") from None
        raise
    if plain and min(plain) < 1:
        position = next(i for i, value in enumerate(plain) if value < 1)
        raise PackingError(f"{name}[{position}] is {plain[position]}, must be at least 1")
    return plain


def checked_capacity(sizes: Sequence[int], capacity: int) -> int:
    """Return the capacity as a plain integer, if every sequence fits under it alone.

    Raises:
        PackingError: The capacity is not an integer or is below one.
        OversizedSequence: A sequence is larger than the capacity; the first such is named.
    """
    capacity = checked_count("capacity", capacity)
    if sizes and max(sizes) > capacity:
        position = next(i for i, size in enumerate(sizes) if size > capacity)
        raise OversizedSequence(position, sizes[position], capacity)
    return capacity


def checked_count(name: str, value: int) -> int:
    """Return `value` as a plain integer of at least one.

    Raises:
        PackingError: `value` is not an integer or is below one.
    """
    if not hasattr(value, "__index__"):
        raise PackingError(f"{name} is {value!r}, not an integer")
    if value < 1:
        raise PackingError(f"{name} is {value}, must be at least 1")
    return index(value)
