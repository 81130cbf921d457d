"""Events and commands as text that can be read: long lists of ids shortened, differences shown."""

from __future__ import annotations

import dataclasses

_LONG = 8
"""So many items of a list are written out."""
_SHOWN = 4
"""So many are, of a longer one, from one before the first that differs."""


def difference(recorded: object, replayed: object) -> tuple[int, str, str]:
    """Spell what differs in two decisions.

    Args:
        recorded: a tuple of commands, or an error's text.
        replayed: the other one.

    Returns:
        How many commands are equal before the first that differs; and for each side that command
        with the number of those that follow.
    """
    if not isinstance(recorded, tuple) or not isinstance(replayed, tuple):
        return 0, _decided(recorded, replayed, 0), _decided(replayed, recorded, 0)
    alike = _leading(recorded, replayed)
    return alike, _decided(recorded, replayed, alike), _decided(replayed, recorded, alike)


def spelled(message: object, other: object = None) -> str:
    """Spell a message.

    Args:
        message: an event or a command; anything else is spelt by `str`.
        other: where it is of the same class, lists are shown from where they begin to differ.
    """
    if not dataclasses.is_dataclass(message) or isinstance(message, type):
        return str(message)
    parts = []
    for field in dataclasses.fields(message):
        theirs = getattr(other, field.name, None) if type(other) is type(message) else None
        parts.append(f"{field.name}={_value(getattr(message, field.name), theirs)}")
    return f"{type(message).__name__}({', '.join(parts)})"


def _decided(mine: object, theirs: object, alike: int) -> str:
    if not isinstance(mine, tuple):
        return str(mine)
    rest = mine[alike:]
    if not rest:
        return "no more commands" if alike else "no command"
    other = theirs[alike] if isinstance(theirs, tuple) and len(theirs) > alike else None
    more = f", and {len(rest) - 1} more" if len(rest) > 1 else ""
    return spelled(rest[0], other) + more


def _value(mine: object, theirs: object) -> str:
    if not isinstance(mine, tuple) or len(mine) <= _LONG:
        return repr(mine)
    first = 0
    if isinstance(theirs, tuple):
        alike = _leading(mine, theirs)
        first = max(0, min(alike - 1, len(mine) - _SHOWN)) if alike < len(mine) else 0
    shown = ", ".join(map(repr, mine[first : first + _SHOWN]))
    before = "..., " if first else ""
    after = ", ..." if first + _SHOWN < len(mine) else ""
    return f"({before}{shown}{after} [{len(mine):,} in all])"


def _leading(a: tuple[object, ...], b: tuple[object, ...]) -> int:
    """How many items are equal before the first that differs."""
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return index
    return min(len(a), len(b))
