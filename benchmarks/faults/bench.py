"""One training to which faults are injected, one after the other."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import textwrap
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.faults.books import JOURNAL, read_books
from benchmarks.faults.drive import MARK, RealRun, RunFailed, end_all, processes_of
from benchmarks.faults.table import OK, Row, RunRow
from benchmarks.faults.tail import JournalTail, unusual

LOOK_S = 0.001
"""How often it is looked whether the moment for a fault has come: a checkpoint takes 50 ms."""

SETTINGS: Mapping[str, object] = {
    "workload.prompts_per_step": 4,
    "workload.group_size": 4,
    "limits.max_rollouts_in_flight": 32,
    "real.checkpoint_every_steps": 1,
    "real.warm_start.steps": 20,
    "real.evaluation.every_steps": "inf",
    "real.evaluation.problems": 8,
}
"""A step takes a quarter of a second on two quiet cores."""

NOTICED_CHARACTERS = 110
"""How much of a run's own words the table shows."""

SHARED_MEMORY = "/dev/shm/"
SHARED_FOLDERS = ("areal-real-ports-", "torchinductor_")
"""Temporary folders that all runs of a user share, and that none removes: port leases, and the
cache of torch's compiler."""


class Bench:
    """The training of a scenario, and what can be seen of it.

    Args:
        folder: where its run directory goes; it is made and, if all is well, removed.
        settings: of the training.
        environment: variables of its processes.
        module, more: see `RealRun`.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, object],
        environment: Mapping[str, str],
        module: str,
        more: Sequence[str] = (),
    ) -> None:
        self.folder = folder / "run"
        self.settings = {**SETTINGS, **settings}
        self._temporary = folder / "tmp"
        self._temporary.mkdir(parents=True)
        self._mark = uuid.uuid4().hex
        self.environment = {
            **environment,
            MARK: self._mark,
            "TMPDIR": str(self._temporary),
            "PYTHONUNBUFFERED": "1",
        }
        self._module = module
        self._more = more
        self._shared: set[str] = set()
        self.resumptions = 0
        self.journal = JournalTail(self.folder / JOURNAL)
        self.run = self._start(resume=False)

    def _start(self, *, resume: bool) -> RealRun:
        return RealRun(
            self.folder,
            self.settings,
            resume=resume,
            environment=self.environment,
            module=self._module,
            more=self._more,
        )

    def resume(self) -> None:
        """Go on with a run that ended."""
        self.resumptions += 1
        self.run = self._start(resume=True)

    def note_shared_memory(self) -> None:
        """Remember which files of shared memory the run's processes have open."""
        for process in self.run.left():
            with contextlib.suppress(psutil.Error, OSError):
                words = Path(f"/proc/{process.pid}/maps").read_text().split()
                self._shared |= {word for word in words if word.startswith(SHARED_MEMORY)}

    def until(self, condition: Callable[[], object], what: str, every_s: float = 0.01) -> None:
        """Wait; the journal is read before each look."""

        def look() -> object:
            self.journal.read()
            return condition()

        self.run.until(look, what=what, every_s=every_s)

    def until_step(self, steps: int) -> None:
        """Wait until so many steps are done."""
        self.until(lambda: self.journal.steps >= steps, f"step {steps}")

    def leftovers(self) -> list[str]:
        """What a run that is over has left on the machine: processes, files, shared memory."""
        end_s = time.monotonic() + 20
        while (processes := processes_of(self._mark)) and time.monotonic() < end_s:
            time.sleep(0.2)
        left = [f"process {x.pid}: {' '.join(_command(x))[:80]}" for x in processes]
        end_all(processes)
        left += [str(x) for x in self._temporary.iterdir() if not x.name.startswith(SHARED_FOLDERS)]
        return left + sorted(x for x in self._shared if os.path.exists(x))

    def close(self) -> None:
        """End whatever still runs."""
        end_all(processes_of(self._mark))
        self.journal.close()


def _command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline() or [process.name()]
    return []


Look = Callable[[Bench], object]
Act = Callable[[Bench], object]
Around = Callable[[Path], contextlib.AbstractContextManager[Mapping[str, str]]]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault, or several that belong together.

    Attributes:
        what: in words.
        act: injects it.
        aim: the moment for it; looked at every millisecond while the run goes on.
        noted: pattern of what the run must say of it. Its first group is shown, or all of it.
        noticed: how it is noticed where the run says nothing; what its journal tells if empty.
        back: besides a further step, this must be so for it to be over.
        faults: how many it is.
        ends: exit status of the program if it ends by this; it is then resumed.
        heal: before it is resumed, or before it is waited that work goes on.
    """

    what: str
    act: Act
    aim: Look = lambda bench: True
    noted: str | None = None
    noticed: str = ""
    back: Look = lambda bench: True
    faults: int = 1
    ends: int | None = None
    heal: Act = lambda bench: None


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A training and the faults it has to survive.

    Attributes:
        name: of ``--only``.
        steps: of the training: enough for all faults.
        faults: in their order.
        settings, environment, module, more: of the training.
        around: entered with the scenario's folder before it, as to mount a disk; gives further
            environment variables.
        unable: why this machine cannot, if it cannot.
    """

    name: str
    steps: int
    faults: Sequence[Fault]
    settings: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    module: str = "areal_real.cli"
    more: Sequence[str] = ()
    around: Around = lambda folder: contextlib.nullcontext({})
    unable: Callable[[], str | None] = lambda: None


class Injector:
    """Injects the faults of one scenario.

    Args:
        scenario: which.
        tell: takes lines of progress.
    """

    def __init__(self, scenario: Scenario, tell: Callable[[str], None]) -> None:
        self._scenario = scenario
        self._tell = tell
        self.rows: list[Row] = []
        self.run = RunRow(run=scenario.name)

    def go(self, *, keep: bool) -> None:
        """Run it; what went wrong is in the rows.

        Args:
            keep: leave the run directory there.
        """
        scenario, begun_s = self._scenario, time.monotonic()
        reason = scenario.unable()
        if reason is not None:
            self.run.skipped = reason
            self._tell(f"skipped: {reason}")
            return
        home = Path(tempfile.mkdtemp(prefix="areal-f-"))
        try:
            with scenario.around(home) as environment:
                settings = {**scenario.settings, "workload.steps": scenario.steps}
                variables = {**scenario.environment, **environment}
                bench = Bench(home, settings, variables, scenario.module, scenario.more)
                try:
                    self._inject_all(bench)
                finally:
                    bench.close()
                    self.run.resumptions = bench.resumptions
                    if bench.run.log.exists() and self._failed:
                        self._tell(f"what it printed is in {home}; its end:\n{bench.run.tail}")
        finally:
            self.run.seconds = time.monotonic() - begun_s
            if not (keep or self._failed):
                shutil.rmtree(home, ignore_errors=True)

    @property
    def _failed(self) -> bool:
        return any(x != OK for x in (self.run.verdict, *(row.verdict for row in self.rows)))

    def _inject_all(self, bench: Bench) -> None:
        self._tell("starting")
        try:
            bench.until_step(2)
            for number, fault in enumerate(self._scenario.faults, start=1):
                row = Row(run=self._scenario.name, what=fault.what, faults=fault.faults)
                self.rows.append(row)
                try:
                    self._inject(bench, fault, row)
                except BaseException as exc:
                    row.verdict = "broken off" if isinstance(exc, KeyboardInterrupt) else str(exc)
                    raise
                self._tell(
                    f"{number}/{len(self._scenario.faults)} {row.what}, at step {row.step}:"
                    f" {row.noticed}; work went on after {row.seconds:.1f} s: {row.verdict}"
                )
            bench.until(lambda: bench.journal.steps >= self._scenario.steps, "the last step")
            status = bench.run.wait()
            problems = [] if status == 0 else [f"exit status {status}"]
            self.run.books = read_books(bench.folder, ended=True)
            if self.run.books.steps != self._scenario.steps:
                problems.append(f"{self.run.books.steps} steps of {self._scenario.steps}")
            problems += [*self.run.books.problems, *bench.leftovers()]
            self.run.verdict = "; ".join(problems) or OK
        except KeyboardInterrupt:
            self.run.verdict = "broken off"
            raise
        except Exception as exc:  # whatever it is: the other scenarios are still to come
            self.run.verdict = f"{type(exc).__name__}: {exc}".splitlines()[0]
            for fault in self._scenario.faults[len(self.rows) :]:
                self.rows.append(Row(run=self._scenario.name, what=fault.what, verdict="not tried"))
            with contextlib.suppress(Exception):
                self.run.books = read_books(bench.folder)
        self._tell(f"the run: {self.run.verdict}")

    def _inject(self, bench: Bench, fault: Fault, row: Row) -> None:
        journal = bench.journal
        bench.note_shared_memory()
        bench.until_step(journal.steps + 1)
        bench.until(lambda: fault.aim(bench), f"the moment for: {fault.what}", every_s=LOOK_S)
        mark, before = len(bench.run.text), list(journal.entries)
        row.step, at_s = journal.steps, time.monotonic()
        fault.act(bench)

        def said(pattern: str) -> re.Match[str] | None:
            return re.search(pattern, bench.run.text[mark:])

        if fault.ends is not None:
            status = bench.run.wait()
            if status != fault.ends:
                raise RunFailed(f"exit status {status} where {fault.ends} is due\n{bench.run.tail}")
            fault.heal(bench)
            bench.resume()
            bench.until(lambda: said(r"going on from step (\d+)"), "the resumption")
            bench.until(lambda: journal.common(before) < len(journal.entries), "a new entry")
        else:
            fault.heal(bench)
        if fault.noted is not None:
            pattern = fault.noted
            bench.until(lambda: said(pattern), f"a note of it: {pattern}")
            found = said(pattern)
            assert found is not None
            told = next(iter(found.groups()), found.group()).replace(str(bench.folder), "DIR")
            row.noticed = textwrap.shorten(told, NOTICED_CHARACTERS, placeholder=" ...")
        bench.until(lambda: fault.back(bench), "its end")
        bench.until_step(journal.steps + 1)
        row.seconds = time.monotonic() - at_s
        first = journal.common(before)
        if fault.noted is None:
            hints = [fault.noticed, unusual(journal.entries, first)]
            row.noticed = "; ".join(filter(None, hints)) or "not at all"
        row.lost = sum(n for place, n in journal.lost.items() if place >= first)
        row.resumed = sum(n for place, n in journal.resumed.items() if place >= first)
        books = read_books(bench.folder)
        row.verdict = "; ".join(books.problems) or OK
