"""Carrying out one simulation: progress, Ctrl-C, and the folder that is left behind.

What lies in the folder is said in `analysis.rundir`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from areal_sched.commands import Command
from areal_sched.events import Event
from areal_sched.journal import JournalWriter
from areal_sched.measurements import Measurement
from areal_sim.build import header_of, setup_of
from areal_sim.config import RunConfig, resolved_toml
from areal_sim.simulation import Simulation

if TYPE_CHECKING:
    from analysis.recorder import RunRecorder

_EVENTS_BETWEEN_LOOKS = 20_000
"""Events between looks at the clock and at Ctrl-C: some tenths of a second."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: training steps done and wanted, simulated and wall-clock seconds."""

    steps: int
    wanted: int
    simulated_s: float
    wall_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """A simulated run. ``interrupted``: Ctrl-C ended it before its last step."""

    summary: dict[str, Any]
    recorder: RunRecorder
    interrupted: bool
    out_dir: Path | None


class _Interrupt:
    """Turns the first Ctrl-C into a flag; the second ends the program as usual."""

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        def note(_signal: int, _frame: object) -> None:
            self.asked = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            yield  # somebody else sees to Ctrl-C
            return
        try:
            before = signal.signal(signal.SIGINT, note)
        except ValueError:  # not in the main thread: whoever is, handles Ctrl-C
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    # A run makes no cycles to speak of, but a million objects to look through for them: 10 %.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def simulate(
    config: RunConfig,
    *,
    name: str,
    out_dir: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Simulate a configuration.

    Args:
        config: what to simulate.
        name: the run's name, shown in titles.
        out_dir: where to leave the run directory; None leaves nothing.
        progress: called a few times a second.

    Raises:
        ConfigError: the configuration cannot be simulated; nothing was written.
        SimulationError: the run broke off; its journal is there and ends with the culprit.
    """
    from analysis.facts import RunFacts
    from analysis.recorder import RunRecorder
    from analysis.rundir import CONFIG, INTERRUPTED, JOURNAL, check_out_dir, write_results
    from analysis.summary import summarise

    setup = setup_of(config)
    scheduler = config.new_scheduler()
    header = header_of(config, name)
    recorder = RunRecorder(RunFacts.from_header(header))
    if out_dir is not None:
        check_out_dir(out_dir)

    def record(now_ns: int, event: Event, commands: tuple[Command, ...], error: str | None) -> None:
        journal.record(now_ns, event, commands, error)
        recorder.handled(now_ns, event, commands)

    def measure(now_ns: int, measurement: Measurement) -> None:
        journal.measure(now_ns, measurement)
        recorder.measured(measurement)

    interrupt = _Interrupt()
    began_s = time.perf_counter()
    with interrupt.watch(), _no_garbage_collection():
        journal_path = Path(os.devnull)
        if out_dir is not None:
            out_dir.mkdir(parents=True, exist_ok=True)
            (out_dir / CONFIG).write_text(resolved_toml(config))
            journal_path = out_dir / JOURNAL
        journal = JournalWriter(journal_path.open("wb"), header)
        try:
            simulation = Simulation(
                setup, scheduler, record=record, measure=measure, on_settled=recorder.settled
            )
            while not simulation.run(_EVENTS_BETWEEN_LOOKS) and not interrupt.asked:
                if progress is not None:
                    progress(_progress(simulation, began_s))
            simulation.close()
        finally:
            journal.close()
    wall_s = time.perf_counter() - began_s
    if progress is not None:
        progress(_progress(simulation, began_s))
    recorder.ended(simulation.now_ns, simulation.state.rollouts.values())
    summary = summarise(recorder, simulation.now_ns, wall_s, journal.sha256)
    interrupted = not simulation.finished
    if interrupted:
        summary[INTERRUPTED] = True
    if out_dir is not None:
        write_results(recorder, summary, out_dir)
    return Outcome(summary, recorder, interrupted, out_dir)


def _progress(simulation: Simulation, began_s: float) -> Progress:
    return Progress(
        steps=simulation.state.weight_version,
        wanted=simulation.setup.steps,
        simulated_s=simulation.now_ns / 1e9,
        wall_s=time.perf_counter() - began_s,
    )
