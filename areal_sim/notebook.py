"""Simulating from Python, for notebooks above all: a configuration in, tables and pictures out.

::

    import areal_sim

    run = areal_sim.simulate("configs/home-8gpu.toml", changes={"limits.eta": 2})
    run.summary["step_time_s"]["mean"]
    run.steps.plot(x="weight_version", y="step_time_s")
    run.timeline()
"""

from __future__ import annotations

import contextlib
import functools
import html
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from analysis.accounts import accounts
from analysis.causes import CAUSES
from analysis.recorder import RunRecorder
from areal_sched.config.options import dotted, toml_value
from areal_sched.errors import ConfigError
from areal_sim.commands.show import progress_bar, summary_rows
from areal_sim.config import RunConfig, load_config, parse_config, resolved_toml
from areal_sim.rundir import Progress
from areal_sim.rundir import simulate as carry_out

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Changes = Sequence[str] | Mapping[str, Any]
"""Keys to change: as ``--set`` takes them, ``["limits.eta=2"]``, or ``{"limits.eta": 2}``."""

_NAME = "run"
"""What a run is called whose configuration is no file."""


@dataclass(frozen=True, repr=False, eq=False)
class Run:
    """A simulated run. A notebook shows its main figures.

    Attributes:
        config: what was simulated.
        summary: a few dozen numbers; docs/reference/summary.md says what each one means.
        recorder: the run as `analysis` reads it, for further accounts and pictures.
        interrupted: Ctrl-C, or the notebook's stop button, ended it before its last step.
    """

    config: RunConfig
    summary: dict[str, Any]
    recorder: RunRecorder
    interrupted: bool

    @functools.cached_property
    def steps(self) -> pd.DataFrame:
        """One row a training step: `analysis.tables.STEP_COLUMNS`."""
        from analysis.tables import step_table

        return step_table(self.recorder)

    @functools.cached_property
    def trajectories(self) -> pd.DataFrame:
        """One row a rollout: `analysis.tables.TRAJECTORY_COLUMNS`."""
        from analysis.tables import trajectory_table

        return trajectory_table(self.recorder)

    @property
    def frame(self) -> pd.DataFrame:
        """The same as `steps`."""
        return self.steps

    def timeline(self, *, steps: int = 4, servers: int = 24) -> Figure:
        """Draw what every server and the trainer did, as ``timeline.png`` of a run directory.

        Args:
            steps: training steps to show.
            servers: at most so many of the servers are shown, evenly spread.
        """
        from analysis.timeline import timeline_figure

        figure = timeline_figure(self.recorder, steps=steps, servers=servers)
        _let_notebooks_show(type(figure))
        return figure

    def __repr__(self) -> str:
        mean = self.summary["step_time_s"]["mean"]
        took = "" if mean is None else f", {mean:,.1f} s a step"
        cut = ", interrupted" if self.interrupted else ""
        return f"<Run {self.summary['name']}: {self.summary['steps']} steps{took}{cut}>"

    def _repr_html_(self) -> str:
        """The main figures, and a bar of where the GPU time went."""
        rows = "".join(
            f'<tr><td style="text-align:left">{html.escape(label)}</td><td>{html.escape(text)}</td>'
            "</tr>"
            for label, text in summary_rows(self.summary)
        )
        cut = ", interrupted" if self.interrupted else ""
        name = html.escape(f"{self.summary['name']}{cut}")
        bar = "".join(_bar(self.recorder))
        return (
            f"<table><caption>{name}</caption>{rows}</table>"
            '<div style="font-size:smaller">GPU time by cause</div>'
            f'<div style="display:flex;height:1.2em;max-width:40em;border:1px solid">{bar}</div>'
        )


def simulate(
    config: str | Path | RunConfig | Mapping[str, Any],
    changes: Changes = (),
    *,
    name: str | None = None,
    progress: bool | Callable[[Progress], None] = False,
) -> Run:
    """Simulate a configuration. Nothing is written.

    Args:
        config: the path of a TOML file, its text (what has a line break is text), its tables as a
            mapping, or a `RunConfig`. Paths in a file are relative to its folder, others to the
            current folder.
        changes: keys to change, as of ``--set``; see `areal_sched.config.overrides`.
        name: the run's name, shown in titles; by default the file's, or "run".
        progress: True shows a bar on stderr; otherwise called a few times a second.

    Returns:
        The run. After Ctrl-C it is the run as far as it came, and says so.

    Raises:
        ConfigError: the configuration cannot be read or simulated; the message names file or key,
            and value.
        DoesNotFit: the model needs more memory than the GPUs have.
        SimulationError: the run broke off.
    """
    read = _read(config, _texts(changes))
    if name is None:
        name = Path(config).stem if _is_path(config) else _NAME
    with contextlib.ExitStack() as stack:
        show = progress if callable(progress) else None
        if progress is True:
            show = stack.enter_context(progress_bar(name))
        outcome = carry_out(read, name=name, progress=show)
    return Run(read, outcome.summary, outcome.recorder, outcome.interrupted)


def _is_path(config: object) -> TypeGuard[str | Path]:
    return isinstance(config, Path) or (isinstance(config, str) and "\n" not in config)


def _read(config: str | Path | RunConfig | Mapping[str, Any], changes: list[str]) -> RunConfig:
    if isinstance(config, RunConfig):
        return parse_config(resolved_toml(config), changes) if changes else config
    if isinstance(config, Mapping):
        return parse_config(_toml(config), changes)
    if isinstance(config, str) and not _is_path(config):
        return parse_config(config, changes)
    return load_config(config, changes)


def _toml(tables: Mapping[str, Any]) -> str:
    """A mapping as TOML, a line for each of its tables, so that a message can name the line."""
    return "".join(f"{dotted([key])} = {_value(value)}\n" for key, value in tables.items())


def _value(value: object) -> str:
    return toml_value(_plain(value))


def _plain(value: object) -> object:
    """A value without numpy's types, which do not write themselves as Python's do."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def _texts(changes: Changes) -> list[str]:
    if isinstance(changes, str):
        raise ConfigError(f"changes = {changes!r}: expected a list or a mapping, as [{changes!r}]")
    if isinstance(changes, Mapping):
        return [f"{key}={_value(value)}" for key, value in changes.items()]
    return list(changes)


def _bar(recorder: RunRecorder) -> Iterator[str]:
    """A part for each cause of GPU time; its name is shown under the mouse."""
    whole = accounts(recorder)
    for cause in CAUSES:
        share = whole.share(cause.key) or 0.0
        if share > 0:
            title = html.escape(f"{cause.label}: {share:.1%}")
            yield (
                f'<div title="{title}" style="width:{share:.2%};background:{cause.colour}"></div>'
            )


def _let_notebooks_show(kind: type[Figure]) -> None:
    """Have IPython draw figures; by itself it does only where pyplot was imported."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None:
        return
    from analysis.drawing import png_of

    png = shell.display_formatter.formatters["image/png"]
    if kind not in png:
        png.for_type(kind, png_of)
