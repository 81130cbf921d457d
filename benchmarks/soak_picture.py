"""The picture of a soak: memory and open file descriptors of each process over training steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.soak_samples import Reading, Sample
from benchmarks.soak_verdicts import throughout

SIZE_INCHES = (9.0, 8.0)
DOTS_PER_INCH = 110

LEAST_SPAN_MB = 5.0
"""Growth is drawn at least on this scale: what is smaller should look small."""


def draw(samples: Sequence[Sample], warm_up: int, path: Path, title: str) -> None:
    """Draw it.

    Args:
        samples: in order of time.
        warm_up: steps that are not judged; they are shaded.
        path: of the PNG.
        title: above it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    own, growth, fds = figure.subplots(3, 1, sharex=True)
    figure.suptitle(title)
    names = throughout(samples, min(warm_up, samples[-1].step - 1))
    span_mb = LEAST_SPAN_MB
    for name in names:
        steps, values = _series(samples, name, lambda each: each.own_bytes / 1e6)
        own.plot(steps, values, linewidth=1, label=name)
        base = next((v for s, v in zip(steps, values, strict=True) if s >= warm_up), values[-1])
        grown = [value - base for value in values]
        growth.plot(steps, grown, linewidth=1, label=name)
        # Not the end, where parts are taken down and the run's tables are made.
        judged = [
            abs(value)
            for step, value in zip(steps, grown, strict=True)
            if warm_up <= step < samples[-1].step
        ]
        span_mb = max(span_mb, *judged, 0)
        steps, values = _series(samples, name, lambda each: each.fds)
        fds.plot(steps, values, linewidth=1, label=name)
    own.set_ylabel("memory, MB")
    own.set_yscale("log")
    growth.set_ylabel(f"against step {warm_up}, MB")
    growth.set_ylim(-1.1 * span_mb, 1.1 * span_mb)
    fds.set_ylabel("open file descriptors")
    fds.set_xlabel("training steps")
    for axes in (own, growth, fds):
        axes.axvspan(0, warm_up, color="0.92", zorder=0)
        axes.grid(linewidth=0.4)
        axes.set_xlim(0, samples[-1].step)
    figure.legend(*own.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def _series(
    samples: Sequence[Sample], name: str, value: Callable[[Reading], float]
) -> tuple[list[int], list[float]]:
    found = [(x.step, value(x.processes[name])) for x in samples if name in x.processes]
    return [step for step, _ in found], [each for _, each in found]
