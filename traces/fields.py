"""What one column of a trace may hold.

Every field checks values in two ways that accept the same things: a whole column at once (fast,
only says yes or no) and one value at a time (slow, used to name the culprit).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1


class Field(Protocol):
    """One column's type and range."""

    @property
    def wanted(self) -> str:
        """What a value must be, to follow the column's name in an error."""
        ...

    @property
    def dtype(self) -> str:
        """The numpy dtype of a checked column."""
        ...

    @property
    def as_text(self) -> bool:
        """Whether a CSV reader must leave the column as text."""
        ...

    def check(self, value: object) -> object:
        """Return a typed value (JSON, Parquet) as stored, or raise ValueError."""
        ...

    def parse(self, text: str) -> object:
        """Return the value of a CSV field, or raise ValueError."""
        ...

    def column(self, series: pd.Series[Any]) -> NDArray[Any] | None:
        """Return a column of shape (rows,) in one go, or None where a value may be wrong."""
        ...


def _number(text: str) -> int | float:
    """Parse decimal text; Python's own extras (underscores, other scripts' digits) are refused."""
    stripped = text.strip()
    if "_" in stripped or not stripped.isascii():
        raise ValueError(text)
    try:
        return int(stripped)
    except ValueError:
        return float(stripped)


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number in [minimum, maximum]; ``3.0`` counts, ``true`` and ``"3"`` do not."""

    minimum: int = 0
    maximum: int = INT32_MAX
    as_text: bool = False

    @property
    def wanted(self) -> str:
        """The range, in words."""
        return f"must be a whole number from {self.minimum} to {self.maximum}"

    @property
    def dtype(self) -> str:
        """Always int64 while reading; the schema narrows it."""
        return "int64"

    def check(self, value: object) -> int:
        """Return ``value`` as int, or raise ValueError."""
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(self.wanted)
        if not self.minimum <= value <= self.maximum:
            raise ValueError(self.wanted)
        return value

    def parse(self, text: str) -> int:
        """Return the number written in ``text``, or raise ValueError."""
        return self.check(_number(text))

    def column(self, series: pd.Series[Any]) -> NDArray[Any] | None:
        """Return int64 of shape (rows,), or None."""
        values = _plain_numbers(series)
        if values is None or not bool(np.all(np.isfinite(values))):
            return None
        if values.dtype.kind == "f" and not bool(np.all(values == np.rint(values))):
            return None
        if not bool(np.all((values >= self.minimum) & (values <= self.maximum))):
            return None
        return values.astype(np.int64)


@dataclass(frozen=True, slots=True)
class Real:
    """A finite number in [minimum, maximum]; with ``missing_ok``, NaN, null or nothing too."""

    minimum: float = -math.inf
    maximum: float = math.inf
    missing_ok: bool = False
    as_text: bool = False

    @property
    def wanted(self) -> str:
        """The range, in words."""
        text = "must be a finite number"
        if self.minimum > -math.inf:
            text += f", at least {self.minimum:g}"
        if self.maximum < math.inf:
            text += f", at most {self.maximum:g}"
        return text + (", or missing" if self.missing_ok else "")

    @property
    def dtype(self) -> str:
        """Always float64."""
        return "float64"

    def check(self, value: object) -> float:
        """Return ``value`` as float (NaN where missing is allowed), or raise ValueError."""
        if isinstance(value, np.generic):
            value = value.item()
        if self.missing_ok and (value is None or value != value):
            return math.nan
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(self.wanted)
        try:
            number = float(value)
        except OverflowError:
            raise ValueError(self.wanted) from None
        if not (math.isfinite(number) and self.minimum <= number <= self.maximum):
            raise ValueError(self.wanted)
        return number

    def parse(self, text: str) -> float:
        """Return the number written in ``text``, or raise ValueError."""
        if self.missing_ok and not text.strip():
            return math.nan
        return self.check(_number(text))

    def column(self, series: pd.Series[Any]) -> NDArray[Any] | None:
        """Return float64 of shape (rows,), or None."""
        values = _plain_numbers(series)
        if values is None:
            return None
        values = values.astype(np.float64)
        good = np.isfinite(values) & (values >= self.minimum) & (values <= self.maximum)
        if self.missing_ok:
            good |= np.isnan(values)
        return values if bool(np.all(good)) else None


@dataclass(frozen=True, slots=True)
class Key:
    """A name: text that is not empty, or a whole number (kept apart from the text ``"7"``)."""

    as_text: bool = True
    wanted: str = "must be a name or a whole number"
    dtype: str = "object"

    def check(self, value: object) -> object:
        """Return ``value``, or raise ValueError."""
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise ValueError(self.wanted)
        return value

    def parse(self, text: str) -> object:
        """Return ``text``, or raise ValueError where it is empty."""
        return self.check(text)

    def column(self, series: pd.Series[Any]) -> NDArray[Any] | None:
        """Return objects of shape (rows,), or None."""
        if series.dtype.kind not in "iu" and not bool(
            series.map(lambda value: isinstance(value, str) and value != "").all()
        ):
            return None
        return series.to_numpy(dtype=object)


_TIMESTAMP = r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)?"


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A date and time such as ``2023-11-16 18:17:03.9799600``, UTC unless it says otherwise."""

    as_text: bool = True
    wanted: str = "must be a date and time like 2023-11-16 18:17:03.979"
    dtype: str = "int64"

    def check(self, value: object) -> int:
        """Return nanoseconds since 1970, or raise ValueError."""
        import pandas as pd

        if not isinstance(value, str) or not re.fullmatch(_TIMESTAMP, value):
            raise ValueError(self.wanted)
        stamp = pd.Timestamp(value)
        if stamp.tzinfo is None:
            stamp = stamp.tz_localize("UTC")
        return int(stamp.as_unit("ns").value)

    def parse(self, text: str) -> int:
        """Return nanoseconds since 1970, or raise ValueError."""
        return self.check(text.strip())

    def column(self, series: pd.Series[Any]) -> NDArray[Any] | None:
        """Return int64 nanoseconds of shape (rows,), or None."""
        import pandas as pd

        try:
            if not bool(series.str.fullmatch(_TIMESTAMP).all()):
                return None
            stamps = pd.to_datetime(series, format="ISO8601", utc=True)
            return stamps.dt.as_unit("ns").to_numpy(dtype="datetime64[ns]").astype(np.int64)
        except (ValueError, AttributeError):
            return None


@dataclass(frozen=True, slots=True)
class Spans:
    """Runs of ``[weight_version, tokens]``, in the order they were generated; may be empty."""

    as_text: bool = True
    wanted: str = "must be a list of [weight_version >= 0, tokens >= 1] pairs"
    dtype: str = "object"

    def check(self, value: object) -> tuple[tuple[int, int], ...]:
        """Return the runs as a tuple of pairs, or raise ValueError."""
        if not isinstance(value, list | tuple | np.ndarray):
            raise ValueError(self.wanted)
        version, tokens = Whole(0, INT64_MAX), Whole(1)
        spans = []
        for pair in value:
            if not isinstance(pair, list | tuple | np.ndarray) or len(pair) != 2:
                raise ValueError(self.wanted)
            spans.append((version.check(pair[0]), tokens.check(pair[1])))
        return tuple(spans)

    def parse(self, text: str) -> tuple[tuple[int, int], ...]:
        """Raise ValueError: runs are not stored in CSV."""
        raise ValueError(self.wanted)

    def column(self, series: pd.Series[Any]) -> NDArray[Any] | None:
        """Return None: runs are checked one by one."""
        return None


def _plain_numbers(series: pd.Series[Any]) -> NDArray[Any] | None:
    # `kind` is also defined by pandas' own nullable dtypes, whose missing values
    # cannot become numpy numbers: leave those to the slow path.
    if series.dtype.kind not in "iuf" or bool(series.hasnans and series.dtype.kind != "f"):
        return None
    return series.to_numpy()
