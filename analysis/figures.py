"""Further pictures of a run: lag, steps, rollouts in flight, lengths."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analysis.columns import Ints
from analysis.drawing import FAINT, SECOND, SERIES, hours, new_figure, save, style
from analysis.recorder import RunRecorder
from analysis.steps import Steps, steady_state, steps_of
from analysis.summary import lags
from areal_sched.records import Phase

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_POINTS = 1500
"""Points in time of a curve over the run: more than a picture has pixels."""

_FEW_STEPS = 60
"""Up to so many steps each one is visible; a curve over more is drawn as a mean and a range."""

_BANDS = (240, 40)
"""Bands over a long run, and points in time each is taken from."""


def write_figures(recorder: RunRecorder, out_dir: Path | str) -> list[Path]:
    """Write the pictures of a run beside its timeline.

    Args:
        recorder: the run.
        out_dir: folder for ``lag.png, steps.png, in_flight.png, lengths.png``.

    Returns:
        The files written. A run without a finished step has no ``lag.png`` and ``steps.png``,
        one without any rollout no ``lengths.png``.
    """
    folder = Path(out_dir)
    written = []
    steps = steps_of(recorder)
    if len(steps):
        written.append(draw_lag(recorder, folder / "lag.png"))
        written.append(draw_steps(recorder, folder / "steps.png"))
    written.append(draw_in_flight(recorder, folder / "in_flight.png"))
    if len(recorder.trajectories):
        written.append(draw_lengths(recorder, folder / "lengths.png"))
    return written


def draw_lag(recorder: RunRecorder, path: Path | str) -> Path:
    """Draw how many versions old trajectories were when trained, in steady state."""
    steps = steps_of(recorder)
    values = lags(recorder, steps, steady_state(steps).first_step)
    with style():
        figure, axes = _one(recorder, "How old trajectories were when they were trained")
        if len(values):
            counts = np.bincount(values)
            shares = counts / counts.sum()
            axes.bar(np.arange(len(counts)), shares, width=0.85, color=SERIES)
            for lag, share in enumerate(shares.tolist()):
                if share > 0 and len(counts) <= 24:
                    axes.text(lag, share, _short_percent(share), ha="center", va="bottom", size=7)
            mean = float(values.mean())
            axes.axvline(mean, color=SECOND, linestyle="--", linewidth=1.4)
            axes.text(
                mean,
                1.03,
                f"mean {mean:.2f}",
                color=SECOND,
                ha="center",
                transform=axes.get_xaxis_transform(),
            )
            axes.set_xlim(-0.6, max(len(counts), 4) - 0.4)
        eta = recorder.facts.limits.get("eta")
        if isinstance(eta, int):
            axes.axvline(eta + 0.5, color="black", linewidth=1.2)
            axes.text(
                eta + 0.5,
                0.92,
                f" eta = {eta}\n (bounds admission,\n not lag)",
                va="top",
                size=7.5,
                transform=axes.get_xaxis_transform(),
            )
            axes.set_xlim(-0.6, max(axes.get_xlim()[1], eta + 2.5))
        axes.set_xlabel("lag (weight versions between first token and training)")
        axes.set_ylabel("share of trajectories")
        _whole_ticks(axes)
        _as_percent(axes)
        return save(figure, path)


def draw_steps(recorder: RunRecorder, path: Path | str) -> Path:
    """Draw step time and effective throughput of every training step."""
    steps = steps_of(recorder)
    first = steady_state(steps).first_step
    number = np.arange(1, len(steps) + 1)
    seconds = np.maximum(steps.step_ns, 1) / 1e9
    series = (
        ("step time (s)", seconds, SERIES, _mean_seconds(steps, first), "{:,.1f} s"),
        (
            "effective throughput\n(tokens/s)",
            steps.generated_tokens / seconds,
            SECOND,
            _mean_throughput(steps, first),
            "{:,.0f} tokens/s",
        ),
    )
    with style():
        figure = new_figure(8, 5)
        for place, (label, values, colour, mean, text) in enumerate(series):
            axes = figure.add_axes((0.12, 0.53 - 0.43 * place, 0.85, 0.33))
            marker = "." if len(steps) <= _FEW_STEPS else ""
            axes.plot(number, values, color=colour, linewidth=1.2, marker=marker, clip_on=False)
            axes.axhline(mean, color=FAINT, linestyle="--", linewidth=1)
            axes.set_title(f"mean {text.format(mean)}", loc="right", size=9, color=colour, pad=3)
            if first:
                axes.axvspan(0.5, first + 0.5, color="#eeeeee", zorder=0, linewidth=0)
                across = axes.get_xaxis_transform()
                axes.text(first + 0.5, 0.04, " start-up ends", transform=across, size=7.5)
            axes.set_xlim(0.5, len(steps) + 0.5)
            axes.set_ylim(0, 1.12 * float(values.max()))
            axes.set_ylabel(label)
        axes.set_xlabel("training step")
        _whole_ticks(axes)
        _title(figure, recorder, "Every training step; dashed: mean of the steady state")
        return save(figure, path)


def draw_in_flight(recorder: RunRecorder, path: Path | str) -> Path:
    """Draw how many rollouts are in flight and how many wait to be trained, over the run."""
    end_ns = recorder.end_ns
    shape = (_POINTS, 1) if len(recorder.trained_batches()["end_row"]) <= _FEW_STEPS else _BANDS
    grid = np.linspace(0, end_ns, shape[0] * shape[1]).astype(np.int64)
    in_flight, ready = in_flight_at(recorder, grid), ready_at(recorder, grid)
    with style():
        figure, axes = _one(recorder, "Rollouts in flight, and trajectories waiting to be trained")
        unit_ns, unit = (3600e9, "hours") if end_ns >= 2 * 3600e9 else (60e9, "minutes")
        x = grid.reshape(shape).mean(axis=1) / unit_ns
        curves = (
            ("in flight", in_flight.reshape(shape), SERIES, "-"),
            ("ready, not trained", ready.reshape(shape), SECOND, "-."),
        )
        for name, values, colour, line in curves:
            if shape[1] > 1:
                low, high = values.min(axis=1), values.max(axis=1)
                axes.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0)
                name += " (mean, range)"
            axes.plot(x, values.mean(axis=1), color=colour, linestyle=line, label=name)
        limit = recorder.facts.limits.get("max_rollouts_in_flight")
        top = max(int(in_flight.max(initial=1)), int(ready.max(initial=1)))
        if isinstance(limit, int) and limit <= 2 * top:
            axes.axhline(limit, color="black", linewidth=1, linestyle=":", label="limit in flight")
            top = max(top, limit)
        axes.set_xlim(0, max(float(x[-1]), 1e-9))
        axes.set_ylim(0, 1.08 * top)
        axes.set_xlabel(f"time since the run began ({unit})")
        axes.set_ylabel("rollouts")
        figure.legend(loc="upper right", bbox_to_anchor=(0.98, 0.89), ncols=3, fontsize=8)
        return save(figure, path)


def draw_lengths(recorder: RunRecorder, path: Path | str) -> Path:
    """Draw how long answers are: of trained trajectories, and of those dropped or failed."""
    tokens = recorder.trajectories["generated_tokens"]
    phase = recorder.settlement("phase")
    discarded = tokens[np.isin(phase, (Phase.FAILED, Phase.DROPPED))]
    # A rollout that fails before anything was reported of it counts as 0 tokens.
    known = discarded[discarded > 0]
    unknown = f" ({len(discarded) - len(known):,} more of unknown length)"
    groups = (
        ("trained", tokens[phase == Phase.TRAINED], SERIES, "-", ""),
        ("dropped or failed", known, SECOND, "--", unknown),
    )
    bins = np.linspace(0, max(int(tokens.max(initial=1)), 1), 81)
    with style():
        figure, axes = _one(recorder, "Generated tokens of a trajectory")
        for name, values, colour, line, more in groups:
            if not len(values):
                continue
            counts, _ = np.histogram(values, bins)
            p50, p99 = np.percentile(values, (50, 99))
            axes.stairs(
                counts / len(values),
                bins,
                color=colour,
                fill=name == "trained",
                alpha=0.75 if name == "trained" else 1.0,
                linestyle=line,
                linewidth=1.4,
                label=f"{name}: {len(values):,}, mean {values.mean():,.0f}, median {p50:,.0f}, "
                f"99 % below {p99:,.0f}{more}",
            )
        axes.set_xlim(0, bins[-1])
        axes.set_xlabel("generated tokens")
        axes.set_ylabel("share of trajectories per bin")
        axes.set_ylim(0, None)
        _as_percent(axes)
        if axes.get_legend_handles_labels()[0]:  # nothing, where no rollout was trained
            axes.legend(loc="upper right", fontsize=8)
        return save(figure, path)


def in_flight_at(recorder: RunRecorder, times_ns: Ints) -> Ints:
    """Rollouts on servers or interrupted at these times, shape as given."""
    columns = recorder.trajectories
    finish = columns["finish_ns"]
    left = np.where(finish >= 0, finish, recorder.settlement("settled_ns"))
    return _between(columns["start_ns"], left[left >= 0], times_ns)


def ready_at(recorder: RunRecorder, times_ns: Ints) -> Ints:
    """Trajectories with a reward that no training step has taken yet, shape as ``times_ns``."""
    ready = recorder.trajectories["ready_ns"]
    taken = recorder.settlement("train_ns")
    left = np.where(taken >= 0, taken, recorder.settlement("settled_ns"))
    accepted = ready >= 0
    return _between(ready[accepted], left[accepted & (left >= 0)], times_ns)


def _between(begun: NDArray[np.int64], ended: NDArray[np.int64], times_ns: Ints) -> Ints:
    arrived = np.searchsorted(np.sort(begun), times_ns, "right")
    left = np.searchsorted(np.sort(ended), times_ns, "right")
    return arrived - left


def _mean_seconds(steps: Steps, first: int) -> float:
    return float(steps.step_ns[first:].mean()) / 1e9


def _mean_throughput(steps: Steps, first: int) -> float:
    return float(steps.generated_tokens[first:].sum() / (steps.step_ns[first:].sum() / 1e9))


def _one(recorder: RunRecorder, title: str) -> tuple[Figure, Axes]:
    figure = new_figure(8, 4)
    axes = figure.add_axes((0.1, 0.14, 0.87, 0.66))
    _title(figure, recorder, title)
    return figure, axes


def _title(figure: Figure, recorder: RunRecorder, title: str) -> None:
    facts = recorder.facts
    height = figure.get_figheight()
    figure.text(0.02, 1 - 0.22 / height, title, size=12, weight="bold", va="center")
    figure.text(
        0.02,
        1 - 0.45 / height,
        f"{facts.scheduler_name}, {facts.name}, {facts.gpus} GPUs, {hours(recorder.end_ns)}",
        color=FAINT,
        va="center",
    )


def _short_percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "<1 %"


def _whole_ticks(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _as_percent(axes: Axes) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %", decimals=0))
