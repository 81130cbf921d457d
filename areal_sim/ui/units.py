"""Numbers as the page writes them."""

from __future__ import annotations

import re

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~$<>:])")


def plain(text: str) -> str:
    """A text that Markdown shows as it is: file names and messages have signs it would obey."""
    return _MARKDOWN.sub(r"\\\1", text)


def hours(value: float) -> str:
    """Hours; minutes where there are few."""
    return f"{value * 60:.1f} min" if value < 1 else f"{value:,.1f} h"


def seconds(value: float) -> str:
    """Seconds of a step."""
    return f"{value:,.1f} s"


def dollars(value: float) -> str:
    """Money, with cents where there is little."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"


def energy(value: float) -> str:
    """Kilowatt-hours."""
    return f"{value:,.0f}" if value >= 10 else f"{value:,.2f}"


def share(value: float) -> str:
    """A share in per cent."""
    return f"{100 * value:.1f} %"


def versions(value: float) -> str:
    """A lag."""
    return f"{value:.2f} versions"


def relative(before: float, after: float) -> str | None:
    """How much a number changed, in per cent; None: not to be seen."""
    if before == 0:
        return None
    change = 100 * (after / before - 1)
    return None if abs(change) < 0.05 else f"{change:+.1f} %"


def points(before: float, after: float) -> str | None:
    """How much a share changed, in percentage points; None: not to be seen."""
    change = 100 * (after - before)
    return None if abs(change) < 0.05 else f"{change:+.1f} points"


def difference(before: float, after: float) -> str | None:
    """How much a lag changed; None: not to be seen."""
    return None if abs(after - before) < 0.005 else f"{after - before:+.2f}"
