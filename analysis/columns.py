"""Growing numpy columns: objects in, a few bytes a row kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from analysis.errors import AnalysisError

Ints: TypeAlias = NDArray[np.int64]
Getter: TypeAlias = Callable[[Any], Any]

FLUSH_ROWS = 8192
"""Objects held before they become numbers. Below it the fixed cost of an array would show."""


class Columns:
    """Rows of equal fields, one numpy array a field.

    Args:
        fields: column name to its type and to the attribute of an appended object (dotted for an
            attribute of an attribute), or to a function of the object.
    """

    def __init__(self, fields: Mapping[str, tuple[str, str | Getter]]) -> None:
        self._types = {name: np.dtype(kind) for name, (kind, _) in fields.items()}
        self._getters: dict[str, Getter] = {
            name: attrgetter(get) if isinstance(get, str) else get
            for name, (_, get) in fields.items()
        }
        self._parts: dict[str, list[NDArray[Any]]] = {name: [] for name in fields}
        self._pending: list[Any] = []
        self._rows = 0

    def __getstate__(self) -> dict[str, Any]:
        """Pickle what was appended: a copy in another process can be read, not appended to."""
        self._flush()
        return {**self.__dict__, "_getters": {}}

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._rows

    @property
    def names(self) -> tuple[str, ...]:
        """The columns, in order."""
        return tuple(self._types)

    @property
    def row_bytes(self) -> int:
        """Bytes kept per row."""
        return sum(kind.itemsize for kind in self._types.values())

    def extend(self, objects: Sequence[Any]) -> None:
        """Append one row per object. The objects must not change until the next read."""
        self._pending += objects
        self._rows += len(objects)
        if len(self._pending) >= FLUSH_ROWS:
            self._flush()

    def append(self, item: Any) -> None:
        """Append the row of one object."""
        self._pending.append(item)
        self._rows += 1
        if len(self._pending) >= FLUSH_ROWS:
            self._flush()

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a column, shape (rows,), read-only.

        Raises:
            AnalysisError: a value did not fit the column; the message names it.
        """
        self._flush()
        parts = self._parts[name]
        if len(parts) != 1:
            whole = np.concatenate(parts) if parts else np.empty(0, self._types[name])
            whole.flags.writeable = False
            self._parts[name] = parts = [whole]
        return parts[0]

    def _flush(self) -> None:
        pending = self._pending
        if not pending:
            return
        count = len(pending)
        for name, kind in self._types.items():
            values = map(self._getters[name], pending)
            try:
                # A third faster than building a list first: no second pass over the objects.
                part = np.fromiter(values, kind, count)
            except (OverflowError, TypeError, ValueError) as exc:
                raise AnalysisError(f"column {name!r} ({kind}): {exc}") from None
            part.flags.writeable = False
            self._parts[name].append(part)
        self._pending = []
