"""Whether what was sampled grows: robust slopes over training steps, against stated limits."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence

from benchmarks.soak_samples import Sample

WARM_UP_STEPS = 40
"""Steps that are not judged: allocators, caches of prefixes and lazily loaded libraries fill up."""

BLOCK_STEPS = 10
"""Steps that become one point of a slope: a checkpoint, made every so many, is in each of them.

Samples within a block resemble each other, so an interval that counted them as independent would be
too narrow.
"""

LEAST_BLOCKS = 6
"""Fewer points have no interval worth the name: with 6 it is from the second-lowest of 15 slopes
to the second-highest."""

CONFIDENCE = 0.95

MEMORY_LIMIT_KB_PER_STEP = 32.0
"""Of one process, at the upper end of the interval: 2 kB of each of a step's 16 trajectories.

What is kept by mistake is most likely kept of each trajectory. A request with the tokens it brought
takes 3.6 kB, so a process that kept it would be found. 260 bytes, a bare `Rollout`, would not: for
the controller `tests/real/run/test_nothing_is_kept.py` counts every byte. At this limit 10,000
steps take 320 MB.
"""

FLOOR_LIMIT_FDS = 5
"""Descriptors by which the floor, the fewest open at any moment of a block, may rise from the first
third of the judged blocks to the last. A leak, once for each checkpoint or oftener, raises it by 10
and more in 200 steps. Connections that are never all closed at once were seen to move it by 4.
"""

HISTORY_LIMIT_KB_PER_STEP = 64.0
"""Of a part of the run directory that is a history, and grows by design."""

BOUNDED_LIMIT_KB_PER_STEP = 4.0
"""Of a part that must not grow: what is kept there is deleted again. 40 MB in 10,000 steps."""

HISTORIES = ("journal", "logs", "metrics", "tensorboard")
"""Parts of the run directory that grow by design."""


@dataclasses.dataclass(frozen=True, slots=True)
class Slope:
    """Growth per step, in the unit of the values, and the ends of its 95 % interval."""

    per_step: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One thing that was judged.

    Attributes:
        name: process, or part of the run directory.
        what: ``memory``, ``descriptors`` or ``disk``.
        first: at the first judged block: bytes of memory, median; bytes on disk, the most;
            descriptors, the fewest.
        last: at the last.
        most: at any moment after warm-up.
        slope: bytes or descriptors per step.
        rss, uss: of resident memory, and of what only this process maps; memory only.
        limit: as `verdict` says.
        kept: whether it is.
        verdict: in words.
    """

    name: str
    what: str
    first: float
    last: float
    most: float
    slope: Slope
    rss: Slope | None
    uss: Slope | None
    limit: float
    kept: bool
    verdict: str


def slope_of(points: Sequence[tuple[float, float]]) -> Slope:
    """The Theil-Sen slope: the median of the slopes of all pairs of points, with its interval.

    Args:
        points: (step, value), at least `LEAST_BLOCKS`.

    Raises:
        ValueError: fewer points, or all at one step.

    Source: P. K. Sen, Estimates of the regression coefficient based on Kendall's tau, JASA 1968.
    """
    from scipy.stats import theilslopes

    steps, values = [step for step, _ in points], [value for _, value in points]
    if len(points) < LEAST_BLOCKS or len(set(steps)) < 2:
        raise ValueError(f"{len(points)} points: at least {LEAST_BLOCKS} are needed")
    found = theilslopes(values, steps, alpha=CONFIDENCE)
    return Slope(float(found.slope), float(found.low_slope), float(found.high_slope))


def blocks_of(
    values: Sequence[tuple[int, float]],
    warm_up: int,
    one: Callable[[Sequence[float]], float],
    last_step: int,
) -> list[tuple[float, float]]:
    """One point for each block of steps after warm-up: its middle, and `one` of its values.

    Args:
        values: (steps finished, value), in order of time.
        warm_up: values before so many finished steps are left out.
        one: makes a block's values one.
        last_step: the last finished one: a block that it does not fill is left out.
    """
    judged = [((step - warm_up) // BLOCK_STEPS, value) for step, value in values if step >= warm_up]
    whole = (last_step - warm_up) // BLOCK_STEPS
    return [
        (warm_up + (block + 0.5) * BLOCK_STEPS, one([value for _, value in group]))
        for block, group in itertools.groupby(judged, key=lambda each: each[0])
        if block < whole
    ]


def judge(samples: Sequence[Sample], warm_up: int = WARM_UP_STEPS) -> list[Row]:
    """Judge every process that lived throughout the judged steps, and every part on disk.

    Args:
        samples: in order of time.
        warm_up: steps that are not judged.

    Raises:
        ValueError: there are too few steps.
    """
    last_step = samples[-1].step if samples else 0
    least = warm_up + LEAST_BLOCKS * BLOCK_STEPS
    if last_step < least:
        raise ValueError(f"{last_step} steps: at least {least} are needed for a slope")
    rows: list[Row] = []
    for name in throughout(samples, warm_up):
        memory = [(x.step, x.processes[name]) for x in samples if name in x.processes]
        rows.append(_memory(name, memory, warm_up, last_step))
        fds = [(step, float(each.fds)) for step, each in memory]
        rows.append(_descriptors(name, fds, warm_up, last_step))
    for part in samples[-1].disk_bytes:
        sizes = [(x.step, float(x.disk_bytes.get(part, 0))) for x in samples]
        rows.append(_disk(part, sizes, warm_up, last_step))
    return rows


def throughout(samples: Sequence[Sample], warm_up: int) -> list[str]:
    """Names of processes that were there from the first judged step to the last."""
    wanted = {x.step for x in samples if x.step >= warm_up}
    wanted.discard(samples[-1].step)  # at the end parts are taken down
    seen: dict[str, set[int]] = {}
    for sample in samples:
        for name in sample.processes:
            seen.setdefault(name, set()).add(sample.step)
    return [name for name, steps in seen.items() if wanted <= steps]


def passing(samples: Sequence[Sample], warm_up: int) -> dict[str, int]:
    """Processes that came or went after warm-up: how many of each part."""
    stay = set(throughout(samples, warm_up))
    names = {name for x in samples if warm_up <= x.step < samples[-1].step for name in x.processes}
    found: dict[str, int] = {}
    for name in sorted(names - stay):
        part = " ".join(word for word in name.split() if not word.isdigit())
        found[part] = found.get(part, 0) + 1
    return found


def _memory(name: str, readings: Sequence[tuple[int, object]], warm_up: int, last: int) -> Row:
    def series(field: str) -> list[tuple[int, float]]:
        return [(step, float(getattr(each, field))) for step, each in readings]

    def points(field: str) -> list[tuple[float, float]]:
        return blocks_of(series(field), warm_up, statistics.median, last)

    row = _row(
        name, "memory", points("own_bytes"), series("own_bytes"), warm_up, MEMORY_LIMIT_KB_PER_STEP
    )
    rss, uss = slope_of(points("rss_bytes")), slope_of(points("uss_bytes"))
    return dataclasses.replace(row, rss=rss, uss=uss)


def _disk(part: str, sizes: Sequence[tuple[int, float]], warm_up: int, last: int) -> Row:
    # The most in a block: what is written and deleted again goes up and down within it.
    points = blocks_of(sizes, warm_up, max, last)
    history = part in HISTORIES
    limit = HISTORY_LIMIT_KB_PER_STEP if history else BOUNDED_LIMIT_KB_PER_STEP
    return _row(part, "disk", points, sizes, warm_up, limit)


def _row(
    name: str,
    what: str,
    points: Sequence[tuple[float, float]],
    values: Sequence[tuple[int, float]],
    warm_up: int,
    limit_kb: float,
) -> Row:
    """A row of bytes: flat if even the upper end of the slope's interval is below the limit."""
    slope = slope_of(points)
    kept = slope.high <= limit_kb * 1e3
    if kept:
        known = "grows by design" if name in HISTORIES and what == "disk" else "flat"
        verdict = f"{known}: at most {limit_kb:g} kB/step"
    elif slope.low > limit_kb * 1e3:
        verdict = f"GROWS: above {limit_kb:g} kB/step"
    else:
        verdict = f"NOT SHOWN FLAT: may be above {limit_kb:g} kB/step; run longer"
    return Row(
        name=name,
        what=what,
        first=points[0][1],
        last=points[-1][1],
        most=max(value for step, value in values if step >= warm_up),
        slope=slope,
        rss=None,
        uss=None,
        limit=limit_kb * 1e3,
        kept=kept,
        verdict=verdict,
    )


def _descriptors(name: str, fds: Sequence[tuple[int, float]], warm_up: int, last: int) -> Row:
    floors = blocks_of(fds, warm_up, min, last)
    third = max(1, len(floors) // 3)
    risen = min(v for _, v in floors[-third:]) - min(v for _, v in floors[:third])
    kept = risen <= FLOOR_LIMIT_FDS
    return Row(
        name=name,
        what="descriptors",
        first=floors[0][1],
        last=floors[-1][1],
        most=max(value for step, value in fds if step >= warm_up),
        slope=slope_of(floors),
        rss=None,
        uss=None,
        limit=FLOOR_LIMIT_FDS,
        kept=kept,
        verdict=f"no growth: {risen:+g}" if kept else f"GROWS: {risen:+g}",
    )


def text_of(rows: Sequence[Row], passed: Mapping[str, int], left: Sequence[str]) -> str:
    """The tables, and how many limits are broken.

    Args:
        rows: as judged.
        passed: processes that came or went after warm-up.
        left: what the run left behind after its end.
    """
    memory = [
        (
            row.name,
            f"{row.first / 1e6:.1f}",
            f"{row.last / 1e6:.1f}",
            f"{row.slope.per_step / 1e3:+.1f}",
            f"{row.slope.low / 1e3:+.1f} to {row.slope.high / 1e3:+.1f}",
            f"{row.slope.per_step / 1e3:+.1f}",  # kB a step are MB per 1,000 steps
            *(
                "" if slope is None else f"{slope.per_step / 1e3:+.1f}"
                for slope in (row.rss, row.uss)
            ),
            row.verdict,
        )
        for row in rows
        if row.what == "memory"
    ]
    heads = ("", "first", "last", "kB/step", "95 % interval", "MB/1000 steps")
    fds = [
        (row.name, f"{row.first:g}", f"{row.last:g}", f"{row.most:g}", row.verdict)
        for row in rows
        if row.what == "descriptors"
    ]
    disk = [
        (
            row.name,
            f"{row.first / 1e6:.3f}",
            f"{row.last / 1e6:.3f}",
            f"{row.slope.per_step / 1e3:+.2f}",
            f"{row.slope.low / 1e3:+.2f} to {row.slope.high / 1e3:+.2f}",
            f"{row.slope.per_step / 1e3:+.2f}",
            row.verdict,
        )
        for row in rows
        if row.what == "disk"
    ]
    lines = ["memory that no file backs, MB"]
    lines += _table((*heads, "RSS kB/step", "USS kB/step", "verdict"), memory)
    lines += ["", "open file descriptors: the fewest in the first and the last block"]
    lines += _table(("", "first", "last", "most", "verdict"), fds)
    lines += ["", "on disk, MB: the most in the first and the last block"]
    lines += _table((*heads, "verdict"), disk)
    lines.append("")
    if passed:
        told = ", ".join(f"{count} x {part}" for part, count in passed.items())
        lines.append(f"came or went after warm-up: {told}")
    lines.append("left behind after the end: " + (", ".join(left) if left else "nothing"))
    broken = sum(not row.kept for row in rows) + bool(left)
    lines.append(f"limits: {len(rows) + 1}, broken: {broken}")
    return "\n".join(lines)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[n]) for line in (heads, *rows)) for n in range(len(heads))]
    outer = (0, len(heads) - 1)
    return [
        "  ".join(
            cell.ljust(width) if n in outer else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (heads, *rows)
    ]
