"""The cost model of a weight transfer: a latency and a rate for each method, and what it misses."""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from analysis.calibration.least_squares import Fit, fit
from benchmarks.weight_transfer.updates import Update

if TYPE_CHECKING:
    from rich.table import Table

Statistic: TypeAlias = Callable[[Iterable[float]], float]

LOAD = ("latency_s", "per_byte_s", "shared_per_byte_s")
PUBLISH = ("latency_s", "per_byte_s")


@dataclasses.dataclass(frozen=True, slots=True)
class Method:
    """What one method costs.

    Publishing b bytes takes ``latency_s + per_byte_s * b``. A server that loads them while n - 1
    others do takes ``latency_s + (per_byte_s + (n - 1) * shared_per_byte_s) * b``: the last is 0
    where servers do not disturb each other, and as large as ``per_byte_s`` where they share all.

    Attributes:
        publish, load: the fits.
    """

    publish: Fit
    load: Fit

    def coefficient(self, found: Fit, name: str) -> float:
        """Of one of the fits.

        `fit` scales its coefficients up until the totals agree, for samples with a long tail. What
        is fitted to here has none, and the largest size would decide about all others.
        """
        return found[name] / (1 + found.tail)

    def publish_s(self, size_bytes: int) -> float:
        """From the end of a training step until servers can load."""
        per_byte_s = self.coefficient(self.publish, "per_byte_s")
        return self.coefficient(self.publish, "latency_s") + per_byte_s * size_bytes

    def load_s(self, size_bytes: int, sharing: int) -> float:
        """Of one server, while so many load."""
        per_byte_s = self.coefficient(self.load, "per_byte_s")
        per_byte_s += (sharing - 1) * self.coefficient(self.load, "shared_per_byte_s")
        return self.coefficient(self.load, "latency_s") + per_byte_s * size_bytes

    def total_s(self, size_bytes: int, servers: int, sharing: int) -> float:
        """Until all servers have loaded, so many at a time."""
        return -(-servers // sharing) * self.load_s(size_bytes, sharing)


def by_kind(updates: Iterable[Update]) -> dict[tuple[int, int, str, int | None], list[Update]]:
    """Updates by their `Update.key`."""
    kinds: dict[tuple[int, int, str, int | None], list[Update]] = defaultdict(list)
    for update in updates:
        kinds[update.key].append(update)
    return kinds


def values(updates: Iterable[Update], name: str) -> list[float]:
    """Of an attribute, for all updates; of ``loads_s`` for all servers."""
    found = [getattr(update, name) for update in updates]
    return [x for value in found for x in (value if isinstance(value, tuple) else (value,))]


def fit_methods(
    updates: Sequence[Update], sizes: Collection[int], statistic: Statistic = statistics.median
) -> dict[str, Method]:
    """Fit each method to the updates of these sizes: to one number of each kind.

    A machine with other work has outliers, which belong to that work and not to the method.

    Args:
        updates: all.
        sizes: in bytes, of those that are fitted to.
        statistic: makes that number of the times of a kind.

    Raises:
        ValueError: a method has none of these sizes.
    """
    kinds = by_kind(x for x in updates if x.size_bytes in sizes)
    found = {}
    for method in dict.fromkeys(update.method for update in updates):
        used = [its for (_, _, name, _), its in kinds.items() if name == method]
        size = np.array([float(its[0].size_bytes) for its in used])
        others = np.array([its[0].sharing - 1.0 for its in used])
        publish = np.array([statistic(values(its, "publish_s")) for its in used])
        load = np.array([statistic(values(its, "loads_s")) for its in used])
        one = np.ones(len(used))
        found[method] = Method(
            fit(f"publish by {method}", PUBLISH, np.column_stack([one, size]), publish, publish),
            fit(f"load by {method}", LOAD, np.column_stack([one, size, others * size]), load, load),
        )
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """All updates of one kind, and what the model says of them.

    Attributes:
        updates: not empty, of one `Update.key`.
        method: the model's.
        fitted: whether they were fitted to.
        statistic: what the model is held against.
    """

    updates: Sequence[Update]
    method: Method
    fitted: bool
    statistic: Statistic

    @property
    def first(self) -> Update:
        """One of them."""
        return self.updates[0]

    def median(self, name: str) -> float:
        """Of an attribute of the updates."""
        return statistics.median(values(self.updates, name))

    def least(self, name: str) -> float:
        """Likewise."""
        return min(values(self.updates, name))

    def held_against(self, name: str) -> float:
        """What the model should say."""
        return self.statistic(values(self.updates, name))

    @property
    def predicted_load_s(self) -> float:
        """Of one server."""
        return self.method.load_s(self.first.size_bytes, self.first.sharing)

    @property
    def load_error(self) -> float:
        """Prediction over measurement, less 1."""
        return self.predicted_load_s / self.held_against("loads_s") - 1

    @property
    def total_error(self) -> float:
        """Likewise, of the time until all have loaded."""
        first = self.first
        predicted = self.method.total_s(first.size_bytes, first.servers, first.sharing)
        return predicted / self.held_against("total_s") - 1

    @property
    def publish_error(self) -> float:
        """Likewise, of publishing."""
        published_s = self.held_against("publish_s")
        return self.method.publish_s(self.first.size_bytes) / published_s - 1


def cells(
    updates: Sequence[Update],
    fitted_sizes: Collection[int],
    statistic: Statistic = statistics.median,
) -> list[Cell]:
    """Updates by kind, in the order of size, servers and method, each with the model's word."""
    methods = fit_methods(updates, fitted_sizes, statistic)
    kinds = by_kind(updates)
    order = sorted(kinds, key=lambda key: (*key[:2], list(methods).index(key[2]), key[3] or 0))
    return [Cell(kinds[key], methods[key[2]], key[0] in fitted_sizes, statistic) for key in order]


HEADINGS = (
    *("MB", "servers", "by", "at a time", "publish", "load, least", "load", "MB/s"),
    *("all loaded", "stood still", "of the time", "all stood", "load by the model", "error"),
    *("error, all loaded", ""),
)


def rows(shown: Sequence[Cell]) -> list[tuple[str, ...]]:
    """All cells, as `HEADINGS` has them; times are medians, in milliseconds."""
    return [_row(cell) for cell in shown]


def _row(cell: Cell) -> tuple[str, ...]:
    first = cell.first
    size, load_s, total_s = first.size_bytes, cell.median("loads_s"), cell.median("total_s")

    def ms(seconds: float) -> str:
        return f"{1e3 * seconds:.0f}"

    return (
        f"{size / 1e6:.1f}",
        f"{first.servers}",
        first.method,
        "all" if first.servers_at_once is None else f"{first.servers_at_once}",
        ms(cell.median("publish_s")),
        ms(cell.least("loads_s")),
        ms(load_s),
        f"{size / load_s / 1e6:.0f}",
        ms(total_s),
        ms(cell.median("still_s")),
        f"{cell.median('still_s') / (first.servers * total_s):.0%}",
        ms(cell.median("all_still_s")),
        ms(cell.predicted_load_s),
        f"{cell.load_error:+.0%}",
        f"{cell.total_error:+.0%}",
        "fitted" if cell.fitted else "predicted",
    )


def table(shown: Sequence[Cell], title: str) -> Table:
    """`rows`, for people."""
    from rich.table import Table

    found = Table(title=title, title_justify="left")
    for heading in HEADINGS:
        found.add_column(heading, justify="left" if heading in ("by", "") else "right")
    for row in rows(shown):
        found.add_row(*row)
    return found


def markdown(shown: Sequence[Cell]) -> str:
    """`rows`, for a page."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---:|---:|---" + "|---:" * 12 + "|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows(shown)]
    return "\n".join(lines)


def remarks(shown: Sequence[Cell]) -> list[str]:
    """The coefficients, and how far off the model is on what it was fitted to and on the rest."""
    lines = []
    methods = {cell.first.method: cell.method for cell in shown}
    for name, method in methods.items():
        for what in (method.publish, method.load):
            said = [f"{1e3 * method.coefficient(what, 'latency_s'):.1f} ms"]
            for c in what.coefficients[1:]:
                text = f"{method.coefficient(what, c.name) * 1e9:.3g} ms/MB"
                text += " for each other server" if "shared" in c.name else ""
                said.append(text + ("" if c.determined else " (not determined)"))
            lines.append(f"{what.phase}: {' + '.join(said)}")
        for word, fitted in (("fitted", True), ("predicted", False)):
            its = [c for c in shown if c.first.method == name and c.fitted is fitted]
            if its:
                lines.append(
                    f"{name}, {word}: median error {_median(c.load_error for c in its)} of a load,"
                    f" {_median(c.total_error for c in its)} of all loads,"
                    f" {_median(c.publish_error for c in its)} of publishing"
                )
    return lines


def _median(errors: object) -> str:
    return f"{statistics.median(abs(x) for x in errors):.0%}"  # type: ignore[attr-defined]
